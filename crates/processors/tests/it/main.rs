//! Tests of the processors against the shared vectors.
#![allow(clippy::unwrap_used, clippy::panic)] // a test says what it expects
mod steps;
mod vectors;
