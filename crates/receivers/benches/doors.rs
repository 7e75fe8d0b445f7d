//! OTLP and Zipkin to nowhere: what a million spans cost in CPU time from the
//! socket to a destination that throws them away. The server is a process of
//! its own (this program, started again), so that the load generator is not
//! counted.
//!
//! `cargo bench -p spanloom-receivers --bench doors`; `INTAKE_SPANS` (default
//! 1,000,000) spans per case.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use spanloom_codec::{otlp, zipkin};
use spanloom_model::{AckFn, Batch, SpanWriter};
use spanloom_pipeline::{Destination, DiscardStats, Pipeline, Rates, Stop, SystemClock};
use spanloom_receivers::{Handler, Listener, ServerConfig, serve};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;
use tokio::net::TcpStream;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Requests that are under way at the same time.
const CLIENTS: u64 = 4;

struct Discard;
impl SpanWriter for Discard {
    fn append(&self, _batch: Arc<Batch>, done: AckFn) {
        done(Ok(()));
    }
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if std::env::args().any(|a| a == "serve") {
        runtime.block_on(server());
    } else {
        runtime.block_on(client());
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
    let inlet = pipeline.inlet();
    let http = Arc::new(spanloom_receivers::otlp::HttpReceiver::new(Default::default(), inlet.clone()));
    let grpc = Arc::new(spanloom_receivers::otlp::GrpcReceiver::new(Default::default(), inlet.clone()));
    let zipkin = Arc::new(spanloom_receivers::zipkin::Receiver::new(Default::default(), inlet, None));
    let all: [(ServerConfig, Arc<dyn Handler>); 3] =
        [(grpc.server_config(), grpc), (http.server_config(), http), (zipkin.server_config(), zipkin)];
    let stop = Stop::default();
    let mut ports = Vec::new();
    for (config, handler) in all {
        let listener = Listener::tcp("127.0.0.1", 0).await.unwrap();
        ports.push(listener.port().unwrap().to_string());
        tokio::spawn(serve(listener, config, handler, Arc::default(), stop.watch()));
    }
    println!("{}", ports.join(" "));
    std::future::pending::<()>().await;
}

/// A request of exactly so many spans, cut out of a recorded body.
fn batch(spans: usize) -> Batch {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures/bench/otlp-proto-1000sp-500k.bin");
    let body = std::fs::read(path).unwrap();
    let mut batch = otlp::decode_proto(body.into(), Default::default()).unwrap().batch;
    let mut left = spans as u32;
    for chunk in &mut batch.chunks {
        let range = &mut chunk.spans;
        let keep = left.min(range.end - range.start);
        range.end = range.start + keep;
        left -= keep;
    }
    assert_eq!(left, 0);
    batch.chunks.retain(|c| c.spans.start < c.spans.end);
    batch
}

async fn client() {
    let spans: u64 = std::env::var("INTAKE_SPANS").map_or(1_000_000, |v| v.parse().unwrap());
    let batch = batch(512);
    let (mut proto, mut json, mut v2) = (Vec::new(), Vec::new(), Vec::new());
    otlp::encode_proto(&batch, &mut proto);
    zipkin::encode_json_v2(&batch, &mut v2);
    otlp::encode_json(&batch, &mut json);
    let frame = [&[0][..], &(proto.len() as u32).to_be_bytes(), &proto].concat();
    println!("{:<22} {:>9} {:>9} {:>12} {:>10}", "512 spans", "bytes", "CPU s/M", "spans/s", "peak MiB");
    for (name, door, h2, path, kind, body) in [
        (
            "OTLP gRPC",
            0,
            true,
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            "application/grpc",
            frame,
        ),
        ("OTLP HTTP protobuf", 1, false, "/v1/traces", "application/x-protobuf", proto),
        ("OTLP HTTP JSON", 1, false, "/v1/traces", "application/json", json),
        ("Zipkin v2 JSON", 2, false, "/api/v2/spans", "application/json", v2),
    ] {
        let mut server = Command::new(std::env::current_exe().unwrap())
            .arg("serve")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let port: u16 = line.split_whitespace().nth(door).unwrap().parse().unwrap();
        let body = Bytes::from(body);
        send(port, h2, path, kind, &body, 20).await;
        let before = cpu(&server);
        let start = Instant::now();
        let each = spans / 512 / CLIENTS;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let body = body.clone();
                tokio::spawn(async move { send(port, h2, path, kind, &body, each).await })
            })
            .collect();
        for client in clients {
            client.await.unwrap();
        }
        let total = (each * CLIENTS * 512) as f64;
        println!(
            "{name:<22} {:>9} {:>9.3} {:>12.0} {:>10.1}",
            body.len(),
            (cpu(&server) - before) / total * 1e6,
            total / start.elapsed().as_secs_f64(),
            memory(&server),
        );
        server.kill().unwrap();
        server.wait().unwrap();
    }
}

/// Sends one request after the other on a connection.
async fn send(port: u16, h2: bool, path: &str, kind: &str, body: &Bytes, times: u64) {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let request = || {
        http::Request::post(if h2 { format!("http://x{path}") } else { path.to_owned() })
            .header("host", "x")
            .header("content-type", kind)
            .body(Full::new(body.clone()))
            .unwrap()
    };
    let io = TokioIo::new(stream);
    if h2 {
        let (mut send, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..times {
            let answer = send.send_request(request()).await.unwrap().into_body().collect().await.unwrap();
            assert_eq!(answer.trailers().unwrap()["grpc-status"], "0");
        }
    } else {
        let (mut send, connection) = http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..times {
            // The answer may be there before the connection has seen the request's end.
            send.ready().await.unwrap();
            let answer = send.send_request(request()).await.unwrap();
            assert!(answer.status().is_success());
            answer.into_body().collect().await.unwrap();
        }
    }
}

/// User and system seconds of a process.
fn cpu(child: &Child) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let after = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<&str> = after.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn memory(child: &Child) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}
