//! Requests going out. The program passes a client; tests pass their own.

use crate::answer::StreamError;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use http_body_util::combinators::UnsyncBoxBody;
use std::pin::Pin;

/// A request with its whole body.
pub type Outgoing = Request<Full<Bytes>>;

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
