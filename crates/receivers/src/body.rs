//! Request bodies. Memory is reserved as bytes arrive, not as they are
//! announced, so that a slow client that announces much holds little.

use crate::server::Request;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body;
use spanloom_pipeline::{Inlet, Permit};
use std::io::Read;
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

/// How a body is compressed (`Content-Encoding`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Compression {
    /// Not.
    #[default]
    Identity,
    /// gzip, one or more members.
    Gzip,
    /// zlib; raw deflate, which some clients send under this name, too.
    Deflate,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// From a header value. `None`: a coding that we do not know.
    pub fn parse(header: &str) -> Option<Self> {
        match header.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Some(Self::Identity),
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" | "zlib" => Some(Self::Deflate),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Why a body could not be expanded.
#[derive(Debug, thiserror::Error)]
pub enum ExpandError {
    /// It is larger than the limit. Nothing beyond the limit was expanded.
    #[error("the expanded body is larger than {0} bytes")]
    TooLarge(u64),
    /// Expanding it takes more memory than is free.
    #[error("no memory for the expanded body")]
    Busy,
    /// It is damaged.
    #[error("the body cannot be decompressed: {0}")]
    Damaged(String),
}

/// Expands a received body, at most `max` bytes of it. Memory is reserved as
/// it grows; a bomb costs no more than `max`. Blocks: bodies that may be large
/// are expanded where their decoding happens.
///
/// # Errors
/// [`ExpandError`].
pub fn expand(mut received: Received, compression: Compression, max: u64) -> Result<Received, ExpandError> {
    let body = received.bytes.clone();
    let mut reader: Box<dyn Read + '_> = match compression {
        Compression::Identity => return Ok(received),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(&body[..])),
        // The two bytes of a zlib header are divisible by 31 and name method 8.
        Compression::Deflate => match body.first_chunk::<2>() {
            Some([a, b]) if a & 15 == 8 && (u16::from(*a) << 8 | u16::from(*b)) % 31 == 0 => {
                Box::new(flate2::bufread::ZlibDecoder::new(&body[..]))
            }
            _ => Box::new(flate2::bufread::DeflateDecoder::new(&body[..])),
        },
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(&body[..])
                .map_err(|e| ExpandError::Damaged(e.to_string()))?;
            // 8 MiB: what the format says every decoder should support.
            decoder.window_log_max(23).map_err(|e| ExpandError::Damaged(e.to_string()))?;
            Box::new(decoder)
        }
    };
    let mut out = Vec::with_capacity(body.len().saturating_mul(4).min(1 << 20));
    let mut piece = [0; 16 << 10];
    loop {
        let n = match reader.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) => return Err(ExpandError::Damaged(e.to_string())),
        };
        if out.len() as u64 + n as u64 > max {
            return Err(ExpandError::TooLarge(max));
        }
        if out.capacity() - out.len() < n {
            // Twice what is there, but nothing that the limit would cut off.
            let room = usize::try_from(max).unwrap_or(usize::MAX).saturating_sub(out.capacity());
            let more = out.capacity().max(n).min(room.max(n));
            received.permit.grow(more as u64).map_err(|_| ExpandError::Busy)?;
            out.reserve_exact(more);
        }
        out.extend_from_slice(&piece[..n]);
    }
    received.bytes = Bytes::from(out);
    received.permit.resize(received.bytes.len() as u64);
    Ok(received)
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

/// The next piece of a body, within the request's deadline.
pub(crate) async fn next(request: &mut Request) -> Result<Option<hyper::body::Frame<Bytes>>, BodyError> {
    if request.body.is_end_stream() {
        return Ok(None);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use spanloom_pipeline::Budget;
    use std::io::Write;

    fn received(budget: &Budget, bytes: Vec<u8>) -> Received {
        let permit = budget.reserve(bytes.len() as u64).unwrap();
        Received { bytes: bytes.into(), more: false, permit }
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        w.write_all(data).unwrap();
        w.finish().unwrap()
    }

    fn zlib(data: &[u8]) -> Vec<u8> {
        let mut w = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        w.write_all(data).unwrap();
        w.finish().unwrap()
    }

    fn deflate(data: &[u8]) -> Vec<u8> {
        let mut w = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        w.write_all(data).unwrap();
        w.finish().unwrap()
    }

    #[test]
    fn each_compression_is_expanded_and_paid_for() {
        let data: Vec<u8> = (0..50_000u32).flat_map(|i| (i % 977).to_le_bytes()).collect();
        let two_members = [gzip(&data[..1000]), gzip(&data[1000..])].concat();
        for (name, compressed) in [
            ("gzip", gzip(&data)),
            ("X-Gzip", two_members),
            ("deflate", zlib(&data)),
            ("deflate", deflate(&data)),
            ("zstd", zstd::encode_all(&data[..], 1).unwrap()),
            ("identity", data.clone()),
        ] {
            let budget = Budget::new(10 << 20);
            let compression = Compression::parse(name).unwrap();
            let body = expand(received(&budget, compressed), compression, 200_000).ok().unwrap();
            assert!(body.bytes == data, "{name}");
            assert_eq!(budget.used(), 200_000);
        }
        assert_eq!(Compression::parse("br"), None);
    }

    #[test]
    fn a_bomb_costs_no_more_than_the_limit() {
        let zeros = vec![0; 50 << 20];
        for (compression, bomb) in [
            (Compression::Gzip, gzip(&zeros)),
            (Compression::Deflate, zlib(&zeros)),
            (Compression::Zstd, zstd::encode_all(&zeros[..], 1).unwrap()),
        ] {
            let budget = Budget::new(8 << 20);
            let result = expand(received(&budget, bomb.clone()), compression, 1 << 20);
            assert!(matches!(result.err(), Some(ExpandError::TooLarge(_))), "{compression:?}");
            assert!(budget.peak() < 4 << 20);
            let little = Budget::new(bomb.len() as u64 + 100_000);
            let result = expand(received(&little, bomb), compression, 40 << 20);
            assert!(matches!(result.err(), Some(ExpandError::Busy)), "{compression:?}");
            assert_eq!((budget.used(), little.used()), (0, 0));
        }
    }

    #[test]
    fn damage_is_an_error_and_no_more() {
        let data = b"some text that is long enough to be compressed, compressed, compressed";
        for (compression, good) in [
            (Compression::Gzip, gzip(data)),
            (Compression::Deflate, zlib(data)),
            (Compression::Zstd, zstd::encode_all(&data[..], 1).unwrap()),
        ] {
            for cut in 0..good.len() - 1 {
                let budget = Budget::new(1 << 20);
                let body = expand(received(&budget, good[..cut].to_vec()), compression, 1 << 20);
                // A cut may fall between the data and its checksum's end.
                assert!(body.is_err() || body.is_ok_and(|b| b.bytes.len() <= data.len()));
            }
            for at in 0..good.len() {
                let mut bad = good.clone();
                bad[at] ^= 0x55;
                let budget = Budget::new(1 << 20);
                drop(expand(received(&budget, bad), compression, 1 << 20));
                assert_eq!(budget.used(), 0);
            }
        }
    }
}
