//! More than there is room for.

use crate::support::*;
use spanloom_pipeline::{Outcome, PayloadOutcome};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

fn tiny() -> Setup {
    let mut setup = Setup::default();
    setup.config.decoder_timeout = Duration::from_millis(5);
    setup.pipeline.budget = 1000;
    setup
}

#[tokio::test]
async fn overload_is_a_success_to_clients_that_did_not_ask_for_the_truth() {
    let r = start_with(tiny()).await;
    let inlet = r.pipeline.inlet();
    let held = inlet.reserve(1000).unwrap();
    let version = ("Datadog-Rates-Payload-Version", "x");
    for (path, headers, status, kind, body) in [
        ("/v0.4/traces", vec![MSGPACK], 200, "application/json", "{\"rate_by_service\":{}}\n"),
        ("/v0.4/traces", vec![MSGPACK, version], 200, "application/json", "{\"rate_by_service\":{}}\n"),
        (
            "/v0.5/traces",
            vec![("datadog-send-real-http-status", "1")],
            429,
            "application/json",
            "{\"rate_by_service\":{}}\n",
        ),
        ("/v0.3/traces", vec![MSGPACK], 200, "text/plain; charset=utf-8", "OK\n"),
    ] {
        let reply = r.post(path, &headers, &one_span()).await;
        assert_eq!((reply.status, reply.text().as_str()), (status, body), "{path}");
        assert_eq!(reply.header("Content-Type"), Some(kind));
        assert_eq!(reply.header("Datadog-Rates-Payload-Version"), None);
    }
    drop(held);
    let counts = r.finish().await;
    assert_eq!(payloads(&counts, "memory"), 4);
    assert_eq!(counts.received_spans(), 0);
}

#[tokio::test]
async fn the_flag_429_tells_everybody() {
    let mut setup = tiny();
    setup.config.features = vec!["429".into()];
    let r = start_with(setup).await;
    let held = r.pipeline.inlet().reserve(1000).unwrap();
    assert_eq!(r.post("/v0.4/traces", &[MSGPACK], &one_span()).await.status, 429);
    drop(held);
    assert_eq!(r.post("/v0.4/traces", &[MSGPACK], &one_span()).await.status, 200);
    r.finish().await;
}

#[tokio::test]
async fn a_missing_acknowledgement_is_told_to_everybody() {
    let mut setup = Setup::default();
    setup.pipeline.ack_wait = Duration::from_millis(5);
    let r = start_with(setup).await;
    *r.store.hold.lock().unwrap() = true;
    let reply = r.post("/v0.4/traces", &[MSGPACK], &one_span()).await;
    assert_eq!((reply.status, reply.text().as_str()), (429, ""));
    for done in r.store.held.lock().unwrap().drain(..) {
        done(Ok(()));
    }
    let counts = r.finish().await;
    assert_eq!(payloads(&counts, "payload_timeout"), 1);
    assert_eq!(spans(&counts, Outcome::Kept), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_adds_up_with_many_clients_and_little_room() {
    let mut setup = tiny();
    setup.pipeline.budget = 200_000;
    setup.pipeline.queue = 2;
    setup.pipeline.queue_wait = Duration::from_millis(1);
    setup.server = Some(spanloom_receivers::ServerConfig::default());
    let r = Arc::new(start_with(setup).await);
    let body = std::fs::read(fixtures().join("bench/dd-v04-mix0.msgpack")).unwrap();
    let (taken, told) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut clients = Vec::new();
    for client in 0..40u64 {
        let (r, body, taken, told) = (r.clone(), body.clone(), taken.clone(), told.clone());
        clients.push(tokio::spawn(async move {
            for i in 0..10u64 {
                let honest =
                    [MSGPACK, ("Datadog-Send-Real-Http-Status", "1"), ("X-Datadog-Trace-Count", "14")];
                if (client + i) % 11 == 0 {
                    // Hangs up in the middle.
                    let bytes = request("POST", "/v0.4/traces", &honest, Some(&body));
                    let mut stream = r.tcp().await;
                    tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes[..bytes.len() / 2])
                        .await
                        .unwrap();
                    continue;
                }
                match r.post("/v0.4/traces", &honest, &body).await.status {
                    200 => taken.fetch_add(1, Ordering::SeqCst),
                    429 => told.fetch_add(1, Ordering::SeqCst),
                    other => panic!("{other}"),
                };
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
    let r = Arc::into_inner(r).unwrap();
    let store = r.store.clone();
    let counts = r.finish().await;
    assert_eq!(counts.payloads(PayloadOutcome::Accepted), taken.load(Ordering::SeqCst));
    // Those who hung up were counted too.
    assert!(counts.payloads(PayloadOutcome::Refused) >= told.load(Ordering::SeqCst));
    assert_eq!(counts.payloads.iter().map(|p| p.payloads).sum::<u64>(), 400);
    assert_eq!(spans(&counts, Outcome::Kept), 126 * taken.load(Ordering::SeqCst));
    let stored: usize = store.batches.lock().unwrap().iter().map(|b| b.spans.len()).sum();
    assert_eq!(stored as u64, spans(&counts, Outcome::Kept));
    assert!(told.load(Ordering::SeqCst) > 0, "there was too much room for this test");
}
