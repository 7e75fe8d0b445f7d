//! Jaeger's Thrift over HTTP: one bare `Batch` in the binary encoding.

use super::Config;
use crate::answer::{self, Answer};
use crate::body::Compression;
use crate::intake::{Failure, Gate};
use crate::media::media_type;
use crate::server::{Handler, HandlerFuture, Request, ServerConfig};
use http::header::{ALLOW, HeaderValue, RETRY_AFTER};
use http::{Method, StatusCode};
use spanloom_codec::jaeger;
use spanloom_model::Protocol;
use spanloom_pipeline::{Inlet, PayloadOutcome};

/// Answers `POST /api/traces`.
pub struct HttpReceiver {
    config: Config,
    gate: Gate,
}

impl HttpReceiver {
    /// A receiver that hands spans to `inlet`.
    pub fn new(config: Config, inlet: Inlet) -> Self {
        let gate = Gate::new(inlet, config.max_body, config.wait);
        Self { config, gate }
    }

    /// Bounds for its listeners.
    pub fn server_config(&self) -> ServerConfig {
        self.config.server()
    }

    async fn answer(&self, request: &mut Request) -> Answer {
        let protocol = Protocol::JaegerThriftHttp;
        if request.head.uri.path() != "/api/traces" {
            return answer::not_found();
        }
        if request.head.method != Method::POST {
            let mut answer = answer::empty(StatusCode::METHOD_NOT_ALLOWED);
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return answer;
        }
        let content_type = request.header("content-type");
        let refusal = match media_type(content_type).as_deref() {
            Some("application/x-thrift" | "application/vnd.apache.thrift.binary") => None,
            Some(other) => Some(format!("Unsupported content type: {}", escape(other))),
            None if content_type.trim().is_empty() => {
                Some("Cannot parse content type: mime: no media type".into())
            }
            None => Some("Cannot parse content type: mime: invalid media parameter".into()),
        };
        if let Some(text) = refusal {
            self.gate.count(protocol).end(PayloadOutcome::Rejected, "unsupported_media_type");
            return answer::error(StatusCode::BAD_REQUEST, &text);
        }
        let coding = request.header("content-encoding").to_owned();
        let Some(compression) = Compression::parse(&coding) else {
            self.gate.count(protocol).end(PayloadOutcome::Rejected, "unsupported_encoding");
            let text = format!("unsupported Content-Encoding: {}", escape(&coding));
            return answer::error(StatusCode::BAD_REQUEST, &text);
        };
        match self.gate.take(request, protocol, compression, jaeger::decode_thrift_http).await {
            Ok(_) => answer::empty(StatusCode::ACCEPTED),
            Err(failure) => self.failure(&failure),
        }
    }

    fn failure(&self, failure: &Failure) -> Answer {
        let (status, before) = match failure {
            Failure::Overload(_) | Failure::Unavailable(_) | Failure::Unacknowledged => {
                (StatusCode::SERVICE_UNAVAILABLE, "Cannot submit Jaeger batch")
            }
            Failure::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "Cannot submit Jaeger batch"),
            Failure::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "Unable to process request body"),
            Failure::Slow => (StatusCode::REQUEST_TIMEOUT, "Unable to process request body"),
            Failure::Ended | Failure::Damaged(_) | Failure::Decode(_) => {
                (StatusCode::BAD_REQUEST, "Unable to process request body")
            }
        };
        let mut answer = answer::error(status, &format!("{before}: {}", escape(&failure.to_string())));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let seconds = HeaderValue::from(self.config.retry_after.as_secs().max(1));
            answer.headers_mut().insert(RETRY_AFTER, seconds);
        }
        answer
    }
}

/// Go's `html.EscapeString`, which the Collector puts its texts through.
fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('\'', "&#39;").replace('"', "&#34;")
}

impl Handler for HttpReceiver {
    fn handle<'a>(&'a self, request: &'a mut Request) -> HandlerFuture<'a> {
        Box::pin(self.answer(request))
    }
}
