//! Outgoing HTTP, for exporters and proxied requests of tracers: one client
//! with TLS (rustls, the system's roots), the Agent's proxy settings, and
//! time-outs. Knows nothing of what it carries.
//!
//! | file | holds |
//! |---|---|
//! | `lib.rs` | [`Client`], [`Config`] |
//! | `no_proxy.rs` | which hosts are reached without a proxy |
//! | `forward.rs` | plain HTTP through a proxy |
//! | `tls.rs` | TLS settings |
//! | `upstream.rs` | [`Upstream`]: one server next to us |
#![forbid(unsafe_code)]

mod forward;
mod no_proxy;
mod tls;
mod upstream;

pub use upstream::{Address, Upstream};

use bytes::Bytes;
use forward::Forward;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as Legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use no_proxy::NoProxy;
use std::time::Duration;

/// A request body of any kind.
pub type Body = BoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Settings.
#[derive(Clone)]
pub struct Config {
    /// Proxy for `http:` destinations (`proxy.http`), with credentials if any.
    pub proxy_http: Option<String>,
    /// Proxy for `https:` destinations (`proxy.https`).
    pub proxy_https: Option<String>,
    /// Hosts reached directly (`proxy.no_proxy`).
    pub no_proxy: Vec<String>,
    /// Whether an entry also covers sub-domains and networks
    /// (`no_proxy_nonexact_match`).
    pub no_proxy_nonexact: bool,
    /// Also reach addresses of cloud metadata through the proxy
    /// (`use_proxy_for_cloud_metadata`).
    pub proxy_cloud_metadata: bool,
    /// Do not verify certificates (`skip_ssl_validation`).
    pub skip_verification: bool,
    /// TLS 1.3 only (`min_tls_version: tlsv1.3`).
    pub tls13_only: bool,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle: Duration,
}

impl Default for Config {
    /// The Agent's sender: no proxy, verified TLS 1.2 or later.
    fn default() -> Self {
        Self {
            proxy_http: None,
            proxy_https: None,
            no_proxy: Vec::new(),
            no_proxy_nonexact: false,
            proxy_cloud_metadata: false,
            skip_verification: false,
            tls13_only: false,
            connect_timeout: Duration::from_secs(30),
            idle: Duration::from_secs(30),
        }
    }
}

/// Why a client cannot be made or a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A proxy setting is not a URL. The URL itself may hold a password and is not shown.
    #[error("{setting} is not a URL such as http://host:3128")]
    Proxy {
        /// The setting's key.
        setting: &'static str,
    },
    /// TLS cannot be set up.
    #[error("TLS: {0}")]
    Tls(String),
    /// The connection could not be made or broke.
    #[error("{0}")]
    Connection(String),
    /// There is nobody at the address ([`Upstream`] tells this apart).
    #[error("{0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// An HTTP client. Cheap to share; keeps connections.
pub struct Client {
    /// HTTP/2 from the first byte, without TLS.
    grpc: Legacy<HttpConnector, Body>,
    direct: Legacy<HttpsConnector<HttpConnector>, Body>,
    tunnel: Option<Legacy<HttpsConnector<Tunnel<HttpConnector>>, Body>>,
    forward: Option<(Legacy<Forward, Body>, Option<HeaderValue>)>,
    no_proxy: NoProxy,
}

impl Client {
    /// A client with these settings.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(config.connect_timeout));
        let tls = tls::config(config)?;
        let https = |inner| {
            hyper_rustls::HttpsConnectorBuilder::new()
                .with_tls_config(tls.clone())
                .https_or_http()
                .enable_http1()
                .wrap_connector(inner)
        };
        let builder = || {
            let mut b = Legacy::builder(TokioExecutor::new());
            // Title case, as Go writes header names and some intakes log them.
            b.pool_idle_timeout(config.idle).pool_timer(TokioTimer::new()).http1_title_case_headers(true);
            b
        };
        let tunnel = match &config.proxy_https {
            Some(url) => {
                let (uri, credentials) = proxy_url(url, "proxy.https")?;
                let mut tunnel = Tunnel::new(uri, tcp.clone());
                if let Some(credentials) = credentials {
                    tunnel = tunnel.with_auth(credentials);
                }
                let https = hyper_rustls::HttpsConnectorBuilder::new()
                    .with_tls_config(tls.clone())
                    .https_or_http()
                    .enable_http1()
                    .wrap_connector(tunnel);
                Some(builder().build(https))
            }
            None => None,
        };
        let forward = match &config.proxy_http {
            Some(url) => {
                let (uri, credentials) = proxy_url(url, "proxy.http")?;
                Some((builder().build(Forward::new(uri, tcp.clone())), credentials))
            }
            None => None,
        };
        Ok(Self {
            grpc: builder().http2_only(true).build(tcp.clone()),
            direct: builder().build(https(tcp)),
            tunnel,
            forward,
            no_proxy: NoProxy::new(&config.no_proxy, config.no_proxy_nonexact, config.proxy_cloud_metadata),
        })
    }

    /// Sends a request (absolute URL) and waits up to `timeout` for the head of
    /// the answer.
    pub async fn send(
        &self,
        mut request: Request<Body>,
        timeout: Duration,
    ) -> Result<Response<Incoming>, Error> {
        let uri = request.uri().clone();
        let direct = self.no_proxy.covers(&uri);
        let https = uri.scheme_str() == Some("https");
        let answer = match (&self.tunnel, &self.forward) {
            (Some(tunnel), _) if https && !direct => tunnel.request(request),
            (_, Some((forward, credentials))) if !https && !direct => {
                if let Some(credentials) = credentials {
                    request.headers_mut().insert(header::PROXY_AUTHORIZATION, credentials.clone());
                }
                forward.request(request)
            }
            _ => self.direct.request(request),
        };
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(e)) => Err(Error::Connection(root_cause(&e))),
            Err(_) => Err(Error::Timeout(timeout)),
        }
    }
}

