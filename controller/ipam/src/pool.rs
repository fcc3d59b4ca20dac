//! An IPAddressPool's spec and what it means: which addresses it gives out, in which order.
//!
//! A [`Pool`] exists only for a spec that is valid by itself; that it overlaps no other pool is seen to in `pools`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use thiserror::Error;

use crate::space::Space;
use crate::{
    AddressRange, CreatedAt, Family, PoolName, RangeError, ServiceAllocation, SharingPreference, SharingScope,
};

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
    /// Nodes' own addresses that are not to be given either. The pool has them all the same: no other pool can.
    pub of_nodes: BTreeSet<IpAddr>,
    /// `avoidBuggyIPs`: IPv4 addresses that end in .0 or .255 are not given out.
    pub avoid_buggy_ips: bool,
    /// `autoAssign`: whether Services that name no pool may get its addresses.
    pub auto_assign: bool,
    /// `serviceAllocation`: who may have its addresses.
    pub allocation: Option<ServiceAllocation>,
    /// `reclaimPolicy`.
    pub reclaim: ReclaimPolicy,
    /// `sharing`: when a Service joins an address.
    pub sharing: SharingPreference,
    /// `sharingScope`: whom it may join.
    pub sharing_scope: SharingScope,
    /// `limitPerNamespace`: how many addresses of each family a namespace may have.
    pub limit_per_namespace: Option<u32>,
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

/// A valid spec and the addresses it gives out.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    /// As written.
    pub(crate) spec: PoolSpec,
    /// What is left of `addresses` without `excluded`; disjoint, in the order in which addresses are given out.
    /// Addresses avoided by `avoidBuggyIPs` and those of nodes are in it: no other pool can have them.
    pub(crate) ranges: Vec<AddressRange>,
    excluded: Vec<AddressRange>,
    v4: Space,
    v6: Space,
}

impl Pool {
    /// What a spec means.
    pub(crate) fn new(spec: PoolSpec) -> Result<Self, PoolProblem> {
        let problem = |entry: &str, error| PoolProblem::Addresses { entry: entry.into(), error };
        let written = read(&spec.addresses, problem)?;
        let problem = |entry: &str, error| PoolProblem::Excluded { entry: entry.into(), error };
        let excluded = read(&spec.excluded, problem)?;
        if let Some((first, second)) = overlap(&written) {
            return Err(PoolProblem::OverlapsItself { first, second });
        }
        let mut cuts = excluded.clone();
        cuts.sort_unstable();
        let ranges: Vec<_> = written.iter().flat_map(|range| without(*range, &cuts)).collect();
        let space = |family, given: &[AddressRange]| Space::new(family, spec.avoid_buggy_ips, given);
        if Family::BOTH.into_iter().all(|family| space(family, &ranges).is_empty()) {
            return Err(PoolProblem::NoAddresses);
        }
        // What is left may be nothing: nodes come and go, and the spec is no worse for it.
        let of_nodes: Vec<_> = spec.of_nodes.iter().copied().map(AddressRange::single).collect();
        let given: Vec<_> = ranges.iter().flat_map(|range| without(*range, &of_nodes)).collect();
        let (v4, v6) = (space(Family::V4, &given), space(Family::V6, &given));
        Ok(Self { spec, ranges, excluded, v4, v6 })
    }

    /// Its addresses of a family.
    pub(crate) fn space(&self, family: Family) -> &Space {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// The same, to take from and give back to.
    pub(crate) fn space_mut(&mut self, family: Family) -> &mut Space {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }

    /// Whether it gives this address out (it may be taken).
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.space(Family::of(address)).contains(address)
    }

    /// Whether `excluded` names this address.
    pub(crate) fn excludes(&self, address: IpAddr) -> bool {
        self.excluded.iter().any(|range| range.contains(address))
    }

    /// Whether it is a node's own address, and in the pool for that reason alone not given out.
    pub(crate) fn is_of_node(&self, address: IpAddr) -> bool {
        self.spec.of_nodes.contains(&address) && self.covers(address)
    }

    /// Whether the address is in its ranges, though perhaps avoided.
    pub(crate) fn covers(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
    }
}

fn read(
    entries: &[String],
    problem: impl Fn(&str, RangeError) -> PoolProblem,
) -> Result<Vec<AddressRange>, PoolProblem> {
    entries.iter().map(|entry| entry.parse().map_err(|error| problem(entry, error))).collect()
}

/// Two entries with addresses in common, in the order in which they are written.
fn overlap(written: &[AddressRange]) -> Option<(AddressRange, AddressRange)> {
    let mut order: Vec<(usize, AddressRange)> = written.iter().copied().enumerate().collect();
    order.sort_unstable_by_key(|(_, range)| *range);
    let pairs = order.iter().zip(order.iter().skip(1));
    let ((i, a), (j, b)) = pairs.into_iter().find(|((_, a), (_, b))| a.overlaps(b))?;
    Some(if i < j { (*a, *b) } else { (*b, *a) })
}

