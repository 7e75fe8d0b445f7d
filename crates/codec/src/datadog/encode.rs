//! Model → v0.4 and v0.5 bodies, for tests and load tools.
//!
//! Only what those versions have a place for is written: text, number and
//! bytes attributes, and (v0.4) links and events. The forms are those of the
//! common tracers: 64-bit ids and times, so that a load tool can patch them.

use spanloom_model::{Attr, Batch, Range32, Span, Text, Value};
use std::collections::HashMap;

/// The v0.4 body of all chunks of a batch.
pub fn encode_v04(batch: &Batch) -> Vec<u8> {
    let mut w = Writer::default();
    w.array(batch.chunks.len());
    for chunk in &batch.chunks {
        let spans = batch.chunk_spans(chunk);
        w.array(spans.len());
        for span in spans {
            w.span_v04(batch, span);
        }
    }
    w.out
}

/// The v0.5 body of all chunks of a batch. It has no place for bytes
/// attributes, links and events; they are left out.
pub fn encode_v05(batch: &Batch) -> Vec<u8> {
    // The dictionary is known at the end only, but stands first.
    let mut w = Writer::default();
    let mut dict = Dictionary::default();
    dict.index(b"");
    w.array(batch.chunks.len());
    for chunk in &batch.chunks {
        let spans = batch.chunk_spans(chunk);
        w.array(spans.len());
        for span in spans {
            w.span_v05(batch, span, &mut dict);
        }
    }
    let mut front = Writer::default();
    front.array(2);
    front.array(dict.texts.len());
    for text in dict.texts {
        front.str(text);
    }
    front.out.extend_from_slice(&w.out);
    front.out
}

#[derive(Default)]
struct Dictionary<'a> {
    texts: Vec<&'a [u8]>,
    index: HashMap<&'a [u8], u64>,
}

impl<'a> Dictionary<'a> {
    fn index(&mut self, text: &'a [u8]) -> u64 {
        *self.index.entry(text).or_insert_with(|| {
            self.texts.push(text);
            self.texts.len() as u64 - 1
        })
    }
}

#[derive(Default)]
struct Writer {
    out: Vec<u8>,
}

impl Writer {
    fn header(&mut self, n: usize, short: u8, short_max: usize, medium: u8) {
        if n <= short_max {
            self.out.push(short | n as u8);
        } else if let Ok(n) = u16::try_from(n) {
            self.out.push(medium);
            self.out.extend(n.to_be_bytes());
        } else {
            self.out.push(medium + 1);
            self.out.extend((n as u32).to_be_bytes());
        }
    }
    fn array(&mut self, n: usize) {
        self.header(n, 0x90, 15, 0xdc);
    }
    fn map(&mut self, n: usize) {
        self.header(n, 0x80, 15, 0xde);
    }
    fn str(&mut self, text: &[u8]) {
        match u8::try_from(text.len()) {
            Ok(n @ 32..) => self.out.extend([0xd9, n]),
            _ => self.header(text.len(), 0xa0, 31, 0xda),
        }
        self.out.extend_from_slice(text);
    }
    fn bin(&mut self, bytes: &[u8]) {
        match u8::try_from(bytes.len()) {
            Ok(n) => self.out.extend([0xc4, n]),
            Err(_) => self.header(bytes.len(), 0, 0, 0xc5),
        }
        self.out.extend_from_slice(bytes);
    }
    fn u64(&mut self, v: u64) {
        self.out.push(0xcf);
        self.out.extend(v.to_be_bytes());
    }
    fn i64(&mut self, v: i64) {
        self.out.push(0xd3);
        self.out.extend(v.to_be_bytes());
    }
    fn f64(&mut self, v: f64) {
        self.out.push(0xcb);
        self.out.extend(v.to_be_bytes());
    }
    fn bool(&mut self, v: bool) {
        self.out.push(if v { 0xc3 } else { 0xc2 });
    }
    fn small(&mut self, v: u64) {
        match v {
            0..=0x7f => self.out.push(v as u8),
            0x80..=0xff => self.out.extend([0xcc, v as u8]),
            0x100..=0xffff => {
                self.out.push(0xcd);
                self.out.extend((v as u16).to_be_bytes());
            }
            _ => self.u64(v),
        }
    }

    fn span_v04(&mut self, b: &Batch, span: &Span) {
        let attrs = b.attrs(span.attrs);
        let (meta, metrics, meta_struct) = (attrs_of(attrs, 0), attrs_of(attrs, 1), attrs_of(attrs, 2));
        let extra = usize::from(!meta_struct.is_empty())
            + usize::from(!span.links.is_empty())
            + usize::from(!span.events.is_empty());
        self.map(12 + extra);
        for (key, text) in [
            ("service", span.service),
            ("name", span.name),
            ("resource", span.resource),
            ("type", span.span_type),
        ] {
            self.str(key.as_bytes());
            self.text(b, text);
        }
        for (key, id) in
            [("trace_id", span.trace_id.low()), ("span_id", span.span_id.0), ("parent_id", span.parent_id.0)]
        {
            self.str(key.as_bytes());
            self.u64(id);
        }
        for (key, v) in [("start", span.start), ("duration", span.duration), ("error", span.error.into())] {
            self.str(key.as_bytes());
            self.i64(v);
        }
        for (key, attrs) in [("meta", meta), ("metrics", metrics), ("meta_struct", meta_struct)] {
            if key == "meta_struct" && attrs.is_empty() {
                continue;
            }
            self.str(key.as_bytes());
            self.map(attrs.len());
            for attr in attrs {
                self.text(b, attr.key);
                match attr.value {
                    Value::Str(text) => self.text(b, text),
                    Value::Bytes(bytes) => self.bin(b.arena.bytes(bytes)),
                    other => self.f64(other.as_f64().unwrap_or_default()),
                }
            }
        }
        if !span.links.is_empty() {
            self.links(b, span);
        }
        if !span.events.is_empty() {
            self.events(b, span);
        }
    }

