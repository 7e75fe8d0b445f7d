//! From a request to an acknowledged batch, for the receivers whose requests
//! are one body: Zipkin, OTLP, Jaeger. How a failure is told is theirs.

use crate::body::{self, BodyError, BodyLimits, Compression, ExpandError, Received};
use crate::resend::Resends;
use crate::server::Request;
use bytes::Bytes;
use spanloom_codec::DecodeError;
use spanloom_codec::otlp::Decoded;
use spanloom_model::{ClientFlags, Intake, Protocol};
use spanloom_pipeline::{Inlet, Ledger, PayloadOutcome, Refused};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Bodies up to this size are decoded where they are received; decoding them
/// takes about as long as handing them to another thread.
const INLINE_BYTES: usize = 64 << 10;
/// The same for compressed bodies, which may become a thousand times larger.
const INLINE_COMPRESSED: usize = 4 << 10;

/// Counts a request once, also when its connection goes away under it.
pub(crate) struct Counted {
    ledger: Arc<Ledger>,
    protocol: Protocol,
    /// What the client claims to send.
    pub traces: u64,
    /// Bytes read.
    pub bytes: u64,
    open: bool,
}

impl Counted {
    pub(crate) fn new(ledger: &Arc<Ledger>, protocol: Protocol) -> Self {
        Self { ledger: Arc::clone(ledger), protocol, traces: 0, bytes: 0, open: true }
    }

    pub(crate) fn end(&mut self, outcome: PayloadOutcome, reason: &'static str) {
        if std::mem::replace(&mut self.open, false) {
            self.ledger.payload(self.protocol, outcome, reason, self.traces, self.bytes);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.end(PayloadOutcome::Refused, "client_gone");
    }
}

/// Why a request was not taken.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No room for it now.
    Overload(&'static str),
    /// It could not be put anywhere now: shutting down, no destination took it.
    Unavailable(&'static str),
    /// Not acknowledged in time; it may be kept all the same.
    Unacknowledged,
    /// Larger than this.
    TooLarge(u64),
    /// It did not arrive in time.
    Slow,
    /// It ended early.
    Ended,
    /// It cannot be expanded.
    Damaged(String),
    /// It cannot be decoded.
    Decode(DecodeError),
    /// A defect of ours; the same bytes would fail again.
    Internal,
}

impl Failure {
    /// How the ledger counts it.
    pub(crate) fn counted(&self) -> (PayloadOutcome, &'static str) {
        match self {
            Self::Overload(reason) | Self::Unavailable(reason) => (PayloadOutcome::Refused, reason),
            Self::Unacknowledged => (PayloadOutcome::Refused, "payload_timeout"),
            Self::TooLarge(_) => (PayloadOutcome::Rejected, "payload_too_large"),
            Self::Slow => (PayloadOutcome::Rejected, "timeout"),
            Self::Ended => (PayloadOutcome::Rejected, "unexpected_eof"),
            Self::Damaged(_) => (PayloadOutcome::Rejected, "decompression_error"),
            Self::Decode(error) => (PayloadOutcome::Rejected, error.drop_reason()),
            Self::Internal => (PayloadOutcome::Rejected, "panic"),
        }
    }
}

/// In words for the client.
impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Overload(reason) => write!(f, "too busy ({reason}); try again"),
            Self::Unavailable(reason) => write!(f, "the spans were not taken ({reason}); try again"),
            Self::Unacknowledged => f.write_str("the spans were not acknowledged in time; try again"),
            Self::TooLarge(max) => write!(f, "the body is larger than {max} bytes"),
            Self::Slow => f.write_str("the body did not arrive in time"),
            Self::Ended => f.write_str("the body ended early"),
            Self::Damaged(text) => f.write_str(text),
            Self::Decode(error) => write!(f, "{error}"),
            Self::Internal => f.write_str("internal error"),
        }
    }
}

impl From<BodyError> for Failure {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Busy => Self::Overload("memory"),
            BodyError::Timeout => Self::Slow,
            BodyError::Ended => Self::Ended,
        }
    }
}

impl From<ExpandError> for Failure {
    fn from(error: ExpandError) -> Self {
        match error {
            ExpandError::TooLarge(max) => Self::TooLarge(max),
            ExpandError::Busy => Self::Overload("memory"),
            ExpandError::Damaged(_) => Self::Damaged(error.to_string()),
        }
    }
}

/// What was taken, and what of it was not valid.
#[derive(Debug)]
pub(crate) struct Taken {
    pub rejected: u64,
    pub message: String,
}

/// The way in.
pub(crate) struct Gate {
    pub inlet: Inlet,
    max: u64,
    wait: Duration,
    /// Large bodies are decoded by so many workers at most.
    slots: Arc<Semaphore>,
    resends: Arc<Resends>,
}

