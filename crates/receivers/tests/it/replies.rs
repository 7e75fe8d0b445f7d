//! Each rule of the API, one request each.

use crate::support::*;
use spanloom_model::{ClientFlags, Transport};
use spanloom_pipeline::Outcome;
use std::collections::BTreeMap;
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn every_answer_but_info_and_errors_of_the_mux_carries_version_and_state() {
    let r = start().await;
    let info = r.post("/info", &[], b"").await;
    assert_eq!(info.header("Datadog-Agent-State"), None);
    let state = crate::replies::sha256(&info.body);
    for (path, body, status) in [
        ("/v0.3/traces", &b"\x90"[..], 200),
        ("/v0.4/traces", b"\x90", 200),
        ("/v0.5/traces", b"\x92\x90\x90", 200),
        ("/v0.7/traces", b"\x80", 200),
        ("/v1.0/traces", b"\x80", 200),
        ("/v0.4/traces", b"", 400),
        ("/v0.1/spans", b"\x90", 415),
        ("/v0.6/stats", b"\x90", 400),
        ("/v0.4/services", b"", 200),
        ("/services", b"", 415),
    ] {
        let reply = r.post(path, &[MSGPACK], body).await;
        assert_eq!(reply.status, status, "{path}");
        assert_eq!(reply.header("Datadog-Agent-Version"), Some("7.80.2"), "{path}");
        assert_eq!(reply.header("Datadog-Agent-State"), Some(state.as_str()), "{path}");
    }
    for path in ["/nothing", "//v0.4/traces"] {
        let reply = r.post(path, &[], b"").await;
        assert_eq!(reply.header("Datadog-Agent-Version"), None, "{path}");
    }
    r.finish().await;
}

pub fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

#[tokio::test]
async fn the_limit_is_exact_for_json_and_one_less_for_msgpack() {
    let setup = |max| {
        let mut s = Setup::default();
        s.config.max_payload_size = max;
        s
    };
    let r = start_with(setup(2)).await;
    for (headers, body, status) in [
        (&[][..], &b"[]"[..], 200),
        (&[], b" []", 413),
        (&[], b"[] ", 200),
        (&[MSGPACK], b"\x90", 200),
        (&[MSGPACK], b"\x90\x00", 413),
        (&[MSGPACK], b"\x90\x00\x00", 413),
    ] {
        let reply = r.post("/v0.4/traces", headers, body).await;
        assert_eq!(reply.status, status, "{body:?}");
        if status == 413 {
            assert_eq!(reply.text(), "payload-too-large\n");
        }
    }
    // The same without a length in front.
    let chunked = b"POST /v0.4/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/msgpack\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n\x90\r\n2\r\n\x00\x00\r\n0\r\n\r\n";
    assert_eq!(r.raw(false, chunked).await.unwrap().status, 413);
    let counts = r.finish().await;
    assert_eq!(payloads(&counts, "payload_too_large"), 4);
}

#[tokio::test]
async fn headers_become_metadata_of_the_batch() {
    let mut setup = Setup::default();
    setup.containers.tags.insert("abc".into(), vec!["pod:x".into(), "zone:y".into()]);
    let r = start_with(setup).await;
    let headers = [
        MSGPACK,
        ("datadog-meta-lang", "python"),
        ("Datadog-Meta-Lang-Version", "3.11.7"),
        ("Datadog-Meta-Tracer-Version", "4.16.0"),
        ("Datadog-Container-ID", "abc"),
        ("Datadog-Client-Computed-Top-Level", "yes"),
        ("Datadog-Client-Computed-Stats", "false"),
        ("Datadog-Client-Dropped-P0-Traces", "153"),
        ("Datadog-Client-Dropped-P0-Spans", "2000"),
        ("X-Datadog-Process-Tags", "entrypoint.name:app"),
    ];
    assert_eq!(r.post("/v0.4/traces", &headers, &one_span()).await.status, 200);
    {
        let batches = r.store.batches.lock().unwrap();
        let b = &batches[0];
        let resource = b.resources[0];
        assert_eq!(b.str(resource.language_name), "python");
        assert_eq!(b.str(resource.tracer_version), "4.16.0");
        assert_eq!(b.str(resource.container_id), "abc");
        assert_eq!(b.get_str(resource.attrs, "_dd.tags.container"), Some("pod:x,zone:y"));
        assert_eq!(b.get_str(resource.attrs, "_dd.tags.process"), Some("entrypoint.name:app"));
        let flags = ClientFlags {
            computed_top_level: true,
            computed_stats: false,
            dropped_p0_traces: 153,
            dropped_p0_spans: 2000,
        };
        assert_eq!((b.intake.client, b.intake.transport, b.intake.received_at), (flags, Transport::Tcp, NOW));
    }
    let counts = r.finish().await;
    let python = counts.clients.iter().find(|c| c.name == "python").unwrap();
    assert_eq!(python.of(Outcome::Kept), 1);
}

