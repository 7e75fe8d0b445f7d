//! What real tracing libraries sent, read back through every API.

use crate::support::Server;
use bytes::Bytes;
use serde_json::Value as Json;
use spanloom_codec::datadog::{Encoding, RequestMeta, decode_traces};
use spanloom_codec::{otlp, zipkin};
use spanloom_model::{Batch, Intake, Protocol};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn decode(format: &str, body: Bytes) -> Option<Batch> {
    let intake = |protocol| Intake { protocol, ..Intake::default() };
    let datadog = |protocol, body| {
        decode_traces(protocol, Encoding::Msgpack, body, intake(protocol), &RequestMeta::default()).unwrap()
    };
    Some(match format {
        "datadog-v0.4-msgpack" => datadog(Protocol::DatadogV04, body),
        "datadog-v0.5-msgpack" => datadog(Protocol::DatadogV05, body),
        "zipkin-v2-json" => zipkin::decode_json_v2(body, intake(Protocol::ZipkinJsonV2)).unwrap(),
        "zipkin-v2-protobuf" => zipkin::decode_proto(body, intake(Protocol::ZipkinProto)).unwrap(),
        "otlp-protobuf" | "otlp-grpc-message" => {
            otlp::decode_proto(body, intake(Protocol::OtlpProto)).unwrap().batch
        }
        "otlp-json" => otlp::decode_json(body, intake(Protocol::OtlpJson)).unwrap().batch,
        _ => return None,
    })
}

fn metas(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            metas(&path, out);
        } else if path.to_str().unwrap().ends_with(".meta.json") {
            out.push(path);
        }
    }
}

/// Traces by id; `$omitted` stands for the rest of many.
fn traces(says: &Json) -> impl Iterator<Item = (&String, &Json)> {
    says["by_trace"].as_object().into_iter().flatten().filter(|(id, _)| !id.starts_with('$'))
}

#[tokio::test]
async fn traces_of_real_clients_come_back_whole_through_every_api() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let (mut files, mut payloads) = (Vec::new(), 0);
    for client in [
        "python-ddtrace-2",
        "python-ddtrace-3",
        "python-ddtrace-4",
        "node-dd-trace",
        "python-otel",
        "node-otel",
        "py-zipkin",
        "node-zipkin",
        "python-otel-zipkin",
    ] {
        metas(&root.join(client), &mut files);
    }
    files.sort();
    // A server per scenario; its payloads together are what was sent.
    let mut scenarios: BTreeMap<PathBuf, Vec<(Batch, Json)>> = BTreeMap::new();
    for file in files {
        let meta: Json = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let format = meta["format"].as_str().unwrap_or_default();
        let compressed = meta["headers"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|h| h[0].as_str().is_some_and(|n| n.eq_ignore_ascii_case("content-encoding")));
        let Some(body_file) = meta["body_file"].as_str().filter(|_| !compressed) else { continue };
        let dir = file.parent().unwrap().to_owned();
        let body = Bytes::from(std::fs::read(dir.join(body_file)).unwrap());
        if let Some(batch) = decode(format, body) {
            scenarios.entry(dir).or_default().push((batch, meta["expected"].clone()));
            payloads += 1;
        }
    }
    assert!(payloads > 50, "only {payloads} payloads");
    for (dir, sent) in scenarios {
        let server = Server::new(&[]).await;
        let mut expected: BTreeMap<String, u64> = BTreeMap::new();
        for (batch, says) in &sent {
            server.store.insert(batch);
            for (id, trace) in traces(says) {
                *expected.entry(id.clone()).or_default() += trace["spans"].as_u64().unwrap();
            }
        }
        // Payloads that repeat the spans of another are stored once, and a
        // later payload may lack the upper half of an id: only traces that one
        // payload holds are compared.
        for (_, says) in &sent {
            for (id, trace) in traces(says) {
                let spans = trace["spans"].as_u64().unwrap();
                if expected[id] != spans {
                    continue;
                }
                let at = format!("{} {id}", dir.display());
                let v1 = server.get(&format!("/api/traces/{id}")).await;
                assert_eq!(v1.status, 200, "{at}: {}", v1.text());
                let shown = &v1.json()["data"][0];
                let list = shown["spans"].as_array().unwrap();
                assert_eq!(list.len() as u64, spans, "{at}");
                for span in list {
                    assert!(shown["processes"][span["processID"].as_str().unwrap()].is_object(), "{at}");
                    assert!(span["startTime"].as_u64().unwrap() > 1_000_000_000_000_000, "{at}");
                }
                let v3 = server.get(&format!("/api/v3/traces/{id}")).await.json();
                assert_eq!(
                    crate::paths::find(&v3, "result.resourceSpans[*].scopeSpans[*].spans[*]").len() as u64,
                    spans,
                    "{at}"
                );
                let zipkin = server.zipkin(&format!("/api/v2/trace/{id}")).await.json();
                assert_eq!(zipkin.as_array().unwrap().len() as u64, spans, "{at}");
                let own = server.get(&format!("/api/spanloom/v1/traces/{id}")).await.json();
                assert_eq!(own["spans"].as_array().unwrap().len() as u64, spans, "{at}");
            }
        }
    }
}
