//! Decoding of OTLP against the cheapest thing that looks at every field of
//! the same body, and against what one would use otherwise: message structs
//! made by prost, a JSON document made by serde_json.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

use bytes::Bytes;
use prost::Message;
use spanloom_benchkit::Group;
use spanloom_codec::datadog::from_otlp::{OtlpOptions, to_datadog};
use spanloom_codec::otlp::{decode_json, decode_proto, encode_json, encode_proto};
use spanloom_codec::protobuf::{Field, Reader};
use spanloom_model::Intake;
use std::path::Path;

// The program's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let options = OtlpOptions::default();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/bench");
    for name in ["10sp-100k", "10sp-1m", "30sp-500k", "1000sp-500k", "mix3"] {
        let Ok(body) = std::fs::read(dir.join(format!("otlp-proto-{name}.bin"))).map(Bytes::from) else {
            eprintln!("otlp-proto-{name}.bin is missing");
            continue;
        };
        let batch = decode_proto(body.clone(), Intake::default()).unwrap().batch;
        let mut out = Vec::new();
        Group::new(&format!("protobuf {name}"), body.len(), batch.spans.len())
            .case("structural walk", || walk(Reader::new(&body), REQUEST))
            .case("decode into the model", || {
                decode_proto(body.clone(), Intake::default()).unwrap().batch.attrs.len()
            })
            .case("translate to Datadog's words", || to_datadog(&batch, &options, "host").batch.attrs.len())
            .case("prost decode", || pb::Request::decode(body.clone()).unwrap().resource_spans.len())
            .case("encode", || {
                out.clear();
                encode_proto(&batch, &mut out);
                out.len()
            })
            .run();
    }
    for name in ["10sp-100k", "30sp-500k"] {
        let Ok(body) = std::fs::read(dir.join(format!("otlp-json-{name}.json"))).map(Bytes::from) else {
            eprintln!("otlp-json-{name}.json is missing");
            continue;
        };
        let batch = decode_json(body.clone(), Intake::default()).unwrap().batch;
        let mut out = Vec::new();
        Group::new(&format!("JSON {name}"), body.len(), batch.spans.len())
            .case("structural walk", || {
                let mut reader = spanloom_codec::json::Reader::new(&body).unwrap();
                reader.skip().unwrap();
                reader.position()
            })
            .case("decode into the model", || {
                decode_json(body.clone(), Intake::default()).unwrap().batch.attrs.len()
            })
            .case("serde_json to a document", || {
                serde_json::from_slice::<serde_json::Value>(&body).unwrap().as_object().unwrap().len()
            })
            .case("encode", || {
                out.clear();
                encode_json(&batch, &mut out);
                out.len()
            })
            .run();
    }
}

