//! What a Service is to have (the addresses it asks for, else the pool, else any pool), from what it
//! has, what it asks for and what is free. A pure function: nothing is taken here. `plan/offer.rs` asks pools,
//! `plan/address.rs` single addresses.
//!
//! What it has stays unless the request asks for something else, and stays when that cannot be had.

mod address;
mod offer;

use std::collections::BTreeMap;
use std::net::IpAddr;

use offer::Join;

use crate::ledger::Ledger;
use crate::service::Service;
use crate::waiting::Wait;
use crate::{
    AddressNo, Addresses, Family, FamilyPolicy, Labels, PoolName, PoolNo, Refusal, RequestError,
    ServiceAllocation, ServiceRef, ServiceRequest,
};

/// What the decision depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation<'a> {
    pub(crate) ledger: &'a Ledger,
    pub(crate) namespaces: &'a BTreeMap<String, Labels>,
    pub(crate) services: &'a BTreeMap<ServiceRef, Box<Service>>,
    pub(crate) request: &'a ServiceRequest,
    /// What it has.
    pub(crate) has: Addresses,
    /// The part of it that its status may show: that is not taken away.
    pub(crate) visible: Addresses,
    /// What it has as well and its status may show still, though it was not to have it any more: it keeps that if it
    /// asks for it again before it is gone.
    pub(crate) leaving: Addresses,
    /// What its status shows without Herald having given it.
    pub(crate) strangers: Addresses,
}

/// The decision.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// What it is to have.
    pub(crate) target: Addresses,
    /// What it asks for and does not get, or what is wrong with what it keeps.
    pub(crate) refusal: Option<Refusal>,
    /// What could improve this.
    pub(crate) waits: Vec<Wait>,
}

/// Addresses that can be had, and what would be added later.
type Found = (Addresses, Vec<Wait>);

/// Why nothing can be had, and what could change that.
type Nothing = (Refusal, Vec<Wait>);

/// How much a pool is meant for the Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// It has an address that is reserved for it.
    Reserved,
    /// Its `serviceAllocation` admits it.
    Pinned,
    /// It is for everybody.
    General,
}

/// Pools to ask, in order.
type Candidates<'a> = Vec<(Rank, &'a PoolName)>;

