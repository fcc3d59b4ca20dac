//! Services of type LoadBalancer.

use std::{collections::BTreeMap, net::IpAddr, ops::Deref, sync::Arc};

use herald_crds::names::{ANNOTATION_PREFIXES, IP_ALLOCATED_FROM_POOL};
use herald_ipam::{
    Addresses, Exposure, Families, Family, FamilyPolicy, Owner, Port, Protocol, ServiceRef, ServiceRequest,
    Uid, Wanted,
};
use k8s_openapi::{api::core::v1::Service as FullService, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{Resource, api::ObjectMeta};
use serde::{Deserialize, Deserializer, Serialize};

/// What is decoded of a Service: everything else, above all managedFields, is skipped while reading.
#[derive(Clone, Debug, Default, Deserialize, Resource)]
#[resource(inherit = FullService)]
pub struct ServiceObject {
    #[serde(deserialize_with = "lean_metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(rename = "type")]
    kind: Option<String>,
    load_balancer_class: Option<String>,
    #[serde(rename = "loadBalancerIP")]
    load_balancer_ip: Option<String>,
    external_traffic_policy: Option<String>,
    ip_families: Option<Vec<String>>,
    ip_family_policy: Option<String>,
    ports: Option<Vec<PortSpec>>,
    selector: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Deserialize)]
struct PortSpec {
    protocol: Option<String>,
    port: u16,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default)]
    load_balancer: LoadBalancer,
    #[serde(default)]
    conditions: Option<Vec<Condition>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct LoadBalancer {
    ingress: Option<Vec<Ingress>>,
}

/// One entry of `status.loadBalancer.ingress`, as it stands there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ingress {
    /// The address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Clouds that hand out names write one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// `VIP` where kube-proxy may short-cut the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_mode: Option<String>,
}

/// A Service, reduced to what decides about its address: what it asks for, and what it shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    // Shared with the allocator, as there are ten thousand.
    request: Arc<ServiceRequest>,
    /// Whether `spec.type` is LoadBalancer: always, for what comes from the watch; a live GET may say otherwise.
    pub is_load_balancer: bool,
    /// `spec.loadBalancerClass`.
    pub class: Option<String>,
    /// `shown` in `request` has the addresses in it.
    ingress: Vec<Ingress>,
    /// Those of `status.conditions` that are ours.
    pub conditions: Vec<Condition>,
    /// Annotation `heraldlb.io/ip-allocated-from-pool`.
    pub pool_shown: Option<String>,
}

/// Who it is and what it asks for.
impl Deref for Service {
    type Target = ServiceRequest;

    fn deref(&self) -> &ServiceRequest {
        &self.request
    }
}

impl From<ServiceObject> for Service {
    fn from(object: ServiceObject) -> Self {
        let ServiceObject { metadata, spec, status } = object;
        let annotations = metadata.annotations.as_ref();
        let none = BTreeMap::new();
        let pool_shown = format!("{}{IP_ALLOCATED_FROM_POOL}", ours());
        let ingress = exactly(status.load_balancer.ingress.unwrap_or_default());
        let request = ServiceRequest {
            version: super::version(&metadata),
            terminating: metadata.deletion_timestamp.is_some(),
            created: super::created(&metadata),
            wanted: Wanted::parse(annotations.unwrap_or(&none), spec.load_balancer_ip.as_deref()),
            families: families(&spec),
            exposure: exposure(&spec),
            shown: addresses(&ingress),
            owner: Owner {
                service: ServiceRef::new(
                    metadata.namespace.as_deref().unwrap_or_default(),
                    metadata.name.as_deref().unwrap_or_default(),
                ),
                uid: Uid::new(metadata.uid.as_deref().unwrap_or_default()),
            },
            labels: metadata.labels.unwrap_or_default().into(),
        };
        Self {
            request: Arc::new(request),
            pool_shown: annotations.and_then(|annotations| annotations.get(&pool_shown).cloned()),
            is_load_balancer: spec.kind.as_deref() == Some("LoadBalancer"),
            class: spec.load_balancer_class,
            ingress,
            conditions: exactly(
                status
                    .conditions
                    .unwrap_or_default()
                    .into_iter()
                    .filter(|condition| condition.type_.starts_with(ours()))
                    .collect(),
            ),
        }
    }
}

