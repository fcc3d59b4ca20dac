//! ARP packets.

#![no_main]

libfuzzer_sys::fuzz_target!(|packet: &[u8]| herald_fuzz::parse_twice(&herald_fuzz::frame(0x0806, packet)));
