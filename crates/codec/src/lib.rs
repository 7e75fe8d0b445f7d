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
//! | `jaeger/` | Jaeger: Thrift over HTTP and UDP, protobuf |
//! | `otlp/` | OTLP traces: protobuf and JSON |
//! | `zipkin/` | Zipkin v1 and v2: JSON, Thrift, protobuf |
//! | `error.rs` | [`DecodeError`]: what the receiver must answer; [`Limits`] |
//! | `jaeger_ui/` | traces as Jaeger UI reads them (output only) |
//! | `tempo.rs` | traces as Tempo answers them (output only) |
//! | `msgpack.rs` | bounded zero-copy reader |
//! | `protobuf.rs`, `thrift.rs`, `json.rs` | bounded zero-copy readers, and writers |
//! | `build.rs` | a batch under construction, for the decoders of mixed traces |
//! | `view.rs` | any span in the words of OTLP, for the encoders |
#![forbid(unsafe_code)]

mod build;
pub mod datadog;
mod error;
pub mod jaeger;
pub mod jaeger_ui;
pub mod json;
pub mod msgpack;
pub mod otlp;
pub mod protobuf;
pub mod tempo;
pub mod thrift;
pub mod view;
pub mod zipkin;

pub use error::{DecodeError, Limits};
