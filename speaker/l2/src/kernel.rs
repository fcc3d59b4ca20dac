//! Kernel probes: does the machine of a silent speaker still run (rule A22)?
//!
//! Owns the probes to each peer's own address and what came back. An ICMP or ICMPv6 echo carries a nonce, so that only
//! the machine itself can have answered this very one; where echo was never answered, ARP or a neighbour solicitation
//! to the peer's own Ethernet address asks instead. Must always hold: a kernel is silent only on evidence of e^20
//! against loss, gathered while this node could prove that it is connected itself; what answers is known from answers
//! to probes that were sent after the doubt began. Does not decide what follows: that is `grace`.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use herald_wire::echo::{Echo, Operation, Path};
use herald_wire::ethernet::Ethernet;
use herald_wire::{MacAddr, NodeId};

use crate::context::Context;
use crate::peers::{Bucket, Peer};
use crate::segment::Segment;
use crate::time::Instant;

/// ln of the odds at which a kernel is silent, and the least number of lost probes (rule A22).
const SILENT_AT: f64 = 20.0;
const LOST_LEAST: usize = 3;
/// Probes remembered: at the highest loss that is reckoned with, 115 make a kernel silent.
const OPEN: usize = 128;
/// What a packet filter may know our probes by.
const IDENTIFIER: u16 = 0x4845;
/// While a peer is healthy, echo is tried this often until it was answered once; then it is known to work.
const TRIES_IN_EARNEST: u8 = 5;
const TRY_EVERY: Duration = Duration::from_secs(1);
const TRY_SELDOM: Duration = Duration::from_mins(1);
/// ARP and neighbour solicitations: switches with Dynamic ARP Inspection shut a port that sends more than 15 in a second.
const HOST_EVERY: Duration = Duration::from_millis(200);
/// So for all peers together, beside as many that look for proof.
const HOSTS_PER_SECOND: u32 = 5;
/// Of all probes of a segment together: a node that is cut off suspects everybody. In small windows, so that a machine
/// that dies late in a second is not found out in the next.
const PER_WINDOW: u32 = 50;
const WINDOW: Duration = Duration::from_millis(10);
/// A suspicion that a hello ends with so many probes unanswered: echo is filtered from now on.
const UNLEARN_AT: usize = 4;

/// What is known of one peer's kernel.
#[derive(Debug, Default)]
pub(crate) struct Kernel {
    /// Over which family it has answered an echo.
    echo: Option<Family>,
    /// Tries while the peer was healthy.
    tries: u8,
    try_at: Option<Instant>,
    /// Probes since the last one that was answered.
    open: VecDeque<Open>,
    /// When it was asked last.
    asked: Option<Instant>,
    /// Probes sent before say nothing: this node was cut off.
    counts_from: Instant,
    /// When the last probe that was answered was sent.
    pub(crate) answered: Option<Instant>,
    /// When that answer came.
    heard: Option<Instant>,
}

/// A probe that nobody has answered yet.
#[derive(Clone, Copy, Debug)]
struct Open {
    nonce: [u8; 8],
    sent: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

/// The budget of a segment's probes.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    bucket: Bucket,
    hosts: Bucket,
    sequence: u16,
}

impl Kernel {
    /// The doubt begins: nothing from before counts.
    pub(crate) fn doubt(&mut self, now: Instant) {
        self.open.clear();
        self.answered = None;
        self.counts_from = now;
        self.asked = None;
    }

    /// This node was cut off until now: that nobody answered meanwhile says nothing.
    pub(crate) fn was_cut_off(&mut self, now: Instant) {
        self.counts_from = now;
    }

    /// What stays known when the peer's speaker starts anew.
    pub(crate) fn carry_over(&mut self, before: &Self) {
        self.echo = before.echo;
        self.tries = before.tries;
        self.try_at = before.try_at;
    }

    /// Probes that had the time for an answer and got none.
    fn lost(&self, now: Instant, patience: Duration) -> usize {
        self.open
            .iter()
            .filter(|probe| probe.sent >= self.counts_from && now.since(probe.sent) >= patience)
            .count()
    }

