//! `replace_tags`: a user's replacements in tags, resources and event
//! attributes. Runs after scrubbing and cutting.
//!
//! Source: `datadog-agent:pkg/trace/filters/replacer.go`.

use crate::filter::BadPattern;
use crate::go_regex;
use regex::Regex;
use spanloom_model::{Attr, Batch, Chunk, Protocol, Range32, Text, Value, keys};
use std::borrow::Cow;

/// One rule as a user writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleText {
    /// Tag name, `resource.name`, or `*`.
    pub name: String,
    /// Expression, in Go's dialect.
    pub pattern: String,
    /// Replacement; `$1`, `${1}`, `${name}`, `$$`.
    pub repl: String,
}

#[derive(Debug, Clone)]
struct Rule {
    name: String,
    pattern: Regex,
    repl: String,
}

/// Compiled rules, in order.
#[derive(Debug, Clone, Default)]
pub struct Replacer(Vec<Rule>);

impl Replacer {
    /// Compiles the rules. An empty name or pattern, or an invalid expression,
    /// is an error: the Agent does not start with it either.
    pub fn new(rules: &[RuleText]) -> Result<Self, BadPattern> {
        let mut out = Vec::new();
        for r in rules {
            if r.name.is_empty() || r.pattern.is_empty() {
                return Err(BadPattern {
                    setting: "apm_config.replace_tags".into(),
                    pattern: r.pattern.clone(),
                    cause: "every rule needs a `name` and a `pattern`".into(),
                });
            }
            let pattern = go_regex::compile(&r.pattern)
                .map_err(|e| BadPattern::new("apm_config.replace_tags", &r.pattern, &e))?;
            out.push(Rule { name: r.name.clone(), pattern, repl: r.repl.clone() });
        }
        Ok(Self(out))
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Applies every rule to all spans of a chunk, rule by rule.
    pub fn replace_chunk(&self, batch: &mut Batch, chunk: &Chunk) {
        for rule in &self.0 {
            for i in chunk.spans.usize() {
                rule.replace_span(batch, i);
            }
        }
    }

    /// Applies the rules to a statistics group.
    pub fn replace_group(&self, resource: &mut String, http_status: &mut u32) {
        for rule in &self.0 {
            let all = rule.name == "*";
            if (all || rule.name == keys::RESOURCE_NAME)
                && let Cow::Owned(new) = rule.apply(resource)
            {
                *resource = new;
            }
            if (all || rule.name == keys::HTTP_STATUS_CODE)
                && let Cow::Owned(new) = rule.apply(&http_status.to_string())
                && new.bytes().all(|b| b.is_ascii_digit())
                && let Ok(code) = new.parse()
            {
                *http_status = code;
            }
        }
    }
}

impl Rule {
    fn apply<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.pattern.replace_all(text, self.repl.as_str())
    }

    fn replace_text(&self, batch: &mut Batch, text: Text) -> Option<Text> {
        match self.apply(batch.str(text)) {
            Cow::Owned(new) => Some(batch.arena.push(&new)),
            Cow::Borrowed(_) => None,
        }
    }

    fn replace_span(&self, batch: &mut Batch, i: usize) {
        let all = self.name == "*";
        if all || self.name == keys::RESOURCE_NAME {
            let resource = batch.spans[i].resource;
            if let Some(new) = self.replace_text(batch, resource) {
                batch.spans[i].resource = new;
            }
            if !all {
                return;
            }
        }
        if batch.intake.protocol == Protocol::DatadogV1 {
            self.replace_typed(batch, batch.spans[i].attrs, true);
            for e in batch.spans[i].events.usize() {
                if let Some(range) = batch.events.get(e).map(|e| e.attrs) {
                    self.replace_typed(batch, range, false);
                }
            }
            return;
        }
        for a in batch.spans[i].attrs.usize() {
            let Some(attr) = batch.attrs.get(a).copied() else { continue };
            if !self.names(batch, &attr) {
                continue;
            }
            match attr.value {
                Value::Str(text) => {
                    if let Some(new) = self.replace_text(batch, text) {
                        batch.attrs[a].value = Value::Str(new);
                    }
                }
                Value::Double(_) | Value::Int(_) => {
                    let printed = print_number(attr.value);
                    if let Cow::Owned(new) = self.apply(&printed) {
                        batch.attrs[a].value = match parse_float(&new) {
                            Some(v) => Value::Double(v),
                            None => Value::Str(batch.arena.push(&new)),
                        };
                    }
                }
                _ => {}
            }
        }
        for e in batch.spans[i].events.usize() {
            let Some(range) = batch.events.get(e).map(|e| e.attrs) else { continue };
            self.replace_event(batch, range);
        }
    }

