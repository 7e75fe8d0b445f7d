//! In front of an Agent: every request goes on to it as it came, and its
//! answer back to the tracer; traces and statistics are processed here as
//! well. What happens here never costs the Agent a request:
//!
//! * The copy for us is worked on beside the request and never waited for;
//!   whether it is refused or cannot be read, the tracer has the Agent's answer.
//! * Bodies are held in memory of their own. Where that is spent, or a body is
//!   too large, it streams to the Agent and we have no copy (counted).
//! * If the Agent does not answer, the tracer has our own answer. Requests that
//!   we would pass on to Datadog (profiles, events) are passed on only then, so
//!   that nothing arrives twice.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | [`Tee`]: which request goes which way |
//! | `exchange.rs` | a request to the Agent and its answer |
//! | `health.rs` | whether the Agent answers |

mod exchange;
mod health;

pub use exchange::{AgentBody, AgentClient, AgentError, AgentFuture};

use super::Receiver;
use super::endpoints::Route;
use super::request as req;
use crate::answer::{self, Answer, StreamError};
use crate::body;
use crate::replay::{Replay, RequestBody};
use crate::resend;
use crate::server::{Handler, HandlerFuture, Request, ServerConfig};
use bytes::{Bytes, BytesMut};
use exchange::{Head, piped};
use health::Health;
use http::{Extensions, StatusCode};
use http_body_util::BodyExt;
use spanloom_model::Protocol;
use spanloom_pipeline::{Budget, Ledger, PayloadOutcome, Permit};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

/// Requests that are with the Agent or being copied at the same time.
const PLACES: u32 = 1024;
/// How long a body may wait for memory before it streams instead.
const MEMORY_WAIT: Duration = Duration::from_millis(50);
/// Least reservation for a body that is not empty.
const STEP: u64 = 8 << 10;

/// Settings.
#[derive(Clone, Debug)]
pub struct TeeConfig {
    /// Where the Agent is, for messages.
    pub agent: String,
    /// Bytes of bodies held for the Agent at most.
    pub memory: u64,
    /// How long a tracer waits for the Agent's answer before it has ours. Below
    /// the 2 s after which tracers send again.
    pub patience: Duration,
    /// The same for what the Agent itself passes on before it answers (profiles,
    /// events); the senders of these wait longer.
    pub long_patience: Duration,
    /// After this an answer is waited for no longer, though the tracer has one.
    pub give_up: Duration,
    /// How long an Agent that does not answer is left alone.
    pub rest: Duration,
}

impl Default for TeeConfig {
    /// 64 MiB; 1.5 s, 60 s; 10 s; 1 s.
    fn default() -> Self {
        Self {
            agent: String::new(),
            memory: 64 << 20,
            patience: Duration::from_millis(1500),
            long_patience: Duration::from_secs(60),
            give_up: Duration::from_secs(10),
            rest: Duration::from_secs(1),
        }
    }
}

/// Says that the copy of a request was taken: if the tracer sends the same
/// bytes again, they are not counted again.
#[derive(Clone, Default)]
pub(super) struct Kept(Arc<AtomicBool>);

impl Kept {
    pub(super) fn set(&self) {
        self.0.store(true, SeqCst);
    }
}

/// Answers the Datadog trace API by an Agent behind it.
pub struct Tee {
    receiver: Arc<Receiver>,
    agent: Arc<Agent>,
}

/// The Agent.
struct Agent {
    config: TeeConfig,
    client: Arc<dyn AgentClient>,
    health: Health,
    ledger: Arc<Ledger>,
    memory: Budget,
    places: Arc<Semaphore>,
    /// Requests whose tracers have stopped waiting for it.
    late: AtomicUsize,
}

/// What becomes of a request here.
#[derive(Clone, Copy)]
enum Way {
    /// Also processed here: traces …
    Traces(Protocol),
    /// … and statistics.
    Statistics,
    /// Answered here only if the Agent does not.
    Agents {
        /// The Agent passes it on before it answers.
        long: bool,
    },
}

/// A request is with the Agent, or its copy is being worked on: it has a place,
/// and its body is in memory.
struct Held {
    _place: OwnedSemaphorePermit,
    _memory: Permit,
}

