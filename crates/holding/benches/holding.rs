//! What it costs to hold spans until their trace is judged: taking in, judging,
//! handing on; and the memory of traces that wait.
//! `cargo bench -p spanloom-holding`
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)] // a command-line tool

use spanloom_holding::{Buffer, Config, Held, Ruling, Spans, Take, Waiting, Way};
use spanloom_journal::SyncPolicy;
use spanloom_model::{AckFn, Attr, Batch, Chunk, Resource, Span, SpanId, TraceId, Value};
use spanloom_pipeline::Exporter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Spans of a request, of a trace; traces that wait at a time.
const REQUEST: u64 = 1000;
const TRACE: u64 = 10;
const TRACES: u64 = 100_000;

/// Counts spans.
#[derive(Default)]
struct Taker(AtomicU64);

impl Exporter for Taker {
    fn export(&self, batch: Arc<Batch>, done: AckFn) {
        self.0.fetch_add(batch.spans.len() as u64, Relaxed);
        done(Ok(()));
    }
}

impl Way for Taker {
    fn takes(&self, _: &Batch, _: &Chunk) -> Take {
        Take::Wait { exempt: false }
    }
    fn destination(&self, _: &Chunk) -> String {
        String::new()
    }
    fn send_to(&self, _: &mut Chunk, _: &str) -> bool {
        true
    }
}

fn request(number: u64) -> Batch {
    let mut b = Batch::default();
    b.intake.received_at = number as i64;
    b.resources.push(Resource::default());
    let texts = ["checkout", "web.request", "GET /api/v1/orders/{id}", "web"].map(|t| b.arena.push(t));
    let keys: Vec<_> = (0..12).map(|i| b.arena.push(&format!("http.attribute.{i}"))).collect();
    for i in 0..REQUEST {
        let n = number * REQUEST + i;
        let trace = (n / TRACE + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        b.spans.push(Span {
            trace_id: TraceId(u128::from(trace)),
            span_id: SpanId(n + 1),
            parent_id: SpanId(if n.is_multiple_of(TRACE) { 0 } else { n }),
            start: n as i64 * 1000,
            duration: 500,
            service: texts[0],
            name: texts[1],
            resource: texts[2],
            span_type: texts[3],
            ..Span::default()
        });
        for (k, key) in keys.iter().enumerate() {
            // Half of the values are as good as distinct.
            let value = if k % 2 == 0 { b.arena.push(&format!("value {n} {k}")) } else { texts[1] };
            b.add_attr(i as usize, Attr { key: *key, value: Value::Str(value) });
        }
    }
    b.chunk_by_trace(0, 0);
    b
}

/// Seconds of CPU of the whole process, the log's thread included.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |n: usize| after.split_whitespace().nth(n).and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

fn main() {
    let spans = (TRACES * TRACE) as f64;
    println!("{TRACES} traces of {TRACE} spans in requests of {REQUEST}; a rule that decides by …");
    for (name, reads, kept) in [
        ("figures, drops all", false, 0),
        ("figures, keeps 1 of 10", false, 10),
        ("figures, keeps all", false, 1),
        ("tags, drops all", true, 0),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let taker = Arc::new(Taker::default());
        let config = Config {
            dir: dir.path().to_owned(),
            max_bytes: 4 << 30,
            max_memory: 1 << 30,
            wait: 0,
            policy: SyncPolicy::Interval,
            on_dropped: Arc::new(|_, _, _| ()),
            on_full: Arc::new(|| ()),
        };
        let buffer = Buffer::open(config, vec![Arc::clone(&taker) as _], 0).unwrap().0;
        let held = Held::new(Arc::clone(&buffer), 0);
        let before = resident();
        let (mut taking, mut wall) = (0.0, 0.0);
        for n in 0..TRACES * TRACE / REQUEST {
            let batch = Arc::new(request(n));
            let (tell, told) = std::sync::mpsc::channel();
            let since = (cpu(), Instant::now());
            held.export(batch, Box::new(move |r| tell.send(r).unwrap()));
            told.recv().unwrap().unwrap();
            taking += cpu() - since.0;
            wall += since.1.elapsed().as_secs_f64();
        }
        let stats = buffer.stats();
        let grown = resident() - before;
        let since = (cpu(), Instant::now());
        let mut judge = |w: &Waiting, load: &dyn Fn() -> Result<Vec<Spans>, _>| {
            if reads {
                load().unwrap();
            }
            let id = w.summary.trace_id.low();
            let keep = kept > 0 && id.is_multiple_of(kept);
            Ruling { keep, rule: "rest".into(), rate: 1.0, spans: w.summary.spans as u32 }
        };
        buffer.round(i64::MAX, &mut judge, &|| false);
        println!(
            "{name:<24} take in {:>5.2} s CPU, {:>5.2} s; judge {:>5.2} s CPU, {:>5.2} s (a million spans); {:.0} bytes a span on disk, {:.0} bytes a trace in memory ({:.0} estimated); {} spans left",
            taking * 1e6 / spans,
            wall * 1e6 / spans,
            (cpu() - since.0) * 1e6 / spans,
            since.1.elapsed().as_secs_f64() * 1e6 / spans,
            stats.bytes as f64 / spans,
            grown * 1048576.0 / TRACES as f64,
            stats.memory as f64 / TRACES as f64,
            taker.0.load(Relaxed),
        );
    }
}
