//! All head samplers in the Agent's order (`datadog-agent:pkg/trace/agent/agent.go`).

use crate::events::{EventSettings, Events};
use crate::priority::{PrioritySampler, Rates};
use crate::probabilistic::Probabilistic;
use crate::rare::{RareLimits, RareSampler};
use crate::score::ScoreSampler;
use spanloom_model::{
    Attr, Batch, Chunk, Fate, Leaves, PRIORITY_NONE, Protocol, Sampled, Value, flags, keys,
};
use std::sync::Arc;

/// Names of the rules that decide, for `why` and for metrics.
pub mod by {
    /// The tracer or the user decided to drop (priority below 0).
    pub const MANUAL_DROP: &str = "manual_drop";
    /// The user decided to keep (priority 2).
    pub const MANUAL_KEEP: &str = "manual_keep";
    /// The tracer sampled it away at the agent's rate (priority 0).
    pub const AUTO_DROP: &str = "auto_drop";
    /// The tracer kept it at the agent's rate (priority 1).
    pub const AUTO_KEEP: &str = "auto_keep";
    /// A priority that means nothing (3 and above): not kept.
    pub const UNKNOWN_PRIORITY: &str = "unknown_priority";
    /// The sampler of traces without priority.
    pub const NO_PRIORITY: &str = "no_priority";
    /// The errors sampler.
    pub const ERRORS: &str = "errors";
    /// The rare sampler.
    pub const RARE: &str = "rare";
    /// The probabilistic sampler.
    pub const PROBABILISTIC: &str = "probabilistic";
    /// Error tracking standalone, for a chunk without error.
    pub const ERROR_TRACKING: &str = "error_tracking_standalone";
    /// Not kept, but a tracer's rule for single spans chose some.
    pub const SINGLE_SPAN: &str = "single_span";
    /// No head sampler was asked: rules over whole traces decide later.
    pub const TAIL_RULES: &str = "tail_rules";
    /// Not kept, but some spans are analysed events.
    pub const EVENTS: &str = "analyzed_events";
}

const SINGLE_SPAN_MECHANISM: &str = "_dd.span_sampling.mechanism";
const HAS_EXCEPTION: &str = "_dd.span_events.has_exception";
const STANDALONE_ERROR: &str = "_dd.error_tracking_standalone.error";

/// Settings of the head samplers, with the reference's defaults.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Default environment of the agent.
    pub env: String,
    /// `apm_config.target_traces_per_second`; infinite: keep all and tell
    /// tracers a rate of 1.
    pub target_tps: f64,
    /// `apm_config.errors_per_second`.
    pub errors_tps: f64,
    /// `apm_config.extra_sample_rate`.
    pub extra_rate: f64,
    /// `apm_config.max_catalog_entries`.
    pub max_services: usize,
    /// `apm_config.enable_rare_sampler`.
    pub rare: bool,
    /// Its limits (`apm_config.rare_sampler.*`).
    pub rare_limits: RareLimits,
    /// `apm_config.probabilistic_sampler`, if enabled.
    pub probabilistic: Option<Probabilistic>,
    /// `apm_config.error_tracking_standalone.enabled`.
    pub error_tracking_standalone: bool,
    /// Feature `error_rare_sample_tracer_drop`.
    pub error_rare_sample_tracer_drop: bool,
    /// Rules over whole traces decide what leaves, instead of the head
    /// samplers: of these only the user's own decisions hold (priorities below
    /// 0, and 2). Not in error tracking mode.
    pub tail_rules: bool,
    /// Analysed events.
    pub events: EventSettings,
    /// Seed of the hash tables.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            env: "none".into(),
            target_tps: 10.0,
            errors_tps: 10.0,
            extra_rate: 1.0,
            max_services: 5000,
            rare: false,
            rare_limits: RareLimits::default(),
            probabilistic: None,
            error_tracking_standalone: false,
            error_rare_sample_tracer_drop: false,
            tail_rules: false,
            events: EventSettings::default(),
            seed: 0,
        }
    }
}

