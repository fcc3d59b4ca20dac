//! The node as a whole: interfaces, specs and time, and which segment an input concerns (rules A1, A24's stall,
//! A42's lists).
//!
//! Must always hold: each address with a spec is on exactly one segment, that of `placement`, or on none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::context::Context;
use crate::input::{Input, Interface, NodeState, VipSpec};
use crate::leave::Parting;
use crate::output::{Event, Holding, Output, Turn};
use crate::placement::{is_likely, place};
use crate::segment::Segment;
use crate::snapshot::{Counters, Snapshot};
use crate::time::Instant;

/// A turn that starts later than this many h after the core was last called: the process was stopped, for as long as
/// others need to declare it dead (rule A24).
const STALL: u32 = 3;
/// And a turn that takes this many times as long itself was not work, it was stopped too.
const STALLED_TURN: u32 = 4;
/// A list that lost more than half is believed when it still says so after this (rule A42).
const CONFIRM_AFTER: Duration = Duration::from_secs(10);
/// Room for outputs that is kept between two calls.
const OUTPUTS_KEPT: usize = 256;
/// Smaller lists than this may lose everything without ceremony.
const SMALL_LIST: usize = 2;

/// The protocol core of one node. See the crate's documentation for how to drive it.
#[derive(Debug)]
pub struct Core {
    cx: Context,
    interfaces: Vec<Interface>,
    specs: BTreeMap<IpAddr, Placed>,
    segments: BTreeMap<u32, Segment>,
    /// Interfaces that are on one segment with a lower one: they carry nothing (rule A52).
    idle: Vec<u32>,
    /// A list that lost more than half came then.
    shrank: Option<Instant>,
    /// When the last turn began, and when the core was last called.
    turned: Option<Instant>,
    called: Instant,
    leaving: Option<Parting>,
    left: bool,
}

/// A spec and the interface it is on.
#[derive(Debug)]
struct Placed {
    spec: Arc<VipSpec>,
    on: Option<u32>,
    /// The last list lacks it and is not believed yet (rule A42).
    doubted: bool,
}

impl Core {
    /// A node that has just started: it knows no interface and no address yet.
    pub fn new(config: Config, now: Instant) -> Self {
        Self {
            cx: Context::new(config, now),
            interfaces: Vec::new(),
            specs: BTreeMap::new(),
            segments: BTreeMap::new(),
            idle: Vec::new(),
            shrank: None,
            turned: None,
            called: now,
            leaving: None,
            left: false,
        }
    }

    /// Takes rules out, for a simulation that wants to see what they are good for. Right after [`Self::new`].
    #[cfg(feature = "ablation")]
    pub fn ablate(&mut self, rules: crate::config::Ablation) {
        self.cx.ablation = rules;
    }

    /// Call first in each turn of the loop, before frames that may have queued up are read.
    pub fn begin_turn(&mut self, now: Instant) -> Turn {
        let called = self.called;
        self.advance(now);
        let turned = self.turned.replace(self.cx.now).unwrap_or(self.cx.now);
        let stall = self.cx.h() * STALL;
        // What the core itself was busy with is no stop: peers judge that by its silence.
        let pause = self.cx.now.since(called);
        let stopped = pause > stall || self.cx.now.since(turned) > stall * STALLED_TURN;
        if !stopped || self.segments.is_empty() || self.leaving.is_some() {
            return Turn::Continue;
        }
        self.cx.counters.stalls += 1;
        self.cx.event(Event::Stalled { pause });
        self.cx.new_boot();
        for segment in self.segments.values_mut() {
            segment.become_newcomer(&mut self.cx);
        }
        Turn::Stalled
    }

