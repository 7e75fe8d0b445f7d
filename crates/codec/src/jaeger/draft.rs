//! A Jaeger span while it is read. Its tags are on the attribute stack of
//! [`Build`], its logs are already events of the batch.

use super::NO_SERVICE;
use crate::DecodeError;
use crate::build::{Build, Rejected};
use crate::view::{LIBRARY_NAME, LIBRARY_VERSION, REF_TYPE, SCOPE_NAME, SCOPE_VERSION, TRACE_STATE};
use spanloom_model::{
    Event, Link, NO_SCOPE, Range32, Resource, Span, SpanId, SpanKind, Status, Text, TraceId, Value, flags,
    keys,
};

/// Jaeger's debug flag.
const DEBUG: u32 = 2;

/// Type of a reference.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum RefType {
    #[default]
    ChildOf,
    FollowsFrom,
}

/// A reference to another span.
#[derive(Clone, Copy, Default)]
pub(super) struct Reference {
    pub kind: RefType,
    pub trace_id: TraceId,
    pub span_id: SpanId,
}

/// A span, its references, and where its tags and logs begin.
pub(super) struct Draft {
    pub span: Span,
    /// Jaeger's flags.
    pub wire_flags: u32,
    mark: usize,
    attrs: usize,
    events: usize,
    links: usize,
}

impl Draft {
    pub(super) fn new(build: &Build, service: Text) -> Self {
        Self {
            span: Span { scope: NO_SCOPE, service, ..Span::default() },
            wire_flags: 0,
            mark: build.mark(),
            attrs: build.batch.attrs.len(),
            events: build.batch.events.len(),
            links: build.batch.links.len(),
        }
    }

    /// Completes the span and adds it, unless an id is zero.
    pub(super) fn finish(
        mut self,
        build: &mut Build,
        rejected: &mut Rejected,
        references: &[Reference],
    ) -> Result<(), DecodeError> {
        if self.span.trace_id.is_zero() || self.span.span_id.is_zero() {
            if self.span.trace_id.is_zero() {
                rejected.trace_id += 1;
            } else {
                rejected.span_id += 1;
            }
            build.take_attrs(self.mark);
            build.batch.attrs.truncate(self.attrs);
            build.batch.events.truncate(self.events);
            return Ok(());
        }
        self.read_tags(build)?;
        let span = &mut self.span;
        span.attrs = build.take_attrs(self.mark);
        link(build, span, references)?;
        span.links = Range32::new(self.links, build.batch.links.len());
        span.events = Range32::new(self.events, build.batch.events.len());
        span.flags = u64::from(self.wire_flags & 0xff) | flags::FROM_JAEGER;
        if self.wire_flags & DEBUG != 0 {
            span.flags |= flags::DEBUG;
        }
        span.error = i32::from(span.status == Status::Error);
        build.span(self.span)
    }

    /// Derives fields from tags. The tags stay.
    fn read_tags(&mut self, build: &mut Build) -> Result<(), DecodeError> {
        let mut error = false;
        let mut code = None;
        let mut http = None;
        let (mut description, mut http_message) = (Text::EMPTY, Text::EMPTY);
        let mut scope = [Text::EMPTY; 2];
        for i in 0..build.pending(self.mark).len() {
            let attr = build.pending(self.mark)[i];
            let key = build.batch.arena.bytes(attr.key);
            if !matches!(key.first(), Some(b'e' | b'o' | b's' | b'w' | b'h')) {
                continue;
            }
            let text = attr.value.as_text();
            let read = |t: Option<Text>| t.map(|t| build.batch.str(t)).unwrap_or_default();
            match std::str::from_utf8(key).unwrap_or_default() {
                keys::ERROR => error = attr.value == Value::Bool(true) || read(text) == "true",
                keys::STATUS_CODE => {
                    code = match read(text) {
                        "OK" => Some(Status::Ok),
                        "ERROR" => Some(Status::Error),
                        _ => Some(Status::Unset),
                    };
                }
                keys::STATUS_DESCRIPTION => description = text.unwrap_or_default(),
                "http.status_message" => http_message = text.unwrap_or_default(),
                keys::HTTP_STATUS_CODE => {
                    http = attr.value.as_f64().or_else(|| read(text).parse().ok());
                }
                keys::SPAN_KIND => {
                    let name = read(text);
                    // Jaeger knows the lower-case names only.
                    self.span.kind =
                        SpanKind::from_name(name).filter(|k| k.name() == name).unwrap_or_default();
                }
                TRACE_STATE => self.span.trace_state = text.unwrap_or_default(),
                SCOPE_NAME => scope[0] = text.unwrap_or_default(),
                SCOPE_VERSION => scope[1] = text.unwrap_or_default(),
                LIBRARY_NAME if scope[0].is_empty() => scope[0] = text.unwrap_or_default(),
                LIBRARY_VERSION if scope[1].is_empty() => scope[1] = text.unwrap_or_default(),
                _ => {}
            }
        }
        let span = &mut self.span;
        span.status = match (error, code, http) {
            (true, ..) => Status::Error,
            (_, Some(code), _) => code,
            (.., Some(n)) if n >= 500.0 => Status::Error,
            (.., Some(n)) if n >= 400.0 && span.kind == SpanKind::Client => Status::Error,
            _ => Status::Unset,
        };
        if span.status == Status::Error {
            span.status_message = if description.is_empty() { http_message } else { description };
        }
        if scope.iter().any(|t| !t.is_empty()) {
            span.scope = build.intern_scope(scope)?;
        }
        Ok(())
    }
}

