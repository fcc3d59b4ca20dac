//! IPv4 packets as they come, and ICMP messages with the right checksums.

#![no_main]

use herald_fuzz::{frame, ipv4, parse_twice};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    match input.split_first() {
        Some((0, packet)) => parse_twice(&frame(0x0800, packet)),
        Some((source, message)) => parse_twice(&frame(0x0800, &ipv4(u32::from(*source), message))),
        None => {}
    }
});
