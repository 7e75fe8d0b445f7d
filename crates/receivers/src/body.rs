//! Request bodies. Memory is reserved as bytes arrive, not as they are
//! announced, so that a slow client that announces much holds little.

use crate::server::Request;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use spanloom_pipeline::{Inlet, Permit};
use std::time::Duration;
use tokio::time::Instant;

/// Bounds of a body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Bytes read at most; what follows is left.
    pub max: u64,
    /// How long the reservation of memory may take in total.
    pub wait: Duration,
}

/// A body, paid for.
pub struct Received {
    /// At most [`BodyLimits::max`] bytes.
    pub bytes: Bytes,
    /// The body went on beyond the limit.
    pub more: bool,
    /// Pays for the bytes.
    pub permit: Permit,
}

/// Why a body could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BodyError {
    /// No memory in time.
    #[error("no memory for the body in time")]
    Busy,
    /// It did not arrive in time.
    #[error("the body did not arrive in time")]
    Timeout,
    /// The connection or the chunked encoding ended inside it.
    #[error("the body ended early")]
    Ended,
}

/// First reservation for a body whose length is not known, and step of growth.
const STEP: u64 = 8 << 10;
/// Largest reservation in advance of what has arrived.
const AHEAD: u64 = 64 << 10;

/// Reads the body of a request.
///
/// # Errors
/// [`BodyError`]; the rest of the body is unread.
pub async fn receive(
    request: &mut Request,
    inlet: &Inlet,
    limits: BodyLimits,
) -> Result<Received, BodyError> {
    let length = request.length();
    let expected = length.unwrap_or(STEP).min(limits.max);
    let busy_at = (Instant::now() + limits.wait).min(request.deadline);
    let wait = || busy_at.saturating_duration_since(Instant::now());
    let mut permit = inlet.reserve_within(expected.min(AHEAD), wait()).await.map_err(|_| BodyError::Busy)?;
    let mut whole = BytesMut::new();
    let mut single: Option<Bytes> = None;
    let mut size: u64 = 0;
    let mut more = false;
    while let Some(frame) = next(request).await? {
        let Ok(mut data) = frame.into_data() else { continue };
        let room = limits.max - size;
        if data.len() as u64 > room {
            data.truncate(usize::try_from(room).unwrap_or(usize::MAX));
            more = true;
        }
        size += data.len() as u64;
        if size > permit.bytes() {
            // Twice what is there, so that a long body asks rarely.
            let want = (size * 2).min(limits.max).min(length.unwrap_or(u64::MAX)).max(size);
            permit.grow_within(want - permit.bytes(), wait()).await.map_err(|_| BodyError::Busy)?;
        }
        if whole.is_empty() && single.is_none() {
            // Most small bodies are one piece: no copy.
            single = Some(data);
        } else {
            if let Some(first) = single.take() {
                whole.reserve(usize::try_from(expected.max(size)).unwrap_or_default());
                whole.extend_from_slice(&first);
            }
            whole.extend_from_slice(&data);
        }
        if more {
            break;
        }
    }
    let bytes = single.unwrap_or_else(|| whole.freeze());
    permit.resize(bytes.len() as u64);
    Ok(Received { bytes, more, permit })
}

async fn next(request: &mut Request) -> Result<Option<hyper::body::Frame<Bytes>>, BodyError> {
    match tokio::time::timeout_at(request.deadline, request.body.frame()).await {
        Err(_) => Err(BodyError::Timeout),
        Ok(None) => Ok(None),
        Ok(Some(Ok(frame))) => Ok(Some(frame)),
        Ok(Some(Err(_))) => Err(BodyError::Ended),
    }
}

/// Reads and throws away the rest of a body, at most `max` bytes of it, within
/// the request's deadline. Returns how many bytes there were.
pub(crate) async fn discard(request: &mut Request, max: u64) -> Result<u64, BodyError> {
    let mut size = 0;
    while size <= max {
        match next(request).await? {
            None => break,
            Some(frame) => size += frame.data_ref().map_or(0, |d| d.len() as u64),
        }
    }
    Ok(size)
}
