//! A trace with everything it holds, in the order of a waterfall.

use serde_json::{Map, Value as Json, json};
use spanloom_codec::view;
use spanloom_model::{Attr, Batch, Range32, Resource, Span, Status, TraceId, Value, flags};
use spanloom_query::trace::Tree;

/// `{"traceId", "start", "duration", "missing", "resources", "spans"}`. Spans
/// name parent and resource by position in the lists.
pub(super) fn show(trace: &Batch) -> Json {
    let tree = Tree::new(trace);
    let mut place = vec![0usize; tree.nodes.len()];
    for (at, span) in tree.order.iter().enumerate() {
        place[*span] = at;
    }
    let mut resource_of = vec![0u32; trace.spans.len()];
    for chunk in &trace.chunks {
        for at in chunk.spans.usize() {
            if let Some(r) = resource_of.get_mut(at) {
                *r = chunk.resource;
            }
        }
    }
    let spans: Vec<Json> = tree
        .order
        .iter()
        .map(|&at| {
            let node = &tree.nodes[at];
            let mut span = show_span(trace, &trace.spans[at]);
            span.insert("parent".into(), node.parent.map(|p| place[p]).into());
            span.insert("depth".into(), node.depth.into());
            span.insert("orphan".into(), node.orphan.into());
            span.insert("selfTime".into(), node.self_time.into());
            span.insert("critical".into(), node.critical.into());
            span.insert("resourceIndex".into(), resource_of[at].into());
            Json::Object(span)
        })
        .collect();
    let timed = || trace.spans.iter().filter(|s| s.flags & flags::NO_START == 0);
    let start = timed().map(|s| s.start).min().unwrap_or(0);
    let end = timed().map(Span::end).max().unwrap_or(0);
    let id = trace.spans.first().map_or(TraceId(0), |s| s.trace_id);
    json!({
        "traceId": id.to_string(),
        "start": start.to_string(),
        "duration": end.saturating_sub(start),
        "missing": tree.missing.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "resources": trace.resources.iter().map(|r| show_resource(trace, r)).collect::<Vec<_>>(),
        "spans": spans,
    })
}

fn show_resource(trace: &Batch, r: &Resource) -> Json {
    let mut list = attributes(trace, r.attrs);
    for (key, text) in r.fields() {
        if !text.is_empty() && trace.get(r.attrs, key).is_none() {
            list.push(json!({"key": key, "value": trace.str(text)}));
        }
    }
    json!({"attributes": list})
}

fn show_span(trace: &Batch, s: &Span) -> Map<String, Json> {
    let mut out = Map::new();
    let mut put = |key: &str, value: Json| out.insert(key.to_owned(), value);
    put("spanId", s.span_id.to_string().into());
    put("parentId", if s.parent_id.is_zero() { Json::Null } else { s.parent_id.to_string().into() });
    for (key, text) in [
        ("service", s.service),
        ("name", s.name),
        ("resource", s.resource),
        ("type", s.span_type),
        ("traceState", s.trace_state),
    ] {
        put(key, trace.str(text).into());
    }
    put("kind", trace.role(s).name().into());
    let status = match view::status(s) {
        Status::Unset => "unset",
        Status::Ok => "ok",
        Status::Error => "error",
    };
    put("status", status.into());
    put("statusMessage", view::status_message(trace, s).into());
    let timed = s.flags & flags::NO_START == 0;
    put("start", if timed { s.start.to_string().into() } else { Json::Null });
    put("duration", if s.flags & flags::NO_DURATION == 0 { s.duration.into() } else { Json::Null });
    put("attributes", attributes(trace, s.attrs).into());
    let events: Vec<Json> = trace
        .span_events(s)
        .iter()
        .map(|e| {
            json!({"time": e.time.to_string(), "name": trace.str(e.name), "attributes": attributes(trace, e.attrs)})
        })
        .collect();
    put("events", events.into());
    let links: Vec<Json> = trace
        .span_links(s)
        .iter()
        .map(|l| {
            json!({"traceId": l.trace_id.to_string(), "spanId": l.span_id.to_string(),
                   "traceState": trace.str(l.trace_state), "attributes": attributes(trace, l.attrs)})
        })
        .collect();
    put("links", links.into());
    if let Some(scope) = view::scope(trace, s) {
        let scope = json!({"name": trace.str(scope.name), "version": trace.str(scope.version),
                           "attributes": attributes(trace, scope.attrs)});
        put("scope", scope);
    }
    put("dropped", json!({"attributes": s.dropped[0], "events": s.dropped[1], "links": s.dropped[2]}));
    out
}

/// `{"key", "value"}`; bytes are `{"base64"}` so that they are told from text.
fn attributes(trace: &Batch, range: Range32) -> Vec<Json> {
    trace
        .attrs(range)
        .iter()
        .map(|a: &Attr| json!({"key": trace.str(a.key), "value": value(trace, a.value)}))
        .collect()
}

fn value(trace: &Batch, v: Value) -> Json {
    /// Integers beyond this are texts, as JavaScript would round them.
    const SAFE: u64 = (1 << 53) - 1;
    match v {
        Value::Int(n) if n.unsigned_abs() > SAFE => n.to_string().into(),
        Value::Int(n) => n.into(),
        Value::Double(n) if n.fract() == 0.0 && n.abs() < 1e15 => (n as i64).into(),
        Value::Double(n) if !n.is_finite() => n.to_string().into(),
        Value::Bytes(_) => {
            let mut text = String::new();
            view::print_value(trace, v, &mut text);
            json!({"base64": text})
        }
        Value::Empty => Json::Null,
        Value::Str(t) => trace.str(t).into(),
        Value::Bool(b) => b.into(),
        Value::Double(n) => n.into(),
        Value::List(_) | Value::Map(_) => {
            let mut text = String::new();
            view::print_value(trace, v, &mut text);
            serde_json::from_str(&text).unwrap_or(Json::String(text))
        }
    }
}
