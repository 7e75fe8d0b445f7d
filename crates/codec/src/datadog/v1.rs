//! v1.0: maps with integer keys, texts by reference to a table that grows
//! while the payload is read, typed attributes.

use super::RequestMeta;
use super::builder::{Builder, Marks};
use crate::msgpack::{Error, Reader, Result, Rule};
use spanloom_model::{
    Attr, Chunk, Event, Link, Range32, Resource, SpanId, SpanKind, Status, Text, TraceId, Value, key_hash,
    keys,
};
use std::collections::HashMap;

/// The texts seen so far. A text is added when it first appears and referred
/// to by its number afterwards.
struct Strings<'a> {
    texts: Vec<Text>,
    index: HashMap<&'a [u8], u32, foldhash::fast::RandomState>,
}

impl<'a> Strings<'a> {
    fn new() -> Self {
        let mut index = HashMap::default();
        index.insert(&b""[..], 0);
        Self { texts: vec![Text::EMPTY], index }
    }

    /// A literal: the text that is there already, or a new one.
    fn intern(&mut self, b: &mut Builder, r: &Reader<'a>, pos: crate::msgpack::Span) -> Result<Text> {
        let bytes = r.bytes(pos);
        if let Some(&i) = self.index.get(bytes) {
            return Ok(self.texts.get(i as usize).copied().unwrap_or_default());
        }
        self.add(b, r, pos)
    }

    fn add(&mut self, b: &mut Builder, r: &Reader<'a>, pos: crate::msgpack::Span) -> Result<Text> {
        // The entry of the index is the larger part.
        b.charge(1, size_of::<(&[u8], u32, Text)>())?;
        let text = b.text(r, pos);
        self.index.entry(r.bytes(pos)).or_insert(self.texts.len() as u32);
        self.texts.push(text);
        Ok(text)
    }

    /// A text or a reference to one.
    #[inline]
    fn read(&mut self, b: &mut Builder, r: &mut Reader<'a>) -> Result<Text> {
        match r.peek()? {
            0xa0..=0xbf | 0xd9..=0xdb => {
                let pos = r.str()?;
                self.intern(b, r, pos)
            }
            _ => {
                let i = r.uint()?;
                match usize::try_from(i).ok().and_then(|i| self.texts.get(i)) {
                    Some(text) => Ok(*text),
                    None => Err(Error::Unseen(i)),
                }
            }
        }
    }

    /// Passes over a value under an unknown key. Texts inside it still count
    /// in the table, or later references would be off.
    fn skip(&mut self, b: &mut Builder, r: &mut Reader<'a>) -> Result<()> {
        let texts = r.clone();
        let mut result = Ok(());
        r.skip_with(|pos| {
            if result.is_ok() {
                result = self.intern(b, &texts, pos).map(drop);
            }
        })?;
        result
    }
}

struct Decoder<'a, 'b> {
    b: &'b mut Builder,
    r: Reader<'a>,
    strings: Strings<'a>,
}

pub(super) fn decode(b: &mut Builder, body: &[u8], meta: &RequestMeta<'_>) -> Result<()> {
    let mut d = Decoder { b, r: Reader::new(body), strings: Strings::new() };
    let mut resource = d.payload()?;
    if resource.container_id.is_empty() {
        resource.container_id = d.b.batch.arena.push(meta.container_id);
    }
    d.b.batch.resources.push(resource);
    Ok(())
}

impl Decoder<'_, '_> {
    fn text(&mut self) -> Result<Text> {
        self.strings.read(self.b, &mut self.r)
    }

    fn skip(&mut self) -> Result<()> {
        self.strings.skip(self.b, &mut self.r)
    }

    fn array(&mut self) -> Result<usize> {
        let max = self.b.limits.elements as usize;
        self.r.array(max)
    }

    fn map(&mut self) -> Result<usize> {
        let max = self.b.limits.elements as usize;
        self.r.map(max)
    }

    fn payload(&mut self) -> Result<Resource> {
        let mut resource = Resource::default();
        for _ in 0..self.map()? {
            match self.r.uint()? {
                1 => self.string_table()?,
                2 => resource.container_id = self.text()?,
                3 => resource.language_name = self.text()?,
                4 => resource.language_version = self.text()?,
                5 => resource.tracer_version = self.text()?,
                6 => resource.runtime_id = self.text()?,
                7 => resource.env = self.text()?,
                8 => resource.hostname = self.text()?,
                9 => resource.app_version = self.text()?,
                10 => resource.attrs = self.attrs(0)?,
                11 => {
                    for i in 0..self.array()? {
                        self.b.chunk = i;
                        self.chunk()?;
                    }
                }
                _ => self.skip()?,
            }
        }
        Ok(resource)
    }

