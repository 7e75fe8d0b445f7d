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
    /// What is written, and after it room for more, which is given back at the
    /// end: so a field is one check of bounds instead of one for each part.
    out: &'a mut Vec<u8>,
    /// End of what is written.
    at: usize,
}

/// An open nested message; see [`Writer::open`].
#[must_use]
pub struct Open {
    /// Where its length stands.
    at: usize,
    /// Bytes that are there for it.
    reserved: usize,
}

/// Most bytes of the key and the length of a field.
const FIELD_HEAD: usize = 15;
/// So many bytes are copied at least: cheaper than exactly as many as a short
/// text has. The next field overwrites what is too much.
const WIDE: usize = 32;
/// Room that is made at once, at most.
const ROOM: usize = 4096;

/// A text and what happens to follow it in memory.
#[derive(Clone, Copy)]
pub struct Wide<'a> {
    from: &'a [u8],
    len: usize,
}

impl<'a> Wide<'a> {
    /// The first `len` bytes of `from`.
    #[inline]
    pub fn new(from: &'a [u8], len: usize) -> Self {
        Self { from, len: len.min(from.len()) }
    }

    /// To the beginning of `to`, which has [`WIDE`] bytes more than needed.
    #[inline]
    fn copy(self, to: &mut [u8]) {
        match (self.from.first_chunk::<WIDE>(), to.first_chunk_mut::<WIDE>()) {
            (Some(from), Some(to)) if self.len <= WIDE => *to = *from,
            _ => to[..self.len].copy_from_slice(&self.from[..self.len]),
        }
    }

    /// Bytes of a field that holds the text and is left out if there is none.
    #[inline]
    fn field_len(self) -> usize {
        if self.len == 0 { 0 } else { 1 + varint_len(self.len as u64) + self.len }
    }
}

