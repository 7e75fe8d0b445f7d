//! Jaeger: captured payloads, references, errors.

use super::helpers::*;
use serde_json::{Value as Json, json};
use spanloom_codec::thrift::{Encoding, Writer};
use spanloom_codec::{DecodeError, jaeger};
use spanloom_model::{Batch, Range32, SpanId, Status, Value, flags};

fn decode(c: &Captured) -> Batch {
    let decode = match c.format.as_str() {
        "jaeger-thrift-binary" => jaeger::decode_thrift_http,
        f if f.contains("compact") => jaeger::decode_udp_compact,
        _ => jaeger::decode_udp_binary,
    };
    let decoded = decode(c.body.clone(), intake()).unwrap_or_else(|e| panic!("{}: {e}", c.name));
    assert_eq!(decoded.rejected, 0, "{}", c.name);
    check_invariants(&decoded.batch);
    decoded.batch
}

fn render_tags(b: &Batch, range: Range32) -> Vec<Json> {
    b.attrs(range)
        .iter()
        .map(|a| {
            let (ty, value) = match a.value {
                Value::Str(t) => ("STRING", json!(b.str(t))),
                Value::Double(n) => ("DOUBLE", json!(n)),
                Value::Bool(v) => ("BOOL", json!(v)),
                Value::Int(n) => ("LONG", json!(n)),
                Value::Bytes(t) => ("BINARY", json!(b.arena.bytes(t))),
                other => panic!("{other:?}"),
            };
            json!({"key": b.str(a.key), "type": ty, "value": value})
        })
        .collect()
}

/// The spans of a batch, without their process, in the shape of the renderings.
fn render(b: &Batch) -> Vec<Json> {
    let mut out: Vec<Json> = b
        .spans
        .iter()
        .map(|s| {
            let logs: Vec<Json> = b
                .span_events(s)
                .iter()
                .map(|e| {
                    let mut fields = render_tags(b, e.attrs);
                    if !e.name.is_empty() {
                        fields.insert(0, json!({"key": "event", "type": "STRING", "value": b.str(e.name)}));
                    }
                    json!({"timestamp_us": e.time / 1000, "fields": fields})
                })
                .collect();
            let links: Vec<Json> = b
                .span_links(s)
                .iter()
                .map(|l| {
                    let kind = b.get_str(l.attrs, "opentracing.ref_type").unwrap().to_uppercase();
                    json!({"refType": kind, "traceID": l.trace_id.to_string(), "spanID": l.span_id.to_string()})
                })
                .collect();
            json!({"traceID": s.trace_id.to_string(), "spanID": s.span_id.to_string(),
                "parentSpanID": s.parent_id.to_string(), "operationName": b.str(s.name), "flags": s.flags & 0xff,
                "startTime_us": s.start / 1000, "duration_us": s.duration / 1000, "references": links,
                "tags": render_tags(b, s.attrs), "logs": logs})
        })
        .collect();
    out.sort_by_key(|s| s["spanID"].to_string());
    out
}

#[test]
fn captured_requests_are_read_and_go_out_as_they_came() {
    for c in captured("jaeger") {
        let batch = decode(&c);
        let counted = summary(&batch, |s| batch.get(s.attrs, "error") == Some(Value::Bool(true)));
        assert_eq!(counted, c.expected, "{}", c.name);
        let whole = c.decoded.get("batch").unwrap_or(&c.decoded);
        let mut want = whole["spans"].as_array().unwrap().clone();
        want.sort_by_key(|s| s["spanID"].to_string());
        for span in &mut want {
            // `event` comes first; a CHILD_OF to the parent is no link.
            for log in span["logs"].as_array_mut().unwrap() {
                log["fields"].as_array_mut().unwrap().sort_by_key(|f| f["key"] != "event");
            }
            let parent = span["parentSpanID"].clone();
            let same = |r: &Json| r["refType"] == "CHILD_OF" && r["spanID"] == parent;
            span["references"].as_array_mut().unwrap().retain(|r| !same(r));
        }
        assert_eq!(render(&batch), want, "{}", c.name);
        let renamed = |key: &str| match key {
            "hostname" => "host.name".to_owned(),
            "jaeger.version" => "opencensus.exporterversion".to_owned(),
            other => other.to_owned(),
        };
        let process = &whole["process"];
        let mut want_process = process["tags"].as_array().unwrap().clone();
        for tag in &mut want_process {
            tag["key"] = renamed(tag["key"].as_str().unwrap()).into();
        }
        assert_eq!(render_tags(&batch, batch.resources[0].attrs), want_process, "{}", c.name);
        assert_eq!(process["serviceName"], batch.str(batch.spans[0].service));

        for again in through_every_wire(&batch) {
            assert_eq!(render(&again), want, "{}", c.name);
            assert_eq!(render_tags(&again, again.resources[0].attrs), want_process, "{}", c.name);
        }
    }
}

