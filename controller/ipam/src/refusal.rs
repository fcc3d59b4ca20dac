//! Why a Service does not get what it asks for: every reason typed, the text users read made from it here only.
//!
//! Each text names the objects and ends with what to do.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use std::sync::Arc;

use crate::{
    Addresses, Claim, Family, Owner, PoolName, PoolReason, Reason, RequestError, ServiceRef, ShareNo,
};

/// Why a Service does not have (all of) what it asks for. It keeps what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request itself is wrong.
    Invalid(RequestError),
    /// There is no pool at all.
    NoPools,
    /// The pool it names does not exist.
    UnknownPool {
        /// As named by the Service.
        pool: PoolName,
        /// Those that exist.
        known: Vec<PoolName>,
    },
    /// An address it names cannot be given.
    Address {
        /// The requested address.
        address: IpAddr,
        /// Why not.
        no: AddressNo,
    },
    /// The two requested addresses lie in different pools.
    DifferentPools {
        /// Each address with its pool.
        addresses: [(IpAddr, PoolName); 2],
    },
    /// No pool gives what is missing. Every pool that was looked at says why.
    NoPoolGives {
        /// The families that are missing.
        families: Vec<Family>,
        /// Those nearest to the Service first ([`PoolNo::distance`]), among equals in the order in which they were asked.
        pools: Vec<(PoolName, PoolNo)>,
    },
    /// The Service shows an address that Herald has not given, and would not give (rule B2). It stays untouched
    /// and is not announced.
    AdoptionRefused {
        /// The address in its status.
        address: IpAddr,
        /// Why Herald would not give it.
        no: Box<Refusal>,
    },
    /// The Service is being deleted: it is given nothing new.
    Terminating,
    /// Nothing is missing, but an address it has is in no pool any more. It keeps it.
    OutsidePools {
        /// The address.
        address: IpAddr,
        /// The pool it was taken from.
        pool: Option<PoolName>,
    },
    /// Nothing is missing, but an address it has is a node's own as well. It keeps it.
    HasNodeAddress {
        /// The address.
        address: IpAddr,
    },
    /// Nothing is missing, but the pool would not give its address to this Service any more. It keeps it.
    NoLongerGranted {
        /// The address.
        address: IpAddr,
        /// Its pool.
        pool: PoolName,
        /// Why the pool would say no now.
        no: PoolNo,
    },
    /// Nothing is missing, but it shares an address with others whom it could not join now. It keeps it.
    SharingBroken {
        /// The address.
        address: IpAddr,
        /// One of the others.
        with: ServiceRef,
        /// What is wrong between the two.
        no: ShareNo,
    },
    /// The API server refused the write that takes an address.
    WriteRefused {
        /// The address.
        address: IpAddr,
        /// What the API server said.
        error: String,
    },
}

/// Why one pool says no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolNo {
    /// No free address of this family.
    Full(Family),
    /// No free address of this family, and none that others have and the Service could share.
    NoneToShare {
        /// The family.
        family: Family,
        /// One that others share under the Service's key.
        address: IpAddr,
        /// Why the Service can't join them.
        no: Box<AddressNo>,
    },
    /// The Service's namespace has as many of its addresses of this family as `limitPerNamespace` allows.
    NamespaceLimit {
        /// The family.
        family: Family,
        /// The namespace.
        namespace: Arc<str>,
        /// The limit.
        limit: u32,
    },
    /// No range of this family.
    NoRange(Family),
    /// `autoAssign: false`: gives only to those who name it.
    NotAutomatic,
    /// `serviceAllocation` names other namespaces.
    OtherNamespaces {
        /// Those it names.
        namespaces: Vec<String>,
        /// Whether it selects namespaces by label as well.
        by_selector: bool,
    },
    /// `serviceAllocation.serviceSelectors` do not match the Service's labels.
    OtherServices,
    /// Its spec is not valid, and never was.
    NeverValid,
    /// It does not exist any more.
    Deleted,
}

