//! The Datadog exporter: what the samplers chose, and statistics, to one or
//! more intakes (`datadog-agent:pkg/trace/writer`), packed into
//! `AgentPayload`s and compressed once.

use crate::outlet::{DestinationStats, Format, Outlet, OutletConfig};
use crate::sender::Endpoint;
use crate::spool::{Pending, Request, SpoolError};
use crate::strand::{HASH_LOG, LEVEL, WINDOW_LOG};
use crate::transport::Transport;
use bytes::Bytes;
use spanloom_codec::datadog::agent_payload::{AgentInfo, encode_agent_payload, encode_tracer_payload};
use spanloom_journal::SyncPolicy;
use spanloom_model::{AckFn, Batch};
use spanloom_pipeline::Exporter;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use zstd::zstd_safe::CParameter;

const TRACES: &str = "/api/v0.2/traces";
const STATS: &str = "/api/v0.2/stats";
/// How often the list of reported languages is renewed.
const LANGUAGES_PERIOD: Duration = Duration::from_secs(60);

/// Settings of the exporter.
#[derive(Clone, Debug)]
pub struct DatadogConfig {
    /// Directory of the queues.
    pub dir: PathBuf,
    /// Where to send; each gets everything.
    pub endpoints: Vec<Endpoint>,
    /// Bytes that wait for each destination (`exporters.queue_size`).
    pub queue_bytes: u64,
    /// When a span counts as safe (`ack`).
    pub policy: SyncPolicy,
    /// Time between flushes (`apm_config.trace_writer.flush_period_seconds`).
    pub flush_period: Duration,
    /// Concurrent requests for traces, shared by the destinations.
    pub connections: usize,
    /// Head of every payload.
    pub agent: AgentInfo,
    /// Begins the random pauses between retries.
    pub seed: u64,
}

/// The exporter.
pub struct DatadogExporter {
    outlet: Arc<Outlet>,
    format: Arc<AgentPayloads>,
}

impl DatadogExporter {
    /// Opens the queues, starts the writer thread and the senders (on the
    /// current tokio runtime). Also returns what was damaged on disk.
    ///
    /// # Errors
    /// A queue cannot be opened, or the system refuses a thread.
    pub fn start(
        config: DatadogConfig,
        transport: Arc<dyn Transport>,
    ) -> Result<(Arc<Self>, Vec<String>), SpoolError> {
        let format = Arc::new(AgentPayloads {
            agent: config.agent,
            seen: Mutex::default(),
            languages: Mutex::new(Languages { text: String::new(), start: Instant::now(), renewed: None }),
            packer: Mutex::default(),
        });
        let outlet = OutletConfig {
            dir: config.dir,
            endpoints: config.endpoints,
            queue_bytes: config.queue_bytes,
            policy: config.policy,
            flush_period: config.flush_period,
            connections: config.connections,
            seed: config.seed,
        };
        let (outlet, damage) = Outlet::start(outlet, Arc::clone(&format) as _, transport)?;
        Ok((Arc::new(Self { outlet, format }), damage))
    }

    /// Queues statistics: a `StatsPayload` in msgpack, its number and how many
    /// groups it has. Blocks until they are in every queue on disk. Numbers
    /// grow; a queue that has had one before does not take it twice, also after
    /// a restart.
    ///
    /// # Errors
    /// A queue did not take it; the same call may succeed later.
    pub fn send_stats(&self, number: u64, payload: &[u8], groups: u64) -> Result<(), SpoolError> {
        self.outlet.send_now(number, payload, groups)
    }

    /// The highest number of statistics that any queue has had.
    pub fn last_stats(&self) -> u64 {
        self.outlet.numbered()
    }

    /// Figures of every destination.
    pub fn stats(&self) -> Vec<DestinationStats> {
        self.outlet.stats()
    }

    /// Packs what waits, then sends for up to `grace`; what is left waits on
    /// disk for the next start.
    pub async fn stop(&self, grace: Duration) {
        self.outlet.stop(grace).await;
    }
}

impl Exporter for DatadogExporter {
    fn export(&self, batch: Arc<Batch>, done: AckFn) {
        self.export_all(vec![(batch, done)]);
    }

