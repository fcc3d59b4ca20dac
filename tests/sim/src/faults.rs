//! What goes wrong in a run, and how it is done to the world.
//!
//! A schedule is a list of faults with times. It may name its victims by what they do at that moment ("the holder of
//! the first address"), and meet the same victim again later by the slot it was put into.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use herald_l2::{NodeState, Nodes};

use crate::Moment;
use crate::node::{Ending, Frozen, node_name};
use crate::switch::Port;
use crate::world::World;

/// For how long a move is still the fault's doing after the fault itself is over.
const AFTERMATH: Duration = Duration::from_secs(2);
/// A list that lost more than half is believed 10 s later, and what it deletes is given up 2 s after that (rule A42).
const LIST_BELIEVED: Duration = Duration::from_secs(12);
/// As long as the fault lasts.
const LASTING: Moment = Moment::MAX;

/// Which node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// This one.
    Node(usize),
    /// Whoever holds the n-th address now, remembered in a slot of the same number.
    HolderOf(usize),
    /// A node that holds nothing if there is one, remembered in slot 9.
    Idle,
    /// Who was put into this slot before.
    Slot(usize),
    /// In a list: everybody but who was put into this slot.
    AllBut(usize),
}

/// One thing that goes wrong, or is mended.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Power lost; `link`: the network card keeps its light on.
    Crash { who: Who, link: bool },
    /// Power is back, and the speaker with it.
    Return(Who),
    /// The speaker is killed.
    Kill(Who),
    /// The speaker starts (again).
    Start(Who),
    /// SIGTERM: for a restart, or for good where the Node says so (rule A44).
    Leave(Who),
    /// SIGSTOP.
    Stop(Who),
    /// The virtual machine is paused, its clock with it.
    Pause(Who),
    /// SIGCONT, or the machine goes on.
    Continue(Who),
    /// The node's cable is pulled, or back; the node sees it.
    Cable { who: Who, up: bool },
    /// The way behind the cable breaks, or is back; nobody sees it.
    Uplink { who: Who, up: bool },
    /// The switch itself loses power: every port is down.
    SwitchOff,
    /// One port (of a node or host) comes up; `forwarding`: at once, else with a later [`Fault::Forward`].
    PortUp { port: usize, forwarding: bool },
    /// The port lets frames through.
    Forward { port: usize },
    /// The network is split: which side each port is on.
    Split(Vec<u8>),
    /// And whole again.
    Heal,
    /// Frames from one node to another are lost, or no longer.
    Path { from: Who, to: Who, cut: bool },
    /// The switch lets hellos pass no longer, or again; everything else passes.
    Filter(bool),
    /// The node's interface is gone (its driver is reloaded, its container network made anew), or back; `renumbered`:
    /// with another index and another MAC address.
    Interface { who: Who, present: bool, renumbered: bool },
    /// All paths lose this share.
    Loss(f64),
    /// The node's watch stops; nothing it writes arrives.
    ApiCut(Who),
    /// And goes on with a new list.
    ApiBack(Who),
    /// A `LoadBalancerIP` is made: the n-th address, for all nodes but these.
    Create { vip: usize, without: Vec<Who> },
    /// It is deleted.
    Delete { vip: usize },
    /// Its list of nodes is written anew.
    Assign { vip: usize, without: Vec<Who> },
    /// It is written without any change of meaning.
    Touch { vip: usize },
    /// Clients forget where the addresses are, as new ones don't know it.
    Forget,
    /// The Node object is changed.
    Node { who: Who, state: NodeState },
}

impl World {
    /// Which node is meant, now.
    fn find(&mut self, who: Who) -> Option<usize> {
        let holding = |world: &Self, node| world.vips().iter().any(|vip| world.check.holds(*vip, node));
        match who {
            Who::Node(node) => Some(node),
            Who::Slot(slot) => self.slots.get(&slot).copied(),
            Who::AllBut(_) => None,
            Who::HolderOf(index) => {
                let vip = *self.vips().get(index)?;
                let node = self
                    .check
                    .holders(vip)
                    .find(|node| self.is_speaking(*node))
                    .or_else(|| (0..self.nodes.len()).find(|node| self.is_speaking(*node)))?;
                self.slots.insert(index, node);
                Some(node)
            }
            Who::Idle => {
                let live: Vec<_> = (0..self.nodes.len()).filter(|node| self.is_speaking(*node)).collect();
                let node =
                    live.iter().copied().find(|node| !holding(self, *node)).or(live.last().copied())?;
                self.slots.insert(9, node);
                Some(node)
            }
        }
    }

