//! Any bytes for any part of a segment's files: refused, or read; never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| spanloom_segment::fuzz::decode(data));
