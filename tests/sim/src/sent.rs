//! What speakers send in an address's name: a holder's own frames, and a deputy's for a holder that is away (rule A45).
//!
//! Watched at every frame: nobody speaks for an address that it does not hold, but deputies; they only answer, and only
//! with the Ethernet address of the machine that held the address last, while its speaker is away and it is not.

use std::net::IpAddr;
use std::time::Duration;

use herald_wire::ethernet::Ethernet;
use herald_wire::ndp::Message;
use herald_wire::{Frame, MacAddr, Payload, arp};

use crate::Moment;
use crate::node::{Ending, Frozen, Node};
use crate::world::World;

/// A change is known to all peers after this: the time that frames and loops take.
const TOLD: Duration = Duration::from_millis(20);
/// The same where frames are lost: until a table was asked for, and asked for again.
const TOLD_UNDER_LOSS: Duration = Duration::from_secs(1);
/// A holder that is back claims within this, or its peers claim (rule A31).
const RETURN: Duration = Duration::from_millis(500);
/// Deputies lead clients to a machine that has died for no longer than this (rule A22), by how it is asked.
const SILENT_TO_ECHO: Duration = Duration::from_millis(250);
const SILENT_TO_ARP: Duration = Duration::from_millis(1_300);

/// What a frame says of where an address is.
struct Statement {
    vip: IpAddr,
    /// `None`: at whoever sends it.
    at: Option<MacAddr>,
    /// To one that asked.
    answers: bool,
}

impl World {
    /// Nobody speaks for an address that it doesn't hold.
    pub(crate) fn check_sent(&mut self, node: usize, bytes: &[u8]) {
        let Ok(frame) = herald_wire::parse(bytes) else {
            self.check.violation(self.now, &format!("n{} sends a malformed frame: {bytes:02x?}", node + 1));
            return;
        };
        if matches!(frame.payload, Payload::Hello(_)) {
            self.record.hello(node);
        }
        let Some(own) = self.nodes.get(node).map(|node| node.kernel.mac) else { return };
        let former = self.nodes.get(node).and_then(|node| node.former_mac);
        if frame.ethernet.source != own && Some(frame.ethernet.source) != former {
            let text = format!("n{} sends as {}, which it is not", node + 1, frame.ethernet.source);
            self.check.violation(self.now, &text);
        }
        let Some(said) = statement(&frame).filter(|said| self.vips().contains(&said.vip)) else { return };
        let vip = said.vip;
        if let Some(holder) = said.at.filter(|at| *at != own) {
            if let Some(wrong) = self.wrong_deputy(node, &said, holder) {
                let text = format!("n{} says that {vip} is at {holder}: {wrong}", node + 1);
                self.check.violation(self.now, &text);
            }
            self.check.deputised();
            return;
        }
        if !self.check.holds(vip, node) {
            let text = format!("n{} speaks for {vip} without holding it", node + 1);
            self.check.violation(self.now, &text);
        }
        self.record.spoke(self.now, node, vip);
    }

    /// Why a deputy must not say this.
    fn wrong_deputy(&self, deputy: usize, said: &Statement, holder: MacAddr) -> Option<String> {
        if !said.answers {
            return Some("it was not asked".into());
        }
        let Some((of, machine)) = self.nodes.iter().enumerate().find(|(_, other)| other.kernel.mac == holder)
        else {
            return Some("that is nobody's".into());
        };
        let name = format!("n{}", of + 1);
        if !self.nodes.get(deputy).is_some_and(|deputy| deputy.knows(said.vip)) {
            return Some("it knows no spec".into());
        }
        // Who does not hear the others can't know what became of an address.
        if [deputy, of].iter().any(|node| self.check.excuses.is_cut_off(self.now, *node)) {
            return None;
        }
        let told = if self.switch.loses() { TOLD_UNDER_LOSS } else { TOLD };
        if !self.check.held_last(said.vip, of, self.now.saturating_sub(told)) {
            return Some(format!("{name} was not the last to hold it"));
        }
        if answers_itself(machine, self.now.saturating_sub(RETURN + told)) {
            return Some(format!("the speaker of {name} is there"));
        }
        let silent = if machine.kernel.echo { SILENT_TO_ECHO } else { SILENT_TO_ARP };
        let silent = if self.switch.loses() { silent * 3 } else { silent };
        let gone = self.now.saturating_sub(silent);
        if machine.dead_since().is_some_and(|since| since < gone) {
            return Some(format!("the machine {name} has been dead for too long"));
        }
        None
    }
}

/// A speaker that runs, and has been ACTIVE since before this.
fn answers_itself(node: &Node, before: Moment) -> bool {
    node.speaks() && node.ending != Ending::Begun && node.active_since.is_some_and(|since| since < before)
}

impl Node {
    /// Since when the machine answers nothing.
    fn dead_since(&self) -> Option<Moment> {
        match self.frozen {
            Some(Frozen::Machine { since }) => Some(since),
            _ => self.died_at,
        }
    }
}

