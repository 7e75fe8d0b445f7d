//! The engine: workers between the queue and the destinations.

use crate::admission::{Budget, Busy, Permit};
use crate::clock::Clock;
use crate::fanout::{self, DeliveryCount, Destination, Registry};
use crate::ledger::{Account, Ledger, Verdict};
use crate::processor::{Effects, Processor};
use crate::queue::{Popped, PushError, Queue};
use crate::rates::Rates;
use crate::stats_sink::StatsSink;
use spanloom_model::Batch;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

/// Settings of the pipeline.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes that may be held between sockets and acknowledgements
    /// (`SPANLOOM_INTAKE_MEMORY`). At least the largest body.
    pub budget: u64,
    /// Worker threads; 0: one per usable core.
    pub workers: usize,
    /// Batches that may wait for a worker.
    pub queue: usize,
    /// How long a submission may wait for a place in the queue.
    pub queue_wait: Duration,
    /// How long a submission may take in all, from the queue to its last
    /// acknowledgement.
    pub ack_wait: Duration,
}

impl Default for Config {
    /// 64 MiB; a worker per core; 1,024 batches; waits below the 2 s after
    /// which the most impatient tracers send again.
    fn default() -> Self {
        Self {
            budget: 64 << 20,
            workers: 0,
            queue: 1024,
            queue_wait: Duration::from_millis(500),
            ack_wait: Duration::from_millis(1400),
        }
    }
}

/// Builds the processors of one worker (its number is the argument). Called
/// again after a panic, so that no half-changed state is used.
pub type ChainFactory = Arc<dyn Fn(usize) -> Vec<Box<dyn Processor>> + Send + Sync>;

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

struct Job {
    batch: Batch,
    account: Account,
    permit: Permit,
    answer: oneshot::Sender<Result<Accepted, Refused>>,
}

struct Shared {
    config: Config,
    budget: Budget,
    ledger: Arc<Ledger>,
    queue: Queue<Job>,
    destinations: Arc<[Destination]>,
    deliveries: Arc<Registry>,
    clock: Arc<dyn Clock>,
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
            let (shared, chain) = (Arc::clone(&pipeline.shared), Arc::clone(&chain));
            shared.live_workers.fetch_add(1, Ordering::SeqCst);
            let alive = Alive(Arc::clone(&shared));
            let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                let _alive = alive;
                work(&shared, &chain, number);
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
        let idle = || shared.live_workers.load(Ordering::SeqCst) == 0 && shared.deliveries.len() == 0;
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
            for job in shared.queue.clear() {
                lost_spans += job.account.spans();
                give_up(job, Verdict::Lost("shutdown"), Refused::Closing);
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

/// How often processors are ticked when nothing arrives.
const TICK: Duration = Duration::from_secs(1);

fn work(shared: &Arc<Shared>, factory: &ChainFactory, number: usize) {
    let mut chain = factory(number);
    let mut fx = Effects::default();
    let mut next_tick = Instant::now() + TICK;
    loop {
        let wait = next_tick.saturating_duration_since(Instant::now());
        match shared.queue.pop(wait) {
            Popped::Item(job) => {
                if shared.abort.load(Ordering::SeqCst) {
                    give_up(job, Verdict::Lost("shutdown"), Refused::Closing);
                } else if let Err(job) = run(shared, &mut chain, job, &mut fx) {
                    tracing::error!(worker = number, "a processor panicked; its batch is lost");
                    give_up(*job, Verdict::Lost("panic"), Refused::Failed);
                    chain = factory(number);
                }
            }
            Popped::Empty => {}
            Popped::Closed => break,
        }
        if Instant::now() >= next_tick {
            next_tick = Instant::now() + TICK;
            let now = shared.clock.now();
            chain = guarded(shared, factory, number, chain, &mut fx, |p, fx| p.tick(now, fx));
        }
    }
    let now = shared.clock.now();
    drop(guarded(shared, factory, number, chain, &mut fx, |p, fx| p.finish(now, fx)));
}

/// Calls all processors; after a panic the chain is a new one.
fn guarded(
    shared: &Shared,
    factory: &ChainFactory,
    number: usize,
    mut chain: Vec<Box<dyn Processor>>,
    fx: &mut Effects,
    mut call: impl FnMut(&mut dyn Processor, &mut Effects),
) -> Vec<Box<dyn Processor>> {
    let ok = catch_unwind(AssertUnwindSafe(|| {
        for processor in &mut chain {
            call(processor.as_mut(), fx);
        }
    }))
    .is_ok();
    fx.flush(&shared.ledger);
    if ok {
        return chain;
    }
    tracing::error!(worker = number, "a processor panicked outside of a batch");
    factory(number)
}

fn run(
    shared: &Shared,
    chain: &mut [Box<dyn Processor>],
    mut job: Job,
    fx: &mut Effects,
) -> Result<(), Box<Job>> {
    let now = shared.clock.now();
    let done = catch_unwind(AssertUnwindSafe(|| {
        for processor in chain.iter_mut() {
            processor.process(&mut job.batch, now, fx);
        }
    }));
    fx.flush(&shared.ledger);
    let saves = fx.take_saves();
    if done.is_err() {
        return Err(Box::new(job));
    }
    job.permit.resize(job.batch.size() as u64);
    let Job { batch, account, permit, answer } = job;
    fanout::deliver(&shared.deliveries, &shared.destinations, batch, saves, account, permit, answer);
    Ok(())
}

fn give_up(job: Job, verdict: Verdict, answer: Refused) {
    job.account.settle(&job.batch, verdict);
    // A client that has gone is not told.
    let _ = job.answer.send(Err(answer));
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
        match self.shared.queue.push(job, self.shared.config.queue_wait).await {
            Ok(()) => {}
            Err(PushError::Full(job)) => {
                give_up(job, Verdict::Refused("queue_full"), Refused::Busy);
                return Err(Refused::Busy);
            }
            Err(PushError::Closed(job)) => {
                give_up(job, Verdict::Refused("closing"), Refused::Closing);
                return Err(Refused::Closing);
            }
        }
        match tokio::time::timeout_at(by, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Refused::Failed),
            Err(_) => Err(Refused::Timeout),
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
