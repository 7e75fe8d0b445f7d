//! Any bytes: refused, or a sound batch that survives being written again.
#![no_main]

#[path = "../../crates/codec/tests/it/datadog/check.rs"]
mod check;

use bytes::Bytes;
use spanloom_codec::datadog::{Encoding, RequestMeta, decode_traces, encode_v05};
use spanloom_model::{Intake, Protocol};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let body = Bytes::copy_from_slice(data);
    let result = decode_traces(
        Protocol::DatadogV05,
        Encoding::Msgpack,
        body,
        Intake::default(),
        &RequestMeta::default(),
    );
    if let Ok(batch) = result {
        check::check(&batch);
        // What was understood can be written, and reads back as the same spans.
        let body = Bytes::from(encode_v05(&batch));
        let back = decode_traces(
            Protocol::DatadogV05,
            Encoding::Msgpack,
            body,
            Intake::default(),
            &RequestMeta::default(),
        );
        let back = back.expect("our own encoding");
        assert_eq!(back.spans.len(), batch.spans.len());
        for (a, b) in batch.spans.iter().zip(&back.spans) {
            assert_eq!((a.trace_id, a.span_id, a.start, a.error), (b.trace_id, b.span_id, b.start, b.error));
            assert_eq!(a.attrs.len(), b.attrs.len());
            assert_eq!(batch.str(a.service), back.str(b.service));
        }
    }
});
