//! A speaker is gone and its machine is not: who keeps what, for how long, and what clients are told (rules A22, A23,
//! A44, A45).

mod lan;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use herald_l2::{Event, Gone, Input, MacAddr, NodeState, Nodes, VipSpec};
use herald_wire::arp::Arp;
use herald_wire::{Ethernet, Payload, echo};
use lan::{Lan, Machine, mac, name, spec};

const VIP: &str = "10.0.1.1";
const CLIENT: MacAddr = MacAddr(2, 0, 0, 0, 9, 9);

fn started(nodes: usize, machine: Machine) -> (Lan, usize) {
    let mut lan = Lan::new(nodes);
    lan.machines = vec![machine; nodes];
    lan.run_for(1_500);
    lan.spec_everywhere(&spec(VIP, 1));
    lan.run_for(2_000);
    let holder = lan.holder(VIP);
    (lan, holder)
}

fn claimed_after(lan: &Lan, began: herald_l2::Instant) -> Vec<Duration> {
    lan.claims().iter().filter(|(at, ..)| *at > began).map(|(at, ..)| at.since(began)).collect()
}

fn between(times: &[Duration], low: u64, high: u64) {
    let (low, high) = (Duration::from_millis(low), Duration::from_millis(high));
    assert!(
        matches!(times, [one] if *one >= low && *one <= high),
        "{times:?}, not one in {low:?} to {high:?}"
    );
}

/// Who-has from a client, as seen by all.
fn ask(lan: &mut Lan, ethernet: Ethernet) -> Vec<(usize, Arp, Ethernet)> {
    let vip = Ipv4Addr::new(10, 0, 1, 1);
    let begin = lan.frames.len();
    let question = Arp::who_has(vip, [10, 0, 0, 99].into(), CLIENT).to_frame(ethernet);
    lan.transmit(usize::MAX, question);
    lan.run_for(2);
    let answers = lan.frames.iter().skip(begin).filter_map(|(_, from, bytes)| {
        let frame = herald_wire::parse(bytes).ok()?;
        match frame.payload {
            Payload::Arp(arp) if arp.spa == vip && arp.tha == CLIENT => Some((*from, arp, frame.ethernet)),
            _ => None,
        }
    });
    answers.collect()
}

#[test]
fn a_killed_speakers_address_stays_for_5_s_while_its_machine_answers_echo_and_for_2_while_it_answers_arp() {
    for (machine, kept) in [(Machine::Answers, 5_000), (Machine::AnswersArpOnly, 2_000)] {
        let (mut lan, holder) = started(3, machine);
        let began = lan.now;
        lan.kill(holder);
        lan.run_for(kept);
        assert_eq!(claimed_after(&lan, began), [], "{machine:?}");
        lan.run_for(1_000);
        between(&claimed_after(&lan, began), kept, kept + 200);
    }
}

#[test]
fn a_restart_that_was_announced_is_waited_for_10_s_where_only_arp_is_answered() {
    let (mut lan, holder) = started(3, Machine::AnswersArpOnly);
    let began = lan.now;
    lan.input(holder, Input::Shutdown);
    lan.run_for(50);
    lan.kill(holder);
    lan.run_for(12_000);
    between(&claimed_after(&lan, began), 10_000, 10_200);
}

#[test]
fn a_switch_that_answers_arp_for_a_dead_machine_keeps_nothing_for_it() {
    let (mut lan, holder) = started(3, Machine::AnsweredForBySwitch);
    let began = lan.now;
    lan.kill(holder);
    lan.run_for(1_000);
    between(&claimed_after(&lan, began), 80, 122);
}

/// The holder is away; another node, that starts only now, learns of it from the third. Then the address is its alone.
#[test]
fn nothing_is_kept_for_a_node_that_a_newer_spec_excludes() {
    for the_heir_knows_it in [true, false] {
        let (mut lan, holder) = started(3, Machine::Answers);
        let heir = (holder + 1) % 3;
        lan.input(holder, Input::Shutdown);
        lan.run_for(50);
        lan.kill(holder);
        if !the_heir_knows_it {
            lan.restart(heir, 99);
            lan.input(heir, Input::SpecApplied(Arc::new(spec(VIP, 1))));
            lan.run_for(2_500);
        }
        let began = lan.now;
        lan.run_for(1);
        let listed = Nodes::Listed([name(heir)].into());
        let excludes = VipSpec { nodes: listed, holders_hint: vec![name(holder)], ..spec(VIP, 2) };
        lan.spec_everywhere(&excludes);
        lan.run_for(1_500);
        between(&claimed_after(&lan, began), 0, 1_000);
        assert_eq!(lan.holder(VIP), heir);
    }
}

