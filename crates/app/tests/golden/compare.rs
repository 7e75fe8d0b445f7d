//! Compares by meaning, as `fixtures/golden-agent/README.md` says: chunks,
//! groups and payloads are sets, spans are sequences, masked values are
//! checked against the clock.

use crate::player::{Played, Reply, ten_seconds};
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;

/// A place where the program differs from the recording.
#[derive(Debug, Clone)]
pub struct Difference {
    /// Where, with `/` between the parts.
    pub path: String,
    pub want: Json,
    pub got: Json,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = |v: &Json| {
            let text = if v.is_null() { "(nothing)".to_owned() } else { v.to_string() };
            text.chars().take(700).collect::<String>()
        };
        write!(f, "{}\n      recorded {}\n      ours     {}", self.path, short(&self.want), short(&self.got))
    }
}

/// What the intake got, in a form in which order and division of payloads
/// make no difference.
pub fn arrange(intake: &[Json]) -> Json {
    let mut out = json!({});
    let mut heads: BTreeMap<String, ()> = BTreeMap::new();
    for kind in ["tracerPayloads", "idxTracerPayloads"] {
        let mut all = Vec::new();
        for request in intake {
            let payload = &request["agent_payload"];
            let Some(object) = payload.as_object() else { continue };
            let mut head = object.clone();
            head.remove("tracerPayloads");
            head.remove("idxTracerPayloads");
            heads.insert(
                json!({"head": head, "headers": request["headers"], "method": request["method"]}).to_string(),
                (),
            );
            for payload in payload[kind].as_array().into_iter().flatten() {
                let mut payload = payload.clone();
                let chunks = payload["chunks"].as_array().cloned().unwrap_or_default();
                payload["chunks"] = keyed(chunks, chunk_key);
                all.push(payload);
            }
        }
        out[kind] =
            keyed(all, |p| p["chunks"].as_object().unwrap().keys().next().cloned().unwrap_or_default());
    }
    out["requests"] = heads.into_keys().map(|h| serde_json::from_str::<Json>(&h).unwrap()).collect();
    let mut stats: BTreeMap<String, Vec<Json>> = BTreeMap::new();
    let mut headers: BTreeMap<String, Json> = BTreeMap::new();
    for request in intake {
        let Some(payload) = request["stats_payload"].as_object() else { continue };
        let mut flags = payload.clone();
        let clients = flags.remove("Stats").unwrap();
        let flags = Json::Object(flags).to_string();
        headers.insert(flags.clone(), json!([request["headers"], request["method"], request["path"]]));
        for client in clients.as_array().unwrap() {
            let mut client = client.clone();
            let mut buckets = client["Stats"].as_array().unwrap().clone();
            buckets.sort_by_key(|b| b["Start"].to_string());
            for bucket in &mut buckets {
                bucket["Stats"] = keyed(bucket["Stats"].as_array().unwrap().clone(), group_key);
            }
            client["Stats"] = json!(buckets);
            stats.entry(flags.clone()).or_default().push(client);
        }
    }
    for (flags, clients) in stats {
        let client_key = |c: &Json| {
            let names =
                ["Service", "Env", "Version", "Hostname", "ContainerID", "Lang", "ImageTag", "GitCommitSha"];
            names.map(|n| c[n].as_str().unwrap_or("(none)").to_owned()).join("|")
        };
        out["stats"][&flags] = json!({"request": headers[&flags], "clients": keyed(clients, client_key)});
    }
    out
}

fn chunk_key(chunk: &Json) -> String {
    let text = |v: &Json| v.as_str().unwrap_or("0").to_owned();
    let first = &chunk["spans"][0];
    let id = if chunk["traceID"].is_string() { &chunk["traceID"] } else { &first["traceID"] };
    format!("{}:{}", text(id), text(&first["spanID"]))
}

/// All fields of a group that are not figures.
fn group_key(group: &Json) -> String {
    const FIGURES: [&str; 6] = ["Hits", "Errors", "Duration", "TopLevelHits", "OkSummary", "ErrorSummary"];
    let fields = group.as_object().unwrap().iter().filter(|(k, _)| !FIGURES.contains(&k.as_str()));
    fields
        .filter(|(_, v)| !matches!(v.to_string().as_str(), "\"\"" | "0" | "[]" | "false"))
        .map(|(k, v)| format!("{k}={v}"))
        .collect::<Vec<_>>()
        .join(" ")
}

/// A list as an object; equal keys are numbered.
fn keyed(list: Vec<Json>, key: impl Fn(&Json) -> String) -> Json {
    let mut pairs: Vec<(String, String, Json)> =
        list.into_iter().map(|v| (key(&v), v.to_string(), v)).collect();
    pairs.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    let mut out = Map::new();
    for (key, _, value) in pairs {
        let twins = (0..).map(|n| if n == 0 { key.clone() } else { format!("{key}#{n}") });
        let name = twins.into_iter().find(|k| !out.contains_key(k)).unwrap();
        out.insert(name, value);
    }
    Json::Object(out)
}

/// Differences between the arranged intake of the recording and of the program.
pub fn intake(want: &[Json], got: &[Json], times: [i64; 3]) -> Vec<Difference> {
    let mut out = Vec::new();
    Walk { times, out: &mut out }.value("intake", &arrange(want), &arrange(got), &Json::Null);
    out
}

struct Walk<'a> {
    times: [i64; 3],
    out: &'a mut Vec<Difference>,
}

