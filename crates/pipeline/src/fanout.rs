//! One batch to the store and to any number of exporters. The batch is over
//! when all of them have acknowledged it, and when what processors hold beside
//! it is safe; then the client is answered and the bytes are given back.

use crate::admission::Permit;
use crate::engine::{Accepted, Job, Refused};
use crate::ledger::{Account, Verdict};
use crate::processor::{SaveFn, Saved};
use spanloom_model::{
    AckFn, Batch, Chunk, Fate, Leaves, Protocol, ROUTE_DEFAULT, ROUTE_NOWHERE, SpanWriter, StoreError, flags,
};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::oneshot;

/// Sends spans to another system, through a bounded queue of its own.
pub trait Exporter: Send + Sync {
    /// Takes the batch. Returns quickly; `done` is called exactly once, when
    /// the batch is as safe as the acknowledgement policy asks, or why it is
    /// not taken. Chunks whose fate is not [`Fate::Kept`] are not for it, nor
    /// those of another [`Chunk::route`].
    fn export(&self, batch: Arc<Batch>, done: AckFn);

    /// The same for several, in this order; for exporters that do it cheaper
    /// at once.
    fn export_all(&self, batches: Vec<(Arc<Batch>, AckFn)>) {
        batches.into_iter().for_each(|(batch, done)| self.export(batch, done));
    }
}

/// A batch that processors are done with, and what they want made safe.
pub(crate) struct Processed {
    pub job: Job,
    pub saves: Vec<SaveFn>,
}

/// Which of the kept chunks a destination takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// All.
    All,
    /// Those that no policy selects, sampled or not.
    Unrouted,
    /// Of those, what the samplers let leave.
    Sampled,
    /// Those that a policy sends to a backend.
    Routed,
}

enum Target {
    Store(Arc<dyn SpanWriter>),
    Exporter(Arc<dyn Exporter>),
}

/// Somewhere batches go.
pub struct Destination {
    name: String,
    takes: Takes,
    target: Target,
    delivered: AtomicU64,
    failed: AtomicU64,
}

/// Spans that a destination has acknowledged or not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeliveryCount {
    /// Name of the destination.
    pub destination: String,
    /// Spans acknowledged.
    pub delivered: u64,
    /// Spans not taken.
    pub failed: u64,
}

impl Destination {
    /// A store: takes all spans, sampled or not.
    pub fn store(name: &str, writer: Arc<dyn SpanWriter>) -> Self {
        Self::new(name, Takes::All, Target::Store(writer))
    }

    /// An exporter, for chunks that no policy selects. `unsampled`: it also
    /// takes chunks that the samplers did not choose.
    pub fn exporter(name: &str, exporter: Arc<dyn Exporter>, unsampled: bool) -> Self {
        let takes = if unsampled { Takes::Unrouted } else { Takes::Sampled };
        Self::new(name, takes, Target::Exporter(exporter))
    }

    /// The exporter of the chunks that policies send to backends.
    pub fn router(name: &str, exporter: Arc<dyn Exporter>) -> Self {
        Self::new(name, Takes::Routed, Target::Exporter(exporter))
    }

    fn new(name: &str, takes: Takes, target: Target) -> Self {
        Self { name: name.into(), takes, target, delivered: AtomicU64::new(0), failed: AtomicU64::new(0) }
    }

    fn unsampled(&self) -> bool {
        matches!(self.takes, Takes::All | Takes::Unrouted)
    }

