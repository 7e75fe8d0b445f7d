//! The query language of our search bar and of `spanloom search`, in the
//! spirit of Datadog's:
//!
//! ```text
//! service:api status:error @user.id:42 duration:>200ms -service:x free text
//! (env:prod OR env:staging) NOT kind:client "exact phrase" resource:"GET /*" @code:[400 TO 499]
//! ```
//!
//! Conditions side by side must all hold on one span; `AND`, `OR`, `NOT` (or
//! `-`) and parentheses combine them, `OR` binding weakest. `*` and `?` in a
//! bare value are wildcards; between quotes every character is itself, except
//! that a backslash keeps the next one. A word without key is searched in the
//! texts of the span.
//!
//! | key | meaning |
//! |---|---|
//! | `service` | service |
//! | `operation`, `name`, `operation_name` | span name or resource |
//! | `resource`, `resource_name` | Datadog resource |
//! | `type` | Datadog span type |
//! | `status` | `ok`, `error`, `unset` |
//! | `error` | `true`, `false` |
//! | `kind`, `span.kind` | `server`, `client`, `producer`, `consumer`, `internal` |
//! | `duration` | with a unit: `>200ms`, `[1ms TO 2s]` |
//! | `root` | `true`: the span has no parent |
//! | `event` | an event of this name |
//! | `@any.key`, `any.other.key` | attribute of the span, resource, scope, events or links; `*` for any value |
//!
//! Attributes compare with `:value`, `:>5`, `:<=5`, `:[1 TO 5]`,
//! `:(a OR b)`.

use crate::params::parse_go_duration;
use spanloom_model::{AttrScope, Cond, Expr, Literal, Op, SpanKind, Status, keys};

/// Longest query in bytes.
pub const LONGEST: usize = 8 * 1024;
/// Deepest nesting of parentheses and negations.
const DEEPEST: u32 = 32;

/// What is wrong with a query, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}, at character {}", position + 1)]
pub struct SyntaxError {
    /// Place in characters from 0.
    pub position: usize,
    /// What was expected or found.
    pub message: String,
}

