//! One interface that carries addresses: its state, frames in, frames out, and what is due (rules A3, A5, A24, A44,
//! A51, A52). Each concern has its own file; this one only joins them.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::Duration;

use herald_wire::ethernet::Ethernet;
use herald_wire::hello::{
    Bye, Flags, GROUP, Header, Hello, Message, Reason, Refused, Sealed, State, Verifier,
};
use herald_wire::{Boot, Counter, Frame, IfIndex, MacAddr, NodeId, Payload, Salt, TableVersion, WireError};

use crate::alone::Alone;
use crate::announce::Announcer;
use crate::context::{Context, Rule};
use crate::hello::Hellos;
use crate::input::Interface;
use crate::output::{Event, Gone, Output, ReleaseReason};
use crate::ownership::{Candidates, Gate};
use crate::peers::{Accepted, Admission, Peer, Peers, Status, Triple};
use crate::proof::Proof;
use crate::snapshot::Lifecycle;
use crate::tables::Table;
use crate::time::Instant;
use crate::vips::{Client, VipTable};

/// A newcomer listens at least this long (rule A24).
const LISTEN_MIN: Duration = Duration::from_secs(1);
/// And this much longer at most.
const LISTEN_EXTRA: Duration = Duration::from_secs(1);
/// The lower interface of one segment is listened for this long before the higher one speaks again (rule A52).
const IDLE_FOR: Duration = Duration::from_secs(5);
/// A leaver answers until everything is claimed, at most this long (rule A44).
const LEAVE_WITHIN: Duration = Duration::from_millis(250);
const BYES: u8 = 3;
/// Ethernet's own.
const MTU: u32 = 1_500;
/// A frame of our own that comes back at once (rule A52); a recording of one does not.
const LOOP_WITHIN: u64 = 64;
/// Between two challenges of a machine with our own id.
const NAMESAKE_EVERY: Duration = Duration::from_secs(1);
/// Conditions that a stranger's frames could repeat are told at most this often.
const TELL_EVERY: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) iface: Interface,
    pub(crate) state: Lifecycle,
    listen_since: Option<Instant>,
    pub(crate) active_since: Option<Instant>,
    /// Another interface of this node is on the same segment and was heard last at this moment (rule A52).
    pub(crate) idle_since: Option<Instant>,
    pub(crate) peers: Peers,
    pub(crate) vips: VipTable,
    pub(crate) hellos: Hellos,
    pub(crate) proof: Proof,
    pub(crate) announcer: Announcer,
    pub(crate) alone: Alone,
    /// Who asked for any address here lately, of both families.
    pub(crate) recent_clients: Vec<Client>,
    pub(crate) candidates: Candidates,
    pub(crate) candidates_stale: bool,
    /// Something is held under an epoch that is not raised yet, because others could not be asked.
    pub(crate) tentative: bool,
    /// Specs for which the exclude label does not count.
    pub(crate) ignoring_exclusion: usize,
    pub(crate) last_gate: Option<Gate>,
    pub(crate) hold_rate_until: Instant,
    pub(crate) proof_wanted_until: Instant,
    pub(crate) last_turn: Instant,
    pub(crate) groups: BTreeMap<Ipv6Addr, usize>,
    pub(crate) interest_stale: bool,
    leaving: Option<Leaving>,
    told_duplicate: Option<Instant>,
    /// What a machine with our node id was asked to echo, and when.
    namesake_asked: Option<(Salt, Instant)>,
    told_version: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Leaving {
    since: Instant,
    byes: u8,
    next: Instant,
}

impl Segment {
    pub(crate) fn new(cx: &Context, iface: Interface) -> Self {
        Self {
            listen_since: iface.carrier.then_some(cx.now),
            iface,
            state: Lifecycle::Listen,
            active_since: None,
            idle_since: None,
            peers: Peers::default(),
            vips: VipTable::default(),
            hellos: Hellos::default(),
            proof: Proof::default(),
            announcer: Announcer::default(),
            alone: Alone::default(),
            recent_clients: Vec::new(),
            candidates: Candidates::default(),
            candidates_stale: true,
            tentative: false,
            ignoring_exclusion: 0,
            last_gate: None,
            hold_rate_until: Instant::default(),
            proof_wanted_until: Instant::default(),
            last_turn: cx.now,
            groups: BTreeMap::new(),
            interest_stale: true,
            leaving: None,
            told_duplicate: None,
            namesake_asked: None,
            told_version: None,
        }
    }

