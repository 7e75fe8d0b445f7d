//! Any bytes as a frame of the tail sampling buffer: refused, or read; never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| spanloom_holding::decode_any(data));
