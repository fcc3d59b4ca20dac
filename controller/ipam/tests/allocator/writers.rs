//! One scenario each: what others write or delete, or the API server refuses, and what comes of it.

use std::sync::Arc;

use herald_ipam::{
    AddressRecord, Addresses, Allocator, Claim, CreatedAt, Ingress, Input, Labels, List, Output, Owner,
    PoolName, PoolSpec, PublishResult, ReleaseResult, ReleaseThen, ReleaseWhen, ServiceAllocation,
    ServiceRequest, TakeResult, Uid, Version, Wanted,
};

use crate::scenarios::settled;
use crate::world::*;

#[test]
fn what_another_leader_was_quicker_to_give_stays() {
    let mut allocator = Allocator::new();
    allocator.handle(Input::PoolApplied(pool("p", &["10.0.0.1-10.0.0.2"])));
    for list in [List::Services, List::Pools, List::Namespaces, List::Addresses] {
        allocator.handle(Input::Synced(list));
    }
    let owner = Owner { service: service("a"), uid: Uid::new("a") };
    let request = |version, shown: &[&str]| ServiceRequest {
        owner: owner.clone(),
        version: Version(version),
        created: CreatedAt(0),
        labels: Labels::default(),
        families: V4,
        wanted: Ok(anything()),
        exposure: exposure(&[80]),
        shown: shown.iter().map(|text| ip(text)).collect(),
        terminating: false,
    };
    allocator.handle(Input::ServiceApplied(request(1, &[]).into()));
    let (mine, theirs) = (ip("10.0.0.1"), ip("10.0.0.2"));
    allocator.handle(Input::ServiceApplied(request(3, &["10.0.0.2"]).into()));
    allocator.handle(Input::AddressApplied(Arc::new(AddressRecord {
        address: theirs,
        version: Version(2),
        pool: Some(PoolName::new("p")),
        services: vec![owner.clone()],
        claim: None,
        sharing: None,
        terminating: false,
    })));
    let result = TakeResult::Taken(Version(4));
    allocator.handle(Input::TakeDone { address: mine, owner: owner.clone(), result });
    let outputs: Vec<Output> = std::iter::from_fn(|| allocator.poll_output()).collect();
    let taken = |output: &Output| matches!(output, Output::Take(take) if take.address == mine);
    let given_back = |output: &Output| matches!(output, Output::Release(release) if release.address == mine);
    let shows = |output: &Output| match output {
        Output::Publish(publication) => Some(publication.ingress),
        _ => None,
    };
    assert!(outputs.iter().any(taken) && outputs.iter().any(given_back), "{outputs:?}");
    let expected = Ingress::Show([theirs].into_iter().collect());
    assert!(outputs.iter().filter_map(shows).all(|ingress| ingress == expected), "{outputs:?}");
}

#[test]
fn what_another_leader_showed_is_given_back_once_the_status_shows_something_else() {
    let mut allocator = Allocator::new();
    allocator.handle(Input::PoolApplied(pool("p", &["10.0.0.1-10.0.0.2"])));
    for list in [List::Services, List::Pools, List::Namespaces, List::Addresses] {
        allocator.handle(Input::Synced(list));
    }
    let owner = Owner { service: service("a"), uid: Uid::new("a") };
    let (mine, theirs) = (ip("10.0.0.1"), ip("10.0.0.2"));
    allocator.handle(Input::ServiceApplied(request(&owner, anything()).into()));
    allocator.handle(Input::AddressApplied(Arc::new(AddressRecord {
        address: theirs,
        version: Version(2),
        pool: Some(PoolName::new("p")),
        services: vec![owner.clone()],
        claim: None,
        sharing: None,
        terminating: false,
    })));
    let released = |allocator: &mut Allocator| {
        let outputs = std::iter::from_fn(|| allocator.poll_output());
        let address = |output| match output {
            Output::Release(release) => Some(release.address),
            _ => None,
        };
        outputs.filter_map(address).collect::<Vec<_>>()
    };
    assert_eq!(released(&mut allocator), [theirs]);
    let result = TakeResult::Taken(Version(4));
    allocator.handle(Input::TakeDone { address: mine, owner: owner.clone(), result });
    // The other leader's write was quicker, and ours comes after it.
    allocator.handle(Input::ReleaseDone { address: theirs, result: ReleaseResult::StillInUse });
    assert!(released(&mut allocator).is_empty(), "nothing new is known");
    let result = PublishResult::Published(Version(6));
    allocator.handle(Input::PublishDone { owner, result });
    assert_eq!(released(&mut allocator), [theirs]);
}

