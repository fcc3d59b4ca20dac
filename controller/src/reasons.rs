//! Every reason that the controller puts on an object: one word with one meaning, and the text that users read, made
//! in this place only. (Why a pool or the allocator says no is worded where it is decided: `herald_ipam::Refusal`.)
//!
//! Each text names the objects concerned and, where something is to be done, says what.

pub mod catalogue;
mod commands;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use herald_ipam::{Addresses, Family, PoolName, PoolProblem, PoolStatus, Refusal, ServiceRef};

use self::catalogue::{address, advertisement, allocated, announced, pool};
use crate::objects::SpecError;

/// The type of the one condition that the controller writes on a `LoadBalancerIP`.
pub const PROBLEM: &str = "Problem";

/// A condition's content, all but its type and times.
pub trait Verdict {
    /// Whether the condition is met.
    fn holds(&self) -> bool;
    /// The reason: one word.
    fn reason(&self) -> &'static str;
    /// What users read.
    fn message(&self) -> String;
}

/// `heraldlb.io/Allocated` on a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allocated {
    /// It has what it asks for.
    Yes {
        /// Its addresses.
        addresses: Addresses,
        /// Where they come from.
        pool: Option<PoolName>,
    },
    /// It has an address, and asks for something that it can't have.
    Otherwise {
        /// Its addresses.
        addresses: Addresses,
        /// Why not what it asks for.
        refusal: Refusal,
        /// The Service.
        service: ServiceRef,
    },
    /// It has what it asks for, but its pool would not give it any more.
    Outside(Refusal),
    /// It has none.
    Refused {
        /// Why not.
        refusal: Refusal,
        /// The Service.
        service: ServiceRef,
    },
    /// It has none yet.
    Pending,
    /// Somebody else writes its `status.loadBalancer` (rule B21).
    AnotherController {
        /// The field managers that the API server named.
        managers: String,
        /// What Herald would show.
        addresses: Addresses,
        /// The Service.
        service: ServiceRef,
    },
}

impl Verdict for Allocated {
    fn holds(&self) -> bool {
        matches!(self, Self::Yes { .. } | Self::Otherwise { .. } | Self::Outside(_))
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Yes { .. } => allocated::ALLOCATED.code,
            Self::Otherwise { .. } => allocated::REQUEST_UNMET.code,
            Self::Refused { refusal, .. } | Self::Outside(refusal) => refusal.reason().code(),
            Self::Pending => allocated::PENDING.code,
            Self::AnotherController { .. } => allocated::ANOTHER_CONTROLLER.code,
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Yes { addresses, pool: Some(pool) } => format!("{addresses} from pool '{pool}'"),
            Self::Yes { addresses, pool: None } => addresses.to_string(),
            Self::Otherwise { addresses, refusal, service } => {
                let why = helped(refusal, service);
                format!("keeps {addresses}, although it asks for something else: {why}")
            }
            Self::Refused { refusal, service } => helped(refusal, service),
            Self::Outside(refusal) => refusal.to_string(),
            Self::Pending => "an address is being taken".to_owned(),
            Self::AnotherController { managers, addresses, service } => format!(
                "{managers} writes status.loadBalancer.ingress of this Service as well, so Herald leaves it alone \
                 instead of showing {addresses}; stop the other controller (or make the Service again with its \
                 loadBalancerClass), then clear the field: {}",
                commands::clear_command(service)
            ),
        }
    }
}

/// Why, and the command that helps, if one does.
fn helped(refusal: &Refusal, service: &ServiceRef) -> String {
    match commands::command(refusal, service) {
        Some(command) => format!("{refusal}. Try: {command}"),
        None => refusal.to_string(),
    }
}

/// `heraldlb.io/Announced` on a Service. The message names no node: it would have to be written again at every move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announced {
    /// Some node answers for each of its addresses.
    Yes(Addresses),
    /// No node answers (yet) for these.
    NoHolder(Vec<IpAddr>),
    /// No node may answer for these.
    NoNodeQualifies(Vec<IpAddr>),
    /// The same, and the Service's `externalTrafficPolicy` is Local.
    NoEndpoint(Vec<IpAddr>),
    /// It has no address to announce.
    NoAddress,
}

