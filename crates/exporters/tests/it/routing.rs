//! Chunks go where policies say, and nowhere else: seen by what each backend
//! is sent, in every format.

use spanloom_codec::{datadog, otlp, zipkin};
use spanloom_exporters::{BY_POLICY, NoAnswer, Post, Router, RouterConfig, Transport};
use spanloom_journal::SyncPolicy;
use spanloom_model::draft::{Draft, batch};
use spanloom_model::{Batch, Intake, Leaves, Protocol, ROUTE_DEFAULT, ROUTE_NOWHERE};
use spanloom_pipeline::Exporter;
use spanloom_policy::load;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io::Read;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Default)]
struct Backends {
    taken: Mutex<Vec<Post>>,
    /// Answers instead of 202.
    refuse: Mutex<Vec<u16>>,
}

impl Transport for Backends {
    fn post(&self, post: Post) -> Pin<Box<dyn Future<Output = Result<u16, NoAnswer>> + Send + '_>> {
        Box::pin(async move {
            if let Some(status) = self.refuse.lock().unwrap().pop() {
                return Ok(status);
            }
            self.taken.lock().unwrap().push(post);
            Ok(202)
        })
    }
}

impl Backends {
    /// Span ids by URL, as a decoder of the backend reads them.
    fn spans(&self) -> BTreeMap<String, BTreeSet<u64>> {
        let mut out: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        for post in self.taken.lock().unwrap().iter() {
            let header = |n: &str| post.headers.iter().find(|(k, _)| k == n).map_or("", |(_, v)| v.as_str());
            let mut body = post.body.to_vec();
            if header("Content-Encoding") == "gzip" {
                body.clear();
                flate2::read::GzDecoder::new(&post.body[..]).read_to_end(&mut body).unwrap();
            }
            let intake = Intake::default();
            assert!(header("DD-Api-Key").is_empty(), "no key leaves for a backend");
            let decoded = match header("Content-Type") {
                "application/json" => zipkin::decode_json_v2(body.into(), intake).unwrap(),
                "application/x-protobuf" if post.url.contains("/v1/traces") => {
                    otlp::decode_proto(body.into(), intake).unwrap().batch
                }
                "application/x-protobuf" => zipkin::decode_proto(body.into(), intake).unwrap(),
                "application/grpc" => {
                    assert_eq!(header("TE"), "trailers");
                    assert_eq!(body[..5], [&[0][..], &(body.len() as u32 - 5).to_be_bytes()].concat());
                    otlp::decode_proto(body[5..].to_vec().into(), intake).unwrap().batch
                }
                "application/msgpack" => {
                    let b = datadog::decode_traces(
                        Protocol::DatadogV04,
                        datadog::Encoding::Msgpack,
                        body.into(),
                        intake,
                        &datadog::RequestMeta::default(),
                    );
                    let b = b.unwrap();
                    assert_eq!(header("X-Datadog-Trace-Count"), b.chunks.len().to_string());
                    b
                }
                other => panic!("{other}"),
            };
            out.entry(post.url.clone()).or_default().extend(decoded.spans.iter().map(|s| s.span_id.0));
        }
        out
    }
}

fn router(dir: &Path, backends: &Arc<Backends>) -> Arc<Router> {
    let config = RouterConfig {
        linger: std::time::Duration::from_secs(60),
        dir: dir.into(),
        queue_bytes: 64 << 20,
        policy: SyncPolicy::Interval,
        flush_period: Duration::from_millis(1),
        connections: 1,
        user_agent: "spanloom/test".into(),
        translation: Default::default(),
        seed: 1,
    };
    Router::new(config, Arc::clone(backends) as _)
}

const MESH: &str = "
type: Mesh
name: default
tracing:
  backends:
  - {name: json, type: zipkin, conf: {url: 'http://json:9411/api/v2/spans'}}
  - {name: proto, type: zipkin, conf: {url: 'http://proto:9411/api/v2/spans', apiVersion: httpProto}}
  - {name: agent, type: datadog, conf: {address: agent, port: 8126}}
  - {name: grpc, type: openTelemetry, conf: {endpoint: 'grpc:4317'}}
  - {name: http, type: openTelemetry, conf: {endpoint: 'http://http:4318/v1/traces'}}
  - {name: none, type: zipkin, sampling: 0, conf: {url: 'http://none:9411/api/v2/spans'}}
