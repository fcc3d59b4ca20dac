//! An API server as small as the allocator can see it, the watches that lag behind it, and the writer.
//!
//! The writer keeps the contract written at `Take`, `Publication` and `Release`. After every write the world checks
//! what must hold at every moment (see [`World::check`]).

mod answers;
mod make;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use herald_ipam::{
    AddressRecord, Addresses, Allocator, Claim, CreatedAt, Exposure, Families, Family, FamilyPolicy, Ingress,
    Input, Labels, List, Output, Owner, PoolName, PoolSpec, PoolStatus, Port, Protocol, Publication,
    PublishResult, ReclaimPolicy, Refusal, Release, ReleaseResult, ReleaseThen, ReleaseWhen, RequestError,
    ServiceRef, ServiceRequest, SharingKey, SharingPreference, SharingScope, Take, TakeHow, TakeResult, Uid,
    Version, Wanted,
};

pub(crate) use make::*;

/// A Service as the API server has it.
#[derive(Clone, Debug)]
pub(crate) struct ApiService {
    pub(crate) request: ServiceRequest,
    /// `type: LoadBalancer`.
    pub(crate) balanced: bool,
    /// What its status says beside the addresses.
    pub(crate) refusal: Option<Box<Refusal>>,
    pub(crate) pool: Option<PoolName>,
    /// Addresses put into its status by hand, ever.
    pub(crate) by_hand: BTreeSet<IpAddr>,
    /// What it showed since its user last asked for something: must not change.
    pub(crate) settled: Addresses,
}

#[derive(Default)]
pub(crate) struct World {
    pub(crate) allocator: Allocator,
    pub(crate) pools: BTreeMap<PoolName, PoolSpec>,
    pub(crate) services: BTreeMap<ServiceRef, ApiService>,
    pub(crate) lbips: BTreeMap<IpAddr, AddressRecord>,
    /// Addresses whose LoadBalancerIP somebody deleted.
    deleted: BTreeSet<IpAddr>,
    /// Addresses that were reserved for a Service while another may show them.
    pub(crate) given_away: BTreeSet<IpAddr>,
    /// Services as the allocator was told of them last.
    told: BTreeMap<ServiceRef, ServiceRequest>,
    /// Pools likewise.
    told_pools: BTreeMap<PoolName, PoolSpec>,
    /// Last said of each pool.
    pub(crate) statuses: BTreeMap<PoolName, PoolStatus>,
    /// Told by the API server, not yet by the watch of that kind.
    pub(crate) lagging: [VecDeque<Input>; 3],
    /// Said by the allocator, not yet done.
    pub(crate) jobs: Vec<Output>,
    /// Everything that happened, for the reader of a failure.
    pub(crate) history: Vec<String>,
    version: u64,
    uids: u64,
}

pub(crate) const POOLS: usize = 0;
pub(crate) const SERVICES: usize = 1;
pub(crate) const ADDRESSES: usize = 2;

/// What the API server does with a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Works,
    Refused,
}

/// Users and administrators.
impl World {
    /// A world whose lists are all synced, and empty.
    pub(crate) fn open() -> Self {
        let mut world = Self::default();
        world.sync();
        world
    }

    pub(crate) fn apply_pool(&mut self, spec: PoolSpec) {
        self.note(format!("pool {} {:?} -{:?}", spec.name, spec.addresses, spec.excluded));
        self.pools.insert(spec.name.clone(), spec.clone());
        self.lagging[POOLS].push_back(Input::PoolApplied(spec));
    }

    pub(crate) fn delete_pool(&mut self, name: &str) {
        self.note(format!("delete pool {name}"));
        let name = PoolName::new(name);
        self.pools.remove(&name);
        self.lagging[POOLS].push_back(Input::PoolDeleted(name));
    }

    pub(crate) fn create_service(&mut self, name: &str, created: i64, families: Families, wanted: Wanted) {
        self.create_exposing(name, created, families, wanted, Exposure::default());
    }

