//! What statistics have counted and not yet handed to the queues, on disk: a
//! process that is killed counts on where it was.
//!
//! | frame | says |
//! |---|---|
//! | `DELTA` | a batch was counted (or: this is what buckets hold, from here on) |
//! | `CLIENT` | a tracer's own statistics were merged |
//! | `FLUSHED` | these buckets are over; these numbered payloads are what they held |
//! | `QUEUED` | payloads up to this number are in every queue |
//!
//! Clients are answered when the frame about their request is as safe as
//! `ack` promises. A flush writes its payloads here first, on disk whatever
//! `ack` says, then into the queues, then says so. Killed in between, the next
//! start hands them over again, and each queue passes over the numbers that it
//! has had. So whatever moment the process is killed at, what was counted
//! leaves once. Two things are not covered: a request that was never answered,
//! if its bucket is flushed while it is being counted, and damaged files.
//!
//! Files go when their buckets have been handed over. A bucket that stays open
//! longer (clocks in the future) is written anew, so that it holds up nothing.

use bytes::Bytes;
use spanloom_codec::datadog::decode_stats;
use spanloom_journal::{
    Config as JournalConfig, DoneFn, FrameRef, Journal, JournalError, Reader, ShortRead, SyncPolicy, Writer,
};
use spanloom_model::stats::ClientStatsPayload;
use spanloom_stats::{ClientAggregator, Concentrator, Delta, Replay, encode_source};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

const DELTA: u8 = 1;
const CLIENT: u8 = 2;
const FLUSHED: u8 = 3;
const QUEUED: u8 = 4;

const MS: i64 = 1_000_000;
/// How long after a start a request is recognised that was counted before it:
/// tracers send again within 20 s or so (`datadog-receiver`'s resends).
const REMEMBERED: i64 = 60_000 * MS;
/// Requests that are remembered at most, the newest.
const MAX_REMEMBERED: usize = 4096;
/// Bytes of payloads that wait for queues which do not take them; beyond it
/// the oldest are given up and counted.
const MAX_WAITING: usize = 32 << 20;
/// A bucket that has been open for so many calls of [`StatsLog::hand_over`] is
/// written anew.
const LONG: usize = 60;

/// Settings of the log.
#[derive(Clone, Debug)]
pub struct StatsLogConfig {
    /// Directory, its own.
    pub dir: PathBuf,
    /// When a request counts as safe (`ack`).
    pub policy: SyncPolicy,
    /// Bound of the files. At 6 bytes a span and half a minute of them, the
    /// default is for about a million spans a second.
    pub max_bytes: u64,
    /// Numbers of payloads begin above this one: the highest that a queue has had.
    pub last_number: u64,
}

impl StatsLogConfig {
    /// Defaults: 256 MiB, after write(2).
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), policy: SyncPolicy::Interval, max_bytes: 256 << 20, last_number: 0 }
    }
}

/// Statistics on their way into the queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsPart {
    /// Grows from part to part, also over restarts.
    pub number: u64,
    /// Groups inside.
    pub groups: u64,
    /// A `StatsPayload` in msgpack.
    pub body: Bytes,
}

/// What a start found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Spans counted again.
    pub spans: u64,
    /// Payloads of tracers merged again.
    pub payloads: u64,
    /// Payloads that may not be in every queue yet.
    pub parts: u64,
    /// What is damaged, as texts for the program's log.
    pub damage: Vec<String>,
}

/// Figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatsLogStats {
    /// Bytes on disk.
    pub bytes: u64,
    /// Requests whose statistics would not survive a crash, because the log
    /// could not be written.
    pub failures: u64,
    /// Payloads that wait for a queue to take them.
    pub waiting: u64,
    /// Groups given up because no queue took them.
    pub lost_groups: u64,
}

/// The request something came in, so that it is recognised when it comes again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request {
    /// Hash of its bytes; 0: not known.
    pub fingerprint: u64,
    /// Arrival, nanoseconds since the Unix epoch.
    pub received_at: i64,
}

/// Called when something is as safe as the policy asks, or cannot be.
pub type SafeFn = Box<dyn FnOnce() + Send>;

/// The log.
pub struct StatsLog {
    journal: Journal,
    concentrator: Arc<Mutex<Concentrator>>,
    state: Mutex<State>,
    /// Something is missing in the log: everything must be written anew.
    broken: Arc<AtomicBool>,
    failures: Arc<AtomicU64>,
    /// Requests counted before the start, until a time.
    before: Mutex<(i64, HashMap<u64, i64>)>,
    any_before: AtomicBool,
}

