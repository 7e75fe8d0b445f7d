//! Rules of Zipkin that no captured payload shows, and the query vectors.

use super::helpers::*;
use serde_json::{Value as Json, json};
use spanloom_codec::zipkin;
use spanloom_model::{SpanKind, Status, flags};

fn refused(body: &str) -> String {
    zipkin_json(body).expect_err(body).to_string()
}

#[test]
fn errors_have_zipkins_texts() {
    for (body, text) in [
        ("{\"traceId\":\"1\",\"id\":\"1\"}", "Expected a JSON_V2 encoded list\n"),
        ("hello", "Expected a JSON_V2 encoded list\n"),
        (
            "[{\"traceId\":\"1\",\"id\":\"1\",\"binaryAnnotations\":[]}]",
            "Expected a JSON_V2 encoded list, but received: JSON_V1\n",
        ),
        (
            "[{\"traceId\":\"ABC\",\"id\":\"1\",\"binaryAnnotations\":[]}]",
            "Expected a JSON_V2 encoded list, but received: JSON_V1\n",
        ),
        (
            "[{\"traceId\":\"ABC\",\"id\":\"1\"}]",
            "ABC should be lower-hex encoded with no prefix reading List<Span> from json",
        ),
        ("[{\"id\":\"1\"}]", "Missing : traceId reading List<Span> from json"),
        ("[{\"traceId\":\"1\"}]", "Missing : id reading List<Span> from json"),
        ("[{}]", "Missing : traceId id reading List<Span> from json"),
        ("[{\"traceId\":\"0000\",\"id\":\"1\"}]", "traceId is all zeros reading List<Span> from json"),
        ("[{\"traceId\":\"1\",\"id\":\"0\"}]", "id is all zeros reading List<Span> from json"),
        ("[{\"traceId\":\"\",\"id\":\"1\"}]", "traceId is empty reading List<Span> from json"),
        ("[{\"traceId\":\"1\",\"id\":\"11111111111111111\"}]", "id.length > 16 reading List<Span> from json"),
        (
            "[{\"traceId\":\"1\",\"id\":\"1\",\"kind\":\"OTHER\"}]",
            "No enum constant zipkin2.Span.Kind.OTHER reading List<Span> from json",
        ),
    ] {
        assert_eq!(refused(body), text);
    }
    for body in [
        "[",
        "[{",
        "[{}",
        "[1]",
        "[[]]",
        "[{\"traceId\":{}}]",
        "[{\"tags\":[]}]",
        "[{\"tags\":{\"a\":{}}}]",
        "[]]",
    ] {
        assert!(refused(body).ends_with("reading List<Span> from json"), "{}", refused(body));
    }
}

#[test]
fn a_v2_list_sent_as_v1_is_named() {
    for body in [
        "[{\"traceId\":\"1\",\"id\":\"1\",\"localEndpoint\":{}}]",
        "[{\"traceId\":\"1\",\"id\":\"1\",\"tags\":{}}]",
        "[{\"tags\":{}}]",
    ] {
        let error = zipkin::decode_json_v1(bytes(body.as_bytes()), intake()).unwrap_err().to_string();
        assert_eq!(error, "Expected a JSON_V1 encoded list, but received: JSON_V2\n");
    }
    let error = zipkin::decode_json_v1(bytes(b"{}"), intake()).unwrap_err().to_string();
    assert_eq!(error, "Expected a JSON_V1 encoded list\n");
}

#[test]
fn empty_bodies_are_empty_lists() {
    for body in ["", "  ", "[]", " [ ] "] {
        assert!(zipkin_json(body).unwrap().spans.is_empty());
        assert!(zipkin::decode_json_v1(bytes(body.as_bytes()), intake()).unwrap().spans.is_empty());
    }
    assert!(zipkin::decode_proto(bytes(b""), intake()).unwrap().spans.is_empty());
    assert!(zipkin::decode_thrift(bytes(b""), intake()).unwrap().spans.is_empty());
}

