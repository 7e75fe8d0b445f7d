//! One batch at a time.

use crate::support::*;
use spanloom_model::{AckFn, Batch, Fate, Leaves, Protocol, Sampled, StoreError};
use spanloom_pipeline::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

#[tokio::test]
async fn a_batch_is_processed_delivered_and_paid_back() {
    let store = Arc::new(TestStore::default());
    let chain: ChainFactory = Arc::new(|_| {
        vec![Box::new(Step(|b: &mut spanloom_model::Batch, fx: &mut Effects| {
            b.chunks[0].fate = Fate::Filtered("rule");
            fx.note("spans_malformed", "service_empty", 2);
        }))]
    });
    let p = start(Config::default(), chain, vec![Destination::store("store", store.clone())]);
    let inlet = p.inlet();
    let permit = inlet.reserve(1000).unwrap();
    assert_eq!(inlet.submit(batch(2, 3), permit).await, Ok(Accepted { spans: 6 }));
    assert_eq!(*store.spans.lock().unwrap(), 3);
    assert_eq!(inlet.budget().used(), 0);
    let s = p.ledger().snapshot();
    assert_eq!(count(&s, Outcome::Kept, ""), 3);
    assert_eq!(count(&s, Outcome::Filtered, "rule"), 3);
    assert_eq!((s.notes[0].event, s.notes[0].count), ("spans_malformed", 2));
    assert!(s.adds_up());
    assert_eq!(p.drain(GRACE).await, DrainReport { complete: true, lost_spans: 0 });
    let permit = inlet.reserve(1);
    assert!(permit.is_err(), "nothing is admitted after the drain");
}

#[tokio::test]
async fn one_destination_that_has_it_is_enough() {
    let (good, bad) = (Arc::new(TestStore::default()), Arc::new(TestStore::default()));
    *bad.refuse.lock().unwrap() = Some(StoreError::Busy("full".into()));
    let p = start(
        Config::default(),
        no_steps(),
        vec![Destination::store("store", good), Destination::exporter("datadog", bad.clone(), false)],
    );
    let inlet = p.inlet();
    assert!(inlet.submit(batch(1, 4), inlet.reserve(1).unwrap()).await.is_ok());
    let d = p.deliveries();
    assert_eq!((d[0].delivered, d[0].failed, d[1].delivered, d[1].failed), (4, 0, 0, 4));
    assert_eq!(p.ledger().snapshot().spans(Outcome::Kept), 4);
}

#[tokio::test]
async fn a_refusal_by_all_reaches_the_client_with_its_reason() {
    let bad = Arc::new(TestStore::default());
    *bad.refuse.lock().unwrap() = Some(StoreError::Write("disk full".into()));
    let p = start(Config::default(), no_steps(), vec![Destination::store("store", bad)]);
    let inlet = p.inlet();
    let answer = inlet.submit(batch(1, 4), inlet.reserve(1).unwrap()).await;
    assert_eq!(answer, Err(Refused::NotTaken { reason: "store_write_error" }));
    let s = p.ledger().snapshot();
    assert_eq!(count(&s, Outcome::Refused, "store_write_error"), 4);
    assert!(s.adds_up());
}

#[tokio::test]
async fn without_a_store_what_the_samplers_left_out_is_sampled_out() {
    let exporter = Arc::new(TestStore::default());
    let chain: ChainFactory = Arc::new(|_| {
        vec![Box::new(Step(|b: &mut spanloom_model::Batch, _: &mut Effects| {
            b.chunks[0].sampled = Sampled { leaves: Leaves::Nothing, by: "priority", ..Sampled::default() };
            b.chunks[1].sampled = Sampled { keep: true, by: "errors", ..Sampled::default() };
        }))]
    });
    let p = start(Config::default(), chain, vec![Destination::exporter("datadog", exporter, false)]);
    let inlet = p.inlet();
    assert!(inlet.submit(batch(2, 5), inlet.reserve(1).unwrap()).await.is_ok());
    let s = p.ledger().snapshot();
    assert_eq!(count(&s, Outcome::SampledOut, "priority"), 5);
    assert_eq!(count(&s, Outcome::Kept, ""), 5);
}

