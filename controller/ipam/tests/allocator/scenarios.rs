//! One scenario each: what a user does, and what the Services then show.

use herald_ipam::{
    Families, Family, FamilyPolicy, Input, List, Output, PoolSpec, ReclaimPolicy, Selector, ServiceAllocation,
};

use crate::world::*;

pub(crate) fn settled(pools: &[PoolSpec]) -> World {
    let mut world = World::open();
    for pool in pools {
        world.apply_pool(pool.clone());
    }
    world.settle();
    world
}

#[test]
fn services_get_the_lowest_free_address_in_the_order_of_the_entries() {
    let mut world = settled(&[pool("p", &["10.0.0.9", "10.0.0.1-10.0.0.2"])]);
    for name in ["a", "b", "c"] {
        world.create_service(name, 0, V4, anything());
        world.settle();
    }
    assert_eq!(
        [world.shown("a"), world.shown("b"), world.shown("c")].concat(),
        ["10.0.0.9", "10.0.0.1", "10.0.0.2"]
    );
    world.delete_service("b");
    world.settle();
    world.create_service("d", 0, V4, anything());
    world.settle();
    assert_eq!(world.shown("d"), ["10.0.0.1"]);
}

#[test]
fn nothing_is_said_before_every_list_is_there() {
    let mut world = World::default();
    world.handle(Input::PoolApplied(pool("p", &["10.0.0.0/24"])));
    world.create_service("a", 0, V4, anything());
    world.deliver(SERVICES);
    for list in [List::Services, List::Pools, List::Namespaces] {
        world.handle(Input::Synced(list));
        assert!(world.jobs.is_empty() && !world.allocator.is_open());
    }
    world.handle(Input::Synced(List::Addresses));
    assert_eq!(world.jobs.len(), 1);
}

#[test]
fn a_pool_that_is_full_says_so_and_a_freed_address_goes_to_the_oldest_who_waits() {
    let mut world = settled(&[pool("p", &["10.0.0.1"])]);
    world.create_service("first", 1, V4, anything());
    world.settle();
    world.create_service("young", 9, V4, anything());
    world.create_service("old", 5, V4, anything());
    world.settle();
    assert_eq!(world.shown("young"), [""; 0]);
    assert!(world.refusal("old").contains("'p' has no free IPv4 address"), "{}", world.refusal("old"));
    world.delete_service("first");
    world.settle();
    assert_eq!(world.shown("old"), ["10.0.0.1"]);
    assert_eq!(world.refusal("old"), "");
    assert_eq!(world.shown("young"), [""; 0]);
}

#[test]
fn an_address_is_not_given_again_before_its_release_is_confirmed() {
    let mut world = settled(&[pool("p", &["10.0.0.1"])]);
    world.create_service("a", 1, V4, anything());
    world.settle();
    world.create_service("b", 2, V4, anything());
    world.settle();
    world.delete_service("a");
    world.deliver(SERVICES);
    assert!(matches!(world.jobs.as_slice(), [Output::Release(_)]), "{:?}", world.jobs);
    world.work(0, Fate::Works);
    assert!(matches!(world.jobs.as_slice(), [Output::Take(_)]), "{:?}", world.jobs);
}

#[test]
fn a_service_that_returns_before_its_release_is_sent_keeps_its_address() {
    let mut world = settled(&[pool("p", &["10.0.0.1"])]);
    world.create_service("a", 1, V4, anything());
    world.settle();
    world.create_service("b", 2, V4, anything());
    world.settle();
    world.toggle_type("a");
    world.toggle_type("a");
    world.settle();
    assert_eq!(world.shown("a"), ["10.0.0.1"]);
    assert_eq!(world.shown("b"), [""; 0]);
}

#[test]
fn a_type_change_frees_the_address_and_back_takes_one_again() {
    let mut world = settled(&[pool("p", &["10.0.0.1"])]);
    world.create_service("a", 1, V4, anything());
    world.settle();
    world.toggle_type("a");
    world.settle();
    assert_eq!((world.shown("a"), world.lbips.len()), (vec![], 0));
    world.toggle_type("a");
    world.settle();
    assert_eq!(world.shown("a"), ["10.0.0.1"]);
}

#[test]
fn a_new_uid_under_an_old_name_does_not_inherit() {
    let mut world = settled(&[pool("p", &["10.0.0.1-10.0.0.2"])]);
    world.create_service("a", 1, V4, anything());
    world.settle();
    world.delete_service("a");
    world.create_service("a", 2, V4, anything());
    world.settle();
    assert_eq!(world.shown("a"), ["10.0.0.2"]);
    assert_eq!(world.lbips.len(), 1);
}

