//! Reads the layers in order and explains what is wrong with them.

use super::features::{FEATURES, UNHONOURED};
use super::unhonoured::Unhonoured;
use super::{Origin, Settings};
use serde_json::{Map, Value as Json};
use std::path::Path;

/// Why the settings cannot be used. Messages name the key, the value, what is
/// accepted, and where it was read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A file that cannot be read.
    #[error("{path}: cannot be read: {cause}; check the path and its permissions")]
    File {
        /// Path as given.
        path: String,
        /// What the system said.
        cause: String,
    },
    /// A file that is not YAML.
    #[error("{path}: not valid YAML: {cause}")]
    Yaml {
        /// Path as given.
        path: String,
        /// What the parser said, with line and column.
        cause: String,
    },
    /// A key that nobody knows.
    #[error("{origin}: unknown setting `{key}`{}", hint(.nearest))]
    Unknown {
        /// The key.
        key: String,
        /// The nearest known one.
        nearest: Option<String>,
        /// Where it was read.
        origin: String,
    },
    /// A mistake in the rules of tail sampling.
    #[error("{origin}: `tail_sampling`: {cause}")]
    Tail {
        /// What is wrong.
        cause: String,
        /// Where it was read.
        origin: String,
    },
    /// A value of the wrong form.
    #[error("{origin}: `{key}` cannot be `{value}`: expected {accepts}")]
    Value {
        /// The key.
        key: String,
        /// The value; masked for secrets.
        value: String,
        /// What is accepted.
        accepts: String,
        /// Where it was read.
        origin: String,
    },
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(
        || "; `spanloom check --all` lists every setting".into(),
        |n| format!("; did you mean `{n}`?"),
    )
}

/// Where the layers come from; a test passes its own.
#[derive(Default)]
pub struct Layers {
    /// `datadog.yaml`: path and parsed content.
    pub datadog: Option<(String, Json)>,
    /// `spanloom.yaml`: path and parsed content.
    pub spanloom: Option<(String, Json)>,
    /// Environment.
    pub env: Vec<(String, String)>,
    /// Flags: name as typed, key, value.
    pub flags: Vec<(String, String, String)>,
}

/// Reads and parses a YAML file (JSON is YAML, so that works too).
pub fn read_file(path: &Path) -> Result<Json, SettingsError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|e| SettingsError::File { path: shown.clone(), cause: e.to_string() })?;
    if text.trim().is_empty() {
        return Ok(Json::Object(Map::new()));
    }
    serde_saphyr::from_str::<Json>(&text)
        .map_err(|e| SettingsError::Yaml { path: shown, cause: e.to_string() })
}

impl Layers {
    /// Resolves the layers. Returns the settings and notices: things that are
    /// not errors but that a user would want to know (`check` prints them).
    pub fn resolve(&self) -> Result<(Settings, Vec<Notice>), Vec<SettingsError>> {
        let mut to = Loader { settings: Settings::default(), errors: Vec::new(), notices: Vec::new() };
        if let Some((path, json)) = &self.datadog {
            to.file(path, json, true);
        }
        if let Some((path, json)) = &self.spanloom {
            to.file(path, json, false);
        }
        to.env(&self.env);
        for (flag, key, value) in &self.flags {
            to.text(key, value, Origin::Flag(flag.clone()));
        }
        to.cross_checks();
        if to.errors.is_empty() { Ok((to.settings, to.notices)) } else { Err(to.errors) }
    }
}

/// Something that is no error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// It does not do what whoever set it expects.
    pub warning: bool,
    /// Cause and cure.
    pub text: String,
}

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", if self.warning { "warning" } else { "note" }, self.text)
    }
}

struct Loader {
    settings: Settings,
    errors: Vec<SettingsError>,
    notices: Vec<Notice>,
}

