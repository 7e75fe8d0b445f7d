//! Measures segments: build, merge, size, trace reads, searches.
//!
//! ```text
//! cargo run --release -p spanloom-segment --example segment_bench -- [thousand spans] [directory]
//! ```
//!
//! With `real` instead of a number, the recorded bodies of the fixtures are
//! replayed instead, with fresh ids and times, and only sizes and build and
//! merge times are printed.
//!
//! Spans are like those of the store's design measurements: traces of 2 to 18
//! spans, 40 services with 100 operations each, 8 to 10 attributes of which
//! two (a URL and a user id) hardly repeat. Four segments of a quarter each
//! are written and then merged. CPU time is the process's, so other load on
//! the machine hardly matters.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::panic)] // a measuring program

use spanloom_codec::datadog::{Encoding, RequestMeta, decode_traces};
use spanloom_model::{
    Attr, AttrScope, Batch, Chunk, Cond, Expr, Intake, Literal, Op, Protocol, Range32, Resource, Search,
    Span, SpanId, SpanKind, Status, TimeRange, TraceId, Value,
};
use spanloom_segment::{Cache, Segment, WriteOptions, merge, write_segment};
use std::path::Path;
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

const BASE: i64 = 1_795_190_000_000_000_000;

fn attr(b: &mut Batch, key: &'static str, value: &str) {
    let key = b.arena.push_static(key);
    let value = Value::Str(b.arena.push(value));
    b.attrs.push(Attr { key, value });
}

/// About a thousand spans that start within `minutes` of `from`.
fn batch(r: &mut Rng, from: i64, minutes: u64) -> Batch {
    let mut b = Batch::default();
    let env = b.arena.push("production");
    let language = b.arena.push("go");
    for s in 0..40 {
        let host = b.arena.push(&format!("node-{:02}", s % 12));
        let start = b.attrs.len();
        attr(&mut b, "service.name", &format!("service-{s:02}"));
        attr(&mut b, "k8s.pod.name", &format!("service-{s:02}-7d4b9c-{}", s * 7919 % 100_003));
        attr(&mut b, "telemetry.sdk.version", "1.30.0");
        let attrs = Range32::new(start, b.attrs.len());
        b.resources.push(Resource {
            env,
            hostname: host,
            language_name: language,
            attrs,
            ..Resource::default()
        });
    }
    while b.spans.len() < 1000 {
        let trace_id = TraceId(u128::from(r.next()) << 64 | u128::from(r.next()));
        let n = 2 + r.below(17) as usize;
        let begin = from + r.below(minutes * 60_000_000_000) as i64;
        let mut ids: Vec<(u64, i64, i64)> = Vec::new();
        for i in 0..n {
            let (parent, start, room) = match ids.len() {
                0 => (0, begin, 20_000_000 + r.below(400_000_000) as i64),
                k => {
                    let (id, start, duration) = ids[r.below(k as u64) as usize];
                    let offset = r.below(duration.max(2) as u64 / 2) as i64;
                    (id, start + offset, (duration - offset) / 2)
                }
            };
            let duration = 1000 + r.below(room.max(1) as u64) as i64;
            let id = r.next();
            ids.push((id, start, duration));
            let service = r.below(40);
            let operation = r.below(100);
            let kind = SpanKind::from_number(1 + ((service * 100 + operation) % 3) as u32);
            let first = b.attrs.len();
            let method = ["GET", "GET", "GET", "POST", "PUT"][r.below(5) as usize];
            attr(&mut b, "http.request.method", method);
            let status = [200, 200, 200, 200, 204, 302, 404, 500][r.below(8) as usize];
            let key = b.arena.push_static("http.response.status_code");
            b.attrs.push(Attr { key, value: Value::Int(status) });
            attr(&mut b, "http.route", &format!("/api/v1/resource{operation}/{{id}}"));
            let url = format!("https://shop.example.com/api/v1/resource{operation}/{}", r.below(10_000_000));
            attr(&mut b, "url.full", &url);
            let user = format!("user-{:08}", r.below(1_000_000));
            attr(&mut b, "user.id", &user);
            attr(&mut b, "net.peer.name", &format!("service-{:02}.internal", (service + operation) % 40));
            attr(&mut b, "cloud.region", ["eu-west-1", "eu-central-1", "us-east-1"][r.below(3) as usize]);
            attr(&mut b, "deployment.version", &format!("2026.11.{}", service % 20));
            if i % 2 == 0 {
                attr(&mut b, "db.system", "postgresql");
            }
            if operation.is_multiple_of(2) {
                attr(&mut b, "feature.flag", ["on", "off"][r.below(2) as usize]);
            }
            let failed = status == 500;
            let service_text = b.arena.push(&format!("service-{service:02}"));
            let name = b.arena.push(&format!("operation-{operation:02}-of-{service:02}"));
            b.spans.push(Span {
                trace_id,
                span_id: SpanId(id),
                parent_id: SpanId(parent),
                start,
                duration,
                service: service_text,
                name,
                attrs: Range32::new(first, b.attrs.len()),
                scope: spanloom_model::NO_SCOPE,
                error: i32::from(failed),
                status: if failed { Status::Error } else { Status::Unset },
                kind,
                ..Span::default()
            });
            let at = b.spans.len();
            b.chunks.push(Chunk {
                resource: service as u32,
                spans: Range32::new(at - 1, at),
                trace_id,
                ..Chunk::default()
            });
        }
    }
    b
}

