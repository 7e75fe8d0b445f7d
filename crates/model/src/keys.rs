//! Well-known attribute keys, spelled once.
#![allow(missing_docs)] // each constant is its own text

pub const TRACE_ID_HIGH: &str = "_dd.p.tid";
pub const SAMPLING_PRIORITY: &str = "_sampling_priority_v1";
pub const DECISION_MAKER: &str = "_dd.p.dm";
pub const ORIGIN: &str = "_dd.origin";
pub const HOSTNAME: &str = "_dd.hostname";
pub const TOP_LEVEL: &str = "_top_level";
pub const DD_TOP_LEVEL: &str = "_dd.top_level";
pub const MEASURED: &str = "_dd.measured";
pub const PARTIAL_VERSION: &str = "_dd.partial_version";
pub const BASE_SERVICE: &str = "_dd.base_service";
pub const PROCESS_TAGS: &str = "_dd.tags.process";
pub const CONTAINER_TAGS: &str = "_dd.tags.container";
pub const GIT_COMMIT_SHA: &str = "_dd.git.commit.sha";
pub const SAMPLE_RATE: &str = "_sample_rate";
pub const DD_SPAN_LINKS: &str = "_dd.span_links";
pub const DD_EVENTS: &str = "events";
pub const ENV: &str = "env";
pub const VERSION: &str = "version";
pub const COMPONENT: &str = "component";
pub const SPAN_KIND: &str = "span.kind";
pub const PEER_SERVICE: &str = "peer.service";
pub const ZIPKIN_PEER_SERVICE: &str = "zipkin.peer.service";
pub const HTTP_STATUS_CODE: &str = "http.status_code";
pub const ERROR: &str = "error";
pub const ERROR_MESSAGE: &str = "error.message";
pub const ERROR_MSG: &str = "error.msg";
pub const ERROR_TYPE: &str = "error.type";
pub const ERROR_STACK: &str = "error.stack";
pub const SERVICE_NAME: &str = "service.name";
/// What Jaeger's APIs call the service of spans that name none.
pub const UNKNOWN_SERVICE: &str = "unknown";
pub const RESOURCE_NAME: &str = "resource.name";
pub const SPAN_TYPE: &str = "span.type";
pub const STATUS_CODE: &str = "otel.status_code";
pub const STATUS_DESCRIPTION: &str = "otel.status_description";
