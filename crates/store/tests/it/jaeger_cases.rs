//! The query cases of Jaeger's storage integration suite (spec: store and
//! query, §3.1), asked through the seam. All traces are stored before any
//! query, so each must be found alone.

use crate::support::*;
use spanloom_model::*;

const MIN: i64 = 60_000_000_000;
/// 2017-01-26T16:46:31.639875Z, where most of the suite's spans lie.
const AT: i64 = 1_485_449_191_639_875_000;

#[derive(Clone, Copy, PartialEq)]
enum Spot {
    Span,
    Event,
    Resource,
    Mixed,
    Scope,
    Link,
    Nowhere,
}

struct Case {
    number: u32,
    spot: Spot,
    operation: bool,
    min: i64,
    max: i64,
    /// Duration of the spans stored.
    duration: i64,
    traces: u128,
}

const ANY: i64 = i64::MAX;

fn cases() -> Vec<Case> {
    let case = |number, spot, operation, min, max, duration| Case {
        number,
        spot,
        operation,
        min,
        max,
        duration,
        traces: 1,
    };
    let mut list = vec![
        case(1, Spot::Span, false, 0, ANY, 7_000),
        case(2, Spot::Event, false, 0, ANY, 7_000),
        case(3, Spot::Resource, false, 0, ANY, 7_000),
        case(4, Spot::Mixed, false, 0, ANY, 7_000),
        case(6, Spot::Nowhere, true, 0, ANY, 7_000),
        case(7, Spot::Nowhere, true, 0, 2_000, 2_000),
        case(8, Spot::Nowhere, true, 4_500, 5_500, 5_000),
        case(9, Spot::Nowhere, false, 4_500, 5_500, 5_000),
        case(10, Spot::Nowhere, false, 0, 1_000, 1_000),
        case(11, Spot::Nowhere, false, 0, ANY, 100_000),
        case(12, Spot::Span, true, 0, ANY, 7_000),
        case(13, Spot::Span, true, 0, 2_000, 2_000),
        case(14, Spot::Span, true, 4_500, 5_500, 5_000),
        case(15, Spot::Span, false, 4_500, 5_500, 5_000),
        case(16, Spot::Span, false, 0, 1_000, 1_000),
        case(17, Spot::Mixed, true, 0, ANY, 7_000),
        case(18, Spot::Mixed, true, 0, 2_000, 2_000),
        case(19, Spot::Mixed, true, 4_500, 5_500, 5_000),
        case(20, Spot::Mixed, false, 4_500, 5_500, 5_000),
        case(21, Spot::Mixed, false, 0, 1_000, 1_000),
        case(22, Spot::Nowhere, false, 0, ANY, 7_000),
        case(23, Spot::Span, false, 0, ANY, 7_000),
        case(24, Spot::Scope, false, 0, ANY, 7_000),
        case(25, Spot::Link, false, 0, ANY, 7_000),
    ];
    list.iter_mut().filter(|c| c.number == 22).for_each(|c| c.traces = 3);
    list
}

