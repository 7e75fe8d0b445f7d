//! Settings → the plain `Config` of each room. The only file that knows both.

use crate::settings::Settings;
use serde_json::Value as Json;
use spanloom_codec::datadog::agent_payload::AgentInfo;
use spanloom_codec::datadog::from_otlp::{Naming, OtlpOptions};
use spanloom_obfuscator::{
    CacheConfig, Config as ObfuscatorConfig, CreditCardConfig, HttpConfig, JsonConfig, MemcachedConfig,
    RedisConfig, SqlConfig, SqlMode, quantize_peer_ip,
};
use spanloom_pipeline::Config as PipelineConfig;
use spanloom_processors::{
    AgentConfig, IgnoredResources, MAX_BIG_RESOURCE, MAX_RESOURCE, NormalizerConfig, Replacer, RuleText,
    TagEntry, TagFilters, names,
};
use spanloom_sampler::{EventSettings, Probabilistic, RareLimits, Settings as SamplerSettings};
use spanloom_stats::{ClientSettings, Settings as StatsSettings, rules};

/// Version of the Datadog Agent whose behaviour we follow, told to tracers and
/// to the intake.
pub const AGENT_VERSION: &str = "7.80.2";

/// Commit that goes with it; there is none, because it is not that program.
pub const AGENT_COMMIT: &str = "0000000";

/// Whether a feature flag is set.
pub fn feature(s: &Settings, name: &str) -> bool {
    s.features.0.iter().any(|f| f == name)
}

/// The default environment, normalised as a tag value.
pub fn env(s: &Settings) -> String {
    names::normalize_tag_value(&s.default_env()).into_owned()
}

/// The obfuscator.
pub fn obfuscator(s: &Settings) -> ObfuscatorConfig {
    let json = |enabled: bool, keep: &[String], sql: &[String]| JsonConfig {
        enabled,
        keep_values: keep.to_vec(),
        obfuscate_sql_values: sql.to_vec(),
    };
    ObfuscatorConfig {
        sql: SqlConfig {
            mode: match SqlMode::parse(&s.sql_obfuscation_mode) {
                Some(SqlMode::Builtin) | None if feature(s, "sqllexer") => SqlMode::ObfuscateOnly,
                mode => mode.unwrap_or_default(),
            },
            table_names: feature(s, "table_names"),
            replace_digits: feature(s, "quantize_sql_tables") || feature(s, "replace_sql_digits"),
            keep_sql_alias: feature(s, "keep_sql_alias"),
            dollar_quoted_func: feature(s, "dollar_quoted_func"),
            ..SqlConfig::default()
        },
        elasticsearch: json(
            s.obfuscate_elasticsearch,
            &s.obfuscate_elasticsearch_keep.0,
            &s.obfuscate_elasticsearch_sql.0,
        ),
        opensearch: json(
            s.obfuscate_opensearch,
            &s.obfuscate_opensearch_keep.0,
            &s.obfuscate_opensearch_sql.0,
        ),
        mongodb: json(s.obfuscate_mongodb, &s.obfuscate_mongodb_keep.0, &s.obfuscate_mongodb_sql.0),
        sql_exec_plan: json(
            s.obfuscate_sql_exec_plan,
            &s.obfuscate_sql_exec_plan_keep.0,
            &s.obfuscate_sql_exec_plan_sql.0,
        ),
        sql_exec_plan_normalize: json(
            s.obfuscate_sql_exec_plan_normalize,
            &s.obfuscate_sql_exec_plan_normalize_keep.0,
            &s.obfuscate_sql_exec_plan_normalize_sql.0,
        ),
        http: HttpConfig {
            remove_query_string: s.obfuscate_http_query,
            remove_paths_with_digits: s.obfuscate_http_digits,
        },
        redis: RedisConfig { enabled: s.obfuscate_redis, remove_all_args: s.obfuscate_redis_all },
        valkey: RedisConfig { enabled: s.obfuscate_valkey, remove_all_args: s.obfuscate_valkey_all },
        memcached: MemcachedConfig {
            enabled: s.obfuscate_memcached,
            keep_command: s.obfuscate_memcached_keep_command,
        },
        credit_cards: CreditCardConfig {
            enabled: s.obfuscate_cards,
            luhn: s.obfuscate_cards_luhn,
            keep_values: s.obfuscate_cards_keep.0.clone(),
        },
        remove_stack_traces: s.obfuscate_stack_traces,
        cache: CacheConfig { enabled: s.obfuscate_cache, max_bytes: s.obfuscate_cache_size as usize },
    }
}

