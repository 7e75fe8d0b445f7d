//! Small batches that were received in the same turn of a thread go through a
//! lane together. The first of them borrows the lane and steps back behind all
//! tasks that are ready; those that bring a batch meanwhile leave it with the
//! first. What one batch costs alone (a write to each log, code that is not in
//! the caches) is then paid once for all; who is alone waits for nobody.

use crate::engine::{Job, Shared};
use crate::lane::Lane;
use std::cell::Cell;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

/// Spans that are enough: about half a millisecond of work.
const ENOUGH_SPANS: usize = 256;
/// The same in bytes of their bodies, for spans that are large.
const ENOUGH_BYTES: usize = 256 << 10;

/// One place a thread, where its batches meet.
pub(crate) struct Gathering {
    places: Box<[Mutex<Option<Group>>]>,
    next: AtomicU64,
}

struct Group {
    number: u64,
    lane: Lane,
    jobs: Vec<Job>,
    spans: usize,
    bytes: usize,
}

/// The place of a thread, the same for its life.
fn place() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static OWN: Cell<Option<usize>> = const { Cell::new(None) });
    OWN.with(|own| {
        let place = own.get().unwrap_or_else(|| NEXT.fetch_add(1, Relaxed));
        own.set(Some(place));
        place
    })
}

impl Gathering {
    /// For so many threads; more than these share places, which works too.
    pub(crate) fn new(threads: usize) -> Self {
        Self { places: (0..threads.max(1)).map(|_| Mutex::default()).collect(), next: AtomicU64::new(0) }
    }

    fn place(&self, place: usize) -> MutexGuard<'_, Option<Group>> {
        self.places[place % self.places.len()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a job with those of this turn. A thread's first needs a lane, and
    /// gets what is to be waited for; without one the job comes back.
    pub(crate) fn join(
        &self,
        shared: &Arc<Shared>,
        job: Job,
        lane: impl FnOnce() -> Option<Lane>,
    ) -> Result<Option<Turn>, Box<Job>> {
        let place = place();
        let (spans, bytes) = (job.batch.spans.len(), job.batch.arena.size());
        let mut group = self.place(place);
        let Some(open) = &mut *group else {
            let Some(lane) = lane() else { return Err(Box::new(job)) };
            let number = self.next.fetch_add(1, Relaxed);
            *group = Some(Group { number, lane, jobs: vec![job], spans, bytes });
            return Ok(Some(Turn { shared: Arc::clone(shared), place, number }));
        };
        open.spans += spans;
        open.bytes += bytes;
        open.jobs.push(job);
        let full = group.take_if(|g| g.spans >= ENOUGH_SPANS || g.bytes >= ENOUGH_BYTES);
        drop(group);
        if let Some(full) = full {
            full.work(shared);
        }
        Ok(None)
    }
}

impl Group {
    fn work(self, shared: &Shared) {
        let mut lent = Lent { shared, lane: Some(self.lane) };
        if let Some(lane) = &mut lent.lane {
            lane.run(shared, self.jobs);
        }
    }
}

/// A lane at work; given back whatever happens.
struct Lent<'a> {
    shared: &'a Shared,
    lane: Option<Lane>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Some(lane) = self.lane.take() {
            self.shared.give_back(lane);
        }
    }
}

/// A group's end. Dropped, also by a client that goes away, it works on the
/// group.
pub(crate) struct Turn {
    shared: Arc<Shared>,
    place: usize,
    number: u64,
}

impl Turn {
    /// Lets the tasks that are ready go first, then works on what they left.
    pub(crate) async fn over(self) {
        let mut waited = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut waited, true) {
                return Poll::Ready(());
            }
            // Behind all others: a task that wakes itself is put at the end.
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        drop(self);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Another one, if this was full before its time.
        let group = self.shared.gathering.place(self.place).take_if(|g| g.number == self.number);
        if let Some(group) = group {
            group.work(&self.shared);
        }
    }
}
