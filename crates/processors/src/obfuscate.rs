//! Which tags of which span types are scrubbed, and by what
//! (`datadog-agent:pkg/trace/agent/obfuscate.go`).
//!
//! Fails closed: statements are also scrubbed where the reference forgets to
//! look; `docs/obfuscation.md` lists these differences.

use spanloom_model::{Attr, Batch, Text, Value};
use spanloom_obfuscator::{Change, NON_PARSABLE_SQL, Obfuscator, SqlCache, SqlMode, quantize_redis};
use std::borrow::Cow;
use std::sync::Arc;

/// Tags that hold a statement under another name.
const STATEMENTS: [&str; 2] = ["db.statement", "db.query.text"];

/// Scrubs spans. One per worker: it remembers recent statements.
pub struct SpanObfuscator {
    obfuscator: Arc<Obfuscator>,
    cache: Option<SqlCache>,
    statement_tags: bool,
}

impl SpanObfuscator {
    /// With these settings. `statement_tags`: also scrub `db.statement` and
    /// `db.query.text`, which the Agent leaves as they are up to 7.80.
    pub fn new(obfuscator: Arc<Obfuscator>, statement_tags: bool) -> Self {
        let cache = obfuscator.sql_cache();
        Self { obfuscator, cache, statement_tags }
    }

    /// Hides what is sensitive in the span at a position.
    pub fn scrub(&mut self, batch: &mut Batch, span: usize) {
        let Some(s) = batch.spans.get(span).copied() else { return };
        if self.obfuscator.config().credit_cards.enabled {
            self.cards(batch, span);
        }
        match batch.arena.bytes(s.span_type) {
            b"sql" | b"cassandra" => self.sql(batch, span),
            b"db" => self.sql_if_statement(batch, span),
            b"redis" => {
                self.quantize(batch, span);
                if self.obfuscator.config().redis.enabled {
                    replace_tag(batch, span, "redis.raw_command", |v| self.obfuscator.redis(v));
                }
            }
            b"valkey" => {
                self.quantize(batch, span);
                if self.obfuscator.config().valkey.enabled {
                    replace_tag(batch, span, "valkey.raw_command", |v| self.obfuscator.valkey(v));
                }
            }
            b"memcached" if self.obfuscator.config().memcached.enabled => {
                replace_tag(batch, span, "memcached.command", |v| self.obfuscator.memcached(v));
            }
            b"web" | b"http" => replace_tag(batch, span, "http.url", |v| self.obfuscator.url(v)),
            b"mongodb" => replace_tag(batch, span, "mongodb.query", |v| self.obfuscator.mongodb(v)),
            b"elasticsearch" | b"opensearch" => {
                replace_tag(batch, span, "elasticsearch.body", |v| self.obfuscator.elasticsearch(v));
                replace_tag(batch, span, "opensearch.body", |v| self.obfuscator.opensearch(v));
            }
            _ => {}
        }
    }

    /// The resource, which also becomes the tag `sql.query` (in place of what
    /// the tracer wrote there), and the tables if they are wanted.
    fn sql(&mut self, batch: &mut Batch, span: usize) {
        let s = batch.spans[span];
        let dbms = self.dbms(batch, span);
        if !s.resource.is_empty() {
            let mut tables = String::new();
            let text = batch.str(s.resource);
            let change = if self.obfuscator.config().sql.table_names {
                match self.obfuscator.sql(text, dbms.as_deref()) {
                    Ok(sql) => {
                        tables = sql.tables;
                        Change::between(text, sql.text)
                    }
                    Err(_) => Change::Text(Cow::Borrowed(NON_PARSABLE_SQL)),
                }
            } else {
                self.obfuscator.sql_change(text, dbms.as_deref(), self.cache.as_mut())
            };
            let resource = changed(batch, s.resource, change);
            batch.spans[span].resource = resource;
            batch.set_text(span, "sql.query", resource);
            if !tables.is_empty() {
                batch.set_str(span, "sql.tables", &tables);
            }
        }
        if self.statement_tags {
            for key in STATEMENTS {
                self.sql_tag(batch, span, key, dbms.as_deref());
            }
        }
    }

    /// Spans of type `db`: not always SQL, so only what reads like a statement
    /// is scrubbed. The reference lets it through.
    fn sql_if_statement(&mut self, batch: &mut Batch, span: usize) {
        let s = batch.spans[span];
        let dbms = self.dbms(batch, span);
        let text = batch.str(s.resource);
        if is_statement(text) {
            let change = self.obfuscator.sql_change(text, dbms.as_deref(), self.cache.as_mut());
            batch.spans[span].resource = changed(batch, s.resource, change);
        }
        for key in ["sql.query", STATEMENTS[0], STATEMENTS[1]] {
            if batch.span_str(&s, key).is_some_and(is_statement) {
                self.sql_tag(batch, span, key, dbms.as_deref());
            }
        }
    }

    /// The kind of database, which only the lexer modes ask for.
    fn dbms(&self, batch: &Batch, span: usize) -> Option<String> {
        if self.obfuscator.config().sql.mode == SqlMode::Builtin {
            return None;
        }
        batch.span_str(&batch.spans[span], "db.type").map(str::to_owned)
    }

