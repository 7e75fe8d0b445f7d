//! Files of the repository, and a rendering of batches to compare with.

use bytes::Bytes;
use serde_json::{Map, Value as Json, json};
use spanloom_codec::DecodeError;
use spanloom_codec::datadog::{Encoding, RequestMeta, decode_traces};
use spanloom_model::{Batch, Intake, Protocol, Range32, Value};
use std::path::{Path, PathBuf};

pub const META: RequestMeta<'static> = RequestMeta {
    lang: "python",
    lang_version: "3.11.7",
    tracer_version: "4.16.0",
    container_id: "c1",
    process_tags: "",
};

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

pub fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub fn read_json(path: &Path) -> Json {
    serde_json::from_slice(&read(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub fn decode(protocol: Protocol, body: &[u8]) -> Result<Batch, DecodeError> {
    decode_as(protocol, Encoding::Msgpack, body)
}

pub fn decode_as(protocol: Protocol, encoding: Encoding, body: &[u8]) -> Result<Batch, DecodeError> {
    decode_traces(protocol, encoding, Bytes::copy_from_slice(body), Intake::default(), &META)
}

/// The bytes written as hexadecimal digits, blanks ignored.
pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
    digits.chunks(2).map(|p| p[0] << 4 | p[1]).collect()
}

pub fn protocol_of(path: &str) -> Option<Protocol> {
    Some(match path {
        p if p.contains("v0.3") => Protocol::DatadogV03,
        p if p.contains("v0.4") => Protocol::DatadogV04,
        p if p.contains("v0.5") => Protocol::DatadogV05,
        p if p.contains("v0.7") => Protocol::DatadogV07,
        p if p.contains("v1.0") => Protocol::DatadogV1,
        _ => return None,
    })
}

/// A batch as the array of arrays of span maps that a v0.4 body is, complete:
/// every field is there.
pub fn render(b: &Batch) -> Json {
    let chunks = b.chunks.iter().map(|c| b.chunk_spans(c).iter().map(|s| render_span(b, s)).collect());
    Json::Array(chunks.collect())
}

pub fn render_span(b: &Batch, s: &spanloom_model::Span) -> Json {
    let mut maps = [Map::new(), Map::new(), Map::new()];
    for a in b.attrs(s.attrs) {
        let (map, value) = match a.value {
            Value::Str(t) => (0, json!(b.str(t))),
            Value::Double(v) => (1, number(v)),
            Value::Bytes(t) => (2, json!(b.arena.bytes(t))),
            other => panic!("{other:?} among the attributes of a span"),
        };
        let old = maps[map].insert(b.str(a.key).to_owned(), value);
        assert!(old.is_none(), "{} is there twice", b.str(a.key));
    }
    let [meta, metrics, meta_struct] = maps;
    let links: Vec<Json> = b
        .span_links(s)
        .iter()
        .map(|l| {
            json!({"trace_id": l.trace_id.low(), "trace_id_high": l.trace_id.high(), "span_id": l.span_id.0,
                   "tracestate": b.str(l.trace_state), "flags": l.flags, "attributes": render_attrs(b, l.attrs)})
        })
        .collect();
    let events: Vec<Json> = b
        .span_events(s)
        .iter()
        .map(|e| json!({"time_unix_nano": e.time, "name": b.str(e.name), "attributes": render_attrs(b, e.attrs)}))
        .collect();
    json!({
        "service": b.str(s.service), "name": b.str(s.name), "resource": b.str(s.resource), "type": b.str(s.span_type),
        "trace_id": s.trace_id.low(), "span_id": s.span_id.0, "parent_id": s.parent_id.0,
        "start": s.start, "duration": s.duration, "error": s.error,
        "meta": meta, "metrics": metrics, "meta_struct": meta_struct, "span_links": links, "span_events": events,
    })
}

pub fn render_attrs(b: &Batch, range: Range32) -> Json {
    let entries = b.attrs(range).iter().map(|a| (b.str(a.key).to_owned(), render_value(b, a.value)));
    Json::Object(entries.collect())
}

pub fn render_value(b: &Batch, value: Value) -> Json {
    match value {
        Value::Empty => Json::Null,
        Value::Str(t) => json!(b.str(t)),
        Value::Bool(v) => json!(v),
        Value::Int(v) => json!(v),
        Value::Double(v) => json!(v),
        Value::Bytes(t) => json!({"bytes": b.arena.bytes(t)}),
        Value::List(r) => b.list(r).iter().map(|v| render_value(b, *v)).collect(),
        Value::Map(r) => render_attrs(b, r),
    }
}

/// A number in a form that survives the rounding of the JSON parser's floats.
pub fn number(v: f64) -> Json {
    json!(format!("{v:.12e}"))
}
