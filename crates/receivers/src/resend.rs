//! Recognising a request that a client sends again because it had no answer
//! in time: the same bytes, soon after. There is no idempotency key in the
//! Datadog protocol, but tracers repeat the payload to the byte.
//!
//! Only requests whose first copy was answered late, or not at all, are
//! remembered; a payload that was answered in time is never taken for a
//! repetition.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// An answer later than this may have come after the client gave up (after 2
/// or 3 s, and the way through the network counts too).
pub(crate) const LATE: Duration = Duration::from_millis(800);
/// How long a late one is remembered: Node sends again after up to 7.5 s, the
/// native exporter of Python up to five times within about 20 s.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Late ones remembered at most; beyond it the oldest are forgotten.
const MAX: usize = 4096;

/// Length and hash of a body.
type Key = (usize, u64);

/// Begins the hashes, the same in every process: what one has counted another
/// one recognises.
const SEED: u64 = 0x7370_616e_6c6f_6f6d;

#[derive(Default)]
struct State {
    /// Being worked on, since when, and how many copies.
    open: HashMap<Key, (Instant, u32)>,
    late: HashMap<Key, Instant>,
    order: VecDeque<(Key, Instant)>,
}

/// Remembers requests that may come again. Shared by all connections.
pub struct Resends {
    hasher: foldhash::quality::FixedState,
    state: Mutex<State>,
}

impl Default for Resends {
    fn default() -> Self {
        Self { hasher: foldhash::quality::FixedState::with_seed(SEED), state: Mutex::default() }
    }
}

/// A request being worked on. Dropped without [`Working::answered`], the client
/// has gone and will probably send again.
pub struct Working {
    resends: Arc<Resends>,
    key: Key,
    started: Instant,
    answered: bool,
    /// The same bytes were here before and were not answered in time.
    pub again: bool,
}

impl Resends {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a request.
    pub fn begin(self: &Arc<Self>, body: &[u8], now: Instant) -> Working {
        let key = (body.len(), self.hasher.hash_one(body));
        let mut state = self.lock();
        while let Some((key, until)) = state.order.front().copied() {
            if until > now && state.order.len() <= MAX {
                break;
            }
            state.order.pop_front();
            if state.late.get(&key) == Some(&until) {
                state.late.remove(&key);
            }
        }
        let waiting = state.open.get(&key).is_some_and(|(since, _)| now.duration_since(*since) >= LATE);
        let again = waiting || state.late.contains_key(&key);
        state.open.entry(key).or_insert((now, 0)).1 += 1;
        Working { resends: Arc::clone(self), key, started: now, answered: false, again }
    }

    /// A request that was taken will come again all the same: somebody else
    /// answered it, or nobody.
    pub(crate) fn expect(self: &Arc<Self>, body: &[u8], now: Instant) {
        drop(self.begin(body, now));
    }
}

impl Working {
    /// Hash of the body, see [`spanloom_model::Intake::fingerprint`].
    pub fn fingerprint(&self) -> u64 {
        self.key.1
    }

    /// The answer is on its way. `certain`: it says what became of the spans.
    pub fn answered(mut self, now: Instant, certain: bool) {
        self.answered = certain && now.duration_since(self.started) < LATE;
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        let mut state = self.resends.lock();
        if let Some((_, copies)) = state.open.get_mut(&self.key) {
            *copies -= 1;
            if *copies == 0 {
                state.open.remove(&self.key);
            }
        }
        if !self.answered {
            let until = Instant::now() + REMEMBERED;
            state.late.insert(self.key, until);
            state.order.push_back((self.key, until));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_not_answered_in_time_is_recognised() {
        let resends = Arc::new(Resends::default());
        let t0 = Instant::now();
        let first = resends.begin(b"body", t0);
        assert!(!first.again);
        assert!(!resends.begin(b"body", t0 + LATE / 2).again, "sent twice at once is not sent again");
        let waiting = resends.begin(b"body", t0 + LATE);
        assert!(waiting.again, "the first still waits");
        waiting.answered(t0 + LATE, true);
        first.answered(t0 + LATE / 2, true);

        let resends = Arc::new(Resends::default());
        resends.begin(b"in time", t0).answered(t0 + LATE / 2, true);
        assert!(!resends.begin(b"in time", t0 + LATE).again);
        resends.begin(b"late", t0).answered(t0 + LATE, true);
        assert!(resends.begin(b"late", t0 + LATE * 2).again);
        drop(resends.begin(b"gone", t0));
        assert!(resends.begin(b"gone", t0).again);
        let much_later = Instant::now() + REMEMBERED * 2;
        assert!(!resends.begin(b"other", much_later).again);
        assert!(!resends.lock().late.contains_key(&(4, resends.hasher.hash_one(b"gone".as_slice()))));
    }
}
