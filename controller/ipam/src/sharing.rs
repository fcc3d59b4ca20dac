//! When Services may share an address, and whom a reservation admits.
//!
//! The rule, for two users of one address: both name the same key; both are of one namespace, unless the pool opens
//! sharing to the cluster; they have no port of one protocol in common; and where one of them has
//! `externalTrafficPolicy: Local`, both select the same pods (else a node with pods of the one would drop the
//! traffic of the other). It is in [`conflict`] and nowhere else; who has which address is not known here.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::{Labels, Owner, ServiceRef, ServiceRequest};

/// What all who share an address must name: the annotation `allow-shared-ip`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SharingKey(Arc<str>);

/// `LoadBalancerIP.spec.sharing`: on which terms others may join.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Terms {
    /// The namespace that may; `None` where any may.
    pub namespace: Option<Arc<str>>,
    /// The key that they must name.
    pub key: SharingKey,
}

/// `LoadBalancerIP.spec.claimRef`: who an address is reserved for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// One Service, by name.
    Service(ServiceRef),
    /// Services of a namespace that share under a key.
    Key {
        /// The namespace.
        namespace: Arc<str>,
        /// The key.
        key: SharingKey,
    },
}

/// `spec.ports[].protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// One of `spec.ports`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// `protocol`.
    pub protocol: Protocol,
    /// `port`.
    pub number: u16,
}

/// What a Service does with its address, as far as it matters to those who share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exposure {
    /// `spec.ports`.
    pub ports: BTreeSet<Port>,
    /// Whether `spec.externalTrafficPolicy` is Local.
    pub local: bool,
    /// `spec.selector`.
    pub selector: Labels,
}

/// Who may share an address of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SharingScope {
    /// Services of one namespace.
    #[default]
    Namespace,
    /// Any.
    Cluster,
}

/// When a Service joins an address of a pool rather than take a free one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SharingPreference {
    /// When no pool has a free one.
    #[default]
    WhenFull,
    /// Whenever there is one to join.
    Prefer,
}

/// Why a Service can't share an address with another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShareNo {
    /// Nobody who has the address names a key (any more).
    NoKey,
    /// It names another key than those who share the address, or none.
    Key {
        /// Theirs; nobody of another namespace is told.
        theirs: Option<SharingKey>,
    },
    /// The other is of another namespace, and the pool does not open sharing.
    Namespace,
    /// Both use this port.
    Port(Port),
    /// One of them has `externalTrafficPolicy: Local`, and they do not select the same pods.
    Pods,
    /// No more fit into one object.
    Crowded,
}

/// As many Services as one LoadBalancerIP can list (its schema's limit).
pub(crate) const USERS: usize = 64;

impl SharingKey {
    /// Longer keys are refused: they stand in objects.
    pub const LONGEST: usize = 253;

    /// A key as it stands in the annotation, blanks around it removed.
    pub fn new(key: &str) -> Self {
        Self(key.into())
    }

    /// The key itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Claim {
    /// Whether the address is reserved for this Service.
    pub fn admits(&self, service: &ServiceRef, key: Option<&SharingKey>) -> bool {
        match self {
            Self::Service(named) => named == service,
            Self::Key { namespace, key: named } => *namespace == service.namespace && Some(named) == key,
        }
    }

    /// The claim that keeps an address for those who come after `service`: for its name, or for the key under which
    /// it could be shared (rule B15).
    pub(crate) fn after(service: &ServiceRef, key: Option<&SharingKey>) -> Self {
        match key {
            None => Self::Service(service.clone()),
            Some(key) => Self::Key { namespace: service.namespace.clone(), key: key.clone() },
        }
    }

    pub(crate) fn namespace(&self) -> &Arc<str> {
        match self {
            Self::Service(service) => &service.namespace,
            Self::Key { namespace, .. } => namespace,
        }
    }
}

/// Why one Service can't join another's address: rule B4, between two.
pub(crate) fn apart(one: &ServiceRequest, other: &ServiceRequest, scope: SharingScope) -> Option<ShareNo> {
    if one.key().is_none() || one.key() != other.key() {
        return Some(other_key(one, &other.owner, other.key(), scope));
    }
    conflict(one, other, scope)
}

/// That `theirs` is not the key of `one`. It is told to its own namespace only: where a pool is open to the cluster, it is
/// all that keeps a stranger from joining.
pub(crate) fn other_key(
    one: &ServiceRequest,
    other: &Owner,
    theirs: Option<&SharingKey>,
    scope: SharingScope,
) -> ShareNo {
    let same = other.service.namespace == one.owner.service.namespace;
    match scope {
        SharingScope::Namespace if !same => ShareNo::Namespace,
        _ if theirs.is_none() => ShareNo::NoKey,
        _ => ShareNo::Key { theirs: theirs.filter(|_| same).cloned() },
    }
}