#[test]
fn query_vectors_are_taken_and_come_back() {
    let mut checked = 0;
    for name in std::fs::read_dir(fixtures().join("vectors/query")).unwrap() {
        let path = name.unwrap().path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        let vector = read_json(&path);
        for ingest in vector["ingest"].as_array().unwrap() {
            let raw = match ingest["raw"].as_str() {
                Some(raw) => raw.to_owned(),
                None => ingest["body"].to_string(),
            };
            let gzip = ingest["headers"]["Content-Encoding"] == "gzip";
            let decoded = match ingest["protocol"].as_str().unwrap() {
                "zipkin-v2-json" if !gzip => zipkin_json(&raw),
                "zipkin-v1-json" if !gzip => zipkin::decode_json_v1(bytes(raw.as_bytes()), intake()),
                _ => continue,
            };
            let expect = &ingest["expect"];
            match decoded {
                Ok(_) => assert_eq!(expect["status"], 202, "{}: {raw}", path.display()),
                Err(e) => {
                    assert_eq!(expect["status"], 400, "{}: {e}", path.display());
                    if let Some(text) = expect["text"].as_str() {
                        assert_eq!(e.to_string(), text);
                    }
                    assert!(e.to_string().contains(expect["text_contains"].as_str().unwrap_or_default()));
                }
            }
            checked += 1;
        }
        // Whole traces that the Zipkin API gives back unchanged.
        let Some(body) = vector["ingest"][0]["body"].as_array() else { continue };
        if vector["ingest"][0]["protocol"] != "zipkin-v2-json" {
            continue;
        }
        let stored = to_zipkin_json(&zipkin_json(&json!(body).to_string()).unwrap());
        for query in vector["queries"].as_array().unwrap() {
            let wanted = &query["expect"]["json"];
            let whole =
                query["api"] == "zipkin" && query["path"].as_str().unwrap().starts_with("/api/v2/trace/");
            if !whole || !wanted.is_array() {
                continue;
            }
            for span in wanted.as_array().unwrap() {
                assert!(
                    stored.as_array().unwrap().contains(span),
                    "{}: {span} not in {stored}",
                    path.display()
                );
                checked += 1;
            }
        }
    }
    assert!(checked >= 30, "{checked}");
}

fn round_trip(body: Json) -> Json {
    let batch = zipkin_json(&body.to_string()).unwrap();
    check_invariants(&batch);
    to_zipkin_json(&batch)
}

#[test]
fn both_addresses_and_tags_of_the_same_names_stay_apart() {
    let span = json!({"traceId": "000000000000000a", "id": "000000000000000b",
        "localEndpoint": {"serviceName": "a", "ipv4": "10.0.0.1", "ipv6": "2001:db8::1", "port": 80},
        "remoteEndpoint": {"serviceName": "b", "ipv4": "10.0.0.2", "ipv6": "2001:db8::2", "port": 81},
        "tags": {"peer.service": "tag", "net.peer.ip": "1.1.1.1", "net.peer.port": "9", "net.host.ip": "x",
            "net.host.ipv6": "y", "error": "boom", "otel.status_code": "ERROR"}});
    assert_eq!(round_trip(json!([span])), json!([span]));
    let only_tags = json!({"traceId": "000000000000000a", "id": "000000000000000b",
        "tags": {"peer.service": "tag", "net.peer.ip": "1.1.1.1", "net.peer.port": "9"}});
    assert_eq!(round_trip(json!([only_tags])), json!([only_tags]));
    let only_v6 = json!({"traceId": "000000000000000a", "id": "000000000000000b",
        "localEndpoint": {"ipv6": "2001:db8::1"}, "remoteEndpoint": {"ipv6": "::1", "port": 1}});
    assert_eq!(round_trip(json!([only_v6])), json!([only_v6]));
}

