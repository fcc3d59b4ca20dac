//! The core of the controller: events in, jobs out. Synchronous, without I/O and without a clock of its own.
//!
//! It joins three things: the [`Index`] of what the API server has said, the allocator core (`herald_ipam`) that owns
//! every decision about who has which address, and the rules that turn those decisions into objects.
//!
//! Call [`Core::handle`] with everything that is learned, [`Core::handle_timeout`] when [`Core::poll_timeout`] says so,
//! and after each [`Core::poll_job`] until it is empty. What must always hold:
//! - at most one job that writes is under way per object; whatever else changes meanwhile is looked at when it is done
//!   (only what is left on a Service that is ours no longer is cleared beside that);
//! - a job is issued only for a difference between what is wanted and what was last seen: nothing new, nothing written.

mod addresses;
mod advertisements;
mod edits;
mod endpoints;
mod leading;
mod pools;
mod relied;
mod services;
mod state;
mod strikes;
#[cfg(test)]
mod tests;
mod timers;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use herald_ipam::{Allocator, Input, List, Output, PoolName, ServiceRef, Version};
use herald_runtime::watch::Change;
use k8s_openapi::jiff::Timestamp;

pub(crate) use self::endpoints::AllEndpoints;
use self::{addresses::AddressWork, pools::PoolWork, services::ServiceWork, timers::Timers};
use crate::{
    index::Index,
    job::{Done, Job},
    metrics::Metrics,
    objects::{
        address::Address,
        advertisement::{Advertisement, Meaning},
        endpoints::Endpoints,
        node::{KnownNode, Labelled},
        pool::Pool,
        service::Service,
    },
    watch::Present,
};

/// How long changes of pools' and advertisements' statuses are gathered before they are written: each Service would
/// otherwise cost one more write.
const GATHER: Duration = Duration::from_secs(1);
/// First and longest pause before the allocator tries again what was refused for good.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_mins(1);

/// Entries for which an empty queue keeps its room.
const SHRUNK: usize = 64;

/// The time of an event: monotonic for deciding, by the wall for people to read.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// What waiting times are measured with.
    pub monotonic: Instant,
    /// What conditions show; nothing is decided by it.
    pub wall: Timestamp,
}

/// Something learned.
#[derive(Debug)]
pub enum Event {
    /// Of Services of type LoadBalancer, of any class.
    Services(Change<Service>),
    /// Of IPAddressPools.
    Pools(Change<Pool>),
    /// Of L2Advertisements.
    Advertisements(Change<Advertisement>),
    /// Of LoadBalancerIPs.
    Addresses(Change<Address>),
    /// Of Namespaces.
    Namespaces(Change<Labelled>),
    /// Of Nodes.
    Nodes(Change<KnownNode>),
    /// Of EndpointSlices, once [`Core::needs_endpoints`].
    Endpoints(Change<Endpoints>),
    /// What there is, read just before [`Event::Leads`]: what was written before this process led was not newer.
    Present(Present),
    /// A job is done.
    Done(Done),
    /// This process begins to lead: it is the one that writes.
    Leads,
    /// It does so no longer. Jobs that were given out are to be dropped, and their results not told.
    StandsBy,
}

/// What a timer is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wake {
    Service(ServiceRef),
    Address(IpAddr),
    Pool(PoolName),
    Advertisements,
    Announce,
    Retry,
    Read(IpAddr),
}

/// The core.
#[derive(Debug)]
pub struct Core {
    class: Option<String>,
    metrics: Metrics,
    index: Index,
    /// Whether this process may write. Without it the allocator is empty, and nothing is decided.
    leads: bool,
    /// The newest version when it began to.
    leads_from: Version,
    /// Lists that have come, of those that must be there before anything is given out.
    listed: BTreeSet<List>,
    /// The list of pools has come; what they give is known once that of nodes has, too.
    pools_listed: bool,
    ipam: Allocator,
    // Boxed, as are the Services': a map that was filled in order has half of its room to spare.
    addresses: BTreeMap<IpAddr, Box<AddressWork>>,
    services: BTreeMap<ServiceRef, Box<ServiceWork>>,
    pools: BTreeMap<PoolName, PoolWork>,
    advertisements_busy: BTreeSet<String>,
    /// Advertisements that were deleted a moment ago, by name.
    departed: BTreeMap<String, (Instant, Meaning)>,
    needs_endpoints: bool,
    /// Since when addresses are given out.
    open: Option<Instant>,
    /// To be looked at before `handle` returns.
    dirty_addresses: BTreeSet<IpAddr>,
    dirty_services: BTreeSet<ServiceRef>,
    timers: Timers,
    retries: u32,
    /// How many refusals waited to be tried again when that was last looked at.
    failed: usize,
    /// Since when no refused write waits for its retry.
    calm_since: Option<Instant>,
    jobs: VecDeque<Job>,
    now: Now,
}

