//! What is on the wire: real ARP and NDP, asked and answered between namespaces.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use herald_lab::{
    Lab, Seen, Sniffer, What,
    shared::{Case, lab_alone},
};
use herald_wire::{Arp, Ethernet, MacAddr, Ndp, arp::Operation, ndp};

const PATIENCE: Duration = Duration::from_secs(20);
const BROADCAST: MacAddr = MacAddr(0xff, 0xff, 0xff, 0xff, 0xff, 0xff);

/// A dual-stack Service, who holds its addresses, and everything on the wire.
struct Scene {
    case: Case,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    sniffer: Sniffer,
}

impl Scene {
    fn new(lab: &'static Lab, name: &str) -> Result<Self> {
        let sniffer = Sniffer::start(lab.lan())?;
        let begun = Instant::now();
        for node in lab.repair()? {
            let hello = |frame: &Seen| matches!(frame.what, What::Hello(_)) && frame.from == node;
            sniffer.wait_for(begun, PATIENCE, hello)?;
            sniffer.wait_for(Instant::now() + Duration::from_secs(2), PATIENCE, hello)?;
        }
        let case = Case::in_lab(lab, name)?;
        case.apply_service("web", "", "ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv4, IPv6]")?;
        let [IpAddr::V4(v4), IpAddr::V6(v6)] = case.addresses("web")?[..] else {
            bail!("not an address of each family")
        };
        lab.await_holder(v4.into())?;
        lab.await_holder(v6.into())?;
        Ok(Self { case, v4, v6, sniffer })
    }

    fn lab(&self) -> &'static Lab {
        self.case.lab()
    }

    fn holder(&self, address: impl Into<IpAddr>) -> Result<String> {
        self.lab().await_holder(address.into())
    }

    /// Sends a frame from the client and waits for one that `wanted` accepts.
    fn ask(&self, frame: &[u8], wanted: impl Fn(&Seen) -> bool) -> Result<Seen> {
        let asked = Instant::now();
        self.lab().client().transmit(frame)?;
        self.sniffer.wait_for(asked, PATIENCE, wanted)
    }
}

fn arp(frame: &Seen) -> Option<&Arp> {
    match &frame.what {
        What::Arp(arp) => Some(arp),
        _ => None,
    }
}

fn advertisement(frame: &Seen) -> Option<(Ndp, bool, bool)> {
    match &frame.what {
        What::Ndp(ndp) => match ndp.message {
            ndp::Message::Advertisement { solicited, overrides, .. } => Some((*ndp, solicited, overrides)),
            ndp::Message::Solicitation { .. } => None,
        },
        _ => None,
    }
}

#[test]
fn a_broadcast_question_is_answered_to_the_asker_alone_with_the_holders_mac() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let scene = Scene::new(lab, "who-has")?;
    let client = lab.client();
    let question = Arp::who_has(scene.v4, client.v4, client.mac).to_frame(Ethernet::broadcast(client.mac));
    let answer = scene.ask(&question, |frame| frame.answers(scene.v4.into()))?;
    let holder = lab.node(&scene.holder(scene.v4)?)?;
    ensure!(answer.from == holder.name(), "{} answered, {} holds", answer.from, holder.name());
    ensure!(answer.destination == client.mac, "answered to {}", answer.destination);
    let reply = arp(&answer).context("an ARP reply")?;
    ensure!(reply.sha == holder.host.mac && reply.tha == client.mac && reply.tpa == client.v4, "{reply:?}");
    Ok(())
}

#[test]
fn an_address_conflict_probe_is_answered() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let scene = Scene::new(lab, "acd")?;
    let client = lab.client();
    let probe = Arp::probe(scene.v4, client.mac).to_frame(Ethernet::broadcast(client.mac));
    scene.ask(&probe, |frame| {
        arp(frame).is_some_and(|arp| arp.operation == Operation::Reply && arp.spa == scene.v4)
    })?;
    Ok(())
}

#[test]
fn ipv6_questions_are_answered_with_override_multicast_and_unicast() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let scene = Scene::new(lab, "neighbour-solicitation")?;
    let client = lab.client();
    let holder = lab.node(&scene.holder(scene.v6)?)?;
    let resolution = Ndp::who_has(scene.v6, client.v6, client.mac);
    let to_group = Ethernet::multicast(ndp::solicited_node(scene.v6), client.mac);
    // Unicast is how a neighbour that is known already is checked (NUD).
    let check = Ndp::who_has_unicast(scene.v6, client.v6, client.mac);
    let to_holder = Ethernet::new(holder.host.mac, client.mac);
    for (question, ethernet) in [(resolution, to_group), (check, to_holder)] {
        let answer = scene.ask(&question.to_frame(ethernet), |frame| frame.answers(scene.v6.into()))?;
        let (ndp, solicited, overrides) = advertisement(&answer).context("an advertisement")?;
        ensure!(solicited && overrides, "{ndp:?}");
        ensure!(answer.from == holder.name() && answer.destination == client.mac, "{answer:?}");
    }
    Ok(())
}

