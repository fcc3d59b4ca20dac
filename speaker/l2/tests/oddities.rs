//! Networks and APIs that are not as one would like them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test support: whatever is wrong fails the test"
)]

mod lan;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use herald_l2::{Core, Event, Input, Interface, Lifecycle, MacAddr, NodeState, Nodes, Output, ReleaseReason};
use herald_wire::arp::Arp;
use herald_wire::{Ethernet, Payload};
use lan::{IFINDEX, Lan, at, config, interface, mac, name, spec};

const VIP: &str = "10.0.1.1";

#[test]
fn with_hellos_filtered_and_arp_passing_one_node_holds_the_address() {
    for seed in 0..10 {
        let mut lan = Lan::new(3);
        lan.seed(seed + 1);
        lan.hellos_filtered = true;
        lan.run_for(u64::from(u8::try_from(seed).unwrap()) * 97);
        let mut listed = spec(VIP, 1);
        listed.nodes = Nodes::Listed((0..3).map(name).collect());
        lan.run_for(5_000);
        lan.spec_everywhere(&listed);
        lan.run_for(20_000);
        let holder = lan.holder(VIP);
        assert!(
            lan.log.iter().any(|(_, _, event)| matches!(event, Event::PeersUnheard { unheard: true, .. }))
        );
        // And when it dies, another finds out by asking.
        lan.kill(holder);
        lan.run_for(20_000);
        assert_ne!(lan.holder(VIP), holder);
        // Heard again: nothing moves.
        lan.hellos_filtered = false;
        let holder = lan.holder(VIP);
        lan.run_for(5_000);
        assert_eq!(lan.holder(VIP), holder);
    }
}

/// The controller's default lets all nodes hold an address: that others are there stands in `status.holders` only, as
/// soon as they hold something, too.
#[test]
fn with_hellos_filtered_nodes_that_claimed_unknown_to_each_other_come_down_to_one() {
    for seed in 0..10 {
        let mut lan = Lan::new(3);
        lan.seed(seed + 1);
        lan.hellos_filtered = true;
        lan.run_for(5_000);
        lan.spec_everywhere(&spec(VIP, 1));
        let status_follows = |lan: &mut Lan, seconds: u64| {
            for _ in 0..seconds * 2 {
                lan.run_for(500);
                let mut seen = spec(VIP, 1);
                seen.holders_hint = lan.holders(VIP).into_iter().map(name).collect();
                lan.spec_everywhere(&seen);
            }
        };
        // The API server may be away for a while.
        lan.run_for(if seed % 2 == 0 { 0 } else { 150_000 });
        status_follows(&mut lan, 20);
        let holder = lan.holder(VIP);
        // And when it dies, another finds out by asking.
        lan.kill(holder);
        status_follows(&mut lan, 30);
        assert_ne!(lan.holder(VIP), holder);
    }
}

#[test]
fn strangers_who_speak_as_an_address_do_not_put_off_the_end_of_its_spec() {
    let mut lan = Lan::new(1);
    lan.spec_everywhere(&spec(VIP, 1));
    lan.run_for(3_000);
    lan.holder(VIP);
    lan.input(0, Input::SpecDeleted(VIP.parse().unwrap()));
    let deleted = lan.now;
    let stranger = MacAddr(2, 0, 0, 0, 0, 0x99);
    for _ in 0..300 {
        let frame =
            Arp::gratuitous_request(VIP.parse().unwrap(), stranger).to_frame(Ethernet::broadcast(stranger));
        lan.transmit(usize::MAX, frame);
        lan.run_for(10);
    }
    let released = lan.log.iter().find(|(_, _, event)| matches!(event, Event::Released { .. })).unwrap();
    assert_eq!(released.0.since(deleted), Duration::from_secs(2));
    // A minute after its last frame the stranger is gone.
    lan.run_for(70_000);
    assert!(lan.log.iter().any(|(_, _, event)| matches!(event, Event::ConflictOver { .. })));
}

