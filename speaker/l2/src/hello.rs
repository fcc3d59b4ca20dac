//! What hellos say and when (rules A7's echoes, A10, A11, A14, A15, A19), and SYNC, the whole table on request (A12).
//!
//! Must always hold: `table_version` in a hello is never ahead of the changes that went out before it; a change is
//! rendered from what is held *now*, so that a repeat never says something that has stopped being true.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use herald_wire::hello::{Claim, Drop, GROUP, Hello, LastEpoch, Message, State, Sync};
use herald_wire::{MacAddr, NodeId, Salt, TableVersion, Vip as WireVip};

use crate::context::{Context, Rule};
use crate::peers::Bucket;
use crate::segment::Segment;
use crate::snapshot::Lifecycle;
use crate::tables::Requests;
use crate::time::Instant;
use crate::vips::{Vip, VipId};

/// Between the repeats of a change, in f (0, 5 and 10 ms by default).
const REPEAT_AFTER: u32 = 1;
/// The budget of a segment, hellos per second (rule A15).
const HOLDERS_BUDGET: u32 = 1_000;
const OTHERS_BUDGET: u32 = 250;
/// The name is told this often (rule A11).
const NAME_EVERY: Duration = Duration::from_secs(1);
/// Frames per millisecond of changes and of SYNC each: no receiver's socket overflows.
const BURST: usize = 16;
const BURST_PAUSE: Duration = Duration::from_millis(1);
/// SYNC_REQ sent per second (rule A14), challenges answered per second.
const REQUESTS_PER_SECOND: u32 = 50;
/// Of known peers, whose challenges are fresh; and of anybody, whose challenges may be recordings.
const ECHOES_PER_SECOND: u32 = 2_000;
const ECHOES_PER_SECOND_UNKNOWN: u32 = 100;
/// Salts that one hello echoes.
const ECHOES_PER_HELLO: usize = 32;
/// Tables asked for at a time: more would overflow the socket that hellos come through.
const TABLES_AT_A_TIME: usize = 2;
/// A gap is asked about after this, at least: repeats may fill it.
const GAP_PATIENCE: Duration = Duration::from_millis(15);
/// Tables being sent at a time.
const SYNCS: usize = 256;

/// Entries of a list in one frame: with all else they fit the smallest MTU that IPv6 allows, 1,280.
const ENTRIES_PER_FRAME: usize = 32;

#[derive(Debug, Default)]
pub(crate) struct Hellos {
    next: Option<Instant>,
    last: Option<Instant>,
    /// Somebody misses us: hellos every f until then (rule A19).
    wanted_until: Option<Instant>,
    named: Option<Instant>,
    /// The version that the last change sent out made.
    version: u64,
    /// Changes that no hello has carried yet.
    open: Vec<Changed>,
    changes: VecDeque<Change>,
    syncs: VecDeque<Outgoing>,
    sync_next: Option<Instant>,
    tables: Requests,
    requests: Bucket,
    echoes: Bucket,
    echoes_unknown: Bucket,
    /// Salts that the next hello echoes.
    salts: Vec<Salt>,
}

#[derive(Clone, Copy, Debug)]
struct Changed {
    vip: IpAddr,
    winner: Option<NodeId>,
    repeats: u8,
}

impl Hellos {
    /// Those of an interface that has been here before in this boot.
    pub(crate) fn from_version(version: u64) -> Self {
        Self { version, ..Self::default() }
    }
}

/// One version's worth of changes.
#[derive(Debug)]
struct Change {
    version: u64,
    entries: Vec<Changed>,
    left: u8,
    next: Instant,
}

/// A SYNC on its way: part i covers the slots from i * ENTRIES_PER_FRAME.
#[derive(Debug)]
struct Outgoing {
    to: MacAddr,
    version: u64,
    index: u16,
    total: u16,
}

impl Segment {
    /// The interval promised (rule A15): that of a holder for two more seconds after the last holding went, so that a
    /// lost announcement of the slower pace is nobody's suspicion.
    pub(crate) fn hello_interval(&self, cx: &Context) -> Duration {
        let holders = self.peers.present().filter(|peer| peer.interval <= cx.h() * 2).count();
        let others = self.peers.present().count() - holders;
        let per_second = |count: usize, budget: u32| {
            Duration::from_secs(1) * u32::try_from(count + 1).unwrap_or(u32::MAX) / budget
        };
        if self.vips.held() > 0 || cx.now < self.hold_rate_until {
            cx.h().max(per_second(holders, HOLDERS_BUDGET))
        } else {
            (cx.h() * 5).max(per_second(others, OTHERS_BUDGET))
        }
    }

