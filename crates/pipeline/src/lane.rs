//! A chain of processors and what surrounds it: a batch goes in, its
//! deliveries come out, and a panic costs that batch alone.

use crate::engine::{Accepted, Job, Refused, Shared, Undecoded, give_up};
use crate::fanout::{self, Processed};
use crate::ledger::Verdict;
use crate::processor::{Effects, Processor};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Builds the processors of one lane (its number is the argument). Called
/// again after a panic, so that no half-changed state is used.
pub type ChainFactory = Arc<dyn Fn(usize) -> Vec<Box<dyn Processor>> + Send + Sync>;

/// One batch at a time goes through it.
pub(crate) struct Lane {
    factory: ChainFactory,
    number: usize,
    chain: Vec<Box<dyn Processor>>,
    fx: Effects,
}

impl Lane {
    pub(crate) fn new(factory: ChainFactory, number: usize) -> Self {
        Self { chain: factory(number), factory, number, fx: Effects::default() }
    }

    /// Decodes a body, then as [`Lane::run`].
    pub(crate) fn decode_and_run(&mut self, shared: &Shared, body: Undecoded) {
        let Undecoded { decode, answer } = body;
        let over = match catch_unwind(AssertUnwindSafe(decode)) {
            Ok(Some((batch, mut permit))) => {
                permit.resize(batch.size() as u64);
                let account = shared.ledger.open(&batch);
                self.run(shared, vec![Job { batch, account, permit, answer }]);
                return;
            }
            Ok(None) => Ok(Accepted { spans: 0 }),
            Err(_) => {
                tracing::error!(lane = self.number, "a decoder panicked; its body is lost");
                Err(Refused::Failed)
            }
        };
        // A client that has gone is not told.
        let _ = answer.send(over);
    }

    /// Processes batches and gives them to the destinations.
    pub(crate) fn run(&mut self, shared: &Shared, jobs: Vec<Job>) {
        let now = shared.clock.now();
        let processed = jobs.into_iter().filter_map(|job| self.process(shared, job, now)).collect();
        fanout::deliver(&shared.deliveries, &shared.destinations, processed);
        self.chain.iter_mut().for_each(|processor| processor.settle());
    }

    /// None: it was given up.
    fn process(&mut self, shared: &Shared, mut job: Job, now: i64) -> Option<Processed> {
        let done = catch_unwind(AssertUnwindSafe(|| {
            for processor in &mut self.chain {
                processor.process(&mut job.batch, now, &mut self.fx);
            }
        }));
        self.fx.flush(&shared.ledger);
        let saves = self.fx.take_saves();
        if done.is_err() {
            tracing::error!(lane = self.number, "a processor panicked; its batch is lost");
            give_up(job, Verdict::Lost("panic"), Refused::Failed);
            self.chain = (self.factory)(self.number);
            return None;
        }
        job.permit.resize(job.batch.size() as u64);
        Some(Processed { job, saves })
    }
}
