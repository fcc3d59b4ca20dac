//! What LoadBalancerIPs say: adoption, and everything done to them by others.
//!
//! The object is the lock (rule B1): whoever it lists has the address, and who is not listed does not. A write of
//! ours that is under way is waited for first; a live Service whose object is gone or emptied gets it again
//! (rule B17).

use std::net::IpAddr;

use super::Allocator;
use crate::entry::{Phase, Share};
use crate::waiting::Wait;
use crate::{AddressRecord, Owner, ReleaseWhen, Version};

impl Allocator {
    pub(super) fn address_applied(&mut self, record: AddressRecord) {
        let address = record.address;
        if self.ledger.is_history(address, record.version) {
            return;
        }
        self.ledger.caught_up(address, record.version);
        self.ledger.update(address, |entry| {
            entry.known = record.version;
            entry.pool = record.pool.clone().or(entry.pool.take());
            entry.unread = entry.writing;
            entry.record = Some(record);
        });
        if self.is_open() {
            self.reconcile(address);
        }
    }

    pub(super) fn address_deleted(&mut self, address: IpAddr, version: Version) {
        let version = if version == Version::default() { Version(u64::MAX) } else { version };
        self.ledger.caught_up(address, version);
        if self.ledger.is_history(address, version) {
            return;
        }
        self.ledger.update(address, |entry| {
            if version < Version(u64::MAX) {
                entry.known = version;
            }
            entry.unread = entry.writing;
            entry.record = None;
        });
        if self.is_open() {
            self.reconcile(address);
        }
    }

    /// Makes the shares of an address agree with its LoadBalancerIP, unless a write is under way.
    pub(super) fn reconcile(&mut self, address: IpAddr) {
        let Some(entry) = self.ledger.entry(address).filter(|entry| !entry.writing) else { return };
        let record = entry.record.clone();
        let shares = entry.shares.clone();
        self.ledger.update(address, |entry| entry.unread = false);
        let listed = record.as_ref().map(|record| record.services.as_slice()).unwrap_or_default();
        for owner in listed {
            self.listed(address, owner);
        }
        for share in shares.iter().filter(|share| !listed.contains(&share.owner)) {
            self.unlisted(address, share, record.as_ref());
        }
        self.next_write(address);
        self.news_of(address);
    }

    fn listed(&mut self, address: IpAddr, owner: &Owner) {
        let phase = match self.ledger.phase(address, owner) {
            None | Some(Phase::Taking) if self.is_known(owner) => Phase::Held,
            None | Some(Phase::Taking) => Phase::Doomed(ReleaseWhen::ServiceGone),
            Some(_) => return,
        };
        self.refused_addresses.remove(&address);
        self.ledger.update(address, |entry| entry.set(owner, phase));
        self.is_due(&owner.service);
    }

    fn unlisted(&mut self, address: IpAddr, share: &Share, record: Option<&AddressRecord>) {
        let owner = &share.owner;
        // What its status shows stays recorded until the status shows something else.
        let wants = self.services.get(&owner.service).is_some_and(|service| {
            let counts = service.target.contains(address) || service.may_show(address);
            service.request.owner == *owner && counts
        });
        let vacant = record.is_none_or(|record| {
            let reserved = record.claim.as_ref().is_some_and(|claim| *claim != owner.service);
            record.services.is_empty() && !record.terminating && !reserved
        });
        let first = self.ledger.entry(address).is_some_and(|entry| !entry.writing);
        if wants && vacant && first && matches!(share.phase, Phase::Held | Phase::Taking) {
            self.take(address, owner);
            return;
        }
        self.refused_addresses.remove(&address);
        self.ledger.update(address, |entry| entry.remove(owner));
        self.is_due(&owner.service);
    }

    /// Those who want an address that is not free look again: it may be theirs now, or the reason is another.
    pub(super) fn news_of(&mut self, address: IpAddr) {
        let Some(entry) = self.ledger.entry(address) else { return };
        if let Some(service) = entry.claim().filter(|_| entry.shares.is_empty()).cloned() {
            self.is_due(&service);
        }
        let mut last = None;
        while let Some(rank) = self.waiting.next(&Wait::Address(address), last.as_ref()).cloned() {
            self.due.insert(rank.clone());
            last = Some(rank);
        }
    }
}
