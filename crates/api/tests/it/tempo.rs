//! Tempo's API: every route, and what is wrong.

use crate::support::{NOW, Server};
use crate::vectors::from_protobuf;
use http::Method;
use serde_json::{Value as Json, json};
use spanloom_api::Door;
use spanloom_model::draft::Draft;
use spanloom_model::{SpanKind, Status};

const S: i64 = 1_000_000_000;

fn spans() -> Vec<Draft> {
    let at = NOW - 60 * S;
    vec![
        Draft::new(0xa1, 1)
            .service("shop")
            .name("GET /")
            .kind(SpanKind::Server)
            .start(at)
            .lasting(90_000_000)
            .tag("http.status_code", 500)
            .tag("user", "ann")
            .tag("ratio", 2.0)
            .process("cluster", "a")
            .status(Status::Error),
        Draft::new(0xa1, 2)
            .parent(1)
            .service("mail")
            .name("send")
            .start(at + 10_000_000)
            .lasting(20_000_000)
            .tag("retry", true)
            .event(1, "exception")
            .event_tag("exception.type", "E1")
            .process("cluster", "b"),
        // Its root did not arrive.
        Draft::new(0xa2, 7).parent(6).service("mail").name("cron").start(at + S).tag("http.status_code", 404),
    ]
}

fn ids(answer: &Json) -> Vec<&str> {
    answer["traces"].as_array().unwrap().iter().map(|t| t["traceID"].as_str().unwrap()).collect()
}

