//! Requests by where they come from, with the tags that the trace-agent puts on
//! its own metrics (datadog-agent:pkg/trace/info/stats.go). Counted once a
//! request, and only where somebody reads it.

use super::request::{self as req, Said};
use crate::server::Request;
use spanloom_model::{Batch, Chunk, PRIORITY_NONE, Protocol, keys};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Sources kept apart between two readings; what comes after is one.
const MAX: usize = 512;
/// Longest tag value, in bytes.
const VALUE_BYTES: usize = 100;
/// Priorities kept apart: -10 to 10.
const PRIORITY: i32 = 10;

/// Requests of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceCounts {
    /// Requests taken.
    pub accepted: u64,
    /// Requests for which there was no room.
    pub refused: u64,
    /// Requests whose acknowledgement did not come in time.
    pub timed_out: u64,
    /// Traces (chunks) of the requests taken.
    pub traces: u64,
    /// Their spans.
    pub spans: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Traces that tracers dropped themselves, as they say.
    pub dropped_p0_traces: u64,
    /// Spans of the same.
    pub dropped_p0_spans: u64,
    /// Traces by sampling priority; `None`: without one.
    pub priorities: HashMap<Option<i32>, u64>,
    /// Traces, as tracers claim, of requests that could not be read, by reason.
    pub dropped: HashMap<&'static str, u64>,
}

/// How a request ended.
pub(super) enum End {
    Accepted,
    Refused,
    TimedOut,
    /// Not readable, for this reason.
    Dropped(&'static str),
}

/// What a body held.
pub(super) struct Seen {
    service: String,
    traces: u64,
    spans: u64,
    bytes: u64,
    /// Chunks by priority: few ones.
    priorities: Vec<(Option<i32>, u64)>,
}

impl Seen {
    pub(super) fn new(batch: &Batch, bytes: u64) -> Self {
        let mut priorities: Vec<(Option<i32>, u64)> = Vec::new();
        for chunk in &batch.chunks {
            let priority = priority(batch, chunk);
            match priorities.iter_mut().find(|(p, _)| *p == priority) {
                Some((_, n)) => *n += 1,
                None => priorities.push((priority, 1)),
            }
        }
        Self {
            service: batch.spans.first().map_or("", |s| batch.str(s.service)).to_owned(),
            traces: batch.chunks.len() as u64,
            spans: batch.spans.len() as u64,
            bytes,
            priorities,
        }
    }
}

/// Counts requests by source. Shared by the receiver and the reader.
#[derive(Default)]
pub struct Sources {
    rows: Mutex<HashMap<String, SourceCounts, foldhash::fast::RandomState>>,
}

impl Sources {
    pub(super) fn count(&self, request: &Request, version: Protocol, seen: Option<Seen>, end: &End) {
        let service = seen.as_ref().map_or("", |s| s.service.as_str());
        let said = Said::of(&request.head.headers);
        let mut tags = tags(&said, request.conn.transport.name(), version, service);
        let flags = said.client_flags();
        let claimed = req::count(said.trace_count);
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        if rows.len() >= MAX && !rows.contains_key(&tags) {
            tags.clear();
        }
        let row = rows.entry(tags).or_default();
        match end {
            End::Accepted => row.accepted += 1,
            End::Refused => row.refused += 1,
            End::TimedOut => row.timed_out += 1,
            End::Dropped(reason) => *row.dropped.entry(reason).or_default() += claimed,
        }
        if let (Some(seen), End::Accepted) = (seen, end) {
            row.traces += seen.traces;
            row.spans += seen.spans;
            row.bytes += seen.bytes;
            row.dropped_p0_traces += flags.dropped_p0_traces;
            row.dropped_p0_spans += flags.dropped_p0_spans;
            for (priority, n) in seen.priorities {
                *row.priorities.entry(priority).or_default() += n;
            }
        }
    }

    /// What was counted since the last call, by tags joined by commas.
    pub fn take(&self) -> Vec<(String, SourceCounts)> {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *rows).into_iter().collect()
    }
}

/// The priority of a chunk: its own, or what its root says, which tracers send
/// first or last.
fn priority(batch: &Batch, chunk: &Chunk) -> Option<i32> {
    let own = Some(chunk.priority).filter(|p| *p != PRIORITY_NONE);
    let spans = batch.chunk_spans(chunk);
    let said = || {
        let ends = spans.first().into_iter().chain(spans.last());
        ends.filter_map(|s| batch.get_f64(s.attrs, keys::SAMPLING_PRIORITY)).map(|p| p as i32).next()
    };
    own.or_else(said).filter(|p| p.abs() <= PRIORITY)
}

/// The Agent's tags, in its order; without those that are empty.
fn tags(said: &Said<'_>, transport: &str, version: Protocol, service: &str) -> String {
    let name = version.name();
    let mut out = String::with_capacity(160);
    for (key, value) in [
        ("lang", said.lang),
        ("lang_version", said.lang_version),
        ("lang_vendor", said.lang_vendor),
        ("interpreter", said.interpreter),
        ("tracer_version", said.tracer_version),
        ("endpoint_version", name.strip_prefix("datadog_").unwrap_or(name)),
        ("connection_type", transport),
        ("service", service),
    ] {
        if value.is_empty() {
            continue;
        }
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(key);
        out.push(':');
        let value = value.get(..value.floor_char_boundary(VALUE_BYTES)).unwrap_or_default();
        if value.bytes().all(|b| matches!(b, b' '..=b'~') && !matches!(b, b',' | b'|' | b'#')) {
            out.push_str(value);
            continue;
        }
        // What would end a tag or a line of DogStatsD.
        out.extend(
            value.chars().map(|c| if matches!(c, ',' | '|' | '#') || c.is_control() { '_' } else { c }),
        );
    }
    out
}