/// What became of a chunk.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Decision {
    /// Whether the whole chunk was kept.
    pub keep: bool,
    /// Rule that decided, see [`by`].
    pub by: &'static str,
    /// Rate at which it decided; 0 when not rate-based.
    pub rate: f64,
    /// What leaves.
    pub leaves: Leaves,
    /// Analysed events among the spans.
    pub events: u32,
    /// Time of the decision, nanoseconds since the Unix epoch.
    pub at: i64,
}

/// Chunks by outcome since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Chunks decided on.
    pub seen: u64,
    /// Chunks kept whole.
    pub kept: u64,
    /// Analysed events.
    pub events: u64,
    /// Chunks of which only single spans leave.
    pub single_span: u64,
}

/// All head samplers. One per process: rates are about all traffic.
#[derive(Clone, Debug)]
pub struct Samplers {
    standalone: bool,
    only_manual_drop: bool,
    tail_rules: bool,
    rare: Option<RareSampler>,
    rare_limits: RareLimits,
    probabilistic: Option<Probabilistic>,
    priority: PrioritySampler,
    no_priority: ScoreSampler,
    errors: ScoreSampler,
    events: Events,
    counts: Counts,
    found: Vec<u32>,
    seed: u64,
}

/// Answer of the samplers proper: keep, rule, rate.
type Answer = (bool, &'static str, f64);

impl Samplers {
    /// Samplers with settings.
    pub fn new(s: &Settings) -> Self {
        Self {
            standalone: s.error_tracking_standalone,
            only_manual_drop: s.error_rare_sample_tracer_drop,
            tail_rules: s.tail_rules,
            rare: s.rare.then(|| s.rare_limits.sampler(s.seed)),
            rare_limits: s.rare_limits,
            probabilistic: s.probabilistic.clone(),
            priority: PrioritySampler::new(s.target_tps, s.extra_rate, &s.env, s.max_services, s.seed),
            no_priority: ScoreSampler::no_priority(s.target_tps, s.extra_rate, s.seed),
            errors: ScoreSampler::errors(s.errors_tps, s.extra_rate, s.seed),
            events: Events::new(&s.events),
            counts: Counts::default(),
            found: Vec::new(),
            seed: s.seed,
        }
    }

    /// The rates to tell tracers.
    pub fn rates(&self) -> &Arc<Rates> {
        self.priority.rates()
    }

    /// Chunks by outcome.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Hits, misses and shrinks of the rare sampler.
    pub fn rare_counts(&self) -> (u64, u64, u64) {
        self.rare.as_ref().map(RareSampler::counts).unwrap_or_default()
    }

    /// Changes targets (remote configuration).
    pub fn set_targets(&mut self, target_tps: f64, errors_tps: f64, rare: bool) {
        self.priority.core_mut().set_target(target_tps);
        self.no_priority.core_mut().set_target(target_tps);
        self.errors.core_mut().set_target(errors_tps);
        match (&self.rare, rare) {
            (None, true) => self.rare = Some(self.rare_limits.sampler(self.seed)),
            (Some(_), false) => self.rare = None,
            _ => {}
        }
    }

    /// Decides on a chunk and writes what the reference writes: rates on spans,
    /// tags and priority on the chunk, [`Chunk::dropped`] and [`Chunk::sampled`].
    /// If only single spans or events leave they get [`flags::LEAVES`]; no span
    /// is removed, because the store wants them all (see [`Samplers::trim`]).
    /// Processors ran before. `now` in nanoseconds since the Unix epoch. A
    /// position without chunk, or a chunk without spans, is not kept.
    pub fn decide(&mut self, batch: &mut Batch, chunk: usize, now: i64) -> Decision {
        let none = Decision { keep: false, by: "", rate: 0.0, leaves: Leaves::Nothing, events: 0, at: now };
        let Some(copy) = batch.chunks.get(chunk).copied() else { return none };
        let Some(root) = batch.chunk_root(&copy) else { return none };
        let env = batch
            .resources
            .get(copy.resource as usize)
            .map(|r| batch.str(r.env).to_owned())
            .unwrap_or_default();
        let (keep, by, rate) = self.ask(batch, chunk, &copy, root, &env, now);

        let mut decision = Decision { keep, by, rate, leaves: Leaves::Whole, ..none };
        let mut dropped = !keep;
        if !self.standalone {
            let priority = said(&copy);
            let mut found = std::mem::take(&mut self.found);
            found.clear();
            if by != by::MANUAL_DROP {
                self.events.mark(batch, &copy, root, priority, now, &mut found);
            }
            decision.events = found.len() as u32;
            if !keep {
                decision.leaves = if mark_single_spans(batch, &copy) {
                    batch.chunks[chunk].priority = 2;
                    decision.by = by::SINGLE_SPAN;
                    self.counts.single_span += 1;
                    dropped = false;
                    Leaves::Marked
                } else if found.is_empty() {
                    Leaves::Nothing
                } else {
                    decision.by = by::EVENTS;
                    for at in &found {
                        batch.spans[*at as usize].flags |= flags::LEAVES;
                    }
                    Leaves::Marked
                };
            }
            self.found = found;
        }
        self.counts.seen += 1;
        self.counts.kept += u64::from(keep);
        self.counts.events += u64::from(decision.events);
        let chunk = &mut batch.chunks[chunk];
        chunk.dropped = dropped;
        chunk.sampled = Sampled { keep, leaves: decision.leaves, by: decision.by, rate, at: now };
        decision
    }

    fn ask(
        &mut self,
        batch: &mut Batch,
        at: usize,
        chunk: &Chunk,
        root: usize,
        env: &str,
        now: i64,
    ) -> Answer {
        if self.standalone {
            if !has_error(batch, chunk, true) {
                return (false, by::ERROR_TRACKING, 0.0);
            }
            set_chunk_tag(batch, at, STANDALONE_ERROR, "true");
            return self.ask_errors(batch, chunk, root, env, now);
        }
        let priority = said(chunk);
        let manual_drop = match priority {
            Some(p) if self.only_manual_drop => p == -1 && decided_manually(batch, chunk),
            Some(p) => p < 0,
            None => false,
        };
        if self.tail_rules {
            return match priority {
                _ if manual_drop => (false, by::MANUAL_DROP, 0.0),
                Some(2) => (true, by::MANUAL_KEEP, 0.0),
                _ => (true, by::TAIL_RULES, 0.0),
            };
        }
        let rare = self.rare.as_mut().is_some_and(|r| r.sample(batch, chunk, env, now));
        if self.probabilistic.is_some() {
            let answer = self.ask_probabilistic(batch, at, chunk, root, env, rare, now);
            batch.chunks[at].priority = i32::from(answer.0);
            return answer;
        }
        if manual_drop {
            return (false, by::MANUAL_DROP, 0.0);
        }
        if rare {
            return (true, by::RARE, 0.0);
        }
        let (keep, rule, rate) = match priority {
            Some(p) => {
                let dropped = dropped_per_chunk(batch);
                let (keep, rate) = self.priority.sample(batch, root, p, env, dropped, now);
                let rule = match p {
                    2 => by::MANUAL_KEEP,
                    1 => by::AUTO_KEEP,
                    0 => by::AUTO_DROP,
                    ..0 => by::MANUAL_DROP,
                    3.. => by::UNKNOWN_PRIORITY,
                };
                (keep, rule, rate)
            }
            None => {
                let (keep, rate) = self.no_priority.sample(batch, chunk, root, env, now);
                (keep, by::NO_PRIORITY, rate)
            }
        };
        if !keep && has_error(batch, chunk, false) {
            return self.ask_errors(batch, chunk, root, env, now);
        }
        (keep, rule, rate)
    }

    #[allow(clippy::too_many_arguments)] // one step of `ask`
    fn ask_probabilistic(
        &mut self,
        batch: &mut Batch,
        at: usize,
        chunk: &Chunk,
        root: usize,
        env: &str,
        rare: bool,
        now: i64,
    ) -> Answer {
        // Of v1.0 all are asked, and the last one that has an opinion decides.
        let v1 = batch.intake.protocol == Protocol::DatadogV1;
        if rare && !v1 {
            return (true, by::RARE, 0.0);
        }
        let (Some(sampler), Some(span)) = (&self.probabilistic, batch.spans.get(root)) else {
            return (false, by::PROBABILISTIC, 0.0);
        };
        let rate = sampler.rate();
        let chosen = sampler.sample(batch, span);
        if chosen {
            batch.set_f64(root, "_dd.prob_sr", rate);
            if !v1 {
                set_chunk_tag(batch, at, keys::DECISION_MAKER, "-9");
            }
            batch.chunks[at].sampling_mechanism = 9;
        }
        if (v1 || !chosen) && has_error(batch, chunk, false) {
            return self.ask_errors(batch, chunk, root, env, now);
        }
        match (chosen, rare) {
            (false, true) => (true, by::RARE, 0.0),
            _ => (chosen, by::PROBABILISTIC, rate),
        }
    }

    fn ask_errors(&mut self, batch: &mut Batch, chunk: &Chunk, root: usize, env: &str, now: i64) -> Answer {
        if self.errors.core().target() == 0.0 {
            return (false, by::ERRORS, 0.0);
        }
        let (keep, rate) = self.errors.sample(batch, chunk, root, env, now);
        (keep, by::ERRORS, rate)
    }

    /// Removes from a decided chunk the spans that do not leave, as the
    /// reference does. Only for batches that nobody else reads.
    pub fn trim(batch: &mut Batch, chunk: usize) {
        let Some(copy) = batch.chunks.get(chunk).copied() else { return };
        let range = copy.spans.usize();
        let kept = match copy.sampled.leaves {
            Leaves::Whole => return,
            Leaves::Nothing => 0,
            Leaves::Marked => {
                let Some(spans) = batch.spans.get_mut(range.clone()) else { return };
                let mut kept = 0;
                for i in 0..spans.len() {
                    if spans[i].flags & flags::LEAVES != 0 {
                        spans.swap(kept, i);
                        kept += 1;
                    }
                }
                kept
            }
        };
        batch.chunks[chunk].spans.end = range.start as u32 + kept as u32;
    }
}

/// The priority that a chunk carries. The Agent decides by the lowest byte, so
/// that 257 keeps as 1 does, and 128 drops.
fn said(chunk: &Chunk) -> Option<i32> {
    (chunk.priority != PRIORITY_NONE).then(|| i32::from(chunk.priority as i8))
}

/// Marks the spans that a tracer's rule for single spans chose.
fn mark_single_spans(batch: &mut Batch, chunk: &Chunk) -> bool {
    let mut any = false;
    for at in chunk.spans.usize() {
        let Some(span) = batch.spans.get(at) else { continue };
        if batch.span_f64(span, SINGLE_SPAN_MECHANISM).is_some() {
            batch.spans[at].flags |= flags::LEAVES;
            any = true;
        }
    }
    any
}

fn has_error(batch: &Batch, chunk: &Chunk, or_exception: bool) -> bool {
    batch
        .chunk_spans(chunk)
        .iter()
        .any(|s| s.is_error() || or_exception && batch.span_str(s, HAS_EXCEPTION) == Some("true"))
}

fn decided_manually(batch: &Batch, chunk: &Chunk) -> bool {
    chunk.sampling_mechanism == 4 || batch.get_str(chunk.attrs, keys::DECISION_MAKER) == Some("-4")
}

fn set_chunk_tag(batch: &mut Batch, chunk: usize, key: &'static str, value: &str) {
    let value = Value::Str(batch.arena.push(value));
    let range = batch.chunks[chunk].attrs;
    let known = batch.attrs(range).iter().position(|a| batch.arena.bytes(a.key) == key.as_bytes());
    if let Some(i) = known {
        batch.attrs[range.start as usize + i].value = value;
        return;
    }
    let key = batch.arena.push_static(key);
    batch.chunks[chunk].attrs = batch.extend_range(range, Attr { key, value });
}

/// Traces that the client dropped, spread over the chunks still in the payload.
fn dropped_per_chunk(batch: &Batch) -> f64 {
    let dropped = batch.intake.client.dropped_p0_traces;
    if dropped == 0 {
        return 0.0;
    }
    let left = |c: &&Chunk| c.fate == Fate::Kept && c.sampled.leaves != Leaves::Nothing;
    dropped as f64 / batch.chunks.iter().filter(left).count().max(1) as f64
}
