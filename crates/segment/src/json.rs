//! The JSON in which structured values lie in the Parquet file: readable for
//! people and their tools, yet exact.
//!
//! Ordinary values look ordinary: text, `true`, `null` (a value without
//! content), `12` (integer), `12.0` (floating-point: always with a point or an
//! exponent), lists and objects (key order and repeated keys are kept).
//! What JSON cannot say is an object whose first key begins with `$`:
//! `{"$bytes":"hex"}`, `{"$double":"bits in hex"}` (not finite),
//! `{"$map":{…}}` (a map whose own first key begins with `$`), and, in the
//! column `attributes` only, a [`Slot`].

use crate::error::{Decoded, Malformed};
use spanloom_model::{Attr, Batch, Range32, Value};

/// Nesting beyond this is not written (the value becomes empty) and refused
/// when read. All decoders stop far earlier.
pub(crate) const MAX_DEPTH: usize = 150;

/// Where the value of an attribute lies when it is not in the set itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Slot {
    /// In the promoted column of this key and type.
    Column(Type),
    /// Next element of the list in the column `attributes_long`.
    Long,
    /// The upper half of the trace id as 16 hexadecimal digits (`_dd.p.tid`).
    TraceHigh,
}

/// Type of a promoted column.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(crate) enum Type {
    Str,
    Int,
    Double,
    /// Anything else, as JSON.
    Json,
}

impl Type {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Str => "str",
            Self::Int => "int",
            Self::Double => "double",
            Self::Json => "json",
        }
    }
    pub fn from_name(name: &[u8]) -> Option<Self> {
        [Self::Str, Self::Int, Self::Double, Self::Json].into_iter().find(|t| t.name().as_bytes() == name)
    }
    pub const fn of(value: &Value) -> Self {
        match value {
            Value::Str(_) => Self::Str,
            Value::Int(_) => Self::Int,
            Value::Double(_) => Self::Double,
            _ => Self::Json,
        }
    }
}

pub(crate) fn put_str(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut plain = 0;
    for (i, b) in bytes.iter().enumerate() {
        if *b >= 0x20 && *b != b'"' && *b != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[plain..i]);
        plain = i + 1;
        match *b {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b => out.extend_from_slice(format!("\\u{b:04x}").as_bytes()),
        }
    }
    out.extend_from_slice(&bytes[plain..]);
    out.push(b'"');
}

pub(crate) fn put_int(out: &mut Vec<u8>, n: i64) {
    out.extend_from_slice(n.to_string().as_bytes());
}

pub(crate) fn put_value(out: &mut Vec<u8>, batch: &Batch, value: &Value, depth: usize) {
    if depth > MAX_DEPTH {
        out.extend_from_slice(b"null");
        return;
    }
    match value {
        Value::Empty => out.extend_from_slice(b"null"),
        Value::Str(t) => put_str(out, batch.str(*t)),
        Value::Bool(b) => out.extend_from_slice(if *b { b"true" } else { b"false" }),
        Value::Int(i) => put_int(out, *i),
        Value::Double(d) if d.is_finite() => out.extend_from_slice(format!("{d:?}").as_bytes()),
        Value::Double(d) => {
            out.extend_from_slice(format!("{{\"$double\":\"{:016x}\"}}", d.to_bits()).as_bytes())
        }
        Value::Bytes(t) => {
            out.extend_from_slice(b"{\"$bytes\":\"");
            put_hex(out, batch.arena.bytes(*t));
            out.extend_from_slice(b"\"}");
        }
        Value::List(r) => {
            out.push(b'[');
            for (i, v) in batch.list(*r).iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                put_value(out, batch, v, depth + 1);
            }
            out.push(b']');
        }
        Value::Map(r) => {
            let wrap = batch.attrs(*r).first().is_some_and(|a| batch.arena.bytes(a.key).starts_with(b"$"));
            if wrap {
                out.extend_from_slice(b"{\"$map\":");
            }
            put_attrs(out, batch, *r, depth + 1);
            if wrap {
                out.push(b'}');
            }
        }
    }
}

pub(crate) fn put_attrs(out: &mut Vec<u8>, batch: &Batch, range: Range32, depth: usize) {
    out.push(b'{');
    for (i, a) in batch.attrs(range).iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        put_str(out, batch.str(a.key));
        out.push(b':');
        put_value(out, batch, &a.value, depth);
    }
    out.push(b'}');
}