/// Whether a body could be read whole.
enum Collected {
    Whole(Bytes, Permit),
    /// It broke off; the request has it as it is.
    Broken,
    /// It is as it was, because of this.
    Unread(&'static str),
}

const MEMORY: &str = "forward_memory";
const TOO_LARGE: &str = "payload_too_large";

impl Tee {
    /// Puts an Agent behind the receiver.
    pub fn new(receiver: Arc<Receiver>, client: Arc<dyn AgentClient>, config: TeeConfig) -> Self {
        let agent = Agent {
            client,
            health: Health::new(config.rest),
            ledger: Arc::clone(receiver.inlet.ledger()),
            memory: Budget::new(config.memory),
            places: Arc::new(Semaphore::new(PLACES as usize)),
            late: AtomicUsize::new(0),
            config,
        };
        Self { receiver, agent: Arc::new(agent) }
    }

    /// Bounds for its listeners.
    pub fn server_config(&self, tcp: bool) -> ServerConfig {
        ServerConfig { keep_header_case: true, ..self.receiver.server_config(tcp) }
    }

    /// Waits for copies that are being worked on and for answers of the Agent
    /// that nobody waits for any more, `wait` at most. After the listeners have
    /// stopped.
    pub async fn finish(&self, wait: Duration) {
        // What is left then is in the ledger as it ends.
        let _ = tokio::time::timeout(wait, self.agent.places.acquire_many(PLACES)).await;
    }

    async fn pass(&self, request: &mut Request) -> Answer {
        let agent = &self.agent;
        if !agent.health.admits(Instant::now()) {
            agent.ledger.note("not_forwarded", "agent_down", 1);
            return self.receiver.answer(request).await;
        }
        let Ok(place) = Arc::clone(&agent.places).try_acquire_owned() else {
            agent.ledger.note("not_forwarded", "busy", 1);
            return self.receiver.answer(request).await;
        };
        let way = self.way(request);
        match self.collect(request, self.limit(way)).await {
            Collected::Whole(body, memory) => {
                let held = Arc::new(Held { _place: place, _memory: memory });
                self.with_body(request, way, body, held).await
            }
            Collected::Broken => {
                agent.ledger.note("not_forwarded", "body_broken", 1);
                self.receiver.answer(request).await
            }
            Collected::Unread(MEMORY) if agent.late.load(SeqCst) > 0 => {
                // The Agent holds up what is in memory: our copy goes first.
                agent.ledger.note("not_forwarded", "agent_slow", 1);
                self.receiver.answer(request).await
            }
            Collected::Unread(why) => self.stream(request, way, why).await,
        }
    }

    fn way(&self, request: &Request) -> Way {
        match self.receiver.route(request.head.uri.path()) {
            Some(Route::Traces(protocol)) => Way::Traces(protocol),
            Some(Route::Stats) => Way::Statistics,
            Some(Route::Proxy(product)) => Way::Agents { long: product.waits_for_intake() },
            _ => Way::Agents { long: false },
        }
    }

    /// Largest body that is read whole.
    fn limit(&self, way: Way) -> u64 {
        let limit = match way {
            Way::Traces(_) | Way::Statistics => self.receiver.config.max_payload_size,
            Way::Agents { .. } => u64::MAX,
        };
        limit.min(self.agent.config.memory / 2)
    }

    fn patience(&self, way: Way) -> Duration {
        match way {
            Way::Agents { long: true } => self.agent.config.long_patience,
            _ => self.agent.config.patience,
        }
    }

    /// Reads a body of at most `limit` bytes; a longer one is as it was.
    async fn collect(&self, request: &mut Request, limit: u64) -> Collected {
        let length = request.length();
        if length.is_some_and(|n| n > limit) {
            return Collected::Unread(TOO_LARGE);
        }
        let reserve = self.agent.memory.reserve_within(length.unwrap_or(STEP).min(STEP), MEMORY_WAIT);
        let Ok(mut permit) = reserve.await else { return Collected::Unread(MEMORY) };
        let mut whole = BytesMut::new();
        let mut single = Bytes::new();
        let why = loop {
            let data = match body::next(request).await {
                Ok(Some(frame)) => frame.into_data().unwrap_or_default(),
                Ok(None) => break None,
                Err(error) => {
                    let bytes = if whole.is_empty() { single } else { whole.freeze() };
                    let replay = Replay::new(bytes, false, Some(error));
                    // What is left on the connection, if anything, goes with it.
                    request.body = RequestBody::Replay(replay);
                    return Collected::Broken;
                }
            };
            let size = (whole.len().max(single.len()) + data.len()) as u64;
            let mut why = None;
            if size > limit {
                why = Some(TOO_LARGE);
            } else if size > permit.bytes() {
                let want = (size * 2).min(length.unwrap_or(limit)).max(size) - permit.bytes();
                why = permit.grow_within(want, MEMORY_WAIT).await.is_err().then_some(MEMORY);
            }
            if whole.is_empty() && single.is_empty() {
                single = data;
            } else {
                if whole.is_empty() {
                    whole.reserve(usize::try_from(length.unwrap_or(0)).unwrap_or_default());
                    whole.extend_from_slice(&single);
                }
                whole.extend_from_slice(&data);
            }
            if why.is_some() {
                break why;
            }
        };
        let bytes = if whole.is_empty() { single } else { whole.freeze() };
        match why {
            Some(why) => {
                request.body.put_back(bytes);
                Collected::Unread(why)
            }
            None => {
                permit.resize(bytes.len() as u64);
                Collected::Whole(bytes, permit)
            }
        }
    }

