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
