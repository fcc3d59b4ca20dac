//! The core, driven directly: recorded objects in, jobs out, carried out by a model of the API server.

mod edits;
mod leading;
mod pools;
mod relied;
mod sharing;
mod stale;
mod world;

use std::time::Duration;

use serde_json::json;

use self::world::{Dropped, World};
use crate::job::EventKind;

fn pair(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

#[test]
fn a_service_gets_the_lowest_address_in_two_writes_and_one_event() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.settle();
    world.service("web", &json!({}), &json!({}));
    assert_eq!(world.shows("web"), ["10.0.0.0"]);
    assert_eq!(world.writes, ["take", "status"]);
    assert_eq!(world.events.iter().map(|event| event.kind).collect::<Vec<_>>(), [EventKind::Allocated]);
    assert_eq!(world.condition("web", "Allocated"), pair("True", "Allocated"));
    assert_eq!(world.condition("web", "Announced"), pair("False", "NoHolder"));
    world.check();
}

#[test]
fn nothing_is_given_out_before_every_list_has_come() {
    let mut world = World::new();
    world.pool("default", &json!({"addresses": ["10.0.0.0/30"]}));
    world.service("web", &json!({}), &json!({}));
    world.nodes();
    assert_eq!(world.writes, Vec::<&str>::new());
    world.start();
    assert_eq!(world.shows("web"), ["10.0.0.0"]);
}

#[test]
fn a_restart_with_everything_assigned_writes_nothing() {
    let mut world = World::running(&["10.0.0.0/29", "fd00::/120"]);
    world.service("web", &json!({}), &json!({}));
    world.service(
        "dual",
        &json!({}),
        &json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"]}),
    );
    world.service("wrong", &json!({"metallb.io/address-pool": "nope"}), &json!({}));
    world.advertisement("ad", &json!({"nodeSelectors": [{"matchLabels": {"node": "n2"}}]}));
    world.held_by("10.0.0.0", Some("n2"));
    world.pass(Duration::from_mins(1));
    assert_eq!(world.shows("dual"), ["fd00::", "10.0.0.1"], "the primary family first");
    for _ in 0..2 {
        world.restart();
        world.pass(Duration::from_mins(1));
        assert_eq!(world.writes, Vec::<&str>::new());
        assert!(world.events.is_empty());
    }
    world.check();
}

#[test]
fn a_crash_between_the_two_writes_is_made_good() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.service("first", &json!({}), &json!({}));
    world.hold();
    world.service("web", &json!({}), &json!({}));
    world.let_go();
    world.edit_ingress("web", None, None);
    world.restart();
    assert_eq!(world.shows("web"), ["10.0.0.1"]);
    world.check();
}

#[test]
fn a_hand_edit_is_undone_and_a_persistent_one_without_a_fight() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.service("web", &json!({}), &json!({}));
    world.edit_ingress("web", None, None);
    assert_eq!(world.shows("web"), ["10.0.0.0"], "cleared: shown again at once");
    world.edit_ingress("web", Some("192.0.2.9"), Some("kubectl-edit"));
    world.pass(Duration::from_secs(1));
    assert_eq!(world.shows("web"), ["10.0.0.0"], "changed by a person: put right");
    world.writes.clear();
    for _ in 0..600 {
        world.edit_ingress("web", Some("192.0.2.9"), None);
        world.pass(Duration::from_millis(100));
    }
    let restored = world.writes.iter().filter(|write| **write == "status").count();
    assert!((3..=12).contains(&restored), "{restored} writes in a minute against 600");
    world.pass(Duration::from_mins(6));
    assert_eq!(world.shows("web"), ["10.0.0.0"]);
}

#[test]
fn another_controller_is_named_and_left_alone_until_it_lets_go() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.service("web", &json!({}), &json!({}));
    world.edit_ingress("web", Some("192.0.2.9"), Some("cloud-provider"));
    assert_eq!(world.shows("web"), ["192.0.2.9"]);
    assert_eq!(world.condition("web", "Allocated"), pair("False", "AnotherController"));
    world.settle();
    world.pass(Duration::from_mins(30));
    assert_eq!(world.writes, Vec::<&str>::new());
    world.edit_ingress("web", None, None);
    world.pass(Duration::from_mins(30));
    assert_eq!(world.shows("web"), ["10.0.0.0"]);
    assert_eq!(world.condition("web", "Allocated"), pair("True", "Allocated"));
}

