//! Admission in bytes. A receiver reserves what a body will take before it
//! reads it, so memory is bounded by a setting and not by traffic.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// The budget is spent; the same request may be admitted a little later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the memory budget for incoming data is spent ({used} of {limit} bytes)")]
pub struct Busy {
    /// Bytes in use when the request was refused.
    pub used: u64,
    /// The setting.
    pub limit: u64,
}

/// Bytes that may be held at the same time by everything between the socket
/// and the last acknowledgement. Cheap to clone.
#[derive(Clone)]
pub struct Budget {
    inner: Arc<Inner>,
}

struct Inner {
    limit: u64,
    used: AtomicU64,
    peak: AtomicU64,
    /// Length of `queue`, readable without the lock: the hot path looks here.
    waiting: AtomicUsize,
    queue: Mutex<VecDeque<Waiter>>,
}

struct Waiter {
    bytes: u64,
    give: oneshot::Sender<Permit>,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self {
            inner: Arc::new(Inner {
                limit,
                used: AtomicU64::new(0),
                peak: AtomicU64::new(0),
                waiting: AtomicUsize::new(0),
                queue: Mutex::new(VecDeque::new()),
            }),
        }
    }

    /// Bytes in use. May exceed the limit for a moment: a decoded batch can
    /// be larger than its body and is never thrown away for it.
    pub fn used(&self) -> u64 {
        self.inner.used.load(SeqCst)
    }

    /// Most bytes that were in use at the same time.
    pub fn peak(&self) -> u64 {
        self.inner.peak.load(SeqCst)
    }

    /// The setting.
    pub fn limit(&self) -> u64 {
        self.inner.limit
    }

    /// Reserves now or not at all. Does not overtake requests that wait.
    ///
    /// # Errors
    /// [`Busy`] when the bytes are not free, or are more than the whole budget.
    pub fn reserve(&self, bytes: u64) -> Result<Permit, Busy> {
        if self.inner.waiting.load(SeqCst) == 0 && self.inner.take(bytes) {
            return Ok(Permit { inner: Arc::clone(&self.inner), bytes });
        }
        Err(self.inner.busy())
    }

    /// Reserves, waiting in line for up to `wait`.
    ///
    /// # Errors
    /// [`Busy`] when the bytes did not become free in time, or are more than
    /// the whole budget (then at once).
    pub async fn reserve_within(&self, bytes: u64, wait: Duration) -> Result<Permit, Busy> {
        let busy = match self.reserve(bytes) {
            Ok(permit) => return Ok(permit),
            Err(busy) => busy,
        };
        if bytes > self.inner.limit || wait.is_zero() {
            return Err(busy);
        }
        let (give, got) = oneshot::channel();
        {
            let mut queue = self.inner.lock();
            queue.push_back(Waiter { bytes, give });
            self.inner.waiting.store(queue.len(), SeqCst);
        }
        // Bytes may have become free between the attempt and the enqueuing.
        pump(&self.inner);
        match tokio::time::timeout(wait, got).await {
            Ok(Ok(permit)) => Ok(permit),
            // A permit given at the last moment is in the dropped channel and
            // goes back from there.
            _ => Err(self.inner.busy()),
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Waiter>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn busy(&self) -> Busy {
        Busy { used: self.used.load(SeqCst), limit: self.limit }
    }

    fn take(&self, bytes: u64) -> bool {
        let limit = self.limit;
        let taken = self
            .used
            .fetch_update(SeqCst, SeqCst, |used| used.checked_add(bytes).filter(|sum| *sum <= limit));
        if let Ok(before) = taken {
            self.peak.fetch_max(before + bytes, SeqCst);
        }
        taken.is_ok()
    }

    fn release(self: &Arc<Self>, bytes: u64) {
        self.used.fetch_sub(bytes, SeqCst);
        if self.waiting.load(SeqCst) > 0 {
            pump(self);
        }
    }
}

/// Serves waiters in order while their bytes are free.
fn pump(inner: &Arc<Inner>) {
    loop {
        let (give, permit) = {
            let mut queue = inner.lock();
            // Those who gave up do not hold up the others.
            while queue.front().is_some_and(|w| w.give.is_closed()) {
                queue.pop_front();
            }
            let fits = queue.front().is_some_and(|w| inner.take(w.bytes));
            let next = if fits { queue.pop_front() } else { None };
            inner.waiting.store(queue.len(), SeqCst);
            let Some(next) = next else { return };
            (next.give, Permit { inner: Arc::clone(inner), bytes: next.bytes })
        };
        // Outside the lock: a permit that nobody takes is released here, which
        // may come back to this function.
        drop(give.send(permit));
    }
}

/// Bytes reserved. Dropping it gives them back.
pub struct Permit {
    inner: Arc<Inner>,
    bytes: u64,
}

impl Permit {
    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reserves more, now or not at all.
    ///
    /// # Errors
    /// [`Busy`] when the bytes are not free.
    pub fn grow(&mut self, more: u64) -> Result<(), Busy> {
        let mut other = Budget { inner: Arc::clone(&self.inner) }.reserve(more)?;
        self.bytes += std::mem::take(&mut other.bytes);
        Ok(())
    }

    /// Reserves more, waiting in line for up to `wait`.
    ///
    /// # Errors
    /// [`Busy`] when the bytes did not become free in time.
    pub async fn grow_within(&mut self, more: u64, wait: Duration) -> Result<(), Busy> {
        let budget = Budget { inner: Arc::clone(&self.inner) };
        let mut other = budget.reserve_within(more, wait).await?;
        self.bytes += std::mem::take(&mut other.bytes);
        Ok(())
    }

    /// Says what is really held, once that is known (after decoding). Always
    /// succeeds: what exceeds the budget holds up the requests that follow.
    pub fn resize(&mut self, bytes: u64) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if bytes > before {
            let used = self.inner.used.fetch_add(bytes - before, SeqCst) + (bytes - before);
            self.inner.peak.fetch_max(used, SeqCst);
        } else {
            self.inner.release(before - bytes);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.inner.release(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_comes_back() {
        let budget = Budget::new(100);
        let mut a = budget.reserve(60).unwrap();
        assert_eq!(budget.reserve(41).err(), Some(Busy { used: 60, limit: 100 }));
        a.grow(40).unwrap();
        assert!(a.grow(1).is_err());
        a.resize(10);
        assert_eq!(budget.used(), 10);
        a.resize(250);
        assert!(budget.reserve(1).is_err());
        drop(a);
        assert_eq!((budget.used(), budget.peak()), (0, 250));
    }

    #[tokio::test]
    async fn waiters_are_served_in_order_and_nobody_overtakes() {
        let budget = Budget::new(100);
        let held = budget.reserve(100).unwrap();
        let wait = Duration::from_secs(60);
        let (one, two) = (budget.clone(), budget.clone());
        let first = tokio::spawn(async move { one.reserve_within(80, wait).await });
        while budget.inner.waiting.load(SeqCst) < 1 {
            tokio::task::yield_now().await;
        }
        let second = tokio::spawn(async move { two.reserve_within(30, wait).await });
        while budget.inner.waiting.load(SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        drop(held);
        let first = first.await.unwrap().unwrap();
        assert_eq!(budget.used(), 80);
        assert!(budget.reserve(1).is_err(), "the second waits in line");
        drop(first);
        assert_eq!(second.await.unwrap().unwrap().bytes(), 30);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn who_gives_up_waiting_takes_nothing_and_blocks_nobody() {
        let budget = Budget::new(10);
        let held = budget.reserve(10).unwrap();
        assert!(budget.reserve_within(5, Duration::from_millis(1)).await.is_err());
        assert!(budget.reserve_within(11, Duration::from_secs(600)).await.is_err(), "never fits");
        drop(held);
        assert_eq!(budget.used(), 0);
        drop(budget.reserve_within(10, Duration::from_secs(1)).await.unwrap());
        assert_eq!(budget.used(), 0);
    }
}
