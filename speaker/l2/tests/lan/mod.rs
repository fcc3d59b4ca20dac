//! Several cores on one hub, in virtual time: the smallest LAN on which the protocol can be watched. The simulator
//! in tests/sim has switches, clients and faults; this has none.

#![allow(dead_code, reason = "each test file takes what it needs")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test support: whatever is wrong fails the test"
)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use herald_l2::{
    ClusterId, Config, Core, Event, Input, Instant, Interface, Keyring, MacAddr, NodeId, NodeName, Nodes,
    Output, Profile, Revision, Turn, VipSpec,
};
use herald_wire::hello::{KeyId, Secret};

pub(crate) const IFINDEX: u32 = 2;
pub(crate) const LATENCY: Duration = Duration::from_micros(50);
pub(crate) const GATEWAY: &str = "10.0.0.254";

pub(crate) struct Lan {
    pub(crate) now: Instant,
    pub(crate) nodes: Vec<Node>,
    /// Frames on the wire: when they arrive, an order, from whom.
    wire: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    sent: u64,
    pub(crate) log: Vec<(Instant, usize, Event)>,
    /// Everything sent, for tests that look at it.
    pub(crate) frames: Vec<(Instant, usize, Vec<u8>)>,
    pub(crate) gateway: bool,
    pub(crate) machines: Vec<Machine>,
    /// Hellos do not pass, everything else does (OVS port security, some access points).
    pub(crate) hellos_filtered: bool,
    /// Of 1,000 deliveries so many are lost, each on its own.
    pub(crate) loss: u64,
    dice: u64,
}

/// What a node's kernel does, whether or not its speaker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Machine {
    /// Nothing: this LAN has no kernels, unless a test wants them.
    Off,
    /// Answers echo and ARP for its own address.
    Answers,
    /// A firewall drops echo.
    AnswersArpOnly,
    /// Nothing, but the switch knows its address and answers ARP for it.
    AnsweredForBySwitch,
}

pub(crate) struct Node {
    pub(crate) core: Core,
    pub(crate) on: bool,
    pub(crate) cut: bool,
}

pub(crate) fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

pub(crate) fn mac(node: usize) -> MacAddr {
    MacAddr(2, 0, 0, 0, 0, u8::try_from(node + 1).unwrap())
}

pub(crate) fn gateway_mac() -> MacAddr {
    MacAddr(2, 0, 0, 0, 0, 0xfe)
}

pub(crate) fn name(node: usize) -> NodeName {
    NodeName::from(format!("n{}", node + 1))
}

pub(crate) fn keys() -> Keyring {
    Keyring::new().with(KeyId::new(0).unwrap(), &Secret::new([7; 32]))
}

pub(crate) fn config(node: usize, seed: u8) -> Config {
    Config {
        node: NodeId(u64::try_from(node + 1).unwrap()),
        name: name(node),
        cluster: ClusterId(77),
        keys: keys(),
        profile: Profile::Default,
        seed: [seed.wrapping_add(u8::try_from(node).unwrap()); 32],
    }
}

pub(crate) fn interface(node: usize) -> Interface {
    let host = node + 1;
    Interface {
        ifindex: IFINDEX,
        name: "eth0".into(),
        mac: mac(node),
        carrier: true,
        mtu: 1500,
        has_master: false,
        addresses: vec![
            format!("10.0.0.{host}/16").parse().unwrap(),
            format!("fe80::{host}/64").parse().unwrap(),
        ],
        gateway_v4: Some(GATEWAY.parse().unwrap()),
        gateway_v6: None,
        metric: 100,
    }
}

pub(crate) fn spec(vip: &str, revision: u64) -> VipSpec {
    VipSpec {
        vip: vip.parse().unwrap(),
        revision: Revision(revision),
        nodes: Nodes::All,
        interfaces: Vec::new(),
        preferred: Vec::new(),
        conflict_detection: false,
        ignore_exclusion: false,
        holders_hint: Vec::new(),
    }
}

impl Lan {
    pub(crate) fn new(nodes: usize) -> Self {
        let nodes = (0..nodes)
            .map(|node| Node { core: Core::new(config(node, 1), at(0)), on: true, cut: false })
            .collect::<Vec<_>>();
        let mut lan = Self {
            now: at(0),
            machines: vec![Machine::Off; nodes.len()],
            nodes,
            wire: BTreeMap::new(),
            sent: 0,
            log: Vec::new(),
            frames: Vec::new(),
            gateway: true,
            hellos_filtered: false,
            loss: 0,
            dice: 1,
        };
        for node in 0..lan.nodes.len() {
            lan.input(node, Input::Interfaces(vec![interface(node)]));
        }
        lan
    }

    pub(crate) fn input(&mut self, node: usize, input: Input<'_>) {
        let now = self.now;
        let _ = self.nodes[node].core.begin_turn(now);
        self.nodes[node].core.handle(now, input);
        self.drain(node);
    }

