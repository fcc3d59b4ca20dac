//! Taking addresses and giving them back: which write is next for an address, and for whom.
//!
//! One write at a time per address: whoever else wants to join or leave waits for its result. Joining comes before
//! leaving: the last to leave would delete what the other is about to join (rule B5).

use std::net::IpAddr;

use super::Allocator;
use crate::entry::Phase;
use crate::sharing::apart;
use crate::{
    Claim, Output, Owner, ReclaimPolicy, Release, ReleaseThen, ReleaseWhen, SharingScope, Take, TakeHow,
    Version,
};

impl Allocator {
    /// An owner is to have an address that it has no part in yet.
    pub(super) fn want(&mut self, address: IpAddr, owner: &Owner) {
        self.ledger.update(address, |entry| entry.set(owner, Phase::Wanted));
        self.next_write(address);
        self.rekey(address);
    }

    /// An owner keeps, after all, what it was to give back.
    pub(super) fn retain(&mut self, address: IpAddr, owner: &Owner) {
        let standing = self.standing(address, owner);
        self.ledger.update(address, |entry| {
            let phase = if entry.lists(owner) { standing } else { Phase::Wanted };
            entry.set(owner, phase);
        });
        self.next_write(address);
    }

    fn take(&mut self, address: IpAddr, owner: &Owner) {
        let Some(pool) = self.ledger.pool_of(address).cloned() else { return };
        let key = self.services.get(&owner.service).and_then(|service| service.request.key()).cloned();
        let how = self.ledger.update(address, |entry| {
            entry.set(owner, Phase::Taking);
            entry.writing = true;
            entry.pool = Some(pool.clone());
            entry.key = key;
            match &entry.record {
                None => TakeHow::Create,
                Some(record) if record.services.is_empty() => TakeHow::Claim,
                Some(_) => {
                    TakeHow::Join { beside: entry.owners().filter(|it| *it != owner).cloned().collect() }
                }
            }
        });
        let sharing = self.ledger.terms(address);
        self.outputs.push_back(Output::Take(Take { address, pool, owner: owner.clone(), how, sharing }));
    }

    /// Gives back what a Service is not to have any more, once its status does not show it.
    pub(super) fn let_go(&mut self, address: IpAddr, owner: &Owner) {
        let shown = self.services.get(&owner.service).is_some_and(|service| service.may_show(address));
        let Some(entry) = self.ledger.entry(address) else { return };
        if shown {
            return;
        }
        match entry.phase(owner) {
            // Nothing was written: there is nothing to give back.
            Some(Phase::Wanted) => {
                self.forget_refused(address, owner);
                self.ledger.update(address, |entry| entry.remove(owner));
                self.rekey(address);
                // Others may have waited behind it: to give the address back, or to get it.
                self.next_write(address);
                self.news_of(address);
            }
            Some(Phase::Held) => self.doom(address, owner, ReleaseWhen::NotShown),
            // It showed the address by another leader's word, and may have been made to show something else since.
            Some(Phase::Declined(asked)) if asked < self.version_of(owner) => {
                self.doom(address, owner, ReleaseWhen::NotShown);
            }
            _ => {}
        }
    }

    /// What was refused of this owner's part needs no repetition any more; what was refused of another's does.
    pub(super) fn forget_refused(&mut self, address: IpAddr, owner: &Owner) {
        if self.refused_addresses.get(&address) == Some(owner) {
            self.refused_addresses.remove(&address);
        }
    }

    /// The newest version of a Service that is known.
    fn version_of(&self, owner: &Owner) -> Version {
        let service = self.services.get(&owner.service).filter(|it| it.request.owner == *owner);
        service.map(|service| service.version()).unwrap_or_default()
    }

    /// Gives back all addresses of an owner that is gone, or that nobody knows.
    pub(super) fn give_back_all(&mut self, owner: &Owner) {
        let addresses: Vec<_> = self.ledger.owned(owner).collect();
        for address in addresses {
            let Some(entry) = self.ledger.entry(address) else { continue };
            match entry.phase(owner) {
                // The result of what is under way decides.
                Some(Phase::Taking) | None => {}
                Some(Phase::Releasing(_)) => self.ledger.update(address, |entry| entry.recheck = true),
                Some(_) => self.doom(address, owner, ReleaseWhen::ServiceGone),
            }
        }
    }

    fn doom(&mut self, address: IpAddr, owner: &Owner, when: ReleaseWhen) {
        self.ledger.update(address, |entry| {
            entry.set(owner, Phase::Doomed(when));
            // Also of what is deleted already: its Service is to show it no longer.
            entry.ending = false;
        });
        self.next_write(address);
    }

