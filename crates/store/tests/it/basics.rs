use crate::support::*;
use spanloom_model::*;
use spanloom_store::{OpenError, Store, SyncPolicy};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[test]
fn an_empty_store_answers_everything_with_nothing() {
    let f = Fixture::new();
    let s = f.store();
    assert!(s.services().unwrap().is_empty());
    assert!(s.operations("x").unwrap().is_empty());
    assert!(s.trace(TraceId(1), TimeRange::ALL).unwrap().is_none());
    assert!(s.search(&search(vec![])).unwrap().is_empty());
    assert!(s.dependencies(TimeRange::ALL).unwrap().is_empty());
    assert!(s.attribute_keys().unwrap().is_empty());
    assert!(s.attribute_values("x", 10).unwrap().is_empty());
    s.flush().unwrap();
    s.compact_now(true).unwrap();
    s.retain_now().unwrap();
}

#[test]
fn names_of_replayed_spans_are_known_when_somebody_asks() {
    let mut f = Fixture::new();
    f.put(&batch(Protocol::OtlpProto, &[S { trace: 1, service: "a", ..S::default() }]));
    f.put(&batch(Protocol::OtlpProto, &[S { trace: 2, service: "b", ..S::default() }]));
    let wanted = f.store().operations("b").unwrap();
    f.reopen();
    assert_eq!(f.report.replayed_spans, 2);
    f.put(&batch(Protocol::OtlpProto, &[S { trace: 3, service: "c", ..S::default() }]));
    assert_eq!(f.store().services().unwrap(), ["a", "b", "c"]);
    assert_eq!(f.store().operations("b").unwrap(), wanted);
    f.store().flush().unwrap();
    assert_eq!(f.store().services().unwrap(), ["a", "b", "c"]);
    assert_eq!(f.store().operations("b").unwrap(), wanted);
}

#[test]
fn a_second_process_is_told_that_the_directory_is_in_use() {
    let f = Fixture::new();
    let second = Store::open(&f.path(), f.config.clone());
    assert!(matches!(second.err(), Some(OpenError::InUse(_))));
}

#[test]
fn spans_are_found_as_soon_as_they_are_acknowledged() {
    for ack in [SyncPolicy::Always, SyncPolicy::Interval] {
        let f = Fixture::with(|c| c.ack = ack);
        for i in 1..20u128 {
            f.put(&batch(Protocol::OtlpProto, &[S { trace: i, ..S::default() }]));
            assert_eq!(spans_of(f.store(), i), [1]);
        }
    }
}

#[test]
fn pieces_that_arrive_apart_are_one_trace() {
    let mut f = Fixture::new();
    for id in 1..=6u64 {
        let s = S {
            id,
            parent: id - 1,
            start: T0 + id as i64,
            service: ["a", "b"][id as usize % 2],
            ..S::default()
        };
        f.put(&batch(Protocol::OtlpProto, &[s]));
        match id {
            2 => f.store().flush().unwrap(),
            3 => f.reopen(),
            4 => f.store().flush().unwrap(),
            _ => {}
        }
    }
    assert_eq!(spans_of(f.store(), 1), [1, 2, 3, 4, 5, 6]);
    let summary = &f.store().search(&search(vec![])).unwrap()[0];
    assert_eq!((summary.spans, summary.orphans, summary.start), (6, 0, T0 + 1));
    assert_eq!(summary.root_service, "b");
    assert_eq!(summary.services.iter().map(|s| s.spans).collect::<Vec<_>>(), [3, 3]);
    // Conditions met in different pieces are met by the trace.
    assert_eq!(found(f.store(), &search(vec![service("a"), service("b")])), [1]);
    let both = Expr::And(vec![service("a"), service("b")]);
    assert!(found(f.store(), &search(vec![both])).is_empty());
}

#[test]
fn everything_accepted_is_there_after_close() {
    let mut f = Fixture::new();
    let answered = Arc::new(AtomicU64::new(0));
    for i in 1..=300u128 {
        let answered = Arc::clone(&answered);
        f.store().append(
            Arc::new(batch(Protocol::OtlpProto, &[S { trace: i, ..S::default() }])),
            Box::new(move |r| {
                r.unwrap();
                answered.fetch_add(1, Ordering::SeqCst);
            }),
        );
    }
    f.store().close();
    assert_eq!(answered.load(Ordering::SeqCst), 300);
    let late = put(f.store(), &batch(Protocol::OtlpProto, &[S::default()]));
    assert!(matches!(late, Err(StoreError::Closed)));
    f.reopen();
    assert_eq!(f.store().stats().traces, 300);
}