    /// A hello at the next occasion, and quickly from then on while anybody is suspected (rules A18, A19).
    pub(crate) fn hello_soon(&mut self, cx: &Context) {
        let earliest = self.hellos.last.map_or(cx.now, |last| (last + cx.f()).max(cx.now));
        self.hellos.next = Some(self.hellos.next.map_or(earliest, |next| next.min(earliest)));
    }

    /// This node found itself in a SUSPECT (rule A19).
    pub(crate) fn hello_wanted(&mut self, cx: &Context) {
        self.hellos.wanted_until = Some(cx.now + cx.f() * 6);
        self.hello_soon(cx);
    }

    /// Something held here has changed: the next hellos say so (rule A14).
    pub(crate) fn changed(&mut self, id: VipId, winner: Option<NodeId>, repeats: u8) {
        let Some(vip) = self.vips.get(id).map(|vip| vip.addr) else { return };
        // Several changes of one address within a turn are one; lists are short, except when everything changes.
        match self.hellos.open.last_mut() {
            Some(last) if last.vip == vip => {
                *last = Changed { vip, winner, repeats: last.repeats.max(repeats) }
            }
            _ => self.hellos.open.push(Changed { vip, winner, repeats }),
        }
    }

    /// Sends what is due: changes first, then the regular hello, then SYNC.
    pub(crate) fn hello_tick(&mut self, cx: &mut Context) {
        if self.is_quiet() {
            // Nobody hears of these changes: a gap in the versions makes them ask.
            if !self.hellos.open.is_empty() || !self.hellos.changes.is_empty() {
                self.hellos.version = self.newest_version() + 1;
            }
            self.hellos.open.clear();
            self.hellos.changes.clear();
            self.hellos.syncs.clear();
            self.hellos.sync_next = None;
            self.hellos.next = Some(cx.now + cx.h());
            self.hellos.tables.pause(cx.now + cx.h());
            return;
        }
        self.open_changes(cx);
        self.send_changes(cx);
        if self.hellos.next.is_none_or(|next| next <= cx.now) {
            self.send_hello(cx);
        }
        self.request_tables(cx);
        self.send_syncs(cx);
    }

    /// A part of a peer's table has come in.
    pub(crate) fn table_comes_in(&mut self, node: NodeId) {
        self.hellos.tables.is_on_its_way(node);
    }

    fn open_changes(&mut self, cx: &Context) {
        if self.hellos.open.is_empty() {
            return;
        }
        let newest = self.newest_version();
        let open = std::mem::take(&mut self.hellos.open);
        for (version, entries) in (newest + 1..).zip(open.chunks(ENTRIES_PER_FRAME)) {
            let left = entries.iter().map(|entry| entry.repeats).max().unwrap_or(0);
            let change = Change { version, entries: entries.to_vec(), left, next: cx.now };
            self.hellos.changes.push_back(change);
        }
    }

    /// The version of the last change made, sent or not.
    fn newest_version(&self) -> u64 {
        self.hellos.changes.iter().map(|change| change.version).fold(self.hellos.version, u64::max)
    }

    /// The version after all that was ever said here.
    pub(crate) fn next_version(&self) -> u64 {
        self.newest_version() + 1
    }

