//! Random batches and their description, for comparing what went in with what
//! came out. Used by the store's tests too.
#![allow(dead_code)] // each test binary uses its own part

use spanloom_model::*;
use std::fmt::Write;

/// A small generator with a fixed sequence (splitmix64).
#[derive(Clone)]
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
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

const KEYS: [&str; 8] = ["http.method", "http.status_code", "user.id", "", "größe", "a", "error", "deep"];
const TEXTS: [&str; 6] = ["GET", "200", "", "true", "naïve ☃", "/a/very/long/path/that/is/not/inline?x=1"];

pub fn text(rng: &mut Rng, b: &mut Batch) -> Text {
    match rng.below(8) {
        0 => Text::EMPTY,
        1 => {
            let unique = format!("unique-{:x}", rng.below(1000));
            b.arena.push(&unique)
        }
        _ => b.arena.push(TEXTS[rng.below(6) as usize]),
    }
}

pub fn value(rng: &mut Rng, b: &mut Batch, depth: u64) -> Value {
    match rng.below(if depth < 4 { 10 } else { 8 }) {
        0 => Value::Empty,
        1 | 2 => Value::Str(text(rng, b)),
        3 => Value::Bool(rng.chance(50)),
        4 => Value::Int(rng.next() as i64 >> rng.below(64)),
        5 => Value::Double(f64::from_bits(rng.next())),
        6 => Value::Double([0.0, -0.0, 1.0, 200.0, -7.0, 9.1e15, f64::MAX, 1.5][rng.below(8) as usize]),
        7 => {
            let bytes: Vec<u8> = (0..rng.below(9)).map(|_| rng.next() as u8).collect();
            Value::Bytes(b.arena.push_bytes(&bytes))
        }
        8 => {
            let items: Vec<Value> = (0..rng.below(4)).map(|_| value(rng, b, depth + 1)).collect();
            let start = b.values.len();
            b.values.extend(items);
            Value::List(Range32::new(start, b.values.len()))
        }
        _ => Value::Map(attrs(rng, b, depth + 1)),
    }
}

pub fn attrs(rng: &mut Rng, b: &mut Batch, depth: u64) -> Range32 {
    let items: Vec<Attr> = (0..rng.below(6))
        .map(|_| {
            let key = b.arena.push(KEYS[rng.below(8) as usize]);
            Attr { key, value: value(rng, b, depth) }
        })
        .collect();
    let start = b.attrs.len();
    b.attrs.extend(items);
    Range32::new(start, b.attrs.len())
}

/// A batch with every feature of the model, a few dozen spans.
pub fn batch(rng: &mut Rng) -> Batch {
    let mut b = Batch::default();
    b.intake.protocol = Protocol::ALL[rng.below(18) as usize];
    b.intake.transport = [Transport::Tcp, Transport::Unix, Transport::Udp][rng.below(3) as usize];
    b.intake.client.computed_stats = rng.chance(50);
    b.intake.client.dropped_p0_spans = rng.below(300);
    b.intake.received_at = 1_768_471_200_000_000_000 + rng.below(1 << 40) as i64;
    for _ in 0..1 + rng.below(3) {
        let r = Resource {
            container_id: text(rng, &mut b),
            language_name: text(rng, &mut b),
            language_version: text(rng, &mut b),
            tracer_version: text(rng, &mut b),
            runtime_id: text(rng, &mut b),
            env: text(rng, &mut b),
            hostname: text(rng, &mut b),
            app_version: text(rng, &mut b),
            attrs: attrs(rng, &mut b, 0),
            schema_url: text(rng, &mut b),
            dropped: rng.below(3) as u32,
        };
        b.resources.push(r);
    }
    for _ in 0..rng.below(3) {
        let s = Scope {
            name: text(rng, &mut b),
            version: text(rng, &mut b),
            attrs: attrs(rng, &mut b, 0),
            schema_url: text(rng, &mut b),
            dropped: rng.below(2) as u32,
        };
        b.scopes.push(s);
    }
    for _ in 0..rng.below(6) {
        let trace_id = TraceId::from_halves(if rng.chance(50) { rng.next() } else { 0 }, rng.next() | 1);
        let first = b.spans.len();
        for _ in 0..rng.below(9) {
            let s = span(rng, &mut b, trace_id, first);
            b.spans.push(s);
        }
        let chunk = Chunk {
            resource: rng.below(b.resources.len() as u64) as u32,
            spans: Range32::new(first, b.spans.len()),
            trace_id,
            priority: if rng.chance(50) { PRIORITY_NONE } else { rng.below(4) as i32 - 1 },
            origin: if rng.chance(80) { Text::EMPTY } else { text(rng, &mut b) },
            attrs: if rng.chance(70) { Range32::default() } else { attrs(rng, &mut b, 0) },
            dropped: rng.chance(20),
            sampling_mechanism: if rng.chance(80) { 0 } else { rng.below(9) as u32 },
            fate: if rng.chance(85) { Fate::Kept } else { Fate::Filtered("test") },
            sampled: Sampled::default(),
            route: 0,
        };
        b.chunks.push(chunk);
    }
    b
}

