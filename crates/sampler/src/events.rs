//! Analysed events ("App Analytics"): single spans kept although their trace
//! is not (`datadog-agent:pkg/trace/event`).

use crate::SECOND;
use crate::signature::{PRE_SAMPLER_RATE, sample_by_rate};
use spanloom_model::{Batch, Chunk, Span};
use std::collections::HashMap;

const EXTRACTION_RATE: &str = "_dd1.sr.eausr";
const MAX_EPS_RATE: &str = "_dd1.sr.eamax";
const CLIENT_RATE: &str = "_dd1.sr.rcusr";
/// Priority of traces that a user kept: their events are all kept.
const USER_KEEP: i32 = 2;

/// Settings of event extraction.
#[derive(Clone, Debug)]
pub struct EventSettings {
    /// Rate per `service|operation` (`apm_config.analyzed_spans`).
    pub analyzed_spans: HashMap<String, f64>,
    /// Rate per service, for top-level spans; used only if the above is empty
    /// (`apm_config.analyzed_rate_by_service`).
    pub rate_by_service: HashMap<String, f64>,
    /// Most events per second (`apm_config.max_events_per_second`).
    pub max_per_second: f64,
}

impl Default for EventSettings {
    fn default() -> Self {
        Self { analyzed_spans: HashMap::new(), rate_by_service: HashMap::new(), max_per_second: 200.0 }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Events {
    spans: HashMap<String, f64>,
    services: HashMap<String, f64>,
    max: f64,
    score: f64,
    decayed_at: Option<i64>,
}

const DECAY_PERIOD: i64 = 5 * SECOND;
const DECAY: f64 = 1.125;

impl Events {
    /// An extractor. Names are compared in lower case.
    pub fn new(settings: &EventSettings) -> Self {
        let lower = |map: &HashMap<String, f64>| map.iter().map(|(k, v)| (k.to_lowercase(), *v)).collect();
        Self {
            spans: lower(&settings.analyzed_spans),
            services: lower(&settings.rate_by_service),
            max: settings.max_per_second,
            score: 0.0,
            decayed_at: None,
        }
    }

    /// Marks the events of a chunk and puts their positions into `found`.
    pub fn mark(
        &mut self,
        batch: &mut Batch,
        chunk: &Chunk,
        root: usize,
        priority: Option<i32>,
        now: i64,
        found: &mut Vec<u32>,
    ) {
        found.clear();
        let mut rates = None;
        for at in chunk.spans.start..chunk.spans.end {
            let Some(span) = batch.spans.get(at as usize) else { continue };
            let Some(rate) = self.rate(batch, span) else { continue };
            let span = *span;
            let user = priority.is_some_and(|p| p >= USER_KEEP);
            let rate = if user && rate > 0.0 { 1.0 } else { rate };
            if !sample_by_rate(span.trace_id, rate) {
                continue;
            }
            let eps_rate = if priority == Some(USER_KEEP) { 1.0 } else { self.count(now) };
            if !sample_by_rate(span.trace_id, eps_rate) {
                continue;
            }
            let (client, pre) = *rates.get_or_insert_with(|| {
                let of = batch.spans.get(root).copied().unwrap_or_default();
                let rate = |key| batch.span_f64(&of, key).unwrap_or(1.0);
                (rate(CLIENT_RATE), rate(PRE_SAMPLER_RATE))
            });
            let span = at as usize;
            set_rate(batch, span, MAX_EPS_RATE, eps_rate);
            set_rate(batch, span, CLIENT_RATE, client);
            set_rate(batch, span, PRE_SAMPLER_RATE, pre);
            set_rate(batch, span, EXTRACTION_RATE, rate);
            batch.set_f64(span, "_dd.analyzed", 1.0);
            found.push(at);
        }
    }

    /// Rate at which a span is an event; nothing if it is none.
    fn rate(&self, batch: &Batch, span: &Span) -> Option<f64> {
        if let Some(rate) = batch.span_f64(span, EXTRACTION_RATE) {
            return Some(rate);
        }
        if !self.spans.is_empty() {
            let key = format!("{}|{}", batch.str(span.service), batch.str(span.name)).to_lowercase();
            return self.spans.get(&key).copied();
        }
        if self.services.is_empty() {
            return None;
        }
        let top = ["_top_level", "_dd.top_level"].iter().any(|k| batch.span_f64(span, k) == Some(1.0));
        if top { self.services.get(&batch.str(span.service).to_lowercase()).copied() } else { None }
    }

    /// Counts an event and gives the rate that holds the maximum per second.
    fn count(&mut self, now: i64) -> f64 {
        let since = *self.decayed_at.get_or_insert(now);
        let periods = now.saturating_sub(since).max(0) / DECAY_PERIOD;
        if periods > 0 {
            self.score /= DECAY.powi(i32::try_from(periods).unwrap_or(i32::MAX));
            self.decayed_at = Some(since.saturating_add(periods * DECAY_PERIOD));
        }
        self.score += 1.0;
        // The decaying sum in events per second, overestimated by one period.
        let scale = DECAY / (DECAY - 1.0) * (DECAY_PERIOD / SECOND) as f64;
        let current = self.score / scale * DECAY;
        if current > self.max { self.max / current } else { 1.0 }
    }
}

/// Rates of 1 are expressed by absence.
fn set_rate(batch: &mut Batch, span: usize, key: &'static str, rate: f64) {
    if rate < 1.0 {
        batch.set_f64(span, key, rate);
    } else if batch.spans.get(span).is_some_and(|s| batch.span_f64(s, key).is_some()) {
        batch.remove_attrs(span, |arena, a| {
            arena.bytes(a.key) == key.as_bytes() && a.value.as_f64().is_some()
        });
    }
}
