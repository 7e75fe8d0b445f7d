//! Zipkin v1 Thrift: a list of `zipkincore.Span` in the binary encoding
//! (zipkin-api:thrift/zipkinCore.thrift).

use super::draft::{finish_batch, lower_case};
use super::endpoint::{Endpoint, add_address};
use super::ids::{Format, check_present};
use super::v1::{Annotation, Binary, V1, convert};
use crate::DecodeError;
use crate::build::Build;
use crate::thrift::{Encoding, Reader, Type};
use bytes::Bytes;
use spanloom_model::{Batch, Intake, SpanId, Text, TraceId, Value};
use std::net::{IpAddr, Ipv4Addr};

/// Decodes a list of v1 spans in Thrift's binary encoding. An empty body is an
/// empty list. See [`super::decode_json_v1`].
///
/// # Errors
/// When the bytes are not such a list or an id is missing or zero.
pub fn decode_thrift(body: Bytes, intake: Intake) -> Result<Batch, DecodeError> {
    read(&body, intake).map_err(|e| Format::Thrift.wrap(e))
}

fn read(body: &Bytes, intake: Intake) -> Result<Batch, DecodeError> {
    let mut build = Build::new(body.clone(), intake);
    if body.is_empty() {
        return Ok(build.batch);
    }
    let mut reader = Reader::new(body, Encoding::Binary);
    let mut v1 = V1::default();
    reader.structs(|r| {
        v1.clear();
        span(r, &mut build, &mut v1)?;
        check_present(v1.trace_id, v1.id).map_err(|e| Format::Thrift.error(e))?;
        convert(&mut v1, &mut build)
    })?;
    Ok(finish_batch(build))
}

fn text(r: &mut Reader<'_>, build: &mut Build) -> Result<Text, DecodeError> {
    let s = r.string()?;
    Ok(build.batch.arena.text_from_body(s.start, s.len))
}

fn span(r: &mut Reader<'_>, build: &mut Build, v1: &mut V1) -> Result<(), DecodeError> {
    let (mut low, mut high) = (0u64, 0u64);
    r.structure(|r, id, ty| {
        match (id, ty) {
            (1, Type::I64) => low = r.i64()? as u64,
            (3, Type::String) => v1.name = text(r, build)?,
            (4, Type::I64) => v1.id = SpanId(r.i64()? as u64),
            (5, Type::I64) => v1.parent_id = SpanId(r.i64()? as u64),
            (6, Type::List) => r.structs(|r| annotation(r, build, v1))?,
            (8, Type::List) => r.structs(|r| binary(r, build, v1))?,
            (9, Type::Bool) => v1.debug = r.bool()?,
            (10, Type::I64) => v1.timestamp = r.i64()?,
            (11, Type::I64) => v1.duration = r.i64()?,
            (12, Type::I64) => high = r.i64()? as u64,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    v1.trace_id = TraceId::from_halves(high, low);
    Ok(())
}

fn annotation(r: &mut Reader<'_>, build: &mut Build, v1: &mut V1) -> Result<(), DecodeError> {
    let mut a = Annotation { timestamp: 0, value: Text::EMPTY, host: None };
    r.structure(|r, id, ty| {
        match (id, ty) {
            (1, Type::I64) => a.timestamp = r.i64()?,
            (2, Type::String) => a.value = text(r, build)?,
            (3, Type::Struct) => a.host = endpoint(r, build)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    build.charge(size_of::<Annotation>())?;
    v1.annotations.push(a);
    Ok(())
}

fn binary(r: &mut Reader<'_>, build: &mut Build, v1: &mut V1) -> Result<(), DecodeError> {
    let (mut key, mut value, mut kind, mut host) = (Text::EMPTY, None, 0, None);
    r.structure(|r, id, ty| {
        match (id, ty) {
            (1, Type::String) => key = text(r, build)?,
            (2, Type::String) => value = Some(r.string()?),
            (3, Type::I32) => kind = r.i32()?,
            (4, Type::Struct) => host = endpoint(r, build)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let Some(raw) = value else { return Ok(()) };
    let bytes = r.bytes(raw);
    // AnnotationType: BOOL, BYTES, I16, I32, I64, DOUBLE, STRING. Numbers that
    // do not have their width are left out, as by Zipkin.
    let printed = match kind {
        0 => {
            let address = matches!(build.batch.str(key), "ca" | "sa" | "ma");
            if address {
                // A false address says nothing.
                if bytes.first() == Some(&1) {
                    build.charge(size_of::<Binary>())?;
                    v1.binary.push(Binary { key, value: None, host });
                }
                return Ok(());
            }
            Some((bytes.first() == Some(&1)).to_string())
        }
        2 => bytes.try_into().ok().map(|b| i16::from_be_bytes(b).to_string()),
        3 => bytes.try_into().ok().map(|b| i32::from_be_bytes(b).to_string()),
        4 => bytes.try_into().ok().map(|b| i64::from_be_bytes(b).to_string()),
        5 => bytes.try_into().ok().map(|b| {
            let mut out = String::new();
            crate::json::print_double(&mut out, f64::from_be_bytes(b));
            out
        }),
        _ => None,
    };
    let value = match (kind, printed) {
        (_, Some(text)) => Value::Str(build.batch.arena.push(&text)),
        (6, None) => Value::Str(build.batch.arena.text_from_body(raw.start, raw.len)),
        // Bytes stay bytes inside; Zipkin's own view prints them as base64.
        (1, None) => Value::Bytes(build.batch.arena.body_slice(raw.start, raw.len)),
        _ => return Ok(()),
    };
    build.charge(size_of::<Binary>())?;
    v1.binary.push(Binary { key, value: Some(value), host });
    Ok(())
}

fn endpoint(r: &mut Reader<'_>, build: &mut Build) -> Result<Option<Endpoint>, DecodeError> {
    let mut end = Endpoint::default();
    r.structure(|r, id, ty| {
        match (id, ty) {
            (1, Type::I32) => {
                let v4 = r.i32()? as u32;
                if v4 != 0 {
                    add_address(build, &mut end, IpAddr::V4(Ipv4Addr::from(v4)), None);
                }
            }
            (2, Type::I16) => end.port = r.i16()? as u16,
            (3, Type::String) => {
                let service = text(r, build)?;
                end.service = lower_case(build, service);
            }
            (4, Type::String) => {
                let raw = r.string()?;
                if let Ok(v6) = <[u8; 16]>::try_from(r.bytes(raw)) {
                    add_address(build, &mut end, IpAddr::from(v6), None);
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Some(end).filter(|e| !e.is_empty()))
}
