//! Wrong manifests: refused with one clear reason on the right object, while everything else goes on.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use herald_lab::{
    Process,
    services::addresses,
    shared::{Case, lab, lab_alone},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// Asserts that Services can still get what they could before.
fn others_go_on(case: &Case) -> Result<()> {
    case.apply_service("innocent", "", "")?;
    case.address("innocent")?;
    Ok(())
}

/// A Service with these annotations is refused for `reason`, with a message and an event that hold `words`.
fn refused(name: &str, annotations: &str, reason: &str, words: &[&str]) -> Result<()> {
    let case = Case::new(name)?;
    case.apply_service("web", &format!("annotations: {{{annotations}}}"), "")?;
    let message = case.await_refusal("web", reason)?;
    for word in words {
        ensure!(message.contains(word), "the message does not say {word:?}: {message}");
    }
    others_go_on(&case)?;
    case.lab().await_event(case.namespace(), "Service", "web", &["AllocationFailed", "InvalidRequest"])?;
    let described = case.kubectl(&["describe", "service", "web"])?;
    let told = described.contains("AllocationFailed") || described.contains("InvalidRequest");
    ensure!(told, "kubectl describe shows no event:\n{described}");
    Ok(())
}

#[test]
fn a_pool_that_does_not_exist_is_named_with_those_that_do() -> Result<()> {
    refused("unknown-pool", "heraldlb.io/address-pool: nowhere", "UnknownPool", &["nowhere", "default"])
}

#[test]
fn an_address_outside_every_pool_is_refused() -> Result<()> {
    refused("outside", "metallb.io/loadBalancerIPs: 10.1.2.3", "AddressInNoPool", &["10.1.2.3", "default"])
}

#[test]
fn text_that_is_no_address_is_refused() -> Result<()> {
    refused("no-address", "heraldlb.io/loadBalancerIPs: 192.168.1.999", "InvalidRequest", &["192.168.1.999"])
}

#[test]
fn two_addresses_of_one_family_are_refused() -> Result<()> {
    refused(
        "one-family",
        "'heraldlb.io/loadBalancerIPs': '192.168.1.240,192.168.1.241'",
        "InvalidRequest",
        &["192.168.1.240"],
    )
}

#[test]
fn an_address_of_another_pool_than_the_one_asked_for_is_refused() -> Result<()> {
    let both = "heraldlb.io/loadBalancerIPs: 192.168.1.248, heraldlb.io/address-pool: special";
    refused("other-pool", both, "AddressInOtherPool", &["192.168.1.248", "special"])
}

#[test]
fn an_address_in_use_is_refused_and_its_user_named() -> Result<()> {
    let case = Case::new("in-use")?;
    case.apply_service("first", "", "")?;
    let address = case.address("first")?;
    case.apply_service("second", &format!("annotations: {{heraldlb.io/loadBalancerIPs: {address}}}"), "")?;
    let message = case.await_refusal("second", "AddressInUse")?;
    ensure!(message.contains("in-use/first"), "the message does not name its user: {message}");
    Ok(())
}

#[test]
fn an_annotation_and_the_field_that_disagree_are_refused() -> Result<()> {
    let case = Case::new("disagree")?;
    case.apply_service(
        "web",
        "annotations: {heraldlb.io/loadBalancerIPs: 192.168.1.243}",
        "loadBalancerIP: 192.168.1.244",
    )?;
    let message = case.await_refusal("web", "InvalidRequest")?;
    ensure!(message.contains("192.168.1.244"), "the message does not name what disagrees: {message}");
    Ok(())
}

#[test]
fn malformed_pools_are_refused_by_the_api_server() -> Result<()> {
    let lab = lab()?;
    let broken = ["192.168.1.0/33", "192.168.1.10-fd98::1", "not an address", "192.168.1.1-", ""];
    for addresses in broken {
        let pool = format!(
            "{{apiVersion: heraldlb.io/v1beta1, kind: IPAddressPool, metadata: {{name: broken}}, \
             spec: {{addresses: ['{addresses}']}}}}"
        );
        match lab.kubectl_apply(&pool) {
            Ok(_) => bail!("a pool with {addresses:?} was accepted"),
            Err(error) => {
                ensure!(format!("{error:#}").contains("spec.addresses"), "{addresses:?}: {error:#}");
            }
        }
    }
    Ok(())
}

/// What the controller alone can see becomes the pool's condition, and the pool gives nothing.
fn pool_not_ready(name: &str, addresses: &str, reason: &str, words: &str) -> Result<()> {
    let lab = lab()?;
    lab.kubectl_apply(&format!(
        "{{apiVersion: heraldlb.io/v1beta1, kind: IPAddressPool, metadata: {{name: {name}}}, \
         spec: {{addresses: ['{addresses}']}}}}"
    ))?;
    let (_, condition) = lab.await_pool(name, reason)?;
    lab.kubectl(&["delete", "pool", name])?;
    ensure!(condition.status == "False", "{condition:?}");
    ensure!(condition.message.contains(words), "the message does not say {words:?}: {}", condition.message);
    others_go_on(&Case::new(&format!("beside-{name}"))?)
}

#[test]
fn a_pool_that_overlaps_another_is_not_ready_and_names_it() -> Result<()> {
    pool_not_ready("overlapping", "192.168.1.250-192.168.1.252", "Overlap", "default")
}

#[test]
fn a_pool_with_a_reversed_range_is_not_ready() -> Result<()> {
    pool_not_ready("reversed", "192.168.1.20-192.168.1.10", "InvalidSpec", "192.168.1.20")
}

