//! Whether the Agent answers. One that does not is left alone for a while, so
//! that tracers do not wait for it, then tried with one request.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Failures in a row after which the Agent is left alone.
const FAILURES: u32 = 3;
/// Failures are told at most this often.
const TELL_EVERY: Duration = Duration::from_secs(10);

#[derive(Default)]
struct State {
    failures: u32,
    /// Left alone until then.
    until: Option<Instant>,
    /// Failures that were not told.
    untold: u64,
    told: Option<Instant>,
}

pub(super) struct Health {
    rest: Duration,
    state: Mutex<State>,
}

impl Health {
    pub(super) fn new(rest: Duration) -> Self {
        Self { rest, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request may go to the Agent.
    pub(super) fn admits(&self, now: Instant) -> bool {
        let mut state = self.lock();
        match state.until {
            Some(until) if now < until => false,
            // This one finds out; the others wait for what it finds.
            Some(_) => {
                state.until = Some(now + self.rest);
                true
            }
            None => true,
        }
    }

    /// The Agent has answered. Whether it had been left alone.
    pub(super) fn answered(&self) -> bool {
        let mut state = self.lock();
        state.failures = 0;
        state.until.take().is_some()
    }

    /// It has not. How many failures to tell about, if it is time to tell.
    pub(super) fn failed(&self, now: Instant) -> Option<u64> {
        let mut state = self.lock();
        state.failures = state.failures.saturating_add(1);
        if state.failures >= FAILURES {
            state.until = Some(now + self.rest);
        }
        state.untold += 1;
        if state.told.is_some_and(|told| now < told + TELL_EVERY) {
            return None;
        }
        state.told = Some(now);
        Some(std::mem::take(&mut state.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Duration = Duration::from_secs(1);

    #[test]
    fn an_agent_that_fails_again_and_again_is_left_alone_and_tried_one_by_one() {
        let (health, t0) = (Health::new(REST), Instant::now());
        for _ in 1..FAILURES {
            health.failed(t0);
            assert!(health.admits(t0), "a single failure says little");
        }
        health.failed(t0);
        assert!(!health.admits(t0));
        assert!(!health.admits(t0 + REST / 2));
        assert!(health.admits(t0 + REST), "one finds out");
        assert!(!health.admits(t0 + REST), "the others wait");
        assert!(health.answered());
        assert!(health.admits(t0 + REST));
        assert!(!health.answered(), "it was not down");
    }

    #[test]
    fn an_answer_forgives_the_failures_before_it() {
        let (health, t0) = (Health::new(REST), Instant::now());
        for _ in 0..10 {
            health.failed(t0);
            health.failed(t0);
            health.answered();
        }
        assert!(health.admits(t0));
    }

    #[test]
    fn failures_are_told_rarely_and_none_is_forgotten() {
        let (health, t0) = (Health::new(REST), Instant::now());
        assert_eq!(health.failed(t0), Some(1));
        assert_eq!(health.failed(t0), None);
        assert_eq!(health.failed(t0 + TELL_EVERY / 2), None);
        assert_eq!(health.failed(t0 + TELL_EVERY), Some(3));
    }
}
