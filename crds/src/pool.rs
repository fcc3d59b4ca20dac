//! `IPAddressPool`: ranges of addresses to give out. Field names and meanings are MetalLB's.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One entry of `addresses` and `excluded`: a CIDR, `start-end` with both ends of one family, or one address.
const RANGE_RULE: &str = "self.all(a, a.contains('/') ? isCIDR(a.trim()) \
    : a.contains('-') ? (a.split('-').size() == 2 && a.split('-').all(e, isIP(e.trim())) \
        && ip(a.split('-')[0].trim()).family() == ip(a.split('-')[1].trim()).family()) \
    : isIP(a.trim()))";

/// Names the first entry that [`RANGE_RULE`] refuses.
const RANGE_MESSAGE: &str = "'not an address range: \"' + self.filter(a, !(a.contains('/') ? isCIDR(a.trim()) \
    : a.contains('-') ? (a.split('-').size() == 2 && a.split('-').all(e, isIP(e.trim())) \
        && ip(a.split('-')[0].trim()).family() == ip(a.split('-')[1].trim()).family()) \
    : isIP(a.trim())))[0] + '\"; write a CIDR (192.168.1.0/28), a range of one family \
(192.168.1.240-192.168.1.250) or a single address'";

/// Ranges of addresses that Services of type LoadBalancer get theirs from.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "heraldlb.io",
    version = "v1beta1",
    kind = "IPAddressPool",
    plural = "ipaddresspools",
    shortname = "pool",
    shortname = "pools",
    category = "herald",
    status = "IPAddressPoolStatus",
    doc = "Ranges of addresses that Services of type LoadBalancer get theirs from.",
    printcolumn = r#"{"name":"Auto Assign","type":"boolean","jsonPath":".spec.autoAssign"}"#,
    printcolumn = r#"{"name":"Addresses","type":"string","jsonPath":".spec.addresses"}"#,
    printcolumn = r#"{"name":"Used v4","type":"integer","jsonPath":".status.assignedIPv4"}"#,
    printcolumn = r#"{"name":"Free v4","type":"integer","jsonPath":".status.availableIPv4"}"#,
    printcolumn = r#"{"name":"Used v6","type":"integer","jsonPath":".status.assignedIPv6"}"#,
    printcolumn = r#"{"name":"Free v6","type":"integer","jsonPath":".status.availableIPv6"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct IPAddressPoolSpec {
    /// Ranges to give out, in this order: a CIDR, `start-end` (spaces allowed) or a single address, IPv4 or IPv6.
    /// Bits behind a CIDR's prefix are ignored. A node's own address within a CIDR or range is not given out; as a
    /// single address it is.
    #[schemars(length(min = 1, max = 256), inner(length(max = 100)))]
    #[x_kube(validation = Rule::new(RANGE_RULE).message(Message::Expression(RANGE_MESSAGE.into())))]
    pub addresses: Vec<String>,

    /// Ranges within `addresses` that are never given out. An address already in use keeps its Service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 100)))]
    #[x_kube(validation = Rule::new(RANGE_RULE).message(Message::Expression(RANGE_MESSAGE.into())))]
    pub excluded: Vec<String>,

    /// Give addresses to Services that ask for none in particular. Without it only Services that name the pool
    /// or one of its addresses get one.
    #[serde(default = "yes")]
    pub auto_assign: bool,

    /// Skip IPv4 addresses that end in .0 or .255: some old devices take them for network or broadcast addresses.
    #[serde(default, rename = "avoidBuggyIPs")]
    pub avoid_buggy_ips: bool,

    /// Which Services may use the pool; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_allocation: Option<ServiceAllocation>,

    /// What becomes of an address whose Service is gone: `Delete` frees it, `Retain` keeps it reserved for a
    /// Service of the same namespace and name (as a PersistentVolume's reclaim policy does).
    #[serde(default)]
    pub reclaim_policy: ReclaimPolicy,

    /// Ask the LAN whether somebody else already uses an address before it is announced for the first time.
    /// It costs 150 ms at that moment; `Disabled` announces at once.
    #[serde(default)]
    pub conflict_detection: ConflictDetection,

    /// When a Service that names a sharing key and no address joins an address that others with the key have:
    /// `WhenFull`, when no pool has a free one; `Prefer`, before it takes a free one of this pool.
    #[serde(default)]
    pub sharing: SharingPreference,

    /// Who may share an address of this pool: Services of one `Namespace`, or any in the `Cluster` that name the
    /// same key. Those who share already keep their address when this becomes narrower.
    #[serde(default)]
    pub sharing_scope: SharingScope,

    /// How many addresses of each family of this pool the Services of one namespace may have; absent: any number.
    /// An address that several Services of the namespace share counts once; one that is reserved for the namespace
    /// counts as well. Nobody loses an address when the limit becomes lower.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub limit_per_namespace: Option<i32>,
}

/// Which Services may use a pool: namespaces and Services must both match; within each, one match is enough.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAllocation {
    /// Lower values are tried first; 0 comes last.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub priority: i32,
    /// Namespaces whose Services may use the pool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Selectors of such namespaces. A selector that matches no namespace opens the pool to nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespace_selectors: Vec<LabelSelector>,
    /// Selectors of the Services that may use the pool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_selectors: Vec<LabelSelector>,
}

/// What becomes of an address whose Service is gone.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum ReclaimPolicy {
    /// It is free again.
    #[default]
    Delete,
    /// It stays reserved for a Service of the same namespace and name.
    Retain,
}

/// When a Service joins the address of others rather than take a free one.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum SharingPreference {
    /// When no pool has a free address.
    #[default]
    WhenFull,
    /// Whenever there is one to join.
    Prefer,
}

/// Who may share an address.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum SharingScope {
    /// Services of one namespace.
    #[default]
    Namespace,
    /// Any Services that name the same key.
    Cluster,
}

/// Whether a new address is probed on the LAN before it is announced (RFC 5227 section 2.1, RFC 4862 section 5.4).
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum ConflictDetection {
    /// Probe first.
    #[default]
    Enabled,
    /// Announce at once.
    Disabled,
}

/// How full a pool is, and what is wrong with it. Counts above 2^63-1 stand as 2^63-1.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct IPAddressPoolStatus {
    /// IPv4 addresses in use.
    #[serde(default, rename = "assignedIPv4")]
    pub assigned_ipv4: i64,
    /// IPv6 addresses in use.
    #[serde(default, rename = "assignedIPv6")]
    pub assigned_ipv6: i64,
    /// IPv4 addresses still free.
    #[serde(default, rename = "availableIPv4")]
    pub available_ipv4: i64,
    /// IPv6 addresses still free.
    #[serde(default, rename = "availableIPv6")]
    pub available_ipv6: i64,
    /// `Ready`: the pool's latest spec is in force, or why not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

const fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_field_of_a_metallb_pool_is_known_by_its_name() {
        let spec = json!({
            "addresses": ["192.168.1.0/28"],
            "autoAssign": false,
            "avoidBuggyIPs": true,
            "serviceAllocation": {
                "priority": 50,
                "namespaces": ["shop"],
                "namespaceSelectors": [{"matchLabels": {"team": "a"}}],
                "serviceSelectors": [{"matchExpressions": [{"key": "app", "operator": "Exists"}]}],
            },
        });
        let read: IPAddressPoolSpec = serde_json::from_value(spec.clone()).unwrap();
        let written = serde_json::to_value(read).unwrap();
        for (field, value) in spec.as_object().unwrap() {
            assert_eq!(written.get(field), Some(value), "{field}");
        }
    }
}
