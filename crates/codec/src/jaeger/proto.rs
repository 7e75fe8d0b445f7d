//! `jaeger.api_v2.PostSpansRequest`.

use super::draft::{Draft, RefType, Reference, finish_log, finish_process};
use crate::DecodeError;
use crate::build::{Build, Decoded, Rejected};
use crate::protobuf::{Field, Reader, Span as At};
use bytes::Bytes;
use spanloom_model::{Intake, SpanId, Text, TraceId, Value};
use std::collections::HashMap;

/// Decodes a `PostSpansRequest` (jaeger-idl:proto/api_v2/collector.proto,
/// model.proto). The process of the batch is that of all spans without their
/// own. Spans with a zero id are left out and counted.
///
/// # Errors
/// When the bytes are not that message. Nothing is taken then.
pub fn decode_grpc(body: Bytes, intake: Intake) -> Result<Decoded, DecodeError> {
    let mut walk = Walk {
        build: Build::new(body.clone(), intake),
        rejected: Rejected::default(),
        references: Vec::new(),
        processes: HashMap::new(),
    };
    let mut reader = Reader::new(&body);
    while let Some(field) = reader.next_field()? {
        match field {
            (1, Field::Len(at)) => walk.batch(reader.nested(at))?,
            (1, _) => return Err(reader.wrong_type("PostSpansRequest", 1)),
            _ => {}
        }
    }
    Ok(walk.rejected.finish(walk.build.batch))
}

struct Walk<'a> {
    build: Build,
    rejected: Rejected,
    references: Vec<Reference>,
    /// By their bytes: exporters repeat the process in every span.
    processes: HashMap<&'a [u8], (u32, Text)>,
}

impl<'a> Walk<'a> {
    fn text(&mut self, at: At) -> Text {
        self.build.batch.arena.text_from_body(at.start, at.len())
    }

    fn batch(&mut self, whole: Reader<'a>) -> Result<(), DecodeError> {
        // The process may stand behind the spans.
        let mut common = None;
        let mut reader = whole;
        while let Some((number, field)) = reader.next_field()? {
            match (number, field) {
                (1, Field::Len(_)) => {}
                (2, Field::Len(at)) => common = Some(self.process(&reader, at)?),
                (1 | 2, _) => return Err(reader.wrong_type("Batch", number)),
                _ => {}
            }
        }
        // Spans of one process together: a chunk has one resource.
        let mut spans: Vec<(u32, Text, At)> = Vec::new();
        let mut reader = whole;
        while let Some((number, field)) = reader.next_field()? {
            let (1, Field::Len(at)) = (number, field) else { continue };
            let mut own = None;
            let mut span = reader.nested(at);
            while let Some((number, field)) = span.next_field()? {
                if let (10, Field::Len(at)) = (number, field) {
                    own = Some(self.process(&span, at)?);
                }
            }
            let (resource, service) = match own.or(common) {
                Some(process) => process,
                None => *common.insert(self.process(&reader, At { start: 0, end: 0 })?),
            };
            self.build.charge(size_of::<(u32, Text, At)>())?;
            spans.push((resource, service, at));
        }
        spans.sort_by_key(|s| s.0);
        for same in spans.chunk_by(|a, b| a.0 == b.0) {
            let first = self.build.batch.spans.len();
            for &(_, service, at) in same {
                self.span(whole.nested(at), service)?;
            }
            let resource = same.first().map_or(0, |s| s.0);
            self.build.batch.chunk_by_trace(first, resource);
        }
        Ok(())
    }

    fn process(&mut self, reader: &Reader<'a>, at: At) -> Result<(u32, Text), DecodeError> {
        if let Some(known) = self.processes.get(reader.bytes(at)) {
            return Ok(*known);
        }
        let mark = self.build.mark();
        let mut service = Text::EMPTY;
        let mut fields = reader.nested(at);
        while let Some((number, field)) = fields.next_field()? {
            match (number, field) {
                (1, Field::Len(at)) => service = self.text(at),
                (2, Field::Len(at)) => self.tag(fields.nested(at))?,
                (1 | 2, _) => return Err(fields.wrong_type("Process", number)),
                _ => {}
            }
        }
        let process = finish_process(&mut self.build, mark, service)?;
        self.processes.insert(reader.bytes(at), process);
        Ok(process)
    }