#[test]
fn a_retaining_pool_keeps_the_address_for_the_name() {
    let retaining = PoolSpec { reclaim: ReclaimPolicy::Retain, ..pool("p", &["10.0.0.1-10.0.0.3"]) };
    let mut world = settled(&[retaining]);
    world.create_service("x", 1, V4, anything());
    world.create_service("a", 2, V4, anything());
    world.settle();
    assert_eq!(world.shown("a"), ["10.0.0.2"]);
    world.delete_service("x");
    world.delete_service("a");
    world.settle();
    world.create_service("b", 3, V4, anything());
    world.settle();
    assert_eq!(world.shown("b"), ["10.0.0.3"], "reserved addresses are not given to others");
    world.create_service("a", 4, V4, anything());
    world.settle();
    assert_eq!(world.shown("a"), ["10.0.0.2"]);
    // At once, the release still under way:
    world.delete_service("a");
    world.create_service("a", 5, V4, anything());
    world.settle();
    assert_eq!(world.shown("a"), ["10.0.0.2"]);
}

#[test]
fn explicit_addresses_are_given_or_refused_with_one_clear_reason() {
    let closed = ServiceAllocation { namespaces: vec!["shop".into()], ..Default::default() };
    let mut world = settled(&[
        PoolSpec {
            excluded: vec!["10.0.0.8/30".into()],
            avoid_buggy_ips: true,
            auto_assign: false,
            ..pool("p", &["10.0.0.0/24"])
        },
        PoolSpec { allocation: Some(closed), ..pool("shop", &["10.0.1.0/24"]) },
        pool("q", &["10.0.2.0/24"]),
    ]);
    world.reserve(ip("10.0.0.20"), "other");
    world.settle();
    for (name, wanted, shown, refusal) in [
        ("given", addresses(&["10.0.0.5"]), "10.0.0.5", ""),
        ("given-too", from_pool("p"), "10.0.0.1", ""),
        ("in-use", addresses(&["10.0.0.5"]), "", "10.0.0.5 is in use by default/given; ask for another"),
        ("reserved", addresses(&["10.0.0.20"]), "", "10.0.0.20 is reserved for default/other"),
        (
            "nowhere",
            addresses(&["172.16.0.1"]),
            "",
            "172.16.0.1 lies in no pool (looked at 'p', 'q', 'shop')",
        ),
        ("excluded", addresses(&["10.0.0.9"]), "", "10.0.0.9 is excluded by pool 'p'"),
        ("buggy", addresses(&["10.0.0.255"]), "", "10.0.0.255 ends in .0 or .255"),
        (
            "closed",
            addresses(&["10.0.1.1"]),
            "",
            "lies in pool 'shop', which is restricted to namespaces [shop]",
        ),
        ("closed-too", from_pool("shop"), "", "'shop' is restricted to namespaces [shop]"),
        ("shop/open", addresses(&["10.0.1.1"]), "10.0.1.1", ""),
        (
            "unknown",
            from_pool("r"),
            "",
            "the pool 'r' does not exist; create it, or use one of: 'p', 'q', 'shop'",
        ),
        ("v6", addresses(&["fd00::1"]), "", "fd00::1 is an IPv6 address, but the Service has only IPv4"),
    ] {
        world.create_service(name, 0, V4, wanted);
        world.settle();
        assert_eq!(world.shown(name).join(","), shown, "{name}");
        let said = world.refusal(name);
        assert!(said.contains(refusal) && said.is_empty() == refusal.is_empty(), "{name}: {said}");
    }
    let mut wanted = addresses(&["10.0.0.7"]);
    wanted.pool = from_pool("q").pool;
    world.create_service("disagree", 0, V4, wanted);
    world.settle();
    let said = world.refusal("disagree");
    assert!(said.contains("10.0.0.7 lies in pool 'p', not in 'q'"), "{said}");
}

