//! Health, readiness, metrics and status, on an address of their own.

use crate::report::Report;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use spanloom_receivers::{Answer, AnswerBody, Handler, HandlerFuture, Request};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Answers the admin address.
pub struct Admin {
    /// All listeners are up and nothing is draining.
    pub ready: Arc<AtomicBool>,
    /// Reads all counters.
    pub report: Box<dyn Fn() -> Report + Send + Sync>,
}

impl Handler for Admin {
    fn handle<'a>(&'a self, request: &'a mut Request) -> HandlerFuture<'a> {
        let answer = match request.head.uri.path() {
            "/healthz" => text(StatusCode::OK, "ok\n".into()),
            "/readyz" if self.ready.load(Ordering::Acquire) => text(StatusCode::OK, "ready\n".into()),
            "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "not ready: starting or stopping\n".into()),
            "/metrics" => {
                let mut answer = text(StatusCode::OK, (self.report)().metrics());
                let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                answer.headers_mut().insert(header::CONTENT_TYPE, kind);
                answer
            }
            "/status" => {
                let mut answer = text(StatusCode::OK, (self.report)().json().to_string() + "\n");
                answer
                    .headers_mut()
                    .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                answer
            }
            _ => text(StatusCode::NOT_FOUND, "here are /healthz, /readyz, /metrics and /status\n".into()),
        };
        Box::pin(std::future::ready(answer))
    }
}

fn text(status: StatusCode, body: String) -> Answer {
    let mut answer = Response::new(AnswerBody::Full(Full::new(body.into())));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
