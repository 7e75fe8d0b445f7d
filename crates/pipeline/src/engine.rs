//! The engine: workers between the queue and the destinations.

use crate::admission::{Budget, Busy, Permit};
use crate::clock::Clock;
use crate::fanout::{DeliveryCount, Destination, Registry};
use crate::gather::Gathering;
use crate::lane::{ChainFactory, Lane};
use crate::ledger::{Account, Ledger, Verdict};
use crate::queue::{PushError, Queue};
use crate::rates::Rates;
use crate::stats_sink::StatsSink;
use spanloom_model::Batch;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};

/// Settings of the pipeline.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes that may be held between sockets and acknowledgements
    /// (`SPANLOOM_INTAKE_MEMORY`). At least the largest body.
    pub budget: u64,
    /// Worker threads; 0: one per usable core.
    pub workers: usize,
    /// Batches of up to so many spans are worked on where they are submitted,
    /// if they need not wait: a change of threads costs as much as they do. 0:
    /// all go to the workers.
    pub here: usize,
    /// Batches that may wait for a worker.
    pub queue: usize,
    /// How long a submission may wait for a place in the queue.
    pub queue_wait: Duration,
    /// How long a submission may take in all, from the queue to its last
    /// acknowledgement.
    pub ack_wait: Duration,
}

impl Default for Config {
    /// 64 MiB; a worker per core; 64 spans, about a tenth of a millisecond;
    /// 1,024 batches; waits below the 2 s after which the most impatient
    /// tracers send again.
    fn default() -> Self {
        Self {
            budget: 64 << 20,
            workers: 0,
            here: 64,
            queue: 1024,
            queue_wait: Duration::from_millis(500),
            ack_wait: Duration::from_millis(1400),
        }
    }
}

/// All destinations have the batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// Spans it had.
    pub spans: u64,
}

/// A batch was not acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// There was no room in time; the same request may succeed later.
    #[error("the pipeline is busy")]
    Busy,
    /// No destination took it.
    #[error("the spans were not taken: {reason}")]
    NotTaken {
        /// Reason in the ledger.
        reason: &'static str,
    },
    /// It was taken, but not acknowledged in time; it may still be kept. A
    /// client that sends it again is recognised by the store.
    #[error("not acknowledged in time")]
    Timeout,
    /// A defect: the worker gave up on it.
    #[error("internal error")]
    Failed,
    /// The program is shutting down.
    #[error("shutting down")]
    Closing,
}

type Answer = oneshot::Sender<Result<Accepted, Refused>>;

/// A batch and what is held for it.
pub(crate) struct Job {
    pub batch: Batch,
    pub account: Account,
    pub permit: Permit,
    pub answer: Answer,
}

/// A body that the worker who takes it makes a batch of.
pub(crate) struct Undecoded {
    /// `None`: there is nothing to work on.
    pub decode: Box<dyn FnOnce() -> Option<(Batch, Permit)> + Send>,
    pub answer: Answer,
}

/// What waits for a worker.
pub(crate) enum Waiting {
    Batch(Box<Job>),
    Body(Undecoded),
}

impl Waiting {
    /// Spans that have been counted as received.
    fn spans(&self) -> u64 {
        match self {
            Self::Batch(job) => job.account.spans(),
            Self::Body(_) => 0,
        }
    }

    /// Ends it unworked on. A body that was never decoded has no spans to
    /// account for: its receiver counts it as a payload.
    fn give_up(self, verdict: Verdict, answer: Refused) {
        match self {
            Self::Batch(job) => give_up(*job, verdict, answer),
            // A client that has gone is not told.
            Self::Body(body) => drop(body.answer.send(Err(answer))),
        }
    }
}

pub(crate) struct Shared {
    config: Config,
    budget: Budget,
    pub ledger: Arc<Ledger>,
    queue: Queue<Waiting>,
    /// Chains that are free for batches worked on where they are submitted.
    spare: Mutex<Vec<Lane>>,
    /// How many of them there are in all.
    lanes: usize,
    /// Where those that come at the same time meet.
    pub gathering: Gathering,
    pub destinations: Arc<[Destination]>,
    pub deliveries: Arc<Registry>,
    pub clock: Arc<dyn Clock>,
    rates: Rates,
    stats: Arc<dyn StatsSink>,
    closing: AtomicBool,
    /// Workers drop what they have.
    abort: AtomicBool,
    live_workers: AtomicUsize,
    progress: Notify,
}

/// The running pipeline. Dropping it without [`Pipeline::drain`] closes it;
/// what is inside then ends in the ledger as usual.
pub struct Pipeline {
    shared: Arc<Shared>,
    workers: Mutex<Vec<JoinHandle<()>>>,
}

/// Where receivers put what they have received. Cheap to clone.
#[derive(Clone)]
pub struct Inlet {
    shared: Arc<Shared>,
}

