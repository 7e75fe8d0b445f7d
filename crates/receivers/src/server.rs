//! HTTP over any listener, shared by all receivers: connection limits,
//! time-outs, keep-alive, shutdown. What is behind a path is the [`Handler`]'s.

use crate::answer::Answer;
use crate::conn::{Guarded, Phases};
use crate::h2c::{self, Sniffed};
use crate::listener::{Listener, Stream};
use crate::replay::RequestBody;
use crate::threads::Net;
use http::header::{CONNECTION, EXPECT, HeaderValue};
use http::request::Parts;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use spanloom_model::Transport;
use spanloom_pipeline::{Phase, StopWatch};
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub struct ConnInfo {
    /// TCP or Unix.
    pub transport: Transport,
    /// Address of a TCP peer.
    pub peer: Option<IpAddr>,
    /// Process of a Unix peer, as `SO_PEERCRED` names it.
    pub pid: Option<i32>,
}

/// A request whose head has been read.
pub struct Request {
    /// Method, path, headers.
    pub head: Parts,
    /// The body, not read yet.
    pub body: RequestBody,
    /// By when the body must have arrived.
    pub deadline: Instant,
    /// Who sent it.
    pub conn: Arc<ConnInfo>,
}

impl Request {
    /// A header as text; empty if it is missing or not UTF-8.
    pub fn header(&self, name: &str) -> &str {
        self.head.headers.get(name).and_then(|v| std::str::from_utf8(v.as_bytes()).ok()).unwrap_or_default()
    }

    /// `Content-Length`, if the client sent one.
    pub fn length(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }
}

/// The answer to come.
pub type HandlerFuture<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. A body that it leaves unread is read and thrown
    /// away afterwards, within bounds.
    fn handle<'a>(&'a self, request: &'a mut Request) -> HandlerFuture<'a>;
}

/// Bounds of a listener.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Connections open at the same time; accepting waits at the limit.
    pub max_connections: usize,
    /// If not 0: new connections accepted in each 30 s, instead of a limit on
    /// open ones.
    pub connection_lease: usize,
    /// Head and body of a request must arrive within this.
    pub read_timeout: Duration,
    /// A connection without a request is closed after this.
    pub idle_timeout: Duration,
    /// At shutdown, requests being handled may take this long.
    pub drain_timeout: Duration,
    /// HTTP/2 without TLS is served too, to clients that begin with it (`h2c`
    /// with prior knowledge).
    pub http2: bool,
    /// Remember how clients write the names of headers, and write answers as
    /// they are. For handlers that pass requests on.
    pub keep_header_case: bool,
}

impl Default for ServerConfig {
    /// What the Datadog Agent does: 1,000 connections, 5 s, 60 s, 5 s.
    fn default() -> Self {
        Self {
            max_connections: 1000,
            connection_lease: 0,
            read_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(5),
            http2: false,
            keep_header_case: false,
        }
    }
}

/// Connections of a listener since the start.
#[derive(Default, Debug)]
pub struct ServerStats {
    /// Accepted.
    pub accepted: AtomicU64,
    /// Closed because a time-out passed.
    pub timed_out: AtomicU64,
    /// Attempts to accept that failed.
    pub errors: AtomicU64,
    /// Times that accepting paused because the lease was spent.
    pub leases_spent: AtomicU64,
    /// Open now.
    pub open: AtomicU64,
}

/// How long the right to accept `connection_lease` connections lasts.
const LEASE: Duration = Duration::from_secs(30);
/// Most unread body bytes read for the sake of the connection
/// (Go: `maxPostHandlerReadBytes`).
const DRAIN_BYTES: u64 = 256 << 10;
/// How long a connection is read on after the last answer, so that the client
/// sees the answer and not a reset.
const LINGER: Duration = Duration::from_millis(500);
/// Largest read buffer of a connection; larger bodies arrive in pieces.
const BUFFER: usize = 64 << 10;

