//! Spans for tests, written down in one line each (feature `test-util`).
#![allow(clippy::unwrap_used, clippy::panic)]

use crate::{
    Attr, Batch, Chunk, Event, Link, NO_SCOPE, Range32, Resource, Scope, Span, SpanId, SpanKind, Status,
    TraceId, Value, flags,
};

/// A tag value.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Tag {
    Str(String),
    Int(i64),
    Double(f64),
    Bool(bool),
    Bytes(Vec<u8>),
    List(Vec<Tag>),
}

macro_rules! tag_from {
    ($($from:ty => $make:expr;)*) => {$(
        impl From<$from> for Tag {
            fn from(v: $from) -> Self { ($make)(v) }
        }
    )*};
}
tag_from! {
    &str => |v: &str| Tag::Str(v.to_owned());
    String => Tag::Str;
    i64 => Tag::Int;
    i32 => |v: i32| Tag::Int(v.into());
    f64 => Tag::Double;
    bool => Tag::Bool;
    &[u8] => |v: &[u8]| Tag::Bytes(v.to_vec());
}

type Tags = Vec<(String, Tag)>;

/// A span as a test wants it. Spans with equal process tags and chunk
/// priority share a resource.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Draft {
    pub trace_id: u128,
    pub span_id: u64,
    pub parent_id: u64,
    pub service: String,
    pub name: String,
    pub resource: String,
    pub span_type: String,
    pub kind: SpanKind,
    pub status: Status,
    pub error: i32,
    pub status_message: String,
    pub trace_state: String,
    pub start: i64,
    pub duration: i64,
    pub flags: u64,
    pub tags: Tags,
    pub process: Tags,
    pub env: String,
    pub hostname: String,
    pub scope: Option<(String, String, Tags)>,
    pub events: Vec<(u64, String, Tags)>,
    pub links: Vec<(u128, u64, Tags)>,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $ty:ty;)*) => {$(
        $(#[$doc])*
        pub fn $name(mut self, v: impl Into<$ty>) -> Self {
            self.$name = v.into();
            self
        }
    )*};
}

impl Draft {
    /// A span of service `svc` and name `op`, at 1000 s, lasting 1 ms.
    pub fn new(trace_id: u128, span_id: u64) -> Self {
        Self {
            trace_id,
            span_id,
            service: "svc".into(),
            name: "op".into(),
            start: 1_000_000_000_000,
            duration: 1_000_000,
            ..Self::default()
        }
    }
    setters! {
        /// Sets the service.
        service: String;
        /// Sets the name.
        name: String;
        /// Sets the Datadog resource.
        resource: String;
        /// Sets the Datadog type.
        span_type: String;
        /// Sets the kind.
        kind: SpanKind;
        /// Sets the status.
        status: Status;
        /// Sets the text of the status.
        status_message: String;
        /// Sets the W3C trace state.
        trace_state: String;
        /// Sets the environment of the sender.
        env: String;
        /// Sets the host of the sender.
        hostname: String;
    }
    /// Sets the parent, 0 for none.
    pub fn parent(mut self, id: u64) -> Self {
        self.parent_id = id;
        self
    }
    /// Sets the start, nanoseconds.
    pub fn start(mut self, at: i64) -> Self {
        self.start = at;
        self
    }
    /// Sets the duration, nanoseconds.
    pub fn lasting(mut self, nanos: i64) -> Self {
        self.duration = nanos;
        self
    }
    /// Marks the span as failed, in the Datadog way.
    pub fn error(mut self, failed: bool) -> Self {
        self.error = failed.into();
        if failed {
            self.status = Status::Error;
        }
        self
    }
    /// Adds flags.
    pub fn flag(mut self, bits: u64) -> Self {
        self.flags |= bits;
        self
    }
    /// Takes the start and the duration away.
    pub fn timeless(mut self) -> Self {
        (self.start, self.duration) = (0, 0);
        self.flag(flags::NO_START | flags::NO_DURATION)
    }
    /// Adds a tag.
    pub fn tag(mut self, key: &str, value: impl Into<Tag>) -> Self {
        self.tags.push((key.into(), value.into()));
        self
    }
    /// Adds a tag to the resource.
    pub fn process(mut self, key: &str, value: impl Into<Tag>) -> Self {
        self.process.push((key.into(), value.into()));
        self
    }
    /// Sets the instrumentation scope.
    pub fn scope(mut self, name: &str, version: &str) -> Self {
        self.scope.get_or_insert_default().0 = name.into();
        self.scope.get_or_insert_default().1 = version.into();
        self
    }
    /// Adds a tag to the scope.
    pub fn scope_tag(mut self, key: &str, value: impl Into<Tag>) -> Self {
        self.scope.get_or_insert_default().2.push((key.into(), value.into()));
        self
    }
    /// Adds an event.
    pub fn event(mut self, time: u64, name: &str) -> Self {
        self.events.push((time, name.into(), Vec::new()));
        self
    }
    /// Adds a tag to the last event (to a nameless one if there is none).
    pub fn event_tag(mut self, key: &str, value: impl Into<Tag>) -> Self {
        if self.events.is_empty() {
            self.events.push((self.start.unsigned_abs(), String::new(), Vec::new()));
        }
        self.events.last_mut().unwrap().2.push((key.into(), value.into()));
        self
    }
    /// Adds a link.
    pub fn link(mut self, trace_id: u128, span_id: u64) -> Self {
        self.links.push((trace_id, span_id, Vec::new()));
        self
    }
    /// Adds a tag to the last link (to one to nowhere known if there is none).
    pub fn link_tag(mut self, key: &str, value: impl Into<Tag>) -> Self {
        if self.links.is_empty() {
            self.links.push((0xfeed, 0xbeef, Vec::new()));
        }
        self.links.last_mut().unwrap().2.push((key.into(), value.into()));
        self
    }
}

