//! Spans that are not in a segment yet: their records, as they stand in the
//! log, and small indexes. A generation is filled, then frozen, then written
//! to a segment; it stays readable until that segment is in the manifest.

use crate::assemble;
use crate::source::{Hit, Names, Part, Scan, Source};
use crate::terms::Terms;
use bytes::Bytes;
use spanloom_journal::record::{ChunkHead, RecordError, View};
use spanloom_journal::{FrameRef, Journal};
use spanloom_model::{Batch, Operation, Range32, Search, StoreError, TimeRange, TraceId, WindowOn};
use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, Weak};

type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// A record, in memory or (when much was replayed) in the log only.
#[derive(Clone)]
pub(crate) enum Payload {
    Memory(Bytes),
    Log(FrameRef),
}

struct Record {
    payload: Payload,
    /// Latest start of its spans; `i64::MAX` if some span has no start.
    max_start: i64,
    min_start: i64,
}

/// A chunk in a record, and the trace's previous one.
#[derive(Clone, Copy)]
struct Entry {
    record: u32,
    chunk: u32,
    before: u32,
}

#[derive(Clone, Copy)]
struct LiveTrace {
    last: u32,
    /// Earliest start, `i64::MAX` if no span has one.
    start: i64,
}

const NONE: u32 = u32::MAX;

#[derive(Default)]
struct Inner {
    records: Vec<Record>,
    entries: Vec<Entry>,
    traces: FastMap<TraceId, LiveTrace>,
    names: Names,
    /// Hashes of operations already in `names`.
    known: FastMap<u64, ()>,
    /// Records whose names are not in `names` yet.
    unnamed: Vec<u32>,
    range: Option<(i64, i64)>,
    spans: u64,
    bytes: u64,
    last_seq: u64,
    opened_at: Option<i64>,
}

impl Inner {
    /// Takes note of the operations of a record.
    fn name(&mut self, view: &View) -> Result<(), RecordError> {
        view.ops(|op| {
            let hash = self.known.hasher().hash_one((op.service, op.name, op.kind as u8));
            if self.known.insert(hash, ()).is_none() {
                let operation = Operation { name: op.name.to_owned(), kind: op.kind };
                self.names.entry(op.service.to_owned()).or_default().insert(operation);
            }
        })
    }

    fn add(&mut self, bytes: usize, payload: Payload, chunks: &[ChunkHead], now: i64) {
        self.opened_at.get_or_insert(now);
        let n = self.records.len() as u32;
        let (mut min, mut max) = (i64::MAX, i64::MIN);
        for (i, chunk) in chunks.iter().enumerate() {
            let (low, high) =
                if chunk.startless { (i64::MIN, i64::MAX) } else { (chunk.min_start, chunk.max_start) };
            min = min.min(low);
            max = max.max(high);
            self.spans += u64::from(chunk.spans);
            let at = self.entries.len() as u32;
            let trace =
                self.traces.entry(chunk.trace_id).or_insert(LiveTrace { last: NONE, start: i64::MAX });
            self.entries.push(Entry { record: n, chunk: i as u32, before: trace.last });
            trace.last = at;
            trace.start = trace.start.min(chunk.min_start);
        }
        let range = self.range.get_or_insert((min, max));
        *range = (range.0.min(min), range.1.max(max));
        self.bytes += bytes as u64;
        self.records.push(Record { payload, min_start: min, max_start: max });
    }
}

/// The log to read records from; empty while it is being replayed.
pub(crate) type JournalCell = Arc<OnceLock<Weak<Journal>>>;

/// A batch of live spans.
pub(crate) struct Generation {
    journal: JournalCell,
    inner: RwLock<Inner>,
}

/// Size of a generation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Size {
    pub spans: u64,
    pub traces: u64,
    pub bytes: u64,
    pub last_seq: u64,
}

impl Generation {
    pub fn new(journal: JournalCell) -> Self {
        Self { journal, inner: RwLock::default() }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn size(&self) -> Size {
        let inner = self.read();
        Size {
            spans: inner.spans,
            traces: inner.traces.len() as u64,
            bytes: inner.bytes,
            last_seq: inner.last_seq,
        }
    }

    /// When its first span came.
    pub fn opened_at(&self) -> Option<i64> {
        self.read().opened_at
    }

    /// Adds a record. A record that does not parse is refused.
    pub fn add(
        &self,
        record: &Bytes,
        payload: Payload,
        chunks: &[ChunkHead],
        now: i64,
    ) -> Result<(), StoreError> {
        let view = View::parse(record.clone()).map_err(damaged)?;
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.name(&view).map_err(damaged)?;
        inner.add(record.len(), payload, chunks, now);
        Ok(())
    }

    /// Adds a record from the log. Its names are read when somebody asks: a
    /// start must not wait for them.
    pub fn replay(&self, record: &Bytes, payload: Payload, chunks: &[ChunkHead], now: i64) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let n = inner.records.len() as u32;
        inner.unnamed.push(n);
        inner.add(record.len(), payload, chunks, now);
    }

