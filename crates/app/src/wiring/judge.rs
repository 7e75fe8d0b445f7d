//! Tail rules and what they decided: one judge for the store and for what
//! leaves, so that budgets are common.

use super::chain::lock;
use super::statistics::Statistics;
use crate::report::Gauge;
use spanloom_decisions::{Decision, Decisions, Outcome, to};
use spanloom_holding::Spans;
use spanloom_model::TraceSummary;
use spanloom_pipeline::Clock;
use spanloom_sampler::tail::{BatchSpans, SpanText, Summary, TailDecision, TailRules, TraceSpans};
use spanloom_stats::RedFilter;
use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Time over which the 99th percentile of a service is taken.
const P99_OVER: i64 = 3_600_000_000_000;
/// How long a percentile that was looked up is used.
const P99_FOR: i64 = 30_000_000_000;
/// Rule name of what only the common budget dropped.
const BUDGET: &str = "budget";
/// Rule name of traces that could not be read, though a rule needed to: kept.
const UNREADABLE: &str = "unreadable";

/// Traces and spans by rule.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
struct Count {
    kept: [u64; 2],
    dropped: [u64; 2],
}

/// What a decision is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum About {
    /// The trace in the store.
    Store,
    /// What leaves of it: where to, as bits of [`to`].
    Leaving(u8),
}

/// Judges traces.
pub struct Judge {
    wait: i64,
    rules: Mutex<TailRules>,
    decisions: Arc<Decisions>,
    p99: P99,
    percentiles: Mutex<Percentiles>,
    clock: Arc<dyn Clock>,
    /// In the store, and of what leaves.
    counts: Mutex<[BTreeMap<Arc<str>, Count>; 2]>,
}

/// The 99th percentile of a service at a time, in nanoseconds, if known.
pub type P99 = Box<dyn Fn(&str, i64) -> Option<f64> + Send + Sync>;

/// Percentiles as the statistics know them.
pub fn p99_of(statistics: Arc<Statistics>) -> P99 {
    Box::new(move |service, now| {
        let filter = RedFilter {
            services: &[service],
            from: now.saturating_sub(P99_OVER),
            to: now,
            depth: 1,
            ..RedFilter::default()
        };
        let found = lock(&statistics.red).query(&filter, None);
        found.first().and_then(|s| s.points.first()).map(|p| p.p99).filter(|p| *p > 0.0)
    })
}

/// Percentiles of services, looked up once in a while.
#[derive(Default)]
struct Percentiles {
    at: i64,
    known: HashMap<String, Option<f64>>,
}

impl Percentiles {
    fn of(&mut self, service: &str, look_up: &P99, now: i64) -> Option<f64> {
        if now.saturating_sub(self.at) > P99_FOR {
            self.at = now;
            self.known.clear();
        }
        if let Some(known) = self.known.get(service) {
            return *known;
        }
        let p99 = look_up(service, now);
        self.known.insert(service.to_owned(), p99);
        p99
    }
}

impl Judge {
    /// With rules.
    pub fn new(rules: TailRules, decisions: Arc<Decisions>, p99: P99, clock: Arc<dyn Clock>) -> Self {
        Self {
            wait: rules.wait().max(0),
            rules: Mutex::new(rules),
            decisions,
            p99,
            percentiles: Mutex::default(),
            clock,
            counts: Mutex::default(),
        }
    }

    /// How long a trace must be quiet.
    pub fn wait(&self) -> Duration {
        Duration::from_nanos(self.wait as u64)
    }

    /// The time now.
    pub fn now(&self) -> i64 {
        self.clock.now()
    }

