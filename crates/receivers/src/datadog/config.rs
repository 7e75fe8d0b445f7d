//! Settings of the Datadog receiver. The program maps the Agent's `DD_*`
//! variables to them; the names stand beside each field.

use super::info::BUILT_IN_PEER_TAGS;
use super::sources::Sources;
use crate::proxy::ProxyConfig;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Changes the log level of the running program; the error is for the client.
pub type SetLogLevel = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Settings. `Default` is what the Agent does on a host.
#[derive(Clone)]
pub struct Config {
    /// Seconds for a request to arrive; 0: 5 (`DD_APM_RECEIVER_TIMEOUT`).
    pub receiver_timeout: u64,
    /// Largest body in bytes (`DD_APM_MAX_PAYLOAD_SIZE`).
    pub max_payload_size: u64,
    /// New TCP connections per 30 s; 0: no such limit (`DD_APM_CONNECTION_LIMIT`).
    pub connection_limit: usize,
    /// Open connections per listener (`DD_APM_MAX_CONNECTIONS`).
    pub max_connections: usize,
    /// Threads that decode big bodies; 0: half of the cores (`DD_APM_DECODERS`).
    pub decoders: usize,
    /// Wait for memory and for a decoder before the overload answer
    /// (`DD_APM_DECODER_TIMEOUT`).
    pub decoder_timeout: Duration,
    /// Feature flags (`DD_APM_FEATURES`). Here: `429` tells every client the
    /// truth about overload, `disable_cid_stats` leaves the container out of
    /// client statistics.
    pub features: Vec<String>,
    /// Answer `/v0.7/config` (`DD_REMOTE_CONFIGURATION_ENABLED`).
    pub remote_configuration: bool,
    /// Behind `/config/set`; `None`: the path does not exist.
    pub set_log_level: Option<SetLogLevel>,
    /// The program runs where there are containers. Without, requests have no
    /// container, whatever their headers say.
    pub containers: bool,
    /// Where requests are counted by their source; `None`: nowhere.
    pub sources: Option<Arc<Sources>>,
    /// Where proxied products go.
    pub proxy: ProxyConfig,
    /// What `/info` says.
    pub info: InfoConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            receiver_timeout: 0,
            max_payload_size: 26_214_400,
            connection_limit: 0,
            max_connections: 1000,
            decoders: 0,
            decoder_timeout: Duration::from_millis(1000),
            features: Vec::new(),
            remote_configuration: true,
            set_log_level: None,
            containers: true,
            sources: None,
            proxy: ProxyConfig::default(),
            info: InfoConfig::default(),
        }
    }
}

impl Config {
    /// Time for a request to arrive.
    pub fn request_timeout(&self) -> Duration {
        super::or_default(self.receiver_timeout, 5)
    }

    /// Whether a feature flag is set.
    pub fn feature(&self, name: &str) -> bool {
        self.features.iter().any(|f| f == name)
    }
}

/// What `/info` says about settings that other rooms use.
#[derive(Clone, Debug)]
pub struct InfoConfig {
    /// Agent version; also the header `Datadog-Agent-Version`.
    pub version: String,
    /// Commit of the build.
    pub git_commit: String,
    /// Whether `DD_APM_PROBABILISTIC_SAMPLER_ENABLED` is off.
    pub client_drop_p0s: bool,
    /// Normalised default environment (`DD_APM_ENV`, `DD_ENV`, …).
    pub default_env: String,
    /// `DD_APM_TARGET_TPS`.
    pub target_tps: f64,
    /// `DD_APM_MAX_EPS`.
    pub max_eps: f64,
    /// `DD_APM_RECEIVER_PORT`.
    pub receiver_port: u16,
    /// `DD_APM_RECEIVER_SOCKET`.
    pub receiver_socket: String,
    /// `DD_DOGSTATSD_PORT`.
    pub statsd_port: u16,
    /// `DD_APM_MAX_MEMORY`, bytes.
    pub max_memory: f64,
    /// `DD_APM_MAX_CPU_PERCENT` / 100.
    pub max_cpu: f64,
    /// `DD_APM_ANALYZED_SPANS`: service → operation → rate.
    pub analyzed_spans: BTreeMap<String, BTreeMap<String, f64>>,
    /// `DD_APM_OBFUSCATION_*`, `DD_APM_SQL_OBFUSCATION_MODE`.
    pub obfuscation: Obfuscation,
    /// Peer tags of statistics, built-in ones and `DD_APM_PEER_TAGS`; `None`
    /// without `DD_APM_PEER_TAGS_AGGREGATION`. Sorted when written.
    pub peer_tags: Option<Vec<String>>,
    /// `DD_APM_COMPUTE_STATS_BY_SPAN_KIND`.
    pub stats_by_span_kind: bool,
    /// `DD_APM_FILTER_TAGS_REQUIRE`.
    pub filter_require: Vec<String>,
    /// `DD_APM_FILTER_TAGS_REJECT`.
    pub filter_reject: Vec<String>,
    /// `DD_APM_FILTER_TAGS_REGEX_REQUIRE`.
    pub filter_regex_require: Vec<String>,
    /// `DD_APM_FILTER_TAGS_REGEX_REJECT`.
    pub filter_regex_reject: Vec<String>,
    /// `DD_APM_IGNORE_RESOURCES`.
    pub ignore_resources: Vec<String>,
}

impl Default for InfoConfig {
    fn default() -> Self {
        Self {
            version: "7.80.2".into(),
            git_commit: String::new(),
            client_drop_p0s: true,
            default_env: "none".into(),
            target_tps: 10.0,
            max_eps: 200.0,
            receiver_port: 8126,
            receiver_socket: "/var/run/datadog/apm.socket".into(),
            statsd_port: 8125,
            max_memory: 5e8,
            max_cpu: 0.5,
            analyzed_spans: BTreeMap::new(),
            obfuscation: Obfuscation::default(),
            peer_tags: Some(BUILT_IN_PEER_TAGS.map(str::to_owned).to_vec()),
            stats_by_span_kind: true,
            filter_require: Vec::new(),
            filter_reject: Vec::new(),
            filter_regex_require: Vec::new(),
            filter_regex_reject: Vec::new(),
            ignore_resources: Vec::new(),
        }
    }
}

/// What `/info` says about obfuscation.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the names are the keys of `/info`
pub struct Obfuscation {
    pub elastic_search: bool,
    pub mongo: bool,
    pub sql_exec_plan: bool,
    pub sql_exec_plan_normalize: bool,
    pub sql_obfuscation_mode: String,
    pub http_remove_query_string: bool,
    pub http_remove_path_digits: bool,
    pub remove_stack_traces: bool,
    pub redis: bool,
    pub redis_remove_all_args: bool,
    pub valkey: bool,
    pub valkey_remove_all_args: bool,
    pub memcached: bool,
    pub memcached_keep_command: bool,
}

impl Default for Obfuscation {
    fn default() -> Self {
        Self {
            elastic_search: true,
            mongo: true,
            sql_exec_plan: false,
            sql_exec_plan_normalize: false,
            sql_obfuscation_mode: String::new(),
            http_remove_query_string: false,
            http_remove_path_digits: false,
            remove_stack_traces: false,
            redis: true,
            redis_remove_all_args: false,
            valkey: true,
            valkey_remove_all_args: false,
            memcached: true,
            memcached_keep_command: false,
        }
    }
}
