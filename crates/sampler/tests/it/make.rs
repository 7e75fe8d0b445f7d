//! Batches for the tests.

use serde_json::Value as Json;
use spanloom_model::{Attr, Batch, Chunk, Range32, Resource, Span, SpanId, Status, TraceId, Value};

pub const SECOND: i64 = 1_000_000_000;
/// A round time of the recordings.
pub const NOW: i64 = 1_700_000_000 * SECOND;

/// Spans of one chunk from JSON: the fields and defaults of the vectors.
pub fn batch(spans: &[Json]) -> Batch {
    let mut b = Batch::default();
    b.resources.push(Resource::default());
    for json in spans {
        let text = |b: &mut Batch, key: &str| b.arena.push(json[key].as_str().unwrap_or_default());
        let id = |key: &str| match &json[key] {
            Json::String(s) => SpanId(s.parse().unwrap()),
            v => SpanId(v.as_u64().unwrap_or(0)),
        };
        let start = b.attrs.len();
        for (key, value) in json["meta"].as_object().into_iter().flatten() {
            let key = b.arena.push(key);
            let value = Value::Str(b.arena.push(value.as_str().unwrap()));
            b.attrs.push(Attr { key, value });
        }
        for (key, value) in json["metrics"].as_object().into_iter().flatten() {
            let key = b.arena.push(key);
            b.attrs.push(Attr { key, value: Value::Double(value.as_f64().unwrap()) });
        }
        let error = json["error"].as_i64().unwrap_or(0) as i32;
        let span = Span {
            span_id: id("span_id"),
            parent_id: id("parent_id"),
            trace_id: TraceId(match &json["trace_id"] {
                Json::String(s) => s.parse().unwrap(),
                v => u128::from(v.as_u64().unwrap_or(1)),
            }),
            service: text(&mut b, "service"),
            name: text(&mut b, "name"),
            resource: text(&mut b, "resource"),
            span_type: text(&mut b, "type"),
            start: json["start"].as_i64().unwrap_or(NOW),
            duration: json["duration"].as_i64().unwrap_or(1_000_000),
            attrs: Range32::new(start, b.attrs.len()),
            error,
            status: if error == 0 { Status::Unset } else { Status::Error },
            ..Span::default()
        };
        b.spans.push(span);
    }
    let spans = Range32::new(0, b.spans.len());
    let trace_id = b.spans.first().map(|s| s.trace_id).unwrap_or_default();
    b.chunks.push(Chunk { spans, trace_id, ..Chunk::default() });
    b
}

/// The same, with the chunk's priority.
pub fn with_priority(spans: &[Json], priority: i32) -> Batch {
    let mut b = batch(spans);
    b.chunks[0].priority = priority;
    b
}

/// Number under a key of a span.
pub fn metric(b: &Batch, span: usize, key: &str) -> Option<f64> {
    b.get_f64(b.spans[span].attrs, key)
}
