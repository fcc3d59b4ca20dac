//! Grace: a speaker is gone, its machine is not (rules A23, A45, and A31 where others know more than this node).
//!
//! A Service's traffic is served by the node's kernel, not by its speaker: while the kernel answers, what the peer
//! claimed stays where it is, and so do the connections through it. Deputies tell clients that ask meanwhile. Must
//! always hold: grace ends with its time, with a silent kernel, or with the speaker's return; a node that is dead to
//! its kernel is gone as quickly as if there were no grace; a deputy never announces, and never answers with its own
//! Ethernet address.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use herald_wire::hello::{State, Vouch, VouchKind};
use herald_wire::{MacAddr, NodeId};

use crate::context::{Context, Rule};
use crate::holdings::HINT_HOLD;
use crate::input::VipSpec;
use crate::output::{Event, Gone};
use crate::ownership::{Standing, compare, is_excluded, is_overruled, rendezvous};
use crate::peers::{FORGET, Peer, Status};
use crate::segment::Segment;
use crate::snapshot::Lifecycle;
use crate::time::Instant;
use crate::vips::{Vip, VipId};

/// For a speaker that fell silent without a word (rule A23).
const AFTER_CRASH: Duration = Duration::from_secs(5);
/// For one that said how long it needs, at most.
const HOLD_MOST: Duration = Duration::from_mins(2);
/// The same where only ARP or neighbour solicitations are answered: a switch may do that for a machine that is dead.
const AFTER_CRASH_BY_ARP: Duration = Duration::from_secs(2);
const HOLD_BY_ARP: Duration = Duration::from_secs(10);
/// A kernel that is silent for less is not silent, in f: three intervals of a holder, as for a speaker (rule A21).
const HICCUP: u32 = 24;
/// Between two probes in grace, in f; and at one peer, per second, from all nodes together.
const PACE: u32 = 4;
const AT_ONE_PEER: u32 = 2_500;
/// Nodes that answer as deputies: ranks 0 and 1 (rule A45).
const DEPUTIES: usize = 2;
/// Peers in grace that one hello vouches for, and vouched-for strangers remembered.
const VOUCHES: usize = 4;
const STRANGERS: usize = 64;
/// Another's word counts for so long at least: he may end himself, and nobody else know.
const WORD_COUNTS: Duration = AFTER_CRASH;

/// Why and for how long what a peer claimed stays its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grace {
    until: Instant,
    /// While its kernel was never heard to answer echo.
    until_by_arp: Instant,
    how: Gone,
}

impl Grace {
    /// It said that it would be back: whatever else comes of the same start is late.
    pub(crate) fn was_announced(&self) -> bool {
        self.how == Gone::Overdue
    }

    fn end(&self, peer: &Peer) -> Instant {
        if peer.kernel.answers_echo() { self.until } else { self.until_by_arp }
    }
}

/// Since when a speaker has not been ACTIVE, however often it started meanwhile: what it held is not kept for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Away {
    since: Instant,
    most: Duration,
}

impl Away {
    /// It is away from now on, and has not said for how long.
    pub(crate) fn begin(now: Instant) -> Self {
        Self { since: now, most: AFTER_CRASH }
    }

    /// Nothing is kept for longer than this, but for the time that it needs to listen.
    pub(crate) fn end(self) -> Instant {
        self.since + self.most
    }
}

/// Nodes that this one does not know and others vouch for, each with the moment until which.
pub(crate) type Strangers = BTreeMap<NodeId, Instant>;

impl Segment {
    /// The speaker of a suspected peer is dead (rule A21): is its machine, too? `asked`: since when its kernel was.
    pub(crate) fn peer_dead(&mut self, cx: &mut Context, node: NodeId, how: Gone, asked: Instant) {
        let answers = cx.lacks(Rule::KernelProbe)
            || self
                .peers
                .get(node)
                .is_some_and(|peer| peer.kernel.answered_since(asked) && !kernel_is_silent(cx, peer));
        if answers && !cx.lacks(Rule::Grace) && self.keeps_anything(node) {
            self.begin_grace(cx, node, AFTER_CRASH, how);
        } else {
            self.peer_gone(cx, node, how);
        }
    }

    /// BYE RESTART: it will be back within `hold`.
    pub(crate) fn peer_restarts(&mut self, cx: &mut Context, node: NodeId, hold: Duration) {
        let possible = self.can_ask_kernel(node) && self.keeps_anything(node) && !cx.lacks(Rule::Grace);
        if !possible {
            return self.peer_gone(cx, node, Gone::Left);
        }
        if let Some(peer) = self.peers.get_mut(node) {
            peer.kernel.doubt(cx.now);
        }
        self.begin_grace(cx, node, hold.min(HOLD_MOST), Gone::Overdue);
    }

