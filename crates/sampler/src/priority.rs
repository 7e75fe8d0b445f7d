//! The priority sampler: obeys what tracers decided and tells them at which
//! rate to decide (`datadog-agent:pkg/trace/sampler/prioritysampler.go`,
//! `catalog.go`, `dynamic_config.go`).

use crate::core::CoreSampler;
use crate::signature::{Signature, root_weight, service_key, service_signature};
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use spanloom_model::{Batch, Span};
use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::Arc;

/// Rate of the agent that the tracer applied.
pub const AGENT_RATE: &str = "_dd.agent_psr";
/// Rate of a tracer's rule.
pub const RULE_RATE: &str = "_dd.rule_psr";
/// Rate that the agent would apply; older tracers write it themselves.
pub const PRIORITY_RATE: &str = "_sampling_priority_rate_v1";

/// Rates to tell tracers, per key `service:<name>,env:<env>`, 0 to 1.
pub type Rates = BTreeMap<String, f64>;

#[derive(Clone, Debug)]
struct Entry {
    service: Box<str>,
    env: Box<str>,
    signature: Signature,
    used: u64,
}

/// Services seen last, at most a fixed number.
#[derive(Clone, Debug)]
pub struct Catalog {
    max: usize,
    entries: Vec<Entry>,
    table: HashTable<u32>,
    /// Place of each entry by the time of its last use.
    order: BTreeMap<u64, u32>,
    clock: u64,
    hasher: FixedState,
}

impl Catalog {
    /// A catalogue of at most `max` services.
    pub fn new(max: usize, seed: u64) -> Self {
        Self {
            max: max.max(1),
            entries: Vec::new(),
            table: HashTable::new(),
            order: BTreeMap::new(),
            clock: 0,
            hasher: FixedState::with_seed(seed),
        }
    }

    /// Notes a service and gives its signature. The service unused for longest
    /// makes room.
    pub fn register(&mut self, service: &str, env: &str) -> Signature {
        self.clock += 1;
        let hash = self.hasher.hash_one((service, env));
        let entries = &self.entries;
        let same = |i: &u32| *entries[*i as usize].service == *service && *entries[*i as usize].env == *env;
        if let Some(at) = self.table.find(hash, same).copied() {
            let entry = &mut self.entries[at as usize];
            self.order.remove(&entry.used);
            entry.used = self.clock;
            self.order.insert(self.clock, at);
            return entry.signature;
        }
        let signature = service_signature(service, env);
        let entry = Entry { service: service.into(), env: env.into(), signature, used: self.clock };
        let at = if self.entries.len() < self.max {
            self.entries.push(entry);
            self.entries.len() as u32 - 1
        } else {
            let Some((_, at)) = self.order.pop_first() else { return signature };
            let old = &self.entries[at as usize];
            let old_hash = self.hasher.hash_one((&*old.service, &*old.env));
            if let Ok(slot) = self.table.find_entry(old_hash, |i| *i == at) {
                slot.remove();
            }
            self.entries[at as usize] = entry;
            at
        };
        self.order.insert(self.clock, at);
        let (entries, hasher) = (&self.entries, &self.hasher);
        let of = |i: &u32| hasher.hash_one((&*entries[*i as usize].service, &*entries[*i as usize].env));
        self.table.insert_unique(hash, at, of);
        signature
    }

