//! Record → batch, whole or in part.

use super::encode::ChunkHead;
use super::{MAX_DEPTH, RecordError, VERSION, bit, chunk_bit, tag};
use crate::varint::{Reader, ShortRead};
use bytes::Bytes;
use spanloom_model::{
    Arena, Attr, Batch, Chunk, ClientFlags, Event, Intake, Link, NO_SCOPE, PRIORITY_NONE, Protocol, Range32,
    Resource, Scope, Span, SpanId, SpanKind, Status, Text, TraceId, Transport, Value,
};

/// The whole batch. Its texts are slices of the record; nothing is copied.
pub fn decode(record: Bytes) -> Result<Batch, RecordError> {
    View::parse(record)?.batch(|_, _| true, true)
}

/// A record whose tables have been located but not read.
#[derive(Clone, Debug)]
pub struct View {
    record: Bytes,
    intake: Intake,
    /// Offsets of the sections in the record.
    sections: [Range32; 10],
}

/// Sections in order.
mod part {
    pub const TEXTS: usize = 0;
    pub const BLOBS: usize = 1;
    pub const OPS: usize = 2;
    pub const SHAPES: usize = 3;
    pub const RESOURCES: usize = 4;
    pub const SCOPES: usize = 5;
    pub const CHUNKS: usize = 6;
    pub const SPANS: usize = 7;
    pub const ATTRS: usize = 8;
    pub const EXTRAS: usize = 9;
}

/// One operation of a record: what spans have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpHead<'a> {
    /// Service.
    pub service: &'a str,
    /// Name.
    pub name: &'a str,
    /// Datadog resource.
    pub resource: &'a str,
    /// Role.
    pub kind: SpanKind,
}

struct FullHead<'a> {
    head: ChunkHead,
    resource: u32,
    /// Bytes of the chunk's spans, attributes and extras.
    lens: [usize; 3],
    dropped: bool,
    more: Option<Reader<'a>>,
}

impl View {
    /// Locates the tables of a record.
    pub fn parse(record: Bytes) -> Result<Self, RecordError> {
        let mut r = Reader::new(&record);
        match r.u8()? {
            0 => return Err(RecordError::Damaged("version 0")),
            v if v > VERSION => return Err(RecordError::Newer(v)),
            _ => {}
        }
        let protocol = Protocol::ALL.get(r.u8()? as usize).ok_or(RecordError::Damaged("unknown protocol"))?;
        let transport = match r.u8()? {
            0 => Transport::Tcp,
            1 => Transport::Unix,
            2 => Transport::Udp,
            _ => return Err(RecordError::Damaged("unknown transport")),
        };
        let bits = r.u8()?;
        let client = ClientFlags {
            computed_top_level: bits & 1 != 0,
            computed_stats: bits & 2 != 0,
            dropped_p0_traces: r.u64()?,
            dropped_p0_spans: r.u64()?,
        };
        let received_at = r.i64()?;
        let intake = Intake { protocol: *protocol, transport, client, received_at, ..Intake::default() };
        let mut sections = [Range32::default(); 10];
        for section in &mut sections {
            let len = r.count(1)?;
            let start = r.position();
            r.take(len)?;
            *section = Range32::new(start, start + len);
        }
        Ok(Self { record, intake, sections })
    }

    /// The request that brought the spans.
    pub fn intake(&self) -> Intake {
        self.intake
    }

    /// All text of the record in one piece: a text that is not a part of this
    /// occurs in no span.
    pub fn text_bytes(&self) -> &[u8] {
        self.section(part::TEXTS)
    }

    fn section(&self, n: usize) -> &[u8] {
        self.record.get(self.sections[n].usize()).unwrap_or_default()
    }

    fn slices(&self, n: usize) -> Result<Vec<Text>, RecordError> {
        slices(self.section(n), self.sections[n].start as usize, &Arena::new(self.record.clone()))
    }

