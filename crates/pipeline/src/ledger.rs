//! The ledger: what became of every span that came in.
//!
//! `received = kept + sampled out + filtered + rejected + refused + lost +
//! duplicate + in flight`, in spans and in chunks ("traces", as the Datadog
//! Agent counts them), by protocol, and each loss by reason. It adds up by
//! construction: spans are counted as received by opening an [`Account`], and
//! an account ends under exactly one outcome per chunk, in `Drop` at the
//! latest.
//!
//! Bodies that never became spans (refused before decoding, undecodable) are
//! counted as payloads with the number of traces that the client claimed.

use crate::fanout::leaving;
use crate::snapshot::{NoteCount, OutcomeCount, PayloadCount, ReceivedCount, Snapshot, SourceCount};
use crate::tables::{Names, ROWS, Table};
use spanloom_model::{Batch, Chunk, Fate, Protocol};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// What became of spans.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Outcome {
    /// A destination has it.
    Kept,
    /// No destination takes it because a sampler said no; reason: the sampler.
    SampledOut,
    /// A rule of the user removed it.
    Filtered,
    /// It was not a valid trace.
    Rejected,
    /// It was not taken, and the client was told so in the way it asked for.
    Refused,
    /// It was taken and is gone.
    Lost,
    /// It had been stored before: a client sent the same bytes again.
    Duplicate,
}

impl Outcome {
    /// All outcomes, in the order of the enum.
    pub const ALL: [Self; 7] = [
        Self::Kept,
        Self::SampledOut,
        Self::Filtered,
        Self::Rejected,
        Self::Refused,
        Self::Lost,
        Self::Duplicate,
    ];

    /// Label in metrics and status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::SampledOut => "sampled_out",
            Self::Filtered => "filtered",
            Self::Rejected => "rejected",
            Self::Refused => "refused",
            Self::Lost => "lost",
            Self::Duplicate => "duplicate",
        }
    }
}

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum PayloadOutcome {
    /// Its spans went into the pipeline and were acknowledged.
    Accepted,
    /// It could not be read or decoded.
    Rejected,
    /// There was no room for it, or no acknowledgement in time.
    Refused,
}

impl PayloadOutcome {
    /// Label in metrics and status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Refused => "refused",
        }
    }
}