    /// Reads the names that were left out so far.
    fn name_all(&self) -> Result<(), StoreError> {
        loop {
            let next = {
                let inner = self.read();
                let Some(n) = inner.unnamed.last() else { return Ok(()) };
                inner.records.get(*n as usize).map(|r| (*n, r.payload.clone()))
            };
            let view = next.map(|(n, p)| View::parse(self.load(&p)?).map_err(damaged).map(|v| (n, v)));
            let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(view) = view {
                let (n, view) = view?;
                if inner.unnamed.last() != Some(&n) {
                    // Somebody else was here.
                    continue;
                }
                inner.name(&view).map_err(damaged)?;
            }
            inner.unnamed.pop();
        }
    }

    /// The log holds everything here up to this frame.
    pub fn logged(&self, seq: u64) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.last_seq = inner.last_seq.max(seq);
    }

    fn load(&self, payload: &Payload) -> Result<Bytes, StoreError> {
        match payload {
            Payload::Memory(bytes) => Ok(bytes.clone()),
            Payload::Log(frame) => {
                let journal = self.journal.get().and_then(Weak::upgrade).ok_or(StoreError::Closed)?;
                journal.read(*frame).map_err(|e| StoreError::Read(e.to_string()))
            }
        }
    }

    /// The records, oldest first.
    pub fn records(&self) -> Vec<Payload> {
        self.read().records.iter().map(|r| r.payload.clone()).collect()
    }

    /// The whole batch of a record.
    pub fn batch(&self, payload: &Payload) -> Result<Batch, StoreError> {
        spanloom_journal::record::decode(self.load(payload)?).map_err(damaged)
    }

    fn pieces(&self, id: TraceId) -> Result<Vec<Batch>, StoreError> {
        let mut places: Vec<(Payload, Vec<u32>)> = Vec::new();
        {
            let inner = self.read();
            let mut at = inner.traces.get(&id).map_or(NONE, |t| t.last);
            let mut last = NONE;
            while let Some(entry) = inner.entries.get(at as usize) {
                if entry.record != last {
                    places.push((inner.records[entry.record as usize].payload.clone(), Vec::new()));
                    last = entry.record;
                }
                if let Some((_, chunks)) = places.last_mut() {
                    chunks.push(entry.chunk);
                }
                at = entry.before;
            }
        }
        places
            .iter()
            .rev()
            .map(|(payload, chunks)| {
                let view = View::parse(self.load(payload)?).map_err(damaged)?;
                view.batch(|n, _| chunks.contains(&(n as u32)), true).map_err(damaged)
            })
            .collect()
    }

    /// Records that may matter, newest first.
    fn candidates(&self, keep: impl Fn(&Record) -> bool) -> Vec<(i64, Payload)> {
        let inner = self.read();
        let mut list: Vec<&Record> = inner.records.iter().filter(|r| keep(r)).collect();
        list.sort_by_key(|r| std::cmp::Reverse(r.max_start));
        list.into_iter().map(|r| (r.max_start, r.payload.clone())).collect()
    }
}

pub(crate) fn damaged(error: impl std::fmt::Display) -> StoreError {
    StoreError::Read(error.to_string())
}

/// Records that a search reads at first; then four times as many each time.
const FIRST_RECORDS: usize = 4;

/// A search of a generation, record by record, newest first.
struct LiveScan<'a> {
    generation: &'a Generation,
    search: &'a Search,
    terms: Vec<Terms>,
    records: Vec<(i64, Payload)>,
    at: usize,
    step: usize,
    /// Times that matter.
    range: (i64, i64),
}

impl LiveScan<'_> {
    fn record(&self, payload: &Payload, found: &mut FastMap<TraceId, u64>) -> Result<(), StoreError> {
        let search = self.search;
        let (from, to) = self.range;
        let view = View::parse(self.generation.load(payload)?).map_err(damaged)?;
        // Bit by bit: which conditions can be met in this record at all.
        let possible: Vec<(u64, _)> = search
            .each
            .iter()
            .zip(&self.terms)
            .enumerate()
            .filter(|(_, (_, terms))| terms.all_in(view.text_bytes()))
            .map(|(i, (expr, _))| (1u64 << i, expr))
            .collect();
        if possible.is_empty() {
            return Ok(());
        }
        let needs_attrs = possible.iter().any(|(_, e)| Terms::needs_attributes(e));
        let in_time = |h: &ChunkHead| h.startless || (h.max_start >= from && h.min_start <= to);
        let batch = view.batch(|_, h| in_time(h), needs_attrs).map_err(damaged)?;
        for chunk in &batch.chunks {
            let resource = batch.resources.get(chunk.resource as usize);
            let mut mask = found.get(&chunk.trace_id).copied().unwrap_or(0);
            for span in batch.chunk_spans(chunk) {
                if search.window_on == WindowOn::SpanStart && !search.window.contains(span.start) {
                    continue;
                }
                for (bit, expr) in &possible {
                    if mask & bit == 0 && expr.matches(&batch, span, resource) {
                        mask |= bit;
                    }
                }
            }
            if mask != 0 {
                found.insert(chunk.trace_id, mask);
            }
        }
        Ok(())
    }
}

