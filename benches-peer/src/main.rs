//! Decoding of Datadog payloads: this project against DataDog/libdatadog's
//! decoder (crate `libdd-trace-utils`), both against a structural walk.
//!
//! Run with `cargo run --release` in this folder.

use bytes::Bytes;
use libdd_trace_utils::msgpack_decoder as peer;
use spanloom_benchkit::Group;
use spanloom_codec::datadog::{Encoding, RequestMeta, decode_traces};
use spanloom_codec::msgpack::Reader;
use spanloom_model::{Intake, Protocol};
use std::path::Path;

// The program's allocator, for both.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Spans and tags of a peer's result, so that both sides count the same.
macro_rules! count {
    ($traces:expr) => {{
        let mut n = (0, 0);
        for span in $traces.iter().flatten() {
            n.0 += 1;
            n.1 += span.meta.len() + span.metrics.len() + span.meta_struct.len();
        }
        n
    }};
}

fn main() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/bench");
    let meta =
        RequestMeta { lang: "python", lang_version: "3.11", tracer_version: "4.16.0", ..Default::default() };
    for name in ["10sp-100k", "10sp-1m", "100sp-1m", "1000sp-500k", "mix3"] {
        for (version, protocol) in [("v04", Protocol::DatadogV04), ("v05", Protocol::DatadogV05)] {
            let body =
                Bytes::from(std::fs::read(dir.join(format!("dd-{version}-{name}.msgpack"))).expect("a body"));
            let ours = || {
                decode_traces(protocol, Encoding::Msgpack, body.clone(), Intake::default(), &meta)
                    .expect("a batch")
            };
            let shared = libdd_tinybytes::Bytes::from(body.to_vec());
            let decoded = ours();
            let attrs: usize = decoded.spans.iter().map(|s| s.attrs.len()).sum();
            // Both must have found the same before their times mean anything.
            let (spans, tags) = if version == "v04" {
                count!(peer::v04::from_slice(&body).expect("traces").0)
            } else {
                count!(peer::v05::from_slice(&body).expect("traces").0)
            };
            assert_eq!((spans, tags), (decoded.spans.len(), attrs), "{version} {name}");
            let group = Group::new(&format!("traces {version} {name}"), body.len(), spans)
                .case("structural walk", || {
                    let mut r = Reader::new(&body);
                    r.skip().expect("a whole body");
                    r.pos()
                })
                .case("ours", || ours().attrs.len());
            if version == "v04" {
                group
                    .case("libdd-trace-utils, borrowed", || {
                        peer::v04::from_slice(&body).expect("traces").0.len()
                    })
                    .case("libdd-trace-utils, shared bytes", || {
                        peer::v04::from_bytes(shared.clone()).expect("traces").0.len()
                    })
                    .run();
            } else {
                group
                    .case("libdd-trace-utils, borrowed", || {
                        peer::v05::from_slice(&body).expect("traces").0.len()
                    })
                    .case("libdd-trace-utils, shared bytes", || {
                        peer::v05::from_bytes(shared.clone()).expect("traces").0.len()
                    })
                    .run();
            }
        }
    }
}
