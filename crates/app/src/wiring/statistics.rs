//! Statistics on their way: from the concentrator and from tracers, to the
//! intake and to local answers.

use super::chain::lock;
use super::red_log::RedLog;
use crate::report::Gauge;
use bytes::Bytes;
use spanloom_exporters::{CountedRequest, DatadogExporter, StatsLog, StatsPart};
use spanloom_model::stats::StatsPayload;
use spanloom_obfuscator::Obfuscator;
use spanloom_pipeline::{ClientStats, Clock, Saved, StatsBusy, StatsSink};
use spanloom_processors::{AgentConfig, ClientStatsRequest, prepare_client_stats};
use spanloom_receivers::datadog::ContainerResolver;
use spanloom_stats::{
    ClientAggregator, Concentrator, MAX_GROUPS, Red, RedFilter, RedSeries, encode, fold_duplicates, split,
};
use std::sync::{Arc, Mutex};

/// Everything that statistics pass through.
pub struct Statistics {
    /// Statistics of spans.
    pub concentrator: Arc<Mutex<Concentrator>>,
    /// Statistics of spans that policies send elsewhere: for local answers
    /// only, because they say what those spans say.
    pub routed: Arc<Mutex<Concentrator>>,
    /// Statistics that tracers computed.
    pub clients: Mutex<ClientAggregator>,
    /// Requests, errors and latencies for local answers.
    pub red: Mutex<Red>,
    /// Where these are after a restart.
    pub red_log: RedLog,
    /// Where they leave; none: they stay.
    pub leave: Option<Leave>,
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
    /// Knows the tags of containers.
    pub containers: Arc<dyn ContainerResolver>,
}

/// The way out of statistics.
pub struct Leave {
    /// What is counted and not queued yet, on disk.
    pub log: Arc<StatsLog>,
    /// The queues.
    pub exporter: Arc<DatadogExporter>,
}

impl StatsSink for Statistics {
    fn accept(&self, stats: ClientStats, saved: Saved) -> Result<(), StatsBusy> {
        let log = self.leave.as_ref().map(|l| &l.log);
        if log.is_some_and(|l| l.counted_before(stats.fingerprint, stats.received_at)) {
            return Ok(());
        }
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
        let tags = match payload.container_id.as_str() {
            "" => Vec::new(),
            id => self.containers.tags(id).unwrap_or_default(),
        };
        let mut clients = lock(&self.clients);
        let Some(log) = log else {
            clients.add(payload, &tags, stats.received_at);
            return Ok(());
        };
        clients.complete(&mut payload, &tags);
        let request = CountedRequest { fingerprint: stats.fingerprint, received_at: stats.received_at };
        log.client(&mut clients, payload, request, Box::new(move || drop(saved)));
        Ok(())
    }
}

impl Statistics {
    /// Sends the buckets that are over; all of them at the end.
    pub fn flush(&self, all: bool) {
        let now = self.clock.now();
        let mut random = || self.next_random();
        let own = lock(&self.concentrator).flush(now, all, &mut random);
        let (clients, starts) = {
            let mut clients = lock(&self.clients);
            let before: Vec<i64> = clients.open_buckets().collect();
            let flushed = clients.flush(now, all);
            let starts: Vec<i64> =
                before.into_iter().filter(|start| clients.open_buckets().all(|s| s != *start)).collect();
            (flushed, starts)
        };
        let mut bodies = Vec::new();
        for mut payload in std::iter::once(own).chain(clients) {
            if payload.stats.is_empty() {
                continue;
            }
            self.add_container_tags(&mut payload);
            lock(&self.red).merge(&payload, now);
            if self.leave.is_some() {
                bodies.extend(split(payload, MAX_GROUPS).iter().map(body));
            }
        }
        if let Some(leave) = &self.leave {
            leave.log.hand_over(&starts, bodies, &|part| leave.queue(part));
        }
        let routed = lock(&self.routed).flush(now, all, &mut random);
        if !routed.stats.is_empty() {
            lock(&self.red).merge(&routed, now);
        }
        self.red_log.save(&self.red);
    }

    /// Requests, errors and latencies, also of what is not flushed yet.
    pub fn red(&self, filter: &RedFilter<'_>) -> Vec<RedSeries> {
        let mut live = lock(&self.concentrator).peek_of(filter.services);
        live.stats.append(&mut lock(&self.routed).peek_of(filter.services).stats);
        lock(&self.red).query(filter, Some(&live))
    }

    /// For metrics and status.
    pub fn figures(&self, gauges: &mut Vec<Gauge>) {
        let mut add = |name, help, value: u64, counter| {
            gauges.push(Gauge { name, label: None, help, value: value as f64, counter });
        };
        if let Some(leave) = &self.leave {
            let stats = leave.log.stats();
            add("stats_log_bytes", "Bytes of the log of statistics.", stats.bytes, false);
            let waiting = "Payloads of statistics that a queue did not take yet.";
            add("stats_log_waiting", waiting, stats.waiting, false);
            let failures =
                "Requests whose statistics would not survive a crash: the log could not be written.";
            add("stats_log_failures_total", failures, stats.failures, true);
            add("stats_lost_groups_total", "Statistics groups that no queue took.", stats.lost_groups, true);
        }
        let red = lock(&self.red);
        add(
            "red_bytes",
            "Bytes of memory of figures for local answers, as estimated.",
            red.size() as u64,
            false,
        );
        let evicted = "Minutes of these given up before their time, for want of memory.";
        add("red_evicted_minutes_total", evicted, red.evicted_minutes(), true);
        let late = "Requests that came too late to be among them.";
        add("red_expired_requests_total", late, red.expired(), true);
    }

    /// Tags of containers are looked up when statistics leave, if a source did
    /// not bring them (datadog-processing §5.9).
    fn add_container_tags(&self, payload: &mut StatsPayload) {
        for source in &mut payload.stats {
            if !source.container_id.is_empty() && source.tags.is_empty() {
                source.tags = self.containers.tags(&source.container_id).unwrap_or_default();
            }
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

impl Leave {
    /// Whether a part is in every queue.
    fn queue(&self, part: &StatsPart) -> bool {
        match self.exporter.send_stats(part.number, &part.body, part.groups) {
            Ok(()) => true,
            Err(e) => {
                tracing::error!(groups = part.groups, "statistics wait, a queue does not take them: {e}");
                false
            }
        }
    }
}

/// A payload as it leaves, and its number of groups.
fn body(payload: &StatsPayload) -> (Bytes, u64) {
    let groups: usize = payload.stats.iter().map(|s| s.group_count()).sum();
    let mut body = Vec::new();
    encode(payload, &mut body);
    (body.into(), groups as u64)
}
