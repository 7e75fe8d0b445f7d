//! What every store must do (feature `test-util`): run [`check`] against it.
//!
//! The cases are those of Jaeger's storage integration suite
//! (jaegertracing/jaeger:internal/storage/integration) and of Zipkin's store
//! contract (openzipkin/zipkin:zipkin-tests) that apply to this seam, written
//! anew, and our own promises.
#![allow(clippy::unwrap_used, clippy::panic)]

use crate::draft::{Draft, Tag, batch};
use crate::memory::MemoryStore;
use crate::{
    AttrKey, AttrScope, Batch, Cond, Cursor, Dependency, Expr, Fate, Literal, Op, Operation, Protocol,
    Search, ServiceCount, SpanId, SpanKind, SpanReader, SpanWriter, Status, TimeRange, TraceId, TraceSummary,
    Value, WindowOn, flags,
};
use same::assert_same_span;
use std::sync::Arc;

mod same;

/// A store under test, empty at first.
pub trait Subject {
    /// Its way in.
    fn writer(&self) -> &dyn SpanWriter;
    /// Its way out.
    fn reader(&self) -> &dyn SpanReader;
    /// Called between writing and reading: where a store can hold spans in
    /// several ways (live, in a segment, merged, reopened), the test of the
    /// store runs the suite once for each by moving them here.
    fn settle(&self) {}
}

impl Subject for MemoryStore {
    fn writer(&self) -> &dyn SpanWriter {
        self
    }
    fn reader(&self) -> &dyn SpanReader {
        self
    }
}

