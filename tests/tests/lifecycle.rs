//! What happens to addresses while Services, the controller and the API server come and go.

use std::{collections::BTreeMap, net::IpAddr, time::Instant};

use anyhow::{Context as _, Result, ensure};
use herald_lab::{
    Lab,
    services::{PATIENCE, addresses},
    shared::{Case, lab_alone},
};

/// Every Service of the case with what it shows.
fn shown(case: &Case, services: &[&str]) -> Result<BTreeMap<String, Vec<IpAddr>>> {
    let show =
        |name: &&str| Ok(((*name).to_owned(), addresses(&case.lab().service(case.namespace(), name)?)));
    services.iter().map(show).collect()
}

/// Waits until Herald has acted on something that came after all that was to be ignored: a new Service has its address.
fn barrier(case: &Case, name: &str) -> Result<IpAddr> {
    case.apply_service(name, "", "")?;
    case.address(name)
}

fn three_services(case: &Case) -> Result<BTreeMap<String, Vec<IpAddr>>> {
    case.apply_service("plain", "", "")?;
    case.apply_service("pinned", "annotations: {heraldlb.io/loadBalancerIPs: 192.168.1.244}", "")?;
    case.apply_service("dual", "", "ipFamilyPolicy: RequireDualStack")?;
    for service in ["plain", "pinned", "dual"] {
        for address in case.addresses(service)? {
            case.lab().await_holder(address)?;
        }
    }
    shown(case, &["plain", "pinned", "dual"])
}

fn restart_controller(lab: &Lab) -> Result<()> {
    lab.controller(herald_lab::Process::kill)?;
    lab.start_controller()
}

#[test]
fn a_deleted_services_address_is_free_at_once() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, "deleted")?;
    case.apply_service("first", "", "")?;
    let address = case.address("first")?;
    case.delete_service("first")?;
    lab.await_lbip(address, "gone", |lbip| lbip.is_none())?;
    case.apply_service("second", &format!("annotations: {{heraldlb.io/loadBalancerIPs: {address}}}"), "")?;
    ensure!(case.address("second")? == address, "the second Service did not get {address}");
    Ok(())
}

/// Where the policy is Cluster a node answers also without endpoints, and kube-proxy refuses: no client waits for a
/// time-out, and a rolling update moves nothing.
#[test]
fn a_service_without_endpoints_is_answered_for_and_its_clients_are_refused_at_once() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, "no-endpoints")?;
    case.apply_service("web", "", "")?;
    let address = case.address("web")?;
    lab.await_holder(address)?;
    let begun = Instant::now();
    loop {
        // kube-proxy may not have heard of the Service yet.
        match lab.client().http_get(address, 80) {
            Err(error) if format!("{error:#}").contains("refused") => return Ok(()),
            answer => ensure!(begun.elapsed() < PATIENCE, "not refused: {answer:?}"),
        }
    }
}

#[test]
fn a_service_that_stops_being_a_load_balancer_loses_its_address_and_may_come_back() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, "type-change")?;
    case.apply_service("web", "", "")?;
    let address = case.address("web")?;
    for _ in 0..3 {
        case.kubectl(&["patch", "service", "web", "--type=merge", "-p", r#"{"spec":{"type":"ClusterIP"}}"#])?;
        lab.await_lbip(address, "gone", |lbip| lbip.is_none())?;
        lab.await_service(case.namespace(), "web", "without an address", |service| {
            addresses(service).is_empty()
        })?;
        case.kubectl(&[
            "patch",
            "service",
            "web",
            "--type=merge",
            "-p",
            r#"{"spec":{"type":"LoadBalancer"}}"#,
        ])?;
        case.address("web")?;
    }
    Ok(())
}

#[test]
fn a_new_service_of_an_old_name_is_another_service() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, "same-name")?;
    for _ in 0..3 {
        case.apply_service("web", "", "")?;
        let address = case.address("web")?;
        let uid = lab.service(case.namespace(), "web")?.metadata.uid.context("a uid")?;
        let lbip = lab.lbip(address)?.context("the address has no LoadBalancerIP")?;
        ensure!(
            lbip.spec.services.iter().all(|user| user.uid == uid),
            "{:?} is not {uid}",
            lbip.spec.services
        );
        case.delete_service("web")?;
    }
    Ok(())
}

#[test]
fn a_service_that_waits_gets_the_first_address_that_becomes_free() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, "waiting")?;
    lab.kubectl_apply(
        "{apiVersion: heraldlb.io/v1beta1, kind: IPAddressPool, metadata: {name: single}, \
         spec: {addresses: [192.168.1.239], autoAssign: false}}",
    )?;
    let from_single = "annotations: {heraldlb.io/address-pool: single}";
    case.apply_service("first", from_single, "")?;
    let address = case.address("first")?;
    case.apply_service("second", from_single, "")?;
    let message = case.await_refusal("second", "NoAddressAvailable")?;
    ensure!(message.contains("single"), "the reason does not name the pool: {message}");
    case.delete_service("first")?;
    ensure!(case.address("second")? == address, "the second Service did not get {address}");
    case.delete_service("second")?;
    lab.kubectl(&["delete", "pool", "single"])?;
    Ok(())
}

