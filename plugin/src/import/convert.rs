//! MetalLB's objects as Herald's.
//!
//! Names and meanings of the fields are the same, so they are carried over as they stand; each is read as Herald's type
//! first. Which Services have which address is not known here.

use std::collections::{BTreeMap, BTreeSet};

use herald_controller::objects::{
    advertisement::{Advertisement, Meaning},
    pool::Pool,
};
use herald_crds::{
    IPAddressPool, IPAddressPoolSpec, L2Advertisement, L2AdvertisementSpec, PreferredNodeSelector,
};
use herald_ipam::CreatedAt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use super::{
    finding::Finding,
    source::{BadInput, Fields, Object},
};

/// The API group of MetalLB.
pub const METALLB: &str = "metallb.io";

/// Labels by which package managers find what they own: on a copy they would make it theirs, to prune it.
const OWNERS_LABELS: [&str; 6] = [
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "argocd.argoproj.io/",
    "helm.sh/chart",
    "helm.toolkit.fluxcd.io/",
    "kustomize.toolkit.fluxcd.io/",
];

/// One of Herald's objects, with nothing in its spec but what MetalLB's says.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// `IPAddressPool` or `L2Advertisement`.
    pub kind: &'static str,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `spec`.
    pub spec: Map<String, Value>,
}

/// The kinds that are made.
pub const POOL: &str = "IPAddressPool";
/// See [`POOL`].
pub const ADVERTISEMENT: &str = "L2Advertisement";

impl Manifest {
    /// The object as it is applied.
    pub fn value(&self) -> Value {
        let mut metadata = json!({"name": self.name});
        if let (Some(metadata), false) = (metadata.as_object_mut(), self.labels.is_empty()) {
            metadata.insert("labels".to_owned(), json!(self.labels));
        }
        json!({"apiVersion": "heraldlb.io/v1beta1", "kind": self.kind, "metadata": metadata, "spec": self.spec})
    }
}

/// What became of MetalLB's objects.
#[derive(Clone, Debug, Default)]
pub struct Converted {
    /// Pools.
    pub pools: Vec<Manifest>,
    /// Advertisements.
    pub advertisements: Vec<Manifest>,
    /// Which pools MetalLB announces by BGP.
    pub bgp: Vec<Meaning>,
    /// What is to be said.
    pub findings: Vec<Finding>,
    /// Old pools with layer 2 as their protocol: each becomes an advertisement once all names are known.
    old_layer2: Vec<String>,
}

/// Reads all that is MetalLB's among `objects`.
pub fn convert(objects: &[Object], namespace: Option<&str>) -> Result<Converted, Vec<BadInput>> {
    let (mut converted, mut bad) = (Converted::default(), Vec::new());
    let ours = |object: &&Object| object.group == METALLB || is_old_config(object);
    let mut namespaces = BTreeSet::new();
    for object in objects.iter().filter(ours) {
        let other = object.namespace.as_deref().filter(|other| namespace.is_some_and(|only| only != *other));
        if other.is_some() {
            converted.findings.push(Finding::OtherNamespace { object: object.to_string() });
            continue;
        }
        namespaces.extend(object.namespace.as_deref());
        if let Err(error) = converted.object(object) {
            bad.push(error);
        }
    }
    converted.advertise_old();
    if namespaces.len() > 1 {
        let list = namespaces.into_iter().collect::<Vec<_>>().join(", ");
        bad.push(BadInput::new(
            format!("MetalLB's objects stand in several namespaces ({list})"),
            "MetalLB reads those of its own namespace only; say which that is with --metallb-namespace",
        ));
    }
    if bad.is_empty() { Ok(converted) } else { Err(bad) }
}

impl Converted {
    fn object(&mut self, object: &Object) -> Result<(), BadInput> {
        match object.kind.as_str() {
            POOL => self.pool(object),
            ADVERTISEMENT => self.advertisement(object),
            "AddressPool" => self.address_pool(object),
            "ConfigMap" => self.old_config(object),
            "BGPAdvertisement" => {
                let mut spec = object.fields("spec")?;
                let meaning = L2AdvertisementSpec {
                    ip_address_pools: spec.take("ipAddressPools")?.unwrap_or_default(),
                    ip_address_pool_selectors: spec.take("ipAddressPoolSelectors")?.unwrap_or_default(),
                    ..L2AdvertisementSpec::default()
                };
                self.by_bgp(object, meaning)?;
                self.findings.push(Finding::Bgp { object: object.to_string() });
                Ok(())
            }
            "BGPPeer" | "BFDProfile" | "Community" => {
                self.findings.push(Finding::Bgp { object: object.to_string() });
                Ok(())
            }
            // What MetalLB reports of itself.
            "ServiceL2Status" | "ServiceBGPStatus" | "ConfigurationState" => Ok(()),
            kind => Err(object.bad("kind", &format!("MetalLB's kind '{kind}' is unknown to this version"))),
        }
    }