impl Core {
    /// A core that knows nothing yet and stands by. `class`: the `loadBalancerClass` served; `None` for Services without one.
    pub fn new(class: Option<String>, metrics: Metrics, now: Now) -> Self {
        Self {
            class,
            metrics,
            now,
            index: Index::default(),
            leads: false,
            leads_from: Version::default(),
            listed: BTreeSet::new(),
            pools_listed: false,
            ipam: Allocator::new(),
            addresses: BTreeMap::new(),
            services: BTreeMap::new(),
            pools: BTreeMap::new(),
            advertisements_busy: BTreeSet::new(),
            departed: BTreeMap::new(),
            needs_endpoints: false,
            open: None,
            dirty_addresses: BTreeSet::new(),
            dirty_services: BTreeSet::new(),
            timers: Timers::default(),
            retries: 0,
            failed: 0,
            calm_since: None,
            jobs: VecDeque::new(),
        }
    }

    /// Learns something.
    pub fn handle(&mut self, now: Now, event: Event) {
        self.now = now;
        match event {
            Event::Services(change) => self.services_changed(change),
            Event::Pools(change) => self.pools_changed(change),
            Event::Advertisements(change) => self.advertisements_changed(change),
            Event::Addresses(change) => self.addresses_changed(change),
            Event::Namespaces(change) => self.namespaces_changed(change),
            Event::Nodes(change) => self.nodes_changed(change),
            Event::Endpoints(change) => self.endpoints_changed(change),
            Event::Present(present) => self.present(present),
            Event::Done(done) => self.done(done),
            Event::Leads => self.lead(),
            Event::StandsBy => self.stand_by(),
        }
        self.settle();
    }

