//! Measures the store: `store_bench SPANS DIR [--batch N] [--rate SPANS_PER_SECOND]
//! [--no-merge] [--log-only] [--only TEXT]`: with the last, only reads whose name contains the text.
//!
//! Spans like those of the reference measurements (store and query, §5.1):
//! 2 to 18 per trace, 40 services with 100 operations each, 8 to 10
//! attributes, two of them of high cardinality. Prints CPU seconds per million
//! spans to durable segments, bytes per span, latencies of reads, and memory.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a measuring program

use spanloom_model::*;
use spanloom_store::{Config, Store};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// Texts of the generator, made once; batches share them as their body.
struct Words {
    body: bytes::Bytes,
    services: Vec<Text>,
    names: Vec<Text>,
    keys: Vec<Text>,
    small: Vec<Text>,
    agents: Vec<Text>,
}

const KEYS: [&str; 10] = [
    "http.method",
    "http.status_code",
    "http.url",
    "user.id",
    "db.statement",
    "component",
    "net.peer.name",
    "thread.id",
    "http.user_agent",
    "rare.key",
];

impl Words {
    fn new() -> Self {
        let mut arena = Arena::default();
        let mut texts = Vec::new();
        let mut add = |s: String| {
            texts.push(s);
            texts.len() - 1
        };
        let services: Vec<usize> = (0..40).map(|i| add(format!("service-{i:02}"))).collect();
        let names: Vec<usize> = (0..100).map(|i| add(format!("GET /api/v1/resource-{i:02}/items"))).collect();
        let keys: Vec<usize> = KEYS.iter().map(|k| add((*k).into())).collect();
        let small: Vec<usize> =
            ["GET", "POST", "PUT", "grpc", "net/http", "redis", "peer-a.internal", "peer-b.internal"]
                .iter()
                .map(|s| add((*s).into()))
                .collect();
        let agents: Vec<usize> = (0..20)
            .map(|i| add(format!("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.{i} Chrome/120.0")))
            .collect();
        let mut body = Vec::new();
        let mut ranges = Vec::new();
        for t in &texts {
            ranges.push((body.len(), t.len()));
            body.extend_from_slice(t.as_bytes());
        }
        let body = bytes::Bytes::from(body);
        arena = {
            drop(arena);
            Arena::new(body.clone())
        };
        let get =
            |list: &[usize]| list.iter().map(|i| arena.body_slice(ranges[*i].0, ranges[*i].1)).collect();
        let (services, names, keys) = (get(&services), get(&names), get(&keys));
        let (small, agents) = (get(&small), get(&agents));
        Self { body, services, names, keys, small, agents }
    }

    /// A batch of about `spans` spans; a trace begins every 30 µs of its time.
    fn batch(&self, rng: &mut Rng, spans: usize, clock: &mut i64) -> (Batch, TraceId) {
        let mut b = Batch::new(Arena::new(self.body.clone()), Intake::default());
        b.intake.protocol = Protocol::OtlpProto;
        b.intake.received_at = *clock;
        let host = b.arena.push(&format!("host-{:02}", rng.below(30)));
        let key = b.arena.push("host.name");
        b.attrs.push(Attr { key, value: Value::Str(host) });
        b.resources.push(Resource { attrs: Range32::new(0, 1), ..Resource::default() });
        let mut last = TraceId(0);
        while b.spans.len() < spans {
            *clock += 30_000 + rng.below(60_000) as i64;
            let trace_id = TraceId::from_halves(rng.next(), rng.next());
            last = trace_id;
            let first = b.spans.len();
            let n = 2 + rng.below(17) as usize;
            for i in 0..n {
                let parent =
                    if i == 0 { SpanId(0) } else { b.spans[first + rng.below(i as u64) as usize].span_id };
                let attrs = self.attrs(rng, &mut b);
                let service = rng.below(40) as usize;
                b.spans.push(Span {
                    trace_id,
                    span_id: SpanId(rng.next()),
                    parent_id: parent,
                    start: *clock + rng.below(5_000_000) as i64,
                    duration: 10_000 + (rng.below(1_000) * rng.below(1_000) * rng.below(200)) as i64,
                    service: self.services[service],
                    name: self.names[rng.below(100) as usize],
                    attrs,
                    scope: NO_SCOPE,
                    kind: SpanKind::from_number(1 + rng.below(3) as u32),
                    status: if rng.below(50) == 0 { Status::Error } else { Status::Unset },
                    ..Span::default()
                });
            }
            b.chunks.push(Chunk { trace_id, spans: Range32::new(first, b.spans.len()), ..Chunk::default() });
        }
        (b, last)
    }

