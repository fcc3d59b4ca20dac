//! The L2 loop: sockets on one side, the protocol core on the other, on a thread of its own.
//!
//! What must always hold: the loop never waits for anything but frames, the core's next deadline, a change of
//! the interfaces and commands; it handles bursts in pieces, so that the core's timers come in between; and it
//! survives every interface coming, going and failing. It decides nothing about addresses: the core does.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use herald_l2::{Core, Event, Input, Instant, Interface, MacAddr, Output, Turn};
use herald_net::{
    L2Socket, OpenError,
    clock::boottime_nanos,
    groups::SolicitedNodeGroups,
    poller::{Poller, Token, Waker},
    priority::{self, Priority},
};

use herald_runtime::telemetry::chain;

use crate::{
    flags::glob_matches,
    interfaces::{self, Newest},
    lbip::SpecChange,
    link::{Command, Inspection, Link, Report, Wake},
};

/// Frames read from one socket before the timers and the other sockets have their turn.
const BURST: usize = 32;
/// The largest frame: a jumbo frame and its header.
const FRAME: usize = 16 * 1024;
/// The loop turns at least this often, which /livez looks at.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Handing over takes a second at most (rule A44); whatever holds it up longer must not hold up the exit.
const HAND_OVER: Duration = Duration::from_secs(3);
/// How often a socket that could not be opened is tried again.
const REOPEN: Duration = Duration::from_secs(1);

impl Wake for Waker {
    fn wake(&self) {
        Self::wake(self);
    }
}

/// What the thread is made of.
#[derive(Debug)]
pub struct Parts {
    /// What the core is told at its start.
    pub config: herald_l2::Config,
    /// What the loop waits on; its waker is in the API side's hands already.
    pub poller: Poller,
    /// The queues.
    pub link: Link,
    /// Interfaces that may be used; empty: all.
    pub globs: Vec<String>,
    /// When the loop last turned, in nanoseconds of CLOCK_BOOTTIME.
    pub heartbeat: Arc<AtomicU64>,
}

/// Starts the thread. It ends with [`Report::Ended`].
pub fn spawn(parts: Parts) -> std::io::Result<()> {
    std::thread::Builder::new().name("l2".to_owned()).stack_size(512 * 1024).spawn(move || {
        if let Priority::Ordinary(error) = priority::raise() {
            tracing::debug!(%error, "the L2 thread runs at ordinary priority");
        }
        let mut l2 = match L2::new(parts) {
            Ok(l2) => l2,
            Err((link, error)) => return link.report(Report::Ended(Err(error))),
        };
        let result = l2.run();
        l2.link.report(Report::Ended(result));
    })?;
    Ok(())
}

/// One interface in use.
struct Port {
    socket: L2Socket,
    name: Arc<str>,
}

struct L2 {
    core: Core,
    poller: Poller,
    link: Link,
    globs: Vec<String>,
    heartbeat: Arc<AtomicU64>,
    monitor: Newest,
    groups: SolicitedNodeGroups,
    ports: BTreeMap<u32, Port>,
    names: BTreeMap<u32, Arc<str>>,
    /// MAC address and carrier of each interface: a change of either may have cost the group memberships.
    links: BTreeMap<u32, (MacAddr, bool)>,
    /// Interfaces that the core wants and that have no socket, with the reason.
    closed: BTreeMap<u32, String>,
    reopen_at: Option<u64>,
    /// Interfaces whose filter no longer fits.
    unfit: BTreeSet<u32>,
    buffer: Vec<u8>,
    /// When the loop ends in any case.
    end_by: Option<u64>,
    ended: bool,
}

impl L2 {
    fn new(parts: Parts) -> Result<Self, (Link, String)> {
        let Parts { config, poller, link, globs, heartbeat } = parts;
        let monitor = match interfaces::watch(poller.waker()) {
            Ok(monitor) => monitor,
            Err(error) => {
                return Err((link, format!("can't watch the interfaces over netlink: {}", chain(&error))));
            }
        };
        let core = Core::new(config, now());
        heartbeat.store(boottime_nanos(), Ordering::Relaxed);
        Ok(Self {
            core,
            poller,
            link,
            globs,
            heartbeat,
            monitor,
            groups: SolicitedNodeGroups::new(),
            ports: BTreeMap::new(),
            names: BTreeMap::new(),
            links: BTreeMap::new(),
            closed: BTreeMap::new(),
            reopen_at: None,
            unfit: BTreeSet::new(),
            buffer: vec![0; FRAME],
            end_by: None,
            ended: false,
        })
    }

