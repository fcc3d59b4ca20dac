//! What an L2Advertisement says about who answers, looked at on the wire; and a stranger on the LAN who has an address of a
//! pool already.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use herald_crds::{LoadBalancerIP, name_of_address};
use herald_lab::{
    Lab, Sniffer,
    services::holders,
    shared::{Case, lab_alone},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

const PATIENCE: Duration = Duration::from_secs(20);
const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// A pool that only those get addresses of who name it.
fn pool(lab: &Lab, name: &str, labels: &str, addresses: &str) -> Result<()> {
    lab.kubectl_apply(&format!(
        "{{apiVersion: heraldlb.io/v1beta1, kind: IPAddressPool, metadata: {{name: {name}, labels: {{{labels}}}}}, \
         spec: {{addresses: [{addresses}], autoAssign: false}}}}"
    ))
    .map(drop)
}

/// An advertisement; none of these tests takes it away again, as it is about the test's own pools alone.
fn advertise(lab: &Lab, name: &str, spec: &str) -> Result<()> {
    let head = format!("apiVersion: heraldlb.io/v1beta1, kind: L2Advertisement, metadata: {{name: {name}}}");
    lab.kubectl_apply(&format!("{{{head}, spec: {{{spec}}}}}")).map(drop)
}

/// Makes a Service with an address of that pool.
fn service_of(case: &Case, pool: &str, name: &str, labels: &str) -> Result<IpAddr> {
    let metadata = format!("labels: {{{labels}}}, annotations: {{heraldlb.io/address-pool: {pool}}}");
    case.apply_service(name, &metadata, "")?;
    case.address(name)
}

/// Waits until `node` is reported to hold the address, and finds that it alone answers when the client asks who has it.
fn answers(lab: &Lab, sniffer: &Sniffer, address: IpAddr, node: &str) -> Result<()> {
    lab.await_holder_is(address, node)?;
    let answering = lab.who_answers(sniffer, address)?;
    ensure!(answering == BTreeSet::from([node.to_owned()]), "{answering:?} answer for {address}, not {node}");
    Ok(())
}

/// The reason for which nobody answers for the Service's address.
fn unannounced(case: &Case, service: &str) -> Result<String> {
    let lab = case.lab();
    Ok(lab.await_service_condition(case.namespace(), service, "heraldlb.io/Announced", "False")?.reason)
}

#[test]
fn pools_are_advertised_by_label_from_the_nodes_selected_and_follow_a_change_of_either() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, "pool-selectors")?;
    let sniffer = Sniffer::start(lab.lan())?;
    pool(lab, "by-label-a", "zone: a", "192.168.2.0/31")?;
    pool(lab, "by-label-b", "zone: b", "192.168.2.2/31")?;
    for (zone, node) in [("a", "n1"), ("b", "n2")] {
        let pools = format!("ipAddressPoolSelectors: [{{matchLabels: {{zone: {zone}}}}}]");
        let nodes = format!("nodeSelectors: [{{matchLabels: {{kubernetes.io/hostname: {node}}}}}]");
        advertise(lab, &format!("zone-{zone}"), &format!("{pools}, {nodes}"))?;
    }
    let of_a = service_of(&case, "by-label-a", "a", "")?;
    let of_b = service_of(&case, "by-label-b", "b", "")?;
    answers(lab, &sniffer, of_a, "n1")?;
    answers(lab, &sniffer, of_b, "n2")?;
    lab.kubectl(&["label", "pool", "by-label-b", "--overwrite", "zone=a"])?;
    answers(lab, &sniffer, of_b, "n1")?;
    let nodes = r#"{"spec": {"nodeSelectors": [{"matchLabels": {"kubernetes.io/hostname": "n3"}}]}}"#;
    lab.kubectl(&["patch", "l2advertisement", "zone-a", "--type=merge", "--patch", nodes])?;
    answers(lab, &sniffer, of_a, "n3")?;
    answers(lab, &sniffer, of_b, "n3")
}

