//! What a LoadBalancerIP should say: pure functions from its owner, its pool and where it may be announced.
//!
//! What must always hold: `revision` grows with every write that changes pool, services or announce, also over delete,
//! re-create and restart (rule B18); what users put on the object (labels, annotations, a claimRef) stays.

use std::{collections::BTreeSet, net::IpAddr};

use herald_crds::{
    Announce, L2Announce, LoadBalancerIP, LoadBalancerIPSpec, name_of_address,
    names::{POOL_LABEL, SERVICES_ANNOTATION},
};
use herald_ipam::{Claim, Owner, PoolName, Terms, Version};
use kube::api::ObjectMeta;

use crate::objects::address::{self, claim_ref, service_ref};

/// The longest value that a label can have.
const LABEL_VALUE: usize = 63;

/// The revision of the next write: above every one known, and above everything that was ever written before this
/// process knew anything, because resource versions are numbers of the same clock (rule B18).
pub fn next_revision(known: i64, newest: Version) -> i64 {
    let newest = i64::try_from(newest.0).unwrap_or(i64::MAX);
    known.saturating_add(1).max(newest)
}

/// A new object that gives `address` to `owner`. `l2`: where it may be announced, if that is known yet.
pub fn created(
    address: IpAddr,
    owner: &Owner,
    pool: &PoolName,
    l2: Option<L2Announce>,
    sharing: Option<&Terms>,
    revision: i64,
) -> LoadBalancerIP {
    let mut object = LoadBalancerIP {
        metadata: ObjectMeta { name: Some(name_of_address(address)), ..ObjectMeta::default() },
        spec: LoadBalancerIPSpec {
            address: address.to_string(),
            pool: None,
            revision: 0,
            services: Vec::new(),
            sharing: None,
            claim_ref: None,
            announce: None,
        },
        status: None,
    };
    give(&mut object, owner, pool, l2, sharing, revision);
    object
}

/// `object` with `owner` among its users. Its status is not part of the write.
pub fn given(
    mut object: LoadBalancerIP,
    owner: &Owner,
    pool: &PoolName,
    l2: Option<L2Announce>,
    sharing: Option<&Terms>,
    revision: i64,
) -> LoadBalancerIP {
    give(&mut object, owner, pool, l2, sharing, revision);
    object.status = None;
    object
}

/// `object` with the users it has, and all else as it should be now.
pub fn refreshed(
    mut object: LoadBalancerIP,
    pool: &PoolName,
    l2: Option<L2Announce>,
    sharing: Option<&Terms>,
    revision: i64,
) -> LoadBalancerIP {
    refresh(&mut object, pool, l2, sharing, revision);
    object.status = None;
    object
}

/// `object` without users, kept for Services of this name (rule B15).
pub fn reserved(mut object: LoadBalancerIP, claim: &Claim, revision: i64) -> LoadBalancerIP {
    if object.spec.claim_ref.is_none() {
        object.spec.claim_ref = Some(claim_ref(claim));
    }
    object.spec.services = Vec::new();
    object.spec.sharing = None;
    object.spec.announce = None;
    if let Some(annotations) = &mut object.metadata.annotations {
        annotations.remove(SERVICES_ANNOTATION);
    }
    renewed(object, revision)
}

/// `object` without one of its users; others share it.
pub fn left(mut object: LoadBalancerIP, owner: &Owner, revision: i64) -> LoadBalancerIP {
    object.spec.services.retain(|service| address::owner(service) != *owner);
    note_services(&mut object);
    renewed(object, revision)
}

/// A reservation, noted as one of `pool`.
pub fn filed(mut object: LoadBalancerIP, pool: &PoolName, revision: i64) -> LoadBalancerIP {
    note_pool(&mut object, pool);
    renewed(object, revision)
}

/// `object` as it is, written once more.
pub fn renewed(mut object: LoadBalancerIP, revision: i64) -> LoadBalancerIP {
    object.spec.revision = revision;
    object.status = None;
    object
}

/// Whether two objects say the same, but for the revision: then there is nothing to write.
pub fn says_the_same(one: &LoadBalancerIP, other: &LoadBalancerIP) -> bool {
    let LoadBalancerIPSpec { address, pool, revision: _, services, sharing, claim_ref, announce } = &one.spec;
    let spec = &other.spec;
    let same_spec = address == &spec.address
        && pool == &spec.pool
        && services == &spec.services
        && sharing == &spec.sharing
        && claim_ref == &spec.claim_ref
        && announce == &spec.announce;
    same_spec
        && one.metadata.labels == other.metadata.labels
        && one.metadata.annotations == other.metadata.annotations
}

