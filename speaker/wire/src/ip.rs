//! The IP headers under echo and neighbour discovery: just enough to carry ICMP, no fragments.
//!
//! pnet without its `std` feature, which would bring sockets and libc, has address types of its own: they are
//! converted by their octets.

use std::net::{Ipv4Addr, Ipv6Addr};

use pnet::packet::ethernet::EtherTypes;
use pnet::packet::icmpv6::Icmpv6Type;
use pnet::packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet::packet::ipv4::{self, Ipv4Flags, Ipv4Packet, MutableIpv4Packet};
use pnet::packet::ipv6::{Ipv6Packet, MutableIpv6Packet};
use pnet::packet::util;

use crate::ethernet::{Ethernet, payload_mut};
use crate::{Layer, WireError};

const V4_HEADER_LEN: usize = 20;
const V6_HEADER_LEN: usize = 40;
/// Type, code, checksum.
const ICMP_MIN_LEN: usize = 4;
/// Where the checksum stands in an ICMP message, in 16-bit words.
const ICMP_CHECKSUM_WORD: usize = 1;

/// An ICMP message whose headers and checksums were verified.
pub(crate) struct Icmpv4<'a> {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    /// From the type octet on.
    pub(crate) message: &'a [u8],
}

impl<'a> Icmpv4<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let layer = Layer::Ipv4;
        let short = WireError::Short { layer, needed: V4_HEADER_LEN, got: bytes.len() };
        let header = Ipv4Packet::new(layer.at_least(bytes, V4_HEADER_LEN)?).ok_or(short)?;
        let header_len = usize::from(header.get_header_length()) * 4;
        let total_len = usize::from(header.get_total_length());
        if header.get_version() != 4 || header_len < V4_HEADER_LEN || total_len < header_len {
            return Err(layer.invalid("header"));
        }
        let packet = layer.first(bytes, total_len)?;
        let (header_bytes, message) = packet.split_at_checked(header_len).ok_or(short)?;
        if util::checksum(header_bytes, 5) != header.get_checksum() {
            return Err(WireError::Checksum { layer });
        }
        if header.get_flags() & Ipv4Flags::MoreFragments != 0 || header.get_fragment_offset() != 0 {
            return Err(layer.invalid("fragment"));
        }
        only(layer, header.get_next_level_protocol(), IpNextHeaderProtocols::Icmp)?;
        Layer::Icmp.at_least(message, ICMP_MIN_LEN)?;
        // Over the message with its checksum in place the sum is zero (RFC 1071); `usize::MAX` skips no word.
        if util::checksum(message, usize::MAX) != 0 {
            return Err(WireError::Checksum { layer: Layer::Icmp });
        }
        Ok(Self {
            source: header.get_source().octets().into(),
            destination: header.get_destination().octets().into(),
            message,
        })
    }

    /// The whole Ethernet frame; the message's checksum field must still be zero.
    pub(crate) fn to_frame(&self, ethernet: Ethernet) -> Vec<u8> {
        let mut frame = ethernet.frame(EtherTypes::Ipv4, V4_HEADER_LEN + self.message.len());
        let total_len = u16::try_from(V4_HEADER_LEN + self.message.len()).unwrap_or(u16::MAX);
        let Some(mut header) = MutableIpv4Packet::new(payload_mut(&mut frame)) else {
            unreachable!("the frame was made with room for the IPv4 header")
        };
        header.set_version(4);
        header.set_header_length(5);
        header.set_total_length(total_len);
        header.set_flags(Ipv4Flags::DontFragment);
        header.set_ttl(64);
        header.set_next_level_protocol(IpNextHeaderProtocols::Icmp);
        header.set_source(self.source.octets().into());
        header.set_destination(self.destination.octets().into());
        header.set_checksum(ipv4::checksum(&header.to_immutable()));
        header.set_payload(self.message);
        let sum = util::checksum(self.message, ICMP_CHECKSUM_WORD);
        set_checksum(payload_mut(&mut frame).get_mut(V4_HEADER_LEN..), sum);
        frame
    }
}

/// An ICMPv6 message whose headers and checksum were verified.
pub(crate) struct Icmpv6<'a> {
    pub(crate) source: Ipv6Addr,
    pub(crate) destination: Ipv6Addr,
    pub(crate) hop_limit: u8,
    /// From the type octet on.
    pub(crate) message: &'a [u8],
}

impl<'a> Icmpv6<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let layer = Layer::Ipv6;
        let short = WireError::Short { layer, needed: V6_HEADER_LEN, got: bytes.len() };
        let header = Ipv6Packet::new(layer.at_least(bytes, V6_HEADER_LEN)?).ok_or(short)?;
        if header.get_version() != 6 {
            return Err(layer.invalid("version"));
        }
        only(layer, header.get_next_header(), IpNextHeaderProtocols::Icmpv6)?;
        let total_len = V6_HEADER_LEN + usize::from(header.get_payload_length());
        let message = layer.first(bytes, total_len)?.get(V6_HEADER_LEN..).ok_or(short)?;
        Layer::Icmpv6.at_least(message, ICMP_MIN_LEN)?;
        let source = Ipv6Addr::from(header.get_source().octets());
        let destination = Ipv6Addr::from(header.get_destination().octets());
        if icmpv6_checksum(message, usize::MAX, source, destination) != 0 {
            return Err(WireError::Checksum { layer: Layer::Icmpv6 });
        }
        Ok(Self { source, destination, hop_limit: header.get_hop_limit(), message })
    }

    pub(crate) fn kind(&self) -> Icmpv6Type {
        Icmpv6Type(self.message.first().copied().unwrap_or_default())
    }

    /// The whole Ethernet frame; the message's checksum field must still be zero.
    pub(crate) fn to_frame(&self, ethernet: Ethernet) -> Vec<u8> {
        let mut frame = ethernet.frame(EtherTypes::Ipv6, V6_HEADER_LEN + self.message.len());
        let Some(mut header) = MutableIpv6Packet::new(payload_mut(&mut frame)) else {
            unreachable!("the frame was made with room for the IPv6 header")
        };
        header.set_version(6);
        header.set_payload_length(u16::try_from(self.message.len()).unwrap_or(u16::MAX));
        header.set_next_header(IpNextHeaderProtocols::Icmpv6);
        header.set_hop_limit(self.hop_limit);
        header.set_source(self.source.octets().into());
        header.set_destination(self.destination.octets().into());
        header.set_payload(self.message);
        let sum = icmpv6_checksum(self.message, ICMP_CHECKSUM_WORD, self.source, self.destination);
        set_checksum(payload_mut(&mut frame).get_mut(V6_HEADER_LEN..), sum);
        frame
    }
}

/// RFC 4443, 2.3: over the pseudo-header of RFC 8200, 8.1, and the message.
fn icmpv6_checksum(message: &[u8], skip_word: usize, source: Ipv6Addr, destination: Ipv6Addr) -> u16 {
    let (source, destination) = (source.octets().into(), destination.octets().into());
    util::ipv6_checksum(message, skip_word, &[], &source, &destination, IpNextHeaderProtocols::Icmpv6)
}

fn set_checksum(message: Option<&mut [u8]>, sum: u16) {
    if let Some(field) = message.and_then(|message| message.get_mut(2..4)) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

fn only(layer: Layer, got: IpNextHeaderProtocol, wanted: IpNextHeaderProtocol) -> Result<(), WireError> {
    if got == wanted { Ok(()) } else { Err(WireError::NotHandled { layer, value: u32::from(got.0) }) }
}
