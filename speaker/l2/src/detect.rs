//! Who is alive: measured loss, suspicion, evidence, death (rules A17-A19, A21).
//!
//! Must always hold: a peer is declared dead only on evidence of e^32 against loss, gathered while this node could
//! prove that it is connected itself. Whether what is dead is gone, `grace` says (rule A23).

use std::time::Duration;

use herald_wire::NodeId;
use herald_wire::hello::Suspect;

use crate::context::{Context, Rule};
use crate::output::{Event, Gone};
use crate::peers::{FORGET, Status};
use crate::segment::Segment;
use crate::time::Instant;

/// ln of the odds at which a peer is dead (rule A21).
const DEAD_AT: f64 = 32.0;
const LOSS_FLOOR: f64 = 0.001;
const LOSS_CAP: f64 = 0.6;
/// Assumed while fewer hellos than this have been expected.
const SAMPLES_TO_TRUST: u32 = 8;
const LOSS_BEFORE: f64 = 0.1;
/// A node that is mute for longer stops shouting: it has no audience (the rate of rule A18 is meant for moments).
const SHOUT_FOR: Duration = Duration::from_secs(1);
/// And asks kernels so many times less often.
const QUIET_PACE: u32 = 40;

/// The fate of the last 64 hellos expected (rule A17).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Loss {
    /// A set bit is a miss.
    window: u64,
    samples: u32,
    pub(crate) heard: u64,
    pub(crate) missed: u64,
}

impl Loss {
    /// A hello came `silence` after the one before, promised within `interval`.
    fn record(&mut self, silence: Duration, interval: Duration, f: Duration) {
        self.heard += 1;
        // Extra hellos come early; they were not promised, so they say nothing about loss.
        if silence * 2 < interval {
            return;
        }
        // Hellos come every 0.9 to 1 interval; f of slack for a late loop on either side.
        let missed = times(silence.saturating_sub(f), interval);
        self.missed += u64::from(missed);
        self.window = self
            .window
            .checked_shl(missed)
            .map_or(u64::MAX, |window| window | 1u64.checked_shl(missed).map_or(u64::MAX, |bit| bit - 1));
        self.window <<= 1;
        self.samples = (self.samples + missed + 1).min(u64::BITS);
    }

    /// p of rule A17, one sigma on the safe side.
    pub(crate) fn estimate(&self) -> f64 {
        if self.samples == 0 {
            return LOSS_BEFORE;
        }
        let valid = u64::MAX.checked_shr(u64::BITS - self.samples).unwrap_or(0);
        let n = f64::from(self.samples);
        let p = f64::from((self.window & valid).count_ones()) / n;
        let p = (p + (p * (1.0 - p) / n).sqrt()).clamp(LOSS_FLOOR, LOSS_CAP);
        if self.samples < SAMPLES_TO_TRUST { p.max(LOSS_BEFORE) } else { p }
    }
}

/// A peer that has been silent for longer than it promised.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suspicion {
    pub(crate) since: Instant,
    /// Silence before the suspicion; counts if proof comes at once.
    before: Duration,
    /// Time since then that proof covers.
    proved: Duration,
    /// Up to where that has been reckoned.
    covered_to: Instant,
    /// Since when it is asked for, again after this node was cut off.
    asked_since: Instant,
}

impl Suspicion {
    fn new(silence: Duration, now: Instant) -> Self {
        Self { since: now, before: silence, proved: Duration::ZERO, covered_to: now, asked_since: now }
    }

    /// Rule A21: time without fresh proof counts for nothing. `fresh` is 6f; after twice that the node was cut off,
    /// and what it gathered before says nothing about the peer.
    ///
    /// Whether it has to be asked for once more.
    fn reckon(&mut self, now: Instant, proof: Option<Instant>, fresh: Duration) -> bool {
        let Some(proof) = proof else { return false };
        let mut cut_off = false;
        if proof > self.covered_to {
            let gap = proof.since(self.covered_to);
            if gap <= fresh {
                self.proved += gap;
            } else if gap > fresh * 2 {
                self.before = Duration::ZERO;
                self.proved = Duration::ZERO;
                // Shouting may have ended meanwhile: what counts from now on must have been asked from now on.
                self.asked_since = proof;
                cut_off = true;
            } else if self.proved.is_zero() {
                self.before = Duration::ZERO;
            }
            self.covered_to = proof;
        }
        let end = now.min(proof + fresh);
        if end > self.covered_to {
            self.proved += end.since(self.covered_to);
            self.covered_to = end;
        }
        cut_off
    }

