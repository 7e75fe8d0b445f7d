//! The JSON variant of v0.1–v0.4.

use super::helpers::*;
use spanloom_codec::datadog::Encoding;
use spanloom_codec::{DecodeError, datadog};
use spanloom_model::{Batch, Protocol, TraceId, Value};

fn json(protocol: Protocol, text: &str) -> Result<Batch, DecodeError> {
    decode_as(protocol, Encoding::Json, text.as_bytes())
}

fn v04(text: &str) -> Result<Batch, DecodeError> {
    json(Protocol::DatadogV04, text)
}

#[test]
fn every_version_and_content_type_gives_the_same_span() {
    let mut spans = Vec::new();
    let doc = read_json(&fixtures().join("golden-agent/own/json-v01-to-v04.json"));
    for (i, request) in doc["requests"].as_array().unwrap().iter().enumerate().take(8) {
        let path = request["path"].as_str().unwrap();
        let protocol =
            [Protocol::DatadogV01, Protocol::DatadogV02, Protocol::DatadogV03, Protocol::DatadogV04]
                .into_iter()
                .find(|p| path.contains(p.name().trim_start_matches("datadog_")))
                .unwrap();
        let encoding = match request["headers"].to_string() {
            h if h.contains("msgpack") => Encoding::Msgpack,
            h if h.contains("text/plain") => Encoding::JsonThenMsgpack,
            _ => Encoding::Json,
        };
        let body = read(&fixtures().join("golden-agent/own").join(request["body_file"].as_str().unwrap()));
        let got = decode_as(protocol, encoding, &body);
        if doc["responses"][i]["status"] == 400 {
            assert_eq!(got.unwrap_err().to_string(), "msgp: too few bytes left to read object");
            continue;
        }
        let b = got.unwrap();
        let mut span = render_span(&b, &b.spans[0]);
        span["trace_id"] = 0.into();
        spans.push(span);
    }
    assert_eq!(spans.len(), 7);
    assert!(spans.windows(2).all(|w| w[0] == w[1]), "{spans:#?}");
}

#[test]
fn flat_spans_are_grouped_by_trace() {
    let b = json(
        Protocol::DatadogV01,
        r#"[{"trace_id":1,"span_id":1},{"trace_id":2,"span_id":2},
            {"trace_id":1,"span_id":3,"meta":{"_dd.p.tid":"00000000000000ff"}}]"#,
    )
    .unwrap();
    assert_eq!(b.chunks.len(), 2);
    assert_eq!(b.chunks[0].trace_id, TraceId::from_halves(255, 1));
    assert_eq!(b.chunk_spans(&b.chunks[0]).iter().map(|s| s.span_id.0).collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn keys_match_in_any_case_and_null_says_nothing() {
    let b =
        v04(r#" [ [ {"Service":"Up","NAME":"n","\u0074ype":"t","trace_id":18446744073709551615,"span_id":1,
            "parent_id":null,"start":-5,"resource":null,"meta":{"a":null,"span.kind":"client"},"metrics":null,
            "zzz":[{"x":[1.5e3,true,false,null,"]}"]}]} , null ] , null ] trailing"#)
        .unwrap();
    let s = &b.spans[0];
    assert_eq!((b.str(s.service), b.str(s.name), b.str(s.span_type)), ("Up", "n", "t"));
    assert_eq!((s.trace_id.low(), s.start, s.kind.name()), (u64::MAX, -5, "client"));
    assert_eq!(b.get_str(s.attrs, "a"), Some(""));
    assert_eq!((b.chunks.len(), b.spans.len()), (2, 1));
    assert_eq!(v04("null").unwrap().chunks.len(), 0);
}