#[test]
fn deputies_need_not_be_nodes_that_may_hold_the_address() {
    let (mut lan, holder) = started(4, Machine::Answers);
    let only = VipSpec { nodes: Nodes::Listed([name(holder)].into()), ..spec(VIP, 2) };
    lan.spec_everywhere(&only);
    lan.run_for(100);
    lan.input(holder, Input::Shutdown);
    lan.run_for(20);
    lan.kill(holder);
    let answers = ask(&mut lan, Ethernet::broadcast(CLIENT));
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert!(answers.iter().all(|(from, arp, _)| *from != holder && arp.sha == mac(holder)));
}

#[test]
fn a_speaker_that_dies_again_and_again_before_it_is_active_is_followed() {
    let (mut lan, holder) = started(3, Machine::Answers);
    let began = lan.now;
    for seed in 50..70 {
        lan.kill(holder);
        lan.run_for(300);
        lan.restart(holder, seed);
        lan.run_for(700);
    }
    // 5 s from the first crash, and the time that the last start of these may listen.
    between(&claimed_after(&lan, began), 5_000, 8_000);
}

/// Clients on its side of a split have not heard its successor (rule A39).
#[test]
fn what_was_taken_from_one_that_did_not_come_back_is_announced_again_when_it_does() {
    let (mut lan, holder) = started(3, Machine::Answers);
    lan.input(holder, Input::Shutdown);
    lan.run_for(50);
    lan.kill(holder);
    lan.machines[holder] = Machine::Off;
    lan.run_for(20_000);
    let successor = lan.holder(VIP);
    let from = lan.frames.len();
    lan.restart(holder, 99);
    lan.run_for(500);
    let announces = |bytes: &[u8]| {
        herald_wire::parse(bytes)
            .is_ok_and(|frame| matches!(frame.payload, Payload::Arp(arp) if arp.is_gratuitous()))
    };
    let announced = |(_, node, bytes): &(_, usize, Vec<u8>)| *node == successor && announces(bytes);
    assert!(lan.frames[from..].iter().any(announced));
}

/// A question for proof goes to three peers at a time, each says hello to all.
#[test]
fn a_kernel_that_answers_under_loss_makes_nobody_ask_for_proof() {
    let (mut lan, holder) = started(4, Machine::Answers);
    lan.loss = 200;
    lan.run_for(5_000);
    lan.input(holder, Input::Shutdown);
    lan.run_for(50);
    lan.kill(holder);
    lan.run_for(1_000);
    let from = lan.frames.len();
    lan.run_for(10_000);
    let unicast_hello = |bytes: &[u8]| bytes[12..14] == [0x88, 0xb5] && bytes[0] & 1 == 0;
    let questions = lan.frames[from..].iter().filter(|(_, _, bytes)| unicast_hello(bytes)).count();
    assert!(questions < 100, "{questions} in 10 s");
}

#[test]
fn a_machine_that_answers_nothing_is_followed_as_quickly_as_ever() {
    for before in [Machine::Answers, Machine::AnswersArpOnly] {
        let (mut lan, holder) = started(3, before);
        let began = lan.now;
        lan.machines[holder] = Machine::Off;
        lan.kill(holder);
        lan.run_for(1_000);
        between(&claimed_after(&lan, began), 80, 122);
    }
}

#[test]
fn a_machine_that_dies_in_grace_is_followed_at_once() {
    let (mut lan, holder) = started(3, Machine::Answers);
    lan.kill(holder);
    lan.run_for(1_000);
    let began = lan.now;
    lan.machines[holder] = Machine::Off;
    lan.run_for(1_000);
    between(&claimed_after(&lan, began), 90, 200);
}

