//! A batch: what one request brought, or what a query gives back.
//!
//! Everything lies in flat tables, so a batch of a thousand spans is a dozen
//! allocations. Owners hold ranges; an edit that does not fit in place moves
//! the owner's range to the end of the table (the hole stays until the batch
//! is dropped, which is soon).

use crate::{
    Arena, Attr, Event, Intake, KeyBits, Link, Range32, Span, SpanKind, Text, TraceId, Value, flags, keys,
    same_bytes,
};
use std::sync::Arc;

/// [`Chunk::priority`] when the tracer said nothing (the Agent's `PriorityNone`).
pub const PRIORITY_NONE: i32 = -128;

/// [`Span::scope`] of a span without instrumentation scope.
pub const NO_SCOPE: u32 = u32::MAX;

/// [`Chunk::route`] of a chunk that no policy selects.
pub const ROUTE_DEFAULT: u16 = 0;

/// [`Chunk::route`] of a chunk that a policy keeps from leaving.
pub const ROUTE_NOWHERE: u16 = u16::MAX;

/// What sent the spans: a process, a container, an OTLP resource.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Resource {
    /// Container of the process, resolved by the receiver.
    pub container_id: Text,
    /// Tracer language (`python`).
    pub language_name: Text,
    /// Version of the language runtime.
    pub language_version: Text,
    /// Version of the tracing library.
    pub tracer_version: Text,
    /// Id of the running process instance.
    pub runtime_id: Text,
    /// Environment.
    pub env: Text,
    /// Host name.
    pub hostname: Text,
    /// Version of the application.
    pub app_version: Text,
    /// OTLP resource attributes, Jaeger process tags, Datadog payload tags.
    pub attrs: Range32,
    /// OTLP schema URL.
    pub schema_url: Text,
    /// Attributes that the client says it dropped.
    pub dropped: u32,
}

/// OTLP instrumentation scope.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Scope {
    /// Name of the library.
    pub name: Text,
    /// Its version.
    pub version: Text,
    /// Its attributes.
    pub attrs: Range32,
    /// OTLP schema URL of the scope's spans.
    pub schema_url: Text,
    /// Attributes that the client says it dropped.
    pub dropped: u32,
}

/// What becomes of a chunk before any sampling. Reasons are the labels of the
/// ledger and of the Agent's counters (`trace_id_zero`, `foreign_span` …).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fate {
    /// Goes on.
    #[default]
    Kept,
    /// A rule of the user removed it (ignored resource, tag filter, policy).
    Filtered(&'static str),
    /// It is not a valid trace.
    Rejected(&'static str),
}

/// How much of a chunk leaves for Datadog.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Leaves {
    /// All spans (also of a dropped chunk in error-tracking mode, which
    /// travels with its mark).
    #[default]
    Whole,
    /// Only spans with [`crate::flags::LEAVES`]: singly sampled spans, events.
    Marked,
    /// Nothing.
    Nothing,
}

/// What the samplers said about a chunk. It governs what leaves for Datadog,
/// not what the embedded store keeps.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Sampled {
    /// Whether the whole chunk was kept.
    pub keep: bool,
    /// What leaves; differs from `keep` for single spans and events.
    pub leaves: Leaves,
    /// Name of the sampler or rule that decided; empty: nobody was asked.
    pub by: &'static str,
    /// Rate at which it decided; 0 when not rate-based.
    pub rate: f64,
    /// Time of the decision, nanoseconds since the Unix epoch.
    pub at: i64,
}

/// Spans of one trace that arrived together, from one resource.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Chunk {
    /// Position in [`Batch::resources`].
    pub resource: u32,
    /// Positions in [`Batch::spans`].
    pub spans: Range32,
    /// Trace of all its spans.
    pub trace_id: TraceId,
    /// Sampling priority, [`PRIORITY_NONE`] if none was sent.
    pub priority: i32,
    /// Datadog origin (`synthetics`, `lambda`).
    pub origin: Text,
    /// Chunk attributes (Datadog v0.7 chunk tags, v1.0 chunk attributes).
    pub attrs: Range32,
    /// The tracer marked the trace as dropped.
    pub dropped: bool,
    /// Datadog sampling mechanism (`_dd.p.dm` without its minus), v1.0 only.
    pub sampling_mechanism: u32,
    /// What becomes of it.
    pub fate: Fate,
    /// What the samplers said.
    pub sampled: Sampled,
    /// Where a policy sends it: [`ROUTE_DEFAULT`], [`ROUTE_NOWHERE`], or the
    /// number of a backend. Governs what leaves the machine, not what the
    /// embedded store keeps; not stored.
    pub route: u16,
}

