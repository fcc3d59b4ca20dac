//! The API server's side of the world: watches that deliver, status that is written, speakers that start with a list.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::api::Told;
use crate::node::{self, Node};
use crate::world::{Event, World};

impl World {
    /// The speaker process starts: its interfaces at once, the API when it answers.
    pub(crate) fn start_speaker(&mut self, node: usize) {
        let config = node::config(node, self.setup.profile, self.dice.seed());
        let (now, ablation) = (self.now, self.setup.ablation);
        let Some(state) = self.nodes.get_mut(node).filter(|node| node.alive) else { return };
        state.start(now, config, ablation);
        self.check.excuses.started(now, node);
        self.note(node, || "speaker starts".into());
        self.wake(node);
        self.connect_api(node);
    }

    /// The speaker process ends, one way or another.
    pub(crate) fn speaker_ends(&mut self, node: usize) {
        self.api_links.cut(node);
        self.leave_behind(node);
    }

    /// Who knows what this speaker held?
    pub(crate) fn leave_behind(&mut self, node: usize) {
        let others: BTreeSet<usize> =
            (0..self.nodes.len()).filter(|other| *other != node && self.is_speaking(*other)).collect();
        for vip in self.vips().to_vec() {
            if self.check.holds(vip, node) {
                self.check.excuses.left_behind(vip, node, others.clone());
            }
        }
    }

    /// The node's watch is made, with a first list.
    pub(crate) fn connect_api(&mut self, node: usize) {
        self.api_links.connect(node);
        self.list(node);
        self.tell_node(node);
    }

    pub(crate) fn list(&mut self, node: usize) {
        let list = Told::List(self.api.list());
        self.tell(node, list, 5, 60);
    }

    fn tell(&mut self, node: usize, told: Told, low: u64, high: u64) {
        let at = self.now + self.dice.ms(low, high);
        if let Some((at, session)) = self.api_links.send(node, at) {
            self.schedule(at, Event::Api { node, session, told: Box::new(told) });
        }
    }

    /// Tells a node about its own Node object.
    pub(crate) fn tell_node(&mut self, node: usize) {
        let told = Told::Node(self.api.node(node));
        self.tell(node, told, 1, 30);
    }

    /// Tells every node what has become of an address.
    pub(crate) fn tell_all(&mut self, vip: IpAddr) {
        for node in 0..self.nodes.len() {
            let told = match self.api.read(vip) {
                Some(spec) => Told::Applied(spec),
                None => Told::Deleted(vip),
            };
            self.tell(node, told, 1, 100);
        }
    }

    /// The status writer is lazy (rule B24). `claimed`: this tells of a claim.
    pub(crate) fn report_later(&mut self, node: usize, vip: IpAddr, claimed: bool) {
        let at = self.now + self.dice.ms(250, 600);
        self.schedule(at, Event::Status { node, vip, claimed });
    }

    /// A holder whose entry somebody removed writes it again.
    pub(crate) fn miss_entry(&mut self, node: usize, told: &Told) {
        let Some(name) = self.nodes.get(node).map(|node| node.name.clone()) else { return };
        for spec in told.specs() {
            if self.check.holds(spec.vip, node) && !spec.holders_hint.contains(&name) {
                self.report_later(node, spec.vip, false);
            }
        }
    }

    /// The status writer: what is so now.
    pub(crate) fn write_status(&mut self, node: usize, vip: IpAddr, claimed: bool) {
        if self.api_links.is_up(node) && self.nodes.get(node).is_some_and(Node::speaks) {
            let before = self.api.read(vip);
            self.api.report(vip, node, self.check.holds(vip, node), claimed);
            if self.api.read(vip) == before {
                return;
            }
            if self.api.read(vip).is_some() {
                self.tell_all(vip);
            }
        }
    }
}