    /// To the Agent and, if it is ours too, through our own receiver.
    async fn with_body(&self, request: &mut Request, way: Way, body: Bytes, held: Arc<Held>) -> Answer {
        let sized = !chunked(request);
        let replay = Replay::new(body.clone(), sized, None);
        let patience = self.patience(way);
        let head = Head::new(&request.head, sized);
        let exchange = Arc::clone(&self.agent).exchange(head, replay.clone(), patience, Arc::clone(&held));
        let exchange = tokio::spawn(exchange);
        if let Way::Agents { .. } = way {
            return match tokio::time::timeout(patience, exchange).await {
                Ok(Ok(Some(answer))) => answer,
                _ => {
                    request.body = RequestBody::Replay(replay);
                    self.receiver.answer(request).await
                }
            };
        }
        let kept = Kept::default();
        let mut twin = Twin {
            receiver: Arc::clone(&self.receiver),
            work: Some(self.copy(request, replay, &kept, held)),
            body,
            kept,
            since: Instant::now(),
            settled: false,
        };
        let answer = match tokio::time::timeout(patience, exchange).await {
            Ok(Ok(Some(answer))) => answer,
            _ => twin.answer().await,
        };
        twin.settle(answer.status());
        answer
    }

    /// Works on a copy of the request, beside it.
    fn copy(&self, request: &Request, body: Replay, kept: &Kept, held: Arc<Held>) -> JoinHandle<Answer> {
        let mut head = request.head.clone();
        head.extensions = Extensions::new();
        head.extensions.insert(kept.clone());
        let mut copy = Request {
            head,
            body: RequestBody::Replay(body),
            deadline: request.deadline,
            conn: Arc::clone(&request.conn),
        };
        let receiver = Arc::clone(&self.receiver);
        tokio::spawn(async move {
            let _held = held;
            receiver.answer(&mut copy).await
        })
    }

