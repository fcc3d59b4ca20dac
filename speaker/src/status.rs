//! What this node writes into `LoadBalancerIP.status`: its entry in `holders`, and the condition
//! `Conflict`; and the Kubernetes Event that goes with a transition.
//!
//! How (rule B24): the entry is written by server-side apply under the manager `herald-speaker-<node>`, which
//! owns nothing but it, so that two speakers never overwrite each other. An apply can't remove what another
//! manager owns; the dead holder's entry is therefore removed by its successor, once per claim, by a merge
//! patch that is conditional on the resourceVersion that the apply just returned: whatever was written in
//! between makes it fail, and it is tried again on the newer object. Where an address has a holder on each of
//! two segments, the other one finds its entry gone and writes it again, once.
//!
//! What must always hold: nothing here is on the way of a failover; at most [`RATE`] requests a second in the long run,
//! newest first; while the API server is away transitions only replace what is to be written, so that
//! afterwards only what is still true is written.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use herald_l2::MacAddr;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use tokio::time::Instant;

use crate::{lbip::SeenEntry, node_news::NewsQueue};

/// Requests per second (rule B24).
pub const RATE: u32 = 5;
/// Requests at once after a quiet time.
pub const BURST: u32 = 25;
/// How long after the start an entry of this node's earlier life is left alone: it is the hint by which a
/// cluster that restarts as a whole finds its holders again (rule A31).
pub const EARLIER_LIFE: Duration = Duration::from_secs(10);

/// A transition is written this long after it at the earliest, and up to twice as long. For people it is soon enough;
/// meanwhile the controller writes what they wait for, and what does not last is not written at all.
pub const LAZY: Duration = Duration::from_millis(250);

/// This node's entry for an address that it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The interface's name.
    pub interface: Arc<str>,
    /// The MAC address that clients get.
    pub mac: MacAddr,
    /// Since when, for people.
    pub since: Timestamp,
}

impl Entry {
    fn matches(&self, seen: &SeenEntry) -> bool {
        *self.interface == *seen.interface && self.mac.to_string() == seen.mac
    }

    /// The entry as it stands in the object.
    pub fn to_holder(&self, node: &str) -> herald_crds::Holder {
        herald_crds::Holder {
            node: node.to_owned(),
            interface: self.interface.to_string(),
            mac: self.mac.to_string(),
            since: Time(self.since),
        }
    }
}

/// A foreign owner of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Who answers.
    pub mac: MacAddr,
    /// Where it was seen.
    pub interface: Arc<str>,
    /// Whether this node holds the address and defends it.
    pub held: bool,
    /// Since when, for people.
    pub since: Timestamp,
}

/// How this node came by an address: decides the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    /// Nobody held it before.
    First,
    /// From the node of this name (or id, while its name is unknown).
    From(String),
}

/// All that this node's manager owns in one object: an apply says all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Held here.
    pub entry: Option<Entry>,
    /// Claimed by a stranger; seldom, so that it takes little room in the others.
    pub foreign: Option<Box<Foreign>>,
}

/// One write to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The address.
    pub vip: IpAddr,
    /// What shall stand there.
    pub desired: Desired,
    /// The claim that this write tells of: its first write removes other nodes' entries and makes an event.
    pub claim: Option<Came>,
    /// A conflict that this write is the first to tell of.
    pub news_of_conflict: bool,
}

/// What is known of one address.
#[derive(Debug, Default)]
struct Item {
    desired: Desired,
    /// Not told yet.
    claim: Option<Came>,
    conflict_news: bool,
    /// In the queue: from when on it may be written, and which transition it was.
    queued: Option<(Option<Instant>, u64)>,
}

/// What is to be written, newest first.
#[derive(Debug, Default)]
pub struct Plan {
    items: BTreeMap<IpAddr, Item>,
    /// Order of the transitions that may be written now; a later one of the same address replaces the earlier.
    queue: BTreeMap<u64, IpAddr>,
    /// Those that have to wait until then.
    later: BTreeSet<(Instant, u64, IpAddr)>,
    queued: usize,
    sequence: u64,
    /// From when transitions may be written that come now; `None`: at once.
    pub not_before: Option<Instant>,
    /// Events about the Node, told before anything else.
    pub node_news: NewsQueue,
    /// Held to the end of this process, which nobody else has taken over.
    left: BTreeSet<IpAddr>,
    closed: bool,
    /// Entries of this node's earlier life, seen and left alone so far.
    earlier: HashSet<IpAddr>,
}

impl Plan {
    /// This node holds `vip`.
    pub fn claimed(&mut self, vip: IpAddr, entry: Entry, came: Came) {
        let item = self.items.entry(vip).or_default();
        item.desired.entry = Some(entry);
        item.claim = Some(came);
        self.enqueue(vip);
    }