#[tokio::test]
async fn what_a_v1_payload_says_of_its_sender_leaves_without_chunks_too() {
    struct Counting(AtomicUsize);
    impl Exporter for Counting {
        fn export(&self, _: Arc<Batch>, done: AckFn) {
            self.0.fetch_add(1, Ordering::Relaxed);
            done(Ok(()));
        }
    }
    let chain: ChainFactory = Arc::new(|_| {
        vec![Box::new(Step(|b: &mut Batch, _: &mut Effects| {
            b.chunks[0].sampled = Sampled { leaves: Leaves::Nothing, by: "priority", ..Sampled::default() };
        }))]
    });
    let exported = async |protocol, resent| {
        let exporter = Arc::new(Counting(AtomicUsize::new(0)));
        let destination = Destination::exporter("datadog", Arc::clone(&exporter) as _, false);
        let p = start(Config::default(), Arc::clone(&chain), vec![destination]);
        let inlet = p.inlet();
        let mut b = batch(1, 5);
        (b.intake.protocol, b.intake.resent) = (protocol, resent);
        assert!(inlet.submit(b, inlet.reserve(1).unwrap()).await.is_ok());
        assert_eq!(count(&p.ledger().snapshot(), Outcome::SampledOut, "priority"), 5);
        exporter.0.load(Ordering::Relaxed)
    };
    assert_eq!(exported(Protocol::DatadogV1, false).await, 1);
    assert_eq!(exported(Protocol::DatadogV1, true).await, 0);
    assert_eq!(exported(Protocol::DatadogV04, false).await, 0);
}

#[tokio::test]
async fn a_processor_that_panics_costs_one_batch_and_no_worker() {
    let store = Arc::new(TestStore::default());
    let chain: ChainFactory = Arc::new(|_| {
        vec![Box::new(Step(|b: &mut spanloom_model::Batch, _: &mut Effects| {
            assert!(b.spans.len() != 7, "unlucky");
        }))]
    });
    let p = start(Config { workers: 1, ..Config::default() }, chain, vec![Destination::store("s", store)]);
    let inlet = p.inlet();
    assert_eq!(inlet.submit(batch(1, 7), inlet.reserve(1).unwrap()).await, Err(Refused::Failed));
    assert!(inlet.submit(batch(1, 6), inlet.reserve(1).unwrap()).await.is_ok());
    let s = p.ledger().snapshot();
    assert_eq!(count(&s, Outcome::Lost, "panic"), 7);
    assert!(s.adds_up());
}

#[tokio::test]
async fn an_acknowledgement_that_never_comes_is_a_timeout_and_ends_at_shutdown() {
    let store = Arc::new(TestStore::default());
    *store.hold.lock().unwrap() = true;
    let config = Config { ack_wait: Duration::from_millis(1), ..Config::default() };
    let p = start(config, no_steps(), vec![Destination::store("store", store.clone())]);
    let inlet = p.inlet();
    assert_eq!(inlet.submit(batch(1, 3), inlet.reserve(1).unwrap()).await, Err(Refused::Timeout));
    let report = p.drain(Duration::from_millis(50)).await;
    assert!(!report.complete);
    let s = p.ledger().snapshot();
    assert!(s.adds_up(), "{s:?}");
    assert_eq!(report.lost_spans, s.spans(Outcome::Lost));
    assert_eq!(inlet.budget().used(), 0);
    // The store comes back to life: nothing is counted twice.
    for done in store.held.lock().unwrap().drain(..) {
        done(Ok(()));
    }
    assert!(p.ledger().snapshot().adds_up());
}

#[tokio::test]
async fn an_acknowledgement_dropped_by_a_dead_store_is_a_refusal() {
    let store = Arc::new(TestStore::default());
    *store.hold.lock().unwrap() = true;
    let p = start(Config::default(), no_steps(), vec![Destination::store("store", store.clone())]);
    let inlet = p.inlet();
    let answer = tokio::spawn({
        let inlet = inlet.clone();
        async move { inlet.submit(batch(1, 3), inlet.reserve(1).unwrap()).await }
    });
    while store.held.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    store.held.lock().unwrap().clear();
    assert_eq!(answer.await.unwrap(), Err(Refused::NotTaken { reason: "store_closed" }));
}