";

fn policies(to: &[&str]) -> spanloom_policy::Policies {
    let mut text = MESH.to_owned();
    for name in to {
        text += &format!(
            "---\ntype: TrafficTrace\nname: {name}\nselectors:\n- match: {{to: {name}}}\nconf: {{backend: {name}}}\n"
        );
    }
    let loaded = load(&[("test.yaml".into(), text)]);
    assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
    loaded.policies
}

/// Decides as the chain of processors does.
fn route(router: &Router, batch: &mut Batch) -> BTreeMap<&'static str, u64> {
    let table = router.table();
    let mut notes = BTreeMap::new();
    for c in 0..batch.chunks.len() {
        table.route(batch, c, |why, n| *notes.entry(why).or_default() += n);
    }
    notes
}

async fn export(router: &Router, batch: Batch) {
    let (tell, told) = tokio::sync::oneshot::channel();
    router.export(Arc::new(batch), Box::new(move |r| tell.send(r).unwrap()));
    told.await.unwrap().unwrap();
}

#[tokio::test]
async fn each_span_goes_to_its_own_backend_in_the_backends_format() {
    let dir = tempfile::tempdir().unwrap();
    let backends = Arc::new(Backends::default());
    let router = router(dir.path(), &backends);
    let all = ["json", "proto", "agent", "grpc", "http", "none"];
    router.load(policies(&all)).unwrap();
    // One trace through everything: a single chunk with seven routes.
    let mut drafts: Vec<Draft> = all
        .iter()
        .enumerate()
        .map(|(i, to)| Draft::new(1, 10 + i as u64).service("shop").name("get").tag("to", *to))
        .collect();
    drafts.insert(3, Draft::new(1, 99).service("shop").name("get"));
    for _ in 0..3 {
        let mut b = batch(&drafts);
        assert_eq!(b.chunks.len(), 1);
        let notes = route(&router, &mut b);
        assert_eq!(notes, BTreeMap::from([("percentage", 1)]));
        let unrouted: Vec<_> = b.chunks.iter().filter(|c| c.route == ROUTE_DEFAULT).collect();
        assert_eq!(unrouted.len(), 1);
        assert_eq!(b.chunk_spans(unrouted[0])[0].span_id.0, 99);
        assert_eq!(unrouted[0].sampled.leaves, Leaves::Whole);
        let elsewhere = b.chunks.iter().filter(|c| c.route != ROUTE_DEFAULT);
        assert!(elsewhere.clone().all(|c| c.sampled.leaves == Leaves::Nothing && c.sampled.by == BY_POLICY));
        assert_eq!(elsewhere.filter(|c| c.route == ROUTE_NOWHERE).count(), 1);
        assert_eq!(b.chunks.iter().map(|c| c.spans.len()).sum::<usize>(), drafts.len());
        export(&router, b).await;
    }
    router.stop(Duration::from_secs(30)).await;
    let expected = [
        ("http://json:9411/api/v2/spans", 10),
        ("http://proto:9411/api/v2/spans", 11),
        ("http://agent:8126/v0.4/traces", 12),
        ("http://grpc:4317/opentelemetry.proto.collector.trace.v1.TraceService/Export", 13),
        ("http://http:4318/v1/traces", 14),
    ];
    let expected = expected.map(|(url, id)| (url.to_owned(), BTreeSet::from([id])));
    assert_eq!(backends.spans(), BTreeMap::from(expected));
    for backend in router.stats() {
        let spans = if backend.name == "none" { 0 } else { 3 };
        assert_eq!((backend.count.delivered, backend.count.failed), (spans, 0), "{}", backend.name);
        assert_eq!(backend.destination.queue.sent_items, spans);
    }
}