/// Which fields of a message are messages, by number.
struct Shape(&'static [(u32, Shape)]);

const VALUE: Shape = Shape(&[]);
const ATTRIBUTE: Shape = Shape(&[(2, VALUE)]);
const EVENT: Shape = Shape(&[(3, ATTRIBUTE)]);
const LINK: Shape = Shape(&[(4, ATTRIBUTE)]);
const SPAN: Shape = Shape(&[(9, ATTRIBUTE), (11, EVENT), (13, LINK), (15, VALUE)]);
const SCOPE_SPANS: Shape = Shape(&[(1, Shape(&[(3, ATTRIBUTE)])), (2, SPAN)]);
const RESOURCE_SPANS: Shape = Shape(&[(1, Shape(&[(1, ATTRIBUTE)])), (2, SCOPE_SPANS)]);
const REQUEST: Shape = Shape(&[(1, RESOURCE_SPANS)]);

/// Passes over every field; gives their number.
fn walk(mut reader: Reader<'_>, shape: Shape) -> usize {
    let mut fields = 0;
    while let Some((number, field)) = reader.next_field().unwrap() {
        fields += 1;
        if let (Field::Len(at), Some((_, inner))) = (field, shape.0.iter().find(|s| s.0 == number)) {
            fields += walk(reader.nested(at), Shape(inner.0));
        }
    }
    fields
}

/// The messages as prost wants them
/// (opentelemetry-proto:opentelemetry/proto/trace/v1/trace.proto).
mod pb {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Request {
        #[prost(message, repeated, tag = "1")]
        pub resource_spans: Vec<ResourceSpans>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ResourceSpans {
        #[prost(message, optional, tag = "1")]
        pub resource: Option<Resource>,
        #[prost(message, repeated, tag = "2")]
        pub scope_spans: Vec<ScopeSpans>,
        #[prost(string, tag = "3")]
        pub schema_url: String,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Resource {
        #[prost(message, repeated, tag = "1")]
        pub attributes: Vec<KeyValue>,
        #[prost(uint32, tag = "2")]
        pub dropped: u32,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ScopeSpans {
        #[prost(message, optional, tag = "1")]
        pub scope: Option<Scope>,
        #[prost(message, repeated, tag = "2")]
        pub spans: Vec<Span>,
        #[prost(string, tag = "3")]
        pub schema_url: String,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Scope {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, tag = "2")]
        pub version: String,
        #[prost(message, repeated, tag = "3")]
        pub attributes: Vec<KeyValue>,
        #[prost(uint32, tag = "4")]
        pub dropped: u32,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Span {
        #[prost(bytes = "vec", tag = "1")]
        pub trace_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub span_id: Vec<u8>,
        #[prost(string, tag = "3")]
        pub trace_state: String,
        #[prost(bytes = "vec", tag = "4")]
        pub parent_span_id: Vec<u8>,
        #[prost(string, tag = "5")]
        pub name: String,
        #[prost(int32, tag = "6")]
        pub kind: i32,
        #[prost(fixed64, tag = "7")]
        pub start: u64,
        #[prost(fixed64, tag = "8")]
        pub end: u64,
        #[prost(message, repeated, tag = "9")]
        pub attributes: Vec<KeyValue>,
        #[prost(uint32, tag = "10")]
        pub dropped_attributes: u32,
        #[prost(message, repeated, tag = "11")]
        pub events: Vec<Event>,
        #[prost(uint32, tag = "12")]
        pub dropped_events: u32,
        #[prost(message, repeated, tag = "13")]
        pub links: Vec<Link>,
        #[prost(uint32, tag = "14")]
        pub dropped_links: u32,
        #[prost(message, optional, tag = "15")]
        pub status: Option<Status>,
        #[prost(fixed32, tag = "16")]
        pub flags: u32,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Status {
        #[prost(string, tag = "2")]
        pub message: String,
        #[prost(int32, tag = "3")]
        pub code: i32,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Event {
        #[prost(fixed64, tag = "1")]
        pub time: u64,
        #[prost(string, tag = "2")]
        pub name: String,
        #[prost(message, repeated, tag = "3")]
        pub attributes: Vec<KeyValue>,
        #[prost(uint32, tag = "4")]
        pub dropped: u32,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Link {
        #[prost(bytes = "vec", tag = "1")]
        pub trace_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub span_id: Vec<u8>,
        #[prost(string, tag = "3")]
        pub trace_state: String,
        #[prost(message, repeated, tag = "4")]
        pub attributes: Vec<KeyValue>,
        #[prost(uint32, tag = "5")]
        pub dropped: u32,
        #[prost(fixed32, tag = "6")]
        pub flags: u32,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct KeyValue {
        #[prost(string, tag = "1")]
        pub key: String,
        #[prost(message, optional, tag = "2")]
        pub value: Option<AnyValue>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct AnyValue {
        #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7")]
        pub kind: Option<Kind>,
    }
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Kind {
        #[prost(string, tag = "1")]
        Text(String),
        #[prost(bool, tag = "2")]
        Bool(bool),
        #[prost(int64, tag = "3")]
        Int(i64),
        #[prost(double, tag = "4")]
        Double(f64),
        #[prost(message, tag = "5")]
        List(List),
        #[prost(message, tag = "6")]
        Map(Map),
        #[prost(bytes, tag = "7")]
        Bytes(Vec<u8>),
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct List {
        #[prost(message, repeated, tag = "1")]
        pub values: Vec<AnyValue>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Map {
        #[prost(message, repeated, tag = "1")]
        pub values: Vec<KeyValue>,
    }
}
