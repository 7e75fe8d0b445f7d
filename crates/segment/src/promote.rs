//! Which attributes get a column of their own.
//!
//! Attributes that hardly vary, or vary together, are cheapest as one set per
//! span: a set is written once in a dictionary, a span costs one code. An
//! attribute whose values would multiply the sets gets its own column.

use crate::json::Type;
use spanloom_model::{Batch, Span, Value};
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;

/// Most columns that one input of spans gets.
const MAX_PROMOTED: usize = 32;
/// Sets may be this many, or one for so many spans.
const MIN_SETS: usize = 256;
const SPANS_PER_SET: usize = 16;

#[derive(Default)]
struct Seen {
    /// (position of the span in the sample, hash of the value)
    rows: Vec<(u32, u64)>,
    distinct: HashSet<u64, foldhash::fast::RandomState>,
}

/// The keys and types to promote, judged by a sample of spans.
pub(crate) fn choose(sample: &[(&Batch, &Span)]) -> Vec<(String, Type)> {
    let hasher = foldhash::fast::FixedState::default();
    let mut seen: HashMap<(&str, Type), Seen, foldhash::fast::RandomState> = HashMap::default();
    for (i, (batch, span)) in sample.iter().enumerate() {
        for a in batch.attrs(span.attrs) {
            let kind = Type::of(&a.value);
            let hash = match a.value {
                Value::Str(t) => hasher.hash_one(batch.str(t)),
                Value::Int(v) => hasher.hash_one(v),
                Value::Double(v) => hasher.hash_one(v.to_bits()),
                _ => continue,
            };
            // A set does not hold the upper half of the trace id.
            if a.value.as_text().is_some_and(|t| crate::prepare::is_trace_high(span, batch.arena.bytes(t))) {
                continue;
            }
            let entry = seen.entry((batch.str(a.key), kind)).or_default();
            entry.rows.push((i as u32, hash));
            entry.distinct.insert(hash);
        }
    }
    let mut list: Vec<_> = seen.into_iter().filter(|(_, s)| s.distinct.len() > 1).collect();
    list.sort_by(|a, b| (a.1.distinct.len(), a.0).cmp(&(b.1.distinct.len(), b.0)));
    let most = MIN_SETS.max(sample.len() / SPANS_PER_SET);
    let mut sets = vec![0u32; sample.len()];
    let mut chosen = Vec::new();
    for ((key, kind), s) in &list {
        let noise = s.rows.len() >= 16 && s.distinct.len() * 2 > s.rows.len();
        if !noise {
            let mut values = vec![0u64; sample.len()];
            for (row, hash) in &s.rows {
                values[*row as usize] = *hash | 1;
            }
            let mut numbers: HashMap<(u32, u64), u32, foldhash::fast::RandomState> = HashMap::default();
            let mut next = Vec::with_capacity(sets.len());
            for (set, value) in sets.iter().zip(&values) {
                let n = numbers.len() as u32;
                next.push(*numbers.entry((*set, *value)).or_insert(n));
            }
            if numbers.len() <= most {
                sets = next;
                continue;
            }
        }
        chosen.push((s.rows.len(), key.to_string(), *kind));
    }
    chosen.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| (&a.1, a.2).cmp(&(&b.1, b.2))));
    chosen.truncate(MAX_PROMOTED);
    chosen.into_iter().map(|(_, key, kind)| (key, kind)).collect()
}