impl Default for Chunk {
    fn default() -> Self {
        Self {
            resource: 0,
            spans: Range32::default(),
            trace_id: TraceId::default(),
            priority: PRIORITY_NONE,
            origin: Text::EMPTY,
            attrs: Range32::default(),
            dropped: false,
            sampling_mechanism: 0,
            fate: Fate::Kept,
            sampled: Sampled::default(),
            route: ROUTE_DEFAULT,
        }
    }
}

/// Spans on their way through the rooms. Invariants: every span lies in
/// exactly one chunk; the spans of a chunk are contiguous and share the
/// chunk's trace id (decoders that meet mixed ids leave the chunk to the
/// normaliser, which rejects it as `foreign_span`).
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Bytes of all texts.
    pub arena: Arena,
    /// The request.
    pub intake: Intake,
    /// Language that the headers of a Datadog request name; payloads of v0.7
    /// and v1.0 name one of their own besides.
    pub client_language: Text,
    /// Senders; Datadog requests have one.
    pub resources: Vec<Resource>,
    /// Instrumentation scopes.
    pub scopes: Vec<Scope>,
    /// Pieces of traces.
    pub chunks: Vec<Chunk>,
    /// All spans.
    pub spans: Vec<Span>,
    /// All attributes.
    pub attrs: Vec<Attr>,
    /// Elements of list values.
    pub values: Vec<Value>,
    /// All links.
    pub links: Vec<Link>,
    /// All events.
    pub events: Vec<Event>,
    /// What of this batch leaves for Datadog, where that is not the batch
    /// itself: spans of other protocols are stored as they came, and sent as
    /// the Agent would send them. Not part of what is stored.
    pub for_datadog: Option<Arc<Batch>>,
}

impl Resource {
    /// The fields that users search and see as tags, under the keys they have
    /// there; empty ones included.
    pub fn fields(&self) -> [(&'static str, Text); 8] {
        [
            (keys::ENV, self.env),
            (keys::VERSION, self.app_version),
            ("hostname", self.hostname),
            ("container_id", self.container_id),
            ("language", self.language_name),
            ("language_version", self.language_version),
            ("tracer_version", self.tracer_version),
            ("runtime-id", self.runtime_id),
        ]
    }

    /// The field of this key, in the spelling of [`Resource::fields`] or in
    /// OpenTelemetry's; `None` for other keys.
    pub fn field(&self, key: &str) -> Option<Text> {
        Some(match key {
            "env" | "deployment.environment" | "deployment.environment.name" => self.env,
            "version" | "service.version" => self.app_version,
            "hostname" | "host.name" => self.hostname,
            "container_id" | "container.id" => self.container_id,
            "language" | "telemetry.sdk.language" => self.language_name,
            "language_version" | "process.runtime.version" => self.language_version,
            "tracer_version" | "telemetry.sdk.version" => self.tracer_version,
            "runtime-id" => self.runtime_id,
            _ => return None,
        })
    }
}

impl Batch {
    /// An empty batch over a body.
    pub fn new(arena: Arena, intake: Intake) -> Self {
        Self { arena, intake, ..Self::default() }
    }

    /// Approximate bytes held, for admission; without [`Batch::for_datadog`].
    pub fn size(&self) -> usize {
        self.arena.size()
            + self.spans.capacity() * size_of::<Span>()
            + self.attrs.capacity() * size_of::<Attr>()
            + self.values.capacity() * size_of::<Value>()
            + self.chunks.capacity() * size_of::<Chunk>()
            + self.links.capacity() * size_of::<Link>()
            + self.events.capacity() * size_of::<Event>()
    }

