//! Figures and the report of the start.

use crate::source::Source;
use crate::store::{Core, lock};
use spanloom_model::StoreError;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// Damage found at start. The store works without what was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file or directory.
    pub file: PathBuf,
    /// What is wrong and what it cost.
    pub what: String,
}

/// What opening the store found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Spans read from the log.
    pub replayed_spans: u64,
    /// Files of the log.
    pub log_files: u64,
    /// Their bytes.
    pub log_bytes: u64,
    /// Segments opened.
    pub segments: u64,
    /// Directories deleted because no manifest knew them: unfinished work.
    pub orphans: u64,
    /// Damaged files.
    pub damage: Vec<Damage>,
}

/// Figures of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Spans held. A span that was sent again and recognised only later counts
    /// until a merge has removed it.
    pub spans: u64,
    /// Traces held; one that lies in several places counts in each.
    pub traces: u64,
    /// Bytes of segments and log.
    pub disk_bytes: u64,
    /// Bytes of live records.
    pub live_bytes: u64,
    /// Live spans.
    pub live_spans: u64,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Segments.
    pub segments: u64,
    /// Earliest start held, nanoseconds.
    pub oldest: Option<i64>,
    /// Latest start held.
    pub newest: Option<i64>,
    /// Spans stored since the start.
    pub stored: u64,
    /// Spans recognised as sent again since the start.
    pub duplicates: u64,
    /// Spans refused since the start, by reason.
    pub refused: Vec<(&'static str, u64)>,
    /// Spans deleted by retention since the start, by reason.
    pub expired: Vec<(&'static str, u64)>,
    /// Traces that rules have dropped and that are not removed yet.
    pub dropped_traces: u64,
    /// Their spans; they count among [`StoreStats::spans`].
    pub dropped_spans: u64,
    /// Dropped traces removed since the start.
    pub removed_traces: u64,
    /// Their spans.
    pub removed_spans: u64,
    /// Failed writes of the log, flushes and merges since the start.
    pub failures: u64,
    /// Text of the last failure.
    pub last_failure: Option<String>,
    /// What opening found.
    pub recovery: RecoveryReport,
}

const REASONS: [&str; 5] = ["busy", "write", "too_large", "closing", "read"];

#[derive(Default)]
pub(crate) struct Counters {
    stored: AtomicU64,
    duplicates: AtomicU64,
    refused: [AtomicU64; 5],
    pub expired_age: AtomicU64,
    pub expired_size: AtomicU64,
    removed_traces: AtomicU64,
    removed_spans: AtomicU64,
    failures: AtomicU64,
    last_failure: std::sync::Mutex<Option<String>>,
}

impl Counters {
    pub fn stored(&self, spans: u64) {
        self.stored.fetch_add(spans, Ordering::Relaxed);
    }
    pub fn duplicates(&self, spans: u64) {
        self.duplicates.fetch_add(spans, Ordering::Relaxed);
    }
    pub fn refused(&self, error: &StoreError, spans: u64) {
        let n = match error {
            StoreError::Busy(_) => 0,
            StoreError::Write(_) => 1,
            StoreError::TooLarge(_) => 2,
            StoreError::Closed => 3,
            StoreError::Read(_) => 4,
        };
        self.refused[n].fetch_add(spans, Ordering::Relaxed);
    }
    pub fn tail_removed(&self, traces: u64, spans: u64) {
        self.removed_traces.fetch_add(traces, Ordering::Relaxed);
        self.removed_spans.fetch_add(spans, Ordering::Relaxed);
    }
    pub fn log_failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
    pub fn failed(&self, error: &StoreError) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        *lock(&self.last_failure) = Some(error.to_string());
    }
}

pub(crate) fn collect(core: &Core) -> StoreStats {
    let contents = core.contents();
    let log = core.journal.stats();
    let c = &core.counters;
    let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
    let mut stats = StoreStats {
        log_bytes: log.bytes,
        disk_bytes: log.bytes,
        segments: contents.segments.len() as u64,
        stored: get(&c.stored),
        duplicates: get(&c.duplicates),
        refused: REASONS.iter().zip(&c.refused).map(|(r, n)| (*r, get(n))).filter(|(_, n)| *n > 0).collect(),
        expired: [("age", get(&c.expired_age)), ("size", get(&c.expired_size))]
            .into_iter()
            .filter(|(_, n)| *n > 0)
            .collect(),
        removed_traces: get(&c.removed_traces),
        removed_spans: get(&c.removed_spans),
        failures: get(&c.failures),
        last_failure: lock(&c.last_failure).clone(),
        recovery: core.report.clone(),
        ..StoreStats::default()
    };
    let mut range = |r: Option<(i64, i64)>| {
        if let Some((min, max)) = r {
            stats.oldest = Some(stats.oldest.map_or(min, |o| o.min(min)));
            stats.newest = Some(stats.newest.map_or(max, |n| n.max(max)));
        }
    };
    contents.frozen.iter().chain([&contents.active]).for_each(|g| range(g.range()));
    contents.segments.iter().for_each(|s| range(s.range()));
    for g in contents.frozen.iter().chain([&contents.active]) {
        let size = g.size();
        stats.live_bytes += size.bytes;
        stats.live_spans += size.spans;
        stats.spans += size.spans;
        stats.traces += size.traces;
    }
    for s in &contents.segments {
        stats.spans += s.spans;
        stats.traces += s.traces;
        stats.disk_bytes += s.bytes;
        let drops = lock(&s.drops);
        stats.dropped_traces += drops.traces;
        stats.dropped_spans += drops.spans;
    }
    stats
}
