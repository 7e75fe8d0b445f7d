//! Settings → receivers.

use super::containers::TagsFile;
use super::{convert, outgoing, ports};
use crate::settings::Settings;
use spanloom_processors::TagEntry;
use spanloom_receivers::Listener;
use spanloom_receivers::datadog::{
    CgroupResolver, Config, ContainerResolver, InfoConfig, NoContainers, Obfuscation, Sources,
};
use spanloom_stats::rules;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Host that the Datadog receiver listens on (datadog-intake §4.1). `agent`
/// accepts traffic of other hosts unless told otherwise, as the Agent does;
/// `run` stays on loopback.
pub fn host(s: &Settings, agent: bool) -> String {
    let explicit = s.is_set("apm_config.apm_non_local_traffic");
    if s.apm_non_local_traffic || (agent && !explicit && s.bind_host.is_empty()) {
        return "0.0.0.0".into();
    }
    if !s.bind_host.is_empty() {
        return s.bind_host.clone();
    }
    if !s.docker_dd_agent.is_empty() && !explicit {
        return "0.0.0.0".into();
    }
    "localhost".into()
}

/// The listeners for Datadog tracers. A socket that cannot be made is a
/// warning; a port that cannot be had is an error.
pub async fn bind_datadog(s: &Settings, agent: bool) -> Result<Vec<Listener>, String> {
    let mut listeners = Vec::new();
    if !s.receiver_enabled {
        return Ok(listeners);
    }
    if s.receiver_port > 0 {
        let host = host(s, agent);
        let listener = match host.parse::<IpAddr>() {
            Ok(ip) => {
                ports::bind("Datadog receiver", "DD_APM_RECEIVER_PORT", SocketAddr::new(ip, s.receiver_port))
                    .await?
            }
            Err(_) if host == "localhost" => {
                let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
                ports::bind("Datadog receiver", "DD_APM_RECEIVER_PORT", SocketAddr::new(ip, s.receiver_port))
                    .await?
            }
            Err(_) => Listener::tcp(&host, s.receiver_port)
                .await
                .map_err(|e| ports::explain("Datadog receiver", "DD_BIND_HOST", s.receiver_port, &e))?,
        };
        listeners.push(listener);
    }
    if !s.receiver_socket.is_empty() {
        match ports::bind_unix(&s.receiver_socket) {
            Ok(listener) => listeners.push(listener),
            Err(text) => tracing::warn!("{text}"),
        }
    }
    Ok(listeners)
}

/// The Datadog receiver's settings.
pub fn datadog(s: &Settings, containers: bool, hostname: &str, sources: Option<Arc<Sources>>) -> Config {
    let in_container = !s.docker_dd_agent.is_empty();
    let limit = |set: bool, value: f64| if in_container && !set { 0.0 } else { value };
    let mut peer_tags = rules::peer_tag_keys(&s.peer_tags.0);
    peer_tags.sort();
    Config {
        receiver_timeout: s.receiver_timeout,
        max_payload_size: s.max_payload_size,
        connection_limit: usize::try_from(s.connection_limit).unwrap_or(usize::MAX),
        max_connections: usize::try_from(s.max_connections).unwrap_or(usize::MAX).max(1),
        decoders: usize::try_from(s.decoders).unwrap_or(0),
        decoder_timeout: Duration::from_millis(s.decoder_timeout),
        features: s.features.0.clone(),
        remote_configuration: s.remote_configuration,
        set_log_level: s.remote_configuration.then(crate::logging::setter),
        containers,
        sources,
        proxy: outgoing::proxies(s, hostname),
        info: InfoConfig {
            version: convert::AGENT_VERSION.into(),
            git_commit: convert::AGENT_COMMIT.into(),
            client_drop_p0s: !s.probabilistic_sampler,
            default_env: convert::env(s),
            target_tps: s.target_tps,
            max_eps: s.max_eps,
            receiver_port: s.receiver_port,
            receiver_socket: s.receiver_socket.clone(),
            statsd_port: s.dogstatsd_port,
            max_memory: limit(s.is_set("apm_config.max_memory"), s.max_memory),
            max_cpu: limit(s.is_set("apm_config.max_cpu_percent"), s.max_cpu_percent) / 100.0,
            analyzed_spans: analyzed_spans(&s.analyzed_spans.0),
            obfuscation: Obfuscation {
                elastic_search: s.obfuscate_elasticsearch,
                mongo: s.obfuscate_mongodb,
                sql_exec_plan: s.obfuscate_sql_exec_plan,
                sql_exec_plan_normalize: s.obfuscate_sql_exec_plan_normalize,
                sql_obfuscation_mode: if s.sql_obfuscation_mode.is_empty() && convert::feature(s, "sqllexer")
                {
                    "obfuscate_only".into()
                } else {
                    s.sql_obfuscation_mode.clone()
                },
                http_remove_query_string: s.obfuscate_http_query,
                http_remove_path_digits: s.obfuscate_http_digits,
                remove_stack_traces: s.obfuscate_stack_traces,
                redis: s.obfuscate_redis,
                redis_remove_all_args: s.obfuscate_redis_all,
                valkey: s.obfuscate_valkey,
                valkey_remove_all_args: s.obfuscate_valkey_all,
                memcached: s.obfuscate_memcached,
                memcached_keep_command: s.obfuscate_memcached_keep_command,
            },
            peer_tags: s.peer_tags_aggregation.then_some(peer_tags),
            stats_by_span_kind: s.compute_stats_by_span_kind,
            filter_require: filters(&s.filter_tags_require.0),
            filter_reject: filters(&s.filter_tags_reject.0),
            filter_regex_require: s.filter_tags_regex_require.0.clone(),
            filter_regex_reject: s.filter_tags_regex_reject.0.clone(),
            ignore_resources: s.ignore_resources.0.clone(),
        },
    }
}

