//! `/api/metrics/…`: the figures of Jaeger's Monitor page, from statistics that
//! count every span, also those that were sampled away
//! (`jaeger:cmd/jaeger/internal/extension/jaegerquery`, parameters and texts;
//! `internal/storage/metricstore/prometheus`, meaning).
//!
//! Figures are kept by the minute: shorter steps and windows become a minute,
//! and a window ends with the last whole minute before its point. What an answer
//! may cost is bounded: in points, and in windows that hold the same minute.

use crate::reply::Reply;
use crate::route::Call;
use crate::{Api, Problem};
use serde_json::{Value as Json, json};
use spanloom_model::{RedFilter, RedPoint, RedSeries, SpanKind};
use spanloom_query::{Params, print_rfc3339};
use std::collections::HashMap;

const MINUTE: i64 = 60_000_000_000;
/// Most points of a series, as Prometheus has it.
const MOST_POINTS: i64 = 11_000;
/// Most points of all series together.
const MOST_IN_ALL: usize = 200_000;
/// Most steps of a window: so many points look at the same minute.
const MOST_STEPS: i64 = 30;
/// Longer times than anybody keeps figures for; sums of them stay in range.
const FOR_EVER: i64 = i64::MAX / 64;
/// What Jaeger answers without a metrics store.
const DISABLED: &str = "trace metrics are currently disabled - no metrics backend configured";

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Figure {
    Latency,
    Calls,
    Errors,
}

impl Figure {
    pub(crate) fn named(segment: &str) -> Option<Self> {
        match segment {
            "latencies" => Some(Self::Latency),
            "calls" => Some(Self::Calls),
            "errors" => Some(Self::Errors),
            _ => None,
        }
    }
}

struct Question {
    figure: Figure,
    quantile: f64,
    services: Vec<String>,
    by_operation: bool,
    kinds: Vec<&'static str>,
    /// Of the first point.
    start: i64,
    step: i64,
    /// Points after the first.
    further: i64,
    window: i64,
}

impl Question {
    /// In Jaeger's order: the first error is the one that is told.
    fn parse(figure: Figure, params: &Params, now: i64) -> Result<Self, Problem> {
        let invalid =
            |key: &str, why: String| Problem::Invalid(format!("unable to parse param '{key}': {why}"));
        let mut quantile = 0.0;
        if figure == Figure::Latency {
            let text = params.first("quantile").unwrap_or_default();
            let wrong =
                || invalid("quantile", format!("strconv.ParseFloat: parsing {text:?}: invalid syntax"));
            quantile = text.parse().map_err(|_| wrong())?;
        }
        let services: Vec<String> = params.all("service").map(str::to_owned).collect();
        if services.is_empty() {
            return Err(invalid("service", "please provide at least one service name".into()));
        }
        let by_operation = params.flag("groupByOperation")?;
        let mut kinds = params.all("spanKind").map(kind).collect::<Result<Vec<_>, _>>()?;
        if kinds.is_empty() {
            kinds.push(SpanKind::Server.name());
        }
        let millis = |key: &str, default: i64| -> Result<i64, Problem> {
            Ok(params.int(key)?.map_or(default, |v| v.saturating_mul(1_000_000)))
        };
        let end = millis("endTs", now)?.clamp(0, i64::MAX / 2);
        let lookback = millis("lookback", 60 * MINUTE)?.min(FOR_EVER);
        let minutes = |nanos: i64| (nanos / MINUTE * MINUTE).clamp(MINUTE, FOR_EVER);
        let step = minutes(millis("step", 0)?);
        let window = minutes(millis("ratePer", 10 * MINUTE)?);
        if lookback < 0 {
            return Err(invalid("lookback", "it is negative".into()));
        }
        let further = lookback / step;
        if further >= MOST_POINTS {
            let why = format!("that would be more than {MOST_POINTS} points a series; take a longer step");
            return Err(invalid("step", why));
        }
        if window / step > MOST_STEPS {
            return Err(invalid(
                "ratePer",
                format!("it is longer than {MOST_STEPS} steps; take a longer step"),
            ));
        }
        let start = end - lookback;
        Ok(Self { figure, quantile, services, by_operation, kinds, start, step, further, window })
    }

