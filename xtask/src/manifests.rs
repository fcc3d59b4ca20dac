//! What is made from the chart: the plain manifests, a kustomize base of them, and the table of its values.

use std::{collections::BTreeMap, fmt::Write as _, process::Command};

use anyhow::{Context as _, bail};

use crate::generated::{Generated, root};

const CHART: &str = "charts/herald";
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
    let mut names = vec!["crds.yaml".to_owned()];
    for (name, templates) in FILES {
        let mut text = HEADER.to_owned();
        for template in templates {
            let document = rendered.remove(*template);
            text += &document.with_context(|| format!("the chart renders no {template}"))?;
        }
        files.put(format!("manifests/{name}"), &text)?;
        names.push(name.to_owned());
    }
    if let Some(template) = rendered.keys().next() {
        bail!("the chart renders {template}: say in {} which manifest it belongs to", file!());
    }
    files.put("manifests/kustomization.yaml", &kustomization(&names))?;
    names.push("kustomization.yaml".to_owned());
    files.nothing_else("manifests", ".yaml", &names)?;
    files.put("docs/install/values.md", &values(&files.read("charts/herald/values.yaml")?))
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
        .args(["template", "herald", CHART, "--namespace=herald-system"])
        .args(["--set=namespace.create=true", "--set=crds.upgrade=false"])
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

/// One value of the chart, as values.yaml shows it.
struct Row {
    path: String,
    default: String,
    text: String,
}

/// The table of all values: path, default, and the comment above it.
fn values(yaml: &str) -> String {
    let mut page = "<!-- Made from charts/herald/values.yaml by `cargo xtask manifests`; edit that. -->\n\n\
         # Values of the chart\n\n\
         `helm show values` prints the same with its comments; values.schema.json beside it refuses what is not allowed, \
         and unknown names.\n\n\
         | value | default | |\n|---|---|---|\n"
        .to_owned();
    for Row { path, default, text } in rows(yaml) {
        let default = if default.is_empty() { String::new() } else { format!("`{}`", cell(&default)) };
        // Writing to a String can't fail.
        let _ = writeln!(page, "| `{path}` | {default} | {} |", cell(&text));
    }
    page
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

fn rows(yaml: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut parents: Vec<(usize, &str)> = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    for line in yaml.lines() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if text.is_empty() {
            comment.clear();
        } else if let Some(words) = text.strip_prefix('#') {
            comment.push(words.trim());
        } else if let Some(item) = text.strip_prefix("- ") {
            // A list's entries are the default of the key above them.
            if let Some(row) = rows.last_mut() {
                let entries = row.default.trim_start_matches('[').trim_end_matches(']');
                let sep = if entries.is_empty() { "" } else { ", " };
                row.default = format!("[{entries}{sep}{item}]");
            }
        } else if let Some((key, value)) = text.split_once(':') {
            parents.retain(|(depth, _)| *depth < indent);
            parents.push((indent, key));
            let path: Vec<&str> = parents.iter().map(|(_, key)| *key).collect();
            let row = Row { path: path.join("."), default: value.trim().to_owned(), text: comment.join(" ") };
            comment.clear();
            rows.push(row);
        }
    }
    // A parent without words of its own says nothing that its children don't.
    let only_parent = |row: &Row| row.default.is_empty() && row.text.is_empty();
    rows.retain(|row| !only_parent(row));
    rows
}