#[test]
fn a_type_change_frees_the_address_and_leaves_nothing_of_ours_behind() {
    let mut world = World::running(&["10.0.0.0/32"]);
    world.service("web", &json!({}), &json!({}));
    world.service("other", &json!({}), &json!({}));
    assert_eq!(world.condition("other", "Allocated"), pair("False", "NoAddressAvailable"));
    world.service("web", &json!({}), &json!({"type": "ClusterIP"}));
    assert!(!world.has_marks("web"));
    assert_eq!(world.shows("other"), ["10.0.0.0"], "who waits gets it");
    world.service("other", &json!({}), &json!({"type": "ClusterIP"}));
    assert!(!world.has_marks("other") && world.address("10.0.0.0").is_none());
}

#[test]
fn a_service_that_waits_in_vain_and_changes_its_type_keeps_no_conditions() {
    let mut world = World::running(&["10.0.0.0/32"]);
    world.service("web", &json!({"metallb.io/address-pool": "nope"}), &json!({}));
    assert_eq!(world.condition("web", "Allocated"), pair("False", "UnknownPool"));
    world.service("web", &json!({}), &json!({"type": "ClusterIP"}));
    assert!(!world.has_marks("web"));
}

#[test]
fn a_service_that_comes_back_before_its_release_keeps_its_address() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.service("web", &json!({}), &json!({}));
    world.hold();
    world.service("web", &json!({}), &json!({"type": "ClusterIP"}));
    world.service("web", &json!({}), &json!({}));
    world.let_go();
    world.pass(Duration::from_secs(5));
    assert_eq!(
        (world.shows("web"), world.users("10.0.0.0")),
        (vec!["10.0.0.0".to_owned()], vec!["web".to_owned()])
    );
    world.check();
}

#[test]
fn a_list_that_lacks_a_living_service_releases_nothing() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.service("web", &json!({}), &json!({}));
    world.core.handle(
        super::Now { monotonic: std::time::Instant::now(), wall: k8s_openapi::jiff::Timestamp::UNIX_EPOCH },
        super::Event::Services(herald_runtime::watch::Change::Replaced(Vec::new())),
    );
    world.pass(Duration::from_secs(1));
    world.list_services();
    world.pass(Duration::from_secs(1));
    assert_eq!(world.users("10.0.0.0"), ["web"], "the live GET says otherwise (B8)");
    assert_eq!(world.shows("web"), ["10.0.0.0"]);
}

#[test]
fn a_class_that_is_not_ours_is_never_touched() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.service("web", &json!({}), &json!({"loadBalancerClass": "example.com/other"}));
    world.pass(Duration::from_secs(5));
    assert!(!world.has_marks("web") && world.shows("web").is_empty());
}

#[test]
fn an_address_object_that_a_user_deletes_is_made_again_with_a_higher_revision() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.service("web", &json!({}), &json!({}));
    let before = world.address("10.0.0.0").unwrap().spec.revision;
    world.delete_address("10.0.0.0");
    assert_eq!(world.users("10.0.0.0"), ["web"]);
    assert!(world.address("10.0.0.0").unwrap().spec.revision > before);
    assert_eq!(world.shows("web"), ["10.0.0.0"]);
}

#[test]
fn a_revision_that_fell_behind_what_speakers_have_seen_is_raised_above_it() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.service("web", &json!({}), &json!({}));
    let seen = world.address("10.0.0.0").unwrap().spec.revision;
    world.edit_address("10.0.0.0", |object| object.spec.revision = seen - 1);
    assert!(world.address("10.0.0.0").unwrap().spec.revision > seen);
    world.settle();
    world.advertisement("everywhere", &json!({}));
    let raised = world.address("10.0.0.0").unwrap().spec.revision;
    world.settle();
    assert_eq!(world.address("10.0.0.0").unwrap().spec.revision, raised, "once");
}

