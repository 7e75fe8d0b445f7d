//! Rules of OTLP that no captured payload shows.

use super::helpers::*;
use serde_json::{Value as Json, json};
use spanloom_codec::{DecodeError, otlp};
use spanloom_model::flags;

fn request(span: Json) -> Json {
    json!({"resourceSpans": [{"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "s"}}]},
        "scopeSpans": [{"scope": {"name": "lib"}, "spans": [span]}]}]})
}

fn span(extra: Json) -> Json {
    let mut span = json!({"traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331", "name": "n",
        "startTimeUnixNano": "1", "endTimeUnixNano": "5"});
    for (k, v) in extra.as_object().unwrap() {
        span[k] = v.clone();
    }
    span
}

fn decode(body: &str) -> Result<otlp::Decoded, DecodeError> {
    otlp::decode_json(bytes(body.as_bytes()), intake())
}

#[test]
fn spans_with_invalid_ids_are_left_out_and_the_rest_is_kept() {
    let mut body = request(span(json!({})));
    let spans = body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array_mut().unwrap();
    for (trace, id) in [
        ("", "b7ad6b7169203331"),
        ("00000000000000000000000000000000", "b7ad6b7169203331"),
        ("0af7651916cd43dd8448eb211c80319c", "0000000000000000"),
        ("0af7651916cd43dd8448eb211c80319c", ""),
        ("0af7651916cd43dd", "b7ad6b7169203331"),
        ("0af7651916cd43dd8448eb211c8031zz", "b7ad6b7169203331"),
    ] {
        spans.push(span(
            json!({"traceId": trace, "spanId": id, "attributes": [{"key": "a", "value": {"intValue": 1}}],
            "events": [{"name": "e"}], "links": [{}]}),
        ));
    }
    spans.push(span(
        json!({"spanId": "B7AD6B7169203332", "attributes": [{"key": "k", "value": {"boolValue": true}}]}),
    ));
    let decoded = decode(&body.to_string()).unwrap();
    assert_eq!(decoded.rejected, 6);
    assert_eq!(
        decoded.message,
        "4 spans without a valid trace id and 2 without a valid span id were rejected"
    );
    check_invariants(&decoded.batch);
    assert_eq!(decoded.batch.spans.len(), 2);
    assert!(decoded.batch.events.is_empty() && decoded.batch.links.is_empty());
    let out = to_otlp_json(&decoded.batch);
    let kept = &out["resourceSpans"][0]["scopeSpans"][0]["spans"][1];
    assert_eq!(kept["spanId"], "b7ad6b7169203332");
    assert_eq!(kept["attributes"], json!([{"key": "k", "value": {"boolValue": true}}]));
}

#[test]
fn every_field_survives_json_and_protobuf() {
    let attributes = json!([
        {"key": "s", "value": {"stringValue": ""}},
        {"key": "i", "value": {"intValue": "-9223372036854775808"}},
        {"key": "d", "value": {"doubleValue": 0.5}},
        {"key": "nan", "value": {"doubleValue": "NaN"}},
        {"key": "b", "value": {"boolValue": false}},
        {"key": "raw", "value": {"bytesValue": "AAEC/w=="}},
        {"key": "list", "value": {"arrayValue": {"values": [{"intValue": "1"}, {}, {"arrayValue": {"values": [{"stringValue": "x"}]}}]}}},
        {"key": "map", "value": {"kvlistValue": {"values": [
            {"key": "a", "value": {"kvlistValue": {"values": [{"key": "b", "value": {"intValue": "7"}}]}}},
            {"key": "c", "value": {"stringValue": "d"}}]}}},
        {"key": "none"},
    ]);
    let body = json!({"resourceSpans": [{
        "resource": {"attributes": attributes, "droppedAttributesCount": 1},
        "schemaUrl": "https://r",
        "scopeSpans": [{
            "scope": {"name": "lib", "version": "1", "attributes": attributes, "droppedAttributesCount": 2},
            "schemaUrl": "https://s",
            "spans": [{
                "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331",
                "parentSpanId": "00000000000000ff", "traceState": "a=1", "flags": 769, "name": "näme \"q\" \n",
                "kind": 5, "startTimeUnixNano": "1768471200000000001", "endTimeUnixNano": "1768471200000000002",
                "attributes": attributes, "droppedAttributesCount": 3,
                "events": [{"timeUnixNano": "9", "name": "e", "attributes": attributes, "droppedAttributesCount": 4}],
                "droppedEventsCount": 5,
                "links": [{"traceId": "11111111111111112222222222222222", "spanId": "3333333333333333", "traceState": "b=2",
                    "attributes": attributes, "droppedAttributesCount": 6, "flags": 257}],
                "droppedLinksCount": 7,
                "status": {"message": "m", "code": 2},
            }],
        }],
    }]});
    let batch = otlp_json(&body);
    assert_eq!(to_otlp_json(&batch), body);
    let again = otlp::decode_proto(to_otlp_proto(&batch), intake()).unwrap().batch;
    assert_eq!(to_otlp_json(&again), body);
}

