//! Small bodies, each for one rule.

use super::helpers::*;
use spanloom_codec::DecodeError;
use spanloom_model::{PRIORITY_NONE, Protocol, SpanKind, Status, TraceId, Value};

const V04_EXAMPLE: &str = "91 91 89 a7 73657276696365 a3 776562 a4 6e616d65 ac 687474702e72657175657374
    a8 7265736f75726365 a5 474554202f a8 74726163655f6964 01 a7 7370616e5f6964 02
    a9 706172656e745f6964 00 a5 7374617274 cf 17979cfe362a0000 a8 6475726174696f6e ce 000f4240
    a5 6572726f72 00";
const V05_EXAMPLE: &str = "92 96 a0 a3776562 ac687474702e72657175657374 a5474554202f a3656e76 a470726f64
    91 91 9c 01 02 03 01 02 00 cf17979cfe362a0000 ce000f4240 00 81 04 05 80 00";
const V1_EXAMPLE: &str = "83 03 a2676f 07 a470726f64 0b 91
    84 01 01 06 c410 00000000000000000000000000000001 07 03 04 91
    88 01 a3776562 02 ac687474702e72657175657374 03 a5474554202f 04 02
    06 cf17979cfe362a0000 07 ce000f4240
    09 96 ab687474702e6d6574686f64 01 a3474554 a470656572 01 03
    0d 02";

#[test]
fn the_worked_examples_of_the_formats_decode_to_the_same_span() {
    for (protocol, text) in [
        (Protocol::DatadogV04, V04_EXAMPLE),
        (Protocol::DatadogV03, V04_EXAMPLE),
        (Protocol::DatadogV05, V05_EXAMPLE),
        (Protocol::DatadogV1, V1_EXAMPLE),
    ] {
        let b = decode(protocol, &hex(text)).unwrap();
        let s = &b.spans[0];
        assert_eq!((b.str(s.service), b.str(s.name), b.str(s.resource)), ("web", "http.request", "GET /"));
        assert_eq!((s.trace_id, s.span_id.0, s.parent_id.0), (TraceId(1), 2, 0));
        assert_eq!((s.start, s.duration, s.error), (1_700_000_000_000_000_000, 1_000_000, 0), "{protocol:?}");
        assert_eq!(b.intake.protocol, protocol);
    }
    let b = decode(Protocol::DatadogV05, &hex(V05_EXAMPLE)).unwrap();
    assert_eq!(b.get_str(b.spans[0].attrs, "env"), Some("prod"));
    assert_eq!(b.chunks[0].priority, PRIORITY_NONE);
}

#[test]
fn a_v1_payload_gives_sender_chunk_and_typed_attributes() {
    let b = decode(Protocol::DatadogV1, &hex(V1_EXAMPLE)).unwrap();
    let (r, c, s) = (&b.resources[0], &b.chunks[0], &b.spans[0]);
    assert_eq!((b.str(r.language_name), b.str(r.env)), ("go", "prod"));
    assert_eq!(b.str(r.container_id), "c1", "the request's, as the payload has none");
    assert_eq!((c.priority, c.sampling_mechanism, c.trace_id), (1, 3, TraceId(1)));
    assert_eq!(b.get_str(s.attrs, "http.method"), Some("GET"));
    assert_eq!(b.get_str(s.attrs, "peer"), Some("web"));
    assert_eq!(b.get_str(s.attrs, "env"), Some("prod"));
}

#[test]
fn every_kind_of_v1_value_arrives_and_unknown_keys_do_not_shift_the_table() {
    // Unknown payload key 0x50 holds the texts "x" (1) and "y" (2); nested
    // list and map; then references to both.
    let b = decode(
        Protocol::DatadogV1,
        &hex("82 50 92 a178 81 a179 05  0b 91 83 01 ff 06 c410 0102030405060708090a0b0c0d0e0f10 04 91 \
              85 04 01 01 02 08 c3 10 02 09 dc0018 \
              01 02 c3  a162 03 cb3ff8000000000000  a163 04 fc  a164 05 c4020102 \
              a165 06 94 01 01 06 92 04 05  a166 07 96 a167 01 02 a168 03 ca3fc00000 \
              a173 01 a0  a162 04 07"),
    )
    .unwrap();
    let s = &b.spans[0];
    assert_eq!(b.str(s.service), "y");
    assert_eq!((s.error, s.status, s.kind), (1, Status::Error, SpanKind::Server));
    assert_eq!(s.trace_id, TraceId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10));
    assert_eq!(b.chunks[0].priority, -1);
    assert_eq!(
        render_attrs(&b, s.attrs),
        serde_json::json!({"x": true, "b": 7, "c": -4, "d": {"bytes": [1, 2]}, "e": ["x", [5]],
                           "f": {"g": "y", "h": 1.5}, "s": "", "span.kind": "server"})
    );
}

