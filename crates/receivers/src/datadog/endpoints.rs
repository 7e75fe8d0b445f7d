//! The paths, in the order in which the Agent registers and lists them
//! (datadog-agent:pkg/trace/api/endpoints.go).

use super::Config;
use crate::proxy::Product;
use spanloom_model::Protocol;

/// What is behind a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Route {
    Info,
    Traces(Protocol),
    /// `json_only`: msgpack is refused.
    Services {
        json_only: bool,
    },
    Stats,
    RemoteConfig,
    ConfigSet,
    Proxy(Product),
}

pub(super) struct Endpoint {
    /// Exact; with a slash at the end a prefix.
    pub pattern: &'static str,
    /// Whether `/info` names it.
    pub listed: fn(&Config) -> bool,
    pub route: Route,
    pub enabled: fn(&Config) -> bool,
}

const fn at(pattern: &'static str, listed: bool, route: Route) -> Endpoint {
    let listed: fn(&Config) -> bool = if listed { |_| true } else { |_| false };
    Endpoint { pattern, listed, route, enabled: |_| true }
}

const fn when(pattern: &'static str, route: Route, enabled: fn(&Config) -> bool) -> Endpoint {
    Endpoint { pattern, listed: |_| true, route, enabled }
}

const fn proxy(pattern: &'static str, product: Product) -> Endpoint {
    at(pattern, true, Route::Proxy(product))
}

/// Answers that it is switched off, and `/info` does not name it.
const fn listed_when(pattern: &'static str, product: Product, listed: fn(&Config) -> bool) -> Endpoint {
    Endpoint { pattern, listed, route: Route::Proxy(product), enabled: |_| true }
}

const JSON_SERVICES: Route = Route::Services { json_only: true };
const SERVICES: Route = Route::Services { json_only: false };

pub(super) const ENDPOINTS: &[Endpoint] = &[
    at("/spans", false, Route::Traces(Protocol::DatadogV01)),
    at("/services", false, JSON_SERVICES),
    at("/v0.1/spans", false, Route::Traces(Protocol::DatadogV01)),
    at("/v0.1/services", false, JSON_SERVICES),
    at("/v0.2/traces", false, Route::Traces(Protocol::DatadogV02)),
    at("/v0.2/services", false, JSON_SERVICES),
    at("/v0.3/traces", true, Route::Traces(Protocol::DatadogV03)),
    at("/v0.3/services", true, SERVICES),
    at("/v0.4/traces", true, Route::Traces(Protocol::DatadogV04)),
    at("/v0.4/services", true, SERVICES),
    at("/v0.5/traces", true, Route::Traces(Protocol::DatadogV05)),
    at("/v0.7/traces", true, Route::Traces(Protocol::DatadogV07)),
    at("/v1.0/traces", true, Route::Traces(Protocol::DatadogV1)),
    proxy("/profiling/v1/input", Product::Profiling),
    when("/telemetry/proxy/", Route::Proxy(Product::Telemetry), |c| c.proxy.telemetry_enabled),
    at("/v0.6/stats", true, Route::Stats),
    proxy("/v0.1/pipeline_stats", Product::PipelineStats),
    listed_when("/openlineage/api/v1/lineage", Product::OpenLineage, |c| c.proxy.openlineage_enabled),
    listed_when("/evp_proxy/v1/", Product::Evp, |c| c.proxy.evp_enabled),
    listed_when("/evp_proxy/v2/", Product::Evp, |c| c.proxy.evp_enabled),
    listed_when("/evp_proxy/v3/", Product::Evp, |c| c.proxy.evp_enabled),
    listed_when("/evp_proxy/v4/", Product::Evp, |c| c.proxy.evp_enabled),
    proxy("/debugger/v1/input", Product::DebuggerLogs),
    proxy("/debugger/v1/diagnostics", Product::DebuggerDiagnostics),
    proxy("/debugger/v2/input", Product::DebuggerV2),
    proxy("/symdb/v1/input", Product::Symdb),
    proxy("/dogstatsd/v1/proxy", Product::Dogstatsd),
    proxy("/dogstatsd/v2/proxy", Product::Dogstatsd),
    proxy("/tracer_flare/v1", Product::Flare),
    when("/v0.7/config", Route::RemoteConfig, |c| c.remote_configuration),
    when("/config/set", Route::ConfigSet, |c| c.set_log_level.is_some()),
    at("/info", false, Route::Info),
];
