//! The outgoing HTTP client, for the exporter and for proxied requests.

use super::convert;
use crate::settings::Settings;
use http::Request;
use http_body_util::{BodyExt, Full};
use spanloom_exporters::{NoAnswer, Post, Transport};
use spanloom_outbound::{Body, Client, Config};
use spanloom_receivers::StreamError;
use spanloom_receivers::proxy::{
    ClientError, Endpoint, HttpClient, Outgoing, ProxyConfig, Secret, SendFuture,
};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Time for one request to the intake (`datadog-agent:pkg/trace/writer/sender.go`).
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Bound of a proxied request; the EVP proxy's own is 30 s.
const PROXY_TIMEOUT: Duration = Duration::from_secs(60);

/// A client by the Agent's settings.
pub fn client(s: &Settings) -> Result<Client, String> {
    let proxy = |secret: &crate::settings::Secret| Some(secret.0.clone()).filter(|p| !p.is_empty());
    let config = Config {
        proxy_http: proxy(&s.proxy_http),
        proxy_https: proxy(&s.proxy_https),
        no_proxy: s.proxy_no_proxy.0.clone(),
        no_proxy_nonexact: s.no_proxy_nonexact_match,
        proxy_cloud_metadata: s.use_proxy_for_cloud_metadata,
        skip_verification: s.skip_ssl_validation,
        tls13_only: s.min_tls_version.eq_ignore_ascii_case("tlsv1.3"),
        ..Config::default()
    };
    Client::new(&config).map_err(|e| e.to_string())
}

/// The exporter's way out.
pub fn transport(s: &Settings) -> Result<Arc<dyn Transport>, String> {
    Ok(Arc::new(ToIntake(client(s)?)))
}

struct ToIntake(Client);

impl Transport for ToIntake {
    fn post(&self, post: Post) -> Pin<Box<dyn Future<Output = Result<u16, NoAnswer>> + Send + '_>> {
        Box::pin(async move {
            let mut request = Request::post(&post.url);
            for (name, value) in &post.headers {
                request = request.header(name, value);
            }
            let body: Body = Full::new(post.body).map_err(|never| match never {}).boxed();
            let request = request.body(body).map_err(|e| NoAnswer(e.to_string()))?;
            let is_grpc =
                |(name, value): &(String, String)| name == "Content-Type" && value == "application/grpc";
            if post.headers.iter().any(is_grpc) {
                let status = self.0.call(request, SEND_TIMEOUT).await.map_err(|e| NoAnswer(e.to_string()))?;
                return Ok(http_status(status));
            }
            let response = self.0.send(request, SEND_TIMEOUT).await.map_err(|e| NoAnswer(e.to_string()))?;
            let status = response.status().as_u16();
            // Read to the end, so that the connection can be used again.
            let rest = response.into_body().collect();
            let _: Result<Result<_, _>, _> = tokio::time::timeout(SEND_TIMEOUT, rest).await;
            Ok(status)
        })
    }
}

/// What a gRPC status means to a sender: which ones are worth another try is
/// told by OTLP's specification (`opentelemetry-proto:docs/specification.md`).
const fn http_status(grpc: u32) -> u16 {
    match grpc {
        0 => 200,
        // CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS
        1 | 4 | 10 | 11 | 14 | 15 => 503,
        // RESOURCE_EXHAUSTED
        8 => 429,
        // PERMISSION_DENIED, UNAUTHENTICATED
        7 | 16 => 403,
        // UNIMPLEMENTED: nobody takes traces at this address.
        12 => 404,
        _ => 400,
    }
}

/// The client for requests that tracers send through us; none without an API
/// key, because then nothing leaves.
pub fn proxy_client(s: &Settings) -> Result<Option<Arc<dyn HttpClient>>, String> {
    if !s.has_datadog() {
        return Ok(None);
    }
    Ok(Some(Arc::new(Proxied(client(s)?))))
}

struct Proxied(Client);

