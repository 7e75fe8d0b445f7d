//! Integration tests of the statistics.
#![allow(clippy::unwrap_used, clippy::panic)]

mod client;
mod concentrator;
mod log;
mod make;
mod payload;
mod properties;
mod recordings;
mod red;
mod vectors;
