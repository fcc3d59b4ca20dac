//! Hellos on the wire: what a lone speaker says and when, and what is refused.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test support: whatever is wrong fails the test"
)]

mod lan;

use std::time::Duration;

use herald_l2::{Boot, ClusterId, Event, Input, Keyring, NodeId, Profile};
use herald_wire::hello::{GROUP, KeyId, Message, Secret, State, Verified, Verifier};
use herald_wire::{Ethernet, Payload};
use lan::{IFINDEX, Lan, keys, mac, spec};

const VIP: &str = "10.0.1.1";

/// Everything of the hello protocol that a node sent.
fn sent(lan: &Lan, node: usize) -> Vec<(herald_l2::Instant, Ethernet, u64, Message)> {
    let keys = keys();
    lan.frames
        .iter()
        .filter(|(_, from, _)| *from == node)
        .filter_map(|(at, _, bytes)| {
            let frame = herald_wire::parse(bytes).unwrap();
            let Payload::Hello(sealed) = frame.payload else { return None };
            let verifier = Verifier { cluster: ClusterId(77), node: NodeId(99), boot: Boot(0), keys: &keys };
            let verified: Verified<'_> = verifier.verify(&sealed).unwrap();
            Some((*at, frame.ethernet, verified.header.counter.0, verified.message().unwrap()))
        })
        .collect()
}

#[test]
fn a_lone_speaker_says_listen_then_active_every_200_ms_and_every_40_as_a_holder() {
    let mut lan = Lan::new(1);
    lan.run_for(3_000);
    let hellos = sent(&lan, 0);
    for (n, (_, ethernet, counter, message)) in (1..).zip(&hellos) {
        assert_eq!(*ethernet, Ethernet::new(GROUP, mac(0)));
        assert_eq!(*counter, n, "+1 per frame (rule A3)");
        let Message::Hello(hello) = message else { panic!("{message:?}") };
        assert_eq!((hello.mac, hello.interval_ms, hello.reach, hello.table_version.0), (mac(0), 200, 0, 0));
        assert_eq!(hello.ipv4, Some("10.0.0.1".parse().unwrap()));
        assert_eq!(hello.ipv6, Some("fe80::1".parse().unwrap()));
        assert!(hello.able && hello.suspects.is_empty() && hello.claims.is_empty() && hello.drops.is_empty());
    }
    let states: Vec<_> = hellos
        .iter()
        .map(|(at, _, _, message)| {
            let Message::Hello(hello) = message else { unreachable!() };
            (at.as_nanos() >= 1_000_000_000, hello.state)
        })
        .collect();
    assert!(states.contains(&(false, State::Listen)) && states.contains(&(true, State::Active)));
    assert!(!states.contains(&(false, State::Active)));
    for pair in hellos.windows(2) {
        assert!(pair[1].0.since(pair[0].0) <= Duration::from_millis(200), "promised");
    }

    lan.frames.clear();
    lan.spec_everywhere(&spec(VIP, 7));
    let claimed = lan.now;
    lan.run_for(1_000);
    let hellos = sent(&lan, 0);
    let changes: Vec<_> = hellos
        .iter()
        .filter_map(|(at, _, _, message)| match message {
            Message::Hello(hello) if !hello.claims.is_empty() => {
                Some((at.since(claimed).as_millis(), hello.table_version.0, hello.claims.clone()))
            }
            _ => None,
        })
        .collect();
    let times: Vec<_> = changes.iter().map(|(at, version, _)| (*at, *version)).collect();
    assert_eq!(times, [(0, 1), (5, 1), (10, 1)], "three hellos carry a change (rule A14)");
    let claim = changes[0].2[0];
    assert_eq!((claim.vip.to_string().as_str(), claim.revision.0), (VIP, 7));
    assert_eq!(claim.epoch.0, 0, "nobody could be asked: no epoch of its own yet");
    for pair in hellos.windows(2) {
        assert!(pair[1].0.since(pair[0].0) <= Duration::from_millis(40), "a holder's pace");
    }
    assert!((24..=32).contains(&hellos.len()), "{}", hellos.len());
}

