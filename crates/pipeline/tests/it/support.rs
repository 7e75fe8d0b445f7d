//! Destinations and processors that tests control.

use spanloom_model::{AckFn, Batch, Chunk, Fate, Protocol, Range32, Span, SpanWriter, StoreError};
use spanloom_pipeline::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub struct FixedClock;
impl Clock for FixedClock {
    fn now(&self) -> i64 {
        1_795_190_000_000_000_000
    }
}

/// `chunks` traces of `spans` spans each.
pub fn batch(chunks: usize, spans: usize) -> Batch {
    let mut b = Batch::default();
    b.intake.protocol = Protocol::DatadogV05;
    for i in 0..chunks {
        let service = b.arena.push("web");
        b.spans.extend(vec![Span { service, ..Span::default() }; spans]);
        b.chunks.push(Chunk { spans: Range32::new(i * spans, (i + 1) * spans), ..Chunk::default() });
    }
    b
}

/// A store that answers what it is told, at once or when released.
#[derive(Default)]
pub struct TestStore {
    pub refuse: Mutex<Option<StoreError>>,
    pub hold: Mutex<bool>,
    pub held: Mutex<Vec<AckFn>>,
    pub spans: Mutex<u64>,
}

impl SpanWriter for TestStore {
    fn append(&self, batch: Arc<Batch>, done: AckFn) {
        let kept: usize = batch.chunks.iter().filter(|c| c.fate == Fate::Kept).map(|c| c.spans.len()).sum();
        if *self.hold.lock().unwrap() {
            self.held.lock().unwrap().push(done);
            return;
        }
        match self.refuse.lock().unwrap().clone() {
            Some(error) => done(Err(error)),
            None => {
                *self.spans.lock().unwrap() += kept as u64;
                done(Ok(()));
            }
        }
    }
}

impl Exporter for TestStore {
    fn export(&self, batch: Arc<Batch>, done: AckFn) {
        self.append(batch, done);
    }
}

pub struct Step<F>(pub F);
impl<F: FnMut(&mut Batch, &mut Effects) + Send> Processor for Step<F> {
    fn process(&mut self, batch: &mut Batch, _now: i64, fx: &mut Effects) {
        (self.0)(batch, fx);
    }
}

pub fn no_steps() -> ChainFactory {
    Arc::new(|_| Vec::new())
}

pub fn start(config: Config, chain: ChainFactory, destinations: Vec<Destination>) -> Pipeline {
    let rates = Rates::default();
    rates.publish(BTreeMap::new(), 0);
    Pipeline::start(
        config,
        Arc::new(FixedClock),
        chain,
        destinations,
        Arc::new(DiscardStats),
        rates,
        Arc::default(),
    )
    .unwrap()
}

pub const GRACE: Duration = Duration::from_secs(30);

pub fn count(s: &Snapshot, outcome: Outcome, reason: &str) -> u64 {
    s.outcomes.iter().filter(|c| c.outcome == outcome && c.reason == reason).map(|c| c.spans).sum()
}
