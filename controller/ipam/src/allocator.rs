//! The allocator: takes inputs, says outputs, holds the only copy of who has which address.
//!
//! Here: serving Services with what [`crate::plan`] decides. `allocator/shares.rs` takes addresses and gives them
//! back, `allocator/watched.rs` learns of pools, namespaces and Services and opens the gate, `allocator/observe.rs`
//! reads LoadBalancerIPs, `allocator/results.rs` the results of writes.
//!
//! Holds between two calls of `handle`, once open: every Service has been planned for since the last thing that
//! concerns it changed; every share of an owner nobody knows is being given back or was declined.

mod observe;
mod results;
mod shares;
mod watched;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use crate::entry::Phase;
use crate::ledger::Ledger;
use crate::plan::{Plan, Situation};
use crate::service::Service;
use crate::waiting::{Rank, Wait, Waiting};
use crate::{
    AddressNo, Addresses, Family, Input, Labels, List, Output, Owner, PoolName, PoolStatus, Publication,
    Refusal, ServiceRef, Terms,
};

/// Entries for which an empty queue keeps its room.
const SHRUNK: usize = 64;

/// The allocator core.
///
/// Call [`handle`](Self::handle) with everything that is learned, in the order in which it is learned, and then
/// [`poll_output`](Self::poll_output) until it is empty. There are no timers in it.
///
/// Nothing comes out before all four [`List`]s are synced. A leader builds it from its caches when it begins to lead
/// (and drops it when it ends): every address's users are then checked by rule B8 (B11).
#[derive(Debug, Default)]
pub struct Allocator {
    ledger: Ledger,
    namespaces: BTreeMap<String, Labels>,
    // Boxed, as a map has room for almost twice as many as it holds.
    services: BTreeMap<ServiceRef, Box<Service>>,
    waiting: Waiting,
    /// Services to be planned for.
    due: BTreeSet<Rank>,
    synced: BTreeSet<List>,
    outputs: VecDeque<Output>,
    /// What was last said of each pool.
    said: BTreeMap<PoolName, PoolStatus>,
    /// Status writes under way for Services that are gone meanwhile; they may come back before the result.
    orphaned: BTreeMap<Owner, Publication>,
    /// Services for which a write was refused for good.
    refused_services: BTreeSet<ServiceRef>,
    /// Addresses whose write was refused for good, and must be repeated, and for whom it was.
    refused_addresses: BTreeMap<IpAddr, Owner>,
}

impl Allocator {
    /// An allocator that knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Learns something.
    pub fn handle(&mut self, input: Input) {
        match input {
            Input::PoolApplied(spec) => self.pool_applied(spec),
            Input::PoolDeleted(name) => self.pool_deleted(&name),
            Input::NamespaceApplied { name, labels } => self.namespace_changed(name, Some(labels)),
            Input::NamespaceDeleted { name } => self.namespace_changed(name, None),
            Input::ServiceApplied(request) => self.service_applied(request),
            Input::ServiceDeleted(service) => self.service_deleted(&service),
            Input::AddressApplied(record) => self.address_applied(record),
            Input::AddressDeleted { address, version } => self.address_deleted(address, version),
            Input::Synced(list) => self.list_synced(list),
            Input::TakeDone { address, owner, result } => self.take_done(address, &owner, result),
            Input::PublishDone { owner, result } => self.publish_done(&owner, &result),
            Input::ReleaseDone { address, result } => self.release_done(address, result),
            Input::Retry => self.retry(),
        }
        if self.is_open() {
            self.settle();
            self.report_pools();
        }
    }

