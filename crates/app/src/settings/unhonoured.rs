//! Settings of the Agent that change nothing here: why, and what to do instead.
//! Whoever sets one is warned.

/// A setting without effect. Keys below it have none either.
#[derive(Debug)]
pub struct Unhonoured {
    /// Key in files; for what has no key, the variable.
    pub key: &'static str,
    /// Environment variables, besides the derived one.
    pub env: &'static [&'static str],
    /// Why it has no effect.
    pub why: &'static str,
    /// What does what it was for; empty if nothing is needed.
    pub instead: &'static str,
}

impl Unhonoured {
    /// The row of a key, if it has no effect.
    pub fn by_key(key: &str) -> Option<&'static Self> {
        ALL.iter()
            .find(|u| key.strip_prefix(u.key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
    }

    /// The row of a variable, if it has no effect.
    pub fn by_variable(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|u| {
            let below = name.strip_prefix(&*u.derived_env());
            u.key == name
                || u.env.contains(&name)
                || below.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
        })
    }

    fn derived_env(&self) -> String {
        super::derived_env(self.key)
    }

    /// Cause and cure, for a warning.
    pub fn text(&self) -> String {
        if self.instead.is_empty() { self.why.to_owned() } else { format!("{}; {}", self.why, self.instead) }
    }
}

const fn row(
    key: &'static str,
    env: &'static [&'static str],
    why: &'static str,
    instead: &'static str,
) -> Unhonoured {
    Unhonoured { key, env, why, instead }
}

const NO_CORE_AGENT: &str = "there is no core Agent to ask";
const ON_DISK: &str = "what waits for Datadog waits on disk";
const NO_REMOTE: &str = "remote configuration changes nothing here";
const SOCKETS: &str = "listening sockets are not taken over from another process";