fn tags(spot: Spot) -> [(&'static str, Val<'static>, &'static str); 4] {
    let keys: [&'static str; 4] = match spot {
        Spot::Scope => std::array::from_fn(|i| {
            [
                "sameplacescopeattribute1",
                "sameplacescopeattribute2",
                "sameplacescopeattribute3",
                "sameplacescopeattribute4",
            ][i]
        }),
        Spot::Link => std::array::from_fn(|i| {
            [
                "sameplacelinkattribute1",
                "sameplacelinkattribute2",
                "sameplacelinkattribute3",
                "sameplacelinkattribute4",
            ][i]
        }),
        _ => ["sameplacetag1", "sameplacetag2", "sameplacetag3", "sameplacetag4"],
    };
    [
        (keys[0], Val::S("sameplacevalue"), "sameplacevalue"),
        (keys[1], Val::I(123), "123"),
        (keys[2], Val::D(72.5), "72.5"),
        (keys[3], Val::B(true), "true"),
    ]
}

fn store_case(b: &mut Builder, c: &Case, trace: u128) {
    let all: Vec<(&str, Val<'_>)> = tags(c.spot).map(|(k, v, _)| (k, v)).to_vec();
    let (span, event, resource) = match c.spot {
        Spot::Span => (&all[..], &all[..0], &all[..0]),
        Spot::Event => (&all[..0], &all[..], &all[..0]),
        Spot::Resource => (&all[..0], &all[..0], &all[..]),
        Spot::Mixed => (&all[..1], &all[1..2], &all[2..]),
        _ => (&all[..0], &all[..0], &all[..0]),
    };
    let attrs = b.attrs(resource);
    b.batch.resources.push(Resource { attrs, ..Resource::default() });
    let service = format!("query{:02}-service", c.number);
    let name = if c.operation { format!("query{:02}-operation", c.number) } else { "other".to_owned() };
    let span_attrs = b.attrs(span);
    let event_attrs = b.attrs(event);
    let extra = b.attrs(&all);
    let s = S {
        trace,
        id: trace as u64,
        service: &service,
        name: &name,
        start: AT,
        duration: c.duration,
        ..S::default()
    };
    b.span(&s).attrs = span_attrs;
    let at = b.batch.spans.len() - 1;
    b.batch.events.push(Event { time: AT as u64, attrs: event_attrs, ..Event::default() });
    b.batch.spans[at].events = Range32::new(b.batch.events.len() - 1, b.batch.events.len());
    if c.spot == Spot::Scope {
        let name = b.text("scope");
        b.batch.scopes.push(Scope { name, attrs: extra, ..Scope::default() });
        b.batch.spans[at].scope = b.batch.scopes.len() as u32 - 1;
    }
    if c.spot == Spot::Link {
        b.batch.links.push(Link {
            trace_id: TraceId(77),
            span_id: SpanId(7),
            attrs: extra,
            ..Link::default()
        });
        b.batch.spans[at].links = Range32::new(b.batch.links.len() - 1, b.batch.links.len());
    }
    // A neighbour in the same trace that has the tags, but another service:
    // conditions must hold on one span.
    let other = b.attrs(&all);
    let decoy = S { id: trace as u64 + 500, service: "decoy-service", name: &name, duration: 1, ..s.clone() };
    b.span(&decoy).attrs = other;
}

fn query(c: &Case) -> Search {
    let mut parts = vec![service(&format!("query{:02}-service", c.number))];
    if c.operation {
        parts.push(Expr::Is(Cond::Name { name: format!("query{:02}-operation", c.number), fold: false }));
    }
    if c.spot != Spot::Nowhere {
        parts.extend(tags(c.spot).map(|(k, _, typed)| tag(k, typed)));
    }
    if c.min > 0 || c.max < ANY {
        parts.push(Expr::Is(Cond::Duration { min: c.min, max: c.max }));
    }
    Search {
        each: vec![Expr::all(parts)],
        window: TimeRange { start: AT - 60 * MIN, end: AT + 60 * MIN },
        limit: 1000,
        ..Search::default()
    }
}

fn filled() -> Fixture {
    let f = Fixture::new();
    for c in cases() {
        for n in 0..c.traces {
            let mut b = Builder::new(Protocol::JaegerGrpc);
            store_case(&mut b, &c, u128::from(c.number) * 10 + n + 1);
            f.put(&b.batch);
        }
    }
    f
}

#[test]
fn every_case_finds_its_traces_and_no_others_live_and_flushed() {
    let mut f = filled();
    for round in ["live", "flushed", "merged", "reopened"] {
        for c in cases() {
            let want: Vec<u128> = (0..c.traces).map(|n| u128::from(c.number) * 10 + n + 1).collect();
            assert_eq!(found(f.store(), &query(&c)), want, "case {} {round}", c.number);
            let wrong = Search { window: TimeRange { start: 0, end: 1 }, ..query(&c) };
            assert!(found(f.store(), &wrong).is_empty());
        }
        match round {
            "live" => f.store().flush().unwrap(),
            "flushed" => f.store().compact_now(true).unwrap(),
            _ => f.reopen(),
        }
    }
}

#[test]
fn case_5_spans_either_side_of_midnight() {
    let f = Fixture::new();
    let midnight = AT - AT % (24 * 60 * MIN);
    let s = |id, start| S { id, start, service: "query05-service", ..S::default() };
    f.put(&batch(Protocol::JaegerGrpc, &[s(1, midnight - MIN), s(2, midnight + MIN)]));
    let mut q = search(vec![service("query05-service")]);
    q.window = TimeRange { start: midnight, end: midnight + 7 * MIN };
    assert_eq!(found(f.store(), &q), [1]);
    assert_eq!(spans_of(f.store(), 1), [1, 2]);
}

#[test]
fn services_and_operations_with_kinds() {
    let f = Fixture::new();
    let s = |id, service, name, kind| S { id, service, name, kind, ..S::default() };
    f.put(&batch(
        Protocol::JaegerGrpc,
        &[
            s(1, "example-service-1", "example-operation-1", SpanKind::Unspecified),
            s(2, "example-service-2", "example-operation-2", SpanKind::Unspecified),
            s(3, "example-service-1", "example-operation-3", SpanKind::Server),
            s(4, "example-service-1", "example-operation-4", SpanKind::Client),
            s(5, "example-service-3", "x", SpanKind::Unspecified),
        ],
    ));
    for _ in 0..2 {
        assert_eq!(
            f.store().services().unwrap(),
            ["example-service-1", "example-service-2", "example-service-3"]
        );
        let operations: Vec<(String, SpanKind)> = f
            .store()
            .operations("example-service-1")
            .unwrap()
            .into_iter()
            .map(|o| (o.name, o.kind))
            .collect();
        assert_eq!(
            operations,
            [
                ("example-operation-1".to_owned(), SpanKind::Unspecified),
                ("example-operation-3".to_owned(), SpanKind::Server),
                ("example-operation-4".to_owned(), SpanKind::Client),
            ]
        );
        assert_eq!(f.store().operations("").unwrap().len(), 5);
        f.store().flush().unwrap();
    }
}

#[test]
fn a_large_trace_comes_back_whole() {
    let f = Fixture::new();
    for part in 0..12u64 {
        let spans: Vec<S<'_>> = (0..834)
            .map(|i| S { id: part * 834 + i + 1, start: T0 + (part * 834 + i) as i64, ..S::default() })
            .collect();
        f.put(&batch(Protocol::OtlpProto, &spans));
        if part == 6 {
            f.store().flush().unwrap();
        }
    }
    assert_eq!(spans_of(f.store(), 1), (1..=10_008).collect::<Vec<u64>>());
    assert_eq!(f.store().search(&search(vec![])).unwrap()[0].spans, 10_008);
}

#[test]
fn spans_that_repeat_an_id_all_come_back() {
    let f = Fixture::new();
    let spans: Vec<S<'_>> = (1..=200u64)
        .map(|i| S { id: if i % 20 == 0 { 20 } else { i }, start: T0 + i as i64, ..S::default() })
        .collect();
    f.put(&batch(Protocol::OtlpProto, &spans));
    assert_eq!(spans_of(f.store(), 1).len(), 200);
    f.store().flush().unwrap();
    assert_eq!(spans_of(f.store(), 1).len(), 200);
}

#[test]
fn traces_are_found_without_a_service() {
    let f = Fixture::new();
    let s = |trace, service| S {
        trace,
        service,
        tags: &[("shared", "yes")],
        start: T0 + trace as i64,
        ..S::default()
    };
    f.put(&batch(Protocol::OtlpProto, &[s(1, "one"), s(2, "two")]));
    assert_eq!(found(f.store(), &search(vec![tag("shared", "yes")])), [2, 1]);
}

#[test]
fn dependencies_count_calls_between_services() {
    let f = Fixture::new();
    let s = |trace, id, parent, service| S { trace, id, parent, service, ..S::default() };
    f.put(&batch(
        Protocol::JaegerGrpc,
        &[
            s(1, 1, 0, "hello"),
            s(1, 2, 1, "world"),
            s(1, 3, 2, "hello"),
            s(1, 4, 2, "hello"),
            s(1, 5, 2, "hello"),
            s(1, 6, 3, "hello"),
        ],
    ));
    for _ in 0..2 {
        let links: Vec<(String, String, u64)> = f
            .store()
            .dependencies(TimeRange::ALL)
            .unwrap()
            .into_iter()
            .map(|d| (d.parent, d.child, d.calls))
            .collect();
        assert_eq!(
            links,
            [("hello".to_owned(), "world".to_owned(), 1), ("world".to_owned(), "hello".to_owned(), 3)]
        );
        assert!(f.store().dependencies(TimeRange { start: 0, end: 1 }).unwrap().is_empty());
        f.store().flush().unwrap();
    }
}
