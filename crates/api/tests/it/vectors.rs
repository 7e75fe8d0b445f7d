//! The shared query vectors: what goes in through one protocol is asked for
//! through the APIs.

use crate::paths;
use crate::support::Server;
use bytes::Bytes;
use http::Method;
use serde_json::{Value as Json, json};
use spanloom_api::Door;
use spanloom_codec::{jaeger, otlp, zipkin};
use spanloom_model::draft::{Draft, Tag, batch};
use spanloom_model::{Batch, Intake, Protocol, SpanId, SpanKind, Status, TraceId, flags};
use std::path::Path;

fn id(v: &Json) -> u128 {
    TraceId::parse_hex(v.as_str().unwrap()).unwrap().0
}

fn span_id(v: &Json) -> u64 {
    SpanId::parse_hex(v.as_str().unwrap()).unwrap().0
}

fn tag(kv: &Json) -> (String, Tag) {
    use base64::Engine;
    let v = &kv["value"];
    let text = || v.as_str().unwrap();
    let value = match kv["type"].as_str().unwrap() {
        "string" => Tag::Str(text().into()),
        "bool" => Tag::Bool(v.as_bool().unwrap()),
        "int64" => Tag::Int(v.as_i64().unwrap_or_else(|| text().parse().unwrap())),
        "float64" => Tag::Double(v.as_f64().unwrap()),
        "binary" => Tag::Bytes(base64::engine::general_purpose::STANDARD.decode(text()).unwrap()),
        other => panic!("type {other}"),
    };
    (kv["key"].as_str().unwrap().into(), value)
}

fn list(v: &Json) -> impl Iterator<Item = &Json> {
    v.as_array().unwrap().iter()
}

/// Jaeger's JSON as a Jaeger collector would take it in.
fn from_jaeger(traces: &Json) -> Batch {
    let mut drafts = Vec::new();
    for trace in list(traces) {
        for s in list(&trace["spans"]) {
            let process = &trace["processes"][s["processID"].as_str().unwrap()];
            let mut d = Draft::new(id(&s["traceID"]), span_id(&s["spanID"]))
                .service(process["serviceName"].as_str().unwrap())
                .name(s["operationName"].as_str().unwrap())
                .start(s["startTime"].as_i64().unwrap() * 1000)
                .lasting(s["duration"].as_i64().unwrap() * 1000)
                .flag(flags::FROM_JAEGER);
            d.tags = list(&s["tags"]).map(tag).collect();
            d.process = list(&process["tags"]).map(tag).collect();
            for (key, value) in d.tags.clone() {
                match (key.as_str(), value) {
                    ("span.kind", Tag::Str(kind)) => d.kind = SpanKind::from_name(&kind).unwrap(),
                    ("error", Tag::Bool(true)) => d = d.status(Status::Error).error(true),
                    _ => {}
                }
            }
            let references: Vec<&Json> = list(&s["references"]).collect();
            let same = |r: &&&Json| r["traceID"] == s["traceID"];
            let parent = references
                .iter()
                .filter(same)
                .find(|r| r["refType"] == "CHILD_OF")
                .or_else(|| references.iter().find(same));
            d.parent_id = parent.map_or(0, |r| span_id(&r["spanID"]));
            for r in &references {
                let child = r["refType"] == "CHILD_OF";
                if parent.is_some_and(|p| std::ptr::eq(*p, *r)) && child {
                    continue;
                }
                let kind = if child { "child_of" } else { "follows_from" };
                d = d
                    .link(id(&r["traceID"]), span_id(&r["spanID"]))
                    .link_tag(spanloom_codec::view::REF_TYPE, kind);
            }
            for log in list(&s["logs"]) {
                let mut fields: Vec<(String, Tag)> = list(&log["fields"]).map(tag).collect();
                let name = match fields.iter().position(|(k, _)| k == "event") {
                    Some(i) => match fields.remove(i).1 {
                        Tag::Str(name) => name,
                        other => panic!("event {other:?}"),
                    },
                    None => String::new(),
                };
                d.events.push((log["timestamp"].as_u64().unwrap() * 1000, name, fields));
            }
            drafts.push(d);
        }
    }
    batch(&drafts)
}