fn span(rng: &mut Rng, b: &mut Batch, trace_id: TraceId, first: usize) -> Span {
    let siblings = b.spans.len() - first;
    let parent_id = match rng.below(4) {
        0 => SpanId(0),
        1 => SpanId(rng.next()),
        _ if siblings > 0 => b.spans[first + rng.below(siblings as u64) as usize].span_id,
        _ => SpanId(0),
    };
    let plain = rng.chance(60);
    let start = b.intake.received_at - rng.below(1 << 34) as i64;
    let mut s = Span {
        trace_id,
        span_id: SpanId(rng.next()),
        parent_id,
        start,
        duration: rng.below(1 << 30) as i64,
        service: text(rng, b),
        name: text(rng, b),
        resource: text(rng, b),
        span_type: text(rng, b),
        attrs: attrs(rng, b, 0),
        scope: if b.scopes.is_empty() || rng.chance(30) {
            NO_SCOPE
        } else {
            rng.below(b.scopes.len() as u64) as u32
        },
        error: i32::from(rng.chance(10)),
        kind: SpanKind::from_number(rng.below(6) as u32),
        status: Status::from_number(rng.below(3) as u32),
        ..Span::default()
    };
    if plain {
        return s;
    }
    s.start = if rng.chance(10) { rng.next() as i64 } else { s.start };
    s.duration = if rng.chance(10) { rng.next() as i64 } else { s.duration };
    s.error = if rng.chance(20) { rng.next() as i32 } else { s.error };
    s.flags = if rng.chance(50) { rng.next() & 0xf_0000_01ff } else { 0 };
    if s.flags & flags::NO_START != 0 {
        s.start = 0;
    }
    s.trace_state = text(rng, b);
    s.status_message = text(rng, b);
    s.dropped = [rng.below(2) as u32, 0, rng.below(2) as u32];
    let links: Vec<Link> = (0..rng.below(3))
        .map(|_| Link {
            trace_id: TraceId::from_halves(rng.next(), rng.next()),
            span_id: SpanId(rng.next()),
            trace_state: text(rng, b),
            flags: rng.next() as u32,
            attrs: attrs(rng, b, 0),
            dropped: rng.below(2) as u32,
        })
        .collect();
    let at = b.links.len();
    b.links.extend(links);
    s.links = Range32::new(at, b.links.len());
    let events: Vec<Event> = (0..rng.below(3))
        .map(|_| Event {
            time: if rng.chance(10) { rng.next() } else { (s.start as u64).wrapping_add(rng.below(1000)) },
            name: text(rng, b),
            attrs: attrs(rng, b, 0),
            dropped: rng.below(2) as u32,
        })
        .collect();
    let at = b.events.len();
    b.events.extend(events);
    s.events = Range32::new(at, b.events.len());
    s
}

