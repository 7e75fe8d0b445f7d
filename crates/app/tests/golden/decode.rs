//! What the intake receives, decoded into the words of the recordings
//! (`fixtures/golden-agent/README.md`): protobuf `AgentPayload` as proto3 JSON,
//! msgpack `StatsPayload` under its own key names, DDSketches opened.
//!
//! Independent of the encoders: the schemas are written down here once more.

use base64::Engine;
use serde_json::{Map, Value as Json, json};
use spanloom_codec::protobuf::{Field, Reader};
use std::collections::BTreeMap;

/// Type of a field.
enum Is {
    Text,
    Bytes,
    /// Printed as a number.
    U32,
    I32,
    /// Printed as decimal text.
    U64,
    I64,
    Bool,
    Double,
    Name(&'static [&'static str]),
    Message(&'static [Row]),
    /// A map by text, whose values are in field 2.
    MapOf(&'static Is),
    /// Index into the string table.
    Ref,
    /// A map by string index.
    MapOfAny,
}

/// Number, name, whether it repeats, type.
type Row = (u32, &'static str, bool, Is);

const AGENT_PAYLOAD: &[Row] = &[
    (1, "hostName", false, Is::Text),
    (2, "env", false, Is::Text),
    (5, "tracerPayloads", true, Is::Message(TRACER_PAYLOAD)),
    (6, "tags", false, Is::MapOf(&Is::Text)),
    (7, "agentVersion", false, Is::Text),
    (8, "targetTPS", false, Is::Double),
    (9, "errorTPS", false, Is::Double),
    (10, "rareSamplerEnabled", false, Is::Bool),
    (11, "idxTracerPayloads", true, Is::Message(IDX_PAYLOAD)),
];

const TRACER_PAYLOAD: &[Row] = &[
    (1, "containerID", false, Is::Text),
    (2, "languageName", false, Is::Text),
    (3, "languageVersion", false, Is::Text),
    (4, "tracerVersion", false, Is::Text),
    (5, "runtimeID", false, Is::Text),
    (6, "chunks", true, Is::Message(CHUNK)),
    (7, "tags", false, Is::MapOf(&Is::Text)),
    (8, "env", false, Is::Text),
    (9, "hostname", false, Is::Text),
    (10, "appVersion", false, Is::Text),
];

const CHUNK: &[Row] = &[
    (1, "priority", false, Is::I32),
    (2, "origin", false, Is::Text),
    (3, "spans", true, Is::Message(SPAN)),
    (4, "tags", false, Is::MapOf(&Is::Text)),
    (5, "droppedTrace", false, Is::Bool),
];

const SPAN: &[Row] = &[
    (1, "service", false, Is::Text),
    (2, "name", false, Is::Text),
    (3, "resource", false, Is::Text),
    (4, "traceID", false, Is::U64),
    (5, "spanID", false, Is::U64),
    (6, "parentID", false, Is::U64),
    (7, "start", false, Is::I64),
    (8, "duration", false, Is::I64),
    (9, "error", false, Is::I32),
    (10, "meta", false, Is::MapOf(&Is::Text)),
    (11, "metrics", false, Is::MapOf(&Is::Double)),
    (12, "type", false, Is::Text),
    (13, "metaStruct", false, Is::MapOf(&Is::Bytes)),
    (14, "spanLinks", true, Is::Message(LINK)),
    (15, "spanEvents", true, Is::Message(EVENT)),
];

const LINK: &[Row] = &[
    (1, "traceID", false, Is::U64),
    (2, "traceIDHigh", false, Is::U64),
    (3, "spanID", false, Is::U64),
    (4, "attributes", false, Is::MapOf(&Is::Text)),
    (5, "tracestate", false, Is::Text),
    (6, "flags", false, Is::U32),
];

const EVENT: &[Row] = &[
    (1, "timeUnixNano", false, Is::U64),
    (2, "name", false, Is::Text),
    (3, "attributes", false, Is::MapOf(&Is::Message(EVENT_VALUE))),
];

const VALUE_TYPES: &[&str] = &["STRING_VALUE", "BOOL_VALUE", "INT_VALUE", "DOUBLE_VALUE", "ARRAY_VALUE"];

const EVENT_VALUE: &[Row] = &[
    (1, "type", false, Is::Name(VALUE_TYPES)),
    (2, "stringValue", false, Is::Text),
    (3, "boolValue", false, Is::Bool),
    (4, "intValue", false, Is::I64),
    (5, "doubleValue", false, Is::Double),
    (6, "arrayValue", false, Is::Message(&[(1, "values", true, Is::Message(EVENT_ITEM))])),
];

const EVENT_ITEM: &[Row] = &[
    (1, "type", false, Is::Name(VALUE_TYPES)),
    (2, "stringValue", false, Is::Text),
    (3, "boolValue", false, Is::Bool),
    (4, "intValue", false, Is::I64),
    (5, "doubleValue", false, Is::Double),
];

const IDX_PAYLOAD: &[Row] = &[
    (2, "containerID", false, Is::Ref),
    (3, "languageName", false, Is::Ref),
    (4, "languageVersion", false, Is::Ref),
    (5, "tracerVersion", false, Is::Ref),
    (6, "runtimeID", false, Is::Ref),
    (7, "env", false, Is::Ref),
    (8, "hostname", false, Is::Ref),
    (9, "appVersion", false, Is::Ref),
    (10, "attributes", false, Is::MapOfAny),
    (11, "chunks", true, Is::Message(IDX_CHUNK)),
];

const IDX_CHUNK: &[Row] = &[
    (1, "priority", false, Is::I32),
    (2, "origin", false, Is::Ref),
    (3, "attributes", false, Is::MapOfAny),
    (4, "spans", true, Is::Message(IDX_SPAN)),
    (5, "droppedTrace", false, Is::Bool),
    (6, "traceID", false, Is::Bytes),
    (7, "samplingMechanism", false, Is::U32),
];

const SPAN_KINDS: &[&str] = &[
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];

const IDX_SPAN: &[Row] = &[
    (1, "service", false, Is::Ref),
    (2, "name", false, Is::Ref),
    (3, "resource", false, Is::Ref),
    (4, "spanID", false, Is::U64),
    (5, "parentID", false, Is::U64),
    (6, "start", false, Is::U64),
    (7, "duration", false, Is::U64),
    (8, "error", false, Is::Bool),
    (9, "attributes", false, Is::MapOfAny),
    (10, "type", false, Is::Ref),
    (11, "links", true, Is::Message(IDX_LINK)),
    (12, "events", true, Is::Message(IDX_EVENT)),
    (13, "env", false, Is::Ref),
    (14, "version", false, Is::Ref),
    (15, "component", false, Is::Ref),
    (16, "kind", false, Is::Name(SPAN_KINDS)),
];

const IDX_LINK: &[Row] = &[
    (1, "traceID", false, Is::Bytes),
    (2, "spanID", false, Is::U64),
    (3, "attributes", false, Is::MapOfAny),
    (4, "tracestate", false, Is::Ref),
    (5, "flags", false, Is::U32),
];

const IDX_EVENT: &[Row] =
    &[(1, "time", false, Is::U64), (2, "name", false, Is::Ref), (3, "attributes", false, Is::MapOfAny)];

const SKETCH: &[Row] = &[
    (
        1,
        "mapping",
        false,
        Is::Message(&[
            (1, "gamma", false, Is::Double),
            (2, "offset", false, Is::Double),
            (3, "interpolation", false, Is::U32),
        ]),
    ),
    (4, "zeroCount", false, Is::Double),
];

/// An `AgentPayload`, zero values absent.
pub fn agent_payload(body: &[u8]) -> Json {
    message(body, AGENT_PAYLOAD, &[])
}

fn message(bytes: &[u8], schema: &'static [Row], strings: &[String]) -> Json {
    let mut own = Vec::new();
    if std::ptr::eq(schema, IDX_PAYLOAD) {
        let mut reader = Reader::new(bytes);
        while let Some((number, field)) = reader.next_field().unwrap() {
            if let (1, Field::Len(at)) = (number, field) {
                own.push(text(reader.bytes(at)));
            }
        }
        assert_eq!(own.first().map(String::as_str), Some(""), "string 0 is the empty one");
    }
    let strings = if own.is_empty() { strings } else { &own };
    let mut out = Map::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, field)) = reader.next_field().unwrap() {
        if number == 1 && std::ptr::eq(schema, IDX_PAYLOAD) {
            continue;
        }
        if std::ptr::eq(schema, SKETCH) && (number == 2 || number == 3) {
            continue;
        }
        let row = schema.iter().find(|r| r.0 == number);
        let (_, name, repeats, is) = row.unwrap_or_else(|| panic!("field {number} is not in the schema"));
        match is {
            Is::MapOf(values) => {
                let (key, value) = entry(bytes_of(&reader, field), values, strings);
                let map = out.entry(*name).or_insert_with(|| json!({}));
                map[key] = value;
            }
            Is::MapOfAny => {
                let (key, value) = any_entry(bytes_of(&reader, field), strings);
                let map = out.entry(*name).or_insert_with(|| json!({}));
                map[key] = value;
            }
            is => {
                let value = single(&reader, field, is, strings);
                if *repeats {
                    let list = out.entry(*name).or_insert_with(|| json!([]));
                    list.as_array_mut().unwrap().push(value);
                } else if !is_zero(&value, is) {
                    out.insert((*name).into(), value);
                }
            }
        }
    }
    Json::Object(out)
}

