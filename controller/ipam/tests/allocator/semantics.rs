//! What Herald promises of allocation, row by row: pools, families and their
//! transitions, requests that change.

use std::collections::BTreeMap;

use herald_ipam::{
    Families, Family, FamilyPolicy, PoolName, PoolSpec, RequestError, Selector, ServiceAllocation, Wanted,
};

use crate::scenarios::settled;
use crate::world::*;

const FIRST: [&str; 2] = ["10.0.0.0", "fd00::"];
const SECOND: [&str; 2] = ["10.0.0.1", "fd00::1"];

/// What a Service asks for changes, and the pool stays: what it shows then.
#[test]
fn a_change_of_policy_adds_or_gives_back_the_second_family_and_never_touches_the_first() {
    let six_first = |families| Families { primary: Family::V6, ..families };
    let not_dual = Families { dual: false, ..PREFER };
    for (row, before, after, shown) in [
        ("SingleStack to PreferDualStack adds the second", V4, PREFER, &SECOND[..]),
        ("SingleStack to RequireDualStack adds the second", V4, REQUIRE, &SECOND),
        ("PreferDualStack to RequireDualStack changes nothing", PREFER, REQUIRE, &SECOND),
        ("RequireDualStack to PreferDualStack changes nothing", REQUIRE, PREFER, &SECOND),
        ("PreferDualStack to SingleStack gives the second back", PREFER, V4, &["10.0.0.1"]),
        ("RequireDualStack to SingleStack gives the second back", REQUIRE, V4, &["10.0.0.1"]),
        ("IPv6 first: SingleStack to PreferDualStack", V6, six_first(PREFER), &SECOND),
        ("IPv6 first: RequireDualStack to SingleStack", six_first(REQUIRE), V6, &["fd00::1"]),
        ("PreferDualStack in a cluster of one family gets one", V4, not_dual, &["10.0.0.1"]),
    ] {
        let mut world = settled(&[pool("p", &["10.0.0.0/30", "fd00::/126"])]);
        world.create_service("other", 0, REQUIRE, anything());
        world.settle();
        world.create_service("a", 1, before, anything());
        world.settle();
        world.ask("a", after, anything());
        world.settle();
        assert_eq!(world.shown("a"), shown, "{row}");
        assert_eq!(world.refusal("a"), "", "{row}");
        assert_eq!(world.shown("other"), FIRST, "{row}: nobody else notices");
    }
}

/// Rule B25: what is being taken from a status is left there if it is asked for again before it is gone.
#[test]
fn a_policy_that_changes_back_before_the_status_is_written_costs_nothing() {
    let six_first = |families| Families { primary: Family::V6, ..families };
    for (row, before, between, after, shown) in [
        ("the second family", REQUIRE, V4, REQUIRE, &SECOND[..]),
        ("the second family, optional", PREFER, V4, PREFER, &SECOND),
        ("IPv6 first", six_first(REQUIRE), V6, six_first(REQUIRE), &SECOND),
        ("the family of its only address", V4, V6, REQUIRE, &SECOND),
        ("its only address", V4, V6, V4, &["10.0.0.1"]),
    ] {
        let mut world = settled(&[pool("p", &["10.0.0.0/29", "fd00::/125"])]);
        world.create_service("other", 0, REQUIRE, anything());
        world.settle();
        world.create_service("a", 1, before, anything());
        world.settle();
        // Asked before the other, for those who have nothing.
        world.apply_pool(pool("o", &["10.9.0.0/29", "fd09::/125"]));
        world.settle();
        world.ask("a", between, anything());
        world.deliver(SERVICES);
        world.ask("a", after, anything());
        world.deliver(SERVICES);
        world.settle();
        assert_eq!(world.shown("a"), shown, "{row}: {}", world.story());
        assert_eq!(world.refusal("a"), "", "{row}");
        assert_eq!(world.lbips.len(), 2 + shown.len(), "{row}: nothing else is left");
    }
}

