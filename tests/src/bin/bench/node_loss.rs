//! A holder's node loses power, again and again: the client's longest time without an answer, beside keepalived's and
//! MetalLB's.
//!
//! All serve through the same kube-proxy, Herald and keepalived even the same backends over the same bridge, MetalLB those
//! of a lab of its own of the same shape. Every node comes back before the next run. The client sends one datagram every
//! 2 ms, so that is the resolution.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use herald_lab::{Keepalived, Lab, Metallb, Meter, Node, Plan};

use crate::report::Sample;

const PERIOD: Duration = Duration::from_millis(2);
/// keepalived's address; outside Herald's pool.
const RIVAL_VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 220);
/// keepalived's shortest interval that its users choose without tuning the kernel.
const RIVAL_INTERVAL_MS: u32 = 100;
/// Time for a node that came back to be a full member again: longer than either protocol's listening.
const SETTLE: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(30);

/// Addresses of Herald and of MetalLB, each in its lab.
const POOL: &str = "192.168.1.240-192.168.1.250";

pub(crate) fn run(runs: usize, metallb_runs: usize, rival_only: bool) -> Result<()> {
    let plan = Plan::nodes(3);
    let lab = if rival_only { plan.without_herald() } else { plan }.start()?;
    let ours = if rival_only { None } else { Some(herald(&lab, runs)?) };
    let rival = keepalived(&lab, runs)?;
    drop(lab);
    let name = format!("keepalived at {RIVAL_INTERVAL_MS} ms");
    if let Some(ours) = &ours {
        println!("{}", ours.row(&what("Herald"), Some((&name, &rival))));
    }
    println!("{}", rival.row(&what(&name), None));
    if metallb_runs > 0 {
        let (name, rival) = metallb(metallb_runs)?;
        println!("{}", rival.row(&what(&name), None));
    }
    Ok(())
}

fn what(who: &str) -> String {
    format!("node loses power, client's blackout, 3 nodes: {who}")
}

fn herald(lab: &Lab, runs: usize) -> Result<Sample> {
    lab.kubectl_apply(&format!(
        "{{apiVersion: heraldlb.io/v1beta1, kind: IPAddressPool, metadata: {{name: bench}}, spec: {{addresses: [{POOL}]}}}}"
    ))?;
    let vip = balanced(lab, "ours")?;
    let mut sample = Sample::default();
    for run in 1..=runs {
        let blackout = one_loss(lab, "ours", vip, |node| lab.power_off(node.name()))?;
        lab.plan().progress.say(&format!("Herald, run {run}: {blackout:?}"));
        sample.push(blackout.length);
        lab.power_on(&blackout.node)?;
        std::thread::park_timeout(SETTLE);
    }
    Ok(sample)
}

fn metallb(runs: usize) -> Result<(String, Sample)> {
    let lab = Plan::nodes(3).without_herald().start()?;
    let mut rival = Metallb::start(&lab, POOL)?;
    let vip = balanced(&lab, "theirs")?;
    let mut sample = Sample::default();
    for run in 1..=runs {
        let blackout = one_loss(&lab, "theirs", vip, |node| rival.power_off(&lab, node))?;
        lab.plan().progress.say(&format!("MetalLB, run {run}: {blackout:?}"));
        sample.push(blackout.length);
        rival.power_on(&lab, lab.node(&blackout.node)?)?;
        std::thread::park_timeout(SETTLE);
    }
    Ok((format!("MetalLB {}", rival.version()), sample))
}

/// A Service of type LoadBalancer, and the address that it was given.
fn balanced(lab: &Lab, name: &str) -> Result<IpAddr> {
    lab.kubectl_apply(&format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{type: LoadBalancer, \
         ports: [{{name: http, port: 80}}, {{name: echo, port: 7, protocol: UDP}}]}}}}"
    ))?;
    lab.await_addresses("default", name)?.first().copied().context("an address")
}

fn keepalived(lab: &Lab, runs: usize) -> Result<Sample> {
    lab.kubectl_apply(&format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: rival}}, spec: {{externalIPs: [{RIVAL_VIP}], \
         ports: [{{name: http, port: 80}}, {{name: echo, port: 7, protocol: UDP}}]}}}}"
    ))?;
    let nodes: Vec<&Node> = lab.nodes().iter().collect();
    let mut rival = Keepalived::start(&nodes, RIVAL_VIP, RIVAL_INTERVAL_MS)?;
    std::thread::park_timeout(SETTLE);
    let mut sample = Sample::default();
    for run in 1..=runs {
        let blackout = one_loss(lab, "rival", RIVAL_VIP.into(), |node| rival.power_off(lab, node))?;
        lab.plan().progress.say(&format!("keepalived, run {run}: {blackout:?}"));
        sample.push(blackout.length);
        rival.power_on(lab, lab.node(&blackout.node)?)?;
        std::thread::park_timeout(SETTLE);
    }
    Ok(sample)
}

#[derive(Debug)]
struct Blackout {
    node: String,
    length: Duration,
}

fn one_loss(
    lab: &Lab,
    service: &str,
    vip: IpAddr,
    power_off: impl FnOnce(&Node) -> Result<()>,
) -> Result<Blackout> {
    // Everybody first, so that the client gets an answer and learns who holds the address; then everybody but the holder.
    let all: Vec<&str> = lab.nodes().iter().map(Node::name).collect();
    lab.set_endpoints("default", service, &all)?;
    lab.client().forget_neighbours()?;
    lab.client().http_get_until_ok(vip, 80, PATIENCE)?;
    let holder = lab.holder_seen_by_client(vip)?;
    let others: Vec<&str> = all.into_iter().filter(|&node| node != holder).collect();
    lab.set_endpoints("default", service, &others)?;
    std::thread::park_timeout(Duration::from_millis(300));

    let meter = Meter::start(lab.client(), SocketAddr::new(vip, 7), PERIOD)?;
    meter.await_answer(Instant::now(), PATIENCE)?;
    std::thread::park_timeout(Duration::from_millis(200));
    let cut = Instant::now();
    power_off(lab.node(&holder)?)?;
    meter.await_answer(cut, PATIENCE)?;
    std::thread::park_timeout(Duration::from_millis(200));
    let gap = meter.stop()?.longest_gap().context("no two answers")?;
    Ok(Blackout { node: holder, length: gap.length() })
}
