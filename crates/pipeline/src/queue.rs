//! The bounded queue between receivers (async) and workers (threads).

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) struct Queue<T> {
    /// One permit per free place; waits in order.
    places: Arc<Semaphore>,
    state: Mutex<State<T>>,
    arrived: Condvar,
}

struct State<T> {
    items: VecDeque<(T, OwnedSemaphorePermit)>,
    closed: bool,
}

/// The item did not go in.
pub(crate) enum PushError<T> {
    /// No place became free in time.
    Full(T),
    Closed(T),
}

impl<T> Queue<T> {
    pub(crate) fn new(places: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places.clamp(1, Semaphore::MAX_PERMITS))),
            state: Mutex::new(State { items: VecDeque::new(), closed: false }),
            arrived: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().items.len()
    }

    /// Puts an item in, waiting in order for a free place.
    pub(crate) async fn push(&self, item: T, wait: Duration) -> Result<(), PushError<T>> {
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => return self.put(item, place),
            Err(tokio::sync::TryAcquireError::Closed) => return Err(PushError::Closed(item)),
            Err(tokio::sync::TryAcquireError::NoPermits) => {}
        }
        match tokio::time::timeout(wait, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(place)) => self.put(item, place),
            Ok(Err(_)) => Err(PushError::Closed(item)),
            Err(_) => Err(PushError::Full(item)),
        }
    }

    fn put(&self, item: T, place: OwnedSemaphorePermit) -> Result<(), PushError<T>> {
        let mut state = self.lock();
        if state.closed {
            return Err(PushError::Closed(item));
        }
        state.items.push_back((item, place));
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    /// Waits for the oldest item; its place becomes free. None: closed, and
    /// everything has been taken.
    pub(crate) fn pop(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some((item, place)) = state.items.pop_front() {
                drop(state);
                drop(place);
                return Some(item);
            }
            if state.closed {
                return None;
            }
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Nothing more goes in; what is inside can still be taken.
    pub(crate) fn close(&self) {
        self.places.close();
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    /// Takes everything out at once.
    pub(crate) fn clear(&self) -> Vec<T> {
        self.lock().items.drain(..).map(|(item, _)| item).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    const NOW: Duration = Duration::ZERO;

    #[tokio::test]
    async fn a_full_queue_refuses_and_a_free_place_is_used() {
        let q = Queue::new(1);
        assert!(q.push(1, NOW).await.is_ok());
        assert!(matches!(q.push(2, NOW).await, Err(PushError::Full(2))));
        assert_eq!(q.pop(), Some(1));
        assert!(q.push(3, NOW).await.is_ok());
        q.close();
        assert!(matches!(q.push(4, NOW).await, Err(PushError::Closed(4))));
        assert_eq!(q.pop(), Some(3));
        assert_eq!(q.pop(), None);
    }
}
