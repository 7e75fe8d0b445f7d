//! Jaeger over HTTP and UDP, and remote sampling.

use crate::doors::*;
use crate::support::*;
use spanloom_pipeline::PayloadOutcome;
use std::time::Duration;

const THRIFT: (&str, &str) = ("Content-Type", "application/x-thrift");

fn good() -> Vec<u8> {
    fixture("node-jaeger/http/001-api-traces.bin")
}

#[tokio::test]
async fn every_request_has_jaegers_status_and_text() {
    let doors = open().await;
    let body = good();
    let gz = gzip(&body);
    for (path, headers, body, status, text) in [
        ("/api/traces", vec![THRIFT], &body[..], 202, ""),
        ("/api/traces?format=jaeger.thrift", vec![THRIFT], &body, 202, ""),
        ("/api/traces", vec![("Content-Type", "application/vnd.apache.thrift.binary")], &body, 202, ""),
        ("/api/traces", vec![THRIFT, ("Content-Encoding", "gzip")], &gz, 202, ""),
        ("/api/traces", vec![], &body, 400, "Cannot parse content type: mime: no media type\n"),
        (
            "/api/traces",
            vec![("Content-Type", "application/json")],
            b"{}",
            400,
            "Unsupported content type: application/json\n",
        ),
        ("/api/other", vec![THRIFT], &body, 404, "404 page not found\n"),
    ] {
        let reply = post(doors.jaeger_http, path, &headers, body).await;
        assert_eq!((reply.status, reply.text().as_str()), (status, text), "{path} {headers:?}");
    }
    let reply = post(doors.jaeger_http, "/api/traces", &[THRIFT], &body[..body.len() / 2]).await;
    assert_eq!(reply.status, 400);
    assert!(reply.text().starts_with("Unable to process request body: "), "{}", reply.text());
    let reply = raw(doors.jaeger_http, &request("GET", "/api/traces", &[], None)).await.unwrap();
    assert_eq!(reply.status, 405);
    let counts = doors.finish().await;
    assert_eq!(counts.payloads(PayloadOutcome::Accepted), 4);
    assert_eq!(counts.payloads(PayloadOutcome::Rejected), 3);
}

#[tokio::test]
async fn no_room_is_told_and_counted() {
    let mut plan = Plan::default();
    plan.jaeger.wait = Duration::from_millis(5);
    let doors = open_with(plan).await;
    let held = doors.pipeline.inlet().reserve(64 << 20).unwrap();
    let reply = post(doors.jaeger_http, "/api/traces", &[THRIFT], &good()).await;
    assert_eq!((reply.status, any(&reply, "retry-after")), (503, Some("1")));
    assert!(reply.text().starts_with("Cannot submit Jaeger batch: "));
    drop(held);
    let counts = doors.finish().await;
    assert_eq!(payloads(&counts, "memory"), 1);
}

#[tokio::test]
async fn each_datagram_is_taken_or_counted() {
    let doors = open().await;
    let compact = fixture("python-jaeger/udp/001-udp.bin");
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let sent = 200;
    for i in 0..sent {
        match i % 4 {
            0 => socket.send_to(b"nonsense", doors.compact).await.unwrap(),
            1 => socket.send_to(&compact, doors.binary).await.unwrap(),
            2 => socket.send_to(&[], doors.compact).await.unwrap(),
            _ => socket.send_to(&compact, doors.compact).await.unwrap(),
        };
    }
    let store = doors.store.clone();
    let counts = doors.finish().await;
    assert_eq!(counts.payloads.iter().map(|p| p.payloads).sum::<u64>(), sent);
    let accepted = counts.payloads(PayloadOutcome::Accepted);
    assert!(accepted > 0 && accepted <= sent / 4);
    let stored: usize = store.batches.lock().unwrap().iter().map(|b| b.spans.len()).sum();
    assert_eq!(stored as u64, accepted * 10);
}

#[tokio::test]
async fn the_largest_datagram_is_taken() {
    let doors = open().await;
    // A call of emitBatch whose one tag fills the datagram.
    let mut batch = spanloom_model::Batch::default();
    let resource = spanloom_model::Resource::default();
    batch.resources.push(resource);
    let name = batch.arena.push(&"x".repeat(64_800));
    batch.spans.push(spanloom_model::Span {
        trace_id: spanloom_model::TraceId(1),
        span_id: spanloom_model::SpanId(2),
        name,
        scope: spanloom_model::NO_SCOPE,
        ..Default::default()
    });
    batch.chunk_by_trace(0, 0);
    for (encoding, to) in [
        (spanloom_codec::thrift::Encoding::Compact, doors.compact),
        (spanloom_codec::thrift::Encoding::Binary, doors.binary),
    ] {
        let datagram = spanloom_codec::jaeger::encode_emit_batch(&batch, encoding).remove(0);
        assert!(datagram.len() > 64_800);
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(&datagram, to).await.unwrap();
    }
    let counts = doors.finish().await;
    assert_eq!(counts.payloads(PayloadOutcome::Accepted), 2, "{counts:?}");
}

