//! Spans of other protocols in Datadog's words, rule by rule
//! (datadog-intake §6.2–6.6).

use super::helpers::{captured, otlp_json, zipkin_json};
use serde_json::{Map, Value as Json, json};
use spanloom_codec::datadog::agent_payload::encode_tracer_payload;
use spanloom_codec::datadog::from_otlp::{Naming, OtlpOptions, Translation, to_datadog};
use spanloom_codec::{jaeger, otlp, zipkin};
use spanloom_model::{Batch, PRIORITY_NONE, Protocol, Value};
use std::borrow::Cow;

fn options() -> OtlpOptions {
    OtlpOptions {
        normalize_service: |s| Cow::Owned(s.to_lowercase()),
        normalize_tag_value: |s| Cow::Owned(s.to_lowercase().replace(' ', "_")),
        ..OtlpOptions::default()
    }
}

/// Attributes as OTLP's JSON has them.
fn attributes(map: &Json) -> Json {
    fn value(v: &Json) -> Json {
        match v {
            Json::String(s) if s.starts_with("bytes:") => json!({"bytesValue": &s[6..]}),
            Json::String(s) => json!({"stringValue": s}),
            Json::Bool(b) => json!({"boolValue": b}),
            Json::Number(n) if n.is_i64() => json!({"intValue": n.to_string()}),
            Json::Number(n) => json!({"doubleValue": n}),
            Json::Array(a) => json!({"arrayValue": {"values": a.iter().map(value).collect::<Vec<_>>()}}),
            Json::Object(_) => json!({"kvlistValue": {"values": attributes(v)}}),
            Json::Null => json!({}),
        }
    }
    let empty = Map::new();
    let map = map.as_object().unwrap_or(&empty);
    map.iter().map(|(k, v)| json!({"key": k, "value": value(v)})).collect()
}

/// One resource with one span; `span` may say `attributes`, `name`, `kind` …
fn request(resource: &Json, span: &Json) -> Json {
    let mut s = json!({
        "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": "the name",
        "startTimeUnixNano": "1700000000000000000", "endTimeUnixNano": "1700000000000000500",
    });
    for (k, v) in span.as_object().unwrap() {
        s[k] = if k == "attributes" { attributes(v) } else { v.clone() };
    }
    json!({"resourceSpans": [{
        "resource": {"attributes": attributes(resource)},
        "scopeSpans": [{"scope": {"name": "lib", "version": "1.2"}, "spans": [s]}],
    }]})
}

fn translate(resource: &Json, span: &Json, options: &OtlpOptions) -> Translation {
    to_datadog(&otlp_json(&request(resource, span)), options, "agent-host")
}

/// The span at a place: fields, texts and numbers.
fn shown(batch: &Batch, at: usize) -> Json {
    let span = &batch.spans[at];
    let (mut meta, mut metrics) = (Map::new(), Map::new());
    for a in batch.attrs(span.attrs) {
        let key = batch.str(a.key).to_owned();
        let before = match a.value {
            Value::Str(t) => meta.insert(key.clone(), batch.str(t).into()),
            Value::Double(n) => metrics.insert(key.clone(), json!(n)),
            other => panic!("{key} is {other:?}, which Datadog does not have"),
        };
        assert_eq!(before, None, "{key} stands once");
    }
    json!({
        "service": batch.str(span.service), "name": batch.str(span.name), "resource": batch.str(span.resource),
        "type": batch.str(span.span_type), "error": span.error, "meta": meta, "metrics": metrics,
    })
}

