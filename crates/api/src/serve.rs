//! A listener of its own for a door.

use crate::reply::Reply;
use crate::{Api, Door, Problem};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Bounds of a listener.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Connections open at the same time; accepting waits at the limit.
    pub max_connections: usize,
    /// The head of a request must arrive within this.
    pub head_timeout: Duration,
    /// The body of a request must arrive within this.
    pub body_timeout: Duration,
    /// After a stop, answers under way may take this long.
    pub drain: Duration,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            max_connections: 512,
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(5),
        }
    }
}

/// Serves a door until `stop` is ready, then lets answers under way finish.
/// HTTP/1 and HTTP/2 without TLS.
pub async fn serve(
    listener: TcpListener,
    api: Api,
    door: Door,
    config: ServeConfig,
    stop: impl Future<Output = ()>,
) {
    let mut stop = pin!(stop);
    let places = Arc::new(Semaphore::new(config.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
    let (tell, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            (place, accepted) = next => match (place, accepted) {
                (Ok(place), Ok((stream, _))) => {
                    let (api, config, stopping) = (api.clone(), config.clone(), stopping.clone());
                    connections.spawn(async move {
                        connection(stream, api, door, config, stopping).await;
                        drop(place);
                    });
                }
                (_, Err(e)) => {
                    // Out of file descriptors, most likely: others must close first.
                    tracing::warn!("cannot accept a connection: {e}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                (Err(_), _) => break,
            }
        }
    }
    drop(listener);
    let _ = tell.send(true);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(config.drain, all).await.is_err() {
        tracing::warn!("connections were cut that took longer than {:?} to finish", config.drain);
    }
}

async fn connection(
    stream: TcpStream,
    api: Api,
    door: Door,
    config: ServeConfig,
    mut stopping: watch::Receiver<bool>,
) {
    // Answers are written whole; waiting to fill a packet only delays them.
    let _ = stream.set_nodelay(true);
    let body_timeout = config.body_timeout;
    let service = service_fn(move |request| {
        let api = api.clone();
        async move { Ok::<_, Infallible>(answer(&api, door, request, body_timeout).await.map(Full::new)) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(config.head_timeout);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(64);
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = async { drop(stopping.wait_for(|stop| *stop).await) } => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(e) = result {
        tracing::debug!("a connection ended: {e}");
    }
}

async fn answer(api: &Api, door: Door, request: Request<Incoming>, patience: Duration) -> Response<Bytes> {
    let (head, body) = request.into_parts();
    let problem = |p: Problem| match door {
        Door::Query => p.jaeger(),
        Door::Zipkin | Door::Tempo => p.text(),
    };
    let read = tokio::time::timeout(patience, Limited::new(body, api.config().max_body).collect());
    let body = match read.await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(e)) if e.is::<LengthLimitError>() => {
            let text = format!("the body exceeds {} MiB", api.config().max_body >> 20);
            let reply = problem(Problem::TooLarge(text));
            return reply.status(http::StatusCode::PAYLOAD_TOO_LARGE).into_response();
        }
        Ok(Err(e)) => return problem(Problem::Invalid(format!("the body broke off: {e}"))).into_response(),
        Err(_) => {
            let reply = problem(Problem::Invalid("the body did not arrive in time".into()));
            return reply.status(http::StatusCode::REQUEST_TIMEOUT).into_response();
        }
    };
    match api.handle(door, Request::from_parts(head, body)).await {
        Some(response) => response,
        None => Reply::text("not found").status(http::StatusCode::NOT_FOUND).into_response(),
    }
}