    fn text(&mut self, b: &Batch, text: Text) {
        self.str(b.arena.bytes(text));
    }

    fn links(&mut self, b: &Batch, span: &Span) {
        self.str(b"span_links");
        self.array(span.links.len());
        for link in b.span_links(span) {
            self.map(6);
            for (key, v) in [
                ("trace_id", link.trace_id.low()),
                ("trace_id_high", link.trace_id.high()),
                ("span_id", link.span_id.0),
                ("flags", link.flags.into()),
            ] {
                self.str(key.as_bytes());
                self.u64(v);
            }
            self.str(b"tracestate");
            self.text(b, link.trace_state);
            self.str(b"attributes");
            let attrs = attrs_of(b.attrs(link.attrs), 0);
            self.map(attrs.len());
            for attr in attrs {
                self.text(b, attr.key);
                self.text(b, attr.value.as_text().unwrap_or_default());
            }
        }
    }

    fn events(&mut self, b: &Batch, span: &Span) {
        self.str(b"span_events");
        self.array(span.events.len());
        for event in b.span_events(span) {
            self.map(3);
            self.str(b"time_unix_nano");
            self.u64(event.time);
            self.str(b"name");
            self.text(b, event.name);
            self.str(b"attributes");
            let attrs: Vec<&Attr> =
                b.attrs(event.attrs).iter().filter(|a| any_type(a.value).is_some()).collect();
            self.map(attrs.len());
            for attr in attrs {
                self.text(b, attr.key);
                self.any_value(b, attr.value);
            }
        }
    }

    fn any_value(&mut self, b: &Batch, value: Value) {
        self.map(2);
        self.str(b"type");
        self.small(any_type(value).unwrap_or_default());
        match value {
            Value::Bool(v) => {
                self.str(b"bool_value");
                self.bool(v);
            }
            Value::Int(v) => {
                self.str(b"int_value");
                self.i64(v);
            }
            Value::Double(v) => {
                self.str(b"double_value");
                self.f64(v);
            }
            Value::List(range) => {
                self.str(b"array_value");
                self.list(b, range);
            }
            other => {
                self.str(b"string_value");
                self.text(b, other.as_text().unwrap_or_default());
            }
        }
    }

    fn list(&mut self, b: &Batch, range: Range32) {
        self.map(1);
        self.str(b"values");
        let scalar = |v: &&Value| any_type(**v).is_some_and(|t| t != 4);
        let values: Vec<&Value> = b.list(range).iter().filter(scalar).collect();
        self.array(values.len());
        for value in values {
            self.any_value(b, *value);
        }
    }

    fn span_v05<'a>(&mut self, b: &'a Batch, span: &Span, dict: &mut Dictionary<'a>) {
        self.array(12);
        for text in [span.service, span.name, span.resource] {
            self.small(dict.index(b.arena.bytes(text)));
        }
        for id in [span.trace_id.low(), span.span_id.0, span.parent_id.0] {
            self.u64(id);
        }
        for v in [span.start, span.duration, span.error.into()] {
            self.i64(v);
        }
        for kind in [0, 1] {
            let attrs = attrs_of(b.attrs(span.attrs), kind);
            self.map(attrs.len());
            for attr in attrs {
                self.small(dict.index(b.arena.bytes(attr.key)));
                match attr.value {
                    Value::Str(text) => self.small(dict.index(b.arena.bytes(text))),
                    other => self.f64(other.as_f64().unwrap_or_default()),
                }
            }
        }
        self.small(dict.index(b.arena.bytes(span.span_type)));
    }
}

/// The attributes that go into `meta` (0), `metrics` (1) or `meta_struct` (2).
fn attrs_of(attrs: &[Attr], map: u8) -> Vec<&Attr> {
    let of = |v: &Value| match v {
        Value::Str(_) => Some(0),
        Value::Double(_) | Value::Int(_) => Some(1),
        Value::Bytes(_) => Some(2),
        _ => None,
    };
    attrs.iter().filter(|a| of(&a.value) == Some(map)).collect()
}

/// Number of the type of an event attribute.
const fn any_type(value: Value) -> Option<u64> {
    match value {
        Value::Str(_) => Some(0),
        Value::Bool(_) => Some(1),
        Value::Int(_) => Some(2),
        Value::Double(_) => Some(3),
        Value::List(_) => Some(4),
        _ => None,
    }
}
