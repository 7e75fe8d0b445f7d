//! Batches to a segment.

use crate::content::{
    content, parent_rows, put_chunk, put_dropped, put_events, put_links, put_process, put_scope, status_name,
};
use crate::error::SegmentError;
use crate::intern::{Interner, Renumbered};
use crate::json::put_value;
use crate::meta::SegmentMeta;
use crate::prepare::{LONG, NONE, Prepared, Preparer, put_long};
use crate::promote::choose;
use crate::schema::{self as s};
use crate::writer::{SegmentWriter, WriteOptions};
use spanloom_model::{Batch, Fate, NO_SCOPE, Span, Value};
use std::path::Path;

/// Values of huge rows make columns check their open pages.
const CHECK_BYTES: usize = 256 << 10;
/// Spans that decide which attributes get a column.
const SAMPLE: usize = 8192;

/// Neighbouring spans of a chunk that belong to one trace.
#[derive(Clone)]
struct Run {
    trace: u128,
    batch: u32,
    chunk: u32,
    spans: std::ops::Range<u32>,
}

/// A span of the input.
#[derive(Clone, Copy)]
struct Ref {
    start: i64,
    batch: u32,
    chunk: u32,
    span: u32,
}

/// Writes the spans of all chunks whose fate is [`Fate::Kept`] as a new segment
/// below `parent_dir`, which must exist. Identical spans are written once. The
/// directory appears under its final name complete and (with
/// [`WriteOptions::sync`]) on disk, or not at all.
///
/// # Errors
/// [`SegmentError::Empty`] without any span; otherwise what the disk says.
pub fn write_segment(
    parent_dir: &Path,
    options: &WriteOptions,
    batches: &[&Batch],
) -> Result<SegmentMeta, SegmentError> {
    let mut runs = runs(batches);
    let spans: usize = runs.iter().map(|r| r.spans.len()).sum();
    if spans == 0 {
        return Err(SegmentError::Empty);
    }
    runs.sort_by_key(|r| r.trace);
    let traces = runs.chunk_by(|a, b| a.trace == b.trace).count();
    let sample: Vec<_> = runs
        .iter()
        .flat_map(|r| r.spans.clone().map(move |i| (r.batch, i)))
        .step_by(spans.div_ceil(SAMPLE))
        .map(|(b, i)| (batches[b as usize], &batches[b as usize].spans[i as usize]))
        .collect();
    let mut columns = s::fixed();
    columns.extend(choose(&sample).iter().map(|(key, kind)| s::promoted(key, *kind)));
    let writer = SegmentWriter::create(parent_dir, options, columns, traces)?;
    let mut builder = Builder::new(batches, writer);
    let (mut refs, mut kept): (Vec<Ref>, Vec<Ref>) = (Vec::new(), Vec::new());
    for trace in runs.chunk_by(|a, b| a.trace == b.trace) {
        refs.clear();
        kept.clear();
        for Run { batch, chunk, spans, .. } in trace {
            let all = &batches[*batch as usize].spans;
            refs.extend(spans.clone().map(|span| Ref {
                start: all[span as usize].start,
                batch: *batch,
                chunk: *chunk,
                span,
            }));
        }
        refs.sort_by_key(|r| r.start);
        for r in &refs {
            let again =
                kept.iter().rev().take_while(|k| k.start == r.start).any(|k| same_span(batches, k, r));
            if !again {
                kept.push(*r);
            }
        }
        builder.trace(&kept)?;
    }
    builder.writer.finish()
}

/// The spans of all chunks that are kept, in order of the input.
fn runs(batches: &[&Batch]) -> Vec<Run> {
    let mut out: Vec<Run> = Vec::with_capacity(batches.iter().map(|b| b.chunks.len()).sum());
    for (b, batch) in batches.iter().enumerate() {
        for (c, chunk) in batch.chunks.iter().enumerate().filter(|(_, c)| c.fate == Fate::Kept) {
            // A chunk that says it has more spans than there are has those there are.
            let range = chunk.spans.usize();
            let spans = batch.spans.get(range.start..range.end.min(batch.spans.len())).unwrap_or_default();
            let mut at = chunk.spans.start;
            for same in spans.chunk_by(|a, b| a.trace_id == b.trace_id) {
                let end = at + same.len() as u32;
                let (batch, chunk) = (b as u32, c as u32);
                out.push(Run { trace: same[0].trace_id.0, batch, chunk, spans: at..end });
                at = end;
            }
        }
    }
    out
}

