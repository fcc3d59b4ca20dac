//! The L2 loop: sockets on one side, the protocol core on the other, on a thread of its own.
//!
//! What must always hold: the loop never waits for anything but frames, the core's next deadline, a change of
//! the interfaces and commands; it takes bursts of frames and of commands in pieces, so that the core's timers come
//! in between (3h without a call of the core make this node a newcomer, rule A24); it writes no log, as a full pipe
//! would stop it; and it survives every interface coming, going and failing. It decides nothing about addresses:
//! the core does.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::Sender,
    },
    time::Duration,
};

use herald_l2::{Core, Event, Input, Instant, Interface, MacAddr, Output, Turn, glob_matches};
use herald_net::{
    Queues,
    clock::boottime_nanos,
    poller::{Poller, Waker},
    priority::{self, Priority},
};

use crate::{
    groups::{self, Membership},
    interfaces::{self, Newest},
    lbip::SpecChange,
    link::{Command, Inspection, Link, Report, Wake},
    ports::Ports,
};

/// Frames read from one socket before the timers and the other sockets have their turn.
const BURST: usize = 32;
/// Hellos among them that are read before the others get their turn: who floods us with forged ones must not keep
/// clients from their answers.
const HELLOS_FIRST: usize = 24;
/// Frames of one interface thrown away after a stall (rule A24); what a flood adds meanwhile is answered or not.
const DISCARD: usize = 4096;
/// Longest time for commands in one turn.
const COMMANDS: Duration = Duration::from_millis(2);
/// The largest frame: a jumbo frame and its header.
const FRAME: usize = 16 * 1024;
/// The loop turns at least this often, which /livez looks at.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Handing over takes 250 ms at most (rule A44, `leave` of the core); whatever holds it up longer must not hold up the exit.
const HAND_OVER: Duration = Duration::from_secs(3);

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

/// Starts the thread, and those that watch interfaces and join groups for it. It ends with [`Report::Ended`].
pub fn spawn(parts: Parts) -> anyhow::Result<()> {
    let interfaces = interfaces::watch(parts.poller.waker())?;
    let groups = groups::spawn()?;
    std::thread::Builder::new().name("l2".to_owned()).stack_size(512 * 1024).spawn(move || {
        if let Priority::Ordinary(error) = priority::raise() {
            // No news in a pod, where it can't be otherwise: the image's program has a file capability for raw sockets only,
            // and a process that is not root gets no other from the pod's securityContext.
            tracing::debug!(
                %error,
                "the L2 thread runs at ordinary priority: on a busy node its share of the CPU decides (in a pod, the CPU request)"
            );
        }
        let mut l2 = L2::new(parts, interfaces, groups);
        let result = l2.run();
        l2.link.report(Report::Ended(result));
    })?;
    Ok(())
}

struct L2 {
    core: Core,
    poller: Poller,
    link: Link,
    globs: Vec<String>,
    heartbeat: Arc<AtomicU64>,
    newest: Newest,
    /// The interfaces as last seen, less those that the flags exclude.
    interfaces: Vec<Interface>,
    groups: Sender<Membership>,
    ports: Ports,
    /// MAC address and carrier of each interface: a change of either may have cost the group memberships.
    links: BTreeMap<u32, (MacAddr, bool)>,
    buffer: Vec<u8>,
    /// Commands may wait that there was no time for.
    more: bool,
    /// When the loop ends in any case.
    end_by: Option<u64>,
    ended: bool,
}

impl L2 {
    fn new(parts: Parts, newest: Newest, groups: Sender<Membership>) -> Self {
        let Parts { config, poller, link, globs, heartbeat } = parts;
        heartbeat.store(boottime_nanos(), Ordering::Relaxed);
        Self {
            core: Core::new(config, now()),
            poller,
            link,
            globs,
            heartbeat,
            newest,
            interfaces: Vec::new(),
            groups,
            ports: Ports::default(),
            links: BTreeMap::new(),
            buffer: vec![0; FRAME],
            more: false,
            end_by: None,
            ended: false,
        }
    }

    fn run(&mut self) -> Result<(), String> {
        while !self.ended {
            let ready = self
                .poller
                .wait(Some(self.deadline()))
                .map_err(|error| format!("can't wait for frames: {error}"))?;
            self.heartbeat.store(boottime_nanos(), Ordering::Relaxed);
            if self.core.begin_turn(now()) == Turn::Stalled {
                self.ports.discard(&mut self.buffer, DISCARD);
            }
            self.flush();
            for token in &ready.tokens {
                if let Ok(ifindex) = u32::try_from(token.0) {
                    self.frames(ifindex);
                }
            }
            self.timers();
            if ready.woken {
                self.interfaces();
            }
            if ready.woken || self.more {
                self.commands();
                self.timers();
            }
            if self.ports.tend(&self.core, &self.poller, &self.link) {
                self.present();
            }
            if self.end_by.is_some_and(|end| end <= boottime_nanos()) {
                return Err("handing over took too long, ended without".to_owned());
            }
        }
        Ok(())
    }