    /// Takes one input. Afterwards drain [`Self::poll_output`] and ask [`Self::poll_timeout`] again.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        self.advance(now);
        match input {
            Input::Frame { ifindex, bytes } => {
                self.cx.counters.frames += 1;
                match self.segments.get_mut(&ifindex) {
                    Some(segment) => segment.handle_frame(&mut self.cx, bytes),
                    None => self.cx.counters.ignored += 1,
                }
                return;
            }
            Input::Interfaces(interfaces) => self.set_interfaces(interfaces),
            Input::SpecsReplaced(specs) => self.replace_specs(specs),
            Input::SpecApplied(spec) => self.apply_spec(spec),
            Input::SpecDeleted(vip) => self.delete_spec(vip),
            Input::Node(node) => self.set_node(node),
            Input::Shutdown => self.part(self.parting()),
            Input::Leave => self.part(Parting::Leave),
        }
        self.handle_timeout(now);
    }

    /// Does what is due at `now`. Afterwards drain [`Self::poll_output`] and ask [`Self::poll_timeout`] again.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        for segment in self.segments.values_mut() {
            segment.handle_timeout(&mut self.cx);
        }
        self.heed_idle();
        if self.leaving.is_some() && !self.left && self.segments.values().all(Segment::has_left) {
            self.left = true;
            self.cx.event(Event::ShutdownComplete);
        }
    }

    /// When [`Self::handle_timeout`] must be called next; `None`: only after the next input.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.left {
            return None;
        }
        let due = self.segments.values().filter_map(|segment| segment.next_timeout(&self.cx)).min();
        // The loop turns every h, so that a stop shows.
        let heartbeat = (!self.segments.is_empty()).then(|| self.called + self.cx.h());
        [due, heartbeat].into_iter().flatten().min()
    }

    /// The next thing to do, in order. `None`: nothing until the next input or timeout.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.cx.outputs.pop_front();
        // A list of ten thousand addresses leads to as many outputs, once.
        if output.is_none() && self.cx.outputs.capacity() > OUTPUTS_KEPT {
            self.cx.outputs.shrink_to(OUTPUTS_KEPT);
        }
        output
    }

    /// The addresses whose ARP and neighbour-discovery frames must reach the core on this interface, in order.
    /// Empty for an interface that isn't used. A socket filter must let pass:
    ///
    /// - hello frames (EtherType 0x88B5), to the group and to this host;
    /// - ARP of either operation whose target or sender protocol address is one of these;
    /// - any ARP reply to this host's MAC address (two-way proof: answers of the gateway and of clients);
    /// - neighbour solicitations and advertisements whose target is one of these, and solicitations from one of these;
    /// - any neighbour advertisement to this host's MAC address (the same proof);
    /// - ICMP and ICMPv6 echo replies to this host's MAC address (kernel probes).
    pub fn interest(&self, ifindex: u32) -> Vec<IpAddr> {
        self.segments.get(&ifindex).map(Segment::interest).unwrap_or_default()
    }

    /// The interfaces in use, in order of ifindex: those that need a socket.
    pub fn interfaces(&self) -> Vec<u32> {
        self.segments.keys().copied().collect()
    }

    /// What this node holds now, in order of address. For `LoadBalancerIP.status.holders`.
    pub fn holdings(&self) -> Vec<Holding> {
        let mut holdings: Vec<Holding> = self.segments.values().flat_map(Segment::holdings).collect();
        holdings.sort_by_key(|holding| holding.vip);
        holdings
    }

    /// Everything else that /debug and /metrics show.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            segments: self.segments.values().map(|segment| segment.snapshot(&self.cx)).collect(),
            specs: self.specs.len(),
            without_interface: self
                .specs
                .iter()
                .filter(|(_, placed)| placed.on.is_none())
                .map(|(vip, _)| *vip)
                .collect(),
        }
    }

    /// What has been counted since the start.
    pub fn counters(&self) -> &Counters {
        &self.cx.counters
    }

    /// This node's configuration.
    pub fn config(&self) -> &Config {
        &self.cx.config
    }

    fn advance(&mut self, now: Instant) {
        self.cx.now = self.cx.now.max(now);
        self.called = self.cx.now;
    }

    /// Rule A44: whoever may hold nothing, or is about to be empty, hands over; anybody else is back in a moment.
    fn parting(&self) -> Parting {
        let excluded = self.segments.values().any(|segment| segment.node_is_excluded(&self.cx));
        if self.cx.node.cordoned || self.cx.node.out_of_service || excluded {
            Parting::Leave
        } else {
            Parting::Restart
        }
    }

    fn part(&mut self, parting: Parting) {
        self.leaving.get_or_insert(parting);
        for segment in self.segments.values_mut() {
            segment.leave(&self.cx, parting);
        }
    }

    fn set_interfaces(&mut self, interfaces: Vec<Interface>) {
        if interfaces == self.interfaces {
            return;
        }
        self.interfaces = interfaces;
        let gone: Vec<u32> = self
            .segments
            .keys()
            .copied()
            .filter(|ifindex| !self.interfaces.iter().any(|iface| iface.ifindex == *ifindex))
            .collect();
        for ifindex in gone {
            self.end_segment(ifindex);
        }
        for iface in &self.interfaces {
            if let Some(segment) = self.segments.get_mut(&iface.ifindex)
                && segment.iface != *iface
            {
                segment.interface_changed(&mut self.cx, iface.clone());
            }
        }
        let routed =
            self.interfaces.iter().any(|iface| iface.gateway_v4.is_some() || iface.gateway_v6.is_some());
        for iface in &self.interfaces {
            if is_likely(iface, routed) {
                begin_segment(&mut self.segments, &self.cx, iface, self.leaving);
            }
        }
        self.place_all();
    }

    /// The interface is gone, and all that was held on it.
    fn end_segment(&mut self, ifindex: u32) {
        let Some(mut segment) = self.segments.remove(&ifindex) else { return };
        for placed in self.specs.values_mut().filter(|placed| placed.on == Some(ifindex)) {
            segment.remove_spec(&mut self.cx, placed.spec.vip, true);
            placed.on = None;
        }
        // Nobody was told: should it come back under its index, a gap in the versions makes peers ask (rule A14).
        self.cx.versions.insert(ifindex, segment.next_version());
    }

    fn set_node(&mut self, node: NodeState) {
        if self.cx.node != node {
            self.cx.node = node;
            self.place_all();
        }
    }

    fn place_all(&mut self) {
        let vips: Vec<IpAddr> = self.specs.keys().copied().collect();
        for vip in vips {
            self.place_one(vip);
        }
    }

    /// What an idle interface carried goes to the one that speaks, and back when that is gone (rule A52).
    fn heed_idle(&mut self) {
        let idle = |(ifindex, segment): (&u32, &Segment)| segment.idle_since.is_some().then_some(*ifindex);
        if self.segments.iter().filter_map(idle).eq(self.idle.iter().copied()) {
            return;
        }
        self.idle = self.segments.iter().filter_map(idle).collect();
        self.place_all();
    }

    /// Puts an address on its segment, or tells that segment what has changed.
    fn place_one(&mut self, vip: IpAddr) {
        let Some(placed) = self.specs.get_mut(&vip) else { return };
        let on = place(&placed.spec, usable(&self.interfaces, &self.idle));
        let before = std::mem::replace(&mut placed.on, on);
        let (spec, doubted) = (Arc::clone(&placed.spec), placed.doubted);
        if before != on
            && let Some(segment) = before.and_then(|before| self.segments.get_mut(&before))
        {
            segment.remove_spec(&mut self.cx, vip, true);
        }
        let Some(iface) = on.and_then(|on| self.interfaces.iter().find(|iface| iface.ifindex == on)) else {
            if before.is_some() {
                self.cx.event(Event::NoInterface { vip });
            }
            return;
        };
        let node = self.cx.node;
        let eligible = spec.nodes.contains(&self.cx.config.name)
            && !node.out_of_service
            && (!node.excluded || spec.ignore_exclusion);
        let segment = begin_segment(&mut self.segments, &self.cx, iface, self.leaving);
        segment.set_spec(&mut self.cx, &spec, eligible, doubted);
    }

    fn apply_spec(&mut self, spec: Arc<VipSpec>) {
        let vip = spec.vip;
        match self.specs.get_mut(&vip) {
            // Rule B18: revisions only grow; an older one is a stale watch.
            Some(placed) if placed.spec.revision > spec.revision => return,
            Some(placed) => {
                placed.spec = spec;
                placed.doubted = false;
            }
            None => {
                let placeless = place(&spec, usable(&self.interfaces, &self.idle)).is_none();
                if placeless && !self.interfaces.is_empty() {
                    self.cx.event(Event::NoInterface { vip });
                }
                self.specs.insert(vip, Placed { spec, on: None, doubted: false });
            }
        }
        self.place_one(vip);
    }

    fn delete_spec(&mut self, vip: IpAddr) {
        let Some(placed) = self.specs.remove(&vip) else { return };
        if let Some(segment) = placed.on.and_then(|on| self.segments.get_mut(&on)) {
            segment.remove_spec(&mut self.cx, vip, false);
        }
    }

    /// What is held by this spec is kept, and nothing is taken by it.
    fn doubt_spec(&mut self, vip: IpAddr) {
        if let Some(placed) = self.specs.get_mut(&vip) {
            placed.doubted = true;
        }
        self.place_one(vip);
    }

    /// Rule A42: what a consistent list lacks was deleted, unless it lacks suspiciously much.
    fn replace_specs(&mut self, specs: Vec<Arc<VipSpec>>) {
        let listed: BTreeSet<IpAddr> = specs.iter().map(|spec| spec.vip).collect();
        let known = self.specs.len();
        let missing: Vec<IpAddr> = self.specs.keys().copied().filter(|vip| !listed.contains(vip)).collect();
        for spec in specs {
            self.apply_spec(spec);
        }
        let shrank = known >= SMALL_LIST && missing.len() * 2 > known;
        if !shrank {
            self.shrank = None;
        } else if self.shrank.is_none_or(|since| self.cx.now.since(since) < CONFIRM_AFTER) {
            if self.shrank.is_none() {
                self.shrank = Some(self.cx.now);
                self.cx.event(Event::ListShrank { known, listed: listed.len() });
            }
            for vip in missing {
                self.doubt_spec(vip);
            }
            return;
        }
        self.shrank = None;
        for vip in missing {
            self.delete_spec(vip);
        }
    }
}

fn usable<'a>(interfaces: &'a [Interface], idle: &'a [u32]) -> impl Iterator<Item = &'a Interface> + Clone {
    interfaces.iter().filter(|iface| !idle.contains(&iface.ifindex))
}

fn begin_segment<'a>(
    segments: &'a mut BTreeMap<u32, Segment>,
    cx: &Context,
    iface: &Interface,
    leaving: Option<Parting>,
) -> &'a mut Segment {
    segments.entry(iface.ifindex).or_insert_with(|| {
        let mut segment = Segment::new(cx, iface.clone());
        if let Some(parting) = leaving {
            segment.leave(cx, parting);
        }
        segment
    })
}
