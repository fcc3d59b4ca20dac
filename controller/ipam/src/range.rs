//! What users write under `addresses` and `excluded`: a CIDR, a range `first-last`, or one address.
//!
//! A parsed [`AddressRange`] is never empty, never reversed and of one family. Nothing here knows of pools.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use thiserror::Error;

use crate::Family;

/// A non-empty run of addresses of one family, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    family: Family,
    first: u128,
    last: u128,
}

/// Why a text is not a range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RangeError {
    /// Nothing but blanks.
    #[error(
        "the entry is empty; write a CIDR (192.168.1.0/24), a range (192.168.1.10-192.168.1.20) or one address"
    )]
    Empty,
    /// One of the addresses in it is not usable.
    #[error("{0}")]
    Address(#[from] AddressError),
    /// The part behind the slash is not a prefix length of the family.
    #[error("'/{prefix}' is not a prefix length for {family}; use 0 to {max}", max = max_prefix(*family))]
    PrefixLength {
        /// What stands behind the slash.
        prefix: String,
        /// Family of the address before it.
        family: Family,
    },
    /// The first address is above the last.
    #[error("the range runs backwards: {first} is above {last}; write {last}-{first}")]
    Reversed {
        /// As written.
        first: IpAddr,
        /// As written.
        last: IpAddr,
    },
    /// It contains addresses that no Service can have.
    #[error("{first}-{last} contains {special}; no Service can have these, so leave them out")]
    Special {
        /// The lowest address of the range.
        first: IpAddr,
        /// The highest.
        last: IpAddr,
        /// Which, in words.
        special: &'static str,
    },
    /// One end is IPv4, the other IPv6.
    #[error("the range mixes families: {first} and {last}; write one range for IPv4 and one for IPv6")]
    MixedFamilies {
        /// As written.
        first: IpAddr,
        /// As written.
        last: IpAddr,
    },
}

/// Addresses that no Service can have; with the reason users read.
const SPECIAL: [(Family, u128, u128, &str); 7] = [
    (Family::V4, 0, 0, "0.0.0.0, which means no address"),
    (Family::V4, 0x7f00_0000, 0x7fff_ffff, "loopback addresses (127.0.0.0/8)"),
    (Family::V4, 0xe000_0000, 0xefff_ffff, "multicast addresses (224.0.0.0/4)"),
    (Family::V4, 0xffff_ffff, 0xffff_ffff, "the broadcast address 255.255.255.255"),
    (Family::V6, 0, 1, ":: or ::1, which are no address and loopback"),
    // Also what keeps the number of addresses of a pool below 2^128.
    (Family::V6, 0xffff_0000_0000, 0xffff_ffff_ffff, "IPv4-mapped addresses (::ffff:0:0/96)"),
    (Family::V6, 0xff << 120, u128::MAX, "multicast addresses (ff00::/8)"),
];

/// Why a text is not an address that can be given to a Service.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// Not an IP address at all.
    #[error("'{0}' is not an IP address")]
    Malformed(String),
    /// `::ffff:192.0.2.1`: two texts for one address would be two names for it.
    #[error("'{0}' is an IPv4-mapped IPv6 address; write the IPv4 address {1}")]
    V4Mapped(Ipv6Addr, Ipv4Addr),
    /// `fe80::1%eth0`: means something on one node only.
    #[error("'{0}' carries a zone (%...), which means something on one machine only; leave it out")]
    Zone(String),
}

/// Reads one address, refusing forms that name another address or depend on the machine.
pub fn parse_address(text: &str) -> Result<IpAddr, AddressError> {
    let text = text.trim();
    if text.contains('%') {
        return Err(AddressError::Zone(text.into()));
    }
    match text.parse() {
        Ok(IpAddr::V6(v6)) => match v6.to_ipv4_mapped() {
            Some(v4) => Err(AddressError::V4Mapped(v6, v4)),
            None => Ok(IpAddr::V6(v6)),
        },
        Ok(v4) => Ok(v4),
        Err(_) => Err(AddressError::Malformed(text.into())),
    }
}

impl FromStr for AddressRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(RangeError::Empty);
        }
        if let Some((first, last)) = text.split_once('-') {
            return Self::between(parse_address(first)?, parse_address(last)?);
        }
        if let Some((address, prefix)) = text.split_once('/') {
            return Self::network(parse_address(address)?, prefix.trim());
        }
        let address = parse_address(text)?;
        Self::between(address, address)
    }
}

impl AddressRange {
    /// One address.
    pub(crate) fn single(address: IpAddr) -> Self {
        let (family, number) = to_number(address);
        Self { family, first: number, last: number }
    }

    /// From `first` to `last`, both included.
    pub fn between(first: IpAddr, last: IpAddr) -> Result<Self, RangeError> {
        let ((family, low), (other, high)) = (to_number(first), to_number(last));
        if family != other {
            return Err(RangeError::MixedFamilies { first, last });
        }
        if low > high {
            return Err(RangeError::Reversed { first, last });
        }
        let range = Self { family, first: low, last: high };
        let special = SPECIAL.iter().find(|(other, start, end, _)| {
            range.overlaps(&Self { family: *other, first: *start, last: *end })
        });
        match special {
            Some((.., special)) => Err(RangeError::Special { first, last, special }),
            None => Ok(range),
        }
    }

