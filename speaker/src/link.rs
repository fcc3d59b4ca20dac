//! The two channels between the API side and the L2 thread, and what travels in them.
//!
//! What must always hold: the L2 thread never waits for the API side. Commands wait in a bounded queue, in which
//! the API side may wait; reports go the other way with a send that can't wait: when that queue is full the report
//! is lost, a flag says so, and the API side asks for everything anew.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use herald_l2::{Counters, Event, Holding, NodeState, Snapshot};
use tokio::sync::mpsc;

use crate::lbip::SpecChange;

/// Commands that wait at most. A whole list is one.
const COMMANDS: usize = 256;
/// Reports that wait at most: a takeover of every address of a large cluster.
const REPORTS: usize = 32_768;

/// From the API side.
#[derive(Debug)]
pub enum Command {
    /// What may be announced.
    Specs(SpecChange),
    /// What this node's Node object says.
    Node(NodeState),
    /// Everything held, as [`Report::Holdings`].
    Holdings,
    /// The core's insides, for metrics.
    Inspect(std::sync::mpsc::SyncSender<Inspection>),
    /// End, for a restart or after handing over, as the Node says (rule A44).
    Shutdown,
    /// Hand over and end.
    Leave,
}

/// From the L2 thread.
#[derive(Debug)]
pub enum Report {
    /// Something happened.
    Event {
        /// What.
        event: Event,
        /// The name of the interface that it names.
        interface: Arc<str>,
    },
    /// Everything held, each with the time since it is.
    Holdings(Vec<(Holding, Duration)>),
    /// A socket was opened on this interface.
    Listening(Arc<str>),
    /// How many interfaces have sockets, and which of those to be used have none, with the reason; whenever either
    /// changes.
    Sockets {
        /// Interfaces with sockets.
        open: usize,
        /// Interfaces without.
        failed: Vec<(Arc<str>, String)>,
    },
    /// Something failed that is mended by itself.
    Trouble {
        /// Where.
        interface: Arc<str>,
        /// What, and what is done about it.
        what: &'static str,
        /// What the kernel said.
        error: String,
    },
    /// The thread ends. `Err` says why it could not go on.
    Ended(Result<(), String>),
}

/// The core's insides at one moment.
#[derive(Debug)]
pub struct Inspection {
    /// Gauges.
    pub snapshot: Snapshot,
    /// Counters.
    pub counters: Counters,
}

/// The API side's end.
#[derive(Clone, Debug)]
pub struct Controls<W> {
    commands: mpsc::Sender<Command>,
    waker: W,
}

/// Wakes the L2 thread out of its wait.
pub trait Wake: Clone + Send + Sync + 'static {
    /// May be called from any thread, at any time, any number of times.
    fn wake(&self);
}

/// The API side's receiving end.
#[derive(Debug)]
pub struct Reports {
    reports: mpsc::Receiver<Report>,
    lost: Arc<AtomicBool>,
}

/// The L2 thread's end.
#[derive(Debug)]
pub struct Link {
    commands: mpsc::Receiver<Command>,
    reports: mpsc::Sender<Report>,
    lost: Arc<AtomicBool>,
}

/// Both channels.
pub fn link<W: Wake>(waker: W) -> (Controls<W>, Reports, Link) {
    let (command_sender, commands) = mpsc::channel(COMMANDS);
    let (report_sender, reports) = mpsc::channel(REPORTS);
    let lost = Arc::new(AtomicBool::new(false));
    (
        Controls { commands: command_sender, waker },
        Reports { reports, lost: Arc::clone(&lost) },
        Link { commands, reports: report_sender, lost },
    )
}

impl<W: Wake> Controls<W> {
    /// Sends a command, waiting for room. A thread that has ended needs no commands.
    pub async fn send(&self, command: Command) {
        if self.commands.send(command).await.is_ok() {
            self.waker.wake();
        }
    }

    /// The core's insides, if the thread gives them in time. Blocks for `patience` at most.
    pub fn inspect(&self, patience: Duration) -> Option<Inspection> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.commands.try_send(Command::Inspect(sender)).ok()?;
        self.waker.wake();
        receiver.recv_timeout(patience).ok()
    }
}

impl Reports {
    /// The next report; `None` when the thread is gone.
    pub async fn next(&mut self) -> Option<Report> {
        self.reports.recv().await
    }

    /// Whether reports were lost since this was last asked.
    pub fn lost(&self) -> bool {
        self.lost.swap(false, Ordering::Relaxed)
    }
}

impl Link {
    /// The next command, if one waits. `None` also when the API side is gone, which changes nothing here.
    pub fn command(&mut self) -> Option<Command> {
        self.commands.try_recv().ok()
    }

    /// Reports without waiting.
    pub fn report(&self, report: Report) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.reports.try_send(report) {
            self.lost.store(true, Ordering::Relaxed);
        }
    }
}
