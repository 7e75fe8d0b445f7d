//! Thrift, binary and compact protocol: a bounded reader and a writer
//! (apache/thrift:doc/specs/thrift-binary-protocol.md and
//! thrift-compact-protocol.md).
//!
//! Strings are handed out as positions in the body. Counts are checked against
//! the bytes left; nesting is bounded.

use crate::{DecodeError, Limits};

/// Encoding of a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoding {
    /// Big-endian, fixed width.
    Binary,
    /// Varints and field deltas.
    Compact,
}

/// Type of a field or element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Type {
    Bool,
    Byte,
    Double,
    I16,
    I32,
    I64,
    String,
    Struct,
    Map,
    Set,
    List,
}

/// Kind of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message {
    /// Wants an answer.
    Call,
    /// Wants none.
    Oneway,
    /// An answer or an exception.
    Other,
}

/// Where a string lies in the body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Str {
    /// First byte.
    pub start: usize,
    /// Number of bytes.
    pub len: usize,
}

/// Reads one body.
#[derive(Debug)]
pub struct Reader<'a> {
    body: &'a [u8],
    pos: usize,
    encoding: Encoding,
    /// Compact: id of the field before.
    last_id: i16,
    /// Compact: value of the boolean field just announced.
    bool_field: Option<bool>,
    depth: u32,
}

impl<'a> Reader<'a> {
    /// Over a body.
    pub const fn new(body: &'a [u8], encoding: Encoding) -> Self {
        Self { body, pos: 0, encoding, last_id: 0, bool_field: None, depth: 0 }
    }

