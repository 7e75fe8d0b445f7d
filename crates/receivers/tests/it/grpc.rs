//! gRPC: OTLP and Jaeger.

use crate::doors::*;
use crate::support::*;
use spanloom_pipeline::{Outcome, PayloadOutcome};
use std::time::Duration;

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const POST_SPANS: &str = "/jaeger.api_v2.CollectorService/PostSpans";
const GRPC: (&str, &str) = ("content-type", "application/grpc");

fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
    [&[flag][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

fn good() -> Vec<u8> {
    fixture("python-otel/grpc/001-grpc-export.bin")
}

#[tokio::test]
async fn every_call_has_its_status() {
    let doors = open().await;
    let message = good();
    let gz = gzip(&message);
    let zstd = zstd::encode_all(&message[..], 1).unwrap();
    let coded = |name| ("grpc-encoding", name);
    for (path, headers, body, status, text) in [
        (EXPORT, vec![GRPC], frame(0, &message), "0", None),
        (EXPORT, vec![("content-type", "application/grpc+proto")], frame(0, &message), "0", None),
        (EXPORT, vec![GRPC, coded("gzip")], frame(1, &gz), "0", None),
        (EXPORT, vec![GRPC, coded("gzip")], frame(0, &message), "0", None),
        (EXPORT, vec![GRPC, coded("zstd")], frame(1, &zstd), "0", None),
        (EXPORT, vec![GRPC], frame(0, b""), "0", None),
        ("/grpc.health.v1.Health/Check", vec![GRPC], frame(0, b""), "0", None),
        (EXPORT, vec![GRPC], frame(0, b"\xff\xff"), "3", None),
        (EXPORT, vec![GRPC], vec![], "3", Some("the call has no message")),
        (EXPORT, vec![GRPC], vec![0, 0, 0, 0, 9, 1], "3", Some("the body ended early")),
        (
            EXPORT,
            vec![GRPC, coded("snappy")],
            frame(1, b"x"),
            "12",
            Some("grpc-encoding snappy is not supported"),
        ),
        ("/a.B/C", vec![GRPC], frame(0, b""), "12", Some("unknown method /a.B/C")),
        (POST_SPANS, vec![GRPC], frame(0, b""), "12", None),
    ] {
        let reply = post_h2(doors.otlp_grpc, path, &headers, body).await;
        assert_eq!((reply.status, any(&reply, "grpc-status")), (200, Some(status)), "{path} {headers:?}");
        assert_eq!(any(&reply, "content-type"), Some("application/grpc"));
        assert!(text.is_none() || any(&reply, "grpc-message") == text, "{:?}", reply.headers);
        assert_eq!(any(&reply, "grpc-status-details-bin"), None);
    }
    let reply = post_h2(doors.otlp_grpc, EXPORT, &[("content-type", "text/plain")], vec![]).await;
    assert_eq!(reply.status, 415);
    let counts = doors.finish().await;
    assert_eq!(counts.payloads(PayloadOutcome::Accepted), 6);
    assert_eq!(counts.payloads(PayloadOutcome::Rejected), 4);
}

#[tokio::test]
async fn spans_without_ids_are_told_as_a_partial_success() {
    let doors = open().await;
    // resource_spans { scope_spans { spans {} } }
    let reply = post_h2(doors.otlp_grpc, EXPORT, &[GRPC], frame(0, &[10, 4, 18, 2, 18, 0])).await;
    assert_eq!(any(&reply, "grpc-status"), Some("0"));
    let message = &reply.body[5..];
    assert_eq!((message[0], &message[2..5]), (10, &[8, 1, 18][..]));
    assert!(String::from_utf8_lossy(message).contains("without a valid trace id"));
    let counts = doors.finish().await;
    assert_eq!(counts.spans(Outcome::Rejected), 1);
}

#[tokio::test]
async fn too_large_is_final_and_busy_is_not() {
    let mut plan = Plan::default();
    plan.otlp.max_body = 1 << 20;
    plan.otlp.wait = Duration::from_millis(5);
    plan.otlp.retry_after = Duration::from_secs(2);
    let doors = open_with(plan).await;
    for (headers, body) in [
        (vec![GRPC, ("grpc-encoding", "gzip")], frame(1, &bomb())),
        (vec![GRPC], frame(0, &vec![0; (1 << 20) + 1])),
    ] {
        let reply = post_h2(doors.otlp_grpc, EXPORT, &headers, body).await;
        assert_eq!(any(&reply, "grpc-status"), Some("8"));
        assert_eq!(any(&reply, "grpc-status-details-bin"), None);
    }
    assert!(doors.pipeline.inlet().budget().peak() < 4 << 20);
    let held = doors.pipeline.inlet().reserve(64 << 20).unwrap();
    let reply = post_h2(doors.otlp_grpc, EXPORT, &[GRPC], frame(0, &good())).await;
    assert_eq!(any(&reply, "grpc-status"), Some("8"));
    assert!(any(&reply, "grpc-status-details-bin").is_some());
    drop(held);
    let counts = doors.finish().await;
    assert_eq!((payloads(&counts, "payload_too_large"), payloads(&counts, "memory")), (2, 1));
}

#[tokio::test]
async fn calls_share_a_connection() {
    use http_body_util::{BodyExt, Full};
    let doors = open().await;
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", doors.otlp_grpc)).await.unwrap();
    let (send, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    let body = bytes::Bytes::from(frame(0, &good()));
    let mut calls = Vec::new();
    for _ in 0..50 {
        let mut send = send.clone();
        let request = http::Request::post(format!("http://x{EXPORT}"))
            .header(GRPC.0, GRPC.1)
            .body(Full::new(body.clone()))
            .unwrap();
        calls.push(tokio::spawn(async move {
            let body = send.send_request(request).await.unwrap().into_body().collect().await.unwrap();
            body.trailers().unwrap()["grpc-status"].clone()
        }));
    }
    for call in calls {
        assert_eq!(call.await.unwrap(), "0");
    }
    drop(send);
    let counts = doors.finish().await;
    assert_eq!(counts.payloads(PayloadOutcome::Accepted), 50);
}

#[tokio::test]
async fn jaegers_batches_are_taken() {
    let doors = open().await;
    let body = fixture("node-jaeger/http/001-api-traces.bin").into();
    let decoded = spanloom_codec::jaeger::decode_thrift_http(body, Default::default()).unwrap();
    let mut message = Vec::new();
    spanloom_codec::jaeger::encode_proto(&decoded.batch, &mut message);
    let reply = post_h2(doors.jaeger_grpc, POST_SPANS, &[GRPC], frame(0, &message)).await;
    assert_eq!((any(&reply, "grpc-status"), &reply.body[..]), (Some("0"), &[0; 5][..]));
    assert_eq!(doors.spans(), decoded.batch.spans.len());
    let reply = post_h2(doors.jaeger_grpc, EXPORT, &[GRPC], frame(0, &message)).await;
    assert_eq!(any(&reply, "grpc-status"), Some("12"));
    doors.finish().await;
}