    fn pool(&mut self, object: &Object) -> Result<(), BadInput> {
        let mut fields = object.fields("spec")?;
        let mut spec = Map::new();
        carry::<Vec<String>>(&mut fields, "addresses", &mut spec)?;
        carry::<bool>(&mut fields, "autoAssign", &mut spec)?;
        carry::<bool>(&mut fields, "avoidBuggyIPs", &mut spec)?;
        let mut unread = Vec::new();
        if let Some(mut allocation) = fields.take_map("serviceAllocation")? {
            let mut into = Map::new();
            carry::<u32>(&mut allocation, "priority", &mut into)?;
            carry::<Vec<String>>(&mut allocation, "namespaces", &mut into)?;
            carry::<Vec<LabelSelector>>(&mut allocation, "namespaceSelectors", &mut into)?;
            carry::<Vec<LabelSelector>>(&mut allocation, "serviceSelectors", &mut into)?;
            spec.insert("serviceAllocation".to_owned(), Value::Object(into));
            unread = allocation.unread();
        }
        unread.extend(fields.unread());
        self.add(object, POOL, spec, unread)
    }

    fn advertisement(&mut self, object: &Object) -> Result<(), BadInput> {
        let mut fields = object.fields("spec")?;
        let mut spec = Map::new();
        carry::<Vec<String>>(&mut fields, "ipAddressPools", &mut spec)?;
        carry::<Vec<LabelSelector>>(&mut fields, "ipAddressPoolSelectors", &mut spec)?;
        carry::<Vec<LabelSelector>>(&mut fields, "nodeSelectors", &mut spec)?;
        carry::<Vec<String>>(&mut fields, "interfaces", &mut spec)?;
        carry::<Vec<LabelSelector>>(&mut fields, "serviceSelectors", &mut spec)?;
        carry::<Vec<PreferredNodeSelector>>(&mut fields, "preferredNodeSelectors", &mut spec)?;
        let unread = fields.unread();
        self.add(object, ADVERTISEMENT, spec, unread)
    }

    /// The kind before IPAddressPool: pool and protocol in one.
    fn address_pool(&mut self, object: &Object) -> Result<(), BadInput> {
        let mut fields = object.fields("spec")?;
        let mut spec = Map::new();
        carry::<Vec<String>>(&mut fields, "addresses", &mut spec)?;
        carry::<bool>(&mut fields, "autoAssign", &mut spec)?;
        carry::<bool>(&mut fields, "avoidBuggyIPs", &mut spec)?;
        let protocol: Option<String> = fields.take("protocol")?;
        fields.take::<Value>("bgpAdvertisements")?;
        let unread = fields.unread();
        self.protocol(object, &object.name, protocol.as_deref(), "spec.protocol")?;
        self.add(object, POOL, spec, unread)
    }

    /// The ConfigMap of MetalLB before its version 0.13.
    fn old_config(&mut self, object: &Object) -> Result<(), BadInput> {
        let at = "data.config";
        let text: String = object.fields("data")?.take("config")?.unwrap_or_default();
        let config: Value = serde_yaml::from_str(&text).map_err(|error| object.bad(at, &error))?;
        let mut config = Fields::new(object, at.to_owned(), Some(&config))?;
        let pools: Vec<Value> = config.take("address-pools")?.unwrap_or_default();
        for (number, pool) in pools.iter().enumerate() {
            let path = format!("{at}.address-pools[{number}]");
            let mut fields = Fields::new(object, path, Some(pool))?;
            let at_name = fields.path_of("name");
            let name: String =
                fields.take("name")?.ok_or_else(|| object.bad(&at_name, "a pool needs a name"))?;
            let mut spec = Map::new();
            carry::<Vec<String>>(&mut fields, "addresses", &mut spec)?;
            for (old, new) in [("auto-assign", "autoAssign"), ("avoid-buggy-ips", "avoidBuggyIPs")] {
                if let Some(value) = fields.take::<bool>(old)? {
                    spec.insert(new.to_owned(), Value::Bool(value));
                }
            }
            fields.take::<Value>("bgp-advertisements")?;
            let at_protocol = fields.path_of("protocol");
            let protocol: Option<String> = fields.take("protocol")?;
            let unread = fields.unread();
            self.protocol(object, &name, protocol.as_deref(), &at_protocol)?;
            let manifest = Manifest { kind: POOL, name, labels: BTreeMap::new(), spec };
            self.insert(object, manifest, unread)?;
        }
        for name in ["peers", "bfd-profiles", "bgp-communities"] {
            if config.take::<Value>(name)?.is_some() {
                self.findings.push(Finding::Bgp { object: format!("{object} ({name})") });
            }
        }
        self.unread(object.to_string(), config.unread());
        Ok(())
    }

    /// The protocol of an old pool: an advertisement of its own.
    fn protocol(
        &mut self,
        object: &Object,
        pool: &str,
        protocol: Option<&str>,
        field: &str,
    ) -> Result<(), BadInput> {
        match protocol {
            Some("layer2") => {
                self.old_layer2.push(pool.to_owned());
                Ok(())
            }
            Some("bgp") => {
                self.findings.push(Finding::Bgp { object: format!("{object} (protocol of pool {pool})") });
                let ip_address_pools = vec![pool.to_owned()];
                self.by_bgp(
                    object,
                    L2AdvertisementSpec { ip_address_pools, ..L2AdvertisementSpec::default() },
                )
            }
            other => {
                let other = other.unwrap_or_default();
                Err(object.bad(field, &format!("'{other}' is no protocol: layer2 or bgp")))
            }
        }
    }