/// Why two Services whose keys agree can't have one address.
pub(crate) fn conflict(one: &ServiceRequest, other: &ServiceRequest, scope: SharingScope) -> Option<ShareNo> {
    if scope == SharingScope::Namespace && one.owner.service.namespace != other.owner.service.namespace {
        return Some(ShareNo::Namespace);
    }
    let (one, other) = (&one.exposure, &other.exposure);
    if let Some(port) = one.ports.intersection(&other.ports).next() {
        return Some(ShareNo::Port(*port));
    }
    // Without a selector the endpoints are somebody's who writes them: nobody knows whether they are the same.
    let same_pods = one.selector == other.selector && !one.selector.is_empty();
    ((one.local || other.local) && !same_pods).then_some(ShareNo::Pods)
}

impl fmt::Display for SharingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        };
        write!(f, "{protocol} {}", self.number)
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(service) => write!(f, "{service}"),
            Self::Key { namespace, key } => {
                write!(f, "Services of namespace {namespace} with the key '{key}'")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CreatedAt, Families, Family, FamilyPolicy, Owner, Uid, Version, Wanted};

    fn request(namespace: &str, ports: &[(Protocol, u16)], local: bool, app: Option<&str>) -> ServiceRequest {
        let ports = ports.iter().map(|(protocol, number)| Port { protocol: *protocol, number: *number });
        let selector = app.map(|app| ("app".to_owned(), app.to_owned())).into_iter().collect();
        ServiceRequest {
            owner: Owner { service: ServiceRef::new(namespace, "x"), uid: Uid::new("u") },
            version: Version(1),
            created: CreatedAt(0),
            labels: Labels::new(),
            families: Families { policy: FamilyPolicy::SingleStack, primary: Family::V4, dual: false },
            wanted: Ok(Wanted::default()),
            exposure: Exposure { ports: ports.collect(), local, selector },
            shown: Vec::new(),
            terminating: false,
        }
    }

    /// COMPAT 4.4: no (protocol, port) in common; one namespace unless the pool opens it; Local needs the same pods.
    #[test]
    fn two_services_share_where_nothing_of_them_collides() {
        use Protocol::{Sctp, Tcp, Udp};
        use SharingScope::{Cluster, Namespace};
        let web = || request("shop", &[(Tcp, 80), (Tcp, 443)], false, Some("web"));
        let local = || request("shop", &[(Tcp, 80)], true, Some("web"));
        let port = |protocol, number| Some(ShareNo::Port(Port { protocol, number }));
        for (one, other, scope, why_not) in [
            (web(), request("shop", &[(Udp, 80), (Sctp, 443)], false, Some("dns")), Namespace, None),
            (web(), request("shop", &[(Tcp, 8080), (Tcp, 443)], false, None), Namespace, port(Tcp, 443)),
            (web(), request("bank", &[(Udp, 53)], false, None), Namespace, Some(ShareNo::Namespace)),
            (web(), request("bank", &[(Udp, 53)], false, None), Cluster, None),
            (web(), request("bank", &[(Tcp, 80)], false, None), Cluster, port(Tcp, 80)),
            (local(), request("shop", &[(Udp, 80)], true, Some("web")), Namespace, None),
            (local(), request("shop", &[(Udp, 80)], false, Some("web")), Namespace, None),
            (local(), request("shop", &[(Udp, 80)], true, Some("dns")), Namespace, Some(ShareNo::Pods)),
            (local(), request("shop", &[(Udp, 80)], false, Some("dns")), Namespace, Some(ShareNo::Pods)),
            (
                request("shop", &[(Tcp, 1)], true, None),
                request("shop", &[(Tcp, 2)], true, None),
                Namespace,
                Some(ShareNo::Pods),
            ),
        ] {
            assert_eq!(conflict(&one, &other, scope), why_not, "{one:?} {other:?}");
            assert_eq!(conflict(&other, &one, scope), why_not, "{other:?} {one:?}");
        }
    }

    #[test]
    fn a_claim_admits_whom_it_names() {
        let (web, key, other) = (ServiceRef::new("shop", "web"), SharingKey::new("k"), SharingKey::new("o"));
        let named = Claim::Service(web.clone());
        let shared = Claim::Key { namespace: "shop".into(), key: key.clone() };
        for (claim, service, with, admits) in [
            (&named, web.clone(), None, true),
            (&named, web.clone(), Some(&key), true),
            (&named, ServiceRef::new("bank", "web"), None, false),
            (&shared, ServiceRef::new("shop", "any"), Some(&key), true),
            (&shared, web.clone(), None, false),
            (&shared, web.clone(), Some(&other), false),
            (&shared, ServiceRef::new("bank", "web"), Some(&key), false),
        ] {
            assert_eq!(claim.admits(&service, with), admits, "{claim} {service} {with:?}");
        }
        assert_eq!(Claim::after(&web, None), named);
        assert_eq!(Claim::after(&web, Some(&key)), shared);
    }
}