    /// E of rule A21. `answers`: peers answer a SUSPECT at once (rule A19), so each f of it unanswered counts.
    pub(crate) fn evidence(&self, interval: Duration, f: Duration, p: f64, answers: bool) -> f64 {
        let silent = f64::from(times(self.before + self.proved, interval)) * -p.ln();
        let round_trip = (1.0 - p) * (1.0 - p);
        let asked = f64::from(times(self.proved.saturating_sub(f), f)) * -(1.0 - round_trip).ln();
        silent + if answers { asked } else { 0.0 }
    }
}

/// How many whole `part`s are in `whole`.
fn times(whole: Duration, part: Duration) -> u32 {
    u32::try_from(whole.as_nanos() / part.as_nanos().max(1)).unwrap_or(u32::MAX)
}

impl Segment {
    /// A hello of this peer has just been accepted.
    pub(crate) fn peer_heard(&mut self, cx: &mut Context, node: NodeId) {
        let (now, f, ifindex) = (cx.now, cx.f(), self.ifindex());
        let Some(peer) = self.peers.get_mut(node) else { return };
        let silence = now.since(peer.last_heard);
        let (interval, suspected) = (peer.interval, peer.is_suspected());
        peer.loss.record(silence, interval, f);
        peer.last_heard = now;
        if suspected {
            peer.status = Status::Alive;
            peer.kernel.heard_again(now, f * 2);
            let peer = peer.id();
            cx.event(Event::Unsuspected { ifindex, peer, silence });
            self.candidates_stale = true;
        }
    }

    /// Looks at a peer whose time has come, and says when to look again.
    pub(crate) fn check_peer(&mut self, cx: &mut Context, node: NodeId) {
        self.end_reservation(cx, node);
        self.request_table(cx, node);
        let (now, f, h) = (cx.now, cx.f(), cx.h());
        let ifindex = self.ifindex();
        let proof = self.latest_proof();
        let mut cut_off = false;
        let Some(peer) = self.peers.get_mut(node) else { return };
        let silence = now.since(peer.last_heard);
        let suspect_at = peer.last_heard + peer.interval * 2 + f * 2;
        let next = match &mut peer.status {
            Status::Gone { since, .. } => {
                let forget_at = *since + FORGET;
                if now >= forget_at {
                    self.peers.remove(node);
                    self.forget_claims(cx, node);
                    return;
                }
                forget_at
            }
            Status::Alive if now >= suspect_at => {
                peer.status = Status::Suspected(Suspicion::new(silence, now));
                cx.counters.suspicions += 1;
                peer.kernel.doubt(now);
                let peer = peer.id();
                cx.event(Event::Suspected { ifindex, peer, silence });
                self.candidates_stale = true;
                self.proof_needed(cx);
                self.hello_soon(cx);
                self.ask_kernel(cx, node, f);
                now + f
            }
            Status::Alive => {
                self.try_kernel(cx, node);
                suspect_at
            }
            Status::Grace(grace) => {
                let grace = *grace;
                self.grace_tick(cx, node, grace)
            }
            Status::Suspected(suspicion) => {
                cut_off = suspicion.reckon(
                    now,
                    proof.filter(|(asked, _)| *asked >= suspicion.since).map(|(_, at)| at),
                    f * 6,
                );
                if cx.lacks(Rule::Proof) {
                    suspicion.proved = now.since(suspicion.since);
                }
                let loss = peer.loss.estimate();
                let evidence = suspicion.evidence(peer.interval, f, loss, !cx.lacks(Rule::FastSuspicion));
                if evidence >= DEAD_AT && silence >= (h * 3).max(peer.interval * 2 + h) {
                    let how = Gone::Dead { silence, evidence, loss };
                    let asked = suspicion.asked_since;
                    cx.counters.deaths += 1;
                    self.peer_dead(cx, node, how, asked);
                    now + FORGET
                } else {
                    let shouts = now.since(suspicion.asked_since) < SHOUT_FOR;
                    self.forgive_while_cut_off(cx, node);
                    self.ask_kernel(cx, node, if shouts { f } else { f * QUIET_PACE });
                    now + f
                }
            }
        };
        if cut_off {
            self.hello_soon(cx);
        }
        let next = match self.peers.get(node) {
            Some(peer) => [peer.reserved_until, peer.table.next_request().filter(|_| !peer.is_absent())]
                .into_iter()
                .flatten()
                .fold(next, Instant::min),
            None => next,
        };
        self.peers.look_at(node, next.max(now + Duration::from_millis(1)));
    }

    /// Proof has just come: reckon what it covers.
    pub(crate) fn reckon_proof(&mut self, cx: &Context, node: NodeId) {
        let (now, fresh) = (cx.now, cx.f() * 6);
        let proof = self.latest_proof();
        if let Some(peer) = self.peers.get_mut(node)
            && let Status::Suspected(suspicion) = &mut peer.status
            && suspicion.reckon(
                now,
                proof.filter(|(asked, _)| *asked >= suspicion.since).map(|(_, at)| at),
                fresh,
            )
        {
            self.hello_soon(cx);
        }
    }

