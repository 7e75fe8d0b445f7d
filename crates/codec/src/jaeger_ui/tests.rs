use super::*;
use serde_json::{Value as Json, json};
use spanloom_model::draft::{Draft, Tag, batch};
use spanloom_model::{SpanKind, Status};

fn shown(drafts: &[Draft]) -> Json {
    encode(drafts, false)
}

fn encode(drafts: &[Draft], raw: bool) -> Json {
    let mut out = Vec::new();
    encode_trace(&batch(drafts), raw, &mut out);
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn an_otlp_span_has_its_tags_in_jaegers_order() {
    let mut d = Draft::new(TraceId::from_halves(1, 2).0, 3)
        .parent(9)
        .kind(SpanKind::Server)
        .status(Status::Error)
        .status_message("boom")
        .trace_state("dd=s:1")
        .scope("lib.x", "1.2")
        .tag("z", 1)
        .tag("a", 0.5)
        .tag("ok", false)
        .tag("blob", &[0u8, 1, 2, 255][..])
        .tag("big", 9_007_199_254_740_993i64)
        .tag("whole", 200.0)
        .process("service.name", "svc")
        .process("host.cores", 8)
        .event(1_000_000_700_000, "exception")
        .event_tag("exception.type", "E1")
        .event(1_000_000_800_000, "")
        .event_tag("msg", "m")
        .link(7, 8);
    d.tags.push(("list".into(), Tag::List(vec!["a".into(), 1.into()])));
    let tag = |key: &str, kind: &str, value: Json| json!({"key": key, "type": kind, "value": value});
    let expected = json!({
        "traceID": "00000000000000010000000000000002",
        "spans": [{
            "traceID": "00000000000000010000000000000002", "spanID": "0000000000000003", "operationName": "op",
            "references": [
                {"refType": "CHILD_OF", "traceID": "00000000000000010000000000000002", "spanID": "0000000000000009"},
                {"refType": "FOLLOWS_FROM", "traceID": "0000000000000007", "spanID": "0000000000000008"},
            ],
            "startTime": 1_000_000_000, "duration": 1000,
            "tags": [
                tag("otel.scope.name", "string", "lib.x".into()),
                tag("otel.scope.version", "string", "1.2".into()),
                tag("a", "float64", json!(0.5)),
                tag("big", "int64", "9007199254740993".into()),
                tag("blob", "binary", "AAEC/w==".into()),
                tag("list", "string", "[\"a\",1]".into()),
                tag("ok", "bool", false.into()),
                tag("whole", "float64", json!(200)),
                tag("z", "int64", 1.into()),
                tag("span.kind", "string", "server".into()),
                tag("otel.status_code", "string", "ERROR".into()),
                tag("error", "bool", true.into()),
                tag("otel.status_description", "string", "boom".into()),
                tag("w3c.tracestate", "string", "dd=s:1".into()),
            ],
            "logs": [
                {"timestamp": 1_000_000_700, "fields": [
                    tag("event", "string", "exception".into()), tag("exception.type", "string", "E1".into())]},
                {"timestamp": 1_000_000_800, "fields": [tag("msg", "string", "m".into())]},
            ],
            "processID": "p1", "warnings": null,
        }],
        "processes": {"p1": {"serviceName": "svc", "tags": [tag("host.cores", "int64", 8.into())]}},
        "warnings": null,
    });
    assert_eq!(shown(&[d]), expected);
}

#[test]
fn a_datadog_span_keeps_its_words_and_its_links_and_events_are_shown() {
    let got = shown(&[Draft::new(1, 1)
        .resource("GET /x")
        .span_type("web")
        .error(true)
        .kind(SpanKind::Server)
        .tag("span.kind", "server")
        .tag("http.status_code", 500.0)
        .tag(
            "_dd.span_links",
            r#"[{"trace_id":"00000000000000aa00000000000000bb","span_id":"cc"},{"bad":1}]"#,
        )
        .tag("events", r#"[{"name":"e","time_unix_nano":1700000000000000000,"attributes":{"n":1,"l":[1]}}]"#)
        .env("prod")
        .hostname("h")]);
    let span = &got["spans"][0];
    let value = |key: &str| {
        let tags = span["tags"].as_array().unwrap();
        let found: Vec<&Json> = tags.iter().filter(|t| t["key"] == key).collect();
        assert_eq!(found.len(), 1, "{key} in {tags:?}");
        found[0]["value"].clone()
    };
    assert_eq!(value("resource.name"), "GET /x");
    assert_eq!(value("span.type"), "web");
    assert_eq!(value("span.kind"), "server");
    assert_eq!(value("http.status_code"), 500);
    assert_eq!(value("error"), true);
    assert!(value("events").is_string() && value("_dd.span_links").is_string());
    assert_eq!(
        span["references"],
        json!([{"refType": "FOLLOWS_FROM", "traceID": "00000000000000aa00000000000000bb", "spanID": "00000000000000cc"}])
    );
    assert_eq!(span["logs"][0]["timestamp"], 1_700_000_000_000_000u64);
    assert_eq!(span["logs"][0]["fields"][0]["value"], "e");
    let process: Vec<&str> = got["processes"]["p1"]["tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["key"].as_str().unwrap())
        .collect();
    assert_eq!(process, ["env", "hostname"]);
}

#[test]
fn a_datadog_error_with_a_stack_is_an_exception_at_the_end() {
    let got = shown(&[Draft::new(1, 1).error(true).tag("error.type", "E").tag("error.stack", "at x")]);
    let log = &got["spans"][0]["logs"][0];
    assert_eq!(log["timestamp"], 1_000_001_000);
    assert_eq!(log["fields"][2]["key"], "exception.stacktrace");
}

fn halves() -> Vec<Draft> {
    vec![
        Draft::new(1, 0x10).kind(SpanKind::Server).service("web").start(0),
        Draft::new(1, 0x20).parent(0x10).kind(SpanKind::Client).service("web").start(1).name("client"),
        Draft::new(1, 0x20).parent(0x10).kind(SpanKind::Server).service("billing").start(2).name("server"),
        Draft::new(1, 0x30).parent(0x20).service("billing").start(3).name("inside"),
        Draft::new(1, 1).parent(0x20).service("web").start(4).name("beside"),
    ]
}

#[test]
fn the_server_half_of_a_shared_span_gets_a_fresh_id_below_the_client_half() {
    let got = shown(&halves());
    let span =
        |name: &str| got["spans"].as_array().unwrap().iter().find(|s| s["operationName"] == name).unwrap();
    let parent = |name: &str| span(name)["references"][0]["spanID"].clone();
    assert_eq!(span("client")["spanID"], "0000000000000020");
    assert_eq!(span("server")["spanID"], "0000000000000002", "1 is taken");
    assert_eq!(parent("server"), "0000000000000020");
    assert_eq!(parent("inside"), "0000000000000002");
    assert_eq!(parent("beside"), "0000000000000020", "a child in the caller's service is the caller's");
    let raw = encode(&halves(), true);
    assert_eq!(raw["spans"][2]["spanID"], "0000000000000020");
}

#[test]
fn a_parent_that_the_span_follows_keeps_its_type() {
    let got = shown(&[Draft::new(1, 2).parent(1).link(1, 1).link_tag(REF_TYPE, "follows_from")]);
    assert_eq!(
        got["spans"][0]["references"],
        json!([{"refType": "FOLLOWS_FROM", "traceID": "0000000000000001", "spanID": "0000000000000001"}])
    );
}

#[test]
fn links_to_nowhere_are_left_out_with_a_warning_unless_raw() {
    let drafts = [Draft::new(1, 1).link(0, 5)];
    let got = shown(&drafts);
    assert_eq!(got["spans"][0]["references"], json!([]));
    assert_eq!(got["spans"][0]["warnings"], json!(["Invalid span link removed"]));
    assert_eq!(encode(&drafts, true)["spans"][0]["references"].as_array().unwrap().len(), 1);
}

#[test]
fn numeric_addresses_become_text_and_library_attributes_move() {
    let drafts =
        [Draft::new(1, 1).tag("ip", 0x0102_0304).tag("peer.ipv4", "kept").tag("telemetry.sdk.name", "otel")];
    let got = shown(&drafts);
    let tags = got["spans"][0]["tags"].as_array().unwrap();
    assert_eq!(tags.len(), 2);
    assert_eq!(tags[0]["value"], "1.2.3.4");
    assert_eq!(got["processes"]["p1"]["tags"][0]["key"], "telemetry.sdk.name");
    assert_eq!(encode(&drafts, true)["spans"][0]["tags"].as_array().unwrap().len(), 3);
}

#[test]
fn equal_processes_are_one_and_numbered_by_appearance() {
    let got = shown(&[
        Draft::new(1, 1).service("b").start(2).process("k", 1),
        Draft::new(1, 2).service("a").start(1).process("k", 1),
        Draft::new(1, 3).service("b").start(3).process("k", 1).env(""),
        Draft::new(1, 4).service("b").start(4).process("k", 2),
    ]);
    let keys: Vec<&str> =
        got["spans"].as_array().unwrap().iter().map(|s| s["processID"].as_str().unwrap()).collect();
    assert_eq!(keys, ["p1", "p2", "p2", "p3"]);
    assert_eq!(got["processes"]["p1"]["serviceName"], "a");
}

#[test]
fn strange_numbers_and_absent_times_are_still_json() {
    let got = shown(&[Draft::new(1, 1)
        .tag("nan", f64::NAN)
        .tag("inf", f64::INFINITY)
        .tag("huge", 1e300)
        .timeless()]);
    let span = &got["spans"][0];
    assert_eq!(span["startTime"], 0);
    assert_eq!(span["warnings"].as_array().unwrap().len(), 1);
    assert_eq!(span["tags"][0]["value"], 1e300);
}