/// Parses a query; an empty one holds for every span.
pub fn parse(text: &str) -> Result<Expr, SyntaxError> {
    if text.len() > LONGEST {
        return Err(SyntaxError {
            position: 0,
            message: format!("the query is longer than {LONGEST} bytes"),
        });
    }
    let mut p = Parser { text, at: 0, depth: 0 };
    p.space();
    if p.rest().is_empty() {
        return Ok(Expr::True);
    }
    let expr = p.either()?;
    if !p.rest().is_empty() {
        return Err(p.error("unexpected `)`"));
    }
    Ok(expr)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

/// A value as it was written.
struct Written {
    /// Without quotes and escapes.
    text: String,
    /// As a pattern, if it has wildcards.
    pattern: Option<String>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn error(&self, message: impl Into<String>) -> SyntaxError {
        self.error_at(self.at, message)
    }

    fn error_at(&self, at: usize, message: impl Into<String>) -> SyntaxError {
        SyntaxError { position: self.text[..at].chars().count(), message: message.into() }
    }

    fn space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, token: char) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len_utf8();
        }
        found
    }

    /// A whole word such as `OR`, and the space behind it.
    fn word(&mut self, word: &str) -> bool {
        let found = self.rest().strip_prefix(word).is_some_and(|after| {
            after.chars().next().is_none_or(|c| c.is_whitespace() || matches!(c, '(' | ')'))
        });
        if found {
            self.at += word.len();
            self.space();
        }
        found
    }

    fn deeper<T>(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<T, SyntaxError>,
    ) -> Result<T, SyntaxError> {
        if self.depth >= DEEPEST {
            return Err(self.error(format!("nested deeper than {DEEPEST} levels")));
        }
        self.depth += 1;
        let out = inner(self);
        self.depth -= 1;
        out
    }

    fn either(&mut self) -> Result<Expr, SyntaxError> {
        let mut parts = vec![self.both()?];
        while self.word("OR") {
            parts.push(self.both()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::Or(parts) })
    }

    fn both(&mut self) -> Result<Expr, SyntaxError> {
        let mut parts = vec![self.unary()?];
        loop {
            let at = self.at;
            if self.rest().is_empty() || self.rest().starts_with(')') {
                break;
            }
            if self.word("OR") {
                self.at = at;
                break;
            }
            self.word("AND");
            parts.push(self.unary()?);
        }
        Ok(Expr::all(parts))
    }

    fn unary(&mut self) -> Result<Expr, SyntaxError> {
        if self.word("NOT") || self.eat('-') {
            let inner = self.deeper(Self::unary)?;
            return Ok(Expr::Not(Box::new(inner)));
        }
        let open = self.at;
        if self.eat('(') {
            self.space();
            let inner = self.deeper(Self::either)?;
            if !self.eat(')') {
                return Err(self.error_at(open, "this `(` is never closed"));
            }
            self.space();
            return Ok(inner);
        }
        let expr = self.term()?;
        self.space();
        Ok(expr)
    }

    fn term(&mut self) -> Result<Expr, SyntaxError> {
        let start = self.at;
        for operator in ["AND", "OR"] {
            if self.word(operator) {
                return Err(self.error_at(start, format!("`{operator}` needs a condition on both sides")));
            }
        }
        if self.rest().is_empty() || self.rest().starts_with(')') {
            return Err(self.error("a condition is missing here"));
        }
        if self.rest().starts_with('"') {
            let value = self.value(false)?;
            return Ok(Expr::Is(Cond::FullText(value.text)));
        }
        let attribute = self.eat('@');
        let key = self.key();
        if key.is_empty() && (attribute || self.rest().starts_with(':')) {
            return Err(self.error_at(start, "a key is missing here"));
        }
        if !self.eat(':') {
            if attribute {
                return Err(
                    self.error(format!("`@{key}` needs a value: `@{key}:value`, or `@{key}:*` for any"))
                );
            }
            self.at = start;
            let value = self.value(true)?;
            return Ok(free(value));
        }
        self.condition(&key, attribute, start)
    }

    /// What stands before the colon; a backslash keeps the next character.
    fn key(&mut self) -> String {
        let mut key = String::new();
        let mut chars = self.rest().char_indices();
        let mut end = self.rest().len();
        while let Some((i, c)) = chars.next() {
            match c {
                '\\' => key.extend(chars.next().map(|(_, c)| c)),
                ':' | '(' | ')' | '"' => {
                    end = i;
                    break;
                }
                c if c.is_whitespace() => {
                    end = i;
                    break;
                }
                c => key.push(c),
            }
        }
        self.at += end;
        key
    }

    /// One value: quoted, or up to a space or parenthesis.
    fn value(&mut self, free: bool) -> Result<Written, SyntaxError> {
        let start = self.at;
        let quoted = self.eat('"');
        let (mut text, mut pattern, mut wild) = (String::new(), String::new(), false);
        let body = self.rest();
        let mut chars = body.char_indices();
        let mut end = None;
        while let Some((i, c)) = chars.next() {
            let literal = match c {
                '\\' => chars.next().map_or('\\', |(_, c)| c),
                '"' if quoted => {
                    end = Some(i + 1);
                    break;
                }
                '*' | '?' if !quoted => {
                    wild = true;
                    text.push(c);
                    pattern.push(c);
                    continue;
                }
                c if !quoted
                    && (c.is_whitespace()
                        || matches!(c, '(' | ')' | '[' | ']') && !(free && matches!(c, '[' | ']'))) =>
                {
                    end = Some(i);
                    break;
                }
                c => c,
            };
            text.push(literal);
            if matches!(literal, '*' | '?' | '\\') {
                pattern.push('\\');
            }
            pattern.push(literal);
        }
        if quoted && end.is_none() {
            return Err(self.error_at(start, "this quote is never closed"));
        }
        self.at += end.unwrap_or(body.len());
        if text.is_empty() && !quoted {
            return Err(self.error_at(start, "a value is missing here"));
        }
        Ok(Written { text, pattern: wild.then_some(pattern), at: start })
    }

    fn condition(&mut self, key: &str, attribute: bool, start: usize) -> Result<Expr, SyntaxError> {
        if self.eat('(') {
            let open = self.at - 1;
            self.space();
            let expr = self.deeper(|p| p.alternatives(key, attribute, start))?;
            if !self.eat(')') {
                return Err(self.error_at(open, "this `(` is never closed"));
            }
            return Ok(expr);
        }
        if self.eat('[') {
            let open = self.at - 1;
            self.space();
            let from = self.value(false)?;
            self.space();
            if !self.word("TO") {
                return Err(self.error("a range needs `TO`, as in `[1 TO 5]`"));
            }
            let to = self.value(false)?;
            self.space();
            if !self.eat(']') {
                return Err(self.error_at(open, "this `[` is never closed"));
            }
            let low = self.compare(key, attribute, start, Op::Ge, &from)?;
            let high = self.compare(key, attribute, start, Op::Le, &to)?;
            // One duration condition serves an index better than two.
            if let (Expr::Is(Cond::Duration { min, .. }), Expr::Is(Cond::Duration { max, .. })) =
                (&low, &high)
            {
                return Ok(Expr::Is(Cond::Duration { min: *min, max: *max }));
            }
            return Ok(Expr::all(vec![low, high]));
        }
        for (token, op) in [(">=", Op::Ge), ("<=", Op::Le), (">", Op::Gt), ("<", Op::Lt)] {
            if self.rest().starts_with(token) {
                self.at += token.len();
                let value = self.value(false)?;
                return self.compare(key, attribute, start, op, &value);
            }
        }
        let value = self.value(false)?;
        self.equals(key, attribute, &value)
    }

    /// `key:(a OR b)`; values side by side are alternatives too.
    fn alternatives(&mut self, key: &str, attribute: bool, start: usize) -> Result<Expr, SyntaxError> {
        let mut any = Vec::new();
        loop {
            any.push(self.condition(key, attribute, start)?);
            self.space();
            let joined = self.word("OR");
            if self.rest().starts_with(')') || (self.rest().is_empty() && !joined) {
                break;
            }
        }
        Ok(if any.len() == 1 { any.remove(0) } else { Expr::Or(any) })
    }

    fn equals(&self, key: &str, attribute: bool, value: &Written) -> Result<Expr, SyntaxError> {
        let text = value.text.as_str();
        let wrong =
            |expected: &str| Err(self.error_at(value.at, format!("`{key}` takes {expected}, not {text:?}")));
        let scoped = |scope: AttrScope, key: &str| {
            if value.pattern.is_some() && text == "*" {
                return Expr::Is(Cond::HasAttr { scope, key: key.to_owned() });
            }
            let literal = match &value.pattern {
                Some(pattern) => Literal::Glob(pattern.clone()),
                None => Literal::Typed(text.to_owned()),
            };
            Expr::Is(Cond::Attr { scope, key: key.to_owned(), op: Op::Eq, value: literal })
        };
        if attribute {
            return Ok(scoped(AttrScope::Any, key));
        }
        let cond = match key {
            "service" => match &value.pattern {
                Some(pattern) => Cond::ServiceGlob(pattern.clone()),
                None => Cond::Service { name: text.to_owned(), fold: false },
            },
            "operation" | "name" | "operation_name" => match &value.pattern {
                Some(pattern) => Cond::NameGlob(pattern.clone()),
                None => Cond::Name { name: text.to_owned(), fold: false },
            },
            "resource" | "resource_name" => return Ok(scoped(AttrScope::Span, keys::RESOURCE_NAME)),
            "type" => return Ok(scoped(AttrScope::Span, keys::SPAN_TYPE)),
            "status" => match text.to_ascii_lowercase().as_str() {
                "ok" => Cond::Status(Status::Ok),
                "error" => Cond::Status(Status::Error),
                "unset" => Cond::Status(Status::Unset),
                _ => return wrong("`ok`, `error` or `unset`"),
            },
            "error" | "root" => {
                let wanted = match text {
                    "true" => true,
                    "false" => false,
                    _ => return wrong("`true` or `false`"),
                };
                match (key, wanted) {
                    ("error", _) => Cond::Error(wanted),
                    (_, true) => Cond::Root,
                    (_, false) => return Ok(Expr::Not(Box::new(Expr::Is(Cond::Root)))),
                }
            }
            "kind" | keys::SPAN_KIND => match SpanKind::from_name(text) {
                Some(kind) => return Ok(crate::tags::of_kind(kind)),
                None => return wrong("`server`, `client`, `producer`, `consumer` or `internal`"),
            },
            "duration" => {
                let nanos = self.duration(value)?;
                Cond::Duration { min: nanos, max: nanos }
            }
            "event" => Cond::EventName(text.to_owned()),
            _ => return Ok(scoped(AttrScope::Any, key)),
        };
        Ok(Expr::Is(cond))
    }

    fn compare(
        &self,
        key: &str,
        attribute: bool,
        start: usize,
        op: Op,
        value: &Written,
    ) -> Result<Expr, SyntaxError> {
        if key == "duration" && !attribute {
            if value.text == "*" {
                return Ok(Expr::Is(Cond::Duration { min: i64::MIN, max: i64::MAX }));
            }
            let nanos = self.duration(value)?;
            let (min, max) = match op {
                Op::Gt => (nanos.saturating_add(1), i64::MAX),
                Op::Ge => (nanos, i64::MAX),
                Op::Lt => (i64::MIN, nanos.saturating_sub(1)),
                _ => (i64::MIN, nanos),
            };
            return Ok(Expr::Is(Cond::Duration { min, max }));
        }
        const FIELDS: &[&str] = &[
            "service",
            "operation",
            "name",
            "operation_name",
            "resource",
            "resource_name",
            "type",
            "status",
            "error",
            "root",
            "kind",
            "span.kind",
            "event",
        ];
        if !attribute && FIELDS.contains(&key) {
            return Err(self.error_at(start, format!("`{key}` has no order; it takes a plain value")));
        }
        let scope = AttrScope::Any;
        if value.text == "*" {
            return Ok(Expr::Is(Cond::HasAttr { scope, key: key.to_owned() }));
        }
        let value = match value.text.parse::<f64>() {
            Ok(number) if number.is_finite() => Literal::Number(number),
            _ => return Err(self.error_at(value.at, format!("{:?} is not a number", value.text))),
        };
        Ok(Expr::Is(Cond::Attr { scope, key: key.to_owned(), op, value }))
    }

    fn duration(&self, value: &Written) -> Result<i64, SyntaxError> {
        parse_go_duration(&value.text).map_err(|_| {
            self.error_at(
                value.at,
                format!("{:?} is not a duration; write a number and ns, us, ms, s, m or h", value.text),
            )
        })
    }
}

