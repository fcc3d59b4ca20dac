//! Nodes and namespaces: a name and labels are all that anybody asks of them.

use herald_ipam::Labels;
use kube::api::ObjectMeta;

/// A cluster-scoped object of which only the labels count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labelled {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    pub labels: Labels,
}

impl From<ObjectMeta> for Labelled {
    fn from(metadata: ObjectMeta) -> Self {
        Self { name: metadata.name.unwrap_or_default(), labels: metadata.labels.unwrap_or_default() }
    }
}