    /// Service and environment of all entries, sorted.
    pub fn services(&self) -> Vec<(&str, &str)> {
        let mut all: Vec<_> = self.entries.iter().map(|e| (&*e.service, &*e.env)).collect();
        all.sort_unstable();
        all
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn retain(&mut self, keep: impl Fn(Signature) -> bool) {
        if self.entries.iter().all(|e| keep(e.signature)) {
            return;
        }
        self.entries.retain(|e| keep(e.signature));
        self.table.clear();
        self.order.clear();
        let (entries, hasher) = (&self.entries, &self.hasher);
        let of = |i: &u32| hasher.hash_one((&*entries[*i as usize].service, &*entries[*i as usize].env));
        for (i, entry) in entries.iter().enumerate() {
            self.order.insert(entry.used, i as u32);
            self.table.insert_unique(of(&(i as u32)), i as u32, of);
        }
    }
}

/// Rates of all services of a catalogue that have one; the others are
/// forgotten. Services of the agent's environment appear with an empty
/// environment too, because tracers may not know theirs.
pub fn rates_by_service(
    catalog: &mut Catalog,
    agent_env: &str,
    rate: impl Fn(Signature) -> Option<f64>,
    default: f64,
) -> Rates {
    catalog.retain(|s| rate(s).is_some());
    let mut out = BTreeMap::new();
    for entry in &catalog.entries {
        let rate = rate(entry.signature).unwrap_or(default).clamp(0.0, 1.0);
        out.insert(service_key(&entry.service, &entry.env), rate);
        if *entry.env == *agent_env {
            out.insert(service_key(&entry.service, ""), rate);
        }
    }
    out.insert(service_key("", ""), default.clamp(0.0, 1.0));
    out
}

/// See the module.
#[derive(Clone, Debug)]
pub struct PrioritySampler {
    agent_env: String,
    catalog: Catalog,
    core: CoreSampler,
    rates: Arc<Rates>,
}

impl PrioritySampler {
    /// A sampler with a target in traces per second.
    pub fn new(target: f64, extra: f64, agent_env: &str, max_services: usize, seed: u64) -> Self {
        Self {
            agent_env: agent_env.to_owned(),
            catalog: Catalog::new(max_services, seed),
            core: CoreSampler::new(target, extra, seed),
            rates: Arc::default(),
        }
    }

    /// The rates to tell tracers; empty before the first count. Replaced as a
    /// whole, and only when a rate or a key changes, so that comparing pointers
    /// tells whether there is something to publish.
    pub fn rates(&self) -> &Arc<Rates> {
        &self.rates
    }

    /// The counting part.
    pub fn core(&self) -> &CoreSampler {
        &self.core
    }

    /// The counting part, for a change of the target.
    pub fn core_mut(&mut self) -> &mut CoreSampler {
        &mut self.core
    }

    /// Decides on a chunk that carries a priority. Answers whether to keep it
    /// and at which rate that was, 0 when the user decided. `dropped` is how
    /// many traces the client dropped per chunk that it sent. Writes the rate
    /// on a kept root that has none.
    pub fn sample(
        &mut self,
        batch: &mut Batch,
        root: usize,
        priority: i32,
        env: &str,
        dropped: f64,
        now: i64,
    ) -> (bool, f64) {
        let keep = priority == 1 || priority == 2;
        let Some(span) = batch.spans.get(root).copied().filter(|_| (0..=1).contains(&priority)) else {
            return (keep, 0.0);
        };
        let env = if env.is_empty() { &self.agent_env } else { env };
        let signature = self.catalog.register(batch.str(span.service), env);
        let signature = self.core.bounded(signature);
        let weight = root_weight(batch, &span) + dropped as f32;
        if self.core.count(now, signature, weight) {
            self.publish();
        }
        let rate = match known_rate(batch, &span) {
            Some(rate) => rate,
            None => self.core.rate(signature),
        };
        if keep && span.parent_id.is_zero() && known_rate(batch, &span).is_none() {
            batch.set_f64(root, PRIORITY_RATE, rate);
        }
        (keep, rate)
    }

    fn publish(&mut self) {
        let core = &self.core;
        let default = core.default_rate();
        let rates = rates_by_service(&mut self.catalog, &self.agent_env, |s| core.known_rate(s), default);
        if rates != *self.rates {
            self.rates = Arc::new(rates);
        }
    }
}

/// Rate that somebody applied to the root already.
fn known_rate(batch: &Batch, root: &Span) -> Option<f64> {
    [AGENT_RATE, RULE_RATE, PRIORITY_RATE].iter().find_map(|key| batch.span_f64(root, key))
}