fn bytes_of<'a>(reader: &Reader<'a>, field: Field) -> &'a [u8] {
    let Field::Len(at) = field else { panic!("expected bytes, got {field:?}") };
    reader.bytes(at)
}

fn number(field: Field) -> u64 {
    match field {
        Field::Varint(n) | Field::Fixed64(n) => n,
        Field::Fixed32(n) => u64::from(n),
        Field::Len(_) => panic!("expected a number"),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("proto3 texts are UTF-8")
}

/// proto3 JSON knows no number for these.
fn double(v: f64) -> Json {
    if v.is_finite() {
        json!(v)
    } else {
        json!(if v.is_nan() {
            "NaN"
        } else if v > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        })
    }
}

fn single(reader: &Reader<'_>, field: Field, is: &Is, strings: &[String]) -> Json {
    match is {
        Is::Text => json!(text(bytes_of(reader, field))),
        Is::Bytes => json!(base64::engine::general_purpose::STANDARD.encode(bytes_of(reader, field))),
        Is::U32 => json!(u32::try_from(number(field)).unwrap()),
        Is::I32 => json!(number(field) as i32),
        Is::U64 => json!(number(field).to_string()),
        Is::I64 => json!((number(field) as i64).to_string()),
        Is::Bool => json!(number(field) != 0),
        Is::Double => double(f64::from_bits(number(field))),
        Is::Name(names) => json!(names[number(field) as usize]),
        Is::Message(schema) => message(bytes_of(reader, field), schema, strings),
        Is::Ref => json!(strings[number(field) as usize]),
        Is::MapOf(_) | Is::MapOfAny => unreachable!(),
    }
}