#[test]
fn automatic_allocation_asks_pools_by_priority_and_says_why_each_said_no() {
    let allocation = |priority, namespace: &str| {
        Some(ServiceAllocation { priority, namespaces: vec![namespace.into()], ..Default::default() })
    };
    let mut world = settled(&[
        pool("a-any", &["10.0.0.1"]),
        PoolSpec { allocation: allocation(0, "default"), ..pool("b-last", &["10.0.1.1"]) },
        PoolSpec { allocation: allocation(20, "default"), ..pool("c-second", &["10.0.2.1"]) },
        PoolSpec { allocation: allocation(10, "default"), ..pool("d-first", &["10.0.3.1"]) },
        PoolSpec { allocation: allocation(1, "shop"), ..pool("e-shop", &["10.0.4.1"]) },
        PoolSpec { auto_assign: false, ..pool("f-manual", &["10.0.5.1"]) },
        pool("g-six", &["fd00::/64"]),
        pool("h-bad", &["10.0.9.1-10.0.8.1"]),
    ]);
    let mut given = Vec::new();
    for name in ["1", "2", "3", "4", "5"] {
        world.create_service(name, 0, V4, anything());
        world.settle();
        given.push(world.shown(name).join(""));
    }
    assert_eq!(given, ["10.0.3.1", "10.0.2.1", "10.0.1.1", "10.0.0.1", ""]);
    let said = world.refusal("5");
    for reason in [
        "no pool gives the IPv4 address: ",
        "'a-any' has no free IPv4 address",
        "'e-shop' is restricted to namespaces [shop]",
        "'f-manual' gives addresses only on request (autoAssign: false)",
        "'g-six' has no IPv4 range",
        "'h-bad' is not valid",
        "name the pool in the annotation heraldlb.io/address-pool",
    ] {
        assert!(said.contains(reason), "{reason} in: {said}");
    }
}

/// A pool for each of many namespaces, and texts list a few pools only.
#[test]
fn the_pools_of_a_waiting_services_own_namespace_are_named_before_those_of_others() {
    let of = |namespace: &str| {
        Some(ServiceAllocation { namespaces: vec![namespace.into()], ..Default::default() })
    };
    let labels = [("tier".to_owned(), "web".to_owned())].into();
    let web = vec![Selector { labels, ..Selector::default() }];
    let mut pools: Vec<_> = (0..20)
        .map(|tenant| {
            let entry = format!("10.1.{tenant}.0/24");
            PoolSpec {
                allocation: of(&format!("tenant-{tenant}")),
                ..pool(&format!("a-{tenant}"), &[entry.as_str()])
            }
        })
        .collect();
    pools.extend([
        PoolSpec {
            allocation: Some(ServiceAllocation { service_selectors: web, ..of("default").unwrap() }),
            ..pool("w-labels", &["10.0.3.1"])
        },
        PoolSpec { auto_assign: false, ..pool("x-manual", &["10.0.1.1"]) },
        pool("y-general", &["10.0.2.1"]),
        PoolSpec { allocation: of("default"), ..pool("z-own", &["10.0.0.1"]) },
    ]);
    let mut world = settled(&pools);
    for name in ["a", "b", "waits"] {
        world.create_service(name, 0, V4, anything());
        world.settle();
    }
    let said = world.refusal("waits");
    let first = "no pool gives the IPv4 address: 'z-own' has no free IPv4 address, 'y-general' has no free IPv4 address, \
                 'x-manual' gives addresses only on request (autoAssign: false), 'w-labels' is restricted to Services \
                 with other labels (serviceSelectors), 'a-0' is restricted to namespaces [tenant-0]";
    assert!(said.starts_with(first), "{said}");
    assert!(said.contains("and 16 more"), "{said}");
}

#[test]
fn dual_stack_services_get_both_from_one_pool() {
    let mut world = settled(&[pool("a", &["10.0.0.0/30"]), pool("b", &["10.1.0.0/30", "fd00::/126"])]);
    world.create_service("single", 0, V4, anything());
    world.create_service("prefer", 1, PREFER, anything());
    world.create_service("require", 2, REQUIRE, anything());
    let six_first = Families { primary: Family::V6, ..REQUIRE };
    world.create_service("six-first", 3, six_first, anything());
    world.create_service("six", 4, V6, anything());
    world.create_service("not-dual", 5, Families { policy: FamilyPolicy::PreferDualStack, ..V4 }, anything());
    world.settle();
    assert_eq!(world.shown("single"), ["10.0.0.0"]);
    assert_eq!(world.shown("prefer"), ["10.1.0.0", "fd00::"]);
    assert_eq!(world.shown("require"), ["10.1.0.1", "fd00::1"]);
    assert_eq!(world.shown("six-first"), ["10.1.0.2", "fd00::2"]);
    assert_eq!(world.shown("six"), ["fd00::3"]);
    assert_eq!(world.shown("not-dual"), ["10.0.0.1"]);
}