fn value(b: &mut Batch, tag: &Tag) -> Value {
    match tag {
        Tag::Str(s) => Value::Str(b.arena.push(s)),
        Tag::Int(v) => Value::Int(*v),
        Tag::Double(v) => Value::Double(*v),
        Tag::Bool(v) => Value::Bool(*v),
        Tag::Bytes(v) => Value::Bytes(b.arena.push_bytes(v)),
        Tag::List(items) => {
            let items: Vec<Value> = items.iter().map(|t| value(b, t)).collect();
            let start = b.values.len();
            b.values.extend(items);
            Value::List(Range32::new(start, b.values.len()))
        }
    }
}

fn attrs(b: &mut Batch, tags: &Tags) -> Range32 {
    let made: Vec<Attr> =
        tags.iter().map(|(k, v)| Attr { key: b.arena.push(k), value: value(b, v) }).collect();
    let start = b.attrs.len();
    b.attrs.extend(made);
    Range32::new(start, b.attrs.len())
}

/// A batch of the spans, one chunk for each run of spans of the same trace and
/// sender.
pub fn batch(drafts: &[Draft]) -> Batch {
    let mut b = Batch::default();
    let mut sender: Option<(u128, &Draft)> = None;
    for d in drafts {
        let same = sender.is_some_and(|(t, s)| {
            t == d.trace_id && s.process == d.process && s.env == d.env && s.hostname == d.hostname
        });
        if !same {
            sender = Some((d.trace_id, d));
            let resource = Resource {
                env: b.arena.push(&d.env),
                hostname: b.arena.push(&d.hostname),
                attrs: attrs(&mut b, &d.process),
                ..Resource::default()
            };
            b.resources.push(resource);
            b.chunks.push(Chunk {
                resource: (b.resources.len() - 1) as u32,
                spans: Range32::new(b.spans.len(), b.spans.len()),
                trace_id: TraceId(d.trace_id),
                ..Chunk::default()
            });
        }
        let scope = match &d.scope {
            None => NO_SCOPE,
            Some((name, version, tags)) => {
                let scope = Scope {
                    name: b.arena.push(name),
                    version: b.arena.push(version),
                    attrs: attrs(&mut b, tags),
                    ..Scope::default()
                };
                b.scopes.push(scope);
                (b.scopes.len() - 1) as u32
            }
        };
        let events: Vec<Event> = d
            .events
            .iter()
            .map(|(time, name, tags)| Event {
                time: *time,
                name: b.arena.push(name),
                attrs: attrs(&mut b, tags),
                dropped: 0,
            })
            .collect();
        let links: Vec<Link> = d
            .links
            .iter()
            .map(|(trace, span, tags)| Link {
                trace_id: TraceId(*trace),
                span_id: SpanId(*span),
                attrs: attrs(&mut b, tags),
                ..Link::default()
            })
            .collect();
        let at = (b.events.len(), b.links.len());
        b.events.extend(events);
        b.links.extend(links);
        let span = Span {
            trace_id: TraceId(d.trace_id),
            span_id: SpanId(d.span_id),
            parent_id: SpanId(d.parent_id),
            start: d.start,
            duration: d.duration,
            service: b.arena.push(&d.service),
            name: b.arena.push(&d.name),
            resource: b.arena.push(&d.resource),
            span_type: b.arena.push(&d.span_type),
            status_message: b.arena.push(&d.status_message),
            trace_state: b.arena.push(&d.trace_state),
            scope,
            attrs: attrs(&mut b, &d.tags),
            events: Range32::new(at.0, b.events.len()),
            links: Range32::new(at.1, b.links.len()),
            error: d.error,
            flags: d.flags,
            kind: d.kind,
            status: d.status,
            ..Span::default()
        };
        b.spans.push(span);
        let end = b.spans.len() as u32;
        b.chunks.last_mut().unwrap().spans.end = end;
    }
    b
}
