//! ICMPv6 neighbour solicitations and advertisements (RFC 4861, sections 4.3 and 4.4).
//!
//! ```text
//! octet 0      1      2          4                 8          24
//!       | type | code | checksum | R S O reserved  | target   | options ...
//! ```
//!
//! Type 135 solicitation (flags zero; option 1: source link-layer address), 136 advertisement (option 2: target
//! link-layer address). Hop limit must be 255, code 0, the target no multicast address, option lengths not zero
//! (RFC 4861, 7.1.1 and 7.1.2), a probe comes without option 1 and to a solicited-node group; other options are skipped.
//!
//! Only O=1 moves an existing neighbour entry on Linux; a solicitation with source = VIP and a source link-layer
//! option moves and creates. Therefore every advertisement of ours carries O=1, solicited ones too.

use std::net::Ipv6Addr;

use pnet::packet::icmpv6::ndp::{
    MutableNeighborAdvertPacket, NdpOptionTypes, NeighborAdvertFlags, NeighborAdvertPacket,
};
use pnet::packet::icmpv6::{Icmpv6Code, Icmpv6Type, Icmpv6Types};

use crate::ethernet::Ethernet;
use crate::ip::Icmpv6;
use crate::{Layer, MacAddr, WireError};

/// All nodes on the link (RFC 4291, 2.7.1): where unsolicited advertisements go.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// RFC 4861: a neighbour's packet was never forwarded, so its hop limit is still the greatest.
const HOP_LIMIT: u8 = 255;
const FIXED_LEN: usize = 24;
/// A link-layer address option for Ethernet: type, length in units of 8 octets, address (RFC 2464, section 6).
const OPTION_LEN: usize = 8;
const OPTION_LEN_UNITS: u8 = 1;

/// One neighbour solicitation or advertisement with its IPv6 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ndp {
    /// IPv6 source; unspecified in a duplicate address probe.
    pub source: Ipv6Addr,
    /// IPv6 destination.
    pub destination: Ipv6Addr,
    /// The message.
    pub message: Message,
}

/// The message of a [`Ndp`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// Who has `target`?
    Solicitation {
        /// The address asked for.
        target: Ipv6Addr,
        /// The asker's address on the link; never there in a duplicate address probe.
        source_mac: Option<MacAddr>,
    },
    /// `target` is at `target_mac`.
    Advertisement {
        /// The address spoken of.
        target: Ipv6Addr,
        /// Its address on the link.
        target_mac: Option<MacAddr>,
        /// R: the sender is a router.
        router: bool,
        /// S: this answers a solicitation.
        solicited: bool,
        /// O: overrides an existing entry.
        overrides: bool,
    },
}

