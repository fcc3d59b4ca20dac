//! What a pool's condition says.

use std::time::Duration;

use serde_json::json;

use super::{pair, world::World};

#[test]
fn a_pool_says_that_it_is_exhausted_until_it_is_not() {
    let mut world = World::running(&["10.0.0.0/31", "fd00::/64"]);
    world.settle();
    for name in ["a", "b"] {
        assert_eq!(world.pool_condition("default"), pair("True", "InForce"));
        world.service(name, &json!({}), &json!({}));
        world.pass(Duration::from_secs(2));
    }
    assert_eq!(world.pool_condition("default"), pair("True", "Exhausted"));
    world.delete_service("a");
    world.pass(Duration::from_secs(2));
    assert_eq!(world.pool_condition("default"), pair("True", "InForce"));
}

#[test]
fn a_pool_that_is_reserved_as_a_whole_is_exhausted_though_nobody_uses_it() {
    let mut world = World::running(&["10.0.0.0/31"]);
    for address in ["10.0.0.0", "10.0.0.1"] {
        world.pass(Duration::from_secs(2));
        assert_eq!(world.pool_condition("default"), pair("True", "InForce"));
        world.reserve(address, &json!({"namespace": "shop", "name": "web"}));
    }
    world.pass(Duration::from_secs(2));
    assert_eq!(world.pool_condition("default"), pair("True", "Exhausted"));
}

#[test]
fn a_pool_with_nodes_addresses_says_first_what_somebody_has_to_do_about_it() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.node_has("n1", &["10.0.0.0"]);
    for name in ["a", "b", "c"] {
        world.pass(Duration::from_secs(2));
        assert_eq!(world.pool_condition("default"), pair("True", "NodeAddresses"));
        world.service(name, &json!({}), &json!({}));
    }
    world.pass(Duration::from_secs(2));
    assert_eq!(world.pool_condition("default"), pair("True", "Exhausted"));
    world.pool("default", &json!({"addresses": ["10.0.0.0/31", "10.0.0.4"]}));
    world.pass(Duration::from_secs(2));
    assert_eq!(world.pool_condition("default"), pair("True", "AddressesOutsidePool"));
    let message = world.pool_message("default");
    assert!(message.contains("10.0.0.2 of shop/b, 10.0.0.3 of shop/c"), "{message}");
    for name in ["b", "c"] {
        world.delete_service(name);
    }
    world.pass(Duration::from_secs(2));
    assert_eq!(world.pool_condition("default"), pair("True", "NodeAddresses"));
}

#[test]
fn a_pool_of_any_size_is_counted_without_overflow() {
    let mut world = World::running(&["10.0.0.0/31", "fd00::/16"]);
    world.settle();
    assert_eq!(world.pool_counts("default"), (2, i64::MAX));
    world.service("six", &json!({}), &json!({"ipFamilies": ["IPv6"]}));
    world.pass(Duration::from_secs(2));
    assert_eq!(world.pool_counts("default"), (2, i64::MAX));
}

#[test]
fn a_pool_whose_candidates_are_all_excluded_says_so_whatever_other_nodes_say() {
    let mut world = World::running(&["10.0.0.0/31"]);
    world.advertisement("ad", &json!({"nodeSelectors": [{"matchLabels": {"node": "n2"}}]}));
    world.settle();
    assert_eq!(world.pool_condition("default"), pair("True", "InForce"));
    world.exclude("n2");
    world.pass(Duration::from_secs(2));
    assert_eq!(world.pool_condition("default"), pair("True", "AllNodesExcluded"));
    world.advertisement("ad", &json!({}));
    world.pass(Duration::from_secs(2));
    assert_eq!(world.pool_condition("default"), pair("True", "InForce"), "the others may");
}

#[test]
fn a_nodes_own_address_is_given_to_nobody_and_the_pool_says_so() {
    let mut world = World::running(&["10.0.0.0/29", "fd00::/126"]);
    world.node_has("n1", &["10.0.0.0", "10.9.9.9", "fd00::"]);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.pool_condition("default"), pair("True", "NodeAddresses"));
    let message = world.pool_message("default");
    assert!(message.contains("10.0.0.0 (n1), fd00:: (n1)") && !message.contains("10.9.9.9"), "{message}");
    world.service(
        "web",
        &json!({}),
        &json!({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"}),
    );
    assert_eq!(world.shows("web"), ["10.0.0.1", "fd00::1"]);
    world.service("asks", &json!({"heraldlb.io/loadBalancerIPs": "10.0.0.0"}), &json!({}));
    assert_eq!(world.condition("asks", "Allocated"), pair("False", "AddressOfNode"));

    world.node_has("n1", &["10.9.9.9"]);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.pool_condition("default"), pair("True", "InForce"));
    assert_eq!(
        world.shows("asks"),
        ["10.0.0.0"],
        "whoever asked for it gets it when the node has let go of it"
    );
    world.check();
}

