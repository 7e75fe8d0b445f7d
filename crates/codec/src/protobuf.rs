//! Protobuf wire format: a bounded reader that hands out fields in place, and
//! a writer that needs no message structs.
//!
//! Rules: <https://protobuf.dev/programming-guides/encoding/>. Positions are
//! positions in the whole body, so that a text found in a nested message can
//! be kept as a slice of the body.

use crate::DecodeError;

/// Deepest nesting of (deprecated) groups that is skipped.
const MAX_GROUPS: u32 = 16;

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Wire type 0: integers, enums, booleans.
    Varint(u64),
    /// Wire type 1: 64-bit little-endian numbers.
    Fixed64(u64),
    /// Wire type 2: text, bytes, nested messages.
    Len(Span),
    /// Wire type 5: 32-bit little-endian numbers.
    Fixed32(u32),
}

/// Where a length-delimited field lies in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// Number of bytes.
    #[inline]
    pub const fn len(self) -> usize {
        self.end - self.start
    }
    /// Whether there are no bytes.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// Reads the fields of one message.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    body: &'a [u8],
    pos: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    /// Over a whole body.
    pub const fn new(body: &'a [u8]) -> Self {
        Self { body, pos: 0, end: body.len() }
    }

    /// Over a nested message of the same body.
    #[inline]
    pub fn nested(&self, at: Span) -> Self {
        let end = at.end.min(self.body.len());
        Self { body: self.body, pos: at.start.min(end), end }
    }

    /// The bytes of a field.
    #[inline]
    pub fn bytes(&self, at: Span) -> &'a [u8] {
        self.body.get(at.start..at.end).unwrap_or_default()
    }

    /// Next field and its number, or `None` at the end of the message.
    ///
    /// # Errors
    /// [`Malformed`], which becomes a [`DecodeError`] by `?`.
    #[inline]
    pub fn next_field(&mut self) -> Result<Option<(u32, Field)>, Malformed> {
        loop {
            if self.pos >= self.end {
                return Ok(None);
            }
            let key = self.varint()?;
            let number = (key >> 3) as u32;
            if number == 0 || key >> 3 > 0x1fff_ffff {
                return Err(self.error(Flaw::FieldNumber));
            }
            let field = match key & 7 {
                2 => Field::Len(self.len_delimited()?),
                0 => Field::Varint(self.varint()?),
                1 => Field::Fixed64(u64::from_le_bytes(self.fixed()?)),
                5 => Field::Fixed32(u32::from_le_bytes(self.fixed()?)),
                3 => {
                    self.skip_group(number)?;
                    continue;
                }
                _ => return Err(self.error(Flaw::WireType)),
            };
            return Ok(Some((number, field)));
        }
    }

    /// Error for a known field whose wire type is not the one of the schema.
    #[cold]
    pub fn wrong_type(&self, message: &str, number: u32) -> DecodeError {
        DecodeError::text(format!(
            "protobuf: {message}: field {number} has the wrong wire type (byte {})",
            self.pos
        ))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Malformed> {
        match self.body.get(self.pos) {
            Some(&first) if first < 0x80 && self.pos < self.end => {
                self.pos += 1;
                Ok(u64::from(first))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let rest = self.body.get(self.pos..self.end).unwrap_or_default();
        let mut value = 0u64;
        for (i, &byte) in rest.iter().take(10).enumerate() {
            // The tenth byte may only hold the 64th bit.
            if i == 9 && byte > 1 {
                return Err(self.error(Flaw::Overflow));
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.pos += i + 1;
                return Ok(value);
            }
        }
        Err(self.error(if rest.len() < 10 { Flaw::Varint } else { Flaw::Overflow }))
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let bytes = self.body.get(self.pos..self.end).and_then(|rest| rest.first_chunk::<N>());
        let Some(bytes) = bytes else { return Err(self.error(Flaw::Fixed)) };
        self.pos += N;
        Ok(*bytes)
    }

    #[inline]
    fn len_delimited(&mut self) -> Result<Span, Malformed> {
        let len = self.varint()?;
        let left = self.end - self.pos;
        if len > left as u64 {
            return Err(self.error(Flaw::Length));
        }
        let at = Span { start: self.pos, end: self.pos + len as usize };
        self.pos = at.end;
        Ok(at)
    }

    /// Skips a group, an encoding that proto3 no longer writes.
    fn skip_group(&mut self, number: u32) -> Result<(), Malformed> {
        let mut open = vec![number];
        while let Some(&innermost) = open.last() {
            if self.pos >= self.end {
                return Err(self.error(Flaw::GroupEnd));
            }
            let key = self.varint()?;
            match key & 7 {
                0 => drop(self.varint()?),
                1 => drop(self.fixed::<8>()?),
                2 => drop(self.len_delimited()?),
                5 => drop(self.fixed::<4>()?),
                3 if open.len() < MAX_GROUPS as usize => open.push((key >> 3) as u32),
                3 => return Err(self.error(Flaw::GroupDepth)),
                4 if (key >> 3) as u32 == innermost => drop(open.pop()),
                _ => return Err(self.error(Flaw::WireType)),
            }
        }
        Ok(())
    }

    #[cold]
    fn error(&self, flaw: Flaw) -> Malformed {
        Malformed { flaw, at: self.pos }
    }
}

/// What is wrong with the bytes of a message, and where. Small, because it
/// travels in the result of every field that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("protobuf: {flaw} (byte {at})")]
pub struct Malformed {
    flaw: Flaw,
    at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Flaw {
    #[error("field number out of range")]
    FieldNumber,
    #[error("illegal wire type")]
    WireType,
    #[error("truncated varint")]
    Varint,
    #[error("varint overflows 64 bits")]
    Overflow,
    #[error("truncated fixed-width number")]
    Fixed,
    #[error("length exceeds the message")]
    Length,
    #[error("group without an end")]
    GroupEnd,
    #[error("groups nested too deeply")]
    GroupDepth,
}

impl From<Malformed> for DecodeError {
    #[cold]
    fn from(malformed: Malformed) -> Self {
        Self::text(malformed.to_string())
    }
}

/// Appends protobuf fields. Nested messages are written in place; their length
/// is put in front when they are closed.
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

/// An open nested message; see [`Writer::open`].
#[must_use]
pub struct Open(usize);

impl<'a> Writer<'a> {
    /// Appends to `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    #[inline]
    fn key(&mut self, number: u32, wire: u32) {
        self.raw_varint(u64::from(number << 3 | wire));
    }

    #[inline]
    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    /// An integer, enum or boolean; nothing for 0 (proto3).
    pub fn varint(&mut self, number: u32, value: u64) {
        if value != 0 {
            self.varint_always(number, value);
        }
    }

    /// As [`Writer::varint`], also for 0 (members of a `oneof`).
    pub fn varint_always(&mut self, number: u32, value: u64) {
        self.key(number, 0);
        self.raw_varint(value);
    }

    /// A 64-bit number; nothing for 0.
    pub fn fixed64(&mut self, number: u32, value: u64) {
        if value != 0 {
            self.fixed64_always(number, value);
        }
    }

    /// As [`Writer::fixed64`], also for 0.
    pub fn fixed64_always(&mut self, number: u32, value: u64) {
        self.key(number, 1);
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    /// A 32-bit number; nothing for 0.
    pub fn fixed32(&mut self, number: u32, value: u32) {
        if value != 0 {
            self.key(number, 5);
            self.out.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// Text or bytes; nothing when empty.
    pub fn bytes(&mut self, number: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.bytes_always(number, bytes);
        }
    }

    /// As [`Writer::bytes`], also when empty.
    pub fn bytes_always(&mut self, number: u32, bytes: &[u8]) {
        self.key(number, 2);
        self.raw_varint(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    /// Fields that are encoded already.
    pub fn raw(&mut self, fields: &[u8]) {
        self.out.extend_from_slice(fields);
    }

    /// Opens a nested message.
    pub fn open(&mut self, number: u32) -> Open {
        self.key(number, 2);
        self.out.push(0);
        Open(self.out.len())
    }

    /// Closes a nested message: writes its length.
    pub fn close(&mut self, open: Open) {
        let Open(start) = open;
        let len = self.out.len() - start;
        if len < 0x80 {
            self.out[start - 1] = len as u8;
            return;
        }
        let mut header = [0u8; 10];
        let mut n = 0;
        let mut value = len;
        while value >= 0x80 {
            header[n] = value as u8 | 0x80;
            n += 1;
            value >>= 7;
        }
        header[n] = value as u8;
        n += 1;
        // One byte was reserved; make room for the rest.
        self.out.resize(self.out.len() + n - 1, 0);
        self.out.copy_within(start..start + len, start + n - 1);
        self.out[start - 1..start - 1 + n].copy_from_slice(&header[..n]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(body: &[u8]) -> Result<Vec<(u32, Field)>, Malformed> {
        let mut reader = Reader::new(body);
        let mut out = Vec::new();
        while let Some(f) = reader.next_field()? {
            out.push(f);
        }
        Ok(out)
    }

    #[test]
    fn what_the_writer_wrote_is_read_back() {
        for len in [0usize, 1, 127, 128, 16_383, 16_384] {
            let mut out = Vec::new();
            let mut w = Writer::new(&mut out);
            w.varint(1, u64::MAX);
            w.varint(2, 0);
            let outer = w.open(3);
            let inner = w.open(4);
            w.bytes_always(5, &vec![7; len]);
            w.close(inner);
            w.fixed64(6, 9);
            w.close(outer);
            w.fixed32(7, 3);
            let got = fields(&out).unwrap();
            assert_eq!(got[0], (1, Field::Varint(u64::MAX)));
            let (3, Field::Len(at)) = got[1] else { panic!("{got:?}") };
            assert_eq!(got[2], (7, Field::Fixed32(3)));
            let mut nested = Reader::new(&out).nested(at);
            let Some((4, Field::Len(at))) = nested.next_field().unwrap() else { panic!() };
            assert_eq!(nested.next_field().unwrap(), Some((6, Field::Fixed64(9))));
            let Some((5, Field::Len(at))) = nested.nested(at).next_field().unwrap() else { panic!() };
            assert_eq!(nested.bytes(at), vec![7; len]);
        }
    }

    #[test]
    fn malformed_messages_are_refused_with_the_place() {
        for (body, text) in [
            (&b"\x08"[..], "truncated varint"),
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", "overflows"),
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "overflows"),
            (b"\x0a\x05ab", "length exceeds"),
            (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "length exceeds"),
            (b"\x09\x01", "truncated fixed"),
            (b"\x0d\x01", "truncated fixed"),
            (b"\x0e", "illegal wire type"),
            (b"\x0c", "illegal wire type"),
            (b"\x00\x01", "field number"),
            (b"\x0b\x08\x01", "group without an end"),
        ] {
            let error = fields(body).unwrap_err().to_string();
            assert!(error.contains(text), "{body:?}: {error}");
        }
        assert!(fields(&[0x0b; 100]).unwrap_err().to_string().contains("nested too deeply"));
    }

    #[test]
    fn groups_are_skipped() {
        assert_eq!(fields(b"\x0b\x08\x01\x13\x14\x0c\x10\x02").unwrap(), [(2, Field::Varint(2))]);
    }
}
