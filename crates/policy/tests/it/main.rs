//! The crate from outside.
#![allow(clippy::unwrap_used, clippy::panic)]

mod files;
mod properties;
mod vectors;