    /// Host bits of `address` are masked, as Kubernetes users expect of 192.168.1.7/24.
    fn network(address: IpAddr, prefix: &str) -> Result<Self, RangeError> {
        let family = Family::of(address);
        let network = Some(prefix)
            // `parse` would take "+8".
            .filter(|prefix| prefix.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|prefix| prefix.parse().ok())
            .and_then(|length| IpNet::new(address, length).ok())
            .ok_or_else(|| RangeError::PrefixLength { prefix: prefix.into(), family })?;
        Self::between(network.network(), network.broadcast())
    }

    /// The family of all its addresses.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The lowest address.
    pub fn first(&self) -> IpAddr {
        to_address(self.family, self.first)
    }

    /// The highest address.
    pub fn last(&self) -> IpAddr {
        to_address(self.family, self.last)
    }

    /// Whether `address` lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (family, number) = to_number(address);
        family == self.family && (self.first..=self.last).contains(&number)
    }

    /// Whether they have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.family == other.family && self.first <= other.last && other.first <= self.last
    }

    /// Both ends as numbers, for interval arithmetic within one family.
    pub(crate) fn numbers(&self) -> (u128, u128) {
        (self.first, self.last)
    }

    /// The inverse of [`Self::numbers`]; the ends must be in order.
    pub(crate) fn from_numbers(family: Family, first: u128, last: u128) -> Self {
        debug_assert!(first <= last, "an address range is never empty");
        Self { family, first, last }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return write!(f, "{}", self.first());
        }
        write!(f, "{}-{}", self.first(), self.last())
    }
}

/// An address as a number within its family.
pub(crate) fn to_number(address: IpAddr) -> (Family, u128) {
    match address {
        IpAddr::V4(v4) => (Family::V4, u128::from(v4.to_bits())),
        IpAddr::V6(v6) => (Family::V6, v6.to_bits()),
    }
}

/// The inverse of [`to_number`]. Only the low 32 bits count for IPv4.
pub(crate) fn to_address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => {
            let [.., a, b, c, d] = number.to_be_bytes();
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(number)),
    }
}

fn max_prefix(family: Family) -> u8 {
    match family {
        Family::V4 => 32,
        Family::V6 => 128,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Result<String, RangeError> {
        text.parse::<AddressRange>().map(|range| format!("{}-{}", range.first(), range.last()))
    }

    #[test]
    fn reads_what_users_write() {
        for (text, meaning) in [
            ("192.168.1.0/30", "192.168.1.0-192.168.1.3"),
            ("192.168.1.7/24", "192.168.1.0-192.168.1.255"),
            (" 10.0.0.1/32 ", "10.0.0.1-10.0.0.1"),
            ("10.0.0.1", "10.0.0.1-10.0.0.1"),
            ("10.0.0.1-10.0.0.5", "10.0.0.1-10.0.0.5"),
            ("10.0.0.1 - 10.0.0.5", "10.0.0.1-10.0.0.5"),
            ("fd00::1:2/112", "fd00::1:0-fd00::1:ffff"),
            ("FD00::A-fd00::f", "fd00::a-fd00::f"),
            ("10.0.0.0/8", "10.0.0.0-10.255.255.255"),
        ] {
            assert_eq!(range(text).as_deref(), Ok(meaning), "{text}");
        }
    }

    #[test]
    fn refuses_what_means_nothing_with_a_text_that_helps() {
        for (text, help) in [
            ("", "the entry is empty"),
            ("  ", "the entry is empty"),
            ("web", "'web' is not an IP address"),
            ("10.0.0/24", "'10.0.0' is not an IP address"),
            ("10.0.0.256", "'10.0.0.256' is not an IP address"),
            ("010.0.0.1", "'010.0.0.1' is not an IP address"),
            ("10.0.0.0/33", "'/33' is not a prefix length for IPv4; use 0 to 32"),
            ("10.0.0.0/", "'/' is not a prefix length"),
            ("10.0.0.0/+8", "'/+8' is not a prefix length"),
            ("10.0.0.0/-1", "'10.0.0.0/' is not an IP address"),
            ("fd00::/129", "'/129' is not a prefix length for IPv6; use 0 to 128"),
            ("10.0.0.9-10.0.0.1", "write 10.0.0.1-10.0.0.9"),
            ("10.0.0.1-fd00::1", "mixes families"),
            ("10.0.0.1-", "'' is not an IP address"),
            ("10.0.0.1-10.0.0.2-10.0.0.3", "'10.0.0.2-10.0.0.3' is not"),
            ("::ffff:10.0.0.1", "write the IPv4 address 10.0.0.1"),
            ("::ffff:10.0.0.0/120", "write the IPv4 address 10.0.0.0"),
            ("fe80::1%eth0", "carries a zone"),
            ("fe80::1-fe80::2%eth0", "carries a zone"),
            ("::/0", "contains :: or ::1"),
            ("::2-fd00::", "contains IPv4-mapped"),
            ("0.0.0.0/0", "contains 0.0.0.0"),
            ("239.0.0.1", "contains multicast"),
            ("ff02::1", "contains multicast"),
            ("127.0.0.1", "contains loopback"),
            ("10.0.0.0-255.255.255.255", "contains loopback"),
        ] {
            let refusal = range(text).expect_err(text).to_string();
            assert!(refusal.contains(help), "{text}: {refusal}");
        }
    }
}
