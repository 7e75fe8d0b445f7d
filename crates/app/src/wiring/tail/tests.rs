//! Rules, the store, and what waits to leave, with a clock turned by hand.

use super::*;
use crate::settings::Layers;
use crate::wiring::judge::P99;
use crate::wiring::why::Why;
use serde_json::{Value as Json, json};
use spanloom_decisions::Decisions;
use spanloom_holding::{Config as HoldingConfig, Held, Take, Way};
use spanloom_journal::SyncPolicy;
use spanloom_model::{AckFn, Chunk};
use spanloom_model::{Attr, Resource, Search, Span, SpanId, SpanReader, SpanWriter, TraceId, Value};
use spanloom_pipeline::{Clock, Exporter, Ledger, Outcome, Verdict};
use std::collections::BTreeSet;
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
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), clock: Turned(Arc::new(AtomicI64::new(T0))) }
    }

    fn turn(&self, seconds: i64) {
        self.clock.0.fetch_add(seconds * SECOND, Ordering::SeqCst);
    }

    fn store(&self) -> Arc<Store> {
        let config = spanloom_store::Config {
            background: false,
            clock: Arc::new(self.clock.clone()),
            free_bytes: Some(Arc::new(|| u64::MAX)),
            decide: true,
            undrop_for: Duration::from_secs(600),
            ..spanloom_store::Config::default()
        };
        Arc::new(Store::open(&self.dir.path().join("store"), config).unwrap().0)
    }

    fn buffer(&self, taker: &Arc<Taker>, ledger: &Arc<Ledger>) -> Arc<Buffer> {
        let ledger = Arc::clone(ledger);
        let config = HoldingConfig {
            dir: self.dir.path().join("held"),
            max_bytes: 64 << 20,
            max_memory: 32 << 20,
            wait: 30 * SECOND,
            policy: SyncPolicy::Interval,
            on_dropped: Arc::new(move |protocol, spans, chunks| {
                ledger.dropped_later(protocol, spans, chunks)
            }),
            on_full: Arc::new(|| ()),
        };
        Buffer::open(config, vec![Arc::clone(taker) as _], Clock::now(&self.clock)).unwrap().0
    }

    fn open(&self, rules: &Json, store: Option<&Arc<Store>>, buffer: Option<&Arc<Buffer>>) -> (Why, Tail) {
        let config = spanloom_decisions::Config {
            background: false,
            ..spanloom_decisions::Config::new(self.dir.path().join("decisions"))
        };
        let decisions = Decisions::open(config).unwrap().0;
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let why = Why::new(decisions, store.cloned(), buffer.cloned(), Arc::clone(&clock));
        let layers =
            Layers { env: vec![("SPANLOOM_TAIL_SAMPLING".into(), rules.to_string())], ..Layers::default() };
        let (settings, _) = layers.resolve().unwrap();
        let rules = settings.tail().unwrap().unwrap().rules;
        let p99: P99 = Box::new(|service, _| (service == "shop").then_some(1e9));
        let judge = Judge::new(rules, Arc::clone(&why.decisions), p99, clock);
        (why, Tail::new(judge, store.cloned(), buffer.cloned(), Arc::default()))
    }
}

/// Stands for an exporter: remembers what it was given.
#[derive(Default)]
struct Taker(Mutex<BTreeSet<TraceId>>);

impl Taker {
    fn has(&self, id: u128) -> bool {
        lock(&self.0).contains(&TraceId(id))
    }
}

impl Exporter for Taker {
    fn export(&self, batch: Arc<Batch>, done: AckFn) {
        lock(&self.0).extend(batch.chunks.iter().map(|c| c.trace_id));
        done(Ok(()));
    }
}

impl Way for Taker {
    fn takes(&self, _: &Batch, _: &Chunk) -> Take {
        Take::Wait { exempt: false }
    }
    fn destination(&self, _: &Chunk) -> String {
        String::new()
    }
    fn send_to(&self, _: &mut Chunk, _: &str) -> bool {
        true
    }
}

/// One span, edited.
fn one(id: u128, edit: impl FnOnce(&mut Batch)) -> Batch {
    let mut b = Batch::default();
    b.intake.received_at = T0;
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
    b
}

fn put(store: &Store, id: u128, edit: impl FnOnce(&mut Batch)) {
    let (tx, rx) = std::sync::mpsc::channel();
    store.append(Arc::new(one(id, edit)), Box::new(move |r| tx.send(r).unwrap()));
    rx.recv().unwrap().unwrap();
}

fn hold(buffer: &Arc<Buffer>, batch: Batch) {
    let (tx, rx) = std::sync::mpsc::channel();
    Held::new(Arc::clone(buffer), 0).export(Arc::new(batch), Box::new(move |r| tx.send(r).unwrap()));
    rx.recv().unwrap().unwrap();
}

fn there(store: &Store, id: u128) -> bool {
    store.trace(TraceId(id), spanloom_model::TimeRange::ALL).unwrap().is_some()
}

fn summary(why: &Why, id: u128) -> String {
    why.tell(TraceId(id))["summary"].as_str().unwrap().to_owned()
}