#[test]
fn what_a_status_shows_without_a_record_is_adopted_if_it_would_be_granted() {
    let closed = ServiceAllocation { namespaces: vec!["shop".into()], ..Default::default() };
    let mut world = World::open();
    world.apply_pool(pool("p", &["10.0.0.1-10.0.0.9"]));
    world.apply_pool(PoolSpec { allocation: Some(closed), ..pool("q", &["10.1.0.1-10.1.0.9"]) });
    world.create_service("young", 9, V4, anything());
    world.create_service("thief", 1, V4, anything());
    world.create_service("outside", 2, V4, anything());
    world.create_service("new", 0, V4, anything());
    world.write_status_by_hand("young", vec![ip("10.0.0.1")]);
    world.write_status_by_hand("thief", vec![ip("10.1.0.1")]);
    world.write_status_by_hand("outside", vec![ip("172.16.0.1")]);
    world.restart(|_| false);
    world.settle();
    assert_eq!(world.shown("young"), ["10.0.0.1"], "adopted before anything is given out");
    assert_eq!(world.shown("new"), ["10.0.0.2"]);
    assert_eq!(world.shown("thief"), ["10.1.0.1"], "untouched");
    assert_eq!(world.shown("outside"), ["172.16.0.1"], "untouched");
    assert!(world.refusal("thief").contains("restricted to namespaces [shop]"), "{}", world.refusal("thief"));
    assert!(world.refusal("outside").contains("lies in no pool"), "{}", world.refusal("outside"));
    assert_eq!(world.lbips.len(), 2);
}

#[test]
fn a_hand_edited_status_is_put_right() {
    let mut world = settled(&[pool("p", &["10.0.0.1-10.0.0.9"])]);
    world.create_service("a", 1, V4, anything());
    world.create_service("b", 2, V4, anything());
    world.settle();
    for edit in [vec![], vec![ip("10.0.0.2")], vec![ip("10.0.0.8")], vec![ip("10.0.0.1"), ip("10.0.0.8")]] {
        world.write_status_by_hand("a", edit.clone());
        world.settle();
        assert_eq!(world.shown("a"), ["10.0.0.1"]);
        world.write_status_by_hand("a", edit);
        world.restart(|_| false);
        world.settle();
        assert_eq!(world.shown("a"), ["10.0.0.1"]);
        assert_eq!(world.lbips.len(), 2);
    }
}

#[test]
fn a_deleted_record_of_a_live_service_is_made_again() {
    let mut world = settled(&[pool("p", &["10.0.0.1-10.0.0.9"])]);
    world.create_service("a", 1, V4, anything());
    world.create_service("b", 2, V4, anything());
    world.settle();
    world.delete_lbip(ip("10.0.0.1"));
    world.settle();
    assert_eq!((world.shown("a"), world.lbips.len()), (vec!["10.0.0.1".to_owned()], 2));
    world.delete_lbip(ip("10.0.0.1"));
    world.restart(|_| false);
    world.settle();
    assert_eq!((world.shown("a"), world.lbips.len()), (vec!["10.0.0.1".to_owned()], 2));
}

#[test]
fn an_address_that_another_leader_took_is_passed_over() {
    let mut world = settled(&[pool("p", &["10.0.0.1-10.0.0.9"])]);
    world.reserve(ip("10.0.0.1"), "other");
    world.create_service("a", 1, V4, anything());
    world.deliver(SERVICES);
    world.work(0, Fate::Works);
    world.settle();
    assert_eq!(world.shown("a"), ["10.0.0.2"]);
    world.create_service("other", 3, V4, anything());
    world.settle();
    assert_eq!(world.shown("other"), ["10.0.0.1"], "what is reserved for it comes first");
    world.delete_service("other");
    world.settle();
    assert_eq!(
        world.lbips[&ip("10.0.0.1")].claim,
        Some(Claim::Service(service("other"))),
        "a reservation outlives its user"
    );
}