/// Sections of `datadog.yaml` that are ours: a key in them that nobody knows
/// is a mistake. Other sections belong to other parts of the Agent.
const OUR_SECTIONS: [&str; 3] = ["apm_config", "evp_proxy_config", "ol_proxy_config"];

/// Older keys of the Agent's file: they count if the newer one is not beside them.
const ALIASES: &[(&str, &str)] =
    &[("apm_config.max_traces_per_second", "apm_config.target_traces_per_second")];

impl Loader {
    fn file(&mut self, path: &str, json: &Json, agent: bool) {
        let Json::Object(map) = json else {
            self.errors.push(SettingsError::Yaml {
                path: path.into(),
                cause: "expected `key: value` lines at the top level".into(),
            });
            return;
        };
        self.section(path, "", map, agent);
    }

    fn section(&mut self, path: &str, prefix: &str, map: &Map<String, Json>, agent: bool) {
        for (name, value) in map {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            let origin = Origin::File(path.into());
            if let Some(index) = Settings::FIELDS.iter().position(|f| f.key == key) {
                if value.is_null() {
                    continue;
                }
                if self.settings.set_json(index, value) {
                    self.settings.origins[index] = origin;
                } else {
                    let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    self.bad_value(index, &shown, &origin);
                }
                continue;
            }
            if let Some((_, newer)) = ALIASES.iter().find(|(old, _)| *old == key) {
                let beside = newer.rsplit('.').next().is_some_and(|last| map.contains_key(last));
                let index = Settings::FIELDS.iter().position(|f| f.key == *newer);
                if let (false, Some(index), false) = (beside, index, value.is_null()) {
                    if self.settings.set_json(index, value) {
                        self.settings.origins[index] = origin;
                    } else {
                        self.bad_value(index, &value.to_string(), &origin);
                    }
                }
                continue;
            }
            let nested = Settings::FIELDS.iter().any(|f| f.key.starts_with(&format!("{key}.")));
            match value {
                Json::Object(inner) if nested => self.section(path, &key, inner, agent),
                Json::Null if nested => {}
                _ => self.unknown(&key, &origin, agent),
            }
        }
    }

    fn unknown(&mut self, key: &str, origin: &Origin, agent: bool) {
        if let Some(unhonoured) = Unhonoured::by_key(key) {
            self.warn(format!("{origin}: `{key}` has no effect: {}", unhonoured.text()));
            return;
        }
        let near = nearest(key, Settings::FIELDS.iter().map(|f| f.key.to_owned()).chain(sections()));
        let ours = OUR_SECTIONS.iter().any(|s| key.starts_with(&format!("{s}.")));
        if agent && !ours && near.as_ref().is_none_or(|(_, distance)| *distance > 2) {
            // A whole datadog.yaml holds other products' settings.
            let text = format!("{origin}: `{key}` is not about traces; ignored");
            self.notices.push(Notice { warning: false, text });
            return;
        }
        self.errors.push(SettingsError::Unknown {
            key: key.into(),
            nearest: near.map(|(n, _)| n),
            origin: origin.to_string(),
        });
    }