fn is_zero(value: &Json, is: &Is) -> bool {
    match is {
        Is::Message(_) => false,
        Is::Name(names) => *value == json!(names[0]),
        _ => {
            *value == json!("")
                || *value == json!("0")
                || *value == json!(false)
                || value.as_f64() == Some(0.0)
        }
    }
}

fn entry(bytes: &[u8], is: &'static Is, strings: &[String]) -> (String, Json) {
    let mut reader = Reader::new(bytes);
    let mut key = String::new();
    let mut value = match is {
        Is::Double => json!(0.0),
        Is::Message(_) => json!({}),
        _ => json!(""),
    };
    while let Some((number, field)) = reader.next_field().unwrap() {
        match number {
            1 => key = text(bytes_of(&reader, field)),
            2 => value = single(&reader, field, is, strings),
            n => panic!("field {n} in a map entry"),
        }
    }
    (key, value)
}

fn any_entry(bytes: &[u8], strings: &[String]) -> (String, Json) {
    let mut reader = Reader::new(bytes);
    let mut key = String::new();
    let mut value = json!({});
    while let Some((n, field)) = reader.next_field().unwrap() {
        match n {
            1 => key = strings[number(field) as usize].clone(),
            2 => value = any(bytes_of(&reader, field), strings),
            n => panic!("field {n} in a map entry"),
        }
    }
    (key, value)
}

fn any(bytes: &[u8], strings: &[String]) -> Json {
    let mut reader = Reader::new(bytes);
    let mut out = json!({});
    while let Some((n, field)) = reader.next_field().unwrap() {
        let list = |field: Field| {
            let mut inner = Reader::new(bytes_of(&reader, field));
            let mut items = Vec::new();
            while let Some((n, field)) = inner.next_field().unwrap() {
                assert_eq!(n, 1);
                items.push(bytes_of(&inner, field));
            }
            items
        };
        out = match n {
            1 => json!({ "string": strings[number(field) as usize] }),
            2 => json!({ "bool": number(field) != 0 }),
            3 => json!({ "double": double(f64::from_bits(number(field))) }),
            4 => json!({ "int": (number(field) as i64).to_string() }),
            5 => {
                json!({ "bytes": base64::engine::general_purpose::STANDARD.encode(bytes_of(&reader, field)) })
            }
            6 => json!({ "array": list(field).iter().map(|b| any(b, strings)).collect::<Vec<_>>() }),
            7 => {
                let pairs = list(field);
                json!({ "kvlist": pairs.iter().map(|b| json!(any_entry(b, strings))).collect::<Vec<_>>() })
            }
            n => panic!("field {n} in AnyValue"),
        };
    }
    out
}

/// A `StatsPayload` under its key names.
pub fn stats_payload(body: &[u8]) -> Json {
    let mut at = 0;
    let value = msgpack(body, &mut at);
    assert_eq!(at, body.len(), "something follows the StatsPayload");
    value
}

/// Numbers that the recordings print as text.
const AS_TEXT: [&str; 5] = ["ProcessTagsHash", "Sequence", "Start", "Duration", "AgentTimeShift"];

