//! `jaeger.thrift`: a bare `Batch` over HTTP, a call of `emitBatch` over UDP.

use super::draft::{Draft, RefType, Reference, finish_log, finish_process};
use crate::DecodeError;
use crate::build::{Build, Decoded, Rejected};
use crate::thrift::{Encoding, Message, Reader, Type};
use bytes::Bytes;
use spanloom_model::{Intake, SpanId, Text, TraceId, Value};

/// Decodes the body of a request to `/api/traces`: one `Batch` in the binary
/// encoding. Spans with a zero id are left out and counted.
///
/// # Errors
/// When the bytes are not that struct. Nothing is taken then.
pub fn decode_thrift_http(body: Bytes, intake: Intake) -> Result<Decoded, DecodeError> {
    let mut reader = Reader::new(&body, Encoding::Binary);
    decode(&body, &mut reader, intake)
}

/// Decodes a datagram to port 6831: a call of `emitBatch` in the compact
/// encoding.
///
/// # Errors
/// As [`decode_thrift_http`]; also for any other method, such as the obsolete
/// `emitZipkinBatch`.
pub fn decode_udp_compact(body: Bytes, intake: Intake) -> Result<Decoded, DecodeError> {
    decode_message(&body, Encoding::Compact, intake)
}

/// Decodes a datagram to port 6832: a call of `emitBatch` in the binary
/// encoding, with or without a version in front.
///
/// # Errors
/// As [`decode_udp_compact`].
pub fn decode_udp_binary(body: Bytes, intake: Intake) -> Result<Decoded, DecodeError> {
    decode_message(&body, Encoding::Binary, intake)
}

fn decode_message(body: &Bytes, encoding: Encoding, intake: Intake) -> Result<Decoded, DecodeError> {
    let mut reader = Reader::new(body, encoding);
    let (name, kind) = reader.message()?;
    let method = reader.bytes(name);
    if method != b"emitBatch" || kind == Message::Other {
        let method = String::from_utf8_lossy(method.get(..64).unwrap_or(method)).into_owned();
        return Err(reader.error(format_args!("unknown method {method}")));
    }
    let mut decoded = None;
    reader.structure(|r, id, ty| {
        if (id, ty) == (1, Type::Struct) {
            decoded = Some(decode(body, r, intake)?);
            return Ok(true);
        }
        Ok(false)
    })?;
    decoded.ok_or_else(|| reader.error("emitBatch without a batch"))
}

struct Walk {
    build: Build,
    rejected: Rejected,
    references: Vec<Reference>,
}

