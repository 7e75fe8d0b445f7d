//! `/info`: what tracers ask before they decide what to send, and the hash of
//! it that every other answer carries (datadog-agent:pkg/trace/api/info.go).

use super::gojson::Json;
use super::{Config, Receiver};
use crate::answer::{self, Answer};
use crate::server::Request;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use sha2::{Digest, Sha256};

/// Peer tags that statistics are made of unless settings add more, sorted.
pub const BUILT_IN_PEER_TAGS: [&str; 43] = [
    "_dd.base_service",
    "active_record.db.vendor",
    "amqp.destination",
    "amqp.exchange",
    "amqp.queue",
    "aws.queue.name",
    "aws.s3.bucket",
    "bucketname",
    "cassandra.keyspace",
    "db.cassandra.contact.points",
    "db.couchbase.seed.nodes",
    "db.hostname",
    "db.instance",
    "db.name",
    "db.namespace",
    "db.system",
    "db.type",
    "dns.hostname",
    "grpc.host",
    "hostname",
    "http.host",
    "http.server_name",
    "messaging.destination",
    "messaging.destination.name",
    "messaging.kafka.bootstrap.servers",
    "messaging.rabbitmq.exchange",
    "messaging.system",
    "mongodb.db",
    "msmq.queue.path",
    "net.peer.name",
    "network.destination.ip",
    "network.destination.name",
    "out.host",
    "peer.hostname",
    "peer.service",
    "queuename",
    "rpc.service",
    "rpc.system",
    "sequel.db.vendor",
    "server.address",
    "streamname",
    "tablename",
    "topicname",
];

/// Headers that the EVP proxy lets through.
pub(crate) const EVP_HEADERS: [&str; 5] =
    ["Content-Type", "Accept-Encoding", "Content-Encoding", "User-Agent", "DD-CI-PROVIDER-NAME"];

/// Tags that count for `Datadog-Container-Tags-Hash`.
const HASHED_TAGS: [&str; 9] = [
    "kube_job",
    "kube_replica_set",
    "kube_container_name",
    "kube_namespace",
    "kube_app_name",
    "kube_app_managed_by",
    "service",
    "short_image",
    "kube_cluster_name",
];

/// The body, made once.
pub(super) struct Info {
    body: Bytes,
    hash: String,
}

impl Info {
    pub(super) fn new(config: &Config, endpoints: &[&str]) -> Self {
        let body = Bytes::from(document(config, endpoints).print());
        Self { hash: hex(&Sha256::digest(&body)), body }
    }

    pub(super) fn hash(&self) -> &str {
        &self.hash
    }

    pub(super) fn body(&self) -> Bytes {
        self.body.clone()
    }

    pub(super) fn answer(&self, container_tags_hash: Option<String>) -> Answer {
        let mut answer = answer::typed(StatusCode::OK, answer::TEXT, self.body.clone());
        if let Some(hash) = container_tags_hash.and_then(|h| HeaderValue::try_from(h).ok()) {
            answer.headers_mut().insert("datadog-container-tags-hash", hash);
        }
        answer
    }
}

