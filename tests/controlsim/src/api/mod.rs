//! A model of the API server, as far as controllers can tell: objects with uid, resourceVersion and generation, one
//! counter of versions, a log from which watches are fed, conditional writes, server-side apply of Services' statuses,
//! and the rules of the CRDs that matter for who owns an address.
//!
//! What must always hold: every change goes through [`Api::commit`], which numbers it, logs it and keeps it for the
//! checker. Nothing is lost or late in here: that is the network's business.

mod answer;
mod apply;
mod object;
mod request;
mod rules;
mod watches;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

pub(crate) use self::answer::Answer;
pub(crate) use self::object::{Object, address_of, condition, listed, shown};
pub(crate) use self::request::Asked;
pub(crate) use self::watches::WatchFrom;
use crate::Moment;

/// The kinds that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Service,
    Pool,
    Advertisement,
    Address,
    Namespace,
    Node,
    Slice,
    Lease,
    Event,
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Actor {
    /// One of the controllers.
    Controller(&'static str),
    /// Somebody with kubectl, or another program.
    User,
    /// The rest of the cluster: speakers, Kubernetes itself.
    Cluster,
}

/// One change.
#[derive(Clone, Debug)]
pub(crate) struct Commit {
    pub(crate) actor: Actor,
    pub(crate) version: u64,
    pub(crate) key: Key,
    pub(crate) before: Option<Arc<Object>>,
    pub(crate) after: Option<Arc<Object>>,
}

/// Guarantees that can be taken away, to see that they are needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches, mostly one at a time")]
pub struct Without {
    /// A create overwrites what exists (instead of 409, rule B6).
    pub fence: bool,
    /// A controller that reads a Service is told that there is none: as if it did not look (rule B8).
    pub live_get: bool,
    /// The newest resourceVersion reads as 1 (rule B18).
    pub newest: bool,
    /// Who makes a Service newer than the LoadBalancerIP that it is to leave changes nothing (rule B28).
    pub barrier: bool,
    /// Preconditions (uid, resourceVersion) are ignored (rule B3).
    pub conditions: bool,
}

/// The server.
#[derive(Debug)]
pub(crate) struct Api {
    version: u64,
    uids: u64,
    objects: BTreeMap<Key, Arc<Object>>,
    /// By Service, who owns which part of its status.
    managers: BTreeMap<Key, BTreeMap<String, BTreeSet<String>>>,
    log: Vec<Commit>,
    /// Watches from before this version must list anew.
    compacted: u64,
    without: Without,
    now: Moment,
    /// Commits that the checker has not seen yet: an index into the log.
    checked: usize,
}

impl Kind {
    pub(crate) const ALL: [Self; 9] = [
        Self::Service,
        Self::Pool,
        Self::Advertisement,
        Self::Address,
        Self::Namespace,
        Self::Node,
        Self::Slice,
        Self::Lease,
        Self::Event,
    ];

    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Service => "services",
            Self::Pool => "ipaddresspools",
            Self::Advertisement => "l2advertisements",
            Self::Address => "loadbalancerips",
            Self::Namespace => "namespaces",
            Self::Node => "nodes",
            Self::Slice => "endpointslices",
            Self::Lease => "leases",
            Self::Event => "events",
        }
    }

    fn api_version(self) -> &'static str {
        match self {
            Self::Service | Self::Namespace | Self::Node => "v1",
            Self::Pool | Self::Advertisement | Self::Address => "heraldlb.io/v1beta1",
            Self::Slice => "discovery.k8s.io/v1",
            Self::Lease => "coordination.k8s.io/v1",
            Self::Event => "events.k8s.io/v1",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Pool => "IPAddressPool",
            Self::Advertisement => "L2Advertisement",
            Self::Address => "LoadBalancerIP",
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Slice => "EndpointSlice",
            Self::Lease => "Lease",
            Self::Event => "Event",
        }
    }
}

impl Key {
    pub(crate) fn of(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// As people write it.
    pub(crate) fn text(&self) -> String {
        let namespace =
            if self.namespace.is_empty() { String::new() } else { format!("{}/", self.namespace) };
        format!("{} {namespace}{}", self.kind.plural(), self.name)
    }
}

impl Api {
    pub(crate) fn new(without: Without) -> Self {
        Self {
            version: 100,
            uids: 0,
            objects: BTreeMap::new(),
            managers: BTreeMap::new(),
            log: Vec::new(),
            compacted: 0,
            without,
            now: Moment::ZERO,
            checked: 0,
        }
    }

