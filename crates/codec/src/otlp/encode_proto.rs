//! Batch to `ExportTraceServiceRequest` in protobuf (the same bytes as a
//! `TracesData`, and as `trace` of Tempo's answers).

use super::group::group;
use crate::protobuf::Writer;
use crate::view;
use spanloom_model::{Attr, Batch, Chunk, Event, Link, Resource, Scope, Span, Text, Value};

/// Appends a batch as `ExportTraceServiceRequest`: one ResourceSpans for each
/// resource and service, in order of appearance. Chunks that are not kept are
/// left out. See `docs/mapping.md` for spans of other protocols.
pub fn encode_proto(batch: &Batch, out: &mut Vec<u8>) {
    let mut w = Writer::new(out);
    for group in group(batch) {
        let resource_spans = w.open(1);
        w.bytes(1, &group.encoded);
        for scope in &group.scopes {
            let scope_spans = w.open(2);
            if scope.scope.is_some() {
                w.bytes_always(1, &scope.encoded);
            }
            for &(chunk, span) in &scope.spans {
                let at = w.open(2);
                write_span(batch, &batch.chunks[chunk as usize], &batch.spans[span as usize], &mut w);
                w.close(at);
            }
            w.bytes(3, batch.arena.bytes(scope.scope.unwrap_or_default().schema_url));
            w.close(scope_spans);
        }
        w.bytes(3, batch.arena.bytes(group.resource.schema_url));
        w.close(resource_spans);
    }
}

pub(super) fn write_resource(batch: &Batch, resource: &Resource, service: Text, out: &mut Vec<u8>) {
    let mut w = Writer::new(out);
    view::resource_attrs(batch, resource, service, |key, value| write_attr(batch, 1, key, value, &mut w));
    w.varint(2, u64::from(resource.dropped));
}

pub(super) fn write_scope(batch: &Batch, scope: &Scope, out: &mut Vec<u8>) {
    let mut w = Writer::new(out);
    w.bytes(1, batch.arena.bytes(scope.name));
    w.bytes(2, batch.arena.bytes(scope.version));
    write_attrs(batch, 3, batch.attrs(scope.attrs), &mut w);
    w.varint(4, u64::from(scope.dropped));
}

fn write_span(batch: &Batch, chunk: &Chunk, span: &Span, w: &mut Writer<'_>) {
    w.bytes(1, &span.trace_id.0.to_be_bytes());
    w.bytes(2, &span.span_id.0.to_be_bytes());
    w.bytes(3, batch.arena.bytes(span.trace_state));
    if !span.parent_id.is_zero() {
        w.bytes(4, &span.parent_id.0.to_be_bytes());
    }
    w.bytes(5, batch.arena.bytes(span.name));
    w.varint(6, batch.role(span) as u64);
    let [start, end] = view::times(span);
    w.fixed64(7, start);
    w.fixed64(8, end);
    view::span_attrs(batch, chunk, span, |key, value| write_attr(batch, 9, key, value, w));
    w.varint(10, u64::from(span.dropped[0]));
    for event in batch.span_events(span) {
        let at = w.open(11);
        write_event(batch, event, w);
        w.close(at);
    }
    w.varint(12, u64::from(span.dropped[1]));
    for link in batch.span_links(span) {
        let at = w.open(13);
        write_link(batch, link, w);
        w.close(at);
    }
    w.varint(14, u64::from(span.dropped[2]));
    let (status, message) = (view::status(span), view::status_message(batch, span));
    if status as u8 != 0 || !message.is_empty() {
        let at = w.open(15);
        w.bytes(2, message.as_bytes());
        w.varint(3, status as u64);
        w.close(at);
    }
    w.fixed32(16, view::otlp_flags(span));
}

fn write_event(batch: &Batch, event: &Event, w: &mut Writer<'_>) {
    w.fixed64(1, event.time);
    w.bytes(2, batch.arena.bytes(event.name));
    write_attrs(batch, 3, batch.attrs(event.attrs), w);
    w.varint(4, u64::from(event.dropped));
}

fn write_link(batch: &Batch, link: &Link, w: &mut Writer<'_>) {
    w.bytes(1, &link.trace_id.0.to_be_bytes());
    w.bytes(2, &link.span_id.0.to_be_bytes());
    w.bytes(3, batch.arena.bytes(link.trace_state));
    write_attrs(batch, 4, batch.attrs(link.attrs), w);
    w.varint(5, u64::from(link.dropped));
    w.fixed32(6, link.flags);
}

fn write_attrs(batch: &Batch, number: u32, attrs: &[Attr], w: &mut Writer<'_>) {
    for attr in attrs {
        write_attr(batch, number, batch.str(attr.key), attr.value, w);
    }
}

fn write_attr(batch: &Batch, number: u32, key: &str, value: Value, w: &mut Writer<'_>) {
    let at = w.open(number);
    w.bytes(1, key.as_bytes());
    // `value` is left out for an attribute without one.
    if !matches!(value, Value::Empty) {
        let inner = w.open(2);
        write_value(batch, value, w);
        w.close(inner);
    }
    w.close(at);
}

fn write_value(batch: &Batch, value: Value, w: &mut Writer<'_>) {
    match value {
        Value::Empty => {}
        Value::Str(t) => w.bytes_always(1, batch.str(t).as_bytes()),
        Value::Bool(b) => w.varint_always(2, u64::from(b)),
        Value::Int(n) => w.varint_always(3, n as u64),
        Value::Double(n) => w.fixed64_always(4, n.to_bits()),
        Value::List(range) => {
            let at = w.open(5);
            for item in batch.list(range) {
                let inner = w.open(1);
                write_value(batch, *item, w);
                w.close(inner);
            }
            w.close(at);
        }
        Value::Map(range) => {
            let at = w.open(6);
            write_attrs(batch, 1, batch.attrs(range), w);
            w.close(at);
        }
        Value::Bytes(t) => w.bytes_always(7, batch.arena.bytes(t)),
    }
}
