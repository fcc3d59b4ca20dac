//! What is looked at when a run has settled: one eligible holder on each connected side and none for what was
//! deleted, and at the very end what clients believe.

use std::net::IpAddr;

use herald_l2::{Revision, VipSpec};

use crate::switch::Port;
use crate::world::World;

/// A client that sends all the time is being served when one of so many packets was.
const SERVED_WITHIN: u32 = 10;

impl World {
    /// The speakers that run, in groups that hear each other.
    fn sides(&self) -> Vec<Vec<usize>> {
        let mut sides: Vec<Vec<usize>> = Vec::new();
        for node in (0..self.nodes.len()).filter(|node| self.is_speaking(*node)) {
            let (connected, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut sides)
                .into_iter()
                .partition(|side| side.iter().any(|other| self.are_connected(node, *other)));
            let mut side: Vec<_> = connected.into_iter().flatten().collect();
            side.push(node);
            sides = rest;
            sides.push(side);
        }
        sides
    }

    /// Frames pass both ways.
    fn reaches(&self, a: Port, b: Port) -> bool {
        self.switch.passes(a, b) && self.switch.passes(b, a)
    }

    /// Exactly one eligible holder per connected side for every address, or the n-th alone; none for a deleted one.
    pub(crate) fn judge_holders(&mut self, only: Option<usize>) {
        let mut wrong = Vec::new();
        for side in self.sides() {
            let judged = self.vips().iter().enumerate().filter(|(n, _)| only.is_none_or(|only| only == *n));
            for (_, vip) in judged {
                if let Some(text) = self.judge_vip(&side, *vip) {
                    wrong.push(text);
                }
            }
        }
        for text in wrong {
            self.check.violation(self.now, &text);
        }
        for node in 0..self.nodes.len() {
            self.judge_own_word(node);
        }
    }

    fn judge_vip(&self, side: &[usize], vip: IpAddr) -> Option<String> {
        let copy = |node: usize| self.nodes.get(node)?.copies.get(&vip);
        let holders: Vec<_> = side.iter().copied().filter(|node| self.check.holds(vip, *node)).collect();
        let names = |nodes: &[usize]| {
            let names: Vec<_> = nodes.iter().map(|node| format!("n{}", node + 1)).collect();
            if names.is_empty() { "nobody".to_owned() } else { names.join(" and ") }
        };
        let among = names(side);
        let newest = side.iter().filter_map(|node| copy(*node)).max_by_key(|spec| spec.revision);
        let Some(newest) = newest else {
            let text = format!("{vip} is deleted, held by {} among {among}", names(&holders));
            return (!holders.is_empty()).then_some(text);
        };
        let entitled = |node: usize| self.entitled_by(newest, node);
        let can_claim = |node: &usize| {
            entitled(*node) && copy(*node).is_some_and(|spec| spec.revision == newest.revision)
        };
        // Older copies, of a spec that has been seen newer, are no right to claim (rule A33).
        let outdated = self.told.get(&vip).is_some_and(|told| *told > newest.revision);
        // A node that can neither ask a peer nor the gateway has no proof, and rightly takes nothing new.
        let gateway = self.host_port(0);
        let proven = side.len() > 1 || side.iter().any(|node| self.reaches(Port(*node), gateway));
        let must = proven && !outdated && side.iter().any(can_claim);
        let Revision(revision) = newest.revision;
        match holders.as_slice() {
            [] if must => Some(format!("{vip} (revision {revision}) is held by nobody among {among}")),
            [one] if must && !entitled(*one) => {
                Some(format!("{vip} (revision {revision}) is held by n{}, which may not", one + 1))
            }
            [] | [_] => None,
            several => Some(format!("{vip} is held by {} among {among}", names(several))),
        }
    }

    fn entitled_by(&self, spec: &VipSpec, node: usize) -> bool {
        self.nodes.get(node).is_some_and(|node| {
            spec.nodes.contains(&node.name) && !node.state.excluded && !node.state.out_of_service
        })
    }

    /// What a core says it holds is what its events said.
    fn judge_own_word(&mut self, node: usize) {
        let Some(core) =
            self.nodes.get(node).filter(|node| node.speaks()).and_then(|node| node.core.as_ref())
        else {
            return;
        };
        let says: Vec<_> = core.holdings().iter().map(|holding| holding.vip).collect();
        let told: Vec<_> = self.check.vips().into_iter().filter(|vip| self.check.holds(*vip, node)).collect();
        if says != told {
            let text = format!("n{} says that it holds {says:?}, its events say {told:?}", node + 1);
            self.check.violation(self.now, &text);
        }
    }

    /// Every client's packets go to a holder, and arrive. Where frames are lost that can't be promised: a client that
    /// missed every announcement is reached by the next refresh (rule A46), up to two minutes later.
    pub(crate) fn judge_clients(&mut self, lossy: bool) {
        let mut wrong = Vec::new();
        for (index, host) in self.hosts.iter().enumerate() {
            let port = self.host_port(index);
            for vip in self.api.vips() {
                let holders: Vec<_> = self
                    .check
                    .holders(vip)
                    .filter(|node| self.is_speaking(*node) && self.reaches(port, Port(*node)))
                    .filter_map(|node| Some((node, self.nodes.get(node)?.kernel.mac)))
                    .collect();
                if holders.is_empty() {
                    continue;
                }
                let name = &host.name;
                match host.cache.lookup(vip) {
                    Some(mac)
                        if holders.iter().all(|(_, holder)| *holder != mac)
                            && !self.check.missed_a_move(index, vip) =>
                    {
                        let holder = holders.iter().map(|(node, _)| node + 1).next().unwrap_or_default();
                        wrong.push(format!(
                            "{name} sends what is for {vip} to {mac}, not to its holder n{holder}"
                        ));
                    }
                    _ => {}
                }
                if lossy {
                    continue;
                }
                let last = self.check.last_served(index, vip);
                if last.is_none_or(|last| {
                    self.now.saturating_sub(last) > self.setup.packet_every * SERVED_WITHIN
                }) {
                    wrong.push(format!("{name} is not served at {vip}"));
                }
            }
        }
        if lossy {
            self.check.stale_caches(wrong.len());
            return;
        }
        for text in wrong {
            self.check.violation(self.now, &text);
        }
    }
}
