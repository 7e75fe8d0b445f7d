//! The ledger and the other figures as the trace-agent's own metrics: its
//! names, its tags, counts as differences (datadog-agent:pkg/trace/info,
//! pkg/trace/writer). Pure; `wiring/dogstatsd.rs` reads and sends.

use spanloom_exporters::KindStats;
use spanloom_pipeline::{Outcome, PayloadOutcome, Snapshot};
use spanloom_receivers::datadog::SourceCounts;
use std::collections::BTreeMap;
use std::fmt::Write;

/// What all names begin with.
const PREFIX: &str = "datadog.trace_agent.";

/// What is read each time.
#[derive(Default)]
pub struct Reading {
    /// The ledger.
    pub ledger: Snapshot,
    /// Requests by source, since the last reading.
    pub sources: Vec<(String, SourceCounts)>,
    /// Traces and statistics on their way to Datadog, all destinations together.
    pub writers: Option<[KindStats; 2]>,
    /// What is only read every other time.
    pub slow: Option<Slow>,
}

/// Figures that the Agent reports every 10 s.
#[derive(Default)]
pub struct Slow {
    /// Chunks that the samplers have seen and kept.
    pub sampler: Option<(u64, u64)>,
    /// Hits, misses and shrinks of the rare sampler.
    pub rare: Option<(u64, u64, u64)>,
    /// Accepted, timed out, failed connections by transport (`tcp`, `uds`).
    pub connections: Vec<(&'static str, [u64; 3])>,
    /// Batches that wait for a worker, and how many may.
    pub queued: (usize, usize),
    /// Bytes of memory.
    pub memory: u64,
    /// CPU seconds since the start.
    pub cpu: f64,
    /// Seconds since the start.
    pub uptime: f64,
}

/// Turns readings into lines.
pub struct AgentMetrics {
    /// Tags of every line.
    constant: String,
    /// Counters that are 0 are sent, too.
    all: bool,
    /// What counters stood at, by name and tags.
    before: BTreeMap<String, u64>,
    /// CPU seconds and uptime of the last slow reading.
    spent: (f64, f64),
    lines: Vec<String>,
}

impl AgentMetrics {
    /// Version that every line is tagged with. `all`: counters are sent also
    /// when they are 0 (`apm_config.send_all_internal_stats`).
    pub fn new(version: &str, all: bool) -> Self {
        Self {
            constant: format!("version:{version}"),
            all,
            before: BTreeMap::new(),
            spent: (0.0, 0.0),
            lines: Vec::new(),
        }
    }

    /// The line of the start.
    pub fn started(&mut self) -> Vec<String> {
        self.line("started", 1.0, 'c', "");
        std::mem::take(&mut self.lines)
    }

    /// The lines of a reading.
    pub fn lines(&mut self, reading: &Reading) -> Vec<String> {
        self.line("heartbeat", 1.0, 'g', "");
        for (tags, counts) in &reading.sources {
            self.source(tags, counts);
        }
        self.spans(&reading.ledger);
        self.requests(&reading.ledger);
        self.events(&reading.ledger);
        for (writer, kind) in ["trace_writer", "stats_writer"].iter().zip(reading.writers.iter().flatten()) {
            for (name, total) in [
                ("payloads", kind.sent),
                ("bytes", kind.sent_bytes),
                ("retries", kind.retries),
                ("errors", kind.rejected),
                ("dropped", kind.dropped),
                ("dropped_bytes", kind.dropped_bytes),
            ] {
                self.total(&format!("{writer}.{name}"), "", total);
            }
            let items = if *writer == "trace_writer" { "spans" } else { "stats_entries" };
            self.total(&format!("{writer}.{items}"), "", kind.sent_items);
        }
        if let Some(slow) = &reading.slow {
            self.slow(slow);
        }
        std::mem::take(&mut self.lines)
    }

    fn source(&mut self, tags: &str, c: &SourceCounts) {
        self.count("receiver.trace", tags, c.traces);
        self.count("receiver.traces_received", tags, c.traces);
        self.count("receiver.traces_bytes", tags, c.bytes);
        self.count("receiver.spans_received", tags, c.spans);
        self.count("receiver.payload_accepted", tags, c.accepted);
        self.count("receiver.payload_refused", tags, c.refused);
        for (name, n) in [
            ("receiver.payload_timeout", c.timed_out),
            ("receiver.client_dropped_p0_traces", c.dropped_p0_traces),
            ("receiver.client_dropped_p0_spans", c.dropped_p0_spans),
        ] {
            self.count_if(name, tags, n);
        }
        let mut priorities: Vec<_> = c.priorities.iter().collect();
        priorities.sort_unstable();
        for (priority, n) in priorities {
            let priority = priority.map_or("none".to_owned(), |p| p.to_string());
            self.count("receiver.traces_priority", &join(tags, "priority", &priority), *n);
        }
        let mut dropped: Vec<_> = c.dropped.iter().collect();
        dropped.sort_unstable();
        for (reason, n) in dropped {
            self.count_if("normalizer.traces_dropped", &join(tags, "reason", reason), *n);
        }
    }

