//! `LoadBalancerIP`: one address. Its existence is the lock that keeps an address from being given out twice; its
//! spec says who uses the address and where it may be announced; its status says which node answers for it now.
//!
//! One address has exactly one name ([`name_of_address`]), so the second taker of an address is refused by the API
//! server with 409 AlreadyExists, whatever stale cache or second controller led to it.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `metadata.name` is the canonical address: `:` as `-`, a `0` where it would begin or end with `-`.
const NAME_RULE: &str = "self.metadata.name == (self.spec.address.startsWith(':') ? '0' : '') \
    + self.spec.address.replace(':', '-') + (self.spec.address.endsWith(':') ? '0' : '')";

/// At creation an address is either given to Services or reserved for one: never both, never neither.
const CREATION_RULE: &str = "oldSelf.hasValue() || has(self.spec.claimRef) != \
    (has(self.spec.services) && self.spec.services.size() > 0)";

/// A reservation carries no revision: the first is the controller's to give, and a huge one would pin it for good.
const REVISION_RULE: &str = "oldSelf.hasValue() || !has(self.spec.claimRef) || self.spec.revision == 0";

/// One address: who uses it, where it may be announced, who holds it.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "heraldlb.io",
    version = "v1beta1",
    kind = "LoadBalancerIP",
    plural = "loadbalancerips",
    shortname = "lbip",
    shortname = "lbips",
    category = "herald",
    status = "LoadBalancerIPStatus",
    doc = "One address: which Services use it, where it may be announced, and which node answers for it.",
    validation = Rule::new(NAME_RULE).message("metadata.name must be the address itself, with every : as - (and a 0 where that would begin or end with -)"),
    validation = Rule::new(CREATION_RULE).optional_old_self(true).message("a new LoadBalancerIP needs exactly one of spec.claimRef (a reservation) and spec.services (written by the controller)"),
    validation = Rule::new(REVISION_RULE).optional_old_self(true).message("a reservation can't carry spec.revision: leave it out"),
    printcolumn = r#"{"name":"Address","type":"string","jsonPath":".spec.address"}"#,
    printcolumn = r#"{"name":"Pool","type":"string","jsonPath":".spec.pool"}"#,
    printcolumn = r#"{"name":"Services","type":"string","jsonPath":".metadata.annotations.heraldlb\\.io/services"}"#,
    printcolumn = r#"{"name":"Holder","type":"string","jsonPath":".status.holders[*].node"}"#,
    printcolumn = r#"{"name":"Since","type":"date","jsonPath":".status.holders[*].since"}"#,
    printcolumn = r#"{"name":"Interface","type":"string","jsonPath":".status.holders[*].interface","priority":1}"#,
    printcolumn = r#"{"name":"MAC","type":"string","jsonPath":".status.holders[*].mac","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp","priority":1}"#
)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerIPSpec {
    /// The address in canonical text (RFC 5952 for IPv6).
    #[schemars(length(max = 39))]
    #[x_kube(
        validation = Rule::new("isIP(self) && ip.isCanonical(self)").message("must be one IPv4 or IPv6 address in canonical text, without zone, not IPv4-mapped"),
        validation = Rule::new("self == oldSelf").message("the address of a LoadBalancerIP can't change; create another one")
    )]
    pub address: String,

    /// The pool that the address came from. The controller fills it in for a reservation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,

    /// Grows with every change of `pool`, `services` or `announce`, also over delete and re-create: a speaker that
    /// holds an older copy yields to one that holds a newer.
    #[serde(default)]
    #[schemars(range(min = 0))]
    #[x_kube(validation = Rule::new("self >= oldSelf").message("spec.revision only grows: speakers refuse an older one"))]
    pub revision: i64,

    /// The Services that use the address; several share it. Written by the controller.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub services: Vec<ServiceRef>,

    /// The terms on which others may share the address; absent while nobody may. Written by the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing: Option<Sharing>,

    /// A reservation: only this Service may get the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_ref: Option<ClaimRef>,

    /// Where the address may be announced. Absent: nowhere (a reservation that nobody uses).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announce: Option<Announce>,
}

/// A Service that uses the address.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, JsonSchema)]
pub struct ServiceRef {
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub name: String,
    /// The Service's uid: a new Service under an old name is another one.
    pub uid: String,
}

