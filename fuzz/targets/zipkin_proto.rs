//! Zipkin v2 protobuf.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use spanloom_codec::zipkin;
use spanloom_model::Intake;

fuzz_target!(|data: &[u8]| {
    if let Ok(batch) = zipkin::decode_proto(Bytes::copy_from_slice(data), Intake::default()) {
        let mut out = Vec::new();
        zipkin::encode_proto(&batch, &mut out);
        assert!(zipkin::decode_proto(out.into(), Intake::default()).is_ok());
    }
});
