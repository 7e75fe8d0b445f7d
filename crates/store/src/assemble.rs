//! One trace from its pieces: identical spans once, oldest first, one chunk
//! for each resource.

use crate::source::{Part, Root};
use spanloom_model::{
    Arena, Attr, Batch, Chunk, NO_SCOPE, Range32, Resource, ServiceCount, Span, SpanId, Text, TraceId, Value,
    flags,
};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::BuildHasher;

/// Hashes of content, independent of where it lies. Attributes count without
/// their order: a file may have sorted them.
struct Content<'a> {
    batch: &'a Batch,
    state: &'a foldhash::quality::FixedState,
}

impl Content<'_> {
    fn of(&self, values: impl std::hash::Hash) -> u64 {
        self.state.hash_one(values)
    }
    fn text(&self, text: Text) -> u64 {
        self.of(self.batch.arena.bytes(text))
    }
    fn attrs(&self, range: Range32, depth: usize) -> u64 {
        let attrs = self.batch.attrs(range);
        let each = |a: &Attr| self.of((self.text(a.key), self.value(a.value, depth)));
        attrs.iter().fold(attrs.len() as u64, |sum, a| sum.wrapping_add(each(a)))
    }
    fn value(&self, value: Value, depth: usize) -> u64 {
        if depth > spanloom_journal::record::MAX_DEPTH {
            return 0;
        }
        match value {
            Value::Empty => 1,
            Value::Str(t) => self.of((2, self.text(t))),
            Value::Bool(b) => self.of((3, b)),
            Value::Int(i) => self.of((4, i)),
            Value::Double(d) => self.of((5, d.to_bits())),
            Value::Bytes(t) => self.of((6, self.text(t))),
            Value::List(r) => {
                let items = self.batch.list(r);
                items.iter().fold(7, |hash, v| self.of((hash, self.value(*v, depth + 1))))
            }
            Value::Map(r) => self.of((8, self.attrs(r, depth + 1))),
        }
    }
    fn resource(&self, r: &Resource) -> u64 {
        let texts = [
            r.container_id,
            r.language_name,
            r.language_version,
            r.tracer_version,
            r.runtime_id,
            r.env,
            r.hostname,
            r.app_version,
            r.schema_url,
        ];
        self.of((texts.map(|t| self.text(t)), r.dropped, self.attrs(r.attrs, 0)))
    }
    fn chunk(&self, c: &Chunk) -> u64 {
        let resource = self.batch.resources.get(c.resource as usize).map(|r| self.resource(r));
        self.of((
            resource,
            c.priority,
            self.text(c.origin),
            self.attrs(c.attrs, 0),
            c.dropped,
            c.sampling_mechanism,
        ))
    }
    fn scope(&self, index: u32) -> u64 {
        let Some(s) = self.batch.scopes.get(index as usize) else { return 0 };
        let texts = [s.name, s.version, s.schema_url].map(|t| self.text(t));
        self.of((texts, s.dropped, self.attrs(s.attrs, 0)))
    }
    fn span(&self, s: &Span) -> u64 {
        let texts = [s.service, s.name, s.resource, s.span_type, s.trace_state, s.status_message]
            .map(|t| self.text(t));
        let mut hash = self.of((s.span_id, s.parent_id, s.start, s.duration, texts, self.attrs(s.attrs, 0)));
        hash = self.of((hash, s.error, s.flags, s.dropped, s.kind, s.status as u8, self.scope(s.scope)));
        for l in self.batch.span_links(s) {
            let attrs = self.attrs(l.attrs, 0);
            hash =
                self.of((hash, l.trace_id, l.span_id, self.text(l.trace_state), l.flags, l.dropped, attrs));
        }
        for e in self.batch.span_events(s) {
            hash = self.of((hash, e.time, self.text(e.name), e.dropped, self.attrs(e.attrs, 0)));
        }
        hash
    }
}

