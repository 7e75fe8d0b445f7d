//! OpenTelemetry protocol, traces signal, version 1.x
//! (opentelemetry-proto:opentelemetry/proto/trace/v1/trace.proto).
//!
//! | file | holds |
//! |---|---|
//! | `proto.rs` | [`decode_proto`]: protobuf, for HTTP and gRPC |
//! | `json.rs` | [`decode_json`]: proto3 JSON with OTLP's exceptions |
//! | `group.rs` | spans of a batch by resource and scope, for the encoders |
//! | `encode_proto.rs` | [`encode_proto`] |
//! | `encode_json.rs` | [`encode_json`], [`encode_json_with`] |

mod group;
mod json;
mod proto;

mod encode_json;
mod encode_proto;

pub use crate::build::Decoded;
pub use encode_json::{JsonStyle, encode_json, encode_json_with};
pub use encode_proto::encode_proto;
pub use json::decode_json;
pub use proto::decode_proto;

use crate::DecodeError;
use crate::build::{Build, Rejected};
use spanloom_model::{NO_SCOPE, Range32, Resource, Scope, Span, SpanId, Status, Text, TraceId, flags, keys};

/// Completes a span and adds it, unless an id is not valid.
fn add_span(
    build: &mut Build,
    rejected: &mut Rejected,
    mut span: Span,
    [start, end]: [u64; 2],
    before: Before,
) -> Result<(), DecodeError> {
    if span.trace_id.is_zero() || span.span_id.is_zero() {
        if span.trace_id.is_zero() {
            rejected.trace_id += 1;
        } else {
            rejected.span_id += 1;
        }
        build.take_attrs(before.mark);
        build.batch.attrs.truncate(before.attrs);
        build.batch.events.truncate(before.events);
        build.batch.links.truncate(before.links);
        return Ok(());
    }
    span.attrs = build.take_attrs(before.mark);
    span.events = Range32::new(before.events, build.batch.events.len());
    span.links = Range32::new(before.links, build.batch.links.len());
    let [from, to] = [start, end].map(|t| i64::try_from(t).unwrap_or(i64::MAX));
    span.start = from;
    span.duration = to - from;
    span.scope = NO_SCOPE;
    span.flags |= flags::FROM_OTLP;
    if start == 0 {
        span.flags |= flags::NO_START;
    }
    if end == 0 {
        span.duration = 0;
        span.flags |= flags::NO_DURATION;
    }
    span.error = i32::from(span.status == Status::Error);
    build.span(span)
}

/// Where the tables of a batch stood before a span.
#[derive(Clone, Copy)]
struct Before {
    mark: usize,
    attrs: usize,
    events: usize,
    links: usize,
}

impl Before {
    fn new(build: &Build) -> Self {
        let batch = &build.batch;
        Self {
            mark: build.mark(),
            attrs: batch.attrs.len(),
            events: batch.events.len(),
            links: batch.links.len(),
        }
    }
}

/// Ends a ScopeSpans: its spans are those from `first` on.
fn end_scope(
    build: &mut Build,
    first: usize,
    scope: Option<Scope>,
    schema_url: Text,
) -> Result<(), DecodeError> {
    let spans = build.batch.spans.get_mut(first..).unwrap_or_default();
    if spans.is_empty() || (scope.is_none() && schema_url.is_empty()) {
        return Ok(());
    }
    let index = build.batch.scopes.len() as u32;
    for span in spans {
        span.scope = index;
    }
    build.charge(size_of::<Scope>())?;
    build.batch.scopes.push(Scope { schema_url, ..scope.unwrap_or_default() });
    Ok(())
}

/// Ends a ResourceSpans: its spans, those from `first` on, get the service
/// that the resource names and become chunks. A resource without spans is
/// forgotten.
fn end_resource(build: &mut Build, first: usize, resource: Resource) -> Result<(), DecodeError> {
    let service = build.batch.get_text(resource.attrs, keys::SERVICE_NAME).unwrap_or_default();
    let spans = build.batch.spans.get_mut(first..).unwrap_or_default();
    if spans.is_empty() {
        return Ok(());
    }
    for span in spans {
        span.service = service;
    }
    build.charge(size_of::<Resource>())?;
    build.batch.resources.push(resource);
    let index = build.batch.resources.len() as u32 - 1;
    build.batch.chunk_by_trace(first, index);
    Ok(())
}

/// The id in a list of bytes of exactly its length; zero, which is never
/// valid, otherwise.
fn trace_id(bytes: &[u8]) -> TraceId {
    <[u8; 16]>::try_from(bytes).map(|b| TraceId(u128::from_be_bytes(b))).unwrap_or_default()
}

/// As [`trace_id`].
fn span_id(bytes: &[u8]) -> SpanId {
    <[u8; 8]>::try_from(bytes).map(|b| SpanId(u64::from_be_bytes(b))).unwrap_or_default()
}

/// One level of nesting less, or an error at the bottom.
fn deeper(depth: u32) -> Result<u32, DecodeError> {
    depth.checked_sub(1).ok_or(DecodeError::Limit("attribute value is nested too deeply".into()))
}
