//! Our own API, `/api/spanloom/v1`. Times are texts of nanoseconds since the
//! Unix epoch, durations numbers of nanoseconds, ids hexadecimal.
//!
//! | route | parameters |
//! |---|---|
//! | `search` | `q` (query language), `start`, `end` (RFC 3339, or nanoseconds) or `since` (`15m`), `limit`, `cursor` |
//! | `traces/{id}` | id in hexadecimal, or Datadog's decimal with `d:` before it |
//! | `services` | – |
//! | `operations` | `service` |
//! | `keys` | – |
//! | `values` | `key`, `q`, `limit` |
//! | `dependencies` | `start`, `end`, `since` |
//! | `red` | `service`, `operation`, `resource`, `kind`, `by`, `spans`, `step`, `start`, `end`, `since` |
//! | `status`, `ledger`, `why/{id}` | – |
//! | `POST traces/{id}/keep` | – |

mod red;
mod trace;

pub use red::RedQuestion;

use crate::reply::Reply;
use crate::route::Call;
use crate::{Api, Problem};
use serde_json::{Value as Json, json};
use spanloom_model::{Cursor, Expr, Search, TimeRange, TraceId, TraceSummary, WindowOn};
use spanloom_query::{Params, language, parse_go_duration, parse_rfc3339};

/// Default number of traces.
const LIMIT: usize = 20;
/// Default window: an hour.
const SINCE: i64 = 3_600_000_000_000;

pub(crate) async fn answer(api: &Api, call: &Call<'_>) -> Reply {
    match route(api, call).await {
        Ok(json) => Reply::json(json.to_string()),
        Err(problem) => problem.own(),
    }
}

async fn route(api: &Api, call: &Call<'_>) -> Result<Json, Problem> {
    let unknown = || Problem::NotFound(format!("there is no {}", call.path));
    let path = call.path.strip_prefix("/api/spanloom/v1/").ok_or_else(unknown)?;
    let parts: Vec<&str> = path.split('/').collect();
    if let ["traces", id, "keep"] = parts[..] {
        call.post()?;
        let id = trace_id(id)?;
        let kept = api.ask_program(move |p| p.keep(id)).await?;
        return kept.unwrap_or_else(|| Err(Problem::Unsupported("this process keeps no traces".into())));
    }
    call.get()?;
    match parts.as_slice() {
        ["search"] => search(api, call).await,
        ["traces", id] => {
            let id = trace_id(id)?;
            api.ask(move |store, _| {
                let found = store.trace(id, TimeRange::ALL)?;
                found.map(|t| trace::show(&t)).ok_or_else(|| Problem::NotFound(format!("no trace {id}")))
            })
            .await
        }
        ["services"] => Ok(json!({"services": api.ask(|store, _| Ok(store.services()?)).await?})),
        ["operations"] => operations(api, call).await,
        ["keys"] => {
            let keys = api.ask(|store, _| Ok(store.attribute_keys()?)).await?;
            let keys: Vec<Json> =
                keys.iter().map(|k| json!({"key": k.key, "resource": k.resource})).collect();
            Ok(json!({"keys": keys}))
        }
        ["values"] => values(api, call).await,
        ["dependencies"] => dependencies(api, call).await,
        ["red"] => {
            let question = RedQuestion::parse(&call.params, api.now())?;
            let found =
                api.ask_program(move |p| question.ask(|f| p.red(f)).map(|found| question.show(&found)));
            reported(found.await?, "statistics")
        }
        ["status"] => reported(api.report().status(), "status"),
        ["ledger"] => reported(api.report().ledger(), "ledger"),
        ["why", id] => {
            let id = trace_id(id)?;
            reported(api.ask_program(move |p| p.why(id)).await?, "account of traces")
        }
        _ => Err(unknown()),
    }
}

fn reported(report: Option<Json>, what: &str) -> Result<Json, Problem> {
    report.ok_or_else(|| Problem::Unsupported(format!("this process keeps no {what}")))
}

/// Up to 32 hexadecimal digits; `d:` before Datadog's decimal id.
fn trace_id(segment: &str) -> Result<TraceId, Problem> {
    let text = Params::unescape_path(segment);
    if let Some(decimal) = text.strip_prefix("d:") {
        return match decimal.parse::<u64>() {
            Ok(low) => Ok(TraceId::from_halves(0, low)),
            Err(_) => Err(Problem::Invalid(format!("{decimal:?} is not a decimal trace id"))),
        };
    }
    TraceId::parse_hex(&text).map_err(|e| Problem::Invalid(format!("trace id {text:?}: {e}")))
}

