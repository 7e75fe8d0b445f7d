//! Taking pieces in, and finding them again after a restart.

use crate::mark::{self, kind};
use crate::piece::{Piece, Pieces};
use crate::table::{Sent, Table};
use crate::verdicts::{REMEMBERED, Ruling, State};
use crate::way::{Take, Way};
use bytes::Bytes;
use spanloom_journal::record::{Encoder, Rules};
use spanloom_journal::{Config as JournalConfig, DoneFn, Journal, JournalError, SyncPolicy};
use spanloom_model::{AckFn, Batch, Chunk, Fate, Protocol, Span, SpanId, StoreError, TraceId};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Settings.
#[derive(Clone)]
pub struct Config {
    /// Directory, its own.
    pub dir: PathBuf,
    /// Bytes on disk; beyond it the oldest traces are judged early.
    pub max_bytes: u64,
    /// Estimated bytes of memory for what is known of the traces that wait;
    /// likewise, and at twice as many nothing more is taken.
    pub max_memory: usize,
    /// How long a trace must be quiet before it is judged, nanoseconds.
    pub wait: i64,
    /// When a piece counts as safe.
    pub policy: SyncPolicy,
    /// Hears of spans and chunks that a verdict drops, as their client sent
    /// them; not of those that were there at the start.
    pub on_dropped: Arc<dyn Fn(Protocol, u64, u64) + Send + Sync>,
    /// Called when the buffer is full: a round is wanted soon.
    pub on_full: Arc<dyn Fn() + Send + Sync>,
}

/// Why the buffer cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HoldingError {
    /// The log refused.
    #[error("the log of the tail sampling buffer: {0}")]
    Journal(#[from] JournalError),
    /// A file in the way.
    #[error("{0}")]
    Io(String),
    /// Bytes that were intact once are not any more.
    #[error("a piece of the trace cannot be read back: {0}")]
    Damaged(String),
}

/// What keeping a trace by hand did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptHere {
    /// It waits, and will leave.
    Waits,
    /// It has left.
    Left,
    /// It was dropped: what came before does not leave any more, later pieces do.
    Dropped,
    /// Nothing is known of it.
    Unknown,
}

/// Figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Traces that wait.
    pub traces: u64,
    /// Their spans.
    pub spans: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Estimated bytes of memory.
    pub memory: u64,
    /// Traces that were judged before they were quiet.
    pub early: u64,
    /// Spans that came after the verdict on their trace and followed it: those
    /// that left, those that did not.
    pub late: [u64; 2],
    /// Tries to hand pieces on that an exporter refused.
    pub refused: u64,
    /// Verdicts that could not be written: a restart judges these traces again.
    pub unwritten: u64,
    /// Spans that cannot leave any more, by reason.
    pub lost: BTreeMap<&'static str, u64>,
}

/// The buffer.
pub struct Buffer {
    pub(crate) config: Config,
    pub(crate) journal: Journal,
    pub(crate) ways: Vec<Arc<dyn Way>>,
    /// Shared with callbacks of the log, which must not own the log.
    pub(crate) table: Arc<Mutex<Table>>,
    pub(crate) counters: Counters,
    encoders: Mutex<Vec<Encoder>>,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub early: AtomicU64,
    pub late: [AtomicU64; 2],
    pub refused: AtomicU64,
    pub unwritten: AtomicU64,
    pub lost: Mutex<BTreeMap<&'static str, u64>>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A refusal in the words of the pipeline.
pub(crate) fn refusal(error: JournalError) -> StoreError {
    match error {
        JournalError::Closed => StoreError::Closed,
        e @ (JournalError::Full { .. } | JournalError::Behind { .. }) => StoreError::Busy(e.to_string()),
        e => StoreError::Write(e.to_string()),
    }
}

/// Which of the kept chunks are written.
struct Chosen<'a>(std::slice::Iter<'a, bool>);

impl Rules for Chosen<'_> {
    fn takes(&mut self, _: &Chunk) -> bool {
        self.0.next().copied().unwrap_or_default()
    }
}