    /// This node holds `vip` no longer.
    pub fn released(&mut self, vip: IpAddr) {
        let item = self.items.entry(vip).or_default();
        item.claim = None;
        item.desired.entry = None;
        self.enqueue(vip);
    }

    /// This node held `vip` until it ended, and nobody has taken it over.
    pub fn left(&mut self, vip: IpAddr) {
        self.left.insert(vip);
        self.released(vip);
    }

    /// The process ends: what nobody else will take back is written now, and nothing more.
    pub fn close(&mut self) {
        self.closed = true;
        self.queue.clear();
        self.later.clear();
        self.items.values_mut().for_each(|item| item.queued = None);
        self.queued = 0;
        self.not_before = None;
        self.node_news = NewsQueue::default();
        for vip in std::mem::take(&mut self.left) {
            self.enqueue(vip);
        }
    }

    /// Whether [`Self::close`] was called and all is written.
    pub fn is_over(&self) -> bool {
        self.closed && self.queued == 0
    }

    /// Somebody outside the cluster answers for `vip`.
    pub fn conflict(&mut self, vip: IpAddr, foreign: Foreign) {
        let item = self.items.entry(vip).or_default();
        // The first stranger stands for all until it is over: who forges frames can't make us write by each.
        if item.desired.foreign.is_none() {
            item.desired.foreign = Some(Box::new(foreign));
            item.conflict_news = true;
            self.enqueue_at(vip, None);
        }
    }

    /// Nobody does any longer.
    pub fn conflict_over(&mut self, vip: IpAddr) {
        let Some(item) = self.items.get_mut(&vip) else { return };
        item.conflict_news = false;
        if item.desired.foreign.take().is_some() {
            self.enqueue(vip);
        }
    }

    /// What is held, all of it: after reports were lost, and when an interface was renamed or has another MAC address.
    /// Whoever held before what is new here is not known.
    pub fn holds_exactly(&mut self, held: impl Iterator<Item = (IpAddr, Entry)>) {
        let held: BTreeMap<IpAddr, Entry> = held.collect();
        let gone: Vec<IpAddr> = self
            .items
            .iter()
            .filter(|(vip, item)| item.desired.entry.is_some() && !held.contains_key(*vip))
            .map(|(vip, _)| *vip)
            .collect();
        for vip in gone {
            self.released(vip);
        }
        for (vip, entry) in held {
            match self.items.get_mut(&vip).and_then(|item| item.desired.entry.as_mut()) {
                None => self.claimed(vip, entry, Came::First),
                Some(known) if known.mac == entry.mac && known.interface == entry.interface => {}
                Some(known) => {
                    *known = Entry { since: known.since, ..entry };
                    self.enqueue(vip);
                }
            }
        }
    }

    /// The object, as the watch shows it: what does not agree with what is true here is written again.
    /// `settled`: this process runs for longer than [`EARLIER_LIFE`].
    pub fn seen(&mut self, vip: IpAddr, own_entry: Option<&SeenEntry>, settled: bool) {
        let item = self.items.get(&vip);
        let held = item.and_then(|item| item.desired.entry.as_ref());
        let queued = item.is_some_and(|item| item.queued.is_some());
        if held.is_none() && own_entry.is_some() && !settled {
            self.earlier.insert(vip);
        } else {
            self.earlier.remove(&vip);
        }
        let agrees = match (held, own_entry) {
            (Some(entry), Some(seen)) => entry.matches(seen),
            (Some(_), None) => false,
            (None, Some(_)) => !settled,
            (None, None) => true,
        };
        if !agrees && !queued {
            self.enqueue(vip);
        }
    }

    /// [`EARLIER_LIFE`] is over: what this node held then and does not hold now is taken back.
    pub fn settle(&mut self) {
        for vip in std::mem::take(&mut self.earlier) {
            let idle = |item: &Item| item.desired.entry.is_none() && item.queued.is_none();
            if self.items.get(&vip).is_none_or(idle) {
                self.enqueue(vip);
            }
        }
    }

    /// The object is gone and with it whatever was to be written.
    pub fn deleted(&mut self, vip: IpAddr) {
        self.earlier.remove(&vip);
        self.unqueue(vip);
        let Some(item) = self.items.get_mut(&vip) else { return };
        item.claim = None;
        item.conflict_news = false;
        // Still held for a moment (rule A42): it is written again if the object returns.
        if item.desired.entry.is_none() {
            self.items.remove(&vip);
        }
    }

    /// When the next of those that wait may be written.
    pub fn next_at(&self) -> Option<Instant> {
        self.later.first().map(|(at, _, _)| *at)
    }