    /// What time it is for timestamps.
    pub(crate) fn set_now(&mut self, now: Moment) {
        self.now = now;
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }

    /// All of a kind, by name.
    pub(crate) fn all(&self, kind: Kind) -> impl Iterator<Item = (&Key, &Arc<Object>)> {
        self.objects.iter().filter(move |(key, _)| key.kind == kind)
    }

    /// Forgets what is older than now: whoever watches from before must list.
    pub(crate) fn compact(&mut self) {
        self.compacted = self.version;
    }

    /// The commits since the last call.
    pub(crate) fn unchecked(&mut self) -> Vec<Commit> {
        let new = self.log.get(self.checked..).unwrap_or_default().to_vec();
        self.checked = self.log.len();
        new
    }

    /// Creates an object, whoever asks and whatever the rules say; for the cluster's beginning and for users.
    pub(crate) fn create(&mut self, actor: Actor, key: &Key, mut object: Value) -> u64 {
        let object_map = &mut object;
        object_map["apiVersion"] = json!(key.kind.api_version());
        object_map["kind"] = json!(key.kind.name());
        object_map["metadata"]["name"] = json!(key.name);
        if !key.namespace.is_empty() {
            object_map["metadata"]["namespace"] = json!(key.namespace);
        }
        self.uids += 1;
        object_map["metadata"]["uid"] = json!(format!("u{}", self.uids));
        object_map["metadata"]["generation"] = json!(1);
        object_map["metadata"]["creationTimestamp"] = json!(self.timestamp());
        self.managers.remove(key);
        prune(&mut object);
        self.commit(actor, key, Some(object))
    }

    /// Changes an object. No change: no new version.
    pub(crate) fn change(&mut self, actor: Actor, key: &Key, change: impl FnOnce(&mut Value)) -> bool {
        let Some(before) = self.objects.get(key).cloned() else { return false };
        let mut after = before.value.clone();
        change(&mut after);
        prune(&mut after);
        if after == before.value {
            return false;
        }
        if after["spec"] != before.value["spec"] {
            let generation = before.value["metadata"]["generation"].as_i64().unwrap_or_default();
            after["metadata"]["generation"] = json!(generation + 1);
        }
        self.commit(actor, key, Some(after));
        true
    }

    /// Deletes an object; with finalizers it only begins to.
    pub(crate) fn delete(&mut self, actor: Actor, key: &Key) {
        let Some(object) = self.objects.get(key) else { return };
        let held = object.value["metadata"]["finalizers"].as_array().is_some_and(|held| !held.is_empty());
        if !held {
            self.commit(actor, key, None);
        } else if !object.terminating {
            let at = self.timestamp();
            self.change(actor, key, |object| object["metadata"]["deletionTimestamp"] = json!(at));
        }
    }

    /// Its finalizers are taken away; what is being deleted is gone then.
    pub(crate) fn finalize(&mut self, key: &Key) {
        if self.objects.get(key).is_some_and(|object| object.terminating) {
            self.commit(Actor::Cluster, key, None);
        } else {
            self.change(Actor::Cluster, key, |object| object["metadata"]["finalizers"] = Value::Null);
        }
    }

    fn commit(&mut self, actor: Actor, key: &Key, after: Option<Value>) -> u64 {
        self.version += 1;
        let version = self.version;
        let after = after.map(|mut object| {
            object["metadata"]["resourceVersion"] = json!(version.to_string());
            Arc::new(Object::read(key, object))
        });
        let before = if let Some(object) = &after {
            self.objects.insert(key.clone(), Arc::clone(object))
        } else {
            self.managers.remove(key);
            self.objects.remove(key)
        };
        self.log.push(Commit { actor, version, key: key.clone(), before, after });
        version
    }

    fn timestamp(&self) -> String {
        let seconds = self.now.as_secs();
        format!("2026-01-01T{:02}:{:02}:{:02}Z", (seconds / 3600) % 24, (seconds / 60) % 60, seconds % 60)
    }
}

/// Null is as good as absent.
fn prune(object: &mut Value) {
    if let Some(members) = object.as_object_mut() {
        members.retain(|_, value| !value.is_null());
        members.values_mut().for_each(prune);
    }
}
