//! Between the pure decisions of `ownership` and the rest: hears claims and drops, builds views, carries decisions
//! out (rules A30, A31, A34, A37, A38; A24 and A26 as the gate).
//!
//! Must always hold: what this node answers for is exactly what `mine` says; every change of it goes into the table
//! version and out with the next hellos (A14).

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use herald_wire::hello::{Claim, Drop, LastEpoch, State};
use herald_wire::{Epoch, NodeId};

use crate::context::{Context, Rule};
use crate::output::{Cause, Event, Gone, ReleaseReason};
use crate::ownership::{
    Candidate, Candidates, Decision, Eligibility, Gate, Rank, Rival, Standing, View, compare, decide,
    is_excluded, is_overruled, rank,
};
use crate::peers::Peer;
use crate::segment::{LISTEN_EXTRA, Segment};
use crate::snapshot::Lifecycle;
use crate::time::Instant;
use crate::vips::{Mine, PeerClaim, Vip, VipId};

/// A node that `status.holders` names keeps its address for this long after my start (rule A31).
pub(crate) const HINT_HOLD: Duration = Duration::from_secs(1);
/// A returned holder that is ACTIVE has this long to claim again (rule A31).
const RETURN_ACTIVE: Duration = Duration::from_millis(500);
/// And one that listens this long beyond its listen time.
const RETURN_LISTEN: Duration = Duration::from_millis(700);
/// What a peer held on an interface that it no longer speaks from is kept for it for so many h.
const MOVED: u32 = 4;
/// An address that nobody wants is forgotten after this.
const FORGET_VIP: Duration = Duration::from_mins(1);
/// After a death proof is kept fresh until a waiting claim's turn and a little longer, not for ever.
const PROOF_FOR_CLAIMS: Duration = Duration::from_millis(60);
const PROOF_AHEAD: Duration = Duration::from_secs(1);
/// Who held something lately keeps a holder's pace for so long.
const HOLDER_PACE: Duration = Duration::from_secs(2);
/// Repeats of a hello that carry a change, and one more when somebody has to be told that he won (A14, A37).
const REPEATS: u8 = 3;
const REPEATS_YIELD: u8 = 4;

impl Segment {
    /// A peer says what it holds.
    pub(crate) fn hear_claim(&mut self, cx: &mut Context, from: NodeId, claim: &Claim) {
        let Some(life) = self.peers.get(from).map(Peer::life) else { return };
        let Some(id) = self.vips.find_or_insert(claim.vip.ip(), cx.now) else {
            cx.counters.table_full += 1;
            return;
        };
        let reach = self.peers.get(from).map_or(0, |peer| peer.reach);
        let Some(vip) = self.vips.get_mut(id) else { return };
        vip.claims.retain(|known| known.node != from);
        vip.claims.reserve_exact(1);
        vip.claims.push(PeerClaim { node: from, life, epoch: claim.epoch, revision: claim.revision });
        vip.max_revision = vip.max_revision.max(claim.revision);
        if claim.epoch >= vip.max_epoch {
            vip.max_epoch = claim.epoch;
            vip.last_holder = Some(from);
        }
        vip.freed_by = None;
        let theirs = Standing { revision: claim.revision, reach, epoch: claim.epoch, node: from };
        let mine = vip.mine;
        if let Some(mine) = mine
            && self.state != Lifecycle::Leaving
            && compare(vip.addr, &theirs, &standing(cx, &mine)) == Ordering::Less
        {
            self.assert_claim(cx, id, mine, theirs.epoch);
        }
        self.evaluate(cx, id);
    }

    /// Rule A37: I hold and hear a lesser claim.
    fn assert_claim(&mut self, cx: &mut Context, id: VipId, mine: Mine, theirs: Epoch) {
        if theirs > mine.epoch {
            self.vips.set_mine(id, Some(Mine { epoch: Epoch(theirs.0.saturating_add(1)), ..mine }));
            if let Some(vip) = self.vips.get_mut(id) {
                vip.max_epoch = Epoch(theirs.0.saturating_add(1));
                vip.last_holder = Some(cx.config.node);
            }
        }
        self.changed(id, None, REPEATS);
        self.reannounce(cx, id);
    }

    /// A peer says that it holds something no more.
    pub(crate) fn hear_drop(&mut self, cx: &mut Context, from: NodeId, drop: &Drop) {
        let Some(id) = self.vips.find(drop.vip.ip()) else { return };
        let Some(vip) = self.vips.get_mut(id) else { return };
        vip.claims.retain(|known| known.node != from);
        if vip.mine.is_some() && drop.winner == Some(cx.config.node) && !cx.lacks(Rule::Drop) {
            self.reannounce(cx, id);
        }
        self.evaluate(cx, id);
    }

