//! The seam to any store: what can be written and what can be asked.

use crate::{AttrScope, Batch, Cond, Expr, SpanKind, TraceId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Why a store could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Bounds are reached; the same call may succeed a little later.
    #[error("the store is full for now: {0}")]
    Busy(String),
    /// The disk refused, or is below its floor.
    #[error("the store cannot write: {0}")]
    Write(String),
    /// A file could not be read; the answer would be incomplete.
    #[error("the store cannot read: {0}")]
    Read(String),
    /// The question itself exceeds a limit.
    #[error("the query is too large: {0}")]
    TooLarge(String),
    /// The store is being closed.
    #[error("the store is closing")]
    Closed,
}

/// Called once, when the fate of a written batch is known: `Ok` under the
/// configured acknowledgement policy, or why not.
pub type AckFn = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// Takes spans in.
pub trait SpanWriter: Send + Sync {
    /// Takes the spans of all chunks whose fate is [`crate::Fate::Kept`].
    /// Returns quickly; `done` is called exactly once, from another thread or
    /// before returning. Identical spans that arrive again are stored once.
    fn append(&self, batch: Arc<Batch>, done: AckFn);
}

/// Half-open time range, nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    /// From, inclusive.
    pub start: i64,
    /// To, inclusive (clients mean it so).
    pub end: i64,
}

impl TimeRange {
    /// All of time.
    pub const ALL: Self = Self { start: i64::MIN, end: i64::MAX };
    /// Whether the moment lies in the range.
    pub const fn contains(self, t: i64) -> bool {
        self.start <= t && t <= self.end
    }
}

/// What the window of a search applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WindowOn {
    /// The start of each matching span (Jaeger).
    #[default]
    SpanStart,
    /// The start of the root, or the earliest start if no root arrived; traces
    /// without any start never match (Zipkin).
    TraceStart,
}

/// Place after which a further page begins: results are ordered newest first
/// by trace start, ties by trace id ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Start of the last trace of the page before.
    pub start: i64,
    /// Its id.
    pub trace_id: TraceId,
}

/// A search for traces.
#[derive(Clone, Debug)]
pub struct Search {
    /// Each must be met by some span of the trace; one entry is the ordinary
    /// case (all conditions on one span).
    pub each: Vec<Expr>,
    /// Window.
    pub window: TimeRange,
    /// What the window applies to.
    pub window_on: WindowOn,
    /// Most traces to return.
    pub limit: usize,
    /// Where to go on.
    pub after: Option<Cursor>,
}

impl Default for Search {
    fn default() -> Self {
        Self {
            each: Vec::new(),
            window: TimeRange::ALL,
            window_on: WindowOn::SpanStart,
            limit: 20,
            after: None,
        }
    }
}

/// Spans of one service in a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCount {
    /// Service name.
    pub name: String,
    /// Its spans.
    pub spans: u64,
    /// Its failed spans.
    pub errors: u64,
}

/// A trace in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceSummary {
    /// Id.
    pub trace_id: TraceId,
    /// Service of the root span; empty if no root arrived.
    pub root_service: String,
    /// Name of the root span; empty if no root arrived.
    pub root_name: String,
    /// Datadog resource of the root span; empty for other protocols.
    pub root_resource: String,
    /// Earliest start, nanoseconds.
    pub start: i64,
    /// Latest end, nanoseconds.
    pub end: i64,
    /// All spans.
    pub spans: u64,
    /// Failed spans.
    pub errors: u64,
    /// Spans whose parent did not arrive.
    pub orphans: u64,
    /// Per service, by name.
    pub services: Vec<ServiceCount>,
}

/// An operation of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Operation {
    /// Span name (a Datadog operation; its resources are found by [`crate::Cond::Name`] too).
    pub name: String,
    /// Role.
    pub kind: SpanKind,
}

/// Calls from one service to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// Caller.
    pub parent: String,
    /// Callee.
    pub child: String,
    /// Calls.
    pub calls: u64,
    /// Failed calls.
    pub errors: u64,
    /// Further calls: a span of one service below a span of another where
    /// neither role nor remote name tells of a call. Jaeger counts them,
    /// Zipkin does not.
    pub implied: u64,
}

/// An attribute key that occurs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttrKey {
    /// Key.
    pub key: String,
    /// Found on the resource rather than on the span.
    pub resource: bool,
}

/// Answers questions. Calls block; callers put them on a thread that may.
pub trait SpanReader: Send + Sync {
    /// Names of services that have spans, sorted.
    fn services(&self) -> Result<Vec<String>, StoreError>;
    /// Operations of a service (of all services if empty), sorted.
    fn operations(&self, service: &str) -> Result<Vec<Operation>, StoreError>;
    /// All spans of a trace, oldest first, as one batch with one chunk per
    /// resource; `None` if there are none. `hint` may exclude files.
    fn trace(&self, id: TraceId, hint: TimeRange) -> Result<Option<Batch>, StoreError>;
    /// Traces that meet the search, newest first.
    fn search(&self, search: &Search) -> Result<Vec<TraceSummary>, StoreError>;
    /// Calls between services of spans that start in the range, by caller and
    /// callee, as [`crate::Links`] reads them off whole traces.
    fn dependencies(&self, range: TimeRange) -> Result<Vec<Dependency>, StoreError>;
    /// Attribute keys that occur, sorted.
    fn attribute_keys(&self) -> Result<Vec<AttrKey>, StoreError>;
    /// Up to `limit` values of a key, printed as text, sorted.
    fn attribute_values(&self, key: &str, limit: usize) -> Result<Vec<String>, StoreError>;
    /// Up to `limit` values of a key on spans that meet the condition, printed
    /// as text, sorted. Unless a store knows better, the values are those of
    /// the newest thousand such traces.
    fn attribute_values_where(&self, key: &str, on: &Expr, limit: usize) -> Result<Vec<String>, StoreError> {
        let has = Expr::Is(Cond::HasAttr { scope: AttrScope::SpanOrResource, key: key.to_owned() });
        let wanted = Expr::all(vec![on.clone(), has]);
        let search = Search { each: vec![wanted.clone()], limit: 1000, ..Search::default() };
        let mut values = BTreeSet::new();
        for found in self.search(&search)? {
            let Some(trace) = self.trace(found.trace_id, TimeRange::ALL)? else { continue };
            for chunk in &trace.chunks {
                let resource = trace.resources.get(chunk.resource as usize);
                for span in trace.chunk_spans(chunk) {
                    if wanted.matches(&trace, span, resource) {
                        let of_span = trace.get(span.attrs, key);
                        let value = of_span.or_else(|| resource.and_then(|r| trace.get(r.attrs, key)));
                        values.extend(value.and_then(|v| trace.scalar(v)));
                    }
                }
            }
            if values.len() >= limit {
                break;
            }
        }
        Ok(values.into_iter().take(limit).collect())
    }
}
