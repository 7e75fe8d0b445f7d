//! A request's body: on its way, or in memory already because somebody else
//! was given it first.

use crate::answer::StreamError;
use crate::body::BodyError;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};

/// The body of a request.
pub enum RequestBody {
    /// As it arrives.
    Incoming(Incoming),
    /// The same, with what was read of it put back in front.
    Begun(Bytes, Incoming),
    /// From memory.
    Replay(Replay),
}

/// A body in memory, given out as it arrived: with or without a length, and
/// with the failure it ended in.
#[derive(Clone, Default)]
pub struct Replay {
    bytes: Bytes,
    length: Option<u64>,
    broken: Option<BodyError>,
}

impl Replay {
    /// A body of these bytes. `sized`: its length was announced. `broken`: what
    /// ended it early.
    pub fn new(bytes: Bytes, sized: bool, broken: Option<BodyError>) -> Self {
        let length = sized.then_some(bytes.len() as u64);
        Self { bytes, length, broken }
    }
}

impl RequestBody {
    /// Puts back what was read.
    pub(crate) fn put_back(&mut self, first: Bytes) {
        *self = match std::mem::replace(self, Self::Replay(Replay::default())) {
            Self::Incoming(rest) | Self::Begun(_, rest) => Self::Begun(first, rest),
            replay @ Self::Replay(_) => replay,
        };
    }
}

impl Body for Replay {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        let this = self.get_mut();
        if !this.bytes.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.bytes)))));
        }
        match this.broken {
            None => Poll::Ready(None),
            // What follows never comes; whoever reads has a deadline.
            Some(BodyError::Timeout) => Poll::Pending,
            Some(error) => Poll::Ready(Some(Err(StreamError(error.to_string())))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty() && self.broken.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, |_| SizeHint::with_exact(self.bytes.len() as u64))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        match self.get_mut() {
            Self::Begun(first, _) if !first.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(first)))))
            }
            Self::Incoming(body) | Self::Begun(_, body) => {
                Pin::new(body).poll_frame(cx).map_err(|e| StreamError(e.to_string()))
            }
            Self::Replay(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Incoming(body) => body.is_end_stream(),
            Self::Begun(first, body) => first.is_empty() && body.is_end_stream(),
            Self::Replay(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Incoming(body) => body.size_hint(),
            Self::Begun(first, body) => match body.size_hint().exact() {
                Some(rest) => SizeHint::with_exact(rest + first.len() as u64),
                None => SizeHint::default(),
            },
            Self::Replay(body) => body.size_hint(),
        }
    }
}