    /// The nodes that may hold an address, all but these, and these.
    fn listed(&mut self, without: &[Who]) -> (Nodes, BTreeSet<usize>) {
        let mut nodes = BTreeSet::new();
        for who in without {
            match who {
                Who::AllBut(slot) => {
                    let but = self.slots.get(slot).copied();
                    nodes.extend((0..self.nodes.len()).filter(|node| Some(*node) != but));
                }
                who => nodes.extend(self.find(*who)),
            }
        }
        if nodes.is_empty() {
            return (Nodes::All, nodes);
        }
        let names = (0..self.nodes.len()).filter(|node| !nodes.contains(node)).map(node_name);
        (Nodes::Listed(names.collect()), nodes)
    }

    /// Does it.
    pub(crate) fn apply(&mut self, fault: &Fault) {
        if let Some(who) = fault.who() {
            let Some(node) = self.find(who) else { return };
            self.note(node, || format!("--- {}", fault.describe()));
            self.apply_to(node, fault);
        } else {
            self.note_world(|| format!("--- {}", fault.describe()));
            self.apply_to_all(fault);
        }
        self.compare_holders();
    }

    fn apply_to(&mut self, node: usize, fault: &Fault) {
        let now = self.now;
        let strike = |world: &mut Self, until| world.check.excuses.strike(node, until);
        let cut_off = |world: &mut Self, until| world.check.excuses.cut_off(world.now, node, until);
        match fault {
            Fault::Crash { link, .. } => self.crash(node, *link),
            Fault::Return(_) => self.power_returns(node),
            Fault::Kill(_) => {
                self.goes_away(node, false);
                self.speaker_ends(node);
                if let Some(node) = self.nodes.get_mut(node) {
                    node.kill();
                }
                self.check.ended(node);
            }
            Fault::Start(_) if self.nodes.get(node).is_some_and(|node| node.alive && node.core.is_none()) => {
                self.check.excuses.back(node, now + AFTERMATH);
                self.start_speaker(node);
            }
            Fault::Leave(_) => {
                self.goes_away(node, true);
                if let Some(node) = self.nodes.get_mut(node) {
                    node.ending = Ending::Asked;
                }
                self.wake(node);
            }
            Fault::Stop(_) | Fault::Pause(_) => {
                let frozen = if matches!(fault, Fault::Stop(_)) {
                    self.goes_away(node, false);
                    self.leave_behind(node);
                    Frozen::Speaker
                } else {
                    strike(self, LASTING);
                    Frozen::Machine { since: now }
                };
                if let Some(node) = self.nodes.get_mut(node).filter(|node| node.frozen.is_none()) {
                    node.frozen = Some(frozen);
                }
                self.check.stands_still(node, true);
            }
            Fault::Continue(_) => {
                // Told to end while it was frozen, or killed: it is not back.
                if self.nodes.get(node).is_none_or(|node| node.ending == Ending::No && node.core.is_some()) {
                    self.check.excuses.back(node, now + AFTERMATH);
                }
                self.thaw(node);
            }
            Fault::Cable { up, .. } => {
                cut_off(self, if *up { now + AFTERMATH } else { LASTING });
                self.set_link(Port(node), *up);
            }
            Fault::Uplink { up, .. } => {
                cut_off(self, if *up { now + AFTERMATH } else { LASTING });
                self.switch.set_forwarding(Port(node), *up);
            }
            Fault::Path { to, cut, .. } => {
                let Some(to) = self.find(*to) else { return };
                for node in [node, to] {
                    self.check.excuses.cut_off(now, node, if *cut { LASTING } else { now + AFTERMATH });
                }
                self.switch.set_cut(Port(node), Port(to), *cut);
            }
            Fault::Interface { present, renumbered, .. } => {
                cut_off(self, if *present { now + AFTERMATH } else { LASTING });
                if let Some(node) = self.nodes.get_mut(node) {
                    node.set_interface(*present, *renumbered);
                }
                self.set_link(Port(node), *present);
            }
            Fault::ApiCut(_) => self.api_links.cut(node),
            Fault::ApiBack(_) => {
                // What it held by older copies may be another's by now.
                for vip in self.vips().to_vec() {
                    if self.check.held_last(vip, node, now) || self.check.holds(vip, node) {
                        self.check.excuses.strike_vip(vip, now + LIST_BELIEVED + AFTERMATH);
                    }
                }
                self.connect_api(node);
            }
            Fault::Node { state, .. } => {
                if state.excluded || state.out_of_service {
                    strike(self, LASTING);
                }
                self.api.set_node(node, *state);
                self.tell_node(node);
            }
            _ => {}
        }
    }

