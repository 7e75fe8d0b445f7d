//! The log of decisions through its public door.
#![allow(clippy::unwrap_used)] // helpers outside #[test] functions expect success too

use proptest::prelude::*;
use spanloom_decisions::{Config, Decision, Decisions, Outcome, to};
use spanloom_model::TraceId;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SECOND: i64 = 1_000_000_000;

fn config(dir: &Path, block: usize) -> Config {
    Config { block, background: false, ..Config::new(dir) }
}

fn open(dir: &Path, block: usize) -> Decisions {
    let (log, notices) = Decisions::open(config(dir, block)).unwrap();
    assert_eq!(notices, Vec::<String>::new());
    log
}

fn about(id: u128, at: i64) -> Decision<'static> {
    Decision {
        trace_id: TraceId(id),
        at,
        outcome: Outcome::SampledOut,
        to: to::ASKED,
        rule: "auto_drop",
        rate: 0.2,
        spans: 3,
    }
}

fn files(dir: &Path, ext: &str) -> Vec<PathBuf> {
    let mut list: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == ext))
        .collect();
    list.sort();
    list
}

#[test]
fn a_decision_is_found_with_rule_rate_and_time_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 100);
    log.record([about(7, 5 * SECOND), Decision { rule: "errors", ..about(8, 6 * SECOND) }]);
    let found = log.find(TraceId(7));
    assert_eq!(found.len(), 1);
    let f = &found[0];
    assert_eq!((f.rule.as_str(), f.rate, f.at, f.spans, f.chunks), ("auto_drop", 0.2, 5 * SECOND, 3, 1));
    assert_eq!((f.outcome, f.to), (Outcome::SampledOut, to::ASKED));
    assert!(log.find(TraceId(9)).is_empty());
}

#[test]
fn everything_is_found_after_a_restart_whatever_was_sealed() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..3u128 {
        let log = open(dir.path(), 64);
        for i in 0..100u128 {
            log.record([about(round * 100 + i, i as i64 * SECOND)]);
            if i % 30 == 0 {
                log.flush();
            }
        }
        drop(log);
    }
    let log = open(dir.path(), 64);
    assert_eq!(files(dir.path(), "block").len(), 4);
    for id in 0..300u128 {
        assert_eq!(log.find(TraceId(id)).len(), 1, "{id}");
    }
    assert!(log.find(TraceId(300)).is_empty());
    assert_eq!(log.stats().rows, 300);
    assert_eq!((log.stats().oldest, log.stats().newest), (Some(0), Some(99 * SECOND)));
}

#[test]
fn what_was_flushed_survives_without_a_close() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 1000);
    log.record((0..10).map(|i| about(i, 0)));
    log.flush();
    log.record((10..20).map(|i| about(i, 0)));
    // As kill -9 leaves it: what was not flushed is gone.
    let copy = tempfile::tempdir().unwrap();
    for path in files(dir.path(), "log") {
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    let after = open(copy.path(), 1000);
    assert!((0..10).all(|i| after.find(TraceId(i)).len() == 1));
    assert!((10..20).all(|i| after.find(TraceId(i)).is_empty()));
}

#[test]
fn half_an_id_finds_the_whole_and_the_whole_finds_the_half() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 2);
    let full = TraceId::from_halves(5, 9);
    log.record([about(full.0, 0), about(TraceId::from_halves(6, 9).0, 0), about(77, 0)]);
    log.flush();
    assert_eq!(log.find(TraceId(9)).len(), 2);
    assert_eq!(log.find(full).len(), 1);
    log.record([about(9, SECOND)]);
    assert_eq!(log.find(full).len(), 2);
}

#[test]
fn chunks_of_a_trace_with_the_same_decision_are_one_answer() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 10);
    log.record((0..25).map(|i| about(1, i * SECOND)));
    log.record([Decision { rate: 0.5, ..about(1, 30 * SECOND) }]);
    log.flush();
    let found = log.find(TraceId(1));
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].chunks, found[0].spans, found[0].at), (25, 75, 0));
    assert_eq!(found[1].rate, 0.5);
}