    pub(crate) fn spec_everywhere(&mut self, spec: &VipSpec) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].on {
                self.input(node, Input::SpecApplied(Arc::new(spec.clone())));
            }
        }
    }

    pub(crate) fn drain(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].core.poll_output() {
            match output {
                Output::Transmit { bytes, .. } => self.transmit(node, bytes),
                Output::Event(event) => self.log.push((self.now, node, event)),
                _ => {}
            }
        }
    }

    /// Puts a frame on the wire; `usize::MAX` is a stranger.
    pub(crate) fn transmit(&mut self, node: usize, bytes: Vec<u8>) {
        self.frames.push((self.now, node, bytes.clone()));
        if node != usize::MAX && self.nodes[node].cut {
            return;
        }
        if self.gateway && self.roll() >= self.loss {
            self.gateway_hears(&bytes);
        }
        self.sent += 1;
        self.wire.insert((self.now + LATENCY, self.sent), (node, bytes));
    }

    /// What the kernel of the machine that a frame is addressed to answers.
    fn kernel_hears(&mut self, node: usize, bytes: &[u8]) {
        let Ok(frame) = herald_wire::parse(bytes) else { return };
        let own = interface(node).addresses[0].addr();
        let source = match self.machines[node] {
            Machine::AnsweredForBySwitch => MacAddr(2, 0, 0, 0, 0, 0xaa),
            _ => mac(node),
        };
        let back = herald_wire::Ethernet::new(frame.ethernet.source, source);
        let answer = match (self.machines[node], frame.payload) {
            (Machine::Off, _) => return,
            (Machine::Answers, herald_wire::Payload::Echo(echo))
                if echo.operation == herald_wire::echo::Operation::Request
                    && echo.path.destination() == own =>
            {
                let path = herald_wire::echo::Path::between(own, echo.path.source()).unwrap();
                let operation = herald_wire::echo::Operation::Reply;
                herald_wire::Echo { path, operation, ..echo }.to_frame(back)
            }
            (_, herald_wire::Payload::Arp(arp))
                if arp.operation == herald_wire::arp::Operation::Request && own == IpAddr::V4(arp.tpa) =>
            {
                arp.answer(mac(node)).to_frame(back)
            }
            _ => return,
        };
        self.sent += 1;
        self.wire.insert((self.now + LATENCY, self.sent), (usize::MAX, answer));
    }

    fn gateway_hears(&mut self, bytes: &[u8]) {
        if let Ok(frame) = herald_wire::parse(bytes)
            && let herald_wire::Payload::Arp(arp) = frame.payload
            && arp.operation == herald_wire::arp::Operation::Request
            && arp.tpa.to_string() == GATEWAY
        {
            let to = herald_wire::Ethernet::new(arp.sha, gateway_mac());
            let answer = arp.answer(gateway_mac()).to_frame(to);
            self.sent += 1;
            self.wire.insert((self.now + LATENCY * 2, self.sent), (usize::MAX, answer));
        }
    }

    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].on = false;
    }

    /// Starts a node anew, with another seed.
    pub(crate) fn restart(&mut self, node: usize, seed: u8) {
        self.nodes[node] = Node { core: Core::new(config(node, seed), self.now), on: true, cut: false };
        self.input(node, Input::Interfaces(vec![interface(node)]));
    }

    pub(crate) fn run_for(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        self.run_until(end);
    }

    pub(crate) fn run_until(&mut self, end: Instant) {
        loop {
            let timeout = (0..self.nodes.len())
                .filter(|node| self.nodes[*node].on)
                .filter_map(|node| Some((self.nodes[node].core.poll_timeout()?, node)))
                .min();
            let frame = self.wire.keys().next().copied();
            let next = match (timeout, frame) {
                (Some((at, _)), Some((arrives, _))) => at.min(arrives),
                (Some((at, _)), None) => at,
                (None, Some((arrives, _))) => arrives,
                (None, None) => end,
            };
            if next >= end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            if frame.is_some_and(|(arrives, _)| arrives <= self.now) {
                let (_, (from, bytes)) = self.wire.pop_first().unwrap();
                self.deliver(from, &bytes);
            } else if let Some((_, node)) = timeout {
                self.turn(node, None);
            }
        }
    }

    pub(crate) fn seed(&mut self, seed: u64) {
        self.dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    }

    /// 0 to 999 (xorshift64*, Vigna 2016).
    fn roll(&mut self) -> u64 {
        self.dice ^= self.dice >> 12;
        self.dice ^= self.dice << 25;
        self.dice ^= self.dice >> 27;
        (self.dice.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % 1_000
    }

    fn deliver(&mut self, from: usize, bytes: &[u8]) {
        let destination = MacAddr::from(<[u8; 6]>::try_from(&bytes[..6]).unwrap());
        for node in 0..self.nodes.len() {
            let mine = destination.is_multicast() || destination == mac(node);
            let filtered = self.hellos_filtered && bytes[12..14] == [0x88, 0xb5];
            let lost = self.roll() < self.loss || filtered;
            if node != from && destination == mac(node) && !self.nodes[node].cut && !lost {
                self.kernel_hears(node, bytes);
            }
            if node != from && mine && self.nodes[node].on && !self.nodes[node].cut && !lost {
                self.turn(node, Some(bytes));
            }
        }
    }

    fn turn(&mut self, node: usize, bytes: Option<&[u8]>) {
        let now = self.now;
        let core = &mut self.nodes[node].core;
        let turn = core.begin_turn(now);
        if let (Turn::Continue, Some(bytes)) = (turn, bytes) {
            core.handle(now, Input::Frame { ifindex: IFINDEX, bytes });
        }
        core.handle_timeout(now);
        self.drain(node);
    }

    pub(crate) fn holders(&self, vip: &str) -> Vec<usize> {
        let vip: IpAddr = vip.parse().unwrap();
        (0..self.nodes.len())
            .filter(|node| self.nodes[*node].on)
            .filter(|node| self.nodes[*node].core.holdings().iter().any(|holding| holding.vip == vip))
            .collect()
    }

    /// The one holder.
    pub(crate) fn holder(&self, vip: &str) -> usize {
        let holders = self.holders(vip);
        assert_eq!(holders.len(), 1, "one holder of {vip}, not {holders:?}; events: {:#?}", self.log);
        holders[0]
    }

    pub(crate) fn claims(&self) -> Vec<(Instant, usize, IpAddr)> {
        self.log
            .iter()
            .filter_map(|(at, node, event)| match event {
                Event::Claimed { vip, .. } => Some((*at, *node, *vip)),
                _ => None,
            })
            .collect()
    }
}
