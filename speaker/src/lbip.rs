//! `LoadBalancerIP` as a speaker reads it: a lean projection, checked, and turned into what the core takes.
//!
//! What must always hold: an object that makes no sense is named in a warning and changes nothing that
//! works; whatever else is in its list goes on. Status-only changes (each holder's own writes come back
//! over the watch) reach the core only when other nodes come to stand among the holders, or none does any more.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, btree_map::Entry},
    net::IpAddr,
    sync::Arc,
};

use herald_crds::{ConflictDetection, L2Announce, NodeMode, address_from_name};
use herald_l2::{NodeName, Nodes, Revision, VipSpec};
use herald_runtime::watch::Change;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Deserializer};

/// The part of a `LoadBalancerIP` that a speaker reads; managedFields and labels are never built.
#[derive(Clone, Debug, Deserialize, kube::Resource)]
#[resource(inherit = herald_crds::LoadBalancerIP)]
pub struct LeanLbip {
    #[serde(deserialize_with = "metadata")]
    metadata: ObjectMeta,
    #[serde(default, deserialize_with = "lenient")]
    spec: Option<Result<LeanSpec, String>>,
    #[serde(default, deserialize_with = "lenient")]
    status: Option<Result<LeanStatus, String>>,
}

#[derive(Clone, Debug, Deserialize)]
struct LeanSpec {
    address: String,
    #[serde(default)]
    revision: u64,
    #[serde(default)]
    services: Vec<LeanService>,
    #[serde(default)]
    announce: Option<LeanAnnounce>,
}

#[derive(Clone, Debug, Deserialize)]
struct LeanService {
    // For a label of metrics: no reason to take the whole object for broken.
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
}

#[derive(Clone, Debug, Deserialize)]
struct LeanAnnounce {
    #[serde(default)]
    l2: Option<L2Announce>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct LeanStatus {
    #[serde(default)]
    holders: Vec<LeanHolder>,
    /// As they are: whoever writes the list anew has to keep the others'.
    #[serde(default)]
    conditions: Vec<serde_json::Value>,
}

#[derive(Clone, Debug, Deserialize)]
struct LeanHolder {
    node: String,
    #[serde(default)]
    interface: String,
    #[serde(default)]
    mac: String,
}

/// Name, uid and resourceVersion.
fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Lean {
        name: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
    }
    let Lean { name, uid, resource_version } = Lean::deserialize(deserializer)?;
    Ok(ObjectMeta { name, uid, resource_version, ..ObjectMeta::default() })
}

/// A field that may hold anything: what can't be decoded must not fail the list that it is in.
fn lenient<'de, D, T>(deserializer: D) -> Result<Option<Result<T, String>>, D::Error>
where
    D: Deserializer<'de>,
    T: for<'a> Deserialize<'a>,
{
    let value = Option::<serde_json::Value>::deserialize(deserializer)?;
    Ok(value.map(|value| T::deserialize(value).map_err(|error| error.to_string())))
}

/// The entry of one node in `status.holders`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenEntry {
    /// The interface.
    pub interface: String,
    /// The MAC address, as text.
    pub mac: String,
}

/// One object, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lbip {
    /// The address, from the name.
    pub vip: IpAddr,
    /// What the core is to know about it, or why that can't be said.
    pub spec: Result<VipSpec, String>,
    /// This node's own entry in `status.holders`.
    pub own_entry: Option<SeenEntry>,
    /// The Services it is for, each as `namespace/name`, with [`Lbip::BETWEEN`] between them: one text, as there are
    /// thousands of it.
    pub services: Box<str>,
}

impl Lbip {
    /// In no name of anything.
    pub const BETWEEN: char = ',';
}

/// An object whose name is no address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Nameless(String);

impl LeanLbip {
    /// The object's uid, for events about it.
    pub fn uid(&self) -> Option<&str> {
        self.metadata.uid.as_deref()
    }

