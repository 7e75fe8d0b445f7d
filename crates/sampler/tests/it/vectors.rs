//! The cases of `fixtures/vectors/sampler.json`.

use crate::make::{NOW, SECOND, batch};
use serde_json::{Value as Json, json};
use spanloom_model::TraceId;
use spanloom_sampler::{
    Catalog, CoreSampler, Probabilistic, Samplers, Settings, compute_tps_per_signature, next_rate,
    rates_by_service, signature, zero_and_get_max,
};

fn read(name: &str) -> Json {
    let path = format!("{}/../../fixtures/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn text(v: &Json) -> &str {
    v.as_str().unwrap()
}

fn floats(v: &Json) -> Vec<f64> {
    v.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn trace_hash(spans: &Json, env: &Json, root: usize) -> u32 {
    let b = batch(spans.as_array().unwrap());
    signature::trace_signature(&b, &b.chunks[0], root, text(env), &mut Vec::new())
}

fn counted(input: &Json) -> CoreSampler {
    let mut core = CoreSampler::new(input["target"].as_f64().unwrap(), 1.0, 0);
    for count in input["counts"].as_array().unwrap() {
        let at = NOW + (count["at_s"].as_f64().unwrap() * 1e9) as i64;
        core.count(at, count["sig"].as_u64().unwrap() as u32, count["n"].as_f64().unwrap() as f32);
    }
    core
}

/// A chunk and samplers that answer as the case demands.
fn decision(config: &Json, input: &Json) -> &'static str {
    let is = |key: &str| config[key] == json!(true);
    let mut settings = Settings {
        rare: is("rare_enabled"),
        error_tracking_standalone: is("error_tracking_standalone"),
        ..Settings::default()
    };
    if is("probabilistic") {
        let keep = input["probabilistic_says"] == json!("keep");
        settings.probabilistic = Some(Probabilistic::new(if keep { 100.0 } else { 0.0 }, 0, false));
    }
    let rare = input["rare_says_keep"] == json!(true);
    let error = u8::from(input["has_error"] == json!(true));
    let metrics = if rare { json!({"_top_level": 1}) } else { json!({}) };
    let mut b = batch(&[json!({"service": "s", "error": error, "metrics": metrics})]);
    b.chunks[0].priority = input["priority"].as_i64().unwrap() as i32;
    let d = Samplers::new(&settings).decide(&mut b, 0, NOW);
    if d.keep { "keep" } else { "drop" }
}

fn answer(op: &str, config: &Json, input: &Json) -> Option<Json> {
    Some(match op {
        "compute_tps_per_sig" => {
            json!(compute_tps_per_signature(input["target"].as_f64().unwrap(), floats(&input["seen"])))
        }
        "zero_and_get_max" => {
            let mut ring = [0f32; 6];
            ring.iter_mut().zip(floats(&input["buckets"])).for_each(|(r, v)| *r = v as f32);
            let n = |k: &str| input[k].as_i64().unwrap();
            let max = zero_and_get_max(&mut ring, n("previous_bucket"), n("new_bucket"));
            json!({"max": max as u64, "buckets": ring.map(|v| v as u64)})
        }
        "service_signature_key" => {
            json!(signature::service_key(text(&input["service"]), text(&input["env"])))
        }
        "service_signature_hash" => {
            json!(signature::service_signature(text(&input["service"]), text(&input["env"])).to_string())
        }
        "trace_signature_equal" => {
            json!(trace_hash(&input["a"], &input["env"], 0) == trace_hash(&input["b"], &input["env"], 0))
        }
        "trace_signature" => {
            let root = input["root"].as_u64().unwrap() as usize;
            json!(trace_hash(&input["spans"], &input["env"], root).to_string())
        }
        "sample_by_rate" => {
            let id = TraceId(text(&input["trace_id"]).parse().unwrap());
            json!(signature::sample_by_rate(id, input["rate"].as_f64().unwrap()))
        }
        "probabilistic_sample" => {
            let seed = config["hash_seed"].as_u64().unwrap() as u32;
            let full = config["full_trace_id"].as_bool().unwrap();
            let p = Probabilistic::new(config["percentage"].as_f64().unwrap() as f32, seed, full);
            let b = batch(&[json!({"trace_id": input["trace_id"], "meta": input["meta"]})]);
            let meta = |k: &str| input["meta"][k].as_str().map(|s| TraceId::parse_hex(s).unwrap().0);
            let low = b.spans[0].trace_id.low();
            let id = meta("otel.trace_id").unwrap_or(meta("_dd.p.tid").unwrap_or(0) << 64 | u128::from(low));
            let v = p.verdict(TraceId(id));
            assert_eq!(v.keep, p.sample(&b, &b.spans[0]));
            json!({"keep": v.keep, "bucket": v.bucket, "threshold": v.threshold})
        }
        "default_rate" => json!(counted(input).default_rate()),
        "rates_after" => {
            let core = counted(input);
            let rates: serde_json::Map<_, _> =
                core.known().map(|s| (s.to_string(), json!(core.known_rate(s)))).collect();
            json!({"rates": rates, "default": core.default_rate()})
        }
        "next_rate" => {
            json!(next_rate(input["previous"].as_f64().unwrap(), input["computed"].as_f64().unwrap()))
        }
        "rates_by_service" => {
            let mut catalog = Catalog::new(100, 0);
            for pair in input["registered"].as_array().unwrap() {
                catalog.register(text(&pair[0]), text(&pair[1]));
            }
            let rates: Vec<(u32, f64)> = input["rates"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(k, v)| {
                    let (service, env) = k.split_once('|').unwrap();
                    (signature::service_signature(service, env), v.as_f64().unwrap())
                })
                .collect();
            let rate = |s| rates.iter().find(|r| r.0 == s).map(|r| r.1);
            let default = input["default"].as_f64().unwrap();
            json!(rates_by_service(&mut catalog, text(&input["agent_env"]), rate, default))
        }
        "catalog_lru" => {
            let mut catalog = Catalog::new(input["max"].as_u64().unwrap() as usize, 0);
            for pair in input["register"].as_array().unwrap() {
                catalog.register(text(&pair[0]), text(&pair[1]));
            }
            json!(catalog.services())
        }
        "decision" => json!(decision(config, input)),
        // The exporters' own cases.
        "status_is_retriable" | "connections_per_endpoint" | "backoff_upper_bound_ms" => return None,
        other => panic!("unknown op {other}"),
    })
}

fn same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Object(x), Json::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, v)| y.get(k).is_some_and(|w| same(v, w)))
        }
        _ => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()),
            _ => a == b,
        },
    }
}

#[test]
fn every_case_of_the_sampler_vectors_holds() {
    let cases = read("sampler.json")["cases"].as_array().unwrap().clone();
    let mut failed = Vec::new();
    let mut seen = 0;
    for case in &cases {
        let Some(got) = answer(text(&case["op"]), &case["config"], &case["input"]) else { continue };
        seen += 1;
        if !same(&got, &case["expected"]) {
            failed.push(format!("{} {}: got {got}, expected {}", case["id"], case["op"], case["expected"]));
        }
    }
    assert_eq!((cases.len(), seen), (98, 81));
    assert!(failed.is_empty(), "{} of {seen}:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn the_root_is_the_one_of_the_normalisation_vectors() {
    let mut seen = 0;
    for case in read("normalize_trace.json")["cases"].as_array().unwrap() {
        if case["op"] == json!("get_root") {
            let b = batch(case["input"].as_array().unwrap());
            let root = b.chunk_root(&b.chunks[0]).unwrap();
            assert_eq!(json!(b.spans[root].span_id.0), case["expected"], "{}", case["id"]);
            seen += 1;
        }
    }
    assert_eq!((seen, SECOND), (4, 1_000_000_000));
}
