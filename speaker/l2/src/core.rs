//! The node as a whole: interfaces, specs and time, and which segment an input concerns.

use std::collections::VecDeque;
use std::net::IpAddr;

use crate::config::Config;
use crate::input::Input;
use crate::output::{Holding, Output, Turn};
use crate::snapshot::{Counters, Snapshot};
use crate::time::Instant;

/// The protocol core of one node. See the crate's documentation for how to drive it.
#[derive(Debug)]
pub struct Core {
    config: Config,
    outputs: VecDeque<Output>,
    counters: Counters,
    now: Instant,
}

impl Core {
    /// A node that has just started: it knows no interface and no address yet.
    pub fn new(config: Config, now: Instant) -> Self {
        Self { config, outputs: VecDeque::new(), counters: Counters::default(), now }
    }

    /// Call first in each turn of the loop, before frames that may have queued up are read.
    pub fn begin_turn(&mut self, now: Instant) -> Turn {
        self.now = self.now.max(now);
        Turn::Continue
    }

    /// Takes one input. Afterwards drain [`Self::poll_output`] and ask [`Self::poll_timeout`] again.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        self.now = self.now.max(now);
        let _ = input;
    }

    /// Does what is due at `now`. Afterwards drain [`Self::poll_output`] and ask [`Self::poll_timeout`] again.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// When [`Self::handle_timeout`] must be called next; `None`: only after the next input.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The next thing to do, in order. `None`: nothing until the next input or timeout.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The addresses whose ARP and neighbour-discovery frames must reach the core on this interface, in order.
    /// Empty for an interface that isn't used. A socket filter must let pass:
    ///
    /// - hello frames (EtherType 0x88B5), to the group and to this host;
    /// - ARP of either operation whose target or sender protocol address is one of these;
    /// - any ARP reply to this host's MAC address (two-way proof: answers of the gateway and of clients);
    /// - neighbour solicitations and advertisements whose target is one of these;
    /// - any neighbour advertisement to this host's MAC address (the same proof).
    pub fn interest(&self, ifindex: u32) -> Vec<IpAddr> {
        let _ = ifindex;
        Vec::new()
    }

    /// The interfaces in use, in order of ifindex: those that need a socket.
    pub fn interfaces(&self) -> Vec<u32> {
        Vec::new()
    }

    /// What this node holds now, in order of address. For `LoadBalancerIP.status.holders`.
    pub fn holdings(&self) -> Vec<Holding> {
        Vec::new()
    }

    /// Everything else that /debug and /metrics show.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::default()
    }

    /// What has been counted since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// This node's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }
}