    fn send_changes(&mut self, cx: &mut Context) {
        let mut budget = BURST;
        let mut later = VecDeque::new();
        while let Some(mut change) = self.hellos.changes.pop_front() {
            // Versions go out in order; a first copy never overtakes another.
            if change.next > cx.now || budget == 0 {
                if change.next <= cx.now {
                    change.next = cx.now + BURST_PAUSE;
                }
                later.push_back(change);
                continue;
            }
            budget -= 1;
            let mut hello = self.hello(cx);
            hello.table_version = TableVersion(change.version);
            // Regular hellos carry the suspects: room for the changes.
            hello.suspects.clear();
            for entry in &change.entries {
                match self.vips.by_addr(entry.vip).and_then(|vip| vip.mine) {
                    Some(mine) => hello.claims.push(Claim {
                        vip: WireVip::from(entry.vip),
                        revision: mine.revision,
                        epoch: mine.epoch,
                    }),
                    None => hello.drops.push(Drop { vip: WireVip::from(entry.vip), winner: entry.winner }),
                }
            }
            self.hellos.version = self.hellos.version.max(change.version);
            self.sent_to_all(cx);
            self.send(cx, GROUP, &Message::Hello(hello));
            change.left = change.left.saturating_sub(1);
            change.next = cx.now + cx.f() * REPEAT_AFTER;
            if change.left > 0 {
                later.push_back(change);
            }
        }
        self.hellos.changes = later;
    }

    fn send_hello(&mut self, cx: &mut Context) {
        let mut hello = self.hello(cx);
        let named = self.hellos.named.is_some_and(|at| cx.now.since(at) < NAME_EVERY);
        hello.echoes = std::mem::take(&mut self.hellos.salts);
        hello.vouches = self.vouches(cx);
        // Whoever gets to know us by this one should know our name.
        if !named || !hello.echoes.is_empty() {
            hello.name = Some(cx.config.name.to_string());
            self.hellos.named = Some(cx.now);
        }
        self.sent_to_all(cx);
        self.send(cx, GROUP, &Message::Hello(hello));
    }

    /// A hello goes to everybody: the next one is due within what it promises.
    fn sent_to_all(&mut self, cx: &mut Context) {
        self.hellos.last = Some(cx.now);
        self.hellos.next = Some(cx.now + self.pause(cx));
    }

    /// Until the next regular hello.
    fn pause(&mut self, cx: &mut Context) -> Duration {
        let wanted = self.hellos.wanted_until.is_some_and(|until| cx.now < until);
        if (wanted || self.suspects_lately(cx.now)) && !cx.lacks(Rule::FastSuspicion) {
            return cx.f();
        }
        let interval = self.hello_interval(cx);
        cx.random.between(interval * 9 / 10, interval)
    }

    fn hello(&self, cx: &Context) -> Hello {
        let interval = self.hello_interval(cx).as_millis();
        Hello {
            state: match self.state {
                Lifecycle::Listen => State::Listen,
                Lifecycle::Active => State::Active,
                Lifecycle::Leaving => State::Leaving,
            },
            // A node that takes nothing is not waited for when its turn comes (rule A32).
            able: self.is_able() && !self.node_is_excluded(cx),
            interval_ms: u16::try_from(interval).unwrap_or(u16::MAX),
            // Comes with the failover work (rule A27).
            reach: 0,
            table_version: TableVersion(self.hellos.version),
            mac: self.iface.mac,
            ipv4: self.own_ipv4(),
            ipv6: self.own_link_local(),
            accepted_keys: cx.config.keys.ids(),
            suspects: self.suspects().into_iter().take(ENTRIES_PER_FRAME).collect(),
            vouches: Vec::new(),
            claims: Vec::new(),
            drops: Vec::new(),
            echoes: Vec::new(),
            name: None,
        }
    }

    /// Rule A7: the next hello, at once or f after the last, proves to the challenger that this is no recording.
    pub(crate) fn answer_challenge(&mut self, cx: &mut Context, salt: Salt, known: bool) {
        let granted = if known {
            self.hellos.echoes.take(cx.now, ECHOES_PER_SECOND)
        } else {
            self.hellos.echoes_unknown.take(cx.now, ECHOES_PER_SECOND_UNKNOWN)
        };
        if granted && !self.is_quiet() && self.hellos.salts.len() < ECHOES_PER_HELLO {
            self.hellos.salts.push(salt);
            self.hello_soon(cx);
        }
    }

    /// Rule A14: a peer's whole table is wanted, when that is due.
    pub(crate) fn request_table(&mut self, cx: &Context, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(node).filter(|peer| !peer.is_absent()) {
            self.hellos.tables.want(node, &mut peer.table, cx.now);
        }
    }