#[test]
fn operations_and_resources_follow_the_attributes() {
    let (server, client, producer, consumer, internal) = (2, 3, 4, 5, 1);
    for (kind, attrs, operation, resource) in [
        (server, json!({"operation.name": "My Op", "http.request.method": "GET"}), "my_op", "GET"),
        (server, json!({"http.request.method": "GET", "http.route": "/a"}), "http.server.request", "GET /a"),
        (server, json!({"http.method": "PUT"}), "http.server.request", "PUT"),
        (server, json!({"http.method": "PUT", "http.request.method": "GET"}), "http.server.request", "GET"),
        (client, json!({"http.request.method": "GET", "http.route": "/a"}), "http.client.request", "GET"),
        (client, json!({"http.request.method": "_OTHER"}), "http.client.request", "HTTP"),
        (internal, json!({"http.request.method": "GET", "http.route": "/a"}), "Internal", "GET"),
        (client, json!({"db.system": "PostgreSQL"}), "postgresql.query", "the name"),
        (client, json!({"db.system": "mysql", "db.statement": "SELECT 1"}), "mysql.query", "SELECT 1"),
        (client, json!({"db.system": "mysql", "db.query.text": "SELECT 2"}), "mysql.query", "SELECT 2"),
        (server, json!({"db.system": "mysql"}), "server.request", "the name"),
        (client, json!({"db.statement": "SELECT 1"}), "client.request", "the name"),
        (
            producer,
            json!({"messaging.system": "kafka", "messaging.operation": "send", "messaging.destination": "t"}),
            "kafka.send",
            "send t",
        ),
        (
            consumer,
            json!({"messaging.system": "kafka", "messaging.operation": "get", "messaging.destination.name": "t"}),
            "kafka.get",
            "get t",
        ),
        (internal, json!({"messaging.system": "kafka", "messaging.operation": "x"}), "Internal", "x"),
        (producer, json!({"messaging.system": "kafka"}), "Producer", "the name"),
        (
            client,
            json!({"rpc.system": "aws-api", "rpc.service": "S3", "rpc.method": "Get"}),
            "aws.s3.request",
            "Get S3",
        ),
        (client, json!({"rpc.system": "aws-api"}), "aws.client.request", "the name"),
        (server, json!({"rpc.system": "aws-api"}), "aws-api.server.request", "the name"),
        (client, json!({"rpc.system": "grpc", "rpc.method": "Do"}), "grpc.client.request", "Do"),
        (server, json!({"rpc.system": "grpc"}), "grpc.server.request", "the name"),
        (internal, json!({"rpc.system": "grpc"}), "Internal", "the name"),
        (
            client,
            json!({"faas.invoked_provider": "aws", "faas.invoked_name": "fn"}),
            "aws.fn.invoke",
            "the name",
        ),
        (server, json!({"faas.trigger": "timer"}), "timer.invoke", "the name"),
        (
            server,
            json!({"graphql.operation.type": "query", "graphql.operation.name": "q"}),
            "graphql.server.request",
            "query q",
        ),
        (internal, json!({"graphql.operation.type": "query"}), "graphql.server.request", "query"),
        (server, json!({"network.protocol.name": "HTTP"}), "http.server.request", "the name"),
        (client, json!({"network.protocol.name": "amqp"}), "amqp.client.request", "the name"),
        (server, json!({}), "server.request", "the name"),
        (client, json!({}), "client.request", "the name"),
        (consumer, json!({}), "Consumer", "the name"),
        (internal, json!({}), "Internal", "the name"),
        (0, json!({}), "Internal", "the name"),
        (server, json!({"resource.name": "mine", "http.method": "GET"}), "http.server.request", "mine"),
        // Only texts count.
        (server, json!({"http.method": 5}), "server.request", "the name"),
    ] {
        // What a span does not say, its resource may.
        for (resource_attrs, span_attrs) in [(json!({}), &attrs), (attrs.clone(), &json!({}))] {
            let t = translate(&resource_attrs, &json!({"kind": kind, "attributes": span_attrs}), &options());
            let got = shown(&t.batch, 0);
            assert_eq!(
                (got["name"].as_str(), got["resource"].as_str()),
                (Some(operation), Some(resource)),
                "{kind} {attrs}"
            );
        }
    }
}