/// Joins pieces into the batch of one trace. The pieces' spans get the trace
/// id, also those that were stored under its lower half alone.
pub(crate) fn assemble(id: TraceId, pieces: &[Batch]) -> Batch {
    let mut out = Batch::new(Arena::default(), pieces.first().map(|b| b.intake).unwrap_or_default());
    let state = &foldhash::quality::FixedState::default();
    let mut seen = HashSet::with_capacity(pieces.iter().map(|b| b.spans.len()).sum());
    // Groups by resource and chunk fields: (piece, chunk) that shows them, spans.
    type Group = ((usize, usize), Vec<(usize, usize)>);
    let mut groups: Vec<Group> = Vec::new();
    let mut by_content: HashMap<u64, usize> = HashMap::new();
    for (p, piece) in pieces.iter().enumerate() {
        let content = Content { batch: piece, state };
        for (c, chunk) in piece.chunks.iter().enumerate() {
            let key = content.chunk(chunk);
            let resource = piece.resources.get(chunk.resource as usize).map(|r| content.resource(r));
            let group = *by_content.entry(key).or_insert_with(|| {
                groups.push(((p, c), Vec::new()));
                groups.len() - 1
            });
            for i in chunk.spans.usize() {
                let Some(span) = piece.spans.get(i) else { continue };
                if seen.insert((content.span(span), resource)) {
                    groups[group].1.push((p, i));
                }
            }
        }
    }
    let key = |&(p, i): &(usize, usize)| {
        let s: &Span = &pieces[p].spans[i];
        // Of spans that begin together the caller's half comes first.
        (s.start, s.kind == spanloom_model::SpanKind::Server, s.span_id, s.kind, s.duration)
    };
    groups.retain_mut(|(_, spans)| {
        spans.sort_by_key(key);
        !spans.is_empty()
    });
    groups.sort_by_key(|(_, spans)| spans.first().map(key));
    let mut scopes: HashMap<u64, u32> = HashMap::new();
    let mut resources: HashMap<u64, u32> = HashMap::new();
    for ((p, c), spans) in groups {
        let from = &pieces[p];
        let chunk = from.chunks[c];
        let content = Content { batch: from, state };
        let known = from.resources.get(chunk.resource as usize).copied().unwrap_or_default();
        let resource = *resources.entry(content.resource(&known)).or_insert_with(|| {
            let copy = out.import_resource(from, &known);
            out.resources.push(copy);
            out.resources.len() as u32 - 1
        });
        let first = out.spans.len();
        for (p, i) in spans {
            let piece = &pieces[p];
            let span = &piece.spans[i];
            let scope = import_scope(&mut out, piece, span.scope, &mut scopes, state);
            out.import_span(piece, span, scope);
            if let Some(copy) = out.spans.last_mut() {
                copy.trace_id = id;
            }
        }
        let origin = out.import_text(from, chunk.origin);
        let attrs = out.import_attrs(from, chunk.attrs);
        let spans = Range32::new(first, out.spans.len());
        out.chunks.push(Chunk { resource, spans, trace_id: id, origin, attrs, ..chunk });
    }
    out
}

fn import_scope(
    out: &mut Batch,
    from: &Batch,
    index: u32,
    known: &mut HashMap<u64, u32>,
    state: &foldhash::quality::FixedState,
) -> u32 {
    let Some(scope) = from.scopes.get(index as usize) else { return NO_SCOPE };
    let key = Content { batch: from, state }.scope(index);
    if let Some(n) = known.get(&key) {
        return *n;
    }
    let copy = out.import_scope(from, scope);
    out.scopes.push(copy);
    let n = out.scopes.len() as u32 - 1;
    known.insert(key, n);
    n
}

/// Figures of an assembled trace.
pub(crate) fn figures(batch: &Batch) -> Part {
    let mut part = Part { spans: batch.spans.len() as u64, ..Part::default() };
    let ids: HashSet<SpanId> = batch.spans.iter().map(|s| s.span_id).collect();
    let mut services: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut root: Option<&Span> = None;
    let mut end = i64::MIN;
    for span in &batch.spans {
        let failed = u64::from(span.is_error());
        part.errors += failed;
        let count = services.entry(batch.str(span.service)).or_default();
        count.0 += 1;
        count.1 += failed;
        if span.flags & flags::NO_START == 0 {
            part.start = Some(part.start.map_or(span.start, |s| s.min(span.start)));
            end = end.max(span.end());
        }
        if span.parent_id.is_zero() {
            // A report without time (tags sent later) is not the root while
            // another span can be it.
            let rank = |s: &Span| (s.flags & flags::NO_START != 0, s.start, s.span_id);
            if root.is_none_or(|r| rank(span) < rank(r)) {
                root = Some(span);
            }
        } else if !ids.contains(&span.parent_id) {
            part.orphans += 1;
        }
    }
    part.end = if part.start.is_some() { end } else { 0 };
    part.root = root.map(|r| Root {
        service: batch.str(r.service).to_owned(),
        name: batch.str(r.name).to_owned(),
        resource: batch.str(r.resource).to_owned(),
        start: (r.flags & flags::NO_START == 0).then_some(r.start),
    });
    part.services = services
        .into_iter()
        .map(|(name, (spans, errors))| ServiceCount { name: name.to_owned(), spans, errors })
        .collect();
    part
}
