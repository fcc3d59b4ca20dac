//! LoadBalancerIPs that somebody else writes.

use std::time::Duration;

use herald_crds::{NodeMode, ServiceRef};
use serde_json::json;

use super::world::World;

const IP: &str = "10.0.0.0";

fn one_service() -> World {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.service("web", &json!({}), &json!({}));
    world.settle();
    world
}

#[test]
fn what_somebody_else_writes_is_put_right_said_and_forgotten_after_a_calm() {
    let mut world = one_service();
    let before = world.address(IP).unwrap().spec.clone();
    world.edit_address(IP, |object| {
        object.spec.announce.as_mut().unwrap().l2.as_mut().unwrap().nodes.mode = NodeMode::Listed;
        object.spec.pool = Some("other".to_owned());
    });
    let after = world.address(IP).unwrap().spec.clone();
    assert_eq!(
        (&after.announce, &after.pool, &after.services),
        (&before.announce, &before.pool, &before.services)
    );
    let (reason, message) = world.problem(IP);
    assert_eq!(reason, "Edited");
    assert!(message.contains("spec.announce and spec.pool"), "{message}");
    // The Service says in between that no node may answer, as it is.
    world.writes.retain(|write| *write != "status");
    assert_eq!(world.writes, ["update", "problem"]);
    world.pass(Duration::from_mins(11));
    assert_eq!(world.problem(IP), Default::default());
    assert_eq!(world.writes, ["update", "problem", "problem"]);
    assert_eq!(world.shows("web"), [IP]);
}

#[test]
fn a_service_that_somebody_writes_into_an_address_in_use_is_taken_off_and_that_is_said() {
    let mut world = one_service();
    world.service("thief", &json!({"heraldlb.io/address-pool": "nope"}), &json!({}));
    let thief =
        ServiceRef { namespace: "shop".to_owned(), name: "thief".to_owned(), uid: world.uid("thief") };
    let stranger =
        ServiceRef { namespace: "gone".to_owned(), name: "never".to_owned(), uid: "none".to_owned() };
    world.edit_address(IP, |object| object.spec.services.extend([thief, stranger]));
    world.pass(Duration::from_secs(5));
    assert_eq!(world.users(IP), ["web"]);
    assert_eq!((world.shows("web"), world.shows("thief")), (vec![IP.to_owned()], vec![]));
    assert_eq!(world.problem(IP).0, "Edited");
    world.check();
}

#[test]
fn an_emptied_address_stays_its_users() {
    let mut world = one_service();
    world.edit_address(IP, |object| object.spec.services.clear());
    assert_eq!(world.users(IP), ["web"]);
    assert_eq!(world.writes, ["take", "problem"]);
}

#[test]
fn whoever_keeps_writing_is_answered_ever_more_rarely_and_nobody_else_gets_the_address() {
    for edit in 0..3 {
        let mut world = one_service();
        world.service("waits", &json!({"heraldlb.io/loadBalancerIPs": IP}), &json!({}));
        world.settle();
        for _ in 0..600 {
            match edit {
                0 if world.address(IP).is_some() => world.delete_address(IP),
                1 => world.edit_address(IP, |object| object.spec.services.clear()),
                2 => world.edit_address(IP, |object| object.spec.pool = None),
                _ => {}
            }
            world.pass(Duration::from_millis(100));
        }
        let writes = world.writes.len();
        assert!((3..=25).contains(&writes), "{writes} writes in a minute against 600: {:?}", world.writes);
        world.pass(Duration::from_secs(11));
        assert_eq!((world.users(IP), world.shows("web")), (vec!["web".to_owned()], vec![IP.to_owned()]));
        assert_eq!(world.shows("waits"), Vec::<String>::new());
        world.check();
    }
}

#[test]
fn a_raised_revision_is_only_exceeded() {
    let mut world = one_service();
    world.edit_address(IP, |object| object.spec.revision = 1 << 40);
    assert_eq!(world.writes, ["problem"]);
    world.advertisement("ad", &json!({"nodeSelectors": [{"matchLabels": {"node": "n2"}}]}));
    assert!(world.address(IP).unwrap().spec.revision > 1 << 40);
}

#[test]
fn what_users_may_write_is_no_problem() {
    let mut world = one_service();
    world.edit_address(IP, |object| {
        object.metadata.labels.get_or_insert_default().insert("team".to_owned(), "shop".to_owned());
        object.spec.claim_ref = serde_json::from_value(json!({"namespace": "shop", "name": "web"})).unwrap();
    });
    world.held_by(IP, Some("n1"));
    world.pass(Duration::from_mins(1));
    assert_eq!(world.problem(IP), Default::default());
    assert!(world.address(IP).unwrap().spec.claim_ref.is_some());
}

