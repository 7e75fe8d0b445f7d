//! Statistics on their way: from the concentrator and from tracers, to the
//! intake and to local answers.

use super::chain::lock;
use bytes::Bytes;
use spanloom_exporters::DatadogExporter;
use spanloom_model::stats::StatsPayload;
use spanloom_obfuscator::Obfuscator;
use spanloom_pipeline::{ClientStats, Clock, Rates, StatsBusy, StatsSink};
use spanloom_processors::{AgentConfig, ClientStatsRequest, prepare_client_stats};
use spanloom_sampler::Samplers;
use spanloom_stats::{ClientAggregator, Concentrator, MAX_GROUPS, Red, encode, fold_duplicates, split};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Everything that statistics pass through.
pub struct Statistics {
    /// Statistics of spans.
    pub concentrator: Arc<Mutex<Concentrator>>,
    /// Statistics that tracers computed.
    pub clients: Mutex<ClientAggregator>,
    /// Requests, errors and latencies for local answers.
    pub red: Mutex<Red>,
    /// Where they leave; none: they stay.
    pub exporter: Option<Arc<DatadogExporter>>,
    /// The samplers, whose rates tracers are told.
    pub samplers: Option<Arc<Mutex<Samplers>>>,
    /// The rates as the receiver answers them.
    pub rates: Rates,
    /// Names, filters and replacements for tracers' statistics.
    pub agent: AgentConfig,
    /// Scrubbing for the same.
    pub obfuscator: Arc<Obfuscator>,
    /// Default environment.
    pub env: String,
    /// Feature `disable_cid_stats`.
    pub without_container: bool,
    /// Seed of hash tables.
    pub seed: u64,
    /// State of the pseudo-random numbers that round weighted sums.
    pub random: Mutex<u64>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl StatsSink for Statistics {
    fn accept(&self, stats: ClientStats) -> Result<(), StatsBusy> {
        let mut payload = stats.payload;
        let request = ClientStatsRequest {
            lang: &stats.lang,
            tracer_version: &stats.tracer_version,
            container_id: &stats.container_id,
            obfuscated: !stats.obfuscation_version.is_empty(),
            env: &self.env,
        };
        prepare_client_stats(&mut payload, request, &self.agent, &self.obfuscator, self.without_container);
        fold_duplicates(&mut payload, self.seed);
        lock(&self.clients).add::<&str>(payload, &[], stats.received_at);
        Ok(())
    }
}

impl Statistics {
    /// Sends the buckets that are over; all of them at the end.
    pub fn flush(&self, all: bool) {
        let now = self.clock.now();
        let mut random = || self.next_random();
        let own = lock(&self.concentrator).flush(now, all, &mut random);
        let clients = lock(&self.clients).flush(now, all);
        for payload in std::iter::once(own).chain(clients) {
            if payload.stats.is_empty() {
                continue;
            }
            lock(&self.red).merge(&payload, now);
            self.send(payload);
        }
        if let Some(samplers) = &self.samplers {
            let rates = Arc::clone(lock(samplers).rates());
            self.rates.publish(BTreeMap::clone(&rates), now);
        }
    }

    fn send(&self, payload: StatsPayload) {
        let Some(exporter) = &self.exporter else { return };
        for part in split(payload, MAX_GROUPS) {
            let groups: usize = part.stats.iter().map(|s| s.group_count()).sum();
            let mut body = Vec::new();
            encode(&part, &mut body);
            exporter.send_stats(Bytes::from(body), groups as u64);
        }
    }

    /// Uniform in [0, 1): xorshift is random enough to round sums.
    fn next_random(&self) -> f64 {
        let mut x = lock(&self.random);
        *x ^= *x << 13;
        *x ^= *x >> 7;
        *x ^= *x << 17;
        (*x >> 11) as f64 / (1u64 << 53) as f64
    }
}