/// How a drain ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DrainReport {
    /// Everything was delivered and acknowledged.
    pub complete: bool,
    /// Spans that were given up when the grace ended.
    pub lost_spans: u64,
}

impl Pipeline {
    /// Starts the workers. `ledger` is passed in because a store that
    /// recognises what is sent again reports to it, too.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(
        config: Config,
        clock: Arc<dyn Clock>,
        chain: ChainFactory,
        destinations: Vec<Destination>,
        stats: Arc<dyn StatsSink>,
        rates: Rates,
        ledger: Arc<Ledger>,
    ) -> std::io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = if config.workers == 0 { cores } else { config.workers };
        let shared = Arc::new(Shared {
            budget: Budget::new(config.budget),
            ledger,
            queue: Queue::new(config.queue),
            lanes: count,
            gathering: Gathering::new((4 * count).max(16)),
            spare: Mutex::new((count..2 * count).map(|n| Lane::new(Arc::clone(&chain), n)).collect()),
            destinations: destinations.into(),
            deliveries: Arc::default(),
            clock,
            rates,
            stats,
            closing: AtomicBool::new(false),
            abort: AtomicBool::new(false),
            live_workers: AtomicUsize::new(0),
            progress: Notify::new(),
            config,
        });
        let pipeline = Self { shared, workers: Mutex::default() };
        for number in 0..count {
            let (shared, lane) = (Arc::clone(&pipeline.shared), Lane::new(Arc::clone(&chain), number));
            shared.live_workers.fetch_add(1, Ordering::SeqCst);
            let alive = Alive(Arc::clone(&shared));
            let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                let _alive = alive;
                work(&shared, lane);
            })?;
            pipeline.workers.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(pipeline)
    }

    /// A door for receivers.
    pub fn inlet(&self) -> Inlet {
        Inlet { shared: Arc::clone(&self.shared) }
    }

    /// The ledger.
    pub fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.shared.ledger)
    }

    /// What each destination has taken.
    pub fn deliveries(&self) -> Vec<DeliveryCount> {
        self.shared.destinations.iter().map(Destination::count).collect()
    }

    /// Stops: nothing more is admitted, what is inside is processed and
    /// delivered. After `grace`, what is left is given up and counted as lost
    /// (`shutdown`). Receivers are stopped before this, stores after it.
    pub async fn drain(&self, grace: Duration) -> DrainReport {
        let shared = &self.shared;
        shared.closing.store(true, Ordering::SeqCst);
        shared.queue.close();
        let idle = || {
            shared.live_workers.load(Ordering::SeqCst) == 0
                && shared.spare().len() == shared.lanes
                && shared.deliveries.len() == 0
        };
        let wait = async {
            while !idle() {
                // Deliveries end in other threads, which know nothing of this
                // wait: look again shortly.
                let look_again = tokio::time::sleep(Duration::from_millis(10));
                tokio::select! { () = shared.progress.notified() => {}, () = look_again => {} }
            }
        };
        let complete = tokio::time::timeout(grace, wait).await.is_ok();
        let mut lost_spans = 0;
        if !complete {
            shared.abort.store(true, Ordering::SeqCst);
            for waiting in shared.queue.clear() {
                lost_spans += waiting.spans();
                waiting.give_up(Verdict::Lost("shutdown"), Refused::Closing);
            }
            lost_spans += shared.deliveries.abort("shutdown");
        }
        if shared.live_workers.load(Ordering::SeqCst) == 0 {
            for worker in self.workers.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
                // A worker catches panics; there is nothing to learn here.
                drop(worker.join());
            }
        }
        DrainReport { complete, lost_spans }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        self.shared.queue.close();
    }
}

struct Alive(Arc<Shared>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.live_workers.fetch_sub(1, Ordering::SeqCst);
        self.0.progress.notify_one();
    }
}

fn work(shared: &Shared, mut lane: Lane) {
    while let Some(waiting) = shared.queue.pop() {
        if shared.abort.load(Ordering::SeqCst) {
            waiting.give_up(Verdict::Lost("shutdown"), Refused::Closing);
            continue;
        }
        match waiting {
            Waiting::Batch(job) => lane.run(shared, vec![*job]),
            Waiting::Body(body) => lane.decode_and_run(shared, body),
        }
    }
}

pub(crate) fn give_up(job: Job, verdict: Verdict, answer: Refused) {
    job.account.settle(&job.batch, verdict);
    // A client that has gone is not told.
    let _ = job.answer.send(Err(answer));
}

impl Shared {
    fn spare(&self) -> MutexGuard<'_, Vec<Lane>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a batch is worked on where it is submitted: it is small enough
    /// and need not wait behind others.
    fn is_for_here(&self, job: &Job) -> bool {
        job.batch.spans.len() <= self.config.here
            && !self.closing.load(Ordering::SeqCst)
            && self.queue.len() == 0
    }

    pub(crate) fn give_back(&self, lane: Lane) {
        self.spare().push(lane);
    }
}