fn statement(frame: &Frame<'_>) -> Option<Statement> {
    match &frame.payload {
        Payload::Arp(arp) if arp.operation == arp::Operation::Reply => {
            let asker = arp.tha;
            let answers = asker != arp.sha && is_to(frame.ethernet, asker) && arp.tpa != arp.spa;
            Some(Statement { vip: arp.spa.into(), at: Some(arp.sha), answers })
        }
        Payload::Arp(arp) if arp.is_probe() => None,
        Payload::Arp(arp) => Some(Statement { vip: arp.spa.into(), at: Some(arp.sha), answers: false }),
        Payload::Ndp(ndp) => match ndp.message {
            Message::Advertisement { target, target_mac, solicited, .. } => {
                let answers = solicited && !frame.ethernet.destination.is_multicast();
                Some(Statement { vip: target.into(), at: target_mac, answers })
            }
            Message::Solicitation { source_mac, .. } => {
                Some(Statement { vip: ndp.source.into(), at: source_mac, answers: false })
            }
        },
        Payload::Hello(_) | Payload::Echo(_) => None,
    }
}

fn is_to(ethernet: Ethernet, mac: MacAddr) -> bool {
    ethernet.destination == mac && !mac.is_multicast() && !mac.is_broadcast()
}

#[cfg(test)]
mod tests {
    use herald_wire::arp::Arp;
    use herald_wire::ndp::Ndp;

    use super::*;
    use crate::check::Bounds;
    use crate::faults::{Fault, Who};
    use crate::schedule::Setup;
    use crate::trace::Trace;
    use herald_seeds::Dice;

    const CLIENT: MacAddr = MacAddr(2, 0, 0, 0, 0, 100);

    /// Two addresses that have been held for a while; the holder of the first, and somebody else.
    fn world() -> (World, usize, usize) {
        let setup = Setup { nodes: 3, clients: 1, vips: 2, ..Setup::default() };
        let mut world =
            World::new(setup, Bounds::NOTHING, Moment::ZERO, Dice::new("sent", 1), Trace::default());
        world.run_until(Duration::from_secs(5));
        let holder = world.check.holders(world.vips()[0]).next().unwrap();
        (world, holder, (holder + 1) % 3)
    }

    fn mac(world: &World, node: usize) -> MacAddr {
        world.nodes[node].kernel.mac
    }

    /// A deputy says that the n-th address is at a node: what is wrong with it.
    fn said(world: &mut World, deputy: usize, n: usize, at: MacAddr, gratuitous: bool) -> Option<String> {
        let from = mac(world, deputy);
        let to = Ethernet::new(CLIENT, from);
        let frame = match (world.vips()[n], gratuitous) {
            (IpAddr::V4(vip), false) => {
                Arp::who_has(vip, [10, 0, 0, 100].into(), CLIENT).answer(at).to_frame(to)
            }
            (IpAddr::V4(vip), true) => Arp::gratuitous_request(vip, at).to_frame(Ethernet::broadcast(from)),
            (IpAddr::V6(vip), false) => {
                let asked = Ndp::who_has(vip, "fd00::64".parse().unwrap(), CLIENT);
                asked.answer(at).unwrap().to_frame(to)
            }
            (IpAddr::V6(vip), true) => {
                let group = Ethernet::multicast(herald_wire::ndp::ALL_NODES, from);
                Ndp::announcement(vip, at).to_frame(group)
            }
        };
        world.check_sent(deputy, &frame);
        let text = world.check.violations().last()?;
        Some(text.rsplit_once(": ")?.1.to_owned())
    }

    #[test]
    fn a_deputy_may_answer_for_a_holder_whose_speaker_is_away_and_nobody_else() {
        for n in 0..2 {
            let (mut world, ..) = world();
            let holder = world.check.holders(world.vips()[n]).next().unwrap();
            let deputy = (holder + 1) % 3;
            let (right, wrong) = (mac(&world, holder), mac(&world, (holder + 2) % 3));
            world.apply(&Fault::Leave(Who::Node(holder)));
            world.run_until(world.now + Duration::from_millis(100));
            assert_eq!(said(&mut world, deputy, n, right, false), None);
            let broken = said(&mut world, deputy, n, right, true).unwrap();
            assert_eq!(broken, "it was not asked");
            let broken = said(&mut world, deputy, n, wrong, false).unwrap();
            assert!(broken.ends_with("was not the last to hold it"), "{broken}");
            let broken = said(&mut world, deputy, n, MacAddr(2, 9, 9, 9, 9, 9), false).unwrap();
            assert_eq!(broken, "that is nobody's");
        }
    }

    #[test]
    fn a_deputy_may_not_answer_for_a_live_holder_a_dead_machine_or_a_deleted_address() {
        let (mut live, holder, deputy) = world();
        let right = mac(&live, holder);
        let broken = said(&mut live, deputy, 0, right, false).unwrap();
        assert!(broken.ends_with("is there"), "{broken}");

        let (mut dead, holder, deputy) = world();
        dead.apply(&Fault::Leave(Who::Node(holder)));
        dead.run_until(dead.now + Duration::from_millis(100));
        dead.apply(&Fault::Crash { who: Who::Node(holder), link: true });
        assert_eq!(said(&mut dead, deputy, 0, right, false), None, "nobody can know yet");
        dead.nodes[holder].died_at = dead.now.checked_sub(Duration::from_millis(251));
        let broken = said(&mut dead, deputy, 0, right, false).unwrap();
        assert!(broken.ends_with("has been dead for too long"), "{broken}");

        let (mut gone, holder, deputy) = world();
        gone.apply(&Fault::Leave(Who::Node(holder)));
        gone.apply(&Fault::Delete { vip: 0 });
        gone.run_until(gone.now + Duration::from_secs(1));
        assert_eq!(said(&mut gone, deputy, 0, right, false).unwrap(), "it knows no spec");
    }
}