/// Bytes of a varint.
#[inline]
const fn varint_len(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// Writes a varint; how many bytes it has.
#[inline]
fn put_varint(to: &mut [u8], mut value: u64) -> usize {
    let mut n = 0;
    while value >= 0x80 {
        to[n] = value as u8 | 0x80;
        n += 1;
        value >>= 7;
    }
    to[n] = value as u8;
    n + 1
}

impl<'a> Writer<'a> {
    /// Appends to `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        let at = out.len();
        Self { out, at }
    }

    /// Room for `n` bytes after what is written.
    #[inline]
    fn room(&mut self, n: usize) -> &mut [u8] {
        if self.out.len() - self.at < n {
            self.make_room(n);
        }
        &mut self.out[self.at..self.at + n]
    }

    #[cold]
    fn make_room(&mut self, n: usize) {
        self.out.resize(self.at + n + self.at.min(ROOM), 0);
    }

    /// An integer, enum or boolean; nothing for 0 (proto3).
    #[inline]
    pub fn varint(&mut self, number: u32, value: u64) {
        if value != 0 {
            self.varint_always(number, value);
        }
    }

    /// As [`Writer::varint`], also for 0 (members of a `oneof`).
    #[inline]
    pub fn varint_always(&mut self, number: u32, value: u64) {
        let room = self.room(FIELD_HEAD);
        let n = put_varint(room, u64::from(number << 3));
        self.at += n + put_varint(&mut room[n..], value);
    }

    /// A 64-bit number; nothing for 0.
    #[inline]
    pub fn fixed64(&mut self, number: u32, value: u64) {
        if value != 0 {
            self.fixed64_always(number, value);
        }
    }

    /// As [`Writer::fixed64`], also for 0.
    #[inline]
    pub fn fixed64_always(&mut self, number: u32, value: u64) {
        let room = self.room(FIELD_HEAD);
        let n = put_varint(room, u64::from(number << 3 | 1));
        room[n..n + 8].copy_from_slice(&value.to_le_bytes());
        self.at += n + 8;
    }

    /// A 32-bit number; nothing for 0.
    pub fn fixed32(&mut self, number: u32, value: u32) {
        if value != 0 {
            let room = self.room(FIELD_HEAD);
            let n = put_varint(room, u64::from(number << 3 | 5));
            room[n..n + 4].copy_from_slice(&value.to_le_bytes());
            self.at += n + 4;
        }
    }

    /// Text or bytes; nothing when empty.
    #[inline]
    pub fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.text(number, Wide::new(bytes, bytes.len()));
    }

    /// As [`Writer::bytes`], also when empty.
    #[inline]
    pub fn bytes_always(&mut self, number: u32, bytes: &[u8]) {
        self.text_always(number, Wide::new(bytes, bytes.len()));
    }

    /// As [`Writer::bytes`], faster.
    #[inline]
    pub fn text(&mut self, number: u32, text: Wide<'_>) {
        if text.len > 0 {
            self.text_always(number, text);
        }
    }

    #[inline]
    fn text_always(&mut self, number: u32, text: Wide<'_>) {
        let room = self.room(FIELD_HEAD + text.len + WIDE);
        let mut n = put_varint(room, u64::from(number << 3 | 2));
        n += put_varint(&mut room[n..], text.len as u64);
        text.copy(&mut room[n..]);
        self.at += n + text.len;
    }

    /// An entry of a map: a message with `key` as field 1 and `value` as field 2.
    #[inline]
    pub fn entry(&mut self, number: u32, key: Wide<'_>, value: Wide<'_>) {
        let len = key.len + value.len + 4;
        if len >= 0x80 || number >= 16 || key.len == 0 || value.len == 0 {
            return self.any_entry(number, key, value);
        }
        let room = self.room(len + 2 + WIDE);
        room[..4].copy_from_slice(&[(number << 3 | 2) as u8, len as u8, 1 << 3 | 2, key.len as u8]);
        let rest = &mut room[4..];
        key.copy(rest);
        let rest = &mut rest[key.len..];
        rest[..2].copy_from_slice(&[2 << 3 | 2, value.len as u8]);
        value.copy(&mut rest[2..]);
        self.at += len + 2;
    }

    fn any_entry(&mut self, number: u32, key: Wide<'_>, value: Wide<'_>) {
        self.head(number, key.field_len() + value.field_len());
        self.text(1, key);
        self.text(2, value);
    }

    /// An entry of a map from text to doubles: `bits` as field 2, left out if 0.
    #[inline]
    pub fn entry_fixed64(&mut self, number: u32, key: Wide<'_>, bits: u64) {
        self.head(number, key.field_len() + if bits == 0 { 0 } else { 9 });
        self.text(1, key);
        self.fixed64(2, bits);
    }

    /// Key and length of a field that is written next.
    #[inline]
    fn head(&mut self, number: u32, len: usize) {
        let room = self.room(FIELD_HEAD);
        let n = put_varint(room, u64::from(number << 3 | 2));
        self.at += n + put_varint(&mut room[n..], len as u64);
    }

    /// Fields that are encoded already.
    pub fn raw(&mut self, fields: &[u8]) {
        self.room(fields.len()).copy_from_slice(fields);
        self.at += fields.len();
    }

    /// Opens a nested message, which is taken to be short.
    #[inline]
    pub fn open(&mut self, number: u32) -> Open {
        self.open_about(number, 0)
    }

    /// Opens a nested message of about so many bytes. It is moved if the guess
    /// is so wrong that its length takes another number of bytes.
    #[inline]
    pub fn open_about(&mut self, number: u32, len: usize) -> Open {
        let room = self.room(FIELD_HEAD);
        let n = put_varint(room, u64::from(number << 3 | 2));
        let at = self.at + n;
        let reserved = varint_len(len as u64);
        self.at = at + reserved;
        Open { at, reserved }
    }

    /// Closes a nested message: writes its length.
    #[inline]
    pub fn close(&mut self, open: Open) {
        let start = open.at + open.reserved;
        let len = self.at - start;
        let needed = varint_len(len as u64);
        if needed != open.reserved {
            self.room(FIELD_HEAD);
            self.out.copy_within(start..self.at, open.at + needed);
            self.at = open.at + needed + len;
        }
        put_varint(&mut self.out[open.at..], len as u64);
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.out.truncate(self.at);
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
            drop(w);
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
    fn a_wrong_guess_of_a_length_and_a_fast_entry_change_no_byte() {
        let text = [b'x'; 400];
        for len in [0usize, 1, 31, 32, 33, 60, 61, 126, 127, 128, 300] {
            for about in [0usize, 200, 20_000] {
                let (mut fast, mut plain) = (vec![9; 3], vec![9; 3]);
                let mut w = Writer::new(&mut fast);
                let open = w.open_about(3, about);
                w.entry(4, Wide::new(&text, len), Wide::new(&text, 60));
                w.entry(4, Wide::new(&text, 60), Wide::new(&text, len));
                w.entry(20, Wide::new(&text[..60], 60), Wide::new(&text, len));
                w.entry_fixed64(5, Wide::new(&text, len), 7);
                w.entry_fixed64(5, Wide::new(&text, len), 0);
                w.close(open);
                drop(w);
                let mut w = Writer::new(&mut plain);
                let open = w.open(3);
                for (number, key, value) in [(4, len, 60), (4, 60, len), (20, 60, len)] {
                    let entry = w.open(number);
                    w.bytes(1, &text[..key]);
                    w.bytes(2, &text[..value]);
                    w.close(entry);
                }
                for bits in [7, 0] {
                    let entry = w.open(5);
                    w.bytes(1, &text[..len]);
                    w.fixed64(2, bits);
                    w.close(entry);
                }
                w.close(open);
                drop(w);
                assert_eq!(fast, plain, "{len} {about}");
            }
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
