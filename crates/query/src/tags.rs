//! A tag as users write it, `key=value`, becomes a condition. Some keys are
//! shown as tags by one API or another while the model has a field for them.

use spanloom_model::{AttrScope, Cond, Expr, Literal, Op, SpanKind, Status, flags, keys};

/// The attribute, wherever `scope` says, is this text or prints so.
pub(crate) fn attr(scope: AttrScope, key: &str, value: &str) -> Expr {
    Expr::Is(Cond::Attr { scope, key: key.to_owned(), op: Op::Eq, value: Literal::Typed(value.to_owned()) })
}

fn status(text: &str) -> Option<Status> {
    match text.to_ascii_lowercase().as_str() {
        "ok" => Some(Status::Ok),
        "error" => Some(Status::Error),
        "unset" => Some(Status::Unset),
        _ => None,
    }
}

/// A tag of a Jaeger search: on the span, its process, scope, logs or links
/// (jaegertracing/jaeger, storage v2: `error`, `span.kind`, `span.status`,
/// `scope.name`, `scope.version` and the prefix `resource.` are special).
pub fn jaeger(key: &str, value: &str) -> Expr {
    let plain = attr(AttrScope::Any, key, value);
    let special = match key {
        keys::ERROR => match value {
            "true" => return said_to_have_failed(),
            "false" => return Expr::Not(Box::new(said_to_have_failed())),
            _ => None,
        },
        keys::SPAN_KIND => match SpanKind::from_name(value) {
            Some(kind) => return of_kind(kind),
            None => None,
        },
        "span.status" | keys::STATUS_CODE => status(value).map(Cond::Status).map(Expr::Is),
        "otel.scope.name" => Some(attr(AttrScope::Scope, "scope.name", value)),
        "otel.scope.version" => Some(attr(AttrScope::Scope, "scope.version", value)),
        // The field under which a log shows its name.
        "event" => Some(Expr::Is(Cond::EventName(value.to_owned()))),
        _ => key.strip_prefix("resource.").map(|rest| attr(AttrScope::Resource, rest, value)),
    };
    match special {
        Some(special) => Expr::Or(vec![plain, special]),
        None => plain,
    }
}

/// Spans that failed. Jaeger's clients search for what they said: a Jaeger span
/// whose failure is only read off its HTTP status is shown as failed but is not
/// found by the tag.
fn said_to_have_failed() -> Expr {
    let only_read_off = Expr::And(vec![
        flag(flags::FROM_JAEGER),
        not(attr(AttrScope::Span, keys::ERROR, "true")),
        not(attr(AttrScope::Span, keys::STATUS_CODE, "ERROR")),
    ]);
    Expr::And(vec![Expr::Is(Cond::Error(true)), not(only_read_off)])
}

/// Spans of a role. A Datadog span that names none is shown in the role that
/// its type implies.
pub(crate) fn of_kind(kind: SpanKind) -> Expr {
    let named = Expr::Is(Cond::Kind(kind));
    let implied = match kind {
        SpanKind::Server => "web",
        SpanKind::Client => "http",
        _ => return named,
    };
    let unnamed = Expr::Is(Cond::Kind(SpanKind::Unspecified));
    Expr::Or(vec![named, Expr::And(vec![unnamed, attr(AttrScope::Span, keys::SPAN_TYPE, implied)])])
}

fn flag(bits: u64) -> Expr {
    Expr::Is(Cond::Flags(bits))
}

fn not(e: Expr) -> Expr {
    Expr::Not(Box::new(e))
}

/// Where Zipkin's API shows an attribute as a tag: on the span and its
/// resource, but the service's name is no tag.
fn zipkin_scope(key: &str) -> AttrScope {
    if key == keys::SERVICE_NAME { AttrScope::Span } else { AttrScope::SpanOrResource }
}

/// Spans on which an attribute of this key is a tag and not a part of a Zipkin
/// span's endpoints, which stand among the attributes under these names.
fn zipkin_tag(key: &str, found: Expr) -> Expr {
    const V4_AND_V6: u64 = flags::LOCAL_IPV4 | flags::LOCAL_IPV6;
    let has = match key {
        "net.host.ip" => Expr::Or(vec![flag(flags::LOCAL_IPV4), flag(flags::LOCAL_IPV6)]),
        "net.host.ipv6" => flag(V4_AND_V6),
        "net.host.port" => flag(flags::LOCAL_PORT),
        keys::PEER_SERVICE => flag(flags::REMOTE_SERVICE),
        "net.peer.ip" => Expr::Or(vec![flag(flags::REMOTE_IPV4), flag(flags::REMOTE_IPV6)]),
        "net.peer.ipv6" => flag(flags::REMOTE_IPV4 | flags::REMOTE_IPV6),
        "net.peer.port" => flag(flags::REMOTE_PORT),
        _ => return found,
    };
    let beside = Cond::HasAttr { scope: AttrScope::Span, key: format!("zipkin.{key}") };
    let part = Expr::And(vec![flag(flags::FROM_ZIPKIN), has, not(Expr::Is(beside))]);
    Expr::And(vec![found, not(part)])
}

/// A tag of a Zipkin span, which has those of its resource too.
pub fn zipkin(key: &str, value: &str) -> Expr {
    let plain = zipkin_tag(key, attr(zipkin_scope(key), key, value));
    let special = match key {
        // The tag as it came says more than the status made of it.
        keys::ERROR if value == "true" => {
            let tagged = Expr::Is(Cond::HasAttr { scope: AttrScope::Span, key: key.to_owned() });
            Some(Expr::And(vec![Expr::Is(Cond::Error(true)), Expr::Not(Box::new(tagged))]))
        }
        keys::SPAN_KIND if value == "internal" => Some(Expr::Is(Cond::Kind(SpanKind::Internal))),
        keys::STATUS_CODE => status(value).map(Cond::Status).map(Expr::Is),
        "otel.scope.name" => Some(attr(AttrScope::Scope, "scope.name", value)),
        "otel.scope.version" => Some(attr(AttrScope::Scope, "scope.version", value)),
        _ => None,
    };
    match special {
        // What came as Zipkin has the tags that it came with, and no others.
        Some(special) => Expr::Or(vec![plain, Expr::And(vec![not(flag(flags::FROM_ZIPKIN)), special])]),
        None => plain,
    }
}

/// A bare word of a Zipkin search: an annotation's value or a tag's key.
pub fn zipkin_word(word: &str) -> Expr {
    let mut any = vec![
        Expr::Is(Cond::EventName(word.to_owned())),
        zipkin_tag(word, Expr::Is(Cond::HasAttr { scope: zipkin_scope(word), key: word.to_owned() })),
    ];
    if word == keys::ERROR {
        any.push(Expr::And(vec![not(flag(flags::FROM_ZIPKIN)), Expr::Is(Cond::Error(true))]));
    }
    Expr::Or(any)
}
