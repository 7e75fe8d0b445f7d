//! Links and events that Datadog tracers send as JSON inside tags:
//! `_dd.span_links` and `events`. What does not parse stays a tag only.

use serde_json::Value as Json;
use spanloom_model::{Batch, Span, SpanId, TraceId, keys};

/// Most entries shown of one tag.
const MOST: usize = 1000;

/// Links of `_dd.span_links`: trace, span, and whether as a child (not said).
pub(super) fn links(trace: &Batch, span: &Span) -> Vec<(TraceId, SpanId, Option<bool>)> {
    entries(trace, span, keys::DD_SPAN_LINKS)
        .iter()
        .filter_map(|link| {
            let id = |key: &str| link.get(key).and_then(Json::as_str);
            let low = TraceId::parse_hex(id("trace_id")?).ok()?;
            let high = id("trace_id_high").and_then(|h| SpanId::parse_hex(h).ok());
            let trace_id = high.map_or(low, |h| TraceId::from_halves(h.0, low.low()));
            Some((trace_id, SpanId::parse_hex(id("span_id")?).ok()?, None))
        })
        .collect()
}

/// Time in nanoseconds, name, attributes.
type Event = (u64, String, Vec<(String, Json)>);

/// Events of the tag `events`.
pub(super) fn events(trace: &Batch, span: &Span) -> Vec<Event> {
    entries(trace, span, keys::DD_EVENTS)
        .into_iter()
        .filter_map(|event| {
            let Json::Object(mut event) = event else { return None };
            let time = event.get("time_unix_nano").and_then(Json::as_u64)?;
            let name = event.get("name").and_then(Json::as_str)?.to_owned();
            let attributes = match event.remove("attributes") {
                Some(Json::Object(map)) => map.into_iter().collect(),
                _ => Vec::new(),
            };
            Some((time, name, attributes))
        })
        .collect()
}

fn entries(trace: &Batch, span: &Span, key: &str) -> Vec<Json> {
    let Some(text) = trace.get_str(span.attrs, key) else { return Vec::new() };
    match serde_json::from_str(text) {
        Ok(Json::Array(mut entries)) => {
            entries.truncate(MOST);
            entries
        }
        _ => Vec::new(),
    }
}
