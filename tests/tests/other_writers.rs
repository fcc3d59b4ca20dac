//! What others write to Services and LoadBalancerIPs, on a real API server: nobody's address changes, the controller
//! writes a bounded number of times and says so, and who has no right to an address gets none.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use herald_crds::{LoadBalancerIP, name_of_address};
use herald_lab::{
    Lab, Process,
    services::{addresses, condition},
    shared::{Case, lab_alone},
};
use k8s_openapi::{api::core::v1::Service, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

const ALLOCATED: &str = "heraldlb.io/Allocated";

/// A pool for one test: with names of its own, so that the tests don't feel each other.
fn pool(lab: &Lab, name: &str, spec: &str) -> Result<String> {
    lab.kubectl_apply(&format!(
        "{{apiVersion: heraldlb.io/v1beta1, kind: IPAddressPool, metadata: {{name: {name}}}, spec: {{{spec}}}}}"
    ))
}

fn from(pool: &str) -> String {
    format!("annotations: {{heraldlb.io/address-pool: {pool}}}")
}

/// All requests that the controller's writer has made, however they ended.
fn requests(lab: &Lab) -> Result<u64> {
    let admin: SocketAddr = ([127, 0, 0, 1], 7480).into();
    let metrics = lab.control_plane().host().ask_http(admin, "/metrics")?;
    let samples = metrics.lines().filter(|line| line.starts_with("herald_api_requests_total{"));
    let value = |line: &str| -> Result<u64> { Ok(line.rsplit(' ').next().context("a value")?.parse()?) };
    samples.map(value).sum()
}

/// Waits until the controller has acted on whatever came before: a new Service has its address.
fn barrier(case: &Case, name: &str) -> Result<()> {
    case.apply_service(name, "", "")?;
    case.address(name)?;
    case.delete_service(name)
}

/// Writes a Service's ingress as somebody of that name, in the way in which most controllers do.
fn show(lab: &Lab, namespace: &str, service: &str, manager: &str, ip: Option<&str>) -> Result<()> {
    let entries: Vec<Value> = ip.into_iter().map(|ip| json!({ "ip": ip })).collect();
    let patch = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": entries}}}));
    let params = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
    lab.block_on(async {
        let api: Api<Service> = Api::namespaced(lab.kube(), namespace);
        api.patch_status(service, &params, &patch).await
    })?;
    Ok(())
}

/// Changes the LoadBalancerIP of an address as a person would.
fn edit(lab: &Lab, address: IpAddr, spec: &str) -> Result<String> {
    let patch = format!(r#"{{"spec": {spec}}}"#);
    lab.kubectl(&["patch", "lbip", &name_of_address(address), "--type=merge", "--patch", &patch])
}

fn problem(lbip: &LoadBalancerIP) -> Option<&Condition> {
    let conditions = lbip.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().find(|condition| condition.type_ == "Problem")
}

fn users(lbip: &LoadBalancerIP) -> Vec<&str> {
    lbip.spec.services.iter().map(|user| user.name.as_str()).collect()
}

fn refused(answer: Result<String>, words: &str) -> Result<()> {
    match answer {
        Ok(said) => bail!("not refused: {said}"),
        Err(error) => {
            ensure!(format!("{error:#}").contains(words), "refused, but not with {words:?}: {error:#}");
        }
    }
    Ok(())
}

/// Changes that are made for as long as a fight would take, a few every second.
fn persistently(times: u32, mut act: impl FnMut(u32) -> Result<()>) -> Result<()> {
    for round in 0..times {
        act(round)?;
        std::thread::park_timeout(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn a_program_that_writes_a_services_status_is_named_and_not_fought() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, "rival")?;
    pool(lab, "rival", "addresses: [192.168.1.200], autoAssign: false")?;
    case.apply_service("web", &from("rival"), "")?;
    let address = case.address("web")?;
    barrier(&case, "before")?;
    let before = requests(lab)?;
    persistently(100, |round| {
        show(lab, "rival", "web", "cloud-controller", Some(&format!("203.0.113.{}", round + 1)))
    })?;
    let service = lab.await_service("rival", "web", "given up", |service| {
        condition(service, ALLOCATED).is_some_and(|found| found.reason == "AnotherController")
    })?;
    let made = requests(lab)?.saturating_sub(before);
    lab.measured(&format!(
        "{made} requests in answer to 100 writes of a Service's status by another program"
    ));
    ensure!(made <= 30, "{made} requests in answer to 100 writes");
    let message = condition(&service, ALLOCATED).context("a condition")?.message;
    ensure!(message.contains("cloud-controller"), "the other writer is not named: {message}");
    // It lets go: what Herald recorded all the time is shown again.
    show(lab, "rival", "web", "cloud-controller", None)?;
    ensure!(case.address("web")? == address, "{address} was not kept");
    let lbip = lab.lbip(address)?.context("the address lost its LoadBalancerIP")?;
    ensure!(users(&lbip) == ["web"], "{:?}", lbip.spec.services);
    Ok(())
}

#[test]
fn a_status_that_people_keep_editing_is_put_right_ever_more_rarely() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, "people")?;
    pool(lab, "people", "addresses: [192.168.1.201], autoAssign: false")?;
    case.apply_service("web", &from("people"), "")?;
    let address = case.address("web")?;
    barrier(&case, "before")?;
    let before = requests(lab)?;
    persistently(100, |_| show(lab, "people", "web", "kubectl-edit", Some("203.0.113.9")))?;
    let made = requests(lab)?.saturating_sub(before);
    lab.measured(&format!("{made} requests in answer to 100 hand edits of a Service's status"));
    ensure!(made <= 40, "{made} requests in answer to 100 edits");
    lab.await_service("people", "web", "put right", |service| addresses(service) == [address])?;
    Ok(())
}

#[test]
fn a_deleted_address_is_recorded_again_for_whom_it_has_and_nobody_slips_in() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, "deleted-in-use")?;
    pool(lab, "deleted-in-use", "addresses: [192.168.1.202], autoAssign: false")?;
    case.apply_service("web", &from("deleted-in-use"), "")?;
    let address = case.address("web")?;
    case.apply_service("waits", &from("deleted-in-use"), "")?;
    case.await_refusal("waits", "NoAddressAvailable")?;
    let delete = || lab.kubectl(&["delete", "lbip", &name_of_address(address)]);
    let recorded = |what: &str, uid: Option<&String>| -> Result<Option<String>> {
        let new = lab.await_lbip(address, what, |lbip| {
            lbip.is_some_and(|lbip| lbip.metadata.uid.as_ref() != uid && users(lbip) == ["web"])
        })?;
        Ok(new.and_then(|lbip| lbip.metadata.uid))
    };
    let mut uid = recorded("recorded", None)?;
    for _ in 0..3 {
        delete()?;
        uid = recorded("recorded again", uid.as_ref())?;
    }
    // While nobody looks: what the status shows is believed when the controller comes back (rule B2).
    lab.controller(Process::kill)?;
    delete()?;
    lab.start_controller()?;
    recorded("recorded by the next process", uid.as_ref())?;
    barrier(&case, "after")?;
    ensure!(case.address("web")? == address, "{address} was not kept");
    ensure!(
        addresses(&lab.service("deleted-in-use", "waits")?).is_empty(),
        "who waits got an address in use"
    );
    Ok(())
}