#[test]
fn below_the_disk_floor_writes_are_refused_and_counted_and_reads_go_on() {
    let free = Arc::new(AtomicU64::new(u64::MAX));
    let told = Arc::clone(&free);
    let f = Fixture::with(|c| c.free_bytes = Some(Arc::new(move || told.load(Ordering::SeqCst))));
    f.put(&batch(Protocol::OtlpProto, &[S::default()]));
    free.store(1000, Ordering::SeqCst);
    f.store().check_disk_now();
    let refused = put(f.store(), &batch(Protocol::OtlpProto, &[S { id: 2, ..S::default() }]));
    assert!(matches!(refused, Err(StoreError::Write(_))));
    assert_eq!(f.store().stats().refused, [("write", 1)]);
    assert_eq!(spans_of(f.store(), 1), [1]);
    free.store(u64::MAX, Ordering::SeqCst);
    f.store().check_disk_now();
    f.put(&batch(Protocol::OtlpProto, &[S { id: 2, ..S::default() }]));
    assert_eq!(spans_of(f.store(), 1), [1, 2]);
}

#[test]
fn a_refused_batch_is_not_taken_for_known_when_it_comes_again() {
    let failing = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&failing);
    let mut f = Fixture::with(|c| {
        c.ack = SyncPolicy::Always;
        c.log_fault = Some(Arc::new(move |op| {
            if op == "write" && told.load(Ordering::SeqCst) {
                return Err(std::io::Error::other("no space"));
            }
            Ok(())
        }));
    });
    let body = batch(Protocol::DatadogV04, &[S::default()]);
    failing.store(true, Ordering::SeqCst);
    assert!(matches!(put(f.store(), &body), Err(StoreError::Write(_))));
    failing.store(false, Ordering::SeqCst);
    while put(f.store(), &body).is_err() {}
    // It must be in the log now, not only in memory.
    f.reopen();
    assert_eq!(spans_of(f.store(), 1), [1]);
}

#[test]
fn chunks_that_were_filtered_or_rejected_are_not_stored() {
    let f = Fixture::new();
    let mut b = batch(
        Protocol::DatadogV04,
        &[S { trace: 1, ..S::default() }, S { trace: 2, ..S::default() }, S { trace: 3, ..S::default() }],
    );
    b.chunks[0].fate = Fate::Filtered("test");
    b.chunks[2].fate = Fate::Rejected("test");
    f.put(&b);
    assert_eq!(found(f.store(), &search(vec![])), [2]);
}

#[test]
fn a_batch_without_spans_is_acknowledged() {
    let f = Fixture::new();
    f.put(&Batch::default());
    assert_eq!(f.store().stats().spans, 0);
}

#[test]
fn keys_and_values_that_occur_are_listed() {
    let f = Fixture::new();
    let mut b = Builder::new(Protocol::OtlpProto);
    b.batch.resources[0].attrs = b.attrs(&[("host.name", Val::S("web-01"))]);
    b.span(&S::default()).attrs = Range32::default();
    let attrs =
        b.attrs(&[("n", Val::I(7)), ("ok", Val::B(true)), ("ratio", Val::D(0.5)), ("user", Val::S("ann"))]);
    b.batch.spans[0].attrs = attrs;
    f.put(&b.batch);
    for _ in 0..2 {
        let keys: Vec<(String, bool)> =
            f.store().attribute_keys().unwrap().into_iter().map(|k| (k.key, k.resource)).collect();
        let want = [("host.name", true), ("n", false), ("ok", false), ("ratio", false), ("user", false)];
        assert_eq!(keys, want.map(|(k, r)| (k.to_owned(), r)));
        for (key, value) in
            [("host.name", "web-01"), ("n", "7"), ("ok", "true"), ("ratio", "0.5"), ("user", "ann")]
        {
            assert_eq!(f.store().attribute_values(key, 10).unwrap(), [value]);
        }
        f.store().flush().unwrap();
    }
}
