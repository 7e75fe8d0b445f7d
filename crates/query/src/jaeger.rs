//! Parameters of Jaeger's HTTP APIs
//! (jaeger:cmd/jaeger/internal/extension/jaegerquery/internal/query_parser.go,
//! apiv3/query_parser.go; the search of the first API as it was before it was
//! removed after 2.20).

use crate::params::{parse_go_bool, parse_go_duration, parse_rfc3339, parse_trace_id};
use crate::{Invalid, Params, tags};
use spanloom_model::{Cond, Expr, Search, TimeRange, TraceId, WindowOn, keys};

/// Default window of a search of the first API: two days.
const LOOKBACK: i64 = 2 * 86_400_000_000_000;
/// Default window of dependencies: a day.
const DEPENDENCY_LOOKBACK: i64 = 86_400_000_000_000;
/// Default number of traces.
const LIMIT: usize = 100;

/// What `GET /api/traces` asks for.
#[derive(Clone, Debug)]
pub struct TraceQuery {
    /// These traces, if any; then the search does not count.
    pub ids: Vec<TraceId>,
    /// Traces that meet this.
    pub search: Search,
    /// Without the query service's repairs.
    pub raw: bool,
}

/// Parameters of `GET /api/traces`. `now` in nanoseconds since the Unix epoch.
pub fn v1_search(params: &Params, now: i64) -> Result<TraceQuery, Invalid> {
    let wrong = |key: &str, e: &dyn std::fmt::Display| Invalid(format!("unable to parse param '{key}': {e}"));
    let end = micros(params, "end")?.unwrap_or(now);
    let start = micros(params, "start")?.unwrap_or(now.saturating_sub(LOOKBACK));
    let limit = params.int("limit")?.map_or(Ok(LIMIT), depth)?;
    let duration = |key: &str| match params.get(key) {
        None => Ok(None),
        Some(text) => parse_go_duration(text).map(Some).map_err(|e| wrong(key, &e)),
    };
    let (min, max) = (duration("minDuration")?, duration("maxDuration")?);
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        return Err(Invalid("'maxDuration' should be greater than 'minDuration'".into()));
    }
    let mut conditions = named(params.get("service"), params.get("operation"), min, max);
    for text in params.all("tag") {
        let Some((key, value)) = text.split_once(':') else {
            return Err(Invalid(format!("malformed 'tag' parameter, expecting key:value, received: {text}")));
        };
        conditions.push(tags::jaeger(key, value));
    }
    for text in params.all("tags").filter(|t| !t.is_empty()) {
        let found = string_map(text)
            .map_err(|e| Invalid(format!("malformed 'tags' parameter, cannot unmarshal JSON: {e}")))?;
        conditions.extend(found.iter().map(|(k, v)| tags::jaeger(k, v)));
    }
    let ids = params
        .all("traceID")
        .map(|text| parse_trace_id(text).map_err(|e| Invalid(format!("cannot parse traceID param: {e}"))))
        .collect::<Result<_, _>>()?;
    Ok(TraceQuery { ids, search: search(conditions, start, end, limit), raw: params.flag("raw")? })
}