impl HttpClient for Proxied {
    fn send(&self, request: Outgoing) -> SendFuture<'_> {
        Box::pin(async move {
            let request = request.map(|body| -> Body { body.map_err(|never| match never {}).boxed() });
            // The proxy bounds the time by itself, by product.
            match self.0.send(request, PROXY_TIMEOUT).await {
                Ok(response) => {
                    Ok(response.map(|body| body.map_err(|e| StreamError(e.to_string())).boxed_unsync()))
                }
                Err(spanloom_outbound::Error::Timeout(_)) => Err(ClientError::Timeout),
                Err(e) => Err(ClientError::Other(e.to_string())),
            }
        })
    }
}

/// Settings of the proxies.
pub fn proxies(s: &Settings, hostname: &str) -> ProxyConfig {
    let secret = |k: &crate::settings::Secret| Secret(k.0.clone());
    let endpoints = |e: &crate::settings::Endpoints| -> Vec<Endpoint> {
        let pairs = e.0.iter().flat_map(|(url, keys)| keys.iter().map(move |key| (url, key)));
        pairs.map(|(url, key)| Endpoint { url: url.clone(), key: secret(key) }).collect()
    };
    let install = !s.install_id.is_empty();
    ProxyConfig {
        api_key: secret(s.key()),
        app_key: secret(&s.app_key),
        site: s.site.clone(),
        hostname: hostname.into(),
        default_env: convert::env(s),
        version: convert::AGENT_VERSION.into(),
        apm_dd_url: s.apm_dd_url.clone(),
        additional_endpoints: endpoints(&s.additional_endpoints),
        profiling_dd_url: s.profiling_dd_url.clone(),
        profiling_additional_endpoints: endpoints(&s.profiling_additional_endpoints),
        profiling_send_to_main_endpoint: s.profiling_send_to_main_endpoint,
        profiling_receiver_timeout: s.profiling_receiver_timeout,
        profiling_max_request_bytes: s.profiling_max_request_bytes,
        additional_profile_tags: s.additional_profile_tags.0.clone().into_iter().collect(),
        telemetry_enabled: s.telemetry_enabled,
        telemetry_dd_url: s.telemetry_dd_url.clone(),
        telemetry_additional_endpoints: endpoints(&s.telemetry_additional_endpoints),
        install: install.then(|| (s.install_id.clone(), s.install_type.clone(), s.install_time.clone())),
        evp_enabled: s.evp_proxy_enabled,
        evp_dd_url: s.evp_proxy_dd_url.clone(),
        evp_api_key: secret(&s.evp_proxy_api_key),
        evp_additional_endpoints: endpoints(&s.evp_proxy_additional_endpoints),
        evp_max_payload_size: s.evp_proxy_max_payload_size,
        evp_receiver_timeout: s.evp_proxy_receiver_timeout,
        error_tracking_standalone: s.error_tracking_standalone,
        openlineage_enabled: s.ol_proxy_enabled,
        openlineage_dd_url: s.ol_proxy_dd_url.clone(),
        openlineage_api_key: secret(&s.ol_proxy_api_key),
        openlineage_additional_endpoints: endpoints(&s.ol_proxy_additional_endpoints),
        openlineage_api_version: s.ol_proxy_api_version,
        debugger: (
            s.debugger_dd_url.clone(),
            secret(&s.debugger_api_key),
            endpoints(&s.debugger_additional_endpoints),
        ),
        debugger_diagnostics: (
            s.debugger_diagnostics_dd_url.clone(),
            secret(&s.debugger_diagnostics_api_key),
            endpoints(&s.debugger_diagnostics_additional_endpoints),
        ),
        symdb: (s.symdb_dd_url.clone(), secret(&s.symdb_api_key), endpoints(&s.symdb_additional_endpoints)),
        logs_muted: s.is_set("logs_enabled") && !s.logs_enabled && !s.debugger_logs_enabled_override,
        use_dogstatsd: s.use_dogstatsd,
        statsd_host: convert::statsd_host(s),
        statsd_port: s.dogstatsd_port,
        ..ProxyConfig::default()
    }
}
