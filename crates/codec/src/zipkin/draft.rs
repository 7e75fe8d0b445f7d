//! A Zipkin span while it is read. Its tags are on the attribute stack of
//! [`Build`], its annotations are already events of the batch.

use super::endpoint::{self, Endpoints};
use crate::DecodeError;
use crate::build::Build;
use crate::json::{Kind, Reader};
use crate::view::{LIBRARY_NAME, LIBRARY_VERSION, LINK_PREFIX, SCOPE_NAME, SCOPE_VERSION, TRACE_STATE};
use spanloom_model::{
    Batch, Event, Link, NO_SCOPE, Range32, Resource, Span, SpanId, SpanKind, Status, Text, TraceId, Value,
    flags, keys,
};
use std::collections::HashMap;

/// More tags than real spans have; above it duplicates are found by hashing.
const FEW_TAGS: usize = 64;

/// A span and where its tags, events and links begin.
pub(super) struct Draft {
    pub span: Span,
    pub ends: Endpoints,
    mark: usize,
    events: usize,
    links: usize,
}

impl Draft {
    pub(super) fn new(build: &Build) -> Self {
        Self {
            span: Span { scope: NO_SCOPE, ..Span::default() },
            ends: Endpoints::default(),
            mark: build.mark(),
            events: build.batch.events.len(),
            links: build.batch.links.len(),
        }
    }

    /// Adds a tag.
    #[inline]
    pub(super) fn tag(build: &mut Build, key: Text, value: Text) -> Result<(), DecodeError> {
        build.attr(key, Value::Str(value))
    }

    /// Adds an annotation, time in microseconds.
    pub(super) fn annotation(build: &mut Build, micros: i64, value: Text) -> Result<(), DecodeError> {
        let time = u64::try_from(micros).unwrap_or(0).saturating_mul(1000);
        let event = structured_event(build, value)?.unwrap_or(Event { name: value, ..Event::default() });
        build.event(Event { time, ..event })
    }

    /// Sets start and duration, both in microseconds, 0 or less for absent.
    pub(super) fn set_times(&mut self, timestamp: i64, duration: i64) {
        self.span.start = super::ids::nanos(timestamp);
        self.span.duration = super::ids::nanos(duration);
    }

    /// Applies Zipkin's rules to the whole span and adds it to the batch.
    pub(super) fn finish(mut self, build: &mut Build) -> Result<(), DecodeError> {
        drop_duplicate_tags(build, self.mark);
        self.read_tags(build)?;
        let parts = endpoint::push(build, self.mark, &self.ends)?;
        let span = &mut self.span;
        span.service = self.ends.local.service;
        span.flags |= flags::FROM_ZIPKIN | parts;
        if span.start == 0 {
            span.flags |= flags::NO_START;
        }
        if span.duration == 0 {
            span.flags |= flags::NO_DURATION;
        }
        if span.parent_id == span.span_id {
            span.parent_id = SpanId(0);
        }
        if span.kind == SpanKind::Client && span.flags & flags::KIND_FROM_TAG == 0 {
            span.flags &= !flags::SHARED;
        }
        span.error = i32::from(span.status == Status::Error);
        span.attrs = build.take_attrs(self.mark);
        span.events = Range32::new(self.events, build.batch.events.len());
        span.links = Range32::new(self.links, build.batch.links.len());
        build.span(self.span)
    }