#[test]
fn the_name_is_told_once_a_second() {
    let mut lan = Lan::new(1);
    lan.run_for(10_000);
    let named = sent(&lan, 0)
        .iter()
        .filter(|(_, _, _, message)| matches!(message, Message::Hello(hello) if hello.name.as_deref() == Some("n1")))
        .count();
    assert!((9..=11).contains(&named), "{named}");
}

#[test]
fn two_speakers_get_to_know_each_other_by_challenge_and_echo() {
    let mut lan = Lan::new(2);
    lan.run_for(100);
    for node in [0, 1] {
        let up = |event: &Event| matches!(event, Event::PeerUp { peer, .. } if peer.name == Some(lan::name(1 - node)));
        assert!(lan.log.iter().any(|(_, at, event)| *at == node && up(event)), "{:?}", lan.log);
        assert_eq!(lan.nodes[node].core.counters().challenges, 1);
    }
}

#[test]
fn a_second_key_on_one_node_does_not_part_the_cluster() {
    let mut lan = Lan::new(2);
    let mut config = lan::config(1, 9);
    config.keys = keys().with(KeyId::new(1).unwrap(), &Secret::new([9; 32]));
    lan.nodes[1].core = herald_l2::Core::new(config, lan.now);
    lan.input(1, Input::Interfaces(vec![lan::interface(1)]));
    lan.run_for(1_500);
    lan.spec_everywhere(&spec(VIP, 1));
    lan.run_for(3_000);
    lan.holder(VIP);
    assert_eq!(lan.nodes[0].core.counters().refused.unknown_key, 0);
}

#[test]
fn forged_foreign_replayed_truncated_and_random_frames_change_nothing() {
    let mut lan = Lan::new(2);
    lan.run_for(1_500);
    lan.spec_everywhere(&spec(VIP, 1));
    lan.run_for(1_000);
    let holder = lan.holder(VIP);
    let recorded: Vec<Vec<u8>> =
        lan.frames.iter().filter(|(_, from, _)| *from == 1).map(|(_, _, bytes)| bytes.clone()).collect();
    let before = lan.nodes[0].core.snapshot().segments[0].peers.len();

    // Replayed: everything node 2 ever said, again.
    for bytes in &recorded {
        lan.input(0, Input::Frame { ifindex: IFINDEX, bytes });
    }
    let hellos = |bytes: &&Vec<u8>| matches!(herald_wire::parse(bytes).unwrap().payload, Payload::Hello(_));
    let replays = recorded.iter().filter(hellos).count();
    let counters = lan.nodes[0].core.counters().clone();
    assert!(counters.refused.replayed + counters.refused.unknown_boot >= u64::try_from(replays).unwrap());

    // Forged: one bit anywhere; foreign: another key under the same id, another cluster.
    let hello = recorded.iter().find(hellos).unwrap().clone();
    for at in 14..hello.len() {
        let mut forged = hello.clone();
        forged[at] ^= 1;
        lan.input(0, Input::Frame { ifindex: IFINDEX, bytes: &forged });
    }
    let refused = &lan.nodes[0].core.counters().refused;
    assert!(refused.forged > 80 && refused.foreign_cluster >= 8 && refused.unknown_key >= 1, "{refused:?}");
    assert_eq!(refused.version, 1);

    // Truncated and random.
    for length in 0..hello.len() {
        lan.input(0, Input::Frame { ifindex: IFINDEX, bytes: &hello[..length] });
    }
    let mut noise: u64 = 1;
    for length in 0..2_000usize {
        let bytes: Vec<u8> = (0..length % 200)
            .map(|_| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                u8::try_from(noise >> 56).unwrap()
            })
            .collect();
        lan.input(0, Input::Frame { ifindex: IFINDEX, bytes: &bytes });
    }
    lan.run_for(1_000);
    assert_eq!(lan.nodes[0].core.snapshot().segments[0].peers.len(), before);
    assert_eq!(lan.holder(VIP), holder);
    assert_eq!(lan.claims().len(), 1);
}