/// A pool that is meant for a Service goes before one for everybody, as in MetalLB, whatever families the two have.
#[test]
fn prefer_dual_stack_takes_one_address_of_a_pool_for_its_namespace_before_two_of_a_general_pool() {
    let own = |priority| {
        Some(ServiceAllocation { priority, namespaces: vec!["default".into()], ..Default::default() })
    };
    let general = || pool("a-general", &["10.9.0.0/29", "fd09::/125"]);
    let four = || PoolSpec { allocation: own(1), ..pool("four", &["10.0.0.0"]) };
    let mut world = settled(&[general(), four()]);
    for name in ["a", "b"] {
        world.create_service(name, 0, PREFER, anything());
        world.settle();
    }
    assert_eq!(world.shown("a"), ["10.0.0.0"]);
    assert_eq!(world.shown("b"), ["10.9.0.0", "fd09::"], "its own pool is full");
    world.create_service("both", 1, REQUIRE, anything());
    world.settle();
    assert_eq!(world.shown("both"), ["10.9.0.1", "fd09::1"], "its own pool cannot give both");
    world.apply_pool(PoolSpec { allocation: own(1), ..pool("four", &["10.0.0.0", "fd00::"]) });
    world.settle();
    assert_eq!(world.shown("a"), ["10.0.0.0", "fd00::"], "and has the other family when its pool gets one");

    let mut world = settled(&[
        general(),
        four(),
        PoolSpec { allocation: own(2), ..pool("dual", &["10.2.0.0", "fd02::"]) },
    ]);
    world.create_service("a", 0, PREFER, anything());
    world.settle();
    assert_eq!(world.shown("a"), ["10.2.0.0", "fd02::"], "among its own pools both go before priority");
}

/// An address of a pool without the other family, reserved by name.
#[test]
fn prefer_dual_stack_takes_the_address_that_is_reserved_for_it_before_two_others() {
    let mut world = settled(&[PoolSpec { reclaim: ReclaimPolicy::Retain, ..pool("four", &["10.0.0.0/30"]) }]);
    world.create_service("a", 0, PREFER, anything());
    world.settle();
    world.delete_service("a");
    world.settle();
    world.apply_pool(pool("dual", &["10.9.0.0/30", "fd09::/126"]));
    world.create_service("b", 1, PREFER, anything());
    world.create_service("a", 2, PREFER, anything());
    world.settle();
    assert_eq!(world.shown("b"), ["10.9.0.0", "fd09::"]);
    assert_eq!(world.shown("a"), ["10.0.0.0"]);
}

#[test]
fn prefer_dual_stack_adds_the_second_address_later_and_never_touches_the_first() {
    let mut world = settled(&[pool("a", &["10.0.0.0/30"])]);
    world.create_service("prefer", 1, PREFER, anything());
    world.create_service("require", 2, REQUIRE, anything());
    world.settle();
    assert_eq!(
        (world.shown("prefer"), world.refusal("prefer")),
        (vec!["10.0.0.0".to_owned()], String::new())
    );
    assert_eq!(world.shown("require"), [""; 0]);
    assert!(world.refusal("require").contains("'a' has no IPv6 range"), "{}", world.refusal("require"));
    world.apply_pool(pool("a", &["10.0.0.0/30", "fd00::1"]));
    world.settle();
    assert_eq!(world.shown("prefer"), ["10.0.0.0", "fd00::1"]);
    world.apply_pool(pool("a", &["10.0.0.0/30"]));
    world.settle();
    assert_eq!(world.shown("prefer"), ["10.0.0.0", "fd00::1"], "a pool that loses a family takes nothing");
    assert!(
        world.refusal("prefer").contains("fd00::1 is not in pool 'a' any more"),
        "{}",
        world.refusal("prefer")
    );
    world.apply_pool(pool("a", &["10.0.0.0/30", "fd00::1-fd00::2"]));
    world.settle();
    assert_eq!(world.shown("require"), ["10.0.0.1", "fd00::2"]);
}