#[test]
fn an_advertisement_for_some_services_leaves_the_others_of_its_pool_unannounced() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, "service-selectors")?;
    let sniffer = Sniffer::start(lab.lan())?;
    pool(lab, "for-public", "", "192.168.2.8/30")?;
    let public = "serviceSelectors: [{matchLabels: {audience: public}}]";
    let from_n2 = "nodeSelectors: [{matchLabels: {kubernetes.io/hostname: n2}}]";
    advertise(lab, "for-public", &format!("ipAddressPools: [for-public], {public}, {from_n2}"))?;
    let seen = service_of(&case, "for-public", "seen", "audience: public")?;
    let unseen = service_of(&case, "for-public", "unseen", "audience: staff")?;
    answers(lab, &sniffer, seen, "n2")?;
    let reason = unannounced(&case, "unseen")?;
    ensure!(reason == "NoNodeQualifies", "{reason}");
    // A label that changes opens it; until then nobody has said a word.
    let said = sniffer.seen().into_iter().find(|frame| frame.announces(unseen));
    ensure!(said.is_none(), "{said:?}");
    case.kubectl(&["label", "service", "unseen", "--overwrite", "audience=public"])?;
    answers(lab, &sniffer, unseen, "n2")
}

#[test]
fn preferences_for_a_node_add_up_and_the_node_with_the_greatest_sum_answers() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, "preferred")?;
    let sniffer = Sniffer::start(lab.lan())?;
    pool(lab, "preferred", "", "192.168.2.16/29")?;
    let preferences =
        [(30, "kubernetes.io/hostname: n1"), (20, "kubernetes.io/hostname: n2"), (20, "disk: fast")]
            .map(|(weight, label)| format!("{{weight: {weight}, preference: {{matchLabels: {{{label}}}}}}}"))
            .join(", ");
    lab.kubectl(&["label", "node", "n2", "disk=fast"])?;
    advertise(
        lab,
        "preferred",
        &format!("ipAddressPools: [preferred], preferredNodeSelectors: [{preferences}]"),
    )?;
    let mut chosen = Vec::new();
    for index in 0..6 {
        let address = service_of(&case, "preferred", &format!("web-{index}"), "")?;
        let weighed = |lbip: Option<&LoadBalancerIP>| {
            let announce = lbip.and_then(|lbip| lbip.spec.announce.as_ref()?.l2.as_ref());
            let weights = announce.into_iter().flat_map(|l2| &l2.preferred);
            let weights: Vec<(&str, i32)> =
                weights.map(|preferred| (preferred.node.as_str(), preferred.weight)).collect();
            weights == [("n2", 40), ("n1", 30)]
        };
        lab.await_lbip(address, "n2 before n1", weighed)?;
        chosen.push((address, lab.await_holder(address)?));
    }
    // The first to be able takes a free address some hundredths of a second before the next: on a busy machine not always.
    let by_n2: Vec<IpAddr> =
        chosen.iter().filter(|(_, node)| node == "n2").map(|(address, _)| *address).collect();
    ensure!(by_n2.len() >= 4, "not n2 holds them: {chosen:?}");
    for address in by_n2 {
        answers(lab, &sniffer, address, "n2")?;
    }
    Ok(())
}