#[test]
fn names_of_older_agents_are_still_to_be_had() {
    let v1 = |as_resource, remap: &[(&str, &str)]| OtlpOptions {
        naming: Naming::V1 {
            span_name_as_resource_name: as_resource,
            remappings: remap.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        },
        ..options()
    };
    let web = json!({"http.request.method": "_OTHER", "http.route": "/a"});
    for (o, kind, resource, attrs, name, resource_name) in [
        (v1(false, &[]), 3, json!({}), web.clone(), "lib.client", "_OTHER /a"),
        (v1(true, &[]), 3, json!({}), web.clone(), "the name", "_OTHER /a"),
        (v1(false, &[("lib.client", "mine")]), 3, json!({}), web, "mine", "_OTHER /a"),
        (
            v1(false, &[]),
            0,
            json!({"operation.name": "Res"}),
            json!({"operation.name": "Span"}),
            "Res",
            "the name",
        ),
        (
            v1(false, &[]),
            3,
            json!({}),
            json!({"db.system": "x", "db.statement": "S"}),
            "lib.client",
            "the name",
        ),
    ] {
        let t = translate(&resource, &json!({"kind": kind, "attributes": attrs}), &o);
        let got = shown(&t.batch, 0);
        assert_eq!(
            (got["name"].as_str(), got["resource"].as_str()),
            (Some(name), Some(resource_name)),
            "{attrs}"
        );
    }
}

#[test]
fn types_follow_the_kind_and_the_database() {
    for (kind, attrs, want) in [
        (2, json!({}), "web"),
        (3, json!({}), "http"),
        (3, json!({"db.system": "MySQL"}), "sql"),
        (3, json!({"db.system": "clickhouse"}), "sql"),
        (3, json!({"db.system": "redis"}), "redis"),
        (3, json!({"db.system": "opensearch"}), "opensearch"),
        (3, json!({"db.system": "neo4j"}), "db"),
        (2, json!({"db.system": "mysql"}), "web"),
        (1, json!({}), "custom"),
        (4, json!({}), "custom"),
        (3, json!({"span.type": "cache"}), "cache"),
    ] {
        let t = translate(&json!({}), &json!({"kind": kind, "attributes": attrs}), &options());
        assert_eq!(shown(&t.batch, 0)["type"], want, "{kind} {attrs}");
    }
}

/// What the span has; `null` says that the key is absent.
fn check(resource: &Json, span: &Json, want: &Json) {
    let t = translate(resource, span, &options());
    let got = shown(&t.batch, 0);
    for (part, values) in want.as_object().unwrap() {
        let Some(values) = values.as_object() else {
            assert_eq!(&got[part], values, "{part} of {span}");
            continue;
        };
        for (key, value) in values {
            assert_eq!(
                got[part].get(key).unwrap_or(&Json::Null),
                value,
                "{part} {key} of {span} on {resource}"
            );
        }
    }
}

#[test]
fn attributes_become_tags_and_numbers() {
    let none = json!({});
    let attrs = |a: Json| json!({"attributes": a});
    check(
        &none,
        &attrs(json!({"i": 3, "d": 1.5, "b": true, "s": "x", "l": [1, "a", null], "m": {"k": [true]},
            "raw": "bytes:aGk=", "e": null})),
        &json!({
            "metrics": {"i": 3.0, "d": 1.5},
            "meta": {"b": "true", "s": "x", "l": "[1,\"a\",null]", "m": "{\"k\":[true]}", "raw": "aGk=", "e": "",
                "span.kind": "unspecified", "otel.trace_id": "5b8efff798038103d269b633813fc60c",
                "otel.library.name": "lib", "otel.library.version": "1.2", "otel.status_code": "Unset",
                "otel.status_description": null, "w3c.tracestate": null, "error.msg": null},
        }),
    );
    for (from, to) in [
        ("client.address", "http.client_ip"),
        ("http.request.header.referrer", "http.referrer"),
        ("http.request.method", "http.method"),
        ("network.protocol.version", "http.version"),
        ("server.address", "http.server_name"),
        ("url.full", "http.url"),
        ("user_agent.original", "http.useragent"),
        ("http.request.header.x-id", "http.request.headers.x-id"),
    ] {
        check(&none, &attrs(json!({from: "v"})), &json!({"meta": {from: null, to: "v"}}));
        check(&json!({from: "v"}), &attrs(none.clone()), &json!({"meta": {from: null, to: "v"}}));
    }
    for (from, to) in [
        ("http.response.body.size", "http.response.content_length"),
        ("http.request.body.size", "http.request.content_length"),
        ("http.response.status_code", "http.status_code"),
        ("sampling.priority", "_sampling_priority_v1"),
    ] {
        check(&none, &attrs(json!({from: 200})), &json!({"metrics": {from: null, to: 200.0}}));
    }
    for key in ["service.name", "operation.name", "resource.name", "span.type"] {
        check(&json!({key: "r"}), &attrs(json!({key: "s"})), &json!({"meta": {key: null}}));
    }
    // The span's own come first; those of the resource are texts.
    check(
        &json!({"a": "resource", "b": 5, "host.name": "h"}),
        &attrs(json!({"a": "span"})),
        &json!({"meta": {"a": "span", "b": "5", "host.name": "h"}, "metrics": {"b": null}}),
    );
    check(&json!({"a": "resource"}), &attrs(json!({"a": ""})), &json!({"meta": {"a": "resource"}}));
    for (value, want) in [(json!(true), json!(1.0)), (json!("f"), json!(0.0)), (json!("maybe"), Json::Null)] {
        let want = json!({"metrics": {"_dd1.sr.eausr": want}, "meta": {"analytics.event": null}});
        check(&none, &attrs(json!({"analytics.event": value})), &want);
    }
}

