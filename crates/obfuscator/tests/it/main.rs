//! Vectors, properties and mutations.
#![allow(clippy::unwrap_used, clippy::panic)] // tests say what they expect by unwrapping

mod vectors;
