//! A model of the API server and the writer: versions grow, creates of a name that exists and writes under an old
//! version are refused, and watch events follow; as seen on a real server.

mod writer;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use herald_crds::{L2Advertisement, LoadBalancerIP};
use herald_ipam::{ServiceRef, Version};
use herald_runtime::watch::Change;
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta},
    jiff::Timestamp,
};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use super::super::{Core, Event, Now};
use crate::{
    job::{Done, EventJob, Job},
    metrics::Metrics,
    objects::{
        address::Address,
        endpoints::EndpointsObject,
        node::{KnownNode, Labelled},
        pool::{Pool, PoolObject},
        service::{Ingress, Service, ServiceObject},
    },
    watch::Present,
};

/// What does not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dropped {
    /// The annotation that names the pool: something between the controller and the API server drops it.
    Pool,
    /// `spec.announce` of an update: the API server's CRD does not know it.
    Announce,
}

/// The model, and a core that it drives.
pub(super) struct World {
    pub(super) core: Core,
    now: Now,
    version: u64,
    services: BTreeMap<ServiceRef, Service>,
    addresses: BTreeMap<IpAddr, Address>,
    pools: BTreeMap<String, Pool>,
    advertisements: BTreeMap<String, L2Advertisement>,
    nodes: Vec<KnownNode>,
    /// Field managers that own `status.loadBalancer.ingress` of a Service.
    rivals: BTreeMap<ServiceRef, String>,
    /// Services whose annotation came with a manifest: an apply that leaves it out does not take it away.
    manifests: BTreeSet<ServiceRef>,
    /// What is dropped of each write.
    pub(super) drops: Option<Dropped>,
    /// Jobs that wait to be carried out, while they are held back.
    held: Option<VecDeque<Job>>,
    holds_statuses_only: bool,
    pub(super) refuses: bool,
    pub(super) refused: usize,
    /// Writes that changed something, by kind.
    pub(super) writes: Vec<&'static str>,
    pub(super) events: Vec<EventJob>,
}

impl World {
    /// Nothing but three nodes.
    pub(super) fn new() -> Self {
        let now = Now { monotonic: Instant::now(), wall: Timestamp::from_second(1_000_000).unwrap() };
        let nodes = ["n1", "n2", "n3"].map(|name| KnownNode {
            labelled: Labelled {
                name: name.to_owned(),
                labels: [("node".to_owned(), name.to_owned())].into(),
            },
            addresses: BTreeSet::new(),
        });
        Self {
            core: new_core(now),
            now,
            version: 100,
            services: BTreeMap::new(),
            addresses: BTreeMap::new(),
            pools: BTreeMap::new(),
            advertisements: BTreeMap::new(),
            nodes: nodes.into(),
            rivals: BTreeMap::new(),
            manifests: BTreeSet::new(),
            drops: None,
            held: None,
            holds_statuses_only: false,
            refuses: false,
            refused: 0,
            writes: Vec::new(),
            events: Vec::new(),
        }
    }

    /// With a pool called `default`, and the core running.
    pub(super) fn running(addresses: &[&str]) -> Self {
        let mut world = Self::new();
        world.pool("default", &json!({"addresses": addresses}));
        world.start();
        world
    }

    /// Lists everything to the core, as at a start, and carries out what it wants.
    pub(super) fn start(&mut self) {
        self.list_all_but_nodes();
        self.handle(Event::Nodes(Change::Replaced(self.nodes.clone())));
        self.run();
    }

    pub(super) fn list_all_but_nodes(&mut self) {
        let pools = self.pools.values().cloned().collect();
        self.handle(Event::Pools(Change::Replaced(pools)));
        let namespaces =
            ["shop", "bank"].map(|name| Labelled { name: name.to_owned(), ..Labelled::default() });
        self.handle(Event::Namespaces(Change::Replaced(namespaces.into())));
        let advertisements = self.advertisements.values().cloned().map(Into::into).collect();
        self.handle(Event::Advertisements(Change::Replaced(advertisements)));
        self.list_addresses();
        self.list_services();
    }

