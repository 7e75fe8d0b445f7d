//! In front of an Agent that notes every byte and answers as told.

use crate::support::*;
use http::{Request, Response};
use http_body_util::BodyExt;
use spanloom_outbound::{Address, Error, Upstream};
use spanloom_pipeline::Outcome;
use spanloom_receivers::StreamError;
use spanloom_receivers::datadog::{AgentBody, AgentClient, AgentError, AgentFuture, TeeConfig};
use spanloom_receivers::proxy::{HttpClient, Outgoing, Secret, SendFuture};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

const RATES: &str = r#"{"rate_by_service":{"service:,env:":0.25}}"#;

/// What the Agent does with a request that it has read.
#[derive(Clone)]
enum Does {
    Answer(Vec<u8>),
    Hang,
    /// Closes the connection after these bytes.
    Break(Vec<u8>),
}

struct Agent {
    address: Address,
    seen: Mutex<Vec<Vec<u8>>>,
    does: watch::Sender<Does>,
    task: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

fn reply(status: &str, headers: &str, body: &str) -> Does {
    let length = body.len();
    Does::Answer(format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}").into())
}

impl Agent {
    async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let agent = Self::at(&format!("http://{}", listener.local_addr().unwrap()));
        let own = agent.clone();
        let accept = async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(own.clone().serve(stream));
            }
        };
        *agent.task.lock().unwrap() = Some(tokio::spawn(accept));
        agent
    }

    async fn on_socket(path: &Path) -> Arc<Self> {
        let listener = UnixListener::bind(path).unwrap();
        let agent = Self::at(&format!("unix://{}", path.display()));
        let own = agent.clone();
        let accept = async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(own.clone().serve(stream));
            }
        };
        *agent.task.lock().unwrap() = Some(tokio::spawn(accept));
        agent
    }

    fn at(address: &str) -> Arc<Self> {
        Arc::new(Self {
            address: Address::parse(address, 8126).unwrap(),
            seen: Mutex::default(),
            does: watch::channel(reply("200 OK", "Content-Type: application/json\r\n", RATES)).0,
            task: Mutex::default(),
        })
    }

    /// Nobody listens any more.
    fn stop(&self) {
        if let Some(task) = self.task.lock().unwrap().take() {
            task.abort();
        }
    }

    async fn serve(self: Arc<Self>, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut does = self.does.subscribe();
        while let Some(request) = read_request(&mut stream).await {
            self.seen.lock().unwrap().push(request);
            let now = loop {
                let now = does.borrow_and_update().clone();
                match now {
                    Does::Hang => does.changed().await.unwrap(),
                    now => break now,
                }
            };
            match now {
                Does::Answer(bytes) => stream.write_all(&bytes).await.unwrap(),
                Does::Break(bytes) => return stream.write_all(&bytes).await.unwrap(),
                Does::Hang => {}
            }
        }
    }

    fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

/// A request to its last byte, as it came.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut got = Vec::new();
    loop {
        if let Some(end) = got.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&got[..end]).to_lowercase();
            let length =
                head.split("content-length: ").nth(1).and_then(|l| l.lines().next()?.parse::<usize>().ok());
            let whole = match length {
                Some(n) => got.len() >= end + 4 + n,
                None if head.contains("transfer-encoding") => got.ends_with(b"\r\n0\r\n\r\n"),
                None => true,
            };
            if whole {
                return Some(got);
            }
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await {
            Ok(n @ 1..) => got.extend_from_slice(&piece[..n]),
            _ => return None,
        }
    }
}

struct Over(Upstream<AgentBody>);

impl AgentClient for Over {
    fn send(&self, request: Request<AgentBody>) -> AgentFuture<'_> {
        Box::pin(async move {
            let map = |r: Response<_>| {
                r.map(|b: hyper::body::Incoming| b.map_err(|e| StreamError(e.to_string())).boxed_unsync())
            };
            self.0.send(request).await.map(map).map_err(|e| match e {
                Error::Unreachable(cause) => AgentError::Unreachable(cause),
                e => AgentError::Broken(e.to_string()),
            })
        })
    }
}

async fn in_front_of(agent: &Agent, change: impl FnOnce(&mut Setup, &mut TeeConfig)) -> Running {
    let client = Arc::new(Over(Upstream::new(&agent.address)));
    // Nothing here waits for time to pass unless a test says so.
    let patience = Duration::from_secs(600);
    let mut config = TeeConfig { patience, give_up: patience, ..TeeConfig::default() };
    let mut setup = Setup::default();
    change(&mut setup, &mut config);
    setup.agent = Some((client, config));
    start_with(setup).await
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    w.write_all(data).unwrap();
    w.finish().unwrap()
}

