//! Every route and every error.

use crate::support::{Answer, NOW, Server, config};
use http::Method;
use serde_json::{Value as Json, json};
use spanloom_api::{Api, Config, Door, Report, ServeConfig, serve};
use spanloom_model::draft::Draft;
use spanloom_model::memory::MemoryStore;
use spanloom_model::{
    AttrKey, Batch, Dependency, Operation, Search, SpanKind, SpanReader, StoreError, TimeRange, TraceId,
    TraceSummary,
};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

const S: i64 = 1_000_000_000;

/// One trace over two services, seconds ago.
fn spans() -> Vec<Draft> {
    let at = NOW - 60 * S;
    vec![
        Draft::new(0xa1, 1)
            .service("Web")
            .name("GET /")
            .kind(SpanKind::Server)
            .start(at)
            .lasting(50_000_000)
            .tag("user", "ann")
            .process("region", "eu"),
        Draft::new(0xa1, 2)
            .parent(1)
            .service("Web")
            .name("charge")
            .kind(SpanKind::Client)
            .start(at + 1_000_000)
            .lasting(30_000_000)
            .tag("peer.service", "Billing")
            .process("region", "eu"),
        Draft::new(0xa1, 3).parent(2).service("billing").name("charge").start(at + 2_000_000).error(true),
        Draft::new(0xa1, 4)
            .parent(2)
            .service("billing")
            .name("plain")
            .kind(SpanKind::Server)
            .start(at + 2_000_000),
    ]
}

