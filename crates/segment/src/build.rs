//! Batches to a segment.

use crate::error::SegmentError;
use crate::intern::Interner;
use crate::json::{Slot, Type, put_attrs, put_int, put_slot, put_str, put_value};
use crate::meta::SegmentMeta;
use crate::promote::choose;
use crate::schema::{self as s};
use crate::writer::{SegmentWriter, WriteOptions};
use spanloom_model::{
    Batch, Chunk, Fate, NO_SCOPE, PRIORITY_NONE, Resource, Span, Status, Text, Value,
};
use std::path::Path;

/// A text attribute longer than this goes to the column `attributes_long`
/// rather than into the set that spans share.
pub(crate) const LONG_TEXT: usize = 128;
/// Distinct attribute sets are remembered up to this many bytes.
const SET_BYTES: usize = 8 << 20;
/// Values of huge rows make columns check their open pages.
const CHECK_BYTES: usize = 256 << 10;

/// A span of the input.
#[derive(Clone, Copy)]
struct Ref {
    trace: u128,
    start: i64,
    batch: u32,
    chunk: u32,
    span: u32,
}

/// Writes the spans of all chunks whose fate is [`Fate::Kept`] as a new segment
/// below `parent_dir`, which must exist. Identical spans are written once. The
/// directory appears under its final name complete and (with
/// [`WriteOptions::sync`]) on disk, or not at all.
///
/// # Errors
/// [`SegmentError::Empty`] without any span; otherwise what the disk says.
pub fn write_segment(
    parent_dir: &Path,
    options: &WriteOptions,
    batches: &[&Batch],
) -> Result<SegmentMeta, SegmentError> {
    let mut refs = Vec::with_capacity(batches.iter().map(|b| b.spans.len()).sum());
    for (b, batch) in batches.iter().enumerate() {
        for (c, chunk) in batch.chunks.iter().enumerate() {
            if chunk.fate != Fate::Kept {
                continue;
            }
            for i in chunk.spans.usize() {
                let Some(span) = batch.spans.get(i) else { break };
                refs.push(Ref {
                    trace: span.trace_id.0,
                    start: span.start,
                    batch: b as u32,
                    chunk: c as u32,
                    span: i as u32,
                });
            }
        }
    }
    if refs.is_empty() {
        return Err(SegmentError::Empty);
    }
    refs.sort_by_key(|r| (r.trace, r.start));
    let traces = refs.chunk_by(|a, b| a.trace == b.trace).count();
    let step = refs.len().div_ceil(8192);
    let sample: Vec<_> = refs
        .iter()
        .step_by(step)
        .map(|r| (batches[r.batch as usize], &batches[r.batch as usize].spans[r.span as usize]))
        .collect();
    let mut columns = s::fixed();
    columns.extend(choose(&sample).iter().map(|(key, kind)| s::promoted(key, *kind)));
    let writer = SegmentWriter::create(parent_dir, options, columns, traces)?;
    let mut builder = Builder::new(batches, writer);
    let mut kept: Vec<Ref> = Vec::new();
    for trace in refs.chunk_by(|a, b| a.trace == b.trace) {
        kept.clear();
        for r in trace {
            let again =
                kept.iter().rev().take_while(|k| k.start == r.start).any(|k| same_span(batches, k, r));
            if !again {
                kept.push(*r);
            }
        }
        builder.trace(&kept)?;
    }
    builder.writer.finish()
}

