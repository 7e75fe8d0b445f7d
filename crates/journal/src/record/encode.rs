//! Batch → record.

use super::dict::{Lists, Texts, fold};
use super::{MAX_DEPTH, VERSION, bit, chunk_bit, tag};
use crate::varint::Writer;
use bytes::Bytes;
use spanloom_model::{
    Batch, Chunk, Event, Fate, Link, NO_SCOPE, PRIORITY_NONE, Range32, Resource, Span, Text, TraceId, Value,
    flags,
};
use std::hash::BuildHasher;

/// A chunk of a record, without its spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHead {
    /// Its trace.
    pub trace_id: TraceId,
    /// Its spans.
    pub spans: u32,
    /// Earliest start of its spans that have one, `i64::MAX` if none has.
    pub min_start: i64,
    /// Latest start of its spans that have one, `i64::MIN` if none has.
    pub max_start: i64,
    /// Whether a span of it has no start.
    pub startless: bool,
}

/// A finished record and what its writer need not read out of it again.
#[derive(Clone, Debug, Default)]
pub struct Encoded {
    /// The record.
    pub bytes: Bytes,
    /// Its chunks, in order.
    pub chunks: Vec<ChunkHead>,
    /// All its spans.
    pub spans: u32,
    /// Spans left out by [`Rules::keep`].
    pub skipped: u32,
}

/// Decisions of the caller while a batch is written.
pub trait Rules {
    /// Whether a kept chunk is to be written. Asked about each, in order.
    fn takes(&mut self, chunk: &Chunk) -> bool {
        let _ = chunk;
        true
    }
    /// Under which trace the chunk is to be stored.
    fn trace_id(&mut self, chunk: &Chunk) -> TraceId {
        chunk.trace_id
    }
    /// Whether a span with this content is to be written. The fingerprint
    /// covers the stored trace id, all fields and attributes in order, links,
    /// events and the resource; it is stable for one [`Encoder`] only.
    fn keep(&mut self, fingerprint: u64) -> bool {
        let _ = fingerprint;
        true
    }
}

/// Writes everything as it is.
impl Rules for () {}

/// Writes records. Keeps its tables between calls, so keep it.
pub struct Encoder {
    seed: u64,
    texts: Texts,
    blobs: Vec<(u32, u32)>,
    blob_bytes: Vec<u8>,
    ops: Lists,
    op_hashes: Vec<u64>,
    shapes: Lists,
    resource_map: Vec<Option<(u32, u64)>>,
    resources: u32,
    scope_map: Vec<Option<u32>>,
    scopes: u32,
    resource_out: Writer,
    scope_out: Writer,
    chunk_out: Writer,
    span_out: Writer,
    attr_out: Writer,
    extra_out: Writer,
    shape: Vec<u32>,
    /// Ids of the chunk's spans so far.
    written: Vec<u64>,
}

impl Default for Encoder {
    fn default() -> Self {
        // Fingerprints of different processes differ, so that nobody can
        // prepare spans that are taken for others.
        Self::with_seed(foldhash::fast::RandomState::default().hash_one(0u64))
    }
}

impl Encoder {
    /// An encoder with given hashing, for repeatable tests.
    pub fn with_seed(seed: u64) -> Self {
        Self {
            seed,
            texts: Texts::new(seed),
            blobs: Vec::new(),
            blob_bytes: Vec::new(),
            ops: Lists::default(),
            op_hashes: Vec::new(),
            shapes: Lists::default(),
            resource_map: Vec::new(),
            resources: 0,
            scope_map: Vec::new(),
            scopes: 0,
            resource_out: Writer::default(),
            scope_out: Writer::default(),
            chunk_out: Writer::default(),
            span_out: Writer::default(),
            attr_out: Writer::default(),
            extra_out: Writer::default(),
            shape: Vec::new(),
            written: Vec::new(),
        }
    }

    /// The record of the batch's kept chunks. Without any span in the result
    /// the bytes are empty.
    pub fn encode(&mut self, batch: &Batch, rules: &mut impl Rules) -> Encoded {
        self.clear(batch);
        let mut result = Encoded::default();
        for chunk in batch.chunks.iter().filter(|c| c.fate == Fate::Kept) {
            if rules.takes(chunk) {
                self.chunk(batch, chunk, rules, &mut result);
            }
        }
        if result.spans > 0 {
            result.bytes = self.finish(batch, result.chunks.len());
        }
        result
    }

