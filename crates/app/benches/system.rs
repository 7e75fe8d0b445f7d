//! The whole program under load: what a million spans cost from the socket to
//! durable segments, how much memory it takes, how soon it is there.
//!
//! The program is the real binary in a process of its own; this process makes
//! the load: the bodies of `fixtures/bench`, decoded once, with fresh ids and
//! times in every request, so that no two are alike. Open loop: requests leave
//! when they are due, whatever the answers do; how late they leave is printed.
//!
//! `cargo bench -p spanloom --bench system`; `SYSTEM_SPANS` (default 2,000,000)
//! at full speed, `SYSTEM_SECONDS` (default 60) at 10,000 spans a second.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, missing_docs)]

use spanloom_codec::datadog::{Encoding, RequestMeta, decode_traces, encode_v04, encode_v05};
use spanloom_model::{Batch, Intake, Protocol, SpanId, TraceId};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

fn main() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |v| v.parse().unwrap());
    let spans = number("SYSTEM_SPANS", 2_000_000);
    let seconds = number("SYSTEM_SECONDS", 60);

    let dir = temporary("start");
    let begun = Instant::now();
    let program = Program::start(&dir);
    println!("start to the first accepted span   {:>8.0} ms", begun.elapsed().as_secs_f64() * 1e3);
    std::thread::sleep(Duration::from_secs(5));
    println!("resident memory, idle              {:>8.1} MiB", program.resident("VmRSS"));
    program.stop();
    remove(&dir);

    println!(
        "\n{:<34} {:>9} {:>9} {:>9} {:>9} {:>10} {:>9}",
        "load", "spans", "spans/s", "CPU s/M", "peak MiB", "bytes/span", "late ms"
    );
    for (name, file, protocol, rate, count) in [
        ("v0.4, mixed, 10,000 spans/s", "dd-v04-mix", Protocol::DatadogV04, 10_000.0, seconds * 10_000),
        ("v0.4, 1,000-span requests", "dd-v04-1000sp-500k", Protocol::DatadogV04, 0.0, spans),
        ("v0.5, 1,000-span requests", "dd-v05-1000sp-500k", Protocol::DatadogV05, 0.0, spans),
        ("v0.4, mixed requests", "dd-v04-mix", Protocol::DatadogV04, 0.0, spans),
    ] {
        run(name, file, protocol, rate, count);
    }
}

fn run(name: &str, file: &str, protocol: Protocol, rate: f64, count: u64) {
    let dir = temporary("load");
    let program = Program::start(&dir);
    let mut load = Load::new(file, protocol);
    let mut connection = program.connect();
    let cpu_before = program.cpu();
    let begun = Instant::now();
    let (mut sent, mut latest) = (0u64, Duration::ZERO);
    while sent < count {
        let (body, spans) = load.next();
        if rate > 0.0 {
            let due = Duration::from_secs_f64(sent as f64 / rate);
            match due.checked_sub(begun.elapsed()) {
                Some(early) => std::thread::sleep(early),
                None => latest = latest.max(begun.elapsed() - due),
            }
        }
        post(&mut connection, load.path, &body);
        sent += spans;
    }
    let took = begun.elapsed().as_secs_f64();
    let peak = program.resident("VmHWM");
    // A stop writes everything into segments, which belongs to the cost.
    let cpu = program.stop() - cpu_before;
    let bytes = size(&dir.join("store"));
    println!(
        "{name:<34} {sent:>9} {:>9.0} {:>9.2} {peak:>9.1} {:>10.1} {:>9}",
        sent as f64 / took,
        cpu / sent as f64 * 1e6,
        bytes as f64 / sent as f64,
        if rate > 0.0 { latest.as_millis().to_string() } else { "-".into() },
    );
    remove(&dir);
}

/// Requests that are never alike.
struct Load {
    path: &'static str,
    protocol: Protocol,
    templates: Vec<(Batch, i64)>,
    next: usize,
    random: u64,
}

