//! Zipkin v1 JSON: a list of spans with annotations and binary annotations.

use super::draft::finish_batch;
use super::ids::{self, Format, check_present};
use super::json_v2::{check_list, endpoint, id, int, repair, text};
use super::v1::{Annotation, Binary, V1, convert};
use crate::DecodeError;
use crate::build::Build;
use crate::json::{Kind, Reader};
use bytes::Bytes;
use memchr::memmem;
use spanloom_model::{Batch, Intake, Text, Value};

/// Decodes a list of spans in Zipkin's v1 JSON. An empty body is an empty
/// list. A v1 span that holds both halves of a call becomes two spans.
///
/// # Errors
/// As [`super::decode_json_v2`], with the formats exchanged.
pub fn decode_json_v1(body: Bytes, intake: Intake) -> Result<Batch, DecodeError> {
    let body = repair(body);
    check_list(&body, "JSON_V1")?;
    read(&body, intake).map_err(|error| {
        if [&b"Endpoint\""[..], b"\"tags\""].iter().any(|name| memmem::find(&body, name).is_some()) {
            return wrong_version();
        }
        Format::Json.wrap(error)
    })
}

fn wrong_version() -> DecodeError {
    DecodeError::new("Expected a JSON_V1 encoded list, but received: JSON_V2\n")
}

fn read(body: &Bytes, intake: Intake) -> Result<Batch, DecodeError> {
    let mut build = Build::new(body.clone(), intake);
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(build.batch);
    }
    let mut json = Reader::new(body)?;
    let mut v1 = V1::default();
    json.begin_array()?;
    while json.element()? {
        v1.clear();
        span(&mut json, &mut build, &mut v1)?;
        check_present(v1.trace_id, v1.id).map_err(|e| Format::Json.error(e))?;
        convert(&mut v1, &mut build)?;
    }
    json.end()?;
    Ok(finish_batch(build))
}

fn span(json: &mut Reader<'_>, build: &mut Build, v1: &mut V1) -> Result<(), DecodeError> {
    json.begin_object()?;
    while let Some(key) = json.key()? {
        let name = json.name(key)?;
        if json.null()? {
            continue;
        }
        match name.as_ref() {
            b"traceId" => v1.trace_id = id(json, ids::trace_id)?,
            b"id" => v1.id = id(json, ids::span_id)?,
            b"parentId" => v1.parent_id = id(json, ids::parent_id)?,
            b"name" => v1.name = text(json, build)?,
            b"timestamp" => v1.timestamp = int(json)?,
            b"duration" => v1.duration = int(json)?,
            b"debug" => v1.debug = json.bool()?,
            b"annotations" => annotations(json, build, v1)?,
            b"binaryAnnotations" => binary(json, build, v1)?,
            b"localEndpoint" | b"remoteEndpoint" | b"tags" => return Err(wrong_version()),
            _ => json.skip()?,
        }
    }
    Ok(())
}

fn annotations(json: &mut Reader<'_>, build: &mut Build, v1: &mut V1) -> Result<(), DecodeError> {
    json.begin_array()?;
    while json.element()? {
        let mut a = Annotation { timestamp: 0, value: Text::EMPTY, host: None };
        let (mut has_time, mut has_value) = (false, false);
        json.begin_object()?;
        while let Some(key) = json.key()? {
            let name = json.name(key)?;
            if json.null()? {
                continue;
            }
            match name.as_ref() {
                b"timestamp" => (a.timestamp, has_time) = (int(json)?, true),
                b"value" => (a.value, has_value) = (text(json, build)?, true),
                b"endpoint" => a.host = Some(endpoint(json, build)?).filter(|e| !e.is_empty()),
                _ => json.skip()?,
            }
        }
        if !has_time || !has_value {
            return Err(Format::Json.error("Incomplete annotation"));
        }
        build.charge(size_of::<Annotation>())?;
        v1.annotations.push(a);
    }
    Ok(())
}

fn binary(json: &mut Reader<'_>, build: &mut Build, v1: &mut V1) -> Result<(), DecodeError> {
    json.begin_array()?;
    while json.element()? {
        let mut b = Binary { key: Text::EMPTY, value: None, host: None };
        // `value: true` marks an address, or is a boolean tag.
        let (mut has_key, mut bool_value) = (false, false);
        json.begin_object()?;
        while let Some(key) = json.key()? {
            let name = json.name(key)?;
            if json.null()? {
                continue;
            }
            match name.as_ref() {
                b"key" => (b.key, has_key) = (text(json, build)?, true),
                b"value" => {
                    bool_value = json.kind()? == Kind::Bool;
                    b.value = Some(Value::Str(text(json, build)?));
                }
                b"endpoint" => b.host = Some(endpoint(json, build)?).filter(|e| !e.is_empty()),
                _ => json.skip()?,
            }
        }
        if !has_key || b.value.is_none() {
            return Err(Format::Json.error("Incomplete binaryAnnotation"));
        }
        if bool_value && matches!(build.batch.str(b.key), "ca" | "sa" | "ma") {
            b.value = None;
        }
        build.charge(size_of::<Binary>())?;
        v1.binary.push(b);
    }
    Ok(())
}