fn through_every_wire(batch: &Batch) -> Vec<Batch> {
    let one = |mut bodies: Vec<Vec<u8>>| {
        assert_eq!(bodies.len(), 1);
        bytes(&bodies.remove(0))
    };
    let mut proto = Vec::new();
    jaeger::encode_proto(batch, &mut proto);
    [
        jaeger::decode_thrift_http(one(jaeger::encode_thrift(batch)), intake()),
        jaeger::decode_udp_compact(one(jaeger::encode_emit_batch(batch, Encoding::Compact)), intake()),
        jaeger::decode_udp_binary(one(jaeger::encode_emit_batch(batch, Encoding::Binary)), intake()),
        jaeger::decode_grpc(proto.into(), intake()),
    ]
    .map(|d| d.unwrap().batch)
    .into()
}

/// References as kind (1 is FOLLOWS_FROM), low half of the trace, span.
fn span_with(parent: u64, references: &[(i32, u64, u64)]) -> Batch {
    let mut out = Vec::new();
    let mut w = Writer::new(&mut out, Encoding::Binary);
    w.begin();
    w.structure(1);
    w.string(1, b"svc");
    w.stop();
    w.structs(2, 1);
    w.begin();
    w.i64(1, 7);
    w.i64(2, 0);
    w.i64(3, 9);
    w.i64(4, parent as i64);
    w.string(5, b"op");
    w.structs(6, references.len());
    for (kind, trace, span) in references {
        w.begin();
        w.i32(1, *kind);
        w.i64(2, *trace as i64);
        w.i64(3, 0);
        w.i64(4, *span as i64);
        w.stop();
    }
    w.i32(7, 3);
    w.i64(8, 5);
    w.i64(9, 6);
    w.stop();
    w.stop();
    jaeger::decode_thrift_http(out.into(), intake()).unwrap().batch
}

#[test]
fn the_parent_is_found_among_the_references() {
    let follows = |b: &Batch| -> Vec<(u64, bool)> {
        let kind =
            |l: &spanloom_model::Link| b.get_str(l.attrs, "opentracing.ref_type") == Some("follows_from");
        b.span_links(&b.spans[0]).iter().map(|l| (l.span_id.0, kind(l))).collect()
    };
    for (parent, references, want, links) in [
        (0, vec![], 0, vec![]),
        (1, vec![], 1, vec![]),
        (1, vec![(0, 7, 1)], 1, vec![]),
        (0, vec![(0, 7, 1)], 1, vec![]),
        (0, vec![(1, 7, 1)], 1, vec![(1, true)]),
        (1, vec![(1, 7, 1)], 1, vec![(1, true)]),
        (0, vec![(1, 7, 2), (0, 7, 1)], 1, vec![(2, true)]),
        (0, vec![(1, 8, 2), (0, 8, 3)], 0, vec![(2, true), (3, false)]),
        (0, vec![(0, 7, 1), (1, 8, 2), (0, 8, 3)], 1, vec![(2, true), (3, false)]),
        (0, vec![(0, 7, 1), (0, 7, 2)], 1, vec![(2, false)]),
    ] {
        let batch = span_with(parent, &references);
        assert_eq!(batch.spans[0].parent_id, SpanId(want), "{parent} {references:?}");
        assert_eq!(follows(&batch), links, "{parent} {references:?}");
        for again in through_every_wire(&batch) {
            assert_eq!(again.spans[0].parent_id, SpanId(want), "{parent} {references:?}");
            assert_eq!(follows(&again), links, "{parent} {references:?}");
        }
    }
    assert!(span_with(0, &[]).spans[0].flags & flags::DEBUG != 0);
}

