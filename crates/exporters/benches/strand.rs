//! What it costs to compress spans as they come, each request flushed, against
//! compressing them all at once.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use bytes::Bytes;
use spanloom_benchkit::Group;
use spanloom_codec::datadog::agent_payload::encode_tracer_payload;
use spanloom_codec::datadog::{Encoding, RequestMeta, decode_traces};
use spanloom_model::{Intake, Protocol};
use std::path::Path;
use zstd::stream::raw::{CParameter, Encoder, InBuffer, Operation, OutBuffer};

// The program's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/bench");
    let meta =
        RequestMeta { lang: "python", lang_version: "3.11", tracer_version: "4.16.0", ..Default::default() };
    let Ok(body) = std::fs::read(dir.join("dd-v04-10sp-1m.msgpack")).map(Bytes::from) else { return };
    let batch =
        decode_traces(Protocol::DatadogV04, Encoding::Msgpack, body, Intake::default(), &meta).unwrap();
    let mut items = Vec::new();
    for (i, _) in batch.chunks.iter().enumerate() {
        let mut n = 0;
        let part = batch.part(|_| {
            n += 1;
            n == i + 1
        });
        let mut out = Vec::new();
        encode_tracer_payload(&part, 0, &mut out);
        items.push(out);
    }
    let all = items.concat();
    for per in [1usize, 10, 100, 1000] {
        let items: Vec<Vec<u8>> = items.chunks(per).map(<[Vec<u8>]>::concat).collect();
        let mut bulk = zstd::bulk::Compressor::new(1).unwrap();
        let mut encoder = Encoder::new(1).unwrap();
        encoder.set_parameter(CParameter::WindowLog(22)).unwrap();
        encoder.set_parameter(CParameter::HashLog(15)).unwrap();
        let mut out = Vec::new();
        let mut total = 0;
        Group::new(
            &format!("{} items of {} bytes", items.len(), all.len() / items.len()),
            all.len(),
            batch.spans.len(),
        )
        .case("all at once", || bulk.compress(&all).unwrap().len())
        .case("flushed", || {
            encoder.reinit().unwrap();
            total = 0;
            for item in &items {
                out.clear();
                out.reserve(zstd::zstd_safe::compress_bound(item.len()));
                let mut output = OutBuffer::around(&mut out);
                let mut input = InBuffer::around(item);
                while input.pos() < item.len() {
                    encoder.run(&mut input, &mut output).unwrap();
                }
                assert_eq!(encoder.flush(&mut output).unwrap(), 0);
                total += output.pos();
            }
            total
        })
        .run();
        eprintln!("{} flushed, {} at once", total, bulk.compress(&all).unwrap().len());
    }
}
