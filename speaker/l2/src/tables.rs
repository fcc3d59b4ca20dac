//! How far a peer's table of holdings is known here: versions, gaps, and putting a SYNC together (rules A12, A14).
//!
//! Must always hold: `known` is the highest version up to which every change of the peer has been applied; what is
//! kept of versions beyond it, and of a SYNC under way, is bounded. The holdings themselves are in `vips`.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use herald_wire::NodeId;

use crate::time::Instant;

/// Versions beyond a gap that are remembered.
const AHEAD: usize = 1_024;
/// Frames of one SYNC: enough for a full table.
const PARTS: u16 = 4_096;
/// A SYNC_REQ without any answer is sent again after this: at 30 % loss one of two comes to nothing, and within
/// [`PATIENCE`] one must not.
const RETRY: Duration = Duration::from_millis(40);
/// A SYNC that brings nothing for so long has lost its rest.
const COMING: Duration = Duration::from_millis(20);
/// A table that stays unknown for this long holds up no claim (rule A33).
const PATIENCE: Duration = Duration::from_secs(1);
/// But those that its owner is said to have held last: it is there, so it holds them.
const PATIENCE_LAST_HOLDER: Duration = Duration::from_secs(4);

/// One peer's table, as far as it is known.
#[derive(Debug, Default)]
pub(crate) struct Table {
    known: u64,
    highest: u64,
    ahead: BTreeSet<u64>,
    synced: bool,
    /// Its owner has only just started, so it was not asked for.
    assumed: bool,
    incomplete_since: Option<Instant>,
    request_at: Option<Instant>,
    /// Its turn to be asked for comes by [`Requests`].
    queued: bool,
    /// When a request went out or a part came in last.
    received: Option<Instant>,
    assembly: Option<Assembly>,
}

#[derive(Debug)]
struct Assembly {
    version: u64,
    total: u16,
    parts: BTreeSet<u16>,
    /// Everything it claims; what is claimed here and not there was given up.
    listed: BTreeSet<IpAddr>,
}

/// Whose table is asked for next: a few at a time, in the order in which they were missed. However many are missing,
/// one timer waits for all of them.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    queue: VecDeque<NodeId>,
    /// Those asked for that may still be on their way.
    coming: Vec<NodeId>,
    pub(crate) next: Option<Instant>,
}

impl Requests {
    /// Queues a peer's table if it is to be asked for from now on.
    pub(crate) fn want(&mut self, node: NodeId, table: &mut Table, now: Instant) {
        if table.enqueue(now) {
            self.queue.push_back(node);
            self.next.get_or_insert(now);
        }
    }

    /// The next in the queue, unless so many tables are on their way as may be. `is_coming`: whether one still is.
    pub(crate) fn pop(&mut self, most: usize, is_coming: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        self.coming.retain(|node| is_coming(*node));
        if self.coming.len() >= most { None } else { self.queue.pop_front() }
    }

    /// It could not be asked for.
    pub(crate) fn put_back(&mut self, node: NodeId) {
        self.queue.push_front(node);
    }

    /// It was asked for, or a part of it has come in.
    pub(crate) fn is_on_its_way(&mut self, node: NodeId) {
        if !self.coming.contains(&node) {
            self.coming.push(node);
        }
    }

    /// Goes on at this moment, if anybody waits.
    pub(crate) fn pause(&mut self, until: Instant) {
        self.next = (!self.queue.is_empty()).then_some(until);
    }
}

impl Table {
    /// A peer that has just been met: all of its table is wanted, soon.
    pub(crate) fn unknown(now: Instant, jitter: Duration) -> Self {
        Self { incomplete_since: Some(now), request_at: Some(now + jitter), ..Self::default() }
    }

    /// A peer that has just started and holds nothing.
    pub(crate) fn empty() -> Self {
        Self { synced: true, assumed: true, ..Self::default() }
    }

    /// Its owner knows of what others held: an assumed table is asked for after all.
    pub(crate) fn doubt(&mut self, now: Instant) {
        if self.assumed {
            *self = Self { highest: self.highest, ..Self::unknown(now, Duration::ZERO) };
        }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.synced && self.known >= self.highest
    }