/// How a batch ended, for the chunks whose fate is [`Fate::Kept`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// A destination has acknowledged it. `unsampled`: one that also takes
    /// what the samplers did not choose.
    Delivered {
        /// Whether chunks that the samplers did not choose were delivered too.
        unsampled: bool,
    },
    /// Not taken.
    Refused(&'static str),
    /// Taken and gone.
    Lost(&'static str),
}

/// Hears of every batch that ends, chunk by chunk what became of it (`why`).
pub trait Recorder: Send + Sync {
    /// The batch ended: each chunk by its own fate, those that were kept by
    /// the verdict. Called once, in the thread that settles; must not wait.
    fn settled(&self, batch: &Batch, verdict: Verdict);
}

/// Different (outcome, reason) pairs kept apart.
const REASONS: usize = 96;
/// Services, and clients, kept apart.
const SOURCES: usize = 1024;
/// Outcomes, as the index of a source's numbers.
pub(crate) const OUTCOMES: usize = Outcome::ALL.len();

/// Counts everything. Shared; no locks on the way of a batch.
pub struct Ledger {
    /// Spans, chunks, bytes, payloads by protocol.
    received: [[AtomicU64; 4]; ROWS],
    /// Spans, chunks.
    outcomes: Table<(Outcome, &'static str), 2>,
    /// Payloads, claimed traces, bytes.
    payloads: Table<(PayloadOutcome, &'static str), 3>,
    /// Other events, counted by (event, reason).
    notes: Table<(&'static str, &'static str), 1>,
    services: Names<OUTCOMES>,
    clients: Names<OUTCOMES>,
    recorder: OnceLock<Arc<dyn Recorder>>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            received: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            outcomes: Table::new(REASONS, (Outcome::Lost, "other")),
            payloads: Table::new(REASONS, (PayloadOutcome::Refused, "other")),
            notes: Table::new(REASONS, ("other", "")),
            services: Names::new(SOURCES),
            clients: Names::new(SOURCES),
            recorder: OnceLock::new(),
        }
    }
}

impl Ledger {
    /// Lets a recorder hear of every batch from now on. The first one stays;
    /// whether it was this one is returned.
    pub fn record_to(&self, recorder: Arc<dyn Recorder>) -> bool {
        self.recorder.set(recorder).is_ok()
    }

    /// Counts a batch as received and opens its account.
    pub fn open(self: &Arc<Self>, batch: &Batch) -> Account {
        let account = Account {
            ledger: Arc::clone(self),
            protocol: batch.intake.protocol,
            spans: batch.spans.len() as u64,
            chunks: batch.chunks.len() as u64,
            if_dropped: Verdict::Lost("abandoned"),
            open: true,
        };
        self.count_received(account.protocol, [account.spans, account.chunks, 0, 0]);
        account
    }

    /// Counts what became of a request. `traces` is what the client claimed
    /// to send (0 if it did not say), `bytes` what was read of it.
    pub fn payload(
        &self,
        protocol: Protocol,
        outcome: PayloadOutcome,
        reason: &'static str,
        traces: u64,
        bytes: u64,
    ) {
        self.count_received(protocol, [0, 0, bytes, 1]);
        self.payloads.add((outcome, reason), row(protocol), [1, traces, bytes]);
    }

    /// Counts requests of which nothing was seen but their number: datagrams
    /// that the system dropped.
    pub fn unseen(&self, protocol: Protocol, reason: &'static str, requests: u64) {
        self.count_received(protocol, [0, 0, 0, requests]);
        self.payloads.add((PayloadOutcome::Refused, reason), row(protocol), [requests, 0, 0]);
    }

    /// Counts spans that a decoder left out of a request, as received and
    /// rejected.
    pub fn rejected(&self, protocol: Protocol, reason: &'static str, spans: u64) {
        self.count_received(protocol, [spans, 0, 0, 0]);
        self.outcomes.add((Outcome::Rejected, reason), row(protocol), [spans, 0]);
    }

    /// Counts an event that is no loss (`spans_malformed`, `service_empty`).
    pub fn note(&self, event: &'static str, reason: &'static str, n: u64) {
        self.notes.add((event, reason), 0, [n]);
    }

    /// Moves spans that a store had already from kept to duplicate. The store
    /// finds out after it has acknowledged.
    pub fn duplicates(&self, protocol: Protocol, spans: u64, chunks: u64) {
        self.outcomes.add((Outcome::Duplicate, ""), row(protocol), [spans, chunks]);
    }

    /// Moves spans that no store has from kept to sampled out (`tail_rules`):
    /// they had been acknowledged and waited for the verdict on their trace.
    pub fn dropped_later(&self, protocol: Protocol, spans: u64, chunks: u64) {
        self.outcomes.add(DROPPED_LATER, row(protocol), [spans, chunks]);
    }

    fn count_received(&self, protocol: Protocol, numbers: [u64; 4]) {
        let Some(cells) = self.received.get(row(protocol)) else { return };
        for (cell, n) in cells.iter().zip(numbers) {
            if n > 0 {
                cell.fetch_add(n, Relaxed);
            }
        }
    }

    /// Everything counted so far. Outcomes are read before receipts, so what
    /// is in flight is never negative.
    pub fn snapshot(&self) -> Snapshot {
        let mut outcomes: Vec<OutcomeCount> = self
            .outcomes
            .read()
            .into_iter()
            .map(|((outcome, reason), row, [spans, traces])| OutcomeCount {
                outcome,
                reason,
                protocol: protocol(row),
                spans,
                traces,
            })
            .collect();
        move_from_kept(&mut outcomes);
        outcomes.sort_by_key(|c| (c.outcome, c.reason, c.protocol));
        let mut payloads: Vec<PayloadCount> = self
            .payloads
            .read()
            .into_iter()
            .map(|((outcome, reason), row, [payloads, traces, bytes])| PayloadCount {
                outcome,
                reason,
                protocol: protocol(row),
                payloads,
                traces,
                bytes,
            })
            .collect();
        payloads.sort_by_key(|c| (c.outcome, c.reason, c.protocol));
        let mut notes: Vec<NoteCount> = self
            .notes
            .read()
            .into_iter()
            .map(|((event, reason), _, [count])| NoteCount { event, reason, count })
            .collect();
        notes.sort_by_key(|n| (n.event, n.reason));
        let source = |(name, spans)| SourceCount { name, spans };
        let received = self
            .received
            .iter()
            .enumerate()
            .map(|(row, cells)| {
                let n = cells.each_ref().map(|c| c.load(Relaxed));
                ReceivedCount {
                    protocol: protocol(row),
                    spans: n[0],
                    traces: n[1],
                    bytes: n[2],
                    payloads: n[3],
                }
            })
            .filter(|r| r.payloads + r.spans + r.traces > 0)
            .collect();
        Snapshot {
            received,
            outcomes,
            payloads,
            notes,
            services: self.services.read().into_iter().map(source).collect(),
            clients: self.clients.read().into_iter().map(source).collect(),
        }
    }
}

/// What was settled as kept and turned out otherwise: duplicates are not kept
/// twice, and what tail rules dropped is not kept.
fn move_from_kept(outcomes: &mut [OutcomeCount]) {
    for i in 0..outcomes.len() {
        let moved = outcomes[i];
        if moved.outcome != Outcome::Duplicate && (moved.outcome, moved.reason) != DROPPED_LATER {
            continue;
        }
        for kept in outcomes.iter_mut() {
            if kept.outcome == Outcome::Kept && kept.protocol == moved.protocol {
                kept.spans = kept.spans.saturating_sub(moved.spans);
                kept.traces = kept.traces.saturating_sub(moved.traces);
            }
        }
    }
}

/// What tail rules dropped after it had been settled as kept.
const DROPPED_LATER: (Outcome, &str) = (Outcome::SampledOut, "tail_rules");

const fn row(protocol: Protocol) -> usize {
    protocol as usize
}

fn protocol(row: usize) -> Protocol {
    Protocol::ALL.get(row).copied().unwrap_or_default()
}

/// Spans of one batch that have been received and not yet ended. Whatever
/// drops it unsettled, its spans are counted under [`Account::if_dropped`].
pub struct Account {
    ledger: Arc<Ledger>,
    protocol: Protocol,
    spans: u64,
    chunks: u64,
    if_dropped: Verdict,
    open: bool,
}

impl Account {
    /// Says under what the spans end if the account is dropped unsettled
    /// (at first: lost, `abandoned`).
    pub fn if_dropped(&mut self, verdict: Verdict) {
        self.if_dropped = verdict;
    }

    /// Spans received.
    pub fn spans(&self) -> u64 {
        self.spans
    }

    /// Ends the account: each chunk by its own fate, those that were kept by
    /// the verdict. Of a chunk of which the samplers let single spans leave,
    /// the chunk counts as sampled out.
    pub fn settle(mut self, batch: &Batch, verdict: Verdict) {
        self.open = false;
        if let Some(recorder) = self.ledger.recorder.get() {
            recorder.settled(batch, verdict);
        }
        let (mut spans, mut chunks) = (0, 0);
        // Chunks of a batch mostly share fate and source: count runs.
        let mut run = Run::default();
        for chunk in &batch.chunks {
            let n = chunk.spans.len() as u64;
            spans += n;
            chunks += 1;
            let source = (chunk.resource, service_of(batch, chunk));
            let left = match verdict {
                Verdict::Delivered { unsampled: false } if chunk.fate == Fate::Kept => leaving(batch, chunk),
                _ => n,
            };
            let whole = left == n;
            if left > 0 || whole {
                run.add(&self, batch, (outcome_of(chunk.fate, verdict), source), [left, u64::from(whole)]);
            }
            if !whole {
                let out = (Outcome::SampledOut, chunk.sampled.by);
                run.add(&self, batch, (out, source), [n - left, 1]);
            }
        }
        run.flush(&self, batch);
        // Spans that a processor took out of their chunks, chunks it removed:
        // it should have said so by the chunk's fate.
        let (spans_gone, chunks_gone) =
            (self.spans.saturating_sub(spans), self.chunks.saturating_sub(chunks));
        self.rest(Verdict::Lost("unaccounted"), spans_gone, chunks_gone);
        // Spans that a processor added count as received by it.
        let more = [spans.saturating_sub(self.spans), chunks.saturating_sub(self.chunks), 0, 0];
        self.ledger.count_received(self.protocol, more);
    }

    fn rest(&self, verdict: Verdict, spans: u64, chunks: u64) {
        if spans + chunks > 0 {
            let key = outcome_of(Fate::Kept, verdict);
            self.ledger.outcomes.add(key, row(self.protocol), [spans, chunks]);
            self.ledger.services.add("", key.0 as usize, spans);
            self.ledger.clients.add("", key.0 as usize, spans);
        }
    }
}

type Key<'a> = ((Outcome, &'static str), (u32, &'a str));

/// Counts that belong together and have not been written yet.
#[derive(Default)]
struct Run<'a> {
    key: Option<Key<'a>>,
    numbers: [u64; 2],
}