#[test]
fn ids_are_whole_numbers_of_their_range() {
    for bad in [
        r#"[[{"trace_id":"1"}]]"#,
        r#"[[{"trace_id":1.0}]]"#,
        r#"[[{"trace_id":1e3}]]"#,
        r#"[[{"trace_id":-1}]]"#,
        r#"[[{"trace_id":18446744073709551616}]]"#,
        r#"[[{"start":9223372036854775808}]]"#,
        r#"[[{"error":2147483648}]]"#,
        r#"[[{"error":true}]]"#,
        r#"[[{"meta":{"a":1}}]]"#,
        r#"[[{"metrics":{"a":"1"}}]]"#,
        r#"[[{"metrics":{"a":1e999}}]]"#,
        r#"[[{"meta_struct":{"a":"%%"}}]]"#,
        r#"[[{"span_events":[{"time_unix_nano":0.5}]}]]"#,
        r#"[[{"service":5}]]"#,
        r#"{"a":1}"#,
        r#"[1]"#,
        "[[01]]",
        r#"[["\x"]]"#,
        "[[\"\u{1}\"]]",
        "[[]",
        "} invalid json",
    ] {
        let e = v04(bad).unwrap_err();
        let want = if bad == "[[]" { "unexpected_eof" } else { "decoding_error" };
        assert_eq!(e.drop_reason(), want, "{bad}: {e}");
    }
    let e = v04(r#"[[{"trace_id":"1"}]]"#).unwrap_err();
    assert_eq!(
        e.to_string(),
        "json: cannot unmarshal string into Go struct field Span.trace_id of type uint64"
    );
}

#[test]
fn text_that_ends_early_is_an_unexpected_end_even_behind_a_wrong_type() {
    for text in ["", "  ", "[", "[[{", r#"[[{"service":5"#, r#"[[{"a"#, r#"[["\u00"#, "[[tru", "[[-", "[[1."]
    {
        assert_eq!(v04(text).unwrap_err(), DecodeError::UnexpectedEof, "{text}");
    }
    assert_eq!(v04("[[truu]]").unwrap_err().drop_reason(), "decoding_error");
    let deep = "[".repeat(1_000_000);
    assert!(matches!(v04(&deep), Err(DecodeError::Limit(_))));
}

#[test]
fn escapes_and_bytes_that_are_not_utf8_become_text() {
    let b = v04(r#"[[{"service":"a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\ud83dx\udc00"}]]"#).unwrap();
    assert_eq!(b.str(b.spans[0].service), "a\"\\/\u{8}\u{c}\n\r\té😀\u{fffd}x\u{fffd}");
    let b = decode_as(
        Protocol::DatadogV04,
        Encoding::Json,
        b"[[{\"service\":\"\xe2\x82\",\"name\":\"\\n\xff\xfe\"}]]",
    );
    let b = b.unwrap();
    assert_eq!(b.str(b.spans[0].service), "\u{fffd}\u{fffd}");
    assert_eq!(b.str(b.spans[0].name), "\n\u{fffd}\u{fffd}");
}

#[test]
fn links_events_and_struct_values_arrive() {
    let b = v04(
        r#"[[{"span_links":[{"trace_id":1,"trace_id_high":2,"span_id":3,"flags":2147483649,
              "attributes":{"k":"v"},"tracestate":"s"},null],
            "meta":{"a":"1"},
            "span_events":[{"time_unix_nano":5,"name":"e","attributes":{
              "s":{"type":0,"string_value":"x"},"b":{"type":1,"bool_value":true},"i":{"type":2,"int_value":-7},
              "d":{"type":3,"double_value":2.5},"n":null,"m":{"type":4},
              "l":{"type":4,"array_value":{"values":[{"string_value":"y"},null,{"type":2,"int_value":1}]}}}},null,
              {"time_unix_nano":1.79519e18}],
            "meta_struct":{"m":"AQI=","e":null}, "meta":{"a":"2","b":"3"}}]]"#,
    )
    .unwrap();
    let s = &b.spans[0];
    let links = b.span_links(s);
    assert_eq!(
        (links.len(), links[0].trace_id, links[0].flags),
        (2, TraceId::from_halves(2, 1), 0x8000_0001)
    );
    let events = b.span_events(s);
    assert_eq!((events.len(), events[1].time), (2, 1_795_190_000_000_000_000));
    assert_eq!(
        render_attrs(&b, events[0].attrs),
        serde_json::json!({"s": "x", "b": true, "i": -7, "d": 2.5, "l": ["y", 1]})
    );
    assert_eq!(b.attrs(s.attrs).len(), 4, "maps that come twice are merged");
    assert_eq!(b.get_str(s.attrs, "a"), Some("2"));
    assert!(matches!(b.get(s.attrs, "m"), Some(Value::Bytes(t)) if b.arena.bytes(t) == [1, 2]));
}

#[test]
fn msgpack_is_no_content_for_the_oldest_versions() {
    for protocol in [Protocol::DatadogV01, Protocol::DatadogV02] {
        let e = decode(protocol, b"\x90").unwrap_err();
        assert_eq!(e.to_string(), "unsupported media type: \"application/msgpack\"");
    }
    assert!(
        datadog::decode_traces(
            Protocol::OtlpJson,
            Encoding::Json,
            bytes::Bytes::new(),
            Default::default(),
            &META
        )
        .is_err()
    );
}
