//! The nouns of Spanloom. No I/O, no runtime, no clock: every other room
//! depends on this one, so it stays small and changes slowly.
//!
//! | file | holds |
//! |---|---|
//! | `id.rs` | [`TraceId`] (128 bit), [`SpanId`], parsing and printing |
//! | `text.rs` | [`Text`] and [`Arena`]: text as a slice of the received body |
//! | `attr.rs` | [`Attr`], [`Value`], [`Range32`]: typed attributes in one flat table |
//! | `span.rs` | [`Span`], [`SpanKind`], [`Status`], [`Link`], [`Event`], span flags |
//! | `batch.rs` | [`Batch`]: chunks of spans with their resources; all editing goes through it |
//! | `intake.rs` | [`Intake`]: protocol, transport and client flags of the request a batch came in |
//! | `key_bits.rs` | [`KeyBits`]: which keys a span may have, in two words |
//! | `keys.rs` | well-known attribute keys |
//! | `predicate.rs` | [`Expr`]: conditions on one span, and their evaluation |
//! | `peer.rs` | [`remote_service`]: the two ends of a call |
//! | `dependency.rs` | [`Links`]: calls between services, read off whole traces |
//! | `red.rs` | [`RedFilter`], [`RedSeries`]: requests, errors and durations |
//! | `stats.rs` | [`stats`]: statistics as tracers send them and as they leave |
//! | `storage.rs` | [`SpanWriter`], [`SpanReader`], [`Search`]: the seam to any store |
//! | `draft.rs`, `memory.rs`, `contract.rs` | for tests (`test-util`): spans in one line, the reference store, what every store must do |
#![forbid(unsafe_code)]

mod attr;
mod batch;
#[cfg(any(test, feature = "test-util"))]
pub mod contract;
mod dependency;
#[cfg(any(test, feature = "test-util"))]
pub mod draft;
mod id;
mod intake;
mod key_bits;
pub mod keys;
#[cfg(any(test, feature = "test-util"))]
pub mod memory;
mod peer;
mod predicate;
mod red;
mod span;
pub mod stats;
mod storage;
mod text;

pub use attr::{Attr, Range32, Value};
pub use batch::{
    Batch, Chunk, Fate, Leaves, NO_SCOPE, PRIORITY_NONE, ROUTE_DEFAULT, ROUTE_NOWHERE, Resource, Sampled,
    Scope,
};
pub use dependency::Links;
pub use id::{IdError, SpanId, TraceId};
pub use intake::{ClientFlags, Intake, Protocol, Transport};
pub use key_bits::{KeyBits, key_hash, key_hash_of, key_tail, same_bytes};
pub use peer::remote_service;
pub use predicate::{AttrScope, Cond, Expr, Literal, Op, is_intrinsic};
pub use red::{RedFilter, RedPoint, RedSeries};
pub use span::{Event, Link, Span, SpanKind, Status, flags};
pub use storage::{
    AckFn, AttrKey, Cursor, Dependency, Operation, Search, ServiceCount, SpanReader, SpanWriter, StoreError,
    TimeRange, TraceSummary, WindowOn,
};
pub use text::{Arena, Text};
