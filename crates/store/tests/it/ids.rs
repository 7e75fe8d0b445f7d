//! 64-bit halves of trace ids, and spans that come twice.

use crate::support::*;
use spanloom_model::*;

const LOW: u128 = 0xabcd;
const FULL: u128 = (0x640c_fd8d_0000_0000_u128 << 64) | LOW;

fn dd(trace: u128, id: u64) -> Batch {
    batch(Protocol::DatadogV04, &[S { trace, id, ..S::default() }])
}

#[test]
fn a_datadog_piece_without_the_upper_half_joins_its_trace() {
    let f = Fixture::new();
    f.put(&dd(FULL, 1));
    f.put(&dd(LOW, 2));
    assert_eq!(spans_of(f.store(), FULL), [1, 2]);
    assert_eq!(found(f.store(), &search(vec![])), [FULL]);
}

#[test]
fn a_piece_that_came_before_the_upper_half_was_known_is_found_under_both_ids() {
    let mut f = Fixture::new();
    f.put(&dd(LOW, 1));
    f.store().flush().unwrap();
    f.put(&dd(FULL, 2));
    f.put(&dd(LOW, 3));
    for round in 0..3 {
        assert_eq!(spans_of(f.store(), FULL), [1, 2, 3], "round {round}");
        assert_eq!(spans_of(f.store(), LOW), [1, 2, 3], "round {round}");
        assert_eq!(found(f.store(), &search(vec![])), [FULL], "round {round}");
        assert_eq!(f.store().search(&search(vec![])).unwrap()[0].spans, 3);
        if round == 0 {
            f.store().flush().unwrap();
            f.store().compact_now(true).unwrap();
        }
        f.reopen();
    }
}

#[test]
fn other_protocols_mean_a_64_bit_id_when_they_send_one() {
    let f = Fixture::new();
    let zipkin = |trace, id| batch(Protocol::ZipkinJsonV2, &[S { trace, id, ..S::default() }]);
    f.put(&zipkin(FULL, 1));
    f.put(&zipkin(LOW, 2));
    assert_eq!(spans_of(f.store(), FULL), [1]);
    assert_eq!(spans_of(f.store(), LOW), [2]);
}

#[test]
fn what_is_sent_again_is_stored_and_counted_once() {
    let mut f = Fixture::new();
    let body =
        batch(Protocol::DatadogV04, &[S { id: 1, ..S::default() }, S { id: 2, parent: 1, ..S::default() }]);
    f.put(&body);
    f.put(&body);
    let stats = f.store().stats();
    assert_eq!((stats.spans, stats.stored, stats.duplicates), (2, 2, 2));
    assert_eq!(spans_of(f.store(), 1), [1, 2]);
    // Nobody remembers after a restart; reading tells them apart all the same.
    f.store().flush().unwrap();
    f.reopen();
    f.put(&body);
    assert_eq!(spans_of(f.store(), 1), [1, 2]);
    assert_eq!(f.store().search(&search(vec![])).unwrap()[0].spans, 2);
    f.store().flush().unwrap();
    f.store().compact_now(true).unwrap();
    assert_eq!(f.store().stats().spans, 2);
}

#[test]
fn halves_of_one_span_id_both_stay() {
    let f = Fixture::new();
    let half = |kind, service| S { id: 7, kind, service, ..S::default() };
    f.put(&batch(
        Protocol::ZipkinJsonV2,
        &[half(SpanKind::Client, "front"), half(SpanKind::Server, "back"), half(SpanKind::Server, "back2")],
    ));
    assert_eq!(spans_of(f.store(), 1), [7, 7, 7]);
}
