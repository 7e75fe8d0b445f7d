//! The rooms that decide about spans, as a processor of the pipeline. Order is
//! meaning: statistics count what the Agent's steps left over, and sampling
//! comes last, so that statistics see everything; a chunk goes through all of
//! it before the next one begins.

use spanloom_model::{Batch, Leaves};
use spanloom_obfuscator::Obfuscator;
use spanloom_pipeline::{ChainFactory, Effects, Processor};
use spanloom_processors::{Agent, AgentConfig, Counts, SpanObfuscator};
use spanloom_sampler::Samplers;
use spanloom_stats::Concentrator;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the workers share.
#[derive(Clone)]
pub struct Shared {
    /// The Agent's steps.
    pub agent: AgentConfig,
    /// The obfuscator.
    pub obfuscator: Arc<Obfuscator>,
    /// Also scrub `db.statement` and `db.query.text`.
    pub statement_tags: bool,
    /// Statistics of spans.
    pub concentrator: Arc<Mutex<Concentrator>>,
    /// The samplers; none: nothing leaves for Datadog.
    pub samplers: Option<Arc<Mutex<Samplers>>>,
}

/// A lock that outlives a panic elsewhere: the pipeline rebuilds a worker's
/// chain after one, and what is shared stays consistent chunk by chunk.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The chain of each worker.
pub fn factory(shared: Shared) -> ChainFactory {
    Arc::new(move |_worker| {
        let mut scrubber = SpanObfuscator::new(Arc::clone(&shared.obfuscator), shared.statement_tags);
        let scrub: Scrub = Box::new(move |batch, span| scrubber.scrub(batch, span));
        vec![Box::new(AgentStep {
            agent: Agent::new(shared.agent.clone(), scrub),
            concentrator: Arc::clone(&shared.concentrator),
            samplers: shared.samplers.clone(),
        })]
    })
}

type Scrub = Box<dyn FnMut(&mut Batch, usize) + Send>;

/// What the Agent does to spans of Datadog tracers. Spans of other protocols
/// are stored as they came.
struct AgentStep {
    agent: Agent<Scrub>,
    concentrator: Arc<Mutex<Concentrator>>,
    samplers: Option<Arc<Mutex<Samplers>>>,
}

impl Processor for AgentStep {
    fn process(&mut self, batch: &mut Batch, now: i64, fx: &mut Effects) {
        if !batch.intake.protocol.is_datadog() {
            return;
        }
        let mut counts = Counts::default();
        let resent = batch.intake.resent;
        let counted = batch.intake.client.computed_stats || resent;
        let (concentrator, samplers) = (&self.concentrator, &self.samplers);
        self.agent.process(batch, now, &mut counts, |batch, c| {
            if !counted {
                lock(concentrator).add_chunk(batch, &batch.chunks[c], now);
            }
            match samplers {
                // The first copy is on its way already.
                Some(_) if resent => {
                    batch.chunks[c].sampled.leaves = Leaves::Nothing;
                    true
                }
                Some(samplers) => lock(samplers).decide(batch, c, now).leaves != Leaves::Nothing,
                None => true,
            }
        });
        for (reason, n) in counts.malformed {
            fx.note("spans_malformed", reason, n);
        }
    }
}
