//! Replays the recordings of the reference agent and compares what it
//! answered. `Case` and `replay` know nothing of the receiver's inside, so
//! that what leaves for the intake can be compared by the same harness.

use crate::support::*;
use serde_json::Value;
use sha2::{Digest, Sha256};
use spanloom_receivers::datadog::{BUILT_IN_PEER_TAGS, Config};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub struct Case {
    pub path: PathBuf,
    pub json: Value,
}

impl Case {
    pub fn read(path: &Path) -> Self {
        let json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        Self { path: path.into(), json }
    }

    pub fn all(folder: &str) -> Vec<Self> {
        let dir = fixtures().join("golden-agent").join(folder);
        let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().path())
            .filter(|p| p.extension().is_some_and(|e| e == "json"))
            .collect();
        paths.sort();
        paths.iter().map(|p| Self::read(p)).collect()
    }

    pub fn name(&self) -> &str {
        self.json["name"].as_str().unwrap()
    }

    fn setting(&self, key: &str) -> Option<&str> {
        self.json["settings"][key].as_str()
    }

    /// What the program's settings make of the case's environment.
    pub fn setup(&self) -> Setup {
        let list = |key: &str| -> Vec<String> {
            self.setting(key).map_or_else(Vec::new, |text| {
                serde_json::from_str(text)
                    .unwrap_or_else(|_| text.split_whitespace().map(str::to_owned).collect())
            })
        };
        let mut setup = Setup::default();
        let config: &mut Config = &mut setup.config;
        if let Some(n) = self.setting("DD_APM_MAX_PAYLOAD_SIZE") {
            config.max_payload_size = n.parse().unwrap();
        }
        config.features = list("DD_APM_FEATURES");
        config.containers = self.json["settings"]["container_runtime_detected"].as_bool().unwrap_or(true);
        let info = &mut config.info;
        info.git_commit = "0000000".into();
        info.receiver_socket = self.setting("DD_APM_RECEIVER_SOCKET").unwrap_or("").into();
        info.max_memory = self.setting("DD_APM_MAX_MEMORY").map_or(0.0, |n| n.parse().unwrap());
        info.max_cpu =
            self.setting("DD_APM_MAX_CPU_PERCENT").map_or(0.0, |n| n.parse::<f64>().unwrap() / 100.0);
        info.default_env = self.setting("DD_ENV").unwrap_or("none").to_lowercase().replace(' ', "_");
        info.client_drop_p0s = self.setting("DD_APM_PROBABILISTIC_SAMPLER_ENABLED").is_none();
        info.stats_by_span_kind = self.setting("DD_APM_COMPUTE_STATS_BY_SPAN_KIND") != Some("false");
        info.obfuscation.sql_obfuscation_mode =
            self.setting("DD_APM_SQL_OBFUSCATION_MODE").unwrap_or("").into();
        info.filter_require = list("DD_APM_FILTER_TAGS_REQUIRE");
        info.filter_require.sort();
        info.filter_require.reverse();
        info.filter_require.sort_by_key(|t| !t.starts_with("env"));
        info.filter_reject = list("DD_APM_FILTER_TAGS_REJECT");
        info.filter_regex_reject = list("DD_APM_FILTER_TAGS_REGEX_REJECT");
        info.ignore_resources = list("DD_APM_IGNORE_RESOURCES");
        let peer_tags = BUILT_IN_PEER_TAGS.iter().map(|t| (*t).to_owned());
        info.peer_tags = Some(peer_tags.chain(list("DD_APM_PEER_TAGS")).collect());
        if let Some(spans) = self.setting("DD_APM_ANALYZED_SPANS") {
            let (service, rest) = spans.split_once('|').unwrap();
            let (operation, rate) = rest.split_once('=').unwrap();
            let rates = BTreeMap::from([(operation.to_owned(), rate.parse().unwrap())]);
            info.analyzed_spans.insert(service.into(), rates);
        }
        if let Some(tags) = self.json["settings"]["container_tags"].as_object() {
            for (id, tags) in tags {
                let tags = tags.as_array().unwrap().iter().map(|t| t.as_str().unwrap().to_owned()).collect();
                setup.containers.tags.insert(id.clone(), tags);
            }
        }
        setup
    }

    /// The requests as they go over the wire, with their transport.
    pub fn requests(&self) -> Vec<(bool, Vec<u8>)> {
        let requests = self.json["requests"].as_array().unwrap();
        requests.iter().map(|r| (r["transport"] == "unix", self.request(r))).collect()
    }

    fn request(&self, r: &Value) -> Vec<u8> {
        let body = r["body_file"].as_str().map(|f| {
            let body = std::fs::read(self.path.parent().unwrap().join(f)).unwrap();
            let sum: String = Sha256::digest(&body).iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(sum, r["body_sha256"].as_str().unwrap(), "{}", self.name());
            body
        });
        let headers: Vec<(&str, &str)> = r["headers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|h| (h[0].as_str().unwrap(), h[1].as_str().unwrap()))
            .filter(|(name, _)| {
                !["host", "content-length", "transfer-encoding", "connection"]
                    .contains(&name.to_lowercase().as_str())
            })
            .collect();
        request(r["method"].as_str().unwrap(), r["path"].as_str().unwrap(), &headers, body.as_deref())
    }
}