    /// A probe that should have been answered was not.
    pub(crate) fn is_in_doubt(&self, now: Instant, patience: Duration) -> bool {
        self.open.front().is_some_and(|probe| now.since(probe.sent) >= patience)
    }

    /// Rule A22. `least`: a shorter silence is a hiccup of a machine or a switch. `loss`: of a frame on the way there or
    /// back.
    pub(crate) fn is_silent(&self, now: Instant, patience: Duration, least: Duration, loss: f64) -> bool {
        let last = self.heard.unwrap_or_default().max(self.counts_from);
        if now.since(last) < least {
            return false;
        }
        let lost = self.lost(now, patience);
        lost >= LOST_LEAST && evidence(lost, loss) >= SILENT_AT
    }

    /// Half way there, if it is not this node that is cut off: that is to be found out now, and until it has answered.
    pub(crate) fn is_nearly_silent(&self, now: Instant, patience: Duration, loss: f64) -> bool {
        let owed = self.open.iter().filter(|probe| now.since(probe.sent) >= patience).count();
        evidence(owed, loss) >= SILENT_AT / 2.0
    }

    /// Has it ever answered an echo?
    pub(crate) fn answers_echo(&self) -> bool {
        self.echo.is_some()
    }

    /// Its speaker is heard again. What has not answered all that time does not answer echo: it is tried anew.
    pub(crate) fn heard_again(&mut self, now: Instant, patience: Duration) {
        if self.answered.is_none() && self.lost(now, patience) >= UNLEARN_AT {
            self.echo = None;
            self.tries = 0;
            self.try_at = None;
        }
    }

    /// An answer to a probe sent at or after `since`.
    pub(crate) fn answered_since(&self, since: Instant) -> bool {
        self.answered.is_some_and(|sent| sent >= since)
    }

    /// How long ago its last answer came.
    pub(crate) fn age(&self, now: Instant) -> Option<Duration> {
        self.heard.map(|heard| now.since(heard))
    }

    fn answer(&mut self, sent: Instant, now: Instant) {
        self.open.retain(|probe| probe.sent > sent);
        self.answered = Some(self.answered.map_or(sent, |last| last.max(sent)));
        self.heard = Some(now);
    }

    fn remember(&mut self, probe: Open) {
        if self.open.len() >= OPEN {
            self.open.pop_front();
        }
        self.open.push_back(probe);
    }
}

impl Segment {
    /// Finds out, while a peer is heard, whether its kernel answers echo at all.
    pub(crate) fn try_kernel(&mut self, cx: &mut Context, node: NodeId) {
        let (now, quiet) = (cx.now, self.is_quiet());
        let Some(peer) = self.peers.get_mut(node).filter(|peer| peer.kernel.echo.is_none()) else { return };
        if quiet {
            return;
        }
        // The first one waits until both kernels know each other's Ethernet address.
        let at = *peer.kernel.try_at.get_or_insert(now + TRY_EVERY / 4);
        if at > now {
            return;
        }
        let earnest = peer.kernel.tries < TRIES_IN_EARNEST;
        peer.kernel.tries = peer.kernel.tries.saturating_add(1);
        peer.kernel.try_at = Some(now + if earnest { TRY_EVERY } else { TRY_SELDOM });
        peer.kernel.open.clear();
        self.send_echo(cx, node);
    }

    /// Asks a peer's kernel, when it is time. Nothing is sent where nothing could come back.
    pub(crate) fn ask_kernel(&mut self, cx: &mut Context, node: NodeId, pace: Duration) {
        let now = cx.now;
        let Some(peer) = self.peers.get_mut(node) else { return };
        let by_echo = peer.kernel.echo.is_some();
        let pace = if by_echo { pace } else { pace.max(HOST_EVERY) };
        if peer.kernel.asked.is_some_and(|asked| now < asked + pace) {
            return;
        }
        peer.kernel.asked = Some(now);
        let affordable = by_echo || self.probes.hosts.take(now, HOSTS_PER_SECOND);
        if self.is_quiet() || !affordable || !self.probes.bucket.take_within(now, PER_WINDOW, WINDOW) {
            return;
        }
        self.send_echo(cx, node);
        if !by_echo {
            self.ask_kernel_as_host(cx, node);
        }
    }

