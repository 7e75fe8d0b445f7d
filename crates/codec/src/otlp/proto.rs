//! `ExportTraceServiceRequest` in protobuf, read in place.
//!
//! Each message is walked field by field; strings become slices of the body.
//! A resource or scope may stand behind its spans, so spans learn of both when
//! the enclosing message ends. Unknown fields are skipped; a known field with the wrong wire type
//! is an error.

use super::{Before, add_span, deeper, end_resource, end_scope, span_id, trace_id};
use crate::build::{Build, Decoded, Rejected};
use crate::protobuf::{Field, Reader, Span as At};
use crate::{DecodeError, Limits};
use bytes::Bytes;
use spanloom_model::{
    Event, Intake, Link, Range32, Resource, Scope, Span, SpanId, SpanKind, Status, Text, TraceId, Value,
};

/// Decodes an `ExportTraceServiceRequest` (opentelemetry-proto:opentelemetry/
/// proto/collector/trace/v1/trace_service.proto).
///
/// Spans whose trace or span id is missing, all zero or not 16 and 8 bytes
/// long are left out and counted in [`Decoded::rejected`].
///
/// # Errors
/// When the bytes are not that message, or exceed [`Limits`]. Nothing is taken
/// then.
pub fn decode_proto(body: Bytes, intake: Intake) -> Result<Decoded, DecodeError> {
    let mut walk = Walk { build: Build::new(body.clone(), intake), rejected: Rejected::default() };
    let mut reader = Reader::new(&body);
    while let Some(field) = reader.next_field()? {
        match field {
            (1, Field::Len(at)) => walk.resource_spans(reader.nested(at))?,
            (1, _) => return Err(reader.wrong_type("ExportTraceServiceRequest", 1)),
            _ => {}
        }
    }
    Ok(walk.rejected.finish(walk.build.batch))
}

struct Walk {
    build: Build,
    rejected: Rejected,
}

impl Walk {
    #[inline]
    fn text(&mut self, at: At) -> Text {
        self.build.batch.arena.text_from_body(at.start, at.len())
    }

    fn resource_spans(&mut self, mut reader: Reader<'_>) -> Result<(), DecodeError> {
        let mut resource = Resource::default();
        let mut schema_url = Text::EMPTY;
        let first = self.build.batch.spans.len();
        while let Some((number, field)) = reader.next_field()? {
            match (number, field) {
                (1, Field::Len(at)) => resource = self.resource(reader.nested(at))?,
                // 1000: `instrumentation_library_spans` of the versions 0.15 to 0.18.
                (2 | 1000, Field::Len(at)) => self.scope_spans(reader.nested(at))?,
                (3, Field::Len(at)) => schema_url = self.text(at),
                (1..=3, _) => return Err(reader.wrong_type("ResourceSpans", number)),
                _ => {}
            }
        }
        end_resource(&mut self.build, first, Resource { schema_url, ..resource })
    }

    fn resource(&mut self, mut reader: Reader<'_>) -> Result<Resource, DecodeError> {
        let mut resource = Resource::default();
        let mark = self.build.mark();
        while let Some((number, field)) = reader.next_field()? {
            match (number, field) {
                (1, Field::Len(at)) => self.key_value(reader.nested(at))?,
                (2, Field::Varint(n)) => resource.dropped = n as u32,
                (1 | 2, _) => return Err(reader.wrong_type("Resource", number)),
                _ => {}
            }
        }
        resource.attrs = self.build.take_attrs(mark);
        Ok(resource)
    }

    fn scope_spans(&mut self, mut reader: Reader<'_>) -> Result<(), DecodeError> {
        let mut scope = None;
        let mut schema_url = Text::EMPTY;
        let first = self.build.batch.spans.len();
        while let Some((number, field)) = reader.next_field()? {
            match (number, field) {
                (1, Field::Len(at)) => scope = Some(self.scope(reader.nested(at))?),
                (2, Field::Len(at)) => self.span(reader.nested(at))?,
                (3, Field::Len(at)) => schema_url = self.text(at),
                (1..=3, _) => return Err(reader.wrong_type("ScopeSpans", number)),
                _ => {}
            }
        }
        end_scope(&mut self.build, first, scope, schema_url)
    }

