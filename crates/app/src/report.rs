//! The ledger and the store's figures for people and machines: status JSON,
//! status text, Prometheus metrics. Pure.

use serde_json::{Value as Json, json};
use spanloom_pipeline::{DeliveryCount, Outcome, PayloadOutcome, Snapshot};
use std::fmt::Write;

/// Everything `status` tells.
pub struct Report {
    /// Version of the program.
    pub version: &'static str,
    /// Seconds since the start.
    pub uptime: f64,
    /// The ledger.
    pub ledger: Snapshot,
    /// What each destination has taken.
    pub deliveries: Vec<DeliveryCount>,
    /// Bytes held between sockets and acknowledgements, and their limit.
    pub memory: (u64, u64),
    /// Batches that wait for a worker.
    pub queued: usize,
    /// Figures of the store and the exporters: (name, labels, meaning, value).
    pub gauges: Vec<Gauge>,
    /// Sampling rates told to tracers, as their answer's body.
    pub rates: Json,
    /// What else a person should know (damaged files, a full disk).
    pub notices: Vec<String>,
}

/// One figure.
pub struct Gauge {
    /// Name without the prefix `spanloom_`.
    pub name: &'static str,
    /// Label and value, or none.
    pub label: Option<(&'static str, String)>,
    /// Meaning.
    pub help: &'static str,
    /// Value now.
    pub value: f64,
    /// Whether it only grows.
    pub counter: bool,
}

impl Report {
    /// For machines.
    pub fn json(&self) -> Json {
        let l = &self.ledger;
        let mut spans = json!({"received": l.received_spans(), "in_flight": l.in_flight()});
        for outcome in Outcome::ALL {
            spans[outcome.name()] = l.spans(outcome).into();
        }
        let mut payloads = json!({});
        for outcome in [PayloadOutcome::Accepted, PayloadOutcome::Rejected, PayloadOutcome::Refused] {
            payloads[outcome.name()] = l.payloads(outcome).into();
        }
        let by_reason: Vec<Json> = l
            .outcomes
            .iter()
            .map(|c| {
                json!({"outcome": c.outcome.name(), "reason": c.reason, "protocol": c.protocol.name(),
                       "spans": c.spans, "traces": c.traces})
            })
            .collect();
        let payload_reasons: Vec<Json> = l
            .payloads
            .iter()
            .filter(|c| c.outcome != PayloadOutcome::Accepted)
            .map(|c| {
                json!({"outcome": c.outcome.name(), "reason": c.reason, "protocol": c.protocol.name(),
                       "payloads": c.payloads, "traces": c.traces, "bytes": c.bytes})
            })
            .collect();
        let received: Vec<Json> = l
            .received
            .iter()
            .map(|r| {
                json!({"protocol": r.protocol.name(), "spans": r.spans, "traces": r.traces,
                       "bytes": r.bytes, "payloads": r.payloads})
            })
            .collect();
        let sources = |list: &[spanloom_pipeline::SourceCount]| -> Vec<Json> {
            list.iter()
                .map(|s| {
                    let mut row = json!({"name": s.name});
                    for outcome in Outcome::ALL {
                        if s.of(outcome) > 0 {
                            row[outcome.name()] = s.of(outcome).into();
                        }
                    }
                    row
                })
                .collect()
        };
        let notes: Vec<Json> =
            l.notes.iter().map(|n| json!({"event": n.event, "reason": n.reason, "count": n.count})).collect();
        let deliveries: Vec<Json> = self
            .deliveries
            .iter()
            .map(|d| json!({"destination": d.destination, "delivered": d.delivered, "failed": d.failed}))
            .collect();
        let mut figures = json!({});
        for g in &self.gauges {
            match &g.label {
                None => figures[g.name] = number(g.value),
                Some((_, value)) => figures[g.name][value] = number(g.value),
            }
        }
        json!({
            "version": self.version,
            "uptime_seconds": self.uptime,
            "ledger": {
                "spans": spans, "by_reason": by_reason, "received": received, "payloads": payloads,
                "payload_reasons": payload_reasons, "services": sources(&l.services),
                "clients": sources(&l.clients), "events": notes, "adds_up": l.adds_up(),
            },
            "destinations": deliveries,
            "intake": {"memory_bytes": self.memory.0, "memory_limit_bytes": self.memory.1, "queued_batches": self.queued},
            "figures": figures,
            "rates": self.rates,
            "notices": self.notices,
        })
    }

