//! Health, readiness, metrics and status, on an address of their own; and what
//! became of a trace, which an agent has no other address for.

use super::statistics::Statistics;
use super::why::Why;
use crate::report::Report;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::json;
use spanloom_api::{Problem, RedQuestion};
use spanloom_model::TraceId;
use spanloom_query::Params;
use spanloom_receivers::{Answer, AnswerBody, Handler, HandlerFuture, Request};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Answers the admin address.
pub struct Admin {
    /// All listeners are up and nothing is draining.
    pub ready: Arc<AtomicBool>,
    /// Reads all counters.
    pub report: Box<dyn Fn() -> Report + Send + Sync>,
    /// Knows what became of traces.
    pub why: Arc<Why>,
    /// Knows requests, errors and latencies.
    pub statistics: Arc<Statistics>,
}

/// Paths of our own API that are answered here, too.
const OWN: &str = "/api/spanloom/v1/";

impl Handler for Admin {
    fn handle<'a>(&'a self, request: &'a mut Request) -> HandlerFuture<'a> {
        let path = request.head.uri.path();
        if let Some(own) = path.strip_prefix(OWN) {
            let params = Params::parse(request.head.uri.query().unwrap_or_default());
            return Box::pin(self.own(request.head.method.clone(), own.to_owned(), params));
        }
        let answer = match path {
            "/healthz" => text(StatusCode::OK, "ok\n".into()),
            "/readyz" if self.ready.load(Ordering::Acquire) => text(StatusCode::OK, "ready\n".into()),
            "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "not ready: starting or stopping\n".into()),
            "/metrics" => {
                let mut answer = text(StatusCode::OK, (self.report)().metrics());
                let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                answer.headers_mut().insert(header::CONTENT_TYPE, kind);
                answer
            }
            "/status" => document(StatusCode::OK, &(self.report)().json()),
            _ => text(StatusCode::NOT_FOUND, "here are /healthz, /readyz, /metrics and /status\n".into()),
        };
        Box::pin(std::future::ready(answer))
    }
}

impl Admin {
    async fn own(&self, method: Method, path: String, params: Params) -> Answer {
        if path == "red" && method == Method::GET {
            return self.red(&params).await;
        }
        let parts: Vec<&str> = path.split('/').collect();
        let (id, keep) = match (&method, parts.as_slice()) {
            (&Method::GET, ["why", id]) => (id, false),
            (&Method::POST, ["traces", id, "keep"]) => (id, true),
            _ => {
                let known = "here are GET red, GET why/ID and POST traces/ID/keep";
                return problem(&Problem::NotFound(known.into()));
            }
        };
        let Ok(id) = TraceId::parse_hex(id) else {
            return problem(&Problem::Invalid(format!("`{id}` is no trace id in hexadecimal")));
        };
        let why = Arc::clone(&self.why);
        // Reads files.
        let asked = move || if keep { why.keep(id) } else { Some(Ok(why.tell(id))) };
        match tokio::task::spawn_blocking(asked).await {
            Ok(Some(Ok(told))) => document(StatusCode::OK, &told),
            Ok(Some(Err(e))) => problem(&e),
            Ok(None) => problem(&Problem::Unsupported("this process keeps no traces".into())),
            Err(e) => problem(&Problem::Store(e.to_string())),
        }
    }
}

impl Admin {
    async fn red(&self, params: &Params) -> Answer {
        let statistics = Arc::clone(&self.statistics);
        let question = match RedQuestion::parse(params, statistics.clock.now()) {
            Ok(question) => question,
            Err(e) => return problem(&e),
        };
        // Adds up a day of minutes.
        let asked = move || question.show(&question.ask(|filter| statistics.red(filter)));
        match tokio::task::spawn_blocking(asked).await {
            Ok(told) => document(StatusCode::OK, &told),
            Err(e) => problem(&Problem::Store(e.to_string())),
        }
    }
}

fn problem(problem: &Problem) -> Answer {
    let status = problem.status();
    document(status, &json!({"error": {"status": status.as_u16(), "message": problem.message()}}))
}

fn document(status: StatusCode, json: &serde_json::Value) -> Answer {
    let mut answer = text(status, format!("{json}\n"));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn text(status: StatusCode, body: String) -> Answer {
    let mut answer = Response::new(AnswerBody::Full(Full::new(body.into())));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
