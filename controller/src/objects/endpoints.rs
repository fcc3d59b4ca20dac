//! EndpointSlices, of which only counts on which nodes a Service has endpoints that take traffic.

use std::collections::BTreeSet;

use herald_ipam::{ServiceRef, Version};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Resource, api::ObjectMeta};
use serde::Deserialize;

/// The label that names a slice's Service.
const SERVICE: &str = "kubernetes.io/service-name";

/// What is decoded of an EndpointSlice: addresses and ports are skipped while reading.
#[derive(Clone, Debug, Default, Deserialize, Resource)]
#[resource(inherit = EndpointSlice)]
pub struct EndpointsObject {
    #[serde(deserialize_with = "super::lean_metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    endpoints: Option<Vec<Endpoint>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    node_name: Option<String>,
    #[serde(default)]
    conditions: Conditions,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
}

/// Where one slice has endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// The slice's Service.
    pub service: ServiceRef,
    /// `metadata.name` of the slice.
    pub slice: String,
    /// `metadata.resourceVersion`.
    pub version: Version,
    /// Nodes with an endpoint that is ready, or serves while it terminates, as kube-proxy does with
    /// `externalTrafficPolicy: Local`.
    pub nodes: BTreeSet<String>,
}

impl From<EndpointsObject> for Endpoints {
    fn from(object: EndpointsObject) -> Self {
        let EndpointsObject { metadata, endpoints } = object;
        let service = metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE));
        Self {
            version: super::version(&metadata),
            service: ServiceRef::new(
                metadata.namespace.as_deref().unwrap_or_default(),
                service.map(String::as_str).unwrap_or_default(),
            ),
            slice: metadata.name.unwrap_or_default(),
            // An unknown state counts as ready (the API's rule); serving is ready unless it says otherwise.
            nodes: endpoints
                .into_iter()
                .flatten()
                .filter(|endpoint| {
                    let ready = endpoint.conditions.ready.unwrap_or(true);
                    ready || endpoint.conditions.serving.unwrap_or(false)
                })
                .filter_map(|endpoint| endpoint.node_name)
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nodes_count_whose_endpoints_take_traffic() {
        let object: EndpointsObject = serde_json::from_value(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "web-x", "namespace": "shop", "labels": {SERVICE: "web"}, "resourceVersion": "9"},
            "endpoints": [
                {"addresses": ["10.0.0.1"], "nodeName": "ready", "conditions": {"ready": true}},
                {"addresses": ["10.0.0.2"], "nodeName": "unknown", "conditions": {}},
                {"addresses": ["10.0.0.3"], "nodeName": "leaving",
                    "conditions": {"ready": false, "serving": true, "terminating": true}},
                {"addresses": ["10.0.0.4"], "nodeName": "failing", "conditions": {"ready": false, "serving": false}},
                {"addresses": ["10.0.0.5"], "conditions": {"ready": true}},
            ],
        }))
        .unwrap();
        let endpoints = Endpoints::from(object);
        assert_eq!(endpoints.service, ServiceRef::new("shop", "web"));
        assert_eq!(endpoints.nodes, ["leaving", "ready", "unknown"].map(str::to_owned).into());
    }
}
