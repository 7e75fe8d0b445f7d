//! Conditions on one span. Every store evaluates them with [`Expr::matches`]
//! on the rows that its indexes leave over, so all stores agree by
//! construction.

use crate::{Attr, Batch, Range32, Resource, Span, SpanKind, Status, Text, Value, flags, keys};

/// A condition on one span, together with its resource, scope, events and links.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Expr {
    /// Every span.
    #[default]
    True,
    /// All hold.
    And(Vec<Expr>),
    /// At least one holds.
    Or(Vec<Expr>),
    /// Does not hold.
    Not(Box<Expr>),
    /// One comparison.
    Is(Cond),
}

/// One comparison.
#[derive(Clone, Debug, PartialEq)]
pub enum Cond {
    /// The service is this one. `fold` compares without regard to ASCII case (Zipkin).
    Service {
        /// Service name.
        name: String,
        /// Ignore case.
        fold: bool,
    },
    /// The operation is this one: the span's name or, for Datadog spans, its resource.
    Name {
        /// Operation name.
        name: String,
        /// Ignore case.
        fold: bool,
    },
    /// The role.
    Kind(SpanKind),
    /// The status; [`Status::Unset`] and [`Status::Ok`] exclude spans with an `error`.
    Status(Status),
    /// Failed (or, if false, did not).
    Error(bool),
    /// Duration within these nanoseconds, both inclusive.
    Duration {
        /// At least.
        min: i64,
        /// At most.
        max: i64,
    },
    /// Has all of these bits of [`Span::flags`].
    Flags(u64),
    /// Has no parent.
    Root,
    /// An attribute compares so. Absent attributes compare as false, also for `Ne`.
    Attr {
        /// Where to look.
        scope: AttrScope,
        /// Attribute key.
        key: String,
        /// How.
        op: Op,
        /// With what.
        value: Literal,
    },
    /// The attribute is there.
    HasAttr {
        /// Where to look.
        scope: AttrScope,
        /// Attribute key.
        key: String,
    },
    /// An event of this name (a Zipkin annotation value).
    EventName(String),
    /// The service matches a pattern, see [`Literal::Glob`].
    ServiceGlob(String),
    /// The span's name or Datadog resource matches a pattern.
    NameGlob(String),
    /// Some text of the span contains this, without regard to ASCII case:
    /// service, name, resource, status message, event names, and text values
    /// of attributes of the span, its events and its resource.
    FullText(String),
}

/// Where an attribute is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttrScope {
    /// Span, then resource, scope, events and links: Jaeger's search.
    Any,
    /// Span, then resource: TraceQL's unscoped attribute.
    SpanOrResource,
    /// Span only.
    Span,
    /// Resource only.
    Resource,
    /// Instrumentation scope only.
    Scope,
    /// Some event.
    Event,
    /// Some link.
    Link,
}

/// Comparison operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// What an attribute is compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// Text as a user typed it, without a type: `123` also matches the number
    /// 123, `true` the truth value (Jaeger's and Zipkin's search).
    Typed(String),
    /// Text only.
    Str(String),
    /// Text only, without regard to case (Zipkin's names).
    Fold(String),
    /// Number, of either type.
    Number(f64),
    /// Truth value.
    Bool(bool),
    /// Pattern for the value printed as text: `*` is any text, `?` one
    /// character, `\\` takes the next character as it is. Only with
    /// [`Op::Eq`] and [`Op::Ne`].
    Glob(String),
}

impl Expr {
    /// All of `parts`, simplified.
    pub fn all(mut parts: Vec<Self>) -> Self {
        parts.retain(|p| *p != Self::True);
        match parts.len() {
            0 => Self::True,
            1 => parts.remove(0),
            _ => Self::And(parts),
        }
    }