impl Buffer {
    /// Opens or creates the buffer. What was left by the last process waits
    /// again, from `now` on. Also returns what was damaged, as texts.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn open(
        config: Config,
        ways: Vec<Arc<dyn Way>>,
        now: i64,
    ) -> Result<(Arc<Self>, Vec<String>), HoldingError> {
        let dir = &config.dir;
        std::fs::create_dir_all(dir).map_err(|e| {
            HoldingError::Io(format!(
                "{}: cannot be created: {e}; choose another data directory",
                dir.display()
            ))
        })?;
        let mut table = Table::new(REMEMBERED);
        let mut unread = 0u64;
        let journal = JournalConfig {
            policy: config.policy,
            roll_bytes: (config.max_bytes / 32).clamp(64 << 10, 64 << 20),
            // Room for what comes while the oldest traces are judged.
            max_bytes: config.max_bytes + (config.max_bytes / 4).max(64 << 20),
            max_pending: 64 << 20,
            ..JournalConfig::default()
        };
        let (journal, recovery) = Journal::open(dir, journal, &mut |frame, bytes| match frame.kind {
            kind::PIECES => match Pieces::read(&bytes) {
                Ok((head, _)) => table.insert(frame, head.way, head.pieces, None, now),
                Err(_) => unread += 1,
            },
            kind::VERDICTS => {
                let carried = mark::read_verdicts(&bytes, &mut |trace, ruling, done| {
                    table.verdicts.set(trace, &ruling);
                    table.replay(trace, done);
                });
                unread += u64::from(carried.is_err());
            }
            kind::KEEP => {
                let trace = bytes.get(..8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
                table.keep(trace);
            }
            _ => unread += 1,
        })?;
        let mut damage: Vec<String> = recovery
            .losses
            .iter()
            .map(|l| {
                let loss = &l.loss;
                format!("{}: {} bytes at {}: {}", l.file.display(), loss.bytes, loss.offset, loss.reason)
            })
            .collect();
        if unread > 0 {
            damage.push(format!("{}: {unread} frames are not understood", dir.display()));
        }
        let buffer = Self {
            config,
            journal,
            ways,
            table: Arc::new(Mutex::new(table)),
            counters: Counters::default(),
            encoders: Mutex::default(),
        };
        buffer.release();
        Ok((Arc::new(buffer), damage))
    }

    /// Takes what leaves by a way: what waits is acknowledged when it is in
    /// the log, what does not when the exporter has it.
    pub(crate) fn hold(&self, way: u8, words: &Arc<Batch>, done: AckFn) {
        let Some(out) = self.ways.get(usize::from(way)) else { return done(Err(StoreError::Closed)) };
        if lock(&self.table).memory() > self.config.max_memory.saturating_mul(2) {
            (self.config.on_full)();
            return done(Err(StoreError::Busy("too many traces wait for the tail rules".into())));
        }
        let leaving = out.leaving(words);
        let plan = self.plan(way, out.as_ref(), &leaving, words);
        let waits = !plan.head.pieces.is_empty();
        let straight = plan.straight.contains(&true);
        if plan.dropped.spans > 0 {
            let n = plan.dropped;
            (self.config.on_dropped)(words.intake.protocol, u64::from(n.spans), u64::from(n.chunks));
        }
        let (for_log, for_exporter) = match (waits, straight) {
            (false, false) => return done(Ok(())),
            (true, false) => (Some(done), None),
            (false, true) => (None, Some(done)),
            (true, true) => {
                let (first, second) = both(done);
                (Some(first), Some(second))
            }
        };
        let batch = for_exporter.as_ref().map(|_| plan.straight_part(&leaving));
        if let Some(done) = for_log {
            self.append(&leaving, words.intake.protocol, plan, done);
        }
        if let (Some(batch), Some(done)) = (batch, for_exporter) {
            out.export(batch, done);
        }
    }

    /// What is to be done with each of the kept chunks.
    fn plan(&self, way: u8, out: &dyn Way, leaving: &Batch, words: &Batch) -> Plan {
        let kept = || leaving.chunks.iter().filter(|c| c.fate == Fate::Kept);
        let takes: Vec<Take> =
            kept().map(|c| if c.spans.is_empty() { Take::Skip } else { out.takes(leaving, c) }).collect();
        let states: Vec<Option<State>> = {
            let table = lock(&self.table);
            kept().map(|c| table.verdicts.state(c.trace_id.low())).collect()
        };
        let mut client = Client::new(leaving, words);
        let mut plan = Plan { head: Pieces { way, ..Pieces::default() }, ..Plan::default() };
        for ((chunk, take), state) in kept().zip(takes).zip(states) {
            let (mut waits, mut straight) = (false, false);
            match (take, state) {
                (Take::Skip, _) => {}
                (Take::AtOnce, _) | (Take::Wait { exempt: true }, Some(State::Drop)) => straight = true,
                (Take::Wait { .. }, Some(State::Keep)) => {
                    straight = true;
                    self.counters.late[0].fetch_add(chunk.spans.len() as u64, Relaxed);
                }
                (Take::Wait { .. }, Some(State::Drop)) => {
                    plan.partly = true;
                    self.counters.late[1].fetch_add(chunk.spans.len() as u64, Relaxed);
                    let sent = client.sent(chunk);
                    plan.dropped.spans += sent.spans;
                    plan.dropped.chunks += sent.chunks;
                }
                (Take::Wait { exempt }, Some(State::Judging) | None) => {
                    waits = true;
                    plan.partly = true;
                    let destination = plan.destination(out.destination(chunk));
                    let piece = Piece::of(leaving, chunk, exempt, destination, |s| client.words(s));
                    plan.head.pieces.push(piece);
                    plan.sent.push(client.sent(chunk));
                }
            }
            plan.waits.push(waits);
            plan.straight.push(straight);
        }
        plan
    }

    fn append(&self, leaving: &Batch, protocol: Protocol, plan: Plan, done: AckFn) {
        let mut encoder = lock(&self.encoders).pop().unwrap_or_default();
        let record = encoder.encode(leaving, &mut Chosen(plan.waits.iter()));
        lock(&self.encoders).push(encoder);
        let frame = plan.head.write(&record.bytes);
        let arrived = leaving.intake.received_at;
        let table = Arc::clone(&self.table);
        let written: DoneFn = Box::new(move |result| {
            let result = result.map(|at| {
                let Plan { head, sent, .. } = plan;
                lock(&table).insert(at, head.way, head.pieces, Some((protocol, &sent)), arrived);
            });
            done(result.map_err(refusal));
        });
        if let Err(refused) = self.journal.append(kind::PIECES, frame, written) {
            (self.config.on_full)();
            (refused.done)(Err(refused.error));
        } else if self.is_over() {
            (self.config.on_full)();
        }
    }

    /// Whether the oldest traces must make room.
    pub(crate) fn is_over(&self) -> bool {
        self.journal.stats().bytes > self.config.max_bytes
            || lock(&self.table).memory() > self.config.max_memory
    }

    /// Files whose pieces are all done go.
    pub(crate) fn release(&self) {
        let up_to = lock(&self.table).done_up_to();
        if let Err(e) = self.journal.release(up_to) {
            tracing::warn!("a file of the tail sampling buffer cannot be removed: {e}");
        }
    }

    /// Keeps a trace whatever rules say, if it is not too late.
    ///
    /// # Errors
    /// The request cannot be written: a restart would forget it.
    pub fn keep(&self, id: TraceId) -> Result<KeptHere, HoldingError> {
        let trace = id.low();
        let (waits, ruling) = {
            let mut table = lock(&self.table);
            (table.keep(trace), table.verdicts.ruling(trace))
        };
        if waits {
            let (tell, told) = std::sync::mpsc::channel();
            let payload = Bytes::copy_from_slice(&trace.to_le_bytes());
            let written: DoneFn = Box::new(move |result| drop(tell.send(result)));
            if let Err(refused) = self.journal.append(kind::KEEP, payload, written) {
                return Err(refused.error.into());
            }
            told.recv().map_err(|_| JournalError::Closed)??;
            return Ok(KeptHere::Waits);
        }
        Ok(match ruling {
            None => KeptHere::Unknown,
            Some(r) if r.keep => KeptHere::Left,
            Some(r) => {
                lock(&self.table).verdicts.set(trace, &Ruling { keep: true, ..r });
                KeptHere::Dropped
            }
        })
    }

    /// The verdict on a trace, if it is remembered.
    pub fn ruling(&self, id: TraceId) -> Option<Ruling> {
        lock(&self.table).verdicts.ruling(id.low())
    }

    /// Figures.
    pub fn stats(&self) -> Stats {
        let (traces, spans, memory) = {
            let table = lock(&self.table);
            let (traces, spans) = table.waiting();
            (traces, spans, table.memory() as u64)
        };
        Stats {
            traces,
            spans,
            bytes: self.journal.stats().bytes,
            memory,
            early: self.counters.early.load(Relaxed),
            late: self.counters.late.each_ref().map(|n| n.load(Relaxed)),
            refused: self.counters.refused.load(Relaxed),
            unwritten: self.counters.unwritten.load(Relaxed),
            lost: lock(&self.counters.lost).clone(),
        }
    }

    /// Syncs and closes the log; what waits is there at the next start.
    pub fn close(&self) {
        self.journal.close();
    }
}

