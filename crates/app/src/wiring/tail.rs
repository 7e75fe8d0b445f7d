//! Tail rules asked about whole traces, once the store says they are quiet.

use super::chain::lock;
use super::statistics::Statistics;
use crate::report::Gauge;
use spanloom_decisions::{Decision, Decisions, Outcome, to};
use spanloom_model::{Batch, StoreError, TraceSummary};
use spanloom_pipeline::Clock;
use spanloom_sampler::tail::{SpanText, Summary, TailDecision, TailRules, TraceSpans};
use spanloom_stats::{Red, RedFilter};
use spanloom_store::Store;
use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Pause between looks at what is quiet.
const TICK: Duration = Duration::from_secs(1);
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

/// The rules at work.
pub struct Tail {
    wait: Duration,
    rules: Mutex<TailRules>,
    store: Arc<Store>,
    decisions: Arc<Decisions>,
    statistics: Arc<Statistics>,
    clock: Arc<dyn Clock>,
    counts: Mutex<BTreeMap<Arc<str>, Count>>,
    stopping: AtomicBool,
    wake: (Mutex<()>, Condvar),
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Percentiles of services, looked up once in a while.
#[derive(Default)]
struct Percentiles {
    at: i64,
    known: HashMap<String, Option<f64>>,
}

impl Percentiles {
    fn of(&mut self, service: &str, red: &Mutex<Red>, now: i64) -> Option<f64> {
        if now.saturating_sub(self.at) > P99_FOR {
            self.at = now;
            self.known.clear();
        }
        if let Some(known) = self.known.get(service) {
            return *known;
        }
        let filter = RedFilter {
            service: Some(service),
            from: now.saturating_sub(P99_OVER),
            to: now,
            depth: 1,
            ..RedFilter::default()
        };
        let found = lock(red).query(&filter, None);
        let p99 = found.first().and_then(|s| s.points.first()).map(|p| p.p99).filter(|p| *p > 0.0);
        self.known.insert(service.to_owned(), p99);
        p99
    }
}

impl Tail {
    /// Rules over a store.
    pub fn new(
        rules: TailRules,
        store: Arc<Store>,
        decisions: Arc<Decisions>,
        statistics: Arc<Statistics>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            wait: Duration::from_nanos(rules.wait().max(0) as u64),
            rules: Mutex::new(rules),
            store,
            decisions,
            statistics,
            clock,
            counts: Mutex::default(),
            stopping: AtomicBool::new(false),
            wake: Default::default(),
            thread: Mutex::default(),
        }
    }

    /// Starts looking every second, on a thread of its own: deciding reads files.
    pub fn start(tail: Self) -> Arc<Self> {
        let tail = Arc::new(tail);
        let worker = Arc::clone(&tail);
        let spawned = std::thread::Builder::new().name("tail-sampling".into()).spawn(move || worker.work());
        match spawned {
            Ok(thread) => *lock(&tail.thread) = Some(thread),
            Err(e) => tracing::error!("tail sampling cannot start a thread ({e}): everything is kept"),
        }
        tail
    }

    /// Waits until the round under way is over.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        drop(lock(&self.wake.0));
        self.wake.1.notify_all();
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }

    fn work(&self) {
        let mut percentiles = Percentiles::default();
        while !self.stopping.load(Ordering::SeqCst) {
            if let Err(e) = self.round(&mut percentiles) {
                tracing::error!("tail sampling: a decision could not be written: {e}");
            }
            let guard = lock(&self.wake.0);
            if !self.stopping.load(Ordering::SeqCst) {
                drop(self.wake.1.wait_timeout(guard, TICK).unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    fn round(&self, percentiles: &mut Percentiles) -> Result<(), StoreError> {
        let mut judge = |t: &TraceSummary, load: &dyn Fn() -> Result<Batch, StoreError>| {
            let now = self.clock.now();
            let decision = self.judge(t, load, percentiles, now);
            self.note(t, &decision);
            decision.keep
        };
        let done = self.store.decide(self.wait, &mut judge)?;
        if done.unread > 0 {
            tracing::warn!(traces = done.unread, "tail sampling: traces that cannot be read are kept");
        }
        Ok(())
    }

    fn judge(
        &self,
        t: &TraceSummary,
        load: &dyn Fn() -> Result<Batch, StoreError>,
        percentiles: &mut Percentiles,
        now: i64,
    ) -> TailDecision {
        let summary = Summary {
            trace_id: t.trace_id,
            duration: t.end.saturating_sub(t.start),
            spans: u32::try_from(t.spans).unwrap_or(u32::MAX),
            errors: u32::try_from(t.errors).unwrap_or(u32::MAX),
            service: &t.root_service,
            operation: &t.root_name,
        };
        let spans = Lazy { load, batch: OnceCell::new() };
        let percentiles = std::cell::RefCell::new(percentiles);
        let p99 = |service: &str| percentiles.borrow_mut().of(service, &self.statistics.red, now);
        let decision = lock(&self.rules).decide(&summary, &spans, &p99, now);
        match spans.batch.get() {
            Some(None) => {
                TailDecision { keep: true, rule: UNREADABLE.into(), over_budget: false, ..decision }
            }
            _ => decision,
        }
    }

    fn note(&self, t: &TraceSummary, d: &TailDecision) {
        let rule: Arc<str> = if d.over_budget { BUDGET.into() } else { Arc::clone(&d.rule) };
        self.decisions.record([Decision {
            trace_id: t.trace_id,
            at: d.at,
            outcome: if d.keep { Outcome::TailKept } else { Outcome::TailDropped },
            to: to::STORE,
            rule: &rule,
            rate: d.rate as f32,
            spans: u32::try_from(t.spans).unwrap_or(u32::MAX),
        }]);
        let mut counts = lock(&self.counts);
        let count = counts.entry(rule).or_default();
        let cell = if d.keep { &mut count.kept } else { &mut count.dropped };
        cell[0] += 1;
        cell[1] += t.spans;
    }

    /// What the rules did, for metrics and status.
    pub fn figures(&self, gauges: &mut Vec<Gauge>) {
        let counts = lock(&self.counts).clone();
        type Get = fn(&Count) -> u64;
        let families: [(&'static str, &'static str, Get); 4] = [
            ("tail_kept_traces_total", "Traces that a tail rule kept.", |c| c.kept[0]),
            ("tail_kept_spans_total", "Their spans.", |c| c.kept[1]),
            ("tail_dropped_traces_total", "Traces that a tail rule dropped.", |c| c.dropped[0]),
            ("tail_dropped_spans_total", "Their spans.", |c| c.dropped[1]),
        ];
        for (name, help, get) in families {
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
    load: &'a dyn Fn() -> Result<Batch, StoreError>,
    batch: OnceCell<Option<Batch>>,
}

impl TraceSpans for Lazy<'_> {
    fn any(&self, test: &mut dyn FnMut(&dyn SpanText) -> bool) -> bool {
        let batch = self.batch.get_or_init(|| (self.load)().ok());
        batch
            .as_ref()
            .is_some_and(|b| spanloom_sampler::tail::BatchSpans { batch: b, spans: &b.spans }.any(test))
    }
}
