//! An API server as small as the allocator can see it, the watches that lag behind it, and the writer.
//!
//! The writer keeps the contract written at `Take`, `Publication` and `Release`. After every write the world checks
//! what must hold at every moment (see [`World::check`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use herald_ipam::{
    AddressRecord, Addresses, Allocator, Claim, CreatedAt, Exposure, Families, Family, FamilyPolicy, Ingress,
    Input, Labels, List, Output, Owner, PoolName, PoolSpec, PoolStatus, Port, Protocol, Publication,
    PublishResult, ReclaimPolicy, Refusal, Release, ReleaseResult, ReleaseThen, ReleaseWhen, ServiceRef,
    ServiceRequest, SharingKey, SharingPreference, SharingScope, Take, TakeHow, TakeResult, Uid, Version,
    Wanted,
};

/// A Service as the API server has it.
#[derive(Clone, Debug)]
pub(crate) struct ApiService {
    pub(crate) request: ServiceRequest,
    /// `type: LoadBalancer`.
    pub(crate) balanced: bool,
    /// What its status says beside the addresses.
    pub(crate) refusal: Option<Refusal>,
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
        let (service, version) = (service(name), self.next_version());
        self.note(format!("{service} asks for {families:?} {wanted:?}"));
        let Some(api) = self.services.get_mut(&service) else { return };
        api.request.families = families;
        api.request.wanted = Ok(wanted);
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
                self.told.insert(request.owner.service.clone(), request.clone());
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
        let services = balanced.map(|api| Input::ServiceApplied(api.request.clone()));
        let addresses = self.lbips.values().cloned().map(Input::AddressApplied);
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

/// The API server's answers.
impl World {
    fn do_take(&mut self, take: Take) -> Input {
        let Take { address, pool, owner, how, sharing } = take;
        let found = self.lbips.get(&address).cloned();
        let result = match (found, &how) {
            (Some(record), _) if record.services.contains(&owner) => TakeResult::Taken(record.version),
            (Some(record), TakeHow::Claim | TakeHow::Join { .. })
                if record.services.iter().all(|other| may_stand_beside(&how, other))
                    && record.services.len() < 64
                    && !record.terminating
                    && record.claim.as_ref().is_none_or(|claim| {
                        claim.admits(&owner.service, sharing.as_ref().map(|terms| &terms.key))
                    }) =>
            {
                let version = self.next_version();
                let pool = Some(pool);
                let mut services = record.services.clone();
                services.push(owner.clone());
                self.lbips.insert(address, AddressRecord { version, pool, services, sharing, ..record });
                self.tell_address(address);
                TakeResult::Taken(version)
            }
            (Some(record), _) => TakeResult::Held(record),
            (None, _) => {
                let version = self.next_version();
                let services = vec![owner.clone()];
                let record = AddressRecord {
                    address,
                    version,
                    pool: Some(pool),
                    services,
                    claim: None,
                    sharing,
                    terminating: false,
                };
                self.lbips.insert(address, record);
                self.tell_address(address);
                TakeResult::Taken(version)
            }
        };
        Input::TakeDone { address, owner, result }
    }

    fn do_publish(&mut self, publication: &Publication) -> Input {
        let owner = publication.owner.clone();
        let version = self.next_version();
        let api = self.services.get_mut(&owner.service);
        let asks_for_more =
            api.as_ref().and_then(|api| api.refusal.as_ref()).is_some_and(|refusal| !refusal.is_complaint());
        let result = match api.filter(|api| api.request.owner == owner && api.balanced) {
            None => PublishResult::Gone,
            Some(api) if api.request.version != publication.version => PublishResult::Stale,
            Some(api) => {
                let shown = match publication.ingress {
                    Ingress::Show(addresses) => addresses.iter().collect(),
                    Ingress::Leave => api.request.shown.clone(),
                };
                let same = shown == api.request.shown
                    && api.refusal == publication.refusal
                    && api.pool == publication.pool;
                api.request.shown = shown;
                api.refusal.clone_from(&publication.refusal);
                api.pool.clone_from(&publication.pool);
                if same {
                    PublishResult::Published(api.request.version)
                } else {
                    api.request.version = version;
                    self.tell_service(&owner.service);
                    PublishResult::Published(version)
                }
            }
        };
        if let (Ingress::Show(addresses), PublishResult::Published(_)) = (publication.ingress, &result) {
            self.check_settled(&owner.service, addresses, asks_for_more);
        }
        Input::PublishDone { owner, result }
    }