impl<'a> Run<'a> {
    fn add(&mut self, account: &Account, batch: &'a Batch, key: Key<'a>, [spans, chunks]: [u64; 2]) {
        if self.key != Some(key) {
            self.flush(account, batch);
            self.key = Some(key);
        }
        self.numbers[0] += spans;
        self.numbers[1] += chunks;
    }

    fn flush(&mut self, account: &Account, batch: &Batch) {
        let numbers = std::mem::take(&mut self.numbers);
        let Some(((outcome, reason), (resource, service))) = self.key.take() else { return };
        let ledger = &account.ledger;
        ledger.outcomes.add((outcome, reason), row(account.protocol), numbers);
        ledger.services.add(service, outcome as usize, numbers[0]);
        let client = batch.resources.get(resource as usize).map_or("", |r| batch.str(r.language_name));
        ledger.clients.add(client, outcome as usize, numbers[0]);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if self.open {
            self.rest(self.if_dropped, self.spans, self.chunks);
        }
    }
}

fn service_of<'a>(batch: &'a Batch, chunk: &Chunk) -> &'a str {
    batch.chunk_spans(chunk).first().map_or("", |s| batch.str(s.service))
}

fn outcome_of(fate: Fate, verdict: Verdict) -> (Outcome, &'static str) {
    match (fate, verdict) {
        (Fate::Filtered(reason), _) => (Outcome::Filtered, reason),
        (Fate::Rejected(reason), _) => (Outcome::Rejected, reason),
        (Fate::Kept, Verdict::Refused(reason)) => (Outcome::Refused, reason),
        (Fate::Kept, Verdict::Lost(reason)) => (Outcome::Lost, reason),
        (Fate::Kept, Verdict::Delivered { .. }) => (Outcome::Kept, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spanloom_model::{Leaves, Range32, Sampled, Span, flags};

    fn batch(fates: &[Fate]) -> Batch {
        let mut b = Batch::default();
        for (i, fate) in fates.iter().enumerate() {
            let service = b.arena.push(if i % 2 == 0 { "web" } else { "db" });
            b.spans.extend([Span { service, ..Span::default() }; 2]);
            b.chunks.push(Chunk { spans: Range32::new(2 * i, 2 * i + 2), fate: *fate, ..Chunk::default() });
        }
        b
    }

    fn spans(s: &Snapshot, outcome: Outcome, reason: &str) -> u64 {
        s.outcomes.iter().filter(|c| c.outcome == outcome && c.reason == reason).map(|c| c.spans).sum()
    }

    #[test]
    fn each_chunk_ends_by_its_own_fate() {
        let ledger = Arc::new(Ledger::default());
        let mut b = batch(&[Fate::Kept, Fate::Filtered("tag"), Fate::Rejected("foreign_span"), Fate::Kept]);
        b.chunks[3].sampled = Sampled { leaves: Leaves::Marked, by: "priority", ..Sampled::default() };
        b.spans[7].flags |= flags::LEAVES;
        let account = ledger.open(&b);
        assert_eq!(ledger.snapshot().in_flight(), 8);
        account.settle(&b, Verdict::Delivered { unsampled: false });
        let s = ledger.snapshot();
        assert_eq!(spans(&s, Outcome::Kept, ""), 3);
        assert_eq!(spans(&s, Outcome::Filtered, "tag"), 2);
        assert_eq!(spans(&s, Outcome::Rejected, "foreign_span"), 2);
        assert_eq!(spans(&s, Outcome::SampledOut, "priority"), 1);
        assert!(s.adds_up());
        let web = s.services.iter().find(|c| c.name == "web").unwrap();
        assert_eq!((web.of(Outcome::Kept), web.of(Outcome::Rejected)), (2, 2));
    }

    #[test]
    fn what_is_dropped_or_taken_away_is_lost_and_counted() {
        let ledger = Arc::new(Ledger::default());
        let mut b = batch(&[Fate::Kept, Fate::Kept]);
        drop(ledger.open(&b));
        let mut account = ledger.open(&b);
        account.if_dropped(Verdict::Refused("client_gone"));
        drop(account);
        let account = ledger.open(&b);
        b.chunks.pop();
        account.settle(&b, Verdict::Lost("panic"));
        let s = ledger.snapshot();
        assert_eq!(spans(&s, Outcome::Lost, "abandoned"), 4);
        assert_eq!(spans(&s, Outcome::Refused, "client_gone"), 4);
        assert_eq!(spans(&s, Outcome::Lost, "unaccounted"), 2);
        assert_eq!(spans(&s, Outcome::Lost, "panic"), 2);
        assert_eq!(s.in_flight(), 0);
    }

    #[test]
    fn a_recorder_hears_every_end_once() {
        #[derive(Default)]
        struct Heard(std::sync::Mutex<Vec<(usize, Verdict)>>);
        impl Recorder for Heard {
            fn settled(&self, batch: &Batch, verdict: Verdict) {
                self.0.lock().unwrap().push((batch.chunks.len(), verdict));
            }
        }
        let ledger = Arc::new(Ledger::default());
        let heard = Arc::new(Heard::default());
        assert!(ledger.record_to(Arc::clone(&heard) as _));
        assert!(!ledger.record_to(Arc::new(Heard::default())));
        let b = batch(&[Fate::Kept, Fate::Filtered("tag")]);
        ledger.open(&b).settle(&b, Verdict::Refused("queue_full"));
        assert_eq!(*heard.0.lock().unwrap(), [(2, Verdict::Refused("queue_full"))]);
    }

    #[test]
    fn spans_left_out_by_a_decoder_are_received_and_rejected() {
        let ledger = Arc::new(Ledger::default());
        ledger.rejected(Protocol::OtlpGrpc, "invalid_id", 3);
        let s = ledger.snapshot();
        assert_eq!((spans(&s, Outcome::Rejected, "invalid_id"), s.received_spans()), (3, 3));
        assert!(s.adds_up());
    }

    #[test]
    fn what_tail_rules_drop_moves_from_kept_to_sampled_out() {
        let ledger = Arc::new(Ledger::default());
        let b = batch(&[Fate::Kept, Fate::Kept]);
        ledger.open(&b).settle(&b, Verdict::Delivered { unsampled: false });
        ledger.dropped_later(b.intake.protocol, 2, 1);
        let s = ledger.snapshot();
        assert_eq!(spans(&s, Outcome::Kept, ""), 2);
        assert_eq!(spans(&s, Outcome::SampledOut, "tail_rules"), 2);
        assert!(s.adds_up());
    }

    #[test]
    fn duplicates_move_from_kept() {
        let ledger = Arc::new(Ledger::default());
        let b = batch(&[Fate::Kept, Fate::Kept]);
        ledger.open(&b).settle(&b, Verdict::Delivered { unsampled: true });
        ledger.duplicates(b.intake.protocol, 3, 1);
        let s = ledger.snapshot();
        assert_eq!(spans(&s, Outcome::Kept, ""), 1);
        assert_eq!(spans(&s, Outcome::Duplicate, ""), 3);
        assert_eq!(s.in_flight(), 0);
    }
}