/// `start`, `end`, `since`.
fn window(now: i64, params: &Params, since: i64) -> Result<TimeRange, Problem> {
    let time = |key: &str| match params.get(key) {
        None => Ok(None),
        Some(text) => match text.parse::<i64>() {
            Ok(nanos) => Ok(Some(nanos)),
            Err(_) => parse_rfc3339(text).map(Some).map_err(|_| {
                Problem::Invalid(format!("`{key}`: {text:?} is neither an RFC 3339 time nor nanoseconds"))
            }),
        },
    };
    let end = time("end")?.unwrap_or(now);
    let since = match params.get("since") {
        None => since,
        Some(text) => parse_go_duration(text).map_err(|e| Problem::Invalid(format!("`since`: {}", e.0)))?,
    };
    let start = time("start")?.unwrap_or_else(|| end.saturating_sub(since));
    if start > end {
        return Err(Problem::Invalid("`start` is after `end`".into()));
    }
    Ok(TimeRange { start, end })
}

fn limit(params: &Params, default: usize, most: usize) -> Result<usize, Problem> {
    match params.get("limit") {
        None => Ok(default.min(most)),
        Some(text) => match text.parse::<usize>() {
            Ok(n @ 1..) => Ok(n.min(most)),
            _ => Err(Problem::Invalid(format!("`limit`: {text:?} is not a number from 1 on"))),
        },
    }
}

async fn search(api: &Api, call: &Call<'_>) -> Result<Json, Problem> {
    let expr = language::parse(call.params.get("q").unwrap_or_default())?;
    let after = call.params.get("cursor").map(parse_cursor).transpose()?;
    let limit = limit(&call.params, LIMIT, api.config().max_traces)?;
    let search = Search {
        each: vec![expr],
        window: window(api.now(), &call.params, SINCE)?,
        window_on: WindowOn::SpanStart,
        // One more tells whether there is a further page.
        limit: limit + 1,
        after,
    };
    let mut found = api.ask(move |store, _| Ok(store.search(&search)?)).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|t| print_cursor(t.start, t.trace_id));
    Ok(json!({"traces": found.iter().map(summary).collect::<Vec<_>>(), "next": next}))
}

/// Clients treat it as one word without meaning.
fn print_cursor(start: i64, id: TraceId) -> String {
    format!("{start}.{id}")
}

fn parse_cursor(text: &str) -> Result<Cursor, Problem> {
    text.split_once('.')
        .and_then(|(start, id)| {
            Some(Cursor { start: start.parse().ok()?, trace_id: TraceId::parse_hex(id).ok()? })
        })
        .ok_or_else(|| Problem::Invalid("`cursor` is not one that a search gave".into()))
}

fn summary(t: &TraceSummary) -> Json {
    let services: Vec<Json> =
        t.services.iter().map(|s| json!({"name": s.name, "spans": s.spans, "errors": s.errors})).collect();
    json!({
        "traceId": t.trace_id.to_string(),
        "root": {"service": t.root_service, "name": t.root_name, "resource": t.root_resource},
        "start": t.start.to_string(),
        "duration": t.end.saturating_sub(t.start),
        "spans": t.spans,
        "errors": t.errors,
        "orphans": t.orphans,
        "services": services,
    })
}

async fn operations(api: &Api, call: &Call<'_>) -> Result<Json, Problem> {
    let service = call.params.get("service").unwrap_or_default().to_owned();
    let found = api.ask(move |store, _| Ok(store.operations(&service)?)).await?;
    let list: Vec<Json> = found.iter().map(|o| json!({"name": o.name, "kind": o.kind.name()})).collect();
    Ok(json!({"operations": list}))
}

async fn values(api: &Api, call: &Call<'_>) -> Result<Json, Problem> {
    let Some(key) = call.params.get("key").map(str::to_owned) else {
        return Err(Problem::Invalid("`key` is required".into()));
    };
    let on = language::parse(call.params.get("q").unwrap_or_default())?;
    let limit = limit(&call.params, 100, 10_000)?;
    let values = api
        .ask(move |store, _| {
            Ok(match on {
                Expr::True => store.attribute_values(&key, limit)?,
                on => store.attribute_values_where(&key, &on, limit)?,
            })
        })
        .await?;
    Ok(json!({"values": values}))
}

async fn dependencies(api: &Api, call: &Call<'_>) -> Result<Json, Problem> {
    let range = window(api.now(), &call.params, 24 * SINCE)?;
    let found = api.ask(move |store, _| Ok(store.dependencies(range)?)).await?;
    let list: Vec<Json> = found
        .iter()
        .map(|d| {
            json!({"parent": d.parent, "child": d.child, "calls": d.calls.saturating_add(d.implied),
                   "errors": d.errors})
        })
        .collect();
    Ok(json!({"dependencies": list}))
}