/// Rule B25: a pool by name, and pools that are edited under its two addresses.
#[test]
fn who_asks_for_a_pool_keeps_both_addresses_though_one_of_them_lies_in_another_now() {
    let mut world = settled(&[pool("p", &["10.0.0.0/30", "fd00::/126"])]);
    world.create_service("other", 0, REQUIRE, from_pool("p"));
    world.create_service("a", 1, PREFER, from_pool("p"));
    world.settle();
    world.delete_service("other");
    world.settle();
    assert_eq!(world.shown("a"), SECOND);
    world.apply_pool(pool("p", &["10.0.0.0/30", "fd01::/126"]));
    world.settle();
    assert_eq!(world.shown("a"), SECOND);
    world.apply_pool(pool("q", &["fd00::/126"]));
    world.settle();
    assert_eq!(world.shown("a"), SECOND);
    assert!(world.refusal("a").contains("fd00::1 lies in pool 'q', not in 'p'"), "{}", world.refusal("a"));
}

/// What is said of a request for addresses depends on what is, not on what it was when it was made.
#[test]
fn who_asks_for_addresses_is_told_the_same_before_and_after_a_restart() {
    let mut world = settled(&[pool("p", &["10.0.0.0/30", "fd00::/126"]), pool("four", &["10.1.0.0/30"])]);
    for (row, families, wanted, taken, said) in [
        ("outside", PREFER, &["10.0.0.3", "fd09::1"][..], "10.0.0.3", "fd09::1 lies in no pool"),
        ("incomplete", REQUIRE, &["10.1.0.3"], "10.1.0.3", "10.1.0.3 is in use by default/taker"),
        (
            "apart",
            PREFER,
            &["10.1.0.2", "fd00::3"],
            "10.1.0.2",
            "both addresses of a Service come from one pool",
        ),
    ] {
        world.create_service(row, 0, V4, anything());
        world.settle();
        let shown = world.shown(row);
        world.ask(row, families, addresses(wanted));
        world.settle();
        world.create_service("taker", 9, V4, addresses(&[taken]));
        world.settle();
        let before = world.refusal(row);
        assert!(before.contains(said), "{row}: {before}");
        world.restart(|_| true);
        world.settle();
        assert_eq!((world.refusal(row), world.shown(row)), (before, shown), "{row}");
        world.delete_service("taker");
        world.settle();
    }
}

/// The pool gains or loses a family under its user.
#[test]
fn a_pool_that_gains_or_loses_a_family_takes_nothing_away_and_adds_what_is_missing() {
    let both = ["10.0.0.0/30", "fd00::/126"];
    let (four, six) = (["10.0.0.0/30"], ["fd00::/126"]);
    for (row, families, before, after, first, then, said) in [
        ("Prefer gains IPv6", PREFER, &four[..], &both[..], &["10.0.0.0"][..], &FIRST[..], ""),
        ("Prefer loses IPv6", PREFER, &both, &four, &FIRST, &FIRST, "fd00:: is not in pool 'p' any more"),
        ("Prefer loses IPv4", PREFER, &both, &six, &FIRST, &FIRST, "10.0.0.0 is not in pool 'p' any more"),
        ("Prefer without the primary gets none", PREFER, &six, &both, &[], &FIRST, ""),
        ("Require gains IPv6", REQUIRE, &four, &both, &[], &FIRST, ""),
        ("Require loses IPv6", REQUIRE, &both, &four, &FIRST, &FIRST, "fd00:: is not in pool 'p' any more"),
        ("Single does not care", V4, &four, &both, &["10.0.0.0"], &["10.0.0.0"], ""),
    ] {
        let mut world = settled(&[pool("p", before)]);
        world.create_service("a", 1, families, anything());
        world.settle();
        assert_eq!(world.shown("a"), first, "{row}: at first");
        world.apply_pool(pool("p", after));
        world.settle();
        assert_eq!(world.shown("a"), then, "{row}: then");
        let refusal = world.refusal("a");
        assert!(refusal.contains(said) && refusal.is_empty() == said.is_empty(), "{row}: {refusal}");
        world.restart(|_| true);
        world.settle();
        assert_eq!(world.shown("a"), then, "{row}: after a restart");
    }
}