/// Why an address that was asked for by name cannot be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressNo {
    /// No pool contains it.
    InNoPool {
        /// Those that exist.
        pools: Vec<PoolName>,
    },
    /// It is not in the pool that the Service asks for, or in which its other address must lie.
    InOtherPool {
        /// The pool asked for.
        asked: PoolName,
        /// The pool that contains it, if one does.
        lies_in: Option<PoolName>,
    },
    /// The pool lists it under `excluded`.
    Excluded(PoolName),
    /// It is a node's own, though a pool contains it.
    OfNode(PoolName),
    /// The pool has `avoidBuggyIPs` and the address ends in .0 or .255.
    Buggy(PoolName),
    /// Its pool does not serve this Service.
    Pool(PoolName, PoolNo),
    /// Others have it.
    InUse(Vec<Owner>),
    /// Others have it who share it, but not with this Service.
    NotShareable {
        /// One of them.
        with: ServiceRef,
        /// What is wrong between the two.
        no: ShareNo,
    },
    /// It is being given back, and is free once the API server confirms that.
    BeingReleased(Vec<Owner>),
    /// A LoadBalancerIP reserves it (`claimRef`).
    Reserved(Claim),
    /// It is reserved for Services of another namespace with a key that is not to be told there: who names it joins them.
    ReservedByKey(Arc<str>),
    /// Its LoadBalancerIP is being deleted, but something (a finalizer) still holds it.
    Terminating,
    /// Its LoadBalancerIP exists, but names nobody.
    HeldByNobody,
}

/// At most this many pools or owners are listed in a text; conditions and events have limits.
const LISTED: usize = 8;

impl Refusal {
    /// The condition's reason: one word, one meaning.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Invalid(_) => Reason::InvalidRequest,
            Self::NoPools => Reason::NoPools,
            Self::UnknownPool { .. } => Reason::UnknownPool,
            Self::Address { no, .. } => no.reason(),
            Self::DifferentPools { .. } => Reason::AddressesInDifferentPools,
            Self::NoPoolGives { .. } => Reason::NoAddressAvailable,
            Self::AdoptionRefused { .. } => Reason::AdoptionRefused,
            Self::Terminating => Reason::ServiceTerminating,
            Self::OutsidePools { .. } => Reason::AddressOutsidePools,
            Self::HasNodeAddress { .. } => Reason::HasNodeAddress,
            Self::NoLongerGranted { .. } => Reason::NoLongerGranted,
            Self::SharingBroken { .. } => Reason::SharingBroken,
            Self::WriteRefused { .. } => Reason::WriteRefused,
        }
    }

    /// Whether nothing is missing: the Service has what it asks for, and something is wrong with it.
    pub fn is_complaint(&self) -> bool {
        self.reason().is_complaint()
    }

    /// Whether it is about what the Service asks for by name, and names that.
    pub fn is_about_the_request(&self) -> bool {
        self.is_invalid_request() || matches!(self, Self::Address { .. })
    }

    /// Whether the user has to change the Service (else time or an administrator may help).
    pub fn is_invalid_request(&self) -> bool {
        matches!(self, Self::Invalid(_) | Self::UnknownPool { .. } | Self::DifferentPools { .. })
    }
}

impl AddressNo {
    fn reason(&self) -> Reason {
        match self {
            Self::InNoPool { .. } => Reason::AddressInNoPool,
            Self::InOtherPool { .. } => Reason::AddressInOtherPool,
            Self::Excluded(_) | Self::Buggy(_) => Reason::AddressExcluded,
            Self::OfNode(_) => Reason::AddressOfNode,
            Self::Pool(_, PoolNo::NamespaceLimit { .. }) => Reason::NamespaceLimit,
            Self::Pool(..) => Reason::PoolNotAllowed,
            Self::InUse(_) => Reason::AddressInUse,
            Self::NotShareable { .. } => Reason::NotShareable,
            Self::BeingReleased(_) | Self::Terminating => Reason::AddressBeingReleased,
            Self::Reserved(_) | Self::ReservedByKey(_) | Self::HeldByNobody => Reason::AddressReserved,
        }
    }
}

impl PoolNo {
    /// The reason without the particulars.
    pub fn reason(&self) -> PoolReason {
        match self {
            Self::Full(_) => PoolReason::Full,
            Self::NoneToShare { .. } => PoolReason::NoneToShare,
            Self::NamespaceLimit { .. } => PoolReason::NamespaceLimit,
            Self::NoRange(_) => PoolReason::NoRange,
            Self::NotAutomatic => PoolReason::NotAutomatic,
            Self::OtherNamespaces { .. } => PoolReason::OtherNamespaces,
            Self::OtherServices => PoolReason::OtherServices,
            Self::NeverValid => PoolReason::NeverValid,
            Self::Deleted => PoolReason::Deleted,
        }
    }

