//! What came in as a format goes out as it came, for any document.

use super::helpers::*;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};
use spanloom_codec::thrift::Encoding;
use spanloom_codec::{jaeger, otlp, zipkin};
use spanloom_model::Batch;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-z.]{1,8}",
        1 => any::<String>(),
        1 => Just("x|{\"a\":1}|0".to_owned()),
    ]
}

fn filled() -> impl Strategy<Value = String> {
    text().prop_filter("not empty", |t| !t.is_empty())
}

fn hex(digits: usize) -> impl Strategy<Value = String> {
    any::<u128>().prop_map(move |n| format!("{:032x}", n | 1)[32 - digits..].to_owned())
}

/// Keys that mean something to one of the formats, and others.
fn key() -> impl Strategy<Value = String> {
    const KNOWN: [&str; 22] = [
        "error",
        "span.kind",
        "otel.status_code",
        "otel.status_description",
        "w3c.tracestate",
        "otel.scope.name",
        "otel.library.version",
        "otlp.link.0",
        "peer.service",
        "net.peer.ip",
        "net.peer.port",
        "net.host.ip",
        "net.host.ipv6",
        "net.host.port",
        "http.status_code",
        "service.name",
        "resource.name",
        "span.type",
        "event",
        "opentracing.ref_type",
        "zipkin.shared",
        "hostname",
    ];
    prop_oneof![1 => prop::sample::select(&KNOWN[..]).prop_map(str::to_owned), 2 => text()]
}

fn value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        text().prop_map(|t| json!({"stringValue": t})),
        prop::sample::select(vec!["true", "internal", "OK", "ERROR", "10.0.0.1", "::1", "1|2||{}|0"])
            .prop_map(|t| json!({"stringValue": t})),
        any::<bool>().prop_map(|b| json!({"boolValue": b})),
        any::<i64>().prop_map(|n| json!({"intValue": n.to_string()})),
        // Numbers that serde_json reads exactly without its slower mode.
        any::<i32>().prop_map(|n| json!({"doubleValue": f64::from(n) / 64.0})),
        Just(json!({"bytesValue": "AAEC/w=="})),
        Just(json!({})),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 1..3).prop_map(|l| json!({"arrayValue": {"values": l}})),
            vec((key(), inner), 1..3).prop_map(|l| json!({"kvlistValue": {"values": attributes(l)}})),
        ]
    })
}

fn attributes(list: Vec<(String, Json)>) -> Json {
    list.into_iter()
        .map(|(k, v)| if v == json!({}) { json!({"key": k}) } else { json!({"key": k, "value": v}) })
        .collect()
}

fn attrs() -> impl Strategy<Value = Json> {
    vec((key(), value()), 0..5).prop_map(attributes)
}

/// Leaves members with their default out, as our encoder does.
fn object(members: Vec<(&str, Json)>) -> Json {
    let default = |v: &Json| *v == json!("") || *v == json!(0) || *v == json!([]) || *v == json!("0");
    Json::Object(members.into_iter().filter(|(_, v)| !default(v)).map(|(k, v)| (k.to_owned(), v)).collect())
}

fn event() -> impl Strategy<Value = Json> {
    (any::<u64>(), text(), attrs(), 0u32..3).prop_map(|(t, n, a, d)| {
        object(vec![
            ("timeUnixNano", json!(t.to_string())),
            ("name", json!(n)),
            ("attributes", a),
            ("droppedAttributesCount", json!(d)),
        ])
    })
}

fn link() -> impl Strategy<Value = Json> {
    (hex(32), hex(16), text(), attrs(), 0u32..3, any::<u32>()).prop_map(|(t, s, state, a, d, f)| {
        object(vec![
            ("traceId", json!(t)),
            ("spanId", json!(s)),
            ("traceState", json!(state)),
            ("attributes", a),
            ("droppedAttributesCount", json!(d)),
            ("flags", json!(f)),
        ])
    })
}

