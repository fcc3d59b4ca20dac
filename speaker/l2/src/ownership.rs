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
}

impl Candidates {
    pub(crate) fn new(all: Vec<Candidate>) -> Self {
        Self { all, listed: None }
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
        Eligibility::Eligible => return Decision::Rest,
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
