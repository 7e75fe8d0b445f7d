//! `GET /api/search`: the store narrows down by what a query needs, and every
//! trace that is left is looked at whole, newest first.

use super::{positive, window};
use crate::reply::Reply;
use crate::route::Call;
use crate::{Api, Config, Problem};
use serde_json::{Map, Value as Json, json};
use spanloom_model::{Cursor, Search, SpanReader, TimeRange, TraceId, WindowOn, flags};
use spanloom_query::Params;
use spanloom_query::traceql::{Field, Group, Intrinsic, Query, Val, View, label};

/// Traces of an answer, unless the client says otherwise.
const LIMIT: usize = 20;
/// Spans shown of each spanset, unless the client says otherwise.
const SPANS: usize = 3;
/// Traces that one search looks at; what a store cannot narrow down further
/// must not read all of it.
const MAX_INSPECTED: usize = 20_000;
/// Conditions that the store is asked about; the others are looked at here.
const MAX_NECESSARY: usize = 16;
/// Traces fetched from the store at a time.
const PAGE: usize = 100;
const NO_ROOT: &str = "<root span not yet received>";

/// The query of a request: `q`, or the older `tags`, `minDuration`, `maxDuration`.
pub(super) fn query(params: &Params) -> Result<Query, Problem> {
    let text = |key| params.get(key).unwrap_or_default();
    let q = text("q");
    if q.is_empty() {
        return Ok(Query::of_tags(text("tags"), text("minDuration"), text("maxDuration"))?);
    }
    if !text("tags").is_empty() {
        return Err(Problem::Invalid("invalid request: can't specify tags and q in the same query".into()));
    }
    Ok(Query::parse(q)?)
}

pub(super) async fn search(api: &Api, call: &Call<'_>) -> Result<Reply, Problem> {
    let query = query(&call.params)?;
    let window = window(&call.params)?;
    let limit = positive(&call.params, "limit", LIMIT)?.min(api.config().max_traces);
    // 0: all of them.
    let spans = match super::number(&call.params, "spss")? {
        None => SPANS,
        Some(n) => usize::try_from(n).ok().filter(|n| *n > 0).unwrap_or(usize::MAX),
    };
    let body = api.ask(move |store, config| found(store, config, &query, window, limit, spans)).await?;
    Ok(Reply::json(body))
}

fn found(
    store: &dyn SpanReader,
    config: &Config,
    query: &Query,
    window: TimeRange,
    limit: usize,
    spans: usize,
) -> Result<String, Problem> {
    let mut traces = Vec::new();
    let (mut size, mut complete) = (0, true);
    let inspected = each_trace(store, query, window, MAX_INSPECTED, |id, view| {
        let groups = query.find(view);
        if groups.is_empty() {
            return Ok(true);
        }
        let trace = summary(id, view, query, &groups, spans);
        size += trace.to_string().len();
        if size > config.max_answer {
            return Err(Problem::TooLarge("the answer is too large; ask for fewer traces or spans".into()));
        }
        traces.push(trace);
        Ok(traces.len() < limit)
    })?;
    if traces.len() < limit && inspected >= MAX_INSPECTED {
        complete = false;
        if traces.is_empty() {
            return Err(Problem::TooLarge(format!(
                "nothing was found in the newest {MAX_INSPECTED} traces that may match; ask for a shorter time or add a condition on an attribute"
            )));
        }
    }
    let status = if complete { "COMPLETE" } else { "PARTIAL" };
    Ok(json!({"traces": traces, "metrics": {"inspectedTraces": inspected}, "status": status}).to_string())
}