fn raw(head: &str, body: &[u8]) -> Vec<u8> {
    let mut out = head.replace('\n', "\r\n").into_bytes();
    out.extend_from_slice(body);
    out
}

#[tokio::test]
async fn requests_arrive_to_the_byte_and_are_processed_here_as_well() {
    let agent = Agent::start().await;
    let r = in_front_of(&agent, |_, _| ()).await;
    let body = one_span();
    let n = body.len();
    let zipped = gzip(&body);
    for (unix, request) in [
        (
            false,
            raw(
                &format!(
                    "PUT /v0.4/traces?a=%2F&b HTTP/1.1\nX-datadog-TRACE-count: 1\nhost: Agent:1\nContent-Type: application/msgpack\nx-twice: 1\nX-Twice: 2\nDatadog-Meta-Lang: go\nContent-Length: {n}\n\n"
                ),
                &body,
            ),
        ),
        (
            true,
            raw(
                &format!(
                    "POST /v0.4/traces HTTP/1.1\nHost: localhost\ncontent-type: application/msgpack\ncontent-length: {n}\nx-empty:\n\n"
                ),
                &body,
            ),
        ),
        (
            false,
            raw(
                &format!(
                    "POST /v0.6/stats HTTP/1.1\nHost: x\nContent-Encoding: gzip\nContent-Length: {}\n\n",
                    zipped.len()
                ),
                &zipped,
            ),
        ),
        (false, raw("GET /info HTTP/1.1\nHost: x\nAccept: */*\n\n", b"")),
        (
            false,
            raw(
                "POST /telemetry/proxy/api/v2/apmtelemetry HTTP/1.1\nHost: x\nDD-Telemetry-API-Version: v2\nContent-Length: 2\n\n",
                b"{}",
            ),
        ),
        (false, raw("POST /profiling/v1/input?q HTTP/1.1\nHost: x\nContent-Length: 7\n\n", b"profile")),
        (false, raw("DELETE /nobody/knows/this HTTP/1.1\nHost: x\nContent-Length: 0\n\n", b"")),
        (false, raw("POST //v0.4//traces HTTP/1.1\nHost: x\nContent-Length: 1\n\n", &[0x90])),
    ] {
        let answer = r.raw(unix, &request).await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, RATES));
        let seen = agent.take().remove(0);
        assert_eq!(String::from_utf8_lossy(&seen), String::from_utf8_lossy(&request));
        assert!(seen == request);
    }
    let counts = r.finish().await;
    assert_eq!(notes(&counts, "forwarded", "answered"), 8);
    assert_eq!(spans(&counts, Outcome::Kept), 2);
}

#[tokio::test]
async fn chunks_stay_chunks_and_what_concerns_the_connection_stays_behind() {
    let agent = Agent::start().await;
    let r = in_front_of(&agent, |_, _| ()).await;
    let body = one_span();
    let (first, second) = body.split_at(10);
    let mut request = raw(
        "POST /v0.4/traces HTTP/1.1\nHost: x\nContent-Type: application/msgpack\nTransfer-Encoding: chunked\nConnection: close, x-hop\nX-Hop: 1\nX-Own: 2\n\n",
        b"",
    );
    for piece in [first, second, b""] {
        request.extend(format!("{:x}\r\n", piece.len()).bytes());
        request.extend_from_slice(piece);
        request.extend(b"\r\n");
    }
    assert_eq!(r.raw(false, &request).await.unwrap().text(), RATES);
    let seen = agent.take().remove(0);
    let end = seen.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&seen[..end]).into_owned();
    let names: Vec<&str> = head.lines().skip(1).map(|l| l.split_once(':').unwrap().0).collect();
    assert_eq!(names, ["Host", "Content-Type", "X-Own", "Transfer-Encoding"], "{head}");
    assert!(seen.windows(body.len()).any(|w| w == body), "one chunk with all bytes");
    let counts = r.finish().await;
    assert_eq!(spans(&counts, Outcome::Kept), 1);
}

