//! OTLP, traces signal (opentelemetry-proto:docs/specification.md).
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | [`Config`]; [`HttpReceiver`], [`GrpcReceiver`] |
//! | `http.rs` | `POST /v1/traces`, protobuf and JSON |

mod http;

pub use http::HttpReceiver;

use crate::answer::Answer;
use crate::cors::Cors;
use crate::grpc;
use crate::intake::{Gate, Taken};
use crate::server::{Handler, HandlerFuture, Request, ServerConfig};
use spanloom_codec::otlp;
use spanloom_codec::protobuf::Writer;
use spanloom_model::Protocol;
use spanloom_pipeline::Inlet;
use std::time::Duration;

/// Settings of the OTLP receivers.
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
    /// Which pages may send (HTTP only).
    pub cors: Cors,
}

impl Default for Config {
    /// 64 MiB, as the specification recommends; 1 s, 30 s, 10 min; 1,000
    /// connections; 1 s; no page.
    fn default() -> Self {
        Self {
            max_body: 64 << 20,
            wait: Duration::from_secs(1),
            read_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(600),
            max_connections: 1000,
            retry_after: Duration::from_secs(1),
            cors: Cors::default(),
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

/// `ExportTraceServiceResponse` in protobuf.
fn response(taken: &Taken) -> Vec<u8> {
    let mut out = Vec::new();
    if taken.rejected > 0 {
        let mut w = Writer::new(&mut out);
        let partial = w.open(1);
        w.varint(1, taken.rejected);
        w.bytes(2, taken.message.as_bytes());
        w.close(partial);
    }
    out
}

/// Answers OTLP over gRPC.
pub struct GrpcReceiver {
    config: Config,
    gate: Gate,
}

impl GrpcReceiver {
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
        if let Some(answer) = grpc::aside(request) {
            return answer;
        }
        if request.head.uri.path() != "/opentelemetry.proto.collector.trace.v1.TraceService/Export" {
            return grpc::unknown(request);
        }
        let (protocol, retry) = (Protocol::OtlpGrpc, self.config.retry_after);
        match grpc::take(&self.gate, request, protocol, retry, otlp::decode_proto).await {
            Ok(taken) => grpc::reply(&response(&taken)),
            Err(answer) => answer,
        }
    }
}

impl Handler for GrpcReceiver {
    fn handle<'a>(&'a self, request: &'a mut Request) -> HandlerFuture<'a> {
        Box::pin(self.answer(request))
    }
}