    /// What is to be done next, if anything.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        // The room for ten thousand outputs is not kept for the next one.
        if self.outputs.is_empty() {
            self.outputs.shrink_to(SHRUNK);
        }
        output
    }

    /// Whether all lists are there, so that addresses are given out.
    pub fn is_open(&self) -> bool {
        [List::Pools, List::Namespaces, List::Services, List::Addresses]
            .iter()
            .all(|list| self.synced.contains(list))
    }

    /// How many writes were refused for good and wait for [`Input::Retry`].
    pub fn failed(&self) -> usize {
        self.refused_services.len() + self.refused_addresses.len()
    }

    /// The pool an address counts to: the one that contains it, else the one it was taken from.
    pub fn pool_of(&self, address: IpAddr) -> Option<&PoolName> {
        self.ledger.pool_of(address)
    }

    /// Whether a pool in force has this address to give.
    pub fn is_in_a_pool(&self, address: IpAddr) -> bool {
        self.ledger.pools.containing(address).is_some()
    }

    /// What `spec.sharing` of an address in use should say: under which key others may join, and of which namespace
    /// they must be.
    pub fn sharing(&self, address: IpAddr) -> Option<Terms> {
        self.ledger.terms(address)
    }
}

/// Deciding and carrying out.
impl Allocator {
    /// Serves those who wait for what came free, then everybody who is due: who waits was there before.
    fn settle(&mut self) {
        loop {
            if let Some(address) = self.ledger.pop_freed() {
                self.came_free(address);
            } else if let Some((pool, family, namespace)) = self.ledger.pop_relieved() {
                self.wake(&Wait::Limit(pool, family, namespace), |_| true);
            } else if let Some(rank) = self.due.pop_first() {
                self.serve(&rank.service);
            } else {
                return;
            }
        }
    }

    fn came_free(&mut self, address: IpAddr) {
        self.wake(&Wait::Address(address), |_| true);
        let Some(pool) = self.ledger.pools.containing(address).cloned() else { return };
        let family = Family::of(address);
        let is_left =
            |ledger: &Ledger| ledger.pools.get(&pool).is_some_and(|pool| pool.space(family).free() > 0);
        self.wake(&Wait::Pool(pool.clone(), family), is_left);
    }

    /// Serves those who wait for `wait`, the first first, as long as there is something to give.
    fn wake(&mut self, wait: &Wait, is_left: impl Fn(&Ledger) -> bool) {
        let mut last = None;
        while is_left(&self.ledger)
            && let Some(rank) = self.waiting.next(wait, last.as_ref()).cloned()
        {
            self.serve(&rank.service);
            last = Some(rank);
        }
    }

    fn serve(&mut self, name: &ServiceRef) {
        let Some(service) = self.services.get(name) else { return };
        if self.is_coming_back(&service.request.owner) {
            return;
        }
        let has = self.possessions(service);
        let visible = |address: &IpAddr| service.may_show(*address);
        let held = |address: &IpAddr| {
            self.ledger.phase(*address, &service.request.owner) == Some(Phase::Held)
                && !has.contains(*address)
        };
        let plan = match &service.write_refused {
            Some(refusal) => Plan { target: has, refusal: Some((**refusal).clone()), waits: Vec::new() },
            None => Situation {
                ledger: &self.ledger,
                namespaces: &self.namespaces,
                services: &self.services,
                request: &service.request,
                has,
                visible: has.iter().filter(visible).collect(),
                leaving: self.ledger.owned(&service.request.owner).filter(held).filter(visible).collect(),
                strangers: service.strangers(),
            }
            .plan(),
        };
        self.carry_out(name, plan);
    }

    fn carry_out(&mut self, name: &ServiceRef, plan: Plan) {
        let Some(service) = self.services.get_mut(name) else { return };
        let owner = service.request.owner.clone();
        service.target = plan.target;
        service.refusal = plan.refusal.map(Box::new);
        if let Some(before) = service.waits.take() {
            let (rank, waits) = *before;
            self.waiting.remove(&waits, &rank);
        }
        if !plan.waits.is_empty() {
            let rank = service.rank();
            self.waiting.add(&plan.waits, &rank);
            service.waits = Some(Box::new((rank, plan.waits)));
        }
        for address in plan.target.iter() {
            match self.ledger.phase(address, &owner) {
                None => self.want(address, &owner),
                Some(Phase::Doomed(_) | Phase::Declined(_)) => self.retain(address, &owner),
                Some(Phase::Wanted | Phase::Taking | Phase::Held | Phase::Releasing(_)) => {}
            }
        }
        let others: Vec<_> = self.ledger.owned(&owner).filter(|it| !plan.target.contains(*it)).collect();
        for address in others {
            self.let_go(address, &owner);
        }
        self.publish(name);
    }