#[tokio::test]
async fn the_agents_answer_comes_back_as_it_is() {
    let agent = Agent::start().await;
    let r = in_front_of(&agent, |_, _| ()).await;
    let long = "x".repeat(100_000);
    for (status, headers, body) in [
        ("429 Too Many Requests", "x-odd-CASE: 1\r\nDatadog-Rates-Payload-Version: abc\r\n", RATES),
        (
            "200 OK",
            "Datadog-Agent-Version: 7.1.0\r\nDatadog-Agent-State: s\r\nconnection: x-hop\r\nX-Hop: 1\r\n",
            "{}",
        ),
        ("404 Not Found", "Content-Type: text/plain; charset=utf-8\r\n", "404 page not found\n"),
        ("200 OK", "", &long),
    ] {
        agent.does.send_replace(reply(status, headers, body));
        let answer = r.post("/v0.4/traces", &[MSGPACK], &one_span()).await;
        assert_eq!(answer.status.to_string(), status[..3]);
        assert!(answer.text() == body);
        for line in headers.lines().filter(|l| !l.contains("op")) {
            let (name, value) = line.split_once(": ").unwrap();
            assert_eq!(answer.header(name), Some(value), "{name}");
        }
        assert_eq!((answer.header("X-Hop"), answer.header("x-hop")), (None, None));
    }
    let counts = r.finish().await;
    assert_eq!((notes(&counts, "forwarded", "answered"), notes(&counts, "forwarded", "refused")), (2, 2));
}

#[tokio::test]
async fn without_an_agent_tracers_have_our_own_answers_and_nothing_is_lost_here() {
    let agent = Agent::start().await;
    let r = in_front_of(&agent, |_, _| ()).await;
    assert_eq!(r.post("/v0.4/traces", &[MSGPACK], &one_span()).await.text(), RATES);
    agent.stop();
    agent.does.send_replace(Does::Break(Vec::new()));
    for _ in 0..10 {
        let answer = r.post("/v0.4/traces", &[MSGPACK], &one_span()).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "{\"rate_by_service\":{}}\n"));
    }
    let info = r.send("GET", "/info", &[], b"").await;
    assert!(info.text().contains("\"endpoints\""), "{}", info.text());
    let counts = r.finish().await;
    assert_eq!(spans(&counts, Outcome::Kept), 11);
    let failed =
        ["unreachable", "broken"].map(|why| notes(&counts, "not_forwarded", why)).iter().sum::<u64>();
    assert!(failed >= 3, "{failed}");
    assert_eq!(failed + notes(&counts, "not_forwarded", "agent_down"), 11);
    assert_eq!(notes(&counts, "forwarded", "answered"), 1);
}

#[tokio::test]
async fn an_agent_that_breaks_off_has_not_answered() {
    let agent = Agent::start().await;
    let r = in_front_of(&agent, |_, _| ()).await;
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_vec();
    agent.does.send_replace(Does::Break(half));
    let answer = r.post("/v0.4/traces", &[MSGPACK], &one_span()).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "{\"rate_by_service\":{}}\n"));
    let counts = r.finish().await;
    assert_eq!(notes(&counts, "not_forwarded", "broken"), 1);
}

#[tokio::test]
async fn a_slow_agent_gets_every_request_and_no_tracer_waits_for_it() {
    let agent = Agent::start().await;
    let r = in_front_of(&agent, |_, tee| tee.patience = Duration::from_millis(5)).await;
    agent.does.send_replace(Does::Hang);
    for _ in 0..20 {
        let answer = r.post("/v0.4/traces", &[MSGPACK], &one_span()).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "{\"rate_by_service\":{}}\n"));
    }
    agent.does.send_replace(reply("200 OK", "", RATES));
    let counts = r.finish().await;
    assert_eq!(agent.take().len(), 20);
    assert_eq!(notes(&counts, "forwarded", "late"), 20);
    assert_eq!(spans(&counts, Outcome::Kept), 20);
}

#[tokio::test]
async fn a_request_that_we_refuse_or_cannot_read_has_the_agents_answer() {
    let agent = Agent::start().await;
    let r = in_front_of(&agent, |setup, _| {
        setup.config.decoder_timeout = Duration::from_millis(1);
        setup.pipeline.budget = 1000;
    })
    .await;
    let held = r.pipeline.inlet().reserve(1000).unwrap();
    let honest = ("Datadog-Send-Real-Http-Status", "true");
    let answer = r.post("/v0.4/traces", &[MSGPACK, honest], &one_span()).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, RATES));
    r.tee.as_ref().unwrap().finish(Duration::from_secs(60)).await;
    drop(held);
    let answer = r.post("/v0.4/traces", &[MSGPACK, ("X-Datadog-Trace-Count", "7")], b"no msgpack").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, RATES));
    assert_eq!(agent.take().len(), 2);
    let counts = r.finish().await;
    assert_eq!((payloads(&counts, "memory"), payloads(&counts, "decoding_error")), (1, 1));
    assert_eq!(counts.received_spans(), 0);
}

