//! The API server as speakers see it: `LoadBalancerIP` objects, their holders as last written, and Nodes.
//!
//! Owns the truth about specs. Must always hold: revisions only grow (rule B18), also over deletion and re-creation.
//! Does not deliver: `world` does, each node's watch in order, with its delay, and not while it is cut.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use herald_l2::{NodeState, Nodes, Revision, VipSpec};

use crate::node::node_name;

/// What a watch says.
#[derive(Clone, Debug)]
pub enum Told {
    /// The first list, or a new one after the watch was lost.
    List(Vec<VipSpec>),
    /// One object is new or changed.
    Applied(VipSpec),
    /// One object is gone.
    Deleted(IpAddr),
    /// The node's own Node object.
    Node(NodeState),
}

/// Everything in the API server.
#[derive(Debug, Default)]
pub struct Api {
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
    pub fn create(&mut self, vip: IpAddr, nodes: Nodes, conflict_detection: bool) {
        let revision = self.next_revision();
        let spec = VipSpec {
            vip,
            revision,
            nodes,
            interfaces: Vec::new(),
            preferred: Vec::new(),
            conflict_detection,
            holders_hint: Vec::new(),
        };
        self.specs.insert(vip, spec);
        self.holders.remove(&vip);
    }

    /// Deletes it.
    pub fn delete(&mut self, vip: IpAddr) {
        self.specs.remove(&vip);
        self.holders.remove(&vip);
    }

    /// Writes another announce part, with the next revision.
    pub fn change(&mut self, vip: IpAddr, change: impl FnOnce(&mut VipSpec)) {
        let revision = self.next_revision();
        if let Some(spec) = self.specs.get_mut(&vip) {
            change(spec);
            spec.revision = revision;
        }
    }

    /// Writes a Node.
    pub fn set_node(&mut self, node: usize, state: NodeState) {
        self.nodes.insert(node, state);
    }

    /// A Node as it is.
    pub fn node(&self, node: usize) -> NodeState {
        self.nodes.get(&node).copied().unwrap_or_default()
    }

    /// A speaker writes whether it holds an address, and removes what it superseded (rule B24).
    pub fn report(&mut self, vip: IpAddr, node: usize, holds: bool) {
        if !self.specs.contains_key(&vip) {
            return;
        }
        let holders = self.holders.entry(vip).or_default();
        if holds {
            *holders = BTreeSet::from([node]);
        } else {
            holders.remove(&node);
        }
    }

    /// One object as a reader gets it now.
    pub fn read(&self, vip: IpAddr) -> Option<VipSpec> {
        let mut spec = self.specs.get(&vip)?.clone();
        spec.holders_hint =
            self.holders.get(&vip).into_iter().flatten().map(|node| node_name(*node)).collect();
        Some(spec)
    }

    /// All objects as a reader gets them now.
    pub fn list(&self) -> Vec<VipSpec> {
        self.specs.keys().filter_map(|vip| self.read(*vip)).collect()
    }

    /// The addresses there are.
    pub fn vips(&self) -> Vec<IpAddr> {
        self.specs.keys().copied().collect()
    }

    /// May this node hold the address, by what the API says?
    pub fn entitles(&self, vip: IpAddr, node: usize) -> bool {
        self.specs.get(&vip).is_some_and(|spec| spec.nodes.contains(&node_name(node)))
            && !self.node(node).excluded
    }
}