    fn clear(&mut self, batch: &Batch) {
        self.texts.clear();
        self.blobs.clear();
        self.blob_bytes.clear();
        self.ops.clear();
        self.op_hashes.clear();
        self.shapes.clear();
        self.resource_map.clear();
        self.resource_map.resize(batch.resources.len(), None);
        self.resources = 0;
        self.scope_map.clear();
        self.scope_map.resize(batch.scopes.len(), None);
        self.scopes = 0;
        for out in [
            &mut self.resource_out,
            &mut self.scope_out,
            &mut self.chunk_out,
            &mut self.span_out,
            &mut self.attr_out,
            &mut self.extra_out,
        ] {
            out.out.clear();
            // One huge batch must not hold its buffers for ever.
            if out.out.capacity() > 4 << 20 {
                out.out = Vec::new();
            }
        }
    }

    fn chunk(&mut self, batch: &Batch, chunk: &Chunk, rules: &mut impl Rules, result: &mut Encoded) {
        let spans = batch.chunk_spans(chunk);
        if spans.is_empty() {
            return;
        }
        let trace_id = rules.trace_id(chunk);
        let (resource, resource_hash) = self.resource(batch, chunk.resource);
        let seed = fold(fold(trace_id.high() ^ self.seed, trace_id.low()), resource_hash);
        let marks = (self.span_out.out.len(), self.attr_out.out.len(), self.extra_out.out.len());
        let mut done =
            ChunkHead { trace_id, spans: 0, min_start: i64::MAX, max_start: i64::MIN, startless: false };
        self.written.clear();
        let mut last_start = batch.intake.received_at;
        for span in spans {
            let before = (self.span_out.out.len(), self.attr_out.out.len(), self.extra_out.out.len());
            let start = last_start;
            let fingerprint = self.span(batch, span, seed, &mut last_start);
            if rules.keep(fingerprint) {
                self.written.push(span.span_id.0);
                done.spans += 1;
                if span.flags & flags::NO_START == 0 {
                    done.min_start = done.min_start.min(span.start);
                    done.max_start = done.max_start.max(span.start);
                } else {
                    done.startless = true;
                }
            } else {
                result.skipped += 1;
                last_start = start;
                self.span_out.out.truncate(before.0);
                self.attr_out.out.truncate(before.1);
                self.extra_out.out.truncate(before.2);
            }
        }
        if done.spans == 0 {
            return;
        }
        self.chunk_head(batch, chunk, resource, marks, done);
        result.spans += done.spans;
        result.chunks.push(done);
    }

    fn chunk_head(
        &mut self,
        batch: &Batch,
        chunk: &Chunk,
        resource: u32,
        marks: (usize, usize, usize),
        done: ChunkHead,
    ) {
        let extra = chunk.priority != PRIORITY_NONE
            || !chunk.origin.is_empty()
            || !chunk.attrs.is_empty()
            || chunk.sampling_mechanism != 0;
        let mut out = std::mem::take(&mut self.chunk_out);
        out.fixed64(done.trace_id.high());
        out.fixed64(done.trace_id.low());
        out.u64(u64::from(resource));
        out.u64(u64::from(done.spans));
        out.u64((self.span_out.out.len() - marks.0) as u64);
        out.u64((self.attr_out.out.len() - marks.1) as u64);
        out.u64((self.extra_out.out.len() - marks.2) as u64);
        let started = done.min_start <= done.max_start;
        let mut bits = 0;
        for (set, bit) in [
            (chunk.dropped, chunk_bit::DROPPED),
            (extra, chunk_bit::EXTRA),
            (started, chunk_bit::STARTED),
            (done.startless, chunk_bit::STARTLESS),
        ] {
            bits |= if set { bit } else { 0 };
        }
        out.u8(bits);
        if started {
            out.i64(done.min_start.wrapping_sub(batch.intake.received_at));
            out.u64(done.max_start.wrapping_sub(done.min_start) as u64);
        }
        if extra {
            let mut more = Writer::default();
            more.i64(i64::from(chunk.priority));
            more.u64(u64::from(self.text(batch, chunk.origin)));
            more.u64(u64::from(chunk.sampling_mechanism));
            self.attrs(batch, chunk.attrs, &mut more, 0);
            out.bytes(&more.out);
        }
        self.chunk_out = out;
    }