    /// Asks for those that wait, a few at a time.
    fn request_tables(&mut self, cx: &mut Context) {
        let now = cx.now;
        if self.hellos.tables.next.is_none_or(|next| next > now) {
            return;
        }
        let mut pause = (Duration::from_millis(2), Duration::from_millis(6));
        let peers = &self.peers;
        let is_coming = |node| peers.get(node).is_some_and(|peer| peer.table.is_coming(now));
        let mut asked = Vec::new();
        while let Some(node) =
            self.hellos.tables.pop(TABLES_AT_A_TIME, |node| asked.contains(&node) || is_coming(node))
        {
            let wanted = peers.get(node).is_some_and(|peer| !peer.is_absent() && peer.table.is_queued());
            if !wanted {
                continue;
            }
            if !self.hellos.requests.take(now, REQUESTS_PER_SECOND) {
                self.hellos.tables.put_back(node);
                pause = (Duration::from_millis(10), Duration::from_millis(100));
                break;
            }
            self.hellos.tables.is_on_its_way(node);
            asked.push(node);
        }
        for node in asked {
            let Some(peer) = self.peers.get_mut(node) else { continue };
            let mac = peer.mac;
            if let Some(from) = peer.table.request(now) {
                let retry = peer.table.next_request();
                self.send(cx, mac, &Message::SyncRequest(TableVersion(from)));
                if let Some(at) = retry {
                    self.peers.look_at(node, at);
                }
            }
        }
        let until = now + cx.random.between(pause.0, pause.1);
        self.hellos.tables.pause(until);
    }

    /// When to ask about a gap that has just been seen.
    pub(crate) fn gap_patience(cx: &mut Context) -> Duration {
        cx.random.between(GAP_PATIENCE, GAP_PATIENCE * 2)
    }

    /// A peer wants the whole table.
    pub(crate) fn table_requested(&mut self, cx: &mut Context, to: MacAddr) {
        let spans = self.vips.span().div_ceil(ENTRIES_PER_FRAME).max(1);
        let outgoing = Outgoing {
            to,
            version: self.hellos.version,
            index: 0,
            total: u16::try_from(spans).unwrap_or(u16::MAX),
        };
        if let Some(under_way) = self.hellos.syncs.iter_mut().find(|sync| sync.to == to) {
            // Asked again before the end: the table has moved on, or parts were lost.
            *under_way = outgoing;
        } else if self.hellos.syncs.len() < SYNCS {
            self.hellos.syncs.push_back(outgoing);
        }
        self.hellos.sync_next.get_or_insert(cx.now);
    }

    fn send_syncs(&mut self, cx: &mut Context) {
        if self.hellos.sync_next.is_none_or(|next| next > cx.now) {
            return;
        }
        for _ in 0..BURST {
            let Some(mut sync) = self.hellos.syncs.pop_front() else { break };
            let start = usize::from(sync.index) * ENTRIES_PER_FRAME;
            let mut message = Sync {
                version: TableVersion(sync.version),
                index: sync.index,
                total: sync.total,
                claims: Vec::new(),
                epochs: Vec::new(),
            };
            for vip in self.vips.in_slots(start..(start + ENTRIES_PER_FRAME).min(self.vips.span())) {
                entry(vip, &mut message);
            }
            self.send(cx, sync.to, &Message::Sync(message));
            sync.index += 1;
            if sync.index < sync.total {
                self.hellos.syncs.push_front(sync);
            }
        }
        self.hellos.sync_next = (!self.hellos.syncs.is_empty()).then_some(cx.now + BURST_PAUSE);
    }

    /// When [`Self::hello_tick`] has something to do.
    pub(crate) fn hello_next(&self) -> Option<Instant> {
        let change = self.hellos.changes.iter().map(|change| change.next).min();
        [self.hellos.next, change, self.hellos.sync_next, self.hellos.tables.next].into_iter().flatten().min()
    }
}

fn entry(vip: &Vip, message: &mut Sync) {
    let address = WireVip::from(vip.addr);
    match vip.mine {
        Some(mine) => {
            message.claims.push(Claim { vip: address, revision: mine.revision, epoch: mine.epoch });
        }
        None if !vip.never_held() => message.epochs.push(LastEpoch {
            vip: address,
            max_epoch: vip.max_epoch,
            last_holder: vip.last_holder,
        }),
        None => {}
    }
}