/// Whether two references name the same span with the same content.
fn same_span(batches: &[&Batch], a: &Ref, b: &Ref) -> bool {
    let (ba, bb) = (batches[a.batch as usize], batches[b.batch as usize]);
    let (sa, sb) = (&ba.spans[a.span as usize], &bb.spans[b.span as usize]);
    sa.span_id == sb.span_id
        && sa.kind == sb.kind
        && content(ba, &ba.chunks[a.chunk as usize], sa) == content(bb, &bb.chunks[b.chunk as usize], sb)
}

struct Builder<'a> {
    batches: &'a [&'a Batch],
    writer: SegmentWriter,
    preparer: Preparer,
    /// Spans of all batches, and where those of each begin.
    prepared: Vec<Prepared>,
    starts: Vec<usize>,
    /// Codes in the columns of what has numbers.
    texts: [Renumbered; 4],
    sets: Renumbered,
    contexts: [Renumbered; 3],
    kinds: Renumbered,
    statuses: Renumbered,
    context: Interner,
    /// Numbers in `context`: per batch, per resource, chunk, scope.
    processes: Vec<Vec<u32>>,
    chunks: Vec<Vec<u32>>,
    scopes: Vec<Vec<u32>>,
    promoted: Vec<Option<Value>>,
    scratch: Vec<u8>,
    long: Vec<u8>,
    parents: Vec<Option<i64>>,
    ids: Vec<(u64, u64)>,
    unchecked: usize,
}