    /// Whether the span meets the condition. `resource` is the resource of its chunk.
    pub fn matches(&self, batch: &Batch, span: &Span, resource: Option<&Resource>) -> bool {
        match self {
            Self::True => true,
            Self::And(parts) => parts.iter().all(|p| p.matches(batch, span, resource)),
            Self::Or(parts) => parts.iter().any(|p| p.matches(batch, span, resource)),
            Self::Not(part) => !part.matches(batch, span, resource),
            Self::Is(cond) => cond.matches(batch, span, resource),
        }
    }
}

fn same(a: &str, b: &str, fold: bool) -> bool {
    if fold { a.eq_ignore_ascii_case(b) || a.to_lowercase() == b.to_lowercase() } else { a == b }
}

impl Cond {
    fn matches(&self, batch: &Batch, span: &Span, resource: Option<&Resource>) -> bool {
        match self {
            Self::Service { name, fold } => same(batch.str(span.service), name, *fold),
            Self::Name { name, fold } => {
                same(batch.str(span.name), name, *fold)
                    || (!span.resource.is_empty() && same(batch.str(span.resource), name, *fold))
            }
            Self::Kind(kind) => span.kind == *kind,
            Self::Status(Status::Error) => span.is_error(),
            Self::Status(status) => !span.is_error() && span.status == *status,
            Self::Error(wanted) => span.is_error() == *wanted,
            Self::Duration { min, max } => {
                span.flags & flags::NO_DURATION == 0 && (*min..=*max).contains(&span.duration)
            }
            Self::Flags(bits) => span.flags & bits == *bits,
            Self::Root => span.parent_id.is_zero(),
            Self::Attr { scope, key, op, value } => {
                attr_ranges(batch, span, resource, *scope, |attrs| {
                    attrs.iter().any(|a| batch.str(a.key) == key && compare(batch, a.value, *op, value))
                }) || intrinsic_text(batch, span, resource, *scope, key)
                    .is_some_and(|text| compare(batch, Value::Str(text), *op, value))
            }
            Self::HasAttr { scope, key } => {
                attr_ranges(batch, span, resource, *scope, |attrs| {
                    attrs.iter().any(|a| batch.str(a.key) == key)
                }) || (key == keys::ERROR && matches!(scope, AttrScope::Any) && span.is_error())
                    || intrinsic_text(batch, span, resource, *scope, key).is_some()
            }
            Self::EventName(name) => batch.span_events(span).iter().any(|e| batch.str(e.name) == name),
            Self::ServiceGlob(pattern) => glob(pattern, batch.str(span.service)),
            Self::NameGlob(pattern) => {
                glob(pattern, batch.str(span.name))
                    || (!span.resource.is_empty() && glob(pattern, batch.str(span.resource)))
            }
            Self::FullText(part) => full_text(batch, span, resource, part),
        }
    }
}

/// Whether users write this key as a tag while the model holds it as a field
/// of the span, scope or resource. An index over attributes alone must not
/// exclude spans for such a key.
pub fn is_intrinsic(key: &str) -> bool {
    matches!(
        key,
        keys::RESOURCE_NAME
            | keys::SPAN_TYPE
            | keys::SERVICE_NAME
            | keys::ERROR
            | "scope.name"
            | "scope.version"
    ) || Resource::default().field(key).is_some()
}

/// The text of such a field, unless it is empty.
fn intrinsic_text(
    batch: &Batch,
    span: &Span,
    resource: Option<&Resource>,
    scope: AttrScope,
    key: &str,
) -> Option<Text> {
    use AttrScope::{Any, Resource, Scope, Span, SpanOrResource};
    let scoped = || batch.scopes.get(span.scope as usize);
    let text = match (key, scope) {
        ("scope.name", Any | Scope) => scoped()?.name,
        ("scope.version", Any | Scope) => scoped()?.version,
        (keys::RESOURCE_NAME, Any | SpanOrResource | Span) => span.resource,
        (keys::SPAN_TYPE, Any | SpanOrResource | Span) => span.span_type,
        (keys::SERVICE_NAME, Any | SpanOrResource | Resource) => span.service,
        (_, Any | SpanOrResource | Resource) => resource?.field(key)?,
        _ => return None,
    };
    (!text.is_empty()).then_some(text)
}