    /// Writes one span and returns its fingerprint.
    fn span(&mut self, batch: &Batch, span: &Span, seed: u64, last_start: &mut i64) -> u64 {
        let service = self.text(batch, span.service);
        let name = self.text(batch, span.name);
        let resource = self.text(batch, span.resource);
        let span_type = self.text(batch, span.span_type);
        let scope = self.scope(batch, span.scope);
        let op = self.ops.add(&[service, name, resource, span_type, span.kind as u32, scope]);
        if op as usize == self.op_hashes.len() {
            let mut hash = u64::from(span.kind as u8);
            for text in [service, name, resource, span_type] {
                hash = fold(hash, self.texts.hash(text));
            }
            self.op_hashes.push(hash);
        }
        let mut hash = fold(seed ^ self.op_hashes[op as usize], span.span_id.0);
        hash = fold(hash ^ span.parent_id.0, span.start as u64);
        hash = fold(hash ^ span.duration as u64, span.flags ^ u64::from(span.error as u32) << 32);
        hash = fold(hash, u64::from(span.status as u8));

        let extra = span.flags != 0
            || !matches!(span.error, 0 | 1)
            || !span.trace_state.is_empty()
            || !span.status_message.is_empty()
            || span.dropped != [0; 3]
            || !span.links.is_empty()
            || !span.events.is_empty();
        let parent = span.parent_id.0;
        let near =
            if parent == 0 { None } else { self.written.iter().rev().take(64).position(|id| *id == parent) };
        let mut bits = span.status as u8;
        if span.error != 0 {
            bits |= bit::ERROR;
        }
        if extra {
            bits |= bit::EXTRA;
        }
        if near.is_some() {
            bits |= bit::PARENT_NEAR;
        } else if parent != 0 {
            bits |= bit::PARENT_FAR;
        }
        let out = &mut self.span_out;
        out.u64(u64::from(op));
        out.u8(bits);
        out.fixed64(span.span_id.0);
        match near {
            Some(distance) => out.u64(distance as u64),
            None if parent != 0 => out.fixed64(parent),
            None => {}
        }
        out.i64(span.start.wrapping_sub(*last_start));
        out.i64(span.duration);
        *last_start = span.start;

        let mut out = std::mem::take(&mut self.attr_out);
        hash = fold(hash, self.attrs(batch, span.attrs, &mut out, 0));
        self.attr_out = out;
        if extra {
            hash = self.extras(batch, span, hash);
        }
        hash
    }

    fn extras(&mut self, batch: &Batch, span: &Span, mut hash: u64) -> u64 {
        let mut out = std::mem::take(&mut self.extra_out);
        out.u64(span.flags);
        out.i64(i64::from(span.error));
        for text in [span.trace_state, span.status_message] {
            let n = self.text(batch, text);
            hash = fold(hash, self.texts.hash(n));
            out.u64(u64::from(n));
        }
        for n in span.dropped {
            hash = fold(hash, u64::from(n));
            out.u64(u64::from(n));
        }
        let links = batch.span_links(span);
        out.u64(links.len() as u64);
        for link in links {
            hash = fold(hash, self.link(batch, link, &mut out));
        }
        let events = batch.span_events(span);
        out.u64(events.len() as u64);
        for event in events {
            hash = fold(hash, self.event(batch, event, span.start, &mut out));
        }
        self.extra_out = out;
        hash
    }

    fn link(&mut self, batch: &Batch, link: &Link, out: &mut Writer) -> u64 {
        let state = self.text(batch, link.trace_state);
        out.fixed64(link.trace_id.high());
        out.fixed64(link.trace_id.low());
        out.fixed64(link.span_id.0);
        out.u64(u64::from(state));
        out.u64(u64::from(link.flags));
        out.u64(u64::from(link.dropped));
        let attrs = self.attrs(batch, link.attrs, out, 0);
        let ids = fold(fold(link.trace_id.high(), link.trace_id.low()), link.span_id.0);
        let rest = u64::from(link.flags) | u64::from(link.dropped) << 32;
        fold(fold(ids, attrs), self.texts.hash(state) ^ rest)
    }

    fn event(&mut self, batch: &Batch, event: &Event, start: i64, out: &mut Writer) -> u64 {
        let name = self.text(batch, event.name);
        out.i64((event.time as i64).wrapping_sub(start));
        out.u64(u64::from(name));
        out.u64(u64::from(event.dropped));
        let attrs = self.attrs(batch, event.attrs, out, 0);
        fold(fold(event.time ^ u64::from(event.dropped) << 32, self.texts.hash(name)), attrs)
    }

