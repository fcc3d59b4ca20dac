//! ARP for IPv4 over Ethernet: RFC 826, with the gratuitous forms of RFC 5227 and RFC 5944 section 4.6.
//!
//! ```text
//! octet 0     2     4   5   6     8        14      18       24      28
//!       | htype | ptype |hln|pln| operation | sha | spa | tha | tpa |
//! ```
//!
//! htype 1, ptype 0x0800, hln 6, pln 4; anything else is refused. `sha`, `spa`, `tha`, `tpa` are the RFC's
//! sender/target hardware/protocol addresses.
//!
//! Which form moves which neighbour cache was measured; the short version, for a Linux client whose entry is
//! younger than its `locktime` of 1 s: the request form moves it at once; the reply form only when tha = sha;
//! "who-has CLIENT tell VIP" moves it, creates it where there is none, and is answered.

use std::net::Ipv4Addr;

use pnet::packet::arp::{ArpHardwareTypes, ArpOperations, ArpPacket, MutableArpPacket};
use pnet::packet::ethernet::EtherTypes;

use crate::ethernet::{Ethernet, payload_mut};
use crate::{Layer, MacAddr, WireError};

/// Octets of an ARP packet for IPv4 over Ethernet.
pub const LEN: usize = 28;

const HARDWARE_LEN: u8 = 6;
const PROTOCOL_LEN: u8 = 4;

/// One ARP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    /// Request or reply.
    pub operation: Operation,
    /// Sender hardware address: where the sender wants traffic for `spa` to go.
    pub sha: MacAddr,
    /// Sender protocol address; unspecified in a probe.
    pub spa: Ipv4Addr,
    /// Target hardware address; meaningless in a request.
    pub tha: MacAddr,
    /// Target protocol address.
    pub tpa: Ipv4Addr,
}

/// What an ARP packet wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Who has `tpa`? Tell `spa`.
    Request,
    /// `spa` is at `sha`.
    Reply,
}

impl Arp {
    /// "Who has `target`, tell `sender`": to the gateway or a client with the VIP as sender (rule A46), or an
    /// ordinary question with the node's own address.
    pub fn who_has(target: Ipv4Addr, sender: Ipv4Addr, mac: MacAddr) -> Self {
        Self { operation: Operation::Request, sha: mac, spa: sender, tha: MacAddr::zero(), tpa: target }
    }

    /// A conflict probe: a request with an unspecified sender (RFC 5227, 1.1), which changes nobody's cache.
    pub fn probe(target: Ipv4Addr, mac: MacAddr) -> Self {
        Self::who_has(target, Ipv4Addr::UNSPECIFIED, mac)
    }

    /// The gratuitous announcement in request form, spa = tpa = `vip` (RFC 5227, 1.1).
    pub fn gratuitous_request(vip: Ipv4Addr, mac: MacAddr) -> Self {
        Self::who_has(vip, vip, mac)
    }

    /// The gratuitous announcement in reply form, spa = tpa = `vip` and tha = sha (RFC 5944, 4.6): with a
    /// broadcast tha Linux ignores it while the old entry is young.
    pub fn gratuitous_reply(vip: Ipv4Addr, mac: MacAddr) -> Self {
        Self { operation: Operation::Reply, sha: mac, spa: vip, tha: mac, tpa: vip }
    }

    /// The answer to this request: `tpa` is at `mac`.
    #[must_use]
    pub fn answer(&self, mac: MacAddr) -> Self {
        Self { operation: Operation::Reply, sha: mac, spa: self.tpa, tha: self.sha, tpa: self.spa }
    }

    /// True for announcements (spa = tpa), in request or reply form.
    pub fn is_gratuitous(&self) -> bool {
        self.spa == self.tpa
    }

    /// True for a conflict probe: somebody is about to use `tpa` (RFC 5227, 2.1.1).
    pub fn is_probe(&self) -> bool {
        self.operation == Operation::Request && self.spa.is_unspecified()
    }

    /// The whole Ethernet frame.
    pub fn to_frame(&self, ethernet: Ethernet) -> Vec<u8> {
        let mut frame = ethernet.frame(EtherTypes::Arp, LEN);
        let Some(mut arp) = MutableArpPacket::new(payload_mut(&mut frame)) else {
            unreachable!("LEN octets hold an ARP packet")
        };
        arp.set_hardware_type(ArpHardwareTypes::Ethernet);
        arp.set_protocol_type(EtherTypes::Ipv4);
        arp.set_hw_addr_len(HARDWARE_LEN);
        arp.set_proto_addr_len(PROTOCOL_LEN);
        arp.set_operation(match self.operation {
            Operation::Request => ArpOperations::Request,
            Operation::Reply => ArpOperations::Reply,
        });
        arp.set_sender_hw_addr(self.sha);
        arp.set_sender_proto_addr(self.spa.octets().into());
        arp.set_target_hw_addr(self.tha);
        arp.set_target_proto_addr(self.tpa.octets().into());
        frame
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let short = WireError::Short { layer: Layer::Arp, needed: LEN, got: bytes.len() };
        let arp = ArpPacket::new(Layer::Arp.first(bytes, LEN)?).ok_or(short)?;
        if arp.get_hardware_type() != ArpHardwareTypes::Ethernet || arp.get_hw_addr_len() != HARDWARE_LEN {
            return Err(Layer::Arp.invalid("hardware type"));
        }
        if arp.get_protocol_type() != EtherTypes::Ipv4 || arp.get_proto_addr_len() != PROTOCOL_LEN {
            return Err(Layer::Arp.invalid("protocol type"));
        }
        let operation = match arp.get_operation() {
            ArpOperations::Request => Operation::Request,
            ArpOperations::Reply => Operation::Reply,
            other => return Err(WireError::NotHandled { layer: Layer::Arp, value: u32::from(other.0) }),
        };
        Ok(Self {
            operation,
            sha: arp.get_sender_hw_addr(),
            spa: arp.get_sender_proto_addr().octets().into(),
            tha: arp.get_target_hw_addr(),
            tpa: arp.get_target_proto_addr().octets().into(),
        })
    }
}