#[test]
fn one_requested_address_is_completed_from_its_pool() {
    let mut world = settled(&[pool("a", &["10.0.0.0/30"]), pool("b", &["10.1.0.0/30", "fd00::/126"])]);
    world.create_service("four", 1, PREFER, addresses(&["10.1.0.3"]));
    world.create_service("six", 2, REQUIRE, addresses(&["fd00::3"]));
    world.create_service("lone", 3, PREFER, addresses(&["10.0.0.2"]));
    world.create_service("both", 4, REQUIRE, addresses(&["10.1.0.2", "fd00::2"]));
    world.create_service("torn", 5, REQUIRE, addresses(&["10.0.0.1", "fd00::1"]));
    world.settle();
    assert_eq!(world.shown("four"), ["10.1.0.3", "fd00::"]);
    assert_eq!(world.shown("six"), ["10.1.0.0", "fd00::3"]);
    assert_eq!(world.shown("lone"), ["10.0.0.2"]);
    assert_eq!(world.shown("both"), ["10.1.0.2", "fd00::2"]);
    let said = world.refusal("torn");
    assert!(said.contains("10.0.0.1 lies in pool 'a' and fd00::1 in pool 'b'"), "{said}");
}

#[test]
fn a_service_that_becomes_single_stack_gives_the_second_address_back() {
    let mut world = settled(&[pool("a", &["10.0.0.0/30", "fd00::/126"])]);
    world.create_service("a", 1, REQUIRE, anything());
    world.settle();
    world.ask("a", V4, anything());
    world.settle();
    assert_eq!(world.shown("a"), ["10.0.0.0"]);
    assert_eq!(world.lbips.len(), 1);
}

#[test]
fn a_different_request_moves_and_the_old_address_is_free_only_after_the_new_is_shown() {
    let mut world = settled(&[pool("p", &["10.0.0.1-10.0.0.9"])]);
    world.create_service("a", 1, V4, anything());
    world.settle();
    world.ask("a", V4, addresses(&["10.0.0.7"]));
    world.deliver(SERVICES);
    assert!(matches!(world.jobs.as_slice(), [Output::Take(_)]), "{:?}", world.jobs);
    world.work(0, Fate::Works);
    assert!(matches!(world.jobs.as_slice(), [Output::Publish(_)]), "{:?}", world.jobs);
    world.work(0, Fate::Works);
    assert!(matches!(world.jobs.as_slice(), [Output::Release(_)]), "{:?}", world.jobs);
    world.settle();
    assert_eq!((world.shown("a"), world.lbips.len()), (vec!["10.0.0.7".to_owned()], 1));
}

#[test]
fn a_request_that_cannot_be_met_keeps_what_the_service_has_and_says_so() {
    let mut world = settled(&[pool("p", &["10.0.0.1-10.0.0.9"])]);
    world.create_service("a", 1, V4, anything());
    world.create_service("b", 2, V4, anything());
    world.settle();
    world.ask("a", V4, addresses(&["10.0.0.2"]));
    world.settle();
    assert_eq!(world.shown("a"), ["10.0.0.1"]);
    assert!(world.refusal("a").contains("in use by default/b"), "{}", world.refusal("a"));
    world.ask("a", V4, from_pool("nothing"));
    world.settle();
    assert_eq!(world.shown("a"), ["10.0.0.1"]);
    world.ask("a", V4, addresses(&["10.0.0.2"]));
    world.delete_service("b");
    world.settle();
    assert_eq!(world.shown("a"), ["10.0.0.2"], "it follows when the address comes free");
}

#[test]
fn a_pool_that_shrinks_or_goes_keeps_its_users_and_tells_them() {
    let mut world = settled(&[pool("p", &["10.0.0.1-10.0.0.9"])]);
    world.create_service("a", 1, V4, anything());
    world.create_service("b", 2, V4, anything());
    world.settle();
    world.apply_pool(pool("p", &["10.0.0.2-10.0.0.9"]));
    world.settle();
    let status = &world.statuses[&from_pool("p").pool.unwrap()];
    assert_eq!(status.stranded, [(ip("10.0.0.1"), service("a"))]);
    assert_eq!((status.counts.assigned_v4, status.counts.available_v4), (1, 7));
    assert!(world.refusal("a").contains("10.0.0.1 is not in pool 'p' any more"), "{}", world.refusal("a"));
    world.delete_pool("p");
    world.settle();
    world.restart(|_| false);
    world.settle();
    assert_eq!([world.shown("a"), world.shown("b")].concat(), ["10.0.0.1", "10.0.0.2"]);
    world.apply_pool(pool("p", &["10.0.0.1-10.0.0.9"]));
    world.settle();
    assert_eq!(world.refusal("a"), "");
    world.delete_service("a");
    world.create_service("c", 3, V4, anything());
    world.settle();
    assert_eq!(world.statuses[&from_pool("p").pool.unwrap()].counts.assigned_v4, 2);
}