#[tokio::test]
async fn where_no_container_runtime_is_the_headers_are_not_believed() {
    let mut setup = Setup::default();
    setup.config.containers = false;
    let r = start_with(setup).await;
    r.post("/v0.4/traces", &[MSGPACK, ("Datadog-Container-ID", "abc")], &one_span()).await;
    {
        let batches = r.store.batches.lock().unwrap();
        assert_eq!(batches[0].str(batches[0].resources[0].container_id), "");
    }
    r.finish().await;
}

#[tokio::test]
async fn rates_are_told_with_their_version() {
    let r = start().await;
    let version = "Datadog-Rates-Payload-Version";
    let first = r.post("/v0.4/traces", &[MSGPACK, (version, "x")], b"\x90").await;
    assert_eq!((first.header(version), first.text().as_str()), (Some(""), "{\"rate_by_service\":{}}\n"));
    r.rates.publish(BTreeMap::from([("service:web,env:prod".into(), 0.25)]), NOW);
    let rates = "{\"rate_by_service\":{\"service:web,env:prod\":0.25}}\n";
    let without = r.post("/v0.5/traces", &[], b"\x92\x90\x90").await;
    assert_eq!((without.header(version), without.text().as_str()), (None, rates));
    let old = r.post("/v0.7/traces", &[(version, "x")], b"\x80").await;
    let now = old.header(version).unwrap().to_owned();
    assert_eq!((now.as_str(), old.text().as_str()), ("6b006cf0-1", rates));
    let known = r.post("/v1.0/traces", &[(version, &now)], b"\x80").await;
    assert_eq!((known.header(version), known.text().as_str()), (Some(now.as_str()), "{}"));
    assert_eq!(known.header("Content-Type"), Some("application/json"));
    r.finish().await;
}

#[tokio::test]
async fn a_trace_count_is_counted_when_the_body_cannot_be_decoded() {
    let r = start().await;
    for count in [None, Some(""), Some("qwe"), Some("123")] {
        let headers: Vec<(&str, &str)> = count.map(|c| ("X-Datadog-Trace-Count", c)).into_iter().collect();
        assert_eq!(r.post("/v0.4/traces", &headers, b"} invalid json").await.status, 400);
    }
    let counts = r.finish().await;
    let rejected = counts.payloads.iter().find(|p| p.reason == "decoding_error").unwrap();
    assert_eq!((rejected.payloads, rejected.traces), (4, 123));
}