    /// What it has taken so far.
    pub fn count(&self) -> DeliveryCount {
        DeliveryCount {
            destination: self.name.clone(),
            delivered: self.delivered.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }

    /// Spans of the batch that are meant for it.
    fn spans(&self, batch: &Batch) -> u64 {
        let kept = batch.chunks.iter().filter(|c| c.fate == Fate::Kept);
        kept.map(|c| match (self.takes, c.route) {
            (Takes::All, _) | (Takes::Unrouted, ROUTE_DEFAULT) => c.spans.len() as u64,
            (Takes::Sampled, ROUTE_DEFAULT) => leaving(batch, c),
            (Takes::Routed, ROUTE_DEFAULT | ROUTE_NOWHERE) => 0,
            (Takes::Routed, _) => c.spans.len() as u64,
            (Takes::Unrouted | Takes::Sampled, _) => 0,
        })
        .sum()
    }
}

impl Destination {
    /// Whether the batch is for it even if none of its spans is: the Agent
    /// sends what a v1.0 payload says of its sender also without chunks.
    fn takes_heads(&self, batch: &Batch) -> bool {
        self.takes == Takes::Sampled
            && batch.intake.protocol == Protocol::DatadogV1
            && !batch.intake.resent
            && !batch.chunks.is_empty()
    }
}

/// Spans of a chunk that leave: by a policy if one selects it, else by the
/// samplers.
pub(crate) fn leaving(batch: &Batch, chunk: &Chunk) -> u64 {
    match chunk.route {
        ROUTE_DEFAULT => {}
        ROUTE_NOWHERE => return 0,
        _ => return chunk.spans.len() as u64,
    }
    match chunk.sampled.leaves {
        Leaves::Whole => chunk.spans.len() as u64,
        Leaves::Marked => {
            batch.chunk_spans(chunk).iter().filter(|s| s.flags & flags::LEAVES != 0).count() as u64
        }
        Leaves::Nothing => 0,
    }
}

/// A batch on its way to the destinations, with everything that is held for it.
pub(crate) struct Delivery {
    held: Mutex<Option<Held>>,
    remaining: AtomicUsize,
    /// What the destinations said: any success, any that takes unsampled
    /// chunks, the first refusal.
    verdict: Mutex<Said>,
    id: u64,
    registry: Weak<Registry>,
}

struct Held {
    batch: Arc<Batch>,
    account: Account,
    answer: oneshot::Sender<Result<Accepted, Refused>>,
    permit: Permit,
}

#[derive(Default)]
struct Said {
    delivered: bool,
    unsampled: bool,
    refused: Option<StoreError>,
}

/// Deliveries that wait for acknowledgements.
#[derive(Default)]
pub(crate) struct Registry {
    next: AtomicU64,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    deliveries: HashMap<u64, Arc<Delivery>, foldhash::fast::RandomState>,
    /// Why nothing waits any more.
    aborted: Option<&'static str>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().deliveries.len()
    }

    /// Ends all deliveries that still wait, and those to come.
    pub(crate) fn abort(&self, reason: &'static str) -> u64 {
        let open = {
            let mut open = self.lock();
            open.aborted = Some(reason);
            std::mem::take(&mut open.deliveries)
        };
        open.into_values().map(|d| d.abort(reason)).sum()
    }

    /// Whether the delivery may go on.
    fn enter(&self, delivery: &Arc<Delivery>) -> bool {
        let aborted = {
            let mut open = self.lock();
            if open.aborted.is_none() {
                open.deliveries.insert(delivery.id, Arc::clone(delivery));
            }
            open.aborted
        };
        aborted.is_none_or(|reason| {
            delivery.abort(reason);
            false
        })
    }

    fn leave(&self, id: u64) {
        self.lock().deliveries.remove(&id);
    }
}

/// Sends processed batches to all destinations.
pub(crate) fn deliver(
    registry: &Arc<Registry>,
    destinations: &Arc<[Destination]>,
    processed: Vec<Processed>,
) {
    let mut parts: Vec<Vec<(Arc<Batch>, AckFn)>> = destinations.iter().map(|_| Vec::new()).collect();
    for Processed { job, saves } in processed {
        begin(registry, destinations, job, saves, &mut parts);
    }
    for (destination, parts) in destinations.iter().zip(parts) {
        if parts.is_empty() {
            continue;
        }
        match &destination.target {
            Target::Store(writer) => {
                parts.into_iter().for_each(|(batch, done)| writer.append(batch, done));
            }
            Target::Exporter(exporter) => exporter.export_all(parts),
        }
    }
}

