//! Any span in the words of OTLP, whatever it came as. The encoders of this
//! crate print what is said here; `docs/mapping.md` has the table.
//!
//! Decoders keep tags as they came and derive the fields of the model from
//! them (`span.kind=server` sets the kind and stays a tag). An encoder of the
//! same format prints the tags; every other one prints the fields and leaves
//! out the tags that only repeat them.

use spanloom_model::{
    Attr, Batch, Chunk, NO_SCOPE, PRIORITY_NONE, Resource, Scope, Span, Status, Text, Value, flags, keys,
};

/// Tag of an instrumentation scope's name where a format has no scopes.
pub const SCOPE_NAME: &str = "otel.scope.name";
/// Tag of an instrumentation scope's version.
pub const SCOPE_VERSION: &str = "otel.scope.version";
/// Older spelling of [`SCOPE_NAME`].
pub const LIBRARY_NAME: &str = "otel.library.name";
/// Older spelling of [`SCOPE_VERSION`].
pub const LIBRARY_VERSION: &str = "otel.library.version";
/// Tag of the W3C trace state.
pub const TRACE_STATE: &str = "w3c.tracestate";
/// Attribute of a link: `child_of` or `follows_from`.
pub const REF_TYPE: &str = "opentracing.ref_type";
/// Prefix of the Zipkin tags that hold links.
pub const LINK_PREFIX: &str = "otlp.link.";
/// Attribute of a Zipkin span that is the callee's half of a shared span.
pub const ZIPKIN_SHARED: &str = "zipkin.shared";
/// Attribute of a span that its client marked for debugging.
pub const DEBUG: &str = "zipkin.debug";
/// Attribute of a Zipkin span without timestamp, as the OpenTelemetry
/// Collector spells it.
pub const NO_START: &str = "otel.zipkin.absentField.startTime";

/// The family of formats that a span came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// One of Datadog's.
    Datadog,
    /// Zipkin v1 or v2.
    Zipkin,
    /// Jaeger Thrift or protobuf.
    Jaeger,
    /// OTLP.
    Otlp,
}

impl Origin {
    /// Of a span.
    pub const fn of(span: &Span) -> Self {
        if span.flags & flags::FROM_OTLP != 0 {
            Self::Otlp
        } else if span.flags & flags::FROM_ZIPKIN != 0 {
            Self::Zipkin
        } else if span.flags & flags::FROM_JAEGER != 0 {
            Self::Jaeger
        } else {
            Self::Datadog
        }
    }
}

/// The outcome of a span.
pub const fn status(span: &Span) -> Status {
    if span.error != 0 { Status::Error } else { span.status }
}

/// The message of the outcome; for a failed Datadog span the error message.
pub fn status_message<'a>(batch: &'a Batch, span: &Span) -> &'a str {
    if !span.status_message.is_empty() || Origin::of(span) != Origin::Datadog || !span.is_error() {
        return batch.str(span.status_message);
    }
    batch
        .get_str(span.attrs, keys::ERROR_MESSAGE)
        .or_else(|| batch.get_str(span.attrs, keys::ERROR_MSG))
        .unwrap_or_default()
}

/// The scope of a span.
pub fn scope<'a>(batch: &'a Batch, span: &Span) -> Option<&'a Scope> {
    if span.scope == NO_SCOPE { None } else { batch.scopes.get(span.scope as usize) }
}

/// The resource of a chunk.
pub fn resource(batch: &Batch, chunk: &Chunk) -> Resource {
    batch.resources.get(chunk.resource as usize).copied().unwrap_or_default()
}

/// Whether an attribute of a Zipkin or Jaeger span says only what a field of
/// the span says too.
pub fn repeats_field(batch: &Batch, span: &Span, attr: &Attr) -> bool {
    let origin = Origin::of(span);
    if !matches!(origin, Origin::Zipkin | Origin::Jaeger) {
        return false;
    }
    let key = batch.str(attr.key);
    // Nearly no key passes this.
    if !matches!(key.as_bytes().first(), Some(b's' | b'o' | b'w' | b'e')) {
        return false;
    }
    let is = |text: &str| matches!(attr.value, Value::Str(t) if batch.str(t) == text);
    match key {
        keys::SPAN_KIND => is(span.kind.name()),
        keys::STATUS_CODE => match span.status {
            Status::Ok => is("OK"),
            Status::Error => is("ERROR"),
            Status::Unset => false,
        },
        keys::STATUS_DESCRIPTION => is(batch.str(span.status_message)),
        keys::ERROR => origin == Origin::Jaeger && attr.value == Value::Bool(true) && span.is_error(),
        TRACE_STATE => is(batch.str(span.trace_state)),
        SCOPE_NAME | LIBRARY_NAME => scope(batch, span).is_some_and(|s| is(batch.str(s.name))),
        SCOPE_VERSION | LIBRARY_VERSION => scope(batch, span).is_some_and(|s| is(batch.str(s.version))),
        _ => origin == Origin::Zipkin && key.starts_with(LINK_PREFIX) && !span.links.is_empty(),
    }
}

/// Calls `f` with each OTLP attribute of a span.
pub fn span_attrs<'b>(batch: &'b Batch, chunk: &Chunk, span: &Span, mut f: impl FnMut(&'b str, Value)) {
    let origin = Origin::of(span);
    if origin == Origin::Datadog {
        if !span.resource.is_empty() {
            f(keys::RESOURCE_NAME, Value::Str(span.resource));
        }
        if !span.span_type.is_empty() {
            f(keys::SPAN_TYPE, Value::Str(span.span_type));
        }
    }
    for attr in batch.attrs(span.attrs) {
        if !repeats_field(batch, span, attr) {
            f(batch.str(attr.key), attr.value);
        }
    }
    if origin == Origin::Otlp {
        return;
    }
    for (bit, key) in [(flags::SHARED, ZIPKIN_SHARED), (flags::DEBUG, DEBUG), (flags::NO_START, NO_START)] {
        if span.flags & bit != 0 && batch.get(span.attrs, key).is_none() {
            f(key, Value::Bool(true));
        }
    }
    if origin == Origin::Datadog {
        chunk_attrs(batch, chunk, span, f);
    }
}