impl Verdict for Announced {
    fn holds(&self) -> bool {
        matches!(self, Self::Yes(_))
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Yes(_) => announced::ANNOUNCED.code,
            Self::NoHolder(_) => announced::NO_HOLDER.code,
            Self::NoNodeQualifies(_) | Self::NoEndpoint(_) => announced::NO_NODE_QUALIFIES.code,
            Self::NoAddress => announced::NO_ADDRESS.code,
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Yes(addresses) => format!("a node answers for {addresses}; kubectl get lbip shows which"),
            Self::NoHolder(addresses) => format!(
                "no node answers for {} yet; if this lasts, look at the speakers' logs: is one running on a node whose \
                 interface has the address's subnet, is that node not excluded from load balancers, and is every \
                 L2Advertisement valid (kubectl get l2adv)?",
                Joined(addresses)
            ),
            Self::NoNodeQualifies(addresses) => format!(
                "no node may answer for {}: no L2Advertisement of its pool selects this Service and an existing \
                 node; see kubectl get l2adv",
                Joined(addresses)
            ),
            Self::NoEndpoint(addresses) => format!(
                "no node may answer for {}: externalTrafficPolicy is Local, and no node that may announce it has a ready \
                 endpoint; look at the Service's pods, then at kubectl get l2adv, if there is one for its pool",
                Joined(addresses)
            ),
            Self::NoAddress => "the Service has no address to announce".to_owned(),
        }
    }
}

/// `Ready` on an IPAddressPool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolReady {
    /// Its spec is in force.
    Yes,
    /// Its spec is not in force; the last good one is.
    Invalid(PoolProblem),
    /// Something in it means nothing; the last good spec is in force.
    Meaningless(SpecError),
    /// Its spec is in force, and every node that may announce it bears the label that excludes it from load balancers,
    /// which is ignored.
    AllNodesExcluded,
    /// Its spec is in force, and has nodes' own addresses: `address (node)`.
    NodeAddresses(String),
    /// Its spec is in force, but Services have addresses of it that are not in it any more.
    Stranded(String),
    /// Its spec is in force, and no address of these families is left.
    Exhausted(Vec<Family>),
}

impl PoolReady {
    /// From what the allocator says of the pool, what in its spec means nothing, the nodes whose own addresses it has,
    /// and whether all nodes that may announce it are excluded.
    pub fn of(
        status: &PoolStatus,
        spec: Option<&SpecError>,
        nodes: &BTreeMap<IpAddr, &str>,
        all_nodes_excluded: bool,
    ) -> Self {
        if let Some(error) = spec {
            return Self::Meaningless(error.clone());
        }
        if let Some(problem) = &status.problem {
            return Self::Invalid(problem.clone());
        }
        if !status.stranded.is_empty() {
            let named: Vec<String> =
                status.stranded.iter().map(|(address, service)| format!("{address} of {service}")).collect();
            return Self::Stranded(listed(&named, status.stranded_total));
        }
        if !status.exhausted.is_empty() {
            return Self::Exhausted(status.exhausted.clone());
        }
        if all_nodes_excluded {
            return Self::AllNodesExcluded;
        }
        // For information only, and lasting: it hides nothing else.
        if nodes.is_empty() {
            return Self::Yes;
        }
        let named = nodes.iter().take(LISTED).map(|(address, node)| format!("{address} ({node})"));
        Self::NodeAddresses(listed(&named.collect::<Vec<_>>(), nodes.len()))
    }
}

impl Verdict for PoolReady {
    fn holds(&self) -> bool {
        !matches!(self, Self::Invalid(_) | Self::Meaningless(_))
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Yes => pool::IN_FORCE.code,
            Self::Invalid(PoolProblem::Overlaps { .. }) => pool::OVERLAP.code,
            Self::Invalid(_) | Self::Meaningless(SpecError::Unreadable(_)) => pool::INVALID_SPEC.code,
            Self::Meaningless(SpecError::Selector(_)) => pool::INVALID_SELECTOR.code,
            Self::AllNodesExcluded => pool::ALL_NODES_EXCLUDED.code,
            Self::NodeAddresses(_) => pool::NODE_ADDRESSES.code,
            Self::Stranded(_) => pool::ADDRESSES_OUTSIDE_POOL.code,
            Self::Exhausted(_) => pool::EXHAUSTED.code,
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Yes => "the pool's spec is in force".to_owned(),
            Self::Invalid(problem) => format!("{problem}. The last valid spec, if any, stays in force"),
            Self::Meaningless(error) => format!("{error}. The last valid spec, if any, stays in force"),
            Self::AllNodesExcluded => "the pool's spec is in force; every node that may announce its addresses bears the label \
                node.kubernetes.io/exclude-from-external-load-balancers, which is therefore ignored: remove it from \
                the nodes that should announce"
                .to_owned(),
            Self::Exhausted(families) => format!(
                "the pool's spec is in force; no free {} address is left in it: add addresses, or delete Services that \
                 need none (kubectl get lbip shows who has which)",
                families.iter().map(Family::to_string).collect::<Vec<_>>().join(" and no free ")
            ),
            Self::NodeAddresses(list) => format!(
                "the pool's spec is in force; it contains nodes' own addresses: {list}. Within a range no Service gets them; one that \
                 stands as an entry of its own is given, and the Service takes its ports from the node. Leave them out of \
                 spec.addresses, or list them under spec.excluded"
            ),
            Self::Stranded(list) => format!(
                "the pool's spec is in force; outside of it Services keep {list}: they keep them until they are \
                 deleted or ask for another address"
            ),
        }
    }
}

