//! Batch to Zipkin v2, JSON and protobuf.

use super::view::{self, EndpointView, Tag, lower, print_event};
use crate::json;
use crate::protobuf;
use crate::view::print_value;
use spanloom_model::{Batch, Chunk, Fate, Span, SpanKind, flags};
use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Appends a batch as a JSON list of v2 spans. Names and services are in lower
/// case, tags sorted by key, annotations by time. Chunks that are not kept
/// are left out. See `docs/mapping.md` for spans of other protocols.
pub fn encode_json_v2(batch: &Batch, out: &mut Vec<u8>) {
    out.push(b'[');
    let mut buffers = Buffers::default();
    for_each_span(batch, |chunk, span| {
        write_json(batch, chunk, span, &mut buffers, &mut json::Writer::new(out))
    });
    out.push(b']');
}

/// Appends a batch as `zipkin.proto3.ListOfSpans`; see [`encode_json_v2`].
pub fn encode_proto(batch: &Batch, out: &mut Vec<u8>) {
    let mut buffers = Buffers::default();
    let mut w = protobuf::Writer::new(out);
    for_each_span(batch, |chunk, span| {
        let at = w.open(1);
        write_proto(batch, chunk, span, &mut buffers, &mut w);
        w.close(at);
    });
}

/// Kept from span to span.
#[derive(Default)]
struct Buffers<'a> {
    tags: Vec<(Cow<'a, str>, Tag<'a>)>,
    annotations: Vec<(u64, String)>,
    text: String,
}

impl<'a> Buffers<'a> {
    fn fill(&mut self, batch: &'a Batch, chunk: &Chunk, span: &Span) {
        view::tags(batch, chunk, span, &mut self.tags);
        self.annotations.clear();
        for event in batch.span_events(span) {
            let mut text = String::new();
            print_event(batch, event, &mut text);
            self.annotations.push((event.time / 1000, text));
        }
        self.annotations.sort();
        self.annotations.dedup();
    }
}

fn for_each_span(batch: &Batch, mut each: impl FnMut(&Chunk, &Span)) {
    for chunk in batch.chunks.iter().filter(|c| c.fate == Fate::Kept) {
        for span in batch.chunk_spans(chunk) {
            each(chunk, span);
        }
    }
}

/// The tag's value as text, printed into a buffer if need be.
fn tag_text<'t>(batch: &'t Batch, tag: &'t Tag<'_>, buffer: &'t mut String) -> &'t str {
    match tag {
        Tag::Text(text) => text,
        Tag::Value(spanloom_model::Value::Str(t)) => batch.str(*t),
        Tag::Value(value) => {
            buffer.clear();
            print_value(batch, *value, buffer);
            buffer
        }
    }
}

/// Number of the kind in protobuf; 0 for none, and for one that only a tag
/// says, which stays a tag.
fn kind_number(batch: &Batch, span: &Span) -> u64 {
    if span.flags & flags::KIND_FROM_TAG != 0 {
        return 0;
    }
    match batch.role(span) {
        SpanKind::Client => 1,
        SpanKind::Server => 2,
        SpanKind::Producer => 3,
        SpanKind::Consumer => 4,
        SpanKind::Unspecified | SpanKind::Internal => 0,
    }
}

