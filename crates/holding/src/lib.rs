//! What waits on disk for the verdict on its trace before it leaves.
//!
//! Exporters send pieces of traces as they come; rules over whole traces want
//! them together. This room stands in front of the exporters: it writes what
//! is to leave to a log, remembers of each trace only what rules ask first,
//! and lets a trace be judged once it has been quiet for a while. Pieces of
//! kept traces are read back and handed on; the others are forgotten.
//!
//! ```text
//! batch ─▶ log ─▶ table (figures by trace) ─ quiet ─▶ judge ─ keep ─▶ read back ─▶ exporter
//!            └─ acknowledged                            └─ drop ─▶ counted
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `way.rs` | [`Way`]: an exporter behind the buffer, and what it wants held |
//! | `piece.rs` | a piece of a trace: its figures, and how it is written |
//! | `mark.rs` | what the log remembers of verdicts and requests to keep |
//! | `table.rs` | what waits, by trace and by place in the log |
//! | `verdicts.rs` | [`Ruling`]s on traces that were judged lately |
//! | `buffer.rs` | [`Buffer`]: taking pieces in, restart, bounds, figures |
//! | `round.rs` | judging what is quiet, reading back, handing on |
//!
//! Invariants: a piece that was acknowledged is in the log until its exporter
//! has acknowledged it, or its trace was dropped; disk and memory are bounded,
//! and when they are used up the oldest traces are judged early; all pieces of
//! a trace follow one verdict, as long as it is remembered.
#![forbid(unsafe_code)]

mod buffer;
mod mark;
mod piece;
mod round;
mod table;
mod verdicts;
mod way;

pub use buffer::{Buffer, Config, HoldingError, KeptHere, Stats};
pub use round::{Judge, Spans};
pub use table::Waiting;
pub use verdicts::Ruling;
pub use way::{Held, Take, Way};

/// Fuzzing: any bytes as a frame of the log.
#[doc(hidden)]
pub fn decode_any(bytes: &[u8]) {
    let _ = piece::Pieces::read(bytes);
    let _ = mark::read_verdicts(bytes, &mut |_, _, _| ());
}
