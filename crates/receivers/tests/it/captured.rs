//! What real clients sent, sent again byte for byte with their own headers, to
//! the doors that they were meant for.

use crate::doors::*;
use crate::support::*;
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// The recorded request: its head as it was, its body, and what was in it.
struct Capture {
    name: String,
    head: Vec<(String, String)>,
    path: String,
    body: Vec<u8>,
    expected: Json,
}

fn load(folder: &str) -> Vec<Capture> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(fixtures().join(folder)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.ends_with(".meta.json") {
            continue;
        }
        let meta: Json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let text = |v: &Json| v.as_str().unwrap().to_owned();
        out.push(Capture {
            name: format!("{folder}/{name}"),
            head: meta["headers"].as_array().unwrap().iter().map(|h| (text(&h[0]), text(&h[1]))).collect(),
            path: text(&meta["path"]),
            body: std::fs::read(path.with_file_name(text(&meta["body_file"]))).unwrap(),
            expected: meta["expected"].clone(),
        });
    }
    assert!(!out.is_empty(), "{folder}");
    out.sort_by(|a, b| a.name.cmp(&b.name));
    out
}

impl Capture {
    /// The request as it was on the wire: chunked where it was chunked.
    fn wire(&self) -> Vec<u8> {
        let mut out = format!("POST {} HTTP/1.1\r\n", self.path).into_bytes();
        let mut chunked = false;
        for (name, value) in &self.head {
            chunked |= name.eq_ignore_ascii_case("transfer-encoding");
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        if !chunked {
            out.extend_from_slice(&self.body);
            return out;
        }
        for piece in self.body.chunks(4001) {
            out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            out.extend_from_slice(piece);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"0\r\n\r\n");
        out
    }

    /// Compares what was stored with what the recording says is in it.
    fn check(&self, doors: &Doors) {
        let (mut spans, mut traces, mut names) = (0, BTreeMap::new(), BTreeMap::new());
        for batch in doors.take() {
            for span in &batch.spans {
                spans += 1;
                *traces.entry(format!("{:032x}", span.trace_id.0)).or_insert(0) += 1;
                *names.entry(batch.str(span.name).to_lowercase()).or_insert(0) += 1;
            }
        }
        assert_eq!(Some(spans), self.expected["spans"].as_u64(), "{}", self.name);
        for (id, expected) in self.expected["by_trace"].as_object().unwrap() {
            assert_eq!(traces.get(id).copied(), expected["spans"].as_u64(), "{} {id}", self.name);
        }
        let mut expected = BTreeMap::new();
        for (name, n) in self.expected["by_name"].as_object().unwrap() {
            *expected.entry(name.to_lowercase()).or_insert(0) += n.as_u64().unwrap();
        }
        assert_eq!(names, expected, "{}", self.name);
    }
}

#[tokio::test]
async fn recorded_requests_are_taken_whole() {
    let doors = open().await;
    let mut sent = 0;
    for (folder, port, status) in [
        ("python-otel/http", doors.otlp_http, 200),
        ("python-otel/http-gzip", doors.otlp_http, 200),
        ("python-otel/http-big", doors.otlp_http, 200),
        ("node-otel/json", doors.otlp_http, 200),
        ("node-otel/proto", doors.otlp_http, 200),
        ("node-otel/zipkin", doors.zipkin, 202),
        ("node-zipkin/v2", doors.zipkin, 202),
        ("py-zipkin/v2json", doors.zipkin, 202),
        ("py-zipkin/v2proto", doors.zipkin, 202),
        ("node-jaeger/http", doors.jaeger_http, 202),
        ("python-otel-jaeger/jaeger-http", doors.jaeger_http, 202),
    ] {
        for capture in load(folder) {
            let reply = raw(port, &capture.wire()).await.unwrap_or_else(|| panic!("{}", capture.name));
            assert_eq!(reply.status, status, "{}: {}", capture.name, reply.text());
            capture.check(&doors);
            sent += 1;
        }
    }
    let counts = doors.finish().await;
    assert_eq!(counts.payloads(spanloom_pipeline::PayloadOutcome::Accepted), sent);
}

#[tokio::test]
async fn older_zipkin_clients_are_taken_whole() {
    let doors = open().await;
    for client in ["py-zipkin-old", "python-otel-zipkin"] {
        for scenario in std::fs::read_dir(fixtures().join(client)).unwrap() {
            let scenario = scenario.unwrap().file_name().into_string().unwrap();
            for capture in load(&format!("{client}/{scenario}")) {
                let reply = raw(doors.zipkin, &capture.wire()).await.unwrap();
                assert_eq!((reply.status, reply.body.len()), (202, 0), "{}", capture.name);
                capture.check(&doors);
            }
        }
    }
    doors.finish().await;
}

#[tokio::test]
async fn recorded_calls_are_taken_whole() {
    let doors = open().await;
    for capture in load("python-otel/grpc") {
        let mut frame = vec![0];
        frame.extend_from_slice(&(capture.body.len() as u32).to_be_bytes());
        frame.extend_from_slice(&capture.body);
        let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
        let headers = [("content-type", "application/grpc"), ("te", "trailers")];
        let reply = post_h2(doors.otlp_grpc, path, &headers, frame).await;
        assert_eq!((reply.status, any(&reply, "grpc-status")), (200, Some("0")));
        assert_eq!(reply.body, [0; 5]);
        capture.check(&doors);
    }
    doors.finish().await;
}

#[tokio::test]
async fn recorded_datagrams_are_taken_whole() {
    for (folder, compact) in
        [("python-jaeger/udp", true), ("python-otel-jaeger/jaeger-udp", true), ("node-jaeger/udp", false)]
    {
        for capture in load(folder) {
            let doors = open().await;
            let to = if compact { doors.compact } else { doors.binary };
            let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
            socket.send_to(&capture.body, to).await.unwrap();
            let (store, pipeline) = (doors.store.clone(), doors.pipeline.clone());
            let counts = doors.finish().await;
            assert_eq!(counts.payloads(spanloom_pipeline::PayloadOutcome::Accepted), 1, "{}", capture.name);
            let looked = open().await;
            *looked.store.batches.lock().unwrap() = std::mem::take(&mut *store.batches.lock().unwrap());
            capture.check(&looked);
            drop(pipeline);
        }
    }
}

#[tokio::test]
async fn what_envoy_sends_is_taken_whole() {
    let doors = open().await;
    for (name, port, status) in [
        ("zipkin-json-chain", doors.zipkin, 202),
        ("zipkin-json-root", doors.zipkin, 202),
        ("zipkin-proto-128-gateway", doors.zipkin, 202),
        ("otlp-http-1", doors.otlp_http, 200),
    ] {
        let meta: Json = serde_json::from_slice(&fixture(&format!("envoy/{name}.json"))).unwrap();
        let request = &meta["request"];
        let capture = Capture {
            name: name.into(),
            head: request["headers"]
                .as_array()
                .unwrap()
                .iter()
                .map(|h| (h[0].as_str().unwrap().to_owned(), h[1].as_str().unwrap().to_owned()))
                .collect(),
            path: request["path"].as_str().unwrap().to_owned(),
            body: fixture(&format!("envoy/{name}.body")),
            expected: Json::Null,
        };
        let reply = raw(port, &capture.wire()).await.unwrap();
        assert_eq!(reply.status, status, "{name}: {}", reply.text());
        assert!(doors.spans() > 0, "{name}");
    }
    let body = fixture("envoy/otlp-grpc-1.body");
    let headers = [("content-type", "application/grpc"), ("te", "trailers")];
    let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    let framed = body.first() == Some(&0);
    let frame = if framed { body } else { [&[0][..], &(body.len() as u32).to_be_bytes(), &body].concat() };
    let reply = post_h2(doors.otlp_grpc, path, &headers, frame).await;
    assert_eq!(any(&reply, "grpc-status"), Some("0"));
    assert!(doors.spans() > 0);
    doors.finish().await;
}
