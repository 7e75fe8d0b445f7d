//! Trace statistics as they travel: what a tracer sends to `/v0.6/stats` and
//! what leaves for the intake.
//!
//! Owned and plain, because stats live longer than the request that brought
//! them. Field meaning follows `datadog-agent:pkg/proto/datadog/trace/stats.proto`;
//! sketches stay encoded (protobuf `DDSketch`) until somebody must merge them.
//! These types bound nothing themselves: the decoder limits counts and sizes.

/// A yes/no that may be unsaid (proto `Trilean`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
#[repr(u8)]
pub enum Trilean {
    /// Nothing was said.
    #[default]
    NotSet = 0,
    /// Yes.
    True = 1,
    /// No.
    False = 2,
}

impl Trilean {
    /// From the number on the wire; anything unknown is [`Trilean::NotSet`].
    pub const fn from_number(n: i32) -> Self {
        match n {
            1 => Self::True,
            2 => Self::False,
            _ => Self::NotSet,
        }
    }
    /// The number on the wire.
    pub const fn number(self) -> i32 {
        self as i32
    }
}

impl From<bool> for Trilean {
    fn from(yes: bool) -> Self {
        if yes { Self::True } else { Self::False }
    }
}

/// What leaves for the intake: the stats of many sources.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct StatsPayload {
    /// Host of the agent.
    pub agent_hostname: String,
    /// Default environment of the agent.
    pub agent_env: String,
    /// One entry per source (see [`ClientStatsPayload`]).
    pub stats: Vec<ClientStatsPayload>,
    /// Version of the agent.
    pub agent_version: String,
    /// The figures were computed by tracers.
    pub client_computed: bool,
    /// The payload is one of several that were one.
    pub split_payload: bool,
}

/// Stats of one source: sent by a tracer, or computed here for one
/// combination of environment, host, version, container and language.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct ClientStatsPayload {
    /// Host of the application.
    pub hostname: String,
    /// Environment.
    pub env: String,
    /// Version of the application.
    pub version: String,
    /// Time buckets.
    pub stats: Vec<ClientStatsBucket>,
    /// Language of the tracer.
    pub lang: String,
    /// Version of the tracer.
    pub tracer_version: String,
    /// Id of the sending process; with `sequence` it identifies a message.
    pub runtime_id: String,
    /// Number of the message within `runtime_id`.
    pub sequence: u64,
    /// How the agent aggregated; set by agents only.
    pub agent_aggregation: String,
    /// Main service of the tracer, or the base service.
    pub service: String,
    /// Container of the application.
    pub container_id: String,
    /// Container tags; empty when not known.
    pub tags: Vec<String>,
    /// Commit the application was built from.
    pub git_commit_sha: String,
    /// Tag of the container image.
    pub image_tag: String,
    /// Hash of `process_tags`.
    pub process_tags_hash: u64,
    /// Process tags, `key:value` joined by commas.
    pub process_tags: String,
}

impl ClientStatsPayload {
    /// Number of groups over all buckets.
    pub fn group_count(&self) -> usize {
        self.stats.iter().map(|b| b.stats.len()).sum()
    }
}

/// Stats of one span of time.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct ClientStatsBucket {
    /// Start, nanoseconds since the Unix epoch.
    pub start: u64,
    /// Width in nanoseconds.
    pub duration: u64,
    /// One entry per combination of the aggregation key.
    pub stats: Vec<ClientGroupedStats>,
    /// Nanoseconds by which an agent moved `start`.
    pub agent_time_shift: i64,
}

/// Figures of one aggregation key within one bucket.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct ClientGroupedStats {
    /// Service.
    pub service: String,
    /// Operation.
    pub name: String,
    /// Resource.
    pub resource: String,
    /// HTTP status; 0 when there is none.
    pub http_status_code: u32,
    /// Span type (`web`, `sql`).
    pub span_type: String,
    /// Kind of database; a hint for obfuscation.
    pub db_type: String,
    /// Spans counted, weighted.
    pub hits: u64,
    /// Failed spans, weighted.
    pub errors: u64,
    /// Sum of durations in nanoseconds, weighted.
    pub duration: u64,
    /// Latencies in nanoseconds of spans that succeeded: protobuf `DDSketch`.
    pub ok_summary: Vec<u8>,
    /// Latencies in nanoseconds of spans that failed: protobuf `DDSketch`.
    pub error_summary: Vec<u8>,
    /// The trace comes from a synthetic test.
    pub synthetics: bool,
    /// Spans that are entries of their service, weighted.
    pub top_level_hits: u64,
    /// `span.kind` as text.
    pub span_kind: String,
    /// Tags of the peer, `key:value`.
    pub peer_tags: Vec<String>,
    /// Whether the spans are roots of their traces.
    pub is_trace_root: Trilean,
    /// gRPC status as decimal text; empty when there is none.
    pub grpc_status_code: String,
    /// HTTP method; set by tracers only.
    pub http_method: String,
    /// HTTP route; set by tracers only.
    pub http_endpoint: String,
    /// Where the service name came from (`_dd.svc_src`).
    pub service_source: String,
    /// Extra dimensions, older name, `key:value`.
    pub span_derived_primary_tags: Vec<String>,
    /// Extra dimensions, `key:value`.
    pub additional_metric_tags: Vec<String>,
}
