//! The program in a process of its own, and clients that behave as tracers do.

use crate::until;
use spanloom_codec::datadog::encode_v04;
use spanloom_model::{Attr, Batch, Chunk, Range32, Resource, Span, SpanId, TraceId, Value};
use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// The agent. The same ports and directory in each life.
pub struct Program {
    child: Option<Child>,
    dir: tempfile::TempDir,
    pub port: u16,
    admin: u16,
    intake: u16,
    env: Vec<(&'static str, String)>,
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nobody listens on, below those that the system gives away by itself.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let n = std::process::id().wrapping_mul(64).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 10_500 + (n % 7_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Program {
    /// `SPANLOOM_BINARY` is another binary than the one built with the test.
    pub fn start(intake: u16, env: &[(&'static str, &str)]) -> Self {
        let env: Vec<_> = env.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
        for _ in 0..5 {
            let (dir, env) = (tempfile::tempdir().unwrap(), env.clone());
            let mut program = Self { child: None, dir, port: free_port(), admin: free_port(), intake, env };
            if program.try_run() {
                return program;
            }
            // Somebody took a port between the look and the start.
            println!("ended at the start:\n{}", program.log());
        }
        panic!("the program does not start");
    }

    /// Starts it again.
    pub fn run(&mut self) {
        assert!(self.try_run(), "ended at the start:\n{}", self.log());
    }

    fn try_run(&mut self) -> bool {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("log"));
        let log = log.unwrap();
        let binary = std::env::var_os("SPANLOOM_BINARY")
            .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_spanloom")), PathBuf::from);
        let mut command = Command::new(binary);
        command.arg("agent").env_clear().stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        for name in ["ZIPKIN", "OTLP_GRPC", "OTLP_HTTP", "JAEGER_HTTP", "JAEGER_GRPC", "JAEGER_COMPACT"]
            .iter()
            .chain(&[
                "JAEGER_BINARY",
                "JAEGER_SAMPLING",
                "JAEGER_SAMPLING_GRPC",
                "QUERY",
                "TEMPO",
                "MESH",
                "XDS",
            ])
        {
            command.env(format!("SPANLOOM_{name}_ADDRESS"), "127.0.0.1:0");
        }
        command
            .env("SPANLOOM_ADMIN_ADDRESS", format!("127.0.0.1:{}", self.admin))
            .env("SPANLOOM_DATA_DIR", self.dir.path().join("data"))
            .env("SPANLOOM_STORE_DISK_FLOOR", "0")
            .env("SPANLOOM_ACK", "always")
            .env("DD_API_KEY", "x")
            .env("DD_APM_DD_URL", format!("http://127.0.0.1:{}", self.intake))
            .env("DD_HOSTNAME", "outage-host")
            .env("DD_BIND_HOST", "127.0.0.1")
            .env("DD_APM_RECEIVER_PORT", self.port.to_string())
            .env("DD_APM_RECEIVER_SOCKET", "")
            .envs(self.env.iter().map(|(k, v)| (k, v)));
        let mut child = command.spawn().unwrap();
        let ready = until("the program", || {
            if child.try_wait().unwrap().is_some() {
                return Some(false);
            }
            self.get("/readyz").map(|_| true)
        });
        self.child = Some(child);
        ready
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin)).ok()?;
        let ask = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(ask.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(answer)
    }

    /// A figure of `/metrics`, summed over its labels; `part`: only labels
    /// that contain it.
    pub fn metric(&self, name: &str, part: &str) -> f64 {
        let text = self.get("/metrics").unwrap_or_default();
        let lines = text.lines().filter(|l| l.starts_with(&format!("spanloom_{name}")) && l.contains(part));
        lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and the end of the process.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
        let status = until("the end of the program", || child.try_wait().unwrap());
        assert!(status.success(), "ended with {status}:\n{}", self.log());
    }

    /// MiB of `VmRSS` or `VmHWM`.
    pub fn memory(&self, field: &str) -> f64 {
        let Some(child) = &self.child else { return 0.0 };
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find(|l| l.starts_with(field)).unwrap_or_default();
        line.split_whitespace().nth(1).map_or(0.0, |kib| kib.parse::<f64>().unwrap() / 1024.0)
    }

    /// Bytes of the data directory.
    pub fn disk(&self) -> u64 {
        fn size(dir: PathBuf) -> u64 {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            entries
                .map(|e| if e.path().is_dir() { size(e.path()) } else { e.metadata().map_or(0, |m| m.len()) })
                .sum()
        }
        size(self.dir.path().join("data"))
    }
}

/// What was acknowledged.
#[derive(Default)]
pub struct Sent {
    /// Spans of requests answered with 200.
    pub spans: HashMap<u64, ()>,
    /// Hits they must have caused.
    pub hits: BTreeMap<(String, String), u64>,
    /// Spans of requests that had to be sent more than once: those before the
    /// last may be in the queue although they were never answered.
    pub repeated: u64,
}

/// Clients, each sending one trace of ten spans after the other, and the same
/// bytes again until they are acknowledged, as tracers do.
pub struct Clients {
    pub sent: Arc<Mutex<Sent>>,
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

const SPANS: u64 = 10;
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Clients {
    /// `rate`: spans a second, of all together; 0: as fast as they can.
    pub fn start(port: u16, count: u32, rate: u32) -> Self {
        let mut clients = Self { sent: Arc::default(), stop: Arc::default(), threads: Vec::new() };
        for _ in 0..count {
            let (sent, stop) = (Arc::clone(&clients.sent), Arc::clone(&clients.stop));
            let pause = Duration::from_secs_f64(if rate == 0 {
                0.0
            } else {
                f64::from(count) * SPANS as f64 / f64::from(rate)
            });
            clients.threads.push(std::thread::spawn(move || {
                let mut due = Instant::now();
                while !stop.load(Ordering::SeqCst) {
                    send(port, &sent);
                    due += pause;
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                }
            }));
        }
        clients
    }

    pub fn count(&self) -> usize {
        self.sent.lock().unwrap().spans.len()
    }

    /// Ends when every request under way is acknowledged.
    pub fn stop(self) -> Sent {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.into_iter().for_each(|t| t.join().unwrap());
        std::mem::take(&mut self.sent.lock().unwrap())
    }
}

/// Sends a trace until it is acknowledged.
pub fn send(port: u16, sent: &Mutex<Sent>) {
    let first = NEXT_ID.fetch_add(SPANS, Ordering::SeqCst);
    let (body, hits) = trace(first);
    let mut tries = 0;
    until("an acknowledgement", || {
        tries += 1;
        post(port, &body).filter(|status| *status == 200)
    });
    let mut sent = sent.lock().unwrap();
    sent.spans.extend((first..first + SPANS).map(|id| (id, ())));
    hits.into_iter().for_each(|(key, n)| *sent.hits.entry(key).or_default() += n);
    if tries > 1 {
        sent.repeated += SPANS;
    }
}

/// A trace of which every span counts and leaves.
fn trace(first: u64) -> (Vec<u8>, BTreeMap<(String, String), u64>) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as i64;
    let mut b = Batch::default();
    b.resources.push(Resource::default());
    let mut hits = BTreeMap::new();
    let [measured, priority] = ["_dd.measured", "_sampling_priority_v1"].map(|key| b.arena.push(key));
    for i in 0..SPANS {
        let (service, resource) = (format!("service-{}", i % 3), format!("GET /{}", (first / SPANS + i) % 7));
        let start = b.attrs.len();
        b.attrs.push(Attr { key: measured, value: Value::Double(1.0) });
        b.attrs.push(Attr { key: priority, value: Value::Double(2.0) });
        b.spans.push(Span {
            trace_id: TraceId(u128::from(first)),
            span_id: SpanId(first + i),
            parent_id: SpanId(if i == 0 { 0 } else { first }),
            service: b.arena.push(&service),
            name: b.arena.push("web.request"),
            resource: b.arena.push(&resource),
            span_type: b.arena.push("web"),
            start: now - 5_000_000,
            duration: 1_000_000 + i as i64 * 100_000,
            attrs: Range32::new(start, b.attrs.len()),
            ..Span::default()
        });
        *hits.entry((service, resource)).or_default() += 1;
    }
    b.chunks.push(Chunk {
        spans: Range32::new(0, b.spans.len()),
        trace_id: TraceId(u128::from(first)),
        ..Chunk::default()
    });
    (encode_v04(&b), hits)
}

fn post(port: u16, body: &[u8]) -> Option<u16> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
    let head = format!(
        "POST /v0.4/traces HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/msgpack\r\nDatadog-Meta-Lang: python\r\nDatadog-Send-Real-Http-Status: 1\r\nX-Datadog-Trace-Count: 1\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    let mut answer = Vec::new();
    // What counts is the status; a connection that ends later is none of ours.
    let _ = stream.read_to_end(&mut answer);
    std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()
}
