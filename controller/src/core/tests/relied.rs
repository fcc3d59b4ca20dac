//! Rule B28: what a Service that comes to show an address relies on.

use std::time::Duration;

use serde_json::json;

use super::world::World;

#[test]
fn a_service_that_changed_since_its_address_was_taken_shows_it_after_that_was_written_once_more() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.settle();
    world.hold_statuses();
    world.service("web", &json!({}), &json!({}));
    world.service("web", &json!({"note": "edited"}), &json!({}));
    world.let_go();
    assert_eq!(world.shows("web"), ["10.0.0.0"]);
    assert_eq!(world.writes, ["take", "update", "status"]);
    world.check();
}

#[test]
fn a_service_is_not_made_to_show_what_its_loadbalancerip_has_lost_meanwhile() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.settle();
    world.hold_statuses();
    world.service("web", &json!({}), &json!({}));
    // As another leader does that chose another address for it.
    world.service("web", &json!({"heraldlb.io/released": "10.0.0.0@101"}), &json!({}));
    world.delete_address_silently("10.0.0.0");
    world.let_go();
    world.pass(Duration::from_secs(5));
    assert_eq!(world.shows("web"), ["10.0.0.0"], "made anew first");
    assert_eq!(world.writes, ["take", "take", "status", "pool status"]);
    world.check();
}

#[test]
fn an_address_that_a_service_gives_up_costs_no_write_beside_its_own() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.service("web", &json!({}), &json!({}));
    world.settle();
    world.service("web", &json!({"heraldlb.io/loadBalancerIPs": "10.0.0.3"}), &json!({}));
    assert_eq!(world.shows("web"), ["10.0.0.3"]);
    assert_eq!(world.writes, ["take", "status", "release"]);
    world.check();
}
