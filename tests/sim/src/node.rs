//! A node: its kernel, the speaker's socket with its filter, the loop around a real [`Core`], and the ways it can be
//! stopped.
//!
//! Must always hold: the loop does what `herald_l2`'s documentation says, in that order, and nothing else; what the
//! filter would not let pass does not reach the core. Faults are decided elsewhere (`faults`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use herald_l2::{
    Ablation, ClusterId, Config, Core, Input, Instant, Interface, Keyring, NodeId, NodeName, NodeState,
    Output, Profile, Turn, VipSpec,
};
use herald_wire::hello::{GROUP, KeyId, Secret};
use herald_wire::{Frame, MacAddr, Payload, arp, echo, ndp};
use ipnet::IpNet;

use crate::Moment;
use crate::api::Told;
use crate::kernel::Kernel;

/// The cluster that all nodes belong to.
pub(crate) const CLUSTER: ClusterId = ClusterId(0x6865_7261_6c64);
/// Of `eth0`, at first.
const IFINDEX: u32 = 2;
/// Frames a socket holds before the kernel drops what comes: 208 KiB at about 800 octets of memory per small frame.
const SOCKET_FRAMES: usize = 256;
/// Frames a stopped machine's network card holds.
const RING_FRAMES: usize = 256;

/// The key of every node.
pub(crate) fn keys() -> Keyring {
    Keyring::new().with(KeyId::default(), &Secret::new([7; 32]))
}

/// `n1` for node 0.
pub(crate) fn node_name(node: usize) -> NodeName {
    NodeName::from(format!("n{}", node + 1))
}

/// How a node is stopped without being ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frozen {
    /// SIGSTOP: the speaker does not run, the kernel does, the clock does.
    Speaker,
    /// The virtual machine is paused: nothing runs, and its clock stands still.
    Machine {
        /// Since when.
        since: Moment,
    },
}

/// How far a speaker is with ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Nobody asked it to.
    No,
    /// SIGTERM is waiting for it.
    Asked,
    /// Its peers may know.
    Begun,
}

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    /// `n1`
    pub name: NodeName,
    /// Its addresses.
    pub kernel: Kernel,
    /// Power is on.
    pub alive: bool,
    /// The speaker, while it runs.
    pub core: Option<Core>,
    /// Stopped?
    pub frozen: Option<Frozen>,
    /// When the loop turns next, if nothing happens before.
    pub turn_due: Option<Moment>,
    /// What waits for the loop besides frames.
    pub inputs: VecDeque<Told>,
    /// The link changed since the core was told.
    pub link_news: bool,
    /// Index of its interface while it has one.
    ifindex: Option<u32>,
    /// The Ethernet address that it had before: the speaker is told of another a moment later.
    pub former_mac: Option<MacAddr>,
    /// The index that it had last.
    last_ifindex: u32,
    /// Asked to end (SIGTERM).
    pub ending: Ending,
    /// Since when the speaker claims and answers.
    pub active_since: Option<Moment>,
    /// Since when the machine has no power.
    pub died_at: Option<Moment>,
    socket: VecDeque<Rc<[u8]>>,
    ring: VecDeque<Rc<[u8]>>,
    interest: BTreeSet<IpAddr>,
    groups: BTreeSet<Ipv6Addr>,
    /// Its clock at the world's zero: machines were not started together.
    clock_base: Duration,
    /// Time its clock did not see.
    clock_lost: Duration,
    /// The specs that the core was told last.
    pub copies: BTreeMap<IpAddr, VipSpec>,
    /// It does not believe its last list yet (rule A42).
    pub doubts: bool,
    /// Its Node object, as the core was told last.
    pub state: NodeState,
}

/// What a frame from the wire led to.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// The kernel's answer.
    pub answer: Option<Vec<u8>>,
    /// The speaker's socket has something to read.
    pub readable: bool,
}

impl Node {
    /// A node that is switched on, without a speaker yet.
    pub(crate) fn new(index: usize, kernel: Kernel, clock_base: Duration) -> Self {
        Self {
            name: node_name(index),
            kernel,
            alive: true,
            core: None,
            frozen: None,
            turn_due: None,
            inputs: VecDeque::new(),
            link_news: false,
            ifindex: Some(IFINDEX),
            former_mac: None,
            last_ifindex: IFINDEX,
            ending: Ending::No,
            active_since: None,
            died_at: None,
            socket: VecDeque::new(),
            ring: VecDeque::new(),
            interest: BTreeSet::new(),
            groups: BTreeSet::new(),
            clock_base,
            clock_lost: Duration::ZERO,
            copies: BTreeMap::new(),
            doubts: false,
            state: NodeState::default(),
        }
    }