/// What Datadog says about a chunk, as attributes of its first span.
fn chunk_attrs<'b>(batch: &'b Batch, chunk: &Chunk, span: &Span, mut f: impl FnMut(&'b str, Value)) {
    let first = batch.chunk_spans(chunk).first();
    if !first.is_some_and(|s| s.span_id == span.span_id && s.attrs == span.attrs) {
        return;
    }
    let has = |key: &str| batch.get(span.attrs, key).is_some();
    if chunk.priority != PRIORITY_NONE && !has(keys::SAMPLING_PRIORITY) {
        f(keys::SAMPLING_PRIORITY, Value::Double(f64::from(chunk.priority)));
    }
    if !chunk.origin.is_empty() && !has(keys::ORIGIN) {
        f(keys::ORIGIN, Value::Str(chunk.origin));
    }
    for attr in batch.attrs(chunk.attrs) {
        let key = batch.str(attr.key);
        if !has(key) {
            f(key, attr.value);
        }
    }
}

/// Calls `f` with each OTLP attribute of a resource whose spans belong to
/// `service`.
pub fn resource_attrs<'b>(
    batch: &'b Batch,
    resource: &Resource,
    service: Text,
    mut f: impl FnMut(&'b str, Value),
) {
    let named = batch.get_str(resource.attrs, keys::SERVICE_NAME);
    let renamed = !service.is_empty() && named.is_some_and(|name| name != batch.str(service));
    if named.is_none() && !service.is_empty() {
        f(keys::SERVICE_NAME, Value::Str(service));
    }
    for attr in batch.attrs(resource.attrs) {
        let key = batch.str(attr.key);
        if renamed && key == keys::SERVICE_NAME && matches!(attr.value, Value::Str(_)) {
            f(key, Value::Str(service));
        } else {
            f(key, attr.value);
        }
    }
    for (text, key) in [
        (resource.env, "deployment.environment.name"),
        (resource.hostname, "host.name"),
        (resource.app_version, "service.version"),
        (resource.container_id, "container.id"),
        (resource.language_name, "telemetry.sdk.language"),
        (resource.tracer_version, "telemetry.sdk.version"),
        (resource.language_version, "process.runtime.version"),
        (resource.runtime_id, "runtime-id"),
    ] {
        if !text.is_empty() && batch.get(resource.attrs, key).is_none() {
            f(key, Value::Str(text));
        }
    }
}

/// OTLP's flags of a span: those of Jaeger mean something else.
pub const fn otlp_flags(span: &Span) -> u32 {
    match Origin::of(span) {
        Origin::Jaeger => 0,
        _ => span.flags as u32,
    }
}

/// Start and end as OTLP has them; 0 for absent.
pub fn times(span: &Span) -> [u64; 2] {
    let start = if span.flags & flags::NO_START != 0 { 0 } else { span.start.max(0) as u64 };
    let end = if Origin::of(span) == Origin::Otlp && span.flags & flags::NO_DURATION != 0 {
        0
    } else {
        span.end().max(0) as u64
    };
    [start, end]
}

/// Prints a value as text, for formats whose tags are texts: numbers in the
/// shortest form, lists and maps as JSON, bytes as base64.
pub fn print_value(batch: &Batch, value: Value, out: &mut String) {
    use base64::Engine;
    use std::fmt::Write;
    match value {
        Value::Empty => {}
        Value::Str(t) => out.push_str(batch.str(t)),
        Value::Bool(b) => out.push_str(if b { "true" } else { "false" }),
        // Writing to a string cannot fail.
        Value::Int(n) => drop(write!(out, "{n}")),
        Value::Double(n) => crate::json::print_double(out, n),
        Value::Bytes(t) => base64::engine::general_purpose::STANDARD.encode_string(batch.arena.bytes(t), out),
        Value::List(_) | Value::Map(_) => {
            let mut json = Vec::new();
            write_json_value(batch, value, &mut crate::json::Writer::new(&mut json));
            out.push_str(&String::from_utf8(json).unwrap_or_default());
        }
    }
}

/// Writes a value as plain JSON.
pub fn write_json_value(batch: &Batch, value: Value, w: &mut crate::json::Writer<'_>) {
    use base64::Engine;
    match value {
        Value::Empty => w.plain("null"),
        Value::Str(t) => w.str(batch.str(t)),
        Value::Bool(b) => w.plain(if b { "true" } else { "false" }),
        Value::Int(n) => w.int(n),
        Value::Double(n) => w.double(n),
        Value::Bytes(t) => w.str(&base64::engine::general_purpose::STANDARD.encode(batch.arena.bytes(t))),
        Value::List(range) => {
            w.open(b'[');
            for item in batch.list(range) {
                write_json_value(batch, *item, w);
            }
            w.close(b']');
        }
        Value::Map(range) => write_json_map(batch, batch.attrs(range), w),
    }
}

/// Writes attributes as a plain JSON object.
pub fn write_json_map(batch: &Batch, attrs: &[Attr], w: &mut crate::json::Writer<'_>) {
    w.open(b'{');
    for attr in attrs {
        w.key(batch.str(attr.key));
        write_json_value(batch, attr.value, w);
    }
    w.close(b'}');
}