    /// Writes the attributes of an owner and returns their hash.
    fn attrs(&mut self, batch: &Batch, range: Range32, out: &mut Writer, depth: usize) -> u64 {
        let attrs = batch.attrs(range);
        let mark = self.shape.len();
        for attr in attrs {
            let key = self.text(batch, attr.key);
            self.shape.push(key << 4 | tag_of(attr.value, depth));
        }
        let shape = self.shapes.add(&self.shape[mark..]);
        out.u64(u64::from(shape));
        let mut hash = attrs.len() as u64;
        for (i, attr) in attrs.iter().enumerate() {
            let entry = self.shape[mark + i];
            hash = fold(hash ^ u64::from(entry & 15), self.texts.hash(entry >> 4));
            hash = fold(hash, self.value(batch, attr.value, entry & 15, out, depth));
        }
        self.shape.truncate(mark);
        hash
    }

    fn value(&mut self, batch: &Batch, value: Value, tag: u32, out: &mut Writer, depth: usize) -> u64 {
        match value {
            Value::Str(t) => {
                let n = self.text(batch, t);
                out.u64(u64::from(n));
                self.texts.hash(n)
            }
            Value::Bool(b) => {
                out.u8(u8::from(b));
                u64::from(b)
            }
            Value::Int(i) => {
                out.i64(i);
                i as u64
            }
            Value::Double(d) if tag == super::tag::WHOLE => {
                out.i64(d as i64);
                d.to_bits()
            }
            Value::Double(d) => {
                out.fixed64(d.to_bits());
                d.to_bits()
            }
            Value::Bytes(t) => {
                let bytes = batch.arena.bytes(t);
                let n = self.blobs.len() as u64;
                self.blobs.push((self.blob_bytes.len() as u32, bytes.len() as u32));
                self.blob_bytes.extend_from_slice(bytes);
                out.u64(n);
                foldhash::fast::FixedState::with_seed(self.seed).hash_one(bytes)
            }
            Value::List(r) if tag == super::tag::LIST => {
                let items = batch.list(r);
                out.u64(items.len() as u64);
                let mut hash = items.len() as u64;
                for item in items {
                    let tag = tag_of(*item, depth + 1);
                    out.u8(tag as u8);
                    hash = fold(hash ^ u64::from(tag), self.value(batch, *item, tag, out, depth + 1));
                }
                hash
            }
            Value::Map(r) if tag == super::tag::MAP => self.attrs(batch, r, out, depth + 1),
            Value::Empty | Value::List(_) | Value::Map(_) => {
                // A byte, so that the reader's tables are bounded by its input.
                out.u8(0);
                0
            }
        }
    }

    #[inline]
    fn text(&mut self, batch: &Batch, text: Text) -> u32 {
        if text.is_empty() { 0 } else { self.texts.add(batch.arena.bytes(text)) }
    }

    fn resource(&mut self, batch: &Batch, index: u32) -> (u32, u64) {
        match self.resource_map.get(index as usize) {
            Some(Some(known)) => return *known,
            Some(None) => {}
            // A chunk without resource gets an empty one.
            None => self.resource_map.resize(index.min(batch.resources.len() as u32) as usize + 1, None),
        }
        let position = (index as usize).min(batch.resources.len());
        if let Some(Some(known)) = self.resource_map.get(position) {
            return *known;
        }
        let r = batch.resources.get(position).copied().unwrap_or_default();
        let mut out = std::mem::take(&mut self.resource_out);
        let mut hash = u64::from(r.dropped);
        for text in texts_of(&r) {
            let n = self.text(batch, text);
            out.u64(u64::from(n));
            hash = fold(hash, self.texts.hash(n));
        }
        out.u64(u64::from(r.dropped));
        hash = fold(hash, self.attrs(batch, r.attrs, &mut out, 0));
        self.resource_out = out;
        let known = (self.resources, hash);
        self.resources += 1;
        self.resource_map[position] = Some(known);
        known
    }

    /// Position of the scope in the record + 1, 0 for none.
    fn scope(&mut self, batch: &Batch, index: u32) -> u32 {
        if index == NO_SCOPE {
            return 0;
        }
        let Some(scope) = batch.scopes.get(index as usize).copied() else { return 0 };
        if let Some(known) = self.scope_map[index as usize] {
            return known;
        }
        let mut out = std::mem::take(&mut self.scope_out);
        for text in [scope.name, scope.version, scope.schema_url] {
            out.u64(u64::from(self.text(batch, text)));
        }
        out.u64(u64::from(scope.dropped));
        self.attrs(batch, scope.attrs, &mut out, 0);
        self.scope_out = out;
        self.scopes += 1;
        self.scope_map[index as usize] = Some(self.scopes);
        self.scopes
    }

