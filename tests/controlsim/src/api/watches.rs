//! What a watch is told.

use std::sync::Arc;

use super::answer::{Answer, Refusal};
use super::request::Target;
use super::{Api, Commit, Kind, Object};

/// A watch's selection.
#[derive(Clone, Debug)]
pub(crate) struct Selected {
    pub(crate) kind: Kind,
    namespace: String,
    name: Option<String>,
    service_type: Option<String>,
}

/// Where a watch begins.
#[derive(Clone, Debug)]
pub(crate) struct WatchFrom {
    pub(crate) selected: Selected,
    /// The next entry of the log to be told.
    pub(crate) next: usize,
    pub(crate) seconds: u64,
    /// It asks for what is forgotten.
    pub(crate) expired: bool,
}

impl Target {
    pub(super) fn selected(&self) -> Selected {
        let fields = self.query.get("fieldSelector").map(String::as_str).unwrap_or_default();
        let of = |name: &str| {
            fields.split(',').find_map(|term| term.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
        };
        Selected {
            kind: self.kind,
            namespace: self.namespace.clone(),
            name: of("metadata.name"),
            service_type: of("spec.type"),
        }
    }
}

impl Selected {
    pub(crate) fn admits(&self, object: &Object) -> bool {
        let value = &object.value;
        (self.namespace.is_empty() || value["metadata"]["namespace"] == self.namespace.as_str())
            && self.name.as_ref().is_none_or(|name| value["metadata"]["name"] == name.as_str())
            && self.service_type.as_ref().is_none_or(|kind| value["spec"]["type"] == kind.as_str())
    }

    /// The event that this change is for the watch, if it is one.
    fn event(&self, commit: &Commit) -> Option<String> {
        let known = |object: &Option<Arc<Object>>| object.clone().filter(|object| self.admits(object));
        match (known(&commit.before), known(&commit.after)) {
            (None, None) => None,
            (None, Some(after)) => Some(format!("{{\"type\":\"ADDED\",\"object\":{}}}\n", after.text)),
            (Some(_), Some(after)) => Some(format!("{{\"type\":\"MODIFIED\",\"object\":{}}}\n", after.text)),
            (Some(before), None) => {
                let mut last = before.value.clone();
                last["metadata"]["resourceVersion"] = commit.version.to_string().into();
                Some(format!("{{\"type\":\"DELETED\",\"object\":{last}}}\n"))
            }
        }
    }
}

impl Api {
    pub(super) fn watch(&self, target: &Target) -> Result<Answer, Refusal> {
        let from = target.number("resourceVersion").unwrap_or(self.version);
        if from < self.compacted && from.is_multiple_of(4) {
            // A server says so inside the watch; what stands before it may not.
            return Err(Refusal::new(
                410,
                "Expired",
                format!("too old resource version: {from} ({})", self.compacted),
            ));
        }
        let expired = from < self.compacted;
        let next = self.log.partition_point(|commit| commit.version <= from);
        let seconds = target.number("timeoutSeconds").unwrap_or(290);
        Ok(Answer::Watch(WatchFrom { selected: target.selected(), next, seconds, expired }))
    }

    /// How long the log is.
    pub(crate) fn written(&self) -> usize {
        self.log.len()
    }

    /// Whether anything from `next` on concerns the watch.
    pub(crate) fn concerns(&self, selected: &Selected, next: usize) -> bool {
        self.log.get(next..).unwrap_or_default().iter().any(|commit| commit.key.kind == selected.kind)
    }

    /// The lines that tell the entries `next .. until`.
    pub(crate) fn told(&self, selected: &Selected, next: usize, until: usize) -> String {
        let entries = self.log.get(next..until).unwrap_or_default();
        entries
            .iter()
            .filter(|commit| commit.key.kind == selected.kind)
            .filter_map(|commit| selected.event(commit))
            .collect()
    }

    /// A bookmark of the newest version.
    pub(crate) fn bookmark(&self, kind: Kind) -> String {
        let (api, kind) = (kind.api_version(), kind.name());
        let version = self.version;
        format!(
            "{{\"type\":\"BOOKMARK\",\"object\":{{\"apiVersion\":\"{api}\",\"kind\":\"{kind}\",\"metadata\":{{\"resourceVersion\":\"{version}\"}}}}}}\n"
        )
    }

    /// What a watch is told whose version is forgotten.
    pub(crate) fn expired() -> String {
        "{\"type\":\"ERROR\",\"object\":{\"apiVersion\":\"v1\",\"kind\":\"Status\",\"metadata\":{},\"status\":\"Failure\",\
         \"message\":\"too old resource version\",\"reason\":\"Expired\",\"code\":410}}\n"
            .to_owned()
    }
}
