//! Rules over whole traces. Nothing is buffered here: the store is the buffer,
//! and asks once a trace has been quiet for [`TailRules::wait`].
//!
//! Rules are tried in order and the first whose conditions all hold decides;
//! traces that no rule matches are kept at the rate for the rest. A budget of
//! spans per second can be put on a rule, and on everything together.

use crate::SECOND;
use crate::rare::Tokens;
use crate::signature::sample_by_rate;
use regex::Regex;
use spanloom_model::{Batch, Span, TraceId, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rule name of traces that no rule matched.
pub const REST: &str = "rest";

/// Tail sampling as written in the settings.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TailConfig {
    /// How long a trace must be quiet before it is decided on (`30s`).
    pub wait: Option<String>,
    /// How long a dropped trace can be kept after all (`10m`); afterwards it is
    /// removed when its files are merged.
    pub undrop: Option<String>,
    /// Rules in order.
    pub rules: Vec<RuleConfig>,
    /// Rate for traces that no rule matches, 0 to 1; default 1.
    pub rest: Option<f64>,
    /// Most spans kept per second, over all rules without `exempt`.
    pub budget: Option<f64>,
}

/// One rule as written in the settings. Conditions left out hold.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuleConfig {
    /// Name, told by `why`.
    pub name: String,
    /// Some span failed (`true`), or none did (`false`).
    pub error: Option<bool>,
    /// The trace lasted at least this long (`500ms`).
    pub min_duration: Option<String>,
    /// The trace lasted longer than the 99th percentile of the service of its
    /// root. Does not hold while that is unknown.
    pub slower_than_p99: Option<bool>,
    /// Pattern for the service of the root.
    pub service: Option<String>,
    /// Pattern for the operation of the root.
    pub operation: Option<String>,
    /// Pattern for the resource, or `http.route`, of some span.
    pub resource: Option<String>,
    /// For each key, some span has it with a value that matches the pattern.
    pub tags: BTreeMap<String, String>,
    /// The trace has at least this many spans.
    pub min_spans: Option<u32>,
    /// Rate at which to keep, 0 (drop) to 1; default 1.
    pub rate: Option<f64>,
    /// Most spans kept per second by this rule; beyond it the next rules are asked.
    pub budget: Option<f64>,
    /// Kept beyond the common budget too.
    pub exempt: bool,
}

/// Why settings are not rules.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TailError {
    /// A rule has no name, or one that is taken.
    #[error("tail rule {position}: needs a name of its own (`{REST}` and `budget` are taken), has {name:?}")]
    Name {
        /// Position, from 1.
        position: usize,
        /// What it has.
        name: String,
    },
    /// A value is not what the field takes.
    #[error("tail sampling, {rule}, `{field}`: {value:?} is not {accepted}")]
    Value {
        /// Which rule, or `settings` for a common field.
        rule: String,
        /// Field.
        field: &'static str,
        /// What was written.
        value: String,
        /// What is accepted.
        accepted: &'static str,
    },
    /// A pattern that does not compile, or is too large.
    #[error("tail sampling, {rule}, `{field}`: {reason}")]
    Pattern {
        /// Which rule.
        rule: String,
        /// Field, or the key of a tag.
        field: String,
        /// What the regex compiler says.
        reason: String,
    },
}

/// What is known about a trace without looking at its spans.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary<'a> {
    /// Its id; the chance of rates comes from it.
    pub trace_id: TraceId,
    /// Nanoseconds from the first start to the last end.
    pub duration: i64,
    /// Spans.
    pub spans: u32,
    /// Spans that failed.
    pub errors: u32,
    /// Service of the root.
    pub service: &'a str,
    /// Operation of the root.
    pub operation: &'a str,
}

/// Access to the spans of a trace, used only by rules that need it.
pub trait TraceSpans {
    /// Whether `test` holds for some span.
    fn any(&self, test: &mut dyn FnMut(&dyn SpanText) -> bool) -> bool;
}

/// Access to the texts of a span.
pub trait SpanText {
    /// Datadog resource; for other protocols what stands for it, or nothing.
    fn resource(&self) -> &str;
    /// Value of an attribute as text.
    fn attr(&self, key: &str) -> Option<Cow<'_, str>>;
}

/// Spans of a batch, as a trace.
pub struct BatchSpans<'a> {
    /// The batch.
    pub batch: &'a Batch,
    /// The spans of the trace.
    pub spans: &'a [Span],
}

struct OneSpan<'a>(&'a Batch, &'a Span);

