//! Questions: what a client asks becomes a [`spanloom_model::Search`], what a
//! store answers becomes a tree. Pure: time is an argument, nothing waits.
//!
//! | file | holds |
//! |---|---|
//! | `params.rs` | [`Params`]: a URL's query string; ids, durations and times in text |
//! | `tags.rs` | a tag as users write it → condition |
//! | `jaeger.rs` | parameters of Jaeger's two APIs |
//! | `zipkin.rs` | parameters of Zipkin's API |
//! | `language.rs` | our query language: `service:api status:error duration:>200ms` |
//! | `traceql/` | [`traceql::Query`]: TraceQL, as Tempo's users write it |
//! | `trace.rs` | [`trace::Tree`]: parents, orphans, self time, critical path |
//! | `dependencies.rs` | calls between services as the APIs show them |
#![forbid(unsafe_code)]

pub mod dependencies;
pub mod jaeger;
pub mod language;
mod params;
mod tags;
pub mod trace;
pub mod traceql;
pub mod zipkin;

pub use params::{Params, parse_go_duration, parse_rfc3339, parse_trace_id, print_rfc3339};

/// A question that cannot be understood, in words for the client. APIs answer
/// 400 with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);
