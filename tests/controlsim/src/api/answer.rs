//! Answering requests: get, list, create, replace, patch, delete.

use serde_json::{Value, json};

use super::request::Target;
use super::watches::WatchFrom;
use super::{Actor, Api, Asked, Key, Kind, rules};

/// What the server says.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// A body, with its code.
    Body(u16, String),
    /// A watch begins.
    Watch(WatchFrom),
}

/// A refusal, before it has the names in it.
pub(super) struct Refusal {
    pub(super) code: u16,
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) causes: Vec<Value>,
}

impl Refusal {
    pub(super) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), causes: Vec::new() }
    }

    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self::new(409, "Conflict", message)
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(422, "Invalid", message)
    }

    fn not_found(key: &Key) -> Self {
        Self::new(404, "NotFound", format!("{} not found", key.text()))
    }

    fn answer(self, name: &str) -> Answer {
        let Self { code, reason, message, causes } = self;
        let body = json!({
            "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
            "code": code, "reason": reason, "message": message,
            "details": {"name": name, "causes": causes},
        });
        Answer::Body(code, body.to_string())
    }
}

impl Answer {
    /// The server can't just now.
    pub(crate) fn busy(code: u16) -> Self {
        Refusal::new(code, "ServiceUnavailable", "the server is currently unable to handle the request")
            .answer("")
    }
}

impl Api {
    /// Carries a controller's request out.
    pub(crate) fn handle(&mut self, actor: Actor, asked: &Asked) -> Answer {
        let Some(target) = asked.target() else {
            return Refusal::new(404, "NotFound", "the server could not find the requested resource")
                .answer("");
        };
        let answered = match (asked.method.as_str(), &target.name) {
            ("GET", Some(_)) => self.read(&target),
            ("GET", None) if target.query.get("watch").is_some_and(|watch| watch == "true") => {
                self.watch(&target)
            }
            ("GET", None) => Ok(self.list(&target)),
            ("POST", None) => self.post(actor, &target, asked.json()),
            ("PUT", Some(_)) => self.put(actor, &target, &asked.json()),
            ("PATCH", Some(_)) if asked.content.contains("apply") => {
                self.applied(actor, &target, &asked.json())
            }
            ("PATCH", Some(_)) => self.merge(actor, &target, &asked.json()),
            ("DELETE", Some(_)) => self.remove(actor, &target, &asked.json()),
            (method, _) => Err(Refusal::new(405, "MethodNotAllowed", format!("{method} is not modelled"))),
        };
        answered.unwrap_or_else(|refusal| refusal.answer(target.name.as_deref().unwrap_or_default()))
    }

    fn read(&self, target: &Target) -> Result<Answer, Refusal> {
        let key = target.key();
        let hidden = target.kind == Kind::Service && self.without.live_get;
        match self.get(&key) {
            Some(object) if !hidden => Ok(Answer::Body(200, self.with_managers(&key, object))),
            _ => Err(Refusal::not_found(&key)),
        }
    }

    fn list(&self, target: &Target) -> Answer {
        let selected = target.selected();
        let items: Vec<&str> = self
            .all(target.kind)
            .filter(|(_, object)| selected.admits(object))
            .map(|(_, it)| it.text.as_str())
            .collect();
        // Who begins to lead asks for pages of another size than a watch does.
        let begins = target.kind == Kind::Address && target.number("limit") == Some(200);
        let (version, items) =
            if begins && self.without.newest { (1, String::new()) } else { (self.version, items.join(",")) };
        let (api, kind) = (target.kind.api_version(), target.kind.name());
        Answer::Body(
            200,
            format!(
                r#"{{"apiVersion":"{api}","kind":"{kind}List","metadata":{{"resourceVersion":"{version}"}},"items":[{items}]}}"#
            ),
        )
    }