impl TraceSpans for BatchSpans<'_> {
    fn any(&self, test: &mut dyn FnMut(&dyn SpanText) -> bool) -> bool {
        self.spans.iter().any(|s| test(&OneSpan(self.batch, s)))
    }
}

impl SpanText for OneSpan<'_> {
    fn resource(&self) -> &str {
        self.0.str(self.1.resource)
    }
    fn attr(&self, key: &str) -> Option<Cow<'_, str>> {
        match self.0.get(self.1.attrs, key)? {
            Value::Str(t) => Some(Cow::Borrowed(self.0.str(t))),
            Value::Bool(b) => Some(Cow::Owned(b.to_string())),
            Value::Int(i) => Some(Cow::Owned(i.to_string())),
            Value::Double(d) => Some(Cow::Owned(d.to_string())),
            _ => None,
        }
    }
}

/// What became of a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct TailDecision {
    /// Whether it is kept.
    pub keep: bool,
    /// Name of the rule; [`REST`] if none matched.
    pub rule: Arc<str>,
    /// Rate at which it decided.
    pub rate: f64,
    /// The rule kept it, the common budget did not.
    pub over_budget: bool,
    /// Time of the decision, nanoseconds since the Unix epoch.
    pub at: i64,
}

/// Compiled rules.
#[derive(Clone, Debug)]
pub struct TailRules {
    wait: i64,
    undrop: i64,
    rules: Vec<Rule>,
    rest: f64,
    rest_name: Arc<str>,
    budget: Option<Tokens>,
}

#[derive(Clone, Debug)]
struct Rule {
    name: Arc<str>,
    error: Option<bool>,
    min_duration: Option<i64>,
    slower_than_p99: Option<bool>,
    service: Option<Regex>,
    operation: Option<Regex>,
    resource: Option<Regex>,
    tags: Vec<(String, Regex)>,
    min_spans: u32,
    rate: f64,
    budget: Option<Tokens>,
    exempt: bool,
}

impl TailRules {
    /// Checks and compiles settings. All errors are given, not only the first.
    pub fn new(config: &TailConfig) -> Result<Self, Vec<TailError>> {
        let mut check = Check { rule: "settings".into(), errors: Vec::new() };
        let wait = config.wait.as_ref().map_or(30 * SECOND, |w| check.duration("wait", w));
        let undrop = config.undrop.as_ref().map_or(600 * SECOND, |w| check.duration("undrop", w));
        let rest = check.rate("rest", config.rest);
        let budget = check.budget(config.budget);
        let mut names: Vec<&str> = vec![REST, "budget", ""];
        let mut rules = Vec::with_capacity(config.rules.len());
        for (i, rule) in config.rules.iter().enumerate() {
            if names.contains(&rule.name.as_str()) {
                check.errors.push(TailError::Name { position: i + 1, name: rule.name.clone() });
            }
            names.push(&rule.name);
            check.rule = format!("rule {:?}", rule.name);
            rules.push(Rule {
                name: rule.name.as_str().into(),
                error: rule.error,
                min_duration: rule.min_duration.as_ref().map(|d| check.duration("min_duration", d)),
                slower_than_p99: rule.slower_than_p99,
                service: check.pattern("service", &rule.service),
                operation: check.pattern("operation", &rule.operation),
                resource: check.pattern("resource", &rule.resource),
                tags: rule.tags.iter().filter_map(|(k, p)| Some((k.clone(), check.regex(k, p)?))).collect(),
                min_spans: rule.min_spans.unwrap_or(0),
                rate: check.rate("rate", rule.rate),
                budget: check.budget(rule.budget),
                exempt: rule.exempt,
            });
        }
        if check.errors.is_empty() {
            Ok(Self { wait, undrop, rules, rest, rest_name: REST.into(), budget })
        } else {
            Err(check.errors)
        }
    }

    /// How long a trace must be quiet before it is decided on, nanoseconds.
    pub fn wait(&self) -> i64 {
        self.wait
    }

    /// How long a dropped trace can be kept after all, nanoseconds.
    pub fn undrop(&self) -> i64 {
        self.undrop
    }

    /// Whether every trace is kept, so that nobody needs to ask.
    pub fn keeps_all(&self) -> bool {
        self.rest >= 1.0 && self.budget.is_none() && self.rules.iter().all(|r| r.rate >= 1.0)
    }