    /// How far the Service is from an address of the pool: texts list a few pools only, and of a hundred pools, one for
    /// each namespace, its user has to read of the one that is theirs.
    pub(crate) fn distance(&self) -> u8 {
        match self {
            Self::Full(_) | Self::NoneToShare { .. } | Self::NamespaceLimit { .. } => 0,
            Self::NoRange(_) => 1,
            Self::NotAutomatic => 2,
            Self::OtherServices => 3,
            Self::NeverValid | Self::Deleted => 4,
            Self::OtherNamespaces { .. } => 5,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(error) => write!(f, "{error}"),
            Self::NoPools => {
                f.write_str("there is no IPAddressPool; create one with addresses of your network")
            }
            Self::UnknownPool { pool, known } if known.is_empty() => write!(
                f,
                "the pool '{pool}' does not exist, nor does any other; create an IPAddressPool (heraldlb.io) of that name"
            ),
            Self::UnknownPool { pool, known } => write!(
                f,
                "the pool '{pool}' does not exist; create it, or use one of: {}",
                Listed(known.iter().map(|name| format!("'{name}'")))
            ),
            Self::Address { address, no } => write!(f, "{address} {no}"),
            Self::DifferentPools { addresses: [(a, a_pool), (b, b_pool)] } => write!(
                f,
                "{a} lies in pool '{a_pool}' and {b} in pool '{b_pool}'; both addresses of a Service come from one \
                 pool: ask for two addresses of the same pool"
            ),
            Self::NoPoolGives { families, pools } => {
                let missing = families.iter().map(Family::to_string).collect::<Vec<_>>().join(" and ");
                let each = pools.iter().map(|(pool, no)| format!("'{pool}' {no}"));
                write!(f, "no pool gives the {missing} address: {}; {}", Listed(each), advice(pools))
            }
            Self::AdoptionRefused { address, no } => write!(
                f,
                "the Service already shows {address}, which Herald has not given and would not give: {no}; \
                 or clear status.loadBalancer to get another address"
            ),
            Self::Terminating => f.write_str(
                "the Service is being deleted and is given nothing new; if it stays like this, look for the finalizer \
                 that holds it",
            ),
            Self::OutsidePools { address, pool: Some(pool) } => write!(
                f,
                "{address} is not in pool '{pool}' any more; the Service keeps it. Put it back into a pool, or ask \
                 for another address"
            ),
            Self::OutsidePools { address, pool: None } => write!(
                f,
                "{address} is in no pool; the Service keeps it. Add it to a pool, or ask for another address"
            ),
            Self::HasNodeAddress { address } => write!(
                f,
                "{address} is a node's own address as well (kubectl get nodes -o wide); the Service keeps it. Ask for \
                 another address"
            ),
            Self::NoLongerGranted { address, pool, no } => write!(
                f,
                "{address} is of pool '{pool}', which now {no}; the Service keeps it. Admit the Service again, or ask \
                 for another address"
            ),
            Self::SharingBroken { address, with, no } => write!(
                f,
                "{address} is shared with {with}, though {no}; the Service keeps it. Undo the change, or ask for \
                 another address"
            ),
            Self::WriteRefused { address, error } => write!(
                f,
                "the API server refused to record {address}: {error}; check the controller's rights and the \
                 LoadBalancerIP CRD. Herald tries again"
            ),
        }
    }
}

impl fmt::Display for PoolNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(family) => write!(f, "has no free {family} address"),
            Self::NoneToShare { family, address, no } => {
                write!(f, "has no free {family} address, and {address} {}", no.short())
            }
            Self::NamespaceLimit { family, namespace, limit } => write!(
                f,
                "gives a namespace at most {limit} {family} addresses (limitPerNamespace), which {namespace} has"
            ),
            Self::NoRange(family) => write!(f, "has no {family} range"),
            Self::NotAutomatic => f.write_str("gives addresses only on request (autoAssign: false)"),
            Self::OtherNamespaces { namespaces, by_selector } => {
                let selected = by_selector.then(|| "those its namespaceSelectors match".to_owned());
                let all = Listed(namespaces.iter().cloned().chain(selected));
                write!(f, "is restricted to namespaces [{all}]")
            }
            Self::OtherServices => {
                f.write_str("is restricted to Services with other labels (serviceSelectors)")
            }
            Self::NeverValid => f.write_str("is not valid (its condition says why)"),
            Self::Deleted => f.write_str("does not exist any more"),
        }
    }
}

