//! What the Node objects say about who may answer.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use herald_lab::{
    Lab, Plan, Process,
    services::holders,
    shared::{Case, example, lab_alone},
};

const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// The holder of an address gives it away when `exclude` is done to its Node, and does not take it back after `admit`.
fn gives_away(
    name: &str,
    exclude: impl Fn(&Lab, &str) -> Result<String>,
    admit: impl Fn(&Lab, &str) -> Result<String>,
) -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, name)?;
    case.apply_service("web", "", "")?;
    let address = case.address("web")?;
    let first = lab.await_holder(address)?;
    exclude(lab, &first)?;
    let moved = lab.await_lbip(address, "moved", |lbip| {
        lbip.is_some_and(|lbip| !holders(lbip).is_empty() && !holders(lbip).contains(&first))
    });
    admit(lab, &first)?;
    let second = moved?.as_ref().map(holders).unwrap_or_default();
    // Whatever the first node would do when it is admitted again it has done when it holds a new address or passed it by.
    case.apply_service("barrier", "", "")?;
    lab.await_holder(case.address("barrier")?)?;
    ensure!(
        [lab.await_holder(address)?] == second[..],
        "the address moved again after the node was admitted"
    );
    Ok(())
}

#[test]
fn an_excluded_node_gives_its_addresses_away_and_takes_none_back() -> Result<()> {
    gives_away(
        "excluded",
        |lab, node| lab.kubectl(&["label", "node", node, &format!("{EXCLUDE}=")]),
        |lab, node| lab.kubectl(&["label", "node", node, &format!("{EXCLUDE}-")]),
    )
}

#[test]
fn a_node_out_of_service_gives_its_addresses_away_and_takes_none_back() -> Result<()> {
    gives_away(
        "out-of-service",
        |lab, node| {
            lab.kubectl(&["taint", "node", node, &format!("{OUT_OF_SERVICE}=nodeshutdown:NoExecute")])
        },
        |lab, node| lab.kubectl(&["taint", "node", node, &format!("{OUT_OF_SERVICE}-")]),
    )
}

#[test]
fn a_node_without_pod_network_gives_its_addresses_away_and_takes_none_back() -> Result<()> {
    let network = |lab: &Lab, node: &str, unavailable: &str| {
        let patch = format!(
            r#"{{"status": {{"conditions": [{{"type": "NetworkUnavailable", "status": "{unavailable}"}}]}}}}"#
        );
        lab.kubectl(&["patch", "node", node, "--subresource=status", "--type=strategic", "--patch", &patch])
    };
    gives_away("no-network", |lab, node| network(lab, node, "True"), |lab, node| network(lab, node, "False"))
}

#[test]
fn a_cordoned_node_keeps_its_addresses_and_gets_no_new_ones() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, "cordoned")?;
    case.apply_service("before", "", "")?;
    let address = case.address("before")?;
    let holder = lab.await_holder(address)?;
    lab.kubectl(&["cordon", &holder])?;
    let outcome = (|| {
        for index in 0..4 {
            let name = format!("after-{index}");
            case.apply_service(&name, "", "")?;
            let new = lab.await_holder(case.address(&name)?)?;
            ensure!(new != holder, "{holder} is cordoned and took {name}'s address");
        }
        ensure!(lab.await_holder(address)? == holder, "the address moved although its node is only cordoned");
        Ok(())
    })();
    lab.kubectl(&["uncordon", &holder])?;
    outcome
}

#[test]
fn a_single_node_serves_although_kubeadm_labels_it_as_excluded() -> Result<()> {
    let lab = Plan::nodes(1).start()?;
    lab.kubectl(&["label", "node", "n1", &format!("{EXCLUDE}=")])?;
    lab.kubectl_apply_file(&example("pool.yaml"))?;
    lab.kubectl_apply_file(&example("loadbalancer.yaml"))?;
    lab.set_endpoints("default", "web", &["n1"])?;
    let address = *lab.await_addresses("default", "web")?.first().context("an address")?;
    let page = lab.client().http_get_until_ok(address, 80, Duration::from_secs(20))?;
    ensure!(page.node() == Some("n1"), "{page:?}");
    // Nothing is left to choose from, so the label counts for nothing; the pool says so.
    await_reason(&lab, "ipaddresspool/default", "AllNodesExcluded")
}

/// Waits until the object's condition `Ready` has this reason.
fn await_reason(lab: &Lab, object: &str, reason: &str) -> Result<()> {
    let ready = r#"jsonpath={.status.conditions[?(@.type=="Ready")].reason}"#;
    lab.kubectl(&["wait", object, &format!("--for={ready}={reason}"), "--timeout=20s"]).map(drop)
}

/// The reason and the message for which nobody announces the Service's address.
fn unannounced(case: &Case, service: &str) -> Result<(String, String)> {
    case.address(service)?;
    let lab = case.lab();
    let condition =
        lab.await_service_condition(case.namespace(), service, "heraldlb.io/Announced", "False")?;
    Ok((condition.reason, condition.message))
}

#[test]
fn where_no_speaker_runs_the_service_gets_its_address_and_says_that_nobody_answers() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, "speechless")?;
    for node in lab.nodes() {
        node.speaker(Process::kill)?;
    }
    case.apply_service("web", "", "")?;
    let said = unannounced(&case, "web");
    for node in lab.nodes() {
        node.start_speaker()?;
    }
    let (reason, message) = said?;
    ensure!(reason == "NoHolder", "{reason}: {message}");
    lab.await_holder(case.address("web")?)?;
    Ok(())
}

#[test]
fn an_advertisement_that_selects_no_node_is_named_by_the_service_and_by_itself() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, "nowhere")?;
    lab.kubectl_apply(
        "{apiVersion: heraldlb.io/v1beta1, kind: L2Advertisement, metadata: {name: nowhere}, \
         spec: {ipAddressPools: [special], nodeSelectors: [{matchLabels: {rack: none}}]}}",
    )?;
    let outcome = (|| {
        await_reason(lab, "l2advertisement/nowhere", "NoNodeSelected")?;
        case.apply_service("web", "annotations: {heraldlb.io/address-pool: special}", "")?;
        let (reason, message) = unannounced(&case, "web")?;
        ensure!(reason == "NoNodeQualifies", "{reason}: {message}");
        Ok(())
    })();
    lab.kubectl(&["delete", "l2advertisement", "nowhere"])?;
    outcome
}
