//! Answers that were compared with a real Zipkin (3.6.1) and a real Jaeger
//! (before 2.21, which removed the lists of the first API).

use crate::support::{NOW, Server, config};
use bytes::Bytes;
use serde_json::{Value as Json, json};
use spanloom_api::{Api, Config};
use spanloom_codec::zipkin::decode_json_v2;
use spanloom_model::draft::Draft;
use spanloom_model::memory::MemoryStore;
use spanloom_model::{Intake, Protocol, SpanKind};
use std::sync::Arc;

const S: i64 = 1_000_000_000;

/// A server that holds Zipkin spans.
async fn zipkin(spans: Json, config: Config) -> Server {
    let intake = Intake { protocol: Protocol::ZipkinJsonV2, ..Intake::default() };
    let batch = decode_json_v2(Bytes::from(spans.to_string()), intake).unwrap();
    let store = Arc::new(MemoryStore::new());
    store.insert(&batch);
    let api = Api::new(store.clone(), config);
    Server::over(store, api).await
}

fn at(seconds: i64) -> i64 {
    NOW / 1000 + seconds * 1_000_000
}

#[tokio::test]
async fn a_tag_named_as_an_endpoint_is_not_a_remote_service() {
    let span = |id: &str, tags: Json, remote: Json| {
        json!({"traceId": id, "id": id, "kind": "CLIENT", "name": "get", "timestamp": at(-60), "duration": 5,
               "localEndpoint": {"serviceName": "Web"}, "tags": tags, "remoteEndpoint": remote})
    };
    let spans = json!([
        span("a1", json!({"peer.service": "tagged"}), json!({})),
        span("a2", json!({"peer.service": "tagged"}), json!({"serviceName": "Both"})),
        span("a3", json!({}), json!({"serviceName": "plain"})),
    ]);
    let s = zipkin(spans, config()).await;
    let names = s.zipkin("/api/v2/remoteServices?serviceName=WEB").await.json();
    assert_eq!(names, json!(["both", "plain"]));
    assert_eq!(s.zipkin("/api/v2/remoteServices?serviceName=").await.json(), json!([]));
    for (remote, ids) in
        [("tagged", json!([])), ("both", json!(["00000000000000a2"])), ("PLAIN", json!(["00000000000000a3"]))]
    {
        let found = s.zipkin(&format!("/api/v2/traces?remoteServiceName={remote}")).await.json();
        let got: Json = found.as_array().unwrap().iter().map(|t| t[0]["traceId"].clone()).collect();
        assert_eq!(got, ids, "{remote}");
    }
    let links = s.zipkin(&format!("/api/v2/dependencies?endTs={}", NOW / 1_000_000)).await.json();
    let pairs: Json = links.as_array().unwrap().iter().map(|l| l["child"].clone()).collect();
    assert_eq!(pairs, json!(["both", "plain"]));
}

#[tokio::test]
async fn words_find_tags_and_annotations_but_no_parts_of_endpoints() {
    let spans = json!([
        {"traceId": "a1", "id": "1", "timestamp": at(-60), "tags": {"otel.status_code": "ERROR"},
         "localEndpoint": {"serviceName": "web", "ipv4": "10.0.0.1", "port": 80},
         "remoteEndpoint": {"serviceName": "db", "ipv6": "::1", "port": 5432}},
        {"traceId": "a2", "id": "1", "timestamp": at(-60), "localEndpoint": {"port": 80},
         "tags": {"net.host.port": "80", "service.name": "x", "error": ""}},
    ]);
    let s = zipkin(spans, config()).await;
    for (query, ids) in [
        ("net.host.port", &["00000000000000a2"][..]),
        ("net.host.port%3D80", &["00000000000000a2"]),
        ("net.host.ip", &[]),
        ("net.peer.ip", &[]),
        ("peer.service%3Ddb", &[]),
        ("service.name", &["00000000000000a2"]),
        ("error", &["00000000000000a2"]),
        ("otel.status_code%3DERROR", &["00000000000000a1"]),
        ("error%3Dtrue", &[]),
    ] {
        let found = s.zipkin(&format!("/api/v2/traces?annotationQuery={query}")).await.json();
        let got: Vec<&str> =
            found.as_array().unwrap().iter().map(|t| t[0]["traceId"].as_str().unwrap()).collect();
        assert_eq!(got, ids, "{query}");
    }
}

#[tokio::test]
async fn configured_tags_are_completed() {
    let spans = json!([
        {"traceId": "1", "id": "1", "tags": {"env": "prod", "user": "ann"}},
        {"traceId": "2", "id": "2", "tags": {"env": ""}},
    ]);
    let s = zipkin(spans, Config { zipkin_autocomplete: vec!["env".into()], ..config() }).await;
    assert_eq!(s.zipkin("/api/v2/autocompleteKeys").await.json(), json!(["env"]));
    assert_eq!(s.zipkin("/api/v2/autocompleteValues?key=env").await.json(), json!(["", "prod"]));
    assert_eq!(s.zipkin("/api/v2/autocompleteValues?key=user").await.json(), json!([]));
}

