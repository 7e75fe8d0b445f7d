//! Requests going out.

use crate::answer::StreamError;
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A request with its whole body.
pub type Outgoing = Request<Full<Bytes>>;

impl From<hyper_util::client::legacy::Error> for ClientError {
    fn from(error: hyper_util::client::legacy::Error) -> Self {
        use std::error::Error;
        // The first level says only "client error"; the cause is below.
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(e) = source {
            text = format!("{text}: {e}");
            source = e.source();
        }
        Self::Other(text)
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Not in time.
    #[error("context deadline exceeded")]
    Timeout,
    /// Not reached, not understood, broken off.
    #[error("{0}")]
    Other(String),
}

/// An answer to come.
pub type SendFuture<'a> = Pin<
    Box<dyn Future<Output = Result<Response<UnsyncBoxBody<Bytes, StreamError>>, ClientError>> + Send + 'a>,
>;

/// Sends requests.
pub trait HttpClient: Send + Sync {
    /// Sends one request and returns the head of the answer.
    fn send(&self, request: Outgoing) -> SendFuture<'_>;
}

/// Settings of [`HyperClient`].
#[derive(Clone, Debug, Default)]
pub struct ClientConfig {
    /// `DD_PROXY_HTTP`; may hold a password.
    pub proxy_http: String,
    /// `DD_PROXY_HTTPS`; may hold a password.
    pub proxy_https: String,
    /// `DD_PROXY_NO_PROXY`.
    pub no_proxy: Vec<String>,
    /// `DD_SKIP_SSL_VALIDATION`.
    pub skip_ssl_validation: bool,
}

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientSetupError {
    /// The system has no usable certificate authorities.
    #[error("cannot load the system's certificate authorities: {0}")]
    Roots(String),
    /// TLS settings are not possible.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

type Direct = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;
type Tunnelled = Client<HttpsConnector<Tunnel<HttpConnector>>, Full<Bytes>>;

/// HTTP/1.1 with TLS, connections kept, through a proxy where one is set.
pub struct HyperClient {
    direct: Direct,
    matcher: Matcher,
    tls: rustls::ClientConfig,
    /// One for each proxy; there are two at most.
    tunnelled: Mutex<HashMap<Uri, Tunnelled>>,
}

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(30);
/// Intakes close idle connections after 60 s; we are first.
const IDLE: Duration = Duration::from_secs(47);

impl HyperClient {
    /// A client.
    ///
    /// # Errors
    /// [`ClientSetupError`].
    pub fn new(config: &ClientConfig) -> Result<Self, ClientSetupError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let tls = if config.skip_ssl_validation {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(NoVerification(provider)))
                .with_no_client_auth()
        } else {
            use hyper_rustls::ConfigBuilderExt;
            builder
                .with_native_roots()
                .map_err(|e| ClientSetupError::Roots(e.to_string()))?
                .with_no_client_auth()
        };
        let no_proxy = config.no_proxy.join(",");
        let matcher = Matcher::builder()
            .http(config.proxy_http.clone())
            .https(config.proxy_https.clone())
            .no(no_proxy)
            .build();
        Ok(Self { direct: client(https(&tls, connector())), matcher, tls, tunnelled: Mutex::default() })
    }

    fn tunnel(&self, proxy: &hyper_util::client::proxy::matcher::Intercept) -> Tunnelled {
        let mut tunnelled = self.tunnelled.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            let tunnel = Tunnel::new(proxy.uri().clone(), connector());
            let tunnel = match proxy.basic_auth() {
                Some(auth) => tunnel.with_auth(auth.clone()),
                None => tunnel,
            };
            client(https(&self.tls, tunnel))
        };
        tunnelled.entry(proxy.uri().clone()).or_insert_with(make).clone()
    }
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_nodelay(true);
    connector
}

fn https<C>(tls: &rustls::ClientConfig, connector: C) -> HttpsConnector<C> {
    hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls.clone())
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector)
}

fn client<C>(connector: C) -> Client<C, Full<Bytes>>
where
    C: hyper_util::client::legacy::connect::Connect + Clone,
{
    Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(100)
        .pool_timer(TokioTimer::new())
        .http1_title_case_headers(true)
        .build(connector)
}

impl HttpClient for HyperClient {
    fn send(&self, request: Outgoing) -> SendFuture<'_> {
        let proxy = self.matcher.intercept(request.uri()).map(|proxy| self.tunnel(&proxy));
        Box::pin(async move {
            let answer = match proxy {
                Some(client) => client.request(request).await?,
                None => self.direct.request(request).await?,
            };
            Ok(answer.map(|body| body.map_err(|e| StreamError(e.to_string())).boxed_unsync()))
        })
    }
}

/// For `DD_SKIP_SSL_VALIDATION`: the name and the authority do not matter, the
/// signatures of the handshake still do.
#[derive(Debug)]
struct NoVerification(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for NoVerification {
    fn verify_server_cert(
        &self,
        _end_entity: &rustls::pki_types::CertificateDer<'_>,
        _intermediates: &[rustls::pki_types::CertificateDer<'_>],
        _server_name: &rustls::pki_types::ServerName<'_>,
        _ocsp: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
