//! Typed tags and logs.

use super::{attrs_have, datadog, string};
use crate::view;
use base64::Engine;
use serde_json::Value as Json;
use spanloom_model::{Batch, Chunk, Range32, Resource, Span, Status, Value, keys};
use std::borrow::Cow;
use std::net::Ipv4Addr;

/// Attributes that describe the tracing library; Jaeger UI shows them with the
/// process.
const LIBRARY: [&str; 5] = [
    "telemetry.sdk.language",
    "telemetry.sdk.name",
    "telemetry.sdk.version",
    "telemetry.distro.name",
    "telemetry.distro.version",
];
/// Addresses that old clients packed into a number.
const ADDRESSES: [&str; 2] = ["ip", "peer.ipv4"];

/// A value to be written.
#[derive(Clone, Debug, PartialEq)]
enum Shown<'a> {
    Str(Cow<'a, str>),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(&'a [u8]),
}

impl<'a> Shown<'a> {
    fn new(trace: &'a Batch, value: Value) -> Self {
        match value {
            Value::Empty => Self::Str("".into()),
            Value::Str(t) => Self::Str(trace.str(t).into()),
            Value::Bool(v) => Self::Bool(v),
            Value::Int(v) => Self::Int(v),
            Value::Double(v) => Self::Double(v),
            Value::Bytes(t) => Self::Bytes(trace.arena.bytes(t)),
            Value::List(_) | Value::Map(_) => {
                let mut text = String::new();
                view::print_value(trace, value, &mut text);
                Self::Str(text.into())
            }
        }
    }

    fn json(value: Json) -> Self {
        match value {
            Json::Null => Self::Str("".into()),
            Json::Bool(v) => Self::Bool(v),
            Json::String(s) => Self::Str(s.into()),
            Json::Number(n) => match n.as_i64() {
                Some(v) => Self::Int(v),
                None => Self::Double(n.as_f64().unwrap_or(0.0)),
            },
            nested => Self::Str(nested.to_string().into()),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        /// Largest integer that a JavaScript number holds exactly.
        const SAFE: u64 = (1 << 53) - 1;
        let (kind, value) = match self {
            Self::Str(s) => {
                out.extend_from_slice(b"\"type\":\"string\",\"value\":");
                return string(out, s);
            }
            Self::Bool(v) => ("bool", v.to_string()),
            Self::Int(v) if v.unsigned_abs() > SAFE => ("int64", format!("\"{v}\"")),
            Self::Int(v) => ("int64", v.to_string()),
            Self::Double(v) if !v.is_finite() => ("float64", format!("\"{v}\"")),
            Self::Double(v) if v.fract() == 0.0 && v.abs() < 1e15 => ("float64", format!("{v}")),
            Self::Double(v) => ("float64", Json::from(*v).to_string()),
            Self::Bytes(b) => {
                ("binary", format!("\"{}\"", base64::engine::general_purpose::STANDARD.encode(b)))
            }
        };
        out.extend_from_slice(format!("\"type\":\"{kind}\",\"value\":{value}").as_bytes());
    }
}

/// Tags in the order of output.
#[derive(Default)]
pub(super) struct Tags<'a>(Vec<(Cow<'a, str>, Shown<'a>)>);

impl<'a> Tags<'a> {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn push(&mut self, key: &'a str, value: Shown<'a>) {
        self.0.push((key.into(), value));
    }

    fn text(&mut self, key: &'a str, text: &'a str) {
        if !text.is_empty() {
            self.push(key, Shown::Str(text.into()));
        }
    }

    fn sort(&mut self) {
        self.0.sort_by(|a, b| a.0.cmp(&b.0));
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        for (i, (key, value)) in self.0.iter().enumerate() {
            out.extend_from_slice(if i == 0 { b"{\"key\":" } else { b",{\"key\":" });
            string(out, key);
            out.push(b',');
            value.write(out);
            out.push(b'}');
        }
        out.push(b']');
    }
}

/// An attribute's value, addresses repaired.
fn shown<'a>(trace: &'a Batch, key: &str, value: Value, raw: bool) -> Shown<'a> {
    if !raw && ADDRESSES.contains(&key) {
        match value {
            Value::Int(v) => return Shown::Str(Ipv4Addr::from_bits(v as u32).to_string().into()),
            // As in Jaeger; a cast from a float saturates.
            Value::Double(v) => return Shown::Str(Ipv4Addr::from_bits(v as u32).to_string().into()),
            _ => {}
        }
    }
    Shown::new(trace, value)
}

