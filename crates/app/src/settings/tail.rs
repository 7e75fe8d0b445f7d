//! The rules of tail sampling as they are written in settings.

use serde_json::Value as Json;
use spanloom_sampler::tail::{RuleConfig, TailConfig, TailRules};

/// Reads rules; none if nothing is written. The texts name every mistake.
pub fn read(json: &Json) -> Result<Option<TailRules>, Vec<String>> {
    let Json::Object(map) = json else {
        return if json.is_null() {
            Ok(None)
        } else {
            Err(vec!["expected `wait`, `rules`, `rest` …".into()])
        };
    };
    let mut common = map.clone();
    let mut errors = Vec::new();
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
        Ok(rules) if errors.is_empty() => Ok(Some(rules)),
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
            "rules": [
                {"name": "errors", "error": "yes"},
                {"name": "slow", "min_durations": "1s"},
                {"name": "rest"},
                {"name": "routes", "resource": "(", "rate": -1},
            ],
        }))
        .unwrap_err()
        .join("\n");
        for part in
            ["soon", "rest", "rule 1 (errors)", "rule 2 (slow)", "min_durations", "taken", "`resource`", "-1"]
        {
            assert!(errors.contains(part), "{part} is not in: {errors}");
        }
    }

    #[test]
    fn nothing_written_is_no_rules() {
        assert!(read(&Json::Null).unwrap().is_none());
        assert!(read(&json!({"rest": 0.5})).unwrap().is_some());
        assert!(read(&json!("x")).is_err());
    }
}
