//! The thread that lets traces be judged once they are quiet: first what waits
//! to leave, then what is in the store, which follows the same verdicts.

use super::chain::lock;
use super::judge::{About, Judge};
use super::ways;
use crate::report::Gauge;
use spanloom_holding::{Buffer, HoldingError, Ruling, Spans, Waiting};
use spanloom_model::{Batch, StoreError, TraceSummary};
use spanloom_sampler::tail::TailDecision;
use spanloom_store::Store;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Pause between looks at what is quiet.
const TICK: Duration = Duration::from_secs(1);
/// Least pause, also when the buffer is full and its exporters take nothing.
const LEAST: Duration = Duration::from_millis(20);
/// Rule name of traces that their sender wants kept.
const MANUAL_KEEP: &str = "manual_keep";
/// Rule name of traces that a person wants kept.
pub const BY_HAND: &str = "keep_request";

/// Wakes the thread before its time.
#[derive(Default)]
pub struct Wake {
    wanted: Mutex<bool>,
    changed: Condvar,
}

impl Wake {
    /// A round is wanted soon.
    pub fn call(&self) {
        *lock(&self.wanted) = true;
        self.changed.notify_all();
    }

    fn wait(&self, time: Duration) {
        let mut wanted = lock(&self.wanted);
        if !*wanted {
            wanted = self.changed.wait_timeout(wanted, time).unwrap_or_else(PoisonError::into_inner).0;
        }
        *wanted = false;
    }
}

/// The rules at work.
pub struct Tail {
    judge: Judge,
    store: Option<Arc<Store>>,
    buffer: Option<Arc<Buffer>>,
    wake: Arc<Wake>,
    stopping: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Tail {
    /// Rules over a store, over what leaves, or both.
    pub fn new(
        judge: Judge,
        store: Option<Arc<Store>>,
        buffer: Option<Arc<Buffer>>,
        wake: Arc<Wake>,
    ) -> Self {
        Self { judge, store, buffer, wake, stopping: AtomicBool::new(false), thread: Mutex::default() }
    }

    /// Starts looking every second, on a thread of its own: deciding reads files.
    pub fn start(tail: Self) -> Arc<Self> {
        let tail = Arc::new(tail);
        let worker = Arc::clone(&tail);
        let spawned = std::thread::Builder::new().name("tail-sampling".into()).spawn(move || worker.work());
        match spawned {
            Ok(thread) => *lock(&tail.thread) = Some(thread),
            Err(e) => tracing::error!(
                "tail sampling cannot start a thread ({e}): the store keeps everything, and nothing leaves"
            ),
        }
        tail
    }

    /// Waits until the group of traces under way is judged. What waits to
    /// leave stays on disk for the next start. Exporters must still run.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.wake.call();
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
        if let Some(buffer) = &self.buffer {
            buffer.close();
        }
    }

    fn work(&self) {
        while !self.stopping.load(Ordering::SeqCst) {
            if let Err(e) = self.round() {
                tracing::error!("tail sampling: a decision could not be written: {e}");
            }
            if !self.stopping.load(Ordering::SeqCst) {
                self.wake.wait(TICK);
                std::thread::sleep(LEAST);
            }
        }
    }

    fn round(&self) -> Result<(), StoreError> {
        // What leaves first: a trace is quiet there before it is in the store.
        if let Some(buffer) = &self.buffer {
            let mut judge = |w: &Waiting, load: &dyn Fn() -> Result<Vec<Spans>, HoldingError>| {
                let decision = if w.by_hand {
                    self.judge.kept_by(BY_HAND)
                } else if w.exempt {
                    self.judge.kept_by(MANUAL_KEEP)
                } else {
                    self.judge.judge(&w.summary, &|| load().ok())
                };
                self.judge.note(About::Leaving(ways::places(w.ways)), &w.summary, &decision);
                let spans = u32::try_from(w.summary.spans).unwrap_or(u32::MAX);
                Ruling { keep: decision.keep, rule: decision.rule, rate: decision.rate, spans }
            };
            buffer.round(self.judge.now(), &mut judge, &|| self.stopping.load(Ordering::SeqCst));
        }
        let Some(store) = &self.store else { return Ok(()) };
        let mut judge = |t: &TraceSummary, load: &dyn Fn() -> Result<Batch, StoreError>| {
            let decision = self.followed(t).unwrap_or_else(|| {
                self.judge.judge(t, &|| load().ok().map(|batch| vec![Spans::whole(batch)]))
            });
            self.judge.note(About::Store, t, &decision);
            decision.keep
        };
        let done = store.decide(self.judge.wait(), &mut judge)?;
        if done.unread > 0 {
            tracing::warn!(traces = done.unread, "tail sampling: traces that cannot be read are kept");
        }
        Ok(())
    }

    /// The verdict on what left of a trace, if that was all of it: then the
    /// store has what others have, and budgets are used once.
    fn followed(&self, t: &TraceSummary) -> Option<TailDecision> {
        let ruling = self.buffer.as_ref()?.ruling(t.trace_id)?;
        (u64::from(ruling.spans) == t.spans).then(|| TailDecision {
            keep: ruling.keep,
            rule: ruling.rule,
            rate: ruling.rate,
            over_budget: false,
            at: self.judge.now(),
        })
    }

    /// What the rules did, for metrics and status.
    pub fn figures(&self, gauges: &mut Vec<Gauge>) {
        self.judge.figures(gauges);
        if let Some(buffer) = &self.buffer {
            ways::figures(buffer, gauges);
        }
    }
}

#[cfg(test)]
mod tests;
