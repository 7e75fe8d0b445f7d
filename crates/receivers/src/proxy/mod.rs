//! What tracers send besides traces and statistics: profiles, telemetry,
//! events, debugger snapshots. With an API key it is passed on as the Agent
//! passes it on; without one it is accepted and counted, so that tracers stay
//! quiet and nothing leaves the machine.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | [`Proxy`]: which product does what |
//! | `config.rs` | [`ProxyConfig`]: settings with their `DD_*` names |
//! | `accept.rs` | without a key |
//! | `forward.rs` | what all forwarding has in common |
//! | `products.rs` | headers and targets of each product |
//! | `telemetry.rs` | answered first, forwarded after |
//! | `dogstatsd.rs` | metric lines to UDP |
//! | `client.rs` | [`HttpClient`]: requests going out |
//!
//! Bodies are read whole before they are forwarded (the Agent streams some),
//! so that memory is paid for and a broken upload never reaches the intake.

mod accept;
mod client;
mod config;
mod dogstatsd;
mod forward;
mod products;
mod telemetry;

pub use client::{ClientError, HttpClient, Outgoing, SendFuture};
pub use config::{Endpoint, ProxyConfig, Secret};
pub(crate) use forward::end_to_end;

use crate::answer::{self, Answer};
use crate::body::{self, BodyError, BodyLimits};
use crate::server::Request;
use bytes::Bytes;
use http::StatusCode;
use spanloom_pipeline::{Inlet, Permit};
use std::sync::Arc;
use std::time::Duration;

/// A product behind a proxy path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Product {
    Profiling,
    Telemetry,
    PipelineStats,
    OpenLineage,
    Evp,
    DebuggerLogs,
    DebuggerDiagnostics,
    /// `/debugger/v2/input`: goes where the diagnostics go, but is muted with
    /// the logs.
    DebuggerV2,
    Symdb,
    Dogstatsd,
    Flare,
}

impl Product {
    /// Label in the ledger.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Profiling => "profiling",
            Self::Telemetry => "telemetry",
            Self::PipelineStats => "pipeline_stats",
            Self::OpenLineage => "openlineage",
            Self::Evp => "evp",
            Self::DebuggerLogs => "debugger_logs",
            Self::DebuggerDiagnostics => "debugger_diagnostics",
            Self::DebuggerV2 => "debugger_v2",
            Self::Symdb => "symdb",
            Self::Dogstatsd => "dogstatsd",
            Self::Flare => "tracer_flare",
        }
    }

    /// Whether an Agent passes it on before it answers, so that the answer may
    /// take long.
    pub(crate) const fn waits_for_intake(self) -> bool {
        !matches!(self, Self::Telemetry | Self::Dogstatsd)
    }
}

/// What the receiver knows about a request besides its bytes.
pub(crate) struct Origin {
    /// Container id; empty if not known.
    pub container: String,
    /// Its tags joined by commas, fit for a header.
    pub tags: String,
}

/// Forwards, or accepts, what is not ours.
pub(crate) struct Proxy {
    config: ProxyConfig,
    client: Option<Arc<dyn HttpClient>>,
    inlet: Inlet,
    telemetry: Arc<telemetry::Flight>,
    dogstatsd: dogstatsd::Dogstatsd,
    max_payload: u64,
    timeout: Duration,
}

/// Most bytes of a body that is read whole where the Agent has no limit, and
/// of one that is only counted.
const MAX_BODY: u64 = 50 << 20;

impl Proxy {
    pub(crate) fn new(
        config: ProxyConfig,
        client: Option<Arc<dyn HttpClient>>,
        inlet: Inlet,
        max_payload: u64,
        timeout: Duration,
    ) -> Self {
        Self {
            dogstatsd: dogstatsd::Dogstatsd::new(&config),
            config,
            client,
            inlet,
            telemetry: Arc::default(),
            max_payload,
            timeout,
        }
    }

