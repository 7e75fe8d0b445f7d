//! Batch to Jaeger's wire formats.

use super::NO_SERVICE;
use super::draft::RefType;
use super::view::{self, Tag, TagValue};
use crate::protobuf;
use crate::thrift::{Encoding, Writer};
use spanloom_model::{Batch, Chunk, Fate, Span, Text};

/// A batch as bodies for `/api/traces`: one Thrift `Batch` in the binary
/// encoding for each process, in order of appearance. Chunks that are not kept
/// are left out.
pub fn encode_thrift(batch: &Batch) -> Vec<Vec<u8>> {
    processes(batch)
        .iter()
        .map(|spans| {
            let mut out = Vec::new();
            let mut w = Writer::new(&mut out, Encoding::Binary);
            w.begin();
            write_batch(batch, spans, &mut w);
            w.stop();
            out
        })
        .collect()
}

/// As [`encode_thrift`], as calls of `emitBatch` for UDP.
pub fn encode_emit_batch(batch: &Batch, encoding: Encoding) -> Vec<Vec<u8>> {
    processes(batch)
        .iter()
        .map(|spans| {
            let mut out = Vec::new();
            let mut w = Writer::new(&mut out, encoding);
            w.oneway("emitBatch");
            w.begin();
            w.structure(1);
            write_batch(batch, spans, &mut w);
            w.stop();
            w.stop();
            out
        })
        .collect()
}

/// Spans with the chunk they are in.
type Spans<'a> = Vec<(&'a Chunk, &'a Span)>;

/// Kept spans by resource and service.
fn processes(batch: &Batch) -> Vec<Spans<'_>> {
    let mut groups: Vec<((u32, &str), Spans<'_>)> = Vec::new();
    for chunk in batch.chunks.iter().filter(|c| c.fate == Fate::Kept) {
        for span in batch.chunk_spans(chunk) {
            let key = (chunk.resource, batch.str(span.service));
            let at = match groups.iter().rposition(|g| g.0 == key) {
                Some(at) => at,
                None => {
                    groups.push((key, Vec::new()));
                    groups.len() - 1
                }
            };
            groups[at].1.push((chunk, span));
        }
    }
    groups.into_iter().map(|g| g.1).collect()
}

fn service(batch: &Batch, text: Text) -> &str {
    if text.is_empty() { NO_SERVICE } else { batch.str(text) }
}

fn write_batch(batch: &Batch, spans: &Spans<'_>, w: &mut Writer<'_>) {
    w.structure(1);
    if let Some((chunk, span)) = spans.first() {
        w.string(1, service(batch, span.service).as_bytes());
        write_tags(2, &view::process_tags(batch, chunk, span), w);
    }
    w.stop();
    w.structs(2, spans.len());
    for (chunk, span) in spans {
        w.begin();
        write_span(batch, chunk, span, w);
        w.stop();
    }
}

fn write_span(batch: &Batch, chunk: &Chunk, span: &Span, w: &mut Writer<'_>) {
    w.i64(1, span.trace_id.low() as i64);
    w.i64(2, span.trace_id.high() as i64);
    w.i64(3, span.span_id.0 as i64);
    w.i64(4, span.parent_id.0 as i64);
    w.string(5, batch.arena.bytes(span.name));
    let references = view::references(batch, span);
    w.structs(6, references.len());
    for r in references {
        w.begin();
        w.i32(1, i32::from(r.kind == RefType::FollowsFrom));
        w.i64(2, r.trace_id.low() as i64);
        w.i64(3, r.trace_id.high() as i64);
        w.i64(4, r.span_id.0 as i64);
        w.stop();
    }
    w.i32(7, view::wire_flags(span) as i32);
    w.i64(8, span.start / 1000);
    w.i64(9, span.duration / 1000);
    write_tags(10, &view::span_tags(batch, chunk, span), w);
    let events = batch.span_events(span);
    w.structs(11, events.len());
    for event in events {
        w.begin();
        w.i64(1, i64::try_from(event.time / 1000).unwrap_or(i64::MAX));
        write_tags(2, &view::log_fields(batch, event), w);
        w.stop();
    }
}