/// Tags of a span: scope, attributes, then what the model holds as fields.
/// `moved` gets the attributes that go to the process.
pub(super) fn of_span<'a>(
    trace: &'a Batch,
    chunk: &Chunk,
    span: &'a Span,
    raw: bool,
    moved: &mut Tags<'a>,
) -> Tags<'a> {
    let mut tail = Tags::default();
    tail.text(keys::SPAN_KIND, trace.role(span).name());
    match view::status(span) {
        Status::Unset => {}
        Status::Ok => tail.text(keys::STATUS_CODE, "OK"),
        Status::Error => {
            tail.text(keys::STATUS_CODE, "ERROR");
            tail.push(keys::ERROR, Shown::Bool(true));
        }
    }
    tail.text(keys::STATUS_DESCRIPTION, view::status_message(trace, span));
    tail.text(view::TRACE_STATE, trace.str(span.trace_state));

    let mut head = Tags::default();
    if let Some(scope) = view::scope(trace, span) {
        head.text(view::SCOPE_NAME, trace.str(scope.name));
        head.text(view::SCOPE_VERSION, trace.str(scope.version));
    }
    // A field is said once, even if it is also an attribute as it came.
    let said = |key: &str| head.0.iter().chain(&tail.0).any(|(k, _)| k == key);
    let resource = trace.resources.get(chunk.resource as usize);
    let mut body = Tags::default();
    let mut add = |key: &'a str, value: Value| {
        if said(key) {
            return;
        }
        let value = shown(trace, key, value, raw);
        let fits = |r: &Resource| {
            let other = trace.get(r.attrs, key);
            other.is_none_or(|o| Shown::new(trace, o) == value)
        };
        if !raw && LIBRARY.contains(&key) && resource.is_some_and(fits) {
            moved.push(key, value);
        } else {
            body.push(key, value);
        }
    };
    if view::Origin::of(span) == view::Origin::Datadog {
        // With its resource and type, and what it says about the chunk.
        view::span_attrs(trace, chunk, span, add);
    } else {
        trace.attrs(span.attrs).iter().for_each(|a| add(trace.str(a.key), a.value));
    }
    if !raw {
        body.sort();
    }
    head.0.append(&mut body.0);
    head.0.append(&mut tail.0);
    head
}

/// Tags of a process: the resource's attributes and fields, and what was moved
/// from a span.
pub(super) fn of_process<'a>(trace: &'a Batch, chunk: &Chunk, raw: bool, moved: &Tags<'a>) -> Tags<'a> {
    let mut tags = Tags::default();
    let Some(resource) = trace.resources.get(chunk.resource as usize) else { return tags };
    for attr in trace.attrs(resource.attrs) {
        let key = trace.str(attr.key);
        // It is the name of the process.
        if key != keys::SERVICE_NAME {
            tags.push(key, shown(trace, key, attr.value, raw));
        }
    }
    for (key, text) in resource.fields() {
        if !attrs_have(trace, resource.attrs, key) {
            tags.text(key, trace.str(text));
        }
    }
    for (key, value) in &moved.0 {
        if !attrs_have(trace, resource.attrs, key) {
            tags.0.push((key.clone(), value.clone()));
        }
    }
    if !raw {
        tags.sort();
    }
    tags
}

/// Writes the logs of a span: its events, or those a Datadog tracer sent in a
/// tag; and a Datadog error with a type or stack as an exception at the end.
pub(super) fn logs(trace: &Batch, span: &Span, out: &mut Vec<u8>) {
    let mut logs: Vec<(u64, Tags<'_>)> = Vec::new();
    for event in trace.span_events(span) {
        let mut fields = fields(trace, event.attrs);
        let name = trace.str(event.name);
        if !name.is_empty() {
            fields.0.insert(0, ("event".into(), Shown::Str(name.into())));
        }
        logs.push((event.time, fields));
    }
    if logs.is_empty() {
        for (time, name, attributes) in datadog::events(trace, span) {
            let mut fields = Tags::default();
            fields.0.push(("event".into(), Shown::Str(name.into())));
            fields.0.extend(attributes.into_iter().map(|(k, v)| (k.into(), Shown::json(v))));
            logs.push((time, fields));
        }
    }
    if span.error != 0 && logs.is_empty() && attrs_have(trace, span.attrs, keys::ERROR_STACK) {
        let mut fields = Tags::default();
        fields.text("event", "exception");
        let text = |key| trace.get_str(span.attrs, key);
        fields.text("exception.type", text(keys::ERROR_TYPE).unwrap_or_default());
        let message = text(keys::ERROR_MESSAGE).or_else(|| text(keys::ERROR_MSG));
        fields.text("exception.message", message.unwrap_or_default());
        fields.text("exception.stacktrace", text(keys::ERROR_STACK).unwrap_or_default());
        logs.push((u64::try_from(span.end()).unwrap_or(0), fields));
    }
    out.push(b'[');
    for (i, (time, fields)) in logs.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(format!("{{\"timestamp\":{},\"fields\":", time / 1000).as_bytes());
        fields.write(out);
        out.push(b'}');
    }
    out.push(b']');
}

fn fields<'a>(trace: &'a Batch, range: Range32) -> Tags<'a> {
    Tags(
        trace
            .attrs(range)
            .iter()
            .map(|a| (Cow::from(trace.str(a.key)), Shown::new(trace, a.value)))
            .collect(),
    )
}