    /// Prometheus text format 0.0.4.
    pub fn metrics(&self) -> String {
        let mut out = String::new();
        let mut family = |name: &str, kind: &str, help: &str, rows: Vec<(String, f64)>| {
            if rows.is_empty() {
                return;
            }
            let _ = writeln!(out, "# HELP spanloom_{name} {help}\n# TYPE spanloom_{name} {kind}");
            for (labels, value) in rows {
                let _ = writeln!(out, "spanloom_{name}{labels} {}", number(value));
            }
        };
        let l = &self.ledger;
        family("uptime_seconds", "gauge", "Seconds since the start.", vec![(String::new(), self.uptime)]);
        let by_protocol = |f: fn(&spanloom_pipeline::ReceivedCount) -> u64| {
            l.received.iter().map(|r| (labels(&[("protocol", r.protocol.name())]), f(r) as f64)).collect()
        };
        family("received_spans_total", "counter", "Spans received.", by_protocol(|r| r.spans));
        family("received_bytes_total", "counter", "Bytes of bodies received.", by_protocol(|r| r.bytes));
        family("received_payloads_total", "counter", "Requests received.", by_protocol(|r| r.payloads));
        let outcomes = l
            .outcomes
            .iter()
            .map(|c| {
                let l =
                    [("outcome", c.outcome.name()), ("reason", c.reason), ("protocol", c.protocol.name())];
                (labels(&l), c.spans as f64)
            })
            .collect();
        family("spans_total", "counter", "What became of spans.", outcomes);
        let payloads = l
            .payloads
            .iter()
            .map(|c| {
                let l =
                    [("outcome", c.outcome.name()), ("reason", c.reason), ("protocol", c.protocol.name())];
                (labels(&l), c.payloads as f64)
            })
            .collect();
        family("payloads_total", "counter", "What became of requests.", payloads);
        let notes = l
            .notes
            .iter()
            .map(|n| (labels(&[("event", n.event), ("reason", n.reason)]), n.count as f64))
            .collect();
        family("events_total", "counter", "Events that are no loss, such as corrected spans.", notes);
        let taken = |f: fn(&DeliveryCount) -> u64| {
            self.deliveries
                .iter()
                .map(|d| (labels(&[("destination", &d.destination)]), f(d) as f64))
                .collect()
        };
        family(
            "delivered_spans_total",
            "counter",
            "Spans a destination has acknowledged.",
            taken(|d| d.delivered),
        );
        family(
            "undelivered_spans_total",
            "counter",
            "Spans a destination did not take.",
            taken(|d| d.failed),
        );
        family(
            "intake_memory_bytes",
            "gauge",
            "Bytes between sockets and acknowledgements.",
            vec![(String::new(), self.memory.0 as f64)],
        );
        family(
            "intake_memory_limit_bytes",
            "gauge",
            "Limit of the same.",
            vec![(String::new(), self.memory.1 as f64)],
        );
        let mut names: Vec<&str> = self.gauges.iter().map(|g| g.name).collect();
        names.dedup();
        for name in names {
            let same: Vec<&Gauge> = self.gauges.iter().filter(|g| g.name == name).collect();
            let Some(first) = same.first() else { continue };
            let rows = same
                .iter()
                .map(|g| (g.label.as_ref().map_or(String::new(), |(k, v)| labels(&[(k, v)])), g.value))
                .collect();
            family(name, if first.counter { "counter" } else { "gauge" }, first.help, rows);
        }
        out
    }
}

/// Draws the status JSON of a running program for a person.
pub fn draw(status: &Json) -> String {
    let mut out = String::new();
    let spans = &status["ledger"]["spans"];
    let up = status["uptime_seconds"].as_f64().unwrap_or(0.0);
    let _ = writeln!(out, "Spanloom {}, up {}", status["version"].as_str().unwrap_or("?"), uptime(up));
    let _ = writeln!(out, "\nspans received      {:>12}", spans["received"].to_string());
    for outcome in Outcome::ALL {
        let n = spans[outcome.name()].as_u64().unwrap_or(0);
        if n > 0 || outcome == Outcome::Kept {
            let _ = writeln!(out, "  {:<17} {n:>12}", outcome.name().replace('_', " "));
            let mut reasons: Vec<(String, u64)> = Vec::new();
            for r in status["ledger"]["by_reason"].as_array().into_iter().flatten() {
                let reason = r["reason"].as_str().unwrap_or_default();
                if r["outcome"] == outcome.name() && !reason.is_empty() {
                    let n = r["spans"].as_u64().unwrap_or(0);
                    match reasons.iter_mut().find(|(name, _)| name == reason) {
                        Some((_, sum)) => *sum += n,
                        None => reasons.push((reason.to_owned(), n)),
                    }
                }
            }
            for (reason, n) in reasons {
                let _ = writeln!(out, "    {reason:<15} {n:>12}");
            }
        }
    }
    if let Some(n) = spans["in_flight"].as_u64().filter(|n| *n > 0) {
        let _ = writeln!(out, "  {:<17} {n:>12}", "in flight");
    }
    if let Some(rows) = status["ledger"]["received"].as_array().filter(|r| !r.is_empty()) {
        let _ = writeln!(out, "\nby protocol                    spans     requests        bytes");
        for r in rows {
            let protocol = r["protocol"].as_str().unwrap_or_default();
            let _ = writeln!(
                out,
                "  {protocol:<20} {:>13} {:>12} {:>12}",
                show(&r["spans"]),
                show(&r["payloads"]),
                show(&r["bytes"])
            );
        }
    }
    if let Some(rows) = status["ledger"]["payload_reasons"].as_array().filter(|r| !r.is_empty()) {
        let _ = writeln!(out, "\nrequests not taken");
        for r in rows {
            let text = |k: &str| r[k].as_str().unwrap_or_default().to_owned();
            let _ = writeln!(
                out,
                "  {} {} ({}): {} requests, {} traces claimed",
                text("protocol"),
                text("outcome"),
                text("reason"),
                r["payloads"],
                r["traces"]
            );
        }
    }
    if let Some(rows) = status["destinations"].as_array().filter(|r| !r.is_empty()) {
        let _ = writeln!(out, "\ndestinations                   taken    not taken");
        for r in rows {
            let name = r["destination"].as_str().unwrap_or_default();
            let _ = writeln!(out, "  {name:<20} {:>13} {:>12}", show(&r["delivered"]), show(&r["failed"]));
        }
    }
    if let Some(figures) = status["figures"].as_object().filter(|f| !f.is_empty()) {
        let _ = writeln!(out);
        for (name, value) in figures {
            match value.as_object() {
                None => {
                    let _ = writeln!(out, "{:<34} {:>14}", name.replace('_', " "), show(value));
                }
                Some(rows) => {
                    for (label, value) in rows {
                        let _ = writeln!(
                            out,
                            "{:<34} {value:>14}",
                            format!("{} {label}", name.replace('_', " "))
                        );
                    }
                }
            }
        }
    }
    for notice in status["notices"].as_array().into_iter().flatten() {
        let _ = writeln!(out, "note: {}", notice.as_str().unwrap_or_default());
    }
    out
}

/// A JSON number as text, so that it can be aligned.
fn show(value: &Json) -> String {
    value.to_string()
}

fn uptime(seconds: f64) -> String {
    let s = seconds as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min", s / 60),
        3600..86400 => format!("{} h {} min", s / 3600, s / 60 % 60),
        _ => format!("{} d {} h", s / 86400, s / 3600 % 24),
    }
}