/// What a batch comes to. The lists are over its kept chunks.
#[derive(Default)]
struct Plan {
    waits: Vec<bool>,
    straight: Vec<bool>,
    /// Some chunk waits or is dropped, so that not all of the batch goes on.
    partly: bool,
    head: Pieces,
    /// For each piece, what the client sent.
    sent: Vec<Sent>,
    /// Late pieces of dropped traces.
    dropped: Sent,
}

impl Plan {
    fn destination(&mut self, name: String) -> u32 {
        let known = &mut self.head.destinations;
        let at = known.iter().position(|d| *d == name).unwrap_or_else(|| {
            known.push(name);
            known.len() - 1
        });
        at as u32
    }

    fn straight_part(&self, leaving: &Arc<Batch>) -> Arc<Batch> {
        if !self.partly {
            return Arc::clone(leaving);
        }
        let mut straight = self.straight.iter();
        let mut next = || straight.next().copied().unwrap_or_default();
        Arc::new(leaving.part(|c| c.fate == Fate::Kept && next()))
    }
}

/// The client's view of what leaves, where that is a translation: the ledger
/// counts what the client sent, and rules speak of its own names.
struct Client<'a> {
    leaving: &'a Batch,
    words: &'a Batch,
    roots: HashMap<SpanId, &'a Span>,
    sent: Option<HashMap<u64, Sent>>,
}

