//! Foreign owners: probes before the very first claim (rule A33, RFC 5227 2.1.1, RFC 4862 5.4), conflicts while
//! holding (A47, RFC 5227 2.4).
//!
//! Owns what is known of somebody outside who speaks as one of our addresses. Must always hold: an announcement by a
//! peer is never a conflict; a holder defends at most once in 10 s and never gives up to a foreigner while peers are
//! heard (rule A49 in `alone` is the exception).

use std::net::IpAddr;
use std::time::Duration;

use herald_wire::MacAddr;
use herald_wire::arp::Arp;
use herald_wire::ethernet::Ethernet;
use herald_wire::ndp::{Ndp, solicited_node};

use crate::context::Context;
use crate::output::Event;
use crate::ownership::Probe;
use crate::segment::Segment;
use crate::time::Instant;
use crate::vips::{Vip, VipId};

/// Probes before a first claim, and their distance (rule A33).
const PROBES: u8 = 3;
const PROBE_EVERY: Duration = Duration::from_millis(50);
/// Unanswered probes are good for a claim for so long.
const CLEAR_FOR: Duration = Duration::from_secs(1);
/// An address that somebody owns is tried again after this.
const RETRY_MIN: Duration = Duration::from_secs(10);
const RETRY_MAX: Duration = Duration::from_secs(20);
/// A peer's claim is about to be heard; look again soon.
const RETRY_PEER: Duration = Duration::from_millis(200);
/// RFC 5227, DEFEND_INTERVAL.
const DEFEND_EVERY: Duration = Duration::from_secs(10);
/// Between two announcements by which rule A49 finds one holder: more than its 2 s.
const SAY_AGAIN: Duration = Duration::from_millis(2_500);
/// A conflict not seen for this long is over.
const OVER_AFTER: Duration = Duration::from_mins(1);
/// Whoever holds an address refreshes it within two minutes (rule A46): not heard for longer, a rival is gone.
const RIVAL_GONE_AFTER: Duration = Duration::from_mins(5);

/// What is known of others who speak as an address.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Watch {
    pub(crate) probing: Probing,
    /// Rounds of probes without an answer since the last answer; three make an address free (rule A48).
    pub(crate) quiet_rounds: u8,
    pub(crate) conflict: Option<Conflict>,
    /// Somebody else, whoever, has been speaking as it since then, and did so last then (rule A49).
    rivals: Option<(Instant, Instant)>,
}

/// Probes for one address.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Probing {
    #[default]
    Idle,
    /// Begins then (rule A48: after a random time).
    Starts(Instant),
    Running {
        sent: u8,
        next: Instant,
    },
    /// Nobody answered.
    Clear(Instant),
    /// Somebody did.
    Answered {
        retry: Instant,
    },
}

/// Somebody outside has our address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conflict {
    pub(crate) mac: MacAddr,
    pub(crate) first: Instant,
    pub(crate) last: Instant,
    defended: Option<Instant>,
    /// To be said again then, to who may be a node that can't be heard (rule A49).
    again: Option<Instant>,
}

impl Segment {
    /// Whether this address may be claimed without probes, as far as probes are concerned.
    pub(crate) fn probe_for(&self, cx: &Context, vip: &Vip) -> Probe {
        let Some(spec) = &vip.spec else { return Probe::Clear };
        let first_ever =
            spec.conflict_detection && vip.never_held() && !spec.holders_hint.contains(&cx.config.name);
        if !first_ever && !self.peers_unheard() {
            return Probe::Clear;
        }
        match vip.watch.as_ref().map(|watch| watch.probing).unwrap_or_default() {
            Probing::Clear(at) if cx.now.since(at) < CLEAR_FOR => Probe::Clear,
            Probing::Idle | Probing::Clear(_) => Probe::Needed,
            Probing::Starts(at) | Probing::Running { next: at, .. } => Probe::Wait(at),
            Probing::Answered { retry } if retry <= cx.now => Probe::Needed,
            Probing::Answered { retry } => Probe::Wait(retry),
        }
    }

    /// Begins to ask who has the address.
    pub(crate) fn start_probing(&mut self, cx: &mut Context, id: VipId) {
        let delay = self.probe_delay(cx, id);
        let now = cx.now;
        let Some(watch) = self.watch(id) else { return };
        watch.probing = Probing::Starts(now + delay);
        if delay.is_zero() {
            self.probe_tick(cx, id);
        }
        self.evaluate(cx, id);
    }