impl fmt::Display for AddressNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InNoPool { pools } if pools.is_empty() => {
                f.write_str("lies in no pool, as there is none; create an IPAddressPool that contains it")
            }
            Self::InNoPool { pools } => write!(
                f,
                "lies in no pool (looked at {}); ask for another address or add it to a pool",
                Listed(pools.iter().map(|name| format!("'{name}'")))
            ),
            Self::InOtherPool { asked, lies_in: Some(pool) } => write!(
                f,
                "lies in pool '{pool}', not in '{asked}'; correct the address-pool annotation or ask for an address \
                 of '{asked}'"
            ),
            Self::InOtherPool { asked, lies_in: None } => {
                write!(f, "does not lie in pool '{asked}'; ask for an address of '{asked}' or add it there")
            }
            Self::Excluded(pool) => write!(
                f,
                "is excluded by pool '{pool}'; ask for another address or remove it from spec.excluded"
            ),
            Self::OfNode(pool) => write!(
                f,
                "is a node's own address (kubectl get nodes -o wide), which no Service gets although a range of pool \
                 '{pool}' contains it; ask for another address"
            ),
            Self::Buggy(pool) => write!(
                f,
                "ends in .0 or .255, which pool '{pool}' avoids; ask for another address or set avoidBuggyIPs: false"
            ),
            Self::Pool(pool, no) => write!(
                f,
                "lies in pool '{pool}', which {no}; ask for an address of another pool or widen '{pool}'"
            ),
            Self::NotShareable { with, no } => write!(
                f,
                "is shared by {with}, but {no}; ask for another address or change one of the two"
            ),
            Self::InUse(owners) => write!(
                f,
                "is in use by {}; ask for another address, free it first, or share it (annotation \
                 heraldlb.io/allow-shared-ip with one key on all of them)",
                Listed(owners.iter().map(|owner| owner.service.to_string()))
            ),
            Self::BeingReleased(owners) => write!(
                f,
                "is still being released by {}; it follows by itself once that is done",
                Listed(owners.iter().map(|owner| owner.service.to_string()))
            ),
            Self::Reserved(service) => write!(
                f,
                "is reserved for {service} (claimRef of its LoadBalancerIP); ask for another address or delete the \
                 reservation"
            ),
            Self::ReservedByKey(namespace) => write!(
                f,
                "is reserved for Services of namespace {namespace} (claimRef of its LoadBalancerIP); ask for another \
                 address or delete the reservation"
            ),
            Self::Terminating => f.write_str(
                "has a LoadBalancerIP that is being deleted; it follows once that is gone: look for finalizers on it",
            ),
            Self::HeldByNobody => f.write_str(
                "has a LoadBalancerIP that names neither a Service nor a claimRef; delete that object to free it",
            ),
        }
    }
}

impl AddressNo {
    /// The reason without the advice, as a part of a sentence.
    fn short(&self) -> String {
        let text = self.to_string();
        text.split_once(';').map_or(text.clone(), |(reason, _)| reason.to_owned())
    }
}

impl fmt::Display for ShareNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key { theirs: Some(theirs) } => {
                write!(f, "the key there is '{theirs}' (annotation allow-shared-ip), not this Service's")
            }
            Self::Key { theirs: None } => {
                f.write_str("the key there (annotation allow-shared-ip) is another than this Service's")
            }
            Self::NoKey => f.write_str("no key is named there (annotation allow-shared-ip)"),
            Self::Namespace => f.write_str("the two are of different namespaces (the pool's sharingScope)"),
            Self::Port(port) => write!(f, "both use port {port}"),
            Self::Pods => f.write_str(
                "one has externalTrafficPolicy: Local, and they do not have the same, non-empty selector",
            ),
            Self::Crowded => write!(f, "{} Services share it already", crate::sharing::USERS),
        }
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Listed(self.iter().map(|address| address.to_string())))
    }
}

/// What an administrator or user can do, from the reasons the pools gave.
fn advice(pools: &[(PoolName, PoolNo)]) -> String {
    let said: BTreeSet<PoolReason> = pools.iter().map(|(_, no)| no.reason()).collect();
    let mut steps: Vec<&str> = said.into_iter().map(|reason| reason.explanation().remedy).collect();
    steps.dedup();
    steps.join("; or ")
}

/// A comma-separated list that stays short.
struct Listed<I>(I);

impl<I: Iterator<Item = String> + Clone> fmt::Display for Listed<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.clone();
        for (position, item) in rest.by_ref().take(LISTED).enumerate() {
            if position > 0 {
                f.write_str(", ")?;
            }
            f.write_str(&item)?;
        }
        match rest.count() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
