//! Pools and advertisements.

use serde_json::{Value, json};

use super::Act;
use crate::api::{Actor, Key, Kind};
use crate::world::World;
use herald_seeds::Dice;

const POOLS: [&str; 3] = ["first", "second", "third"];

impl World {
    pub(super) fn begin_pools(&mut self) {
        let count = self.dice.number(1, 3);
        for name in POOLS.into_iter().take(count) {
            let spec = new_pool(&mut self.dice, name);
            self.api.create(Actor::User, &Key::of(Kind::Pool, "", name), json!({"spec": spec}));
        }
        let spec = json!({});
        self.api.create(Actor::User, &Key::of(Kind::Advertisement, "", "everywhere"), json!({"spec": spec}));
    }

    pub(super) fn edit_pool(&mut self, act: Act) {
        if act == Act::CreatePool {
            let missing: Vec<&str> = POOLS
                .into_iter()
                .filter(|name| self.api.get(&Key::of(Kind::Pool, "", name)).is_none())
                .collect();
            if let Some(name) = self.dice.pick(&missing).copied() {
                let spec = new_pool(&mut self.dice, name);
                self.api.create(Actor::User, &Key::of(Kind::Pool, "", name), json!({"spec": spec}));
            }
            return;
        }
        let Some(key) = self.any(Kind::Pool) else { return };
        if act == Act::DeletePool {
            self.api.delete(Actor::User, &key);
            return;
        }
        let dice = &mut self.dice;
        let third = POOLS.iter().position(|name| *name == key.name).unwrap_or_default();
        let mut spec = self.api.get(&key).map(|pool| pool.value["spec"].clone()).unwrap_or_default();
        match act {
            Act::PoolAddresses => spec["addresses"] = addresses(dice, third),
            Act::PoolExcluded => {
                let excluded = (0..dice.number(0, 2)).map(|_| format!("10.0.{third}.{}", dice.number(0, 5)));
                spec["excluded"] = excluded.collect();
            }
            Act::PoolAllocation => allocation(dice, &mut spec),
            Act::OverlapPool => spec["addresses"] = addresses(dice, (third + 1) % POOLS.len()),
            _ => terms(dice, &mut spec),
        }
        self.api.change(Actor::User, &key, |pool| pool["spec"] = spec);
    }

    pub(super) fn edit_advertisement(&mut self) {
        let name = if self.dice.chance(0.5) { "everywhere" } else { "somewhere" };
        let key = Key::of(Kind::Advertisement, "", name);
        let spec = match self.dice.number(0, 2) {
            0 => json!({}),
            1 => json!({"nodeSelectors": [{"matchLabels": {"zone": "a"}}]}),
            _ => json!({"ipAddressPools": ["first"]}),
        };
        if self.api.get(&key).is_none() {
            self.api.create(Actor::User, &key, json!({"spec": spec}));
        } else if self.dice.chance(0.3) {
            self.api.delete(Actor::User, &key);
        } else {
            self.api.change(Actor::User, &key, |object| object["spec"] = spec);
        }
    }
}

fn new_pool(dice: &mut Dice, name: &str) -> Value {
    let third = POOLS.iter().position(|pool| *pool == name).unwrap_or_default();
    let mut spec = json!({"addresses": addresses(dice, third)});
    if dice.chance(0.2) {
        terms(dice, &mut spec);
    }
    if dice.chance(0.15) {
        allocation(dice, &mut spec);
    }
    spec
}

/// Few, so that they run short.
fn addresses(dice: &mut Dice, third: usize) -> Value {
    let last = dice.number(1, 5);
    let first = if dice.chance(0.7) { 0 } else { dice.number(0, 2) };
    let mut all = vec![format!("10.0.{third}.{first}-10.0.{third}.{}", last.max(first))];
    if dice.chance(0.5) {
        all.push(format!("fd00:{third}::-fd00:{third}::{}", dice.number(0, 4)));
    }
    json!(all)
}

fn allocation(dice: &mut Dice, spec: &mut Value) {
    spec["serviceAllocation"] = match dice.number(0, 3) {
        0 => Value::Null,
        1 => json!({"namespaces": ["shop"]}),
        2 => json!({"priority": 10, "namespaceSelectors": [{"matchLabels": {"team": "red"}}]}),
        _ => json!({"priority": 20}),
    };
}

fn terms(dice: &mut Dice, spec: &mut Value) {
    match dice.number(0, 4) {
        0 => spec["reclaimPolicy"] = json!(if dice.chance(0.7) { "Retain" } else { "Delete" }),
        1 => spec["autoAssign"] = json!(dice.chance(0.5)),
        2 => spec["sharing"] = json!(if dice.chance(0.5) { "Prefer" } else { "WhenFull" }),
        3 => spec["sharingScope"] = json!(if dice.chance(0.5) { "Cluster" } else { "Namespace" }),
        _ => {
            spec["limitPerNamespace"] = if dice.chance(0.6) { json!(dice.number(1, 3)) } else { Value::Null }
        }
    }
}
