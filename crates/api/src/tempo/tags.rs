//! Names of tags and their values, for completion.

use super::search::each_trace;
use super::{positive, window};
use crate::reply::Reply;
use crate::route::Call;
use crate::{Api, Problem};
use serde_json::{Value as Json, json};
use spanloom_model::{SpanReader, TimeRange, keys};
use spanloom_query::Params;
use spanloom_query::traceql::{Field, Intrinsic, Query, Scope, Val, View, tag};
use std::collections::{BTreeMap, BTreeSet};

/// Traces looked at for the types of values and for names that the store has
/// no list of: the newest ones.
const SAMPLE: usize = 200;
/// No further trace is looked at after so many spans.
const SAMPLE_SPANS: usize = 100_000;
/// Values of an answer, unless the client asks for fewer.
const VALUES: usize = 1_000;
const SCOPES: [&str; 6] = ["resource", "span", "event", "link", "instrumentation", "intrinsic"];

/// Names by scope.
type Names = BTreeMap<&'static str, BTreeSet<String>>;

async fn by_scope(api: &Api, call: &Call<'_>) -> Result<(Option<String>, Names), Problem> {
    let scope = call.params.get("scope").filter(|s| *s != "none").map(str::to_owned);
    if let Some(scope) = &scope
        && !SCOPES.contains(&scope.as_str())
    {
        return Err(Problem::Invalid(format!("invalid scope: {scope}; known are {}", SCOPES.join(", "))));
    }
    let window = window(&call.params)?;
    let query = narrowed(&call.params)?;
    let wanted = scope.clone();
    let names = api
        .ask(move |store, _| {
            let mut names = Names::new();
            for key in store.attribute_keys()? {
                names.entry(if key.resource { "resource" } else { "span" }).or_default().insert(key.key);
            }
            if !store.services()?.is_empty() {
                names.entry("resource").or_default().insert(keys::SERVICE_NAME.into());
            }
            if wanted.as_deref().is_none_or(|s| matches!(s, "event" | "link" | "instrumentation")) {
                newest(store, &query, window, |view| {
                    view.inner_keys(&mut |scope, key| {
                        names.entry(scope).or_default().insert(key.to_owned());
                    });
                    true
                })?;
            }
            // Numbers of a walk through the tree are nothing to search for.
            let offered = |name: &str| {
                !name.contains("nestedSet") && name != "rootService" && !name.ends_with("hildCount")
            };
            let intrinsics = Intrinsic::NAMES.iter().map(|(name, _)| *name).filter(|name| offered(name));
            names.insert("intrinsic", intrinsics.map(str::to_owned).collect());
            Ok(names)
        })
        .await?;
    Ok((scope, names))
}