#[test]
fn somebody_who_probes_for_an_address_being_probed_for_gets_it() {
    let mut lan = Lan::new(1);
    lan.run_for(3_000);
    let mut careful = spec(VIP, 1);
    careful.conflict_detection = true;
    lan.spec_everywhere(&careful);
    lan.run_for(60);
    let stranger = MacAddr(2, 0, 0, 0, 0, 0x99);
    let probe = Arp::probe(VIP.parse().unwrap(), stranger).to_frame(Ethernet::broadcast(stranger));
    lan.transmit(usize::MAX, probe);
    lan.run_for(5_000);
    assert!(lan.holders(VIP).is_empty());
    assert!(lan.log.iter().any(|(_, _, event)| matches!(event, Event::Conflict { held: false, .. })));
}

#[test]
fn a_peer_that_has_just_died_is_no_stranger() {
    let mut lan = Lan::new(3);
    lan.run_for(1_500);
    lan.spec_everywhere(&spec(VIP, 1));
    lan.run_for(1_000);
    let died = lan.holder(VIP);
    lan.kill(died);
    lan.run_for(1_000);
    assert_ne!(lan.holder(VIP), died);
    let late =
        Arp::gratuitous_request(VIP.parse().unwrap(), mac(died)).to_frame(Ethernet::broadcast(mac(died)));
    lan.transmit(usize::MAX, late);
    lan.run_for(1_000);
    assert!(!lan.log.iter().any(|(_, _, event)| matches!(event, Event::Conflict { .. })));
}

#[test]
fn an_interface_that_goes_and_is_back_at_once_holds_up_nothing() {
    let mut lan = Lan::new(3);
    lan.run_for(1_500);
    lan.spec_everywhere(&spec(VIP, 1));
    lan.run_for(1_000);
    let holder = lan.holder(VIP);
    lan.input(holder, Input::Interfaces(Vec::new()));
    lan.input(holder, Input::Interfaces(vec![interface(holder)]));
    assert!(lan.holders(VIP).is_empty());
    // Before it has listened to its end, another has learnt that nobody holds the address.
    lan.run_for(700);
    assert_ne!(lan.holder(VIP), holder);
}

/// One node with two interfaces on one segment: what it sends on either comes in on the other.
#[test]
fn of_two_interfaces_on_one_segment_the_higher_one_falls_silent() {
    let mut core = Core::new(config(0, 1), at(0));
    // The higher one would be first by metric.
    let second = Interface { ifindex: 3, name: "eth1".into(), mac: mac(7), metric: 1, ..interface(0) };
    core.handle(at(0), Input::Interfaces(vec![interface(0), second]));
    core.handle(at(0), Input::SpecApplied(spec(VIP, 1).into()));
    let mut same_segment = 0;
    let mut spoke = Vec::new();
    for millis in 0..4_000 {
        let now = at(millis);
        let _ = core.begin_turn(now);
        core.handle_timeout(now);
        while let Some(output) = core.poll_output() {
            match output {
                Output::Transmit { ifindex, bytes } => {
                    spoke.push((millis, ifindex));
                    let other = if ifindex == IFINDEX { 3 } else { IFINDEX };
                    core.handle(now, Input::Frame { ifindex: other, bytes: &bytes });
                }
                Output::Event(Event::SameSegment { used: 2, idle: 3 }) => same_segment += 1,
                Output::Event(Event::SameSegment { .. }) => panic!("the lower one goes on"),
                _ => {}
            }
        }
    }
    assert_eq!(same_segment, 1);
    let held: Vec<u32> = core.holdings().iter().map(|holding| holding.ifindex).collect();
    assert_eq!(held, [IFINDEX], "what the idle one would carry");
    assert!(spoke.iter().any(|(millis, ifindex)| *millis > 3_000 && *ifindex == IFINDEX));
    assert!(!spoke.iter().any(|(millis, ifindex)| *millis > 1_000 && *ifindex == 3));
}

