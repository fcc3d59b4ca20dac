//! What is known of one address.
//!
//! Rule B13's states, per owner: FREE is no entry at all; [`Phase::Wanted`] and [`Phase::Taking`] are TAKEN with a
//! write pending; [`Phase::Held`] is TAKEN; [`Phase::Releasing`] is RELEASING. The owners are a list because an address can be
//! shared; an address is free again only when nobody is left and no LoadBalancerIP exists.

use std::sync::Arc;

use crate::{AddressRecord, Claim, Owner, PoolName, ReleaseWhen, ServiceRequest, SharingKey, Version};

/// One address that is not free.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about an address")]
pub(crate) struct Entry {
    /// Who has it, or is about to, or is giving it back.
    pub(crate) shares: Vec<Share>,
    /// Whether a write is under way: there is never a second one.
    pub(crate) writing: bool,
    /// Its LoadBalancerIP as last known; `None` when there is none.
    pub(crate) record: Option<Arc<AddressRecord>>,
    /// How new that knowledge is: the version of the record, or of its deletion.
    pub(crate) known: Version,
    /// The watch told something while a write was under way; it is looked at when the result is there.
    pub(crate) unread: bool,
    /// The owner of a release under way was told to be gone since: "still in use" may be history.
    pub(crate) recheck: bool,
    /// The version of the owner that was known when the release under way began.
    pub(crate) asked: Version,
    /// A release found that its LoadBalancerIP is deleted and waits for somebody's finalizer: another release would
    /// change nothing before the watch tells that it is gone.
    pub(crate) ending: bool,
    /// For whom the release under way reserves the address.
    pub(crate) leaves_to: Option<Claim>,
    /// Under which key others may join: that of its only user, or the one under which several share it.
    pub(crate) key: Option<SharingKey>,
    /// The pool it was taken from.
    pub(crate) pool: Option<PoolName>,
}

/// One owner's part in an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) owner: Owner,
    pub(crate) phase: Phase,
}

/// How far taking or giving back has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// To be taken as soon as no other write is under way; where the write was refused, when it is tried again.
    Wanted,
    /// The write that takes it is under way.
    Taking,
    /// The LoadBalancerIP lists the owner.
    Held,
    /// To be given back as soon as no other write is under way.
    Doomed(ReleaseWhen),
    /// The write that gives it back is under way.
    Releasing(ReleaseWhen),
    /// The API server showed that the owner still uses it: not asked again before the owner is known at a newer version
    /// than this, at which it was known when that was asked.
    Declined(Version),
}

impl Entry {
    /// Nobody has it and no object exists: the address is free.
    pub(crate) fn is_free(&self) -> bool {
        self.shares.is_empty() && self.record.is_none() && !self.writing
    }

    /// An owner's part.
    pub(crate) fn phase(&self, owner: &Owner) -> Option<Phase> {
        self.shares.iter().find(|share| share.owner == *owner).map(|share| share.phase)
    }

    /// Sets an owner's part, which may be new.
    pub(crate) fn set(&mut self, owner: &Owner, phase: Phase) {
        if let Some(share) = self.shares.iter_mut().find(|share| share.owner == *owner) {
            share.phase = phase;
        } else {
            // Most addresses have one owner, and there are many.
            self.shares.reserve_exact(1);
            self.shares.push(Share { owner: owner.clone(), phase });
        }
    }

    /// Removes an owner's part.
    pub(crate) fn remove(&mut self, owner: &Owner) {
        self.shares.retain(|share| share.owner != *owner);
    }

    /// For whom the address is reserved.
    pub(crate) fn claim(&self) -> Option<&Claim> {
        self.record.as_ref()?.claim.as_ref()
    }

    /// Whether it is reserved for this Service.
    pub(crate) fn is_claimed_for(&self, request: &ServiceRequest) -> bool {
        self.claim().is_some_and(|claim| claim.admits(&request.owner.service, request.key()))
    }

    /// Whether nobody has it and it is reserved for this Service, ready to be taken by it.
    pub(crate) fn is_kept_for(&self, request: &ServiceRequest) -> bool {
        let ready = self.record.as_ref().is_some_and(|record| !record.terminating);
        ready && self.shares.is_empty() && !self.writing && self.is_claimed_for(request)
    }

    /// Whether its LoadBalancerIP lists the owner, as far as is known.
    pub(crate) fn lists(&self, owner: &Owner) -> bool {
        self.record.as_ref().is_some_and(|record| record.services.contains(owner))
    }

    /// All owners.
    pub(crate) fn owners(&self) -> impl Iterator<Item = &Owner> {
        self.shares.iter().map(|share| &share.owner)
    }

    /// Whether every owner is on its way out.
    pub(crate) fn is_being_released(&self) -> bool {
        self.shares.iter().all(|share| matches!(share.phase, Phase::Doomed(_) | Phase::Releasing(_)))
    }
}
