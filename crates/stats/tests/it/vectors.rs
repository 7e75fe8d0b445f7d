//! The cases of `fixtures/vectors/stats.json`.

use crate::make::{NOW, SECOND, batch, counted, settings};
use serde_json::{Value as Json, json};
use spanloom_model::stats::{ClientGroupedStats, StatsPayload};
use spanloom_stats::{
    Concentrator, Settings, Sketch, client_bucket_time, rules, sketch_index, split, truncate_duration,
};

fn read(name: &str) -> Json {
    let path = format!("{}/../../fixtures/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn with(mut a: Json, b: &Json) -> Json {
    for (k, v) in b.as_object().into_iter().flatten() {
        a[k] = v.clone();
    }
    a
}

/// The one group of one span that counts.
fn group(settings: Settings, span: Json) -> ClientGroupedStats {
    let b = batch(&[with(json!({"metrics": {"_top_level": 1}}), &span)]);
    counted(settings, &b).peek().stats[0].stats[0].stats[0].clone()
}

fn peers(config: &Json) -> Settings {
    let keys = config["peer_tag_keys"].as_array().unwrap();
    Settings { peer_tags: keys.iter().map(|k| k.as_str().unwrap().to_owned()).collect(), ..settings() }
}

fn groups(payload: &StatsPayload) -> Vec<&ClientGroupedStats> {
    payload.stats.iter().flat_map(|s| &s.stats).flat_map(|b| &b.stats).collect()
}

fn strings(v: &Json) -> Vec<String> {
    v.as_array().unwrap().iter().map(|s| s.as_str().unwrap().to_owned()).collect()
}

fn seconds(v: &Json) -> i64 {
    (v.as_f64().unwrap() * 10.0).round() as i64 * (SECOND / 10)
}

fn number(v: &Json) -> u64 {
    v.as_str().unwrap().parse().unwrap()
}

fn answer(op: &str, config: &Json, input: &Json) -> Json {
    match op {
        "status_code" => {
            let mut metrics = json!({"_top_level": 1});
            metrics = with(metrics, &input["metrics"]);
            json!(group(settings(), json!({"meta": input["meta"], "metrics": metrics})).http_status_code)
        }
        "root_weight" => json!(rules::weight(input["_sample_rate"].as_f64())),
        "grpc_status" => {
            let status = rules::grpc_status(input.as_str().unwrap());
            let by_span = group(settings(), json!({"meta": {"grpc.code": input}})).grpc_status_code;
            let text = status.map(|s| s.to_string()).unwrap_or_default();
            assert_eq!(text, by_span);
            json!(text)
        }
        "peer_tags" => {
            let tags = group(peers(config), json!({"meta": input})).peer_tags;
            json!({"tags": tags, "hash": rules::tags_hash(&tags).to_string()})
        }
        "tags_hash" => json!(rules::tags_hash(&strings(input)).to_string()),
        "process_tags_hash" => json!(rules::process_tags_hash(input.as_str().unwrap()).to_string()),
        "span_counts_in_stats" => {
            let by_span_kind = config["compute_stats_by_span_kind"].as_bool().unwrap_or(true);
            let c = counted(Settings { by_span_kind, ..settings() }, &batch(std::slice::from_ref(input)));
            json!(c.counters().spans == 1)
        }
        "duration_truncate" => json!(truncate_duration(number(input))),
        "ddsketch_index" => json!(sketch_index(input.as_f64().unwrap())),
        "ddsketch_bins" => {
            let mut sketch = Sketch::default();
            for ns in strings(input) {
                sketch.add(truncate_duration(ns.parse().unwrap()));
            }
            let sketch = Sketch::decode(&sketch.to_bytes()).unwrap();
            let bins: serde_json::Map<_, _> =
                sketch.bins().map(|(i, c)| (i.to_string(), json!(c as u64))).collect();
            json!({"zero_count": sketch.zero_count() as u64, "bins": bins})
        }
        "bucket_start_s" => {
            let end = seconds(&input["span_end_s"]);
            let b = batch(&[json!({"start": end - 5, "duration": 5, "metrics": {"_top_level": 1}})]);
            let mut c = Concentrator::new(settings(), seconds(&input["oldest_s"]));
            c.add_chunk(&b, &b.chunks[0], NOW);
            json!(c.peek().stats[0].stats[0].start as i64 / SECOND)
        }
        "bucket_flushed" => {
            let bucket = seconds(&input["bucket_s"]);
            let b = batch(&[json!({"start": bucket, "duration": 5, "metrics": {"_top_level": 1}})]);
            let mut c = Concentrator::new(settings(), bucket);
            c.add_chunk(&b, &b.chunks[0], bucket);
            json!(!c.flush(seconds(&input["now_s"]), false, &mut || 0.5).stats.is_empty())
        }
        "synthetics_flag" => json!(rules::is_synthetics(input.as_str().unwrap())),
        "is_trace_root" => {
            let root = group(settings(), json!({"parent_id": input["parent_id"]})).is_trace_root;
            json!(format!("{root:?}").to_uppercase())
        }
        "same_bucket_key" => {
            let b = batch(&[input["a"].clone()]);
            let mut c = counted(peers(config), &b);
            let b = batch(&[input["b"].clone()]);
            c.add_chunk(&b, &b.chunks[0], NOW);
            let payload = c.peek();
            assert_eq!(groups(&payload).iter().map(|g| g.hits).sum::<u64>(), 2);
            json!(groups(&payload).len() == 1)
        }
        "client_bucket_time_s" => {
            let s = |k: &str| input[k].as_i64().unwrap() * SECOND;
            json!(client_bucket_time(s("now_s"), s("client_bucket_start_s"), s("oldest_s")) / SECOND)
        }
        "stats_payload_parts" => {
            let mut payload = StatsPayload::default();
            payload.stats.push(Default::default());
            payload.stats[0].stats.push(Default::default());
            let n = input["groups"].as_u64().unwrap() as usize;
            payload.stats[0].stats[0].stats = vec![ClientGroupedStats::default(); n];
            json!(split(payload, config["max_entries"].as_u64().unwrap() as usize).len())
        }
        other => panic!("unknown op {other}"),
    }
}

fn same(a: &Json, b: &Json) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()),
        _ => a == b,
    }
}

#[test]
fn every_case_of_the_stats_vectors_holds() {
    let cases = read("stats.json")["cases"].as_array().unwrap().clone();
    let mut failed = Vec::new();
    for case in &cases {
        let got = answer(case["op"].as_str().unwrap(), &case["config"], &case["input"]);
        if !same(&got, &case["expected"]) {
            failed.push(format!("{} {}: got {got}, expected {}", case["id"], case["op"], case["expected"]));
        }
    }
    assert_eq!(cases.len(), 97);
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), cases.len(), failed.join("\n"));
}

#[test]
fn marks_of_spans_decide_as_in_the_normalisation_vectors() {
    let mut seen = 0;
    for case in read("normalize_trace.json")["cases"].as_array().unwrap() {
        let op = case["op"].as_str().unwrap();
        let counts = |metrics: Json| {
            let settings = Settings { by_span_kind: false, ..settings() };
            counted(settings, &batch(&[json!({"metrics": metrics})])).counters().spans == 1
        };
        let got = match op {
            "is_measured" | "has_top_level" => counts(case["input"].clone()),
            "is_partial_snapshot" => !counts(with(json!({"_top_level": 1}), &case["input"])),
            _ => continue,
        };
        seen += 1;
        assert_eq!(json!(got), case["expected"], "{} {op}", case["id"]);
    }
    assert_eq!(seen, 8);
}
