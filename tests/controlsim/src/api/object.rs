//! An object as stored, with what is looked at most often read out of it.

use std::net::IpAddr;

use serde_json::Value;

use super::Key;

/// An object at one version.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) value: Value,
    pub(crate) uid: String,
    pub(crate) version: u64,
    pub(crate) terminating: bool,
    /// Its bytes as sent in lists and watches.
    pub(crate) text: String,
}

impl Object {
    pub(super) fn read(key: &Key, value: Value) -> Self {
        debug_assert_eq!(value["metadata"]["name"], key.name.as_str());
        let metadata = &value["metadata"];
        let version = metadata["resourceVersion"].as_str().and_then(|text| text.parse().ok());
        Self {
            uid: metadata["uid"].as_str().unwrap_or_default().to_owned(),
            version: version.unwrap_or_default(),
            terminating: !metadata["deletionTimestamp"].is_null(),
            text: value.to_string(),
            value,
        }
    }

    /// Whether it is a Service that wants an address.
    pub(crate) fn is_load_balancer(&self) -> bool {
        self.value["spec"]["type"] == "LoadBalancer"
    }
}

/// The addresses in a Service's status.
pub(crate) fn shown(service: &Value) -> Vec<IpAddr> {
    let ingress = service["status"]["loadBalancer"]["ingress"].as_array();
    ingress.into_iter().flatten().filter_map(|entry| entry["ip"].as_str()?.parse().ok()).collect()
}

/// The uids that a LoadBalancerIP lists.
pub(crate) fn listed(address: &Value) -> Vec<String> {
    let services = address["spec"]["services"].as_array();
    services.into_iter().flatten().filter_map(|service| service["uid"].as_str().map(str::to_owned)).collect()
}

/// The address that a LoadBalancerIP stands for.
pub(crate) fn address_of(key: &Key) -> Option<IpAddr> {
    herald_crds::address_from_name(&key.name).ok()
}

/// The condition of this type.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}