impl Scan for LiveScan<'_> {
    fn next(&mut self) -> Result<Option<(Vec<Hit>, i64)>, StoreError> {
        if self.at >= self.records.len() {
            return Ok(None);
        }
        let end = self.records.len().min(self.at + self.step);
        let mut found: FastMap<TraceId, u64> = FastMap::default();
        for (_, payload) in &self.records[self.at..end] {
            self.record(payload, &mut found)?;
        }
        self.at = end;
        self.step *= 4;
        // What is left has only spans in records that end before this, and a
        // trace starts no later than its spans.
        let bound = self.records.get(end).map_or(i64::MIN, |(newest, _)| *newest);
        let inner = self.generation.read();
        let hits = found
            .into_iter()
            .map(|(trace_id, mask)| {
                let start = inner.traces.get(&trace_id).map_or(i64::MAX, |t| t.start);
                Hit { trace_id, mask, start }
            })
            .collect();
        Ok(Some((hits, bound)))
    }
}

impl Source for Generation {
    fn range(&self) -> Option<(i64, i64)> {
        self.read().range
    }

    fn scan<'a>(&'a self, search: &'a Search) -> Box<dyn Scan + 'a> {
        let (from, to) = match search.window_on {
            WindowOn::SpanStart => (search.window.start, search.window.end),
            WindowOn::TraceStart => (i64::MIN, i64::MAX),
        };
        Box::new(LiveScan {
            generation: self,
            search,
            terms: search.each.iter().map(Terms::required).collect(),
            records: self.candidates(|r| r.max_start >= from && r.min_start <= to),
            at: 0,
            step: FIRST_RECORDS,
            range: (from, to),
        })
    }

    fn start(&self, id: TraceId) -> Result<Option<Option<i64>>, StoreError> {
        Ok(self.read().traces.get(&id).map(|t| (t.start != i64::MAX).then_some(t.start)))
    }

    fn part(&self, id: TraceId) -> Result<Option<Part>, StoreError> {
        let pieces = self.pieces(id)?;
        Ok((!pieces.is_empty()).then(|| assemble::figures(&assemble::assemble(id, &pieces))))
    }

    fn trace(&self, id: TraceId) -> Result<Option<Batch>, StoreError> {
        let pieces = self.pieces(id)?;
        Ok((!pieces.is_empty()).then(|| assemble::assemble(id, &pieces)))
    }

    fn services(&self, into: &mut BTreeSet<String>) -> Result<(), StoreError> {
        self.name_all()?;
        into.extend(self.read().names.keys().cloned());
        Ok(())
    }

    fn names(&self, into: &mut Names) -> Result<(), StoreError> {
        self.name_all()?;
        for (service, operations) in &self.read().names {
            into.entry(service.clone()).or_default().extend(operations.iter().cloned());
        }
        Ok(())
    }

    fn keys(&self, into: &mut BTreeSet<(String, bool)>) -> Result<(), StoreError> {
        for payload in self.records() {
            let batch = self.batch(&payload)?;
            let mut add = |range: Range32, resource: bool| {
                for a in batch.attrs(range) {
                    let key = batch.str(a.key);
                    // Most keys are known: look before copying.
                    let wanted = (key.to_owned(), resource);
                    into.insert(wanted);
                }
            };
            batch.resources.iter().for_each(|r| add(r.attrs, true));
            batch.spans.iter().for_each(|s| add(s.attrs, false));
        }
        Ok(())
    }

    fn values(&self, key: &str, limit: usize, into: &mut BTreeSet<String>) -> Result<(), StoreError> {
        for payload in self.records().iter().rev() {
            let record = self.load(payload)?;
            let view = View::parse(record.clone()).map_err(damaged)?;
            if memchr::memmem::find(view.text_bytes(), key.as_bytes()).is_none() {
                continue;
            }
            let batch = spanloom_journal::record::decode(record).map_err(damaged)?;
            let owners = batch.resources.iter().map(|r| r.attrs).chain(batch.spans.iter().map(|s| s.attrs));
            for range in owners {
                for a in batch.attrs(range).iter().filter(|a| batch.str(a.key) == key) {
                    into.extend(batch.scalar(a.value));
                    if into.len() > limit {
                        into.pop_last();
                    }
                }
            }
        }
        Ok(())
    }

    fn trace_ids(&self, range: TimeRange, each: &mut dyn FnMut(TraceId)) -> Result<(), StoreError> {
        for (_, payload) in self.candidates(|r| r.max_start >= range.start && r.min_start <= range.end) {
            let view = View::parse(self.load(&payload)?).map_err(damaged)?;
            view.chunks(|h| {
                if h.startless || (h.max_start >= range.start && h.min_start <= range.end) {
                    each(h.trace_id);
                }
            })
            .map_err(damaged)?;
        }
        Ok(())
    }
}

/// Shared handle.
pub(crate) type Shared = Arc<Generation>;