    fn post(&mut self, actor: Actor, target: &Target, mut object: Value) -> Result<Answer, Refusal> {
        if target.kind == Kind::Event {
            self.uids += 1;
            object["metadata"]["name"] = json!(format!("e{}", self.uids));
        }
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let key = Key::of(target.kind, &target.namespace, &name);
        if self.get(&key).is_some() && !self.without.fence {
            return Err(Refusal::new(409, "AlreadyExists", format!("{} already exists", key.text())));
        }
        rules::may_create(&key, &object).map_err(Refusal::invalid)?;
        if target.kind == Kind::Address
            && let Some(object) = object.as_object_mut()
        {
            object.remove("status");
        }
        self.create(actor, &key, object);
        self.stored(&key, 201)
    }

    fn put(&mut self, actor: Actor, target: &Target, object: &Value) -> Result<Answer, Refusal> {
        let key = target.key();
        let Some(before) = self.get(&key).cloned() else { return Err(Refusal::not_found(&key)) };
        self.precondition(&key, &object["metadata"], target.kind != Kind::Lease)?;
        rules::may_change(&key, &before.value, object).map_err(Refusal::invalid)?;
        self.change(actor, &key, |after| {
            after["spec"] = object["spec"].clone();
            for part in ["labels", "annotations"] {
                after["metadata"][part] = object["metadata"][part].clone();
            }
        });
        self.stored(&key, 200)
    }

    /// A merge patch of a status, or of annotations by way of it.
    fn merge(&mut self, actor: Actor, target: &Target, patch: &Value) -> Result<Answer, Refusal> {
        let key = target.key();
        self.precondition(&key, &patch["metadata"], false)?;
        let annotations = &patch["metadata"]["annotations"];
        let overtakes = !annotations["heraldlb.io/released"].is_null();
        if !(overtakes && self.without.barrier) {
            self.change(actor, &key, |after| {
                if patch["status"].is_object() {
                    merge(&mut after["status"], &patch["status"]);
                }
                if annotations.is_object() {
                    merge(&mut after["metadata"]["annotations"], annotations);
                }
            });
        }
        self.stored(&key, 200)
    }

    fn remove(&mut self, actor: Actor, target: &Target, options: &Value) -> Result<Answer, Refusal> {
        let key = target.key();
        let Some(before) = self.get(&key).cloned() else { return Err(Refusal::not_found(&key)) };
        self.precondition(&key, &options["preconditions"], false)?;
        self.delete(actor, &key);
        if let Some(waiting) = self.get(&key) {
            return Ok(Answer::Body(200, waiting.text.clone()));
        }
        let details = json!({"name": key.name, "uid": before.uid});
        let gone = json!({
            "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Success", "details": details,
        });
        Ok(Answer::Body(200, gone.to_string()))
    }

    /// Uid and resourceVersion, where they are given, are those of the object as it is.
    pub(super) fn precondition(&self, key: &Key, given: &Value, required: bool) -> Result<(), Refusal> {
        let Some(object) = self.get(key) else { return Err(Refusal::not_found(key)) };
        if self.without.conditions {
            return Ok(());
        }
        let version = given["resourceVersion"].as_str();
        if version.is_none() && required {
            return Err(Refusal::invalid("metadata.resourceVersion: must be specified for an update"));
        }
        if version.is_some_and(|version| version != object.version.to_string()) {
            return Err(Refusal::conflict(
                "the object has been modified; please apply your changes to the latest version",
            ));
        }
        if given["uid"].as_str().is_some_and(|uid| uid != object.uid) {
            return Err(Refusal::conflict("Precondition failed: UID in precondition differs"));
        }
        Ok(())
    }

    pub(super) fn stored(&self, key: &Key, code: u16) -> Result<Answer, Refusal> {
        let object = self.get(key).ok_or_else(|| Refusal::not_found(key))?;
        Ok(Answer::Body(code, object.text.clone()))
    }
}

/// RFC 7396.
fn merge(into: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (name, value) in patch {
        if let Some(object) = into.as_object_mut() {
            if value.is_null() {
                object.remove(name);
            } else {
                merge(object.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
    }
}
