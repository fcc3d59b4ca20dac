//! What goes into the allocator and what comes out, as data.
//!
//! Everything the controller's watches and writers learn is an [`Input`]; everything that is to be written is an
//! [`Output`]. At most one write is under way per address and per Service: the allocator waits for its result
//! before it says the next, so a writer may run all outputs in parallel and needs no queue per object.

use std::net::IpAddr;
use std::sync::Arc;

use crate::{
    Addresses, Claim, Family, Labels, Owner, PoolName, PoolProblem, PoolSpec, Refusal, ServiceRef,
    ServiceRequest, Terms, Version,
};

/// Something the allocator must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// An IPAddressPool was created or changed.
    PoolApplied(PoolSpec),
    /// An IPAddressPool is gone.
    PoolDeleted(PoolName),
    /// A namespace was created or its labels changed.
    NamespaceApplied {
        /// Its name.
        name: String,
        /// Its labels.
        labels: Labels,
    },
    /// A namespace is gone.
    NamespaceDeleted {
        /// Its name.
        name: String,
    },
    /// A Service of type LoadBalancer and of our class was created or changed.
    ServiceApplied(Arc<ServiceRequest>),
    /// It is gone, or of another type (rule B9).
    ServiceDeleted(ServiceRef),
    /// A LoadBalancerIP was created or changed, whoever did it.
    AddressApplied(Arc<AddressRecord>),
    /// A LoadBalancerIP is gone.
    AddressDeleted {
        /// Its address.
        address: IpAddr,
        /// `resourceVersion` of the deletion event; default if a new list merely lacks it.
        version: Version,
    },
    /// A list has been delivered whole. Say it again after each new list (a watch that had to start over):
    /// owners the allocator has never seen are then checked again.
    Synced(List),
    /// The result of [`Output::Take`].
    TakeDone {
        /// As in the output.
        address: IpAddr,
        /// As in the output.
        owner: Owner,
        /// What came of it.
        result: TakeResult,
    },
    /// The result of [`Output::Publish`].
    PublishDone {
        /// As in the output.
        owner: Owner,
        /// What came of it.
        result: PublishResult,
    },
    /// The result of [`Output::Release`].
    ReleaseDone {
        /// As in the output.
        address: IpAddr,
        /// What came of it.
        result: ReleaseResult,
    },
    /// Try again what was refused for good ([`crate::Allocator::failed`] counts it); say it with back-off.
    Retry,
}

/// The lists that must all be there before anything is assigned (rule B11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum List {
    /// IPAddressPools.
    Pools,
    /// Namespaces (pools select them by label).
    Namespaces,
    /// Services.
    Services,
    /// LoadBalancerIPs.
    Addresses,
}

/// A LoadBalancerIP as the API server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRecord {
    /// `spec.address`.
    pub address: IpAddr,
    /// `metadata.resourceVersion`.
    pub version: Version,
    /// `spec.pool`; a user's reservation has none: then the pool that contains the address counts.
    pub pool: Option<PoolName>,
    /// `spec.services`.
    pub services: Vec<Owner>,
    /// `spec.claimRef`: only whom it admits may have it.
    pub claim: Option<Claim>,
    /// `spec.sharing`.
    pub sharing: Option<Terms>,
    /// Whether it has a `metadata.deletionTimestamp`.
    pub terminating: bool,
}

/// Something to be done. The contract of each says what its result must mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Make the LoadBalancerIP of `address` list `owner`; answer with [`Input::TakeDone`].
    Take(Take),
    /// Make the Service's status say this; answer with [`Input::PublishDone`].
    Publish(Publication),
    /// Give an address back; answer with [`Input::ReleaseDone`].
    Release(Release),
    /// A pool's status changed. No answer.
    Pool {
        /// The pool.
        pool: PoolName,
        /// Its status now, or `None` when the pool and all its users are gone.
        status: Option<PoolStatus>,
    },
}

/// Take an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Take {
    /// Which.
    pub address: IpAddr,
    /// From which pool.
    pub pool: PoolName,
    /// For whom.
    pub owner: Owner,
    /// By which write.
    pub how: TakeHow,
    /// `spec.sharing` as it is to be written.
    pub sharing: Option<Terms>,
}

/// The write that takes an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TakeHow {
    /// `create`. On 409 GET it: lists our uid: `Taken`; else `Held` with what was read (rule B6).
    Create,
    /// The object exists without services and its claimRef, if any, admits this Service: update
    /// `services` under the resourceVersion just read, keep the claimRef. Found otherwise: `Held`; 404: create.
    Claim,
    /// The object lists others: add the owner behind them under the resourceVersion just read, if everybody whom it
    /// lists now is among those named here, it is not terminating, and one more fits in. These the sharing rule was
    /// asked about; anybody else found there: `Held`, and it is asked again (rule B4). 404: create. Without
    /// services: as `Claim`.
    Join {
        /// Who may be there.
        beside: Vec<Owner>,
    },
}

