//! What was decided about every trace: by which rule, at which rate, when. A
//! bounded log on disk that finds a trace by its id.
//!
//! ```text
//! record ─▶ open block (memory, and a log beside it) ─▶ sealed block (sorted by hash)
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `row.rs` | [`Decision`], [`Outcome`], and its 32 bytes |
//! | `open.rs` | the block that is being filled, and its log |
//! | `block.rs` | sealed blocks: format, writing, looking up |
//! | `log.rs` | [`Decisions`]: the blocks together, bounds, restart, the thread |
//!
//! Invariants: memory is a few blocks, whatever was recorded; a look-up reads
//! two small pieces of each block; damage costs the piece it touches; what was
//! recorded is on its way to the disk within [`TICK`].
#![forbid(unsafe_code)]

mod block;
mod log;
mod open;
mod row;

pub use log::{Answer, Config, Decisions, DecisionsError, Stats, TICK};
pub use row::{Decision, Outcome, to};

/// Fuzzing: any bytes as a sealed block and as the log of an open one.
#[doc(hidden)]
pub fn decode_any(bytes: &[u8]) {
    let mut open = open::Open::default();
    let _ = open.read(bytes);
    if let Ok(head) = block::parse_head(bytes, bytes.len() as u64) {
        let _ = block::parse_meanings(&head, bytes);
    }
}