/// A word without key: wildcards at its ends say nothing more.
fn free(value: Written) -> Expr {
    match value.pattern {
        Some(pattern) => {
            let plain = pattern.trim_matches('*');
            if plain.contains(['*', '?', '\\']) {
                Expr::Or(vec![
                    Expr::Is(Cond::ServiceGlob(pattern.clone())),
                    Expr::Is(Cond::NameGlob(pattern)),
                ])
            } else if plain.is_empty() {
                Expr::True
            } else {
                Expr::Is(Cond::FullText(plain.to_owned()))
            }
        }
        None => Expr::Is(Cond::FullText(value.text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is(cond: Cond) -> Expr {
        Expr::Is(cond)
    }
    fn service(name: &str) -> Expr {
        is(Cond::Service { name: name.into(), fold: false })
    }
    fn not(expr: Expr) -> Expr {
        Expr::Not(Box::new(expr))
    }
    fn text(t: &str) -> Expr {
        is(Cond::FullText(t.into()))
    }
    fn attr(key: &str, op: Op, value: Literal) -> Expr {
        is(Cond::Attr { scope: AttrScope::Any, key: key.into(), op, value })
    }

    #[test]
    fn queries_mean_what_they_say() {
        let typed = |v: &str| Literal::Typed(v.into());
        let all = |v: Vec<Expr>| Expr::And(v);
        for (query, expected) in [
            ("", Expr::True),
            ("  ", Expr::True),
            ("service:api", service("api")),
            (
                "service:api status:error @user.id:42 duration:>200ms -service:x free text",
                all(vec![
                    service("api"),
                    is(Cond::Status(Status::Error)),
                    attr("user.id", Op::Eq, typed("42")),
                    is(Cond::Duration { min: 200_000_001, max: i64::MAX }),
                    not(service("x")),
                    text("free"),
                    text("text"),
                ]),
            ),
            ("a OR b c", Expr::Or(vec![text("a"), all(vec![text("b"), text("c")])])),
            ("(a OR b) AND NOT c", all(vec![Expr::Or(vec![text("a"), text("b")]), not(text("c"))])),
            ("-(a b)", not(all(vec![text("a"), text("b")]))),
            ("ORDER ANDY", all(vec![text("ORDER"), text("ANDY")])),
            ("service:web-*", is(Cond::ServiceGlob("web-*".into()))),
            (r"service:a\*b", service("a*b")),
            (r"service:a\*b*", is(Cond::ServiceGlob(r"a\*b*".into()))),
            ("name:\"GET /x y\"", is(Cond::Name { name: "GET /x y".into(), fold: false })),
            ("\"two words\"", text("two words")),
            ("*timeout*", text("timeout")),
            ("kind:PRODUCER", is(Cond::Kind(SpanKind::Producer))),
            ("error:false root:true", all(vec![is(Cond::Error(false)), is(Cond::Root)])),
            ("duration:[1ms TO 2s]", is(Cond::Duration { min: 1_000_000, max: 2_000_000_000 })),
            (
                "@code:[400 TO 499]",
                all(vec![
                    attr("code", Op::Ge, Literal::Number(400.0)),
                    attr("code", Op::Le, Literal::Number(499.0)),
                ]),
            ),
            ("@code:>=5", attr("code", Op::Ge, Literal::Number(5.0))),
            ("@k:*", is(Cond::HasAttr { scope: AttrScope::Any, key: "k".into() })),
            ("env:prod", attr("env", Op::Eq, typed("prod"))),
            ("url:http://x:80/a", attr("url", Op::Eq, typed("http://x:80/a"))),
            ("service:(a OR b*)", Expr::Or(vec![service("a"), is(Cond::ServiceGlob("b*".into()))])),
            (r"@a\:b:1", attr("a:b", Op::Eq, typed("1"))),
            ("event:e", is(Cond::EventName("e".into()))),
            (
                "resource:\"GET *\"",
                is(Cond::Attr {
                    scope: AttrScope::Span,
                    key: "resource.name".into(),
                    op: Op::Eq,
                    value: typed("GET *"),
                }),
            ),
        ] {
            assert_eq!(parse(query), Ok(expected), "{query}");
        }
    }

    #[test]
    fn errors_say_what_and_where() {
        for (query, position, part) in [
            ("service:", 8, "a value is missing"),
            ("a (b", 2, "never closed"),
            ("a)", 1, "unexpected `)`"),
            ("ü \"open", 2, "quote is never closed"),
            ("a OR", 4, "a condition is missing"),
            ("OR a", 0, "`OR` needs a condition on both sides"),
            ("()", 1, "a condition is missing"),
            ("status:bad", 7, "takes `ok`, `error` or `unset`"),
            ("duration:>200", 10, "is not a duration"),
            ("@k:>x", 4, "is not a number"),
            ("service:>x", 0, "has no order"),
            ("@k", 2, "needs a value"),
            (":x", 0, "a key is missing"),
            ("@k:[1 2]", 6, "a range needs `TO`"),
            ("@k:[1 TO 2", 3, "never closed"),
            ("-", 1, "a condition is missing"),
        ] {
            let e = parse(query).unwrap_err();
            assert!(e.message.contains(part) && e.position == position, "{query}: {e}");
        }
        assert!(parse(&"(".repeat(1000)).is_err());
        assert!(parse(&"-".repeat(1000)).is_err());
        assert!(parse(&"x".repeat(LONGEST + 1)).is_err());
    }

    proptest! {
        #[test]
        fn no_query_is_too_strange(
            query in prop::collection::vec(prop_oneof![
                Just("("), Just(")"), Just("["), Just("]"), Just("\""), Just("\\"), Just(":"), Just("@"), Just("-"),
                Just(" "), Just("OR"), Just("NOT"), Just("TO"), Just("*"), Just("service"), Just("duration"),
                Just(">"), Just("5ms"), Just("é"),
            ], 0..30)
        ) {
            let query = query.concat();
            if let Err(e) = parse(&query) {
                prop_assert!(e.position <= query.chars().count());
            }
        }
    }
}
