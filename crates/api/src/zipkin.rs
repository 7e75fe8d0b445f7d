//! Zipkin's API, health and the settings of its UI
//! (zipkin:zipkin-server/src/main/java/zipkin2/server/internal/ZipkinQueryApiV2.java).

use crate::reply::Reply;
use crate::route::Call;
use crate::{Api, Problem};
use http::{Method, StatusCode};
use serde_json::{Value as Json, json};
use spanloom_codec::zipkin::encode_json_v2;
use spanloom_model::{Cond, Expr, SpanReader, TimeRange};
use spanloom_query::{Params, dependencies, zipkin};
use std::collections::BTreeSet;

/// How long clients may keep names, in seconds.
const NAMES_AGE: u32 = 300;
/// Names are kept by clients from this number on, so that people who start
/// see their first services at once.
const NAMES_CACHED_ABOVE: usize = 3;
/// Most names of one list.
const NAMES: usize = 10_000;

/// Path without the prefix under which the UI mounts everything again.
fn bare(path: &str) -> &str {
    path.strip_prefix("/zipkin").filter(|rest| rest.starts_with('/')).unwrap_or(path)
}

pub(crate) fn owns(method: &Method, path: &str) -> bool {
    let path_only = bare(path);
    if path_only.starts_with("/api/v2/") || path_only == "/api/v2" {
        // Spans are posted to the collector.
        return path_only != "/api/v2/spans" || matches!(*method, Method::GET | Method::HEAD);
    }
    matches!(path, "/" | "/zipkin" | "/zipkin/")
        || matches!(path_only, "/health" | "/actuator/health" | "/info" | "/actuator/info" | "/config.json")
}

pub(crate) async fn answer(api: &Api, call: &Call<'_>) -> Reply {
    match route(api, call).await {
        Ok(reply) => reply,
        Err(problem) => problem.text(),
    }
}

async fn route(api: &Api, call: &Call<'_>) -> Result<Reply, Problem> {
    call.get()?;
    match call.path {
        "/" | "/zipkin" => return Ok(Reply::redirect("/zipkin/")),
        _ => {}
    }
    let path = bare(call.path);
    if let Some(id) = path.strip_prefix("/api/v2/trace/").filter(|id| !id.is_empty() && !id.contains('/')) {
        return trace(api, id).await;
    }
    match path {
        "/api/v2/services" => names(api, |store| Ok(lower(store.services()?))).await,
        "/api/v2/spans" => {
            let service = zipkin::required(&call.params, "serviceName")?.to_owned();
            names(api, move |store| {
                if service.is_empty() {
                    return Ok(BTreeSet::new());
                }
                let mut found = Vec::new();
                for name in same_name(store, &service)? {
                    found.extend(store.operations(&name)?.into_iter().map(|o| o.name));
                }
                Ok(lower(found))
            })
            .await
        }
        "/api/v2/remoteServices" => {
            let name = zipkin::required(&call.params, "serviceName")?.to_owned();
            names(api, move |store| remote_services(store, name)).await
        }
        "/api/v2/traces" => traces(api, call).await,
        "/api/v2/traceMany" => many(api, call).await,
        "/api/v2/dependencies" => {
            let range = zipkin::dependencies(&call.params, api.config().zipkin_lookback)?;
            let found = api.ask(move |store, _| Ok(store.dependencies(range)?)).await?;
            Ok(Reply::json(links(&found).to_string()))
        }
        "/api/v2/autocompleteKeys" => {
            Ok(Reply::json(json!(api.config().zipkin_autocomplete).to_string()).cached(NAMES_AGE))
        }
        "/api/v2/autocompleteValues" => {
            let key = zipkin::required(&call.params, "key")?.to_owned();
            if key.is_empty() {
                return Err(Problem::Invalid("key was empty".into()));
            }
            if !api.config().zipkin_autocomplete.contains(&key) {
                return Ok(Reply::json("[]"));
            }
            names(api, move |store| Ok(store.attribute_values(&key, NAMES)?.into_iter().collect())).await
        }
        "/config.json" => Ok(Reply::json(ui_settings(api).to_string()).cached(600)),
        "/health" | "/actuator/health" => Ok(health(api).await),
        "/info" | "/actuator/info" => {
            let version = api.config().version.as_str();
            Ok(Reply::json(json!({"zipkin": {"version": version, "commit": "spanloom"}}).to_string()))
        }
        _ => Err(Problem::NotFound(format!("there is no {}", call.path))),
    }
}

/// Zipkin's names are in lower case.
fn lower(names: Vec<String>) -> BTreeSet<String> {
    names.into_iter().filter(|n| !n.is_empty()).map(|n| n.to_lowercase()).collect()
}