/// CPU time of this process (user and system, all threads), from
/// /proc/self/stat in ticks of 10 ms.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

fn quantiles(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |q: f64| times[((times.len() - 1) as f64 * q) as usize];
    format!("p50 {:>9.1?}  p95 {:>9.1?}  max {:>9.1?}", at(0.5), at(0.95), at(1.0))
}

fn files(dir: &Path, spans: u64) {
    for name in ["spans.parquet", "traces", "index"] {
        let len = std::fs::metadata(dir.join(name)).unwrap().len();
        println!("    {name:<14} {len:>12} bytes {:>7.2} per span", len as f64 / spans as f64);
    }
}

/// Bodies of Datadog traces below a folder of the fixtures.
fn bodies(folder: &Path, out: &mut Vec<Batch>) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            bodies(&path, out);
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap();
        let protocol = match name {
            n if n.ends_with("v04-traces.bin") || n.starts_with("dd-v04") => Protocol::DatadogV04,
            n if n.ends_with("v05-traces.bin") || n.starts_with("dd-v05") => Protocol::DatadogV05,
            _ => continue,
        };
        // One huge trace says nothing about ids, which are most of a span.
        if name.contains("1000sp") {
            continue;
        }
        let body = std::fs::read(&path).unwrap().into();
        let intake = Intake { protocol, ..Intake::default() };
        let meta = RequestMeta { lang: "python", tracer_version: "4.16.0", ..RequestMeta::default() };
        if let Ok(batch) = decode_traces(protocol, Encoding::Msgpack, body, intake, &meta) {
            out.push(batch);
        }
    }
}

/// The same spans as if they had happened again at another time.
fn again(from: &Batch, r: &mut Rng, second: u64) -> Batch {
    let mut b = from.clone();
    for c in 0..b.chunks.len() {
        let mut ids = std::collections::HashMap::new();
        ids.insert(0, 0);
        let chunk = b.chunks[c];
        let high = if chunk.trace_id.high() == 0 { 0 } else { (1_795_190_000 + second) << 32 };
        let trace_id = TraceId::from_halves(high, r.next());
        b.chunks[c].trace_id = trace_id;
        let first = chunk.spans.usize().map(|i| b.spans[i].start).min().unwrap_or(0);
        let begin = BASE + (second * 1_000_000_000 + r.below(1_000_000_000)) as i64;
        for i in chunk.spans.usize() {
            let span = b.spans[i];
            let id = *ids.entry(span.span_id.0).or_insert_with(|| r.next());
            let parent = *ids.entry(span.parent_id.0).or_insert_with(|| r.next());
            let to = &mut b.spans[i];
            to.trace_id = trace_id;
            to.span_id = SpanId(id);
            to.parent_id = SpanId(parent);
            to.start = begin + (span.start - first) + r.below(1 << 12) as i64;
            to.duration = span.duration + (r.next() % (span.duration.max(8) as u64 / 8)) as i64;
            if b.get_str(span.attrs, "_dd.p.tid").is_some() {
                b.set_str(i, "_dd.p.tid", &format!("{high:016x}"));
            }
        }
    }
    b
}