    /// What became of spans of tracers; OTLP.
    fn spans(&mut self, ledger: &Snapshot) {
        for c in ledger.outcomes.iter().filter(|c| c.protocol.is_datadog()) {
            let tags = endpoint(c.protocol.name());
            match c.outcome {
                Outcome::Filtered => {
                    self.total("receiver.traces_filtered", &join(&tags, "by", c.reason), c.traces);
                    self.total("receiver.spans_filtered", &join(&tags, "by", c.reason), c.spans);
                }
                Outcome::Rejected => {
                    self.total("normalizer.traces_dropped", &join(&tags, "reason", c.reason), c.traces);
                    self.total("receiver.spans_dropped", &join(&tags, "reason", c.reason), c.spans);
                }
                _ => {}
            }
        }
        for r in &ledger.received {
            let name = r.protocol.name();
            let version = match name {
                "otlp_grpc" => "opentelemetry_grpc_v1",
                _ if name.starts_with("otlp_http") => "opentelemetry_http_v1",
                _ => continue,
            };
            let tags = format!("endpoint_version:{version},format:{name}");
            self.total("otlp.payload", &tags, r.payloads);
            self.total("otlp.traces", &tags, r.traces);
            self.total("otlp.spans", &tags, r.spans);
        }
    }

    /// Requests that could not be read.
    fn requests(&mut self, ledger: &Snapshot) {
        let rejected = |c: &&spanloom_pipeline::PayloadCount| {
            c.outcome == PayloadOutcome::Rejected && c.protocol.is_datadog()
        };
        for c in ledger.payloads.iter().filter(rejected) {
            let error = match c.reason {
                "payload_too_large" => "payload-too-large",
                "unexpected_eof" => "unexpected-eof",
                "timeout" => "timeout",
                _ => "decoding-error",
            };
            let name = c.protocol.name();
            let version = name.strip_prefix("datadog_").unwrap_or(name);
            // Several reasons may be one error: the reason keeps them apart.
            let tags = format!("handler:traces,v:{version},error:{error},reason:{}", c.reason);
            self.total("receiver.error", &tags, c.payloads);
        }
    }

    /// What the ledger counts as events.
    fn events(&mut self, ledger: &Snapshot) {
        for n in &ledger.notes {
            let stats = "endpoint_version:v0.6";
            match (n.event, n.reason) {
                ("spans_malformed", reason) => {
                    self.total("normalizer.spans_malformed", &join("", "reason", reason), n.count);
                }
                ("stats_payload", _) => self.total("receiver.stats_payload", stats, n.count),
                ("stats_bytes", _) => self.total("receiver.stats_bytes", stats, n.count),
                ("stats_buckets", _) => self.total("receiver.stats_buckets", stats, n.count),
                ("stats_payload_rejected", reason) => {
                    self.total("receiver.stats_payload_rejected", &join(stats, "reason", reason), n.count);
                }
                ("proxy_requests", product) => {
                    if let Some(name) = proxied(product) {
                        self.total(name, &join("", "product", product), n.count);
                    }
                }
                ("proxy_bytes", "evp") => self.total("evp_proxy.request_bytes", "", n.count),
                ("proxy_error", "evp") => self.total("evp_proxy.request_error", "", n.count),
                ("proxy_error", "telemetry") => self.total("telemetry_proxy.error", "", n.count),
                ("proxy_error", "debugger_logs" | "debugger_diagnostics" | "debugger_v2" | "symdb") => {
                    self.total("debugger.proxy_request_error", &join("", "product", n.reason), n.count);
                }
                _ => {}
            }
        }
    }

