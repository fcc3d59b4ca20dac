//! The rules of the CRDs (and of Leases) that matter here.

use herald_crds::{address_from_name, name_of_address};
use serde_json::Value;

use super::{Key, Kind};

/// As many Services as one LoadBalancerIP may list.
const USERS: usize = 64;

/// Whether such an object may be created.
pub(crate) fn may_create(key: &Key, object: &Value) -> Result<(), String> {
    if key.kind != Kind::Address {
        return Ok(());
    }
    let spec = &object["spec"];
    canonical(key, spec)?;
    let services = spec["services"].as_array().map_or(0, Vec::len);
    let claim = !spec["claimRef"].is_null();
    if claim == (services > 0) {
        return Err("a new LoadBalancerIP needs exactly one of spec.claimRef and spec.services".to_owned());
    }
    if claim && revision(spec) != 0 {
        return Err("a reservation can't carry spec.revision".to_owned());
    }
    crowded(services)
}

/// Whether an object may become this.
pub(crate) fn may_change(key: &Key, before: &Value, after: &Value) -> Result<(), String> {
    if key.kind != Kind::Address {
        return Ok(());
    }
    let (before, after) = (&before["spec"], &after["spec"]);
    canonical(key, after)?;
    if revision(after) < revision(before) {
        return Err("spec.revision only grows".to_owned());
    }
    crowded(after["services"].as_array().map_or(0, Vec::len))
}

pub(crate) fn revision(spec: &Value) -> i64 {
    spec["revision"].as_i64().unwrap_or_default()
}

fn canonical(key: &Key, spec: &Value) -> Result<(), String> {
    let named = address_from_name(&key.name).map_err(|error| error.to_string())?;
    let text = spec["address"].as_str().unwrap_or_default();
    let same = named.to_string() == text && name_of_address(named) == key.name;
    if same { Ok(()) } else { Err(format!("{text} is not the address that {} stands for", key.name)) }
}

fn crowded(services: usize) -> Result<(), String> {
    if services > USERS { Err(format!("spec.services has more than {USERS} items")) } else { Ok(()) }
}