#[test]
fn jaeger_spans_are_seen_by_otlp_and_zipkin() {
    let batch = span_with(0, &[(0, 7, 1), (1, 8, 2), (0, 8, 3)]);
    let out = to_otlp_json(&batch);
    let span = &out["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!(span["parentSpanId"], "0000000000000001");
    let kind = |t: &str| json!([{"key": "opentracing.ref_type", "value": {"stringValue": t}}]);
    assert_eq!(
        span["links"],
        json!([
            {"traceId": "00000000000000000000000000000008", "spanId": "0000000000000002", "attributes": kind("follows_from")},
            {"traceId": "00000000000000000000000000000008", "spanId": "0000000000000003", "attributes": kind("child_of")},
        ])
    );
    assert_eq!(out["resourceSpans"][0]["resource"]["attributes"][0]["value"]["stringValue"], "svc");
    let zipkin = to_zipkin_json(&batch);
    assert_eq!(zipkin[0]["debug"], true);
    assert_eq!(zipkin[0]["localEndpoint"], json!({"serviceName": "svc"}));
}

#[test]
fn otlp_spans_are_seen_by_jaeger_as_the_table_says() {
    let vector = read_json(&fixtures().join("vectors/query/q14-otlp-to-all.json"));
    let batch = otlp_json(&vector["ingest"][0]["body"]);
    let back = &through_every_wire(&batch)[3];
    let span = &back.spans[0];
    let keys: Vec<&str> = back.attrs(span.attrs).iter().map(|a| back.str(a.key)).collect();
    assert_eq!(
        keys,
        [
            "otel.scope.name",
            "otel.scope.version",
            "http.response.status_code",
            "ratio",
            "ok",
            "tags",
            "span.kind",
            "otel.status_code",
            "error",
            "otel.status_description",
            "w3c.tracestate"
        ]
    );
    assert_eq!((span.status, back.str(span.status_message)), (Status::Error, "boom"));
    assert_eq!(back.str(span.trace_state), "dd=s:1");
    // And in OTLP again nothing is said twice.
    let out = to_otlp_json(back);
    let attributes = out["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"].as_array().unwrap();
    let keys: Vec<&str> = attributes.iter().map(|a| a["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["http.response.status_code", "ratio", "ok", "tags"]);
    assert_eq!(out["resourceSpans"][0]["scopeSpans"][0]["scope"], json!({"name": "lib.x", "version": "1.2"}));
}

#[test]
fn the_status_is_read_from_tags_in_order() {
    let status = |tags: &Json| {
        let list: Vec<Json> = tags.as_array().unwrap().clone();
        let mut out = Vec::new();
        let mut w = Writer::new(&mut out, Encoding::Compact);
        w.oneway("emitBatch");
        w.begin();
        w.structure(1);
        w.structure(1);
        w.string(1, b"s");
        w.stop();
        w.structs(2, 1);
        w.begin();
        w.i64(1, 1);
        w.i64(3, 2);
        w.structs(10, list.len());
        for tag in &list {
            w.begin();
            w.string(1, tag[0].as_str().unwrap().as_bytes());
            match &tag[1] {
                Json::Bool(b) => {
                    w.i32(2, 2);
                    w.bool(5, *b);
                }
                Json::Number(n) => {
                    w.i32(2, 3);
                    w.i64(6, n.as_i64().unwrap());
                }
                text => {
                    w.i32(2, 0);
                    w.string(3, text.as_str().unwrap().as_bytes());
                }
            }
            w.stop();
        }
        w.stop();
        w.stop();
        w.stop();
        jaeger::decode_udp_compact(out.into(), intake()).unwrap().batch.spans[0].status
    };
    for (tags, want) in [
        (json!([]), Status::Unset),
        (json!([["error", true]]), Status::Error),
        (json!([["error", false]]), Status::Unset),
        (json!([["error", false], ["otel.status_code", "ERROR"]]), Status::Error),
        (json!([["otel.status_code", "OK"], ["http.status_code", 500]]), Status::Ok),
        (json!([["http.status_code", 500]]), Status::Error),
        (json!([["http.status_code", "503"]]), Status::Error),
        (json!([["http.status_code", 404]]), Status::Unset),
        (json!([["http.status_code", 404], ["span.kind", "client"]]), Status::Error),
        (json!([["http.status_code", 404], ["span.kind", "server"]]), Status::Unset),
    ] {
        assert_eq!(status(&tags), want, "{tags}");
    }
}

#[test]
fn spans_without_ids_are_left_out() {
    let mut batch = span_with(0, &[]);
    batch.spans[0].span_id = SpanId(0);
    let decoded = jaeger::decode_thrift_http(bytes(&jaeger::encode_thrift(&batch)[0]), intake()).unwrap();
    assert_eq!((decoded.rejected, decoded.batch.spans.len()), (1, 0));
    assert_eq!(decoded.message, "1 spans without a valid span id were rejected");
}

#[test]
fn several_processes_of_one_grpc_request_stay_apart() {
    let a = span_with(0, &[]);
    let mut both = Batch::default();
    for service in ["a", "b", "a"] {
        both.import_span(&a, &a.spans[0], spanloom_model::NO_SCOPE);
        let last = both.spans.len() - 1;
        both.spans[last].service = both.arena.push(service);
        both.spans[last].span_id = SpanId(last as u64 + 1);
    }
    both.resources.push(spanloom_model::Resource::default());
    both.chunk_by_trace(0, 0);
    let mut proto = Vec::new();
    jaeger::encode_proto(&both, &mut proto);
    let decoded = jaeger::decode_grpc(proto.into(), intake()).unwrap().batch;
    check_invariants(&decoded);
    assert_eq!((decoded.resources.len(), decoded.chunks.len(), decoded.spans.len()), (2, 2, 3));
    let services: Vec<&str> = decoded.spans.iter().map(|s| decoded.str(s.service)).collect();
    assert_eq!(services, ["a", "a", "b"]);
    assert_eq!(jaeger::encode_thrift(&decoded).len(), 2);
}

#[test]
fn malformed_requests_are_refused() {
    let refused = |r: Result<jaeger::Decoded, DecodeError>| r.unwrap_err().to_string();
    for (body, text) in [
        (&b""[..], "unexpected end"),
        (b"\0", "required field process is not set"),
        (b"\x0c\0\x01\0\0", "required field spans is not set"),
        (b"\x0c\0\x01\x0b\0\x01\0\0\0\x09", "string is longer"),
        (b"\x0f\0\x02\x0b\0\0\0\x01\0\0\0\0", "expected a list of structs"),
    ] {
        let error = refused(jaeger::decode_thrift_http(bytes(body), intake()));
        assert!(error.contains(text), "{body:?}: {error}");
    }
    for body in [
        &b""[..],
        b"\x80\x01\0\x04\0\0\0\x0femitZipkinBatch\0\0\0\0\0",
        b"\x80\x02\0\x04",
        b"\x80\x01\0\x02\0\0\0\x09emitBatch\0\0\0\0\0",
    ] {
        refused(jaeger::decode_udp_binary(bytes(body), intake()));
    }
    for body in
        [&b""[..], b"\x81\x81\0\x09emitBatch\0", b"\x82\x82\0\x09emitBatch\0", b"\x82\x81\0\x09emitBatch\0"]
    {
        refused(jaeger::decode_udp_compact(bytes(body), intake()));
    }
    for body in [&b"\x0a\x02\x08\x01"[..], b"\x08\x01", b"\x0a\x15\x0a\x13\x0a\x11aaaaaaaaaaaaaaaaa"] {
        refused(jaeger::decode_grpc(bytes(body), intake()));
    }
    assert!(jaeger::decode_grpc(bytes(b""), intake()).unwrap().batch.spans.is_empty());
}