#[test]
fn endpoints_are_normalised() {
    let out = round_trip(
        json!([{"traceId": "a", "id": "b", "parentId": "b", "name": "", "kind": null, "timestamp": 0,
        "duration": -5, "localEndpoint": {"serviceName": "ÄB", "ipv4": "::ffff:10.1.2.3", "port": 0},
        "remoteEndpoint": {"serviceName": "", "ipv6": "2001:DB8:0:0::C001", "ipv4": "nonsense", "x": [1]},
        "shared": true, "debug": true, "annotations": [{"timestamp": 2, "value": "b"}, {"timestamp": 1, "value": "z"},
        {"timestamp": 2, "value": "b"}], "tags": {"n": 1, "t": true, "null": null, "d": "1", "d": "2"}}]),
    );
    assert_eq!(
        out,
        json!([{"traceId": "000000000000000a", "id": "000000000000000b",
            "localEndpoint": {"serviceName": "äb", "ipv4": "10.1.2.3"}, "remoteEndpoint": {"ipv6": "2001:db8::c001"},
            "annotations": [{"timestamp": 1, "value": "z"}, {"timestamp": 2, "value": "b"}],
            "tags": {"n": "1", "t": "true", "d": "2"}, "shared": true, "debug": true}])
    );
}

/// As answered by Zipkin 3.6.1 to the same spans.
#[test]
fn an_ipv6_address_that_embeds_an_ipv4_address_is_that() {
    for (sent, kept) in [
        ("::ffff:1.2.3.4", json!({"ipv4": "1.2.3.4"})),
        ("::43.0.192.2", json!({"ipv4": "43.0.192.2"})),
        ("::1", json!({"ipv6": "::1"})),
        ("::", json!({"ipv6": "::"})),
        ("2001:db8::1", json!({"ipv6": "2001:db8::1"})),
        ("fe80::1%eth0", json!(null)),
    ] {
        let out = round_trip(json!([{"traceId": "a", "id": "b", "localEndpoint": {"ipv6": sent}}]));
        assert_eq!(out[0].get("localEndpoint").cloned().unwrap_or_default(), kept, "{sent}");
    }
}

#[test]
fn a_kind_that_only_a_tag_says_stays_a_tag() {
    let span =
        json!({"traceId": "000000000000000a", "id": "000000000000000b", "tags": {"span.kind": "server"}});
    assert_eq!(round_trip(json!([span])), json!([span]));
    let shared = json!({"traceId": "000000000000000a", "id": "000000000000000b", "shared": true,
        "tags": {"span.kind": "client"}});
    assert_eq!(round_trip(json!([shared])), json!([shared]));
    let batch = zipkin_json(&json!([span]).to_string()).unwrap();
    assert_eq!(batch.spans[0].kind, SpanKind::Server, "for the other APIs it is one");
}