#[tokio::test]
async fn changed_policies_keep_what_waits_and_what_is_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let backends = Arc::new(Backends::default());
    let router = router(dir.path(), &backends);
    router.load(policies(&["json"])).unwrap();
    let one = |id: u64, to: &str| batch(&[Draft::new(u128::from(id), id).service("shop").tag("to", to)]);
    let (mut first, mut second, mut third) = (one(1, "json"), one(2, "json"), one(3, "agent"));
    route(&router, &mut first);
    // Decided by the old policies, exported under the new ones.
    router.load(policies(&["agent"])).unwrap();
    export(&router, first).await;
    assert_eq!(route(&router, &mut second), BTreeMap::new());
    assert_eq!(second.chunks[0].route, ROUTE_DEFAULT);
    route(&router, &mut third);
    export(&router, third).await;
    let gone: Vec<(String, bool)> = router.stats().into_iter().map(|b| (b.name, b.gone)).collect();
    assert_eq!(gone, [("json".to_owned(), true), ("agent".to_owned(), false)]);
    // Named again: the same queue.
    router.load(policies(&["json", "agent"])).unwrap();
    assert_eq!(router.stats().len(), 2);
    router.stop(Duration::from_secs(30)).await;
    let spans = backends.spans();
    assert_eq!(spans["http://json:9411/api/v2/spans"], BTreeSet::from([1]));
    assert_eq!(spans["http://agent:8126/v0.4/traces"], BTreeSet::from([3]));
}

#[tokio::test]
async fn a_backend_that_is_not_there_yet_gets_everything_and_refusals_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let backends = Arc::new(Backends::default());
    *backends.refuse.lock().unwrap() = vec![400, 503, 404, 401, 403];
    let router = router(dir.path(), &backends);
    router.load(policies(&["json"])).unwrap();
    for id in 1..=5u64 {
        let mut b = batch(&[Draft::new(u128::from(id), id).service("shop").tag("to", "json")]);
        route(&router, &mut b);
        export(&router, b).await;
    }
    router.stop(Duration::from_secs(60)).await;
    let queue = router.stats()[0].destination.queue.clone();
    let dropped: u64 = queue.dropped.values().sum();
    assert_eq!(queue.dropped.keys().copied().collect::<Vec<_>>(), ["rejected_by_backend"]);
    assert_eq!((queue.sent_items + dropped, queue.retries, queue.requests), (5, 4, 0));
    let got = backends.spans().values().map(BTreeSet::len).sum::<usize>();
    assert_eq!(got as u64, queue.sent_items);
}

#[tokio::test]
async fn a_large_batch_is_cut_so_that_every_backend_can_take_it() {
    let dir = tempfile::tempdir().unwrap();
    let backends = Arc::new(Backends::default());
    let router = router(dir.path(), &backends);
    router.load(policies(&["grpc"])).unwrap();
    let text = "x".repeat(100_000);
    // One long trace, and some short ones.
    let drafts: Vec<Draft> = (1..=100u64)
        .map(|id| {
            let trace = if id <= 80 { 1 } else { u128::from(id) };
            Draft::new(trace, id).service("shop").tag("to", "grpc").tag("text", text.as_str())
        })
        .collect();
    let mut b = batch(&drafts);
    route(&router, &mut b);
    export(&router, b).await;
    router.stop(Duration::from_secs(60)).await;
    assert!(backends.taken.lock().unwrap().iter().all(|p| p.body.len() < 4 << 20), "gRPC's usual limit");
    let spans = backends.spans();
    assert_eq!(spans.values().next().unwrap(), &(1..=100).collect::<BTreeSet<u64>>());
}

#[tokio::test]
async fn tags_of_the_sender_select_too_and_those_of_the_span_go_first() {
    let dir = tempfile::tempdir().unwrap();
    let router = router(dir.path(), &Arc::default());
    router.load(policies(&["json", "agent"])).unwrap();
    let mut of_sender = batch(&[Draft::new(1, 1).service("shop").process("to", "json")]);
    let mut of_both = batch(&[Draft::new(1, 1).service("shop").process("to", "json").tag("to", "agent")]);
    let mut of_none = batch(&[Draft::new(1, 1).service("shop").tag("too", "agent")]);
    let mut again = batch(&[Draft::new(1, 1).service("shop").tag("to", "agent")]);
    again.intake.resent = true;
    for b in [&mut of_sender, &mut of_both, &mut of_none] {
        assert_eq!(route(&router, b), BTreeMap::new());
    }
    assert_eq!(route(&router, &mut again), BTreeMap::from([("sent_again", 1)]));
    let routes = [&of_sender, &of_both, &of_none, &again].map(|b| b.chunks[0].route);
    assert!(routes[0] != routes[1] && routes[..2].iter().all(|r| *r != ROUTE_DEFAULT && *r != ROUTE_NOWHERE));
    assert_eq!(routes[2..], [ROUTE_DEFAULT, ROUTE_NOWHERE]);
    router.stop(Duration::ZERO).await;
}
