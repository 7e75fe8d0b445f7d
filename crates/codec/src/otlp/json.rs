//! `ExportTraceServiceRequest` in OTLP's JSON, read in place.
//!
//! proto3's JSON mapping with OTLP's exceptions
//! (opentelemetry-proto:docs/specification.md#json-protobuf-encoding): ids are
//! hexadecimal, enums are numbers. Taken leniently, because exporters in the
//! field write them: snake_case keys, 64-bit integers as numbers or strings,
//! enum names, `null` for an absent field, scopes under their old name.

use super::{Before, add_span, deeper, end_resource, end_scope};
use crate::build::{Build, Decoded, Rejected};
use crate::json::{Kind, Reader};
use crate::{DecodeError, Limits};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use bytes::Bytes;
use spanloom_model::{
    Event, Intake, Link, Range32, Resource, Scope, Span, SpanId, SpanKind, Status, Text, TraceId, Value,
};

/// Decodes an `ExportTraceServiceRequest` in JSON. See [`super::decode_proto`]
/// for what is left out.
///
/// # Errors
/// When the text is not JSON, a known field has a value of the wrong type, or
/// [`Limits`] are exceeded. Nothing is taken then.
pub fn decode_json(body: Bytes, intake: Intake) -> Result<Decoded, DecodeError> {
    let mut walk = Walk {
        json: Reader::new(&body)?,
        build: Build::new(body.clone(), intake),
        rejected: Rejected::default(),
    };
    walk.json.begin_object()?;
    while let Some(key) = walk.json.key()? {
        match walk.json.name(key)?.as_ref() {
            b"resourceSpans" | b"resource_spans" => walk.array(Walk::resource_spans)?,
            _ => walk.json.skip()?,
        }
    }
    walk.json.end()?;
    Ok(walk.rejected.finish(walk.build.batch))
}

struct Walk<'a> {
    json: Reader<'a>,
    build: Build,
    rejected: Rejected,
}

type Done = Result<(), DecodeError>;

impl<'a> Walk<'a> {
    /// Reads an array (or `null`) of objects.
    fn array(&mut self, mut each: impl FnMut(&mut Self) -> Done) -> Done {
        if self.json.null()? {
            return Ok(());
        }
        self.json.begin_array()?;
        while self.json.element()? {
            each(self)?;
        }
        Ok(())
    }

    fn text(&mut self) -> Result<Text, DecodeError> {
        if self.json.null()? {
            return Ok(Text::EMPTY);
        }
        let s = self.json.string()?;
        self.json.text(&mut self.build.batch.arena, s)
    }

    /// An integer as a number or in quotes.
    fn int(&mut self) -> Result<i128, DecodeError> {
        if self.json.null()? {
            return Ok(0);
        }
        let at = self.json.position();
        let text = match self.json.kind()? {
            Kind::String => {
                let s = self.json.string()?;
                self.json.raw(s)
            }
            _ => self.json.number()?.as_bytes(),
        };
        let text = std::str::from_utf8(text).unwrap_or_default();
        if let Ok(n) = text.parse::<i128>() {
            return Ok(n);
        }
        // Whole numbers written as 1e9 or 5.0 are valid in proto3's JSON.
        match text.parse::<f64>() {
            Ok(n) if n.fract() == 0.0 && n.abs() < 1e19 => Ok(n as i128),
            _ => Err(DecodeError::text(format!("json: expected an integer (byte {at})"))),
        }
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        let at = self.json.position();
        u64::try_from(self.int()?).map_err(|_| out_of_range(at))
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        let at = self.json.position();
        u32::try_from(self.int()?).map_err(|_| out_of_range(at))
    }

    /// A hexadecimal id of either case and exactly `digits` digits; 0, which
    /// is never valid, for anything else.
    fn id(&mut self, digits: usize) -> Result<u128, DecodeError> {
        if self.json.null()? {
            return Ok(0);
        }
        let s = self.json.string()?;
        let raw = self.json.raw(s);
        if raw.len() != digits {
            return Ok(0);
        }
        let text = std::str::from_utf8(raw).unwrap_or_default();
        Ok(TraceId::parse_hex(text).map_or(0, |id| id.0))
    }

    fn resource_spans(&mut self) -> Done {
        let mut resource = Resource::default();
        let mut schema_url = Text::EMPTY;
        let first = self.build.batch.spans.len();
        self.json.begin_object()?;
        while let Some(key) = self.json.key()? {
            match self.json.name(key)?.as_ref() {
                b"resource" => resource = self.resource()?,
                b"scopeSpans" | b"scope_spans" | b"instrumentationLibrarySpans" => {
                    self.array(Self::scope_spans)?
                }
                b"schemaUrl" | b"schema_url" => schema_url = self.text()?,
                _ => self.json.skip()?,
            }
        }
        end_resource(&mut self.build, first, Resource { schema_url, ..resource })
    }

