//! Figures of the store and of queues, for metrics and status.

use crate::report::Gauge;
use spanloom_exporters::{DatadogExporter, DestinationStats};
use spanloom_store::Store;

/// Figures of the embedded store, and its last failure as a notice.
pub fn store_figures(store: &Store, gauges: &mut Vec<Gauge>, notices: &mut Vec<String>) {
    let stats = store.stats();
    let mut add = |name, help, value: u64, counter| {
        gauges.push(Gauge { name, label: None, help, value: value as f64, counter });
    };
    add("store_spans", "Spans held.", stats.spans, false);
    add("store_traces", "Traces held; one that lies in several places counts in each.", stats.traces, false);
    add("store_disk_bytes", "Bytes of segments and log.", stats.disk_bytes, false);
    add("store_log_bytes", "Bytes of the log.", stats.log_bytes, false);
    add("store_live_spans", "Spans not yet in a segment.", stats.live_spans, false);
    add("store_live_bytes", "Bytes of the same in memory.", stats.live_bytes, false);
    add("store_segments", "Segments.", stats.segments, false);
    add("store_stored_spans_total", "Spans stored.", stats.stored, true);
    add("store_duplicate_spans_total", "Spans recognised as sent again.", stats.duplicates, true);
    add(
        "store_dropped_traces",
        "Traces that tail rules have dropped and that are not removed yet.",
        stats.dropped_traces,
        false,
    );
    add("store_dropped_spans", "Their spans, which count among the spans held.", stats.dropped_spans, false);
    add("store_removed_spans_total", "Spans of dropped traces that were removed.", stats.removed_spans, true);
    add("store_failures_total", "Failed writes, flushes and merges.", stats.failures, true);
    for (name, help, rows) in [
        ("store_refused_spans_total", "Spans the store refused.", &stats.refused),
        ("store_expired_spans_total", "Spans removed by retention.", &stats.expired),
    ] {
        gauges.extend(rows.iter().map(|(reason, n)| Gauge {
            name,
            label: Some(("reason", (*reason).to_owned())),
            help,
            value: *n as f64,
            counter: true,
        }));
    }
    if let Some(text) = &stats.last_failure {
        notices.push(format!("the store's last failure: {text}"));
    }
}

/// Figures of every Datadog destination's queue.
pub fn exporter_figures(exporter: &DatadogExporter, gauges: &mut Vec<Gauge>) {
    exporter.stats().iter().for_each(|d| queue_figures(d, gauges));
}

/// Figures of one destination's queue.
pub fn queue_figures(destination: &DestinationStats, gauges: &mut Vec<Gauge>) {
    {
        let url = &destination.url;
        let q = &destination.queue;
        for (name, help, value, counter) in [
            ("queue_requests", "Requests that wait on disk.", q.requests, false),
            ("queue_bytes", "Bytes of the same.", q.bytes, false),
            ("queue_pending_spans", "Spans that wait to be packed.", q.pending_items, false),
            ("sent_items_total", "Spans and statistics groups sent.", q.sent_items, true),
            ("sent_requests_total", "Requests sent.", q.sent_requests, true),
            ("send_retries_total", "Tries that were repeated.", q.retries, true),
        ] {
            let label = Some(("destination", url.clone()));
            gauges.push(Gauge { name, label, help, value: value as f64, counter });
        }
        gauges.extend(q.dropped.iter().map(|(reason, n)| Gauge {
            name: "queue_dropped_items_total",
            label: Some(("reason", (*reason).to_owned())),
            help: "Spans and statistics groups given up.",
            value: *n as f64,
            counter: true,
        }));
    }
}
