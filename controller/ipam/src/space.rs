//! The addresses of one family that a pool gives out, and which of them are free.
//!
//! Every address has a rank: its place in the order in which the pool gives addresses out, which is the order of
//! `addresses` and ascending within each entry. Free space is a set of ranks, so that "lowest free in the order of
//! `addresses`" is one look-up.
//!
//! With `avoidBuggyIPs` the addresses that end in .0 and .255 have no rank, and cost nothing.

use std::net::IpAddr;

use crate::free::Free;
use crate::range::{to_address, to_number};
use crate::{AddressRange, Family};

/// One family's part of a pool.
#[derive(Clone, Debug)]
pub struct Space {
    family: Family,
    numbering: Numbering,
    /// Runs of consecutive addresses in the order in which they are given out: ranks ascend.
    by_rank: Vec<Run>,
    /// The same runs, addresses ascending.
    by_number: Vec<Run>,
    free: Free,
}

/// `first..=last` in the numbering of the space; `rank` is that of `first`.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: u128,
    last: u128,
    rank: u128,
}

/// How addresses are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Numbering {
    /// All of them.
    Every,
    /// IPv4 without .0 and .255: 254 numbers per 256 addresses.
    WithoutBuggy,
}

impl Space {
    /// `ranges` are disjoint, in the order in which they are given out; those of the other family are passed over.
    pub fn new(family: Family, avoid_buggy: bool, ranges: &[AddressRange]) -> Self {
        let numbering =
            if avoid_buggy && family == Family::V4 { Numbering::WithoutBuggy } else { Numbering::Every };
        let mut rank = 0;
        let mut by_rank = Vec::new();
        for range in ranges.iter().filter(|range| range.family() == family) {
            let (low, high) = range.numbers();
            let Some((first, last)) = numbering.run(low, high) else { continue };
            by_rank.push(Run { first, last, rank });
            // No overflow: ranges are disjoint and never all of IPv6 (`RangeError::Special`).
            rank += last - first + 1;
        }
        let mut by_number = by_rank.clone();
        by_number.sort_unstable_by_key(|run| run.first);
        Self { family, numbering, by_rank, by_number, free: Free::full(rank) }
    }

    /// Whether it has any address, free or not.
    pub fn is_empty(&self) -> bool {
        self.by_rank.is_empty()
    }

    /// How many addresses are free.
    pub fn free(&self) -> u128 {
        self.free.count()
    }

    /// Whether the address is one of those given out, free or not.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.rank(address).is_some()
    }

    /// The next address to give.
    pub fn lowest(&self) -> Option<IpAddr> {
        self.address(self.free.lowest()?)
    }

    /// Takes the next address to give.
    pub fn take_lowest(&mut self) -> Option<IpAddr> {
        let rank = self.free.lowest()?;
        self.free.take(rank);
        self.address(rank)
    }

    /// Takes this address; false if it is not in the space or not free.
    pub fn take(&mut self, address: IpAddr) -> bool {
        self.rank(address).is_some_and(|rank| self.free.take(rank))
    }

    /// Gives it back; false if it is not in the space or was free.
    pub fn give_back(&mut self, address: IpAddr) -> bool {
        self.rank(address).is_some_and(|rank| self.free.give_back(rank))
    }

    fn rank(&self, address: IpAddr) -> Option<u128> {
        let (family, number) = to_number(address);
        if family != self.family {
            return None;
        }
        let number = self.numbering.number(number)?;
        let after = self.by_number.partition_point(|run| run.first <= number);
        let run = self.by_number.get(after.checked_sub(1)?)?;
        (number <= run.last).then(|| run.rank + (number - run.first))
    }

    fn address(&self, rank: u128) -> Option<IpAddr> {
        let after = self.by_rank.partition_point(|run| run.rank <= rank);
        let run = self.by_rank.get(after.checked_sub(1)?)?;
        Some(to_address(self.family, self.numbering.address(run.first + (rank - run.rank))))
    }
}

impl Numbering {
    /// The number of an address; `None` for one that is avoided.
    fn number(self, address: u128) -> Option<u128> {
        match (self, address % 256) {
            (Self::Every, _) => Some(address),
            (Self::WithoutBuggy, 0 | 255) => None,
            (Self::WithoutBuggy, host) => Some(address / 256 * 254 + host - 1),
        }
    }

    /// The inverse of [`Self::number`].
    fn address(self, number: u128) -> u128 {
        match self {
            Self::Every => number,
            Self::WithoutBuggy => number / 254 * 256 + number % 254 + 1,
        }
    }

    /// The numbers of the addresses `low..=high`, if any is left.
    fn run(self, low: u128, high: u128) -> Option<(u128, u128)> {
        // At most two steps: an avoided address has a neighbour that is not.
        let first = (low..=high).take(3).find_map(|address| self.number(address))?;
        let last = (low..=high).rev().take(3).find_map(|address| self.number(address))?;
        Some((first, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(avoid_buggy: bool, ranges: &[&str]) -> Space {
        let ranges: Vec<AddressRange> = ranges.iter().map(|text| text.parse().unwrap()).collect();
        Space::new(Family::V4, avoid_buggy, &ranges)
    }

    fn drain(mut space: Space) -> Vec<String> {
        std::iter::from_fn(|| space.take_lowest()).map(|address| address.to_string()).collect()
    }

    #[test]
    fn gives_addresses_in_the_order_of_the_entries() {
        let space = space(false, &["10.0.0.8-10.0.0.9", "10.0.0.1", "10.0.0.4/31"]);
        assert_eq!(drain(space), ["10.0.0.8", "10.0.0.9", "10.0.0.1", "10.0.0.4", "10.0.0.5"]);
    }

    #[test]
    fn buggy_addresses_are_not_in_the_space() {
        let space = space(true, &["10.0.0.254-10.0.1.1", "10.0.2.255-10.0.3.0", "10.0.9.0"]);
        assert!(!space.contains("10.0.0.255".parse().unwrap()));
        assert_eq!(space.free(), 2);
        assert_eq!(drain(space), ["10.0.0.254", "10.0.1.1"]);
    }

    #[test]
    fn a_given_back_address_is_next_when_it_is_lowest() {
        let mut space = space(false, &["10.0.0.0/29"]);
        for _ in 0..4 {
            space.take_lowest();
        }
        assert!(space.give_back("10.0.0.1".parse().unwrap()));
        assert!(!space.give_back("10.0.0.1".parse().unwrap()), "twice is told");
        assert!(!space.give_back("10.0.0.8".parse().unwrap()), "outside is told");
        assert_eq!(space.lowest(), Some("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn every_address_has_the_rank_of_its_place() {
        for avoid in [false, true] {
            let space = space(avoid, &["10.0.1.250-10.0.3.3", "10.0.0.0/25"]);
            for rank in 0..space.free() {
                let address = space.address(rank).unwrap();
                assert_eq!(space.rank(address), Some(rank), "{address}");
            }
        }
    }
}