/// Which of the fields that are the controller's differ.
pub fn differences(one: &LoadBalancerIP, other: &LoadBalancerIP) -> BTreeSet<&'static str> {
    let LoadBalancerIPSpec { address: _, pool, revision, services, sharing, claim_ref: _, announce } =
        &one.spec;
    let spec = &other.spec;
    let label = |object: &LoadBalancerIP| object.metadata.labels.as_ref()?.get(POOL_LABEL).cloned();
    let annotation =
        |object: &LoadBalancerIP| object.metadata.annotations.as_ref()?.get(SERVICES_ANNOTATION).cloned();
    [
        ("spec.pool", pool != &spec.pool),
        ("spec.revision", revision != &spec.revision),
        ("spec.services", services != &spec.services),
        ("spec.sharing", sharing != &spec.sharing),
        ("spec.announce", announce != &spec.announce),
        ("metadata.labels", label(one) != label(other)),
        ("metadata.annotations", annotation(one) != annotation(other)),
    ]
    .into_iter()
    .filter_map(|(field, differs)| differs.then_some(field))
    .collect()
}

fn give(
    object: &mut LoadBalancerIP,
    owner: &Owner,
    pool: &PoolName,
    l2: Option<L2Announce>,
    sharing: Option<&Terms>,
    revision: i64,
) {
    if object.spec.services.iter().all(|service| address::owner(service) != *owner) {
        object.spec.services.push(service_ref(owner));
    }
    refresh(object, pool, l2, sharing, revision);
}

fn refresh(
    object: &mut LoadBalancerIP,
    pool: &PoolName,
    l2: Option<L2Announce>,
    sharing: Option<&Terms>,
    revision: i64,
) {
    object.spec.sharing = sharing.map(address::sharing);
    // Not known yet: what stands there is still good, and who joins must not silence those who are heard (rule B11).
    if let Some(l2) = l2 {
        object.spec.announce = Some(Announce { l2: Some(l2) });
    }
    object.spec.revision = revision;
    note_pool(object, pool);
    note_services(object);
}

/// `kubectl get` shows only the first element of a list.
fn note_services(object: &mut LoadBalancerIP) {
    let named = object.spec.services.iter().map(|service| format!("{}/{}", service.namespace, service.name));
    let named = named.collect::<Vec<_>>().join(",");
    object.metadata.annotations.get_or_insert_default().insert(SERVICES_ANNOTATION.to_owned(), named);
}

fn note_pool(object: &mut LoadBalancerIP, pool: &PoolName) {
    object.spec.pool = Some(pool.to_string());
    // A name may have 253 characters, a label's value 63; spec.pool says it in any case.
    if pool.as_str().len() <= LABEL_VALUE {
        object.metadata.labels.get_or_insert_default().insert(POOL_LABEL.to_owned(), pool.to_string());
    }
}

#[cfg(test)]
mod tests {
    use herald_crds::{ConflictDetection, NodeMode, NodeSet};
    use herald_ipam::{ServiceRef, Uid};

    use super::*;

    fn l2() -> L2Announce {
        L2Announce {
            nodes: NodeSet { mode: NodeMode::All, names: Vec::new() },
            interfaces: Vec::new(),
            per_node: Vec::new(),
            preferred: Vec::new(),
            conflict_detection: ConflictDetection::Enabled,
            ignore_node_exclusion: false,
        }
    }

    fn web() -> Owner {
        Owner { service: ServiceRef::new("shop", "web"), uid: Uid::new("u1") }
    }

    fn object() -> LoadBalancerIP {
        created("fd00:10::1".parse().unwrap(), &web(), &PoolName::new("default"), Some(l2()), None, 7)
    }

    #[test]
    fn revisions_grow_also_when_nothing_is_remembered() {
        assert_eq!(next_revision(0, Version(48_211)), 48_211);
        assert_eq!(next_revision(48_211, Version(48_211)), 48_212);
        assert_eq!(next_revision(90_000, Version(48_211)), 90_001);
        assert_eq!(next_revision(1, Version(u64::MAX)), i64::MAX);
    }

    #[test]
    fn a_new_object_has_the_one_name_of_its_address() {
        let object = object();
        assert_eq!(object.metadata.name.as_deref(), Some("fd00-10--1"));
        assert_eq!(object.spec.address, "fd00:10::1");
        assert_eq!(object.spec.services[0].uid, "u1");
        assert_eq!(object.metadata.labels.unwrap()[POOL_LABEL], "default");
    }

    #[test]
    fn a_reservation_keeps_what_users_wrote_and_drops_what_was_ours() {
        let mut object = object();
        object.metadata.labels.as_mut().unwrap().insert("team".to_owned(), "shop".to_owned());
        let reserved = reserved(object, &Claim::Service(web().service), 8);
        assert_eq!(reserved.metadata.labels.as_ref().unwrap()["team"], "shop");
        assert!(reserved.spec.services.is_empty() && reserved.spec.announce.is_none());
        assert_eq!(reserved.spec.claim_ref.as_ref().unwrap().name.as_deref(), Some("web"));
        let again = given(reserved, &web(), &PoolName::new("default"), Some(l2()), None, 9);
        assert!(again.spec.claim_ref.is_some(), "a reservation outlives its use");
    }

    #[test]
    fn a_revision_alone_is_no_reason_to_write() {
        let one = object();
        let mut other = one.clone();
        other.spec.revision = 99;
        assert!(says_the_same(&one, &other));
        other.spec.services.clear();
        assert!(!says_the_same(&one, &other));
    }
}