    fn texts(&self) -> Result<Vec<Text>, RecordError> {
        let texts = self.slices(part::TEXTS)?;
        // One check of all bytes, then of the borders, is much cheaper than
        // one check a text. The first text is the empty one.
        let total: usize = texts.iter().map(|t| t.len()).sum();
        let section = self.section(part::TEXTS);
        let blob = section.get(section.len() - total..).unwrap_or_default();
        let mut at = 0;
        let borders = texts.iter().all(|t| {
            at += t.len();
            blob.get(at).is_none_or(|b| b & 0xc0 != 0x80)
        });
        if !borders || simdutf8::basic::from_utf8(blob).is_err() {
            return Err(RecordError::Damaged("a text is not UTF-8"));
        }
        Ok(texts)
    }

    /// Calls `each` for every operation of the record, in order.
    pub fn ops(&self, mut each: impl FnMut(OpHead<'_>)) -> Result<(), RecordError> {
        let texts = self.texts()?;
        let arena = Arena::new(self.record.clone());
        for op in self.read_ops(&texts, u32::MAX)? {
            each(OpHead {
                service: arena.str(op.service),
                name: arena.str(op.name),
                resource: arena.str(op.resource),
                kind: op.kind,
            });
        }
        Ok(())
    }

    /// Calls `each` for every chunk, in order.
    pub fn chunks(&self, mut each: impl FnMut(ChunkHead)) -> Result<(), RecordError> {
        let mut r = Reader::new(self.section(part::CHUNKS));
        for _ in 0..r.count(CHUNK_LEAST)? {
            each(chunk_head(&mut r, self.intake.received_at)?.head);
        }
        Ok(())
    }

    /// The batch of the chunks that `select` wants (it gets their position and
    /// head); without attributes, links and events if `whole` is false.
    pub fn batch(
        &self,
        mut select: impl FnMut(usize, &ChunkHead) -> bool,
        whole: bool,
    ) -> Result<Batch, RecordError> {
        let mut d = Decoder {
            batch: Batch::new(Arena::new(self.record.clone()), self.intake),
            texts: self.texts()?,
            blobs: self.slices(part::BLOBS)?,
            shapes: Shapes::read(self.section(part::SHAPES))?,
            budget: self.record.len(),
        };
        d.resources(Reader::new(self.section(part::RESOURCES)))?;
        d.scopes(Reader::new(self.section(part::SCOPES)))?;
        let ops = self.read_ops(&d.texts, d.batch.scopes.len() as u32)?;
        let mut heads = Reader::new(self.section(part::CHUNKS));
        let mut sections = [part::SPANS, part::ATTRS, part::EXTRAS].map(|n| Reader::new(self.section(n)));
        for i in 0..heads.count(CHUNK_LEAST)? {
            let full = chunk_head(&mut heads, self.intake.received_at)?;
            let mut parts = [Reader::new(&[]); 3];
            for (n, section) in sections.iter_mut().enumerate() {
                parts[n] = Reader::new(section.take(full.lens[n])?);
            }
            if select(i, &full.head) {
                d.chunk(full, &ops, parts, whole)?;
            }
        }
        Ok(d.batch)
    }

    fn read_ops(&self, texts: &[Text], scopes: u32) -> Result<Vec<Op>, RecordError> {
        let mut r = Reader::new(self.section(part::OPS));
        let count = r.count(6)?;
        let mut ops = Vec::with_capacity(count);
        for _ in 0..count {
            let mut text = || text_at(texts, r.u32()?);
            let (service, name, resource, span_type) = (text()?, text()?, text()?, text()?);
            let kind = SpanKind::from_number(r.u32()?);
            let scope = match r.u32()? {
                0 => NO_SCOPE,
                n if n - 1 < scopes => n - 1,
                _ => return Err(RecordError::Damaged("a span's scope is not there")),
            };
            ops.push(Op { service, name, resource, span_type, kind, scope });
        }
        Ok(ops)
    }
}

/// Least bytes of a chunk's head: two halves of an id and six small numbers.
const CHUNK_LEAST: usize = 22;
/// Least bytes of a span's row.
const SPAN_LEAST: usize = 12;

fn chunk_head<'a>(r: &mut Reader<'a>, base: i64) -> Result<FullHead<'a>, RecordError> {
    let trace_id = TraceId::from_halves(r.fixed64()?, r.fixed64()?);
    let resource = r.u32()?;
    let spans = r.u32()?;
    let mut lens = [0; 3];
    for len in &mut lens {
        *len = r.u32()? as usize;
    }
    let bits = r.u8()?;
    let (mut min_start, mut max_start) = (i64::MAX, i64::MIN);
    if bits & chunk_bit::STARTED != 0 {
        min_start = base.wrapping_add(r.i64()?);
        max_start = min_start.wrapping_add(r.u64()? as i64);
    }
    let more = if bits & chunk_bit::EXTRA != 0 { Some(r.section()?) } else { None };
    if (spans as usize).saturating_mul(SPAN_LEAST) > lens[0] {
        return Err(ShortRead.into());
    }
    let startless = bits & chunk_bit::STARTLESS != 0;
    let head = ChunkHead { trace_id, spans, min_start, max_start, startless };
    Ok(FullHead { head, resource, lens, dropped: bits & chunk_bit::DROPPED != 0, more })
}

