//! Batch to OTLP's JSON.

use super::group::group;
use crate::json::Writer;
use crate::view;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use spanloom_model::{Attr, Batch, Chunk, Event, Link, Scope, Span, Value};

/// How enums and ids are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum JsonStyle {
    /// OTLP's JSON: ids in hexadecimal, enums as numbers.
    #[default]
    Otlp,
    /// Plain proto3 JSON, as Tempo's first API has it: ids in base64, enums by
    /// name.
    Proto3,
}

/// Appends `{"resourceSpans":[…]}` in OTLP's JSON; fields with proto3's
/// default are left out. Grouping as in [`super::encode_proto`].
pub fn encode_json(batch: &Batch, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"resourceSpans\":");
    encode_json_with(batch, JsonStyle::Otlp, out);
    out.push(b'}');
}

/// Appends only the array of ResourceSpans, in a style.
pub fn encode_json_with(batch: &Batch, style: JsonStyle, out: &mut Vec<u8>) {
    out.push(b'[');
    let mut e = Encoder { batch, style, w: Writer::new(out) };
    for group in group(batch) {
        e.w.open(b'{');
        e.w.key("resource");
        e.w.open(b'{');
        e.w.key("attributes");
        e.w.open(b'[');
        view::resource_attrs(batch, &group.resource, group.service, |key, value| e.attr(key, value));
        e.w.close(b']');
        e.count("droppedAttributesCount", group.resource.dropped);
        e.w.close(b'}');
        e.w.key("scopeSpans");
        e.w.open(b'[');
        for scope in &group.scopes {
            e.w.open(b'{');
            // Also where there is none, as the Collector's encoder.
            e.scope(&scope.scope.unwrap_or_default());
            e.w.key("spans");
            e.w.open(b'[');
            for &(chunk, span) in &scope.spans {
                e.span(&batch.chunks[chunk as usize], &batch.spans[span as usize]);
            }
            e.w.close(b']');
            e.text("schemaUrl", batch.str(scope.scope.unwrap_or_default().schema_url));
            e.w.close(b'}');
        }
        e.w.close(b']');
        e.text("schemaUrl", batch.str(group.resource.schema_url));
        e.w.close(b'}');
    }
    e.w.close(b']');
}

struct Encoder<'a> {
    batch: &'a Batch,
    style: JsonStyle,
    w: Writer<'a>,
}

