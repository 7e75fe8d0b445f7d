//! v0.3 and v0.4: an array of chunks, each an array of spans, each a map.

use super::RequestMeta;
use super::builder::{Builder, MAX_GENERATED, Marks};
use crate::msgpack::{Reader, Result};
use spanloom_model::{Attr, Chunk, Event, KeyBits, Link, Range32, Span, SpanId, TraceId, Value};

pub(super) fn decode(b: &mut Builder, body: &[u8], meta: &RequestMeta<'_>) -> Result<()> {
    b.resource_from_headers(meta);
    let mut r = Reader::new(body);
    let chunks = r.array(MAX_GENERATED)?;
    b.expect(400, 24);
    for i in 0..chunks {
        b.chunk = i;
        spans_of_chunk(b, &mut r, Chunk::default())?;
    }
    b.join_ids();
    Ok(())
}

/// Reads the array of spans of one chunk.
pub(super) fn spans_of_chunk(b: &mut Builder, r: &mut Reader<'_>, template: Chunk) -> Result<()> {
    let (first, tids) = (b.batch.spans.len(), b.tids_seen());
    let spans = r.array(MAX_GENERATED)?;
    // A span that says something takes more than 64 bytes.
    b.batch.spans.reserve(spans.min(r.left() / 64 + 1));
    for j in 0..spans {
        b.span = j;
        if !r.nil() {
            span(b, r)?;
        }
    }
    b.close_chunk(first, tids, template)
}

/// Seen parts of a span that a second mention replaces.
#[derive(Default)]
struct Seen {
    meta: bool,
    metrics: bool,
    meta_struct: bool,
    links: Option<usize>,
    events: Option<usize>,
}

fn span(b: &mut Builder, r: &mut Reader<'_>) -> Result<()> {
    let mut span = Builder::new_span();
    let mut marks = Marks::default();
    let mut seen = Seen::default();
    let mut keys = KeyBits::NONE;
    let start = b.batch.attrs.len();
    let fields = r.map(usize::MAX)?;
    for _ in 0..fields {
        let key = r.key()?;
        // By length first: one jump and one or two comparisons a field.
        match key.len() {
            4 if key == b"name" => span.name = b.lax_text(r).map_err(|e| b.at("Name", e))?,
            4 if key == b"type" => span.span_type = b.lax_text(r).map_err(|e| b.at("Type", e))?,
            4 if key == b"meta" => {
                if std::mem::replace(&mut seen.meta, true) {
                    marks = Marks::default();
                    forget(b, start, |v| matches!(v, Value::Str(_)));
                }
                if !r.nil() {
                    keys.join(meta(b, r, &mut marks).map_err(|e| b.at("Meta", e))?);
                }
            }
            5 if key == b"start" => span.start = r.int_or_nil().map_err(|e| b.at("Start", e))?,
            5 if key == b"error" => span.error = r.int32_or_nil().map_err(|e| b.at("Error", e))?,
            7 if key == b"service" => span.service = b.lax_text(r).map_err(|e| b.at("Service", e))?,
            7 if key == b"span_id" => {
                span.span_id = SpanId(r.id_or_nil().map_err(|e| b.at("SpanID", e))?);
            }
            7 if key == b"metrics" => {
                if std::mem::replace(&mut seen.metrics, true) {
                    forget(b, start, |v| matches!(v, Value::Double(_)));
                }
                if !r.nil() {
                    keys.join(metrics(b, r).map_err(|e| b.at("Metrics", e))?);
                }
            }
            8 if key == b"resource" => span.resource = b.lax_text(r).map_err(|e| b.at("Resource", e))?,
            8 if key == b"trace_id" => {
                span.trace_id = TraceId(r.id_or_nil().map_err(|e| b.at("TraceID", e))?.into());
            }
            8 if key == b"duration" => span.duration = r.int_or_nil().map_err(|e| b.at("Duration", e))?,
            9 if key == b"parent_id" => {
                span.parent_id = SpanId(r.id_or_nil().map_err(|e| b.at("ParentID", e))?);
            }
            // Links and events have attributes of their own. Those must not
            // come between the span's, so these two wait for the span's end.
            10 if key == b"span_links" => {
                seen.links = Some(r.pos());
                r.skip()?;
            }
            11 if key == b"span_events" => {
                seen.events = Some(r.pos());
                r.skip()?;
            }
            11 if key == b"meta_struct" => {
                if std::mem::replace(&mut seen.meta_struct, true) {
                    forget(b, start, |v| matches!(v, Value::Bytes(_)));
                }
                keys.join(meta_struct(b, r).map_err(|e| b.at("MetaStruct", e))?);
            }
            _ => r.skip()?,
        }
    }
    span.attrs = b.end_attrs(start);
    span.keys = keys;
    if let Some(pos) = seen.links {
        span.links = links(b, &mut r.at(pos)).map_err(|e| b.at("SpanLinks", e))?;
    }
    if let Some(pos) = seen.events {
        span.events = events(b, &mut r.at(pos)).map_err(|e| b.at("SpanEvents", e))?;
    }
    b.push_span(span, marks)
}