    pub(crate) fn create_exposing(
        &mut self,
        name: &str,
        created: i64,
        families: Families,
        wanted: Wanted,
        exposure: Exposure,
    ) {
        self.uids += 1;
        let service = service(name);
        let owner = Owner { service: service.clone(), uid: Uid::new(&format!("uid-{}", self.uids)) };
        self.note(format!("create {service} {} {families:?} {wanted:?} {exposure:?}", owner.uid));
        let request = ServiceRequest {
            owner,
            version: self.next_version(),
            created: CreatedAt(created),
            labels: Labels::new(),
            families,
            wanted: Ok(wanted),
            exposure,
            shown: Vec::new(),
            terminating: false,
        };
        let api = ApiService {
            request,
            balanced: true,
            refusal: None,
            pool: None,
            by_hand: BTreeSet::new(),
            settled: Addresses::default(),
        };
        self.services.insert(service.clone(), api);
        self.tell_service(&service);
    }

    pub(crate) fn create_labelled(&mut self, name: &str, key: &str, value: &str, wanted: Wanted) {
        self.create_service(name, 0, V4, wanted);
        let Some(api) = self.services.get_mut(&service(name)) else { return };
        api.request.labels = [(key.to_owned(), value.to_owned())].into();
        let request = api.request.clone();
        // Nobody has been told of it without the label.
        self.lagging[SERVICES].clear();
        self.lagging[SERVICES].push_back(Input::ServiceApplied(request.into()));
    }

    pub(crate) fn label_namespace(&mut self, name: &str, key: &str, value: &str) {
        let labels = [(key.to_owned(), value.to_owned())].into();
        self.handle(Input::NamespaceApplied { name: name.to_owned(), labels });
    }

    pub(crate) fn delete_service(&mut self, name: &str) {
        let service = service(name);
        if let Some(api) = self.services.remove(&service) {
            self.note(format!("delete {service}"));
            if api.balanced {
                self.lagging[SERVICES].push_back(Input::ServiceDeleted(service));
            }
        }
    }

    /// type: LoadBalancer <-> ClusterIP. The API server leaves the status to us.
    pub(crate) fn toggle_type(&mut self, name: &str) {
        let (service, version) = (service(name), self.next_version());
        let Some(api) = self.services.get_mut(&service) else { return };
        api.balanced = !api.balanced;
        api.request.version = version;
        api.settled = Addresses::default();
        let balanced = api.balanced;
        self.note(format!("{service} is of type LoadBalancer: {balanced}"));
        if balanced {
            self.tell_service(&service);
        } else {
            self.lagging[SERVICES].push_back(Input::ServiceDeleted(service));
        }
    }

    pub(crate) fn ask(&mut self, name: &str, families: Families, wanted: Wanted) {
        if let Some(api) = self.services.get_mut(&service(name)) {
            api.request.families = families;
        }
        self.ask_for(name, Ok(wanted));
    }

    pub(crate) fn ask_for(&mut self, name: &str, wanted: Result<Wanted, RequestError>) {
        let (service, version) = (service(name), self.next_version());
        let Some(api) = self.services.get_mut(&service) else { return };
        let families = api.request.families;
        self.history.push(format!("{service} asks for {families:?} {wanted:?}"));
        api.request.wanted = wanted;
        api.request.version = version;
        api.settled = Addresses::default();
        self.tell_service(&service);
    }

    /// Other ports, another policy.
    pub(crate) fn expose(&mut self, name: &str, exposure: Exposure) {
        let (service, version) = (service(name), self.next_version());
        self.note(format!("{service} exposes {exposure:?}"));
        let Some(api) = self.services.get_mut(&service) else { return };
        api.request.exposure = exposure;
        api.request.version = version;
        self.tell_service(&service);
    }

    pub(crate) fn write_status_by_hand(&mut self, name: &str, shown: Vec<IpAddr>) {
        let (service, version) = (service(name), self.next_version());
        self.note(format!("{service} is made to show {shown:?}"));
        let Some(api) = self.services.get_mut(&service) else { return };
        api.by_hand.extend(shown.iter());
        api.request.shown = shown;
        api.request.version = version;
        self.tell_service(&service);
    }

