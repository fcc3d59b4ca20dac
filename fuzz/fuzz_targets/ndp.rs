//! ICMPv6 messages with the right checksum, from and to addresses of each kind.

#![no_main]

use std::net::Ipv6Addr;

use herald_fuzz::{frame, ipv6, parse_twice};

const UNICAST: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, 7);
const GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((kind, message)) = input.split_first() else { return };
    let source = if kind & 1 == 0 { UNICAST } else { Ipv6Addr::UNSPECIFIED };
    let destination = if kind & 2 == 0 { UNICAST } else { GROUP };
    parse_twice(&frame(0x86dd, &ipv6(source, destination, message)));
});
