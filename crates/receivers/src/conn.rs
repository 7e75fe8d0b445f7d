//! Deadlines on a connection. A request (head and body) must arrive within
//! the read time-out; a connection without a request may be idle longer.
//! Enforced where bytes are read, so that it holds whatever the peer does.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// What the connection is doing, shared by the I/O and the service.
pub(crate) struct Phases {
    read_timeout: Duration,
    idle_timeout: Duration,
    now: Mutex<Phase>,
    timed_out: AtomicBool,
    /// HTTP/2: requests overlap, and bytes that arrive between them need not
    /// be a head. A connection is then idle from its last answer on.
    multiplexed: AtomicBool,
    /// Requests being handled.
    open: AtomicUsize,
}

#[derive(Clone, Copy)]
enum Phase {
    /// Between requests, since.
    Idle(Instant),
    /// A head is arriving, since.
    Head(Instant),
    /// A request is being handled; its body has a deadline of its own.
    Busy,
}

impl Phases {
    /// A new connection: the first head is awaited from now on.
    pub(crate) fn new(read_timeout: Duration, idle_timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            read_timeout,
            idle_timeout,
            now: Mutex::new(Phase::Head(Instant::now())),
            timed_out: AtomicBool::new(false),
            multiplexed: AtomicBool::new(false),
            open: AtomicUsize::new(0),
        })
    }

    /// The connection turned out to speak HTTP/2.
    pub(crate) fn multiplexed(&self) {
        self.multiplexed.store(true, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A head has been read. Returns by when the body must have arrived.
    pub(crate) fn begin(&self) -> Instant {
        let mut now = self.lock();
        self.open.fetch_add(1, Relaxed);
        let since = match *now {
            Phase::Head(since) if !self.multiplexed.load(Relaxed) => since,
            // A pipelined request: its head came with the one before.
            Phase::Head(_) | Phase::Idle(_) | Phase::Busy => Instant::now(),
        };
        *now = Phase::Busy;
        since + self.read_timeout
    }

    /// The answer is ready.
    pub(crate) fn end(&self) {
        let mut now = self.lock();
        if self.open.fetch_sub(1, Relaxed) == 1 {
            *now = Phase::Idle(Instant::now());
        }
    }

    /// Whether a deadline has passed (HTTP does not always say so: a
    /// connection on which nothing ever came just ends).
    pub(crate) fn timed_out(&self) -> bool {
        self.timed_out.load(Relaxed)
    }

    fn arrived(&self) {
        let mut now = self.lock();
        if let Phase::Idle(_) = *now
            && !self.multiplexed.load(Relaxed)
        {
            *now = Phase::Head(Instant::now());
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match *self.lock() {
            Phase::Idle(since) => Some(since + self.idle_timeout),
            Phase::Head(since) => Some(since + self.read_timeout),
            Phase::Busy => None,
        }
    }
}

/// A stream whose reads fail when the deadline has passed, and whose writes
/// fail when the peer has taken nothing for the idle time-out (the Agent waits
/// for ever; a peer that never reads would hold its place for ever).
pub(crate) struct Guarded<S> {
    io: S,
    phases: Arc<Phases>,
    timer: Option<Pin<Box<Sleep>>>,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Guarded<S> {
    pub(crate) fn new(io: S, phases: Arc<Phases>) -> Self {
        Self { io, phases, timer: None, stalled: None }
    }

    pub(crate) fn into_inner(self) -> S {
        self.io
    }

    /// Bounds how long a write makes no progress.
    fn written(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<std::io::Result<usize>>,
    ) -> Poll<std::io::Result<usize>> {
        if result.is_ready() {
            self.stalled = None;
            return result;
        }
        let wait = self.phases.idle_timeout;
        let timer = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(wait)));
        timer.as_mut().poll(cx).map(|()| {
            self.phases.timed_out.store(true, Relaxed);
            Err(std::io::ErrorKind::TimedOut.into())
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        match Pin::new(&mut this.io).poll_read(cx, buf) {
            Poll::Ready(result) => {
                if buf.filled().len() > before {
                    this.phases.arrived();
                }
                Poll::Ready(result)
            }
            Poll::Pending => {
                let Some(deadline) = this.phases.deadline() else { return Poll::Pending };
                let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
                // Every request puts the deadline off: the timer stays where
                // it is and is looked at again when it has run out.
                if timer.deadline() > deadline {
                    timer.as_mut().reset(deadline);
                }
                while timer.as_mut().poll(cx).is_ready() {
                    if timer.deadline() >= deadline {
                        this.phases.timed_out.store(true, Relaxed);
                        return Poll::Ready(Err(std::io::ErrorKind::TimedOut.into()));
                    }
                    timer.as_mut().reset(deadline);
                }
                Poll::Pending
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_write(cx, buf);
        this.written(cx, result)
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.written(cx, result)
    }
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