/// What came of a [`Take`]. Time-outs and an absent API server are the writer's to retry: the outcome must be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TakeResult {
    /// The object lists the owner.
    Taken(Version),
    /// Somebody else's object is there: as read by a live GET. The allocator plans again.
    Held(Arc<AddressRecord>),
    /// Refused for another reason (403, 422): nothing was written.
    Refused(String),
}

/// The whole desired state of a Service's status, ours part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Which Service; its uid goes into the write.
    pub owner: Owner,
    /// The Service's newest version known, for the write's resourceVersion.
    pub version: Version,
    /// `status.loadBalancer.ingress`.
    pub ingress: Ingress,
    /// The pool its addresses come from (annotation `ip-allocated-from-pool`).
    pub pool: Option<PoolName>,
    /// What it asks for and does not have. With no address shown: condition Allocated=False; else Allocated=True
    /// and this is what to say beside it.
    // Boxed, as most have none.
    pub refusal: Option<Box<Refusal>>,
}

/// What `status.loadBalancer.ingress` is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ingress {
    /// Exactly these, possibly none.
    Show(Addresses),
    /// Not ours: do not touch it (rule B2).
    Leave,
}

/// What came of a [`Publication`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishResult {
    /// Written; the Service's version now.
    Published(Version),
    /// The Service changed meanwhile (409 on resourceVersion): the allocator says it again for the newer version.
    Stale,
    /// The Service is gone or has another uid or type: its deletion will be told by the watch.
    Gone,
    /// Refused for good (rule B21: another field manager owns ingress; 403; 422).
    Refused(String),
}

/// Give an address back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Which.
    pub address: IpAddr,
    /// Whose entry goes.
    pub owner: Owner,
    /// What a live GET of the Service must show first (rule B8).
    pub when: ReleaseWhen,
    /// What becomes of the LoadBalancerIP.
    pub then: ReleaseThen,
}

/// The condition of a release, to be checked against the API server itself, never a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseWhen {
    /// The Service is gone, has another uid, or is not of type LoadBalancer. Clear our ingress from it first, if
    /// it exists. Otherwise answer `StillInUse`.
    ServiceGone,
    /// As above, or the Service does not show this address. Otherwise answer `StillInUse`.
    NotShown,
}

/// What becomes of the LoadBalancerIP of a released address; a write under uid and resourceVersion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReleaseThen {
    /// Delete it. If others are listed by now: `Changed` (rule B5).
    Delete,
    /// One PUT: `services: []` and this claimRef (reservation, or `reclaimPolicy: Retain`; rule B15).
    /// If others are listed by now: `Changed`.
    Reserve(Claim),
    /// Others share it: one PUT without the owner. If nobody else is listed by now: `Changed`.
    Leave,
}

/// What came of a [`Release`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReleaseResult {
    /// It is gone (404 counts), or reserved or left to others at the version given.
    Released(Version),
    /// The condition does not hold: nothing was written.
    StillInUse,
    /// The object lists other owners, as read: nothing was written.
    Changed(Arc<AddressRecord>),
    /// Refused for good (403): nothing was written.
    Refused(String),
}

/// What a pool's status says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolStatus {
    /// Addresses in use and left.
    pub counts: PoolCounts,
    /// The families of which it has addresses to give, and none is free: all are in use or reserved.
    pub exhausted: Vec<Family>,
    /// What is wrong with the spec as written; the last good meaning stays in force.
    pub problem: Option<PoolProblem>,
    /// Addresses in use that were taken from this pool and are not in it (any more); at most
    /// [`PoolStatus::STRANDED`] of them.
    pub stranded: Vec<(IpAddr, ServiceRef)>,
    /// How many there are in all.
    pub stranded_total: usize,
}

impl PoolStatus {
    /// How many stranded addresses are listed one by one.
    pub const STRANDED: usize = 8;
}

/// `IPAddressPool.status`. Kubernetes stores integers as int64: larger numbers (a /64 and wider) say `i64::MAX`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolCounts {
    /// IPv4 addresses of the pool that Services have, or are about to have.
    pub assigned_v4: i64,
    /// The same for IPv6.
    pub assigned_v6: i64,
    /// Free IPv4 addresses that automatic allocation could give.
    pub available_v4: i64,
    /// The same for IPv6.
    pub available_v6: i64,
}
