//! Whether two batches hold the same span, whatever their tables look like.

use crate::{Batch, Range32, Value};

/// Compares the first spans with all they own.
pub(super) fn assert_same_span(a: &Batch, b: &Batch) {
    let (x, y) = (&a.spans[0], &b.spans[0]);
    assert_eq!((x.trace_id, x.span_id, x.parent_id), (y.trace_id, y.span_id, y.parent_id));
    assert_eq!((x.start, x.duration, x.error, x.flags), (y.start, y.duration, y.error, y.flags));
    assert_eq!((x.kind, x.status, x.dropped), (y.kind, y.status, y.dropped));
    for (p, q) in [
        (x.service, y.service),
        (x.name, y.name),
        (x.resource, y.resource),
        (x.span_type, y.span_type),
        (x.trace_state, y.trace_state),
        (x.status_message, y.status_message),
    ] {
        assert_eq!(a.str(p), b.str(q));
    }
    assert_same_attrs((a, x.attrs), (b, y.attrs));
    let (events, others) = (a.span_events(x), b.span_events(y));
    assert_eq!(events.len(), others.len());
    for (e, f) in events.iter().zip(others) {
        assert_eq!((e.time, a.str(e.name), e.dropped), (f.time, b.str(f.name), f.dropped));
        assert_same_attrs((a, e.attrs), (b, f.attrs));
    }
    let (links, others) = (a.span_links(x), b.span_links(y));
    assert_eq!(links.len(), others.len());
    for (l, m) in links.iter().zip(others) {
        assert_eq!((l.trace_id, l.span_id, l.flags), (m.trace_id, m.span_id, m.flags));
        assert_eq!(a.str(l.trace_state), b.str(m.trace_state));
        assert_same_attrs((a, l.attrs), (b, m.attrs));
    }
}

fn assert_same_attrs((a, x): (&Batch, Range32), (b, y): (&Batch, Range32)) {
    assert_eq!(x.len(), y.len());
    for (p, q) in a.attrs(x).iter().zip(b.attrs(y)) {
        assert_eq!(a.str(p.key), b.str(q.key));
        assert_same_value((a, p.value), (b, q.value));
    }
}

fn assert_same_value((a, x): (&Batch, Value), (b, y): (&Batch, Value)) {
    match (x, y) {
        (Value::Str(p), Value::Str(q)) => assert_eq!(a.str(p), b.str(q)),
        (Value::Bytes(p), Value::Bytes(q)) => assert_eq!(a.arena.bytes(p), b.arena.bytes(q)),
        (Value::Map(p), Value::Map(q)) => assert_same_attrs((a, p), (b, q)),
        (Value::List(p), Value::List(q)) => {
            assert_eq!(p.len(), q.len());
            a.list(p).iter().zip(b.list(q)).for_each(|(p, q)| assert_same_value((a, *p), (b, *q)));
        }
        (p, q) => assert_eq!(p, q),
    }
}
