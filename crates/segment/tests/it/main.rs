//! Integration tests of segments.

mod gen_spans;
mod roundtrip;
mod search;