    /// When [`Core::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.now = now;
        while let Some(wake) = self.timers.take_due(now.monotonic) {
            match wake {
                Wake::Service(service) => {
                    self.dirty_services.insert(service);
                }
                Wake::Address(address) => {
                    self.dirty_addresses.insert(address);
                }
                Wake::Pool(pool) => self.check_pool(&pool),
                Wake::Advertisements => self.check_advertisements(),
                Wake::Announce => {
                    if self.forget_departed() {
                        self.candidates_changed();
                    }
                    self.announce_changed();
                }
                Wake::Retry => self.tell_ipam(Input::Retry),
                Wake::Read(address) => self.read_untold(address),
            }
        }
        self.settle();
    }

    /// The next job, if any.
    pub fn poll_job(&mut self) -> Option<Job> {
        let job = self.jobs.pop_front();
        // The room for ten thousand jobs is not kept for the next one.
        if self.jobs.is_empty() {
            self.jobs.shrink_to(SHRUNK);
        }
        job
    }

    /// Carries out what the allocator says and looks at what has changed, until nothing is left to do.
    fn settle(&mut self) {
        if !self.leads {
            self.rest();
            return;
        }
        self.note_open();
        loop {
            if let Some(output) = self.ipam.poll_output() {
                match output {
                    Output::Take(take) => self.take(take),
                    Output::Release(release) => self.release(release),
                    Output::Publish(publication) => self.publish(publication),
                    Output::Pool { pool, status } => self.pool_status(pool, status),
                }
            } else if let Some(service) = self.dirty_services.pop_first() {
                self.check_service(&service);
            } else if let Some(address) = self.dirty_addresses.pop_first() {
                self.check_address(address);
            } else {
                break;
            }
        }
        self.schedule_retry();
    }

    fn note_open(&mut self) {
        if self.open.is_none() && self.ipam.is_open() {
            tracing::info!(
                services = self.index.services.len(),
                addresses = self.index.addresses.len(),
                "every list is there: addresses are given out"
            );
            self.open = Some(self.now.monotonic);
            // Reservations, and what nobody uses: whoever looked at them before could not tell their pools.
            self.announce_changed();
        }
    }

    fn schedule_retry(&mut self) {
        let failed = self.ipam.failed();
        if failed == 0 {
            self.calm_since.get_or_insert(self.now.monotonic);
            return;
        }
        // While a retry is under way nothing counts as failed: only a longer calm ends a spell of refusals.
        let calm = self.calm_since.take().map(|since| self.now.monotonic.saturating_duration_since(since));
        if calm.is_some_and(|calm| calm >= RETRY_MAX) {
            self.failed = 0;
        }
        // A fresh refusal does not wait as long as one that lasts, such as a rival's.
        if failed > self.failed {
            self.retries = 0;
            self.failed = failed;
        }
        let pause = RETRY_MIN.saturating_mul(1 << self.retries.min(6)).min(RETRY_MAX);
        let due = self.now.monotonic + pause;
        if !self.timers.is_due_by(due, &Wake::Retry) {
            self.timers.cancel(&Wake::Retry);
            self.retries = self.retries.saturating_add(1);
            self.wake(pause, Wake::Retry);
        }
    }

    fn wake(&mut self, after: Duration, wake: Wake) {
        self.timers.set(self.now.monotonic + after, wake);
    }

    fn gather(&mut self, wake: Wake) {
        self.gather_after(GATHER, wake);
    }

    /// Wakes after `pause`, unless that is to happen by then anyway.
    fn gather_after(&mut self, pause: Duration, wake: Wake) {
        let due = self.now.monotonic + pause;
        if !self.timers.is_due_by(due, &wake) {
            self.wake(pause, wake);
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Take { take, result, object } => self.taken(take, result, object),
            Done::Read(address, read) => self.reread(address, read),
            Done::Update { address, result } => self.updated(address, result),
            Done::Problem(address, written) => self.problem_told(address, written),
            Done::Release { release, result, object } => self.released(&release, result, object),
            Done::Status { job, result } => self.status_written(&job, result),
            Done::Clear(service) => self.cleared(&service),
            Done::Pool(name, pool) => self.pool_written(&name, pool),
            Done::Advertisement(name, advertisement) => self.advertisement_written(&name, advertisement),
        }
    }

    fn namespaces_changed(&mut self, change: Change<Labelled>) {
        match change {
            Change::Replaced(list) => {
                let new = list.into_iter().map(|namespace| (namespace.name, namespace.labels)).collect();
                let old = std::mem::replace(&mut self.index.namespaces, new);
                let now = &self.index.namespaces;
                let gone = old.into_keys().filter(|name| !now.contains_key(name));
                let gone = gone.map(|name| Input::NamespaceDeleted { name });
                let applied = now.iter().map(|(name, labels)| Input::NamespaceApplied {
                    name: name.clone(),
                    labels: labels.clone(),
                });
                for input in gone.chain(applied).collect::<Vec<_>>() {
                    self.tell_ipam(input);
                }
                self.list_came(List::Namespaces);
            }
            Change::Applied(Labelled { name, labels }) => {
                let before = self.index.namespaces.insert(name.clone(), labels.clone());
                if before.as_ref() != Some(&labels) {
                    self.tell_ipam(Input::NamespaceApplied { name, labels });
                }
            }
            Change::Deleted(Labelled { name, .. }) => {
                self.index.namespaces.remove(&name);
                self.tell_ipam(Input::NamespaceDeleted { name });
            }
        }
    }

    fn nodes_changed(&mut self, change: Change<KnownNode>) {
        let first = self.index.nodes.is_none();
        let nodes = self.index.nodes.get_or_insert_default();
        let addresses = &mut self.index.node_addresses;
        // Kubelets patch their Nodes every few minutes: most often nothing changes here.
        let (relabelled, readdressed) = match change {
            Change::Replaced(list) => {
                nodes.clear();
                let before = std::mem::take(addresses);
                for KnownNode { labelled, addresses: own } in list {
                    if !own.is_empty() {
                        addresses.insert(labelled.name.clone(), own);
                    }
                    nodes.insert(labelled.name, labelled.labels);
                }
                (true, before != *addresses)
            }
            Change::Applied(KnownNode { labelled: Labelled { name, labels }, addresses: own }) => {
                let before = addresses.get(&name);
                let readdressed = before.map_or(!own.is_empty(), |before| *before != own);
                if readdressed {
                    addresses.insert(name.clone(), own);
                }
                (nodes.insert(name, labels.clone()) != Some(labels), readdressed)
            }
            Change::Deleted(KnownNode { labelled: Labelled { name, .. }, .. }) => {
                (nodes.remove(&name).is_some(), addresses.remove(&name).is_some())
            }
        };
        if readdressed {
            self.node_addresses_changed();
        }
        if first && self.pools_listed {
            self.list_came(List::Pools);
        }
        if relabelled {
            self.candidates_changed();
            self.announce_changed();
        }
    }

    /// What decides where addresses may be announced has changed: all of them are looked at again.
    fn announce_changed(&mut self) {
        self.dirty_addresses.extend(self.index.addresses.keys());
        self.dirty_addresses.extend(self.addresses.keys());
        self.gather(Wake::Advertisements);
    }
}