    /// Decides on a trace. `p99` gives the 99th percentile of a service in
    /// nanoseconds, if known. `now` in nanoseconds since the Unix epoch.
    pub fn decide(
        &mut self,
        trace: &Summary<'_>,
        spans: &dyn TraceSpans,
        p99: &dyn Fn(&str) -> Option<f64>,
        now: i64,
    ) -> TailDecision {
        let cost = f64::from(trace.spans.max(1));
        let mut found = (self.rest_name.clone(), self.rest, false);
        for rule in &mut self.rules {
            if !rule.matches(trace, spans, p99) {
                continue;
            }
            // Only what the rate lets through uses the rule's budget.
            if sample_by_rate(trace.trace_id, rule.rate)
                && let Some(budget) = &mut rule.budget
                && !budget.take(cost, now)
            {
                continue;
            }
            found = (rule.name.clone(), rule.rate, rule.exempt);
            break;
        }
        let (rule, rate, exempt) = found;
        let keep = sample_by_rate(trace.trace_id, rate);
        let over_budget = keep && !exempt && self.budget.as_mut().is_some_and(|b| !b.take(cost, now));
        TailDecision { keep: keep && !over_budget, rule, rate, over_budget, at: now }
    }
}

impl Rule {
    fn matches(
        &self,
        trace: &Summary<'_>,
        spans: &dyn TraceSpans,
        p99: &dyn Fn(&str) -> Option<f64>,
    ) -> bool {
        let is = |pattern: &Option<Regex>, text| pattern.as_ref().is_none_or(|p| p.is_match(text));
        self.error.is_none_or(|e| e == (trace.errors > 0))
            && self.min_duration.is_none_or(|d| trace.duration >= d)
            && trace.spans >= self.min_spans
            && is(&self.service, trace.service)
            && is(&self.operation, trace.operation)
            && self
                .slower_than_p99
                .is_none_or(|slow| p99(trace.service).is_some_and(|p| slow == (trace.duration as f64 > p)))
            && self.resource.as_ref().is_none_or(|p| {
                spans.any(&mut |s| {
                    p.is_match(s.resource()) || s.attr("http.route").is_some_and(|r| p.is_match(&r))
                })
            })
            && self
                .tags
                .iter()
                .all(|(key, p)| spans.any(&mut |s| s.attr(key).is_some_and(|v| p.is_match(&v))))
    }
}

struct Check {
    rule: String,
    errors: Vec<TailError>,
}

impl Check {
    fn wrong(&mut self, field: &'static str, value: String, accepted: &'static str) {
        self.errors.push(TailError::Value { rule: self.rule.clone(), field, value, accepted });
    }

    fn duration(&mut self, field: &'static str, text: &str) -> i64 {
        parse_duration(text).unwrap_or_else(|| {
            self.wrong(field, text.to_owned(), "a duration such as 500ms, 2s, 1m");
            0
        })
    }

    fn rate(&mut self, field: &'static str, rate: Option<f64>) -> f64 {
        let rate = rate.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&rate) {
            self.wrong(field, rate.to_string(), "a rate from 0 to 1");
        }
        rate
    }

    fn budget(&mut self, budget: Option<f64>) -> Option<Tokens> {
        let per_second = budget?;
        if !(per_second > 0.0 && per_second.is_finite()) {
            self.wrong("budget", per_second.to_string(), "a number of spans per second above 0");
        }
        // Ten seconds may be saved up: traces come in bursts, and one larger
        // than the bucket could never be kept.
        Some(Tokens::new(per_second, per_second * 10.0))
    }

    fn pattern(&mut self, field: &str, pattern: &Option<String>) -> Option<Regex> {
        self.regex(field, pattern.as_ref()?)
    }

    fn regex(&mut self, field: &str, pattern: &str) -> Option<Regex> {
        let made = regex::RegexBuilder::new(pattern).size_limit(1 << 20).build();
        made.map_err(|e| {
            let reason = e.to_string().lines().last().unwrap_or_default().to_owned();
            self.errors.push(TailError::Pattern { rule: self.rule.clone(), field: field.to_owned(), reason });
        })
        .ok()
    }
}

/// Nanoseconds of `500ms`, `1.5s`, `2m`, `1h`, `100us`, `7ns`.
fn parse_duration(text: &str) -> Option<i64> {
    let text = text.trim();
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic() || c == 'µ')?;
    let (number, unit) = text.split_at(unit_at);
    let scale = match unit {
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        "h" => 3600e9,
        _ => return None,
    };
    let number: f64 = number.trim().parse().ok()?;
    let ns = number * scale;
    (number >= 0.0 && ns < i64::MAX as f64).then_some(ns as i64)
}
