//! LoadBalancerIPs, kept whole (but for managedFields): an update puts the whole object back, users' labels included.

use std::net::IpAddr;

use herald_crds::{ClaimRef, LoadBalancerIP, Sharing};
use herald_ipam::{
    AddressRecord, Claim, Owner, PoolName, ServiceRef, SharingKey, Terms, Uid, Version, parse_address,
};

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
            sharing: spec.sharing.as_ref().map(terms),
            terminating: self.object.metadata.deletion_timestamp.is_some(),
        }
    }

    /// Whether some node answers for it.
    pub fn is_held(&self) -> bool {
        self.object.status.as_ref().is_some_and(|status| !status.holders.is_empty())
    }
}

/// Who it is reserved for. (The schema has it that there is a name or a key.)
fn claim(claim: &ClaimRef) -> Claim {
    match (&claim.name, &claim.sharing_key) {
        (Some(name), _) => Claim::Service(ServiceRef::new(&claim.namespace, name)),
        (None, key) => Claim::Key {
            namespace: claim.namespace.as_str().into(),
            key: SharingKey::new(key.as_deref().unwrap_or_default()),
        },
    }
}

fn terms(sharing: &Sharing) -> Terms {
    Terms { namespace: sharing.namespace.as_deref().map(Into::into), key: SharingKey::new(&sharing.key) }
}

/// A Service that the object lists.
pub fn owner(service: &herald_crds::ServiceRef) -> Owner {
    Owner { service: ServiceRef::new(&service.namespace, &service.name), uid: Uid::new(&service.uid) }
}
