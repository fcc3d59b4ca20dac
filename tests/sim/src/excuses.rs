//! Which moves a fault excuses. As narrow as can be: a move that is excused without need is a fault of the protocol that
//! nobody sees.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use herald_l2::Revision;

use crate::Moment;

/// Two successors that claim within this race: they learned of the death at different moments, and the first one's
/// hellos were lost or still on their way. It counts as one move.
pub(crate) const RACE: Duration = Duration::from_millis(60);
/// A newcomer that is cut off within this may not have learned who holds what (rule A24).
const LISTENS: Duration = Duration::from_secs(1);

/// One address changed hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// When.
    pub at: Moment,
    /// Which.
    pub vip: IpAddr,
    /// Who held it before.
    pub from: usize,
    /// Who holds it now.
    pub to: usize,
}

/// What a speaker held when it ended, and those who know.
#[derive(Debug)]
struct LeftBehind {
    holder: usize,
    witnesses: BTreeSet<usize>,
}

/// What faults there were that let addresses move.
#[derive(Debug, Default)]
pub(crate) struct Excuses {
    /// From when until when.
    struck: BTreeMap<usize, (Moment, Moment)>,
    /// From when until when.
    cut_off: BTreeMap<usize, (Moment, Moment)>,
    born_cut_off: BTreeMap<usize, Moment>,
    started: BTreeMap<usize, Moment>,
    struck_vips: BTreeMap<IpAddr, Moment>,
    barred: BTreeMap<IpAddr, (Revision, BTreeSet<usize>)>,
    races: BTreeMap<IpAddr, Moment>,
    /// When its holder took it from another.
    taken: BTreeMap<IpAddr, Moment>,
    left_behind: BTreeMap<IpAddr, LeftBehind>,
}

impl Excuses {
    /// Moves away from this node are right until then.
    pub(crate) fn strike(&mut self, node: usize, until: Moment) {
        self.struck.insert(node, (Moment::ZERO, until));
    }

    /// Its speaker is away, its machine is not: moves are right from then on, when its peers have waited for as long as
    /// they do (rule A23). `again`: it was away before, and not ACTIVE since.
    pub(crate) fn away(&mut self, node: usize, from: Moment, again: bool) {
        let before = self.struck.get(&node).map(|(from, _)| *from);
        let from = before.filter(|_| again).map_or(from, |before| before.min(from));
        self.struck.insert(node, (from, Moment::MAX));
    }

    /// It is back: moves that were not right before are no longer, others are until then.
    pub(crate) fn back(&mut self, node: usize, until: Moment) {
        self.struck.entry(node).or_insert((Moment::ZERO, until)).1 = until;
    }

    /// The same, and until then neither does it hear the others nor they it.
    pub(crate) fn cut_off(&mut self, now: Moment, node: usize, until: Moment) {
        let since =
            self.cut_off.get(&node).filter(|(_, until)| *until >= now).map_or(now, |(since, _)| *since);
        self.cut_off.insert(node, (since, until));
        let young = self.started.get(&node).is_some_and(|started| now.saturating_sub(*started) < LISTENS);
        if young || self.born_cut_off.contains_key(&node) {
            self.born_cut_off.insert(node, until);
        }
    }

    /// Is this node cut off, or has it been until a moment ago?
    pub(crate) fn is_cut_off(&self, now: Moment, node: usize) -> bool {
        self.cut_off.get(&node).is_some_and(|(_, until)| *until >= now)
    }

    /// Its speaker starts: where it hears nobody, it can't know who holds what, and is alone (rule A35).
    pub(crate) fn started(&mut self, now: Moment, node: usize) {
        self.started.insert(node, now);
        if let Some((_, until)) = self.cut_off.get(&node).filter(|(_, until)| *until >= now) {
            self.born_cut_off.insert(node, *until);
        } else {
            self.born_cut_off.remove(&node);
        }
    }

    /// From this revision on these may not hold this address: who claims by it takes it from them, however late it
    /// was told.
    pub(crate) fn bar(&mut self, vip: IpAddr, revision: Revision, nodes: BTreeSet<usize>) {
        self.barred.insert(vip, (revision, nodes));
    }

    /// Moves of this address are right until then.
    pub(crate) fn strike_vip(&mut self, vip: IpAddr, until: Moment) {
        self.struck_vips.insert(vip, until);
    }

    /// A speaker ends: that what it held is to be kept is known to these others alone. Once none of them knows, it is
    /// kept for a moment, if status names it (rule A31).
    pub(crate) fn left_behind(&mut self, vip: IpAddr, holder: usize, witnesses: BTreeSet<usize>) {
        self.left_behind.insert(vip, LeftBehind { holder, witnesses });
    }

    /// A speaker has ended or stood still, and knows nothing of before.
    pub(crate) fn forgets(&mut self, node: usize) {
        for left_behind in self.left_behind.values_mut() {
            left_behind.witnesses.remove(&node);
        }
    }

    /// Is this move a fault's doing? `claimed_by`: the revision that the new holder claims by.
    pub(crate) fn excuse(&mut self, step: &Move, claimed_by: Revision) -> bool {
        let Move { at, vip, from, to } = *step;
        let lasts = |until: Option<&Moment>| until.is_some_and(|until| *until >= at);
        let barred = |(revision, nodes): &(Revision, BTreeSet<usize>)| {
            claimed_by >= *revision && nodes.contains(&from)
        };
        let forgotten = |claim: &LeftBehind| claim.holder == from && claim.witnesses.is_empty();
        let struck = self.struck.get(&from).filter(|(since, _)| *since <= at).map(|(_, until)| until);
        let cut_off = self.cut_off.get(&from).map(|(_, until)| until);
        // A new holder that was cut off has not heard what was taken meanwhile, and by whom; of what was held before it
        // has.
        let taken = self.taken.insert(vip, at);
        let unheard = self.cut_off.get(&to).filter(|(since, _)| taken.is_some_and(|taken| taken >= *since));
        let unheard = unheard.map(|(_, until)| until);
        let excused = [struck, cut_off, unheard, self.born_cut_off.get(&to)].into_iter().any(lasts)
            || lasts(self.struck_vips.get(&vip))
            || self.barred.get(&vip).is_some_and(barred)
            || self.left_behind.get(&vip).is_some_and(forgotten);
        self.left_behind.remove(&vip);
        if excused {
            // Two successors may take it at once, and one of them yields; that is the end of it.
            self.races.insert(vip, at + RACE);
        }
        excused || lasts(self.races.get(&vip))
    }
}
