//! One acknowledgement out of many.

use crate::spool::SpoolError;
use spanloom_journal::JournalError;
use spanloom_model::{AckFn, StoreError};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Calls back when all queues have answered. If one refused, so does the whole:
/// the client sends again, and the queues that have it already get it twice,
/// which is better than one that never gets it.
pub(crate) struct AllOf {
    left: AtomicUsize,
    failed: Mutex<Option<StoreError>>,
    done: Mutex<Option<AckFn>>,
}

impl AllOf {
    /// Waits for `n` answers, at least one.
    pub(crate) fn new(n: usize, done: AckFn) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(n), failed: Mutex::new(None), done: Mutex::new(Some(done)) })
    }

    pub(crate) fn one(&self, result: Result<(), StoreError>) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = result {
            *failed = Some(error);
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let result = failed.take().map_or(Ok(()), Err);
            drop(failed);
            if let Some(done) = self.done.lock().unwrap_or_else(PoisonError::into_inner).take() {
                done(result);
            }
        }
    }
}

/// A queue's refusal in the words of the pipeline.
pub(crate) fn refusal(error: SpoolError) -> StoreError {
    match error {
        SpoolError::Journal(JournalError::Closed) => StoreError::Closed,
        SpoolError::Journal(e @ (JournalError::Full { .. } | JournalError::Behind { .. })) => {
            StoreError::Busy(e.to_string())
        }
        e => StoreError::Write(e.to_string()),
    }
}