/// Rule B7: RequireDualStack is both or nothing, also where the first was recorded before a crash.
#[test]
fn a_first_address_whose_second_became_impossible_is_released() {
    let mut world = settled(&[pool("p", &["10.0.0.0/30", "fd00::/126"])]);
    world.create_service("a", 1, REQUIRE, anything());
    world.deliver(SERVICES);
    world.work(0, Fate::Works);
    assert_eq!(world.lbips.len(), 1);
    world.apply_pool(pool("p", &["10.0.0.0/30"]));
    world.restart(|_| false);
    world.settle();
    assert_eq!((world.shown("a"), world.lbips.len()), (vec![], 0));
    assert!(world.refusal("a").contains("'p' has no IPv6 range"), "{}", world.refusal("a"));
}

/// MetalLB refuses one address on a dual-stack Service; Herald adds the other family from the same pool.
#[test]
fn one_requested_address_on_a_dual_stack_service_is_honoured_and_completed() {
    let six_first = Families { primary: Family::V6, ..PREFER };
    for (row, families, wanted, shown) in [
        ("IPv4 on Prefer", PREFER, "10.0.0.2", &["10.0.0.2", "fd00::"][..]),
        ("IPv6 on Prefer", PREFER, "fd00::2", &["10.0.0.0", "fd00::2"]),
        ("IPv4 on Prefer with IPv6 first", six_first, "10.0.0.2", &["10.0.0.2", "fd00::"]),
        ("IPv4 on Require", REQUIRE, "10.0.0.2", &["10.0.0.2", "fd00::"]),
        ("of a pool of one family, on Prefer", PREFER, "10.1.0.2", &["10.1.0.2"]),
        ("of a pool of one family, on Require", REQUIRE, "10.1.0.2", &[]),
    ] {
        let mut world = settled(&[pool("p", &["10.0.0.0/30", "fd00::/126"]), pool("q", &["10.1.0.0/30"])]);
        world.create_service("a", 1, families, addresses(&[wanted]));
        world.settle();
        assert_eq!(world.shown("a"), shown, "{row}");
    }
}

/// Every row: who the pool is for, a Service that may have it and one that may not. Named and automatic alike.
#[test]
fn service_allocation_grants_what_it_names_and_nothing_else() {
    let selector = |key: &str, value: &str| Selector {
        labels: [(key.to_owned(), value.to_owned())].into(),
        ..Selector::default()
    };
    let namespaces = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let team = || vec![selector("team", "a")];
    let web = || vec![selector("tier", "web"), selector("tier", "edge")];
    let any = ServiceAllocation::default();
    for (row, allocation, granted, refused) in [
        ("nothing named: everybody", any.clone(), Some("shop/web"), None),
        (
            "namespaces, OR inside",
            ServiceAllocation { namespaces: namespaces(&["bank", "shop"]), ..any.clone() },
            Some("shop/web"),
            Some("else/web"),
        ),
        (
            "namespaceSelectors",
            ServiceAllocation { namespace_selectors: team(), ..any.clone() },
            Some("selected/web"),
            Some("shop/web"),
        ),
        (
            "namespaces OR namespaceSelectors",
            ServiceAllocation {
                namespaces: namespaces(&["shop"]),
                namespace_selectors: team(),
                ..any.clone()
            },
            Some("selected/web"),
            Some("else/web"),
        ),
        (
            "a namespace selector that matches nothing closes the pool",
            ServiceAllocation { namespace_selectors: vec![selector("team", "nobody")], ..any.clone() },
            None,
            Some("shop/web"),
        ),
        (
            "serviceSelectors, OR inside",
            ServiceAllocation { service_selectors: web(), ..any.clone() },
            Some("shop/edge"),
            Some("shop/db"),
        ),
        (
            "namespaces AND serviceSelectors",
            ServiceAllocation { namespaces: namespaces(&["shop"]), service_selectors: web(), ..any.clone() },
            Some("shop/web"),
            Some("shop/db"),
        ),
        (
            "namespaces AND serviceSelectors, the other half",
            ServiceAllocation { namespaces: namespaces(&["shop"]), service_selectors: web(), ..any },
            Some("shop/edge"),
            Some("else/web"),
        ),
    ] {
        let spec = PoolSpec { allocation: Some(allocation), ..pool("p", &["10.0.0.0/29"]) };
        let mut world = settled(&[spec]);
        world.label_namespace("selected", "team", "a");
        let ways = [anything(), from_pool("p"), addresses(&["10.0.0.5"])];
        for (name, grants) in [(granted, true), (refused, false)] {
            let Some(name) = name else { continue };
            for wanted in &ways {
                world.create_labelled(name, "tier", name.rsplit('/').next().unwrap(), wanted.clone());
                world.settle();
                assert_eq!(!world.shown(name).is_empty(), grants, "{row}: {name} {wanted:?}");
                let said = world.refusal(name);
                assert_eq!(said.contains("restricted to"), !grants, "{row}: {name} {wanted:?}: {said}");
                world.delete_service(name);
                world.settle();
            }
        }
    }
}

