//! Remote sampling: at what rate a service should sample, for Jaeger's clients
//! and the `jaegerremote` samplers of OpenTelemetry.

use crate::answer::{self, Answer};
use crate::server::{Handler, HandlerFuture, Request, ServerConfig};
use http::header::{ALLOW, HeaderValue};
use http::{Method, StatusCode};
use spanloom_pipeline::Rates;

/// Answers every path of port 5778, from our own rates.
pub struct SamplingHandler {
    rates: Rates,
    env: String,
}

impl SamplingHandler {
    /// Clients do not say their environment: `env` is the one they are taken
    /// to be in.
    pub fn new(rates: Rates, env: &str) -> Self {
        Self { rates, env: env.to_owned() }
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
        let rate = self.rates.of(&service, &self.env);
        let body = format!(
            "{{\"strategyType\":\"PROBABILISTIC\",\"probabilisticSampling\":{{\"samplingRate\":{}}}}}",
            number(rate)
        );
        answer::typed(StatusCode::OK, answer::JSON, body)
    }
}

/// Shortest notation; exponents below 1e-6, as Go writes them.
fn number(rate: f64) -> String {
    if rate != 0.0 && rate < 1e-6 { format!("{rate:e}") } else { rate.to_string() }
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
        assert_eq!(number(1.0), "1");
        assert_eq!(number(1.2e-7), "1.2e-7");
    }
}
