//! Immutable columnar segments.
//!
//! A segment is a directory `seg-<minstart>-<maxstart>-<id>/` with three
//! files: `spans.parquet` (one row per span, sorted by trace id and start;
//! any Parquet reader opens it), `traces` (one record per trace) and `index`
//! (page directory, trace filter, postings, tags, zone maps). The
//! layout and its reasons are described in this crate's README.
//!
//! | file | holds |
//! |---|---|
//! | `build.rs` | [`write_segment`]: batches to a segment |
//! | `prepare.rs` | … first pass: texts and attribute sets to numbers |
//! | `content.rs` | parts of a span as JSON |
//! | `merge.rs` | [`merge`]: several segments to one |
//! | `promote.rs` | which attributes get a column of their own |
//! | `writer.rs` | rows to files: row groups, page directory, sections, atomic appearance |
//! | `column.rs` | one column chunk: dictionary or plain pages, postings |
//! | `tags.rs` | which blocks hold an attribute with a given value |
//! | `traces.rs` | the trace table: [`TracePart`], operations |
//! | `format.rs` | the file `index`: sections, checksums, trace filter |
//! | `segment.rs` | [`Segment`]: an open segment; finding and decoding its parts |
//! | `values.rs` | names, attribute keys and values that occur |
//! | `page.rs` | decoded pages and dictionaries |
//! | `rows.rs` | rows back to spans |
//! | `recent.rs` | traces in order of time, and by operation |
//! | `hits.rs` | [`Segment::search`], [`Segment::hits`]: which traces meet a search, newest first |
//! | `search.rs` | whether rows meet a condition |
//! | `cache.rs` | [`Cache`]: bounded, shared by all segments |
//! | `number.rs` | traces by their number, for users that keep a bit per trace |
//! | `schema.rs` | the columns and their Parquet types |
//! | `encoding.rs` | Parquet value encodings and bounded reading |
//! | `json.rs` | exact JSON of structured values |
//! | `intern.rs` | byte strings to numbers |
//! | `fuzz.rs` | one pure entry to all decoders, for fuzzing |
//! | `error.rs` | [`SegmentError`] |
#![forbid(unsafe_code)]
mod build;
mod cache;
mod column;
mod content;
mod encoding;
mod error;
mod format;
#[doc(hidden)]
pub mod fuzz;
mod hits;
mod intern;
mod json;
mod merge;
mod meta;
mod number;
mod page;
mod prepare;
mod promote;
mod recent;
mod rows;
mod schema;
mod search;
mod segment;
mod tags;
mod traces;
mod values;
mod writer;

pub use build::write_segment;
pub use cache::Cache;
pub use error::SegmentError;
pub use hits::{Hit, Hits};
pub use merge::merge;
pub use meta::SegmentMeta;

pub use segment::Segment;
pub use traces::{RootSpan, TracePart};
pub use writer::WriteOptions;
