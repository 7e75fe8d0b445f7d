//! Zipkin's collector: statuses, texts, limits.

use crate::doors::*;
use crate::support::*;
use spanloom_model::flags;
use spanloom_pipeline::{Outcome, PayloadOutcome};
use spanloom_receivers::{Answer, AnswerBody, Handler, HandlerFuture, Request};
use std::sync::Arc;
use std::time::Duration;

const JSON: (&str, &str) = ("Content-Type", "application/json");
const SPAN: &[u8] = br#"[{"traceId":"1","id":"2","name":"x"}]"#;

#[tokio::test]
async fn every_request_has_zipkins_status_and_text() {
    let doors = open().await;
    let v1 = br#"[{"traceId":"1","id":"2","name":"x","binaryAnnotations":[]}]"#;
    let gz = gzip(SPAN);
    let gzipped = ("Content-Encoding", "gzip");
    for (path, headers, body, status, text) in [
        ("/api/v2/spans", vec![JSON], SPAN, 202, ""),
        ("/api/v2/spans", vec![], SPAN, 202, ""),
        ("/api/v2/spans", vec![("Content-Type", "application/json; charset=utf-16")], SPAN, 202, ""),
        ("/api/v2/spans", vec![("Content-Type", "text/plain")], SPAN, 202, ""),
        ("/api/v2/spans", vec![JSON], b"[]", 202, ""),
        ("/api/v2/spans", vec![JSON], b"", 202, ""),
        ("/api/v1/spans", vec![JSON], v1, 202, ""),
        ("/api/v2/spans", vec![JSON, gzipped], &gz, 202, ""),
        ("/api/v2/spans", vec![JSON, gzipped], b"", 202, ""),
        ("/api/v2/spans", vec![JSON, gzipped], SPAN, 400, "Cannot gunzip spans"),
        ("/api/v2/spans", vec![JSON], b"{}", 400, "Expected a JSON_V2 encoded list\n"),
        (
            "/api/v2/spans",
            vec![JSON],
            br#"[{"traceId":"1","binaryAnnotations":[]}]"#,
            400,
            "Expected a JSON_V2 encoded list, but received: JSON_V1\n",
        ),
        (
            "/api/v2/spans",
            vec![JSON],
            br#"[{"id":"1"}]"#,
            400,
            "Missing : traceId reading List<Span> from json",
        ),
        (
            "/api/v2/spans",
            vec![JSON],
            br#"[{"traceId":"xyz","id":"1"}]"#,
            400,
            "xyz should be lower-hex encoded with no prefix reading List<Span> from json",
        ),
        ("/api/v2/span", vec![JSON], SPAN, 404, "404 page not found\n"),
    ] {
        let reply = post(doors.zipkin, path, &headers, body).await;
        assert_eq!((reply.status, reply.text().as_str()), (status, text), "{path} {headers:?}");
    }
    let counts = doors.finish().await;
    assert_eq!(counts.payloads(PayloadOutcome::Accepted), 9);
    assert_eq!(counts.payloads(PayloadOutcome::Rejected), 5);
    assert_eq!(counts.spans(Outcome::Kept), 6);
}