fn v1_error(answer: &Answer, code: u16, message: &str) {
    assert_eq!(answer.status, code, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json");
    let body = answer.json();
    assert_eq!(body["data"], Json::Null);
    assert_eq!(body["errors"][0]["code"], code);
    let got = body["errors"][0]["msg"].as_str().unwrap();
    assert!(got.contains(message), "{got}");
}

#[tokio::test]
async fn jaegers_first_api_answers_in_its_envelope() {
    let s = Server::new(&spans()).await;
    let services = s.get("/api/services").await;
    assert_eq!(
        services.json(),
        json!({"data": ["Web", "billing"], "total": 2, "limit": 0, "offset": 0, "errors": null})
    );
    assert_eq!(services.header("content-type"), "application/json");
    assert_eq!(services.header("x-content-type-options"), "nosniff");
    assert_eq!(services.header("access-control-allow-origin"), "");
    assert_eq!(s.get("/api/services/billing/operations").await.json()["data"], json!(["charge", "plain"]));
    let kinds = s.get("/api/operations?service=billing").await.json()["data"].clone();
    assert_eq!(kinds, json!([{"name": "charge", "spanKind": ""}, {"name": "plain", "spanKind": "server"}]));
    for path in
        ["/api/traces/a1", "/api/traces/00000000000000a1?raw=true", "/api/traces/AAAAAAAAAAAAAAAAAAAAoQ=="]
    {
        let trace = s.get(path).await.json();
        assert_eq!(trace["data"][0]["traceID"], "00000000000000a1", "{path}");
        assert_eq!(trace["data"][0]["spans"].as_array().unwrap().len(), 4);
    }
    let found = s.get("/api/traces?service=Web").await.json();
    assert_eq!(found["data"].as_array().unwrap().len(), 1);
    assert_eq!(found["total"], 0);
    assert_eq!(s.get("/api/traces?service=nobody").await.json()["data"], json!([]));
    let all = s.get("/api/traces").await.json();
    assert_eq!(all["data"].as_array().unwrap().len(), 1, "no service means any");
    let edges = s.get("/api/dependencies?lookback=604800000").await.json();
    assert_eq!(edges["data"], json!([{"parent": "Web", "child": "billing", "callCount": 2}]));
    let before = s.get("/api/dependencies?endTs=1000&lookback=10").await.json();
    assert_eq!(before["data"], json!([]));
}

#[tokio::test]
async fn jaegers_first_api_says_what_is_wrong() {
    let s = Server::new(&spans()).await;
    for (path, code, message) in [
        ("/api/traces/a2", 404, "trace not found"),
        ("/api/traces/xyz!", 400, "hexadecimal"),
        ("/api/traces/a1?raw=maybe", 400, "unable to parse param 'raw'"),
        ("/api/traces/a1?start=x", 400, "unable to parse param 'start'"),
        ("/api/operations", 400, "parameter 'service' is required"),
        (
            "/api/traces?minDuration=2s&maxDuration=1s",
            400,
            "'maxDuration' should be greater than 'minDuration'",
        ),
        ("/api/traces?tag=x", 400, "malformed 'tag' parameter, expecting key:value, received: x"),
        ("/api/traces?traceID=xyz", 400, "cannot parse traceID param"),
        ("/api/dependencies?endTs=abc", 400, "unable to parse param 'endTs'"),
        ("/api/metrics/latencies?service=a", 400, "unable to parse param 'quantile'"),
        ("/api/metrics/latencies?service=a&quantile=0.5", 501, "trace metrics are currently disabled"),
        ("/api/metrics/calls", 400, "please provide at least one service name"),
        ("/api/metrics/errors?service=a,b", 501, "disabled"),
        ("/api/deep-dependencies?service=a", 501, "not offered"),
        ("/api/quality-metrics", 501, "not offered"),
        ("/api/nothing", 404, "there is no /api/nothing"),
        ("/api/traces/a1/b", 404, "there is no"),
    ] {
        v1_error(&s.get(path).await, code, message);
    }
    let post = s.call(Door::Query, Method::POST, "/api/services", "").await;
    v1_error(&post, 405, "use GET");
    assert_eq!(post.header("allow"), "GET");
    v1_error(&s.call(Door::Query, Method::POST, "/api/archive/a1", "").await, 500, "archive");
    v1_error(&s.get("/api/archive/a1").await, 405, "use POST");
    v1_error(&s.call(Door::Query, Method::POST, "/api/transform", "{").await, 400, "");
}

#[tokio::test]
async fn grafana_gets_json_arrays_and_never_an_empty_success_for_an_unknown_trace() {
    let s = Server::new(&[]).await;
    assert_eq!(s.get("/api/services").await.json()["data"], json!([]));
    let unknown = s.get("/api/traces/1?start=1&end=2").await;
    assert_eq!((unknown.status, &unknown.json()["data"]), (404, &Json::Null));
    let search = s.get("/api/traces?service=a&tags=%7B%7D&limit=20&start=1&end=2").await;
    assert_eq!((search.status, &search.json()["data"]), (200, &json!([])));
    let v3 = s
        .get("/api/v3/traces?query.service_name=a&query.start_time_min=2026-01-15T10:00:00+01:00&query.start_time_max=2026-01-15T11:00:00+01:00")
        .await;
    assert_eq!(v3.status, 404);
    assert_eq!(s.get("/api/dependencies?endTs=1&lookback=1").await.json()["data"], json!([]));
}

#[tokio::test]
async fn transform_shows_otlp_without_storing_it() {
    let s = Server::new(&[]).await;
    let span = |trace: &str| {
        json!({"traceId": trace, "spanId": "00000000000000b1", "name": "x", "kind": 2,
               "startTimeUnixNano": "1000000", "endTimeUnixNano": "2000000"})
    };
    let body = json!({"resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [{"spans": [
        span("000000000000000000000000000000aa"), span("000000000000000000000000000000bb"),
        span("000000000000000000000000000000aa")]}]}]});
    let got = s.call(Door::Query, Method::POST, "/api/transform", &body.to_string()).await;
    let data = got.json()["data"].clone();
    assert_eq!(data.as_array().unwrap().len(), 2);
    assert_eq!(data[0]["spans"].as_array().unwrap().len(), 2);
    assert_eq!(s.get("/api/services").await.json()["total"], 0);
}

