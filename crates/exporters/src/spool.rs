//! A bounded queue on disk for one destination.
//!
//! Two logs. `pending` holds what has been acknowledged to clients and waits
//! to be packed into a request: items as they are, or parts of strands, which
//! are compressed already (`parts.rs`). `ready` holds requests until the
//! destination has taken them. Whatever moment the process is killed at,
//! every acknowledged item is in one of the two and in no more than one:
//! a request says up to which pending item it holds, or which strand, and a
//! restart forgets those.
//!
//! Memory: an item that waits is kept in memory while those before it are few
//! ([`KEPT_BYTES`]); the others are read back when their turn comes.

use bytes::Bytes;
use spanloom_journal::{Config as JournalConfig, DoneFn, Fault, FrameRef, Journal, JournalError, SyncPolicy};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

mod parts;
pub(crate) use parts::{Ended, NotTaken, PART_HEAD, PartHead};

/// Kinds of frames.
const PENDING: u8 = 1;
const REQUEST: u8 = 2;
const DONE: u8 = 3;
const PACKED: u8 = 4;
const NUMBER: u8 = 5;

/// Bytes of waiting items that stay in memory: enough for a few requests.
const KEPT_BYTES: u64 = 8 << 20;
/// Bytes before an item's payload in its frame: how many spans it holds.
pub(crate) const ITEM_HEAD: usize = 8;

/// Settings.
#[derive(Clone, Debug)]
pub struct SpoolConfig {
    /// Bytes of waiting requests; beyond it the oldest go first.
    pub max_bytes: u64,
    /// When an item counts as safe.
    pub policy: SyncPolicy,
}

/// A request for the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Sent before others (statistics are small and wanted most).
    pub urgent: bool,
    /// Path on the destination.
    pub path: String,
    /// Headers, without the key, which is not written to disk.
    pub headers: Vec<(String, String)>,
    /// Spans (or statistics groups) inside, for the counters.
    pub items: u64,
    /// Compressed body.
    pub body: Bytes,
}

/// Items that wait to be packed.
#[derive(Debug, Default)]
pub struct Pending {
    /// Their bytes, oldest first.
    pub payloads: Vec<Bytes>,
    /// Spans inside.
    pub items: u64,
    /// Sequence number of the last one.
    up_to: u64,
}

/// A request that a sender works on.
#[derive(Debug)]
pub struct Claim {
    seq: u64,
    /// The request.
    pub request: Request,
}

/// How a try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// The destination has it.
    Sent,
    /// The destination will never take it; the reason.
    Rejected(&'static str),
    /// Try again later.
    Again,
}

/// Figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpoolStats {
    /// Requests that wait.
    pub requests: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Items that wait to be packed.
    pub pending_items: u64,
    /// Items sent.
    pub sent_items: u64,
    /// Requests sent.
    pub sent_requests: u64,
    /// Tries that were repeated.
    pub retries: u64,
    /// Items given up, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// The same by kind: what was packed, and what was urgent.
    pub kinds: [KindStats; 2],
}

/// Figures of one kind of requests since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindStats {
    /// Requests sent.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Items in them.
    pub sent_items: u64,
    /// Tries that were repeated.
    pub retries: u64,
    /// Requests that the destination will never take.
    pub rejected: u64,
    /// Requests given up before they were sent.
    pub dropped: u64,
    /// Their bytes.
    pub dropped_bytes: u64,
}

/// Why a spool cannot be used or an item not be taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SpoolError {
    /// The log refused.
    #[error("the queue on disk refused: {0}")]
    Journal(#[from] JournalError),
    /// A file in the way.
    #[error("{0}")]
    Io(String),
    /// It continues a payload of which a part before it was not written.
    #[error("the queue on disk has lost what came before in the same payload")]
    Gap,
}

struct Waiting {
    frame: FrameRef,
    urgent: bool,
    items: u64,
    in_flight: bool,
}

/// An item that waits to be packed.
struct Item {
    frame: FrameRef,
    items: u64,
    /// If it is in memory, too.
    payload: Option<Bytes>,
}

impl Item {
    fn bytes(&self) -> u64 {
        u64::from(self.frame.len).saturating_sub(ITEM_HEAD as u64)
    }
}

/// By their numbers, which grow.
type Strands = BTreeMap<u64, parts::Strand>;

