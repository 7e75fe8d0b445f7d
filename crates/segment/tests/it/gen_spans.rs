//! Random batches that use every field of the model, and a rendering of them
//! that two equal batches share whatever their tables look like.
#![allow(clippy::unwrap_used)] // helpers of tests

use spanloom_model::{
    Attr, Batch, Chunk, Event, KeyBits, Link, NO_SCOPE, Protocol, Range32, Resource, Scope, Span, SpanId,
    SpanKind, Status, Text, TraceId, Value, flags,
};
use std::fmt::Write;

/// SplitMix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

const TEXTS: [&str; 16] = [
    "",
    "GET /users",
    "$",
    "$column",
    "\"quoted\" \\ and \n\t\r",
    "nul \0 bell \u{7} del \u{7f}",
    "日本語 🦀 e\u{301}",
    "\u{2028}\u{feff}",
    "null",
    "12",
    "1.5",
    "{\"a\":1}",
    "0000000000000000",
    "ffffffffffffffff",
    "postgres",
    "true",
];

fn text(r: &mut Rng, b: &mut Batch) -> Text {
    match r.below(12) {
        0 => {
            let n = r.below(40) * r.below(20);
            let long: String = (0..n).map(|i| char::from(b'a' + ((i * 7) % 26) as u8)).collect();
            b.arena.push(&long)
        }
        1 => {
            let unique = format!("id-{:x}", r.next());
            b.arena.push(&unique)
        }
        2 if r.one_in(30) => b.arena.push(&"huge ".repeat(60_000)),
        _ => {
            let t = r.pick(&TEXTS);
            b.arena.push(t)
        }
    }
}

fn value(r: &mut Rng, b: &mut Batch, depth: usize) -> Value {
    match r.below(if depth > 3 { 9 } else { 11 }) {
        0 => Value::Empty,
        1 => Value::Bool(r.one_in(2)),
        2 => Value::Int(r.pick(&[0, -1, i64::MIN, i64::MAX, 200, 1 << 53])),
        3 => Value::Int(r.next() as i64),
        4 => Value::Double(r.pick(&[0.0, -0.0, 1.0, 1e300, 5e-324, f64::INFINITY, f64::NEG_INFINITY, 0.1])),
        5 => Value::Double(f64::from_bits(r.next())),
        6 => {
            let n = r.below(90);
            let bytes: Vec<u8> = (0..n).map(|_| r.next() as u8).collect();
            Value::Bytes(b.arena.push_bytes(&bytes))
        }
        9 => {
            let items: Vec<Value> = (0..r.below(4)).map(|_| value(r, b, depth + 1)).collect();
            let start = b.values.len();
            b.values.extend(items);
            Value::List(Range32::new(start, b.values.len()))
        }
        10 => Value::Map(attrs(r, b, 4, depth + 1)),
        _ => Value::Str(text(r, b)),
    }
}

fn attrs(r: &mut Rng, b: &mut Batch, most: u64, depth: usize) -> Range32 {
    let items: Vec<Attr> = (0..r.below(most + 1))
        .map(|_| {
            let key = match r.below(4) {
                0 => text(r, b),
                _ => {
                    let key = format!("key.{}", r.below(12));
                    b.arena.push(&key)
                }
            };
            Attr { key, value: value(r, b, depth) }
        })
        .collect();
    let start = b.attrs.len();
    b.attrs.extend(items);
    Range32::new(start, b.attrs.len())
}

/// A batch of up to `most` spans over `traces` traces.
pub fn batch(r: &mut Rng, most: u64, traces: u64) -> Batch {
    let mut b = Batch::default();
    b.intake.protocol = r.pick(&Protocol::ALL);
    for _ in 0..1 + r.below(3) {
        let resource = Resource {
            container_id: text(r, &mut b),
            language_name: text(r, &mut b),
            language_version: text(r, &mut b),
            tracer_version: text(r, &mut b),
            runtime_id: text(r, &mut b),
            env: text(r, &mut b),
            hostname: text(r, &mut b),
            app_version: text(r, &mut b),
            attrs: attrs(r, &mut b, 4, 0),
            schema_url: text(r, &mut b),
            dropped: r.below(3) as u32,
        };
        b.resources.push(resource);
        let scope = Scope {
            name: text(r, &mut b),
            version: text(r, &mut b),
            attrs: attrs(r, &mut b, 2, 0),
            schema_url: text(r, &mut b),
            dropped: r.below(2) as u32,
        };
        b.scopes.push(scope);
    }
    let mut left = 1 + r.below(most);
    while left > 0 {
        let n = (1 + r.below(12)).min(left);
        left -= n;
        let t = r.below(traces);
        let trace_id =
            TraceId(if t.is_multiple_of(3) { u128::from(t + 1) } else { u128::from(t + 1) << 64 | 77 });
        let first = b.spans.len();
        for _ in 0..n {
            let span = span(r, &mut b, trace_id);
            b.spans.push(span);
        }
        let chunk = Chunk {
            resource: r.below(b.resources.len() as u64) as u32,
            spans: Range32::new(first, b.spans.len()),
            trace_id,
            priority: r.pick(&[-128, -1, 0, 1, 2]),
            origin: text(r, &mut b),
            attrs: attrs(r, &mut b, 2, 0),
            dropped: r.one_in(5),
            sampling_mechanism: r.below(3) as u32,
            ..Chunk::default()
        };
        b.chunks.push(chunk);
    }
    b
}

