//! Ordered shutdown. The first request drains: receivers stop, the pipeline
//! finishes what it has, the store flushes. The second one stops at once.

use std::sync::Arc;
use tokio::sync::watch;

/// How far the shutdown is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    /// Working.
    Running,
    /// Finish what was begun, take nothing new.
    Draining,
    /// Stop at once.
    Now,
}

/// Asks for the shutdown. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct Stop {
    phase: Arc<watch::Sender<Phase>>,
}

impl Default for Stop {
    fn default() -> Self {
        Self { phase: Arc::new(watch::Sender::new(Phase::Running)) }
    }
}

impl Stop {
    /// Goes one step on (what a signal does): running → draining → now.
    pub fn request(&self) -> Phase {
        self.phase.send_modify(|p| {
            *p = match *p {
                Phase::Running => Phase::Draining,
                Phase::Draining | Phase::Now => Phase::Now,
            };
        });
        *self.phase.borrow()
    }

    /// Where we are.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// For those who must stop.
    pub fn watch(&self) -> StopWatch {
        StopWatch { phase: self.phase.subscribe(), _stop: self.clone() }
    }
}

/// Learns of the shutdown.
#[derive(Clone)]
pub struct StopWatch {
    phase: watch::Receiver<Phase>,
    /// Keeps the channel open, so that waiting never ends by accident.
    _stop: Stop,
}

impl StopWatch {
    /// Where we are.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Waits until at least this phase is reached.
    pub async fn reached(&mut self, phase: Phase) {
        // The sender lives in `_stop`: no error is possible.
        drop(self.phase.wait_for(|p| *p >= phase).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_request_drains_and_the_second_stops() {
        let stop = Stop::default();
        let mut watch = stop.watch();
        assert_eq!(stop.request(), Phase::Draining);
        watch.reached(Phase::Draining).await;
        assert_eq!(stop.request(), Phase::Now);
        watch.reached(Phase::Now).await;
        assert_eq!(stop.request(), Phase::Now);
    }
}
