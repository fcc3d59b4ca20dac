//! Grace: a speaker is gone, its machine is not (rules A23, A45, and A31 where others know more than this node).
//!
//! A Service's traffic is served by the node's kernel, not by its speaker: while the kernel answers, what the peer
//! claimed stays where it is, and so do the connections through it. Deputies tell clients that ask meanwhile. Must
//! always hold: grace ends with its time, with a silent kernel, or with the speaker's return; a node that is dead to
//! its kernel is gone as quickly as if there were no grace; a deputy never announces, and never answers with its own
//! Ethernet address.

use std::collections::BTreeMap;
use std::time::Duration;

use herald_wire::hello::{Vouch, VouchKind};
use herald_wire::{MacAddr, NodeId};

use crate::context::{Context, Rule};
use crate::holdings::HINT_HOLD;
use crate::output::{Event, Gone};
use crate::ownership::{Candidate, Eligibility, rank};
use crate::peers::{FORGET, Peer, Status};
use crate::segment::Segment;
use crate::snapshot::Lifecycle;
use crate::time::Instant;
use crate::vips::{Vip, VipId};

/// For a speaker that fell silent without a word (rule A23).
const AFTER_CRASH: Duration = Duration::from_secs(5);
/// For one that said how long it needs, at most.
const HOLD_MOST: Duration = Duration::from_mins(2);
/// A kernel that is silent for less is not silent, in f: three intervals of a holder, as for a speaker (rule A21).
const HICCUP: u32 = 24;
/// Between two probes in grace, in f; and at one peer, per second, from all nodes together.
const PACE: u32 = 4;
const AT_ONE_PEER: u32 = 2_500;
/// Nodes that answer as deputies: ranks 0 and 1 (rule A45).
const DEPUTIES: u32 = 2;
/// Peers in grace that one hello vouches for, and vouched-for strangers remembered.
const VOUCHES: usize = 4;
const STRANGERS: usize = 64;
/// Another's word counts for so long at least: he may end himself, and nobody else know.
const WORD_COUNTS: Duration = AFTER_CRASH;

/// Why and for how long what a peer claimed stays its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grace {
    pub(crate) until: Instant,
    how: Gone,
}

impl Grace {
    /// It said that it would be back: whatever else comes of the same start is late.
    pub(crate) fn was_announced(&self) -> bool {
        self.how == Gone::Overdue
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
        peer.status = Status::Grace(Grace { until: now + hold, how });
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
        if doubt {
            self.proof_needed(cx);
            self.forgive_while_cut_off(cx, node);
        }
        let asking = u32::try_from(self.peers.present().count()).unwrap_or(u32::MAX);
        let share = Duration::from_secs(1) * asking / AT_ONE_PEER;
        self.ask_kernel(cx, node, if doubt { f } else { share.max(f * PACE) });
        let Some(peer) = self.peers.get(node) else { return now + FORGET };
        let silent = !cx.lacks(Rule::KernelProbe) && kernel_is_silent(cx, peer);
        if now < grace.until && !silent {
            return (now + if doubt { f } else { f * 2 }).min(grace.until);
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

    /// Somebody's kernel is asked and owes an answer: proof of our own connection is needed.
    pub(crate) fn doubts_a_kernel(&self, cx: &Context) -> bool {
        let patience = cx.f() * 2;
        self.peers.iter().any(|peer| peer.is_in_grace() && peer.kernel.is_in_doubt(cx.now, patience))
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
            Status::Grace(grace) if held_unheard(vip, peer) => Some(grace.until),
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
            if self.peers.get(vouch.node).is_none()
                && vouch.node != cx.config.node
                && self.strangers.len() < STRANGERS
            {
                self.strangers.insert(vouch.node, until);
            }
        }
    }

    /// Until when what this node held last stays its own: others vouch for its kernel, or it has just come back.
    pub(crate) fn vouched_until(&self, cx: &Context, node: NodeId) -> Option<Instant> {
        let until = match self.peers.get(node) {
            // Nobody vouches: as for one that status names.
            None if node == cx.config.node => return None,
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

    /// Rule A45: in whose name this node answers a client that asks everybody for this address.
    pub(crate) fn deputy_for(&mut self, cx: &Context, id: VipId) -> Option<MacAddr> {
        if self.state != Lifecycle::Active || !self.is_able() || cx.lacks(Rule::Deputies) {
            return None;
        }
        let vip = self.vips.get(id)?;
        if vip.mine.is_some() || vip.eligibility != Eligibility::Eligible {
            return None;
        }
        let mut away: Option<&Peer> = None;
        for claim in &vip.claims {
            let Some(peer) = self.peers.get(claim.node) else { continue };
            if !peer.is_in_grace() && claim.life.0 == peer.boot {
                // A live holder answers for himself.
                return None;
            }
            away = Some(peer);
        }
        let mac = away?.mac;
        self.refresh_candidates();
        let vip = self.vips.get(id)?;
        let spec = vip.spec.as_ref()?;
        let me = Candidate {
            node: cx.config.node,
            name: Some(cx.config.name.clone()),
            listening: false,
            cordoned: cx.node.cordoned,
        };
        let rank = rank(spec, &me, vip.last_holder, false, self.candidates.of(spec));
        (rank < DEPUTIES).then_some(mac)
    }
}

/// Rule A22.
fn kernel_is_silent(cx: &Context, peer: &Peer) -> bool {
    peer.kernel.is_silent(cx.now, cx.f() * 2, cx.f() * HICCUP, peer.loss.estimate())
}

/// Its claim was not heard here, but status or others say that it was the last to hold this (rule A31).
fn held_unheard(vip: &Vip, peer: &Peer) -> bool {
    let named = || {
        let hint = vip.spec.as_ref().map(|spec| spec.holders_hint.as_slice()).unwrap_or_default();
        vip.never_held() && peer.name.as_ref().is_some_and(|name| hint.contains(name))
    };
    let last = vip.last_holder == Some(peer.node) && !peer.table.is_complete();
    vip.mine.is_none() && vip.claims.is_empty() && (last || named())
}
