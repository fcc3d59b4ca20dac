//! What single addresses say to a Service that wants them by name or by sharing.

use std::net::IpAddr;

use super::Situation;
use crate::entry::{Entry, Phase};
use crate::sharing::{USERS, apart, conflict, other_key};
use crate::{
    AddressNo, Claim, Family, Owner, PoolName, PoolNo, ServiceRef, ServiceRequest, ShareNo, SharingScope,
};

impl Situation<'_> {
    /// Whether this Service can have this address now.
    pub(super) fn obtainable(&self, address: IpAddr, asked: Option<&PoolName>) -> Result<(), AddressNo> {
        let name = self.ledger.pools.containing(address).ok_or_else(|| self.outside(address, asked))?;
        if let Some(asked) = asked.filter(|asked| *asked != name) {
            return Err(AddressNo::InOtherPool { asked: asked.clone(), lies_in: Some(name.clone()) });
        }
        let refused = |no: PoolNo| AddressNo::Pool(name.clone(), no);
        if let Some(pool) = self.ledger.pools.get(name) {
            self.grants(pool).map_err(refused)?;
        }
        self.free_for_us(address)?;
        if let Some(pool) = self.ledger.pools.get(name)
            && let Some(limit) = self.over_limit(pool, address)
        {
            let namespace = self.request.owner.service.namespace.clone();
            return Err(refused(PoolNo::NamespaceLimit { family: Family::of(address), namespace, limit }));
        }
        Ok(())
    }

    /// Whether nothing but pools and limits speaks against giving it: it is free, reserved for this Service, or can
    /// be shared with those who have it.
    pub(super) fn free_for_us(&self, address: IpAddr) -> Result<(), AddressNo> {
        let Some(entry) = self.ledger.entry(address) else { return Ok(()) };
        let others = || entry.owners().cloned().collect();
        match entry.phase(&self.request.owner) {
            Some(Phase::Releasing(_)) => return Err(AddressNo::BeingReleased(others())),
            Some(_) => return Ok(()),
            None if entry.is_kept_for(self.request) => return Ok(()),
            None => {}
        }
        match (entry.claim(), &entry.record) {
            // Where somebody's finalizer holds it, that is said: it may take hours.
            _ if !entry.shares.is_empty() && entry.is_being_released() && !entry.ending => {
                Err(AddressNo::BeingReleased(others()))
            }
            (Some(claim), _) if !entry.is_claimed_for(self.request) && entry.shares.is_empty() => {
                Err(match claim {
                    Claim::Key { namespace, .. } if *namespace != self.request.owner.service.namespace => {
                        AddressNo::ReservedByKey(namespace.clone())
                    }
                    claim => AddressNo::Reserved(claim.clone()),
                })
            }
            (_, Some(record)) if record.terminating => Err(AddressNo::Terminating),
            _ if entry.shares.is_empty() => Err(AddressNo::HeldByNobody),
            _ => self.joinable(address, entry),
        }
    }

    /// Rule B4: whether this Service can share the address with all who have it.
    fn joinable(&self, address: IpAddr, entry: &Entry) -> Result<(), AddressNo> {
        let in_use = || AddressNo::InUse(entry.owners().cloned().collect());
        let claimed = entry.claim().is_none_or(|_| entry.is_claimed_for(self.request));
        let (Some(mine), Some(theirs), true) = (self.request.key(), &entry.key, claimed) else {
            return Err(in_use());
        };
        let first = entry.owners().next().ok_or_else(in_use)?;
        let scope = self.scope(address);
        let no = |with: &Owner, no| AddressNo::NotShareable { with: with.service.clone(), no };
        if mine != theirs {
            return Err(no(first, other_key(self.request, first, Some(theirs), scope)));
        }
        if entry.shares.len() >= USERS {
            return Err(no(first, ShareNo::Crowded));
        }
        for share in &entry.shares {
            // Nobody knows what a Service exposes that is gone, until its release is confirmed.
            let leaving = || AddressNo::BeingReleased(vec![share.owner.clone()]);
            let other = self.known(&share.owner).ok_or_else(leaving)?;
            // It may have changed its key since it came; what it has it keeps.
            if let Some(why) = apart(self.request, other, scope) {
                return Err(no(&share.owner, why));
            }
        }
        Ok(())
    }

    /// What is wrong with sharing an address that it has: it or another changed since they came together.
    pub(super) fn broken_sharing(&self, address: IpAddr) -> Option<(ServiceRef, ShareNo)> {
        let entry = self.ledger.entry(address).filter(|entry| entry.shares.len() > 1)?;
        let (owner, scope) = (&self.request.owner, self.scope(address));
        let others: Vec<&Owner> = entry.owners().filter(|other| *other != owner).collect();
        // Where nobody names a key any more, nobody could join anybody.
        let theirs = entry.key.as_ref();
        if let Some(first) = others.first()
            && (theirs.is_none() || self.request.key() != theirs)
        {
            return Some((first.service.clone(), other_key(self.request, first, theirs, scope)));
        }
        others.into_iter().find_map(|other| {
            let why = conflict(self.request, self.known(other)?, scope)?;
            Some((other.service.clone(), why))
        })
    }

    fn known(&self, owner: &Owner) -> Option<&ServiceRequest> {
        let service = self.services.get(&owner.service)?;
        Some(&*service.request).filter(|request| request.owner == *owner)
    }

    fn scope(&self, address: IpAddr) -> SharingScope {
        let pool = self.ledger.pools.containing(address).and_then(|name| self.ledger.pools.get(name));
        pool.map_or(SharingScope::Namespace, |pool| pool.spec.sharing_scope)
    }

    /// Why no pool gives this address out.
    fn outside(&self, address: IpAddr, asked: Option<&PoolName>) -> AddressNo {
        let mut pools = self.ledger.pools.in_force();
        let by = |no: fn(PoolName) -> AddressNo, name: &PoolName| no(name.clone());
        let reason = pools.find_map(|(name, pool)| match () {
            () if pool.is_of_node(address) => Some(by(AddressNo::OfNode, name)),
            () if pool.covers(address) => Some(by(AddressNo::Buggy, name)),
            () if pool.excludes(address) => Some(by(AddressNo::Excluded, name)),
            () => None,
        });
        match (reason, asked) {
            (Some(reason), _) => reason,
            (None, Some(asked)) => AddressNo::InOtherPool { asked: asked.clone(), lies_in: None },
            (None, None) => AddressNo::InNoPool { pools: self.ledger.pools.names().cloned().collect() },
        }
    }

    /// Whether an address that it has by request is of the pool that it may ask for as well.
    pub(super) fn still_in(&self, address: IpAddr, asked: Option<&PoolName>) -> Result<(), AddressNo> {
        let pool = self.ledger.pool_of(address);
        match asked {
            Some(asked) if pool != Some(asked) => {
                Err(AddressNo::InOtherPool { asked: asked.clone(), lies_in: pool.cloned() })
            }
            _ => Ok(()),
        }
    }
}

impl AddressNo {
    /// Whether this may change by what others do to the address, or in the namespace.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::InUse(_)
            | Self::NotShareable { .. }
            | Self::BeingReleased(_)
            | Self::Reserved(_)
            | Self::ReservedByKey(_)
            | Self::Terminating
            | Self::HeldByNobody
            | Self::Pool(_, PoolNo::NamespaceLimit { .. }) => true,
            Self::InNoPool { .. }
            | Self::InOtherPool { .. }
            | Self::Excluded(_)
            | Self::OfNode(_)
            | Self::Buggy(_)
            | Self::Pool(..) => false,
        }
    }
}