#[test]
fn fields_of_the_span_are_told_in_tags() {
    let none = json!({});
    let service = |r: Json, a: Json| translate(&r, &json!({"attributes": a}), &options());
    for (resource, span, want) in [
        (json!({"service.name": "Shop"}), json!({}), "shop"),
        (json!({"service.name": "shop"}), json!({"service.name": "own"}), "own"),
        (json!({}), json!({}), "otlpresourcenoservicename"),
        (json!({"service.name": ""}), json!({}), "otlpresourcenoservicename"),
    ] {
        assert_eq!(shown(&service(resource, span).batch, 0)["service"], want);
    }
    let code = |a: Json, want: Json| {
        check(&none, &json!({"attributes": a}), &json!({"metrics": {"http.status_code": want}}));
    };
    code(json!({"http.status_code": 404, "http.response.status_code": 200}), json!(404.0));
    code(json!({"http.status_code": "404"}), json!(404.0));
    code(json!({"http.response.status_code": "503"}), json!(503.0));
    code(json!({"http.status_code": "none", "http.response.status_code": 200}), json!(200.0));
    let grpc = |a: Json, want: Json| {
        check(&none, &json!({"attributes": a}), &json!({"meta": {"rpc.grpc.status_code": want}}));
    };
    grpc(json!({"rpc.grpc.status_code": 5}), json!("5"));
    grpc(json!({"grpc.code": "OK", "grpc.status.code": 1}), json!("OK"));
    grpc(json!({"rpc.grpc.status.code": 2}), json!("2"));
    grpc(json!({"rpc.response.status_code": "7", "rpc.system": "grpc"}), json!("7"));
    grpc(json!({"rpc.response.status_code": "7", "rpc.system.name": "grpc"}), json!("7"));
    grpc(json!({"rpc.response.status_code": "7", "rpc.system.name": "x", "rpc.system": "grpc"}), Json::Null);
    grpc(json!({"rpc.response.status_code": "7"}), Json::Null);
    check(
        &json!({"service.version": "V 1", "deployment.environment": "Old"}),
        &none,
        &json!({"meta": {"version": "v_1", "env": "old"}}),
    );
    check(
        &json!({"service.version": "1", "deployment.environment.name": "r", "deployment.environment": "x"}),
        &json!({"attributes": {"version": "mine", "deployment.environment": "Span"}}),
        &json!({"meta": {"version": "mine", "env": "r"}}),
    );
    check(&none, &json!({"attributes": {"db.namespace": "n"}}), &json!({"meta": {"db.name": "n"}}));
    check(
        &none,
        &json!({"attributes": {"db.namespace": "n", "db.name": "o"}}),
        &json!({"meta": {"db.name": "o"}}),
    );
    check(&none, &json!({"traceState": "a=b"}), &json!({"meta": {"w3c.tracestate": "a=b"}}));
    check(&none, &json!({"attributes": {"_dd.measured": 1}}), &json!({"metrics": {"_dd.measured": 1.0}}));
}

