//! Integration tests of the store.
#![allow(clippy::unwrap_used)] // helpers outside #[test] functions expect success too

mod basics;
mod contract;
mod crash;
mod ids;
mod oracle;
#[path = "../../../journal/tests/it/sample.rs"]
mod sample;
mod support;
mod tail;
mod upkeep;
mod versions;