#[test]
fn an_address_object_that_is_found_gone_is_made_again_before_the_watch_tells() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.service("web", &json!({}), &json!({}));
    let before = world.address("10.0.0.0").unwrap().spec.revision;
    world.delete_address_silently("10.0.0.0");
    world.advertisement("some", &json!({"interfaces": ["eth1"]}));
    assert_eq!(world.users("10.0.0.0"), ["web"]);
    assert!(world.address("10.0.0.0").unwrap().spec.revision > before);
    assert_eq!(world.shows("web"), ["10.0.0.0"]);
}

#[test]
fn a_request_that_changes_moves_and_one_that_becomes_impossible_does_not() {
    let mut world = World::running(&["10.0.0.0/29"]);
    world.service("other", &json!({}), &json!({}));
    world.service("web", &json!({"metallb.universe.tf/loadBalancerIPs": "10.0.0.5"}), &json!({}));
    world.service("web", &json!({"metallb.universe.tf/loadBalancerIPs": "10.0.0.6"}), &json!({}));
    assert_eq!(world.shows("web"), ["10.0.0.6"]);
    assert!(world.address("10.0.0.5").is_none());
    world.service("web", &json!({"metallb.universe.tf/loadBalancerIPs": "10.0.0.0"}), &json!({}));
    assert_eq!(world.shows("web"), ["10.0.0.6"]);
    assert_eq!(world.condition("web", "Allocated"), pair("True", "RequestUnmet"));
    assert_eq!(world.events.last().unwrap().kind, EventKind::Failed);
    world.check();
}

#[test]
fn deleting_every_pool_changes_nobodys_address() {
    let mut world = World::running(&["10.0.0.0/29"]);
    world.service("web", &json!({}), &json!({}));
    let announce = world.address("10.0.0.0").unwrap().spec.announce.clone();
    world.delete_pool("default");
    world.pass(Duration::from_mins(1));
    world.restart();
    world.pass(Duration::from_mins(1));
    assert_eq!(world.shows("web"), ["10.0.0.0"]);
    assert_eq!(
        world.address("10.0.0.0").unwrap().spec.announce,
        announce,
        "what was announced stays so (B25)"
    );
    assert_eq!(world.condition("web", "Allocated"), pair("True", "AddressOutsidePools"));
}

#[test]
fn another_wrong_request_is_told_though_it_is_wrong_in_the_same_way() {
    let mut world = World::running(&["10.0.0.0/29"]);
    world.service("web", &json!({}), &json!({}));
    for wrong in ["10.9.9.8", "10.9.9.9", "10.9.9.9"] {
        world.service("web", &json!({"heraldlb.io/loadBalancerIPs": wrong}), &json!({}));
    }
    assert_eq!(world.condition("web", "Allocated"), pair("True", "RequestUnmet"));
    let told = world.events.iter().filter(|event| event.kind == EventKind::Failed);
    let told: Vec<bool> = told.map(|event| event.note.contains("10.9.9.8")).collect();
    assert_eq!(told, [true, false], "one for each: {:?}", world.events);
}

#[test]
fn a_wrong_pool_says_why_and_its_last_good_meaning_stays_in_force() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.pool("default", &json!({"addresses": ["10.0.0.9-10.0.0.1"]}));
    world.pool("second", &json!({"addresses": ["10.0.0.0/24"]}));
    world.pool(
        "third",
        &json!({"addresses": ["10.1.0.0/24"], "serviceAllocation": {"serviceSelectors": [
        {"matchExpressions": [{"key": "a", "operator": "Resembles"}]}]}}),
    );
    world.pass(Duration::from_secs(2));
    assert_eq!(world.pool_condition("default"), pair("False", "InvalidSpec"));
    assert_eq!(world.pool_condition("second"), pair("False", "Overlap"));
    assert_eq!(world.pool_condition("third"), pair("False", "InvalidSelector"));
    world.service("web", &json!({}), &json!({}));
    assert_eq!(world.shows("web"), ["10.0.0.0"]);
}

