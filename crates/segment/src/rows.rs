//! Rows back to spans.

use crate::error::{Decoded, Malformed, SegmentError};
use crate::format;
use crate::json::{Parser, Slot, Type};
use crate::page::{NO_CODE, Page};
use crate::schema::{self as s};
use crate::segment::{Rows, Segment};
use spanloom_model::{
    Attr, Batch, Chunk, Event, Link, NO_SCOPE, Protocol, Range32, Resource, Scope, Span, SpanId, SpanKind,
    Status, Text, TraceId, Value,
};
use std::collections::HashMap;
use std::sync::Arc;

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// The object under a key of an object.
pub(crate) fn member(batch: &Batch, range: Range32, key: &str) -> Range32 {
    match batch.get(range, key) {
        Some(Value::Map(r)) => r,
        _ => Range32::default(),
    }
}

/// A scalar as users type it.
pub(crate) fn print(batch: &Batch, value: Value) -> Option<String> {
    match value {
        Value::Str(t) => Some(batch.str(t).to_owned()),
        Value::Bool(b) => Some(b.to_string()),
        Value::Int(i) => Some(i.to_string()),
        Value::Double(d) => Some(d.to_string()),
        _ => None,
    }
}

/// The same for a value of a promoted column.
pub(crate) fn print_column(kind: Type, bytes: &[u8]) -> Option<String> {
    let word = || bytes.try_into().map(u64::from_le_bytes).ok();
    match kind {
        Type::Str => Some(String::from_utf8_lossy(bytes).into_owned()),
        Type::Int => word().map(|w| (w as i64).to_string()),
        Type::Double => word().map(|w| f64::from_bits(w).to_string()),
        Type::Json => None,
    }
}

/// Columns of a row group, with the page of each that was used last.
pub(crate) struct View<'s> {
    pub segment: &'s Segment,
    pub group: u32,
    pages: Vec<Option<Arc<Page>>>,
}

impl<'s> View<'s> {
    pub fn new(segment: &'s Segment, group: u32) -> Self {
        Self { segment, group, pages: vec![None; segment.columns.len()] }
    }

    /// The page of a column that holds a row.
    pub fn page(&mut self, column: usize, row: usize) -> Result<&Arc<Page>, SegmentError> {
        let there = self.pages[column].as_ref().is_some_and(|p| p.has(row));
        if !there {
            let dir = self.segment.group(self.group)?;
            let pages = &dir.columns[column].pages;
            let n = pages.partition_point(|p| p.first_row + p.rows <= row);
            self.pages[column] = Some(self.segment.page(self.group, column, n)?);
        }
        self.pages[column]
            .as_ref()
            .ok_or_else(|| self.segment.damaged(format::SPANS, Malformed("a row is missing")))
    }

    pub fn bytes(&mut self, column: usize, row: usize) -> Result<Option<&[u8]>, SegmentError> {
        Ok(self.page(column, row)?.bytes(row))
    }

    pub fn word(&mut self, column: usize, row: usize) -> Result<Option<i64>, SegmentError> {
        Ok(self.page(column, row)?.word(row))
    }
}

/// Identity of a value: the dictionary's address and the code, so that equal
/// codes are parsed once.
type CodeKey = (usize, u16);

fn code_key(page: &Page, row: usize) -> Option<CodeKey> {
    let (codes, dict) = page.codes()?;
    let code = *codes.get(row - page.first_row)?;
    (code != NO_CODE).then_some((Arc::as_ptr(dict) as usize, code))
}

/// Attributes of a set, and which of them have their value elsewhere.
type Set = (Vec<Attr>, Vec<(u32, Slot)>);

/// Builds a batch from rows.
#[derive(Default)]
pub(crate) struct Assembler {
    pub batch: Batch,
    spans: Vec<Vec<Span>>,
    resources: Map<Vec<u8>, u32>,
    scopes: Map<Vec<u8>, u32>,
    chunks: Map<(u128, u32, Vec<u8>), usize>,
    sets: Map<CodeKey, Set>,
    texts: Map<CodeKey, Text>,
    /// Keeps dictionaries alive whose addresses are keys above.
    pages: Vec<Arc<Page>>,
    /// Chunk and position of each row's span, in order of the rows.
    pub places: Vec<(usize, usize)>,
}

impl Assembler {
    fn text(&mut self, view: &mut View<'_>, column: usize, row: usize) -> Result<Text, SegmentError> {
        let page = view.page(column, row)?;
        let Some(bytes) = page.bytes(row) else { return Ok(Text::EMPTY) };
        if bytes.is_empty() {
            return Ok(Text::EMPTY);
        }
        let Some(key) = code_key(page, row) else { return Ok(self.batch.arena.push_bytes(bytes)) };
        if let Some(t) = self.texts.get(&key) {
            return Ok(*t);
        }
        let text = self.batch.arena.push_bytes(bytes);
        self.texts.insert(key, text);
        self.pages.push(page.clone());
        Ok(text)
    }

