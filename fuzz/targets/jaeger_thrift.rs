//! Jaeger Thrift, binary encoding: HTTP bodies and datagrams.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use spanloom_codec::jaeger;
use spanloom_model::Intake;

fuzz_target!(|data: &[u8]| {
    let body = Bytes::copy_from_slice(data);
    let _ = jaeger::decode_udp_binary(body.clone(), Intake::default());
    if let Ok(decoded) = jaeger::decode_thrift_http(body, Intake::default()) {
        for body in jaeger::encode_thrift(&decoded.batch) {
            assert!(jaeger::decode_thrift_http(body.into(), Intake::default()).is_ok());
        }
    }
});