impl Receiver {
    /// Hash of the tags of the container that the request comes from; of no
    /// tags if it is not known.
    pub(super) fn container_tags_hash(&self, request: &Request) -> Option<String> {
        let container = self.container_of(request);
        let tags = self.containers.tags(&container).unwrap_or_default();
        let mut tags: Vec<&str> = tags
            .iter()
            .map(String::as_str)
            .filter(|t| t.split_once(':').is_some_and(|(key, _)| HASHED_TAGS.contains(&key)))
            .collect();
        tags.sort_unstable();
        Some(hex(&Sha256::digest(tags.join(","))))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn document(config: &Config, endpoints: &[&str]) -> Json {
    let c = &config.info;
    let mut fields = vec![
        ("version", Json::Text(c.version.clone())),
        ("git_commit", Json::Text(c.git_commit.clone())),
        ("endpoints", Json::texts(endpoints)),
    ];
    if !config.features.is_empty() {
        fields.push(("feature_flags", Json::texts(&config.features)));
    }
    let peer_tags = c.peer_tags.as_ref().map(|tags| {
        let mut tags = tags.clone();
        tags.sort_unstable();
        tags.dedup();
        tags
    });
    // The Agent's order is random per process; a fixed one keeps the hash.
    let kinds = c.stats_by_span_kind.then_some(["client", "consumer", "producer", "server"]);
    fields.extend([
        ("client_drop_p0s", Json::Bool(c.client_drop_p0s)),
        ("span_meta_structs", Json::Bool(true)),
        ("long_running_spans", Json::Bool(true)),
        ("span_events", Json::Bool(true)),
        ("evp_proxy_allowed_headers", Json::texts(&EVP_HEADERS)),
        ("config", settings(config)),
        ("peer_tags", peer_tags.map_or(Json::Null, |t| Json::texts(&t))),
        ("span_kinds_stats_computed", kinds.map_or(Json::Null, |k| Json::texts(&k))),
        ("obfuscation_version", Json::Number(1.0)),
        ("filter_tags", filters(&c.filter_require, &c.filter_reject)),
        ("filter_tags_regex", filters(&c.filter_regex_require, &c.filter_regex_reject)),
    ]);
    if !c.ignore_resources.is_empty() {
        fields.push(("ignore_resources", Json::texts(&c.ignore_resources)));
    }
    Json::Object(fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
}

fn filters(require: &[String], reject: &[String]) -> Json {
    let lists = [("require", require), ("reject", reject)];
    let present = lists.into_iter().filter(|(_, list)| !list.is_empty());
    Json::Object(present.map(|(key, list)| (key.to_owned(), Json::texts(list))).collect())
}

fn settings(config: &Config) -> Json {
    let c = &config.info;
    let o = &c.obfuscation;
    let rates = |operations: &std::collections::BTreeMap<String, f64>| {
        Json::Object(operations.iter().map(|(k, rate)| (k.clone(), Json::Number(*rate))).collect())
    };
    Json::object([
        ("default_env", Json::Text(c.default_env.clone())),
        ("target_tps", Json::Number(c.target_tps)),
        ("max_eps", Json::Number(c.max_eps)),
        ("receiver_port", Json::Number(f64::from(c.receiver_port))),
        ("receiver_socket", Json::Text(c.receiver_socket.clone())),
        ("connection_limit", Json::Number(config.connection_limit as f64)),
        ("receiver_timeout", Json::Number(config.receiver_timeout as f64)),
        ("max_request_bytes", Json::Number(config.max_payload_size as f64)),
        ("statsd_port", Json::Number(f64::from(c.statsd_port))),
        ("max_memory", Json::Number(c.max_memory)),
        ("max_cpu", Json::Number(c.max_cpu)),
        (
            "analyzed_spans_by_service",
            Json::Object(c.analyzed_spans.iter().map(|(k, v)| (k.clone(), rates(v))).collect()),
        ),
        (
            "obfuscation",
            Json::object([
                ("elastic_search", Json::Bool(o.elastic_search)),
                ("mongo", Json::Bool(o.mongo)),
                ("sql_exec_plan", Json::Bool(o.sql_exec_plan)),
                ("sql_exec_plan_normalize", Json::Bool(o.sql_exec_plan_normalize)),
                ("sql_obfuscation_mode", Json::Text(o.sql_obfuscation_mode.clone())),
                (
                    "http",
                    Json::object([
                        ("remove_query_string", Json::Bool(o.http_remove_query_string)),
                        ("remove_path_digits", Json::Bool(o.http_remove_path_digits)),
                    ]),
                ),
                ("remove_stack_traces", Json::Bool(o.remove_stack_traces)),
                ("redis", cache(o.redis, o.redis_remove_all_args)),
                ("valkey", cache(o.valkey, o.valkey_remove_all_args)),
                (
                    "memcached",
                    Json::object([
                        ("enabled", Json::Bool(o.memcached)),
                        ("keep_command", Json::Bool(o.memcached_keep_command)),
                    ]),
                ),
            ]),
        ),
    ])
}

fn cache(enabled: bool, all: bool) -> Json {
    Json::object([("enabled", Json::Bool(enabled)), ("remove_all_args", Json::Bool(all))])
}