    /// Where the window of the first point begins: with a whole minute.
    fn begin(&self) -> i64 {
        (self.start - self.window).div_euclid(MINUTE) * MINUTE
    }

    fn filter<'a>(&'a self, services: &'a [&'a str]) -> RedFilter<'a> {
        let from = self.begin();
        RedFilter {
            services,
            kinds: &self.kinds,
            from,
            to: from + self.step * self.further + self.window,
            step: self.step,
            window: self.window,
            depth: if self.by_operation { 2 } else { 1 },
            quantile: self.quantile,
            ..RedFilter::default()
        }
    }

    /// One service or operation, with a point at every time that is asked for.
    fn metric(&self, series: &RedSeries) -> Json {
        let begin = self.begin();
        let found: HashMap<i64, &RedPoint> =
            series.points.iter().map(|p| ((p.start - begin) / self.step, p)).collect();
        let points: Vec<Json> = (0..=self.further)
            .map(|n| {
                json!({
                    "gaugeValue": {"doubleValue": number(self.value(found.get(&n).copied()))},
                    "timestamp": print_rfc3339(self.start + n * self.step),
                })
            })
            .collect();
        let mut labels = vec![label("service_name", &series.service)];
        if self.by_operation {
            labels.push(label("operation", &series.operation));
        }
        json!({"labels": labels, "metricPoints": points})
    }

    fn value(&self, point: Option<&RedPoint>) -> f64 {
        let requests = point.map_or(0.0, |p| p.requests as f64);
        match (self.figure, point) {
            (Figure::Calls, _) => requests / (self.window as f64 / 1e9),
            (Figure::Latency, Some(p)) => p.latency / 1e6,
            (Figure::Errors, Some(p)) => p.errors as f64 / requests,
            (Figure::Latency | Figure::Errors, None) => f64::NAN,
        }
    }

    fn answer(&self, series: &[RedSeries]) -> Result<String, Problem> {
        let points = series.len().saturating_mul(self.further as usize + 1);
        if points > MOST_IN_ALL {
            return Err(Problem::TooLarge(format!(
                "the answer would have {points} points, {MOST_IN_ALL} are the most; ask for fewer services or take a longer step"
            )));
        }
        let metrics: Vec<Json> = series.iter().map(|s| self.metric(s)).collect();
        Ok(self.family(&metrics).to_string())
    }

    fn family(&self, metrics: &[Json]) -> Json {
        let (name, help) = match self.figure {
            Figure::Latency => ("latencies", format!("{:.2}th quantile latency", self.quantile)),
            Figure::Calls => ("call_rate", "calls/sec".into()),
            Figure::Errors => {
                ("error_rate", "error rate, computed as a fraction of errors/sec over calls/sec".into())
            }
        };
        let (of, by) = if self.by_operation { ("operation_", " & operation") } else { ("", "") };
        json!({
            "name": format!("service_{of}{name}"),
            "type": "GAUGE",
            "help": format!("{help}, grouped by service{by}"),
            "metrics": metrics,
        })
    }
}

fn kind(text: &str) -> Result<&'static str, Problem> {
    if text.eq_ignore_ascii_case("unspecified") {
        return Ok(SpanKind::Unspecified.name());
    }
    SpanKind::from_name(text).map(SpanKind::name).ok_or_else(|| {
        Problem::Invalid(format!("unable to parse param 'spanKind': unsupported span kind: '{text}'"))
    })
}

fn label(name: &str, value: &str) -> Json {
    json!({"name": name, "value": value})
}

/// As protobuf writes it in JSON.
fn number(value: f64) -> Json {
    match value {
        _ if value.is_nan() => "NaN".into(),
        f64::INFINITY => "Infinity".into(),
        _ => value.into(),
    }
}

pub(crate) async fn metrics(api: &Api, call: &Call<'_>, figure: Figure) -> Result<Reply, Problem> {
    call.get()?;
    let question = Question::parse(figure, &call.params, api.now())?;
    let answer = api.ask_program(move |program| {
        let services: Vec<&str> = question.services.iter().map(String::as_str).collect();
        let series = program.red(&question.filter(&services))?;
        Some(question.answer(&series))
    });
    let family = answer.await?.ok_or_else(|| Problem::Unsupported(DISABLED.into()))??;
    Ok(Reply::json(family))
}
