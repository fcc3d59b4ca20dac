//! Objects for tests, and the sharing rule in the words of the documentation.

use std::collections::BTreeSet;

use super::*;

/// `web` is `default/web`.
pub(crate) fn service(name: &str) -> ServiceRef {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    ServiceRef::new(namespace, name)
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn pool(name: &str, addresses: &[&str]) -> PoolSpec {
    PoolSpec {
        name: PoolName::new(name),
        created: CreatedAt(0),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        excluded: Vec::new(),
        of_nodes: BTreeSet::new(),
        avoid_buggy_ips: false,
        auto_assign: true,
        allocation: None,
        reclaim: ReclaimPolicy::Delete,
        sharing: SharingPreference::WhenFull,
        sharing_scope: SharingScope::Namespace,
        limit_per_namespace: None,
    }
}

/// These TCP ports, of pods of its own, from any node.
pub(crate) fn exposure(ports: &[u16]) -> Exposure {
    let ports = ports.iter().map(|number| Port { protocol: Protocol::Tcp, number: *number });
    Exposure { ports: ports.collect(), ..Default::default() }
}

/// The same from nodes with pods of this name only.
pub(crate) fn local(ports: &[u16], pods: &str) -> Exposure {
    let selector = [("app".to_owned(), pods.to_owned())].into();
    Exposure { local: true, selector, ..exposure(ports) }
}

/// The rule in the words of the documentation: same key, one namespace unless the pool opens it, no port in common,
/// and the same pods where one of the two is Local.
pub(crate) fn may_share(one: &ServiceRequest, other: &ServiceRequest, open: bool) -> bool {
    let key = |it: &ServiceRequest| it.wanted.as_ref().ok().and_then(|wanted| wanted.sharing.clone());
    let same_key = key(one).is_some() && key(one) == key(other);
    let namespace = open || one.owner.service.namespace == other.owner.service.namespace;
    let ports = one.exposure.ports.is_disjoint(&other.exposure.ports);
    let cluster = !one.exposure.local && !other.exposure.local;
    let pods =
        cluster || (!one.exposure.selector.is_empty() && one.exposure.selector == other.exposure.selector);
    same_key && namespace && ports && pods
}

pub(crate) fn anything() -> Wanted {
    Wanted::default()
}

pub(crate) fn addresses(addresses: &[&str]) -> Wanted {
    Wanted { addresses: addresses.iter().map(|text| ip(text)).collect(), ..Default::default() }
}

pub(crate) fn from_pool(pool: &str) -> Wanted {
    Wanted { pool: Some(PoolName::new(pool)), ..Default::default() }
}

pub(crate) fn sharing(key: &str, wanted: Wanted) -> Wanted {
    Wanted { sharing: Some(SharingKey::new(key)), ..wanted }
}

pub(crate) const V4: Families =
    Families { policy: FamilyPolicy::SingleStack, primary: Family::V4, dual: false };
pub(crate) const V6: Families =
    Families { policy: FamilyPolicy::SingleStack, primary: Family::V6, dual: false };
pub(crate) const PREFER: Families =
    Families { policy: FamilyPolicy::PreferDualStack, primary: Family::V4, dual: true };
pub(crate) const REQUIRE: Families =
    Families { policy: FamilyPolicy::RequireDualStack, primary: Family::V4, dual: true };