impl Situation<'_> {
    /// Decides.
    pub(crate) fn plan(&self) -> Plan {
        if self.request.terminating {
            let refusal = self.has.is_empty().then_some(Refusal::Terminating);
            return Plan { target: self.has, refusal, waits: Vec::new() };
        }
        match self.find() {
            Ok((target, waits)) => Plan { refusal: self.complaint(target), target, waits },
            Err((refusal, waits)) => Plan { target: self.keeps(), refusal: Some(refusal), waits },
        }
    }

    fn find(&self) -> Result<Found, Nothing> {
        let wanted = self.request.wanted.as_ref().map_err(|error| refuse(Refusal::Invalid(error.clone())))?;
        let families = self.request.families;
        if let Some(address) = wanted.addresses.iter().find(|address| !families.has(Family::of(*address))) {
            let family = Family::of(address);
            return Err(refuse(Refusal::Invalid(RequestError::FamilyNotOfService { address, family })));
        }
        let has: Addresses = self.has.iter().filter(|address| families.has(Family::of(*address))).collect();
        match &wanted.pool {
            _ if !wanted.addresses.is_empty() => self.by_address(wanted.addresses, wanted.pool.as_ref(), has),
            Some(pool) => self.by_pool(pool, has),
            None => match self.seen_before(has) {
                has if !has.is_empty() => self.complete(has),
                _ if !self.strangers.is_empty() => self.adopt(),
                _ => self.automatic(),
            },
        }
    }

    /// What it shows still and asks for again goes before what was to replace it, if nobody has seen that yet.
    fn seen_before(&self, has: Addresses) -> Addresses {
        let seen = has.iter().any(|address| self.visible.contains(address));
        let again = self.again();
        if seen || again.is_empty() { has } else { again }
    }

    /// What it was not to have any more, as far as its families have a place for it again.
    fn again(&self) -> Addresses {
        self.leaving.iter().filter(|address| self.request.families.has(Family::of(*address))).collect()
    }

    /// What stays when what is asked for cannot be had. RequireDualStack is both or nothing, but nobody loses an
    /// address that users may see.
    fn keeps(&self) -> Addresses {
        let all_wanted = self.request.families.wanted().all(|family| self.has.of(family).is_some());
        let both_or_nothing = self.request.families.policy == FamilyPolicy::RequireDualStack;
        let stays = if both_or_nothing && !all_wanted { self.visible } else { self.has };
        self.again().iter().chain(stays.iter()).collect()
    }

    /// First of all: addresses asked for by name. A single one on a dual-stack Service is completed from its pool.
    fn by_address(
        &self,
        wanted: Addresses,
        asked: Option<&PoolName>,
        has: Addresses,
    ) -> Result<Found, Nothing> {
        if let Some(pool) = asked
            && !self.ledger.pools.exists(pool)
            && !self.all_of(has, pool)
        {
            return Err(refuse(self.unknown(pool)));
        }
        let looked: Vec<(IpAddr, Result<(), AddressNo>)> = wanted
            .iter()
            .map(|address| {
                let has = has.contains(address);
                let found = if has { self.still_in(address, asked) } else { self.obtainable(address, asked) };
                (address, found)
            })
            .collect();
        // What only a user can mend comes first; what others do to an address may change with every write of theirs.
        let lasting = looked.iter().find(|(_, no)| no.as_ref().is_err_and(|no| !no.may_pass()));
        if let Some((address, Err(no))) = lasting {
            return Err(refuse(Refusal::Address { address: *address, no: no.clone() }));
        }
        let pools: Vec<(IpAddr, Option<&PoolName>)> =
            wanted.iter().map(|address| (address, self.ledger.pool_of(address))).collect();
        let pool = match pools.as_slice() {
            [(a, Some(a_pool)), (b, Some(b_pool))] if a_pool != b_pool => {
                let addresses = [(*a, (*a_pool).clone()), (*b, (*b_pool).clone())];
                return Err(refuse(Refusal::DifferentPools { addresses }));
            }
            [(_, pool), ..] => *pool,
            [] => None,
        };
        // Others may free what it cannot have now, and take what it could have.
        let mut news: Vec<Wait> =
            wanted.iter().filter(|address| !has.contains(*address)).map(Wait::Address).collect();
        let passing = looked.into_iter().find_map(|(address, no)| Some((address, no.err()?)));
        if let Some((address, no)) = passing {
            if let AddressNo::Pool(pool, no) = &no {
                news.extend(self.waits_for(pool, Family::of(address), no));
            }
            return Err((Refusal::Address { address, no }, news));
        }
        let keeps = has.iter().filter(|address| self.ledger.pool_of(*address) == pool);
        let base = keeps.chain(wanted.iter()).collect();
        let Some(pool) = pool else { return Ok((base, Vec::new())) };
        self.fill(pool, base, wanted, Join::WhereFull).map_err(|(refusal, mut waits)| {
            waits.append(&mut news);
            (refusal, waits)
        })
    }

    /// Then: a pool asked for by name, whatever its `autoAssign`.
    fn by_pool(&self, pool: &PoolName, has: Addresses) -> Result<Found, Nothing> {
        if !has.is_empty() && self.all_of(has, pool) {
            return self.complete(has);
        }
        if !self.ledger.pools.exists(pool) {
            return Err(refuse(self.unknown(pool)));
        }
        let lies_there = |address: &IpAddr| self.ledger.pool_of(*address) == Some(pool);
        let stays: Addresses = has.iter().filter(lies_there).collect();
        let shown = |address: &IpAddr| !lies_there(address) && self.visible.contains(*address);
        // Both were of one pool when it got them: it was not the request that changed, but pools (rule B25).
        if let (false, Some(address)) = (stays.is_empty(), has.iter().find(shown)) {
            let lies_in = self.ledger.pool_of(address).cloned();
            let no = AddressNo::InOtherPool { asked: pool.clone(), lies_in };
            return Err(refuse(Refusal::Address { address, no }));
        }
        self.fill(pool, stays, Addresses::default(), Join::WhereFull)
    }

    /// Keeps what it has, and adds what is missing from the same pool.
    fn complete(&self, has: Addresses) -> Result<Found, Nothing> {
        let families = self.request.families;
        let first = families.wanted().find_map(|family| has.of(family));
        let Some(pool) = first.and_then(|address| self.ledger.pool_of(address)) else {
            return Ok((has, Vec::new()));
        };
        match self.fill(pool, has, has, Join::WhereFull) {
            // Both or nothing, and nobody has seen the one: look for a pool that has both.
            Err(_)
                if self.visible.is_empty()
                    && !has.iter().any(|address| self.leaving.contains(address))
                    && self.request.wanted.as_ref().is_ok_and(|it| it.pool.is_none()) =>
            {
                self.automatic()
            }
            other => other,
        }
    }

    /// Rule B2: takes over what the status shows, if it would be given on request.
    fn adopt(&self) -> Result<Found, Nothing> {
        self.by_address(self.strangers, None, Addresses::default()).map_err(|(refusal, waits)| {
            let address = match &refusal {
                Refusal::Address { address, .. } => Some(*address),
                _ => self.strangers.iter().next(),
            };
            match address {
                Some(address) => (Refusal::AdoptionRefused { address, no: Box::new(refusal) }, waits),
                None => (refusal, waits),
            }
        })
    }

    /// Else: any pool, and only if no pool gives a free address, one that others have and share. PreferDualStack
    /// takes both where a pool has both, else the primary one; a rank that gives the primary one goes before both of a
    /// later rank.
    fn automatic(&self) -> Result<Found, Nothing> {
        let (candidates, mut looked) = self.candidates();
        let mut primary_only: Option<(Rank, Found)> = None;
        let mut said = Vec::new();
        let again = self.request.key().map(|_| Join::WhereFull);
        for join in [Join::WherePreferred].into_iter().chain(again) {
            said.clear();
            for (rank, pool) in &candidates {
                if primary_only.as_ref().is_some_and(|(found_in, _)| found_in < rank) {
                    break;
                }
                match self.fill(pool, Addresses::default(), Addresses::default(), join) {
                    Ok((target, waits)) if waits.is_empty() => return Ok((target, waits)),
                    Ok(found) => primary_only = primary_only.or(Some((*rank, found))),
                    Err((Refusal::NoPoolGives { pools, .. }, _)) => said.extend(pools),
                    Err(nothing) => return Err(nothing),
                }
            }
        }
        looked.extend(said);
        if let Some((_, found)) = primary_only {
            return Ok(found);
        }
        let never = self.ledger.pools.names().filter(|name| self.ledger.pools.get(name).is_none());
        looked.extend(never.map(|name| (name.clone(), PoolNo::NeverValid)));
        if looked.is_empty() {
            return Err(refuse(Refusal::NoPools));
        }
        looked.sort_by_key(|(_, no)| no.distance());
        Err(self.no_pool_gives(looked))
    }

    /// Those to ask, and those that say no at once: with an address reserved for this Service first, then those whose
    /// `serviceAllocation` admits it by priority, then those without one; by name among equals.
    fn candidates(&self) -> (Candidates<'_>, Vec<(PoolName, PoolNo)>) {
        let mut order = Vec::new();
        let mut looked = Vec::new();
        for (name, pool) in self.ledger.pools.in_force() {
            let reserved = self.request.families.wanted().any(|family| self.reserved(pool, family).is_some());
            if let Err(no) = self.grants(pool) {
                looked.push((name.clone(), no));
            } else if !pool.spec.auto_assign && !reserved {
                looked.push((name.clone(), PoolNo::NotAutomatic));
            } else {
                let priority = pool.spec.allocation.as_ref().map(ServiceAllocation::order);
                let rank = match priority {
                    _ if reserved => Rank::Reserved,
                    Some(_) => Rank::Pinned,
                    None => Rank::General,
                };
                order.push((rank, priority.is_none(), priority, name));
            }
        }
        order.sort_unstable();
        (order.into_iter().map(|(rank, .., name)| (rank, name)).collect(), looked)
    }

    /// `base`, with the missing families added from `pool`; those of `fixed` are there by request or possession.
    fn fill(&self, pool: &PoolName, base: Addresses, fixed: Addresses, join: Join) -> Result<Found, Nothing> {
        let mut target = base;
        let mut missing = Vec::new();
        for family in self.request.families.wanted().filter(|family| base.of(*family).is_none()) {
            let again = self.leaving.of(family).filter(|it| self.ledger.pool_of(*it) == Some(pool));
            match again.map_or_else(|| self.offer(pool, family, join), Ok) {
                Ok(address) => target = target.with(address),
                Err(no) => missing.push((family, no)),
            }
        }
        let optional = self.request.families.policy == FamilyPolicy::PreferDualStack;
        let primary = target.of(self.request.families.primary).is_some();
        let enough = missing.is_empty() || (optional && (primary || !fixed.is_empty()));
        let waits = missing.iter().flat_map(|(family, no)| self.waits_for(pool, *family, no)).collect();
        match missing.into_iter().next() {
            Some((_, no)) if !enough => {
                let families = self.missing_from(target);
                Err((Refusal::NoPoolGives { families, pools: vec![(pool.clone(), no)] }, waits))
            }
            _ => Ok((target, waits)),
        }
    }
}

