//! The bounded queue between receivers (async) and workers (threads).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) struct Queue<T> {
    /// One permit per free place; waits in order.
    places: Arc<Semaphore>,
    state: Mutex<State<T>>,
}

struct State<T> {
    items: VecDeque<(T, OwnedSemaphorePermit)>,
    closed: bool,
    /// Who waits for an item. The last one is woken first: what it works with
    /// is still in the caches of its core.
    idle: Vec<Thread>,
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
            state: Mutex::new(State { items: VecDeque::new(), closed: false, idle: Vec::new() }),
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
        let next = state.idle.pop();
        drop(state);
        if let Some(thread) = next {
            thread.unpark();
        }
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
            let me = std::thread::current();
            state.idle.push(me.clone());
            drop(state);
            std::thread::park();
            state = self.lock();
            // Still there if nobody woke us: parking may end by itself.
            state.idle.retain(|thread| thread.id() != me.id());
        }
    }

    /// Nothing more goes in; what is inside can still be taken.
    pub(crate) fn close(&self) {
        self.places.close();
        let idle = {
            let mut state = self.lock();
            state.closed = true;
            std::mem::take(&mut state.idle)
        };
        idle.iter().for_each(Thread::unpark);
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

    #[tokio::test]
    async fn who_was_busy_last_works_on() {
        let q = Arc::new(Queue::new(8));
        let (tell, told) = std::sync::mpsc::channel();
        let mut threads = Vec::new();
        for name in ["first", "second"] {
            let (own, tell) = (Arc::clone(&q), tell.clone());
            threads.push(std::thread::spawn(move || {
                while let Some(item) = own.pop() {
                    tell.send((name, item)).unwrap();
                }
            }));
            while q.lock().idle.len() < threads.len() {
                std::thread::yield_now();
            }
        }
        for item in 0..3 {
            assert!(q.push(item, NOW).await.is_ok());
            assert_eq!(told.recv(), Ok(("second", item)));
            while q.lock().idle.len() < 2 {
                std::thread::yield_now();
            }
        }
        q.close();
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
