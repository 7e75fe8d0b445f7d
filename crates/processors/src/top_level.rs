//! Top-level spans: those that a service was entered by.
//!
//! Source: `datadog-agent:pkg/trace/traceutil/trace.go`.

use crate::SpanIds;
use spanloom_model::{Batch, Chunk, Range32, keys, same_bytes};

/// Marks the top-level spans of a chunk with `_top_level = 1`: a root, a span
/// whose parent is not in the chunk, or whose parent belongs to another
/// service. A mark that a client set on another span stays (observed). `ids`
/// are the chunk's.
pub fn compute(batch: &mut Batch, chunk: &Chunk, ids: &SpanIds) {
    for i in chunk.spans.usize() {
        let span = &batch.spans[i];
        let other_service = |parent: usize| {
            let (own, parents) = (span.service, batch.spans[parent].service);
            own != parents && !same_bytes(batch.arena.bytes(own), batch.arena.bytes(parents))
        };
        let top = span.parent_id.is_zero() || ids.position(batch, span.parent_id).is_none_or(other_service);
        if top {
            batch.set_f64(i, keys::TOP_LEVEL, 1.0);
        }
    }
}

/// Trusts the client: `_dd.top_level` becomes `_top_level`.
pub fn copy_from_client(batch: &mut Batch, chunk: &Chunk) {
    for i in chunk.spans.usize() {
        if batch.span_f64(&batch.spans[i], keys::DD_TOP_LEVEL) == Some(1.0) {
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
