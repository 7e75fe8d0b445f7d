//! Tail rules asked about whole traces, once the store says they are quiet.

use super::chain::lock;
use super::statistics::Statistics;
use crate::report::Gauge;
use spanloom_decisions::{Decision, Decisions, Outcome, to};
use spanloom_model::{Batch, StoreError, TraceSummary};
use spanloom_pipeline::Clock;
use spanloom_sampler::tail::{SpanText, Summary, TailDecision, TailRules, TraceSpans};
use spanloom_stats::RedFilter;
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
    p99: P99,
    clock: Arc<dyn Clock>,
    counts: Mutex<BTreeMap<Arc<str>, Count>>,
    stopping: AtomicBool,
    wake: (Mutex<()>, Condvar),
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The 99th percentile of a service at a time, in nanoseconds, if known.
pub type P99 = Box<dyn Fn(&str, i64) -> Option<f64> + Send + Sync>;

/// Percentiles as the statistics know them.
pub fn p99_of(statistics: Arc<Statistics>) -> P99 {
    Box::new(move |service, now| {
        let filter = RedFilter {
            service: Some(service),
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

impl Tail {
    /// Rules over a store.
    pub fn new(
        rules: TailRules,
        store: Arc<Store>,
        decisions: Arc<Decisions>,
        p99: P99,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            wait: Duration::from_nanos(rules.wait().max(0) as u64),
            rules: Mutex::new(rules),
            store,
            decisions,
            p99,
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
        let p99 = |service: &str| percentiles.borrow_mut().of(service, &self.p99, now);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Layers;
    use crate::wiring::why::Why;
    use serde_json::json;
    use spanloom_model::{Attr, Resource, Search, Span, SpanId, SpanReader, SpanWriter, TraceId, Value};
    use std::sync::atomic::AtomicI64;

    const SECOND: i64 = 1_000_000_000;
    const T0: i64 = 1_700_000_000 * SECOND;

    #[derive(Clone)]
    struct Turned(Arc<AtomicI64>);
    impl Clock for Turned {
        fn now(&self) -> i64 {
            self.0.load(Ordering::SeqCst)
        }
    }
    impl spanloom_store::Clock for Turned {
        fn now(&self) -> i64 {
            self.0.load(Ordering::SeqCst)
        }
    }

    struct Setup {
        dir: tempfile::TempDir,
        clock: Turned,
    }

    impl Setup {
        fn open(&self) -> (Arc<Store>, Why, Tail) {
            let config = spanloom_store::Config {
                background: false,
                clock: Arc::new(self.clock.clone()),
                free_bytes: Some(Arc::new(|| u64::MAX)),
                decide: true,
                undrop_for: Duration::from_secs(600),
                ..spanloom_store::Config::default()
            };
            let store = Arc::new(Store::open(&self.dir.path().join("store"), config).unwrap().0);
            let config = spanloom_decisions::Config {
                background: false,
                ..spanloom_decisions::Config::new(self.dir.path().join("decisions"))
            };
            let decisions = Decisions::open(config).unwrap().0;
            let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
            let why = Why::new(decisions, Some(Arc::clone(&store)), Arc::clone(&clock));
            let written = json!({
                "wait": "30s",
                "rest": 0.25,
                "rules": [
                    {"name": "errors", "error": true},
                    {"name": "slow", "min_duration": "2s"},
                    {"name": "unusual", "slower_than_p99": true},
                    {"name": "gold", "tags": {"user.tier": "^gold$"}},
                    {"name": "health", "resource": "^GET /health", "rate": 0},
                ],
            });
            let layers = Layers {
                env: vec![("SPANLOOM_TAIL_SAMPLING".into(), written.to_string())],
                ..Layers::default()
            };
            let (settings, _) = layers.resolve().unwrap();
            let rules = settings.tail_rules().unwrap().unwrap();
            let p99: P99 = Box::new(|service, _| (service == "shop").then_some(1e9));
            let tail = Tail::new(rules, Arc::clone(&store), Arc::clone(&why.decisions), p99, clock);
            (store, why, tail)
        }
    }

    /// One span a trace, edited.
    fn put(store: &Store, id: u128, edit: impl FnOnce(&mut Batch)) {
        let mut b = Batch::default();
        b.resources.push(Resource::default());
        let service = b.arena.push("web");
        b.spans.push(Span {
            trace_id: TraceId(id),
            span_id: SpanId(1),
            start: T0,
            duration: SECOND / 10,
            service,
            ..Span::default()
        });
        edit(&mut b);
        b.chunk_by_trace(0, 0);
        let (tx, rx) = std::sync::mpsc::channel();
        store.append(Arc::new(b), Box::new(move |r| tx.send(r).unwrap()));
        rx.recv().unwrap().unwrap();
    }

    /// Ids spread as random ones are.
    fn id(n: u128) -> u128 {
        (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
    }

    #[test]
    fn rules_keep_errors_slow_and_tagged_traces_rate_the_rest_and_why_tells() {
        let setup = Setup { dir: tempfile::tempdir().unwrap(), clock: Turned(Arc::new(AtomicI64::new(T0))) };
        let (store, why, tail) = setup.open();
        let special = [
            (id(0), "errors", true),
            (id(1), "slow", true),
            (id(2), "unusual", true),
            (id(3), "gold", true),
            (id(4), "health", false),
        ];
        put(&store, id(0), |b| b.spans[0].error = 1);
        put(&store, id(1), |b| b.spans[0].duration = 3 * SECOND);
        put(&store, id(2), |b| {
            b.spans[0].service = b.arena.push("shop");
            b.spans[0].duration = SECOND + SECOND / 2;
        });
        put(&store, id(3), |b| {
            let attr = Attr { key: b.arena.push("user.tier"), value: Value::Str(b.arena.push("gold")) };
            b.add_attr(0, attr);
        });
        put(&store, id(4), |b| b.spans[0].resource = b.arena.push("GET /healthz"));
        for n in 5..1005 {
            put(&store, id(n), |_| {});
        }
        store.flush().unwrap();
        setup.clock.0.fetch_add(31 * SECOND, Ordering::SeqCst);
        tail.round(&mut Percentiles::default()).unwrap();
        let there = |store: &Store, id: u128| {
            store.trace(TraceId(id), spanloom_model::TimeRange::ALL).unwrap().is_some()
        };
        for (id, rule, kept) in special {
            assert_eq!(there(&store, id), kept, "{rule}");
            let told = why.tell(TraceId(id));
            let last = told["decisions"].as_array().unwrap().last().unwrap().clone();
            assert_eq!((last["rule"].as_str(), last["outcome"] == "tail_kept"), (Some(rule), kept));
            assert_eq!(last["at"], (T0 + 31 * SECOND).to_string());
        }
        let kept = (5..1005).filter(|n| there(&store, id(*n))).count();
        assert!((200..300).contains(&kept), "{kept} of 1000 at a rate of 0.25");
        let found = store.search(&Search { limit: 5000, ..Search::default() }).unwrap().len();
        assert_eq!(found, kept + 4);
        // A restart between the decision and the merge changes nothing.
        let dropped = (5..1005).map(id).find(|id| !there(&store, *id)).unwrap();
        drop((store, why, tail));
        let (store, why, tail) = setup.open();
        tail.round(&mut Percentiles::default()).unwrap();
        assert_eq!(store.search(&Search { limit: 5000, ..Search::default() }).unwrap().len(), found);
        let summary = why.tell(TraceId(dropped))["summary"].as_str().unwrap().to_owned();
        assert!(
            summary.starts_with("dropped by rest at rate 0.25, ") && summary.contains("spanloom keep"),
            "{summary}"
        );
        assert_eq!(why.keep(TraceId(dropped)).unwrap().unwrap()["outcome"], "undropped");
        assert!(there(&store, dropped));
        let summary = why.tell(TraceId(dropped))["summary"].as_str().unwrap().to_owned();
        assert!(summary.starts_with("kept: 1 span in the store by keep_request"), "{summary}");
        // Removed when the time for that is over.
        setup.clock.0.fetch_add(600 * SECOND, Ordering::SeqCst);
        store.compact_now(true).unwrap();
        assert_eq!(store.stats().spans as usize, found + 1);
        assert!(why.keep(TraceId(id(4))).unwrap().is_err(), "too late");
    }
}