/// Fields of a pool that are edited while Services have its addresses: they keep them, and are told.
#[test]
fn an_edit_of_a_pool_changes_nobodys_address() {
    let base = || pool("p", &["10.0.0.0/29"]);
    let closed = ServiceAllocation { namespaces: vec!["shop".into()], ..Default::default() };
    for (row, edited, said) in [
        (
            "excluded",
            PoolSpec { excluded: vec!["10.0.0.0/31".into()], ..base() },
            "is not in pool 'p' any more",
        ),
        (
            "avoidBuggyIPs",
            PoolSpec { avoid_buggy_ips: true, ..base() },
            "10.0.0.0 is not in pool 'p' any more",
        ),
        ("addresses", pool("p", &["10.9.0.0/29"]), "is not in pool 'p' any more"),
        ("invalid", pool("p", &["10.9.0.0/99"]), ""),
        ("autoAssign", PoolSpec { auto_assign: false, ..base() }, ""),
        ("limitPerNamespace", PoolSpec { limit_per_namespace: Some(1), ..base() }, ""),
        (
            "serviceAllocation",
            PoolSpec { allocation: Some(closed), ..base() },
            "restricted to namespaces [shop]",
        ),
    ] {
        let mut world = settled(&[base()]);
        for name in ["a", "b"] {
            world.create_service(name, 1, V4, anything());
        }
        world.settle();
        world.apply_pool(edited);
        world.settle();
        assert_eq!([world.shown("a"), world.shown("b")].concat(), ["10.0.0.0", "10.0.0.1"], "{row}");
        let refusal = world.refusal("a");
        assert!(refusal.contains(said) && refusal.is_empty() == said.is_empty(), "{row}: {refusal}");
        world.apply_pool(base());
        world.settle();
        assert_eq!(world.refusal("a"), "", "{row}: and back");
    }
}

