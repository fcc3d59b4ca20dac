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
use serde::{Deserialize, Deserializer, de::DeserializeOwned};

/// `metadata.resourceVersion` as a number; 0 when it is none.
pub fn version(metadata: &ObjectMeta) -> Version {
    Version(metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default())
}

/// What a spec says that means nothing, though the API server has it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A label selector in it.
    #[error(transparent)]
    Selector(#[from] selector::SelectorError),
    /// All of it: stored under another version of the CRD, whose schema let it pass.
    #[error(
        "the spec can't be read: {0}; it was stored under another version of the CRD: correct it (kubectl edit), or upgrade \
         Herald if a newer one wrote it"
    )]
    Unreadable(String),
}

/// A part of an object that may have been stored under another version of the CRD: what can't be decoded is an error of
/// that object, and not the end of the list that it is in.
#[derive(Clone, Debug)]
struct Stored<T>(Result<T, SpecError>);

impl<T> Default for Stored<T> {
    fn default() -> Self {
        Self(Err(SpecError::Unreadable("there is none".to_owned())))
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Stored<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Ok(Self(serde_json::from_value(value).map_err(|error| SpecError::Unreadable(error.to_string()))))
    }
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
