//! Answering, with real frames: who is answered, with what, and who is not.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test support: whatever is wrong fails the test"
)]

mod lan;

use std::net::{Ipv4Addr, Ipv6Addr};

use herald_l2::{Event, Input, MacAddr, ReleaseReason};
use herald_wire::arp::{Arp, Operation};
use herald_wire::ndp::{ALL_NODES, Message, Ndp, solicited_node};
use herald_wire::{Ethernet, Payload};
use lan::{IFINDEX, Lan, mac, spec};

const VIP: &str = "10.0.1.1";
const VIP6: &str = "fd00::1:1";
const CLIENT: MacAddr = MacAddr(2, 0, 0, 0, 9, 9);

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// One node that holds both addresses; nothing else on the segment.
fn holder() -> Lan {
    let mut lan = Lan::new(1);
    lan.run_for(1_500);
    lan.spec_everywhere(&spec(VIP, 1));
    let mut six = spec(VIP6, 2);
    six.interfaces = vec!["eth*".into()];
    lan.spec_everywhere(&six);
    lan.run_for(2_000);
    assert_eq!((lan.holder(VIP), lan.holder(VIP6)), (0, 0));
    lan
}

/// What the node sends when this frame arrives, ARP and neighbour discovery only.
fn answers(lan: &mut Lan, bytes: &[u8]) -> Vec<(Ethernet, Payload<'static>)> {
    lan.frames.clear();
    lan.input(0, Input::Frame { ifindex: IFINDEX, bytes });
    lan.frames
        .iter()
        .filter_map(|(_, _, bytes)| {
            let frame = herald_wire::parse(bytes).unwrap();
            match frame.payload {
                Payload::Arp(arp) => Some((frame.ethernet, Payload::Arp(arp))),
                Payload::Ndp(ndp) => Some((frame.ethernet, Payload::Ndp(ndp))),
                _ => None,
            }
        })
        .collect()
}

fn ask(target: &str) -> Vec<u8> {
    Arp::who_has(v4(target), v4("10.0.0.100"), CLIENT).to_frame(Ethernet::broadcast(CLIENT))
}

#[test]
fn a_broadcast_question_is_answered_to_the_asker_in_the_same_call() {
    let mut lan = holder();
    let answer = answers(&mut lan, &ask(VIP));
    let expected =
        Arp { operation: Operation::Reply, sha: mac(0), spa: v4(VIP), tha: CLIENT, tpa: v4("10.0.0.100") };
    assert_eq!(answer, [(Ethernet::new(CLIENT, mac(0)), Payload::Arp(expected))]);
    let counters = lan.nodes[0].core.counters();
    assert_eq!((counters.arp_requests, counters.replies), (1, 1));
}

#[test]
fn a_unicast_question_and_a_probe_are_answered() {
    let mut lan = holder();
    let unicast = Arp::who_has(v4(VIP), v4("10.0.0.100"), CLIENT).to_frame(Ethernet::new(mac(0), CLIENT));
    assert_eq!(answers(&mut lan, &unicast).len(), 1);
    let probe = Arp::probe(v4(VIP), CLIENT).to_frame(Ethernet::broadcast(CLIENT));
    let answer = answers(&mut lan, &probe);
    assert!(matches!(answer[0].1, Payload::Arp(arp) if arp.tpa.is_unspecified() && arp.sha == mac(0)));
}

#[test]
fn nothing_is_answered_for_what_is_not_held() {
    let mut lan = holder();
    assert_eq!(answers(&mut lan, &ask("10.0.1.2")), []);
    assert_eq!(answers(&mut lan, &ask("10.0.0.1")), [], "the kernel's own address is the kernel's");
    assert_eq!(lan.nodes[0].core.counters().ignored, 2);
}

#[test]
fn a_question_from_a_multicast_or_empty_sender_is_not_answered() {
    let mut lan = holder();
    for sha in [MacAddr::zero(), MacAddr::broadcast(), MacAddr(0x33, 0x33, 0, 0, 0, 1)] {
        let question = Arp::who_has(v4(VIP), v4("10.0.0.100"), sha).to_frame(Ethernet::broadcast(CLIENT));
        assert_eq!(answers(&mut lan, &question), [], "{sha}");
    }
}

#[test]
fn neighbour_solicitations_are_answered_with_override() {
    let mut lan = holder();
    let asker = v6("fd00::100");
    let multicast =
        Ndp::who_has(v6(VIP6), asker, CLIENT).to_frame(Ethernet::multicast(solicited_node(v6(VIP6)), CLIENT));
    let unicast = Ndp::who_has_unicast(v6(VIP6), asker, CLIENT).to_frame(Ethernet::new(mac(0), CLIENT));
    for question in [multicast, unicast] {
        let answer = answers(&mut lan, &question);
        let (ethernet, Payload::Ndp(ndp)) = &answer[0] else { panic!("{answer:?}") };
        assert_eq!(ethernet.destination, CLIENT);
        assert_eq!((ndp.source, ndp.destination), (v6(VIP6), asker));
        assert!(
            matches!(ndp.message, Message::Advertisement { target_mac: Some(to), solicited: true, overrides: true, .. } if to == mac(0)),
            "{ndp:?}"
        );
    }
}