#[test]
fn a_restart_at_any_moment_changes_nobodys_address() {
    for moment in 0..12 {
        let mut world = settled(&[pool("p", &["10.0.0.1-10.0.0.9", "fd00::1-fd00::9"])]);
        world.create_service("a", 5, PREFER, anything());
        world.settle();
        world.create_service("b", 1, V4, anything());
        world.ask("a", PREFER, addresses(&["10.0.0.5"]));
        for _ in 0..moment {
            world.deliver(SERVICES);
            world.work(0, Fate::Works);
        }
        world.restart(|job| job % 2 == 0);
        world.settle();
        assert_eq!(world.shown("a")[1], "fd00::1", "{}", world.story());
        assert_eq!(world.shown("a")[0], "10.0.0.5");
        assert_eq!(world.lbips.len(), 3, "{}", world.story());
    }
}

#[test]
fn a_service_that_is_being_deleted_keeps_its_address_and_gets_no_other() {
    let mut world = settled(&[pool("p", &["10.0.0.1"]), pool("q", &["10.0.1.1"])]);
    for name in ["has", "waits"] {
        world.create_service(name, 0, V4, from_pool("p"));
        world.settle();
        world.services.get_mut(&service(name)).unwrap().request.terminating = true;
    }
    world.ask("has", V4, from_pool("q"));
    world.ask("waits", V4, from_pool("q"));
    world.settle();
    assert_eq!((world.shown("has"), world.shown("waits")), (vec!["10.0.0.1".to_owned()], vec![]));
    assert!(world.refusal("waits").contains("is being deleted"), "{}", world.refusal("waits"));
    world.delete_service("has");
    world.settle();
    assert_eq!(world.lbips.len(), 0);
}

#[test]
fn a_service_created_again_stands_behind_those_who_wait_already() {
    let mut world = settled(&[pool("p", &["10.0.0.1"])]);
    world.create_service("a", 1, V4, anything());
    world.settle();
    world.create_service("b", 2, V4, anything());
    world.settle();
    world.delete_service("a");
    world.create_service("a", 3, V4, anything());
    world.settle();
    assert_eq!((world.shown("b"), world.shown("a")), (vec!["10.0.0.1".to_owned()], vec![]));
}

#[test]
fn what_is_shown_and_requested_comes_before_what_is_only_requested() {
    let mut world = World::open();
    world.apply_pool(pool("p", &["10.0.0.1-10.0.0.9"]));
    world.create_service("old", 1, V4, addresses(&["10.0.0.5"]));
    world.create_service("shows", 2, V4, addresses(&["10.0.0.5"]));
    world.write_status_by_hand("shows", vec![ip("10.0.0.5")]);
    world.restart(|_| false);
    world.settle();
    assert_eq!((world.shown("shows"), world.shown("old")), (vec!["10.0.0.5".to_owned()], vec![]));
}

#[test]
fn who_waits_for_a_release_only_is_not_told_of_a_failure() {
    let mut world = settled(&[pool("p", &["10.0.0.1-10.0.0.9"])]);
    world.create_service("a", 1, V4, addresses(&["10.0.0.5"]));
    world.settle();
    world.delete_service("a");
    world.create_service("a", 2, V4, addresses(&["10.0.0.5"]));
    world.deliver(SERVICES);
    world.deliver(SERVICES);
    assert!(matches!(world.jobs.as_slice(), [Output::Release(_)]), "{:?}", world.jobs);
    world.work(0, Fate::Refused);
    assert!(
        matches!(world.jobs.as_slice(), [Output::Publish(_)]),
        "a release that fails is told: {:?}",
        world.jobs
    );
    world.settle();
    assert_eq!(world.shown("a"), ["10.0.0.5"]);
}

#[test]
fn a_status_write_under_way_is_waited_for_over_a_type_change() {
    let mut world = settled(&[]);
    world.create_service("a", 1, V4, anything());
    world.deliver(SERVICES);
    assert!(matches!(world.jobs.as_slice(), [Output::Publish(_)]), "{:?}", world.jobs);
    world.toggle_type("a");
    world.toggle_type("a");
    world.deliver(SERVICES);
    world.deliver(SERVICES);
    assert_eq!(world.jobs.len(), 1, "one write per Service: {:?}", world.jobs);
    world.settle();
    assert!(world.refusal("a").contains("there is no IPAddressPool"), "{}", world.refusal("a"));
}
