//! What happened when, in short: figures are made of it. Judges nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use herald_wire::{MacAddr, NodeId};

use crate::Moment;

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    /// A node took an address.
    Claimed {
        /// Who.
        node: usize,
        /// What.
        vip: IpAddr,
    },
    /// A node declared another dead.
    Dead {
        /// Who did.
        by: usize,
        /// Whom.
        peer: NodeId,
        /// After not having heard it for so long.
        silence: Duration,
    },
    /// A host's packets go somewhere else.
    Moved {
        /// Which host.
        host: usize,
        /// Packets for what.
        vip: IpAddr,
        /// Where to.
        mac: MacAddr,
    },
}

/// The facts of one run.
#[derive(Debug, Default)]
pub(crate) struct Record {
    facts: Vec<(Moment, Fact)>,
    spoke: BTreeMap<(usize, IpAddr), Moment>,
    hellos: BTreeMap<usize, u64>,
    /// How often somebody was suspected.
    pub suspicions: u64,
}

impl Record {
    /// Writes a fact down.
    pub(crate) fn fact(&mut self, at: Moment, fact: Fact) {
        self.facts.push((at, fact));
    }

    /// A node sends in an address's name.
    pub(crate) fn spoke(&mut self, at: Moment, node: usize, vip: IpAddr) {
        self.spoke.entry((node, vip)).or_insert(at);
    }

    /// When it first did.
    pub(crate) fn first_spoke(&self, node: usize, vip: IpAddr) -> Option<Moment> {
        self.spoke.get(&(node, vip)).copied()
    }

    /// A node sends a frame of the hello protocol.
    pub(crate) fn hello(&mut self, node: usize) {
        *self.hellos.entry(node).or_default() += 1;
    }

    /// How many they all sent.
    pub(crate) fn hellos(&self) -> u64 {
        self.hellos.values().sum()
    }

    /// The facts from a moment on.
    pub(crate) fn since(&self, start: Moment) -> impl Iterator<Item = (Moment, Fact)> + '_ {
        self.facts.iter().copied().filter(move |(at, _)| *at >= start)
    }
}