#[tokio::test]
async fn what_does_not_fit_in_memory_streams_to_the_agent_and_is_counted_here() {
    let agent = Agent::start().await;
    let r = in_front_of(&agent, |_, tee| tee.memory = 10_000).await;
    let body: Vec<u8> = (0..300_000u32).map(|i| i as u8).collect();
    let request = raw(
        &format!(
            "POST /v0.4/traces HTTP/1.1\nHost: x\nX-Datadog-Trace-Count: 5\nContent-Length: {}\n\n",
            body.len()
        ),
        &body,
    );
    assert_eq!(r.raw(false, &request).await.unwrap().text(), RATES);
    assert!(agent.take().remove(0) == request);
    // The same in chunks: the beginning is in memory already when it is too much.
    let mut request = raw("POST /v0.5/traces HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n", b"");
    for piece in body.chunks(3_000).chain([&b""[..]]) {
        request.extend(format!("{:x}\r\n", piece.len()).bytes());
        request.extend_from_slice(piece);
        request.extend(b"\r\n");
    }
    assert_eq!(r.raw(false, &request).await.unwrap().text(), RATES);
    let seen = agent.take().remove(0);
    assert_eq!(dechunked(&seen), body);
    let counts = r.finish().await;
    assert_eq!(payloads(&counts, "payload_too_large"), 2);
    assert_eq!(notes(&counts, "forwarded_unread", "payload_too_large"), 2);
    let claimed: u64 = counts.payloads.iter().map(|p| p.traces).sum();
    assert_eq!(claimed, 5);
}

fn dechunked(request: &[u8]) -> Vec<u8> {
    let mut rest = &request[request.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4..];
    let mut out = Vec::new();
    loop {
        let line = rest.windows(2).position(|w| w == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            return out;
        }
        out.extend_from_slice(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 4 + size..];
    }
}

#[tokio::test]
async fn bytes_that_a_tracer_sends_again_after_a_refusal_of_the_agent_count_once() {
    let agent = Agent::start().await;
    let r = in_front_of(&agent, |_, _| ()).await;
    agent.does.send_replace(reply("429 Too Many Requests", "", ""));
    assert_eq!(r.post("/v0.4/traces", &[MSGPACK], &one_span()).await.status, 429);
    r.tee.as_ref().unwrap().finish(Duration::from_secs(60)).await;
    agent.does.send_replace(reply("200 OK", "", RATES));
    // Noted beside the answer; until then the copies count as others.
    for _ in 0..1000 {
        assert_eq!(r.post("/v0.4/traces", &[MSGPACK], &one_span()).await.status, 200);
        r.tee.as_ref().unwrap().finish(Duration::from_secs(60)).await;
        if r.store.batches.lock().unwrap().last().unwrap().intake.resent {
            break;
        }
    }
    let resent: Vec<bool> = r.store.batches.lock().unwrap().iter().map(|b| b.intake.resent).collect();
    assert!(!resent[0] && resent[resent.len() - 1], "{resent:?}");
    r.finish().await;
}

/// An intake that counts.
#[derive(Default)]
struct Intake(Mutex<u32>);

impl HttpClient for Intake {
    fn send(&self, _: Outgoing) -> SendFuture<'_> {
        *self.0.lock().unwrap() += 1;
        let body = http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync();
        Box::pin(std::future::ready(Ok(Response::new(body))))
    }
}

#[tokio::test]
async fn profiles_and_events_go_to_the_intake_only_when_the_agent_does_not_take_them() {
    let agent = Agent::start().await;
    let intake = Arc::new(Intake::default());
    let r = in_front_of(&agent, |setup, _| {
        setup.config.proxy.api_key = Secret("k".into());
        setup.client = Some(intake.clone());
    })
    .await;
    let subdomain = ("X-Datadog-EVP-Subdomain", "x");
    for path in ["/profiling/v1/input", "/evp_proxy/v2/api/v2/x", "/telemetry/proxy/api/v2/apmtelemetry"] {
        assert_eq!(r.post(path, &[subdomain], b"{}").await.text(), RATES);
    }
    assert_eq!((*intake.0.lock().unwrap(), agent.take().len()), (0, 3));
    agent.stop();
    agent.does.send_replace(Does::Break(Vec::new()));
    assert_eq!(r.post("/profiling/v1/input", &[], b"p").await.status, 200);
    assert_eq!(*intake.0.lock().unwrap(), 1);
    r.finish().await;
}

#[tokio::test]
async fn an_agent_on_a_unix_socket_is_reached_and_its_connections_are_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::on_socket(&dir.path().join("agent.socket")).await;
    let r = in_front_of(&agent, |_, _| ()).await;
    for _ in 0..3 {
        assert_eq!(r.post("/v0.4/traces", &[MSGPACK], &one_span()).await.text(), RATES);
    }
    assert_eq!(agent.take().len(), 3);
    let counts = r.finish().await;
    assert_eq!(spans(&counts, Outcome::Kept), 3);
}
