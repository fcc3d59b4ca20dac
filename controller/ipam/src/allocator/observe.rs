//! What LoadBalancerIPs say: adoption, and everything done to them by others.
//!
//! The object is the lock (rule B1): whoever it lists has the address, and who is not listed does not. A write of
//! ours that is under way is waited for first; a live Service whose object is gone or emptied gets it again
//! (rule B17).

use std::net::IpAddr;
use std::sync::Arc;

use super::Allocator;
use super::results::see;
use crate::entry::{Phase, Share};
use crate::waiting::Wait;
use crate::{AddressRecord, Claim, Owner, ReleaseWhen, Version};

impl Allocator {
    pub(super) fn address_applied(&mut self, record: Arc<AddressRecord>) {
        let address = record.address;
        if self.ledger.is_history(address, record.version) {
            return;
        }
        self.ledger.caught_up(address, record.version);
        self.ledger.update(address, |entry| {
            entry.unread = entry.writing;
            see(entry, record);
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
            entry.ending = false;
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
        for (place, owner) in listed.iter().enumerate() {
            self.listed(address, owner, listed, place);
        }
        for share in shares.iter().filter(|share| !listed.contains(&share.owner)) {
            // Whom it shows the address with already, it can stand beside.
            let shown = self.services.get(&share.owner.service).is_some_and(|it| it.may_show(address));
            let new = |other: &&Owner| !shown || shares.iter().all(|share| share.owner != **other);
            let strangers: Vec<Owner> = listed.iter().filter(new).cloned().collect();
            self.unlisted(address, share, record.as_deref(), &strangers);
        }
        self.rekey(address);
        self.next_write(address);
        self.news_of(address);
    }

    fn listed(&mut self, address: IpAddr, owner: &Owner, all: &[Owner], place: usize) {
        let phase = match self.ledger.phase(address, owner) {
            // Somebody wrote it there who must not: it can't share with the others (rule B16).
            None if self.is_known(owner) && !self.belongs_there(address, owner, all, place) => {
                Phase::Doomed(ReleaseWhen::NotShown)
            }
            None | Some(Phase::Wanted) if self.is_known(owner) => Phase::Held,
            None | Some(Phase::Wanted) => Phase::Doomed(ReleaseWhen::ServiceGone),
            Some(_) => return,
        };
        self.forget_refused(address, owner);
        self.ledger.update(address, |entry| entry.set(owner, phase));
        self.is_due(&owner.service);
    }

    /// What a known owner whom the record lists has in the address: it, unless it stands beside others with whom it can't
    /// share (rule B16).
    pub(super) fn standing(&self, address: IpAddr, owner: &Owner) -> Phase {
        let record = self.ledger.entry(address).and_then(|entry| entry.record.as_ref());
        let listed = record.map(|record| record.services.as_slice()).unwrap_or_default();
        let place = listed.iter().position(|listed| listed == owner);
        match place {
            Some(place) if !self.belongs_there(address, owner, listed, place) => {
                Phase::Doomed(ReleaseWhen::NotShown)
            }
            _ => Phase::Held,
        }
    }

    /// Whether an owner shows the address already, or can share it with those listed before it and those who do.
    fn belongs_there(&self, address: IpAddr, owner: &Owner, all: &[Owner], place: usize) -> bool {
        let shows = |owner: &Owner| {
            let service = self.services.get(&owner.service).filter(|it| it.request.owner == *owner);
            service.is_some_and(|service| service.may_show(address) || service.target.contains(address))
        };
        let counts = |(at, other): &(usize, &Owner)| {
            *other != owner && self.is_known(other) && (*at < place || shows(other))
        };
        let others: Vec<Owner> =
            all.iter().enumerate().filter(counts).map(|(_, other)| other.clone()).collect();
        others.is_empty() || shows(owner) || self.fits_beside(address, owner, &others)
    }

    fn unlisted(
        &mut self,
        address: IpAddr,
        share: &Share,
        record: Option<&AddressRecord>,
        strangers: &[Owner],
    ) {
        let owner = &share.owner;
        // What its status shows stays recorded until the status shows something else.
        let wants = self.services.get(&owner.service).is_some_and(|service| {
            let counts = service.target.contains(address) || service.may_show(address);
            service.request.owner == *owner && counts
        });
        let key = self.services.get(&owner.service).and_then(|service| service.request.key());
        let open = record.is_none_or(|record| {
            let reserved = record.claim.as_ref().is_some_and(|claim| !claim.admits(&owner.service, key));
            !record.terminating && !reserved && self.fits_beside(address, owner, strangers)
        });
        if wants && open && matches!(share.phase, Phase::Held | Phase::Wanted) {
            self.ledger.update(address, |entry| entry.set(owner, Phase::Wanted));
            return;
        }
        self.forget_refused(address, owner);
        self.ledger.update(address, |entry| entry.remove(owner));
        self.is_due(&owner.service);
    }

    /// Those who want an address that is not free look again: it may be theirs now, or the reason is another.
    pub(super) fn news_of(&mut self, address: IpAddr) {
        let Some(entry) = self.ledger.entry(address) else { return };
        let claim = entry.claim().filter(|_| entry.shares.is_empty()).cloned();
        let key = entry.key.clone();
        // Those who share are told what is wrong with the others; who is left alone, that nothing is any more.
        let owners: Vec<_> = entry.owners().cloned().collect();
        for owner in owners {
            self.is_due(&owner.service);
        }
        match claim {
            Some(Claim::Service(service)) => self.is_due(&service),
            Some(Claim::Key { key, .. }) => self.all_due_for(&Wait::Sharers(key)),
            None => {}
        }
        self.all_due_for(&Wait::Address(address));
        if let Some(key) = key {
            self.all_due_for(&Wait::Sharers(key));
        }
    }

    /// All who wait for this look again.
    fn all_due_for(&mut self, wait: &Wait) {
        let mut last = None;
        while let Some(rank) = self.waiting.next(wait, last.as_ref()).cloned() {
            self.due.insert(rank.clone());
            last = Some(rank);
        }
    }
}
