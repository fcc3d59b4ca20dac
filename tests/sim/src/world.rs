//! The LAN: nodes, hosts, switch and API server, and the queue of what happens next.
//!
//! Must always hold: one event at a time, in order of virtual time, ties in order of their making; every random
//! number comes from the run's own dice. Whether what happens is right is for `check` and `verdict`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::time::Duration;

use herald_l2::{Event as News, Nodes, Output, Revision};

use crate::Moment;
use crate::api::{Api, Links, Told};
use crate::check::{Bounds, Check};
use crate::faults::Fault;
use crate::host::{Host, Notice, packet_for};
use crate::kernel::Kernel;
use crate::node::{Node, gateway};
use crate::record::{Fact, Record};
use crate::schedule::Setup;
use crate::switch::{Port, Switch};
use crate::trace::{Trace, describe_event};
use herald_seeds::Dice;

#[derive(Debug)]
pub(crate) enum Event {
    Arrive { port: Port, frame: Rc<[u8]> },
    Turn { node: usize },
    Packets { host: usize },
    Api { node: usize, session: u32, told: Box<Told> },
    Status { node: usize, vip: IpAddr, claimed: bool },
    LinkNews { node: usize },
    Relist { node: usize },
    Start { node: usize },
    Fault(Box<Fault>),
}

#[derive(Debug)]
struct Scheduled {
    at: Moment,
    order: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// A LAN of speakers.
#[derive(Debug)]
pub(crate) struct World {
    /// Virtual time since the start.
    pub now: Moment,
    /// All randomness.
    pub dice: Dice,
    /// The switch: port n is node n's, the hosts' come after.
    pub switch: Switch,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The gateway, then the clients.
    pub hosts: Vec<Host>,
    /// The API server.
    pub api: Api,
    /// The nodes' connections to it.
    pub api_links: Links,
    /// The watcher.
    pub check: Check,
    /// The history.
    pub trace: Trace,
    /// What figures are made of.
    pub record: Record,
    pub(crate) slots: BTreeMap<usize, usize>,
    /// The newest revision that any speaker was told of.
    pub(crate) told: BTreeMap<IpAddr, Revision>,
    vips: Vec<IpAddr>,
    pub(crate) setup: Setup,
    queue: BinaryHeap<Reverse<Scheduled>>,
    order: u64,
}

impl World {
    /// A world about to start: nodes switch on, the API has all addresses.
    pub(crate) fn new(setup: Setup, bounds: Bounds, warm_at: Moment, mut dice: Dice, trace: Trace) -> Self {
        let machine = |n: usize| match u8::try_from(n + 1) {
            Ok(n) if n < 100 => Kernel::new(n),
            _ => Kernel::in_crowd(u16::try_from(n).unwrap_or(u16::MAX)),
        };
        let nodes: Vec<_> = (0..setup.nodes)
            .map(|n| {
                let kernel = Kernel { echo: setup.echo, ..machine(n) };
                Node::new(n, kernel, dice.time(Duration::from_secs(10), Duration::from_secs(100_000)))
            })
            .collect();
        let mut hosts = vec![Host::new("gateway", gateway())];
        for n in 0..setup.clients {
            let number = u8::try_from(100 + n).unwrap_or(u8::MAX);
            hosts.push(Host::new(&format!("client{}", n + 1), Kernel::new(number)));
        }
        let vips = (0..setup.vips).map(vip).collect();
        let mut world = Self {
            now: Moment::ZERO,
            switch: Switch::new(nodes.len() + hosts.len(), setup.ageing),
            api: Api::default(),
            api_links: Links::new(nodes.len()),
            check: Check::new(bounds, warm_at),
            nodes,
            hosts,
            trace,
            record: Record::default(),
            slots: BTreeMap::new(),
            told: BTreeMap::new(),
            vips,
            queue: BinaryHeap::new(),
            order: 0,
            dice,
            setup,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for vip in self.vips.clone() {
            let probe = self.dice.chance(0.5);
            self.api.create(vip, Nodes::All, probe);
        }
        for node in 0..self.nodes.len() {
            let at = self.dice.time(Duration::ZERO, self.setup.start_within);
            self.schedule(at, Event::Start { node });
        }
        for host in 0..self.hosts.len() {
            let at = self.dice.ms(500, 1_500);
            self.schedule(at, Event::Packets { host });
        }
    }

    /// Every address of this world, whether it exists in the API or not.
    pub(crate) fn vips(&self) -> &[IpAddr] {
        &self.vips
    }

    /// Ports of the switch.
    pub(crate) fn ports(&self) -> usize {
        self.nodes.len() + self.hosts.len()
    }

    /// The port of a host.
    pub(crate) fn host_port(&self, host: usize) -> Port {
        Port(self.nodes.len() + host)
    }

    /// Does this node's speaker run, with nothing stopping it?
    pub(crate) fn is_speaking(&self, node: usize) -> bool {
        self.nodes.get(node).is_some_and(Node::speaks)
    }

    /// Do these two speakers run and hear each other?
    pub(crate) fn are_connected(&self, a: usize, b: usize) -> bool {
        connected(&self.nodes, &self.switch, a, b)
    }

    /// A fault to come.
    pub(crate) fn plan(&mut self, at: Moment, fault: Fault) {
        self.schedule(at, Event::Fault(Box::new(fault)));
    }

    pub(crate) fn schedule(&mut self, at: Moment, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(Scheduled { at: at.max(self.now), order: self.order, event }));
    }

