//! LoadBalancerIPs: everything that an update has to put back, users' labels included, in a form that takes little room.
//!
//! There are ten thousand of them. What must always hold: [`Address::object`] gives back all that [`Address::try_from`]
//! was given, but for what the API server alone writes (managedFields, times).

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use herald_crds::{
    Announce, ClaimRef, Holder, L2Announce, LoadBalancerIP, LoadBalancerIPSpec, LoadBalancerIPStatus,
    Sharing, name_of_address,
};
use herald_ipam::{
    AddressRecord, Claim, Owner, PoolName, ServiceRef, SharingKey, Terms, Uid, Version, parse_address,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time};
use kube::{Resource, api::ObjectMeta};
use serde::Deserialize;

/// What the watch decodes of a LoadBalancerIP.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = LoadBalancerIP)]
pub struct AddressObject {
    #[serde(deserialize_with = "super::lean_metadata")]
    metadata: ObjectMeta,
    spec: LoadBalancerIPSpec,
    #[serde(default)]
    status: Option<LoadBalancerIPStatus>,
}

/// One address as the API server has it.
#[derive(Clone, Debug)]
pub struct Address {
    /// The address it is.
    pub address: IpAddr,
    /// `metadata.resourceVersion`.
    pub version: Version,
    kept: Box<Kept>,
}

/// What is kept of one.
#[derive(Clone, Debug)]
struct Kept {
    // Shared with the allocator.
    record: Arc<AddressRecord>,
    revision: i64,
    uid: Option<Box<str>>,
    generation: Option<i64>,
    labels: Texts,
    annotations: Texts,
    announce: Option<Arc<Announce>>,
    status: Option<Box<LoadBalancerIPStatus>>,
    rare: Option<Box<Rare>>,
}

/// A map of texts, without a map's room for more.
type Texts = Option<Box<[(Box<str>, Box<str>)]>>;

/// What most objects don't have.
#[derive(Clone, Debug, Default, PartialEq)]
struct Rare {
    /// Where it is not the one that the address has.
    name: Option<String>,
    /// Where it is not the canonical text.
    text: Option<String>,
    deletion_timestamp: Option<Time>,
    finalizers: Option<Vec<String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

impl TryFrom<AddressObject> for Address {
    type Error = herald_ipam::AddressError;

    fn try_from(object: AddressObject) -> Result<Self, Self::Error> {
        let AddressObject { metadata, spec, status } = object;
        Self::try_from(LoadBalancerIP { metadata, spec, status })
    }
}

impl TryFrom<LoadBalancerIP> for Address {
    type Error = herald_ipam::AddressError;