fn write_tags(id: i16, tags: &[Tag<'_>], w: &mut Writer<'_>) {
    w.structs(id, tags.len());
    for tag in tags {
        w.begin();
        w.string(1, tag.key.as_bytes());
        match &tag.value {
            TagValue::Str(text) => {
                w.i32(2, 0);
                w.string(3, text.as_bytes());
            }
            TagValue::Double(n) => {
                w.i32(2, 1);
                w.double(4, *n);
            }
            TagValue::Bool(b) => {
                w.i32(2, 2);
                w.bool(5, *b);
            }
            TagValue::Long(n) => {
                w.i32(2, 3);
                w.i64(6, *n);
            }
            TagValue::Bytes(bytes) => {
                w.i32(2, 4);
                w.string(7, bytes);
            }
        }
        w.stop();
    }
}

/// Appends a batch as `jaeger.api_v2.PostSpansRequest`; every span carries its
/// process.
pub fn encode_proto(batch: &Batch, out: &mut Vec<u8>) {
    let mut w = protobuf::Writer::new(out);
    let whole = w.open(1);
    for spans in processes(batch) {
        for (chunk, span) in spans {
            let at = w.open(1);
            write_proto_span(batch, chunk, span, &mut w);
            w.close(at);
        }
    }
    w.close(whole);
}

fn write_proto_span(batch: &Batch, chunk: &Chunk, span: &Span, w: &mut protobuf::Writer<'_>) {
    w.bytes(1, &span.trace_id.0.to_be_bytes());
    w.bytes(2, &span.span_id.0.to_be_bytes());
    w.bytes(3, batch.arena.bytes(span.name));
    for r in view::references(batch, span) {
        let at = w.open(4);
        w.bytes(1, &r.trace_id.0.to_be_bytes());
        w.bytes(2, &r.span_id.0.to_be_bytes());
        w.varint(3, u64::from(r.kind == RefType::FollowsFrom));
        w.close(at);
    }
    w.varint(5, u64::from(view::wire_flags(span)));
    write_time(6, span.start, w);
    write_time(7, span.duration, w);
    for tag in view::span_tags(batch, chunk, span) {
        write_proto_tag(8, &tag, w);
    }
    for event in batch.span_events(span) {
        let at = w.open(9);
        write_time(1, i64::try_from(event.time).unwrap_or(i64::MAX), w);
        for field in view::log_fields(batch, event) {
            write_proto_tag(2, &field, w);
        }
        w.close(at);
    }
    let at = w.open(10);
    w.bytes(1, service(batch, span.service).as_bytes());
    for tag in view::process_tags(batch, chunk, span) {
        write_proto_tag(2, &tag, w);
    }
    w.close(at);
}

fn write_time(number: u32, nanos: i64, w: &mut protobuf::Writer<'_>) {
    let at = w.open(number);
    w.varint(1, nanos.div_euclid(1_000_000_000) as u64);
    w.varint(2, nanos.rem_euclid(1_000_000_000) as u64);
    w.close(at);
}

fn write_proto_tag(number: u32, tag: &Tag<'_>, w: &mut protobuf::Writer<'_>) {
    let at = w.open(number);
    w.bytes(1, tag.key.as_bytes());
    match &tag.value {
        TagValue::Str(text) => w.bytes(3, text.as_bytes()),
        TagValue::Bool(b) => {
            w.varint(2, 1);
            w.varint(4, u64::from(*b));
        }
        TagValue::Long(n) => {
            w.varint(2, 2);
            w.varint(5, *n as u64);
        }
        TagValue::Double(n) => {
            w.varint(2, 3);
            w.fixed64(6, n.to_bits());
        }
        TagValue::Bytes(bytes) => {
            w.varint(2, 4);
            w.bytes(7, bytes);
        }
    }
    w.close(at);
}