fn attr_ranges(
    batch: &Batch,
    span: &Span,
    resource: Option<&Resource>,
    scope: AttrScope,
    test: impl Fn(&[Attr]) -> bool,
) -> bool {
    let at = |range: Range32| test(batch.attrs(range));
    let in_span = || at(span.attrs);
    let in_resource = || resource.is_some_and(|r| at(r.attrs));
    let in_scope = || batch.scopes.get(span.scope as usize).is_some_and(|s| at(s.attrs));
    let in_events = || batch.span_events(span).iter().any(|e| at(e.attrs));
    let in_links = || batch.span_links(span).iter().any(|l| at(l.attrs));
    match scope {
        AttrScope::Any => in_span() || in_resource() || in_scope() || in_events() || in_links(),
        AttrScope::SpanOrResource => in_span() || in_resource(),
        AttrScope::Span => in_span(),
        AttrScope::Resource => in_resource(),
        AttrScope::Scope => in_scope(),
        AttrScope::Event => in_events(),
        AttrScope::Link => in_links(),
    }
}

fn full_text(batch: &Batch, span: &Span, resource: Option<&Resource>, part: &str) -> bool {
    let part = part.as_bytes();
    let within = |text: Text| {
        let bytes = batch.arena.bytes(text);
        part.is_empty() || bytes.windows(part.len()).any(|w| w.eq_ignore_ascii_case(part))
    };
    let in_attrs = |range: Range32| batch.attrs(range).iter().any(|a| a.value.as_text().is_some_and(within));
    [span.service, span.name, span.resource, span.status_message].into_iter().any(within)
        || in_attrs(span.attrs)
        || batch.span_events(span).iter().any(|e| within(e.name) || in_attrs(e.attrs))
        || resource.is_some_and(|r| in_attrs(r.attrs) || r.fields().into_iter().any(|(_, t)| within(t)))
}

/// Whether a pattern matches all of a text. Goes back only to the last `*`,
/// so the time is at most the product of the lengths.
fn glob(pattern: &str, text: &str) -> bool {
    let (mut p, mut t) = (pattern, text);
    let mut back: Option<(&str, &str)> = None;
    loop {
        let mut rest = p.chars();
        let matched = match rest.next() {
            Some('*') => {
                p = rest.as_str();
                back = Some((p, t));
                continue;
            }
            None if t.is_empty() => return true,
            None => None,
            Some(want) => {
                let literal = if want == '\\' { rest.next().unwrap_or('\\') } else { want };
                let mut chars = t.chars();
                match chars.next() {
                    Some(c) if c == literal || want == '?' => Some((rest.as_str(), chars.as_str())),
                    _ => None,
                }
            }
        };
        match (matched, back) {
            (Some(next), _) => (p, t) = next,
            (None, Some((after, from))) => {
                let mut chars = from.chars();
                if chars.next().is_none() {
                    return false;
                }
                (p, t) = (after, chars.as_str());
                back = Some((after, t));
            }
            (None, None) => return false,
        }
    }
}

