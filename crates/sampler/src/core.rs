//! The core sampler: counts signatures in a ring of time buckets and gives
//! each the rate at which all together reach a target per second
//! (`datadog-agent:pkg/trace/sampler/coresampler.go`).

use crate::SECOND;
use crate::signature::Signature;
use foldhash::fast::FixedState;
use std::collections::HashMap;

/// Buckets of the ring.
pub const BUCKETS: usize = 6;
/// Seconds per bucket.
const BUCKET_SECONDS: i64 = 5;
/// Rates rise by at most this factor per evaluation, so that a burst after a
/// quiet time is not let through whole.
const MAX_INCREASE: f64 = 1.2;

/// Counts of one signature, newest bucket at (unix seconds / 5) mod 6.
pub type Ring = [f32; BUCKETS];

/// A sampler over signatures.
#[derive(Clone, Debug)]
pub struct CoreSampler {
    target: f64,
    extra: f64,
    seen: HashMap<Signature, Ring, FixedState>,
    all: Ring,
    rates: HashMap<Signature, f64, FixedState>,
    lowest: f64,
    last_bucket: i64,
    max_signatures: usize,
}

impl CoreSampler {
    /// A sampler for `target` traces per second. Computed rates are multiplied
    /// by `extra` (`apm_config.extra_sample_rate`). An infinite target keeps
    /// everything.
    pub fn new(target: f64, extra: f64, seed: u64) -> Self {
        let hasher = FixedState::with_seed(seed);
        Self {
            target,
            extra,
            seen: HashMap::with_hasher(hasher.clone()),
            all: Ring::default(),
            rates: HashMap::with_hasher(hasher),
            lowest: 0.0,
            last_bucket: 0,
            max_signatures: 20_000,
        }
    }

    /// Counts `n` traces at `now` (nanoseconds since the Unix epoch); true if
    /// that opened a new bucket, so that all rates were computed anew.
    pub fn count(&mut self, now: i64, signature: Signature, n: f32) -> bool {
        let bucket = now.div_euclid(BUCKET_SECONDS * SECOND);
        let previous = std::mem::replace(&mut self.last_bucket, bucket);
        let anew = previous != bucket;
        if anew {
            self.update(previous, bucket);
        }
        let at = bucket.rem_euclid(BUCKETS as i64) as usize;
        self.all[at] += n;
        self.seen.entry(signature).or_default()[at] += n;
        anew
    }

    fn update(&mut self, previous: i64, bucket: i64) {
        if self.seen.is_empty() {
            return;
        }
        let tps = |max: f32| f64::from(max) / BUCKET_SECONDS as f64;
        let seen: Vec<(Signature, f64)> = self
            .seen
            .iter_mut()
            .map(|(s, ring)| (*s, tps(zero_and_get_max(ring, previous, bucket))))
            .collect();
        zero_and_get_max(&mut self.all, previous, bucket);
        let share = compute_tps_per_signature(self.target, seen.iter().map(|s| s.1));
        self.lowest = 1.0;
        let mut rates = HashMap::with_capacity_and_hasher(seen.len(), self.rates.hasher().clone());
        for (signature, seen) in seen {
            let mut rate = if share < seen && seen > 0.0 { share / seen } else { 1.0 };
            if let Some(previous) = self.rates.get(&signature) {
                rate = next_rate(*previous, rate);
            }
            rate = rate.min(1.0);
            if rate == 1.0 && seen == 0.0 {
                self.seen.remove(&signature);
                continue;
            }
            self.lowest = self.lowest.min(rate);
            rates.insert(signature, rate);
        }
        self.rates = rates;
    }

    /// Rate of a signature.
    pub fn rate(&self, signature: Signature) -> f64 {
        match self.rates.get(&signature) {
            Some(rate) => rate * self.extra,
            None => self.default_rate(),
        }
    }

    /// Rate of a known signature.
    pub fn known_rate(&self, signature: Signature) -> Option<f64> {
        self.rates.get(&signature).map(|r| r * self.extra)
    }

    /// Signatures with a rate.
    pub fn known(&self) -> impl Iterator<Item = Signature> + '_ {
        self.rates.keys().copied()
    }

    /// Rate of signatures never seen.
    pub fn default_rate(&self) -> f64 {
        if self.target == 0.0 {
            return 0.0;
        }
        let max = self.all.iter().copied().fold(0.0f32, f32::max);
        let seen = f64::from(max) / BUCKET_SECONDS as f64;
        let rate = if self.target < seen && seen > 0.0 { self.target / seen } else { 1.0 };
        if self.lowest < rate && self.lowest != 0.0 { self.lowest } else { rate }
    }

    /// Signatures being counted.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether nothing is being counted.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// The signature under which to count one when there are too many: beyond
    /// 20,000 new ones share 5,000 places. The reference has no bound.
    pub(crate) fn bounded(&self, signature: Signature) -> Signature {
        if self.seen.len() < self.max_signatures || self.seen.contains_key(&signature) {
            signature
        } else {
            signature % (self.max_signatures as u32 / 4)
        }
    }

    /// Target in traces per second.
    pub fn target(&self) -> f64 {
        self.target
    }

    /// Changes the target (remote configuration); rates are scaled at once.
    pub fn set_target(&mut self, target: f64) {
        let old = std::mem::replace(&mut self.target, target);
        if old > 0.0 && old.is_finite() && target.is_finite() {
            for rate in self.rates.values_mut() {
                *rate = (*rate * target / old).min(1.0);
            }
        }
    }
}

/// The part of a target that each signature may have: what signatures below
/// their share leave over goes to the others.
pub fn compute_tps_per_signature(target: f64, seen: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = seen.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let mut rest = target;
    let mut share = target / n.max(1) as f64;
    for (i, tps) in sorted.iter().enumerate() {
        if *tps >= share || i + 1 == n {
            break;
        }
        rest -= tps;
        share = rest / (n - i - 1) as f64;
    }
    share
}

/// Ages a ring from one bucket to another and gives the highest count that was
/// still in it.
pub fn zero_and_get_max(ring: &mut Ring, previous: i64, new: i64) -> f32 {
    let mut max = 0.0f32;
    for i in previous + 1..=previous + BUCKETS as i64 {
        let slot = &mut ring[i.rem_euclid(BUCKETS as i64) as usize];
        if i < new {
            *slot = 0.0;
            continue;
        }
        max = max.max(*slot);
        // The oldest still counts for the maximum before it is written over.
        if i == new {
            *slot = 0.0;
        }
    }
    max
}

/// The rate after the cap on increases.
pub fn next_rate(previous: f64, computed: f64) -> f64 {
    if previous != 0.0 && computed / previous > MAX_INCREASE { previous * MAX_INCREASE } else { computed }
}