    /// The newest write that is due, taken off the queue.
    pub fn newest(&mut self, now: Instant) -> Option<Write> {
        while let Some((at, sequence, vip)) = self.later.pop_first() {
            if at > now {
                self.later.insert((at, sequence, vip));
                break;
            }
            self.queue.insert(sequence, vip);
            if let Some(item) = self.items.get_mut(&vip) {
                item.queued = Some((None, sequence));
            }
        }
        let (_, vip) = self.queue.pop_last()?;
        self.queued -= 1;
        let item = self.items.get_mut(&vip)?;
        item.queued = None;
        Some(Write {
            vip,
            desired: item.desired.clone(),
            claim: item.claim.take(),
            news_of_conflict: std::mem::take(&mut item.conflict_news),
        })
    }

    /// A write was done: what needs no more memory is forgotten.
    pub fn done(&mut self, write: &Write) {
        let idle = |item: &Item| item.desired == Desired::default() && item.queued.is_none();
        if self.items.get(&write.vip).is_some_and(idle) {
            self.items.remove(&write.vip);
        }
    }

    /// A write failed and is to be tried again, unless something newer is queued for its address.
    pub fn again(&mut self, write: Write) {
        let item = self.items.entry(write.vip).or_default();
        if item.desired.entry.is_some() && item.claim.is_none() {
            item.claim = write.claim;
        }
        item.conflict_news |= write.news_of_conflict;
        if item.queued.is_none() && !self.closed {
            self.enqueue_at(write.vip, None);
        }
    }

    /// How many writes wait.
    pub fn waiting(&self) -> usize {
        self.queued
    }

    fn enqueue(&mut self, vip: IpAddr) {
        // One that waits already waits no longer for having changed again.
        let at = match self.items.get(&vip).and_then(|item| item.queued) {
            Some((known, _)) => known.min(self.not_before),
            None => self.not_before,
        };
        self.enqueue_at(vip, at);
    }

    fn enqueue_at(&mut self, vip: IpAddr, at: Option<Instant>) {
        self.unqueue(vip);
        self.sequence += 1;
        self.queued += 1;
        self.items.entry(vip).or_default().queued = Some((at, self.sequence));
        match at {
            Some(at) => {
                self.later.insert((at, self.sequence, vip));
            }
            None => {
                self.queue.insert(self.sequence, vip);
            }
        }
    }