fn number(value: f64) -> Json {
    if value.fract() == 0.0 && value.abs() < 9e15 { json!(value as i64) } else { json!(value) }
}

fn labels(pairs: &[(&str, &str)]) -> String {
    let mut out = String::from("{");
    for (i, (k, v)) in pairs.iter().enumerate() {
        let v = v.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(out, "{}{k}=\"{v}\"", if i > 0 { "," } else { "" });
    }
    out + "}"
}

#[cfg(test)]
mod tests {
    use super::*;
    use spanloom_model::{Batch, Span};
    use spanloom_pipeline::{Ledger, Verdict};
    use std::sync::Arc;

    fn report() -> Report {
        let ledger = Arc::new(Ledger::default());
        let mut batch = Batch { spans: vec![Span::default(); 3], ..Batch::default() };
        batch.chunk_by_trace(0, 0);
        ledger.open(&batch).settle(&batch, Verdict::Refused("queue_full"));
        Report {
            version: "1.2.3",
            uptime: 61.0,
            ledger: ledger.snapshot(),
            deliveries: vec![],
            memory: (5, 10),
            queued: 0,
            gauges: vec![Gauge {
                name: "store_bytes",
                label: None,
                help: "Bytes on disk.",
                value: 7.0,
                counter: false,
            }],
            rates: Json::Null,
            notices: vec!["disk is nearly full".into()],
        }
    }

    #[test]
    fn the_numbers_are_the_same_in_json_metrics_and_text() {
        let r = report();
        let json = r.json();
        assert_eq!(json["ledger"]["spans"]["received"], 3);
        assert_eq!(json["ledger"]["spans"]["refused"], 3);
        assert_eq!(json["figures"]["store_bytes"], 7);
        let metrics = r.metrics();
        assert!(
            metrics.contains("spanloom_spans_total{outcome=\"refused\",reason=\"queue_full\",protocol=\"datadog_v0.4\"} 3\n"),
            "{metrics}"
        );
        let text = draw(&json);
        assert!(
            text.contains("up 1 min") && text.contains("queue_full") && text.contains("note: disk"),
            "{text}"
        );
    }

    #[test]
    fn label_values_are_escaped() {
        assert_eq!(labels(&[("a", "x\"y\\\n")]), "{a=\"x\\\"y\\\\\\n\"}");
    }
}