    fn export_all(&self, batches: Vec<(Arc<Batch>, AckFn)>) {
        batches.iter().for_each(|(batch, _)| self.format.note_languages(batch));
        self.outlet.export_all(batches);
    }
}

/// `AgentPayload`s of tracer payloads.
struct AgentPayloads {
    agent: AgentInfo,
    /// Languages seen since the list was renewed.
    seen: Mutex<BTreeSet<String>>,
    languages: Mutex<Languages>,
    packer: Mutex<Packer>,
}

/// What packing needs, kept from one payload to the next: a few MiB that would
/// be new pages each time.
#[derive(Default)]
struct Packer {
    body: Vec<u8>,
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

/// The list for `X-Datadog-Reported-Languages`: empty at first, renewed at the
/// first 5 s tick and once a minute, with what was seen since.
struct Languages {
    text: String,
    start: Instant,
    renewed: Option<Instant>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AgentPayloads {
    fn note_languages(&self, batch: &Batch) {
        let mut seen = lock(&self.seen);
        for r in &batch.resources {
            let language = batch.str(r.language_name);
            // The list is a header: bounded, and in printable characters.
            if !language.is_empty()
                && seen.len() < 64
                && language.len() <= 64
                && language.bytes().all(|b| b.is_ascii_graphic())
                && !seen.contains(language)
            {
                seen.insert(language.to_owned());
            }
        }
    }

    fn headers(&self, content: &str, encoding: &str) -> Vec<(String, String)> {
        vec![
            ("Content-Type".into(), content.into()),
            ("Content-Encoding".into(), encoding.into()),
            ("X-Datadog-Reported-Languages".into(), lock(&self.languages).text.clone()),
        ]
    }
}

impl Format for AgentPayloads {
    fn name(&self) -> &'static str {
        "datadog"
    }

    fn encode(&self, batch: &Batch, out: &mut Vec<u8>) -> u64 {
        let mut spans = 0;
        for r in 0..batch.resources.len() {
            spans += encode_tracer_payload(batch, r as u32, out).1;
        }
        spans as u64
    }

    fn splits(&self) -> bool {
        false
    }

    fn pack(&self, pending: &Pending) -> std::io::Result<Request> {
        let mut packer = lock(&self.packer);
        let Packer { body, zstd } = &mut *packer;
        body.clear();
        encode_agent_payload(&self.agent, body);
        pending.payloads.iter().for_each(|p| body.extend_from_slice(p));
        let zstd = match zstd {
            Some(zstd) => zstd,
            None => {
                let zstd = zstd.insert(zstd::bulk::Compressor::new(LEVEL)?);
                zstd.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
                zstd.set_parameter(CParameter::HashLog(HASH_LOG))?;
                zstd
            }
        };
        self.stream_request(zstd.compress(body)?.into(), pending.items)
    }

    fn stream_head(&self) -> Option<Vec<u8>> {
        let mut head = Vec::new();
        encode_agent_payload(&self.agent, &mut head);
        Some(head)
    }

    fn stream_request(&self, body: Bytes, items: u64) -> std::io::Result<Request> {
        Ok(Request {
            urgent: false,
            path: TRACES.into(),
            headers: self.headers("application/x-protobuf", "zstd"),
            items,
            body,
        })
    }

    fn pack_urgent(&self, payload: &[u8], items: u64) -> std::io::Result<Request> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(payload)?;
        Ok(Request {
            urgent: true,
            path: STATS.into(),
            headers: self.headers("application/msgpack", "gzip"),
            items,
            body: gzip.finish()?.into(),
        })
    }

    fn tick(&self) {
        let mut languages = lock(&self.languages);
        let due = match languages.renewed {
            None => languages.start.elapsed() >= Duration::from_secs(5),
            Some(at) => at.elapsed() >= LANGUAGES_PERIOD,
        };
        if due {
            languages.renewed = Some(Instant::now());
            let seen = std::mem::take(&mut *lock(&self.seen));
            languages.text = seen.into_iter().collect::<Vec<_>>().join("|");
        }
    }
}