fn real(dir: &Path) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let sets = [
        ("bench bodies", vec!["bench"]),
        (
            "recorded ddtrace and dd-trace",
            vec!["python-ddtrace-2", "python-ddtrace-3", "python-ddtrace-4", "node-dd-trace"],
        ),
    ];
    for (name, folders) in sets {
        let mut batches = Vec::new();
        for f in folders {
            bodies(&fixtures.join(f), &mut batches);
        }
        let per_round: usize = batches.iter().map(|b| b.spans.len()).sum();
        let chunks: usize = batches.iter().map(|b| b.chunks.len()).sum();
        let mut r = Rng(2);
        let (mut segments, mut build, mut spans, mut second) = (Vec::new(), 0.0, 0, 0);
        for id in 0..4 {
            let mut input = Vec::new();
            let mut n = 0;
            while n < 250_000 {
                for b in &batches {
                    n += b.spans.len();
                    input.push(again(b, &mut r, second));
                }
                second += 1;
            }
            let refs: Vec<&Batch> = input.iter().collect();
            let before = cpu();
            let meta = write_segment(dir, &WriteOptions { id, ..WriteOptions::default() }, &refs).unwrap();
            build += cpu() - before;
            spans += meta.spans;
            segments.push(Segment::open(&dir.join(&meta.name)).unwrap());
        }
        let inputs: Vec<&Segment> = segments.iter().collect();
        let before = cpu();
        let meta =
            merge(dir, &inputs, &WriteOptions { id: 1000, ..WriteOptions::default() }, &|_| false).unwrap();
        println!(
            "{name}: {spans} spans in traces of {:.1}; build {:.2}, merge {:.2} CPU s per million; {:.1} bytes per span",
            per_round as f64 / chunks as f64,
            build / spans as f64 * 1e6,
            (cpu() - before) / spans as f64 * 1e6,
            meta.bytes as f64 / meta.spans as f64
        );
        let path = dir.join(&meta.name);
        files(&path, meta.spans);
        columns(&path, meta.spans);
    }
}

