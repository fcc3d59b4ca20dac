//! A speaker is gone and its machine is not: who keeps what, for how long, and what clients are told (rules A22, A23,
//! A44, A45).

mod lan;

use std::net::Ipv4Addr;
use std::time::Duration;

use herald_l2::{Event, Gone, Input, MacAddr, NodeState};
use herald_wire::arp::Arp;
use herald_wire::{Ethernet, Payload, echo};
use lan::{Lan, Machine, mac, spec};

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
fn a_killed_speakers_address_stays_for_5_s_while_its_machine_answers_echo_or_only_arp() {
    for machine in [Machine::Answers, Machine::AnswersArpOnly] {
        let (mut lan, holder) = started(3, machine);
        let began = lan.now;
        lan.kill(holder);
        lan.run_for(4_500);
        assert_eq!(claimed_after(&lan, began), [], "{machine:?}");
        lan.run_for(1_500);
        between(&claimed_after(&lan, began), 5_000, 5_200);
    }
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
    lan.input(holder, Input::SpecApplied(std::sync::Arc::new(spec(VIP, 1))));
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
    let out_of_service = NodeState { out_of_service: true, ..NodeState::default() };
    for state in [cordoned, out_of_service] {
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
