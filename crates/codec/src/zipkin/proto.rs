//! Zipkin v2 protobuf: `zipkin.proto3.ListOfSpans` (zipkin-api:zipkin.proto).

use super::draft::{Draft, finish_batch, lower_case};
use super::endpoint::{Endpoint, add_address};
use super::ids::{Format, check_present};
use super::json_v2::{port, set};
use crate::DecodeError;
use crate::build::Build;
use crate::protobuf::{Field, Reader, Span as At};
use bytes::Bytes;
use spanloom_model::{Batch, Intake, SpanId, SpanKind, Text, TraceId, flags};
use std::net::IpAddr;

/// Decodes a `ListOfSpans`. Rules and errors are those of
/// [`super::decode_json_v2`].
///
/// # Errors
/// When the bytes are not that message or an id is missing or zero.
pub fn decode_proto(body: Bytes, intake: Intake) -> Result<Batch, DecodeError> {
    read(&body, intake).map_err(|e| Format::Proto.wrap(e))
}

fn read(body: &Bytes, intake: Intake) -> Result<Batch, DecodeError> {
    let mut build = Build::new(body.clone(), intake);
    let mut reader = Reader::new(body);
    while let Some(field) = reader.next_field()? {
        match field {
            (1, Field::Len(at)) => span(reader.nested(at), &mut build)?,
            (1, _) => return Err(reader.wrong_type("ListOfSpans", 1)),
            _ => {}
        }
    }
    Ok(finish_batch(build))
}

fn text(build: &mut Build, at: At) -> Text {
    build.batch.arena.text_from_body(at.start, at.len())
}

fn span(mut reader: Reader<'_>, build: &mut Build) -> Result<(), DecodeError> {
    let mut draft = Draft::new(build);
    let (mut timestamp, mut duration) = (0, 0);
    while let Some((number, field)) = reader.next_field()? {
        let span = &mut draft.span;
        match (number, field) {
            (11, Field::Len(at)) => tag(reader.nested(at), build)?,
            (1, Field::Len(at)) => span.trace_id = TraceId(id(reader.bytes(at), "traceId", 16)?),
            (2, Field::Len(at)) => span.parent_id = SpanId(id(reader.bytes(at), "parentId", 8)? as u64),
            (3, Field::Len(at)) => span.span_id = SpanId(id(reader.bytes(at), "id", 8)? as u64),
            (4, Field::Varint(n)) => {
                span.kind = match n {
                    1 => SpanKind::Client,
                    2 => SpanKind::Server,
                    3 => SpanKind::Producer,
                    4 => SpanKind::Consumer,
                    _ => SpanKind::Unspecified,
                }
            }
            (5, Field::Len(at)) => span.name = text(build, at),
            (6, Field::Fixed64(n)) => timestamp = n as i64,
            (7, Field::Varint(n)) => duration = n as i64,
            (8, Field::Len(at)) => draft.ends.local = endpoint(reader.nested(at), build)?,
            (9, Field::Len(at)) => draft.ends.remote = endpoint(reader.nested(at), build)?,
            (10, Field::Len(at)) => annotation(reader.nested(at), build)?,
            (12, Field::Varint(n)) => set(&mut span.flags, flags::DEBUG, n != 0),
            (13, Field::Varint(n)) => set(&mut span.flags, flags::SHARED, n != 0),
            (1..=13, _) => return Err(reader.wrong_type("Span", number)),
            _ => {}
        }
    }
    check_present(draft.span.trace_id, draft.span.span_id).map_err(|e| Format::Proto.error(e))?;
    draft.set_times(timestamp, duration);
    draft.finish(build)
}

fn id(bytes: &[u8], field: &str, max: usize) -> Result<u128, DecodeError> {
    if bytes.len() > max {
        return Err(Format::Proto.error(format_args!("{field}.length > {}", max * 2)));
    }
    let id = TraceId::from_be_slice(bytes).0;
    if id == 0 && !bytes.is_empty() && field != "parentId" {
        return Err(Format::Proto.error(format_args!("{field} is all zeros")));
    }
    Ok(id)
}

fn endpoint(mut reader: Reader<'_>, build: &mut Build) -> Result<Endpoint, DecodeError> {
    let mut end = Endpoint::default();
    while let Some((number, field)) = reader.next_field()? {
        match (number, field) {
            (1, Field::Len(at)) => {
                let service = text(build, at);
                end.service = lower_case(build, service);
            }
            (2 | 3, Field::Len(at)) => {
                // Other lengths are not addresses; Zipkin ignores them too.
                let bytes = reader.bytes(at);
                let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
                if let Ok(address) = v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)) {
                    add_address(build, &mut end, address, None);
                }
            }
            (4, Field::Varint(n)) => {
                end.port = port(i64::from(n as i32)).map_err(|e| Format::Proto.error(e))?
            }
            (1..=4, _) => return Err(reader.wrong_type("Endpoint", number)),
            _ => {}
        }
    }
    Ok(end)
}

fn annotation(mut reader: Reader<'_>, build: &mut Build) -> Result<(), DecodeError> {
    let (mut timestamp, mut value) = (0, Text::EMPTY);
    while let Some((number, field)) = reader.next_field()? {
        match (number, field) {
            (1, Field::Fixed64(n)) => timestamp = n as i64,
            (2, Field::Len(at)) => value = text(build, at),
            (1 | 2, _) => return Err(reader.wrong_type("Annotation", number)),
            _ => {}
        }
    }
    Draft::annotation(build, timestamp, value)
}

fn tag(mut reader: Reader<'_>, build: &mut Build) -> Result<(), DecodeError> {
    let (mut key, mut value) = (Text::EMPTY, Text::EMPTY);
    while let Some((number, field)) = reader.next_field()? {
        match (number, field) {
            (1, Field::Len(at)) => key = text(build, at),
            (2, Field::Len(at)) => value = text(build, at),
            (1 | 2, _) => return Err(reader.wrong_type("TagsEntry", number)),
            _ => {}
        }
    }
    Draft::tag(build, key, value)
}