    /// The object's resourceVersion.
    pub fn resource_version(&self) -> Option<&str> {
        self.metadata.resource_version.as_deref()
    }

    /// The nodes in `status.holders`, in order.
    pub fn holders(&self) -> impl Iterator<Item = &str> {
        self.entries().map(|holder| holder.node.as_str())
    }

    /// The conditions other than `Conflict`, if that is among them.
    pub fn conditions_without_conflict(&self) -> Option<Vec<serde_json::Value>> {
        let conditions = &self.status.as_ref()?.as_ref().ok()?.conditions;
        let other = |condition: &&serde_json::Value| condition["type"] != "Conflict";
        let others: Vec<_> = conditions.iter().filter(other).cloned().collect();
        (others.len() < conditions.len()).then_some(others)
    }

    fn entries(&self) -> impl Iterator<Item = &LeanHolder> {
        self.status.iter().flatten().flat_map(|status| &status.holders)
    }

    /// What this object means to the node called `me`.
    pub fn read(&self, me: &str) -> Result<Lbip, Nameless> {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        let vip = address_from_name(name).map_err(|error| Nameless(error.to_string()))?;
        let own_entry = self
            .entries()
            .find(|holder| holder.node == me)
            .map(|holder| SeenEntry { interface: holder.interface.clone(), mac: holder.mac.clone() });
        Ok(Lbip { vip, spec: self.spec(vip, me), own_entry, services: self.services() })
    }

    fn services(&self) -> Box<str> {
        let services = self.spec.iter().flatten().flat_map(|spec| &spec.services);
        let names: Vec<String> =
            services.map(|service| format!("{}/{}", service.namespace, service.name)).collect();
        names.join(&Lbip::BETWEEN.to_string()).into()
    }

    fn spec(&self, vip: IpAddr, me: &str) -> Result<VipSpec, String> {
        let spec = match &self.spec {
            Some(Ok(spec)) => spec,
            Some(Err(error)) => return Err(format!("spec can't be decoded: {error}")),
            None => return Err("spec is missing".to_owned()),
        };
        if spec.address.parse() != Ok(vip) {
            return Err(format!(
                "spec.address is {:?}, which is not what the object's name says",
                spec.address
            ));
        }
        if !can_be_a_hosts(vip) {
            return Err(
                "no host can have this address (unspecified, loopback, multicast or broadcast)".to_owned()
            );
        }
        let holders_hint = self.holders().map(NodeName::from).collect();
        let base = VipSpec {
            vip,
            revision: Revision(spec.revision),
            nodes: Nodes::Listed(Arc::default()),
            interfaces: Vec::new(),
            preferred: Vec::new(),
            conflict_detection: false,
            ignore_exclusion: false,
            holders_hint,
        };
        // No announcement (a reservation that nobody uses): nobody may hold it, from this revision on.
        let Some(l2) = spec.announce.as_ref().and_then(|announce| announce.l2.as_ref()) else {
            return Ok(base);
        };
        let nodes = match l2.nodes.mode {
            NodeMode::All => Nodes::All,
            NodeMode::Listed => {
                let names: BTreeSet<&str> = l2.nodes.names.iter().map(String::as_str).collect();
                Nodes::Listed(names.into_iter().map(NodeName::from).collect())
            }
            NodeMode::Set => {
                return Err("spec.announce.l2.nodes.mode is Set, which this version does not know".to_owned());
            }
        };
        Ok(VipSpec {
            nodes,
            interfaces: interfaces(l2, me)?.to_vec(),
            preferred: l2
                .preferred
                .iter()
                .map(|node| (NodeName::from(node.node.as_str()), node.weight))
                .collect(),
            conflict_detection: l2.conflict_detection != ConflictDetection::Disabled,
            ignore_exclusion: l2.ignore_node_exclusion,
            ..base
        })
    }
}