/// A case: its name as a sentence and what it does with an empty store.
pub type Case = (&'static str, fn(&dyn Subject));

/// Runs all cases, each on a store of its own, and panics naming those that
/// failed.
pub fn check(make: &dyn Fn() -> Box<dyn Subject>) {
    let mut failed = Vec::new();
    for (name, case) in CASES {
        let subject = make();
        let run = std::panic::AssertUnwindSafe(|| case(subject.as_ref()));
        if std::panic::catch_unwind(run).is_err() {
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "{} of {} cases failed: {failed:#?}", failed.len(), CASES.len());
}

/// All cases.
pub const CASES: &[Case] = &[
    ("an empty store answers everything with nothing", empty),
    ("each of Jaeger's 25 queries finds its own traces", jaeger_queries),
    ("typed tags are found by their text", typed_tags),
    ("fields are found under the keys users give them", intrinsics),
    ("names, wildcards and free text find spans", names_and_patterns),
    ("negation and alternatives hold on one span", boolean),
    ("entries of each may be met by different spans", each_over_spans),
    ("results are newest first, ties by id, and limited", order_and_limit),
    ("pages cover everything once", paging),
    ("both ends of a window on span starts are inclusive", window_on_spans),
    ("a window on trace starts looks at the root, else at the earliest span", window_on_traces),
    ("a trace without times is readable but not found by trace start", timeless),
    ("durations are inclusive, also of shared spans, and absent ones match nothing", durations),
    ("traces whose ids differ in the high half are different", high_half),
    ("pieces that arrive separately are one trace", pieces),
    ("identical spans are stored once", identical_once),
    ("spans that share an id but differ all stay", shared_ids),
    ("a trace of 10,008 spans comes back whole", large_trace),
    ("everything of a span comes back", lossless),
    ("large and strange texts come back", strange_texts),
    ("filtered and rejected chunks are not stored", fates),
    ("services and operations are listed sorted", names_listed),
    ("summaries count spans, errors, orphans and services", summaries),
    ("dependencies follow the callers and the range", dependencies),
    ("attribute keys and values are listed", keys_and_values),
];

const S: i64 = 1_000_000_000;
/// Start of drafts that do not say another.
const T: i64 = 1_000 * S;

fn put(store: &dyn Subject, spans: &[Draft]) {
    put_batch(store, batch(spans));
}

fn put_batch(store: &dyn Subject, batch: Batch) {
    let (tell, told) = std::sync::mpsc::channel();
    store.writer().append(
        Arc::new(batch),
        Box::new(move |result| {
            let _ = tell.send(result);
        }),
    );
    told.recv().unwrap().unwrap();
}

fn find(store: &dyn Subject, search: &Search) -> Vec<u128> {
    store.reader().search(search).unwrap().iter().map(|s| s.trace_id.0).collect()
}

fn on(each: Vec<Expr>) -> Search {
    Search { each, limit: 1000, ..Search::default() }
}

fn one(expr: Expr) -> Search {
    on(vec![expr])
}

fn get(store: &dyn Subject, id: u128) -> Batch {
    store.reader().trace(TraceId(id), TimeRange::ALL).unwrap().expect("the trace is there")
}

fn ids(batch: &Batch) -> Vec<u64> {
    let mut ids: Vec<u64> = batch.spans.iter().map(|s| s.span_id.0).collect();
    ids.sort_unstable();
    ids
}

fn service(name: &str) -> Expr {
    Expr::Is(Cond::Service { name: name.into(), fold: false })
}

fn op(name: &str) -> Expr {
    Expr::Is(Cond::Name { name: name.into(), fold: false })
}

fn lasting(min: i64, max: i64) -> Expr {
    Expr::Is(Cond::Duration { min, max })
}

fn attr(scope: AttrScope, key: &str, op: Op, value: Literal) -> Expr {
    Expr::Is(Cond::Attr { scope, key: key.into(), op, value })
}

fn tag(key: &str, text: &str) -> Expr {
    attr(AttrScope::Any, key, Op::Eq, Literal::Typed(text.into()))
}

fn empty(s: &dyn Subject) {
    s.settle();
    let r = s.reader();
    assert!(r.services().unwrap().is_empty());
    assert!(r.operations("").unwrap().is_empty());
    assert!(r.trace(TraceId(1), TimeRange::ALL).unwrap().is_none());
    assert!(r.search(&Search::default()).unwrap().is_empty());
    assert!(r.dependencies(TimeRange::ALL).unwrap().is_empty());
    assert!(r.attribute_keys().unwrap().is_empty());
    assert!(r.attribute_values("k", 10).unwrap().is_empty());
    assert!(r.attribute_values_where("k", &Expr::True, 10).unwrap().is_empty());
}

/// Where the tags of a Jaeger case lie.
#[derive(Clone, Copy, PartialEq)]
enum Spot {
    Nowhere,
    Span,
    Log,
    Process,
    Spread,
    Scope,
    ScopeNamed,
    Link,
}

fn spot_tags(prefix: &str) -> [(String, Tag, &'static str); 4] {
    [
        (format!("same{prefix}1"), "samevalue".into(), "samevalue"),
        (format!("same{prefix}2"), 123.into(), "123"),
        (format!("same{prefix}3"), 72.5.into(), "72.5"),
        (format!("same{prefix}4"), true.into(), "true"),
    ]
}

fn spot_prefix(spot: Spot) -> &'static str {
    match spot {
        Spot::Scope => "placescopeattribute",
        Spot::Link => "placelinkattribute",
        _ => "placetag",
    }
}

/// Number of the query, where its tags lie, whether it asks for the operation,
/// and for which durations (nanoseconds).
type JaegerCase = (u32, Spot, bool, Option<(i64, i64)>);

fn jaeger_queries(s: &dyn Subject) {
    use Spot::{Link, Log, Nowhere, Process, Scope, ScopeNamed, Span, Spread};
    let (max1, max2, range) = (Some((0, 1000)), Some((0, 2000)), Some((4500, 5500)));
    let cases: [JaegerCase; 23] = [
        (1, Span, false, None),
        (2, Log, false, None),
        (3, Process, false, None),
        (4, Spread, false, None),
        (6, Nowhere, true, None),
        (7, Nowhere, true, max2),
        (8, Nowhere, true, range),
        (9, Nowhere, false, range),
        (10, Nowhere, false, max1),
        (11, Nowhere, false, None),
        (12, Span, true, None),
        (13, Span, true, max2),
        (14, Span, true, range),
        (15, Span, false, range),
        (16, Span, false, max1),
        (17, Spread, true, None),
        (18, Spread, true, max2),
        (19, Spread, true, range),
        (20, Spread, false, range),
        (21, Spread, false, max1),
        (23, ScopeNamed, false, None),
        (24, Scope, false, None),
        (25, Link, false, None),
    ];
    let name = |n: u32| (format!("query{n:02}-service"), format!("query{n:02}-operation"));
    for (n, spot, _, duration) in cases {
        let (svc, opn) = name(n);
        let lasts = match duration {
            Some((_, 5500)) => 5000,
            Some((_, max)) => max,
            None => 2_000_000,
        };
        let mut d = Draft::new(u128::from(n), 3).service(svc).name(opn).lasting(lasts);
        for (i, (key, value, _)) in spot_tags(spot_prefix(spot)).into_iter().enumerate() {
            d = match (spot, i) {
                (Nowhere, _) => d,
                (Span, _) | (Spread, 0) | (ScopeNamed, _) => d.tag(&key, value),
                (Log, _) | (Spread, 1 | 2) => d.event_tag(&key, value),
                (Process | Spread, _) => d.process(&key, value),
                (Scope, _) => d.scope_tag(&key, value),
                (Link, _) => d.link_tag(&key, value),
            };
        }
        if spot == ScopeNamed {
            d = d.scope("otelhttp", "0.1.0");
        }
        // A second span of the trace that meets nothing but the service's name in part.
        put(s, &[d, Draft::new(u128::from(n), 4).parent(3).service("other").name("nothing").lasting(77)]);
    }
    let day = 86_400 * S;
    let midnight = T / day * day + day;
    put(
        s,
        &[
            Draft::new(5, 1).service("query05-service").start(midnight - S),
            Draft::new(5, 2).service("query05-service").start(midnight + S),
        ],
    );
    for trace in 220..223 {
        put(s, &[Draft::new(trace, 1).service("query22-service")]);
    }
    s.settle();
    for (n, spot, by_name, duration) in cases {
        let (svc, opn) = name(n);
        let mut parts = vec![service(&svc)];
        if by_name {
            parts.push(op(&opn));
        }
        if let Some((min, max)) = duration {
            parts.push(lasting(min, max));
        }
        if spot != Nowhere {
            parts.extend(spot_tags(spot_prefix(spot)).iter().map(|(k, _, text)| tag(k, text)));
        }
        if spot == ScopeNamed {
            parts.extend([tag("scope.name", "otelhttp"), tag("scope.version", "0.1.0")]);
        }
        assert_eq!(find(s, &one(Expr::all(parts))), [u128::from(n)], "query {n}");
    }
    let window = TimeRange { start: midnight - 2 * S, end: midnight + 2 * S };
    assert_eq!(find(s, &Search { window, ..one(service("query05-service")) }), [5]);
    assert_eq!(find(s, &one(service("query22-service"))), [220, 221, 222]);
}

fn typed_tags(s: &dyn Subject) {
    put(
        s,
        &[
            Draft::new(1, 1).tag("code", 503).tag("ok", false).tag("ratio", 2.0),
            Draft::new(1, 2).tag("code", "503").tag("ok", "false"),
        ],
    );
    put(s, &[Draft::new(2, 1).tag("code", 200).tag("http.status_code", 404.0)]);
    s.settle();
    assert_eq!(find(s, &one(tag("code", "503"))), [1]);
    assert_eq!(find(s, &one(tag("ok", "false"))), [1]);
    assert_eq!(find(s, &one(tag("ratio", "2"))), [1]);
    assert_eq!(find(s, &one(tag("http.status_code", "404"))), [2]);
    let at = |op, v| attr(AttrScope::Span, "code", op, Literal::Number(v));
    assert_eq!(find(s, &one(at(Op::Ge, 500.0))), [1]);
    assert_eq!(find(s, &one(at(Op::Lt, 500.0))), [2]);
    assert_eq!(find(s, &one(at(Op::Ne, 503.0))), [2]);
    assert!(find(s, &one(attr(AttrScope::Span, "code", Op::Eq, Literal::Str("200".into())))).is_empty());
    assert!(find(s, &one(attr(AttrScope::Span, "absent", Op::Ne, Literal::Str("x".into())))).is_empty());
    let has = |scope, key: &str| Expr::Is(Cond::HasAttr { scope, key: key.into() });
    assert_eq!(find(s, &one(has(AttrScope::Span, "ratio"))), [1]);
    assert!(find(s, &one(has(AttrScope::Resource, "ratio"))).is_empty());
}

fn intrinsics(s: &dyn Subject) {
    put(s, &[Draft::new(1, 1).env("prod").hostname("h1").resource("GET /a").span_type("web").error(true)]);
    put(s, &[Draft::new(2, 1).service("shop").scope("lib", "2")]);
    s.settle();
    for (key, value, expected) in [
        ("env", "prod", 1),
        ("hostname", "h1", 1),
        ("resource.name", "GET /a", 1),
        ("span.type", "web", 1),
        ("service.name", "shop", 2),
        ("scope.version", "2", 2),
    ] {
        assert_eq!(find(s, &one(tag(key, value))), [expected], "{key}");
        let has = Expr::Is(Cond::HasAttr { scope: AttrScope::Any, key: key.into() });
        assert!(find(s, &one(has)).contains(&expected), "{key}");
    }
    let has_error = Expr::Is(Cond::HasAttr { scope: AttrScope::Any, key: "error".into() });
    assert_eq!(find(s, &one(has_error)), [1]);
    assert_eq!(find(s, &one(op("GET /a"))), [1], "the resource is a name");
}

fn names_and_patterns(s: &dyn Subject) {
    put(s, &[Draft::new(1, 1).service("web-store").name("http.request").resource("GET /cart")]);
    put(s, &[Draft::new(2, 1).service("Worker").name("job").tag("queue", "mail-eu").event(1, "Retried")]);
    s.settle();
    assert_eq!(find(s, &one(Expr::Is(Cond::Service { name: "worker".into(), fold: true }))), [2]);
    assert!(find(s, &one(service("worker"))).is_empty());
    assert_eq!(find(s, &one(Expr::Is(Cond::Name { name: "get /CART".into(), fold: true }))), [1]);
    assert_eq!(find(s, &one(Expr::Is(Cond::ServiceGlob("web-*".into())))), [1]);
    assert_eq!(find(s, &one(Expr::Is(Cond::NameGlob("GET *".into())))), [1]);
    assert_eq!(find(s, &one(Expr::Is(Cond::NameGlob("j?b".into())))), [2]);
    assert_eq!(find(s, &one(attr(AttrScope::Any, "queue", Op::Eq, Literal::Glob("mail-*".into())))), [2]);
    assert_eq!(find(s, &one(Expr::Is(Cond::FullText("/Cart".into())))), [1]);
    assert_eq!(find(s, &one(Expr::Is(Cond::FullText("retried".into())))), [2]);
    assert_eq!(find(s, &one(Expr::Is(Cond::FullText("MAIL".into())))), [2]);
    assert_eq!(find(s, &one(Expr::Is(Cond::EventName("Retried".into())))), [2]);
}

fn boolean(s: &dyn Subject) {
    put(s, &[Draft::new(1, 1).tag("a", "1"), Draft::new(1, 2).tag("b", "1")]);
    put(s, &[Draft::new(2, 1).tag("a", "1").tag("b", "1").kind(SpanKind::Server)]);
    put(s, &[Draft::new(3, 1).tag("c", "1").status(Status::Ok), Draft::new(3, 2).parent(1).error(true)]);
    s.settle();
    let (a, b) = (tag("a", "1"), tag("b", "1"));
    assert_eq!(find(s, &one(Expr::And(vec![a.clone(), b.clone()]))), [2]);
    assert_eq!(find(s, &one(Expr::Or(vec![a.clone(), tag("c", "1")]))), [1, 2, 3]);
    assert_eq!(find(s, &one(Expr::And(vec![a, Expr::Not(Box::new(b))]))), [1]);
    assert_eq!(find(s, &one(Expr::Is(Cond::Kind(SpanKind::Server)))), [2]);
    assert_eq!(find(s, &one(Expr::Is(Cond::Error(true)))), [3]);
    assert_eq!(find(s, &one(Expr::Is(Cond::Error(false)))), [1, 2, 3]);
    assert_eq!(find(s, &one(Expr::Is(Cond::Status(Status::Ok)))), [3]);
    assert_eq!(find(s, &one(Expr::Is(Cond::Status(Status::Error)))), [3]);
    assert_eq!(find(s, &one(Expr::Not(Box::new(Expr::Is(Cond::Root))))), [3]);
    put(s, &[Draft::new(4, 1).flag(flags::SHARED | flags::DEBUG)]);
    s.settle();
    assert_eq!(find(s, &one(Expr::Is(Cond::Flags(flags::SHARED)))), [4]);
}

fn each_over_spans(s: &dyn Subject) {
    put(s, &[Draft::new(1, 1).tag("a", "1"), Draft::new(1, 2).tag("b", "1")]);
    put(s, &[Draft::new(2, 1).tag("a", "1").tag("b", "1")]);
    put(s, &[Draft::new(3, 1).tag("a", "1")]);
    s.settle();
    assert_eq!(find(s, &on(vec![tag("a", "1"), tag("b", "1")])), [1, 2]);
    assert_eq!(find(s, &on(vec![])), [1, 2, 3], "no condition finds every trace");
}

fn order_and_limit(s: &dyn Subject) {
    for (id, start) in [(5u128, 3), (9, 1), (2, 2), (7, 2), (1, 0)] {
        put(s, &[Draft::new(id, 1).start(T + start * S)]);
    }
    s.settle();
    assert_eq!(find(s, &on(vec![])), [5, 2, 7, 9, 1]);
    assert_eq!(find(s, &Search { limit: 2, ..Search::default() }), [5, 2]);
    assert!(find(s, &Search { limit: 0, ..Search::default() }).is_empty());
}

fn paging(s: &dyn Subject) {
    let mut all = Vec::new();
    for i in 0..23u128 {
        // Many ties, which are where pages go wrong.
        put(s, &[Draft::new(i + 1, 1).start(T + (i as i64 / 5) * S)]);
        all.push(i + 1);
    }
    s.settle();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = s.reader().search(&Search { limit: 4, after, ..Search::default() }).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(Cursor { start: last.start, trace_id: last.trace_id });
        seen.extend(page.iter().map(|t| t.trace_id.0));
        assert!(seen.len() <= all.len(), "pages repeat: {seen:?}");
    }
    assert_eq!(seen, find(s, &on(vec![])));
    seen.sort_unstable();
    assert_eq!(seen, all);
}

fn window_on_spans(s: &dyn Subject) {
    put(s, &[Draft::new(1, 1).start(T), Draft::new(1, 2).parent(1).start(T + 10 * S).tag("late", "1")]);
    s.settle();
    let within = |from: i64, to: i64, expr| {
        let window = TimeRange { start: T + from * S, end: T + to * S };
        !find(s, &Search { window, ..one(expr) }).is_empty()
    };
    assert!(within(0, 0, Expr::True));
    assert!(within(10, 10, Expr::True));
    assert!(within(5, 15, tag("late", "1")));
    assert!(!within(0, 5, tag("late", "1")), "the matching span itself lies outside");
    assert!(!within(1, 9, Expr::True));
}

fn window_on_traces(s: &dyn Subject) {
    // The root starts after its child (skewed clocks); trace 2 has no root.
    put(s, &[Draft::new(1, 1).start(T + 5 * S), Draft::new(1, 2).parent(1).start(T).tag("x", "1")]);
    put(s, &[Draft::new(2, 1).parent(9).start(T + 2 * S), Draft::new(2, 2).parent(9).start(T + S)]);
    s.settle();
    let within = |from: i64, to: i64| {
        let window = TimeRange { start: T + from * S, end: T + to * S };
        find(s, &Search { window, window_on: WindowOn::TraceStart, ..on(vec![]) })
    };
    assert_eq!(within(5, 5), [1]);
    assert_eq!(within(1, 1), [2]);
    assert!(within(2, 4).is_empty());
    let window = TimeRange { start: T + 5 * S, end: T + 6 * S };
    let search = Search { window, window_on: WindowOn::TraceStart, ..one(tag("x", "1")) };
    assert_eq!(find(s, &search), [1], "the window is not about the span that matches");
}

fn timeless(s: &dyn Subject) {
    put(s, &[Draft::new(1, 1).timeless().tag("k", "v")]);
    put(s, &[Draft::new(2, 1).timeless(), Draft::new(2, 2).parent(1)]);
    s.settle();
    assert_eq!(get(s, 1).spans[0].flags & flags::NO_START, flags::NO_START);
    let search = Search { window_on: WindowOn::TraceStart, ..on(vec![]) };
    assert_eq!(find(s, &search), [2]);
    let found = s.reader().search(&search).unwrap();
    assert_eq!((found[0].start, found[0].end), (T, T + 1_000_000));
}

fn durations(s: &dyn Subject) {
    put(
        s,
        &[
            Draft::new(1, 1).kind(SpanKind::Client).service("web").lasting(5_000),
            Draft::new(1, 1).kind(SpanKind::Server).service("db").lasting(3_000).flag(flags::SHARED),
        ],
    );
    put(s, &[Draft::new(2, 1).timeless()]);
    put(s, &[Draft::new(3, 1).lasting(0)]);
    s.settle();
    assert_eq!(find(s, &one(lasting(5_000, 5_000))), [1]);
    assert_eq!(find(s, &one(lasting(3_000, 3_000))), [1]);
    assert!(find(s, &one(lasting(3_001, 4_999))).is_empty());
    assert!(find(s, &one(Expr::And(vec![service("db"), lasting(5_000, i64::MAX)]))).is_empty());
    assert_eq!(find(s, &one(lasting(0, 0))), [3]);
}

fn high_half(s: &dyn Subject) {
    let (a, b) = (TraceId::from_halves(1, 7).0, TraceId::from_halves(2, 7).0);
    // Not as Datadog, whose tracers leave the high half out: a store may join those.
    let put = |spans: &[Draft]| {
        let mut batch = batch(spans);
        batch.intake.protocol = Protocol::ZipkinJsonV2;
        put_batch(s, batch);
    };
    put(&[Draft::new(a, 1)]);
    put(&[Draft::new(b, 1), Draft::new(b, 2)]);
    put(&[Draft::new(7, 1), Draft::new(7, 2), Draft::new(7, 3)]);
    s.settle();
    assert_eq!(get(s, a).spans.len(), 1);
    assert_eq!(get(s, b).spans.len(), 2);
    assert_eq!(get(s, 7).spans.len(), 3);
    assert_eq!(find(s, &on(vec![])), [7, a, b]);
}

fn pieces(s: &dyn Subject) {
    put(s, &[Draft::new(1, 2).parent(1).service("b").start(T + 20)]);
    put(s, &[Draft::new(9, 1)]);
    s.settle();
    put(s, &[Draft::new(1, 1).service("a").start(T)]);
    put(s, &[Draft::new(1, 3).parent(2).service("c").start(T + 10)]);
    s.settle();
    let trace = get(s, 1);
    assert_eq!(ids(&trace), [1, 2, 3]);
    let found = s.reader().search(&one(service("c"))).unwrap();
    assert_eq!((found[0].spans, found[0].orphans, found[0].start), (3, 0, T));
    assert_eq!(found[0].root_service, "a");
}

fn identical_once(s: &dyn Subject) {
    let spans = [Draft::new(1, 1).tag("k", "v"), Draft::new(1, 2).parent(1).event(5, "e")];
    put(s, &spans);
    put(s, &spans);
    s.settle();
    put(s, &spans);
    s.settle();
    assert_eq!(ids(&get(s, 1)), [1, 2]);
    assert_eq!(s.reader().search(&on(vec![])).unwrap()[0].spans, 2);
}

fn shared_ids(s: &dyn Subject) {
    put(s, &[Draft::new(1, 1).kind(SpanKind::Client).service("web")]);
    put(s, &[Draft::new(1, 1).kind(SpanKind::Server).service("db").flag(flags::SHARED)]);
    put(s, &[Draft::new(1, 1).kind(SpanKind::Client).service("web").name("other")]);
    // Jaeger's case: 200 spans of which every 20th repeats an id.
    let many: Vec<Draft> = (0..200u64)
        .map(|i| {
            let id = if i % 20 == 19 { i } else { i + 1 };
            Draft::new(2, id).name(format!("op{i}").as_str())
        })
        .collect();
    put(s, &many);
    s.settle();
    assert_eq!(ids(&get(s, 1)), [1, 1, 1]);
    assert_eq!(get(s, 2).spans.len(), 200);
}

fn large_trace(s: &dyn Subject) {
    let count = 10_008u64;
    for part in (1..=count).collect::<Vec<_>>().chunks(1000) {
        let spans: Vec<Draft> = part
            .iter()
            .map(|&i| Draft::new(1, i).parent(i - 1).start(T + i as i64).tag("n", i as i64))
            .collect();
        put(s, &spans);
    }
    s.settle();
    let trace = get(s, 1);
    assert_eq!(ids(&trace), (1..=count).collect::<Vec<_>>());
    let chunk = &trace.chunks[0];
    let starts: Vec<i64> = trace.chunk_spans(chunk).iter().map(|s| s.start).collect();
    assert!(starts.is_sorted(), "oldest first");
    assert_eq!(s.reader().search(&on(vec![])).unwrap()[0].spans, count);
}

fn lossless(s: &dyn Subject) {
    let mut d = Draft::new(TraceId::from_halves(3, 4).0, 5)
        .parent(6)
        .service("svc")
        .name("name")
        .resource("GET /")
        .span_type("web")
        .kind(SpanKind::Consumer)
        .status(Status::Error)
        .status_message("boom")
        .trace_state("dd=s:1")
        .lasting(42)
        .flag(0x1_0000_0101)
        .tag("text", "v")
        .tag("int", i64::MIN)
        .tag("double", -0.1)
        .tag("bool", true)
        .tag("bytes", &[0u8, 255, 1][..])
        .tag("twice", "text")
        .tag("twice", 2.0)
        .process("host", "h")
        .process("pid", 42)
        .env("prod")
        .scope("lib", "1.2")
        .scope_tag("s", 1)
        .event(7, "e1")
        .event_tag("k", 1.5)
        .event(8, "")
        .link(TraceId::from_halves(8, 9).0, 10)
        .link_tag("why", "batch");
    d.tags.push(("list".into(), Tag::List(vec!["a".into(), 1.into(), Tag::List(vec![true.into()])])));
    let mut sent = batch(&[d]);
    sent.chunks[0].priority = 2;
    sent.chunks[0].origin = sent.arena.push("lambda");
    sent.spans[0].dropped = [1, 2, 3];
    sent.links[0].trace_state = sent.arena.push("a=b");
    sent.links[0].flags = 1;
    put_batch(s, sent.clone());
    s.settle();
    let got = get(s, TraceId::from_halves(3, 4).0);
    assert_same_span(&sent, &got);
    let (chunk, resource) = (got.chunks[0], got.resources[got.chunks[0].resource as usize]);
    assert_eq!((chunk.priority, got.str(chunk.origin)), (2, "lambda"));
    assert_eq!(got.str(resource.env), "prod");
    assert_eq!(got.get(resource.attrs, "pid"), Some(Value::Int(42)));
    let scope = got.scopes[got.spans[0].scope as usize];
    assert_eq!((got.str(scope.name), got.str(scope.version)), ("lib", "1.2"));
    assert_eq!(got.get(scope.attrs, "s"), Some(Value::Int(1)));
}

fn strange_texts(s: &dyn Subject) {
    let large = "x".repeat(200_000);
    let strange = "quote\" back\\slash\n\u{0}\u{7f} ünï \u{1f600} \u{2028}";
    put(s, &[Draft::new(1, 1).tag("large", large.as_str()).tag(strange, strange).name(strange)]);
    put(s, &[Draft::new(2, 1).service("").name("")]);
    s.settle();
    let trace = get(s, 1);
    let span = trace.spans[0];
    assert_eq!(trace.get_str(span.attrs, "large"), Some(large.as_str()));
    assert_eq!(trace.get_str(span.attrs, strange), Some(strange));
    assert_eq!(find(s, &one(tag(strange, strange))), [1]);
    assert_eq!(find(s, &one(op(strange))), [1]);
    assert_eq!(get(s, 2).spans[0].span_id, SpanId(1));
    assert_eq!(s.reader().services().unwrap(), ["svc"], "no service is not a service");
}

fn fates(s: &dyn Subject) {
    let mut b = batch(&[Draft::new(1, 1), Draft::new(2, 1), Draft::new(3, 1)]);
    b.chunks[0].fate = Fate::Filtered("resource");
    b.chunks[1].fate = Fate::Rejected("foreign_span");
    put_batch(s, b);
    s.settle();
    assert_eq!(find(s, &on(vec![])), [3]);
    assert!(s.reader().trace(TraceId(1), TimeRange::ALL).unwrap().is_none());
}

fn names_listed(s: &dyn Subject) {
    put(
        s,
        &[
            Draft::new(1, 1).service("b").name("get").kind(SpanKind::Server),
            Draft::new(1, 2).service("b").name("get").kind(SpanKind::Client),
            Draft::new(1, 3).service("b").name("alpha"),
            Draft::new(1, 4).service("a b/c").name("put/x y"),
        ],
    );
    put(s, &[Draft::new(2, 1).service("b").name("alpha")]);
    s.settle();
    let r = s.reader();
    assert_eq!(r.services().unwrap(), ["a b/c", "b"]);
    let of = |name: &str, kind| Operation { name: name.into(), kind };
    let expected =
        [of("alpha", SpanKind::Unspecified), of("get", SpanKind::Server), of("get", SpanKind::Client)];
    assert_eq!(r.operations("b").unwrap(), expected);
    assert_eq!(r.operations("").unwrap().len(), 4);
    assert!(r.operations("B").unwrap().is_empty());
}

fn summaries(s: &dyn Subject) {
    put(
        s,
        &[
            Draft::new(1, 1).service("web").name("req").resource("GET /").lasting(50),
            Draft::new(1, 2).parent(1).service("db").start(T + 10).lasting(90).error(true),
            Draft::new(1, 3).parent(77).service("db").start(T + 5).lasting(1),
        ],
    );
    put(s, &[Draft::new(2, 1).parent(9).start(T - S)]);
    s.settle();
    let count = |name: &str, spans, errors| ServiceCount { name: name.into(), spans, errors };
    let found = s.reader().search(&on(vec![])).unwrap();
    assert_eq!(
        found[0],
        TraceSummary {
            trace_id: TraceId(1),
            root_service: "web".into(),
            root_name: "req".into(),
            root_resource: "GET /".into(),
            start: T,
            end: T + 100,
            spans: 3,
            errors: 1,
            orphans: 1,
            services: vec![count("db", 2, 1), count("web", 1, 0)],
        }
    );
    assert_eq!((found[1].root_service.as_str(), found[1].orphans), ("", 1));
}

fn dependencies(s: &dyn Subject) {
    for (trace, start) in [(1, T), (2, T + 100 * S)] {
        put(
            s,
            &[
                Draft::new(trace, 1).service("web").kind(SpanKind::Server).start(start),
                Draft::new(trace, 2).parent(1).service("web").kind(SpanKind::Client).start(start + 1),
                Draft::new(trace, 3).parent(2).service("db").kind(SpanKind::Server).start(start + 2),
            ],
        );
        s.settle();
    }
    put(s, &[Draft::new(1, 4).parent(3).service("cache").start(T + 3)]);
    s.settle();
    let edge = |parent: &str, child: &str, calls, implied| Dependency {
        parent: parent.into(),
        child: child.into(),
        calls,
        errors: 0,
        implied,
    };
    let all = s.reader().dependencies(TimeRange::ALL).unwrap();
    assert_eq!(all, [edge("db", "cache", 0, 1), edge("web", "db", 2, 0)]);
    let first = s.reader().dependencies(TimeRange { start: T, end: T + S }).unwrap();
    assert_eq!(first, [edge("db", "cache", 0, 1), edge("web", "db", 1, 0)]);
    assert!(s.reader().dependencies(TimeRange { start: 0, end: T - 1 }).unwrap().is_empty());
}

fn keys_and_values(s: &dyn Subject) {
    put(s, &[Draft::new(1, 1).tag("k", "v1").tag("n", 7).process("region", "eu").service("a")]);
    put(s, &[Draft::new(2, 1).tag("k", "v2").tag("n", 2.0).process("region", "us").service("b")]);
    put(s, &[Draft::new(3, 1).tag("k", "v1").tag("flag", true).service("b")]);
    s.settle();
    let r = s.reader();
    let key = |key: &str, resource| AttrKey { key: key.into(), resource };
    assert_eq!(
        r.attribute_keys().unwrap(),
        [key("flag", false), key("k", false), key("n", false), key("region", true)]
    );
    assert_eq!(r.attribute_values("k", 10).unwrap(), ["v1", "v2"]);
    assert_eq!(r.attribute_values("k", 1).unwrap(), ["v1"]);
    assert_eq!(r.attribute_values("n", 10).unwrap(), ["2", "7"]);
    assert_eq!(r.attribute_values("region", 10).unwrap(), ["eu", "us"]);
    assert_eq!(r.attribute_values_where("k", &service("b"), 10).unwrap(), ["v1", "v2"]);
    assert_eq!(r.attribute_values_where("region", &service("a"), 10).unwrap(), ["eu"]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_store_does_what_every_store_must() {
        check(&|| Box::new(MemoryStore::new()));
    }

    /// A store that loses every second trace.
    struct Lossy(MemoryStore);
    impl SpanWriter for Lossy {
        fn append(&self, batch: Arc<Batch>, done: crate::AckFn) {
            if batch.spans.iter().all(|s| s.trace_id.0 % 2 == 1) {
                self.0.insert(&batch);
            }
            done(Ok(()));
        }
    }
    impl Subject for Lossy {
        fn writer(&self) -> &dyn SpanWriter {
            self
        }
        fn reader(&self) -> &dyn SpanReader {
            &self.0
        }
    }

    #[test]
    #[should_panic(expected = "cases failed")]
    fn a_store_that_loses_traces_does_not_pass() {
        check(&|| Box::new(Lossy(MemoryStore::new())));
    }
}
