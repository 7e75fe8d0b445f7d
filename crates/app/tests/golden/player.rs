//! Plays a recording against the program: a fresh process with the recorded
//! settings, the recorded requests with the recorded pauses, a stop.

use crate::intake::Intake;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// A recording.
pub struct Recording {
    pub path: PathBuf,
    pub json: Json,
}

impl Recording {
    /// All of them, in order.
    pub fn all() -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden-agent");
        let mut paths: Vec<PathBuf> = ["captured", "own", "random"]
            .iter()
            .flat_map(|dir| std::fs::read_dir(root.join(dir)).unwrap())
            .map(|e| e.unwrap().path())
            .filter(|p| p.extension().is_some_and(|e| e == "json"))
            .collect();
        paths.sort();
        let read = |path: PathBuf| {
            let json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            Self { path, json }
        };
        paths.into_iter().map(read).collect()
    }

    pub fn name(&self) -> String {
        self.path.file_stem().unwrap().to_string_lossy().into_owned()
    }

    pub fn requests(&self) -> &[Json] {
        self.json["requests"].as_array().unwrap()
    }
}

/// An answer of the program.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// What a process answered and sent.
pub struct Played {
    /// `None`: closed without an answer.
    pub replies: Vec<Option<Reply>>,
    pub intake: Vec<Json>,
    /// Nanoseconds since the epoch: before the start, when it was ready, after the end.
    pub times: [i64; 3],
    /// SHA-256 of the process's own `/info`.
    pub state: String,
}

pub fn now() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as i64
}

/// Start of the ten seconds in which a time lies.
pub fn ten_seconds(time: i64) -> i64 {
    time - time.rem_euclid(10_000_000_000)
}

struct Process {
    child: Child,
    dir: tempfile::TempDir,
    port: u16,
    socket: PathBuf,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody listens on, below those that the system gives away by
/// itself, and never the same one twice.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let n = std::process::id().wrapping_mul(64).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 18_000 + (n % 14_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Process {
    /// Starts it with settings; tries again if somebody took its ports.
    fn start(settings: &Json, intake: u16) -> Self {
        for _ in 0..5 {
            let dir = tempfile::tempdir().unwrap();
            let (port, admin) = (free_port(), free_port());
            let socket = dir.path().join("apm.socket");
            let log = std::fs::File::create(dir.path().join("log")).unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_spanloom"));
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
                .env("SPANLOOM_ADMIN_ADDRESS", format!("127.0.0.1:{admin}"))
                .env("SPANLOOM_DATA_DIR", dir.path().join("data"))
                .env("SPANLOOM_STORE_DISK_FLOOR", "0")
                .env("DD_API_KEY", "x")
                .env("DD_APM_DD_URL", format!("http://127.0.0.1:{intake}"))
                .env("DD_HOSTNAME", "golden-host")
                .env("DD_BIND_HOST", "127.0.0.1")
                .env("DD_APM_RECEIVER_PORT", port.to_string())
                .env("DD_APM_RECEIVER_SOCKET", &socket)
                .env("DD_APM_MAX_MEMORY", "0")
                .env("DD_APM_MAX_CPU_PERCENT", "0")
                .env("DD_REMOTE_CONFIGURATION_ENABLED", "false")
                .env("SPANLOOM_CONTAINERS", "true");
            for (key, value) in settings.as_object().unwrap() {
                match key.as_str() {
                    "DD_APM_RECEIVER_SOCKET" => &mut command,
                    "container_tags" => {
                        let file = dir.path().join("tags.json");
                        std::fs::write(&file, value.to_string()).unwrap();
                        command.env("SPANLOOM_CONTAINER_TAGS", file)
                    }
                    "container_runtime_detected" => command.env("SPANLOOM_CONTAINERS", value.to_string()),
                    _ => command.env(key, value.as_str().unwrap()),
                };
            }
            let child = command.spawn().unwrap();
            let mut process = Self { child, dir, port, socket };
            if process.ready(admin) {
                return process;
            }
        }
        panic!("the program does not start");
    }

