//! Who is known on a segment: the peer table, replay windows, challenges (rules A6, A7, A9) and how long a previous
//! boot's claims count (A31).
//!
//! Owns what is known of each peer. Must always hold: nothing of a (node, boot, ifindex) that has not echoed a fresh
//! salt gets past this table; the table and the challenges are bounded. Does not judge who is dead (`detect`).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use herald_wire::hello::{Hello, State};
use herald_wire::{Boot, Counter, IfIndex, MacAddr, NodeId, ReplayWindow, Salt};

use crate::config::NodeName;
use crate::detect::{Loss, Suspicion};
use crate::grace::{Away, Grace};
use crate::kernel::Kernel;
use crate::output::{Gone, PeerId};
use crate::tables::Table;
use crate::time::Instant;

/// Peers remembered; a segment with more speakers is beyond any plan.
const CAPACITY: usize = 4_096;
/// Challenges that wait for their answer.
const PENDING: usize = 256;
/// Challenges sent per second (rule A7): to nodes that are heard in another boot, and to nodes that are not heard.
/// The second are those that wait to be let in; the first are mostly recordings.
const CHALLENGES_PER_SECOND: u32 = 20;
const CHALLENGES_PER_SECOND_UNHEARD: u32 = 200;
/// A challenge is sent again after this, whether or not another hello was heard: under loss many are needed.
const CHALLENGE_RETRY: Duration = Duration::from_millis(50);
/// After so many only when another hello is heard; that is a recording, almost certainly, and dies out.
const CHALLENGES_IN_EARNEST: u32 = 8;
const CHALLENGE_PATIENT: Duration = Duration::from_millis(200);
const CHALLENGES_AT_ALL: u32 = 24;
const CHALLENGE_RECORDING: Duration = Duration::from_secs(10);
/// A newcomer waits so long for those that it hears and has not got to know.
const ACQUAINTANCE: Duration = Duration::from_secs(1);
/// A peer that is gone is forgotten after this (rule A21).
pub(crate) const FORGET: Duration = Duration::from_mins(1);

/// One known peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    pub(crate) boot: Boot,
    pub(crate) ifindex: IfIndex,
    pub(crate) mac: MacAddr,
    pub(crate) name: Option<NodeName>,
    pub(crate) state: State,
    pub(crate) able: bool,
    /// Comes last when ranks are reckoned (rule A29).
    pub(crate) cordoned: bool,
    pub(crate) reach: u16,
    pub(crate) interval: Duration,
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Addr>,
    pub(crate) status: Status,
    pub(crate) last_heard: Instant,
    pub(crate) loss: Loss,
    pub(crate) kernel: Kernel,
    pub(crate) table: Table,
    /// Until when claims of its previous lives count (rule A31).
    pub(crate) reserved_until: Option<Instant>,
    /// Since when it is ACTIVE, in this boot.
    pub(crate) active_since: Option<Instant>,
    /// It has been away, and not ACTIVE since.
    pub(crate) away: Option<Away>,
    pub(crate) known_since: Instant,
    /// False: it only appeared behind another interface, where it is new.
    pub(crate) may_have_restarted: bool,
    /// When `Peers::timers` brings it up next; other entries there are of an earlier plan.
    next_look: Option<Instant>,
    window: ReplayWindow,
}

/// A peer's condition as seen from here.
#[derive(Debug)]
pub(crate) enum Status {
    Alive,
    Suspected(Suspicion),
    /// Its speaker is not heard, its kernel is (rule A23).
    Grace(Grace),
    Gone {
        how: Gone,
        since: Instant,
    },
}

/// In which life a peer claims: a start of its process on an interface. With either the other one begins, and what it
/// held is no longer answered for.
pub(crate) type Life = (Boot, IfIndex);

/// What a frame's header says about its sender, verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Triple {
    pub(crate) node: NodeId,
    pub(crate) boot: Boot,
    pub(crate) ifindex: IfIndex,
}

/// How a frame's sender is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Known, and the frame is fresh; `in_order`: newer than all before.
    Known { in_order: bool },
    /// Known, but seen before or too old.
    Replayed,
    /// Has to prove itself first.
    Unknown,
}

/// Whether an echo made a peer known.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// It proves nothing, or the table is full.
    No,
    /// A node not known before.
    New,
    /// A node that was this before.
    Again(Box<Peer>),
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    salt: Salt,
    mac: MacAddr,
    first: Instant,
    sent: Instant,
    tries: u32,
}

impl Pending {
    /// When to ask again unprompted.
    fn next(&self) -> Option<Instant> {
        (self.tries < CHALLENGES_IN_EARNEST).then(|| self.sent + CHALLENGE_RETRY)
    }
}

/// How long to wait for an answer to the challenge after so many before it.
fn retry_after(tries: u32) -> Duration {
    match tries {
        0..CHALLENGES_IN_EARNEST => CHALLENGE_RETRY,
        CHALLENGES_IN_EARNEST..CHALLENGES_AT_ALL => CHALLENGE_PATIENT,
        _ => CHALLENGE_RECORDING,
    }
}

