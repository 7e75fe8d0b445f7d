//! A bounded reader of msgpack over a byte slice. It copies nothing: text and
//! bytes are handed out as slices or as positions in the body.
//!
//! Three families of scalar helpers: *strict* ones take exactly what the type
//! says, *tolerant* ones (`*_or_nil`) what the Datadog Agent's hand-written
//! v0.3–v0.5 decoder takes (datadog-agent:pkg/proto/pbgo/trace/decoder_bytes.go),
//! and `number_*` ones additionally whole floating-point numbers. Error texts
//! are those of the Agent's msgpack library, because clients' logs show them.

use spanloom_model::key_tail;
use std::fmt;

/// What a value is, by its first byte; only for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // named as the msgpack specification names them
pub enum Kind {
    Nil,
    Bool,
    Int,
    Uint,
    Float32,
    Float64,
    Str,
    Bin,
    Array,
    Map,
    Ext,
    Invalid,
}

impl Kind {
    const fn of(tag: u8) -> Self {
        match tag {
            0x00..=0x7f | 0xd0..=0xd3 | 0xe0..=0xff => Self::Int,
            0x80..=0x8f | 0xde | 0xdf => Self::Map,
            0x90..=0x9f | 0xdc | 0xdd => Self::Array,
            0xa0..=0xbf | 0xd9..=0xdb => Self::Str,
            0xc0 => Self::Nil,
            0xc1 => Self::Invalid,
            0xc2 | 0xc3 => Self::Bool,
            0xc4..=0xc6 => Self::Bin,
            0xc7..=0xc9 | 0xd4..=0xd8 => Self::Ext,
            0xca => Self::Float32,
            0xcb => Self::Float64,
            0xcc..=0xcf => Self::Uint,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nil => "nil",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Float32 => "float32",
            Self::Float64 => "float64",
            Self::Str => "str",
            Self::Bin => "bin",
            Self::Array => "array",
            Self::Map => "map",
            Self::Ext => "ext",
            Self::Invalid => "<invalid>",
        })
    }
}

/// Why a value could not be read. Small and `Copy`: it travels through every
/// `?` of the decoders; where it happened is added once, at the top.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The body ends before the value does.
    #[error("msgp: too few bytes left to read object")]
    TooFewBytes,
    /// Another type than expected.
    #[error("msgp: attempted to decode type \"{found}\" with method for \"{wanted}\"")]
    Type {
        /// What stands there.
        found: Kind,
        /// What was asked for.
        wanted: Kind,
    },
    /// A number that does not fit.
    #[error("found {found}, overflows {wanted}")]
    Overflow {
        /// Type of the number on the wire.
        found: Width,
        /// Type that was asked for.
        wanted: Width,
    },
    /// A negative number where none may stand.
    #[error("msgp: attempted to cast int {0} to unsigned")]
    Negative(i64),
    /// A container announces more elements than its kind may have.
    #[error("msgp: configured reader limit exceeded")]
    TooManyElements,
    /// A container announces more elements than any may have.
    #[error("too long payload")]
    TooLong,
    /// Values nested deeper than [`crate::Limits::depth`].
    #[error("msgp: max depth exceeded")]
    TooDeep,
    /// The decoded form would be out of proportion to the body
    /// ([`crate::Limits::expansion`]).
    #[error("payload describes more elements than its size warrants")]
    TooLarge,
    /// A rule of a format above msgpack.
    #[error("{0}")]
    Rule(Rule),
    /// v0.5: a reference behind the end of the dictionary.
    #[error("dictionary index {0} out of range")]
    Dictionary(u64),
    /// v1.0: a reference to a text that has not come yet.
    #[error("Streaming string referenced an unseen string index {0}")]
    Unseen(u64),
    /// v1.0: an unknown type of a value.
    #[error("Unknown anyvalue type {0}")]
    AnyValue(u64),
}

/// Rules of the formats above msgpack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // each says itself what is wrong
pub enum Rule {
    #[error("encoded span needs exactly 12 elements in array")]
    SpanElements,
    #[error("Invalid number of elements in an attribute list")]
    AttributeList,
    #[error("Invalid number of elements in an array value")]
    ArrayValue,
    #[error("string table after the first string")]
    StringTable,
}

