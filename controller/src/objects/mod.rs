//! What the API server has, reduced to what decisions need: one module per kind.
//!
//! Each type here is plain data made from a decoded object, tolerant of everything that the API server lets users
//! write; what is wrong with an object is kept as a typed error beside the rest of it.

pub mod address;
pub mod advertisement;
pub mod endpoints;
pub mod node;
pub mod pool;
pub mod selector;
pub mod service;

use std::collections::BTreeMap;

use herald_ipam::{CreatedAt, Version};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::api::ObjectMeta;
use serde::{Deserialize, Deserializer};

/// `metadata.resourceVersion` as a number; 0 when it is none.
pub fn version(metadata: &ObjectMeta) -> Version {
    Version(metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default())
}

/// Reads an object's metadata without managedFields, which are larger than all the rest and a tree when decoded.
fn lean_metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Lean {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        generation: Option<i64>,
        creation_timestamp: Option<Time>,
        deletion_timestamp: Option<Time>,
        labels: Option<BTreeMap<String, String>>,
        annotations: Option<BTreeMap<String, String>>,
        finalizers: Option<Vec<String>>,
        owner_references: Option<Vec<OwnerReference>>,
    }
    let lean = Lean::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: lean.name,
        namespace: lean.namespace,
        uid: lean.uid,
        resource_version: lean.resource_version,
        generation: lean.generation,
        creation_timestamp: lean.creation_timestamp,
        deletion_timestamp: lean.deletion_timestamp,
        labels: lean.labels,
        annotations: lean.annotations,
        finalizers: lean.finalizers,
        owner_references: lean.owner_references,
        ..ObjectMeta::default()
    })
}

fn created(metadata: &ObjectMeta) -> CreatedAt {
    CreatedAt(metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()))
}
