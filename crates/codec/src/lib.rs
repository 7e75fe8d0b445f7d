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
//! | `datadog/` | Datadog trace formats v0.1–v1.0, client stats |
//! | `error.rs` | [`DecodeError`]: what the receiver must answer; [`Limits`] |
//! | `jaeger_ui/` | traces as Jaeger UI reads them (output only) |
//! | `msgpack.rs` | bounded zero-copy reader |
#![forbid(unsafe_code)]

pub mod datadog;
mod error;
pub mod jaeger_ui;
pub mod msgpack;

pub use error::{DecodeError, Limits};