    fn slow(&mut self, slow: &Slow) {
        if let Some((seen, kept)) = slow.sampler {
            self.total("sampler.seen", "", seen);
            self.total("sampler.kept", "", kept);
        }
        if let Some((hits, misses, shrinks)) = slow.rare {
            self.total("sampler.rare.hits", "", hits);
            self.total("sampler.rare.misses", "", misses);
            self.line("sampler.rare.shrinks", shrinks as f64, 'g', "");
        }
        for (transport, counts) in &slow.connections {
            for (status, n) in ["accepted", "timedout", "errored"].iter().zip(counts) {
                self.total(&format!("receiver.{transport}_connections"), &join("", "status", status), *n);
            }
        }
        let (queued, places) = slow.queued;
        if places > 0 {
            let fill = queued as f64 / places as f64;
            self.line("receiver.out_chan_fill", fill, 'g', "is_trace_buffer_set:false");
        }
        self.line("heap_alloc", slow.memory as f64, 'g', "");
        let (cpu, uptime) = self.spent;
        self.spent = (slow.cpu, slow.uptime);
        if slow.uptime > uptime {
            self.line("cpu_percent", (slow.cpu - cpu) / (slow.uptime - uptime) * 100.0, 'g', "");
        }
    }

    /// A counter that has reached this; sends what came since, if anything did.
    fn total(&mut self, name: &str, tags: &str, total: u64) {
        let key = format!("{name}|{tags}");
        let before = self.before.insert(key, total).unwrap_or(0);
        self.count_if(name, tags, total.saturating_sub(before));
    }

    fn count_if(&mut self, name: &str, tags: &str, n: u64) {
        if n > 0 || self.all {
            self.count(name, tags, n);
        }
    }

    fn count(&mut self, name: &str, tags: &str, n: u64) {
        self.line(name, n as f64, 'c', tags);
    }

    fn line(&mut self, name: &str, value: f64, kind: char, tags: &str) {
        let mut out = format!("{PREFIX}{name}:{value}|{kind}|#{}", self.constant);
        if !tags.is_empty() {
            // Writing to a string does not fail.
            let _ = write!(out, ",{tags}");
        }
        self.lines.push(out);
    }
}

/// Name of the metric that counts requests of a proxied product.
fn proxied(product: &str) -> Option<&'static str> {
    Some(match product {
        "evp" => "evp_proxy.request",
        "profiling" => "profile",
        "pipeline_stats" => "pipelines_stats",
        "openlineage" => "openlineage",
        "debugger_logs" | "debugger_diagnostics" | "debugger_v2" | "symdb" => "debugger.proxy_request",
        _ => return None,
    })
}

fn endpoint(protocol: &str) -> String {
    format!("endpoint_version:{}", protocol.strip_prefix("datadog_").unwrap_or(protocol))
}

fn join(tags: &str, key: &str, value: &str) -> String {
    if tags.is_empty() { format!("{key}:{value}") } else { format!("{tags},{key}:{value}") }
}