impl Ingress {
    /// The entries that show `addresses`, the Service's primary family first.
    pub fn of(addresses: Addresses, families: Families) -> Vec<Self> {
        [families.primary, families.primary.other()]
            .into_iter()
            .filter_map(|family| addresses.of(family))
            .map(|address| Self {
                ip: Some(address.to_string()),
                hostname: None,
                ip_mode: Some("VIP".to_owned()),
            })
            .collect()
    }
}

impl Service {
    /// `status.loadBalancer.ingress`.
    pub fn ingress(&self) -> &[Ingress] {
        &self.ingress
    }

    /// Whether its status shows `address`.
    pub fn shows(&self, address: IpAddr) -> bool {
        self.shown.contains(&address)
    }

    /// Whether `spec.externalTrafficPolicy` is Local: only nodes with endpoints can answer.
    pub fn is_local(&self) -> bool {
        self.exposure.local
    }

    /// Whether anything in its status or annotations was written by us.
    pub fn bears_our_marks(&self) -> bool {
        !self.conditions.is_empty() || self.pool_shown.is_some()
    }

    /// What the allocator core needs to know of it.
    pub fn request(&self) -> Arc<ServiceRequest> {
        Arc::clone(&self.request)
    }
}

#[cfg(test)]
impl Service {
    /// Something of it was written: its version now.
    pub(crate) fn set_version(&mut self, version: herald_ipam::Version) {
        Arc::make_mut(&mut self.request).version = version;
    }

    /// Its status was written.
    pub(crate) fn set_ingress(&mut self, ingress: Vec<Ingress>) {
        Arc::make_mut(&mut self.request).shown = addresses(&ingress);
        self.ingress = ingress;
    }
}

/// The prefix of annotations that we write, and of our conditions' types.
fn ours() -> &'static str {
    let [ours, ..] = ANNOTATION_PREFIXES;
    ours
}

fn addresses(ingress: &[Ingress]) -> Vec<IpAddr> {
    exactly(ingress.iter().filter_map(|entry| entry.ip.as_deref()?.parse().ok()).collect())
}

/// Without the room that reading leaves: four entries for one.
fn exactly<T>(mut list: Vec<T>) -> Vec<T> {
    list.shrink_to_fit();
    list
}

fn exposure(spec: &Spec) -> Exposure {
    let port = |port: &PortSpec| {
        let protocol = match port.protocol.as_deref() {
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            _ => Protocol::Tcp,
        };
        Port { protocol, number: port.port }
    };
    Exposure {
        ports: spec.ports.iter().flatten().map(port).collect(),
        local: spec.external_traffic_policy.as_deref() == Some("Local"),
        selector: spec.selector.iter().flatten().collect(),
    }
}

fn families(spec: &Spec) -> Families {
    let family = |text: &String| if text == "IPv6" { Family::V6 } else { Family::V4 };
    let listed: Vec<Family> = spec.ip_families.iter().flatten().map(family).collect();
    Families {
        policy: match spec.ip_family_policy.as_deref() {
            Some("PreferDualStack") => FamilyPolicy::PreferDualStack,
            Some("RequireDualStack") => FamilyPolicy::RequireDualStack,
            _ => FamilyPolicy::SingleStack,
        },
        primary: listed.first().copied().unwrap_or(Family::V4),
        dual: listed.len() > 1,
    }
}

/// Reads the metadata without foreign annotations, which can be many kilobytes.
fn lean_metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let mut metadata = super::lean_metadata(deserializer)?;
    let read = |key: &String| ANNOTATION_PREFIXES.iter().any(|prefix| key.starts_with(prefix));
    if let Some(annotations) = &mut metadata.annotations {
        annotations.retain(|key, _| read(key));
    }
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use herald_crds::names::{ADDRESS_POOL, ALLOW_SHARED_IP, LOAD_BALANCER_IPS};
    use serde_json::json;

    use super::*;

    #[test]
    fn every_annotation_of_the_api_is_read_under_each_prefix() {
        let wanted = |annotations: serde_json::Value| {
            let object: ServiceObject = serde_json::from_value(json!({
                "metadata": {"namespace": "shop", "name": "web", "annotations": annotations},
            }))
            .unwrap();
            Service::from(object).wanted.clone()
        };
        let nothing = wanted(json!({}));
        for prefix in ANNOTATION_PREFIXES {
            for (name, value) in
                [(LOAD_BALANCER_IPS, "10.0.0.1"), (ADDRESS_POOL, "second"), (ALLOW_SHARED_IP, "key")]
            {
                let name = format!("{prefix}{name}");
                assert_ne!(wanted(json!({name.clone(): value})), nothing, "{name}");
            }
        }
    }
}