/// Of two pools that overlap after an edit the older keeps its meaning, and the newer says so.
#[test]
fn pools_that_come_to_overlap_leave_every_service_what_it_has() {
    let old = || PoolSpec { created: herald_ipam::CreatedAt(1), ..pool("old", &["10.0.0.0/30"]) };
    let new = |entries: &[&str]| PoolSpec { created: herald_ipam::CreatedAt(2), ..pool("new", entries) };
    let mut world = settled(&[old(), new(&["10.0.1.0/30"])]);
    world.create_service("a", 1, V4, from_pool("old"));
    world.create_service("b", 2, V4, from_pool("new"));
    world.settle();
    world.apply_pool(new(&["10.0.0.0/24", "10.0.1.0/30"]));
    world.settle();
    world.create_service("c", 3, V4, from_pool("new"));
    world.settle();
    assert_eq!(
        [world.shown("a"), world.shown("b"), world.shown("c")].concat(),
        ["10.0.0.0", "10.0.1.0", "10.0.1.1"]
    );
    let problem = |world: &World, name: &str| {
        let status = &world.statuses[&from_pool(name).pool.unwrap()];
        status.problem.as_ref().map(ToString::to_string).unwrap_or_default()
    };
    assert_eq!(problem(&world, "old"), "");
    let said = problem(&world, "new");
    assert!(said.contains("10.0.0.0-10.0.0.255 overlaps 10.0.0.0-10.0.0.3 of pool 'old'"), "{said}");
    // The same after a restart, where no edit tells which was there first.
    world.restart(|_| true);
    world.settle();
    assert_eq!(problem(&world, "old"), "");
    assert_eq!(
        [world.shown("a"), world.shown("b"), world.shown("c")].concat(),
        ["10.0.0.0", "10.0.1.0", "10.0.1.1"]
    );
}

/// The same edit of the older pool: whoever saw what was there first keeps to it, and a new process has the oldest first.
/// Nobody's address changes.
#[test]
fn an_older_pool_that_is_edited_into_a_newer_one_is_in_force_after_a_restart_only() {
    let old = |entries: &[&str]| PoolSpec { created: herald_ipam::CreatedAt(1), ..pool("old", entries) };
    let new = PoolSpec { created: herald_ipam::CreatedAt(2), ..pool("new", &["10.0.1.0/30"]) };
    let mut world = settled(&[old(&["10.0.0.0/30"]), new]);
    world.create_service("a", 1, V4, from_pool("old"));
    world.create_service("b", 2, V4, from_pool("new"));
    world.settle();
    world.apply_pool(old(&["10.0.0.0/30", "10.0.1.0/24"]));
    world.settle();
    let ready =
        |world: &World| ["old", "new"].map(|name| world.statuses[&PoolName::new(name)].problem.is_none());
    assert_eq!(ready(&world), [false, true]);
    world.create_service("c", 3, V4, from_pool("new"));
    world.settle();
    assert_eq!(world.shown("c"), ["10.0.1.1"]);
    world.restart(|_| true);
    world.settle();
    assert_eq!(ready(&world), [true, false]);
    world.create_service("d", 4, V4, from_pool("new"));
    world.settle();
    assert_eq!(world.shown("d"), [] as [&str; 0], "{}", world.refusal("d"));
    assert_eq!(
        [world.shown("a"), world.shown("b"), world.shown("c")].concat(),
        ["10.0.0.0", "10.0.1.0", "10.0.1.1"]
    );
}