/// Removes attributes of the span being read: a map that comes a second time
/// replaces the first.
#[cold]
fn forget(b: &mut Builder, start: usize, gone: impl Fn(&Value) -> bool) {
    let mut kept = start;
    for i in start..b.batch.attrs.len() {
        let attr: Attr = b.batch.attrs[i];
        if !gone(&attr.value) {
            b.batch.attrs[kept] = attr;
            kept += 1;
        }
    }
    b.batch.attrs.truncate(kept);
}

#[inline]
fn meta(b: &mut Builder, r: &mut Reader<'_>, marks: &mut Marks) -> Result<KeyBits> {
    let n = r.map(b.limits.elements as usize)?;
    let mut set = b.open(n)?;
    for _ in 0..n {
        let (key, hash) = b.lax_key(r)?;
        let value = b.lax_text(r)?;
        marks.note(&b.batch.arena, key, value);
        b.add(&mut set, key, hash, || Value::Str(value));
    }
    let keys = set.keys();
    b.close(set);
    Ok(keys)
}

#[inline]
fn metrics(b: &mut Builder, r: &mut Reader<'_>) -> Result<KeyBits> {
    let n = r.map(b.limits.elements as usize)?;
    let mut set = b.open(n)?;
    for _ in 0..n {
        let (key, hash) = b.lax_key(r)?;
        let value = r.float_or_nil()?;
        b.add(&mut set, key, hash, || Value::Double(value));
    }
    let keys = set.keys();
    b.close(set);
    Ok(keys)
}

fn meta_struct(b: &mut Builder, r: &mut Reader<'_>) -> Result<KeyBits> {
    let n = r.map(b.limits.elements as usize)?;
    let mut set = b.open(n)?;
    for _ in 0..n {
        let (key, hash) = b.lax_key(r)?;
        let value = b.raw(r.bin()?);
        b.add(&mut set, key, hash, || Value::Bytes(value));
    }
    let keys = set.keys();
    b.close(set);
    Ok(keys)
}

fn links(b: &mut Builder, r: &mut Reader<'_>) -> Result<Range32> {
    let start = b.batch.links.len();
    for _ in 0..r.array(MAX_GENERATED)? {
        // The Agent forwards nil as a link without ids; so do we, to send
        // what it would have sent. Whoever shows links leaves such ones out.
        let link = if r.nil() { Link::default() } else { link(b, r)? };
        b.push_link(link)?;
    }
    Ok(Range32::new(start, b.batch.links.len()))
}

fn link(b: &mut Builder, r: &mut Reader<'_>) -> Result<Link> {
    let mut link = Link::default();
    let (mut low, mut high) = (0, 0);
    for _ in 0..r.map(MAX_GENERATED)? {
        match r.key()? {
            b"trace_id" => low = r.id_or_nil()?,
            b"trace_id_high" => high = r.uint()?,
            b"span_id" => link.span_id = SpanId(r.id_or_nil()?),
            b"attributes" => link.attrs = b.string_map(r)?,
            b"tracestate" => link.trace_state = b.strict_text(r)?,
            b"flags" => link.flags = r.uint32()?,
            _ => r.skip()?,
        }
    }
    link.trace_id = TraceId::from_halves(high, low);
    Ok(link)
}