#[test]
fn duplicate_address_detection_by_another_host_is_answered_to_everybody() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let scene = Scene::new(lab, "dad")?;
    let client = lab.client();
    let probe = Ndp::probe(scene.v6).to_frame(Ethernet::multicast(ndp::solicited_node(scene.v6), client.mac));
    let answer =
        scene.ask(&probe, |frame| advertisement(frame).is_some_and(|(ndp, ..)| ndp.target() == scene.v6))?;
    let (ndp, ..) = advertisement(&answer).context("an advertisement")?;
    ensure!(ndp.destination == ndp::ALL_NODES, "answered to {}", ndp.destination);
    Ok(())
}

#[test]
fn an_address_that_nobody_was_given_is_not_answered_for() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let scene = Scene::new(lab, "silence")?;
    let client = lab.client();
    let free = Ipv4Addr::new(192, 168, 1, 250);
    let asked = Instant::now();
    client.transmit(&Arp::who_has(free, client.v4, client.mac).to_frame(Ethernet::broadcast(client.mac)))?;
    // What came later has been answered: so would this have been.
    let question = Arp::who_has(scene.v4, client.v4, client.mac).to_frame(Ethernet::broadcast(client.mac));
    scene.ask(&question, |frame| frame.answers(scene.v4.into()))?;
    let answered =
        scene.sniffer.seen().into_iter().find(|frame| frame.at >= asked && frame.answers(free.into()));
    ensure!(answered.is_none(), "{answered:?}");
    Ok(())
}

#[test]
fn a_successor_announces_in_every_form_that_moves_a_cache_and_again_a_second_later() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let scene = Scene::new(lab, "announcing")?;
    let gateway = lab.gateway();
    let (before4, before6) = (scene.holder(scene.v4)?, scene.holder(scene.v6)?);
    let cut = Instant::now();
    lab.power_off(&before4)?;
    let wait = |since: Instant, what: &str, wanted: &dyn Fn(&Seen) -> bool| {
        let found = scene.sniffer.wait_for(since, PATIENCE, |frame| frame.from != before4 && wanted(frame));
        found.with_context(|| format!("never seen: {what}"))
    };
    let about = |frame: &Seen| arp(frame).filter(|arp| arp.spa == scene.v4).copied();
    let request = |frame: &Seen| {
        about(frame).is_some_and(|arp| arp.operation == Operation::Request && arp.tpa == scene.v4)
            && frame.destination == BROADCAST
    };
    let first = wait(cut, "the request form", &request)?;
    wait(cut, "the reply form with tha = sha", &|frame| {
        about(frame)
            .is_some_and(|arp| arp.operation == Operation::Reply && arp.tpa == scene.v4 && arp.tha == arp.sha)
    })?;
    wait(cut, "who-has GATEWAY tell VIP", &|frame| {
        about(frame).is_some_and(|arp| arp.operation == Operation::Request && arp.tpa == gateway.v4)
    })?;
    wait(first.at + Duration::from_secs(1), "the request form once more", &request)?;
    // Another node may have held the IPv6 address: that one dies, too.
    let cut6 = if before6 == before4 { cut } else { Instant::now() };
    if before6 != before4 {
        lab.power_off(&before6)?;
    }
    let overriding = |frame: &Seen| {
        let about = advertisement(frame).filter(|(ndp, ..)| ndp.target() == scene.v6);
        frame.from != before6
            && about.is_some_and(|(ndp, solicited, overrides)| {
                !solicited && overrides && ndp.destination == ndp::ALL_NODES
            })
    };
    let first = scene.sniffer.wait_for(cut6, PATIENCE, overriding);
    let first = first.context("never seen: an advertisement to everybody that overrides")?;
    let again = scene.sniffer.wait_for(first.at + Duration::from_secs(1), PATIENCE, overriding);
    again.context("never seen: the advertisement once more").map(drop)
}

#[test]
fn garbage_on_the_wire_stops_nobody() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let scene = Scene::new(lab, "garbage")?;
    let client = lab.client();
    let hello_group = MacAddr(0x03, 0x68, 0x65, 0x72, 0x6c, 0x64);
    let mut noise: u32 = 1;
    for (ethertype, destination) in
        [(0x88b5_u16, hello_group), (0x0806, BROADCAST), (0x86dd, BROADCAST), (0x88b5, BROADCAST)]
    {
        for length in 0..=200 {
            let mut frame = Vec::new();
            for mac in [destination, client.mac] {
                frame.extend([mac.0, mac.1, mac.2, mac.3, mac.4, mac.5]);
            }
            frame.extend(ethertype.to_be_bytes());
            for _ in 0..length {
                // A linear congruential generator: the same garbage every time.
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                frame.extend(&noise.to_be_bytes()[..1]);
            }
            client.transmit(&frame)?;
        }
    }
    let question = Arp::who_has(scene.v4, client.v4, client.mac).to_frame(Ethernet::broadcast(client.mac));
    scene.ask(&question, |frame| frame.answers(scene.v4.into()))?;
    for node in lab.nodes() {
        node.speaker(|speaker| match speaker.exited()? {
            None => Ok(()),
            Some(status) => {
                bail!("the speaker on {} ended with {status}:\n{}", node.name(), speaker.last_words())
            }
        })?;
    }
    Ok(())
}