    /// Under the pool's name, or one like it where an L2Advertisement has that: to MetalLB the two were no namesakes.
    fn advertise_old(&mut self) {
        for pool in std::mem::take(&mut self.old_layer2) {
            let mut name = pool.clone();
            while self.advertisements.iter().any(|other| other.name == name) {
                name.push_str("-pool");
            }
            let spec = Map::from_iter([("ipAddressPools".to_owned(), json!([pool]))]);
            let (kind, labels) = (ADVERTISEMENT, BTreeMap::new());
            self.advertisements.push(Manifest { kind, name, labels, spec });
        }
    }

    fn by_bgp(&mut self, object: &Object, spec: L2AdvertisementSpec) -> Result<(), BadInput> {
        let advertisement = Advertisement::from(L2Advertisement::new(&object.name, spec));
        self.bgp.push(advertisement.meaning.map_err(|error| object.bad("", &error))?);
        Ok(())
    }

    fn add(
        &mut self,
        object: &Object,
        kind: &'static str,
        spec: Map<String, Value>,
        unread: Vec<String>,
    ) -> Result<(), BadInput> {
        let (dropped, labels): (BTreeMap<_, _>, BTreeMap<_, _>) = object
            .labels()?
            .into_iter()
            .partition(|(label, _)| OWNERS_LABELS.iter().any(|owners| label.starts_with(owners)));
        if !dropped.is_empty() {
            let labels = dropped.into_keys().collect();
            self.findings.push(Finding::Labels { object: object.to_string(), labels });
        }
        self.insert(object, Manifest { kind, name: object.name.clone(), labels, spec }, unread)
    }

    fn insert(&mut self, object: &Object, manifest: Manifest, unread: Vec<String>) -> Result<(), BadInput> {
        self.unread(format!("{} {}", manifest.kind, manifest.name), unread);
        let list = if manifest.kind == POOL { &mut self.pools } else { &mut self.advertisements };
        if list.iter().any(|other| other.name == manifest.name) {
            return Err(object.bad("", &format!("there are two {} {}", manifest.kind, manifest.name)));
        }
        list.push(manifest);
        Ok(())
    }

    fn unread(&mut self, object: String, fields: Vec<String>) {
        if !fields.is_empty() {
            self.findings.push(Finding::Field { object, fields });
        }
    }

    /// The pools as the controller will read them; one that exists keeps its age, and what MetalLB's says nothing of.
    pub fn pools_in(&self, existing: &[Pool]) -> Result<Vec<Pool>, BadInput> {
        let mut pools = Vec::new();
        for manifest in &self.pools {
            let known = existing.iter().find(|known| known.name.as_str() == manifest.name);
            let spec = known.and_then(|known| serde_json::to_value(known.spec.as_ref().ok()?).ok());
            let mut spec = spec.and_then(|spec| spec.as_object().cloned()).unwrap_or_default();
            spec.extend(manifest.spec.clone());
            let whole = Manifest { spec, ..manifest.clone() };
            let mut object = IPAddressPool::new(&manifest.name, whole.typed::<IPAddressPoolSpec>()?);
            object.metadata.labels = Some(manifest.labels.clone());
            let mut pool = Pool::from(object);
            // Where two want the same addresses the older pool keeps them, and these are the newest.
            pool.created = known.map_or(CreatedAt(i64::MAX), |known| known.created);
            pools.push(pool);
        }
        Ok(pools)
    }

    /// The advertisements as the controller will read them.
    pub fn meanings(&self) -> Result<Vec<Advertisement>, BadInput> {
        self.advertisements
            .iter()
            .map(|manifest| {
                let spec = manifest.typed::<L2AdvertisementSpec>()?;
                Ok(Advertisement::from(L2Advertisement::new(&manifest.name, spec)))
            })
            .collect()
    }
}

impl Manifest {
    fn typed<T: DeserializeOwned>(&self) -> Result<T, BadInput> {
        serde_json::from_value(Value::Object(self.spec.clone()))
            .map_err(|error| BadInput::new(format!("{} {}: spec", self.kind, self.name), &error))
    }
}

/// Carries a field over, after reading it as what it is to be.
fn carry<T: DeserializeOwned + Serialize>(
    fields: &mut Fields<'_>,
    name: &str,
    into: &mut Map<String, Value>,
) -> Result<(), BadInput> {
    if let Some(value) = fields.take::<T>(name)? {
        into.insert(name.to_owned(), json!(value));
    }
    Ok(())
}

fn is_old_config(object: &Object) -> bool {
    let config = object.value.pointer("/data/config").and_then(Value::as_str);
    object.kind == "ConfigMap" && config.is_some_and(|config| config.contains("address-pools"))
}
