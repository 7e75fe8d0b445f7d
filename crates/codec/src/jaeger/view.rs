//! Any span in the words of Jaeger's wire formats.

use super::draft::{RefType, Reference};
use crate::view::{self, LINK_PREFIX, Origin, REF_TYPE, SCOPE_NAME, SCOPE_VERSION, TRACE_STATE};
use spanloom_model::{Batch, Chunk, Event, Span, Status, Value, flags, keys};
use std::borrow::Cow;

/// A tag. Lists and maps, which Jaeger does not have, are JSON texts already.
#[derive(Clone, Debug)]
pub(super) struct Tag<'a> {
    pub key: &'a str,
    pub value: TagValue<'a>,
}

/// Its value.
#[derive(Clone, Debug)]
pub(super) enum TagValue<'a> {
    Str(Cow<'a, str>),
    Double(f64),
    Bool(bool),
    Long(i64),
    Bytes(&'a [u8]),
}

fn tag<'a>(batch: &'a Batch, key: &'a str, value: Value) -> Tag<'a> {
    let value = match value {
        Value::Str(t) => TagValue::Str(batch.str(t).into()),
        Value::Double(n) => TagValue::Double(n),
        Value::Bool(b) => TagValue::Bool(b),
        Value::Int(n) => TagValue::Long(n),
        Value::Bytes(t) => TagValue::Bytes(batch.arena.bytes(t)),
        Value::Empty | Value::List(_) | Value::Map(_) => {
            let mut text = String::new();
            view::print_value(batch, value, &mut text);
            TagValue::Str(text.into())
        }
    };
    Tag { key, value }
}

/// Tags of a span: scope, attributes, then the fields that Jaeger has no place
/// for (the order of jaeger:…/fixture/otlp2jaeger-out.json). A field is said
/// once: an attribute of its name gives way.
pub(super) fn span_tags<'a>(batch: &'a Batch, chunk: &Chunk, span: &Span) -> Vec<Tag<'a>> {
    let origin = Origin::of(span);
    if origin == Origin::Jaeger {
        return batch.attrs(span.attrs).iter().map(|a| tag(batch, batch.str(a.key), a.value)).collect();
    }
    let mut tags = Vec::new();
    let mut tail: Vec<Tag<'a>> = Vec::new();
    let text = |tags: &mut Vec<Tag<'a>>, key, text: &'a str| {
        if !text.is_empty() {
            tags.push(Tag { key, value: TagValue::Str(text.into()) });
        }
    };
    if let Some(scope) = view::scope(batch, span) {
        text(&mut tags, SCOPE_NAME, batch.str(scope.name));
        text(&mut tags, SCOPE_VERSION, batch.str(scope.version));
    }
    text(&mut tail, keys::SPAN_KIND, batch.role(span).name());
    match view::status(span) {
        Status::Unset => {}
        Status::Ok => text(&mut tail, keys::STATUS_CODE, "OK"),
        Status::Error => {
            text(&mut tail, keys::STATUS_CODE, "ERROR");
            tail.push(Tag { key: keys::ERROR, value: TagValue::Bool(true) });
        }
    }
    text(&mut tail, keys::STATUS_DESCRIPTION, view::status_message(batch, span));
    text(&mut tail, TRACE_STATE, batch.str(span.trace_state));
    let scope_tags = tags.len();
    view::span_attrs(batch, chunk, span, |key, value| {
        let link = origin == Origin::Zipkin && key.starts_with(LINK_PREFIX) && !span.links.is_empty();
        let said = tags[..scope_tags].iter().chain(&tail).any(|t| t.key == key);
        if !link && !said {
            tags.push(tag(batch, key, value));
        }
    });
    tags.append(&mut tail);
    tags
}

/// Fields of a log, the name first.
pub(super) fn log_fields<'a>(batch: &'a Batch, event: &Event) -> Vec<Tag<'a>> {
    let mut fields = Vec::with_capacity(event.attrs.len() + 1);
    if !event.name.is_empty() {
        fields.push(tag(batch, "event", Value::Str(event.name)));
    }
    fields.extend(batch.attrs(event.attrs).iter().map(|a| tag(batch, batch.str(a.key), a.value)));
    fields
}

/// Tags of a process.
pub(super) fn process_tags<'a>(batch: &'a Batch, chunk: &Chunk, span: &Span) -> Vec<Tag<'a>> {
    let mut tags = Vec::new();
    view::resource_attrs(batch, &view::resource(batch, chunk), span.service, |key, value| {
        if key != keys::SERVICE_NAME {
            tags.push(tag(batch, key, value));
        }
    });
    tags
}

/// Parent and links. A link to the parent that has a type says the parent's.
pub(super) fn references(batch: &Batch, span: &Span) -> Vec<Reference> {
    let mut out = Vec::new();
    for link in batch.span_links(span) {
        let kind = match batch.get_str(link.attrs, REF_TYPE) {
            Some("child_of") => RefType::ChildOf,
            _ => RefType::FollowsFrom,
        };
        out.push(Reference { kind, trace_id: link.trace_id, span_id: link.span_id });
    }
    let typed = |r: &Reference| r.trace_id == span.trace_id && r.span_id == span.parent_id;
    let said = Origin::of(span) == Origin::Jaeger && out.iter().any(typed);
    if !span.parent_id.is_zero() && !said {
        out.insert(0, Reference { kind: RefType::ChildOf, trace_id: span.trace_id, span_id: span.parent_id });
    }
    out
}

/// Jaeger's flags: sampled and debug.
pub(super) const fn wire_flags(span: &Span) -> u32 {
    let wire = match Origin::of(span) {
        Origin::Jaeger => span.flags as u32 & 0xff,
        _ => span.flags as u32 & 1,
    };
    if span.flags & flags::DEBUG != 0 { wire | 2 } else { wire }
}