/// Annotations that mean nothing: one clear word each, and what the Service has stays.
#[test]
fn an_annotation_that_means_nothing_is_told_and_takes_nothing_away() {
    let parse = |name: &str, value: &str| -> Result<Wanted, RequestError> {
        let annotations: BTreeMap<String, String> =
            [(format!("heraldlb.io/{name}"), value.to_owned())].into();
        Wanted::parse(&annotations, None)
    };
    let long = "k".repeat(254);
    for (name, value, words) in [
        ("loadBalancerIPs", "10.0.0.1 10.0.0.2", "'10.0.0.1 10.0.0.2' is not an IP address"),
        ("loadBalancerIPs", "10.0.0.1:80", "'10.0.0.1:80' is not an IP address"),
        ("loadBalancerIPs", "[fd00::1]:80", "'[fd00::1]:80' is not an IP address"),
        ("loadBalancerIPs", "10.0.0.0/24", "'10.0.0.0/24' is not an IP address"),
        ("loadBalancerIPs", "10.0.0.1-10.0.0.5", "'10.0.0.1-10.0.0.5' is not an IP address"),
        ("loadBalancerIPs", "10.0.0.01", "'10.0.0.01' is not an IP address"),
        ("loadBalancerIPs", "web.example.com", "'web.example.com' is not an IP address"),
        ("loadBalancerIPs", "10.0.0.1,,fd00::1", "'' is not an IP address"),
        (
            "loadBalancerIPs",
            "10.0.0.1,fd00::1,10.0.0.2,fd00::2,10.0.0.3",
            "two IPv4 addresses, 10.0.0.1 and 10.0.0.2",
        ),
        ("loadBalancerIPs", "10.0.0.1,10.0.0.1", "two IPv4 addresses"),
        ("loadBalancerIPs", "::ffff:10.0.0.1", "write the IPv4 address 10.0.0.1"),
        ("loadBalancerIPs", "fe80::1%eth0", "carries a zone"),
        ("loadBalancerIPs", "\u{a0}", "is empty"),
        ("loadBalancerIPs", "", "is empty"),
        ("address-pool", " ", "address-pool is empty"),
        ("allow-shared-ip", "", "allow-shared-ip is empty"),
        ("allow-shared-ip", &long, "has 254 characters"),
    ] {
        let error = parse(name, value).unwrap_err();
        assert!(error.to_string().contains(words), "{name}: {value:?}: {error}");
        let mut world = settled(&[pool("p", &["10.0.0.7"])]);
        world.create_service("a", 1, V4, anything());
        world.settle();
        world.ask_for("a", Err(error.clone()));
        world.create_service("b", 2, V4, anything());
        world.ask_for("b", Err(error));
        world.settle();
        assert_eq!((world.shown("a"), world.shown("b")), (vec!["10.0.0.7".to_owned()], vec![]), "{value:?}");
        for service in ["a", "b"] {
            assert!(world.refusal(service).contains(words), "{value:?}: {}", world.refusal(service));
        }
    }
    // Blanks around an address, and an address written in another way, are the same address.
    for (value, means) in
        [(" 10.0.0.1 ", "10.0.0.1"), ("FD00:0:0::1", "fd00::1"), ("fd00::1 ,\t10.0.0.1", "10.0.0.1")]
    {
        assert!(parse("loadBalancerIPs", value).unwrap().addresses.contains(ip(means)), "{value:?}");
    }
}

/// The wrong family, no pool that has it, a pool that does not exist: told, and what it has stays.
#[test]
fn a_request_that_becomes_impossible_keeps_what_there_is() {
    let six = || pool("six", &["fd00::/126"]);
    for (wanted, words) in [
        (addresses(&["fd00::1"]), "fd00::1 is an IPv6 address, but the Service has only IPv4"),
        (addresses(&["172.16.0.1"]), "172.16.0.1 lies in no pool"),
        (from_pool("six"), "'six' has no IPv4 range"),
        (from_pool("nowhere"), "the pool 'nowhere' does not exist"),
        (
            Wanted { pool: from_pool("six").pool, ..addresses(&["10.0.0.2"]) },
            "10.0.0.2 lies in pool 'p', not in 'six'",
        ),
    ] {
        let mut world = settled(&[pool("p", &["10.0.0.0/30"]), six()]);
        world.create_service("a", 1, V4, anything());
        world.settle();
        world.ask("a", V4, wanted.clone());
        world.settle();
        assert_eq!(world.shown("a"), ["10.0.0.0"], "{wanted:?}");
        assert!(world.refusal("a").contains(words), "{wanted:?}: {}", world.refusal("a"));
        world.ask("a", V4, anything());
        world.settle();
        assert_eq!((world.shown("a"), world.refusal("a")), (vec!["10.0.0.0".to_owned()], String::new()));
        world.ask("a", Families { policy: FamilyPolicy::SingleStack, ..V4 }, addresses(&["10.0.0.3"]));
        world.settle();
        assert_eq!(world.shown("a"), ["10.0.0.3"], "one that can be met is met");
    }
}