    fn try_from(object: LoadBalancerIP) -> Result<Self, Self::Error> {
        let LoadBalancerIP { metadata, spec, status } = object;
        let address = parse_address(&spec.address)?;
        let version = super::version(&metadata);
        let rare = Rare {
            name: metadata.name.filter(|name| *name != name_of_address(address)),
            text: Some(spec.address).filter(|text| *text != address.to_string()),
            deletion_timestamp: metadata.deletion_timestamp,
            finalizers: metadata.finalizers,
            owner_references: metadata.owner_references,
        };
        let record = AddressRecord {
            address,
            version,
            pool: spec.pool.as_deref().map(PoolName::new),
            services: spec.services.iter().map(owner).collect(),
            claim: spec.claim_ref.as_ref().map(claim),
            sharing: spec.sharing.as_ref().map(terms),
            terminating: rare.deletion_timestamp.is_some(),
        };
        let kept = Kept {
            record: Arc::new(record),
            revision: spec.revision,
            uid: metadata.uid.map(Into::into),
            generation: metadata.generation,
            labels: texts(metadata.labels),
            annotations: texts(metadata.annotations),
            announce: spec.announce.map(Arc::new),
            status: status.map(|mut status| {
                status.holders.shrink_to_fit();
                Box::new(status)
            }),
            rare: Some(rare).filter(|rare| *rare != Rare::default()).map(Box::new),
        };
        Ok(Self { address, version, kept: Box::new(kept) })
    }
}

impl Address {
    /// The object: what an update begins with.
    pub fn object(&self) -> LoadBalancerIP {
        let Kept { record, revision, uid, generation, labels, annotations, announce, status, rare } =
            &*self.kept;
        let rare = rare.as_deref().cloned().unwrap_or_default();
        LoadBalancerIP {
            metadata: ObjectMeta {
                name: Some(rare.name.unwrap_or_else(|| name_of_address(self.address))),
                uid: uid.as_deref().map(ToOwned::to_owned),
                generation: *generation,
                // Without a version there is nothing to be conditional on, and the API server refuses the update.
                resource_version: (self.version != Version::default()).then(|| self.version.0.to_string()),
                labels: map(labels),
                annotations: map(annotations),
                deletion_timestamp: rare.deletion_timestamp,
                finalizers: rare.finalizers,
                owner_references: rare.owner_references,
                ..ObjectMeta::default()
            },
            spec: LoadBalancerIPSpec {
                address: rare.text.unwrap_or_else(|| self.address.to_string()),
                pool: record.pool.as_ref().map(ToString::to_string),
                revision: *revision,
                services: record.services.iter().map(service_ref).collect(),
                sharing: record.sharing.as_ref().map(sharing),
                claim_ref: record.claim.as_ref().map(claim_ref),
                announce: announce.as_deref().cloned(),
            },
            status: status.as_deref().cloned(),
        }
    }

    /// `metadata.name`: the one that its address gives it, unless it was stored before the CRD saw to that.
    pub fn name(&self) -> String {
        let rare = self.kept.rare.as_deref().and_then(|rare| rare.name.clone());
        rare.unwrap_or_else(|| name_of_address(self.address))
    }

    /// What the allocator core needs to know of it.
    pub fn record(&self) -> Arc<AddressRecord> {
        Arc::clone(&self.kept.record)
    }

    /// `spec.services`.
    pub fn users(&self) -> &[Owner] {
        &self.kept.record.services
    }

    /// `spec.pool`.
    pub fn pool(&self) -> Option<&PoolName> {
        self.kept.record.pool.as_ref()
    }

    /// `spec.revision`.
    pub fn revision(&self) -> i64 {
        self.kept.revision
    }

    /// Whether it is reserved for somebody.
    pub fn is_reserved(&self) -> bool {
        self.kept.record.claim.is_some()
    }

    /// Whether it has a `metadata.deletionTimestamp`.
    pub fn is_terminating(&self) -> bool {
        self.kept.record.terminating
    }

    /// `spec.announce.l2`.
    pub fn l2(&self) -> Option<&L2Announce> {
        self.kept.announce.as_ref()?.l2.as_ref()
    }

    /// `metadata.uid`.
    pub fn uid(&self) -> Option<&str> {
        self.kept.uid.as_deref()
    }

    /// `metadata.generation`, for the conditions' observedGeneration.
    pub fn generation(&self) -> Option<i64> {
        self.kept.generation
    }

    /// `status.conditions`.
    pub fn conditions(&self) -> &[Condition] {
        self.kept.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default()
    }

    /// `status.holders`.
    pub fn holders(&self) -> &[Holder] {
        self.kept.status.as_ref().map(|status| status.holders.as_slice()).unwrap_or_default()
    }

    /// Whether some node answers for it.
    pub fn is_held(&self) -> bool {
        !self.holders().is_empty()
    }

