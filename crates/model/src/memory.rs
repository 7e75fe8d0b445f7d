//! The reference store (feature `test-util`): everything in memory, every
//! question answered by looking at every span. Slow and obviously correct;
//! other stores are compared with it.
#![allow(clippy::unwrap_used, clippy::panic)]

use crate::{
    AckFn, AttrKey, Batch, Chunk, Dependency, Event, Expr, Fate, Link, Links, NO_SCOPE, Operation, Range32,
    Resource, Scope, Search, ServiceCount, Span, SpanReader, SpanWriter, StoreError, TimeRange, TraceId,
    TraceSummary, Value, WindowOn, flags,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

/// One span, alone in its batch with its resource, scope and chunk.
struct Stored {
    batch: Batch,
    /// All there is to the span, as text: equal texts are the same span.
    text: String,
    /// All there is to its resource and chunk.
    sender: String,
}

impl Stored {
    fn span(&self) -> &Span {
        &self.batch.spans[0]
    }
    fn resource(&self) -> Option<&Resource> {
        self.batch.resources.first()
    }
    fn start(&self) -> Option<i64> {
        (self.span().flags & flags::NO_START == 0).then_some(self.span().start)
    }
    fn matches(&self, expr: &Expr) -> bool {
        expr.matches(&self.batch, self.span(), self.resource())
    }
    fn service(&self) -> &str {
        self.batch.str(self.span().service)
    }
}

/// See the module.
#[derive(Default)]
pub struct MemoryStore {
    traces: Mutex<BTreeMap<TraceId, Vec<Stored>>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stores a batch at once.
    pub fn insert(&self, batch: &Batch) {
        let mut traces = self.traces.lock().unwrap();
        for chunk in batch.chunks.iter().filter(|c| c.fate == Fate::Kept) {
            for span in batch.chunk_spans(chunk) {
                let stored = single(batch, chunk, span);
                let trace = traces.entry(span.trace_id).or_default();
                if !trace.iter().any(|s| s.text == stored.text) {
                    trace.push(stored);
                }
            }
        }
    }
}

/// Copies one span into a batch of its own.
fn single(from: &Batch, chunk: &Chunk, span: &Span) -> Stored {
    let mut b = Batch { intake: from.intake, ..Batch::default() };
    if let Some(r) = from.resources.get(chunk.resource as usize) {
        let r = b.import_resource(from, r);
        b.resources.push(r);
    }
    let scope = match from.scopes.get(span.scope as usize) {
        Some(s) => {
            let s = b.import_scope(from, s);
            b.scopes.push(s);
            0
        }
        None => NO_SCOPE,
    };
    b.import_span(from, span, scope);
    let chunk = Chunk {
        resource: 0,
        spans: Range32::new(0, 1),
        origin: b.import_text(from, chunk.origin),
        attrs: b.import_attrs(from, chunk.attrs),
        ..*chunk
    };
    b.chunks.push(chunk);
    let sender = sender_text(&b);
    let text = span_text(&b) + &sender;
    Stored { batch: b, text, sender }
}

fn sender_text(b: &Batch) -> String {
    let mut out = String::new();
    if let Some(r) = b.resources.first() {
        let _ = write!(out, "{:?}", r.fields().map(|(_, t)| b.str(t)));
        attrs_text(b, r.attrs, &mut out);
        let _ = write!(out, "{:?} {}", b.str(r.schema_url), r.dropped);
    }
    let c = &b.chunks[0];
    let _ = write!(out, "{} {:?} {} {}", c.priority, b.str(c.origin), c.dropped, c.sampling_mechanism);
    attrs_text(b, c.attrs, &mut out);
    out
}

fn span_text(b: &Batch) -> String {
    let s = &b.spans[0];
    let mut out = format!(
        "{:?} {:?} {:?} {} {} {} {} {:?} {:?} {:?} ",
        s.trace_id,
        s.span_id,
        s.parent_id,
        s.start,
        s.duration,
        s.error,
        s.flags,
        s.dropped,
        s.kind,
        s.status
    );
    for t in [s.service, s.name, s.resource, s.span_type, s.trace_state, s.status_message] {
        let _ = write!(out, "{:?} ", b.str(t));
    }
    attrs_text(b, s.attrs, &mut out);
    for Event { time, name, attrs, dropped } in b.span_events(s) {
        let _ = write!(out, "event {time} {:?} {dropped}", b.str(*name));
        attrs_text(b, *attrs, &mut out);
    }
    for Link { trace_id, span_id, trace_state, flags, attrs, dropped } in b.span_links(s) {
        let _ = write!(out, "link {trace_id} {span_id} {:?} {flags} {dropped}", b.str(*trace_state));
        attrs_text(b, *attrs, &mut out);
    }
    if let Some(Scope { name, version, attrs, schema_url, dropped }) = b.scopes.first() {
        let _ =
            write!(out, "scope {:?} {:?} {:?} {dropped}", b.str(*name), b.str(*version), b.str(*schema_url));
        attrs_text(b, *attrs, &mut out);
    }
    out
}

fn attrs_text(b: &Batch, range: Range32, out: &mut String) {
    out.push('{');
    for a in b.attrs(range) {
        let _ = write!(out, "{:?}:", b.str(a.key));
        value_text(b, a.value, out);
    }
    out.push('}');
}

fn value_text(b: &Batch, value: Value, out: &mut String) {
    match value {
        Value::Str(t) => drop(write!(out, "s{:?},", b.str(t))),
        Value::Bytes(t) => drop(write!(out, "b{:?},", b.arena.bytes(t))),
        Value::List(r) => {
            out.push('[');
            b.list(r).iter().for_each(|v| value_text(b, *v, out));
            out.push(']');
        }
        Value::Map(r) => attrs_text(b, r, out),
        scalar => drop(write!(out, "{scalar:?},")),
    }
}

/// The root of a trace: the earliest span without parent.
fn root(spans: &[Stored]) -> Option<&Stored> {
    spans
        .iter()
        .filter(|s| s.span().parent_id.is_zero())
        .min_by_key(|s| (s.start().is_none(), s.span().start))
}

fn summary(trace_id: TraceId, spans: &[Stored]) -> TraceSummary {
    let root = root(spans);
    let root_text =
        |of: fn(&Span) -> crate::Text| root.map(|s| s.batch.str(of(s.span())).to_owned()).unwrap_or_default();
    let ids: BTreeSet<_> = spans.iter().map(|s| s.span().span_id).collect();
    let mut services: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for s in spans {
        let count = services.entry(s.service()).or_default();
        count.0 += 1;
        count.1 += u64::from(s.span().is_error());
    }
    let timed = || spans.iter().filter(|s| s.start().is_some());
    TraceSummary {
        trace_id,
        root_service: root_text(|s| s.service),
        root_name: root_text(|s| s.name),
        root_resource: root_text(|s| s.resource),
        start: timed().map(|s| s.span().start).min().unwrap_or(0),
        end: timed().map(|s| s.span().end()).max().unwrap_or(0),
        spans: spans.len() as u64,
        errors: spans.iter().filter(|s| s.span().is_error()).count() as u64,
        orphans: spans
            .iter()
            .filter(|s| !s.span().parent_id.is_zero() && !ids.contains(&s.span().parent_id))
            .count() as u64,
        services: services
            .into_iter()
            .map(|(name, (spans, errors))| ServiceCount { name: name.to_owned(), spans, errors })
            .collect(),
    }
}

fn meets(search: &Search, spans: &[Stored]) -> bool {
    let on_span = match search.window_on {
        WindowOn::SpanStart => true,
        WindowOn::TraceStart => {
            let first = spans.iter().filter_map(Stored::start).min();
            let start = root(spans).and_then(Stored::start).or(first);
            if !start.is_some_and(|t| search.window.contains(t)) {
                return false;
            }
            false
        }
    };
    let any = |expr: &Expr| {
        spans.iter().any(|s| (!on_span || search.window.contains(s.span().start)) && s.matches(expr))
    };
    if search.each.is_empty() { any(&Expr::True) } else { search.each.iter().all(any) }
}

/// All spans of a trace as one batch, one chunk per sender, oldest first.
fn assemble(spans: &[Stored]) -> Batch {
    let mut sorted: Vec<&Stored> = spans.iter().collect();
    sorted.sort_by_key(|s| s.span().start);
    let mut senders: Vec<&str> = Vec::new();
    for s in &sorted {
        if !senders.contains(&s.sender.as_str()) {
            senders.push(&s.sender);
        }
    }
    let mut out = Batch::default();
    if let Some(first) = sorted.first() {
        out.intake = first.batch.intake;
    }
    for sender in senders {
        let of_sender: Vec<&&Stored> = sorted.iter().filter(|s| s.sender == sender).collect();
        let Some(first) = of_sender.first() else { continue };
        if let Some(r) = first.resource() {
            let r = out.import_resource(&first.batch, r);
            out.resources.push(r);
        } else {
            out.resources.push(Resource::default());
        }
        let start = out.spans.len();
        for s in &of_sender {
            let scope = match s.batch.scopes.first() {
                Some(scope) => {
                    let scope = out.import_scope(&s.batch, scope);
                    out.scopes.push(scope);
                    (out.scopes.len() - 1) as u32
                }
                None => NO_SCOPE,
            };
            out.import_span(&s.batch, s.span(), scope);
        }
        let chunk = Chunk {
            resource: (out.resources.len() - 1) as u32,
            spans: Range32::new(start, out.spans.len()),
            origin: out.import_text(&first.batch, first.batch.chunks[0].origin),
            attrs: out.import_attrs(&first.batch, first.batch.chunks[0].attrs),
            ..first.batch.chunks[0]
        };
        out.chunks.push(chunk);
    }
    out
}

impl SpanWriter for MemoryStore {
    fn append(&self, batch: Arc<Batch>, done: AckFn) {
        self.insert(&batch);
        done(Ok(()));
    }
}

impl SpanReader for MemoryStore {
    fn services(&self) -> Result<Vec<String>, StoreError> {
        let traces = self.traces.lock().unwrap();
        let names: BTreeSet<&str> = traces.values().flatten().map(Stored::service).collect();
        Ok(names.into_iter().filter(|n| !n.is_empty()).map(str::to_owned).collect())
    }

    fn operations(&self, service: &str) -> Result<Vec<Operation>, StoreError> {
        let traces = self.traces.lock().unwrap();
        let found: BTreeSet<Operation> = traces
            .values()
            .flatten()
            .filter(|s| service.is_empty() || s.service() == service)
            .map(|s| Operation { name: s.batch.str(s.span().name).to_owned(), kind: s.span().kind })
            .collect();
        Ok(found.into_iter().filter(|o| !o.name.is_empty()).collect())
    }

    fn trace(&self, id: TraceId, _hint: TimeRange) -> Result<Option<Batch>, StoreError> {
        Ok(self.traces.lock().unwrap().get(&id).map(|spans| assemble(spans)))
    }

    fn search(&self, search: &Search) -> Result<Vec<TraceSummary>, StoreError> {
        let traces = self.traces.lock().unwrap();
        let mut found: Vec<TraceSummary> = traces
            .iter()
            .filter(|(_, spans)| meets(search, spans))
            .map(|(id, spans)| summary(*id, spans))
            .filter(|s| {
                search
                    .after
                    .is_none_or(|c| s.start < c.start || s.start == c.start && s.trace_id > c.trace_id)
            })
            .collect();
        found.sort_by_key(|s| (std::cmp::Reverse(s.start), s.trace_id));
        found.truncate(search.limit);
        Ok(found)
    }

    fn dependencies(&self, range: TimeRange) -> Result<Vec<Dependency>, StoreError> {
        let traces = self.traces.lock().unwrap();
        let mut links = Links::default();
        for spans in traces.values() {
            links.add_trace(&assemble(spans), range);
        }
        Ok(links.finish())
    }

    fn attribute_keys(&self) -> Result<Vec<AttrKey>, StoreError> {
        let traces = self.traces.lock().unwrap();
        let mut keys = BTreeSet::new();
        for s in traces.values().flatten() {
            let mut add = |range, resource| {
                for a in s.batch.attrs(range) {
                    keys.insert(AttrKey { key: s.batch.str(a.key).to_owned(), resource });
                }
            };
            add(s.span().attrs, false);
            if let Some(r) = s.resource() {
                add(r.attrs, true);
            }
        }
        Ok(keys.into_iter().collect())
    }

    fn attribute_values(&self, key: &str, limit: usize) -> Result<Vec<String>, StoreError> {
        let traces = self.traces.lock().unwrap();
        let mut values = BTreeSet::new();
        for s in traces.values().flatten() {
            let of_resource = s.resource().map(|r| r.attrs).unwrap_or_default();
            for a in s.batch.attrs(s.span().attrs).iter().chain(s.batch.attrs(of_resource)) {
                if s.batch.str(a.key) == key {
                    values.extend(s.batch.scalar(a.value));
                }
            }
        }
        Ok(values.into_iter().take(limit).collect())
    }
}
