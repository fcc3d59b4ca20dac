//! Ethernet II headers, untagged: the kernel takes 802.1Q tags off before a packet socket sees the frame, and a
//! frame that still carries one belongs to another segment.

use std::net::Ipv6Addr;

use pnet::packet::ethernet::{EtherType, EthernetPacket, MutableEthernetPacket};

use crate::{Layer, MacAddr, WireError};

/// Octets of an Ethernet II header.
pub const HEADER_LEN: usize = 14;

/// The addresses of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ethernet {
    /// Whom the frame is sent to.
    pub destination: MacAddr,
    /// Who sent it: always the interface's own address in what we send, also where a deputy answers with
    /// another's address inside the payload (rule A45).
    pub source: MacAddr,
}

impl Ethernet {
    /// From `source` to `destination`.
    pub const fn new(destination: MacAddr, source: MacAddr) -> Self {
        Self { destination, source }
    }

    /// From `source` to everybody.
    pub const fn broadcast(source: MacAddr) -> Self {
        Self::new(MacAddr(0xff, 0xff, 0xff, 0xff, 0xff, 0xff), source)
    }

    /// From `source` to the multicast `group`'s Ethernet address (RFC 2464, section 7).
    pub const fn multicast(group: Ipv6Addr, source: MacAddr) -> Self {
        let [.., a, b, c, d] = group.octets();
        Self::new(MacAddr(0x33, 0x33, a, b, c, d), source)
    }

    /// A zeroed frame with this header and room for `payload_len` octets.
    pub(crate) fn frame(self, ethertype: EtherType, payload_len: usize) -> Vec<u8> {
        let mut frame = vec![0; HEADER_LEN + payload_len];
        let Some(mut header) = MutableEthernetPacket::new(&mut frame) else {
            unreachable!("a frame is never shorter than its header")
        };
        header.set_destination(self.destination);
        header.set_source(self.source);
        header.set_ethertype(ethertype);
        frame
    }
}

/// The payload's bytes in a frame made by [`Ethernet::frame`].
pub(crate) fn payload_mut(frame: &mut [u8]) -> &mut [u8] {
    frame.get_mut(HEADER_LEN..).unwrap_or_default()
}

pub(crate) fn split(frame: &[u8]) -> Result<(Ethernet, EtherType, &[u8]), WireError> {
    let short = WireError::Short { layer: Layer::Ethernet, needed: HEADER_LEN, got: frame.len() };
    let (header, payload) = frame.split_at_checked(HEADER_LEN).ok_or(short)?;
    let header = EthernetPacket::new(header).ok_or(short)?;
    Ok((Ethernet::new(header.get_destination(), header.get_source()), header.get_ethertype(), payload))
}