    pub(crate) fn reserve(&mut self, address: IpAddr, name: &str) {
        self.reserve_for(address, Claim::Service(service(name)));
    }

    pub(crate) fn reserve_for(&mut self, address: IpAddr, claim: Claim) {
        if self.lbips.contains_key(&address) {
            return;
        }
        self.note(format!("reserve {address} for {claim}"));
        // Its record was deleted by hand, and it is given to somebody else by hand.
        self.given_away.insert(address);
        let version = self.next_version();
        let record = AddressRecord {
            address,
            version,
            pool: None,
            services: Vec::new(),
            claim: Some(claim),
            sharing: None,
            terminating: false,
        };
        self.lbips.insert(address, record);
        self.tell_address(address);
    }

    /// Somebody writes into a LoadBalancerIP.
    pub(crate) fn edit_lbip(&mut self, address: IpAddr, edit: impl Fn(&mut AddressRecord)) {
        let version = self.next_version();
        let Some(record) = self.lbips.get_mut(&address) else { return };
        edit(record);
        record.version = version;
        let text = format!("lbip {address} is made to list {:?}", record.services);
        self.note(text);
        self.tell_address(address);
    }

    /// A user, or another leader, deletes a LoadBalancerIP.
    pub(crate) fn delete_lbip(&mut self, address: IpAddr) {
        if self.lbips.remove(&address).is_some() {
            self.note(format!("delete lbip {address}"));
            self.deleted.insert(address);
            self.tell_deleted(address);
        }
    }
}

/// Watches, writer, leader.
impl World {
    /// The watch of that kind tells the next thing.
    pub(crate) fn deliver(&mut self, kind: usize) {
        if let Some(input) = self.lagging[kind].pop_front() {
            self.note(format!("  told: {}", brief(&input)));
            self.handle(input);
        }
    }

    /// The writer does a job.
    pub(crate) fn work(&mut self, job: usize, fate: Fate) {
        if job >= self.jobs.len() {
            return;
        }
        let job = self.jobs.remove(job);
        let input = match (job, fate) {
            (Output::Take(take), Fate::Works) => self.do_take(take),
            (Output::Publish(publication), Fate::Works) => self.do_publish(&publication),
            (Output::Release(release), Fate::Works) => self.do_release(release),
            (Output::Take(take), Fate::Refused) => {
                let result = TakeResult::Refused("forbidden".into());
                Input::TakeDone { address: take.address, owner: take.owner, result }
            }
            (Output::Publish(publication), Fate::Refused) => {
                let result = PublishResult::Refused("forbidden".into());
                Input::PublishDone { owner: publication.owner, result }
            }
            (Output::Release(release), Fate::Refused) => {
                let result = ReleaseResult::Refused("forbidden".into());
                Input::ReleaseDone { address: release.address, result }
            }
            (Output::Pool { .. }, _) => return,
        };
        self.note(format!("  done: {}", brief(&input)));
        self.check();
        self.handle(input);
    }

    /// The process dies: a new leader starts from what the API server says. Of the writes under way, those of
    /// `finished` still arrive.
    pub(crate) fn restart(&mut self, finished: impl Fn(usize) -> bool) {
        let jobs = self.jobs.len();
        self.note(format!("restart with {jobs} jobs under way"));
        for job in (0..jobs).rev().filter(|job| finished(*job)) {
            self.work(job, Fate::Works);
        }
        // Its record was deleted by hand and nobody saw it in time: a status alone protects nothing (rule B2).
        for api in self.services.values_mut() {
            let recorded = |it: &&IpAddr| {
                self.lbips.get(it).is_some_and(|record| record.services.contains(&api.request.owner))
            };
            api.settled = api.settled.iter().filter(|it| recorded(&it)).collect();
            let unrecorded: Vec<_> = api.request.shown.iter().filter(|it| !recorded(it)).copied().collect();
            api.by_hand.extend(unrecorded);
        }
        self.allocator = Allocator::new();
        self.jobs.clear();
        self.told.clear();
        self.told_pools.clear();
        self.statuses.clear();
        self.lagging = Default::default();
        self.sync();
    }