/// Finds the parent among the references and makes links of the others.
///
/// The parent is `parentSpanId` if there is one, else the first CHILD_OF in
/// the same trace, else the first FOLLOWS_FROM in it. A CHILD_OF to the parent
/// says no more than the parent id and is left out; a FOLLOWS_FROM stays, for
/// it holds the type.
fn link(build: &mut Build, span: &mut Span, references: &[Reference]) -> Result<(), DecodeError> {
    if span.parent_id.is_zero() {
        let first = |kind| references.iter().find(|r| r.kind == kind && r.trace_id == span.trace_id);
        let parent = first(RefType::ChildOf).or_else(|| first(RefType::FollowsFrom));
        span.parent_id = parent.map(|r| r.span_id).unwrap_or_default();
    }
    let mut parent_seen = false;
    for r in references {
        let parent = r.kind == RefType::ChildOf && r.trace_id == span.trace_id && r.span_id == span.parent_id;
        if parent && !std::mem::replace(&mut parent_seen, true) {
            continue;
        }
        let arena = &mut build.batch.arena;
        let key = arena.push_static(REF_TYPE);
        let value = Value::Str(match r.kind {
            RefType::ChildOf => arena.push_static("child_of"),
            RefType::FollowsFrom => arena.push_static("follows_from"),
        });
        let mark = build.mark();
        build.attr(key, value)?;
        let attrs = build.take_attrs(mark);
        build.link(Link { trace_id: r.trace_id, span_id: r.span_id, attrs, ..Link::default() })?;
    }
    Ok(())
}

/// Ends a log: its fields are the attributes since `mark`. The first text
/// field `event` is its name.
pub(super) fn finish_log(build: &mut Build, mark: usize, time: u64) -> Result<(), DecodeError> {
    let name = build.pending(mark).iter().position(|a| {
        build.batch.arena.bytes(a.key) == b"event" && a.value.as_text().is_some_and(|t| !t.is_empty())
    });
    let name = name.map(|i| build.remove_pending(mark, i)).and_then(|a| a.value.as_text());
    let attrs = build.take_attrs(mark);
    build.event(Event { time, name: name.unwrap_or_default(), attrs, dropped: 0 })
}

/// Ends a process: its tags are the attributes since `mark`. Gives its
/// position and the service.
pub(super) fn finish_process(
    build: &mut Build,
    mark: usize,
    service: Text,
) -> Result<(u32, Text), DecodeError> {
    let attrs = build.take_attrs(mark);
    for i in attrs.usize() {
        // As the OpenTelemetry translation names them.
        let renamed = match build.batch.str(build.batch.attrs[i].key) {
            "hostname" => "host.name",
            "jaeger.version" => "opencensus.exporterversion",
            _ => continue,
        };
        if build.batch.get(attrs, renamed).is_none() {
            build.batch.attrs[i].key = build.batch.arena.push_static(renamed);
        }
    }
    build.charge(size_of::<Resource>())?;
    build.batch.resources.push(Resource { attrs, ..Resource::default() });
    let service = if build.batch.str(service) == NO_SERVICE { Text::EMPTY } else { service };
    Ok((build.batch.resources.len() as u32 - 1, service))
}
