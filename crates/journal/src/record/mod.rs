//! A batch as bytes: what the store's log and its live spans consist of.
//!
//! Everything that repeats is written once per record: texts, operations
//! (service, name, resource, type, kind, scope together), and attribute shapes
//! (the keys and types of a span's attributes). A span is then a dozen small
//! numbers, and its attributes are one number each.
//!
//! ```text
//! version u8 | protocol u8 | transport u8 | client flags | received_at
//! sections, each: length, bytes
//!   texts      count, lengths, bytes            all UTF-8
//!   blobs      count, lengths, bytes            values of type bytes
//!   operations service, name, resource, type (texts), kind, scope + 1
//!   shapes     count, then key << 4 | type for each attribute
//!   resources, scopes
//!   chunks     trace id, resource, spans, …, bytes of its part of the next three
//!   spans      operation, bits, ids, start, duration
//!   attributes shape, values
//!   extras     rare fields, links, events
//! ```
//!
//! Only chunks whose fate is [`spanloom_model::Fate::Kept`] are written; what
//! the samplers said is not. Reading is bounded: every element takes at least
//! one byte of the record, so a record of n bytes makes at most a few dozen
//! times n bytes of tables.

mod decode;
mod dict;
mod encode;

pub use decode::{OpHead, View, decode};
pub use encode::{ChunkHead, Encoded, Encoder, Rules};

/// Version that [`Encoder`] writes; [`decode`] reads this and all older ones.
pub const VERSION: u8 = 1;

/// Deepest nesting of list and map values; deeper ones become empty values.
/// Decoders of requests refuse or cut far earlier.
pub const MAX_DEPTH: usize = 100;

/// Why bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Written by a newer program.
    #[error("the record has version {0}; this program reads up to {VERSION}")]
    Newer(u8),
    /// It ends too early, or a count exceeds what is left.
    #[error(transparent)]
    Short(#[from] crate::ShortRead),
    /// A position points outside its table, or a text is not UTF-8.
    #[error("the record is damaged: {0}")]
    Damaged(&'static str),
}

/// Types of attribute values.
mod tag {
    pub const EMPTY: u32 = 0;
    pub const STR: u32 = 1;
    pub const BOOL: u32 = 2;
    pub const INT: u32 = 3;
    pub const DOUBLE: u32 = 4;
    /// A double without fraction, written like an integer: most Datadog metrics.
    pub const WHOLE: u32 = 5;
    pub const BYTES: u32 = 6;
    pub const LIST: u32 = 7;
    pub const MAP: u32 = 8;
}

/// Bits of a span.
mod bit {
    pub const STATUS: u8 = 0b11;
    pub const ERROR: u8 = 1 << 2;
    pub const EXTRA: u8 = 1 << 3;
    /// The parent is another span of the chunk, written as a distance.
    pub const PARENT_NEAR: u8 = 1 << 4;
    /// The parent's id is written.
    pub const PARENT_FAR: u8 = 1 << 5;
}

/// Bits of a chunk.
mod chunk_bit {
    pub const DROPPED: u8 = 1;
    /// Priority, origin, attributes or mechanism follow.
    pub const EXTRA: u8 = 2;
    /// Earliest and latest start follow.
    pub const STARTED: u8 = 4;
    /// A span of it has no start.
    pub const STARTLESS: u8 = 8;
}