    /// When the loop must turn, frame or not.
    fn deadline(&self) -> u64 {
        if self.more {
            return 0;
        }
        let heartbeat = boottime_nanos().saturating_add(nanos(HEARTBEAT));
        let core = self.core.poll_timeout().map(Instant::as_nanos);
        [core, self.ports.due(), self.end_by].into_iter().flatten().fold(heartbeat, u64::min)
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
        for turn in 0..BURST {
            let queues = if turn < HELLOS_FIRST { Queues::HellosFirst } else { Queues::OthersOnly };
            let Some(bytes) = self.ports.receive(ifindex, queues, &mut self.buffer, &self.link) else {
                return;
            };
            self.core.handle(now(), Input::Frame { ifindex, bytes });
            self.flush();
        }
    }

    fn interfaces(&mut self) {
        let Some(mut interfaces) = self.newest.take() else { return };
        interfaces.retain(|interface| {
            self.globs.is_empty() || self.globs.iter().any(|glob| glob_matches(glob, &interface.name))
        });
        let names = interfaces.iter().map(|interface| (interface.ifindex, interface.name.as_str().into()));
        self.ports.rename(names.collect());
        self.memberships(&interfaces);
        self.interfaces = interfaces;
        self.present();
        // Names and MAC addresses stand in the status.
        self.holdings();
    }

    /// Shows the core the interfaces. One without a socket has no link: nothing may be claimed on it.
    fn present(&mut self) {
        let interfaces = self.interfaces.iter().map(|interface| {
            let carrier = interface.carrier && !self.ports.is_closed(interface.ifindex);
            Interface { carrier, ..interface.clone() }
        });
        self.core.handle(now(), Input::Interfaces(interfaces.collect()));
        self.flush();
    }

    /// The kernel drops memberships with an interface, and does not tell the sockets that have them.
    fn memberships(&mut self, interfaces: &[Interface]) {
        let present: BTreeMap<u32, (MacAddr, bool)> = interfaces
            .iter()
            .map(|interface| (interface.ifindex, (interface.mac, interface.carrier)))
            .collect();
        for ifindex in self.links.keys().filter(|ifindex| !present.contains_key(ifindex)) {
            self.member(Membership::Forget(*ifindex));
        }
        for (ifindex, link) in &present {
            if self.links.get(ifindex).is_some_and(|before| before != link) {
                self.member(Membership::Rejoin(*ifindex, self.ports.name(*ifindex)));
            }
        }
        self.links = present;
    }

    fn member(&self, membership: Membership) {
        // The thread outlives this one.
        let _ = self.groups.send(membership);
    }

    fn commands(&mut self) {
        let end = boottime_nanos().saturating_add(nanos(COMMANDS));
        self.more = true;
        while boottime_nanos() < end {
            let Some(command) = self.link.command() else {
                self.more = false;
                return;
            };
            self.command(command);
            self.flush();
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Specs(SpecChange::Replaced(specs)) => {
                self.core.handle(now(), Input::SpecsReplaced(specs));
            }
            Command::Specs(SpecChange::Applied(spec)) => self.core.handle(now(), Input::SpecApplied(spec)),
            Command::Specs(SpecChange::Deleted(vip)) => self.core.handle(now(), Input::SpecDeleted(vip)),
            Command::Node(state) => self.core.handle(now(), Input::Node(state)),
            Command::Shutdown => self.end(Input::Shutdown),
            Command::Leave => self.end(Input::Leave),
            Command::Holdings => self.holdings(),
            Command::Inspect(reply) => {
                let inspection =
                    Inspection { snapshot: self.core.snapshot(), counters: self.core.counters().clone() };
                // Who asked may have given up waiting.
                let _ = reply.try_send(inspection);
            }
        }
    }

    fn end(&mut self, how: Input<'_>) {
        self.end_by = Some(boottime_nanos().saturating_add(nanos(HAND_OVER)));
        self.core.handle(now(), how);
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
                Output::Transmit { ifindex, bytes } => self.ports.send(ifindex, &bytes),
                Output::Interest { ifindex } => self.ports.misfit(ifindex),
                Output::JoinGroup { ifindex, group } => {
                    self.member(Membership::Join(ifindex, self.ports.name(ifindex), group));
                }
                Output::LeaveGroup { ifindex, group } => self.member(Membership::Leave(ifindex, group)),
                Output::Event(Event::ShutdownComplete) => self.ended = true,
                Output::Event(event) => {
                    let interface =
                        ifindex_of(&event).map_or_else(|| "".into(), |ifindex| self.ports.name(ifindex));
                    self.link.report(Report::Event { event, interface });
                }
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
        | Event::Grace { ifindex, .. }
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