    /// Lets time pass.
    pub(crate) fn run_until(&mut self, end: Moment) {
        while let Some(Reverse(next)) = self.queue.peek() {
            if next.at > end {
                break;
            }
            let Some(Reverse(Scheduled { at, event, .. })) = self.queue.pop() else { break };
            self.now = at;
            self.happen(event);
        }
        self.now = end;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { port, frame } => self.arrive(port, &frame),
            Event::Turn { node } => self.turn(node),
            Event::Packets { host } => self.packets(host),
            Event::Api { node, session, told } => {
                if self.api_links.delivers(node, session)
                    && let Some(state) = self.nodes.get_mut(node).filter(|node| node.core.is_some())
                {
                    for spec in told.specs() {
                        let newest = self.told.entry(spec.vip).or_default();
                        *newest = spec.revision.max(*newest);
                    }
                    state.inputs.push_back((*told).clone());
                    self.miss_entry(node, &told);
                    self.wake(node);
                }
            }
            Event::Status { node, vip, claimed } => self.write_status(node, vip, claimed),
            Event::LinkNews { node } => {
                if let Some(state) = self.nodes.get_mut(node) {
                    state.link_news = true;
                }
                self.wake(node);
            }
            Event::Relist { node } if self.api_links.is_up(node) => self.list(node),
            Event::Relist { .. } => {}
            Event::Start { node } => self.start_speaker(node),
            Event::Fault(fault) => self.apply(&fault),
        }
    }

    /// Something for a node's speaker to read: its loop turns soon.
    pub(crate) fn wake(&mut self, node: usize) {
        let at = self.now + self.dice.us(5, 40);
        self.turn_at(node, at);
    }

    fn turn_at(&mut self, node: usize, at: Moment) {
        let Some(state) = self.nodes.get_mut(node).filter(|node| node.core.is_some()) else { return };
        if state.turn_due.is_none_or(|due| due > at) {
            state.turn_due = Some(at);
            self.schedule(at, Event::Turn { node });
        }
    }