impl Load {
    fn new(prefix: &str, protocol: Protocol) -> Self {
        let bench = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/bench");
        let mut files: Vec<PathBuf> = std::fs::read_dir(bench).unwrap().map(|e| e.unwrap().path()).collect();
        files.retain(|f| {
            let name = f.file_name().unwrap().to_str().unwrap();
            name.starts_with(prefix) && name.ends_with(".msgpack")
        });
        files.sort();
        let templates = files
            .iter()
            .map(|f| {
                let body = std::fs::read(f).unwrap();
                let meta = RequestMeta { lang: "python", ..RequestMeta::default() };
                let intake = Intake { protocol, ..Intake::default() };
                let batch = decode_traces(protocol, Encoding::Msgpack, body.into(), intake, &meta).unwrap();
                let last = batch.spans.iter().map(|s| s.end()).max().unwrap();
                (batch, last)
            })
            .collect();
        let path = if protocol == Protocol::DatadogV05 { "/v0.5/traces" } else { "/v0.4/traces" };
        Self { path, protocol, templates, next: 0, random: 0x9e37_79b9_7f4a_7c15 }
    }

    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn next(&mut self) -> (Vec<u8>, u64) {
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
        let body =
            if self.protocol == Protocol::DatadogV05 { encode_v05(&batch) } else { encode_v04(&batch) };
        (body, batch.spans.len() as u64)
    }
}

struct Program {
    child: Child,
    port: u16,
}

impl Program {
    fn start(dir: &Path) -> Self {
        let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_spanloom"));
        command.arg("run").env_clear();
        command.env("SPANLOOM_DATA_DIR", dir).env("DD_APM_RECEIVER_SOCKET", "");
        command.env("DD_APM_RECEIVER_PORT", ports[0].to_string());
        for name in [
            "ZIPKIN",
            "OTLP_GRPC",
            "OTLP_HTTP",
            "JAEGER_HTTP",
            "JAEGER_GRPC",
            "JAEGER_COMPACT",
            "JAEGER_BINARY",
            "JAEGER_SAMPLING",
            "JAEGER_SAMPLING_GRPC",
            "TEMPO",
            "MESH",
            "XDS",
        ] {
            command.env(format!("SPANLOOM_{name}_ADDRESS"), "127.0.0.1:0");
        }
        command.env("SPANLOOM_QUERY_ADDRESS", format!("127.0.0.1:{}", ports[1]));
        command.env("SPANLOOM_ADMIN_ADDRESS", format!("127.0.0.1:{}", ports[2]));
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        let program = Self { child, port: ports[0] };
        let mut load = Load::new("dd-v04-mix0", Protocol::DatadogV04);
        let (body, _) = load.next();
        let mut connection = program.connect();
        post(&mut connection, load.path, &body);
        program
    }

    fn connect(&self) -> TcpStream {
        let begun = Instant::now();
        loop {
            match TcpStream::connect(("127.0.0.1", self.port)) {
                Ok(stream) => {
                    stream.set_nodelay(true).unwrap();
                    return stream;
                }
                Err(_) if begun.elapsed() < Duration::from_secs(30) => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(e) => panic!("the program does not answer: {e}"),
            }
        }
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap()
    }

    /// Seconds of CPU time so far.
    fn cpu(&self) -> f64 {
        let stat = self.proc("stat");
        let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }

    fn resident(&self, field: &str) -> f64 {
        let status = self.proc("status");
        let line = status.lines().find(|l| l.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }

    /// Stops in order; gives the CPU time of its whole life, as far as it can
    /// be seen.
    fn stop(mut self) -> f64 {
        Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        let mut cpu = self.cpu();
        while self.child.try_wait().unwrap().is_none() {
            cpu = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.cpu())).unwrap_or(cpu);
            std::thread::sleep(Duration::from_millis(2));
        }
        cpu
    }
}

/// Sends a request and waits for a 200.
fn post(connection: &mut TcpStream, path: &str, body: &[u8]) {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/msgpack\r\nDatadog-Meta-Lang: python\r\nDatadog-Send-Real-Http-Status: 1\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes()).unwrap();
    connection.write_all(body).unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let n = connection.read(&mut buffer).unwrap();
        answer.extend_from_slice(&buffer[..n]);
        if n == 0 || answer.ends_with(b"}\n") {
            break;
        }
    }
    if !answer.starts_with(b"HTTP/1.1 200") {
        println!("refused: {}", String::from_utf8_lossy(&answer).lines().next().unwrap_or_default());
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn temporary(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("spanloom-system-{}-{name}", std::process::id()));
    remove(&dir);
    dir
}

fn remove(dir: &Path) {
    let _ = std::fs::remove_dir_all(dir);
}

fn size(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .map(|e| {
            let e = e.unwrap();
            if e.path().is_dir() { size(&e.path()) } else { e.metadata().unwrap().len() }
        })
        .sum()
}
