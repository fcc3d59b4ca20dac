//! What pools offer to a Service: restrictions, reservations, limits, free addresses, and addresses to share.

use std::net::IpAddr;

use super::Situation;
use crate::pool::Pool;
use crate::waiting::Wait;
use crate::{AddressNo, Family, PoolName, PoolNo, SharingPreference};

/// Whether a pool may offer the address of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Join {
    /// If it has `sharing: Prefer`.
    WherePreferred,
    /// If it has no free one as well.
    WhereFull,
}

impl Situation<'_> {
    /// The next address of a family that a pool gives this Service: the one its status shows already, else one
    /// reserved for it, else the lowest free, else one to share; the last two the other way round where the pool
    /// prefers that.
    pub(super) fn offer(&self, name: &PoolName, family: Family, join: Join) -> Result<IpAddr, PoolNo> {
        let pools = &self.ledger.pools;
        let none = if pools.exists(name) { PoolNo::NeverValid } else { PoolNo::Deleted };
        let pool = pools.get(name).ok_or(none)?;
        self.grants(pool)?;
        if pool.space(family).is_empty() {
            return Err(PoolNo::NoRange(family));
        }
        let shown = self.strangers.of(family);
        let may_have = |address: &IpAddr| {
            pool.contains(*address)
                && self.free_for_us(*address).is_ok()
                && self.over_limit(pool, *address).is_none()
        };
        let shown = shown.filter(may_have);
        if let Some(address) = shown.or_else(|| self.reserved(pool, family)) {
            return Ok(address);
        }
        let prefers = pool.spec.sharing == SharingPreference::Prefer;
        let shared = self.shareable(pool, family);
        if let (true, Ok(address)) = (prefers, &shared) {
            return Ok(*address);
        }
        let lowest = pool.space(family).lowest();
        let limit = lowest.and_then(|address| self.over_limit(pool, address));
        match (lowest, limit, shared) {
            (Some(address), None, _) => Ok(address),
            (_, _, Ok(address)) if join == Join::WhereFull => Ok(address),
            (_, Some(limit), _) => {
                let namespace = self.request.owner.service.namespace.clone();
                Err(PoolNo::NamespaceLimit { family, namespace, limit })
            }
            (None, None, Err(Some((address, no)))) => {
                Err(PoolNo::NoneToShare { family, address, no: Box::new(no) })
            }
            (None, None, _) => Err(PoolNo::Full(family)),
        }
    }

    /// Whether the pool's restrictions admit this Service.
    pub(super) fn grants(&self, pool: &Pool) -> Result<(), PoolNo> {
        let Some(allocation) = &pool.spec.allocation else { return Ok(()) };
        let namespace = &*self.request.owner.service.namespace;
        allocation.admits(namespace, self.namespaces.get(namespace), &self.request.labels)
    }

    /// An address of the pool that is reserved for this Service, ready to be taken or shared.
    pub(super) fn reserved(&self, pool: &Pool, family: Family) -> Option<IpAddr> {
        self.ledger.reserved_for(self.request).find(|&address| {
            Family::of(address) == family && pool.contains(address) && self.free_for_us(address).is_ok()
        })
    }

    /// The limit of the pool that the namespace would be over with this address.
    pub(super) fn over_limit(&self, pool: &Pool, address: IpAddr) -> Option<u32> {
        let limit = pool.spec.limit_per_namespace?;
        let namespace = &self.request.owner.service.namespace;
        let charged = self.ledger.charged(&pool.spec.name, Family::of(address), namespace);
        // Who moves inside the pool leaves one.
        let left = self.has.of(Family::of(address)).filter(|left| *left != address && pool.contains(*left));
        let left = left.and_then(|left| self.ledger.entry(left));
        let leaves = left.is_some_and(|left| left.shares.len() == 1 && left.claim().is_none());
        let charged = charged.saturating_sub(u32::from(leaves));
        (charged >= limit && !self.ledger.is_charged(address, namespace)).then_some(limit)
    }

    /// The lowest address of the pool that this Service can share; else the first that it can't, and why not.
    fn shareable(&self, pool: &Pool, family: Family) -> Result<IpAddr, Option<(IpAddr, AddressNo)>> {
        let mut why_not = None;
        let of_pool = |address: &IpAddr| Family::of(*address) == family && pool.contains(*address);
        let keys = self.request.key().into_iter();
        for address in keys.flat_map(|key| self.ledger.shared_under(key)).filter(of_pool) {
            match self.free_for_us(address) {
                Ok(()) if self.over_limit(pool, address).is_none() => return Ok(address),
                Ok(()) => {}
                Err(no) => why_not = why_not.or(Some((address, no))),
            }
        }
        Err(why_not)
    }

    /// What could make a pool say something else.
    pub(super) fn waits_for(&self, pool: &PoolName, family: Family, no: &PoolNo) -> Vec<Wait> {
        let mut waits = match no {
            PoolNo::NamespaceLimit { namespace, .. } => {
                vec![Wait::Limit(pool.clone(), family, namespace.clone())]
            }
            _ => vec![Wait::Pool(pool.clone(), family)],
        };
        waits.extend(self.request.key().map(|key| Wait::Sharers(key.clone())));
        waits
    }
}
