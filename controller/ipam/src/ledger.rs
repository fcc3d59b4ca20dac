//! Who has which address, and what is free: the entries of all addresses that are not free, and the pools.
//!
//! Holds always, because [`Ledger::update`] is the only way to change an entry and [`Ledger::reindex`] runs after
//! every change of pools: an address of a pool in force is in the pool's free space exactly if it has no entry; the
//! indexes (owned, reserved, assigned, stranded) agree with the entries. Decides nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use crate::entry::{Entry, Phase};
use crate::pools::Pools;
use crate::{
    Claim, Family, Owner, PoolCounts, PoolName, PoolStatus, ServiceRef, ServiceRequest, SharingKey,
    SharingScope, Terms, Version, pool::Pool,
};

/// Entries, pools, and what is derived from the two.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) pools: Pools,
    // Boxed, as a map has room for almost twice as many as it holds.
    entries: BTreeMap<IpAddr, Box<Entry>>,
    /// How new the knowledge of a released address is, until the watch has caught up: what it tells of an older
    /// object is history.
    released: BTreeMap<IpAddr, Version>,
    /// By owner, the addresses it has a share in, in order: one or two, most often.
    owned: BTreeMap<Owner, Vec<IpAddr>>,
    /// By whom they are reserved for, addresses.
    reserved: BTreeMap<Claim, BTreeSet<IpAddr>>,
    /// By the key under which others may join, addresses.
    shared: BTreeMap<SharingKey, BTreeSet<IpAddr>>,
    /// Of pools with `limitPerNamespace`: how many addresses count against it.
    charged: BTreeMap<PoolName, BTreeMap<(Family, Arc<str>), u32>>,
    /// By pool in force, how many of its addresses have an owner: IPv4, IPv6.
    assigned: BTreeMap<PoolName, (i64, i64)>,
    /// By the pool they were taken from, addresses with an owner that are in no pool (any more).
    stranded: BTreeMap<PoolName, BTreeSet<IpAddr>>,
    /// Pools whose status may have changed.
    touched: BTreeSet<PoolName>,
    /// Addresses that came free, for those who wait.
    freed: VecDeque<IpAddr>,
    /// Limits of namespaces that leave room again, for those who wait.
    relieved: VecDeque<(PoolName, Family, Arc<str>)>,
}

/// What the indexes depend on in an entry.
#[derive(Default, PartialEq, Eq)]
struct Indexed {
    exists: bool,
    owners: Vec<Owner>,
    claim: Option<Claim>,
    key: Option<SharingKey>,
    pool: Option<PoolName>,
}

impl Ledger {
    /// What is known of an address that is not free.
    pub(crate) fn entry(&self, address: IpAddr) -> Option<&Entry> {
        self.entries.get(&address).map(Box::as_ref)
    }

