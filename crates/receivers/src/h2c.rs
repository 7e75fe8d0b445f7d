//! HTTP/2 without TLS, for clients that begin with it: gRPC, some OTLP clients.

use crate::conn::Phases;
use crate::replay::RequestBody;
use crate::server::{ConnInfo, Handler, Request};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use spanloom_pipeline::{Phase, StopWatch};
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// How a client with prior knowledge begins (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Requests of a connection that are handled at the same time.
const STREAMS: u32 = 128;
/// Body bytes that a client may send ahead of what has been admitted, for a
/// request and for all of a connection. Nothing has paid for these.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 512 << 10;
/// Bytes of all headers of a request.
const HEADERS: u32 = 16 << 10;
/// A peer that is silent for so long is asked whether it is there.
const PING: Duration = Duration::from_secs(60);
/// It is taken for gone after so long.
const PONG: Duration = Duration::from_secs(20);

/// A stream that gives back what was read of it to see what it speaks.
pub(crate) struct Sniffed<S> {
    io: S,
    start: [u8; PREFACE.len()],
    given: usize,
    held: usize,
}

impl<S> Sniffed<S> {
    pub(crate) fn new(io: S) -> Self {
        Self { io, start: [0; PREFACE.len()], given: 0, held: 0 }
    }

    pub(crate) fn into_inner(self) -> S {
        self.io
    }
}

impl<S: AsyncRead + Unpin> Sniffed<S> {
    /// Reads until it is clear. A stream that fails or ends is not HTTP/2;
    /// whoever reads on finds out.
    pub(crate) async fn begins_with_http2(&mut self) -> bool {
        while self.held < PREFACE.len() {
            let Some(rest) = self.start.get_mut(self.held..) else { return false };
            match self.io.read(rest).await {
                Ok(n @ 1..) => self.held += n,
                Ok(0) | Err(_) => return false,
            }
            if self.start.get(..self.held) != PREFACE.get(..self.held) {
                return false;
            }
        }
        true
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Sniffed<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(back @ [_, ..]) = this.start.get(this.given..this.held) {
            let back = back.get(..buf.remaining()).unwrap_or(back);
            buf.put_slice(back);
            this.given += back.len();
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.io).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Sniffed<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// Ends a request when its handling ends, also when the client resets it.
struct Ended(Arc<Phases>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Serves a connection until it ends or the shutdown has let its requests end.
pub(crate) async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    info: Arc<ConnInfo>,
    phases: &Arc<Phases>,
    handler: Arc<dyn Handler>,
    mut stop: StopWatch,
) {
    let service = {
        let phases = Arc::clone(phases);
        service_fn(move |request: http::Request<Incoming>| {
            let (phases, handler, conn) = (Arc::clone(&phases), Arc::clone(&handler), Arc::clone(&info));
            async move {
                let deadline = phases.begin();
                let _ended = Ended(phases);
                let (head, body) = request.into_parts();
                let mut request = Request { head, body: RequestBody::Incoming(body), deadline, conn };
                // What it leaves unread is reset by HTTP/2 itself.
                Ok::<_, Infallible>(handler.handle(&mut request).await)
            }
        })
    };
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADERS)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG);
    let mut conn = pin!(http.serve_connection(TokioIo::new(stream), service));
    let mut draining = false;
    let result = loop {
        tokio::select! {
            result = conn.as_mut() => break result,
            () = stop.reached(Phase::Draining), if !draining => {
                draining = true;
                conn.as_mut().graceful_shutdown();
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
}
