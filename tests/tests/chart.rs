//! The Helm chart: what it renders, what it refuses, what it says; by helm itself and by a real API server.
//!
//! What happens to pods is for the full cluster; whether the rights are enough and no more, too.

#[path = "chart/cluster.rs"]
mod cluster;
#[path = "chart/release.rs"]
mod release;
#[path = "chart/rendered.rs"]
mod rendered;
#[path = "chart/values.rs"]
mod values;
#[path = "chart/versions.rs"]
mod versions;

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};
use herald_lab::{
    Progress,
    programs::{self, Helm},
};
use serde_json::Value;

/// The sets of values that everything is checked with, as arguments of helm.
const SETS: [(&str, &[&str]); 4] = [
    ("the defaults", &[]),
    ("everything on", &["--values=charts/herald/ci/everything-values.yaml"]),
    (
        "everything on, found by ServiceMonitors",
        &[
            "--values=charts/herald/ci/everything-values.yaml",
            "--set=metrics.podMonitor.enabled=false,metrics.serviceMonitor.enabled=true",
        ],
    ),
    ("one node", &["--values=charts/herald/ci/single-node-values.yaml"]),
];

/// The chart's directory.
fn chart() -> PathBuf {
    programs::workspace().join("charts/herald")
}

/// Runs helm without a cluster.
fn helm(args: &[&str]) -> Result<String> {
    helm_of(Helm::Four, args)
}

/// Runs one of the helms without a cluster.
fn helm_of(helm: Helm, args: &[&str]) -> Result<String> {
    let output = Command::new(helm.program(&Progress::quiet())?)
        .current_dir(programs::workspace())
        .env("KUBECONFIG", "/dev/null")
        .args(args)
        .output()
        .context("starting helm")?;
    if !output.status.success() {
        bail!(
            "helm {helm:?}: {}: {}{}",
            args.join(" "),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// What the chart renders with `more` arguments.
fn template(more: &[&str]) -> Result<String> {
    template_of(Helm::Four, more)
}

fn template_of(helm: Helm, more: &[&str]) -> Result<String> {
    helm_of(helm, &[&["template", "herald", "charts/herald", "--namespace=herald-system"], more].concat())
}

/// The documents of a YAML text.
fn documents(yaml: &str) -> Result<Vec<Value>> {
    use serde::Deserialize as _;
    let all: Vec<Value> =
        serde_yaml::Deserializer::from_str(yaml).map(Value::deserialize).collect::<Result<_, _>>()?;
    Ok(all.into_iter().filter(|document| !document.is_null()).collect())
}

/// A file of the source tree, read as YAML (or JSON).
fn file(path: &str) -> Result<Value> {
    let text = std::fs::read_to_string(programs::workspace().join(path)).context(path.to_owned())?;
    Ok(serde_yaml::from_str(&text)?)
}
