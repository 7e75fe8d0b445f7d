//! Telemetry of tracers: answered first, forwarded after, within bounds
//! (datadog-agent:pkg/trace/api/telemetry.go).

use super::client::{HttpClient, Outgoing};
use super::forward::{headers_of, set};
use super::products::via;
use super::{Origin, Product, Proxy, ReadError};
use crate::answer::{self, Answer};
use crate::server::Request;
use http::header::HeaderMap;
use http::{StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};

/// Bytes answered and not yet forwarded, at most.
const MAX_BYTES: u64 = 25_000_000;
/// Requests answered and not yet forwarded, at most.
const MAX_REQUESTS: usize = 100;
/// Requests forwarded at the same time.
const WORKERS: usize = 20;

/// What has been answered and is on its way.
pub(super) struct Flight {
    bytes: AtomicU64,
    requests: AtomicUsize,
    workers: Semaphore,
    landed: Notify,
}

impl Default for Flight {
    fn default() -> Self {
        Self {
            bytes: AtomicU64::new(0),
            requests: AtomicUsize::new(0),
            workers: Semaphore::new(WORKERS),
            landed: Notify::new(),
        }
    }
}

impl Flight {
    fn board(self: &Arc<Self>, bytes: u64) -> Option<Seat> {
        let seat = Seat { flight: Arc::clone(self), bytes };
        let requests = self.requests.fetch_add(1, SeqCst) + 1;
        let sum = self.bytes.fetch_add(bytes, SeqCst) + bytes;
        (requests <= MAX_REQUESTS && sum <= MAX_BYTES).then_some(seat)
    }

    pub(super) async fn finish(&self) {
        let empty = async {
            while self.requests.load(SeqCst) > 0 {
                let look_again = tokio::time::sleep(Duration::from_millis(10));
                tokio::select! { () = self.landed.notified() => {}, () = look_again => {} }
            }
        };
        // What is left then is given up; it was never more than telemetry.
        let _ = tokio::time::timeout(Duration::from_secs(1), empty).await;
    }
}

struct Seat {
    flight: Arc<Flight>,
    bytes: u64,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.flight.bytes.fetch_sub(self.bytes, SeqCst);
        self.flight.requests.fetch_sub(1, SeqCst);
        self.flight.landed.notify_one();
    }
}

impl Proxy {
    pub(super) async fn telemetry(
        &self,
        request: &mut Request,
        client: &Arc<dyn HttpClient>,
        origin: &Origin,
    ) -> Answer {
        let say = |status| answer::typed(status, answer::TEXT, "{}");
        let (body, permit) = match self.read(request, MAX_BYTES).await {
            Ok(read) => read,
            Err(ReadError::TooLarge) => return say(StatusCode::TOO_MANY_REQUESTS),
            Err(ReadError::Body(crate::body::BodyError::Busy)) => return say(StatusCode::TOO_MANY_REQUESTS),
            Err(ReadError::Body(_)) => return say(StatusCode::INTERNAL_SERVER_ERROR),
        };
        let targets = self.telemetry_targets(request, origin);
        if targets.is_empty() {
            return answer::not_found();
        }
        let Some(seat) = self.telemetry.board(body.len() as u64) else {
            self.count("proxy_error", Product::Telemetry, 1);
            return say(StatusCode::TOO_MANY_REQUESTS);
        };
        self.count("proxy_requests", Product::Telemetry, 1);
        self.count("proxy_bytes", Product::Telemetry, body.len() as u64);
        let (client, method, wait) = (Arc::clone(client), request.head.method.clone(), self.timeout);
        tokio::spawn(async move {
            // Held until everything is sent: the bytes are still in memory.
            let (seat, _permit) = (seat, permit);
            let Ok(_worker) = seat.flight.workers.acquire().await else { return };
            for (uri, headers) in targets {
                let mut outgoing = Outgoing::new(Full::new(body.clone()));
                *outgoing.method_mut() = method.clone();
                *outgoing.headers_mut() = headers;
                let host = uri.host().unwrap_or_default().to_owned();
                *outgoing.uri_mut() = uri;
                let send = async {
                    let mut body = client.send(outgoing).await.map_err(|e| e.to_string())?.into_body();
                    while let Some(frame) = body.frame().await {
                        frame.map_err(|e| e.to_string())?;
                    }
                    Ok::<_, String>(())
                };
                if let Err(error) = tokio::time::timeout(wait, send).await.unwrap_or(Err("timeout".into())) {
                    tracing::debug!(%host, %error, "cannot forward telemetry");
                }
            }
        });
        say(StatusCode::OK)
    }

    fn telemetry_targets(&self, request: &Request, origin: &Origin) -> Vec<(Uri, HeaderMap)> {
        let c = &self.config;
        let mut headers = headers_of(request, true);
        set(&mut headers, "via", &via(c));
        set(&mut headers, "dd-agent-hostname", &c.hostname);
        set(&mut headers, "dd-agent-env", &c.default_env);
        if !origin.container.is_empty() {
            set(&mut headers, "datadog-container-id", &origin.container);
        }
        if !origin.tags.is_empty() {
            set(&mut headers, "x-datadog-container-tags", &origin.tags);
        }
        if let Some((id, kind, time)) = &c.install {
            set(&mut headers, "dd-agent-install-id", id);
            set(&mut headers, "dd-agent-install-type", kind);
            set(&mut headers, "dd-agent-install-time", time);
        }
        if let Some(arn) = origin.tags.split(',').find_map(|t| t.strip_prefix("task_arn:")) {
            set(&mut headers, "dd-cloud-provider", "AWS");
            set(&mut headers, "dd-cloud-resource-type", "AWSFargate");
            set(&mut headers, "dd-cloud-resource-identifier", arn);
        }
        let path = request.head.uri.path_and_query().map_or("/", |p| p.as_str());
        let path = path.strip_prefix("/telemetry/proxy").unwrap_or(path);
        let main = if c.telemetry_dd_url.is_empty() {
            format!("https://instrumentation-telemetry-intake.{}", c.site)
        } else {
            c.telemetry_dd_url.clone()
        };
        let more = c.telemetry_additional_endpoints.iter().map(|e| (&*e.url, &e.key));
        std::iter::once((&*main, &c.api_key))
            .chain(more)
            .filter_map(|(base, key)| {
                let uri: Uri = format!("{}{path}", base.trim_end_matches('/')).parse().ok()?;
                uri.host()?;
                let mut headers = headers.clone();
                set(&mut headers, "dd-api-key", &key.0);
                Some((uri, headers))
            })
            .collect()
    }
}