    /// Gone (rule A23): its claims are void, at once.
    pub(crate) fn peer_gone(&mut self, cx: &mut Context, node: NodeId, how: Gone) {
        let (now, ifindex) = (cx.now, self.ifindex());
        let Some(peer) = self.peers.get_mut(node) else { return };
        peer.status = Status::Gone { how, since: now };
        peer.reserved_until = None;
        let peer = peer.id();
        cx.event(Event::PeerDown { ifindex, peer, how });
        self.candidates_stale = true;
        self.void_claims(cx, node, how);
        self.peers.look_at(node, now + FORGET);
    }

    /// Whom to list in SUSPECT (rule A18).
    pub(crate) fn suspects(&self) -> Vec<Suspect> {
        self.peers
            .iter()
            .filter(|peer| peer.is_suspected())
            .map(|peer| Suspect { node: peer.node, boot: peer.boot })
            .collect()
    }

    /// Is anybody suspected, and not for so long that shouting is pointless?
    pub(crate) fn suspects_lately(&self, now: Instant) -> bool {
        self.peers.iter().any(|peer| match &peer.status {
            Status::Suspected(suspicion) => now.since(suspicion.asked_since) < SHOUT_FOR,
            _ => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const H: Duration = Duration::from_millis(40);
    const F: Duration = Duration::from_millis(5);

    fn ms(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn loss_is_that_of_the_last_64_hellos_and_a_sigma() {
        let mut loss = Loss::default();
        assert!((loss.estimate() - LOSS_BEFORE).abs() < 1e-9, "before anything is known");
        for _ in 0..64 {
            loss.record(H, H, F);
        }
        assert!((loss.estimate() - LOSS_FLOOR).abs() < 1e-9);
        // Every second hello is missed: silence of two intervals each time.
        for _ in 0..64 {
            loss.record(H * 2, H, F);
        }
        assert!((loss.estimate() - 0.5625).abs() < 1e-9, "{}", loss.estimate());
        // Extra hellos say nothing.
        for _ in 0..64 {
            loss.record(F, H, F);
        }
        assert!((loss.estimate() - 0.5625).abs() < 1e-9);
        // A hello up to f late is not a missed one.
        for _ in 0..64 {
            loss.record(H + Duration::from_micros(4_999), H, F);
        }
        assert!((loss.estimate() - LOSS_FLOOR).abs() < 1e-9);
        loss.record(Duration::from_mins(1), H, F);
        assert!((loss.estimate() - LOSS_CAP).abs() < 1e-9, "capped");
    }

    #[test]
    fn a_silent_peer_is_dead_after_120_ms_with_proof_and_never_without() {
        let mut suspicion = Suspicion::new(Duration::from_millis(90), ms(90));
        suspicion.reckon(ms(120), Some(ms(91)), F * 6);
        assert!(suspicion.evidence(H, F, LOSS_FLOOR, true) >= DEAD_AT);
        let mut suspicion = Suspicion::new(Duration::from_millis(90), ms(90));
        suspicion.reckon(ms(100_000), None, F * 6);
        assert!(suspicion.evidence(H, F, LOSS_FLOOR, true) < DEAD_AT);
    }

    #[test]
    fn what_was_gathered_before_a_cut_counts_for_nothing_after_it() {
        let mut suspicion = Suspicion::new(Duration::from_millis(90), ms(90));
        suspicion.reckon(ms(110), Some(ms(91)), F * 6);
        let before = suspicion.evidence(H, F, LOSS_FLOOR, true);
        assert!(before > 20.0);
        // Cut off until 500 ms, when the next proof comes: it is asked anew.
        assert!(suspicion.reckon(ms(500), Some(ms(500)), F * 6));
        assert_eq!(suspicion.asked_since, ms(500));
        assert!(suspicion.evidence(H, F, LOSS_FLOOR, true) < 1.0);
    }

    #[test]
    fn more_loss_asks_for_more_silence() {
        let silent_until_dead = |p: f64| {
            (90..5_000).find(|now| {
                let mut suspicion = Suspicion::new(Duration::from_millis(90), ms(90));
                suspicion.proved = ms(*now).since(ms(90));
                suspicion.evidence(H, F, p, true) >= DEAD_AT
            })
        };
        // The floor of 3h is what holds the first one back.
        let times = [0.001, 0.13, 0.36].map(silent_until_dead);
        assert_eq!(times, [Some(110), Some(180), Some(325)]);
    }
}