    /// All addresses that are not free.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.entries.keys().copied().collect()
    }

    /// An owner's part in an address.
    pub(crate) fn phase(&self, address: IpAddr, owner: &Owner) -> Option<Phase> {
        self.entries.get(&address)?.phase(owner)
    }

    /// Changes what is known of an address; an entry that says "free" afterwards is no more.
    pub(crate) fn update<R>(&mut self, address: IpAddr, change: impl FnOnce(&mut Entry) -> R) -> R {
        let before = self.entries.remove(&address);
        let was = before.as_deref().map(Indexed::of).unwrap_or_default();
        let mut entry = before.unwrap_or_default();
        let result = change(&mut entry);
        let is = if entry.is_free() { Indexed::default() } else { Indexed::of(&entry) };
        if !entry.is_free() {
            self.entries.insert(address, entry);
        }
        if was != is {
            self.move_indexes(address, &was, &is);
        }
        result
    }

    /// The addresses an owner has a share in.
    pub(crate) fn owned(&self, owner: &Owner) -> impl Iterator<Item = IpAddr> + '_ {
        self.owned.get(owner).into_iter().flatten().copied()
    }

    /// Every owner of that name, whatever its uid, and its addresses.
    pub(crate) fn owners_named(&self, service: &ServiceRef) -> Vec<Owner> {
        let from = Owner { service: service.clone(), uid: crate::Uid::new("") };
        let owners = self.owned.range(from..).map(|(owner, _)| owner);
        owners.take_while(|owner| owner.service == *service).cloned().collect()
    }

    /// All owners.
    pub(crate) fn owners(&self) -> impl Iterator<Item = &Owner> {
        self.owned.keys()
    }

    /// The addresses reserved for a Service, those for its name first, then those for its key; lowest first.
    pub(crate) fn reserved_for(&self, request: &ServiceRequest) -> impl Iterator<Item = IpAddr> + '_ {
        let service = &request.owner.service;
        let by_key = request.key().map(|key| Claim::after(service, Some(key)));
        let claims = std::iter::once(Claim::Service(service.clone())).chain(by_key);
        claims.flat_map(|claim| self.reserved.get(&claim).into_iter().flatten().copied())
    }

    /// The addresses that can be joined under a key, lowest first.
    pub(crate) fn shared_under(&self, key: &SharingKey) -> impl Iterator<Item = IpAddr> + '_ {
        self.shared.get(key).into_iter().flatten().copied()
    }

    /// On which terms others may join an address.
    pub(crate) fn terms(&self, address: IpAddr) -> Option<Terms> {
        let entry = self.entries.get(&address)?;
        let key = entry.key.clone()?;
        let mut namespaces = entry.owners().map(|owner| &owner.service.namespace);
        let first = namespaces.next()?;
        let pool = self.pools.containing(address).and_then(|name| self.pools.get(name));
        let open = pool.is_some_and(|pool| pool.spec.sharing_scope == SharingScope::Cluster);
        let closed = !open && namespaces.all(|namespace| namespace == first);
        Some(Terms { namespace: closed.then(|| first.clone()), key })
    }

    /// How many addresses of a pool with `limitPerNamespace` count against a namespace's limit.
    pub(crate) fn charged(&self, pool: &PoolName, family: Family, namespace: &Arc<str>) -> u32 {
        let charged = self.charged.get(pool).and_then(|it| it.get(&(family, namespace.clone())));
        charged.copied().unwrap_or_default()
    }

    /// Whether an address counts against a namespace's limit already.
    pub(crate) fn is_charged(&self, address: IpAddr, namespace: &Arc<str>) -> bool {
        self.entries.get(&address).is_some_and(|entry| Indexed::of(entry).namespaces().contains(namespace))
    }

    /// The pool an address counts to: the one that contains it, else the one it was taken from.
    pub(crate) fn pool_of(&self, address: IpAddr) -> Option<&PoolName> {
        let taken_from = || self.entries.get(&address).and_then(|entry| entry.pool.as_ref());
        self.pools.containing(address).or_else(taken_from)
    }

    /// Notes that an address was released at that version.
    pub(crate) fn remember_release(&mut self, address: IpAddr, version: Version) {
        self.released.insert(address, version);
    }

    /// Whether the allocator knows more of an address than what was true at `version`.
    pub(crate) fn is_history(&self, address: IpAddr, version: Version) -> bool {
        self.released.get(&address).is_some_and(|released| version <= *released)
            || self.entries.get(&address).is_some_and(|entry| version < entry.known)
    }

    /// The watch has come to `version` of an address: a release before that need not be remembered.
    pub(crate) fn caught_up(&mut self, address: IpAddr, version: Version) {
        if self.released.get(&address).is_some_and(|released| *released <= version) {
            self.released.remove(&address);
        }
    }

    /// The next address that came free.
    pub(crate) fn pop_freed(&mut self) -> Option<IpAddr> {
        self.freed.pop_front()
    }

    /// The next limit that leaves room again.
    pub(crate) fn pop_relieved(&mut self) -> Option<(PoolName, Family, Arc<str>)> {
        self.relieved.pop_front()
    }

    /// A pool's status may have changed.
    pub(crate) fn touch(&mut self, pool: PoolName) {
        self.touched.insert(pool);
    }

    /// The pools whose status may have changed since the last call.
    pub(crate) fn take_touched(&mut self) -> BTreeSet<PoolName> {
        std::mem::take(&mut self.touched)
    }

    /// A pool's status; `None` if there is no such pool.
    pub(crate) fn status(&self, name: &PoolName) -> Option<PoolStatus> {
        if !self.pools.exists(name) {
            return None;
        }
        let pool = self.pools.get(name);
        // A node's own address is in the spec all the same.
        let outside = |address: &&IpAddr| !pool.is_some_and(|pool| pool.is_of_node(**address));
        let stranded = || self.stranded.get(name).into_iter().flatten().filter(outside);
        let owner = |address: &IpAddr| {
            let owner = self.entries.get(address)?.owners().next()?;
            Some((*address, owner.service.clone()))
        };
        let exhausted = |family: &Family| {
            pool.map(|pool| pool.space(*family)).is_some_and(|space| !space.is_empty() && space.free() == 0)
        };
        Some(PoolStatus {
            counts: self.counts(name),
            exhausted: Family::BOTH.into_iter().filter(exhausted).collect(),
            problem: self.pools.problem(name).cloned(),
            stranded: stranded().filter_map(owner).take(PoolStatus::STRANDED).collect(),
            stranded_total: stranded().count(),
        })
    }

    /// Brings free space and indexes up to date with pools whose meaning changed.
    pub(crate) fn reindex(&mut self, changed: &BTreeSet<PoolName>) {
        for name in changed {
            self.assigned.remove(name);
            self.charged.remove(name);
            let Some(pool) = self.pools.get_mut(name) else { continue };
            let (mut v4, mut v6) = (0, 0);
            let mut charged: BTreeMap<(Family, Arc<str>), u32> = BTreeMap::new();
            for range in pool.ranges.clone() {
                for (address, entry) in self.entries.range(range.first()..=range.last()) {
                    let taken = pool.space_mut(range.family()).take(*address);
                    let counts = taken && pool.spec.limit_per_namespace.is_some();
                    let namespaces = if counts { Indexed::of(entry).namespaces() } else { BTreeSet::new() };
                    for namespace in namespaces {
                        *charged.entry((range.family(), namespace)).or_default() += 1;
                    }
                    if taken && !entry.shares.is_empty() {
                        match range.family() {
                            Family::V4 => v4 += 1,
                            Family::V6 => v6 += 1,
                        }
                    }
                }
            }
            if pool.spec.limit_per_namespace.is_some() {
                self.charged.insert(name.clone(), charged);
            }
            self.assigned.insert(name.clone(), (v4, v6));
        }
        let stranded = std::mem::take(&mut self.stranded);
        self.touched.extend(stranded.into_keys().chain(changed.iter().cloned()));
        for (address, entry) in &self.entries {
            if let (Some(pool), false) = (&entry.pool, entry.shares.is_empty())
                && self.pools.containing(*address).is_none()
            {
                self.stranded.entry(pool.clone()).or_default().insert(*address);
                self.touched.insert(pool.clone());
            }
        }
    }

    fn counts(&self, name: &PoolName) -> PoolCounts {
        let (assigned_v4, assigned_v6) = self.assigned.get(name).copied().unwrap_or_default();
        let available = |family| {
            let free = |pool: &Pool| i64::try_from(pool.space(family).free()).unwrap_or(i64::MAX);
            self.pools.get(name).map_or(0, free)
        };
        let (available_v4, available_v6) = (available(Family::V4), available(Family::V6));
        PoolCounts { assigned_v4, assigned_v6, available_v4, available_v6 }
    }

    fn move_indexes(&mut self, address: IpAddr, was: &Indexed, is: &Indexed) {
        for owner in was.owners.iter().filter(|owner| !is.owners.contains(owner)) {
            if let Some(owned) = self.owned.get_mut(owner) {
                owned.retain(|known| *known != address);
                if owned.is_empty() {
                    self.owned.remove(owner);
                }
            }
        }
        for owner in is.owners.iter().filter(|owner| !was.owners.contains(owner)) {
            let owned = self.owned.entry(owner.clone()).or_default();
            if let Err(at) = owned.binary_search(&address) {
                owned.reserve_exact(1);
                owned.insert(at, address);
            }
        }
        if was.claim != is.claim {
            was.claim.iter().for_each(|claim| remove_from(&mut self.reserved, claim, address));
            if let Some(claim) = &is.claim {
                self.reserved.entry(claim.clone()).or_default().insert(address);
            }
        }
        if was.key != is.key {
            was.key.iter().for_each(|key| remove_from(&mut self.shared, key, address));
            if let Some(key) = &is.key {
                self.shared.entry(key.clone()).or_default().insert(address);
            }
        }
        if was.exists && !is.exists {
            self.freed.push_back(address);
        }
        match self.pools.containing(address).cloned() {
            Some(name) => self.move_in_pool(&name, address, was, is),
            None => self.move_stranded(address, was, is),
        }
    }

    fn move_in_pool(&mut self, name: &PoolName, address: IpAddr, was: &Indexed, is: &Indexed) {
        let family = Family::of(address);
        if let Some(pool) = self.pools.get_mut(name) {
            match (was.exists, is.exists) {
                (false, true) => pool.space_mut(family).take(address),
                (true, false) => pool.space_mut(family).give_back(address),
                _ => true,
            };
        }
        let assigned = self.assigned.entry(name.clone()).or_default();
        let count = match family {
            Family::V4 => &mut assigned.0,
            Family::V6 => &mut assigned.1,
        };
        *count += i64::from(!is.owners.is_empty()) - i64::from(!was.owners.is_empty());
        self.touched.insert(name.clone());
        if self.charged.contains_key(name) {
            self.charge(name, family, &was.namespaces(), &is.namespaces());
        }
    }

    fn charge(&mut self, pool: &PoolName, family: Family, was: &BTreeSet<Arc<str>>, is: &BTreeSet<Arc<str>>) {
        let Some(charged) = self.charged.get_mut(pool) else { return };
        for namespace in is.difference(was) {
            *charged.entry((family, namespace.clone())).or_default() += 1;
        }
        for namespace in was.difference(is) {
            let count = charged.entry((family, namespace.clone())).or_default();
            *count = count.saturating_sub(1);
            if *count == 0 {
                charged.remove(&(family, namespace.clone()));
            }
            self.relieved.push_back((pool.clone(), family, namespace.clone()));
        }
    }

    fn move_stranded(&mut self, address: IpAddr, was: &Indexed, is: &Indexed) {
        if let (Some(pool), false) = (&was.pool, was.owners.is_empty()) {
            remove_from(&mut self.stranded, pool, address);
            self.touched.insert(pool.clone());
        }
        if let (Some(pool), false) = (&is.pool, is.owners.is_empty()) {
            self.stranded.entry(pool.clone()).or_default().insert(address);
            self.touched.insert(pool.clone());
        }
    }
}

impl Indexed {
    fn of(entry: &Entry) -> Self {
        Self {
            exists: true,
            owners: entry.owners().cloned().collect(),
            claim: entry.claim().cloned(),
            key: entry.key.clone(),
            pool: entry.pool.clone(),
        }
    }

    /// Whom the address counts against: the namespaces of its owners, without any that of its reservation.
    fn namespaces(&self) -> BTreeSet<Arc<str>> {
        match &self.claim {
            Some(claim) if self.owners.is_empty() => [claim.namespace().clone()].into(),
            _ => self.owners.iter().map(|owner| owner.service.namespace.clone()).collect(),
        }
    }
}

fn remove_from<K: Ord>(index: &mut BTreeMap<K, BTreeSet<IpAddr>>, key: &K, address: IpAddr) {
    if let Some(addresses) = index.get_mut(key) {
        addresses.remove(&address);
        if addresses.is_empty() {
            index.remove(key);
        }
    }
}