    /// A peer's memory of an address it does not hold.
    pub(crate) fn hear_epoch(&mut self, cx: &mut Context, entry: &LastEpoch) {
        let Some(id) = self.vips.find_or_insert(entry.vip.ip(), cx.now) else {
            cx.counters.table_full += 1;
            return;
        };
        let Some(vip) = self.vips.get_mut(id) else { return };
        if entry.max_epoch > vip.max_epoch {
            vip.max_epoch = entry.max_epoch;
            if vip.mine.is_none() && entry.last_holder.is_some() {
                vip.last_holder = entry.last_holder;
            }
            self.evaluate(cx, id);
        }
    }

    /// A whole table is in: what it does not list, the peer does not hold.
    pub(crate) fn hear_all(&mut self, cx: &mut Context, from: NodeId, listed: &BTreeSet<IpAddr>) {
        let Some(life) = self.peers.get(from).map(Peer::life) else { return };
        for id in self.vips.ids() {
            let Some(vip) = self.vips.get_mut(id) else { continue };
            let before = vip.claims.len();
            let unlisted = !listed.contains(&vip.addr);
            vip.claims.retain(|known| !(known.node == from && known.life == life && unlisted));
            if vip.claims.len() != before {
                self.evaluate(cx, id);
            }
        }
    }

    /// A peer is gone: whatever it held is free (rule A23).
    pub(crate) fn void_claims(&mut self, cx: &mut Context, node: NodeId, how: Gone) {
        for id in self.vips.ids() {
            let Some(vip) = self.vips.get_mut(id) else { continue };
            let before = vip.claims.len();
            vip.claims.retain(|known| known.node != node);
            if vip.claims.len() != before && vip.claims.is_empty() {
                vip.freed_by = Some((node, how));
            }
            // Ranks change for whatever else is free, too.
            if vip.claims.len() != before || vip.free_since.is_some() {
                self.evaluate(cx, id);
            }
        }
    }

    /// A peer is forgotten: so is what it may have left behind.
    pub(crate) fn forget_claims(&mut self, cx: &mut Context, node: NodeId) {
        self.candidates_stale = true;
        for id in self.vips.ids() {
            let Some(vip) = self.vips.get_mut(id) else { continue };
            let before = vip.claims.len();
            vip.claims.retain(|known| known.node != node);
            if vip.claims.len() != before {
                self.evaluate(cx, id);
            }
        }
    }

    /// A peer that lives on appears behind another interface: either its old one is gone, and what it held is nobody's,
    /// or both are on this segment (rule A52), and the old one is heard again within the time that a death takes.
    pub(crate) fn reserve_moved(&mut self, cx: &Context, node: NodeId) {
        let until = cx.now + cx.h() * MOVED;
        if let Some(peer) = self.peers.get_mut(node) {
            peer.reserved_until = Some(until);
            self.peers.look_at(node, until);
        }
    }

    /// How long the claims of a peer's previous boots count (rule A31).
    pub(crate) fn reserve(&mut self, cx: &mut Context, node: NodeId) {
        let Some(peer) = self.peers.get(node) else { return };
        let until = self.return_until(cx, peer).max(cx.now);
        if let Some(peer) = self.peers.get_mut(node) {
            peer.reserved_until = Some(until);
        }
        self.peers.look_at(node, until);
    }

    /// Until when a peer that has returned must have claimed again what was its own (rule A31).
    pub(crate) fn return_until(&self, cx: &Context, peer: &Peer) -> Instant {
        if let Some(since) = peer.active_since {
            return since + RETURN_ACTIVE;
        }
        // Under loss it listens longer (rule A24).
        let listens = self.listen_time(cx) + LISTEN_EXTRA + RETURN_LISTEN;
        let until = peer.known_since + listens;
        peer.away.map_or(until, |away| until.min(away.end() + listens))
    }

    /// The peer is back in the same boot, or the rule does not apply: nothing of before counts.
    pub(crate) fn drop_reservations(&mut self, cx: &mut Context, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(node) {
            peer.reserved_until = Some(cx.now);
            self.end_reservation(cx, node);
        }
    }