/// Tag filters as `/info` shows them: trimmed, and `key` for a key without value.
fn filters(texts: &[String]) -> Vec<String> {
    let shown = |text: &String| {
        let TagEntry { key, value } = TagEntry::parse(text);
        match value {
            Some(value) => format!("{key}:{value}"),
            None => key,
        }
    };
    texts.iter().map(shown).collect()
}

/// `service|operation` → rate, by service and operation.
fn analyzed_spans(rates: &BTreeMap<String, f64>) -> BTreeMap<String, BTreeMap<String, f64>> {
    let mut out: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
    for (name, rate) in rates {
        if let Some((service, operation)) = name.split_once('|') {
            out.entry(service.into()).or_default().insert(operation.into(), *rate);
        }
    }
    out
}

/// Finds the container of a request.
pub fn containers(s: &Settings, containers: bool) -> Result<Arc<dyn ContainerResolver>, String> {
    let found: Arc<dyn ContainerResolver> =
        if containers { Arc::new(cgroups(s)) } else { Arc::new(NoContainers) };
    Ok(match s.container_tags.as_str() {
        "" => found,
        path => Arc::new(TagsFile::open(path.as_ref(), found)?),
    })
}

/// Whether requests are told apart by container.
pub fn with_containers(s: &Settings, found: bool) -> bool {
    match s.containers.as_str() {
        "true" => true,
        "false" => false,
        _ => found,
    }
}

fn cgroups(s: &Settings) -> CgroupResolver {
    let host = std::path::Path::new("/host/proc").is_dir();
    let proc_root = match s.container_proc_root.as_str() {
        "" if host => "/host/proc",
        "" => "/proc",
        given => given,
    };
    let cgroup_root = if host { "/host/sys/fs/cgroup" } else { "/sys/fs/cgroup" };
    CgroupResolver::new(proc_root, cgroup_root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Layers;

    #[test]
    fn the_host_follows_the_agents_rules_and_run_stays_local() {
        let of = |vars: &[(&str, &str)], agent| {
            let env = vars.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            host(&Layers { env, ..Layers::default() }.resolve().unwrap().0, agent)
        };
        assert_eq!(of(&[], false), "localhost");
        assert_eq!(of(&[], true), "0.0.0.0");
        assert_eq!(of(&[("DD_APM_NON_LOCAL_TRAFFIC", "false")], true), "localhost");
        assert_eq!(of(&[("DD_BIND_HOST", "10.0.0.1")], true), "10.0.0.1");
        assert_eq!(
            of(&[("DD_BIND_HOST", "10.0.0.1"), ("DD_APM_NON_LOCAL_TRAFFIC", "true")], false),
            "0.0.0.0"
        );
        assert_eq!(of(&[("DOCKER_DD_AGENT", "true")], false), "0.0.0.0");
    }
}