    /// To the Agent alone, piece by piece.
    async fn stream(&self, request: &mut Request, way: Way, why: &'static str) -> Answer {
        self.uncopied(request, way, why);
        let length = if chunked(request) { None } else { request.length() };
        let head = Head::new(&request.head, length.is_some());
        let (give, body) = piped(length);
        let deadline = request.deadline + self.patience(way);
        let agent = &self.agent;
        let call = async { exchange::answer(agent.client.send(head.request(body)).await?).await };
        let pump = async {
            loop {
                match body::next(request).await {
                    Ok(Some(frame)) => {
                        let Ok(data) = frame.into_data() else { continue };
                        if give.send(Ok(data)).await.is_err() {
                            break;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => {
                        // If it is gone, the Agent has stopped reading.
                        let _ = give.send(Err(StreamError(error.to_string()))).await;
                        break;
                    }
                }
            }
            drop(give);
            std::future::pending::<()>().await;
        };
        let result = tokio::select! {
            answer = tokio::time::timeout_at(deadline, call) => answer,
            () = pump => return answer::empty(StatusCode::BAD_GATEWAY),
        };
        agent.judge(result.ok(), false).unwrap_or_else(|| answer::empty(StatusCode::BAD_GATEWAY))
    }

    /// Counts what we have no copy of.
    fn uncopied(&self, request: &Request, way: Way, why: &'static str) {
        let ledger = &self.agent.ledger;
        match way {
            Way::Traces(protocol) => {
                let claimed = req::count(request.header("x-datadog-trace-count"));
                let outcome =
                    if why == TOO_LARGE { PayloadOutcome::Rejected } else { PayloadOutcome::Refused };
                ledger.payload(protocol, outcome, why, claimed, 0);
            }
            Way::Statistics => ledger.note("stats_payload_rejected", why, 1),
            Way::Agents { .. } => {}
        }
        ledger.note("forwarded_unread", why, 1);
    }
}

impl Handler for Tee {
    fn handle<'a>(&'a self, request: &'a mut Request) -> HandlerFuture<'a> {
        Box::pin(self.pass(request))
    }
}

impl Agent {
    /// Sends a request, again if the connection was a used one and ended, and
    /// waits for the answer also when the tracer does not any more: without us
    /// the request would have been on its way too. `None`: there is none.
    async fn exchange(
        self: Arc<Self>,
        head: Head,
        body: Replay,
        patience: Duration,
        _held: Arc<Held>,
    ) -> Option<Answer> {
        let call = async {
            let first = self.client.send(head.request(body.clone().boxed_unsync())).await;
            let response = match first {
                // Mostly an idle connection that the Agent closed meanwhile.
                Err(AgentError::Broken(_)) => self.client.send(head.request(body.boxed_unsync())).await?,
                other => other?,
            };
            exchange::answer(response).await
        };
        let call = tokio::time::timeout(self.config.give_up.max(patience), call);
        tokio::pin!(call);
        let (result, late) = tokio::select! {
            result = &mut call => (result, false),
            () = tokio::time::sleep(patience) => {
                let _late = Late::new(&self.late);
                (call.await, true)
            }
        };
        self.judge(result.ok(), late)
    }

    /// Counts how a request ended. `None`: the Agent was given up.
    fn judge(&self, result: Option<Result<Answer, AgentError>>, late: bool) -> Option<Answer> {
        let (reason, text) = match result {
            Some(Ok(answer)) => {
                let how = match answer.status() {
                    _ if late => "late",
                    status if status.is_client_error() || status.is_server_error() => "refused",
                    _ => "answered",
                };
                self.ledger.note("forwarded", how, 1);
                if self.health.answered() {
                    tracing::info!(agent = self.config.agent, "the Agent answers again");
                }
                return Some(answer);
            }
            Some(Err(error @ AgentError::Unreachable(_))) => ("unreachable", error.to_string()),
            Some(Err(error @ AgentError::Broken(_))) => ("broken", error.to_string()),
            None => ("no_answer", "no answer in time".into()),
        };
        self.ledger.note("not_forwarded", reason, 1);
        if let Some(times) = self.health.failed(Instant::now()) {
            tracing::warn!(
                agent = self.config.agent,
                error = text,
                times,
                "the Agent does not answer; tracers have our own answers meanwhile"
            );
        }
        None
    }
}

/// Counts a request whose tracer has stopped waiting.
struct Late<'a>(&'a AtomicUsize);

impl<'a> Late<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, SeqCst);
        Self(count)
    }
}

impl Drop for Late<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// Our copy of a request.
struct Twin {
    receiver: Arc<Receiver>,
    work: Option<JoinHandle<Answer>>,
    body: Bytes,
    kept: Kept,
    since: Instant,
    settled: bool,
}

impl Twin {
    /// Our own answer.
    async fn answer(&mut self) -> Answer {
        match self.work.take() {
            Some(work) => work.await.unwrap_or_else(|_| answer::empty(StatusCode::INTERNAL_SERVER_ERROR)),
            None => answer::empty(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    /// The tracer has an answer with this status.
    fn settle(&mut self, status: StatusCode) {
        self.settled = !status.is_server_error()
            && status != StatusCode::TOO_MANY_REQUESTS
            && self.since.elapsed() < resend::LATE;
    }
}

impl Drop for Twin {
    /// A tracer that has no answer, a late one or a refusal sends the same
    /// bytes again. If the copy was taken, they are then known.
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (receiver, work) = (Arc::clone(&self.receiver), self.work.take());
        let (body, kept) = (std::mem::take(&mut self.body), self.kept.clone());
        runtime.spawn(async move {
            if let Some(work) = work {
                // What became of it is in `kept`.
                let _ = work.await;
            }
            if kept.0.load(SeqCst) {
                receiver.resends.expect(&body, Instant::now());
            }
        });
    }
}

/// Whether a body came, or comes, in chunks.
fn chunked(request: &Request) -> bool {
    request.head.headers.contains_key(http::header::TRANSFER_ENCODING)
}