/// The interfaces of the node called `me`: each node judges only its own (rule A29).
fn interfaces<'a>(l2: &'a L2Announce, me: &str) -> Result<&'a [String], String> {
    for entry in &l2.per_node {
        let has_me = match entry.nodes.mode {
            NodeMode::All => true,
            NodeMode::Listed => entry.nodes.names.iter().any(|name| name == me),
            NodeMode::Set => {
                return Err(
                    "a nodes.mode in spec.announce.l2.perNode is Set, which this version does not know"
                        .to_owned(),
                );
            }
        };
        if has_me {
            return Ok(&entry.interfaces);
        }
    }
    Ok(&l2.interfaces)
}

fn can_be_a_hosts(address: IpAddr) -> bool {
    let limited_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || limited_broadcast)
}

/// What the core is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpecChange {
    /// A consistent list of all.
    Replaced(Vec<Arc<VipSpec>>),
    /// One is new or has changed.
    Applied(Arc<VipSpec>),
    /// One is gone.
    Deleted(IpAddr),
}

/// The last good meaning of every address, so that one that stops making sense keeps it.
#[derive(Debug)]
pub struct Specs {
    /// This node.
    me: NodeName,
    /// Each as the core was told it, and shared with the core.
    known: BTreeMap<IpAddr, Arc<VipSpec>>,
    /// Node sets, each held once however many addresses name it.
    sets: HashSet<Arc<[NodeName]>>,
    /// Names of holders, likewise.
    names: HashSet<NodeName>,
    /// What was complained about and not mended yet.
    warned: BTreeMap<IpAddr, String>,
    nameless: HashSet<Nameless>,
}

impl Specs {
    /// None yet, for the node called `me`.
    pub fn new(me: &str) -> Self {
        Self {
            me: me.into(),
            known: BTreeMap::new(),
            sets: HashSet::new(),
            names: HashSet::new(),
            warned: BTreeMap::new(),
            nameless: HashSet::new(),
        }
    }

    /// How many addresses are known.
    pub fn count(&self) -> usize {
        self.known.len()
    }

    /// Takes what the watch told; gives what the core must hear, if anything.
    pub fn take(&mut self, change: Change<Result<Lbip, Nameless>>) -> Option<SpecChange> {
        match change {
            Change::Replaced(list) => Some(SpecChange::Replaced(self.replace(list))),
            Change::Applied(Ok(lbip)) => self.apply(lbip).map(SpecChange::Applied),
            Change::Applied(Err(nameless)) => {
                self.complain_nameless(nameless);
                None
            }
            Change::Deleted(Ok(lbip)) => {
                self.warned.remove(&lbip.vip);
                self.known.remove(&lbip.vip).map(|_| SpecChange::Deleted(lbip.vip))
            }
            Change::Deleted(Err(_)) => None,
        }
    }

    fn replace(&mut self, list: Vec<Result<Lbip, Nameless>>) -> Vec<Arc<VipSpec>> {
        let mut before = std::mem::take(&mut self.known);
        self.sets.retain(|set| Arc::strong_count(set) > 1);
        self.names.clear();
        for lbip in list {
            match lbip {
                Ok(lbip) => {
                    // An invalid one finds its last good meaning here and keeps it.
                    if let Some(old) = before.remove(&lbip.vip) {
                        self.known.insert(lbip.vip, old);
                    }
                    self.apply(lbip);
                }
                Err(nameless) => self.complain_nameless(nameless),
            }
        }
        self.warned.retain(|vip, _| !before.contains_key(vip));
        self.known.values().cloned().collect()
    }

    /// The spec, if it is new to the core.
    fn apply(&mut self, lbip: Lbip) -> Option<Arc<VipSpec>> {
        let spec = match lbip.spec {
            Ok(spec) => spec,
            Err(why) => {
                self.complain(lbip.vip, why);
                return None;
            }
        };
        if self.warned.remove(&lbip.vip).is_some() {
            tracing::info!(address = %lbip.vip, "the LoadBalancerIP makes sense again");
        }
        let spec = Arc::new(self.share(spec));
        match self.known.entry(lbip.vip) {
            Entry::Occupied(mut known) => {
                let news = !same_meaning(known.get(), &spec, &self.me);
                news.then(|| {
                    known.insert(Arc::clone(&spec));
                    spec
                })
            }
            Entry::Vacant(vacant) => {
                vacant.insert(Arc::clone(&spec));
                Some(spec)
            }
        }
    }

