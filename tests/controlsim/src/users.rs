//! What users, administrators, Kubernetes and speakers do to objects. Which object it is done to, and how, is drawn
//! when it is done. Services are here; `users/pools` and `users/addresses` have the rest.

mod addresses;
mod pools;

use std::time::Duration;

use serde_json::{Value, json};

use crate::api::{Actor, Key, Kind, shown};
use crate::world::{Happening, World};
use herald_seeds::Dice;

/// Something that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Namespaces, nodes, pools: what there is before any controller.
    Begin,
    CreateService,
    DeleteService,
    /// Deleted, and created again under the same name at once.
    RecreateService,
    /// Of type LoadBalancer no longer, or again.
    ServiceType,
    /// Another IP family policy.
    ServiceFamilies,
    /// Asks for certain addresses, or no longer.
    ServicePins,
    /// Asks for a pool, or no longer.
    ServicePool,
    /// Sharing key, ports, traffic policy.
    ServiceSharing,
    /// A label that nothing depends on.
    ServiceLabel,
    /// More, fewer or other addresses.
    PoolAddresses,
    PoolExcluded,
    PoolAllocation,
    /// Reclaim policy, automatic assignment, sharing, limit.
    PoolTerms,
    DeletePool,
    CreatePool,
    /// A pool that overlaps another.
    OverlapPool,
    /// `status.loadBalancer` written by hand or by another program.
    StatusByHand,
    /// An exported manifest is applied, with the annotation that Herald had written into it.
    Manifest,
    /// A LoadBalancerIP in use is deleted.
    DeleteAddress,
    /// Its spec is edited.
    EditAddress,
    /// One of its users is written there a second time, under another name.
    DoubleUser,
    /// Another program writes a condition `Problem` on it.
    ForeignProblem,
    Reserve,
    Unreserve,
    /// A foreign finalizer on a LoadBalancerIP.
    Finalizer,
    Advertisement,
    Node,
    Endpoints,
    Namespace,
    /// Foreign finalizers let go.
    Finalized,
    /// Another controller gives up what it wrote.
    CloudStops,
}

pub(crate) const NAMESPACES: [&str; 2] = ["shop", "bank"];
const SERVICES: [&str; 5] = ["web", "api", "dns", "mail", "game"];
const CLEANUP: &str = "service.kubernetes.io/load-balancer-cleanup";

impl World {
    pub(crate) fn act(&mut self, act: Act) {
        match act {
            Act::Begin => self.begin(),
            Act::CreateService => self.create_service(),
            Act::DeleteService => self.delete_service(),
            Act::RecreateService => self.recreate_service(),
            Act::ServiceType
            | Act::ServiceFamilies
            | Act::ServicePins
            | Act::ServicePool
            | Act::ServiceSharing
            | Act::ServiceLabel => self.edit_service(act),
            Act::PoolAddresses
            | Act::PoolExcluded
            | Act::PoolAllocation
            | Act::PoolTerms
            | Act::DeletePool
            | Act::CreatePool
            | Act::OverlapPool => self.edit_pool(act),
            Act::StatusByHand => self.write_status(),
            Act::Manifest => self.apply_manifest(),
            Act::DeleteAddress => self.delete_address(),
            Act::EditAddress => self.edit_address(),
            Act::DoubleUser => self.double_user(),
            Act::ForeignProblem => self.write_problem(),
            Act::Reserve => self.reserve(),
            Act::Unreserve => self.unreserve(),
            Act::Finalizer => self.add_finalizer(),
            Act::Advertisement => self.edit_advertisement(),
            Act::Node => self.edit_node(),
            Act::Endpoints => self.edit_endpoints(),
            Act::Namespace => self.edit_namespace(),
            Act::Finalized => self.finalize(),
            Act::CloudStops => self.cloud_stops(),
        }
    }

    /// Any object of a kind.
    pub(super) fn any(&mut self, kind: Kind) -> Option<Key> {
        let all: Vec<Key> = self.api.all(kind).map(|(key, _)| key.clone()).collect();
        self.dice.pick(&all).cloned()
    }

