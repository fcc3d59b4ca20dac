//! What `explain` says of Services in every state: tables.
#![cfg(test)]

use herald_controller::objects::{address::Address, service::ServiceObject};
use kubectl_herald::{
    cluster::Unseen,
    explain::{Explanation, Facts, Leader, Node, State, explanation},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn read<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn pool(more: &Value) -> Value {
    let mut pool = json!({
        "apiVersion": "heraldlb.io/v1beta1", "kind": "IPAddressPool", "metadata": {"name": "lan", "uid": "p"},
        "spec": {"addresses": ["10.0.0.0/30"]},
        "status": {
            "assignedIPv4": 1, "assignedIPv6": 0, "availableIPv4": 3, "availableIPv6": 0,
            "conditions": [condition("Ready", "True", "InForce", "the pool's spec is in force")],
        },
    });
    pool["status"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    pool
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

fn service() -> Value {
    json!({
        "metadata": {"namespace": "shop", "name": "web", "uid": "u", "annotations": {}},
        "spec": {"type": "LoadBalancer", "ipFamilies": ["IPv4"], "ports": [{"port": 80}]},
        "status": {
            "loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]},
            "conditions": [
                condition("heraldlb.io/Allocated", "True", "Allocated", "10.0.0.1 from pool 'lan'"),
                condition("heraldlb.io/Announced", "True", "Announced", "a node answers for 10.0.0.1"),
            ],
        },
    })
}

fn lbip() -> Value {
    json!({
        "apiVersion": "heraldlb.io/v1beta1", "kind": "LoadBalancerIP", "metadata": {"name": "10.0.0.1"},
        "spec": {
            "address": "10.0.0.1", "pool": "lan", "services": [{"namespace": "shop", "name": "web", "uid": "u"}],
            "announce": {"l2": {"nodes": {"mode": "All"}}},
        },
        "status": {"holders": [
            {"node": "n1", "interface": "eth0", "mac": "02:00:00:00:00:01", "since": "2026-01-01T00:00:00Z"},
        ]},
    })
}

fn node(name: &str) -> Node {
    Node { name: name.to_owned(), ready: true, ..Node::default() }
}

/// A Service that has all it asks for.
fn healthy() -> Facts {
    facts(service(), vec![lbip()], vec![pool(&json!({}))])
}

fn facts(service: Value, addresses: Vec<Value>, pools: Vec<Value>) -> Facts {
    let address = |value| Address::try_from(read::<herald_crds::LoadBalancerIP>(value)).unwrap();
    Facts {
        service: read::<ServiceObject>(service).into(),
        class: None,
        pools: Ok(pools.into_iter().map(|value| read::<herald_crds::IPAddressPool>(value).into()).collect()),
        advertisements: Ok(Vec::new()),
        addresses: Ok(addresses.into_iter().map(address).collect()),
        namespaces: Ok(Vec::new()),
        nodes: Ok(vec![node("n1"), node("n2")]),
        leader: Ok(Some(Leader {
            holder: Some("pod-1".to_owned()),
            renewed: Some("2026-01-01T00:04:58Z".parse().unwrap()),
            seconds: 15,
            renews: false,
        })),
        herald_namespace: "herald-system".to_owned(),
        now: "2026-01-01T00:05:00Z".parse().unwrap(),
    }
}

fn broken(explanation: &Explanation) -> Vec<String> {
    let links = explanation.chain.iter().filter(|link| link.state == State::Broken);
    links.map(|link| format!("{}: {}", link.step, link.what)).collect()
}

#[test]
fn a_service_that_has_all_it_asks_for_is_told_from_request_to_holder() {
    let told = explanation(&healthy());
    let chain: Vec<String> = told.chain.iter().map(|link| format!("{}: {}", link.step, link.what)).collect();
    assert_eq!(
        chain,
        [
            "Service: shop/web, no class, IPv4 (SingleStack), externalTrafficPolicy Cluster",
            "Request: any address",
            "Controller: pod-1, its Lease renewed 2 s ago",
            "Address: 10.0.0.1",
            "Pool: lan: 1 IPv4 in use, 3 free",
            "Advertisement: no L2Advertisement selects pool lan: announced from every node",
            "Nodes: n1, n2 may announce 10.0.0.1",
            "Holder: n1 answers for 10.0.0.1 on eth0 with 02:00:00:00:00:01, since 2026-01-01T00:00:00Z (5 min)",
            "Condition: Allocated=True: 10.0.0.1 from pool 'lan'",
            "Condition: Announced=True: a node answers for 10.0.0.1",
        ]
    );
    assert!(told.chain.iter().all(|link| link.state == State::Ok), "{told:?}");
    assert!(told.advice.is_empty(), "{:?}", told.advice);
}

/// A Service that nobody has looked at.
fn unseen_service() -> Value {
    let mut service = service();
    service["status"] = json!({});
    service
}

#[test]
fn a_broken_link_is_named_with_what_to_do() {
    let pools = || vec![pool(&json!({}))];
    let mut cluster_ip = service();
    cluster_ip["spec"]["type"] = json!("ClusterIP");
    let mut foreign = unseen_service();
    foreign["spec"]["loadBalancerClass"] = json!("other");
    let mut garbage = unseen_service();
    garbage["metadata"]["annotations"] = json!({"metallb.io/loadBalancerIPs": "10.0.0.300"});
    let mut full = unseen_service();
    full["metadata"]["annotations"] = json!({"heraldlb.io/loadBalancerIPs": "10.0.0.9"});
    let mut thief = service();
    thief["metadata"]["uid"] = json!("other");
    let mut refused = service();
    let message = "no pool gives the IPv4 address";
    refused["status"] =
        json!({"conditions": [condition("heraldlb.io/Allocated", "False", "NoAddressAvailable", message)]});
    let mut unmet = service();
    let message = "keeps 10.0.0.1, although it asks for something else: 10.0.0.9 lies in no pool";
    unmet["status"]["conditions"][0] = condition("heraldlb.io/Allocated", "True", "RequestUnmet", message);
    let mut unheld = lbip();
    unheld["status"] = json!({});
    let mut nowhere = lbip();
    nowhere["spec"]["announce"]["l2"]["nodes"] = json!({"mode": "Listed"});
    let invalid = pool(&json!({"conditions": [condition("Ready", "False", "Overlap", "overlaps another")]}));
    for (facts, link, advice) in [
        (
            facts(cluster_ip, vec![], pools()),
            "Service: shop/web is not of type LoadBalancer",
            "spec.type: LoadBalancer",
        ),
        (facts(foreign, vec![], pools()), "Service: shop/web has class 'other'", "--load-balancer-class"),
        (
            facts(garbage, vec![], pools()),
            "Request: metallb.io/loadBalancerIPs: '10.0.0.300'",
            "correct the request",
        ),
        (
            facts(unseen_service(), vec![], vec![]),
            "Pool: there is no IPAddressPool",
            "create an IPAddressPool",
        ),
        (facts(unseen_service(), vec![], pools()), "Address: none", "a controller would give it 10.0.0.0"),
        (
            facts(full, vec![], pools()),
            "Condition: none yet",
            "a controller would say: 10.0.0.9 lies in no pool",
        ),
        (facts(thief, vec![lbip()], pools()), "10.0.0.1, which is not its own but of shop/web", ""),
        (facts(service(), vec![], pools()), "10.0.0.1, which Herald has not given", ""),
        (
            facts(refused, vec![], pools()),
            "Condition: Allocated=False: no pool gives",
            "NoAddressAvailable: no pool",
        ),
        (
            facts(unmet, vec![lbip()], pools()),
            "Condition: Allocated=True: keeps 10.0.0.1",
            "RequestUnmet: keeps 10.0.0.1",
        ),
        (facts(service(), vec![unheld], pools()), "Holder: no node answers for 10.0.0.1", ""),
        (facts(service(), vec![nowhere], pools()), "Nodes: no node may announce 10.0.0.1", ""),
        (
            facts(service(), vec![lbip()], vec![invalid]),
            "Pool: lan: 1 IPv4 in use, 3 free; Overlap: overlaps another",
            "",
        ),
        (facts(service(), vec![lbip()], vec![]), "Pool: lan does not exist any more; the address stays", ""),
        (
            Facts { leader: Ok(None), ..healthy() },
            "Controller: no Lease herald-controller",
            "controller does not run",
        ),
        (
            Facts { now: "2026-01-01T01:00:00Z".parse().unwrap(), ..healthy() },
            "Controller: pod-1, its Lease renewed 3302 s ago",
            "kubectl -n herald-system get pods",
        ),
    ] {
        let told = explanation(&facts);
        let links = broken(&told);
        assert!(links.iter().any(|found| found.contains(link)), "{link}? {links:?}");
        let all = told.advice.join("\n");
        assert!(all.contains(advice), "{advice}? {all}");
    }
}

#[test]
fn a_lease_that_is_renewed_is_believed_more_than_a_clock() {
    let leader = healthy().leader.map(|leader| leader.map(|leader| Leader { renews: true, ..leader }));
    let facts = Facts { leader, now: "2026-01-01T01:00:00Z".parse().unwrap(), ..healthy() };
    assert_eq!(broken(&explanation(&facts)), [""; 0]);
    let behind = Facts { now: "2025-12-31T23:00:00Z".parse().unwrap(), ..healthy() };
    let links = broken(&explanation(&behind));
    assert!(
        links.iter().any(|link| link.starts_with("Controller")),
        "a clock that is behind proves nothing: {links:?}"
    );
}

#[test]
fn nodes_that_may_not_announce_say_why() {
    let mut facts = healthy();
    facts.nodes = Ok(vec![
        Node { excluded: true, ..node("n1") },
        Node { out_of_service: true, ..node("n2") },
        Node { cordoned: true, ..node("n3") },
        Node { ready: false, ..node("n4") },
        Node { no_network: true, ..node("n5") },
    ]);
    let told = explanation(&facts);
    let nodes = told.chain.iter().find(|link| link.step == "Nodes").unwrap();
    let wanted = "n3 (cordoned: last), n4 (not Ready) may announce 10.0.0.1; not n1 (excluded by label), n2 (out of service), n5 (NetworkUnavailable)";
    assert_eq!(nodes.what, wanted);
}

#[test]
fn what_may_not_be_seen_is_named_and_the_rest_told_all_the_same() {
    let denied = |what: &str| Unseen::NoRight { verb: "list", what: what.to_owned(), said: "no".to_owned() };
    let facts = Facts {
        pools: Err(denied("pools")),
        addresses: Err(denied("addresses")),
        nodes: Err(denied("nodes")),
        leader: Err(denied("leases")),
        ..healthy()
    };
    let told = explanation(&facts);
    let unknown: Vec<&str> =
        told.chain.iter().filter(|link| link.state == State::Unknown).map(|link| link.step).collect();
    assert_eq!(unknown, ["Controller", "Address", "Pool"]);
    assert!(told.chain.iter().any(|link| link.what.starts_with("no right to list addresses")), "{told:?}");
    assert!(told.chain.iter().any(|link| link.what.starts_with("Allocated=True")), "{told:?}");
    assert!(told.text().contains("unknown"), "{}", told.text());
}
