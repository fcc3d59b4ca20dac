//! Sharing and limits, one scenario each: COMPAT 4.4, rules B4, B5, B15 and B16, `limitPerNamespace`.

use herald_ipam::{
    Claim, Input, Output, PoolSpec, ReclaimPolicy, ServiceAllocation, SharingKey, SharingPreference,
    SharingScope, TakeHow,
};

use crate::scenarios::settled;
use crate::world::*;

fn preferring(spec: PoolSpec) -> PoolSpec {
    PoolSpec { sharing: SharingPreference::Prefer, ..spec }
}

fn open(spec: PoolSpec) -> PoolSpec {
    PoolSpec { sharing_scope: SharingScope::Cluster, ..spec }
}

fn limited(limit: u32, spec: PoolSpec) -> PoolSpec {
    PoolSpec { limit_per_namespace: Some(limit), ..spec }
}

fn retaining(spec: PoolSpec) -> PoolSpec {
    PoolSpec { reclaim: ReclaimPolicy::Retain, ..spec }
}

/// Whom the LoadBalancerIP lists, in order.
fn users(world: &World, address: &str) -> Vec<String> {
    let record = world.lbips.get(&ip(address));
    record.into_iter().flat_map(|it| &it.services).map(|owner| owner.service.to_string()).collect()
}

fn key(world: &World, address: &str) -> Option<String> {
    world.lbips[&ip(address)].sharing.as_ref().map(|terms| {
        let namespace = terms.namespace.as_deref().unwrap_or("*");
        format!("{namespace}:{}", terms.key)
    })
}

#[test]
fn who_names_an_address_joins_it_or_is_told_what_is_in_the_way() {
    let mut world = settled(&[pool("p", &["10.0.0.0/24"]), open(pool("o", &["10.1.0.0/24"]))]);
    let at = |key: &str, address: &str| sharing(key, addresses(&[address]));
    for (name, wanted, exposes, shown, refusal) in [
        ("web", at("k", "10.0.0.5"), exposure(&[80]), "10.0.0.5", ""),
        ("tls", at("k", "10.0.0.5"), exposure(&[443]), "10.0.0.5", ""),
        (
            "clash",
            at("k", "10.0.0.5"),
            exposure(&[8080, 443]),
            "",
            "is shared by default/tls, but both use port TCP 443",
        ),
        ("other", at("l", "10.0.0.5"), exposure(&[22]), "", "but the key there is 'k'"),
        (
            "keyless",
            addresses(&["10.0.0.5"]),
            exposure(&[22]),
            "",
            "in use by default/web, default/tls; ask for",
        ),
        ("far/off", at("k", "10.0.0.5"), exposure(&[22]), "", "the two are of different namespaces"),
        ("far/key", at("l", "10.0.0.5"), exposure(&[22]), "", "the two are of different namespaces"),
        ("local", at("k", "10.0.0.5"), local(&[22], "ssh"), "", "externalTrafficPolicy: Local"),
        ("alone", addresses(&["10.0.0.6"]), exposure(&[80]), "10.0.0.6", ""),
        ("shy", at("k", "10.0.0.6"), exposure(&[443]), "", "in use by default/alone; ask for"),
        ("l1", at("k", "10.0.0.7"), local(&[80], "a"), "10.0.0.7", ""),
        ("l2", at("k", "10.0.0.7"), local(&[81], "a"), "10.0.0.7", ""),
        ("l3", at("k", "10.0.0.7"), local(&[82], "b"), "", "externalTrafficPolicy: Local"),
        ("a/x", at("k", "10.1.0.1"), exposure(&[80]), "10.1.0.1", ""),
        ("b/y", at("k", "10.1.0.1"), exposure(&[81]), "10.1.0.1", ""),
        (
            "d/w",
            at("l", "10.1.0.1"),
            exposure(&[83]),
            "",
            "the key there (annotation allow-shared-ip) is another",
        ),
        ("c/z", at("k", "10.1.0.1"), exposure(&[81]), "", "is shared by b/y, but both use port TCP 81"),
    ] {
        world.create_exposing(name, 0, V4, wanted, exposes);
        world.settle();
        assert_eq!(world.shown(name).join(","), shown, "{name}");
        let said = world.refusal(name);
        assert!(said.contains(refusal) && said.is_empty() == refusal.is_empty(), "{name}: {said}");
    }
    assert_eq!(users(&world, "10.0.0.5"), ["default/web", "default/tls"]);
    assert_eq!(key(&world, "10.0.0.5").as_deref(), Some("default:k"));
    assert_eq!(key(&world, "10.1.0.1").as_deref(), Some("*:k"));
    assert_eq!(key(&world, "10.0.0.6"), None);
}