#[test]
fn v1_texts_are_never_numbered_twice() {
    // Service "a" (1), name "a" again as a literal (still 1), resource "b" (2), type → 2.
    let b = decode(Protocol::DatadogV1, &hex("81 0b 91 81 04 91 84 01 a161 02 a161 03 a162 0a 02")).unwrap();
    assert_eq!(b.str(b.spans[0].span_type), "b");
    let e = decode(Protocol::DatadogV1, &hex("81 0b 91 81 04 91 82 01 a161 02 02")).unwrap_err();
    assert_eq!(e.to_string(), "Streaming string referenced an unseen string index 2");
}

#[test]
fn v1_faults_are_refused() {
    for (body, text) in [
        ("81 0a 94 a161 01 a162 00", "Invalid number of elements in an attribute list"),
        ("81 0a 93 a161 06 91 01", "Invalid number of elements in an array value"),
        ("81 0a 93 a161 08 01", "Unknown anyvalue type 8"),
        ("82 03 a161 01 91 a162", "string table after the first string"),
        ("81 0b c0", "msgp: attempted to decode type \"nil\" with method for \"array\""),
    ] {
        assert_eq!(decode(Protocol::DatadogV1, &hex(body)).unwrap_err().to_string(), text, "{body}");
    }
    let mut deep = hex("81 0a 93 a161");
    deep.extend([0x06, 0x92].repeat(100_000));
    assert!(matches!(decode(Protocol::DatadogV1, &deep), Err(DecodeError::Limit(_))));
    let b = decode(Protocol::DatadogV1, &hex("82 01 93 a161 a0 a162 07 02")).unwrap();
    assert_eq!(b.str(b.resources[0].env), "b", "empty texts of the classic table take no number");
}

#[test]
fn v05_faults_carry_the_text_clients_know() {
    for (body, text) in [
        ("92 91a0 91919c 0000090102 00 01 01 00 80 80 00", "dictionary index 9 out of range"),
        ("92 91a0 91919b 0000000102 00 01 01 00 80 80", "encoded span needs exactly 12 elements in array"),
        ("9190919d 00", "msgp: too few bytes left to read object"),
        ("919091919c 00000000000000000000000000", "dictionary index 0 out of range"),
        (
            "92 91a0 91919c 0000c00102 00 01 01 00 80 80 00",
            "msgp: attempted to decode type \"nil\" with method for \"uint\"",
        ),
        (
            "92 91a0 91919c 0000000102 00 01 01 00 c0 c0 00",
            "msgp: attempted to decode type \"nil\" with method for \"map\"",
        ),
        ("92 dd ffffffff", "too long payload"),
        ("92 91 a0 dd ffffffff", "too long payload"),
        ("", "msgp: too few bytes left to read object"),
        ("90", "msgp: too few bytes left to read object"),
    ] {
        assert_eq!(decode(Protocol::DatadogV05, &hex(body)).unwrap_err().to_string(), text, "{body}");
    }
    let short = decode(Protocol::DatadogV05, &hex("92 91 a5 6162636465")).unwrap_err();
    assert_eq!(short.drop_reason(), "msgp_short_bytes");
    for fine in ["929090", "9391a09001", "91 90 90"] {
        assert_eq!(decode(Protocol::DatadogV05, &hex(fine)).unwrap().spans.len(), 0);
    }
}

#[test]
fn v07_describes_its_sender_and_its_chunks() {
    let body = fixtures().join("golden-agent/own/bodies/v07-payload-00.bin");
    let b = decode(Protocol::DatadogV07, &read(&body)).unwrap();
    let r = &b.resources[0];
    assert_eq!((b.str(r.language_name), b.str(r.language_version)), ("java", "21"), "headers do not count");
    assert!(b.str(r.container_id).starts_with("3f1c0e2a9b8d"));
    assert!(b.chunks.iter().all(|c| c.priority != PRIORITY_NONE), "a missing priority is 0");
    assert!(b.chunks.iter().any(|c| !c.attrs.is_empty()));
    let b = decode(Protocol::DatadogV07, &hex("81 a6 6368756e6b73 92 c0 81 a5 7370616e73 91 c0")).unwrap();
    assert_eq!((b.chunks.len(), b.spans.len(), b.chunks[0].priority), (1, 0, 0));
}