#[test]
fn a_pool_stored_under_another_crd_says_so_and_the_others_go_on() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.service("web", &json!({}), &json!({}));
    let unreadable = json!({"addresses": ["10.0.0.0/30"], "reclaimPolicy": "Recycle"});
    world.pool("default", &unreadable);
    world.pool("never", &json!({"addresses": "10.3.0.0/24"}));
    world.pool("other", &json!({"addresses": ["10.4.0.0/30"]}));
    world.pass(Duration::from_secs(2));
    for name in ["default", "never"] {
        assert_eq!(world.pool_condition(name), pair("False", "InvalidSpec"));
    }
    let message = world.pool_message("default");
    assert!(message.contains("Recycle") && message.contains("another version of the CRD"), "{message}");
    assert_eq!(world.shows("web"), ["10.0.0.0"]);
    world.service("api", &json!({}), &json!({}));
    assert_eq!(world.shows("api"), ["10.0.0.1"], "its last good spec is in force");

    world.restart();
    assert_eq!(
        (world.shows("web"), world.shows("api")),
        (vec!["10.0.0.0".to_owned()], vec!["10.0.0.1".to_owned()])
    );
    world.service("mail", &json!({}), &json!({}));
    assert_eq!(world.shows("mail"), ["10.4.0.0"], "what was in force is forgotten; the other pool gives");
}

#[test]
fn an_unreadable_pool_changes_nothing_of_what_is_announced() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.pool("default", &json!({"addresses": ["10.0.0.0/30"], "conflictDetection": "Disabled"}));
    world.service("web", &json!({}), &json!({}));
    world.pass(Duration::from_secs(2));
    world.writes.clear();
    world.pool("default", &json!({"addresses": ["10.0.0.0/30"], "reclaimPolicy": "Recycle"}));
    world.pass(Duration::from_secs(2));
    assert_eq!(world.writes, ["pool status"]);
}

#[test]
fn what_an_older_crd_drops_is_written_once_a_minute_and_not_at_full_speed() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.service("web", &json!({}), &json!({}));
    world.pass(Duration::from_secs(2));
    world.drops = Some(Dropped::Announce);
    world.writes.clear();
    let updates = |world: &World| world.writes.iter().filter(|write| **write == "update").count();
    world.advertisement("some", &json!({"interfaces": ["eth1"]}));
    world.pass(Duration::from_secs(50));
    assert_eq!(updates(&world), 1, "{:?}", world.writes);
    world.pass(Duration::from_secs(30));
    assert_eq!(updates(&world), 2, "{:?}", world.writes);
    world.drops = None;
    world.pass(Duration::from_mins(3));
    assert_eq!(updates(&world), 3, "the CRD is right again: {:?}", world.writes);
}

#[test]
fn a_pools_counts_are_gathered_before_they_are_written() {
    let mut world = World::running(&["10.0.0.0/24"]);
    world.settle();
    for n in 0..20 {
        world.service(&format!("web{n}"), &json!({}), &json!({}));
    }
    world.pass(Duration::from_secs(2));
    assert_eq!(world.writes.iter().filter(|write| **write == "pool status").count(), 1);
}

#[test]
fn announced_follows_the_holders_and_forgives_a_moment_without() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.service("web", &json!({}), &json!({}));
    world.held_by("10.0.0.0", Some("n1"));
    assert_eq!(world.condition("web", "Announced"), pair("True", "Announced"));
    world.settle();
    world.held_by("10.0.0.0", None);
    world.pass(Duration::from_secs(1));
    world.held_by("10.0.0.0", Some("n2"));
    world.pass(Duration::from_mins(1));
    assert_eq!(world.writes, Vec::<&str>::new(), "a move is no news for the Service");
    world.held_by("10.0.0.0", None);
    world.pass(Duration::from_secs(4));
    assert_eq!(world.condition("web", "Announced"), pair("False", "NoHolder"));
}

