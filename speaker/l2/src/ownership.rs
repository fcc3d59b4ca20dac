//! Who holds an address: rules A28-A36, A41 and A42 as pure functions over plain data.
//!
//! Owns: the order of claims, ranks, and [`decide`]. Must always hold: the same view gives the same decision, and
//! every decision about an address is taken here. Does not: keep state, send, or look at peers itself.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use herald_wire::{Epoch, NodeId, Revision, Vip};

use crate::config::NodeName;
use crate::input::{Nodes, VipSpec};
use crate::output::ReleaseReason;
use crate::time::Instant;

/// How long each rank waits for the one before it (rule A33).
pub(crate) const RANK_STEP: Duration = Duration::from_millis(60);
/// A cordoned node lets so many ranks pass, then takes what nobody else wanted (rule A29).
const CORDONED_RANKS: u32 = 8;
/// A revision that nobody has claimed under for so long fences nothing any more (rule A41).
const REVISION_FENCE: Duration = Duration::from_mins(1);
/// A holder whose spec is deleted goes on for this long in case it returns (rule A42).
pub(crate) const DELETED_HOLD: Duration = Duration::from_secs(2);
/// A holder that its spec excludes stops after this (rule A42).
pub(crate) const EXCLUDED_HOLD: Duration = Duration::from_secs(1);

/// What a claim is worth (rule A28).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) revision: Revision,
    /// Zero does not count.
    pub(crate) reach: u16,
    pub(crate) epoch: Epoch,
    pub(crate) node: NodeId,
}

/// Rule A28: the newer spec, then the side that sees more peers, then the later claim, then the hash.
pub(crate) fn compare(vip: IpAddr, a: &Standing, b: &Standing) -> Ordering {
    let reach = if a.reach > 0 && b.reach > 0 { a.reach.cmp(&b.reach) } else { Ordering::Equal };
    a.revision
        .cmp(&b.revision)
        .then(reach)
        .then(a.epoch.cmp(&b.epoch))
        .then_with(|| rendezvous(vip, a.node).cmp(&rendezvous(vip, b.node)))
}

/// hash(vip, node): the same on every node and in every version, and it spreads addresses evenly. Three rounds of
/// the finaliser of SplitMix64 (Steele, Lea, Flood 2014) over the node and the two halves of the address.
pub(crate) fn rendezvous(vip: IpAddr, node: NodeId) -> u64 {
    let octets = u128::from_be_bytes(Vip::from(vip).octets());
    let high = u64::try_from(octets >> 64).unwrap_or_default();
    let low = u64::try_from(octets & u128::from(u64::MAX)).unwrap_or_default();
    mix(mix(mix(node.0).wrapping_add(high)).wrapping_add(low))
}

const fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A node that might take a free address.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) node: NodeId,
    pub(crate) name: Option<NodeName>,
    /// Still in LISTEN: counts for an address that was never held.
    pub(crate) listening: bool,
    /// Comes after all others (rule A29).
    pub(crate) cordoned: bool,
}

/// Those that might, and those of them that the last list of names lets: thousands of addresses share one.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    all: Vec<Candidate>,
    listed: Option<(Arc<[NodeName]>, Vec<Candidate>)>,
    /// Reckoned together with them: whether any peer is suspected, and those in grace.
    pub(crate) anybody_suspected: bool,
    pub(crate) in_grace: Vec<NodeId>,
}

impl Candidates {
    pub(crate) fn new(all: Vec<Candidate>) -> Self {
        Self { all, ..Self::default() }
    }

    /// Those that the spec lets.
    pub(crate) fn of(&mut self, spec: &VipSpec) -> &[Candidate] {
        let Nodes::Listed(names) = &spec.nodes else { return &self.all };
        let known = self.listed.as_ref().is_some_and(|(listed, _)| Arc::ptr_eq(listed, names));
        if !known {
            let may = |candidate: &&Candidate| may_hold(spec, candidate.name.as_ref());
            self.listed = Some((Arc::clone(names), self.all.iter().filter(may).cloned().collect()));
        }
        self.listed.as_ref().map_or(&[], |(_, candidates)| candidates)
    }
}

