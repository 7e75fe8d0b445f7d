//! Integration tests of the journal.
#![allow(clippy::unwrap_used)] // helpers outside #[test] functions expect success too

mod here;
mod log;
mod record;
mod sample;
