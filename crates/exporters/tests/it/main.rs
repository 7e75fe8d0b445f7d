//! Tests of the queues on disk and of what is sent.
#![allow(clippy::unwrap_used, clippy::panic)] // a test says what it expects
mod outage;
mod routing;
mod spool;
mod stats_log;