    fn attrs(&self, rng: &mut Rng, b: &mut Batch) -> Range32 {
        let start = b.attrs.len();
        let url = b.arena.push(&format!(
            "https://shop.example/api/items/{}?page={}",
            rng.below(1 << 30),
            rng.below(40)
        ));
        let user = b.arena.push(&format!("user-{:07}", rng.below(3_000_000)));
        let small = |rng: &mut Rng, from: u64, n: u64| Value::Str(self.small[(from + rng.below(n)) as usize]);
        let mut add = |key: usize, value: Value| b.attrs.push(Attr { key: self.keys[key], value });
        add(0, small(rng, 0, 3));
        add(1, Value::Int([200, 200, 200, 201, 404, 500][rng.below(6) as usize]));
        add(2, Value::Str(url));
        add(3, Value::Str(user));
        add(5, small(rng, 3, 3));
        add(6, small(rng, 6, 2));
        add(7, Value::Int(rng.below(64) as i64));
        add(8, Value::Str(self.agents[rng.below(20) as usize]));
        if rng.below(2) == 0 {
            add(4, small(rng, 3, 3));
        }
        Range32::new(start, b.attrs.len())
    }
}

fn cpu() -> Duration {
    let usage = std::fs::read_to_string("/proc/self/stat").unwrap();
    let rest = usage.rsplit(") ").next().unwrap();
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn memory(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

fn quantiles(name: &str, times: Vec<(Duration, Duration)>) {
    let (mut wall, mut busy): (Vec<_>, Vec<_>) = times.into_iter().unzip();
    wall.sort_unstable();
    busy.sort_unstable();
    let at = |of: &[Duration], q: f64| of[((of.len() - 1) as f64 * q) as usize].as_secs_f64() * 1e3;
    println!(
        "{name:<44} p50 {:>8.2} ms  p95 {:>8.2} ms  max {:>8.2} ms  on the processor p50 {:>8.2}  p95 {:>8.2}",
        at(&wall, 0.5),
        at(&wall, 0.95),
        at(&wall, 1.0),
        at(&busy, 0.5),
        at(&busy, 0.95)
    );
}

/// Time that this thread was on a processor: what other programs take from
/// it does not count.
fn thread_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0))
}