    /// Asks the rules. `load` reads the spans, in any number of parts; it is
    /// called if a rule asks for them.
    pub fn judge(&self, t: &TraceSummary, load: &dyn Fn() -> Option<Vec<Spans>>) -> TailDecision {
        let now = self.now();
        let summary = Summary {
            trace_id: t.trace_id,
            duration: t.end.saturating_sub(t.start),
            spans: u32::try_from(t.spans).unwrap_or(u32::MAX),
            errors: u32::try_from(t.errors).unwrap_or(u32::MAX),
            service: &t.root_service,
            operation: &t.root_name,
        };
        let spans = Lazy { load, parts: OnceCell::new() };
        let percentiles = RefCell::new(lock(&self.percentiles));
        let p99 = |service: &str| percentiles.borrow_mut().of(service, &self.p99, now);
        let decision = lock(&self.rules).decide(&summary, &spans, &p99, now);
        match spans.parts.get() {
            Some(None) => self.kept_by(UNREADABLE),
            _ if decision.over_budget => TailDecision { rule: BUDGET.into(), ..decision },
            _ => decision,
        }
    }

    /// Kept, and no rule was asked.
    pub fn kept_by(&self, rule: &str) -> TailDecision {
        TailDecision { keep: true, rule: rule.into(), rate: 0.0, over_budget: false, at: self.now() }
    }

    /// Counts a decision and remembers it for `why`.
    pub fn note(&self, about: About, t: &TraceSummary, d: &TailDecision) {
        let (place, to) = match about {
            About::Store => (0, to::STORE),
            About::Leaving(to) => (1, to),
        };
        self.decisions.record([Decision {
            trace_id: t.trace_id,
            at: d.at,
            outcome: if d.keep { Outcome::TailKept } else { Outcome::TailDropped },
            to,
            rule: &d.rule,
            rate: d.rate as f32,
            spans: u32::try_from(t.spans).unwrap_or(u32::MAX),
        }]);
        let mut counts = lock(&self.counts);
        let count = counts[place].entry(Arc::clone(&d.rule)).or_default();
        let cell = if d.keep { &mut count.kept } else { &mut count.dropped };
        cell[0] += 1;
        cell[1] += t.spans;
    }

    /// What the rules did, for metrics and status.
    pub fn figures(&self, gauges: &mut Vec<Gauge>) {
        let [store, leaving] = lock(&self.counts).clone();
        type Get = fn(&Count) -> u64;
        let families: [(&'static str, &'static str, &BTreeMap<_, _>, Get); 8] = [
            ("tail_kept_traces_total", "Traces in the store that a tail rule kept.", &store, |c| c.kept[0]),
            ("tail_kept_spans_total", "Their spans.", &store, |c| c.kept[1]),
            ("tail_dropped_traces_total", "Traces in the store that a tail rule dropped.", &store, |c| {
                c.dropped[0]
            }),
            ("tail_dropped_spans_total", "Their spans.", &store, |c| c.dropped[1]),
            ("tail_sent_traces_total", "Traces that a tail rule let leave.", &leaving, |c| c.kept[0]),
            ("tail_sent_spans_total", "Their spans.", &leaving, |c| c.kept[1]),
            ("tail_unsent_traces_total", "Traces that a tail rule kept from leaving.", &leaving, |c| {
                c.dropped[0]
            }),
            ("tail_unsent_spans_total", "Their spans.", &leaving, |c| c.dropped[1]),
        ];
        for (name, help, counts, get) in families {
            gauges.extend(counts.iter().map(|(rule, count)| Gauge {
                name,
                label: Some(("rule", rule.to_string())),
                help,
                value: get(count) as f64,
                counter: true,
            }));
        }
    }
}

/// The spans of a trace, read when a rule asks for them.
struct Lazy<'a> {
    load: &'a dyn Fn() -> Option<Vec<Spans>>,
    parts: OnceCell<Option<Vec<Spans>>>,
}

impl TraceSpans for Lazy<'_> {
    fn any(&self, test: &mut dyn FnMut(&dyn SpanText) -> bool) -> bool {
        let parts = self.parts.get_or_init(self.load);
        let mut chunks = parts.iter().flatten().flat_map(Spans::chunks);
        chunks.any(|(batch, spans)| BatchSpans { batch, spans }.any(test))
    }
}
