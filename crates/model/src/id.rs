//! Trace and span ids.

use std::fmt;

/// 128-bit trace id. A 64-bit id has a zero high half, which every output
/// format can recognise again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct TraceId(pub u128);

/// 64-bit span id; 0 means "none" (the parent of a root).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct SpanId(pub u64);

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// No digits at all.
    #[error("empty id")]
    Empty,
    /// More digits than the id holds.
    #[error("id has {0} digits, at most {1} are allowed")]
    TooLong(usize, usize),
    /// A character that is not a hexadecimal digit.
    #[error("id has a character that is not a hexadecimal digit")]
    NotHex,
}

impl TraceId {
    /// Joins the two halves as Datadog sends them (`_dd.p.tid` and `trace_id`).
    #[inline]
    pub const fn from_halves(high: u64, low: u64) -> Self {
        Self(((high as u128) << 64) | low as u128)
    }
    /// The upper 64 bits; 0 for a 64-bit id.
    #[inline]
    pub const fn high(self) -> u64 {
        (self.0 >> 64) as u64
    }
    /// The lower 64 bits: Datadog's `trace_id`.
    #[inline]
    pub const fn low(self) -> u64 {
        self.0 as u64
    }
    /// Whether no bit is set, which every format treats as invalid.
    #[inline]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
    /// Big-endian bytes, as OTLP and W3C write them. Shorter input is
    /// right-aligned, of longer input the last 16 bytes count.
    pub fn from_be_slice(bytes: &[u8]) -> Self {
        let mut id = 0u128;
        for &b in bytes {
            id = (id << 8) | u128::from(b);
        }
        Self(id)
    }
    /// Parses 1 to 32 hexadecimal digits of either case.
    pub fn parse_hex(s: &str) -> Result<Self, IdError> {
        parse_hex(s.as_bytes(), 32).map(Self)
    }
}

impl SpanId {
    /// Parses 1 to 16 hexadecimal digits of either case.
    pub fn parse_hex(s: &str) -> Result<Self, IdError> {
        parse_hex(s.as_bytes(), 16).map(|v| Self(v as u64))
    }
    /// Big-endian bytes; see [`TraceId::from_be_slice`].
    pub fn from_be_slice(bytes: &[u8]) -> Self {
        Self(TraceId::from_be_slice(bytes).low())
    }
    /// Whether the id is the "none" id.
    #[inline]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

fn parse_hex(s: &[u8], max: usize) -> Result<u128, IdError> {
    if s.is_empty() {
        return Err(IdError::Empty);
    }
    if s.len() > max {
        return Err(IdError::TooLong(s.len(), max));
    }
    let mut id = 0u128;
    for &c in s {
        let digit = match c {
            b'0'..=b'9' => c - b'0',
            b'a'..=b'f' => c - b'a' + 10,
            b'A'..=b'F' => c - b'A' + 10,
            _ => return Err(IdError::NotHex),
        };
        id = (id << 4) | u128::from(digit);
    }
    Ok(id)
}

impl fmt::Display for TraceId {
    /// 32 lower-case digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceId({self})")
    }
}
impl fmt::Display for SpanId {
    /// 16 lower-case digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpanId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_in_both_widths() {
        let id = TraceId::from_halves(0x640c_fd8d_0000_0000, 0xab);
        assert_eq!(id.to_string(), "640cfd8d0000000000000000000000ab");
        assert_eq!(TraceId::parse_hex(&id.to_string()), Ok(id));
        assert_eq!(TraceId::parse_hex("AB"), Ok(TraceId(0xab)));
        assert_eq!(SpanId(7).to_string(), "0000000000000007");
    }

    #[test]
    fn refused_ids_say_why() {
        assert_eq!(TraceId::parse_hex(""), Err(IdError::Empty));
        assert_eq!(TraceId::parse_hex("xyz"), Err(IdError::NotHex));
        assert_eq!(SpanId::parse_hex("00112233445566778"), Err(IdError::TooLong(17, 16)));
    }
}
