//! A trace as Jaeger UI and Grafana read it: the "internal JSON" of Jaeger's
//! first HTTP API (jaeger:internal/uimodel/model.go). Output only.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | [`encode_trace`], [`encode_batch`]: spans, processes |
//! | `tags.rs` | typed tags and logs |
//! | `adjust.rs` | what Jaeger's query service repairs before it answers |
//! | `datadog.rs` | links and events that Datadog tracers send inside tags |

mod adjust;
mod datadog;
mod tags;

use self::adjust::Ids;
use self::tags::Tags;
use crate::view::REF_TYPE;
use spanloom_model::{Batch, Chunk, Range32, Span, SpanId, Text, TraceId, flags, keys};
use std::collections::HashMap;

/// Appends one trace (the batch holds its spans and no other's) as an object
/// of Jaeger's `data` list.
///
/// Unless `raw`, the trace is put in order first as Jaeger's query service does
/// (jaeger:cmd/jaeger/internal/extension/jaegerquery/internal/adjuster): ids
/// shared by client and server halves become unique, tags are sorted, numeric
/// addresses become text, attributes of the tracing library move to the
/// process, links to nowhere are left out. Spans come oldest first.
///
/// A trace id without high half is printed with 16 digits, any other with 32.
/// Integers beyond ±(2⁵³−1) are strings. What this JSON cannot hold — scope
/// attributes, link attributes and state, nanoseconds — is left out.
pub fn encode_trace(trace: &Batch, raw: bool, out: &mut Vec<u8>) {
    encode_chunks(trace, &trace.chunks.iter().collect::<Vec<_>>(), raw, out);
}

/// Appends all traces of a batch, separated by commas, in order of appearance;
/// each as [`encode_trace`] does.
pub fn encode_batch(batch: &Batch, raw: bool, out: &mut Vec<u8>) {
    let mut order: HashMap<TraceId, usize> = HashMap::new();
    let mut traces: Vec<Vec<&Chunk>> = Vec::new();
    for chunk in &batch.chunks {
        let at = *order.entry(chunk.trace_id).or_insert_with(|| {
            traces.push(Vec::new());
            traces.len() - 1
        });
        traces[at].push(chunk);
    }
    for (i, chunks) in traces.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        encode_chunks(batch, chunks, raw, out);
    }
}

/// Makes the ids of one trace unique where client and server halves share
/// one, as [`encode_trace`] shows them.
pub fn make_ids_unique(trace: &mut Batch) {
    let mut rows = rows(trace, &trace.chunks.iter().collect::<Vec<_>>());
    let ids = Ids::new(&rows);
    if ids.is_empty() {
        return;
    }
    ids.apply(trace, &mut rows);
    let changed: Vec<_> = rows.iter().map(|r| (r.at, r.id, r.parent)).collect();
    for (at, id, parent) in changed {
        (trace.spans[at].span_id, trace.spans[at].parent_id) = (id, parent);
    }
}

fn rows<'a>(trace: &'a Batch, chunks: &[&'a Chunk]) -> Vec<Row<'a>> {
    let spans = chunks.iter().flat_map(|chunk| {
        let places = chunk.spans.usize();
        trace.chunk_spans(chunk).iter().zip(places).map(move |(span, at)| (*chunk, span, at))
    });
    spans.map(|(chunk, span, at)| Row { chunk, span, at, id: span.span_id, parent: span.parent_id }).collect()
}

fn encode_chunks(trace: &Batch, chunks: &[&Chunk], raw: bool, out: &mut Vec<u8>) {
    let mut rows = rows(trace, chunks);
    if !raw {
        rows.sort_by_key(|r| r.span.start);
        Ids::new(&rows).apply(trace, &mut rows);
    }
    let mut processes = Processes::default();
    out.extend_from_slice(b"{\"traceID\":");
    trace_id(out, rows.first().map(|r| r.span.trace_id).unwrap_or_default());
    out.extend_from_slice(b",\"spans\":[");
    for (i, row) in rows.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        row.write(trace, raw, &mut processes, out);
    }
    out.extend_from_slice(b"],\"processes\":{");
    for (i, process) in processes.written.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(format!("\"p{}\":", i + 1).as_bytes());
        out.extend_from_slice(process);
    }
    out.extend_from_slice(b"},\"warnings\":null}");
}

/// A trace id as this API prints it.
pub fn trace_id_text(id: TraceId) -> String {
    if id.high() == 0 { format!("{:016x}", id.low()) } else { id.to_string() }
}

fn trace_id(out: &mut Vec<u8>, id: TraceId) {
    out.push(b'"');
    out.extend_from_slice(trace_id_text(id).as_bytes());
    out.push(b'"');
}

/// One span, with the ids it is shown under.
struct Row<'a> {
    chunk: &'a Chunk,
    span: &'a Span,
    /// Position in the batch.
    at: usize,
    id: SpanId,
    parent: SpanId,
}