#[test]
fn a_free_address_comes_first_and_a_shared_one_when_there_is_none() {
    let mut world = settled(&[pool("p", &["10.0.0.1-10.0.0.2"])]);
    for (name, port) in [("a", 80), ("b", 80), ("c", 443), ("d", 443), ("e", 80)] {
        world.create_exposing(name, 0, V4, sharing("k", anything()), exposure(&[port]));
        world.settle();
    }
    assert_eq!([world.shown("a"), world.shown("b")].concat(), ["10.0.0.1", "10.0.0.2"]);
    assert_eq!([world.shown("c"), world.shown("d")].concat(), ["10.0.0.1", "10.0.0.2"]);
    let said = world.refusal("e");
    let wanted =
        "'p' has no free IPv4 address, and 10.0.0.1 is shared by default/a, but both use port TCP 80";
    assert!(said.contains(wanted), "{said}");
    world.expose("a", exposure(&[8080]));
    world.settle();
    assert_eq!(world.shown("e"), ["10.0.0.1"], "it joins when a port comes free");
    // All pools are asked for a free one before anything is shared.
    world.apply_pool(pool("q", &["10.1.0.1"]));
    world.create_exposing("f", 0, V4, sharing("k", anything()), exposure(&[22]));
    world.settle();
    assert_eq!(world.shown("f"), ["10.1.0.1"]);
}