    fn env(&mut self, vars: &[(String, String)]) {
        for (index, field) in Settings::FIELDS.iter().enumerate() {
            // An empty variable counts as not set, except where empty means "off".
            let empty_is_off = ["apm_config.receiver_socket", "dogstatsd_socket"].contains(&field.key);
            let get = |name: &str| {
                vars.iter()
                    .find(|(n, v)| n == name && (empty_is_off || !v.is_empty()))
                    .map(|(_, v)| v.clone())
            };
            let derived = field.derived_env();
            let names = field.env.iter().copied().chain([derived.as_str()]);
            let Some((name, value)) = names.filter_map(|n| get(n).map(|v| (n.to_owned(), v))).next() else {
                continue;
            };
            self.set(index, &value, Origin::Env(name));
        }
        let known: Vec<String> = Settings::FIELDS
            .iter()
            .flat_map(|f| f.env.iter().map(|e| (*e).to_owned()).chain([f.derived_env()]))
            .chain(OTHER_VARIABLES.iter().map(|v| (*v).to_owned()))
            .collect();
        for (name, value) in vars {
            if !value.is_empty()
                && !known.contains(name)
                && let Some(unhonoured) = Unhonoured::by_variable(name)
            {
                self.warn(format!("environment: `{name}` has no effect: {}", unhonoured.text()));
                continue;
            }
            let ours = name.starts_with("SPANLOOM_");
            let agents = AGENT_PREFIXES.iter().any(|p| name.starts_with(p));
            if !(ours || agents) || known.contains(name) {
                continue;
            }
            let near = nearest(name, known.iter().cloned());
            let close = near.as_ref().is_some_and(|(_, distance)| *distance <= 2);
            if ours || close {
                self.errors.push(SettingsError::Unknown {
                    key: name.clone(),
                    nearest: near.map(|(n, _)| n),
                    origin: "environment".into(),
                });
            } else {
                let text = format!("environment: `{name}` has no effect on Spanloom");
                self.notices.push(Notice { warning: false, text });
            }
        }
    }

    fn warn(&mut self, text: String) {
        self.notices.push(Notice { warning: true, text });
    }

    fn text(&mut self, key: &str, value: &str, origin: Origin) {
        match Settings::FIELDS.iter().position(|f| f.key == key) {
            Some(index) => self.set(index, value, origin),
            None => self.unknown(key, &origin, false),
        }
    }

    fn set(&mut self, index: usize, value: &str, origin: Origin) {
        if self.settings.set_text(index, value) {
            self.settings.origins[index] = origin;
        } else {
            self.bad_value(index, value, &origin);
        }
    }

    fn bad_value(&mut self, index: usize, value: &str, origin: &Origin) {
        let field = &Settings::FIELDS[index];
        let secret =
            field.key.contains("key") || field.key.contains("endpoints") || field.key.starts_with("proxy");
        self.errors.push(SettingsError::Value {
            key: field.key.into(),
            value: if secret { "********".into() } else { value.into() },
            accepts: field.accepts.into(),
            origin: origin.to_string(),
        });
    }

    fn cross_checks(&mut self) {
        let s = &self.settings;
        let mut wrong = Vec::new();
        if !["interval", "always"].contains(&s.ack.as_str()) {
            wrong.push(("ack", s.ack.clone(), "`interval` or `always`"));
        }
        let modes = ["", "obfuscate_only", "normalize_only", "obfuscate_and_normalize"];
        if !modes.contains(&s.sql_obfuscation_mode.as_str()) {
            wrong.push((
                "apm_config.sql_obfuscation_mode",
                s.sql_obfuscation_mode.clone(),
                "nothing, `obfuscate_only`, `normalize_only` or `obfuscate_and_normalize`",
            ));
        }
        let levels = ["trace", "debug", "info", "warn", "warning", "error", "critical", "off"];
        if !levels.contains(&s.log_level.to_ascii_lowercase().as_str()) {
            wrong.push(("log_level", s.log_level.clone(), "trace, debug, info, warn, error or off"));
        }
        if !["auto", "true", "false"].contains(&s.containers.as_str()) {
            wrong.push(("containers.enabled", s.containers.clone(), "`auto`, `true` or `false`"));
        }
        for (enabled, key, url) in [
            (s.opw_traces_enabled, "observability_pipelines_worker.traces.url", &s.opw_traces_url),
            (s.vector_traces_enabled, "vector.traces.url", &s.vector_traces_url),
        ] {
            if enabled && !url.starts_with("http://") && !url.starts_with("https://") {
                wrong.push((
                    key,
                    url.clone(),
                    "the URL of the worker that traces go to, such as http://worker:8282",
                ));
            }
        }
        let behind = s.agent_behind();
        if !s.forward_agent.is_empty() && behind.is_none() {
            let accepts = "the address of an Agent, such as http://host:8126 or unix:///path/apm.socket";
            wrong.push(("forward_agent", s.forward_agent.clone(), accepts));
        }
        if behind.is_some_and(|address| s.is_own(&address)) {
            let accepts = "another address than the one that Spanloom itself listens on; move the Agent, or Spanloom with DD_APM_RECEIVER_PORT and DD_APM_RECEIVER_SOCKET";
            wrong.push(("forward_agent", s.forward_agent.clone(), accepts));
        }
        if let Err(causes) = s.tail() {
            let at = Settings::FIELDS.iter().position(|f| f.key == "tail_sampling").unwrap_or_default();
            let origin = s.origins[at].to_string();
            self.errors.extend(
                causes.into_iter().map(|cause| SettingsError::Tail { cause, origin: origin.clone() }),
            );
        }
        let warnings = warnings(s).into_iter().chain(super::tail::notices(s));
        self.notices.extend(warnings.map(|text| Notice { warning: true, text }));
        for (key, value, accepts) in wrong {
            let index = Settings::FIELDS.iter().position(|f| f.key == key).unwrap_or_default();
            self.errors.push(SettingsError::Value {
                key: key.into(),
                value,
                accepts: accepts.into(),
                origin: self.settings.origins[index].to_string(),
            });
        }
    }
}