    /// Thousands of addresses name the same few nodes.
    fn share(&mut self, mut spec: VipSpec) -> VipSpec {
        for name in &mut spec.holders_hint {
            if let Some(shared) = self.names.get(name) {
                *name = shared.clone();
            } else {
                self.names.insert(name.clone());
            }
        }
        if let Nodes::Listed(names) = &mut spec.nodes {
            if let Some(shared) = self.sets.get(names) {
                *names = Arc::clone(shared);
            } else {
                self.sets.insert(Arc::clone(names));
            }
        }
        spec
    }

    fn complain(&mut self, vip: IpAddr, why: String) {
        if self.warned.get(&vip) == Some(&why) {
            return;
        }
        let kept =
            if self.known.contains_key(&vip) { "keeping its last good meaning" } else { "not announced" };
        tracing::warn!(address = %vip, error = why, "ignoring a LoadBalancerIP that makes no sense: {kept}");
        self.warned.insert(vip, why);
    }

    fn complain_nameless(&mut self, nameless: Nameless) {
        // Bounded: the API server refuses such names (CEL), so that many of them are an attack on the log.
        if self.nameless.len() < 64 && !self.nameless.contains(&nameless) {
            tracing::warn!(error = nameless.0, "ignoring a LoadBalancerIP whose name is no address");
            self.nameless.insert(nameless);
        }
    }
}