    /// Says the same of announcing as `other` does, in the same place: most addresses do, and some name 250 nodes.
    pub fn share_announce(&mut self, other: &Self) {
        if self.kept.announce == other.kept.announce {
            self.kept.announce.clone_from(&other.kept.announce);
        }
    }
}

fn texts(map: Option<BTreeMap<String, String>>) -> Texts {
    map.map(|map| map.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
}

fn map(texts: &Texts) -> Option<BTreeMap<String, String>> {
    let texts = texts.as_deref()?;
    Some(texts.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect())
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

/// The same as the object says it.
pub fn claim_ref(claim: &Claim) -> ClaimRef {
    match claim {
        Claim::Service(service) => ClaimRef {
            namespace: service.namespace.to_string(),
            name: Some(service.name.to_string()),
            sharing_key: None,
        },
        Claim::Key { namespace, key } => {
            ClaimRef { namespace: namespace.to_string(), name: None, sharing_key: Some(key.to_string()) }
        }
    }
}

fn terms(sharing: &Sharing) -> Terms {
    Terms { namespace: sharing.namespace.as_deref().map(Into::into), key: SharingKey::new(&sharing.key) }
}

/// The same as the object says it.
pub fn sharing(terms: &Terms) -> Sharing {
    Sharing { namespace: terms.namespace.as_deref().map(ToOwned::to_owned), key: terms.key.to_string() }
}

/// A Service that the object lists.
pub fn owner(service: &herald_crds::ServiceRef) -> Owner {
    Owner { service: ServiceRef::new(&service.namespace, &service.name), uid: Uid::new(&service.uid) }
}

/// The same as the object says it.
pub fn service_ref(owner: &Owner) -> herald_crds::ServiceRef {
    herald_crds::ServiceRef {
        namespace: owner.service.namespace.to_string(),
        name: owner.service.name.to_string(),
        uid: owner.uid.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn kept(object: &Value) -> Value {
        let object: LoadBalancerIP = serde_json::from_value(object.clone()).unwrap();
        serde_json::to_value(Address::try_from(object).unwrap().object()).unwrap()
    }

    #[test]
    fn an_update_puts_back_all_that_was_there() {
        let full = json!({
            "apiVersion": "heraldlb.io/v1beta1", "kind": "LoadBalancerIP",
            "metadata": {
                "name": "fd00-10--1", "uid": "u", "resourceVersion": "4711", "generation": 3,
                "labels": {"heraldlb.io/pool": "default", "team": "shop"},
                "annotations": {"heraldlb.io/services": "shop/web", "note": "a=b, c"},
                "finalizers": ["example.com/keep"],
                "deletionTimestamp": "2026-01-01T00:00:00Z",
                "ownerReferences": [{"apiVersion": "v1", "kind": "Any", "name": "any", "uid": "o"}],
            },
            "spec": {
                "address": "fd00:10::1", "pool": "default", "revision": 9,
                "services": [{"namespace": "shop", "name": "web", "uid": "u1"}],
                "sharing": {"namespace": "shop", "key": "front"},
                "claimRef": {"namespace": "shop", "sharingKey": "front"},
                "announce": {"l2": {
                    "nodes": {"mode": "Listed", "names": ["n1", "n2"]}, "interfaces": ["eth0"],
                    "preferred": [{"node": "n2", "weight": 5}], "conflictDetection": "Disabled",
                }},
            },
            "status": {"holders": [
                {"node": "n1", "interface": "eth0", "mac": "02:00:00:00:00:01", "since": "2026-01-01T00:00:00Z"},
            ]},
        });
        assert_eq!(kept(&full), full);
        let bare = json!({
            "apiVersion": "heraldlb.io/v1beta1", "kind": "LoadBalancerIP",
            "metadata": {"name": "10.0.0.1", "resourceVersion": "1"},
            "spec": {"address": "10.0.0.1", "revision": 0, "claimRef": {"namespace": "shop", "name": "web"}},
        });
        assert_eq!(kept(&bare), bare);
    }

    #[test]
    fn a_name_and_a_text_that_are_not_canonical_are_kept() {
        let mut odd = json!({
            "apiVersion": "heraldlb.io/v1beta1", "kind": "LoadBalancerIP",
            "metadata": {"name": "odd", "resourceVersion": "1"},
            "spec": {"address": "fd00:0:0::1", "revision": 1},
        });
        assert_eq!(kept(&odd), odd);
        // What is conditional on nothing is not written.
        odd["metadata"]["resourceVersion"] = json!("none");
        assert_eq!(kept(&odd)["metadata"].get("resourceVersion"), None);
    }
}