#[test]
fn a_list_that_lost_more_than_half_is_believed_only_when_it_says_so_again() {
    let vips = ["10.0.1.1", "10.0.1.2", "10.0.1.3"];
    let specs: Vec<Arc<_>> = vips.iter().map(|vip| spec(vip, 1).into()).collect();
    let mut lan = Lan::new(1);
    lan.input(0, Input::SpecsReplaced(specs.clone()));
    lan.run_for(3_000);
    assert_eq!(lan.nodes[0].core.holdings().len(), 3);
    lan.input(0, Input::SpecsReplaced(Vec::new()));
    lan.run_for(9_000);
    assert_eq!(lan.nodes[0].core.holdings().len(), 3, "an empty list may be an empty cache");
    assert!(lan.log.iter().any(|(_, _, event)| *event == Event::ListShrank { known: 3, listed: 0 }));
    lan.run_for(1_500);
    lan.input(0, Input::SpecsReplaced(specs[..1].to_vec()));
    lan.run_for(2_500);
    let held: Vec<String> =
        lan.nodes[0].core.holdings().iter().map(|holding| holding.vip.to_string()).collect();
    assert_eq!(held, ["10.0.1.1"]);
}

#[test]
fn what_a_doubted_list_lacks_is_kept_and_not_taken() {
    let specs: Vec<Arc<_>> = ["10.0.1.1", "10.0.1.2", "10.0.1.3"].map(|vip| spec(vip, 1).into()).into();
    let mut lan = Lan::new(2);
    for node in 0..2 {
        lan.input(node, Input::SpecsReplaced(specs.clone()));
    }
    lan.run_for(3_000);
    let held = |lan: &Lan, node: usize| lan.nodes[node].core.holdings().len();
    let (some, rest) = (held(&lan, 0), held(&lan, 1));
    assert_eq!(some + rest, 3);
    lan.input(1, Input::SpecsReplaced(Vec::new()));
    lan.run_for(2_000);
    assert_eq!(held(&lan, 1), rest, "kept");
    lan.kill(0);
    lan.run_for(2_000);
    assert_eq!(held(&lan, 1), rest, "what the other held may be deleted");
    lan.input(1, Input::SpecsReplaced(specs));
    lan.run_for(500);
    assert_eq!(held(&lan, 1), 3, "believed again");
}

#[test]
fn an_older_revision_changes_nothing() {
    let mut lan = Lan::new(1);
    lan.spec_everywhere(&spec(VIP, 9));
    lan.run_for(2_000);
    let mut stale = spec(VIP, 8);
    stale.nodes = Nodes::Listed([].into());
    lan.spec_everywhere(&stale);
    lan.run_for(3_000);
    assert_eq!(lan.holder(VIP), 0);
}

#[test]
fn excluded_nodes_give_up_unless_all_are_excluded_and_cordoned_ones_come_last() {
    let mut lan = Lan::new(2);
    lan.run_for(1_500);
    lan.spec_everywhere(&spec(VIP, 1));
    lan.run_for(1_000);
    let holder = lan.holder(VIP);
    lan.input(holder, Input::Node(NodeState { excluded: true, ..NodeState::default() }));
    lan.run_for(1_500);
    let other = lan.holder(VIP);
    assert_ne!(other, holder);
    // All are excluded: the controller says that it counts for nothing.
    let mut ignoring = spec(VIP, 2);
    ignoring.ignore_exclusion = true;
    lan.spec_everywhere(&ignoring);
    lan.input(other, Input::Node(NodeState { excluded: true, ..NodeState::default() }));
    lan.run_for(2_000);
    assert_eq!(lan.holder(VIP), other);
    // Out of service is absolute; the other takes it although it is cordoned.
    lan.input(holder, Input::Node(NodeState { cordoned: true, ..NodeState::default() }));
    lan.input(other, Input::Node(NodeState { out_of_service: true, ..NodeState::default() }));
    lan.run_for(2_000);
    assert_eq!(lan.holder(VIP), holder);
}