    fn send_echo(&mut self, cx: &mut Context, node: NodeId) {
        let (own, ifindex) = (self.iface.mac, self.ifindex());
        let Some((peer, path)) = self.peers.get(node).and_then(|peer| Some((peer, self.path_to(peer)?)))
        else {
            return;
        };
        let mac = peer.mac;
        let nonce = cx.random.salt().0.to_be_bytes();
        self.probes.sequence = self.probes.sequence.wrapping_add(1);
        let sequence = self.probes.sequence;
        let echo = Echo { path, operation: Operation::Request, identifier: IDENTIFIER, sequence, nonce };
        if let Some(peer) = self.peers.get_mut(node) {
            peer.kernel.remember(Open { nonce, sent: cx.now });
        }
        cx.transmit(ifindex, echo.to_frame(Ethernet::new(mac, own)));
    }

    /// Between own addresses of one family; until one is known to work, both are tried in turn.
    fn path_to(&self, peer: &Peer) -> Option<Path> {
        let v4 = || Path::between(self.own_v4(peer.ipv4)?.into(), peer.ipv4?.into());
        let v6 = || Path::between(self.own_link_local()?.into(), peer.ipv6?.into());
        match peer.kernel.echo {
            Some(Family::V4) => v4().or_else(v6),
            None if peer.kernel.tries.is_multiple_of(2) => v4().or_else(v6),
            Some(Family::V6) | None => v6().or_else(v4),
        }
    }

    /// Is there an address of it that could be asked? Without one there is no kernel (rule A22).
    pub(crate) fn can_ask_kernel(&self, node: NodeId) -> bool {
        self.peers.get(node).is_some_and(|peer| self.path_to(peer).is_some())
    }

    fn ask_kernel_as_host(&mut self, cx: &mut Context, node: NodeId) {
        let Some(peer) = self.peers.get(node) else { return };
        let mac = Some(peer.mac);
        match (peer.ipv4, peer.ipv6) {
            (Some(ip), _) => self.ask_host(cx, ip.into(), mac),
            (None, Some(ip)) => self.ask_host(cx, ip.into(), mac),
            (None, None) => {}
        }
    }

    /// An echo came in: an answer to a probe of ours, or nothing.
    pub(crate) fn handle_echo(&mut self, cx: &mut Context, ethernet: Ethernet, echo: &Echo) {
        let now = cx.now;
        let source = echo.path.source();
        let asked = (echo.operation == Operation::Reply && echo.identifier == IDENTIFIER)
            .then(|| self.peers.iter_mut().find(|peer| peer.mac == ethernet.source && has(peer, source)))
            .flatten();
        let probe = asked.and_then(|peer| {
            let sent = peer.kernel.open.iter().find(|probe| probe.nonce == echo.nonce)?.sent;
            Some((peer, sent))
        });
        let Some((peer, sent)) = probe else {
            cx.counters.ignored += 1;
            return;
        };
        peer.kernel.answer(sent, now);
        peer.kernel.echo = Some(if source.is_ipv4() { Family::V4 } else { Family::V6 });
    }

    /// A host answered an ARP request or a solicitation of ours; it may be a peer whose kernel was asked.
    ///
    /// A late answer is taken for one to the last probe: they carry no nonce. It is late by less than the pace.
    pub(crate) fn kernel_answers_as_host(&mut self, cx: &Context, ip: IpAddr, mac: MacAddr) {
        let asked =
            self.peers.iter_mut().find(|peer| peer.mac == mac && has(peer, ip) && peer.kernel.echo.is_none());
        if let Some(peer) = asked.filter(|peer| peer.is_suspected() || peer.is_in_grace())
            && let Some(last) = peer.kernel.open.back().copied()
        {
            peer.kernel.answer(last.sent, cx.now);
        }
    }
}