#[tokio::test]
async fn datagrams_beyond_the_queue_are_dropped_and_counted() {
    let mut plan = Plan::default();
    plan.udp.queue = 2;
    plan.udp.workers = 1;
    plan.pipeline.ack_wait = Duration::from_secs(60);
    let doors = open_with(plan).await;
    *doors.store.hold.lock().unwrap() = true;
    let compact = fixture("python-jaeger/udp/001-udp.bin");
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for _ in 0..50 {
        socket.send_to(&compact, doors.compact).await.unwrap();
    }
    // At most one at the store, two in the queue, the others dropped.
    while payloads(&doors.pipeline.ledger().snapshot(), "queue_full") < 47 {
        tokio::task::yield_now().await;
    }
    *doors.store.hold.lock().unwrap() = false;
    while let Some(done) = { doors.store.held.lock().unwrap().pop() } {
        done(Ok(()));
    }
    let counts = doors.finish().await;
    let accepted = counts.payloads(PayloadOutcome::Accepted);
    assert!((2..=3).contains(&accepted));
    assert_eq!(accepted + payloads(&counts, "queue_full"), 50);
}

#[tokio::test]
async fn datagrams_that_the_kernel_drops_are_counted() {
    let mut plan = Plan::default();
    plan.udp.receive_buffer = 1;
    plan.udp.workers = 100;
    let doors = open_with(plan).await;
    let compact = fixture("python-jaeger/udp/001-udp.bin");
    // Nothing else runs on this thread between the first and the last.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..100 {
        socket.send_to(&compact, doors.compact).unwrap();
    }
    let counts = doors.finish().await;
    assert!(payloads(&counts, "kernel_buffer") > 0);
    assert_eq!(counts.payloads.iter().map(|p| p.payloads).sum::<u64>(), 100);
}

#[tokio::test]
async fn clients_are_told_our_rates() {
    let doors = open().await;
    let get = async |path: &str| {
        let reply = raw(doors.sampling, &request("GET", path, &[], None)).await.unwrap();
        (reply.status, any(&reply, "content-type").unwrap().to_owned(), reply.text())
    };
    let rate = |text: &str| {
        (
            200,
            "application/json".to_owned(),
            format!(
                "{{\"strategyType\":\"PROBABILISTIC\",\"probabilisticSampling\":{{\"samplingRate\":{text}}}}}"
            ),
        )
    };
    assert_eq!(get("/?service=web").await, rate("1"));
    let rates = [("service:,env:", 0.5), ("service:web shop,env:none", 0.25)];
    doors.rates.publish(rates.map(|(k, v)| (k.to_owned(), v)).into(), 0);
    assert_eq!(get("/sampling?service=web+shop").await, rate("0.25"));
    assert_eq!(get("/sampling?service=other").await, rate("0.5"));
    for path in ["/", "/sampling?x=1", "/?service=a&service=b"] {
        let (status, _, text) = get(path).await;
        assert_eq!((status, text.as_str()), (400, "'service' parameter must be provided once\n"));
    }
    doors.finish().await;
}

#[tokio::test]
async fn clients_are_told_our_rates_over_grpc_on_both_ports() {
    const METHOD: &str = "/jaeger.api_v2.SamplingManager/GetSamplingStrategy";
    const GRPC: (&str, &str) = ("content-type", "application/grpc");
    let frame =
        |flag: u8, message: &[u8]| [&[flag][..], &(message.len() as u32).to_be_bytes(), message].concat();
    let doors = open().await;
    let rates = [("service:,env:", 0.5), ("service:web shop,env:none", 0.25)];
    doors.rates.publish(rates.map(|(k, v)| (k.to_owned(), v)).into(), 0);
    // strategy_type is 0; probabilistic_sampling { sampling_rate }
    let answer = |rate: f64| frame(0, &[&[18, 9, 9][..], &rate.to_le_bytes()].concat());
    let web = b"\x0a\x08web shop";
    for port in [doors.sampling_grpc, doors.jaeger_grpc] {
        for (headers, body, rate) in [
            (vec![GRPC], frame(0, web), 0.25),
            (vec![GRPC, ("grpc-encoding", "gzip")], frame(1, &gzip(web)), 0.25),
            (vec![GRPC], frame(0, b"\x0a\x05other"), 0.5),
            (vec![GRPC], frame(0, b""), 0.5),
        ] {
            let reply = post_h2(port, METHOD, &headers, body).await;
            assert_eq!((any(&reply, "grpc-status"), &reply.body), (Some("0"), &answer(rate)));
        }
        for (headers, body, status) in [
            (vec![GRPC], frame(0, b"\x0a\x05web"), "3"),
            (vec![GRPC], vec![], "3"),
            (vec![GRPC], frame(0, &vec![0; 70_000]), "8"),
            (vec![GRPC, ("grpc-encoding", "gzip")], frame(1, &bomb()), "8"),
            (vec![GRPC, ("grpc-encoding", "snappy")], frame(1, web), "12"),
        ] {
            let reply = post_h2(port, METHOD, &headers, body).await;
            assert_eq!(any(&reply, "grpc-status"), Some(status), "{headers:?}");
            assert_eq!(any(&reply, "grpc-status-details-bin"), None, "the same question would fail again");
        }
        let health = post_h2(port, "/grpc.health.v1.Health/Check", &[GRPC], frame(0, b"")).await;
        assert_eq!(any(&health, "grpc-status"), Some("0"));
    }
    let spans = "/jaeger.api_v2.CollectorService/PostSpans";
    let reply = post_h2(doors.sampling_grpc, spans, &[GRPC], frame(0, b"")).await;
    assert_eq!(any(&reply, "grpc-status"), Some("12"), "spans have their own port");
    let counts = doors.finish().await;
    assert!(counts.payloads.is_empty(), "questions bring no spans: {counts:?}");
}