    fn run(&mut self) -> Result<(), String> {
        while !self.ended {
            let ready = self
                .poller
                .wait(Some(self.deadline()))
                .map_err(|error| format!("waiting for frames: {error}"))?;
            self.heartbeat.store(boottime_nanos(), Ordering::Relaxed);
            if self.core.begin_turn(now()) == Turn::Stalled {
                self.discard();
            }
            self.flush();
            for token in &ready.tokens {
                if let Ok(ifindex) = u32::try_from(token.0) {
                    self.frames(ifindex);
                }
            }
            if ready.woken {
                self.interfaces();
                self.commands();
            }
            self.timers();
            self.ports();
            if self.end_by.is_some_and(|end| end <= boottime_nanos()) {
                tracing::warn!("handing over took too long: ending without");
                self.ended = true;
            }
        }
        Ok(())
    }

    /// When the loop must turn, frame or not.
    fn deadline(&self) -> u64 {
        let heartbeat = boottime_nanos().saturating_add(nanos(HEARTBEAT));
        let core = self.core.poll_timeout().map_or(u64::MAX, Instant::as_nanos);
        [self.reopen_at, self.end_by].into_iter().flatten().fold(heartbeat.min(core), u64::min)
    }

    fn timers(&mut self) {
        let now = now();
        if self.core.poll_timeout().is_some_and(|due| due <= now) {
            self.core.handle_timeout(now);
            self.flush();
        }
    }

    /// A burst of frames of one interface.
    fn frames(&mut self, ifindex: u32) {
        for _ in 0..BURST {
            let Some(port) = self.ports.get(&ifindex) else { return };
            match port.socket.receive(&mut self.buffer) {
                Ok(Some(bytes)) => {
                    self.core.handle(now(), Input::Frame { ifindex, bytes });
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(interface = %port.name, %error, "receiving failed: opening the socket anew");
                    self.ports.remove(&ifindex);
                    return;
                }
            }
            self.flush();
        }
    }

    /// Throws away what queued up while the loop stood still (rule A24).
    fn discard(&mut self) {
        for port in self.ports.values() {
            while let Ok(Some(_)) = port.socket.receive(&mut self.buffer) {}
        }
    }

    fn interfaces(&mut self) {
        let Some(interfaces) = self.monitor.take() else { return };
        let usable = |interface: &Interface| {
            self.globs.is_empty() || self.globs.iter().any(|glob| glob_matches(glob, &interface.name))
        };
        let interfaces: Vec<Interface> = interfaces.into_iter().filter(usable).collect();
        self.groups(&interfaces);
        self.names = interfaces
            .iter()
            .map(|interface| (interface.ifindex, Arc::from(interface.name.as_str())))
            .collect();
        self.core.handle(now(), Input::Interfaces(interfaces));
        self.flush();
        // An interface that is back may have its old index and a dead socket.
        self.reopen_at = self.reopen_at.map(|_| 0);
    }

    /// The kernel drops memberships with an interface, and does not tell the sockets that have them.
    fn groups(&mut self, interfaces: &[Interface]) {
        let present: BTreeMap<u32, (MacAddr, bool)> = interfaces
            .iter()
            .map(|interface| (interface.ifindex, (interface.mac, interface.carrier)))
            .collect();
        for ifindex in self.links.keys().filter(|ifindex| !present.contains_key(ifindex)) {
            self.groups.forget_interface(*ifindex);
        }
        for (ifindex, link) in &present {
            if self.links.get(ifindex).is_some_and(|before| before != link)
                && let Err(error) = self.groups.rejoin(*ifindex)
            {
                tracing::warn!(interface = %self.name(*ifindex), %error, "can't join solicited-node groups anew");
            }
        }
        self.links = present;
    }

    fn commands(&mut self) {
        while let Some(command) = self.link.command() {
            match command {
                Command::Specs(SpecChange::Replaced(specs)) => {
                    self.core.handle(now(), Input::SpecsReplaced(specs));
                }
                Command::Specs(SpecChange::Applied(spec)) => {
                    self.core.handle(now(), Input::SpecApplied(spec));
                }
                Command::Specs(SpecChange::Deleted(vip)) => {
                    self.core.handle(now(), Input::SpecDeleted(vip));
                }
                Command::Node(state) => {
                    self.core.handle(now(), Input::Node(state));
                }
                Command::Shutdown => {
                    self.end_by = Some(boottime_nanos().saturating_add(nanos(HAND_OVER)));
                    self.core.handle(now(), Input::Shutdown);
                }
                Command::Holdings => self.holdings(),
                Command::Inspect(reply) => {
                    let inspection =
                        Inspection { snapshot: self.core.snapshot(), counters: self.core.counters().clone() };
                    // Who asked may have given up waiting.
                    let _ = reply.try_send(inspection);
                }
            }
            self.flush();
        }
    }

    fn holdings(&self) {
        let now = now();
        let held = self.core.holdings().into_iter().map(|holding| {
            let age = now.since(holding.since);
            (holding, age)
        });
        self.link.report(Report::Holdings(held.collect()));
    }

