//! Requests, errors and latencies: our API and Jaeger's.

use crate::support::{NOW, Server, config};
use serde_json::json;
use spanloom_api::{Api, Report};
use spanloom_model::memory::MemoryStore;
use spanloom_model::{RedFilter, RedPoint, RedSeries};
use std::sync::{Arc, Mutex};

const MINUTE: i64 = 60_000_000_000;

/// Remembers what it was asked, and knows the two last points of `web`.
#[derive(Default)]
struct Figures(Mutex<Vec<String>>);

impl Report for Figures {
    fn red(&self, f: &RedFilter<'_>) -> Option<Vec<RedSeries>> {
        self.0.lock().unwrap().push(format!("{f:?}"));
        if f.services == ["many"] {
            let one = |i: usize| RedSeries { operation: i.to_string(), ..RedSeries::default() };
            return Some((0..20).map(one).collect());
        }
        if f.services.first().is_some_and(|s| *s != "web") {
            return Some(Vec::new());
        }
        let step = f.step.max(MINUTE);
        let last = if f.window > 0 { f.to - f.window } else { f.from };
        let point = |start, requests, errors| RedPoint {
            start,
            requests,
            errors,
            duration: 5,
            p50: 1.4e6,
            p95: 2e6,
            p99: 3e6,
            latency: 2.5e6,
            ..RedPoint::default()
        };
        let points = vec![point(last - step, 600, 0), point(last, 1200, 300)];
        let operation = if f.depth > 1 { "GET /" } else { "" };
        Some(vec![RedSeries {
            service: "web".into(),
            operation: operation.into(),
            resource: if f.depth > 2 { "/users" } else { "" }.into(),
            points,
            ..RedSeries::default()
        }])
    }
}

async fn server() -> (Server, Arc<Figures>) {
    let (store, figures) = (Arc::new(MemoryStore::new()), Arc::new(Figures::default()));
    let api = Api::with_report(store.clone(), Arc::clone(&figures) as _, config());
    (Server::over(store, api).await, figures)
}

#[tokio::test]
async fn our_api_tells_figures_by_name() {
    let (s, figures) = server().await;
    let services = s.get("/api/spanloom/v1/red").await.json();
    assert_eq!(services["end"], json!(NOW.to_string()));
    assert_eq!(services["start"], json!((NOW - 60 * MINUTE).to_string()));
    let series = &services["series"][0];
    assert_eq!((&series["service"], series.get("operation")), (&json!("web"), None));
    let point = json!({"start": (NOW - 60 * MINUTE).to_string(), "requests": 1200, "errors": 300, "duration": 5,
                       "p50": 1.4e6, "p95": 2e6, "p99": 3e6});
    assert_eq!(series["points"][1], point);
    let of_one =
        s.get("/api/spanloom/v1/red?service=web&since=2h&step=5m&kind=Server&spans=all").await.json();
    assert_eq!(
        (&of_one["series"][0]["operation"], &of_one["series"][0]["resource"]),
        (&json!("GET /"), &json!("/users"))
    );
    let asked = figures.0.lock().unwrap().clone();
    assert!(asked[0].contains("entries: true") && asked[0].contains("depth: 1"), "{}", asked[0]);
    let second = &asked[1];
    assert!(second.contains("entries: false") && second.contains("depth: 3"), "{second}");
    assert!(second.contains("kinds: [\"server\"]") && second.contains("step: 300000000000"), "{second}");
}

#[tokio::test]
async fn our_api_says_what_is_wrong() {
    let (s, _) = server().await;
    for (query, text) in [
        ("by=host", "`by`: \"host\" is none of service, operation, resource, kind"),
        ("spans=some", "`spans`: \"some\" is neither entries nor all"),
        ("step=1s", "`step`: one minute is the least"),
        ("step=x", "`step`: time: invalid duration"),
        ("step=1m&since=9999h", "more than 11000 points"),
        ("since=x", "`since`"),
        ("start=9999999999999999999", "`start`"),
    ] {
        let answer = s.get(&format!("/api/spanloom/v1/red?{query}")).await;
        let message = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert!(answer.status == 400 && message.contains(text), "{query}: {} {message}", answer.status);
    }
    let silent = Server::new(&[]).await;
    assert_eq!(silent.get("/api/spanloom/v1/red").await.status, 501);
}

