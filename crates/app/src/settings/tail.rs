//! The rules of tail sampling as they are written in settings.

use super::Settings;
use super::value::{Bytes, Setting};
use serde_json::Value as Json;
use spanloom_sampler::tail::{RuleConfig, TailConfig, TailRules};

/// Least bytes of the buffer: it is divided into files that go as a whole.
const LEAST_BUFFER: u64 = 16 << 20;

/// What asks about a piece first, where rules over whole traces govern what
/// leaves for Datadog.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Head {
    /// Nothing: rules replace the head samplers.
    #[default]
    Replaced,
    /// The head samplers; rules see what these let leave.
    First,
}

/// Tail sampling.
#[derive(Clone, Debug)]
pub struct Tail {
    /// The rules.
    pub rules: TailRules,
    /// Bytes on disk for what waits to leave.
    pub buffer: u64,
    /// What becomes of the head samplers.
    pub head: Head,
}

/// Settings that tail rules make pointless, with what they are about.
const REPLACED: [&str; 5] = [
    "apm_config.target_traces_per_second",
    "apm_config.errors_per_second",
    "apm_config.enable_rare_sampler",
    "apm_config.probabilistic_sampler.enabled",
    "otlp_config.traces.probabilistic_sampler.sampling_percentage",
];

/// What a person should know about tail rules beside head samplers.
pub fn notices(s: &Settings) -> Vec<String> {
    let replaced = |t: &Tail| t.head == Head::Replaced && !t.rules.keeps_all();
    if !s.has_datadog()
        || s.error_tracking_standalone
        || !s.tail().is_ok_and(|t| t.as_ref().is_some_and(replaced))
    {
        return Vec::new();
    }
    let set = REPLACED.iter().filter(|key| s.is_set(key));
    set.map(|key| {
        format!("`{key}` has no effect: `tail_sampling` decides what leaves; `head: first` there asks the samplers first")
    })
    .collect()
}

/// Reads rules; none if nothing is written. The texts name every mistake.
pub fn read(json: &Json) -> Result<Option<Tail>, Vec<String>> {
    let Json::Object(map) = json else {
        return if json.is_null() {
            Ok(None)
        } else {
            Err(vec!["expected `wait`, `rules`, `rest` …".into()])
        };
    };
    let mut common = map.clone();
    let mut errors = Vec::new();
    let buffer = match common.remove("buffer") {
        None | Some(Json::Null) => 1 << 30,
        Some(given) => match Bytes::from_json(&given) {
            Some(Bytes(n)) if n >= LEAST_BUFFER => n,
            _ => {
                errors.push(format!(
                    "`buffer`: {given} is not a number of bytes of at least 16MiB, such as 512MiB"
                ));
                0
            }
        },
    };
    let head = match common.remove("head") {
        None | Some(Json::Null) => Head::Replaced,
        Some(Json::String(s)) if s == "replaced" => Head::Replaced,
        Some(Json::String(s)) if s == "first" => Head::First,
        Some(other) => {
            errors.push(format!("`head`: {other} is neither `replaced` nor `first`"));
            Head::Replaced
        }
    };
    // Each part by itself, so that one mistake does not hide the others.
    let mut rules = Vec::new();
    match common.remove("rules") {
        None | Some(Json::Null) => {}
        Some(Json::Array(list)) => {
            for (i, rule) in list.into_iter().enumerate() {
                let name = rule["name"].as_str().map_or(String::new(), |n| format!(" ({n})"));
                match serde_json::from_value::<RuleConfig>(rule) {
                    Ok(rule) => rules.push(rule),
                    Err(e) => errors.push(format!("rule {}{name}: {e}", i + 1)),
                }
            }
        }
        Some(other) => errors.push(format!("`rules` is a list, not {other}")),
    }
    let config = match serde_json::from_value::<TailConfig>(Json::Object(common)) {
        Ok(config) => TailConfig { rules, ..config },
        Err(e) => {
            errors.push(e.to_string());
            TailConfig { rules, ..TailConfig::default() }
        }
    };
    match TailRules::new(&config) {
        Ok(rules) if errors.is_empty() => Ok(Some(Tail { rules, buffer, head })),
        Ok(_) => Err(errors),
        Err(wrong) => {
            let text = |e: &spanloom_sampler::tail::TailError| {
                let text = e.to_string();
                text.strip_prefix("tail sampling, ").unwrap_or(&text).to_owned()
            };
            errors.extend(wrong.iter().map(text));
            Err(errors)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn all_mistakes_are_named() {
        let errors = read(&json!({
            "wait": "soon",
            "rest": 2,
            "buffer": "1MiB",
            "head": "last",
            "rules": [
                {"name": "errors", "error": "yes"},
                {"name": "slow", "min_durations": "1s"},
                {"name": "rest"},
                {"name": "routes", "resource": "(", "rate": -1},
            ],
        }))
        .unwrap_err()
        .join("\n");
        for part in [
            "soon",
            "rest",
            "`buffer`: \"1MiB\"",
            "`head`: \"last\"",
            "rule 1 (errors)",
            "rule 2 (slow)",
            "min_durations",
            "taken",
            "`resource`",
            "-1",
        ] {
            assert!(errors.contains(part), "{part} is not in: {errors}");
        }
    }

    #[test]
    fn nothing_written_is_no_rules() {
        assert!(read(&Json::Null).unwrap().is_none());
        assert!(read(&json!({"rest": 0.5})).unwrap().is_some());
        assert!(read(&json!("x")).is_err());
    }

    #[test]
    fn the_buffer_and_the_head_samplers_have_their_defaults() {
        let of = |json: Json| read(&json).unwrap().map(|t| (t.buffer, t.head)).unwrap();
        assert_eq!(of(json!({"rest": 0.5})), (1 << 30, Head::Replaced));
        assert_eq!(of(json!({"buffer": "64MiB", "head": "first"})), (64 << 20, Head::First));
    }
}
