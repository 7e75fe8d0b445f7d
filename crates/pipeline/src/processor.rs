//! What decides about spans on their way.

use crate::Ledger;
use spanloom_model::Batch;

/// One step of the chain that every batch goes through, in a worker thread or
/// where a small request is received. Synchronous, no I/O, no clock. A step may
/// edit the batch and set the fate of its chunks; it does not remove chunks or
/// spans (that would leave them unaccounted: the ledger counts them as lost).
pub trait Processor: Send {
    /// Works on a batch. `now`: nanoseconds since the Unix epoch.
    fn process(&mut self, batch: &mut Batch, now: i64, fx: &mut Effects);

    /// Called when what came through has been handed to its destinations, once
    /// for several batches. What was begun by [`Effects::save`] and left for
    /// later is finished now.
    fn settle(&mut self) {}
}

/// Held by whatever makes something safe; dropped when it is safe, or cannot be.
pub struct Saved(Option<Box<dyn FnOnce() + Send>>);

impl Saved {
    /// `then` is called once, when this is dropped.
    pub fn new(then: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(then)))
    }
}

impl Drop for Saved {
    fn drop(&mut self) {
        if let Some(then) = self.0.take() {
            then();
        }
    }
}

/// Makes safe what a processor holds beside the batch.
pub type SaveFn = Box<dyn FnOnce(Saved) + Send>;

/// What a processor has to say besides its edits.
#[derive(Default)]
pub struct Effects {
    notes: Vec<(&'static str, &'static str, u64)>,
    saves: Vec<SaveFn>,
}

impl Effects {
    /// Counts an event in the ledger (`spans_malformed`, `service_empty`).
    pub fn note(&mut self, event: &'static str, reason: &'static str, n: u64) {
        match self.notes.iter_mut().find(|(e, r, _)| *e == event && *r == reason) {
            Some((_, _, sum)) => *sum += n,
            None => self.notes.push((event, reason, n)),
        }
    }

    /// Has something made safe before the client is answered. `save` is called
    /// when the batch is handed to its destinations, and not at all if it never
    /// is. It may leave to [`Processor::settle`] what is cheaper for many at
    /// once. Whether it succeeds does not decide what becomes of the spans: a
    /// failure is its own to count.
    pub fn save(&mut self, save: impl FnOnce(Saved) + Send + 'static) {
        self.saves.push(Box::new(save));
    }

    pub(crate) fn take_saves(&mut self) -> Vec<SaveFn> {
        std::mem::take(&mut self.saves)
    }

    /// What was counted.
    pub fn notes(&self) -> &[(&'static str, &'static str, u64)] {
        &self.notes
    }

    pub(crate) fn flush(&mut self, ledger: &Ledger) {
        for (event, reason, n) in self.notes.drain(..) {
            ledger.note(event, reason, n);
        }
    }
}