#[test]
fn snake_case_numbers_and_enum_names_are_taken() {
    let body = r#"{"resource_spans":[{"scope_spans":[{"scope":null,"spans":[{
        "trace_id":"0AF7651916CD43DD8448EB211C80319C","span_id":"b7ad6b7169203331","parent_span_id":"0000000000000001",
        "start_time_unix_nano":1768471200000000001,"end_time_unix_nano":1.768471200000000002e18,"kind":"SPAN_KIND_CLIENT",
        "trace_state":"x=1","dropped_attributes_count":"3","status":{"code":"STATUS_CODE_ERROR"},"unknown":{"a":[1,{}]},
        "attributes":[{"key":"i","value":{"int_value":5}},{"key":"d","value":{"double_value":"1.5"}}],
        "events":null,"links":[{"trace_id":"11111111111111112222222222222222","span_id":"3333333333333333"}]}]}]}]}"#;
    let batch = decode(body).unwrap().batch;
    let out = to_otlp_json(&batch);
    let span = &out["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!(span["traceId"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(span["parentSpanId"], "0000000000000001");
    assert_eq!(span["startTimeUnixNano"], "1768471200000000001");
    assert_eq!(span["kind"], 3);
    assert_eq!(span["traceState"], "x=1");
    assert_eq!(span["droppedAttributesCount"], 3);
    assert_eq!(span["status"], json!({"code": 2}));
    assert_eq!(span["attributes"][0]["value"], json!({"intValue": "5"}));
    assert_eq!(span["attributes"][1]["value"], json!({"doubleValue": 1.5}));
    assert_eq!(span["links"][0]["spanId"], "3333333333333333");
    assert_eq!(out["resourceSpans"][0]["scopeSpans"][0]["scope"], json!({}));
}

#[test]
fn members_may_come_in_any_order() {
    let ordered = request(span(json!({"kind": 2})));
    let spans = ordered["resourceSpans"][0]["scopeSpans"][0]["spans"].to_string();
    let resource = ordered["resourceSpans"][0]["resource"].to_string();
    let body = format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":{spans},"schemaUrl":"u","scope":{{"name":"lib"}}}}],"resource":{resource}}}]}}"#
    );
    let batch = decode(&body).unwrap().batch;
    assert_eq!(batch.str(batch.spans[0].service), "s");
    assert_eq!(batch.str(batch.scopes[0].name), "lib");
    assert_eq!(batch.str(batch.scopes[0].schema_url), "u");
}

#[test]
fn unfinished_and_reversed_spans_keep_their_times() {
    let batch = otlp_json(&request(span(json!({"endTimeUnixNano": "0"}))));
    assert_eq!((batch.spans[0].duration, batch.spans[0].flags & flags::NO_DURATION != 0), (0, true));
    assert!(
        to_otlp_json(&batch)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
            .get("endTimeUnixNano")
            .is_none()
    );
    let batch = otlp_json(&request(span(json!({"startTimeUnixNano": "9"}))));
    assert_eq!(batch.spans[0].duration, -4);
    assert_eq!(to_otlp_json(&batch)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["endTimeUnixNano"], "5");
}

