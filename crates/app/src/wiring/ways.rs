//! The ways out behind the tail sampling buffer: Datadog, and the backends of
//! policies.

use super::foreign::Translated;
use super::tail::Wake;
use crate::report::Gauge;
use crate::settings;
use spanloom_decisions::to;
use spanloom_exporters::{DatadogExporter, Router};
use spanloom_holding::{Buffer, Config, Held, Ruling, Take, Waiting, Way};
use spanloom_journal::SyncPolicy;
use spanloom_model::{AckFn, Batch, Chunk, Leaves, Protocol, ROUTE_DEFAULT, ROUTE_NOWHERE};
use spanloom_pipeline::{Destination, Exporter};
use spanloom_sampler::by;
use std::path::Path;
use std::sync::Arc;

/// Position of Datadog among the ways.
pub const DATADOG: u8 = 0;
/// Position of the backends of policies.
pub const BACKENDS: u8 = 1;

/// Where ways lead to, as bits of a decision.
pub fn places(ways: u8) -> u8 {
    let bit = |way: u8, to: u8| if ways & (1 << way) != 0 { to } else { 0 };
    bit(DATADOG, to::DATADOG) | bit(BACKENDS, to::BACKENDS)
}

/// Estimated memory for what is known of traces that wait: some hundred
/// thousand.
const MEMORY: usize = 32 << 20;

/// The exporters there are.
#[derive(Clone)]
pub struct Out {
    /// To Datadog.
    pub exporter: Option<Arc<DatadogExporter>>,
    /// To the backends of policies.
    pub router: Option<Arc<Router>>,
}

/// What the buffer tells others.
pub struct Tells {
    /// Woken when the buffer is full.
    pub wake: Arc<Wake>,
    /// Hears of spans and chunks that are dropped.
    pub on_dropped: Arc<dyn Fn(Protocol, u64, u64) + Send + Sync>,
}

impl Out {
    /// The destinations of the pipeline; behind the buffer, if there is one.
    pub fn destinations(&self, buffer: Option<&Arc<Buffer>>) -> Vec<Destination> {
        let held = |way| buffer.map(|b| Arc::new(Held::new(Arc::clone(b), way)));
        let mut destinations = Vec::new();
        if let Some(exporter) = &self.exporter {
            let exporter: Arc<dyn Exporter> = match held(DATADOG) {
                Some(held) => held,
                None => Arc::new(Translated(Arc::clone(exporter))),
            };
            destinations.push(Destination::exporter("datadog", exporter, false));
        }
        if let Some(router) = &self.router {
            let router: Arc<dyn Exporter> = match held(BACKENDS) {
                Some(held) => held,
                None => Arc::clone(router) as _,
            };
            destinations.push(Destination::router("policies", router));
        }
        destinations
    }

    /// Opens the buffer, if there are rules and something leaves. What an
    /// earlier run with rules left behind leaves now, if there are none any more.
    pub fn buffer(
        &self,
        dir: &Path,
        policy: SyncPolicy,
        tail: Option<&settings::Tail>,
        tells: Tells,
        now: i64,
    ) -> Result<Option<Arc<Buffer>>, String> {
        let dir = dir.join("held");
        if (self.exporter.is_none() && self.router.is_none()) || (tail.is_none() && !dir.exists()) {
            return Ok(None);
        }
        let wake = tells.wake;
        let config = Config {
            dir: dir.clone(),
            max_bytes: tail.map_or(u64::from(u32::MAX), |t| t.buffer),
            max_memory: MEMORY,
            wait: tail.map_or(0, |t| t.rules.wait().max(0)),
            policy,
            on_dropped: tells.on_dropped,
            on_full: Arc::new(move || wake.call()),
        };
        let ways: Vec<Arc<dyn Way>> = vec![
            Arc::new(ToDatadog::new(self.exporter.clone())),
            Arc::new(ToBackends::new(self.router.clone())),
        ];
        let (buffer, damage) = Buffer::open(config, ways, now).map_err(|e| e.to_string())?;
        for text in damage {
            tracing::error!("damaged: {text}");
        }
        if tail.is_some() {
            return Ok(Some(buffer));
        }
        let mut keep = |w: &Waiting, _: &dyn Fn() -> _| {
            let spans = u32::try_from(w.summary.spans).unwrap_or(u32::MAX);
            Ruling { keep: true, rule: "no_rules".into(), rate: 0.0, spans }
        };
        buffer.round(i64::MAX, &mut keep, &|| false);
        let left = buffer.stats();
        buffer.close();
        if left.spans > 0 {
            tracing::error!(
                spans = left.spans,
                "spans of an earlier run with tail rules wait on in {}",
                dir.display()
            );
        } else if let Err(e) = std::fs::remove_dir_all(&dir) {
            tracing::warn!("{} is not needed any more and cannot be removed: {e}", dir.display());
        }
        Ok(None)
    }
}