    /// The deprecated table at the front of a payload.
    fn string_table(&mut self) -> Result<()> {
        if self.strings.texts.len() > 1 {
            return Err(Error::Rule(Rule::StringTable));
        }
        for _ in 0..self.array()? {
            let pos = self.r.str()?;
            if pos.len > 0 {
                self.strings.add(self.b, &self.r, pos)?;
            }
        }
        Ok(())
    }

    fn chunk(&mut self) -> Result<()> {
        let mut chunk = Chunk { priority: 0, ..Chunk::default() };
        let first = self.b.batch.spans.len();
        for _ in 0..self.map()? {
            match self.r.uint()? {
                1 => chunk.priority = self.r.int32()?,
                2 => chunk.origin = self.text()?,
                3 => chunk.attrs = self.attrs(0)?,
                4 => {
                    let n = self.array()?;
                    self.b.batch.spans.reserve(n.min(self.r.left() / 32 + 1));
                    for j in 0..n {
                        self.b.span = j;
                        self.span()?;
                    }
                }
                5 => chunk.dropped = self.r.bool()?,
                6 => chunk.trace_id = self.trace_id()?,
                7 => chunk.sampling_mechanism = self.r.uint32()?,
                _ => self.skip()?,
            }
        }
        chunk.spans = Range32::new(first, self.b.batch.spans.len());
        for span in &mut self.b.batch.spans[first..] {
            span.trace_id = chunk.trace_id;
        }
        self.b.charge(1, size_of::<Chunk>())?;
        self.b.batch.chunks.push(chunk);
        Ok(())
    }

    fn trace_id(&mut self) -> Result<TraceId> {
        let pos = self.r.bin()?;
        Ok(TraceId::from_be_slice(self.r.bytes(pos)))
    }

    /// Nanoseconds; what a signed number cannot hold is as good as its largest.
    fn nanos(&mut self) -> Result<i64> {
        Ok(i64::try_from(self.r.uint()?).unwrap_or(i64::MAX))
    }

    fn span(&mut self) -> Result<()> {
        let mut span = Builder::new_span();
        let (mut env, mut version, mut component) = (Text::EMPTY, Text::EMPTY, Text::EMPTY);
        let mut error = false;
        for _ in 0..self.map()? {
            match self.r.uint()? {
                1 => span.service = self.text()?,
                2 => span.name = self.text()?,
                3 => span.resource = self.text()?,
                4 => span.span_id = SpanId(self.r.uint()?),
                5 => span.parent_id = SpanId(self.r.uint()?),
                6 => span.start = self.nanos()?,
                7 => span.duration = self.nanos()?,
                8 => error = self.r.bool()?,
                9 => span.attrs = self.attrs(0)?,
                10 => span.span_type = self.text()?,
                11 => span.links = self.links()?,
                12 => span.events = self.events()?,
                13 => env = self.text()?,
                14 => version = self.text()?,
                15 => component = self.text()?,
                16 => span.kind = SpanKind::from_number(self.r.uint32()?),
                _ => self.skip()?,
            }
        }
        if error {
            (span.error, span.status) = (1, Status::Error);
        }
        // Texts that are fields here and tags in every other version become
        // attributes, so that the rest of the program has one place to look.
        for (key, value) in [(keys::ENV, env), (keys::VERSION, version), (keys::COMPONENT, component)] {
            if !value.is_empty() {
                span.attrs = self.set(span.attrs, key, value)?;
            }
        }
        if span.kind != SpanKind::Unspecified {
            let name = self.b.batch.arena.push_static(span.kind.name());
            span.attrs = self.set(span.attrs, keys::SPAN_KIND, name)?;
        } else if let Some(kind) = self.b.batch.get_str(span.attrs, keys::SPAN_KIND) {
            let mut marks = Marks::default();
            marks.note_slow(keys::SPAN_KIND.as_bytes(), kind.as_bytes());
            span.kind = marks.kind;
        }
        self.b.charge(1, size_of_val(&span))?;
        self.b.batch.spans.push(span);
        Ok(())
    }

    /// Sets a text attribute in a range, in place of a text under the same key.
    fn set(&mut self, range: Range32, key: &'static str, value: Text) -> Result<Range32> {
        self.b.charge(1, size_of::<Attr>())?;
        let batch = &mut self.b.batch;
        let arena = &batch.arena;
        let there = batch.attrs[range.usize()]
            .iter_mut()
            .find(|a| arena.bytes(a.key) == key.as_bytes() && matches!(a.value, Value::Str(_)));
        if let Some(attr) = there {
            attr.value = Value::Str(value);
            return Ok(range);
        }
        let key = batch.arena.push_static(key);
        if range.end as usize != batch.attrs.len() {
            self.b.charge(range.len(), size_of::<Attr>())?;
        }
        Ok(self.b.batch.extend_range(range, Attr { key, value: Value::Str(value) }))
    }

