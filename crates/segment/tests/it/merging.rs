//! A merge loses nothing and doubles nothing.
#![allow(clippy::unwrap_used)] // helpers of tests

use crate::gen_spans::{Rng, batch, show};
use crate::roundtrip::{ids, read_all, write};
use crate::search::scan;
use proptest::prelude::*;
use spanloom_model::{Batch, Cond, Expr, Search};
use spanloom_segment::{Segment, SegmentError, WriteOptions, merge};
use std::collections::BTreeMap;

const QUICK: WriteOptions = WriteOptions { id: 99, level: 1, sync: false };

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn a_merge_holds_what_its_inputs_hold(seed: u64, most in 1u64..300, traces in 1u64..60, n in 1usize..5) {
        let dir = tempfile::tempdir().unwrap();
        let mut r = Rng(seed);
        let mut batches: Vec<Batch> = (0..n).map(|_| batch(&mut r, most, traces)).collect();
        batches.push(batches[0].clone());
        let segments: Vec<Segment> =
            batches.iter().enumerate().map(|(i, b)| write(dir.path(), i as u64, &[b])).collect();
        let inputs: Vec<&Segment> = segments.iter().collect();
        let refs: Vec<&Batch> = batches.iter().collect();
        let ids = ids(&refs);
        let meta = merge(dir.path(), &inputs, &QUICK, &|_| false).unwrap();
        let merged = Segment::open(&dir.path().join(&meta.name)).unwrap();
        let back = read_all(&merged, &ids);
        let back: Vec<&Batch> = back.iter().collect();
        prop_assert_eq!(show(&back, false), show(&refs, false));
        prop_assert_eq!(meta.spans, back.iter().map(|b| b.spans.len() as u64).sum::<u64>());
        prop_assert_eq!(meta.traces, ids.len() as u64);
        // The same spans written at once make the same trace table.
        let whole = write(dir.path(), 100, &refs);
        for id in &ids {
            prop_assert_eq!(merged.part(*id).unwrap(), whole.part(*id).unwrap());
        }
        prop_assert_eq!(merged.operations().unwrap(), whole.operations().unwrap());
        prop_assert_eq!(merged.attribute_keys().unwrap(), whole.attribute_keys().unwrap());
        let search = Search { each: vec![Expr::Is(Cond::Error(true)), Expr::Is(Cond::Root)], ..Search::default() };
        let hits = merged.hits(&search, None).unwrap();
        let found: BTreeMap<_, _> = hits.iter().map(|h| (h.trace_id, (h.mask, h.start))).collect();
        prop_assert_eq!(found, scan(&refs, &search));
    }
}

#[test]
fn dropped_traces_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut r = Rng(3);
    let (a, b) = (batch(&mut r, 300, 20), batch(&mut r, 300, 20));
    let segments = [write(dir.path(), 1, &[&a]), write(dir.path(), 2, &[&b])];
    let inputs = [&segments[0], &segments[1]];
    let ids = ids(&[&a, &b]);
    let gone = *ids.first().unwrap();
    let meta = merge(dir.path(), &inputs, &QUICK, &|id| id == gone).unwrap();
    let merged = Segment::open(&dir.path().join(&meta.name)).unwrap();
    assert!(merged.trace(gone).unwrap().is_none());
    assert_eq!(read_all(&merged, &ids).len(), ids.len() - 1);
    let nothing = merge(dir.path(), &inputs, &WriteOptions { id: 7, ..QUICK }, &|_| true);
    assert!(matches!(nothing, Err(SegmentError::Empty)));
}
