//! A store in a temporary directory with a clock turned by hand, and a short
//! way to write spans.

use spanloom_model::*;
use spanloom_store::{Clock, Config, RecoveryReport, Store};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, mpsc};

/// 2026-01-15T10:00:00Z.
pub const T0: i64 = 1_768_471_200_000_000_000;
pub const MS: i64 = 1_000_000;

pub struct TestClock(pub AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

pub struct Fixture {
    pub dir: tempfile::TempDir,
    pub clock: Arc<TestClock>,
    pub config: Config,
    pub store: Option<Store>,
    pub report: RecoveryReport,
}

impl Fixture {
    pub fn new() -> Self {
        Self::with(|_| ())
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let clock = Arc::new(TestClock(AtomicI64::new(T0)));
        let mut config = Config {
            background: false,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            free_bytes: Some(Arc::new(|| u64::MAX)),
            keep_for: std::time::Duration::ZERO,
            ..Config::default()
        };
        change(&mut config);
        let dir = tempfile::tempdir().unwrap();
        let mut fixture = Self { dir, clock, config, store: None, report: RecoveryReport::default() };
        fixture.open();
        fixture
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn open(&mut self) {
        let (store, report) = Store::open(&self.path(), self.config.clone()).unwrap();
        self.store = Some(store);
        self.report = report;
    }

    pub fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// Closes and opens again.
    pub fn reopen(&mut self) {
        self.store = None;
        self.open();
    }

    pub fn put(&self, batch: &Batch) {
        put(self.store(), batch).unwrap();
    }
}

/// Appends and waits for the answer.
pub fn put(store: &Store, batch: &Batch) -> Result<(), StoreError> {
    let (tx, rx) = mpsc::channel();
    store.append(Arc::new(batch.clone()), Box::new(move |r| tx.send(r).unwrap()));
    rx.recv().unwrap()
}

/// Spans written down briefly.
pub struct Builder {
    pub batch: Batch,
}

/// One span, with defaults.
#[derive(Clone)]
pub struct S<'a> {
    pub trace: u128,
    pub id: u64,
    pub parent: u64,
    pub service: &'a str,
    pub name: &'a str,
    pub kind: SpanKind,
    pub start: i64,
    pub duration: i64,
    pub error: bool,
    pub flags: u64,
    pub tags: &'a [(&'a str, &'a str)],
}

impl Default for S<'_> {
    fn default() -> Self {
        Self {
            trace: 1,
            id: 1,
            parent: 0,
            service: "app",
            name: "op",
            kind: SpanKind::Unspecified,
            start: T0,
            duration: MS,
            error: false,
            flags: 0,
            tags: &[],
        }
    }
}

impl Builder {
    pub fn new(protocol: Protocol) -> Self {
        let mut batch = Batch::default();
        batch.intake.protocol = protocol;
        batch.intake.received_at = T0;
        batch.resources.push(Resource::default());
        Self { batch }
    }

    pub fn text(&mut self, text: &str) -> Text {
        self.batch.arena.push(text)
    }

    /// Adds attributes and returns their range.
    pub fn attrs(&mut self, list: &[(&str, Val<'_>)]) -> Range32 {
        let items: Vec<Attr> = list
            .iter()
            .map(|(k, v)| {
                let key = self.text(k);
                let value = match v {
                    Val::S(s) => Value::Str(self.text(s)),
                    Val::I(i) => Value::Int(*i),
                    Val::D(d) => Value::Double(*d),
                    Val::B(b) => Value::Bool(*b),
                };
                Attr { key, value }
            })
            .collect();
        let start = self.batch.attrs.len();
        self.batch.attrs.extend(items);
        Range32::new(start, self.batch.attrs.len())
    }

    /// Adds a span to the last resource, in a chunk of its own trace.
    pub fn span(&mut self, s: &S<'_>) -> &mut Span {
        let tags: Vec<(&str, Val<'_>)> = s.tags.iter().map(|(k, v)| (*k, Val::S(v))).collect();
        let span = Span {
            trace_id: TraceId(s.trace),
            span_id: SpanId(s.id),
            parent_id: SpanId(s.parent),
            start: s.start,
            duration: s.duration,
            service: self.text(s.service),
            name: self.text(s.name),
            attrs: self.attrs(&tags),
            scope: NO_SCOPE,
            error: i32::from(s.error),
            kind: s.kind,
            status: if s.error { Status::Error } else { Status::Unset },
            flags: s.flags,
            ..Span::default()
        };
        let at = self.batch.spans.len();
        self.batch.spans.push(span);
        let resource = self.batch.resources.len() as u32 - 1;
        match self.batch.chunks.last_mut() {
            Some(c) if c.trace_id == span.trace_id && c.resource == resource => c.spans.end += 1,
            _ => self.batch.chunks.push(Chunk {
                resource,
                trace_id: span.trace_id,
                spans: Range32::new(at, at + 1),
                ..Chunk::default()
            }),
        }
        &mut self.batch.spans[at]
    }
}

#[derive(Clone, Copy)]
pub enum Val<'a> {
    S(&'a str),
    I(i64),
    D(f64),
    B(bool),
}

/// A batch of these spans.
pub fn batch(protocol: Protocol, spans: &[S<'_>]) -> Batch {
    let mut b = Builder::new(protocol);
    for s in spans {
        b.span(s);
    }
    b.batch
}

pub fn service(name: &str) -> Expr {
    Expr::Is(Cond::Service { name: name.into(), fold: false })
}

pub fn search(each: Vec<Expr>) -> Search {
    Search { each, limit: 1000, ..Search::default() }
}

/// Ids of the traces found, in order.
pub fn found(store: &Store, search: &Search) -> Vec<u128> {
    store.search(search).unwrap().iter().map(|s| s.trace_id.0).collect()
}

pub fn spans_of(store: &Store, trace: u128) -> Vec<u64> {
    store
        .trace(TraceId(trace), TimeRange::ALL)
        .unwrap()
        .map(|b| b.spans.iter().map(|s| s.span_id.0).collect())
        .unwrap_or_default()
}

pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    all.sort();
    all
}
