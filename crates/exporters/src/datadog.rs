//! The Datadog exporter: what the samplers chose, and statistics, to one or
//! more intakes (`datadog-agent:pkg/trace/writer`).
//!
//! Every chosen chunk is encoded once, acknowledged when it is in each
//! destination's queue on disk, packed into an `AgentPayload` every few
//! seconds, compressed once, and sent until the intake has it.

use crate::sender::{Endpoint, Sender};
use crate::spool::{Request, Spool, SpoolConfig, SpoolError, SpoolStats};
use crate::transport::Transport;
use bytes::Bytes;
use spanloom_codec::datadog::agent_payload::{AgentInfo, encode_agent_payload, encode_tracer_payload};
use spanloom_journal::{JournalError, SyncPolicy};
use spanloom_model::{AckFn, Batch, StoreError};
use spanloom_pipeline::Exporter;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Bytes of tracer payloads in one request.
pub const MAX_PAYLOAD: usize = 3_200_000;
const TRACES: &str = "/api/v0.2/traces";
const STATS: &str = "/api/v0.2/stats";
/// How often the writer looks whether a flush is due.
const TICK: Duration = Duration::from_millis(100);
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

/// Figures of one destination.
#[derive(Clone, Debug)]
pub struct DestinationStats {
    /// Base URL.
    pub url: String,
    /// Its queue.
    pub queue: SpoolStats,
}

/// The exporter.
pub struct DatadogExporter {
    senders: Vec<Arc<Sender>>,
    languages: Mutex<BTreeSet<String>>,
    commands: SyncSender<Command>,
    stop_senders: watch::Sender<bool>,
    tasks: Mutex<Vec<tokio::task::JoinHandle<()>>>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

enum Command {
    Stats(Bytes, u64),
    Stop,
}

impl DatadogExporter {
    /// Opens the queues, starts the writer thread and the senders (on the
    /// current tokio runtime). Also returns what was damaged on disk.
    pub fn start(
        config: DatadogConfig,
        transport: Arc<dyn Transport>,
    ) -> Result<(Arc<Self>, Vec<String>), SpoolError> {
        let mut senders = Vec::new();
        let mut damage = Vec::new();
        for (i, endpoint) in config.endpoints.iter().enumerate() {
            // Named by the URL, so that a queue survives a change of keys.
            let dir = config.dir.join(directory_name(&endpoint.url, i));
            let spool = SpoolConfig { max_bytes: config.queue_bytes, policy: config.policy };
            let (spool, damaged) = Spool::open(&dir, spool)?;
            damage.extend(damaged);
            let seed = config.seed.wrapping_add(i as u64 * 7919);
            senders.push(Arc::new(Sender::new(
                endpoint.clone(),
                Arc::new(spool),
                Arc::clone(&transport),
                seed,
            )));
        }
        let (commands, inbox) = sync_channel(256);
        let stop_senders = watch::Sender::new(false);
        let workers = (config.connections / senders.len().max(1)).max(1);
        let tasks = senders
            .iter()
            .flat_map(|s| (0..workers).map(move |_| Arc::clone(s)))
            .map(|s| tokio::spawn(s.run(stop_senders.subscribe())))
            .collect();
        let exporter = Arc::new(Self {
            senders,
            languages: Mutex::default(),
            commands,
            stop_senders,
            tasks: Mutex::new(tasks),
            writer: Mutex::default(),
        });
        let writer = std::thread::Builder::new()
            .name("datadog-writer".into())
            .spawn({
                let exporter = Arc::clone(&exporter);
                move || exporter.write(&config, &inbox)
            })
            .map_err(|e| SpoolError::Io(format!("cannot start a thread: {e}")))?;
        *exporter.writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(writer);
        Ok((exporter, damage))
    }

    /// Sends statistics: a `StatsPayload` in msgpack, with its number of groups.
    /// Waits while many are queued already.
    pub fn send_stats(&self, payload: Bytes, groups: u64) {
        // Only after a stop nobody listens; then statistics are flushed already.
        let _ = self.commands.send(Command::Stats(payload, groups));
    }

    /// Figures of every destination.
    pub fn stats(&self) -> Vec<DestinationStats> {
        let one = |s: &Arc<Sender>| DestinationStats { url: s.url().to_owned(), queue: s.spool().stats() };
        self.senders.iter().map(one).collect()
    }

    /// Packs what waits, then sends for up to `grace`; what is left waits on
    /// disk for the next start.
    pub async fn stop(&self, grace: Duration) {
        let _ = self.commands.send(Command::Stop);
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            drop(tokio::task::spawn_blocking(move || writer.join()).await);
        }
        let deadline = Instant::now() + grace;
        while Instant::now() < deadline && self.senders.iter().any(|s| s.spool().stats().requests > 0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let _ = self.stop_senders.send(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            // A request under way is not waited for longer than the grace.
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
            let abort = task.abort_handle();
            if tokio::time::timeout(left, task).await.is_err() {
                abort.abort();
            }
        }
        for sender in &self.senders {
            sender.spool().close();
        }
    }