/// Types of numbers, in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the names are the types
pub enum Width {
    #[error("int8")]
    Int8,
    #[error("int16")]
    Int16,
    #[error("int32")]
    Int32,
    #[error("int64")]
    Int64,
    #[error("uint8")]
    Uint8,
    #[error("uint16")]
    Uint16,
    #[error("uint32")]
    Uint32,
    #[error("uint64")]
    Uint64,
}

// Every read returns one of these; two words stay in registers.
const _: () = assert!(size_of::<Error>() <= 16);

/// Result of a read.
pub type Result<T> = std::result::Result<T, Error>;

/// Position and length of a text or of bytes in the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// Number of bytes.
    pub len: usize,
}

/// Reads values one after the other.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    data: &'a [u8],
    pos: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `data`.
    pub const fn new(data: &'a [u8]) -> Self {
        Self { data, pos: 0 }
    }

    /// Position of the next byte.
    #[inline]
    pub const fn pos(&self) -> usize {
        self.pos
    }

    /// A reader of the same bytes at a position that [`Reader::pos`] gave.
    pub const fn at(&self, pos: usize) -> Self {
        Self { data: self.data, pos }
    }

    /// Bytes not read yet.
    #[inline]
    pub const fn left(&self) -> usize {
        self.data.len().saturating_sub(self.pos)
    }

    /// The bytes that a [`Span`] of this reader names.
    #[inline]
    pub fn bytes(&self, span: Span) -> &'a [u8] {
        self.data.get(span.start..span.start + span.len).unwrap_or_default()
    }

    /// The last eight bytes of a text of the body, or all of a shorter one, as
    /// a little-endian number.
    #[inline]
    pub fn tail(&self, span: Span) -> u64 {
        // Bytes in front of a short text are loaded as well, and shifted out.
        let before = self.data.get(..span.start + span.len).and_then(<[u8]>::last_chunk::<8>);
        match before {
            Some(word) => {
                let excess = 64 - 8 * span.len.min(8) as u32;
                u64::from_le_bytes(*word).checked_shr(excess).unwrap_or(0)
            }
            None => key_tail(self.bytes(span)),
        }
    }

    /// The first byte of the next value.
    #[inline]
    pub fn peek(&self) -> Result<u8> {
        self.data.get(self.pos).copied().ok_or(Error::TooFewBytes)
    }

    /// Reads a nil if one is next, and says whether one was.
    #[inline]
    pub fn nil(&mut self) -> bool {
        let is = self.data.get(self.pos) == Some(&0xc0);
        self.pos += usize::from(is);
        is
    }

    #[inline]
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        match self.data.get(self.pos..).and_then(<[u8]>::first_chunk::<N>) {
            Some(bytes) => {
                self.pos += N;
                Ok(*bytes)
            }
            None => Err(Error::TooFewBytes),
        }
    }

    #[inline]
    fn tag(&mut self) -> Result<u8> {
        let tag = self.peek()?;
        self.pos += 1;
        Ok(tag)
    }

    /// A type error about the value whose first byte was just read.
    #[cold]
    fn unexpected<T>(&mut self, tag: u8, wanted: Kind) -> Result<T> {
        self.pos -= 1;
        Err(Error::Type { found: Kind::of(tag), wanted })
    }

    #[inline]
    fn be16(&mut self) -> Result<usize> {
        Ok(usize::from(u16::from_be_bytes(self.take()?)))
    }

    #[inline]
    fn be32(&mut self) -> Result<usize> {
        Ok(u32::from_be_bytes(self.take()?) as usize)
    }

    /// Header of an array: its length, which is at most `max` and at most the
    /// number of bytes left, so it is safe to reserve for.
    #[inline]
    pub fn array(&mut self, max: usize) -> Result<usize> {
        let n = match self.tag()? {
            tag @ 0x90..=0x9f => usize::from(tag & 0x0f),
            0xdc => self.be16()?,
            0xdd => self.be32()?,
            tag => return self.unexpected(tag, Kind::Array),
        };
        if n > max {
            return Err(Error::TooManyElements);
        }
        if n > self.left() { Err(Error::TooFewBytes) } else { Ok(n) }
    }

    /// Header of an array whose length is of no interest.
    pub fn array_header(&mut self) -> Result<()> {
        match self.tag()? {
            0x90..=0x9f => Ok(()),
            0xdc => self.be16().map(drop),
            0xdd => self.be32().map(drop),
            tag => self.unexpected(tag, Kind::Array),
        }
    }

    /// Header of a map: its number of entries, bounded like [`Reader::array`]
    /// (an entry is at least two bytes).
    #[inline]
    pub fn map(&mut self, max: usize) -> Result<usize> {
        let n = match self.tag()? {
            tag @ 0x80..=0x8f => usize::from(tag & 0x0f),
            0xde => self.be16()?,
            0xdf => self.be32()?,
            tag => return self.unexpected(tag, Kind::Map),
        };
        if n > max {
            return Err(Error::TooManyElements);
        }
        if n > self.left() / 2 { Err(Error::TooFewBytes) } else { Ok(n) }
    }

    #[inline]
    fn span(&mut self, len: usize) -> Result<Span> {
        if len > self.left() {
            return Err(Error::TooFewBytes);
        }
        let span = Span { start: self.pos, len };
        self.pos += len;
        Ok(span)
    }

    /// A str, strictly.
    #[inline]
    pub fn str(&mut self) -> Result<Span> {
        let len = match self.tag()? {
            tag @ 0xa0..=0xbf => usize::from(tag & 0x1f),
            0xd9 => usize::from(self.tag()?),
            0xda => self.be16()?,
            0xdb => self.be32()?,
            tag => return self.unexpected(tag, Kind::Str),
        };
        self.span(len)
    }

    /// Bytes of the bin family, strictly.
    #[inline]
    pub fn bin(&mut self) -> Result<Span> {
        let len = match self.tag()? {
            0xc4 => usize::from(self.tag()?),
            0xc5 => self.be16()?,
            0xc6 => self.be32()?,
            tag => return self.unexpected(tag, Kind::Bin),
        };
        self.span(len)
    }

    /// A key: str or bin.
    #[inline]
    pub fn key(&mut self) -> Result<&'a [u8]> {
        let tag = self.peek()?;
        if let 0xa0..=0xbf = tag {
            // One bounds check for the usual short key.
            let len = usize::from(tag & 0x1f);
            let start = self.pos + 1;
            let key = self.data.get(start..start + len).ok_or(Error::TooFewBytes)?;
            self.pos = start + len;
            return Ok(key);
        }
        let span = if let 0xc4..=0xc6 = tag { self.bin()? } else { self.str()? };
        Ok(self.bytes(span))
    }

    /// Tolerant string: str, bin, or nil for the empty one.
    #[inline]
    pub fn str_or_nil(&mut self) -> Result<Span> {
        match self.peek()? {
            tag @ 0xa0..=0xbf => {
                self.pos += 1;
                self.span(usize::from(tag & 0x1f))
            }
            0xc0 => {
                self.pos += 1;
                Ok(Span::default())
            }
            0xc4..=0xc6 => self.bin(),
            _ => self.str(),
        }
    }

    /// Any integer: its bits, whether it is negative, and what it was sent as.
    fn integer(&mut self, wanted: Kind) -> Result<(u64, bool, Width)> {
        Ok(match self.tag()? {
            tag @ 0x00..=0x7f => (u64::from(tag), false, Width::Int8),
            0xcf => (u64::from_be_bytes(self.take()?), false, Width::Uint64),
            0xce => (u64::from(u32::from_be_bytes(self.take()?)), false, Width::Uint32),
            0xcd => (u64::from(u16::from_be_bytes(self.take()?)), false, Width::Uint16),
            0xcc => (u64::from(self.tag()?), false, Width::Uint8),
            0xd3 => signed(i64::from_be_bytes(self.take()?), Width::Int64),
            0xd2 => signed(i32::from_be_bytes(self.take()?).into(), Width::Int32),
            0xd1 => signed(i16::from_be_bytes(self.take()?).into(), Width::Int16),
            0xd0 => signed(i8::from_be_bytes(self.take()?).into(), Width::Int8),
            tag @ 0xe0..=0xff => signed(i64::from(tag.cast_signed()), Width::Int8),
            tag => return self.unexpected(tag, wanted),
        })
    }

    /// Eight bytes behind a first byte of `tag`, if that is what is next.
    #[inline]
    fn eight(&mut self, tag: u8) -> Option<[u8; 8]> {
        let block = self.data.get(self.pos..)?.first_chunk::<9>()?;
        let [first, rest @ ..] = *block;
        if first != tag {
            return None;
        }
        self.pos += 9;
        Some(rest)
    }

    /// [`Reader::uint`], fast for references into a dictionary.
    #[inline]
    pub fn reference(&mut self) -> Result<u64> {
        match self.data.get(self.pos..).and_then(<[u8]>::first_chunk::<3>) {
            Some([tag @ 0..0x80, _, _]) => {
                self.pos += 1;
                Ok((*tag).into())
            }
            Some([0xcd, high, low]) => {
                self.pos += 3;
                Ok(u16::from_be_bytes([*high, *low]).into())
            }
            _ => self.uint(),
        }
    }

    /// A short ASCII str, if one is next: nearly every text is. Its length,
    /// its place and its bytes are checked with a single bounds check, on one
    /// block that reaches beyond the text.
    #[inline(always)]
    pub fn short_ascii(&mut self) -> Option<Span> {
        let [tag, block @ ..] = self.data.get(self.pos..)?.first_chunk::<33>()?;
        let len = usize::from(tag.wrapping_sub(0xa0));
        let mask = SHORT_MASKS.get(len)?;
        // Four words rather than 32 bytes: the compiler makes four ands of it.
        let (words, _) = block.as_chunks::<8>();
        let mut high = 0;
        for (word, mask) in words.iter().zip(mask) {
            high |= u64::from_le_bytes(*word) & mask;
        }
        if high != 0 {
            return None;
        }
        let span = Span { start: self.pos + 1, len };
        self.pos += 1 + len;
        Some(span)
    }

    /// Non-negative integer of any width, strictly.
    pub fn uint(&mut self) -> Result<u64> {
        let (bits, negative, _) = self.integer(Kind::Uint)?;
        if negative { Err(Error::Negative(bits.cast_signed())) } else { Ok(bits) }
    }

    /// Non-negative integer that fits 32 bits, strictly.
    #[inline]
    pub fn uint32(&mut self) -> Result<u32> {
        let v = self.uint()?;
        u32::try_from(v).map_err(|_| Error::Overflow { found: Width::Uint64, wanted: Width::Uint32 })
    }

    /// Integer of any width, strictly.
    #[inline]
    pub fn int(&mut self) -> Result<i64> {
        let (bits, negative, found) = self.integer(Kind::Int)?;
        if !negative && bits > i64::MAX as u64 {
            return Err(Error::Overflow { found, wanted: Width::Int64 });
        }
        Ok(bits.cast_signed())
    }

    /// Integer that fits 32 bits, strictly.
    #[inline]
    pub fn int32(&mut self) -> Result<i32> {
        let (bits, negative, found) = self.integer(Kind::Int)?;
        let v = if negative { i32::try_from(bits.cast_signed()).ok() } else { i32::try_from(bits).ok() };
        v.ok_or(Error::Overflow { found, wanted: Width::Int32 })
    }

    /// Truth value, strictly.
    #[inline]
    pub fn bool(&mut self) -> Result<bool> {
        match self.tag()? {
            0xc2 => Ok(false),
            0xc3 => Ok(true),
            tag => self.unexpected(tag, Kind::Bool),
        }
    }

    /// Floating-point number of either width.
    #[inline]
    pub fn float(&mut self) -> Result<f64> {
        match self.tag()? {
            0xcb => Ok(f64::from_be_bytes(self.take()?)),
            0xca => Ok(f32::from_be_bytes(self.take()?).into()),
            tag => self.unexpected(tag, Kind::Float64),
        }
    }

    /// Tolerant 64-bit id: any integer, signed ones reinterpreted; nil is 0.
    #[inline]
    pub fn id_or_nil(&mut self) -> Result<u64> {
        if let Some(bytes) = self.eight(0xcf) {
            return Ok(u64::from_be_bytes(bytes));
        }
        if self.nil() {
            return Ok(0);
        }
        Ok(self.integer(Kind::Int)?.0)
    }

    /// Tolerant signed integer; nil is 0.
    #[inline]
    pub fn int_or_nil(&mut self) -> Result<i64> {
        if let Some(bytes) = self.eight(0xd3) {
            return Ok(i64::from_be_bytes(bytes));
        }
        if let Some([0xce, a, b, c, d]) = self.data.get(self.pos..).and_then(<[u8]>::first_chunk::<5>) {
            self.pos += 5;
            return Ok(u32::from_be_bytes([*a, *b, *c, *d]).into());
        }
        if self.nil() { Ok(0) } else { self.int() }
    }

    /// Tolerant 32-bit integer; nil is 0.
    #[inline]
    pub fn int32_or_nil(&mut self) -> Result<i32> {
        if self.nil() { Ok(0) } else { self.int32() }
    }

    /// Tolerant number: a 64-bit float, any integer, nil for 0. A 32-bit float
    /// is refused, as the Agent refuses it.
    #[inline]
    pub fn float_or_nil(&mut self) -> Result<f64> {
        if let Some(bytes) = self.eight(0xcb) {
            return Ok(f64::from_be_bytes(bytes));
        }
        match self.peek()? {
            tag @ 0x00..=0x7f => {
                self.pos += 1;
                Ok(tag.into())
            }
            0xc0 => {
                self.pos += 1;
                Ok(0.0)
            }
            0xca => {
                self.pos += 1;
                self.unexpected(0xca, Kind::Float64)
            }
            0xcb => self.float(),
            _ => {
                let (bits, negative, _) = self.integer(Kind::Float64)?;
                Ok(if negative { bits.cast_signed() as f64 } else { bits as f64 })
            }
        }
    }

    /// Non-negative integer, also when sent as a whole floating-point number
    /// (dd-trace for Node does that with times above 2^53).
    #[inline]
    pub fn number_uint(&mut self) -> Result<u64> {
        if let 0xca | 0xcb = self.peek()? {
            let v = self.float()?;
            // 2^64 itself is the first value that does not fit.
            return if v.fract() == 0.0 && (0.0..18_446_744_073_709_551_616.0).contains(&v) {
                Ok(v as u64)
            } else {
                Err(Error::Type { found: Kind::Float64, wanted: Kind::Uint })
            };
        }
        self.uint()
    }

    /// Passes over one value of any type. Nesting costs neither stack nor
    /// memory: only the number of values still to come is kept.
    #[inline]
    pub fn skip(&mut self) -> Result<()> {
        self.skip_with(|_| {})
    }

    /// [`Reader::skip`], handing every str (keys too) to `on_str` in order.
    #[inline]
    pub fn skip_with(&mut self, mut on_str: impl FnMut(Span)) -> Result<()> {
        let mut values = 1u64;
        while values > 0 {
            values -= 1;
            let tag = self.tag()?;
            let bytes = match tag {
                0xa0..=0xbf => {
                    on_str(self.span(usize::from(tag & 0x1f))?);
                    0
                }
                0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => 0,
                0x80..=0x8f => {
                    values += 2 * u64::from(tag & 0x0f);
                    0
                }
                0x90..=0x9f => {
                    values += u64::from(tag & 0x0f);
                    0
                }
                0xcf | 0xd3 | 0xcb => 8,
                0xce | 0xd2 | 0xca => 4,
                0xcd | 0xd1 => 2,
                0xcc | 0xd0 => 1,
                0xd9..=0xdb => {
                    let len = match tag {
                        0xd9 => usize::from(self.tag()?),
                        0xda => self.be16()?,
                        _ => self.be32()?,
                    };
                    on_str(self.span(len)?);
                    0
                }
                0xc4 => usize::from(self.tag()?),
                0xc5 => self.be16()?,
                0xc6 => self.be32()?,
                // Extensions: a type byte, then the data.
                0xc7 => usize::from(self.tag()?) + 1,
                0xc8 => self.be16()? + 1,
                0xc9 => self.be32()? + 1,
                0xd4..=0xd8 => (1 << (tag - 0xd4)) + 1,
                0xdc => {
                    values += self.be16()? as u64;
                    0
                }
                0xdd => {
                    values += self.be32()? as u64;
                    0
                }
                0xde => {
                    values += 2 * self.be16()? as u64;
                    0
                }
                0xdf => {
                    values += 2 * self.be32()? as u64;
                    0
                }
                0xc1 => return self.unexpected(tag, Kind::Invalid),
            };
            self.span(bytes)?;
            // Every value is at least one byte.
            if values > self.left() as u64 {
                return Err(Error::TooFewBytes);
            }
        }
        Ok(())
    }
}