    /// What a Service has: what it was to have, else what LoadBalancerIPs say it has; of several in one family the
    /// one its status shows (rule B1), then one it asks for, then the lowest.
    fn possessions(&self, service: &Service) -> Addresses {
        let owner = &service.request.owner;
        let holds = |address: &IpAddr| {
            let phase = self.ledger.phase(*address, owner);
            matches!(phase, Some(Phase::Wanted | Phase::Taking | Phase::Held | Phase::Declined(_)))
        };
        let any = |family| {
            let all = self.ledger.owned(owner).filter(|it| Family::of(*it) == family && holds(it));
            let wanted =
                |address| service.request.wanted.as_ref().is_ok_and(|it| it.addresses.contains(address));
            all.min_by_key(|address| (!service.may_show(*address), !wanted(*address), *address))
        };
        let kept = service.target.iter().any(|address| holds(&address));
        // Another leader was quicker: what the status shows by its word and the LoadBalancerIP confirms is what users
        // have seen; what this one had in mind nobody has (rule B1).
        let wanted = service.request.wanted.as_ref();
        let automatic = wanted.is_ok_and(|it| it.addresses.is_empty() && it.pool.is_none());
        let confirmed = |address: &IpAddr| {
            let entry = self.ledger.entry(*address);
            holds(address) || entry.is_some_and(|entry| entry.lists(owner) && entry.phase(owner).is_none())
        };
        let overtaken = |family, address: &IpAddr| {
            let theirs = service.strangers().of(family).filter(confirmed);
            theirs.filter(|_| automatic && !service.was_told(*address))
        };
        let of = |family| match service.target.of(family) {
            Some(address) if holds(&address) => overtaken(family, &address).or(Some(address)),
            // It has a part of what it was to have, and is not to have this family.
            None if kept => None,
            _ => any(family),
        };
        Family::BOTH.into_iter().filter_map(of).collect()
    }

    /// Says a Service's status, once all it is to have is recorded.
    fn publish(&mut self, name: &ServiceRef) {
        let Some(service) = self.services.get_mut(name) else { return };
        let owner = &service.request.owner;
        let recorded = |address| match self.ledger.phase(address, owner) {
            Some(Phase::Held) => true,
            // Its LoadBalancerIP was deleted and is being created again (rule B17).
            Some(Phase::Wanted | Phase::Taking) => service.was_told(address),
            _ => false,
        };
        // Who has to wait for a release only is not told so: it is over in a moment, unless it was refused.
        let moment = match service.refusal.as_deref() {
            Some(Refusal::Address { address, no: AddressNo::BeingReleased(_) }) => {
                !self.refused_addresses.contains_key(address)
            }
            _ => false,
        };
        if moment || !service.target.iter().all(recorded) {
            return;
        }
        let pool = service.target.iter().find_map(|address| self.ledger.pool_of(address)).cloned();
        let publication = Publication {
            owner: owner.clone(),
            version: service.version(),
            ingress: service.ingress(),
            pool,
            refusal: service.refusal.clone(),
        };
        let publication = service.publish(publication);
        self.outputs.extend(publication.map(Output::Publish));
    }

    fn is_known(&self, owner: &Owner) -> bool {
        self.services.get(&owner.service).is_some_and(|service| service.request.owner == *owner)
    }

    fn is_due(&mut self, service: &ServiceRef) {
        self.due.extend(self.services.get(service).map(|service| service.rank()));
    }

    fn all_due(&mut self) {
        self.due.extend(self.services.values().map(|service| service.rank()));
    }

    fn report_pools(&mut self) {
        for pool in self.ledger.take_touched() {
            let status = self.ledger.status(&pool);
            if self.said.get(&pool) == status.as_ref() {
                continue;
            }
            match &status {
                Some(status) => self.said.insert(pool.clone(), status.clone()),
                None => self.said.remove(&pool),
            };
            self.outputs.push_back(Output::Pool { pool, status });
        }
    }
}