#[tokio::test]
async fn pages_may_post_spans_from_anywhere_as_to_zipkin() {
    let doors = open().await;
    let asked = [("Origin", "https://shop.example"), ("Access-Control-Request-Method", "POST")];
    let reply = raw(doors.zipkin, &request("OPTIONS", "/api/v2/spans", &asked, None)).await.unwrap();
    assert_eq!((reply.status, any(&reply, "access-control-allow-origin")), (204, Some("*")));
    let reply = post(doors.zipkin, "/api/v2/spans", &[JSON, asked[0]], SPAN).await;
    assert_eq!((reply.status, any(&reply, "access-control-allow-origin")), (202, Some("*")));
    // What is stored is not for them.
    let reply = raw(doors.zipkin, &request("OPTIONS", "/api/v2/services", &asked, None)).await.unwrap();
    assert_eq!((reply.status, any(&reply, "access-control-allow-origin")), (404, None));
    doors.finish().await;
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_spoken_too() {
    let doors = open().await;
    let reply = post_h2(doors.zipkin, "/api/v2/spans", &[JSON], SPAN.to_vec()).await;
    assert_eq!((reply.status, reply.version.as_str(), reply.body.len()), (202, "HTTP/2.0", 0));
    doors.finish().await;
}

#[tokio::test]
async fn a_debug_header_marks_protobuf_spans() {
    let doors = open().await;
    let span: &[u8] = &[10, 20, 10, 8, 0, 0, 0, 0, 0, 0, 0, 1, 26, 8, 0, 0, 0, 0, 0, 0, 0, 2];
    let kind = ("Content-Type", "application/x-protobuf");
    for (headers, debug) in [(vec![kind], false), (vec![kind, ("X-B3-Flags", "1")], true)] {
        assert_eq!(post(doors.zipkin, "/api/v2/spans", &headers, span).await.status, 202);
        let batch = doors.take().remove(0);
        assert_eq!(batch.spans[0].flags & flags::DEBUG != 0, debug);
    }
    doors.finish().await;
}

#[tokio::test]
async fn a_bomb_is_cut_at_the_limit() {
    let plan = Plan {
        zipkin: spanloom_receivers::zipkin::Config { max_body: 1 << 20, ..Default::default() },
        ..Plan::default()
    };
    let doors = open_with(plan).await;
    let zeros = vec![b' '; (1 << 20) + 1];
    for (headers, body) in [(vec![JSON, ("Content-Encoding", "gzip")], bomb()), (vec![JSON], zeros.clone())] {
        let reply = post(doors.zipkin, "/api/v2/spans", &headers, &body).await;
        assert_eq!((reply.status, reply.text().as_str()), (413, "the body is larger than 1048576 bytes"));
    }
    // Without an announced length.
    let mut chunked =
        b"POST /api/v2/spans HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    chunked.extend_from_slice(format!("{:x}\r\n", zeros.len()).as_bytes());
    chunked.extend_from_slice(&zeros);
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    assert_eq!(raw(doors.zipkin, &chunked).await.unwrap().status, 413);
    assert!(doors.pipeline.inlet().budget().peak() < 4 << 20);
    let counts = doors.finish().await;
    assert_eq!(payloads(&counts, "payload_too_large"), 3);
}

#[tokio::test]
async fn no_room_is_told_and_counted() {
    let plan = Plan {
        zipkin: spanloom_receivers::zipkin::Config {
            wait: Duration::from_millis(5),
            retry_after: Duration::from_secs(7),
            ..Default::default()
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
    let reply = post(doors.zipkin, "/api/v2/spans", &[JSON], SPAN).await;
    assert_eq!((reply.status, any(&reply, "retry-after")), (503, Some("7")));
    drop(held);
    *doors.store.hold.lock().unwrap() = true;
    assert_eq!(post(doors.zipkin, "/api/v2/spans", &[JSON], SPAN).await.status, 503);
    for done in doors.store.held.lock().unwrap().drain(..) {
        done(Ok(()));
    }
    let counts = doors.finish().await;
    assert_eq!((payloads(&counts, "memory"), payloads(&counts, "payload_timeout")), (1, 1));
}

#[tokio::test]
async fn a_client_that_goes_away_is_counted_and_costs_nothing() {
    let doors = open().await;
    let whole = request("POST", "/api/v2/spans", &[JSON], Some(SPAN));
    for cut in [whole.len() - 1, whole.len() - SPAN.len()] {
        assert!(raw_and_close(doors.zipkin, &whole[..cut]).await.is_none_or(|r| r.status == 400));
    }
    let counts = doors.finish().await;
    assert_eq!(counts.received_spans(), 0);
    assert_eq!(counts.payloads.iter().map(|p| p.payloads).sum::<u64>(), 2, "{counts:?}");
}

async fn raw_and_close(port: u16, bytes: &[u8]) -> Option<Reply> {
    use tokio::io::AsyncWriteExt;
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    read_reply(&mut stream).await
}

struct Other;
impl Handler for Other {
    fn handle<'a>(&'a self, request: &'a mut Request) -> HandlerFuture<'a> {
        Box::pin(async move {
            let text = format!("{} {}", request.head.method, request.head.uri.path());
            Answer::new(AnswerBody::Full(bytes::Bytes::from(text).into()))
        })
    }
}

#[tokio::test]
async fn everything_but_spans_is_the_fallbacks() {
    let doors = open_with(Plan { fallback: Some(Arc::new(Other)), ..Plan::default() }).await;
    for (method, path, ours) in [
        ("GET", "/api/v2/spans", false),
        ("GET", "/api/v2/traces", false),
        ("POST", "/api/v2/other", false),
        ("POST", "/api/v2/spans", true),
        ("POST", "/api/v1/spans", true),
    ] {
        let reply = raw(doors.zipkin, &request(method, path, &[], Some(b"[]"))).await.unwrap();
        let expected = if ours { String::new() } else { format!("{method} {path}") };
        assert_eq!((reply.status, reply.text()), (if ours { 202 } else { 200 }, expected));
    }
    doors.finish().await;
}
