//! Every case of the normalisation and filtering vectors.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};
use spanloom_model::{
    Attr, Batch, Chunk, Event, PRIORITY_NONE, Protocol, Range32, Resource, Span, SpanId, TraceId, Value,
};
use spanloom_obfuscator::{
    Config, CreditCardConfig, HttpConfig, JsonConfig, MemcachedConfig, Obfuscator, RedisConfig,
};
use spanloom_processors::{
    Agent, AgentConfig, Counts, IgnoredResources, NormalizerConfig, Replacer, RuleText, SpanIds,
    SpanObfuscator, TagEntry, TagFilters, fill_chunk_attributes, is_http_status, names, normalize_chunk,
    normalize_times, top_level,
};

fn cases(file: &str) -> Vec<Json> {
    let path = format!("{}/../../fixtures/vectors/{file}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let json: Json = serde_json::from_str(&text).unwrap();
    json["cases"].as_array().unwrap().clone()
}

/// Runs all cases of a file for the ops that `run` knows (others give `None`),
/// and reports every failing id at once.
fn check(files: &[&str], expected_cases: usize, run: impl Fn(&Json) -> Option<(Json, Json)>) {
    let mut failed = Vec::new();
    let mut ran = 0;
    for case in files.iter().flat_map(|f| cases(f)) {
        if let Some((got, wanted)) = run(&case) {
            ran += 1;
            if got != wanted {
                failed.push(format!("{}: {} -> got {got}, expected {wanted}", case["id"], case["input"]));
            }
        }
    }
    assert!(failed.is_empty(), "{} of {ran} failed:\n{}", failed.len(), failed.join("\n"));
    assert_eq!(ran, expected_cases, "the number of cases changed");
}

fn bytes(v: &Json) -> Vec<u8> {
    match v {
        Json::String(s) => s.as_bytes().to_vec(),
        other => {
            let hex = other["hex"].as_str().unwrap();
            (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
        }
    }
}

fn reason(r: Option<names::Reason>) -> Json {
    match r {
        None => Json::Null,
        Some(names::Reason::Empty) => "empty".into(),
        Some(names::Reason::Truncate) => "truncate".into(),
        Some(names::Reason::Invalid) => "invalid".into(),
    }
}

#[test]
fn tag_text_is_normalised_as_the_agent_does() {
    check(&["normalize_tag", "normalize_tag_observed"], 149, |c| {
        let strip = match c["op"].as_str()? {
            "normalize_tag" => true,
            "normalize_tag_value" => false,
            _ => return None,
        };
        let input = bytes(&c["input"]);
        let got = names::normalize_bytes(&input, strip).into_owned();
        Some((json!(got.as_bytes()), json!(bytes(&c["expected"]))))
    });
}

#[test]
fn fields_are_normalised_as_the_agent_does() {
    check(&["normalize_fields", "normalize_fields_observed"], 145, |c| {
        let text = String::from_utf8_lossy(&match &c["input"] {
            Json::String(s) => s.clone().into_bytes(),
            v if v.get("hex").is_some() => bytes(v),
            _ => Vec::new(),
        })
        .into_owned();
        let pair = |(v, r): (std::borrow::Cow<'_, str>, _)| json!({"value": v, "reason": reason(r)});
        let number = |k: &str| c["input"][k].as_str().unwrap().parse::<i64>().unwrap();
        let got = match c["op"].as_str()? {
            "normalize_name" => {
                let raw = bytes(&c["input"]);
                let (v, r) = names::normalize_name_bytes(&raw);
                json!({"value": v, "reason": reason(r)})
            }
            "normalize_service" => {
                pair(names::normalize_service(&text, c["config"]["lang"].as_str().unwrap_or_default()))
            }
            "normalize_peer_service" => pair(names::normalize_peer_service(&text)),
            "truncate_utf8" => {
                let limit = c["input"]["limit"].as_u64().unwrap() as usize;
                let s = bytes(&c["input"]["s"]);
                return Some((json!(names::truncate_bytes(&s, limit)), json!(bytes(&c["expected"]))));
            }
            "http_status_code_kept" => json!(is_http_status(&text)),
            "start_duration" => {
                let (mut start, mut duration) = (number("start"), number("duration"));
                let reasons: Vec<_> = normalize_times(&mut start, &mut duration, number("now")).collect();
                json!({"start": start.to_string(), "duration": duration.to_string(), "reasons": reasons})
            }
            _ => return None,
        };
        Some((got, c["expected"].clone()))
    });
}

/// A span from the vectors' JSON.
fn push_span(b: &mut Batch, s: &Json) {
    let text = |b: &mut Batch, key: &str, default: &str| {
        let v = s.get(key).and_then(Json::as_str).unwrap_or(default).to_owned();
        b.arena.push(&v)
    };
    let start = b.attrs.len();
    for (k, v) in s.get("meta").and_then(Json::as_object).into_iter().flatten() {
        let attr = Attr { key: b.arena.push(k), value: Value::Str(b.arena.push(v.as_str().unwrap())) };
        b.attrs.push(attr);
    }
    for (k, v) in s.get("metrics").and_then(Json::as_object).into_iter().flatten() {
        let attr = Attr { key: b.arena.push(k), value: Value::Double(v.as_f64().unwrap()) };
        b.attrs.push(attr);
    }
    let number = |key: &str| {
        let v = s.get(key);
        v.and_then(|v| v.as_u64().or_else(|| v.as_str()?.parse().ok())).unwrap_or(0)
    };
    let span = Span {
        trace_id: TraceId(u128::from(number("trace_id"))),
        span_id: SpanId(number("span_id")),
        parent_id: SpanId(number("parent_id")),
        service: text(b, "service", "svc"),
        name: text(b, "name", "op"),
        resource: text(b, "resource", "res"),
        span_type: text(b, "type", ""),
        start: 1_700_000_000_000_000_000,
        duration: 1,
        attrs: Range32::new(start, b.attrs.len()),
        ..Span::default()
    };
    b.spans.push(span);
}

pub fn batch(spans: &[Json]) -> (Batch, Chunk) {
    let mut b = Batch::default();
    b.intake.protocol = Protocol::DatadogV04;
    b.resources.push(Resource::default());
    spans.iter().for_each(|s| push_span(&mut b, s));
    let chunk = Chunk { spans: Range32::new(0, spans.len()), ..Chunk::default() };
    b.chunks.push(chunk);
    (b, chunk)
}

fn meta(b: &Batch, i: usize) -> Json {
    let mut out = Map::new();
    for a in b.attrs(b.spans[i].attrs) {
        if let Value::Str(t) = a.value {
            out.insert(b.str(a.key).into(), b.str(t).into());
        }
    }
    Json::Object(out)
}

#[test]
fn traces_are_checked_and_marked_as_the_agent_does() {
    check(&["normalize_trace"], 34, |c| {
        let input = &c["input"];
        let list: Vec<Json> = input.as_array().cloned().unwrap_or_default();
        let (mut b, mut chunk) = batch(&list);
        let metrics = |test: fn(&Batch, Range32) -> bool| {
            let (b, _) = batch(&[json!({"metrics": input})]);
            json!(test(&b, b.spans[0].attrs))
        };
        let got = match c["op"].as_str()? {
            "normalize_trace" => {
                let mut counts = Counts::default();
                let config = NormalizerConfig::default();
                let now = 1_700_000_001_000_000_000;
                let mut ids = SpanIds::default();
                let result = normalize_chunk(&mut b, &mut chunk, config, now, &mut ids, &mut counts);
                let mut out = json!({"drop": result.err()});
                let wanted = c["expected"].as_object().unwrap();
                if wanted.contains_key("malformed") {
                    let names: Vec<_> = counts
                        .malformed
                        .iter()
                        .flat_map(|(r, n)| std::iter::repeat_n(*r, *n as usize))
                        .collect();
                    out["malformed"] = json!(names);
                }
                if wanted.contains_key("parent_ids") {
                    out["parent_ids"] = b.spans.iter().map(|s| s.parent_id.0).collect();
                }
                if wanted.contains_key("resources") {
                    out["resources"] = b.spans.iter().map(|s| b.str(s.resource)).collect();
                }
                if wanted.contains_key("meta") {
                    out["meta"] = (0..b.spans.len()).map(|i| meta(&b, i)).collect();
                }
                out
            }
            "get_root" => json!(b.spans[b.chunk_root(&chunk).unwrap()].span_id.0),
            "compute_top_level" => {
                let mut ids = SpanIds::default();
                ids.read(&b, &chunk);
                top_level::compute(&mut b, &chunk, &ids);
                let marked = b.spans.iter().filter(|s| top_level::is_top_level(&b, s.attrs));
                marked.map(|s| s.span_id.0).collect()
            }
            "is_measured" => metrics(top_level::is_measured),
            "is_partial_snapshot" => metrics(top_level::is_partial),
            "has_top_level" => metrics(top_level::is_top_level),
            "chunk_attributes" => {
                let spans = input.get("spans").and_then(Json::as_array).cloned();
                let (mut b, mut chunk) = batch(&spans.unwrap_or_else(|| vec![input["root"].clone()]));
                chunk.priority = input["chunk"]["priority"].as_i64().unwrap() as i32;
                chunk.origin = b.arena.push(input["chunk"]["origin"].as_str().unwrap());
                fill_chunk_attributes(&mut b, &mut chunk, 0);
                assert_eq!(PRIORITY_NONE, -128);
                json!({"priority": chunk.priority, "origin": b.str(chunk.origin)})
            }
            "get_env" | "get_app_version" => {
                let spans: Vec<Json> = list
                    .iter()
                    .enumerate()
                    .map(|(i, s)| {
                        let mut s = s.clone();
                        s["trace_id"] = json!(1);
                        s["span_id"] = json!(i + 1);
                        s
                    })
                    .collect();
                let (mut b, _) = batch(&spans);
                Agent::new(AgentConfig::default(), |_, _| {}).process(
                    &mut b,
                    0,
                    &mut Counts::default(),
                    |_, _| true,
                );
                let r = b.resources[0];
                json!(b.str(if c["op"] == "get_env" { r.env } else { r.app_version }))
            }
            _ => return None,
        };
        Some((got, c["expected"].clone()))
    });
}

fn strings(v: &Json) -> Vec<String> {
    v.as_array().into_iter().flatten().map(|s| s.as_str().unwrap().to_owned()).collect()
}

#[test]
fn resources_are_ignored_as_the_agent_does() {
    check(&["ignore_resources"], 15, |c| {
        if c["op"] != "ignore_resources" {
            return None; // the environment's syntax is the program's business
        }
        let (ignored, _) = IgnoredResources::new(&strings(&c["config"]["ignore_resources"]));
        Some((json!(!ignored.contains(c["input"].as_str().unwrap())), c["expected"].clone()))
    });
}

#[test]
fn tag_filters_decide_as_the_agent_does() {
    check(&["filter_tags"], 25, |c| {
        let entries = |key: &str| -> Vec<TagEntry> {
            let list = c["config"][key].as_array().into_iter().flatten();
            list.map(|e| TagEntry {
                key: e[0].as_str().unwrap().into(),
                value: e.get(1).and_then(Json::as_str).map(str::to_owned),
            })
            .collect()
        };
        let got = match c["op"].as_str()? {
            "parse_filter_tag" => {
                let e = TagEntry::parse(c["input"].as_str().unwrap());
                json!([Some(e.key), e.value].into_iter().flatten().collect::<Vec<_>>())
            }
            "filter_tags" => {
                let (filters, _) = TagFilters::new(
                    entries("require"),
                    entries("reject"),
                    entries("require_regex"),
                    entries("reject_regex"),
                );
                let (b, _) = batch(&[c["input"].clone()]);
                json!(filters.drops(&b, b.spans[0].attrs))
            }
            _ => return None,
        };
        Some((got, c["expected"].clone()))
    });
}

#[test]
fn replacements_are_made_as_the_agent_does() {
    check(&["replace_tags"], 14, |c| {
        let rules: Vec<RuleText> = c["config"]["rules"]
            .as_array()?
            .iter()
            .map(|r| RuleText {
                name: r["name"].as_str().unwrap().into(),
                pattern: r["pattern"].as_str().unwrap().into(),
                repl: r["repl"].as_str().unwrap_or_default().into(),
            })
            .collect();
        let replacer = Replacer::new(&rules).unwrap();
        let input = &c["input"];
        let got = match c["op"].as_str()? {
            "replace_stats_group" => {
                let mut resource = input["resource"].as_str().unwrap().to_owned();
                let mut status = input["http_status_code"].as_u64().unwrap() as u32;
                replacer.replace_group(&mut resource, &mut status);
                json!({"resource": resource, "http_status_code": status})
            }
            "replace_span" => {
                let (mut b, chunk) = batch(std::slice::from_ref(input));
                replacer.replace_chunk(&mut b, &chunk);
                let mut out = json!({});
                if input.get("resource").is_some() {
                    out["resource"] = b.str(b.spans[0].resource).into();
                }
                let metrics: Map<String, Json> = b
                    .attrs(b.spans[0].attrs)
                    .iter()
                    .filter_map(|a| a.value.as_f64().map(|v| (b.str(a.key).to_owned(), json!(v))))
                    .collect();
                let meta = meta(&b, 0);
                if !meta.as_object().unwrap().is_empty() {
                    out["meta"] = meta;
                }
                if !metrics.is_empty() {
                    out["metrics"] = Json::Object(metrics);
                }
                out
            }
            _ => return None,
        };
        // Numbers compare by value, not by how JSON wrote them.
        let mut wanted = c["expected"].clone();
        if let Some(m) = wanted.get_mut("metrics").and_then(Json::as_object_mut) {
            m.values_mut().for_each(|v| *v = json!(v.as_f64()));
        }
        Some((got, wanted))
    });
}

/// The Go text of `apm_config.obfuscation` as the vectors write it.
fn obfuscator(c: &Json) -> Config {
    let on = |key: &str| c[key]["enabled"].as_bool().unwrap_or(false);
    let json = |key: &str| JsonConfig { enabled: on(key), ..JsonConfig::default() };
    let redis = |key: &str| RedisConfig {
        enabled: on(key),
        remove_all_args: c[key]["remove_all_args"].as_bool().unwrap_or(false),
    };
    Config {
        elasticsearch: json("elasticsearch"),
        opensearch: json("opensearch"),
        mongodb: json("mongodb"),
        http: HttpConfig {
            remove_query_string: c["http"]["remove_query_string"].as_bool().unwrap_or(false),
            remove_paths_with_digits: c["http"]["remove_paths_with_digits"].as_bool().unwrap_or(false),
        },
        redis: redis("redis"),
        valkey: redis("valkey"),
        memcached: MemcachedConfig {
            enabled: on("memcached"),
            keep_command: c["memcached"]["keep_command"].as_bool().unwrap_or(false),
        },
        credit_cards: CreditCardConfig {
            enabled: on("credit_cards"),
            luhn: c["credit_cards"]["luhn"].as_bool().unwrap_or(false),
            keep_values: Vec::new(),
        },
        ..Config::default()
    }
}

fn event_value(b: &mut Batch, v: &Json) -> Value {
    match v["type"].as_i64().unwrap_or(0) {
        0 => Value::Str(b.arena.push(v["string_value"].as_str().unwrap_or_default())),
        1 => Value::Bool(v["bool_value"].as_bool().unwrap_or(false)),
        2 => Value::Int(v["int_value"].as_i64().unwrap_or(0)),
        3 => Value::Double(v["double_value"].as_f64().unwrap_or(0.0)),
        _ => {
            let items: Vec<Value> =
                v["array_value"]["values"].as_array().unwrap().iter().map(|i| event_value(b, i)).collect();
            let start = b.values.len();
            b.values.extend(items);
            Value::List(Range32::new(start, b.values.len()))
        }
    }
}

fn event_json(b: &Batch, v: Value) -> Json {
    match v {
        Value::Str(t) => json!({"type": 0, "string_value": b.str(t)}),
        Value::Bool(x) => json!({"type": 1, "bool_value": x}),
        Value::Int(x) => json!({"type": 2, "int_value": x}),
        Value::Double(x) => json!({"type": 3, "double_value": x}),
        Value::List(r) => {
            let values: Vec<Json> = b.list(r).iter().map(|v| event_json(b, *v)).collect();
            json!({"type": 4, "array_value": {"values": values}})
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn spans_are_scrubbed_as_the_agent_does() {
    check(&["obfuscate_span"], 30, |c| {
        let input = &c["input"];
        let mut span = input.clone();
        span["resource"] = input.get("resource").cloned().unwrap_or_else(|| "".into());
        let (mut b, chunk) = batch(&[span]);
        for e in input["span_events"].as_array().into_iter().flatten() {
            let attrs: Vec<Attr> = e["attributes"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(k, v)| Attr { key: b.arena.push(k), value: event_value(&mut b, v) })
                .collect();
            let start = b.attrs.len();
            b.attrs.extend(attrs);
            let name = b.arena.push(e["name"].as_str().unwrap());
            b.events.push(Event { name, attrs: Range32::new(start, b.attrs.len()), ..Event::default() });
        }
        b.spans[0].events = Range32::new(0, b.events.len());
        let config = Arc::new(Obfuscator::new(obfuscator(&c["config"])));
        SpanObfuscator::new(config, false).scrub(&mut b, 0);
        let rules: Vec<RuleText> = c["config"]["tag_replace_rules"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|r| RuleText {
                name: r["name"].as_str().unwrap().into(),
                pattern: r["pattern"].as_str().unwrap().into(),
                repl: r["repl"].as_str().unwrap().into(),
            })
            .collect();
        Replacer::new(&rules).unwrap().replace_chunk(&mut b, &chunk);
        let s = b.spans[0];
        let mut out = json!({"type": b.str(s.span_type)});
        if input.get("resource").is_some() {
            out["resource"] = b.str(s.resource).into();
        }
        let meta = meta(&b, 0);
        if !meta.as_object().unwrap().is_empty() {
            out["meta"] = meta;
        }
        if !b.events.is_empty() {
            out["span_events"] = b
                .events
                .iter()
                .map(|e| {
                    let attrs: Map<String, Json> = b
                        .attrs(e.attrs)
                        .iter()
                        .map(|a| (b.str(a.key).to_owned(), event_json(&b, a.value)))
                        .collect();
                    json!({"name": b.str(e.name), "attributes": attrs})
                })
                .collect();
        }
        let mut wanted = c["expected"].clone();
        floats(&mut wanted);
        Some((out, wanted))
    });
}

/// Whole numbers under `double_value` as floating-point numbers.
fn floats(v: &mut Json) {
    match v {
        Json::Object(map) => {
            for (k, v) in map {
                if k == "double_value" {
                    *v = json!(v.as_f64());
                } else {
                    floats(v);
                }
            }
        }
        Json::Array(list) => list.iter_mut().for_each(floats),
        _ => {}
    }
}
