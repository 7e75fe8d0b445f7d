//! Integration tests of the receivers, over real sockets.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests say what they expect

mod golden;
mod hostile;
mod listeners;
mod overload;
mod proxies;
mod replies;
mod support;