/// Parameters of `GET /api/v3/traces` and `/api/v3/trace-summaries`, in camel
/// or snake case.
pub fn v3_search(params: &Params) -> Result<TraceQuery, Invalid> {
    let wrong = |key: &str, e: &dyn std::fmt::Display| Invalid(format!("malformed parameter {key}: {e}"));
    let mut conditions = Vec::new();
    if let Some(text) = params.get("query.attributes") {
        let found = string_map(text).map_err(|e| wrong("query.attributes", &e))?;
        conditions.extend(found.iter().map(|(k, v)| tags::jaeger(k, v)));
    }
    if params.get("query.filter").is_some() {
        return Err(wrong("query.filter", &"structured filters are not supported"));
    }
    let (from, to) = (
        either(params, "query.startTimeMin", "query.start_time_min"),
        either(params, "query.startTimeMax", "query.start_time_max"),
    );
    let (Some(from), Some(to)) = (from, to) else {
        return Err(Invalid("query.startTimeMin and query.startTimeMax are required".into()));
    };
    let start = parse_rfc3339(from.1).map_err(|e| wrong(from.0, &e))?;
    let end = parse_rfc3339(to.1).map_err(|e| wrong(to.0, &e))?;
    if start >= end {
        return Err(Invalid("query.startTimeMin must be before query.startTimeMax".into()));
    }
    let limit = either(params, "query.searchDepth", "query.search_depth")
        .or_else(|| either(params, "query.numTraces", "query.num_traces"));
    let limit = match limit {
        None => LIMIT,
        Some((key, text)) => {
            let why = || format!("strconv.Atoi: parsing {text:?}: invalid syntax");
            depth(text.parse().map_err(|_| wrong(key, &why()))?)?
        }
    };
    let duration = |canonical, old| match either(params, canonical, old) {
        None => Ok(None),
        Some((key, text)) => parse_go_duration(text).map(Some).map_err(|e| wrong(key, &e)),
    };
    let min = duration("query.durationMin", "query.duration_min")?;
    let max = duration("query.durationMax", "query.duration_max")?;
    let service = either(params, "query.serviceName", "query.service_name").map(|v| v.1);
    let operation = either(params, "query.operationName", "query.operation_name").map(|v| v.1);
    conditions.extend(named(service, operation, min, max));
    let raw = match either(params, "query.rawTraces", "query.raw_traces") {
        None => false,
        Some((key, text)) => parse_go_bool(text).map_err(|e| wrong(key, &e))?,
    };
    Ok(TraceQuery { ids: Vec::new(), search: search(conditions, start, end, limit), raw })
}

/// Whether a trace of the third API is asked for without repairs.
pub fn v3_raw(params: &Params) -> Result<bool, Invalid> {
    either(params, "rawTraces", "raw_traces").map_or(Ok(false), |(key, text)| {
        parse_go_bool(text).map_err(|e| Invalid(format!("malformed parameter {key}: {e}")))
    })
}

/// A number of traces to look for.
fn depth(n: i64) -> Result<usize, Invalid> {
    match usize::try_from(n) {
        Ok(n) if n > 0 => Ok(n),
        _ => Err(Invalid("search depth must be greater than 0 and less than max traces".into())),
    }
}

/// Time hints of a trace in the third API; all of time where absent.
pub fn v3_hint(params: &Params) -> Result<TimeRange, Invalid> {
    let mut hint = TimeRange::ALL;
    for (canonical, old, place) in
        [("startTime", "start_time", &mut hint.start), ("endTime", "end_time", &mut hint.end)]
    {
        if let Some((key, text)) = either(params, canonical, old) {
            *place = parse_rfc3339(text).map_err(|e| Invalid(format!("malformed parameter {key}: {e}")))?;
        }
    }
    Ok(hint)
}

/// Time hints `start` and `end` (µs) of a trace in the first API.
pub fn v1_hint(params: &Params) -> Result<TimeRange, Invalid> {
    Ok(TimeRange {
        start: micros(params, "start")?.unwrap_or(i64::MIN),
        end: micros(params, "end")?.unwrap_or(i64::MAX),
    })
}

/// Window of `GET /api/dependencies`: `endTs`, `lookback`, both milliseconds.
pub fn v1_dependencies(params: &Params, now: i64) -> Result<TimeRange, Invalid> {
    let millis = |v: i64| v.saturating_mul(1_000_000);
    let end = params.int("endTs")?.map_or(now, |v| millis(v).saturating_add(999_999));
    let lookback = params.int("lookback")?.map_or(DEPENDENCY_LOOKBACK, millis);
    Ok(TimeRange { start: end.saturating_sub(lookback), end })
}

/// First value under either spelling, with the spelling.
pub fn either<'a>(params: &'a Params, canonical: &'a str, old: &'a str) -> Option<(&'a str, &'a str)> {
    params.get(canonical).map(|v| (canonical, v)).or_else(|| params.get(old).map(|v| (old, v)))
}

fn micros(params: &Params, key: &str) -> Result<Option<i64>, Invalid> {
    Ok(params.int(key)?.map(|v| v.saturating_mul(1000)))
}

fn named(service: Option<&str>, operation: Option<&str>, min: Option<i64>, max: Option<i64>) -> Vec<Expr> {
    let mut all = Vec::new();
    if let Some(name) = service {
        let of = |name: &str| Expr::Is(Cond::Service { name: name.to_owned(), fold: false });
        let unknown = name == keys::UNKNOWN_SERVICE;
        all.push(if unknown { Expr::Or(vec![of(name), of("")]) } else { of(name) });
    }
    if let Some(name) = operation {
        all.push(Expr::Is(Cond::Name { name: name.to_owned(), fold: false }));
    }
    // In Jaeger 0 means "no bound".
    let (min, max) = (min.filter(|v| *v != 0), max.filter(|v| *v != 0));
    if min.is_some() || max.is_some() {
        all.push(Expr::Is(Cond::Duration { min: min.unwrap_or(i64::MIN), max: max.unwrap_or(i64::MAX) }));
    }
    all
}