    /// Everything is told and done, until nothing happens any more.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10_000 {
            for kind in [POOLS, SERVICES, ADDRESSES] {
                while !self.lagging[kind].is_empty() {
                    self.deliver(kind);
                }
            }
            if !self.jobs.is_empty() {
                self.work(0, Fate::Works);
            } else if self.allocator.failed() > 0 {
                self.handle(Input::Retry);
            } else if self.lagging.iter().all(VecDeque::is_empty) {
                // As after a relist: owners that were declined are looked at again.
                self.handle(Input::Synced(List::Services));
                if self.jobs.is_empty() {
                    return;
                }
            }
        }
        panic!("does not come to rest:\n{}", self.story());
    }

    pub(crate) fn handle(&mut self, input: Input) {
        match &input {
            Input::ServiceApplied(request) => {
                self.told.insert(request.owner.service.clone(), (**request).clone());
            }
            Input::ServiceDeleted(service) => {
                self.told.remove(service);
            }
            Input::PoolApplied(spec) => {
                self.told_pools.insert(spec.name.clone(), spec.clone());
            }
            Input::PoolDeleted(name) => {
                self.told_pools.remove(name);
            }
            _ => {}
        }
        self.allocator.handle(input);
        while let Some(output) = self.allocator.poll_output() {
            match output {
                Output::Pool { pool, status: Some(status) } => {
                    self.statuses.insert(pool, status);
                }
                Output::Pool { pool, status: None } => {
                    self.statuses.remove(&pool);
                }
                job => {
                    self.note(format!("    says: {}", brief_output(&job)));
                    self.one_write_at_a_time(&job);
                    self.joins_only_whom_it_may(&job);
                    self.jobs.push(job);
                }
            }
        }
    }

    /// All the API server has, as a new leader learns it.
    pub(crate) fn snapshot(&self) -> Vec<Input> {
        let pools = self.pools.values().cloned().map(Input::PoolApplied);
        let balanced = self.services.values().filter(|api| api.balanced);
        let services = balanced.map(|api| Input::ServiceApplied(api.request.clone().into()));
        let addresses = self.lbips.values().cloned().map(|it| Input::AddressApplied(it.into()));
        pools.chain(services).chain(addresses).collect()
    }

    fn sync(&mut self) {
        for input in self.snapshot() {
            self.handle(input);
        }
        for list in [List::Pools, List::Namespaces, List::Services, List::Addresses] {
            self.handle(Input::Synced(list));
        }
    }

    fn one_write_at_a_time(&self, job: &Output) {
        let twice = self.jobs.iter().any(|other| match (job, other) {
            (Output::Publish(a), Output::Publish(b)) => a.owner == b.owner,
            (a, b) => written(a).is_some() && written(a) == written(b),
        });
        assert!(!twice, "a second write for one object: {job:?}\n{}", self.story());
    }
}

/// What must hold at every moment.
impl World {
    /// No two Services show one address, and no LoadBalancerIP has two owners.
    pub(crate) fn check(&self) {
        let mut shown: BTreeMap<IpAddr, Vec<&Owner>> = BTreeMap::new();
        for api in self.services.values().filter(|api| api.balanced) {
            for address in api.request.shown.iter().filter(|address| !api.by_hand.contains(address)) {
                shown.entry(*address).or_default().push(&api.request.owner);
            }
        }
        for (address, owners) in shown.iter().filter(|(_, owners)| owners.len() > 1) {
            // Who stands there came in by the sharing rule (`joins_only_whom_it_may`).
            let listed = self.lbips.get(address).map(|record| record.services.as_slice()).unwrap_or_default();
            let all = owners.iter().all(|owner| listed.contains(owner));
            let lost = self.deleted.contains(address);
            assert!(all || lost, "{address} is shown by {owners:?}, of {listed:?}:\n{}", self.story());
        }
    }

