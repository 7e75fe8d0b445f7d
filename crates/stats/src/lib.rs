//! Trace statistics: every span is counted before anything is sampled away.
//!
//! No clock, no randomness, no I/O: time and random numbers are arguments.
//!
//! Code map
//!
//! | file | contents |
//! |---|---|
//! | `concentrator.rs` | [`Concentrator`]: counts spans into buckets of ten seconds |
//! | `concentrator/delta.rs` | [`Delta`], [`Replay`]: what counting changes, as records of a log, and back |
//! | `concentrator/source.rs` | who sent what is counted |
//! | `tally.rs` | [`Tally`]: what is to be counted of a batch, found out without the concentrator |
//! | `facts.rs` | one pass over a span's attributes |
//! | `client.rs` | [`ClientAggregator`]: merges what tracers counted |
//! | `payload.rs` | [`split`], [`encode`]: cutting and writing payloads for the intake |
//! | `red.rs` | [`Red`]: requests, errors and latencies kept for local answers |
//! | `red/saved.rs` | the same as records, to be there after a restart |
//! | `record.rs` | numbers and texts of records |
//! | `sketch.rs` | [`Sketch`]: latencies with 1 % accuracy, and its protobuf form |
//! | `rules.rs` | [`rules`]: small pure rules (status codes, hashes, weights) |
#![forbid(unsafe_code)]

mod client;
mod concentrator;
mod facts;
mod payload;
mod record;
mod red;
pub mod rules;
mod sketch;
mod tally;

pub use client::{ClientAggregator, ClientSettings, client_bucket_time, fold_duplicates};
pub use concentrator::{Concentrator, Counters, Delta, OVERFLOW, Replay, Settings};
pub use payload::{MAX_GROUPS, encode, encode_source, split};
pub use record::Malformed;
pub use red::{Red, RedSettings};
pub use sketch::{GAMMA, MAX_BINS, Sketch, SketchError, index as sketch_index, truncate_duration};
pub use spanloom_model::{RedFilter, RedPoint, RedSeries};
pub use tally::Tally;