/// What so many probes without an answer weigh. `loss`: of a frame on the way there or back.
fn evidence(lost: usize, loss: f64) -> f64 {
    let round_trip = (1.0 - loss) * (1.0 - loss);
    f64::from(u32::try_from(lost).unwrap_or(u32::MAX)) * -(1.0 - round_trip).ln()
}

fn has(peer: &Peer, ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => peer.ipv4 == Some(ip),
        IpAddr::V6(ip) => peer.ipv6 == Some(ip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const F: Duration = Duration::from_millis(5);

    fn ms(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn asked(kernel: &mut Kernel, times: impl Iterator<Item = u64>) {
        for at in times {
            kernel.remember(Open { nonce: at.to_be_bytes(), sent: ms(at) });
        }
    }

    #[test]
    fn a_kernel_is_silent_before_its_speaker_is_dead_and_later_where_more_is_lost() {
        let silent_at = |loss| {
            let mut kernel = Kernel::default();
            kernel.doubt(ms(90));
            (90..1_000).find(|now| {
                if now % 5 == 0 {
                    asked(&mut kernel, std::iter::once(*now));
                }
                kernel.is_silent(ms(*now), F * 2, Duration::ZERO, loss)
            })
        };
        // Of the probes at 90, 95, 100 and 105 the last one had 10 ms.
        assert_eq!([0.001, 0.13, 0.36].map(silent_at), [Some(115), Some(170), Some(285)]);
    }

    #[test]
    fn a_hiccup_is_no_silence() {
        let mut kernel = Kernel::default();
        kernel.doubt(ms(0));
        kernel.answer(ms(85), ms(90));
        asked(&mut kernel, (90..300).step_by(5));
        let silent = |now| kernel.is_silent(ms(now), F * 2, F * 24, 0.001);
        assert_eq!([150, 209, 210].map(silent), [false, false, true]);
    }

    #[test]
    fn echo_that_nobody_answers_any_more_is_unlearned_when_the_speaker_is_heard_again() {
        for (lost, learned) in [(3, true), (4, false)] {
            let mut kernel = Kernel { echo: Some(Family::V4), tries: 9, ..Kernel::default() };
            kernel.doubt(ms(90));
            asked(&mut kernel, (90..).step_by(5).take(lost));
            kernel.heard_again(ms(200), F * 2);
            assert_eq!(kernel.answers_echo(), learned, "{lost} lost");
        }
    }

    #[test]
    fn one_answer_ends_the_doubt() {
        let mut kernel = Kernel::default();
        kernel.doubt(ms(90));
        asked(&mut kernel, (90..200).step_by(5));
        assert!(kernel.is_silent(ms(200), F * 2, F * 2, 0.001));
        kernel.answer(ms(195), ms(200));
        assert!(!kernel.is_silent(ms(300), F * 2, F * 2, 0.001));
        assert!(!kernel.is_in_doubt(ms(300), F * 2));
        assert!(kernel.answered_since(ms(90)));
        kernel.doubt(ms(400));
        assert!(!kernel.answered_since(ms(400)), "what it answered before says nothing now");
    }

    #[test]
    fn what_was_not_answered_while_this_node_was_cut_off_says_nothing() {
        let mut kernel = Kernel::default();
        asked(&mut kernel, (0..1_000).step_by(20));
        kernel.was_cut_off(ms(990));
        assert!(kernel.is_in_doubt(ms(1_000), F * 2));
        assert!(!kernel.is_silent(ms(1_100), F * 2, F * 2, 0.001));
        asked(&mut kernel, (1_000..1_060).step_by(20));
        assert!(
            !kernel.is_silent(ms(1_100), F * 2, F * 2, 0.001),
            "three lost ones are too few without loss"
        );
        asked(&mut kernel, std::iter::once(1_060));
        assert!(kernel.is_silent(ms(1_100), F * 2, F * 2, 0.001));
    }
}