/// The Agent's steps. Also returns what is wrong with expressions that are left
/// out; `Err` is a setting that the program does not start with.
pub fn agent(s: &Settings) -> Result<(AgentConfig, Vec<String>), String> {
    let (ignored, bad) = IgnoredResources::new(&s.ignore_resources.0);
    let mut warnings: Vec<String> = bad.iter().map(ToString::to_string).collect();
    let entries = |list: &[String]| list.iter().map(|t| TagEntry::parse(t)).collect();
    let (filters, bad) = TagFilters::new(
        entries(&s.filter_tags_require.0),
        entries(&s.filter_tags_reject.0),
        entries(&s.filter_tags_regex_require.0),
        entries(&s.filter_tags_regex_reject.0),
    );
    warnings.extend(bad.iter().map(ToString::to_string));
    let mut rules = replace_rules(&s.replace_tags.0, &mut warnings);
    if s.obfuscate_stack_traces {
        for name in ["error.stack", "exception.stacktrace"] {
            rules.push(RuleText { name: name.into(), pattern: "(?s).*".into(), repl: "?".into() });
        }
    }
    let replacer = Replacer::new(&rules).map_err(|e| e.to_string())?;
    if rules.iter().any(|r| r.name == "env") {
        warnings.push(
            "apm_config.replace_tags: a rule for `env` makes traces and statistics disagree; use DD_ENV instead".into(),
        );
    }
    let config = AgentConfig {
        normalizer: NormalizerConfig { component_to_name: feature(s, "component2name") },
        ignored,
        filters,
        replacer,
        max_resource: if feature(s, "big_resource") { MAX_BIG_RESOURCE } else { MAX_RESOURCE },
    };
    Ok((config, warnings))
}

/// A text that is not a list of rules is logged and ignored, as the Agent does.
fn replace_rules(json: &Json, warnings: &mut Vec<String>) -> Vec<RuleText> {
    if json.is_null() {
        return Vec::new();
    }
    let text = |rule: &Json, key: &str| rule[key].as_str().unwrap_or_default().to_owned();
    let Some(list) = json.as_array().filter(|l| l.iter().all(Json::is_object)) else {
        warnings.push(
            "apm_config.replace_tags: not a list of rules such as [{\"name\":\"http.url\",\"pattern\":\"token=.*\",\"repl\":\"token=?\"}]; ignored"
                .into(),
        );
        return Vec::new();
    };
    list.iter()
        .map(|r| RuleText { name: text(r, "name"), pattern: text(r, "pattern"), repl: text(r, "repl") })
        .collect()
}

/// The concentrator.
pub fn stats(s: &Settings, hostname: &str, seed: u64) -> StatsSettings {
    StatsSettings {
        bucket_ns: i64::try_from(s.bucket_size_seconds.max(1)).unwrap_or(10).saturating_mul(1_000_000_000),
        by_span_kind: s.compute_stats_by_span_kind,
        peer_tags: if s.peer_tags_aggregation { rules::peer_tag_keys(&s.peer_tags.0) } else { Vec::new() },
        extra_tags: s.span_derived_primary_tags.0.clone(),
        quantize_peer: quantize_peer_ip,
        without_container: feature(s, "disable_cid_stats"),
        without_process: feature(s, "disable_process_stats"),
        hostname: hostname.into(),
        env: env(s),
        version: AGENT_VERSION.into(),
        seed,
        ..StatsSettings::default()
    }
}

/// The merger of tracers' statistics.
pub fn client_stats(s: &Settings, hostname: &str, seed: u64) -> ClientSettings {
    ClientSettings {
        hostname: hostname.into(),
        env: env(s),
        version: AGENT_VERSION.into(),
        seed,
        ..ClientSettings::default()
    }
}

/// The pipeline.
pub fn pipeline(s: &Settings) -> PipelineConfig {
    let default = PipelineConfig::default();
    let queue = usize::try_from(s.trace_buffer).unwrap_or(usize::MAX);
    PipelineConfig {
        budget: s.intake_memory.0,
        queue: if queue > 0 { queue } else { default.queue },
        ..default
    }
}

/// The samplers.
pub fn samplers(s: &Settings, seed: u64) -> SamplerSettings {
    let mut events = EventSettings { max_per_second: s.max_eps, ..EventSettings::default() };
    events.analyzed_spans.extend(s.analyzed_spans.0.iter().map(|(name, rate)| (name.clone(), *rate)));
    SamplerSettings {
        env: env(s),
        target_tps: s.target_tps,
        errors_tps: s.error_tps,
        extra_rate: s.extra_sample_rate,
        max_services: usize::try_from(s.max_catalog_entries).unwrap_or(5000),
        rare: s.enable_rare_sampler,
        rare_limits: RareLimits {
            per_second: s.rare_sampler_tps,
            cool_down: i64::try_from(s.rare_sampler_cooldown.as_nanos()).unwrap_or(i64::MAX),
            cardinality: u32::try_from(s.rare_sampler_cardinality).unwrap_or(u32::MAX),
        },
        probabilistic: s.probabilistic_sampler.then(|| {
            Probabilistic::new(
                s.probabilistic_percentage as f32,
                s.probabilistic_hash_seed as u32,
                feature(s, "probabilistic_sampler_full_trace_id"),
            )
        }),
        error_tracking_standalone: s.error_tracking_standalone,
        error_rare_sample_tracer_drop: feature(s, "error_rare_sample_tracer_drop"),
        tail_rules: false,
        events,
        seed,
    }
}