#[tokio::test]
async fn pretty_print_indents_and_head_has_no_body() {
    let s = Server::new(&spans()).await;
    let plain = s.get("/api/services?prettyPrint=false").await;
    let pretty = s.get("/api/services?prettyPrint=1").await;
    assert!(pretty.text().starts_with("{\n    \"data\": [\n        \"Web\""), "{}", pretty.text());
    assert_eq!(pretty.json(), plain.json());
    let head = s.call(Door::Query, Method::HEAD, "/api/services", "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), plain.body.len().to_string());
}

#[tokio::test]
async fn jaegers_third_api_passes_the_uis_validation() {
    let s = Server::new(&spans()).await;
    assert_eq!(s.get("/api/v3/services").await.json(), json!({"services": ["Web", "billing"]}));
    let times = "query.startTimeMin=2026-01-15T09:00:00Z&query.startTimeMax=2026-01-15T11:00:00Z";
    let summary = s.get(&format!("/api/v3/trace-summaries?{times}")).await.json()["summaries"][0].clone();
    assert_eq!(summary["traceId"].as_str().unwrap().len(), 32);
    assert_eq!(summary["minStartTimeUnixNano"], (NOW - 60 * S).to_string());
    assert!(summary["maxEndTimeUnixNano"].is_string());
    assert_eq!((&summary["spanCount"], &summary["errorSpanCount"]), (&json!(4), &json!(1)));
    assert!(summary.get("orphanSpanCount").is_none(), "zero is left out");
    for service in summary["services"].as_array().unwrap() {
        assert!(service["name"].is_string());
    }
    let operations = s.get("/api/v3/operations?service=billing&span_kind=internal").await.json();
    assert_eq!(operations, json!({"operations": []}), "shown as internal, but not said to be");
    let operations = s.get("/api/v3/operations").await.json();
    assert_eq!(operations, json!({"operations": []}), "no service has no operations");
    let trace = s.get("/api/v3/traces/a1").await.json();
    assert_eq!(trace["result"]["resourceSpans"].as_array().unwrap().len(), 2);
    let found = s
        .get(&format!(
            "/api/v3/traces?{times}&query.durationMin=40ms&query.attributes=%7B%22user%22:%22ann%22%7D"
        ))
        .await;
    assert_eq!(found.status, 200);

    let empty = Server::new(&[]).await;
    assert_eq!(empty.get("/api/v3/services").await.json(), json!({"services": []}));
    assert_eq!(empty.get("/api/v3/operations?service=x").await.json(), json!({"operations": []}));
    assert_eq!(empty.get(&format!("/api/v3/trace-summaries?{times}")).await.json(), json!({"summaries": []}));
}

#[tokio::test]
async fn jaegers_third_api_says_what_is_wrong() {
    let s = Server::new(&spans()).await;
    let times = "query.startTimeMin=2026-01-15T09:00:00Z&query.startTimeMax=2026-01-15T11:00:00Z";
    for (path, code, message) in [
        ("/api/v3/traces/ff".to_owned(), 404, "No traces found"),
        ("/api/v3/traces/zz".into(), 400, "malformed parameter trace_id: "),
        ("/api/v3/traces/a1?startTime=x".into(), 400, "malformed parameter startTime: "),
        (format!("/api/v3/traces?{times}&query.serviceName=nobody"), 404, "No traces found"),
        (
            "/api/v3/traces?query.serviceName=a".into(),
            400,
            "query.startTimeMin and query.startTimeMax are required",
        ),
        (
            format!("/api/v3/traces?{times}&query.durationMin=x"),
            400,
            "malformed parameter query.durationMin: ",
        ),
        (
            format!("/api/v3/trace-summaries?{times}&query.searchDepth=x"),
            400,
            "malformed parameter query.searchDepth: ",
        ),
        (
            format!("/api/v3/trace-summaries?{times}&query.attributes=x"),
            400,
            "malformed parameter query.attributes: ",
        ),
        ("/api/v3/nothing".into(), 404, "there is no /api/v3/nothing"),
    ] {
        let answer = s.get(&path).await;
        let error = answer.json()["error"].clone();
        assert_eq!((answer.status, &error["httpCode"]), (code, &json!(code)), "{path}");
        assert!(error["message"].as_str().unwrap().starts_with(message), "{path}: {error}");
    }
}

#[tokio::test]
async fn zipkin_answers_in_lower_case_under_both_prefixes() {
    let s = Server::new(&spans()).await;
    for prefix in ["", "/zipkin"] {
        let list = |path: &str| format!("{prefix}/api/v2/{path}");
        assert_eq!(s.zipkin(&list("services")).await.json(), json!(["billing", "web"]));
        assert_eq!(s.zipkin(&list("spans?serviceName=WEB")).await.json(), json!(["charge", "get /"]));
        assert_eq!(s.zipkin(&list("remoteServices?serviceName=web")).await.json(), json!(["billing"]));
        let trace = s.zipkin(&list("trace/a1")).await.json();
        assert_eq!(trace.as_array().unwrap().len(), 4);
        for query in [
            "serviceName=web",
            "serviceName=Web&spanName=GET%20/",
            "remoteServiceName=billing",
            "minDuration=50000",
            "annotationQuery=user%3Dann%20and%20region%3Deu%20and%20error",
            "serviceName=web&annotationQuery=region",
        ] {
            let found = s.zipkin(&list(&format!("traces?{query}"))).await.json();
            assert_eq!(found.as_array().unwrap().len(), 1, "{query}");
        }
        let none = s.zipkin(&list("traces?serviceName=web&annotationQuery=error")).await.json();
        assert_eq!(none, json!([]), "the error is another service's");
        let links = s.zipkin(&list("dependencies?endTs=1768471200000")).await.json();
        assert_eq!(links, json!([{"parent": "web", "child": "billing", "callCount": 1}]));
        assert_eq!(s.zipkin(&list("autocompleteKeys")).await.json(), json!([]));
        assert_eq!(s.zipkin(&list("autocompleteValues?key=user")).await.json(), json!([]));
    }
}

#[tokio::test]
async fn zipkin_says_what_is_wrong_in_plain_text() {
    let s = Server::new(&spans()).await;
    for (path, code, message) in [
        ("/api/v2/trace/ff", 404, "00000000000000ff not found"),
        ("/api/v2/trace/XY", 400, "XY should be lower-hex encoded with no prefix"),
        ("/api/v2/spans", 400, "Mandatory parameter/header/attribute is missing: serviceName"),
        ("/api/v2/remoteServices", 400, "Mandatory parameter/header/attribute is missing: serviceName"),
        ("/api/v2/traces?limit=0", 400, "limit <= 0"),
        ("/api/v2/dependencies", 400, "Mandatory parameter/header/attribute is missing: endTs"),
        ("/api/v2/dependencies?endTs=0", 400, "endTs <= 0"),
        ("/api/v2/autocompleteValues", 400, "Mandatory parameter/header/attribute is missing: key"),
        ("/api/v2/autocompleteValues?key=", 400, "key was empty"),
        ("/api/v2/traces?minDuration=1.5", 400, "For input string: \"1.5\""),
        ("/api/v2/trace/1/", 404, "there is no /api/v2/trace/1/"),
        ("/api/v2/traceMany?traceIds=", 400, "traceIds parameter is empty"),
        ("/api/v2/nothing", 404, "there is no /api/v2/nothing"),
    ] {
        let answer = s.zipkin(path).await;
        assert_eq!((answer.status, answer.text()), (code, message), "{path}");
        assert!(answer.header("content-type").starts_with("text/plain"), "{path}");
    }
    let posted = s.call(Door::Zipkin, Method::POST, "/api/v2/services", "").await;
    assert_eq!(posted.status, 405);
}

#[tokio::test]
async fn zipkins_pages_find_their_settings_and_health() {
    let s = Server::new(&spans()).await;
    let settings = s.zipkin("/zipkin/config.json").await;
    assert_eq!(settings.json()["queryLimit"], 10);
    assert_eq!(settings.json()["dependency"]["highErrorRate"], 0.75);
    assert!(settings.header("cache-control").starts_with("max-age=600"));
    for path in ["/health", "/actuator/health"] {
        let health = s.zipkin(path).await;
        assert_eq!((health.status, &health.json()["zipkin"]["status"]), (200, &json!("UP")));
    }
    assert!(s.zipkin("/info").await.json()["zipkin"]["version"].is_string());
    for path in ["/", "/zipkin"] {
        let answer = s.zipkin(path).await;
        assert_eq!((answer.status, answer.header("location")), (302, "/zipkin/"));
    }
}

#[tokio::test]
async fn names_may_be_kept_by_clients_when_there_are_more_than_three() {
    let few: Vec<Draft> = (1..=3).map(|i| Draft::new(i, 1).service(format!("s{i}"))).collect();
    assert_eq!(Server::new(&few).await.zipkin("/api/v2/services").await.header("cache-control"), "");
    let many: Vec<Draft> = (1..=4).map(|i| Draft::new(i, 1).service(format!("s{i}"))).collect();
    let answer = Server::new(&many).await.zipkin("/api/v2/services").await;
    assert_eq!(answer.header("cache-control"), "max-age=300, must-revalidate");
}

#[test]
fn the_collectors_paths_are_left_to_it() {
    use Door::{Query, Zipkin};
    for (door, method, path, ours) in [
        (Zipkin, Method::POST, "/api/v2/spans", false),
        (Zipkin, Method::GET, "/api/v2/spans", true),
        (Zipkin, Method::POST, "/zipkin/api/v2/spans", false),
        (Zipkin, Method::POST, "/api/v1/spans", false),
        (Zipkin, Method::GET, "/zipkin/api/v2/traces", true),
        (Zipkin, Method::GET, "/zipkin/static/app.js", false),
        (Zipkin, Method::GET, "/metrics", false),
        (Query, Method::GET, "/api/services", true),
        (Query, Method::GET, "/search", false),
        (Query, Method::GET, "/apix", false),
    ] {
        assert_eq!(Api::owns(door, &method, path), ours, "{door:?} {method} {path}");
    }
}

#[tokio::test]
async fn our_search_pages_through_everything_once() {
    let spans: Vec<Draft> = (1..=7u64)
        .map(|i| Draft::new(i.into(), 1).start(NOW - 10 * S + (i as i64 / 2) * S).tag("n", i as i64))
        .collect();
    let s = Server::new(&spans).await;
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = s.get(&format!("/api/spanloom/v1/search?q=service:svc&limit=3{cursor}")).await.json();
        seen.extend(
            page["traces"].as_array().unwrap().iter().map(|t| t["traceId"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen.len(), 7);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 7);
    let found = s.get("/api/spanloom/v1/search?q=@n:%3E5&since=1h").await.json();
    assert_eq!(found["traces"].as_array().unwrap().len(), 2);
    assert_eq!(found["next"], Json::Null);
    let old = s.get("/api/spanloom/v1/search?start=0&end=2026-01-01T00:00:00Z").await.json();
    assert_eq!(old["traces"], json!([]));
}

#[tokio::test]
async fn our_trace_has_the_tree_and_everything_of_a_span() {
    let s = Server::new(&spans()).await;
    for id in ["a1", "000000000000000000000000000000a1", "d:161"] {
        let t = s.get(&format!("/api/spanloom/v1/traces/{id}")).await.json();
        let spans = t["spans"].as_array().unwrap();
        assert_eq!(spans.iter().map(|s| s["depth"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2, 2]);
        assert_eq!(spans[1]["parent"], 0);
        assert_eq!(spans[0]["selfTime"], 20_000_000);
        assert_eq!(spans[0]["attributes"], json!([{"key": "user", "value": "ann"}]));
        assert_eq!(spans[2]["status"], "error");
        let resource = spans[0]["resourceIndex"].as_u64().unwrap() as usize;
        assert_eq!(t["resources"][resource]["attributes"], json!([{"key": "region", "value": "eu"}]));
        assert_eq!((&t["start"], &t["duration"]), (&json!((NOW - 60 * S).to_string()), &json!(50_000_000)));
    }
}

struct Known;
impl Report for Known {
    fn status(&self) -> Option<Json> {
        Some(json!({"received": 1}))
    }
    fn why(&self, id: TraceId) -> Option<Json> {
        Some(json!({"id": id.to_string()}))
    }
    fn keep(&self, id: TraceId) -> Option<Result<Json, spanloom_api::Problem>> {
        Some(match id.0 {
            0xa1 => Ok(json!({"outcome": "kept"})),
            _ => Err(spanloom_api::Problem::NotFound(format!("no trace {id}"))),
        })
    }
}

#[tokio::test]
async fn our_lists_reports_and_errors() {
    let store = Arc::new(MemoryStore::new());
    store.insert(&spanloom_model::draft::batch(&spans()));
    let api = Api::with_report(store.clone(), Arc::new(Known), config());
    let s = Server::over(store, api).await;
    let own = |path: &str| format!("/api/spanloom/v1/{path}");
    assert_eq!(s.get(&own("services")).await.json(), json!({"services": ["Web", "billing"]}));
    let operations = s.get(&own("operations?service=Web")).await.json();
    assert_eq!(operations["operations"][0], json!({"name": "GET /", "kind": "server"}));
    assert_eq!(s.get(&own("keys")).await.json()["keys"][0]["key"], "peer.service");
    assert_eq!(s.get(&own("values?key=user")).await.json(), json!({"values": ["ann"]}));
    assert_eq!(s.get(&own("values?key=region&q=service:billing")).await.json(), json!({"values": []}));
    let calls = s.get(&own("dependencies")).await.json()["dependencies"].clone();
    assert_eq!(calls, json!([{"parent": "Web", "child": "billing", "calls": 2, "errors": 0}]));
    assert_eq!(s.get(&own("status")).await.json(), json!({"received": 1}));
    assert_eq!(s.get(&own("why/a1")).await.json()["id"], TraceId(0xa1).to_string());
    let kept = s.call(Door::Query, Method::POST, &own("traces/a1/keep"), "").await;
    assert_eq!((kept.status, kept.json()), (200, json!({"outcome": "kept"})));
    assert_eq!(s.call(Door::Query, Method::POST, &own("traces/b1/keep"), "").await.status, 404);
    assert_eq!(s.get(&own("traces/a1/keep")).await.status, 405, "reading changes nothing");
    assert_eq!(s.call(Door::Query, Method::POST, &own("why/a1"), "").await.status, 405);
    for (path, code, message) in [
        ("search?q=service:", 400, "a value is missing here, at character 9"),
        ("search?limit=0", 400, "`limit`"),
        ("search?cursor=x", 400, "`cursor`"),
        ("search?since=5", 400, "`since`: time: missing unit"),
        ("search?start=tomorrow", 400, "`start`"),
        ("search?start=2&end=1", 400, "`start` is after `end`"),
        ("traces/ff", 404, "no trace"),
        ("traces/xyz", 400, "trace id"),
        ("traces/d:x", 400, "decimal"),
        ("values", 400, "`key` is required"),
        ("ledger", 501, "keeps no ledger"),
        ("nothing", 404, "there is no"),
    ] {
        let answer = s.get(&own(path)).await;
        let error = answer.json()["error"].clone();
        assert_eq!((answer.status, &error["status"]), (code, &json!(code)), "{path}");
        assert!(error["message"].as_str().unwrap().contains(message), "{path}: {error}");
    }
    assert_eq!(s.get(&own("search?q=service:")).await.json()["error"]["position"], 8);
}

/// A store that fails, or waits until it is told to go on.
struct Hard {
    error: StoreError,
    entered: Sender<()>,
    go: Mutex<Receiver<()>>,
}

impl SpanReader for Hard {
    fn services(&self) -> Result<Vec<String>, StoreError> {
        self.entered.send(()).unwrap();
        let _ = self.go.lock().unwrap().recv();
        Ok(Vec::new())
    }
    fn operations(&self, _: &str) -> Result<Vec<Operation>, StoreError> {
        panic!("on purpose")
    }
    fn trace(&self, _: TraceId, _: TimeRange) -> Result<Option<Batch>, StoreError> {
        Err(self.error.clone())
    }
    fn search(&self, _: &Search) -> Result<Vec<TraceSummary>, StoreError> {
        Err(StoreError::TooLarge("a million files".into()))
    }
    fn dependencies(&self, _: TimeRange) -> Result<Vec<Dependency>, StoreError> {
        Err(StoreError::Busy("x".into()))
    }
    fn attribute_keys(&self) -> Result<Vec<AttrKey>, StoreError> {
        Err(StoreError::Closed)
    }
    fn attribute_values(&self, _: &str, _: usize) -> Result<Vec<String>, StoreError> {
        Err(StoreError::Closed)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_or_stalls_is_a_failure_of_its_kind() {
    let (entered, has_entered) = channel();
    let (go, gone) = channel();
    let store = Arc::new(Hard { error: StoreError::Read("bad file".into()), entered, go: Mutex::new(gone) });
    let config = Config { concurrency: 1, wait: Duration::ZERO, ..config() };
    let s = Arc::new(Server::over(Arc::new(MemoryStore::new()), Api::new(store, config)).await);
    v1_error(&s.get("/api/traces/1").await, 500, "the store cannot read: bad file");
    v1_error(&s.get("/api/traces").await, 400, "too large: a million files");
    v1_error(&s.get("/api/dependencies").await, 503, "full for now");
    v1_error(&s.get("/api/operations?service=x").await, 500, "internal error");
    assert_eq!(s.zipkin("/api/v2/trace/1").await.text(), "the store cannot read: bad file");

    // One question is being worked on: the next is turned away, not queued for ever.
    let waiting = tokio::spawn({
        let s = s.clone();
        async move { s.get("/api/services").await }
    });
    tokio::task::spawn_blocking(move || has_entered.recv().unwrap()).await.unwrap();
    let turned_away = s.get("/api/services").await;
    v1_error(&turned_away, 503, "too many queries");
    assert_eq!(turned_away.header("retry-after"), "1");
    go.send(()).unwrap();
    assert_eq!(waiting.await.unwrap().status, 200);
}

#[tokio::test]
async fn answers_and_bodies_are_bounded() {
    let store = Arc::new(MemoryStore::new());
    store.insert(&spanloom_model::draft::batch(&spans()));
    let api = Api::new(store.clone(), Config { max_answer: 100, max_body: 10, ..config() });
    let s = Server::over(store, api).await;
    v1_error(&s.get("/api/traces/a1").await, 400, "the answer exceeds");
    v1_error(&s.get("/api/traces?service=Web").await, 400, "the answer exceeds");
    let large = s.call(Door::Query, Method::POST, "/api/transform", &"x".repeat(11)).await;
    assert_eq!(large.status, 413);
}

#[tokio::test]
async fn a_stopped_server_finishes_the_answer_under_way_and_takes_no_further_connection() {
    let (entered, has_entered) = channel();
    let (go, gone) = channel();
    let store = Arc::new(Hard { error: StoreError::Closed, entered, go: Mutex::new(gone) });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let limits = ServeConfig { drain: Duration::from_secs(60), ..ServeConfig::default() };
    let api = Api::new(store, config());
    let server = tokio::spawn(serve(listener, api, Door::Query, limits, async { drop(stopped.await) }));
    let asked = tokio::task::spawn_blocking(move || {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(at).unwrap();
        stream.write_all(b"GET /api/services HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    tokio::task::spawn_blocking(move || has_entered.recv().unwrap()).await.unwrap();
    stop.send(()).unwrap();
    go.send(()).unwrap();
    let answer = asked.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("}"), "{answer}");
    server.await.unwrap();
    assert!(std::net::TcpStream::connect(at).is_err());
}
