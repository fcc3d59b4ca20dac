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

use herald_ipam::{CreatedAt, Version};
use kube::api::ObjectMeta;

/// `metadata.resourceVersion` as a number; 0 when it is none.
pub fn version(metadata: &ObjectMeta) -> Version {
    Version(metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default())
}

fn created(metadata: &ObjectMeta) -> CreatedAt {
    CreatedAt(metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()))
}
