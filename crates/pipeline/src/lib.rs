//! How batches move through the program. The only room that starts long-lived
//! threads and tasks; it decides nothing about spans.
//!
//! ```text
//! receiver ─ reserve(bytes) ─ decode ─ submit ─▶ queue ─▶ worker: processors ─▶ fan-out ─▶ store
//!     ▲            │                                                              └─────▶ exporters
//!     └─ refused ──┘        answer ◀─────── all destinations acknowledged ◀──────────────────┘
//! ```
//!
//! A small batch that need not wait skips the queue and the change of threads;
//! a large body is decoded by the worker, too.
//!
//! Invariants:
//! * What is in memory is paid for: a [`Permit`] travels with a batch from the
//!   first byte of its body until every destination has acknowledged it.
//! * Nothing ends silently: an [`Account`] travels with it too, and whatever
//!   happens (even a panic), its spans end under exactly one outcome of the
//!   [`Ledger`].
//! * Every queue is bounded; full means wait a while, then refuse.
//!
//! | file | holds |
//! |---|---|
//! | `admission.rs` | [`Budget`], [`Permit`]: bytes in memory |
//! | `ledger.rs`, `tables.rs` | [`Ledger`], [`Account`]: what became of every span |
//! | `snapshot.rs` | [`Snapshot`]: the ledger read, for metrics and status |
//! | `queue.rs` | the bounded queue between receivers and workers |
//! | `processor.rs` | [`Processor`], [`Effects`], [`Saved`] |
//! | `fanout.rs` | [`Exporter`], [`Destination`]: one batch to the store and to exporters |
//! | `lane.rs` | a chain of processors: a batch in, deliveries out, panics contained |
//! | `gather.rs` | small batches of one turn of a thread, worked on together |
//! | `engine.rs` | [`Pipeline`], [`Inlet`]: workers, submission, drain |
//! | `rates.rs` | [`Rates`]: sampling rates on their way back to tracers |
//! | `stats_sink.rs` | [`StatsSink`]: where client statistics go |
//! | `drain.rs` | [`Stop`]: ordered shutdown, then immediate |
//! | `supervisor.rs` | [`Supervisor`]: named tasks, restart, health |
//! | `clock.rs` | [`Clock`] |
#![forbid(unsafe_code)]

mod admission;
mod clock;
mod drain;
mod engine;
mod fanout;
mod gather;
mod lane;
mod ledger;
mod processor;
mod queue;
mod rates;
mod snapshot;
mod stats_sink;
mod supervisor;
mod tables;

pub use admission::{Budget, Busy, Permit};
pub use clock::{Clock, SystemClock};
pub use drain::{Phase, Stop, StopWatch};
pub use engine::{Accepted, Config, DrainReport, Inlet, Pipeline, Refused};
pub use fanout::{DeliveryCount, Destination, Exporter};
pub use lane::ChainFactory;
pub use ledger::{Account, Ledger, Outcome, PayloadOutcome, Recorder, Verdict};
pub use processor::{Effects, Processor, SaveFn, Saved};
pub use rates::{Rates, RatesSnapshot};
pub use snapshot::{NoteCount, OutcomeCount, PayloadCount, ReceivedCount, Snapshot, SourceCount};
pub use stats_sink::{ClientStats, DiscardStats, StatsBusy, StatsSink};
pub use supervisor::{Supervisor, TaskHealth, TaskState};
