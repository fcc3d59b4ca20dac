//! The history of one run, for people: virtual time, who, what. Written only when somebody will read it.

use serde_json::Value;

use crate::Moment;
use crate::api::{Asked, Commit, Kind, condition, shown};

/// The lines so far.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    wanted: bool,
    lines: Vec<(Moment, String)>,
}

impl Trace {
    pub(crate) fn new(wanted: bool) -> Self {
        Self { wanted, lines: Vec::new() }
    }

    /// Something happened to somebody.
    pub(crate) fn event(&mut self, now: Moment, who: &str, what: impl FnOnce() -> String) {
        if self.wanted {
            let line = format!("{:>5}.{:03} s  {who:<8} {}", now.as_secs(), now.subsec_millis(), what());
            self.lines.push((now, line));
        }
    }

    /// Everything, in order. (A process may be a little ahead of the others.)
    pub(crate) fn into_lines(mut self) -> Vec<String> {
        self.lines.sort_by_key(|(at, _)| *at);
        self.lines.into_iter().map(|(_, line)| line).collect()
    }
}

/// A request in one line.
pub(crate) fn request(asked: &Asked) -> String {
    let Some(target) = asked.target() else { return format!("{} {}", asked.method, asked.path) };
    let key = target.key();
    let body = asked.json();
    let what = if asked.watches() { "WATCH" } else { asked.method.as_str() };
    let name =
        if key.name.is_empty() { body["metadata"]["name"].as_str().unwrap_or_default() } else { &key.name };
    let about = if asked.writes() { describe(target.kind, &body) } else { String::new() };
    let namespace = if key.namespace.is_empty() { String::new() } else { format!("{}/", key.namespace) };
    let status = if target.status { " status" } else { "" };
    let version = body["metadata"]["resourceVersion"]
        .as_str()
        .or_else(|| body["preconditions"]["resourceVersion"].as_str());
    let version = version.map(|version| format!(" if v{version}")).unwrap_or_default();
    format!("{what} {} {namespace}{name}{status}{about}{version}", target.kind.plural())
}

/// A change in one line.
pub(crate) fn commit(commit: &Commit) -> String {
    match (&commit.before, &commit.after) {
        (_, Some(after)) => {
            let new = if commit.before.is_none() { "new " } else { "" };
            format!(
                "v{}: {new}{}{}",
                commit.version,
                commit.key.text(),
                describe(commit.key.kind, &after.value)
            )
        }
        (_, None) => format!("v{}: {} is gone", commit.version, commit.key.text()),
    }
}

fn describe(kind: Kind, object: &Value) -> String {
    match kind {
        Kind::Service => service(object),
        Kind::Address => address(object),
        Kind::Pool | Kind::Advertisement if object["spec"].is_object() => format!(" {}", object["spec"]),
        Kind::Lease => format!(" of {}", object["spec"]["holderIdentity"]),
        Kind::Event => format!(" {}: {}", object["reason"], object["note"]),
        _ => String::new(),
    }
}

fn service(object: &Value) -> String {
    let mut said = Vec::new();
    let spec = &object["spec"];
    if spec.is_object() {
        let ports = spec["ports"].as_array().into_iter().flatten();
        said.push(format!(
            "({} {} {} ports {} policy {}{})",
            text(&object["metadata"]["uid"]),
            text(&spec["type"]),
            text(&spec["ipFamilyPolicy"]),
            ports.map(|port| port["port"].to_string()).collect::<Vec<_>>().join(","),
            text(&spec["externalTrafficPolicy"]),
            if object["metadata"]["deletionTimestamp"].is_null() { "" } else { ", terminating" },
        ));
    }
    for (name, value) in object["metadata"]["annotations"].as_object().into_iter().flatten() {
        said.push(format!("{}={value}", name.trim_start_matches("heraldlb.io/")));
    }
    let shown: Vec<String> = shown(object).iter().map(ToString::to_string).collect();
    said.push(format!("shows [{}]", shown.join(" ")));
    if let Some(allocated) = condition(object, "heraldlb.io/Allocated") {
        said.push(format!("Allocated={} {}", text(&allocated["status"]), text(&allocated["reason"])));
        if allocated["reason"] != "Allocated" {
            said.push(allocated["message"].to_string());
        }
    }
    format!(" {}", said.join(" "))
}

fn address(object: &Value) -> String {
    let spec = &object["spec"];
    if !spec.is_object() {
        return String::new();
    }
    let user =
        |user: &Value| format!("{}/{}={}", text(&user["namespace"]), text(&user["name"]), text(&user["uid"]));
    let users: Vec<String> = spec["services"].as_array().into_iter().flatten().map(user).collect();
    let mut said = vec![format!("[{}] revision {}", users.join(" "), spec["revision"])];
    for part in ["claimRef", "sharing"] {
        if !spec[part].is_null() {
            said.push(format!("{part} {}", spec[part]));
        }
    }
    if !object["metadata"]["deletionTimestamp"].is_null() {
        said.push("terminating".to_owned());
    }
    format!(" {}", said.join(" "))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
