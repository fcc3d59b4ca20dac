//! Nodes and namespaces: names and labels, and of a node the addresses that it has.

use std::{collections::BTreeSet, net::IpAddr};

use herald_ipam::Labels;
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::{Resource, api::ObjectMeta};
use serde::Deserialize;

/// What is decoded of a Node: the rest (images, conditions, capacities) is many times larger.
#[derive(Clone, Debug, Default, Deserialize, Resource)]
#[resource(inherit = Node)]
pub struct NodeObject {
    #[serde(deserialize_with = "super::lean_metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    addresses: Vec<NodeAddress>,
}

#[derive(Clone, Debug, Deserialize)]
struct NodeAddress {
    #[serde(rename = "type")]
    kind: String,
    address: String,
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

/// A Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownNode {
    /// Its name and labels.
    pub labelled: Labelled,
    /// `status.addresses` that are its own, InternalIP and ExternalIP, as far as they are addresses.
    pub addresses: BTreeSet<IpAddr>,
}

impl From<NodeObject> for KnownNode {
    fn from(NodeObject { metadata, status }: NodeObject) -> Self {
        let addresses = status.addresses.iter().filter_map(|it| own_address(&it.kind, &it.address)).collect();
        Self { labelled: metadata.into(), addresses }
    }
}

/// An entry of a Node's `status.addresses`, if it is an address of the node's own.
pub fn own_address(kind: &str, address: &str) -> Option<IpAddr> {
    matches!(kind, "InternalIP" | "ExternalIP").then(|| herald_ipam::parse_address(address).ok())?
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(status: &serde_json::Value) -> Vec<String> {
        let object = json!({"metadata": {"name": "n1"}, "status": status});
        let node = KnownNode::from(serde_json::from_value::<NodeObject>(object).unwrap());
        node.addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_nodes_own_addresses_are_read_and_nothing_else_is() {
        let addresses = json!([
            {"type": "InternalIP", "address": "192.0.2.1"}, {"type": "ExternalIP", "address": "2001:DB8::1"},
            {"type": "Hostname", "address": "192.0.2.9"}, {"type": "InternalIP", "address": "nonsense"},
        ]);
        assert_eq!(read(&json!({"addresses": addresses, "images": [{}]})), ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(read(&json!({})), [""; 0]);
    }
}