pub(crate) fn put_slot(out: &mut Vec<u8>, slot: Slot) {
    match slot {
        Slot::Column(t) => out.extend_from_slice(format!("{{\"$column\":\"{}\"}}", t.name()).as_bytes()),
        Slot::Long => out.extend_from_slice(b"{\"$long\":true}"),
        Slot::TraceHigh => out.extend_from_slice(b"{\"$trace_id\":\"high\"}"),
    }
}

pub(crate) fn put_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for b in bytes {
        out.push(DIGITS[usize::from(b >> 4)]);
        out.push(DIGITS[usize::from(b & 15)]);
    }
}

pub(crate) fn hex_digits(text: &[u8]) -> Decoded<Vec<u8>> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Ok(c - b'0'),
        b'a'..=b'f' => Ok(c - b'a' + 10),
        _ => Err(Malformed("a hexadecimal digit was expected")),
    };
    if !text.len().is_multiple_of(2) {
        return Err(Malformed("a hexadecimal text has an odd length"));
    }
    text.chunks_exact(2).map(|c| Ok(digit(c[0])? << 4 | digit(c[1])?)).collect()
}

/// What stands in place of a value.
enum Item {
    Value(Value),
    Slot(Slot),
}

/// Parser of the JSON above into the tables of a batch.
pub(crate) struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Parser<'a> {
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    fn peek(&self) -> Decoded<u8> {
        self.text.get(self.at).copied().ok_or(Malformed("JSON ends early"))
    }

    fn eat(&mut self, b: u8) -> Decoded<()> {
        if self.peek()? == b {
            self.at += 1;
            Ok(())
        } else {
            Err(Malformed("JSON has an unexpected character"))
        }
    }

    fn eat_if(&mut self, b: u8) -> bool {
        let there = self.text.get(self.at) == Some(&b);
        self.at += usize::from(there);
        there
    }

    fn literal(&mut self, word: &'static [u8]) -> Decoded<()> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            Ok(())
        } else {
            Err(Malformed("JSON has an unknown word"))
        }
    }

    /// Nothing follows.
    pub fn end(&self) -> Decoded<()> {
        if self.at == self.text.len() { Ok(()) } else { Err(Malformed("JSON goes on after its end")) }
    }

    fn string(&mut self) -> Decoded<std::borrow::Cow<'a, str>> {
        self.eat(b'"')?;
        let start = self.at;
        let rest = &self.text[start..];
        let stop =
            rest.iter().position(|b| matches!(b, b'"' | b'\\')).ok_or(Malformed("a text has no end"))?;
        let utf8 = |b: &'a [u8]| std::str::from_utf8(b).map_err(|_| Malformed("a text is not UTF-8"));
        if rest[stop] == b'"' {
            self.at = start + stop + 1;
            return Ok(utf8(&rest[..stop])?.into());
        }
        let mut out = String::new();
        loop {
            let rest = &self.text[self.at..];
            let stop =
                rest.iter().position(|b| matches!(b, b'"' | b'\\')).ok_or(Malformed("a text has no end"))?;
            out.push_str(utf8(&rest[..stop])?);
            self.at += stop + 1;
            if rest[stop] == b'"' {
                return Ok(out.into());
            }
            let escape = self.peek()?;
            self.at += 1;
            match escape {
                b'n' => out.push('\n'),
                b't' => out.push('\t'),
                b'r' => out.push('\r'),
                b'"' | b'\\' => out.push(char::from(escape)),
                b'u' => {
                    let digits =
                        self.text.get(self.at..self.at + 4).ok_or(Malformed("an escape ends early"))?;
                    self.at += 4;
                    let bytes = hex_digits(digits)?;
                    let code = u32::from(bytes[0]) << 8 | u32::from(bytes[1]);
                    out.push(char::from_u32(code).ok_or(Malformed("an escape is not a character"))?);
                }
                _ => return Err(Malformed("an escape is unknown")),
            }
        }
    }

    fn item(&mut self, batch: &mut Batch, depth: usize) -> Decoded<Item> {
        if depth > MAX_DEPTH {
            return Err(Malformed("values are nested too deeply"));
        }
        Ok(Item::Value(match self.peek()? {
            b'"' => {
                let text = self.string()?;
                Value::Str(batch.arena.push(&text))
            }
            b'n' => {
                self.literal(b"null")?;
                Value::Empty
            }
            b't' => {
                self.literal(b"true")?;
                Value::Bool(true)
            }
            b'f' => {
                self.literal(b"false")?;
                Value::Bool(false)
            }
            b'[' => {
                self.at += 1;
                let mut items = Vec::new();
                if !self.eat_if(b']') {
                    loop {
                        items.push(self.value(batch, depth + 1)?);
                        if !self.eat_if(b',') {
                            break;
                        }
                    }
                    self.eat(b']')?;
                }
                let start = batch.values.len();
                batch.values.extend(items);
                Value::List(Range32::new(start, batch.values.len()))
            }
            b'{' => {
                if self.text[self.at..].starts_with(b"{\"$") {
                    return self.special(batch, depth);
                }
                Value::Map(self.attrs(batch, depth + 1, None)?)
            }
            _ => self.number()?,
        }))
    }

    fn special(&mut self, batch: &mut Batch, depth: usize) -> Decoded<Item> {
        self.eat(b'{')?;
        let key = self.string()?;
        self.eat(b':')?;
        let item = match key.as_ref() {
            "$map" => {
                let range = self.attrs(batch, depth + 1, None)?;
                Item::Value(Value::Map(range))
            }
            "$bytes" => {
                let bytes = hex_digits(self.string()?.as_bytes())?;
                Item::Value(Value::Bytes(batch.arena.push_bytes(&bytes)))
            }
            "$double" => {
                let text = self.string()?;
                let bits = u64::from_str_radix(&text, 16).map_err(|_| Malformed("a number has bad bits"))?;
                Item::Value(Value::Double(f64::from_bits(bits)))
            }
            "$column" => {
                let text = self.string()?;
                Item::Slot(Slot::Column(
                    Type::from_name(text.as_bytes()).ok_or(Malformed("a column has an unknown type"))?,
                ))
            }
            "$long" => {
                self.literal(b"true")?;
                Item::Slot(Slot::Long)
            }
            "$trace_id" => {
                self.string()?;
                Item::Slot(Slot::TraceHigh)
            }
            _ => return Err(Malformed("a special value is unknown")),
        };
        self.eat(b'}')?;
        Ok(item)
    }

    fn number(&mut self) -> Decoded<Value> {
        let rest = &self.text[self.at..];
        let n = rest
            .iter()
            .position(|b| !matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
            .unwrap_or(rest.len());
        let text = std::str::from_utf8(&rest[..n]).map_err(|_| Malformed("a number is not a number"))?;
        self.at += n;
        let bad = |_| Malformed("a number is not a number");
        if text.bytes().any(|b| matches!(b, b'.' | b'e' | b'E')) {
            text.parse().map(Value::Double).map_err(|_| Malformed("a number is not a number"))
        } else {
            text.parse().map(Value::Int).map_err(bad)
        }
    }

    /// One value without slots.
    pub fn value(&mut self, batch: &mut Batch, depth: usize) -> Decoded<Value> {
        match self.item(batch, depth)? {
            Item::Value(v) => Ok(v),
            Item::Slot(_) => Err(Malformed("a slot stands where none may")),
        }
    }

    /// An object as attributes. With `slots`, positions (within the object)
    /// whose value lies elsewhere are reported there.
    pub fn attrs(
        &mut self,
        batch: &mut Batch,
        depth: usize,
        mut slots: Option<&mut Vec<(u32, Slot)>>,
    ) -> Decoded<Range32> {
        let mut items = Vec::new();
        self.eat(b'{')?;
        if !self.eat_if(b'}') {
            loop {
                let key = self.string()?;
                let key = batch.arena.push(&key);
                self.eat(b':')?;
                let value = match (self.item(batch, depth)?, slots.as_deref_mut()) {
                    (Item::Value(v), _) => v,
                    (Item::Slot(s), Some(slots)) => {
                        slots.push((items.len() as u32, s));
                        Value::Empty
                    }
                    (Item::Slot(_), None) => return Err(Malformed("a slot stands where none may")),
                };
                items.push(Attr { key, value });
                if !self.eat_if(b',') {
                    break;
                }
            }
            self.eat(b'}')?;
        }
        let start = batch.attrs.len();
        batch.attrs.extend(items);
        Ok(Range32::new(start, batch.attrs.len()))
    }

    /// A list of values.
    pub fn list(&mut self, batch: &mut Batch) -> Decoded<Vec<Value>> {
        match self.value(batch, 0)? {
            Value::List(r) => Ok(batch.list(r).to_vec()),
            _ => Err(Malformed("a list was expected")),
        }
    }
}
