//! Zipkin v2 JSON: a list of spans.

use super::draft::{Draft, finish_batch, lower_case};
use super::endpoint::{Endpoint, parse_address};
use super::ids::{self, Format, check_present};
use crate::DecodeError;
use crate::build::Build;
use crate::json::{Kind, Reader, Str};
use bytes::Bytes;
use memchr::memmem;
use spanloom_model::{Batch, Intake, SpanKind, Text, flags};

/// Decodes a list of spans in Zipkin's v2 JSON
/// (zipkin-api:zipkin2-api.yaml `ListOfSpans`). An empty body is an empty list.
///
/// # Errors
/// With Zipkin's own texts: not a list, a list of v1 spans, a missing or
/// malformed id. One bad span refuses the request, as Zipkin does.
pub fn decode_json_v2(body: Bytes, intake: Intake) -> Result<Batch, DecodeError> {
    let body = repair(body);
    check_list(&body, "JSON_V2")?;
    read(&body, intake).map_err(|error| {
        // Zipkin looks for the v1 field name anywhere in the body it could not read.
        if memmem::find(&body, b"yAnnotations\"").is_some() {
            return DecodeError::new("Expected a JSON_V2 encoded list, but received: JSON_V1\n");
        }
        Format::Json.wrap(error)
    })
}

/// JSON that is not UTF-8 is repaired rather than refused: Java reads it so.
pub(super) fn repair(body: Bytes) -> Bytes {
    if simdutf8::basic::from_utf8(&body).is_ok() {
        return body;
    }
    Bytes::from(String::from_utf8_lossy(&body).into_owned())
}

/// Refuses what is not a list; an empty body is none and taken.
pub(super) fn check_list(body: &[u8], format: &str) -> Result<(), DecodeError> {
    match body.iter().find(|b| !b.is_ascii_whitespace()) {
        Some(b'[') | None => Ok(()),
        Some(_) => Err(DecodeError::text(format!("Expected a {format} encoded list\n"))),
    }
}

fn read(body: &Bytes, intake: Intake) -> Result<Batch, DecodeError> {
    let mut build = Build::new(body.clone(), intake);
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(build.batch);
    }
    let mut json = Reader::new(body)?;
    json.begin_array()?;
    while json.element()? {
        span(&mut json, &mut build)?;
    }
    json.end()?;
    Ok(finish_batch(build))
}

fn span(json: &mut Reader<'_>, build: &mut Build) -> Result<(), DecodeError> {
    let mut draft = Draft::new(build);
    let (mut timestamp, mut duration) = (0, 0);
    json.begin_object()?;
    while let Some(key) = json.key()? {
        let name = json.name(key)?;
        if json.null()? {
            continue;
        }
        let span = &mut draft.span;
        match name.as_ref() {
            b"traceId" => span.trace_id = id(json, ids::trace_id)?,
            b"id" => span.span_id = id(json, ids::span_id)?,
            b"parentId" => span.parent_id = id(json, ids::parent_id)?,
            b"kind" => span.kind = kind(json)?,
            b"name" => span.name = text(json, build)?,
            b"timestamp" => timestamp = int(json)?,
            b"duration" => duration = int(json)?,
            b"localEndpoint" => draft.ends.local = endpoint(json, build)?,
            b"remoteEndpoint" => draft.ends.remote = endpoint(json, build)?,
            b"annotations" => annotations(json, build)?,
            b"tags" => tags(json, build)?,
            b"debug" => set(&mut span.flags, flags::DEBUG, json.bool()?),
            b"shared" => set(&mut span.flags, flags::SHARED, json.bool()?),
            name if name.ends_with(b"yAnnotations") => {
                return Err(DecodeError::new("Expected a JSON_V2 encoded list, but received: JSON_V1\n"));
            }
            _ => json.skip()?,
        }
    }
    check_present(draft.span.trace_id, draft.span.span_id).map_err(|e| Format::Json.error(e))?;
    draft.set_times(timestamp, duration);
    draft.finish(build)
}

pub(super) fn set(flags: &mut u64, bit: u64, on: bool) {
    *flags = if on { *flags | bit } else { *flags & !bit };
}

