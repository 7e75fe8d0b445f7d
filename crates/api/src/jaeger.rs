//! Jaeger's first HTTP API, with the four endpoints that Jaeger removed after
//! 2.20 and Grafana still calls.

use crate::jaeger_metrics::{Figure, metrics};
use crate::reply::Reply;
use crate::route::Call;
use crate::{Api, Config, Problem};
use serde_json::json;
use spanloom_codec::jaeger_ui::{encode_batch, encode_trace, trace_id_text};
use spanloom_codec::otlp;
use spanloom_model::{Batch, Intake, Operation, Protocol, SpanKind, SpanReader, TimeRange, TraceId};
use spanloom_query::jaeger::{TraceQuery, v1_dependencies, v1_hint, v1_search};
use spanloom_query::{Params, dependencies, parse_trace_id};
use std::collections::BTreeSet;

const NOT_FOUND: &str = "trace not found";

pub(crate) async fn answer(api: &Api, call: &Call<'_>) -> Reply {
    match route(api, call).await {
        Ok(reply) => reply,
        Err(problem) => problem.jaeger(),
    }
}

async fn route(api: &Api, call: &Call<'_>) -> Result<Reply, Problem> {
    let segments: Vec<&str> = call.path.split('/').skip(2).collect();
    match segments.as_slice() {
        ["services"] => services(api, call).await,
        ["services", service, "operations"] => operation_names(api, call, service).await,
        ["operations"] => operations(api, call).await,
        ["traces"] => search(api, call).await,
        ["traces", id] => trace(api, call, id).await,
        ["archive", id] => archive(call, id),
        ["transform"] => transform(api, call),
        ["dependencies"] => edges(api, call).await,
        ["metrics", which] if let Some(of) = Figure::named(which) => metrics(api, call, of).await,
        ["deep-dependencies" | "quality-metrics"] => {
            call.get()?;
            Err(Problem::Unsupported(format!("{} are not offered", segments[0])))
        }
        _ => Err(Problem::NotFound(format!("there is no {}", call.path))),
    }
}

/// The envelope of every reply. `data` is JSON already.
fn envelope(data: &[u8], total: usize, errors: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 80);
    out.extend_from_slice(b"{\"data\":");
    out.extend_from_slice(data);
    let rest = format!(",\"total\":{total},\"limit\":0,\"offset\":0,\"errors\":{errors}}}");
    out.extend_from_slice(rest.as_bytes());
    out
}

async fn services(api: &Api, call: &Call<'_>) -> Result<Reply, Problem> {
    call.get()?;
    let names = api.ask(|store, _| Ok(store.services()?)).await?;
    let data = json!(names).to_string();
    Ok(Reply::json(envelope(data.as_bytes(), names.len(), "null")))
}

async fn operation_names(api: &Api, call: &Call<'_>, service: &str) -> Result<Reply, Problem> {
    call.get()?;
    let service = Params::unescape_path(service);
    if service.is_empty() {
        return Err(Problem::NotFound(format!("there is no {}", call.path)));
    }
    let names = api
        .ask(move |store, _| {
            let names: BTreeSet<String> = store.operations(&service)?.into_iter().map(|o| o.name).collect();
            Ok(names)
        })
        .await?;
    let data = json!(names).to_string();
    Ok(Reply::json(envelope(data.as_bytes(), names.len(), "null")))
}

async fn operations(api: &Api, call: &Call<'_>) -> Result<Reply, Problem> {
    call.get()?;
    let Some(service) = call.params.get("service").map(str::to_owned) else {
        return Err(Problem::Invalid("parameter 'service' is required".into()));
    };
    let kind = call.params.get("spanKind").map(str::to_owned);
    let found = api.ask(move |store, _| of_kind(store, &service, kind.as_deref())).await?;
    let data: Vec<_> = found.iter().map(|o| json!({"name": o.name, "spanKind": o.kind.name()})).collect();
    Ok(Reply::json(envelope(json!(data).to_string().as_bytes(), data.len(), "null")))
}

/// A trace, looked for first where the client thinks it is. Links that people
/// keep may be off; they should lead to the trace all the same.
pub(crate) fn near(store: &dyn SpanReader, id: TraceId, hint: TimeRange) -> Result<Option<Batch>, Problem> {
    let found = store.trace(id, hint)?;
    if found.is_some() || hint == TimeRange::ALL {
        return Ok(found);
    }
    Ok(store.trace(id, TimeRange::ALL)?)
}

