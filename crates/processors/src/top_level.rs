//! Top-level spans: those that a service was entered by.
//!
//! Source: `datadog-agent:pkg/trace/traceutil/trace.go`.

use spanloom_model::{Batch, Chunk, Range32, keys};
use std::collections::HashMap;

/// Marks the top-level spans of a chunk with `_top_level = 1`: a root, a span
/// whose parent is not in the chunk, or whose parent belongs to another
/// service. A mark that a client set on another span stays (observed).
pub fn compute(batch: &mut Batch, chunk: &Chunk) {
    let range = chunk.spans.usize();
    // Last one wins for duplicate ids, as a map would have it.
    let by_id: HashMap<u64, usize> = range.clone().map(|i| (batch.spans[i].span_id.0, i)).collect();
    for i in range {
        let span = batch.spans[i];
        let top = span.parent_id.is_zero()
            || by_id.get(&span.parent_id.0).is_none_or(|p| {
                batch.arena.bytes(batch.spans[*p].service) != batch.arena.bytes(span.service)
            });
        if top {
            batch.set_f64(i, keys::TOP_LEVEL, 1.0);
        }
    }
}

/// Trusts the client: `_dd.top_level` becomes `_top_level`.
pub fn copy_from_client(batch: &mut Batch, chunk: &Chunk) {
    for i in chunk.spans.usize() {
        if batch.get_f64(batch.spans[i].attrs, keys::DD_TOP_LEVEL) == Some(1.0) {
            batch.set_f64(i, keys::TOP_LEVEL, 1.0);
        }
    }
}

/// Whether the attributes mark a top-level span.
pub fn is_top_level(batch: &Batch, attrs: Range32) -> bool {
    [keys::TOP_LEVEL, keys::DD_TOP_LEVEL].iter().any(|k| batch.get_f64(attrs, k) == Some(1.0))
}

/// Whether the attributes ask for statistics of the span.
pub fn is_measured(batch: &Batch, attrs: Range32) -> bool {
    batch.get_f64(attrs, keys::MEASURED) == Some(1.0)
}

/// Whether the span is a snapshot of an unfinished one.
pub fn is_partial(batch: &Batch, attrs: Range32) -> bool {
    batch.get_f64(attrs, keys::PARTIAL_VERSION).is_some_and(|v| v >= 0.0)
}