    fn do_release(&mut self, release: Release) -> Input {
        let Release { address, owner, when, then } = release;
        let alive =
            self.services.get(&owner.service).filter(|api| api.request.owner == owner && api.balanced);
        let in_use = match (alive, when) {
            (Some(api), ReleaseWhen::NotShown) => api.request.shown.contains(&address),
            (alive, _) => alive.is_some(),
        };
        if in_use {
            return Input::ReleaseDone { address, result: ReleaseResult::StillInUse };
        }
        let dead =
            self.services.get_mut(&owner.service).filter(|api| api.request.owner == owner && !api.balanced);
        if let Some(api) = dead {
            api.request.shown.retain(|shown| *shown != address);
        }
        let version = self.next_version();
        let result = match self.lbips.get_mut(&address) {
            None => ReleaseResult::Released(Version::default()),
            Some(record)
                if !record.services.contains(&owner)
                    || (then == ReleaseThen::Leave) == (record.services.len() == 1) =>
            {
                ReleaseResult::Changed(record.clone())
            }
            Some(record) => {
                record.services.retain(|other| *other != owner);
                let last = record.version;
                match then {
                    ReleaseThen::Delete => {
                        self.lbips.remove(&address);
                        self.tell_deleted(address);
                        ReleaseResult::Released(last)
                    }
                    then => {
                        if let ReleaseThen::Reserve(claim) = then {
                            record.claim = Some(claim);
                        }
                        record.version = version;
                        self.tell_address(address);
                        ReleaseResult::Released(version)
                    }
                }
            }
        };
        Input::ReleaseDone { address, result }
    }

    fn tell_service(&mut self, service: &ServiceRef) {
        if let Some(api) = self.services.get(service).filter(|api| api.balanced) {
            self.lagging[SERVICES].push_back(Input::ServiceApplied(api.request.clone()));
        }
    }

    fn tell_address(&mut self, address: IpAddr) {
        let record = self.lbips.get(&address).cloned();
        self.lagging[ADDRESSES].extend(record.map(Input::AddressApplied));
    }

    fn tell_deleted(&mut self, address: IpAddr) {
        let version = self.next_version();
        self.lagging[ADDRESSES].push_back(Input::AddressDeleted { address, version });
    }

    fn next_version(&mut self) -> Version {
        self.version += 1;
        Version(self.version)
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
        let must_stay = |address: &IpAddr| {
            api.request.families.has(Family::of(*address)) && !given_away.contains(address) && !asks_for_more
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

/// `web` is `default/web`.
pub(crate) fn service(name: &str) -> ServiceRef {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    ServiceRef::new(namespace, name)
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn pool(name: &str, addresses: &[&str]) -> PoolSpec {
    PoolSpec {
        name: PoolName::new(name),
        created: CreatedAt(0),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        excluded: Vec::new(),
        avoid_buggy_ips: false,
        auto_assign: true,
        allocation: None,
        reclaim: ReclaimPolicy::Delete,
        sharing: SharingPreference::WhenFull,
        sharing_scope: SharingScope::Namespace,
        limit_per_namespace: None,
    }
}

/// These TCP ports, of pods of its own, from any node.
pub(crate) fn exposure(ports: &[u16]) -> Exposure {
    let ports = ports.iter().map(|number| Port { protocol: Protocol::Tcp, number: *number });
    Exposure { ports: ports.collect(), ..Default::default() }
}

/// The same from nodes with pods of this name only.
pub(crate) fn local(ports: &[u16], pods: &str) -> Exposure {
    let selector = [("app".to_owned(), pods.to_owned())].into();
    Exposure { local: true, selector, ..exposure(ports) }
}

/// The rule in the words of the documentation: same key, one namespace unless the pool opens it, no port in common,
/// and the same pods where one of the two is Local.
pub(crate) fn may_share(one: &ServiceRequest, other: &ServiceRequest, open: bool) -> bool {
    let key = |it: &ServiceRequest| it.wanted.as_ref().ok().and_then(|wanted| wanted.sharing.clone());
    let same_key = key(one).is_some() && key(one) == key(other);
    let namespace = open || one.owner.service.namespace == other.owner.service.namespace;
    let ports = one.exposure.ports.is_disjoint(&other.exposure.ports);
    let cluster = !one.exposure.local && !other.exposure.local;
    let pods =
        cluster || (!one.exposure.selector.is_empty() && one.exposure.selector == other.exposure.selector);
    same_key && namespace && ports && pods
}

fn may_stand_beside(how: &TakeHow, other: &Owner) -> bool {
    matches!(how, TakeHow::Join { beside } if beside.contains(other))
}

pub(crate) const V4: Families =
    Families { policy: FamilyPolicy::SingleStack, primary: Family::V4, dual: false };
pub(crate) const V6: Families =
    Families { policy: FamilyPolicy::SingleStack, primary: Family::V6, dual: false };
pub(crate) const PREFER: Families =
    Families { policy: FamilyPolicy::PreferDualStack, primary: Family::V4, dual: true };
pub(crate) const REQUIRE: Families =
    Families { policy: FamilyPolicy::RequireDualStack, primary: Family::V4, dual: true };

pub(crate) fn anything() -> Wanted {
    Wanted::default()
}

pub(crate) fn addresses(addresses: &[&str]) -> Wanted {
    Wanted { addresses: addresses.iter().map(|text| ip(text)).collect(), ..Default::default() }
}

pub(crate) fn from_pool(pool: &str) -> Wanted {
    Wanted { pool: Some(PoolName::new(pool)), ..Default::default() }
}

pub(crate) fn sharing(key: &str, wanted: Wanted) -> Wanted {
    Wanted { sharing: Some(SharingKey::new(key)), ..wanted }
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
