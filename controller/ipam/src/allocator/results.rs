//! The results of writes.
//!
//! A result that answers nothing under way is ignored.

use std::net::IpAddr;
use std::sync::Arc;

use super::Allocator;
use crate::entry::{Entry, Phase};
use crate::{AddressRecord, Owner, PublishResult, Refusal, ReleaseResult, ReleaseWhen, TakeResult, Version};

impl Allocator {
    pub(super) fn take_done(&mut self, address: IpAddr, owner: &Owner, result: TakeResult) {
        let taking = |entry: &Entry| entry.writing && entry.phase(owner) == Some(Phase::Taking);
        if !self.ledger.entry(address).is_some_and(taking) {
            return;
        }
        match result {
            TakeResult::Taken(version) => self.taken(address, owner, version),
            TakeResult::Held(record) if record.services.contains(owner) => {
                let version = record.version;
                self.ledger.update(address, |entry| see(entry, record));
                self.taken(address, owner, version);
            }
            TakeResult::Held(record) => self.ledger.update(address, |entry| {
                entry.remove(owner);
                entry.writing = false;
                see(entry, record);
            }),
            TakeResult::Refused(error) => self.take_refused(address, owner, &error),
        }
        self.reconcile(address);
        if self.is_known(owner) {
            self.is_due(&owner.service);
        } else {
            self.give_back_all(owner);
        }
    }

    fn taken(&mut self, address: IpAddr, owner: &Owner, version: Version) {
        let sharing = self.ledger.terms(address);
        self.ledger.update(address, |entry| {
            entry.writing = false;
            entry.set(owner, Phase::Held);
            // What the watch told of a later moment counts more than what we wrote.
            if entry.known < version || entry.record.is_none() && !entry.unread {
                let claim = entry.claim().cloned();
                let before = entry.record.take().map(|record| record.services.clone()).unwrap_or_default();
                let others = before.into_iter().filter(|other| other != owner);
                let services = others.chain([owner.clone()]).collect();
                let pool = entry.pool.clone();
                entry.record = Some(Arc::new(AddressRecord {
                    address,
                    version,
                    pool,
                    services,
                    claim,
                    sharing: sharing.clone(),
                    terminating: false,
                }));
                entry.known = version;
            }
        });
    }

    fn take_refused(&mut self, address: IpAddr, owner: &Owner, error: &str) {
        let known = self.is_known(owner);
        // It had the address before (rule B17): that is not given up because of a refused write.
        let told = self.services.get(&owner.service).is_some_and(|service| service.was_told(address));
        let insists = known && told;
        self.ledger.update(address, |entry| {
            entry.writing = false;
            if known && !insists {
                entry.remove(owner);
            } else {
                entry.set(owner, Phase::Wanted);
            }
        });
        if insists {
            self.refused_addresses.insert(address, owner.clone());
        } else if let Some(service) = self.services.get_mut(&owner.service).filter(|_| known) {
            service.write_refused = Some(Box::new(Refusal::WriteRefused { address, error: error.into() }));
            self.refused_services.insert(owner.service.clone());
        }
    }

    pub(super) fn publish_done(&mut self, owner: &Owner, result: &PublishResult) {
        if !self.is_known(owner) {
            self.orphaned.remove(owner);
            return;
        }
        let Some(service) = self.services.get_mut(&owner.service) else { return };
        match result {
            PublishResult::Published(version) => service.published(*version),
            PublishResult::Stale | PublishResult::Gone => service.not_published(),
            PublishResult::Refused(_) => {
                service.not_published();
                self.refused_services.insert(owner.service.clone());
            }
        }
        self.is_due(&owner.service);
    }

    pub(super) fn release_done(&mut self, address: IpAddr, result: ReleaseResult) {
        let Some(entry) = self.ledger.entry(address).filter(|entry| entry.writing) else { return };
        let releasing = entry.shares.iter().find_map(|share| match share.phase {
            Phase::Releasing(when) => Some((share.owner.clone(), when)),
            _ => None,
        });
        let Some((owner, when)) = releasing else { return };
        match result {
            ReleaseResult::Released(version) => self.released(address, &owner, version),
            ReleaseResult::StillInUse => self.declined(address, &owner, when),
            ReleaseResult::Changed(record) => self.ledger.update(address, |entry| {
                entry.writing = false;
                if record.terminating && record.services.contains(&owner) {
                    entry.set(&owner, Phase::Doomed(when));
                    // Where somebody wrote others into it, they are taken off it first, one by one.
                    entry.ending = record.services.iter().all(|listed| *listed == owner);
                } else {
                    entry.remove(&owner);
                }
                see(entry, record);
            }),
            ReleaseResult::Refused(_) => {
                self.refused_addresses.insert(address, owner.clone());
                let unread = self.ledger.update(address, |entry| {
                    entry.writing = false;
                    entry.set(&owner, Phase::Doomed(when));
                    entry.unread
                });
                if !unread {
                    self.news_of(address);
                    return;
                }
            }
        }
        self.reconcile(address);
        self.is_due(&owner.service);
    }

    fn released(&mut self, address: IpAddr, owner: &Owner, version: Version) {
        let known = self.ledger.update(address, |entry| {
            entry.writing = false;
            entry.remove(owner);
            let reserved = entry.leaves_to.take();
            if entry.unread && entry.known > version {
                return None;
            }
            entry.known = entry.known.max(version);
            match (&mut entry.record, reserved) {
                (Some(record), Some(claim)) => {
                    let record = Arc::make_mut(record);
                    record.services.clear();
                    record.claim = Some(claim);
                }
                (Some(record), None) if record.services.iter().any(|it| it != owner) => {
                    Arc::make_mut(record).services.retain(|it| it != owner);
                }
                (record, _) => *record = None,
            }
            Some(entry.known)
        });
        if let (Some(known), None) = (known, self.ledger.entry(address)) {
            self.ledger.remember_release(address, known);
        }
    }

    fn declined(&mut self, address: IpAddr, owner: &Owner, when: ReleaseWhen) {
        let known = self.is_known(owner);
        let standing = self.standing(address, owner);
        self.ledger.update(address, |entry| {
            entry.writing = false;
            let phase = match when {
                ReleaseWhen::ServiceGone if known => standing,
                ReleaseWhen::NotShown if known => Phase::Declined(entry.asked),
                ReleaseWhen::ServiceGone if !entry.recheck => Phase::Declined(entry.asked),
                _ => Phase::Doomed(ReleaseWhen::ServiceGone),
            };
            entry.set(owner, phase);
        });
    }

    /// Tries again what was refused for good.
    pub(super) fn retry(&mut self) {
        for service in std::mem::take(&mut self.refused_services) {
            if let Some(known) = self.services.get_mut(&service) {
                known.retry();
            }
            self.is_due(&service);
        }
        for address in std::mem::take(&mut self.refused_addresses).into_keys() {
            self.next_write(address);
        }
    }
}

/// Notes what a live read showed, unless the watch has told something newer.
pub(super) fn see(entry: &mut Entry, record: Arc<AddressRecord>) {
    if record.version >= entry.known {
        entry.known = record.version;
        // Users that somebody adds meanwhile are taken off it first, so that only one is left to wait for.
        let first = record.services.first();
        entry.ending &= record.terminating && record.services.iter().all(|user| Some(user) == first);
        entry.key = record.sharing.as_ref().map(|terms| terms.key.clone());
        entry.pool = record.pool.clone().or(entry.pool.take());
        entry.record = Some(record);
    }
}
