//! The API server as speakers see it: `LoadBalancerIP` objects, their holders as last written, and Nodes.
//!
//! Owns the truth about specs. Must always hold: revisions only grow (rule B18), also over deletion and re-creation.
//! Does not deliver: `world` does, each node's watch in order, with its delay, and not while it is cut.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use herald_l2::{NodeState, Nodes, Revision, VipSpec};

use crate::Moment;
use crate::node::node_name;

/// What a watch says.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// The first list, or a new one after the watch was lost.
    List(Vec<VipSpec>),
    /// One object is new or changed.
    Applied(VipSpec),
    /// One object is gone.
    Deleted(IpAddr),
    /// The node's own Node object.
    Node(NodeState),
}

impl Told {
    /// The specs it brings.
    pub(crate) fn specs(&self) -> &[VipSpec] {
        match self {
            Self::List(specs) => specs,
            Self::Applied(spec) => std::slice::from_ref(spec),
            Self::Deleted(_) | Self::Node(_) => &[],
        }
    }
}

/// Everything in the API server.
#[derive(Debug, Default)]
pub(crate) struct Api {
    specs: BTreeMap<IpAddr, VipSpec>,
    holders: BTreeMap<IpAddr, BTreeSet<usize>>,
    nodes: BTreeMap<usize, NodeState>,
    revision: u64,
}

impl Api {
    fn next_revision(&mut self) -> Revision {
        self.revision += 1;
        Revision(self.revision)
    }

    /// Makes a `LoadBalancerIP`, or makes it anew.
    pub(crate) fn create(&mut self, vip: IpAddr, nodes: Nodes, conflict_detection: bool) {
        let revision = self.next_revision();
        let spec = VipSpec {
            vip,
            revision,
            nodes,
            interfaces: Vec::new(),
            preferred: Vec::new(),
            conflict_detection,
            ignore_exclusion: false,
            holders_hint: Vec::new(),
        };
        self.specs.insert(vip, spec);
        self.holders.remove(&vip);
    }

    /// Deletes it.
    pub(crate) fn delete(&mut self, vip: IpAddr) {
        self.specs.remove(&vip);
        self.holders.remove(&vip);
    }

    /// Writes another announce part, with the next revision.
    pub(crate) fn change(&mut self, vip: IpAddr, change: impl FnOnce(&mut VipSpec)) {
        let revision = self.next_revision();
        if let Some(spec) = self.specs.get_mut(&vip) {
            change(spec);
            spec.revision = revision;
        }
    }

    /// Writes a Node.
    pub(crate) fn set_node(&mut self, node: usize, state: NodeState) {
        self.nodes.insert(node, state);
    }

    /// A Node as it is.
    pub(crate) fn node(&self, node: usize) -> NodeState {
        self.nodes.get(&node).copied().unwrap_or_default()
    }

    /// A speaker writes whether it holds an address; `claimed`: for the first time since, so that it removes what it
    /// superseded (rule B24).
    pub(crate) fn report(&mut self, vip: IpAddr, node: usize, holds: bool, claimed: bool) {
        if !self.specs.contains_key(&vip) {
            return;
        }
        let holders = self.holders.entry(vip).or_default();
        if holds && claimed {
            *holders = BTreeSet::from([node]);
        } else if holds {
            holders.insert(node);
        } else {
            holders.remove(&node);
        }
    }

    /// One object as a reader gets it now.
    pub(crate) fn read(&self, vip: IpAddr) -> Option<VipSpec> {
        let mut spec = self.specs.get(&vip)?.clone();
        spec.holders_hint =
            self.holders.get(&vip).into_iter().flatten().map(|node| node_name(*node)).collect();
        Some(spec)
    }

    /// All objects as a reader gets them now.
    pub(crate) fn list(&self) -> Vec<VipSpec> {
        self.specs.keys().filter_map(|vip| self.read(*vip)).collect()
    }

    /// The addresses there are.
    pub(crate) fn vips(&self) -> Vec<IpAddr> {
        self.specs.keys().copied().collect()
    }
}

/// Each node's watch: in order, and not while it is cut.
#[derive(Debug)]
pub(crate) struct Links(Vec<Link>);

/// One node's watch.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    up: bool,
    /// What was sent on an earlier connection never arrives.
    session: u32,
    /// Nothing overtakes what was sent before.
    last: Moment,
}

impl Links {
    /// So many nodes, none connected yet.
    pub(crate) fn new(nodes: usize) -> Self {
        Self(vec![Link::default(); nodes])
    }

    /// The connection breaks.
    pub(crate) fn cut(&mut self, node: usize) {
        if let Some(link) = self.0.get_mut(node) {
            link.up = false;
            link.session += 1;
        }
    }

    /// A new connection.
    pub(crate) fn connect(&mut self, node: usize) {
        self.cut(node);
        if let Some(link) = self.0.get_mut(node) {
            link.up = true;
        }
    }

    /// Is it connected?
    pub(crate) fn is_up(&self, node: usize) -> bool {
        self.0.get(node).is_some_and(|link| link.up)
    }

    /// Sends something at `at`: when it arrives, and by which connection. `None`: nobody listens.
    pub(crate) fn send(&mut self, node: usize, at: Moment) -> Option<(Moment, u32)> {
        let link = self.0.get_mut(node).filter(|link| link.up)?;
        link.last = link.last.max(at);
        Some((link.last, link.session))
    }

    /// Does what was sent by this connection still arrive?
    pub(crate) fn delivers(&self, node: usize, session: u32) -> bool {
        self.0.get(node).is_some_and(|link| link.up && link.session == session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_grow_over_deletion_and_hints_name_the_holder_last_written() {
        let vip = IpAddr::from([10, 0, 1, 1]);
        let mut api = Api::default();
        api.create(vip, Nodes::All, false);
        let first = api.read(vip).unwrap().revision;
        api.report(vip, 0, true, true);
        api.report(vip, 1, true, true);
        api.report(vip, 0, false, false);
        assert_eq!(api.read(vip).unwrap().holders_hint, [node_name(1)]);
        api.delete(vip);
        assert_eq!(api.read(vip), None);
        api.create(vip, Nodes::Listed([node_name(2)].into()), false);
        let spec = api.read(vip).unwrap();
        assert!(spec.revision > first && spec.holders_hint.is_empty());
        assert!(spec.nodes.contains(&node_name(2)) && !spec.nodes.contains(&node_name(1)));
    }

    #[test]
    fn a_watch_keeps_order_and_a_broken_one_delivers_nothing() {
        let at = std::time::Duration::from_millis;
        let mut links = Links::new(1);
        assert_eq!(links.send(0, at(1)), None);
        links.connect(0);
        let (first, session) = links.send(0, at(50)).unwrap();
        let (second, _) = links.send(0, at(20)).unwrap();
        assert!(second >= first && links.delivers(0, session));
        links.cut(0);
        links.connect(0);
        assert!(!links.delivers(0, session));
    }
}
