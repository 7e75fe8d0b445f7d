//! Integration tests of the store.
#![allow(clippy::unwrap_used)] // helpers outside #[test] functions expect success too

mod basics;
mod ids;
mod jaeger_cases;
mod oracle;
#[path = "../../../journal/tests/it/sample.rs"]
mod sample;
mod support;
mod zipkin_cases;