fn main() {
    let replay = std::env::args().nth(1).is_some_and(|a| a == "real");
    let thousands: u64 =
        if replay { 0 } else { std::env::args().nth(1).map_or(1000, |a| a.parse().unwrap()) };
    let dir = std::env::args()
        .nth(2)
        .unwrap_or_else(|| std::env::temp_dir().join("segment_bench").display().to_string());
    let dir = Path::new(&dir);
    let _ = std::fs::remove_dir_all(dir);
    std::fs::create_dir_all(dir).unwrap();
    if replay {
        return real(dir);
    }
    let mut r = Rng(1);
    let mut segments = Vec::new();
    let (mut spans, mut build, mut bytes) = (0, 0.0, 0);
    let cache = Cache::new(64 << 20);
    let pieces = thousands.div_ceil(250).max(2);
    let mut wanted = Vec::new();
    let mut users = Vec::new();
    for id in 0..pieces {
        let batches: Vec<Batch> =
            (0..thousands / pieces).map(|_| batch(&mut r, BASE + id as i64 * 60_000_000_000, 1)).collect();
        for b in &batches {
            wanted.push(b.spans[r.below(b.spans.len() as u64) as usize].trace_id);
            users.push(b.get_str(b.spans[0].attrs, "user.id").unwrap().to_owned());
        }
        let refs: Vec<&Batch> = batches.iter().collect();
        let before = cpu();
        let meta = write_segment(dir, &WriteOptions { id, ..WriteOptions::default() }, &refs).unwrap();
        build += cpu() - before;
        spans += meta.spans;
        bytes += meta.bytes;
        segments.push(Segment::open_with(&dir.join(&meta.name), cache.clone()).unwrap());
    }
    println!("{spans} spans");
    println!(
        "build  {:.2} CPU s per million spans, {:.1} bytes per span, peak RSS {:.0} MiB with the input",
        build / spans as f64 * 1e6,
        bytes as f64 / spans as f64,
        peak_mib()
    );
    files(segments[0].path(), segments[0].meta().spans);
    let inputs: Vec<&Segment> = segments.iter().collect();
    let before = cpu();
    let meta =
        merge(dir, &inputs, &WriteOptions { id: 1000, ..WriteOptions::default() }, &|_| false).unwrap();
    println!(
        "merge  {:.2} CPU s per million spans, {:.1} bytes per span",
        (cpu() - before) / spans as f64 * 1e6,
        meta.bytes as f64 / meta.spans as f64
    );
    let path = dir.join(&meta.name);
    files(&path, meta.spans);
    columns(&path, meta.spans);
    let merged = Segment::open_with(&path, Cache::new(64 << 20)).unwrap();
    for pass in ["first", "again"] {
        let times = wanted
            .iter()
            .map(|id| {
                let t = Instant::now();
                assert!(merged.trace(*id).unwrap().is_some());
                t.elapsed()
            })
            .collect();
        println!("trace by id, {pass:<9}     {}", quantiles(times));
    }
    let times = (0..10_000)
        .map(|_| {
            let t = Instant::now();
            let _ = merged.may_have(TraceId(u128::from(r.next()))).unwrap();
            t.elapsed()
        })
        .collect();
    println!("id that is not there       {}", quantiles(times));
    let service = |s: u64| Expr::Is(Cond::Service { name: format!("service-{s:02}"), fold: false });
    let operation = |s: u64, o: u64| {
        Expr::all(vec![
            service(s),
            Expr::Is(Cond::Name { name: format!("operation-{o:02}-of-{s:02}"), fold: false }),
        ])
    };
    let tag = |key: &str, value: &str| {
        Expr::Is(Cond::Attr {
            scope: AttrScope::Any,
            key: key.to_owned(),
            op: Op::Eq,
            value: Literal::Typed(value.to_owned()),
        })
    };
    let window = TimeRange { start: BASE + 30_000_000_000, end: BASE + 40_000_000_000 };
    let slow = Expr::Is(Cond::Duration { min: 300_000_000, max: i64::MAX });
    type Question<'a> = Box<dyn Fn(&mut Rng) -> Search + 'a>;
    let questions: [(&str, Question<'_>); 6] = [
        ("service+operation", Box::new(|r| one(operation(r.below(40), r.below(100)), TimeRange::ALL))),
        (
            "  and duration",
            Box::new(|r| {
                one(Expr::And(vec![operation(r.below(40), r.below(100)), slow.clone()]), TimeRange::ALL)
            }),
        ),
        ("service, 10 s window", Box::new(|r| one(service(r.below(40)), window))),
        ("everything, 10 s window", Box::new(|_| one(Expr::True, window))),
        (
            "rare tag",
            Box::new(|r| one(tag("user.id", &users[r.below(users.len() as u64) as usize]), TimeRange::ALL)),
        ),
        ("tag that is not there", Box::new(|_| one(tag("user.id", "user-x"), TimeRange::ALL))),
    ];
    for (name, question) in &questions {
        let mut found = 0;
        let times: Vec<Duration> = (0..40)
            .map(|_| {
                let search = question(&mut r);
                let t = Instant::now();
                found += hits(&merged, &search);
                t.elapsed()
            })
            .collect();
        println!("{name:<26} {}  {} hits each", quantiles(times), found / 40);
    }
    println!("peak RSS {:.0} MiB", peak_mib());
}

/// The newest twenty.
fn hits(segment: &Segment, search: &Search) -> usize {
    let mut hits = segment.search(search).unwrap();
    (0..20).map_while(|_| hits.next().unwrap()).count()
}

fn one(expr: Expr, window: TimeRange) -> Search {
    Search { each: vec![expr], window, ..Search::default() }
}

/// Sizes of the columns, from the Parquet footer.
fn columns(path: &Path, spans: u64) {
    use parquet::file::reader::FileReader;
    let file = std::fs::File::open(path.join("spans.parquet")).unwrap();
    let reader = parquet::file::reader::SerializedFileReader::new(file).unwrap();
    let mut sizes = std::collections::BTreeMap::<String, i64>::new();
    for g in reader.metadata().row_groups() {
        for c in g.columns() {
            *sizes.entry(c.column_path().string()).or_default() += c.compressed_size();
        }
    }
    let mut sizes: Vec<_> = sizes.into_iter().collect();
    sizes.sort_by_key(|(_, s)| -s);
    let text: Vec<String> = sizes
        .iter()
        .filter(|(_, s)| *s as f64 / spans as f64 > 0.02)
        .map(|(n, s)| format!("{n} {:.2}", *s as f64 / spans as f64))
        .collect();
    println!("    columns, bytes per span: {}", text.join(", "));
}
