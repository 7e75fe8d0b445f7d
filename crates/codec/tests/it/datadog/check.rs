//! What must hold of every decoded batch, whatever the bytes were. The fuzz
//! targets include this file too.

use spanloom_codec::Limits;
use spanloom_model::{Attr, Batch, Event, Link, Range32, Span, Text, Value};

/// Panics unless all ranges lie in their tables, every span lies in exactly
/// one chunk and knows its keys, every text is UTF-8, and memory is in proportion to the body.
pub fn check(b: &Batch) {
    let mut next = 0;
    for c in &b.chunks {
        assert_eq!(c.spans.start, next, "chunks follow each other");
        assert!(c.spans.end >= next && c.spans.end as usize <= b.spans.len());
        next = c.spans.end;
        assert!((c.resource as usize) < b.resources.len());
        text(b, c.origin);
        attrs(b, c.attrs, 0);
    }
    assert_eq!(next as usize, b.spans.len(), "every span lies in a chunk");
    for r in &b.resources {
        for t in [r.container_id, r.language_name, r.language_version, r.tracer_version, r.runtime_id, r.env]
        {
            text(b, t);
        }
        attrs(b, r.attrs, 0);
    }
    for s in &b.spans {
        for t in [s.service, s.name, s.resource, s.span_type] {
            text(b, t);
        }
        attrs(b, s.attrs, 0);
        let known = |a: &Attr| s.keys.may_have(b.arena.bytes(a.key));
        assert!(b.attrs(s.attrs).iter().all(known), "a span's bits know all its keys");
        assert!(s.links.start <= s.links.end && s.links.end as usize <= b.links.len());
        assert!(s.events.start <= s.events.end && s.events.end as usize <= b.events.len());
        for l in b.span_links(s) {
            text(b, l.trace_state);
            attrs(b, l.attrs, 0);
        }
        for e in b.span_events(s) {
            text(b, e.name);
            attrs(b, e.attrs, 0);
        }
    }
    let tables = b.spans.len() * size_of::<Span>()
        + b.attrs.len() * size_of::<Attr>()
        + b.values.len() * size_of::<Value>()
        + b.links.len() * size_of::<Link>()
        + b.events.len() * size_of::<Event>();
    assert!(tables <= Limits::DEFAULT.budget(b.arena.body().len()), "{tables} bytes");
}

fn text(b: &Batch, t: Text) {
    assert_eq!(b.arena.bytes(t).len(), t.len(), "a text lies in the arena");
    assert_eq!(b.str(t).len(), t.len(), "a text is UTF-8");
}

fn attrs(b: &Batch, range: Range32, depth: u32) {
    assert!(range.start <= range.end && range.end as usize <= b.attrs.len());
    for a in b.attrs(range) {
        text(b, a.key);
        value(b, a.value, depth);
    }
}

fn value(b: &Batch, v: Value, depth: u32) {
    assert!(depth <= Limits::DEFAULT.depth);
    match v {
        Value::Str(t) => text(b, t),
        Value::Bytes(t) => assert_eq!(b.arena.bytes(t).len(), t.len()),
        Value::List(r) => {
            assert!(r.start <= r.end && r.end as usize <= b.values.len());
            b.list(r).iter().for_each(|v| value(b, *v, depth + 1));
        }
        Value::Map(r) => attrs(b, r, depth + 1),
        _ => {}
    }
}