#[tokio::test]
async fn a_trace_counts_whole_in_the_dependencies_of_a_window() {
    let span = |id: &str, parent: Json, kind: &str, service: &str, seconds: i64| {
        json!({"traceId": "1", "id": id, "parentId": parent, "kind": kind, "timestamp": at(seconds),
               "localEndpoint": {"serviceName": service}})
    };
    let spans = json!([
        span("1", Json::Null, "SERVER", "web", -90),
        span("2", json!("1"), "CLIENT", "web", -80),
        span("3", json!("2"), "SERVER", "db", -30),
    ]);
    let s = zipkin(spans, config()).await;
    let end = NOW / 1_000_000 - 70_000;
    let links = s.zipkin(&format!("/api/v2/dependencies?endTs={end}&lookback=15000")).await.json();
    assert_eq!(links, json!([{"parent": "web", "child": "db", "callCount": 1}]));
    let jaeger = s.get(&format!("/api/dependencies?endTs={end}&lookback=15000")).await.json();
    assert_eq!(jaeger["data"], json!([{"parent": "web", "child": "db", "callCount": 1}]));
}

#[tokio::test]
async fn times_are_hints_where_a_trace_is_looked_for() {
    let s = Server::new(&[Draft::new(0xa1, 1).start(NOW - 60 * S)]).await;
    for path in [
        "/api/traces/a1?start=1&end=2",
        "/api/v3/traces/a1?startTime=2001-01-01T00:00:00Z&endTime=2001-01-02T00:00:00Z",
    ] {
        assert_eq!(s.get(path).await.status, 200, "{path}");
    }
    assert_eq!(s.get("/api/traces/a2?start=1&end=2").await.status, 404);
}

#[tokio::test]
async fn spans_without_service_are_found_under_the_name_they_are_shown_with() {
    let s = Server::new(&[Draft::new(0xa1, 1).service("").start(NOW - 60 * S)]).await;
    let found = s.get("/api/traces?service=unknown").await.json();
    assert_eq!(found["data"][0]["processes"]["p1"]["serviceName"], "unknown");
    let times = "query.startTimeMin=2026-01-15T09:00:00Z&query.startTimeMax=2026-01-15T11:00:00Z";
    let path = format!("/api/v3/trace-summaries?{times}&query.serviceName=unknown");
    let services = s.get(&path).await.json()["summaries"][0]["services"].clone();
    assert_eq!(services, json!([{"name": "unknown", "spanCount": 1}]));
    assert_eq!(s.get("/api/services//operations").await.status, 404);
}

#[tokio::test]
async fn operations_of_a_kind_are_those_that_say_so() {
    let s = Server::new(&[
        Draft::new(1, 1).name("silent"),
        Draft::new(1, 2).name("inner").kind(SpanKind::Internal),
    ])
    .await;
    let v1 = s.get("/api/operations?service=svc&spanKind=internal").await.json();
    assert_eq!(v1["data"], json!([{"name": "inner", "spanKind": "internal"}]));
    let v3 = s.get("/api/v3/operations?service=svc&spanKind=internal").await.json();
    assert_eq!(v3["operations"], json!([{"name": "inner", "spanKind": "internal"}]));
}

#[tokio::test]
async fn wrong_parameters_get_jaegers_texts() {
    let s = Server::new(&[]).await;
    let times = "query.startTimeMin=2026-01-15T09:00:00Z&query.startTimeMax=2026-01-15T11:00:00Z";
    for (path, text) in [
        (
            "/api/traces?start=x",
            "unable to parse param 'start': strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        (
            "/api/traces?raw=x",
            "unable to parse param 'raw': strconv.ParseBool: parsing \"x\": invalid syntax",
        ),
        ("/api/traces?limit=0", "search depth must be greater than 0 and less than max traces"),
    ] {
        let answer = s.get(path).await;
        assert_eq!((answer.status, &answer.json()["errors"][0]["msg"]), (400, &json!(text)), "{path}");
    }
    for (query, text) in [
        (
            "query.searchDepth=x",
            "malformed parameter query.searchDepth: strconv.Atoi: parsing \"x\": invalid syntax",
        ),
        (
            "query.rawTraces=x",
            "malformed parameter query.rawTraces: strconv.ParseBool: parsing \"x\": invalid syntax",
        ),
        ("query.searchDepth=-1", "search depth must be greater than 0 and less than max traces"),
    ] {
        let answer = s.get(&format!("/api/v3/traces?{times}&{query}")).await;
        assert_eq!((answer.status, &answer.json()["error"]["message"]), (400, &json!(text)), "{query}");
    }
    assert_eq!(s.get("/api/traces?tags=null").await.status, 200, "null is an empty map");
}