    /// A text of this batch.
    #[inline]
    pub fn str(&self, text: Text) -> &str {
        self.arena.str(text)
    }

    /// The attributes of an owner.
    #[inline]
    pub fn attrs(&self, range: Range32) -> &[Attr] {
        self.attrs.get(range.usize()).unwrap_or_default()
    }

    /// The elements of a list value.
    #[inline]
    pub fn list(&self, range: Range32) -> &[Value] {
        self.values.get(range.usize()).unwrap_or_default()
    }

    /// The spans of a chunk.
    #[inline]
    pub fn chunk_spans(&self, chunk: &Chunk) -> &[Span] {
        self.spans.get(chunk.spans.usize()).unwrap_or_default()
    }

    /// Position in [`Batch::spans`] of the root of a chunk; none for an empty
    /// chunk. The last span without parent; else the last span whose parent is
    /// not in the chunk; else (a cycle) the last span
    /// (`datadog-agent:pkg/trace/traceutil/trace.go`, which leaves open which
    /// of several candidates it is).
    pub fn chunk_root(&self, chunk: &Chunk) -> Option<usize> {
        let spans = self.chunk_spans(chunk);
        let last = spans.len().checked_sub(1)?;
        let at = spans.iter().rposition(|s| s.parent_id.is_zero()).or_else(|| {
            // Looking a few ids up in a slice is faster than hashing them.
            if spans.len() <= 16 {
                return spans.iter().rposition(|s| !spans.iter().any(|p| p.span_id == s.parent_id));
            }
            let ids: std::collections::HashSet<_, foldhash::fast::RandomState> =
                spans.iter().map(|s| s.span_id).collect();
            spans.iter().rposition(|s| !ids.contains(&s.parent_id))
        });
        Some(chunk.spans.start as usize + at.unwrap_or(last))
    }

    /// The links of a span.
    pub fn span_links(&self, span: &Span) -> &[Link] {
        self.links.get(span.links.usize()).unwrap_or_default()
    }

    /// The events of a span.
    pub fn span_events(&self, span: &Span) -> &[Event] {
        self.events.get(span.events.usize()).unwrap_or_default()
    }

    /// The role of a span. A Datadog span without `span.kind` has the role
    /// that its type implies.
    pub fn role(&self, span: &Span) -> SpanKind {
        const FOREIGN: u64 = flags::FROM_ZIPKIN | flags::FROM_JAEGER | flags::FROM_OTLP;
        if span.kind != SpanKind::Unspecified || span.flags & FOREIGN != 0 {
            return span.kind;
        }
        SpanKind::of_type(self.str(span.span_type))
    }

    /// First value under a key, of any type.
    pub fn get(&self, range: Range32, key: &str) -> Option<Value> {
        self.find(range, key, |_| true).map(|i| self.attrs[i].value)
    }

