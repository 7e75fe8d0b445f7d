//! Parameters of Zipkin's API
//! (openzipkin/zipkin:zipkin/src/main/java/zipkin2/storage/QueryRequest.java).

use crate::{Invalid, Params, tags};
use spanloom_model::{AttrScope, Cond, Expr, Literal, Op, Search, TimeRange, TraceId, WindowOn, flags, keys};

/// Default number of traces.
const LIMIT: i64 = 10;
/// Default `lookback`: a day, in milliseconds.
pub const LOOKBACK: i64 = 86_400_000;
/// Most terms of an `annotationQuery`.
const TERMS: usize = 100;

/// Parameters of `GET /api/v2/traces`. `now` in nanoseconds since the Unix
/// epoch, `lookback` the default in milliseconds.
pub fn search(params: &Params, now: i64, lookback: i64) -> Result<Search, Invalid> {
    let number = |key: &str| match params.get(key) {
        None => Ok(None),
        Some(text) => text.parse::<i64>().map(Some).map_err(|_| not_a_number(text)),
    };
    let positive = |value: i64, key: &str| match value {
        1.. => Ok(value),
        _ => Err(Invalid(format!("{key} <= 0"))),
    };
    let end = number("endTs")?.unwrap_or(now / 1_000_000);
    let (lookback, limit) = (number("lookback")?.unwrap_or(lookback), number("limit")?.unwrap_or(LIMIT));
    let (min, max) = (number("minDuration")?, number("maxDuration")?);
    let window = window(positive(end, "endTs")?, Some(lookback));
    let limit = positive(limit, "limit")?;
    positive(lookback, "lookback")?;
    let duration = match (min, max) {
        (None, None) => None,
        (None, Some(_)) => return Err(Invalid("maxDuration is only valid with minDuration".into())),
        (Some(min), max) => {
            positive(min, "minDuration")?;
            if max.is_some_and(|max| max < min) {
                return Err(Invalid("maxDuration < minDuration".into()));
            }
            // Zipkin sees whole microseconds.
            let max = max.map_or(i64::MAX, |v| v.saturating_mul(1000).saturating_add(999));
            Some(Expr::Is(Cond::Duration { min: min.saturating_mul(1000), max }))
        }
    };

    let lower = |key: &str| params.get(key).map(str::to_lowercase);
    let service = lower("serviceName").map(|name| Expr::Is(Cond::Service { name, fold: true }));
    let mut each = Vec::new();
    if let Some(name) = lower("spanName").filter(|n| n != "all") {
        each.push(Expr::Is(Cond::Name { name, fold: true }));
    }
    if let Some(name) = lower("remoteServiceName") {
        each.push(remote(name));
    }
    each.extend(duration);
    each.extend(annotations(params.get("annotationQuery").unwrap_or_default()));
    if each.is_empty() {
        each.push(Expr::True);
    }
    // Conditions may be met by different spans, but by spans of the service.
    if let Some(service) = service {
        each = each.into_iter().map(|e| Expr::all(vec![service.clone(), e])).collect();
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    Ok(Search { each, window, window_on: WindowOn::TraceStart, limit, after: None })
}

/// Spans whose remote service is this one, in any case.
fn remote(name: String) -> Expr {
    let is = |(key, spans): (&str, Expr)| {
        let (key, value) = (key.to_owned(), Literal::Fold(name.clone()));
        Expr::And(vec![Expr::Is(Cond::Attr { scope: AttrScope::Span, key, op: Op::Eq, value }), spans])
    };
    Expr::Or(remote_service_keys().map(is).into())
}

/// The attributes that name the remote service, each with the spans on which
/// it does (see [`spanloom_model::remote_service`]).
pub fn remote_service_keys() -> [(&'static str, Expr); 2] {
    let flag = |bits| Expr::Is(Cond::Flags(bits));
    let not = |e| Expr::Not(Box::new(e));
    let beside = Cond::HasAttr { scope: AttrScope::Span, key: keys::ZIPKIN_PEER_SERVICE.to_owned() };
    let plain = Expr::Or(vec![
        not(flag(flags::FROM_ZIPKIN)),
        Expr::And(vec![flag(flags::REMOTE_SERVICE), not(Expr::Is(beside))]),
    ]);
    [(keys::PEER_SERVICE, plain), (keys::ZIPKIN_PEER_SERVICE, flag(flags::REMOTE_SERVICE))]
}

/// Java's text, which is what Zipkin answers.
fn not_a_number(text: &str) -> Invalid {
    Invalid(format!("For input string: \"{text}\""))
}

/// The value of a parameter that must be there, though it may be empty.
pub fn required<'a>(params: &'a Params, key: &str) -> Result<&'a str, Invalid> {
    // The text is that of Zipkin's HTTP server.
    let missing = || Invalid(format!("Mandatory parameter/header/attribute is missing: {key}"));
    params.first(key).ok_or_else(missing)
}

/// Terms of `annotationQuery`: tags and words joined by ` and `. Of several
/// values for a key the last holds, a value goes before a bare word.
fn annotations(text: &str) -> Vec<Expr> {
    let mut terms: Vec<(&str, &str)> = Vec::new();
    for term in text.splitn(TERMS, " and ").filter(|_| !text.is_empty()) {
        let (key, value, tag) = match term.split_once('=') {
            Some((key, value)) => (key.trim(), value.trim(), true),
            None => (term.trim(), "", false),
        };
        match terms.iter_mut().find(|t| t.0 == key) {
            Some(known) if tag => known.1 = value,
            Some(_) => {}
            None => terms.push((key, value)),
        }
    }
    terms
        .into_iter()
        .map(|(key, value)| if value.is_empty() { tags::zipkin_word(key) } else { tags::zipkin(key, value) })
        .collect()
}