    fn scope(&mut self, mut reader: Reader<'_>) -> Result<Scope, DecodeError> {
        let mut scope = Scope::default();
        let mark = self.build.mark();
        while let Some((number, field)) = reader.next_field()? {
            match (number, field) {
                (1, Field::Len(at)) => scope.name = self.text(at),
                (2, Field::Len(at)) => scope.version = self.text(at),
                (3, Field::Len(at)) => self.key_value(reader.nested(at))?,
                (4, Field::Varint(n)) => scope.dropped = n as u32,
                (1..=4, _) => return Err(reader.wrong_type("InstrumentationScope", number)),
                _ => {}
            }
        }
        scope.attrs = self.build.take_attrs(mark);
        Ok(scope)
    }

    fn span(&mut self, mut reader: Reader<'_>) -> Result<(), DecodeError> {
        let before = Before::new(&self.build);
        let mut span = Span::default();
        let mut times = [0u64; 2];
        while let Some((number, field)) = reader.next_field()? {
            match (number, field) {
                (9, Field::Len(at)) => self.key_value(reader.nested(at))?,
                (1, Field::Len(at)) => span.trace_id = trace_id(reader.bytes(at)),
                (2, Field::Len(at)) => span.span_id = span_id(reader.bytes(at)),
                (3, Field::Len(at)) => span.trace_state = self.text(at),
                (4, Field::Len(at)) => span.parent_id = span_id(reader.bytes(at)),
                (5, Field::Len(at)) => span.name = self.text(at),
                (6, Field::Varint(n)) => span.kind = SpanKind::from_number(n as u32),
                (7, Field::Fixed64(n)) => times[0] = n,
                (8, Field::Fixed64(n)) => times[1] = n,
                (10, Field::Varint(n)) => span.dropped[0] = n as u32,
                (11, Field::Len(at)) => self.event(reader.nested(at))?,
                (12, Field::Varint(n)) => span.dropped[1] = n as u32,
                (13, Field::Len(at)) => self.link(reader.nested(at))?,
                (14, Field::Varint(n)) => span.dropped[2] = n as u32,
                (15, Field::Len(at)) => self.status(reader.nested(at), &mut span)?,
                (16, Field::Fixed32(n)) => span.flags = u64::from(n),
                (1..=16, _) => return Err(reader.wrong_type("Span", number)),
                _ => {}
            }
        }
        add_span(&mut self.build, &mut self.rejected, span, times, before)
    }

    fn status(&mut self, mut reader: Reader<'_>, span: &mut Span) -> Result<(), DecodeError> {
        while let Some((number, field)) = reader.next_field()? {
            match (number, field) {
                (2, Field::Len(at)) => span.status_message = self.text(at),
                (3, Field::Varint(n)) => span.status = Status::from_number(n as u32),
                (2 | 3, _) => return Err(reader.wrong_type("Status", number)),
                _ => {}
            }
        }
        Ok(())
    }

    fn event(&mut self, mut reader: Reader<'_>) -> Result<(), DecodeError> {
        let mark = self.build.mark();
        let mut event = Event::default();
        while let Some((number, field)) = reader.next_field()? {
            match (number, field) {
                (1, Field::Fixed64(n)) => event.time = n,
                (2, Field::Len(at)) => event.name = self.text(at),
                (3, Field::Len(at)) => self.key_value(reader.nested(at))?,
                (4, Field::Varint(n)) => event.dropped = n as u32,
                (1..=4, _) => return Err(reader.wrong_type("Span.Event", number)),
                _ => {}
            }
        }
        event.attrs = self.build.take_attrs(mark);
        self.build.event(event)
    }

