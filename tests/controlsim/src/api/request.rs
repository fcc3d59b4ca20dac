//! Requests as they come from the client.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Key, Kind};

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) content: String,
    pub(crate) body: String,
}

/// What a path means.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) kind: Kind,
    pub(crate) namespace: String,
    pub(crate) name: Option<String>,
    pub(crate) status: bool,
    pub(crate) query: BTreeMap<String, String>,
}

impl Asked {
    /// What it is about, if the server has such a thing.
    pub(crate) fn target(&self) -> Option<Target> {
        let (path, query) = self.path.split_once('?').unwrap_or((&self.path, ""));
        let mut parts = path.trim_start_matches('/').split('/');
        match parts.next() {
            Some("api") => {
                parts.next()?;
            }
            Some("apis") => {
                parts.next()?;
                parts.next()?;
            }
            _ => return None,
        }
        let rest: Vec<&str> = parts.collect();
        let (namespace, rest) = match rest.as_slice() {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let (plural, rest) = rest.split_first()?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.plural() == *plural)?;
        Some(Target {
            kind,
            namespace: namespace.to_owned(),
            name: rest.first().map(|name| (*name).to_owned()),
            status: rest.get(1) == Some(&"status"),
            query: query.split('&').filter_map(pair).collect(),
        })
    }

    /// Whether it would change something.
    pub(crate) fn writes(&self) -> bool {
        self.method != "GET"
    }

    /// Whether it asks for a watch.
    pub(crate) fn watches(&self) -> bool {
        self.path.contains("watch=true")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

impl Target {
    pub(crate) fn key(&self) -> Key {
        Key::of(self.kind, &self.namespace, self.name.as_deref().unwrap_or_default())
    }

    pub(crate) fn number(&self, parameter: &str) -> Option<u64> {
        self.query.get(parameter)?.parse().ok()
    }
}

fn pair(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    Some((name.to_owned(), value.replace("%3D", "=").replace("%3d", "=").replace("%2F", "/")))
}
