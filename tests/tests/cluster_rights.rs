//! The chart's rights are enough and no more, by the API server's audit log. `make test-cluster`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use herald_crds::name_of_address;
use herald_lab::{
    Cluster, HERALD_NAMESPACE,
    cluster::shared::{Installed, alone},
};
use serde_json::Value;

/// Verb, API group, resource with its subresource.
type Right = (String, String, String);

/// Used when two write the same status at the same time, which no test can order: component, verb, group, resource.
const AFTER_A_CONFLICT: [(&str, &str, &str, &str); 1] =
    [("speaker", "get", "heraldlb.io", "loadbalancerips")];

/// Events beside what is not the speakers' to speak of.
const ELSEWHERE: &str = "/apis/events.k8s.io/v1/namespaces/kube-system/events";

/// What the log says that Herald's ServiceAccounts asked for, and with which status it was answered.
fn asked(cluster: &Cluster) -> Result<BTreeMap<(String, Right), BTreeSet<u64>>> {
    let prefix = format!("system:serviceaccount:{HERALD_NAMESPACE}:");
    let log = std::fs::read_to_string(cluster.control_plane().audit_log())?;
    let mut asked: BTreeMap<(String, Right), BTreeSet<u64>> = BTreeMap::new();
    for line in log.lines() {
        // The last line may still be being written.
        let Ok(entry) = serde_json::from_str::<Value>(line) else { continue };
        let text =
            |pointer: &str| entry.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let user = text("/user/username");
        let Some(account) = user.strip_prefix(&prefix) else { continue };
        let right = (
            text("/verb"),
            text("/objectRef/apiGroup"),
            resource(&text("/objectRef/resource"), &text("/objectRef/subresource")),
        );
        let code = entry.pointer("/responseStatus/code").and_then(Value::as_u64).unwrap_or_default();
        asked.entry((account.to_owned(), right)).or_default().insert(code);
    }
    Ok(asked)
}

fn resource(name: &str, subresource: &str) -> String {
    if subresource.is_empty() { name.to_owned() } else { format!("{name}/{subresource}") }
}

/// Every right that the chart gives to the account of `component`, one by one.
fn granted(cluster: &Cluster, component: &str) -> Result<BTreeSet<Right>> {
    let selector = format!("app.kubernetes.io/component={component}");
    let json = cluster.kubectl(&[
        "get",
        "clusterroles,roles",
        "--all-namespaces",
        "--selector",
        &selector,
        "--output=json",
    ])?;
    let roles: Value = serde_json::from_str(&json)?;
    let list = |rule: &Value, field: &str| -> Vec<String> {
        let values = rule.get(field).and_then(Value::as_array).into_iter().flatten();
        values.filter_map(|value| value.as_str().map(str::to_owned)).collect()
    };
    let mut granted = BTreeSet::new();
    let items = roles.get("items").and_then(Value::as_array).context("a list of roles")?;
    for rule in items.iter().filter_map(|role| role.get("rules")?.as_array()).flatten() {
        for verb in list(rule, "verbs") {
            for group in list(rule, "apiGroups") {
                for resource in list(rule, "resources") {
                    granted.insert((verb.clone(), group.clone(), resource));
                }
            }
        }
    }
    ensure!(!granted.is_empty(), "no role has the label {selector}");
    Ok(granted)
}

