//! From one version of the chart to another and back, at a real API server, by each helm.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use herald_lab::{
    Lab,
    programs::{self, Helm},
};
use serde_json::Value;

use crate::{
    chart,
    cluster::{CRD_VERSION, NAMESPACE, lab},
};

const POOLS: &str = "ipaddresspools.heraldlb.io";
/// The field of a pool that the older version does not know.
const NEW_FIELD: &str = "reclaimPolicy";

/// The chart as an older version might have been: its CRDs are of version 1, and pools lack a field.
fn older(lab: &Lab) -> Result<PathBuf> {
    let older = lab.dir().join("older");
    copy(&chart(), &older)?;
    let yaml = |path: &str| -> Result<Value> {
        Ok(serde_yaml::from_str(&std::fs::read_to_string(older.join(path))?)?)
    };
    let write = |path: &str, value: &Value| std::fs::write(older.join(path), value.to_string());
    let mut about = yaml("Chart.yaml")?;
    set(&mut about, "/version", "0.0.9")?;
    write("Chart.yaml", &about)?;
    for name in ["ipaddresspools", "l2advertisements", "loadbalancerips"] {
        let path = format!("crds/{name}.heraldlb.io.yaml");
        let mut crd = yaml(&path)?;
        set(&mut crd, "/metadata/annotations/heraldlb.io~1crd-version", "1")?;
        let fields = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
        let fields = crd.pointer_mut(fields).and_then(Value::as_object_mut);
        let removed = fields.context("a CRD without fields")?.remove(NEW_FIELD);
        ensure!(removed.is_some() == (name == "ipaddresspools"), "{name}: {NEW_FIELD} is {removed:?}");
        write(&path, &crd)?;
    }
    Ok(older)
}

fn set(object: &mut Value, pointer: &str, to: &str) -> Result<()> {
    *object.pointer_mut(pointer).with_context(|| format!("no {pointer}"))? = Value::from(to);
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let (entry, to) = (entry?.path(), to);
        let to = to.join(entry.file_name().context("an entry without a name")?);
        if entry.is_dir() {
            copy(&entry, &to)?;
        } else {
            std::fs::copy(&entry, &to)?;
        }
    }
    Ok(())
}

/// What the Job before an upgrade runs.
fn apply_crds(lab: &Lab) -> Result<()> {
    let controller = programs::herald("herald-controller")?.display().to_string();
    let kubeconfig = lab.control_plane().admin_kubeconfig().display().to_string();
    lab.control_plane().host().netns.output(&controller, &["apply-crds", "--kubeconfig", &kubeconfig])?;
    Ok(())
}

fn crd_version(lab: &Lab) -> Result<String> {
    lab.kubectl(&["get", "crd", POOLS, "-o", CRD_VERSION])
}

/// The version of the chart that the speakers are of.
fn running(lab: &Lab) -> Result<String> {
    let label = r"jsonpath={.metadata.labels.helm\.sh/chart}";
    lab.kubectl(&[NAMESPACE, "get", "daemonset", "herald-speaker", "-o", label])
}

fn back_and_forth(helm: Helm) -> Result<()> {
    let lab = lab()?;
    let (older, newer) = (older(&lab)?.display().to_string(), chart().display().to_string());
    let pool = "--set=pools[0].addresses={192.168.0.240-192.168.0.250}";
    lab.helm_of(helm, &["install", "herald", &older, NAMESPACE, pool])?;
    ensure!(crd_version(&lab)? == "1", "installed with CRDs of version {}", crd_version(&lab)?);

    // Helm itself leaves CRDs alone. No kubelet runs the Job here, hence by hand what it does.
    let upgrade =
        ["upgrade", "herald", &newer, NAMESPACE, pool, "--set=pools[0].reclaimPolicy=Retain", "--no-hooks"];
    apply_crds(&lab)?;
    let ours = crd_version(&lab)?;
    ensure!(ours != "1", "the CRDs are still of version 1");
    lab.helm_of(helm, &upgrade)?;
    lab.kubectl_apply(
        "{apiVersion: heraldlb.io/v1beta1, kind: IPAddressPool, metadata: {name: by-hand}, \
         spec: {addresses: [192.168.0.200/29], reclaimPolicy: Retain}}",
    )?;
    let policy =
        |pool: &str| lab.kubectl(&["get", "ipaddresspool", pool, "-o", "jsonpath={.spec.reclaimPolicy}"]);
    ensure!(policy("default")? == "Retain" && running(&lab)? != "herald-0.0.9", "not upgraded");

    // With hooks: none may run, since nothing here would run it and helm would wait for it.
    lab.helm_of(helm, &["rollback", "herald", "1", NAMESPACE, "--timeout=60s"])?;
    ensure!(running(&lab)? == "herald-0.0.9", "the speakers are of {}", running(&lab)?);
    ensure!(crd_version(&lab)? == ours, "the CRDs went back to version {}", crd_version(&lab)?);
    ensure!(policy("by-hand")? == "Retain", "a stored field is gone");
    ensure!(policy("default")? != "Retain", "the release's own pool did not go back");

    lab.helm_of(helm, &upgrade)?;
    ensure!(policy("default")? == "Retain" && crd_version(&lab)? == ours, "not upgraded again");
    Ok(())
}

#[test]
fn a_rollback_by_helm_4_keeps_the_newer_crds_and_what_is_stored_by_them() -> Result<()> {
    back_and_forth(Helm::Four)
}

#[test]
fn a_rollback_by_helm_3_keeps_the_newer_crds_and_what_is_stored_by_them() -> Result<()> {
    back_and_forth(Helm::Three)
}
