//! Samplers that decide themselves: traces without a priority, and traces with
//! errors that nobody else kept (`datadog-agent:pkg/trace/sampler/scoresampler.go`).

use crate::core::CoreSampler;
use crate::signature::{Signature, global_rate, root_weight, sample_by_rate, trace_signature};
use foldhash::fast::FixedState;
use spanloom_model::{Batch, Chunk};
use std::collections::HashSet;

/// From this many signatures on, new ones share this many places.
const MAX_SIGNATURES: u32 = 100;

/// See the module.
#[derive(Clone, Debug)]
pub struct ScoreSampler {
    core: CoreSampler,
    rate_key: &'static str,
    /// Signatures known when they became too many; they keep their own rate.
    known: Option<HashSet<Signature, FixedState>>,
    hasher: FixedState,
    scratch: Vec<Signature>,
}

impl ScoreSampler {
    /// The sampler of traces without priority (`_dd.no_p_sr`).
    pub fn no_priority(target: f64, extra: f64, seed: u64) -> Self {
        Self::new(target, extra, "_dd.no_p_sr", seed)
    }

    /// The sampler of traces with errors (`_dd.errors_sr`); a target of 0
    /// switches it off.
    pub fn errors(target: f64, extra: f64, seed: u64) -> Self {
        Self::new(target, extra, "_dd.errors_sr", seed)
    }

    fn new(target: f64, extra: f64, rate_key: &'static str, seed: u64) -> Self {
        let core = CoreSampler::new(target, extra, seed);
        Self { core, rate_key, known: None, hasher: FixedState::with_seed(seed), scratch: Vec::new() }
    }

    /// The counting part.
    pub fn core(&self) -> &CoreSampler {
        &self.core
    }

    /// The counting part, for a change of the target.
    pub fn core_mut(&mut self) -> &mut CoreSampler {
        &mut self.core
    }

    /// Decides on a chunk; answers whether to keep it and at which rate. Writes
    /// the rate on the root if it keeps.
    pub fn sample(
        &mut self,
        batch: &mut Batch,
        chunk: &Chunk,
        root: usize,
        env: &str,
        now: i64,
    ) -> (bool, f64) {
        let Some(span) = batch.spans.get(root).copied() else { return (false, 0.0) };
        let signature = trace_signature(batch, chunk, root, env, &mut self.scratch);
        let signature = self.shrink(signature);
        self.core.count(now, signature, root_weight(batch, &span));
        let rate = self.core.rate(signature);
        let keep = sample_by_rate(span.trace_id, global_rate(batch, &span) * rate);
        if keep {
            batch.set_f64(root, self.rate_key, rate);
        }
        (keep, rate)
    }

    fn shrink(&mut self, signature: Signature) -> Signature {
        if self.core.len() < MAX_SIGNATURES as usize {
            self.known = None;
            return signature;
        }
        let core = &self.core;
        let known = self.known.get_or_insert_with(|| {
            let mut known = HashSet::with_hasher(self.hasher.clone());
            known.extend(core.known());
            known
        });
        if known.contains(&signature) { signature } else { signature % MAX_SIGNATURES }
    }
}
