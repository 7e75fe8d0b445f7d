//! A request on its way to the Agent, and its answer on the way back.

use crate::answer::{Answer, AnswerBody, StreamError};
use crate::proxy::end_to_end;
use bytes::{Bytes, BytesMut};
use http::header::{EXPECT, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Extensions, Method, Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Answers up to this size are read before they are passed on: an Agent that
/// breaks off within one has not answered. Longer ones are passed on as they
/// come.
const WHOLE_ANSWER: usize = 64 << 10;

/// The body of a request to the Agent, and of its answer.
pub type AgentBody = UnsyncBoxBody<Bytes, StreamError>;

/// Why the Agent has not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// There is no connection to it.
    #[error("cannot connect: {0}")]
    Unreachable(String),
    /// The connection ended without a whole answer.
    #[error("no answer: {0}")]
    Broken(String),
}

/// An answer to come.
pub type AgentFuture<'a> = Pin<Box<dyn Future<Output = Result<Response<AgentBody>, AgentError>> + Send + 'a>>;

/// Reaches the Agent. The program passes one; tests pass their own.
pub trait AgentClient: Send + Sync {
    /// Sends a request, whose URI is a path and a query, and returns the head
    /// of the answer. Headers go out as they are, in order and case.
    fn send(&self, request: Request<AgentBody>) -> AgentFuture<'_>;
}

/// What a request says besides its body.
#[derive(Clone)]
pub(super) struct Head {
    method: Method,
    path: PathAndQuery,
    headers: HeaderMap,
    /// How the client wrote the names of headers.
    extensions: Extensions,
}

impl Head {
    /// `sized`: with a length, else in chunks.
    pub(super) fn new(head: &Parts, sized: bool) -> Self {
        let mut headers = end_to_end(&head.headers);
        // Whoever sends the body does not wait for a go-ahead: it is here.
        headers.remove(EXPECT);
        if !sized {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        Self {
            method: head.method.clone(),
            path: head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")),
            headers,
            extensions: head.extensions.clone(),
        }
    }

    pub(super) fn request(&self, body: AgentBody) -> Request<AgentBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from(self.path.clone());
        *request.headers_mut() = self.headers.clone();
        *request.extensions_mut() = self.extensions.clone();
        request
    }
}

/// The Agent's answer as it goes to the tracer.
pub(super) async fn answer(response: Response<AgentBody>) -> Result<Answer, AgentError> {
    let (mut head, mut body) = response.into_parts();
    head.headers = end_to_end(&head.headers);
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|e| AgentError::Broken(e.0))?.into_data() else { continue };
        whole.extend_from_slice(&data);
        if whole.len() > WHOLE_ANSWER {
            let resumed = Resumed { first: whole.freeze(), rest: body };
            return Ok(Answer::from_parts(head, AnswerBody::Stream(resumed.boxed_unsync())));
        }
    }
    Ok(Answer::from_parts(head, AnswerBody::Full(Full::new(whole.freeze()))))
}

/// A body whose beginning has been read.
struct Resumed {
    first: Bytes,
    rest: AgentBody,
}

impl Body for Resumed {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        let this = self.get_mut();
        if this.first.is_empty() {
            return Pin::new(&mut this.rest).poll_frame(cx);
        }
        Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.first)))))
    }
}

/// A body that is handed over piece by piece.
struct Piped {
    pieces: mpsc::Receiver<Result<Bytes, StreamError>>,
    /// Bytes to come, if that is known.
    left: Option<u64>,
}

/// A body of this length, if it is known, and what gives it its pieces.
pub(super) fn piped(length: Option<u64>) -> (mpsc::Sender<Result<Bytes, StreamError>>, AgentBody) {
    // One on its way, one being read.
    let (give, pieces) = mpsc::channel(1);
    (give, Piped { pieces, left: length }.boxed_unsync())
}

impl Body for Piped {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        let this = self.get_mut();
        this.pieces.poll_recv(cx).map(|piece| {
            piece.map(|piece| {
                piece.map(|data| {
                    this.left = this.left.map(|left| left.saturating_sub(data.len() as u64));
                    Frame::data(data)
                })
            })
        })
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