/// Operations of a service, of one kind if it is given.
pub(crate) fn of_kind(
    store: &dyn SpanReader,
    service: &str,
    kind: Option<&str>,
) -> Result<Vec<Operation>, Problem> {
    let mut found = store.operations(service)?;
    if let Some(kind) = kind {
        let wanted = SpanKind::from_name(kind);
        found.retain(|o| o.kind != SpanKind::Unspecified && Some(o.kind) == wanted);
    }
    Ok(found)
}

/// The traces that a query asks for, newest first, and the ids that are not
/// there. `each` is called with one trace after another.
pub(crate) fn find(
    store: &dyn SpanReader,
    config: &Config,
    mut query: TraceQuery,
    mut each: impl FnMut(Batch) -> Result<(), Problem>,
) -> Result<Vec<TraceId>, Problem> {
    let mut missing = Vec::new();
    if query.ids.is_empty() {
        query.search.limit = query.search.limit.min(config.max_traces);
        for found in store.search(&query.search)? {
            // Spans that arrived since then may lie outside of the times found.
            if let Some(trace) = store.trace(found.trace_id, TimeRange::ALL)? {
                each(trace)?;
            }
        }
        return Ok(missing);
    }
    query.ids.truncate(config.max_traces);
    for id in query.ids {
        match store.trace(id, TimeRange::ALL)? {
            Some(trace) => each(trace)?,
            None => missing.push(id),
        }
    }
    Ok(missing)
}

async fn search(api: &Api, call: &Call<'_>) -> Result<Reply, Problem> {
    call.get()?;
    let query = v1_search(&call.params, api.now())?;
    let body = api
        .ask(move |store, config| {
            let raw = query.raw;
            let mut data = vec![b'['];
            let missing = find(store, config, query, |trace| {
                if data.len() > 1 {
                    data.push(b',');
                }
                encode_trace(&trace, raw, &mut data);
                config.check(&data)
            })?;
            data.push(b']');
            let errors: Vec<_> =
                missing.iter().map(|id| json!({"msg": NOT_FOUND, "traceID": trace_id_text(*id)})).collect();
            let errors = if errors.is_empty() { "null".into() } else { json!(errors).to_string() };
            Ok(envelope(&data, 0, &errors))
        })
        .await?;
    Ok(Reply::json(body))
}

async fn trace(api: &Api, call: &Call<'_>, id: &str) -> Result<Reply, Problem> {
    call.get()?;
    let id = parse_trace_id(&Params::unescape_path(id))?;
    let (hint, raw) = (v1_hint(&call.params)?, call.params.flag("raw")?);
    let body = api
        .ask(move |store, config| {
            let found = near(store, id, hint)?.ok_or_else(|| Problem::NotFound(NOT_FOUND.into()))?;
            let mut data = vec![b'['];
            encode_trace(&found, raw, &mut data);
            data.push(b']');
            config.check(&data)?;
            Ok(envelope(&data, 0, "null"))
        })
        .await?;
    Ok(Reply::json(body))
}

/// There is no archive: everything stays until it is too old.
fn archive(call: &Call<'_>, id: &str) -> Result<Reply, Problem> {
    call.post()?;
    parse_trace_id(&Params::unescape_path(id))?;
    Err(Problem::Unavailable("archive span storage was not configured".into()))
}

/// OTLP JSON in, Jaeger's JSON out; nothing is stored.
fn transform(api: &Api, call: &Call<'_>) -> Result<Reply, Problem> {
    call.post()?;
    let intake = Intake { protocol: Protocol::OtlpJson, received_at: api.now(), ..Intake::default() };
    let decoded =
        otlp::decode_json(call.body.clone(), intake).map_err(|e| Problem::Invalid(e.to_string()))?;
    let mut data = vec![b'['];
    encode_batch(&decoded.batch, false, &mut data);
    api.config().check(&data)?;
    data.push(b']');
    Ok(Reply::json(envelope(&data, 0, "null")))
}

async fn edges(api: &Api, call: &Call<'_>) -> Result<Reply, Problem> {
    call.get()?;
    let range = v1_dependencies(&call.params, api.now())?;
    let service = call.params.get("service").unwrap_or_default().to_owned();
    let found = api.ask(move |store, _| Ok(store.dependencies(range)?)).await?;
    let data: Vec<_> = dependencies::jaeger(&found, &service)
        .iter()
        .map(|e| json!({"parent": e.parent, "child": e.child, "callCount": e.calls}))
        .collect();
    Ok(Reply::json(envelope(json!(data).to_string().as_bytes(), 0, "null")))
}
