//! The crowd: nodes, namespaces, pools and Services, as Helm and the usual labels make them.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use herald_lab::Lab;
use kube::Client;
use serde_json::{Value, json};

/// Requests at once, as many as the controller has.
const IN_FLIGHT: usize = 32;
const NODES: u32 = 1_000;
const NAMESPACES: u32 = 1_000;
const POOLS: u32 = 100;
/// Addresses of each pool.
const POOL_SIZE: u32 = 128;

/// Nodes, namespaces and pools.
pub(super) fn surroundings(lab: &Lab) -> Result<()> {
    let begun = Instant::now();
    requests(lab, 0..NODES, |n| ("POST", "/api/v1/nodes".to_owned(), node(n)))?;
    requests(lab, 0..NAMESPACES, |n| ("POST", "/api/v1/namespaces".to_owned(), namespace(n)))?;
    requests(lab, 0..POOLS, |n| ("POST", "/apis/heraldlb.io/v1beta1/ipaddresspools".to_owned(), pool(n)))?;
    let took = begun.elapsed();
    lab.plan().progress.say(&format!("{NODES} nodes, {NAMESPACES} namespaces, {POOLS} pools in {took:.1?}"));
    Ok(())
}

/// Creates Services as fast as the API server takes them.
pub(super) fn services(lab: &Lab, numbers: std::ops::Range<u32>) -> Result<Duration> {
    requests(lab, numbers, |n| ("POST", services_of(n), service(n)))
}

/// One bare status PATCH per Service: what any program that tells something of each has to do.
pub(super) fn bare_writes(lab: &Lab, count: u32, round: u32) -> Result<Duration> {
    let condition = json!({"status": {"conditions": [{
        "type": "bench.heraldlb.io/Touched", "status": "True", "reason": format!("Round{round}"),
        "message": "a bare write", "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]}});
    requests(lab, 0..count, |n| {
        ("PATCH", format!("{}/{}/status", services_of(n), name(n)), condition.clone())
    })
}

/// Creates one Service.
pub(super) async fn create(client: Client, n: u32) -> Result<()> {
    send(client, "POST", services_of(n), service(n)).await
}

/// The name of the `n`-th Service, whatever its namespace.
pub(super) fn name(n: u32) -> String {
    format!("web-{n:05}")
}

fn namespace_of(n: u32) -> String {
    format!("team-{:03}", n % NAMESPACES)
}

fn services_of(n: u32) -> String {
    format!("/api/v1/namespaces/{}/services", namespace_of(n))
}

fn service(n: u32) -> Value {
    let (name, namespace) = (name(n), namespace_of(n));
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": name,
            "labels": {
                "app.kubernetes.io/name": "web", "app.kubernetes.io/instance": name,
                "app.kubernetes.io/version": "1.27.3", "app.kubernetes.io/managed-by": "Helm",
                "helm.sh/chart": "web-4.2.1",
            },
            "annotations": { "meta.helm.sh/release-name": name, "meta.helm.sh/release-namespace": namespace },
        },
        "spec": {
            "type": "LoadBalancer",
            // There are 2,768 node ports in all.
            "allocateLoadBalancerNodePorts": false,
            "selector": { "app.kubernetes.io/name": "web", "app.kubernetes.io/instance": name },
            "ports": [
                { "name": "http", "port": 80, "targetPort": 8080 },
                { "name": "https", "port": 443, "targetPort": 8443 },
            ],
        },
    })
}

fn node(n: u32) -> Value {
    let name = format!("worker-{n:04}");
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": name, "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            "topology.kubernetes.io/zone": format!("rack-{}", n % 40),
            "node.kubernetes.io/instance-type": "metal",
        } },
        "status": {
            "addresses": [
                { "type": "InternalIP", "address": format!("10.100.{}.{}", n / 250, n % 250 + 1) },
                { "type": "Hostname", "address": name },
            ],
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "an object alone",
                "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        },
    })
}

fn namespace(n: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": namespace_of(n), "labels": { "tenant": tenant(n % POOLS) } },
    })
}

fn tenant(n: u32) -> String {
    format!("tenant-{n:02}")
}

/// The name of the `n`-th pool.
pub(super) fn pool_name(n: u32) -> String {
    format!("pool-{n:02}")
}

/// The `n`-th block of addresses: there are more of them than pools.
pub(super) fn block(n: u32) -> String {
    let first = n * POOL_SIZE;
    format!("192.168.{}.{}/25", 64 + first / 256, first % 256)
}

fn pool(n: u32) -> Value {
    json!({
        "apiVersion": "heraldlb.io/v1beta1", "kind": "IPAddressPool", "metadata": { "name": pool_name(n) },
        "spec": {
            "addresses": [block(n)],
            "serviceAllocation": { "namespaceSelectors": [{ "matchLabels": { "tenant": tenant(n) } }] },
        },
    })
}

/// Sends a request for each number, some at once, and says how long all took.
fn requests(
    lab: &Lab,
    numbers: std::ops::Range<u32>,
    request: impl Fn(u32) -> (&'static str, String, Value) + Sync,
) -> Result<Duration> {
    let client = lab.kube();
    let one = |n| {
        let (method, path, body) = request(n);
        send(client.clone(), method, path, body)
    };
    let begun = Instant::now();
    let all = stream::iter(numbers).map(one).buffer_unordered(IN_FLIGHT).try_collect::<Vec<()>>();
    lab.block_on(all)?;
    Ok(begun.elapsed())
}

/// The answer is read and dropped: decoding it would take from the two cores that everything runs on.
async fn send(client: Client, method: &str, path: String, body: Value) -> Result<()> {
    let kind = match method {
        "PATCH" => "application/strategic-merge-patch+json",
        _ => "application/json",
    };
    let request = http::Request::builder().method(method).uri(path).header("content-type", kind);
    client.request_text(request.body(serde_json::to_vec(&body)?)?).await?;
    Ok(())
}
