//! What the Agent sends to the trace intake: protobuf `AgentPayload`
//! (`datadog-agent:pkg/proto/datadog/trace/agent_payload.proto` and, for spans
//! that came as v1.0, `idx/tracer_payload.proto`).
//!
//! Tracer payloads are encoded one by one, so that an exporter can keep them
//! as bytes and put them into an `AgentPayload` when it flushes: a repeated
//! field of protobuf is the concatenation of its elements.

use crate::protobuf::{Wide, Writer};
use spanloom_model::{
    Attr, Batch, Chunk, Leaves, Protocol, Range32, Resource, Span, SpanKind, Text, Value, flags, keys,
};
use std::collections::HashMap;

/// Typical lengths, so that messages rarely move when their length is known.
const SPAN_BYTES: usize = 400;
const INDEXED_SPAN_BYTES: usize = 150;
const CHUNK_BYTES: usize = 100;

/// Fields of an [`AgentPayload`](encode_agent_payload) besides the traces.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AgentInfo {
    /// Host name.
    pub hostname: String,
    /// Default environment.
    pub env: String,
    /// Version that the Agent reports.
    pub version: String,
    /// Mode of the Agent (`_dd.apm_mode`); empty: none.
    pub mode: String,
    /// Target of the priority sampler now, traces a second.
    pub target_tps: f64,
    /// Target of the errors sampler now, traces a second.
    pub error_tps: f64,
    /// Whether the rare sampler is on.
    pub rare_sampler: bool,
}

/// Appends the head of an `AgentPayload`; tracer payloads are appended after
/// it as they are.
pub fn encode_agent_payload(info: &AgentInfo, out: &mut Vec<u8>) {
    let mut w = Writer::new(out);
    w.bytes(1, info.hostname.as_bytes());
    w.bytes(2, info.env.as_bytes());
    if !info.mode.is_empty() {
        let entry = w.open(6);
        w.bytes(1, keys::APM_MODE.as_bytes());
        w.bytes(2, info.mode.as_bytes());
        w.close(entry);
    }
    w.bytes(7, info.version.as_bytes());
    w.fixed64(8, info.target_tps.to_bits());
    w.fixed64(9, info.error_tps.to_bits());
    w.varint(10, u64::from(info.rare_sampler));
}

/// Appends the tracer payload of one resource as a field of `AgentPayload`
/// (5, or 11 for v1.0), with those of its chunks that leave. Returns how many
/// chunks and spans it holds; nothing is appended if that is none (except for
/// v1.0, of which the Agent sends empty payloads too).
pub fn encode_tracer_payload(batch: &Batch, resource: u32, out: &mut Vec<u8>) -> (usize, usize) {
    let leaving: Vec<&Chunk> =
        batch.chunks.iter().filter(|c| c.resource == resource && leaves(batch, c) > 0).collect();
    let counts = (leaving.len(), leaving.iter().map(|c| leaves(batch, c)).sum());
    let Some(r) = batch.resources.get(resource as usize) else { return (0, 0) };
    if batch.intake.protocol == Protocol::DatadogV1 {
        indexed_payload(batch, r, &leaving, out);
    } else if !leaving.is_empty() {
        classic_payload(batch, r, &leaving, out);
    }
    counts
}

/// Spans of a chunk that leave.
fn leaves(batch: &Batch, chunk: &Chunk) -> usize {
    if chunk.fate != spanloom_model::Fate::Kept {
        return 0;
    }
    match chunk.sampled.leaves {
        Leaves::Whole => chunk.spans.len(),
        Leaves::Marked => batch.chunk_spans(chunk).iter().filter(|s| s.flags & flags::LEAVES != 0).count(),
        Leaves::Nothing => 0,
    }
}

fn leaving_spans<'a>(batch: &'a Batch, chunk: &Chunk) -> impl Iterator<Item = &'a Span> + use<'a> {
    let all = chunk.sampled.leaves == Leaves::Whole;
    batch.chunk_spans(chunk).iter().filter(move |s| all || s.flags & flags::LEAVES != 0)
}

fn classic_payload(batch: &Batch, r: &Resource, chunks: &[&Chunk], out: &mut Vec<u8>) {
    let mut w = Writer::new(out);
    let len = |c: &&Chunk| CHUNK_BYTES + c.spans.len() * SPAN_BYTES;
    let payload = w.open_about(5, chunks.iter().map(len).sum());
    for (field, text) in [
        (1, r.container_id),
        (2, r.language_name),
        (3, r.language_version),
        (4, r.tracer_version),
        (5, r.runtime_id),
    ] {
        w.bytes(field, batch.arena.bytes(text));
    }
    for chunk in chunks {
        let c = w.open_about(6, len(chunk));
        w.varint(1, i64::from(chunk.priority) as u64);
        w.bytes(2, batch.arena.bytes(chunk.origin));
        for span in leaving_spans(batch, chunk) {
            classic_span(batch, span, &mut w);
        }
        text_map(batch, chunk.attrs, 4, &mut w);
        w.varint(5, u64::from(chunk.dropped));
        w.close(c);
    }
    text_map(batch, r.attrs, 7, &mut w);
    for (field, text) in [(8, r.env), (9, r.hostname), (10, r.app_version)] {
        w.bytes(field, batch.arena.bytes(text));
    }
    w.close(payload);
}

