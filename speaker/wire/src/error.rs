//! Why bytes were not taken as a frame.

use std::fmt;

/// Why [`crate::parse`] refused a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes end before the header or the length it promises.
    #[error("{layer}: {got} bytes, {needed} needed")]
    Short {
        /// Whose bytes ran out.
        layer: Layer,
        /// Bytes needed, in octets.
        needed: usize,
        /// Bytes there, in octets.
        got: usize,
    },
    /// A field holds a value that the protocol forbids.
    #[error("{layer}: invalid {field}")]
    Invalid {
        /// Whose field.
        layer: Layer,
        /// The field's name.
        field: &'static str,
    },
    /// The checksum does not match.
    #[error("{layer}: wrong checksum")]
    Checksum {
        /// Whose checksum.
        layer: Layer,
    },
    /// Well-formed so far, but nothing this crate handles (another EtherType, protocol or message type).
    #[error("{layer}: type {value:#x} is not handled")]
    NotHandled {
        /// Where the type stood.
        layer: Layer,
        /// The type's value.
        value: u32,
    },
    /// A speaker's frame of another protocol version (rule A9).
    #[error("hello: version {version}, this speaker knows {}", crate::hello::VERSION)]
    Version {
        /// The version it names.
        version: u8,
    },
}

/// A protocol layer, for error messages and counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layer {
    /// Ethernet II.
    Ethernet,
    /// ARP.
    Arp,
    /// The IPv4 header.
    Ipv4,
    /// The IPv6 header.
    Ipv6,
    /// ICMP for IPv4.
    Icmp,
    /// ICMPv6.
    Icmpv6,
    /// The speakers' protocol.
    Hello,
}

impl Layer {
    /// A short lower-case name, fit for a metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ethernet => "ethernet",
            Self::Arp => "arp",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Icmp => "icmp",
            Self::Icmpv6 => "icmpv6",
            Self::Hello => "hello",
        }
    }

    /// `bytes`, if there are at least `needed` of them.
    pub(crate) fn at_least(self, bytes: &[u8], needed: usize) -> Result<&[u8], WireError> {
        if bytes.len() < needed {
            return Err(WireError::Short { layer: self, needed, got: bytes.len() });
        }
        Ok(bytes)
    }

    /// The first `len` of `bytes`.
    pub(crate) fn first(self, bytes: &[u8], len: usize) -> Result<&[u8], WireError> {
        bytes.get(..len).ok_or(WireError::Short { layer: self, needed: len, got: bytes.len() })
    }

    pub(crate) const fn invalid(self, field: &'static str) -> WireError {
        WireError::Invalid { layer: self, field }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
