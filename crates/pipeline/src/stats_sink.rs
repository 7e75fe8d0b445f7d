//! Where statistics computed by tracers go.

use crate::processor::Saved;
use spanloom_model::stats::ClientStatsPayload;

/// A body of `/v0.6/stats`, decoded but not yet normalised, with what the
/// request said.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ClientStats {
    /// The payload as sent.
    pub payload: ClientStatsPayload,
    /// `Datadog-Meta-Lang`.
    pub lang: String,
    /// `Datadog-Meta-Tracer-Version`.
    pub tracer_version: String,
    /// Container of the request; empty if unknown.
    pub container_id: String,
    /// `Datadog-Obfuscation-Version`; not empty: resources are already
    /// obfuscated.
    pub obfuscation_version: String,
    /// Arrival, nanoseconds since the Unix epoch.
    pub received_at: i64,
    /// Hash of the body, see [`spanloom_model::Intake::fingerprint`].
    pub fingerprint: u64,
}

/// The aggregator has no room now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the statistics aggregator is busy")]
pub struct StatsBusy;

/// Takes client statistics in.
pub trait StatsSink: Send + Sync {
    /// Takes a payload. Does not block; `saved` is dropped when it is as safe
    /// as the acknowledgement policy asks.
    ///
    /// # Errors
    /// [`StatsBusy`]: the client is told to try again.
    fn accept(&self, stats: ClientStats, saved: Saved) -> Result<(), StatsBusy>;
}

/// Takes everything and keeps nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiscardStats;

impl StatsSink for DiscardStats {
    fn accept(&self, _stats: ClientStats, _saved: Saved) -> Result<(), StatsBusy> {
        Ok(())
    }
}
