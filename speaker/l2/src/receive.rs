//! A hello-protocol frame from the wire to the part that it concerns: the checks of rule A5 in their order, own frames
//! (A5, A52), strangers (A6, A7), peers that come and return (A7, A31, A39), messages (A9-A14, A44).
//!
//! Must always hold: nothing here acts on a frame whose tag was not verified, nor, but for rule A7, on one of a sender
//! that has not proved to be no recording.

use std::time::Duration;

use herald_wire::ethernet::Ethernet;
use herald_wire::hello::{Bye, Flags, Hello, Message, Reason, Refused, Sealed, State, Verifier};
use herald_wire::{Boot, Counter, IfIndex, MacAddr, NodeId, TableVersion};

use crate::context::{Context, Rule};
use crate::output::{Event, Gone};
use crate::peers::{Accepted, Admission, Peer, Status, Triple};
use crate::segment::Segment;
use crate::tables::Table;

/// A frame of our own that comes back at once (rule A52); a recording of one does not.
const LOOP_WITHIN: u64 = 64;
/// Between two challenges of a machine with our own id.
const NAMESAKE_EVERY: Duration = Duration::from_secs(1);
/// Conditions that a stranger's frames could repeat are told at most this often.
const TELL_EVERY: Duration = Duration::from_mins(1);

impl Segment {
    pub(crate) fn foreign_version(&mut self, cx: &mut Context, bytes: &[u8], version: u8) {
        cx.counters.refused.version += 1;
        if self.told_version.is_none_or(|at| cx.now.since(at) >= TELL_EVERY) {
            self.told_version = Some(cx.now);
            let mac = bytes.get(6..12).and_then(|mac| <[u8; 6]>::try_from(mac).ok()).map(MacAddr::from);
            let (ifindex, mac) = (self.ifindex(), mac.unwrap_or_default());
            cx.event(Event::ForeignVersion { ifindex, version, mac });
        }
    }

    /// Rule A5.
    pub(crate) fn handle_sealed(&mut self, cx: &mut Context, ethernet: Ethernet, sealed: &Sealed<'_>) {
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
        if self.idle_since.is_some() || self.has_left() {
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
            && !before.is_absent()
        {
            let peer = before.id();
            cx.event(Event::PeerDown { ifindex, peer, how: Gone::Replaced });
        }
        self.peer_up(cx, triple.node, hello);
        // Rule A39: it may have been on the other side of a split LAN, as those may that have nobody else to tell of it.
        if before.is_some_and(Peer::was_declared_dead) && !cx.lacks(Rule::Drop) {
            self.reannounce_all(cx);
        }
        if before.is_some_and(|before| before.boot != triple.boot) && !cx.lacks(Rule::Reservation) {
            self.reserve(cx, triple.node);
        } else if before.is_some_and(|before| before.ifindex != triple.ifindex) {
            self.reserve_moved(cx, triple.node);
        } else if before.is_some() {
            self.drop_reservations(cx, triple.node);
        }
        self.hear_vouches(cx, triple.node, &hello.vouches);
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
        match &peer.status {
            Status::Gone { how: Gone::Left | Gone::Overdue, .. } => return,
            Status::Grace(grace) if grace.was_announced() => return,
            _ => {}
        }
        match message {
            Message::Hello(hello) => self.hear_hello(cx, ethernet, triple, hello, in_order),
            Message::Challenge(salt) => self.answer_challenge(cx, *salt, true),
            Message::SyncRequest(_) => self.table_requested(cx, ethernet.source),
            // Parts that come late, or from a peer that is dead to us, would bring back what is over.
            Message::Sync(_) if !in_order || peer.is_absent() => {}
            Message::Sync(sync) => {
                let claims = sync.claims.iter().map(|claim| claim.vip.ip());
                let Some(peer) = self.peers.get_mut(node) else { return };
                let listed = peer.table.part(sync.version.0, sync.index, sync.total, claims, cx.now);
                self.table_comes_in(node);
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
            Message::Bye(Bye { reason: Reason::Restart, hold_s }) => {
                self.peer_restarts(cx, node, Duration::from_secs(u64::from(*hold_s)));
            }
            Message::Bye(Bye { reason: Reason::Leave, .. }) => self.peer_gone(cx, node, Gone::Left),
            // Rules A40 and A43 come with the failover work; unknown types are ignored (rule A9).
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
        let returned = peer.is_absent();
        let was_kept = peer.is_in_grace();
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
        // Claims of its earlier starts were kept as long as this one's: from now on it has its time to take them again.
        if (first_active && reserved) || was_kept {
            self.reserve(cx, node);
        }
        if self.peers.get(node).is_some_and(|peer| !peer.is_suspected()) {
            for salt in &hello.echoes {
                self.proof_by_echo(cx, *salt);
            }
        }
        self.hear_vouches(cx, node, &hello.vouches);
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
}
