//! OTLP over HTTP: statuses as in the specification, texts as the Collector's
//! (opentelemetry-collector:receiver/otlpreceiver/otlphttp.go).

use super::{Config, response};
use crate::answer::{self, Answer};
use crate::body::Compression;
use crate::grpc::{Code, Status};
use crate::intake::{Failure, Gate, Taken};
use crate::media::media_type;
use crate::server::{Handler, HandlerFuture, Request, ServerConfig};
use http::header::{ACCEPT_ENCODING, ALLOW, HeaderValue, RETRY_AFTER};
use http::{Method, StatusCode};
use serde_json::json;
use spanloom_codec::otlp::{decode_json, decode_proto};
use spanloom_model::Protocol;
use spanloom_pipeline::{Inlet, PayloadOutcome};

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain");

/// Answers OTLP over HTTP.
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
        if let Some(answer) = self.config.cors.preflight(request) {
            return answer;
        }
        let mut answer = self.export(request).await;
        self.config.cors.mark(request, &mut answer);
        answer
    }

    async fn export(&self, request: &mut Request) -> Answer {
        if request.head.uri.path() != "/v1/traces" {
            return answer::not_found();
        }
        if request.head.method != Method::POST {
            let text = "405 method not allowed, supported: [POST]";
            let mut answer = answer::typed(StatusCode::METHOD_NOT_ALLOWED, PLAIN, text);
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return answer;
        }
        let protocol = match media_type(request.header("content-type")).as_deref() {
            Some("application/x-protobuf") => Protocol::OtlpProto,
            Some("application/json") => Protocol::OtlpJson,
            _ => {
                self.gate.count(Protocol::OtlpProto).end(PayloadOutcome::Rejected, "unsupported_media_type");
                let text =
                    "415 unsupported media type, supported: [application/json, application/x-protobuf]";
                return answer::typed(StatusCode::UNSUPPORTED_MEDIA_TYPE, PLAIN, text);
            }
        };
        let coding = request.header("content-encoding").to_owned();
        let Some(compression) = Compression::parse(&coding) else {
            self.gate.count(protocol).end(PayloadOutcome::Rejected, "unsupported_encoding");
            let status =
                Status::new(Code::InvalidArgument, format!("unsupported Content-Encoding: {coding}"));
            let mut answer = told(StatusCode::BAD_REQUEST, protocol, &status);
            answer.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate, zstd"));
            return answer;
        };
        let decode = if protocol == Protocol::OtlpJson { decode_json } else { decode_proto };
        match self.gate.take(request, protocol, compression, decode).await {
            Ok(taken) => success(protocol, &taken),
            Err(failure) => self.failure(protocol, &failure),
        }
    }

    fn failure(&self, protocol: Protocol, failure: &Failure) -> Answer {
        let retry = self.config.retry_after;
        let http = match failure {
            Failure::Overload(_) => StatusCode::TOO_MANY_REQUESTS,
            Failure::Unavailable(_) | Failure::Unacknowledged => StatusCode::SERVICE_UNAVAILABLE,
            Failure::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Failure::Slow => StatusCode::REQUEST_TIMEOUT,
            Failure::Ended | Failure::Damaged(_) | Failure::Decode(_) => StatusCode::BAD_REQUEST,
            Failure::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let status = Status::of(failure, retry);
        let again = status.retry.is_some();
        let mut answer = told(http, protocol, &status);
        if again {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry.as_secs().max(1)));
        }
        answer
    }
}

fn success(protocol: Protocol, taken: &Taken) -> Answer {
    if protocol == Protocol::OtlpProto {
        return answer::typed(StatusCode::OK, PROTOBUF, response(taken));
    }
    let body = if taken.rejected == 0 {
        json!({})
    } else {
        // 64-bit integers are text in proto3's JSON.
        let rejected = taken.rejected.to_string();
        json!({ "partialSuccess": { "rejectedSpans": rejected, "errorMessage": taken.message } })
    };
    answer::typed(StatusCode::OK, answer::JSON, body.to_string())
}

/// `google.rpc.Status` in the encoding of the request.
fn told(http: StatusCode, protocol: Protocol, status: &Status) -> Answer {
    if protocol == Protocol::OtlpProto {
        return answer::typed(http, PROTOBUF, status.encode());
    }
    let mut body = json!({ "code": status.code as u16, "message": status.message });
    if let Some(retry) = status.retry {
        let delay = format!("{}s", retry.as_secs_f64());
        body["details"] =
            json!([{ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay }]);
    }
    answer::typed(http, answer::JSON, body.to_string())
}

impl Handler for HttpReceiver {
    fn handle<'a>(&'a self, request: &'a mut Request) -> HandlerFuture<'a> {
        Box::pin(self.answer(request))
    }
}
