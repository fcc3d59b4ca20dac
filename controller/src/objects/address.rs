//! LoadBalancerIPs, kept whole (but for managedFields): an update puts the whole object back, users' labels included.

use std::net::IpAddr;

use herald_crds::{ClaimRef, LoadBalancerIP};
use herald_ipam::{AddressRecord, Owner, PoolName, ServiceRef, Uid, Version, parse_address};

/// One address as the API server has it.
#[derive(Clone, Debug)]
pub struct Address {
    /// The address it is.
    pub address: IpAddr,
    /// `metadata.resourceVersion`.
    pub version: Version,
    /// The object.
    pub object: Box<LoadBalancerIP>,
}

impl TryFrom<LoadBalancerIP> for Address {
    type Error = herald_ipam::AddressError;

    fn try_from(mut object: LoadBalancerIP) -> Result<Self, Self::Error> {
        object.metadata.managed_fields = None;
        let address = parse_address(&object.spec.address)?;
        Ok(Self { address, version: super::version(&object.metadata), object: Box::new(object) })
    }
}

impl Address {
    /// What the allocator core needs to know of it.
    pub fn record(&self) -> AddressRecord {
        let spec = &self.object.spec;
        AddressRecord {
            address: self.address,
            version: self.version,
            pool: spec.pool.as_deref().map(PoolName::new),
            services: spec.services.iter().map(owner).collect(),
            claim: spec.claim_ref.as_ref().map(claim),
            terminating: self.object.metadata.deletion_timestamp.is_some(),
        }
    }

    /// Whether some node answers for it.
    pub fn is_held(&self) -> bool {
        self.object.status.as_ref().is_some_and(|status| !status.holders.is_empty())
    }
}

/// Who it is reserved for. A key that Services share stands as a name that no Service can have, as long as the
/// allocator core knows nothing of sharing: the address is reserved, and for nobody it could be given to.
fn claim(claim: &ClaimRef) -> ServiceRef {
    match (&claim.name, &claim.sharing_key) {
        (Some(name), _) => ServiceRef::new(&claim.namespace, name),
        (None, key) => {
            ServiceRef::new(&claim.namespace, &format!("sharingKey={}", key.as_deref().unwrap_or_default()))
        }
    }
}

/// A Service that the object lists.
pub fn owner(service: &herald_crds::ServiceRef) -> Owner {
    Owner { service: ServiceRef::new(&service.namespace, &service.name), uid: Uid::new(&service.uid) }
}