    /// Attributes of v1.0: whatever the type, its text is searched, and the
    /// result has the type that the new text looks like. `*` leaves the fields
    /// of a span alone that are tags in other versions.
    fn replace_typed(&self, batch: &mut Batch, range: Range32, of_span: bool) {
        for a in range.usize() {
            let Some(attr) = batch.attrs.get(a).copied().filter(|attr| self.names(batch, attr)) else {
                continue;
            };
            let field = of_span
                && matches!(attr.value, Value::Str(_))
                && [keys::ENV, keys::VERSION, keys::COMPONENT, keys::SPAN_KIND]
                    .contains(&batch.str(attr.key));
            let all = self.name == "*";
            if all && field {
                continue;
            }
            let text = print_value(batch, attr.value);
            let new = self.apply(&text);
            if all && new == text {
                continue;
            }
            batch.attrs[a].value = if field {
                Value::Str(batch.arena.push(&new))
            } else if let Ok(v) = new.parse() {
                Value::Int(v)
            } else if let Some(v) = parse_float(&new) {
                Value::Double(v)
            } else {
                Value::Str(batch.arena.push(&new))
            };
        }
    }

    fn names(&self, batch: &Batch, attr: &Attr) -> bool {
        let key = batch.str(attr.key);
        if self.name == "*" { !key.starts_with('_') } else { key == self.name }
    }

    fn replace_event(&self, batch: &mut Batch, range: Range32) {
        for a in range.usize() {
            let Some(attr) = batch.attrs.get(a).copied() else { continue };
            if !self.names(batch, &attr) {
                continue;
            }
            let value = self.event_value(batch, attr.value);
            if let Some(attr) = batch.attrs.get_mut(a) {
                attr.value = value;
            }
        }
    }

    fn event_value(&self, batch: &mut Batch, value: Value) -> Value {
        match value {
            Value::Str(text) => Value::Str(self.replace_text(batch, text).unwrap_or(text)),
            Value::Int(_) | Value::Double(_) | Value::Bool(_) => {
                let printed = match value {
                    Value::Bool(b) => b.to_string(),
                    number => print_number(number),
                };
                let new = match self.apply(&printed) {
                    Cow::Owned(new) => new,
                    Cow::Borrowed(_) => return value,
                };
                if let Ok(v) = new.parse::<i64>() {
                    Value::Int(v)
                } else if let Some(v) = parse_float(&new) {
                    Value::Double(v)
                } else if let Ok(v) = new.parse::<bool>() {
                    Value::Bool(v)
                } else {
                    Value::Str(batch.arena.push(&new))
                }
            }
            Value::List(range) => {
                for v in range.usize() {
                    let Some(item) = batch.values.get(v).copied() else { continue };
                    let new = self.event_value(batch, item);
                    if let Some(item) = batch.values.get_mut(v) {
                        *item = new;
                    }
                }
                value
            }
            _ => Value::Str(batch.arena.push("?")),
        }
    }
}

/// Shortest decimal without exponent, as Go's `FormatFloat(v, 'f', -1, 64)`.
fn print_number(value: Value) -> String {
    match value {
        Value::Int(v) => v.to_string(),
        Value::Double(v) if v.is_nan() => "NaN".into(),
        Value::Double(v) if v.is_infinite() => if v > 0.0 { "+Inf" } else { "-Inf" }.into(),
        Value::Double(v) => format!("{v}"),
        _ => String::new(),
    }
}

/// A value of v1.0 as text; lists and maps in brackets and braces.
pub(crate) fn print_value(batch: &Batch, value: Value) -> String {
    match value {
        Value::Str(t) => batch.str(t).to_owned(),
        Value::Bytes(t) => String::from_utf8_lossy(batch.arena.bytes(t)).into_owned(),
        Value::Bool(b) => b.to_string(),
        Value::List(range) => {
            let items: Vec<String> = batch.list(range).iter().map(|v| print_value(batch, *v)).collect();
            format!("[{}]", items.join(","))
        }
        Value::Map(range) => {
            let pair = |a: &Attr| format!("{}={}", batch.str(a.key), print_value(batch, a.value));
            format!("{{{}}}", batch.attrs(range).iter().map(pair).collect::<Vec<_>>().join(","))
        }
        other => print_number(other),
    }
}

/// Go's `ParseFloat`, as far as text of tags goes.
fn parse_float(text: &str) -> Option<f64> {
    text.parse().ok()
}
