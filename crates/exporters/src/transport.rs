//! How a request gets to its destination. The program passes a client with
//! TLS and proxies; tests pass their own.

use bytes::Bytes;
use std::future::Future;
use std::pin::Pin;

/// An HTTP POST.
#[derive(Clone, Debug)]
pub struct Post {
    /// Whole URL.
    pub url: String,
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Bytes,
}

/// No answer: the connection could not be made, broke, or took too long.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoAnswer(pub String);

/// Sends requests. Object-safe; called from many tasks at once.
pub trait Transport: Send + Sync {
    /// Sends and gives the status of the answer; its body is read and dropped.
    /// Ends within a time of its own.
    fn post(&self, post: Post) -> Pin<Box<dyn Future<Output = Result<u16, NoAnswer>> + Send + '_>>;
}