#[test]
fn refused_writes_keep_everything_and_are_tried_again() {
    let mut world = settled(&[pool("p", &["10.0.0.1-10.0.0.9"])]);
    world.create_service("a", 1, V4, anything());
    world.deliver(SERVICES);
    world.work(0, Fate::Refused);
    assert_eq!(world.allocator.failed(), 1);
    world.work(0, Fate::Works);
    assert!(world.refusal("a").contains("refused to record 10.0.0.1: forbidden"), "{}", world.refusal("a"));
    world.handle(Input::Retry);
    world.work(0, Fate::Works);
    world.deliver(SERVICES);
    world.work(0, Fate::Refused);
    world.settle();
    assert_eq!(world.shown("a"), ["10.0.0.1"]);
    world.delete_service("a");
    world.deliver(SERVICES);
    world.work(0, Fate::Refused);
    assert_eq!((world.allocator.failed(), world.lbips.len()), (1, 1));
    world.settle();
    assert_eq!(world.lbips.len(), 0);
}

#[test]
fn a_record_deleted_while_its_service_moves_is_made_again() {
    let mut world = settled(&[pool("p", &["10.0.0.1-10.0.0.9"]), pool("q", &["10.1.0.1"])]);
    world.create_service("a", 1, V4, from_pool("p"));
    world.settle();
    world.ask("a", V4, from_pool("q"));
    world.deliver(SERVICES);
    assert!(matches!(world.jobs.as_slice(), [Output::Take(_)]), "{:?}", world.jobs);
    // The new address is taken by somebody else, and the old one's record is deleted.
    world.reserve(ip("10.1.0.1"), "other");
    world.delete_lbip(ip("10.0.0.1"));
    world.settle();
    assert_eq!(world.shown("a"), ["10.0.0.1"]);
    assert!(world.lbips.contains_key(&ip("10.0.0.1")), "{}", world.story());
    assert!(world.refusal("a").contains("'q' has no free IPv4 address"), "{}", world.refusal("a"));
}

#[test]
fn what_a_finalizer_holds_is_given_back_once_and_then_waited_for() {
    let mut allocator = Allocator::new();
    allocator.handle(Input::PoolApplied(pool("p", &["10.0.0.1"])));
    let (address, owner) = (ip("10.0.0.1"), Owner { service: service("gone"), uid: Uid::new("gone") });
    let record = |version, terminating| AddressRecord {
        address,
        version: Version(version),
        pool: Some(PoolName::new("p")),
        services: vec![owner.clone()],
        claim: None,
        sharing: None,
        terminating,
    };
    allocator.handle(Input::AddressApplied(record(1, false).into()));
    for list in [List::Services, List::Pools, List::Namespaces, List::Addresses] {
        allocator.handle(Input::Synced(list));
    }
    let releases = |allocator: &mut Allocator| {
        let outputs = std::iter::from_fn(|| allocator.poll_output());
        outputs.filter(|output| matches!(output, Output::Release(_))).count()
    };
    assert_eq!(releases(&mut allocator), 1);
    let result = ReleaseResult::Changed(record(2, true).into());
    for input in [
        Input::ReleaseDone { address, result },
        // A speaker takes its name off.
        Input::AddressApplied(record(3, true).into()),
        Input::Retry,
    ] {
        allocator.handle(input);
        assert_eq!(releases(&mut allocator), 0, "the object is deleted already");
    }
    // Who asks for it is told why that may take hours.
    let waits = Owner { service: service("waits"), uid: Uid::new("waits") };
    let wanted = addresses(&["10.0.0.1"]);
    allocator.handle(Input::ServiceApplied(request(&waits, wanted).into()));
    let told = std::iter::from_fn(|| allocator.poll_output()).find_map(|output| match output {
        Output::Publish(publication) => publication.refusal.map(|refusal| refusal.to_string()),
        _ => None,
    });
    assert!(told.as_ref().is_some_and(|told| told.contains("finalizers")), "{told:?}");
    allocator.handle(Input::ServiceDeleted(waits.service));
    allocator.handle(Input::AddressDeleted { address, version: Version(4) });
    allocator.handle(Input::AddressApplied(record(5, false).into()));
    assert_eq!(releases(&mut allocator), 1, "a new object is another matter");
}