/// Ids spread as random ones are.
fn id(n: u128) -> u128 {
    (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
}

#[test]
fn rules_keep_errors_slow_and_tagged_traces_rate_the_rest_and_why_tells() {
    let setup = Setup::new();
    let rules = json!({
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
    let store = setup.store();
    let (why, tail) = setup.open(&rules, Some(&store), None);
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
    setup.turn(31);
    tail.round().unwrap();
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
    let store = setup.store();
    let (why, tail) = setup.open(&rules, Some(&store), None);
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
    setup.turn(600);
    store.compact_now(true).unwrap();
    assert_eq!(store.stats().spans as usize, found + 1);
    assert!(why.keep(TraceId(id(4))).unwrap().is_err(), "too late");
}

#[test]
fn the_store_follows_the_verdict_on_what_left_so_that_a_budget_is_used_once() {
    let setup = Setup::new();
    // Ten seconds of the budget may be saved up: a hundred spans.
    let rules = json!({"wait": "30s", "rest": 1, "budget": 10, "rules": [
        {"name": "errors", "error": true, "exempt": true},
    ]});
    let (taker, ledger) = (Arc::new(Taker::default()), Arc::new(Ledger::default()));
    let (store, buffer) = (setup.store(), setup.buffer(&taker, &ledger));
    let (why, tail) = setup.open(&rules, Some(&store), Some(&buffer));
    for n in 0..300 {
        put(&store, id(n), |_| {});
        hold(&buffer, one(id(n), |_| {}));
    }
    store.flush().unwrap();
    setup.turn(31);
    tail.round().unwrap();
    let kept: Vec<u128> = (0..300).map(id).filter(|id| there(&store, *id)).collect();
    assert_eq!(kept.len(), 100);
    assert!((0..300).map(id).all(|id| taker.has(id) == there(&store, id)), "the same traces");
    assert!(summary(&why, kept[0]).starts_with("kept: 1 span in the store by rest at rate 1, "));

    // A late error: too late for what leaves, not for the store.
    let late = (0..300).map(id).find(|id| !kept.contains(id)).unwrap();
    let failed = |b: &mut Batch| {
        b.spans[0].span_id = SpanId(2);
        b.spans[0].error = 1;
    };
    put(&store, late, failed);
    hold(&buffer, one(late, failed));
    store.flush().unwrap();
    setup.turn(31);
    tail.round().unwrap();
    assert!(there(&store, late) && !taker.has(late));
    let mut gauges = Vec::new();
    tail.figures(&mut gauges);
    let of = |name: &str, rule: &str| {
        let mine = |g: &&Gauge| g.name == name && g.label.as_ref().is_none_or(|l| l.1 == rule);
        gauges.iter().find(mine).map_or(0.0, |g| g.value)
    };
    assert_eq!(
        (of("tail_sent_traces_total", "rest"), of("tail_unsent_spans_total", "budget")),
        (100.0, 200.0)
    );
    assert_eq!(
        (of("tail_dropped_traces_total", "budget"), of("tail_kept_traces_total", "errors")),
        (200.0, 1.0)
    );
    assert_eq!((of("tail_buffer_late_unsent_spans_total", ""), of("tail_buffer_spans", "")), (1.0, 0.0));
}

#[test]
fn an_agent_sends_what_rules_keep_and_tells_why_and_its_ledger_adds_up() {
    let setup = Setup::new();
    let rules = json!({"wait": "30s", "rest": 0, "rules": [
        {"name": "errors", "error": true},
        {"name": "gold", "tags": {"user.tier": "^gold$"}},
    ]});
    let (taker, ledger) = (Arc::new(Taker::default()), Arc::new(Ledger::default()));
    let buffer = setup.buffer(&taker, &ledger);
    let (why, tail) = setup.open(&rules, None, Some(&buffer));
    let settling = crate::wiring::why::Settling {
        decisions: Arc::clone(&why.decisions),
        clock: Arc::new(setup.clock.clone()),
        store: false,
        datadog: true,
        waits: true,
    };
    assert!(ledger.record_to(Arc::new(settling)));
    let send = |batch: Batch| {
        let account = ledger.open(&batch);
        hold(&buffer, batch.clone());
        account.settle(&batch, Verdict::Delivered { unsampled: false });
    };
    send(one(1, |b| b.spans[0].error = 1));
    send(one(2, |b| {
        let attr = Attr { key: b.arena.push("user.tier"), value: Value::Str(b.arena.push("gold")) };
        b.add_attr(0, attr);
    }));
    for n in 3..=9 {
        send(one(n, |_| {}));
    }
    assert!(summary(&why, 1).starts_with("waits for the tail rules since "), "{}", summary(&why, 1));
    assert_eq!(why.tell(TraceId(1))["decisions"][0]["outcome"], "waits");
    // A person wants one of them.
    let kept = why.keep(TraceId(9)).unwrap().unwrap();
    assert!(kept["summary"].as_str().unwrap().ends_with("what waits of it to leave will leave"));
    assert!(why.keep(TraceId(77)).unwrap().is_err());
    setup.turn(31);
    tail.round().unwrap();
    let sent: Vec<u128> = lock(&taker.0).iter().map(|id| id.0).collect();
    assert_eq!(sent, [1, 2, 9]);
    for (id, told) in [
        (1, "sent by errors at rate 1, "),
        (2, "sent by gold at rate 1, "),
        (3, "dropped by rest, "),
        (9, "sent by keep_request, "),
    ] {
        assert!(summary(&why, id).starts_with(told), "{}", summary(&why, id));
    }
    // A piece that comes too late follows, and the answer stays.
    setup.turn(1);
    send(one(3, |b| b.spans[0].span_id = SpanId(2)));
    assert!(summary(&why, 3).starts_with("dropped by rest, "), "{}", summary(&why, 3));
    let snapshot = ledger.snapshot();
    assert_eq!((snapshot.spans(Outcome::Kept), snapshot.spans(Outcome::SampledOut)), (3, 7));
    assert!(snapshot.adds_up());
    assert_eq!(snapshot.in_flight(), 0);
}
