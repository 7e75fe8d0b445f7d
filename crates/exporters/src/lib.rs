//! Doors out: what leaves the machine, and how it waits when it cannot.
//!
//! | file | holds |
//! |---|---|
//! | `spool.rs` | [`Spool`]: a bounded queue on disk for one destination |
//! | `sender.rs` | [`Sender`]: sends, retries, backs off |
//! | `transport.rs` | [`Transport`]: the HTTP client, passed in |
//! | `datadog.rs` | [`DatadogExporter`]: traces and statistics to the Datadog intake |
#![forbid(unsafe_code)]

mod datadog;
mod sender;
mod spool;
mod transport;

pub use datadog::{DatadogConfig, DatadogExporter, DestinationStats, MAX_PAYLOAD};
pub use sender::{Endpoint, Sender};
pub use spool::{Claim, Pending, Request, Spool, SpoolConfig, SpoolError, SpoolStats, Tried};
pub use transport::{NoAnswer, Post, Transport};