fn text_map(batch: &Batch, range: Range32, field: u32, w: &mut Writer<'_>) {
    for a in batch.attrs(range) {
        if let Value::Str(value) = a.value {
            w.entry(field, text(batch, a.key), text(batch, value));
        }
    }
}

fn text(batch: &Batch, text: Text) -> Wide<'_> {
    Wide::new(batch.arena.tail(text), text.len())
}

fn classic_span(batch: &Batch, span: &Span, w: &mut Writer<'_>) {
    let s = w.open_about(3, SPAN_BYTES);
    w.text(1, text(batch, span.service));
    w.text(2, text(batch, span.name));
    w.text(3, text(batch, span.resource));
    w.varint(4, span.trace_id.low());
    w.varint(5, span.span_id.0);
    w.varint(6, span.parent_id.0);
    w.varint(7, span.start as u64);
    w.varint(8, span.duration as u64);
    w.varint(9, i64::from(span.error) as u64);
    for a in batch.attrs(span.attrs) {
        let key = text(batch, a.key);
        match a.value {
            Value::Str(value) => w.entry(10, key, text(batch, value)),
            Value::Double(_) | Value::Int(_) => {
                w.entry_fixed64(11, key, a.value.as_f64().unwrap_or_default().to_bits());
            }
            Value::Bytes(value) => w.entry(13, key, text(batch, value)),
            // Datadog's classic formats have no other types.
            Value::Empty | Value::Bool(_) | Value::List(_) | Value::Map(_) => {}
        }
    }
    w.text(12, text(batch, span.span_type));
    for link in batch.span_links(span) {
        let l = w.open(14);
        w.varint(1, link.trace_id.low());
        w.varint(2, link.trace_id.high());
        w.varint(3, link.span_id.0);
        text_map(batch, link.attrs, 4, w);
        w.bytes(5, batch.arena.bytes(link.trace_state));
        w.varint(6, u64::from(link.flags));
        w.close(l);
    }
    for event in batch.span_events(span) {
        let e = w.open(15);
        w.fixed64(1, event.time);
        w.bytes(2, batch.arena.bytes(event.name));
        for a in batch.attrs(event.attrs) {
            let entry = w.open(3);
            w.bytes(1, batch.arena.bytes(a.key));
            let value = w.open(2);
            any_value(batch, a.value, w);
            w.close(value);
            w.close(entry);
        }
        w.close(e);
    }
    w.close(s);
}

/// `AttributeAnyValue`: `type` decides which field is meant.
fn any_value(batch: &Batch, value: Value, w: &mut Writer<'_>) {
    match value {
        Value::Str(t) | Value::Bytes(t) => w.bytes(2, batch.arena.bytes(t)),
        Value::Bool(v) => {
            w.varint(1, 1);
            w.varint(3, u64::from(v));
        }
        Value::Int(v) => {
            w.varint(1, 2);
            w.varint(4, v as u64);
        }
        Value::Double(v) => {
            w.varint(1, 3);
            w.fixed64(5, v.to_bits());
        }
        Value::List(range) => {
            w.varint(1, 4);
            let array = w.open(6);
            for item in batch.list(range) {
                let element = w.open(1);
                // Lists in lists do not exist in this format.
                if !matches!(item, Value::List(_) | Value::Map(_)) {
                    any_value(batch, *item, w);
                }
                w.close(element);
            }
            w.close(array);
        }
        Value::Empty | Value::Map(_) => {}
    }
}

/// The string table of one indexed payload.
struct Strings<'a> {
    batch: &'a Batch,
    index: HashMap<&'a [u8], u32>,
    texts: Vec<&'a [u8]>,
}

impl<'a> Strings<'a> {
    fn new(batch: &'a Batch) -> Self {
        Self { batch, index: HashMap::from([(&b""[..], 0)]), texts: vec![b""] }
    }
    fn text(&mut self, text: Text) -> u64 {
        let bytes = self.batch.arena.bytes(text);
        let next = self.texts.len() as u32;
        let at = *self.index.entry(bytes).or_insert(next);
        if at == next {
            self.texts.push(bytes);
        }
        u64::from(at)
    }
}