impl Encoder<'_> {
    fn text(&mut self, key: &str, text: &str) {
        if !text.is_empty() {
            self.w.key(key);
            self.w.str(text);
        }
    }

    fn count(&mut self, key: &str, n: u32) {
        if n != 0 {
            self.w.key(key);
            self.w.int(n);
        }
    }

    fn time(&mut self, key: &str, time: u64) {
        if time != 0 {
            self.w.key(key);
            self.w.quoted(time);
        }
    }

    fn id(&mut self, key: &str, bytes: &[u8], hex: impl std::fmt::Display) {
        self.w.key(key);
        match self.style {
            JsonStyle::Otlp => self.w.quoted(hex),
            JsonStyle::Proto3 => self.w.quoted(STANDARD.encode(bytes)),
        }
    }

    fn enumeration(&mut self, key: &str, number: u8, names: &[&str]) {
        if number == 0 {
            return;
        }
        self.w.key(key);
        match self.style {
            JsonStyle::Otlp => self.w.int(number),
            JsonStyle::Proto3 => self.w.quoted(names.get(usize::from(number)).unwrap_or(&"")),
        }
    }

    fn scope(&mut self, scope: &Scope) {
        self.w.key("scope");
        self.w.open(b'{');
        self.text("name", self.batch.str(scope.name));
        self.text("version", self.batch.str(scope.version));
        self.attrs(self.batch.attrs(scope.attrs));
        self.count("droppedAttributesCount", scope.dropped);
        self.w.close(b'}');
    }

    fn span(&mut self, chunk: &Chunk, span: &Span) {
        let batch = self.batch;
        self.w.open(b'{');
        self.id("traceId", &span.trace_id.0.to_be_bytes(), span.trace_id);
        self.id("spanId", &span.span_id.0.to_be_bytes(), span.span_id);
        self.text("traceState", batch.str(span.trace_state));
        if !span.parent_id.is_zero() {
            self.id("parentSpanId", &span.parent_id.0.to_be_bytes(), span.parent_id);
        }
        self.count("flags", view::otlp_flags(span));
        self.text("name", batch.str(span.name));
        self.enumeration("kind", batch.role(span) as u8, &KINDS);
        let [start, end] = view::times(span);
        self.time("startTimeUnixNano", start);
        self.time("endTimeUnixNano", end);
        let mut any = false;
        view::span_attrs(batch, chunk, span, |key, value| {
            if !std::mem::replace(&mut any, true) {
                self.w.key("attributes");
                self.w.open(b'[');
            }
            self.attr(key, value);
        });
        if any {
            self.w.close(b']');
        }
        self.count("droppedAttributesCount", span.dropped[0]);
        self.list("events", batch.span_events(span), Self::event);
        self.count("droppedEventsCount", span.dropped[1]);
        self.list("links", batch.span_links(span), Self::link);
        self.count("droppedLinksCount", span.dropped[2]);
        let (status, message) = (view::status(span), view::status_message(batch, span));
        // An unset status is an empty message: exporters and Tempo write it.
        self.w.key("status");
        self.w.open(b'{');
        self.text("message", message);
        self.enumeration("code", status as u8, &STATUSES);
        self.w.close(b'}');
        self.w.close(b'}');
    }

    fn list<T>(&mut self, key: &str, items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        if items.is_empty() {
            return;
        }
        self.w.key(key);
        self.w.open(b'[');
        for item in items {
            each(self, item);
        }
        self.w.close(b']');
    }

    fn event(&mut self, event: &Event) {
        self.w.open(b'{');
        self.time("timeUnixNano", event.time);
        self.text("name", self.batch.str(event.name));
        self.attrs(self.batch.attrs(event.attrs));
        self.count("droppedAttributesCount", event.dropped);
        self.w.close(b'}');
    }

    fn link(&mut self, link: &Link) {
        self.w.open(b'{');
        self.id("traceId", &link.trace_id.0.to_be_bytes(), link.trace_id);
        self.id("spanId", &link.span_id.0.to_be_bytes(), link.span_id);
        self.text("traceState", self.batch.str(link.trace_state));
        self.attrs(self.batch.attrs(link.attrs));
        self.count("droppedAttributesCount", link.dropped);
        self.count("flags", link.flags);
        self.w.close(b'}');
    }

    fn attrs(&mut self, attrs: &[Attr]) {
        self.list("attributes", attrs, |e, attr| e.attr(e.batch.str(attr.key), attr.value));
    }

    fn attr(&mut self, key: &str, value: Value) {
        self.w.open(b'{');
        self.w.key("key");
        self.w.str(key);
        // `value` is left out for an attribute without one.
        if !matches!(value, Value::Empty) {
            self.w.key("value");
            self.value(value);
        }
        self.w.close(b'}');
    }

    fn value(&mut self, value: Value) {
        let batch = self.batch;
        self.w.open(b'{');
        match value {
            Value::Empty => {}
            Value::Str(t) => {
                self.w.key("stringValue");
                self.w.str(batch.str(t));
            }
            Value::Bool(b) => {
                self.w.key("boolValue");
                self.w.plain(if b { "true" } else { "false" });
            }
            Value::Int(n) => {
                self.w.key("intValue");
                self.w.quoted(n);
            }
            Value::Double(n) => {
                self.w.key("doubleValue");
                self.w.double(n);
            }
            Value::Bytes(t) => {
                self.w.key("bytesValue");
                self.w.quoted(STANDARD.encode(batch.arena.bytes(t)));
            }
            Value::List(range) => {
                self.w.key("arrayValue");
                self.w.open(b'{');
                self.list("values", batch.list(range), |e, item| e.value(*item));
                self.w.close(b'}');
            }
            Value::Map(range) => {
                self.w.key("kvlistValue");
                self.w.open(b'{');
                self.list("values", batch.attrs(range), |e, attr| e.attr(e.batch.str(attr.key), attr.value));
                self.w.close(b'}');
            }
        }
        self.w.close(b'}');
    }
}

const KINDS: [&str; 6] = [
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];
const STATUSES: [&str; 3] = ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];
