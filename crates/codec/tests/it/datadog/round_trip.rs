//! Model → bytes → model.

use super::check::check;
use super::helpers::*;
use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::json;
use spanloom_codec::datadog::{encode_v04, encode_v05};
use spanloom_model::{
    Arena, Attr, Batch, Chunk, Event, Intake, Link, NO_SCOPE, Protocol, Range32, Resource, Span, SpanId,
    Status, TraceId, Value,
};
use std::collections::BTreeMap;

type Texts = BTreeMap<String, String>;

#[derive(Debug, Clone)]
enum Any {
    Str(String),
    Bool(bool),
    Int(i64),
    Double(f64),
    List(Vec<Any>),
}

#[derive(Debug, Clone)]
struct TestSpan {
    texts: [String; 4],
    ids: [u64; 2],
    times: [i64; 2],
    error: i32,
    meta: Texts,
    metrics: BTreeMap<String, f64>,
    bytes: BTreeMap<String, Vec<u8>>,
    links: Vec<(u128, u64, u32, String, Texts)>,
    events: Vec<(u64, String, BTreeMap<String, Any>)>,
}

fn text() -> impl Strategy<Value = String> {
    // Every length class of msgpack strings, ASCII and not.
    prop_oneof!["[ -~]{0,40}", ".{0,12}", "[a-zé]{28,36}", "x{250,260}"]
}

fn any() -> impl Strategy<Value = Any> {
    let scalar = || {
        prop_oneof![
            text().prop_map(Any::Str),
            any_of::<bool>().prop_map(Any::Bool),
            any_of::<i64>().prop_map(Any::Int),
            (-1e9..1e9f64).prop_map(Any::Double),
        ]
    };
    prop_oneof![scalar(), vec(scalar(), 0..4).prop_map(Any::List)]
}

fn any_of<T: Arbitrary>() -> impl Strategy<Value = T> {
    proptest::arbitrary::any::<T>()
}

fn span() -> impl Strategy<Value = TestSpan> {
    let texts = || proptest::collection::btree_map(text(), text(), 0..20);
    (
        [text(), text(), text(), text()],
        [any_of::<u64>(), any_of::<u64>()],
        [any_of::<i64>(), any_of::<i64>()],
        any_of::<i32>(),
        texts(),
        proptest::collection::btree_map(text(), -1e9..1e9f64, 0..5),
        proptest::collection::btree_map(text(), vec(any_of::<u8>(), 0..300), 0..3),
        vec((any_of::<u128>(), any_of::<u64>(), any_of::<u32>(), text(), texts()), 0..3),
        vec((any_of::<u64>(), text(), proptest::collection::btree_map(text(), any(), 0..4)), 0..3),
    )
        .prop_map(|(texts, ids, times, error, meta, metrics, bytes, links, events)| TestSpan {
            texts,
            ids,
            times,
            error,
            meta,
            metrics,
            bytes,
            links,
            events,
        })
}

fn put_any(b: &mut Batch, v: &Any) -> Value {
    match v {
        Any::Str(t) => Value::Str(b.arena.push(t)),
        Any::Bool(v) => Value::Bool(*v),
        Any::Int(v) => Value::Int(*v),
        Any::Double(v) => Value::Double(*v),
        Any::List(items) => {
            let items: Vec<Value> = items.iter().map(|v| put_any(b, v)).collect();
            let start = b.values.len();
            b.values.extend(items);
            Value::List(Range32::new(start, b.values.len()))
        }
    }
}

fn put_attrs(b: &mut Batch, attrs: Vec<(String, Value)>) -> Range32 {
    let start = b.attrs.len();
    for (key, value) in attrs {
        let key = b.arena.push(&key);
        b.attrs.push(Attr { key, value });
    }
    Range32::new(start, b.attrs.len())
}