#[derive(Default)]
struct State {
    last_number: u64,
    /// Not in every queue yet, oldest first, with the frames that hold them.
    waiting: VecDeque<(u64, StatsPart)>,
    /// First frame about each open bucket of tracers' statistics.
    clients: BTreeMap<i64, u64>,
    /// Where the log was at the last calls of `hand_over`.
    calls: VecDeque<u64>,
    lost_groups: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is guarded stays consistent call by call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StatsLog {
    /// Opens or creates the log and counts what it holds into `concentrator`
    /// and `clients`, both new. `now`: nanoseconds since the Unix epoch.
    ///
    /// # Errors
    /// The directory cannot be used, or was written by a newer program. Damage
    /// is no error; it costs what it touches.
    pub fn open(
        config: StatsLogConfig,
        concentrator: Arc<Mutex<Concentrator>>,
        clients: &mut ClientAggregator,
        now: i64,
    ) -> Result<(Self, Recovered), JournalError> {
        let counted = Arc::clone(&concentrator);
        let mut reading = Reading {
            concentrator: lock(&counted),
            clients,
            replay: Replay::default(),
            state: State::default(),
            before: VecDeque::new(),
            found: Recovered::default(),
        };
        let broken = Arc::new(AtomicBool::new(false));
        let failed = Arc::clone(&broken);
        let journal = JournalConfig {
            policy: config.policy,
            roll_bytes: (config.max_bytes / 32).clamp(64 << 10, 4 << 20),
            max_bytes: config.max_bytes,
            max_pending: 32 << 20,
            on_failure: Some(Arc::new(move || failed.store(true, SeqCst))),
            ..JournalConfig::default()
        };
        let (journal, recovery) =
            Journal::open(&config.dir, journal, &mut |frame, bytes| reading.frame(frame, &bytes))?;
        let Reading { concentrator: mut counting, replay, mut state, before, mut found, .. } = reading;
        found.spans = replay.spans;
        found.parts = state.waiting.len() as u64;
        found.damage.extend(recovery.losses.iter().map(|l| {
            format!("{}: {} bytes at {}: {}", l.file.display(), l.loss.bytes, l.loss.offset, l.loss.reason)
        }));
        // Beginning with the time of day, numbers grow even if the log is lost.
        let last = state.last_number.max(config.last_number);
        state.last_number = last.max(u64::try_from(now).unwrap_or(0));
        counting.start_log(journal.stats().next_seq, &replay);
        drop(counting);
        let before: HashMap<u64, i64> = before.into_iter().filter(|(_, at)| now - at < REMEMBERED).collect();
        let log = Self {
            journal,
            concentrator,
            state: Mutex::new(state),
            broken,
            failures: Arc::default(),
            any_before: AtomicBool::new(!before.is_empty()),
            before: Mutex::new((now.saturating_add(REMEMBERED), before)),
        };
        // From here on nothing refers to what is in older files.
        log.write_anew(u64::MAX);
        log.sync();
        log.release();
        Ok((log, found))
    }

    /// Whether these bytes were counted by an earlier process, whose answer may
    /// not have reached the client.
    pub fn counted_before(&self, fingerprint: u64, now: i64) -> bool {
        if !self.any_before.load(Relaxed) || fingerprint == 0 {
            return false;
        }
        let mut before = lock(&self.before);
        if now >= before.0 {
            before.1 = HashMap::new();
            self.any_before.store(false, Relaxed);
        }
        before.1.contains_key(&fingerprint)
    }

    /// Logs what counting a request has changed. [`StatsLog::write`] follows,
    /// once for several requests.
    pub fn commit(&self, delta: &Delta, request: Request, safe: SafeFn) {
        let mut record = head(request);
        let refused = {
            let mut concentrator = lock(&self.concentrator);
            concentrator.record(delta, &mut record.out);
            // Under the lock: records are in the order in which they were made.
            let taken = self.journal.append_before_write(DELTA, record.out.into(), self.done(safe));
            taken.map(|seq| concentrator.logged(seq + 1)).err()
        };
        if let Some(refused) = refused {
            (refused.done)(Err(refused.error));
        }
    }

    /// Writes what was committed.
    pub fn write(&self) {
        self.journal.write_here();
    }

    /// Merges a tracer's statistics ([`ClientAggregator::complete`]d) and logs them.
    pub fn client(
        &self,
        clients: &mut ClientAggregator,
        payload: ClientStatsPayload,
        request: Request,
        safe: SafeFn,
    ) {
        let mut record = head(request);
        let oldest = clients.oldest();
        record.i64(request.received_at);
        record.i64(oldest);
        encode_source(&payload, &mut record.out);
        let seq = self.append(CLIENT, record, safe);
        clients.add_at(payload, request.received_at, oldest);
        if let Some(seq) = seq {
            let mut state = lock(&self.state);
            for start in clients.open_buckets() {
                state.clients.entry(start).or_insert(seq);
            }
        }
    }

    /// Hands over what was flushed: `bodies` with their numbers of groups are
    /// what the buckets held that the concentrator and the aggregator of
    /// tracers' statistics (by their starts) have flushed since the last call.
    /// `queue` puts a part into every queue, and says whether it is there.
    /// Blocks. To be called about once a second, also if nothing was flushed.
    pub fn hand_over(&self, clients: &[i64], bodies: Vec<(Bytes, u64)>, queue: &dyn Fn(&StatsPart) -> bool) {
        self.flushed(clients, bodies);
        self.queue_waiting(queue);
        self.compact();
        self.release();
    }

    /// First step: what is over, and what it held.
    fn flushed(&self, clients: &[i64], bodies: Vec<(Bytes, u64)>) {
        let mut concentrator = lock(&self.concentrator);
        let eras = concentrator.take_flushed();
        if eras.is_empty() && clients.is_empty() && bodies.is_empty() {
            return;
        }
        // Definitions of the buckets that are over must come before their end.
        let mut record = head(Request::default());
        let empty = record.out.len();
        concentrator.record(&Delta::default(), &mut record.out);
        if record.out.len() > empty {
            self.append(DELTA, record, Box::new(|| ()));
        }
        let mut state = lock(&self.state);
        let parts: Vec<StatsPart> = bodies
            .into_iter()
            .map(|(body, groups)| {
                state.last_number += 1;
                StatsPart { number: state.last_number, groups, body }
            })
            .collect();
        let frame = flushed_frame(&eras, clients, &parts);
        let seq = self.append(FLUSHED, frame, Box::new(|| ()));
        let at = self.journal.stats().next_seq;
        if seq.is_some() {
            concentrator.logged(at);
        }
        drop(concentrator);
        state.clients.retain(|start, _| !clients.contains(start));
        state.waiting.extend(parts.into_iter().map(|part| (seq.unwrap_or(at), part)));
        drop(state);
        self.sync();
    }

    /// Second step: into the queues, in order; then it is said.
    fn queue_waiting(&self, queue: &dyn Fn(&StatsPart) -> bool) {
        let mut last = None;
        loop {
            let next = lock(&self.state).waiting.front().map(|(_, part)| part.clone());
            let Some(part) = next else { break };
            if !queue(&part) {
                break;
            }
            lock(&self.state).waiting.pop_front();
            last = Some(part.number);
        }
        if let Some(number) = last {
            let mut frame = Writer::default();
            frame.u64(number);
            self.append(QUEUED, frame, Box::new(|| ()));
        }
        let mut state = lock(&self.state);
        let mut bytes: usize = state.waiting.iter().map(|(_, part)| part.body.len()).sum();
        while bytes > MAX_WAITING
            && let Some((_, part)) = state.waiting.pop_front()
        {
            bytes -= part.body.len();
            state.lost_groups += part.groups;
            tracing::error!(groups = part.groups, "statistics are given up: no queue takes them");
        }
    }

    /// Buckets that hold up old files, or everything if the log has a hole, are
    /// written anew.
    fn compact(&self) {
        if self.broken.swap(false, SeqCst) {
            self.write_anew(u64::MAX);
            return;
        }
        let before = {
            let mut state = lock(&self.state);
            state.calls.push_back(self.journal.stats().next_seq);
            if state.calls.len() > LONG { state.calls.pop_front() } else { None }
        };
        if let Some(before) = before {
            self.write_anew(before);
        }
    }

    fn write_anew(&self, before: u64) {
        let mut record = head(Request::default());
        let empty = record.out.len();
        let mut concentrator = lock(&self.concentrator);
        concentrator.logged(self.journal.stats().next_seq);
        concentrator.snapshot(before, &mut record.out);
        if record.out.len() > empty
            && let Some(seq) = self.append(DELTA, record, Box::new(|| ()))
        {
            concentrator.logged(seq + 1);
        }
    }

    /// Removes files that hold nothing any more.
    fn release(&self) {
        if self.broken.load(SeqCst) {
            // What should replace them may be missing.
            return;
        }
        let counted = lock(&self.concentrator).oldest_record();
        let state = lock(&self.state);
        let waiting = state.waiting.front().map(|(seq, _)| *seq);
        let client = state.clients.values().min().copied();
        drop(state);
        let needed = waiting.into_iter().chain(client).fold(counted, u64::min);
        if let Err(e) = self.journal.release(needed.saturating_sub(1)) {
            tracing::warn!("a file of the log of statistics cannot be removed: {e}");
        }
    }

    /// Appends; the number of the frame, if the log takes it.
    fn append(&self, kind: u8, record: Writer, safe: SafeFn) -> Option<u64> {
        match self.journal.append(kind, record.out.into(), self.done(safe)) {
            Ok(seq) => Some(seq),
            Err(refused) => {
                (refused.done)(Err(refused.error));
                None
            }
        }
    }

    /// What a frame of the log calls back.
    fn done(&self, safe: SafeFn) -> DoneFn {
        let (broken, failures) = (Arc::clone(&self.broken), Arc::clone(&self.failures));
        Box::new(move |result: Result<FrameRef, JournalError>| {
            if result.is_err() {
                broken.store(true, SeqCst);
                failures.fetch_add(1, Relaxed);
            }
            safe();
        })
    }

    /// Waits until everything is on disk.
    fn sync(&self) {
        let (tell, told) = mpsc::channel();
        if self.journal.sync(Box::new(move |result| drop(tell.send(result)))).is_ok()
            && let Ok(Err(e)) = told.recv()
        {
            tracing::error!("the log of statistics cannot be written: {e}");
        }
    }

    /// Figures.
    pub fn stats(&self) -> StatsLogStats {
        let state = lock(&self.state);
        StatsLogStats {
            bytes: self.journal.stats().bytes,
            failures: self.failures.load(Relaxed),
            waiting: state.waiting.len() as u64,
            lost_groups: state.lost_groups,
        }
    }

    /// Syncs and closes the log.
    pub fn close(&self) {
        self.journal.close();
    }
}

/// The log as it is read back.
struct Reading<'a> {
    concentrator: MutexGuard<'a, Concentrator>,
    clients: &'a mut ClientAggregator,
    replay: Replay,
    state: State,
    before: VecDeque<(u64, i64)>,
    found: Recovered,
}