#[test]
fn a_new_process_leaves_what_was_said_for_a_while_and_then_takes_it_away() {
    let mut world = one_service();
    world.edit_address(IP, |object| object.spec.pool = None);
    world.restart();
    world.pass(Duration::from_mins(5));
    assert_eq!((world.problem(IP).0.as_str(), world.writes.len()), ("Edited", 0));
    world.pass(Duration::from_mins(6));
    assert_eq!((world.problem(IP), world.writes.as_slice()), (Default::default(), ["problem"].as_slice()));
}

#[test]
fn a_reservation_that_serves_nobody_says_so_until_it_does() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.reserve("10.0.1.1", &json!({"namespace": "shop", "name": "web"}));
    assert_eq!(world.problem("10.0.1.1").0, "OutsidePools");
    world.pool("more", &json!({"addresses": ["10.0.1.0/30"]}));
    assert_eq!(world.problem("10.0.1.1"), Default::default());
    world.edit_address("10.0.1.1", |object| object.spec.claim_ref = None);
    assert_eq!(world.problem("10.0.1.1").0, "Unused");
}

#[test]
fn a_problem_that_can_not_be_written_is_tried_again_later_and_not_at_once() {
    let mut world = one_service();
    world.refuses = true;
    world.edit_address(IP, |object| object.spec.revision += 1);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.problem(IP), Default::default());
    world.refuses = false;
    world.pass(Duration::from_secs(61));
    assert_eq!(world.problem(IP).0, "Edited");
}

#[test]
fn what_was_put_off_is_done_when_its_time_comes_although_something_else_happened_in_between() {
    let mut world = one_service();
    world.refuses = true;
    world.edit_address(IP, |object| object.spec.revision += 1);
    world.refuses = false;
    world.pass(Duration::from_secs(30));
    world.tell_address(IP);
    assert_eq!(world.problem(IP), Default::default());
    world.pass(Duration::from_secs(31));
    assert_eq!(world.problem(IP).0, "Edited");
}

#[test]
fn what_a_former_leader_wrote_is_not_taken_for_somebody_elses() {
    let mut world = one_service();
    world.stand_by();
    world.edit_unseen(IP, |object| object.spec.revision += 5);
    world.lead();
    world.tell_address(IP);
    assert_eq!(world.problem(IP), Default::default());
    world.edit_address(IP, |object| object.spec.revision += 5);
    assert_eq!(world.problem(IP).0, "Edited");
}

#[test]
fn an_edit_that_comes_before_the_last_one_is_said_is_put_right_as_well() {
    let mut world = one_service();
    world.hold();
    world.edit_address(IP, |object| object.spec.revision += 1);
    world.edit_unseen(IP, |object| object.spec.services.clear());
    world.let_go();
    world.tell_address(IP);
    world.pass(Duration::from_secs(1));
    assert_eq!((world.users(IP), world.problem(IP).0.as_str()), (vec!["web".to_owned()], "Edited"));
}

#[test]
fn another_program_that_keeps_writing_a_status_is_answered_ever_more_rarely() {
    let mut world = one_service();
    for n in 0..600 {
        world.edit_ingress("web", Some(&format!("192.0.2.{}", n % 200)), Some("cloud-provider"));
        world.pass(Duration::from_millis(100));
    }
    let answers = world.refused + world.writes.len();
    assert!((3..=20).contains(&answers), "{answers} answers to 600 writes in a minute");
}

#[test]
fn an_edit_that_only_a_refused_write_shows_is_one() {
    let mut world = one_service();
    world.hold();
    world.advertisement("ad", &json!({"nodeSelectors": [{"matchLabels": {"node": "n2"}}]}));
    world.edit_unseen(IP, |object| object.spec.pool = Some("other".to_owned()));
    world.let_go();
    world.tell_address(IP);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.problem(IP).0, "Edited");
}

#[test]
fn an_object_that_was_deleted_and_made_anew_by_hand_says_what_is_wrong_with_it() {
    let mut world = one_service();
    world.delete_address(IP);
    world.delete_service("web");
    world.reserve("10.0.9.9", &json!({"namespace": "shop", "name": "web"}));
    world.delete_address("10.0.9.9");
    world.reserve(IP, &json!({"namespace": "shop", "name": "web"}));
    world.delete_pool("default");
    assert_eq!(world.problem(IP).0, "OutsidePools");
}