#[derive(Default)]
struct State {
    pending: BTreeMap<u64, Item>,
    pending_bytes: u64,
    strands: Strands,
    /// Bytes of items and parts in memory.
    kept_bytes: u64,
    /// Sequence number of the newest item or part.
    newest_pending: u64,
    requests: BTreeMap<u64, Waiting>,
    bytes: u64,
    /// Sequence number of the newest request: frames behind it may be on
    /// their way into `requests`, so their files stay.
    newest: u64,
    /// The highest number of a request ([`Spool::push`]) and the newest frame
    /// that says so, whose file stays: a restart must know it.
    numbered: (u64, u64),
    dropped: BTreeMap<&'static str, u64>,
    kinds: [KindStats; 2],
}

impl State {
    fn kind(&mut self, urgent: bool) -> &mut KindStats {
        let [packed, others] = &mut self.kinds;
        if urgent { others } else { packed }
    }

    /// Up to which frame nothing waits to be packed.
    fn packed_up_to(&self) -> u64 {
        let item = self.pending.keys().next().copied();
        let oldest = self.strands.values().filter_map(parts::Strand::first).chain(item).min();
        oldest.map_or(self.newest_pending, |seq| seq - 1)
    }
}

/// The queue of one destination.
pub struct Spool {
    config: SpoolConfig,
    pending: Journal,
    ready: Journal,
    state: Arc<Mutex<State>>,
    highest_strand: u64,
    sent_items: AtomicU64,
    sent_requests: AtomicU64,
    retries: AtomicU64,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Appends; a refusal goes to the callback like any other failure.
fn append(journal: &Journal, kind: u8, payload: Bytes, done: DoneFn) {
    if let Err(refused) = journal.append(kind, payload, done) {
        (refused.done)(Err(refused.error));
    }
}

impl Spool {
    /// Opens or creates the queue in a directory. Returns what was damaged, as
    /// texts for the log; damage costs no more than itself.
    pub fn open(dir: &Path, config: SpoolConfig) -> Result<(Self, Vec<String>), SpoolError> {
        Self::open_with(dir, config, None)
    }