#[test]
fn a_controller_that_is_killed_and_started_changes_nobodys_address() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, "controller-restart")?;
    let before = three_services(&case)?;
    let lbips = lab.all_lbips()?;
    restart_controller(lab)?;
    let extra = barrier(&case, "after")?;
    ensure!(shown(&case, &["plain", "pinned", "dual"])? == before, "addresses changed from {before:?}");
    let mut after = lab.all_lbips()?;
    after.remove(&extra.to_string());
    ensure!(after == lbips, "{after:?} after {lbips:?}");
    Ok(())
}

#[test]
fn a_service_deleted_while_the_controller_is_away_is_released_when_it_returns() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, "deleted-unseen")?;
    case.apply_service("web", "", "")?;
    let address = case.address("web")?;
    lab.controller(herald_lab::Process::kill)?;
    case.delete_service("web")?;
    lab.start_controller()?;
    lab.await_lbip(address, "gone", |lbip| lbip.is_none())?;
    Ok(())
}

#[test]
fn an_api_server_that_is_killed_and_started_changes_nobodys_address() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, "api-restart")?;
    let before = three_services(&case)?;
    let mut holders = BTreeMap::new();
    for &address in before.values().flatten() {
        holders.insert(address, lab.await_holder(address)?);
    }
    lab.control_plane().kill_api()?;
    lab.restart_api()?;
    barrier(&case, "after")?;
    ensure!(shown(&case, &["plain", "pinned", "dual"])? == before, "addresses changed from {before:?}");
    for (address, holder) in holders {
        ensure!(lab.await_holder(address)? == holder, "{address} moved away from {holder}");
    }
    Ok(())
}

#[test]
fn a_hand_edited_status_gives_no_address_twice_and_is_put_right() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, "hand-edited")?;
    case.apply_service("owner", "", "")?;
    case.apply_service("thief", "", "")?;
    let (owners, thiefs) = (case.address("owner")?, case.address("thief")?);
    let stolen = format!(r#"{{"status":{{"loadBalancer":{{"ingress":[{{"ip":"{owners}"}}]}}}}}}"#);
    case.kubectl(&["patch", "service", "thief", "--subresource=status", "--type=merge", "-p", &stolen])?;
    // Decision 5: kubectl does not write again by itself, so one write takes the field back.
    lab.await_service(case.namespace(), "thief", "put right", |service| {
        let allocated = herald_lab::services::condition(service, "heraldlb.io/Allocated");
        addresses(service) == [thiefs] && allocated.is_some_and(|said| said.reason == "Allocated")
    })?;
    let lbip = lab.lbip(owners)?.context("the address lost its LoadBalancerIP")?;
    let users: Vec<&str> = lbip.spec.services.iter().map(|user| user.name.as_str()).collect();
    ensure!(users == ["owner"], "{owners} is listed for {users:?}");
    ensure!(addresses(&lab.service(case.namespace(), "owner")?) == [owners], "the owner lost its address");
    Ok(())
}

#[test]
fn a_status_that_somebody_cleared_is_restored() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, "cleared")?;
    case.apply_service("web", "", "")?;
    let address = case.address("web")?;
    let cleared = r#"{"status":{"loadBalancer":{"ingress":null}}}"#;
    case.kubectl(&["patch", "service", "web", "--subresource=status", "--type=merge", "-p", cleared])?;
    ensure!(case.address("web")? == address, "{address} was not restored");
    Ok(())
}

#[test]
fn a_pool_that_is_deleted_or_shrunk_takes_no_address_away() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, "pool-edit")?;
    let pool = |addresses: &str| {
        format!(
            "{{apiVersion: heraldlb.io/v1beta1, kind: IPAddressPool, metadata: {{name: edited}}, \
             spec: {{addresses: [{addresses}], autoAssign: false}}}}"
        )
    };
    lab.kubectl_apply(&pool("192.168.1.232/31"))?;
    case.apply_service("web", "annotations: {heraldlb.io/address-pool: edited}", "")?;
    let address = case.address("web")?;
    lab.kubectl_apply(&pool("192.168.1.234/31"))?;
    barrier(&case, "after-shrink")?;
    ensure!(case.address("web")? == address, "{address} was taken away when the pool shrank");
    lab.kubectl(&["delete", "pool", "edited"])?;
    barrier(&case, "after-deletion")?;
    ensure!(case.address("web")? == address, "{address} was taken away with its pool");
    ensure!(lab.lbip(address)?.is_some(), "{address} has no LoadBalancerIP any more");
    Ok(())
}

#[test]
fn an_lbip_deleted_by_hand_is_made_again_for_the_same_service() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, "lbip-deleted")?;
    case.apply_service("web", "", "")?;
    let address = case.address("web")?;
    let old = lab.lbip(address)?.context("no LoadBalancerIP")?;
    lab.kubectl(&["delete", "lbip", &herald_crds::name_of_address(address)])?;
    let new = lab.await_lbip(address, "made again", |lbip| {
        lbip.is_some_and(|lbip| lbip.metadata.uid != old.metadata.uid)
    })?;
    let new = new.context("no LoadBalancerIP")?;
    ensure!(new.spec.services == old.spec.services, "{:?}", new.spec.services);
    ensure!(
        new.spec.revision > old.spec.revision,
        "revision {} after {}",
        new.spec.revision,
        old.spec.revision
    );
    ensure!(case.address("web")? == address, "{address} was taken away");
    Ok(())
}
