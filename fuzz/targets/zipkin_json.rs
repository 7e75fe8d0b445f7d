//! Zipkin v1 and v2 JSON.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use spanloom_codec::zipkin;
use spanloom_model::Intake;

fuzz_target!(|data: &[u8]| {
    let body = Bytes::copy_from_slice(data);
    let _ = zipkin::decode_json_v1(body.clone(), Intake::default());
    if let Ok(batch) = zipkin::decode_json_v2(body, Intake::default()) {
        let mut out = Vec::new();
        zipkin::encode_json_v2(&batch, &mut out);
        assert!(zipkin::decode_json_v2(out.into(), Intake::default()).is_ok());
    }
});