/// What is said of it.
impl Situation<'_> {
    fn all_of(&self, addresses: Addresses, pool: &PoolName) -> bool {
        !addresses.is_empty() && addresses.iter().all(|address| self.ledger.pool_of(address) == Some(pool))
    }

    /// What is wrong with an address that stays although it would not be given today.
    fn complaint(&self, target: Addresses) -> Option<Refusal> {
        target.iter().find_map(|address| {
            let Some(name) = self.ledger.pools.containing(address) else {
                if self.ledger.pools.in_force().any(|(_, pool)| pool.is_of_node(address)) {
                    return Some(Refusal::HasNodeAddress { address });
                }
                let pool = self.ledger.pool_of(address).cloned();
                return Some(Refusal::OutsidePools { address, pool });
            };
            let no = self.ledger.pools.get(name).and_then(|pool| self.grants(pool).err());
            if let Some(no) = no {
                return Some(Refusal::NoLongerGranted { address, pool: name.clone(), no });
            }
            let (with, no) = self.broken_sharing(address)?;
            Some(Refusal::SharingBroken { address, with, no })
        })
    }

    fn missing_from(&self, target: Addresses) -> Vec<Family> {
        self.request.families.wanted().filter(|family| target.of(*family).is_none()).collect()
    }

    fn unknown(&self, pool: &PoolName) -> Refusal {
        Refusal::UnknownPool { pool: pool.clone(), known: self.ledger.pools.names().cloned().collect() }
    }

    fn no_pool_gives(&self, pools: Vec<(PoolName, PoolNo)>) -> Nothing {
        let mut waits: Vec<Wait> = Vec::new();
        for (pool, no) in &pools {
            match no {
                PoolNo::Full(family)
                | PoolNo::NoneToShare { family, .. }
                | PoolNo::NamespaceLimit { family, .. } => waits.extend(self.waits_for(pool, *family, no)),
                _ => {}
            }
        }
        waits.extend(self.request.key().map(|key| Wait::Sharers(key.clone())));
        (Refusal::NoPoolGives { families: self.missing_from(Addresses::default()), pools }, waits)
    }
}

/// A refusal that only a change of the request or of a pool can mend; both have every Service looked at again.
fn refuse(refusal: Refusal) -> Nothing {
    (refusal, Vec::new())
}
