//! The real binary in a process of its own, what it costs, and requests to it.

use crate::load::{Kept, Load, Shape};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Listeners that the benchmark does not use.
const OFF: [&str; 11] = [
    "ZIPKIN",
    "OTLP_GRPC",
    "JAEGER_HTTP",
    "JAEGER_GRPC",
    "JAEGER_COMPACT",
    "JAEGER_BINARY",
    "JAEGER_SAMPLING",
    "JAEGER_SAMPLING_GRPC",
    "TEMPO",
    "MESH",
    "XDS",
];

pub struct Program {
    child: Child,
    datadog: u16,
    otlp: u16,
}

impl Program {
    /// `spanloom run` or `spanloom agent`, ready: it has answered a request.
    pub fn start(command: &str, dir: &Path, settings: &[(&str, &str)]) -> Self {
        let ports = free_ports();
        let mut program = Command::new(env!("CARGO_BIN_EXE_spanloom"));
        program.arg(command).env_clear();
        program.env("SPANLOOM_DATA_DIR", dir).env("DD_APM_RECEIVER_SOCKET", "");
        program.env("DD_APM_RECEIVER_PORT", ports[0].to_string());
        for name in OFF {
            program.env(format!("SPANLOOM_{name}_ADDRESS"), "127.0.0.1:0");
        }
        program.env("SPANLOOM_QUERY_ADDRESS", format!("127.0.0.1:{}", ports[1]));
        program.env("SPANLOOM_ADMIN_ADDRESS", format!("127.0.0.1:{}", ports[2]));
        program.env("SPANLOOM_OTLP_HTTP_ADDRESS", format!("127.0.0.1:{}", ports[3]));
        program.envs(settings.iter().copied());
        let child = program.stdout(Stdio::null()).spawn().unwrap();
        let program = Self { child, datadog: ports[0], otlp: ports[3] };
        let mut load = Load::new("dd-v04-mix0", Shape::AsRecorded, Kept::None);
        let (body, _) = load.next();
        program.connect(&load).post(&load, &body);
        program
    }

    /// A connection to where the load goes.
    pub fn connect(&self, load: &Load) -> Connection {
        let port = if load.path == "/v1/traces" { self.otlp } else { self.datadog };
        let begun = Instant::now();
        loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => {
                    stream.set_nodelay(true).unwrap();
                    return Connection(stream);
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
    pub fn cpu(&self) -> f64 {
        let stat = self.proc("stat");
        let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }

    /// MiB of a field of `/proc/PID/status`.
    pub fn resident(&self, field: &str) -> f64 {
        let status = self.proc("status");
        let line = status.lines().find(|l| l.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }

    /// Stops in order; gives the CPU time of its whole life, as far as it can
    /// be seen.
    pub fn stop(mut self) -> f64 {
        Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        let mut cpu = self.cpu();
        while self.child.try_wait().unwrap().is_none() {
            cpu = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.cpu())).unwrap_or(cpu);
            std::thread::sleep(Duration::from_millis(2));
        }
        cpu
    }
}

pub struct Connection(TcpStream);

impl Connection {
    /// Sends a request and waits for a 200.
    pub fn post(&mut self, load: &Load, body: &[u8]) {
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: x\r\nContent-Type: {}\r\nDatadog-Meta-Lang: python\r\nDatadog-Send-Real-Http-Status: 1\r\nContent-Length: {}\r\n\r\n",
            load.path,
            load.content,
            body.len()
        );
        self.0.write_all(head.as_bytes()).unwrap();
        self.0.write_all(body).unwrap();
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while !whole(&answer) {
            let n = self.0.read(&mut buffer).unwrap();
            assert!(n > 0, "the program closed the connection");
            answer.extend_from_slice(&buffer[..n]);
        }
        if !answer.starts_with(b"HTTP/1.1 200") {
            println!("refused: {}", String::from_utf8_lossy(&answer).lines().next().unwrap_or_default());
        }
    }
}

/// Whether a message with `Content-Length` has arrived.
pub fn whole(message: &[u8]) -> bool {
    length(message).is_some_and(|n| message.len() >= n)
}

/// Bytes of a message with `Content-Length`, once its head is there.
pub fn length(message: &[u8]) -> Option<usize> {
    let head = message.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&message[..head]).to_ascii_lowercase();
    let body =
        text.lines().find_map(|l| l.strip_prefix("content-length:")).map_or(0, |v| v.trim().parse().unwrap());
    Some(head + body)
}

/// Ports that were free a moment ago, no two alike.
fn free_ports() -> [u16; 4] {
    let listeners = [(); 4].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|l| l.local_addr().unwrap().port())
}

pub fn temporary(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("spanloom-system-{}-{name}", std::process::id()));
    remove(&dir);
    dir
}

pub fn remove(dir: &Path) {
    let _ = std::fs::remove_dir_all(dir);
}

pub fn size(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .map(|e| {
            let e = e.unwrap();
            if e.path().is_dir() { size(&e.path()) } else { e.metadata().unwrap().len() }
        })
        .sum()
}