/// Begins a delivery: what each destination is to get of it goes to `parts`.
fn begin(
    registry: &Arc<Registry>,
    destinations: &Arc<[Destination]>,
    job: Job,
    saves: Vec<SaveFn>,
    parts: &mut [Vec<(Arc<Batch>, AckFn)>],
) {
    let Job { batch, account, permit, answer } = job;
    let batch = Arc::new(batch);
    let wanted: Vec<(usize, u64)> = destinations
        .iter()
        .enumerate()
        .map(|(i, d)| (i, d.spans(&batch)))
        .filter(|(i, n)| *n > 0 || destinations[*i].takes_heads(&batch))
        .collect();
    let id = registry.next.fetch_add(1, Ordering::Relaxed);
    let delivery = Arc::new(Delivery {
        held: Mutex::new(Some(Held { batch: Arc::clone(&batch), account, answer, permit })),
        remaining: AtomicUsize::new(wanted.len() + saves.len()),
        verdict: Mutex::new(Said::default()),
        id,
        registry: Arc::downgrade(registry),
    });
    if wanted.is_empty() {
        // Nothing left to deliver: filtered, sampled out, or no destination.
        let unsampled = destinations.is_empty();
        delivery.said().delivered = true;
        delivery.said().unsampled = unsampled;
        if saves.is_empty() {
            delivery.finish();
            return;
        }
    }
    if !registry.enter(&delivery) {
        return;
    }
    for save in saves {
        let delivery = Arc::clone(&delivery);
        save(Saved::new(move || delivery.one_less()));
    }
    for (index, spans) in wanted {
        let mut branch = Branch {
            delivery: Arc::clone(&delivery),
            destinations: Arc::clone(destinations),
            index,
            spans,
            over: false,
        };
        parts[index].push((Arc::clone(&batch), Box::new(move |result| branch.end(result))));
    }
}

/// One destination's part of a delivery. Dropped without an acknowledgement
/// (its thread died), it counts as closed.
struct Branch {
    delivery: Arc<Delivery>,
    destinations: Arc<[Destination]>,
    index: usize,
    spans: u64,
    over: bool,
}

impl Branch {
    fn end(&mut self, result: Result<(), StoreError>) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        if let Some(d) = self.destinations.get(self.index) {
            let mut said = self.delivery.said();
            match result {
                Ok(()) => {
                    d.delivered.fetch_add(self.spans, Ordering::Relaxed);
                    said.delivered = true;
                    said.unsampled |= d.unsampled();
                }
                Err(error) => {
                    d.failed.fetch_add(self.spans, Ordering::Relaxed);
                    said.refused.get_or_insert(error);
                }
            }
        }
        self.delivery.one_less();
    }
}

impl Drop for Branch {
    fn drop(&mut self) {
        self.end(Err(StoreError::Closed));
    }
}

impl Delivery {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// One of those that are waited for is over.
    fn one_less(&self) {
        if self.remaining.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.finish();
        }
    }

    fn finish(&self) {
        if let Some(registry) = self.registry.upgrade() {
            registry.leave(self.id);
        }
        let Some(held) = self.take() else { return };
        let said = std::mem::take(&mut *self.said());
        // One destination that has it is enough to call it kept; the failure
        // of another one is that one's to count and to report. A refusal by
        // all goes back to the client, who may send again.
        let (verdict, answer) = match said.refused {
            Some(error) if !said.delivered => {
                let reason = refusal_reason(&error);
                (Verdict::Refused(reason), Err(Refused::NotTaken { reason }))
            }
            _ => {
                let spans = held.account.spans();
                (Verdict::Delivered { unsampled: said.unsampled }, Ok(Accepted { spans }))
            }
        };
        held.account.settle(&held.batch, verdict);
        drop(held.batch);
        drop(held.permit);
        // A client that has gone is not told.
        let _ = held.answer.send(answer);
    }

    fn abort(&self, reason: &'static str) -> u64 {
        let Some(held) = self.take() else { return 0 };
        let spans = held.account.spans();
        held.account.settle(&held.batch, Verdict::Lost(reason));
        let _ = held.answer.send(Err(Refused::Closing));
        spans
    }
}

fn refusal_reason(error: &StoreError) -> &'static str {
    match error {
        StoreError::Busy(_) => "store_busy",
        StoreError::Write(_) => "store_write_error",
        StoreError::Closed => "store_closed",
        StoreError::Read(_) | StoreError::TooLarge(_) => "store_error",
    }
}
