//! Zipkin v1 Thrift.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use spanloom_codec::zipkin;
use spanloom_model::Intake;

fuzz_target!(|data: &[u8]| {
    let _ = zipkin::decode_thrift(Bytes::copy_from_slice(data), Intake::default());
});
