//! Jaeger Thrift, compact encoding.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use spanloom_codec::jaeger;
use spanloom_codec::thrift::Encoding;
use spanloom_model::Intake;

fuzz_target!(|data: &[u8]| {
    if let Ok(decoded) = jaeger::decode_udp_compact(Bytes::copy_from_slice(data), Intake::default()) {
        for body in jaeger::encode_emit_batch(&decoded.batch, Encoding::Compact) {
            assert!(jaeger::decode_udp_compact(body.into(), Intake::default()).is_ok());
        }
    }
});
