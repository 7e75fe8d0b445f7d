//! Bytes to model and back. One entry per wire format; every entry is a pure
//! function of its arguments, so that the receiver, the tests and the fuzzer
//! call the same thing.
//!
//! No input panics, and none allocates more than a small multiple of its own
//! size: counts are checked against the bytes left, nesting is bounded
//! ([`Limits`]).
//!
//! | file | holds |
//! |---|---|
//! | `error.rs` | [`DecodeError`]: what the receiver must answer; [`Limits`] |
#![forbid(unsafe_code)]

mod error;

pub use error::{DecodeError, Limits};
