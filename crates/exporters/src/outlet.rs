//! What every exporter does, whatever it speaks: each batch is encoded once,
//! acknowledged when it is in each destination's queue on disk, packed into
//! requests every few seconds, and sent until the destination has it.

use crate::ack::{AllOf, refusal};
use crate::sender::{Endpoint, Sender};
use crate::spool::{Ended, ITEM_HEAD, Pending, Request, Spool, SpoolConfig, SpoolError, SpoolStats};
use crate::strand::Strands;
use crate::transport::Transport;
use bytes::Bytes;
use spanloom_journal::SyncPolicy;
use spanloom_model::{AckFn, Batch, Range32};
use spanloom_pipeline::Exporter;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Bytes of encoded spans in one request, before compression.
pub const MAX_PAYLOAD: usize = 3_200_000;
/// How often the writer looks whether a flush is due.
const TICK: Duration = Duration::from_millis(100);

/// What differs from format to format.
pub trait Format: Send + Sync + 'static {
    /// For the name of the thread and for the log.
    fn name(&self) -> &'static str;

    /// Appends the spans that are for this destination, as an item that waits
    /// to be packed. Returns how many there are.
    fn encode(&self, batch: &Batch, out: &mut Vec<u8>) -> u64;

    /// Whether a large batch may be encoded in pieces. Not where a payload
    /// holds more than spans.
    fn splits(&self) -> bool {
        true
    }

    /// If a payload is a head and items one after another, and is sent as
    /// zstd: the head. Large items are then compressed as they come.
    fn stream_head(&self) -> Option<Vec<u8>> {
        None
    }

    /// The request of a payload that was compressed as it came.
    fn stream_request(&self, _body: Bytes, _items: u64) -> std::io::Result<Request> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    /// Packs waiting items into a request.
    fn pack(&self, pending: &Pending) -> std::io::Result<Request>;

    /// Packs what does not wait ([`Outlet::send_now`]).
    fn pack_urgent(&self, _payload: &[u8], _items: u64) -> std::io::Result<Request> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    /// Called by the writer several times a second.
    fn tick(&self) {}
}

