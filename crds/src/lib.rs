//! The API kinds of `heraldlb.io/v1beta1` as Rust types.
//!
//! This crate owns the shape of what users write and read: the three kinds [`IPAddressPool`],
//! [`L2Advertisement`] and [`LoadBalancerIP`], the names of the annotations, labels and conditions that
//! Herald puts on objects, and the rule that gives a [`LoadBalancerIP`] its name. The manifests in
//! `crds/manifests/` are made from these types by `cargo xtask crds` and checked to be up to date.
//!
//! Validation that a single object allows is CEL inside the CRD (no webhook, no certificates). What CEL cannot
//! see (overlap between pools, unknown references, the order of the two ends of a range) is the controller's:
//! it becomes a condition on the object that is wrong.
#![expect(unreachable_pub, reason = "the KubeSchema derive repeats each struct inside a function")]

pub mod names;

mod l2advertisement;
mod loadbalancerip;
mod pool;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

pub use l2advertisement::{
    L2Advertisement, L2AdvertisementSpec, L2AdvertisementStatus, PreferredNodeSelector,
};
pub use loadbalancerip::{
    Announce, ClaimRef, Holder, L2Announce, LbipNameError, LoadBalancerIP, LoadBalancerIPSpec,
    LoadBalancerIPStatus, NodeInterfaces, NodeMode, NodeSet, PreferredNode, ServiceRef, Sharing,
    address_from_name, name_of_address,
};
pub use pool::{
    ConflictDetection, IPAddressPool, IPAddressPoolSpec, IPAddressPoolStatus, ReclaimPolicy,
    ServiceAllocation, SharingPreference, SharingScope,
};

/// Grows with every change of a CRD. It stands on each of them ([`names::CRD_VERSION_ANNOTATION`]).
pub const CRD_VERSION: u32 = 5;

/// Every CRD of this crate, in the order in which they should be applied, with the annotations that keep them
/// when a Helm release is removed: a deleted CRD deletes every address with it.
pub fn all() -> Vec<CustomResourceDefinition> {
    [IPAddressPool::crd(), L2Advertisement::crd(), LoadBalancerIP::crd()]
        .into_iter()
        .map(|mut crd| {
            let annotations = crd.metadata.annotations.get_or_insert_default();
            annotations.insert("helm.sh/resource-policy".to_owned(), "keep".to_owned());
            annotations.insert(names::CRD_VERSION_ANNOTATION.to_owned(), CRD_VERSION.to_string());
            crd
        })
        .collect()
}
