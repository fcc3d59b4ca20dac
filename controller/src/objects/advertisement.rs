//! L2Advertisements.

use std::collections::BTreeSet;

use herald_crds::{L2Advertisement, L2AdvertisementSpec, L2AdvertisementStatus};
use herald_ipam::{Labels, Selector, Version};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Resource, api::ObjectMeta};
use serde::Deserialize;

use super::{SpecError, Stored, selector};

/// What the watch decodes of an L2Advertisement.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = L2Advertisement)]
pub struct AdvertisementObject {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Stored<L2AdvertisementSpec>,
    status: Option<Stored<L2AdvertisementStatus>>,
}

/// An advertisement as written, with its status as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Advertisement {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub version: Version,
    /// `metadata.generation`, for the conditions' observedGeneration.
    pub generation: Option<i64>,
    /// What the spec says, or what is wrong with it.
    pub meaning: Result<Meaning, SpecError>,
    /// Its conditions as they stand.
    pub conditions: Vec<Condition>,
}

/// What an advertisement says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meaning {
    /// Pools by name.
    pub pools: BTreeSet<String>,
    /// Pools by label.
    pub pool_selectors: Vec<Selector>,
    /// Nodes that may announce; none given: all.
    pub node_selectors: Vec<Selector>,
    /// Interfaces by name or glob; none given: as the address asks for.
    pub interfaces: BTreeSet<String>,
    /// Services it is for; none given: all.
    pub service_selectors: Vec<Selector>,
    /// Preferred nodes, each with its weight.
    pub preferred: Vec<(i32, Selector)>,
}

impl From<L2Advertisement> for Advertisement {
    fn from(object: L2Advertisement) -> Self {
        let L2Advertisement { metadata, spec, status } = object;
        let status = status.map(|status| Stored(Ok(status)));
        Self::from(AdvertisementObject { metadata, spec: Stored(Ok(spec)), status })
    }
}

impl From<AdvertisementObject> for Advertisement {
    fn from(object: AdvertisementObject) -> Self {
        let AdvertisementObject { metadata, spec, status } = object;
        let status = status.and_then(|status| status.0.ok());
        Self {
            version: super::version(&metadata),
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            generation: metadata.generation,
            meaning: spec.0.and_then(|spec| Meaning::parse(&spec)),
            conditions: status.unwrap_or_default().conditions,
        }
    }
}

impl Meaning {
    fn parse(spec: &L2AdvertisementSpec) -> Result<Self, SpecError> {
        Ok(Self {
            pools: spec.ip_address_pools.iter().cloned().collect(),
            pool_selectors: selector::parse_all(
                "spec.ipAddressPoolSelectors",
                &spec.ip_address_pool_selectors,
            )?,
            node_selectors: selector::parse_all("spec.nodeSelectors", &spec.node_selectors)?,
            interfaces: spec.interfaces.iter().cloned().collect(),
            service_selectors: selector::parse_all("spec.serviceSelectors", &spec.service_selectors)?,
            preferred: spec
                .preferred_node_selectors
                .iter()
                .map(|preferred| {
                    let preference = selector::parse("spec.preferredNodeSelectors", &preferred.preference)?;
                    Ok((preferred.weight, preference))
                })
                .collect::<Result<_, SpecError>>()?,
        })
    }

    /// Whether it is about this pool; with neither names nor selectors it is about all.
    pub fn selects_pool(&self, name: &str, labels: &Labels) -> bool {
        let all = self.pools.is_empty() && self.pool_selectors.is_empty();
        all || self.pools.contains(name) || any(&self.pool_selectors, labels)
    }

    /// Whether it is for a Service with these labels.
    pub fn selects_service(&self, labels: &Labels) -> bool {
        self.service_selectors.is_empty() || any(&self.service_selectors, labels)
    }

    /// Whether a node with these labels may announce.
    pub fn selects_node(&self, labels: &Labels) -> bool {
        self.node_selectors.is_empty() || any(&self.node_selectors, labels)
    }
}

fn any(selectors: &[Selector], labels: &Labels) -> bool {
    selectors.iter().any(|selector| selector.matches(labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_selected_by_name_or_label_and_all_of_them_by_neither() {
        let labels = Labels::from([("net", "lan")]);
        let by_label =
            Selector { labels: [("net".to_owned(), "lan".to_owned())].into(), expressions: Vec::new() };
        let by_label = Meaning { pool_selectors: vec![by_label], ..Meaning::default() };
        let by_name = Meaning { pools: ["default".to_owned()].into(), ..Meaning::default() };
        assert!(by_label.selects_pool("any", &labels) && !by_label.selects_pool("any", &Labels::new()));
        assert!(by_name.selects_pool("default", &Labels::new()) && !by_name.selects_pool("other", &labels));
        assert!(Meaning::default().selects_pool("any", &Labels::new()));
    }

    #[test]
    fn a_spec_that_cannot_be_read_is_an_error_of_its_advertisement_alone() {
        let object = serde_json::json!({
            "metadata": {"name": "old", "resourceVersion": "7"},
            "spec": {"interfaces": "eth0"},
            "status": {"conditions": []},
        });
        let advertisement =
            Advertisement::from(serde_json::from_value::<AdvertisementObject>(object).unwrap());
        assert_eq!((advertisement.name.as_str(), advertisement.version), ("old", Version(7)));
        assert!(
            matches!(&advertisement.meaning, Err(SpecError::Unreadable(_))),
            "{:?}",
            advertisement.meaning
        );
    }
}
