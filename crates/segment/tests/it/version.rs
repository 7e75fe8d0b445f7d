//! Segments written by earlier versions stay readable.
#![allow(clippy::unwrap_used)] // helpers of tests

use crate::gen_spans::{Rng, batch, show};
use spanloom_model::{Batch, TraceId};
use spanloom_segment::{Segment, SegmentError, WriteOptions, write_segment};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

/// Writes `tests/data/v2`. Only ever to be run (with `--ignored`) for a
/// version that has not been released.
#[test]
#[ignore = "writes the checked-in segment"]
fn write_the_checked_in_segment() {
    let dir = data().join("v2");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    let b = (2026..)
        .map(|seed| batch(&mut Rng(seed), 120, 9))
        .find(|b| (40..100).contains(&b.spans.len()) && b.arena.size() < 60_000)
        .unwrap();
    write_segment(&dir, &WriteOptions { id: 0x2026, ..WriteOptions::default() }, &[&b]).unwrap();
    std::fs::write(dir.join("spans.txt"), show(&[&b], false).join("\n") + "\n").unwrap();
}

#[test]
fn every_version_is_read_and_searched() {
    for version in 1..=2 {
        is_read(version);
    }
}

fn is_read(version: u32) {
    let dir = data().join(format!("v{version}"));
    let golden = std::fs::read_to_string(dir.join("spans.txt")).unwrap();
    let name = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).find(|p| p.is_dir()).unwrap();
    let segment = Segment::open(&name).unwrap();
    assert_eq!(segment.meta().version, version);
    assert_eq!(segment.meta().id, 0x2026);
    let mut ids: Vec<TraceId> =
        golden.lines().map(|l| TraceId::parse_hex(l.split(' ').next().unwrap()).unwrap()).collect();
    ids.dedup();
    let back: Vec<Batch> = ids.iter().map(|id| segment.trace(*id).unwrap().unwrap()).collect();
    let back: Vec<&Batch> = back.iter().collect();
    assert_eq!(show(&back, false), golden.lines().map(str::to_owned).collect::<Vec<_>>());
    assert!(!segment.attribute_keys().unwrap().is_empty());
    let names = segment.operations().unwrap();
    assert_eq!(segment.services().unwrap(), names.keys().cloned().collect::<Vec<_>>());
    let mut r = Rng(u64::from(version));
    for _ in 0..300 {
        let search = crate::search::search(&mut r);
        let found: BTreeMap<TraceId, (u64, i64)> =
            segment.hits(&search, None).unwrap().iter().map(|h| (h.trace_id, (h.mask, h.start))).collect();
        assert_eq!(found, crate::search::scan(&back, &search), "{search:?}");
    }
    // Merged, it becomes one of this version.
    let temp = tempfile::tempdir().unwrap();
    let options = WriteOptions { sync: false, ..WriteOptions::default() };
    let merged = spanloom_segment::merge(temp.path(), &[&segment], &options, &|_| false).unwrap();
    let merged = Segment::open(&temp.path().join(&merged.name)).unwrap();
    let again: Vec<Batch> = ids.iter().map(|id| merged.trace(*id).unwrap().unwrap()).collect();
    assert_eq!(show(&again.iter().collect::<Vec<_>>(), false), show(&back, false));
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let b = batch(&mut Rng(1), 20, 3);
    let path = crate::roundtrip::write(dir.path(), 1, &[&b]).path().join("index");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - 12;
    bytes[at] = 9;
    std::fs::write(&path, bytes).unwrap();
    let error = Segment::open(path.parent().unwrap()).unwrap_err();
    assert!(matches!(error, SegmentError::Version { found: 9, .. }), "{error}");
}
