//! What is between the core, which decides, and the writer, which writes: jobs, and what came of them.

use std::net::IpAddr;

use herald_crds::{IPAddressPoolStatus, L2Announce, LoadBalancerIP};
use herald_ipam::{
    Addresses, Owner, PoolName, PublishResult, Release, ReleaseResult, ServiceRef, Take, TakeResult, Version,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    desired::says_the_same,
    objects::{address::Address, advertisement::Advertisement, pool::Pool, service::Service},
};

/// Something to be written. At most one is under way per object; the core sees to it.
///
/// Small: at a start ten thousand of them wait at once.
#[derive(Clone, Debug)]
pub enum Job {
    /// Make a LoadBalancerIP list its owner.
    Take(Box<TakeJob>),
    /// Put a LoadBalancerIP whose owner stays: announce, pool or labels changed.
    Update {
        /// Which.
        address: IpAddr,
        /// As it should be, with the uid and resourceVersion it is to replace.
        object: Box<LoadBalancerIP>,
    },
    /// Say on a LoadBalancerIP what is wrong with it, or that nothing is any more.
    Problem {
        /// The object whose uid and resourceVersion go into the write.
        address: Box<Address>,
        /// What it should say; `None`: nothing.
        condition: Option<Box<Condition>>,
    },
    /// Read a LoadBalancerIP that a list lacks although this process has just written it, or that only a list has.
    Read {
        /// Which.
        address: IpAddr,
        /// Its object's name.
        name: Box<str>,
    },
    /// Give an address back (rule B8).
    Release(Box<ReleaseJob>),
    /// Make a Service's status say this.
    Status(Box<StatusJob>),
    /// Remove our marks from a Service that may not be of our type any more.
    Clear(Owner),
    /// A pool's status.
    Pool {
        /// The pool whose uid and resourceVersion go into the write.
        pool: Box<Pool>,
        /// What it should say.
        status: Box<IPAddressPoolStatus>,
    },
    /// An advertisement's condition.
    Advertisement {
        /// The advertisement whose uid and resourceVersion go into the write.
        advertisement: Box<Advertisement>,
        /// What it should say.
        condition: Box<Condition>,
    },
    /// An event on a Service: best effort, no answer.
    Event(EventJob),
}

/// Take an address.
#[derive(Clone, Debug)]
pub struct TakeJob {
    /// What the allocator said.
    pub take: Take,
    /// Where it may be announced, if that is known yet.
    pub l2: Option<L2Announce>,
    /// The revision to write, at least.
    pub revision: i64,
}

/// Give an address back.
#[derive(Clone, Debug)]
pub struct ReleaseJob {
    /// What the allocator said.
    pub release: Release,
    /// The revision to write, at least, where the object stays.
    pub revision: i64,
    /// The version of the object known when this was decided: if none is found, that one is gone, but perhaps not one that
    /// is made meanwhile.
    pub known: Version,
}

/// A Service's status.
#[derive(Clone, Debug)]
pub struct StatusJob {
    /// The Service as it was when this was decided; its uid and version go into the write.
    pub service: Service,
    /// What it should say.
    pub status: ServiceStatus,
    /// Take the field back from a person's hand edit.
    pub restore: bool,
}

/// Our part of a Service's status.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceStatus {
    /// `status.loadBalancer.ingress`; `None`: not ours to write.
    pub ingress: Option<Addresses>,
    /// Annotation `ip-allocated-from-pool`.
    pub pool: Option<PoolName>,
    /// Our conditions.
    pub conditions: Vec<Condition>,
}

/// An event on a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventJob {
    /// The Service.
    pub owner: Owner,
    /// What happened.
    pub kind: EventKind,
    /// What users read.
    pub note: String,
}

/// What events tell of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A Service got an address.
    Allocated,
    /// A Service lost an address.
    Released,
    /// There is no address for it.
    Failed,
    /// Its request makes no sense.
    Invalid,
}

/// What came of a job.
#[derive(Clone, Debug)]
pub enum Done {
    /// Of [`Job::Take`].
    Take {
        /// The job.
        take: Take,
        /// For the allocator.
        result: TakeResult,
        /// The object as it now is, where that was read.
        object: Option<Box<Address>>,
    },
    /// Of [`Job::Update`].
    Update {
        /// Which.
        address: IpAddr,
        /// What came of it.
        result: UpdateResult,
    },
    /// Of [`Job::Problem`]: the object as it now is, written or changed by somebody else meanwhile, or `None`.
    Problem(IpAddr, Option<Box<Address>>),
    /// Of [`Job::Read`]: the object, or `None` if it is gone, or why that is not known.
    Read(IpAddr, Result<Option<Box<Address>>, String>),
    /// Of [`Job::Release`].
    Release {
        /// The job.
        release: Release,
        /// For the allocator.
        result: ReleaseResult,
        /// The object as it now is, where it is still there and was read.
        object: Option<Box<Address>>,
    },
    /// Of [`Job::Status`].
    Status {
        /// The job.
        job: Box<StatusJob>,
        /// What came of it.
        result: StatusResult,
    },
    /// Of [`Job::Clear`].
    Clear(ServiceRef),
    /// Of [`Job::Pool`]: the pool as it now is, or `None` if nothing was written.
    Pool(PoolName, Option<Box<Pool>>),
    /// Of [`Job::Advertisement`], likewise.
    Advertisement(String, Option<Box<Advertisement>>),
}

/// What came of an update of a LoadBalancerIP.
#[derive(Clone, Debug)]
pub enum UpdateResult {
    /// The object as it now is: written.
    Now(Box<Address>),
    /// Written, and yet it does not say what it was to say: the API server's CRD is another one and has dropped fields.
    /// Another write would change nothing.
    Pruned(Box<Address>),
    /// Somebody else was quicker: the object as it now is.
    Found(Box<Address>),
    /// It is gone; the version that was to be replaced.
    Gone(Version),
    /// Refused for good.
    Refused(String),
}

impl UpdateResult {
    /// That of a write of `sent` that left `now`.
    pub fn written(sent: &LoadBalancerIP, now: Address) -> Self {
        if says_the_same(sent, &now.object()) {
            Self::Now(Box::new(now))
        } else {
            Self::Pruned(Box::new(now))
        }
    }
}

/// What came of writing a Service's status.
#[derive(Clone, Debug)]
pub enum StatusResult {
    /// Written; the Service as it now is.
    Written(Box<Service>),
    /// Other field managers own `status.loadBalancer.ingress` (rule B21).
    Owned {
        /// Their names.
        managers: Vec<String>,
    },
    /// Not written.
    Not(PublishResult),
}