#[test]
fn nil_elements_are_dropped_and_the_rest_is_kept() {
    let good = &hex(V04_EXAMPLE)[2..];
    for body in [[&hex("91 92 c0")[..], good].concat(), [&hex("91 92")[..], good, &[0xc0]].concat()] {
        let b = decode(Protocol::DatadogV04, &body).unwrap();
        assert_eq!(b.spans.len(), 1);
    }
    let e = decode(Protocol::DatadogV04, &hex("91 c0")).unwrap_err();
    assert_eq!(e.drop_reason(), "decoding_error");
    // Event attributes: nil, and a list whose array is nil or missing.
    let b = decode(
        Protocol::DatadogV04,
        &hex("91 91 81 ab 7370616e5f6576656e7473 92 c0 82 a4 6e616d65 a165 aa 61747472696275746573 84 \
              a161 c0  a162 82 a474797065 04 ab 61727261795f76616c7565 c0  a163 81 a474797065 04 \
              a164 82 a474797065 02 a9 696e745f76616c7565 07"),
    )
    .unwrap();
    let events = b.span_events(&b.spans[0]);
    assert_eq!((events.len(), b.str(events[0].name)), (1, "e"));
    assert_eq!(b.attrs(events[0].attrs).len(), 1);
    assert_eq!(b.get(events[0].attrs, "d"), Some(Value::Int(7)));
}

#[test]
fn the_last_of_two_equal_keys_wins_and_a_second_map_replaces_the_first() {
    let body = read(&fixtures().join("golden-agent/own/bodies/duplicate-and-unknown-keys-00.bin"));
    let b = decode(Protocol::DatadogV04, &body).unwrap();
    let s = &b.spans[0];
    assert_eq!(b.str(s.service), "second");
    assert_eq!(render_attrs(&b, s.attrs), serde_json::json!({"b": "3"}));
}

#[test]
fn duplicates_are_found_in_maps_of_any_size() {
    for n in [2u32, 50, 127, 128, 129, 500, 70_000] {
        let mut body = hex("91 91 81 a4 6d657461 df");
        body.extend((2 * n).to_be_bytes());
        for round in 0..2u8 {
            for i in 0..n {
                body.push(0xa8);
                body.extend(format!("{i:08}").bytes());
                body.extend([0xa1, b'0' + round]);
            }
        }
        let b = decode(Protocol::DatadogV04, &body).unwrap();
        let attrs = b.attrs(b.spans[0].attrs);
        assert_eq!(attrs.len(), n as usize);
        assert!(attrs.iter().all(|a| a.value.as_text().is_some_and(|t| b.str(t) == "1")), "{n}");
    }
}

#[test]
fn the_upper_id_half_reaches_every_span_of_the_payload_with_the_same_lower_half() {
    let span = |trace: u8, id: u8, tid: &str| {
        let mut s = hex("83 a8 74726163655f6964");
        s.push(trace);
        s.extend(hex("a7 7370616e5f6964"));
        s.push(id);
        s.extend(hex("a4 6d657461"));
        if tid.is_empty() {
            s.push(0x80);
        } else {
            s.extend(hex("81 a9 5f64642e702e746964"));
            s.push(0xa0 + tid.len() as u8);
            s.extend(tid.bytes());
        }
        s
    };
    let mut body = vec![0x95];
    for spans in [
        vec![span(1, 1, "")], // known from the next chunk
        vec![span(1, 2, ""), span(1, 3, "640cfd8d00000000"), span(1, 4, "")], // not on its first span
        vec![span(2, 5, "zz")], // not a number
        vec![span(1, 6, "1")], // its own counts
        vec![span(3, 7, "3"), span(1, 8, "")], // a foreign span
    ] {
        body.push(0x90 + spans.len() as u8);
        body.extend(spans.concat());
    }
    let b = decode(Protocol::DatadogV04, &body).unwrap();
    let known = TraceId::from_halves(0x640c_fd8d_0000_0000, 1);
    let ids: Vec<TraceId> = b.spans.iter().map(|s| s.trace_id).collect();
    let own = TraceId::from_halves(1, 1);
    assert_eq!(ids, [known, known, known, known, TraceId(2), own, TraceId::from_halves(3, 3), known]);
    assert_eq!(b.chunks[0].trace_id, known);
    assert_eq!(b.get_str(b.spans[2].attrs, "_dd.p.tid"), Some("640cfd8d00000000"), "stays an attribute");
}

#[test]
fn text_that_is_not_utf8_is_repaired_in_every_version() {
    let want = "caf\u{fffd} \u{fffd}\u{fffd}é \u{fffd}\u{fffd}\u{fffd}";
    for (i, protocol) in
        [Protocol::DatadogV04, Protocol::DatadogV05, Protocol::DatadogV07, Protocol::DatadogV1]
            .into_iter()
            .enumerate()
    {
        let body = read(&fixtures().join(format!("golden-agent/own/bodies/invalid-utf8-{i:02}.bin")));
        let b = decode(protocol, &body).unwrap();
        assert_eq!(b.str(b.spans[0].service), want, "{protocol:?}");
    }
}

