//! Sends the requests of a spool: several at once, retries with backoff,
//! until the spool is empty or the program ends.

use crate::spool::{Spool, Tried};
use crate::transport::{Post, Transport};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// One address with its key.
#[derive(Clone)]
pub struct Endpoint {
    /// Base URL; the request's path is appended.
    pub url: String,
    /// API key; empty for none. Never logged, never written to disk.
    pub key: String,
    /// `User-Agent`.
    pub user_agent: String,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.url)
    }
}

/// Longest pause between tries (`datadog-agent:pkg/trace/writer/sender.go`).
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// Unit of the pauses.
const PAUSE: Duration = Duration::from_millis(100);

/// Sends what a spool holds.
pub struct Sender {
    endpoint: Endpoint,
    spool: Arc<Spool>,
    transport: Arc<dyn Transport>,
    /// Something may be there to send.
    pub wake: Notify,
    /// Grows with each failure, halved by each success.
    attempt: AtomicU32,
    failures: AtomicU64,
    random: AtomicU64,
}

impl Sender {
    /// `seed` begins the sequence of random pauses.
    pub fn new(endpoint: Endpoint, spool: Arc<Spool>, transport: Arc<dyn Transport>, seed: u64) -> Self {
        Self {
            endpoint,
            spool,
            transport,
            wake: Notify::new(),
            attempt: AtomicU32::new(0),
            failures: AtomicU64::new(0),
            random: AtomicU64::new(seed | 1),
        }
    }

    /// The spool it sends from.
    pub fn spool(&self) -> &Arc<Spool> {
        &self.spool
    }

    /// The endpoint's base URL.
    pub fn url(&self) -> &str {
        &self.endpoint.url
    }

    /// One of the sender's workers: sends until `stop` says so.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            let Some(claim) = self.spool.claim() else {
                // The timer is for requests that others put back.
                tokio::select! {
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep(Duration::from_millis(500)) => {}
                    _ = stop.changed() => {}
                }
                continue;
            };
            let pause = self.pause();
            if !pause.is_zero() {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = stop.changed() => {}
                }
            }
            let tried = self.try_once(&claim.request).await;
            self.spool.finish(claim, tried);
        }
    }

    async fn try_once(&self, request: &crate::spool::Request) -> Tried {
        let mut headers = request.headers.clone();
        let keyed = !self.endpoint.key.is_empty();
        if keyed {
            headers.push(("DD-Api-Key".into(), self.endpoint.key.clone()));
        }
        headers.push(("User-Agent".into(), self.endpoint.user_agent.clone()));
        let url = match request.path.as_str() {
            "" => self.endpoint.url.clone(),
            path => format!("{}{path}", self.endpoint.url.trim_end_matches('/')),
        };
        let answer = self.transport.post(Post { url, headers, body: request.body.clone() }).await;
        let (tried, why) = match answer {
            Ok(200..=299) => (Tried::Sent, String::new()),
            Ok(403) if keyed => (Tried::Again, "answered 403: the API key is not accepted; correct DD_API_KEY and restart, what waits is kept".into()),
            // A proxy in between, or a backend that is being set up.
            Ok(status @ (401 | 403 | 404)) if !keyed => (Tried::Again, format!("answered {status}: correct its address in the resources, what waits is kept")),
            Ok(status @ (408 | 429 | 500..=599)) => (Tried::Again, format!("answered {status}")),
            Ok(413) => (Tried::Rejected("payload_too_large"), "answered 413: the payload is too large".into()),
            Ok(status) => {
                let reason = if keyed { "rejected_by_intake" } else { "rejected_by_backend" };
                (Tried::Rejected(reason), format!("answered {status}"))
            },
            Err(e) => (Tried::Again, e.to_string()),
        };
        match tried {
            Tried::Sent => {
                let _ = self.attempt.fetch_update(Relaxed, Relaxed, |a| Some(a / 2));
                self.failures.store(0, Relaxed);
            }
            Tried::Again => {
                let _ = self.attempt.fetch_update(Relaxed, Relaxed, |a| Some(a.saturating_add(1)));
                let n = self.failures.fetch_add(1, Relaxed) + 1;
                if n.is_power_of_two() {
                    tracing::warn!(destination = %self.endpoint.url, failures = n, "not sent, waits on disk: {why}");
                }
            }
            Tried::Rejected(reason) => {
                tracing::error!(destination = %self.endpoint.url, items = request.items, reason, "given up: {why}");
            }
        }
        tried
    }

    /// Uniform in [0, min(10 s, 100 ms · 2^attempt)); none at attempt 0.
    fn pause(&self) -> Duration {
        let attempt = self.attempt.load(Relaxed);
        if attempt == 0 {
            return Duration::ZERO;
        }
        let bound =
            PAUSE.saturating_mul(1u32.checked_shl(attempt.min(16)).unwrap_or(u32::MAX)).min(MAX_PAUSE);
        let mut x = self.random.load(Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.store(x, Relaxed);
        bound.mul_f64((x >> 11) as f64 / (1u64 << 53) as f64)
    }
}