    pub(crate) fn ifindex(&self) -> u32 {
        self.iface.ifindex
    }

    /// May claim, as far as the wire is concerned (rule A26).
    pub(crate) fn is_able(&self) -> bool {
        self.iface.carrier && !self.is_mute()
    }

    /// Says nothing of its own accord.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.iface.carrier || self.idle_since.is_some() || self.leaving.is_some()
    }

    /// How long a newcomer listens (rule A24).
    pub(crate) fn listen_time(&self, cx: &Context) -> Duration {
        let holders =
            self.peers.present().map(|peer| peer.interval).filter(|interval| *interval <= cx.h() * 4);
        LISTEN_MIN.max(holders.max().unwrap_or_default() * 4)
    }

    /// Rule A24, and under loss a little longer: to claim beside a holder that is heard, but not yet known, helps nobody.
    fn listen_until(&self, cx: &Context) -> Option<Instant> {
        let until = self.listen_since? + self.listen_time(cx);
        let latest = until + LISTEN_EXTRA;
        if cx.now >= until && cx.now < latest && self.peers.any_being_met(cx.now) {
            return Some((cx.now + cx.f()).min(latest));
        }
        Some(until)
    }

    /// One frame. The answer to a client is in the outputs when this returns.
    pub(crate) fn handle_frame(&mut self, cx: &mut Context, bytes: &[u8]) {
        match herald_wire::parse(bytes) {
            Ok(Frame { ethernet, payload: Payload::Arp(arp) }) => {
                self.handle_arp(cx, ethernet, &arp);
            }
            Ok(Frame { ethernet, payload: Payload::Ndp(ndp) }) => self.handle_ndp(cx, ethernet, &ndp),
            Ok(Frame { ethernet, payload: Payload::Hello(sealed) }) => {
                self.handle_sealed(cx, ethernet, &sealed);
                self.settle(cx);
            }
            // Kernel probes are rule A22 [3].
            Ok(Frame { payload: Payload::Echo(_), .. }) | Err(WireError::NotHandled { .. }) => {
                cx.counters.ignored += 1;
            }
            Err(WireError::Version { version }) => self.foreign_version(cx, bytes, version),
            Err(_) => cx.counters.malformed += 1,
        }
    }

    fn foreign_version(&mut self, cx: &mut Context, bytes: &[u8], version: u8) {
        cx.counters.refused.version += 1;
        if self.told_version.is_none_or(|at| cx.now.since(at) >= TELL_EVERY) {
            self.told_version = Some(cx.now);
            let mac = bytes.get(6..12).and_then(|mac| <[u8; 6]>::try_from(mac).ok()).map(MacAddr::from);
            let (ifindex, mac) = (self.ifindex(), mac.unwrap_or_default());
            cx.event(Event::ForeignVersion { ifindex, version, mac });
        }
    }

    /// Rule A5.
    fn handle_sealed(&mut self, cx: &mut Context, ethernet: Ethernet, sealed: &Sealed<'_>) {
        let verifier = Verifier {
            cluster: cx.config.cluster,
            node: cx.config.node,
            boot: cx.boot,
            keys: &cx.config.keys,
        };
        let refused = &mut cx.counters.refused;
        let verified = match verifier.verify(sealed) {
            Ok(verified) => verified,
            Err(Refused::ForeignCluster(_)) => return refused.foreign_cluster += 1,
            Err(Refused::UnknownKey(_)) => return refused.unknown_key += 1,
            Err(Refused::BadTag) => return refused.forged += 1,
            Err(Refused::Loop { ifindex, counter }) => return self.own_frame(cx, ifindex, counter),
            Err(Refused::DuplicateNode(boot)) => {
                return self.namesake(cx, ethernet.source, boot, sealed);
            }
        };
        if self.idle_since.is_some() || self.leaving.is_some_and(|leaving| leaving.byes > BYES) {
            return;
        }
        let header = verified.header;
        let triple = Triple { node: header.node, boot: header.boot, ifindex: header.ifindex };
        let admission = self.peers.admit(triple, header.counter);
        if admission == Admission::Replayed {
            return cx.counters.refused.replayed += 1;
        }
        let Ok(message) = verified.message() else { return cx.counters.refused.malformed += 1 };
        // The authenticated Ethernet address is the one inside.
        if let Message::Hello(hello) = &message
            && hello.mac != ethernet.source
        {
            return cx.counters.refused.forged += 1;
        }
        cx.counters.hellos_accepted += 1;
        self.somebody_is_there(cx);
        match admission {
            Admission::Known { in_order } => {
                if let Some(peer) = self.peers.get_mut(triple.node) {
                    let cordoned = header.flags.contains(Flags::CORDONED);
                    self.candidates_stale |= cordoned != std::mem::replace(&mut peer.cordoned, cordoned);
                }
                self.handle_message(cx, ethernet, triple, &message, in_order);
            }
            _ => self.handle_unknown(cx, ethernet, triple, header.counter, &message),
        }
    }

    /// Rule A52: own frame, on another interface.
    fn own_frame(&mut self, cx: &mut Context, sent_by: IfIndex, counter: Counter) {
        cx.counters.refused.own_id += 1;
        let (used, idle) = (sent_by.0, self.ifindex());
        let sent = cx.sent.get(&used).copied().unwrap_or_default();
        let fresh = counter.0 <= sent && sent - counter.0 < LOOP_WITHIN;
        if used >= idle || !fresh {
            return;
        }
        if self.idle_since.is_none() {
            cx.event(Event::SameSegment { used, idle });
        }
        self.idle_since = Some(cx.now);
    }

    /// Rule A5: another machine speaks with our node id, or a recording of ours does. Only the machine can echo.
    fn namesake(&mut self, cx: &mut Context, mac: MacAddr, boot: Boot, sealed: &Sealed<'_>) {
        cx.counters.refused.own_id += 1;
        if mac == self.iface.mac || cx.old_boots.contains(&boot) {
            return;
        }
        // The tag was right; to read the message, it must not be ours.
        let verifier = Verifier { cluster: cx.config.cluster, node: NodeId(0), boot, keys: &cx.config.keys };
        let message = verifier.verify(sealed).ok().and_then(|verified| verified.message().ok());
        let (ifindex, now) = (self.ifindex(), cx.now);
        match message {
            Some(Message::Challenge(salt)) => self.answer_challenge(cx, salt, false),
            Some(Message::Hello(hello))
                if self.namesake_asked.is_some_and(|(salt, _)| hello.echoes.contains(&salt)) =>
            {
                let told = self.told_duplicate.is_some_and(|at| now.since(at) < TELL_EVERY);
                if !told {
                    self.told_duplicate = Some(now);
                    cx.event(Event::DuplicateNode { ifindex, mac });
                }
            }
            _ if self.namesake_asked.is_none_or(|(_, at)| now.since(at) >= NAMESAKE_EVERY) => {
                let salt = cx.random.salt();
                self.namesake_asked = Some((salt, now));
                self.send(cx, mac, &Message::Challenge(salt));
            }
            _ => {}
        }
    }

    /// Rules A6 and A7: from an unknown triple only a challenge, or the answer to ours, is of interest.
    fn handle_unknown(
        &mut self,
        cx: &mut Context,
        ethernet: Ethernet,
        triple: Triple,
        counter: Counter,
        message: &Message,
    ) {
        if let Message::Challenge(salt) = message {
            self.answer_challenge(cx, *salt, false);
        }
        if let Message::Hello(hello) = message {
            match self.peers.accept(triple, counter, ethernet.source, hello, cx.now) {
                Accepted::No => {}
                Accepted::New => return self.peer_accepted(cx, triple, None, hello),
                Accepted::Again(before) => return self.peer_accepted(cx, triple, Some(&before), hello),
            }
        }
        cx.counters.refused.unknown_boot += 1;
        let salt = cx.random.salt();
        if !self.is_quiet()
            && let Some(salt) = self.peers.challenge(triple, ethernet.source, cx.now, salt)
        {
            cx.counters.challenges += 1;
            self.send(cx, ethernet.source, &Message::Challenge(salt));
        }
    }

    fn peer_accepted(&mut self, cx: &mut Context, triple: Triple, before: Option<&Peer>, hello: &Hello) {
        let ifindex = self.ifindex();
        if let Some(before) = before
            && !before.is_gone()
        {
            let peer = before.id();
            cx.event(Event::PeerDown { ifindex, peer, how: Gone::Replaced });
        }
        self.peer_up(cx, triple.node, hello);
        if before.is_some_and(|before| before.boot != triple.boot) && !cx.lacks(Rule::Reservation) {
            self.reserve(cx, triple.node);
        } else if before.is_some() {
            self.drop_reservations(cx, triple.node);
        }
        self.take_tables(cx, triple.node, hello);
    }

    /// A peer is heard for the first time, or again after it was gone.
    fn peer_up(&mut self, cx: &mut Context, node: NodeId, hello: &Hello) {
        let (now, ifindex) = (cx.now, self.ifindex());
        let jitter = cx.random.between(Duration::ZERO, Duration::from_millis(5));
        let Some(peer) = self.peers.get_mut(node) else { return };
        peer.status = Status::Alive;
        peer.last_heard = now;
        let newborn = hello.state == State::Listen && hello.table_version == TableVersion(0);
        peer.table = if newborn { Table::empty() } else { Table::unknown(now, jitter) };
        let (interval, id) = (peer.interval, peer.id());
        self.peers.look_at(node, now + interval * 2 + cx.f() * 2);
        self.peers.look_at(node, now + jitter);
        self.candidates_stale = true;
        cx.event(Event::PeerUp { ifindex, peer: id });
        // Rule A39.
        if hello.state == State::Active && !cx.lacks(Rule::Drop) {
            self.reannounce_all(cx);
        }
    }

    fn handle_message(
        &mut self,
        cx: &mut Context,
        ethernet: Ethernet,
        triple: Triple,
        message: &Message,
        in_order: bool,
    ) {
        let node = triple.node;
        let Some(peer) = self.peers.get(node) else { return };
        if matches!(peer.status, Status::Gone { how: Gone::Left, .. }) {
            return;
        }
        match message {
            Message::Hello(hello) => self.hear_hello(cx, ethernet, triple, hello, in_order),
            Message::Challenge(salt) => self.answer_challenge(cx, *salt, true),
            Message::SyncRequest(_) => self.table_requested(cx, ethernet.source),
            // Parts that come late, or from a peer that is dead to us, would bring back what is over.
            Message::Sync(_) if !in_order || peer.is_gone() => {}
            Message::Sync(sync) => {
                let claims = sync.claims.iter().map(|claim| claim.vip.ip());
                let Some(peer) = self.peers.get_mut(node) else { return };
                let listed = peer.table.part(sync.version.0, sync.index, sync.total, claims, cx.now);
                for claim in &sync.claims {
                    self.hear_claim(cx, node, claim);
                }
                for entry in &sync.epochs {
                    self.hear_epoch(cx, entry);
                }
                if let Some(listed) = listed {
                    self.hear_all(cx, node, &listed);
                }
            }
            // RESTART keeps claims only while the kernel is probed (rules A22, A23 [3]).
            Message::Bye(_) => self.peer_gone(cx, node, Gone::Left),
            // Rules A40 and A43 [3]; unknown types are ignored (rule A9).
            Message::Offer(_) | Message::Tell(_) | Message::Unknown(_) => cx.counters.ignored += 1,
        }
    }

    fn hear_hello(
        &mut self,
        cx: &mut Context,
        ethernet: Ethernet,
        triple: Triple,
        hello: &Hello,
        in_order: bool,
    ) {
        let node = triple.node;
        let Some(peer) = self.peers.get_mut(node) else { return };
        let returned = peer.is_gone();
        let before = (peer.state, peer.able, peer.name.is_some());
        let was_active = peer.active_since.is_some();
        self.peer_heard(cx, node);
        let Some(peer) = self.peers.get_mut(node) else { return };
        peer.take_fields(ethernet.source, hello, cx.now);
        if before != (peer.state, peer.able, peer.name.is_some()) {
            self.candidates_stale = true;
        }
        let interval = peer.interval;
        let first_active = !was_active && peer.active_since.is_some();
        let reserved = peer.reserved_until.is_some();
        if returned {
            self.peer_up(cx, node, hello);
        }
        if first_active && reserved {
            self.reserve(cx, node);
        }
        if self.peers.get(node).is_some_and(|peer| !peer.is_suspected()) {
            for salt in &hello.echoes {
                self.proof_by_echo(cx, *salt);
            }
        }
        let me = (cx.config.node, cx.boot);
        if hello.suspects.iter().any(|suspect| (suspect.node, suspect.boot) == me)
            && !cx.lacks(Rule::FastSuspicion)
        {
            self.hello_wanted(cx);
        }
        // A shorter promise than before moves the moment of suspicion forward.
        self.peers.look_at(node, cx.now + interval * 2 + cx.f() * 2);
        if in_order {
            self.take_tables(cx, node, hello);
        }
    }

    /// Claims, drops and the table version that a hello carries.
    fn take_tables(&mut self, cx: &mut Context, node: NodeId, hello: &Hello) {
        let patience = Self::gap_patience(cx);
        let Some(peer) = self.peers.get_mut(node) else { return };
        let changes = !hello.claims.is_empty() || !hello.drops.is_empty();
        peer.table.heard(hello.table_version.0, changes, cx.now, patience);
        for claim in &hello.claims {
            peer.table.claimed(claim.vip.ip());
        }
        if let Some(at) = peer.table.next_request() {
            self.peers.look_at(node, at);
        }
        for claim in &hello.claims {
            self.hear_claim(cx, node, claim);
        }
        for drop in &hello.drops {
            self.hear_drop(cx, node, drop);
        }
    }

    /// Seals and sends one message.
    pub(crate) fn send(&mut self, cx: &mut Context, to: MacAddr, message: &Message) {
        let header = Header {
            cluster: cx.config.cluster,
            node: cx.config.node,
            boot: cx.boot,
            ifindex: IfIndex(self.ifindex()),
            counter: cx.next_counter(self.ifindex()),
            // Until rule A8 [3]: the key that everybody has longest.
            key: cx.config.keys.ids().iter().next().unwrap_or_default(),
            flags: if cx.node.cordoned { Flags::CORDONED } else { Flags::NONE },
        };
        let ethernet = Ethernet::new(to, self.iface.mac);
        // What a jumbo interface could send, a switch on the way to its peers may not pass.
        let mtu = self.iface.mtu.min(MTU);
        match cx.config.keys.seal(ethernet, &header, message, mtu) {
            Ok(frame) => {
                cx.counters.hellos_sent += 1;
                cx.transmit(self.ifindex(), frame);
            }
            // Lists are cut to fit an MTU of 1,280; only a ring without keys comes here otherwise.
            Err(_) => cx.counters.unsealed += 1,
        }
    }

    /// Everything that is due.
    pub(crate) fn handle_timeout(&mut self, cx: &mut Context) {
        self.last_turn = cx.now;
        self.lifecycle_tick(cx);
        for (mac, salt) in self.peers.challenges_due(cx.now) {
            if !self.is_quiet() {
                cx.counters.challenges += 1;
                self.send(cx, mac, &Message::Challenge(salt));
            }
        }
        while let Some(node) = self.peers.pop_due(cx.now) {
            self.check_peer(cx, node);
        }
        self.proof_tick(cx);
        self.alone_tick(cx);
        while let Some(id) = self.vips.pop_due(cx.now) {
            self.probe_tick(cx, id);
            self.evaluate(cx, id);
        }
        self.leaving_tick(cx);
        self.settle(cx);
    }

    /// After anything but a client's question: decisions that waited, then what has to be said now.
    pub(crate) fn settle(&mut self, cx: &mut Context) {
        self.confirm_tentative(cx);
        self.evaluate_blocked(cx);
        self.hello_tick(cx);
        self.announce_tick(cx);
        if std::mem::take(&mut self.interest_stale) {
            cx.outputs.push_back(Output::Interest { ifindex: self.ifindex() });
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub(crate) fn next_timeout(&self, cx: &Context) -> Option<Instant> {
        [
            self.listen_until(cx).filter(|_| self.state == Lifecycle::Listen),
            self.idle_since.map(|since| since + IDLE_FOR),
            self.peers.next_due(),
            self.peers.next_challenge(),
            self.vips.next_due(),
            self.proof.next(),
            self.proof.barred_until.filter(|until| *until > cx.now),
            self.alone_next(),
            self.hello_next(),
            self.announcer.next(cx.now),
            self.leaving.map(|leaving| leaving.next),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn lifecycle_tick(&mut self, cx: &mut Context) {
        let ifindex = self.ifindex();
        if self.idle_since.is_some_and(|since| cx.now >= since + IDLE_FOR) {
            self.idle_since = None;
        }
        if self.state == Lifecycle::Listen && self.listen_until(cx).is_some_and(|until| cx.now >= until) {
            self.state = Lifecycle::Active;
            self.active_since = Some(cx.now);
            cx.event(Event::Active { ifindex });
            self.hello_soon(cx);
            self.evaluate_all(cx);
        }
    }

    /// Rule A24: everything believed is stale. The boot is new already.
    pub(crate) fn become_newcomer(&mut self, cx: &mut Context) {
        self.state = Lifecycle::Listen;
        self.listen_since = self.iface.carrier.then_some(cx.now);
        self.active_since = None;
        for id in self.vips.ids() {
            if self.vips.get(id).is_some_and(|vip| vip.mine.is_some()) {
                self.release(cx, id, ReleaseReason::Stalled);
            }
        }
        self.hellos = Hellos::default();
        self.tentative = false;
        self.proof = Proof::default();
        self.candidates_stale = true;
        // Who fell silent meanwhile gets a whole new chance to be heard.
        let mut present = Vec::new();
        for peer in self.peers.iter_mut().filter(|peer| !peer.is_gone()) {
            peer.status = Status::Alive;
            peer.last_heard = cx.now;
            present.push((peer.node, peer.interval));
        }
        for (node, interval) in present {
            self.peers.look_at(node, cx.now + interval * 2 + cx.f() * 2);
        }
    }

    /// The interface has changed (rule A51).
    pub(crate) fn interface_changed(&mut self, cx: &mut Context, iface: Interface) {
        let before = std::mem::replace(&mut self.iface, iface);
        let now = &self.iface;
        let carrier_back = !before.carrier && now.carrier;
        let address_changed = before.mac != now.mac || before.addresses != now.addresses;
        if carrier_back {
            if self.state == Lifecycle::Listen {
                self.listen_since.get_or_insert(cx.now);
            } else {
                self.back_from_silence(cx);
            }
        } else if address_changed {
            self.reannounce_all(cx);
        }
        if carrier_back || address_changed {
            self.hello_soon(cx);
        }
    }

    /// Rule A44 [1]: peers claim at once; meanwhile this node goes on answering.
    pub(crate) fn leave(&mut self, cx: &Context) {
        if self.leaving.is_none() {
            self.state = Lifecycle::Leaving;
            self.leaving = Some(Leaving { since: cx.now, byes: 0, next: cx.now });
        }
    }

    fn leaving_tick(&mut self, cx: &mut Context) {
        let Some(mut leaving) = self.leaving.filter(|leaving| leaving.next <= cx.now) else { return };
        if leaving.byes < BYES {
            self.send(cx, GROUP, &Message::Bye(Bye { reason: Reason::Leave, hold_s: 0 }));
            leaving.byes += 1;
        }
        leaving.next = cx.now + Duration::from_millis(5);
        let alone = !self.peers.any_present();
        let over = leaving.byes >= BYES
            && (self.vips.held() == 0 || alone || cx.now.since(leaving.since) >= LEAVE_WITHIN);
        if over {
            leaving.byes = BYES + 1;
            leaving.next = cx.now + Duration::from_hours(1);
            for id in self.vips.ids() {
                if self.vips.get(id).is_some_and(|vip| vip.mine.is_some()) {
                    self.release(cx, id, ReleaseReason::Shutdown);
                }
            }
        }
        self.leaving = Some(leaving);
    }

    /// Has [`Self::leave`] come to its end?
    pub(crate) fn has_left(&self) -> bool {
        self.leaving.is_some_and(|leaving| leaving.byes > BYES)
    }
}