    /// The speaker falls silent, or says that it will be back; what it held is its own for as long as rule A23 says.
    fn goes_away(&mut self, node: usize, says_so: bool) {
        let Some(state) = self.nodes.get(node).filter(|node| node.alive && node.core.is_some()) else {
            return;
        };
        if says_so && state.frozen.is_some() {
            // It can't say anything.
            return;
        }
        if says_so && (state.state.cordoned || state.state.excluded || state.state.out_of_service) {
            return self.check.excuses.strike(node, LASTING);
        }
        let wait = match (says_so, state.kernel.echo) {
            (false, true) => Duration::from_secs(5),
            (false, false) => Duration::from_secs(2),
            (true, true) => Duration::from_mins(1),
            (true, false) => Duration::from_secs(10),
        };
        let again = state.active_since.is_none() || state.frozen.is_some();
        self.check.excuses.away(node, self.now + wait, again);
    }

    fn crash(&mut self, node: usize, link: bool) {
        self.check.excuses.strike(node, LASTING);
        self.speaker_ends(node);
        if let Some(node) = self.nodes.get_mut(node) {
            node.crash(self.now);
        }
        self.check.died(self.now, node);
        if !link {
            self.switch.set_link(Port(node), false);
        }
    }

    fn power_returns(&mut self, node: usize) {
        let Some(state) = self.nodes.get_mut(node).filter(|node| !node.alive) else { return };
        state.alive = true;
        state.died_at = None;
        self.check.excuses.strike(node, self.now + AFTERMATH);
        self.switch.set_link(Port(node), true);
        self.start_speaker(node);
    }

    fn apply_to_all(&mut self, fault: &Fault) {
        let now = self.now;
        match fault {
            Fault::SwitchOff => {
                for port in 0..self.ports() {
                    self.set_link(Port(port), false);
                    self.switch.set_forwarding(Port(port), false);
                }
                for node in 0..self.nodes.len() {
                    self.check.excuses.cut_off(now, node, LASTING);
                }
            }
            Fault::PortUp { port, forwarding } => {
                self.set_link(Port(*port), true);
                if *forwarding {
                    self.apply_to_all(&Fault::Forward { port: *port });
                }
            }
            Fault::Forward { port } => {
                self.switch.set_forwarding(Port(*port), true);
                self.check.excuses.cut_off(now, *port, now + AFTERMATH);
            }
            Fault::Split(sides) => {
                self.set_sides(|port| sides.get(port).copied().unwrap_or_default());
                for node in 0..self.nodes.len() {
                    self.check.excuses.cut_off(now, node, LASTING);
                }
            }
            Fault::Heal => {
                self.set_sides(|_| 0);
                for node in 0..self.nodes.len() {
                    self.check.excuses.cut_off(now, node, now + AFTERMATH);
                }
            }
            Fault::Loss(loss) => self.switch.set_loss(*loss),
            Fault::Forget => {
                for host in &mut self.hosts {
                    host.cache.flush();
                }
            }
            Fault::Filter(filter) => {
                self.switch.set_filter(*filter);
                let until = if *filter { LASTING } else { now + AFTERMATH };
                for node in 0..self.nodes.len() {
                    self.check.excuses.cut_off(now, node, until);
                }
            }
            Fault::Create { vip, without } => {
                let (nodes, barred) = self.listed(without);
                let probe = self.dice.chance(0.5);
                self.change_spec(*vip, |api, vip| api.create(vip, nodes, probe));
                self.bar(*vip, barred);
            }
            Fault::Delete { vip } => self.change_spec(*vip, super::api::Api::delete),
            Fault::Assign { vip, without } => {
                let (nodes, barred) = self.listed(without);
                self.change_spec(*vip, |api, vip| api.change(vip, |spec| spec.nodes = nodes));
                self.bar(*vip, barred);
            }
            Fault::Touch { vip } => self.change_spec(*vip, |api, vip| api.change(vip, |_| ())),
            _ => {}
        }
    }

