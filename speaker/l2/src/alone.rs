//! Nobody else is heard, though others should be there: hellos filtered while ARP passes (rules A35, A48, A49).
//!
//! Must always hold: as long as peers are heard, nothing here does anything.

use std::cmp::Ordering;
use std::time::Duration;

use herald_wire::MacAddr;

use crate::config::NodeName;
use crate::conflict::Probing;
use crate::context::Context;
use crate::input::{Nodes, VipSpec};
use crate::output::{Event, ReleaseReason};
use crate::segment::Segment;
use crate::time::Instant;
use crate::vips::VipId;

/// None heard for this long (rule A48).
const UNHEARD_AFTER: Duration = Duration::from_secs(3);
/// Before probes, so that two nodes in the same position do not probe in step.
const SPREAD: Duration = Duration::from_secs(1);
const REPROBE_MIN: Duration = Duration::from_secs(2);
const REPROBE_MAX: Duration = Duration::from_secs(4);
/// A holder of longer standing keeps its address (rule A49).
const LONG: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(crate) struct Alone {
    /// Addresses whose spec names other nodes.
    naming_others: usize,
    /// A peer was present last, or this node became ACTIVE.
    company_last: Instant,
    unheard: bool,
    /// Anybody at all has been heard on this segment (rule A35).
    anybody: bool,
}

impl Segment {
    /// Others are named, and none is heard (rule A48).
    pub(crate) fn peers_unheard(&self) -> bool {
        self.alone.unheard
    }

    /// Any frame of anybody: the first one proves that the segment is not dead (rule A35).
    pub(crate) fn somebody_is_there(&mut self, cx: &Context) {
        if !self.alone.anybody {
            self.alone.anybody = true;
            self.reannounce_all(cx);
        }
    }

    /// A spec has come, changed or gone.
    pub(crate) fn count_named(&mut self, me: &NodeName, before: Option<&VipSpec>, after: Option<&VipSpec>) {
        let names = |spec: Option<&VipSpec>| usize::from(spec.is_some_and(|spec| names_others(spec, me)));
        self.alone.naming_others = self.alone.naming_others + names(after) - names(before);
    }

    /// Finds out whether anybody is heard.
    pub(crate) fn alone_tick(&mut self, cx: &mut Context) {
        if self.active_since.is_none() || self.has_company() {
            self.alone.company_last = cx.now;
        }
        let unheard = self.alone.naming_others > 0 && cx.now.since(self.alone.company_last) >= UNHEARD_AFTER;
        if unheard != self.alone.unheard {
            self.alone.unheard = unheard;
            let ifindex = self.ifindex();
            cx.event(Event::PeersUnheard { ifindex, unheard });
            if unheard {
                // Another may have claimed the same before either knew that there are others (rule A49).
                self.reannounce_all(cx);
            }
            self.evaluate_all(cx);
        }
    }

    /// Somebody is heard, or will be again (rule A23).
    fn has_company(&self) -> bool {
        self.peers.iter().any(|peer| !peer.is_gone())
    }

    pub(crate) fn alone_next(&self) -> Option<Instant> {
        let waiting = self.alone.naming_others > 0 && !self.alone.unheard && self.active_since.is_some();
        (waiting && !self.has_company()).then(|| self.alone.company_last + UNHEARD_AFTER)
    }

    /// How long probes for this address are put off.
    pub(crate) fn probe_delay(&self, cx: &mut Context, id: VipId) -> Duration {
        let answered = self
            .vips
            .get(id)
            .and_then(|vip| vip.watch.as_deref())
            .is_some_and(|watch| matches!(watch.probing, Probing::Answered { .. }));
        if self.peers_unheard() && !answered {
            cx.random.between(Duration::from_micros(1), SPREAD)
        } else {
            Duration::ZERO
        }
    }

    /// Between rounds of probes for an address that somebody unheard holds.
    pub(crate) fn reprobe_pause(cx: &mut Context) -> Duration {
        cx.random.between(REPROBE_MIN, REPROBE_MAX)
    }

    /// Rule A49: another machine announces what I hold, and we don't hear each other's hellos.
    ///
    /// Somebody else, whichever, has done so since `rival_since`.
    pub(crate) fn gives_way(
        &mut self,
        cx: &mut Context,
        id: VipId,
        mac: MacAddr,
        rival_since: Instant,
    ) -> bool {
        let Some(mine) = self.vips.get(id).and_then(|vip| vip.mine) else { return false };
        let lower = self.iface.mac.octets().cmp(&mac.octets()) == Ordering::Less;
        let older = cx.now.since(mine.since) > LONG && cx.now.since(rival_since) <= LONG;
        if lower || older {
            return false;
        }
        if let Some(watch) = self.watch(id) {
            watch.quiet_rounds = 3;
        }
        self.probe_answered(cx, id, true);
        self.release(cx, id, ReleaseReason::Conflict);
        true
    }
}

/// Does a spec name nodes other than this one?
fn names_others(spec: &VipSpec, me: &NodeName) -> bool {
    let listed = match &spec.nodes {
        Nodes::All => false,
        Nodes::Listed(names) => names.iter().any(|name| name != me),
    };
    listed
        || spec.holders_hint.iter().any(|name| name != me)
        || spec.preferred.iter().any(|(name, _)| name != me)
}