    fn turn(&mut self, node: usize) {
        let link = self.switch.link(Port(node));
        let now = self.now;
        let Some(state) = self.nodes.get_mut(node).filter(|node| node.speaks()) else { return };
        // Another turn came first, or this one was put off.
        if state.turn_due.is_none_or(|due| due > now) {
            return;
        }
        let outputs = state.turn(now, link);
        let due = state.turn_due.take();
        for output in outputs {
            self.output(node, output);
        }
        if let Some(due) = due {
            // A timer is late by scheduling, seldom by much.
            let late = if self.dice.chance(0.002) { self.setup.hiccup } else { Duration::from_micros(80) };
            let at = due.max(now) + self.dice.time(Duration::from_micros(5), late);
            self.turn_at(node, at);
        }
    }

    fn output(&mut self, node: usize, output: Output) {
        match output {
            Output::Transmit { bytes, .. } => {
                self.check_sent(node, &bytes);
                self.send(Port(node), &bytes.into());
            }
            Output::Event(event) => self.told(node, event),
            Output::JoinGroup { .. } | Output::LeaveGroup { .. } | Output::Interest { .. } => {}
        }
    }

    fn told(&mut self, node: usize, event: News) {
        self.note(node, || describe_event(&event));
        match event {
            News::Claimed { vip, revision, .. } => {
                self.check.claimed(self.now, vip, node, revision);
                self.record.fact(self.now, Fact::Claimed { node, vip });
                self.report_later(node, vip, true);
            }
            News::Released { vip, .. } => {
                self.check.released(self.now, vip, node);
                self.report_later(node, vip, false);
            }
            News::PeerDown { peer, how: herald_l2::Gone::Dead { silence, .. }, .. } => {
                self.record.fact(self.now, Fact::Dead { by: node, peer: peer.node, silence });
            }
            News::Suspected { .. } => self.record.suspicions += 1,
            News::Active { .. } => self.set_active(node, Some(self.now)),
            News::Stalled { .. } => self.set_active(node, None),
            News::ListShrank { .. } => {
                if let Some(state) = self.nodes.get_mut(node) {
                    state.doubts = true;
                }
                // As the speaker does (rule A42).
                let at = self.now + Duration::from_secs(10);
                self.schedule(at, Event::Relist { node });
            }
            News::ShutdownComplete => {
                self.speaker_ends(node);
                if let Some(state) = self.nodes.get_mut(node) {
                    state.kill();
                }
                self.check.ended(node);
            }
            _ => {}
        }
        self.compare_holders();
    }

    fn set_active(&mut self, node: usize, since: Option<Moment>) {
        if let Some(state) = self.nodes.get_mut(node) {
            state.active_since = since;
        }
    }

    /// Looks for addresses held twice, as of now.
    pub(crate) fn compare_holders(&mut self) {
        let Self { check, nodes, switch, now, .. } = self;
        check.compare(*now, |a, b| connected(nodes, switch, a, b));
    }

    fn send(&mut self, port: Port, frame: &Rc<[u8]>) {
        if self.trace.shows_frames() {
            let who = self.name(port);
            self.trace.frame(self.now, &who, herald_wire::parse(frame).ok().as_ref());
        }
        for (to, at) in self.switch.forward(self.now, port, frame, &mut self.dice) {
            self.schedule(at, Event::Arrive { port: to, frame: Rc::clone(frame) });
        }
    }

    fn arrive(&mut self, port: Port, frame: &Rc<[u8]>) {
        match port.0.checked_sub(self.nodes.len()) {
            None => self.arrive_at_node(port.0, frame),
            Some(host) => self.arrive_at_host(host, frame),
        }
    }

    fn arrive_at_node(&mut self, node: usize, frame: &Rc<[u8]>) {
        let now = self.now;
        let Some(state) = self.nodes.get_mut(node) else { return };
        if let Some(vip) = packet_for(frame) {
            let sender = crate::switch::addresses(frame)
                .filter(|(to, _)| *to == state.kernel.mac && state.serves())
                .map(|(_, from)| from);
            if let Some(host) = self.hosts.iter().position(|host| Some(host.kernel.mac) == sender) {
                self.check.packet_served(now, host, vip);
            }
            return;
        }
        let received = state.receive(frame);
        if let Some(answer) = received.answer {
            self.send(Port(node), &answer.into());
        }
        if received.readable {
            self.wake(node);
        }
    }