#[test]
fn failures_carry_a_message() {
    let none = json!({});
    let error = |extra: Json| {
        let mut span = json!({"status": {"code": 2}});
        for (k, v) in extra.as_object().unwrap() {
            span[k] = v.clone();
        }
        span
    };
    for (span, failed, message) in [
        (json!({"status": {"code": 2, "message": "boom"}}), 1, json!("boom")),
        (error(json!({"attributes": {"error.msg": "mine"}})), 1, json!("mine")),
        (error(json!({"attributes": {"http.status_code": "503"}})), 1, json!("503 Service Unavailable")),
        (error(json!({"attributes": {"http.response.status_code": "599"}})), 1, json!("599")),
        // A number is a metric, and the message is looked for among texts.
        (error(json!({"attributes": {"http.status_code": 503}})), 1, Json::Null),
        (json!({"status": {"code": 1}}), 0, Json::Null),
        (json!({"status": {"message": "no error"}}), 0, Json::Null),
    ] {
        check(&none, &span, &json!({"error": failed, "meta": {"error.msg": message}}));
    }
    check(
        &none,
        &json!({"status": {"code": 2, "message": "boom"}}),
        &json!({"meta": {"otel.status_code": "Error", "otel.status_description": "boom"}}),
    );
    check(&none, &json!({"status": {"code": 1}}), &json!({"meta": {"otel.status_code": "Ok"}}));
}

#[test]
fn events_and_links_are_json_that_parses() {
    let span = json!({
        "events": [
            {"timeUnixNano": "7", "name": "a \"quoted\" name", "droppedAttributesCount": 2,
             "attributes": attributes(&json!({"n": 1, "ok": true, "l": [1.5], "s": "x\\y"}))},
            {"name": "exception"},
        ],
        "links": [{
            "traceId": "00000000000000000000000000000001", "spanId": "0000000000000002", "traceState": "s=\"1\"",
            "attributes": attributes(&json!({"n": 1, "q": "a\"b"})), "droppedAttributesCount": 3, "flags": 1,
        }],
    });
    let t = translate(&json!({}), &span, &options());
    let got = shown(&t.batch, 0);
    let parsed = |key: &str| serde_json::from_str::<Json>(got["meta"][key].as_str().unwrap()).unwrap();
    assert_eq!(
        parsed("events"),
        json!([
            {"time_unix_nano": 7, "name": "a \"quoted\" name", "dropped_attributes_count": 2,
             "attributes": {"n": 1, "ok": true, "l": [1.5], "s": "x\\y"}},
            {"name": "exception"},
        ])
    );
    assert_eq!(
        parsed("_dd.span_links"),
        json!([{
            "trace_id": "00000000000000000000000000000001", "span_id": "0000000000000002", "tracestate": "s=\"1\"",
            "attributes": {"n": "1", "q": "a\"b"}, "dropped_attributes_count": 3,
        }])
    );
    assert_eq!(got["meta"]["_dd.span_events.has_exception"], "true");
    assert!(t.batch.links.is_empty() && t.batch.events.is_empty());
}

#[test]
fn hosts_are_found_by_the_resource() {
    for (resource, want) in [
        (json!({}), "agent-host"),
        (json!({"host": "a", "datadog.host.name": "b"}), "a"),
        (json!({"host": 5}), "5"),
        (json!({"datadog.host.name": "b", "host.id": "c"}), "b"),
        (json!({"host.id": "c", "host.name": "d"}), "c"),
        (json!({"host.name": "d"}), "d"),
        (json!({"host.name": "localhost"}), "agent-host"),
        (json!({"host": "127.0.0.1"}), "agent-host"),
        (json!({"k8s.node.name": "n", "host.id": "c"}), "n"),
        (json!({"k8s.node.name": "n", "k8s.cluster.name": "k"}), "n-k"),
        (json!({"cloud.provider": "aws", "host.id": "i-1", "host.name": "d"}), "i-1"),
        (json!({"cloud.provider": "aws", "host.name": "d", "k8s.node.name": "n"}), "agent-host"),
        (json!({"cloud.provider": "gcp", "host.name": "a.b.c.d", "cloud.account.id": "p"}), "a.p"),
        (json!({"cloud.provider": "gcp", "host.name": "a.b", "cloud.account.id": "p"}), "a.b.p"),
        (json!({"cloud.provider": "gcp", "host.name": "a.b"}), "agent-host"),
        (json!({"cloud.provider": "azure", "host.name": "d"}), "d"),
        (json!({"cloud.provider": "other", "host.name": "d"}), "d"),
        (json!({"aws.ecs.launchtype": "fargate", "host.name": "d"}), "agent-host"),
        (json!({"aws.ecs.launchtype": "fargate", "aws.ecs.task.arn": "arn", "host.name": "d"}), ""),
    ] {
        let t = translate(&resource, &json!({}), &options());
        assert_eq!(t.batch.str(t.batch.resources[0].hostname), want, "{resource}");
    }
}

