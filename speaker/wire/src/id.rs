//! The identities and ordinals that speakers exchange, each a type of its own so that none is taken for another.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

macro_rules! ordinal {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    };
}

ordinal! {
    /// A node: the first 8 bytes of SHA-256 over the Node object's UID (rule A1), never 0 on the wire.
    NodeId(u64), "{:016x}"
}
ordinal! {
    /// A cluster: a random number that the controller creates once, beside the hello key.
    ClusterId(u64), "{:016x}"
}
ordinal! {
    /// One life of a speaker on a node: random, new at process start and at every newcomer transition (rule A3).
    Boot(u64), "{:016x}"
}
ordinal! {
    /// Frames sent so far by one (boot, interface), +1 per frame (rule A3): what a replay window checks.
    Counter(u64), "{}"
}
ordinal! {
    /// The sender's interface index: one node may speak on several segments.
    IfIndex(u32), "{}"
}
ordinal! {
    /// Fences holders of one VIP: a takeover raises it (rule A34).
    Epoch(u64), "{}"
}
ordinal! {
    /// Fences specs of one VIP: the LoadBalancerIP's `spec.revision`, monotone (rule B18).
    Revision(u64), "{}"
}
ordinal! {
    /// Counts changes of a speaker's holdings (rule A14).
    TableVersion(u64), "{}"
}
ordinal! {
    /// A challenge's random number (rule A7).
    Salt(u64), "{:016x}"
}

impl NodeId {
    /// The id on the wire: 0 means "none" in the fields that may name nobody.
    pub(crate) fn to_wire(node: Option<Self>) -> u64 {
        node.map_or(0, |node| node.0)
    }

    pub(crate) fn from_wire(id: u64) -> Option<Self> {
        (id != 0).then_some(Self(id))
    }
}

/// A virtual IP: the address of a LoadBalancer Service.
///
/// Held as on the wire: 16 bytes, IPv4 as an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2), so that one address
/// has one form whatever it was made from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vip([u8; 16]);

impl Vip {
    /// The address from its 16 bytes on the wire.
    pub const fn from_octets(octets: [u8; 16]) -> Self {
        Self(octets)
    }

    /// The 16 bytes on the wire.
    pub const fn octets(self) -> [u8; 16] {
        self.0
    }

    /// The address, IPv4-mapped ones as IPv4.
    pub fn ip(self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from(self.0)).to_canonical()
    }

    /// The IPv4 address, if it is one.
    pub fn v4(self) -> Option<Ipv4Addr> {
        Ipv6Addr::from(self.0).to_ipv4_mapped()
    }

    /// The IPv6 address, if it is not IPv4.
    pub fn v6(self) -> Option<Ipv6Addr> {
        match self.ip() {
            IpAddr::V4(_) => None,
            IpAddr::V6(ip) => Some(ip),
        }
    }
}

impl From<IpAddr> for Vip {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::from(ip),
            IpAddr::V6(ip) => Self::from(ip),
        }
    }
}

impl From<Ipv4Addr> for Vip {
    fn from(ip: Ipv4Addr) -> Self {
        Self(ip.to_ipv6_mapped().octets())
    }
}

impl From<Ipv6Addr> for Vip {
    fn from(ip: Ipv6Addr) -> Self {
        Self(ip.octets())
    }
}

impl fmt::Display for Vip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.ip(), f)
    }
}

impl fmt::Debug for Vip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.ip(), f)
    }
}
