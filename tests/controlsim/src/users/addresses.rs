//! LoadBalancerIPs: what administrators do to them by hand, and what speakers note on them.

use herald_crds::name_of_address;
use serde_json::{Value, json};

use super::{Act, NAMESPACES, SERVICES, any_v4};
use crate::api::{Actor, Key, Kind};
use crate::world::{Happening, World};

impl World {
    fn address(&mut self, fits: impl Fn(&Value) -> bool) -> Option<Key> {
        let all = self.api.all(Kind::Address).filter(|(_, object)| fits(&object.value));
        let all: Vec<Key> = all.map(|(key, _)| key.clone()).collect();
        self.dice.pick(&all).cloned()
    }

    pub(super) fn delete_address(&mut self) {
        let used =
            |object: &Value| object["spec"]["services"].as_array().is_some_and(|list| !list.is_empty());
        if let Some(key) = self.address(used) {
            self.api.delete(Actor::User, &key);
        }
    }

    pub(super) fn edit_address(&mut self) {
        let Some(key) = self.any(Kind::Address) else { return };
        let Some(mut edited) = self.api.get(&key).map(|object| object.value.clone()) else { return };
        let user = self.any(Kind::Service).and_then(|key| {
            let uid = &self.api.get(&key)?.uid;
            Some(json!({"namespace": key.namespace, "name": key.name, "uid": uid}))
        });
        let spec = &mut edited["spec"];
        match self.dice.number(0, 5) {
            0 => spec["services"] = json!([]),
            1 => spec["services"] = json!(user.into_iter().collect::<Vec<_>>()),
            2 => {
                if let (Some(list), Some(user)) = (spec["services"].as_array_mut(), user) {
                    list.push(user);
                }
            }
            3 => spec["pool"] = json!("nowhere"),
            4 => spec["revision"] = json!(spec["revision"].as_i64().unwrap_or_default() + 1_000),
            _ => edited["metadata"]["labels"]["team"] = json!("ops"),
        }
        self.api.change(Actor::User, &key, |object| *object = edited);
    }

    pub(super) fn double_user(&mut self) {
        let Some(key) = self.address(|object| object["spec"]["services"][0].is_object()) else { return };
        let name = self.dice.pick(&SERVICES).copied().unwrap_or_default();
        self.api.change(Actor::User, &key, |object| {
            if let Some(list) = object["spec"]["services"].as_array_mut()
                && let Some(mut double) = list.first().cloned()
            {
                double["name"] = json!(name);
                list.push(double);
            }
        });
    }

    pub(super) fn write_problem(&mut self) {
        let Some(key) = self.any(Kind::Address) else { return };
        self.api.change(Actor::User, &key, |object| {
            object["status"]["conditions"] = json!([{
                "type": "Problem", "status": "True", "reason": "Audited", "message": "by another program",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]);
        });
    }

    pub(super) fn reserve(&mut self) {
        let address = any_v4(&mut self.dice);
        let namespace = self.dice.pick(&NAMESPACES).copied().unwrap_or_default();
        let claim = if self.dice.chance(0.8) {
            json!({"namespace": namespace, "name": self.dice.pick(&SERVICES)})
        } else {
            json!({"namespace": namespace, "sharingKey": "one"})
        };
        let key = Key::of(Kind::Address, "", &name_of_address(address));
        if self.api.get(&key).is_none() {
            let spec = json!({"address": address.to_string(), "claimRef": claim});
            self.api.create(Actor::User, &key, json!({"spec": spec}));
        } else if self.dice.chance(0.5) {
            // Kept for its user, or promised to another one.
            self.api.change(Actor::User, &key, |object| object["spec"]["claimRef"] = claim);
        }
    }

    pub(super) fn unreserve(&mut self) {
        let Some(key) = self.address(|object| !object["spec"]["claimRef"].is_null()) else { return };
        let used = self.api.get(&key).is_some_and(|object| {
            object.value["spec"]["services"].as_array().is_some_and(|list| !list.is_empty())
        });
        if used {
            self.api.change(Actor::User, &key, |object| object["spec"]["claimRef"] = Value::Null);
        } else {
            self.api.delete(Actor::User, &key);
        }
    }

    pub(super) fn add_finalizer(&mut self) {
        let Some(key) = self.any(Kind::Address) else { return };
        self.api.change(Actor::User, &key, |object| {
            object["metadata"]["finalizers"] = json!(["example.com/slow"]);
        });
        if self.dice.chance(0.5) {
            self.api.delete(Actor::User, &key);
        }
        let pause = self.dice.whole_ms(1_000, 10_000);
        self.after(pause, Happening::Act(Act::Finalized));
    }

    /// Deletes a LoadBalancerIP, or its user, and holds it by a finalizer.
    pub(crate) fn hold_one(&mut self) -> Option<Key> {
        let key = self.any(Kind::Address)?;
        self.api.change(Actor::User, &key, |object| {
            object["metadata"]["finalizers"] = json!(["example.com/never"]);
        });
        let user =
            self.api.get(&key).map(|object| object.value["spec"]["services"][0].clone()).unwrap_or_default();
        let text = |part: &str| user[part].as_str().unwrap_or_default();
        let service = Key::of(Kind::Service, text("namespace"), text("name"));
        if self.dice.chance(0.5) {
            self.api.delete(Actor::User, &key);
        } else {
            self.api.delete(Actor::User, &service);
        }
        Some(key)
    }

    pub(super) fn note_holder(&mut self, key: &Key) {
        let node = format!("n{}", self.dice.number(1, 3));
        let holds = self.dice.chance(0.8);
        self.api.change(Actor::Cluster, key, |object| {
            let announced = object["spec"]["announce"].is_object();
            object["status"]["holders"] = if holds && announced {
                json!([{"node": node, "interface": "eth0", "mac": "02:00:00:00:00:01", "since": "2026-01-01T00:00:00Z"}])
            } else {
                json!([])
            };
        });
    }
}
