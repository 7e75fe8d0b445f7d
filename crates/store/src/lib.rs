//! The embedded span store.
//!
//! ```text
//! append ─▶ intake (duplicates, halves of ids) ─▶ log + live generation ─▶ segment ─▶ merged segments
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `store.rs` | [`Store`]: opening and replay, appending, the questions |
//! | `intake.rs` | recent spans (recognising what is sent again), recent ids (joining 64-bit halves), aliases |
//! | `live.rs` | generations: records of live spans with small indexes |
//! | `terms.rs` | what a record must contain for a condition to be met |
//! | `source.rs` | the questions that live generations and segments both answer |
//! | `segments.rs` | segments as sources; opening them at start |
//! | `search.rs` | newest first over all sources, cursor, window |
//! | `assemble.rs` | one trace from its pieces; its figures |
//! | `turned.rs` | span ids whose bytes came in the wrong order |
//! | `manifest.rs` | which segments there are; atomic edits |
//! | `maintenance.rs` | flush, compaction, retention, disk floor; the threads |
//! | `tail.rs` | decisions about whole traces once they are quiet; keeping one by hand |
//! | `drops.rs` | which traces are dropped and not yet removed |
//! | `stats.rs` | [`StoreStats`], [`RecoveryReport`], counters |
//! | `config.rs` | [`Config`], [`Clock`] |
//!
//! Invariants: an acknowledged span is in the log or in a segment of the
//! manifest; readers see one consistent list of sources; a generation leaves
//! memory, and its frames the log, only after its segment is in the manifest;
//! live spans, the log and the memories of the intake are bounded.
#![forbid(unsafe_code)]

mod assemble;
mod config;
mod drops;
mod error;
mod intake;
mod live;
mod maintenance;
mod manifest;
mod search;
mod segments;
mod source;
mod stats;
mod store;
mod tail;
mod terms;
mod turned;

pub use config::{Clock, Config, SystemClock};
pub use error::OpenError;
pub use spanloom_journal::SyncPolicy;
pub use stats::{Damage, RecoveryReport, StoreStats};
pub use store::Store;
pub use tail::{Decided, Judge, KeptByHand};