#[test]
fn process_tags_come_from_the_payload_its_first_span_or_the_header() {
    use spanloom_codec::datadog::{Encoding, RequestMeta, decode_traces};
    let meta = RequestMeta { process_tags: "a:header", ..META };
    let go = |protocol, body: &[u8]| {
        let body = bytes::Bytes::copy_from_slice(body);
        let b = decode_traces(protocol, Encoding::Msgpack, body, Default::default(), &meta).unwrap();
        b.get_str(b.resources[0].attrs, "_dd.tags.process").unwrap().to_owned()
    };
    assert_eq!(go(Protocol::DatadogV04, &hex(V04_EXAMPLE)), "a:header");
    let span = hex("91 91 81 a4 6d657461 81 b0 5f64642e746167732e70726f63657373 a3 733a31");
    assert_eq!(go(Protocol::DatadogV04, &span), "s:1");
    let payload = hex("81 a4 74616773 81 b0 5f64642e746167732e70726f63657373 a3 703a31");
    assert_eq!(go(Protocol::DatadogV07, &payload), "p:1");
}

#[test]
fn typed_links_events_and_meta_struct_arrive() {
    let body = read(&fixtures().join("golden-agent/own/bodies/meta-struct-links-events-00.bin"));
    let b = decode(Protocol::DatadogV04, &body).unwrap();
    let s = &b.spans[0];
    let got = render_span(&b, s);
    assert_eq!(got["meta"]["events"], "[{\"name\":\"e\"}]", "JSON in tags is left alone");
    assert_eq!(got["span_links"][0]["flags"], 2_147_483_649u32);
    assert_eq!(got["span_links"][0]["trace_id_high"], 2);
    assert_eq!(got["span_links"].as_array().unwrap().len(), 3);
    assert_eq!(
        got["span_events"][0]["attributes"],
        serde_json::json!({"s": "x", "b": true, "i": -7, "d": 2.5, "a": ["y", 3, false, 1.25]})
    );
    assert_eq!(got["meta_struct"]["empty"], serde_json::json!([]));
    assert_eq!(got["meta_struct"].as_object().unwrap().len(), 3);
}

#[test]
fn whole_floating_point_event_times_are_taken() {
    let event = |time: &str| {
        hex(&format!("91 91 81 ab 7370616e5f6576656e7473 91 81 ae 74696d655f756e69785f6e616e6f {time}"))
    };
    let b = decode(Protocol::DatadogV04, &event("cb 43b8 e9cb cb2e 5560")).unwrap();
    assert!(b.events[0].time > 1 << 60);
    assert!(decode(Protocol::DatadogV04, &event("cb 3fe0 0000 0000 0000")).is_err());
    assert!(decode(Protocol::DatadogV04, &event("ff")).is_err());
}

#[test]
fn a_body_of_tiny_spans_is_refused_before_it_takes_much_memory() {
    // One byte each on the wire, 170 in memory.
    let mut body = vec![0xdd, 0, 0, 0, 8];
    for _ in 0..8 {
        body.extend([0xdd, 0, 7, 0x20, 0]);
        body.extend(vec![0x80; 0x72000]);
    }
    assert!(matches!(decode(Protocol::DatadogV04, &body), Err(DecodeError::Limit(_))));
}

#[test]
fn types_and_texts_of_event_attributes_are_strict() {
    let of = |attribute: &str| {
        let body = format!(
            "91 91 83 a8 74726163655f6964 01 a7 7370616e5f6964 02 ab 7370616e5f6576656e7473 \
             91 81 aa 61747472696275746573 81 a16b {attribute}"
        );
        decode(Protocol::DatadogV04, &hex(&body)).map(|b| b.attrs(b.events[0].attrs)[0].value)
    };
    assert!(matches!(of("82 a474797065 02 a9 696e745f76616c7565 05"), Ok(Value::Int(5))));
    // A type beyond 32 bits, and a text that came as bytes.
    assert!(of("81 a474797065 ce80000000").is_err());
    assert!(of("81 ac 737472696e675f76616c7565 c4 01 61").is_err());
    assert!(matches!(of("81 ac 737472696e675f76616c7565 a1 61"), Ok(Value::Str(_))));
    // A key that came as bytes.
    let key = "91 91 83 a8 74726163655f6964 01 a7 7370616e5f6964 02 ab 7370616e5f6576656e7473 \
               91 81 aa 61747472696275746573 81 c401 6b 80";
    assert!(decode(Protocol::DatadogV04, &hex(key)).is_err());
}

#[test]
fn the_last_list_of_chunks_of_a_payload_counts() {
    let chunk =
        |id: u8| format!("91 81 a5 7370616e73 91 82 a8 74726163655f6964 01 a7 7370616e5f6964 {id:02x}");
    let body = format!("82 a6 6368756e6b73 {} a6 6368756e6b73 {}", chunk(2), chunk(3));
    let b = decode(Protocol::DatadogV07, &hex(&body)).unwrap();
    assert_eq!((b.chunks.len(), b.spans.len(), b.spans[0].span_id.0), (1, 1, 3));
}
