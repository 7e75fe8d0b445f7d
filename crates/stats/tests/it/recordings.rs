//! Requests replayed from the recordings of the reference
//! (`fixtures/golden-agent`): the statistics must be the ones it sent. Starts
//! of buckets are not compared, the recordings mask them.

use serde_json::{Map, Value as Json, json};
use spanloom_codec::datadog::{Encoding, RequestMeta, decode_traces};
use spanloom_model::stats::StatsPayload;
use spanloom_model::{Batch, Fate, Intake, Leaves, Protocol};
use spanloom_obfuscator::{Obfuscator, quantize_peer_ip};
use spanloom_processors::{Agent, AgentConfig, Counts, SpanObfuscator};
use spanloom_sampler::Samplers;
use spanloom_stats::{Concentrator, Settings, Sketch};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const NOW: i64 = 1_795_190_005_000_000_000;

fn recordings() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden-agent");
    let mut all: Vec<PathBuf> = ["captured", "own", "random"]
        .iter()
        .flat_map(|dir| std::fs::read_dir(root.join(dir)).unwrap())
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "json"))
        .collect();
    all.sort();
    all
}

fn header<'a>(request: &'a Json, name: &str) -> &'a str {
    let of = request["headers"].as_array().unwrap().iter();
    of.filter(|h| h[0].as_str().unwrap().eq_ignore_ascii_case(name))
        .map(|h| h[1].as_str().unwrap())
        .next()
        .unwrap_or("")
}

/// Counts a trace request after the Agent's steps.
fn count(request: &Json, body: Vec<u8>, to: &mut Concentrator, samplers: &mut Samplers) {
    let protocol = match request["path"].as_str().unwrap() {
        "/v0.3/traces" => Protocol::DatadogV03,
        "/v0.4/traces" => Protocol::DatadogV04,
        "/v0.5/traces" => Protocol::DatadogV05,
        "/v0.7/traces" => Protocol::DatadogV07,
        "/v1.0/traces" => Protocol::DatadogV1,
        _ => return,
    };
    let mut intake = Intake::default();
    intake.client.computed_top_level = !header(request, "Datadog-Client-Computed-Top-Level").is_empty();
    intake.client.computed_stats = !matches!(
        header(request, "Datadog-Client-Computed-Stats"),
        "" | "false" | "0" | "f" | "F" | "FALSE" | "False"
    );
    let meta = RequestMeta {
        lang: header(request, "Datadog-Meta-Lang"),
        lang_version: header(request, "Datadog-Meta-Lang-Version"),
        tracer_version: header(request, "Datadog-Meta-Tracer-Version"),
        container_id: header(request, "Datadog-Container-ID"),
        process_tags: header(request, "X-Datadog-Process-Tags"),
    };
    let json = header(request, "Content-Type").starts_with("application/json");
    let encoding = if json { Encoding::Json } else { Encoding::Msgpack };
    let batch = decode_traces(protocol, encoding, body.into(), intake, &meta);
    let Ok(mut batch) = batch else { return };
    let mut obfuscator = SpanObfuscator::new(Arc::new(Obfuscator::new(Default::default())), true);
    let scrub = move |b: &mut Batch, span: usize| obfuscator.scrub(b, span);
    // As in the reference each chunk is counted before the next is looked at
    // (what the payload lacks is taken from chunks as they come), and the last
    // takes the place of a removed one.
    let mut agent = Agent::new(AgentConfig::default(), scrub);
    let mut order: Vec<usize> = (0..batch.chunks.len()).collect();
    let mut i = 0;
    while let Some(&at) = order.get(i) {
        for (other, chunk) in batch.chunks.iter_mut().enumerate() {
            chunk.fate = if other == at { Fate::Kept } else { Fate::Filtered("not its turn") };
        }
        agent.process(&mut batch, NOW, &mut Counts::default());
        if batch.chunks[at].fate == Fate::Kept {
            if !intake.client.computed_stats {
                to.add_chunk(&batch, &batch.chunks[at], NOW);
            }
            if samplers.decide(&mut batch, at, NOW).leaves != Leaves::Nothing {
                i += 1;
                continue;
            }
        }
        order.swap_remove(i);
    }
}

/// How statements are scrubbed is the obfuscators' matter, and differs on
/// purpose where the reference leaks.
fn resource<'a>(span_type: &str, resource: &'a str) -> &'a str {
    if matches!(span_type, "sql" | "cassandra" | "db") { "*" } else { resource }
}

fn sketch(bytes: &[u8]) -> Json {
    let sketch = Sketch::decode(bytes).unwrap();
    bins(sketch.bins().map(|(i, c)| (i.to_string(), json!(c))).collect(), sketch.zero_count())
}

fn bins(positive: Map<String, Json>, zero: f64) -> Json {
    json!({"positive": positive, "zero": zero})
}

/// Figures per key; the key is the text of all fields that are not figures.
type Figures = BTreeMap<String, Json>;

fn ours(payloads: &[StatsPayload]) -> Figures {
    let mut out = Figures::new();
    for p in payloads {
        for s in &p.stats {
            for g in s.stats.iter().flat_map(|b| &b.stats) {
                let key = json!([
                    p.client_computed,
                    s.hostname,
                    s.env,
                    s.version,
                    s.lang,
                    s.service,
                    s.container_id,
                    s.git_commit_sha,
                    s.image_tag,
                    s.process_tags,
                    s.process_tags_hash.to_string(),
                    g.service,
                    g.name,
                    resource(&g.span_type, &g.resource),
                    g.http_status_code,
                    g.span_type,
                    g.db_type,
                    g.synthetics,
                    g.span_kind,
                    g.peer_tags,
                    g.is_trace_root.number(),
                    g.grpc_status_code,
                    g.http_method,
                    g.http_endpoint,
                    g.service_source,
                ]);
                add(
                    &mut out,
                    key,
                    json!([g.hits, g.errors, g.duration, g.top_level_hits]),
                    &[sketch(&g.ok_summary), sketch(&g.error_summary)],
                );
            }
        }
    }
    out
}

