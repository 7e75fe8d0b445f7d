//! Span ids whose bytes came in the wrong order.
//!
//! Envoy's Zipkin tracer writes the ids of spans into protobuf (`HTTP_PROTO`)
//! in the byte order of its processor, which on x86 and ARM is the wrong one;
//! the headers it hands on and the trace ids are right. So its spans do not
//! know their callers from other programs, nor are known by those they call.
//! A request does not say that it is such a one; but of the spans of one
//! trace, two ids that are the same with their bytes turned around cannot be
//! so by chance.

use spanloom_model::{Span, SpanId, flags};
use std::collections::HashMap;

/// Joins the spans of one trace over ids that are turned around: a parent that
/// is not there, and a shared half without its other half, are looked for
/// under the turned id. Nothing else changes.
pub(crate) fn join(spans: &mut [Span]) {
    if !spans.iter().any(|s| s.flags & flags::FROM_ZIPKIN != 0) {
        return;
    }
    let mut count: HashMap<SpanId, usize> = HashMap::with_capacity(spans.len());
    for span in spans.iter() {
        *count.entry(span.span_id).or_default() += 1;
    }
    for span in spans.iter_mut().filter(|s| s.flags & flags::SHARED != 0) {
        let (id, other) = (span.span_id, turned(span.span_id));
        if count.get(&id) == Some(&1) && count.contains_key(&other) {
            span.span_id = other;
            count.remove(&id);
        }
    }
    for span in spans.iter_mut().filter(|s| !s.parent_id.is_zero()) {
        let other = turned(span.parent_id);
        if !count.contains_key(&span.parent_id) && count.contains_key(&other) && other != span.span_id {
            span.parent_id = other;
        }
    }
}

fn turned(id: SpanId) -> SpanId {
    SpanId(id.0.swap_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(spans: &[(u64, u64, u64)]) -> Vec<(u64, u64)> {
        let make = |&(id, parent, flags)| Span {
            span_id: SpanId(id),
            parent_id: SpanId(parent),
            flags,
            ..Span::default()
        };
        let mut spans: Vec<Span> = spans.iter().map(make).collect();
        join(&mut spans);
        spans.iter().map(|s| (s.span_id.0, s.parent_id.0)).collect()
    }

    const fn turn(id: u64) -> u64 {
        id.swap_bytes()
    }

    #[test]
    fn parents_are_found_under_the_turned_id_in_both_directions() {
        // A caller, Envoy's two spans, what they call.
        let envoy = flags::FROM_ZIPKIN;
        let spans = [(1, 0, 0), (turn(2), turn(1), envoy), (turn(3), turn(2), envoy), (4, 3, 0)];
        assert_eq!(joined(&spans), [(1, 0), (turn(2), 1), (turn(3), turn(2)), (4, turn(3))]);
    }

    #[test]
    fn a_shared_half_finds_its_other_half() {
        let half = flags::FROM_ZIPKIN | flags::SHARED;
        let spans = [(1, 0, 0), (2, 1, 0), (turn(2), turn(1), half), (3, turn(2), 0), (4, 2, 0)];
        assert_eq!(joined(&spans), [(1, 0), (2, 1), (2, 1), (3, 2), (4, 2)]);
    }

    #[test]
    fn what_is_there_or_nowhere_stays_as_it_is() {
        let z = flags::FROM_ZIPKIN;
        for spans in [
            // Both orders are there.
            &[(1, 0, z), (turn(1), 0, z), (5, turn(1), z)][..],
            // Neither.
            &[(1, 0, z), (5, 7, z)],
            // Only the span itself.
            &[(5, turn(5), z)],
            // A shared half among itself.
            &[(1, 0, z | flags::SHARED), (1, 0, z)],
            // No Zipkin span.
            &[(1, 0, 0), (5, turn(1), 0)],
        ] {
            let before: Vec<_> = spans.iter().map(|s| (s.0, s.1)).collect();
            assert_eq!(joined(spans), before);
        }
    }
}
