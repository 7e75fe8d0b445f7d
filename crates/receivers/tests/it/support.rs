//! A receiver in this process, and a client that sends exactly what it is told.

use spanloom_model::{AckFn, Batch, SpanWriter};
use spanloom_pipeline::*;
use spanloom_receivers::datadog::{
    AgentClient, Config, ContainerResolver, External, Receiver, Tee, TeeConfig,
};
use spanloom_receivers::proxy::HttpClient;
use spanloom_receivers::{Handler, Listener, ServerConfig, ServerStats, serve};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

pub const NOW: i64 = 1_795_190_000_000_000_000;

pub struct FixedClock;
impl Clock for FixedClock {
    fn now(&self) -> i64 {
        NOW
    }
}

/// Keeps what it is given, and acknowledges it unless told to hold it.
#[derive(Default)]
pub struct Recorder {
    pub batches: Mutex<Vec<Arc<Batch>>>,
    pub hold: Mutex<bool>,
    pub held: Mutex<Vec<AckFn>>,
}

impl SpanWriter for Recorder {
    fn append(&self, batch: Arc<Batch>, done: AckFn) {
        self.batches.lock().unwrap().push(batch);
        if *self.hold.lock().unwrap() {
            self.held.lock().unwrap().push(done);
        } else {
            done(Ok(()));
        }
    }
}

/// Remembers statistics; full when told so.
#[derive(Default)]
pub struct StatsRecorder {
    pub got: Mutex<Vec<ClientStats>>,
    pub full: Mutex<bool>,
}

impl StatsSink for StatsRecorder {
    fn accept(&self, stats: ClientStats, _saved: Saved) -> Result<(), StatsBusy> {
        if *self.full.lock().unwrap() {
            return Err(StatsBusy);
        }
        self.got.lock().unwrap().push(stats);
        Ok(())
    }
}

/// Containers that a test knows.
#[derive(Default)]
pub struct Containers {
    pub tags: BTreeMap<String, Vec<String>>,
    pub pid: Mutex<Option<i32>>,
}

impl ContainerResolver for Containers {
    fn by_pid(&self, pid: i32) -> Option<String> {
        *self.pid.lock().unwrap() = Some(pid);
        None
    }
    fn by_inode(&self, inode: u64) -> Option<String> {
        (inode == 4711).then(|| "by-inode".into())
    }
    fn by_external(&self, _: &External) -> Option<String> {
        None
    }
    fn tags(&self, container: &str) -> Option<Vec<String>> {
        self.tags.get(container).cloned()
    }
}

pub struct Running {
    pub receiver: Arc<Receiver>,
    pub tee: Option<Arc<Tee>>,
    pub pipeline: Arc<Pipeline>,
    pub store: Arc<Recorder>,
    pub stats: Arc<StatsRecorder>,
    pub containers: Arc<Containers>,
    pub rates: Rates,
    pub connections: Arc<ServerStats>,
    pub stop: Stop,
    pub port: u16,
    pub socket: PathBuf,
    pub servers: Vec<tokio::task::JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

pub struct Setup {
    pub config: Config,
    pub pipeline: spanloom_pipeline::Config,
    pub containers: Containers,
    pub server: Option<ServerConfig>,
    pub client: Option<Arc<dyn HttpClient>>,
    /// An Agent behind the receiver.
    pub agent: Option<(Arc<dyn AgentClient>, TeeConfig)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            config: Config { remote_configuration: false, ..Config::default() },
            pipeline: spanloom_pipeline::Config { workers: 1, ..Default::default() },
            containers: Containers::default(),
            server: None,
            client: None,
            agent: None,
        }
    }
}

pub async fn start() -> Running {
    start_with(Setup::default()).await
}