/// Jaeger's JSON over a Jaeger wire.
fn over_thrift(traces: &Json) -> Vec<Batch> {
    let intake = Intake { protocol: Protocol::JaegerThriftHttp, ..Intake::default() };
    jaeger::encode_thrift(&from_jaeger(traces))
        .into_iter()
        .map(|body| jaeger::decode_thrift_http(Bytes::from(body), intake).unwrap().batch)
        .collect()
}

/// Decodes one request; `None` if it is refused.
fn decode(request: &Json) -> Option<Vec<Batch>> {
    let body = match request["raw"].as_str() {
        Some(raw) => Bytes::copy_from_slice(raw.as_bytes()),
        None => Bytes::from(request["body"].to_string()),
    };
    if request["headers"]["Content-Encoding"] == "gzip" && !body.starts_with(&[0x1f, 0x8b]) {
        return None;
    }
    let intake = |protocol| Intake { protocol, ..Intake::default() };
    let batch = match request["protocol"].as_str().unwrap() {
        "jaeger-json" => return Some(over_thrift(&request["body"])),
        // The collector answers these without decoding.
        "zipkin-v2-json" if body.is_empty() => Some(Batch::default()),
        "zipkin-v2-json" => zipkin::decode_json_v2(body, intake(Protocol::ZipkinJsonV2)).ok(),
        "zipkin-v1-json" => zipkin::decode_json_v1(body, intake(Protocol::ZipkinJsonV1)).ok(),
        "otlp-http-json" => otlp::decode_json(body, intake(Protocol::OtlpJson)).ok().map(|d| d.batch),
        other => panic!("protocol {other}"),
    };
    batch.map(|b| vec![b])
}

/// `tempopb.TraceByIDResponse` as JSON, as far as its trace.
pub fn from_protobuf(body: &Bytes) -> Json {
    use spanloom_codec::protobuf::{Field, Reader};
    let mut message = Reader::new(body);
    let mut trace = json!({});
    while let Some((number, field)) = message.next_field().unwrap() {
        if let (1, Field::Len(at)) = (number, field) {
            let bytes = Bytes::copy_from_slice(message.bytes(at));
            let decoded = otlp::decode_proto(bytes, Intake::default()).unwrap();
            let mut out = Vec::new();
            otlp::encode_json(&decoded.batch, &mut out);
            trace = serde_json::from_slice(&out).unwrap();
        }
    }
    json!({"trace": trace})
}

#[tokio::test]
async fn every_vector_holds() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/vectors/query");
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|f| f.unwrap().path())
        .filter(|f| f.extension().is_some_and(|e| e == "json"))
        .collect();
    files.sort();
    let (mut wrong, mut asked) = (Vec::new(), 0);
    for file in &files {
        let case: Json = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let name = case["name"].as_str().unwrap();
        let server = Server::new(&[]).await;
        for request in list(&case["ingest"]) {
            let refused = request["expect"]["status"].as_u64().is_some_and(|s| s >= 400);
            match decode(request) {
                Some(batches) => {
                    assert!(!refused, "{name}: {request}");
                    batches.iter().for_each(|b| server.store.insert(b));
                }
                None => assert!(refused, "{name}: {request}"),
            }
        }
        for query in list(&case["queries"]) {
            let api = query["api"].as_str().unwrap();
            let door = match api {
                "zipkin" => Door::Zipkin,
                "jaeger-v1" | "jaeger-v3" => Door::Query,
                "tempo" => Door::Tempo,
                other => panic!("api {other}"),
            };
            asked += 1;
            let path = query["path"].as_str().unwrap();
            let method: Method = query["method"].as_str().unwrap().parse().unwrap();
            let body = query.get("body").map(Json::to_string).unwrap_or_default();
            let accept = query["headers"]["Accept"].as_str().unwrap_or_default();
            let mut got = server.call_for(accept, door, method, path, &body).await;
            if accept == "application/protobuf" {
                got.body = from_protobuf(&got.body).to_string().into();
            }
            let expect = &query["expect"];
            let result = if expect["status"].as_u64() == Some(got.status.into()) {
                paths::check(api, expect, got.text())
            } else {
                Err(format!("status {}: {}", got.status, got.text()))
            };
            if let Err(e) = result {
                wrong.push(format!("{name} {path}\n{e}"));
            }
        }
    }
    assert!(files.len() >= 15 && asked > 60, "{} files, {asked} queries", files.len());
    assert!(wrong.is_empty(), "{} of {asked} queries:\n{}", wrong.len(), wrong.join("\n\n"));
}
