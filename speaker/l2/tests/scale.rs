//! Ten thousand addresses.

mod lan;

use std::net::IpAddr;
use std::time::Duration;

use herald_l2::{Input, VipSpec};
use herald_wire::hello::{Message, Verifier};
use herald_wire::{Boot, NodeId, Payload};
use lan::{Lan, spec};

const MANY: u32 = 10_000;

fn specs() -> Vec<std::sync::Arc<VipSpec>> {
    let spec = |n| spec(&format!("10.0.{}.{}", 16 + n / 250, 1 + n % 250), u64::from(n + 1));
    (0..MANY).map(|n| spec(n).into()).collect()
}

fn started(nodes: usize) -> Lan {
    let mut lan = Lan::new(nodes);
    lan.run_for(1_500);
    for node in 0..nodes {
        lan.input(node, Input::SpecsReplaced(specs()));
    }
    lan.run_for(3_000);
    lan
}

#[test]
fn every_address_gets_one_holder_and_all_move_when_a_holder_dies() {
    let mut lan = started(3);
    let held: Vec<usize> = lan.nodes.iter().map(|node| node.core.holdings().len()).collect();
    println!("held: {held:?}, claims {}", lan.claims().len());
    assert_eq!(held.iter().sum::<usize>(), 10_000, "{held:?}");
    assert!(held.iter().all(|held| (3_000..3_700).contains(held)), "spread evenly: {held:?}");

    let claims_before = lan.claims().len();
    lan.frames.clear();
    let died = lan.now;
    lan.kill(0);
    lan.run_for(1_000);
    let moved = lan.claims().split_off(claims_before);
    assert_eq!(moved.len(), held[0]);
    let last = moved.iter().map(|(at, _, _)| at.since(died)).max().unwrap();
    println!("{} addresses moved, the last claimed {last:?} after the crash", moved.len());
    assert!(last < Duration::from_millis(250), "{last:?}");

    // Announced: request form, reply form and the gateway, no more than the governor lets through.
    let arp: Vec<_> = lan
        .frames
        .iter()
        .filter(|(_, from, _)| *from != usize::MAX)
        .filter_map(|(at, _, bytes)| match herald_wire::parse(bytes).ok()?.payload {
            Payload::Arp(arp) if arp.is_gratuitous() => Some((*at, arp.spa)),
            _ => None,
        })
        .collect();
    let announced: std::collections::BTreeSet<_> = arp.iter().map(|(_, vip)| IpAddr::V4(*vip)).collect();
    assert_eq!(announced.len(), moved.len());
    let first_round: Vec<_> =
        arp.iter().filter(|(at, _)| at.since(died) < Duration::from_millis(800)).collect();
    assert!(first_round.len() <= moved.len() * 2, "{} for {}", first_round.len(), moved.len());
}

#[test]
fn a_newcomer_learns_ten_thousand_holdings_and_takes_none() {
    let mut lan = started(2);
    let claims = lan.claims().len();
    lan.restart(1, 77);
    lan.kill(1);
    lan.run_for(1_000);
    let moved = lan.claims().len() - claims;
    println!("moved by the crash: {moved}");
    lan.restart(1, 78);
    lan.input(1, Input::SpecsReplaced(specs()));
    lan.run_for(5_000);
    assert_eq!(lan.nodes[0].core.holdings().len(), 10_000);
    assert_eq!(lan.claims().len(), claims + moved, "the newcomer took something");
    let snapshot = lan.nodes[1].core.snapshot();
    assert_eq!(snapshot.segments[0].peers[0].claims, 10_000);
    // Under loss the table takes several rounds.
    lan.loss = 300;
    lan.restart(1, 79);
    lan.input(1, Input::SpecsReplaced(specs()));
    lan.run_for(5_000);
    assert_eq!(lan.nodes[1].core.snapshot().segments[0].peers[0].claims, 10_000);
}

#[test]
fn no_change_and_no_table_exceeds_the_smallest_mtu() {
    let lan = started(3);
    let keys = lan::keys();
    for (_, _, bytes) in &lan.frames {
        let Ok(frame) = herald_wire::parse(bytes) else { continue };
        let Payload::Hello(sealed) = frame.payload else { continue };
        let verifier =
            Verifier { cluster: herald_l2::ClusterId(77), node: NodeId(99), boot: Boot(0), keys: &keys };
        let message = verifier.verify(&sealed).unwrap().message().unwrap();
        assert!(bytes.len() <= 14 + 1_280, "{} octets: {message:?}", bytes.len());
        assert!(!matches!(message, Message::Unknown(_)));
    }
    assert!(lan.nodes.iter().all(|node| node.core.counters().unsealed == 0));
}