/// Listens on TCP and on a Unix socket.
pub async fn start_with(setup: Setup) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let (store, stats, rates) =
        (Arc::new(Recorder::default()), Arc::new(StatsRecorder::default()), Rates::default());
    let pipeline = Arc::new(
        Pipeline::start(
            setup.pipeline,
            Arc::new(FixedClock),
            Arc::new(|_| Vec::new()),
            vec![Destination::store("store", store.clone())],
            stats.clone(),
            rates.clone(),
            Arc::default(),
        )
        .unwrap(),
    );
    let containers = Arc::new(setup.containers);
    let receiver = Arc::new(Receiver::new(setup.config, pipeline.inlet(), containers.clone(), setup.client));
    let tee = setup.agent.map(|(agent, config)| Arc::new(Tee::new(receiver.clone(), agent, config)));
    let stop = Stop::default();
    let tcp = Listener::tcp("localhost", 0).await.unwrap();
    let port = tcp.port().unwrap();
    let socket = dir.path().join("apm.socket");
    let unix = Listener::unix(&socket).unwrap();
    let connections = Arc::new(ServerStats::default());
    let servers = [tcp, unix]
        .into_iter()
        .map(|listener| {
            let tcp = listener.port().is_some();
            let (config, handler): (_, Arc<dyn Handler>) = match &tee {
                Some(tee) => (tee.server_config(tcp), tee.clone()),
                None => (receiver.server_config(tcp), receiver.clone()),
            };
            let config = setup.server.clone().unwrap_or(config);
            tokio::spawn(serve(listener, config, handler, connections.clone(), stop.watch()))
        })
        .collect();
    Running {
        receiver,
        tee,
        pipeline,
        store,
        stats,
        containers,
        rates,
        connections,
        stop,
        port,
        socket,
        servers,
        _dir: dir,
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub version: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Running {
    pub async fn tcp(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.unwrap()
    }

    pub async fn unix(&self) -> UnixStream {
        UnixStream::connect(&self.socket).await.unwrap()
    }

    /// One request on its own connection; `None`: closed without an answer.
    pub async fn raw(&self, unix: bool, bytes: &[u8]) -> Option<Reply> {
        if unix {
            exchange(&mut self.unix().await, bytes).await
        } else {
            exchange(&mut self.tcp().await, bytes).await
        }
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.raw(false, &request(method, path, headers, Some(body))).await.expect("an answer")
    }

    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.send("POST", path, headers, body).await
    }

    /// Stops everything and gives the final counts.
    pub async fn finish(self) -> Snapshot {
        self.stop.request();
        for server in self.servers {
            server.await.unwrap();
        }
        if let Some(tee) = &self.tee {
            tee.finish(Duration::from_secs(30)).await;
        }
        assert!(self.pipeline.drain(Duration::from_secs(30)).await.complete);
        let snapshot = self.pipeline.ledger().snapshot();
        assert!(snapshot.adds_up(), "{snapshot:?}");
        assert_eq!(self.pipeline.inlet().budget().used(), 0);
        snapshot
    }
}

/// A request that asks for the connection to be closed.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Vec<u8> {
    let mut out = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n");
    for (name, value) in headers {
        out += &format!("{name}: {value}\r\n");
    }
    if let Some(body) = body {
        out += &format!("Content-Length: {}\r\n", body.len());
    }
    let mut out = (out + "\r\n").into_bytes();
    out.extend_from_slice(body.unwrap_or_default());
    out
}

pub async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Option<Reply> {
    // A server that has answered may stop reading; the answer is what counts.
    let _ = stream.write_all(bytes).await;
    read_reply(stream).await
}

/// Reads one reply, leaving the connection open.
pub async fn read_reply<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Reply> {
    let mut got = Vec::new();
    let head_end = loop {
        if let Some(at) = got.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => got.extend_from_slice(&piece[..n]),
        }
    };
    let head = String::from_utf8(got[..head_end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap();
    let headers: Vec<(String, String)> =
        lines.map(|l| l.split_once(':').unwrap()).map(|(k, v)| (k.to_owned(), v.trim().to_owned())).collect();
    let mut body = got[head_end + 4..].to_vec();
    let find =
        |name: &str| headers.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v.clone());
    let length: usize = find("content-length").map_or(0, |v| v.parse().unwrap());
    while body.len() < length {
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => body.extend_from_slice(&piece[..n]),
        }
    }
    Some(Reply { version: status[..8].to_owned(), status: status[9..12].parse().unwrap(), headers, body })
}

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// One span, one trace, v0.4.
pub fn one_span() -> Vec<u8> {
    std::fs::read(fixtures().join("golden-agent/own/bodies/methods-and-paths-00.bin")).unwrap()
}

pub const MSGPACK: (&str, &str) = ("Content-Type", "application/msgpack");

pub fn spans(s: &Snapshot, outcome: Outcome) -> u64 {
    s.spans(outcome)
}

pub fn notes(s: &Snapshot, event: &str, reason: &str) -> u64 {
    s.notes.iter().filter(|n| n.event == event && n.reason == reason).map(|n| n.count).sum()
}

pub fn payloads(s: &Snapshot, reason: &str) -> u64 {
    s.payloads.iter().filter(|p| p.reason == reason).map(|p| p.payloads).sum()
}
