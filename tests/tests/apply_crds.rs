//! `herald-controller apply-crds` at a real API server: what the chart runs before each upgrade.

use std::time::Duration;

use anyhow::{Result, ensure};
use herald_lab::{Lab, Plan, Process, programs};

const PATIENCE: Duration = Duration::from_secs(30);
const CRD: &str = "loadbalancerips.heraldlb.io";
const MARK: &str = "heraldlb.io/crd-version";

/// Runs it with this kubeconfig to its end; whether it succeeded, and what it said.
fn apply_crds(lab: &Lab, kubeconfig: &str) -> Result<(bool, String)> {
    let binary = programs::herald("herald-controller")?;
    let args = ["--log-format=text", "apply-crds", "--kubeconfig", kubeconfig];
    let log = lab.dir().join("apply-crds.log");
    let _ = std::fs::remove_file(&log);
    let netns = &lab.control_plane().host().netns;
    let process = Process::start(netns, "apply-crds", &binary, args, &log)?;
    let ended = process.wait()?;
    Ok((ended.success(), std::fs::read_to_string(&log)?))
}

fn mark(lab: &Lab, version: &str) -> Result<String> {
    lab.kubectl(&["annotate", "crd", CRD, "--overwrite", &format!("{MARK}={version}")])
}

fn marked(lab: &Lab) -> Result<String> {
    lab.kubectl(&["get", "crd", CRD, "-o", r"jsonpath={.metadata.annotations.heraldlb\.io/crd-version}"])
}

#[test]
fn crds_are_made_and_brought_up_to_date_and_never_back() -> Result<()> {
    let lab = Plan::nodes(0).without_herald().start()?;
    let admin = lab.control_plane().admin_kubeconfig().display().to_string();

    let (done, said) = apply_crds(&lab, &admin)?;
    ensure!(done, "on an empty cluster:\n{said}");
    let ours = marked(&lab)?;
    lab.kubectl(&["get", "ipaddresspools,l2advertisements,loadbalancerips"])?;

    // As an older Herald left it: without a printer column and under another field manager.
    mark(&lab, "1")?;
    let without = r#"[{"op": "remove", "path": "/spec/versions/0/additionalPrinterColumns"}]"#;
    lab.kubectl(&["patch", "crd", CRD, "--type=json", "--field-manager=older", "-p", without])?;
    let (done, said) = apply_crds(&lab, &admin)?;
    ensure!(done && marked(&lab)? == ours, "an older CRD:\n{said}");
    let columns =
        lab.kubectl(&["get", "crd", CRD, "-o", "jsonpath={.spec.versions[0].additionalPrinterColumns}"])?;
    ensure!(columns.contains("HOLDER") || columns.contains("Holder"), "columns: {columns}");

    mark(&lab, "1000000")?;
    let (done, said) = apply_crds(&lab, &admin)?;
    ensure!(done && said.contains("left alone"), "a newer CRD:\n{said}");
    ensure!(marked(&lab)? == "1000000", "a newer CRD was replaced");

    // The controller's own account may not: nobody's but the Job's does.
    mark(&lab, &ours)?;
    for file in ["namespace.yaml", "controller-rbac.yaml"] {
        lab.kubectl_apply_file(&programs::workspace().join("manifests").join(file))?;
    }
    let account = lab.account_kubeconfig("herald-controller")?.display().to_string();
    let (done, said) = apply_crds(&lab, &account)?;
    ensure!(!done && said.contains("may not get CustomResourceDefinition"), "without rights:\n{said}");
    Ok(())
}

#[test]
fn without_an_api_server_it_gives_up_and_says_so() -> Result<()> {
    let lab = Plan::nodes(0).without_herald().start()?;
    let admin = lab.control_plane().admin_kubeconfig().display().to_string();
    lab.control_plane().kill_api()?;
    let begun = std::time::Instant::now();
    let (done, said) = apply_crds(&lab, &admin)?;
    ensure!(!done && said.contains("gave up after 10 s"), "{said}");
    ensure!(begun.elapsed() < PATIENCE, "a Job must end");
    Ok(())
}
