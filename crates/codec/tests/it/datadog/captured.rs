//! Recorded payloads of real clients against an independent decoder's
//! rendering and against the counts of their sidecars.

use super::helpers::*;
use base64::Engine as _;
use serde_json::{Map, Value as Json, json};
use spanloom_model::{Batch, Protocol, SpanKind, Status};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A span of a rendering with everything written out, as `render_span` does.
fn complete(span: &Json) -> Json {
    let get = |key: &str, default: Json| span.get(key).filter(|v| !v.is_null()).cloned().unwrap_or(default);
    let map = |key: &str| get(key, json!({}));
    let metrics: Map<String, Json> = map("metrics")
        .as_object()
        .unwrap()
        .iter()
        .map(|(k, v)| (k.clone(), number(v.as_f64().unwrap())))
        .collect();
    let meta_struct: Map<String, Json> = map("meta_struct")
        .as_object()
        .unwrap()
        .iter()
        .map(|(k, v)| {
            let text = v["$bytes_b64"].as_str().unwrap();
            (k.clone(), json!(base64::engine::general_purpose::STANDARD.decode(text).unwrap()))
        })
        .collect();
    let links: Vec<Json> = get("span_links", json!([]))
        .as_array()
        .unwrap()
        .iter()
        .map(|l| {
            json!({"trace_id": l["trace_id"], "span_id": l["span_id"],
                   "trace_id_high": l.get("trace_id_high").cloned().unwrap_or(json!(0)),
                   "tracestate": l.get("tracestate").cloned().unwrap_or(json!("")),
                   "flags": l.get("flags").cloned().unwrap_or(json!(0)),
                   "attributes": l.get("attributes").cloned().unwrap_or(json!({}))})
        })
        .collect();
    let events: Vec<Json> = get("span_events", json!([]))
        .as_array()
        .unwrap()
        .iter()
        .map(|e| {
            let time =
                e["time_unix_nano"].as_u64().unwrap_or_else(|| e["time_unix_nano"].as_f64().unwrap() as u64);
            let empty = Map::new();
            let attrs = e.get("attributes").and_then(Json::as_object).unwrap_or(&empty);
            let attrs: Map<String, Json> = attrs.iter().map(|(k, v)| (k.clone(), plain(v))).collect();
            json!({"time_unix_nano": time, "name": e["name"], "attributes": attrs})
        })
        .collect();
    json!({
        "service": get("service", json!("")), "name": get("name", json!("")), "resource": get("resource", json!("")),
        "type": get("type", json!("")), "trace_id": get("trace_id", json!(0)), "span_id": get("span_id", json!(0)),
        "parent_id": get("parent_id", json!(0)), "start": get("start", json!(0)),
        "duration": get("duration", json!(0)), "error": get("error", json!(0)),
        "meta": map("meta"), "metrics": metrics, "meta_struct": meta_struct,
        "span_links": links, "span_events": events,
    })
}

/// The value inside a typed event attribute.
fn plain(any: &Json) -> Json {
    match any["type"].as_u64().unwrap_or(0) {
        0 => any["string_value"].clone(),
        1 => any["bool_value"].clone(),
        2 => any["int_value"].clone(),
        3 => any["double_value"].clone(),
        _ => any["array_value"]["values"].as_array().unwrap().iter().map(plain).collect(),
    }
}

fn check_against(name: &str, batch: &Batch, rendering: &Json) {
    let chunks = if rendering.is_array() { rendering } else { &rendering["traces"] };
    let want: Json = chunks
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c.as_array().unwrap().iter().map(complete).collect::<Json>())
        .collect();
    let got = render(batch);
    for (i, (g, w)) in got.as_array().unwrap().iter().zip(want.as_array().unwrap()).enumerate() {
        for (j, (g, w)) in g.as_array().unwrap().iter().zip(w.as_array().unwrap()).enumerate() {
            assert_eq!(g, w, "{name}: span {j} of chunk {i}");
        }
    }
    assert_eq!(got, want, "{name}");
    for span in &batch.spans {
        let kind = batch.get_str(span.attrs, "span.kind").and_then(SpanKind::from_name).unwrap_or_default();
        assert_eq!(span.kind, kind, "{name}");
        assert_eq!(span.status == Status::Error, span.error != 0, "{name}");
    }
}

