//! Doors out: what leaves the machine, and how it waits when it cannot.
//!
//! | file | holds |
//! |---|---|
//! | `outlet.rs` | [`Outlet`]: queues, writer and senders, for any [`Format`] |
//! | `spool.rs` | [`Spool`]: a bounded queue on disk for one destination |
//! | `spool/parts.rs` | in it, payloads that are compressed while they grow |
//! | `strand.rs` | where these are compressed, once for all destinations |
//! | `stats_log.rs` | [`StatsLog`]: what is counted and not queued yet, on disk |
//! | `sender.rs` | [`Sender`]: sends, retries, backs off |
//! | `transport.rs` | [`Transport`]: the HTTP client, passed in |
//! | `datadog.rs` | [`DatadogExporter`]: traces and statistics to the Datadog intake |
//! | `formats.rs` | Zipkin, OTLP, and v0.4 for another Datadog Agent |
//! | `routing.rs` | [`RoutingTable`]: which chunk goes where, by policies |
//! | `router.rs` | [`Router`]: hands chunks to the backends of policies |
//! | `ack.rs` | one acknowledgement out of many |
#![forbid(unsafe_code)]

mod ack;
mod datadog;
mod formats;
mod outlet;
mod router;
mod routing;
mod sender;
mod spool;
mod stats_log;
mod strand;
mod transport;

pub use datadog::{DatadogConfig, DatadogExporter};
pub use formats::{DatadogV04, OtlpProto, ZipkinJson, ZipkinProto};
pub use outlet::{DestinationStats, Format, MAX_PAYLOAD, Outlet, OutletConfig};
pub use router::{BackendStats, Router, RouterConfig};
pub use routing::{BY_POLICY, RoutingTable};
pub use sender::{Endpoint, Sender};
pub use spool::{Claim, KindStats, Pending, Request, Spool, SpoolConfig, SpoolError, SpoolStats, Tried};
pub use stats_log::{
    Recovered, Request as CountedRequest, SafeFn, StatsLog, StatsLogConfig, StatsLogStats, StatsPart,
};
pub use transport::{NoAnswer, Post, Transport};
