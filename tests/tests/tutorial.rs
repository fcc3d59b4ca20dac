//! Every Service that tutorials show, applied as it stands in `examples/`: what it gets, or that nobody touches it.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use herald_lab::{
    Meter,
    services::{addresses, condition},
    shared::{Case, example, lab},
};
use kube::ResourceExt as _;

const EVERYWHERE: [&str; 3] = ["n1", "n2", "n3"];

/// Applies an example, waits for its addresses, and fetches a page through each.
fn served(case: &Case, file: &str, service: &str) -> Result<Vec<IpAddr>> {
    case.apply_example(file)?;
    let addresses = case.addresses(service)?;
    case.serve(service, &EVERYWHERE)?;
    for &address in &addresses {
        case.visit(address)?;
    }
    case.lab().await_service_condition(case.namespace(), service, "heraldlb.io/Allocated", "True")?;
    case.lab().await_service_condition(case.namespace(), service, "heraldlb.io/Announced", "True")?;
    Ok(addresses)
}

#[test]
fn every_example_is_valid_as_it_stands() -> Result<()> {
    let lab = lab()?;
    for entry in std::fs::read_dir(example(""))? {
        let file = entry?.path().display().to_string();
        lab.kubectl(&["apply", "--dry-run=server", "--validate=strict", "-f", &file])?;
    }
    Ok(())
}

#[test]
fn a_plain_service_gets_an_address_an_event_and_traffic() -> Result<()> {
    let case = Case::new("plain")?;
    let addresses = served(&case, "loadbalancer.yaml", "web")?;
    ensure!(matches!(addresses[..], [IpAddr::V4(_)]), "{addresses:?}");
    let shown = case.kubectl(&["get", "service", "web"])?;
    ensure!(shown.contains(&addresses[0].to_string()), "kubectl get svc shows\n{shown}");
    case.lab().await_event(case.namespace(), "Service", "web", &["IPAllocated"])?;
    let described = case.kubectl(&["describe", "service", "web"])?;
    ensure!(described.contains("IPAllocated"), "kubectl describe svc shows no event:\n{described}");
    let lbips = case.lab().kubectl(&["get", "lbip"])?;
    ensure!(lbips.contains("plain/web"), "kubectl get lbip shows\n{lbips}");
    Ok(())
}

#[test]
fn a_service_that_names_an_address_in_metallbs_annotation_gets_exactly_that() -> Result<()> {
    let case = Case::new("annotation")?;
    let addresses = served(&case, "loadbalancer-address.yaml", "pinned")?;
    ensure!(addresses == ["192.168.1.245".parse::<IpAddr>()?], "{addresses:?}");
    Ok(())
}

#[test]
fn a_service_that_names_an_address_in_the_deprecated_field_gets_exactly_that() -> Result<()> {
    let case = Case::new("field")?;
    let addresses = served(&case, "loadbalancer-address-field.yaml", "pinned-by-field")?;
    ensure!(addresses == ["192.168.1.246".parse::<IpAddr>()?], "{addresses:?}");
    Ok(())
}

#[test]
fn a_service_that_names_a_pool_gets_an_address_of_it() -> Result<()> {
    let case = Case::new("pool")?;
    let addresses = served(&case, "loadbalancer-pool.yaml", "from-special")?;
    ensure!(addresses[0].to_string().starts_with("192.168.1.2"), "{addresses:?}");
    let range: ipnet::IpNet = "192.168.1.224/29".parse()?;
    ensure!(range.contains(&addresses[0]), "{addresses:?} is not of pool special");
    Ok(())
}

#[test]
fn several_ports_and_protocols_share_one_address() -> Result<()> {
    let case = Case::new("ports")?;
    let addresses = served(&case, "loadbalancer-ports.yaml", "many-ports")?;
    ensure!(addresses.len() == 1, "{addresses:?}");
    let udp = Meter::start(case.lab().client(), (addresses[0], 53).into(), Duration::from_millis(5))?;
    udp.await_answer(std::time::Instant::now(), Duration::from_secs(10))?;
    udp.stop()?;
    Ok(())
}

#[test]
fn a_service_without_node_ports_is_served() -> Result<()> {
    let case = Case::new("no-node-ports")?;
    served(&case, "loadbalancer-no-node-ports.yaml", "no-node-ports")?;
    let service = case.lab().service(case.namespace(), "no-node-ports")?;
    let ports = service.spec.context("a spec")?.ports.unwrap_or_default();
    ensure!(ports.iter().all(|port| port.node_port.is_none()), "{ports:?}");
    Ok(())
}

#[test]
fn session_affinity_keeps_a_client_at_one_backend() -> Result<()> {
    let case = Case::new("affinity")?;
    let address = served(&case, "loadbalancer-session-affinity.yaml", "sticky")?[0];
    let first = case.visit(address)?;
    for _ in 0..10 {
        let again = case.visit(address)?;
        ensure!(again.node() == first.node(), "{:?} after {:?}", again.node(), first.node());
    }
    Ok(())
}

#[test]
fn source_ranges_are_left_to_kube_proxy() -> Result<()> {
    let case = Case::new("ranges")?;
    served(&case, "loadbalancer-source-ranges.yaml", "restricted")?;
    let service = case.lab().service(case.namespace(), "restricted")?;
    let ranges = service.spec.context("a spec")?.load_balancer_source_ranges;
    ensure!(ranges == Some(vec!["192.168.0.0/16".to_owned()]), "{ranges:?}");
    Ok(())
}

