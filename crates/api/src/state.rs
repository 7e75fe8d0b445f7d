//! What the handlers share.

use crate::Problem;
use serde_json::Value as Json;
use spanloom_model::{RedFilter, RedSeries, SpanReader, TraceId};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;

/// Settings of the APIs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Questions that the store works on at the same time; further ones wait.
    pub concurrency: usize,
    /// Longest wait for a place, then 503.
    pub wait: Duration,
    /// Most traces of one answer, whatever the client asks for.
    pub max_traces: usize,
    /// Largest answer in bytes.
    pub max_answer: usize,
    /// Largest body of a request in bytes (`POST /api/transform`).
    pub max_body: usize,
    /// Zipkin: default `lookback` in milliseconds.
    pub zipkin_lookback: i64,
    /// Zipkin: keys offered for completion.
    pub zipkin_autocomplete: Vec<String>,
    /// Version of the program, for Zipkin's `/info` and our status.
    pub version: String,
    /// Time in nanoseconds since the Unix epoch; another clock in tests.
    pub now: fn() -> i64,
}

impl Default for Config {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            concurrency: (cores * 2).max(4),
            wait: Duration::from_secs(10),
            max_traces: 5_000,
            max_answer: 256 << 20,
            max_body: 64 << 20,
            zipkin_lookback: spanloom_query::zipkin::LOOKBACK,
            zipkin_autocomplete: Vec::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now: wall_clock,
        }
    }
}

fn wall_clock() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// What the program can say about itself; `None` is answered with 501.
pub trait Report: Send + Sync {
    /// `/api/spanloom/v1/status`.
    fn status(&self) -> Option<Json> {
        None
    }
    /// `/api/spanloom/v1/ledger`.
    fn ledger(&self) -> Option<Json> {
        None
    }
    /// `/api/spanloom/v1/why/{id}`: what became of a trace. May block.
    fn why(&self, _id: TraceId) -> Option<Json> {
        None
    }
    /// `/api/spanloom/v1/red` and Jaeger's metrics: requests, errors and
    /// latencies. May block.
    fn red(&self, _filter: &RedFilter<'_>) -> Option<Vec<RedSeries>> {
        None
    }
    /// `POST /api/spanloom/v1/traces/{id}/keep`: keeps a trace whatever rules
    /// say. May block.
    fn keep(&self, _id: TraceId) -> Option<Result<Json, Problem>> {
        None
    }
}

/// A program that says nothing.
struct Silent;
impl Report for Silent {}

struct Inner {
    store: Arc<dyn SpanReader>,
    report: Arc<dyn Report>,
    config: Config,
    gate: Arc<Semaphore>,
}

/// All query APIs over one store. Cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

impl Api {
    /// The APIs of a store.
    pub fn new(store: Arc<dyn SpanReader>, config: Config) -> Self {
        Self::with_report(store, Arc::new(Silent), config)
    }

    /// The APIs of a store, and of a program that reports about itself.
    pub fn with_report(store: Arc<dyn SpanReader>, report: Arc<dyn Report>, config: Config) -> Self {
        let gate = Arc::new(Semaphore::new(config.concurrency.clamp(1, Semaphore::MAX_PERMITS)));
        Self(Arc::new(Inner { store, report, config, gate }))
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    pub(crate) fn report(&self) -> &dyn Report {
        self.0.report.as_ref()
    }

    pub(crate) fn now(&self) -> i64 {
        (self.0.config.now)()
    }

    /// Asks the store on a thread that may block, when there is a place. A
    /// question goes on after its client has gone; its place stays taken.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn SpanReader, &Config) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let waiting = tokio::time::timeout(self.0.config.wait, self.0.gate.clone().acquire_owned());
        let Ok(Ok(place)) = waiting.await else {
            return Err(Problem::Busy("too many queries at the same time; try again".into()));
        };
        let inner = self.0.clone();
        let answer = tokio::task::spawn_blocking(move || {
            let answer = question(inner.store.as_ref(), &inner.config);
            drop(place);
            answer
        });
        answer.await.unwrap_or_else(|e| {
            tracing::error!("a query failed: {e}");
            Err(Problem::Store("internal error".into()))
        })
    }
}

impl Api {
    /// Asks the program on a thread that may block, when there is a place.
    pub(crate) async fn ask_program<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Report) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let report = Arc::clone(&self.0.report);
        self.ask(move |_, _| Ok(question(report.as_ref()))).await
    }
}

impl Config {
    /// Fails when an answer has grown beyond the limit.
    pub(crate) fn check(&self, answer: &[u8]) -> Result<(), Problem> {
        if answer.len() <= self.max_answer {
            return Ok(());
        }
        Err(Problem::TooLarge(format!(
            "the answer exceeds {} MiB; ask for fewer traces or a shorter time",
            self.max_answer >> 20
        )))
    }
}