    /// Ends reservations whose time is over.
    pub(crate) fn end_reservation(&mut self, cx: &mut Context, node: NodeId) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        if peer.reserved_until.is_none_or(|until| until > cx.now) {
            return;
        }
        peer.reserved_until = None;
        let life = peer.life();
        for id in self.vips.ids() {
            let Some(vip) = self.vips.get_mut(id) else { continue };
            let before = vip.claims.len();
            vip.claims.retain(|known| known.node != node || known.life == life);
            if vip.claims.len() != before {
                self.evaluate(cx, id);
            }
        }
    }

    /// Everything that may be claimed or must be given up, looked at anew.
    pub(crate) fn evaluate_all(&mut self, cx: &mut Context) {
        for id in self.vips.ids() {
            self.evaluate(cx, id);
        }
    }

    /// What waits for the gate, looked at anew when the gate has changed.
    pub(crate) fn evaluate_blocked(&mut self, cx: &mut Context) {
        if !self.vips.any_blocked() {
            return;
        }
        let gate = self.gate(cx);
        if self.last_gate == Some(gate) {
            return;
        }
        self.last_gate = Some(gate);
        for id in self.vips.blocked() {
            self.evaluate(cx, id);
        }
    }

    /// Decides about one address, and does it.
    pub(crate) fn evaluate(&mut self, cx: &mut Context, id: VipId) {
        let Some(view) = self.view(cx, id) else { return };
        let decision = decide(&view);
        let waits_for_gate = decision == Decision::Blocked
            || (matches!(decision, Decision::Wait(_)) && view.gate.not_before.is_some());
        self.vips.set_blocked(id, waits_for_gate);
        if waits_for_gate {
            self.last_gate = Some(view.gate);
        }
        let due = match decision {
            Decision::Wait(at) => Some(at),
            Decision::Blocked => view.gate.not_before.filter(|at| *at > cx.now),
            _ => [self.forget_at(cx, id), self.conflict_due(id)].into_iter().flatten().min(),
        };
        self.vips.set_due(id, due);
        match decision {
            Decision::Blocked | Decision::Wait(_) if view.needs_proof => self.want_proof(cx, due),
            Decision::Rest | Decision::Wait(_) | Decision::Blocked => {}
            Decision::Probe => self.start_probing(cx, id),
            Decision::Claim => self.claim(cx, id, None),
            Decision::Override => self.claim(cx, id, view.live.map(|rival| rival.standing.node)),
            Decision::Yield(to) => {
                cx.counters.yields += 1;
                self.release(cx, id, ReleaseReason::Yielded { to });
            }
            Decision::Release(reason) => self.release(cx, id, reason),
        }
    }

    /// An address without spec, claim or holder is forgotten after a while, by the next look at it.
    fn forget_at(&mut self, cx: &Context, id: VipId) -> Option<Instant> {
        let vip = self.vips.get(id)?;
        let Eligibility::NoSpec(since) = vip.eligibility else { return None };
        let unwanted = vip.spec.is_none() && vip.mine.is_none() && vip.claims.is_empty();
        let at = since.max(vip.free_since.unwrap_or_default()) + FORGET_VIP;
        if unwanted && at <= cx.now {
            self.vips.remove(id);
            return None;
        }
        unwanted.then_some(at)
    }

    fn view(&mut self, cx: &Context, id: VipId) -> Option<View> {
        let gate = self.gate(cx);
        self.refresh_candidates();
        let vip = self.vips.get(id)?;
        let (live, reserved) = self.rivals(vip);
        let last_holder = vip
            .last_holder
            .and_then(|last| self.peers.get(last))
            .filter(|last| !last.is_absent() && !is_excluded(vip.spec.as_deref(), last.name.as_ref()));
        let kept_until = self
            .hint_until(cx, vip)
            .max(last_holder.and_then(|last| last.table.probably_holds_until()))
            .max(vip.last_holder.and_then(|last| self.vouched_until(cx, vip, last)))
            .max(self.grace_until(vip));
        let overruled = live.is_some_and(|live| {
            let name = self.peers.get(live.node).and_then(|peer| peer.name.as_ref());
            is_overruled(vip.spec.as_deref(), name, live.revision)
        });
        let needs_probe = self.probe_for(cx, vip);
        let leaving = self.hands_over();
        let vip = self.vips.get_mut(id)?;
        if live.is_some() || reserved || vip.mine.is_some() {
            vip.free_since = None;
        } else {
            vip.free_since.get_or_insert(cx.now);
        }
        if overruled {
            vip.overruled_since.get_or_insert(cx.now);
        } else {
            vip.overruled_since = None;
        }
        let rank = match &vip.spec {
            Some(spec) if vip.mine.is_none() => {
                let me = Candidate {
                    node: cx.config.node,
                    name: Some(cx.config.name.clone()),
                    listening: false,
                    cordoned: cx.node.cordoned,
                };
                rank(spec, &me, vip.last_holder, vip.never_held(), self.candidates.of(spec))
            }
            _ => 0,
        };
        let free_since =
            vip.free_since.unwrap_or(cx.now).max(vip.spec_since).max(self.active_since.unwrap_or_default());
        Some(View {
            vip: vip.addr,
            now: cx.now,
            eligibility: vip.eligibility,
            revision: vip.spec.as_ref().map(|spec| spec.revision).unwrap_or_default(),
            mine: vip.mine.map(|mine| standing(cx, &mine)),
            live: live.map(|standing| Rival { standing, overruled_since: vip.overruled_since }),
            reserved,
            kept_until,
            newest_revision: vip.max_revision,
            free_since,
            rank: Rank { before: rank, cordoned: cx.node.cordoned },
            leaving,
            gate,
            // While somebody is suspected it may be this node that is cut off, and what was held before is held still.
            needs_proof: matches!(vip.freed_by, Some((_, Gone::Dead { .. } | Gone::Overdue)))
                || (self.candidates.anybody_suspected && !vip.never_held()),
            probe: needs_probe,
        })
    }

    /// Rule A30: the greatest live claim of anybody else, and whether one of a previous life counts.
    pub(crate) fn rivals(&self, vip: &Vip) -> (Option<Standing>, bool) {
        let mut live: Option<Standing> = None;
        let mut reserved = false;
        for claim in &vip.claims {
            let Some(peer) = self.peers.get(claim.node) else { continue };
            if claim.life != peer.life() {
                reserved |= !is_overruled(vip.spec.as_deref(), peer.name.as_ref(), claim.revision);
                continue;
            }
            let standing = claim.standing(peer.reach);
            if live.is_none_or(|best| compare(vip.addr, &standing, &best) == Ordering::Greater) {
                live = Some(standing);
            }
        }
        (live, reserved)
    }

    /// Rule A31: until when an address that nobody was seen to hold is kept for those that `status.holders` names.
    fn hint_until(&self, cx: &Context, vip: &Vip) -> Option<Instant> {
        let spec = vip.spec.as_ref()?;
        if !vip.never_held() || spec.holders_hint.contains(&cx.config.name) || cx.lacks(Rule::Hints) {
            return None;
        }
        let unheard_until = vip.spec_since.max(self.active_since.unwrap_or(cx.now)) + HINT_HOLD;
        spec.holders_hint
            .iter()
            .filter(|name| !is_excluded(Some(spec), Some(name)))
            .filter_map(|name| match self.peers.iter().find(|peer| peer.name.as_ref() == Some(name)) {
                None => Some(unheard_until),
                Some(peer) if peer.is_absent() => None,
                Some(peer) => Some(self.return_until(cx, peer)),
            })
            .max()
    }

    /// The conditions that are the same for every address here.
    pub(crate) fn gate(&self, cx: &Context) -> Gate {
        // A suspected peer's, too: frames that are lost hide what it took just now, and make it suspected.
        let tables = self
            .peers
            .present()
            .filter(|peer| peer.state == State::Active)
            .filter_map(|peer| peer.table.holds_up_until(cx.now))
            .max();
        Gate {
            open: self.state == Lifecycle::Active
                && self.is_able()
                && self.idle_since.is_none()
                && !cx.node.out_of_service,
            not_before: tables.max(self.proof.barred_until.filter(|until| *until > cx.now)),
            proof: self.proof_is_fresh(cx),
        }
    }

    /// Claims are coming up that want fresh proof (rule A33).
    fn want_proof(&mut self, cx: &Context, turn: Option<Instant>) {
        let until = turn.unwrap_or(cx.now).max(cx.now) + PROOF_FOR_CLAIMS;
        self.proof_wanted_until = self.proof_wanted_until.max(until.min(cx.now + PROOF_AHEAD));
        self.proof_needed(cx);
    }

    /// Everything that live peers hold is known here.
    fn tables_are_known(&self) -> bool {
        self.peers.present().all(|peer| peer.table.is_complete())
    }

    /// Claims made while nobody could be asked get an epoch of their own once all have been heard.
    pub(crate) fn confirm_tentative(&mut self, cx: &Context) {
        if !self.tentative || !self.peers.any_present() || !self.tables_are_known() {
            return;
        }
        self.tentative = false;
        for id in self.vips.ids() {
            let Some(vip) = self.vips.get_mut(id) else { continue };
            let Some(mine) = vip.mine.filter(|mine| mine.tentative) else { continue };
            vip.max_epoch = Epoch(vip.max_epoch.0.saturating_add(1));
            let epoch = vip.max_epoch;
            vip.last_holder = Some(cx.config.node);
            self.vips.set_mine(id, Some(Mine { epoch, tentative: false, ..mine }));
            self.changed(id, None, REPEATS);
        }
    }

    /// Does a claim wait for fresh proof?
    pub(crate) fn claims_want_proof(&self) -> bool {
        self.last_turn < self.proof_wanted_until
    }

    /// Who else might take a free address (rule A32).
    pub(crate) fn refresh_candidates(&mut self) {
        if !self.candidates_stale {
            return;
        }
        self.candidates_stale = false;
        let all = self
            .peers
            .present()
            .filter(|peer| peer.able && peer.state != State::Leaving)
            .map(|peer| Candidate {
                node: peer.node,
                name: peer.name.clone(),
                // A state of a later version: nothing to count on.
                listening: peer.state != State::Active,
                cordoned: peer.cordoned,
            })
            .collect();
        self.candidates = Candidates::new(all);
        self.candidates.anybody_suspected = self.peers.iter().any(Peer::is_suspected);
        self.candidates.in_grace =
            self.peers.iter().filter(|peer| peer.is_in_grace()).map(|peer| peer.node).collect();
    }

    /// Rule A34.
    fn claim(&mut self, cx: &mut Context, id: VipId, from: Option<NodeId>) {
        let Some(vip) = self.vips.get_mut(id) else { return };
        let Some(revision) = vip.spec.as_ref().map(|spec| spec.revision) else { return };
        let never_held = vip.never_held();
        let freed_by = vip.freed_by.take();
        // A claim made in ignorance of others must not beat theirs, not even by hash: it is raised when they have
        // been asked.
        let sure = self.peers.met_anybody() && self.tables_are_known();
        let Some(vip) = self.vips.get_mut(id) else { return };
        let known = vip.max_epoch.0;
        let epoch = Epoch(if sure { known.saturating_add(1) } else { known.saturating_sub(1) });
        self.tentative |= !sure;
        vip.max_epoch = vip.max_epoch.max(epoch);
        vip.max_revision = vip.max_revision.max(revision);
        vip.last_holder = Some(cx.config.node);
        let waited = vip.free_since.take().map_or(Duration::ZERO, |since| cx.now.since(since));
        let addr = vip.addr;
        self.vips.set_mine(id, Some(Mine { epoch, revision, since: cx.now, tentative: !sure }));
        let peer = |node| self.peers.get(node).map(Peer::id);
        let cause = match (from.and_then(peer), freed_by.and_then(|(node, how)| Some((peer(node)?, how)))) {
            (Some(from), _) => Cause::Override { from },
            (None, Some((from, how))) => {
                cx.counters.takeovers += 1;
                Cause::Takeover { from, how, waited }
            }
            (None, None) if self.peers_unheard() => Cause::Alone,
            (None, None) if never_held => Cause::NeverHeld,
            (None, None) => Cause::Freed,
        };
        cx.counters.claims += 1;
        let (ifindex, mac) = (self.ifindex(), self.iface.mac);
        cx.event(Event::Claimed { vip: addr, ifindex, mac, epoch, revision, cause });
        self.changed(id, None, REPEATS);
        self.announce_claim(cx, id);
    }

    /// Stops answering at once, and says so.
    pub(crate) fn release(&mut self, cx: &mut Context, id: VipId, reason: ReleaseReason) {
        let Some(vip) = self.vips.get_mut(id) else { return };
        vip.announce_generation = vip.announce_generation.wrapping_add(1);
        vip.unanswered.clear();
        let addr = vip.addr;
        self.vips.set_mine(id, None);
        let ifindex = self.ifindex();
        cx.event(Event::Released { vip: addr, ifindex, reason });
        match reason {
            ReleaseReason::Yielded { .. } if cx.lacks(Rule::Drop) => self.changed(id, None, REPEATS),
            ReleaseReason::Yielded { to } => self.changed(id, Some(to), REPEATS_YIELD),
            _ => self.changed(id, None, REPEATS),
        }
        self.hold_rate_until = cx.now + HOLDER_PACE;
        self.interest_changed();
        self.join_or_leave(cx, id);
        self.evaluate(cx, id);
    }
}

fn standing(cx: &Context, mine: &Mine) -> Standing {
    // Reach comes with the failover work (rule A27); zero does not count.
    Standing { revision: mine.revision, reach: 0, epoch: mine.epoch, node: cx.config.node }
}