impl Walk<'_> {
    /// `holder` is the object of ours that the value is in.
    fn value(&mut self, path: &str, want: &Json, got: &Json, holder: &Json) {
        match (want, got) {
            (Json::Object(a), Json::Object(b)) => {
                for (key, want) in a {
                    self.value(&format!("{path}/{key}"), want, b.get(key).unwrap_or(&Json::Null), got);
                }
                for (key, value) in b.iter().filter(|(k, _)| !a.contains_key(*k)) {
                    self.value(&format!("{path}/{key}"), &Json::Null, value, got);
                }
            }
            (Json::Array(a), Json::Array(b)) => {
                for i in 0..a.len().max(b.len()) {
                    let at = |list: &[Json]| list.get(i).cloned().unwrap_or(Json::Null);
                    self.value(&format!("{path}/{i}"), &at(a), &at(b), got);
                }
            }
            (Json::Number(a), Json::Number(b)) if a.is_f64() || b.is_f64() => {
                let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
                let merged = path.contains("/positive/") || path.contains("/negative/");
                // The last bit of a printed number depends on who reads it.
                let bound = if merged { 1e-9 } else { 1e-15 * a.abs().max(b.abs()) };
                if (a - b).abs() > bound {
                    self.note(path, want, got);
                }
            }
            (Json::String(mask), Json::String(value))
                if mask.starts_with('<') && self.mask(mask, value, holder) => {}
            _ if want != got => self.note(path, want, got),
            _ => {}
        }
    }

    fn note(&mut self, path: &str, want: &Json, got: &Json) {
        self.out.push(Difference { path: path.into(), want: want.clone(), got: got.clone() });
    }

    fn mask(&self, mask: &str, value: &str, holder: &Json) -> bool {
        const SECOND: i64 = 1_000_000_000;
        let [started, ready, ended] = self.times;
        let Ok(time) = value.parse::<i64>() else { return mask == value };
        if let Some(n) = mask.strip_prefix("<T0+").and_then(|m| m.strip_suffix(" s>")) {
            let n: i64 = n.parse().unwrap();
            return [started, ready].iter().any(|t| time == ten_seconds(*t) + n * SECOND);
        }
        match mask {
            "<time of recording>" => {
                time % (2 * SECOND) == SECOND && time > started - 25 * SECOND && time < ended + SECOND
            }
            "<now - duration>" => {
                let duration: i64 = holder["duration"].as_str().map_or(0, |d| d.parse().unwrap());
                (started..=ended).contains(&time.saturating_add(duration))
            }
            "<shifted>" => true,
            _ => mask == value,
        }
    }
}

/// Differences between a recorded answer and ours.
pub fn reply(at: usize, want: &Json, got: Option<&Reply>, played: &Played) -> Vec<Difference> {
    let mut out = Vec::new();
    let mut differ = |what: &str, want: Json, got: Json| {
        if want != got {
            out.push(Difference { path: format!("responses/{at}/{what}"), want, got });
        }
    };
    let Some(got) = got else {
        differ("status", want["status"].clone(), json!("no answer"));
        return out;
    };
    if want["closed_without_answer"] == true || want["process_ended"] == true {
        // The reference dies of it; ours goes on.
        differ("status", json!(200), json!(got.status));
        return out;
    }
    differ("status", want["status"].clone(), json!(got.status));
    let mut theirs: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in want["headers"].as_object().unwrap() {
        theirs.insert(crate::player::canonical(name), value.as_str().unwrap().to_owned());
    }
    let mut ours = got.headers.clone();
    ours.remove("Date");
    ours.remove("Connection");
    // Texts of malformed bodies are not compared, nor are rates before and
    // after the first update of the sampler.
    let text = want["body"]["text"].as_str().unwrap_or_default();
    let body = String::from_utf8_lossy(&got.body);
    let rates = text.contains("rate_by_service");
    if got.status == 400 || rates {
        theirs.remove("Content-Length");
        ours.remove("Content-Length");
    }
    for (name, value) in &mut theirs {
        match value.as_str() {
            "<sha256 of /info body>" => *value = played.state.clone(),
            "<version>" => *value = ours.get(name).cloned().unwrap_or_default(),
            _ => {}
        }
    }
    differ("headers", json!(theirs), json!(ours));
    if rates {
        let ours: Json = serde_json::from_str(&body).unwrap_or_default();
        let early = [json!({}), json!({"service:,env:": 1}), json!({"service:,env:": 1.0})];
        let theirs: Json = serde_json::from_str(text).unwrap();
        let (a, b) = (&theirs["rate_by_service"], &ours["rate_by_service"]);
        if !(early.contains(a) && early.contains(b)) {
            differ("rates", a.clone(), b.clone());
        }
    } else if let Some(object) = want["body"].get("json") {
        // The list of span kinds is in random order; the rest is compared as
        // text, so with the order of keys.
        let kinds = object["span_kinds_stats_computed"].as_array().cloned().unwrap_or_default();
        let strip = |text: &str| -> Json {
            let is_kind = |l: &str| kinds.iter().any(|k| l.contains(&k.to_string()));
            text.lines().filter(|l| !is_kind(l)).collect()
        };
        differ("info", strip(text), strip(&body));
        differ("json", object.clone(), serde_json::from_str(&body).unwrap_or_default());
    } else if let Some(base64) = want["body"]["base64"].as_str() {
        use base64::Engine;
        differ("body", json!(base64), json!(base64::engine::general_purpose::STANDARD.encode(&got.body)));
    } else if got.status != 400 {
        differ("body", json!(text), json!(body));
    }
    out
}
