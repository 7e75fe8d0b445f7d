//! What a search and a read need of anything that holds spans: live spans and
//! segments answer the same questions, so they are asked by the same code.

use spanloom_model::{Batch, Operation, Search, ServiceCount, StoreError, TraceId, TraceSummary};
use std::collections::{BTreeMap, BTreeSet};

/// A trace of which some span meets some condition of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hit {
    /// The trace.
    pub trace_id: TraceId,
    /// Which entries of [`Search::each`] are met.
    pub mask: u64,
    /// Not earlier than the trace's start: the earliest start known here.
    pub start: i64,
}

/// The root span of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    pub service: String,
    pub name: String,
    pub resource: String,
    pub start: Option<i64>,
}

/// What one source holds of a trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub spans: u64,
    pub errors: u64,
    pub orphans: u64,
    /// Earliest start of the spans that have one.
    pub start: Option<i64>,
    /// Latest end of these.
    pub end: i64,
    pub root: Option<Root>,
    /// Sorted by name.
    pub services: Vec<ServiceCount>,
}

impl Part {
    pub fn summary(self, trace_id: TraceId) -> TraceSummary {
        let root = self.root.unwrap_or(Root {
            service: String::new(),
            name: String::new(),
            resource: String::new(),
            start: None,
        });
        TraceSummary {
            trace_id,
            root_service: root.service,
            root_name: root.name,
            root_resource: root.resource,
            start: self.start.unwrap_or(0),
            end: self.end,
            spans: self.spans,
            errors: self.errors,
            orphans: self.orphans,
            services: self.services,
        }
    }
}

/// Services with their operations.
pub(crate) type Names = BTreeMap<String, BTreeSet<Operation>>;

/// A search of one source in progress.
pub(crate) trait Scan {
    /// The next hits, and a time: a trace that meets an entry with a span not
    /// reported so far starts no later here. The time falls from step to step,
    /// so that the newest traces are found without looking at all. `None` at
    /// the end.
    fn next(&mut self) -> Result<Option<(Vec<Hit>, i64)>, StoreError>;
}

/// Something that holds spans.
pub(crate) trait Source: Send + Sync {
    /// Earliest and latest start of its spans; spans without a start count as
    /// unbounded. `None` if it is empty.
    fn range(&self) -> Option<(i64, i64)>;
    /// Begins to look for traces with spans that meet entries of `search.each`
    /// (and, under [`spanloom_model::WindowOn::SpanStart`], lie in the window).
    fn scan<'a>(&'a self, search: &'a Search) -> Box<dyn Scan + 'a>;
    /// Earliest start of a trace here (`None` inside: no span has a start).
    fn start(&self, id: TraceId) -> Result<Option<Option<i64>>, StoreError>;
    /// What is here of a trace, in figures.
    fn part(&self, id: TraceId) -> Result<Option<Part>, StoreError>;
    /// The spans of a trace.
    fn trace(&self, id: TraceId) -> Result<Option<Batch>, StoreError>;
    /// Adds the names of services.
    fn services(&self, into: &mut BTreeSet<String>) -> Result<(), StoreError>;
    /// Adds services and operations.
    fn names(&self, into: &mut Names) -> Result<(), StoreError>;
    /// Adds attribute keys; true for those of resources.
    fn keys(&self, into: &mut BTreeSet<(String, bool)>) -> Result<(), StoreError>;
    /// Adds values of a key; only the first `limit` in order need be there.
    fn values(&self, key: &str, limit: usize, into: &mut BTreeSet<String>) -> Result<(), StoreError>;
    /// Calls `each` with the traces that have spans starting in the range.
    fn trace_ids(
        &self,
        range: spanloom_model::TimeRange,
        each: &mut dyn FnMut(TraceId),
    ) -> Result<(), StoreError>;
}