/// How many things a message names.
const LISTED: usize = 8;

/// The first things of `total`.
fn listed(named: &[String], total: usize) -> String {
    let more = total.saturating_sub(named.len());
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    named.join(", ") + &more
}

/// `Ready` on an L2Advertisement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdvertisementReady {
    /// It selects pools that exist and, if it selects nodes, some that exist.
    Yes,
    /// Something in it means nothing; the last good spec is in force.
    Meaningless(SpecError),
    /// It names pools that don't exist.
    UnknownPools(Vec<String>),
    /// It selects no pool at all.
    NoPool,
    /// Its node selectors match no node.
    NoNode,
    /// Its node selectors match more nodes than one object can list.
    TooManyNodes(usize),
}

impl Verdict for AdvertisementReady {
    fn holds(&self) -> bool {
        matches!(self, Self::Yes)
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Yes => advertisement::IN_FORCE.code,
            Self::Meaningless(SpecError::Unreadable(_)) => advertisement::INVALID_SPEC.code,
            Self::Meaningless(SpecError::Selector(_)) => advertisement::INVALID_SELECTOR.code,
            Self::UnknownPools(_) => advertisement::UNKNOWN_POOL.code,
            Self::NoPool => advertisement::NO_POOL_SELECTED.code,
            Self::NoNode => advertisement::NO_NODE_SELECTED.code,
            Self::TooManyNodes(_) => advertisement::TOO_MANY_NODES.code,
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Yes => "the advertisement is in force".to_owned(),
            Self::Meaningless(error) => format!("{error}. The last valid spec, if any, stays in force"),
            Self::UnknownPools(names) => format!(
                "spec.ipAddressPools names pools that don't exist: {}; correct the names or create the pools",
                names.join(", ")
            ),
            Self::NoPool => {
                "spec.ipAddressPoolSelectors match no pool; correct them or label a pool".to_owned()
            }
            Self::NoNode => {
                "spec.nodeSelectors match no node, so nobody announces; correct them or label a node"
                    .to_owned()
            }
            Self::TooManyNodes(count) => format!(
                "spec.nodeSelectors match {count} nodes; {} are used, those already listed first, \
                 then by name. Select fewer, or all nodes \
                 by leaving nodeSelectors out",
                crate::announce::LISTED
            ),
        }
    }
}

/// `Problem` on a LoadBalancerIP: there only while something is wrong that no Service shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressProblem {
    /// Somebody else changed these fields, which are the controller's (rule B16).
    Edited(BTreeSet<&'static str>),
    /// It is reserved, and no pool has it.
    OutsidePools(IpAddr),
    /// It lists no Service and is reserved for none, which keeps everybody from the address.
    Unused(IpAddr),
}

impl AddressProblem {
    /// The reason of [`Self::Edited`], by which it is known again.
    pub fn edited() -> &'static str {
        address::EDITED.code
    }
}

impl Verdict for AddressProblem {
    fn holds(&self) -> bool {
        true
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Edited(_) => address::EDITED.code,
            Self::OutsidePools(_) => address::OUTSIDE_POOLS.code,
            Self::Unused(_) => address::UNUSED.code,
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Edited(fields) => format!(
                "somebody else changed {}, which herald-controller alone writes; it keeps who has the address and \
                 puts right what it can. To move a Service, ask for another address on the Service; to reserve an \
                 address, set spec.claimRef",
                fields.iter().copied().collect::<Vec<_>>().join(" and ")
            ),
            Self::OutsidePools(address) => format!(
                "no pool has {address} to give, so this reservation serves nobody; add the address to a pool \
                 (kubectl get pools), or delete this object"
            ),
            Self::Unused(address) => format!(
                "nobody has {address} and it is reserved for nobody, but while this object exists no Service \
                 gets it; delete it (kubectl delete lbip {}), or set spec.claimRef to reserve it",
                herald_crds::name_of_address(*address)
            ),
        }
    }
}

struct Joined<'a>(&'a [IpAddr]);

impl fmt::Display for Joined<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, address) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{address}")?;
        }
        Ok(())
    }
}