#[test]
fn nobody_is_given_an_address_before_the_nodes_are_known() {
    let mut world = World::new();
    world.pool("default", &json!({"addresses": ["10.0.0.0/30"]}));
    world.advertisement("ad", &json!({"nodeSelectors": [{"matchLabels": {"node": "n2"}}]}));
    world.list_all_but_nodes();
    world.service("web", &json!({}), &json!({}));
    world.pass(Duration::from_secs(3));
    assert_eq!(world.writes, Vec::<&str>::new(), "it may be a node's own");
    world.nodes();
    assert_eq!(world.shows("web"), ["10.0.0.0"]);
    assert_eq!(world.listed_nodes("10.0.0.0"), ["n2"]);
}

#[test]
fn an_advertisement_that_is_replaced_does_not_open_its_pool_meanwhile() {
    let mut world = World::running(&["10.0.0.0/30"]);
    let on = |node: &str| json!({"nodeSelectors": [{"matchLabels": {"node": node}}]});
    world.advertisement("ad", &on("n2"));
    world.service("web", &json!({}), &json!({}));
    world.delete_advertisement("ad");
    world.pass(Duration::from_secs(10));
    assert_eq!(world.listed_nodes("10.0.0.0"), ["n2"]);
    world.advertisement("new", &on("n3"));
    assert_eq!(world.listed_nodes("10.0.0.0"), ["n3"]);
    world.delete_advertisement("new");
    world.pass(Duration::from_secs(40));
    assert_eq!(world.listed_nodes("10.0.0.0"), Vec::<String>::new(), "everywhere, once it is meant");
}

#[test]
fn an_advertisement_that_a_new_process_cannot_read_opens_nothing() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.advertisement("ad", &json!({"nodeSelectors": [{"matchLabels": {"node": "n2"}}]}));
    world.service("web", &json!({}), &json!({}));
    let unreadable = json!({"nodeSelectors": [{"matchExpressions": [{"key": "node", "operator": "in", "values": ["n2"]}]}]});
    world.advertisement("ad", &unreadable);
    assert_eq!(world.listed_nodes("10.0.0.0"), ["n2"], "the last good meaning");
    world.restart();
    world.pass(Duration::from_secs(10));
    assert_eq!(world.listed_nodes("10.0.0.0"), ["n2"], "what stands there, as nobody knows better");
    world.advertisement("ad", &json!({"nodeSelectors": [{"matchLabels": {"node": "n3"}}]}));
    assert_eq!(world.listed_nodes("10.0.0.0"), ["n3"]);
}

#[test]
fn an_advertisement_says_what_it_selects_in_vain() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.advertisement("unknown", &json!({"ipAddressPools": ["default", "nope"]}));
    world.advertisement("nobody", &json!({"nodeSelectors": [{"matchLabels": {"node": "n9"}}]}));
    world.advertisement("fine", &json!({"ipAddressPools": ["default"]}));
    world.pass(Duration::from_secs(2));
    assert_eq!(world.advertisement_reason("unknown"), "UnknownPool");
    assert_eq!(world.advertisement_reason("nobody"), "NoNodeSelected");
    assert_eq!(world.advertisement_reason("fine"), "InForce");
}

#[test]
fn local_traffic_policy_follows_the_endpoints() {
    let mut world = World::running(&["10.0.0.0/30"]);
    assert!(!world.core.needs_endpoints());
    world.service("web", &json!({}), &json!({"externalTrafficPolicy": "Local"}));
    assert!(world.core.needs_endpoints());
    world.endpoints("web", &["n1", "n3"]);
    assert_eq!(world.listed_nodes("10.0.0.0"), ["n1", "n3"]);
    world.endpoints("web", &["n2"]);
    assert_eq!(world.listed_nodes("10.0.0.0"), ["n2"]);
}

