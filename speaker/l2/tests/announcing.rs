//! What a new holder tells the LAN, and when (rule A46).

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test support: whatever is wrong fails the test"
)]

mod lan;

use std::net::IpAddr;

use herald_l2::Event;
use herald_wire::arp::{Arp, Operation};
use herald_wire::ndp::{ALL_NODES, Message};
use herald_wire::{Ethernet, Payload};
use lan::{Lan, spec};

const VIP4: &str = "10.0.1.1";
const VIP6: &str = "fe80::1:1";

/// The broadcast announcements of an address, with the milliseconds after its claim at which they went out.
fn announced(lan: &Lan, vip: &str) -> Vec<(u64, &'static str)> {
    let vip: IpAddr = vip.parse().unwrap();
    let (claimed, holder, _) = lan.claims().into_iter().find(|(_, _, claimed)| *claimed == vip).unwrap();
    let mac = lan::mac(holder);
    let mut seen = Vec::new();
    for (at, from, bytes) in lan.frames.iter().filter(|(_, from, _)| *from == holder) {
        let frame = herald_wire::parse(bytes).unwrap();
        let form = match frame.payload {
            Payload::Arp(arp) if IpAddr::V4(arp.spa) == vip && arp.spa == arp.tpa => {
                assert_eq!((frame.ethernet, arp.sha), (Ethernet::broadcast(mac), mac), "{from}");
                match arp.operation {
                    Operation::Request => "request",
                    // Only with tha = sha does a reply move an entry that changed less than a second ago.
                    Operation::Reply if arp.tha == mac => "reply",
                    Operation::Reply => "reply with another tha",
                }
            }
            Payload::Ndp(ndp) if ndp.target() == vip && ndp.destination == ALL_NODES => match ndp.message {
                Message::Advertisement { overrides: true, target_mac, .. } if target_mac == Some(mac) => "NA",
                _ => "another NDP message",
            },
            _ => continue,
        };
        seen.push((u64::try_from(at.since(claimed).as_millis()).unwrap(), form));
    }
    seen
}

fn claimed(vip: &str) -> Lan {
    let mut lan = Lan::new(3);
    lan.run_for(1_500);
    lan.spec_everywhere(&spec(vip, 1));
    lan.run_for(30_000);
    lan
}

/// The second round is for kernels before 4.12, which ignore any announcement within a second of another. Nothing else
/// may stand in for it: no refresh, no peer that appears, no repetition under loss happens in this LAN.
#[test]
fn a_claim_is_announced_at_once_and_once_more_after_1100_ms() {
    assert_eq!(announced(&claimed(VIP4), VIP4), [(0, "request"), (0, "reply"), (1_100, "request")]);
    assert_eq!(announced(&claimed(VIP6), VIP6), [(0, "NA"), (1_100, "NA")]);
}

#[test]
fn an_address_given_up_before_its_second_round_is_not_announced_again() {
    let mut lan = Lan::new(2);
    lan.run_for(1_500);
    lan.spec_everywhere(&spec(VIP4, 1));
    lan.run_for(500);
    let (_, holder, _) = lan.claims()[0];
    lan.input(holder, herald_l2::Input::Leave);
    lan.run_for(5_000);
    assert_eq!(announced(&lan, VIP4), [(0, "request"), (0, "reply")]);
}

/// Where peers' hellos get lost, clients lose announcements too: it is said again at growing distances.
#[test]
fn where_frames_are_lost_the_rounds_go_on_at_growing_distances() {
    let mut lan = Lan::new(3);
    lan.loss = 100;
    lan.run_for(8_000);
    lan.spec_everywhere(&spec(VIP4, 1));
    lan.run_for(30_000);
    let rounds: Vec<u64> = announced(&lan, VIP4).into_iter().map(|(at, _)| at).filter(|at| *at > 0).collect();
    for expected in [1_100, 2_200, 4_400, 8_800] {
        assert!(rounds.contains(&expected), "{expected} is not in {rounds:?}");
    }
}