#[test]
fn a_nodes_own_address_within_a_pool_is_named_and_given_to_nobody() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, "node-addresses")?;
    // The nodes of the lab have .11, .12 and .13.
    lab.kubectl_apply(
        "{apiVersion: heraldlb.io/v1beta1, kind: IPAddressPool, metadata: {name: around-nodes}, \
         spec: {autoAssign: false, addresses: ['192.168.0.11-192.168.0.14', 'fd98::11']}}",
    )?;
    let outcome = (|| {
        let (told, Condition { message, .. }) = lab.await_pool("around-nodes", "NodeAddresses")?;
        for word in ["192.168.0.11 (n1)", "192.168.0.12 (n2)", "192.168.0.13 (n3)", "fd98::11 (n1)"] {
            ensure!(message.contains(word), "{message}");
        }
        // A kubelet says every few minutes what it has said before.
        let heartbeat = r#"{"status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]}}"#;
        lab.kubectl(&[
            "patch",
            "node",
            "n1",
            "--subresource=status",
            "--type=strategic",
            "--patch",
            heartbeat,
        ])?;
        others_go_on(&case)?;
        let (now, _) = lab.await_pool("around-nodes", "NodeAddresses")?;
        ensure!(
            now.metadata.resource_version == told.metadata.resource_version,
            "a heartbeat made it written again"
        );

        case.apply_service("by-pool", "annotations: {heraldlb.io/address-pool: around-nodes}", "")?;
        ensure!(case.address("by-pool")?.to_string() == "192.168.0.14", "a node's address was given");
        case.apply_service("by-address", "annotations: {heraldlb.io/loadBalancerIPs: 192.168.0.12}", "")?;
        let message = case.await_refusal("by-address", "AddressOfNode")?;
        ensure!(message.contains("192.168.0.12") && message.contains("around-nodes"), "{message}");
        Ok(())
    })();
    // The Services first: nobody is to look for their addresses.
    case.kubectl(&["delete", "service", "--all"])?;
    lab.kubectl(&["delete", "pool", "around-nodes"])?;
    outcome
}

/// Writes an address into the Service's status as MetalLB's controller does.
fn written_by_another(case: &Case, service: &str) -> Result<()> {
    let status = r#"{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.9"}]}}}"#;
    let patch = ["patch", "service", service, "--subresource=status", "--type=merge", "-p", status];
    case.kubectl(&[&patch[..], &["--field-manager=metallb-controller"]].concat()).map(drop)
}

#[test]
fn what_another_load_balancer_serves_is_left_to_it_and_it_is_named() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, "beside-another")?;
    let theirs: Vec<std::net::IpAddr> = vec!["192.0.2.9".parse()?];

    // The other was first.
    lab.controller(Process::kill)?;
    case.apply_service("first", "", "")?;
    written_by_another(&case, "first")?;
    lab.start_controller_again()?;
    let message = case.await_refusal("first", "AdoptionRefused")?;
    ensure!(message.contains("192.0.2.9"), "{message}");

    // The other came second, and writes over what Herald has given.
    case.apply_service("second", "", "")?;
    case.address("second")?;
    written_by_another(&case, "second")?;
    let message = case.await_refusal("second", "AnotherController")?;
    ensure!(message.contains("metallb-controller"), "{message}");

    others_go_on(&case)?;
    for service in ["first", "second"] {
        let shown = addresses(&lab.service(case.namespace(), service)?);
        ensure!(shown == theirs, "{service} shows {shown:?}: it was not left alone");
    }
    Ok(())
}

#[test]
fn a_pool_stored_under_another_crd_is_named_and_everything_else_goes_on() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let case = Case::in_lab(lab, "another-crd")?;
    let policies = |list: &str| {
        let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/reclaimPolicy/enum";
        let patch = format!(r#"[{{"op": "replace", "path": "{path}", "value": {list}}}]"#);
        lab.kubectl(&["patch", "crd", "ipaddresspools.heraldlb.io", "--type=json", "--patch", &patch])
    };
    policies(r#"["Delete", "Retain", "Recycle"]"#)?;
    let outcome = (|| {
        let stored = "{apiVersion: heraldlb.io/v1beta1, kind: IPAddressPool, metadata: {name: stored}, \
                      spec: {addresses: [192.168.2.200/30], reclaimPolicy: Recycle}}";
        let begun = Instant::now();
        // An API server validates by the new schema a moment after it has taken it.
        while let Err(error) = lab.kubectl_apply(stored) {
            ensure!(format!("{error:#}").contains("reclaimPolicy"), "{error:#}");
            ensure!(begun.elapsed() < herald_lab::services::PATIENCE, "{error:#}");
            std::thread::park_timeout(Duration::from_millis(50));
        }
        policies(r#"["Delete", "Retain"]"#)?;
        let says = "--for=jsonpath={.status.conditions[0].reason}=InvalidSpec";
        lab.kubectl(&["wait", says, "--timeout=30s", "pool/stored"])?;
        let described = lab.kubectl(&["describe", "pool", "stored"])?;
        ensure!(described.contains("Recycle") && described.contains("another version"), "{described}");
        others_go_on(&case)?;

        // Its list has it, too.
        lab.controller(Process::kill)?;
        lab.start_controller_again()?;
        case.apply_service("after-a-restart", "", "")?;
        case.address("after-a-restart").map(drop)
    })();
    policies(r#"["Delete", "Retain"]"#)?;
    lab.kubectl(&["delete", "pool", "stored"])?;
    outcome
}