    fn unqueue(&mut self, vip: IpAddr) {
        let Some((at, sequence)) = self.items.get_mut(&vip).and_then(|item| item.queued.take()) else {
            return;
        };
        self.queued -= 1;
        match at {
            Some(at) => {
                self.later.remove(&(at, sequence, vip));
            }
            None => {
                self.queue.remove(&sequence);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn entry(mac: u8) -> Entry {
        Entry {
            interface: "eth0".into(),
            mac: MacAddr::new(2, 0, 0, 0, 0, mac),
            since: Timestamp::UNIX_EPOCH,
        }
    }

    fn order(plan: &mut Plan) -> Vec<IpAddr> {
        std::iter::from_fn(|| plan.newest(Instant::now())).map(|write| write.vip).collect()
    }

    #[test]
    fn the_newest_transition_is_written_first_and_each_address_once() {
        let mut plan = Plan::default();
        for last in [1, 2, 3, 1] {
            plan.claimed(vip(last), entry(1), Came::First);
        }
        assert_eq!(plan.waiting(), 3);
        assert_eq!(order(&mut plan), [vip(1), vip(3), vip(2)]);
    }

    #[test]
    fn after_an_outage_only_what_is_still_true_is_written() {
        let mut plan = Plan::default();
        plan.claimed(vip(1), entry(1), Came::From("n2".to_owned()));
        let failed = plan.newest(Instant::now()).unwrap();
        plan.released(vip(1));
        plan.again(failed);
        let write = plan.newest(Instant::now()).unwrap();
        assert_eq!(write.desired, Desired::default());
        assert_eq!(write.claim, None, "an address that is held no longer supersedes nobody");
        plan.done(&write);
        assert!(plan.items.is_empty());
    }

    #[test]
    fn a_retried_claim_still_removes_its_predecessor() {
        let mut plan = Plan::default();
        plan.claimed(vip(1), entry(1), Came::From("n2".to_owned()));
        let failed = plan.newest(Instant::now()).unwrap();
        plan.again(failed);
        assert_eq!(plan.newest(Instant::now()).unwrap().claim, Some(Came::From("n2".to_owned())));
    }

    #[test]
    fn a_renamed_interface_is_written_without_a_new_claim() {
        let mut plan = Plan::default();
        plan.claimed(vip(1), entry(1), Came::First);
        plan.claimed(vip(2), entry(1), Came::First);
        order(&mut plan);
        let renamed = Entry { interface: "lan0".into(), ..entry(1) };
        plan.holds_exactly([(vip(1), renamed.clone())].into_iter());
        assert_eq!(
            plan.newest(Instant::now()).map(|write| (write.desired.entry, write.claim)),
            Some((Some(renamed), None))
        );
        assert_eq!(
            plan.newest(Instant::now()).map(|write| (write.vip, write.desired)),
            Some((vip(2), Desired::default()))
        );
        assert_eq!(plan.newest(Instant::now()), None);
    }

    #[test]
    fn an_entry_that_somebody_removed_or_changed_is_written_again() {
        let mut plan = Plan::default();
        plan.claimed(vip(1), entry(1), Came::First);
        plan.newest(Instant::now()).unwrap();
        let right = SeenEntry { interface: "eth0".to_owned(), mac: "02:00:00:00:00:01".to_owned() };
        plan.seen(vip(1), Some(&right), true);
        assert_eq!(plan.waiting(), 0);
        plan.seen(vip(1), None, true);
        assert_eq!(plan.newest(Instant::now()).unwrap().claim, None, "no event, nobody superseded");
        plan.seen(vip(1), Some(&SeenEntry { mac: "02:00:00:00:00:09".to_owned(), ..right }), true);
        assert_eq!(plan.waiting(), 1);
    }

    #[test]
    fn an_entry_of_an_earlier_life_goes_only_when_this_life_is_settled() {
        let mut plan = Plan::default();
        let old = SeenEntry { interface: "eth0".to_owned(), mac: "02:00:00:00:00:01".to_owned() };
        plan.seen(vip(1), Some(&old), false);
        plan.seen(vip(2), Some(&old), false);
        assert_eq!(plan.waiting(), 0);
        plan.claimed(vip(2), entry(1), Came::First);
        plan.newest(Instant::now()).unwrap();
        plan.settle();
        assert_eq!(
            plan.newest(Instant::now()).map(|write| (write.vip, write.desired)),
            Some((vip(1), Desired::default()))
        );
        assert_eq!(plan.newest(Instant::now()), None, "what is held again stays");
        plan.seen(vip(1), Some(&old), true);
        assert_eq!(plan.newest(Instant::now()).unwrap().desired, Desired::default());
    }

    #[test]
    fn a_conflict_is_news_once_whoever_it_is_with_and_goes_when_it_is_over() {
        let mut plan = Plan::default();
        let foreign = Foreign {
            mac: MacAddr::new(2, 0, 0, 0, 0, 9),
            interface: "eth0".into(),
            held: true,
            since: Timestamp::UNIX_EPOCH,
        };
        plan.conflict(vip(1), foreign.clone());
        assert!(plan.newest(Instant::now()).unwrap().news_of_conflict);
        plan.conflict(vip(1), foreign.clone());
        plan.conflict(vip(1), Foreign { mac: MacAddr::new(2, 0, 0, 0, 0, 8), ..foreign });
        assert_eq!(plan.waiting(), 0);
        plan.conflict_over(vip(1));
        assert_eq!(plan.newest(Instant::now()).unwrap().desired, Desired::default());
    }

    #[test]
    fn a_transition_waits_and_one_that_did_not_last_is_not_written() {
        let now = Instant::now();
        let mut plan = Plan { not_before: Some(now + LAZY), ..Plan::default() };
        plan.claimed(vip(1), entry(1), Came::First);
        plan.claimed(vip(2), entry(1), Came::First);
        assert_eq!((plan.newest(now), plan.next_at(), plan.waiting()), (None, Some(now + LAZY), 2));
        // It changes again before it was written: it still waits no longer than the first time.
        plan.not_before = Some(now + LAZY * 2);
        plan.released(vip(1));
        let write = plan.newest(now + LAZY).unwrap();
        assert_eq!((write.vip, write.desired.entry, write.claim), (vip(1), None, None));
        assert_eq!(plan.newest(now + LAZY).unwrap().vip, vip(2));
        assert_eq!((plan.newest(now + LAZY * 2), plan.waiting()), (None, 0));
    }

    #[test]
    fn at_the_end_only_what_nobody_took_over_is_taken_back_and_at_once() {
        let now = Instant::now();
        let mut plan = Plan { not_before: Some(now + LAZY), ..Plan::default() };
        for last in [1, 2, 3] {
            plan.claimed(vip(last), entry(1), Came::First);
        }
        plan.released(vip(2));
        plan.left(vip(3));
        assert!(!plan.is_over());
        plan.close();
        assert!(!plan.is_over());
        let write = plan.newest(now).unwrap();
        assert_eq!((write.vip, write.desired), (vip(3), Desired::default()));
        assert_eq!((plan.newest(now), plan.is_over()), (None, true));
    }
}