    /// Adds the span of a row. The parent's id is resolved by the caller.
    pub fn push(&mut self, view: &mut View<'_>, row: usize, trace: u128) -> Result<(), SegmentError> {
        let segment = view.segment;
        let bad = |e: Malformed| segment.damaged(format::SPANS, e);
        let missing = || bad(Malformed("a required value is missing"));
        let word = |view: &mut View<'_>, c: usize| view.word(c, row);
        let mut span = Span {
            trace_id: TraceId(trace),
            span_id: SpanId(word(view, s::SPAN_ID)?.ok_or_else(missing)? as u64),
            parent_id: SpanId(word(view, s::PARENT_ID)?.unwrap_or(0) as u64),
            start: word(view, s::START)?.ok_or_else(missing)?,
            duration: word(view, s::DURATION)?.ok_or_else(missing)?,
            error: word(view, s::ERROR)?.ok_or_else(missing)? as i32,
            flags: word(view, s::FLAGS)?.ok_or_else(missing)? as u64,
            service: self.text(view, s::SERVICE, row)?,
            name: self.text(view, s::NAME, row)?,
            resource: self.text(view, s::RESOURCE, row)?,
            span_type: self.text(view, s::TYPE, row)?,
            status_message: self.text(view, s::STATUS_MESSAGE, row)?,
            trace_state: self.text(view, s::TRACE_STATE, row)?,
            kind: kind_of(view.bytes(s::KIND, row)?.unwrap_or_default()),
            status: status_of(view.bytes(s::STATUS, row)?.unwrap_or_default()),
            scope: NO_SCOPE,
            ..Span::default()
        };
        span.attrs = self.attributes(view, row, trace)?;
        if let Some(json) = view.bytes(s::EVENTS, row)? {
            span.events = read_events(json, &mut self.batch).map_err(bad)?;
        }
        if let Some(json) = view.bytes(s::LINKS, row)? {
            span.links = read_links(json, &mut self.batch).map_err(bad)?;
        }
        if let Some(json) = view.bytes(s::DROPPED, row)? {
            let items = Parser::new(json).list(&mut self.batch).map_err(bad)?;
            for (to, v) in span.dropped.iter_mut().zip(items) {
                *to = int(Some(v)) as u32;
            }
        }
        if let Some(json) = view.bytes(s::SCOPE, row)? {
            span.scope = match self.scopes.get(json) {
                Some(n) => *n,
                None => {
                    let scope = read_scope(json, &mut self.batch).map_err(bad)?;
                    let n = self.batch.scopes.len() as u32;
                    self.batch.scopes.push(scope);
                    self.scopes.insert(json.to_vec(), n);
                    n
                }
            };
        }
        let json = view.bytes(s::PROCESS, row)?.ok_or_else(missing)?;
        let resource = match self.resources.get(json) {
            Some(n) => *n,
            None => {
                let resource = read_process(json, &mut self.batch).map_err(bad)?;
                let n = self.batch.resources.len() as u32;
                self.batch.resources.push(resource);
                self.resources.insert(json.to_vec(), n);
                n
            }
        };
        let json = view.bytes(s::CHUNK, row)?.ok_or_else(missing)?;
        let key = (trace, resource, json.to_vec());
        let chunk = match self.chunks.get(&key) {
            Some(n) => *n,
            None => {
                let (mut chunk, protocol) = read_chunk(json, &mut self.batch).map_err(bad)?;
                chunk.trace_id = TraceId(trace);
                chunk.resource = resource;
                let n = self.batch.chunks.len();
                if n == 0 {
                    self.batch.intake.protocol = protocol;
                }
                self.batch.chunks.push(chunk);
                self.spans.push(Vec::new());
                self.chunks.insert(key, n);
                n
            }
        };
        self.places.push((chunk, self.spans[chunk].len()));
        self.spans[chunk].push(span);
        Ok(())
    }

