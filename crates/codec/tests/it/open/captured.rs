//! Requests recorded from real clients against the renderings of independent
//! decoders.

use super::helpers::*;
use serde_json::{Value as Json, json};
use spanloom_codec::{otlp, zipkin};
use spanloom_model::{Batch, SpanId, Status};

fn decode_otlp(c: &Captured) -> Batch {
    let decode = if c.format == "otlp-json" { otlp::decode_json } else { otlp::decode_proto };
    let decoded = decode(c.body.clone(), intake()).unwrap_or_else(|e| panic!("{}: {e}", c.name));
    assert_eq!((decoded.rejected, decoded.message.as_str()), (0, ""), "{}", c.name);
    check_invariants(&decoded.batch);
    decoded.batch
}

#[test]
fn otlp_requests_go_out_as_they_came() {
    for c in captured("otlp") {
        let batch = decode_otlp(&c);
        let mut counted = summary(&batch, |s| s.status == Status::Error);
        if c.expected.get("links").is_some() {
            counted["links"] = batch.links.len().into();
            counted["events"] = batch.events.len().into();
        }
        if c.expected["by_trace"].get("$omitted").is_some() {
            counted["by_trace"] = c.expected["by_trace"].clone();
        }
        assert_eq!(counted, c.expected, "{}", c.name);
        let want = otlp_spans(&c.decoded);
        assert_eq!(otlp_spans(&to_otlp_json(&batch)), want, "{}", c.name);
        let again = otlp::decode_proto(to_otlp_proto(&batch), intake()).unwrap().batch;
        assert_eq!(otlp_spans(&to_otlp_json(&again)), want, "{}", c.name);
    }
}

#[test]
fn envoys_otlp_requests_go_out_as_they_came() {
    for name in ["otlp-grpc-1", "otlp-http-1"] {
        let dir = fixtures().join("envoy");
        let mut body = bytes(&read(&dir.join(format!("{name}.body"))));
        if name.contains("grpc") {
            body = body.slice(5..);
        }
        let batch = otlp::decode_proto(body, intake()).unwrap().batch;
        let mut want = read_json(&dir.join(format!("{name}.json")))["decoded"].clone();
        ids_to_hex(&mut want);
        let mut got = otlp_spans(&to_otlp_json(&batch));
        for span in &mut got {
            // The rendering is older than the field.
            let flags = span.as_object_mut().unwrap().remove("flags").unwrap();
            assert!(flags == 257 || flags == 769, "{flags}");
        }
        assert_eq!(got, otlp_spans(&want), "{name}");
    }
}

/// Generic protobuf JSON has ids in base64; OTLP's has digits.
fn ids_to_hex(value: &mut Json) {
    use base64::Engine;
    match value {
        Json::Object(map) => {
            for (key, v) in map {
                if let ("traceId" | "spanId" | "parentSpanId", Some(text)) = (key.as_str(), v.as_str()) {
                    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
                    *v = bytes.iter().map(|b| format!("{b:02x}")).collect::<String>().into();
                } else {
                    ids_to_hex(v);
                }
            }
        }
        Json::Array(list) => list.iter_mut().for_each(ids_to_hex),
        _ => {}
    }
}

/// What Zipkin itself makes of a span: lower-case names, padded ids, no
/// defaults, annotations by time.
fn normalised(span: &Json) -> Json {
    let mut span = span.clone();
    for key in ["name"] {
        if let Some(name) = span[key].as_str() {
            span[key] = name.to_lowercase().into();
        }
    }
    for end in ["localEndpoint", "remoteEndpoint"] {
        let Some(map) = span[end].as_object_mut() else { continue };
        if let Some(name) = map.get("serviceName").and_then(Json::as_str) {
            map.insert("serviceName".into(), name.to_lowercase().into());
        }
        if let Some(ip) = map.get("ipv4").and_then(Json::as_str).filter(|ip| !ip.contains('.')) {
            use base64::Engine;
            let bytes = base64::engine::general_purpose::STANDARD.decode(ip).unwrap();
            let ip = std::net::Ipv4Addr::from(<[u8; 4]>::try_from(bytes).unwrap());
            map.insert("ipv4".into(), ip.to_string().into());
        }
        map.retain(|_, v| *v != json!(0) && *v != json!(""));
    }
    if let Some(list) = span["annotations"].as_array_mut() {
        for a in &mut *list {
            if let Some(n) = a["timestamp"].as_str().and_then(|s| s.parse::<i64>().ok()) {
                a["timestamp"] = n.into();
            }
        }
        list.sort_by_key(|a| (a["timestamp"].as_u64(), a["value"].to_string()));
    }
    // Microseconds; the proto rendering has them in quotes.
    for key in ["timestamp", "duration"] {
        if let Some(n) = span[key].as_str().and_then(|s| s.parse::<i64>().ok()) {
            span[key] = n.into();
        }
    }
    let map = span.as_object_mut().unwrap();
    if map.get("kind").is_some_and(|k| k == "CLIENT") {
        map.remove("shared");
    }
    map.retain(|_, v| !v.is_null() && *v != json!({}) && *v != json!([]) && *v != json!(false));
    span
}

