//! Requests replayed from the recordings of the reference
//! (`fixtures/golden-agent`): the statistics must be the ones it sent. Starts
//! of buckets are not compared, the recordings mask them.

use serde_json::{Map, Value as Json, json};
use spanloom_codec::datadog::{Encoding, RequestMeta, decode_traces};
use spanloom_model::stats::StatsPayload;
use spanloom_model::{Batch, Fate, Intake, Leaves, Protocol, flags};
use spanloom_obfuscator::{Obfuscator, quantize_peer_ip};
use spanloom_processors::{Agent, AgentConfig, Counts, SpanObfuscator};
use spanloom_sampler::{Probabilistic, Samplers, Settings as SamplerSettings};
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
fn count(request: &Json, body: Vec<u8>, to: &mut Concentrator, samplers: &mut Samplers) -> Option<Batch> {
    let protocol = match request["path"].as_str().unwrap() {
        "/v0.1/traces" | "/v0.1/spans" | "/spans" => Protocol::DatadogV01,
        "/v0.2/traces" => Protocol::DatadogV02,
        "/v0.3/traces" => Protocol::DatadogV03,
        "/v0.4/traces" => Protocol::DatadogV04,
        "/v0.5/traces" => Protocol::DatadogV05,
        "/v0.7/traces" => Protocol::DatadogV07,
        "/v1.0/traces" => Protocol::DatadogV1,
        _ => return None,
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
    let encoding = match header(request, "Content-Type").split(';').next().unwrap_or("") {
        "application/msgpack" => Encoding::Msgpack,
        "" | "application/json" | "text/json" => Encoding::Json,
        _ => Encoding::JsonThenMsgpack,
    };
    let batch = decode_traces(protocol, encoding, body.into(), intake, &meta);
    let mut batch = batch.ok()?;
    let mut obfuscator = SpanObfuscator::new(Arc::new(Obfuscator::new(Default::default())), true);
    let scrub = move |b: &mut Batch, span: usize| obfuscator.scrub(b, span);
    let mut agent = Agent::new(AgentConfig::default(), scrub);
    let mut gone = Vec::new();
    agent.process(&mut batch, NOW, &mut Counts::default(), |batch, at| {
        if !intake.client.computed_stats {
            to.add_chunk(batch, &batch.chunks[at], NOW);
        }
        let stays = samplers.decide(batch, at, NOW).leaves != Leaves::Nothing;
        if !stays {
            gone.push(at);
        }
        stays
    });
    for at in gone {
        batch.chunks[at].fate = Fate::Filtered("gone");
    }
    Some(batch)
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

/// Samplers with the settings of a recording.
fn samplers(settings: &Json) -> Samplers {
    let is = |key: &str| settings[key] == json!("true");
    let number = |key: &str| settings[key].as_str().unwrap_or("0").parse::<f32>().unwrap();
    Samplers::new(&SamplerSettings {
        rare: is("DD_APM_ENABLE_RARE_SAMPLER"),
        error_tracking_standalone: is("DD_APM_ERROR_TRACKING_STANDALONE_ENABLED"),
        probabilistic: is("DD_APM_PROBABILISTIC_SAMPLER_ENABLED").then(|| {
            let seed = number("DD_APM_PROBABILISTIC_SAMPLER_HASH_SEED") as u32;
            Probabilistic::new(number("DD_APM_PROBABILISTIC_SAMPLER_SAMPLING_PERCENTAGE"), seed, false)
        }),
        ..SamplerSettings::default()
    })
}

/// A recording whose settings this test knows, replayed.
struct Replay {
    name: String,
    recording: Json,
    batches: Vec<Batch>,
    counted: Concentrator,
}

fn replays() -> impl Iterator<Item = Replay> {
    const KNOWN: [&str; 6] = [
        "DD_APM_RECEIVER_SOCKET",
        "DD_APM_ENABLE_RARE_SAMPLER",
        "DD_APM_ERROR_TRACKING_STANDALONE_ENABLED",
        "DD_APM_PROBABILISTIC_SAMPLER_ENABLED",
        "DD_APM_PROBABILISTIC_SAMPLER_HASH_SEED",
        "DD_APM_PROBABILISTIC_SAMPLER_SAMPLING_PERCENTAGE",
    ];
    recordings().into_iter().filter_map(|path| {
        let recording: Json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let settings = recording["settings"].as_object().unwrap();
        // Times of `stats-buckets-live` are those of the recording.
        let live = path.ends_with("stats-buckets-live.json");
        let per_request = recording["process_per_request"] == json!(true);
        if live || per_request || !settings.keys().all(|k| KNOWN.contains(&k.as_str())) {
            return None;
        }
        let settings = Settings {
            hostname: "golden-host".into(),
            quantize_peer: quantize_peer_ip,
            ..Settings::default()
        };
        let mut counted = Concentrator::new(settings, NOW);
        let mut samplers = samplers(&recording["settings"]);
        let mut batches = Vec::new();
        for request in recording["requests"].as_array().unwrap() {
            let Some(body) = request["body_file"].as_str() else { continue };
            let body = std::fs::read(path.parent().unwrap().join(body)).unwrap();
            batches.extend(count(request, body, &mut counted, &mut samplers));
        }
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        Some(Replay { name, recording, batches, counted })
    })
}

fn differences(name: &str, want: &Figures, got: &Figures) -> String {
    let lacks: Vec<_> = want.iter().filter(|w| got.get(w.0) != Some(w.1)).take(3).collect();
    let has: Vec<_> = got.iter().filter(|g| want.get(g.0) != Some(g.1)).take(3).collect();
    format!("{name}: lacks\n    {}\n  has\n    {}", show(&lacks), show(&has))
}

fn show(figures: &[(&String, &Json)]) -> String {
    figures.iter().map(|(k, v)| format!("{k} {v}")).collect::<Vec<_>>().join("\n    ")
}

#[test]
fn recorded_requests_give_the_recorded_statistics() {
    let (mut seen, mut groups) = (0, 0);
    let mut failed = Vec::new();
    for mut replay in replays() {
        let requests = replay.recording["requests"].as_array().unwrap();
        // Fractions of a weight are rounded at random.
        let random = replay.recording["not_deterministic"].as_array().is_some_and(|n| !n.is_empty());
        if random || requests.iter().any(|r| r["path"] == json!("/v0.6/stats")) {
            continue;
        }
        let got = ours(&[replay.counted.flush(NOW, true, &mut || 0.5)]);
        let want = theirs(replay.recording["intake"].as_array().unwrap());
        seen += 1;
        groups += want.len();
        if got != want {
            failed.push(differences(&replay.name, &want, &got));
        }
    }
    assert!(failed.is_empty(), "{} of {seen} ({groups} groups):\n{}", failed.len(), failed.join("\n"));
    assert!(seen > 140 && groups > 1000, "{seen} {groups}");
}

/// Metrics that samplers write or take away.
const SAMPLER_METRICS: [&str; 9] = [
    "_sampling_priority_rate_v1",
    "_dd.errors_sr",
    "_dd.no_p_sr",
    "_dd.prob_sr",
    "_dd.rare",
    "_dd.analyzed",
    "_dd1.sr.eausr",
    "_dd1.sr.eamax",
    "_dd1.sr.rcusr",
];

#[test]
fn recorded_requests_leave_as_the_samplers_of_the_reference_let_them() {
    let (mut seen, mut chunks) = (0, 0);
    let mut failed = Vec::new();
    for replay in replays() {
        let mut got = Figures::new();
        for batch in &replay.batches {
            if batch.intake.protocol == Protocol::DatadogV1 {
                continue;
            }
            for chunk in batch.chunks.iter().filter(|c| c.fate == Fate::Kept) {
                let all = chunk.sampled.leaves == Leaves::Whole;
                let spans: Vec<Json> = batch
                    .chunk_spans(chunk)
                    .iter()
                    .filter(|s| all || s.flags & flags::LEAVES != 0)
                    .map(|s| {
                        let metric = |k: &&str| Some((k.to_string(), batch.get_f64(s.attrs, k)?));
                        let metrics: BTreeMap<_, _> = SAMPLER_METRICS.iter().filter_map(metric).collect();
                        json!([s.span_id.0.to_string(), metrics])
                    })
                    .collect();
                let tag = |k: &str| batch.get_str(chunk.attrs, k).unwrap_or_default().to_owned();
                let key = json!([chunk.trace_id.low().to_string(), spans]).to_string();
                let tags = [tag("_dd.p.dm"), tag("_dd.error_tracking_standalone.error")];
                got.insert(key, json!([chunk.priority, chunk.dropped, tags]));
            }
        }
        let mut want = Figures::new();
        for intake in replay.recording["intake"].as_array().unwrap() {
            for payload in intake["agent_payload"]["tracerPayloads"].as_array().into_iter().flatten() {
                for chunk in payload["chunks"].as_array().into_iter().flatten() {
                    let spans = chunk["spans"].as_array().unwrap();
                    let of = |s: &Json| {
                        let metric = |k: &&str| Some((k.to_string(), s["metrics"][*k].as_f64()?));
                        let metrics: BTreeMap<_, _> = SAMPLER_METRICS.iter().filter_map(metric).collect();
                        json!([s["spanID"].as_str().unwrap_or("0"), metrics])
                    };
                    let id = spans[0]["traceID"].as_str().unwrap();
                    let key = json!([id, spans.iter().map(of).collect::<Vec<_>>()]).to_string();
                    let tag = |k: &str| chunk["tags"][k].as_str().unwrap_or_default().to_owned();
                    let tags = [tag("_dd.p.dm"), tag("_dd.error_tracking_standalone.error")];
                    let priority = chunk["priority"].as_i64().unwrap_or(0);
                    want.insert(key, json!([priority, chunk["droppedTrace"] == json!(true), tags]));
                }
            }
        }
        seen += 1;
        chunks += want.len();
        if got != want {
            failed.push(differences(&replay.name, &want, &got));
        }
    }
    assert!(failed.is_empty(), "{} of {seen} ({chunks} chunks):\n{}", failed.len(), failed.join("\n"));
    assert!(seen > 150 && chunks > 400, "{seen} {chunks}");
}
