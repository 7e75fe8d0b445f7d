//! The intake is down, slow, refuses, cuts connections: what it holds at the
//! end is exactly what the counters say.

use spanloom_codec::datadog::agent_payload::{AgentInfo, encode_agent_payload, encode_tracer_payload};
use spanloom_exporters::{DatadogConfig, DatadogExporter, Endpoint, NoAnswer, Post, Transport};
use spanloom_journal::SyncPolicy;
use spanloom_model::{Arena, Batch, Chunk, Intake, Range32, Resource, Sampled, Span, SpanId, TraceId};
use spanloom_pipeline::Exporter;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A stand-in for the intake: answers from a script, then 202.
#[derive(Default)]
struct Intake503 {
    script: Mutex<Vec<Result<u16, NoAnswer>>>,
    taken: Mutex<Vec<Post>>,
}

impl Transport for Intake503 {
    fn post(&self, post: Post) -> Pin<Box<dyn Future<Output = Result<u16, NoAnswer>> + Send + '_>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let answer = self.script.lock().unwrap().pop().unwrap_or(Ok(202));
            if matches!(answer, Ok(200..=299)) {
                self.taken.lock().unwrap().push(post);
            }
            answer
        })
    }
}

fn batch(id: u64) -> Arc<Batch> {
    let mut b = Batch::new(Arena::default(), Intake::default());
    let language_name = b.arena.push("python");
    b.resources.push(Resource { language_name, ..Resource::default() });
    let name = b.arena.push(&format!("operation-{id}"));
    b.spans.push(Span { trace_id: TraceId(u128::from(id)), span_id: SpanId(id), name, ..Span::default() });
    b.chunks.push(Chunk {
        spans: Range32::new(0, 1),
        sampled: Sampled { keep: true, ..Sampled::default() },
        ..Chunk::default()
    });
    Arc::new(b)
}

fn config(dir: &Path) -> DatadogConfig {
    DatadogConfig {
        dir: dir.into(),
        endpoints: vec![Endpoint {
            url: "http://intake".into(),
            key: "secret".into(),
            user_agent: "Datadog Trace Agent/7/0".into(),
        }],
        queue_bytes: 1 << 20,
        policy: SyncPolicy::Always,
        flush_period: Duration::from_millis(1),
        connections: 3,
        agent: AgentInfo { hostname: "h".into(), ..AgentInfo::default() },
        seed: 1,
    }
}

async fn export(exporter: &DatadogExporter, id: u64) {
    let (tell, told) = tokio::sync::oneshot::channel();
    exporter.export(batch(id), Box::new(move |r| tell.send(r).unwrap()));
    told.await.unwrap().unwrap();
}

/// Which operations the intake holds, with repetitions.
fn operations(taken: &[Post]) -> Vec<u64> {
    let mut out = Vec::new();
    for post in taken.iter().filter(|p| p.url.ends_with("/api/v0.2/traces")) {
        let body = zstd::stream::decode_all(&post.body[..]).unwrap();
        let text = String::from_utf8_lossy(&body).into_owned();
        let ids = text.split("operation-").skip(1);
        out.extend(
            ids.map(|s| {
                s.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u64>().unwrap()
            }),
        );
    }
    out.sort_unstable();
    out
}

#[tokio::test]
async fn refusals_and_broken_connections_lose_and_double_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let intake = Arc::new(Intake503::default());
    *intake.script.lock().unwrap() =
        vec![Ok(500), Err(NoAnswer("connection reset".into())), Ok(429), Ok(408), Ok(503), Ok(403)];
    let (exporter, _) = DatadogExporter::start(config(dir.path()), intake.clone()).unwrap();
    for id in 1..=20 {
        export(&exporter, id).await;
    }
    exporter.stop(Duration::from_secs(60)).await;
    assert_eq!(operations(&intake.taken.lock().unwrap()), (1..=20).collect::<Vec<_>>());
    let stats = &exporter.stats()[0].queue;
    assert_eq!((stats.sent_items, stats.requests, stats.retries), (20, 0, 6));
    let first = intake.taken.lock().unwrap()[0].clone();
    let header = |n: &str| first.headers.iter().find(|(name, _)| name == n).map(|(_, v)| v.clone());
    assert_eq!(header("DD-Api-Key").as_deref(), Some("secret"));
    assert_eq!(header("Content-Encoding").as_deref(), Some("zstd"));
}

