//! Clients that are slow, greedy, or gone.

use crate::support::*;
use spanloom_pipeline::Outcome;
use spanloom_receivers::ServerConfig;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Short time-outs, so that tests wait for events and not long for time.
fn impatient() -> Setup {
    let server = ServerConfig {
        read_timeout: Duration::from_millis(200),
        idle_timeout: Duration::from_millis(400),
        ..ServerConfig::default()
    };
    Setup { server: Some(server), ..Setup::default() }
}

#[tokio::test]
async fn slow_clients_are_ended_and_others_are_served_meanwhile() {
    let r = start_with(impatient()).await;
    // A head that never ends; a body that never comes; nothing at all.
    let mut slow_head = r.tcp().await;
    slow_head.write_all(b"POST /v0.4/traces HTTP/1.1\r\nHost").await.unwrap();
    let mut slow_body = r.tcp().await;
    let head = b"POST /v0.4/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/msgpack\r\nContent-Length: 20000000\r\n\r\n\x91\x91";
    slow_body.write_all(head).await.unwrap();
    let mut silent = r.unix().await;
    // A body of which little has come holds little.
    assert_eq!(r.post("/v0.4/traces", &[MSGPACK], &one_span()).await.status, 200);
    assert!(r.pipeline.inlet().budget().peak() < 200_000);
    let reply = read_reply(&mut slow_body).await.unwrap();
    assert_eq!((reply.status, reply.text().as_str()), (408, "timeout\n"));
    assert_eq!(read_reply(&mut slow_head).await, None);
    assert_eq!(read_reply(&mut silent).await, None);
    assert_eq!(r.connections.timed_out.load(Ordering::Relaxed), 2);
    let counts = r.finish().await;
    assert_eq!(payloads(&counts, "timeout"), 1);
    assert_eq!(spans(&counts, Outcome::Kept), 1);
}

#[tokio::test]
async fn an_idle_connection_outlives_the_read_timeout_and_is_used_again() {
    let r = start_with(impatient()).await;
    let mut stream = r.tcp().await;
    let get = b"GET /info HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(exchange(&mut stream, get).await.unwrap().status, 200);
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(exchange(&mut stream, get).await.unwrap().status, 200);
    // And ends in the end.
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    r.finish().await;
}

#[tokio::test]
async fn a_truncated_upload_is_answered_and_counted() {
    let r = start().await;
    let mut stream = r.tcp().await;
    stream
        .write_all(b"POST /v0.4/traces HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n[[")
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    let reply = read_reply(&mut stream).await.unwrap();
    assert_eq!((reply.status, reply.text().as_str()), (400, "unexpected-eof\n"));
    let counts = r.finish().await;
    assert_eq!(payloads(&counts, "unexpected_eof"), 1);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_without_being_read_and_the_client_sees_it() {
    let mut setup = Setup::default();
    setup.config.max_payload_size = 1000;
    let r = start_with(setup).await;
    // Small enough to be read to the end: the connection stays usable.
    let mut stream = r.tcp().await;
    let mut post = b"POST /v0.4/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/msgpack\r\nContent-Length: 5000\r\n\r\n".to_vec();
    post.resize(post.len() + 5000, b' ');
    for _ in 0..2 {
        assert_eq!(exchange(&mut stream, &post).await.unwrap().status, 413);
    }
    // Too large for that: answered, then closed.
    let mut stream = r.tcp().await;
    let mut post = b"POST /v0.4/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/msgpack\r\nContent-Length: 3000000\r\n\r\n".to_vec();
    post.resize(post.len() + 3_000_000, b' ');
    let reply = exchange(&mut stream, &post).await.unwrap();
    assert_eq!((reply.status, reply.header("Connection")), (413, Some("close")));
    r.finish().await;
}

#[tokio::test]
async fn nonsense_on_the_wire_harms_nobody() {
    let r = start_with(impatient()).await;
    for junk in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\r\n\r\n\r\n",
        b"GET\r\n\r\n",
    ] {
        let mut stream = r.tcp().await;
        let reply = exchange(&mut stream, junk).await;
        stream.shutdown().await.ok();
        assert!(reply.is_none_or(|r| r.status >= 400), "{junk:?}");
    }
    assert_eq!(r.post("/v0.4/traces", &[MSGPACK], b"\x90").await.status, 200);
    r.finish().await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_ended() {
    let r = start_with(impatient()).await;
    let mut stream = r.unix().await;
    let many = b"GET /info HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
    // Answers fill the buffers, then the server stops reading, then it ends
    // the connection, and only then does writing fail.
    while stream.write_all(&many).await.is_ok() {}
    while r.connections.timed_out.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    drop(stream);
    r.finish().await;
}
