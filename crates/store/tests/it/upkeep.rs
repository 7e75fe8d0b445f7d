//! Flushing, merging, retention, and what damage costs.

use crate::support::*;
use spanloom_model::*;
use std::sync::atomic::Ordering;
use std::time::Duration;

const SECOND: i64 = 1_000_000_000;

fn put_traces(f: &Fixture, ids: std::ops::RangeInclusive<u128>) {
    for trace in ids {
        f.put(&batch(Protocol::OtlpProto, &[S { trace, start: T0 + trace as i64, ..S::default() }]));
    }
}

fn all(f: &Fixture) -> Vec<u128> {
    let mut ids = found(f.store(), &search(vec![]));
    ids.sort_unstable();
    ids
}

#[test]
fn a_flush_empties_the_log_and_the_next_start_reads_nothing_twice() {
    let mut f = Fixture::new();
    put_traces(&f, 1..=10);
    f.store().flush().unwrap();
    let stats = f.store().stats();
    assert_eq!((stats.live_spans, stats.segments, stats.spans), (0, 1, 10));
    put_traces(&f, 11..=12);
    f.reopen();
    assert_eq!((f.report.replayed_spans, f.report.segments), (2, 1));
    assert_eq!(all(&f), (1..=12).collect::<Vec<u128>>());
}

#[test]
fn live_spans_are_flushed_when_they_are_many() {
    let f = Fixture::with(|c| c.flush_spans = 4);
    put_traces(&f, 1..=10);
    // Frozen, on their way, and readable.
    assert_eq!(all(&f).len(), 10);
    f.store().flush().unwrap();
    assert_eq!(f.store().stats().segments, 3);
    assert_eq!(all(&f).len(), 10);
}

#[test]
fn small_segments_are_merged_and_their_files_go() {
    let mut f = Fixture::with(|c| c.flush_spans = 1);
    put_traces(&f, 1..=30);
    f.store().flush().unwrap();
    assert_eq!(f.store().stats().segments, 30);
    f.store().compact_now(false).unwrap();
    let segments = f.store().stats().segments;
    assert!(segments < 15, "{segments}");
    assert_eq!(files(&f.path().join("segments")).len() as u64, segments);
    assert_eq!(all(&f).len(), 30);
    f.reopen();
    assert_eq!((f.report.orphans, f.report.damage.len()), (0, 0));
    assert_eq!(all(&f).len(), 30);
}

#[test]
fn retention_by_age_goes_by_arrival_and_takes_whole_files() {
    let f = Fixture::with(|c| c.keep_for = Duration::from_secs(100));
    put_traces(&f, 1..=2);
    f.store().flush().unwrap();
    f.clock.0.fetch_add(60 * SECOND, Ordering::SeqCst);
    // A sender whose clock is years behind.
    f.put(&batch(Protocol::OtlpProto, &[S { trace: 3, start: 7, ..S::default() }]));
    f.store().flush().unwrap();
    f.store().retain_now().unwrap();
    assert_eq!(all(&f), [1, 2, 3]);
    f.clock.0.fetch_add(60 * SECOND, Ordering::SeqCst);
    f.store().retain_now().unwrap();
    assert_eq!(all(&f), [3]);
    assert_eq!(f.store().stats().expired, [("age", 2)]);
    assert_eq!(files(&f.path().join("segments")).len(), 1);
}

#[test]
fn retention_by_size_takes_the_oldest() {
    let mut f = Fixture::new();
    for i in 1..=5u128 {
        put_traces(&f, i..=i);
        f.store().flush().unwrap();
        f.clock.0.fetch_add(SECOND, Ordering::SeqCst);
    }
    let bytes = f.store().stats().disk_bytes;
    f.config.keep_bytes = bytes * 3 / 5;
    f.reopen();
    f.store().retain_now().unwrap();
    let left = all(&f);
    assert!(!left.is_empty() && left.len() < 5 && left.last() == Some(&5), "{left:?}");
    assert!(f.store().stats().disk_bytes <= f.config.keep_bytes);
    assert_eq!(f.store().stats().expired, [("size", 5 - left.len() as u64)]);
}

#[test]
fn a_damaged_segment_costs_itself_is_reported_and_set_aside() {
    let mut f = Fixture::new();
    for i in 1..=3u128 {
        put_traces(&f, i..=i);
        f.store().flush().unwrap();
    }
    let victim = files(&f.path().join("segments")).remove(0);
    f.store = None;
    let index = victim.join("index");
    let data = std::fs::read(&index).unwrap();
    std::fs::write(&index, &data[..data.len() / 2]).unwrap();
    f.reopen();
    assert_eq!(f.report.damage.len(), 1);
    assert_eq!(f.report.damage[0].file, victim);
    assert_eq!(all(&f).len(), 2);
    assert_eq!(files(&f.path().join("damaged")).len(), 1);
    f.reopen();
    assert!(f.report.damage.is_empty(), "said once: {:?}", f.report.damage);
}

