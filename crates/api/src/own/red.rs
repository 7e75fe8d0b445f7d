//! `red`: requests, errors and latencies.

use super::{SINCE, window};
use crate::Problem;
use serde_json::{Value as Json, json};
use spanloom_model::{RedFilter, RedSeries, SpanKind, TimeRange};
use spanloom_query::{Params, parse_go_duration};

/// Most points of a series.
const MOST_POINTS: i64 = 11_000;

/// A question as a client asks it.
pub struct RedQuestion {
    service: Option<String>,
    operation: Option<String>,
    resource: Option<String>,
    kinds: Vec<String>,
    entries: bool,
    range: TimeRange,
    step: i64,
    depth: u8,
}

impl RedQuestion {
    /// Reads the parameters of `/api/spanloom/v1/red`. `now`: nanoseconds
    /// since the Unix epoch.
    ///
    /// # Errors
    /// [`Problem::Invalid`], which names the parameter.
    pub fn parse(params: &Params, now: i64) -> Result<Self, Problem> {
        let text = |key: &str| params.get(key).map(str::to_owned);
        let service = text("service");
        let depth = match params.get("by") {
            None => 1 + 2 * u8::from(service.is_some()),
            Some("service") => 1,
            Some("operation") => 2,
            Some("resource") => 3,
            Some("kind") => 4,
            Some(by) => {
                let known = "service, operation, resource, kind";
                return Err(Problem::Invalid(format!("`by`: {by:?} is none of {known}")));
            }
        };
        let entries = match params.get("spans") {
            None | Some("entries") => true,
            Some("all") => false,
            Some(other) => {
                return Err(Problem::Invalid(format!("`spans`: {other:?} is neither entries nor all")));
            }
        };
        let range = window(now, params, SINCE)?;
        let step = match params.get("step") {
            None => 0,
            Some(text) => match parse_go_duration(text) {
                Ok(step) if step >= MINUTE => step,
                Ok(_) => return Err(Problem::Invalid("`step`: one minute is the least".into())),
                Err(e) => return Err(Problem::Invalid(format!("`step`: {}", e.0))),
            },
        };
        if step > 0 && range.end.saturating_sub(range.start) / step > MOST_POINTS {
            let text =
                format!("`step`: that would be more than {MOST_POINTS} points a series; take a longer step");
            return Err(Problem::Invalid(text));
        }
        // As figures name them, however they are written.
        let kind = |k: &str| SpanKind::from_name(k).map_or(k, |known| known.name()).to_owned();
        let kinds = params.all("kind").filter(|k| !k.is_empty()).map(kind).collect();
        let (operation, resource) = (text("operation"), text("resource"));
        Ok(Self { service, operation, resource, kinds, entries, range, step, depth })
    }

    /// Asks somebody who knows.
    pub fn ask<T>(&self, who: impl FnOnce(&RedFilter<'_>) -> T) -> T {
        let kinds: Vec<&str> = self.kinds.iter().map(String::as_str).collect();
        let services: Vec<&str> = self.service.as_deref().into_iter().collect();
        who(&RedFilter {
            services: &services,
            operation: self.operation.as_deref(),
            resource: self.resource.as_deref(),
            kinds: &kinds,
            entries: self.entries,
            from: self.range.start,
            to: self.range.end,
            step: self.step,
            depth: self.depth,
            ..RedFilter::default()
        })
    }

    /// The answer as JSON.
    pub fn show(&self, found: &[RedSeries]) -> Json {
        let series: Vec<Json> = found.iter().map(|s| self.series(s)).collect();
        json!({
            "start": self.range.start.to_string(),
            "end": self.range.end.to_string(),
            "series": series,
        })
    }

    fn series(&self, series: &RedSeries) -> Json {
        let points: Vec<Json> = series
            .points
            .iter()
            .map(|p| {
                json!({
                    "start": p.start.to_string(),
                    "requests": p.requests,
                    "errors": p.errors,
                    "duration": p.duration,
                    "p50": p.p50.round(),
                    "p95": p.p95.round(),
                    "p99": p.p99.round(),
                })
            })
            .collect();
        let mut out = json!({"service": series.service, "points": points});
        let names =
            [("operation", &series.operation), ("resource", &series.resource), ("kind", &series.kind)];
        for (key, name) in names.into_iter().take(usize::from(self.depth) - 1) {
            out[key] = name.as_str().into();
        }
        out
    }
}

const MINUTE: i64 = 60_000_000_000;
