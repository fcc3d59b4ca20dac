//! IPAddressPools.

use std::{collections::BTreeSet, net::IpAddr};

use herald_crds::{
    IPAddressPool, IPAddressPoolSpec, IPAddressPoolStatus, ReclaimPolicy, SharingPreference, SharingScope,
};
use herald_ipam::{AddressRange, CreatedAt, Labels, PoolName, PoolSpec, ServiceAllocation, Version};
use kube::{Resource, api::ObjectMeta};
use serde::Deserialize;

use super::{SpecError, Stored, selector};

/// What the watch decodes of an IPAddressPool.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = IPAddressPool)]
pub struct PoolObject {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Stored<IPAddressPoolSpec>,
    status: Option<Stored<IPAddressPoolStatus>>,
}

/// A pool as written, with its status as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// `metadata.name`.
    pub name: PoolName,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub version: Version,
    /// `metadata.generation`, for the conditions' observedGeneration.
    pub generation: Option<i64>,
    /// `metadata.creationTimestamp`.
    pub created: CreatedAt,
    /// `metadata.labels`, which advertisements select by.
    pub labels: Labels,
    /// Its spec as written, if it can be read.
    pub spec: Result<IPAddressPoolSpec, SpecError>,
    /// Its status as it stands, if it can be read.
    pub status: Option<IPAddressPoolStatus>,
}

impl From<IPAddressPool> for Pool {
    fn from(object: IPAddressPool) -> Self {
        let IPAddressPool { metadata, spec, status } = object;
        let status = status.map(|status| Stored(Ok(status)));
        Self::from(PoolObject { metadata, spec: Stored(Ok(spec)), status })
    }
}

impl From<PoolObject> for Pool {
    fn from(object: PoolObject) -> Self {
        let PoolObject { metadata, spec, status } = object;
        Self {
            version: super::version(&metadata),
            created: super::created(&metadata),
            generation: metadata.generation,
            name: PoolName::new(metadata.name.as_deref().unwrap_or_default()),
            uid: metadata.uid.unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default().into(),
            spec: spec.0,
            status: status.and_then(|status| status.0.ok()),
        }
    }
}

/// The addresses of a spec, read once. What can't be read in it has none.
#[derive(Debug, Default)]
pub struct Given {
    ranges: Vec<AddressRange>,
    excluded: Vec<AddressRange>,
}

impl Given {
    /// Whether the address is among them.
    pub fn has(&self, address: IpAddr) -> bool {
        let within = |ranges: &[AddressRange]| ranges.iter().any(|range| range.contains(address));
        within(&self.ranges) && !within(&self.excluded)
    }

    /// Whether it is an entry of its own, and not within a range or a network: somebody meant it.
    fn names(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| (range.first(), range.last()) == (address, address))
    }
}

impl Pool {
    /// What the spec as written has to give.
    pub fn given(&self) -> Given {
        let read = |entries: &[String]| entries.iter().filter_map(|entry| entry.parse().ok()).collect();
        let Ok(spec) = &self.spec else { return Given::default() };
        Given { ranges: read(&spec.addresses), excluded: read(&spec.excluded) }
    }

    /// The spec as the allocator core takes it in a cluster whose nodes have these addresses; or what in it means
    /// nothing. Nodes' own addresses in its ranges are left out. One that stands as an entry of its own is meant: a
    /// machine that is the whole cluster may have no other.
    pub fn meaning_among(&self, nodes: impl IntoIterator<Item = IpAddr>) -> Result<PoolSpec, SpecError> {
        let given = self.given();
        let left_out = |address: &IpAddr| given.has(*address) && !given.names(*address);
        Ok(PoolSpec { of_nodes: nodes.into_iter().filter(left_out).collect(), ..self.meaning()? })
    }

    /// The same in a cluster without nodes; or what in it means nothing.
    fn meaning(&self) -> Result<PoolSpec, SpecError> {
        let spec = self.spec.as_ref().map_err(Clone::clone)?;
        let allocation = match &spec.service_allocation {
            None => None,
            Some(allocation) => Some(ServiceAllocation {
                priority: u32::try_from(allocation.priority).unwrap_or_default(),
                namespaces: allocation.namespaces.clone(),
                namespace_selectors: selector::parse_all(
                    "spec.serviceAllocation.namespaceSelectors",
                    &allocation.namespace_selectors,
                )?,
                service_selectors: selector::parse_all(
                    "spec.serviceAllocation.serviceSelectors",
                    &allocation.service_selectors,
                )?,
            }),
        };
        Ok(PoolSpec {
            name: self.name.clone(),
            created: self.created,
            addresses: spec.addresses.clone(),
            excluded: spec.excluded.clone(),
            of_nodes: BTreeSet::new(),
            avoid_buggy_ips: spec.avoid_buggy_ips,
            auto_assign: spec.auto_assign,
            allocation,
            reclaim: match spec.reclaim_policy {
                ReclaimPolicy::Delete => herald_ipam::ReclaimPolicy::Delete,
                ReclaimPolicy::Retain => herald_ipam::ReclaimPolicy::Retain,
            },
            sharing: match spec.sharing {
                SharingPreference::WhenFull => herald_ipam::SharingPreference::WhenFull,
                SharingPreference::Prefer => herald_ipam::SharingPreference::Prefer,
            },
            sharing_scope: match spec.sharing_scope {
                SharingScope::Namespace => herald_ipam::SharingScope::Namespace,
                SharingScope::Cluster => herald_ipam::SharingScope::Cluster,
            },
            // The schema has it that it is at least 1.
            limit_per_namespace: spec.limit_per_namespace.map(|limit| u32::try_from(limit).unwrap_or(1)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_that_cannot_be_read_is_an_error_of_its_pool_alone() {
        let object = serde_json::json!({
            "metadata": {"name": "old", "resourceVersion": "7", "labels": {"net": "lan"}},
            "spec": {"addresses": ["10.0.0.0/30"], "sharing": {"mode": "Always"}},
            "status": {"assignedIPv4": 3, "conditions": []},
        });
        let pool = Pool::from(serde_json::from_value::<PoolObject>(object).unwrap());
        assert_eq!((pool.name.as_str(), pool.version), ("old", Version(7)));
        assert!(matches!(&pool.spec, Err(SpecError::Unreadable(_))), "{:?}", pool.spec);
        assert_eq!(pool.status.map(|status| status.assigned_ipv4), Some(3), "what can be read is");
        assert!(!pool.labels.is_empty());
        let none = serde_json::json!({"metadata": {"name": "none"}});
        let none = Pool::from(serde_json::from_value::<PoolObject>(none).unwrap());
        assert!(none.spec.is_err(), "no spec is none that can be read");
    }
}