    fn resource(&mut self) -> Result<Resource, DecodeError> {
        let mut resource = Resource::default();
        if self.json.null()? {
            return Ok(resource);
        }
        let mark = self.build.mark();
        self.json.begin_object()?;
        while let Some(key) = self.json.key()? {
            match self.json.name(key)?.as_ref() {
                b"attributes" => self.array(Self::key_value)?,
                b"droppedAttributesCount" | b"dropped_attributes_count" => resource.dropped = self.u32()?,
                _ => self.json.skip()?,
            }
        }
        resource.attrs = self.build.take_attrs(mark);
        Ok(resource)
    }

    fn scope_spans(&mut self) -> Done {
        let mut scope = None;
        let mut schema_url = Text::EMPTY;
        let first = self.build.batch.spans.len();
        self.json.begin_object()?;
        while let Some(key) = self.json.key()? {
            match self.json.name(key)?.as_ref() {
                b"scope" | b"instrumentationLibrary" => scope = self.scope()?,
                b"spans" => self.array(Self::span)?,
                b"schemaUrl" | b"schema_url" => schema_url = self.text()?,
                _ => self.json.skip()?,
            }
        }
        end_scope(&mut self.build, first, scope, schema_url)
    }

    fn scope(&mut self) -> Result<Option<Scope>, DecodeError> {
        if self.json.null()? {
            return Ok(None);
        }
        let mut scope = Scope::default();
        let mark = self.build.mark();
        self.json.begin_object()?;
        while let Some(key) = self.json.key()? {
            match self.json.name(key)?.as_ref() {
                b"name" => scope.name = self.text()?,
                b"version" => scope.version = self.text()?,
                b"attributes" => self.array(Self::key_value)?,
                b"droppedAttributesCount" | b"dropped_attributes_count" => scope.dropped = self.u32()?,
                _ => self.json.skip()?,
            }
        }
        scope.attrs = self.build.take_attrs(mark);
        Ok(Some(scope))
    }

    fn span(&mut self) -> Done {
        let before = Before::new(&self.build);
        let mut span = Span::default();
        let mut times = [0u64; 2];
        self.json.begin_object()?;
        while let Some(key) = self.json.key()? {
            match self.json.name(key)?.as_ref() {
                b"traceId" | b"trace_id" => span.trace_id = TraceId(self.id(32)?),
                b"spanId" | b"span_id" => span.span_id = SpanId(self.id(16)? as u64),
                b"parentSpanId" | b"parent_span_id" => span.parent_id = SpanId(self.id(16)? as u64),
                b"traceState" | b"trace_state" => span.trace_state = self.text()?,
                b"name" => span.name = self.text()?,
                b"kind" => span.kind = self.kind()?,
                b"startTimeUnixNano" | b"start_time_unix_nano" => times[0] = self.u64()?,
                b"endTimeUnixNano" | b"end_time_unix_nano" => times[1] = self.u64()?,
                b"attributes" => self.array(Self::key_value)?,
                b"droppedAttributesCount" | b"dropped_attributes_count" => span.dropped[0] = self.u32()?,
                b"events" => self.array(Self::event)?,
                b"droppedEventsCount" | b"dropped_events_count" => span.dropped[1] = self.u32()?,
                b"links" => self.array(Self::link)?,
                b"droppedLinksCount" | b"dropped_links_count" => span.dropped[2] = self.u32()?,
                b"status" => self.status(&mut span)?,
                b"flags" => span.flags = u64::from(self.u32()?),
                _ => self.json.skip()?,
            }
        }
        add_span(&mut self.build, &mut self.rejected, span, times, before)
    }

    fn kind(&mut self) -> Result<SpanKind, DecodeError> {
        if self.json.kind()? == Kind::String {
            let s = self.json.string()?;
            let raw = std::str::from_utf8(self.json.raw(s)).unwrap_or_default();
            let name = raw.strip_prefix("SPAN_KIND_").unwrap_or(raw);
            return Ok(raw
                .parse()
                .ok()
                .map(SpanKind::from_number)
                .or(SpanKind::from_name(name))
                .unwrap_or_default());
        }
        // An unknown number is a newer kind: unspecified, as in protobuf.
        Ok(SpanKind::from_number(u32::try_from(self.int()?).unwrap_or(0)))
    }

    fn status(&mut self, span: &mut Span) -> Done {
        if self.json.null()? {
            return Ok(());
        }
        self.json.begin_object()?;
        while let Some(key) = self.json.key()? {
            match self.json.name(key)?.as_ref() {
                b"message" => span.status_message = self.text()?,
                b"code" => span.status = self.status_code()?,
                _ => self.json.skip()?,
            }
        }
        Ok(())
    }

    fn status_code(&mut self) -> Result<Status, DecodeError> {
        if self.json.kind()? == Kind::String {
            let s = self.json.string()?;
            return Ok(match self.json.raw(s) {
                b"STATUS_CODE_OK" | b"1" => Status::Ok,
                b"STATUS_CODE_ERROR" | b"2" => Status::Error,
                _ => Status::Unset,
            });
        }
        Ok(Status::from_number(u32::try_from(self.int()?).unwrap_or(0)))
    }

