//! What the fuzz targets share: bytes become frames that get past checksums and tags, and whatever is accepted must
//! survive being written and read again.

use std::net::Ipv6Addr;

use herald_wire::{Ethernet, Frame, MacAddr, Payload};

/// An Ethernet frame around fuzzed bytes.
#[must_use]
pub fn frame(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IPv4 packet with an ICMP message, its lengths and checksums right.
#[must_use]
pub fn ipv4(source: u32, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    mend(&mut message, &[]);
    let total = u16::try_from(20 + message.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x45, 0];
    packet.extend(total.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, 1, 0, 0]);
    packet.extend(source.to_be_bytes());
    packet.extend([192, 168, 1, 240]);
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(message);
    packet
}

/// An IPv6 packet with an ICMPv6 message, its length and checksum right.
#[must_use]
pub fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let pseudo_header =
        [&source.octets()[..], &destination.octets(), &len.to_be_bytes(), &[0, 0, 0, 58]].concat();
    mend(&mut message, &pseudo_header);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes());
    packet.extend([58, 255]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(message);
    packet
}

/// Puts the right checksum into an ICMP message.
fn mend(message: &mut [u8], pseudo_header: &[u8]) {
    if let Some(field) = message.get_mut(2..4) {
        field.fill(0);
        let sum = checksum(&[pseudo_header, &*message].concat());
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

/// Parses; what is accepted, written and parsed again, must be the same.
pub fn parse_twice(bytes: &[u8]) {
    let Ok(parsed) = herald_wire::parse(bytes) else { return };
    let Some(written) = write(&parsed) else { return };
    assert_eq!(herald_wire::parse(&written), Ok(parsed), "read back from {written:02x?}");
}

fn write(frame: &Frame<'_>) -> Option<Vec<u8>> {
    match &frame.payload {
        Payload::Arp(arp) => Some(arp.to_frame(frame.ethernet)),
        Payload::Ndp(ndp) => Some(ndp.to_frame(frame.ethernet)),
        Payload::Echo(echo) => Some(echo.to_frame(frame.ethernet)),
        // Only who has the key can write it: see the target for bodies.
        Payload::Hello(_) => None,
    }
}

/// Somebody's addresses.
#[must_use]
pub fn ethernet() -> Ethernet {
    Ethernet::broadcast(MacAddr(2, 0, 0, 0, 0, 2))
}