fn theirs(intake: &[Json]) -> Figures {
    let mut out = Figures::new();
    for p in intake.iter().filter_map(|i| i.get("stats_payload")) {
        for s in p["Stats"].as_array().unwrap() {
            for b in s["Stats"].as_array().unwrap() {
                for g in b["Stats"].as_array().unwrap() {
                    let key = json!([
                        p["ClientComputed"],
                        s["Hostname"],
                        s["Env"],
                        s["Version"],
                        s["Lang"],
                        s["Service"],
                        s["ContainerID"],
                        s["GitCommitSha"],
                        s["ImageTag"],
                        s["ProcessTags"],
                        s["ProcessTagsHash"],
                        g["Service"],
                        g["Name"],
                        resource(g["Type"].as_str().unwrap(), g["Resource"].as_str().unwrap()),
                        g["HTTPStatusCode"],
                        g["Type"],
                        g["DBType"],
                        g["Synthetics"],
                        g["SpanKind"],
                        g["PeerTags"],
                        g["IsTraceRoot"],
                        g["GRPCStatusCode"],
                        g["HTTPMethod"],
                        g["HTTPEndpoint"],
                        g["srv_src"],
                    ]);
                    let duration: u64 = g["Duration"].as_str().unwrap().parse().unwrap();
                    let of = |name: &str| {
                        let s = &g[name];
                        bins(
                            s["positive"].as_object().cloned().unwrap_or_default(),
                            s["zeroCount"].as_f64().unwrap_or(0.0),
                        )
                    };
                    add(
                        &mut out,
                        key,
                        json!([g["Hits"], g["Errors"], duration, g["TopLevelHits"]]),
                        &[of("OkSummary"), of("ErrorSummary")],
                    );
                }
            }
        }
    }
    out
}

/// Adds figures under a key; the same key in several buckets adds up.
fn add(out: &mut Figures, key: Json, figures: Json, sketches: &[Json; 2]) {
    let entry =
        out.entry(key.to_string()).or_insert_with(|| json!({"figures": [0, 0, 0, 0], "sketches": [{}, {}]}));
    for i in 0..4 {
        let sum = entry["figures"][i].as_u64().unwrap() + figures[i].as_u64().unwrap();
        entry["figures"][i] = json!(sum);
    }
    for i in 0..2 {
        let mut merged = vec![("zero".to_owned(), sketches[i]["zero"].as_f64().unwrap())];
        merged.extend(
            sketches[i]["positive"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(k, v)| (k.clone(), v.as_f64().unwrap())),
        );
        for (bin, count) in merged {
            let to = &mut entry["sketches"][i][bin];
            *to = json!(to.as_f64().unwrap_or(0.0) + count);
        }
    }
}

fn show(figures: &[(&String, &Json)]) -> String {
    figures
        .iter()
        .map(|(k, v)| format!("{k} {} {}", v["figures"], v["sketches"]))
        .collect::<Vec<_>>()
        .join("\n    ")
}

#[test]
fn recorded_requests_give_the_recorded_statistics() {
    let (mut seen, mut groups) = (0, 0);
    let mut failed = Vec::new();
    for path in recordings() {
        let recording: Json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let requests = recording["requests"].as_array().unwrap();
        let of_tracers = requests.iter().any(|r| r["path"] == json!("/v0.6/stats"));
        let plain = recording["settings"].as_object().unwrap().keys().all(|k| k == "DD_APM_RECEIVER_SOCKET");
        let per_request = recording["process_per_request"] == json!(true);
        // Its times are those of the recording, which the masks hide.
        let live = path.ends_with("stats-buckets-live.json");
        if of_tracers || !plain || per_request || live {
            continue;
        }
        let settings = Settings {
            hostname: "golden-host".into(),
            quantize_peer: quantize_peer_ip,
            ..Settings::default()
        };
        let mut c = Concentrator::new(settings, NOW);
        let mut samplers = Samplers::new(&Default::default());
        for request in requests {
            let Some(body) = request["body_file"].as_str() else { continue };
            let body = std::fs::read(path.parent().unwrap().join(body)).unwrap();
            count(request, body, &mut c, &mut samplers);
        }
        let got = ours(&[c.flush(NOW, true, &mut || 0.5)]);
        let want = theirs(recording["intake"].as_array().unwrap());
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let random = recording["not_deterministic"].as_array().is_some_and(|n| !n.is_empty());
        seen += 1;
        groups += want.len();
        if got != want && !random {
            let lacks: Vec<_> = want.iter().filter(|w| got.get(w.0) != Some(w.1)).take(3).collect();
            let has: Vec<_> = got.iter().filter(|g| want.get(g.0) != Some(g.1)).take(3).collect();
            failed.push(format!("{name}: lacks\n    {}\n  has\n    {}", show(&lacks), show(&has)));
        }
    }
    assert!(failed.is_empty(), "{} of {seen} ({groups} groups):\n{}", failed.len(), failed.join("\n"));
    assert!(seen > 100 && groups > 500, "{seen} {groups}");
}
