//! Any bytes: refused, or a sound batch.
#![no_main]

#[path = "../../crates/codec/tests/it/datadog/check.rs"]
mod check;

use bytes::Bytes;
use spanloom_codec::datadog::{Encoding, RequestMeta, decode_traces};
use spanloom_model::{Intake, Protocol};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let body = Bytes::copy_from_slice(data);
    let result = decode_traces(
        Protocol::DatadogV07,
        Encoding::Msgpack,
        body,
        Intake::default(),
        &RequestMeta::default(),
    );
    if let Ok(batch) = result {
        check::check(&batch);
    }
});
