//! Datadog's trace and stats formats.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | [`decode_traces`], [`RequestMeta`], [`Encoding`] |
//! | `agent_payload.rs` | model → what the Agent sends to the trace intake |
//! | `builder.rs` | what all versions share: texts, attributes without duplicates, 128-bit ids, the memory budget |
//! | `v04.rs` | v0.3 and v0.4 msgpack, and the span that v0.7 shares |
//! | `v05.rs` | v0.5: spans as arrays over a dictionary |
//! | `v07.rs` | v0.7: a payload with metadata around v0.4 spans |
//! | `v1.rs` | v1.0: integer keys, streaming string table, typed attributes |
//! | `from_otlp/` | spans of OTLP, Zipkin and Jaeger as the Agent would send them |
//! | `json.rs` | the JSON variant of v0.1–v0.4 |
//! | `stats.rs` | client stats of `/v0.6/stats` |
//! | `encode.rs` | model → v0.4 and v0.5, for other agents, tests and load tools |
//! | `resend.rs` | what a root must say where the format has no place for it |
//!
//! Rules: datadog-agent:pkg/proto/pbgo/trace (`decoder_bytes.go`,
//! `decoder_v05.go`, `span_gen.go`, `idx/`), pkg/trace/api/api.go.

pub mod agent_payload;
mod builder;
mod encode;
pub mod from_otlp;
mod json;
mod resend;
mod stats;
mod v04;
mod v05;
mod v07;
mod v1;

use crate::{DecodeError, Limits};
use bytes::Bytes;
use spanloom_model::{Arena, Batch, Intake, Protocol};

pub use encode::{encode_v04, encode_v05};
pub use resend::prepare_v04;
pub use stats::{decode_stats, decode_stats_within, stats_error_text};

/// How the body of a v0.1–v0.4 request is written. Later versions are always
/// msgpack, whatever the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// `application/msgpack`.
    #[default]
    Msgpack,
    /// `application/json`, `text/json`, or no usable content type.
    Json,
    /// Any other content type: JSON is tried. As in the Datadog Agent, the
    /// attempt uses up the body, so that msgpack under such a type is an
    /// empty msgpack body.
    JsonThenMsgpack,
}

/// What the request's headers say about the sender. Which of it enters the
/// batch depends on the version: v0.1–v0.5 take all of it, v0.7 nothing, v1.0
/// the container id if the payload has none.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestMeta<'a> {
    /// `Datadog-Meta-Lang`.
    pub lang: &'a str,
    /// `Datadog-Meta-Lang-Version`.
    pub lang_version: &'a str,
    /// `Datadog-Meta-Tracer-Version`.
    pub tracer_version: &'a str,
    /// Container id, resolved from the request.
    pub container_id: &'a str,
    /// `X-Datadog-Process-Tags`: used when neither the payload nor its first
    /// span has `_dd.tags.process`.
    pub process_tags: &'a str,
}

/// Decodes the body of a request to one of the trace endpoints.
///
/// Bytes after the first complete value are ignored. nil where an object may
/// stand is dropped and the rest kept. `intake.protocol` is set to `protocol`.
///
/// # Errors
/// [`DecodeError::TooFewBytes`] and [`DecodeError::UnexpectedEof`] for bodies
/// that end early, [`DecodeError::UnsupportedMediaType`] for msgpack on v0.1
/// and v0.2, otherwise the decoder's text with the place of the fault.
pub fn decode_traces(
    protocol: Protocol,
    encoding: Encoding,
    body: Bytes,
    intake: Intake,
    meta: &RequestMeta<'_>,
) -> Result<Batch, DecodeError> {
    decode_traces_within(protocol, encoding, body, intake, meta, &Limits::DEFAULT)
}

/// [`decode_traces`] with other limits than the default ones.
///
/// # Errors
/// As [`decode_traces`].
pub fn decode_traces_within(
    protocol: Protocol,
    encoding: Encoding,
    body: Bytes,
    intake: Intake,
    meta: &RequestMeta<'_>,
    limits: &Limits,
) -> Result<Batch, DecodeError> {
    if body.len() > Arena::MAX_BYTES {
        return Err(DecodeError::Limit("payload-too-large".into()));
    }
    let intake = Intake { protocol, ..intake };
    let mut b = builder::Builder::new(body.clone(), intake, *limits);
    let result = match (protocol, encoding) {
        (Protocol::DatadogV05, _) => v05::decode(&mut b, &body, meta),
        (Protocol::DatadogV07, _) => v07::decode(&mut b, &body),
        (Protocol::DatadogV1, _) => v1::decode(&mut b, &body, meta).map(|()| b.batch.note_keys()),
        (Protocol::DatadogV01 | Protocol::DatadogV02, Encoding::Msgpack) => {
            return Err(DecodeError::UnsupportedMediaType("application/msgpack".into()));
        }
        (Protocol::DatadogV03 | Protocol::DatadogV04, Encoding::Msgpack) => v04::decode(&mut b, &body, meta),
        (
            Protocol::DatadogV01 | Protocol::DatadogV02 | Protocol::DatadogV03 | Protocol::DatadogV04,
            Encoding::Json | Encoding::JsonThenMsgpack,
        ) => {
            match json::decode(&mut b, &body, meta) {
                Ok(()) => b.batch.note_keys(),
                // What the msgpack decoder says to the nothing that is left.
                Err(_) if encoding == Encoding::JsonThenMsgpack => return Err(DecodeError::TooFewBytes),
                Err(e) => return Err(e),
            }
            Ok(())
        }
        _ => return Err(DecodeError::new("not a Datadog trace format")),
    };
    if let Err(e) = result {
        return Err(b.place(e));
    }
    b.finish(meta);
    Ok(b.batch)
}