    pub(super) fn list_addresses(&mut self) {
        let addresses = self.addresses.values().cloned().collect();
        self.handle(Event::Addresses(Change::Replaced(addresses)));
    }

    pub(super) fn list_services(&mut self) {
        let services = self.services.values().filter(|service| service.is_load_balancer).cloned().collect();
        self.handle(Event::Services(Change::Replaced(services)));
    }

    /// A new process over the same objects. What was under way is lost.
    pub(super) fn restart(&mut self) {
        self.core = new_core(self.now);
        self.held = None;
        self.writes.clear();
        self.events.clear();
        self.start();
    }

    /// Another process leads from here on; what was under way is dropped.
    pub(super) fn stand_by(&mut self) {
        self.handle(Event::StandsBy);
        assert!(self.core.poll_job().is_none(), "who stands by writes nothing");
        self.held = self.held.as_ref().map(|_| VecDeque::new());
    }

    pub(super) fn lead(&mut self) {
        self.lead_by_a_list_older_than(|_| ());
    }

    /// The same; `change` happens after its list was read, and the watches tell of it first.
    pub(super) fn lead_by_a_list_older_than(&mut self, change: impl FnOnce(&mut Self)) {
        let known = self.core.versions().unwrap_or_default();
        let mut present = Present { version: Version(self.version), ..Present::nothing() };
        for object in self.addresses.values() {
            present.note(object.clone(), &known);
        }
        change(self);
        self.handle(Event::Present(present));
        self.handle(Event::Leads);
        self.run();
    }

    /// Keeps jobs from being carried out until [`World::let_go`].
    pub(super) fn hold(&mut self) {
        self.held = Some(VecDeque::new());
    }

    pub(super) fn hold_statuses(&mut self) {
        self.hold();
        self.holds_statuses_only = true;
    }

    pub(super) fn let_go(&mut self) {
        let held = self.held.take().unwrap_or_default();
        self.holds_statuses_only = false;
        for job in held {
            self.carry_out(job);
        }
        self.run();
    }

    /// The names of the LoadBalancerIPs that wait to be read.
    pub(super) fn is_about_to_read(&self) -> Vec<&str> {
        let held = self.held.iter().flatten();
        held.filter_map(|job| if let Job::Read { name, .. } = job { Some(&**name) } else { None }).collect()
    }

    /// Whether a create waits to be carried out.
    pub(super) fn is_about_to_take(&self) -> bool {
        self.held.iter().flatten().any(|job| matches!(job, Job::Take(_)))
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.core.handle_timeout(self.now);
        self.run();
    }

    /// Lets pass what is only gathered, and forgets what was written.
    pub(super) fn settle(&mut self) {
        self.pass(Duration::from_secs(2));
        self.writes.clear();
        self.events.clear();
    }

    fn handle(&mut self, event: Event) {
        self.core.handle(self.now, event);
    }

    fn run(&mut self) {
        while let Some(job) = self.core.poll_job() {
            match &mut self.held {
                Some(held) if !self.holds_statuses_only || matches!(job, Job::Status(_)) => {
                    held.push_back(job);
                }
                _ => self.carry_out(job),
            }
        }
    }

    fn next_version(&mut self) -> Version {
        self.version += 1;
        Version(self.version)
    }
}

fn slice(service: &str, nodes: &[&str]) -> EndpointsObject {
    let endpoints: Vec<Value> = nodes.iter().map(|node| json!({"nodeName": node})).collect();
    serde_json::from_value(json!({
        "metadata": {
            "namespace": "shop", "name": format!("{service}-x"), "resourceVersion": "1",
            "labels": {"kubernetes.io/service-name": service},
        },
        "endpoints": endpoints,
    }))
    .unwrap()
}

