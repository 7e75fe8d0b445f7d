//! Replies the way Go's `net/http` writes them, because that is what clients
//! of the Datadog Agent have always read.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::Full;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A streamed body broke off.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the body broke off: {0}")]
pub struct StreamError(pub String);

/// Body of a reply.
pub enum AnswerBody {
    /// In memory.
    Full(Full<Bytes>),
    /// Passed on as it arrives (proxies).
    Stream(UnsyncBoxBody<Bytes, StreamError>),
    /// One message, then trailers (gRPC).
    Trailed(Option<Bytes>, Option<HeaderMap>),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        match self.get_mut() {
            Self::Full(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Stream(body) => Pin::new(body).poll_frame(cx),
            Self::Trailed(data, trailers) => {
                let frame = data.take().map(Frame::data);
                Poll::Ready(frame.or_else(|| trailers.take().map(Frame::trailers)).map(Ok))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(body) => body.is_end_stream(),
            Self::Stream(body) => body.is_end_stream(),
            Self::Trailed(data, trailers) => data.is_none() && trailers.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(body) => body.size_hint(),
            Self::Stream(body) => body.size_hint(),
            Self::Trailed(data, _) => SizeHint::with_exact(data.as_ref().map_or(0, |d| d.len() as u64)),
        }
    }
}

/// A reply.
pub type Answer = Response<AnswerBody>;

/// What Go writes when it sniffs text (also JSON text).
pub(crate) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// JSON.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A body with a content type.
pub(crate) fn typed(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Answer {
    let mut answer = bare(status, body);
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

/// A body without a content type.
pub(crate) fn bare(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(AnswerBody::Full(Full::new(body.into())));
    *answer.status_mut() = status;
    answer
}

/// No body.
pub(crate) fn empty(status: StatusCode) -> Answer {
    bare(status, Bytes::new())
}

/// Go's `http.Error`: the message and a newline, never to be sniffed.
pub(crate) fn error(status: StatusCode, message: &str) -> Answer {
    let mut answer = typed(status, TEXT, format!("{message}\n"));
    answer.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    answer
}

/// Go's `http.NotFound`.
pub(crate) fn not_found() -> Answer {
    error(StatusCode::NOT_FOUND, "404 page not found")
}
