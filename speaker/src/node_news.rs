//! What this node's Node object tells of its LAN: Events that `kubectl describe node` shows, for what would else be said by
//! a log line, a metric and an alert only (rules A5, A9, A49).
//!
//! What must always hold: what lasts, or what a stranger's frames repeat, becomes no more than one Event in
//! [`AGAIN_AFTER`] for each reason and interface.

use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use herald_l2::Event;
use tokio::time::Instant;

/// The same of the same interface is told again after this.
const AGAIN_AFTER: Duration = Duration::from_mins(10);

/// One Event about the Node, a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeNews {
    /// Why, in one word.
    pub reason: &'static str,
    /// What is wrong and what to do.
    pub note: String,
}

impl NodeNews {
    /// What `event` means to who looks at the Node; `None`: nothing.
    pub fn of(event: &Event, interface: &str) -> Option<Self> {
        let (reason, note) = match event {
            Event::DuplicateNode { mac, .. } => (
                "DuplicateNode",
                format!(
                    "another machine, {mac} on {interface}, speaks with this node's id: neither hears the other, and both may answer for the same addresses. Do two Nodes have one uid (a cloned disk)?"
                ),
            ),
            Event::ForeignVersion { version, mac, .. } => (
                "OtherWireVersion",
                format!(
                    "the speaker {mac} on {interface} has another wire version, {version}: if it is of this cluster, neither hears the other, and both may answer for the same addresses. Run one version of Herald on all nodes"
                ),
            ),
            Event::PeersUnheard { unheard: true, .. } => (
                "PeersUnheard",
                format!(
                    "other nodes should be heard on {interface}, and none is: does the network filter EtherType 0x88B5 or multicast? Until one is heard, this node asks the LAN before it takes an address"
                ),
            ),
            _ => return None,
        };
        Some(Self { reason, note })
    }
}

/// What waits to be told.
#[derive(Debug, Default)]
pub struct NewsQueue {
    waiting: VecDeque<NodeNews>,
    told: BTreeMap<(&'static str, Arc<str>), Instant>,
}

impl NewsQueue {
    /// Something about `interface`.
    pub fn push(&mut self, now: Instant, interface: &Arc<str>, news: NodeNews) {
        self.told.retain(|_, at| now.saturating_duration_since(*at) < AGAIN_AFTER);
        if let Entry::Vacant(vacant) = self.told.entry((news.reason, Arc::clone(interface))) {
            vacant.insert(now);
            self.waiting.push_back(news);
        }
    }

    /// The oldest.
    pub fn pop(&mut self) -> Option<NodeNews> {
        self.waiting.pop_front()
    }
}