/// What is valid and does not do what one would expect.
fn warnings(s: &Settings) -> Vec<String> {
    let origin = |key: &str| {
        let at = Settings::FIELDS.iter().position(|f| f.key == key).unwrap_or_default();
        s.origins.get(at).map(ToString::to_string).unwrap_or_default()
    };
    let mut out = Vec::new();
    for flag in &s.features.0 {
        let origin = origin("apm_config.features");
        if let Some((_, why)) = UNHONOURED.iter().find(|(name, _)| name == flag) {
            out.push(format!("{origin}: the feature `{flag}` has no effect: {why}"));
        } else if !FEATURES.iter().any(|(name, _)| name == flag) {
            let known = FEATURES.iter().map(|(name, _)| (*name).to_owned());
            let hint = nearest(flag, known).map_or(String::new(), |(n, _)| format!("; did you mean `{n}`?"));
            out.push(format!("{origin}: the feature `{flag}` is not known and has no effect{hint}"));
        }
    }
    if !s.apm_mode.is_empty() && !s.apm_mode.eq_ignore_ascii_case("edge") {
        let at = origin("apm_config.mode");
        out.push(format!(
            "{at}: `apm_config.mode` is ignored: `{}` is no mode; the only one is `edge`",
            s.apm_mode
        ));
    }
    if !["tlsv1.2", "tlsv1.3"].contains(&s.min_tls_version.to_ascii_lowercase().as_str()) {
        let at = origin("min_tls_version");
        out.push(format!(
            "{at}: `min_tls_version` is `{}`, and less than TLS 1.2 is not spoken; use tlsv1.2 or tlsv1.3",
            s.min_tls_version
        ));
    }
    if let Some(agent) = s.agent_behind().filter(|_| s.has_datadog()) {
        out.push(format!(
            "traces and statistics arrive at Datadog twice: from the Agent at {agent} and from here, because there is an API key; \
             unset DD_API_KEY while the Agent behind Spanloom sends them (profiles, events and telemetry are sent by the Agent alone)"
        ));
    }
    out
}

/// Variables of the Agent that are about traces begin so: another one is
/// probably a misspelt one.
const AGENT_PREFIXES: [&str; 5] = [
    "DD_APM_",
    "DD_EVP_PROXY_CONFIG_",
    "DD_OL_PROXY_CONFIG_",
    "DD_OTLP_CONFIG_TRACES_",
    "DD_OTLP_CONFIG_RECEIVER_",
];

