//! Status writes that are too late, because the Service changed meanwhile.

use serde_json::json;

use super::world::World;

#[test]
fn a_policy_that_changes_back_before_the_status_is_written_costs_no_address() {
    let mut world = World::running(&["10.0.0.0/30", "fd00::/126"]);
    let dual = json!({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"});
    let single = json!({"ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"});
    world.service("web", &json!({}), &dual);
    let both = world.shows("web");
    world.settle();
    world.hold_statuses();
    world.service("web", &json!({}), &single);
    world.service("web", &json!({}), &dual);
    world.let_go();
    assert_eq!(world.shows("web"), both);
    assert_eq!(world.writes, [""; 0], "nothing had to be written");
    world.check();
}

#[test]
fn what_was_to_be_said_of_a_request_that_was_taken_back_meanwhile_is_not_said() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.service("web", &json!({}), &json!({}));
    world.settle();
    world.hold_statuses();
    world.service("web", &json!({"heraldlb.io/loadBalancerIPs": "192.0.2.1"}), &json!({}));
    world.service("web", &json!({}), &json!({}));
    world.let_go();
    assert_eq!(world.condition("web", "Allocated").1, "Allocated");
    assert_eq!(world.writes, [""; 0]);
    world.check();
}