    /// Sends the next probe, or finds that nobody answered.
    pub(crate) fn probe_tick(&mut self, cx: &mut Context, id: VipId) {
        self.conflict_tick(cx, id);
        let now = cx.now;
        let alone = self.peers_unheard();
        let ifindex = self.ifindex();
        let Some(vip) = self.vips.get_mut(id) else { return };
        let addr = vip.addr;
        let Some(watch) = vip.watch.as_deref_mut() else { return };
        let sent = match watch.probing {
            Probing::Starts(at) if at <= now => 0,
            Probing::Running { sent, next } if next <= now => sent,
            _ => return,
        };
        if sent < PROBES {
            watch.probing = Probing::Running { sent: sent + 1, next: now + PROBE_EVERY };
            self.send_probe(cx, id);
        } else if alone && watch.quiet_rounds > 1 {
            // Somebody answered a while ago: one quiet round is not enough.
            watch.quiet_rounds -= 1;
            self.probe_answered(cx, id, true);
        } else {
            watch.quiet_rounds = 0;
            watch.probing = Probing::Clear(now);
            // Who had it is gone. A conflict that was defended stays: there is one defence in 10 s, whatever happens.
            if watch.conflict.take_if(|conflict| conflict.defended.is_none()).is_some() {
                cx.event(Event::ConflictOver { vip: addr, ifindex });
            }
        }
    }

    fn send_probe(&mut self, cx: &mut Context, id: VipId) {
        let own = self.iface.mac;
        let Some(vip) = self.vips.get(id) else { return };
        let frame = match vip.addr {
            IpAddr::V4(ip) => Arp::probe(ip, own).to_frame(Ethernet::broadcast(own)),
            IpAddr::V6(ip) => Ndp::probe(ip).to_frame(Ethernet::multicast(solicited_node(ip), own)),
        };
        cx.transmit(self.ifindex(), frame);
    }

    /// Not now: tries again later.
    pub(crate) fn probe_answered(&mut self, cx: &mut Context, id: VipId, alone: bool) {
        let pending = self
            .vips
            .get(id)
            .and_then(|vip| vip.watch.as_deref())
            .is_some_and(|watch| matches!(watch.probing, Probing::Answered { retry } if retry > cx.now));
        // Each frame of somebody else comes here: a new time for each would leave a timer behind for each.
        if pending {
            return;
        }
        let pause = if alone { Self::reprobe_pause(cx) } else { cx.random.between(RETRY_MIN, RETRY_MAX) };
        let retry = cx.now + pause;
        if let Some(watch) = self.watch(id) {
            watch.probing = Probing::Answered { retry };
        }
    }

    /// Somebody with this Ethernet address speaks as one of our addresses.
    pub(crate) fn other_owner(&mut self, cx: &mut Context, id: VipId, mac: MacAddr) {
        // Who leaves takes no client back from its successor.
        if mac == self.iface.mac || self.leaving.is_some() {
            return;
        }
        let from_peer = self.is_peers(mac);
        let Some(vip) = self.vips.get(id) else { return };
        if vip.spec.is_none() && vip.mine.is_none() {
            return;
        }
        match (vip.mine.is_some(), from_peer) {
            // Rule A47: he is about to learn that it is mine, or I that it is his.
            (true, true) => self.reannounce(cx, id),
            (true, false) => self.conflict_held(cx, id, mac),
            (false, _) => self.owner_found(cx, id, mac, from_peer),
        }
    }

    /// Somebody asks whether anybody has an address that this node may be about to claim.
    pub(crate) fn other_prober(&mut self, cx: &mut Context, id: VipId, mac: MacAddr) {
        let probing = self.vips.get(id).and_then(|vip| vip.watch.as_deref()).is_some_and(Watch::is_probing);
        if !probing || self.is_peers(mac) {
            return;
        }
        if self.peers_unheard() {
            // Probably a node in the same position: he owns nothing either. One of the two will be first next time.
            self.probe_answered(cx, id, true);
            self.evaluate(cx, id);
        } else {
            self.owner_found(cx, id, mac, false);
        }
    }

    /// The Ethernet address of a peer; of one that has left or died, too, unless hellos may be filtered (rule A48).
    fn is_peers(&self, mac: MacAddr) -> bool {
        let unheard = self.peers_unheard();
        self.peers.iter().any(|peer| peer.mac == mac && !(unheard && peer.is_gone()))
    }

