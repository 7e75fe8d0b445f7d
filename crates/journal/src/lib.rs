//! A durable append log and the record it holds. The store writes batches to
//! it; exporters write opaque payloads.
//!
//! | file | holds |
//! |---|---|
//! | `frame.rs` | one frame: layout, checksum, and the scan that finds intact frames in damaged bytes |
//! | `files.rs` | names, headers and listing of the log's files; fsync of directories |
//! | `recover.rs` | reading a directory after a crash: [`Recovery`], what was lost and where |
//! | `log.rs` | [`Journal`]: append, low-water mark, bounds, read back |
//! | `writer.rs` | the one thread that writes: group commit, rolling, failure |
//! | `varint.rs` | bounded integers: [`Reader`], [`Writer`] |
//! | `record/` | [`record::Encoder`], [`record::decode`]: a batch as compact bytes |
//!
//! Invariants: sequence numbers only grow, also across restarts; a `done`
//! callback is called exactly once, or given back; damage costs the frames it touches and no
//! others; nothing is deleted that was not released or damaged at the tail of
//! the newest file.
#![forbid(unsafe_code)]

mod files;
mod frame;
mod log;
pub mod record;
mod recover;
mod varint;
mod writer;

pub use files::{HEADER_LEN, sync_dir};
pub use frame::{FRAME_HEADER, Found, Loss, MAX_PAYLOAD, Scan, scan, write_frame};
pub use log::{Config, DoneFn, Fault, Journal, JournalError, JournalStats, Refused, SyncPolicy};
pub use recover::{FileLoss, FrameRef, Recovery};
pub use varint::{Reader, ShortRead, Writer};