/// Window of `GET /api/v2/dependencies`; `endTs` is required.
pub fn dependencies(params: &Params, lookback: i64) -> Result<TimeRange, Invalid> {
    let number = |text: &str| text.parse::<i64>().map_err(|_| not_a_number(text));
    let end = number(required(params, "endTs")?)?;
    if end <= 0 {
        return Err(Invalid("endTs <= 0".into()));
    }
    let lookback = params.get("lookback").map(number).transpose()?.unwrap_or(lookback);
    if lookback <= 0 {
        return Err(Invalid("lookback <= 0".into()));
    }
    Ok(window(end, Some(lookback)))
}

/// Milliseconds to a window whose ends are inclusive to the microsecond.
fn window(end: i64, lookback: Option<i64>) -> TimeRange {
    let start = end.saturating_sub(lookback.unwrap_or(LOOKBACK));
    TimeRange {
        start: start.saturating_mul(1_000_000),
        end: end.saturating_mul(1_000_000).saturating_add(999),
    }
}

/// A trace id by Zipkin's rules and with its error texts
/// (openzipkin/zipkin:zipkin/src/main/java/zipkin2/Span.java `normalizeTraceId`).
pub fn parse_trace_id(text: &str) -> Result<TraceId, Invalid> {
    let lower = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if text.is_empty() {
        return Err(Invalid("traceId is empty".into()));
    }
    if text.len() > 32 {
        return Err(Invalid("traceId.length > 32".into()));
    }
    match TraceId::parse_hex(text) {
        Ok(id) if text.bytes().all(lower) => {
            if id.is_zero() {
                Err(Invalid("traceId is all zeros".into()))
            } else {
                Ok(id)
            }
        }
        _ => Err(Invalid(format!("{text} should be lower-hex encoded with no prefix"))),
    }
}

/// The ids of `GET /api/v2/traceMany`, in order.
pub fn trace_ids(params: &Params) -> Result<Vec<TraceId>, Invalid> {
    let text = required(params, "traceIds")?;
    if text.is_empty() {
        return Err(Invalid("traceIds parameter is empty".into()));
    }
    let mut ids = Vec::new();
    for one in text.splitn(1000, ',') {
        let id = parse_trace_id(one)?;
        if ids.contains(&id) {
            return Err(Invalid(format!("redundant traceId: {one}")));
        }
        ids.push(id);
    }
    if ids.len() == 1 {
        return Err(Invalid("Use /api/v2/trace/{traceId} endpoint to retrieve a single trace".into()));
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_parameters_get_zipkins_texts() {
        for (query, text) in [
            ("limit=0", "limit <= 0"),
            ("endTs=-1", "endTs <= 0"),
            ("lookback=0", "lookback <= 0"),
            ("maxDuration=5", "maxDuration is only valid with minDuration"),
            ("minDuration=9&maxDuration=5", "maxDuration < minDuration"),
            ("minDuration=0", "minDuration <= 0"),
            ("limit=x", "For input string: \"x\""),
        ] {
            assert_eq!(
                search(&Params::parse(query), 1_000_000_000, LOOKBACK).unwrap_err().0,
                text,
                "{query}"
            );
        }
    }

    #[test]
    fn annotation_terms_are_trimmed_and_tags_go_before_words() {
        assert_eq!(
            annotations("a = 1 and b and a and a=2"),
            [tags::zipkin("a", "2"), tags::zipkin_word("b")]
        );
        assert_eq!(annotations("k="), [tags::zipkin_word("k")]);
        assert_eq!(annotations("url=a=b"), [tags::zipkin("url", "a=b")]);
        assert!(annotations("").is_empty());
    }

    #[test]
    fn every_condition_is_bound_to_the_service() {
        let s = search(&Params::parse("serviceName=Shop&annotationQuery=a+and+b"), 0, LOOKBACK);
        assert_eq!(s.unwrap_err().0, "endTs <= 0");
        let s =
            search(&Params::parse("serviceName=Shop&annotationQuery=a+and+b"), 5_000_000, LOOKBACK).unwrap();
        assert_eq!(s.each.len(), 2);
        assert_eq!(s.window.end, 5_000_999);
    }

    #[test]
    fn trace_ids_are_lower_hex() {
        let wrong = |t: &str| parse_trace_id(t).unwrap_err().0;
        assert_eq!(parse_trace_id("1f"), Ok(TraceId(0x1f)));
        assert_eq!(wrong("xyz"), "xyz should be lower-hex encoded with no prefix");
        assert_eq!(wrong("AB"), "AB should be lower-hex encoded with no prefix");
        assert_eq!(wrong("0000"), "traceId is all zeros");
        let many = |q: &str| trace_ids(&Params::parse(q)).map_err(|e| e.0);
        assert_eq!(many("traceIds=1,01"), Err("redundant traceId: 01".into()));
        assert_eq!(many("traceIds=1,2"), Ok(vec![TraceId(1), TraceId(2)]));
    }
}