/// Rule A32: how many of those that the spec lets come before `me`.
pub(crate) fn rank(
    spec: &VipSpec,
    me: &Candidate,
    last_holder: Option<NodeId>,
    never_held: bool,
    candidates: &[Candidate],
) -> u32 {
    let key = |candidate: &Candidate| {
        let weight = candidate
            .name
            .as_ref()
            .and_then(|name| spec.preferred.iter().find(|(preferred, _)| preferred == name))
            .map_or(0, |(_, weight)| *weight);
        let held_last = match last_holder {
            Some(last) => last == candidate.node,
            // Nobody here has seen a claim yet: after a restart of everything, status is the memory (rule A31).
            None => candidate.name.as_ref().is_some_and(|name| spec.holders_hint.contains(name)),
        };
        (!candidate.cordoned, held_last, weight, rendezvous(spec.vip, candidate.node))
    };
    let mine = key(me);
    let before = candidates
        .iter()
        .filter(|candidate| (never_held || !candidate.listening) && key(candidate) > mine)
        .count();
    u32::try_from(before).unwrap_or(u32::MAX)
}

/// Does the spec name this node? One whose name is not known yet is named by `All` only.
pub(crate) fn may_hold(spec: &VipSpec, name: Option<&NodeName>) -> bool {
    match (&spec.nodes, name) {
        (Nodes::All, _) => true,
        (nodes, Some(name)) => nodes.contains(name),
        (Nodes::Listed(_), None) => false,
    }
}

/// Has a newer spec than the one it was claimed under taken the address from this node (rules A36, A42)? Then nothing is
/// kept for it. One whose name is not known yet may be anybody.
pub(crate) fn is_overruled(spec: Option<&VipSpec>, name: Option<&NodeName>, claimed: Revision) -> bool {
    name.is_some() && spec.is_some_and(|spec| spec.revision > claimed && !may_hold(spec, name))
}

/// The same of a node whose claim was never heard.
pub(crate) fn is_excluded(spec: Option<&VipSpec>, name: Option<&NodeName>) -> bool {
    is_overruled(spec, name, Revision(0))
}

/// My place among those that might take an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rank {
    /// How many come before me.
    pub(crate) before: u32,
    /// My node is cordoned.
    pub(crate) cordoned: bool,
}

impl Rank {
    fn steps(self) -> u32 {
        if self.cordoned { self.before.saturating_add(CORDONED_RANKS) } else { self.before }
    }
}

/// This node's own right to the address (rule A29).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Eligibility {
    /// Spec present, node listed, interface matches, node not excluded.
    Eligible,
    /// The same, but the last list lacks the spec, and lacks so much that it is not believed yet (rule A42): what is
    /// held is kept, nothing is taken.
    Doubted,
    /// No spec, since then.
    NoSpec(Instant),
    /// Excluded by spec, interface or node, since then.
    Excluded(Instant),
}

/// The greatest claim of anybody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rival {
    pub(crate) standing: Standing,
    /// When a newer spec of mine began to exclude its node; `None`: it doesn't.
    pub(crate) overruled_since: Option<Instant>,
}

/// One address as this node sees it.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) vip: IpAddr,
    pub(crate) now: Instant,
    pub(crate) eligibility: Eligibility,
    /// My spec's revision.
    pub(crate) revision: Revision,
    /// My claim.
    pub(crate) mine: Option<Standing>,
    /// The greatest live claim.
    pub(crate) live: Option<Rival>,
    /// Somebody's previous boot claimed it (rule A31).
    pub(crate) reserved: bool,
    /// Kept until then for those that `status.holders` names (rule A31), or for a last holder that is there and has
    /// not told yet what it holds (rule A33).
    pub(crate) kept_until: Option<Instant>,
    /// The newest revision that any claim carried.
    pub(crate) newest_revision: Revision,
    /// Since when nobody holds it.
    pub(crate) free_since: Instant,
    /// My rank (rule A32).
    pub(crate) rank: Rank,
    /// I am LEAVING: whoever wants it may have it (rule A44).
    pub(crate) leaving: bool,
    /// The conditions that are the same for all addresses of a segment.
    pub(crate) gate: Gate,
    /// Its holder was suspected: claims want fresh proof.
    pub(crate) needs_proof: bool,
    /// Nobody else may have it: probes come first, and whether they are done.
    pub(crate) probe: Probe,
}

