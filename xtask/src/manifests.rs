//! What is made from the chart: the plain manifests, a kustomize base of them, and the tables of its values and rights.

mod reference;

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context as _, bail};

use crate::generated::{Generated, root};

const CHART: &str = "charts/herald";
const NAMESPACE: &str = "herald-system";
/// Each plain manifest and the templates it is made of.
const FILES: [(&str, &[&str]); 5] = [
    ("namespace.yaml", &["namespace.yaml"]),
    ("controller-rbac.yaml", &["controller-rbac.yaml"]),
    ("speaker-rbac.yaml", &["speaker-rbac.yaml"]),
    ("controller.yaml", &["controller.yaml", "controller-pdb.yaml"]),
    ("speaker.yaml", &["speaker.yaml"]),
];
/// Labels that are true of what Helm has installed only.
const HELMS: [&str; 2] = ["helm.sh/chart: ", "app.kubernetes.io/managed-by: "];
const HEADER: &str = "# Made from charts/herald by `cargo xtask manifests`; edit that.\n";

/// Writes or checks all of it.
pub(crate) fn run(check: bool) -> anyhow::Result<()> {
    let files = Generated::new("cargo xtask manifests", check);
    let mut rendered = render()?;
    // For `helm upgrade`; whoever applies manifests applies the CRDs among them.
    let hook = rendered.remove("crds-hook.yaml").context("the chart renders no crds-hook.yaml")?;
    let mut rights = String::new();
    let mut names = vec!["crds.yaml".to_owned()];
    for (name, templates) in FILES {
        let documents: Vec<String> = templates
            .iter()
            .map(|template| {
                rendered.remove(*template).with_context(|| format!("the chart renders no {template}"))
            })
            .collect::<Result<_, _>>()?;
        if name.ends_with("-rbac.yaml") {
            rights += &documents.join("---\n");
        }
        files.put(format!("manifests/{name}"), &(HEADER.to_owned() + &documents.join("---\n")))?;
        names.push(name.to_owned());
    }
    if let Some(template) = rendered.keys().next() {
        bail!("the chart renders {template}: say in {} which manifest it belongs to", file!());
    }
    files.put("manifests/kustomization.yaml", &kustomization(&names))?;
    names.push("kustomization.yaml".to_owned());
    files.nothing_else("manifests", ".yaml", &names)?;
    files.put("docs/install/rights.md", &reference::rights(&(rights + &hook), NAMESPACE))?;
    files.put("docs/install/values.md", &reference::values(&files.read("charts/herald/values.yaml")?))
}

fn kustomization(names: &[String]) -> String {
    let list = names.join("\n  - ");
    format!(
        "{HEADER}# `kubectl apply -k` takes this directory as it is; as a base of yours it takes patches and images.\n\
         apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n  - {list}\n"
    )
}

/// What the chart renders for the plain manifests, by template.
fn render() -> anyhow::Result<BTreeMap<String, String>> {
    let helm = std::env::var("HELM").unwrap_or_else(|_| "helm".to_owned());
    let output = Command::new(&helm)
        .current_dir(root())
        .args(["template", "herald", CHART, "--namespace", NAMESPACE])
        .arg("--set=namespace.create=true")
        .output()
        .with_context(|| format!("running {helm}; `make manifests` builds it, or name yours in HELM"))?;
    if !output.status.success() {
        bail!("helm template: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8(output.stdout).context("helm template printed no text")?;
    let mut rendered = BTreeMap::<String, String>::new();
    for document in text.split("\n---\n") {
        let document = document.trim_start_matches("---\n").trim();
        let Some((source, body)) = document.split_once('\n') else { continue };
        let template = source.strip_prefix("# Source: herald/templates/");
        let template = template.with_context(|| format!("helm names no template: {source}"))?;
        let body: Vec<&str> =
            body.lines().filter(|line| !HELMS.iter().any(|own| line.trim_start().starts_with(own))).collect();
        let all = rendered.entry(template.to_owned()).or_default();
        if !all.is_empty() {
            all.push_str("---\n");
        }
        all.push_str(&body.join("\n"));
        all.push('\n');
    }
    Ok(rendered)
}