    fn begin_grace(&mut self, cx: &mut Context, node: NodeId, hold: Duration, how: Gone) {
        let (now, ifindex) = (cx.now, self.ifindex());
        let Some(peer) = self.peers.get_mut(node) else { return };
        let away = peer.away.get_or_insert(Away::begin(now));
        let by_arp = if how == Gone::Overdue { HOLD_BY_ARP } else { AFTER_CRASH_BY_ARP };
        if how == Gone::Overdue {
            away.most = HOLD_MOST;
        }
        let until = (now + hold).min(away.end());
        let grace = Grace { until, until_by_arp: until.min(now + by_arp), how };
        let hold = grace.end(peer).since(now);
        peer.status = Status::Grace(grace);
        // Claims of its earlier starts stay as long as those of this one.
        peer.reserved_until = None;
        let peer = peer.id();
        cx.counters.graces += 1;
        cx.event(Event::Grace { ifindex, peer, hold });
        self.candidates_stale = true;
        for id in self.vips.ids() {
            if self.vips.get(id).is_some_and(|vip| vip.free_since.is_some()) {
                self.evaluate(cx, id);
            }
        }
        self.peers.look_at(node, now + Duration::from_millis(1));
    }

    /// Asks the kernel, and ends grace when its time is over or the kernel silent. When to look again.
    pub(crate) fn grace_tick(&mut self, cx: &mut Context, node: NodeId, grace: Grace) -> Instant {
        let (now, f) = (cx.now, cx.f());
        let doubt = self.peers.get(node).is_some_and(|peer| peer.kernel.is_in_doubt(now, f * 2));
        if self.peers.get(node).is_some_and(|peer| kernel_is_nearly_silent(cx, peer)) {
            self.proof_needed(cx);
            self.forgive_while_cut_off(cx, node);
        }
        let asking = u32::try_from(self.peers.present().count()).unwrap_or(u32::MAX);
        let share = Duration::from_secs(1) * asking / AT_ONE_PEER;
        self.ask_kernel(cx, node, if doubt { f } else { share.max(f * PACE) });
        let Some(peer) = self.peers.get(node) else { return now + FORGET };
        let silent = !cx.lacks(Rule::KernelProbe) && kernel_is_silent(cx, peer);
        let end = grace.end(peer);
        if now < end && !silent {
            return (now + if doubt { f } else { f * 2 }).min(end);
        }
        let how = match grace.how {
            Gone::Dead { evidence, loss, .. } => {
                Gone::Dead { silence: now.since(peer.last_heard), evidence, loss }
            }
            other => other,
        };
        self.peer_gone(cx, node, how);
        now + FORGET
    }

    /// That nobody answers proves nothing while nobody else does either.
    pub(crate) fn forgive_while_cut_off(&mut self, cx: &Context, node: NodeId) {
        let mute = self.proof_missing_for(cx);
        if mute > cx.f() * 6
            && let Some(peer) = self.peers.get_mut(node)
        {
            peer.kernel.was_cut_off(cx.now);
        }
    }

    /// Somebody's kernel owes so many answers that proof of our own connection will be needed. Under loss one is owed
    /// most of the time, and each round of proof makes three peers say hello to all.
    pub(crate) fn doubts_a_kernel(&self, cx: &Context) -> bool {
        self.peers.iter().any(|peer| peer.is_in_grace() && kernel_is_nearly_silent(cx, peer))
    }

    /// Is there an address to be kept for it, or may there be: what it held was not all told yet?
    fn keeps_anything(&self, node: NodeId) -> bool {
        let Some(peer) = self.peers.get(node) else { return false };
        let claims = |vip: &Vip| vip.claims.iter().any(|claim| claim.node == node);
        !peer.table.is_complete() || self.vips.iter().any(|(_, vip)| claims(vip) || held_unheard(vip, peer))
    }

    /// Until when an address without a claim is kept for those in grace.
    pub(crate) fn grace_until(&self, vip: &Vip) -> Option<Instant> {
        let until = |peer: &Peer| match &peer.status {
            Status::Grace(grace) if held_unheard(vip, peer) => Some(grace.end(peer)),
            _ => None,
        };
        self.candidates.in_grace.iter().filter_map(|node| until(self.peers.get(*node)?)).max()
    }

    /// Whose kernels answer here although their speakers do not, for those who have never heard them (rule A31).
    pub(crate) fn vouches(&self, cx: &mut Context) -> Vec<Vouch> {
        let mut vouches: Vec<Vouch> = self
            .peers
            .iter()
            .filter(|peer| peer.is_in_grace())
            .map(|peer| {
                let age = peer.kernel.age(cx.now).map_or(u128::MAX, |age| age.as_millis());
                let age_ms = u16::try_from(age).unwrap_or(u16::MAX);
                Vouch { node: peer.node, boot: peer.boot, age_ms, kind: VouchKind::Kernel }
            })
            .collect();
        if vouches.len() > VOUCHES {
            let first = cx.random.below(vouches.len());
            vouches.rotate_left(first);
            vouches.truncate(VOUCHES);
        }
        vouches
    }