#[test]
fn a_newer_spec_takes_the_address_from_a_holder_that_has_not_heard_of_it() {
    let mut lan = Lan::new(3);
    lan.run_for(1_500);
    lan.spec_everywhere(&spec(VIP, 1));
    lan.run_for(1_000);
    let holder = lan.holder(VIP);
    let mut without = spec(VIP, 2);
    without.nodes = Nodes::Listed((0..3).filter(|node| *node != holder).map(name).collect());
    for node in (0..3).filter(|node| *node != holder) {
        lan.input(node, Input::SpecApplied(without.clone().into()));
    }
    lan.run_for(1_000);
    let successor = lan.holder(VIP);
    assert_ne!(successor, holder);
    lan.run_for(3_000);
    assert_eq!(lan.holder(VIP), successor);
    assert_eq!(lan.claims().len(), 2);
}

#[test]
fn a_new_mac_address_is_announced_and_a_lost_interface_gives_up() {
    let mut lan = Lan::new(1);
    lan.spec_everywhere(&spec(VIP, 1));
    lan.run_for(4_000);
    let failed_over = MacAddr(2, 0, 0, 0, 0, 0x77);
    lan.frames.clear();
    lan.input(0, Input::Interfaces(vec![Interface { mac: failed_over, ..interface(0) }]));
    lan.run_for(200);
    let announced = lan.frames.iter().any(|(_, _, bytes)| {
        matches!(herald_wire::parse(bytes).unwrap().payload,
            Payload::Arp(arp) if arp.is_gratuitous() && arp.sha == failed_over)
    });
    assert!(announced);
    assert_eq!(lan.nodes[0].core.holdings()[0].mac, failed_over);
    lan.input(0, Input::Interfaces(Vec::new()));
    lan.run_for(100);
    assert_eq!(lan.nodes[0].core.holdings(), []);
    let gone = Event::Released {
        vip: VIP.parse().unwrap(),
        ifindex: IFINDEX,
        reason: ReleaseReason::InterfaceChanged,
    };
    assert!(lan.log.iter().any(|(_, _, event)| *event == gone));
}

#[test]
fn a_stopped_process_that_wakes_is_a_newcomer_and_answers_nothing() {
    let mut lan = Lan::new(1);
    lan.spec_everywhere(&spec(VIP, 1));
    lan.run_for(3_000);
    assert_eq!(lan.holder(VIP), 0);
    lan.now += Duration::from_millis(200);
    let core = &mut lan.nodes[0].core;
    assert_eq!(core.begin_turn(lan.now), herald_l2::Turn::Stalled);
    assert_eq!(core.snapshot().segments[0].state, Lifecycle::Listen);
    let question = Arp::who_has(VIP.parse().unwrap(), "10.0.0.9".parse().unwrap(), MacAddr(2, 0, 0, 0, 0, 9))
        .to_frame(Ethernet::broadcast(MacAddr(2, 0, 0, 0, 0, 9)));
    core.handle(lan.now, Input::Frame { ifindex: IFINDEX, bytes: &question });
    assert_eq!(core.counters().replies, 0);
    lan.drain(0);
    lan.run_for(3_000);
    assert_eq!(lan.holder(VIP), 0);
}

#[test]
fn an_address_without_an_interface_is_reported_and_taken_up_when_one_appears() {
    let mut lan = Lan::new(1);
    lan.spec_everywhere(&spec("192.168.7.7", 1));
    let mut elsewhere = spec("fd00:7::7", 2);
    elsewhere.interfaces = vec!["eth1".into()];
    lan.spec_everywhere(&elsewhere);
    lan.run_for(3_000);
    let stray: IpAddr = "fd00:7::7".parse().unwrap();
    assert_eq!(lan.nodes[0].core.snapshot().without_interface, [stray]);
    assert!(lan.log.iter().any(|(_, _, event)| *event == Event::NoInterface { vip: stray }));
    assert_eq!(lan.holder("192.168.7.7"), 0, "the default route's interface carries what no subnet holds");
    let second = Interface { ifindex: 3, name: "eth1".into(), mac: mac(7), ..interface(0) };
    lan.input(0, Input::Interfaces(vec![interface(0), second]));
    lan.run_for(3_000);
    assert_eq!(lan.holder("fd00:7::7"), 0);
}