    /// The speaker runs, and nothing stops it.
    pub(crate) fn speaks(&self) -> bool {
        self.alive && self.core.is_some() && self.frozen.is_none()
    }

    /// The kernel runs: packets to Services are served.
    pub(crate) fn serves(&self) -> bool {
        self.alive && !matches!(self.frozen, Some(Frozen::Machine { .. }))
    }

    /// Does its speaker know a spec of this address, or doubt that it is gone?
    pub(crate) fn knows(&self, vip: IpAddr) -> bool {
        self.doubts || self.copies.contains_key(&vip)
    }

    /// Its own clock.
    fn clock(&self, now: Moment) -> Instant {
        let nanos = (self.clock_base + now).saturating_sub(self.clock_lost).as_nanos();
        Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// When its clock will show this.
    fn world_time(&self, at: Instant) -> Moment {
        (Duration::from_nanos(at.as_nanos()) + self.clock_lost).saturating_sub(self.clock_base)
    }

    /// Starts the speaker.
    pub(crate) fn start(&mut self, now: Moment, config: Config, ablation: Ablation) {
        let mut core = Core::new(config, self.clock(now));
        core.ablate(ablation);
        self.core = Some(core);
        self.link_news = true;
        self.ending = Ending::No;
        self.active_since = None;
    }

    /// The speaker is gone, with everything it knew.
    pub(crate) fn kill(&mut self) {
        self.core = None;
        self.turn_due = None;
        self.frozen = None;
        self.inputs.clear();
        self.copies.clear();
        self.doubts = false;
        self.state = NodeState::default();
        self.socket.clear();
        self.interest.clear();
        self.groups.clear();
    }

    /// The machine is gone.
    pub(crate) fn crash(&mut self, now: Moment) {
        self.kill();
        self.died_at.get_or_insert(now);
        self.ring.clear();
        self.alive = false;
    }

    /// The interface is gone, or back.
    pub(crate) fn set_interface(&mut self, present: bool, renumbered: bool) {
        self.socket.clear();
        self.ring.clear();
        if present && renumbered {
            self.last_ifindex += 1;
            self.former_mac = Some(self.kernel.mac);
            // A locally administered address of its own.
            self.kernel.mac.1 = self.kernel.mac.1.wrapping_add(1);
        }
        self.ifindex = present.then_some(self.last_ifindex);
    }

    /// Goes on after having been stopped: the frames that its card kept.
    pub(crate) fn thaw(&mut self, now: Moment) -> Vec<Rc<[u8]>> {
        if let Some(Frozen::Machine { since }) = self.frozen.take() {
            self.clock_lost += now.saturating_sub(since);
        }
        self.ring.drain(..).collect()
    }

    /// A frame arrives.
    pub(crate) fn receive(&mut self, bytes: &Rc<[u8]>) -> Received {
        if !self.alive {
            return Received::default();
        }
        if matches!(self.frozen, Some(Frozen::Machine { .. })) {
            if self.ring.len() < RING_FRAMES {
                self.ring.push_back(Rc::clone(bytes));
            }
            return Received::default();
        }
        let Ok(frame) = herald_wire::parse(bytes) else { return Received::default() };
        if !self.kernel.takes(frame.ethernet.destination, self.groups.iter().copied()) {
            return Received::default();
        }
        let readable = self.core.is_some() && self.filter_passes(&frame) && self.socket.len() < SOCKET_FRAMES;
        if readable {
            self.socket.push_back(Rc::clone(bytes));
        }
        Received { answer: self.kernel.answer(&frame), readable: readable && self.frozen.is_none() }
    }

    /// The socket filter, as [`Core::interest`] describes it.
    fn filter_passes(&self, frame: &Frame<'_>) -> bool {
        let to_me = frame.ethernet.destination == self.kernel.mac;
        match &frame.payload {
            Payload::Hello(_) => to_me || frame.ethernet.destination == GROUP,
            Payload::Arp(arp) => {
                self.interest.contains(&arp.tpa.into())
                    || self.interest.contains(&arp.spa.into())
                    || (to_me && arp.operation == arp::Operation::Reply)
            }
            Payload::Ndp(ndp) => {
                self.interest.contains(&ndp.target().into())
                    || (to_me && matches!(ndp.message, ndp::Message::Advertisement { .. }))
            }
            Payload::Echo(echo) => to_me && echo.operation == echo::Operation::Reply,
        }
    }

    /// One turn of the speaker's loop. `link`: whether the card sees one.
    pub(crate) fn turn(&mut self, now: Moment, link: bool) -> Vec<Output> {
        self.turn_due = None;
        let clock = self.clock(now);
        let interfaces = std::mem::take(&mut self.link_news).then(|| self.interfaces(link));
        let Some(core) = self.core.as_mut() else { return Vec::new() };
        let mut outputs = Vec::new();
        if core.begin_turn(clock) == Turn::Stalled {
            self.socket.clear();
        }
        let mut drain = |core: &mut Core| outputs.extend(std::iter::from_fn(|| core.poll_output()));
        drain(core);
        for bytes in self.socket.drain(..) {
            core.handle(clock, Input::Frame { ifindex: self.last_ifindex, bytes: &bytes });
            drain(core);
        }
        if let Some(interfaces) = interfaces {
            core.handle(clock, Input::Interfaces(interfaces));
            drain(core);
        }
        for told in self.inputs.drain(..) {
            let input = match told {
                Told::List(specs) => {
                    self.doubts = false;
                    self.copies = specs.iter().map(|spec| (spec.vip, spec.clone())).collect();
                    Input::SpecsReplaced(specs.into_iter().map(Arc::new).collect())
                }
                Told::Applied(spec) => {
                    self.copies.insert(spec.vip, spec.clone());
                    Input::SpecApplied(Arc::new(spec))
                }
                Told::Deleted(vip) => {
                    self.copies.remove(&vip);
                    Input::SpecDeleted(vip)
                }
                Told::Node(state) => {
                    self.state = state;
                    Input::Node(state)
                }
            };
            core.handle(clock, input);
            drain(core);
        }
        if self.ending == Ending::Asked {
            self.ending = Ending::Begun;
            core.handle(clock, Input::Shutdown);
            drain(core);
        }
        core.handle_timeout(clock);
        drain(core);
        self.turn_due = core.poll_timeout().map(|at| self.world_time(at));
        self.fit(&outputs);
        outputs
    }

    /// Does what the outputs say about the socket.
    fn fit(&mut self, outputs: &[Output]) {
        for output in outputs {
            match output {
                Output::JoinGroup { group, .. } => {
                    self.groups.insert(*group);
                }
                Output::LeaveGroup { group, .. } => {
                    self.groups.remove(group);
                }
                Output::Interest { ifindex } => {
                    self.interest = self.core.iter().flat_map(|core| core.interest(*ifindex)).collect();
                }
                Output::Transmit { .. } | Output::Event(_) => {}
            }
        }
    }

    fn interfaces(&self, link: bool) -> Vec<Interface> {
        let net = |ip: IpAddr, prefix| IpNet::new(ip, prefix).ok();
        let interface = |ifindex| Interface {
            ifindex,
            name: "eth0".into(),
            mac: self.kernel.mac,
            carrier: link,
            mtu: 1500,
            has_master: false,
            addresses: [
                net(self.kernel.v4.into(), 16),
                net(self.kernel.v6.into(), 64),
                net(self.kernel.link_local.into(), 64),
            ]
            .into_iter()
            .flatten()
            .collect(),
            gateway_v4: Some(gateway().v4),
            gateway_v6: Some(gateway().v6),
            metric: 100,
        };
        self.ifindex.map(interface).into_iter().collect()
    }
}

/// The LAN's way out: 10.0.0.254, fd00::fe.
pub(crate) fn gateway() -> Kernel {
    Kernel::new(254)
}

/// What a node's speaker is started with.
pub(crate) fn config(index: usize, profile: Profile, seed: [u8; 32]) -> Config {
    // Any number but 0; spread, as hashes of UIDs are.
    let id = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Config { node: NodeId(id), name: node_name(index), cluster: CLUSTER, keys: keys(), profile, seed }
}