    fn arrive_at_host(&mut self, host: usize, frame: &[u8]) {
        let (now, port) = (self.now, self.host_port(host));
        let Ok(frame) = herald_wire::parse(frame) else { return };
        let Some(state) = self.hosts.get_mut(host) else { return };
        let (answer, notice) = state.receive(now, &frame);
        match notice {
            Some(Notice::Moved { vip, mac }) => {
                let who = state.name.clone();
                self.record.fact(now, Fact::Moved { host, vip, mac });
                self.trace.event(now, &who, || format!("sends what is for {vip} to {mac}"));
            }
            Some(Notice::AnsweredByTwo { vip, macs: (a, b) }) => {
                let who = state.name.clone();
                self.check.answered_by_two(now, vip);
                self.trace.event(now, &who, || format!("{a} and {b} both answer for {vip}"));
            }
            None => {}
        }
        if let Some(answer) = answer {
            self.send(port, &answer.into());
        }
    }

    fn packets(&mut self, host: usize) {
        let (now, port) = (self.now, self.host_port(host));
        for vip in self.api.vips() {
            let Some(state) = self.hosts.get_mut(host) else { return };
            for frame in state.send(now, vip) {
                self.send(port, &frame.into());
            }
        }
        self.schedule(now + self.setup.packet_every, Event::Packets { host });
    }

    /// Goes on after a stop or a pause.
    pub(crate) fn thaw(&mut self, node: usize) {
        let now = self.now;
        let kept = self.nodes.get_mut(node).map(|node| node.thaw(now)).unwrap_or_default();
        for frame in kept {
            self.arrive_at_node(node, &frame);
        }
        if let Some(state) = self.nodes.get_mut(node) {
            state.turn_due = None;
        }
        self.check.stands_still(node, false);
        self.wake(node);
    }

    /// Both ends of a cable see it go or come.
    pub(crate) fn set_link(&mut self, port: Port, up: bool) {
        self.switch.set_link(port, up);
        match port.0.checked_sub(self.nodes.len()) {
            None => {
                let at = self.now + self.dice.ms(1, 10);
                self.schedule(at, Event::LinkNews { node: port.0 });
            }
            Some(host) => {
                if let Some(host) = self.hosts.get_mut(host).filter(|_| !up) {
                    host.cache.flush();
                }
            }
        }
    }

    fn name(&self, port: Port) -> String {
        match port.0.checked_sub(self.nodes.len()) {
            None => format!("n{}", port.0 + 1),
            Some(host) => self.hosts.get(host).map(|host| host.name.clone()).unwrap_or_default(),
        }
    }

    /// A line of history about a node.
    pub(crate) fn note(&mut self, node: usize, what: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(state) = self.nodes.get(node) {
            self.trace.event(now, state.name.as_str(), what);
        }
    }

    /// A line of history about everybody.
    pub(crate) fn note_world(&mut self, what: impl FnOnce() -> String) {
        self.trace.event(self.now, "", what);
    }
}

fn connected(nodes: &[Node], switch: &Switch, a: usize, b: usize) -> bool {
    let speaks = |node: usize| nodes.get(node).is_some_and(Node::speaks);
    speaks(a) && speaks(b) && switch.passes(Port(a), Port(b)) && switch.passes(Port(b), Port(a))
}

/// The n-th address: 10.0.1.1, fd00::1:1, 10.0.1.2, ...
pub(crate) fn vip(n: usize) -> IpAddr {
    let number = u16::try_from(n / 2 + 1).unwrap_or(u16::MAX);
    let [high, low] = number.to_be_bytes();
    if n.is_multiple_of(2) {
        IpAddr::from([10, 0, 1 | (high << 1), low])
    } else {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, number).into()
    }
}
