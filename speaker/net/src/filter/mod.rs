//! The classic BPF programs of the two packet sockets of an interface: what the speaker needs reaches it, the rest
//! costs the kernel a handful of instructions and is never copied.
//!
//! What passes, of frames that are not addressed to another host and belong to no VLAN of another interface, into
//! the one socket hello frames (EtherType 0x88b5), into the other:
//!
//! - ARP whose target or sender protocol address is of interest;
//! - ARP replies addressed to this host: answers to our own probes;
//! - neighbour solicitations and advertisements whose target is of interest;
//! - neighbour advertisements addressed to this host;
//! - ICMP and ICMPv6 echo replies addressed to this host whose length is that of our probes.
//!
//! The kernel has taken a VLAN tag off before the filter runs, so tagged frames look like untagged ones and are told
//! apart by the tag kept beside the frame; priority tags (VLAN 0) belong to the interface itself. "Addressed to this
//! host" is the kernel's own verdict (`PACKET_HOST`), so a changed MAC address needs no new program. A frame too
//! short for a load is dropped by the kernel.
//!
//! The addresses of interest become sorted intervals, searched by halves: a pool in one range takes two
//! comparisons. Too many intervals are merged across the smallest gaps, which lets a few foreign frames pass but
//! never loses one of ours; the core looks at each address anyway.

mod intervals;
mod program;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use herald_wire::{echo, hello};

use self::intervals::Intervals;
use self::program::{Fragment, Load, branch};

pub use self::program::Instruction;

/// The kernel's limit, BPF_MAXINSNS.
pub const MAX_LEN: usize = 4096;

/// How many intervals of one family a program tells apart at most.
pub const MAX_INTERVALS: usize = 128;

/// What may go to the intervals of IPv6; those of IPv4 take less than the rest at [`MAX_INTERVALS`].
const MAX_V6_LEN: usize = 2400;

const ETHERTYPE: Load = Load::half(12);
const ARP_OPERATION: Load = Load::half(20);
const ARP_SPA: u32 = 28;
const ARP_TPA: u32 = 38;
const IPV4_VERSION_AND_LEN: Load = Load::byte(14);
const IPV4_TOTAL_LEN: Load = Load::half(16);
const IPV4_PROTOCOL: Load = Load::byte(23);
const ICMP_TYPE: Load = Load::byte(34);
const IPV6_PAYLOAD_LEN: Load = Load::half(18);
const IPV6_NEXT_HEADER: Load = Load::byte(20);
const ICMPV6_TYPE: Load = Load::byte(54);
const NDP_TARGET: u32 = 62;

/// A program for a packet socket.
#[derive(Debug, Clone)]
pub struct Program {
    instructions: Vec<Instruction>,
}

impl Program {
    /// The program for hello frames.
    pub fn hello() -> Self {
        let is_hello = program::equals(u32::from(hello::ETHERTYPE.0));
        // The EtherType first: on most frames that is all there is to do.
        let hello = not_for_another_host().or_else(not_of_another_vlan()).or_else(Fragment::accept());
        let whole = ETHERTYPE.then(branch(is_hello, hello, Fragment::drop()));
        Self { instructions: whole.assemble() }
    }

    /// The program for everything else, with these addresses of interest.
    pub fn new(interest: &[IpAddr]) -> Self {
        Self::with_at_most(interest, MAX_INTERVALS)
    }

    /// The same with at most `max` intervals per family: for kernels that allow a socket little memory.
    pub fn with_at_most(interest: &[IpAddr], max: usize) -> Self {
        let v4 = Intervals::v4(interest.iter().filter_map(|ip| match ip {
            IpAddr::V4(ip) => Some(*ip),
            IpAddr::V6(_) => None,
        }));
        let v6 = Intervals::v6(interest.iter().filter_map(|ip| match ip {
            IpAddr::V4(_) => None,
            IpAddr::V6(ip) => Some(*ip),
        }));
        let whole = not_for_another_host()
            .or_else(not_of_another_vlan())
            .or_else(by_ethertype(&v4.at_most(max), v6_target(&v6, max)));
        Self { instructions: whole.assemble() }
    }

    /// The instructions, as the kernel takes them.
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }
}