/// How spans of other protocols become Datadog's.
pub fn otlp(s: &Settings) -> OtlpOptions {
    let remappings: std::collections::HashMap<String, String> = s
        .otlp_span_name_remappings
        .0
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(from, to)| Some((from.clone(), to.as_str()?.to_owned())))
        .collect();
    let v1 = s.otlp_span_name_as_resource_name
        || !remappings.is_empty()
        || feature(s, "disable_operation_and_resource_name_logic_v2");
    let span_name_as_resource_name = s.otlp_span_name_as_resource_name;
    OtlpOptions {
        naming: if v1 { Naming::V1 { span_name_as_resource_name, remappings } } else { Naming::V2 },
        top_level_by_kind: feature(s, "enable_otlp_compute_top_level_by_span_kind"),
        container_tags_v2: feature(s, "enable_otlp_container_tags_v2"),
        sampling_percentage: s.otlp_sampling_percentage,
        probabilistic_sampler: s.probabilistic_sampler,
        normalize_service: |name| names::normalize_service(name, "").0,
        normalize_tag_value: names::normalize_tag_value,
    }
}

/// Head of every payload for the intake.
pub fn agent_info(s: &Settings, hostname: &str) -> AgentInfo {
    AgentInfo {
        hostname: hostname.into(),
        env: env(s),
        version: AGENT_VERSION.into(),
        // The only mode there is; the Agent ignores others.
        mode: if s.apm_mode.eq_ignore_ascii_case("edge") { "edge".into() } else { String::new() },
        target_tps: s.target_tps,
        error_tps: s.error_tps,
        rare_sampler: s.enable_rare_sampler,
    }
}

/// The directory of the store and the queues.
pub fn data_dir(s: &Settings, home: Option<String>, xdg: Option<String>, root: bool) -> std::path::PathBuf {
    if !s.data_dir.is_empty() {
        return s.data_dir.clone().into();
    }
    if root {
        return "/var/lib/spanloom".into();
    }
    let base = xdg.filter(|d| d.starts_with('/')).map(std::path::PathBuf::from);
    let base = base.or_else(|| home.map(|h| std::path::PathBuf::from(h).join(".local/share")));
    base.unwrap_or_else(|| ".".into()).join("spanloom")
}

/// Host of DogStatsD.
pub fn statsd_host(s: &Settings) -> String {
    if s.bind_host.is_empty() { "localhost".into() } else { s.bind_host.clone() }
}

/// Base URL of the trace intake (datadog-processing §7.1): known Datadog hosts
/// get a trailing dot, so that the resolver asks once.
pub fn intake_url(s: &Settings) -> String {
    if let Some(url) = s.worker_url() {
        return url.to_owned();
    }
    if !s.apm_dd_url.is_empty() {
        return s.apm_dd_url.trim_end_matches('/').to_owned();
    }
    let known = [
        "datadoghq.com",
        "us3.datadoghq.com",
        "us5.datadoghq.com",
        "datadoghq.eu",
        "ap1.datadoghq.com",
        "ap2.datadoghq.com",
        "ddog-gov.com",
    ];
    let dot = if s.convert_dd_site_fqdn && known.contains(&s.site.as_str()) { "." } else { "" };
    format!("https://trace.agent.{}{dot}", s.site)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_directory_depends_on_who_runs_it() {
        let s = Settings::default();
        let dir = |root, xdg: Option<&str>| {
            data_dir(&s, Some("/home/u".into()), xdg.map(str::to_owned), root).display().to_string()
        };
        assert_eq!(dir(true, None), "/var/lib/spanloom");
        assert_eq!(dir(false, None), "/home/u/.local/share/spanloom");
        assert_eq!(dir(false, Some("/x")), "/x/spanloom");
    }

    #[test]
    fn a_bad_replace_rule_stops_the_start_and_a_bad_list_is_only_noted() {
        let mut s = Settings::default();
        s.replace_tags.0 = serde_json::json!("not rules");
        assert_eq!(agent(&s).unwrap().1.len(), 1);
        s.replace_tags.0 = serde_json::json!([{"name": "a", "pattern": "("}]);
        assert!(agent(&s).unwrap_err().contains("apm_config.replace_tags"));
        s.replace_tags.0 = Json::Null;
        s.ignore_resources.0 = vec!["(".into()];
        assert!(agent(&s).unwrap().1[0].contains("apm_config.ignore_resources"));
    }

    #[test]
    fn the_intake_follows_the_site() {
        let mut s = Settings::default();
        assert_eq!(intake_url(&s), "https://trace.agent.datadoghq.com.");
        s.site = "example.internal".into();
        assert_eq!(intake_url(&s), "https://trace.agent.example.internal");
        s.apm_dd_url = "http://localhost:9/".into();
        assert_eq!(intake_url(&s), "http://localhost:9");
        (s.vector_traces_enabled, s.vector_traces_url) = (true, "http://vector:1/".into());
        assert_eq!(intake_url(&s), "http://vector:1");
    }
}