fn new_core(now: Now) -> Core {
    let mut core = Core::new(None, Metrics::new(&mut Registry::default()), now);
    core.handle(now, Event::Leads);
    core
}

/// What users do.
impl World {
    pub(super) fn pool(&mut self, name: &str, spec: &Value) {
        let version = self.next_version();
        let object = json!({
            "apiVersion": "heraldlb.io/v1beta1", "kind": "IPAddressPool",
            "metadata": {"name": name, "uid": name, "resourceVersion": version.0.to_string()},
            "spec": spec,
        });
        let mut pool = Pool::from(serde_json::from_value::<PoolObject>(object).unwrap());
        pool.status = self.pools.get(name).and_then(|known| known.status.clone());
        self.pools.insert(name.to_owned(), pool.clone());
        self.handle(Event::Pools(Change::Applied(pool)));
        self.run();
    }

    pub(super) fn delete_pool(&mut self, name: &str) {
        let mut pool = self.pools.remove(name).unwrap();
        pool.version = self.next_version();
        self.handle(Event::Pools(Change::Deleted(pool)));
        self.run();
    }

    pub(super) fn pool_condition(&self, name: &str) -> (String, String) {
        let status = self.pools[name].status.clone().unwrap();
        (status.conditions[0].status.clone(), status.conditions[0].reason.clone())
    }

    pub(super) fn pool_message(&self, name: &str) -> String {
        self.pools[name].status.clone().unwrap().conditions[0].message.clone()
    }

    /// Addresses left, IPv4 and IPv6.
    pub(super) fn pool_counts(&self, name: &str) -> (i64, i64) {
        let status = self.pools[name].status.clone().unwrap();
        (status.available_ipv4, status.available_ipv6)
    }

    pub(super) fn advertisement(&mut self, name: &str, spec: &Value) {
        let version = self.next_version();
        let object = json!({
            "apiVersion": "heraldlb.io/v1beta1", "kind": "L2Advertisement",
            "metadata": {"name": name, "uid": name, "resourceVersion": version.0.to_string()},
            "spec": spec,
        });
        let advertisement: L2Advertisement = serde_json::from_value(object).unwrap();
        self.advertisements.insert(name.to_owned(), advertisement.clone());
        self.handle(Event::Advertisements(Change::Applied(advertisement.into())));
        self.run();
    }

    pub(super) fn delete_advertisement(&mut self, name: &str) {
        let mut advertisement = self.advertisements.remove(name).unwrap();
        advertisement.metadata.resource_version = Some(self.next_version().0.to_string());
        self.handle(Event::Advertisements(Change::Deleted(advertisement.into())));
        self.run();
    }

    /// The answer to a write of its status comes after the news that it is gone.
    pub(super) fn delete_advertisement_before_the_answer(&mut self, name: &str) {
        let answer = self.advertisements[name].clone();
        self.delete_advertisement(name);
        self.handle(Event::Done(Done::Advertisement(name.to_owned(), Some(Box::new(answer.into())))));
        self.run();
    }

    pub(super) fn advertisement_reason(&self, name: &str) -> String {
        self.advertisements[name].status.clone().unwrap().conditions[0].reason.clone()
    }

    pub(super) fn nodes(&mut self) {
        self.handle(Event::Nodes(Change::Replaced(self.nodes.clone())));
        self.run();
    }

    /// Somebody labels a node as excluded from load balancers.
    pub(super) fn exclude(&mut self, name: &str) {
        let node = self.nodes.iter_mut().find(|node| node.labelled.name == name).unwrap();
        node.labelled.labels =
            [("node", name), ("node.kubernetes.io/exclude-from-external-load-balancers", "")].into();
        self.nodes();
    }

    /// The kubelet of a node says that it has these addresses.
    pub(super) fn node_has(&mut self, name: &str, addresses: &[&str]) {
        let node = self.nodes.iter_mut().find(|node| node.labelled.name == name).unwrap();
        node.addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let node = node.clone();
        self.handle(Event::Nodes(Change::Applied(node)));
        self.run();
    }