/// Drops what the interface only hears because it is promiscuous; misses on the rest.
fn not_for_another_host() -> Fragment {
    Load::PACKET_TYPE.then(branch(
        program::equals(program::PACKET_OTHERHOST),
        Fragment::drop(),
        Fragment::miss(),
    ))
}

/// Drops what belongs to a VLAN interface on top of this one; misses on the rest.
fn not_of_another_vlan() -> Fragment {
    let tag = Load::VLAN_ID.then(branch(program::equals(0), Fragment::miss(), Fragment::drop()));
    Load::VLAN_TAG_PRESENT.then(branch(program::equals(0), Fragment::miss(), tag))
}

fn by_ethertype(v4: &Intervals, v6_target: Fragment) -> Fragment {
    let cases = [(libc::ETH_P_ARP, arp(v4)), (libc::ETH_P_IP, icmp()), (libc::ETH_P_IPV6, icmpv6(v6_target))];
    let tests = cases.into_iter().rev().fold(Fragment::drop(), |others, (ethertype, case)| {
        branch(program::equals(ethertype.cast_unsigned()), case, others)
    });
    ETHERTYPE.then(tests)
}

fn arp(v4: &Intervals) -> Fragment {
    const REPLY: u32 = 2;
    let answer = ARP_OPERATION.then(branch(program::equals(REPLY), Fragment::accept(), Fragment::miss()));
    to_this_host(answer)
        .or_else(Fragment::search(ARP_TPA, v4))
        .or_else(Fragment::search(ARP_SPA, v4))
        .or_else(Fragment::drop())
}

fn icmp() -> Fragment {
    /// An IPv4 header of 20 octets, as the kernel answers with.
    const VERSION_AND_LEN: u32 = 0x45;
    const ECHO_REPLY: u32 = 0;
    const TOTAL_LEN: u32 = 20 + ECHO_LEN;
    to_this_host(all(&[
        (IPV4_PROTOCOL, libc::IPPROTO_ICMP.cast_unsigned()),
        (IPV4_TOTAL_LEN, TOTAL_LEN),
        (IPV4_VERSION_AND_LEN, VERSION_AND_LEN),
        (ICMP_TYPE, ECHO_REPLY),
    ]))
    .or_else(Fragment::drop())
}

fn icmpv6(target: Fragment) -> Fragment {
    const ECHO_REPLY: u32 = 129;
    const SOLICITATION: u32 = 135;
    const ADVERTISEMENT: u32 = 136;
    let is_icmpv6 = program::equals(libc::IPPROTO_ICMPV6.cast_unsigned());
    let echo = to_this_host(all(&[(ICMPV6_TYPE, ECHO_REPLY), (IPV6_PAYLOAD_LEN, ECHO_LEN)]));
    let advertisement = to_this_host(all(&[(ICMPV6_TYPE, ADVERTISEMENT)]));
    let neither = Fragment::drop();
    let neighbour = ICMPV6_TYPE.then(branch(
        program::equals(SOLICITATION),
        Fragment::miss(),
        branch(program::equals(ADVERTISEMENT), Fragment::miss(), neither),
    ));
    let message = echo.or_else(advertisement).or_else(neighbour).or_else(target).or_else(Fragment::drop());
    IPV6_NEXT_HEADER.then(branch(is_icmpv6, message, Fragment::drop()))
}

/// As many intervals as fit into [`MAX_V6_LEN`]: scattered ones take up to 30 times those that share a /96.
fn v6_target(v6: &Intervals, max: usize) -> Fragment {
    let mut max = max.max(1);
    loop {
        let fragment = Fragment::search(NDP_TARGET, &v6.at_most(max));
        if fragment.len() <= MAX_V6_LEN || max == 1 {
            return fragment;
        }
        max /= 2;
    }
}

/// Octets of an echo message of ours.
const ECHO_LEN: u32 = 16;
const _: () = assert!(echo::LEN == ECHO_LEN as usize, "the length this filter lets pass");

fn to_this_host(then: Fragment) -> Fragment {
    Load::PACKET_TYPE.then(branch(program::equals(program::PACKET_HOST), then, Fragment::miss()))
}

/// Accepts when all fields have these values, misses otherwise.
fn all(fields: &[(Load, u32)]) -> Fragment {
    fields.iter().rev().fold(Fragment::accept(), |rest, (field, value)| {
        field.then(branch(program::equals(*value), rest, Fragment::miss()))
    })
}
