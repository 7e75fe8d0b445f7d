//! Integration tests of the codec, one binary.
#![allow(clippy::unwrap_used, clippy::panic)]

mod datadog;
mod open;
