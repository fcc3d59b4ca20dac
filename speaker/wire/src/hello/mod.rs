//! The speakers' protocol on the wire: docs/protocol.md, rules A4 to A14.
//!
//! One frame is Ethernet II with EtherType 0x88b5, sent to the group [`GROUP`] or to one peer's address, from the
//! interface's own. All numbers are big-endian. The payload:
//!
//! ```text
//! octet  len
//!   0     4   magic        "HRLD"
//!   4     1   version      1
//!   5     1   type         1 HELLO, 2 CHALLENGE, 3 SYNC_REQ, 4 SYNC, 5 OFFER, 6 BYE, 7 TELL
//!   6     2   flags        bit 0: reserved for the sparse mode of rule A15; bit 1: the sender's node is cordoned;
//!                        the rest zero, ignored when received
//!   8     8   cluster id
//!  16     8   node id      the sender's, never 0
//!  24     8   boot         the sender's
//!  32     4   ifindex      the sender's interface
//!  36     8   counter      +1 per frame of (boot, ifindex)
//!  44     1   key id       0-7
//!  45     2   len          octets of the body
//!  47   len   body
//! 47+len 16   tag          HMAC-SHA-256 over octets 0 to 47+len, its first 128 bits
//! ```
//!
//! Octets behind the tag are padding. Each body is a fixed part, by type, followed by TLVs:
//!
//! ```text
//! HELLO      state u8 (1 LISTEN, 2 ACTIVE, 3 LEAVING) | able u8 (0 = no) | interval_ms u16 | reach u16 |
//!            table_version u64 | mac 6 | ipv4 4 (0 = none) | ipv6 16 (0 = none) | accepted_keys u8 (bit i: key id i)
//! CHALLENGE  salt u64
//! SYNC_REQ   from_version u64
//! SYNC       version u64 | index u16 | total u16        index < total
//! OFFER      vip 16
//! BYE        reason u8 (1 RESTART, 2 LEAVE) | hold_s u16
//! TELL       vip 16 | winner u64 (node) | boot u64 | revision u64 | reach u16 | epoch u64 | hash u64
//!
//! TLV        type u8 | len u16 | value
//!   1 SUSPECT  entries of 16: node u64 | boot u64
//!   2 VOUCH    entries of 19: node u64 | boot u64 | age_ms u16 | kind u8 (1 speaker, 2 kernel)
//!   3 CLAIM    entries of 32: vip 16 | revision u64 | epoch u64
//!   4 DROP     entries of 24: vip 16 | winner u64 (node, 0 = nobody)
//!   5 ECHO     entries of 8: salt u64
//!   6 NAME     UTF-8, the node's name
//!   7 EPOCH    entries of 32: vip 16 | max_epoch u64 | last_holder u64 (node, 0 = nobody)
//! ```
//!
//! HELLO takes TLVs 1 to 6, SYNC 3 and 7. A list that comes in several TLVs is one list; of several names the last
//! counts. A vip is 16 octets, IPv4 as IPv4-mapped IPv6.
//!
//! A later minor version may add to this, and must stay alive in the eyes of an older speaker (rule A9): TLVs of
//! another type, or in another message, are skipped, as are entries with a value that an older speaker can't know
//! (another vouch kind, a node id of 0) and a name that is no UTF-8; another state is [`State::Other`]. Only lengths
//! that don't add up make a body malformed, and a BYE for an unknown reason, which has no harmless meaning.
//!
//! Writing: [`Keyring::seal`]. Reading, in the order of rule A5, cheapest first: [`Sealed::parse`] (length, magic,
//! version), [`Verifier::verify`] (cluster, key id, tag, own node), the caller's [`crate::ReplayWindow`], then
//! [`Verified::message`]. A frame in our own node's name is reported only once its tag has been verified, because
//! what follows from it (rule A52 falls silent on an interface, DuplicateNode is shown to users) must not be had
//! for a forged one.

mod codec;
mod key;
mod message;
mod open;
mod seal;

use pnet::packet::ethernet::EtherType;

use crate::{Boot, ClusterId, Counter, IfIndex, MacAddr, NodeId};

pub use self::codec::Malformed;
pub use self::key::{KeyId, KeySet, Keyring, Secret};
pub use self::message::{
    Bye, Claim, Drop, Hello, Kind, LastEpoch, Message, Offer, Order, Reason, State, Suspect, Sync, Tell,
    Vouch, VouchKind,
};
pub use self::open::{Refused, Sealed, Verified, Verifier};
pub use self::seal::SealError;

/// Local experimental EtherType 1 of IEEE 802.
pub const ETHERTYPE: EtherType = EtherType(0x88b5);
/// The group all speakers listen to: locally administered, multicast.
pub const GROUP: MacAddr = MacAddr(0x03, 0x68, 0x65, 0x72, 0x6c, 0x64);
/// The protocol version this crate speaks.
pub const VERSION: u8 = 1;
/// Octets before the body.
pub const HEADER_LEN: usize = 47;
/// Octets of the tag behind the body.
pub const TAG_LEN: usize = 16;
/// Octets before a TLV's value.
const TLV_HEADER_LEN: usize = 3;

const MAGIC: [u8; 4] = *b"HRLD";

/// What every frame says about its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The sender's cluster.
    pub cluster: ClusterId,
    /// The sender.
    pub node: NodeId,
    /// Which of its lives.
    pub boot: Boot,
    /// Which of its interfaces.
    pub ifindex: IfIndex,
    /// Which frame of these.
    pub counter: Counter,
    /// The key that seals it.
    pub key: KeyId,
    /// What else is true of every frame of the sender.
    pub flags: Flags,
}

/// The header's flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(u16);

impl Flags {
    /// No flag set.
    pub const NONE: Self = Self(0);
    /// The sender's node is cordoned: it claims only what no other could (rule A29). Bit 0 is reserved (rule A4).
    pub const CORDONED: Self = Self(2);

    /// These flags and those.
    #[must_use]
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Whether all of `others` are set.
    pub const fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// From the field on the wire, unknown bits too.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// The field on the wire.
    pub const fn bits(self) -> u16 {
        self.0
    }
}