/// What a segment must fulfil before anything may be claimed on it (rules A24, A26, A33).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gate {
    /// ACTIVE, able, not leaving, not idle.
    pub(crate) open: bool,
    /// Nothing is claimed before this: after being mute, or until every table is known.
    pub(crate) not_before: Option<Instant>,
    /// There is proof not older than 6f.
    pub(crate) proof: bool,
}

/// Conflict probes before a claim (rules A33, A48).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// None needed, or unanswered.
    Clear,
    /// Needed, not begun.
    Needed,
    /// On its way, or somebody answered: nothing before then.
    Wait(Instant),
}

/// What to do about an address now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Nothing, until something changes that concerns this address.
    Rest,
    /// Nothing, until then.
    Wait(Instant),
    /// Nothing, until the segment's gate or the proof changes.
    Blocked,
    /// Start probing.
    Probe,
    /// Take it (rule A34).
    Claim,
    /// Take it from its live holder (rule A36).
    Override,
    /// Stop: a greater claim (rule A37).
    Yield(NodeId),
    /// Stop: no right to it any more (rule A42).
    Release(ReleaseReason),
}

/// Rules A29-A36, A41, A42.
pub(crate) fn decide(view: &View) -> Decision {
    match view.mine {
        Some(mine) => decide_held(view, &mine),
        None if view.eligibility != Eligibility::Eligible => Decision::Rest,
        None => match view.live {
            Some(rival) => decide_override(view, &rival),
            None if view.reserved => Decision::Rest,
            None => decide_free(view),
        },
    }
}

fn decide_held(view: &View, mine: &Standing) -> Decision {
    if let Some(rival) = view.live
        && (view.leaving || compare(view.vip, &rival.standing, mine) == Ordering::Greater)
    {
        return Decision::Yield(rival.standing.node);
    }
    let (end, reason) = match view.eligibility {
        Eligibility::Eligible | Eligibility::Doubted => return Decision::Rest,
        Eligibility::NoSpec(since) => (since + DELETED_HOLD, ReleaseReason::SpecDeleted),
        Eligibility::Excluded(since) => (since + EXCLUDED_HOLD, ReleaseReason::Ineligible),
    };
    if view.now >= end { Decision::Release(reason) } else { Decision::Wait(end) }
}

fn decide_override(view: &View, rival: &Rival) -> Decision {
    let Some(since) = rival.overruled_since else { return Decision::Rest };
    if view.revision <= rival.standing.revision {
        return Decision::Rest;
    }
    if !view.gate.open {
        return Decision::Blocked;
    }
    let turn = (since + RANK_STEP * view.rank.steps().saturating_add(4))
        .max(view.gate.not_before.unwrap_or_default());
    if view.now < turn { Decision::Wait(turn) } else { Decision::Override }
}

