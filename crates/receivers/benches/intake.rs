//! Intake over HTTP to nowhere: what a million spans cost in CPU time from the
//! socket to a destination that throws them away, and how much memory it
//! takes. The server is a process of its own (this program, started again), so
//! that the load generator is not counted.
//!
//! `cargo bench -p spanloom-receivers --bench intake`; `INTAKE_SPANS` (default
//! 2,000,000) spans for each body, `INTAKE_RATE` spans a second (default 0: as fast
//! as it goes).
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use spanloom_model::{AckFn, Batch, SpanWriter};
use spanloom_pipeline::{Destination, DiscardStats, Pipeline, Rates, Stop, SystemClock};
use spanloom_receivers::datadog::{Config, NoContainers, Receiver};
use spanloom_receivers::{Listener, serve};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Discard;
impl SpanWriter for Discard {
    fn append(&self, _batch: Arc<Batch>, done: AckFn) {
        done(Ok(()));
    }
}

fn main() {
    if std::env::args().any(|a| a == "serve") {
        tokio::runtime::Runtime::new().unwrap().block_on(server());
    } else {
        client();
    }
}

async fn server() {
    let pipeline = Pipeline::start(
        spanloom_pipeline::Config::default(),
        Arc::new(SystemClock),
        Arc::new(|_| Vec::new()),
        vec![Destination::store("discard", Arc::new(Discard))],
        Arc::new(DiscardStats),
        Rates::keep_everything(0),
        Arc::default(),
    )
    .unwrap();
    let receiver = Arc::new(Receiver::new(Config::default(), pipeline.inlet(), Arc::new(NoContainers), None));
    let listener = Listener::tcp("127.0.0.1", 0).await.unwrap();
    println!("{}", listener.port().unwrap());
    let config = receiver.server_config(true);
    serve(listener, config, receiver, Arc::default(), Stop::default().watch()).await;
}

fn client() {
    let spans: u64 = std::env::var("INTAKE_SPANS").map_or(2_000_000, |v| v.parse().unwrap());
    let rate: f64 = std::env::var("INTAKE_RATE").map_or(0.0, |v| v.parse().unwrap());
    let bench = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/bench");
    println!(
        "{:<28} {:>8} {:>12} {:>12} {:>9} {:>9}",
        "body", "spans", "CPU s/M", "spans/s", "idle MiB", "peak MiB"
    );
    for (path, file, each) in [
        ("/v0.4/traces", "dd-v04-1000sp-500k.msgpack", 1000),
        ("/v0.5/traces", "dd-v05-1000sp-500k.msgpack", 1000),
        ("/v0.4/traces", "dd-v04-10sp-100k.msgpack", 200),
        ("/v0.5/traces", "dd-v05-10sp-100k.msgpack", 200),
        ("/v0.4/traces", "dd-v04-10sp-1m.msgpack", 2050),
    ] {
        let body = std::fs::read(bench.join(file)).unwrap();
        let mut server = Command::new(std::env::current_exe().unwrap())
            .arg("serve")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let port: u16 = line.trim().parse().unwrap();
        let request = {
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/msgpack\r\nDatadog-Meta-Lang: python\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            [head.as_bytes(), &body].concat()
        };
        let mut streams: Vec<TcpStream> =
            (0..4).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
        // Before the first request: what the server takes by itself.
        let idle = memory(&server, "VmRSS");
        post(&mut streams[0], &request);
        let before = cpu(&server);
        let start = Instant::now();
        let requests = spans / each;
        // Open loop: the time of each request is fixed beforehand.
        std::thread::scope(|scope| {
            for (i, stream) in streams.iter_mut().enumerate() {
                let request = &request;
                scope.spawn(move || {
                    for n in (i as u64..requests).step_by(4) {
                        if rate > 0.0 {
                            let due = Duration::from_secs_f64((n * each) as f64 / rate);
                            std::thread::sleep(due.saturating_sub(start.elapsed()));
                        }
                        post(stream, request);
                    }
                });
            }
        });
        let took = start.elapsed().as_secs_f64();
        let total = (requests * each) as f64;
        println!(
            "{file:<28} {each:>8} {:>12.3} {:>12.0} {idle:>9.1} {:>9.1}",
            (cpu(&server) - before) / total * 1e6,
            total / took,
            memory(&server, "VmHWM"),
        );
        server.kill().unwrap();
        server.wait().unwrap();
    }
}

fn post(stream: &mut TcpStream, request: &[u8]) {
    stream.write_all(request).unwrap();
    let mut answer = [0; 1024];
    let n = stream.read(&mut answer).unwrap();
    assert!(answer[..n].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..n]));
}

/// User and system seconds of a process.
fn cpu(child: &Child) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let after = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<&str> = after.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn memory(child: &Child, what: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|l| l.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}