    /// The same on a disk that may fail, for tests.
    pub(crate) fn open_with(
        dir: &Path,
        config: SpoolConfig,
        fault: Option<Fault>,
    ) -> Result<(Self, Vec<String>), SpoolError> {
        std::fs::create_dir_all(dir).map_err(|e| {
            SpoolError::Io(format!(
                "{}: cannot be created: {e}; choose another data directory",
                dir.display()
            ))
        })?;
        let roll = (config.max_bytes / 32).clamp(64 << 10, 64 << 20);
        let journal = |policy, max_bytes| JournalConfig {
            policy,
            roll_bytes: roll,
            max_bytes,
            max_pending: 64 << 20,
            fault: fault.clone(),
            ..JournalConfig::default()
        };
        let mut state = State::default();
        let mut packed = 0;
        let mut done = Vec::new();
        let mut found = parts::Found::default();
        // The files may exceed the bound by what is being written over it.
        let (ready, lost_ready) = Journal::open(
            &dir.join("ready"),
            journal(SyncPolicy::Always, config.max_bytes * 2 + (256 << 20)),
            &mut |frame, bytes| match frame.kind {
                REQUEST | parts::STRAND_REQUEST => {
                    if let Some((request, number)) = decode_request(&bytes) {
                        if frame.kind == parts::STRAND_REQUEST {
                            found.over(number);
                        } else if request.urgent {
                            state.numbered = state.numbered.max((number, frame.seq));
                        } else {
                            packed = packed.max(number);
                        }
                        state.bytes += u64::from(frame.len);
                        let waiting =
                            Waiting { frame, urgent: request.urgent, items: request.items, in_flight: false };
                        state.requests.insert(frame.seq, waiting);
                        state.newest = frame.seq;
                    }
                }
                NUMBER => {
                    let number = bytes.get(..8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
                    state.numbered = state.numbered.max((number, frame.seq));
                }
                DONE => done.extend(bytes.get(..8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes)),
                _ => {}
            },
        )?;
        for seq in done {
            if let Some(w) = state.requests.remove(&seq) {
                state.bytes -= u64::from(w.frame.len);
            }
        }
        let (pending, lost_pending) = Journal::open(
            &dir.join("pending"),
            journal(config.policy, config.max_bytes.max(64 << 20)),
            &mut |frame, bytes| match frame.kind {
                PACKED => {
                    let up_to = bytes.get(..8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
                    packed = packed.max(up_to);
                }
                PENDING => {
                    if let Some(items) = item_head(&bytes) {
                        state.pending.insert(frame.seq, Item { frame, items, payload: None });
                    }
                }
                _ => found.frame(frame, &bytes, &mut state.strands),
            },
        )?;
        let again = state.pending.split_off(&(packed + 1));
        state.pending = again;
        state.pending_bytes = state.pending.values().map(Item::bytes).sum();
        let lost = found.settle(&mut state.strands);
        if lost > 0 {
            state.dropped.insert("damaged_on_disk", lost);
        }
        state.newest_pending = lost_pending.last_seq;
        let damage = lost_ready.losses.iter().chain(&lost_pending.losses);
        let damage = damage
            .map(|l| {
                format!(
                    "{}: {} bytes at {}: {}",
                    l.file.display(),
                    l.loss.bytes,
                    l.loss.offset,
                    l.loss.reason
                )
            })
            .collect();
        let spool = Self {
            config,
            pending,
            ready,
            state: Arc::new(Mutex::new(state)),
            highest_strand: found.highest,
            sent_items: AtomicU64::new(0),
            sent_requests: AtomicU64::new(0),
            retries: AtomicU64::new(0),
        };
        spool.release_ready();
        Ok((spool, damage))
    }

    /// Takes an item; `done` is called when it is as safe as the policy asks.
    pub fn append(&self, items: u64, payload: &[u8], done: Box<dyn FnOnce(Result<(), SpoolError>) + Send>) {
        let mut framed = Vec::with_capacity(ITEM_HEAD + payload.len());
        framed.extend_from_slice(&items.to_le_bytes());
        framed.extend_from_slice(payload);
        self.append_framed(framed.into(), done);
    }

    /// The same for an item that has its head already: the number of spans in
    /// [`ITEM_HEAD`] bytes.
    pub(crate) fn append_framed(&self, framed: Bytes, done: Box<dyn FnOnce(Result<(), SpoolError>) + Send>) {
        let items = item_head(&framed).unwrap_or_default();
        let payload = framed.slice(ITEM_HEAD.min(framed.len())..);
        let state = Arc::clone(&self.state);
        let written = Box::new(move |result: Result<FrameRef, JournalError>| match result {
            Ok(frame) => {
                {
                    let mut state = lock(&state);
                    let bytes = payload.len() as u64;
                    state.newest_pending = frame.seq;
                    state.pending_bytes += bytes;
                    let keep = state.kept_bytes + bytes <= KEPT_BYTES;
                    state.kept_bytes += if keep { bytes } else { 0 };
                    let item = Item { frame, items, payload: keep.then_some(payload) };
                    state.pending.insert(frame.seq, item);
                }
                done(Ok(()));
            }
            Err(e) => done(Err(e.into())),
        });
        // Written here: for most items that costs less than waking a thread.
        if let Err(refused) = self.pending.append_here(PENDING, framed, written) {
            (refused.done)(Err(refused.error));
        }
    }

    /// Bytes that wait to be packed.
    pub fn pending_bytes(&self) -> u64 {
        lock(&self.state).pending_bytes
    }

    /// The oldest waiting items, up to `limit` bytes but at least one. They
    /// stay where they are until [`Spool::pack`]. One that cannot be read back
    /// is given up and counted.
    pub fn oldest(&self, limit: usize) -> Option<Pending> {
        loop {
            let chosen: Vec<(FrameRef, u64, Option<Bytes>)> = {
                let state = lock(&self.state);
                let mut size = 0;
                let fits = |item: &&Item| {
                    let first = size == 0;
                    size += item.bytes();
                    first || size <= limit as u64
                };
                state
                    .pending
                    .values()
                    .take_while(fits)
                    .map(|i| (i.frame, i.items, i.payload.clone()))
                    .collect()
            };
            let mut out = Pending { up_to: chosen.last()?.0.seq, ..Pending::default() };
            for (frame, items, payload) in chosen {
                let read =
                    || self.pending.read(frame).map(|framed| framed.slice(ITEM_HEAD.min(framed.len())..));
                match payload.map_or_else(read, Ok) {
                    Ok(payload) => {
                        out.items += items;
                        out.payloads.push(payload);
                    }
                    Err(e) => {
                        tracing::error!(
                            spans = items,
                            "spans that waited to be sent cannot be read back: {e}"
                        );
                        let mut state = lock(&self.state);
                        *state.dropped.entry("damaged_on_disk").or_default() += items;
                        if let Some(item) = state.pending.remove(&frame.seq) {
                            state.pending_bytes -= item.bytes();
                        }
                    }
                }
            }
            if !out.payloads.is_empty() {
                return Some(out);
            }
        }
    }

    /// Replaces items by the request that holds them. Blocks until it is on
    /// disk. On an error the items wait on.
    pub fn pack(&self, pending: &Pending, request: Request) -> Result<(), SpoolError> {
        self.enqueue(REQUEST, &request, pending.up_to)?;
        {
            let mut state = lock(&self.state);
            let later = state.pending.split_off(&(pending.up_to + 1));
            let packed = std::mem::replace(&mut state.pending, later);
            state.pending_bytes -= packed.values().map(Item::bytes).sum::<u64>();
            state.kept_bytes -= packed.values().filter(|i| i.payload.is_some()).map(Item::bytes).sum::<u64>();
        }
        let marker = Bytes::copy_from_slice(&pending.up_to.to_le_bytes());
        append(&self.pending, PACKED, marker, Box::new(|_| ()));
        self.release_pending()
    }

    /// Whole files go; a file that is only partly packed stays a while.
    fn release_pending(&self) -> Result<(), SpoolError> {
        let up_to = lock(&self.state).packed_up_to();
        Ok(self.pending.release(up_to)?)
    }

    /// Queues an urgent request that no waiting item belongs to. Blocks until
    /// it is on disk. Requests have growing numbers: one that was queued
    /// before, also before a restart, is not queued again. 0: not numbered.
    pub fn push(&self, number: u64, request: Request) -> Result<(), SpoolError> {
        if number > 0 && number <= self.numbered() {
            return Ok(());
        }
        self.enqueue(REQUEST, &Request { urgent: true, ..request }, number)
    }

    /// The highest number of a request that was queued; 0 if there is none.
    pub fn numbered(&self) -> u64 {
        lock(&self.state).numbered.0
    }

    /// `number`: of an urgent request its own, of another the last item or the
    /// strand in it.
    fn enqueue(&self, kind: u8, request: &Request, number: u64) -> Result<(), SpoolError> {
        let frame = encode_request(request, number);
        self.make_room(frame.len() as u64);
        let (tell, told) = mpsc::channel();
        append(&self.ready, kind, frame, Box::new(move |result| drop(tell.send(result))));
        // At once: by itself the journal waits for more to sync together, which
        // would let one request leave in that time. A refusal comes by `told`.
        drop(self.ready.sync(Box::new(|_| ())));
        let frame = told.recv().map_err(|_| SpoolError::Journal(JournalError::Closed))??;
        let mut state = lock(&self.state);
        state.bytes += u64::from(frame.len);
        let waiting = Waiting { frame, urgent: request.urgent, items: request.items, in_flight: false };
        state.requests.insert(frame.seq, waiting);
        state.newest = state.newest.max(frame.seq);
        if request.urgent {
            state.numbered = state.numbered.max((number, frame.seq));
        }
        Ok(())
    }

    /// Gives up the oldest requests (not urgent ones first) until `more` fits.
    fn make_room(&self, more: u64) {
        let mut gone = Vec::new();
        {
            let mut state = lock(&self.state);
            while state.bytes + more > self.config.max_bytes {
                let oldest = |urgent: bool, state: &State| {
                    state.requests.iter().find(|(_, w)| !w.in_flight && w.urgent == urgent).map(|(s, _)| *s)
                };
                let Some(seq) = oldest(false, &state).or_else(|| oldest(true, &state)) else { break };
                if let Some(w) = state.requests.remove(&seq) {
                    state.bytes -= u64::from(w.frame.len);
                    *state.dropped.entry("queue_full").or_default() += w.items;
                    let kind = state.kind(w.urgent);
                    kind.dropped += 1;
                    kind.dropped_bytes += u64::from(w.frame.len);
                    gone.push(seq);
                }
            }
        }
        for seq in gone {
            self.mark_done(seq);
        }
        self.release_ready();
    }

    /// The next request to send: urgent ones first, then the oldest. A request
    /// that cannot be read any more is given up and counted.
    pub fn claim(&self) -> Option<Claim> {
        loop {
            let (seq, frame) = {
                let mut state = lock(&self.state);
                let free =
                    |urgent: bool| move |(_, w): &(&u64, &mut Waiting)| !w.in_flight && w.urgent == urgent;
                let found = state.requests.iter_mut().find(free(true)).map(|(s, _)| *s);
                let found = found.or_else(|| state.requests.iter_mut().find(free(false)).map(|(s, _)| *s));
                let seq = found?;
                let w = state.requests.get_mut(&seq)?;
                w.in_flight = true;
                (seq, w.frame)
            };
            match self.ready.read(frame).ok().as_ref().and_then(decode_request) {
                Some((request, _)) => return Some(Claim { seq, request }),
                None => self.settle(seq, Tried::Rejected("damaged_on_disk")),
            }
        }
    }

    /// Says how a try ended.
    pub fn finish(&self, claim: Claim, tried: Tried) {
        self.settle(claim.seq, tried);
    }

    fn settle(&self, seq: u64, tried: Tried) {
        {
            let mut state = lock(&self.state);
            if tried == Tried::Again {
                self.retries.fetch_add(1, Relaxed);
                let Some(w) = state.requests.get_mut(&seq) else { return };
                w.in_flight = false;
                let urgent = w.urgent;
                state.kind(urgent).retries += 1;
                return;
            }
            let Some(w) = state.requests.remove(&seq) else { return };
            state.bytes -= u64::from(w.frame.len);
            match tried {
                Tried::Rejected(reason) => {
                    *state.dropped.entry(reason).or_default() += w.items;
                    state.kind(w.urgent).rejected += 1;
                }
                Tried::Sent | Tried::Again => {
                    let kind = state.kind(w.urgent);
                    kind.sent += 1;
                    kind.sent_bytes += u64::from(w.frame.len);
                    kind.sent_items += w.items;
                    self.sent_items.fetch_add(w.items, Relaxed);
                    self.sent_requests.fetch_add(1, Relaxed);
                }
            }
        }
        self.mark_done(seq);
        self.release_ready();
    }

    fn mark_done(&self, seq: u64) {
        append(&self.ready, DONE, Bytes::copy_from_slice(&seq.to_le_bytes()), Box::new(|_| ()));
    }

    fn release_ready(&self) {
        let many = self.ready.stats().files > 1;
        let (low, renew) = {
            let state = lock(&self.state);
            let low = state.requests.keys().next().map_or(state.newest, |s| s - 1);
            match state.numbered {
                (0, _) => (low, None),
                // It would go with its file: it is said once more first.
                (number, at) if at <= low => (at - 1, many.then_some(number)),
                _ => (low, None),
            }
        };
        if let Some(number) = renew {
            let state = Arc::clone(&self.state);
            let said = move |frame: Result<FrameRef, JournalError>| {
                if let Ok(frame) = frame {
                    let mut state = lock(&state);
                    state.numbered = state.numbered.max((number, frame.seq));
                }
            };
            append(&self.ready, NUMBER, Bytes::copy_from_slice(&number.to_le_bytes()), Box::new(said));
        }
        if let Err(e) = self.ready.release(low) {
            tracing::warn!("a file of the queue on disk cannot be removed: {e}");
        }
    }

    /// Figures.
    pub fn stats(&self) -> SpoolStats {
        let state = lock(&self.state);
        SpoolStats {
            requests: state.requests.len() as u64,
            bytes: state.bytes,
            pending_items: state.pending.values().map(|i| i.items).sum::<u64>()
                + state.strands.values().map(parts::Strand::items).sum::<u64>(),
            sent_items: self.sent_items.load(Relaxed),
            sent_requests: self.sent_requests.load(Relaxed),
            retries: self.retries.load(Relaxed),
            dropped: state.dropped.clone(),
            kinds: state.kinds,
        }
    }

    /// Syncs and closes both logs; what waits is there at the next start.
    pub fn close(&self) {
        self.pending.close();
        self.ready.close();
    }
}

/// Spans of an item, from the head of its frame.
fn item_head(framed: &[u8]) -> Option<u64> {
    framed.first_chunk::<ITEM_HEAD>().map(|head| u64::from_le_bytes(*head))
}

/// `number u64 | items u64 | urgent u8 | head length u32 | head | body`; the head
/// is text: the path, then `name: value` lines.
fn encode_request(request: &Request, number: u64) -> Bytes {
    let mut head = request.path.clone();
    for (name, value) in &request.headers {
        head.push('\n');
        head.push_str(name);
        head.push_str(": ");
        head.push_str(value);
    }
    let mut out = Vec::with_capacity(21 + head.len() + request.body.len());
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&request.items.to_le_bytes());
    out.push(u8::from(request.urgent));
    out.extend_from_slice(&(head.len() as u32).to_le_bytes());
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(&request.body);
    out.into()
}

fn decode_request(frame: &Bytes) -> Option<(Request, u64)> {
    let word = |at: usize| Some(u64::from_le_bytes(frame.get(at..at + 8)?.try_into().ok()?));
    let number = word(0)?;
    let items = word(8)?;
    let urgent = *frame.get(16)? != 0;
    let len = u32::from_le_bytes(frame.get(17..21)?.try_into().ok()?) as usize;
    let head = std::str::from_utf8(frame.get(21..21usize.checked_add(len)?)?).ok()?;
    let mut lines = head.split('\n');
    let path = lines.next()?.to_owned();
    let headers =
        lines.filter_map(|l| l.split_once(": ")).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    Some((Request { urgent, path, headers, items, body: frame.slice(21 + len..) }, number))
}
