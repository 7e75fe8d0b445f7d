//! Jaeger's third HTTP API (`jaeger.api_v3` as JSON). Jaeger UI validates the
//! replies strictly: lists are always there, times are texts, counts numbers.

use crate::jaeger::{find, near, of_kind};
use crate::reply::Reply;
use crate::route::Call;
use crate::{Api, Problem};
use serde_json::{Map, Value as Json, json};
use spanloom_codec::jaeger_ui::make_ids_unique;
use spanloom_codec::otlp::{JsonStyle, encode_json_with};
use spanloom_model::{Batch, TraceSummary, keys};
use spanloom_query::jaeger::{either, v3_hint, v3_raw, v3_search};
use spanloom_query::{Params, parse_trace_id};
use std::collections::BTreeSet;

pub(crate) async fn answer(api: &Api, call: &Call<'_>) -> Reply {
    match route(api, call).await {
        Ok(reply) => reply,
        Err(problem) => problem.jaeger_v3(),
    }
}

async fn route(api: &Api, call: &Call<'_>) -> Result<Reply, Problem> {
    let segments: Vec<&str> = call.path.split('/').skip(3).collect();
    match segments.as_slice() {
        ["services"] => {
            call.get()?;
            let names = api.ask(|store, _| Ok(store.services()?)).await?;
            Ok(Reply::json(json!({"services": names}).to_string()))
        }
        ["operations"] => operations(api, call).await,
        ["traces"] => search(api, call).await,
        ["traces", id] => trace(api, call, id).await,
        ["trace-summaries"] => summaries(api, call).await,
        _ => Err(Problem::NotFound(format!("there is no {}", call.path))),
    }
}

async fn operations(api: &Api, call: &Call<'_>) -> Result<Reply, Problem> {
    call.get()?;
    let service = call.params.get("service").unwrap_or_default().to_owned();
    let kind = either(&call.params, "spanKind", "span_kind").map(|v| v.1.to_owned());
    if service.is_empty() {
        return Ok(Reply::json(r#"{"operations":[]}"#));
    }
    let found = api.ask(move |store, _| of_kind(store, &service, kind.as_deref())).await?;
    // Without kind and internal are the same here.
    let shown: BTreeSet<(String, &str)> = found
        .into_iter()
        .map(|o| (o.name, if o.kind.name().is_empty() { "internal" } else { o.kind.name() }))
        .collect();
    let list: Vec<Json> = shown.iter().map(|(name, kind)| json!({"name": name, "spanKind": kind})).collect();
    Ok(Reply::json(json!({"operations": list}).to_string()))
}

/// Collects traces as one list of OTLP resource spans.
struct Found(Vec<u8>);

impl Found {
    fn new() -> Self {
        Self(b"{\"result\":{\"resourceSpans\":[".to_vec())
    }
    fn add(&mut self, mut trace: Batch, raw: bool) {
        if !raw {
            make_ids_unique(&mut trace);
        }
        if !self.0.ends_with(b"[") {
            self.0.push(b',');
        }
        let mut list = Vec::new();
        encode_json_with(&trace, JsonStyle::Otlp, &mut list);
        let inner = list.get(1..list.len().saturating_sub(1)).unwrap_or_default();
        self.0.extend_from_slice(inner);
    }
    fn finish(mut self) -> Vec<u8> {
        self.0.extend_from_slice(b"]}}");
        self.0
    }
}

fn none_found() -> Problem {
    Problem::NotFound("No traces found".into())
}

async fn search(api: &Api, call: &Call<'_>) -> Result<Reply, Problem> {
    call.get()?;
    let query = v3_search(&call.params)?;
    let body = api
        .ask(move |store, config| {
            let raw = query.raw;
            let (mut out, mut any) = (Found::new(), false);
            find(store, config, query, |trace| {
                any = true;
                out.add(trace, raw);
                config.check(&out.0)
            })?;
            if any { Ok(out.finish()) } else { Err(none_found()) }
        })
        .await?;
    Ok(Reply::json(body))
}

async fn trace(api: &Api, call: &Call<'_>, id: &str) -> Result<Reply, Problem> {
    call.get()?;
    let id = parse_trace_id(&Params::unescape_path(id))
        .map_err(|e| Problem::Invalid(format!("malformed parameter trace_id: {e}")))?;
    let hint = v3_hint(&call.params)?;
    let raw = v3_raw(&call.params)?;
    let body = api
        .ask(move |store, config| {
            let mut out = Found::new();
            out.add(near(store, id, hint)?.ok_or_else(none_found)?, raw);
            config.check(&out.0)?;
            Ok(out.finish())
        })
        .await?;
    Ok(Reply::json(body))
}

async fn summaries(api: &Api, call: &Call<'_>) -> Result<Reply, Problem> {
    call.get()?;
    let mut search = v3_search(&call.params)?.search;
    search.limit = search.limit.min(api.config().max_traces);
    let found = api.ask(move |store, _| Ok(store.search(&search)?)).await?;
    let list: Vec<Json> = found.iter().map(summary).collect();
    Ok(Reply::json(json!({"summaries": list}).to_string()))
}

/// Fields with proto3's default are left out, save the names of services,
/// which the UI requires.
fn summary(t: &TraceSummary) -> Json {
    let mut out = Map::new();
    out.insert("traceId".into(), t.trace_id.to_string().into());
    for (key, text) in [("rootServiceName", &t.root_service), ("rootOperationName", &t.root_name)] {
        if !text.is_empty() {
            out.insert(key.into(), text.as_str().into());
        }
    }
    for (key, time) in [("minStartTimeUnixNano", t.start), ("maxEndTimeUnixNano", t.end)] {
        if time > 0 {
            out.insert(key.into(), time.to_string().into());
        }
    }
    let count = |out: &mut Map<String, Json>, key: &str, n: u64| {
        if n > 0 {
            out.insert(key.into(), n.into());
        }
    };
    count(&mut out, "spanCount", t.spans);
    count(&mut out, "errorSpanCount", t.errors);
    count(&mut out, "orphanSpanCount", t.orphans);
    let services: Vec<Json> = t
        .services
        .iter()
        .map(|s| {
            let mut service = Map::new();
            let name = if s.name.is_empty() { keys::UNKNOWN_SERVICE } else { s.name.as_str() };
            service.insert("name".into(), name.into());
            count(&mut service, "spanCount", s.spans);
            count(&mut service, "errorSpanCount", s.errors);
            Json::Object(service)
        })
        .collect();
    out.insert("services".into(), services.into());
    Json::Object(out)
}
