//! The rooms that decide about spans, as a processor of the pipeline. Order is
//! meaning: statistics count what the Agent's steps left over, and sampling
//! comes last, so that statistics see everything; a chunk goes through all of
//! it before the next one begins.

use spanloom_model::{Batch, Leaves};
use spanloom_obfuscator::Obfuscator;
use spanloom_pipeline::{ChainFactory, Effects, Processor, Rates};
use spanloom_processors::{Agent, AgentConfig, Counts, SpanObfuscator};
use spanloom_sampler::Samplers;
use spanloom_stats::Concentrator;
use std::collections::BTreeMap;
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
    /// Tells tracers the samplers' rates.
    pub feedback: Arc<Feedback>,
}

/// The samplers' rates on their way to the receiver: published when they
/// change, not before there are any.
pub struct Feedback {
    rates: Rates,
    told: Mutex<Arc<BTreeMap<String, f64>>>,
}

impl Feedback {
    /// Tells `rates`.
    pub fn new(rates: Rates) -> Self {
        Self { rates, told: Mutex::default() }
    }

    /// Publishes what the samplers say now, if it is news.
    pub fn tell(&self, samplers: &Samplers, now: i64) {
        let news = samplers.rates();
        let mut told = lock(&self.told);
        if !news.is_empty() && !Arc::ptr_eq(&told, news) {
            *told = Arc::clone(news);
            self.rates.publish(BTreeMap::clone(news), now);
        }
    }
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
            feedback: Arc::clone(&shared.feedback),
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
    feedback: Arc<Feedback>,
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
        if let Some(samplers) = samplers {
            self.feedback.tell(&lock(samplers), now);
        }
        for (reason, n) in counts.malformed {
            fx.note("spans_malformed", reason, n);
        }
    }
}
