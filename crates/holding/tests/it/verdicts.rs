//! Whole traces are judged, and all their pieces follow.

use crate::*;
use spanloom_holding::KeptHere;

#[test]
fn a_trace_is_judged_once_it_is_quiet_and_its_pieces_leave_as_they_came() {
    let setup = Setup::new();
    let buffer = setup.open(0);
    put(&buffer, 0, &[(1, &[10, 11]), (2, &[20])]);
    put(&buffer, 20 * SECOND, &[(1, &[12])]);
    assert_eq!(waiting(&buffer.stats()), (2, 4));
    assert_eq!(ids(&round(&buffer, WAIT, |_| false)), [2]);
    let judged = round(&buffer, WAIT + 20 * SECOND, |_| true);
    let summary = &judged[0].summary;
    assert_eq!((summary.trace_id.0, summary.spans, summary.errors), (1, 3, 0));
    assert_eq!((summary.root_service.as_str(), summary.end), ("service-10", 20 * SECOND + 5));
    assert_eq!(setup.taken(), [(1, 10), (1, 11), (1, 12)]);
    assert_eq!(setup.dropped(), [1, 1]);
    assert_eq!(waiting(&buffer.stats()), (0, 0));
}

#[test]
fn rules_can_read_every_span_of_a_trace() {
    let setup = Setup::new();
    let buffer = setup.open(0);
    put(&buffer, 0, &[(1, &[10]), (2, &[20]), (1, &[11])]);
    put(&buffer, 1, &[(1, &[12])]);
    let mut seen = Vec::new();
    let mut judge = |w: &Waiting, load: &dyn Fn() -> Result<Vec<Spans>, _>| {
        if w.summary.trace_id.0 == 1 {
            let parts: Vec<Spans> = load().unwrap();
            seen.extend(
                parts.iter().flat_map(Spans::chunks).flat_map(|(_, s)| s.iter().map(|s| s.span_id.0)),
            );
        }
        Ruling { keep: false, rule: "test".into(), rate: 0.0, spans: 0 }
    };
    buffer.round(WAIT + 1, &mut judge, &|| false);
    assert_eq!(seen, [10, 11, 12]);
}

#[test]
fn late_pieces_follow_the_verdict_and_the_senders_own_word_goes_first() {
    let setup = Setup::new();
    let buffer = setup.open(0);
    put(&buffer, 0, &[(1, &[10]), (2, &[20])]);
    assert_eq!(round(&buffer, WAIT, |id| id == 1).len(), 2);
    assert_eq!(setup.taken(), [(1, 10)]);
    put(&buffer, WAIT + 1, &[(1, &[11]), (2, &[21, 22]), (3, &[30])]);
    assert_eq!(setup.taken(), [(1, 11)], "at once");
    assert_eq!(setup.dropped(), [3, 2]);
    let stats = buffer.stats();
    assert_eq!((stats.late, waiting(&stats)), ([1, 2], (1, 1)));
    give(&buffer, batch(WAIT + 2, &[(2, &[23])], |b| b.chunks[0].priority = 2)).unwrap();
    assert_eq!(setup.taken(), [(2, 23)]);
    assert_eq!(
        buffer.ruling(TraceId(2)).unwrap(),
        Ruling { keep: false, rule: "test".into(), rate: 0.5, spans: 1 }
    );
}

#[test]
fn chunks_that_do_not_wait_go_on_and_both_halves_are_acknowledged() {
    let setup = Setup::new();
    let buffer = setup.open(0);
    let mixed = || {
        batch(0, &[(1, &[10]), (2, &[20]), (3, &[30])], |b| {
            b.chunks[0].sampled.leaves = Leaves::Marked;
            b.chunks[2].sampled.leaves = Leaves::Nothing;
        })
    };
    give(&buffer, mixed()).unwrap();
    assert_eq!(setup.taken(), [(1, 10)]);
    assert_eq!(waiting(&buffer.stats()), (1, 1));
    setup.taker.refuses.store(true, Ordering::SeqCst);
    assert!(matches!(give(&buffer, mixed()), Err(StoreError::Busy(_))));
}

#[test]
fn what_an_exporter_refuses_is_tried_again_and_judged_once() {
    let setup = Setup::new();
    let buffer = setup.open(0);
    put(&buffer, 0, &[(1, &[10]), (2, &[20])]);
    setup.taker.refuses.store(true, Ordering::SeqCst);
    assert_eq!(round(&buffer, WAIT, |id| id == 1).len(), 2);
    assert_eq!((setup.taken(), setup.dropped(), buffer.stats().refused), (vec![], [1, 1], 1));
    assert_eq!(round(&buffer, WAIT, |_| false).len(), 0);
    setup.taker.refuses.store(false, Ordering::SeqCst);
    assert_eq!(round(&buffer, WAIT, |_| false).len(), 0);
    assert_eq!(setup.taken(), [(1, 10)]);
    assert_eq!(buffer.stats().late, [0, 0]);
}

#[test]
fn a_destination_that_is_gone_costs_its_spans_and_they_are_counted() {
    let setup = Setup::new();
    let buffer = setup.open(0);
    put(&buffer, 0, &[(1, &[10, 11])]);
    setup.taker.gone.store(true, Ordering::SeqCst);
    round(&buffer, WAIT, |_| true);
    assert_eq!(setup.taken(), []);
    assert_eq!(buffer.stats().lost["destination_gone"], 2);
}

#[test]
fn a_person_can_keep_a_trace_that_waits_and_later_pieces_of_one_that_was_dropped() {
    let setup = Setup::new();
    let buffer = setup.open(0);
    put(&buffer, 0, &[(1, &[10]), (2, &[20])]);
    assert_eq!(buffer.keep(TraceId(1)).unwrap(), KeptHere::Waits);
    assert_eq!(buffer.keep(TraceId(9)).unwrap(), KeptHere::Unknown);
    drop(buffer);
    let buffer = setup.open(SECOND);
    let judged = round(&buffer, SECOND + WAIT, |_| false);
    assert_eq!(
        judged.iter().map(|w| (w.summary.trace_id.0, w.by_hand)).collect::<Vec<_>>(),
        [(1, true), (2, false)]
    );
    assert_eq!(buffer.keep(TraceId(2)).unwrap(), KeptHere::Dropped);
    put(&buffer, 2 * WAIT, &[(2, &[21])]);
    assert_eq!(setup.taken(), [(2, 21)]);
    assert_eq!(buffer.keep(TraceId(2)).unwrap(), KeptHere::Left);
}