#[test]
fn a_duplicate_address_probe_is_answered_to_everybody() {
    let mut lan = holder();
    let probe = Ndp::probe(v6(VIP6)).to_frame(Ethernet::multicast(solicited_node(v6(VIP6)), CLIENT));
    let answer = answers(&mut lan, &probe);
    let (ethernet, Payload::Ndp(ndp)) = &answer[0] else { panic!("{answer:?}") };
    assert_eq!(ethernet.destination, MacAddr(0x33, 0x33, 0, 0, 0, 1));
    assert_eq!(ndp.destination, ALL_NODES);
    assert!(matches!(ndp.message, Message::Advertisement { solicited: false, overrides: true, .. }));
}

#[test]
fn a_foreign_owner_is_reported_once_and_defended_against_once_in_ten_seconds() {
    let mut lan = holder();
    let theirs = Arp::gratuitous_request(v4(VIP), CLIENT).to_frame(Ethernet::broadcast(CLIENT));
    for _ in 0..50 {
        lan.input(0, Input::Frame { ifindex: IFINDEX, bytes: &theirs });
        lan.run_for(100);
    }
    let conflicts =
        lan.log.iter().filter(|(_, _, event)| matches!(event, Event::Conflict { held: true, .. })).count();
    assert_eq!(conflicts, 1);
    let defended = lan
        .frames
        .iter()
        .filter(|(at, _, bytes)| {
            lan.now.since(*at).as_millis() <= 5_000
                && matches!(herald_wire::parse(bytes), Ok(frame) if matches!(frame.payload,
                    Payload::Arp(arp) if arp.is_gratuitous() && arp.sha == mac(0)))
        })
        .count();
    assert_eq!(defended, 1, "RFC 5227: DEFEND_INTERVAL");
    assert_eq!(lan.holder(VIP), 0);
}

#[test]
fn an_address_that_a_foreign_host_owns_is_not_claimed() {
    let mut lan = Lan::new(1);
    lan.run_for(1_500);
    let mut careful = spec(VIP, 1);
    careful.conflict_detection = true;
    lan.spec_everywhere(&careful);
    // The owner answers the first probe.
    lan.run_for(20);
    let answer =
        Arp { operation: Operation::Reply, sha: CLIENT, spa: v4(VIP), tha: mac(0), tpa: v4("0.0.0.0") };
    let bytes = answer.to_frame(Ethernet::new(mac(0), CLIENT));
    lan.input(0, Input::Frame { ifindex: IFINDEX, bytes: &bytes });
    lan.run_for(5_000);
    assert_eq!(lan.holders(VIP), []);
    let found = |event: &Event| matches!(event, Event::Conflict { held: false, mac, .. } if *mac == CLIENT);
    assert_eq!(lan.log.iter().filter(|(_, _, event)| found(event)).count(), 1);
    // It goes away: ours after the next probes.
    lan.run_for(20_000);
    assert_eq!(lan.holder(VIP), 0);
    let over = |event: &Event| matches!(event, Event::ConflictOver { .. });
    assert_eq!(lan.log.iter().filter(|(_, _, event)| over(event)).count(), 1, "still said to be another's");
}

#[test]
fn probes_delay_the_first_claim_by_150_ms_and_no_other() {
    let mut lan = Lan::new(2);
    lan.run_for(1_500);
    let mut careful = spec(VIP, 1);
    careful.conflict_detection = true;
    let asked = lan.now;
    lan.spec_everywhere(&careful);
    lan.run_for(1_000);
    let first = lan.claims()[0].0.since(asked).as_millis();
    assert!((150..=220).contains(&first), "{first} ms");
    let holder = lan.holder(VIP);
    let left = lan.now;
    lan.input(holder, Input::Leave);
    lan.run_for(500);
    assert!(lan.claims()[1].0.since(left).as_millis() < 5);
}

#[test]
fn a_deleted_spec_is_answered_for_two_more_seconds_in_case_it_returns() {
    let mut lan = holder();
    lan.input(0, Input::SpecDeleted(VIP.parse().unwrap()));
    lan.run_for(1_900);
    assert_eq!(answers(&mut lan, &ask(VIP)).len(), 1);
    lan.spec_everywhere(&spec(VIP, 5));
    lan.run_for(5_000);
    assert_eq!(lan.holder(VIP), 0);
    lan.input(0, Input::SpecDeleted(VIP.parse().unwrap()));
    lan.run_for(2_100);
    assert_eq!(answers(&mut lan, &ask(VIP)), []);
    let deleted = |event: &Event| matches!(event, Event::Released { reason: ReleaseReason::SpecDeleted, .. });
    assert_eq!(lan.log.iter().filter(|(_, _, event)| deleted(event)).count(), 1);
}

#[test]
fn a_hundred_thousand_questions_at_ten_thousand_addresses_are_all_answered() {
    // Not a limit (timing is not asserted in tests); the figure is printed for whoever looks.
    let mut lan = holder();
    for n in 0..10_000u32 {
        let vip = format!("10.0.{}.{}", 16 + n / 250, 1 + n % 250);
        lan.spec_everywhere(&spec(&vip, 10 + u64::from(n)));
    }
    lan.run_for(3_000);
    let question = ask("10.0.20.20");
    let core = &mut lan.nodes[0].core;
    let now = lan.now;
    let start = std::time::Instant::now();
    for _ in 0..100_000 {
        core.handle(now, Input::Frame { ifindex: IFINDEX, bytes: &question });
        while core.poll_output().is_some() {}
    }
    println!("answering at 10,000 VIPs: {:?} each", start.elapsed() / 100_000);
    assert!(core.counters().replies >= 100_000);
}