/// All peers of a segment.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    map: BTreeMap<NodeId, Peer>,
    pending: BTreeMap<Triple, Pending>,
    timers: BinaryHeap<Reverse<(Instant, NodeId)>>,
    challenged: Bucket,
    challenged_unheard: Bucket,
    met_anybody: bool,
}

impl Peer {
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.status, Status::Gone { .. })
    }

    pub(crate) fn is_in_grace(&self) -> bool {
        matches!(self.status, Status::Grace(_))
    }

    /// Gone by silence alone, its own or its kernel's: what is not heard may live on the other side of a split.
    pub(crate) fn was_declared_dead(&self) -> bool {
        matches!(self.status, Status::Gone { how: Gone::Dead { .. } | Gone::Overdue, .. })
    }

    /// Its speaker is not there, whether or not its kernel is.
    pub(crate) fn is_absent(&self) -> bool {
        self.is_gone() || self.is_in_grace()
    }

    pub(crate) fn is_suspected(&self) -> bool {
        matches!(self.status, Status::Suspected(_))
    }

    pub(crate) fn life(&self) -> Life {
        (self.boot, self.ifindex)
    }

    pub(crate) fn id(&self) -> PeerId {
        PeerId { node: self.node, name: self.name.clone(), boot: self.boot, mac: self.mac }
    }

    fn new(triple: Triple, counter: Counter, mac: MacAddr, hello: &Hello, now: Instant) -> Self {
        let mut peer = Self {
            node: triple.node,
            boot: triple.boot,
            ifindex: triple.ifindex,
            mac,
            name: None,
            state: hello.state,
            able: hello.able,
            cordoned: false,
            reach: hello.reach,
            interval: Duration::ZERO,
            ipv4: None,
            ipv6: None,
            status: Status::Alive,
            last_heard: now,
            loss: Loss::default(),
            kernel: Kernel::default(),
            table: Table::default(),
            reserved_until: None,
            active_since: None,
            away: None,
            known_since: now,
            may_have_restarted: true,
            next_look: None,
            window: ReplayWindow::starting_at(counter),
        };
        peer.take_fields(mac, hello, now);
        peer
    }

    /// What each hello says anew.
    pub(crate) fn take_fields(&mut self, mac: MacAddr, hello: &Hello, now: Instant) {
        self.mac = mac;
        self.state = hello.state;
        self.able = hello.able;
        self.reach = hello.reach;
        // A promise of zero would make every moment a silence.
        self.interval = Duration::from_millis(u64::from(hello.interval_ms.max(1)));
        self.ipv4 = hello.ipv4;
        self.ipv6 = hello.ipv6;
        if let Some(name) = &hello.name
            && self.name.as_ref().is_none_or(|known| known.as_str() != name)
        {
            self.name = Some(NodeName::from(name.as_str()));
        }
        if hello.state == State::Active {
            self.active_since.get_or_insert(now);
            self.away = None;
        }
    }
}

impl Peers {
    pub(crate) fn get(&self, node: NodeId) -> Option<&Peer> {
        self.map.get(&node)
    }

    pub(crate) fn get_mut(&mut self, node: NodeId) -> Option<&mut Peer> {
        self.map.get_mut(&node)
    }

    pub(crate) fn remove(&mut self, node: NodeId) {
        self.map.remove(&node);
    }