#[test]
fn a_resource_describes_the_payload() {
    let resource = json!({
        "deployment.environment.name": "Prod East", "container.id": "cid", "k8s.pod.uid": "pod",
        "telemetry.sdk.language": "go", "telemetry.sdk.version": "1.9", "_dd.stats_computed": "true",
        "k8s.pod.name": "web-1", "datadog.container.tag.team": "x", "datadog.container.tag.pod_name": "no",
        "image_tag": "v7",
    });
    let t = translate(&resource, &json!({}), &options());
    let (b, r) = (&t.batch, &t.batch.resources[0]);
    assert_eq!(b.intake.protocol, Protocol::DatadogV07);
    assert_eq!(
        [r.env, r.container_id, r.language_name, r.tracer_version].map(|t| b.str(t)),
        ["prod_east", "cid", "go", "otlp-1.9"]
    );
    assert_eq!(t.computed_stats, [true]);
    let tags = |t: &Translation| {
        t.batch.get_str(t.batch.resources[0].attrs, "_dd.tags.container").map(str::to_owned)
    };
    assert_eq!(tags(&t).as_deref(), Some("container_id:cid,pod_name:web-1,team:x"));
    assert_eq!(shown(b, 0)["meta"]["image_tag"], "v7");

    let extended = OtlpOptions { container_tags_v2: true, ..options() };
    let t = translate(&resource, &json!({}), &extended);
    assert_eq!(tags(&t).as_deref(), Some("container_id:cid,pod_name:web-1,team:x,image_tag:v7"));
    let meta = shown(&t.batch, 0)["meta"].clone();
    assert_eq!((meta.get("image_tag"), meta.get("datadog.container.tag.team")), (None, None));

    let pod = json!({"k8s.pod.uid": "pod", "_dd.stats_computed": ""});
    for (o, want) in [(options(), "pod"), (extended, "")] {
        let t = translate(&pod, &json!({}), &o);
        assert_eq!(t.batch.str(t.batch.resources[0].container_id), want);
        assert_eq!(t.computed_stats, [false]);
        assert_eq!(t.batch.str(t.batch.resources[0].tracer_version), "otlp-");
        assert_eq!(tags(&t), None);
    }
}

#[test]
fn priorities_are_the_users_or_the_rates() {
    let maker = |t: &Translation| t.batch.get_str(t.batch.spans[0].attrs, "_dd.p.dm").map(str::to_owned);
    let low = 0xd269_b633_813f_c60cu64;
    // The share of the range below which the id of the request falls.
    let share = low.wrapping_mul(1_111_111_111_111_111_111) as f64 / 2f64.powi(64) * 100.0;
    for (percentage, attrs, priority, dm, rate) in [
        (100.0, json!({}), 1, Some("-9"), "1.00"),
        (0.0, json!({}), 1, Some("-9"), "1.00"),
        (250.0, json!({}), 1, Some("-9"), "1.00"),
        (share + 0.01, json!({}), 1, Some("-9"), ""),
        (share - 0.01, json!({}), 0, None, ""),
        (25.0, json!({"sampling.priority": 2}), 2, Some("-4"), "0.25"),
        (25.0, json!({"sampling.priority": 1.0}), 1, Some("-4"), "0.25"),
        (25.0, json!({"sampling.priority": -1}), -1, None, "0.25"),
        (100.0, json!({"sampling.priority": "2"}), 1, Some("-9"), "1.00"),
        (100.0, json!({"_dd.p.dm": "-3"}), 1, Some("-9"), "1.00"),
    ] {
        let o = OtlpOptions { sampling_percentage: percentage, ..options() };
        let t = translate(&json!({}), &json!({"attributes": attrs}), &o);
        let chunk = &t.batch.chunks[0];
        assert_eq!((chunk.priority, maker(&t).as_deref()), (priority, dm), "{percentage} {attrs}");
        let printed = t.batch.get_str(chunk.attrs, "_dd.otlp_sr").unwrap();
        assert!(rate.is_empty() || printed == rate, "{printed}");
        shown(&t.batch, 0);
    }
    let o = OtlpOptions { probabilistic_sampler: true, ..options() };
    let t = translate(&json!({}), &json!({"attributes": {"sampling.priority": 2}}), &o);
    assert_eq!((t.batch.chunks[0].priority, maker(&t)), (PRIORITY_NONE, None));
}