    /// Derives fields from the tags that other tracers and our own encoder
    /// write where Zipkin has no field. The tags stay.
    fn read_tags(&mut self, build: &mut Build) -> Result<(), DecodeError> {
        let (mut error, mut code, mut description) = (None, Status::Unset, Text::EMPTY);
        let mut scope = [Text::EMPTY; 2];
        for i in 0..build.pending(self.mark).len() {
            let attr = build.pending(self.mark)[i];
            let Value::Str(value) = attr.value else { continue };
            let key = build.batch.arena.bytes(attr.key);
            match key.first() {
                Some(b'e' | b'o' | b's' | b'w') => {}
                _ => continue,
            }
            match std::str::from_utf8(key).unwrap_or_default() {
                keys::ERROR => error = Some(value),
                keys::STATUS_CODE => {
                    code = match build.batch.str(value) {
                        "OK" => Status::Ok,
                        "ERROR" => Status::Error,
                        _ => Status::Unset,
                    };
                }
                keys::STATUS_DESCRIPTION => description = value,
                keys::SPAN_KIND if self.span.kind == SpanKind::Unspecified => {
                    let text = build.batch.str(value);
                    // Exactly what our encoder and the OpenTelemetry Collector write.
                    if let Some(kind) = SpanKind::from_name(text).filter(|k| k.name() == text) {
                        self.span.kind = kind;
                        self.span.flags |= flags::KIND_FROM_TAG;
                    }
                }
                TRACE_STATE => self.span.trace_state = value,
                SCOPE_NAME => scope[0] = value,
                SCOPE_VERSION => scope[1] = value,
                LIBRARY_NAME if scope[0].is_empty() => scope[0] = value,
                LIBRARY_VERSION if scope[1].is_empty() => scope[1] = value,
                key if key.starts_with(LINK_PREFIX) => {
                    if let Some(link) = parse_link(build, value)? {
                        build.link(link)?;
                    }
                }
                _ => {}
            }
        }
        // Any tag `error` is a failure: Zipkin's own meaning.
        if let Some(text) = error {
            self.span.status = Status::Error;
            if !matches!(build.batch.str(text), "" | "true") {
                self.span.status_message = text;
            }
        } else {
            self.span.status = code;
        }
        if !description.is_empty() {
            self.span.status_message = description;
        }
        if scope.iter().any(|t| !t.is_empty()) {
            self.span.scope = build.intern_scope(scope)?;
        }
        Ok(())
    }
}

/// Ends a request: one resource without attributes, one chunk for each trace.
pub(super) fn finish_batch(mut build: Build) -> Batch {
    if !build.batch.spans.is_empty() {
        build.batch.resources.push(Resource::default());
        build.batch.chunk_by_trace(0, 0);
    }
    build.batch
}

/// The lower-case form of a text, which is the text itself if it is that.
pub(super) fn lower_case(build: &mut Build, text: Text) -> Text {
    let bytes = build.batch.arena.bytes(text);
    if !bytes.iter().any(|b| b.is_ascii_uppercase() || !b.is_ascii()) {
        return text;
    }
    let lower = build.batch.str(text).to_lowercase();
    if lower.as_bytes() == bytes { text } else { build.batch.arena.push(&lower) }
}

/// Tags are a map: of several with one key the last counts.
fn drop_duplicate_tags(build: &mut Build, mark: usize) {
    let tags = build.pending(mark);
    let same =
        |a: Text, b: Text| a.len() == b.len() && build.batch.arena.bytes(a) == build.batch.arena.bytes(b);
    let none = if tags.len() <= FEW_TAGS {
        // Keys that differ in length or in one of three bytes nearly always
        // fall on different bits; only those that do not are compared.
        let mut seen = 0u64;
        tags.iter().enumerate().all(|(i, a)| {
            let key = build.batch.arena.bytes(a.key);
            let byte = |at: usize| key.get(at).map_or(0, |&b| u32::from(b));
            let n = key.len();
            let hash = (n as u32)
                .wrapping_mul(31)
                .wrapping_add(byte(n / 2))
                .wrapping_mul(31)
                .wrapping_add(byte(n.wrapping_sub(1)))
                .wrapping_mul(31)
                .wrapping_add(byte(n.wrapping_sub(4)));
            let bit = 1u64 << (hash.wrapping_mul(0x9e37_79b9) >> 26);
            let fresh = seen & bit == 0;
            seen |= bit;
            fresh || tags[..i].iter().all(|b| !same(a.key, b.key))
        })
    } else {
        let distinct: std::collections::HashSet<&[u8]> =
            tags.iter().map(|a| build.batch.arena.bytes(a.key)).collect();
        distinct.len() == tags.len()
    };
    if none {
        return;
    }
    let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut kept = Vec::with_capacity(tags.len());
    for attr in tags {
        match places.entry(build.batch.arena.bytes(attr.key).to_vec()) {
            std::collections::hash_map::Entry::Occupied(place) => kept[*place.get()] = *attr,
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(kept.len());
                kept.push(*attr);
            }
        }
    }
    build.replace_pending(mark, &kept);
}

