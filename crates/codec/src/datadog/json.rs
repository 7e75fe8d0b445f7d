//! The JSON variant of v0.1–v0.4, by the rules of Go's `encoding/json`: keys
//! match in any case, unknown ones are ignored, null is "nothing said", the
//! first complete value counts and what follows is ignored.
//!
//! A first pass finds the end of the value and its syntax errors, because in
//! Go those come before any complaint about types. The second pass decodes.

use super::RequestMeta;
use super::builder::{Builder, Marks};
use super::v04::AnyParts;
use crate::DecodeError;
use crate::msgpack::{Error, Span as Pos};
use base64::Engine as _;
use spanloom_model::{Attr, Chunk, Event, Link, Protocol, Range32, SpanId, Text, TraceId, Value, key_hash};
use std::collections::HashMap;

/// Deepest nesting, as in Go.
const DEPTH: usize = 10_000;

type Result<T> = std::result::Result<T, DecodeError>;

pub(super) fn decode(b: &mut Builder, body: &[u8], meta: &RequestMeta<'_>) -> Result<()> {
    b.resource_from_headers(meta);
    let mut check = Reader { data: body, pos: 0 };
    check.value()?;
    let mut d = Decoder { r: Reader { data: &body[..check.pos], pos: 0 }, b };
    if d.b.batch.intake.protocol == Protocol::DatadogV01 { d.flat() } else { d.chunks() }
}

/// Walks over JSON text.
struct Reader<'a> {
    data: &'a [u8],
    pos: usize,
}

/// A string as it stands in the text: the bytes between its quotes.
#[derive(Clone, Copy)]
struct Raw {
    pos: Pos,
    escaped: bool,
}