    /// Creates or changes a Service: `spec` is merged over `type: LoadBalancer`, IPv4, single stack.
    pub(super) fn service(&mut self, name: &str, annotations: &Value, spec: &Value) {
        let key = ServiceRef::new("shop", name);
        let version = self.next_version();
        let mut all =
            json!({"type": "LoadBalancer", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let before = self.services.get(&key).cloned();
        let uid =
            before.as_ref().map_or_else(|| format!("{name}-{}", version.0), |it| it.owner.uid.to_string());
        let object: ServiceObject = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "namespace": "shop", "name": name, "uid": uid, "resourceVersion": version.0.to_string(),
                "annotations": annotations,
            },
            "spec": all,
        }))
        .unwrap();
        let mut service = Service::from(object);
        if let Some(before) = before {
            // As the API server does when the type changes.
            service.set_ingress(if service.is_load_balancer {
                before.ingress().to_vec()
            } else {
                Vec::new()
            });
            service.conditions = before.conditions;
            service.pool_shown = before.pool_shown;
        }
        let was = self.services.insert(key, service.clone());
        self.tell_service(was.as_ref(), service);
    }

    pub(super) fn delete_service(&mut self, name: &str) {
        let mut service = self.services.remove(&ServiceRef::new("shop", name)).unwrap();
        service.set_version(self.next_version());
        self.handle(Event::Services(Change::Deleted(service)));
        self.run();
    }

    /// The watch with its field selector: what leaves the type looks deleted.
    fn tell_service(&mut self, was: Option<&Service>, service: Service) {
        let was_seen = was.is_some_and(|was| was.is_load_balancer);
        if service.is_load_balancer {
            self.handle(Event::Services(Change::Applied(service)));
        } else if was_seen {
            self.handle(Event::Services(Change::Deleted(service)));
        }
        self.run();
    }

    /// Somebody writes the Service's ingress; with `manager` by server-side apply that then owns it.
    pub(super) fn edit_ingress(&mut self, name: &str, ip: Option<&str>, manager: Option<&str>) {
        let key = ServiceRef::new("shop", name);
        let version = self.next_version();
        match manager {
            Some(manager) => self.rivals.insert(key.clone(), manager.to_owned()),
            None => self.rivals.remove(&key),
        };
        let service = self.services.get_mut(&key).unwrap();
        service.set_version(version);
        let entry = ip.map(|ip| Ingress { ip: Some(ip.to_owned()), ..Ingress::default() });
        service.set_ingress(entry.into_iter().collect());
        let service = service.clone();
        self.handle(Event::Services(Change::Applied(service)));
        self.run();
    }

    /// Somebody applies a manifest that was exported while the Service had an address of this pool.
    pub(super) fn apply_exported(&mut self, name: &str, pool: &str) {
        let key = ServiceRef::new("shop", name);
        let version = self.next_version();
        let service = self.services.get_mut(&key).unwrap();
        service.set_version(version);
        service.pool_shown = Some(pool.to_owned());
        let service = service.clone();
        self.manifests.insert(key);
        self.handle(Event::Services(Change::Applied(service)));
        self.run();
    }

    pub(super) fn endpoints(&mut self, service: &str, nodes: &[&str]) {
        let slice = slice(service, nodes);
        self.handle(Event::Endpoints(Change::Replaced(vec![slice.into()])));
        self.run();
    }

    pub(super) fn one_slice(&mut self, service: &str, nodes: &[&str]) {
        let slice = slice(service, nodes);
        self.handle(Event::Endpoints(Change::Applied(slice.into())));
        self.run();
    }

    /// A user creates a LoadBalancerIP.
    pub(super) fn reserve(&mut self, address: &str, claim: &Value) {
        let stored = self.reserve_silently(address, address, claim);
        self.handle(Event::Addresses(Change::Applied(stored)));
        self.run();
    }

    /// The same, and no watch tells of it; its object may have another name than the CRD allows today.
    pub(super) fn reserve_silently(&mut self, address: &str, name: &str, claim: &Value) -> Address {
        let object: LoadBalancerIP = serde_json::from_value(json!({
            "apiVersion": "heraldlb.io/v1beta1", "kind": "LoadBalancerIP",
            "metadata": {"name": name, "uid": "user"},
            "spec": {"address": address, "claimRef": claim},
        }))
        .unwrap();
        self.store(object)
    }

    pub(super) fn delete_address(&mut self, address: &str) {
        let mut gone = self.addresses.remove(&address.parse().unwrap()).unwrap();
        gone.version = self.next_version();
        self.handle(Event::Addresses(Change::Deleted(gone)));
        self.run();
    }

    /// A user deletes it, and the watch is late.
    pub(super) fn delete_address_silently(&mut self, address: &str) {
        self.addresses.remove(&address.parse().unwrap()).unwrap();
        self.next_version();
    }

    /// The same; what the watch is to tell of it, at last.
    pub(super) fn delete_address_late(&mut self, address: &str) -> [Event; 2] {
        let known = self.addresses[&address.parse::<IpAddr>().unwrap()].clone();
        self.delete_address_silently(address);
        let mut gone = known.clone();
        gone.version = Version(self.version);
        [Change::Applied(known), Change::Deleted(gone)].map(Event::Addresses)
    }

    pub(super) fn tell(&mut self, event: Event) {
        self.handle(event);
        self.run();
    }

    /// Another leader gives `service` this address, written like `like`, and only the watch of Services tells.
    pub(super) fn served_by_another(&mut self, service: &str, address: &str, like: LoadBalancerIP) {
        let mut object = LoadBalancerIP { metadata: ObjectMeta::default(), ..like };
        object.metadata.name = Some(address.to_owned());
        address.clone_into(&mut object.spec.address);
        for user in &mut object.spec.services {
            service.clone_into(&mut user.name);
            user.uid = self.uid(service);
        }
        self.store(object);
        self.edit_ingress(service, Some(address), None);
    }

    /// Another leader gives an address back and gives it to `service`, of which the watch tells before a release of ours
    /// is answered that found nothing.
    pub(super) fn given_anew_before_the_release_is_answered(&mut self, address: &str, service: &str) {
        let mut object = self.address(address).unwrap();
        self.delete_address_silently(address);
        let held = self.held.take().unwrap_or_default();
        let (releases, others): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|job| matches!(job, Job::Release(_)));
        assert_eq!(releases.len(), 1, "{releases:?}");
        object.metadata.uid = None;
        for user in &mut object.spec.services {
            user.name = service.to_owned();
            user.uid = self.uid(service);
        }
        for job in releases {
            let Job::Release(job) = job else { continue };
            let found_nothing = self.release(*job);
            let stored = self.store(object.clone());
            self.handle(Event::Addresses(Change::Applied(stored)));
            self.handle(Event::Done(found_nothing));
        }
        for job in others {
            self.carry_out(job);
        }
        self.run();
    }

    /// Somebody changes a LoadBalancerIP.
    pub(super) fn edit_address(&mut self, address: &str, edit: impl FnOnce(&mut LoadBalancerIP)) {
        self.edit_unseen(address, edit);
        self.tell_address(address);
    }

    /// The same, and the watch lags behind.
    pub(super) fn edit_unseen(&mut self, address: &str, edit: impl FnOnce(&mut LoadBalancerIP)) {
        let mut object = self.address(address).unwrap();
        edit(&mut object);
        self.store(object);
    }

    pub(super) fn tell_address(&mut self, address: &str) {
        let stored = self.addresses[&address.parse::<IpAddr>().unwrap()].clone();
        self.handle(Event::Addresses(Change::Applied(stored)));
        self.run();
    }

    /// The reason of the condition on a LoadBalancerIP; empty if it has none.
    pub(super) fn problem(&self, address: &str) -> (String, String) {
        let status = self.address(address).and_then(|object| object.status);
        let found = status.and_then(|it| it.conditions.into_iter().find(|it| it.type_ == "Problem"));
        found.map(|found| (found.reason, found.message)).unwrap_or_default()
    }

    /// A speaker notes itself as holder, or that it is one no longer.
    pub(super) fn held_by(&mut self, address: &str, node: Option<&str>) {
        let mut object = self.addresses[&address.parse::<IpAddr>().unwrap()].object();
        let holders: Vec<Value> = node
            .map(|node| json!({"node": node, "interface": "eth0", "mac": "02:00:00:00:00:01", "since": "2026-01-01T00:00:00Z"}))
            .into_iter()
            .collect();
        object.status = serde_json::from_value(json!({"holders": holders})).unwrap();
        let stored = self.store(object);
        self.handle(Event::Addresses(Change::Applied(stored)));
        self.run();
    }

    fn store(&mut self, mut object: LoadBalancerIP) -> Address {
        let version = self.next_version();
        object.metadata.resource_version = Some(version.0.to_string());
        object.metadata.uid.get_or_insert_with(|| format!("uid-{}", version.0));
        let address = Address::try_from(object).unwrap();
        self.addresses.insert(address.address, address.clone());
        address
    }
}

