//! Settings of the proxies.

use std::fmt;

/// A key or token. Never printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(pub String);

impl Secret {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(none)" } else { "(secret)" })
    }
}

/// A further destination: a URL (a site for EVP) and a key. The order is kept;
/// the program lists them sorted by URL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// URL or site.
    pub url: String,
    /// Key for it.
    pub key: Secret,
}

/// Settings. `Default`: no key, so nothing is forwarded.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// `DD_API_KEY`; empty: accept and count.
    pub api_key: Secret,
    /// `DD_APP_KEY`, for EVP requests that ask for it.
    pub app_key: Secret,
    /// `DD_SITE`.
    pub site: String,
    /// Host name reported.
    pub hostname: String,
    /// Normalised default environment.
    pub default_env: String,
    /// Agent version.
    pub version: String,
    /// `fargate_ecs`, `fargate_eks` … when on Fargate.
    pub orchestrator: String,
    /// `DD_APM_DD_URL`; empty: `https://trace.agent.<site>`.
    pub apm_dd_url: String,
    /// `DD_APM_ADDITIONAL_ENDPOINTS`, for pipeline statistics.
    pub additional_endpoints: Vec<Endpoint>,
    /// `DD_APM_PROFILING_DD_URL`, a full URL.
    pub profiling_dd_url: String,
    /// `DD_APM_PROFILING_ADDITIONAL_ENDPOINTS`, full URLs.
    pub profiling_additional_endpoints: Vec<Endpoint>,
    /// `DD_APM_PROFILING_SEND_TO_MAIN_ENDPOINT`.
    pub profiling_send_to_main_endpoint: bool,
    /// `DD_APM_PROFILING_RECEIVER_TIMEOUT`, seconds; 0: 5.
    pub profiling_receiver_timeout: u64,
    /// `DD_APM_PROFILING_MAX_REQUEST_BYTES`.
    pub profiling_max_request_bytes: u64,
    /// `DD_APM_ADDITIONAL_PROFILE_TAGS`: key, value.
    pub additional_profile_tags: Vec<(String, String)>,
    /// `DD_APM_TELEMETRY_ENABLED`; off: the path does not exist.
    pub telemetry_enabled: bool,
    /// `DD_APM_TELEMETRY_DD_URL`.
    pub telemetry_dd_url: String,
    /// `DD_APM_TELEMETRY_ADDITIONAL_ENDPOINTS`.
    pub telemetry_additional_endpoints: Vec<Endpoint>,
    /// `DD_INSTRUMENTATION_INSTALL_ID`, `_TYPE`, `_TIME`.
    pub install: Option<(String, String, String)>,
    /// `DD_EVP_PROXY_CONFIG_ENABLED`.
    pub evp_enabled: bool,
    /// `DD_EVP_PROXY_CONFIG_DD_URL`: replaces the site.
    pub evp_dd_url: String,
    /// `DD_EVP_PROXY_CONFIG_API_KEY`; empty: `DD_API_KEY`.
    pub evp_api_key: Secret,
    /// `DD_EVP_PROXY_CONFIG_ADDITIONAL_ENDPOINTS`: sites.
    pub evp_additional_endpoints: Vec<Endpoint>,
    /// `DD_EVP_PROXY_CONFIG_MAX_PAYLOAD_SIZE`, bytes.
    pub evp_max_payload_size: u64,
    /// `DD_EVP_PROXY_CONFIG_RECEIVER_TIMEOUT`, seconds; 0: 30.
    pub evp_receiver_timeout: u64,
    /// `DD_APM_ERROR_TRACKING_STANDALONE_ENABLED`.
    pub error_tracking_standalone: bool,
    /// `DD_OL_PROXY_CONFIG_ENABLED`.
    pub openlineage_enabled: bool,
    /// `DD_OL_PROXY_CONFIG_DD_URL`: a site or a full URL.
    pub openlineage_dd_url: String,
    /// `DD_OL_PROXY_CONFIG_API_KEY`; empty: `DD_API_KEY`.
    pub openlineage_api_key: Secret,
    /// `DD_OL_PROXY_CONFIG_ADDITIONAL_ENDPOINTS`.
    pub openlineage_additional_endpoints: Vec<Endpoint>,
    /// `DD_OL_PROXY_CONFIG_API_VERSION`.
    pub openlineage_api_version: u64,
    /// `DD_APM_DEBUGGER_DD_URL`, `_API_KEY`, `_ADDITIONAL_ENDPOINTS`.
    pub debugger: (String, Secret, Vec<Endpoint>),
    /// `DD_APM_DEBUGGER_DIAGNOSTICS_DD_URL`, `_API_KEY`, `_ADDITIONAL_ENDPOINTS`.
    pub debugger_diagnostics: (String, Secret, Vec<Endpoint>),
    /// `DD_APM_SYMDB_DD_URL`, `_API_KEY`, `_ADDITIONAL_ENDPOINTS`.
    pub symdb: (String, Secret, Vec<Endpoint>),
    /// `DD_LOGS_ENABLED` was set to false explicitly (and
    /// `DD_APM_DEBUGGER_LOGS_ENABLED_OVERRIDE` is off).
    pub logs_muted: bool,
    /// `DD_USE_DOGSTATSD`.
    pub use_dogstatsd: bool,
    /// Host of DogStatsD: `localhost`, or `DD_BIND_HOST`.
    pub statsd_host: String,
    /// `DD_DOGSTATSD_PORT`; 0: none.
    pub statsd_port: u16,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            api_key: Secret::default(),
            app_key: Secret::default(),
            site: "datadoghq.com".into(),
            hostname: String::new(),
            default_env: "none".into(),
            version: "7.80.2".into(),
            orchestrator: String::new(),
            apm_dd_url: String::new(),
            additional_endpoints: Vec::new(),
            profiling_dd_url: String::new(),
            profiling_additional_endpoints: Vec::new(),
            profiling_send_to_main_endpoint: true,
            profiling_receiver_timeout: 0,
            profiling_max_request_bytes: 52_428_800,
            additional_profile_tags: Vec::new(),
            telemetry_enabled: true,
            telemetry_dd_url: String::new(),
            telemetry_additional_endpoints: Vec::new(),
            install: None,
            evp_enabled: true,
            evp_dd_url: String::new(),
            evp_api_key: Secret::default(),
            evp_additional_endpoints: Vec::new(),
            evp_max_payload_size: 10_485_760,
            evp_receiver_timeout: 0,
            error_tracking_standalone: false,
            openlineage_enabled: true,
            openlineage_dd_url: String::new(),
            openlineage_api_key: Secret::default(),
            openlineage_additional_endpoints: Vec::new(),
            openlineage_api_version: 2,
            debugger: Default::default(),
            debugger_diagnostics: Default::default(),
            symdb: Default::default(),
            logs_muted: false,
            use_dogstatsd: true,
            statsd_host: "localhost".into(),
            statsd_port: 8125,
        }
    }
}