/// The solicited-node multicast group of `target` (RFC 4291, 2.7.1).
pub const fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    Ipv6Addr::from_octets([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

fn is_solicited_node(group: Ipv6Addr) -> bool {
    group == solicited_node(group)
}

impl Ndp {
    /// "Who has `target`, tell `source`", to the target's group: with a VIP as `source` it moves and creates the
    /// target's entry and is answered (rule A46). Pair it with `Ethernet::multicast(solicited_node(target), mac)`,
    /// or with the target's own Ethernet address.
    pub fn who_has(target: Ipv6Addr, source: Ipv6Addr, mac: MacAddr) -> Self {
        let message = Message::Solicitation { target, source_mac: Some(mac) };
        Self { source, destination: solicited_node(target), message }
    }

    /// The same to the target's own address, as for a reachability probe (RFC 4861, 7.3.3).
    pub fn who_has_unicast(target: Ipv6Addr, source: Ipv6Addr, mac: MacAddr) -> Self {
        Self { destination: target, ..Self::who_has(target, source, mac) }
    }

    /// A conflict probe: from the unspecified address, without the option (RFC 4862, 5.4.2).
    pub fn probe(target: Ipv6Addr) -> Self {
        let message = Message::Solicitation { target, source_mac: None };
        Self { source: Ipv6Addr::UNSPECIFIED, destination: solicited_node(target), message }
    }

    /// The unsolicited announcement, O=1, to all nodes (RFC 4861, 7.2.6).
    pub fn announcement(vip: Ipv6Addr, mac: MacAddr) -> Self {
        Self { source: vip, destination: ALL_NODES, message: advertisement(vip, mac, false) }
    }

    /// The answer to this solicitation for `vip`: O=1, solicited, to the asker; to a duplicate address probe, O=1
    /// to all nodes (RFC 4861, 7.2.4), which tells the prober that the address is taken.
    ///
    /// `None` for an advertisement.
    pub fn answer(&self, mac: MacAddr) -> Option<Self> {
        let Message::Solicitation { target, .. } = self.message else { return None };
        let (destination, solicited) = if self.is_probe() { (ALL_NODES, false) } else { (self.source, true) };
        Some(Self { source: target, destination, message: advertisement(target, mac, solicited) })
    }

    /// The address asked for or spoken of.
    pub fn target(&self) -> Ipv6Addr {
        match self.message {
            Message::Solicitation { target, .. } | Message::Advertisement { target, .. } => target,
        }
    }

    /// True for a duplicate address probe: somebody is about to use the target.
    pub fn is_probe(&self) -> bool {
        self.source.is_unspecified() && matches!(self.message, Message::Solicitation { .. })
    }

    /// The whole Ethernet frame.
    pub fn to_frame(&self, ethernet: Ethernet) -> Vec<u8> {
        let (kind, flags, target, option) = match self.message {
            Message::Solicitation { target, source_mac } => (
                Icmpv6Types::NeighborSolicit,
                0,
                target,
                source_mac.map(|mac| (NdpOptionTypes::SourceLLAddr, mac)),
            ),
            Message::Advertisement { target, target_mac, router, solicited, overrides } => (
                Icmpv6Types::NeighborAdvert,
                [
                    (router, NeighborAdvertFlags::Router),
                    (solicited, NeighborAdvertFlags::Solicited),
                    (overrides, NeighborAdvertFlags::Override),
                ]
                .into_iter()
                .filter(|(set, _)| *set)
                .fold(0, |flags, (_, flag)| flags | flag),
                target,
                target_mac.map(|mac| (NdpOptionTypes::TargetLLAddr, mac)),
            ),
        };
        let mut message = vec![0; FIXED_LEN];
        // Both messages have one layout; a solicitation's flags are reserved and zero.
        let Some(mut packet) = MutableNeighborAdvertPacket::new(&mut message) else {
            unreachable!("FIXED_LEN octets hold the message")
        };
        packet.set_icmpv6_type(kind);
        packet.set_flags(flags);
        packet.set_target_addr(target.octets().into());
        if let Some((kind, mac)) = option {
            message.extend([kind.0, OPTION_LEN_UNITS]);
            message.extend(mac.octets());
        }
        Icmpv6 { source: self.source, destination: self.destination, hop_limit: HOP_LIMIT, message: &message }
            .to_frame(ethernet)
    }
}

fn advertisement(target: Ipv6Addr, mac: MacAddr, solicited: bool) -> Message {
    Message::Advertisement { target, target_mac: Some(mac), router: false, solicited, overrides: true }
}

pub(crate) fn handles(kind: Icmpv6Type) -> bool {
    matches!(kind, Icmpv6Types::NeighborSolicit | Icmpv6Types::NeighborAdvert)
}

pub(crate) fn parse(packet: &Icmpv6<'_>) -> Result<Ndp, WireError> {
    let layer = Layer::Icmpv6;
    if packet.hop_limit != HOP_LIMIT {
        return Err(layer.invalid("hop limit"));
    }
    let short = WireError::Short { layer, needed: FIXED_LEN, got: packet.message.len() };
    let (fixed, options) = packet.message.split_at_checked(FIXED_LEN).ok_or(short)?;
    let fixed = NeighborAdvertPacket::new(fixed).ok_or(short)?;
    if fixed.get_icmpv6_code() != Icmpv6Code(0) {
        return Err(layer.invalid("code"));
    }
    let target = Ipv6Addr::from(fixed.get_target_addr().octets());
    if target.is_multicast() {
        return Err(layer.invalid("target"));
    }
    let options = LinkLayerOptions::parse(options)?;
    let message = if packet.kind() == Icmpv6Types::NeighborSolicit {
        if packet.source.is_unspecified() && options.source.is_some() {
            return Err(layer.invalid("source option in a probe"));
        }
        if packet.source.is_unspecified() && !is_solicited_node(packet.destination) {
            return Err(layer.invalid("destination of a probe"));
        }
        Message::Solicitation { target, source_mac: options.source }
    } else {
        let flag = |bit| fixed.get_flags() & bit != 0;
        let solicited = flag(NeighborAdvertFlags::Solicited);
        if packet.destination.is_multicast() && solicited {
            return Err(layer.invalid("solicited flag to a group"));
        }
        Message::Advertisement {
            target,
            target_mac: options.target,
            router: flag(NeighborAdvertFlags::Router),
            solicited,
            overrides: flag(NeighborAdvertFlags::Override),
        }
    };
    Ok(Ndp { source: packet.source, destination: packet.destination, message })
}

/// The two options we read; of several alike the first counts.
#[derive(Default)]
struct LinkLayerOptions {
    source: Option<MacAddr>,
    target: Option<MacAddr>,
}

impl LinkLayerOptions {
    fn parse(mut bytes: &[u8]) -> Result<Self, WireError> {
        let layer = Layer::Icmpv6;
        let mut found = Self::default();
        while let [kind, units, ..] = *bytes {
            let len = usize::from(units) * OPTION_LEN;
            if len == 0 {
                return Err(layer.invalid("option length"));
            }
            let short = WireError::Short { layer, needed: len, got: bytes.len() };
            let (option, rest) = bytes.split_at_checked(len).ok_or(short)?;
            if let [_, OPTION_LEN_UNITS, a, b, c, d, e, f] = *option {
                let mac = MacAddr(a, b, c, d, e, f);
                if kind == NdpOptionTypes::SourceLLAddr.0 {
                    found.source.get_or_insert(mac);
                } else if kind == NdpOptionTypes::TargetLLAddr.0 {
                    found.target.get_or_insert(mac);
                }
            }
            bytes = rest;
        }
        // One stray octet can't be an option.
        if bytes.is_empty() { Ok(found) } else { Err(layer.invalid("option length")) }
    }
}