fn span() -> impl Strategy<Value = Json> {
    let ids = (hex(32), hex(16), prop::option::of(hex(16)));
    let times = (1u64..1 << 62, 0u64..1 << 40);
    let rest = (text(), 0u8..6, text(), any::<u32>(), 0u8..3, text());
    (ids, times, rest, attrs(), vec(event(), 0..3), vec(link(), 0..3), 0u32..3).prop_map(
        |(
            (trace, id, parent),
            (start, length),
            (name, kind, state, flags, code, message),
            a,
            events,
            links,
            d,
        )| {
            object(vec![
                ("traceId", json!(trace)),
                ("spanId", json!(id)),
                ("parentSpanId", json!(parent.unwrap_or_default())),
                ("traceState", json!(state)),
                ("flags", json!(flags)),
                ("name", json!(name)),
                ("kind", json!(kind)),
                ("startTimeUnixNano", json!(start.to_string())),
                ("endTimeUnixNano", json!((start + length).to_string())),
                ("attributes", a),
                ("droppedAttributesCount", json!(d)),
                ("events", json!(events)),
                ("droppedEventsCount", json!(d)),
                ("links", json!(links)),
                ("droppedLinksCount", json!(d)),
                ("status", object(vec![("message", json!(message)), ("code", json!(code))])),
            ])
        },
    )
}

fn scope() -> impl Strategy<Value = Json> {
    let scope = (text(), text(), attrs(), 0u32..2).prop_map(|(n, v, a, d)| {
        object(vec![
            ("name", json!(n)),
            ("version", json!(v)),
            ("attributes", a),
            ("droppedAttributesCount", json!(d)),
        ])
    });
    // One span, so that the order of spans is not in question.
    (scope, text(), span()).prop_map(|(scope, url, span)| {
        let mut out = object(vec![("spans", json!([span])), ("schemaUrl", json!(url))]);
        out["scope"] = scope;
        out
    })
}

fn document() -> impl Strategy<Value = Json> {
    (attrs(), 0u32..2, text(), vec(scope(), 1..3)).prop_map(|(a, d, url, scopes)| {
        let mut resource = object(vec![("droppedAttributesCount", json!(d))]);
        resource["attributes"] = a;
        let mut rs = object(vec![("scopeSpans", json!(scopes)), ("schemaUrl", json!(url))]);
        rs["resource"] = resource;
        json!({"resourceSpans": [rs]})
    })
}

fn tags() -> impl Strategy<Value = Map<String, Json>> {
    let known = prop::sample::select(vec!["true", "internal", "OK", "ERROR", "10.0.0.1", "::1", "1|2||{}|0"]);
    btree_map(key(), prop_oneof![text(), known.prop_map(str::to_owned)], 0..8)
        .prop_map(|m| m.into_iter().map(|(k, v)| (k, Json::String(v))).collect())
}

fn zipkin_endpoint() -> impl Strategy<Value = Json> {
    let name = prop::option::of("[a-zä-]{1,6}");
    let v4 = prop::option::of(any::<u32>().prop_map(|n| std::net::Ipv4Addr::from(n).to_string()));
    let v6 = prop::option::of(any::<u128>().prop_map(|n| std::net::Ipv6Addr::from(n | 1 << 100).to_string()));
    (name, v4, v6, any::<u16>()).prop_map(|(name, v4, v6, port)| {
        let text = |t: Option<String>| json!(t.unwrap_or_default());
        object(vec![
            ("serviceName", text(name)),
            ("ipv4", text(v4)),
            ("ipv6", text(v6)),
            ("port", json!(port)),
        ])
    })
}

fn zipkin_span() -> impl Strategy<Value = Json> {
    let ids = (
        prop_oneof![hex(16), hex(32).prop_filter("128 bit", |h| !h.starts_with("0000000000000000"))],
        hex(16),
    );
    let kind = prop::sample::select(vec!["", "CLIENT", "SERVER", "PRODUCER", "CONSUMER"]);
    let name = filled().prop_map(|n| n.to_lowercase());
    let annotations = vec((0u64..1 << 50, text()), 0..4).prop_map(|mut list| {
        list.sort();
        list.dedup();
        list.into_iter().map(|(t, v)| json!({"timestamp": t, "value": v})).collect::<Json>()
    });
    let times = (0u64..1 << 50, 0u64..1 << 40);
    let both = (zipkin_endpoint(), zipkin_endpoint());
    (ids, prop::option::of(hex(16)), kind, name, times, both, annotations, tags(), any::<[bool; 2]>())
        .prop_map(
            |(
                (trace, id),
                parent,
                kind,
                name,
                (start, length),
                (local, remote),
                annotations,
                tags,
                [debug, shared],
            )| {
                let mut span = object(vec![
                    ("traceId", json!(trace)),
                    ("id", json!(id)),
                    ("parentId", json!(parent.filter(|p| *p != id).unwrap_or_default())),
                    ("kind", json!(kind)),
                    ("name", json!(name)),
                    ("timestamp", json!(start)),
                    ("duration", json!(length)),
                    ("annotations", annotations),
                ]);
                for (key, end) in
                    [("localEndpoint", local), ("remoteEndpoint", remote), ("tags", Json::Object(tags))]
                {
                    if end != json!({}) {
                        span[key] = end;
                    }
                }
                for (key, on) in [("debug", debug), ("shared", shared && kind != "CLIENT")] {
                    if on {
                        span[key] = true.into();
                    }
                }
                span
            },
        )
}

