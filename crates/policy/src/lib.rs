//! Kuma's tracing resources: their format, their validation, and which policy
//! a proxy or a span has. Pure: texts in, decisions out. Spans on their way
//! out are routed by it, and the mesh control plane answers by it.
//!
//! Rules and texts are those of Kuma 2.14 (`kuma:pkg/core/resources/apis/mesh`,
//! `kuma:pkg/plugins/policies/meshtrace`, `kuma:pkg/core/policy`).
//!
//! | file | holds |
//! |---|---|
//! | `yaml.rs` | [`Document`]: YAML or JSON with the line of every field |
//! | `resource.rs` | [`Resource`]: the two envelopes, Universal and Kubernetes |
//! | `shape.rs` | types of the fields, fields that nobody knows |
//! | `meta.rs`, `mesh.rs`, `traffic_trace.rs`, `mesh_trace.rs`, `target_ref.rs` | validation, kind by kind |
//! | `url.rs` | URLs as Go reads them |
//! | `backend.rs` | [`Backend`]: where spans can go |
//! | `matching.rs` | selectors, their rank, [`choose_traffic_trace`] |
//! | `merge.rs` | [`merge_mesh_traces`]: which MeshTraces select a proxy, their order, RFC 7396 |
//! | `policies.rs` | [`Policies::decide`]: where a span goes, and whether its trace is kept |
//! | `load.rs` | [`load`]: files to [`Policies`], or what is wrong with them |
#![forbid(unsafe_code)]

mod backend;
mod load;
mod matching;
mod merge;
mod mesh;
mod mesh_trace;
mod meta;
mod policies;
mod resource;
mod shape;
mod target_ref;
mod traffic_trace;
mod url;
mod yaml;

pub use backend::{Backend, Datadog, OpenTelemetry, Target, Zipkin, ZipkinVersion};
pub use load::{Loaded, Problem, load};
pub use matching::{Rank, Selector, TagSet, choose_traffic_trace};
pub use merge::{Proxy, ProxyType, merge_mesh_traces, sort_mesh_traces};
pub use policies::{Decision, Policies, Why, kept};
pub use resource::{Envelope, Kind, NotAResource, Resource};
pub use yaml::{Document, NotYaml, Place};

/// A rule that a resource breaks, in Kuma's words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Path of the field: `tracing.backends[0].config.url`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl Violation {
    fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}