#[test]
fn decisions_about_a_whole_trace_stay_apart_with_their_times() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 3);
    for i in 0..4 {
        log.record([
            Decision { outcome: Outcome::TailDropped, ..about(1, 2 * i * SECOND) },
            Decision { outcome: Outcome::TailKept, ..about(1, (2 * i + 1) * SECOND) },
        ]);
    }
    log.flush();
    let times: Vec<i64> = log.find(TraceId(1)).iter().map(|f| f.at / SECOND).collect();
    assert_eq!(times, (0..8).collect::<Vec<i64>>());
}

#[test]
fn the_oldest_decisions_go_by_size_and_by_age() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Decisions::open(Config {
        max_bytes: 12_000,
        keep_for: Duration::from_secs(250),
        ..config(dir.path(), 100)
    })
    .unwrap();
    for i in 0..500u128 {
        log.record([about(i, i as i64 * SECOND)]);
        log.flush();
    }
    assert!(log.find(TraceId(99)).is_empty(), "too many bytes");
    assert_eq!(log.find(TraceId(350)).len(), 1);
    assert!(log.stats().bytes < 12_000 + 10_000);
    log.record([about(1000, 700 * SECOND)]);
    log.flush();
    assert!(log.find(TraceId(350)).is_empty(), "too old");
    assert_eq!(log.find(TraceId(450)).len(), 1);
}

#[test]
fn memory_is_bounded_when_nothing_can_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 10);
    log.record((0..1000).map(|i| about(i, 0)));
    // Nothing was flushed: four full blocks wait, the older ones are counted.
    let stats = log.stats();
    assert_eq!(stats.rows + stats.lost, 1000);
    assert!(stats.rows <= 50);
    assert_eq!(log.find(TraceId(999)).len(), 1);
}

#[test]
fn damage_costs_the_piece_it_touches_and_never_a_wrong_answer() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 50);
    log.record((0..120).map(|i| about(i, 0)));
    drop(log);
    let pristine: Vec<(PathBuf, Vec<u8>)> = files(dir.path(), "block")
        .into_iter()
        .chain(files(dir.path(), "log"))
        .map(|p| (p.clone(), fs::read(p).unwrap()))
        .collect();
    assert_eq!(pristine.len(), 3);
    for n in 0..pristine.len() {
        let len = pristine[n].1.len();
        for at in (0..len).step_by(len / 60 + 1) {
            let copy = tempfile::tempdir().unwrap();
            for (i, (path, bytes)) in pristine.iter().enumerate() {
                let mut bytes = bytes.clone();
                if i == n {
                    bytes[at] ^= 0x10;
                }
                fs::write(copy.path().join(path.file_name().unwrap()), bytes).unwrap();
            }
            let (log, _) = Decisions::open(config(copy.path(), 50)).unwrap();
            let mut found = 0;
            for id in 0..120 {
                for f in log.find(TraceId(id)) {
                    assert_eq!((f.rule.as_str(), f.rate, f.spans), ("auto_drop", 0.2, 3));
                    found += 1;
                }
            }
            // The other two files are whole.
            assert!(found >= 70, "{found} after damage at {at} of file {n}");
            // And it goes on.
            log.record([about(5000, 0)]);
            log.flush();
            assert_eq!(log.find(TraceId(5000)).len(), 1);
        }
    }
}

#[test]
fn a_clock_set_back_does_not_hurt() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 100);
    log.record([about(1, i64::MAX), about(2, 0), about(3, i64::MIN), about(4, i64::MAX)]);
    log.flush();
    drop(log);
    let log = open(dir.path(), 100);
    assert!((1..=4).all(|i| log.find(TraceId(i)).len() == 1));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..4000), magic in any::<bool>()) {
        let mut bytes = bytes;
        if magic && bytes.len() >= 12 {
            bytes[..8].copy_from_slice(b"SPLMWHY\0");
            bytes[8..12].copy_from_slice(&1u32.to_le_bytes());
        }
        spanloom_decisions::decode_any(&bytes);
    }
}