impl<'a> Client<'a> {
    fn new(leaving: &'a Batch, words: &'a Batch) -> Self {
        let mut client = Self { leaving, words, roots: HashMap::new(), sent: None };
        if std::ptr::eq(leaving, words) {
            return client;
        }
        let roots = words.spans.iter().filter(|s| s.parent_id.is_zero());
        client.roots = roots.map(|s| (s.span_id, s)).collect();
        let mut sent: HashMap<u64, Sent> = HashMap::new();
        let leaves = |c: &&Chunk| c.fate == Fate::Kept && c.sampled.leaves == spanloom_model::Leaves::Whole;
        for chunk in words.chunks.iter().filter(leaves) {
            let n = sent.entry(chunk.trace_id.low()).or_default();
            n.spans += chunk.spans.len() as u32;
            n.chunks = n.chunks.saturating_add(1);
        }
        client.sent = Some(sent);
        client
    }

    /// Service and operation of a span.
    fn words(&self, span: &'a Span) -> (&'a str, &'a str) {
        match self.roots.get(&span.span_id) {
            Some(own) => (self.words.str(own.service), self.words.str(own.name)),
            None => (self.leaving.str(span.service), self.leaving.str(span.name)),
        }
    }

    /// What the client sent as this chunk: all its chunks of the trace count
    /// with the first of ours.
    fn sent(&mut self, chunk: &Chunk) -> Sent {
        match &mut self.sent {
            None => Sent { spans: chunk.spans.len() as u32, chunks: 1 },
            Some(sent) => sent.remove(&chunk.trace_id.low()).unwrap_or_default(),
        }
    }
}

/// Two callbacks for one: it is called when both were, with a refusal if one
/// of them was.
fn both(done: AckFn) -> (AckFn, AckFn) {
    type Half = (Option<Result<(), StoreError>>, Option<AckFn>);
    let state: Arc<Mutex<Half>> = Arc::new(Mutex::new((None, Some(done))));
    let half = || -> AckFn {
        let state = Arc::clone(&state);
        Box::new(move |result| {
            let (result, done) = {
                let mut state = lock(&state);
                match state.0.take() {
                    None => {
                        state.0 = Some(result);
                        return;
                    }
                    Some(first) => (first.and(result), state.1.take()),
                }
            };
            if let Some(done) = done {
                done(result);
            }
        })
    };
    (half(), half())
}
