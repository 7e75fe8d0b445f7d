//! Vectors, properties, mutations, and the differences from the reference.
#![allow(clippy::unwrap_used, clippy::panic)] // tests say what they expect by unwrapping

mod agreement;
mod differences;
mod mutations;
mod properties;
mod vectors;