#[test]
fn an_address_has_one_object_under_one_name_and_a_reservation_keeps_others_away() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, "reserving")?;
    pool(lab, "reserving", "addresses: [192.168.1.204/31, 'fd98::2:a'], autoAssign: false")?;
    case.apply_service("web", &from("reserving"), "")?;
    let address = case.address("web")?;
    let claim = |name: &str, address: &str| {
        let manifest = format!(
            "{{apiVersion: heraldlb.io/v1beta1, kind: LoadBalancerIP, metadata: {{name: {name}}}, spec: {{address: \
             '{address}', claimRef: {{namespace: reserving, name: late}}}}}}"
        );
        let file = lab.dir().join("reservation.yaml");
        std::fs::write(&file, manifest)?;
        lab.kubectl(&["create", "-f", &file.display().to_string()])
    };
    ensure!(address.to_string() == "192.168.1.204", "{address}");
    refused(claim("192.168.1.204", "192.168.1.204"), "already exists")?;
    for (name, spelling) in [
        ("192.168.001.204", "192.168.001.204"),
        ("other", "192.168.1.204"),
        ("fd98--2-a", "FD98::2:A"),
        ("fd98-0--2-a", "fd98:0::2:a"),
        ("0--ffff-192.168.1.204", "::ffff:192.168.1.204"),
        ("fd98--2-a", "fd98::2:a%eth0"),
    ] {
        refused(claim(name, spelling), "invalid")?;
    }
    claim("192.168.1.205", "192.168.1.205")?;
    // The next one would get it; and so would who names it.
    case.apply_service("next", &from("reserving"), "")?;
    case.await_refusal("next", "NoAddressAvailable")?;
    case.apply_service("names", "annotations: {heraldlb.io/loadBalancerIPs: 192.168.1.205}", "")?;
    case.await_refusal("names", "AddressReserved")?;
    case.apply_service("late", &from("reserving"), "")?;
    ensure!(
        case.address("late")?.to_string() == "192.168.1.205",
        "the reservation does not serve its Service"
    );
    ensure!(case.address("web")? == address, "{address} was not kept");
    Ok(())
}