    fn event(&mut self) -> Done {
        let mark = self.build.mark();
        let mut event = Event::default();
        self.json.begin_object()?;
        while let Some(key) = self.json.key()? {
            match self.json.name(key)?.as_ref() {
                b"timeUnixNano" | b"time_unix_nano" => event.time = self.u64()?,
                b"name" => event.name = self.text()?,
                b"attributes" => self.array(Self::key_value)?,
                b"droppedAttributesCount" | b"dropped_attributes_count" => event.dropped = self.u32()?,
                _ => self.json.skip()?,
            }
        }
        event.attrs = self.build.take_attrs(mark);
        self.build.event(event)
    }

    fn link(&mut self) -> Done {
        let mark = self.build.mark();
        let mut link = Link::default();
        self.json.begin_object()?;
        while let Some(key) = self.json.key()? {
            match self.json.name(key)?.as_ref() {
                b"traceId" | b"trace_id" => link.trace_id = TraceId(self.id(32)?),
                b"spanId" | b"span_id" => link.span_id = SpanId(self.id(16)? as u64),
                b"traceState" | b"trace_state" => link.trace_state = self.text()?,
                b"attributes" => self.array(Self::key_value)?,
                b"droppedAttributesCount" | b"dropped_attributes_count" => link.dropped = self.u32()?,
                b"flags" => link.flags = self.u32()?,
                _ => self.json.skip()?,
            }
        }
        link.attrs = self.build.take_attrs(mark);
        self.build.link(link)
    }

    fn key_value(&mut self) -> Done {
        self.key_value_at(Limits::DEFAULT.depth)
    }

    fn key_value_at(&mut self, depth: u32) -> Done {
        let (mut name, mut value) = (Text::EMPTY, Value::Empty);
        self.json.begin_object()?;
        while let Some(key) = self.json.key()? {
            match self.json.name(key)?.as_ref() {
                b"key" => name = self.text()?,
                b"value" => value = self.any_value(depth)?,
                _ => self.json.skip()?,
            }
        }
        self.build.attr(name, value)
    }

    fn any_value(&mut self, depth: u32) -> Result<Value, DecodeError> {
        let mut value = Value::Empty;
        if self.json.null()? {
            return Ok(value);
        }
        self.json.begin_object()?;
        while let Some(key) = self.json.key()? {
            let name = self.json.name(key)?;
            if self.json.null()? {
                continue;
            }
            value = match name.as_ref() {
                b"stringValue" | b"string_value" => Value::Str(self.text()?),
                b"boolValue" | b"bool_value" => Value::Bool(self.json.bool()?),
                b"intValue" | b"int_value" => {
                    let at = self.json.position();
                    Value::Int(i64::try_from(self.int()?).map_err(|_| out_of_range(at))?)
                }
                b"doubleValue" | b"double_value" => Value::Double(self.double()?),
                b"arrayValue" | b"array_value" => Value::List(self.list(deeper(depth)?)?),
                b"kvlistValue" | b"kvlist_value" => Value::Map(self.map(deeper(depth)?)?),
                b"bytesValue" | b"bytes_value" => Value::Bytes(self.bytes()?),
                _ => {
                    self.json.skip()?;
                    value
                }
            };
        }
        Ok(value)
    }

    fn double(&mut self) -> Result<f64, DecodeError> {
        let at = self.json.position();
        let text = match self.json.kind()? {
            Kind::String => {
                let s = self.json.string()?;
                std::str::from_utf8(self.json.raw(s)).unwrap_or_default()
            }
            _ => self.json.number()?,
        };
        // Rust's parser knows NaN, Infinity and -Infinity, as proto3 spells them.
        text.parse().map_err(|_| DecodeError::text(format!("json: expected a number (byte {at})")))
    }

    fn bytes(&mut self) -> Result<Text, DecodeError> {
        let at = self.json.position();
        let s = self.json.string()?;
        let text = self.json.unescaped(s)?;
        for engine in [&STANDARD, &URL_SAFE, &STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            if let Ok(bytes) = engine.decode(text.as_ref()) {
                return Ok(self.build.batch.arena.push_bytes(&bytes));
            }
        }
        Err(DecodeError::text(format!("json: expected base64 (byte {at})")))
    }

    fn list(&mut self, depth: u32) -> Result<Range32, DecodeError> {
        let mark = self.build.value_mark();
        self.json.begin_object()?;
        while let Some(key) = self.json.key()? {
            match self.json.name(key)?.as_ref() {
                b"values" => self.array(|walk| {
                    let value = walk.any_value(depth)?;
                    walk.build.value(value)
                })?,
                _ => self.json.skip()?,
            }
        }
        Ok(self.build.take_values(mark))
    }

    fn map(&mut self, depth: u32) -> Result<Range32, DecodeError> {
        let mark = self.build.mark();
        self.json.begin_object()?;
        while let Some(key) = self.json.key()? {
            match self.json.name(key)?.as_ref() {
                b"values" => self.array(|walk| walk.key_value_at(depth))?,
                _ => self.json.skip()?,
            }
        }
        Ok(self.build.take_attrs(mark))
    }
}

#[cold]
fn out_of_range(at: usize) -> DecodeError {
    DecodeError::text(format!("json: integer out of range (byte {at})"))
}