/// The terms on which an address is shared.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
pub struct Sharing {
    /// The namespace that may share it; absent where the pool lets any namespace share, or did so when Services of
    /// several came together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The key that every sharer must name.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Who an address is reserved for.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.name) != has(self.sharingKey)").message("a claimRef names either a Service (name) or a sharingKey"))]
pub struct ClaimRef {
    /// The namespace of the Service.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// The name of the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub name: Option<String>,
    /// Instead of a name: Services of the namespace that share under this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub sharing_key: Option<String>,
}

/// Where an address may be announced.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
pub struct Announce {
    /// By ARP and NDP on the LAN; absent: not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l2: Option<L2Announce>,
}

/// How an address is announced by ARP and NDP.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct L2Announce {
    /// The nodes that may hold the address. Required: an emptied list must never come to mean all.
    pub nodes: NodeSet,
    /// Interfaces by name or glob; none: the one whose subnet holds the address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
    /// Only where advertisements with different interfaces select different nodes: the first entry that a node is in
    /// says its interfaces, instead of `interfaces`, which has those of all. Written by the controller.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 250))]
    pub per_node: Vec<NodeInterfaces>,
    /// Nodes that come first when the address is free.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 250))]
    pub preferred: Vec<PreferredNode>,
    /// Announce from nodes that carry the label `node.kubernetes.io/exclude-from-external-load-balancers` all the
    /// same. The controller sets it while every node carries the label (kubeadm puts it on control planes, and a
    /// cluster may have nothing else): a node sees only itself and can't know.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ignore_node_exclusion: bool,
    /// Whether the address is probed on the LAN before its first announcement.
    #[serde(default)]
    pub conflict_detection: crate::ConflictDetection,
}

/// The interfaces of some of the nodes.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
pub struct NodeInterfaces {
    /// The nodes.
    pub nodes: NodeSet,
    /// Their interfaces by name or glob; none: the one whose subnet holds the address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
}

/// A set of nodes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[x_kube(validation = Rule::new("self.mode == 'Listed' || !has(self.names) || self.names.size() == 0").message("names go with mode Listed"))]
pub struct NodeSet {
    /// How the set is given.
    pub mode: NodeMode,
    /// The nodes' names, with mode `Listed`. None: nobody qualifies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 250))]
    pub names: Vec<String>,
}

/// How a set of nodes is given.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum NodeMode {
    /// Every node.
    All,
    /// Those in `names`.
    Listed,
    /// Reserved for sets kept in an object of their own; a speaker that meets it holds nothing new.
    Set,
}

/// A node that comes first when the address is free.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
pub struct PreferredNode {
    /// The node's name.
    pub node: String,
    /// The sum of the weights that matched it; larger comes first.
    #[schemars(range(min = 1))]
    pub weight: i32,
}

/// Who holds the address. Written by the speakers, each for itself, some time after the fact: nothing that moves an
/// address waits for it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerIPStatus {
    /// The nodes that answer for the address: one per LAN segment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["node".into()]))]
    pub holders: Vec<Holder>,
    /// Each only while there is something to say. `Conflict`, by the speakers: a foreign host claims the address.
    /// `Problem`, by the controller: somebody else changed the object, or it serves nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// A node that answers for the address.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
pub struct Holder {
    /// The node's name.
    pub node: String,
    /// The interface it answers on.
    pub interface: String,
    /// The MAC address it answers with.
    pub mac: String,
    /// Since when, by the node's own clock: for people only.
    pub since: Time,
}

/// The one name of an address's `LoadBalancerIP`: `192.168.1.240`, `fd00-10--1`, `0--1`, `fd00--0`.
pub fn name_of_address(address: IpAddr) -> String {
    let text = address.to_string().replace(':', "-");
    let front = if text.starts_with('-') { "0" } else { "" };
    let back = if text.ends_with('-') { "0" } else { "" };
    format!("{front}{text}{back}")
}

/// The address that a `LoadBalancerIP` of this name stands for.
///
/// # Errors
/// When the name is not what [`name_of_address`] gives for any address.
pub fn address_from_name(name: &str) -> Result<IpAddr, LbipNameError> {
    let wrong = || LbipNameError { name: name.to_owned() };
    let text = if name.contains('-') { name.replace('-', ":") } else { name.to_owned() };
    // `0--1` reads as 0::1 and `fd00--0` as fd00::0: both parse to the address meant.
    let address: IpAddr = text.parse().map_err(|_| wrong())?;
    if name_of_address(address) == name { Ok(address) } else { Err(wrong()) }
}

/// A name that no address has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is not the name of a LoadBalancerIP: it must be the canonical address, with every : as - (and a 0 where that would begin or end with -)"
)]
pub struct LbipNameError {
    name: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_name_and_a_name_one_address() {
        for (address, name) in [
            ("192.168.1.240", "192.168.1.240"),
            ("fd00:10::1", "fd00-10--1"),
            ("::1", "0--1"),
            ("::", "0--0"),
            ("fd00::", "fd00--0"),
            ("2001:db8:0:1:2:3:4:5", "2001-db8-0-1-2-3-4-5"),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(name_of_address(address), name);
            assert_eq!(address_from_name(name), Ok(address));
        }
    }

    #[test]
    fn other_spellings_of_an_address_are_no_names() {
        for name in ["192.168.001.240", "fd00-10-0--1", "fd00:10::1", "FD00--1", "--1", "fd00--", "web", ""] {
            assert!(address_from_name(name).is_err(), "{name}");
        }
    }
}
