//! Jaeger's collectors (contrib:receiver/jaegerreceiver/trace_receiver.go) and
//! its remote sampling (jaeger:internal/sampling/http/handler.go,
//! jaeger:cmd/jaeger/internal/extension/remotesampling/extension.go).
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | [`Config`], [`GrpcReceiver`] |
//! | `http.rs` | [`HttpReceiver`]: Thrift over HTTP |
//! | `udp.rs` | [`UdpReceiver`]: Thrift in datagrams |
//! | `sampling.rs` | [`SamplingHandler`], [`SamplingGrpcHandler`]: rates for clients that ask |

mod http;
mod sampling;
mod udp;

pub use http::HttpReceiver;
pub use sampling::{Sampling, SamplingGrpcHandler, SamplingHandler};
pub use udp::{UdpConfig, UdpReceiver};

use crate::answer::Answer;
use crate::grpc;
use crate::intake::Gate;
use crate::server::{Handler, HandlerFuture, Request, ServerConfig};
use spanloom_codec::jaeger;
use spanloom_model::Protocol;
use spanloom_pipeline::Inlet;
use std::time::Duration;

/// Settings of the Jaeger receivers over HTTP and gRPC.
#[derive(Clone, Debug)]
pub struct Config {
    /// Largest body or message in bytes, compressed and expanded. No more
    /// than half of the intake's memory.
    pub max_body: u64,
    /// How long a request may wait for memory and for a decoder.
    pub wait: Duration,
    /// A request must arrive within this.
    pub read_timeout: Duration,
    /// A connection without a request is closed after this.
    pub idle_timeout: Duration,
    /// Connections open at the same time.
    pub max_connections: usize,
    /// When a refused client may try again (`Retry-After`, RetryInfo).
    pub retry_after: Duration,
}

impl Default for Config {
    /// 32 MiB; 1 s, 30 s, 10 min; 1,000 connections; 1 s.
    fn default() -> Self {
        Self {
            max_body: 32 << 20,
            wait: Duration::from_secs(1),
            read_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(600),
            max_connections: 1000,
            retry_after: Duration::from_secs(1),
        }
    }
}

impl Config {
    fn server(&self) -> ServerConfig {
        ServerConfig {
            max_connections: self.max_connections,
            read_timeout: self.read_timeout,
            idle_timeout: self.idle_timeout,
            http2: true,
            ..ServerConfig::default()
        }
    }
}

/// Answers `jaeger.api_v2.CollectorService/PostSpans`, and what to sample:
/// collectors up to Jaeger 1 had both on one port.
pub struct GrpcReceiver {
    config: Config,
    gate: Gate,
    sampling: Sampling,
}

impl GrpcReceiver {
    /// A receiver that hands spans to `inlet`, and tells the rates of
    /// `sampling`.
    pub fn new(config: Config, inlet: Inlet, sampling: Sampling) -> Self {
        let gate = Gate::new(inlet, config.max_body, config.wait);
        Self { config, gate, sampling }
    }

    /// Bounds for its listeners.
    pub fn server_config(&self) -> ServerConfig {
        self.config.server()
    }

    async fn answer(&self, request: &mut Request) -> Answer {
        if let Some(answer) = grpc::aside(request) {
            return answer;
        }
        match request.head.uri.path() {
            "/jaeger.api_v2.CollectorService/PostSpans" => {}
            sampling::METHOD => return self.sampling.call(&self.config, &self.gate.inlet, request).await,
            _ => return grpc::unknown(request),
        }
        let (protocol, retry) = (Protocol::JaegerGrpc, self.config.retry_after);
        // The reply has no place for spans that were left out.
        match grpc::take(&self.gate, request, protocol, retry, jaeger::decode_grpc).await {
            Ok(_) => grpc::reply(&[]),
            Err(answer) => answer,
        }
    }
}

impl Handler for GrpcReceiver {
    fn handle<'a>(&'a self, request: &'a mut Request) -> HandlerFuture<'a> {
        Box::pin(self.answer(request))
    }
}