#[tokio::test]
async fn statistics_reach_the_sink_with_what_the_request_says() {
    let r = start().await;
    let body = std::fs::read(fixtures().join("golden-agent/own/bodies/client-stats-00.bin")).unwrap();
    let headers = [
        ("Datadog-Meta-Lang", "python"),
        ("Datadog-Meta-Tracer-Version", "4.16.0"),
        ("Datadog-Container-ID", "abc"),
        ("Datadog-Obfuscation-Version", "1"),
    ];
    let reply = r.post("/v0.6/stats", &headers, &body).await;
    assert_eq!((reply.status, reply.text().as_str(), reply.header("Content-Type")), (200, "", None));
    {
        let got = r.stats.got.lock().unwrap();
        assert_eq!((got[0].lang.as_str(), got[0].container_id.as_str()), ("python", "abc"));
        assert_eq!((got[0].obfuscation_version.as_str(), got[0].received_at), ("1", NOW));
        assert!(got[0].payload.group_count() > 0);
    }
    *r.stats.full.lock().unwrap() = true;
    let reply = r.post("/v0.6/stats", &[], &body).await;
    assert_eq!((reply.status, reply.text().as_str()), (408, "timeout\n"));
    r.finish().await;
}

#[tokio::test]
async fn remote_configuration_has_nothing_new() {
    let mut setup = Setup::default();
    setup.config.remote_configuration = true;
    let r = start_with(setup).await;
    assert!(r.post("/info", &[], b"").await.text().contains("\"/v0.7/config\""));
    let reply = r.post("/v0.7/config", &[], b"{\"client\":{\"backend_client_state\":[1]}}").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "{}"));
    assert_eq!(r.post("/v0.7/config", &[], b"nonsense").await.status, 400);
    r.finish().await;
    let off = start().await;
    assert_eq!(off.post("/v0.7/config", &[], b"{}").await.status, 404);
    off.finish().await;
}

#[tokio::test]
async fn the_log_level_is_set_by_post_only() {
    let level = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let mut setup = Setup::default();
    let seen = level.clone();
    setup.config.set_log_level = Some(std::sync::Arc::new(move |l| {
        *seen.lock().unwrap() = l.into();
        if l == "bad" { Err("no such level".into()) } else { Ok(()) }
    }));
    let r = start_with(setup).await;
    let reply = r.send("GET", "/config/set?log_level=debug", &[], b"").await;
    assert_eq!(
        (reply.status, reply.text().as_str()),
        (405, "{\"error\": \"GET method not allowed, only POST\"}")
    );
    assert_eq!(r.post("/config/set?x=1&log_level=debug", &[], b"").await.status, 200);
    assert_eq!(*level.lock().unwrap(), "debug");
    assert_eq!(r.post("/config/set?log_level=bad", &[], b"").await.status, 500);
    assert_eq!(r.post("/config/set?other=1", &[], b"").await.status, 200);
    r.finish().await;
}

#[tokio::test]
async fn redirects_of_get_have_gos_little_page() {
    let r = start().await;
    let reply = r.raw(false, &request("GET", "//v0.4/traces?a=1&b=2", &[], None)).await.unwrap();
    assert_eq!(reply.status, 307);
    assert_eq!(reply.header("Location"), Some("/v0.4/traces?a=1&b=2"));
    assert_eq!(reply.text(), "<a href=\"/v0.4/traces?a=1&amp;b=2\">Temporary Redirect</a>.\n\n");
    r.finish().await;
}