/// The gateway is asked "who has you, tell VIP" first of all, and no more once it has answered.
#[test]
fn the_gateway_is_told_before_everybody_and_only_until_it_has_answered() {
    let lan = claimed(VIP4);
    let (claimed, holder, vip) = lan.claims()[0];
    let gateway: IpAddr = lan::GATEWAY.parse().unwrap();
    let told = lan.frames.iter().filter(|(at, from, _)| *at >= claimed && *from == holder);
    let mut about_vip = told.filter_map(|(_, _, bytes)| match herald_wire::parse(bytes).unwrap().payload {
        Payload::Arp(arp) if arp.spa == vip => Some(IpAddr::V4(arp.tpa)),
        _ => None,
    });
    assert_eq!(about_vip.next(), Some(gateway));
    assert!(about_vip.filter(|target| *target == gateway).count() <= 1, "asked again though it had answered");
}

#[test]
fn a_gateway_that_does_not_answer_is_told_eight_times_10_ms_apart() {
    let mut lan = Lan::new(3);
    lan.run_for(1_500);
    lan.gateway = false;
    lan.spec_everywhere(&spec(VIP4, 1));
    lan.run_for(1_000);
    let (claimed, holder, vip) = lan.claims()[0];
    let gateway: IpAddr = lan::GATEWAY.parse().unwrap();
    let told: Vec<u128> = lan
        .frames
        .iter()
        .filter(|(_, from, bytes)| {
            *from == holder
                && matches!(herald_wire::parse(bytes).unwrap().payload,
                    Payload::Arp(arp) if IpAddr::V4(arp.spa) == vip && IpAddr::V4(arp.tpa) == gateway)
        })
        .map(|(at, _, _)| at.since(claimed).as_millis())
        .collect();
    assert_eq!(told, [0, 10, 20, 30, 40, 50, 60, 70]);
}

/// A switch that forgets a MAC address after five minutes floods what is sent to it.
#[test]
fn what_is_held_is_announced_again_every_one_to_two_minutes_each_address_in_its_own_time() {
    let mut lan = Lan::new(1);
    lan.run_for(1_500);
    let vips = ["10.0.1.1", "10.0.1.2", "10.0.1.3"];
    for vip in vips {
        lan.spec_everywhere(&spec(vip, 1));
    }
    lan.run_for(10 * 60_000);
    let mut firsts = Vec::new();
    for vip in vips {
        let refreshed: Vec<u64> =
            announced(&lan, vip).into_iter().map(|(at, _)| at).filter(|at| *at > 10_000).collect();
        assert!(refreshed.len() >= 4, "{vip}: {refreshed:?}");
        let gaps = std::iter::once(refreshed[0]).chain(refreshed.windows(2).map(|two| two[1] - two[0]));
        for gap in gaps {
            assert!((60_000..=120_010).contains(&gap), "{vip}: {gap} ms in {refreshed:?}");
        }
        firsts.push(refreshed[0]);
    }
    firsts.dedup();
    assert_eq!(firsts.len(), vips.len(), "all at once: {firsts:?}");
}

/// He does not know yet that it is mine: clients that heard him have to hear me.
#[test]
fn an_address_of_mine_that_a_peer_announces_is_announced_again_and_is_no_conflict() {
    let mut lan = claimed(VIP4);
    let (_, holder, _) = lan.claims()[0];
    let peer = lan::mac((holder + 1) % 3);
    let (before, heard) = (announced(&lan, VIP4).len(), lan.now);
    let gratuitous = Arp::gratuitous_request(VIP4.parse().unwrap(), peer);
    lan.transmit(usize::MAX, gratuitous.to_frame(Ethernet::broadcast(peer)));
    lan.run_for(1_000);
    let again = announced(&lan, VIP4).split_off(before);
    assert_eq!(again.iter().map(|(_, form)| *form).collect::<Vec<_>>(), ["request"]);
    assert!(!lan.log.iter().any(|(at, _, event)| *at >= heard && matches!(event, Event::Conflict { .. })));
}
