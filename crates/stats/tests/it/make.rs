//! Batches and concentrators for the tests.

use serde_json::Value as Json;
use spanloom_model::{Attr, Batch, Chunk, Range32, Resource, Span, SpanId, Status, Value};
use spanloom_stats::{Concentrator, Settings};
use std::borrow::Cow;

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
    b.chunks.push(Chunk { spans, ..Chunk::default() });
    b
}

/// Hides plain IPv4 addresses with an optional port, which is what the tests
/// need of the obfuscator.
pub fn hide(value: &str) -> Cow<'_, str> {
    let (host, rest) = value.split_at(value.find(':').unwrap_or(value.len()));
    let parts: Vec<_> = host.split('.').collect();
    if parts.len() == 4 && parts.iter().all(|p| p.parse::<u8>().is_ok()) {
        Cow::Owned(format!("blocked-ip-address{rest}"))
    } else {
        Cow::Borrowed(value)
    }
}

/// Default settings with the test's `hide`.
pub fn settings() -> Settings {
    Settings { quantize_peer: hide, hostname: "agent-host".into(), ..Settings::default() }
}

/// A concentrator that has counted one batch of one chunk.
pub fn counted(settings: Settings, batch: &Batch) -> Concentrator {
    let mut c = Concentrator::new(settings, NOW);
    c.add_chunk(batch, &batch.chunks[0], NOW);
    c
}