#[test]
fn interfaces_are_chosen_by_name_or_glob_and_where_none_is_nobody_answers() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, "by-interface")?;
    let sniffer = Sniffer::start(lab.lan())?;
    for (name, addresses, interface) in [
        ("by-name", "192.168.2.32/31", "eth0"),
        ("by-glob", "192.168.2.34/31", "e*"),
        ("elsewhere", "192.168.2.36/31", "bond*"),
    ] {
        pool(lab, name, "", addresses)?;
        advertise(lab, name, &format!("ipAddressPools: [{name}], interfaces: ['{interface}']"))?;
    }
    let elsewhere = service_of(&case, "elsewhere", "elsewhere", "")?;
    for name in ["by-name", "by-glob"] {
        let address = service_of(&case, name, name, "")?;
        let holder = lab.await_holder(address)?;
        answers(lab, &sniffer, address, &holder)?;
        let lbip = lab.lbip(address)?.context("no LoadBalancerIP")?;
        let on: Vec<&str> =
            lbip.status.iter().flat_map(|status| &status.holders).map(|it| it.interface.as_str()).collect();
        ensure!(on == ["eth0"], "{name}: answered on {on:?}");
    }
    let reason = unannounced(&case, "elsewhere")?;
    ensure!(reason == "NoHolder", "{reason}");
    let said = sniffer.seen().into_iter().find(|frame| frame.announces(elsewhere));
    ensure!(said.is_none(), "{said:?}");
    // A node that has such an interface answers there: a dummy in place of a bond, whose frames nobody else sees.
    let n3 = &lab.node("n3")?.host.netns;
    n3.ip(&["link add bond7 type veth peer name end7", "link set end7 up", "link set bond7 up"])?;
    let held = lab.await_lbip(elsewhere, "held on bond7", |lbip| {
        let holders = lbip.iter().flat_map(|lbip| &lbip.status).flat_map(|status| &status.holders);
        holders.map(|it| (it.node.as_str(), it.interface.as_str())).eq([("n3", "bond7")])
    });
    n3.ip(&["link delete bond7"])?;
    held?;
    lab.await_lbip(elsewhere, "held by nobody", |lbip| lbip.is_some_and(|lbip| holders(lbip).is_empty()))?;
    Ok(())
}

fn conflict(lbip: &LoadBalancerIP) -> Option<&Condition> {
    let conditions = lbip.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().find(|condition| condition.type_ == "Conflict")
}

/// Rule A33: three probes before the first claim ever. Rule A47 is for what is held already.
#[test]
fn an_address_that_a_stranger_has_is_not_announced_until_he_is_gone() -> Result<()> {
    // Beside the others, as nothing here disturbs them and the nodes' next look comes after ten to twenty seconds.
    let case = Case::new("stranger")?;
    let lab = case.lab();
    let sniffer = Sniffer::start(lab.lan())?;
    pool(lab, "occupied", "", "192.168.2.40")?;
    let address: IpAddr = "192.168.2.40".parse()?;
    // The gateway has nothing to do with Herald, and its kernel answers for what it has.
    let stranger = lab.gateway();
    stranger.netns.ip(&["address add 192.168.2.40/32 dev eth0"])?;
    ensure!(service_of(&case, "occupied", "web", "")? == address, "another address");
    case.serve("web", &NODES)?;
    let found = lab.await_lbip(address, "in conflict", |lbip| {
        lbip.is_some_and(|lbip| conflict(lbip).is_some_and(|found| found.status == "True"))
    });
    let found = found?.as_ref().and_then(conflict).cloned().context("a condition")?;
    ensure!(found.reason == "AddressInUse", "{found:?}");
    ensure!(found.message.contains(&stranger.mac.to_string()), "who has it is not told: {}", found.message);
    lab.await_event("default", "LoadBalancerIP", &name_of_address(address), &["AddressConflict"])?;
    let reason = unannounced(&case, "web")?;
    ensure!(reason == "NoHolder", "{reason}");
    let answering = lab.who_answers(&sniffer, address)?;
    ensure!(answering == BTreeSet::from([stranger.name.clone()]), "{answering:?} answer beside the stranger");
    let said = |frame: &herald_lab::Seen| frame.announces(address) && NODES.contains(&frame.from.as_str());
    let claimed = sniffer.seen().into_iter().find(said);
    ensure!(claimed.is_none(), "announced although a stranger has it: {claimed:?}");

    let gone = Instant::now();
    stranger.netns.ip(&["address delete 192.168.2.40/32 dev eth0"])?;
    let lbip = lab.await_lbip(address, "held, and in no conflict", |lbip| {
        lbip.is_some_and(|lbip| holders(lbip).len() == 1 && conflict(lbip).is_none())
    })?;
    let holder = lbip.as_ref().map(holders).unwrap_or_default();
    sniffer.wait_for(gone, PATIENCE, |frame| said(frame) && holder.contains(&frame.from))?;
    lab.client().forget_neighbours()?;
    case.visit(address)?;
    lab.await_service_condition(case.namespace(), "web", "heraldlb.io/Announced", "True")?;
    Ok(())
}