/// Bytes of an answer's messages that are read and dropped.
const MAX_GRPC_ANSWER: usize = 1 << 20;

impl Client {
    /// Makes a unary gRPC call without TLS (`http:` URL, framed message),
    /// directly, whatever the proxy settings say. Returns `grpc-status`; an
    /// answer that is not gRPC's is an error that says its HTTP status.
    pub async fn call(&self, request: Request<Body>, timeout: Duration) -> Result<u32, Error> {
        let call = async {
            let lost = |e: &dyn std::fmt::Display| Error::Connection(e.to_string());
            let response = self.grpc.request(request).await.map_err(|e| Error::Connection(root_cause(&e)))?;
            let status = |headers: &http::HeaderMap| headers.get("grpc-status")?.to_str().ok()?.parse().ok();
            if let Some(status) = status(response.headers()) {
                return Ok(status);
            }
            let http_status = response.status();
            let mut body = response.into_body();
            let mut read = 0;
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|e| lost(&e))?;
                read += frame.data_ref().map_or(0, Bytes::len);
                if let Some(status) = frame.trailers_ref().and_then(status) {
                    return Ok(status);
                }
                if read > MAX_GRPC_ANSWER {
                    return Err(lost(&"the answer is too long"));
                }
            }
            Err(lost(&format_args!("answered {http_status} without grpc-status")))
        };
        tokio::time::timeout(timeout, call).await.unwrap_or(Err(Error::Timeout(timeout)))
    }
}

/// The address of a proxy and its credentials as a header.
fn proxy_url(url: &str, setting: &'static str) -> Result<(Uri, Option<HeaderValue>), Error> {
    let wrong = || Error::Proxy { setting };
    let full = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let (scheme, rest) = full.split_once("://").ok_or_else(wrong)?;
    let (credentials, host) = match rest.rsplit_once('@') {
        Some((credentials, host)) => (Some(credentials), host),
        None => (None, rest),
    };
    let uri: Uri = format!("{scheme}://{host}").parse().map_err(|_| wrong())?;
    if uri.host().is_none_or(str::is_empty) {
        return Err(wrong());
    }
    let header = match credentials {
        Some(credentials) => {
            let plain = percent_decode(credentials);
            let mut value =
                HeaderValue::try_from(format!("Basic {}", base64(plain.as_bytes()))).map_err(|_| wrong())?;
            value.set_sensitive(true);
            Some(value)
        }
        None => None,
    };
    Ok((uri, header))
}

fn percent_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b == b'%' {
            let mut ahead = bytes.clone();
            let digits = [ahead.next(), ahead.next()].map(|d| d.and_then(|d| (d as char).to_digit(16)));
            if let [Some(high), Some(low)] = digits {
                out.push((high * 16 + low) as u8);
                bytes = ahead;
                continue;
            }
        }
        out.push(b);
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The innermost cause: "client error (Connect)" helps nobody.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_a_proxy_become_a_header_and_are_not_in_the_address() {
        let (uri, header) = proxy_url("http://us%40er:p%3Aw@proxy:3128", "proxy.http").unwrap();
        assert_eq!(uri.to_string(), "http://proxy:3128/");
        assert_eq!(header.unwrap(), format!("Basic {}", base64(b"us@er:p:w")));
        assert_eq!(proxy_url("proxy:3128", "proxy.http").unwrap().0.to_string(), "http://proxy:3128/");
        assert!(proxy_url("http://", "proxy.http").is_err());
    }
}
