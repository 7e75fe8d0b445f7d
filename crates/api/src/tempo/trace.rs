//! One trace by its id, as JSON or protobuf.

use crate::jaeger::near;
use crate::reply::Reply;
use crate::route::Call;
use crate::{Api, Problem};
use spanloom_codec::tempo;
use spanloom_model::{Batch, TraceId};
use spanloom_query::Params;

const PROTOBUF: &str = "application/protobuf";

async fn find(api: &Api, call: &Call<'_>, id: &str) -> Result<Option<Batch>, Problem> {
    let text = Params::unescape_path(id);
    let id = TraceId::parse_hex(&text).map_err(|e| Problem::Invalid(format!("invalid trace id: {e}")))?;
    let hint = super::window(&call.params)?;
    api.ask(move |store, _| near(store, id, hint)).await
}

/// `GET /api/traces/{id}`: a `Trace`; 404 without a body if it is not there.
pub(super) async fn first(api: &Api, call: &Call<'_>, id: &str) -> Result<Reply, Problem> {
    let Some(trace) = find(api, call, id).await? else { return Err(Problem::NotFound(String::new())) };
    let mut out = Vec::new();
    if call.accepts(PROTOBUF) {
        tempo::encode_trace(&trace, &mut out);
        api.config().check(&out)?;
        return Ok(Reply::protobuf(out));
    }
    out.extend_from_slice(b"{\"batches\":");
    tempo::encode_json(&trace, &mut out);
    out.push(b'}');
    api.config().check(&out)?;
    Ok(Reply::json(out))
}

/// `GET /api/v2/traces/{id}`: a `TraceByIDResponse`, whose trace is empty if it
/// is not there; Grafana asks the first API after a 404.
pub(super) async fn second(api: &Api, call: &Call<'_>, id: &str) -> Result<Reply, Problem> {
    if call.params.get("q").is_some() {
        return Err(Problem::Unsupported("a trace cannot be filtered by `q`; it is shown whole".into()));
    }
    let trace = find(api, call, id).await?.unwrap_or_default();
    let mut out = Vec::new();
    if call.accepts(PROTOBUF) {
        tempo::encode_trace_by_id(&trace, &mut out);
        api.config().check(&out)?;
        return Ok(Reply::protobuf(out));
    }
    out.extend_from_slice(b"{\"trace\":{\"resourceSpans\":");
    tempo::encode_json(&trace, &mut out);
    out.extend_from_slice(b"},\"metrics\":{},\"status\":\"COMPLETE\"}");
    api.config().check(&out)?;
    Ok(Reply::json(out))
}
