//! Nodes and namespaces: a name and labels are all that anybody asks of them.

use herald_ipam::Labels;
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::{Resource, api::ObjectMeta};
use serde::Deserialize;

/// What is decoded of a Node: the rest (images, addresses, conditions) is many times larger.
#[derive(Clone, Debug, Default, Deserialize, Resource)]
#[resource(inherit = Node)]
pub struct NodeObject {
    #[serde(deserialize_with = "super::lean_metadata")]
    metadata: ObjectMeta,
}

/// What is decoded of a Namespace.
#[derive(Clone, Debug, Default, Deserialize, Resource)]
#[resource(inherit = Namespace)]
pub struct NamespaceObject {
    #[serde(deserialize_with = "super::lean_metadata")]
    metadata: ObjectMeta,
}

/// A cluster-scoped object of which only the labels count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labelled {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    pub labels: Labels,
}

impl From<NodeObject> for Labelled {
    fn from(object: NodeObject) -> Self {
        object.metadata.into()
    }
}

impl From<NamespaceObject> for Labelled {
    fn from(object: NamespaceObject) -> Self {
        object.metadata.into()
    }
}

impl From<ObjectMeta> for Labelled {
    fn from(metadata: ObjectMeta) -> Self {
        Self { name: metadata.name.unwrap_or_default(), labels: metadata.labels.unwrap_or_default().into() }
    }
}