fn search(conditions: Vec<Expr>, start: i64, end: i64, limit: usize) -> Search {
    Search {
        each: vec![Expr::all(conditions)],
        window: TimeRange { start, end },
        window_on: WindowOn::SpanStart,
        limit,
        after: None,
    }
}

/// A JSON object whose values are all texts.
fn string_map(text: &str) -> Result<Vec<(String, String)>, String> {
    let map: Option<serde_json::Map<String, serde_json::Value>> =
        serde_json::from_str(text).map_err(|e| e.to_string())?;
    map.unwrap_or_default()
        .into_iter()
        .map(|(key, value)| match value {
            serde_json::Value::String(text) => Ok((key, text)),
            other => Err(format!("the value of {key:?} is {other}, not a string")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_768_471_200_000_000_000;

    fn v1(query: &str) -> Result<TraceQuery, String> {
        v1_search(&Params::parse(query), NOW).map_err(|e| e.0)
    }

    #[test]
    fn defaults_are_two_days_and_a_hundred_traces() {
        let q = v1("").unwrap();
        assert_eq!(q.search.window, TimeRange { start: NOW - LOOKBACK, end: NOW });
        assert_eq!((q.search.limit, q.raw, q.search.each), (100, false, vec![Expr::True]));
    }

    #[test]
    fn wrong_parameters_are_named() {
        for (query, text) in [
            ("minDuration=oops", "unable to parse param 'minDuration': time: invalid duration \"oops\""),
            ("minDuration=2s&maxDuration=1s", "'maxDuration' should be greater than 'minDuration'"),
            ("tag=novalue", "malformed 'tag' parameter, expecting key:value, received: novalue"),
            ("tags=notjson", "malformed 'tags' parameter, cannot unmarshal JSON: "),
            ("tags={\"a\":1}", "malformed 'tags' parameter, cannot unmarshal JSON: "),
            ("start=x", "unable to parse param 'start': "),
            ("limit=-1", "search depth must be greater than 0"),
            ("limit=x", "unable to parse param 'limit': "),
            ("traceID=xyz", "cannot parse traceID param: "),
            ("raw=perhaps", "unable to parse param 'raw': "),
        ] {
            let got = v1(query).unwrap_err();
            assert!(got.starts_with(text), "{query}: {got}");
        }
    }

    #[test]
    fn a_tag_value_may_hold_colons() {
        let q = v1("tag=url:http://x:1/").unwrap();
        assert_eq!(q.search.each, [tags::jaeger("url", "http://x:1/")]);
    }

    #[test]
    fn the_third_api_takes_both_spellings_and_bare_plus_signs() {
        let q = v3_search(&Params::parse(
            "query.service_name=a&query.start_time_min=2026-01-15T11:00:00+01:00&query.startTimeMax=2026-01-15T11:00:00Z&query.num_traces=3",
        ))
        .unwrap();
        assert_eq!(q.search.window, TimeRange { start: NOW, end: NOW + 3_600_000_000_000 });
        assert_eq!(q.search.limit, 3);
        let wrong = |query: &str| v3_search(&Params::parse(query)).unwrap_err().0;
        assert_eq!(wrong("query.serviceName=a"), "query.startTimeMin and query.startTimeMax are required");
        let times = "query.startTimeMin=2026-01-15T11:00:00Z&query.startTimeMax=2026-01-15T10:00:00Z";
        assert_eq!(wrong(times), "query.startTimeMin must be before query.startTimeMax");
        let times = "query.startTimeMax=2026-01-15T11:00:00Z&query.startTimeMin=2026-01-15T10:00:00Z";
        assert!(
            wrong(&format!("{times}&query.durationMin=x"))
                .starts_with("malformed parameter query.durationMin: ")
        );
        assert!(
            wrong(&format!("{times}&query.searchDepth=x"))
                .starts_with("malformed parameter query.searchDepth: ")
        );
    }
}