fn indexed_payload(batch: &Batch, r: &Resource, chunks: &[&Chunk], out: &mut Vec<u8>) {
    let mut strings = Strings::new(batch);
    let len = |c: &Chunk| CHUNK_BYTES + c.spans.len() * INDEXED_SPAN_BYTES;
    // The table stands before its users, and is known only after them.
    let mut body = Vec::new();
    let mut w = Writer::new(&mut body);
    for (field, text) in [
        (2, r.container_id),
        (3, r.language_name),
        (4, r.language_version),
        (5, r.tracer_version),
        (6, r.runtime_id),
        (7, r.env),
        (8, r.hostname),
        (9, r.app_version),
    ] {
        w.varint(field, strings.text(text));
    }
    indexed_attrs(&mut strings, batch.attrs(r.attrs).iter(), 10, &mut w);
    for chunk in chunks {
        let c = w.open_about(11, len(chunk));
        w.varint(1, i64::from(chunk.priority) as u64);
        w.varint(2, strings.text(chunk.origin));
        indexed_attrs(&mut strings, batch.attrs(chunk.attrs).iter(), 3, &mut w);
        for span in leaving_spans(batch, chunk) {
            indexed_span(&mut strings, span, &mut w);
        }
        w.varint(5, u64::from(chunk.dropped));
        w.bytes(6, &chunk.trace_id.0.to_be_bytes());
        w.varint(7, u64::from(chunk.sampling_mechanism));
        w.close(c);
    }
    drop(w);
    let mut w = Writer::new(out);
    let payload = w.open_about(11, body.len());
    for text in &strings.texts {
        w.bytes_always(1, text);
    }
    w.raw(&body);
    w.close(payload);
}

fn indexed_span(strings: &mut Strings<'_>, span: &Span, w: &mut Writer<'_>) {
    let batch = strings.batch;
    let s = w.open_about(4, INDEXED_SPAN_BYTES);
    w.varint(1, strings.text(span.service));
    w.varint(2, strings.text(span.name));
    w.varint(3, strings.text(span.resource));
    w.fixed64(4, span.span_id.0);
    w.varint(5, span.parent_id.0);
    w.fixed64(6, span.start as u64);
    w.varint(7, span.duration as u64);
    w.varint(8, u64::from(span.error != 0));
    // Fields of this format that the model holds as attributes.
    let promoted = |a: &&Attr| {
        matches!(a.value, Value::Str(_))
            && [keys::ENV, keys::VERSION, keys::COMPONENT, keys::SPAN_KIND].contains(&batch.str(a.key))
    };
    indexed_attrs(strings, batch.attrs(span.attrs).iter().filter(|a| !promoted(a)), 9, w);
    w.varint(10, strings.text(span.span_type));
    for link in batch.span_links(span) {
        let l = w.open(11);
        w.bytes(1, &link.trace_id.0.to_be_bytes());
        w.fixed64(2, link.span_id.0);
        indexed_attrs(strings, batch.attrs(link.attrs).iter(), 3, w);
        w.varint(4, strings.text(link.trace_state));
        w.varint(5, u64::from(link.flags));
        w.close(l);
    }
    for event in batch.span_events(span) {
        let e = w.open(12);
        w.fixed64(1, event.time);
        w.varint(2, strings.text(event.name));
        indexed_attrs(strings, batch.attrs(event.attrs).iter(), 3, w);
        w.close(e);
    }
    for (field, key) in [(13, keys::ENV), (14, keys::VERSION), (15, keys::COMPONENT)] {
        if let Some(text) = batch.get_text(span.attrs, key) {
            w.varint(field, strings.text(text));
        }
    }
    if span.kind != SpanKind::Unspecified {
        w.varint(16, span.kind as u64);
    }
    w.close(s);
}

fn indexed_attrs<'a>(
    strings: &mut Strings<'a>,
    attrs: impl Iterator<Item = &'a Attr>,
    field: u32,
    w: &mut Writer<'_>,
) {
    for a in attrs {
        let entry = w.open(field);
        w.varint(1, strings.text(a.key));
        let value = w.open(2);
        indexed_value(strings, a.value, w);
        w.close(value);
        w.close(entry);
    }
}

fn indexed_value(strings: &mut Strings<'_>, value: Value, w: &mut Writer<'_>) {
    let batch = strings.batch;
    match value {
        Value::Empty => {}
        Value::Str(t) => w.varint_always(1, strings.text(t)),
        Value::Bool(v) => w.varint_always(2, u64::from(v)),
        Value::Double(v) => w.fixed64_always(3, v.to_bits()),
        Value::Int(v) => w.varint_always(4, v as u64),
        Value::Bytes(t) => w.bytes_always(5, batch.arena.bytes(t)),
        Value::List(range) => {
            let list = w.open(6);
            for item in batch.list(range) {
                let element = w.open(1);
                indexed_value(strings, *item, w);
                w.close(element);
            }
            w.close(list);
        }
        Value::Map(range) => {
            let map = w.open(7);
            for a in batch.attrs(range) {
                let pair = w.open(1);
                w.varint(1, strings.text(a.key));
                let value = w.open(2);
                indexed_value(strings, a.value, w);
                w.close(value);
                w.close(pair);
            }
            w.close(map);
        }
    }
}