/// To Datadog: whole chunks wait; single spans that a tracer or the samplers
/// chose beside their trace leave at once.
pub struct ToDatadog(Option<Translated<DatadogExporter>>);

impl ToDatadog {
    /// Without an exporter nothing leaves by this way.
    pub fn new(exporter: Option<Arc<DatadogExporter>>) -> Self {
        Self(exporter.map(Translated))
    }
}

impl Exporter for ToDatadog {
    fn export(&self, batch: Arc<Batch>, done: AckFn) {
        match &self.0 {
            Some(exporter) => exporter.export(batch, done),
            None => done(Ok(())),
        }
    }
}

impl Way for ToDatadog {
    fn takes(&self, _: &Batch, chunk: &Chunk) -> Take {
        match chunk.sampled.leaves {
            _ if chunk.route != ROUTE_DEFAULT => Take::Skip,
            Leaves::Whole => Take::Wait { exempt: chunk.sampled.by == by::MANUAL_KEEP },
            Leaves::Marked => Take::AtOnce,
            Leaves::Nothing => Take::Skip,
        }
    }

    fn leaving(&self, batch: &Arc<Batch>) -> Arc<Batch> {
        Arc::clone(batch.for_datadog.as_ref().unwrap_or(batch))
    }

    fn destination(&self, _: &Chunk) -> String {
        String::new()
    }

    fn send_to(&self, _: &mut Chunk, _: &str) -> bool {
        self.0.is_some()
    }
}

/// To the backends of policies: everything waits.
pub struct ToBackends(Option<Arc<Router>>);

impl ToBackends {
    /// Without a router nothing leaves by this way.
    pub fn new(router: Option<Arc<Router>>) -> Self {
        Self(router)
    }
}

impl Exporter for ToBackends {
    fn export(&self, batch: Arc<Batch>, done: AckFn) {
        match &self.0 {
            Some(router) => router.export(batch, done),
            None => done(Ok(())),
        }
    }
}

impl Way for ToBackends {
    fn takes(&self, _: &Batch, chunk: &Chunk) -> Take {
        match chunk.route {
            ROUTE_DEFAULT | ROUTE_NOWHERE => Take::Skip,
            _ => Take::Wait { exempt: false },
        }
    }

    fn destination(&self, chunk: &Chunk) -> String {
        self.0.as_ref().and_then(|r| r.destination(chunk.route)).unwrap_or_default()
    }

    fn send_to(&self, chunk: &mut Chunk, destination: &str) -> bool {
        let route = self.0.as_ref().and_then(|r| r.route_to(destination));
        chunk.route = route.unwrap_or(ROUTE_NOWHERE);
        route.is_some()
    }
}

/// Figures of the buffer.
pub fn figures(buffer: &Buffer, gauges: &mut Vec<Gauge>) {
    let stats = buffer.stats();
    let [late_sent, late_unsent] = stats.late;
    for (name, help, value, counter) in [
        ("tail_buffer_traces", "Traces that wait for tail rules before they leave.", stats.traces, false),
        ("tail_buffer_spans", "Their spans.", stats.spans, false),
        ("tail_buffer_bytes", "Bytes of the same on disk.", stats.bytes, false),
        (
            "tail_buffer_memory_bytes",
            "Bytes of memory that remember them, as estimated.",
            stats.memory,
            false,
        ),
        (
            "tail_buffer_early_traces_total",
            "Traces judged before they were quiet, to make room.",
            stats.early,
            true,
        ),
        ("tail_buffer_late_sent_spans_total", "Spans that followed a verdict and left.", late_sent, true),
        (
            "tail_buffer_late_unsent_spans_total",
            "Spans that followed a verdict and did not leave.",
            late_unsent,
            true,
        ),
        (
            "tail_buffer_refused_total",
            "Tries to hand kept spans on that a queue refused.",
            stats.refused,
            true,
        ),
        (
            "tail_buffer_unwritten_verdicts_total",
            "Verdicts that a restart would not know.",
            stats.unwritten,
            true,
        ),
    ] {
        gauges.push(Gauge { name, label: None, help, value: value as f64, counter });
    }
    gauges.extend(stats.lost.iter().map(|(reason, n)| Gauge {
        name: "tail_buffer_lost_spans_total",
        label: Some(("reason", (*reason).to_owned())),
        help: "Kept spans that cannot leave any more.",
        value: *n as f64,
        counter: true,
    }));
}