#[test]
fn a_reservation_serves_only_its_service_and_outlives_it() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.reserve("10.0.0.2", &json!({"namespace": "shop", "name": "web"}));
    assert_eq!(
        world.address("10.0.0.2").unwrap().spec.pool.as_deref(),
        Some("default"),
        "filed under its pool"
    );
    world.service("thief", &json!({"heraldlb.io/loadBalancerIPs": "10.0.0.2"}), &json!({}));
    assert_eq!(world.condition("thief", "Allocated"), pair("False", "AddressReserved"));
    for _ in 0..2 {
        world.service("web", &json!({}), &json!({}));
        assert_eq!(world.shows("web"), ["10.0.0.2"]);
        world.delete_service("web");
        assert_eq!(world.users("10.0.0.2"), Vec::<String>::new());
    }
    world.reserve("10.0.0.3", &json!({"namespace": "shop", "sharingKey": "front"}));
    world.service("three", &json!({"heraldlb.io/loadBalancerIPs": "10.0.0.3"}), &json!({}));
    assert_eq!(world.condition("three", "Allocated"), pair("False", "AddressReserved"));
}

#[test]
fn a_new_uid_under_an_old_name_inherits_nothing() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.service("web", &json!({}), &json!({}));
    world.hold();
    world.delete_service("web");
    world.service("web", &json!({}), &json!({}));
    world.let_go();
    world.pass(Duration::from_secs(5));
    world.check();
    assert_eq!(world.shows("web").len(), 1);
}

#[test]
fn an_older_list_does_not_undo_what_was_just_written() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.service("web", &json!({}), &json!({}));
    world.settle();
    world.core.handle(
        super::Now { monotonic: std::time::Instant::now(), wall: k8s_openapi::jiff::Timestamp::UNIX_EPOCH },
        super::Event::Addresses(herald_runtime::watch::Change::Replaced(Vec::new())),
    );
    world.pass(Duration::from_secs(1));
    assert_eq!(world.writes, Vec::<&str>::new(), "a live GET finds it");
    assert_eq!(world.users("10.0.0.0"), ["web"]);
}

#[test]
fn revisions_start_above_everything_that_was_written_before() {
    let mut world = World::new();
    world.pool("default", &json!({"addresses": ["10.0.0.0/30"]}));
    world.start();
    world.service("web", &json!({}), &json!({}));
    assert!(world.address("10.0.0.0").unwrap().spec.revision >= 100);
}

#[test]
fn a_result_for_a_former_service_of_the_name_answers_nothing_for_its_successor() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.hold();
    world.service("web", &json!({"heraldlb.io/address-pool": "nope"}), &json!({}));
    world.delete_service("web");
    world.service("web", &json!({"heraldlb.io/address-pool": "nope"}), &json!({}));
    world.let_go();
    assert_eq!(world.condition("web", "Allocated"), pair("False", "UnknownPool"));
    world.service("web", &json!({}), &json!({}));
    assert_eq!(world.shows("web"), ["10.0.0.0"]);
    world.check();
}

#[test]
fn endpoints_that_become_ready_while_the_status_is_written_count() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.endpoints("web", &[]);
    world.hold_statuses();
    world.service("web", &json!({}), &json!({"externalTrafficPolicy": "Local"}));
    assert_eq!(world.listed_nodes("10.0.0.0"), Vec::<String>::new());
    world.one_slice("web", &["n2"]);
    world.let_go();
    assert_eq!(world.shows("web"), ["10.0.0.0"]);
    assert_eq!(world.listed_nodes("10.0.0.0"), ["n2"]);
}

#[test]
fn what_the_api_server_refused_for_a_while_is_written_when_it_no_longer_does() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.service("web", &json!({}), &json!({}));
    world.held_by("10.0.0.0", Some("n1"));
    world.settle();
    world.refuses = true;
    world.advertisement("ad", &json!({"nodeSelectors": [{"matchLabels": {"node": "n2"}}]}));
    world.pool("second", &json!({"addresses": ["10.0.1.0/30"]}));
    world.held_by("10.0.0.0", None);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.writes, Vec::<&str>::new());
    world.refuses = false;
    world.pass(Duration::from_secs(61));
    assert_eq!(world.listed_nodes("10.0.0.0"), ["n2"]);
    assert_eq!(world.condition("web", "Announced"), pair("False", "NoHolder"));
    assert_eq!(world.pool_condition("second"), pair("True", "InForce"));
    assert_eq!(world.advertisement_reason("ad"), "InForce");
}