fn text_at(texts: &[Text], n: u32) -> Result<Text, RecordError> {
    texts.get(n as usize).copied().ok_or(RecordError::Damaged("a text is not there"))
}

/// A counted list of byte strings as texts; number 0 is the empty one.
fn slices(section: &[u8], base: usize, arena: &Arena) -> Result<Vec<Text>, RecordError> {
    let mut r = Reader::new(section);
    let count = r.count(1)?;
    let mut lens = r;
    let mut total = 0usize;
    for _ in 0..count {
        total = total.checked_add(r.u32()? as usize).ok_or(ShortRead)?;
    }
    if r.left() != total {
        return Err(RecordError::Damaged("a table of texts has another length than its texts"));
    }
    let mut at = base + r.position();
    let mut texts = Vec::with_capacity(count + 1);
    texts.push(Text::EMPTY);
    for _ in 0..count {
        let len = lens.u32()? as usize;
        texts.push(arena.body_slice(at, len));
        at += len;
    }
    Ok(texts)
}

#[derive(Clone, Copy)]
struct Op {
    service: Text,
    name: Text,
    resource: Text,
    span_type: Text,
    kind: SpanKind,
    scope: u32,
}

/// Attribute shapes: keys and types.
struct Shapes {
    items: Vec<u32>,
    ranges: Vec<Range32>,
}

impl Shapes {
    fn read(section: &[u8]) -> Result<Self, RecordError> {
        let mut r = Reader::new(section);
        let count = r.count(1)?;
        let mut shapes = Self { items: Vec::with_capacity(r.left()), ranges: Vec::with_capacity(count) };
        for _ in 0..count {
            let start = shapes.items.len();
            for _ in 0..r.count(1)? {
                shapes.items.push(r.u32()?);
            }
            shapes.ranges.push(Range32::new(start, shapes.items.len()));
        }
        Ok(shapes)
    }

    fn get(&self, n: u32) -> Result<Range32, RecordError> {
        self.ranges.get(n as usize).copied().ok_or(RecordError::Damaged("a shape is not there"))
    }
}

struct Decoder {
    batch: Batch,
    texts: Vec<Text>,
    blobs: Vec<Text>,
    shapes: Shapes,
    /// Attributes and list elements that may still be made: each takes a byte
    /// of the record, so more than its bytes cannot be honest.
    budget: usize,
}

impl Decoder {
    fn spend(&mut self, count: usize) -> Result<(), RecordError> {
        self.budget = self.budget.checked_sub(count).ok_or(ShortRead)?;
        Ok(())
    }

    fn text(&self, r: &mut Reader<'_>) -> Result<Text, RecordError> {
        text_at(&self.texts, r.u32()?)
    }

