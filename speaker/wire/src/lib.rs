//! Frames on the LAN: Ethernet, ARP, ICMPv6 neighbour discovery, echo, and the speakers' hello.
//!
//! Owns every byte layout that leaves or enters a node. [`parse`] turns one Ethernet frame into a plain
//! [`Frame`]; each message type turns itself into a whole frame with `to_frame`. What must always hold: no
//! bytes, however broken, make a function of this crate panic or read out of bounds, and what parses was
//! checked (lengths, checksums, codes), so its fields can be used as they are.
//!
//! It decides nothing: who answers, who holds, which key is current and which counter is fresh is for
//! `herald-l2`. It opens no socket.
//!
//! | EtherType | module | what |
//! |---|---|---|
//! | 0x0806 | [`arp`] | ARP for IPv4 over Ethernet (RFC 826, RFC 5227) |
//! | 0x86dd | [`ndp`], [`echo`] | neighbour solicitation and advertisement (RFC 4861), echo (RFC 4443) |
//! | 0x0800 | [`echo`] | echo (RFC 792) |
//! | 0x88b5 | [`hello`] | the speakers' protocol (docs/protocol.md, rules A4-A14) |

pub mod arp;
pub mod echo;
pub mod ethernet;
pub mod hello;
pub mod ndp;

mod error;
mod id;
mod ip;
mod replay;

use pnet::packet::ethernet::EtherTypes;

pub use pnet::util::MacAddr;

pub use crate::arp::Arp;
pub use crate::echo::Echo;
pub use crate::error::{Layer, WireError};
pub use crate::ethernet::Ethernet;
pub use crate::id::{Boot, ClusterId, Counter, Epoch, IfIndex, NodeId, Revision, Salt, TableVersion, Vip};
pub use crate::ndp::Ndp;
pub use crate::replay::{Replay, ReplayWindow};

/// One received Ethernet frame that this crate understands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The Ethernet addresses.
    pub ethernet: Ethernet,
    /// What the frame carries.
    pub payload: Payload<'a>,
}

/// What a [`Frame`] carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload<'a> {
    /// An ARP request or reply.
    Arp(Arp),
    /// An ICMPv6 neighbour solicitation or advertisement.
    Ndp(Ndp),
    /// An ICMP or ICMPv6 echo request or reply with our 8-byte nonce.
    Echo(Echo),
    /// A speaker's message, its tag not verified yet: see [`hello::Verifier`].
    Hello(hello::Sealed<'a>),
}

/// Parses one whole Ethernet frame, starting at the destination address.
///
/// Padding behind the payload is ignored, as short frames are padded on the wire.
pub fn parse(frame: &[u8]) -> Result<Frame<'_>, WireError> {
    let (ethernet, ethertype, payload) = ethernet::split(frame)?;
    let payload = match ethertype {
        EtherTypes::Arp => Payload::Arp(Arp::parse(payload)?),
        EtherTypes::Ipv4 => Payload::Echo(echo::parse_v4(payload)?),
        EtherTypes::Ipv6 => parse_v6(payload)?,
        hello::ETHERTYPE => Payload::Hello(hello::Sealed::parse(payload)?),
        other => return Err(WireError::NotHandled { layer: Layer::Ethernet, value: u32::from(other.0) }),
    };
    Ok(Frame { ethernet, payload })
}

fn parse_v6(payload: &[u8]) -> Result<Payload<'static>, WireError> {
    let packet = ip::Icmpv6::parse(payload)?;
    match packet.kind() {
        kind if ndp::handles(kind) => ndp::parse(&packet).map(Payload::Ndp),
        _ => echo::parse_v6(&packet).map(Payload::Echo),
    }
}
