//! The table of addresses of one segment: what is known of each, found in O(1), and when each needs a look.
//!
//! Owns the data; decides nothing. Must always hold: an address is in `index` exactly when its slot is occupied;
//! walks go in order of slots, never of the hash map, so that they are the same in every run.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::net::IpAddr;
use std::sync::Arc;

use herald_wire::{Epoch, MacAddr, NodeId, Revision};
use rustc_hash::FxHashMap;

use crate::conflict::Watch;
use crate::input::VipSpec;
use crate::output::{Gone, Traffic};
use crate::ownership::{Eligibility, Standing};
use crate::peers::Life;
use crate::time::Instant;

/// More addresses than this are not remembered; only peers with a key could ask for it.
const CAPACITY: usize = 65_536;
/// Clients remembered for one address (rule A46).
pub(crate) const CLIENTS_PER_VIP: usize = 16;

/// And for all addresses of a segment together, roughly.
const CLIENTS: usize = 32_768;

/// A slot of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct VipId(u32);

impl VipId {
    pub(crate) fn slot(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// One address.
#[derive(Debug)]
pub(crate) struct Vip {
    pub(crate) addr: IpAddr,
    pub(crate) spec: Option<Arc<VipSpec>>,
    pub(crate) spec_since: Instant,
    pub(crate) eligibility: Eligibility,
    pub(crate) mine: Option<Mine>,
    /// At most one per node; those of a previous life are reservations (rule A31).
    pub(crate) claims: Vec<PeerClaim>,
    /// The greatest epoch and revision ever seen for it.
    pub(crate) max_epoch: Epoch,
    pub(crate) max_revision: Revision,
    pub(crate) last_holder: Option<NodeId>,
    pub(crate) free_since: Option<Instant>,
    /// How it came to be free, when a peer's end did it.
    pub(crate) freed_by: Option<(NodeId, Gone)>,
    /// Since when my spec excludes its live holder (rule A36).
    pub(crate) overruled_since: Option<Instant>,
    /// When to look at it again.
    due: Option<Instant>,
    /// Bumped to cancel announcements that wait.
    pub(crate) announce_generation: u32,
    /// Re-announced last, to keep 100 ms between (rule A38).
    pub(crate) reannounced: Option<Instant>,
    /// Clients that asked for it, the one heard longest ago first.
    pub(crate) clients: Vec<Client>,
    /// Whom a targeted announcement still waits for.
    pub(crate) unanswered: Vec<IpAddr>,
    /// Foreign owners: probes and conflicts.
    pub(crate) watch: Option<Box<Watch>>,
    pub(crate) traffic: Traffic,
    /// Its solicited-node group is joined on its account.
    pub(crate) joined: bool,
}

/// My claim.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mine {
    pub(crate) epoch: Epoch,
    pub(crate) revision: Revision,
    pub(crate) since: Instant,
    /// Made while nobody could be asked: its epoch is not raised yet.
    pub(crate) tentative: bool,
}

/// A peer's claim.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerClaim {
    pub(crate) node: NodeId,
    pub(crate) life: Life,
    pub(crate) epoch: Epoch,
    pub(crate) revision: Revision,
}

/// Somebody whose neighbour cache holds the address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    pub(crate) ip: IpAddr,
    pub(crate) mac: MacAddr,
}

impl PeerClaim {
    /// What it is worth (rule A28). `reach`: its node's.
    pub(crate) fn standing(&self, reach: u16) -> Standing {
        Standing { revision: self.revision, reach, epoch: self.epoch, node: self.node }
    }
}

impl Vip {
    fn new(addr: IpAddr, now: Instant) -> Self {
        Self {
            addr,
            spec: None,
            spec_since: now,
            eligibility: Eligibility::NoSpec(now),
            mine: None,
            claims: Vec::new(),
            max_epoch: Epoch(0),
            max_revision: Revision(0),
            last_holder: None,
            free_since: None,
            freed_by: None,
            overruled_since: None,
            due: None,
            announce_generation: 0,
            reannounced: None,
            clients: Vec::new(),
            unanswered: Vec::new(),
            watch: None,
            traffic: Traffic::default(),
            joined: false,
        }
    }

    /// Nobody has been seen holding it since this speaker started.
    pub(crate) fn never_held(&self) -> bool {
        self.max_epoch == Epoch(0) && self.last_holder.is_none()
    }
}

/// Keeps the last `most` clients, each once, newest last.
pub(crate) fn remember(clients: &mut Vec<Client>, client: Client, most: usize) {
    if clients.last().is_some_and(|last| last.ip == client.ip && last.mac == client.mac) {
        return;
    }
    clients.retain(|known| known.ip != client.ip);
    if clients.len() >= most {
        clients.remove(0);
    }
    // Most addresses have few, and there are many addresses.
    clients.reserve_exact(1);
    clients.push(client);
}

