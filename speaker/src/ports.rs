//! The packet sockets of the interfaces in use, each with a filter that lets pass what the core asks for.
//!
//! What must always hold: an interface that can't be used is tried again and does not disturb the others; nothing
//! here waits or logs, as it runs on the L2 thread: what people should know goes through the link.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use herald_l2::Core;
use herald_net::{
    L2Socket, OpenError, Queues,
    clock::boottime_nanos,
    poller::{Poller, Token},
};
use herald_runtime::telemetry::chain;

use crate::link::{Link, Report};

/// How often a socket that could not be opened is tried again, in nanoseconds.
const REOPEN: u64 = 1_000_000_000;
/// Filters are fitted at most this often: while thousands of addresses are created one after the other, the filter
/// is made anew for many at once. In nanoseconds.
const FIT: u64 = 20_000_000;

/// One interface in use.
#[derive(Debug)]
struct Port {
    socket: L2Socket,
    name: Arc<str>,
}

/// All interfaces in use.
#[derive(Debug, Default)]
pub struct Ports {
    in_use: BTreeMap<u32, Port>,
    /// The names of all interfaces, in use or not.
    names: BTreeMap<u32, Arc<str>>,
    /// Interfaces that the core wants and that have no socket, with the reason.
    closed: BTreeMap<u32, String>,
    reopen_at: Option<u64>,
    /// Interfaces whose filter no longer fits.
    unfit: BTreeSet<u32>,
    fit_at: u64,
}

impl Ports {
    /// Notes the interfaces' names. What could not be opened is tried again at once: something has changed.
    pub fn rename(&mut self, names: BTreeMap<u32, Arc<str>>) {
        // An interface in use that has just gone is called by its name once more, when its addresses are given up.
        self.names.retain(|ifindex, _| self.in_use.contains_key(ifindex));
        self.names.extend(names);
        self.reopen_at = self.reopen_at.map(|_| 0);
    }

    /// The name of an interface.
    pub fn name(&self, ifindex: u32) -> Arc<str> {
        self.names.get(&ifindex).cloned().unwrap_or_else(|| Arc::from(format!("#{ifindex}")))
    }

    /// The next frame of an interface; `None`: none now.
    pub fn receive<'b>(
        &mut self,
        ifindex: u32,
        queues: Queues,
        buffer: &'b mut [u8],
        link: &Link,
    ) -> Option<&'b [u8]> {
        let port = self.in_use.get(&ifindex)?;
        match port.socket.receive_from(queues, buffer) {
            Ok(frame) => frame,
            Err(error) => {
                trouble(link, port, "receiving failed, opening the socket anew", &error);
                self.in_use.remove(&ifindex);
                None
            }
        }
    }

    /// Reads away what queued up on every interface, but no more than `most` frames each.
    pub fn discard(&mut self, buffer: &mut [u8], most: usize) {
        for port in self.in_use.values() {
            let mut left = most;
            while left > 0 && matches!(port.socket.receive(buffer), Ok(Some(_))) {
                left -= 1;
            }
        }
    }

    /// Sends a frame; it may get lost, here as on the wire.
    ///
    /// A socket whose interface has gone is closed, and opened anew by [`Self::tend`]: an interface that is back under
    /// its old index so quickly that nobody saw it go is bound to nothing.
    pub fn send(&mut self, ifindex: u32, frame: &[u8]) {
        let Some(port) = self.in_use.get(&ifindex) else { return };
        // Else a full queue or a link that is down: whatever matters is repeated, and the monitor tells of the link.
        if port.socket.send(frame).is_err_and(|error| herald_net::is_unbound(&error)) {
            self.in_use.remove(&ifindex);
        }
    }

    /// The core asks for other addresses on this interface.
    pub fn misfit(&mut self, ifindex: u32) {
        self.unfit.insert(ifindex);
    }

    /// When [`Self::tend`] has something to do.
    pub fn due(&self) -> Option<u64> {
        let fit = (!self.unfit.is_empty()).then_some(self.fit_at);
        [self.reopen_at, fit].into_iter().flatten().min()
    }

    /// Whether the interface is wanted and can't be used.
    pub fn is_closed(&self, ifindex: u32) -> bool {
        self.closed.contains_key(&ifindex)
    }

    /// Sockets for exactly the interfaces that the core uses, each with a filter that fits. Whether
    /// [`Self::is_closed`] has changed.
    #[must_use = "an interface that can't be used has no link"]
    pub fn tend(&mut self, core: &Core, poller: &Poller, link: &Link) -> bool {
        let wanted = core.interfaces();
        let now = boottime_nanos();
        let due = self.reopen_at.is_none_or(|at| at <= now);
        let open = self.in_use.len();
        self.in_use.retain(|ifindex, _| wanted.contains(ifindex));
        let missing: Vec<u32> =
            wanted.iter().copied().filter(|ifindex| !self.in_use.contains_key(ifindex)).collect();
        let mut changed = self.closed.len();
        self.closed.retain(|ifindex, _| missing.contains(ifindex));
        changed -= self.closed.len();
        for ifindex in missing {
            if due || !self.closed.contains_key(&ifindex) {
                changed += usize::from(self.open(ifindex, core, poller, link));
            }
        }
        self.reopen_at = match (self.closed.is_empty(), due) {
            (true, _) => None,
            (false, true) => Some(now.saturating_add(REOPEN)),
            (false, false) => self.reopen_at,
        };
        if changed > 0 || open != self.in_use.len() {
            let failed = self.closed.iter().map(|(ifindex, why)| (self.name(*ifindex), why.clone()));
            link.report(Report::Sockets { open: self.in_use.len(), failed: failed.collect() });
        }
        if !self.unfit.is_empty() && self.fit_at <= now {
            self.fit(core, link);
            self.fit_at = now.saturating_add(FIT);
        }
        changed > 0
    }

    /// Opens a socket; whether what is wrong with this interface has changed.
    fn open(&mut self, ifindex: u32, core: &Core, poller: &Poller, link: &Link) -> bool {
        let name = self.name(ifindex);
        let opened = L2Socket::open(ifindex, &core.interest(ifindex)).and_then(|socket| {
            poller.add(&socket, Token(u64::from(ifindex))).map_err(|error| OpenError::Io {
                operation: "epoll_ctl",
                ifindex,
                error,
            })?;
            Ok(socket)
        });
        match opened {
            Ok(socket) => {
                self.unfit.remove(&ifindex);
                link.report(Report::Listening(Arc::clone(&name)));
                self.in_use.insert(ifindex, Port { socket, name });
                self.closed.remove(&ifindex).is_some()
            }
            Err(error) => {
                let why = chain(&error);
                self.closed.insert(ifindex, why.clone()) != Some(why)
            }
        }
    }

    fn fit(&mut self, core: &Core, link: &Link) {
        for ifindex in std::mem::take(&mut self.unfit) {
            let Some(port) = self.in_use.get(&ifindex) else { continue };
            if let Err(error) = port.socket.set_interest(&core.interest(ifindex)) {
                trouble(link, port, "the packet filter can't be changed, opening the socket anew", &error);
                self.in_use.remove(&ifindex);
            }
        }
    }
}

fn trouble(link: &Link, port: &Port, what: &'static str, error: &std::io::Error) {
    link.report(Report::Trouble { interface: Arc::clone(&port.name), what, error: error.to_string() });
}
