//! ICMP and ICMPv6 echo with an 8-byte nonce: two-way proof (rule A25) and kernel probes (rule A22).
//!
//! ```text
//! octet 0      1      2          4            6          8           16
//!       | type | code | checksum | identifier | sequence | nonce (8) |
//! ```
//!
//! Types 8 and 0 over IPv4 (RFC 792), 128 and 129 over IPv6 (RFC 4443, section 4). The payload is the nonce and
//! nothing else: what has another length is somebody else's ping.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pnet::packet::icmp::{IcmpCode, IcmpType, IcmpTypes, echo_request as v4};
use pnet::packet::icmpv6::{Icmpv6Code, Icmpv6Types, echo_request as v6};
use pnet::packet::{MutablePacket, Packet};

use crate::ethernet::Ethernet;
use crate::ip::{Icmpv4, Icmpv6};
use crate::{Layer, WireError};

/// Octets of an echo message with its nonce.
pub const LEN: usize = 8 + NONCE_LEN;

const NONCE_LEN: usize = 8;

/// One echo request or reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    /// The IP addresses, of one family.
    pub path: Path,
    /// Request or reply.
    pub operation: Operation,
    /// Chosen by the asker, returned as it was.
    pub identifier: u16,
    /// Chosen by the asker, returned as it was.
    pub sequence: u16,
    /// Chosen at random by the asker, returned as it was: what proves that this very probe was answered.
    pub nonce: [u8; NONCE_LEN],
}

/// Question or answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Are you there?
    Request,
    /// Here.
    Reply,
}

/// Source and destination of an IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Path {
    /// Over IPv4.
    V4 {
        /// The sender.
        source: Ipv4Addr,
        /// The receiver.
        destination: Ipv4Addr,
    },
    /// Over IPv6.
    V6 {
        /// The sender.
        source: Ipv6Addr,
        /// The receiver.
        destination: Ipv6Addr,
    },
}

impl Path {
    /// From `source` to `destination`, if both are of one family.
    pub fn between(source: IpAddr, destination: IpAddr) -> Option<Self> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Some(Self::V4 { source, destination }),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Some(Self::V6 { source, destination }),
            _ => None,
        }
    }

    /// The sender.
    pub fn source(&self) -> IpAddr {
        match *self {
            Self::V4 { source, .. } => source.into(),
            Self::V6 { source, .. } => source.into(),
        }
    }

    /// The receiver.
    pub fn destination(&self) -> IpAddr {
        match *self {
            Self::V4 { destination, .. } => destination.into(),
            Self::V6 { destination, .. } => destination.into(),
        }
    }
}

impl Echo {
    /// The whole Ethernet frame.
    pub fn to_frame(&self, ethernet: Ethernet) -> Vec<u8> {
        match self.path {
            Path::V4 { source, destination } => {
                let kind = match self.operation {
                    Operation::Request => IcmpTypes::EchoRequest,
                    Operation::Reply => IcmpTypes::EchoReply,
                };
                Icmpv4 { source, destination, message: &self.message(kind) }.to_frame(ethernet)
            }
            Path::V6 { source, destination } => {
                let kind = match self.operation {
                    Operation::Request => Icmpv6Types::EchoRequest,
                    Operation::Reply => Icmpv6Types::EchoReply,
                };
                // The two ICMP versions share this message's layout, so one writer serves both.
                let message = self.message(IcmpType(kind.0));
                Icmpv6 { source, destination, hop_limit: 64, message: &message }.to_frame(ethernet)
            }
        }
    }

    fn message(&self, kind: IcmpType) -> [u8; LEN] {
        let mut message = [0; LEN];
        let Some(mut echo) = v4::MutableEchoRequestPacket::new(&mut message) else {
            unreachable!("LEN octets hold an echo message")
        };
        echo.set_icmp_type(kind);
        echo.set_identifier(self.identifier);
        echo.set_sequence_number(self.sequence);
        echo.payload_mut().copy_from_slice(&self.nonce);
        message
    }
}

pub(crate) fn parse_v4(bytes: &[u8]) -> Result<Echo, WireError> {
    let layer = Layer::Icmp;
    let Icmpv4 { source, destination, message } = Icmpv4::parse(bytes)?;
    let short = WireError::Short { layer, needed: LEN, got: message.len() };
    let echo = v4::EchoRequestPacket::new(layer.at_least(message, LEN)?).ok_or(short)?;
    let operation = match (echo.get_icmp_type(), echo.get_icmp_code()) {
        (IcmpTypes::EchoRequest, IcmpCode(0)) => Operation::Request,
        (IcmpTypes::EchoReply, IcmpCode(0)) => Operation::Reply,
        (other, _) => return Err(WireError::NotHandled { layer, value: u32::from(other.0) }),
    };
    Ok(Echo {
        path: Path::V4 { source, destination },
        operation,
        identifier: echo.get_identifier(),
        sequence: echo.get_sequence_number(),
        nonce: nonce(layer, echo.payload())?,
    })
}

pub(crate) fn parse_v6(packet: &Icmpv6<'_>) -> Result<Echo, WireError> {
    let layer = Layer::Icmpv6;
    let operation = match packet.kind() {
        Icmpv6Types::EchoRequest => Operation::Request,
        Icmpv6Types::EchoReply => Operation::Reply,
        other => return Err(WireError::NotHandled { layer, value: u32::from(other.0) }),
    };
    let short = WireError::Short { layer, needed: LEN, got: packet.message.len() };
    let echo = v6::EchoRequestPacket::new(layer.at_least(packet.message, LEN)?).ok_or(short)?;
    if echo.get_icmpv6_code() != Icmpv6Code(0) {
        return Err(layer.invalid("code"));
    }
    Ok(Echo {
        path: Path::V6 { source: packet.source, destination: packet.destination },
        operation,
        identifier: echo.get_identifier(),
        sequence: echo.get_sequence_number(),
        nonce: nonce(layer, echo.payload())?,
    })
}

fn nonce(layer: Layer, payload: &[u8]) -> Result<[u8; NONCE_LEN], WireError> {
    payload.try_into().map_err(|_| layer.invalid("echo payload length"))
}