#[test]
fn the_kind_decides_about_top_level_only_where_asked() {
    let by_kind = OtlpOptions { top_level_by_kind: true, ..options() };
    let parent = "0000000000000009";
    for (kind, parent, top, measured) in [
        (1, "", true, false),
        (1, parent, false, false),
        (2, parent, true, false),
        (3, parent, false, true),
        (4, parent, false, true),
        (5, parent, true, false),
    ] {
        let span = json!({"kind": kind, "parentSpanId": parent});
        let t = translate(&json!({}), &span, &by_kind);
        let metrics = shown(&t.batch, 0)["metrics"].clone();
        assert_eq!(
            (metrics.get("_top_level").is_some(), metrics.get("_dd.measured").is_some()),
            (top, measured)
        );
        assert!(t.batch.intake.client.computed_top_level);
        let t = translate(&json!({}), &span, &options());
        assert_eq!(shown(&t.batch, 0)["metrics"], json!({}));
        assert!(!t.batch.intake.client.computed_top_level);
    }
}

#[test]
fn traces_that_share_the_low_half_of_their_ids_are_one_chunk() {
    let span = |trace: &str, id: u32| json!({"traceId": trace, "spanId": format!("{id:016x}"), "name": id.to_string()});
    let (a, b, c) = (
        "00000000000000010000000000000007",
        "00000000000000000000000000000008",
        "00000000000000020000000000000007",
    );
    let resource = |spans: Json| json!({"resource": {}, "scopeSpans": [{"spans": spans}]});
    let batch = otlp_json(&json!({"resourceSpans": [
        resource(json!([span(a, 1), span(b, 2), span(c, 3)])),
        resource(json!([span(a, 4)])),
    ]}));
    let t = to_datadog(&batch, &options(), "h");
    assert_eq!(t.order, [vec![0, 2], vec![1], vec![3]]);
    let ids: Vec<Vec<u64>> =
        t.batch.chunks.iter().map(|c| t.batch.chunk_spans(c).iter().map(|s| s.span_id.0).collect()).collect();
    assert_eq!(ids, [vec![1, 3], vec![2], vec![4]]);
    assert_eq!(t.batch.chunks.iter().map(|c| c.resource).collect::<Vec<_>>(), [0, 0, 1]);
    // Nothing reserved is left over in the spans.
    for i in 0..4 {
        shown(&t.batch, i);
    }
}

#[test]
fn zipkin_spans_go_the_same_way() {
    let batch = zipkin_json(
        r#"[{"traceId":"0000000000000005","id":"0000000000000005","kind":"SERVER","name":"get /a","timestamp":1700000000000000,
            "duration":20,"localEndpoint":{"serviceName":"shop","ipv4":"10.0.0.1"},"debug":true,
            "tags":{"http.method":"GET","http.status_code":"503","error":"boom","otel.library.name":"envoy"},
            "annotations":[{"timestamp":1700000000000001,"value":"ws"}]},
            {"traceId":"0000000000000005","id":"0000000000000006","parentId":"0000000000000005","name":"x",
            "localEndpoint":{"serviceName":"other"}}]"#,
    )
    .unwrap();
    let t = to_datadog(&batch, &options(), "agent-host");
    let got = shown(&t.batch, 0);
    assert_eq!(
        (&got["service"], &got["name"], &got["resource"], &got["type"], &got["error"]),
        (&json!("shop"), &json!("http.server.request"), &json!("GET"), &json!("web"), &json!(1))
    );
    assert_eq!(got["metrics"]["http.status_code"], 503.0);
    for (key, want) in [
        ("span.kind", json!("server")),
        ("otel.status_code", json!("Error")),
        ("error.msg", json!("boom")),
        ("net.host.ip", json!("10.0.0.1")),
        ("otel.library.name", json!("envoy")),
        ("events", json!("[{\"time_unix_nano\":1700000000000001000,\"name\":\"ws\"}]")),
        // A client that asks for debugging wants the trace kept.
        ("_dd.p.dm", json!("-4")),
    ] {
        assert_eq!(got["meta"][key], want, "{key}");
    }
    assert_eq!(t.batch.chunks[0].priority, 2);
    assert_eq!((t.batch.spans[0].duration, shown(&t.batch, 1)["service"].clone()), (20_000, json!("other")));
}

