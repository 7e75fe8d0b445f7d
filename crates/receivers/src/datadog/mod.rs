//! The Datadog trace API, as the trace-agent 7.80 answers it.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | [`Receiver`]: which path leads where |
//! | `config.rs` | [`Config`]: every setting with its `DD_*` name |
//! | `endpoints.rs` | the table of paths, in the order of `/info` |
//! | `traces.rs` | the trace endpoints: admission, decoding, answers |
//! | `statistics.rs` | `/v0.6/stats` |
//! | `sources.rs` | [`Sources`]: requests by where they come from, for the Agent's own metrics |
//! | `tee/` | [`Tee`]: in front of an existing Agent |
//! | `info.rs`, `gojson.rs` | `/info` and its hash; Go's JSON layout |
//! | `container.rs`, `cgroup.rs` | which container a request comes from |
//! | `request.rs` | media types, truth values, process tags of a request |

mod cgroup;
mod config;
mod container;
mod endpoints;
mod gojson;
mod info;
mod request;
mod sources;
mod statistics;
mod tee;
mod traces;

pub use cgroup::{CgroupResolver, containers_present};
pub use config::{Config, InfoConfig, Obfuscation, SetLogLevel};
pub use container::{ContainerResolver, External, NoContainers};
pub use info::BUILT_IN_PEER_TAGS;
pub(crate) use info::EVP_HEADERS;
pub use sources::{SourceCounts, Sources};
pub use tee::{AgentBody, AgentClient, AgentError, AgentFuture, Tee, TeeConfig};

use crate::answer::{self, Answer};
use crate::mux::{self, Match};
use crate::proxy::{HttpClient, Origin, Product, Proxy};
use crate::server::{Handler, HandlerFuture, Request, ServerConfig};
use endpoints::{ENDPOINTS, Route};
use http::{HeaderValue, Method, StatusCode};
use spanloom_pipeline::Inlet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Answers the Datadog trace API. One for all its listeners.
pub struct Receiver {
    config: Config,
    inlet: Inlet,
    containers: Arc<dyn ContainerResolver>,
    /// Big bodies are decoded by so many workers at most.
    decode_slots: Arc<Semaphore>,
    resends: Arc<crate::resend::Resends>,
    info: info::Info,
    proxy: Proxy,
    version: HeaderValue,
    state: HeaderValue,
    /// Patterns that are switched on, as positions in the table.
    enabled: Vec<usize>,
}

impl Receiver {
    /// A receiver that hands what it receives to `inlet`. `client` carries what
    /// is forwarded; without one (or without an API key) it is only accepted.
    pub fn new(
        config: Config,
        inlet: Inlet,
        containers: Arc<dyn ContainerResolver>,
        client: Option<Arc<dyn HttpClient>>,
    ) -> Self {
        let enabled: Vec<usize> = (0..ENDPOINTS.len()).filter(|i| (ENDPOINTS[*i].enabled)(&config)).collect();
        let listed: Vec<&str> = enabled
            .iter()
            .map(|i| &ENDPOINTS[*i])
            .filter(|e| (e.listed)(&config))
            .map(|e| e.pattern)
            .collect();
        let info = info::Info::new(&config, &listed);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let slots = if config.decoders == 0 { (cores / 2).max(1) } else { config.decoders };
        let proxy = Proxy::new(
            config.proxy.clone(),
            client,
            inlet.clone(),
            config.max_payload_size,
            config.request_timeout(),
        );
        Self {
            proxy,
            version: HeaderValue::try_from(&config.info.version)
                .unwrap_or(HeaderValue::from_static("unknown")),
            state: HeaderValue::try_from(info.hash()).unwrap_or(HeaderValue::from_static("")),
            resends: Arc::default(),
            decode_slots: Arc::new(Semaphore::new(slots.min(Semaphore::MAX_PERMITS))),
            config,
            inlet,
            containers,
            info,
            enabled,
        }
    }

    /// Bounds for its listeners. The lease is for TCP only.
    pub fn server_config(&self, tcp: bool) -> ServerConfig {
        ServerConfig {
            max_connections: self.config.max_connections,
            connection_lease: if tcp { self.config.connection_limit } else { 0 },
            read_timeout: self.config.request_timeout(),
            ..ServerConfig::default()
        }
    }

    /// Waits for telemetry that was answered and is still being forwarded, a
    /// second at most. After the listeners have stopped.
    pub async fn finish(&self) {
        self.proxy.finish().await;
    }