fn sorted(spans: impl IntoIterator<Item = Json>) -> Vec<Json> {
    let mut spans: Vec<Json> = spans.into_iter().collect();
    spans.sort_by_key(|s| [s["traceId"].to_string(), s["id"].to_string(), s["kind"].to_string()]);
    spans
}

fn zipkin_goes_out_as_it_came(batch: &Batch, decoded: &Json, name: &str) {
    check_invariants(batch);
    let want = sorted(decoded.as_array().unwrap().iter().map(normalised));
    let json = to_zipkin_json(batch);
    assert_eq!(sorted(json.as_array().unwrap().clone()), want, "{name}");
    let mut proto = Vec::new();
    zipkin::encode_proto(batch, &mut proto);
    let again = zipkin::decode_proto(proto.into(), intake()).unwrap();
    let json = to_zipkin_json(&again);
    assert_eq!(sorted(json.as_array().unwrap().clone()), want, "{name} through protobuf");
}

#[test]
fn zipkin_v2_requests_go_out_as_they_came() {
    for c in captured("zipkin-v2") {
        let decode = if c.format.contains("proto") { zipkin::decode_proto } else { zipkin::decode_json_v2 };
        let batch = decode(c.body.clone(), intake()).unwrap_or_else(|e| panic!("{}: {e}", c.name));
        let counted = summary(&batch, |s| batch.get(s.attrs, "error").is_some());
        assert_eq!(counted, c.expected, "{}", c.name);
        zipkin_goes_out_as_it_came(&batch, &c.decoded, &c.name);
    }
}

#[test]
fn envoys_zipkin_requests_go_out_as_they_came() {
    for name in ["zipkin-json-chain", "zipkin-json-root"] {
        let dir = fixtures().join("envoy");
        let body = bytes(&read(&dir.join(format!("{name}.body"))));
        let batch = zipkin::decode_json_v2(body.clone(), intake()).unwrap();
        zipkin_goes_out_as_it_came(&batch, &serde_json::from_slice(&body).unwrap(), name);
    }
    let body = read(&fixtures().join("envoy/zipkin-proto-128-gateway.body"));
    let batch = zipkin::decode_proto(bytes(&body), intake()).unwrap();
    check_invariants(&batch);
    assert!(batch.spans.iter().all(|s| s.trace_id.high() != 0 && s.start > 0 && s.duration > 0));
    assert_eq!(batch.spans.len(), 2);
}

#[test]
fn zipkin_v1_thrift_requests_become_v2() {
    for c in captured("zipkin-v1-thrift") {
        let batch =
            zipkin::decode_thrift(c.body.clone(), intake()).unwrap_or_else(|e| panic!("{}: {e}", c.name));
        // The rendering shows byte strings as Python prints them.
        let mut decoded = c.decoded.clone();
        for span in decoded.as_array_mut().unwrap() {
            if let Some(tags) = span["tags"].as_object_mut() {
                for v in tags.values_mut() {
                    *v = python_bytes(v.as_str().unwrap()).into();
                }
            }
            // It takes the duration from the annotations; the span's own counts.
            let id = SpanId::parse_hex(span["id"].as_str().unwrap()).unwrap();
            let own = batch.spans.iter().find(|s| s.span_id == id).unwrap().duration / 1000;
            assert!((own - span["duration"].as_i64().unwrap()).abs() <= 1, "{}: {own}", c.name);
            span["duration"] = own.into();
            // It leaves the annotation `ms` where the conversion makes a kind of it.
            if span["annotations"][0]["value"] == "ms" {
                span["kind"] = "PRODUCER".into();
                span["annotations"] = json!([]);
            }
        }
        zipkin_goes_out_as_it_came(&batch, &decoded, &c.name);
    }
}

/// The text in `b'...'`.
fn python_bytes(text: &str) -> String {
    let Some(mut rest) = text.strip_prefix("b'").and_then(|t| t.strip_suffix('\'')) else {
        return text.into();
    };
    let mut out = Vec::new();
    while let Some(c) = rest.bytes().next() {
        if rest.starts_with("\\x") {
            out.push(u8::from_str_radix(&rest[2..4], 16).unwrap());
            rest = &rest[4..];
        } else {
            out.push(c);
            rest = &rest[1..];
        }
    }
    String::from_utf8(out).unwrap()
}