/// What users see.
impl World {
    pub(super) fn shows(&self, name: &str) -> Vec<String> {
        let service = &self.services[&ServiceRef::new("shop", name)];
        service.shown.iter().map(ToString::to_string).collect()
    }

    /// Status and reason of one of a Service's conditions; empty if it has none.
    pub(super) fn condition(&self, name: &str, kind: &str) -> (String, String) {
        let found = self.find_condition(name, kind);
        found.map(|condition| (condition.status.clone(), condition.reason.clone())).unwrap_or_default()
    }

    pub(super) fn message(&self, name: &str, kind: &str) -> String {
        self.find_condition(name, kind).map(|condition| condition.message.clone()).unwrap_or_default()
    }

    fn find_condition(&self, name: &str, kind: &str) -> Option<&Condition> {
        let kind = format!("heraldlb.io/{kind}");
        let service = &self.services[&ServiceRef::new("shop", name)];
        service.conditions.iter().find(|condition| condition.type_ == kind)
    }

    pub(super) fn has_marks(&self, name: &str) -> bool {
        self.services[&ServiceRef::new("shop", name)].bears_our_marks()
    }

    pub(super) fn uid(&self, name: &str) -> String {
        self.services[&ServiceRef::new("shop", name)].owner.uid.to_string()
    }

    pub(super) fn address(&self, address: &str) -> Option<LoadBalancerIP> {
        Some(self.addresses.get(&address.parse::<IpAddr>().unwrap())?.object())
    }

    pub(super) fn users(&self, address: &str) -> Vec<String> {
        let services = self.address(address).map(|object| object.spec.services).unwrap_or_default();
        services.iter().map(|service| service.name.clone()).collect()
    }

    pub(super) fn listed_nodes(&self, address: &str) -> Vec<String> {
        let announce = self.address(address).unwrap().spec.announce.clone().unwrap();
        announce.l2.unwrap().nodes.names
    }

    /// No address stands on two Services, and every one shown is recorded for who shows it.
    pub(super) fn check(&self) {
        let mut seen = BTreeSet::new();
        for (name, service) in &self.services {
            for address in service.shown.iter().copied().filter(|_| !self.rivals.contains_key(name)) {
                assert!(seen.insert(address), "{address} stands on two Services");
                let users = self.addresses[&address].users();
                assert_eq!(users, std::slice::from_ref(&service.owner), "{address}");
            }
        }
    }
}