fn span(r: &mut Rng, b: &mut Batch, trace_id: TraceId) -> Span {
    let id = |r: &mut Rng| SpanId(if r.one_in(8) { r.next() } else { 1 + r.below(20) });
    let links: Vec<Link> = (0..r.below(20).saturating_sub(17))
        .map(|_| Link {
            trace_id: TraceId(u128::from(r.next())),
            span_id: id(r),
            trace_state: text(r, b),
            flags: r.next() as u32,
            attrs: attrs(r, b, 2, 0),
            dropped: r.below(2) as u32,
        })
        .collect();
    let events: Vec<Event> = (0..r.below(20).saturating_sub(17))
        .map(|_| Event {
            time: r.next(),
            name: text(r, b),
            attrs: attrs(r, b, 2, 0),
            dropped: r.below(2) as u32,
        })
        .collect();
    let (l, e) = (b.links.len(), b.events.len());
    b.links.extend(links);
    b.events.extend(events);
    Span {
        trace_id,
        span_id: id(r),
        parent_id: if r.one_in(4) { SpanId(0) } else { id(r) },
        start: if r.one_in(20) { r.next() as i64 } else { 1_795_190_000_000_000_000 + r.below(1000) as i64 },
        duration: if r.one_in(20) { r.next() as i64 } else { r.below(1 << 30) as i64 },
        service: text(r, b),
        name: text(r, b),
        resource: text(r, b),
        span_type: text(r, b),
        trace_state: text(r, b),
        status_message: text(r, b),
        attrs: attrs(r, b, 8, 0),
        keys: KeyBits::ANY,
        links: Range32::new(l, b.links.len()),
        events: Range32::new(e, b.events.len()),
        scope: if r.one_in(2) { NO_SCOPE } else { r.below(b.scopes.len() as u64) as u32 },
        error: r.pick(&[0, 0, 0, 1, -7]),
        flags: r.pick(&[0, 1, flags::SHARED, flags::DEBUG, flags::NO_START, flags::NO_DURATION]),
        dropped: if r.one_in(5) { [1, 0, r.next() as u32] } else { [0; 3] },
        kind: SpanKind::from_number(r.below(6) as u32),
        status: Status::from_number(r.below(3) as u32),
    }
}

fn show_value(b: &Batch, v: Value, out: &mut String) {
    match v {
        Value::Str(t) => write!(out, "{:?}", b.str(t)).unwrap(),
        Value::Bytes(t) => write!(out, "bytes {:?}", b.arena.bytes(t)).unwrap(),
        Value::Double(d) => write!(out, "double {:x}", d.to_bits()).unwrap(),
        Value::List(r) => {
            out.push('[');
            for v in b.list(r) {
                show_value(b, *v, out);
                out.push(';');
            }
            out.push(']');
        }
        Value::Map(r) => show_attrs(b, r, out),
        plain => write!(out, "{plain:?}").unwrap(),
    }
}

fn show_attrs(b: &Batch, r: Range32, out: &mut String) {
    out.push('{');
    for a in b.attrs(r) {
        write!(out, "{:?}=", b.str(a.key)).unwrap();
        show_value(b, a.value, out);
        out.push(',');
    }
    out.push('}');
}

/// One line per span with all that belongs to it; equal lines once, sorted.
pub fn show(batches: &[&Batch], protocol: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for b in batches {
        for c in &b.chunks {
            for s in b.chunk_spans(c) {
                let mut o = String::new();
                write!(
                    o,
                    "{} {} {} {} {} {:?} {:?} {} {} {:?} ",
                    s.trace_id,
                    s.span_id,
                    s.parent_id,
                    s.start,
                    s.duration,
                    s.kind,
                    s.status,
                    s.error,
                    s.flags,
                    s.dropped
                )
                .unwrap();
                for t in
                    [s.service, s.name, s.resource, s.span_type, s.trace_state, s.status_message, c.origin]
                {
                    write!(o, "{:?} ", b.str(t)).unwrap();
                }
                show_attrs(b, s.attrs, &mut o);
                for e in b.span_events(s) {
                    write!(o, " event {} {:?} {}", e.time, b.str(e.name), e.dropped).unwrap();
                    show_attrs(b, e.attrs, &mut o);
                }
                for l in b.span_links(s) {
                    write!(o, " link {} {} {} {}", l.trace_id, l.span_id, l.flags, l.dropped).unwrap();
                    write!(o, " {:?}", b.str(l.trace_state)).unwrap();
                    show_attrs(b, l.attrs, &mut o);
                }
                if let Some(s) = b.scopes.get(s.scope as usize) {
                    let texts = [s.name, s.version, s.schema_url].map(|t| b.str(t));
                    write!(o, " scope {texts:?} {}", s.dropped).unwrap();
                    show_attrs(b, s.attrs, &mut o);
                }
                let r = &b.resources[c.resource as usize];
                let texts = [
                    r.container_id,
                    r.language_name,
                    r.language_version,
                    r.tracer_version,
                    r.runtime_id,
                    r.env,
                    r.hostname,
                    r.app_version,
                    r.schema_url,
                ]
                .map(|t| b.str(t));
                write!(o, " resource {texts:?} {}", r.dropped).unwrap();
                show_attrs(b, r.attrs, &mut o);
                write!(o, " chunk {} {} {}", c.priority, c.dropped, c.sampling_mechanism).unwrap();
                show_attrs(b, c.attrs, &mut o);
                if protocol {
                    write!(o, " {}", b.intake.protocol.name()).unwrap();
                }
                lines.push(o);
            }
        }
    }
    lines.sort();
    lines.dedup();
    lines
}
