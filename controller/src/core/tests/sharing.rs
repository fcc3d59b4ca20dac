//! One address, several Services.

use std::time::Duration;

use serde_json::{Value, json};

use super::world::World;

fn key(key: &str) -> Value {
    json!({"heraldlb.io/allow-shared-ip": key, "heraldlb.io/loadBalancerIPs": "10.0.0.0"})
}

fn port(number: u16) -> Value {
    json!({"ports": [{"port": number, "protocol": "TCP"}]})
}

fn sharing() -> World {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.service("web", &key("front"), &port(80));
    world.service("mail", &key("front"), &port(25));
    world
}

#[test]
fn a_shared_address_lists_its_users_and_is_announced_for_all_of_them() {
    let mut world = sharing();
    assert_eq!(world.shows("web"), ["10.0.0.0"]);
    assert_eq!(world.shows("mail"), ["10.0.0.0"]);
    assert_eq!(world.users("10.0.0.0").len(), 2);
    assert_eq!(world.address("10.0.0.0").unwrap().spec.sharing.as_ref().unwrap().key, "front");
    world.settle();
    world.advertisement("ad", &json!({"nodeSelectors": [{"matchLabels": {"node": "n2"}}]}));
    assert_eq!(world.listed_nodes("10.0.0.0"), ["n2"], "an edit reaches an address that several have");
}

#[test]
fn nobody_joins_by_a_key_that_one_of_the_users_has_given_up() {
    let mut world = sharing();
    world.service("web", &key("back"), &port(80));
    world.service("news", &key("front"), &port(119));
    assert_eq!(world.shows("web"), ["10.0.0.0"]);
    assert_eq!(world.shows("news"), [""; 0]);
    world.service("web", &key("front"), &port(80));
    assert_eq!(world.shows("news"), ["10.0.0.0"]);
}

#[test]
fn a_shared_address_of_which_one_is_local_is_announced_where_the_pods_are() {
    let mut world = World::running(&["10.0.0.0/30"]);
    let with = |port: u16, policy: &str| json!({"ports": [{"port": port, "protocol": "TCP"}], "selector": {"app": "front"}, "externalTrafficPolicy": policy});
    world.service("web", &key("front"), &with(80, "Cluster"));
    let alone = world.address("10.0.0.0").unwrap().spec.announce.clone();
    assert!(alone.is_some());
    world.service("mail", &key("front"), &with(25, "Local"));
    world.pass(Duration::from_secs(3));
    let joined = &world.address("10.0.0.0").unwrap().spec;
    assert_eq!(
        (joined.services.len(), &joined.announce),
        (2, &alone),
        "before the pods are known, nobody is silenced"
    );
    world.endpoints("mail", &["n3"]);
    assert_eq!(world.shows("mail"), ["10.0.0.0"]);
    assert_eq!(world.listed_nodes("10.0.0.0"), ["n3"]);
    world.endpoints("mail", &["n1", "n3"]);
    assert_eq!(world.listed_nodes("10.0.0.0"), ["n1", "n3"]);
}

#[test]
fn a_local_service_that_joins_before_it_has_endpoint_slices_is_where_the_others_pods_are() {
    let mut world = World::running(&["10.0.0.0/30"]);
    let with = |port: u16, policy: &str| json!({"ports": [{"port": port, "protocol": "TCP"}], "selector": {"app": "front"}, "externalTrafficPolicy": policy});
    world.endpoints("web", &["n3"]);
    world.service("web", &key("front"), &with(80, "Cluster"));
    world.service("mail", &key("front"), &with(25, "Local"));
    assert_eq!(world.listed_nodes("10.0.0.0"), ["n3"]);
    world.one_slice("mail", &["n1"]);
    world.one_slice("web", &["n1"]);
    assert_eq!(world.listed_nodes("10.0.0.0"), ["n1"], "a pod that moved");
}

#[test]
fn who_leaves_takes_nobody_with_it_and_the_last_one_frees_the_address() {
    let mut world = sharing();
    world.delete_service("web");
    assert_eq!(world.users("10.0.0.0").len(), 1);
    assert_eq!(world.shows("mail"), ["10.0.0.0"]);
    world.delete_service("mail");
    assert!(world.address("10.0.0.0").is_none());
}

#[test]
fn a_sole_user_changes_its_key_in_place() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.service("web", &key("front"), &port(80));
    let sharing = |world: &World| {
        world.address("10.0.0.0").unwrap().spec.sharing.as_ref().map(|sharing| sharing.key.clone())
    };
    assert_eq!(sharing(&world).as_deref(), Some("front"));
    world.service("web", &key("back"), &port(80));
    assert_eq!(sharing(&world).as_deref(), Some("back"));
    world.service("web", &json!({"heraldlb.io/loadBalancerIPs": "10.0.0.0"}), &port(80));
    assert_eq!(sharing(&world), None, "whom nobody may join any more");
    assert_eq!(world.shows("web"), ["10.0.0.0"]);
}