    fn finish(&mut self, batch: &Batch, chunks: usize) -> Bytes {
        // Texts come from decoders that checked them. Should one of them not
        // be UTF-8 after all, the whole record would be unreadable: repair it.
        let fixed = repair(&self.texts.blob, &self.texts.ends);
        let (blob, ends) = match &fixed {
            Some((blob, ends)) => (blob.as_slice(), ends.as_slice()),
            None => (self.texts.blob.as_slice(), self.texts.ends.as_slice()),
        };
        let parts = [
            &self.resource_out,
            &self.scope_out,
            &self.chunk_out,
            &self.span_out,
            &self.attr_out,
            &self.extra_out,
        ];
        let sum: usize = parts.iter().map(|p| p.out.len()).sum();
        let mut w = Writer {
            out: Vec::with_capacity(sum + blob.len() + self.blob_bytes.len() + 2 * ends.len() + 256),
        };
        let mut section = Writer::default();
        let intake = &batch.intake;
        w.u8(VERSION);
        w.u8(intake.protocol as u8);
        w.u8(intake.transport as u8);
        w.u8(u8::from(intake.client.computed_top_level) | u8::from(intake.client.computed_stats) << 1);
        w.u64(intake.client.dropped_p0_traces);
        w.u64(intake.client.dropped_p0_spans);
        w.i64(intake.received_at);

        // Text 0 is the empty one and not written.
        section.u64(ends.len() as u64 - 1);
        for pair in ends.windows(2) {
            section.u64(u64::from(pair[1] - pair[0]));
        }
        section.out.extend_from_slice(blob);
        flush(&mut w, &mut section);
        section.u64(self.blobs.len() as u64);
        for (_, len) in &self.blobs {
            section.u64(u64::from(*len));
        }
        section.out.extend_from_slice(&self.blob_bytes);
        flush(&mut w, &mut section);
        section.u64(self.ops.ends.len() as u64);
        for &n in &self.ops.items {
            section.u64(u64::from(n));
        }
        flush(&mut w, &mut section);
        section.u64(self.shapes.ends.len() as u64);
        for shape in self.shapes.iter() {
            section.u64(shape.len() as u64);
            for &entry in shape {
                section.u64(u64::from(entry));
            }
        }
        flush(&mut w, &mut section);
        for (count, out) in [
            (self.resources as usize, &self.resource_out),
            (self.scopes as usize, &self.scope_out),
            (chunks, &self.chunk_out),
        ] {
            section.u64(count as u64);
            section.out.extend_from_slice(&out.out);
            flush(&mut w, &mut section);
        }
        for out in [&self.span_out, &self.attr_out, &self.extra_out] {
            w.bytes(&out.out);
        }
        w.out.shrink_to_fit();
        Bytes::from(w.out)
    }
}

fn flush(w: &mut Writer, section: &mut Writer) {
    w.bytes(&section.out);
    section.out.clear();
}

/// The texts of a resource, in the order of the record.
fn texts_of(r: &Resource) -> [Text; 9] {
    [
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
}

fn tag_of(value: Value, depth: usize) -> u32 {
    match value {
        Value::Empty => tag::EMPTY,
        Value::Str(_) => tag::STR,
        Value::Bool(_) => tag::BOOL,
        Value::Int(_) => tag::INT,
        // Bit for bit, so that -0.0 and numbers beyond 2^63 stay what they are.
        Value::Double(d) if ((d as i64) as f64).to_bits() == d.to_bits() && d.abs() < 9e15 => tag::WHOLE,
        Value::Double(_) => tag::DOUBLE,
        Value::Bytes(_) => tag::BYTES,
        Value::List(_) | Value::Map(_) if depth >= MAX_DEPTH => tag::EMPTY,
        Value::List(_) => tag::LIST,
        Value::Map(_) => tag::MAP,
    }
}

/// `None` if every text is UTF-8; otherwise the texts cut to their valid prefix.
fn repair(blob: &[u8], ends: &[u32]) -> Option<(Vec<u8>, Vec<u32>)> {
    let boundary = |end: &u32| blob.get(*end as usize).is_none_or(|b| b & 0xc0 != 0x80);
    if simdutf8::basic::from_utf8(blob).is_ok() && ends.iter().all(boundary) {
        return None;
    }
    let (mut out, mut out_ends, mut start) =
        (Vec::with_capacity(blob.len()), Vec::with_capacity(ends.len()), 0);
    for end in ends {
        let text = &blob[start..*end as usize];
        let valid = std::str::from_utf8(text).map_or_else(|e| e.valid_up_to(), str::len);
        out.extend_from_slice(&text[..valid]);
        out_ends.push(out.len() as u32);
        start = *end as usize;
    }
    Some((out, out_ends))
}