impl Reading<'_> {
    fn frame(&mut self, frame: FrameRef, bytes: &Bytes) {
        let read = match frame.kind {
            DELTA => self.delta(bytes),
            CLIENT => self.client(frame, bytes),
            FLUSHED => self.flushed(frame, bytes),
            QUEUED => Reader::new(bytes).u64().map(|number| {
                self.state.waiting.retain(|(_, part)| part.number > number);
            }),
            _ => Ok(()),
        };
        if read.is_err() {
            self.found.damage.push(format!("frame {} of the log of statistics cannot be read", frame.seq));
        }
    }

    fn request(&mut self, r: &mut Reader<'_>) -> Result<(), ShortRead> {
        let fingerprint = r.fixed64()?;
        let at = r.i64()?.saturating_mul(MS);
        if fingerprint != 0 {
            self.before.push_back((fingerprint, at));
            if self.before.len() > MAX_REMEMBERED {
                self.before.pop_front();
            }
        }
        Ok(())
    }

    fn delta(&mut self, bytes: &[u8]) -> Result<(), ShortRead> {
        let mut r = Reader::new(bytes);
        self.request(&mut r)?;
        let record = r.take(r.left())?;
        self.concentrator.replay(record, &mut self.replay).map_err(|_| ShortRead)
    }

    fn client(&mut self, frame: FrameRef, bytes: &[u8]) -> Result<(), ShortRead> {
        let mut r = Reader::new(bytes);
        self.request(&mut r)?;
        let (received_at, oldest) = (r.i64()?, r.i64()?);
        let payload = decode_stats(r.take(r.left())?).map_err(|_| ShortRead)?;
        self.clients.add_at(payload, received_at, oldest);
        for start in self.clients.open_buckets() {
            self.state.clients.entry(start).or_insert(frame.seq);
        }
        self.found.payloads += 1;
        Ok(())
    }

    fn flushed(&mut self, frame: FrameRef, bytes: &Bytes) -> Result<(), ShortRead> {
        let mut r = Reader::new(bytes);
        for _ in 0..r.count(1)? {
            self.concentrator.forget(r.u64()?, &mut self.replay);
        }
        for _ in 0..r.count(1)? {
            let start = r.i64()?;
            self.clients.forget(start);
            self.state.clients.remove(&start);
        }
        for _ in 0..r.count(3)? {
            let (number, groups) = (r.u64()?, r.u64()?);
            // A copy: the slice would keep the whole file in memory.
            let body = Bytes::copy_from_slice(r.bytes()?);
            self.state.last_number = self.state.last_number.max(number);
            self.state.waiting.push_back((frame.seq, StatsPart { number, groups, body }));
        }
        Ok(())
    }
}

/// What every record about a request begins with.
fn head(request: Request) -> Writer {
    let mut record = Writer::default();
    record.fixed64(request.fingerprint);
    record.i64(request.received_at / MS);
    record
}

fn flushed_frame(eras: &[u64], clients: &[i64], parts: &[StatsPart]) -> Writer {
    let mut frame = Writer::default();
    frame.u64(eras.len() as u64);
    eras.iter().for_each(|era| frame.u64(*era));
    frame.u64(clients.len() as u64);
    clients.iter().for_each(|start| frame.i64(*start));
    frame.u64(parts.len() as u64);
    for part in parts {
        frame.u64(part.number);
        frame.u64(part.groups);
        frame.bytes(&part.body);
    }
    frame
}