    fn link(&mut self, mut reader: Reader<'_>) -> Result<(), DecodeError> {
        let mark = self.build.mark();
        let mut link = Link::default();
        while let Some((number, field)) = reader.next_field()? {
            match (number, field) {
                (1, Field::Len(at)) => link.trace_id = TraceId::from_be_slice(reader.bytes(at)),
                (2, Field::Len(at)) => link.span_id = SpanId::from_be_slice(reader.bytes(at)),
                (3, Field::Len(at)) => link.trace_state = self.text(at),
                (4, Field::Len(at)) => self.key_value(reader.nested(at))?,
                (5, Field::Varint(n)) => link.dropped = n as u32,
                (6, Field::Fixed32(n)) => link.flags = n,
                (1..=6, _) => return Err(reader.wrong_type("Span.Link", number)),
                _ => {}
            }
        }
        link.attrs = self.build.take_attrs(mark);
        self.build.link(link)
    }

    #[inline]
    fn key_value(&mut self, reader: Reader<'_>) -> Result<(), DecodeError> {
        let (key, value) = self.key_value_at(reader, Limits::DEFAULT.depth)?;
        self.build.attr(key, value)
    }

    fn key_value_at(&mut self, mut reader: Reader<'_>, depth: u32) -> Result<(Text, Value), DecodeError> {
        let (mut key, mut value) = (Text::EMPTY, Value::Empty);
        while let Some((number, field)) = reader.next_field()? {
            match (number, field) {
                (1, Field::Len(at)) => key = self.text(at),
                (2, Field::Len(at)) => value = self.any_value(reader.nested(at), depth)?,
                (1 | 2, _) => return Err(reader.wrong_type("KeyValue", number)),
                _ => {}
            }
        }
        Ok((key, value))
    }

    fn any_value(&mut self, mut reader: Reader<'_>, depth: u32) -> Result<Value, DecodeError> {
        let mut value = Value::Empty;
        while let Some((number, field)) = reader.next_field()? {
            value = match (number, field) {
                (1, Field::Len(at)) => Value::Str(self.text(at)),
                (2, Field::Varint(n)) => Value::Bool(n != 0),
                (3, Field::Varint(n)) => Value::Int(n as i64),
                (4, Field::Fixed64(n)) => Value::Double(f64::from_bits(n)),
                (5, Field::Len(at)) => Value::List(self.list(reader.nested(at), deeper(depth)?)?),
                (6, Field::Len(at)) => Value::Map(self.map(reader.nested(at), deeper(depth)?)?),
                (7, Field::Len(at)) => Value::Bytes(self.build.batch.arena.body_slice(at.start, at.len())),
                (1..=7, _) => return Err(reader.wrong_type("AnyValue", number)),
                _ => value,
            };
        }
        Ok(value)
    }

    fn list(&mut self, mut reader: Reader<'_>, depth: u32) -> Result<Range32, DecodeError> {
        let mark = self.build.value_mark();
        while let Some((number, field)) = reader.next_field()? {
            match (number, field) {
                (1, Field::Len(at)) => {
                    let value = self.any_value(reader.nested(at), depth)?;
                    self.build.value(value)?;
                }
                (1, _) => return Err(reader.wrong_type("ArrayValue", number)),
                _ => {}
            }
        }
        Ok(self.build.take_values(mark))
    }

    fn map(&mut self, mut reader: Reader<'_>, depth: u32) -> Result<Range32, DecodeError> {
        let mark = self.build.mark();
        while let Some((number, field)) = reader.next_field()? {
            match (number, field) {
                (1, Field::Len(at)) => {
                    let (key, value) = self.key_value_at(reader.nested(at), depth)?;
                    self.build.attr(key, value)?;
                }
                (1, _) => return Err(reader.wrong_type("KeyValueList", number)),
                _ => {}
            }
        }
        Ok(self.build.take_attrs(mark))
    }
}