/// Holds what a step wants saved until the test lets go.
fn saving(held: &Arc<std::sync::Mutex<Vec<Saved>>>, keep: bool) -> ChainFactory {
    let held = Arc::clone(held);
    Arc::new(move |_| {
        let held = Arc::clone(&held);
        vec![Box::new(Step(move |b: &mut spanloom_model::Batch, fx: &mut Effects| {
            if !keep {
                b.chunks[0].sampled.leaves = Leaves::Nothing;
            }
            let held = Arc::clone(&held);
            fx.save(move |saved| held.lock().unwrap().push(saved));
        }))]
    })
}

#[tokio::test]
async fn the_client_is_answered_when_what_steps_hold_beside_the_batch_is_safe() {
    // Also if nothing of the batch goes anywhere.
    for keep in [true, false] {
        let held = Arc::default();
        let sent = Arc::new(TestStore::default());
        let exporter = Destination::exporter("datadog", sent.clone(), false);
        let p = start(Config::default(), saving(&held, keep), vec![exporter]);
        let inlet = p.inlet();
        let permit = inlet.reserve(1).unwrap();
        let answer = tokio::spawn(async move { inlet.submit(batch(1, 4), permit).await });
        while held.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(!answer.is_finished());
        held.lock().unwrap().clear();
        assert_eq!(answer.await.unwrap(), Ok(Accepted { spans: 4 }));
        assert_eq!(*sent.spans.lock().unwrap(), if keep { 4 } else { 0 });
    }
}

#[tokio::test]
async fn what_is_saved_beside_a_refused_batch_does_not_make_it_accepted() {
    let held = Arc::default();
    let bad = Arc::new(TestStore::default());
    *bad.refuse.lock().unwrap() = Some(StoreError::Closed);
    let p = start(Config::default(), saving(&held, true), vec![Destination::store("store", bad)]);
    let inlet = p.inlet();
    let permit = inlet.reserve(1).unwrap();
    let answer = tokio::spawn(async move { inlet.submit(batch(1, 4), permit).await });
    while held.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    held.lock().unwrap().clear();
    assert_eq!(answer.await.unwrap(), Err(Refused::NotTaken { reason: "store_closed" }));
}

#[tokio::test]
async fn a_body_is_decoded_and_worked_on_by_one_worker() {
    let store = Arc::new(TestStore::default());
    let names = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&names);
    let name = || std::thread::current().name().unwrap_or_default().to_owned();
    let chain: ChainFactory = Arc::new(move |_| {
        let seen = Arc::clone(&seen);
        vec![Box::new(Step(move |_: &mut Batch, _: &mut Effects| seen.lock().unwrap().push(name())))]
    });
    let p = start(Config::default(), chain, vec![Destination::store("store", store.clone())]);
    let inlet = p.inlet();
    let permit = inlet.reserve(1000).unwrap();
    let (said, answer) = inlet.submit_body(move || (Some((batch(1, 3), permit)), name())).await;
    assert_eq!(answer, Ok(Accepted { spans: 3 }));
    assert_eq!(*names.lock().unwrap(), [said.unwrap()]);
    let permit = inlet.reserve(1000).unwrap();
    let (said, answer) = inlet
        .submit_body(move || {
            drop(permit);
            (None, "not a trace")
        })
        .await;
    assert_eq!((said, answer), (Some("not a trace"), Ok(Accepted { spans: 0 })));
    let panic = || -> (Option<(Batch, Permit)>, ()) { panic!("a decoder's defect") };
    assert_eq!(inlet.submit_body(panic).await, (None, Err(Refused::Failed)));
    let s = p.ledger().snapshot();
    assert_eq!((s.received_spans(), count(&s, Outcome::Kept, ""), s.in_flight()), (3, 3, 0));
    assert_eq!(inlet.budget().used(), 0);
    assert!(p.drain(GRACE).await.complete);
    assert_eq!(inlet.submit_body(panic).await, (None, Err(Refused::Closing)));
}