    /// Where a proxied request comes from. The Agent forwards telemetry apart
    /// from its connection, so the peer's process does not count there.
    fn origin_of(&self, request: &Request, product: Product) -> Origin {
        let pid = if product == Product::Telemetry { None } else { request.conn.pid };
        let container = self.container_by(request, pid);
        let tags = if container.is_empty() { None } else { self.containers.tags(&container) };
        let tags = tags.unwrap_or_default().join(",").replace(['\r', '\n'], "_");
        Origin { container, tags }
    }

    /// The body of `/info`.
    pub fn info(&self) -> bytes::Bytes {
        self.info.body()
    }

    /// Where a path leads.
    fn find(&self, path: &str) -> Match {
        mux::find(self.enabled.iter().map(|i| ENDPOINTS[*i].pattern), path)
    }

    /// What is behind a path, if anything is.
    fn route(&self, path: &str) -> Option<Route> {
        match self.find(path) {
            Match::Found(i) => self.enabled.get(i).map(|i| ENDPOINTS[*i].route),
            Match::NotFound | Match::Redirect(_) => None,
        }
    }

    async fn answer(&self, request: &mut Request) -> Answer {
        let route = match self.find(request.head.uri.path()) {
            Match::NotFound => return answer::not_found(),
            Match::Redirect(to) => {
                return mux::redirect(&request.head.method, &to, request.head.uri.query());
            }
            Match::Found(i) => self.enabled.get(i).map(|i| ENDPOINTS[*i].route),
        };
        let mut answer = match route {
            Some(Route::Info) => return self.info.answer(self.container_tags_hash(request)),
            Some(Route::Traces(version)) => self.traces(request, version).await,
            Some(Route::Services { json_only }) => self.services(request, json_only),
            Some(Route::Stats) => self.statistics(request).await,
            Some(Route::RemoteConfig) => self.remote_config(request).await,
            Some(Route::ConfigSet) => self.config_set(request),
            Some(Route::Proxy(product)) => {
                let origin = self.origin_of(request, product);
                self.proxy.handle(request, product, &origin).await
            }
            None => return answer::not_found(),
        };
        let headers = answer.headers_mut();
        headers.insert("datadog-agent-version", self.version.clone());
        headers.insert("datadog-agent-state", self.state.clone());
        answer
    }

    /// `/v0.7/config`: there is never anything new.
    async fn remote_config(&self, request: &mut Request) -> Answer {
        let limits = self.body_limits();
        let received = crate::body::receive(request, &self.inlet, limits).await;
        match received.map(|r| serde_json::from_slice::<serde_json::Value>(&r.bytes)) {
            Ok(Ok(_)) => answer::typed(StatusCode::OK, answer::TEXT, "{}"),
            Ok(Err(e)) => answer::error(StatusCode::BAD_REQUEST, &e.to_string()),
            Err(e) => answer::error(StatusCode::BAD_REQUEST, &e.to_string()),
        }
    }

    /// `/config/set?log_level=…`.
    fn config_set(&self, request: &Request) -> Answer {
        if request.head.method != Method::POST {
            let text = format!("{{\"error\": \"{} method not allowed, only POST\"}}", request.head.method);
            return answer::typed(StatusCode::METHOD_NOT_ALLOWED, answer::TEXT, text);
        }
        let query = request.head.uri.query().unwrap_or_default();
        let level = query.split('&').find_map(|pair| pair.strip_prefix("log_level="));
        match (&self.config.set_log_level, level) {
            (Some(set), Some(level)) => match set(level) {
                Ok(()) => answer::empty(StatusCode::OK),
                Err(e) => answer::error(StatusCode::INTERNAL_SERVER_ERROR, &e),
            },
            _ => answer::empty(StatusCode::OK),
        }
    }

    fn body_limits(&self) -> crate::body::BodyLimits {
        crate::body::BodyLimits { max: self.config.max_payload_size, wait: self.config.decoder_timeout }
    }
}

impl Handler for Receiver {
    fn handle<'a>(&'a self, request: &'a mut Request) -> HandlerFuture<'a> {
        Box::pin(self.answer(request))
    }
}

/// Where a duration of 0 means the default.
fn or_default(seconds: u64, default: u64) -> Duration {
    Duration::from_secs(if seconds == 0 { default } else { seconds })
}
