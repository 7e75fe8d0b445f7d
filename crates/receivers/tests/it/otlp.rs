//! OTLP over HTTP: statuses, bodies in the client's encoding, browsers.

use crate::doors::*;
use crate::support::*;
use spanloom_pipeline::{Outcome, PayloadOutcome};
use spanloom_receivers::Cors;
use spanloom_receivers::otlp::Config;
use std::time::Duration;

const PROTO: (&str, &str) = ("Content-Type", "application/x-protobuf");
const JSON: (&str, &str) = ("Content-Type", "application/json");

fn good() -> Vec<u8> {
    fixture("python-otel/http/001-v1-traces.bin")
}

/// Two spans, the second without a valid id.
const MIXED: &str = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[
    {"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"b7ad6b7169203331","name":"a"},
    {"traceId":"00000000000000000000000000000000","spanId":"b7ad6b7169203331","name":"b"}]}]}]}"#;

#[tokio::test]
async fn every_request_has_its_status_and_body() {
    let doors = open().await;
    let body = good();
    let zstd = zstd::encode_all(&body[..], 1).unwrap();
    let coded = |name| ("Content-Encoding", name);
    let gz = gzip(&body);
    for (headers, body, status, kind, text) in [
        (vec![PROTO], &body[..], 200, "application/x-protobuf", ""),
        (vec![("Content-Type", "Application/X-Protobuf; v=1")], &body, 200, "application/x-protobuf", ""),
        (vec![PROTO, coded("gzip")], &gz, 200, "application/x-protobuf", ""),
        (vec![PROTO, coded("zstd")], &zstd, 200, "application/x-protobuf", ""),
        (vec![PROTO], b"", 200, "application/x-protobuf", ""),
        (vec![JSON], b"{}", 200, "application/json", "{}"),
        (
            vec![JSON],
            MIXED.as_bytes(),
            200,
            "application/json",
            "{\"partialSuccess\":{\"errorMessage\":\"1 spans without a valid trace id were rejected\",\"rejectedSpans\":\"1\"}}",
        ),
        (
            vec![("Content-Type", "text/plain")],
            b"",
            415,
            "text/plain",
            "415 unsupported media type, supported: [application/json, application/x-protobuf]",
        ),
        (
            vec![],
            b"",
            415,
            "text/plain",
            "415 unsupported media type, supported: [application/json, application/x-protobuf]",
        ),
        (
            vec![JSON, coded("br")],
            b"{}",
            400,
            "application/json",
            "{\"code\":3,\"message\":\"unsupported Content-Encoding: br\"}",
        ),
    ] {
        let reply = post(doors.otlp_http, "/v1/traces", &headers, body).await;
        assert_eq!((reply.status, reply.text().as_str()), (status, text), "{headers:?}");
        assert_eq!(any(&reply, "content-type"), Some(kind), "{headers:?}");
    }
    let counts = doors.finish().await;
    assert_eq!(counts.payloads(PayloadOutcome::Accepted), 7);
    assert_eq!(counts.spans(Outcome::Rejected), 1);
}

#[tokio::test]
async fn errors_are_statuses_in_the_encoding_of_the_request() {
    let doors = open().await;
    let reply = post(doors.otlp_http, "/v1/traces", &[JSON], b"nonsense").await;
    assert_eq!((reply.status, any(&reply, "content-type")), (400, Some("application/json")));
    let status: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(status["code"], 3);
    assert!(!status["message"].as_str().unwrap().is_empty());
    let reply = post(doors.otlp_http, "/v1/traces", &[PROTO], b"\xff\xff").await;
    assert_eq!((reply.status, any(&reply, "content-type")), (400, Some("application/x-protobuf")));
    // code = 3, then a message
    assert_eq!(reply.body[..3], [8, 3, 18]);
    assert_eq!(any(&reply, "retry-after"), None);
    doors.finish().await;
}

#[tokio::test]
async fn other_methods_and_paths_are_told() {
    let doors = open().await;
    for (method, path, status, text) in [
        ("GET", "/v1/traces", 405, "405 method not allowed, supported: [POST]"),
        ("OPTIONS", "/v1/traces", 405, "405 method not allowed, supported: [POST]"),
        ("POST", "/v1/metrics", 404, "404 page not found\n"),
        ("POST", "/", 404, "404 page not found\n"),
    ] {
        let reply = raw(doors.otlp_http, &request(method, path, &[PROTO], Some(b""))).await.unwrap();
        assert_eq!((reply.status, reply.text().as_str()), (status, text), "{method} {path}");
    }
    doors.finish().await;
}