    fn attributes(&mut self, view: &mut View<'_>, row: usize, trace: u128) -> Result<Range32, SegmentError> {
        let segment = view.segment;
        let bad = |e: Malformed| segment.damaged(format::SPANS, e);
        let page = view.page(s::ATTRIBUTES, row)?.clone();
        let key = code_key(&page, row);
        let known = key.and_then(|k| self.sets.get(&k));
        let (mut attrs, slots) = match known {
            Some((attrs, slots)) => (attrs.clone(), slots.clone()),
            None => {
                let json = page.bytes(row).ok_or_else(|| bad(Malformed("attributes are missing")))?;
                let mut slots = Vec::new();
                let range = Parser::new(json).attrs(&mut self.batch, 0, Some(&mut slots)).map_err(bad)?;
                let attrs = self.batch.attrs(range).to_vec();
                self.batch.attrs.truncate(range.start as usize);
                if let Some(key) = key {
                    self.sets.insert(key, (attrs.clone(), slots.clone()));
                    self.pages.push(page);
                }
                (attrs, slots)
            }
        };
        let mut long = None;
        for (i, slot) in slots {
            let value = match slot {
                Slot::TraceHigh => {
                    Value::Str(self.batch.arena.push(&format!("{:016x}", TraceId(trace).high())))
                }
                Slot::Long => {
                    let list = match &mut long {
                        Some(list) => list,
                        None => {
                            let json = view.bytes(s::LONG, row)?.unwrap_or(b"[]");
                            let items = Parser::new(json).list(&mut self.batch).map_err(bad)?;
                            long.insert(items.into_iter())
                        }
                    };
                    list.next().ok_or_else(|| bad(Malformed("a long attribute is missing")))?
                }
                Slot::Column(kind) => {
                    let Some(attr) = attrs.get(i as usize) else { continue };
                    let column = segment
                        .promoted(self.batch.str(attr.key), kind)
                        .ok_or_else(|| bad(Malformed("an attribute names a column that is not there")))?;
                    self.promoted(view, column, kind, row)?
                        .ok_or_else(|| bad(Malformed("a promoted attribute is missing")))?
                }
            };
            if let Some(a) = attrs.get_mut(i as usize) {
                a.value = value;
            }
        }
        let start = self.batch.attrs.len();
        self.batch.attrs.extend(attrs);
        Ok(Range32::new(start, self.batch.attrs.len()))
    }

    fn promoted(
        &mut self,
        view: &mut View<'_>,
        column: usize,
        kind: Type,
        row: usize,
    ) -> Result<Option<Value>, SegmentError> {
        Ok(match kind {
            Type::Int => view.word(column, row)?.map(Value::Int),
            Type::Double => view.word(column, row)?.map(|w| Value::Double(f64::from_bits(w as u64))),
            Type::Str => match view.bytes(column, row)? {
                None => None,
                Some(bytes) => Some(Value::Str(self.batch.arena.push_bytes(bytes))),
            },
            Type::Json => {
                let segment = view.segment;
                match view.bytes(column, row)? {
                    None => None,
                    Some(json) => Some(
                        Parser::new(json)
                            .value(&mut self.batch, 1)
                            .map_err(|e| segment.damaged(format::SPANS, e))?,
                    ),
                }
            }
        })
    }

    /// The span of a row pushed before.
    pub fn span_mut(&mut self, nth: usize) -> Option<&mut Span> {
        let (chunk, at) = *self.places.get(nth)?;
        self.spans.get_mut(chunk)?.get_mut(at)
    }

    /// The span of a row pushed before, and its resource.
    pub fn get(&self, nth: usize) -> Option<(&Span, Option<&Resource>, &Chunk)> {
        let (chunk, at) = *self.places.get(nth)?;
        let span = self.spans.get(chunk)?.get(at)?;
        let chunk = self.batch.chunks.get(chunk)?;
        Some((span, self.batch.resources.get(chunk.resource as usize), chunk))
    }

    /// The finished batch: chunks in order of their first span.
    pub fn finish(mut self) -> Batch {
        for (chunk, spans) in self.batch.chunks.iter_mut().zip(self.spans) {
            let start = self.batch.spans.len();
            self.batch.spans.extend(spans);
            chunk.spans = Range32::new(start, self.batch.spans.len());
        }
        self.batch
    }
}

pub(crate) fn kind_of(name: &[u8]) -> SpanKind {
    match name {
        b"" => SpanKind::Unspecified,
        other => std::str::from_utf8(other).ok().and_then(SpanKind::from_name).unwrap_or_default(),
    }
}

pub(crate) fn status_of(name: &[u8]) -> Status {
    match name {
        b"ok" => Status::Ok,
        b"error" => Status::Error,
        _ => Status::Unset,
    }
}

fn int(value: Option<Value>) -> i64 {
    match value {
        Some(Value::Int(i)) => i,
        _ => 0,
    }
}

fn object(json: &[u8], batch: &mut Batch) -> Decoded<Range32> {
    let mut parser = Parser::new(json);
    let range = parser.attrs(batch, 0, None)?;
    parser.end()?;
    Ok(range)
}

pub(crate) fn read_process(json: &[u8], batch: &mut Batch) -> Decoded<Resource> {
    let o = object(json, batch)?;
    let text = |key: &str| batch.get_text(o, key).unwrap_or_default();
    Ok(Resource {
        container_id: text("container_id"),
        language_name: text("language_name"),
        language_version: text("language_version"),
        tracer_version: text("tracer_version"),
        runtime_id: text("runtime_id"),
        env: text("env"),
        hostname: text("hostname"),
        app_version: text("app_version"),
        attrs: member(batch, o, "attributes"),
        schema_url: text("schema_url"),
        dropped: int(batch.get(o, "dropped")) as u32,
    })
}