impl Gate {
    /// `max` bytes of a body, expanded or not (no more than half of the
    /// memory that there is for all of them); `wait` for memory and decoders.
    pub(crate) fn new(inlet: Inlet, max: u64, wait: Duration) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let max = max.min(inlet.budget().limit() / 2);
        let slots = Arc::new(Semaphore::new((cores / 2).max(1)));
        Self { inlet, max, wait, slots, resends: Arc::default() }
    }

    /// Starts counting a request.
    pub(crate) fn count(&self, protocol: Protocol) -> Counted {
        Counted::new(self.inlet.ledger(), protocol)
    }

    /// What the batch of a request remembers of it.
    pub(crate) fn intake(&self, request: &Request, protocol: Protocol) -> Intake {
        Intake {
            protocol,
            transport: request.conn.transport,
            client: ClientFlags::default(),
            received_at: self.inlet.now(),
            ..Intake::default()
        }
    }

    /// Body → batch → pipeline, counted under the intake's protocol.
    pub(crate) async fn take(
        &self,
        request: &mut Request,
        protocol: Protocol,
        compression: Compression,
        decode: impl FnOnce(Bytes, Intake) -> Result<Decoded, DecodeError> + Send + 'static,
    ) -> Result<Taken, Failure> {
        let mut counted = self.count(protocol);
        let intake = self.intake(request, protocol);
        let result = async {
            let received = self.receive(request, 0, &mut counted).await?;
            self.deliver(received, compression, intake, decode).await
        }
        .await;
        self.settle(&mut counted, &result);
        result
    }

    /// Reads a body that may be `extra` bytes longer than the limit (a frame
    /// around it).
    pub(crate) async fn receive(
        &self,
        request: &mut Request,
        extra: u64,
        counted: &mut Counted,
    ) -> Result<Received, Failure> {
        let max = self.max + extra;
        if request.length().is_some_and(|n| n > max) {
            return Err(Failure::TooLarge(self.max));
        }
        let limits = BodyLimits { max, wait: self.wait };
        let received = body::receive(request, &self.inlet, limits).await?;
        counted.bytes = received.bytes.len() as u64;
        if received.more {
            return Err(Failure::TooLarge(self.max));
        }
        Ok(received)
    }

    /// A received body → batch → pipeline.
    pub(crate) async fn deliver(
        &self,
        received: Received,
        compression: Compression,
        intake: Intake,
        decode: impl FnOnce(Bytes, Intake) -> Result<Decoded, DecodeError> + Send + 'static,
    ) -> Result<Taken, Failure> {
        let working = self.resends.begin(&received.bytes, Instant::now());
        let intake = Intake { resent: working.again, fingerprint: working.fingerprint(), ..intake };
        let result = self.put(received, compression, intake, decode).await;
        // Without an acknowledgement nobody knows: the batch may still be kept.
        working.answered(Instant::now(), !matches!(result, Err(Failure::Unacknowledged)));
        result
    }

    async fn put(
        &self,
        received: Received,
        compression: Compression,
        intake: Intake,
        decode: impl FnOnce(Bytes, Intake) -> Result<Decoded, DecodeError> + Send + 'static,
    ) -> Result<Taken, Failure> {
        let max = self.max;
        let inline = match compression {
            Compression::Identity => INLINE_BYTES,
            _ => INLINE_COMPRESSED,
        };
        let small = received.bytes.len() <= inline;
        let ledger = Arc::clone(self.inlet.ledger());
        let work = move || {
            let received = body::expand(received, compression, max)?;
            let Decoded { batch, rejected, message } =
                decode(received.bytes, intake).map_err(Failure::Decode)?;
            if rejected > 0 {
                ledger.rejected(intake.protocol, "invalid_id", rejected);
            }
            Ok((batch, received.permit, Taken { rejected, message }))
        };
        let (taken, submitted) = if small {
            let (batch, permit, taken) = work()?;
            if batch.spans.is_empty() {
                return Ok(taken);
            }
            (Some(Ok(taken)), self.inlet.submit(batch, permit).await)
        } else {
            let slot = tokio::time::timeout(self.wait, Arc::clone(&self.slots).acquire_owned());
            let Ok(Ok(slot)) = slot.await else { return Err(Failure::Overload("decoders")) };
            let decode = move || {
                // Others may decode while the batch is worked on.
                let _slot = slot;
                match work() {
                    Ok((batch, _, taken)) if batch.spans.is_empty() => (None, Ok(taken)),
                    Ok((batch, permit, taken)) => (Some((batch, permit)), Ok(taken)),
                    Err(failure) => (None, Err(failure)),
                }
            };
            self.inlet.submit_body(decode).await
        };
        if let Some(Err(failure)) = taken {
            return Err(failure);
        }
        submitted.map_err(|refused| match refused {
            Refused::Busy => Failure::Overload("queue_full"),
            Refused::NotTaken { reason } => Failure::Unavailable(reason),
            Refused::Closing => Failure::Unavailable("closing"),
            Refused::Timeout => Failure::Unacknowledged,
            Refused::Failed => Failure::Internal,
        })?;
        taken.unwrap_or(Err(Failure::Internal))
    }

    /// Ends the count of a request.
    pub(crate) fn settle(&self, counted: &mut Counted, result: &Result<Taken, Failure>) {
        match result {
            Ok(_) => counted.end(PayloadOutcome::Accepted, ""),
            Err(failure) => {
                let (outcome, reason) = failure.counted();
                counted.end(outcome, reason);
                if let Failure::Decode(error) = failure {
                    tracing::debug!(%error, "body cannot be decoded");
                }
            }
        }
    }
}
