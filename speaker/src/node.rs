//! This node's own Node object: its id on the wire and what it says about holding addresses.

use herald_l2::{NodeId, NodeState};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Deserializer};
use sha2::{Digest as _, Sha256};

/// Label that keeps a node from announcing load balancer addresses; its value does not matter.
const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Taint of a node that was shut down for good.
const OUT_OF_SERVICE_TAINT: &str = "node.kubernetes.io/out-of-service";
/// Condition of a node whose pods can't be reached from other nodes, nor others' pods from it.
const NETWORK_UNAVAILABLE: &str = "NetworkUnavailable";

/// The little of a Node that a speaker reads: 100 bytes instead of the some 20 KB of images and conditions.
#[derive(Clone, Debug, Deserialize, kube::Resource)]
#[resource(inherit = k8s_openapi::api::core::v1::Node)]
pub struct LeanNode {
    #[serde(deserialize_with = "metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: LeanNodeSpec,
    #[serde(default)]
    status: LeanNodeStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct LeanNodeSpec {
    #[serde(default)]
    unschedulable: Option<bool>,
    #[serde(default)]
    taints: Option<Vec<LeanTaint>>,
}

#[derive(Clone, Debug, Deserialize)]
struct LeanTaint {
    key: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct LeanNodeStatus {
    #[serde(default)]
    conditions: Option<Vec<LeanCondition>>,
}

#[derive(Clone, Debug, Deserialize)]
struct LeanCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

/// Name, uid, resourceVersion and labels; managedFields and annotations are never built.
fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Lean {
        name: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        labels: Option<std::collections::BTreeMap<String, String>>,
    }
    let Lean { name, uid, resource_version, mut labels } = Lean::deserialize(deserializer)?;
    if let Some(labels) = &mut labels {
        labels.retain(|key, _| key == EXCLUDE_LABEL);
    }
    Ok(ObjectMeta { name, uid, resource_version, labels, ..ObjectMeta::default() })
}

impl LeanNode {
    /// The node's id on the wire (rule A1); `None` while the object has no uid.
    pub fn id(&self) -> Option<NodeId> {
        self.metadata.uid.as_deref().filter(|uid| !uid.is_empty()).map(id_of_uid)
    }

    /// What the object says about holding addresses (rule A29).
    pub fn state(&self) -> NodeState {
        let labelled = self.metadata.labels.iter().flatten().any(|(key, _)| key == EXCLUDE_LABEL);
        let mut taints = self.spec.taints.iter().flatten();
        let mut conditions = self.status.conditions.iter().flatten();
        let shut_down = taints.any(|taint| taint.key == OUT_OF_SERVICE_TAINT);
        // "Unknown" is what the control plane says of every node that it does not hear from.
        let unreachable = conditions.any(|it| it.kind == NETWORK_UNAVAILABLE && it.status == "True");
        NodeState {
            cordoned: self.spec.unschedulable.unwrap_or(false),
            excluded: labelled,
            out_of_service: shut_down || unreachable,
        }
    }
}

/// The first 8 bytes of SHA-256 over the uid (rule A1). 0 means "nobody" on the wire and is made 1.
fn id_of_uid(uid: &str) -> NodeId {
    let digest: [u8; 32] = Sha256::digest(uid.as_bytes()).into();
    let id = digest.first_chunk().map_or(0, |head| u64::from_be_bytes(*head));
    NodeId(id.max(1))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(spec: &serde_json::Value, labels: &serde_json::Value) -> LeanNode {
        let text = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "n1", "uid": "9d1b3f0e", "labels": labels, "managedFields": [{"manager": "kubelet"}]},
            "spec": spec,
            "status": {"images": [{"names": ["a"]}]},
        });
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn the_id_is_the_head_of_the_uids_sha256() {
        // printf 9d1b3f0e | sha256sum
        let id = node(&json!({}), &json!({})).id().unwrap();
        assert_eq!(id, id_of_uid("9d1b3f0e"));
        assert_eq!(id_of_uid("abc"), NodeId(0xba78_16bf_8f01_cfea), "FIPS 180-2 appendix B.1");
    }

    #[test]
    fn cordon_label_and_taint_are_told_apart() {
        let state = |spec, labels| node(&spec, &labels).state();
        let free = NodeState::default();
        assert_eq!(state(json!({}), json!({"kubernetes.io/hostname": "n1"})), free);
        assert_eq!(state(json!({"unschedulable": true}), json!({})), NodeState { cordoned: true, ..free });
        let excluded = NodeState { excluded: true, ..free };
        assert_eq!(state(json!({}), json!({EXCLUDE_LABEL: ""})), excluded);
        let taints = json!({"taints": [{"key": OUT_OF_SERVICE_TAINT, "value": "nodeshutdown", "effect": "NoExecute"}]});
        assert_eq!(state(taints, json!({})), NodeState { out_of_service: true, ..free });
        let taints = json!({"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]});
        assert_eq!(
            state(taints, json!({})),
            free,
            "an API server that can't reach the node says nothing about its LAN"
        );
    }

    #[test]
    fn a_node_without_pod_network_holds_nothing_and_one_of_which_nothing_is_heard_what_it_held() {
        for (status, out_of_service) in [("True", true), ("False", false), ("Unknown", false)] {
            let node: LeanNode = serde_json::from_value(json!({
                "metadata": {"name": "n1"},
                "status": {"conditions": [
                    {"type": "Ready", "status": "Unknown"},
                    {"type": NETWORK_UNAVAILABLE, "status": status, "reason": "NoRouteCreated"},
                ]},
            }))
            .unwrap();
            assert_eq!(node.state(), NodeState { out_of_service, ..NodeState::default() }, "{status}");
        }
    }

    #[test]
    fn nulls_and_absent_fields_are_defaults() {
        let node: LeanNode = serde_json::from_value(
            json!({"metadata": {"name": "n1", "labels": null}, "spec": {"taints": null}}),
        )
        .unwrap();
        assert_eq!(node.state(), NodeState::default());
        assert_eq!(node.id(), None);
    }
}
