//! Statistics that a tracer computed, made fit for merging: the same names,
//! filters, scrubbing and replacements as spans get
//! (`datadog-agent:pkg/trace/agent/agent.go`, `processStats`).

use crate::{AgentConfig, names};
use spanloom_model::stats::{ClientGroupedStats, ClientStatsPayload};
use spanloom_obfuscator::{Obfuscator, SqlMode, quantize_redis};

/// What the request said besides the payload.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClientStatsRequest<'a> {
    /// `Datadog-Meta-Lang`.
    pub lang: &'a str,
    /// `Datadog-Meta-Tracer-Version`.
    pub tracer_version: &'a str,
    /// Container of the request; empty if unknown.
    pub container_id: &'a str,
    /// The tracer has scrubbed the resources itself.
    pub obfuscated: bool,
    /// The agent's default environment.
    pub env: &'a str,
}

/// Corrects a payload in place. Groups of ignored resources go; how many, is
/// the answer. Folding of groups that became equal is the caller's next step.
pub fn prepare_client_stats(
    payload: &mut ClientStatsPayload,
    request: ClientStatsRequest<'_>,
    config: &AgentConfig,
    obfuscator: &Obfuscator,
    without_container: bool,
) -> usize {
    payload.container_id = if without_container { String::new() } else { request.container_id.to_owned() };
    if without_container {
        payload.tags.clear();
    }
    if payload.env.is_empty() {
        payload.env = request.env.to_owned();
    }
    payload.env = names::normalize_tag_value(&payload.env).into_owned();
    if payload.tracer_version.is_empty() {
        payload.tracer_version = request.tracer_version.to_owned();
    }
    if payload.lang.is_empty() {
        payload.lang = request.lang.to_owned();
    }
    let mut ignored = 0;
    for bucket in &mut payload.stats {
        bucket.stats.retain_mut(|group| {
            let keep = prepare_group(group, request.lang, request.obfuscated, config, obfuscator);
            ignored += usize::from(!keep);
            keep
        });
    }
    ignored
}

fn prepare_group(
    group: &mut ClientGroupedStats,
    lang: &str,
    obfuscated: bool,
    config: &AgentConfig,
    obfuscator: &Obfuscator,
) -> bool {
    group.name = names::normalize_name(&group.name).0.into_owned();
    group.service = names::normalize_service(&group.service, lang).0.into_owned();
    if group.resource.is_empty() {
        group.resource.clone_from(&group.name);
    }
    // Their order means nothing.
    group.peer_tags.sort();
    group.additional_metric_tags.sort();
    // The Agent neither tells groups apart by these nor passes them on.
    group.span_derived_primary_tags.clear();
    if config.ignored.contains(&group.resource) {
        return false;
    }
    if !obfuscated {
        match group.span_type.as_str() {
            "sql" | "cassandra" => {
                let lexer = obfuscator.config().sql.mode != SqlMode::Builtin;
                let dbms = lexer.then_some(group.db_type.as_str());
                group.resource = obfuscator.sql_text(&group.resource, dbms).into_owned();
            }
            "redis" | "valkey" => group.resource = quantize_redis(&group.resource).into_owned(),
            _ => {}
        }
    }
    let keep = names::truncate_utf8(&group.resource, config.max_resource).len();
    group.resource.truncate(keep);
    config.replacer.replace_group(&mut group.resource, &mut group.http_status_code);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IgnoredResources, Replacer, RuleText};
    use spanloom_model::stats::ClientStatsBucket;
    use spanloom_obfuscator::Config;

    fn group(span_type: &str, resource: &str) -> ClientGroupedStats {
        ClientGroupedStats {
            service: "Web Shop".into(),
            name: "web request".into(),
            resource: resource.into(),
            span_type: span_type.into(),
            http_status_code: 404,
            hits: 1,
            ..ClientGroupedStats::default()
        }
    }

    #[test]
    fn groups_take_the_requests_language_sorted_tags_and_a_status_of_zero_too() {
        let replacer = Replacer::new(&[RuleText {
            name: "http.status_code".into(),
            pattern: "^0$".into(),
            repl: "200".into(),
        }])
        .unwrap();
        let config = AgentConfig { replacer, ..AgentConfig::default() };
        let group = ClientGroupedStats {
            peer_tags: vec!["b:1".into(), "a:2".into()],
            span_derived_primary_tags: vec!["x:y".into()],
            ..ClientGroupedStats::default()
        };
        let mut payload = ClientStatsPayload {
            lang: "go".into(),
            stats: vec![ClientStatsBucket { stats: vec![group], ..ClientStatsBucket::default() }],
            ..ClientStatsPayload::default()
        };
        let request = ClientStatsRequest { lang: "python", ..ClientStatsRequest::default() };
        prepare_client_stats(&mut payload, request, &config, &Obfuscator::new(Config::agent()), false);
        let g = &payload.stats[0].stats[0];
        assert_eq!((g.service.as_str(), payload.lang.as_str()), ("unnamed-python-service", "go"));
        assert_eq!((g.http_status_code, &g.peer_tags[..]), (200, &["a:2".to_owned(), "b:1".to_owned()][..]));
        assert!(g.span_derived_primary_tags.is_empty());
    }

    #[test]
    fn groups_are_named_filtered_scrubbed_and_replaced_like_spans() {
        let config = AgentConfig {
            ignored: IgnoredResources::new(&["^GET /health$".into()]).0,
            replacer: Replacer::new(&[RuleText {
                name: "http.status_code".into(),
                pattern: "404".into(),
                repl: "400".into(),
            }])
            .unwrap(),
            ..AgentConfig::default()
        };
        let mut payload = ClientStatsPayload {
            stats: vec![ClientStatsBucket {
                stats: vec![group("web", "GET /health"), group("sql", "SELECT 1"), group("web", "")],
                ..ClientStatsBucket::default()
            }],
            ..ClientStatsPayload::default()
        };
        let request =
            ClientStatsRequest { lang: "python", env: "Prod East", ..ClientStatsRequest::default() };
        let obfuscator = Obfuscator::new(Config::agent());
        let mut done = payload.clone();
        done.stats[0].stats.truncate(2);
        assert_eq!(prepare_client_stats(&mut payload, request, &config, &obfuscator, false), 1);
        assert_eq!((payload.env.as_str(), payload.lang.as_str()), ("prod_east", "python"));
        let groups = &payload.stats[0].stats;
        assert_eq!(groups[0].resource, "SELECT ?");
        assert_eq!(groups[1].resource, "web_request");
        assert_eq!((groups[0].service.as_str(), groups[0].http_status_code), ("web_shop", 400));
        let request = ClientStatsRequest { obfuscated: true, ..request };
        prepare_client_stats(&mut done, request, &config, &obfuscator, false);
        assert_eq!(done.stats[0].stats[0].resource, "SELECT 1", "the tracer's own scrubbing stands");
    }
}
