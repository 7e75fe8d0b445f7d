//! The parts of a span that segments keep as JSON or compare.

use crate::json::{put_attrs, put_int, put_str, put_value};
use spanloom_model::{Batch, Chunk, PRIORITY_NONE, Range32, Resource, Span, Status, Text, Value};

/// Everything that the segment keeps of a span, for comparison.
pub(crate) fn content(batch: &Batch, chunk: &Chunk, span: &Span) -> Vec<u8> {
    let mut out = Vec::new();
    for n in [span.span_id.0, span.parent_id.0, span.start as u64, span.duration as u64, span.flags] {
        out.extend_from_slice(&n.to_le_bytes());
    }
    out.push(span.kind as u8);
    out.push(span.status as u8);
    out.extend_from_slice(&span.error.to_le_bytes());
    for t in [span.service, span.name, span.resource, span.span_type, span.trace_state, span.status_message] {
        put_str(&mut out, batch.str(t));
    }
    put_attrs(&mut out, batch, span.attrs, 0);
    put_events(&mut out, batch, span);
    put_links(&mut out, batch, span);
    put_dropped(&mut out, span);
    if let Some(r) = batch.resources.get(chunk.resource as usize) {
        put_process(&mut out, batch, r);
    }
    put_scope(&mut out, batch, span.scope);
    put_chunk(&mut out, batch, chunk);
    out
}

/// Writer of the members of a JSON object.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    any: bool,
}

impl<'a> Object<'a> {
    fn new(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, any: false }
    }
    fn key(&mut self, key: &str) -> &mut Vec<u8> {
        if std::mem::replace(&mut self.any, true) {
            self.out.push(b',');
        }
        put_str(self.out, key);
        self.out.push(b':');
        self.out
    }
    fn text(&mut self, key: &str, batch: &Batch, text: Text) {
        if !text.is_empty() {
            put_str(self.key(key), batch.str(text));
        }
    }
    fn int(&mut self, key: &str, value: i64) {
        if value != 0 {
            put_int(self.key(key), value);
        }
    }
    fn attrs(&mut self, batch: &Batch, range: Range32) {
        if !range.is_empty() {
            put_value(self.key("attributes"), batch, &Value::Map(range), 1);
        }
    }
    fn end(self) {
        self.out.push(b'}');
    }
}

pub(crate) fn put_process(out: &mut Vec<u8>, batch: &Batch, r: &Resource) {
    let mut o = Object::new(out);
    o.text("env", batch, r.env);
    o.text("hostname", batch, r.hostname);
    o.text("app_version", batch, r.app_version);
    o.text("container_id", batch, r.container_id);
    o.text("language_name", batch, r.language_name);
    o.text("language_version", batch, r.language_version);
    o.text("tracer_version", batch, r.tracer_version);
    o.text("runtime_id", batch, r.runtime_id);
    o.text("schema_url", batch, r.schema_url);
    o.int("dropped", i64::from(r.dropped));
    o.attrs(batch, r.attrs);
    o.end();
}

pub(crate) fn put_scope(out: &mut Vec<u8>, batch: &Batch, scope: u32) {
    let Some(scope) = batch.scopes.get(scope as usize) else { return };
    let mut o = Object::new(out);
    o.text("name", batch, scope.name);
    o.text("version", batch, scope.version);
    o.text("schema_url", batch, scope.schema_url);
    o.int("dropped", i64::from(scope.dropped));
    o.attrs(batch, scope.attrs);
    o.end();
}

pub(crate) fn put_chunk(out: &mut Vec<u8>, batch: &Batch, chunk: &Chunk) {
    let mut o = Object::new(out);
    put_str(o.key("protocol"), batch.intake.protocol.name());
    if chunk.priority != PRIORITY_NONE {
        put_int(o.key("priority"), i64::from(chunk.priority));
    }
    o.text("origin", batch, chunk.origin);
    o.int("sampling_mechanism", i64::from(chunk.sampling_mechanism));
    o.int("dropped_by_tracer", i64::from(chunk.dropped));
    o.attrs(batch, chunk.attrs);
    o.end();
}

pub(crate) fn put_events(out: &mut Vec<u8>, batch: &Batch, span: &Span) {
    for (i, e) in batch.span_events(span).iter().enumerate() {
        out.push(if i == 0 { b'[' } else { b',' });
        let mut o = Object::new(out);
        // Beyond the year 2262 a time is shown negative; the bits are kept.
        put_int(o.key("time"), e.time as i64);
        put_str(o.key("name"), batch.str(e.name));
        o.int("dropped", i64::from(e.dropped));
        o.attrs(batch, e.attrs);
        o.end();
    }
    out.push(b']');
}

pub(crate) fn put_links(out: &mut Vec<u8>, batch: &Batch, span: &Span) {
    for (i, l) in batch.span_links(span).iter().enumerate() {
        out.push(if i == 0 { b'[' } else { b',' });
        let mut o = Object::new(out);
        put_str(o.key("trace_id"), &format!("{:032x}", l.trace_id.0));
        put_str(o.key("span_id"), &format!("{:016x}", l.span_id.0));
        o.text("trace_state", batch, l.trace_state);
        o.int("flags", i64::from(l.flags));
        o.int("dropped", i64::from(l.dropped));
        o.attrs(batch, l.attrs);
        o.end();
    }
    out.push(b']');
}

pub(crate) fn put_dropped(out: &mut Vec<u8>, span: &Span) {
    let [a, b, c] = span.dropped;
    out.extend_from_slice(format!("[{a},{b},{c}]").as_bytes());
}

/// Text of a status in the column `status`.
pub(crate) const fn status_name(status: Status) -> &'static str {
    match status {
        Status::Unset => "unset",
        Status::Ok => "ok",
        Status::Error => "error",
    }
}

/// Distance to the parent's row for each span of a trace, or none: rows in
/// the order of the segment, as (span id, parent id).
pub(crate) fn parent_rows(ids: &[(u64, u64)], out: &mut Vec<Option<i64>>) {
    out.clear();
    let map: std::collections::HashMap<u64, usize, foldhash::fast::RandomState> = if ids.len() > 24 {
        ids.iter().enumerate().rev().map(|(i, (id, _))| (*id, i)).collect()
    } else {
        Default::default()
    };
    for (i, (_, parent)) in ids.iter().enumerate() {
        let found = if *parent == 0 {
            None
        } else if ids.len() > 24 {
            map.get(parent).copied()
        } else {
            ids.iter().position(|(id, _)| id == parent)
        };
        out.push(found.filter(|p| *p != i).map(|p| i as i64 - p as i64));
    }
}
