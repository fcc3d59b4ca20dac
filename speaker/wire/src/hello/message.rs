//! The messages, as plain values (rules A10 to A13).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::KeySet;
use crate::{Boot, Epoch, MacAddr, NodeId, Revision, Salt, TableVersion, Vip};

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// I am here, and this is what I hold.
    Hello(Hello),
    /// Prove that you are not a recording: send a HELLO that echoes this (rule A7).
    Challenge(Salt),
    /// Send me your whole table, I have it only up to this version (rule A12).
    SyncRequest(TableVersion),
    /// A part of the whole table.
    Sync(Sync),
    /// Take this over from me (rule A43).
    Offer(Offer),
    /// I stop.
    Bye(Bye),
    /// Somebody you can't hear has a greater claim (rule A40).
    Tell(Tell),
    /// A type this version does not know: ignored (rule A9).
    Unknown(u8),
}

/// A message's type octet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Type 1.
    Hello,
    /// Type 2.
    Challenge,
    /// Type 3.
    SyncRequest,
    /// Type 4.
    Sync,
    /// Type 5.
    Offer,
    /// Type 6.
    Bye,
    /// Type 7.
    Tell,
    /// Another.
    Unknown(u8),
}

impl Kind {
    pub(super) const fn to_wire(self) -> u8 {
        match self {
            Self::Hello => 1,
            Self::Challenge => 2,
            Self::SyncRequest => 3,
            Self::Sync => 4,
            Self::Offer => 5,
            Self::Bye => 6,
            Self::Tell => 7,
            Self::Unknown(kind) => kind,
        }
    }

    pub(super) const fn from_wire(kind: u8) -> Self {
        match kind {
            1 => Self::Hello,
            2 => Self::Challenge,
            3 => Self::SyncRequest,
            4 => Self::Sync,
            5 => Self::Offer,
            6 => Self::Bye,
            7 => Self::Tell,
            other => Self::Unknown(other),
        }
    }
}

impl Message {
    /// The type octet's meaning.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Challenge(_) => Kind::Challenge,
            Self::SyncRequest(_) => Kind::SyncRequest,
            Self::Sync(_) => Kind::Sync,
            Self::Offer(_) => Kind::Offer,
            Self::Bye(_) => Kind::Bye,
            Self::Tell(_) => Kind::Tell,
            Self::Unknown(kind) => Kind::Unknown(*kind),
        }
    }
}

/// Rules A10 and A11.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// What the sender does.
    pub state: State,
    /// May hold addresses: it has carrier and is not mute (rule A26).
    pub able: bool,
    /// The next hello comes within this many milliseconds (rule A15).
    pub interval_ms: u16,
    /// Speakers it hears + 1 while somebody is missing, else 0 (rule A27).
    pub reach: u16,
    /// The version of its table of holdings (rule A14).
    pub table_version: TableVersion,
    /// Its interface's Ethernet address, which its kernel and its holdings answer with.
    pub mac: MacAddr,
    /// Its own IPv4 address on this segment, for probes.
    pub ipv4: Option<Ipv4Addr>,
    /// Its own IPv6 link-local address.
    pub ipv6: Option<Ipv6Addr>,
    /// The keys it accepts (rule A8).
    pub accepted_keys: KeySet,
    /// Whom it has not heard for too long (rule A18).
    pub suspects: Vec<Suspect>,
    /// Whom it heard of those that others suspect (rule A20).
    pub vouches: Vec<Vouch>,
    /// New holdings (rule A14).
    pub claims: Vec<Claim>,
    /// Holdings given up (rules A14 and A37).
    pub drops: Vec<Drop>,
    /// The answers to challenges (rule A7): one hello answers many.
    pub echoes: Vec<Salt>,
    /// The node's name, once a second.
    pub name: Option<String>,
}

/// What a speaker does on a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// A newcomer: listens, holds nothing (rule A24).
    Listen,
    /// Holds and claims.
    Active,
    /// Hands over (rule A43).
    Leaving,
    /// One that a later version has: alive, and more is not known.
    Other(u8),
}

/// A peer not heard for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Suspect {
    /// The peer.
    pub node: NodeId,
    /// Its life.
    pub boot: Boot,
}

/// A peer heard, told to those who did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Vouch {
    /// The peer.
    pub node: NodeId,
    /// Its life.
    pub boot: Boot,
    /// How long ago it was heard, in milliseconds.
    pub age_ms: u16,
    /// What of it was heard.
    pub kind: VouchKind,
}

/// What of a peer was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VouchKind {
    /// Its hello.
    Speaker,
    /// Its kernel's answer to a probe.
    Kernel,
}

/// "I hold this."
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The address.
    pub vip: Vip,
    /// The spec that lets me.
    pub revision: Revision,
    /// Which holding of it.
    pub epoch: Epoch,
}

/// "I hold this no more."
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Drop {
    /// The address.
    pub vip: Vip,
    /// Whose greater claim made me, if one did.
    pub winner: Option<NodeId>,
}

/// The highest epoch known of an address that the sender does not hold (rule A12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LastEpoch {
    /// The address.
    pub vip: Vip,
    /// The highest epoch known.
    pub max_epoch: Epoch,
    /// Who held it last, if known.
    pub last_holder: Option<NodeId>,
}

/// Rule A12: one frame of a whole table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sync {
    /// The table's version; parts of different versions don't mix.
    pub version: TableVersion,
    /// This part, from 0; below `total`.
    pub index: u16,
    /// Parts in all.
    pub total: u16,
    /// All holdings.
    pub claims: Vec<Claim>,
    /// What is known of the rest.
    pub epochs: Vec<LastEpoch>,
}

/// Rule A43.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Offer {
    /// The address offered.
    pub vip: Vip,
}

/// Rule A13.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bye {
    /// Why.
    pub reason: Reason,
    /// How long, in seconds, the holdings should be kept for a restart.
    pub hold_s: u16,
}

/// Why a speaker stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It will be back: keep what it holds.
    Restart,
    /// It gives up what it holds.
    Leave,
}

/// Rule A40.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tell {
    /// The address claimed twice.
    pub vip: Vip,
    /// Whose claim is greater.
    pub winner: NodeId,
    /// The winner's life.
    pub boot: Boot,
    /// How great it is.
    pub order: Order,
}

/// What claims are compared by (rule A28), as numbers on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Order {
    /// The claim's revision.
    pub revision: Revision,
    /// Its holder's reach; 0 = does not count.
    pub reach: u16,
    /// Its epoch.
    pub epoch: Epoch,
    /// hash(vip, node), the last resort.
    pub hash: u64,
}
