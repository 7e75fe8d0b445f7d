//! What is written comes back.
#![allow(clippy::unwrap_used)] // helpers of tests

use crate::gen_spans::{Rng, batch, show};
use proptest::prelude::*;
use spanloom_model::{Batch, TraceId};
use spanloom_segment::{Segment, SegmentError, WriteOptions, write_segment};
use std::collections::BTreeSet;
use std::path::Path;

pub fn ids(batches: &[&Batch]) -> BTreeSet<TraceId> {
    batches.iter().flat_map(|b| &b.spans).map(|s| s.trace_id).collect()
}

pub fn read_all(segment: &Segment, ids: &BTreeSet<TraceId>) -> Vec<Batch> {
    ids.iter().filter_map(|id| segment.trace(*id).unwrap()).collect()
}

pub fn write(dir: &Path, id: u64, batches: &[&Batch]) -> Segment {
    let options = WriteOptions { id, sync: false, ..WriteOptions::default() };
    let meta = write_segment(dir, &options, batches).unwrap();
    let segment = Segment::open(&dir.join(&meta.name)).unwrap();
    assert_eq!(segment.meta(), &meta);
    segment
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn every_field_of_every_span_comes_back(seed: u64, most in 1u64..300, traces in 1u64..40, n in 1usize..4) {
        let dir = tempfile::tempdir().unwrap();
        let mut r = Rng(seed);
        let mut batches: Vec<Batch> = (0..n).map(|_| batch(&mut r, most, traces)).collect();
        // One request arrives twice.
        batches.push(batches[0].clone());
        let refs: Vec<&Batch> = batches.iter().collect();
        let segment = write(dir.path(), 1, &refs);
        let ids = ids(&refs);
        prop_assert_eq!(segment.meta().traces, ids.len() as u64);
        let back = read_all(&segment, &ids);
        let back: Vec<&Batch> = back.iter().collect();
        let wanted = show(&refs, false);
        prop_assert_eq!(segment.meta().spans, back.iter().map(|b| b.spans.len() as u64).sum::<u64>());
        prop_assert_eq!(show(&back, false), wanted);
        for b in &back {
            let part = segment.part(b.spans[0].trace_id).unwrap().unwrap();
            prop_assert_eq!(part.spans, b.spans.len() as u64);
            prop_assert_eq!(part.errors, b.spans.iter().filter(|s| s.is_error()).count() as u64);
            prop_assert_eq!(part.services.iter().map(|s| s.spans).sum::<u64>(), part.spans);
        }
        prop_assert!(segment.trace(TraceId(u128::MAX)).unwrap().is_none());
    }
}

#[test]
fn many_blocks_and_row_groups_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut r = Rng(7);
    let batches: Vec<Batch> = (0..40).map(|_| batch(&mut r, 400, 900)).collect();
    let refs: Vec<&Batch> = batches.iter().collect();
    let segment = write(dir.path(), 1, &refs);
    assert!(segment.meta().spans > 3000);
    let back = read_all(&segment, &ids(&refs));
    let back: Vec<&Batch> = back.iter().collect();
    assert!(show(&back, false) == show(&refs, false));
}

#[test]
fn nothing_is_not_a_segment() {
    let dir = tempfile::tempdir().unwrap();
    let result = write_segment(dir.path(), &WriteOptions::default(), &[&Batch::default()]);
    assert!(matches!(result, Err(SegmentError::Empty)));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
