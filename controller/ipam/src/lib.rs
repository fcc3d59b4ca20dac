//! The allocator core: pools, free space, requests, owners. No Kubernetes, no clock, no I/O.
//!
//! The controller runs one task around [`Allocator`]: a watch event becomes an [`Input`], an [`Output`] becomes a
//! writer's job, and the job's result becomes an [`Input`] again:
//!
//! ```text
//! watches ── PoolApplied, ServiceApplied, AddressApplied, Synced .. ─▶ ┌───────────┐
//!                                                                      │ Allocator │ ── Take, Publish, Release ─▶ writer
//! writer ─── TakeDone, PublishDone, ReleaseDone ─────────────────────▶ └───────────┘ ── Pool ──────────────────▶ status
//! ```
//!
//! What always holds (part B of docs/protocol.md):
//! - an address has one owner at a time, from before the write that takes it until its release is confirmed;
//! - nothing is given out before every list is there; then what exists is adopted, then explicit requests are
//!   served, then the rest, oldest first: the same inputs give the same outputs, in whatever order they arrived;
//! - an address that a Service has changes only if its user asks for another;
//! - at most one write is under way per address and per Service.

mod allocator;
mod entry;
mod free;
mod intervals;
mod labels;
mod ledger;
mod matcher;
mod messages;

mod names;
mod plan;
mod pool;
mod pools;
mod range;
mod reason;
mod refusal;
mod request;
mod service;
mod sharing;
mod space;
mod waiting;

pub use allocator::Allocator;
pub use labels::Labels;
pub use matcher::{Operator, Requirement, Selector, ServiceAllocation};
pub use messages::{
    AddressRecord, Ingress, Input, List, Output, PoolCounts, PoolStatus, Publication, PublishResult, Release,
    ReleaseResult, ReleaseThen, ReleaseWhen, Take, TakeHow, TakeResult,
};
pub use names::{CreatedAt, Family, Owner, PoolName, ServiceRef, Uid, Version};
pub use pool::{PoolProblem, PoolSpec, ReclaimPolicy};
pub use range::{AddressError, AddressRange, RangeError, parse_address};
pub use reason::{Explanation, PoolReason, Reason};
pub use refusal::{AddressNo, PoolNo, Refusal};
pub use request::{Addresses, Families, FamilyPolicy, RequestError, ServiceRequest, Wanted};
pub use sharing::{
    Claim, Exposure, Port, Protocol, ShareNo, SharingKey, SharingPreference, SharingScope, Terms,
};
pub use space::Space;