/// A string, or the text of a number or truth value where others have sent
/// one.
pub(super) fn token(json: &mut Reader<'_>) -> Result<Str, DecodeError> {
    match json.kind()? {
        Kind::Number => json.number_token(),
        Kind::Bool => json.bool_token(),
        _ => json.string(),
    }
}

pub(super) fn text(json: &mut Reader<'_>, build: &mut Build) -> Result<Text, DecodeError> {
    let s = token(json)?;
    json.text(&mut build.batch.arena, s)
}

pub(super) fn id<T>(
    json: &mut Reader<'_>,
    parse: impl Fn(&[u8]) -> Result<T, String>,
) -> Result<T, DecodeError> {
    let s = token(json)?;
    parse(json.raw(s)).map_err(|e| Format::Json.error(e))
}

/// A number; also one in quotes, or with an exponent as Envoy once wrote them.
pub(super) fn int(json: &mut Reader<'_>) -> Result<i64, DecodeError> {
    let at = json.position();
    let s = token(json)?;
    let text = std::str::from_utf8(json.raw(s)).unwrap_or_default();
    if let Ok(n) = text.parse::<i64>() {
        return Ok(n);
    }
    match text.parse::<f64>() {
        // Beyond 64 bits the cast saturates.
        Ok(n) if n.is_finite() => Ok(n as i64),
        _ => Err(DecodeError::text(format!("json: expected a number (byte {at})"))),
    }
}

fn kind(json: &mut Reader<'_>) -> Result<SpanKind, DecodeError> {
    let s = json.string()?;
    match json.raw(s) {
        b"CLIENT" => Ok(SpanKind::Client),
        b"SERVER" => Ok(SpanKind::Server),
        b"PRODUCER" => Ok(SpanKind::Producer),
        b"CONSUMER" => Ok(SpanKind::Consumer),
        other => {
            let name = String::from_utf8_lossy(other);
            Err(Format::Json.error(format_args!("No enum constant zipkin2.Span.Kind.{name}")))
        }
    }
}

pub(super) fn endpoint(json: &mut Reader<'_>, build: &mut Build) -> Result<Endpoint, DecodeError> {
    let mut end = Endpoint::default();
    json.begin_object()?;
    while let Some(key) = json.key()? {
        let name = json.name(key)?;
        if json.null()? {
            continue;
        }
        match name.as_ref() {
            b"serviceName" => {
                let service = text(json, build)?;
                end.service = lower_case(build, service);
            }
            b"ipv4" | b"ipv6" => {
                let address = text(json, build)?;
                parse_address(build, &mut end, address);
            }
            b"port" => end.port = port(int(json)?).map_err(|e| Format::Json.error(e))?,
            _ => json.skip()?,
        }
    }
    Ok(end)
}

/// A port; 0 and less mean none.
pub(super) fn port(n: i64) -> Result<u16, String> {
    u16::try_from(n.max(0)).map_err(|_| format!("invalid port {n}"))
}

fn annotations(json: &mut Reader<'_>, build: &mut Build) -> Result<(), DecodeError> {
    json.begin_array()?;
    while json.element()? {
        let (mut timestamp, mut value) = (None, None);
        json.begin_object()?;
        while let Some(key) = json.key()? {
            let name = json.name(key)?;
            if json.null()? {
                continue;
            }
            match name.as_ref() {
                b"timestamp" => timestamp = Some(int(json)?),
                b"value" => value = Some(text(json, build)?),
                _ => json.skip()?,
            }
        }
        let (Some(timestamp), Some(value)) = (timestamp, value) else {
            return Err(Format::Json.error("Incomplete annotation"));
        };
        Draft::annotation(build, timestamp, value)?;
    }
    Ok(())
}

fn tags(json: &mut Reader<'_>, build: &mut Build) -> Result<(), DecodeError> {
    json.begin_object()?;
    while let Some(key) = json.key()? {
        let key = json.text(&mut build.batch.arena, key)?;
        if json.null()? {
            continue;
        }
        let value = text(json, build)?;
        Draft::tag(build, key, value)?;
    }
    Ok(())
}
