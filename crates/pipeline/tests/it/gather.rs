//! Small batches that come at the same time.

use crate::support::*;
use spanloom_model::{AckFn, Batch};
use spanloom_pipeline::*;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use tokio::task::JoinSet;

/// Remembers how many spans it was given at once.
#[derive(Default)]
struct Groups(Mutex<Vec<usize>>);

impl Exporter for Groups {
    fn export(&self, batch: Arc<Batch>, done: AckFn) {
        self.export_all(vec![(batch, done)]);
    }

    fn export_all(&self, batches: Vec<(Arc<Batch>, AckFn)>) {
        self.0.lock().unwrap().push(batches.iter().map(|(b, _)| b.spans.len()).sum());
        batches.into_iter().for_each(|(_, done)| done(Ok(())));
    }
}

/// Fails at batches of seven spans, and finishes what it begins when it is told
/// to settle.
#[derive(Default)]
struct Saving {
    begun: Arc<Mutex<Vec<Saved>>>,
    settled: Arc<AtomicUsize>,
}

impl Processor for Saving {
    fn process(&mut self, batch: &mut Batch, _: i64, fx: &mut Effects) {
        assert!(batch.spans.len() != 7, "unlucky");
        let begun = Arc::clone(&self.begun);
        fx.save(move |saved| begun.lock().unwrap().push(saved));
    }

    fn settle(&mut self) {
        self.settled.fetch_add(1, Relaxed);
        let begun = std::mem::take(&mut *self.begun.lock().unwrap());
        drop(begun);
    }
}

fn pipeline(settled: &Arc<AtomicUsize>) -> (Pipeline, Arc<Groups>) {
    let groups = Arc::new(Groups::default());
    let settled = Arc::clone(settled);
    let chain: ChainFactory = Arc::new(move |_| {
        vec![Box::new(Saving { settled: Arc::clone(&settled), ..Saving::default() }) as Box<dyn Processor>]
    });
    let destination = Destination::exporter("test", Arc::clone(&groups) as _, true);
    (start(Config { workers: 1, ..Config::default() }, chain, vec![destination]), groups)
}

async fn submit_all(inlet: &Inlet, sizes: &[usize]) -> Vec<Result<Accepted, Refused>> {
    let mut tasks = JoinSet::new();
    for (i, spans) in sizes.iter().copied().enumerate() {
        let inlet = inlet.clone();
        tasks.spawn(async move { (i, inlet.submit(batch(1, spans), inlet.reserve(1).unwrap()).await) });
    }
    let mut answers = tasks.join_all().await;
    answers.sort_by_key(|(i, _)| *i);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

#[tokio::test]
async fn what_is_ready_at_the_same_time_goes_together() {
    let settled = Arc::default();
    let (p, groups) = pipeline(&settled);
    let inlet = p.inlet();
    let answers = submit_all(&inlet, &[1, 2, 3]).await;
    assert_eq!(answers, [1, 2, 3].map(|spans| Ok(Accepted { spans })));
    assert_eq!(*groups.0.lock().unwrap(), [6]);
    assert_eq!(settled.load(Relaxed), 1);
    // Alone, nobody is waited for.
    assert_eq!(submit_all(&inlet, &[4]).await, [Ok(Accepted { spans: 4 })]);
    assert_eq!(*groups.0.lock().unwrap(), [6, 4]);
    assert!(p.drain(GRACE).await.complete);
    assert!(p.ledger().snapshot().adds_up());
}

#[tokio::test]
async fn so_much_as_is_enough_does_not_wait_for_more() {
    let settled = Arc::default();
    let (p, groups) = pipeline(&settled);
    let answers = submit_all(&p.inlet(), &[60; 11]).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(*groups.0.lock().unwrap(), [300, 300, 60]);
    assert!(p.drain(GRACE).await.complete);
}

#[tokio::test]
async fn a_few_large_spans_are_enough_too() {
    let (p, groups) = pipeline(&Arc::default());
    let inlet = p.inlet();
    let mut tasks = JoinSet::new();
    for _ in 0..3 {
        let inlet = inlet.clone();
        tasks.spawn(async move {
            let mut large = batch(1, 2);
            large.spans[0].resource = large.arena.push(&"x".repeat(150_000));
            inlet.submit(large, inlet.reserve(1).unwrap()).await
        });
    }
    assert!(tasks.join_all().await.iter().all(Result::is_ok));
    assert_eq!(*groups.0.lock().unwrap(), [4, 2]);
    assert!(p.drain(GRACE).await.complete);
}

#[tokio::test]
async fn a_panic_costs_its_batch_alone() {
    let settled = Arc::default();
    let (p, groups) = pipeline(&settled);
    let answers = submit_all(&p.inlet(), &[5, 7, 6]).await;
    assert_eq!(answers, [Ok(Accepted { spans: 5 }), Err(Refused::Failed), Ok(Accepted { spans: 6 })]);
    assert_eq!(*groups.0.lock().unwrap(), [11]);
    let ledger = p.ledger().snapshot();
    assert_eq!(count(&ledger, Outcome::Lost, "panic"), 7);
    assert!(p.drain(GRACE).await.complete, "the lane is back");
}

#[tokio::test]
async fn the_first_may_go_away_without_harm_to_the_others() {
    let settled = Arc::default();
    let (p, groups) = pipeline(&settled);
    let inlet = p.inlet();
    let mut first = Box::pin(inlet.submit(batch(1, 1), inlet.reserve(1).unwrap()));
    let mut second = Box::pin(inlet.submit(batch(1, 2), inlet.reserve(1).unwrap()));
    std::future::poll_fn(|cx| {
        assert!(first.as_mut().poll(cx).is_pending());
        assert!(second.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    drop(first);
    assert_eq!(*groups.0.lock().unwrap(), [3], "what was taken is kept");
    assert_eq!(second.await, Ok(Accepted { spans: 2 }));
    assert!(p.drain(GRACE).await.complete);
    assert_eq!(p.ledger().snapshot().spans(Outcome::Kept), 3);
}
