//! An IPAddressPool's spec and what it means.

use thiserror::Error;

use crate::{AddressRange, CreatedAt, PoolName, RangeError, ServiceAllocation};

/// `IPAddressPool.spec` as written, with the parts of its metadata that count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    /// `metadata.name`.
    pub name: PoolName,
    /// `metadata.creationTimestamp`: of two pools that overlap, the older keeps its meaning.
    pub created: CreatedAt,
    /// `addresses`, in order: given out in this order.
    pub addresses: Vec<String>,
    /// `excluded`: never given out.
    pub excluded: Vec<String>,
    /// `avoidBuggyIPs`: IPv4 addresses that end in .0 or .255 are not given out.
    pub avoid_buggy_ips: bool,
    /// `autoAssign`: whether Services that name no pool may get its addresses.
    pub auto_assign: bool,
    /// `serviceAllocation`: who may have its addresses.
    pub allocation: Option<ServiceAllocation>,
    /// `reclaimPolicy`.
    pub reclaim: ReclaimPolicy,
}

/// `reclaimPolicy`, as a PersistentVolume's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReclaimPolicy {
    /// A freed address can be given to anybody.
    #[default]
    Delete,
    /// It stays reserved for a Service of the same name.
    Retain,
}

/// What is wrong with a pool's spec. Its last good meaning stays in force.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PoolProblem {
    /// An entry of `addresses` cannot be read.
    #[error("spec.addresses: '{entry}': {error}")]
    Addresses {
        /// As written.
        entry: String,
        /// What is wrong.
        error: RangeError,
    },
    /// An entry of `excluded` cannot be read.
    #[error("spec.excluded: '{entry}': {error}")]
    Excluded {
        /// As written.
        entry: String,
        /// What is wrong.
        error: RangeError,
    },
    /// Nothing left to give out.
    #[error(
        "the pool has no address to give: spec.addresses is empty or everything in it is excluded; add a range"
    )]
    NoAddresses,
    /// Two entries of `addresses` have addresses in common.
    #[error("spec.addresses: {first} and {second} overlap; remove or shorten one of them")]
    OverlapsItself {
        /// The one that stands first.
        first: AddressRange,
        /// The other.
        second: AddressRange,
    },
    /// It has addresses in common with another pool, which keeps them.
    #[error(
        "{range} overlaps {other_range} of pool '{other}', which keeps it; remove it from one of the two"
    )]
    Overlaps {
        /// This pool's range.
        range: AddressRange,
        /// The pool that is in force.
        other: PoolName,
        /// That pool's range.
        other_range: AddressRange,
    },
}