/// Compares one value. Types that do not go together compare as false.
fn compare(batch: &Batch, value: Value, op: Op, literal: &Literal) -> bool {
    use std::cmp::Ordering;
    if let Literal::Glob(pattern) = literal {
        let matches = match value {
            Value::Str(t) => glob(pattern, batch.str(t)),
            _ => match batch.scalar(value) {
                Some(text) => glob(pattern, &text),
                None => return false,
            },
        };
        return match op {
            Op::Eq => matches,
            Op::Ne => !matches,
            _ => false,
        };
    }
    let ordering = match (value, literal) {
        (Value::Str(t), Literal::Fold(s)) if same(batch.str(t), s, true) => Some(Ordering::Equal),
        (Value::Str(t), Literal::Fold(s)) => Some(batch.str(t).cmp(s)),
        (Value::Str(t), Literal::Typed(s) | Literal::Str(s)) => batch.str(t).partial_cmp(s.as_str()),
        (Value::Bool(b), Literal::Typed(s)) => s.parse::<bool>().ok().and_then(|v| b.partial_cmp(&v)),
        (Value::Bool(b), Literal::Bool(v)) => b.partial_cmp(v),
        (Value::Int(i), Literal::Typed(s)) => match s.parse::<i64>() {
            Ok(v) => i.partial_cmp(&v),
            Err(_) => s.parse::<f64>().ok().and_then(|v| (i as f64).partial_cmp(&v)),
        },
        (Value::Double(d), Literal::Typed(s)) => s.parse::<f64>().ok().and_then(|v| d.partial_cmp(&v)),
        (Value::Int(_) | Value::Double(_), Literal::Number(v)) => {
            value.as_f64().and_then(|d| d.partial_cmp(v))
        }
        _ => None,
    };
    let Some(ordering) = ordering else { return false };
    match op {
        Op::Eq => ordering == Ordering::Equal,
        Op::Ne => ordering != Ordering::Equal,
        Op::Lt => ordering == Ordering::Less,
        Op::Le => ordering != Ordering::Greater,
        Op::Gt => ordering == Ordering::Greater,
        Op::Ge => ordering != Ordering::Less,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Attr;

    #[test]
    fn typed_text_matches_numbers_and_truth_values() {
        let mut b = Batch::default();
        let int = b.arena.push("int");
        let flag = b.arena.push("flag");
        b.attrs.push(Attr { key: int, value: Value::Int(123) });
        b.attrs.push(Attr { key: flag, value: Value::Bool(true) });
        let span = Span { attrs: Range32::new(0, 2), ..Span::default() };
        let is = |key: &str, op, value| {
            Expr::Is(Cond::Attr { scope: AttrScope::Any, key: key.into(), op, value })
                .matches(&b, &span, None)
        };
        assert!(is("int", Op::Eq, Literal::Typed("123".into())));
        assert!(is("flag", Op::Eq, Literal::Typed("true".into())));
        assert!(!is("int", Op::Eq, Literal::Str("123".into())));
        assert!(is("int", Op::Ge, Literal::Number(122.5)));
        assert!(!is("absent", Op::Ne, Literal::Typed("x".into())));
    }

    #[test]
    fn duration_bounds_are_inclusive() {
        let b = Batch::default();
        let span = Span { duration: 5_000, ..Span::default() };
        let within = |min, max| Expr::Is(Cond::Duration { min, max }).matches(&b, &span, None);
        assert!(within(5_000, 5_000));
        assert!(!within(5_001, 9_000));
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*b*c", "a-b-b-cc", true),
            ("a?c", "aéc", true),
            ("a?c", "ac", false),
            ("*.js", "x.jsx", false),
            (r"\*", "*", true),
            (r"\*", "x", false),
            ("ab", "abc", false),
            ("**x", "yyx", true),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn fields_are_found_under_the_keys_users_give_them() {
        use crate::draft::{Draft, batch};
        let b = batch(&[Draft::new(1, 1).env("prod").resource("GET /").span_type("web").service("shop")]);
        let has = |scope, key: &str, value: &str| {
            let value = Literal::Typed(value.into());
            Expr::Is(Cond::Attr { scope, key: key.into(), op: Op::Eq, value }).matches(
                &b,
                &b.spans[0],
                b.resources.first(),
            )
        };
        assert!(has(AttrScope::Any, "env", "prod"));
        assert!(has(AttrScope::Any, "deployment.environment.name", "prod"));
        assert!(has(AttrScope::Resource, "env", "prod"));
        assert!(!has(AttrScope::Span, "env", "prod"));
        assert!(has(AttrScope::Span, "resource.name", "GET /"));
        assert!(has(AttrScope::Resource, "service.name", "shop"));
        let text = |t: &str| Expr::Is(Cond::FullText(t.into())).matches(&b, &b.spans[0], b.resources.first());
        assert!(text("get") && text("PROD") && !text("absent"));
    }
}
