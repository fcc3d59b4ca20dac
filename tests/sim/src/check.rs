//! What must hold, watched while a run goes on and looked at when it has settled.
//!
//! Owns: who holds what as the speakers themselves say, moves (`excuses` says which are right), how long two connected
//! nodes held one address, gaps in what clients could reach. Breaks of a rule are collected, not thrown, so that one
//! run shows all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use herald_l2::Revision;

use crate::Moment;
use crate::excuses::{Excuses, Move, RACE};

/// How far a class lets addresses move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moves {
    /// Not at all.
    None,
    /// Away from nodes (or of addresses) that a fault has struck, at most this often for each address and run.
    FromStruck(u32),
    /// Any number while faults last; none once settled.
    Any,
}

/// What a class promises.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Which moves are right.
    pub moves: Moves,
    /// For how long two connected nodes may hold one address.
    pub dual: Duration,
    /// For how long a client that sends all the time may reach nobody; `None`: no promise (loss, partitions).
    pub gap: Option<Duration>,
    /// How soon what a dead node held is somebody else's; `None`: no promise.
    pub takeover: Option<Duration>,
}

impl Bounds {
    /// No promise at all.
    pub const NOTHING: Self = Self { moves: Moves::Any, dual: Duration::MAX, gap: None, takeover: None };
}

/// Figures of a run.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// All moves after the warm-up.
    pub moves: Vec<Move>,
    /// The longest time two connected nodes held one address.
    pub dual: Duration,
    /// The longest time a client that sent all the time reached nobody.
    pub gap: Duration,
    /// The longest time until what a dead node held was somebody else's.
    pub takeover: Duration,
    /// Questions of clients that two nodes answered.
    pub answered_by_two: usize,
    /// Clients that ended with packets to the wrong node, where frames are lost.
    pub stale: usize,
    /// Questions that deputies answered.
    pub deputised: usize,
}

/// The watcher of one run.
#[derive(Debug)]
pub(crate) struct Check {
    bounds: Bounds,
    /// Which moves are a fault's doing.
    pub excuses: Excuses,
    holders: BTreeMap<IpAddr, BTreeSet<usize>>,
    still: BTreeSet<usize>,
    last_holder: BTreeMap<IpAddr, usize>,
    /// And the one before, until when.
    holder_before: BTreeMap<IpAddr, (usize, Moment)>,
    /// From here on moves count: everything before is the start.
    warm_at: Moment,
    /// From here on nothing may change.
    settled_at: Option<Moment>,
    both: BTreeMap<(IpAddr, usize, usize), Moment>,
    served: BTreeMap<(usize, IpAddr), Moment>,
    /// Hosts that were away from nodes, from when until when, and were told nothing when they came back.
    hosts_away: BTreeMap<usize, (Moment, Option<Moment>)>,
    orphaned: BTreeMap<IpAddr, Moment>,
    measured: Measured,
    violations: Vec<String>,
}

impl Check {
    /// Watches from the start; `warm_at`: when the nodes must have shared out the addresses.
    pub(crate) fn new(bounds: Bounds, warm_at: Moment) -> Self {
        Self {
            bounds,
            excuses: Excuses::default(),
            holders: BTreeMap::new(),
            still: BTreeSet::new(),
            last_holder: BTreeMap::new(),
            holder_before: BTreeMap::new(),
            warm_at,
            settled_at: None,
            both: BTreeMap::new(),
            served: BTreeMap::new(),
            hosts_away: BTreeMap::new(),
            orphaned: BTreeMap::new(),
            measured: Measured::default(),
            violations: Vec::new(),
        }
    }

    /// A rule was broken.
    pub(crate) fn violation(&mut self, now: Moment, what: &str) {
        self.violations.push(format!("at {} ms: {what}", now.as_millis()));
    }

    /// What was broken so far.
    #[cfg(test)]
    pub(crate) fn violations(&self) -> &[String] {
        &self.violations
    }

    /// Does this node say that it holds the address?
    pub(crate) fn holds(&self, vip: IpAddr, node: usize) -> bool {
        self.holders.get(&vip).is_some_and(|nodes| nodes.contains(&node))
    }