#[test]
fn of_tags_with_one_key_the_last_counts() {
    let many: String = (0..100).map(|i| format!("\"k{i}\":\"v\",")).collect();
    let body = format!(r#"[{{"traceId":"a","id":"b","tags":{{{many}"k5":"last"}}}}]"#);
    let out = to_zipkin_json(&zipkin_json(&body).unwrap());
    assert_eq!(out[0]["tags"]["k5"], "last");
    assert_eq!(out[0]["tags"].as_object().unwrap().len(), 100);
    let out = to_zipkin_json(&zipkin_json(r#"[{"traceId":"a","id":"b","tags":{"x":"1","x":"2"}}]"#).unwrap());
    assert_eq!(out[0]["tags"], json!({"x": "2"}));
}

#[test]
fn error_and_other_tags_set_the_fields_and_stay_tags() {
    let tags = |tags: Json| json!([{"traceId": "000000000000000a", "id": "000000000000000b", "timestamp": 1, "tags": tags}]);
    for (given, status, message) in [
        (json!({"error": "true"}), Status::Error, ""),
        (json!({"error": ""}), Status::Error, ""),
        (json!({"error": "timeout"}), Status::Error, "timeout"),
        (json!({"error": "true", "otel.status_description": "d"}), Status::Error, "d"),
        (json!({"otel.status_code": "OK"}), Status::Ok, ""),
        (json!({"otel.status_code": "ERROR"}), Status::Error, ""),
        (json!({"a": "b"}), Status::Unset, ""),
    ] {
        let batch = zipkin_json(&tags(given.clone()).to_string()).unwrap();
        let span = &batch.spans[0];
        assert_eq!((span.status, batch.str(span.status_message)), (status, message), "{given}");
        assert_eq!(to_zipkin_json(&batch), tags(given));
    }
    let batch = zipkin_json(
        &tags(json!({"span.kind": "internal", "w3c.tracestate": "a=1", "otel.scope.name": "lib",
            "otel.library.version": "2", "otlp.link.0": "1|2|s=1|{\"why\":[1,\"x\"]}|3", "otlp.link.1": "nonsense"}))
        .to_string(),
    )
    .unwrap();
    let span = &batch.spans[0];
    assert_eq!(span.kind, SpanKind::Internal);
    assert_eq!(batch.str(span.trace_state), "a=1");
    assert_eq!(batch.str(batch.scopes[span.scope as usize].name), "lib");
    assert_eq!(batch.str(batch.scopes[span.scope as usize].version), "2");
    let links = batch.span_links(span);
    assert_eq!(links.len(), 1);
    assert_eq!((links[0].trace_id.0, links[0].span_id.0, links[0].dropped), (1, 2, 3));
    assert!(batch.get(links[0].attrs, "why").is_some());
    // OTLP shows the fields and not the tags that repeat them.
    let out = to_otlp_json(&batch);
    assert_eq!(out["resourceSpans"][0]["scopeSpans"][0]["spans"][0].get("attributes"), None);
}

#[test]
fn events_with_attributes_go_through_zipkin() {
    let span = json!({"traceId": "000000000000000a", "id": "000000000000000b",
        "annotations": [{"timestamp": 1, "value": "plain"}, {"timestamp": 2, "value": "e|{\"a\":1,\"b\":\"x|{\"}|2"},
            {"timestamp": 3, "value": "spaced|{ \"a\": 1}|0"}]});
    let batch = zipkin_json(&json!([span]).to_string()).unwrap();
    assert_eq!(to_zipkin_json(&batch), json!([span]));
    let names: Vec<&str> = batch.events.iter().map(|e| batch.str(e.name)).collect();
    assert_eq!(names, ["plain", "e", "spaced|{ \"a\": 1}|0"]);
    assert_eq!(batch.events[1].dropped, 2);
}

#[test]
fn absent_times_are_remembered() {
    let batch = zipkin_json(r#"[{"traceId":"a","id":"b"}]"#).unwrap();
    let both = flags::NO_START | flags::NO_DURATION;
    assert_eq!(batch.spans[0].flags & both, both);
    let batch =
        zipkin_json(r#"[{"traceId":"a","id":"b","timestamp":"1.472470996199E15","duration":1}]"#).unwrap();
    assert_eq!((batch.spans[0].start, batch.spans[0].duration), (1_472_470_996_199_000_000, 1000));
}

#[test]
fn otlp_spans_are_seen_by_zipkin_as_the_table_says() {
    let vector = read_json(&fixtures().join("vectors/query/q14-otlp-to-all.json"));
    let batch = otlp_json(&vector["ingest"][0]["body"]);
    let out = to_zipkin_json(&batch);
    assert_eq!(
        out,
        json!([{
            "traceId": "0af7651916cd43dd8448eb211c80319c", "id": "b7ad6b7169203331", "kind": "SERVER", "name": "get /o",
            "timestamp": 1768471200000000u64, "duration": 123456, "localEndpoint": {"serviceName": "svc-o"},
            "annotations": [{"timestamp": 1768471200000700u64,
                "value": "exception|{\"exception.type\":\"E1\",\"exception.message\":\"m\"}|0"}],
            "tags": {
                "deployment.environment": "prod", "error": "true", "host.cores": "8", "http.response.status_code": "500",
                "ok": "false", "otel.scope.name": "lib.x", "otel.scope.version": "1.2", "otel.status_code": "ERROR",
                "otel.status_description": "boom", "otlp.link.0":
                "11111111111111112222222222222222|3333333333333333||{\"why\":\"batch\"}|0", "ratio": "0.5",
                "tags": "[\"a\",\"b\"]", "w3c.tracestate": "dd=s:1"
            }
        }])
    );
    // And what Zipkin cannot hold in fields comes back from its tags.
    let back = zipkin_json(&out.to_string()).unwrap();
    let span = &back.spans[0];
    assert_eq!((span.status, back.str(span.status_message)), (Status::Error, "boom"));
    assert_eq!(back.span_links(span)[0].span_id.0, 0x3333_3333_3333_3333);
    assert_eq!(back.get_str(back.span_events(span)[0].attrs, "exception.type"), Some("E1"));
}

#[test]
fn v1_spans_with_both_halves_become_two() {
    let host = |name: &str, port: u16| json!({"serviceName": name, "ipv4": "127.0.0.1", "port": port});
    let body = json!([{"traceId": "1", "id": "2", "name": "Get", "annotations": [
            {"timestamp": 10, "value": "cs", "endpoint": host("web", 1)},
            {"timestamp": 12, "value": "sr", "endpoint": host("api", 2)},
            {"timestamp": 13, "value": "custom", "endpoint": host("api", 2)},
            {"timestamp": 18, "value": "ss", "endpoint": host("api", 2)},
            {"timestamp": 20, "value": "cr", "endpoint": host("web", 1)}],
        "binaryAnnotations": [
            {"key": "http.path", "value": "/x", "endpoint": host("web", 1)},
            {"key": "sa", "value": true, "endpoint": host("api", 2)},
            {"key": "ca", "value": true, "endpoint": host("web", 1)},
            {"key": "retry", "value": true, "endpoint": host("api", 2)},
            {"key": "lc", "value": "", "endpoint": host("api", 2)}]}]);
    let batch = zipkin::decode_json_v1(bytes(body.to_string().as_bytes()), intake()).unwrap();
    assert_eq!(
        to_zipkin_json(&batch),
        json!([
            {"traceId": "0000000000000001", "id": "0000000000000002", "kind": "CLIENT", "name": "get", "timestamp": 10,
                "duration": 10, "localEndpoint": host("web", 1), "remoteEndpoint": host("api", 2),
                "tags": {"http.path": "/x"}},
            {"traceId": "0000000000000001", "id": "0000000000000002", "kind": "SERVER", "name": "get", "timestamp": 12,
                "duration": 6, "localEndpoint": host("api", 2), "remoteEndpoint": host("web", 1),
                "annotations": [{"timestamp": 13, "value": "custom"}], "tags": {"retry": "true"}, "shared": true},
        ])
    );
}

#[test]
fn v1_spans_without_authoritative_times_are_shared() {
    let host = json!({"serviceName": "api"});
    let body = json!([{"traceId": "1", "id": "2", "parentId": "1", "annotations": [
        {"timestamp": 12, "value": "sr", "endpoint": host}, {"timestamp": 18, "value": "ss", "endpoint": host}]}]);
    let out = to_zipkin_json(&zipkin::decode_json_v1(bytes(body.to_string().as_bytes()), intake()).unwrap());
    assert_eq!(out[0]["shared"], true);
    assert_eq!((&out[0]["timestamp"], &out[0]["duration"]), (&json!(12), &json!(6)));
    let body = json!([{"traceId": "1", "id": "2", "timestamp": 11, "duration": 9, "annotations": [
        {"timestamp": 12, "value": "ms", "endpoint": host}], "binaryAnnotations": [
        {"key": "ma", "value": true, "endpoint": {"serviceName": "kafka"}}]}]);
    let out = to_zipkin_json(&zipkin::decode_json_v1(bytes(body.to_string().as_bytes()), intake()).unwrap());
    assert_eq!(
        (&out[0]["kind"], &out[0]["timestamp"], &out[0]["duration"]),
        (&json!("PRODUCER"), &json!(11), &json!(9))
    );
    assert_eq!(out[0]["remoteEndpoint"], json!({"serviceName": "kafka"}));
}