fn decode(body: &Bytes, reader: &mut Reader<'_>, intake: Intake) -> Result<Decoded, DecodeError> {
    let mut walk = Walk {
        build: Build::new(body.clone(), intake),
        rejected: Rejected::default(),
        references: Vec::new(),
    };
    let (mut process, mut spans) = (None, false);
    reader.structure(|r, id, ty| {
        match (id, ty) {
            (1, Type::Struct) => process = Some(walk.process(r)?),
            (2, Type::List) => {
                spans = true;
                r.structs(|r| walk.span(r))?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let Some((resource, service)) = process else {
        return Err(reader.error("required field process is not set"));
    };
    if !spans {
        return Err(reader.error("required field spans is not set"));
    }
    let batch = &mut walk.build.batch;
    for span in &mut batch.spans {
        span.service = service;
    }
    batch.chunk_by_trace(0, resource);
    Ok(walk.rejected.finish(walk.build.batch))
}

/// Microseconds to nanoseconds.
const fn nanos(micros: i64) -> i64 {
    micros.saturating_mul(1000)
}

impl Walk {
    fn text(&mut self, r: &mut Reader<'_>) -> Result<Text, DecodeError> {
        let s = r.string()?;
        Ok(self.build.batch.arena.text_from_body(s.start, s.len))
    }

    fn process(&mut self, r: &mut Reader<'_>) -> Result<(u32, Text), DecodeError> {
        let mark = self.build.mark();
        let mut service = Text::EMPTY;
        r.structure(|r, id, ty| {
            match (id, ty) {
                (1, Type::String) => service = self.text(r)?,
                (2, Type::List) => r.structs(|r| self.tag(r))?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        finish_process(&mut self.build, mark, service)
    }

    fn span(&mut self, r: &mut Reader<'_>) -> Result<(), DecodeError> {
        let mut draft = Draft::new(&self.build, Text::EMPTY);
        self.references.clear();
        let (mut low, mut high) = (0u64, 0u64);
        r.structure(|r, id, ty| {
            let span = &mut draft.span;
            match (id, ty) {
                (1, Type::I64) => low = r.i64()? as u64,
                (2, Type::I64) => high = r.i64()? as u64,
                (3, Type::I64) => span.span_id = SpanId(r.i64()? as u64),
                (4, Type::I64) => span.parent_id = SpanId(r.i64()? as u64),
                (5, Type::String) => span.name = self.text(r)?,
                (6, Type::List) => r.structs(|r| self.reference(r))?,
                (7, Type::I32) => draft.wire_flags = r.i32()? as u32,
                (8, Type::I64) => span.start = nanos(r.i64()?),
                (9, Type::I64) => span.duration = nanos(r.i64()?),
                (10, Type::List) => r.structs(|r| self.tag(r))?,
                (11, Type::List) => r.structs(|r| self.log(r))?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        draft.span.trace_id = TraceId::from_halves(high, low);
        draft.finish(&mut self.build, &mut self.rejected, &self.references)
    }

    fn reference(&mut self, r: &mut Reader<'_>) -> Result<(), DecodeError> {
        let mut reference = Reference::default();
        let (mut low, mut high) = (0u64, 0u64);
        r.structure(|r, id, ty| {
            match (id, ty) {
                (1, Type::I32) if r.i32()? == 1 => reference.kind = RefType::FollowsFrom,
                (1, Type::I32) => {}
                (2, Type::I64) => low = r.i64()? as u64,
                (3, Type::I64) => high = r.i64()? as u64,
                (4, Type::I64) => reference.span_id = SpanId(r.i64()? as u64),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        reference.trace_id = TraceId::from_halves(high, low);
        self.build.charge(size_of::<Reference>())?;
        self.references.push(reference);
        Ok(())
    }

    fn log(&mut self, r: &mut Reader<'_>) -> Result<(), DecodeError> {
        let mark = self.build.mark();
        let mut time = 0;
        r.structure(|r, id, ty| {
            match (id, ty) {
                (1, Type::I64) => time = u64::try_from(nanos(r.i64()?)).unwrap_or(0),
                (2, Type::List) => r.structs(|r| self.tag(r))?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        finish_log(&mut self.build, mark, time)
    }

    fn tag(&mut self, r: &mut Reader<'_>) -> Result<(), DecodeError> {
        let (mut key, mut kind) = (Text::EMPTY, 0);
        let mut values = [
            Value::Str(Text::EMPTY),
            Value::Double(0.0),
            Value::Bool(false),
            Value::Int(0),
            Value::Bytes(Text::EMPTY),
        ];
        r.structure(|r, id, ty| {
            match (id, ty) {
                (1, Type::String) => key = self.text(r)?,
                (2, Type::I32) => kind = r.i32()?,
                (3, Type::String) => values[0] = Value::Str(self.text(r)?),
                (4, Type::Double) => values[1] = Value::Double(r.double()?),
                (5, Type::Bool) => values[2] = Value::Bool(r.bool()?),
                (6, Type::I64) => values[3] = Value::Int(r.i64()?),
                (7, Type::String) => {
                    let s = r.string()?;
                    values[4] = Value::Bytes(self.build.batch.arena.body_slice(s.start, s.len));
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        // A type of a later version: there is no value that we know.
        let value = usize::try_from(kind).ok().and_then(|i| values.get(i).copied()).unwrap_or(Value::Empty);
        self.build.attr(key, value)
    }
}
