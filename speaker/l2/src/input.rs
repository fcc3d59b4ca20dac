//! What the core is told: frames, interfaces, specs, the node's own state.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use herald_wire::{MacAddr, Revision};
use ipnet::IpNet;

use crate::config::NodeName;

/// Something happened outside the core.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// A whole Ethernet frame, as received on an interface. Anything may be in it.
    Frame {
        /// Where it came in.
        ifindex: u32,
        /// From the destination address on, without the frame check sequence.
        bytes: &'a [u8],
    },
    /// The complete list of interfaces, each time anything about any of them changes.
    Interfaces(Vec<Interface>),
    /// A consistent list of all specs: what is missing from it was deleted (rule A42).
    SpecsReplaced(Vec<Arc<VipSpec>>),
    /// A spec is new or has changed.
    SpecApplied(Arc<VipSpec>),
    /// A spec was deleted; the address is kept for 2 s in case it returns (rule A42).
    SpecDeleted(IpAddr),
    /// This node's own Node object.
    Node(NodeState),
    /// Stop (rule A44): for a restart that moves nothing, or, where this node may hold nothing or is cordoned, as
    /// [`Self::Leave`]. Go on driving the core until [`crate::Event::ShutdownComplete`].
    Shutdown,
    /// Hand everything over and stop: this node's speaker will not be back. Go on driving the core as above.
    Leave,
}

/// One network interface as the kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's index.
    pub ifindex: u32,
    /// `eth0`
    pub name: String,
    /// Its own MAC address: the source of every frame sent there.
    pub mac: MacAddr,
    /// Up, running and with a link.
    pub carrier: bool,
    /// Bytes, without the Ethernet header.
    pub mtu: u32,
    /// Part of a bridge, bond or team: never used itself (rule A50).
    pub has_master: bool,
    /// Global and link-local addresses with their prefixes. Leave out tentative IPv6 addresses, and addresses that
    /// are VIPs themselves (kube-ipvs0 is another interface anyway).
    pub addresses: Vec<IpNet>,
    /// Next hop of the IPv4 default route over this interface.
    pub gateway_v4: Option<Ipv4Addr>,
    /// Next hop of the IPv6 default route over this interface.
    pub gateway_v6: Option<Ipv6Addr>,
    /// Metric of the default route over this interface, of either family: the lower wins when several
    /// interfaces would do (rule A50). `u32::MAX` without one.
    pub metric: u32,
}

/// The announce part of one `LoadBalancerIP`, as its speaker last read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipSpec {
    /// The address.
    pub vip: IpAddr,
    /// `spec.revision`: the greater one is newer.
    pub revision: Revision,
    /// Which nodes may hold it.
    pub nodes: Nodes,
    /// Names of the interfaces it may be announced on; empty: any.
    pub interfaces: Vec<String>,
    /// Weights; a node that is not named has 0.
    pub preferred: Vec<(NodeName, i32)>,
    /// Probe for a foreign owner before the very first claim (RFC 5227, 150 ms).
    pub conflict_detection: bool,
    /// Every node bears the exclude label, so that it means nothing: [`NodeState::excluded`] does not count here.
    pub ignore_exclusion: bool,
    /// The nodes that `status.holders` named when this was read: a hint at start (rule A31).
    pub holders_hint: Vec<NodeName>,
}

/// `spec.announce.l2.nodes`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nodes {
    /// Every node.
    All,
    /// These and no others; none at all is legitimate. Shared, because thousands of addresses name the same nodes.
    Listed(Arc<[NodeName]>),
}

impl Nodes {
    /// May the node of this name hold the address?
    pub fn contains(&self, name: &NodeName) -> bool {
        match self {
            Self::All => true,
            Self::Listed(names) => names.contains(name),
        }
    }
}

/// What this node's own Node object says (rule A29).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeState {
    /// `spec.unschedulable`: claims only what no other node takes.
    pub cordoned: bool,
    /// Label `node.kubernetes.io/exclude-from-external-load-balancers`: holds nothing but what ignores it.
    pub excluded: bool,
    /// Taint `node.kubernetes.io/out-of-service` or condition `NetworkUnavailable`: holds nothing.
    pub out_of_service: bool,
}