    fn resources(&mut self, mut r: Reader<'_>) -> Result<(), RecordError> {
        for _ in 0..r.count(11)? {
            let resource = Resource {
                container_id: self.text(&mut r)?,
                language_name: self.text(&mut r)?,
                language_version: self.text(&mut r)?,
                tracer_version: self.text(&mut r)?,
                runtime_id: self.text(&mut r)?,
                env: self.text(&mut r)?,
                hostname: self.text(&mut r)?,
                app_version: self.text(&mut r)?,
                schema_url: self.text(&mut r)?,
                dropped: r.u32()?,
                attrs: self.attrs(&mut r, 0)?,
            };
            self.batch.resources.push(resource);
        }
        Ok(())
    }

    fn scopes(&mut self, mut r: Reader<'_>) -> Result<(), RecordError> {
        for _ in 0..r.count(5)? {
            let scope = Scope {
                name: self.text(&mut r)?,
                version: self.text(&mut r)?,
                schema_url: self.text(&mut r)?,
                dropped: r.u32()?,
                attrs: self.attrs(&mut r, 0)?,
            };
            self.batch.scopes.push(scope);
        }
        Ok(())
    }

    fn chunk(
        &mut self,
        full: FullHead<'_>,
        ops: &[Op],
        parts: [Reader<'_>; 3],
        whole: bool,
    ) -> Result<(), RecordError> {
        if full.resource as usize >= self.batch.resources.len() {
            return Err(RecordError::Damaged("a chunk's resource is not there"));
        }
        let mut chunk = Chunk {
            resource: full.resource,
            trace_id: full.head.trace_id,
            dropped: full.dropped,
            priority: PRIORITY_NONE,
            ..Chunk::default()
        };
        if let Some(mut more) = full.more {
            chunk.priority =
                i32::try_from(more.i64()?).map_err(|_| RecordError::Damaged("a priority does not fit"))?;
            chunk.origin = self.text(&mut more)?;
            chunk.sampling_mechanism = more.u32()?;
            chunk.attrs = self.attrs(&mut more, 0)?;
        }
        let first = self.batch.spans.len();
        self.spans(full.head, first, ops, parts, whole)?;
        chunk.spans = Range32::new(first, self.batch.spans.len());
        self.batch.chunks.push(chunk);
        Ok(())
    }

    fn spans(
        &mut self,
        head: ChunkHead,
        first: usize,
        ops: &[Op],
        [mut rows, mut attrs, mut extras]: [Reader<'_>; 3],
        whole: bool,
    ) -> Result<(), RecordError> {
        self.batch.spans.reserve(head.spans as usize);
        let mut last_start = self.batch.intake.received_at;
        for _ in 0..head.spans {
            let op =
                ops.get(rows.u32()? as usize).ok_or(RecordError::Damaged("an operation is not there"))?;
            let bits = rows.u8()?;
            let span_id = SpanId(rows.fixed64()?);
            let parent_id = if bits & bit::PARENT_NEAR != 0 {
                let back = rows.u32()? as usize;
                let at = self.batch.spans.len().checked_sub(1 + back).filter(|at| *at >= first);
                at.map(|at| self.batch.spans[at].span_id)
                    .ok_or(RecordError::Damaged("a parent is not there"))?
            } else if bits & bit::PARENT_FAR != 0 {
                SpanId(rows.fixed64()?)
            } else {
                SpanId(0)
            };
            let start = last_start.wrapping_add(rows.i64()?);
            last_start = start;
            let mut span = Span {
                trace_id: head.trace_id,
                span_id,
                parent_id,
                start,
                duration: rows.i64()?,
                service: op.service,
                name: op.name,
                resource: op.resource,
                span_type: op.span_type,
                kind: op.kind,
                scope: op.scope,
                status: Status::from_number(u32::from(bits & bit::STATUS)),
                error: i32::from(bits & bit::ERROR != 0),
                ..Span::default()
            };
            if whole {
                span.attrs = self.attrs(&mut attrs, 0)?;
            }
            if bits & bit::EXTRA != 0 {
                self.extras(&mut span, &mut extras)?;
            }
            self.batch.spans.push(span);
        }
        Ok(())
    }

    fn extras(&mut self, span: &mut Span, r: &mut Reader<'_>) -> Result<(), RecordError> {
        span.flags = r.u64()?;
        span.error =
            i32::try_from(r.i64()?).map_err(|_| RecordError::Damaged("an error code does not fit"))?;
        span.trace_state = self.text(r)?;
        span.status_message = self.text(r)?;
        for n in &mut span.dropped {
            *n = r.u32()?;
        }
        let start = self.batch.links.len();
        for _ in 0..r.count(28)? {
            let link = Link {
                trace_id: TraceId::from_halves(r.fixed64()?, r.fixed64()?),
                span_id: SpanId(r.fixed64()?),
                trace_state: self.text(r)?,
                flags: r.u32()?,
                dropped: r.u32()?,
                attrs: self.attrs(r, 0)?,
            };
            self.batch.links.push(link);
        }
        span.links = Range32::new(start, self.batch.links.len());
        let start = self.batch.events.len();
        for _ in 0..r.count(4)? {
            let event = Event {
                time: span.start.wrapping_add(r.i64()?) as u64,
                name: self.text(r)?,
                dropped: r.u32()?,
                attrs: self.attrs(r, 0)?,
            };
            self.batch.events.push(event);
        }
        span.events = Range32::new(start, self.batch.events.len());
        Ok(())
    }

    /// A shape and its values. Nested maps land behind the owner's range,
    /// which is filled with empty values first.
    fn attrs(&mut self, r: &mut Reader<'_>, depth: usize) -> Result<Range32, RecordError> {
        let shape = self.shapes.get(r.u32()?)?;
        if shape.is_empty() {
            return Ok(Range32::default());
        }
        self.spend(shape.len())?;
        let start = self.batch.attrs.len();
        for i in shape.usize() {
            let key = text_at(&self.texts, self.shapes.items[i] >> 4)?;
            self.batch.attrs.push(Attr { key, value: Value::Empty });
        }
        for (n, i) in shape.usize().enumerate() {
            let value = self.value(r, self.shapes.items[i] & 15, depth)?;
            self.batch.attrs[start + n].value = value;
        }
        Ok(Range32::new(start, start + shape.len()))
    }

    fn value(&mut self, r: &mut Reader<'_>, tag: u32, depth: usize) -> Result<Value, RecordError> {
        Ok(match tag {
            tag::EMPTY => {
                r.u8()?;
                Value::Empty
            }
            tag::STR => Value::Str(self.text(r)?),
            tag::BOOL => Value::Bool(r.u8()? != 0),
            tag::INT => Value::Int(r.i64()?),
            tag::DOUBLE => Value::Double(f64::from_bits(r.fixed64()?)),
            tag::WHOLE => Value::Double(r.i64()? as f64),
            tag::BYTES => {
                let n = r.u32()?.checked_add(1).ok_or(ShortRead)?;
                Value::Bytes(text_at(&self.blobs, n)?)
            }
            tag::LIST | tag::MAP if depth >= MAX_DEPTH => return Err(RecordError::Damaged("too deep")),
            tag::LIST => {
                let count = r.count(2)?;
                self.spend(count)?;
                let start = self.batch.values.len();
                self.batch.values.resize(start + count, Value::Empty);
                for n in 0..count {
                    let tag = u32::from(r.u8()?);
                    let value = self.value(r, tag, depth + 1)?;
                    self.batch.values[start + n] = value;
                }
                Value::List(Range32::new(start, start + count))
            }
            tag::MAP => Value::Map(self.attrs(r, depth + 1)?),
            _ => return Err(RecordError::Damaged("unknown type of value")),
        })
    }
}