#[tokio::test]
async fn jaegers_monitor_page_gets_the_same_times_in_all_answers() {
    let (s, figures) = server().await;
    let end = NOW / 1_000_000;
    let common =
        format!("service=web&endTs={end}&lookback=3600000&ratePer=600000&spanKind=server&step=60000");
    let calls = s.get(&format!("/api/metrics/calls?{common}&quantile=0.95")).await.json();
    assert_eq!(
        (&calls["name"], &calls["type"], &calls["help"]),
        (&json!("service_call_rate"), &json!("GAUGE"), &json!("calls/sec, grouped by service"))
    );
    assert_eq!(calls["metrics"][0]["labels"], json!([{"name": "service_name", "value": "web"}]));
    let points = calls["metrics"][0]["metricPoints"].as_array().unwrap().clone();
    assert_eq!(points.len(), 61);
    assert_eq!(points[0], json!({"gaugeValue": {"doubleValue": 0.0}, "timestamp": "2026-01-15T09:00:00Z"}));
    assert_eq!(points[59]["gaugeValue"]["doubleValue"], 1.0);
    assert_eq!(points[60], json!({"gaugeValue": {"doubleValue": 2.0}, "timestamp": "2026-01-15T10:00:00Z"}));
    let asked = figures.0.lock().unwrap()[0].clone();
    // The first window ends with the first point, the last one with the last.
    assert!(asked.contains(&format!("from: {}, to: {NOW},", NOW - 70 * MINUTE)), "{asked}");

    let errors = s.get(&format!("/api/metrics/errors?{common}&groupByOperation=true")).await.json();
    assert_eq!(errors["name"], "service_operation_error_rate");
    let help =
        "error rate, computed as a fraction of errors/sec over calls/sec, grouped by service & operation";
    assert_eq!(errors["help"], help);
    assert_eq!(errors["metrics"][0]["labels"][1], json!({"name": "operation", "value": "GET /"}));
    let of = |at: usize| errors["metrics"][0]["metricPoints"][at]["gaugeValue"]["doubleValue"].clone();
    assert_eq!((of(0), of(59), of(60)), (json!("NaN"), json!(0.0), json!(0.25)));

    let latencies = s.get(&format!("/api/metrics/latencies?{common}&quantile=0.95")).await.json();
    assert_eq!(latencies["help"], "0.95th quantile latency, grouped by service");
    let points = latencies["metrics"][0]["metricPoints"].as_array().unwrap();
    assert_eq!((points.len(), &points[60]["gaugeValue"]["doubleValue"]), (61, &json!(2.5)));
    assert_eq!(points[3]["gaugeValue"]["doubleValue"], "NaN");
    let nobody = s.get("/api/metrics/calls?service=nobody").await.json();
    assert_eq!(nobody["metrics"], json!([]));
}

#[tokio::test]
async fn jaegers_metrics_say_what_is_wrong() {
    let (s, _) = server().await;
    for (path, text) in [
        ("latencies?service=a", "'quantile': strconv.ParseFloat: parsing \"\": invalid syntax"),
        ("latencies?quantile=0.5", "'service': please provide at least one service name"),
        ("calls?service=a&groupByOperation=yes", "'groupByOperation': strconv.ParseBool: parsing \"yes\""),
        ("calls?service=a&spanKind=x", "'spanKind': unsupported span kind: 'x'"),
        ("calls?service=a&endTs=1.5", "'endTs': strconv.ParseInt: parsing \"1.5\": invalid syntax"),
        ("calls?service=a&lookback=-1", "'lookback'"),
        ("calls?service=a&lookback=9999999999999", "'step'"),
        ("calls?service=a&ratePer=9223372036854775807", "'ratePer': it is longer than 30 steps"),
        ("calls?service=many&lookback=659940000&groupByOperation=true", "220000 points, 200000 are the most"),
    ] {
        let answer = s.get(&format!("/api/metrics/{path}")).await;
        let message = answer.json()["errors"][0]["msg"].as_str().unwrap_or_default().to_owned();
        assert!(answer.status == 400 && message.contains(text), "{path}: {} {message}", answer.status);
    }
    // Times beyond all bounds are no harm.
    for far in ["9223372036854775807", "-9223372036854775808", "0"] {
        let query = format!("service=web&endTs={far}&step=9223372036854775807&ratePer=9223372036854775807");
        let answer = s.get(&format!("/api/metrics/calls?{query}&lookback=9223372036854775807")).await;
        assert_eq!(answer.status, 200, "{far}: {}", answer.text());
    }
    assert_eq!(s.get("/api/metrics/minstep").await.status, 404);
}