/// The services that Zipkin knows under one name.
fn same_name(store: &dyn SpanReader, name: &str) -> Result<Vec<String>, Problem> {
    let mut services = store.services()?;
    services.retain(|s| s.to_lowercase() == name.to_lowercase());
    Ok(services)
}

fn remote_services(store: &dyn SpanReader, name: String) -> Result<BTreeSet<String>, Problem> {
    if name.is_empty() {
        return Ok(BTreeSet::new());
    }
    let of_service = Expr::Is(Cond::Service { name, fold: true });
    let mut found = Vec::new();
    for (key, spans) in zipkin::remote_service_keys() {
        let on = Expr::And(vec![of_service.clone(), spans]);
        found.extend(store.attribute_values_where(key, &on, NAMES)?);
    }
    Ok(lower(found))
}

async fn names(
    api: &Api,
    list: impl FnOnce(&dyn SpanReader) -> Result<BTreeSet<String>, Problem> + Send + 'static,
) -> Result<Reply, Problem> {
    let names = api.ask(move |store, _| list(store)).await?;
    let reply = Reply::json(json!(names).to_string());
    Ok(if names.len() > NAMES_CACHED_ABOVE { reply.cached(NAMES_AGE) } else { reply })
}

async fn trace(api: &Api, id: &str) -> Result<Reply, Problem> {
    let id = zipkin::parse_trace_id(Params::unescape_path(id).trim())?;
    let body = api
        .ask(move |store, config| {
            let text = spanloom_codec::jaeger_ui::trace_id_text(id);
            let found = store.trace(id, TimeRange::ALL)?;
            let found = found.ok_or_else(|| Problem::NotFound(format!("{text} not found")))?;
            let mut out = Vec::new();
            encode_json_v2(&found, &mut out);
            config.check(&out)?;
            Ok(out)
        })
        .await?;
    Ok(Reply::json(body))
}

async fn traces(api: &Api, call: &Call<'_>) -> Result<Reply, Problem> {
    let mut search = zipkin::search(&call.params, api.now(), api.config().zipkin_lookback)?;
    search.limit = search.limit.min(api.config().max_traces);
    let body = api
        .ask(move |store, config| {
            let mut out = vec![b'['];
            for found in store.search(&search)? {
                add(store, found.trace_id, &mut out)?;
                config.check(&out)?;
            }
            out.push(b']');
            Ok(out)
        })
        .await?;
    Ok(Reply::json(body))
}

async fn many(api: &Api, call: &Call<'_>) -> Result<Reply, Problem> {
    let ids = zipkin::trace_ids(&call.params)?;
    let body = api
        .ask(move |store, config| {
            let mut out = vec![b'['];
            for id in ids {
                add(store, id, &mut out)?;
                config.check(&out)?;
            }
            out.push(b']');
            Ok(out)
        })
        .await?;
    Ok(Reply::json(body))
}

/// Appends a trace to a list of traces, if it is there.
fn add(store: &dyn SpanReader, id: spanloom_model::TraceId, out: &mut Vec<u8>) -> Result<(), Problem> {
    if let Some(trace) = store.trace(id, TimeRange::ALL)? {
        if out.len() > 1 {
            out.push(b',');
        }
        encode_json_v2(&trace, out);
    }
    Ok(())
}

fn links(found: &[spanloom_model::Dependency]) -> Json {
    dependencies::zipkin(found)
        .into_iter()
        .map(|d| {
            let mut link = json!({"parent": d.parent, "child": d.child, "callCount": d.calls});
            if d.errors > 0 {
                link["errorCount"] = d.errors.into();
            }
            link
        })
        .collect()
}

fn ui_settings(api: &Api) -> Json {
    json!({
        "environment": "", "queryLimit": 10, "defaultLookback": 900_000, "searchEnabled": true,
        "logsUrl": null, "supportUrl": null, "archivePostUrl": null, "archiveUrl": null,
        "dependency": {"enabled": true, "lowErrorRate": 0.5, "highErrorRate": 0.75},
        "version": api.config().version,
    })
}

async fn health(api: &Api) -> Reply {
    let asked = api.ask(|store, _| Ok(store.services()?)).await;
    let (status, code) = match &asked {
        Ok(_) => ("UP", StatusCode::OK),
        Err(_) => ("DOWN", StatusCode::SERVICE_UNAVAILABLE),
    };
    let mut store = json!({"status": status});
    if let Err(problem) = asked {
        store["details"] = json!({"error": problem.message()});
    }
    let body =
        json!({"status": status, "zipkin": {"status": status, "details": {"SpanloomStorage{}": store}}});
    Reply::json(body.to_string()).status(code)
}
