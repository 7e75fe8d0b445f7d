//! The buffer from outside: what comes in, what leaves, what a restart finds.
#![allow(clippy::unwrap_used, clippy::panic)] // a test says what it expects

mod bounds;
mod oracle;
mod restart;
mod verdicts;

use spanloom_holding::{Buffer, Config, Held, Ruling, Spans, Stats, Take, Waiting, Way};
use spanloom_journal::SyncPolicy;
use spanloom_model::{AckFn, Batch, Chunk, Leaves, Protocol, Resource, Span, SpanId, StoreError, TraceId};
use spanloom_pipeline::Exporter;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

pub(crate) const SECOND: i64 = 1_000_000_000;
pub(crate) const WAIT: i64 = 30 * SECOND;

/// An exporter that remembers (trace, span) of what it was given.
#[derive(Default)]
pub(crate) struct Taker {
    pub(crate) taken: Mutex<Vec<(u128, u64)>>,
    pub(crate) refuses: AtomicBool,
    pub(crate) gone: AtomicBool,
}

impl Exporter for Taker {
    fn export(&self, batch: Arc<Batch>, done: AckFn) {
        if self.refuses.load(Ordering::SeqCst) {
            return done(Err(StoreError::Busy("test".into())));
        }
        let mut taken = self.taken.lock().unwrap();
        for chunk in batch.chunks.iter().filter(|c| c.fate == spanloom_model::Fate::Kept) {
            if chunk.sampled.leaves == Leaves::Nothing {
                continue;
            }
            for span in batch.chunk_spans(chunk) {
                assert_eq!(batch.str(span.service), format!("service-{}", span.span_id.0));
                assert_eq!(chunk.route, 7, "sent where it was meant for");
                taken.push((chunk.trace_id.0, span.span_id.0));
            }
        }
        drop(taken);
        done(Ok(()));
    }
}

impl Way for Taker {
    fn takes(&self, _: &Batch, chunk: &Chunk) -> Take {
        match chunk.sampled.leaves {
            Leaves::Whole => Take::Wait { exempt: chunk.priority == 2 },
            Leaves::Marked => Take::AtOnce,
            Leaves::Nothing => Take::Skip,
        }
    }
    fn destination(&self, chunk: &Chunk) -> String {
        format!("backend {}", chunk.route)
    }
    fn send_to(&self, chunk: &mut Chunk, destination: &str) -> bool {
        chunk.route = destination.strip_prefix("backend ").unwrap().parse().unwrap();
        !self.gone.load(Ordering::SeqCst)
    }
}

pub(crate) struct Setup {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) taker: Arc<Taker>,
    pub(crate) max_bytes: u64,
    /// Spans and chunks that were dropped.
    pub(crate) dropped: Arc<Mutex<[u64; 2]>>,
    pub(crate) full: Arc<AtomicU64>,
}

impl Setup {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            taker: Arc::default(),
            max_bytes: 64 << 20,
            dropped: Arc::default(),
            full: Arc::default(),
        }
    }

    pub(crate) fn open(&self, now: i64) -> Arc<Buffer> {
        let (dropped, full) = (Arc::clone(&self.dropped), Arc::clone(&self.full));
        let config = Config {
            dir: self.dir.path().to_owned(),
            max_bytes: self.max_bytes,
            max_memory: 32 << 20,
            wait: WAIT,
            policy: SyncPolicy::Interval,
            on_dropped: Arc::new(move |protocol, spans, chunks| {
                assert_eq!(protocol, Protocol::DatadogV05);
                let mut dropped = dropped.lock().unwrap();
                dropped[0] += spans;
                dropped[1] += chunks;
            }),
            on_full: Arc::new(move || {
                full.fetch_add(1, Ordering::SeqCst);
            }),
        };
        let (buffer, damage) = Buffer::open(config, vec![Arc::clone(&self.taker) as _], now).unwrap();
        assert!(damage.is_empty(), "{damage:?}");
        buffer
    }

    pub(crate) fn taken(&self) -> Vec<(u128, u64)> {
        let mut taken = std::mem::take(&mut *self.taker.taken.lock().unwrap());
        taken.sort_unstable();
        taken
    }

    pub(crate) fn dropped(&self) -> [u64; 2] {
        *self.dropped.lock().unwrap()
    }

    pub(crate) fn files(&self) -> u64 {
        let files = std::fs::read_dir(self.dir.path()).unwrap();
        files.map(|f| f.unwrap().metadata().unwrap().len()).sum()
    }
}

/// A batch of chunks, each of a trace with spans of these ids.
pub(crate) fn batch(
    received_at: i64,
    chunks: &[(u128, &[u64])],
    edit: impl FnOnce(&mut Batch),
) -> Arc<Batch> {
    let mut b = Batch::default();
    b.intake.received_at = received_at;
    b.intake.protocol = Protocol::DatadogV05;
    b.resources.push(Resource::default());
    for (trace, spans) in chunks {
        for id in *spans {
            let service = b.arena.push(&format!("service-{id}"));
            let span = Span {
                trace_id: TraceId(*trace),
                span_id: SpanId(*id),
                start: received_at,
                duration: 5,
                service,
                ..Span::default()
            };
            b.spans.push(span);
        }
    }
    b.chunk_by_trace(0, 0);
    b.chunks.iter_mut().for_each(|c| c.route = 7);
    edit(&mut b);
    Arc::new(b)
}

/// Hands a batch to the way's door and waits for the answer.
pub(crate) fn give(buffer: &Arc<Buffer>, batch: Arc<Batch>) -> Result<(), StoreError> {
    let (tell, told) = std::sync::mpsc::channel();
    Held::new(Arc::clone(buffer), 0).export(batch, Box::new(move |r| tell.send(r).unwrap()));
    told.recv().unwrap()
}

pub(crate) fn put(buffer: &Arc<Buffer>, received_at: i64, chunks: &[(u128, &[u64])]) {
    give(buffer, batch(received_at, chunks, |_| ())).unwrap();
}

/// A round that keeps traces by their ids; returns those that were judged.
pub(crate) fn round(buffer: &Buffer, now: i64, keep: impl Fn(u128) -> bool) -> Vec<Waiting> {
    let mut judged = Vec::new();
    let mut judge = |w: &Waiting, _: &dyn Fn() -> _| {
        judged.push(w.clone());
        let keep = keep(w.summary.trace_id.0);
        Ruling { keep, rule: "test".into(), rate: 0.5, spans: w.summary.spans as u32 }
    };
    buffer.round(now, &mut judge, &|| false);
    judged
}

pub(crate) fn ids(judged: &[Waiting]) -> Vec<u128> {
    judged.iter().map(|w| w.summary.trace_id.0).collect()
}

pub(crate) fn waiting(stats: &Stats) -> (u64, u64) {
    (stats.traces, stats.spans)
}