fn decide_free(view: &View) -> Decision {
    // Rule A41: somebody works with a newer spec, which may exclude me.
    let fence = view.free_since + REVISION_FENCE;
    if view.revision < view.newest_revision && view.now < fence {
        return Decision::Wait(fence);
    }
    if !view.gate.open {
        return Decision::Blocked;
    }
    let turn = (view.free_since + RANK_STEP * view.rank.steps())
        .max(view.gate.not_before.unwrap_or_default())
        .max(view.kept_until.unwrap_or_default());
    if view.now < turn {
        return Decision::Wait(turn);
    }
    if view.needs_proof && !view.gate.proof {
        return Decision::Blocked;
    }
    match view.probe {
        Probe::Clear => Decision::Claim,
        Probe::Needed => Decision::Probe,
        Probe::Wait(until) => Decision::Wait(until),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);

    fn vip() -> IpAddr {
        IpAddr::from([10, 0, 1, 1])
    }

    fn ms(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn standing(node: NodeId, revision: u64, epoch: u64) -> Standing {
        Standing { revision: Revision(revision), reach: 0, epoch: Epoch(epoch), node }
    }

    /// At 10 s, free since then, spec at revision 5, nothing in the way, my turn.
    fn free() -> View {
        View {
            vip: vip(),
            now: ms(10_000),
            eligibility: Eligibility::Eligible,
            revision: Revision(5),
            mine: None,
            live: None,
            reserved: false,
            kept_until: None,
            newest_revision: Revision(5),
            free_since: ms(10_000),
            rank: Rank { before: 0, cordoned: false },
            leaving: false,
            gate: Gate { open: true, not_before: None, proof: true },
            needs_proof: false,
            probe: Probe::Clear,
        }
    }

    fn rival(revision: u64, epoch: u64, overruled_since: Option<Instant>) -> Rival {
        Rival { standing: standing(OTHER, revision, epoch), overruled_since }
    }

    #[test]
    fn newer_spec_beats_reach_beats_epoch_beats_hash() {
        let older = standing(ME, 4, 9);
        let newer = standing(OTHER, 5, 1);
        assert_eq!(compare(vip(), &newer, &older), Ordering::Greater);
        let seen_more = Standing { reach: 3, ..standing(ME, 5, 1) };
        let seen_less = Standing { reach: 2, ..standing(OTHER, 5, 9) };
        assert_eq!(compare(vip(), &seen_more, &seen_less), Ordering::Greater);
        let silent = Standing { reach: 0, ..seen_less };
        assert_eq!(compare(vip(), &seen_more, &silent), Ordering::Less, "reach counts only if both tell it");
        let (a, b) = (standing(ME, 5, 2), standing(OTHER, 5, 2));
        assert_eq!(compare(vip(), &a, &b), compare(vip(), &b, &a).reverse());
        assert_ne!(compare(vip(), &a, &b), Ordering::Equal);
    }

    #[test]
    fn what_happens_to_a_free_address() {
        let rank = |before, cordoned| Rank { before, cordoned };
        let closed = Gate { open: false, not_before: None, proof: true };
        let unproved = Gate { open: true, not_before: None, proof: false };
        let later = Gate { open: true, not_before: Some(ms(10_500)), proof: true };
        let cases = [
            ("my turn", free(), Decision::Claim),
            ("second in line", View { rank: rank(1, false), ..free() }, Decision::Wait(ms(10_060))),
            (
                "second, its time has come",
                View { rank: rank(1, false), now: ms(10_060), ..free() },
                Decision::Claim,
            ),
            ("cordoned", View { rank: rank(0, true), ..free() }, Decision::Wait(ms(10_480))),
            ("not ACTIVE", View { gate: closed, ..free() }, Decision::Blocked),
            ("tables unknown or mute lately", View { gate: later, ..free() }, Decision::Wait(ms(10_500))),
            (
                "dead holder, no proof",
                View { gate: unproved, needs_proof: true, ..free() },
                Decision::Blocked,
            ),
            ("proof not needed", View { gate: unproved, ..free() }, Decision::Claim),
            (
                "status names another",
                View { kept_until: Some(ms(11_000)), ..free() },
                Decision::Wait(ms(11_000)),
            ),
            ("a previous boot's", View { reserved: true, ..free() }, Decision::Rest),
            ("excluded", View { eligibility: Eligibility::Excluded(ms(0)), ..free() }, Decision::Rest),
            ("no spec", View { eligibility: Eligibility::NoSpec(ms(0)), ..free() }, Decision::Rest),
            (
                "a newer spec is out",
                View { newest_revision: Revision(6), ..free() },
                Decision::Wait(ms(70_000)),
            ),
            (
                "a newer spec was out, a minute ago",
                View { newest_revision: Revision(6), now: ms(70_000), ..free() },
                Decision::Claim,
            ),
            ("to be probed", View { probe: Probe::Needed, ..free() }, Decision::Probe),
            ("being probed", View { probe: Probe::Wait(ms(10_050)), ..free() }, Decision::Wait(ms(10_050))),
        ];
        for (name, view, expected) in cases {
            assert_eq!(decide(&view), expected, "{name}");
        }
    }

    #[test]
    fn what_happens_to_an_address_of_others() {
        let cases = [
            ("held", View { live: Some(rival(5, 1, None)), ..free() }, Decision::Rest),
            (
                "held under an older spec that names it",
                View { live: Some(rival(4, 1, None)), ..free() },
                Decision::Rest,
            ),
            (
                "my newer spec excludes the holder",
                View { live: Some(rival(4, 1, Some(ms(10_000)))), ..free() },
                Decision::Wait(ms(10_240)),
            ),
            (
                "and still does when my turn comes",
                View { live: Some(rival(4, 1, Some(ms(9_760)))), ..free() },
                Decision::Override,
            ),
            (
                "excluded, but by a spec that is not newer",
                View { live: Some(rival(5, 1, Some(ms(0)))), ..free() },
                Decision::Rest,
            ),
        ];
        for (name, view, expected) in cases {
            assert_eq!(decide(&view), expected, "{name}");
        }
    }

    #[test]
    fn what_happens_to_an_address_of_mine() {
        let held = View { mine: Some(standing(ME, 5, 3)), ..free() };
        let excluded = Eligibility::Excluded(ms(9_500));
        let deleted = Eligibility::NoSpec(ms(9_500));
        let cases = [
            ("nobody else", held.clone(), Decision::Rest),
            ("a lesser claim", View { live: Some(rival(5, 2, None)), ..held.clone() }, Decision::Rest),
            (
                "a greater claim",
                View { live: Some(rival(5, 4, None)), ..held.clone() },
                Decision::Yield(OTHER),
            ),
            (
                "a newer spec's claim",
                View { live: Some(rival(6, 1, None)), ..held.clone() },
                Decision::Yield(OTHER),
            ),
            (
                "a lesser claim, and I leave",
                View { live: Some(rival(5, 2, None)), leaving: true, ..held.clone() },
                Decision::Yield(OTHER),
            ),
            ("excluded", View { eligibility: excluded, ..held.clone() }, Decision::Wait(ms(10_500))),
            ("deleted", View { eligibility: deleted, ..held.clone() }, Decision::Wait(ms(11_500))),
            (
                "excluded for a second",
                View { eligibility: excluded, now: ms(10_500), ..held.clone() },
                Decision::Release(ReleaseReason::Ineligible),
            ),
            (
                "deleted for two",
                View { eligibility: deleted, now: ms(11_500), ..held.clone() },
                Decision::Release(ReleaseReason::SpecDeleted),
            ),
            (
                "mute or unable: kept",
                View { gate: Gate { open: false, not_before: None, proof: false }, ..held },
                Decision::Rest,
            ),
        ];
        for (name, view, expected) in cases {
            assert_eq!(decide(&view), expected, "{name}");
        }
    }

    #[test]
    fn last_holder_then_weight_then_hash_and_cordoned_ones_last() {
        let node = |id: u64| Candidate {
            node: NodeId(id),
            name: Some(NodeName::from(format!("n{id}"))),
            listening: false,
            cordoned: false,
        };
        let mut spec = VipSpec {
            vip: vip(),
            revision: Revision(1),
            nodes: Nodes::All,
            interfaces: Vec::new(),
            preferred: Vec::new(),
            conflict_detection: false,
            ignore_exclusion: false,
            holders_hint: Vec::new(),
        };
        let others = |me: u64| (1..=4).filter(|id| *id != me).map(node).collect::<Vec<_>>();
        let ranks = |spec: &VipSpec, last: Option<u64>| {
            let never_held = last.is_none();
            (1..=4)
                .map(|me| rank(spec, &node(me), last.map(NodeId), never_held, &others(me)))
                .collect::<Vec<_>>()
        };
        let by_hash = ranks(&spec, None);
        let mut sorted = by_hash.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 1, 2, 3], "each node has a place of its own");
        let last = ranks(&spec, Some(3));
        assert_eq!(last.get(2), Some(&0));
        spec.preferred = vec![("n2".into(), 10)];
        assert_eq!(ranks(&spec, None).get(1), Some(&0));
        assert_eq!(ranks(&spec, Some(3)).get(1), Some(&1), "the last holder comes first");
        spec.preferred.clear();
        spec.holders_hint = vec!["n4".into()];
        assert_eq!(ranks(&spec, None).get(3), Some(&0), "status is the memory after a restart of everything");
        assert_eq!(ranks(&spec, Some(3)).get(2), Some(&0), "but only then");
        let mut cordoned = node(4);
        cordoned.cordoned = true;
        assert_eq!(rank(&spec, &cordoned, Some(NodeId(4)), false, &others(4)), 3);
    }

    #[test]
    fn addresses_spread_evenly() {
        let mut won = [0u32; 5];
        for n in 0..5_000u16 {
            let vip = IpAddr::from([10, 1, n.to_be_bytes()[0], n.to_be_bytes()[1]]);
            let best =
                (0..5usize).max_by_key(|node| rendezvous(vip, NodeId(u64::try_from(*node).unwrap() + 1)));
            won[best.unwrap()] += 1;
        }
        assert!(won.iter().all(|won| (900..1_100).contains(won)), "{won:?}");
    }
}
