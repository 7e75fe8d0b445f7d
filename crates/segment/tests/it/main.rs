//! Integration tests of segments.

mod gen_spans;
mod merging;
mod roundtrip;
mod search;