pub fn show_value(b: &Batch, v: Value, out: &mut String) {
    let _ = match v {
        Value::Empty => write!(out, "empty"),
        Value::Str(t) => write!(out, "{:?}", b.str(t)),
        Value::Bool(v) => write!(out, "{v}"),
        Value::Int(v) => write!(out, "int {v}"),
        Value::Double(v) => write!(out, "double {:x}", v.to_bits()),
        Value::Bytes(t) => write!(out, "bytes {:?}", b.arena.bytes(t)),
        Value::List(r) => {
            out.push('[');
            for v in b.list(r) {
                show_value(b, *v, out);
                out.push(',');
            }
            write!(out, "]")
        }
        Value::Map(r) => {
            show_attrs(b, r, out);
            Ok(())
        }
    };
}

pub fn show_attrs(b: &Batch, r: Range32, out: &mut String) {
    out.push('{');
    for a in b.attrs(r) {
        let _ = write!(out, "{:?}=", b.str(a.key));
        show_value(b, a.value, out);
        out.push(';');
    }
    out.push('}');
}

/// Everything about a span but its resource, in text.
pub fn show_span(b: &Batch, s: &Span) -> String {
    let mut o = String::new();
    let _ = write!(
        o,
        "{} {} <{} {}+{} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {} {:x} {:?} {:?} ",
        s.trace_id,
        s.span_id,
        s.parent_id,
        s.start,
        s.duration,
        b.str(s.service),
        b.str(s.name),
        b.str(s.resource),
        b.str(s.span_type),
        b.str(s.trace_state),
        b.str(s.status_message),
        s.kind,
        s.error,
        s.flags,
        s.status,
        s.dropped
    );
    show_attrs(b, s.attrs, &mut o);
    if let Some(c) = b.scopes.get(s.scope as usize) {
        let _ = write!(
            o,
            " scope {:?} {:?} {:?} {}",
            b.str(c.name),
            b.str(c.version),
            b.str(c.schema_url),
            c.dropped
        );
        show_attrs(b, c.attrs, &mut o);
    }
    for l in b.span_links(s) {
        let _ = write!(
            o,
            " link {} {} {:?} {} {}",
            l.trace_id,
            l.span_id,
            b.str(l.trace_state),
            l.flags,
            l.dropped
        );
        show_attrs(b, l.attrs, &mut o);
    }
    for e in b.span_events(s) {
        let _ = write!(o, " event {} {:?} {}", e.time, b.str(e.name), e.dropped);
        show_attrs(b, e.attrs, &mut o);
    }
    o
}

/// A resource in text.
pub fn show_resource(b: &Batch, index: u32) -> String {
    let mut o = String::new();
    if let Some(r) = b.resources.get(index as usize) {
        for t in [
            r.container_id,
            r.language_name,
            r.language_version,
            r.tracer_version,
            r.runtime_id,
            r.env,
            r.hostname,
            r.app_version,
            r.schema_url,
        ] {
            let _ = write!(o, "{:?} ", b.str(t));
        }
        let _ = write!(o, "{} ", r.dropped);
        show_attrs(b, r.attrs, &mut o);
    }
    o
}

/// Everything that a record keeps of a batch, in text.
pub fn show(b: &Batch) -> String {
    let mut o = format!("{:?}\n", b.intake);
    for c in b.chunks.iter().filter(|c| c.fate == Fate::Kept && !c.spans.is_empty()) {
        let _ = write!(
            o,
            "chunk {} {} {:?} {} {} of {}",
            c.trace_id,
            c.priority,
            b.str(c.origin),
            c.dropped,
            c.sampling_mechanism,
            show_resource(b, c.resource)
        );
        show_attrs(b, c.attrs, &mut o);
        o.push('\n');
        for s in b.chunk_spans(c) {
            o.push_str(&show_span(b, s));
            o.push('\n');
        }
    }
    o
}