    /// Answers a request to a proxied path.
    pub(crate) async fn handle(&self, request: &mut Request, product: Product, origin: &Origin) -> Answer {
        if product == Product::Dogstatsd {
            return self.dogstatsd(request).await;
        }
        if let Some(answer) = self.switched_off(product) {
            return answer;
        }
        let (Some(client), true) = (&self.client, !self.config.api_key.is_empty()) else {
            return accept::accept(request, product, self.max_payload.max(MAX_BODY), self.inlet.ledger())
                .await;
        };
        if product == Product::Telemetry {
            return self.telemetry(request, client, origin).await;
        }
        let outgoing = match products::prepare(&self.config, product, request, origin) {
            Ok(outgoing) => outgoing,
            Err(refusal) => {
                self.count("proxy_error", product, 1);
                return refusal.answer();
            }
        };
        let limit = match product {
            Product::Evp => self.config.evp_max_payload_size,
            Product::Profiling => self.config.profiling_max_request_bytes,
            _ => self.max_payload.max(MAX_BODY),
        };
        let (body, permit) = match self.read(request, limit).await {
            Ok(read) => read,
            Err(error) => {
                self.count("proxy_error", product, 1);
                return forward::body_error(product, error);
            }
        };
        self.count("proxy_requests", product, 1);
        self.count("proxy_bytes", product, body.len() as u64);
        let timeout = match product {
            Product::Evp => seconds(self.config.evp_receiver_timeout, 30),
            Product::Profiling => seconds(self.config.profiling_receiver_timeout, 5),
            _ => self.timeout,
        };
        let parallel = matches!(
            product,
            Product::DebuggerLogs | Product::DebuggerDiagnostics | Product::DebuggerV2 | Product::Symdb
        );
        let answer = forward::forward(client, outgoing, body, permit, timeout, parallel).await;
        match answer {
            Ok(answer) if product == Product::Profiling && answer.status() == StatusCode::ACCEPTED => {
                // Profilers take 200 only.
                let mut answer = answer;
                *answer.status_mut() = StatusCode::OK;
                answer
            }
            Ok(answer) => answer,
            Err(error) => {
                self.count("proxy_error", product, 1);
                tracing::warn!(product = product.name(), %error, "cannot forward");
                forward::send_error(product, &error)
            }
        }
    }

    fn switched_off(&self, product: Product) -> Option<Answer> {
        let c = &self.config;
        let off = |status, text| Some(answer::error(status, text));
        match product {
            Product::Evp if !c.evp_enabled => {
                off(StatusCode::METHOD_NOT_ALLOWED, "EVPProxy is disabled: Has been disabled in config")
            }
            Product::OpenLineage if !c.openlineage_enabled => off(
                StatusCode::INTERNAL_SERVER_ERROR,
                "OpenLineage forwarder is OFF: Has been disabled in config",
            ),
            Product::DebuggerLogs | Product::DebuggerV2 if c.logs_muted => {
                Some(answer::empty(StatusCode::OK))
            }
            _ => None,
        }
    }

    /// Reads a body whole, paid for.
    async fn read(&self, request: &mut Request, limit: u64) -> Result<(Bytes, Permit), ReadError> {
        if request.length().is_some_and(|n| n > limit) {
            return Err(ReadError::TooLarge);
        }
        let limits = BodyLimits { max: limit, wait: Duration::from_secs(1) };
        let received = body::receive(request, &self.inlet, limits).await.map_err(ReadError::Body)?;
        if received.more {
            return Err(ReadError::TooLarge);
        }
        Ok((received.bytes, received.permit))
    }

    fn count(&self, event: &'static str, product: Product, n: u64) {
        self.inlet.ledger().note(event, product.name(), n);
    }

    /// Waits until telemetry that was answered has been forwarded, a second at
    /// most.
    pub(crate) async fn finish(&self) {
        self.telemetry.finish().await;
    }
}

/// Why a body is not forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReadError {
    TooLarge,
    Body(BodyError),
}

fn seconds(setting: u64, default: u64) -> Duration {
    Duration::from_secs(if setting == 0 { default } else { setting })
}