#[test]
fn a_restart_that_was_announced_moves_nothing_within_a_minute() {
    let (mut lan, holder) = started(3, Machine::Answers);
    let began = lan.now;
    lan.input(holder, Input::Shutdown);
    lan.run_for(50);
    let ended = |event: &Event| *event == Event::ShutdownComplete;
    assert!(lan.log.iter().any(|(_, node, event)| *node == holder && ended(event)));
    let given_up = |event: &Event| matches!(event, Event::Released { .. });
    assert!(!lan.log.iter().any(|(_, _, event)| given_up(event)), "status goes on naming it");
    lan.kill(holder);
    lan.run_for(20_000);
    assert_eq!(claimed_after(&lan, began), []);
    lan.restart(holder, 99);
    lan.input(holder, Input::SpecApplied(Arc::new(spec(VIP, 1))));
    lan.run_for(3_000);
    assert_eq!(lan.holder(VIP), holder);
    assert_eq!(claimed_after(&lan, began).len(), 1, "only its own");
}

#[test]
fn one_that_is_not_back_within_its_minute_is_followed() {
    let (mut lan, holder) = started(3, Machine::Answers);
    let began = lan.now;
    lan.input(holder, Input::Shutdown);
    lan.run_for(50);
    lan.kill(holder);
    lan.run_for(61_000);
    between(&claimed_after(&lan, began), 60_000, 60_200);
    let overdue = |event: &Event| matches!(event, Event::PeerDown { how: Gone::Overdue, .. });
    assert!(lan.log.iter().any(|(_, _, event)| overdue(event)));
}

#[test]
fn a_cordoned_or_excluded_node_hands_over_when_it_ends() {
    let cordoned = NodeState { cordoned: true, ..NodeState::default() };
    let excluded = NodeState { excluded: true, ..NodeState::default() };
    let out_of_service = NodeState { out_of_service: true, ..NodeState::default() };
    for state in [cordoned, excluded, out_of_service] {
        let (mut lan, holder) = started(3, Machine::Answers);
        lan.input(holder, Input::Node(state));
        let began = lan.now;
        lan.input(holder, Input::Shutdown);
        lan.run_for(100);
        between(&claimed_after(&lan, began), 0, 5);
    }
}

#[test]
fn deputies_answer_who_asks_everybody_with_the_holders_address_and_frames_of_their_own() {
    let (mut lan, holder) = started(4, Machine::Answers);
    let everybody = Ethernet::broadcast(CLIENT);
    assert_eq!(ask(&mut lan, everybody).iter().map(|(from, ..)| *from).collect::<Vec<_>>(), [holder]);
    lan.input(holder, Input::Shutdown);
    lan.run_for(20);
    lan.kill(holder);
    let answers = ask(&mut lan, everybody);
    assert_eq!(answers.len(), 2, "ranks 0 and 1 of three: {answers:?}");
    for (from, arp, ethernet) in answers {
        assert_ne!(from, holder);
        assert_eq!((arp.sha, arp.tha), (mac(holder), CLIENT));
        assert_eq!((ethernet.source, ethernet.destination), (mac(from), CLIENT));
    }
    let vip = Ipv4Addr::new(10, 0, 1, 1);
    let announces = |bytes: &[u8]| {
        herald_wire::parse(bytes).is_ok_and(
            |frame| matches!(frame.payload, Payload::Arp(arp) if arp.spa == vip && arp.is_gratuitous()),
        )
    };
    let quiet_from = lan.frames.len();
    lan.run_for(3_000);
    let announced = lan.frames[quiet_from..].iter().any(|(_, _, bytes)| announces(bytes));
    assert!(!announced, "a deputy never announces");
    // The holder's own machine was asked: nobody else saw it.
    assert_eq!(ask(&mut lan, Ethernet::new(mac(holder), CLIENT)), []);
}

#[test]
fn probes_go_to_the_suspects_own_address_and_only_while_it_is_suspected() {
    let (mut lan, holder) = started(3, Machine::Answers);
    let probes = |lan: &Lan, from: usize| {
        let asks = |bytes: &[u8]| {
            herald_wire::parse(bytes).is_ok_and(|frame| {
                frame.ethernet.destination == mac(holder)
                    && matches!(frame.payload, Payload::Echo(ref echo) if echo.operation == echo::Operation::Request)
            })
        };
        lan.frames[from..].iter().filter(|(_, _, bytes)| asks(bytes)).count()
    };
    let quiet_from = lan.frames.len();
    lan.run_for(10_000);
    assert_eq!(probes(&lan, quiet_from), 0, "echo is known to work by now");
    lan.kill(holder);
    lan.run_for(90);
    let from = lan.frames.len();
    lan.run_for(1_000);
    // Two peers: every 5 ms for 30 ms, then every 20 ms.
    assert!((80..130).contains(&probes(&lan, from)), "{}", probes(&lan, from));
}