    /// Says the next release of an address, unless a write is under way.
    pub(super) fn next_write(&mut self, address: IpAddr) {
        let Some(entry) = self.ledger.entry(address).filter(|entry| !entry.writing) else { return };
        // What was refused waits for `Retry`.
        if self.refused_addresses.contains_key(&address) {
            return;
        }
        if let Some(share) = entry.shares.iter().find(|share| share.phase == Phase::Wanted) {
            let owner = share.owner.clone();
            self.take(address, &owner);
            return;
        }
        let doomed = entry.shares.iter().find_map(|share| match share.phase {
            Phase::Doomed(when) if !entry.ending => Some((share.owner.clone(), when)),
            _ => None,
        });
        let Some((owner, when)) = doomed else { return };
        let others = entry.owners().any(|other| *other != owner);
        let leaves_to = match (entry.claim(), when) {
            _ if others => None,
            (Some(claim), _) => Some(claim.clone()),
            (None, ReleaseWhen::ServiceGone) if self.is_retained(address) => {
                Some(Claim::after(&owner.service, entry.key.as_ref()))
            }
            _ => None,
        };
        let then = match &leaves_to {
            Some(claim) => ReleaseThen::Reserve(claim.clone()),
            None if others => ReleaseThen::Leave,
            None => ReleaseThen::Delete,
        };
        let asked = self.version_of(&owner);
        self.ledger.update(address, |entry| {
            entry.set(&owner, Phase::Releasing(when));
            entry.writing = true;
            entry.asked = asked;
            entry.recheck = false;
            entry.leaves_to = leaves_to;
        });
        self.outputs.push_back(Output::Release(Release { address, owner, when, then }));
    }

    /// The key under which others may join is the one that all users name; while they differ, the one under which
    /// they came together.
    pub(super) fn rekey(&mut self, address: IpAddr) {
        let Some(entry) = self.ledger.entry(address) else { return };
        let keys: Option<Vec<_>> = entry
            .owners()
            .map(|owner| {
                let service = self.services.get(&owner.service).filter(|it| it.request.owner == *owner)?;
                Some(service.request.key())
            })
            .collect();
        let Some(keys) = keys else { return };
        let Some(first) = keys.first() else { return };
        if keys.iter().all(|key| key == first) && entry.key.as_ref() != *first {
            let key = first.cloned();
            self.ledger.update(address, |entry| entry.key = key);
        }
    }

    /// Whether an owner that a LoadBalancerIP does not list can stand there beside those whom it lists.
    pub(super) fn fits_beside(&self, address: IpAddr, owner: &Owner, listed: &[Owner]) -> bool {
        let Some(service) = self.services.get(&owner.service) else { return listed.is_empty() };
        let pool = self.ledger.pools.containing(address).and_then(|name| self.ledger.pools.get(name));
        let scope = pool.map_or(SharingScope::Namespace, |pool| pool.spec.sharing_scope);
        listed.iter().all(|other| {
            let other = self.services.get(&other.service).filter(|it| it.request.owner == *other);
            other.is_some_and(|other| apart(&service.request, &other.request, scope).is_none())
        })
    }

    /// A Service came back before the release of its addresses was sent, or is there after all (rule B13).
    pub(super) fn keep_for(&mut self, owner: &Owner) {
        let addresses: Vec<_> = self.ledger.owned(owner).collect();
        for address in addresses {
            match self.ledger.phase(address, owner) {
                Some(Phase::Doomed(_) | Phase::Declined(_)) => self.retain(address, owner),
                Some(Phase::Releasing(ReleaseWhen::ServiceGone)) => {
                    let unsent = self.outputs.iter().position(
                        |output| matches!(output, Output::Release(release) if release.address == address),
                    );
                    let Some(position) = unsent else { continue };
                    self.outputs.remove(position);
                    let standing = self.standing(address, owner);
                    self.ledger.update(address, |entry| {
                        entry.set(owner, standing);
                        entry.writing = false;
                    });
                    self.reconcile(address);
                }
                _ => {}
            }
        }
    }

    /// Whether an address of this Service is being given back and may yet stay with it: because the Service is
    /// there again, or because the address will be reserved for its name.
    pub(super) fn is_coming_back(&self, owner: &Owner) -> bool {
        self.ledger.owners_named(&owner.service).iter().any(|former| {
            self.ledger.owned(former).any(|address| {
                let phase = self.ledger.phase(address, former);
                let leaving = matches!(
                    phase,
                    Some(
                        Phase::Releasing(ReleaseWhen::ServiceGone) | Phase::Doomed(ReleaseWhen::ServiceGone)
                    )
                );
                let Some(entry) = self.ledger.entry(address) else { return false };
                let key = self.services.get(&owner.service).and_then(|service| service.request.key());
                let after = || Claim::after(&former.service, entry.key.as_ref());
                let claim = entry.claim().cloned().or_else(|| self.is_retained(address).then(after));
                let alone = entry.shares.len() == 1;
                let reserved = alone && claim.is_some_and(|claim| claim.admits(&owner.service, key));
                leaving && (former == owner || reserved)
            })
        })
    }

    fn is_retained(&self, address: IpAddr) -> bool {
        let pool = self.ledger.pools.containing(address).and_then(|name| self.ledger.pools.get(name));
        pool.is_some_and(|pool| pool.spec.reclaim == ReclaimPolicy::Retain)
    }
}