/// Whether two references name the same span with the same content.
fn same_span(batches: &[&Batch], a: &Ref, b: &Ref) -> bool {
    let (ba, bb) = (batches[a.batch as usize], batches[b.batch as usize]);
    let (sa, sb) = (&ba.spans[a.span as usize], &bb.spans[b.span as usize]);
    sa.span_id == sb.span_id
        && sa.kind == sb.kind
        && content(ba, &ba.chunks[a.chunk as usize], sa) == content(bb, &bb.chunks[b.chunk as usize], sb)
}

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
    fn attrs(&mut self, batch: &Batch, range: spanloom_model::Range32) {
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

fn put_events(out: &mut Vec<u8>, batch: &Batch, span: &Span) {
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

fn put_links(out: &mut Vec<u8>, batch: &Batch, span: &Span) {
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

fn put_dropped(out: &mut Vec<u8>, span: &Span) {
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

struct Builder<'a> {
    batches: &'a [&'a Batch],
    writer: SegmentWriter,
    keys: Interner,
    /// Promoted column by key and type.
    by_key: Vec<[Option<u16>; 4]>,
    sets: Interner,
    set_json: Interner,
    /// JSON code of each set.
    set_codes: Vec<u32>,
    context: Interner,
    /// Codes in `context`: per batch, per resource, chunk, scope.
    processes: Vec<Vec<u32>>,
    chunks: Vec<Vec<u32>>,
    scopes: Vec<Vec<u32>>,
    promoted: Vec<Option<Value>>,
    scratch: Vec<u8>,
    long: Vec<u8>,
    parents: Vec<Option<i64>>,
    ids: Vec<(u64, u64)>,
    unchecked: usize,
}

impl<'a> Builder<'a> {
    fn new(batches: &'a [&'a Batch], writer: SegmentWriter) -> Self {
        let mut keys = Interner::default();
        let mut by_key: Vec<[Option<u16>; 4]> = Vec::new();
        for (i, c) in writer.columns.iter().enumerate() {
            if let Some((key, kind)) = &c.attr {
                let (code, new) = keys.intern(key.as_bytes());
                if new {
                    by_key.push([None; 4]);
                }
                by_key[code as usize][*kind as usize] = Some(i as u16);
            }
        }
        let mut context = Interner::default();
        let mut buffer = Vec::new();
        let mut number = |put: &mut dyn FnMut(&mut Vec<u8>)| {
            buffer.clear();
            put(&mut buffer);
            context.intern(&buffer).0
        };
        let mut processes = Vec::new();
        let mut chunks = Vec::new();
        let mut scopes = Vec::new();
        for b in batches {
            processes.push(b.resources.iter().map(|r| number(&mut |o| put_process(o, b, r))).collect());
            chunks.push(b.chunks.iter().map(|c| number(&mut |o| put_chunk(o, b, c))).collect());
            scopes.push((0..b.scopes.len() as u32).map(|i| number(&mut |o| put_scope(o, b, i))).collect());
        }
        let promoted = vec![None; writer.columns.len() - s::FIXED];
        Self {
            batches,
            writer,
            keys,
            by_key,
            sets: Interner::default(),
            set_json: Interner::default(),
            set_codes: Vec::new(),
            context,
            processes,
            chunks,
            scopes,
            promoted,
            scratch: Vec::new(),
            long: Vec::new(),
            parents: Vec::new(),
            ids: Vec::new(),
            unchecked: 0,
        }
    }

    fn trace(&mut self, refs: &[Ref]) -> Result<(), SegmentError> {
        self.ids.clear();
        for r in refs {
            let span = &self.batches[r.batch as usize].spans[r.span as usize];
            self.ids.push((span.span_id.0, span.parent_id.0));
        }
        let mut parents = std::mem::take(&mut self.parents);
        parent_rows(&self.ids, &mut parents);
        for (r, parent) in refs.iter().zip(&parents) {
            self.row(r, *parent)?;
        }
        self.parents = parents;
        Ok(())
    }

    fn row(&mut self, r: &Ref, parent_row: Option<i64>) -> Result<(), SegmentError> {
        let batches = self.batches;
        let batch = batches[r.batch as usize];
        let span = &batch.spans[r.span as usize];
        self.attributes(batch, span);
        let cols = &mut self.writer.cols;
        cols[s::TRACE_ID].push_id(span.trace_id.0);
        cols[s::SPAN_ID].push_word(span.span_id.0 as i64);
        cols[s::PARENT_ROW].push_word(parent_row.unwrap_or(0));
        if parent_row.is_some() || span.parent_id.is_zero() {
            cols[s::PARENT_ID].push_null();
        } else {
            cols[s::PARENT_ID].push_word(span.parent_id.0 as i64);
        }
        cols[s::START].push_word(span.start);
        cols[s::DURATION].push_word(span.duration);
        let (service, name, resource) =
            (batch.str(span.service), batch.str(span.name), batch.str(span.resource));
        cols[s::SERVICE].push(service.as_bytes());
        cols[s::NAME].push(name.as_bytes());
        cols[s::RESOURCE].push(resource.as_bytes());
        cols[s::TYPE].push(batch.str(span.span_type).as_bytes());
        cols[s::KIND].push(span.kind.name().as_bytes());
        cols[s::STATUS].push(status_name(span.status).as_bytes());
        cols[s::ERROR].push_word(i64::from(span.error));
        cols[s::FLAGS].push_word(span.flags as i64);
        cols[s::STATUS_MESSAGE].push(batch.str(span.status_message).as_bytes());
        cols[s::TRACE_STATE].push(batch.str(span.trace_state).as_bytes());
        if self.long.is_empty() {
            cols[s::LONG].push_null();
        } else {
            self.long.push(b']');
            cols[s::LONG].push(&self.long);
        }
        let mut size = self.long.len() + resource.len() + span.status_message.len() + span.trace_state.len();
        for (column, there, put) in [
            (s::EVENTS, !span.events.is_empty(), put_events as fn(&mut Vec<u8>, &Batch, &Span)),
            (s::LINKS, !span.links.is_empty(), put_links),
            (s::DROPPED, span.dropped != [0; 3], |o, _, s| put_dropped(o, s)),
        ] {
            if there {
                self.scratch.clear();
                put(&mut self.scratch, batch, span);
                size += self.scratch.len();
                cols[column].push(&self.scratch);
            } else {
                cols[column].push_null();
            }
        }
        let (b, c) = (r.batch as usize, r.chunk as usize);
        let process = batch.chunks[c].resource as usize;
        match self.processes[b].get(process) {
            Some(code) => cols[s::PROCESS].push(self.context.get(*code)),
            None => cols[s::PROCESS].push(b"{}"),
        }
        match self.scopes[b].get(span.scope as usize) {
            Some(code) if span.scope != NO_SCOPE => cols[s::SCOPE].push(self.context.get(*code)),
            _ => cols[s::SCOPE].push_null(),
        }
        cols[s::CHUNK].push(self.context.get(self.chunks[b][c]));
        for (col, value) in cols[s::FIXED..].iter_mut().zip(&mut self.promoted) {
            match value.take() {
                None => col.push_null(),
                Some(Value::Int(v)) => col.push_word(v),
                Some(Value::Double(v)) => col.push(&v.to_le_bytes()),
                Some(Value::Str(t)) => {
                    size += t.len();
                    col.push(batch.str(t).as_bytes());
                }
                Some(other) => {
                    self.scratch.clear();
                    put_value(&mut self.scratch, batch, &other, 1);
                    size += self.scratch.len();
                    col.push(&self.scratch);
                }
            }
        }
        self.unchecked += size;
        self.writer.end_row()?;
        if self.unchecked > CHECK_BYTES {
            self.unchecked = 0;
            self.writer.settle()?;
        }
        Ok(())
    }

    /// Pushes the attribute set of a span, and leaves the values that lie
    /// elsewhere in `promoted` and `long`.
    fn attributes(&mut self, batch: &Batch, span: &Span) {
        self.long.clear();
        let key = &mut self.scratch;
        key.clear();
        for a in batch.attrs(span.attrs) {
            let (code, new) = self.keys.intern(batch.arena.bytes(a.key));
            if new {
                self.by_key.push([None; 4]);
            }
            key.extend_from_slice(&code.to_le_bytes());
            let kind = Type::of(&a.value);
            if let Some(column) = self.by_key[code as usize][kind as usize] {
                let place = &mut self.promoted[usize::from(column) - s::FIXED];
                if place.is_none() && !matches!(a.value, Value::Empty) {
                    *place = Some(a.value);
                    key.push(16 + kind as u8);
                    continue;
                }
            }
            match a.value {
                Value::Empty => key.push(0),
                Value::Bool(b) => key.extend_from_slice(&[1, u8::from(b)]),
                Value::Int(v) => {
                    key.push(2);
                    key.extend_from_slice(&v.to_le_bytes());
                }
                Value::Double(v) => {
                    key.push(3);
                    key.extend_from_slice(&v.to_bits().to_le_bytes());
                }
                Value::Str(t) => {
                    // Whether it is UTF-8 is looked at when a set is new.
                    let text = batch.arena.bytes(t);
                    if is_trace_high(span, text) {
                        key.push(5);
                    } else if text.len() > LONG_TEXT {
                        key.push(6);
                        self.long.push(if self.long.is_empty() { b'[' } else { b',' });
                        put_str(&mut self.long, batch.str(t));
                    } else {
                        key.extend_from_slice(&[4, text.len() as u8]);
                        key.extend_from_slice(text);
                    }
                }
                Value::Bytes(_) | Value::List(_) | Value::Map(_) => {
                    key.push(6);
                    self.long.push(if self.long.is_empty() { b'[' } else { b',' });
                    put_value(&mut self.long, batch, &a.value, 1);
                }
            }
        }
        if self.sets.size() > SET_BYTES {
            self.sets.clear();
            self.set_json.clear();
            self.set_codes.clear();
        }
        let (set, new) = self.sets.intern(&self.scratch);
        if new {
            let json = set_json(&self.scratch, &self.keys);
            self.set_codes.push(self.set_json.intern(&json).0);
        }
        let json = self.set_json.get(self.set_codes[set as usize]);
        self.writer.cols[s::ATTRIBUTES].push(json);
    }
}

/// Whether a text is the upper half of the span's trace id.
pub(crate) fn is_trace_high(span: &Span, text: &[u8]) -> bool {
    text.len() == 16 && text == format!("{:016x}", span.trace_id.high()).as_bytes()
}

/// The longest valid prefix, as `Arena::str` gives it.
fn valid(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => std::str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or_default(),
    }
}