#[tokio::test]
async fn a_bomb_is_cut_at_the_limit() {
    let plan = Plan { otlp: Config { max_body: 1 << 20, ..Config::default() }, ..Plan::default() };
    let doors = open_with(plan).await;
    for kind in [PROTO, JSON] {
        let reply = post(doors.otlp_http, "/v1/traces", &[kind, ("Content-Encoding", "gzip")], &bomb()).await;
        assert_eq!((reply.status, any(&reply, "content-type")), (413, Some(kind.1)));
    }
    assert!(doors.pipeline.inlet().budget().peak() < 4 << 20);
    let counts = doors.finish().await;
    assert_eq!(payloads(&counts, "payload_too_large"), 2);
}

#[tokio::test]
async fn overload_says_when_to_come_again() {
    let plan = Plan {
        otlp: Config {
            wait: Duration::from_millis(5),
            retry_after: Duration::from_secs(3),
            ..Config::default()
        },
        pipeline: spanloom_pipeline::Config {
            workers: 1,
            ack_wait: Duration::from_millis(5),
            ..Default::default()
        },
        ..Plan::default()
    };
    let doors = open_with(plan).await;
    let held = doors.pipeline.inlet().reserve(64 << 20).unwrap();
    let reply = post(doors.otlp_http, "/v1/traces", &[PROTO], &good()).await;
    assert_eq!((reply.status, any(&reply, "retry-after")), (429, Some("3")));
    assert_eq!(reply.body[..2], [8, 8]);
    drop(held);
    *doors.store.hold.lock().unwrap() = true;
    let reply = post(doors.otlp_http, "/v1/traces", &[JSON], MIXED.as_bytes()).await;
    assert_eq!((reply.status, any(&reply, "retry-after")), (503, Some("3")));
    let status: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(status["code"], 14);
    assert_eq!(status["details"][0]["retryDelay"], "3s");
    for done in doors.store.held.lock().unwrap().drain(..) {
        done(Ok(()));
    }
    let counts = doors.finish().await;
    assert_eq!((payloads(&counts, "memory"), payloads(&counts, "payload_timeout")), (1, 1));
}

#[tokio::test]
async fn pages_of_allowed_origins_may_send() {
    let plan = Plan {
        otlp: Config {
            cors: Cors { origins: vec!["https://*.example".into()], max_age: 60 },
            ..Config::default()
        },
        ..Plan::default()
    };
    let doors = open_with(plan).await;
    let ask = |origin| {
        let headers = [
            ("Origin", origin),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "content-type,x-tenant"),
        ];
        request("OPTIONS", "/v1/traces", &headers, None)
    };
    let reply = raw(doors.otlp_http, &ask("https://shop.example")).await.unwrap();
    assert_eq!(reply.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", "https://shop.example"),
        ("access-control-allow-methods", "POST"),
        ("access-control-allow-headers", "content-type,x-tenant"),
        ("access-control-max-age", "60"),
    ] {
        assert_eq!(any(&reply, name), Some(value));
    }
    let reply = raw(doors.otlp_http, &ask("https://evil.test")).await.unwrap();
    assert_eq!((reply.status, any(&reply, "access-control-allow-origin")), (204, None));
    let origin = ("Origin", "https://shop.example");
    let reply = post(doors.otlp_http, "/v1/traces", &[JSON, origin], b"{}").await;
    assert_eq!(any(&reply, "access-control-allow-origin"), Some("https://shop.example"));
    assert_eq!(any(&reply, "vary"), Some("Origin"));
    doors.finish().await;
}

#[tokio::test]
async fn a_connection_serves_many_requests() {
    use tokio::io::AsyncWriteExt;
    let doors = open().await;
    let body = good();
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", doors.otlp_http)).await.unwrap();
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    for _ in 0..5 {
        stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
        assert_eq!(read_reply(&mut stream).await.unwrap().status, 200);
    }
    drop(stream);
    let reply = post_h2(doors.otlp_http, "/v1/traces", &[PROTO], body).await;
    assert_eq!(reply.status, 200);
    doors.finish().await;
}