fn path(query: &str) -> String {
    let escape = |b: u8| match b {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    format!("/api/search?q={}", query.bytes().map(escape).collect::<String>())
}

#[tokio::test]
async fn a_search_shows_what_it_asked_about() {
    let s = Server::new(&spans()).await;
    let found =
        s.tempo(&path("{ span.http.status_code >= 400 && status = error } | select(name)")).await.json();
    let start = (NOW - 60 * S).to_string();
    let span = json!({"spanID": "0000000000000001", "name": "GET /", "startTimeUnixNano": start,
        "durationNanos": "90000000", "attributes": [
            {"key": "http.status_code", "value": {"intValue": "500"}},
            {"key": "status", "value": {"stringValue": "error"}}]});
    let set = json!({"spans": [span], "matched": 1});
    assert_eq!(
        found,
        json!({"traces": [{"traceID": "a1", "rootServiceName": "shop", "rootTraceName": "GET /",
            "startTimeUnixNano": start, "durationMs": 90, "spanSet": set, "spanSets": [set],
            "serviceStats": {"shop": {"spanCount": 1, "errorCount": 1}, "mail": {"spanCount": 1}}}],
            "metrics": {"inspectedTraces": 1}, "status": "COMPLETE"})
    );
    let orphan = s.tempo(&path("{ name = \"cron\" }")).await.json();
    assert_eq!(orphan["traces"][0]["rootServiceName"], "<root span not yet received>");
    assert_eq!(orphan["traces"][0]["rootTraceName"], Json::Null);
    let grouped = s.tempo(&path("{} | by(resource.cluster)")).await.json();
    let sets = grouped["traces"][1]["spanSets"].as_array().unwrap();
    assert_eq!(sets.len(), 2);
    assert_eq!(
        sets[0]["attributes"],
        json!([{"key": "by(resource.cluster)", "value": {"stringValue": "a"}}])
    );
}

#[tokio::test]
async fn limits_windows_and_the_older_search_hold() {
    let s = Server::new(&spans()).await;
    let (from, to) = (NOW / S - 60, NOW / S);
    for (query, found) in [
        ("", &["a2", "a1"][..]),
        ("?limit=1", &["a2"]),
        ("?tags=service.name%3Dshop", &["a1"]),
        ("?tags=name%3D%22GET%20%2F%22", &["a1"]),
        ("?minDuration=50ms&maxDuration=1s", &["a1"]),
        (&format!("?start={from}&end={to}"), &["a2", "a1"]),
        (&format!("?start={}&end={to}", from + 10), &[]),
    ] {
        let answer = s.tempo(&format!("/api/search{query}")).await.json();
        assert_eq!(ids(&answer), found, "{query}");
    }
    let short = s.tempo(&format!("{}&spss=1", path("{ .service.name != nil }"))).await.json();
    let set = &short["traces"][1]["spanSets"][0];
    assert_eq!((set["matched"].as_u64(), set["spans"].as_array().unwrap().len()), (Some(2), 1));
}

#[tokio::test]
async fn traces_come_as_json_and_protobuf() {
    let s = Server::new(&spans()).await;
    let first = s.tempo("/api/traces/a1").await.json();
    let span = &first["batches"][0]["scopeSpans"][0]["spans"][0];
    // Protobuf's own JSON: ids in base64, enums by name.
    assert_eq!(
        (&span["spanId"], &span["kind"], &span["name"]),
        (&json!("AAAAAAAAAAE="), &json!("SPAN_KIND_SERVER"), &json!("GET /"))
    );
    let second = s.tempo("/api/v2/traces/000000000000000000000000000000a1").await.json();
    assert_eq!(second["status"], "COMPLETE");
    assert_eq!(second["trace"]["resourceSpans"], first["batches"]);
    let get = |path| s.call_for("application/protobuf", Door::Tempo, Method::GET, path, "");
    let answer = get("/api/v2/traces/a1?start=1&end=2").await;
    assert_eq!(answer.header("content-type"), "application/protobuf");
    let trace = from_protobuf(&answer.body);
    assert_eq!(trace["trace"]["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"], "GET /");
    assert_eq!(get("/api/traces/a1").await.status, 200);
    let none = s.tempo("/api/traces/ff").await;
    assert_eq!((none.status, none.text()), (404, ""));
    let none = s.tempo("/api/v2/traces/ff").await;
    assert_eq!((none.status, &none.json()["trace"]["resourceSpans"]), (200, &json!([])));
}

#[tokio::test]
async fn tags_and_their_values_are_offered_with_types() {
    let s = Server::new(&spans()).await;
    let tags = s.tempo("/api/search/tags").await.json();
    let all = ["cluster", "exception.type", "http.status_code", "ratio", "retry", "service.name", "user"];
    assert_eq!(tags["tagNames"], json!(all));
    let scopes = s.tempo("/api/v2/search/tags").await.json();
    let names: Vec<&Json> = scopes["scopes"].as_array().unwrap().iter().map(|s| &s["name"]).collect();
    assert_eq!(names, ["resource", "span", "event", "intrinsic"]);
    let resource = s.tempo("/api/v2/search/tags?scope=resource").await.json();
    assert_eq!(resource["scopes"], json!([{"name": "resource", "tags": ["cluster", "service.name"]}]));
    for (name, found) in [
        ("resource.service.name", json!([["string", "mail"], ["string", "shop"]])),
        (".service.name", json!([["string", "mail"], ["string", "shop"]])),
        ("span.http.status_code", json!([["int", "404"], ["int", "500"]])),
        (".retry", json!([["bool", "true"]])),
        ("span.ratio", json!([["float", "2.0"]])),
        ("event.exception.type", json!([["string", "E1"]])),
        ("event:name", json!([["string", "exception"]])),
        ("status", json!([["keyword", "error"], ["keyword", "ok"], ["keyword", "unset"]])),
        ("name", json!([["string", "GET /"], ["string", "cron"], ["string", "send"]])),
        ("span.none", json!([])),
        ("span:id", json!([])),
    ] {
        let values = s.tempo(&format!("/api/v2/search/tag/{name}/values")).await.json();
        let got: Json =
            values["tagValues"].as_array().unwrap().iter().map(|v| json!([v["type"], v["value"]])).collect();
        assert_eq!(got, found, "{name}");
    }
    let narrowed = "/api/v2/search/tag/span.http.status_code/values?q=%7Bname%3D%22cron%22%7D";
    assert_eq!(s.tempo(narrowed).await.json()["tagValues"], json!([{"type": "int", "value": "404"}]));
    let texts = s.tempo("/api/search/tag/service.name/values").await.json();
    assert_eq!(texts["tagValues"], json!(["mail", "shop"]));
}

#[tokio::test]
async fn wrong_requests_are_answered_in_plain_text() {
    let s = Server::new(&[]).await;
    for (path, status, text) in [
        ("/api/search?limit=0", 400, "invalid limit: must be a positive number"),
        ("/api/search?limit=x", 400, "invalid limit: strconv.ParseUint: parsing \"x\": invalid syntax"),
        ("/api/search?start=5&end=4", 400, "http parameter start must be before end. received start=5 end=4"),
        (
            "/api/search?q=%7B%7D&tags=a%3Db",
            400,
            "invalid request: can't specify tags and q in the same query",
        ),
        (
            "/api/search?q=%7B",
            400,
            "invalid TraceQL query: parse error at line 1, col 2: unexpected the end, expected a value",
        ),
        (
            "/api/v2/search/tags?scope=x",
            400,
            "invalid scope: x; known are resource, span, event, link, instrumentation, intrinsic",
        ),
        ("/api/traces/xyz", 400, "invalid trace id: id has a character that is not a hexadecimal digit"),
        ("/api/v2/traces/a1?q=%7B%7D", 501, "a trace cannot be filtered by `q`; it is shown whole"),
        ("/api/metrics/query_range?q=x", 501, "TraceQL metrics are not offered; only searches are"),
        ("/api/none", 404, "there is no /api/none"),
        ("/api/echo", 200, "echo"),
        ("/ready", 200, "ready\n"),
    ] {
        let answer = s.tempo(path).await;
        assert_eq!((answer.status, answer.text()), (status, text), "{path}");
        assert!(answer.header("content-type").starts_with("text/plain"), "{path}");
    }
    for path in ["/status/buildinfo", "/api/status/buildinfo"] {
        assert!(s.tempo(path).await.json()["version"].is_string());
    }
    let posted = s.call(Door::Tempo, Method::POST, "/api/search", "").await;
    assert_eq!((posted.status, posted.header("allow")), (405, "GET"));
}
