//! Integration tests of the samplers.
#![allow(clippy::unwrap_used, clippy::panic)]

mod decide;
mod make;
mod samplers;
mod simulations;
mod tail;
mod vectors;
