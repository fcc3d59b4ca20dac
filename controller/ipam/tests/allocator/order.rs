//! Before the gate opens, the order in which things are told does not matter: same inputs, same outputs.

use std::net::IpAddr;

use herald_ipam::{
    AddressRecord, Allocator, Claim, CreatedAt, Families, Input, Labels, List, Output, Owner, PoolName,
    PoolSpec, Selector, ServiceAllocation, ServiceRequest, Uid, Version, Wanted,
};
use proptest::prelude::*;

use crate::world::*;

fn pools() -> impl Strategy<Value = Vec<PoolSpec>> {
    let entries = prop::sample::subsequence(
        vec!["10.0.0.1-10.0.0.3", "10.0.0.3-10.0.0.6", "10.0.1.0/30", "fd00::1-fd00::2", "nonsense"],
        1..3,
    );
    let spec = (entries, 0_i64..3, proptest::bool::ANY, proptest::bool::ANY);
    prop::collection::vec(spec, 0..4).prop_map(|specs| {
        let one =
            |(index, (entries, created, auto_assign, selects)): (usize, (Vec<&str>, i64, bool, bool))| {
                let selector = Selector {
                    labels: [("team".to_owned(), "x".to_owned())].into(),
                    expressions: Vec::new(),
                };
                let allocation =
                    ServiceAllocation { namespace_selectors: vec![selector], ..Default::default() };
                PoolSpec {
                    created: CreatedAt(created),
                    auto_assign,
                    allocation: selects.then_some(allocation),
                    limit_per_namespace: (created == 2).then_some(1),
                    ..pool(&format!("p{index}"), &entries)
                }
            };
        specs.into_iter().enumerate().map(one).collect()
    })
}

fn labels(key: &str, value: &str) -> Labels {
    [(key.to_owned(), value.to_owned())].into()
}

fn wanted() -> impl Strategy<Value = Wanted> {
    prop_oneof![
        3 => Just(anything()),
        2 => prop::sample::select(vec!["10.0.0.2", "10.0.0.3", "10.0.1.1", "fd00::1"]).prop_map(|it| addresses(&[it])),
        1 => prop::sample::select(vec!["p0", "p1"]).prop_map(from_pool),
        2 => prop::sample::select(vec!["k", "l"]).prop_map(|key| sharing(key, anything())),
        1 => prop::sample::select(vec!["10.0.0.2", "10.0.1.1"]).prop_map(|it| sharing("k", addresses(&[it]))),
    ]
}

fn some_address() -> impl Strategy<Value = IpAddr> {
    prop::sample::select(vec!["10.0.0.1", "10.0.0.3", "10.0.1.0", "fd00::1", "172.16.0.1"]).prop_map(ip)
}

fn services() -> impl Strategy<Value = Vec<ServiceRequest>> {
    let families: BoxedStrategy<Families> = prop::sample::select(vec![V4, V6, PREFER, REQUIRE]).boxed();
    let one = (0_i64..4, families, wanted(), prop::collection::vec(some_address(), 0..2));
    prop::collection::vec(one, 0..7).prop_map(|all| {
        let one =
            |(index, (created, families, wanted, shown)): (usize, (i64, Families, Wanted, Vec<IpAddr>))| {
                ServiceRequest {
                    owner: owner(index),
                    version: Version(10),
                    created: CreatedAt(created),
                    labels: Labels::new(),
                    families,
                    wanted: Ok(wanted),
                    exposure: exposure(&[[80, 443][index % 2]]),
                    shown,
                    terminating: false,
                }
            };
        all.into_iter().enumerate().map(one).collect()
    })
}

fn owner(index: usize) -> Owner {
    let namespace = ["x", "y"][index % 2];
    Owner { service: service(&format!("{namespace}/s{index}")), uid: Uid::new(&format!("uid-{index}")) }
}

fn records() -> impl Strategy<Value = Vec<AddressRecord>> {
    let one = (some_address(), 0..9_usize, proptest::bool::ANY, proptest::bool::ANY);
    prop::collection::vec(one, 0..4).prop_map(|all| {
        let mut records: Vec<AddressRecord> = Vec::new();
        for (address, index, reserved, terminating) in all {
            if records.iter().all(|record| record.address != address) {
                records.push(AddressRecord {
                    address,
                    version: Version(5),
                    pool: Some(PoolName::new("p0")),
                    services: if reserved { Vec::new() } else { vec![owner(index)] },
                    claim: reserved.then(|| Claim::Service(owner(index).service)),
                    sharing: None,
                    terminating,
                });
            }
        }
        records
    })
}

fn inputs() -> impl Strategy<Value = (Vec<Input>, Vec<Input>)> {
    (pools(), services(), records()).prop_flat_map(|(pools, services, records)| {
        let namespace = Input::NamespaceApplied { name: "x".into(), labels: labels("team", "x") };
        let mut inputs = vec![namespace];
        inputs.extend(pools.into_iter().map(Input::PoolApplied));
        inputs.extend(services.into_iter().map(|it| Input::ServiceApplied(it.into())));
        inputs.extend(records.into_iter().map(|it| Input::AddressApplied(it.into())));
        (Just(inputs.clone()), Just(inputs).prop_shuffle())
    })
}

fn outputs(inputs: Vec<Input>) -> Vec<Output> {
    let mut allocator = Allocator::new();
    for input in inputs {
        allocator.handle(input);
        assert_eq!(allocator.poll_output(), None, "nothing is said before the gate opens");
    }
    for list in [List::Addresses, List::Services, List::Namespaces, List::Pools] {
        allocator.handle(Input::Synced(list));
    }
    std::iter::from_fn(|| allocator.poll_output()).collect()
}

proptest! {
    #[test]
    fn the_order_of_arrival_before_the_gate_does_not_matter((inputs, shuffled) in inputs()) {
        prop_assert_eq!(outputs(inputs), outputs(shuffled));
    }
}