#[test]
fn users_written_into_what_a_finalizer_holds_are_taken_off_it_all_the_same() {
    let mut allocator = Allocator::new();
    allocator.handle(Input::PoolApplied(pool("p", &["10.0.0.1"])));
    let address = ip("10.0.0.1");
    let [gone, written, late] =
        ["gone", "written", "late"].map(|name| Owner { service: service(name), uid: Uid::new(name) });
    let record = |version, terminating, services: &[&Owner]| AddressRecord {
        address,
        version: Version(version),
        pool: Some(PoolName::new("p")),
        services: services.iter().copied().cloned().collect(),
        claim: None,
        sharing: None,
        terminating,
    };
    allocator.handle(Input::AddressApplied(record(1, false, &[&gone]).into()));
    for list in [List::Services, List::Pools, List::Namespaces, List::Addresses] {
        allocator.handle(Input::Synced(list));
    }
    let releases = |allocator: &mut Allocator| {
        let outputs = std::iter::from_fn(|| allocator.poll_output());
        let of = |output| match output {
            Output::Release(release) => Some((release.owner, release.then)),
            _ => None,
        };
        outputs.filter_map(of).collect::<Vec<_>>()
    };
    assert_eq!(releases(&mut allocator), [(gone.clone(), ReleaseThen::Delete)]);
    let done =
        |record: AddressRecord| Input::ReleaseDone { address, result: ReleaseResult::Changed(record.into()) };
    allocator.handle(done(record(2, true, &[&gone, &written])));
    assert_eq!(releases(&mut allocator), [(gone, ReleaseThen::Leave)]);
    allocator.handle(done(record(3, true, &[&written])));
    assert_eq!(releases(&mut allocator), [(written.clone(), ReleaseThen::Delete)]);
    allocator.handle(done(record(3, true, &[&written])));
    assert_eq!(releases(&mut allocator), [], "that is all that can be done");
    allocator.handle(Input::AddressApplied(record(4, true, &[&written, &late]).into()));
    assert_eq!(releases(&mut allocator), [(written, ReleaseThen::Leave)], "until another is written into it");
}

fn request(owner: &Owner, wanted: Wanted) -> ServiceRequest {
    ServiceRequest {
        owner: owner.clone(),
        version: Version(1),
        created: CreatedAt(0),
        labels: Labels::default(),
        families: V4,
        wanted: Ok(wanted),
        exposure: exposure(&[80]),
        shown: Vec::new(),
        terminating: false,
    }
}

#[test]
fn a_user_written_by_hand_is_taken_off_although_its_service_was_heard_of_only_later() {
    let mut allocator = Allocator::new();
    allocator.handle(Input::PoolApplied(pool("p", &["10.0.0.1"])));
    let address = ip("10.0.0.1");
    let [first, thief] = ["a", "thief"].map(|name| Owner { service: service(name), uid: Uid::new(name) });
    let record = |version, services| AddressRecord {
        address,
        version: Version(version),
        pool: Some(PoolName::new("p")),
        services,
        claim: None,
        sharing: None,
        terminating: false,
    };
    let before = ServiceRequest { shown: vec![address], ..request(&first, anything()) };
    allocator.handle(Input::ServiceApplied(before.into()));
    allocator.handle(Input::AddressApplied(record(2, vec![first.clone()]).into()));
    for list in [List::Services, List::Pools, List::Namespaces, List::Addresses] {
        allocator.handle(Input::Synced(list));
    }
    let asked = |allocator: &mut Allocator| {
        let outputs = std::iter::from_fn(|| allocator.poll_output());
        outputs
            .filter_map(|output| match output {
                Output::Release(release) => Some(release.when),
                Output::Publish(publication) if publication.owner == thief => {
                    assert_eq!(publication.ingress, Ingress::Show(Addresses::default()), "not for it");
                    None
                }
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    allocator.handle(Input::AddressApplied(record(3, vec![first.clone(), thief.clone()]).into()));
    assert_eq!(asked(&mut allocator), [ReleaseWhen::ServiceGone]);
    allocator.handle(Input::ServiceApplied(request(&thief, anything()).into()));
    allocator.handle(Input::ReleaseDone { address, result: ReleaseResult::StillInUse });
    assert_eq!(asked(&mut allocator), [ReleaseWhen::NotShown]);
}