/// Variables that are read elsewhere or by somebody else beside us.
const OTHER_VARIABLES: &[&str] = &["SPANLOOM_CONFIG", "SPANLOOM_DATADOG_CONFIG", "SPANLOOM_LOG"];

fn sections() -> impl Iterator<Item = String> {
    Settings::FIELDS.iter().filter_map(|f| f.key.rsplit_once('.').map(|(s, _)| s.to_owned()))
}

/// The nearest name by edit distance, unless everything is far away.
fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<(String, usize)> {
    let best = known.map(|k| (distance(name, &k), k)).min()?;
    (best.0 <= name.len() / 3).then_some((best.1, best.0))
}

/// Levenshtein distance with transpositions counted as one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn env(vars: &[(&str, &str)]) -> Layers {
        Layers {
            env: vars.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            ..Layers::default()
        }
    }

    #[test]
    fn layers_override_each_other_in_order() {
        let layers = Layers {
            datadog: Some((
                "datadog.yaml".into(),
                json!({"apm_config": {"receiver_port": 1, "errors_per_second": 3}, "logs_config": {"x": 1}}),
            )),
            spanloom: Some((
                "spanloom.yaml".into(),
                json!({"apm_config": {"receiver_port": 2}, "ack": "always"}),
            )),
            env: vec![("DD_APM_RECEIVER_PORT".into(), "3".into())],
            flags: vec![("--receiver-port".into(), "apm_config.receiver_port".into(), "4".into())],
        };
        let (settings, notices) = layers.resolve().unwrap();
        assert_eq!((settings.receiver_port, settings.error_tps, settings.ack.as_str()), (4, 3.0, "always"));
        let texts: Vec<String> = notices.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["note: datadog.yaml: `logs_config` is not about traces; ignored"]);
        let entry =
            settings.entries().into_iter().find(|e| e.field.key == "apm_config.receiver_port").unwrap();
        assert_eq!((entry.value.as_str(), entry.origin), ("4", Origin::Flag("--receiver-port".into())));
    }

    fn warnings(layers: &Layers) -> Vec<String> {
        let (_, notices) = layers.resolve().unwrap();
        notices.into_iter().filter(|n| n.warning).map(|n| n.text).collect()
    }

    #[test]
    fn settings_without_effect_warn_with_cause_and_cure_wherever_they_are_set() {
        let file = Layers {
            datadog: Some((
                "d.yaml".into(),
                json!({"apm_config": {"log_file": "/x", "instrumentation": {"enabled": true}}, "fips": {"enabled": true}}),
            )),
            ..Layers::default()
        };
        let texts = warnings(&file);
        assert_eq!(texts.len(), 3, "{texts:?}");
        let log = "d.yaml: `apm_config.log_file` has no effect: the log goes to standard error; redirect it";
        assert!(texts.contains(&log.to_owned()), "{texts:?}");
        for (variable, part) in [
            ("DD_APM_MAX_SENDER_RETRIES", "SPANLOOM_EXPORTERS_QUEUE_SIZE"),
            ("DD_APM_CONFIG_WATCHDOG_CHECK_DELAY", "memory is bounded"),
            ("DD_MULTI_REGION_FAILOVER_API_KEY", "DD_APM_ADDITIONAL_ENDPOINTS"),
            ("DD_CMD_PORT", "core Agent"),
            ("DD_APM_NET_RECEIVER_FD", "not taken over"),
            ("DD_DD_URL", "DD_APM_DD_URL"),
        ] {
            let texts = warnings(&env(&[(variable, "1")]));
            assert!(texts.len() == 1 && texts[0].contains(variable) && texts[0].contains(part), "{texts:?}");
        }
        assert!(warnings(&env(&[("DD_APM_LOG_FILE", ""), ("DD_LOGS_ENABLED", "true")])).is_empty());
    }

    #[test]
    fn no_setting_is_both_honoured_and_not() {
        for unhonoured in super::super::unhonoured::ALL {
            for field in Settings::FIELDS {
                assert!(Unhonoured::by_key(field.key).is_none(), "{}", field.key);
                let both = field.env.iter().find(|e| unhonoured.env.contains(e));
                assert_eq!(both, None);
            }
        }
    }

    #[test]
    fn values_that_are_ignored_warn() {
        let texts = warnings(&env(&[("DD_APM_MODE", "fast"), ("DD_MIN_TLS_VERSION", "tlsv1.1")]));
        assert!(texts.len() == 2 && texts[0].contains("`edge`") && texts[1].contains("tlsv1.2"), "{texts:?}");
        assert!(warnings(&env(&[("DD_APM_MODE", "Edge"), ("DD_MIN_TLS_VERSION", "TLSv1.3")])).is_empty());
        let errors = env(&[("DD_EVP_PROXY_CONFIG_ENABLE", "false")]).resolve().unwrap_err();
        assert!(
            errors[0].to_string().ends_with("did you mean `DD_EVP_PROXY_CONFIG_ENABLED`?"),
            "{}",
            errors[0]
        );
    }

    #[test]
    fn unknown_features_warn_and_name_the_nearest() {
        let texts =
            warnings(&env(&[("DD_APM_FEATURES", "429,big_resourse disable_receive_resource_spans_v2,xyz")]));
        assert_eq!(texts.len(), 2, "{texts:?}");
        let texts =
            warnings(&env(&[("DD_APM_FEATURES", "429,big_resourse,disable_receive_resource_spans_v2,xyz")]));
        assert_eq!(texts.len(), 3, "{texts:?}");
        assert!(texts[0].ends_with("did you mean `big_resource`?"), "{texts:?}");
        assert!(texts[1].contains("has no effect: the oldest conversion"), "{texts:?}");
    }

    #[test]
    fn older_keys_and_names_count_where_the_newer_ones_are_not() {
        let of = |section: Json| {
            let layers =
                Layers { datadog: Some(("d".into(), json!({"apm_config": section}))), ..Layers::default() };
            layers.resolve().unwrap().0.target_tps
        };
        assert_eq!(of(json!({"max_traces_per_second": 3})), 3.0);
        assert_eq!(of(json!({"max_traces_per_second": 3, "target_traces_per_second": 5})), 5.0);
        assert_eq!(of(json!({"target_traces_per_second": 5, "max_traces_per_second": 3})), 5.0);
        let (s, _) = env(&[("DD_APM_MAX_TPS", "3"), ("DD_APM_TARGET_TPS", "5")]).resolve().unwrap();
        assert_eq!(s.target_tps, 5.0);
        let (s, _) = env(&[("DD_API_KEY", "a"), ("DD_APM_CONFIG_API_KEY", "b")]).resolve().unwrap();
        assert_eq!(s.key().0, "b");
    }

    #[test]
    fn lists_and_maps_in_files_read_as_the_variables_do() {
        let file = json!({"apm_config": {
            "ignore_resources": ["a", "b,c"], "filter_tags": {"require": ["x:y"]}, "features": ["429"],
            "analyzed_spans": {"web|op": 0.5}, "peer_tags": ["p"], "replace_tags": [{"name": "*", "pattern": "a", "repl": "b"}],
            "additional_endpoints": {"https://h": ["k"]}, "additional_profile_tags": {"team": "web"},
            "obfuscation": {"credit_cards": {"keep_values": ["k"]}}}});
        let layers = Layers { datadog: Some(("d".into(), file)), ..Layers::default() };
        let (from_file, _) = layers.resolve().unwrap();
        let (from_env, _) = env(&[
            ("DD_APM_IGNORE_RESOURCES", "a,\"b,c\""),
            ("DD_APM_FILTER_TAGS_REQUIRE", "x:y"),
            ("DD_APM_FEATURES", "429"),
            ("DD_APM_ANALYZED_SPANS", "web|op=0.5"),
            ("DD_APM_PEER_TAGS", "[\"p\"]"),
            ("DD_APM_REPLACE_TAGS", r#"[{"name":"*","pattern":"a","repl":"b"}]"#),
            ("DD_APM_ADDITIONAL_ENDPOINTS", r#"{"https://h":["k"]}"#),
            ("DD_APM_ADDITIONAL_PROFILE_TAGS", r#"{"team":"web"}"#),
            ("DD_APM_OBFUSCATION_CREDIT_CARDS_KEEP_VALUES", "k"),
        ])
        .resolve()
        .unwrap();
        let values =
            |s: &Settings| s.entries().into_iter().map(|e| (e.field.key, e.value)).collect::<Vec<_>>();
        assert_eq!(values(&from_file), values(&from_env));
        assert_eq!(from_file.ignore_resources.0, ["a", "b,c"]);
    }

    #[test]
    fn a_worker_in_between_needs_its_address() {
        let on = ("DD_OBSERVABILITY_PIPELINES_WORKER_TRACES_ENABLED", "true");
        let errors = env(&[on]).resolve().unwrap_err();
        assert!(errors[0].to_string().contains("observability_pipelines_worker.traces.url"), "{}", errors[0]);
        let url = ("DD_OBSERVABILITY_PIPELINES_WORKER_TRACES_URL", "http://w:8282/");
        assert_eq!(env(&[on, url]).resolve().unwrap().0.worker_url(), Some("http://w:8282"));
        assert_eq!(env(&[url]).resolve().unwrap().0.worker_url(), None);
    }

    #[test]
    fn the_agents_debug_port_moves_health_and_metrics() {
        let of = |vars| env(vars).resolve().unwrap().0.admin().map(|a| a.to_string());
        assert_eq!(of(&[]).as_deref(), Some("127.0.0.1:5012"));
        assert_eq!(of(&[("DD_APM_DEBUG_PORT", "6012")]).as_deref(), Some("127.0.0.1:6012"));
        assert_eq!(of(&[("DD_APM_DEBUG_PORT", "0")]), None);
        let vars = [("DD_APM_DEBUG_PORT", "0"), ("SPANLOOM_ADMIN_ADDRESS", "0.0.0.0:1")];
        assert_eq!(of(&vars).as_deref(), Some("0.0.0.0:1"));
    }

    #[test]
    fn what_arrives_twice_is_a_warning() {
        let agent = ("SPANLOOM_FORWARD_AGENT", "http://agent:8126");
        assert!(warnings(&env(&[agent])).is_empty());
        assert!(warnings(&env(&[("DD_API_KEY", "k")])).is_empty());
        let texts = warnings(&env(&[agent, ("DD_API_KEY", "k")]));
        assert!(texts[0].contains("http://agent:8126") && texts[0].contains("unset DD_API_KEY"), "{texts:?}");
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let layers = Layers {
            spanloom: Some(("s.yaml".into(), json!({"apm_config": {"reciever_port": 2}}))),
            ..Layers::default()
        };
        let errors = layers.resolve().unwrap_err();
        assert_eq!(
            errors[0].to_string(),
            "s.yaml: unknown setting `apm_config.reciever_port`; did you mean `apm_config.receiver_port`?"
        );
        let errors = env(&[("DD_APM_RECIEVER_PORT", "1")]).resolve().unwrap_err();
        assert!(errors[0].to_string().ends_with("did you mean `DD_APM_RECEIVER_PORT`?"));
        assert!(env(&[("DD_TRACE_ENABLED", "true"), ("DD_SERVICE", "x")]).resolve().is_ok());
    }

    #[test]
    fn a_wrong_value_names_key_value_place_and_cure() {
        let errors =
            env(&[("DD_APM_RECEIVER_PORT", "http"), ("SPANLOOM_ACK", "never")]).resolve().unwrap_err();
        assert_eq!(
            errors[0].to_string(),
            "environment DD_APM_RECEIVER_PORT: `apm_config.receiver_port` cannot be `http`: expected a port number from 0 to 65535"
        );
        assert_eq!(
            errors[1].to_string(),
            "environment SPANLOOM_ACK: `ack` cannot be `never`: expected `interval` or `always`"
        );
    }

    #[test]
    fn every_mistake_in_tail_rules_is_an_error_of_its_own() {
        let errors = env(&[("SPANLOOM_TAIL_SAMPLING", r#"{"wait": "x", "rest": 7}"#)]).resolve().unwrap_err();
        assert_eq!(errors.len(), 2);
        assert!(errors[0].to_string().starts_with("environment SPANLOOM_TAIL_SAMPLING: `tail_sampling`: "));
        assert!(env(&[("SPANLOOM_TAIL_SAMPLING", r#"{"rest": 0.1}"#)]).resolve().is_ok());
    }

    #[test]
    fn the_first_variable_that_is_set_wins_and_every_key_has_a_derived_one() {
        let (s, _) = env(&[("DD_RECEIVER_PORT", "1"), ("DD_APM_RECEIVER_PORT", "2")]).resolve().unwrap();
        assert_eq!(s.receiver_port, 2);
        let (s, _) = env(&[("DD_APM_CONFIG_RECEIVER_PORT", "5")]).resolve().unwrap();
        assert_eq!(s.receiver_port, 5);
    }

    #[test]
    fn an_agent_behind_us_is_somebody_else() {
        let of = |agent: &str, port: &str| {
            let vars = [("SPANLOOM_FORWARD_AGENT", agent), ("DD_APM_RECEIVER_PORT", port)];
            env(&vars).resolve().map(|(s, _)| s.agent_behind().map(|a| a.to_string()))
        };
        assert_eq!(of("http://127.0.0.1:8127", "8126"), Ok(Some("http://127.0.0.1:8127".into())));
        assert_eq!(of("http://agent", "8126"), Ok(Some("http://agent:8126".into())));
        for (agent, port, cause) in [
            ("agent:8126", "8126", "such as http://host:8126"),
            ("http://localhost:8126", "8126", "another address"),
            ("http://[::1]", "8126", "another address"),
            ("unix:///var/run/datadog/apm.socket", "8126", "another address"),
        ] {
            let errors = of(agent, port).unwrap_err();
            assert!(errors[0].to_string().contains(cause), "{agent}: {}", errors[0]);
        }
    }

    #[test]
    fn an_empty_variable_is_not_set_but_an_empty_socket_is_off() {
        let (s, _) = env(&[("DD_SITE", ""), ("DD_APM_RECEIVER_SOCKET", "")]).resolve().unwrap();
        assert_eq!((s.site.as_str(), s.receiver_socket.as_str()), ("datadoghq.com", ""));
    }

    #[test]
    fn the_default_environment_follows_the_agents_order() {
        let of = |vars| env(vars).resolve().unwrap().0.default_env();
        assert_eq!(of(&[]), "none");
        assert_eq!(of(&[("DD_TAGS", "team:x env:staging")]), "staging");
        assert_eq!(of(&[("DD_ENV", "prod"), ("DD_TAGS", "env:staging")]), "prod");
        assert_eq!(of(&[("DD_APM_ENV", "apm"), ("DD_ENV", "prod")]), "apm");
    }

    #[test]
    fn keys_and_variables_are_unique() {
        let mut keys: Vec<&str> = Settings::FIELDS.iter().map(|f| f.key).collect();
        let mut vars: Vec<&str> = Settings::FIELDS.iter().flat_map(|f| f.env).copied().collect();
        for list in [&mut keys, &mut vars] {
            let n = list.len();
            list.sort_unstable();
            list.dedup();
            assert_eq!(list.len(), n);
        }
    }
}