    /// Who says so, if anybody.
    pub(crate) fn holders(&self, vip: IpAddr) -> impl Iterator<Item = usize> + '_ {
        self.holders.get(&vip).into_iter().flatten().copied()
    }

    /// Every address that was ever held.
    pub(crate) fn vips(&self) -> Vec<IpAddr> {
        self.holders.keys().copied().collect()
    }

    /// Nothing of this node runs, or it runs on: what it held when it stopped nobody holds meanwhile.
    pub(crate) fn stands_still(&mut self, node: usize, still: bool) {
        if still {
            self.still.insert(node);
            self.excuses.forgets(node);
        } else {
            self.still.remove(&node);
        }
    }

    /// Nothing may change any more.
    pub(crate) fn settle(&mut self, now: Moment) {
        self.settled_at = Some(now);
    }

    /// A node holds an address from now on.
    pub(crate) fn claimed(&mut self, now: Moment, vip: IpAddr, node: usize, revision: Revision) {
        if let Some(at) = self.settled_at {
            let text =
                format!("n{} claims {vip} after everything had settled at {} ms", node + 1, at.as_millis());
            self.violation(now, &text);
        }
        self.holders.entry(vip).or_default().insert(node);
        if let Some(since) = self.orphaned.remove(&vip) {
            let takeover = now.saturating_sub(since);
            self.measured.takeover = self.measured.takeover.max(takeover);
            if self.bounds.takeover.is_some_and(|most| takeover > most) {
                self.violation(now, &format!("{vip} was without a holder for {} ms", takeover.as_millis()));
            }
        }
        let before = self.last_holder.insert(vip, node);
        if let Some(from) = before.filter(|from| *from != node) {
            self.holder_before.insert(vip, (from, now));
        }
        match before {
            Some(from) if from != node && now >= self.warm_at => {
                self.moved(Move { at: now, vip, from, to: node }, revision);
            }
            _ => {}
        }
    }

    fn moved(&mut self, step: Move, claimed_by: Revision) {
        let Move { at, vip, from, to } = step;
        let excused = self.excuses.excuse(&step, claimed_by);
        self.measured.moves.push(step);
        let earlier = self.measured.moves.iter().rev().skip(1).filter(|other| other.vip == vip);
        let races = earlier.clone().take(1).filter(|other| at.saturating_sub(other.at) < RACE).count();
        let moves = 1 + earlier.count() - races;
        let text = |why: &str| format!("{vip} moves from n{} to n{}: {why}", from + 1, to + 1);
        let wrong = match self.bounds.moves {
            Moves::Any => return,
            Moves::None => text("this class allows no move"),
            Moves::FromStruck(_) if !excused => text("no fault has struck either"),
            Moves::FromStruck(most) if u32::try_from(moves).is_ok_and(|moves| moves <= most) => return,
            Moves::FromStruck(most) => text(&format!("its move number {moves}, {most} allowed")),
        };
        self.violation(at, &wrong);
    }

    /// A node holds an address no longer.
    pub(crate) fn released(&mut self, now: Moment, vip: IpAddr, node: usize) {
        if let Some(at) = self.settled_at {
            let text =
                format!("n{} gives up {vip} after everything had settled at {} ms", node + 1, at.as_millis());
            self.violation(now, &text);
        }
        if let Some(holders) = self.holders.get_mut(&vip) {
            holders.remove(&node);
            // Of several it is now the others'.
            if let Some(other) = holders.iter().find(|other| !self.still.contains(other)) {
                self.last_holder.insert(vip, *other);
            }
        }
    }

    /// A speaker is gone, and holds nothing.
    pub(crate) fn ended(&mut self, node: usize) {
        self.stands_still(node, false);
        self.excuses.forgets(node);
        for (vip, holders) in &mut self.holders {
            // Of several, as after a split, it is now the others'.
            if holders.remove(&node)
                && let Some(other) = holders.iter().find(|other| !self.still.contains(other))
            {
                self.last_holder.insert(*vip, *other);
            }
        }
    }

    /// A node has died: what it held alone, or was kept for it, is nobody's.
    pub(crate) fn died(&mut self, now: Moment, node: usize) {
        for (vip, holders) in &self.holders {
            let kept = holders.is_empty() && self.last_holder.get(vip) == Some(&node);
            if kept || holders.iter().eq([&node]) {
                self.orphaned.insert(*vip, now);
            }
        }
        self.ended(node);
    }

    /// Looks for addresses held twice. `connected`: whether two nodes run and hear each other.
    pub(crate) fn compare(&mut self, now: Moment, connected: impl Fn(usize, usize) -> bool) {
        let mut both = BTreeMap::new();
        for (vip, holders) in &self.holders {
            for (n, a) in holders.iter().enumerate() {
                for b in holders.iter().skip(n + 1).filter(|b| connected(*a, **b)) {
                    let key = (*vip, *a, *b);
                    both.insert(key, self.both.get(&key).copied().unwrap_or(now));
                }
            }
        }
        for ((vip, a, b), since) in std::mem::replace(&mut self.both, both) {
            if self.both.contains_key(&(vip, a, b)) || now < self.warm_at {
                continue;
            }
            let dual = now.saturating_sub(since);
            self.measured.dual = self.measured.dual.max(dual);
            if dual > self.bounds.dual {
                let text = format!("n{} and n{} both held {vip} for {} ms", a + 1, b + 1, dual.as_millis());
                self.violation(now, &text);
            }
        }
    }

    /// A client's packet has reached a node that lives.
    pub(crate) fn packet_served(&mut self, now: Moment, host: usize, vip: IpAddr) {
        if let Some(last) = self.served.insert((host, vip), now)
            && now >= self.warm_at
        {
            let gap = now.saturating_sub(last.max(self.warm_at));
            self.measured.gap = self.measured.gap.max(gap);
            if self.bounds.gap.is_some_and(|most| gap > most) {
                self.violation(now, &format!("{vip} was out of a client's reach for {} ms", gap.as_millis()));
            }
        }
    }

    /// When a client last reached an address.
    pub(crate) fn last_served(&self, host: usize, vip: IpAddr) -> Option<Moment> {
        self.served.get(&(host, vip)).copied()
    }

    /// A client is no longer measured at this address: it was deleted, or moved out of reach on purpose.
    pub(crate) fn forget_served(&mut self, vip: IpAddr) {
        self.served.retain(|(_, served), _| *served != vip);
    }

    /// A deputy answered a client.
    pub(crate) fn deputised(&mut self) {
        self.measured.deputised += 1;
    }

    /// Was this node the last to hold the address, or is it no longer ago than this that it was?
    pub(crate) fn held_last(&self, vip: IpAddr, node: usize, since: Moment) -> bool {
        self.last_holder.get(&vip) == Some(&node)
            || self.holder_before.get(&vip).is_some_and(|(before, until)| *before == node && *until >= since)
    }

    /// Two nodes answered one question of a client.
    pub(crate) fn answered_by_two(&mut self, now: Moment, vip: IpAddr) {
        self.measured.answered_by_two += 1;
        if self.settled_at.is_some() {
            self.violation(now, &format!("two nodes answered one question for {vip} after all had settled"));
        }
    }

    /// A host lost sight of a node.
    pub(crate) fn host_lost(&mut self, now: Moment, host: usize) {
        self.hosts_away.entry(host).or_insert((now, None));
    }

    /// A host sees nodes again; `told`: they have something to announce to each other, and so to it.
    pub(crate) fn host_back(&mut self, now: Moment, host: usize, told: bool) {
        if told {
            self.hosts_away.remove(&host);
        } else if let Some((_, until)) = self.hosts_away.get_mut(&host) {
            *until = Some(now);
        }
    }

    /// Did the address move while this host was away, so that nobody told it?
    pub(crate) fn missed_a_move(&self, host: usize, vip: IpAddr) -> bool {
        let last = self.measured.moves.iter().rev().find(|step| step.vip == vip);
        self.hosts_away.get(&host).is_some_and(|(from, to)| {
            last.is_some_and(|step| step.at >= *from && to.is_some_and(|to| step.at <= to))
        })
    }

    /// So many clients ended with packets to the wrong node.
    pub(crate) fn stale_caches(&mut self, count: usize) {
        self.measured.stale = count;
    }

    /// What came out, at the end.
    pub(crate) fn finish(mut self, now: Moment) -> (Measured, Vec<String>) {
        self.compare(now, |_, _| false);
        (self.measured, self.violations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Duration::from_millis(ms)
    }

    fn vip() -> IpAddr {
        [10, 0, 1, 1].into()
    }

    fn check(moves: Moves) -> Check {
        let bounds = Bounds { moves, dual: at(250), gap: Some(at(300)), takeover: None };
        let mut check = Check::new(bounds, at(1_000));
        check.claimed(at(500), vip(), 0, Revision(1));
        check
    }

    fn violations(check: Check) -> Vec<String> {
        check.finish(at(60_000)).1
    }

    #[test]
    fn a_move_needs_an_excuse() {
        let mut excused = check(Moves::FromStruck(1));
        excused.excuses.strike(0, at(2_000));
        excused.claimed(at(1_500), vip(), 1, Revision(1));
        assert_eq!(violations(excused), [""; 0]);

        let mut too_late = check(Moves::FromStruck(1));
        too_late.excuses.strike(0, at(1_400));
        too_late.claimed(at(1_500), vip(), 1, Revision(1));
        assert_eq!(
            violations(too_late),
            ["at 1500 ms: 10.0.1.1 moves from n1 to n2: no fault has struck either"]
        );

        let mut twice = check(Moves::FromStruck(1));
        twice.excuses.strike_vip(vip(), at(9_000));
        twice.claimed(at(1_500), vip(), 1, Revision(1));
        twice.claimed(at(1_600), vip(), 0, Revision(1));
        assert_eq!(violations(twice).len(), 1);

        let mut again = check(Moves::None);
        again.released(at(1_500), vip(), 0);
        again.claimed(at(1_600), vip(), 0, Revision(1));
        assert_eq!(violations(again), [""; 0], "taking one's own back is no move");
    }

    #[test]
    fn a_dead_holder_is_to_be_followed_in_time() {
        for (claimed_at, broken) in [(1_700, 0), (1_701, 1)] {
            let mut check = check(Moves::Any);
            check.bounds.takeover = Some(at(200));
            check.died(at(1_500), 0);
            check.claimed(at(claimed_at), vip(), 1, Revision(1));
            assert_eq!(violations(check).len(), broken);
        }
    }

    #[test]
    fn nothing_changes_after_it_has_settled() {
        let mut check = check(Moves::Any);
        check.settle(at(2_000));
        check.released(at(2_001), vip(), 0);
        check.claimed(at(2_002), vip(), 0, Revision(1));
        assert_eq!(violations(check).len(), 2);
    }

    #[test]
    fn two_holders_count_only_while_connected_and_only_beyond_the_bound() {
        let mut check = check(Moves::Any);
        check.claimed(at(1_000), vip(), 1, Revision(1));
        check.compare(at(1_000), |_, _| false);
        check.compare(at(5_000), |_, _| true);
        check.released(at(5_200), vip(), 0);
        check.compare(at(5_200), |_, _| true);
        let (measured, broken) = check.finish(at(9_000));
        assert_eq!((measured.dual, broken.len()), (at(200), 0));

        let mut check = self::check(Moves::Any);
        check.claimed(at(1_000), vip(), 1, Revision(1));
        check.compare(at(1_000), |_, _| true);
        assert_eq!(violations(check), ["at 60000 ms: n1 and n2 both held 10.0.1.1 for 59000 ms"]);
    }

    #[test]
    fn a_clients_gap_is_measured_from_packet_to_packet() {
        let mut check = check(Moves::None);
        for ms in [900, 1_100, 1_400, 1_800] {
            check.packet_served(at(ms), 0, vip());
        }
        let (measured, violations) = check.finish(at(9_000));
        assert_eq!((measured.gap, violations.len()), (at(400), 1));
    }
}