#[test]
fn an_address_in_use_stays_when_a_node_turns_up_with_it() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.service("web", &json!({}), &json!({}));
    world.node_has("n2", &["10.0.0.0"]);
    world.pass(Duration::from_secs(2));
    world.restart();
    world.pass(Duration::from_secs(2));
    assert_eq!(world.shows("web"), ["10.0.0.0"]);
    assert_eq!(world.condition("web", "Allocated"), pair("True", "HasNodeAddress"));
    assert_eq!(world.pool_condition("default"), pair("True", "NodeAddresses"));
    world.check();
}

#[test]
fn a_pool_within_which_all_is_nodes_is_valid_and_has_nothing_to_give() {
    let mut world = World::running(&["10.0.0.0/31"]);
    world.node_has("n1", &["10.0.0.0"]);
    world.node_has("n2", &["10.0.0.1"]);
    world.service("web", &json!({}), &json!({}));
    world.pass(Duration::from_secs(2));
    assert_eq!(world.pool_condition("default"), pair("True", "NodeAddresses"));
    assert_eq!(world.condition("web", "Allocated"), pair("False", "NoAddressAvailable"));
    world.node_has("n2", &[]);
    assert_eq!(world.shows("web"), ["10.0.0.1"]);
}

#[test]
fn a_nodes_address_that_the_pool_names_as_an_entry_of_its_own_is_given() {
    let mut world = World::running(&["10.0.0.7", "10.0.0.9"]);
    world.node_has("n1", &["10.0.0.7"]);
    world.service("web", &json!({}), &json!({}));
    world.pass(Duration::from_secs(2));
    assert_eq!(world.shows("web"), ["10.0.0.7"]);
    assert_eq!(world.condition("web", "Allocated"), pair("True", "Allocated"));
    assert_eq!(world.pool_condition("default"), pair("True", "NodeAddresses"), "and it says what that means");
}

#[test]
fn a_node_that_says_the_same_again_costs_nothing() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.node_has("n1", &["10.0.0.0"]);
    world.pass(Duration::from_secs(2));
    world.writes.clear();
    world.node_has("n1", &["10.0.0.0"]);
    assert_eq!(world.core.poll_timeout(), None, "not even a look at the pool");
    world.pass(Duration::from_secs(2));
    assert_eq!(world.writes, [""; 0]);
}

#[test]
fn a_pool_takes_back_that_its_candidates_are_excluded_once_a_deleted_advertisement_is_forgotten() {
    let mut world = World::running(&["10.0.0.0/31"]);
    world.advertisement("ad", &json!({"nodeSelectors": [{"matchLabels": {"node": "n2"}}]}));
    world.exclude("n2");
    world.settle();
    assert_eq!(world.pool_condition("default"), pair("True", "AllNodesExcluded"));
    world.delete_advertisement("ad");
    for _ in 0..4 {
        world.pass(Duration::from_secs(10));
    }
    assert_eq!(world.pool_condition("default"), pair("True", "InForce"), "any node may");
}

#[test]
fn a_pool_that_is_renamed_before_its_advertisement_is_moves_nothing() {
    let mut world = World::running(&["10.0.0.0/30"]);
    let nodes = json!([{"matchLabels": {"node": "n2"}}]);
    world.advertisement("ad", &json!({"ipAddressPools": ["default"], "nodeSelectors": nodes}));
    world.service("web", &json!({}), &json!({}));
    assert_eq!(world.listed_nodes("10.0.0.0"), ["n2"]);
    world.delete_pool("default");
    world.pool("renamed", &json!({"addresses": ["10.0.0.0/30"]}));
    world.pass(Duration::from_mins(10));
    assert_eq!(world.listed_nodes("10.0.0.0"), ["n2"]);
    world.advertisement("ad", &json!({"ipAddressPools": ["renamed"], "nodeSelectors": nodes}));
    assert_eq!(world.listed_nodes("10.0.0.0"), ["n2"]);
    assert_eq!(world.address("10.0.0.0").unwrap().spec.pool.as_deref(), Some("renamed"));
    world.check();
}