/// Reads `trace|span|state|{attributes}|dropped`, as the OpenTelemetry
/// Collector writes links.
fn parse_link(build: &mut Build, value: Text) -> Result<Option<Link>, DecodeError> {
    let text = build.batch.str(value).to_owned();
    let mut parts = text.splitn(4, '|');
    let (Some(trace), Some(span), Some(state), Some(rest)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Ok(None);
    };
    let Some((json, dropped)) = rest.rsplit_once('|') else { return Ok(None) };
    let (Ok(trace_id), Ok(span_id), Ok(dropped)) =
        (TraceId::parse_hex(trace), SpanId::parse_hex(span), dropped.parse())
    else {
        return Ok(None);
    };
    let Some(attrs) = parse_attrs(build, json)? else { return Ok(None) };
    let trace_state = build.batch.arena.push(state);
    Ok(Some(Link { trace_id, span_id, trace_state, attrs, dropped, flags: 0 }))
}

/// Reads `name|{attributes}|dropped`. An annotation that our encoder would
/// not write exactly so again stays a name.
fn structured_event(build: &mut Build, value: Text) -> Result<Option<Event>, DecodeError> {
    let bytes = build.batch.arena.bytes(value);
    if !bytes.last().is_some_and(u8::is_ascii_digit) || !bytes.windows(2).any(|w| w == b"|{") {
        return Ok(None);
    }
    let text = build.batch.str(value).to_owned();
    let Some((head, dropped)) = text.rsplit_once('|') else { return Ok(None) };
    let (Some((name, json)), Ok(dropped)) = (head.split_once('|'), dropped.parse()) else { return Ok(None) };
    let (attrs_before, values_before) = (build.batch.attrs.len(), build.batch.values.len());
    let Some(attrs) = parse_attrs(build, json)? else { return Ok(None) };
    let event = Event { time: 0, name: value.slice(0, name.len()), attrs, dropped };
    let mut again = String::new();
    super::view::print_event(&build.batch, &event, &mut again);
    if again != text {
        build.batch.attrs.truncate(attrs_before);
        build.batch.values.truncate(values_before);
        return Ok(None);
    }
    Ok(Some(event))
}

/// Reads a JSON object as attributes; `None` if it is not one.
fn parse_attrs(build: &mut Build, json: &str) -> Result<Option<Range32>, DecodeError> {
    let Ok(mut reader) = Reader::new(json.as_bytes()) else { return Ok(None) };
    let (mark, values) = (build.mark(), build.value_mark());
    match read_map(build, &mut reader).and_then(|map| reader.end().map(|()| map)) {
        Ok(map) => Ok(Some(map)),
        Err(limit @ DecodeError::Limit(_)) => Err(limit),
        Err(_) => {
            build.take_attrs(mark);
            build.take_values(values);
            Ok(None)
        }
    }
}

fn read_map(build: &mut Build, reader: &mut Reader<'_>) -> Result<Range32, DecodeError> {
    let mark = build.mark();
    reader.begin_object()?;
    while let Some(key) = reader.key()? {
        let key = build.batch.arena.push(&reader.unescaped(key)?);
        let value = read_value(build, reader)?;
        build.attr(key, value)?;
    }
    Ok(build.take_attrs(mark))
}

fn read_value(build: &mut Build, reader: &mut Reader<'_>) -> Result<Value, DecodeError> {
    Ok(match reader.kind()? {
        Kind::Object => Value::Map(read_map(build, reader)?),
        Kind::Array => {
            let mark = build.value_mark();
            reader.begin_array()?;
            while reader.element()? {
                let value = read_value(build, reader)?;
                build.value(value)?;
            }
            Value::List(build.take_values(mark))
        }
        Kind::String => {
            let s = reader.string()?;
            Value::Str(build.batch.arena.push(&reader.unescaped(s)?))
        }
        Kind::Number => {
            let text = reader.number()?;
            match text.parse::<i64>() {
                Ok(n) => Value::Int(n),
                Err(_) => Value::Double(text.parse().unwrap_or(f64::NAN)),
            }
        }
        Kind::Bool => Value::Bool(reader.bool()?),
        Kind::Null => {
            reader.null()?;
            Value::Empty
        }
    })
}
