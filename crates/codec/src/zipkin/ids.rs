//! Ids and error texts as Zipkin has them
//! (zipkin:zipkin/src/main/java/zipkin2/Span.java).

use crate::DecodeError;
use spanloom_model::{SpanId, TraceId};

/// What was being read, for the end of error texts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Proto,
    Thrift,
}

impl Format {
    /// `text` with Zipkin's ending.
    #[cold]
    pub(super) fn error(self, text: impl std::fmt::Display) -> DecodeError {
        let name = match self {
            Self::Json => "json",
            Self::Proto => "proto3",
            Self::Thrift => "thrift",
        };
        DecodeError::text(format!("{text} reading List<Span> from {name}"))
    }

    /// Adds Zipkin's ending to an error of a reader.
    #[cold]
    pub(super) fn wrap(self, error: DecodeError) -> DecodeError {
        match error {
            DecodeError::Limit(_) => error,
            DecodeError::Malformed(ref text)
                if text.ends_with('\n') || text.contains(" reading List<Span>") =>
            {
                error
            }
            other => self.error(other),
        }
    }
}

/// Parses 1 to `max` lower-case hexadecimal digits.
fn lower_hex(text: &[u8], field: &str, max: usize) -> Result<u128, String> {
    if text.is_empty() {
        return Err(format!("{field} is empty"));
    }
    if text.len() > max {
        return Err(format!("{field}.length > {max}"));
    }
    let mut id = 0u128;
    for &c in text {
        let digit = match c {
            b'0'..=b'9' => c - b'0',
            b'a'..=b'f' => c - b'a' + 10,
            _ => {
                return Err(format!(
                    "{} should be lower-hex encoded with no prefix",
                    String::from_utf8_lossy(text)
                ));
            }
        };
        id = id << 4 | u128::from(digit);
    }
    Ok(id)
}

/// A trace id: 1 to 32 digits, not zero.
pub(super) fn trace_id(text: &[u8]) -> Result<TraceId, String> {
    match lower_hex(text, "traceId", 32)? {
        0 => Err("traceId is all zeros".into()),
        id => Ok(TraceId(id)),
    }
}

/// A span id: 1 to 16 digits, not zero.
pub(super) fn span_id(text: &[u8]) -> Result<SpanId, String> {
    match lower_hex(text, "id", 16)? {
        0 => Err("id is all zeros".into()),
        id => Ok(SpanId(id as u64)),
    }
}

/// A parent id: 1 to 16 digits; zero means none.
pub(super) fn parent_id(text: &[u8]) -> Result<SpanId, String> {
    lower_hex(text, "parentId", 16).map(|id| SpanId(id as u64))
}

/// Both ids must have been there.
pub(super) fn check_present(trace_id: TraceId, id: SpanId) -> Result<(), &'static str> {
    match (trace_id.is_zero(), id.is_zero()) {
        (false, false) => Ok(()),
        (true, false) => Err("Missing : traceId"),
        (false, true) => Err("Missing : id"),
        (true, true) => Err("Missing : traceId id"),
    }
}

/// Microseconds of the wire to nanoseconds, saturating; 0 for what Zipkin
/// treats as absent.
pub(super) const fn nanos(micros: i64) -> i64 {
    if micros <= 0 { 0 } else { micros.saturating_mul(1000) }
}
