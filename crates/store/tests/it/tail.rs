//! Decisions about whole traces: what is dropped is invisible, can be kept
//! after all, survives a restart, and goes with a merge.

use crate::support::*;
use spanloom_model::*;
use spanloom_store::{Decided, KeptByHand};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

const SECOND: i64 = 1_000_000_000;
const WAIT: Duration = Duration::from_secs(30);

fn deciding() -> Fixture {
    Fixture::with(|c| {
        c.decide = true;
        c.undrop_for = Duration::from_secs(60);
    })
}

fn put_spans(f: &Fixture, spans: &[S<'_>]) {
    f.put(&batch(Protocol::OtlpProto, spans));
}

fn wait(f: &Fixture, seconds: i64) {
    f.clock.0.fetch_add(seconds * SECOND, Ordering::SeqCst);
}

/// Keeps traces with an error; tells what it saw: spans by trace.
fn judge(f: &Fixture) -> (Decided, HashMap<u128, u64>) {
    let mut seen = HashMap::new();
    let done = f
        .store()
        .decide(WAIT, &mut |t, load| {
            assert_eq!(load().unwrap().spans.len() as u64, t.spans);
            assert!(seen.insert(t.trace_id.0, t.spans).is_none(), "judged twice");
            t.errors > 0
        })
        .unwrap();
    (done, seen)
}

fn all(f: &Fixture) -> Vec<u128> {
    let mut ids = found(f.store(), &search(vec![]));
    ids.sort_unstable();
    ids
}

fn has(f: &Fixture, id: u128) -> bool {
    f.store().trace(TraceId(id), TimeRange::ALL).unwrap().is_some()
}

#[test]
fn a_trace_is_judged_once_it_is_quiet_and_invisible_when_dropped() {
    let mut f = deciding();
    for trace in 1..=10 {
        put_spans(&f, &[S { trace, error: trace % 5 == 0, ..S::default() }]);
    }
    f.store().flush().unwrap();
    wait(&f, 29);
    assert_eq!(judge(&f).0, Decided::default(), "not quiet for long enough");
    wait(&f, 1);
    let (done, seen) = judge(&f);
    assert_eq!((done.segments, done.traces, done.dropped), (1, 10, 8));
    assert_eq!(seen.len(), 10);
    for _ in 0..2 {
        assert_eq!(all(&f), [5, 10]);
        assert!(has(&f, 5) && !has(&f, 4));
        let stats = f.store().stats();
        assert_eq!((stats.dropped_traces, stats.dropped_spans, stats.spans), (8, 8, 10));
        assert_eq!(judge(&f).0, Decided::default(), "nothing is judged twice");
        f.reopen();
        assert_eq!(f.report.damage, []);
    }
    f.store().compact_now(true).unwrap();
    assert_eq!(f.store().stats().spans, 10, "still time to keep them after all");
    wait(&f, 60);
    f.store().compact_now(true).unwrap();
    let stats = f.store().stats();
    assert_eq!((stats.spans, stats.dropped_traces, stats.removed_traces, stats.removed_spans), (2, 0, 8, 8));
    f.reopen();
    assert_eq!(all(&f), [5, 10]);
    assert_eq!(judge(&f).0, Decided::default());
}

#[test]
fn a_trace_in_pieces_is_judged_whole_when_its_last_piece_is_quiet() {
    let f = deciding();
    put_spans(&f, &[S { trace: 1, ..S::default() }, S { trace: 2, ..S::default() }]);
    f.store().flush().unwrap();
    wait(&f, 20);
    put_spans(&f, &[S { trace: 1, id: 2, parent: 1, error: true, ..S::default() }]);
    wait(&f, 20);
    let (done, seen) = judge(&f);
    assert_eq!((done.traces, done.deferred), (1, 1), "the other one still grows");
    assert_eq!(seen, HashMap::from([(2, 1)]));
    f.store().flush().unwrap();
    assert_eq!(judge(&f).0.traces, 0);
    wait(&f, 30);
    let (done, seen) = judge(&f);
    assert_eq!((done.traces, done.dropped), (1, 0));
    assert_eq!(seen, HashMap::from([(1, 2)]));
    assert_eq!(all(&f), [1]);
}

#[test]
fn a_late_piece_brings_a_dropped_trace_back_if_rules_want_it() {
    let f = deciding();
    put_spans(&f, &[S { trace: 1, ..S::default() }]);
    f.store().flush().unwrap();
    wait(&f, 30);
    assert_eq!(judge(&f).0.dropped, 1);
    put_spans(&f, &[S { trace: 1, id: 2, parent: 1, error: true, ..S::default() }]);
    f.store().flush().unwrap();
    wait(&f, 30);
    let (done, seen) = judge(&f);
    assert_eq!((done.dropped, seen), (0, HashMap::from([(1, 2)])));
    assert_eq!(f.store().trace(TraceId(1), TimeRange::ALL).unwrap().unwrap().spans.len(), 2);
    assert_eq!(f.store().stats().dropped_traces, 0);
}

#[test]
fn undrop_brings_a_trace_back_until_a_merge_has_removed_it() {
    let mut f = deciding();
    put_spans(&f, &[S { trace: 1, ..S::default() }, S { trace: 2, ..S::default() }]);
    f.store().flush().unwrap();
    wait(&f, 30);
    judge(&f);
    assert_eq!(all(&f), [] as [u128; 0]);
    assert_eq!(f.store().keep(TraceId(1)).unwrap(), KeptByHand::Undropped);
    assert_eq!(f.store().keep(TraceId(1)).unwrap(), KeptByHand::Kept);
    assert_eq!(all(&f), [1]);
    f.reopen();
    assert_eq!(all(&f), [1]);
    wait(&f, 60);
    f.store().compact_now(true).unwrap();
    assert_eq!((f.store().stats().spans, all(&f)), (1, vec![1]));
    assert_eq!(f.store().keep(TraceId(2)).unwrap(), KeptByHand::Missing);
    // A late piece does not make rules forget it.
    put_spans(&f, &[S { trace: 1, id: 2, parent: 1, ..S::default() }]);
    f.store().flush().unwrap();
    f.reopen();
    wait(&f, 30);
    assert_eq!(judge(&f).0.dropped, 0);
    assert_eq!(all(&f), [1]);
}

#[test]
fn a_trace_kept_by_hand_before_the_decision_is_not_judged() {
    let f = deciding();
    put_spans(&f, &[S { trace: 1, ..S::default() }]);
    assert_eq!(f.store().keep(TraceId(1)).unwrap(), KeptByHand::Kept);
    f.store().flush().unwrap();
    wait(&f, 30);
    let (done, seen) = judge(&f);
    assert_eq!((done.dropped, seen.len()), (0, 0));
    assert_eq!(all(&f), [1]);
}

#[test]
fn merges_wait_for_decisions_and_carry_what_is_not_removed_yet() {
    let mut f = Fixture::with(|c| {
        c.decide = true;
        c.flush_spans = 1;
        c.undrop_for = Duration::from_secs(60);
    });
    for trace in 1..=32 {
        put_spans(&f, &[S { trace, error: trace % 8 == 0, ..S::default() }]);
    }
    f.store().flush().unwrap();
    f.store().compact_now(false).unwrap();
    assert_eq!(f.store().stats().segments, 32, "not decided yet");
    wait(&f, 30);
    assert_eq!(judge(&f).0.dropped, 28);
    f.store().compact_now(false).unwrap();
    assert!(f.store().stats().segments < 10);
    for _ in 0..2 {
        assert_eq!(all(&f), [8, 16, 24, 32]);
        assert_eq!(f.store().stats().dropped_traces, 28);
        f.reopen();
    }
    assert_eq!(f.store().keep(TraceId(7)).unwrap(), KeptByHand::Undropped);
    wait(&f, 60);
    f.store().compact_now(false).unwrap();
    let stats = f.store().stats();
    assert_eq!((stats.spans, stats.dropped_traces), (5, 0), "mostly dropped segments are written anew");
    assert_eq!(all(&f), [7, 8, 16, 24, 32]);
}

#[test]
fn a_segment_of_which_all_is_dropped_goes_whole() {
    let f = deciding();
    put_spans(&f, &[S { trace: 1, ..S::default() }]);
    f.store().flush().unwrap();
    wait(&f, 30);
    judge(&f);
    wait(&f, 60);
    f.store().compact_now(false).unwrap();
    let stats = f.store().stats();
    assert_eq!((stats.segments, stats.spans, stats.removed_spans), (0, 0, 1));
    assert_eq!(files(&f.path().join("dropped")).len(), 1, "only what says that rules decide");
}

#[test]
fn what_was_stored_before_there_were_rules_is_not_judged() {
    let mut f = Fixture::new();
    put_spans(&f, &[S { trace: 1, ..S::default() }]);
    f.store().flush().unwrap();
    f.config.decide = true;
    f.reopen();
    put_spans(&f, &[S { trace: 2, ..S::default() }]);
    f.store().flush().unwrap();
    f.reopen();
    wait(&f, 100);
    let (done, seen) = judge(&f);
    assert_eq!((done.dropped, seen.len()), (1, 1));
    assert_eq!(all(&f), [1]);
    // Without rules, what was dropped stays dropped.
    f.config.decide = false;
    f.reopen();
    assert_eq!(all(&f), [1]);
    put_spans(&f, &[S { trace: 3, ..S::default() }]);
    f.store().flush().unwrap();
    f.config.decide = true;
    f.reopen();
    wait(&f, 100);
    assert_eq!(judge(&f).0.traces, 0);
    assert_eq!(all(&f), [1, 3]);
}

#[test]
fn a_lower_half_of_an_id_is_judged_and_kept_with_the_whole() {
    let f = deciding();
    let full = TraceId::from_halves(7, 9);
    let piece = |trace: u128, id: u64| {
        batch(Protocol::DatadogV04, &[S { trace, id, parent: id - 1, ..S::default() }])
    };
    f.put(&piece(9, 2));
    f.store().flush().unwrap();
    f.put(&piece(full.0, 1));
    f.store().flush().unwrap();
    wait(&f, 30);
    let (done, seen) = judge(&f);
    assert_eq!((done.traces, seen), (1, HashMap::from([(full.0, 2)])));
    assert!(!has(&f, 9) && !has(&f, full.0));
    assert_eq!(f.store().keep(TraceId(9)).unwrap(), KeptByHand::Undropped);
    assert_eq!(f.store().trace(full, TimeRange::ALL).unwrap().unwrap().spans.len(), 2);
}

#[test]
fn a_damaged_file_of_decisions_is_told_and_judged_again() {
    let mut f = deciding();
    put_spans(&f, &[S { trace: 1, ..S::default() }, S { trace: 2, error: true, ..S::default() }]);
    f.store().flush().unwrap();
    wait(&f, 30);
    judge(&f);
    let path =
        files(&f.path().join("dropped")).into_iter().find(|p| p.to_string_lossy().contains("seg-")).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    f.reopen();
    assert_eq!(f.report.damage.len(), 1);
    assert_eq!(all(&f), [1, 2]);
    assert_eq!(judge(&f).0.dropped, 1);
    assert_eq!(all(&f), [2]);
}
