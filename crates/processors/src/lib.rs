//! What the Datadog Agent does to the spans of a request between decoding and
//! sampling, in its exact order (`datadog-agent:pkg/trace/agent/agent.go`).
//! Pure: time and settings are arguments.
//!
//! | file | holds |
//! |---|---|
//! | `agent.rs` | [`Agent`]: the steps in their order |
//! | `client_stats.rs` | the same for statistics that a tracer computed |
//! | `ids.rs` | where the spans of a chunk are, by id |
//! | `names.rs` | rules for names, services and tag text |
//! | `normalizer.rs` | makes spans valid or refuses the chunk |
//! | `filter.rs` | ignored resources, tag filters |
//! | `obfuscate.rs` | which tags of which span types are scrubbed |
//! | `truncator.rs` | cuts what is too long |
//! | `replacer.rs` | a user's replacements |
//! | `top_level.rs` | marks the spans that a service was entered by |
//! | `go_regex.rs` | Go's expressions on a linear-time engine |
#![forbid(unsafe_code)]

mod agent;
mod client_stats;
mod filter;
pub mod go_regex;
mod ids;
pub mod names;
mod normalizer;
mod obfuscate;
mod replacer;
pub mod top_level;
mod truncator;

pub use agent::{Agent, AgentConfig};
pub use client_stats::{ClientStatsRequest, prepare_client_stats};
pub use filter::{BadPattern, IgnoredResources, TagEntry, TagFilters};
pub use ids::SpanIds;
pub use normalizer::{
    NormalizerConfig, fill_chunk_attributes, is_http_status, normalize_chunk, normalize_times,
};
pub use obfuscate::SpanObfuscator;
pub use replacer::{Replacer, RuleText};
pub use truncator::{MAX_BIG_RESOURCE, MAX_RESOURCE, truncate_span};

/// What the steps counted, by the Agent's reasons.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Counts {
    /// `spans_malformed`: reason and number, in order of first appearance.
    pub malformed: Vec<(&'static str, u64)>,
}

impl Counts {
    /// Counts one malformation.
    pub fn malformed(&mut self, reason: &'static str) {
        match self.malformed.iter_mut().find(|(r, _)| *r == reason) {
            Some((_, n)) => *n += 1,
            None => self.malformed.push((reason, 1)),
        }
    }
}
