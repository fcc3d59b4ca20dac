//! One interface that carries addresses: its state and what is due (rules A3, A24, A51). Each other concern has its own
//! file; this one joins them.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::Duration;

use herald_wire::ethernet::Ethernet;
use herald_wire::hello::{Flags, Header, Message};
use herald_wire::{Frame, IfIndex, MacAddr, Payload, Salt, WireError};

use crate::alone::Alone;
use crate::announce::Announcer;
use crate::context::Context;
use crate::grace::Strangers;
use crate::hello::Hellos;
use crate::input::Interface;
use crate::kernel::Probes;
use crate::leave::Leaving;
use crate::output::{Event, Output, ReleaseReason};
use crate::ownership::{Candidates, Gate};
use crate::peers::{Peers, Status};
use crate::proof::Proof;
use crate::snapshot::Lifecycle;
use crate::time::Instant;
use crate::vips::{Client, VipTable};

/// A newcomer listens at least this long (rule A24).
const LISTEN_MIN: Duration = Duration::from_secs(1);
/// And this much longer at most.
pub(crate) const LISTEN_EXTRA: Duration = Duration::from_secs(1);
/// The lower interface of one segment is listened for this long before the higher one speaks again (rule A52).
const IDLE_FOR: Duration = Duration::from_secs(5);
/// Ethernet's own.
const MTU: u32 = 1_500;

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
    pub(crate) probes: Probes,
    pub(crate) strangers: Strangers,
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
    pub(crate) leaving: Option<Leaving>,
    pub(crate) told_duplicate: Option<Instant>,
    /// What a machine with our node id was asked to echo, and when.
    pub(crate) namesake_asked: Option<(Salt, Instant)>,
    pub(crate) told_version: Option<Instant>,
}

impl Segment {
    pub(crate) fn new(cx: &Context, iface: Interface) -> Self {
        Self {
            listen_since: iface.carrier.then_some(cx.now),
            state: Lifecycle::Listen,
            active_since: None,
            idle_since: None,
            peers: Peers::default(),
            vips: VipTable::default(),
            hellos: Hellos::from_version(cx.versions.get(&iface.ifindex).copied().unwrap_or_default()),
            iface,
            proof: Proof::default(),
            probes: Probes::default(),
            strangers: Strangers::new(),
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
            Ok(Frame { ethernet, payload: Payload::Echo(echo) }) => self.handle_echo(cx, ethernet, &echo),
            Err(WireError::NotHandled { .. }) => cx.counters.ignored += 1,
            Err(WireError::Version { version }) => self.foreign_version(cx, bytes, version),
            Err(_) => cx.counters.malformed += 1,
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
            // Until rule A8 is done, with the failover work: the key that everybody has longest.
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
            // Asks every peer: not after LISTEN.
            if self.state == Lifecycle::Listen { self.listen_until(cx) } else { None },
            self.idle_since.map(|since| since + IDLE_FOR),
            self.peers.next_due(),
            self.peers.next_challenge(),
            self.vips.next_due(),
            self.proof.next(),
            self.proof.barred_until.filter(|until| *until > cx.now),
            self.alone_next(),
            self.hello_next(),
            self.announcer.next(cx.now),
            self.leaving.and_then(|leaving| leaving.next()),
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
        for peer in self.peers.iter_mut().filter(|peer| !peer.is_absent()) {
            peer.status = Status::Alive;
            peer.last_heard = cx.now;
            present.push((peer.node, peer.interval));
        }
        // What its kernel did not answer while this node stood still says nothing.
        for peer in self.peers.iter_mut().filter(|peer| peer.is_in_grace()) {
            peer.kernel.was_cut_off(cx.now);
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
}