impl Row<'_> {
    fn write(&self, trace: &Batch, raw: bool, processes: &mut Processes, out: &mut Vec<u8>) {
        let span = self.span;
        let mut warnings = Vec::new();
        let mut moved = Tags::default();
        let tags = tags::of_span(trace, self.chunk, span, raw, &mut moved);
        let process = processes.key(trace, self.chunk, span, raw, &moved);

        out.extend_from_slice(b"{\"traceID\":");
        trace_id(out, span.trace_id);
        out.extend_from_slice(format!(",\"spanID\":\"{}\"", self.id).as_bytes());
        let wire = (span.flags as u32 & 0xff) | u32::from(span.flags & flags::DEBUG != 0) << 1;
        if wire != 0 {
            out.extend_from_slice(format!(",\"flags\":{wire}").as_bytes());
        }
        out.extend_from_slice(b",\"operationName\":");
        string(out, trace.str(span.name));
        out.extend_from_slice(b",\"references\":[");
        self.references(trace, raw, &mut warnings, out);
        let timed = span.flags & flags::NO_START == 0;
        let start = if timed { span.start / 1000 } else { 0 };
        let times = format!("],\"startTime\":{start},\"duration\":{},\"tags\":", span.duration / 1000);
        out.extend_from_slice(times.as_bytes());
        tags.write(out);
        out.extend_from_slice(b",\"logs\":");
        tags::logs(trace, span, out);
        out.extend_from_slice(format!(",\"processID\":\"p{process}\",\"warnings\":").as_bytes());
        if !timed {
            warnings.push("The client sent no start time".to_owned());
        }
        for (n, what) in span.dropped.iter().zip(["attributes", "events", "links"]) {
            if *n > 0 {
                warnings.push(format!("The client dropped {n} {what}"));
            }
        }
        if warnings.is_empty() {
            out.extend_from_slice(b"null}");
            return;
        }
        for (i, text) in warnings.iter().enumerate() {
            out.push(if i == 0 { b'[' } else { b',' });
            string(out, text);
        }
        out.extend_from_slice(b"]}");
    }

    /// The parent first, then the other links.
    fn references(&self, trace: &Batch, raw: bool, warnings: &mut Vec<String>, out: &mut Vec<u8>) {
        let mut links: Vec<(TraceId, SpanId, Option<bool>)> = trace
            .span_links(self.span)
            .iter()
            .map(|l| {
                let child = trace.get_str(l.attrs, REF_TYPE).map(|t| t.eq_ignore_ascii_case("child_of"));
                (l.trace_id, l.span_id, child)
            })
            .collect();
        if links.is_empty() {
            links = datadog::links(trace, self.span);
        }
        let mut first = true;
        let mut write = |follows: bool, trace: TraceId, span: SpanId| {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            let kind = if follows { "FOLLOWS_FROM" } else { "CHILD_OF" };
            out.extend_from_slice(format!("{{\"refType\":\"{kind}\",\"traceID\":").as_bytes());
            trace_id(out, trace);
            out.extend_from_slice(format!(",\"spanID\":\"{span}\"}}").as_bytes());
        };
        if !self.parent.is_zero() {
            // A link to the parent only says of which type the parent is.
            let span = self.span;
            let same = |l: &(TraceId, SpanId, Option<bool>)| {
                l.0 == span.trace_id && l.1 == span.parent_id && l.2.is_some()
            };
            let typed = links.iter().position(same).map(|i| links.remove(i));
            write(typed.is_some_and(|l| l.2 == Some(false)), span.trace_id, self.parent);
        }
        for (trace, span, child) in links {
            if trace.is_zero() && !raw {
                warnings.push("Invalid span link removed".to_owned());
            } else {
                write(child != Some(true), trace, span);
            }
        }
    }
}

/// Processes in order of first appearance; equal ones are one.
#[derive(Default)]
struct Processes {
    known: HashMap<(u32, Text), usize>,
    written: Vec<Vec<u8>>,
    by_content: HashMap<Vec<u8>, usize>,
}

impl Processes {
    /// Number of the process of a span, from 1.
    fn key(&mut self, trace: &Batch, chunk: &Chunk, span: &Span, raw: bool, moved: &Tags<'_>) -> usize {
        let known = (chunk.resource, span.service);
        if moved.is_empty()
            && let Some(&n) = self.known.get(&known)
        {
            return n;
        }
        let mut json = b"{\"serviceName\":".to_vec();
        let service = trace.str(span.service);
        string(&mut json, if service.is_empty() { keys::UNKNOWN_SERVICE } else { service });
        json.extend_from_slice(b",\"tags\":");
        tags::of_process(trace, chunk, raw, moved).write(&mut json);
        json.push(b'}');
        let written = &mut self.written;
        let n = *self.by_content.entry(json).or_insert_with_key(|json| {
            written.push(json.clone());
            written.len()
        });
        if moved.is_empty() {
            self.known.insert(known, n);
        }
        n
    }
}

/// Appends a JSON string.
fn string(out: &mut Vec<u8>, text: &str) {
    // Writing to a vector cannot fail.
    let _ = serde_json::to_writer(out, text);
}

fn attrs_have(trace: &Batch, range: Range32, key: &str) -> bool {
    trace.get(range, key).is_some()
}

#[cfg(test)]
mod tests;