#[test]
fn a_pool_may_prefer_sharing() {
    let mut world = settled(&[preferring(pool("p", &["10.0.0.1-10.0.0.9"]))]);
    for (name, wanted, port) in [
        ("a", sharing("k", anything()), 80),
        ("b", sharing("k", anything()), 443),
        ("c", sharing("k", anything()), 80),
        ("d", sharing("l", anything()), 22),
        ("e", anything(), 23),
    ] {
        world.create_exposing(name, 0, V4, wanted, exposure(&[port]));
        world.settle();
    }
    let shown: Vec<_> = ["a", "b", "c", "d", "e"].into_iter().flat_map(|name| world.shown(name)).collect();
    assert_eq!(shown, ["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]);
}

#[test]
fn a_joiner_waits_for_the_write_under_way_and_joins_those_it_was_asked_about() {
    let mut world = settled(&[pool("p", &["10.0.0.1"])]);
    world.create_exposing("a", 0, V4, sharing("k", anything()), exposure(&[80]));
    world.create_exposing("b", 1, V4, sharing("k", anything()), exposure(&[443]));
    world.deliver(SERVICES);
    world.deliver(SERVICES);
    assert_eq!(world.jobs.len(), 1, "one write at a time: {:?}", world.jobs);
    world.work(0, Fate::Works);
    let join = world.jobs.iter().find_map(|job| match job {
        Output::Take(take) => Some((take.owner.service.to_string(), take.how.clone())),
        _ => None,
    });
    let Some((joiner, TakeHow::Join { beside })) = join else { panic!("{:?}", world.jobs) };
    assert_eq!((joiner.as_str(), beside.len()), ("default/b", 1));
    world.settle();
    assert_eq!(users(&world, "10.0.0.1"), ["default/a", "default/b"]);
}

#[test]
fn who_leaves_a_shared_address_leaves_it_to_the_others_and_the_last_one_frees_it() {
    let mut world = settled(&[pool("p", &["10.0.0.1"])]);
    for (name, port) in [("a", 80), ("b", 443), ("c", 22)] {
        world.create_exposing(name, 0, V4, sharing("k", anything()), exposure(&[port]));
    }
    world.create_service("waits", 9, V4, anything());
    world.settle();
    assert_eq!(users(&world, "10.0.0.1").len(), 3);
    world.delete_service("a");
    world.settle();
    assert_eq!(users(&world, "10.0.0.1"), ["default/b", "default/c"]);
    assert_eq!([world.shown("b"), world.shown("c"), world.shown("waits")].concat(), ["10.0.0.1"; 2]);
    // The last one leaves while another joins: the other's write comes first (rule B5).
    world.delete_service("b");
    world.settle();
    world.create_exposing("d", 10, V4, sharing("k", anything()), exposure(&[53]));
    world.deliver(SERVICES);
    world.delete_service("c");
    world.settle();
    assert_eq!(users(&world, "10.0.0.1"), ["default/d"]);
    world.delete_service("d");
    world.settle();
    assert_eq!(users(&world, "10.0.0.1"), ["default/waits"]);
    assert_eq!(key(&world, "10.0.0.1"), None);
}

#[test]
fn a_sole_user_may_change_its_key_in_place_and_one_who_shares_keeps_the_address_and_is_told() {
    let mut world = settled(&[pool("p", &["10.0.0.1"])]);
    world.create_exposing("a", 0, V4, sharing("k", anything()), exposure(&[80]));
    world.settle();
    world.ask("a", V4, sharing("l", anything()));
    world.settle();
    assert_eq!((world.shown("a"), world.refusal("a")), (vec!["10.0.0.1".to_owned()], String::new()));
    world.create_exposing("b", 1, V4, sharing("l", anything()), exposure(&[443]));
    world.settle();
    assert_eq!(world.shown("b"), ["10.0.0.1"]);
    for other in [sharing("m", anything()), anything()] {
        world.ask("b", V4, other);
        world.settle();
        assert_eq!(world.shown("b"), ["10.0.0.1"], "it keeps it");
        let said = world.refusal("b");
        assert!(said.contains("10.0.0.1 is shared with default/a, though the key there is 'l'"), "{said}");
        assert_eq!(world.refusal("a"), "", "nothing is wrong with the one that did not change");
    }
    world.restart(|_| true);
    world.settle();
    assert_eq!(
        [world.shown("a"), world.shown("b")].concat(),
        ["10.0.0.1"; 2],
        "nor does a restart part them"
    );
    assert!(world.refusal("b").contains("though the key there is 'l'"), "{}", world.refusal("b"));
    world.ask("b", V4, sharing("l", anything()));
    world.expose("b", exposure(&[80]));
    world.settle();
    for (name, with) in [("a", "b"), ("b", "a")] {
        let wanted = format!("10.0.0.1 is shared with default/{with}, though both use port TCP 80");
        assert!(world.refusal(name).contains(&wanted), "{}", world.refusal(name));
    }
    world.delete_service("a");
    world.settle();
    assert_eq!((world.shown("b"), world.refusal("b")), (vec!["10.0.0.1".to_owned()], String::new()));
}

#[test]
fn who_shares_is_told_when_nobody_names_a_key_any_more_and_who_is_left_alone_that_nothing_is_wrong() {
    let mut world = settled(&[pool("p", &["10.0.0.1"])]);
    world.create_exposing("a", 0, V4, sharing("k", anything()), exposure(&[80]));
    world.create_exposing("b", 1, V4, sharing("k", anything()), exposure(&[443]));
    world.settle();
    let said = |world: &World| ["a", "b"].map(|name| world.refusal(name));
    world.ask("a", V4, anything());
    world.settle();
    assert!(said(&world)[0].contains("though the key there is 'k'"), "{:?}", said(&world));
    world.ask("b", V4, anything());
    world.settle();
    for restarted in [false, true] {
        for (with, said) in ["b", "a"].into_iter().zip(said(&world)) {
            let wanted = format!("10.0.0.1 is shared with default/{with}, though no key is named there");
            assert!(said.contains(&wanted), "after a restart: {restarted}: {said}");
        }
        world.restart(|_| true);
        world.settle();
    }
    world.delete_service("b");
    world.settle();
    assert_eq!(world.refusal("a"), "", "nobody shares with it");
}

#[test]
fn dual_stack_services_share_both_families_and_the_second_is_added_by_sharing() {
    let mut world = settled(&[pool("p", &["10.0.0.1", "fd00::1"])]);
    world.create_exposing("a", 0, REQUIRE, sharing("k", anything()), exposure(&[80]));
    world.create_exposing("b", 1, REQUIRE, sharing("k", anything()), exposure(&[443]));
    world.create_exposing("c", 2, PREFER, sharing("k", addresses(&["fd00::1"])), exposure(&[22]));
    world.settle();
    for name in ["a", "b", "c"] {
        assert_eq!(world.shown(name), ["10.0.0.1", "fd00::1"], "{name}");
    }
    world.create_exposing("d", 3, REQUIRE, sharing("k", anything()), exposure(&[80]));
    world.settle();
    assert_eq!(world.shown("d"), [""; 0], "both or nothing");
}

#[test]
fn who_waits_to_share_joins_when_something_changes_among_the_sharers() {
    let mut world = settled(&[pool("p", &["10.0.0.1", "fd00::1"]), pool("q", &["10.1.0.1"])]);
    world.create_exposing("a", 0, REQUIRE, sharing("k", from_pool("p")), exposure(&[80]));
    world.create_exposing("b", 1, V4, sharing("k", from_pool("q")), exposure(&[80]));
    world.settle();
    world.create_exposing("named", 2, V4, sharing("k", from_pool("p")), exposure(&[80, 8080]));
    world.create_exposing("any", 3, V6, sharing("k", anything()), exposure(&[80]));
    world.settle();
    for name in ["named", "any"] {
        assert!(world.refusal(name).contains("both use port TCP 80"), "{}", world.refusal(name));
    }
    world.expose("a", exposure(&[443]));
    world.settle();
    assert_eq!(world.shown("named"), ["10.0.0.1"]);
    assert_eq!(world.shown("any"), ["fd00::1"]);
    // Another key at first, then the same.
    world.create_exposing("other", 4, V4, sharing("l", anything()), exposure(&[22]));
    world.settle();
    assert_eq!(world.shown("other"), [""; 0]);
    world.ask("other", V4, sharing("k", anything()));
    world.settle();
    assert_eq!(world.shown("other"), ["10.0.0.1"]);
}

#[test]
fn a_joiner_that_goes_and_returns_before_its_write_shows_nothing_yet() {
    let mut world = settled(&[pool("p", &["10.0.0.1"])]);
    world.create_exposing("a", 0, V4, sharing("k", anything()), exposure(&[80]));
    world.create_exposing("b", 1, V4, sharing("k", anything()), exposure(&[443]));
    world.deliver(SERVICES);
    world.deliver(SERVICES);
    world.toggle_type("b");
    world.deliver(SERVICES);
    world.toggle_type("b");
    world.deliver(SERVICES);
    assert!(matches!(world.jobs.as_slice(), [Output::Take(_)]), "{:?}", world.jobs);
    world.settle();
    assert_eq!(users(&world, "10.0.0.1"), ["default/a", "default/b"]);
    assert_eq!([world.shown("a"), world.shown("b")].concat(), ["10.0.0.1"; 2]);
}

#[test]
fn a_retained_shared_address_waits_for_the_key() {
    let mut world = settled(&[retaining(pool("p", &["10.0.0.1-10.0.0.2"]))]);
    world.create_exposing("a", 0, V4, sharing("k", anything()), exposure(&[80]));
    world.settle();
    world.delete_service("a");
    world.settle();
    let claim = Claim::Key { namespace: "default".into(), key: SharingKey::new("k") };
    assert_eq!(world.lbips[&ip("10.0.0.1")].claim, Some(claim));
    world.create_exposing("b", 1, V4, anything(), exposure(&[80]));
    world.create_exposing("else/c", 2, V4, sharing("k", anything()), exposure(&[443]));
    world.settle();
    assert_eq!(world.shown("b"), ["10.0.0.2"]);
    assert_eq!(world.shown("else/c"), [""; 0], "another namespace's key is another key");
    world.create_exposing("d", 3, V4, sharing("k", anything()), exposure(&[443]));
    world.create_exposing("e", 4, V4, sharing("k", anything()), exposure(&[22]));
    world.settle();
    assert_eq!(users(&world, "10.0.0.1"), ["default/d", "default/e"]);
}

#[test]
fn a_reservation_for_a_key_is_shared_by_its_services_before_free_addresses_are_taken() {
    let mut world = settled(&[PoolSpec { auto_assign: false, ..pool("p", &["10.0.0.0/24"]) }]);
    world.create_exposing("early", 0, V4, sharing("front", anything()), exposure(&[80]));
    world.settle();
    assert!(world.refusal("early").contains("only on request"), "{}", world.refusal("early"));
    world.reserve_for(
        ip("10.0.0.77"),
        Claim::Key { namespace: "default".into(), key: SharingKey::new("front") },
    );
    world.settle();
    world.create_exposing("late", 1, V4, sharing("front", anything()), exposure(&[443]));
    world.create_exposing("other", 2, V4, sharing("back", addresses(&["10.0.0.77"])), exposure(&[22]));
    world.settle();
    assert_eq!(users(&world, "10.0.0.77"), ["default/early", "default/late"]);
    assert_eq!(world.shown("other"), [""; 0]);
    world.reserve(ip("10.0.0.78"), "named");
    world.create_exposing("named", 3, V4, sharing("k", anything()), exposure(&[80]));
    world.create_exposing("joins", 4, V4, sharing("k", addresses(&["10.0.0.78"])), exposure(&[81]));
    world.settle();
    assert_eq!(users(&world, "10.0.0.78"), ["default/named"], "reserved for one is not shared");
}

#[test]
fn a_key_that_an_address_is_reserved_for_is_told_to_its_own_namespace_only() {
    let open = PoolSpec { sharing_scope: SharingScope::Cluster, ..pool("p", &["10.0.0.0/24"]) };
    let mut world = settled(&[open]);
    let claim = Claim::Key { namespace: "default".into(), key: SharingKey::new("secret") };
    world.reserve_for(ip("10.0.0.77"), claim);
    for name in ["mine", "else/theirs"] {
        world.create_exposing(name, 0, V4, addresses(&["10.0.0.77"]), exposure(&[80]));
    }
    world.settle();
    let (mine, theirs) = (world.refusal("mine"), world.refusal("else/theirs"));
    assert!(mine.contains("reserved for Services of namespace default with the key 'secret'"), "{mine}");
    assert!(theirs.contains("reserved for Services of namespace default ("), "{theirs}");
    assert!(!theirs.contains("secret"), "{theirs}");
}

#[test]
fn services_written_into_a_record_by_hand_do_not_get_what_they_could_not_share() {
    let mut world = settled(&[pool("p", &["10.0.0.1-10.0.0.2"])]);
    world.create_exposing("a", 0, V4, anything(), exposure(&[80]));
    world.create_exposing("b", 1, V4, anything(), exposure(&[80]));
    world.create_exposing("none", 2, V4, anything(), exposure(&[80]));
    world.settle();
    let thief = world.services[&service("none")].request.owner.clone();
    world.edit_lbip(ip("10.0.0.1"), |record| record.services.push(thief.clone()));
    world.settle();
    assert_eq!((world.shown("none"), users(&world, "10.0.0.1")), (vec![], vec!["default/a".to_owned()]));
    world.edit_lbip(ip("10.0.0.1"), |record| record.services.insert(0, thief.clone()));
    world.restart(|_| true);
    world.settle();
    assert_eq!((world.shown("none"), users(&world, "10.0.0.1")), (vec![], vec!["default/a".to_owned()]));
}

#[test]
fn a_deleted_record_of_a_shared_address_is_made_again_for_all() {
    let mut world = settled(&[pool("p", &["10.0.0.1"])]);
    for (name, port) in [("a", 80), ("b", 443)] {
        world.create_exposing(name, 0, V4, sharing("k", anything()), exposure(&[port]));
    }
    world.settle();
    world.delete_lbip(ip("10.0.0.1"));
    world.settle();
    assert_eq!(users(&world, "10.0.0.1"), ["default/a", "default/b"]);
    let b = world.services[&service("b")].request.owner.clone();
    world.edit_lbip(ip("10.0.0.1"), |record| record.services.retain(|it| *it != b));
    world.settle();
    assert_eq!(users(&world, "10.0.0.1"), ["default/a", "default/b"]);
}

#[test]
fn a_record_deleted_while_somebody_joins_who_is_gone_already_is_made_again() {
    let mut world = settled(&[pool("p", &["10.0.0.1"])]);
    world.create_exposing("a", 0, V4, sharing("k", anything()), exposure(&[80]));
    world.settle();
    world.create_exposing("b", 1, V4, sharing("k", anything()), exposure(&[443]));
    world.deliver(SERVICES);
    assert!(matches!(world.jobs.as_slice(), [Output::Take(_)]), "{:?}", world.jobs);
    // The join finds nothing and creates it anew, for a Service that nobody needs it for any more.
    world.delete_lbip(ip("10.0.0.1"));
    world.delete_service("b");
    world.deliver(SERVICES);
    world.deliver(ADDRESSES);
    world.settle();
    assert_eq!(
        (world.shown("a"), users(&world, "10.0.0.1")),
        (vec!["10.0.0.1".into()], vec!["default/a".into()])
    );
}

#[test]
fn two_who_show_one_address_without_a_record_are_adopted_together_if_they_may_share() {
    let mut world = World::open();
    world.apply_pool(pool("p", &["10.0.0.1-10.0.0.9"]));
    for (name, key, port) in [("a", "k", 80), ("b", "k", 443), ("c", "k", 80), ("d", "l", 22)] {
        world.create_exposing(name, 0, V4, sharing(key, anything()), exposure(&[port]));
        world.write_status_by_hand(name, vec![ip("10.0.0.5")]);
    }
    world.restart(|_| false);
    world.settle();
    assert_eq!(users(&world, "10.0.0.5"), ["default/a", "default/b"]);
    assert!(world.refusal("c").contains("both use port TCP 80"), "{}", world.refusal("c"));
    assert!(world.refusal("d").contains("the key there is 'k'"), "{}", world.refusal("d"));
}

#[test]
fn a_namespace_gets_no_more_addresses_of_a_pool_than_its_limit() {
    let mut world = settled(&[limited(2, pool("p", &["10.0.0.0/24", "fd00::/120"]))]);
    for (name, families) in
        [("x/a", V4), ("x/b", REQUIRE), ("x/c", V4), ("y/d", V4), ("x/e", V6), ("x/f", PREFER)]
    {
        world.create_service(name, 0, families, anything());
        world.settle();
    }
    assert_eq!(world.shown("x/a"), ["10.0.0.0"]);
    assert_eq!(world.shown("x/b"), ["10.0.0.1", "fd00::"]);
    let said = world.refusal("x/c");
    let wanted = "'p' gives a namespace at most 2 IPv4 addresses (limitPerNamespace), which x has";
    assert!(world.shown("x/c").is_empty() && said.contains(wanted), "{said}");
    assert!(
        said.contains("delete a Service of the namespace or raise the pool's limitPerNamespace"),
        "{said}"
    );
    assert_eq!(world.shown("y/d"), ["10.0.0.2"], "another namespace has a limit of its own");
    assert_eq!(world.shown("x/e"), ["fd00::1"], "each family has a limit of its own");
    assert_eq!(world.shown("x/f"), [""; 0]);
    world.delete_service("x/a");
    world.settle();
    assert_eq!(world.shown("x/c"), ["10.0.0.0"], "the oldest that waits is served when one goes");
    world.create_service("x/named", 9, V4, addresses(&["10.0.0.9"]));
    world.settle();
    assert!(world.refusal("x/named").contains("at most 2 IPv4"), "{}", world.refusal("x/named"));
    world.create_service("x/shows", 10, V4, from_pool("p"));
    world.write_status_by_hand("x/shows", vec![ip("10.0.0.8")]);
    world.settle();
    assert!(!world.lbips.contains_key(&ip("10.0.0.8")), "a status is no way around the limit");
    world.delete_service("x/shows");
    world.settle();
    world.apply_pool(limited(1, pool("p", &["10.0.0.0/24", "fd00::/120"])));
    world.settle();
    assert_eq!([world.shown("x/b"), world.shown("x/c")].concat().len(), 3, "nobody loses an address");
    world.apply_pool(pool("p", &["10.0.0.0/24", "fd00::/120"]));
    world.settle();
    assert_eq!(world.shown("x/named"), ["10.0.0.9"]);
}

#[test]
fn a_move_inside_the_pool_is_not_stopped_by_the_limit() {
    let mut world = settled(&[limited(1, pool("p", &["10.0.0.0/24"]))]);
    world.create_service("x/a", 0, V4, anything());
    world.create_service("x/b", 1, V4, anything());
    world.settle();
    world.ask("x/a", V4, addresses(&["10.0.0.9"]));
    world.settle();
    assert_eq!((world.shown("x/a"), world.shown("x/b")), (vec!["10.0.0.9".to_owned()], Vec::new()));
    let said = world.refusal("x/b");
    assert!(said.contains("at most 1 IPv4"), "{said}");
}

#[test]
fn a_refused_release_is_repeated_at_retry_whoever_stopped_waiting_behind_it() {
    let mut world = settled(&[pool("p", &["10.0.0.1-10.0.0.9"])]);
    let at = |address| sharing("k", addresses(&[address]));
    world.create_exposing("a", 1, V4, at("10.0.0.1"), exposure(&[80]));
    world.create_exposing("c", 2, V4, at("10.0.0.1"), exposure(&[81]));
    world.settle();
    let tell = |world: &mut World| (0..9).for_each(|_| world.deliver(SERVICES));
    world.ask("a", V4, at("10.0.0.2"));
    tell(&mut world);
    world.work(0, Fate::Works);
    world.work(0, Fate::Works);
    tell(&mut world);
    assert!(matches!(world.jobs.as_slice(), [Output::Release(_)]), "{:?}", world.jobs);
    world.work(0, Fate::Refused);
    world.create_exposing("b", 3, V4, at("10.0.0.1"), exposure(&[82]));
    tell(&mut world);
    world.ask("b", V4, addresses(&["10.0.0.5"]));
    tell(&mut world);
    let work = |world: &mut World| {
        while !world.jobs.is_empty() {
            world.work(0, Fate::Works);
        }
    };
    work(&mut world);
    assert_eq!(users(&world, "10.0.0.1"), ["default/a", "default/c"], "not at once: {}", world.story());
    world.handle(Input::Retry);
    work(&mut world);
    assert_eq!(users(&world, "10.0.0.1"), ["default/c"], "{}", world.story());
}

#[test]
fn a_shared_address_counts_once_and_a_reservation_counts() {
    let spec = preferring(open(retaining(limited(1, pool("p", &["10.0.0.1-10.0.0.9"])))));
    let mut world = settled(&[spec]);
    world.create_exposing("x/a", 0, V4, sharing("k", anything()), exposure(&[80]));
    world.create_exposing("x/b", 1, V4, sharing("k", anything()), exposure(&[443]));
    world.create_exposing("y/c", 2, V4, sharing("k", anything()), exposure(&[22]));
    world.create_exposing("y/d", 3, V4, anything(), exposure(&[22]));
    world.settle();
    assert_eq!(users(&world, "10.0.0.1"), ["x/a", "x/b", "y/c"]);
    assert_eq!(world.shown("y/d"), [""; 0], "an address shared with another namespace counts as well");
    world.delete_service("y/c");
    world.settle();
    assert_eq!(world.shown("y/d"), ["10.0.0.2"], "and no longer once it is left");
    world.delete_service("y/d");
    world.settle();
    world.create_service("y/e", 4, V4, anything());
    world.settle();
    assert_eq!(world.shown("y/e"), [""; 0], "what is retained for the namespace counts");
    world.create_service("y/d", 5, V4, anything());
    world.settle();
    assert_eq!(world.shown("y/d"), ["10.0.0.2"], "using the reservation takes nothing more");
}

#[test]
fn what_a_pool_refuses_to_strangers_it_refuses_to_those_who_would_share() {
    let closed = ServiceAllocation { namespaces: vec!["shop".into()], ..Default::default() };
    let mut world = settled(&[open(PoolSpec { allocation: Some(closed), ..pool("p", &["10.0.0.1"]) })]);
    world.create_exposing("shop/a", 0, V4, sharing("k", anything()), exposure(&[80]));
    world.create_exposing("evil/b", 1, V4, sharing("k", anything()), exposure(&[443]));
    world.create_exposing("evil/c", 2, V4, sharing("k", addresses(&["10.0.0.1"])), exposure(&[444]));
    world.settle();
    assert_eq!(users(&world, "10.0.0.1"), ["shop/a"]);
    for name in ["evil/b", "evil/c"] {
        assert!(world.refusal(name).contains("restricted to namespaces [shop]"), "{}", world.refusal(name));
    }
}