#[test]
fn what_a_resource_repeats_is_bounded() {
    let long = "x".repeat(20_000);
    let resource: Map<String, Json> = (0..400).map(|i| (format!("key{i}"), long.clone().into())).collect();
    let mut document = request(&Json::Object(resource), &json!({}));
    let span = document["resourceSpans"][0]["scopeSpans"][0]["spans"][0].clone();
    document["resourceSpans"][0]["scopeSpans"][0]["spans"] = Json::Array(vec![span; 20]);
    let t = to_datadog(&otlp_json(&document), &options(), "h");
    // 8 MB a span: eight times is below the bound, twenty times is not.
    assert_eq!(t.cut, 400 * 12);
    assert_eq!(t.batch.spans.len(), 20);
}

#[test]
fn a_span_of_many_attributes_keeps_each_once() {
    let attrs: Map<String, Json> = (0..5000).map(|i| (format!("key{i}"), i.to_string().into())).collect();
    let resource: Map<String, Json> = (4000..6000).map(|i| (format!("key{i}"), json!("resource"))).collect();
    let t = translate(&Json::Object(resource), &json!({"attributes": attrs}), &options());
    let meta = shown(&t.batch, 0)["meta"].clone();
    assert_eq!((&meta["key4999"], &meta["key5000"]), (&json!("4999"), &json!("resource")));
    assert!(meta.as_object().unwrap().len() >= 6000);
}

#[test]
fn every_captured_request_translates_to_payloads_of_all_its_spans() {
    let mut seen = 0;
    for format in ["otlp", "zipkin", "jaeger"] {
        for c in captured(format) {
            let intake = spanloom_model::Intake::default();
            let batch = match c.format.as_str() {
                f if f.starts_with("otlp") && f.contains("json") => {
                    otlp::decode_json(c.body, intake).unwrap().batch
                }
                f if f.starts_with("otlp") => otlp::decode_proto(c.body, intake).unwrap().batch,
                _ => {
                    // Zipkin and Jaeger have many forms; one of them fits.
                    let forms = [
                        zipkin::decode_json_v2(c.body.clone(), intake).ok(),
                        zipkin::decode_proto(c.body.clone(), intake).ok(),
                        zipkin::decode_thrift(c.body.clone(), intake).ok(),
                        jaeger::decode_thrift_http(c.body.clone(), intake).ok().map(|d| d.batch),
                    ];
                    let Some(batch) = forms.into_iter().flatten().find(|b| !b.spans.is_empty()) else {
                        continue;
                    };
                    batch
                }
            };
            let t = to_datadog(&batch, &options(), "agent-host");
            assert_eq!(t.batch.spans.len(), batch.spans.len(), "{}", c.name);
            let mut encoded = Vec::new();
            let spans: usize = (0..t.batch.resources.len())
                .map(|r| encode_tracer_payload(&t.batch, r as u32, &mut encoded).1)
                .sum();
            assert_eq!(spans, batch.spans.len(), "{}", c.name);
            for i in 0..t.batch.spans.len() {
                let span = shown(&t.batch, i);
                assert!(
                    span["name"] != "" && span["resource"] != "" && span["service"] != "",
                    "{}: {span}",
                    c.name
                );
            }
            seen += t.batch.spans.len();
        }
    }
    assert!(seen > 100, "{seen} spans");
}
