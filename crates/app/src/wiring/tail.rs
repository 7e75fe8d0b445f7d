//! The thread that lets traces be judged once they are quiet: first what waits
//! to leave, then what is in the store, which follows the same verdicts.

use super::chain::lock;
use super::judge::{About, Judge};
use super::ways;
use crate::report::Gauge;
use spanloom_holding::{Buffer, HoldingError, Ruling, Waiting};
use spanloom_model::{Batch, StoreError, TraceSummary};
use spanloom_sampler::tail::TailDecision;
use spanloom_store::Store;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Pause between looks at what is quiet.
const TICK: Duration = Duration::from_secs(1);
/// Rule name of traces that their sender wants kept.
const MANUAL_KEEP: &str = "manual_keep";
/// Rule name of traces that a person wants kept.
pub const BY_HAND: &str = "keep_request";

/// Wakes the thread before its time.
#[derive(Default)]
pub struct Wake {
    wanted: Mutex<bool>,
    changed: Condvar,
}

impl Wake {
    /// A round is wanted soon.
    pub fn call(&self) {
        *lock(&self.wanted) = true;
        self.changed.notify_all();
    }

    fn wait(&self, time: Duration) {
        let mut wanted = lock(&self.wanted);
        if !*wanted {
            wanted = self.changed.wait_timeout(wanted, time).unwrap_or_else(PoisonError::into_inner).0;
        }
        *wanted = false;
    }
}

/// The rules at work.
pub struct Tail {
    judge: Judge,
    store: Option<Arc<Store>>,
    buffer: Option<Arc<Buffer>>,
    wake: Arc<Wake>,
    stopping: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Tail {
    /// Rules over a store, over what leaves, or both.
    pub fn new(
        judge: Judge,
        store: Option<Arc<Store>>,
        buffer: Option<Arc<Buffer>>,
        wake: Arc<Wake>,
    ) -> Self {
        Self { judge, store, buffer, wake, stopping: AtomicBool::new(false), thread: Mutex::default() }
    }

    /// Starts looking every second, on a thread of its own: deciding reads files.
    pub fn start(tail: Self) -> Arc<Self> {
        let tail = Arc::new(tail);
        let worker = Arc::clone(&tail);
        let spawned = std::thread::Builder::new().name("tail-sampling".into()).spawn(move || worker.work());
        match spawned {
            Ok(thread) => *lock(&tail.thread) = Some(thread),
            Err(e) => tracing::error!(
                "tail sampling cannot start a thread ({e}): the store keeps everything, and nothing leaves"
            ),
        }
        tail
    }

    /// Waits until the group of traces under way is judged. What waits to
    /// leave stays on disk for the next start. Exporters must still run.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.wake.call();
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
        if let Some(buffer) = &self.buffer {
            buffer.close();
        }
    }

    fn work(&self) {
        while !self.stopping.load(Ordering::SeqCst) {
            if let Err(e) = self.round() {
                tracing::error!("tail sampling: a decision could not be written: {e}");
            }
            if !self.stopping.load(Ordering::SeqCst) {
                self.wake.wait(TICK);
            }
        }
    }

    fn round(&self) -> Result<(), StoreError> {
        // What leaves first: a trace is quiet there before it is in the store.
        if let Some(buffer) = &self.buffer {
            let mut judge = |w: &Waiting, load: &dyn Fn() -> Result<Vec<Batch>, HoldingError>| {
                let decision = if w.by_hand {
                    self.judge.kept_by(BY_HAND)
                } else if w.exempt {
                    self.judge.kept_by(MANUAL_KEEP)
                } else {
                    self.judge.judge(&w.summary, &|| load().ok())
                };
                self.judge.note(About::Leaving(ways::places(w.ways)), &w.summary, &decision);
                let spans = u32::try_from(w.summary.spans).unwrap_or(u32::MAX);
                Ruling { keep: decision.keep, rule: decision.rule, rate: decision.rate, spans }
            };
            buffer.round(self.judge.now(), &mut judge, &|| self.stopping.load(Ordering::SeqCst));
        }
        let Some(store) = &self.store else { return Ok(()) };
        let mut judge = |t: &TraceSummary, load: &dyn Fn() -> Result<Batch, StoreError>| {
            let decision = self
                .followed(t)
                .unwrap_or_else(|| self.judge.judge(t, &|| load().ok().map(|batch| vec![batch])));
            self.judge.note(About::Store, t, &decision);
            decision.keep
        };
        let done = store.decide(self.judge.wait(), &mut judge)?;
        if done.unread > 0 {
            tracing::warn!(traces = done.unread, "tail sampling: traces that cannot be read are kept");
        }
        Ok(())
    }

    /// The verdict on what left of a trace, if that was all of it: then the
    /// store has what others have, and budgets are used once.
    fn followed(&self, t: &TraceSummary) -> Option<TailDecision> {
        let ruling = self.buffer.as_ref()?.ruling(t.trace_id)?;
        (u64::from(ruling.spans) == t.spans).then(|| TailDecision {
            keep: ruling.keep,
            rule: ruling.rule,
            rate: ruling.rate,
            over_budget: false,
            at: self.judge.now(),
        })
    }

    /// What the rules did, for metrics and status.
    pub fn figures(&self, gauges: &mut Vec<Gauge>) {
        self.judge.figures(gauges);
        if let Some(buffer) = &self.buffer {
            ways::figures(buffer, gauges);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Layers;
    use crate::wiring::judge::P99;
    use crate::wiring::why::Why;
    use serde_json::json;
    use spanloom_decisions::Decisions;
    use spanloom_model::{Attr, Resource, Search, Span, SpanId, SpanReader, SpanWriter, TraceId, Value};
    use spanloom_pipeline::Clock;
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
            let why = Why::new(decisions, Some(Arc::clone(&store)), None, Arc::clone(&clock));
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
            let rules = settings.tail().unwrap().unwrap().rules;
            let p99: P99 = Box::new(|service, _| (service == "shop").then_some(1e9));
            let judge = Judge::new(rules, Arc::clone(&why.decisions), p99, clock);
            let tail = Tail::new(judge, Some(Arc::clone(&store)), None, Arc::default());
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
        tail.round().unwrap();
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
        tail.round().unwrap();
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