fn events(b: &mut Builder, r: &mut Reader<'_>) -> Result<Range32> {
    let start = b.batch.events.len();
    for _ in 0..r.array(MAX_GENERATED)? {
        if !r.nil() {
            let event = event(b, r)?;
            b.push_event(event)?;
        }
    }
    Ok(Range32::new(start, b.batch.events.len()))
}

fn event(b: &mut Builder, r: &mut Reader<'_>) -> Result<Event> {
    let mut event = Event::default();
    for _ in 0..r.map(MAX_GENERATED)? {
        match r.key()? {
            b"time_unix_nano" => event.time = r.number_uint()?,
            b"name" => event.name = b.lax_text(r)?,
            b"attributes" => event.attrs = event_attrs(b, r)?,
            _ => r.skip()?,
        }
    }
    Ok(event)
}

fn event_attrs(b: &mut Builder, r: &mut Reader<'_>) -> Result<Range32> {
    let n = r.map(MAX_GENERATED)?;
    let mut set = b.open(n)?;
    for _ in 0..n {
        let (key, hash) = b.strict_key(r)?;
        // nil, and a list without elements, crash the Agent: left out here.
        if r.nil() {
            continue;
        }
        if let Some(value) = any_value(b, r, true)? {
            b.add(&mut set, key, hash, || value);
        }
    }
    Ok(b.close(set))
}

/// The parts of an attribute value; `type` says which one counts.
#[derive(Default, Clone, Copy)]
pub(super) struct AnyParts {
    pub kind: i64,
    pub text: Option<Value>,
    pub bool: Option<Value>,
    pub int: Option<Value>,
    pub double: Option<Value>,
    pub list: Option<Value>,
}

impl AnyParts {
    /// The value. If the part that the type names is missing but another is
    /// there, that one is kept rather than lost; a list must be there.
    pub fn value(self) -> Option<Value> {
        let other = self.text.or(self.int).or(self.double).or(self.bool).or(self.list);
        match self.kind {
            0 => Some(self.text.or(other).unwrap_or(Value::Str(spanloom_model::Text::EMPTY))),
            1 => Some(self.bool.or(other).unwrap_or(Value::Bool(false))),
            2 => Some(self.int.or(other).unwrap_or(Value::Int(0))),
            3 => Some(self.double.or(other).unwrap_or(Value::Double(0.0))),
            4 => self.list,
            _ => Some(other.unwrap_or(Value::Empty)),
        }
    }
}

fn any_value(b: &mut Builder, r: &mut Reader<'_>, lists: bool) -> Result<Option<Value>> {
    let mut parts = AnyParts::default();
    for _ in 0..r.map(MAX_GENERATED)? {
        match r.key()? {
            b"type" => parts.kind = i64::from(r.int32()?),
            b"string_value" => parts.text = Some(Value::Str(b.strict_text(r)?)),
            b"bool_value" => parts.bool = Some(Value::Bool(r.bool()?)),
            b"int_value" => parts.int = Some(Value::Int(r.int()?)),
            b"double_value" => parts.double = Some(Value::Double(r.float()?)),
            b"array_value" if lists => {
                if !r.nil() {
                    parts.list = Some(list(b, r)?);
                }
            }
            _ => r.skip()?,
        }
    }
    Ok(parts.value())
}

fn list(b: &mut Builder, r: &mut Reader<'_>) -> Result<Value> {
    let mut range = Range32::default();
    for _ in 0..r.map(MAX_GENERATED)? {
        if r.key()? == b"values" {
            let start = b.batch.values.len();
            let n = r.array(MAX_GENERATED)?;
            b.charge(n, size_of::<Value>())?;
            for _ in 0..n {
                if r.nil() {
                    continue;
                }
                // Elements are scalars, so nothing else lands in between.
                if let Some(value) = any_value(b, r, false)? {
                    b.batch.values.push(value);
                }
            }
            range = Range32::new(start, b.batch.values.len());
        } else {
            r.skip()?;
        }
    }
    Ok(Value::List(range))
}

/// Only to keep the size in view: the decoder writes one of these per span.
const _: () = assert!(size_of::<Span>() <= 192);