/// Whether two specs are the same to the core of `me`. Of the hint it needs to know who held the address at the first
/// list, and from then on whether other nodes are there that do (rule A48), not which.
fn same_meaning(a: &VipSpec, b: &VipSpec, me: &NodeName) -> bool {
    let others = |hint: &[NodeName]| hint.iter().any(|name| name != me);
    // Taken apart, so that a new field can't be forgotten here.
    let VipSpec {
        vip,
        revision,
        nodes,
        interfaces,
        preferred,
        conflict_detection,
        ignore_exclusion,
        holders_hint,
    } = a;
    *vip == b.vip
        && *revision == b.revision
        && *nodes == b.nodes
        && *interfaces == b.interfaces
        && *preferred == b.preferred
        && *conflict_detection == b.conflict_detection
        && *ignore_exclusion == b.ignore_exclusion
        && others(holders_hint) == others(&b.holders_hint)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(name: &str, spec: &Value) -> LeanLbip {
        let text = json!({
            "apiVersion": "heraldlb.io/v1beta1", "kind": "LoadBalancerIP",
            "metadata": {"name": name, "uid": "u", "resourceVersion": "7", "managedFields": [{"fieldsV1": {}}]},
            "spec": spec,
            "status": {"holders": [{"node": "n1", "interface": "eth0", "mac": "02:00:00:00:00:01", "since": "2026-01-01T00:00:00Z"}]},
        });
        serde_json::from_value(text).unwrap()
    }

    fn spec(address: &str, revision: u64) -> Value {
        json!({"address": address, "revision": revision, "announce": {"l2": {"nodes": {"mode": "All"}}}})
    }

    fn read(name: &str, spec: &Value) -> Result<Lbip, Nameless> {
        object(name, spec).read("n1")
    }

    fn vip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_whole_object_becomes_a_spec() {
        let spec = json!({
            "address": "fd00:10::1", "revision": 9, "pool": "p", "services": [{"namespace": "a", "name": "b", "uid": "c"}],
            "announce": {"l2": {
                "nodes": {"mode": "Listed", "names": ["n1", "n2"]}, "interfaces": ["en*"],
                "preferred": [{"node": "n1", "weight": 5}], "conflictDetection": "Disabled",
            }},
        });
        let lbip = read("fd00-10--1", &spec).unwrap();
        let entry = SeenEntry { interface: "eth0".to_owned(), mac: "02:00:00:00:00:01".to_owned() };
        assert_eq!(lbip.own_entry, Some(entry));
        assert_eq!(&*lbip.services, "a/b");
        let expected = VipSpec {
            vip: vip("fd00:10::1"),
            revision: Revision(9),
            nodes: Nodes::Listed(["n1", "n2"].map(NodeName::from).into()),
            interfaces: vec!["en*".to_owned()],
            preferred: vec![("n1".into(), 5)],
            conflict_detection: false,
            ignore_exclusion: false,
            holders_hint: vec!["n1".into()],
        };
        assert_eq!(lbip.spec, Ok(expected));
    }

    #[test]
    fn a_reservation_may_be_held_by_nobody() {
        let lbip =
            read("10.0.0.1", &json!({"address": "10.0.0.1", "claimRef": {"namespace": "a", "name": "b"}}))
                .unwrap();
        assert_eq!(lbip.spec.unwrap().nodes, Nodes::Listed(Arc::default()));
    }

    #[test]
    fn garbage_is_refused_with_its_reason_and_decodes_all_the_same() {
        for (name, spec, reason) in [
            ("10.0.0.1", json!({"address": "10.0.0.2"}), "not what the object's name says"),
            ("10.0.0.1", json!({"address": 7}), "can't be decoded"),
            ("10.0.0.1", json!("nonsense"), "can't be decoded"),
            ("10.0.0.1", Value::Null, "spec is missing"),
            ("10.0.0.1", json!({"address": "10.0.0.1", "revision": -1}), "can't be decoded"),
            ("10.0.0.1", json!({"address": "10.0.0.1", "announce": {"l2": {}}}), "can't be decoded"),
            (
                "10.0.0.1",
                json!({"address": "10.0.0.1", "announce": {"l2": {"nodes": {"mode": "Set"}}}}),
                "mode is Set",
            ),
            ("224.0.0.1", spec("224.0.0.1", 1), "no host can have"),
            ("127.0.0.1", spec("127.0.0.1", 1), "no host can have"),
            ("255.255.255.255", spec("255.255.255.255", 1), "no host can have"),
            ("0--0", spec("::", 1), "no host can have"),
        ] {
            let error = read(name, &spec).unwrap().spec.unwrap_err();
            assert!(error.contains(reason), "{name} {spec}: {error}");
        }
        assert!(read("web", &spec("10.0.0.1", 1)).is_err());
    }

    #[test]
    fn an_object_that_stops_making_sense_keeps_its_last_good_meaning() {
        let mut specs = Specs::new("n1");
        let good = |revision| read("10.0.0.1", &spec("10.0.0.1", revision));
        let bad = || read("10.0.0.1", &json!({"address": "10.0.0.1", "announce": {"l2": {}}}));
        assert!(matches!(specs.take(Change::Applied(good(1))), Some(SpecChange::Applied(_))));
        assert_eq!(specs.take(Change::Applied(bad())), None);
        let Some(SpecChange::Replaced(list)) = specs.take(Change::Replaced(vec![bad()])) else { panic!() };
        assert_eq!(list.iter().map(|spec| spec.revision).collect::<Vec<_>>(), [Revision(1)]);
        assert!(matches!(specs.take(Change::Applied(good(2))), Some(SpecChange::Applied(_))));
    }

    #[test]
    fn what_is_missing_from_a_list_is_gone_and_an_invalid_newcomer_is_not_there() {
        let mut specs = Specs::new("n1");
        specs.take(Change::Replaced(vec![
            read("10.0.0.1", &spec("10.0.0.1", 1)),
            read("10.0.0.2", &spec("10.0.0.2", 1)),
        ]));
        let next = vec![
            read("10.0.0.2", &spec("10.0.0.2", 1)),
            read("10.0.0.3", &json!({})),
            read("web", &json!({})),
        ];
        let Some(SpecChange::Replaced(list)) = specs.take(Change::Replaced(next)) else { panic!() };
        assert_eq!(list.iter().map(|spec| spec.vip).collect::<Vec<_>>(), [vip("10.0.0.2")]);
    }

    #[test]
    fn a_node_uses_the_interfaces_of_the_first_entry_that_it_is_in_and_no_other_nodes() {
        let read_as = |me: &str, per_node: &Value| {
            let spec = json!({"address": "10.0.0.1", "announce": {"l2": {
                "nodes": {"mode": "All"}, "interfaces": ["eth0", "eth1"], "perNode": per_node,
            }}});
            object("10.0.0.1", &spec).read(me).unwrap().spec.map(|spec| spec.interfaces)
        };
        let listed = |names: &[&str], on: &[&str]| json!({"nodes": {"mode": "Listed", "names": names}, "interfaces": on});
        let two = json!([listed(&["n1"], &["eth0"]), listed(&["n2", "n3"], &["eth1"])]);
        for (me, on) in
            [("n1", &["eth0"][..]), ("n2", &["eth1"]), ("n3", &["eth1"]), ("n4", &["eth0", "eth1"])]
        {
            assert_eq!(read_as(me, &two).unwrap(), on, "{me}");
        }
        let rest = json!([{"nodes": {"mode": "Listed", "names": ["n1"]}}, {"nodes": {"mode": "All"}, "interfaces": ["eth1"]}]);
        assert_eq!(read_as("n1", &rest).unwrap(), Vec::<String>::new(), "no limit");
        assert_eq!(read_as("n2", &rest).unwrap(), ["eth1"]);
        assert!(read_as("n1", &json!([{"nodes": {"mode": "Set"}}])).is_err());
    }

    #[test]
    fn a_change_of_status_is_news_to_the_core_only_when_other_nodes_come_to_hold_or_cease_to() {
        let mut specs = Specs::new("n1");
        specs.take(Change::Applied(read("10.0.0.1", &spec("10.0.0.1", 1))));
        for (holders, news) in [
            (vec![], false),
            (vec!["n1"], false),
            (vec!["n1", "n2"], true),
            (vec!["n3"], false),
            (vec!["n3", "n2"], false),
            (vec!["n1"], true),
        ] {
            let mut again = read("10.0.0.1", &spec("10.0.0.1", 1)).unwrap();
            again.own_entry = None;
            if let Ok(spec) = &mut again.spec {
                spec.holders_hint = holders.iter().copied().map(NodeName::from).collect();
            }
            assert_eq!(specs.take(Change::Applied(Ok(again))).is_some(), news, "{holders:?}");
        }
    }

    #[test]
    fn addresses_that_name_the_same_nodes_share_one_set() {
        let mut specs = Specs::new("n1");
        let listed = |name: &str| {
            read(
                name,
                &json!({"address": name, "announce": {"l2": {"nodes": {"mode": "Listed", "names": ["n1"]}}}}),
            )
        };
        let Some(SpecChange::Replaced(list)) =
            specs.take(Change::Replaced(vec![listed("10.0.0.1"), listed("10.0.0.2")]))
        else {
            panic!()
        };
        let sets: Vec<_> = list
            .iter()
            .map(|spec| match &spec.nodes {
                Nodes::Listed(names) => Arc::as_ptr(names).cast::<u8>(),
                Nodes::All => panic!(),
            })
            .collect();
        assert_eq!(sets[0], sets[1]);
    }

    #[test]
    fn a_deleted_address_is_told_once() {
        let mut specs = Specs::new("n1");
        specs.take(Change::Applied(read("10.0.0.1", &spec("10.0.0.1", 1))));
        let gone = || Change::Deleted(read("10.0.0.1", &Value::Null));
        assert_eq!(specs.take(gone()), Some(SpecChange::Deleted(vip("10.0.0.1"))));
        assert_eq!(specs.take(gone()), None);
    }
}