    /// Splits the network, or makes it whole. A host that comes back to nodes of which none sees another come back is not
    /// told of what moved meanwhile: nobody knows that it was away, and it finds out by its own probes.
    fn set_sides(&mut self, side: impl Fn(usize) -> u8) {
        let nodes = self.nodes.len();
        let passes = |world: &Self| -> BTreeSet<(usize, usize)> {
            let pairs = (0..world.ports()).flat_map(|a| (0..nodes).map(move |b| (a, b)));
            pairs.filter(|(a, b)| world.switch.passes(Port(*a), Port(*b))).collect()
        };
        let before = passes(self);
        for port in 0..self.ports() {
            self.switch.set_side(Port(port), side(port));
        }
        let after = passes(self);
        for host in 0..self.hosts.len() {
            let port = self.host_port(host).0;
            if before.difference(&after).any(|(a, _)| *a == port) {
                self.check.host_lost(self.now, host);
            }
            let mut gained = after.difference(&before).filter(|(a, _)| *a == port).peekable();
            if gained.peek().is_some() {
                let told =
                    gained.any(|(_, node)| after.difference(&before).any(|(a, b)| *b == *node && *a < nodes));
                self.check.host_back(self.now, host, told);
            }
        }
    }

    /// By the spec as it is now these may not hold the address.
    fn bar(&mut self, index: usize, nodes: BTreeSet<usize>) {
        if let Some(vip) = self.vips().get(index).copied()
            && let Some(spec) = self.api.read(vip)
        {
            self.check.excuses.bar(vip, spec.revision, nodes);
        }
    }

    fn change_spec(&mut self, index: usize, change: impl FnOnce(&mut crate::api::Api, IpAddr)) {
        let Some(vip) = self.vips().get(index).copied() else { return };
        change(&mut self.api, vip);
        self.check.excuses.strike_vip(vip, self.now + AFTERMATH * 2);
        self.check.forget_served(vip);
        self.tell_all(vip);
    }
}

impl Fault {
    /// Whom it strikes, if it is one node.
    fn who(&self) -> Option<Who> {
        match self {
            Self::Crash { who, .. }
            | Self::Return(who)
            | Self::Kill(who)
            | Self::Start(who)
            | Self::Leave(who)
            | Self::Stop(who)
            | Self::Pause(who)
            | Self::Continue(who)
            | Self::Cable { who, .. }
            | Self::Uplink { who, .. }
            | Self::Path { from: who, .. }
            | Self::Interface { who, .. }
            | Self::ApiCut(who)
            | Self::ApiBack(who)
            | Self::Node { who, .. } => Some(*who),
            _ => None,
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Crash { link: true, .. } => "crash, the link stays up".into(),
            Self::Crash { link: false, .. } => "power lost".into(),
            Self::Return(_) => "power is back".into(),
            Self::Kill(_) => "speaker killed".into(),
            Self::Start(_) => "speaker starts".into(),
            Self::Leave(_) => "SIGTERM".into(),
            Self::Stop(_) => "SIGSTOP".into(),
            Self::Pause(_) => "machine paused".into(),
            Self::Continue(_) => "goes on".into(),
            Self::Cable { up, .. } => format!("cable {}", if *up { "back" } else { "pulled" }),
            Self::Uplink { up, .. } => {
                format!("way behind the cable {}", if *up { "back" } else { "broken" })
            }
            Self::Path { to, cut, .. } => {
                format!("path to {to:?} {}", if *cut { "cut" } else { "restored" })
            }
            Self::Interface { present: false, .. } => "interface gone".into(),
            Self::Interface { renumbered, .. } => {
                format!("interface back{}", if *renumbered { " with another index and MAC" } else { "" })
            }
            Self::ApiCut(_) => "API out of reach".into(),
            Self::ApiBack(_) => "API in reach again".into(),
            other => format!("{other:?}"),
        }
    }
}
