//! Zipkin's collector: `POST /api/v2/spans` and `/api/v1/spans`
//! (zipkin:zipkin-server/.../ZipkinHttpCollector.java). Its port also has
//! Zipkin's query API, which is somebody else's: the fallback.

use crate::answer::{self, Answer};
use crate::body::Compression;
use crate::cors::Cors;
use crate::intake::{Failure, Gate};
use crate::media::media_type;
use crate::server::{Handler, HandlerFuture, Request, ServerConfig};
use http::header::{HeaderValue, RETRY_AFTER};
use http::{Method, StatusCode};
use spanloom_codec::otlp::Decoded;
use spanloom_codec::zipkin;
use spanloom_model::{Protocol, flags};
use spanloom_pipeline::Inlet;
use std::sync::Arc;
use std::time::Duration;

/// Settings of the Zipkin collector.
#[derive(Clone, Debug)]
pub struct Config {
    /// Largest body in bytes, expanded; 413 beyond. No more than half of the
    /// intake's memory.
    pub max_body: u64,
    /// How long a request may wait for memory and for a decoder.
    pub wait: Duration,
    /// A request must arrive within this.
    pub read_timeout: Duration,
    /// Connections open at the same time.
    pub max_connections: usize,
    /// `Retry-After` of refusals, whole seconds.
    pub retry_after: Duration,
    /// Pages that may send spans. Answers of the query API are not for them.
    pub cors: Cors,
}

impl Default for Config {
    /// 32 MiB, 1 s, 30 s, 1,000 connections, 1 s, every page (as Zipkin).
    fn default() -> Self {
        Self {
            max_body: 32 << 20,
            wait: Duration::from_secs(1),
            read_timeout: Duration::from_secs(30),
            max_connections: 1000,
            retry_after: Duration::from_secs(1),
            cors: Cors { origins: vec!["*".into()], ..Cors::default() },
        }
    }
}

/// Answers Zipkin's port.
pub struct Receiver {
    config: Config,
    gate: Gate,
    fallback: Option<Arc<dyn Handler>>,
}

impl Receiver {
    /// A collector that hands spans to `inlet`, and every other request to
    /// `fallback` (404 without one).
    pub fn new(config: Config, inlet: Inlet, fallback: Option<Arc<dyn Handler>>) -> Self {
        let gate = Gate::new(inlet, config.max_body, config.wait);
        Self { config, gate, fallback }
    }

    /// Bounds for its listeners.
    pub fn server_config(&self) -> ServerConfig {
        ServerConfig {
            max_connections: self.config.max_connections,
            read_timeout: self.config.read_timeout,
            http2: true,
            ..ServerConfig::default()
        }
    }

    async fn answer(&self, request: &mut Request) -> Answer {
        let version = match request.head.uri.path() {
            "/api/v2/spans" => Some(2),
            "/api/v1/spans" => Some(1),
            _ => None,
        };
        if let Some(version) = version {
            if request.head.method == Method::POST {
                let mut answer = self.take(request, version).await;
                self.config.cors.mark(request, &mut answer);
                return answer;
            }
            if let Some(answer) = self.config.cors.preflight(request) {
                return answer;
            }
        }
        match &self.fallback {
            Some(fallback) => fallback.handle(request).await,
            None => answer::not_found(),
        }
    }

    async fn take(&self, request: &mut Request, version: u8) -> Answer {
        let protocol = protocol(version, request.header("content-type"));
        // Zipkin looks for the word, wherever it stands.
        let coding = request.header("content-encoding").to_ascii_lowercase();
        let gzip = coding.contains("gzip");
        let compression = if gzip { Some(Compression::Gzip) } else { Compression::parse(&coding) };
        // A coding that we do not know: as Zipkin, read it as it is.
        let compression = compression.unwrap_or_default();
        // Nothing is nothing, whatever it is said to be packed in.
        let compression = if request.length() == Some(0) { Compression::default() } else { compression };
        let debug = protocol == Protocol::ZipkinProto && request.header("x-b3-flags") == "1";
        let decode = move |body, intake| {
            let mut batch = match protocol {
                Protocol::ZipkinProto => zipkin::decode_proto(body, intake)?,
                Protocol::ZipkinThrift => zipkin::decode_thrift(body, intake)?,
                Protocol::ZipkinJsonV1 => zipkin::decode_json_v1(body, intake)?,
                _ => zipkin::decode_json_v2(body, intake)?,
            };
            if debug {
                batch.spans.iter_mut().for_each(|span| span.flags |= flags::DEBUG);
            }
            Ok(Decoded { batch, ..Decoded::default() })
        };
        match self.gate.take(request, protocol, compression, decode).await {
            Ok(_) => answer::empty(StatusCode::ACCEPTED),
            Err(failure) => self.failure(&failure, gzip),
        }
    }

    fn failure(&self, failure: &Failure, gzip: bool) -> Answer {
        let status = match failure {
            Failure::Overload(_) | Failure::Unavailable(_) | Failure::Unacknowledged => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Failure::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Failure::Slow => StatusCode::REQUEST_TIMEOUT,
            Failure::Ended | Failure::Damaged(_) | Failure::Decode(_) => StatusCode::BAD_REQUEST,
            Failure::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let text = match failure {
            Failure::Damaged(_) if gzip => "Cannot gunzip spans".into(),
            _ => failure.to_string(),
        };
        let mut answer = answer::typed(status, answer::TEXT, text);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let seconds = HeaderValue::from(self.config.retry_after.as_secs().max(1));
            answer.headers_mut().insert(RETRY_AFTER, seconds);
        }
        answer
    }
}

/// The format of a body. What is not named is JSON.
fn protocol(version: u8, content_type: &str) -> Protocol {
    let kind = media_type(content_type);
    match (version, kind.as_deref()) {
        (2, Some("application/x-protobuf")) => Protocol::ZipkinProto,
        (2, _) => Protocol::ZipkinJsonV2,
        (_, Some("application/x-thrift")) => Protocol::ZipkinThrift,
        _ => Protocol::ZipkinJsonV1,
    }
}

impl Handler for Receiver {
    fn handle<'a>(&'a self, request: &'a mut Request) -> HandlerFuture<'a> {
        Box::pin(self.answer(request))
    }
}
