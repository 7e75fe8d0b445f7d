//! Captured payloads, and renderings of them that can be compared.

use bytes::Bytes;
use serde_json::{Map, Value as Json};
use spanloom_codec::{DecodeError, otlp, zipkin};
use spanloom_model::{Batch, Intake, Span};
use std::path::{Path, PathBuf};

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

pub fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub fn read_json(path: &Path) -> Json {
    serde_json::from_slice(&read(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A recorded request of a client library.
pub struct Captured {
    pub name: String,
    pub format: String,
    pub body: Bytes,
    pub expected: Json,
    pub decoded: Json,
}

/// All recorded requests whose format begins with `format`.
pub fn captured(format: &str) -> Vec<Captured> {
    let mut found = Vec::new();
    for client in sorted_dir(&fixtures()) {
        for scenario in sorted_dir(&client) {
            for meta_path in sorted_dir(&scenario) {
                let name = meta_path.display().to_string();
                let Some(stem) = name.strip_suffix(".meta.json") else { continue };
                let meta = read_json(&meta_path);
                let got = meta["format"].as_str().unwrap_or_default();
                if !got.starts_with(format) {
                    continue;
                }
                let mut body = read(Path::new(&format!("{stem}.bin")));
                if body.starts_with(b"\x1f\x8b") {
                    body = gunzip(&body);
                }
                found.push(Captured {
                    name: stem.to_owned(),
                    format: got.to_owned(),
                    body: body.into(),
                    expected: meta["expected"].clone(),
                    decoded: read_json(Path::new(&format!("{stem}.decoded.json"))),
                });
            }
        }
    }
    assert!(!found.is_empty(), "no fixtures of format {format}");
    found
}

fn sorted_dir(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return Vec::new();
    }
    let mut entries: Vec<PathBuf> = std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    entries
}

pub fn gunzip(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(body), &mut out).unwrap();
    out
}

pub fn intake() -> Intake {
    Intake::default()
}

pub fn bytes(body: &[u8]) -> Bytes {
    Bytes::copy_from_slice(body)
}

pub fn zipkin_json(body: &str) -> Result<Batch, DecodeError> {
    zipkin::decode_json_v2(bytes(body.as_bytes()), intake())
}

pub fn to_zipkin_json(batch: &Batch) -> Json {
    let mut out = Vec::new();
    zipkin::encode_json_v2(batch, &mut out);
    serde_json::from_slice(&out).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out)))
}

pub fn otlp_json(body: &Json) -> Batch {
    let decoded = otlp::decode_json(serde_json::to_vec(body).unwrap().into(), intake()).unwrap();
    assert_eq!((decoded.rejected, decoded.message.as_str()), (0, ""));
    decoded.batch
}

pub fn to_otlp_json(batch: &Batch) -> Json {
    let mut out = Vec::new();
    otlp::encode_json(batch, &mut out);
    serde_json::from_slice(&out).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out)))
}

pub fn to_otlp_proto(batch: &Batch) -> Bytes {
    let mut out = Vec::new();
    otlp::encode_proto(batch, &mut out);
    out.into()
}

/// Every span of an OTLP document with its resource and scope, in an order of
/// its own, without default values and with enums as numbers.
pub fn otlp_spans(document: &Json) -> Vec<Json> {
    let empty = Vec::new();
    let list = |v: &Json, keys: [&str; 2]| {
        v.get(keys[0]).or(v.get(keys[1])).and_then(Json::as_array).unwrap_or(&empty).clone()
    };
    let mut out = Vec::new();
    for rs in list(document, ["resourceSpans", "resource_spans"]) {
        for ss in list(&rs, ["scopeSpans", "instrumentationLibrarySpans"]) {
            let scope = ss.get("scope").or(ss.get("instrumentationLibrary")).cloned().unwrap_or_default();
            for span in list(&ss, ["spans", ""]) {
                let mut span = span;
                span["resource"] = rs["resource"].clone();
                span["resourceSchema"] = rs["schemaUrl"].clone();
                span["scope"] = scope.clone();
                span["scopeSchema"] = ss["schemaUrl"].clone();
                out.push(plain(&span).unwrap());
            }
        }
    }
    out.sort_by_key(|s| (s["traceId"].to_string(), s["spanId"].to_string(), s["name"].to_string()));
    out
}