    /// A scalar as text, as a person would type it (2.0 is `2`); `None` for
    /// bytes, lists, maps and empty values.
    pub fn scalar(&self, value: Value) -> Option<String> {
        match value {
            Value::Str(t) => Some(self.str(t).to_owned()),
            Value::Bool(v) => Some(v.to_string()),
            Value::Int(v) => Some(v.to_string()),
            Value::Double(v) => Some(v.to_string()),
            Value::Empty | Value::Bytes(_) | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// Text under a key (Datadog `meta`).
    pub fn get_str(&self, range: Range32, key: &str) -> Option<&str> {
        self.get_text(range, key).map(|t| self.arena.str(t))
    }

    /// Text under a key (Datadog `meta`), as a handle.
    pub fn get_text(&self, range: Range32, key: &str) -> Option<Text> {
        let i = self.find(range, key, |v| matches!(v, Value::Str(_)))?;
        self.attrs[i].value.as_text()
    }

    /// Number under a key (Datadog `metrics`).
    pub fn get_f64(&self, range: Range32, key: &str) -> Option<f64> {
        let i = self.find(range, key, |v| matches!(v, Value::Double(_) | Value::Int(_)))?;
        self.attrs[i].value.as_f64()
    }

    /// Text under a key of a span (Datadog `meta`), as a handle. Costs next to
    /// nothing for a key that the span does not have.
    #[inline]
    pub fn span_text(&self, span: &Span, key: &str) -> Option<Text> {
        if self.may_have(span, key) { self.get_text(span.attrs, key) } else { None }
    }

    /// As [`Batch::span_text`], the text itself.
    #[inline]
    pub fn span_str(&self, span: &Span, key: &str) -> Option<&str> {
        self.span_text(span, key).map(|t| self.arena.str(t))
    }

    /// Number under a key of a span (Datadog `metrics`). Costs next to nothing
    /// for a key that the span does not have.
    #[inline]
    pub fn span_f64(&self, span: &Span, key: &str) -> Option<f64> {
        if self.may_have(span, key) { self.get_f64(span.attrs, key) } else { None }
    }

    /// Whether a span may have an attribute with this key.
    #[inline]
    pub fn may_have(&self, span: &Span, key: &str) -> bool {
        let may = span.keys.may_have(key.as_bytes());
        debug_assert!(may || self.get(span.attrs, key).is_none(), "a span has {key} and its bits deny it");
        may
    }

    /// Looks through the attributes of all spans for [`Span::keys`]: for
    /// decoders that do not note them on the way.
    pub fn note_keys(&mut self) {
        for span in &mut self.spans {
            let mut keys = KeyBits::NONE;
            for attr in self.attrs.get(span.attrs.usize()).unwrap_or_default() {
                keys.add(self.arena.bytes(attr.key));
            }
            span.keys = keys;
        }
    }

    #[inline]
    fn find(&self, range: Range32, key: &str, kind: impl Fn(&Value) -> bool) -> Option<usize> {
        let key = key.as_bytes();
        let attrs = self.attrs(range);
        attrs
            .iter()
            .position(|a| {
                a.key.len() == key.len() && kind(&a.value) && same_bytes(self.arena.bytes(a.key), key)
            })
            .map(|i| range.start as usize + i)
    }

    /// Sets a text attribute of a span, replacing a text under the same key.
    pub fn set_str(&mut self, span: usize, key: &'static str, value: &str) {
        let text = self.arena.push(value);
        self.set_text(span, key, text);
    }

    /// As [`Batch::set_str`], to a text that this batch has already.
    pub fn set_text(&mut self, span: usize, key: &'static str, text: Text) {
        self.set_attr(span, key, Value::Str(text), |v| matches!(v, Value::Str(_)));
    }

    /// Sets a number attribute of a span (Datadog `metrics`), replacing a
    /// number under the same key.
    pub fn set_f64(&mut self, span: usize, key: &'static str, value: f64) {
        self.set_attr(span, key, Value::Double(value), |v| matches!(v, Value::Double(_) | Value::Int(_)));
    }

    fn set_attr(&mut self, span: usize, key: &'static str, value: Value, same: impl Fn(&Value) -> bool) {
        let Some(to) = self.spans.get(span) else { return };
        if self.may_have(to, key)
            && let Some(i) = self.find(to.attrs, key, same)
        {
            self.attrs[i].value = value;
            return;
        }
        let key = self.arena.push_static(key);
        self.add_attr(span, Attr { key, value });
    }

    /// Appends an attribute to a span without looking for the key.
    pub fn add_attr(&mut self, span: usize, attr: Attr) {
        let Some(span) = self.spans.get_mut(span) else { return };
        span.keys.add(self.arena.bytes(attr.key));
        span.attrs = push_to_range(&mut self.attrs, span.attrs, attr);
    }

    /// Appends an attribute to a range that its owner keeps (a chunk's or a
    /// resource's): returns the new range.
    pub fn extend_range(&mut self, range: Range32, attr: Attr) -> Range32 {
        push_to_range(&mut self.attrs, range, attr)
    }

    /// Removes the attributes of a span for which `gone` holds; the order of
    /// the others stays.
    pub fn remove_attrs(&mut self, span: usize, mut gone: impl FnMut(&Arena, &Attr) -> bool) {
        let Some(range) = self.spans.get(span).map(|s| s.attrs) else { return };
        let mut kept = range.start as usize;
        for i in range.usize() {
            let attr = self.attrs[i];
            if !gone(&self.arena, &attr) {
                self.attrs[kept] = attr;
                kept += 1;
            }
        }
        self.spans[span].attrs = Range32::new(range.start as usize, kept);
    }

    /// Groups the spans from position `first` on by trace id, in order of
    /// first appearance, and adds one chunk for each. For formats whose
    /// requests mix traces (OTLP, Zipkin, Jaeger).
    pub fn chunk_by_trace(&mut self, first: usize, resource: u32) {
        let tail = self.spans.get_mut(first..).unwrap_or_default();
        let Some(head) = tail.first() else { return };
        if tail.iter().any(|s| s.trace_id != head.trace_id) {
            let mut order = std::collections::HashMap::new();
            for span in tail.iter() {
                let next = order.len();
                order.entry(span.trace_id).or_insert(next);
            }
            tail.sort_by_key(|s| order[&s.trace_id]);
        }
        let mut start = first;
        while start < self.spans.len() {
            let trace_id = self.spans[start].trace_id;
            let end = self.spans[start..]
                .iter()
                .position(|s| s.trace_id != trace_id)
                .map_or(self.spans.len(), |n| start + n);
            self.chunks.push(Chunk {
                resource,
                spans: Range32::new(start, end),
                trace_id,
                ..Chunk::default()
            });
            start = end;
        }
    }

    /// A batch of some of the chunks, with their spans. Texts and attributes
    /// are shared with this one or copied as a whole, so it costs memory for
    /// all of them: for passing on at once, not for keeping.
    pub fn part(&self, mut chosen: impl FnMut(&Chunk) -> bool) -> Self {
        let mut part = Self {
            arena: self.arena.clone(),
            intake: self.intake,
            client_language: self.client_language,
            resources: self.resources.clone(),
            scopes: self.scopes.clone(),
            chunks: Vec::new(),
            spans: Vec::new(),
            attrs: self.attrs.clone(),
            values: self.values.clone(),
            links: self.links.clone(),
            events: self.events.clone(),
            for_datadog: None,
        };
        for chunk in self.chunks.iter().filter(|c| chosen(c)) {
            let start = part.spans.len();
            part.spans.extend_from_slice(self.chunk_spans(chunk));
            part.chunks.push(Chunk { spans: Range32::new(start, part.spans.len()), ..*chunk });
        }
        part
    }

    /// Copies an attribute value of another batch into this one.
    pub fn import_value(&mut self, from: &Self, value: Value) -> Value {
        match value {
            Value::Str(t) => Value::Str(self.import_text(from, t)),
            Value::Bytes(t) => Value::Bytes(self.import_text(from, t)),
            Value::List(r) => {
                let items: Vec<Value> = from.list(r).iter().map(|v| self.import_value(from, *v)).collect();
                let start = self.values.len();
                self.values.extend(items);
                Value::List(Range32::new(start, self.values.len()))
            }
            Value::Map(r) => Value::Map(self.import_attrs(from, r)),
            plain => plain,
        }
    }

    /// Copies attributes of another batch into this one.
    pub fn import_attrs(&mut self, from: &Self, range: Range32) -> Range32 {
        let items: Vec<Attr> = from
            .attrs(range)
            .iter()
            .map(|a| Attr { key: self.import_text(from, a.key), value: self.import_value(from, a.value) })
            .collect();
        let start = self.attrs.len();
        self.attrs.extend(items);
        Range32::new(start, self.attrs.len())
    }

    /// Copies a text of another batch into this one.
    pub fn import_text(&mut self, from: &Self, text: Text) -> Text {
        self.arena.push_bytes(from.arena.bytes(text))
    }

    /// Copies a resource of another batch with all it owns; the caller adds it
    /// to [`Batch::resources`].
    pub fn import_resource(&mut self, from: &Self, r: &Resource) -> Resource {
        Resource {
            container_id: self.import_text(from, r.container_id),
            language_name: self.import_text(from, r.language_name),
            language_version: self.import_text(from, r.language_version),
            tracer_version: self.import_text(from, r.tracer_version),
            runtime_id: self.import_text(from, r.runtime_id),
            env: self.import_text(from, r.env),
            hostname: self.import_text(from, r.hostname),
            app_version: self.import_text(from, r.app_version),
            attrs: self.import_attrs(from, r.attrs),
            schema_url: self.import_text(from, r.schema_url),
            dropped: r.dropped,
        }
    }

    /// Copies a scope of another batch with all it owns; the caller adds it to
    /// [`Batch::scopes`].
    pub fn import_scope(&mut self, from: &Self, s: &Scope) -> Scope {
        Scope {
            name: self.import_text(from, s.name),
            version: self.import_text(from, s.version),
            attrs: self.import_attrs(from, s.attrs),
            schema_url: self.import_text(from, s.schema_url),
            dropped: s.dropped,
        }
    }

    /// Copies a span with all it owns from another batch. Its scope becomes
    /// `scope`, a position in this batch.
    pub fn import_span(&mut self, from: &Self, span: &Span, scope: u32) {
        let mut copy = *span;
        for (to, text) in [
            (&mut copy.service, span.service),
            (&mut copy.name, span.name),
            (&mut copy.resource, span.resource),
            (&mut copy.span_type, span.span_type),
            (&mut copy.trace_state, span.trace_state),
            (&mut copy.status_message, span.status_message),
        ] {
            *to = self.arena.push_bytes(from.arena.bytes(text));
        }
        copy.scope = scope;
        copy.attrs = self.import_attrs(from, span.attrs);
        let links: Vec<Link> = from
            .span_links(span)
            .iter()
            .map(|l| Link {
                trace_state: self.import_text(from, l.trace_state),
                attrs: self.import_attrs(from, l.attrs),
                ..*l
            })
            .collect();
        let start = self.links.len();
        self.links.extend(links);
        copy.links = Range32::new(start, self.links.len());
        let events: Vec<Event> = from
            .span_events(span)
            .iter()
            .map(|e| Event {
                name: self.import_text(from, e.name),
                attrs: self.import_attrs(from, e.attrs),
                ..*e
            })
            .collect();
        let start = self.events.len();
        self.events.extend(events);
        copy.events = Range32::new(start, self.events.len());
        self.spans.push(copy);
    }
}

/// Appends to a range of a flat table: at its end, into the room behind it, or
/// after moving the range to the end of the table.
fn push_to_range(table: &mut Vec<Attr>, range: Range32, attr: Attr) -> Range32 {
    let mut start = range.start as usize;
    // An empty range may lie anywhere: what is behind it need not be its own.
    if !range.is_empty()
        && let Some(room) = table.get_mut(range.end as usize)
        && room.is_room()
    {
        *room = attr;
        return Range32::new(start, range.end as usize + 1);
    }
    if range.is_empty() {
        start = table.len();
    } else if range.end as usize != table.len() {
        start = table.len();
        table.extend_from_within(range.usize());
    }
    table.push(attr);
    Range32::new(start, table.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SpanId;

    fn two_spans() -> Batch {
        let mut b = Batch::default();
        for id in 1..=2u64 {
            let key = b.arena.push("k");
            let value = Value::Str(b.arena.push("v"));
            let start = b.attrs.len();
            b.attrs.push(Attr { key, value });
            b.spans.push(Span {
                span_id: SpanId(id),
                trace_id: TraceId(u128::from(id)),
                attrs: Range32::new(start, start + 1),
                ..Span::default()
            });
        }
        b
    }

    #[test]
    fn setting_adds_once_and_replaces_by_type() {
        let mut b = two_spans();
        b.set_f64(0, keys::TOP_LEVEL, 1.0);
        b.set_f64(0, keys::TOP_LEVEL, 2.0);
        b.set_str(0, keys::TOP_LEVEL, "text");
        let attrs = b.spans[0].attrs;
        assert_eq!(attrs.len(), 3);
        assert_eq!(b.get_f64(attrs, keys::TOP_LEVEL), Some(2.0));
        assert_eq!(b.get_str(attrs, keys::TOP_LEVEL), Some("text"));
        assert_eq!(b.get_str(b.spans[1].attrs, "k"), Some("v"));
        b.remove_attrs(0, |arena, a| arena.str(a.key) == "k");
        assert_eq!(b.spans[0].attrs.len(), 2);
    }

    #[test]
    fn an_attribute_goes_into_the_room_behind_its_owners() {
        let mut b = two_spans();
        b.attrs.insert(1, Attr::ROOM);
        b.spans[1].attrs = Range32::new(2, 3);
        b.note_keys();
        b.set_f64(0, keys::TOP_LEVEL, 1.0);
        assert_eq!((b.spans[0].attrs, b.attrs.len()), (Range32::new(0, 2), 3));
        b.set_f64(0, keys::MEASURED, 1.0);
        assert_eq!((b.spans[0].attrs, b.attrs.len()), (Range32::new(3, 6), 6));
        let span = b.spans[0];
        assert_eq!(b.span_f64(&span, keys::TOP_LEVEL), Some(1.0));
        assert_eq!(b.span_f64(&span, keys::MEASURED), Some(1.0));
        assert_eq!(b.span_str(&span, "k"), Some("v"));
        assert_eq!(b.get_str(b.spans[1].attrs, "k"), Some("v"));
        // An empty range takes no room of others.
        b.attrs[0] = Attr::ROOM;
        b.spans.push(Span::default());
        b.set_str(2, "own", "value");
        assert_eq!(b.get_str(b.spans[2].attrs, "own"), Some("value"));
        assert_eq!(b.attrs[0], Attr::ROOM);
    }

    #[test]
    fn the_root_is_found_with_and_without_a_parentless_span() {
        for (tree, root) in [
            (&[(2u64, 1u64), (3, 2), (1, 0)][..], Some(2)),
            (&[(2, 1), (3, 2)], Some(0)),
            (&[(1, 2), (2, 1)], Some(1)),
            (&[], None),
        ] {
            for filler in [0, 20] {
                // Children of the first span change the size, not the root.
                let more = (0..filler).map(|i| (100 + i, tree.first().map_or(0, |t| t.0)));
                let spans: Vec<Span> = more
                    .take(if tree.is_empty() { 0 } else { filler as usize })
                    .chain(tree.iter().copied())
                    .map(|(id, p)| Span { span_id: SpanId(id), parent_id: SpanId(p), ..Span::default() })
                    .collect();
                let chunk = Chunk { spans: Range32::new(0, spans.len()), ..Chunk::default() };
                let at = spans.len() - tree.len();
                let b = Batch { spans, ..Batch::default() };
                assert_eq!(b.chunk_root(&chunk), root.map(|r| r + at), "{tree:?} {filler}");
            }
        }
    }

    #[test]
    fn mixed_traces_become_chunks_in_order_of_appearance() {
        let mut b = Batch::default();
        for (id, trace) in [(1, 9), (2, 3), (3, 9), (4, 3)] {
            b.spans.push(Span { span_id: SpanId(id), trace_id: TraceId(trace), ..Span::default() });
        }
        b.chunk_by_trace(0, 0);
        let ids: Vec<u64> = b.spans.iter().map(|s| s.span_id.0).collect();
        assert_eq!(ids, [1, 3, 2, 4]);
        assert_eq!(b.chunks.len(), 2);
        assert_eq!(b.chunks[1].trace_id, TraceId(3));
    }

    #[test]
    fn a_part_holds_the_chosen_chunks_and_what_they_own() {
        let mut b = two_spans();
        b.chunk_by_trace(0, 0);
        b.chunks[1].route = 7;
        let part = b.part(|c| c.route == 7);
        assert_eq!((part.chunks.len(), part.spans.len()), (1, 1));
        let span = &part.chunk_spans(&part.chunks[0])[0];
        assert_eq!((span.span_id, part.get_str(span.attrs, "k")), (SpanId(2), Some("v")));
    }

    #[test]
    fn an_imported_span_owns_copies() {
        let from = two_spans();
        let mut to = Batch::default();
        to.arena.push("something before");
        to.import_span(&from, &from.spans[1], NO_SCOPE);
        drop(from);
        assert_eq!(to.get_str(to.spans[0].attrs, "k"), Some("v"));
    }
}
