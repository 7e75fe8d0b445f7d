//! Many submissions, little room: the ledger adds up whatever happens.

use crate::support::*;
use spanloom_model::StoreError;
use spanloom_pipeline::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_adds_up_under_overload_and_at_shutdown() {
    let store = Arc::new(TestStore::default());
    let chain: ChainFactory = Arc::new(|_| {
        let mut n = 0u64;
        vec![Box::new(Step(move |b: &mut spanloom_model::Batch, _: &mut Effects| {
            n += 1;
            assert!(!n.is_multiple_of(97), "a defect now and then");
            if n.is_multiple_of(5) {
                b.chunks[0].fate = spanloom_model::Fate::Rejected("foreign_span");
            }
        }))]
    });
    let config = Config {
        budget: 40_000,
        queue: 4,
        queue_wait: Duration::from_millis(2),
        ack_wait: Duration::from_millis(20),
        ..Config::default()
    };
    let p = Arc::new(start(config, chain, vec![Destination::store("store", store.clone())]));
    let (sent, refused_before) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut clients = Vec::new();
    for client in 0..64u64 {
        let (inlet, sent, refused) = (p.inlet(), sent.clone(), refused_before.clone());
        let store = store.clone();
        clients.push(tokio::spawn(async move {
            for i in 0..50u64 {
                if client == 0 {
                    *store.refuse.lock().unwrap() = (i % 3 == 0).then(|| StoreError::Busy("now".into()));
                }
                match inlet.reserve_within(2_000, Duration::from_millis(1)).await {
                    Ok(permit) => {
                        sent.fetch_add(6, Ordering::SeqCst);
                        let submit = inlet.submit(batch(2, 3), permit);
                        if (client + i) % 7 == 0 {
                            // A client that goes away.
                            drop(tokio::time::timeout(Duration::ZERO, submit).await);
                        } else {
                            let _ = submit.await;
                        }
                    }
                    Err(_) => drop(refused.fetch_add(1, Ordering::SeqCst)),
                }
            }
        }));
    }
    // The drain begins while clients still send.
    let draining = {
        let p = p.clone();
        tokio::spawn(async move { p.drain(GRACE).await })
    };
    for client in clients {
        client.await.unwrap();
    }
    assert!(draining.await.unwrap().complete);
    let s = p.ledger().snapshot();
    assert_eq!(s.received_spans(), sent.load(Ordering::SeqCst));
    assert_eq!(s.in_flight(), 0);
    assert!(s.adds_up(), "{s:?}");
    assert_eq!(s.spans(Outcome::Kept), *store.spans.lock().unwrap());
    assert_eq!(p.inlet().budget().used(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_budget_bounds_what_is_held_at_the_same_time() {
    let p = start(
        Config { budget: 30_000, ..Config::default() },
        no_steps(),
        vec![Destination::store("store", Arc::new(TestStore::default()))],
    );
    let mut clients = Vec::new();
    for _ in 0..32 {
        let inlet = p.inlet();
        clients.push(tokio::spawn(async move {
            for _ in 0..50 {
                let permit = inlet.reserve_within(10_000, Duration::from_secs(60)).await.unwrap();
                inlet.submit(batch(1, 1), permit).await.unwrap();
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
    assert!(p.inlet().budget().peak() <= 30_000);
    assert_eq!(p.ledger().snapshot().spans(Outcome::Kept), 32 * 50);
}