fn write_json<'a>(
    batch: &'a Batch,
    chunk: &Chunk,
    span: &Span,
    buffers: &mut Buffers<'a>,
    w: &mut json::Writer<'_>,
) {
    buffers.fill(batch, chunk, span);
    w.open(b'{');
    w.key("traceId");
    if span.trace_id.high() == 0 {
        w.quoted(format_args!("{:016x}", span.trace_id.low()));
    } else {
        w.quoted(span.trace_id);
    }
    if !span.parent_id.is_zero() {
        w.key("parentId");
        w.quoted(span.parent_id);
    }
    w.key("id");
    w.quoted(span.span_id);
    let names = ["", "CLIENT", "SERVER", "PRODUCER", "CONSUMER"];
    let number = kind_number(batch, span) as usize;
    if number != 0 {
        w.key("kind");
        w.quoted(names[number]);
    }
    if !span.name.is_empty() {
        w.key("name");
        w.str(&lower(batch.str(span.name)));
    }
    for (key, n) in [("timestamp", view::timestamp(span)), ("duration", view::duration(span))] {
        if n != 0 {
            w.key(key);
            w.int(n);
        }
    }
    let [local, remote] = view::endpoints(batch, span);
    for (key, end) in [("localEndpoint", local), ("remoteEndpoint", remote)] {
        if !end.is_empty() {
            w.key(key);
            write_json_endpoint(&end, w);
        }
    }
    if !buffers.annotations.is_empty() {
        w.key("annotations");
        w.open(b'[');
        for (timestamp, value) in &buffers.annotations {
            w.open(b'{');
            w.key("timestamp");
            w.int(*timestamp);
            w.key("value");
            w.str(value);
            w.close(b'}');
        }
        w.close(b']');
    }
    if !buffers.tags.is_empty() {
        w.key("tags");
        w.open(b'{');
        for (key, tag) in &buffers.tags {
            w.key(key);
            w.str(tag_text(batch, tag, &mut buffers.text));
        }
        w.close(b'}');
    }
    for (key, bit) in [("debug", flags::DEBUG), ("shared", flags::SHARED)] {
        if span.flags & bit != 0 {
            w.key(key);
            w.plain("true");
        }
    }
    w.close(b'}');
}

fn write_json_endpoint(end: &EndpointView<'_>, w: &mut json::Writer<'_>) {
    w.open(b'{');
    for (key, text) in [("serviceName", end.service.as_ref()), ("ipv4", end.ipv4), ("ipv6", end.ipv6)] {
        if !text.is_empty() {
            w.key(key);
            w.str(text);
        }
    }
    if end.port != 0 {
        w.key("port");
        w.int(end.port);
    }
    w.close(b'}');
}

fn write_proto<'a>(
    batch: &'a Batch,
    chunk: &Chunk,
    span: &Span,
    buffers: &mut Buffers<'a>,
    w: &mut protobuf::Writer<'_>,
) {
    buffers.fill(batch, chunk, span);
    let trace_id = span.trace_id.0.to_be_bytes();
    w.bytes(1, if span.trace_id.high() == 0 { &trace_id[8..] } else { &trace_id });
    if !span.parent_id.is_zero() {
        w.bytes(2, &span.parent_id.0.to_be_bytes());
    }
    w.bytes(3, &span.span_id.0.to_be_bytes());
    w.varint(4, kind_number(batch, span));
    w.bytes(5, lower(batch.str(span.name)).as_bytes());
    w.fixed64(6, view::timestamp(span) as u64);
    w.varint(7, view::duration(span) as u64);
    let [local, remote] = view::endpoints(batch, span);
    for (number, end) in [(8, local), (9, remote)] {
        if !end.is_empty() {
            let at = w.open(number);
            write_proto_endpoint(&end, w);
            w.close(at);
        }
    }
    for (timestamp, value) in &buffers.annotations {
        let at = w.open(10);
        w.fixed64(1, *timestamp);
        w.bytes(2, value.as_bytes());
        w.close(at);
    }
    for (key, tag) in &buffers.tags {
        let at = w.open(11);
        w.bytes(1, key.as_bytes());
        w.bytes(2, tag_text(batch, tag, &mut buffers.text).as_bytes());
        w.close(at);
    }
    w.varint(12, u64::from(span.flags & flags::DEBUG != 0));
    w.varint(13, u64::from(span.flags & flags::SHARED != 0));
}

fn write_proto_endpoint(end: &EndpointView<'_>, w: &mut protobuf::Writer<'_>) {
    w.bytes(1, end.service.as_bytes());
    if let Ok(v4) = end.ipv4.parse::<Ipv4Addr>() {
        w.bytes_always(2, &v4.octets());
    }
    if let Ok(v6) = end.ipv6.parse::<Ipv6Addr>() {
        w.bytes_always(3, &v6.octets());
    }
    w.varint(4, u64::from(end.port));
}
