//! `L2Advertisement`: which pools are announced by ARP and NDP, and from where. Field names and meanings are
//! MetalLB's.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which pools are announced on the LAN, from which nodes and interfaces. A pool that no advertisement selects is
/// announced from every node.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "heraldlb.io",
    version = "v1beta1",
    kind = "L2Advertisement",
    plural = "l2advertisements",
    shortname = "l2adv",
    category = "herald",
    status = "L2AdvertisementStatus",
    doc = "Which pools are announced on the LAN by ARP and NDP, from which nodes and interfaces.",
    printcolumn = r#"{"name":"Pools","type":"string","jsonPath":".spec.ipAddressPools"}"#,
    printcolumn = r#"{"name":"Interfaces","type":"string","jsonPath":".spec.interfaces"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct L2AdvertisementSpec {
    /// Pools by name. With neither names nor selectors: every pool.
    #[serde(default, rename = "ipAddressPools", skip_serializing_if = "Vec::is_empty")]
    pub ip_address_pools: Vec<String>,
    /// Pools by label, added to those named.
    #[serde(default, rename = "ipAddressPoolSelectors", skip_serializing_if = "Vec::is_empty")]
    pub ip_address_pool_selectors: Vec<LabelSelector>,
    /// Nodes that may announce: one matching selector is enough; none given: every node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_selectors: Vec<LabelSelector>,
    /// Interfaces to announce on, by name or glob (`eth*`); none given: the one whose subnet holds the address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
    /// Services that the advertisement is for: one matching selector is enough; none given: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_selectors: Vec<LabelSelector>,
    /// Nodes that announce rather than others while they can. The weights of all that match a node add up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preferred_node_selectors: Vec<PreferredNodeSelector>,
}

/// A preference for some nodes.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreferredNodeSelector {
    /// How much a match counts.
    #[schemars(range(min = 1, max = 100))]
    pub weight: i32,
    /// The nodes preferred.
    pub preference: LabelSelector,
}

/// What is wrong with an advertisement, if anything.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct L2AdvertisementStatus {
    /// `Ready`: it selects pools and nodes that exist, or what it misses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_field_of_a_metallb_advertisement_is_known_by_its_name() {
        let selectors = json!([{"matchLabels": {"rack": "a"}}]);
        let spec = json!({
            "ipAddressPools": ["default"],
            "ipAddressPoolSelectors": selectors,
            "nodeSelectors": selectors,
            "interfaces": ["eth0"],
            "serviceSelectors": selectors,
            "preferredNodeSelectors": [{"weight": 100, "preference": {"matchLabels": {"rack": "a"}}}],
        });
        let read: L2AdvertisementSpec = serde_json::from_value(spec.clone()).unwrap();
        let written = serde_json::to_value(read).unwrap();
        for (field, value) in spec.as_object().unwrap() {
            assert_eq!(written.get(field), Some(value), "{field}");
        }
    }
}