#[test]
fn an_answer_after_a_deletion_brings_nothing_back() {
    let mut world = World::running(&["10.0.0.0/30"]);
    let pinned = json!({"nodeSelectors": [{"matchLabels": {"node": "n2"}}]});
    world.advertisement("ad", &pinned);
    world.service("web", &json!({}), &json!({}));
    world.settle();
    world.delete_advertisement_before_the_answer("ad");
    world.pass(Duration::from_secs(40));
    assert_eq!(world.listed_nodes("10.0.0.0"), Vec::<String>::new(), "it limits nothing any more");
}

#[test]
fn another_controllers_service_that_changes_its_type_keeps_no_conditions_of_ours() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.service("web", &json!({"heraldlb.io/address-pool": "nope"}), &json!({}));
    world.edit_ingress("web", Some("192.0.2.9"), Some("cloud-provider"));
    world.pass(Duration::from_secs(1));
    assert!(world.has_marks("web"));
    world.service("web", &json!({}), &json!({"type": "ClusterIP"}));
    assert!(!world.has_marks("web"));
}

#[test]
fn a_local_service_without_endpoint_is_told_to_look_at_its_pods() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.endpoints("web", &[]);
    world.service("web", &json!({}), &json!({"externalTrafficPolicy": "Local"}));
    assert_eq!(world.condition("web", "Announced"), pair("False", "NoNodeQualifies"));
    assert!(world.message("web", "Announced").contains("look at the Service's pods"));
}

#[test]
fn a_write_that_is_refused_for_long_is_tried_ever_more_rarely() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.refuses = true;
    world.service("web", &json!({}), &json!({}));
    for _ in 0..600 {
        world.pass(Duration::from_secs(1));
    }
    // After 1, 2, 4, .. 32 s, then each minute: once for the allocator, once for what else the status shows.
    assert!((2..=27).contains(&world.refused), "{} tries in ten minutes", world.refused);
}

#[test]
fn a_fresh_refusal_is_tried_again_soon_beside_a_rival_that_stays() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.service("web", &json!({}), &json!({}));
    world.edit_ingress("web", Some("192.0.2.9"), Some("cloud-provider"));
    for _ in 0..10 {
        world.pass(Duration::from_mins(1));
    }
    world.refuses = true;
    world.service("fresh", &json!({}), &json!({}));
    world.refuses = false;
    world.pass(Duration::from_secs(2));
    assert_eq!(world.shows("fresh"), ["10.0.0.1"]);
}

#[test]
fn an_annotation_that_came_with_a_manifest_is_left_alone_while_there_is_no_address() {
    let mut world = World::running(&["10.0.0.0/32"]);
    world.service("first", &json!({}), &json!({}));
    world.service("web", &json!({}), &json!({}));
    world.settle();
    // A loop would never come back from here.
    world.apply_exported("web", "default");
    world.pass(Duration::from_mins(10));
    assert_eq!(world.writes, Vec::<&str>::new());
    world.delete_service("first");
    assert_eq!(world.shows("web"), ["10.0.0.0"]);
}

#[test]
fn a_write_whose_answer_does_not_show_it_is_repeated_ever_more_rarely() {
    let mut world = World::running(&["10.0.0.0/30"]);
    world.drops = Some(Dropped::Pool);
    world.service("web", &json!({}), &json!({}));
    for _ in 0..600 {
        world.pass(Duration::from_millis(100));
    }
    let writes = world.writes.iter().filter(|write| **write == "status").count();
    assert!((3..=12).contains(&writes), "{writes} writes in a minute");
    world.drops = None;
    world.pass(Duration::from_mins(6));
    world.settle();
    world.pass(Duration::from_mins(20));
    assert_eq!((world.writes.len(), world.shows("web")), (0, vec!["10.0.0.0".to_owned()]));
}
