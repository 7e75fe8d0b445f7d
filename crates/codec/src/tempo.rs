//! A trace as Grafana Tempo answers it (tempo:pkg/tempopb/tempo.proto). Output
//! only. What Tempo calls a `Trace` is OTLP's list of resource spans.

use crate::otlp;
use crate::protobuf::Writer;
use spanloom_model::Batch;

/// Appends a batch as `tempopb.Trace`.
pub fn encode_trace(batch: &Batch, out: &mut Vec<u8>) {
    otlp::encode_proto(batch, out);
}

/// Appends a batch as `tempopb.TraceByIDResponse`, complete.
pub fn encode_trace_by_id(batch: &Batch, out: &mut Vec<u8>) {
    let mut trace = Vec::new();
    encode_trace(batch, &mut trace);
    Writer::new(out).bytes_always(1, &trace);
}

/// Appends a batch as the JSON of a list of `ResourceSpans` in protobuf's own
/// mapping: ids in base64, enums by name.
pub fn encode_json(batch: &Batch, out: &mut Vec<u8>) {
    otlp::encode_json_with(batch, otlp::JsonStyle::Proto3, out);
}
