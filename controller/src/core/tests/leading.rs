//! Leading, standing by, and leading again.

use std::time::Duration;

use serde_json::json;

use super::{pair, world::World};

#[test]
fn who_stands_by_writes_nothing_whatever_happens_and_serves_it_all_once_it_leads() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.service("web", &json!({}), &json!({}));
    world.settle();
    world.stand_by();
    world.service("late", &json!({}), &json!({}));
    world.delete_service("web");
    world.pool("more", &json!({"addresses": ["10.0.1.0/30"]}));
    world.advertisement("ad", &json!({"ipAddressPools": ["nowhere"]}));
    world.pass(Duration::from_mins(10));
    assert_eq!(world.writes, Vec::<&str>::new());
    world.lead();
    assert_eq!(world.shows("late"), ["10.0.0.1"], "what the deleted one had is given back first");
    assert!(world.address("10.0.0.0").is_none(), "its user is gone, as a live read says");
    world.pass(Duration::from_secs(2));
    assert_eq!(world.pool_condition("more"), pair("True", "InForce"));
    assert_eq!(world.advertisement_reason("ad"), "UnknownPool");
    world.check();
}

#[test]
fn what_was_under_way_when_leadership_ended_is_decided_anew() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.settle();
    world.hold();
    world.service("web", &json!({}), &json!({}));
    world.stand_by();
    world.delete_service("web");
    world.service("other", &json!({}), &json!({}));
    world.let_go();
    assert_eq!(world.writes, Vec::<&str>::new());
    world.lead();
    assert_eq!(world.shows("other"), ["10.0.0.0"]);
    world.check();
}

#[test]
fn what_another_leader_made_anew_is_not_forgotten_because_a_release_found_nothing() {
    let mut world = World::running(&["10.0.0.0/32"]);
    world.service("web", &json!({}), &json!({}));
    world.settle();
    world.service("other", &json!({}), &json!({}));
    world.hold();
    world.delete_service("web");
    world.given_anew_before_the_release_is_answered("10.0.0.0", "other");
    world.pass(Duration::from_secs(5));
    assert_eq!(world.shows("other"), ["10.0.0.0"]);
    world.check();
}

#[test]
fn a_new_leader_whose_watch_of_addresses_lags_leaves_services_what_they_show() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.service("gone", &json!({}), &json!({}));
    let like = world.address("10.0.0.0").unwrap();
    world.settle();
    world.stand_by();
    world.delete_address_silently("10.0.0.0");
    world.delete_service("gone");
    for (service, address) in [("web", "10.0.0.0"), ("api", "10.0.0.1")] {
        world.service(service, &json!({}), &json!({}));
        world.served_by_another(service, address, like.clone());
    }
    world.lead();
    world.pass(Duration::from_secs(5));
    assert_eq!((world.shows("web"), world.shows("api")), (vec!["10.0.0.0".into()], vec!["10.0.0.1".into()]));
    assert!(!world.writes.contains(&"take"), "{:?}", world.writes);
    world.check();
}

#[test]
fn what_the_watch_tells_late_of_addresses_that_a_new_leader_found_gone_is_history() {
    let mut world = World::running(&["10.0.0.0/32"]);
    world.service("web", &json!({}), &json!({}));
    world.settle();
    world.stand_by();
    let [applied, deleted] = world.delete_address_late("10.0.0.0");
    world.delete_service("web");
    world.lead();
    world.hold();
    world.tell(applied);
    world.service("other", &json!({}), &json!({}));
    assert!(world.is_about_to_take(), "nothing is to be given back first");
    world.let_go();
    world.tell(deleted);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.users("10.0.0.0"), ["other"]);
    world.check();
}

#[test]
fn what_is_gone_since_a_new_leader_read_what_there_is_is_not_believed_in() {
    let mut world = World::running(&["10.0.0.0/32"]);
    world.settle();
    world.stand_by();
    world.reserve_silently("10.0.0.0", "10.0.0.0", &json!({"namespace": "shop", "name": "absent"}));
    world.lead_by_a_list_older_than(|world| world.delete_address("10.0.0.0"));
    world.service("web", &json!({}), &json!({}));
    assert_eq!(world.shows("web"), ["10.0.0.0"], "a live read says that it is gone");
    world.check();
}

#[test]
fn what_a_new_leader_knows_already_is_not_read_again_and_what_it_does_not_is_read_by_its_own_name() {
    let mut world = World::running(&["10.0.0.0/24"]);
    let absent = json!({"namespace": "shop", "name": "absent"});
    world.service("web", &json!({}), &json!({}));
    world.reserve("10.0.0.7", &absent);
    world.settle();
    world.stand_by();
    world.reserve_silently("10.0.0.8", "stored-long-ago", &absent);
    world.hold();
    world.lead();
    assert_eq!(world.is_about_to_read(), ["stored-long-ago"]);
    world.let_go();
    world.check();
}

#[test]
fn a_leader_that_leads_again_over_the_same_objects_writes_nothing() {
    let mut world = World::running(&["10.0.0.0/30", "fd00::/120"]);
    world.service("web", &json!({}), &json!({}));
    world.service("wrong", &json!({"metallb.io/address-pool": "nope"}), &json!({}));
    world.held_by("10.0.0.0", Some("n2"));
    world.settle();
    for _ in 0..2 {
        world.stand_by();
        world.pass(Duration::from_mins(1));
        world.lead();
        world.pass(Duration::from_mins(1));
        assert_eq!((world.writes.clone(), world.events.len()), (Vec::new(), 0));
    }
    assert_eq!(world.shows("web"), ["10.0.0.0"]);
    world.check();
}

#[test]
fn lists_that_come_while_standing_by_count_when_it_leads() {
    let mut world = World::new();
    world.stand_by();
    world.pool("default", &json!({"addresses": ["10.0.0.0/30"]}));
    world.service("web", &json!({}), &json!({}));
    world.start();
    assert_eq!(world.writes, Vec::<&str>::new());
    world.lead();
    assert_eq!(world.shows("web"), ["10.0.0.0"]);
}

#[test]
fn revisions_go_on_growing_over_a_change_of_leaders() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.service("web", &json!({}), &json!({}));
    let revision = |world: &World| world.address("10.0.0.0").unwrap().spec.revision;
    let before = revision(&world);
    world.stand_by();
    world.lead();
    world.advertisement("ad", &json!({"nodeSelectors": [{"matchLabels": {"node": "n2"}}]}));
    assert!(revision(&world) > before);
}

#[test]
fn reservations_are_looked_at_whichever_list_comes_last() {
    let mut world = World::new();
    world.nodes();
    world.reserve("10.0.0.1", &json!({"namespace": "shop", "name": "web"}));
    world.reserve("10.0.9.9", &json!({"namespace": "shop", "name": "api"}));
    world.pool("default", &json!({"addresses": ["10.0.0.0/30"]}));
    world.list_all_but_nodes();
    world.pass(Duration::from_secs(2));
    assert_eq!(world.address("10.0.0.1").unwrap().spec.pool.as_deref(), Some("default"));
    assert_eq!(world.problem("10.0.9.9").0, "OutsidePools");
}