#[test]
fn malformed_json_requests_are_refused() {
    let long_list = format!("{{\"resourceSpans\":{}", "[".repeat(100_000));
    for body in [
        "",
        "[]",
        "null",
        "{\"resourceSpans\":{}}",
        "{\"resourceSpans\":[1]}",
        "{\"resourceSpans\":[]}}",
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"startTimeUnixNano":"x"}]}]}]}"#,
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"startTimeUnixNano":-1}]}]}]}"#,
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":[{"key":1}]}]}]}]}"#,
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":[{"key":"a","value":{"intValue":1.5}}]}]}]}]}"#,
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":[{"key":"a","value":{"intValue":"9223372036854775808"}}]}]}]}]}"#,
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":[{"key":"a","value":{"bytesValue":"!"}}]}]}]}]}"#,
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"flags":4294967296}]}]}]}"#,
        &long_list,
    ] {
        assert!(decode(body).is_err(), "{body:.80}");
    }
}

#[test]
fn malformed_protobuf_requests_are_refused() {
    for (body, text) in [
        (&b"\x0a\x05\x01"[..], "length exceeds"),
        (b"\x08\x01", "ExportTraceServiceRequest: field 1"),
        (b"\x0a\x02\x08\x01", "ResourceSpans: field 1"),
        (b"\x0a\x04\x12\x02\x10\x01", "ScopeSpans: field 2"),
        (b"\x0a\x06\x12\x04\x12\x02\x08\x01", "Span: field 1"),
        (b"\x0a\x08\x12\x06\x12\x04\x4a\x02\x08\x01", "KeyValue: field 1"),
    ] {
        let error = otlp::decode_proto(bytes(body), intake()).unwrap_err().to_string();
        assert!(error.contains(text), "{body:?}: {error}");
    }
}

#[test]
fn deeply_nested_values_are_refused() {
    // Lists in lists, by prefixing message heads from the inside out.
    let mut value: Vec<u8> = vec![];
    let wrap = |tag: u8, inner: &[u8]| {
        let mut out = vec![tag];
        let mut n = inner.len();
        while n >= 0x80 {
            out.push(n as u8 | 0x80);
            n >>= 7;
        }
        out.push(n as u8);
        out.extend_from_slice(inner);
        out
    };
    for _ in 0..200 {
        value = wrap(0x2a, &wrap(0x0a, &value));
    }
    let body = [0x12u8, 0x4a, 0x12, 0x12, 0x0a].iter().fold(value, |inner, tag| wrap(*tag, &inner));
    assert!(matches!(otlp::decode_proto(body.into(), intake()), Err(DecodeError::Limit(_))));
}

#[test]
fn a_body_of_the_shortest_messages_does_not_take_memory_without_bound() {
    let body = b"\x6a\x00".repeat(2_000_000);
    let wrap = |tag: u8, inner: &[u8]| {
        let mut out = vec![tag];
        let mut n = inner.len();
        while n >= 0x80 {
            out.push(n as u8 | 0x80);
            n >>= 7;
        }
        out.push(n as u8);
        out.extend_from_slice(inner);
        out
    };
    let body = [0x12u8, 0x12, 0x0a].iter().fold(body, |inner, tag| wrap(*tag, &inner));
    assert!(matches!(otlp::decode_proto(body.into(), intake()), Err(DecodeError::Limit(_))));
}

#[test]
fn one_resource_of_two_chunks_goes_out_once() {
    let mut body = request(span(json!({})));
    let second = body["resourceSpans"][0].clone();
    body["resourceSpans"].as_array_mut().unwrap().push(second);
    let batch = otlp_json(&body);
    assert_eq!(batch.resources.len(), 2);
    let out = to_otlp_json(&batch);
    assert_eq!(out["resourceSpans"].as_array().unwrap().len(), 1);
    assert_eq!(out["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().len(), 2);
}

#[test]
fn tempos_json_has_base64_ids_and_enum_names() {
    let batch = otlp_json(&request(span(json!({"kind": 2, "status": {"code": 2}}))));
    let mut out = Vec::new();
    otlp::encode_json_with(&batch, otlp::JsonStyle::Proto3, &mut out);
    let out: Json = serde_json::from_slice(&out).unwrap();
    let span = &out[0]["scopeSpans"][0]["spans"][0];
    assert_eq!(span["traceId"], "CvdlGRbNQ92ESOshHIAxnA==");
    assert_eq!(span["spanId"], "t61rcWkgMzE=");
    assert_eq!(span["kind"], "SPAN_KIND_SERVER");
    assert_eq!(span["status"]["code"], "STATUS_CODE_ERROR");
}
