//! Requests that are never alike: the bodies of `fixtures/bench`, decoded
//! once, with fresh ids and times each time.

use spanloom_codec::datadog::{Encoding, RequestMeta, decode_traces, encode_v04, encode_v05};
use spanloom_codec::otlp;
use spanloom_model::{Attr, Batch, Intake, Protocol, SpanId, TraceId, Value};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// How the bodies of the fixtures are changed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// As recorded.
    AsRecorded,
    /// One trace in each request.
    TraceEach,
    /// Two of five spans become SQL with a statement of 500 bytes of its own.
    Sql,
}

/// What the tracers decided: the priority of this share of traces is
/// `USER_KEEP`, of the others `AUTO_REJECT`.
pub type Kept = Option<f64>;

pub struct Load {
    pub path: &'static str,
    pub content: &'static str,
    protocol: Protocol,
    shape: Shape,
    kept: Kept,
    templates: Vec<(Batch, i64)>,
    next: usize,
    random: u64,
}

impl Load {
    /// The bodies whose names begin with `prefix`.
    pub fn new(prefix: &str, shape: Shape, kept: Kept) -> Self {
        let bench = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/bench");
        let mut files: Vec<PathBuf> = std::fs::read_dir(bench).unwrap().map(|e| e.unwrap().path()).collect();
        files.retain(|f| {
            let name = f.file_name().unwrap().to_str().unwrap();
            name.starts_with(prefix) && (name.ends_with(".msgpack") || name.ends_with(".bin"))
        });
        files.sort();
        assert!(!files.is_empty(), "no bodies named {prefix}*");
        let (protocol, path, content) = match &prefix[..6] {
            "dd-v04" => (Protocol::DatadogV04, "/v0.4/traces", "application/msgpack"),
            "dd-v05" => (Protocol::DatadogV05, "/v0.5/traces", "application/msgpack"),
            _ => (Protocol::OtlpProto, "/v1/traces", "application/x-protobuf"),
        };
        let mut templates = Vec::new();
        for file in files {
            let body = std::fs::read(file).unwrap();
            let intake = Intake { protocol, ..Intake::default() };
            let batch = if protocol == Protocol::OtlpProto {
                otlp::decode_proto(body.into(), intake).unwrap().batch
            } else {
                let meta = RequestMeta { lang: "python", ..RequestMeta::default() };
                decode_traces(protocol, Encoding::Msgpack, body.into(), intake, &meta).unwrap()
            };
            let chunks = batch.chunks.len();
            let parts = if shape == Shape::TraceEach { chunks } else { 1 };
            for part in 0..parts {
                let mut n = 0;
                let part = batch.part(|_| {
                    n += 1;
                    parts == 1 || n - 1 == part
                });
                let last = part.spans.iter().map(|s| s.end()).max().unwrap();
                templates.push((part, last));
            }
        }
        Self { path, content, protocol, shape, kept, templates, next: 0, random: 0x9e37_79b9_7f4a_7c15 }
    }

    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// A body and its number of spans.
    pub fn next(&mut self) -> (Vec<u8>, u64) {
        let (high, low, mask) = (self.random(), self.random(), self.random());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64;
        let count = self.templates.len();
        let (template, last) = &self.templates[self.next % count];
        self.next += 1;
        let mut batch = template.clone();
        let shift = now - last;
        for span in &mut batch.spans {
            span.trace_id = TraceId(span.trace_id.0 ^ (u128::from(high) << 64 | u128::from(low)));
            span.span_id = SpanId(span.span_id.0 ^ mask);
            if !span.parent_id.is_zero() {
                span.parent_id = SpanId(span.parent_id.0 ^ mask);
            }
            span.start += shift;
        }
        if self.shape == Shape::Sql {
            self.add_statements(&mut batch);
        }
        if let Some(share) = self.kept {
            self.decide(&mut batch, share);
        }
        let body = match self.protocol {
            Protocol::DatadogV05 => encode_v05(&batch),
            Protocol::OtlpProto => {
                let mut body = Vec::new();
                otlp::encode_proto(&batch, &mut body);
                body
            }
            _ => encode_v04(&batch),
        };
        (body, batch.spans.len() as u64)
    }

    fn add_statements(&mut self, batch: &mut Batch) {
        for i in (0..batch.spans.len()).filter(|i| i % 5 < 2) {
            let (a, b, c) = (self.random(), self.random(), self.random());
            let mut statement = format!(
                "SELECT o.id, o.total, c.name, c.email FROM orders o JOIN customers c ON c.id = o.customer_id \
                 WHERE o.tenant = 'tenant-{a:x}' AND o.created_at > '2026-11-01 12:00:00' AND o.total >= {}.50 \
                 AND o.status IN ('paid', 'shipped', 'returned') AND c.region = 'eu-{}' AND o.id IN (",
                b % 10_000,
                c % 50
            );
            while statement.len() < 460 {
                statement.push_str(&(self.random() % 1_000_000).to_string());
                statement.push_str(", ");
            }
            statement.push_str("0) ORDER BY o.created_at DESC LIMIT 50");
            batch.spans[i].resource = batch.arena.push(&statement);
            batch.spans[i].span_type = batch.arena.push_static("sql");
        }
    }

    fn decide(&mut self, batch: &mut Batch, share: f64) {
        for c in 0..batch.chunks.len() {
            let kept = (self.random() >> 11) as f64 / (1u64 << 53) as f64;
            let priority = if kept < share { 2.0 } else { 0.0 };
            let chunk = batch.chunks[c];
            batch.chunks[c].priority = priority as i32;
            for i in chunk.spans.usize() {
                let range = batch.spans[i].attrs;
                let key = batch
                    .attrs(range)
                    .iter()
                    .position(|a| batch.arena.bytes(a.key) == b"_sampling_priority_v1");
                match key {
                    Some(n) => batch.attrs[range.start as usize + n].value = Value::Double(priority),
                    None if i == chunk.spans.start as usize => {
                        let key = batch.arena.push_static("_sampling_priority_v1");
                        batch.add_attr(i, Attr { key, value: Value::Double(priority) });
                    }
                    None => {}
                }
            }
        }
    }
}
