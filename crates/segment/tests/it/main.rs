//! Integration tests of segments.

mod gen_spans;
mod merging;
mod numbers;
mod robust;
mod roundtrip;
mod search;
mod version;
