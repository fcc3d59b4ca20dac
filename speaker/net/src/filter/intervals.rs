//! Sets of addresses as sorted intervals with gaps between them.

use std::net::{Ipv4Addr, Ipv6Addr};

/// From the first to the last, both inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) first: u128,
    pub(super) last: u128,
}

/// Sorted, and no two touch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Intervals {
    /// Of one address, in 32-bit words: 1 or 4.
    pub(super) words: u32,
    pub(super) list: Vec<Interval>,
}

impl Intervals {
    pub(super) fn v4(addresses: impl Iterator<Item = Ipv4Addr>) -> Self {
        Self::new(1, addresses.map(|ip| u128::from(ip.to_bits())).collect())
    }

    pub(super) fn v6(addresses: impl Iterator<Item = Ipv6Addr>) -> Self {
        Self::new(4, addresses.map(Ipv6Addr::to_bits).collect())
    }

    fn new(words: u32, mut addresses: Vec<u128>) -> Self {
        addresses.sort_unstable();
        let mut list: Vec<Interval> = Vec::new();
        for address in addresses {
            match list.last_mut() {
                Some(interval) if address - interval.last <= 1 => interval.last = address,
                _ => list.push(Interval { first: address, last: address }),
            }
        }
        Self { words, list }
    }

    /// The same addresses in at most `max` intervals, merged across the smallest gaps: a superset, the smallest
    /// there is with so few.
    pub(super) fn at_most(&self, max: usize) -> Self {
        let mut list = self.list.clone();
        if list.len() > max.max(1) {
            let mut gaps: Vec<(u128, usize)> =
                list.iter().zip(list.iter().skip(1)).map(|(a, b)| b.first - a.last).zip(1..).collect();
            // The widest gaps stay, one less than there are intervals.
            gaps.sort_unstable_by(|a, b| b.cmp(a));
            let mut starts: Vec<usize> = gaps.into_iter().take(max.max(1) - 1).map(|(_, at)| at).collect();
            starts.sort_unstable();
            let mut starts = starts.into_iter().peekable();
            let mut merged: Vec<Interval> = Vec::new();
            for (at, interval) in list.into_iter().enumerate() {
                match merged.last_mut() {
                    Some(open) if starts.next_if_eq(&at).is_none() => open.last = interval.last,
                    _ => merged.push(interval),
                }
            }
            list = merged;
        }
        Self { words: self.words, list }
    }
}