    /// Until when claims wait for this table; `None`: they don't.
    pub(crate) fn holds_up_until(&self, now: Instant) -> Option<Instant> {
        let until = self.incomplete_since.filter(|_| !self.is_complete())? + PATIENCE;
        (until > now).then_some(until)
    }

    /// Until when an address waits that this peer is said to have held last.
    pub(crate) fn probably_holds_until(&self) -> Option<Instant> {
        Some(self.incomplete_since.filter(|_| !self.is_complete())? + PATIENCE_LAST_HOLDER)
    }

    /// Takes note of a hello's version. `changes`: it carried the changes of that version.
    pub(crate) fn heard(&mut self, version: u64, changes: bool, now: Instant, jitter: Duration) {
        self.highest = self.highest.max(version);
        if changes && version > self.known && self.ahead.len() < AHEAD {
            self.ahead.insert(version);
        }
        self.advance();
        self.want(now, jitter);
    }

    /// These addresses were claimed by a hello: a SYNC that was rendered before does not list them.
    pub(crate) fn claimed(&mut self, vip: IpAddr) {
        if let Some(assembly) = &mut self.assembly {
            assembly.listed.insert(vip);
        }
    }

    /// Takes one frame of a SYNC. Returns what the peer claims, all of it, once the last missing part is in.
    pub(crate) fn part(
        &mut self,
        version: u64,
        index: u16,
        total: u16,
        claims: impl Iterator<Item = IpAddr>,
        now: Instant,
    ) -> Option<BTreeSet<IpAddr>> {
        if total > PARTS || version < self.known || (self.synced && version == self.known) {
            return None;
        }
        self.highest = self.highest.max(version);
        // A part rendered later than the first is fresher, and changes in between come by hello: they mix.
        let assembly = self.assembly.get_or_insert_with(|| Assembly {
            version,
            total,
            parts: BTreeSet::new(),
            listed: BTreeSet::new(),
        });
        assembly.version = assembly.version.min(version);
        assembly.total = assembly.total.max(total);
        assembly.parts.insert(index);
        assembly.listed.extend(claims);
        if assembly.parts.len() < usize::from(assembly.total) {
            self.request_at = Some(now + RETRY);
            self.received = Some(now);
            return None;
        }
        let Assembly { version, listed, .. } = self.assembly.take()?;
        self.known = version;
        self.synced = true;
        self.advance();
        self.want(now, Duration::ZERO);
        Some(listed)
    }

    /// Whether it is to be asked for from now on: then it is queued.
    fn enqueue(&mut self, now: Instant) -> bool {
        let due = !self.queued && self.request_at.is_some_and(|at| at <= now);
        self.queued |= due;
        due
    }

    /// Does it wait for its turn to be asked for?
    pub(crate) fn is_queued(&self) -> bool {
        self.queued
    }

    /// Asked for now: from which version; `None` when that is no longer needed.
    pub(crate) fn request(&mut self, now: Instant) -> Option<u64> {
        if !std::mem::take(&mut self.queued) {
            return None;
        }
        self.request_at = Some(now + RETRY);
        self.received = Some(now);
        Some(self.known)
    }

    /// Is it on its way here just now?
    pub(crate) fn is_coming(&self, now: Instant) -> bool {
        !self.is_complete() && self.received.is_some_and(|at| now.since(at) < COMING)
    }

    pub(crate) fn next_request(&self) -> Option<Instant> {
        self.request_at.filter(|_| !self.queued)
    }

    fn advance(&mut self) {
        if self.ahead.is_empty() {
            return;
        }
        while self.ahead.remove(&(self.known + 1)) {
            self.known += 1;
        }
        while self.ahead.first().is_some_and(|version| *version <= self.known) {
            self.ahead.pop_first();
        }
    }

    /// Asks for a SYNC after `jitter`, in which repeats of the change may still fill the gap.
    fn want(&mut self, now: Instant, jitter: Duration) {
        if self.is_complete() {
            self.incomplete_since = None;
            self.request_at = None;
            self.queued = false;
            self.assembly = None;
        } else {
            self.incomplete_since.get_or_insert(now);
            self.request_at.get_or_insert(now + jitter);
        }
    }
}
