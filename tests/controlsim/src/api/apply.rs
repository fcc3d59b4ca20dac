//! Server-side apply of a Service's status, and who owns which part of it.
//!
//! Four parts are told apart: `status.loadBalancer.ingress` (one list, owned as a whole), each of our two conditions,
//! and our annotation.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::answer::{Answer, Refusal};
use super::request::Target;
use super::{Actor, Api, Key, Object};

const INGRESS: &str = "ingress";
const POOL: &str = "heraldlb.io/ip-allocated-from-pool";

/// The parts that an object or a patch has.
fn parts(object: &Value) -> BTreeMap<String, Value> {
    let mut parts = BTreeMap::new();
    let ingress = &object["status"]["loadBalancer"]["ingress"];
    if !ingress.is_null() {
        parts.insert(INGRESS.to_owned(), ingress.clone());
    }
    let annotation = &object["metadata"]["annotations"][POOL];
    if !annotation.is_null() {
        parts.insert(POOL.to_owned(), annotation.clone());
    }
    for condition in object["status"]["conditions"].as_array().into_iter().flatten() {
        if let Some(kind) = condition["type"].as_str() {
            parts.insert(format!("condition {kind}"), condition.clone());
        }
    }
    parts
}

fn set_part(object: &mut Value, part: &str, value: Option<Value>) {
    match part.strip_prefix("condition ") {
        Some(kind) => {
            let mut all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let at = all.iter().position(|condition| condition["type"] == kind);
            match (at, value) {
                (Some(at), Some(value)) => {
                    if let Some(place) = all.get_mut(at) {
                        *place = value;
                    }
                }
                (Some(at), None) => drop(all.remove(at)),
                (None, Some(value)) => all.push(value),
                (None, None) => {}
            }
            object["status"]["conditions"] = json!(all);
        }
        None if part == INGRESS => {
            object["status"]["loadBalancer"] =
                value.map_or_else(|| json!({}), |value| json!({INGRESS: value}));
        }
        None => {
            let annotations = &mut object["metadata"]["annotations"];
            if !annotations.is_object() {
                *annotations = Value::Object(Map::new());
            }
            if let Some(annotations) = annotations.as_object_mut() {
                match value {
                    Some(value) => drop(annotations.insert(part.to_owned(), value)),
                    None => drop(annotations.remove(part)),
                }
            }
        }
    }
}

fn field(part: &str) -> String {
    match part.strip_prefix("condition ") {
        Some(kind) => format!(".status.conditions[type=\"{kind}\"]"),
        None if part == INGRESS => ".status.loadBalancer.ingress".to_owned(),
        None => format!(".metadata.annotations.{part}"),
    }
}

impl Api {
    pub(super) fn applied(
        &mut self,
        actor: Actor,
        target: &Target,
        patch: &Value,
    ) -> Result<Answer, Refusal> {
        let key = target.key();
        self.precondition(&key, &patch["metadata"], false)?;
        let manager = target.query.get("fieldManager").cloned().unwrap_or_default();
        let force = target.query.get("force").is_some_and(|force| force == "true");
        let current = self.get(&key).map(|object| parts(&object.value)).unwrap_or_default();
        let wanted = parts(patch);
        let mut managers = self.managers.get(&key).cloned().unwrap_or_default();

        let mut causes = Vec::new();
        for (part, value) in &wanted {
            let differs = current.get(part) != Some(value);
            let others = managers.get(part).into_iter().flatten().filter(|other| **other != manager);
            for other in others.filter(|_| differs) {
                causes.push(json!({
                    "reason": "FieldManagerConflict", "field": field(part),
                    "message": format!("conflict with \"{other}\" using v1"),
                }));
            }
        }
        if !causes.is_empty() && !force {
            let message = format!("Apply failed with {} conflicts", causes.len());
            return Err(Refusal { causes, ..Refusal::conflict(message) });
        }
        let mut changes: Vec<(String, Option<Value>)> = Vec::new();
        for (part, value) in &wanted {
            let owners = managers.entry(part.clone()).or_default();
            if current.get(part) != Some(value) {
                owners.clear();
                changes.push((part.clone(), Some(value.clone())));
            }
            owners.insert(manager.clone());
        }
        for (part, owners) in &mut managers {
            if !wanted.contains_key(part) && owners.remove(&manager) && owners.is_empty() {
                changes.push((part.clone(), None));
            }
        }
        managers.retain(|_, owners| !owners.is_empty());
        self.managers.insert(key.clone(), managers);
        self.change(actor, &key, |object| {
            for (part, value) in changes {
                set_part(object, &part, value);
            }
        });
        self.stored(&key, 200)
    }

    /// Somebody writes a Service's ingress, as `kubectl edit --subresource=status` or another controller does: it is
    /// his from then on.
    pub(crate) fn write_ingress(&mut self, key: &Key, manager: &str, ingress: Option<Value>) {
        let stands = self.get(key).map(|object| parts(&object.value).remove(INGRESS));
        if stands.is_none_or(|stands| stands == ingress) {
            return;
        }
        let managers = self.managers.entry(key.clone()).or_default();
        managers.remove(INGRESS);
        if ingress.is_some() {
            managers.entry(INGRESS.to_owned()).or_default().insert(manager.to_owned());
        }
        self.change(Actor::User, key, |object| set_part(object, INGRESS, ingress));
    }

    /// Somebody applies a manifest with our annotation in it: it is his as well from then on.
    pub(crate) fn apply_annotation(&mut self, key: &Key, manager: &str, pool: &str) {
        self.managers.entry(key.clone()).or_default().insert(POOL.to_owned(), [manager.to_owned()].into());
        self.change(Actor::User, key, |object| set_part(object, POOL, Some(json!(pool))));
    }

    /// The object as a GET gives it: with the managers of a Service's ingress.
    pub(super) fn with_managers(&self, key: &Key, object: &Object) -> String {
        let Some(owners) = self.managers.get(key).and_then(|managers| managers.get(INGRESS)) else {
            return object.text.clone();
        };
        let entry = |manager: &String| {
            json!({
                "manager": manager, "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:status": {"f:loadBalancer": {"f:ingress": {}}}},
            })
        };
        let mut value = object.value.clone();
        value["metadata"]["managedFields"] = owners.iter().map(entry).collect();
        value.to_string()
    }

    /// Whether this manager owns a Service's ingress.
    pub(crate) fn ingress_is_of(&self, key: &Key, manager: &str) -> bool {
        let owners = self.managers.get(key).and_then(|managers| managers.get(INGRESS));
        owners.is_some_and(|owners| owners.contains(manager))
    }

    /// The Service is of another type: Kubernetes empties `status.loadBalancer`.
    pub(crate) fn drop_ingress(&mut self, key: &Key) {
        if let Some(managers) = self.managers.get_mut(key) {
            managers.remove(INGRESS);
        }
    }
}