pub(crate) fn read_scope(json: &[u8], batch: &mut Batch) -> Decoded<Scope> {
    let o = object(json, batch)?;
    let text = |key: &str| batch.get_text(o, key).unwrap_or_default();
    Ok(Scope {
        name: text("name"),
        version: text("version"),
        attrs: member(batch, o, "attributes"),
        schema_url: text("schema_url"),
        dropped: int(batch.get(o, "dropped")) as u32,
    })
}

pub(crate) fn read_chunk(json: &[u8], batch: &mut Batch) -> Decoded<(Chunk, Protocol)> {
    let o = object(json, batch)?;
    let protocol = batch.get_str(o, "protocol").unwrap_or_default();
    let protocol = Protocol::ALL.into_iter().find(|p| p.name() == protocol).unwrap_or_default();
    let chunk = Chunk {
        priority: match batch.get(o, "priority") {
            Some(Value::Int(p)) => p as i32,
            _ => spanloom_model::PRIORITY_NONE,
        },
        origin: batch.get_text(o, "origin").unwrap_or_default(),
        attrs: member(batch, o, "attributes"),
        dropped: int(batch.get(o, "dropped_by_tracer")) != 0,
        sampling_mechanism: int(batch.get(o, "sampling_mechanism")) as u32,
        ..Chunk::default()
    };
    Ok((chunk, protocol))
}

pub(crate) fn read_events(json: &[u8], batch: &mut Batch) -> Decoded<Range32> {
    let items = Parser::new(json).list(batch)?;
    let start = batch.events.len();
    for item in items {
        let Value::Map(o) = item else { return Err(Malformed("an event is not an object")) };
        let event = Event {
            time: int(batch.get(o, "time")) as u64,
            name: batch.get_text(o, "name").unwrap_or_default(),
            attrs: member(batch, o, "attributes"),
            dropped: int(batch.get(o, "dropped")) as u32,
        };
        batch.events.push(event);
    }
    Ok(Range32::new(start, batch.events.len()))
}

pub(crate) fn read_links(json: &[u8], batch: &mut Batch) -> Decoded<Range32> {
    let items = Parser::new(json).list(batch)?;
    let start = batch.links.len();
    for item in items {
        let Value::Map(o) = item else { return Err(Malformed("a link is not an object")) };
        let id =
            |key: &str| batch.get_str(o, key).and_then(|t| TraceId::parse_hex(t).ok()).unwrap_or_default();
        let link = Link {
            trace_id: id("trace_id"),
            span_id: SpanId(id("span_id").low()),
            trace_state: batch.get_text(o, "trace_state").unwrap_or_default(),
            flags: int(batch.get(o, "flags")) as u32,
            attrs: member(batch, o, "attributes"),
            dropped: int(batch.get(o, "dropped")) as u32,
        };
        batch.links.push(link);
    }
    Ok(Range32::new(start, batch.links.len()))
}

impl Segment {
    /// The promoted column of a key and type.
    pub(crate) fn promoted(&self, key: &str, kind: Type) -> Option<usize> {
        self.columns.iter().position(|c| matches!(&c.attr, Some((k, t)) if *t == kind && k == key))
    }

    /// All spans of a trace in this segment, oldest first, with one chunk for
    /// each pair of resource and chunk data.
    pub fn trace(&self, id: TraceId) -> Result<Option<Batch>, SegmentError> {
        let Some(found) = self.find(id)? else { return Ok(None) };
        Ok(Some(self.assemble(id, &found.rows)?.finish()))
    }

    /// The spans of a whole trace.
    pub(crate) fn assemble(&self, id: TraceId, rows: &[Rows]) -> Result<Assembler, SegmentError> {
        let mut out = Assembler::default();
        let mut parents = Vec::new();
        for (group, rows) in rows {
            let mut view = View::new(self, *group);
            for row in rows.clone() {
                parents.push(view.word(s::PARENT_ROW, row)?.unwrap_or(0));
                out.push(&mut view, row, id.0)?;
            }
        }
        for (i, back) in parents.iter().enumerate().filter(|(_, b)| **b != 0) {
            let parent = usize::try_from(i as i64 - back)
                .ok()
                .and_then(|p| out.get(p))
                .map(|(span, _, _)| span.span_id)
                .ok_or_else(|| {
                    self.damaged(format::SPANS, Malformed("a parent row lies outside its trace"))
                })?;
            if let Some(span) = out.span_mut(i) {
                span.parent_id = parent;
            }
        }
        Ok(out)
    }
}