fn counts(batch: &Batch) -> Json {
    let mut by_service = BTreeMap::<&str, u64>::new();
    let mut by_name = BTreeMap::<&str, u64>::new();
    let mut by_trace = BTreeMap::<String, (u64, u64)>::new();
    for s in &batch.spans {
        *by_service.entry(batch.str(s.service)).or_default() += 1;
        *by_name.entry(batch.str(s.name)).or_default() += 1;
        let (spans, errors) = by_trace.entry(s.trace_id.to_string()).or_default();
        *spans += 1;
        *errors += u64::from(s.error != 0);
    }
    let by_trace: Map<String, Json> = by_trace
        .into_iter()
        .map(|(id, (spans, errors))| (id, json!({"spans": spans, "errors": errors})))
        .collect();
    json!({
        "traces": by_trace.len(), "chunks": batch.chunks.len(), "spans": batch.spans.len(),
        "errors": batch.spans.iter().filter(|s| s.error != 0).count(),
        "roots": batch.spans.iter().filter(|s| s.parent_id.is_zero()).count(),
        "by_service": by_service, "by_name": by_name, "by_trace": by_trace,
        "sum_duration_ns": batch.spans.iter().map(|s| s.duration).sum::<i64>(),
        "min_start_ns": batch.spans.iter().map(|s| s.start).min(),
    })
}

/// Sidecars of all captured trace payloads.
fn sidecars() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for client in std::fs::read_dir(fixtures()).unwrap() {
        let client = client.unwrap().path();
        let name = client.file_name().unwrap().to_string_lossy().into_owned();
        if !name.starts_with("python-ddtrace") && name != "node-dd-trace" {
            continue;
        }
        for scenario in std::fs::read_dir(client).unwrap() {
            for file in std::fs::read_dir(scenario.unwrap().path()).unwrap() {
                let file = file.unwrap().path();
                if file.to_string_lossy().ends_with("-traces.meta.json") {
                    found.push(file);
                }
            }
        }
    }
    found.sort();
    found
}

#[test]
fn captured_payloads_decode_to_what_an_independent_decoder_found() {
    let files = sidecars();
    assert!(files.len() >= 40, "only {} captures found", files.len());
    for file in files {
        let meta = read_json(&file);
        let Some(protocol) = protocol_of(meta["path"].as_str().unwrap()) else { continue };
        let name = file.display().to_string();
        let body = read(&file.with_file_name(meta["body_file"].as_str().unwrap()));
        let batch = decode(protocol, &body).unwrap_or_else(|e| panic!("{name}: {e}"));
        let decoded = PathBuf::from(name.replace(".meta.json", ".decoded.json"));
        check_against(&name, &batch, &read_json(&decoded));
        let got = counts(&batch);
        for (key, want) in meta["expected"].as_object().unwrap() {
            assert_eq!(&got[key], want, "{name}: {key}");
        }
        assert_eq!(batch.str(batch.resources[0].language_name), "python");
        assert_eq!(batch.str(batch.resources[0].container_id), "c1");
    }
}

#[test]
fn envoy_payloads_decode_to_what_an_independent_decoder_found() {
    let mut seen = 0;
    for file in std::fs::read_dir(fixtures().join("envoy")).unwrap() {
        let file = file.unwrap().path();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if !name.starts_with("dd-traces-") || !name.ends_with(".json") {
            continue;
        }
        let doc = read_json(&file);
        let body = read(&file.with_file_name(doc["body_file"].as_str().unwrap()));
        let batch = decode(Protocol::DatadogV04, &body).unwrap();
        check_against(&name, &batch, &doc["decoded"]);
        seen += 1;
    }
    assert_eq!(seen, 7);
}