/// Looks at the traces that may match, newest first, until `each` says no or
/// `most` were looked at. Gives their number.
pub(super) fn each_trace(
    store: &dyn SpanReader,
    query: &Query,
    window: TimeRange,
    most: usize,
    mut each: impl FnMut(TraceId, &View<'_>) -> Result<bool, Problem>,
) -> Result<usize, Problem> {
    let mut necessary = query.necessary();
    necessary.truncate(MAX_NECESSARY);
    let mut search =
        Search { each: necessary, window, window_on: WindowOn::SpanStart, limit: PAGE, after: None };
    let mut inspected = 0;
    loop {
        let page = store.search(&search)?;
        for found in &page {
            if inspected >= most {
                return Ok(inspected);
            }
            inspected += 1;
            if let Some(trace) = store.trace(found.trace_id, TimeRange::ALL)?
                && !each(found.trace_id, &View::new(&trace))?
            {
                return Ok(inspected);
            }
        }
        match page.last() {
            Some(last) if page.len() >= PAGE => {
                search.after = Some(Cursor { start: last.start, trace_id: last.trace_id });
            }
            _ => return Ok(inspected),
        }
    }
}

fn summary(id: TraceId, view: &View<'_>, query: &Query, groups: &[Group<'_>], spans: usize) -> Json {
    let root = |intrinsic| view.root().map(|at| view.value(at, &Field::Intrinsic(intrinsic)).text());
    let (start, end) = view.times();
    let sets: Vec<Json> = groups.iter().map(|g| spanset(view, query, g, spans)).collect();
    let mut out = json!({
        "traceID": format!("{:x}", id.0),
        "rootServiceName": root(Intrinsic::RootServiceName).unwrap_or_else(|| NO_ROOT.to_owned()),
        "startTimeUnixNano": start.to_string(),
        "durationMs": end.saturating_sub(start) / 1_000_000,
        "spanSet": sets.first(),
        "spanSets": sets,
        "serviceStats": services(view),
    });
    if let Some(name) = root(Intrinsic::RootName) {
        out["rootTraceName"] = name.into();
    }
    out
}

fn services(view: &View<'_>) -> Json {
    let mut stats: Map<String, Json> = Map::new();
    for (service, failed) in view.services() {
        let stat = stats.entry(service).or_insert_with(|| json!({"spanCount": 0}));
        for (key, one) in [("spanCount", true), ("errorCount", failed)] {
            if one {
                stat[key] = (stat[key].as_u64().unwrap_or(0) + 1).into();
            }
        }
    }
    Json::Object(stats)
}

fn spanset(view: &View<'_>, query: &Query, group: &Group<'_>, spans: usize) -> Json {
    let shown: Vec<Json> = group.spans.iter().take(spans).map(|at| span(view, query, *at)).collect();
    let mut set = json!({"spans": shown, "matched": group.spans.len()});
    if !group.by.is_empty() {
        let by = group.by.iter().filter_map(|(name, value)| attribute(&format!("by({name})"), value));
        set["attributes"] = by.collect();
    }
    set
}

fn span(view: &View<'_>, query: &Query, at: usize) -> Json {
    let mut out = Map::new();
    let text = |intrinsic| view.value(at, &Field::Intrinsic(intrinsic)).text();
    out.insert("spanID".into(), text(Intrinsic::SpanId).into());
    let span = view.span(at);
    let start = if span.flags & flags::NO_START == 0 { span.start } else { 0 };
    out.insert("startTimeUnixNano".into(), start.to_string().into());
    out.insert("durationNanos".into(), span.duration.to_string().into());
    let mut attributes = Vec::new();
    for field in query.mentioned() {
        match field {
            Field::Intrinsic(Intrinsic::Name) => {
                out.insert("name".into(), text(Intrinsic::Name).into());
            }
            // These are said already.
            Field::Intrinsic(Intrinsic::Duration | Intrinsic::SpanId | Intrinsic::TraceId) => {}
            // Tempo names attributes without their scope here.
            Field::Attr(_, name) => attributes.extend(attribute(name, &view.value(at, field))),
            _ => attributes.extend(attribute(&label(field), &view.value(at, field))),
        }
    }
    if !attributes.is_empty() {
        out.insert("attributes".into(), attributes.into());
    }
    Json::Object(out)
}

fn attribute(key: &str, value: &Val<'_>) -> Option<Json> {
    let value = match value {
        Val::Nil => return None,
        Val::Int(n) => json!({"intValue": n.to_string()}),
        Val::Float(n) => json!({"doubleValue": n}),
        Val::Bool(b) => json!({"boolValue": b}),
        other => json!({"stringValue": other.text()}),
    };
    Some(json!({"key": key, "value": value}))
}
