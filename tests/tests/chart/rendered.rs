//! What is rendered, looked at without a cluster.

use anyhow::{Context as _, Result, ensure};
use herald_lab::programs::Helm;
use serde_json::{Value, json};

use crate::{SETS, documents, template, template_of};

/// The only rights in the whole chart that change anything, beside those of the Job that applies the CRDs.
const WRITES: [(&str, &str, &str); 12] = [
    ("herald-controller", "services/status", "patch"),
    ("herald-controller", "ipaddresspools/status", "patch"),
    ("herald-controller", "l2advertisements/status", "patch"),
    ("herald-controller", "loadbalancerips", "create"),
    ("herald-controller", "loadbalancerips", "update"),
    ("herald-controller", "loadbalancerips", "delete"),
    ("herald-controller", "loadbalancerips/status", "patch"),
    ("herald-controller", "events", "create"),
    ("herald-controller", "secrets", "create"),
    ("herald-controller", "leases", "update"),
    ("herald-controller", "leases", "create"),
    ("herald-speaker", "loadbalancerips/status", "patch"),
];

fn one<'a>(documents: &'a [Value], kind: &str, name: &str) -> Result<&'a Value> {
    let is = |each: &&Value| {
        each.get("kind").is_some_and(|found| found == kind)
            && each.pointer("/metadata/name").is_some_and(|found| found == name)
    };
    let found = documents.iter().find(is);
    found.with_context(|| format!("no {kind} {name} is rendered"))
}

#[test]
fn the_same_values_render_the_same_text() -> Result<()> {
    for (set, args) in SETS {
        ensure!(template(args)? == template(args)?, "{set}: two renderings differ");
    }
    Ok(())
}

#[test]
fn helm_3_renders_the_same_objects() -> Result<()> {
    for (set, args) in SETS {
        let of = |helm: Helm| documents(&template_of(helm, args)?);
        ensure!(of(Helm::Three)? == of(Helm::Four)?, "{set}: Helm 3 renders something else");
    }
    Ok(())
}

#[test]
fn names_follow_the_release_and_namespaces_its_own() -> Result<()> {
    let text = crate::helm(&["template", "lan", "charts/herald", "--namespace=net"])?;
    let documents = documents(&text)?;
    one(&documents, "Deployment", "lan-herald-controller")?;
    one(&documents, "DaemonSet", "lan-herald-speaker")?;
    for each in &documents {
        let (kind, metadata) = (&each["kind"], &each["metadata"]);
        let clusters = kind.as_str().is_some_and(|kind| kind.starts_with("ClusterRole"));
        // What a speaker tells of the cluster's objects goes to `default`; nothing else is outside.
        let events =
            ["Role", "RoleBinding"].iter().any(|of| kind == of) && metadata["name"] == "lan-herald-speaker";
        let place = if events { "default" } else { "net" };
        ensure!(clusters || metadata["namespace"] == place, "{kind} is in {}", metadata["namespace"]);
        let name = metadata["name"].as_str().unwrap_or_default();
        ensure!(name.starts_with("lan-herald-"), "{kind} {name} would meet another release's");
        for subject in each["subjects"].as_array().into_iter().flatten() {
            ensure!(subject["namespace"] == "net", "{kind} {name} gives rights to {subject}");
        }
    }
    Ok(())
}