/// Sends all requests in order, each on its own connection.
async fn replay(case: &Case, running: &Running) -> Vec<Option<Reply>> {
    let mut replies = Vec::new();
    for (unix, bytes) in case.requests() {
        replies.push(running.raw(unix, &bytes).await);
    }
    replies
}

/// What differs between an answer and the recording; empty if nothing.
fn differences(case: &Case, expected: &Value, got: &Reply, state: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut differ = |what: &str, expected: String, got: String| {
        if expected != got {
            out.push(format!("{what}: expected {expected}, got {got}"));
        }
    };
    let crashed = expected["closed_without_answer"] == true || expected["process_ended"] == true;
    if crashed {
        // The reference dies of it; we keep what is good.
        differ("status", "200".into(), got.status.to_string());
        return out;
    }
    differ("status", expected["status"].to_string(), got.status.to_string());
    let mut got_headers: BTreeMap<&str, &str> =
        got.headers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    got_headers.remove("Date");
    got_headers.remove("Connection");
    let mut headers: BTreeMap<&str, &str> = expected["headers"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str().unwrap()))
        .collect();
    // Texts of malformed bodies are not compared, nor are rates before and
    // after the first update of the sampler.
    let text = expected["body"]["text"].as_str().unwrap_or_default();
    let rates = text.contains("rate_by_service");
    if got.status == 400 || rates {
        headers.remove("Content-Length");
        got_headers.remove("Content-Length");
    }
    for (key, value) in &mut headers {
        match *value {
            "<sha256 of /info body>" => *value = state,
            "<version>" => *value = got_headers.get(key).copied().unwrap_or("(missing)"),
            _ => {}
        }
    }
    differ("headers", format!("{headers:?}"), format!("{got_headers:?}"));
    if rates {
        differ("rates", "true".into(), got.text().starts_with("{\"rate_by_service\":{").to_string());
    } else if let Some(json) = expected["body"].get("json") {
        // The list of span kinds is in random order; the rest is compared as
        // text, so with the order of keys.
        let mut kinds: Vec<&str> = Vec::new();
        if let Some(list) = json["span_kinds_stats_computed"].as_array() {
            kinds = list.iter().map(|k| k.as_str().unwrap()).collect();
        }
        let strip = |text: &str| {
            text.lines()
                .filter(|l| !kinds.iter().any(|k| l.contains(&format!("\"{k}\""))))
                .collect::<Vec<_>>()
                .join("\n")
        };
        differ("/info", strip(text), strip(&got.text()));
        differ("/info", json.to_string(), serde_json::from_slice::<Value>(&got.body).unwrap().to_string());
    } else if got.status != 400 {
        differ("body", text.to_owned(), got.text());
    }
    out.iter().map(|d| format!("{}: {d}", case.name())).collect()
}

async fn compare(folder: &str, skip: &[&str]) {
    let mut wrong = Vec::new();
    let mut compared = 0;
    for case in Case::all(folder) {
        if skip.contains(&case.name()) {
            continue;
        }
        let running = start_with(case.setup()).await;
        let state: String =
            Sha256::digest(running.receiver.info()).iter().map(|b| format!("{b:02x}")).collect();
        let replies = replay(&case, &running).await;
        let expected = case.json["responses"].as_array().unwrap();
        assert_eq!(replies.len(), expected.len());
        for (i, (expected, reply)) in expected.iter().zip(&replies).enumerate() {
            compared += 1;
            match reply {
                Some(reply) => {
                    let found = differences(&case, expected, reply, &state);
                    wrong.extend(found.into_iter().map(|d| format!("[{i}] {d}")));
                }
                None => wrong.push(format!("[{i}] {}: no answer", case.name())),
            }
        }
        running.finish().await;
    }
    assert!(wrong.is_empty(), "{} of {compared} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(compared > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_cases_are_answered_as_the_reference_answers() {
    // One body is described, not recorded: its times were those of that day.
    compare("own", &["stats-buckets-live"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn captured_requests_are_answered_as_the_reference_answers() {
    compare("captured", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_payloads_are_answered_as_the_reference_answers() {
    compare("random", &[]).await;
}
