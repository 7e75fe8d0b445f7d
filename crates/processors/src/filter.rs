//! Which traces a user does not want: ignored resources and tag filters, both
//! on the root span and before anything is scrubbed.
//!
//! Source: `datadog-agent:pkg/trace/filters/blacklister.go`, `pkg/trace/agent/agent.go`.

use crate::go_regex;
use crate::replacer::print_value;
use regex::Regex;
use spanloom_model::{Batch, Protocol, Range32, keys};
use std::borrow::Cow;

/// A setting that was left out because it is not valid; the rest works.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: `{pattern}` is not a valid expression ({cause}); it has no effect until it is corrected")]
pub struct BadPattern {
    /// Key of the setting.
    pub setting: String,
    /// The expression.
    pub pattern: String,
    /// What is wrong with it.
    pub cause: String,
}

impl BadPattern {
    pub(crate) fn new(setting: &str, pattern: &str, error: &regex::Error) -> Self {
        let cause = error.to_string();
        let cause = cause.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Self { setting: setting.into(), pattern: pattern.into(), cause }
    }
}

/// `ignore_resources`: expressions searched in the root's resource.
#[derive(Debug, Default, Clone)]
pub struct IgnoredResources(Vec<Regex>);

impl IgnoredResources {
    /// Compiles the expressions; invalid ones are returned and left out.
    pub fn new(patterns: &[String]) -> (Self, Vec<BadPattern>) {
        let mut kept = Vec::new();
        let mut bad = Vec::new();
        for p in patterns {
            match go_regex::compile(p) {
                Ok(r) => kept.push(r),
                Err(e) => bad.push(BadPattern::new("apm_config.ignore_resources", p, &e)),
            }
        }
        (Self(kept), bad)
    }

    /// Whether a trace (or a statistics group) of this resource is unwanted.
    pub fn contains(&self, resource: &str) -> bool {
        self.0.iter().any(|r| r.is_match(resource))
    }
}

/// An entry `key` or `key:value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagEntry {
    /// Tag key.
    pub key: String,
    /// Value or expression; absent: any value.
    pub value: Option<String>,
}

impl TagEntry {
    /// Splits at the first colon; both sides are trimmed. An empty value is
    /// none.
    pub fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some((k, v)) => {
                Self { key: k.trim().into(), value: Some(v.trim().to_owned()).filter(|v| !v.is_empty()) }
            }
            None => Self { key: text.trim().into(), value: None },
        }
    }
}

#[derive(Debug, Clone)]
struct PatternEntry {
    key: String,
    pattern: Option<Regex>,
}

/// `filter_tags` and `filter_tags_regex`.
#[derive(Debug, Default, Clone)]
pub struct TagFilters {
    reject: Vec<TagEntry>,
    reject_regex: Vec<PatternEntry>,
    require: Vec<TagEntry>,
    require_regex: Vec<PatternEntry>,
}

impl TagFilters {
    /// From the four lists, as entries. An expression whose key stands in the
    /// plain list of the same kind is skipped; an invalid one counts as "key only".
    pub fn new(
        require: Vec<TagEntry>,
        reject: Vec<TagEntry>,
        require_regex: Vec<TagEntry>,
        reject_regex: Vec<TagEntry>,
    ) -> (Self, Vec<BadPattern>) {
        let mut bad = Vec::new();
        let mut compile = |setting: &str, entries: Vec<TagEntry>, plain: &[TagEntry]| {
            let mut out = Vec::new();
            for e in entries.into_iter().filter(|e| !plain.iter().any(|p| p.key == e.key)) {
                let pattern = e.value.as_deref().and_then(|p| match go_regex::compile(p) {
                    Ok(r) => Some(r),
                    Err(error) => {
                        bad.push(BadPattern::new(setting, p, &error));
                        None
                    }
                });
                out.push(PatternEntry { key: e.key, pattern });
            }
            out
        };
        let require_regex = compile("apm_config.filter_tags_regex.require", require_regex, &require);
        let reject_regex = compile("apm_config.filter_tags_regex.reject", reject_regex, &reject);
        (Self { reject, reject_regex, require, require_regex }, bad)
    }

    /// Whether a trace whose root has these attributes is unwanted. Texts
    /// count; of v1.0 every type does, and the fields that are tags in other
    /// versions are there even if they are empty (observed).
    pub fn drops(&self, batch: &Batch, root: Range32) -> bool {
        let v1 = batch.intake.protocol == Protocol::DatadogV1;
        let get = |key: &str| -> Option<Cow<'_, str>> {
            if let Some(text) = batch.get_str(root, key) {
                return Some(text.into());
            }
            match key {
                _ if !v1 => None,
                keys::ENV | keys::VERSION | keys::COMPONENT => Some("".into()),
                keys::SPAN_KIND => Some("unknown".into()),
                _ => {
                    let attr = batch.attrs(root).iter().find(|a| batch.str(a.key) == key)?;
                    Some(print_value(batch, attr.value).into())
                }
            }
        };
        let found = |e: &PatternEntry, v: &str| e.pattern.as_ref().is_none_or(|p| p.is_match(v));
        self.reject.iter().any(|e| get(&e.key).is_some_and(|v| e.value.as_deref().is_none_or(|w| w == v)))
            || self.reject_regex.iter().any(|e| get(&e.key).is_some_and(|v| found(e, &v)))
            || self
                .require
                .iter()
                .any(|e| get(&e.key).is_none_or(|v| e.value.as_deref().is_some_and(|w| w != v)))
            || self.require_regex.iter().any(|e| get(&e.key).is_none_or(|v| !found(e, &v)))
    }
}