/// Settings of an outlet.
#[derive(Clone, Debug)]
pub struct OutletConfig {
    /// Directory of the queues.
    pub dir: PathBuf,
    /// Where to send; each gets everything.
    pub endpoints: Vec<Endpoint>,
    /// Bytes that wait for each destination.
    pub queue_bytes: u64,
    /// When a span counts as safe.
    pub policy: SyncPolicy,
    /// Time between flushes.
    pub flush_period: Duration,
    /// Concurrent requests, shared by the destinations.
    pub connections: usize,
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

/// Queues, writer and senders of one format.
pub struct Outlet {
    format: Arc<dyn Format>,
    senders: Vec<Arc<Sender>>,
    strands: Option<Strands>,
    /// There is something to pack, or the writer is to stop.
    wake_writer: SyncSender<()>,
    stopping: AtomicBool,
    stop_senders: watch::Sender<bool>,
    tasks: Mutex<Vec<tokio::task::JoinHandle<()>>>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Outlet {
    /// Opens the queues, starts the writer thread and the senders (on the
    /// current tokio runtime). Also returns what was damaged on disk.
    ///
    /// # Errors
    /// A queue cannot be opened, or the system refuses a thread.
    pub fn start(
        config: OutletConfig,
        format: Arc<dyn Format>,
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
        let (wake_writer, woken) = sync_channel(1);
        let stop_senders = watch::Sender::new(false);
        let workers = (config.connections / senders.len().max(1)).max(1);
        let tasks = senders
            .iter()
            .flat_map(|s| (0..workers).map(move |_| Arc::clone(s)))
            .map(|s| tokio::spawn(s.run(stop_senders.subscribe())))
            .collect();
        let name = format!("{}-writer", format.name());
        let strands = format.stream_head().map(|head| {
            let spools = senders.iter().map(|s| Arc::clone(s.spool())).collect();
            Strands::new(spools, head, std::thread::available_parallelism().map_or(2, usize::from))
        });
        let outlet = Arc::new(Self {
            format,
            senders,
            strands,
            wake_writer,
            stopping: AtomicBool::new(false),
            stop_senders,
            tasks: Mutex::new(tasks),
            writer: Mutex::default(),
        });
        let writer = std::thread::Builder::new()
            .name(name)
            .spawn({
                let outlet = Arc::clone(&outlet);
                move || outlet.write(config.flush_period, &woken)
            })
            .map_err(|e| SpoolError::Io(format!("cannot start a thread: {e}")))?;
        *outlet.writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(writer);
        Ok((outlet, damage))
    }

    /// Queues something that is not packed with spans
    /// ([`Format::pack_urgent`]) for each destination that has not had its
    /// number yet ([`Spool::push`]). Blocks until it is on disk.
    ///
    /// # Errors
    /// A queue did not take it; the same call may succeed later.
    pub fn send_now(&self, number: u64, payload: &[u8], items: u64) -> Result<(), SpoolError> {
        let request = self.format.pack_urgent(payload, items).map_err(|e| SpoolError::Io(e.to_string()))?;
        let mut result = Ok(());
        for sender in &self.senders {
            match sender.spool().push(number, request.clone()) {
                Ok(()) => sender.wake.notify_one(),
                Err(e) => result = Err(e),
            }
        }
        result
    }

    /// The highest number that any destination's queue has had
    /// ([`Outlet::send_now`]).
    pub fn numbered(&self) -> u64 {
        self.senders.iter().map(|s| s.spool().numbered()).max().unwrap_or(0)
    }

    /// Figures of every destination.
    pub fn stats(&self) -> Vec<DestinationStats> {
        let one = |s: &Arc<Sender>| DestinationStats { url: s.url().to_owned(), queue: s.spool().stats() };
        self.senders.iter().map(one).collect()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.senders.iter().all(|s| {
            let stats = s.spool().stats();
            stats.requests == 0 && stats.pending_items == 0
        })
    }

    /// Packs what waits, then sends for up to `grace`; what is left waits on
    /// disk for the next start.
    pub async fn stop(&self, grace: Duration) {
        self.stopping.store(true, SeqCst);
        let _ = self.wake_writer.try_send(());
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

    fn write(&self, flush_period: Duration, woken: &Receiver<()>) {
        let [mut last_flush, mut last_end, mut last_tick] = [Instant::now(); 3];
        loop {
            let woken = !matches!(woken.recv_timeout(TICK), Err(RecvTimeoutError::Timeout));
            let stop = self.stopping.load(SeqCst);
            if !woken || stop || last_tick.elapsed() >= TICK {
                last_tick = Instant::now();
                self.format.tick();
            }
            if let Some(strands) = &self.strands
                && (stop || last_end.elapsed() >= flush_period)
            {
                last_end = Instant::now();
                strands.end_all();
            }
            self.pack_strands();
            let due = stop || last_flush.elapsed() >= flush_period;
            let full = self.senders.iter().any(|s| s.spool().pending_bytes() >= MAX_PAYLOAD as u64);
            if due || full {
                self.flush(due);
                last_flush = Instant::now();
            }
            if stop {
                return;
            }
        }
    }

    /// Packs what was compressed as it came, and has ended.
    fn pack_strands(&self) {
        for sender in &self.senders {
            let spool = sender.spool();
            while let Some(Ended { strand, items, body }) = spool.ended() {
                let packed =
                    self.format.stream_request(body, items).map_err(|e| SpoolError::Io(e.to_string()));
                if let Err(e) = packed.and_then(|request| spool.pack_strand(strand, &request)) {
                    tracing::error!(destination = sender.url(), "traces wait unpacked: {e}");
                    break;
                }
                sender.wake.notify_one();
            }
        }
    }

    /// Packs waiting items: all of them, or only full payloads.
    fn flush(&self, all: bool) {
        for sender in &self.senders {
            let spool = sender.spool();
            while let Some(pending) = spool.oldest(MAX_PAYLOAD) {
                let packed = self.format.pack(&pending).map_err(|e| SpoolError::Io(e.to_string()));
                if let Err(e) = packed.and_then(|request| spool.pack(&pending, request)) {
                    tracing::error!(destination = sender.url(), "traces wait unpacked: {e}");
                    break;
                }
                sender.wake.notify_one();
                if !all && spool.pending_bytes() < MAX_PAYLOAD as u64 {
                    break;
                }
            }
        }
    }

    /// Queues a batch as it is.
    fn export_items(&self, batch: Arc<Batch>, done: AckFn) {
        let mut items = Vec::new();
        self.items(&batch, &mut items);
        drop(batch);
        let answers = items.len() * self.senders.len();
        if answers == 0 {
            done(Ok(()));
            return;
        }
        let done = AllOf::new(answers, done);
        for item in items {
            for sender in &self.senders {
                let done = Arc::clone(&done);
                let answer =
                    Box::new(move |result: Result<(), SpoolError>| done.one(result.map_err(refusal)));
                sender.spool().append_framed(item.clone(), answer);
            }
        }
    }

    /// The batch as items of bounded size, with their heads.
    fn items(&self, batch: &Batch, out: &mut Vec<Bytes>) {
        // About as large as what was received; room that is not used is given back.
        let mut payload = Vec::with_capacity(ITEM_HEAD + batch.arena.size() + 64 * batch.spans.len());
        payload.extend_from_slice(&[0; ITEM_HEAD]);
        let spans = self.format.encode(batch, &mut payload);
        if payload.len() > MAX_PAYLOAD
            && self.format.splits()
            && let Some((first, second)) = halves(batch)
        {
            drop(payload);
            self.items(&first, out);
            self.items(&second, out);
        } else if payload.len() > ITEM_HEAD {
            payload[..ITEM_HEAD].copy_from_slice(&spans.to_le_bytes());
            payload.shrink_to_fit();
            out.push(payload.into());
        }
    }
}

impl Exporter for Outlet {
    fn export(&self, batch: Arc<Batch>, done: AckFn) {
        self.export_all(vec![(batch, done)]);
    }

    fn export_all(&self, batches: Vec<(Arc<Batch>, AckFn)>) {
        let Some(strands) = &self.strands else {
            batches.into_iter().for_each(|(batch, done)| self.export_items(batch, done));
            return;
        };
        // One item for all of them: payloads stand one after another in it.
        let (batches, mut dones): (Vec<_>, Vec<_>) = batches.into_iter().unzip();
        let done: AckFn = match dones.pop() {
            Some(done) if dones.is_empty() => done,
            Some(last) => Box::new(move |result| {
                dones.into_iter().for_each(|done| done(result.clone()));
                last(result);
            }),
            None => return,
        };
        let encode = |out: &mut Vec<u8>| batches.iter().map(|batch| self.format.encode(batch, out)).sum();
        if strands.export(encode, done) {
            let _ = self.wake_writer.try_send(());
        }
    }
}

/// A batch cut in two: between its chunks, or through its only one. None if it
/// is a single span.
fn halves(batch: &Batch) -> Option<(Batch, Batch)> {
    if batch.chunks.len() > 1 {
        let middle = batch.chunks.len() / 2;
        let half = |second: bool| {
            let mut i = 0;
            batch.part(|_| {
                i += 1;
                (i > middle) == second
            })
        };
        return Some((half(false), half(true)));
    }
    let spans = batch.chunks.first()?.spans;
    if spans.len() < 2 {
        return None;
    }
    let middle = spans.start as usize + spans.len() / 2;
    let half = |range: Range32| {
        let mut part = batch.part(|_| true);
        part.spans = batch.spans.get(range.usize()).unwrap_or_default().to_vec();
        if let Some(chunk) = part.chunks.first_mut() {
            chunk.spans = Range32::new(0, range.len());
        }
        part
    };
    Some((half(Range32::new(spans.start as usize, middle)), half(Range32::new(middle, spans.end as usize))))
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