impl<'a> Builder<'a> {
    fn new(batches: &'a [&'a Batch], writer: SegmentWriter) -> Self {
        let mut context = Interner::default();
        let mut buffer = Vec::new();
        let mut number = |put: &mut dyn FnMut(&mut Vec<u8>)| {
            buffer.clear();
            put(&mut buffer);
            context.intern(&buffer).0
        };
        let mut processes = Vec::new();
        let mut chunks = Vec::new();
        let mut scopes = Vec::new();
        let mut preparer = Preparer::new(&writer.columns);
        let mut prepared = Vec::with_capacity(batches.iter().map(|b| b.spans.len()).sum());
        let mut starts = Vec::with_capacity(batches.len());
        for b in batches {
            processes.push(b.resources.iter().map(|r| number(&mut |o| put_process(o, b, r))).collect());
            chunks.push(b.chunks.iter().map(|c| number(&mut |o| put_chunk(o, b, c))).collect());
            scopes.push((0..b.scopes.len() as u32).map(|i| number(&mut |o| put_scope(o, b, i))).collect());
            starts.push(prepared.len());
            prepared.extend(b.spans.iter().map(|s| preparer.span(b, s)));
        }
        preparer.end();
        let promoted = vec![None; writer.columns.len() - s::FIXED];
        Self {
            batches,
            writer,
            preparer,
            prepared,
            starts,
            texts: Default::default(),
            sets: Renumbered::default(),
            contexts: Default::default(),
            kinds: Renumbered::default(),
            statuses: Renumbered::default(),
            context,
            processes,
            chunks,
            scopes,
            promoted,
            scratch: Vec::new(),
            long: Vec::new(),
            parents: Vec::new(),
            ids: Vec::new(),
            unchecked: 0,
        }
    }

    fn trace(&mut self, refs: &[Ref]) -> Result<(), SegmentError> {
        self.ids.clear();
        for r in refs {
            let span = &self.batches[r.batch as usize].spans[r.span as usize];
            self.ids.push((span.span_id.0, span.parent_id.0));
        }
        let mut parents = std::mem::take(&mut self.parents);
        parent_rows(&self.ids, &mut parents);
        for (r, parent) in refs.iter().zip(&parents) {
            self.row(r, *parent)?;
        }
        self.parents = parents;
        Ok(())
    }

    fn row(&mut self, r: &Ref, parent_row: Option<i64>) -> Result<(), SegmentError> {
        let batches = self.batches;
        let batch = batches[r.batch as usize];
        let span = &batch.spans[r.span as usize];
        let prepared = self.prepared[self.starts[r.batch as usize] + r.span as usize];
        self.attributes(batch, span, &prepared);
        let cols = &mut self.writer.cols;
        cols[s::TRACE_ID].push_id(span.trace_id.0);
        cols[s::SPAN_ID].push_word(span.span_id.0 as i64);
        cols[s::PARENT_ROW].push_word(parent_row.unwrap_or(0));
        if parent_row.is_some() || span.parent_id.is_zero() {
            cols[s::PARENT_ID].push_null();
        } else {
            cols[s::PARENT_ID].push_word(span.parent_id.0 as i64);
        }
        cols[s::START].push_word(span.start);
        cols[s::DURATION].push_word(span.duration);
        let texts = [span.service, span.name, span.resource, span.span_type];
        let columns = [s::SERVICE, s::NAME, s::RESOURCE, s::TYPE];
        for (i, (column, text)) in columns.into_iter().zip(texts).enumerate() {
            match prepared.texts[i] {
                NONE => cols[column].push(batch.str(text).as_bytes()),
                n => cols[column].push_numbered(&mut self.texts[i], n, self.preparer.texts.get(n)),
            }
        }
        cols[s::KIND].push_numbered(&mut self.kinds, span.kind as u32, span.kind.name().as_bytes());
        let status = status_name(span.status).as_bytes();
        cols[s::STATUS].push_numbered(&mut self.statuses, span.status as u32, status);
        cols[s::ERROR].push_word(i64::from(span.error));
        cols[s::FLAGS].push_word(span.flags as i64);
        cols[s::STATUS_MESSAGE].push(batch.str(span.status_message).as_bytes());
        cols[s::TRACE_STATE].push(batch.str(span.trace_state).as_bytes());
        if self.long.is_empty() {
            cols[s::LONG].push_null();
        } else {
            self.long.push(b']');
            cols[s::LONG].push(&self.long);
        }
        let mut size =
            self.long.len() + span.resource.len() + span.status_message.len() + span.trace_state.len();
        for (column, there, put) in [
            (s::EVENTS, !span.events.is_empty(), put_events as fn(&mut Vec<u8>, &Batch, &Span)),
            (s::LINKS, !span.links.is_empty(), put_links),
            (s::DROPPED, span.dropped != [0; 3], |o, _, s| put_dropped(o, s)),
        ] {
            if there {
                self.scratch.clear();
                put(&mut self.scratch, batch, span);
                size += self.scratch.len();
                cols[column].push(&self.scratch);
            } else {
                cols[column].push_null();
            }
        }
        let (b, c) = (r.batch as usize, r.chunk as usize);
        let [process, scope, chunk] = &mut self.contexts;
        let mut numbered = |column: usize, codes: &mut Renumbered, number: u32| {
            cols[column].push_numbered(codes, number, self.context.get(number));
        };
        let resource = batch.chunks[c].resource as usize;
        match self.processes[b].get(resource) {
            Some(number) => numbered(s::PROCESS, process, *number),
            None => cols[s::PROCESS].push(b"{}"),
        }
        let mut numbered = |column: usize, codes: &mut Renumbered, number: u32| {
            cols[column].push_numbered(codes, number, self.context.get(number));
        };
        numbered(s::CHUNK, chunk, self.chunks[b][c]);
        match self.scopes[b].get(span.scope as usize) {
            Some(number) if span.scope != NO_SCOPE => numbered(s::SCOPE, scope, *number),
            _ => cols[s::SCOPE].push_null(),
        }
        for (col, value) in cols[s::FIXED..].iter_mut().zip(&mut self.promoted) {
            match value.take() {
                None => col.push_null(),
                Some(Value::Int(v)) => col.push_word(v),
                Some(Value::Double(v)) => col.push(&v.to_le_bytes()),
                Some(Value::Str(t)) => {
                    size += t.len();
                    col.push(batch.str(t).as_bytes());
                }
                Some(other) => {
                    self.scratch.clear();
                    put_value(&mut self.scratch, batch, &other, 1);
                    size += self.scratch.len();
                    col.push(&self.scratch);
                }
            }
        }
        self.unchecked += size;
        self.writer.end_row()?;
        if self.unchecked > CHECK_BYTES {
            self.unchecked = 0;
            self.writer.settle()?;
        }
        Ok(())
    }

    /// Pushes the attribute set of a span, and leaves the values that lie
    /// elsewhere in `promoted` and `long`.
    fn attributes(&mut self, batch: &Batch, span: &Span, prepared: &Prepared) {
        self.long.clear();
        let first = prepared.first as usize;
        for (value, column) in &self.preparer.places[first..first + prepared.places as usize] {
            if *column == LONG {
                put_long(&mut self.long, batch, value);
            } else {
                self.promoted[usize::from(*column) - s::FIXED] = Some(*value);
            }
        }
        let column = &mut self.writer.cols[s::ATTRIBUTES];
        match prepared.set {
            NONE => column.push(&self.preparer.spell(batch, span)),
            set => column.push_numbered(&mut self.sets, set, self.preparer.json.get(set)),
        }
    }
}
