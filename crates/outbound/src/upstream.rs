//! One server next to us, reached by plain HTTP/1.1 over TCP or a Unix socket,
//! never through a proxy. Requests go out as they are: names of headers keep
//! the case in which they came in.

use crate::{Error, root_cause};
use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use hyper::body::{Body, Incoming};
use hyper_util::client::legacy::Client as Legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::UnixStream;
use tower_service::Service;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_millis(500);
/// How long an unused connection is kept: less than Agents keep theirs (60 s).
const IDLE: Duration = Duration::from_secs(20);
/// Unused connections kept.
const IDLE_CONNECTIONS: usize = 64;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Host and port.
    Tcp(Authority),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// `http://host:port` or `unix:///path`. Without a port: `port`.
    pub fn parse(text: &str, port: u16) -> Option<Self> {
        let text = text.trim();
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return path.starts_with('/').then(|| Self::Unix(path.into()));
        }
        let uri: Uri = text.parse().ok()?;
        let authority = uri.authority()?;
        let plain = uri.scheme_str() == Some("http") && uri.path() == "/" && uri.query().is_none();
        if !plain || authority.as_str().contains('@') {
            return None;
        }
        match authority.port_u16() {
            Some(0) => None,
            Some(_) => Some(Self::Tcp(authority.clone())),
            None => format!("{authority}:{port}").parse().ok().map(Self::Tcp),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(authority) => write!(f, "http://{authority}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// A client of one server. Keeps connections.
pub struct Upstream<B> {
    authority: Authority,
    way: Way<B>,
}

enum Way<B> {
    Tcp(Legacy<HttpConnector, B>),
    Unix(Legacy<ToSocket, B>),
}

impl<B> Upstream<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// A client of the server at this address. Connects when it sends.
    pub fn new(address: &Address) -> Self {
        let mut builder = Legacy::builder(TokioExecutor::new());
        builder
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_timer(TokioTimer::new())
            .http1_preserve_header_case(true)
            .http1_title_case_headers(true);
        match address {
            Address::Tcp(authority) => {
                let mut tcp = HttpConnector::new();
                tcp.set_nodelay(true);
                tcp.set_connect_timeout(Some(CONNECT));
                Self { authority: authority.clone(), way: Way::Tcp(builder.build(tcp)) }
            }
            Address::Unix(path) => Self {
                authority: Authority::from_static("localhost"),
                way: Way::Unix(builder.build(ToSocket(path.as_path().into()))),
            },
        }
    }

    /// Sends a request, whose URI is a path and a query, and waits for the head
    /// of the answer. How long is the caller's matter.
    ///
    /// # Errors
    /// [`Error::Unreachable`] without a connection, [`Error::Connection`] if it
    /// ended without an answer.
    pub async fn send(&self, mut request: Request<B>) -> Result<Response<Incoming>, Error> {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(self.authority.clone());
        *request.uri_mut() = Uri::from_parts(parts).map_err(|e| Error::Connection(e.to_string()))?;
        let answer = match &self.way {
            Way::Tcp(client) => client.request(request).await,
            Way::Unix(client) => client.request(request).await,
        };
        answer.map_err(|e| {
            let cause = root_cause(&e);
            if e.is_connect() { Error::Unreachable(cause) } else { Error::Connection(cause) }
        })
    }
}

/// Connects to a Unix socket, whatever the destination.
#[derive(Clone)]
struct ToSocket(std::sync::Arc<Path>);

impl Service<Uri> for ToSocket {
    type Response = TokioIo<UnixStream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _destination: Uri) -> Self::Future {
        let path = std::sync::Arc::clone(&self.0);
        Box::pin(async move {
            // A listener whose queue is full lets connections wait.
            let stream = tokio::time::timeout(CONNECT, UnixStream::connect(&*path)).await??;
            Ok(TokioIo::new(stream))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_tracers_write_them() {
        let of = |text| Address::parse(text, 8126).map(|a| a.to_string());
        for (text, shown) in [
            ("http://agent:8127", "http://agent:8127"),
            ("http://agent", "http://agent:8126"),
            (" http://10.0.0.1:1/ ", "http://10.0.0.1:1"),
            ("http://[::1]:8126", "http://[::1]:8126"),
            ("unix:///var/run/datadog/apm.socket", "unix:///var/run/datadog/apm.socket"),
            ("unix:/a.socket", "unix:///a.socket"),
        ] {
            assert_eq!(of(text).as_deref(), Some(shown), "{text}");
        }
        for text in [
            "",
            "agent:8126",
            "https://agent:8126",
            "http://agent/v0.4",
            "http://u@a:1",
            "unix:a",
            "http://a:0",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
