//! Whole frames, as they come.

#![no_main]

libfuzzer_sys::fuzz_target!(|frame: &[u8]| herald_fuzz::parse_twice(frame));
