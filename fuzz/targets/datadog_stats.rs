//! Any bytes: refused, or a payload.
#![no_main]

use spanloom_codec::datadog::decode_stats;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(payload) = decode_stats(data) {
        assert!(payload.group_count() <= data.len());
    }
});