/// The JSON of a set from its binary form (see [`Builder::attributes`]).
fn set_json(set: &[u8], keys: &Interner) -> Vec<u8> {
    let mut out = vec![b'{'];
    let mut r = crate::encoding::Reader::new(set);
    while let Ok(code) = r.u32() {
        if out.len() > 1 {
            out.push(b',');
        }
        put_str(&mut out, valid(keys.get(code)));
        out.push(b':');
        let empty = Batch::default();
        let mut plain = |v: Value| put_value(&mut out, &empty, &v, 0);
        match r.u8().unwrap_or(0) {
            0 => plain(Value::Empty),
            1 => plain(Value::Bool(r.u8().unwrap_or(0) != 0)),
            2 => plain(Value::Int(r.i64().unwrap_or(0))),
            3 => plain(Value::Double(f64::from_bits(r.u64().unwrap_or(0)))),
            4 => {
                let n = r.u8().unwrap_or(0);
                put_str(&mut out, valid(r.take(usize::from(n)).unwrap_or_default()));
            }
            5 => put_slot(&mut out, Slot::TraceHigh),
            6 => put_slot(&mut out, Slot::Long),
            16 => put_slot(&mut out, Slot::Column(Type::Str)),
            17 => put_slot(&mut out, Slot::Column(Type::Int)),
            18 => put_slot(&mut out, Slot::Column(Type::Double)),
            _ => put_slot(&mut out, Slot::Column(Type::Json)),
        }
    }
    out.push(b'}');
    out
}