    /// Rule B4, by the words of the documentation.
    fn joins_only_whom_it_may(&self, job: &Output) {
        let Output::Take(Take { address, owner, how: TakeHow::Join { beside }, .. }) = job else { return };
        let open = self.told_pools.values().any(|spec| {
            spec.sharing_scope == SharingScope::Cluster && crate::model::members(spec).contains(address)
        });
        let mine = &self.told[&owner.service];
        // Its record was deleted by hand while others joined: it is put back, to those it shares with already.
        let api = self.services.get(&owner.service).filter(|api| api.request.owner == *owner);
        if self.deleted.contains(address) && api.is_some_and(|api| api.request.shown.contains(address)) {
            return;
        }
        for other in beside {
            let Some(theirs) = self.told.get(&other.service) else {
                panic!("{owner:?} joins {other:?}, whom nobody knows:\n{}", self.story());
            };
            assert!(
                may_share(mine, theirs, open),
                "{owner:?} joins {other:?} at {address}:\n{mine:?}\n{theirs:?}\n{}",
                self.story()
            );
        }
    }

    /// An address that a Service shows does not change unless its user asks.
    fn check_settled(&mut self, service: &ServiceRef, shown: Addresses, asks_for_more: bool) {
        let given_away = self.given_away.clone();
        let Some(api) = self.services.get_mut(service) else { return };
        // Both or nothing, and one of the two was given to somebody else by hand.
        let torn = api.request.families.policy == FamilyPolicy::RequireDualStack
            && api.settled.iter().any(|address| given_away.contains(&address));
        let must_stay = |address: &IpAddr| {
            let kept = !given_away.contains(address) && !torn;
            api.request.families.has(Family::of(*address)) && kept && !asks_for_more
        };
        let lost: Vec<_> =
            api.settled.iter().filter(must_stay).filter(|address| !shown.contains(*address)).collect();
        let by_hand = &api.by_hand;
        let counts = |address: &IpAddr| !by_hand.contains(address) && !given_away.contains(address);
        api.settled = shown.iter().filter(counts).collect();
        assert!(lost.is_empty(), "{service} lost {lost:?}, shows {shown}:\n{}", self.story());
    }

    /// The history so far.
    pub(crate) fn story(&self) -> String {
        self.history.join("\n")
    }

    fn note(&mut self, what: String) {
        self.history.push(what);
    }

    /// What a Service shows.
    pub(crate) fn shown(&self, name: &str) -> Vec<String> {
        self.services[&service(name)].request.shown.iter().map(ToString::to_string).collect()
    }

    /// What is said beside it.
    pub(crate) fn refusal(&self, name: &str) -> String {
        self.services[&service(name)].refusal.as_ref().map(ToString::to_string).unwrap_or_default()
    }
}

fn written(job: &Output) -> Option<IpAddr> {
    match job {
        Output::Take(take) => Some(take.address),
        Output::Release(release) => Some(release.address),
        Output::Publish(_) | Output::Pool { .. } => None,
    }
}

fn brief(input: &Input) -> String {
    match input {
        Input::ServiceApplied(it) => {
            format!("{} {} v{} shows {:?}", it.owner.service, it.owner.uid, it.version.0, it.shown)
        }
        Input::AddressApplied(it) => {
            let owners: Vec<_> = it.services.iter().map(|owner| owner.uid.as_str()).collect();
            format!("lbip {} v{} of {owners:?} for {:?}", it.address, it.version.0, it.claim)
        }
        other => format!("{other:?}"),
    }
}

fn brief_output(output: &Output) -> String {
    match output {
        Output::Take(it) => format!("take {} for {} ({:?})", it.address, it.owner.uid, it.how),
        Output::Publish(it) => {
            let refusal = it.refusal.as_ref().map(ToString::to_string);
            format!("publish {} v{} {:?} {refusal:?}", it.owner.uid, it.version.0, it.ingress)
        }
        Output::Release(it) => {
            format!("release {} of {} ({:?}, {:?})", it.address, it.owner.uid, it.when, it.then)
        }
        Output::Pool { .. } => String::new(),
    }
}
