//! OTLP JSON.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use spanloom_codec::otlp;
use spanloom_model::Intake;

fuzz_target!(|data: &[u8]| {
    if let Ok(decoded) = otlp::decode_json(Bytes::copy_from_slice(data), Intake::default()) {
        let mut out = Vec::new();
        otlp::encode_json(&decoded.batch, &mut out);
        assert!(otlp::decode_json(out.into(), Intake::default()).is_ok());
    }
});
