//! Decoding of Zipkin JSON and protobuf, and of Jaeger's Thrift, against the
//! cheapest thing that looks at every value of the same body, and against a
//! JSON document made by serde_json. The bodies are the spans of the OTLP
//! benchmark bodies, written by our encoders.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use bytes::Bytes;
use spanloom_benchkit::Group;
use spanloom_codec::protobuf::{Field, Reader};
use spanloom_codec::thrift::{Encoding, Reader as Thrift, Type};
use spanloom_codec::{jaeger, json, otlp, zipkin};
use spanloom_model::Intake;
use std::path::Path;

// The program's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/bench");
    for name in ["10sp-100k", "10sp-1m", "mix3"] {
        let Ok(body) = std::fs::read(dir.join(format!("otlp-proto-{name}.bin"))).map(Bytes::from) else {
            eprintln!("otlp-proto-{name}.bin is missing");
            continue;
        };
        let intake = Intake::default();
        let source = otlp::decode_proto(body, intake).unwrap().batch;

        let mut text = Vec::new();
        zipkin::encode_json_v2(&source, &mut text);
        let text = Bytes::from(text);
        let batch = zipkin::decode_json_v2(text.clone(), intake).unwrap();
        let mut out = Vec::new();
        Group::new(&format!("Zipkin JSON v2 {name}"), text.len(), batch.spans.len())
            .case("structural walk", || {
                let mut reader = json::Reader::new(&text).unwrap();
                reader.skip().unwrap();
                reader.position()
            })
            .case("decode into the model", || {
                zipkin::decode_json_v2(text.clone(), intake).unwrap().attrs.len()
            })
            .case("serde_json to a document", || {
                serde_json::from_slice::<serde_json::Value>(&text).unwrap().as_array().unwrap().len()
            })
            .case("encode", || {
                out.clear();
                zipkin::encode_json_v2(&batch, &mut out);
                out.len()
            })
            .run();

        let mut proto = Vec::new();
        zipkin::encode_proto(&source, &mut proto);
        let proto = Bytes::from(proto);
        Group::new(&format!("Zipkin protobuf {name}"), proto.len(), source.spans.len())
            .case("structural walk", || walk(Reader::new(&proto), 0))
            .case("decode into the model", || {
                zipkin::decode_proto(proto.clone(), intake).unwrap().attrs.len()
            })
            .run();

        let thrift: Vec<Bytes> = jaeger::encode_thrift(&source).into_iter().map(Bytes::from).collect();
        let size = thrift.iter().map(Bytes::len).sum();
        Group::new(&format!("Jaeger Thrift {name}"), size, source.spans.len())
            .case("structural walk", || {
                thrift
                    .iter()
                    .map(|body| {
                        Thrift::new(body, Encoding::Binary).skip(Type::Struct).map_or(0, |()| body.len())
                    })
                    .sum()
            })
            .case("decode into the model", || {
                let one = |body: &Bytes| {
                    jaeger::decode_thrift_http(body.clone(), intake).unwrap().batch.attrs.len()
                };
                thrift.iter().map(one).sum()
            })
            .run();
    }
}

/// Passes over every field of a list of spans; gives their number.
fn walk(mut reader: Reader<'_>, level: u32) -> usize {
    let mut fields = 0;
    while let Some((number, field)) = reader.next_field().unwrap() {
        fields += 1;
        if let Field::Len(at) = field
            && (level == 0 || (level == 1 && number >= 8))
        {
            fields += walk(reader.nested(at), level + 1);
        }
    }
    fields
}