    /// Does what the core wants done.
    fn flush(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Transmit { ifindex, bytes } => {
                    if let Some(port) = self.ports.get(&ifindex)
                        && let Err(error) = port.socket.send(&bytes)
                    {
                        // Lost, as it might be on the wire: whatever matters is repeated.
                        tracing::trace!(interface = %port.name, %error, "frame not sent");
                    }
                }
                Output::Interest { ifindex } => {
                    self.unfit.insert(ifindex);
                }
                Output::JoinGroup { ifindex, group } => self.join(ifindex, group),
                Output::LeaveGroup { ifindex, group } => self.groups.leave(ifindex, group),
                Output::Event(Event::ShutdownComplete) => self.ended = true,
                Output::Event(event) => self.event(event),
            }
        }
    }

    fn join(&mut self, ifindex: u32, group: Ipv6Addr) {
        if let Err(error) = self.groups.join(ifindex, group) {
            tracing::warn!(interface = %self.name(ifindex), %group, %error, "can't join a solicited-node group: switches with MLD snooping may not forward its solicitations");
        }
    }

    fn event(&self, event: Event) {
        let interface = ifindex_of(&event).map_or_else(|| Arc::from(""), |ifindex| self.name(ifindex));
        self.link.report(Report::Event { event, interface });
    }

    fn name(&self, ifindex: u32) -> Arc<str> {
        self.names.get(&ifindex).cloned().unwrap_or_else(|| Arc::from(format!("#{ifindex}")))
    }

    /// Sockets for exactly the interfaces that the core uses, each with a filter that fits.
    fn ports(&mut self) {
        let wanted = self.core.interfaces();
        let due = self.reopen_at.is_none_or(|at| at <= boottime_nanos());
        self.ports.retain(|ifindex, _| wanted.contains(ifindex));
        let closed_before = self.closed.clone();
        self.closed.retain(|ifindex, _| wanted.contains(ifindex));
        for ifindex in wanted {
            let missing = !self.ports.contains_key(&ifindex);
            if missing && (due || !self.closed.contains_key(&ifindex)) {
                self.open(ifindex);
            }
        }
        self.reopen_at = match (self.closed.is_empty(), due) {
            (true, _) => None,
            (false, true) => Some(boottime_nanos().saturating_add(nanos(REOPEN))),
            (false, false) => self.reopen_at,
        };
        self.fit();
        if self.closed != closed_before {
            let failed = self.closed.iter().map(|(ifindex, why)| (self.name(*ifindex), why.clone()));
            self.link.report(Report::Sockets(failed.collect()));
        }
    }

    fn open(&mut self, ifindex: u32) {
        let name = self.name(ifindex);
        let opened = L2Socket::open(ifindex, &self.interest(ifindex)).map_err(Box::new).and_then(|socket| {
            self.poller
                .add(&socket, Token(u64::from(ifindex)))
                .map_err(|error| Box::new(OpenError::Io { operation: "epoll_ctl", ifindex, error }))?;
            Ok(socket)
        });
        match opened {
            Ok(socket) => {
                tracing::info!(interface = %name, "listening on interface");
                self.closed.remove(&ifindex);
                self.unfit.remove(&ifindex);
                self.ports.insert(ifindex, Port { socket, name });
            }
            Err(error) => {
                let why = chain(error.as_ref());
                if self.closed.get(&ifindex) != Some(&why) {
                    tracing::error!(interface = %name, "can't use interface: {why}");
                }
                self.closed.insert(ifindex, why);
            }
        }
    }

    fn interest(&self, ifindex: u32) -> Vec<IpAddr> {
        self.core.interest(ifindex)
    }

    fn fit(&mut self) {
        for ifindex in std::mem::take(&mut self.unfit) {
            let Some(port) = self.ports.get(&ifindex) else { continue };
            if let Err(error) = port.socket.set_interest(&self.interest(ifindex)) {
                tracing::warn!(interface = %port.name, %error, "the packet filter can't be changed: opening the socket anew");
                self.ports.remove(&ifindex);
            }
        }
    }
}

fn now() -> Instant {
    Instant::from_nanos(boottime_nanos())
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn ifindex_of(event: &Event) -> Option<u32> {
    match event {
        Event::Claimed { ifindex, .. }
        | Event::Released { ifindex, .. }
        | Event::PeerUp { ifindex, .. }
        | Event::Suspected { ifindex, .. }
        | Event::Unsuspected { ifindex, .. }
        | Event::PeerDown { ifindex, .. }
        | Event::Conflict { ifindex, .. }
        | Event::ConflictOver { ifindex, .. }
        | Event::DuplicateNode { ifindex, .. }
        | Event::ForeignVersion { ifindex, .. }
        | Event::PeersUnheard { ifindex, .. }
        | Event::Mute { ifindex, .. }
        | Event::Active { ifindex } => Some(*ifindex),
        Event::SameSegment { idle, .. } => Some(*idle),
        Event::Stalled { .. }
        | Event::NoInterface { .. }
        | Event::ListShrank { .. }
        | Event::ShutdownComplete => None,
    }
}