#[test]
fn a_dual_stack_service_gets_and_serves_both_families() -> Result<()> {
    let case = Case::new("dual")?;
    let addresses = served(&case, "loadbalancer-dual-stack.yaml", "web-dual")?;
    ensure!(matches!(addresses[..], [IpAddr::V4(_), IpAddr::V6(_)]), "{addresses:?}");
    Ok(())
}

#[test]
fn a_service_that_requires_both_families_gets_both_in_its_order() -> Result<()> {
    let case = Case::new("dual-required")?;
    let addresses = served(&case, "loadbalancer-dual-stack-required.yaml", "web-dual-required")?;
    ensure!(matches!(addresses[..], [IpAddr::V6(_), IpAddr::V4(_)]), "{addresses:?}");
    Ok(())
}

#[test]
fn a_service_may_name_an_address_of_each_family() -> Result<()> {
    let case = Case::new("dual-addresses")?;
    let mut addresses = served(&case, "loadbalancer-dual-stack-addresses.yaml", "web-dual-pinned")?;
    addresses.sort();
    ensure!(addresses == ["192.168.1.247".parse::<IpAddr>()?, "fd98::1:47".parse()?], "{addresses:?}");
    Ok(())
}

#[test]
fn an_ipv6_service_gets_and_serves_ipv6() -> Result<()> {
    let case = Case::new("v6")?;
    let addresses = served(&case, "loadbalancer-ipv6.yaml", "web-v6")?;
    ensure!(matches!(addresses[..], [IpAddr::V6(_)]), "{addresses:?}");
    Ok(())
}

#[test]
fn a_reserved_address_goes_to_the_service_it_is_reserved_for() -> Result<()> {
    let lab = lab()?;
    lab.kubectl(&["apply", "-f", &example("reservation.yaml").display().to_string()])?;
    lab.kubectl(&["apply", "-f", &example("loadbalancer-reserved.yaml").display().to_string()])?;
    let addresses = lab.await_addresses("default", "reserved")?;
    lab.kubectl(&["delete", "service", "reserved"])?;
    ensure!(addresses == ["192.168.1.249".parse::<IpAddr>()?], "{addresses:?}");
    Ok(())
}

#[test]
fn local_traffic_policy_follows_the_endpoints_and_keeps_the_clients_address() -> Result<()> {
    let case = Case::new("local")?;
    case.apply_example("loadbalancer-local.yaml")?;
    let address = case.address("local")?;
    for node in ["n2", "n3"] {
        case.serve("local", &[node])?;
        case.lab().await_holder_is(address, node)?;
        let page = case.visit(address)?;
        ensure!(page.node() == Some(node), "{page:?}");
        ensure!(page.client() == Some(case.lab().client().v4.into()), "{page:?}");
    }
    Ok(())
}

#[test]
fn services_of_other_kinds_and_classes_are_never_touched() -> Result<()> {
    let case = Case::new("untouched")?;
    let others = [
        ("clusterip.yaml", "clusterip"),
        ("nodeport.yaml", "nodeport"),
        ("headless.yaml", "headless"),
        ("externalname.yaml", "externalname"),
        ("external-ips.yaml", "external-ips"),
        ("loadbalancer-class.yaml", "other-class"),
    ];
    for (file, _) in others {
        case.apply_example(file)?;
    }
    // What Herald does to a Service that came later it would have done to these before.
    served(&case, "loadbalancer.yaml", "web")?;
    for (_, name) in others {
        let service = case.lab().service(case.namespace(), name)?;
        ensure!(addresses(&service).is_empty(), "{name} was given {:?}", addresses(&service));
        ensure!(condition(&service, "heraldlb.io/Allocated").is_none(), "{name} has a condition of ours");
        let managers: Vec<String> =
            service.managed_fields().iter().filter_map(|entry| entry.manager.clone()).collect();
        ensure!(
            !managers.iter().any(|manager| manager.starts_with("herald")),
            "{name} was written by {managers:?}"
        );
        let events = case.lab().herald_events(case.namespace(), "Service", name)?;
        ensure!(events.is_empty(), "{name} has events {events:?}");
    }
    Ok(())
}

#[test]
fn an_optional_advertisement_limits_who_announces() -> Result<()> {
    let lab = lab()?;
    let file = example("l2-advertisement.yaml").display().to_string();
    lab.kubectl(&["label", "node", "n1", "node-role.kubernetes.io/control-plane="])?;
    lab.kubectl(&["apply", "-f", &file])?;
    let case = Case::in_lab(lab, "advertisement")?;
    let outcome = (|| {
        case.apply_example("loadbalancer.yaml")?;
        let address = case.address("web")?;
        let announced = lab.await_lbip(address, "limited to n2 and n3", |lbip| {
            let nodes =
                lbip.and_then(|lbip| lbip.spec.announce.as_ref()?.l2.as_ref().map(|l2| &l2.nodes.names));
            nodes.is_some_and(|names| names == &["n2", "n3"])
        });
        announced.map(drop)
    })();
    lab.kubectl(&["delete", "-f", &file])?;
    lab.kubectl(&["label", "node", "n1", "node-role.kubernetes.io/control-plane-"])?;
    outcome
}
