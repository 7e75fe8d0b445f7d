//! What decides about spans on their way.

use crate::Ledger;
use spanloom_model::Batch;

/// One step of the chain that every batch goes through, in a worker thread.
/// Synchronous, no I/O, no clock. A step may edit the batch and set the fate
/// of its chunks; it does not remove chunks or spans (that would leave them
/// unaccounted: the ledger counts them as lost).
pub trait Processor: Send {
    /// Works on a batch. `now`: nanoseconds since the Unix epoch.
    fn process(&mut self, batch: &mut Batch, now: i64, fx: &mut Effects);

    /// Called about once a second in each worker, also when nothing arrives.
    fn tick(&mut self, _now: i64, _fx: &mut Effects) {}

    /// Called once, after the last batch.
    fn finish(&mut self, _now: i64, _fx: &mut Effects) {}
}

/// What a processor has to say besides its edits.
#[derive(Default, Debug)]
pub struct Effects {
    notes: Vec<(&'static str, &'static str, u64)>,
}

impl Effects {
    /// Counts an event in the ledger (`spans_malformed`, `service_empty`).
    pub fn note(&mut self, event: &'static str, reason: &'static str, n: u64) {
        match self.notes.iter_mut().find(|(e, r, _)| *e == event && *r == reason) {
            Some((_, _, sum)) => *sum += n,
            None => self.notes.push((event, reason, n)),
        }
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
