//! The rare sampler: keeps a trace now and then for every kind of span that
//! nothing else keeps (`datadog-agent:pkg/trace/sampler/rare_sampler.go`).

use crate::SECOND;
use crate::signature::{Signature, service_signature, span_signature};
use foldhash::fast::FixedState;
use spanloom_model::{Batch, Chunk, Span};
use std::collections::HashMap;

/// An entry is renewed only if that moves its expiry by this much.
const RENEWAL: i64 = 60 * SECOND;
/// Traces at once, at most.
const BURST: f64 = 50.0;
/// Most (environment, service) pairs told apart; beyond it they share places.
/// The reference has no bound.
const MAX_SHARDS: usize = 20_000;

/// See the module.
#[derive(Clone, Debug)]
pub struct RareSampler {
    shards: HashMap<Signature, Shard, FixedState>,
    hasher: FixedState,
    tokens: Tokens,
    cool_down: i64,
    cardinality: u32,
    hits: u64,
    misses: u64,
    shrinks: u64,
}

#[derive(Clone, Debug)]
struct Shard {
    expires: HashMap<Signature, i64, FixedState>,
    shrunk: bool,
}

/// A token bucket that starts full.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    per_second: f64,
    burst: f64,
    left: f64,
    at: Option<i64>,
}

impl Tokens {
    pub fn new(per_second: f64, burst: f64) -> Self {
        Self { per_second, burst, left: burst, at: None }
    }

    /// Takes `n` tokens if there are as many. A clock that goes back gives none.
    pub fn take(&mut self, n: f64, now: i64) -> bool {
        if let Some(at) = self.at
            && now > at
        {
            let seconds = now.saturating_sub(at) as f64 / SECOND as f64;
            self.left = (self.left + seconds * self.per_second).min(self.burst);
        }
        self.at = Some(self.at.map_or(now, |at| at.max(now)));
        let enough = self.left >= n;
        if enough {
            self.left -= n;
        }
        enough
    }
}

/// Limits of the rare sampler.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RareLimits {
    /// Traces a second.
    pub per_second: f64,
    /// Nanoseconds before a signature is rare again.
    pub cool_down: i64,
    /// Signatures remembered for each service.
    pub cardinality: u32,
}

impl Default for RareLimits {
    /// The reference's: 5 a second, five minutes, 200.
    fn default() -> Self {
        Self { per_second: 5.0, cool_down: 300 * SECOND, cardinality: 200 }
    }
}

impl RareLimits {
    /// A sampler with these limits.
    pub fn sampler(&self, seed: u64) -> RareSampler {
        RareSampler::with_limits(self.per_second, BURST, self.cool_down, self.cardinality, seed)
    }
}

impl RareSampler {
    /// A sampler with the reference's defaults: 5 traces per second with a
    /// burst of 50, a cool-down of five minutes, 200 signatures per shard.
    pub fn new(seed: u64) -> Self {
        RareLimits::default().sampler(seed)
    }

    /// A sampler with other limits; `cool_down` in nanoseconds.
    pub fn with_limits(per_second: f64, burst: f64, cool_down: i64, cardinality: u32, seed: u64) -> Self {
        let hasher = FixedState::with_seed(seed);
        Self {
            shards: HashMap::with_hasher(hasher.clone()),
            hasher,
            tokens: Tokens::new(per_second, burst),
            cool_down,
            cardinality: cardinality.max(1),
            hits: 0,
            misses: 0,
            shrinks: 0,
        }
    }

    /// Spans with a free signature that got a token, that got none, and shards
    /// that were shrunk.
    pub fn counts(&self) -> (u64, u64, u64) {
        (self.hits, self.misses, self.shrinks)
    }

    /// Whether to keep the chunk; marks the span that made it so.
    pub fn sample(&mut self, batch: &mut Batch, chunk: &Chunk, env: &str, now: i64) -> bool {
        let mut kept = None;
        for (i, span) in batch.chunk_spans(chunk).iter().enumerate() {
            if !eligible(batch, span) {
                continue;
            }
            let (shard, signature) = self.place(batch, span, env);
            let free =
                self.shards.get(&shard).and_then(|s| s.expires.get(&signature)).is_none_or(|e| now > *e);
            if !free {
                continue;
            }
            if self.tokens.take(1.0, now) {
                self.hits += 1;
                kept = Some(chunk.spans.start as usize + i);
                break;
            }
            self.misses += 1;
        }
        let Some(kept) = kept else { return false };
        for span in batch.chunk_spans(chunk) {
            if eligible(batch, span) {
                let (shard, signature) = self.place(batch, span, env);
                self.mark(shard, signature, now);
            }
        }
        batch.set_f64(kept, "_dd.rare", 1.0);
        true
    }

    fn place(&self, batch: &Batch, span: &Span, env: &str) -> (Signature, Signature) {
        let mut shard = service_signature(env, batch.str(span.service));
        if self.shards.len() >= MAX_SHARDS && !self.shards.contains_key(&shard) {
            shard %= MAX_SHARDS as u32;
        }
        let signature = span_signature(batch, span, "", true);
        match self.shards.get(&shard) {
            Some(s) if s.shrunk => (shard, signature % self.cardinality),
            _ => (shard, signature),
        }
    }

    fn mark(&mut self, shard: Signature, signature: Signature, now: i64) {
        let expire = now.saturating_add(self.cool_down);
        let hasher = &self.hasher;
        let fresh = || Shard { expires: HashMap::with_hasher(hasher.clone()), shrunk: false };
        let shard = self.shards.entry(shard).or_insert_with(fresh);
        let stored = shard.expires.get(&signature);
        if stored.is_some_and(|s| expire.saturating_sub(*s) < RENEWAL) {
            return;
        }
        shard.expires.insert(signature, expire);
        if shard.expires.len() > self.cardinality as usize {
            let mut less = HashMap::with_hasher(hasher.clone());
            for (signature, expire) in shard.expires.drain() {
                let e = less.entry(signature % self.cardinality).or_insert(expire);
                *e = expire.max(*e);
            }
            shard.expires = less;
            shard.shrunk = true;
            self.shrinks += 1;
        }
    }
}

fn eligible(batch: &Batch, span: &Span) -> bool {
    ["_top_level", "_dd.top_level", "_dd.measured"].iter().any(|key| batch.span_f64(span, key) == Some(1.0))
}