/// What became of a batch, if it is known in time.
async fn answer_by(
    by: tokio::time::Instant,
    answered: oneshot::Receiver<Result<Accepted, Refused>>,
) -> Result<Accepted, Refused> {
    match tokio::time::timeout_at(by, answered).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(Refused::Failed),
        Err(_) => Err(Refused::Timeout),
    }
}

impl Inlet {
    /// Reserves memory for a body, now or not at all.
    ///
    /// # Errors
    /// [`Busy`]: answer as overloaded.
    pub fn reserve(&self, bytes: u64) -> Result<Permit, Busy> {
        if self.closing() {
            return Err(Busy { used: self.shared.budget.used(), limit: 0 });
        }
        self.shared.budget.reserve(bytes)
    }

    /// Reserves memory for a body, waiting in line for up to `wait`.
    ///
    /// # Errors
    /// [`Busy`]: answer as overloaded.
    pub async fn reserve_within(&self, bytes: u64, wait: Duration) -> Result<Permit, Busy> {
        if self.closing() {
            return Err(Busy { used: self.shared.budget.used(), limit: 0 });
        }
        self.shared.budget.reserve_within(bytes, wait).await
    }

    /// Puts a batch in and waits until every destination has acknowledged it.
    /// If the future is dropped (the client has gone), a batch that is already
    /// in the queue goes on.
    ///
    /// # Errors
    /// [`Refused`]; the spans are in the ledger under the reason.
    pub async fn submit(&self, batch: Batch, mut permit: Permit) -> Result<Accepted, Refused> {
        let by = tokio::time::Instant::now() + self.shared.config.ack_wait;
        permit.resize(batch.size() as u64);
        let mut account = self.shared.ledger.open(&batch);
        // Until it is in the queue nothing has been promised.
        account.if_dropped(Verdict::Refused("client_gone"));
        let (answer, answered) = oneshot::channel();
        let job = Job { batch, account, permit, answer };
        let shared = &self.shared;
        let here = if shared.is_for_here(&job) {
            shared.gathering.join(shared, job, || shared.spare().pop())
        } else {
            Err(Box::new(job))
        };
        match here {
            Ok(None) => {}
            Ok(Some(turn)) => turn.over().await,
            Err(job) => self.queue(Waiting::Batch(job)).await?,
        }
        answer_by(by, answered).await
    }

    /// As [`Inlet::submit`], for a body that takes a while to decode: the
    /// worker who takes it decodes it and works on the batch in one go.
    /// `decode` holds what pays for the body; without a batch there is nothing
    /// to work on. What else it has to say comes back, unless it was not called
    /// or panicked ([`Refused::Failed`]).
    pub async fn submit_body<T: Send + 'static>(
        &self,
        decode: impl FnOnce() -> (Option<(Batch, Permit)>, T) + Send + 'static,
    ) -> (Option<T>, Result<Accepted, Refused>) {
        let by = tokio::time::Instant::now() + self.shared.config.ack_wait;
        let (tell, mut told) = oneshot::channel();
        let (answer, answered) = oneshot::channel();
        let decode = move || {
            let (batch, said) = decode();
            // A client that has gone is not told.
            let _ = tell.send(said);
            batch
        };
        let body = Undecoded { decode: Box::new(decode), answer };
        let result = match self.queue(Waiting::Body(body)).await {
            Ok(()) => answer_by(by, answered).await,
            Err(refused) => Err(refused),
        };
        (told.try_recv().ok(), result)
    }

    async fn queue(&self, waiting: Waiting) -> Result<(), Refused> {
        match self.shared.queue.push(waiting, self.shared.config.queue_wait).await {
            Ok(()) => Ok(()),
            Err(PushError::Full(waiting)) => {
                waiting.give_up(Verdict::Refused("queue_full"), Refused::Busy);
                Err(Refused::Busy)
            }
            Err(PushError::Closed(waiting)) => {
                waiting.give_up(Verdict::Refused("closing"), Refused::Closing);
                Err(Refused::Closing)
            }
        }
    }

    /// Whether the pipeline is being drained.
    pub fn closing(&self) -> bool {
        self.shared.closing.load(Ordering::SeqCst)
    }

    /// The memory budget.
    pub fn budget(&self) -> &Budget {
        &self.shared.budget
    }

    /// Batches that wait for a worker.
    pub fn queued(&self) -> usize {
        self.shared.queue.len()
    }

    /// The ledger.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.shared.ledger
    }

    /// The sampling rates to tell tracers.
    pub fn rates(&self) -> &Rates {
        &self.shared.rates
    }

    /// Where client statistics go.
    pub fn stats(&self) -> &dyn StatsSink {
        &*self.shared.stats
    }

    /// Time of day, nanoseconds since the Unix epoch.
    pub fn now(&self) -> i64 {
        self.shared.clock.now()
    }
}