fn through_jaeger(batch: &Batch) -> Vec<Batch> {
    let mut proto = Vec::new();
    jaeger::encode_proto(batch, &mut proto);
    let mut out = vec![jaeger::decode_grpc(proto.into(), intake()).unwrap().batch];
    for body in jaeger::encode_thrift(batch) {
        out.push(jaeger::decode_thrift_http(body.into(), intake()).unwrap().batch);
    }
    for body in jaeger::encode_emit_batch(batch, Encoding::Compact) {
        out.push(jaeger::decode_udp_compact(body.into(), intake()).unwrap().batch);
    }
    for body in jaeger::encode_emit_batch(batch, Encoding::Binary) {
        out.push(jaeger::decode_udp_binary(body.into(), intake()).unwrap().batch);
    }
    out
}

/// The Jaeger view of a batch, as the bytes of its gRPC message.
fn jaeger_bytes(batch: &Batch) -> Vec<u8> {
    let mut out = Vec::new();
    jaeger::encode_proto(batch, &mut out);
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn otlp_documents_go_out_as_they_came(document in document()) {
        let batch = otlp_json(&document);
        check_invariants(&batch);
        prop_assert_eq!(otlp_spans(&to_otlp_json(&batch)), otlp_spans(&document));
        let again = otlp::decode_proto(to_otlp_proto(&batch), intake()).unwrap().batch;
        prop_assert_eq!(to_otlp_json(&again), to_otlp_json(&batch));
    }

    #[test]
    fn zipkin_spans_go_out_as_they_came(span in zipkin_span()) {
        let batch = zipkin_json(&json!([span]).to_string()).unwrap();
        check_invariants(&batch);
        prop_assert_eq!(to_zipkin_json(&batch), json!([span]));
        let mut proto = Vec::new();
        zipkin::encode_proto(&batch, &mut proto);
        let again = zipkin::decode_proto(proto.into(), intake()).unwrap();
        prop_assert_eq!(to_zipkin_json(&again), json!([span]));
    }

    #[test]
    fn what_jaeger_made_of_a_span_goes_out_as_it_came(document in document()) {
        // The first way in loses what Jaeger cannot hold; after it nothing is lost.
        for first in through_jaeger(&otlp_json(&document)) {
            check_invariants(&first);
            let want = jaeger_bytes(&first);
            let again = jaeger::decode_grpc(want.clone().into(), intake()).unwrap().batch;
            prop_assert_eq!(jaeger_bytes(&again), want);
        }
    }

    #[test]
    fn zipkin_spans_keep_their_identity_through_otlp_and_jaeger(span in zipkin_span()) {
        let batch = zipkin_json(&json!([span]).to_string()).unwrap();
        let came = batch.spans[0];
        let otlp = otlp::decode_proto(to_otlp_proto(&batch), intake()).unwrap().batch;
        let mut others = through_jaeger(&batch);
        others.push(otlp);
        for other in &others {
            let went = other.spans[0];
            prop_assert_eq!((went.trace_id, went.span_id, went.parent_id), (came.trace_id, came.span_id, came.parent_id));
            prop_assert_eq!((went.kind, went.start, went.duration), (came.kind, came.start, came.duration));
            prop_assert_eq!(other.str(went.service), batch.str(came.service));
            prop_assert_eq!(other.str(went.name), batch.str(came.name));
            prop_assert_eq!(went.status, came.status);
        }
    }
}