    /// The bytes of a string.
    pub fn bytes(&self, s: Str) -> &'a [u8] {
        self.body.get(s.start..s.start + s.len).unwrap_or_default()
    }

    /// Error with the place.
    #[cold]
    pub fn error(&self, what: impl std::fmt::Display) -> DecodeError {
        DecodeError::text(format!("thrift: {what} (byte {})", self.pos))
    }

    fn left(&self) -> usize {
        self.body.len() - self.pos
    }

    #[inline]
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let bytes = self.body.get(self.pos..).and_then(|rest| rest.first_chunk::<N>());
        let Some(bytes) = bytes else { return Err(self.error("unexpected end")) };
        self.pos += N;
        Ok(*bytes)
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take::<1>()?[0])
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.error("varint overflows 64 bits"))
    }

    fn zigzag(&mut self) -> Result<i64, DecodeError> {
        let n = self.varint()?;
        Ok((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    /// Reads a 64-bit integer.
    #[inline]
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        match self.encoding {
            Encoding::Binary => Ok(i64::from_be_bytes(self.take()?)),
            Encoding::Compact => self.zigzag(),
        }
    }

    /// Reads a 32-bit integer.
    #[inline]
    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        match self.encoding {
            Encoding::Binary => Ok(i32::from_be_bytes(self.take()?)),
            // As the reference implementations: upper bits are cut off.
            Encoding::Compact => Ok(self.zigzag()? as i32),
        }
    }

    /// Reads a 16-bit integer.
    #[inline]
    pub fn i16(&mut self) -> Result<i16, DecodeError> {
        match self.encoding {
            Encoding::Binary => Ok(i16::from_be_bytes(self.take()?)),
            Encoding::Compact => Ok(self.zigzag()? as i16),
        }
    }

    /// Reads an 8-bit integer.
    pub fn i8(&mut self) -> Result<i8, DecodeError> {
        Ok(self.byte()? as i8)
    }

    /// Reads a floating-point number.
    pub fn double(&mut self) -> Result<f64, DecodeError> {
        let bytes = self.take()?;
        Ok(match self.encoding {
            Encoding::Binary => f64::from_be_bytes(bytes),
            Encoding::Compact => f64::from_le_bytes(bytes),
        })
    }

    /// Reads a truth value.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.bool_field.take() {
            Some(value) => Ok(value),
            // Elements of lists have a byte: 1 is true in both encodings
            // (compact false is 2).
            None => Ok(self.byte()? == 1),
        }
    }

    /// Reads text or bytes.
    #[inline]
    pub fn string(&mut self) -> Result<Str, DecodeError> {
        let len = match self.encoding {
            Encoding::Binary => i64::from(self.i32()?),
            Encoding::Compact => i64::try_from(self.varint()?).unwrap_or(-1),
        };
        let Some(len) = usize::try_from(len).ok().filter(|&n| n <= self.left()) else {
            return Err(self.error("string is longer than the body"));
        };
        let s = Str { start: self.pos, len };
        self.pos += len;
        Ok(s)
    }

    /// Reads a struct: calls `each` with the id and type of every field. It
    /// reads the value and says `true`, or says `false` to have it skipped.
    pub fn structure(
        &mut self,
        mut each: impl FnMut(&mut Self, i16, Type) -> Result<bool, DecodeError>,
    ) -> Result<(), DecodeError> {
        self.enter()?;
        let outer = std::mem::take(&mut self.last_id);
        while let Some((id, ty)) = self.field()? {
            if !each(self, id, ty)? {
                self.skip(ty)?;
            }
            self.bool_field = None;
        }
        self.last_id = outer;
        self.depth -= 1;
        Ok(())
    }

    fn enter(&mut self) -> Result<(), DecodeError> {
        if self.depth >= Limits::DEFAULT.depth {
            return Err(DecodeError::Limit(format!("thrift: nested too deeply (byte {})", self.pos).into()));
        }
        self.depth += 1;
        Ok(())
    }

    #[inline]
    fn field(&mut self) -> Result<Option<(i16, Type)>, DecodeError> {
        let head = self.byte()?;
        if head == 0 {
            return Ok(None);
        }
        match self.encoding {
            Encoding::Binary => {
                let ty = self.binary_type(head)?;
                let id = i16::from_be_bytes(self.take()?);
                Ok(Some((id, ty)))
            }
            Encoding::Compact => {
                let ty = self.compact_type(head & 15)?;
                let id = match head >> 4 {
                    0 => self.zigzag()? as i16,
                    delta => self.last_id.wrapping_add(i16::from(delta)),
                };
                self.last_id = id;
                if ty == Type::Bool {
                    self.bool_field = Some(head & 15 == 1);
                }
                Ok(Some((id, ty)))
            }
        }
    }

    fn binary_type(&self, code: u8) -> Result<Type, DecodeError> {
        Ok(match code {
            2 => Type::Bool,
            3 => Type::Byte,
            4 => Type::Double,
            6 => Type::I16,
            8 => Type::I32,
            10 => Type::I64,
            11 => Type::String,
            12 => Type::Struct,
            13 => Type::Map,
            14 => Type::Set,
            15 => Type::List,
            _ => return Err(self.error(format_args!("unknown type {code}"))),
        })
    }

    fn compact_type(&self, code: u8) -> Result<Type, DecodeError> {
        Ok(match code {
            1 | 2 => Type::Bool,
            3 => Type::Byte,
            4 => Type::I16,
            5 => Type::I32,
            6 => Type::I64,
            7 => Type::Double,
            8 => Type::String,
            9 => Type::List,
            10 => Type::Set,
            11 => Type::Map,
            12 => Type::Struct,
            _ => return Err(self.error(format_args!("unknown type {code}"))),
        })
    }

    fn element_type(&self, code: u8) -> Result<Type, DecodeError> {
        match self.encoding {
            Encoding::Binary => self.binary_type(code),
            Encoding::Compact => self.compact_type(code),
        }
    }

    /// Reads the head of a list or set: type and number of elements. Every
    /// element is at least a byte, so the number is at most the bytes left.
    pub fn list(&mut self) -> Result<(Type, usize), DecodeError> {
        let (code, count) = match self.encoding {
            Encoding::Binary => {
                let code = self.byte()?;
                (code, i64::from(self.i32()?))
            }
            Encoding::Compact => {
                let head = self.byte()?;
                let count = match head >> 4 {
                    15 => i64::try_from(self.varint()?).unwrap_or(-1),
                    n => i64::from(n),
                };
                (head & 15, count)
            }
        };
        let Some(count) = usize::try_from(count).ok().filter(|&n| n <= self.left()) else {
            return Err(self.error("list is longer than the body"));
        };
        // An empty list may name no type.
        let ty = if count == 0 { Type::Byte } else { self.element_type(code)? };
        Ok((ty, count))
    }

    /// Reads a list of structs, each with `each`.
    pub fn structs(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let (ty, count) = self.list()?;
        if count > 0 && ty != Type::Struct {
            return Err(self.error("expected a list of structs"));
        }
        for _ in 0..count {
            each(self)?;
        }
        Ok(())
    }

    /// Skips a value.
    pub fn skip(&mut self, ty: Type) -> Result<(), DecodeError> {
        match ty {
            Type::Bool => drop(self.bool()?),
            Type::Byte => drop(self.byte()?),
            Type::Double => drop(self.take::<8>()?),
            Type::I16 => drop(self.i16()?),
            Type::I32 => drop(self.i32()?),
            Type::I64 => drop(self.i64()?),
            Type::String => drop(self.string()?),
            Type::Struct => self.structure(|_, _, _| Ok(false))?,
            Type::List | Type::Set => {
                self.enter()?;
                let (ty, count) = self.list()?;
                for _ in 0..count {
                    self.skip(ty)?;
                }
                self.depth -= 1;
            }
            Type::Map => self.skip_map()?,
        }
        Ok(())
    }

    fn skip_map(&mut self) -> Result<(), DecodeError> {
        self.enter()?;
        let (codes, count) = match self.encoding {
            Encoding::Binary => {
                let codes = self.take::<2>()?;
                (codes, i64::from(self.i32()?))
            }
            Encoding::Compact => match i64::try_from(self.varint()?).unwrap_or(-1) {
                0 => ([0, 0], 0),
                count => {
                    let both = self.byte()?;
                    ([both >> 4, both & 15], count)
                }
            },
        };
        let Some(count) = usize::try_from(count).ok().filter(|&n| n <= self.left()) else {
            return Err(self.error("map is longer than the body"));
        };
        if count > 0 {
            let types = [self.element_type(codes[0])?, self.element_type(codes[1])?];
            for _ in 0..count {
                for ty in types {
                    self.skip(ty)?;
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Reads the head of a message: name of the method and kind. The binary
    /// encoding's old form without a version is taken too.
    pub fn message(&mut self) -> Result<(Str, Message), DecodeError> {
        let (name, kind) = match self.encoding {
            Encoding::Binary => {
                let start = self.pos;
                let version = self.i32()?;
                if version < 0 {
                    if version & 0x7fff_0000 != 0x0001_0000 {
                        return Err(self.error("unknown version of the binary protocol"));
                    }
                    let name = self.string()?;
                    self.i32()?;
                    (name, version as u8)
                } else {
                    self.pos = start;
                    let name = self.string()?;
                    let kind = self.byte()?;
                    self.i32()?;
                    (name, kind)
                }
            }
            Encoding::Compact => {
                if self.byte()? != 0x82 {
                    return Err(self.error("not the compact protocol"));
                }
                let head = self.byte()?;
                if head & 31 != 1 {
                    return Err(self.error("unknown version of the compact protocol"));
                }
                self.varint()?;
                (self.string()?, head >> 5)
            }
        };
        let kind = match kind {
            1 => Message::Call,
            4 => Message::Oneway,
            _ => Message::Other,
        };
        Ok((name, kind))
    }
}

/// Writes structs. The caller ends every struct with [`Writer::stop`] and
/// gives field ids in rising order.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    encoding: Encoding,
    last_ids: Vec<i16>,
}

impl<'a> Writer<'a> {
    /// Appends to `out`.
    pub fn new(out: &'a mut Vec<u8>, encoding: Encoding) -> Self {
        Self { out, encoding, last_ids: vec![0] }
    }

    fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.out.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.out.push(n as u8);
    }

    fn zigzag(&mut self, n: i64) {
        self.varint((n << 1 ^ n >> 63) as u64);
    }

    fn head(&mut self, id: i16, binary: u8, compact: u8) {
        match self.encoding {
            Encoding::Binary => {
                self.out.push(binary);
                self.out.extend_from_slice(&id.to_be_bytes());
            }
            Encoding::Compact => {
                let last = self.last_ids.last().copied().unwrap_or(0);
                let delta = i32::from(id) - i32::from(last);
                if (1..=15).contains(&delta) {
                    self.out.push((delta as u8) << 4 | compact);
                } else {
                    self.out.push(compact);
                    self.zigzag(i64::from(id));
                }
                if let Some(last) = self.last_ids.last_mut() {
                    *last = id;
                }
            }
        }
    }

    /// A 64-bit field.
    pub fn i64(&mut self, id: i16, n: i64) {
        self.head(id, 10, 6);
        match self.encoding {
            Encoding::Binary => self.out.extend_from_slice(&n.to_be_bytes()),
            Encoding::Compact => self.zigzag(n),
        }
    }

    /// A 32-bit field.
    pub fn i32(&mut self, id: i16, n: i32) {
        self.head(id, 8, 5);
        match self.encoding {
            Encoding::Binary => self.out.extend_from_slice(&n.to_be_bytes()),
            Encoding::Compact => self.zigzag(i64::from(n)),
        }
    }

    /// A floating-point field.
    pub fn double(&mut self, id: i16, n: f64) {
        self.head(id, 4, 7);
        match self.encoding {
            Encoding::Binary => self.out.extend_from_slice(&n.to_be_bytes()),
            Encoding::Compact => self.out.extend_from_slice(&n.to_le_bytes()),
        }
    }

    /// A boolean field.
    pub fn bool(&mut self, id: i16, b: bool) {
        self.head(id, 2, if b { 1 } else { 2 });
        if self.encoding == Encoding::Binary {
            self.out.push(u8::from(b));
        }
    }

    /// A field of text or bytes.
    pub fn string(&mut self, id: i16, bytes: &[u8]) {
        self.head(id, 11, 8);
        self.raw_string(bytes);
    }

    fn raw_string(&mut self, bytes: &[u8]) {
        match self.encoding {
            Encoding::Binary => self.out.extend_from_slice(&(bytes.len() as u32).to_be_bytes()),
            Encoding::Compact => self.varint(bytes.len() as u64),
        }
        self.out.extend_from_slice(bytes);
    }

    /// A struct field; its fields follow, then [`Writer::stop`].
    pub fn structure(&mut self, id: i16) {
        self.head(id, 12, 12);
        self.begin();
    }

    /// A struct that is an element of a list, or the whole body.
    pub fn begin(&mut self) {
        self.last_ids.push(0);
    }

    /// A field that is a list of structs; each begins with [`Writer::begin`].
    pub fn structs(&mut self, id: i16, count: usize) {
        self.head(id, 15, 9);
        match self.encoding {
            Encoding::Binary => {
                self.out.push(12);
                self.out.extend_from_slice(&(count as u32).to_be_bytes());
            }
            Encoding::Compact if count < 15 => self.out.push((count as u8) << 4 | 12),
            Encoding::Compact => {
                self.out.push(0xfc);
                self.varint(count as u64);
            }
        }
    }

    /// Ends a struct.
    pub fn stop(&mut self) {
        self.out.push(0);
        self.last_ids.pop();
    }

    /// The head of a oneway message.
    pub fn oneway(&mut self, method: &str) {
        match self.encoding {
            Encoding::Binary => {
                self.out.extend_from_slice(&0x8001_0004u32.to_be_bytes());
                self.raw_string(method.as_bytes());
                self.out.extend_from_slice(&0u32.to_be_bytes());
            }
            Encoding::Compact => {
                self.out.extend_from_slice(&[0x82, 0x81]);
                self.varint(0);
                self.raw_string(method.as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_writer_wrote_is_read_back() {
        for encoding in [Encoding::Binary, Encoding::Compact] {
            let mut out = Vec::new();
            let mut w = Writer::new(&mut out, encoding);
            w.oneway("emitBatch");
            w.begin();
            w.i64(1, i64::MIN);
            w.bool(2, true);
            w.bool(3, false);
            w.structs(40, 20);
            for i in 0..20 {
                w.begin();
                w.i32(1, i - 10);
                w.stop();
            }
            w.structure(41);
            w.double(1, 0.25);
            w.stop();
            w.string(42, b"text");
            w.stop();

            let mut r = Reader::new(&out, encoding);
            let (name, kind) = r.message().unwrap();
            assert_eq!((r.bytes(name), kind), (&b"emitBatch"[..], Message::Oneway));
            let mut seen = Vec::new();
            r.structure(|r, id, ty| {
                match (id, ty) {
                    (1, Type::I64) => assert_eq!(r.i64()?, i64::MIN),
                    (2, Type::Bool) => assert!(r.bool()?),
                    (3, Type::Bool) => assert!(!r.bool()?),
                    (40, Type::List) => {
                        let mut n = -10;
                        r.structs(|r| {
                            r.structure(|r, _, _| {
                                assert_eq!(r.i32()?, n);
                                n += 1;
                                Ok(true)
                            })
                        })?;
                        assert_eq!(n, 10);
                    }
                    (42, Type::String) => {
                        let s = r.string()?;
                        assert_eq!(r.bytes(s), b"text");
                    }
                    _ => return Ok(false),
                }
                seen.push(id);
                Ok(true)
            })
            .unwrap();
            assert_eq!(seen, [1, 2, 3, 40, 42]);
            assert_eq!(r.left(), 0);
        }
    }

    #[test]
    fn malformed_bodies_are_refused() {
        use Encoding::{Binary, Compact};
        for (encoding, body, text) in [
            (Binary, &b""[..], "unexpected end"),
            (Binary, b"\x0a\0\x01\0", "unexpected end"),
            (Binary, b"\x01\0\x01", "unknown type"),
            (Binary, b"\x0b\0\x01\xff\xff\xff\xff", "string is longer"),
            (Binary, b"\x0b\0\x01\0\0\0\x05a", "string is longer"),
            (Binary, b"\x0f\0\x01\x0c\x7f\xff\xff\xff", "list is longer"),
            (Binary, b"\x0d\0\x01\x0c\x0c\x7f\xff\xff\xff", "map is longer"),
            (Compact, b"\x18\xff\xff\xff\xff\x0f", "string is longer"),
            (Compact, b"\x16\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", "overflows"),
            (Compact, b"\x19\xfc\xff\xff\xff\xff\x07", "list is longer"),
            (Compact, b"\x1e", "unknown type"),
        ] {
            let error = Reader::new(body, encoding).structure(|_, _, _| Ok(false)).unwrap_err().to_string();
            assert!(error.contains(text), "{body:?}: {error}");
        }
        let deep = b"\x0c\0\x01".repeat(1000);
        let error = Reader::new(&deep, Binary).structure(|_, _, _| Ok(false)).unwrap_err();
        assert!(matches!(error, DecodeError::Limit(_)));
    }

    #[test]
    fn old_binary_messages_without_a_version_are_read() {
        let body = b"\0\0\0\x09emitBatch\x04\0\0\0\x07";
        let mut r = Reader::new(body, Encoding::Binary);
        let (name, kind) = r.message().unwrap();
        assert_eq!((r.bytes(name), kind), (&b"emitBatch"[..], Message::Oneway));
    }
}