    fn sql_tag(&mut self, batch: &mut Batch, span: usize, key: &'static str, dbms: Option<&str>) {
        let Some(text) = batch.span_text(&batch.spans[span], key) else { return };
        let change = self.obfuscator.sql_change(batch.str(text), dbms, self.cache.as_mut());
        change_tag(batch, span, key, text, change);
    }

    fn quantize(&self, batch: &mut Batch, span: usize) {
        let resource = batch.spans[span].resource;
        let text = batch.str(resource);
        let change = Change::between(text, quantize_redis(text));
        batch.spans[span].resource = changed(batch, resource, change);
    }

    /// Card numbers in text tags, and in attributes of events.
    fn cards(&self, batch: &mut Batch, span: usize) {
        let s = batch.spans[span];
        for a in s.attrs.usize() {
            if let Some(Attr { key, value: Value::Str(text) }) = batch.attrs.get(a)
                && self.is_card(batch, *key, *text)
            {
                batch.attrs[a].value = Value::Str(batch.arena.push_static("?"));
            }
        }
        for e in s.events.usize() {
            let Some(range) = batch.events.get(e).map(|e| e.attrs) else { continue };
            for a in range.usize() {
                let Some(attr) = batch.attrs.get(a).copied() else { continue };
                if let Some(scrubbed) = self.event_card(batch, attr.key, attr.value) {
                    batch.attrs[a].value = scrubbed;
                }
            }
        }
    }

    fn is_card(&self, batch: &Batch, key: Text, value: Text) -> bool {
        // The shortest card number has 12 digits.
        value.len() >= 12 && self.obfuscator.is_card(batch.arena.bytes(key), batch.arena.bytes(value))
    }

    /// `?` in place of a card number; `None` if the value stays as it is.
    fn event_card(&self, batch: &mut Batch, key: Text, value: Value) -> Option<Value> {
        let number = |n: String| self.obfuscator.is_card(batch.arena.bytes(key), &n);
        let hit = match value {
            Value::Str(text) => self.is_card(batch, key, text),
            Value::Int(n) => number(n.to_string()),
            Value::Double(n) if n.is_finite() => number(format!("{n}")),
            Value::List(range) => {
                for v in range.usize() {
                    let Some(item) = batch.values.get(v).copied() else { continue };
                    if let Some(scrubbed) = self.event_card(batch, key, item) {
                        batch.values[v] = scrubbed;
                    }
                }
                false
            }
            _ => false,
        };
        hit.then(|| Value::Str(batch.arena.push_static("?")))
    }
}

/// Whether a text begins like an SQL statement: a keyword, then something that
/// is not a path or a colon (`GET /`, `set: 5` and the like are no statements).
fn is_statement(text: &str) -> bool {
    const VERBS: [&str; 22] = [
        "select", "insert", "update", "delete", "replace", "merge", "with", "call", "exec", "execute",
        "create", "alter", "drop", "truncate", "declare", "begin", "explain", "upsert", "values", "grant",
        "copy", "do",
    ];
    let mut text = text.trim_start();
    // Comments and opening brackets may stand before the verb.
    loop {
        let before = text;
        text = text.trim_start_matches(['(', '{', ';', ' ', '\t', '\r', '\n']);
        if let Some(rest) = text.strip_prefix("/*") {
            text = rest.split_once("*/").map_or("", |(_, rest)| rest);
        } else if let Some(rest) = text.strip_prefix("--") {
            text = rest.split_once('\n').map_or("", |(_, rest)| rest);
        }
        if text == before {
            break;
        }
    }
    let end = text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    !rest.starts_with([':', '.', '/', '_', '-'])
        && !rest.trim_start().starts_with('/')
        && VERBS.iter().any(|v| word.eq_ignore_ascii_case(v))
}

/// What became of a text of the batch.
fn changed(batch: &mut Batch, text: Text, change: Change<'_>) -> Text {
    match change {
        Change::None => text,
        Change::Part(place) if place.is_empty() => Text::EMPTY,
        Change::Part(place) => text.slice(place.start, place.end),
        Change::Text(new) => batch.arena.push(&new),
    }
}

fn change_tag(batch: &mut Batch, span: usize, key: &'static str, text: Text, change: Change<'_>) {
    if change != Change::None {
        let text = changed(batch, text, change);
        batch.set_text(span, key, text);
    }
}

fn replace_tag(batch: &mut Batch, span: usize, key: &'static str, scrub: impl FnOnce(&str) -> Cow<'_, str>) {
    let Some(text) = batch.span_text(&batch.spans[span], key) else { return };
    let value = batch.str(text);
    let change = Change::between(value, scrub(value));
    change_tag(batch, span, key, text, change);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_told_from_other_texts() {
        for text in
            ["SELECT 1", "  /* x */ (select 1)", "-- c\nwith a as (select 1)", "{call p(1)}", "delete"]
        {
            assert!(is_statement(text), "{text}");
        }
        for text in ["GET /", "find users", "update: x", "delete /x", "short", "", "selector 1", "drop.table"]
        {
            assert!(!is_statement(text), "{text}");
        }
    }
}
