//! Remote sampling: at what rate a service should sample, for Jaeger's clients
//! and the `jaegerremote` samplers of OpenTelemetry.

use super::Config;
use crate::answer::{self, Answer};
use crate::grpc::{self, Code, Status};
use crate::server::{Handler, HandlerFuture, Request, ServerConfig};
use http::header::{ALLOW, HeaderValue};
use http::{Method, StatusCode};
use spanloom_codec::jaeger::{decode_sampling_question, encode_sampling_json, encode_sampling_proto};
use spanloom_pipeline::{Inlet, Rates};

/// The one method.
pub(super) const METHOD: &str = "/jaeger.api_v2.SamplingManager/GetSamplingStrategy";

/// What services are told: our own rates, for one environment.
#[derive(Clone)]
pub struct Sampling {
    rates: Rates,
    env: String,
}

impl Sampling {
    /// Clients do not say their environment: `env` is the one they are taken
    /// to be in.
    pub fn new(rates: Rates, env: &str) -> Self {
        Self { rates, env: env.to_owned() }
    }

    fn of(&self, service: &str) -> f64 {
        self.rates.of(service, &self.env)
    }

    /// The answer to a call of [`METHOD`].
    pub(super) async fn call(&self, config: &Config, inlet: &Inlet, request: &mut Request) -> Answer {
        match grpc::question(inlet, request, config.wait, config.retry_after).await {
            Ok(received) => match decode_sampling_question(&received.bytes) {
                Ok(service) => grpc::reply(&encode_sampling_proto(self.of(&service))),
                Err(error) => Status::new(Code::InvalidArgument, error.to_string()).answer(),
            },
            Err(answer) => answer,
        }
    }
}

/// Answers `jaeger.api_v2.SamplingManager/GetSamplingStrategy` (port 5779).
pub struct SamplingGrpcHandler {
    config: Config,
    inlet: Inlet,
    sampling: Sampling,
}

impl SamplingGrpcHandler {
    /// `inlet` pays for the questions while they are read.
    pub fn new(config: Config, inlet: Inlet, sampling: Sampling) -> Self {
        Self { config, inlet, sampling }
    }

    /// Bounds for its listeners.
    pub fn server_config(&self) -> ServerConfig {
        self.config.server()
    }

    async fn answer(&self, request: &mut Request) -> Answer {
        if let Some(answer) = grpc::aside(request) {
            return answer;
        }
        if request.head.uri.path() != METHOD {
            return grpc::unknown(request);
        }
        self.sampling.call(&self.config, &self.inlet, request).await
    }
}

impl Handler for SamplingGrpcHandler {
    fn handle<'a>(&'a self, request: &'a mut Request) -> HandlerFuture<'a> {
        Box::pin(self.answer(request))
    }
}

/// Answers every path of port 5778, as Jaeger does since version 2; before, `/`
/// had numbers in place of the enum's names.
pub struct SamplingHandler(Sampling);

impl SamplingHandler {
    /// Tells these rates.
    pub fn new(sampling: Sampling) -> Self {
        Self(sampling)
    }

    /// Bounds for its listeners.
    pub fn server_config(&self) -> ServerConfig {
        ServerConfig { max_connections: 256, ..ServerConfig::default() }
    }

    fn answer(&self, request: &Request) -> Answer {
        if request.head.method != Method::GET && request.head.method != Method::HEAD {
            let mut answer = answer::empty(StatusCode::METHOD_NOT_ALLOWED);
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        let query = request.head.uri.query().unwrap_or_default();
        let mut services =
            query.split('&').filter_map(|pair| match pair.split_once('=').unwrap_or((pair, "")) {
                (key, value) if unescape(key) == "service" => Some(unescape(value)),
                _ => None,
            });
        let (Some(service), None) = (services.next(), services.next()) else {
            return answer::error(StatusCode::BAD_REQUEST, "'service' parameter must be provided once");
        };
        answer::typed(StatusCode::OK, answer::JSON, encode_sampling_json(self.0.of(&service)))
    }
}

/// A part of a query: `+` and `%xx` undone.
fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(&b) = bytes.get(i) {
        i += 1;
        let hex = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
        match (b, hex(i), hex(i + 1)) {
            (b'+', ..) => out.push(b' '),
            (b'%', Some(high), Some(low)) => {
                out.push((high << 4 | low) as u8);
                i += 2;
            }
            _ => out.push(b),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl Handler for SamplingHandler {
    fn handle<'a>(&'a self, request: &'a mut Request) -> HandlerFuture<'a> {
        Box::pin(async move { self.answer(request) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_in_queries_are_undone() {
        assert_eq!(unescape("a+b%2Fc%zz%"), "a b/c%zz%");
    }
}