#[test]
fn an_edited_address_converges_with_few_writes_and_says_so() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, "edited")?;
    pool(lab, "edited", "addresses: [192.168.1.206/31], autoAssign: false")?;
    case.apply_service("web", &from("edited"), "")?;
    case.apply_service("thief", &from("nowhere"), "")?;
    let address = case.address("web")?;
    lab.await_holder(address)?;
    barrier(&case, "before")?;
    let thief = lab.service("edited", "thief")?.metadata.uid.context("a uid")?;
    let web = lab.service("edited", "web")?.metadata.uid.context("a uid")?;
    let before = lab.lbip(address)?.context("no LoadBalancerIP")?;
    let taken = format!(
        r#"{{"services": [{{"namespace": "edited", "name": "web", "uid": "{web}"}}, {{"namespace": "edited", "name": "thief", "uid": "{thief}"}}]}}"#
    );
    let edits = [
        ("spec.announce", r#"{"announce": {"l2": {"nodes": {"mode": "Listed"}}}}"#),
        ("spec.announce", r#"{"announce": null}"#),
        ("spec.pool", r#"{"pool": "default"}"#),
        ("spec.services", r#"{"services": []}"#),
        ("spec.services", &taken),
        ("spec.sharing", r#"{"sharing": {"key": "guessed"}}"#),
        ("spec.revision", r#"{"revision": 1000000000}"#),
    ];
    let asked = requests(lab)?;
    for (field, spec) in edits {
        edit(lab, address, spec)?;
        lab.await_lbip(address, &format!("put right after {spec}"), |lbip| {
            lbip.is_some_and(|lbip| {
                users(lbip) == ["web"]
                    && lbip.spec.announce == before.spec.announce
                    && lbip.spec.pool == before.spec.pool
                    && lbip.spec.sharing.is_none()
                    && problem(lbip).is_some_and(|it| it.reason == "Edited" && it.message.contains(field))
            })
        })?;
    }
    let made = requests(lab)?.saturating_sub(asked);
    lab.measured(&format!("{made} requests in answer to {} edits of a LoadBalancerIP", edits.len()));
    ensure!(made <= 60, "{made} requests in answer to {} edits", edits.len());
    ensure!(case.address("web")? == address, "{address} was not kept");
    ensure!(addresses(&lab.service("edited", "thief")?).is_empty(), "an edit gave an address away");
    let quiet = requests(lab)?;
    barrier(&case, "after")?;
    let made = requests(lab)?.saturating_sub(quiet);
    ensure!(made <= 20, "{made} requests for one Service made and deleted: something goes on");
    Ok(())
}

#[test]
fn who_keeps_editing_an_address_is_not_fought() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, "edited-on")?;
    pool(lab, "edited-on", "addresses: [192.168.1.208/31], autoAssign: false")?;
    case.apply_service("web", &from("edited-on"), "")?;
    let address = case.address("web")?;
    barrier(&case, "before")?;
    let before = requests(lab)?;
    persistently(60, |_| edit(lab, address, r#"{"services": [], "pool": "default"}"#).map(drop))?;
    let made = requests(lab)?.saturating_sub(before);
    lab.measured(&format!("{made} requests in answer to 60 edits of a LoadBalancerIP"));
    ensure!(made <= 40, "{made} requests in answer to 60 edits");
    lab.await_lbip(address, "put right", |lbip| {
        lbip.is_some_and(|lbip| users(lbip) == ["web"] && lbip.spec.pool.as_deref() == Some("edited-on"))
    })?;
    ensure!(case.address("web")? == address, "{address} was not kept");
    Ok(())
}

/// A person with one of the standard roles in one namespace, and requests in the person's name.
struct Tenant<'a> {
    case: &'a Case,
    user: String,
}

impl<'a> Tenant<'a> {
    fn bound(case: &'a Case, role: &str) -> Result<Self> {
        let user = format!("{role}-of-{}", case.namespace());
        let binding = format!("--clusterrole={role}");
        case.kubectl(&["create", "rolebinding", &user, &binding, &format!("--user={user}")])?;
        let it = Self { case, user };
        // The authorizer reads bindings from a watch of its own.
        for _ in 0..400 {
            if it.kubectl(&["auth", "can-i", "create", "services"]).is_ok() {
                return Ok(it);
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        bail!("the API server does not take the binding of {}", it.user)
    }

    fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.case.kubectl(&[args, &[&format!("--as={}", self.user)]].concat())
    }
}

#[test]
fn tenants_with_the_standard_roles_can_make_services_and_no_addresses() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, "tenant")?;
    pool(lab, "tenant", "addresses: [192.168.1.210/31], autoAssign: false")?;
    let manifest = lab.dir().join("tenants-lbip.yaml");
    std::fs::write(
        &manifest,
        "{apiVersion: heraldlb.io/v1beta1, kind: LoadBalancerIP, metadata: {name: 192.168.1.211}, spec: {address: \
         192.168.1.211, claimRef: {namespace: tenant, name: web}}}",
    )?;
    let manifest = manifest.display().to_string();
    for role in ["edit", "admin"] {
        let tenant = Tenant::bound(&case, role)?;
        let service = format!("web-{role}");
        tenant.kubectl(&["create", "service", "loadbalancer", &service, "--tcp=80"])?;
        tenant.kubectl(&["annotate", "service", &service, "heraldlb.io/address-pool=tenant"])?;
        let address = name_of_address(case.address(&service)?);
        for request in [
            &["create", "-f", &manifest][..],
            &["delete", "lbip", &address],
            &["patch", "lbip", &address, "--type=merge", "-p", r#"{"spec": {"services": []}}"#],
            &["get", "lbip"],
            &["delete", "pool", "tenant"],
            &["patch", "pool", "tenant", "--type=merge", "-p", r#"{"spec": {"sharingScope": "Cluster"}}"#],
            &["delete", "l2advertisement", "--all"],
            &["patch", "service", &service, "--subresource=status", "--type=merge", "-p", "{}"],
        ] {
            refused(tenant.kubectl(request), "orbidden").with_context(|| format!("{role} {request:?}"))?;
        }
    }
    Ok(())
}

/// Who may patch `services/status`, a right that no standard role gives, shows whatever it likes on its own Service.
/// It gets no address by it that it would not get by asking (rule B2).
#[test]
fn who_may_write_a_status_gets_no_address_by_it() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, "hijack")?;
    pool(lab, "hijack", "addresses: [192.168.1.212/31], autoAssign: false")?;
    pool(
        lab,
        "hijack-closed",
        "addresses: [192.168.1.214/31], serviceAllocation: {namespaces: [elsewhere]}",
    )?;
    pool(lab, "hijack-limited", "addresses: [192.168.1.216/30], autoAssign: false, limitPerNamespace: 1")?;
    case.apply_service("victim", &from("hijack"), "")?;
    let victims = case.address("victim")?;
    case.apply_service("one", &from("hijack-limited"), "")?;
    case.address("one")?;
    let shown = [
        ("in-use", victims.to_string()),
        ("of-closed", "192.168.1.215".to_owned()),
        ("over-limit", "192.168.1.218".to_owned()),
        ("outside", "203.0.113.7".to_owned()),
    ];
    // Before Herald sees the Services: they would get free addresses else.
    lab.controller(Process::kill)?;
    for (name, ip) in &shown {
        case.apply_service(name, "", "")?;
        show(lab, "hijack", name, "thief", Some(ip))?;
    }
    lab.start_controller()?;
    for (name, ip) in &shown {
        let service = lab.await_service("hijack", name, "refused", |service| {
            condition(service, ALLOCATED).is_some_and(|found| found.reason == "AdoptionRefused")
        })?;
        for kind in [ALLOCATED, "heraldlb.io/Announced"] {
            let said = condition(&service, kind).context("a condition")?;
            ensure!(said.status == "False", "{name} shows {ip}: {said:?}");
        }
        let lbip = lab.lbip(ip.parse()?)?;
        let listed = lbip.as_ref().map(users).unwrap_or_default();
        ensure!(!listed.contains(name), "{name} was given {ip}");
    }
    // One that has an address already, and shows another's.
    show(lab, "hijack", "one", "thief", Some(&victims.to_string()))?;
    lab.await_service("hijack", "one", "left to the other writer", |service| {
        condition(service, ALLOCATED).is_some_and(|found| found.reason == "AnotherController")
    })?;
    let lbip = lab.lbip(victims)?.context("the victim's address lost its LoadBalancerIP")?;
    ensure!(users(&lbip) == ["victim"], "{:?}", lbip.spec.services);
    ensure!(case.address("victim")? == victims, "the victim lost its address");
    Ok(())
}