#[test]
fn no_secret_is_rendered_and_the_users_own_needs_no_right_to_create_one() -> Result<()> {
    for (set, args) in SETS {
        let documents = documents(&template(args)?)?;
        ensure!(documents.iter().all(|each| each["kind"] != "Secret"), "{set} renders a Secret");
    }
    let documents = documents(&template(&["--set=helloKey.existingSecret=ours"])?)?;
    let rules = one(&documents, "Role", "herald-controller")?["rules"].clone();
    let secrets: Vec<&Value> = rules
        .as_array()
        .into_iter()
        .flatten()
        .filter(|rule| rule["resources"] == json!(["secrets"]))
        .collect();
    ensure!(
        secrets
            == [
                &json!({ "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["ours"], "verbs": ["get"] })
            ],
        "{secrets:?}"
    );
    let volume = &one(&documents, "DaemonSet", "herald-speaker")?["spec"]["template"]["spec"]["volumes"][0];
    ensure!(volume["secret"]["secretName"] == "ours" && volume["secret"]["optional"].is_null(), "{volume}");
    Ok(())
}

#[test]
fn rights_to_change_things_are_these_and_no_others() -> Result<()> {
    let documents = documents(&template(&["--set=crds.upgrade=false"])?)?;
    let mut writes = Vec::new();
    for role in documents.iter().filter(|each| each["kind"] == "ClusterRole" || each["kind"] == "Role") {
        let role_name = role["metadata"]["name"].as_str().context("a role without a name")?;
        for rule in role["rules"].as_array().into_iter().flatten() {
            let strings = |field: &str| -> Vec<String> {
                rule[field]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|each| each.as_str().map(str::to_owned))
                    .collect()
            };
            for resource in strings("resources") {
                ensure!(!resource.contains('*') && resource != "pods", "{role_name}: {rule}");
                for verb in strings("verbs") {
                    ensure!(verb != "*" && verb != "deletecollection", "{role_name}: {rule}");
                    if resource == "secrets" && verb != "create" {
                        ensure!(verb == "get" && rule["resourceNames"] == json!(["herald-hello"]), "{rule}");
                    }
                    if !["get", "list", "watch"].contains(&verb.as_str()) {
                        writes.push((role_name.to_owned(), resource.clone(), verb));
                    }
                }
            }
        }
    }
    let mut expected: Vec<(String, String, String)> = WRITES
        .iter()
        .map(|(role, resource, verb)| ((*role).to_owned(), (*resource).to_owned(), (*verb).to_owned()))
        .chain([("herald-speaker".to_owned(), "events".to_owned(), "create".to_owned())])
        .collect();
    writes.sort();
    expected.sort();
    ensure!(writes == expected, "{writes:#?}");
    Ok(())
}

#[test]
fn the_speaker_is_not_root_has_one_capability_and_no_cpu_limit() -> Result<()> {
    let documents = documents(&template(&[])?)?;
    let spec = &one(&documents, "DaemonSet", "herald-speaker")?["spec"]["template"]["spec"];
    ensure!(spec["hostNetwork"] == true && spec["hostPID"].is_null() && spec["hostIPC"].is_null(), "{spec}");
    let container = &spec["containers"][0];
    ensure!(
        container["securityContext"]
            == json!({
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsNonRoot": true,
                "runAsUser": 65532, "runAsGroup": 65532, "seccompProfile": { "type": "RuntimeDefault" },
                "capabilities": { "drop": ["ALL"], "add": ["NET_RAW"] },
            }),
        "{container}"
    );
    ensure!(container["resources"]["limits"]["cpu"].is_null(), "a CPU limit makes a speaker look dead");
    ensure!(spec["volumes"].as_array().is_some_and(|all| all.len() == 1), "{}", spec["volumes"]);
    let tolerated = &spec["tolerations"][0]["key"];
    ensure!(tolerated == "node-role.kubernetes.io/control-plane", "{tolerated}");
    Ok(())
}

#[test]
fn every_flag_that_is_rendered_is_one_the_programs_have() -> Result<()> {
    let documents = documents(&template(SETS[1].1)?)?;
    for (kind, name, program) in [
        ("Deployment", "lan-controller", "herald-controller"),
        ("DaemonSet", "lan-speaker", "herald-speaker"),
        ("Job", "lan-crds", "herald-controller"),
    ] {
        let args = &one(&documents, kind, name)?["spec"]["template"]["spec"]["containers"][0]["args"];
        let args: Vec<&str> = args.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let help =
            std::process::Command::new(herald_lab::programs::herald(program)?).arg("--help").output()?;
        let help = String::from_utf8(help.stdout)?;
        for arg in &args {
            let flag = arg.split('=').next().unwrap_or(arg);
            ensure!(
                help.split_whitespace().any(|word| word == flag),
                "{kind}: {program} knows no {flag}:\n{help}"
            );
        }
        ensure!(!args.is_empty(), "{kind} {name} is started without arguments");
    }
    Ok(())
}

#[test]
fn alerts_ask_for_metrics_that_exist() -> Result<()> {
    let path = herald_lab::programs::workspace().join("docs/metrics.md");
    let table = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let documents = documents(&template(&["--set=metrics.prometheusRule.enabled=true"])?)?;
    let rules = one(&documents, "PrometheusRule", "herald")?["spec"]["groups"][0]["rules"].clone();
    for rule in rules.as_array().context("no rules")? {
        let expr = rule["expr"].as_str().context("a rule without an expression")?;
        let words = expr.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        for name in words.filter(|word| word.starts_with("herald_")) {
            ensure!(
                table.contains(&format!("`{name}`")),
                "{}: {name} is not in docs/metrics.md",
                rule["alert"]
            );
        }
    }
    Ok(())
}