/// A value without default members; `None` for a default.
fn plain(value: &Json) -> Option<Json> {
    match value {
        Json::Null => None,
        Json::Object(map) => {
            let map: Map<String, Json> = map
                .iter()
                .filter_map(|(k, v)| {
                    // Members of AnyValue have no default.
                    let v = match k.as_str() {
                        "stringValue" | "boolValue" | "bytesValue" => Some(v.clone()),
                        "doubleValue" => Some(serde_json::json!(v.as_f64())),
                        "intValue" => Some(Json::String(v.as_str().map_or(v.to_string(), str::to_owned))),
                        "value" | "arrayValue" | "kvlistValue" => {
                            Some(plain(v).unwrap_or(Json::Object(Map::new())))
                        }
                        "kind" => enumeration(
                            v,
                            &["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"],
                        ),
                        "code" => enumeration(v, &["UNSET", "OK", "ERROR"]),
                        _ => plain(v),
                    }?;
                    Some((k.clone(), v))
                })
                .collect();
            (!map.is_empty()).then_some(Json::Object(map))
        }
        Json::Array(list) if list.is_empty() => None,
        // An element keeps its place even if it is a default.
        Json::Array(list) => {
            Some(list.iter().map(|v| plain(v).unwrap_or(Json::Object(Map::new()))).collect())
        }
        Json::String(s) if s.is_empty() || s == "0" => None,
        Json::Number(n) if n.as_f64() == Some(0.0) => None,
        other => Some(other.clone()),
    }
}

fn enumeration(value: &Json, names: &[&str]) -> Option<Json> {
    let number = match value {
        Json::String(name) => names.iter().position(|n| name.ends_with(n)).map(|n| n as u64),
        other => other.as_u64(),
    }?;
    (number != 0).then(|| number.into())
}

/// What the sidecars of the captured payloads count. `failed` counts errors as
/// the wire has them.
pub fn summary(batch: &Batch, failed: impl Fn(&Span) -> bool) -> Json {
    use serde_json::json;
    let mut services = std::collections::BTreeMap::<&str, u64>::new();
    let mut names = std::collections::BTreeMap::<&str, u64>::new();
    let mut traces = std::collections::BTreeMap::<String, [u64; 2]>::new();
    for span in &batch.spans {
        *services.entry(batch.str(span.service)).or_default() += 1;
        *names.entry(batch.str(span.name)).or_default() += 1;
        let entry = traces.entry(span.trace_id.to_string()).or_default();
        entry[0] += 1;
        entry[1] += u64::from(failed(span));
    }
    let by_trace: Map<String, Json> = traces
        .iter()
        .map(|(id, [spans, errors])| (id.clone(), json!({"spans": spans, "errors": errors})))
        .collect();
    json!({
        "traces": traces.len(),
        "spans": batch.spans.len(),
        "errors": batch.spans.iter().filter(|s| failed(s)).count(),
        "roots": batch.spans.iter().filter(|s| s.parent_id.is_zero()).count(),
        "by_service": services,
        "by_name": names,
        "sum_duration_ns": batch.spans.iter().map(|s| s.duration).sum::<i64>(),
        "min_start_ns": batch.spans.iter().map(|s| s.start).min(),
        "by_trace": by_trace,
    })
}

/// Checks what every batch promises.
pub fn check_invariants(batch: &Batch) {
    let mut next = 0;
    for chunk in &batch.chunks {
        assert_eq!(chunk.spans.start, next, "chunks leave no gap");
        next = chunk.spans.end;
        assert!((chunk.resource as usize) < batch.resources.len());
        for span in batch.chunk_spans(chunk) {
            assert_eq!(span.trace_id, chunk.trace_id);
            assert!(!span.trace_id.is_zero() && !span.span_id.is_zero());
            assert!(span.attrs.end as usize <= batch.attrs.len());
            assert!(span.scope == spanloom_model::NO_SCOPE || (span.scope as usize) < batch.scopes.len());
        }
    }
    assert_eq!(next as usize, batch.spans.len());
}