/// All addresses of a segment.
#[derive(Debug, Default)]
pub(crate) struct VipTable {
    index: FxHashMap<IpAddr, VipId>,
    /// Each on its own, so that the table grows without moving them.
    slots: Vec<Option<Box<Vip>>>,
    vacant: Vec<VipId>,
    timers: BinaryHeap<Reverse<(Instant, VipId)>>,
    /// Free addresses that wait for the segment's gate.
    blocked: BTreeSet<VipId>,
    held: usize,
}

impl VipTable {
    pub(crate) fn find(&self, addr: IpAddr) -> Option<VipId> {
        self.index.get(&addr).copied()
    }

    pub(crate) fn by_addr(&self, addr: IpAddr) -> Option<&Vip> {
        self.get(self.find(addr)?)
    }

    pub(crate) fn get(&self, id: VipId) -> Option<&Vip> {
        self.slots.get(id.slot())?.as_deref()
    }

    pub(crate) fn get_mut(&mut self, id: VipId) -> Option<&mut Vip> {
        self.slots.get_mut(id.slot())?.as_deref_mut()
    }

    /// The address's slot, made if need be; `None` when the table is full.
    pub(crate) fn find_or_insert(&mut self, addr: IpAddr, now: Instant) -> Option<VipId> {
        if let Some(id) = self.find(addr) {
            return Some(id);
        }
        let id = match self.vacant.pop() {
            Some(id) => id,
            None if self.slots.len() >= CAPACITY => return None,
            None => {
                let id = VipId(u32::try_from(self.slots.len()).ok()?);
                self.slots.push(None);
                id
            }
        };
        *self.slots.get_mut(id.slot())? = Some(Box::new(Vip::new(addr, now)));
        self.index.insert(addr, id);
        Some(id)
    }

    pub(crate) fn remove(&mut self, id: VipId) {
        if let Some(vip) = self.slots.get_mut(id.slot()).and_then(Option::take) {
            self.index.remove(&vip.addr);
            self.blocked.remove(&id);
            self.vacant.push(id);
        }
    }

    /// Every address, in order of slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (VipId, &Vip)> {
        (0u32..).zip(&self.slots).filter_map(|(id, slot)| Some((VipId(id), slot.as_deref()?)))
    }

    /// Every address's slot, for walks that change them.
    pub(crate) fn ids(&self) -> Vec<VipId> {
        self.iter().map(|(id, _)| id).collect()
    }

    /// How many slots there are, vacant ones included: the span of a SYNC.
    pub(crate) fn span(&self) -> usize {
        self.slots.len()
    }

    /// The addresses in these slots.
    pub(crate) fn in_slots(&self, slots: std::ops::Range<usize>) -> impl Iterator<Item = &Vip> {
        self.slots.get(slots).unwrap_or_default().iter().flatten().map(Box::as_ref)
    }

    pub(crate) fn set_mine(&mut self, id: VipId, mine: Option<Mine>) {
        let Some(vip) = self.slots.get_mut(id.slot()).and_then(Option::as_mut) else { return };
        let before = vip.mine.is_some();
        let after = mine.is_some();
        vip.mine = mine;
        match (before, after) {
            (false, true) => self.held += 1,
            (true, false) => self.held -= 1,
            _ => {}
        }
    }

    /// Clients to remember for each address, so that all together stay bounded however many ask.
    pub(crate) fn clients_per_vip(&self) -> usize {
        (CLIENTS / self.slots.len().max(1)).clamp(2, CLIENTS_PER_VIP)
    }

    /// How many are held here.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Looks again at `at`; `None`: only when something happens.
    pub(crate) fn set_due(&mut self, id: VipId, at: Option<Instant>) {
        let Some(vip) = self.slots.get_mut(id.slot()).and_then(Option::as_mut) else { return };
        if vip.due != at {
            vip.due = at;
            if let Some(at) = at {
                self.timers.push(Reverse((at, id)));
            }
        }
    }

    pub(crate) fn set_blocked(&mut self, id: VipId, blocked: bool) {
        if blocked {
            self.blocked.insert(id);
        } else {
            self.blocked.remove(&id);
        }
    }

    pub(crate) fn any_blocked(&self) -> bool {
        !self.blocked.is_empty()
    }

    pub(crate) fn blocked(&self) -> Vec<VipId> {
        self.blocked.iter().copied().collect()
    }

    /// The next address that is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<VipId> {
        while let Some(Reverse((at, id))) = self.timers.peek().copied() {
            if at > now {
                return None;
            }
            self.timers.pop();
            // Entries of an earlier plan lie in the heap until their time comes.
            if let Some(vip) = self.get_mut(id)
                && vip.due == Some(at)
            {
                vip.due = None;
                return Some(id);
            }
        }
        None
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }
}