/// All of them.
pub const ALL: &[Unhonoured] = &[
    row(
        "dd_url",
        &["DD_DD_URL", "DD_URL"],
        "it is not used for traces, by the Agent neither",
        "use DD_APM_DD_URL",
    ),
    row(
        "dogstatsd_pipe_name",
        &["DD_DOGSTATSD_PIPE_NAME"],
        "there are no named pipes here",
        "use DD_DOGSTATSD_PORT or DD_DOGSTATSD_SOCKET",
    ),
    row(
        "disable_file_logging",
        &["DD_DISABLE_FILE_LOGGING"],
        "there is no log file: the log goes to standard error",
        "",
    ),
    row(
        "remote_configuration.apm_sampling",
        &["DD_REMOTE_CONFIGURATION_APM_SAMPLING_ENABLED"],
        NO_REMOTE,
        "set DD_APM_TARGET_TPS and DD_APM_ERROR_TPS here",
    ),
    row(
        "remote_configuration.agent_config",
        &["DD_REMOTE_CONFIGURATION_AGENT_CONFIG_ENABLED"],
        NO_REMOTE,
        "set DD_LOG_LEVEL here",
    ),
    row(
        "remote_configuration.apm_semantics",
        &["DD_REMOTE_CONFIGURATION_APM_SEMANTICS_ENABLED"],
        NO_REMOTE,
        "",
    ),
    row(
        "cmd_host",
        &["DD_CMD_HOST"],
        NO_CORE_AGENT,
        "set DD_HOSTNAME and containers.tags_file for what it would tell",
    ),
    row("cmd_port", &["DD_CMD_PORT"], NO_CORE_AGENT, ""),
    row(
        "agent_ipc",
        &[
            "DD_AGENT_IPC_HOST",
            "DD_AGENT_IPC_PORT",
            "DD_AGENT_IPC_CONFIG_REFRESH_INTERVAL",
            "DD_AGENT_IPC_USE_SOCKET",
        ],
        NO_CORE_AGENT,
        "",
    ),
    row("auth_token_file_path", &["DD_AUTH_TOKEN_FILE_PATH"], NO_CORE_AGENT, ""),
    row(
        "multi_region_failover",
        &[],
        "there is no failover of regions",
        "send to both with DD_APM_ADDITIONAL_ENDPOINTS",
    ),
    row(
        "secret_refresh_on_api_key_failure_interval",
        &["DD_SECRET_REFRESH_ON_API_KEY_FAILURE_INTERVAL"],
        "keys are not resolved by a secret backend",
        "restart with the new DD_API_KEY; what was refused waits on disk",
    ),
    row(
        "otelcollector.gateway.mode",
        &["DD_OTELCOLLECTOR_GATEWAY_MODE"],
        "payloads are not marked as a gateway's",
        "",
    ),
    row(
        "fips",
        &[],
        "there is no FIPS proxy, and the TLS here is not a validated module",
        "point DD_APM_DD_URL and the other DD_APM_*_DD_URL at your proxy",
    ),
    row("DD_APM_NET_RECEIVER_FD", &[], SOCKETS, "use DD_APM_RECEIVER_PORT"),
    row("DD_APM_NET_RECEIVER_CLIENT_FD", &[], SOCKETS, ""),
    row("DD_APM_UNIX_RECEIVER_FD", &[], SOCKETS, "use DD_APM_RECEIVER_SOCKET"),
    row("DD_OTLP_CONFIG_GRPC_FD", &[], SOCKETS, "use SPANLOOM_OTLP_GRPC_ADDRESS"),
    row(
        "apm_config.watchdog_check_delay",
        &[],
        "nothing is killed: memory is bounded",
        "set the bound with SPANLOOM_INTAKE_MEMORY",
    ),
    row(
        "apm_config.windows_pipe_name",
        &["DD_APM_WINDOWS_PIPE_NAME"],
        "there are no named pipes here",
        "use DD_APM_RECEIVER_PORT",
    ),
    row(
        "apm_config.windows_pipe_buffer_size",
        &["DD_APM_WINDOWS_PIPE_BUFFER_SIZE"],
        "there are no named pipes here",
        "",
    ),
    row(
        "apm_config.windows_pipe_security_descriptor",
        &["DD_APM_WINDOWS_PIPE_SECURITY_DESCRIPTOR"],
        "there are no named pipes here",
        "",
    ),
    row("apm_config.log_file", &["DD_APM_LOG_FILE"], "the log goes to standard error", "redirect it"),
    row(
        "apm_config.debug_v1_payloads",
        &["DD_APM_DEBUG_V1_PAYLOADS"],
        "bodies are not written to the log",
        "the reason is there with DD_LOG_LEVEL=debug",
    ),
    row(
        "apm_config.enable_container_tags_buffer",
        &["DD_APM_ENABLE_CONTAINER_TAGS_BUFFER"],
        "payloads are not held back for container tags",
        "",
    ),
    row(
        "apm_config.sync_flushing",
        &["DD_APM_SYNC_FLUSHING"],
        "only serverless builds flush so",
        "set apm_config.trace_writer.flush_period_seconds",
    ),
    row(
        "apm_config.internal_profiling",
        &["DD_APM_INTERNAL_PROFILING_ENABLED"],
        "there is no self profiling",
        "",
    ),
    row("apm_config.dd_agent_bin", &[], NO_CORE_AGENT, "set DD_HOSTNAME"),
    row(
        "apm_config.client_stats_flush_interval",
        &["DD_APM_CLIENT_STATS_FLUSH_INTERVAL"],
        "statistics of tracers are flushed with our own, every second",
        "",
    ),
    row(
        "apm_config.max_catalog_services",
        &["DD_APM_MAX_CATALOG_SERVICES"],
        "the Agent reads max_catalog_entries only",
        "use apm_config.max_catalog_entries",
    ),
    row("apm_config.max_remote_traces_per_second", &["DD_APM_MAX_REMOTE_TPS"], NO_REMOTE, ""),
    row(
        "apm_config.disable_rare_sampler",
        &["DD_APM_DISABLE_RARE_SAMPLER"],
        "the Agent ignores it since 7.41",
        "use DD_APM_ENABLE_RARE_SAMPLER",
    ),
    row("apm_config.analyzed_rate_by_service", &[], "deprecated in the Agent", "use DD_APM_ANALYZED_SPANS"),
    row(
        "apm_config.peer_service_aggregation",
        &["DD_APM_PEER_SERVICE_AGGREGATION"],
        "the Agent ignores it",
        "use DD_APM_PEER_TAGS_AGGREGATION",
    ),
    row(
        "apm_config.max_sender_retries",
        &["DD_APM_MAX_SENDER_RETRIES"],
        ON_DISK,
        "set the bound with SPANLOOM_EXPORTERS_QUEUE_SIZE",
    ),
    row(
        "apm_config.connection_reset_interval",
        &["DD_APM_CONNECTION_RESET_INTERVAL"],
        "connections are made anew after a failure and after 30 s without use",
        "",
    ),
    row(
        "apm_config.trace_writer.queue_size",
        &[],
        ON_DISK,
        "set the bound with SPANLOOM_EXPORTERS_QUEUE_SIZE",
    ),
    row(
        "apm_config.stats_writer.queue_size",
        &[],
        ON_DISK,
        "set the bound with SPANLOOM_EXPORTERS_QUEUE_SIZE",
    ),
    row(
        "apm_config.stats_writer.connection_limit",
        &[],
        "statistics are sent by the connections for traces, before them",
        "use apm_config.trace_writer.connection_limit",
    ),
    row(
        "apm_config.stats_writer.flush_period_seconds",
        &[],
        "statistics are sent when their bucket is over",
        "use apm_config.bucket_size_seconds",
    ),
    row(
        "apm_config.instrumentation",
        &["DD_APM_INSTRUMENTATION_ENABLED"],
        "it belongs to library injection",
        "",
    ),
    row(
        "apm_config.workload_selection",
        &["DD_APM_WORKLOAD_SELECTION"],
        "it belongs to library injection",
        "",
    ),
    row("otlp_config.traces.internal_port", &[], "OTLP is received here and not by a core Agent first", ""),
    row(
        "otlp_config.traces.infra_attributes",
        &["DD_OTLP_CONFIG_TRACES_INFRA_ATTRIBUTES_ENABLED"],
        "tags come with the spans, and from containers.tags_file",
        "",
    ),
];