/// Has both programs do whatever they can do for a Service.
fn exercise(cluster: &Cluster) -> Result<()> {
    cluster.create_namespace("rights")?;
    cluster.kubectl_apply(
        "{apiVersion: heraldlb.io/v1beta1, kind: L2Advertisement, metadata: {name: rights}, spec: {ipAddressPools: [default]}}",
    )?;
    cluster.run_backend("rights", "web", &["n1"], "externalTrafficPolicy: Local")?;
    let address = *cluster.await_addresses("rights", "web")?.first().context("an address")?;
    cluster.await_holder_is(address, "n1")?;
    // Somebody else's change of an address, which is said on it.
    let name = name_of_address(address);
    let raised = r#"{"spec": {"revision": 1000000000}}"#;
    cluster.kubectl(&["patch", "lbip", &name, "--type=merge", "--patch", raised])?;
    cluster.await_lbip(address, "said to be edited", |lbip| {
        let conditions = lbip.and_then(|lbip| lbip.status.as_ref()).map(|status| &status.conditions);
        conditions.into_iter().flatten().any(|condition| condition.reason == "Edited")
    })?;
    cluster.deploy_backend("rights", "web", &["n2"])?;
    cluster.await_holder_is(address, "n2")?;
    cluster.kubectl(&["delete", "service", "web", "--namespace", "rights"])?;
    cluster.await_lbip(address, "gone", |lbip| lbip.is_none())?;
    cluster.kubectl(&["delete", "l2advertisement", "rights"])?;
    cluster.kubectl(&["delete", "namespace", "rights", "--wait=false"])?;
    Ok(())
}

#[test]
#[ignore = "a full cluster: make test-cluster"]
fn nothing_is_refused_and_no_right_is_unused() -> Result<()> {
    let (_alone, Installed { cluster, .. }) = alone()?;
    exercise(cluster)?;
    // The speakers' rest of the story: a start.
    cluster.kubectl(&["rollout", "restart", "--namespace", HERALD_NAMESPACE, "daemonset/herald-speaker"])?;
    cluster.await_herald()?;
    let asked = asked(cluster)?;
    let refused: Vec<_> =
        asked.iter().filter(|(_, codes)| codes.contains(&403) || codes.contains(&401)).collect();
    ensure!(refused.is_empty(), "the chart's rights are not enough: {refused:?}");
    for component in ["controller", "speaker"] {
        let account = format!("herald-{component}");
        let used: BTreeSet<Right> =
            asked.keys().filter(|(who, _)| *who == account).map(|(_, right)| right.clone()).collect();
        let excused = |(verb, group, resource): &&Right| {
            AFTER_A_CONFLICT.contains(&(component, verb.as_str(), group.as_str(), resource.as_str()))
        };
        let granted = granted(cluster, component)?;
        let unused: Vec<&Right> = granted.difference(&used).filter(|right| !excused(right)).collect();
        ensure!(unused.is_empty(), "{account} has rights that it never used: {unused:?}");
    }
    Ok(())
}

#[test]
#[ignore = "a full cluster: make test-cluster"]
fn what_is_not_granted_is_refused() -> Result<()> {
    let (_alone, Installed { cluster, .. }) = alone()?;
    let label = r#"--patch={"metadata":{"labels":{"a":"b"}}}"#;
    let cases: [(&str, &[&str]); 13] = [
        ("speaker", &["get", "secrets", "--namespace", HERALD_NAMESPACE]),
        ("speaker", &["get", "services", "--all-namespaces"]),
        ("speaker", &["get", "pods", "--all-namespaces"]),
        ("speaker", &["get", "ipaddresspools"]),
        ("speaker", &["delete", "loadbalancerip", "192.168.1.240"]),
        ("speaker", &["patch", "node", "n1", "--type=merge", label]),
        ("speaker", &["create", "--raw", ELSEWHERE, "--filename=/dev/null"]),
        ("controller", &["get", "secrets", "--all-namespaces"]),
        ("controller", &["get", "secrets", "--namespace", "kube-system"]),
        ("controller", &["get", "pods", "--all-namespaces"]),
        ("controller", &["patch", "service", "kubernetes", "--namespace=default", "--type=merge", label]),
        ("controller", &["patch", "node", "n1", "--type=merge", label]),
        ("controller", &["patch", "ipaddresspool", "default", "--type=merge", label]),
    ];
    for (component, request) in cases {
        let who = format!("--as=system:serviceaccount:{HERALD_NAMESPACE}:herald-{component}");
        match cluster.kubectl(&[request, &[who.as_str()]].concat()) {
            Ok(said) => anyhow::bail!("herald-{component} may {request:?}: {said}"),
            Err(error) => ensure!(format!("{error:#}").contains("orbidden"), "{request:?}: {error:#}"),
        }
    }
    Ok(())
}