/// Elapsed time and time on the processor of each call; prints their quantiles.
fn time(only: Option<&str>, name: &str, n: usize, mut f: impl FnMut(usize)) {
    if only.is_some_and(|only| !name.contains(only)) {
        return;
    }
    let times = (0..n).map(|i| {
        let busy = thread_cpu();
        let t = Instant::now();
        f(i);
        (t.elapsed(), thread_cpu().saturating_sub(busy))
    });
    quantiles(name, times.collect());
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let (Some(spans), Some(dir)) = (args.get(1).and_then(|a| a.parse::<u64>().ok()), args.get(2)) else {
        println!(
            "usage: store_bench SPANS DIR [--batch N] [--rate SPANS_PER_SECOND] [--no-merge] [--log-only] [--only TEXT]"
        );
        return;
    };
    let option = |name: &str| {
        args.iter().position(|a| a == name).and_then(|i| args.get(i + 1)).and_then(|v| v.parse::<u64>().ok())
    };
    let per_batch = option("--batch").unwrap_or(250) as usize;
    let rate = option("--rate");
    let only = args.iter().position(|a| a == "--only").and_then(|i| args.get(i + 1)).map(String::as_str);
    let dir = Path::new(dir);
    // Everything stays in the log, for measuring the start.
    let log_only = args.iter().any(|a| a == "--log-only");
    let mut config = Config { disk_floor: 0, ..Config::default() };
    if log_only {
        config.background = false;
        config.flush_spans = u64::MAX;
        config.flush_bytes = 1 << 40;
        config.live_bytes = 1 << 40;
        config.log_bytes = 1 << 40;
    }
    let (store, report) = Store::open(dir, config).unwrap();
    println!(
        "open: {} segments, {} spans replayed; rss {} MiB",
        report.segments,
        report.replayed_spans,
        memory("VmRSS")
    );

    let words = Words::new();
    let mut rng = Rng(42 + report.segments);
    let mut clock =
        1_768_471_200_000_000_000i64 + store.stats().newest.map_or(0, |n| n - 1_768_471_200_000_000_000);
    // What the generator itself costs.
    let before = cpu();
    let (mut r2, mut c2) = (Rng(7), clock);
    let mut made = 0;
    while made < 200_000 {
        made += words.batch(&mut r2, per_batch, &mut c2).0.spans.len();
    }
    let generating = (cpu() - before).as_secs_f64() / made as f64;

    let refused = Arc::new(AtomicU64::new(0));
    let (before, started) = (cpu(), Instant::now());
    let mut sent = 0u64;
    let mut ids = Vec::new();
    let mut peak_live = 0;
    while sent < spans {
        let (batch, id) = words.batch(&mut rng, per_batch, &mut clock);
        sent += batch.spans.len() as u64;
        if ids.len() < 200_000 && rng.below(8) == 0 {
            ids.push(id);
        }
        let batch = Arc::new(batch);
        loop {
            let (tx, rx) = mpsc::channel();
            store.append(Arc::clone(&batch), Box::new(move |r| tx.send(r).unwrap()));
            match rx.recv().unwrap() {
                Ok(()) => break,
                Err(_) => {
                    refused.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
        if let Some(rate) = rate {
            let due = Duration::from_secs_f64(sent as f64 / rate as f64);
            if let Some(wait) = due.checked_sub(started.elapsed()) {
                std::thread::sleep(wait);
            }
        }
        peak_live = peak_live.max(memory("VmRSS"));
    }
    if log_only {
        println!("{} bytes of log, {} spans", store.stats().log_bytes, store.stats().spans);
        drop(store);
        let t = Instant::now();
        let config = Config { disk_floor: 0, log_bytes: 1 << 40, ..Config::default() };
        let (_store, report) = Store::open(dir, config).unwrap();
        println!("open {:.0} ms, {} spans replayed", t.elapsed().as_secs_f64() * 1e3, report.replayed_spans);
        return;
    }
    store.flush().unwrap();
    if sent > 0 {
        let used = (cpu() - before).as_secs_f64() - generating * sent as f64;
        println!(
            "append + log + flush (+ merges meanwhile): {:.2} CPU s per million spans; {:.0} spans/s; {} busy answers",
            used * 1e6 / sent as f64,
            sent as f64 / started.elapsed().as_secs_f64(),
            refused.load(Ordering::Relaxed)
        );
        println!("peak rss while writing: {} MiB (VmHWM {} MiB)", peak_live, memory("VmHWM"));
    }
    let merging = cpu();
    let wall = Instant::now();
    if !args.iter().any(|a| a == "--no-merge") {
        store.compact_now(false).unwrap();
        println!(
            "merging the rest: {:.2} CPU s, {:.1} s",
            (cpu() - merging).as_secs_f64(),
            wall.elapsed().as_secs_f64()
        );
    }
    let stats = store.stats();
    println!(
        "{} spans in {} segments, {:.1} bytes per span; rss {} MiB (VmHWM {} MiB); failures {}",
        stats.spans,
        stats.segments,
        stats.disk_bytes as f64 / stats.spans.max(1) as f64,
        memory("VmRSS"),
        memory("VmHWM"),
        stats.failures
    );
    if let Some(why) = stats.last_failure {
        println!("last failure: {why}");
    }
    if ids.is_empty() {
        let all = store.search(&Search { limit: 2000, ..Search::default() }).unwrap();
        ids.extend(all.iter().map(|s| s.trace_id));
    }
    let pick = |i: usize| ids[(i * 7919) % ids.len()];
    time(only, "trace by id", 400, |i| drop(store.trace(pick(i), TimeRange::ALL).unwrap().unwrap()));
    let service = |i: usize| Expr::Is(Cond::Service { name: format!("service-{:02}", i % 40), fold: false });
    let name = |i: usize| {
        Expr::Is(Cond::Name { name: format!("GET /api/v1/resource-{:02}/items", i % 100), fold: false })
    };
    let ask = |each: Vec<Expr>, window: TimeRange| {
        drop(
            store
                .search(&Search { each: vec![Expr::all(each)], window, limit: 20, ..Search::default() })
                .unwrap(),
        );
    };
    let (oldest, newest) = (stats.oldest.unwrap_or(0), stats.newest.unwrap_or(0));
    let hour = |i: usize| {
        let start = oldest + (newest - oldest) / 50 * (i as i64 % 50);
        TimeRange { start, end: start + (newest - oldest) / 20 }
    };
    let all = TimeRange::ALL;
    let tag = |key: &str, value: String| {
        Expr::Is(Cond::Attr {
            scope: AttrScope::Any,
            key: key.into(),
            op: Op::Eq,
            value: Literal::Typed(value),
        })
    };
    time(only, "search: service", 60, |i| ask(vec![service(i)], all));
    time(only, "search: service + operation", 60, |i| ask(vec![service(i), name(i * 3)], all));
    let slow = || Expr::Is(Cond::Duration { min: 150_000_000, max: i64::MAX });
    time(only, "search: service + operation + duration", 60, |i| {
        ask(vec![service(i), name(i * 3), slow()], all)
    });
    time(only, "search: duration", 60, |_| ask(vec![slow()], all));
    time(only, "search: time window", 60, |i| ask(vec![], hour(i)));
    time(only, "search: service + op + duration + window", 60, |i| {
        ask(vec![service(i), name(i), slow()], hour(i))
    });
    time(only, "search: rare tag", 60, |i| ask(vec![tag("user.id", format!("user-{:07}", i * 40_003))], all));
    time(only, "search: absent tag", 60, |i| ask(vec![tag("user.id", format!("nobody-{i}"))], all));
    time(only, "search: frequent tag", 60, |_| ask(vec![tag("http.status_code", "404".into())], all));
    time(only, "services", 20, |_| drop(store.services().unwrap()));
    println!("rss after reading {} MiB (VmHWM {} MiB)", memory("VmRSS"), memory("VmHWM"));
    let t = Instant::now();
    store.close();
    drop(store);
    println!("close {:.0} ms", t.elapsed().as_secs_f64() * 1e3);
    let t = Instant::now();
    let (_store, report) = Store::open(dir, Config { disk_floor: 0, ..Config::default() }).unwrap();
    println!(
        "open again {:.0} ms, {} spans replayed",
        t.elapsed().as_secs_f64() * 1e3,
        report.replayed_spans
    );
}