/// Serves a listener until the shutdown begins, then waits for the requests
/// being handled. Everything happens on the caller's runtime.
pub async fn serve(
    listener: Listener,
    config: ServerConfig,
    handler: Arc<dyn Handler>,
    stats: Arc<ServerStats>,
    stop: StopWatch,
) {
    serve_on(Net::default(), listener, config, handler, stats, stop).await;
}

/// As [`serve`], but each connection is served by a thread of `net`.
pub async fn serve_on(
    net: Net,
    listener: Listener,
    config: ServerConfig,
    handler: Arc<dyn Handler>,
    stats: Arc<ServerStats>,
    mut stop: StopWatch,
) {
    let slots = Arc::new(Semaphore::new(config.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
    let mut lease = Lease::new(config.connection_lease);
    let mut connections = JoinSet::new();
    let mut backoff = Duration::ZERO;
    loop {
        while connections.try_join_next().is_some() {}
        let next = async {
            lease.wait(&stats).await;
            let slot = if config.connection_lease > 0 {
                None
            } else {
                Some(Arc::clone(&slots).acquire_owned().await)
            };
            let accepted = listener.accept().await;
            (accepted.and_then(|(stream, info)| Ok((stream.loosen()?, info))), slot)
        };
        let (accepted, slot) = tokio::select! {
            next = next => next,
            () = stop.reached(Phase::Draining) => break,
        };
        let (stream, info) = match accepted {
            Ok(ok) => ok,
            Err(error) => {
                stats.errors.fetch_add(1, Relaxed);
                backoff = (backoff * 2).clamp(Duration::from_millis(5), Duration::from_secs(1));
                tracing::warn!(%error, address = listener.address(), ?backoff, "cannot accept a connection");
                tokio::time::sleep(backoff).await;
                continue;
            }
        };
        backoff = Duration::ZERO;
        lease.spend();
        stats.accepted.fetch_add(1, Relaxed);
        stats.open.fetch_add(1, Relaxed);
        let (config, handler) = (config.clone(), Arc::clone(&handler));
        let (stats, stop) = (Arc::clone(&stats), stop.clone());
        net.spawn(&mut connections, async move {
            let _slot = slot;
            let _open = Open(Arc::clone(&stats));
            let info = Arc::new(info);
            match stream.adopt() {
                Ok(Stream::Tcp(s)) => connection(s, info, &config, handler, &stats, stop).await,
                Ok(Stream::Unix(s)) => connection(s, info, &config, handler, &stats, stop).await,
                Err(error) => {
                    stats.errors.fetch_add(1, Relaxed);
                    tracing::warn!(%error, "an accepted connection cannot be served");
                }
            }
        });
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    let wait = tokio::time::timeout(config.drain_timeout, all);
    tokio::select! {
        _ = wait => {}
        () = stop.reached(Phase::Now) => {}
    }
    connections.shutdown().await;
}

struct Open(Arc<ServerStats>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// The Datadog Agent's connection limit: so many new connections in each
/// half minute; what comes after waits in the kernel's queue.
struct Lease {
    size: usize,
    left: usize,
    renewed: Instant,
}

impl Lease {
    fn new(size: usize) -> Self {
        Self { size, left: size, renewed: Instant::now() }
    }

    async fn wait(&mut self, stats: &ServerStats) {
        if self.size == 0 {
            return;
        }
        if self.renewed.elapsed() >= LEASE {
            self.left = self.size;
            self.renewed = Instant::now();
        }
        if self.left == 0 {
            stats.leases_spent.fetch_add(1, Relaxed);
            tracing::warn!(limit = self.size, "connection limit reached; new connections wait");
            tokio::time::sleep_until(self.renewed + LEASE).await;
            self.left = self.size;
            self.renewed = Instant::now();
        }
    }

    fn spend(&mut self) {
        self.left = self.left.saturating_sub(1);
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    info: Arc<ConnInfo>,
    config: &ServerConfig,
    handler: Arc<dyn Handler>,
    stats: &ServerStats,
    stop: StopWatch,
) {
    let phases = Phases::new(config.read_timeout, config.idle_timeout.max(config.read_timeout));
    let mut stream = Sniffed::new(Guarded::new(stream, Arc::clone(&phases)));
    let mut watch = stop.clone();
    let http2 = config.http2
        && tokio::select! {
            http2 = stream.begins_with_http2() => http2,
            () = watch.reached(Phase::Draining) => return,
        };
    if http2 {
        phases.multiplexed();
        h2c::connection(stream, info, &phases, handler, stop).await;
        if phases.timed_out() {
            stats.timed_out.fetch_add(1, Relaxed);
        }
        return;
    }
    http1_connection(stream, info, phases, config.keep_header_case, handler, stats, stop).await;
}

async fn http1_connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: Sniffed<Guarded<S>>,
    info: Arc<ConnInfo>,
    phases: Arc<Phases>,
    keep_header_case: bool,
    handler: Arc<dyn Handler>,
    stats: &ServerStats,
    mut stop: StopWatch,
) {
    let unread = Arc::new(AtomicBool::new(false));
    let service = {
        let (phases, unread) = (Arc::clone(&phases), Arc::clone(&unread));
        service_fn(move |request: http::Request<Incoming>| {
            let (phases, unread) = (Arc::clone(&phases), Arc::clone(&unread));
            let (handler, conn) = (Arc::clone(&handler), Arc::clone(&info));
            Box::pin(async move {
                let deadline = phases.begin();
                let (head, body) = request.into_parts();
                let mut request = Request { head, body: RequestBody::Incoming(body), deadline, conn };
                let mut answer = handler.handle(&mut request).await;
                if !finish_body(&mut request).await {
                    unread.store(true, Relaxed);
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                phases.end();
                Ok::<_, Infallible>(answer)
            })
        })
    };
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        // Deadlines are ours (`Guarded`): this one would also end idle
        // connections, which clients pool and use again.
        .header_read_timeout(None)
        .title_case_headers(true)
        .preserve_header_case(keep_header_case)
        .half_close(true)
        // Answers are short: one buffer costs the kernel less than two.
        .writev(false)
        .max_buf_size(BUFFER);
    let mut conn = http.serve_connection(TokioIo::new(stream), service);
    let mut draining = false;
    let result = loop {
        let run = std::future::poll_fn(|cx| conn.poll_without_shutdown(cx));
        tokio::select! {
            result = run => break result,
            () = stop.reached(Phase::Draining), if !draining => {
                draining = true;
                Pin::new(&mut conn).graceful_shutdown();
            }
        }
    };
    if phases.timed_out() {
        stats.timed_out.fetch_add(1, Relaxed);
    }
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
    let mut stream = conn.into_parts().io.into_inner().into_inner().into_inner();
    // The peer may be gone already; there is nothing left to tell it.
    let _ = stream.shutdown().await;
    if unread.load(Relaxed) {
        let discard = async {
            let mut scrap = vec![0; 16 << 10];
            while matches!(stream.read(&mut scrap).await, Ok(1..)) {}
        };
        // Either it ended, or it was given its time.
        let _ = tokio::time::timeout(LINGER, discard).await;
    }
}

/// Reads what the handler left of the body. False: too much, too slow, or the
/// client waits for a go-ahead; then the connection cannot be used again.
async fn finish_body(request: &mut Request) -> bool {
    use http_body_util::BodyExt;
    if request.body.is_end_stream() {
        return true;
    }
    let waits = request.head.headers.contains_key(EXPECT);
    if waits || request.length().is_some_and(|n| n > DRAIN_BYTES) {
        return false;
    }
    let drain = async {
        let mut left = DRAIN_BYTES;
        while let Some(frame) = request.body.frame().await {
            let Ok(frame) = frame else { return false };
            let n = frame.data_ref().map_or(0, |d| d.len() as u64);
            match left.checked_sub(n) {
                Some(rest) => left = rest,
                None => return false,
            }
        }
        true
    };
    tokio::time::timeout_at(request.deadline, drain).await.unwrap_or(false)
}
