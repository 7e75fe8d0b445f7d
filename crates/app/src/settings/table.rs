//! Every setting: its key in files, its variables, its default and what it
//! means. The table is the only place that names them; `check`, the docs and
//! the loader read it. Names, defaults and meanings of `DD_*` settings are the
//! Datadog Agent's (datadog-agent:pkg/config/setup).

use super::value::{
    Address, Bytes, CommaOrWords, CsvList, Endpoints, JsonList, JsonOrWords, JsonValue, Listen, Pairs, Rates,
    Secret, Setting,
};
use super::{Entry, Field, Origin};
use serde_json::Value as Json;
use std::time::Duration;

macro_rules! settings {
    ($( $(#[doc = $doc:literal])+ $field:ident : $type:ty = $default:expr, $key:literal, [$($env:literal),*]; )*) => {
        /// All settings, resolved. Field docs are what `spanloom check --explain` prints.
        #[derive(Clone, Debug)]
        pub struct Settings {
            $( $(#[doc = $doc])+ pub $field: $type, )*
            /// Where each value came from, by position in [`Settings::FIELDS`].
            pub(super) origins: Vec<Origin>,
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $( $field: $default, )* origins: vec![Origin::Default; Self::FIELDS.len()] }
            }
        }

        impl Settings {
            /// The table, in order.
            pub const FIELDS: &'static [Field] = &[
                $( Field {
                    key: $key,
                    env: &[$($env),*],
                    doc: concat!($($doc),+),
                    accepts: <$type as Setting>::ACCEPTS,
                }, )*
            ];

            /// Sets the field at `index` from text.
            pub(super) fn set_text(&mut self, index: usize, text: &str) -> bool {
                let mut n = 0;
                $(
                    if n == index {
                        return <$type as Setting>::from_text(text).map(|v| self.$field = v).is_some();
                    }
                    n += 1;
                )*
                let _ = n;
                false
            }

            /// Sets the field at `index` from a file's value.
            pub(super) fn set_json(&mut self, index: usize, value: &Json) -> bool {
                let mut n = 0;
                $(
                    if n == index {
                        return <$type as Setting>::from_json(value).map(|v| self.$field = v).is_some();
                    }
                    n += 1;
                )*
                let _ = n;
                false
            }

            /// Every setting with its value (secrets masked) and origin.
            pub fn entries(&self) -> Vec<Entry> {
                let values = [$( <$type as Setting>::show(&self.$field), )*];
                Self::FIELDS
                    .iter()
                    .zip(values)
                    .zip(&self.origins)
                    .map(|((field, value), origin)| Entry { field, value, origin: origin.clone() })
                    .collect()
            }
        }
    };
}

fn local(port: u16) -> Address {
    Address(Some(std::net::SocketAddr::from(([127, 0, 0, 1], port))))
}

settings! {
    /// API key. With it, traces and statistics also go to the Datadog intake.
    api_key: Secret = Secret::default(), "api_key", ["DD_API_KEY"];
    /// Datadog site: the host suffix of every intake.
    site: String = "datadoghq.com".into(), "site", ["DD_SITE"];
    /// Application key, for proxied requests that ask for one.
    app_key: Secret = Secret::default(), "app_key", ["DD_APP_KEY"];
    /// Host name to report; found out when empty.
    hostname: String = String::new(), "hostname", ["DD_HOSTNAME"];
    /// Default environment of traces without one.
    env: String = String::new(), "env", ["DD_ENV"];
    /// Host tags; of these only `env:` matters to traces.
    tags: CommaOrWords = CommaOrWords::default(), "tags", ["DD_TAGS"];
    /// More host tags.
    extra_tags: CommaOrWords = CommaOrWords::default(), "extra_tags", ["DD_EXTRA_TAGS"];
    /// Host name or address that the Datadog receiver listens on.
    bind_host: String = String::new(), "bind_host", ["DD_BIND_HOST"];
    /// UDP port of DogStatsD, target of our own metrics and of the DogStatsD proxy; 0: own metrics go to the socket.
    dogstatsd_port: u16 = 8125, "dogstatsd_port", ["DD_DOGSTATSD_PORT"];
    /// Socket of DogStatsD, target of our own metrics if the port is 0; empty switches them off then.
    dogstatsd_socket: String = "/var/run/datadog/dsd.socket".into(), "dogstatsd_socket", ["DD_DOGSTATSD_SOCKET"];
    /// Whether own metrics are sent to DogStatsD and its proxy forwards.
    use_dogstatsd: bool = true, "use_dogstatsd", ["DD_USE_DOGSTATSD"];
    /// Proxy for plain HTTP destinations.
    proxy_http: Secret = Secret::default(), "proxy.http", ["DD_PROXY_HTTP", "HTTP_PROXY", "http_proxy"];
    /// Proxy for HTTPS destinations.
    proxy_https: Secret = Secret::default(), "proxy.https", ["DD_PROXY_HTTPS", "HTTPS_PROXY", "https_proxy"];
    /// Hosts reached without a proxy.
    proxy_no_proxy: CommaOrWords = CommaOrWords::default(), "proxy.no_proxy", ["DD_PROXY_NO_PROXY", "NO_PROXY", "no_proxy"];
    /// Whether an entry of `no_proxy` also covers sub-domains and networks.
    no_proxy_nonexact_match: bool = false, "no_proxy_nonexact_match", ["DD_NO_PROXY_NONEXACT_MATCH"];
    /// Whether addresses of cloud metadata are reached through the proxy, too.
    use_proxy_for_cloud_metadata: bool = false, "use_proxy_for_cloud_metadata", ["DD_USE_PROXY_FOR_CLOUD_METADATA"];
    /// Do not verify TLS certificates of destinations.
    skip_ssl_validation: bool = false, "skip_ssl_validation", ["DD_SKIP_SSL_VALIDATION"];
    /// Lowest TLS version for destinations.
    min_tls_version: String = "tlsv1.2".into(), "min_tls_version", ["DD_MIN_TLS_VERSION"];
    /// Log level: trace, debug, info, warn, error or off.
    log_level: String = "info".into(), "log_level", ["DD_LOG_LEVEL"];
    /// Write a trailing dot after known Datadog hosts, so that the resolver asks once.
    convert_dd_site_fqdn: bool = true, "convert_dd_site_fqdn.enabled", ["DD_CONVERT_DD_SITE_FQDN_ENABLED"];
    /// Root of the proc file system, for container look-ups.
    container_proc_root: String = String::new(), "container_proc_root", ["DD_CONTAINER_PROC_ROOT"];
    /// Answer `/v0.7/config`, so that tracers' remote configuration polls stay quiet.
    remote_configuration: bool = true, "remote_configuration.enabled", ["DD_REMOTE_CONFIGURATION_ENABLED"];
    /// Set to false explicitly to drop dynamic-instrumentation logs.
    logs_enabled: bool = true, "logs_enabled", ["DD_LOGS_ENABLED"];
    /// Any text: running in the official container, which listens on all addresses and has no memory limit of its own.
    docker_dd_agent: String = String::new(), "docker_dd_agent", ["DOCKER_DD_AGENT"];

    /// Trace intake on or off.
    apm_enabled: bool = true, "apm_config.enabled", ["DD_APM_ENABLED"];
    /// HTTP listeners of the Datadog receiver on or off.
    receiver_enabled: bool = true, "apm_config.receiver_enabled", ["DD_APM_RECEIVER_ENABLED"];
    /// TCP port of the Datadog receiver; 0 switches TCP off.
    receiver_port: u16 = 8126, "apm_config.receiver_port", ["DD_APM_RECEIVER_PORT", "DD_RECEIVER_PORT"];
    /// Unix socket of the Datadog receiver; empty switches it off.
    receiver_socket: String = "/var/run/datadog/apm.socket".into(), "apm_config.receiver_socket", ["DD_APM_RECEIVER_SOCKET"];
    /// Accept traffic from other hosts.
    apm_non_local_traffic: bool = false, "apm_config.apm_non_local_traffic", ["DD_APM_NON_LOCAL_TRAFFIC"];
    /// Read time-out in seconds; 0 means 5.
    receiver_timeout: u64 = 0, "apm_config.receiver_timeout", ["DD_APM_RECEIVER_TIMEOUT"];
    /// Largest request body in bytes.
    max_payload_size: u64 = 26_214_400, "apm_config.max_payload_size", ["DD_APM_MAX_PAYLOAD_SIZE"];
    /// New TCP connections per 30 s; 0 is unlimited.
    connection_limit: u64 = 0, "apm_config.connection_limit", ["DD_APM_CONNECTION_LIMIT", "DD_CONNECTION_LIMIT"];
    /// Concurrent connections per listener.
    max_connections: u64 = 1000, "apm_config.max_connections", ["DD_APM_MAX_CONNECTIONS"];
    /// Concurrent decodes; 0 is half of the cores.
    decoders: u64 = 0, "apm_config.decoders", ["DD_APM_DECODERS"];
    /// Milliseconds to wait for a decode slot before refusing.
    decoder_timeout: u64 = 1000, "apm_config.decoder_timeout", ["DD_APM_DECODER_TIMEOUT"];
    /// Payloads queued between receivers and workers; 0 is 1,024.
    trace_buffer: u64 = 0, "apm_config.trace_buffer", ["DD_APM_TRACE_BUFFER"];
    /// Memory limit in bytes, as reported in `/info`; what is in memory is bounded by `intake.memory` and `store.memory`.
    max_memory: f64 = 5e8, "apm_config.max_memory", ["DD_APM_MAX_MEMORY"];
    /// CPU limit in per cent of a core, as reported in `/info`.
    max_cpu_percent: f64 = 50.0, "apm_config.max_cpu_percent", ["DD_APM_MAX_CPU_PERCENT"];
    /// Default environment; wins over `env`.
    apm_env: String = String::new(), "apm_config.env", ["DD_APM_ENV"];
    /// Feature flags.
    features: CommaOrWords = CommaOrWords::default(), "apm_config.features", ["DD_APM_FEATURES"];
    /// Agent mode; only `edge` is known.
    apm_mode: String = String::new(), "apm_config.mode", ["DD_APM_MODE"];
    /// Port of health, metrics and status, where the Agent has its debug server; 0 switches them off. `admin.address` wins.
    debug_port: u16 = 5012, "apm_config.debug.port", ["DD_APM_DEBUG_PORT"];
    /// Send counters of the Agent's own metrics to DogStatsD also when they are 0.
    send_all_internal_stats: bool = false, "apm_config.send_all_internal_stats", ["DD_APM_SEND_ALL_INTERNAL_STATS"];
    /// Id of the installation, put on the first trace of each service.
    install_id: String = String::new(), "apm_config.install_id", ["DD_INSTRUMENTATION_INSTALL_ID"];
    /// Type of the installation.
    install_type: String = String::new(), "apm_config.install_type", ["DD_INSTRUMENTATION_INSTALL_TYPE"];
    /// Time of the installation.
    install_time: String = String::new(), "apm_config.install_time", ["DD_INSTRUMENTATION_INSTALL_TIME"];
    /// Extra rate of the core sampler.
    extra_sample_rate: f64 = 1.0, "apm_config.extra_sample_rate", ["DD_APM_CONFIG_EXTRA_SAMPLE_RATE"];
    /// Length of a statistics bucket in seconds.
    bucket_size_seconds: u64 = 10, "apm_config.bucket_size_seconds", ["DD_APM_CONFIG_BUCKET_SIZE_SECONDS"];
    /// Most services in the rates told to tracers.
    max_catalog_entries: u64 = 5000, "apm_config.max_catalog_entries", ["DD_APM_CONFIG_MAX_CATALOG_ENTRIES"];
    /// Traces a second that leave for Datadog by priority sampling.
    target_tps: f64 = 10.0, "apm_config.target_traces_per_second", ["DD_APM_TARGET_TPS", "DD_APM_MAX_TPS", "DD_MAX_TPS"];
    /// Traces with errors a second kept besides; 0 is off.
    error_tps: f64 = 10.0, "apm_config.errors_per_second", ["DD_APM_ERROR_TPS"];
    /// Legacy analysed events a second.
    max_eps: f64 = 200.0, "apm_config.max_events_per_second", ["DD_APM_MAX_EPS", "DD_MAX_EPS"];
    /// Keep some traces of every rare combination of service, name, resource and status.
    enable_rare_sampler: bool = false, "apm_config.enable_rare_sampler", ["DD_APM_ENABLE_RARE_SAMPLER"];
    /// Traces a second of the rare sampler.
    rare_sampler_tps: f64 = 5.0, "apm_config.rare_sampler.tps", ["DD_APM_RARE_SAMPLER_TPS"];
    /// Time before a combination is rare again.
    rare_sampler_cooldown: Duration = Duration::from_secs(300), "apm_config.rare_sampler.cooldown", ["DD_APM_RARE_SAMPLER_COOLDOWN"];
    /// Combinations remembered per service.
    rare_sampler_cardinality: u64 = 200, "apm_config.rare_sampler.cardinality", ["DD_APM_RARE_SAMPLER_CARDINALITY"];
    /// Sample by trace id alone.
    probabilistic_sampler: bool = false, "apm_config.probabilistic_sampler.enabled", ["DD_APM_PROBABILISTIC_SAMPLER_ENABLED"];
    /// Per cent kept by the probabilistic sampler.
    probabilistic_percentage: f64 = 0.0, "apm_config.probabilistic_sampler.sampling_percentage", ["DD_APM_PROBABILISTIC_SAMPLER_SAMPLING_PERCENTAGE"];
    /// Seed of the probabilistic sampler's hash.
    probabilistic_hash_seed: u64 = 0, "apm_config.probabilistic_sampler.hash_seed", ["DD_APM_PROBABILISTIC_SAMPLER_HASH_SEED"];
    /// Send only traces with errors.
    error_tracking_standalone: bool = false, "apm_config.error_tracking_standalone.enabled", ["DD_APM_ERROR_TRACKING_STANDALONE_ENABLED"];
    /// Legacy analysed spans: `service|operation=rate,…`.
    analyzed_spans: Rates = Rates::default(), "apm_config.analyzed_spans", ["DD_APM_ANALYZED_SPANS"];
    /// Traces whose root resource matches one of these expressions are dropped.
    ignore_resources: CsvList = CsvList::default(), "apm_config.ignore_resources", ["DD_APM_IGNORE_RESOURCES", "DD_IGNORE_RESOURCE"];
    /// Only traces whose root has all of these tags (`key` or `key:value`).
    filter_tags_require: JsonOrWords = JsonOrWords::default(), "apm_config.filter_tags.require", ["DD_APM_FILTER_TAGS_REQUIRE"];
    /// No traces whose root has one of these tags.
    filter_tags_reject: JsonOrWords = JsonOrWords::default(), "apm_config.filter_tags.reject", ["DD_APM_FILTER_TAGS_REJECT"];
    /// As `filter_tags.require`, with an expression as value.
    filter_tags_regex_require: JsonOrWords = JsonOrWords::default(), "apm_config.filter_tags_regex.require", ["DD_APM_FILTER_TAGS_REGEX_REQUIRE"];
    /// As `filter_tags.reject`, with an expression as value.
    filter_tags_regex_reject: JsonOrWords = JsonOrWords::default(), "apm_config.filter_tags_regex.reject", ["DD_APM_FILTER_TAGS_REGEX_REJECT"];
    /// Replacements in tag values: a list of `{name, pattern, repl}`.
    replace_tags: JsonValue = JsonValue::default(), "apm_config.replace_tags", ["DD_APM_REPLACE_TAGS"];
    /// More peer tags for statistics.
    peer_tags: JsonList = JsonList::default(), "apm_config.peer_tags", ["DD_APM_PEER_TAGS"];
    /// Statistics by peer tags.
    peer_tags_aggregation: bool = true, "apm_config.peer_tags_aggregation", ["DD_APM_PEER_TAGS_AGGREGATION"];
    /// Statistics for every client, server, producer and consumer span.
    compute_stats_by_span_kind: bool = true, "apm_config.compute_stats_by_span_kind", ["DD_APM_COMPUTE_STATS_BY_SPAN_KIND"];
    /// Tags of a span that become additional tags of its statistics.
    span_derived_primary_tags: JsonList = JsonList::default(), "apm_config.span_derived_primary_tags", ["DD_APM_SPAN_DERIVED_PRIMARY_TAGS"];
    /// How SQL is scrubbed: empty, `obfuscate_only`, `normalize_only` or `obfuscate_and_normalize`.
    sql_obfuscation_mode: String = String::new(), "apm_config.sql_obfuscation_mode", ["DD_APM_SQL_OBFUSCATION_MODE"];
    /// Scrub Elasticsearch bodies.
    obfuscate_elasticsearch: bool = true, "apm_config.obfuscation.elasticsearch.enabled", ["DD_APM_OBFUSCATION_ELASTICSEARCH_ENABLED"];
    /// Keys whose values stay readable.
    obfuscate_elasticsearch_keep: JsonList = JsonList::default(), "apm_config.obfuscation.elasticsearch.keep_values", ["DD_APM_OBFUSCATION_ELASTICSEARCH_KEEP_VALUES"];
    /// Keys whose values are scrubbed as SQL.
    obfuscate_elasticsearch_sql: JsonList = JsonList::default(), "apm_config.obfuscation.elasticsearch.obfuscate_sql_values", ["DD_APM_OBFUSCATION_ELASTICSEARCH_OBFUSCATE_SQL_VALUES"];
    /// Scrub OpenSearch bodies.
    obfuscate_opensearch: bool = true, "apm_config.obfuscation.opensearch.enabled", ["DD_APM_OBFUSCATION_OPENSEARCH_ENABLED"];
    /// Keys whose values stay readable.
    obfuscate_opensearch_keep: JsonList = JsonList::default(), "apm_config.obfuscation.opensearch.keep_values", ["DD_APM_OBFUSCATION_OPENSEARCH_KEEP_VALUES"];
    /// Keys whose values are scrubbed as SQL.
    obfuscate_opensearch_sql: JsonList = JsonList::default(), "apm_config.obfuscation.opensearch.obfuscate_sql_values", ["DD_APM_OBFUSCATION_OPENSEARCH_OBFUSCATE_SQL_VALUES"];
    /// Scrub MongoDB queries.
    obfuscate_mongodb: bool = true, "apm_config.obfuscation.mongodb.enabled", ["DD_APM_OBFUSCATION_MONGODB_ENABLED"];
    /// Keys whose values stay readable.
    obfuscate_mongodb_keep: JsonList = JsonList::default(), "apm_config.obfuscation.mongodb.keep_values", ["DD_APM_OBFUSCATION_MONGODB_KEEP_VALUES"];
    /// Keys whose values are scrubbed as SQL.
    obfuscate_mongodb_sql: JsonList = JsonList::default(), "apm_config.obfuscation.mongodb.obfuscate_sql_values", ["DD_APM_OBFUSCATION_MONGODB_OBFUSCATE_SQL_VALUES"];
    /// Scrub SQL execution plans.
    obfuscate_sql_exec_plan: bool = false, "apm_config.obfuscation.sql_exec_plan.enabled", ["DD_APM_OBFUSCATION_SQL_EXEC_PLAN_ENABLED"];
    /// Keys whose values stay readable.
    obfuscate_sql_exec_plan_keep: JsonList = JsonList::default(), "apm_config.obfuscation.sql_exec_plan.keep_values", ["DD_APM_OBFUSCATION_SQL_EXEC_PLAN_KEEP_VALUES"];
    /// Keys whose values are scrubbed as SQL.
    obfuscate_sql_exec_plan_sql: JsonList = JsonList::default(), "apm_config.obfuscation.sql_exec_plan.obfuscate_sql_values", ["DD_APM_OBFUSCATION_SQL_EXEC_PLAN_OBFUSCATE_SQL_VALUES"];
    /// Normalise SQL execution plans.
    obfuscate_sql_exec_plan_normalize: bool = false, "apm_config.obfuscation.sql_exec_plan_normalize.enabled", ["DD_APM_OBFUSCATION_SQL_EXEC_PLAN_NORMALIZE_ENABLED"];
    /// Keys whose values stay readable.
    obfuscate_sql_exec_plan_normalize_keep: JsonList = JsonList::default(), "apm_config.obfuscation.sql_exec_plan_normalize.keep_values", ["DD_APM_OBFUSCATION_SQL_EXEC_PLAN_NORMALIZE_KEEP_VALUES"];
    /// Keys whose values are scrubbed as SQL.
    obfuscate_sql_exec_plan_normalize_sql: JsonList = JsonList::default(), "apm_config.obfuscation.sql_exec_plan_normalize.obfuscate_sql_values", ["DD_APM_OBFUSCATION_SQL_EXEC_PLAN_NORMALIZE_OBFUSCATE_SQL_VALUES"];
    /// Remove query strings from URLs.
    obfuscate_http_query: bool = false, "apm_config.obfuscation.http.remove_query_string", ["DD_APM_OBFUSCATION_HTTP_REMOVE_QUERY_STRING"];
    /// Replace path segments that hold digits.
    obfuscate_http_digits: bool = false, "apm_config.obfuscation.http.remove_paths_with_digits", ["DD_APM_OBFUSCATION_HTTP_REMOVE_PATHS_WITH_DIGITS"];
    /// Remove stack traces.
    obfuscate_stack_traces: bool = false, "apm_config.obfuscation.remove_stack_traces", ["DD_APM_OBFUSCATION_REMOVE_STACK_TRACES"];
    /// Scrub Redis commands.
    obfuscate_redis: bool = true, "apm_config.obfuscation.redis.enabled", ["DD_APM_OBFUSCATION_REDIS_ENABLED"];
    /// Remove all arguments of Redis commands.
    obfuscate_redis_all: bool = false, "apm_config.obfuscation.redis.remove_all_args", ["DD_APM_OBFUSCATION_REDIS_REMOVE_ALL_ARGS"];
    /// Scrub Valkey commands.
    obfuscate_valkey: bool = true, "apm_config.obfuscation.valkey.enabled", ["DD_APM_OBFUSCATION_VALKEY_ENABLED"];
    /// Remove all arguments of Valkey commands.
    obfuscate_valkey_all: bool = false, "apm_config.obfuscation.valkey.remove_all_args", ["DD_APM_OBFUSCATION_VALKEY_REMOVE_ALL_ARGS"];
    /// Scrub Memcached commands.
    obfuscate_memcached: bool = true, "apm_config.obfuscation.memcached.enabled", ["DD_APM_OBFUSCATION_MEMCACHED_ENABLED"];
    /// Keep the Memcached command itself.
    obfuscate_memcached_keep_command: bool = false, "apm_config.obfuscation.memcached.keep_command", ["DD_APM_OBFUSCATION_MEMCACHED_KEEP_COMMAND"];
    /// Scrub credit card numbers in tags.
    obfuscate_cards: bool = true, "apm_config.obfuscation.credit_cards.enabled", ["DD_APM_OBFUSCATION_CREDIT_CARDS_ENABLED"];
    /// Check card numbers by the Luhn sum.
    obfuscate_cards_luhn: bool = false, "apm_config.obfuscation.credit_cards.luhn", ["DD_APM_OBFUSCATION_CREDIT_CARDS_LUHN"];
    /// Tags that are not scanned for card numbers.
    obfuscate_cards_keep: JsonOrWords = JsonOrWords::default(), "apm_config.obfuscation.credit_cards.keep_values", ["DD_APM_OBFUSCATION_CREDIT_CARDS_KEEP_VALUES"];
    /// Remember scrubbed statements.
    obfuscate_cache: bool = true, "apm_config.obfuscation.cache.enabled", ["DD_APM_OBFUSCATION_CACHE_ENABLED"];
    /// Bytes of remembered statements.
    obfuscate_cache_size: u64 = 5_000_000, "apm_config.obfuscation.cache.max_size", ["DD_APM_OBFUSCATION_CACHE_MAX_SIZE"];

    /// API key for traces; wins over `api_key` (deprecated in the Agent).
    apm_api_key: Secret = Secret::default(), "apm_config.api_key", ["DD_APM_CONFIG_API_KEY"];
    /// Send traces and statistics to an Observability Pipelines Worker instead of Datadog.
    opw_traces_enabled: bool = false, "observability_pipelines_worker.traces.enabled", ["DD_OBSERVABILITY_PIPELINES_WORKER_TRACES_ENABLED"];
    /// Base URL of the worker.
    opw_traces_url: String = String::new(), "observability_pipelines_worker.traces.url", ["DD_OBSERVABILITY_PIPELINES_WORKER_TRACES_URL"];
    /// Send traces and statistics to Vector instead of Datadog (older name of the same).
    vector_traces_enabled: bool = false, "vector.traces.enabled", ["DD_VECTOR_TRACES_ENABLED"];
    /// Base URL of Vector.
    vector_traces_url: String = String::new(), "vector.traces.url", ["DD_VECTOR_TRACES_URL"];
    /// Full base URL of the trace intake; replaces `https://trace.agent.<site>`.
    apm_dd_url: String = String::new(), "apm_config.apm_dd_url", ["DD_APM_DD_URL"];
    /// More trace intakes.
    additional_endpoints: Endpoints = Endpoints::default(), "apm_config.additional_endpoints", ["DD_APM_ADDITIONAL_ENDPOINTS"];
    /// Send to the main intake.
    send_to_main_endpoint: bool = true, "apm_config.send_to_main_endpoint", ["DD_APM_SEND_TO_MAIN_ENDPOINT"];
    /// Seconds between flushes of the trace writer; 0 means 5.
    trace_writer_flush_period: f64 = 0.0, "apm_config.trace_writer.flush_period_seconds", ["DD_APM_CONFIG_TRACE_WRITER_FLUSH_PERIOD_SECONDS"];
    /// Concurrent connections to the intake; 0 means 5.
    trace_writer_connections: u64 = 0, "apm_config.trace_writer.connection_limit", ["DD_APM_CONFIG_TRACE_WRITER_CONNECTION_LIMIT"];
    /// Profile intake URL.
    profiling_dd_url: String = String::new(), "apm_config.profiling_dd_url", ["DD_APM_PROFILING_DD_URL"];
    /// More profile intakes.
    profiling_additional_endpoints: Endpoints = Endpoints::default(), "apm_config.profiling_additional_endpoints", ["DD_APM_PROFILING_ADDITIONAL_ENDPOINTS"];
    /// Send profiles to the main intake.
    profiling_send_to_main_endpoint: bool = true, "apm_config.profiling_send_to_main_endpoint", ["DD_APM_PROFILING_SEND_TO_MAIN_ENDPOINT"];
    /// Time-out of profiles in seconds; 0 means 5.
    profiling_receiver_timeout: u64 = 5, "apm_config.profiling_receiver_timeout", ["DD_APM_PROFILING_RECEIVER_TIMEOUT"];
    /// Largest profile in bytes.
    profiling_max_request_bytes: u64 = 52_428_800, "apm_config.profiling_max_request_bytes", ["DD_APM_PROFILING_MAX_REQUEST_BYTES"];
    /// Tags added to profiles.
    additional_profile_tags: Pairs = Pairs::default(), "apm_config.additional_profile_tags", ["DD_APM_ADDITIONAL_PROFILE_TAGS"];
    /// Forward telemetry of tracers.
    telemetry_enabled: bool = true, "apm_config.telemetry.enabled", ["DD_APM_TELEMETRY_ENABLED"];
    /// Telemetry intake URL.
    telemetry_dd_url: String = String::new(), "apm_config.telemetry.dd_url", ["DD_APM_TELEMETRY_DD_URL"];
    /// More telemetry intakes.
    telemetry_additional_endpoints: Endpoints = Endpoints::default(), "apm_config.telemetry.additional_endpoints", ["DD_APM_TELEMETRY_ADDITIONAL_ENDPOINTS"];
    /// Debugger intake URL.
    debugger_dd_url: String = String::new(), "apm_config.debugger_dd_url", ["DD_APM_DEBUGGER_DD_URL"];
    /// API key of the debugger intake.
    debugger_api_key: Secret = Secret::default(), "apm_config.debugger_api_key", ["DD_APM_DEBUGGER_API_KEY"];
    /// More debugger intakes.
    debugger_additional_endpoints: Endpoints = Endpoints::default(), "apm_config.debugger_additional_endpoints", ["DD_APM_DEBUGGER_ADDITIONAL_ENDPOINTS"];
    /// Take debugger logs although `logs_enabled` is false.
    debugger_logs_enabled_override: bool = false, "apm_config.debugger_logs_enabled_override", ["DD_APM_DEBUGGER_LOGS_ENABLED_OVERRIDE"];
    /// Debugger diagnostics intake URL.
    debugger_diagnostics_dd_url: String = String::new(), "apm_config.debugger_diagnostics_dd_url", ["DD_APM_DEBUGGER_DIAGNOSTICS_DD_URL"];
    /// API key of the debugger diagnostics intake.
    debugger_diagnostics_api_key: Secret = Secret::default(), "apm_config.debugger_diagnostics_api_key", ["DD_APM_DEBUGGER_DIAGNOSTICS_API_KEY"];
    /// More debugger diagnostics intakes.
    debugger_diagnostics_additional_endpoints: Endpoints = Endpoints::default(), "apm_config.debugger_diagnostics_additional_endpoints", ["DD_APM_DEBUGGER_DIAGNOSTICS_ADDITIONAL_ENDPOINTS"];
    /// Symbol database intake URL.
    symdb_dd_url: String = String::new(), "apm_config.symdb_dd_url", ["DD_APM_SYMDB_DD_URL"];
    /// API key of the symbol database intake.
    symdb_api_key: Secret = Secret::default(), "apm_config.symdb_api_key", ["DD_APM_SYMDB_API_KEY"];
    /// More symbol database intakes.
    symdb_additional_endpoints: Endpoints = Endpoints::default(), "apm_config.symdb_additional_endpoints", ["DD_APM_SYMDB_ADDITIONAL_ENDPOINTS"];
    /// EVP proxy on or off.
    evp_proxy_enabled: bool = true, "evp_proxy_config.enabled", ["DD_EVP_PROXY_CONFIG_ENABLED"];
    /// Site or URL of the EVP proxy.
    evp_proxy_dd_url: String = String::new(), "evp_proxy_config.dd_url", ["DD_EVP_PROXY_CONFIG_DD_URL"];
    /// API key of the EVP proxy.
    evp_proxy_api_key: Secret = Secret::default(), "evp_proxy_config.api_key", ["DD_EVP_PROXY_CONFIG_API_KEY"];
    /// More EVP destinations.
    evp_proxy_additional_endpoints: Endpoints = Endpoints::default(), "evp_proxy_config.additional_endpoints", ["DD_EVP_PROXY_CONFIG_ADDITIONAL_ENDPOINTS"];
    /// Largest EVP body in bytes.
    evp_proxy_max_payload_size: u64 = 10_485_760, "evp_proxy_config.max_payload_size", ["DD_EVP_PROXY_CONFIG_MAX_PAYLOAD_SIZE"];
    /// EVP time-out in seconds; 0 means 30.
    evp_proxy_receiver_timeout: u64 = 0, "evp_proxy_config.receiver_timeout", ["DD_EVP_PROXY_CONFIG_RECEIVER_TIMEOUT"];
    /// OpenLineage proxy on or off.
    ol_proxy_enabled: bool = true, "ol_proxy_config.enabled", ["DD_OL_PROXY_CONFIG_ENABLED"];
    /// Site or URL of the OpenLineage proxy.
    ol_proxy_dd_url: String = String::new(), "ol_proxy_config.dd_url", ["DD_OL_PROXY_CONFIG_DD_URL"];
    /// API key of the OpenLineage proxy.
    ol_proxy_api_key: Secret = Secret::default(), "ol_proxy_config.api_key", ["DD_OL_PROXY_CONFIG_API_KEY"];
    /// More OpenLineage destinations.
    ol_proxy_additional_endpoints: Endpoints = Endpoints::default(), "ol_proxy_config.additional_endpoints", ["DD_OL_PROXY_CONFIG_ADDITIONAL_ENDPOINTS"];
    /// API version of the OpenLineage proxy.
    ol_proxy_api_version: u64 = 2, "ol_proxy_config.api_version", ["DD_OL_PROXY_CONFIG_API_VERSION"];

    /// Also scrub `db.statement` and `db.query.text`, which the Agent leaves as they are up to 7.80.
    obfuscate_statement_tags: bool = false, "obfuscate_statement_tags", ["SPANLOOM_OBFUSCATE_STATEMENT_TAGS"];
    /// An Agent that every request of Datadog tracers is passed on to, and whose answer they get: `http://host:8126` or `unix:///path/apm.socket`.
    forward_agent: String = String::new(), "forward_agent", ["SPANLOOM_FORWARD_AGENT"];
    /// Directory of the store and of the exporters' queues.
    data_dir: String = String::new(), "data_dir", ["SPANLOOM_DATA_DIR"];
    /// Whether a container runtime is there, so that requests can be told apart by container: auto, true or false.
    containers: String = "auto".into(), "containers.enabled", ["SPANLOOM_CONTAINERS"];
    /// JSON file with tags of containers, `{"container id": ["key:value", …]}`; read again when it changes.
    container_tags: String = String::new(), "containers.tags_file", ["SPANLOOM_CONTAINER_TAGS"];
    /// When a request is answered: `interval` (log written, synced within 50 ms) or `always` (on disk).
    ack: String = "interval".into(), "ack", ["SPANLOOM_ACK"];
    /// Bytes of requests being received, decoded and processed at most.
    intake_memory: Bytes = Bytes(64 << 20), "intake.memory", ["SPANLOOM_INTAKE_MEMORY"];
    /// Age at which spans are removed; 0s keeps them.
    retention_age: Duration = Duration::from_secs(7 * 86400), "store.retention.age", ["SPANLOOM_STORE_RETENTION_AGE"];
    /// Size of the store above which the oldest spans are removed; 0 is unlimited.
    retention_size: Bytes = Bytes(50 << 30), "store.retention.size", ["SPANLOOM_STORE_RETENTION_SIZE"];
    /// Free disk space below which nothing more is accepted.
    disk_floor: Bytes = Bytes(1 << 30), "store.disk_floor", ["SPANLOOM_STORE_DISK_FLOOR"];
    /// Bytes of newest spans held in memory at most.
    store_memory: Bytes = Bytes(32 << 20), "store.memory", ["SPANLOOM_STORE_MEMORY"];
    /// Bytes that wait on disk for each destination at most.
    queue_size: Bytes = Bytes(1 << 30), "exporters.queue_size", ["SPANLOOM_EXPORTERS_QUEUE_SIZE"];
    /// Directory of mesh resources that route spans to backends.
    resources: String = String::new(), "resources", ["SPANLOOM_RESOURCES"];
    /// Bytes on disk that remember what was decided about each trace (`spanloom why`); the oldest go first.
    decisions_size: Bytes = Bytes(256 << 20), "decisions.size", ["SPANLOOM_DECISIONS_SIZE"];
    /// Rules of tail sampling, of the store and of what leaves (see docs/sampling.md).
    tail_sampling: JsonValue = JsonValue::default(), "tail_sampling", ["SPANLOOM_TAIL_SAMPLING"];

    /// Where OTLP over gRPC is received; `otlp_grpc.address` wins.
    otlp_grpc_endpoint: Listen = Listen::default(), "otlp_config.receiver.protocols.grpc.endpoint", ["DD_OTLP_CONFIG_RECEIVER_PROTOCOLS_GRPC_ENDPOINT"];
    /// Largest OTLP message over gRPC in MiB; 0 is 64.
    otlp_grpc_max_mib: u64 = 0, "otlp_config.receiver.protocols.grpc.max_recv_msg_size_mib", ["DD_OTLP_CONFIG_RECEIVER_PROTOCOLS_GRPC_MAX_RECV_MSG_SIZE_MIB"];
    /// Where OTLP over HTTP is received; `otlp_http.address` wins.
    otlp_http_endpoint: Listen = Listen::default(), "otlp_config.receiver.protocols.http.endpoint", ["DD_OTLP_CONFIG_RECEIVER_PROTOCOLS_HTTP_ENDPOINT"];
    /// Whether traces are received over OTLP; false switches both listeners off.
    otlp_traces_enabled: bool = true, "otlp_config.traces.enabled", ["DD_OTLP_CONFIG_TRACES_ENABLED"];
    /// For Datadog: the operation of an OTLP span is its name (naming of older Agents).
    otlp_span_name_as_resource_name: bool = false, "otlp_config.traces.span_name_as_resource_name", ["DD_OTLP_CONFIG_TRACES_SPAN_NAME_AS_RESOURCE_NAME"];
    /// For Datadog: other names for operations of OTLP spans, as a JSON object (naming of older Agents).
    otlp_span_name_remappings: JsonValue = JsonValue::default(), "otlp_config.traces.span_name_remappings", ["DD_OTLP_CONFIG_TRACES_SPAN_NAME_REMAPPINGS"];
    /// For Datadog: per cent kept of OTLP traces without a decision of their own.
    otlp_sampling_percentage: f64 = 100.0, "otlp_config.traces.probabilistic_sampler.sampling_percentage", ["DD_OTLP_CONFIG_TRACES_PROBABILISTIC_SAMPLER_SAMPLING_PERCENTAGE"];

    /// Zipkin collector and query API.
    zipkin_address: Address = local(9411), "zipkin.address", ["SPANLOOM_ZIPKIN_ADDRESS"];
    /// Origins of pages that may post spans to the Zipkin collector, as Zipkin's `ZIPKIN_QUERY_ALLOWED_ORIGINS`; empty: none.
    zipkin_cors_origins: CommaOrWords = CommaOrWords(vec!["*".into()]), "zipkin.cors_origins", ["SPANLOOM_ZIPKIN_CORS_ORIGINS"];
    /// Tags whose values Zipkin's search bar offers, as Zipkin's `AUTOCOMPLETE_KEYS`.
    zipkin_autocomplete_keys: CommaOrWords = CommaOrWords::default(), "zipkin.autocomplete_keys", ["SPANLOOM_ZIPKIN_AUTOCOMPLETE_KEYS"];
    /// OTLP over gRPC.
    otlp_grpc_address: Address = local(4317), "otlp_grpc.address", ["SPANLOOM_OTLP_GRPC_ADDRESS"];
    /// OTLP over HTTP.
    otlp_http_address: Address = local(4318), "otlp_http.address", ["SPANLOOM_OTLP_HTTP_ADDRESS"];
    /// Origins of pages that may send OTLP over HTTP: `https://shop.example.com`, `https://*.example.com`, `*`.
    otlp_http_cors_origins: CommaOrWords = CommaOrWords::default(), "otlp_http.cors_origins", ["SPANLOOM_OTLP_HTTP_CORS_ORIGINS"];
    /// Jaeger Thrift over HTTP.
    jaeger_http_address: Address = local(14268), "jaeger_http.address", ["SPANLOOM_JAEGER_HTTP_ADDRESS"];
    /// Jaeger over gRPC.
    jaeger_grpc_address: Address = local(14250), "jaeger_grpc.address", ["SPANLOOM_JAEGER_GRPC_ADDRESS"];
    /// Jaeger compact Thrift over UDP.
    jaeger_compact_address: Address = local(6831), "jaeger_compact.address", ["SPANLOOM_JAEGER_COMPACT_ADDRESS"];
    /// Jaeger binary Thrift over UDP.
    jaeger_binary_address: Address = local(6832), "jaeger_binary.address", ["SPANLOOM_JAEGER_BINARY_ADDRESS"];
    /// Jaeger remote sampling over HTTP.
    jaeger_sampling_address: Address = local(5778), "jaeger_sampling.address", ["SPANLOOM_JAEGER_SAMPLING_ADDRESS"];
    /// Jaeger remote sampling over gRPC (also on `jaeger_grpc.address`).
    jaeger_sampling_grpc_address: Address = local(5779), "jaeger_sampling_grpc.address", ["SPANLOOM_JAEGER_SAMPLING_GRPC_ADDRESS"];
    /// Web UI, Jaeger query API, our own API.
    query_address: Address = local(16686), "query.address", ["SPANLOOM_QUERY_ADDRESS"];
    /// Tempo query API.
    tempo_address: Address = local(3200), "tempo.address", ["SPANLOOM_TEMPO_ADDRESS"];
    /// Mesh resources over HTTP. Not served in this version.
    mesh_address: Address = local(5681), "mesh.address", ["SPANLOOM_MESH_ADDRESS"];
    /// xDS over gRPC. Not served in this version.
    xds_address: Address = local(5678), "xds.address", ["SPANLOOM_XDS_ADDRESS"];
    /// Health, readiness, metrics and status.
    admin_address: Address = local(5012), "admin.address", ["SPANLOOM_ADMIN_ADDRESS"];
}