/// What is left of `range` without `cuts`, which are sorted and may overlap each other.
fn without(range: AddressRange, cuts: &[AddressRange]) -> Vec<AddressRange> {
    let family = range.family();
    let (mut first, last) = range.numbers();
    let mut left = Vec::new();
    for cut in cuts.iter().filter(|cut| cut.overlaps(&range)) {
        let (cut_first, cut_last) = cut.numbers();
        if first < cut_first {
            left.push(AddressRange::from_numbers(family, first, cut_first - 1));
        }
        match cut_last.checked_add(1) {
            Some(next) => first = first.max(next),
            None => return left,
        }
    }
    if first <= last {
        left.push(AddressRange::from_numbers(family, first, last));
    }
    left
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A spec named `name` with the defaults of the CRD.
    pub(crate) fn spec(name: &str, addresses: &[&str]) -> PoolSpec {
        PoolSpec {
            name: PoolName::new(name),
            created: CreatedAt(0),
            addresses: addresses.iter().map(ToString::to_string).collect(),
            excluded: Vec::new(),
            of_nodes: BTreeSet::new(),
            avoid_buggy_ips: false,
            auto_assign: true,
            allocation: None,
            reclaim: ReclaimPolicy::Delete,
            sharing: SharingPreference::WhenFull,
            sharing_scope: SharingScope::Namespace,
            limit_per_namespace: None,
        }
    }

    fn ranges(addresses: &[&str], excluded: &[&str]) -> Result<Vec<String>, PoolProblem> {
        let excluded = excluded.iter().map(ToString::to_string).collect();
        let pool = Pool::new(PoolSpec { excluded, ..spec("p", addresses) })?;
        Ok(pool.ranges.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn excluded_addresses_are_cut_out_of_every_range() {
        let cuts = ["10.0.0.4/30", "10.0.0.6-10.0.0.8", "10.0.0.15", "10.0.1.0/24", "fd00::/127"];
        let left = ranges(&["10.0.0.0/28", "10.0.1.0/24", "fd00::/126"], &cuts).unwrap();
        assert_eq!(left, ["10.0.0.0-10.0.0.3", "10.0.0.9-10.0.0.14", "fd00::2-fd00::3"]);
    }

    #[test]
    fn the_order_of_the_entries_is_kept() {
        let left = ranges(&["10.0.0.8/30", "10.0.0.0/30"], &["10.0.0.9"]).unwrap();
        assert_eq!(left, ["10.0.0.8", "10.0.0.10-10.0.0.11", "10.0.0.0-10.0.0.3"]);
    }

    #[test]
    fn addresses_of_nodes_stay_in_the_pool_and_are_not_given() {
        let of_nodes = ["10.0.0.1", "10.0.0.2", "10.0.9.9", "fd00::"].map(|text| text.parse().unwrap());
        let mut pool =
            Pool::new(PoolSpec { of_nodes: of_nodes.into(), ..spec("p", &["10.0.0.0/30", "fd00::/128"]) })
                .expect("nodes are no fault of the spec");
        let given: Vec<_> = std::iter::from_fn(|| pool.v4.take_lowest()).map(|it| it.to_string()).collect();
        assert_eq!(given, ["10.0.0.0", "10.0.0.3"]);
        assert_eq!(pool.v6.lowest(), None);
        assert!(pool.covers(of_nodes[0]) && pool.is_of_node(of_nodes[0]) && !pool.contains(of_nodes[0]));
        assert!(!pool.is_of_node(of_nodes[2]), "outside of the pool it is none of its concern");
    }

    #[test]
    fn a_pool_without_addresses_says_so() {
        assert_eq!(ranges(&[], &[]), Err(PoolProblem::NoAddresses));
        assert_eq!(ranges(&["10.0.0.0/30"], &["10.0.0.0/24"]), Err(PoolProblem::NoAddresses));
    }

    #[test]
    fn problems_name_the_entry_and_the_field() {
        for (addresses, excluded, text) in [
            (
                &["10.0.0.0/24", "nonsense"][..],
                &[][..],
                "spec.addresses: 'nonsense': 'nonsense' is not an IP address",
            ),
            (
                &["10.0.0.0/24"],
                &["10.0.0.9-10.0.0.1"],
                "spec.excluded: '10.0.0.9-10.0.0.1': the range runs backwards",
            ),
            (
                &["10.0.0.16-10.0.0.40", "fd00::/64", "10.0.0.0/27"],
                &[],
                "10.0.0.16-10.0.0.40 and 10.0.0.0-10.0.0.31 overlap",
            ),
        ] {
            let problem = ranges(addresses, excluded).unwrap_err().to_string();
            assert!(problem.contains(text), "{problem}");
        }
    }
}