#[test]
fn unfinished_files_are_deleted_at_start() {
    let mut f = Fixture::new();
    put_traces(&f, 1..=1);
    f.store().flush().unwrap();
    let home = f.path().join("segments");
    std::fs::create_dir(home.join("seg-1-2-99")).unwrap();
    std::fs::write(home.join("seg-1-2-99/spans.parquet"), b"half").unwrap();
    std::fs::create_dir(home.join(".tmp-7")).unwrap();
    f.reopen();
    assert_eq!(f.report.orphans, 2);
    assert_eq!(files(&home).len(), 1);
    assert_eq!(all(&f), [1]);
}

#[test]
fn without_its_manifest_the_store_takes_its_segments_in_again() {
    for damage in ["missing", "flipped", "empty"] {
        let mut f = Fixture::new();
        put_traces(&f, 1..=3);
        f.store().flush().unwrap();
        put_traces(&f, 4..=5);
        f.store = None;
        let path = f.path().join("MANIFEST");
        match damage {
            "missing" => std::fs::remove_file(&path).unwrap(),
            "empty" => std::fs::write(&path, b"").unwrap(),
            _ => {
                let mut data = std::fs::read(&path).unwrap();
                for b in &mut data[16..] {
                    *b ^= 0x55;
                }
                std::fs::write(&path, data).unwrap();
            }
        }
        f.reopen();
        assert_eq!(f.report.damage.len(), 1, "{damage}: {:?}", f.report.damage);
        assert_eq!(all(&f), [1, 2, 3, 4, 5], "{damage}");
        put_traces(&f, 6..=6);
        f.store().flush().unwrap();
        f.reopen();
        assert_eq!(all(&f), [1, 2, 3, 4, 5, 6], "{damage}");
        assert!(f.report.damage.is_empty());
    }
}

#[test]
fn a_flipped_byte_in_the_log_costs_its_batch() {
    let mut f = Fixture::new();
    put_traces(&f, 1..=20);
    f.store = None;
    let log = files(&f.path().join("log")).remove(0);
    let mut data = std::fs::read(&log).unwrap();
    let middle = data.len() / 2;
    data[middle] ^= 1;
    std::fs::write(&log, data).unwrap();
    f.reopen();
    assert_eq!(f.report.damage.len(), 1);
    assert_eq!(f.report.replayed_spans, 19);
    assert_eq!(all(&f).len(), 19);
}

#[test]
fn a_long_log_is_read_from_disk_rather_than_kept_in_memory() {
    let mut f = Fixture::with(|c| c.flush_spans = 1000);
    put_traces(&f, 1..=50);
    // So small that nearly all records stay in the log.
    f.config.flush_bytes = 300;
    f.reopen();
    assert_eq!(f.report.replayed_spans, 50);
    assert_eq!(all(&f).len(), 50);
    assert_eq!(spans_of(f.store(), 33), [1]);
    f.store().flush().unwrap();
    assert_eq!(all(&f).len(), 50);
    assert_eq!(f.store().stats().live_spans, 0);
}

#[test]
fn the_threads_flush_by_themselves_and_stop() {
    let mut f = Fixture::with(|c| {
        c.background = true;
        c.flush_spans = 5;
    });
    put_traces(&f, 1..=200);
    while f.store().stats().live_spans >= 5 {
        std::thread::yield_now();
    }
    assert_eq!(all(&f).len(), 200);
    f.reopen();
    assert_eq!(all(&f).len(), 200);
}

#[test]
fn a_full_memory_refuses_and_takes_again_after_a_flush() {
    let f = Fixture::with(|c| c.live_bytes = 1000);
    let mut stored = 0u128;
    let refused = loop {
        let spans = [S { trace: stored + 1, ..S::default() }];
        match put(f.store(), &batch(Protocol::OtlpProto, &spans)) {
            Ok(()) => stored += 1,
            Err(e) => break e,
        }
    };
    assert!(matches!(refused, StoreError::Busy(_)), "{refused}");
    assert_eq!(f.store().stats().refused, [("busy", 1)]);
    f.store().flush().unwrap();
    put_traces(&f, stored + 1..=stored + 1);
    assert_eq!(all(&f).len() as u128, stored + 1);
}