#[tokio::test]
async fn what_the_intake_refuses_for_good_is_counted_by_reason() {
    let dir = tempfile::tempdir().unwrap();
    let intake = Arc::new(Intake503::default());
    *intake.script.lock().unwrap() = vec![Ok(413)];
    let (exporter, _) = DatadogExporter::start(config(dir.path()), intake.clone()).unwrap();
    export(&exporter, 1).await;
    exporter.stop(Duration::from_secs(60)).await;
    let queue = exporter.stats()[0].queue.clone();
    assert_eq!(queue.dropped.get("payload_too_large"), Some(&1));
    assert!(intake.taken.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_outage_over_a_restart_loses_nothing_and_the_key_is_not_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let down = Arc::new(Intake503::default());
    *down.script.lock().unwrap() = vec![Err(NoAnswer("refused".into())); 10_000];
    let (exporter, _) = DatadogExporter::start(config(dir.path()), down).unwrap();
    for id in 1..=10 {
        export(&exporter, id).await;
    }
    exporter.send_stats(1, b"statistics", 7).unwrap();
    exporter.stop(Duration::ZERO).await;
    assert!(!contains(dir.path(), b"secret"));

    let up = Arc::new(Intake503::default());
    let (exporter, damage) = DatadogExporter::start(config(dir.path()), up.clone()).unwrap();
    assert!(damage.is_empty(), "{damage:?}");
    export(&exporter, 11).await;
    exporter.stop(Duration::from_secs(60)).await;
    let taken = up.taken.lock().unwrap();
    assert_eq!(operations(&taken), (1..=11).collect::<Vec<_>>());
    assert_eq!(taken.iter().filter(|p| p.url.ends_with("/api/v0.2/stats")).count(), 1);
}

/// As [`batch`], with so many spans.
fn large(first: u64, spans: u64) -> Arc<Batch> {
    let mut b = Batch::clone(&batch(first));
    for id in first + 1..first + spans {
        let name = b.arena.push(&format!("operation-{id}"));
        b.spans.push(Span {
            trace_id: TraceId(u128::from(first)),
            span_id: SpanId(id),
            name,
            ..Span::default()
        });
    }
    b.chunks[0].spans = Range32::new(0, b.spans.len());
    Arc::new(b)
}

#[tokio::test]
async fn large_requests_reach_every_destination_as_one_frame_of_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let intake = Arc::new(Intake503::default());
    let mut config = config(dir.path());
    config.flush_period = Duration::from_secs(600);
    let other = Endpoint { url: "http://other".into(), ..config.endpoints[0].clone() };
    config.endpoints.push(other);
    let mut plain = Vec::new();
    encode_agent_payload(&config.agent, &mut plain);
    let (exporter, _) = DatadogExporter::start(config, intake.clone()).unwrap();
    for first in [1, 2001, 4001] {
        let batch = large(first, 2000);
        encode_tracer_payload(&batch, 0, &mut plain);
        let (tell, told) = tokio::sync::oneshot::channel();
        exporter.export(batch, Box::new(move |r| tell.send(r).unwrap()));
        told.await.unwrap().unwrap();
    }
    assert_eq!(exporter.stats()[0].queue.pending_items, 6000);
    exporter.stop(Duration::from_secs(60)).await;
    let taken = intake.taken.lock().unwrap();
    let mut urls: Vec<&str> = taken.iter().map(|p| p.url.as_str()).collect();
    urls.sort_unstable();
    assert_eq!(urls, ["http://intake/api/v0.2/traces", "http://other/api/v0.2/traces"]);
    for post in taken.iter() {
        // The decoder for bodies of one frame, which ends where the frame does.
        let body = zstd::bulk::decompress(&post.body, plain.len()).unwrap();
        assert_eq!(body, plain);
    }
    assert_eq!(exporter.stats()[1].queue.sent_items, 6000);
}

fn contains(dir: &Path, needle: &[u8]) -> bool {
    std::fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            contains(&path, needle)
        } else {
            std::fs::read(path).unwrap().windows(needle.len()).any(|w| w == needle)
        }
    })
}
