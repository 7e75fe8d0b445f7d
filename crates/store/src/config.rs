//! Settings of the store, and the clock.

use spanloom_journal::{Fault, SyncPolicy};
use spanloom_model::Protocol;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Tells the time. Retention, flushing by age and the memory of recent ids
/// depend on it; tests turn it by hand.
pub trait Clock: Send + Sync {
    /// Nanoseconds since the Unix epoch.
    fn now(&self) -> i64;
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    }
}

/// Settings. Bounds are bytes or spans; what exceeds them is refused and
/// counted, never dropped in silence.
#[derive(Clone)]
pub struct Config {
    /// When an append is acknowledged: after write(2), or after the group
    /// commit is on disk.
    pub ack: SyncPolicy,
    /// Longest time between a write to the log and its sync.
    pub sync_after: Duration,
    /// Live spans are written to a segment at this number …
    pub flush_spans: u64,
    /// … or this size of their records …
    pub flush_bytes: u64,
    /// … or this long after the first of them.
    pub flush_age: Duration,
    /// Bound of all records not yet in a segment; beyond it appends are
    /// refused as busy.
    pub live_bytes: u64,
    /// Bound of the log's files.
    pub log_bytes: u64,
    /// Bound of the decoded parts of segments that are kept in memory.
    pub cache_bytes: usize,
    /// Fingerprints of recent spans that are remembered, to recognise what a
    /// client sends again. Twice as many are kept at most.
    pub recent_spans: usize,
    /// Recent trace ids that are remembered, to join 64-bit halves.
    pub recent_traces: usize,
    /// How long such a trace id is remembered.
    pub recent_for: Duration,
    /// Segments whose newest spans arrived longer ago than this are deleted;
    /// zero keeps them for ever.
    pub keep_for: Duration,
    /// The oldest segments are deleted when all take more bytes; 0 is no bound.
    pub keep_bytes: u64,
    /// Appends are refused while the file system has less room than this.
    pub disk_floor: u64,
    /// Traces are judged by [`crate::Store::decide`]: segments are merged only
    /// after that.
    pub decide: bool,
    /// How long a dropped trace is not removed, so that it can be kept after all.
    pub undrop_for: Duration,
    /// Threads of the store's own for flushing, compaction and retention. Off,
    /// only the calls of [`crate::Store`] do it: for tests.
    pub background: bool,
    /// Told how many spans of an append were recognised as sent again.
    pub on_duplicates: Option<Arc<dyn Fn(Protocol, u64) + Send + Sync>>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Bytes free at the data directory instead of asking the system: for tests.
    pub free_bytes: Option<Arc<dyn Fn() -> u64 + Send + Sync>>,
    /// Failures of the log: for tests.
    pub log_fault: Option<Fault>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ack: SyncPolicy::Interval,
            sync_after: Duration::from_millis(50),
            flush_spans: 64 << 10,
            flush_bytes: 16 << 20,
            flush_age: Duration::from_secs(60),
            live_bytes: 64 << 20,
            log_bytes: 1 << 30,
            cache_bytes: 24 << 20,
            recent_spans: 200_000,
            recent_traces: 50_000,
            recent_for: Duration::from_secs(600),
            keep_for: Duration::from_secs(14 * 24 * 3600),
            keep_bytes: 0,
            disk_floor: 1 << 30,
            decide: false,
            undrop_for: Duration::from_secs(600),
            background: true,
            on_duplicates: None,
            clock: Arc::new(SystemClock),
            free_bytes: None,
            log_fault: None,
        }
    }
}
