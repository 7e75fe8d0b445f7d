//! Tempo's HTTP API (tempo:docs/sources/tempo/api_docs, pkg/api/http.go), as
//! far as Grafana's Tempo data source needs it to search and show traces.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | paths, parameters that several have |
//! | `search.rs` | `/api/search` |
//! | `tags.rs` | `/api/search/tags`, `/api/search/tag/{name}/values`, both generations |
//! | `trace.rs` | `/api/traces/{id}`, both generations |

mod search;
mod tags;
mod trace;

use crate::reply::Reply;
use crate::route::Call;
use crate::{Api, Problem};
use serde_json::json;
use spanloom_model::TimeRange;
use spanloom_query::Params;

/// The version of Tempo whose answers these are: Grafana decides by it what
/// it may ask for.
const LEVEL: &str = "2.7.0";

pub(crate) async fn answer(api: &Api, call: &Call<'_>) -> Reply {
    match route(api, call).await {
        Ok(reply) => reply,
        Err(problem) => problem.text(),
    }
}

async fn route(api: &Api, call: &Call<'_>) -> Result<Reply, Problem> {
    call.get()?;
    let segments: Vec<&str> = call.path.split('/').skip(1).collect();
    match segments.as_slice() {
        ["ready"] => Ok(Reply::text("ready\n")),
        ["api", "echo"] => Ok(Reply::text("echo")),
        ["status", "buildinfo"] | ["api", "status", "buildinfo"] => Ok(build(api)),
        ["api", "traces", id] => trace::first(api, call, id).await,
        ["api", "v2", "traces", id] => trace::second(api, call, id).await,
        ["api", "search"] => search::search(api, call).await,
        ["api", "search", "tags"] => tags::names(api, call).await,
        ["api", "v2", "search", "tags"] => tags::scopes(api, call).await,
        ["api", "search", "tag", name, "values"] => tags::values(api, call, name).await,
        ["api", "v2", "search", "tag", name, "values"] => tags::typed_values(api, call, name).await,
        ["api", "metrics", ..] => {
            Err(Problem::Unsupported("TraceQL metrics are not offered; only searches are".into()))
        }
        _ => Err(Problem::NotFound(format!("there is no {}", call.path))),
    }
}

fn build(api: &Api) -> Reply {
    let of_ours = format!("spanloom {}", api.config().version);
    Reply::json(
        json!({"version": LEVEL, "revision": of_ours, "branch": "", "buildUser": "", "buildDate": "", "goVersion": ""})
            .to_string(),
    )
}

/// A whole number under a key.
fn number(params: &Params, key: &str) -> Result<Option<i64>, Problem> {
    let parse = |text: &str| {
        let wrong = |_| {
            Problem::Invalid(format!("invalid {key}: strconv.ParseUint: parsing {text:?}: invalid syntax"))
        };
        text.parse::<u32>().map(i64::from).map_err(wrong)
    };
    params.get(key).map(parse).transpose()
}

/// A number that must be positive.
fn positive(params: &Params, key: &str, default: usize) -> Result<usize, Problem> {
    let wrong = || Problem::Invalid(format!("invalid {key}: must be a positive number"));
    match number(params, key)? {
        None => Ok(default),
        Some(n) => usize::try_from(n).ok().filter(|n| *n > 0).ok_or_else(wrong),
    }
}

/// `start` and `end` in seconds; all of time without.
fn window(params: &Params) -> Result<TimeRange, Problem> {
    let (start, end) = (number(params, "start")?, number(params, "end")?);
    if let (Some(start), Some(end)) = (start, end)
        && end <= start
        && end != 0
    {
        return Err(Problem::Invalid(format!(
            "http parameter start must be before end. received start={start} end={end}"
        )));
    }
    let nanos = |s: i64| s.saturating_mul(1_000_000_000);
    Ok(TimeRange {
        start: start.filter(|s| *s != 0).map_or(i64::MIN, nanos),
        end: end.filter(|s| *s != 0).map_or(i64::MAX, nanos),
    })
}