    /// Every peer, in order of id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.map.values()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.map.values_mut()
    }

    /// Those whose speaker is there.
    pub(crate) fn present(&self) -> impl Iterator<Item = &Peer> {
        self.iter().filter(|peer| !peer.is_absent())
    }

    pub(crate) fn any_present(&self) -> bool {
        self.present().next().is_some()
    }

    /// Rule A6. Call it for verified frames only.
    pub(crate) fn admit(&mut self, triple: Triple, counter: Counter) -> Admission {
        let Some(peer) = self.map.get_mut(&triple.node) else { return Admission::Unknown };
        if peer.life() != (triple.boot, triple.ifindex) {
            return Admission::Unknown;
        }
        let in_order = counter > peer.window.highest();
        match peer.window.take(counter) {
            Ok(()) => Admission::Known { in_order },
            Err(_) => Admission::Replayed,
        }
    }

    /// Whether to challenge this triple now, and with which salt (rule A7).
    pub(crate) fn challenge(
        &mut self,
        triple: Triple,
        mac: MacAddr,
        now: Instant,
        salt: Salt,
    ) -> Option<Salt> {
        let known = self.pending.get(&triple).copied();
        if let Some(Pending { sent, tries, .. }) = known
            && now.since(sent) < retry_after(tries)
        {
            return None;
        }
        let heard = self.map.get(&triple.node).is_some_and(|peer| !peer.is_absent());
        let granted = if heard {
            self.challenged.take(now, CHALLENGES_PER_SECOND)
        } else {
            self.challenged_unheard.take(now, CHALLENGES_PER_SECOND_UNHEARD)
        };
        if !granted {
            return None;
        }
        if known.is_none() && self.pending.len() >= PENDING {
            // Who never answered, for the longest, goes.
            let worst = self.pending.iter().max_by_key(|(_, pending)| (pending.tries, Reverse(pending.sent)));
            if let Some(triple) = worst.map(|(triple, _)| *triple) {
                self.pending.remove(&triple);
            }
        }
        // The same triple gets the same salt again, so that a late answer to the first still counts.
        let salt = known.map_or(salt, |pending| pending.salt);
        let tries = known.map_or(0, |pending| pending.tries + 1);
        let first = known.map_or(now, |pending| pending.first);
        self.pending.insert(triple, Pending { salt, mac, first, sent: now, tries });
        Some(salt)
    }

    /// Challenges to send again now: whom, and with which salt.
    pub(crate) fn challenges_due(&mut self, now: Instant) -> Vec<(MacAddr, Salt)> {
        if self.next_challenge().is_none_or(|next| next > now) {
            return Vec::new();
        }
        let due: Vec<(Triple, MacAddr, Salt)> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.next().is_some_and(|next| next <= now))
            .map(|(triple, pending)| (*triple, pending.mac, pending.salt))
            .collect();
        due.into_iter()
            .filter_map(|(triple, mac, salt)| {
                let salt = self.challenge(triple, mac, now, salt);
                // Too many at once: this one waits for its next hello.
                if salt.is_none()
                    && let Some(pending) = self.pending.get_mut(&triple)
                {
                    pending.tries = pending.tries.max(CHALLENGES_IN_EARNEST);
                }
                Some((mac, salt?))
            })
            .collect()
    }

    pub(crate) fn next_challenge(&self) -> Option<Instant> {
        self.pending.values().filter_map(Pending::next).min()
    }

    /// A peer has been known here since the start.
    pub(crate) fn met_anybody(&self) -> bool {
        self.met_anybody
    }

    /// Somebody who is heard has not echoed yet, and may still.
    pub(crate) fn any_being_met(&self, now: Instant) -> bool {
        self.pending.values().any(|pending| now.since(pending.first) < ACQUAINTANCE)
    }

    /// Takes up a peer that echoed its salt.
    pub(crate) fn accept(
        &mut self,
        triple: Triple,
        counter: Counter,
        mac: MacAddr,
        hello: &Hello,
        now: Instant,
    ) -> Accepted {
        let proven = self.pending.get(&triple).is_some_and(|pending| hello.echoes.contains(&pending.salt));
        if !proven || (!self.map.contains_key(&triple.node) && self.map.len() >= CAPACITY) {
            return Accepted::No;
        }
        self.pending.retain(|waiting, _| waiting.node != triple.node);
        self.met_anybody = true;
        let mut peer = Peer::new(triple, counter, mac, hello, now);
        if let Some(before) = self.map.get(&triple.node).filter(|before| before.mac == mac) {
            peer.kernel.carry_over(&before.kernel);
        }
        // One that starts again and again without ever being ACTIVE is one that is away.
        if let Some(before) = self.map.get(&triple.node).filter(|_| hello.state != State::Active) {
            let restarted = || (before.boot != triple.boot).then(|| Away::begin(now));
            peer.away = before.away.or_else(restarted);
        }
        peer.may_have_restarted =
            self.map.get(&triple.node).is_none_or(|before| before.boot != triple.boot || before.is_absent());
        match self.map.insert(triple.node, peer) {
            None => Accepted::New,
            Some(before) => Accepted::Again(Box::new(before)),
        }
    }

    /// Looks at the peer at `at` at the latest.
    pub(crate) fn look_at(&mut self, node: NodeId, at: Instant) {
        if let Some(peer) = self.map.get_mut(&node)
            && peer.next_look.is_none_or(|next| at < next)
        {
            peer.next_look = Some(at);
            self.timers.push(Reverse((at, node)));
        }
    }

    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<NodeId> {
        while let Some(Reverse((at, node))) = self.timers.peek().copied() {
            if at > now {
                return None;
            }
            self.timers.pop();
            if let Some(peer) = self.map.get_mut(&node)
                && peer.next_look == Some(at)
            {
                peer.next_look = None;
                return Some(node);
            }
        }
        None
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }
}

/// So many per second, no burst beyond one second's worth, or a shorter window's.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    window: Option<Instant>,
    used: u32,
}

impl Bucket {
    pub(crate) fn take(&mut self, now: Instant, per_second: u32) -> bool {
        self.take_within(now, per_second, Duration::from_secs(1))
    }

    pub(crate) fn take_within(&mut self, now: Instant, most: u32, window: Duration) -> bool {
        if self.window.is_none_or(|start| now.since(start) >= window) {
            self.window = Some(now);
            self.used = 0;
        }
        let free = self.used < most;
        if free {
            self.used += 1;
        }
        free
    }
}