/// Looks at some of the newest traces until `each` says no.
fn newest(
    store: &dyn SpanReader,
    query: &Query,
    window: TimeRange,
    mut each: impl FnMut(&View<'_>) -> bool,
) -> Result<(), Problem> {
    let mut spans = 0;
    each_trace(store, query, window, SAMPLE, |_, view| {
        spans += view.len();
        Ok(each(view) && spans < SAMPLE_SPANS)
    })?;
    Ok(())
}

/// `q` narrows the traces down that are looked at. People are still writing it,
/// so one that cannot be read narrows nothing.
fn narrowed(params: &Params) -> Result<Query, Problem> {
    match Query::parse(params.get("q").unwrap_or("{}")) {
        Ok(query) => Ok(query),
        Err(_) => Ok(Query::of_tags("", "", "")?),
    }
}

/// `GET /api/search/tags`: all names; intrinsics only if asked for.
pub(super) async fn names(api: &Api, call: &Call<'_>) -> Result<Reply, Problem> {
    let (scope, names) = by_scope(api, call).await?;
    let wanted = |s: &str| scope.as_deref().map_or(s != "intrinsic", |wanted| wanted == s);
    let all: BTreeSet<&String> = names.iter().filter(|(s, _)| wanted(s)).flat_map(|(_, n)| n).collect();
    Ok(Reply::json(json!({"tagNames": all, "metrics": {}}).to_string()))
}

/// `GET /api/v2/search/tags`: names by scope.
pub(super) async fn scopes(api: &Api, call: &Call<'_>) -> Result<Reply, Problem> {
    let (scope, names) = by_scope(api, call).await?;
    let wanted = |s: &&str| scope.as_deref().is_none_or(|wanted| wanted == *s);
    let list: Vec<Json> = SCOPES
        .into_iter()
        .filter(wanted)
        .filter_map(|s| names.get(s).map(|tags| json!({"name": s, "tags": tags})))
        .collect();
    Ok(Reply::json(json!({"scopes": list, "metrics": {}}).to_string()))
}

/// `GET /api/search/tag/{name}/values`: texts.
pub(super) async fn values(api: &Api, call: &Call<'_>, name: &str) -> Result<Reply, Problem> {
    let found: BTreeSet<String> =
        collect(api, call, name).await?.into_iter().map(|(_, value)| value).collect();
    Ok(Reply::json(json!({"tagValues": found, "metrics": {}}).to_string()))
}

/// `GET /api/v2/search/tag/{name}/values`: values with their types, by which
/// Grafana knows how to write them in a query.
pub(super) async fn typed_values(api: &Api, call: &Call<'_>, name: &str) -> Result<Reply, Problem> {
    let found = collect(api, call, name).await?;
    let list: Vec<Json> = found.iter().map(|(kind, value)| json!({"type": kind, "value": value})).collect();
    Ok(Reply::json(json!({"tagValues": list, "metrics": {}}).to_string()))
}

type Typed = BTreeSet<(&'static str, String)>;

async fn collect(api: &Api, call: &Call<'_>, name: &str) -> Result<Typed, Problem> {
    let field = tag(&Params::unescape_path(name));
    let limit = positive(&call.params, "limit", VALUES)?.min(VALUES);
    let window = window(&call.params)?;
    let query = narrowed(&call.params)?;
    api.ask(move |store, _| {
        Ok(of_field(store, &field, &query, window, limit)?.into_iter().take(limit).collect())
    })
    .await
}

fn of_field(
    store: &dyn SpanReader,
    field: &Field,
    query: &Query,
    window: TimeRange,
    limit: usize,
) -> Result<Typed, Problem> {
    let texts = |names: Vec<String>| names.into_iter().map(|n| ("string", n)).collect();
    let keywords = |names: &[&str]| names.iter().map(|n| ("keyword", (*n).to_owned())).collect();
    let narrowed = !query.mentioned().is_empty();
    match field {
        Field::Intrinsic(Intrinsic::Status) => return Ok(keywords(&["error", "ok", "unset"])),
        Field::Intrinsic(Intrinsic::Kind) => {
            return Ok(keywords(&["client", "consumer", "internal", "producer", "server", "unspecified"]));
        }
        Field::Intrinsic(Intrinsic::RootServiceName) if !narrowed => return Ok(texts(store.services()?)),
        Field::Attr(Scope::Any | Scope::Resource, key) if key == keys::SERVICE_NAME && !narrowed => {
            return Ok(texts(store.services()?));
        }
        Field::Intrinsic(Intrinsic::Name | Intrinsic::RootName) if !narrowed => {
            return Ok(texts(store.operations("")?.into_iter().map(|o| o.name).collect()));
        }
        // As many values as spans: nobody picks one from a list.
        Field::Intrinsic(
            Intrinsic::SpanId
            | Intrinsic::ParentId
            | Intrinsic::TraceId
            | Intrinsic::LinkSpanId
            | Intrinsic::LinkTraceId
            | Intrinsic::Duration
            | Intrinsic::TraceDuration
            | Intrinsic::EventTimeSinceStart,
        ) => return Ok(Typed::new()),
        _ => {}
    }
    let mut found = Typed::new();
    newest(store, query, window, |view| {
        sample(view, field, query, &mut found);
        found.len() < limit
    })?;
    if let (Field::Attr(scope @ (Scope::Any | Scope::Span | Scope::Resource), key), false) = (field, narrowed)
    {
        older(store, *scope, key, limit, &mut found)?;
    }
    Ok(found)
}

/// A value as a query would have it: a float stays one.
fn written(kind: &str, text: String) -> String {
    let whole = kind == "float" && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    if whole { text + ".0" } else { text }
}

fn sample(view: &View<'_>, field: &Field, query: &Query, found: &mut Typed) {
    for at in query.find(view).into_iter().flat_map(|g| g.spans) {
        view.each(at, field, &mut |value| {
            let kind = match value {
                Val::Nil => return false,
                Val::Int(_) => "int",
                Val::Float(_) => "float",
                Val::Duration(_) => "duration",
                Val::Bool(_) => "bool",
                Val::Str(_) => "string",
                Val::Status(_) | Val::Kind(_) => "keyword",
            };
            found.insert((kind, written(kind, value.text())));
            false
        });
    }
}

/// Adds the values that the store lists for a key, which have no types there:
/// they get the one type that the newest ones have.
fn older(
    store: &dyn SpanReader,
    scope: Scope,
    key: &str,
    limit: usize,
    found: &mut Typed,
) -> Result<(), Problem> {
    let kinds: BTreeSet<&'static str> = found.iter().map(|(kind, _)| *kind).collect();
    let known = store.attribute_keys()?;
    // A list of both scopes would offer values that the other one has.
    let other = |resource| known.iter().any(|k| k.key == key && k.resource == resource);
    let mixed = match scope {
        Scope::Span => other(true),
        Scope::Resource => other(false),
        _ => false,
    };
    if let (1, false, Some(kind)) = (kinds.len(), mixed, kinds.first()) {
        found.extend(store.attribute_values(key, limit)?.into_iter().map(|v| (*kind, written(kind, v))));
    }
    Ok(())
}