    /// Somebody vouches for nodes that this one has not heard since its start.
    pub(crate) fn hear_vouches(&mut self, cx: &Context, from: NodeId, vouches: &[Vouch]) {
        if vouches.is_empty() {
            return;
        }
        let interval = self.peers.get(from).map_or(Duration::ZERO, |peer| peer.interval);
        let until = cx.now + WORD_COUNTS.max(interval * 2);
        self.strangers.retain(|_, until| *until > cx.now);
        for vouch in vouches.iter().filter(|vouch| vouch.kind == VouchKind::Kernel) {
            // What the vouched for held last stands in the table of who vouches, were it as young as this node.
            if let Some(peer) = self.peers.get_mut(from).filter(|_| !self.strangers.contains_key(&vouch.node))
            {
                peer.table.doubt(cx.now);
                self.peers.look_at(from, cx.now);
            }
            let room = self.strangers.len() < STRANGERS || self.strangers.contains_key(&vouch.node);
            if self.peers.get(vouch.node).is_none() && vouch.node != cx.config.node && room {
                self.strangers.insert(vouch.node, until);
            }
        }
    }

    /// Until when what this node held last stays its own: others vouch for its kernel, or it has just come back.
    pub(crate) fn vouched_until(&self, cx: &Context, vip: &Vip, node: NodeId) -> Option<Instant> {
        let spec = vip.spec.as_deref();
        let until = match self.peers.get(node) {
            None if node == cx.config.node || none_named_may_hold(spec) => return None,
            Some(peer) if is_excluded(spec, peer.name.as_ref()) => return None,
            // Nobody vouches: as for one that status names.
            None => {
                self.strangers.get(&node).copied().max(self.active_since.map(|since| since + HINT_HOLD))?
            }
            // It is back, and takes again what was its own, whoever has kept it.
            Some(peer) if !peer.is_absent() && peer.may_have_restarted && !cx.lacks(Rule::Reservation) => {
                self.return_until(cx, peer)
            }
            Some(_) => return None,
        };
        (until > cx.now && !cx.lacks(Rule::Vouching)).then_some(until)
    }

    /// Rule A45: in whose name this node answers a client that asks everybody for this address. A deputy carries no
    /// traffic, so it need not be one that may hold the address.
    pub(crate) fn deputy_for(&self, cx: &Context, id: VipId) -> Option<MacAddr> {
        if self.state != Lifecycle::Active || !self.is_able() || cx.lacks(Rule::Deputies) {
            return None;
        }
        let vip = self.vips.get(id).filter(|vip| vip.mine.is_none())?;
        let spec = vip.spec.as_deref()?;
        let mut away: Option<(Standing, &Peer)> = None;
        for claim in &vip.claims {
            let Some(peer) = self.peers.get(claim.node) else { continue };
            if !peer.is_in_grace() && claim.life.0 == peer.boot {
                // A live holder answers for himself.
                return None;
            }
            if is_overruled(Some(spec), peer.name.as_ref(), claim.revision) {
                continue;
            }
            let standing = claim.standing(peer.reach);
            if away.is_none_or(|(best, _)| compare(vip.addr, &standing, &best) == Ordering::Greater) {
                away = Some((standing, peer));
            }
        }
        let (_, holder) = away?;
        let rank = |able: bool, node| (able, rendezvous(vip.addr, node));
        let mine = rank(!self.node_is_excluded(cx), cx.config.node);
        let deputies = self.peers.present().filter(|peer| peer.state == State::Active);
        let before = deputies.filter(|peer| rank(peer.able, peer.node) > mine).count();
        (before < DEPUTIES).then_some(holder.mac)
    }
}

/// Rule A22.
fn kernel_is_silent(cx: &Context, peer: &Peer) -> bool {
    peer.kernel.is_silent(cx.now, cx.f() * 2, cx.f() * HICCUP, peer.loss.estimate())
}

/// Half of the evidence is there: time to find out whether this node is connected itself.
fn kernel_is_nearly_silent(cx: &Context, peer: &Peer) -> bool {
    peer.kernel.is_nearly_silent(cx.now, cx.f() * 2, peer.loss.estimate())
}

/// Of a node that is not known by name, but status names who held this: none of them may hold it any more.
fn none_named_may_hold(spec: Option<&VipSpec>) -> bool {
    let named = spec.map(|spec| spec.holders_hint.as_slice()).unwrap_or_default();
    !named.is_empty() && named.iter().all(|name| is_excluded(spec, Some(name)))
}

/// Its claim was not heard here, but status or others say that it was the last to hold this (rule A31).
fn held_unheard(vip: &Vip, peer: &Peer) -> bool {
    let named = || {
        let hint = vip.spec.as_ref().map(|spec| spec.holders_hint.as_slice()).unwrap_or_default();
        vip.never_held() && peer.name.as_ref().is_some_and(|name| hint.contains(name))
    };
    // The table of one that was never ACTIVE here says nothing of what it held before.
    let untold = !peer.table.is_complete() || peer.active_since.is_none();
    let last = vip.last_holder == Some(peer.node) && untold;
    let excluded = || is_excluded(vip.spec.as_deref(), peer.name.as_ref());
    vip.mine.is_none() && vip.claims.is_empty() && (last || named()) && !excluded()
}