fn put_span(b: &mut Batch, trace_id: TraceId, t: &TestSpan) {
    let mut attrs = Vec::new();
    attrs.extend(t.meta.iter().map(|(k, v)| (k.clone(), Value::Str(b.arena.push(v)))));
    attrs.extend(t.metrics.iter().map(|(k, v)| (k.clone(), Value::Double(*v))));
    attrs.extend(t.bytes.iter().map(|(k, v)| (k.clone(), Value::Bytes(b.arena.push_bytes(v)))));
    let attrs = put_attrs(b, attrs);
    let first_link = b.links.len();
    for (trace_id, span_id, flags, state, texts) in &t.links {
        let texts = texts.iter().map(|(k, v)| (k.clone(), Value::Str(b.arena.push(v)))).collect();
        let attrs = put_attrs(b, texts);
        let trace_state = b.arena.push(state);
        b.links.push(Link {
            trace_id: TraceId(*trace_id),
            span_id: SpanId(*span_id),
            flags: *flags,
            trace_state,
            attrs,
            dropped: 0,
        });
    }
    let first_event = b.events.len();
    for (time, name, values) in &t.events {
        let values = values.iter().map(|(k, v)| (k.clone(), put_any(b, v))).collect();
        let attrs = put_attrs(b, values);
        let name = b.arena.push(name);
        b.events.push(Event { time: *time, name, attrs, dropped: 0 });
    }
    let span = Span {
        trace_id,
        span_id: SpanId(t.ids[0]),
        parent_id: SpanId(t.ids[1]),
        start: t.times[0],
        duration: t.times[1],
        service: b.arena.push(&t.texts[0]),
        name: b.arena.push(&t.texts[1]),
        resource: b.arena.push(&t.texts[2]),
        span_type: b.arena.push(&t.texts[3]),
        attrs,
        links: Range32::new(first_link, b.links.len()),
        events: Range32::new(first_event, b.events.len()),
        scope: NO_SCOPE,
        error: t.error,
        status: if t.error == 0 { Status::Unset } else { Status::Error },
        ..Span::default()
    };
    b.spans.push(span);
}

fn batch() -> impl Strategy<Value = Batch> {
    vec((any_of::<u64>(), option::of(1..=u64::MAX), vec(span(), 1..4)), 0..4).prop_map(|chunks| {
        let mut b = Batch::new(Arena::new(Bytes::new()), Intake::default());
        b.resources.push(Resource::default());
        for (i, (low, high, spans)) in chunks.into_iter().enumerate() {
            // Lower halves differ: equal ones share their upper half.
            let low = (low << 8) | i as u64;
            let trace_id = TraceId::from_halves(high.unwrap_or(0), low);
            let first = b.spans.len();
            for (j, mut span) in spans.into_iter().enumerate() {
                span.meta.remove("_dd.p.tid");
                if let (Some(high), 0) = (high, j) {
                    span.meta.insert("_dd.p.tid".into(), format!("{high:016x}"));
                }
                put_span(&mut b, trace_id, &span);
            }
            b.chunks.push(Chunk { spans: Range32::new(first, b.spans.len()), trace_id, ..Chunk::default() });
        }
        b
    })
}

fn ids(b: &Batch) -> Vec<TraceId> {
    b.spans.iter().map(|s| s.trace_id).chain(b.chunks.iter().map(|c| c.trace_id)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_batch_survives_v04(b in batch()) {
        let back = decode(Protocol::DatadogV04, &encode_v04(&b)).unwrap();
        check(&back);
        prop_assert_eq!(render(&back), render(&b));
        prop_assert_eq!(ids(&back), ids(&b));
    }

    #[test]
    fn a_batch_survives_v05_but_for_what_it_has_no_place_for(b in batch()) {
        let back = decode(Protocol::DatadogV05, &encode_v05(&b)).unwrap();
        check(&back);
        let mut want = render(&b);
        for span in want.as_array_mut().unwrap().iter_mut().flat_map(|c| c.as_array_mut().unwrap()) {
            span["span_links"] = json!([]);
            span["span_events"] = json!([]);
            span["meta_struct"] = json!({});
        }
        prop_assert_eq!(render(&back), want);
        prop_assert_eq!(ids(&back), ids(&b));
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_give_a_sound_batch(body in vec(any_of::<u8>(), 0..200)) {
        for protocol in [Protocol::DatadogV04, Protocol::DatadogV05, Protocol::DatadogV07, Protocol::DatadogV1] {
            if let Ok(b) = decode(protocol, &body) {
                check(&b);
            }
        }
    }
}

#[test]
fn captured_payloads_survive_being_written_again() {
    for (protocol, file) in [
        (Protocol::DatadogV04, "python-ddtrace-4/rich-v04/002-v04-traces.bin"),
        (Protocol::DatadogV04, "node-dd-trace/express-v04/005-v04-traces.bin"),
        (Protocol::DatadogV05, "python-ddtrace-4/flask-v05/007-v05-traces.bin"),
    ] {
        let b = decode(protocol, &read(&fixtures().join(file))).unwrap();
        let back = decode(Protocol::DatadogV04, &encode_v04(&b)).unwrap();
        assert_eq!(render(&back), render(&b), "{file}");
        assert_eq!(ids(&back), ids(&b), "{file}");
    }
}
