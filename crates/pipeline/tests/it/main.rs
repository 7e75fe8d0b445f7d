//! Integration tests of the pipeline.
#![allow(clippy::unwrap_used)] // helpers of tests say what they expect
mod flow;
mod gather;
mod overload;
mod support;