    fn create_service(&mut self) {
        let free: Vec<Key> = NAMESPACES
            .into_iter()
            .flat_map(|namespace| SERVICES.map(|name| Key::of(Kind::Service, namespace, name)))
            .filter(|key| self.api.get(key).is_none())
            .collect();
        if let Some(key) = self.dice.pick(&free).cloned() {
            let object = new_service(&mut self.dice, self.check.flavour);
            self.api.create(Actor::User, &key, object);
        }
    }

    fn delete_service(&mut self) {
        let Some(key) = self.any(Kind::Service) else { return };
        self.remove_service(&key);
    }

    fn remove_service(&mut self, key: &Key) {
        self.api.delete(Actor::User, key);
        if self.api.get(key).is_some() {
            let pause = self.dice.whole_ms(500, 8_000);
            self.after(pause, Happening::Act(Act::Finalized));
        }
    }

    fn recreate_service(&mut self) {
        let Some(key) = self.any(Kind::Service) else { return };
        self.api.delete(Actor::User, &key);
        if self.api.get(&key).is_none() {
            let object = new_service(&mut self.dice, self.check.flavour);
            self.api.create(Actor::User, &key, object);
        }
    }

    /// The service controller of a cloud lets go of what is being deleted.
    pub(crate) fn finalize(&mut self) {
        let waiting: Vec<Key> = [Kind::Service, Kind::Address]
            .into_iter()
            .flat_map(|kind| self.api.all(kind))
            .filter(|(key, object)| {
                !object.value["metadata"]["finalizers"].is_null() && self.check.held.as_ref() != Some(key)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in waiting {
            self.api.finalize(&key);
        }
    }

    fn edit_service(&mut self, act: Act) {
        let Some(key) = self.any(Kind::Service) else { return };
        let (dice, flavour) = (&mut self.dice, self.check.flavour);
        let pools: Vec<String> = self.api.all(Kind::Pool).map(|(key, _)| key.name.clone()).collect();
        let mut edited = self.api.get(&key).map(|object| object.value.clone()).unwrap_or_default();
        match act {
            Act::ServiceType => {
                let balanced = edited["spec"]["type"] == "LoadBalancer";
                edited["spec"]["type"] = json!(if balanced { "ClusterIP" } else { "LoadBalancer" });
                if balanced {
                    edited["status"]["loadBalancer"] = json!({});
                    self.api.drop_ingress(&key);
                }
            }
            Act::ServiceFamilies => families(dice, &mut edited),
            Act::ServicePins => pins(dice, &mut edited),
            Act::ServicePool => {
                let pool = dice.pick(&pools).cloned();
                annotate(&mut edited, "address-pool", pool.filter(|_| dice.chance(0.6)).as_deref());
            }
            Act::ServiceSharing => sharing(dice, flavour, &mut edited),
            _ => edited["metadata"]["labels"]["note"] = json!(dice.number(0, 99).to_string()),
        }
        self.api.change(Actor::User, &key, |object| *object = edited);
    }

    /// To a Service that is there, or to one that is made anew.
    fn apply_manifest(&mut self) {
        let Some(key) = self.any(Kind::Service) else { return };
        if self.dice.chance(0.5) {
            let object = self.api.get(&key).map(|object| object.value.clone()).unwrap_or_default();
            self.api.delete(Actor::User, &key);
            if self.api.get(&key).is_none() {
                let mut metadata = object["metadata"].clone();
                if let Some(metadata) = metadata.as_object_mut() {
                    metadata.retain(|name, _| name == "labels" || name == "annotations");
                }
                self.api.create(Actor::User, &key, json!({"metadata": metadata, "spec": object["spec"]}));
            }
        }
        let pool = self.dice.pick(&["first", "second", "gone"]).copied().unwrap_or_default();
        self.api.apply_annotation(&key, "kubectl", pool);
    }

    fn write_status(&mut self) {
        let Some(key) = self.any(Kind::Service) else { return };
        let Some(service) = self.api.get(&key) else { return };
        if !service.is_load_balancer() {
            return;
        }
        let own = shown(&service.value);
        let others: Vec<_> =
            self.api.all(Kind::Service).flat_map(|(_, object)| shown(&object.value)).collect();
        let manager = ["kubectl-edit", "kubectl-edit", "kubectl-edit", "cloud"];
        let manager = self.dice.pick(&manager).copied().unwrap_or_default();
        let ingress = match self.dice.number(0, 4) {
            0 => None,
            1 => self.dice.pick(&others).map(|address| vec![*address]),
            2 => Some(vec![any_v4(&mut self.dice)]),
            3 => own.first().map(|first| vec![*first]),
            _ => Some(own.into_iter().chain([any_v4(&mut self.dice)]).collect()),
        };
        let ingress =
            ingress.map(|all| all.iter().map(|address| json!({"ip": address.to_string()})).collect());
        self.api.write_ingress(&key, manager, ingress);
        if manager == "cloud" {
            // Such a program is stopped sooner or later, and its entry taken away.
            let pause = self.dice.whole_ms(1_000, 20_000);
            self.after(pause, Happening::Act(Act::CloudStops));
        }
    }

    pub(crate) fn cloud_stops(&mut self) {
        let services: Vec<Key> = self.api.all(Kind::Service).map(|(key, _)| key.clone()).collect();
        for key in services.into_iter().filter(|key| self.api.ingress_is_of(key, "cloud")).collect::<Vec<_>>()
        {
            self.api.write_ingress(&key, "kubectl-edit", None);
        }
    }

    fn edit_node(&mut self) {
        let name = format!("n{}", self.dice.number(1, 4));
        let key = Key::of(Kind::Node, "", &name);
        if self.api.get(&key).is_none() {
            let labels = json!({"zone": if self.dice.chance(0.5) { "a" } else { "b" }});
            self.api.create(Actor::Cluster, &key, json!({"metadata": {"labels": labels}}));
        } else if self.dice.chance(0.3) {
            self.api.delete(Actor::Cluster, &key);
        } else {
            let zone = if self.dice.chance(0.5) { "a" } else { "b" };
            self.api.change(Actor::Cluster, &key, |node| node["metadata"]["labels"]["zone"] = json!(zone));
        }
    }

    fn edit_namespace(&mut self) {
        let name = self.dice.pick(&NAMESPACES).copied().unwrap_or_default();
        let key = Key::of(Kind::Namespace, "", name);
        let team = if self.dice.chance(0.5) { "red" } else { "blue" };
        self.api.change(Actor::User, &key, |object| object["metadata"]["labels"]["team"] = json!(team));
    }

    fn edit_endpoints(&mut self) {
        let Some(service) = self.any(Kind::Service) else { return };
        let key = Key::of(Kind::Slice, &service.namespace, &format!("{}-x", service.name));
        let nodes: Vec<Value> = (1..=3)
            .filter(|_| self.dice.chance(0.5))
            .map(|node| json!({"nodeName": format!("n{node}"), "conditions": {"ready": true}}))
            .collect();
        if self.api.get(&key).is_none() {
            let labels = json!({"kubernetes.io/service-name": service.name});
            let slice = json!({"metadata": {"labels": labels}, "addressType": "IPv4", "endpoints": nodes});
            self.api.create(Actor::Cluster, &key, slice);
        } else if self.dice.chance(0.2) {
            self.api.delete(Actor::Cluster, &key);
        } else {
            self.api.change(Actor::Cluster, &key, |slice| slice["endpoints"] = json!(nodes));
        }
    }

    /// Once in a while: speakers note who holds what.
    pub(crate) fn cluster(&mut self) {
        let pause = self.dice.whole_ms(500, 3_000);
        self.after(pause, Happening::Cluster);
        if let Some(key) = self.any(Kind::Address) {
            self.note_holder(&key);
        }
        if self.dice.chance(self.weather.compacts * 0.2) {
            self.strike(crate::faults::Fault::Compaction);
        }
    }

    fn begin(&mut self) {
        for (name, team) in [("shop", "red"), ("bank", "blue"), ("herald-system", "none")] {
            let labels = json!({"team": team});
            self.api.create(
                Actor::User,
                &Key::of(Kind::Namespace, "", name),
                json!({"metadata": {"labels": labels}}),
            );
        }
        for (name, zone) in [("n1", "a"), ("n2", "a"), ("n3", "b")] {
            let labels = json!({"zone": zone});
            self.api.create(
                Actor::Cluster,
                &Key::of(Kind::Node, "", name),
                json!({"metadata": {"labels": labels}}),
            );
        }
        self.begin_pools();
        let first = self.dice.number(2, 6);
        for _ in 0..first {
            self.create_service();
        }
        for seat in 0..self.seats.len() {
            let pause = self.dice.whole_ms(0, 1_500);
            self.after(pause, Happening::Start(seat));
        }
        self.after(Duration::from_secs(1), Happening::Cluster);
        self.committed();
    }
}

/// What Services are like in a class.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Flavour {
    /// How often one asks for certain addresses, or for a pool.
    pub(crate) pins: f64,
    /// How often one has a sharing key.
    pub(crate) keys: f64,
    /// How often one is dual-stack.
    pub(crate) dual: f64,
}

fn new_service(dice: &mut Dice, flavour: Flavour) -> Value {
    let mut object = json!({
        "metadata": {"labels": {"app": "a"}},
        "spec": {
            "type": if dice.chance(0.95) { "LoadBalancer" } else { "ClusterIP" },
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "ports": [{"protocol": "TCP", "port": 80}],
            "externalTrafficPolicy": "Cluster",
        },
    });
    if dice.chance(flavour.dual) {
        families(dice, &mut object);
    }
    if dice.chance(flavour.keys) {
        sharing(dice, flavour, &mut object);
    }
    if dice.chance(flavour.pins) {
        pins(dice, &mut object);
    } else if dice.chance(flavour.pins / 2.0) {
        annotate(&mut object, "address-pool", dice.pick(&["first", "second", "third"]).copied());
    }
    if dice.chance(0.1) {
        object["metadata"]["finalizers"] = json!([CLEANUP]);
    }
    object
}

pub(super) fn annotate(object: &mut Value, name: &str, value: Option<&str>) {
    let name = format!("heraldlb.io/{name}");
    let annotations = &mut object["metadata"]["annotations"];
    match (value, annotations.as_object_mut()) {
        (Some(value), _) => annotations[&name] = json!(value),
        (None, Some(annotations)) => drop(annotations.remove(&name)),
        (None, None) => {}
    }
}

fn families(dice: &mut Dice, object: &mut Value) {
    let (policy, families): (&str, &[&str]) = match dice.number(0, 5) {
        0 => ("SingleStack", &["IPv4"]),
        1 => ("SingleStack", &["IPv6"]),
        2 => ("PreferDualStack", &["IPv4", "IPv6"]),
        3 => ("PreferDualStack", &["IPv6", "IPv4"]),
        4 => ("RequireDualStack", &["IPv4", "IPv6"]),
        _ => ("RequireDualStack", &["IPv6", "IPv4"]),
    };
    object["spec"]["ipFamilyPolicy"] = json!(policy);
    object["spec"]["ipFamilies"] = json!(families);
}

fn pins(dice: &mut Dice, object: &mut Value) {
    let v4 = any_v4(dice).to_string();
    let text = match dice.number(0, 5) {
        0 | 1 => None,
        2..=4 => Some(v4),
        _ => Some(format!("{v4},fd00:1::{:x}", dice.number(0, 5))),
    };
    annotate(object, "loadBalancerIPs", text.as_deref());
}

fn sharing(dice: &mut Dice, flavour: Flavour, object: &mut Value) {
    let key = if dice.chance(flavour.keys.max(0.3)) { dice.pick(&["one", "two"]).copied() } else { None };
    annotate(object, "allow-shared-ip", key);
    let port = dice.pick(&[80, 80, 443, 53]).copied().unwrap_or(80);
    object["spec"]["ports"] = json!([{"protocol": "TCP", "port": port}]);
    let local = dice.chance(0.2);
    object["spec"]["externalTrafficPolicy"] = json!(if local { "Local" } else { "Cluster" });
    if dice.chance(0.5) {
        object["spec"]["selector"] = json!({"app": "a"});
    }
}

/// An address of the pools' surroundings.
pub(super) fn any_v4(dice: &mut Dice) -> std::net::IpAddr {
    let third = u8::try_from(dice.number(0, 2)).unwrap_or_default();
    let last = u8::try_from(dice.number(0, 7)).unwrap_or_default();
    std::net::Ipv4Addr::new(10, 0, third, last).into()
}