fn msgpack(body: &[u8], at: &mut usize) -> Json {
    fn take<'a>(body: &'a [u8], at: &mut usize, n: usize) -> &'a [u8] {
        *at += n;
        &body[*at - n..*at]
    }
    fn uint(body: &[u8], at: &mut usize, n: usize) -> u64 {
        take(body, at, n).iter().fold(0, |sum, b| sum << 8 | u64::from(*b))
    }
    let code = take(body, at, 1)[0];
    let width = |base: u8| 1usize << (code - base);
    match code {
        0..=0x7f => json!(code),
        0xe0..=0xff => json!(code as i8),
        0xc0 => Json::Null,
        0xc2 | 0xc3 => json!(code == 0xc3),
        0xcb => json!(f64::from_bits(uint(body, at, 8))),
        0xcc..=0xcf => json!(uint(body, at, width(0xcc))),
        0xd0..=0xd3 => {
            let n = width(0xd0);
            let shift = 64 - 8 * n as u32;
            json!((uint(body, at, n) << shift) as i64 >> shift)
        }
        0xa0..=0xbf => json!(text(take(body, at, usize::from(code & 31)))),
        0xd9..=0xdb => {
            let n = uint(body, at, width(0xd9)) as usize;
            json!(text(take(body, at, n)))
        }
        0xc4..=0xc6 => {
            let n = uint(body, at, width(0xc4)) as usize;
            sketch(take(body, at, n))
        }
        0x90..=0x9f | 0xdc | 0xdd => {
            let n = if code < 0xa0 { u64::from(code & 15) } else { uint(body, at, 2 * width(0xdc)) };
            (0..n).map(|_| msgpack(body, at)).collect()
        }
        0x80..=0x8f | 0xde | 0xdf => {
            let n = if code < 0x90 { u64::from(code & 15) } else { uint(body, at, 2 * width(0xde)) };
            let mut map = Map::new();
            for _ in 0..n {
                let key = msgpack(body, at).as_str().unwrap().to_owned();
                let mut value = msgpack(body, at);
                if AS_TEXT.contains(&key.as_str()) {
                    value = json!(value.to_string());
                }
                assert!(map.insert(key.clone(), value).is_none(), "{key} twice");
            }
            Json::Object(map)
        }
        code => panic!("msgpack code {code:#x}"),
    }
}

fn sketch(bytes: &[u8]) -> Json {
    if bytes.is_empty() {
        return Json::Null;
    }
    let head = message(bytes, SKETCH, &[]);
    let mut stores = [BTreeMap::new(), BTreeMap::new()];
    let mut reader = Reader::new(bytes);
    while let Some((number, field)) = reader.next_field().unwrap() {
        if let (2 | 3, Field::Len(at)) = (number, field) {
            store(reader.bytes(at), &mut stores[number as usize - 2]);
        }
    }
    let number = |v: &Json| v.as_f64().unwrap_or(0.0);
    let [positive, negative] = stores.map(|bins| {
        let bins = bins.into_iter().filter(|(_, n)| *n != 0.0);
        bins.map(|(i, n): (i64, f64)| (i.to_string(), json!(n))).collect::<Map<_, _>>()
    });
    json!({
        "gamma": number(&head["mapping"]["gamma"]),
        "indexOffset": number(&head["mapping"]["offset"]),
        "interpolation": head["mapping"]["interpolation"].as_u64().unwrap_or(0),
        "positive": positive,
        "negative": negative,
        "zeroCount": number(&head["zeroCount"]),
    })
}

/// Both forms of bins may appear, and add up.
fn store(bytes: &[u8], bins: &mut BTreeMap<i64, f64>) {
    let zigzag = |n: u64| (n >> 1) as i64 ^ -((n & 1) as i64);
    let mut reader = Reader::new(bytes);
    let (mut dense, mut offset) = (Vec::new(), 0);
    while let Some((n, field)) = reader.next_field().unwrap() {
        match n {
            1 => {
                let mut entry = Reader::new(bytes_of(&reader, field));
                let (mut index, mut count) = (0, 0.0);
                while let Some((n, field)) = entry.next_field().unwrap() {
                    if n == 1 { index = zigzag(number(field)) } else { count = f64::from_bits(number(field)) }
                }
                *bins.entry(index).or_default() += count;
            }
            2 => {
                let packed = bytes_of(&reader, field).chunks_exact(8);
                dense.extend(packed.map(|b| f64::from_le_bytes(b.try_into().unwrap())));
            }
            3 => offset = zigzag(number(field)),
            n => panic!("field {n} in a store"),
        }
    }
    for (i, count) in dense.into_iter().enumerate() {
        *bins.entry(offset + i as i64).or_default() += count;
    }
}
