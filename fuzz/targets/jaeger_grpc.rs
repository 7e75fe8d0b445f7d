//! Jaeger protobuf.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use spanloom_codec::jaeger;
use spanloom_model::Intake;

fuzz_target!(|data: &[u8]| {
    if let Ok(decoded) = jaeger::decode_grpc(Bytes::copy_from_slice(data), Intake::default()) {
        let mut out = Vec::new();
        jaeger::encode_proto(&decoded.batch, &mut out);
        assert!(jaeger::decode_grpc(out.into(), Intake::default()).is_ok());
    }
});
