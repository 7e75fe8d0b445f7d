//! Zipkin's store contract (spec: store and query, §2.4 and §3.2) as far as it
//! concerns a store, asked through the seam.

use crate::support::*;
use spanloom_model::*;

fn zipkin(spans: &[S<'_>]) -> Batch {
    batch(Protocol::ZipkinJsonV2, spans)
}

fn window(start: i64, end: i64) -> Search {
    Search { window: TimeRange { start, end }, window_on: WindowOn::TraceStart, ..search(vec![]) }
}

#[test]
fn the_window_applies_to_the_root_or_the_earliest_span() {
    let f = Fixture::new();
    f.put(&zipkin(&[
        // Root in the middle, a child that (by its clock) is earlier.
        S { trace: 1, id: 1, start: T0 + 50 * MS, ..S::default() },
        S { trace: 1, id: 2, parent: 1, start: T0 + 10 * MS, ..S::default() },
        // No root arrived.
        S { trace: 2, id: 3, parent: 9, start: T0 + 30 * MS, ..S::default() },
        S { trace: 2, id: 4, parent: 3, start: T0 + 70 * MS, ..S::default() },
        // No start at all.
        S { trace: 3, id: 5, start: 0, flags: flags::NO_START, ..S::default() },
    ]));
    for _ in 0..2 {
        assert_eq!(found(f.store(), &window(T0 + 45 * MS, T0 + 55 * MS)), [1]);
        assert_eq!(found(f.store(), &window(T0 + 30 * MS, T0 + 30 * MS)), [2]);
        assert!(found(f.store(), &window(T0 + 5 * MS, T0 + 15 * MS)).is_empty());
        assert!(found(f.store(), &window(T0 + 60 * MS, T0 + 90 * MS)).is_empty());
        assert_eq!(
            found(f.store(), &window(i64::MIN, i64::MAX)),
            [2, 1],
            "newest first; without start never"
        );
        f.store().flush().unwrap();
    }
}

/// Tags sent after the span come as a second report of it, without time and
/// without parent.
#[test]
fn a_late_report_without_time_is_not_the_root() {
    let f = Fixture::new();
    let late = S { trace: 1, id: 1, start: 0, name: "", flags: flags::NO_START, ..S::default() };
    f.put(&zipkin(&[
        S { trace: 1, id: 1, start: T0 + 50 * MS, name: "root", ..S::default() },
        late,
        S { trace: 1, id: 2, parent: 1, start: T0 + 10 * MS, ..S::default() },
    ]));
    for _ in 0..2 {
        let list = f.store().search(&window(T0 + 45 * MS, T0 + 55 * MS)).unwrap();
        assert_eq!(list.len(), 1);
        assert_eq!(list[0].root_name, "root");
        f.store().flush().unwrap();
    }
}

#[test]
fn conditions_may_be_met_by_different_spans() {
    let f = Fixture::new();
    f.put(&zipkin(&[
        S { trace: 1, id: 1, service: "front", tags: &[("http.path", "/a")], ..S::default() },
        S {
            trace: 1,
            id: 2,
            parent: 1,
            service: "front",
            tags: &[("error", "timeout")],
            error: true,
            ..S::default()
        },
        S { trace: 2, id: 3, service: "front", tags: &[("http.path", "/a")], ..S::default() },
        S { trace: 3, id: 4, service: "back", tags: &[("error", "timeout")], error: true, ..S::default() },
    ]));
    let on = |t: Expr| Expr::And(vec![service("front"), t]);
    assert_eq!(found(f.store(), &search(vec![on(tag("http.path", "/a")), on(tag("error", "timeout"))])), [1]);
    let has = Expr::Is(Cond::HasAttr { scope: AttrScope::Span, key: "error".into() });
    assert_eq!(found(f.store(), &search(vec![has])), [1, 3]);
}

#[test]
fn names_compare_without_case() {
    let f = Fixture::new();
    f.put(&zipkin(&[S { service: "Front", name: "Get", ..S::default() }]));
    let cond = |c| found(f.store(), &search(vec![Expr::Is(c)]));
    assert_eq!(cond(Cond::Service { name: "front".into(), fold: true }), [1]);
    assert_eq!(cond(Cond::Name { name: "get".into(), fold: true }), [1]);
    assert!(cond(Cond::Service { name: "front".into(), fold: false }).is_empty());
}

#[test]
fn the_limit_takes_the_most_recent_traces_and_the_cursor_goes_on() {
    let f = Fixture::new();
    for i in 1..=50u128 {
        f.put(&zipkin(&[S { trace: i, start: T0 + i as i64 * MS, ..S::default() }]));
        if i % 12 == 0 {
            f.store().flush().unwrap();
        }
    }
    let mut q = Search { limit: 7, ..search(vec![]) };
    let mut all = Vec::new();
    loop {
        let page = f.store().search(&q).unwrap();
        let Some(last) = page.last() else { break };
        q.after = Some(Cursor { start: last.start, trace_id: last.trace_id });
        all.extend(page.iter().map(|s| s.trace_id.0));
    }
    assert_eq!(all, (1..=50).rev().collect::<Vec<u128>>());
}

#[test]
fn traces_that_begin_together_come_in_order_of_their_ids() {
    let f = Fixture::new();
    for i in [5u128, 3, 9, 1] {
        f.put(&zipkin(&[S { trace: i, ..S::default() }]));
    }
    assert_eq!(found(f.store(), &search(vec![])), [1, 3, 5, 9]);
    assert_eq!(found(f.store(), &Search { limit: 2, ..search(vec![]) }), [1, 3]);
}

#[test]
fn duration_bounds_are_inclusive_and_need_a_duration() {
    let f = Fixture::new();
    f.put(&zipkin(&[
        S { trace: 1, duration: 100, ..S::default() },
        S { trace: 2, duration: 200, ..S::default() },
        S { trace: 3, duration: 0, flags: flags::NO_DURATION, ..S::default() },
    ]));
    let within = |min, max| found(f.store(), &search(vec![Expr::Is(Cond::Duration { min, max })]));
    assert_eq!(within(100, i64::MAX), [1, 2]);
    assert_eq!(within(100, 199), [1]);
    assert_eq!(within(0, 50), [0u128; 0]);
}

#[test]
fn a_late_piece_moves_the_start_of_its_trace() {
    let f = Fixture::new();
    f.put(&zipkin(&[S { trace: 1, id: 1, start: T0 + 9 * MS, ..S::default() }]));
    f.put(&zipkin(&[S { trace: 2, id: 1, start: T0 + 5 * MS, ..S::default() }]));
    assert_eq!(found(f.store(), &search(vec![])), [1, 2]);
    f.store().flush().unwrap();
    f.put(&zipkin(&[S { trace: 1, id: 2, parent: 1, start: T0 + MS, ..S::default() }]));
    assert_eq!(found(f.store(), &search(vec![])), [2, 1]);
    assert_eq!(found(f.store(), &Search { limit: 1, ..search(vec![]) }), [2]);
}

fn links(f: &Fixture) -> Vec<(String, String, u64, u64)> {
    let mut all: Vec<_> = f
        .store()
        .dependencies(TimeRange::ALL)
        .unwrap()
        .into_iter()
        .map(|d| (d.parent, d.child, d.calls, d.errors))
        .collect();
    all.sort();
    all
}

fn link(parent: &str, child: &str, calls: u64, errors: u64) -> (String, String, u64, u64) {
    (parent.into(), child.into(), calls, errors)
}

/// The traces of the shared vector q06.
#[test]
fn links_follow_kinds_and_remote_names() {
    use SpanKind::{Client, Consumer, Producer, Server};
    let f = Fixture::new();
    let s =
        |trace, id, parent, kind, service, tags| S { trace, id, parent, kind, service, tags, ..S::default() };
    let pieces = [
        s(1, 1, 0, Server, "edge", &[("peer.service", "mobile")]),
        S { error: true, ..s(1, 2, 1, Client, "edge", &[("peer.service", "orders"), ("error", "true")]) },
        s(1, 3, 2, Server, "orders", &[]),
        s(1, 4, 3, SpanKind::Unspecified, "orders", &[]),
        s(1, 5, 4, Client, "orders", &[("peer.service", "mysql")]),
        s(2, 1, 0, Server, "edge", &[]),
        s(2, 2, 1, Client, "edge", &[("peer.service", "orders")]),
        S { error: true, ..s(2, 3, 2, Server, "orders", &[("error", "timeout")]) },
        s(3, 1, 0, Producer, "orders", &[("peer.service", "kafka")]),
        s(3, 2, 1, Consumer, "mailer", &[("peer.service", "kafka")]),
    ];
    for (i, piece) in pieces.iter().enumerate() {
        f.put(&zipkin(std::slice::from_ref(piece)));
        if i == 3 {
            // Links need whole traces, wherever their pieces lie.
            f.store().flush().unwrap();
        }
    }
    let want = [
        link("edge", "orders", 2, 2),
        link("kafka", "mailer", 1, 0),
        link("mobile", "edge", 1, 0),
        link("orders", "kafka", 1, 0),
        link("orders", "mysql", 1, 0),
    ];
    assert_eq!(links(&f), want);
    f.store().flush().unwrap();
    f.store().compact_now(true).unwrap();
    assert_eq!(links(&f), want);
}

#[test]
fn halves_that_share_an_id_are_one_call() {
    let f = Fixture::new();
    f.put(&zipkin(&[
        S { id: 1, kind: SpanKind::Client, service: "front", ..S::default() },
        S { id: 1, kind: SpanKind::Server, service: "back", flags: flags::SHARED, ..S::default() },
        S {
            id: 2,
            parent: 1,
            kind: SpanKind::Client,
            service: "back",
            tags: &[("peer.service", "db")],
            ..S::default()
        },
    ]));
    assert_eq!(links(&f), [link("back", "db", 1, 0), link("front", "back", 1, 0)]);
}

#[test]
fn a_root_server_without_remote_name_makes_no_link() {
    let f = Fixture::new();
    f.put(&zipkin(&[S { kind: SpanKind::Server, service: "edge", ..S::default() }]));
    assert!(links(&f).is_empty());
}

#[test]
fn a_client_of_another_service_than_its_ancestor_adds_the_missing_link() {
    let f = Fixture::new();
    f.put(&zipkin(&[
        S { id: 1, kind: SpanKind::Server, service: "edge", ..S::default() },
        S {
            id: 2,
            parent: 1,
            kind: SpanKind::Client,
            service: "app",
            tags: &[("peer.service", "db")],
            ..S::default()
        },
    ]));
    assert_eq!(links(&f), [link("app", "db", 1, 0), link("edge", "app", 1, 0)]);
}