    fn write(&self, config: &DatadogConfig, inbox: &Receiver<Command>) {
        let start = Instant::now();
        let mut last_flush = start;
        let mut languages = Languages::default();
        loop {
            let command = match inbox.recv_timeout(TICK) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Command::Stop),
            };
            languages.refresh(start, &self.languages);
            match command {
                Some(Command::Stats(payload, groups)) => self.queue_stats(&payload, groups, &languages.text),
                Some(Command::Stop) => {
                    // Statistics that were sent before the stop are in the inbox still.
                    while let Ok(Command::Stats(payload, groups)) = inbox.try_recv() {
                        self.queue_stats(&payload, groups, &languages.text);
                    }
                    self.flush(config, &languages.text, true);
                    return;
                }
                None => {}
            }
            let due = last_flush.elapsed() >= config.flush_period;
            let full = self.senders.iter().any(|s| s.spool().pending_bytes() >= MAX_PAYLOAD as u64);
            if due || full {
                self.flush(config, &languages.text, due);
                last_flush = Instant::now();
            }
        }
    }

    /// Packs waiting items: all of them, or only full payloads.
    fn flush(&self, config: &DatadogConfig, languages: &str, all: bool) {
        for sender in &self.senders {
            let spool = sender.spool();
            while let Some(pending) = spool.oldest(MAX_PAYLOAD) {
                let mut body = Vec::with_capacity(MAX_PAYLOAD / 4);
                encode_agent_payload(&config.agent, &mut body);
                pending.payloads.iter().for_each(|p| body.extend_from_slice(p));
                let packed = zstd::bulk::compress(&body, 1).map_err(|e| SpoolError::Io(e.to_string()));
                let result = packed.and_then(|body| {
                    let headers = vec![
                        ("Content-Type".into(), "application/x-protobuf".into()),
                        ("Content-Encoding".into(), "zstd".into()),
                        ("X-Datadog-Reported-Languages".into(), languages.to_owned()),
                    ];
                    let request = Request {
                        urgent: false,
                        path: TRACES.into(),
                        headers,
                        items: pending.items,
                        body: body.into(),
                    };
                    spool.pack(&pending, request)
                });
                if let Err(e) = result {
                    tracing::error!(intake = sender.url(), "traces wait unpacked: {e}");
                    break;
                }
                sender.wake.notify_one();
                if !all && spool.pending_bytes() < MAX_PAYLOAD as u64 {
                    break;
                }
            }
        }
    }

    fn queue_stats(&self, payload: &[u8], groups: u64, languages: &str) {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let body = gzip.write_all(payload).and_then(|()| gzip.finish());
        for sender in &self.senders {
            let result = match &body {
                Ok(body) => sender.spool().push(Request {
                    urgent: true,
                    path: STATS.into(),
                    headers: vec![
                        ("Content-Type".into(), "application/msgpack".into()),
                        ("Content-Encoding".into(), "gzip".into()),
                        ("X-Datadog-Reported-Languages".into(), languages.to_owned()),
                    ],
                    items: groups,
                    body: Bytes::copy_from_slice(body),
                }),
                Err(e) => Err(SpoolError::Io(e.to_string())),
            };
            match result {
                Ok(()) => sender.wake.notify_one(),
                Err(e) => tracing::error!(intake = sender.url(), groups, "statistics are lost: {e}"),
            }
        }
    }
}

/// The list for `X-Datadog-Reported-Languages`: empty at first, renewed at the
/// first 5 s tick and once a minute, with what was seen since.
#[derive(Default)]
struct Languages {
    text: String,
    renewed: Option<Instant>,
}

impl Languages {
    fn refresh(&mut self, start: Instant, seen: &Mutex<BTreeSet<String>>) {
        let due = match self.renewed {
            None => start.elapsed() >= Duration::from_secs(5),
            Some(at) => at.elapsed() >= LANGUAGES_PERIOD,
        };
        if due {
            self.renewed = Some(Instant::now());
            let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
            self.text = seen.into_iter().collect::<Vec<_>>().join("|");
        }
    }
}

impl Exporter for DatadogExporter {
    fn export(&self, batch: Arc<Batch>, done: AckFn) {
        let mut payload = Vec::new();
        let mut spans = 0;
        for r in 0..batch.resources.len() {
            spans += encode_tracer_payload(&batch, r as u32, &mut payload).1;
        }
        self.note_languages(&batch);
        if payload.is_empty() {
            done(Ok(()));
            return;
        }
        let payload = Bytes::from(payload);
        let done = Arc::new(AllOf {
            left: AtomicUsize::new(self.senders.len()),
            failed: Mutex::new(None),
            done: Mutex::new(Some(done)),
        });
        for sender in &self.senders {
            let done = Arc::clone(&done);
            sender.spool().append(spans as u64, payload.clone(), Box::new(move |result| done.one(result)));
        }
    }
}

impl DatadogExporter {
    fn note_languages(&self, batch: &Batch) {
        let mut seen = self.languages.lock().unwrap_or_else(PoisonError::into_inner);
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
}

/// Calls back when all queues have answered. If one refused, so does the whole:
/// the client sends again, and the queues that have it already get it twice,
/// which is better than one that never gets it.
struct AllOf {
    left: AtomicUsize,
    failed: Mutex<Option<StoreError>>,
    done: Mutex<Option<AckFn>>,
}

impl AllOf {
    fn one(&self, result: Result<(), SpoolError>) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(e) = result {
            let error = match e {
                SpoolError::Journal(JournalError::Closed) => StoreError::Closed,
                SpoolError::Journal(e @ (JournalError::Full { .. } | JournalError::Behind { .. })) => {
                    StoreError::Busy(e.to_string())
                }
                e => StoreError::Write(e.to_string()),
            };
            *failed = Some(error);
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let result = failed.take().map_or(Ok(()), Err);
            if let Some(done) = self.done.lock().unwrap_or_else(PoisonError::into_inner).take() {
                done(result);
            }
        }
    }
}

/// A directory name that tells the destination: its host, and a number that
/// keeps two endpoints of one host apart.
fn directory_name(url: &str, number: usize) -> String {
    let host = url.split("://").last().unwrap_or(url);
    let safe: String = host
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' })
        .collect();
    format!("{number}-{}", &safe[..safe.len().min(100)])
}