impl<'a> Reader<'a> {
    fn peek(&mut self) -> Result<u8> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.data.get(self.pos) {
            self.pos += 1;
        }
        self.data.get(self.pos).copied().ok_or(DecodeError::UnexpectedEof)
    }

    /// Takes the next character if it is `c`.
    fn eat(&mut self, c: u8) -> Result<bool> {
        let is = self.peek()? == c;
        self.pos += usize::from(is);
        Ok(is)
    }

    #[cold]
    fn invalid<T>(&self, wanted: &str) -> Result<T> {
        let found = match self.data.get(self.pos) {
            Some(c) => char::from(*c),
            None => return Err(DecodeError::UnexpectedEof),
        };
        Err(DecodeError::text(format!("invalid character {found:?} {wanted}")))
    }

    /// Passes over one value, checking its syntax. Nesting takes a byte a
    /// level, not stack.
    fn value(&mut self) -> Result<()> {
        let mut open: Vec<u8> = Vec::new();
        loop {
            match self.peek()? {
                c @ (b'{' | b'[') => {
                    if open.len() >= DEPTH {
                        return Err(DecodeError::Limit("exceeded max depth".into()));
                    }
                    self.pos += 1;
                    let end = c + 2; // ASCII: the closing one
                    if !self.eat(end)? {
                        open.push(end);
                        if c == b'{' {
                            self.key()?;
                        }
                        continue;
                    }
                }
                b'"' => drop(self.string()?),
                b'-' | b'0'..=b'9' => drop(self.number()?),
                b't' => self.word(b"true")?,
                b'f' => self.word(b"false")?,
                b'n' => self.word(b"null")?,
                _ => return self.invalid("looking for beginning of value"),
            }
            // A value has ended: close what ends with it, or go to the next.
            loop {
                let Some(end) = open.last().copied() else { return Ok(()) };
                if self.eat(end)? {
                    open.pop();
                    continue;
                }
                if !self.eat(b',')? {
                    return self.invalid("after element");
                }
                if end == b'}' {
                    self.key()?;
                }
                break;
            }
        }
    }

    /// A key with its colon.
    fn key(&mut self) -> Result<Raw> {
        if self.peek()? != b'"' {
            return self.invalid("looking for beginning of object key string");
        }
        let key = self.string()?;
        if !self.eat(b':')? {
            return self.invalid("after object key");
        }
        Ok(key)
    }

    fn string(&mut self) -> Result<Raw> {
        self.pos += 1;
        let (start, mut escaped) = (self.pos, false);
        loop {
            match self.data.get(self.pos) {
                None => return Err(DecodeError::UnexpectedEof),
                Some(b'"') => {
                    let pos = Pos { start, len: self.pos - start };
                    self.pos += 1;
                    return Ok(Raw { pos, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.pos += 1;
                    match self.data.get(self.pos) {
                        None => return Err(DecodeError::UnexpectedEof),
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.pos += 1,
                        Some(b'u') => {
                            self.pos += 1;
                            for _ in 0..4 {
                                match self.data.get(self.pos) {
                                    Some(c) if c.is_ascii_hexdigit() => self.pos += 1,
                                    _ => return self.invalid("in \\u hexadecimal character escape"),
                                }
                            }
                        }
                        _ => return self.invalid("in string escape code"),
                    }
                }
                Some(0..0x20) => return self.invalid("in string literal"),
                Some(_) => self.pos += 1,
            }
        }
    }

    fn digits(&mut self) -> Result<()> {
        if !self.data.get(self.pos).is_some_and(u8::is_ascii_digit) {
            return self.invalid("in numeric literal");
        }
        while self.data.get(self.pos).is_some_and(u8::is_ascii_digit) {
            self.pos += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<&'a str> {
        let start = self.pos;
        self.pos += usize::from(self.data.get(self.pos) == Some(&b'-'));
        if self.data.get(self.pos) == Some(&b'0') {
            self.pos += 1;
        } else {
            self.digits()?;
        }
        if self.data.get(self.pos) == Some(&b'.') {
            self.pos += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.data.get(self.pos) {
            self.pos += 1;
            self.pos += usize::from(matches!(self.data.get(self.pos), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(std::str::from_utf8(&self.data[start..self.pos]).unwrap_or_default())
    }

    fn word(&mut self, word: &[u8]) -> Result<()> {
        for c in word {
            if self.data.get(self.pos) != Some(c) {
                return self.invalid("in literal");
            }
            self.pos += 1;
        }
        Ok(())
    }
}

struct Decoder<'a, 'b> {
    r: Reader<'a>,
    b: &'b mut Builder,
}

/// Takes the error of the builder, which has no place worth naming here.
fn bound(error: Error) -> DecodeError {
    DecodeError::Limit(error.to_string().into())
}

impl Decoder<'_, '_> {
    /// A value of another type than expected: named, as Go names it.
    #[cold]
    fn mismatch<T>(&mut self, field: &str, wanted: &str) -> Result<T> {
        let found = match self.r.peek()? {
            b'{' => "object",
            b'[' => "array",
            b'"' => "string",
            b't' | b'f' => "bool",
            _ => "number",
        };
        Err(DecodeError::text(format!(
            "json: cannot unmarshal {found} into Go struct field {field} of type {wanted}"
        )))
    }

    fn null(&mut self) -> Result<bool> {
        let is = self.r.peek()? == b'n';
        if is {
            self.r.word(b"null")?;
        }
        Ok(is)
    }

    /// Calls `each` for the elements of an array; null has none.
    fn array(&mut self, field: &str, mut each: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        if self.null()? {
            return Ok(());
        }
        if !self.r.eat(b'[')? {
            return self.mismatch(field, "array");
        }
        if self.r.eat(b']')? {
            return Ok(());
        }
        loop {
            each(self)?;
            if !self.r.eat(b',')? {
                self.r.eat(b']')?;
                return Ok(());
            }
        }
    }

    /// Calls `each` for the members of an object, standing at the value; null
    /// has none.
    fn object(&mut self, field: &str, mut each: impl FnMut(&mut Self, Raw) -> Result<()>) -> Result<()> {
        if self.null()? {
            return Ok(());
        }
        if !self.r.eat(b'{')? {
            return self.mismatch(field, "object");
        }
        if self.r.eat(b'}')? {
            return Ok(());
        }
        loop {
            let key = self.r.key()?;
            each(self, key)?;
            if !self.r.eat(b',')? {
                self.r.eat(b'}')?;
                return Ok(());
            }
        }
    }

    fn raw(&mut self, field: &str) -> Result<Raw> {
        if self.r.peek()? == b'"' { self.r.string() } else { self.mismatch(field, "string") }
    }

    fn text_of(&mut self, raw: Raw) -> Text {
        if !raw.escaped {
            // The body is the arena's, so the text needs no copy.
            return self.b.batch.arena.text_from_body(raw.pos.start, raw.pos.len);
        }
        let text = unescape(self.bytes(raw));
        self.b.batch.arena.push(&text)
    }

    fn bytes(&self, raw: Raw) -> &[u8] {
        self.r.data.get(raw.pos.start..raw.pos.start + raw.pos.len).unwrap_or_default()
    }

    /// The name of a field as one of `names`, in any case; `""` if none is it.
    fn field(&self, key: Raw, names: &[&'static str]) -> &'static str {
        let raw = self.bytes(key);
        let unescaped;
        let key = if key.escaped {
            unescaped = unescape(raw);
            unescaped.as_bytes()
        } else {
            raw
        };
        names.iter().find(|n| n.as_bytes().eq_ignore_ascii_case(key)).copied().unwrap_or("")
    }

    fn text(&mut self, to: &mut Text, field: &str) -> Result<()> {
        if !self.null()? {
            let raw = self.raw(field)?;
            *to = self.text_of(raw);
        }
        Ok(())
    }

    /// A number that its type can parse exactly; null leaves `to` alone.
    fn number<T: std::str::FromStr>(&mut self, to: &mut T, field: &str, wanted: &str) -> Result<()> {
        if self.null()? {
            return Ok(());
        }
        let at = self.r.pos;
        if let b'-' | b'0'..=b'9' = self.r.peek()? {
            let literal = self.r.number()?;
            if let Ok(v) = literal.parse() {
                *to = v;
                return Ok(());
            }
        }
        self.r.pos = at;
        self.mismatch(field, wanted)
    }

    fn float(&mut self, field: &str) -> Result<f64> {
        let mut v = 0.0f64;
        let at = self.r.pos;
        self.number(&mut v, field, "float64")?;
        if v.is_infinite() {
            self.r.pos = at;
            return self.mismatch(field, "float64");
        }
        Ok(v)
    }

    fn chunks(&mut self) -> Result<()> {
        let mut chunks = 0;
        self.array("[]Trace", |d| {
            d.b.chunk = chunks;
            chunks += 1;
            let (first, tids) = (d.b.batch.spans.len(), d.b.tids_seen());
            d.array("Trace", |d| d.span())?;
            d.b.close_chunk(first, tids, Chunk::default()).map_err(bound)
        })?;
        self.b.join_ids();
        Ok(())
    }

    /// v0.1: spans without chunks, grouped by trace here.
    fn flat(&mut self) -> Result<()> {
        self.array("[]Span", |d| d.span())?;
        // One chunk per lower half: the upper halves are known only afterwards.
        self.b.batch.chunk_by_trace(0, 0);
        self.b.charge(self.b.batch.chunks.len(), size_of::<Chunk>()).map_err(bound)?;
        self.b.join_ids();
        Ok(())
    }

    fn span(&mut self) -> Result<()> {
        if self.null()? {
            return Ok(());
        }
        const FIELDS: [&str; 15] = [
            "service",
            "name",
            "resource",
            "trace_id",
            "span_id",
            "parent_id",
            "start",
            "duration",
            "error",
            "meta",
            "metrics",
            "type",
            "meta_struct",
            "span_links",
            "span_events",
        ];
        let mut span = Builder::new_span();
        let (mut trace, mut marks) = (0u64, Marks::default());
        let (mut links, mut events) = (None, None);
        let mut kinds = [false; 3];
        let mut repeated = false;
        let start = self.b.batch.attrs.len();
        self.object("Trace", |d, key| {
            match d.field(key, &FIELDS) {
                "service" => d.text(&mut span.service, "Span.service")?,
                "name" => d.text(&mut span.name, "Span.name")?,
                "resource" => d.text(&mut span.resource, "Span.resource")?,
                "trace_id" => d.number(&mut trace, "Span.trace_id", "uint64")?,
                "span_id" => d.number(&mut span.span_id.0, "Span.span_id", "uint64")?,
                "parent_id" => d.number(&mut span.parent_id.0, "Span.parent_id", "uint64")?,
                "start" => d.number(&mut span.start, "Span.start", "int64")?,
                "duration" => d.number(&mut span.duration, "Span.duration", "int64")?,
                "error" => d.number(&mut span.error, "Span.error", "int32")?,
                "type" => d.text(&mut span.span_type, "Span.type")?,
                "meta" => {
                    repeated |= std::mem::replace(&mut kinds[0], true);
                    d.string_map("Span.meta", &mut marks)?;
                }
                "metrics" => {
                    repeated |= std::mem::replace(&mut kinds[1], true);
                    d.map("Span.metrics", |d| Ok(Value::Double(d.float("Span.metrics")?)))?;
                }
                "meta_struct" => {
                    repeated |= std::mem::replace(&mut kinds[2], true);
                    d.map("Span.meta_struct", |d| d.base64("Span.meta_struct"))?;
                }
                "span_links" => {
                    links = Some(d.r.pos);
                    d.r.value()?;
                }
                "span_events" => {
                    events = Some(d.r.pos);
                    d.r.value()?;
                }
                _ => d.r.value()?,
            }
            Ok(())
        })?;
        if repeated {
            self.merge_maps(start);
        }
        span.trace_id = TraceId(trace.into());
        span.attrs = Range32::new(start, self.b.batch.attrs.len());
        let end = self.r.pos;
        if let Some(pos) = links {
            self.r.pos = pos;
            let first = self.b.batch.links.len();
            self.array("Span.span_links", |d| d.link())?;
            span.links = Range32::new(first, self.b.batch.links.len());
        }
        if let Some(pos) = events {
            self.r.pos = pos;
            let first = self.b.batch.events.len();
            self.array("Span.span_events", |d| d.event())?;
            span.events = Range32::new(first, self.b.batch.events.len());
        }
        self.r.pos = end;
        self.b.push_span(span, marks).map_err(bound)
    }

    /// A map that came twice is merged, as Go does: the last value counts.
    #[cold]
    fn merge_maps(&mut self, start: usize) {
        let (arena, attrs) = (&self.b.batch.arena, &mut self.b.batch.attrs);
        let mut seen = HashMap::new();
        let mut kept = start;
        for i in start..attrs.len() {
            let attr: Attr = attrs[i];
            let key = (std::mem::discriminant(&attr.value), arena.bytes(attr.key));
            let at = *seen.entry(key).or_insert(kept);
            attrs[at] = attr;
            kept += usize::from(at == kept);
        }
        attrs.truncate(kept);
    }

    fn map(&mut self, field: &str, mut value: impl FnMut(&mut Self) -> Result<Value>) -> Result<Range32> {
        let mut set = self.b.open(0).map_err(bound)?;
        self.object(field, |d, key| {
            d.b.charge(1, size_of::<Attr>()).map_err(bound)?;
            let key = d.text_of(key);
            let hash = key_hash(d.b.batch.arena.bytes(key));
            let value = value(d)?;
            d.b.add(&mut set, key, hash, || value);
            Ok(())
        })?;
        Ok(self.b.close(set))
    }

    fn string_map(&mut self, field: &str, marks: &mut Marks) -> Result<Range32> {
        let range = self.map(field, |d| {
            let mut text = Text::EMPTY;
            d.text(&mut text, field)?;
            Ok(Value::Str(text))
        })?;
        let batch = &self.b.batch;
        for attr in batch.attrs(range) {
            marks.note(&batch.arena, attr.key, attr.value.as_text().unwrap_or_default());
        }
        Ok(range)
    }

    fn base64(&mut self, field: &str) -> Result<Value> {
        if self.null()? {
            return Ok(Value::Bytes(Text::EMPTY));
        }
        let raw = self.raw(field)?;
        // Go passes over line breaks, which stand here as escapes.
        let text = unescape(self.bytes(raw)).replace(['\r', '\n'], "");
        match base64::engine::general_purpose::STANDARD.decode(text) {
            Ok(bytes) => Ok(Value::Bytes(self.b.batch.arena.push_bytes(&bytes))),
            Err(e) => Err(DecodeError::text(format!("illegal base64 data in {field}: {e}"))),
        }
    }

    fn link(&mut self) -> Result<()> {
        const FIELDS: [&str; 6] =
            ["trace_id", "trace_id_high", "span_id", "attributes", "tracestate", "flags"];
        let mut link = Link::default();
        let (mut low, mut high, mut span) = (0u64, 0u64, 0u64);
        self.object("Span.span_links", |d, key| match d.field(key, &FIELDS) {
            "trace_id" => d.number(&mut low, "SpanLink.trace_id", "uint64"),
            "trace_id_high" => d.number(&mut high, "SpanLink.trace_id_high", "uint64"),
            "span_id" => d.number(&mut span, "SpanLink.span_id", "uint64"),
            "tracestate" => d.text(&mut link.trace_state, "SpanLink.tracestate"),
            "flags" => d.number(&mut link.flags, "SpanLink.flags", "uint32"),
            "attributes" => {
                link.attrs = d.string_map("SpanLink.attributes", &mut Marks::default())?;
                Ok(())
            }
            _ => d.r.value(),
        })?;
        link.trace_id = TraceId::from_halves(high, low);
        link.span_id = SpanId(span);
        self.b.push_link(link).map_err(bound)
    }

    fn event(&mut self) -> Result<()> {
        if self.null()? {
            return Ok(());
        }
        let mut event = Event::default();
        self.object("Span.span_events", |d, key| {
            match d.field(key, &["time_unix_nano", "name", "attributes"]) {
                "time_unix_nano" => d.time(&mut event.time),
                "name" => d.text(&mut event.name, "SpanEvent.name"),
                "attributes" => {
                    event.attrs = d.event_attrs()?;
                    Ok(())
                }
                _ => d.r.value(),
            }
        })?;
        self.b.push_event(event).map_err(bound)
    }

    /// A time; as in msgpack, a whole floating-point number is one too.
    fn time(&mut self, to: &mut u64) -> Result<()> {
        let at = self.r.pos;
        let field = "SpanEvent.time_unix_nano";
        let Err(refused) = self.number(to, field, "uint64") else { return Ok(()) };
        self.r.pos = at;
        let v = self.float(field)?;
        if v.fract() != 0.0 || !(0.0..18_446_744_073_709_551_616.0).contains(&v) {
            return Err(refused);
        }
        *to = v as u64;
        Ok(())
    }

    fn event_attrs(&mut self) -> Result<Range32> {
        let mut set = self.b.open(0).map_err(bound)?;
        self.object("SpanEvent.attributes", |d, key| {
            if d.null()? {
                return Ok(());
            }
            d.b.charge(1, size_of::<Attr>()).map_err(bound)?;
            if let Some(value) = d.any_value(true)? {
                let key = d.text_of(key);
                let hash = key_hash(d.b.batch.arena.bytes(key));
                d.b.add(&mut set, key, hash, || value);
            }
            Ok(())
        })?;
        Ok(self.b.close(set))
    }

    fn any_value(&mut self, lists: bool) -> Result<Option<Value>> {
        const FIELDS: [&str; 6] =
            ["type", "string_value", "bool_value", "int_value", "double_value", "array_value"];
        let mut parts = AnyParts::default();
        self.object("AttributeAnyValue", |d, key| {
            match d.field(key, &FIELDS) {
                "type" => {
                    let mut kind = 0i32;
                    d.number(&mut kind, "AttributeAnyValue.type", "int32")?;
                    parts.kind = kind.into();
                }
                "string_value" => {
                    let mut text = Text::EMPTY;
                    d.text(&mut text, "AttributeAnyValue.string_value")?;
                    parts.text = Some(Value::Str(text));
                }
                "bool_value" if !d.null()? => {
                    let is = d.r.peek()? == b't';
                    if !is && d.r.peek()? != b'f' {
                        return d.mismatch("AttributeAnyValue.bool_value", "bool");
                    }
                    d.r.value()?;
                    parts.bool = Some(Value::Bool(is));
                }
                "int_value" => {
                    let mut v = 0i64;
                    d.number(&mut v, "AttributeAnyValue.int_value", "int64")?;
                    parts.int = Some(Value::Int(v));
                }
                "double_value" => {
                    parts.double = Some(Value::Double(d.float("AttributeAnyValue.double_value")?))
                }
                "array_value" if lists && d.r.peek()? == b'{' => parts.list = Some(d.list()?),
                "bool_value" => {}
                _ => d.r.value()?,
            }
            Ok(())
        })?;
        Ok(parts.value())
    }

    fn list(&mut self) -> Result<Value> {
        let start = self.b.batch.values.len();
        self.object("AttributeArray", |d, key| match d.field(key, &["values"]) {
            "values" => {
                // The last one counts.
                d.b.batch.values.truncate(start);
                d.array("AttributeArray.values", |d| {
                    if d.null()? {
                        return Ok(());
                    }
                    d.b.charge(1, size_of::<Value>()).map_err(bound)?;
                    if let Some(value) = d.any_value(false)? {
                        d.b.batch.values.push(value);
                    }
                    Ok(())
                })
            }
            _ => d.r.value(),
        })?;
        Ok(Value::List(Range32::new(start, self.b.batch.values.len())))
    }
}

/// The text that a string literal stands for. What is not UTF-8, and halves of
/// surrogate pairs, become U+FFFD, one for one.
fn unescape(raw: &[u8]) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.iter().position(|c| *c == b'\\') {
        push_repaired(&mut out, &rest[..at]);
        let (c, used) = escape(&rest[at..]);
        out.push(c);
        rest = rest.get(at + used..).unwrap_or_default();
    }
    push_repaired(&mut out, rest);
    out
}

fn push_repaired(out: &mut String, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(std::iter::repeat_n('\u{fffd}', chunk.invalid().len()));
    }
}

/// The character of the escape at the front, and its length.
fn escape(raw: &[u8]) -> (char, usize) {
    let unit = |at: usize| {
        let digits = raw.get(at..at + 6).and_then(|e| e.strip_prefix(b"\\u"))?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    match raw.get(1) {
        Some(b'u') => {
            let Some(first) = unit(0) else { return ('\u{fffd}', raw.len()) };
            let pair = [first, unit(6).unwrap_or(0)];
            match char::decode_utf16(pair).next() {
                Some(Ok(c)) => (c, if c.len_utf16() == 2 { 12 } else { 6 }),
                _ => ('\u{fffd}', 6),
            }
        }
        Some(b'n') => ('\n', 2),
        Some(b't') => ('\t', 2),
        Some(b'r') => ('\r', 2),
        Some(b'b') => ('\u{8}', 2),
        Some(b'f') => ('\u{c}', 2),
        Some(c) => (char::from(*c), 2),
        None => ('\u{fffd}', 1),
    }
}