/// For each length of a short str: the top bit of the bytes that belong to it.
static SHORT_MASKS: [[u64; 4]; 32] = {
    let mut masks = [[0; 4]; 32];
    let mut len = 0;
    while len < 32 {
        let mut i = 0;
        while i < len {
            masks[len][i / 8] |= 0x80 << (8 * (i % 8));
            i += 1;
        }
        len += 1;
    }
    masks
};

#[inline]
const fn signed(v: i64, sent: Width) -> (u64, bool, Width) {
    (v.cast_unsigned(), v < 0, sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_take_every_integer_and_reinterpret_signs() {
        for (bytes, want) in [
            (&b"\xff"[..], u64::MAX),
            (b"\xd3\xff\xff\xff\xff\xff\xff\xff\xfe", u64::MAX - 1),
            (b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", u64::MAX),
            (b"\xcc\x80", 128),
            (b"\xd0\x80", (-128i64).cast_unsigned()),
            (b"\xc0", 0),
            (b"\x05", 5),
        ] {
            assert_eq!(Reader::new(bytes).id_or_nil(), Ok(want), "{bytes:x?}");
        }
        for bytes in [&b"\xa11"[..], b"\xcb\x3f\xf0\0\0\0\0\0\0", b"\xc2"] {
            assert!(matches!(Reader::new(bytes).id_or_nil(), Err(Error::Type { .. })), "{bytes:x?}");
        }
        assert_eq!(Reader::new(b"").id_or_nil(), Err(Error::TooFewBytes));
    }

    #[test]
    fn signed_integers_refuse_what_does_not_fit_and_say_so() {
        let e = Reader::new(b"\xcf\x80\0\0\0\0\0\0\0").int_or_nil().unwrap_err();
        assert_eq!(e.to_string(), "found uint64, overflows int64");
        let e = Reader::new(b"\xce\x80\0\0\0").int32_or_nil().unwrap_err();
        assert_eq!(e.to_string(), "found uint32, overflows int32");
        assert_eq!(Reader::new(b"\xd2\x80\0\0\0").int32_or_nil(), Ok(i32::MIN));
        assert_eq!(
            Reader::new(b"\xff").uint().unwrap_err().to_string(),
            "msgp: attempted to cast int -1 to unsigned"
        );
    }

    #[test]
    fn tolerant_floats_refuse_only_the_narrow_ones() {
        assert_eq!(Reader::new(b"\xcb\x3f\xf8\0\0\0\0\0\0").float_or_nil(), Ok(1.5));
        assert_eq!(Reader::new(b"\xff").float_or_nil(), Ok(-1.0));
        assert_eq!(Reader::new(b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff").float_or_nil(), Ok(u64::MAX as f64));
        assert_eq!(Reader::new(b"\xc0").float_or_nil(), Ok(0.0));
        assert_eq!(
            Reader::new(b"\xca\x3f\x80\0\0").float_or_nil().unwrap_err().to_string(),
            "msgp: attempted to decode type \"float32\" with method for \"float64\""
        );
    }

    #[test]
    fn whole_floats_are_times_and_others_are_not() {
        let f = |v: f64| {
            let mut b = vec![0xcb];
            b.extend(v.to_be_bytes());
            Reader::new(&b).number_uint()
        };
        assert_eq!(f(1.795e18), Ok(1_795_000_000_000_000_000));
        assert!(f(0.5).is_err() && f(-1.0).is_err() && f(f64::NAN).is_err() && f(1.9e19).is_err());
    }

    #[test]
    fn the_tail_of_a_text_is_the_same_wherever_it_lies() {
        let body = b"0123456789abcdefghij";
        let r = Reader::new(body);
        for start in 0..body.len() {
            for len in 0..=body.len() - start {
                let span = Span { start, len };
                assert_eq!(r.tail(span), key_tail(r.bytes(span)), "{start} {len}");
            }
        }
    }

    #[test]
    fn skipping_is_bounded_by_the_bytes_left() {
        let deep = vec![0x91u8; 1_000_000];
        assert_eq!(Reader::new(&deep).skip(), Err(Error::TooFewBytes));
        assert_eq!(Reader::new(b"\xdd\xff\xff\xff\xff").skip(), Err(Error::TooFewBytes));
        let mut r = Reader::new(b"\x82\xa1a\x93\xc0\xc3\xd4\x01\x02\xa1b\xc7\x02\x01xy\x07");
        assert_eq!(r.skip(), Ok(()));
        assert_eq!(r.uint(), Ok(7));
    }

    #[test]
    fn containers_cannot_announce_more_than_is_there() {
        assert_eq!(Reader::new(b"\xdd\x00\x00\x00\x05\xc0").array(10), Err(Error::TooFewBytes));
        assert_eq!(Reader::new(b"\x82\xa0\xa0\xa0").map(10), Err(Error::TooFewBytes));
        assert_eq!(Reader::new(b"\xdc\x00\x0b").array(10), Err(Error::TooManyElements));
    }
}