    fn span(&mut self, mut reader: Reader<'_>, service: Text) -> Result<(), DecodeError> {
        let mut draft = Draft::new(&self.build, service);
        self.references.clear();
        while let Some((number, field)) = reader.next_field()? {
            let span = &mut draft.span;
            match (number, field) {
                (8, Field::Len(at)) => self.tag(reader.nested(at))?,
                (1, Field::Len(at)) => span.trace_id = TraceId(id(&reader, at, 16)?),
                (2, Field::Len(at)) => span.span_id = SpanId(id(&reader, at, 8)? as u64),
                (3, Field::Len(at)) => span.name = self.text(at),
                (4, Field::Len(at)) => self.reference(reader.nested(at))?,
                (5, Field::Varint(n)) => draft.wire_flags = n as u32,
                (6, Field::Len(at)) => span.start = time(reader.nested(at))?,
                (7, Field::Len(at)) => span.duration = time(reader.nested(at))?,
                (9, Field::Len(at)) => self.log(reader.nested(at))?,
                (10..=12, Field::Len(_)) => {}
                (1..=12, _) => return Err(reader.wrong_type("Span", number)),
                _ => {}
            }
        }
        draft.finish(&mut self.build, &mut self.rejected, &self.references)
    }

    fn reference(&mut self, mut reader: Reader<'_>) -> Result<(), DecodeError> {
        let mut reference = Reference::default();
        while let Some((number, field)) = reader.next_field()? {
            match (number, field) {
                (1, Field::Len(at)) => reference.trace_id = TraceId(id(&reader, at, 16)?),
                (2, Field::Len(at)) => reference.span_id = SpanId(id(&reader, at, 8)? as u64),
                (3, Field::Varint(n)) => {
                    reference.kind = if n == 1 { RefType::FollowsFrom } else { RefType::ChildOf };
                }
                (1..=3, _) => return Err(reader.wrong_type("SpanRef", number)),
                _ => {}
            }
        }
        self.build.charge(size_of::<Reference>())?;
        self.references.push(reference);
        Ok(())
    }

    fn log(&mut self, mut reader: Reader<'_>) -> Result<(), DecodeError> {
        let mark = self.build.mark();
        let mut at_time = 0;
        while let Some((number, field)) = reader.next_field()? {
            match (number, field) {
                (1, Field::Len(at)) => at_time = u64::try_from(time(reader.nested(at))?).unwrap_or(0),
                (2, Field::Len(at)) => self.tag(reader.nested(at))?,
                (1 | 2, _) => return Err(reader.wrong_type("Log", number)),
                _ => {}
            }
        }
        finish_log(&mut self.build, mark, at_time)
    }

    fn tag(&mut self, mut reader: Reader<'_>) -> Result<(), DecodeError> {
        let (mut key, mut kind) = (Text::EMPTY, 0);
        let mut values = [
            Value::Str(Text::EMPTY),
            Value::Bool(false),
            Value::Int(0),
            Value::Double(0.0),
            Value::Bytes(Text::EMPTY),
        ];
        while let Some((number, field)) = reader.next_field()? {
            match (number, field) {
                (1, Field::Len(at)) => key = self.text(at),
                (2, Field::Varint(n)) => kind = n,
                (3, Field::Len(at)) => values[0] = Value::Str(self.text(at)),
                (4, Field::Varint(n)) => values[1] = Value::Bool(n != 0),
                (5, Field::Varint(n)) => values[2] = Value::Int(n as i64),
                (6, Field::Fixed64(n)) => values[3] = Value::Double(f64::from_bits(n)),
                (7, Field::Len(at)) => {
                    values[4] = Value::Bytes(self.build.batch.arena.body_slice(at.start, at.len()))
                }
                (1..=7, _) => return Err(reader.wrong_type("KeyValue", number)),
                _ => {}
            }
        }
        // A type of a later version: there is no value that we know.
        let value = usize::try_from(kind).ok().and_then(|i| values.get(i).copied()).unwrap_or(Value::Empty);
        self.build.attr(key, value)
    }
}

/// An id of at most `max` bytes, right-aligned.
fn id(reader: &Reader<'_>, at: At, max: usize) -> Result<u128, DecodeError> {
    if at.len() > max {
        return Err(DecodeError::text(format!(
            "protobuf: id of {} bytes, at most {max} are allowed",
            at.len()
        )));
    }
    Ok(TraceId::from_be_slice(reader.bytes(at)).0)
}

/// `google.protobuf.Timestamp` or `Duration` in nanoseconds, saturating.
fn time(mut reader: Reader<'_>) -> Result<i64, DecodeError> {
    let (mut seconds, mut nanos) = (0i64, 0i64);
    while let Some((number, field)) = reader.next_field()? {
        match (number, field) {
            (1, Field::Varint(n)) => seconds = n as i64,
            (2, Field::Varint(n)) => nanos = i64::from(n as i32),
            (1 | 2, _) => return Err(reader.wrong_type("Timestamp", number)),
            _ => {}
        }
    }
    Ok(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}