    fn links(&mut self) -> Result<Range32> {
        let start = self.b.batch.links.len();
        for _ in 0..self.array()? {
            let mut link = Link::default();
            for _ in 0..self.map()? {
                match self.r.uint()? {
                    1 => link.trace_id = self.trace_id()?,
                    2 => link.span_id = SpanId(self.r.uint()?),
                    3 => link.attrs = self.attrs(0)?,
                    4 => link.trace_state = self.text()?,
                    5 => link.flags = self.r.uint32()?,
                    _ => self.skip()?,
                }
            }
            self.b.push_link(link)?;
        }
        Ok(Range32::new(start, self.b.batch.links.len()))
    }

    fn events(&mut self) -> Result<Range32> {
        let start = self.b.batch.events.len();
        for _ in 0..self.array()? {
            let mut event = Event::default();
            for _ in 0..self.map()? {
                match self.r.uint()? {
                    1 => event.time = self.r.uint()?,
                    2 => event.name = self.text()?,
                    3 => event.attrs = self.attrs(0)?,
                    _ => self.skip()?,
                }
            }
            self.b.push_event(event)?;
        }
        Ok(Range32::new(start, self.b.batch.events.len()))
    }

    /// A flat list of key, type, value.
    fn attrs(&mut self, depth: u32) -> Result<Range32> {
        let elements = self.array()?;
        if !elements.is_multiple_of(3) {
            return Err(Error::Rule(Rule::AttributeList));
        }
        let n = elements / 3;
        if n == 0 {
            // At the end of the table it would lie outside when the list around
            // it loses a key.
            return Ok(Range32::default());
        }
        self.b.charge(n, size_of::<Attr>())?;
        // Room for all first: nested lists then lie behind this one, and an
        // owner's attributes stay in one piece.
        let start = self.b.batch.attrs.len();
        self.b.batch.attrs.resize(start + n, Attr { key: Text::EMPTY, value: Value::Empty });
        for i in start..start + n {
            let key = self.text()?;
            let value = self.value(depth)?;
            self.b.batch.attrs[i] = Attr { key, value };
        }
        let kept = self.one_per_key(start, n);
        if self.b.batch.attrs.len() == start + n {
            self.b.batch.attrs.truncate(start + kept);
        }
        Ok(Range32::new(start, start + kept))
    }

    /// The last value under a key counts. Returns how many attributes remain.
    fn one_per_key(&mut self, start: usize, n: usize) -> usize {
        let (arena, attrs) = (&self.b.batch.arena, &mut self.b.batch.attrs[start..start + n]);
        // Texts of the table are the same handle, so keys differ as handles do,
        // save for repaired ones: the bits of a hash tell whether to look closer.
        let mut bits = [0u64; 4];
        let mut twice = false;
        for attr in attrs.iter() {
            let h = key_hash(arena.bytes(attr.key));
            let (word, bit) = (usize::from(h >> 6), 1u64 << (h & 63));
            twice |= bits[word] & bit != 0;
            bits[word] |= bit;
        }
        if twice { super::builder::dedup(arena, attrs) } else { n }
    }

    fn value(&mut self, depth: u32) -> Result<Value> {
        if depth >= self.b.limits.depth {
            return Err(Error::TooDeep);
        }
        Ok(match self.r.uint()? {
            1 => Value::Str(self.text()?),
            2 => Value::Bool(self.r.bool()?),
            3 => Value::Double(self.r.float()?),
            4 => Value::Int(self.r.int()?),
            5 => {
                let pos = self.r.bin()?;
                Value::Bytes(self.b.raw(pos))
            }
            6 => self.list(depth + 1)?,
            7 => Value::Map(self.attrs(depth + 1)?),
            other => return Err(Error::AnyValue(other)),
        })
    }

    /// A flat list of type, value.
    fn list(&mut self, depth: u32) -> Result<Value> {
        let elements = self.array()?;
        if !elements.is_multiple_of(2) {
            return Err(Error::Rule(Rule::ArrayValue));
        }
        let n = elements / 2;
        self.b.charge(n, size_of::<Value>())?;
        let start = self.b.batch.values.len();
        self.b.batch.values.resize(start + n, Value::Empty);
        for i in start..start + n {
            self.b.batch.values[i] = self.value(depth)?;
        }
        Ok(Value::List(Range32::new(start, start + n)))
    }
}