    fn ready(&mut self, admin: u16) -> bool {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if self.child.try_wait().unwrap().is_some() {
                eprintln!("ended at the start:\n{}", self.log());
                return false;
            }
            let ask = b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", admin))
                && exchange(stream, ask).is_some_and(|r| r.status == 200)
            {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("not ready in 30 s:\n{}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// SIGTERM, and the end of the process.
    fn stop(&mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let deadline = Instant::now() + Duration::from_secs(40);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "ended with {status}:\n{}", self.log());
                return;
            }
            assert!(Instant::now() < deadline, "does not stop:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn ask(&self, unix: bool, request: &[u8]) -> Option<Reply> {
        if unix {
            exchange(UnixStream::connect(&self.socket).unwrap(), request)
        } else {
            exchange(TcpStream::connect(("127.0.0.1", self.port)).unwrap(), request)
        }
    }
}

/// Plays requests of a recording into one process.
pub fn play(recording: &Recording, requests: &[Json], intake: &Intake) -> Played {
    let settings = &recording.json["settings"];
    let started = now();
    let mut process = Process::start(settings, intake.port);
    let ready = now();
    let info = b"GET /info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let Some(info) = process.ask(false, info) else { panic!("no answer to /info:\n{}", process.log()) };
    let state = sha256(&info.body);
    let pause = if recording.name().ends_with(".sequence") { 60 } else { 40 };
    let mut replies = Vec::new();
    for (i, request) in requests.iter().enumerate() {
        if i > 0 {
            let own = request["pause_before_ms"].as_u64().unwrap_or(0);
            std::thread::sleep(Duration::from_millis(own.max(pause)));
        }
        let bytes = wire(recording, request, ten_seconds(ready));
        let mut reply = process.ask(request["transport"] == "unix", &bytes);
        if let Some(reply) = &mut reply {
            unplace(reply, &process, settings);
        }
        replies.push(reply);
    }
    // The reference had as long before it was stopped.
    std::thread::sleep(Duration::from_millis(pause));
    process.stop();
    Played { replies, intake: intake.take(), times: [started, ready, now()], state }
}

/// The recording's process had the default port and its own socket.
fn unplace(reply: &mut Reply, process: &Process, settings: &Json) {
    let Ok(text) = std::str::from_utf8(&reply.body) else { return };
    let socket = settings["DD_APM_RECEIVER_SOCKET"].as_str().unwrap_or_default();
    let placed = text
        .replace(&format!("\"receiver_port\": {}", process.port), "\"receiver_port\": 8126")
        .replace(process.socket.to_str().unwrap(), socket);
    if placed != text {
        assert_eq!(reply.headers["Content-Length"], reply.body.len().to_string());
        reply.headers.insert("Content-Length".into(), placed.len().to_string());
        reply.body = placed.into_bytes();
    }
}

/// A request as it goes over the wire.
fn wire(recording: &Recording, request: &Json, t0: i64) -> Vec<u8> {
    let mut out = format!(
        "{} {} HTTP/1.1\r\nHost: localhost:8126\r\n",
        request["method"].as_str().unwrap(),
        request["path"].as_str().unwrap()
    );
    for header in request["headers"].as_array().unwrap() {
        let (name, value) = (header[0].as_str().unwrap(), header[1].as_str().unwrap());
        let framing = ["host", "content-length", "transfer-encoding", "connection"];
        if !framing.contains(&name.to_lowercase().as_str()) {
            out += &format!("{name}: {value}\r\n");
        }
    }
    let body = match request["body_file"].as_str() {
        Some(file) => {
            let body = std::fs::read(recording.path.parent().unwrap().join(file)).unwrap();
            assert_eq!(sha256(&body), request["body_sha256"].as_str().unwrap(), "{file}");
            Some(body)
        }
        None if !request["body"].is_null() => Some(live_body(t0)),
        None => None,
    };
    if let Some(body) = &body {
        out += &format!("Content-Length: {}\r\n", body.len());
    }
    out += "Connection: close\r\n\r\n";
    let mut bytes = out.into_bytes();
    bytes.extend(body.unwrap_or_default());
    bytes
}

/// The body of `stats-buckets-live`, made by its description: five traces of
/// one span, whose times are those of the moment.
fn live_body(b: i64) -> Vec<u8> {
    const SECOND: i64 = 1_000_000_000;
    let mut out = vec![0x95];
    let text = |out: &mut Vec<u8>, text: &str| {
        out.push(0xa0 + text.len() as u8);
        out.extend(text.as_bytes());
    };
    let ends = [(-65, 1_000), (-5, 2_000), (1, 3_000), (12, 4_000), (1, 20 * SECOND)];
    for (i, (end, duration)) in ends.into_iter().enumerate() {
        let start = b + end * SECOND - duration;
        out.extend([0x91, 0x89]);
        for (key, value) in [
            ("service", format!("s{i}")),
            ("name", "http.request".into()),
            ("resource", "GET /".into()),
            ("type", "web".into()),
        ] {
            text(&mut out, key);
            text(&mut out, &value);
        }
        for (key, value) in [
            ("trace_id", 100 + i as i64),
            ("span_id", 1 + i as i64),
            ("start", start),
            ("duration", duration),
        ] {
            text(&mut out, key);
            out.push(0xd3);
            out.extend(value.to_be_bytes());
        }
        text(&mut out, "metrics");
        out.push(0x81);
        text(&mut out, "_sampling_priority_v1");
        out.push(1);
    }
    out
}

pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Sends a request and reads the answer to its end.
fn exchange<S: Read + Write>(mut stream: S, request: &[u8]) -> Option<Reply> {
    // A refusal may come before all is sent.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8(answer[..end].to_vec()).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: BTreeMap<String, String> =
        lines.filter_map(|l| l.split_once(": ")).map(|(k, v)| (canonical(k), v.to_owned())).collect();
    let mut body = answer.split_off(end + 4);
    if headers.get("Transfer-Encoding").is_some_and(|t| t == "chunked") {
        body = unchunk(&body)?;
    }
    Some(Reply { status, headers, body })
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        let line = rest.windows(2).position(|w| w == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?, 16).ok()?;
        rest = &rest[line + 2..];
        if size == 0 {
            return Some(out);
        }
        out.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}

/// `content-type` → `Content-Type`, as the recordings write it.
pub fn canonical(name: &str) -> String {
    let part = |p: &str| {
        let (first, rest) = p.split_at(p.len().min(1));
        first.to_uppercase() + &rest.to_lowercase()
    };
    name.split('-').map(part).collect::<Vec<_>>().join("-")
}

/// The intake's requests of a recording, for one process.
pub fn recorded_intake(recording: &Recording, process: Option<usize>) -> Vec<Json> {
    let all = &recording.json["intake"];
    let list = match process {
        Some(i) => &all[i],
        None => all,
    };
    let mut list = list.as_array().unwrap().clone();
    for request in &mut list {
        let mut headers = serde_json::Map::new();
        for (name, value) in request["headers"].as_object().unwrap() {
            let value = if value == "<api-key>" { json!("x") } else { value.clone() };
            headers.insert(name.to_lowercase(), value);
        }
        request["headers"] = Json::Object(headers);
    }
    list
}