    fn conflict_held(&mut self, cx: &mut Context, id: VipId, mac: MacAddr) {
        let now = cx.now;
        let first = self.conflict_due(id).is_none();
        let Some(conflict) = self.note_conflict(cx, id, mac, true) else { return };
        let rival_since = self.rival_since(now, id);
        if self.peers_unheard() {
            if self.gives_way(cx, id, mac, rival_since) {
                return;
            }
            self.say_again(cx, id);
        }
        if conflict.defended.is_none_or(|at| now.since(at) >= DEFEND_EVERY) {
            if let Some(conflict) = self.watch(id).and_then(|watch| watch.conflict.as_mut()) {
                conflict.defended = Some(now);
            }
            self.reannounce(cx, id);
        }
        if first {
            // Finds the conflict's end among the dates of this address; an earlier one stays.
            self.evaluate(cx, id);
        }
    }

    /// Rule A49 settles it only between two announcements that are further apart than its 2 s: whoever keeps the address
    /// answers the other's with one of his own after that time. A stranger has less to hear than he says himself.
    fn say_again(&mut self, cx: &mut Context, id: VipId) {
        let at = cx.now + SAY_AGAIN;
        if let Some(conflict) = self.watch(id).and_then(|watch| watch.conflict.as_mut()) {
            conflict.again.get_or_insert(at);
        }
        self.evaluate(cx, id);
    }

    /// Since when somebody else has been speaking as this address: he does so now.
    fn rival_since(&mut self, now: Instant, id: VipId) -> Instant {
        let Some(watch) = self.watch(id) else { return now };
        let since = match watch.rivals {
            Some((since, last)) if now.since(last) < RIVAL_GONE_AFTER => since,
            _ => now,
        };
        watch.rivals = Some((since, now));
        since
    }

    fn owner_found(&mut self, cx: &mut Context, id: VipId, mac: MacAddr, from_peer: bool) {
        let alone = self.peers_unheard();
        let probing = self.vips.get(id).and_then(|vip| vip.watch.as_deref()).is_some_and(Watch::is_probing);
        if alone {
            if let Some(watch) = self.watch(id) {
                watch.quiet_rounds = PROBES;
            }
            self.probe_answered(cx, id, true);
        } else if probing && from_peer {
            let retry = cx.now + RETRY_PEER;
            if let Some(watch) = self.watch(id) {
                watch.probing = Probing::Answered { retry };
            }
        } else if probing {
            self.probe_answered(cx, id, false);
            self.note_conflict(cx, id, mac, false);
        } else {
            return;
        }
        self.evaluate(cx, id);
    }

    /// Remembers a conflict and tells of it once.
    fn note_conflict(&mut self, cx: &mut Context, id: VipId, mac: MacAddr, held: bool) -> Option<Conflict> {
        let (now, ifindex) = (cx.now, self.ifindex());
        let vip = self.vips.get(id)?.addr;
        let watch = self.watch(id)?;
        let before = watch.conflict;
        let known = before.filter(|conflict| conflict.mac == mac);
        let conflict = Conflict {
            mac,
            first: known.map_or(now, |conflict| conflict.first),
            last: now,
            defended: before.and_then(|conflict| conflict.defended),
            again: before.and_then(|conflict| conflict.again),
        };
        watch.conflict = Some(conflict);
        // Frames forged with ever new MAC addresses tell nothing new: no event for each of them.
        if before.is_none_or(|before| before.mac != mac && now.since(before.first) >= DEFEND_EVERY) {
            cx.event(Event::Conflict { vip, ifindex, mac, held });
        }
        Some(conflict)
    }

    /// Ends a conflict that has not been seen for a while.
    fn conflict_tick(&mut self, cx: &mut Context, id: VipId) {
        let (now, ifindex) = (cx.now, self.ifindex());
        let Some(vip) = self.vips.get_mut(id) else { return };
        let addr = vip.addr;
        let Some(watch) = vip.watch.as_deref_mut() else { return };
        let mut again = false;
        if let Some(conflict) = &mut watch.conflict {
            again = conflict.again.take_if(|at| *at <= now).is_some();
            if now.since(conflict.last) >= OVER_AFTER {
                watch.conflict = None;
                cx.event(Event::ConflictOver { vip: addr, ifindex });
            }
        }
        if again {
            self.reannounce(cx, id);
        }
    }

    /// When a conflict may be over, for the next look at the address.
    pub(crate) fn conflict_due(&self, id: VipId) -> Option<Instant> {
        let conflict = self.vips.get(id)?.watch.as_deref()?.conflict?;
        Some(conflict.again.into_iter().fold(conflict.last + OVER_AFTER, Instant::min))
    }

    pub(crate) fn watch(&mut self, id: VipId) -> Option<&mut Watch> {
        Some(self.vips.get_mut(id)?.watch.get_or_insert_default())
    }
}

impl Watch {
    fn is_probing(&self) -> bool {
        !matches!(self.probing, Probing::Idle | Probing::Answered { .. })
    }
}