#[tokio::test]
async fn old_http_chunks_continue_and_strange_hosts_are_understood() {
    let r = start().await;
    let span = one_span();
    // HTTP/1.0 without Host: answered, then closed.
    let mut old = format!(
        "POST /v0.4/traces HTTP/1.0\r\nContent-Type: application/msgpack\r\nContent-Length: {}\r\n\r\n",
        span.len()
    )
    .into_bytes();
    old.extend_from_slice(&span);
    let mut stream = r.tcp().await;
    let reply = exchange(&mut stream, &old).await.unwrap();
    assert_eq!((reply.status, reply.version.as_str()), (200, "HTTP/1.0"));
    assert_eq!(read_reply(&mut stream).await, None);
    // Chunks, an empty Host, over the Unix socket.
    let mut chunked = b"PUT /v0.4/traces HTTP/1.1\r\nHost: \r\nContent-Type: application/msgpack\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for piece in span.chunks(50) {
        chunked.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        chunked.extend_from_slice(piece);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(r.raw(true, &chunked).await.unwrap().status, 200);
    // Expect: 100-continue.
    let mut stream = r.tcp().await;
    let head = format!(
        "POST /v0.4/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/msgpack\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        span.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(read_reply(&mut stream).await.unwrap().status, 100);
    assert_eq!(exchange(&mut stream, &span).await.unwrap().status, 200);
    // Keep-alive, twice on one connection, each kind of Host.
    let mut stream = r.unix().await;
    for host in ["2f7661722f72756e", "localhost", "127.0.0.1:8126"] {
        let get = format!("GET /info HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(exchange(&mut stream, get.as_bytes()).await.unwrap().status, 200);
    }
    // HEAD has the headers and no body.
    let head = r.raw(false, &request("GET", "/info", &[], None)).await.unwrap();
    let mut stream = r.tcp().await;
    stream.write_all(&request("HEAD", "/info", &[], None)).await.unwrap();
    let mut all = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut all).await.unwrap();
    assert!(all.ends_with(b"\r\n\r\n"));
    assert!(String::from_utf8(all).unwrap().contains(&format!("Content-Length: {}", head.body.len())));
    let counts = r.finish().await;
    assert_eq!(spans(&counts, Outcome::Kept), 3);
}

#[tokio::test]
async fn a_peer_on_the_unix_socket_is_known_by_its_process() {
    let r = start().await;
    r.raw(true, &request("POST", "/v0.4/traces", &[MSGPACK], Some(&one_span()))).await.unwrap();
    assert_eq!(*r.containers.pid.lock().unwrap(), i32::try_from(std::process::id()).ok());
    r.post("/v0.4/traces", &[MSGPACK, ("Datadog-Entity-ID", "in-4711")], &one_span()).await;
    {
        let batches = r.store.batches.lock().unwrap();
        assert_eq!(batches[0].intake.transport, Transport::Unix);
        assert_eq!(batches[1].str(batches[1].resources[0].container_id), "by-inode");
    }
    r.finish().await;
}

#[tokio::test]
async fn a_big_body_is_decoded_elsewhere_and_counted_the_same() {
    let r = start().await;
    let body = std::fs::read(fixtures().join("bench/dd-v04-10sp-1m.msgpack")).unwrap();
    assert_eq!(r.post("/v0.4/traces", &[MSGPACK], &body).await.status, 200);
    let counts = r.finish().await;
    assert_eq!(spans(&counts, Outcome::Kept), 2050);
    assert_eq!(counts.received[0].bytes, body.len() as u64);
}

#[tokio::test]
async fn without_a_key_what_is_not_ours_is_accepted_and_counted() {
    let r = start().await;
    for (path, status, body) in [
        ("/profiling/v1/input", 200, ""),
        ("/telemetry/proxy/api/v2/apmtelemetry", 200, "{}"),
        ("/v0.1/pipeline_stats", 200, "{}"),
        ("/openlineage/api/v1/lineage", 200, "{}"),
        ("/evp_proxy/v2/api/v2/citestcycle", 202, "{}"),
        ("/debugger/v1/input", 202, ""),
        ("/debugger/v1/diagnostics", 202, ""),
        ("/debugger/v2/input", 202, ""),
        ("/symdb/v1/input", 202, ""),
        ("/tracer_flare/v1", 200, ""),
    ] {
        let reply = r.post(path, &[], b"12345").await;
        assert_eq!((reply.status, reply.text().as_str()), (status, body), "{path}");
    }
    let counts = r.finish().await;
    let of = |event: &str, reason: &str| {
        counts.notes.iter().find(|n| n.event == event && n.reason == reason).map_or(0, |n| n.count)
    };
    assert_eq!(of("proxy_accepted", "debugger_diagnostics"), 1);
    assert_eq!(of("proxy_accepted", "debugger_v2"), 1);
    assert_eq!(of("proxy_accepted_bytes", "telemetry"), 5);
}
