//! The ledger as plain data, for `/metrics`, `spanloom status` and the API.

use crate::ledger::{OUTCOMES, Outcome, PayloadOutcome};
use spanloom_model::Protocol;

/// What a protocol brought in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReceivedCount {
    /// Wire format.
    pub protocol: Protocol,
    /// Spans decoded.
    pub spans: u64,
    /// Chunks decoded.
    pub traces: u64,
    /// Bytes of bodies.
    pub bytes: u64,
    /// Requests that have ended.
    pub payloads: u64,
}

/// Spans and chunks that ended in one way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutcomeCount {
    /// How.
    pub outcome: Outcome,
    /// Why; empty for kept and duplicate.
    pub reason: &'static str,
    /// Wire format.
    pub protocol: Protocol,
    /// Spans.
    pub spans: u64,
    /// Chunks.
    pub traces: u64,
}

/// Requests that ended in one way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PayloadCount {
    /// How.
    pub outcome: PayloadOutcome,
    /// Why; empty for accepted.
    pub reason: &'static str,
    /// Wire format.
    pub protocol: Protocol,
    /// Requests.
    pub payloads: u64,
    /// Traces that the clients said they sent.
    pub traces: u64,
    /// Bytes of bodies.
    pub bytes: u64,
}

/// Something counted that is no loss.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoteCount {
    /// What happened.
    pub event: &'static str,
    /// Why.
    pub reason: &'static str,
    /// How often.
    pub count: u64,
}

/// Spans of one service, or of one tracer language, by [`Outcome`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceCount {
    /// Name; empty when not known, `(other)` beyond the names kept apart.
    pub name: String,
    /// Spans, in the order of [`Outcome::ALL`].
    pub spans: [u64; OUTCOMES],
}

impl SourceCount {
    /// Spans that ended in this way.
    pub fn of(&self, outcome: Outcome) -> u64 {
        self.spans.get(outcome as usize).copied().unwrap_or_default()
    }
}

/// Everything the ledger has counted since the start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// By protocol.
    pub received: Vec<ReceivedCount>,
    /// By outcome, reason and protocol.
    pub outcomes: Vec<OutcomeCount>,
    /// By outcome, reason and protocol.
    pub payloads: Vec<PayloadCount>,
    /// By event and reason.
    pub notes: Vec<NoteCount>,
    /// Ended spans by service. Duplicates are among the kept here: the store
    /// does not know the service.
    pub services: Vec<SourceCount>,
    /// Ended spans by language of the tracer.
    pub clients: Vec<SourceCount>,
}

impl Snapshot {
    /// Spans received.
    pub fn received_spans(&self) -> u64 {
        self.received.iter().map(|r| r.spans).sum()
    }

    /// Spans that ended in this way, for any reason.
    pub fn spans(&self, outcome: Outcome) -> u64 {
        self.outcomes.iter().filter(|c| c.outcome == outcome).map(|c| c.spans).sum()
    }

    /// Requests that ended in this way, for any reason.
    pub fn payloads(&self, outcome: PayloadOutcome) -> u64 {
        self.payloads.iter().filter(|c| c.outcome == outcome).map(|c| c.payloads).sum()
    }

    /// Spans received that have not ended yet.
    pub fn in_flight(&self) -> u64 {
        let ended: u64 = self.outcomes.iter().map(|c| c.spans).sum();
        self.received_spans().saturating_sub(ended)
    }

    /// Whether received = the sum of all outcomes, in spans and in chunks, for
    /// every protocol. Holds whenever nothing is in flight.
    pub fn adds_up(&self) -> bool {
        Protocol::ALL.iter().all(|p| {
            let of = |f: fn(&OutcomeCount) -> u64| -> u64 {
                self.outcomes.iter().filter(|c| c.protocol == *p).map(f).sum()
            };
            let received = self.received.iter().find(|r| r.protocol == *p);
            received.map_or((0, 0), |r| (r.spans, r.traces)) == (of(|c| c.spans), of(|c| c.traces))
        })
    }
}
