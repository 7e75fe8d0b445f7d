//! Decoding of Datadog payloads against the cheapest thing that looks at every
//! value of the same body: a walk that passes over it. And encoding for the
//! trace intake, against a copy of what comes out.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use bytes::Bytes;
use spanloom_benchkit::Group;
use spanloom_codec::datadog::agent_payload::encode_tracer_payload;
use spanloom_codec::datadog::{Encoding, RequestMeta, decode_stats, decode_traces};
use spanloom_codec::msgpack::Reader;
use spanloom_model::{Intake, Protocol};
use std::path::Path;

// The program's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let meta =
        RequestMeta { lang: "python", lang_version: "3.11", tracer_version: "4.16.0", ..Default::default() };
    for name in ["10sp-100k", "10sp-1m", "100sp-1m", "mix3"] {
        for (version, protocol) in [("v04", Protocol::DatadogV04), ("v05", Protocol::DatadogV05)] {
            let file = dir.join(format!("bench/dd-{version}-{name}.msgpack"));
            let Ok(body) = std::fs::read(&file).map(Bytes::from) else {
                eprintln!("{} is missing", file.display());
                continue;
            };
            let decode = || {
                decode_traces(protocol, Encoding::Msgpack, body.clone(), Intake::default(), &meta).unwrap()
            };
            let spans = decode().spans.len();
            Group::new(&format!("traces {version} {name}"), body.len(), spans)
                .case("structural walk", || {
                    let mut r = Reader::new(&body);
                    r.skip().unwrap();
                    r.pos()
                })
                .case("decode into the model", || decode().attrs.len())
                .run();
        }
    }
    for name in ["10sp-100k", "1000sp-500k", "mix3"] {
        let Ok(body) = std::fs::read(dir.join(format!("bench/dd-v04-{name}.msgpack"))).map(Bytes::from)
        else {
            continue;
        };
        let batch =
            decode_traces(Protocol::DatadogV04, Encoding::Msgpack, body, Intake::default(), &meta).unwrap();
        let mut payload = Vec::new();
        encode_tracer_payload(&batch, 0, &mut payload);
        let (mut copy, mut out) = (Vec::new(), Vec::new());
        Group::new(&format!("tracer payload {name}"), payload.len(), batch.spans.len())
            .case("copy of the payload", || {
                copy.clear();
                copy.extend_from_slice(&payload);
                copy.len()
            })
            .case("encode the payload", || {
                out.clear();
                encode_tracer_payload(&batch, 0, &mut out);
                out.len()
            })
            .run();
    }
    let file = dir.join("python-ddtrace-4/stats-v04/016-v06-stats.bin");
    if let Ok(body) = std::fs::read(&file) {
        let groups = decode_stats(&body).unwrap().group_count();
        Group::new("client stats", body.len(), groups)
            .case("structural walk", || {
                let mut r = Reader::new(&body);
                r.skip().unwrap();
                r.pos()
            })
            .case("decode into the model", || decode_stats(&body).unwrap().group_count())
            .run();
    }
}