/// Packs lines into datagrams of at most `max` bytes; a line that is longer by
/// itself is left out. Returns how many were.
pub fn datagrams(lines: &[String], max: usize) -> (Vec<String>, u64) {
    let mut out: Vec<String> = Vec::new();
    let mut left_out = 0;
    for line in lines {
        if line.len() > max {
            left_out += 1;
            continue;
        }
        match out.last_mut() {
            Some(last) if last.len() + 1 + line.len() <= max => {
                last.push('\n');
                last.push_str(line);
            }
            _ => out.push(line.clone()),
        }
    }
    (out, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use spanloom_model::{Batch, Chunk, Fate, Protocol, Range32, Span};
    use spanloom_pipeline::{Ledger, Verdict};
    use std::sync::Arc;

    fn find<'a>(lines: &'a [String], name: &str) -> Vec<&'a str> {
        let start = format!("{PREFIX}{name}:");
        lines.iter().filter_map(|l| l.strip_prefix(&start)).collect()
    }

    #[test]
    fn counters_are_sent_as_differences() {
        let ledger = Arc::new(Ledger::default());
        let mut metrics = AgentMetrics::new("7.80.2", false);
        let mut read =
            |ledger: &Ledger| metrics.lines(&Reading { ledger: ledger.snapshot(), ..Reading::default() });
        let mut batch = Batch { spans: vec![Span::default(); 3], ..Batch::default() };
        batch.intake.protocol = Protocol::DatadogV05;
        batch.chunks.push(Chunk {
            spans: Range32::new(0, 3),
            fate: Fate::Rejected("foreign_span"),
            ..Chunk::default()
        });
        ledger.open(&batch).settle(&batch, Verdict::Lost(""));
        ledger.note("spans_malformed", "service_empty", 2);
        ledger.note("stats_payload", "accepted", 1);
        ledger.payload(Protocol::DatadogV04, PayloadOutcome::Rejected, "msgp_short_bytes", 7, 10);
        let lines = read(&ledger);
        assert_eq!(find(&lines, "heartbeat"), ["1|g|#version:7.80.2"]);
        let tags = "|c|#version:7.80.2,endpoint_version:v0.5,reason:foreign_span";
        assert_eq!(find(&lines, "normalizer.traces_dropped"), [format!("1{tags}")]);
        assert_eq!(find(&lines, "receiver.spans_dropped"), [format!("3{tags}")]);
        assert_eq!(find(&lines, "normalizer.spans_malformed"), ["2|c|#version:7.80.2,reason:service_empty"]);
        assert_eq!(
            find(&lines, "receiver.error"),
            ["1|c|#version:7.80.2,handler:traces,v:v0.4,error:decoding-error,reason:msgp_short_bytes"]
        );
        ledger.note("spans_malformed", "service_empty", 5);
        let lines = read(&ledger);
        assert_eq!(find(&lines, "normalizer.spans_malformed"), ["5|c|#version:7.80.2,reason:service_empty"]);
        assert!(find(&lines, "receiver.stats_payload").is_empty(), "nothing new");
    }

    #[test]
    fn sources_have_their_tags_and_rare_counters_only_when_they_count() {
        let counts = SourceCounts {
            accepted: 2,
            traces: 3,
            spans: 30,
            bytes: 900,
            priorities: [(None, 1), (Some(1), 2)].into(),
            dropped: [("decoding_error", 4)].into(),
            ..SourceCounts::default()
        };
        let reading = Reading { sources: vec![("lang:go".into(), counts)], ..Reading::default() };
        let lines = AgentMetrics::new("v", true).lines(&reading);
        assert_eq!(find(&lines, "receiver.payload_timeout"), ["0|c|#version:v,lang:go"]);
        let lines = AgentMetrics::new("v", false).lines(&reading);
        assert_eq!(find(&lines, "receiver.trace"), ["3|c|#version:v,lang:go"]);
        assert_eq!(find(&lines, "receiver.traces_received"), ["3|c|#version:v,lang:go"]);
        assert_eq!(find(&lines, "receiver.payload_refused"), ["0|c|#version:v,lang:go"]);
        assert!(find(&lines, "receiver.payload_timeout").is_empty());
        assert_eq!(
            find(&lines, "receiver.traces_priority"),
            ["1|c|#version:v,lang:go,priority:none", "2|c|#version:v,lang:go,priority:1"]
        );
        assert_eq!(
            find(&lines, "normalizer.traces_dropped"),
            ["4|c|#version:v,lang:go,reason:decoding_error"]
        );
    }

    #[test]
    fn writers_and_slow_figures_are_told() {
        let kind = KindStats { sent: 2, sent_bytes: 100, sent_items: 7, retries: 1, ..KindStats::default() };
        let slow = |cpu, uptime| {
            Some(Slow {
                connections: vec![("uds", [3, 0, 1])],
                queued: (1, 4),
                memory: 5,
                cpu,
                uptime,
                ..Slow::default()
            })
        };
        let mut metrics = AgentMetrics::new("v", false);
        let writers = Some([kind, KindStats::default()]);
        let lines = metrics.lines(&Reading { writers, slow: slow(1.0, 10.0), ..Reading::default() });
        assert_eq!(find(&lines, "trace_writer.payloads"), ["2|c|#version:v"]);
        assert_eq!(find(&lines, "trace_writer.spans"), ["7|c|#version:v"]);
        assert!(find(&lines, "stats_writer.payloads").is_empty());
        assert_eq!(
            find(&lines, "receiver.uds_connections"),
            ["3|c|#version:v,status:accepted", "1|c|#version:v,status:errored"]
        );
        assert_eq!(find(&lines, "receiver.out_chan_fill"), ["0.25|g|#version:v,is_trace_buffer_set:false"]);
        assert_eq!(find(&lines, "cpu_percent"), ["10|g|#version:v"]);
        let lines = metrics.lines(&Reading { slow: slow(6.0, 20.0), ..Reading::default() });
        assert_eq!(find(&lines, "cpu_percent"), ["50|g|#version:v"], "since the last time");
    }

    #[test]
    fn lines_share_datagrams_up_to_their_size() {
        let lines = ["aaaa", "bbbb", "cccc", "far too long"].map(str::to_owned);
        assert_eq!(datagrams(&lines, 9), (vec!["aaaa\nbbbb".into(), "cccc".into()], 1));
        assert_eq!(datagrams(&[], 9), (Vec::new(), 0));
    }
}