#[test]
fn a_recording_of_an_old_life_is_challenged_and_dies_out() {
    let mut lan = Lan::new(2);
    lan.run_for(1_500);
    let old: Vec<u8> = lan
        .frames
        .iter()
        .rev()
        .find(|(_, from, bytes)| *from == 1 && bytes[..6] == GROUP.octets())
        .map(|(_, _, bytes)| bytes.clone())
        .unwrap();
    lan.restart(1, 42);
    lan.run_for(3_000);
    let before = lan.nodes[0].core.counters().clone();
    for _ in 0..10_000 {
        lan.input(0, Input::Frame { ifindex: IFINDEX, bytes: &old });
        lan.run_for(1);
    }
    let after = lan.nodes[0].core.counters().clone();
    assert_eq!(after.refused.unknown_boot - before.refused.unknown_boot, 10_000);
    assert!(after.challenges - before.challenges <= 30, "{}", after.challenges - before.challenges);
    // Meanwhile the living one restarts and is let in all the same.
    lan.restart(1, 43);
    for _ in 0..500 {
        lan.input(0, Input::Frame { ifindex: IFINDEX, bytes: &old });
        lan.run_for(1);
    }
    let boots = lan.log.iter().filter(|(_, node, event)| *node == 0 && matches!(event, Event::PeerUp { .. }));
    assert_eq!(boots.count(), 3);
}

#[test]
fn hellos_of_another_key_are_nobodys() {
    let mut lan = Lan::new(2);
    let mut config = lan::config(1, 9);
    config.keys = Keyring::new().with(KeyId::new(0).unwrap(), &Secret::new([8; 32]));
    lan.nodes[1].core = herald_l2::Core::new(config, lan.now);
    lan.input(1, Input::Interfaces(vec![lan::interface(1)]));
    lan.run_for(2_000);
    assert_eq!(lan.nodes[0].core.snapshot().segments[0].peers.len(), 0);
    assert!(lan.nodes[0].core.counters().refused.forged > 5);
}

#[test]
fn a_machine_with_our_node_id_is_reported_once_it_has_echoed() {
    let mut lan = Lan::new(2);
    // A clone: the same Node UID on another machine.
    lan.nodes[1].core =
        herald_l2::Core::new(herald_l2::Config { node: NodeId(1), ..lan::config(1, 5) }, lan.now);
    lan.input(1, Input::Interfaces(vec![lan::interface(1)]));
    lan.run_for(3_000);
    for node in [0, 1] {
        let reports = lan
            .log
            .iter()
            .filter(|(_, at, event)| {
                *at == node
                    && matches!(event, Event::DuplicateNode { mac: other, .. } if *other == mac(1 - node))
            })
            .count();
        assert_eq!(reports, 1, "node {node}");
    }
}

/// Rule A15: twelve nodes that say hello every 8 ms would be 1,500 a second.
#[test]
fn on_a_crowded_segment_intervals_stretch_and_every_hello_says_by_how_much() {
    const NODES: usize = 12;
    let mut lan = Lan::new(NODES);
    for node in 0..NODES {
        let config = herald_l2::Config { profile: Profile::Fast, ..lan::config(node, 1) };
        lan.nodes[node].core = herald_l2::Core::new(config, lan.now);
        lan.input(node, Input::Interfaces(vec![lan::interface(node)]));
    }
    for n in 0..100 {
        lan.spec_everywhere(&spec(&format!("10.0.7.{n}"), 1));
    }
    lan.run_for(4_000);
    assert!(lan.nodes.iter().all(|node| !node.core.holdings().is_empty()), "all are holders");
    lan.frames.clear();
    lan.run_for(1_000);
    let mut all = 0;
    for node in 0..NODES {
        let hellos: Vec<_> = sent(&lan, node)
            .into_iter()
            .filter_map(|(at, _, _, message)| match message {
                Message::Hello(hello) => Some((at, Duration::from_millis(u64::from(hello.interval_ms)))),
                _ => None,
            })
            .collect();
        all += hellos.len();
        for two in hellos.windows(2) {
            let (gap, promised) = (two[1].0.since(two[0].0), two[0].1);
            assert!(gap <= promised, "node {node}: {gap:?} after {promised:?} was promised");
        }
    }
    assert!((900..=1_250).contains(&all), "{all} hellos in a second");
}
