//! The trace endpoints (datadog-agent:pkg/trace/api/api.go).

use super::container::ContainerResolver;
use super::sources::{End, Seen};
use super::tee::Kept;
use super::{Receiver, request as req, request::Said};
use crate::answer::{self, Answer};
use crate::body::{self, BodyError, Received};
use crate::intake::Counted;
use crate::server::Request;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use spanloom_codec::DecodeError;
use spanloom_codec::datadog::{Encoding, RequestMeta, decode_traces};
use spanloom_model::{Attr, Batch, Intake, Protocol, Value, keys};
use spanloom_pipeline::{PayloadOutcome, RatesSnapshot, Refused};
use std::sync::Arc;
use tokio::time::Instant;

/// Bodies up to this size are decoded where they are received; decoding them
/// takes about as long as handing them to another thread.
const INLINE_BYTES: usize = 64 << 10;

const RATES_VERSION: &str = "datadog-rates-payload-version";

/// How a request failed, in the words of the Agent.
enum Failure {
    /// No room in time; the reason is the ledger's.
    Overload(&'static str),
    /// Room was not found before the request's time was over.
    TimedOut,
    TooLarge,
    Slow,
    Decode(DecodeError),
}

/// What a decoder needs of a request, owned, so that it can go to a thread.
struct Meta {
    lang: String,
    lang_version: String,
    tracer_version: String,
    container_id: String,
    process_tags: String,
}

impl Receiver {
    pub(super) async fn traces(&self, request: &mut Request, version: Protocol) -> Answer {
        let said = Said::of(&request.head.headers);
        let encoding = match version {
            Protocol::DatadogV05 | Protocol::DatadogV07 | Protocol::DatadogV1 => Encoding::Msgpack,
            _ => req::encoding(said.content_type),
        };
        if let Some(refusal) = refuse(said.fetch_site, version, encoding) {
            return refusal;
        }
        let mut counted = Counted::new(self.inlet.ledger(), version);
        counted.traces = req::count(said.trace_count);
        let intake = Intake {
            protocol: version,
            transport: request.conn.transport,
            client: said.client_flags(),
            received_at: self.inlet.now(),
            ..Intake::default()
        };
        let meta = self.meta(request, &said);
        // The answer tells the rates of before: what this body changes in them
        // is told to the next, as the Agent does.
        let rates = self.inlet.rates().snapshot();
        let mut seen = None;
        let taken = self.take(request, encoding, intake, meta, &mut counted, &mut seen).await;
        if let Some(sources) = &self.config.sources {
            sources.count(request, version, seen, &ended(&taken));
        }
        match taken {
            Ok(()) => {
                counted.end(PayloadOutcome::Accepted, "");
                success(request, version, &rates)
            }
            Err(failure) => self.failure(request, version, failure, &rates, &mut counted).await,
        }
    }

    /// Body → batch → pipeline.
    async fn take(
        &self,
        request: &mut Request,
        encoding: Encoding,
        intake: Intake,
        meta: Meta,
        counted: &mut Counted,
        seen: &mut Option<Seen>,
    ) -> Result<(), Failure> {
        let slot_by = Instant::now() + self.config.decoder_timeout;
        let max = self.config.max_payload_size;
        if encoding == Encoding::Msgpack && request.length().is_some_and(|n| n > max) {
            return Err(Failure::TooLarge);
        }
        let Received { bytes, more, permit } =
            match body::receive(request, &self.inlet, self.body_limits()).await {
                Ok(received) => received,
                Err(BodyError::Busy) => return Err(Failure::Overload("memory")),
                Err(BodyError::Timeout) => return Err(Failure::Slow),
                Err(BodyError::Ended) => return Err(Failure::Decode(DecodeError::UnexpectedEof)),
            };
        let size = bytes.len() as u64;
        counted.bytes = size;
        // The Agent's msgpack reader reads once more to see the end, and finds
        // its limit used up when the body is exactly as long.
        if encoding == Encoding::Msgpack && size >= max {
            return Err(Failure::TooLarge);
        }
        let working = self.resends.begin(&bytes, std::time::Instant::now());
        let small = bytes.len() <= INLINE_BYTES;
        let (again, fingerprint) = (working.again, working.fingerprint());
        let (containers, look) = (Arc::clone(&self.containers), self.config.sources.is_some());
        let decode = move || {
            let mut batch = decode(intake.protocol, encoding, bytes, intake, &meta)?;
            batch.intake.resent = again;
            batch.intake.fingerprint = fingerprint;
            add_container_tags(&*containers, &mut batch);
            let seen = look.then(|| Seen::new(&batch, size));
            Ok((batch, seen))
        };
        let (decoded, submitted) = if small {
            match decode() {
                Ok((batch, seen)) => (Some(Ok(seen)), self.inlet.submit(batch, permit).await),
                Err(error) => (Some(Err(error)), Err(Refused::Failed)),
            }
        } else {
            let slot = Arc::clone(&self.decode_slots).acquire_owned();
            let slot = tokio::time::timeout_at(slot_by.min(request.deadline), slot);
            let Ok(Ok(slot)) = slot.await else { return Err(Failure::Overload("decoders")) };
            let decode = move || {
                // Others may decode while the batch is worked on.
                let _slot = slot;
                match decode() {
                    Ok((batch, seen)) => (Some((batch, permit)), Ok(seen)),
                    Err(error) => (None, Err(error)),
                }
            };
            self.inlet.submit_body(decode).await
        };
        let failed = match decoded {
            Some(Ok(found)) => {
                *seen = found;
                None
            }
            Some(Err(error)) => Some(error),
            // It was called, and panicked.
            None if submitted == Err(Refused::Failed) => Some(DecodeError::new("internal error")),
            None => None,
        };
        match failed {
            // The value would have gone on beyond the limit.
            Some(DecodeError::UnexpectedEof | DecodeError::TooFewBytes) if more => {
                return Err(Failure::TooLarge);
            }
            Some(error) => {
                working.answered(std::time::Instant::now(), true);
                return Err(Failure::Decode(error));
            }
            None => {}
        }
        // After a time-out nobody knows: the batch may still be kept.
        working.answered(std::time::Instant::now(), !matches!(submitted, Err(Refused::Timeout)));
        match submitted {
            Ok(_) => {
                if let Some(kept) = request.head.extensions.get::<Kept>() {
                    kept.set();
                }
                Ok(())
            }
            Err(Refused::Busy) => Err(Failure::Overload("queue_full")),
            Err(Refused::NotTaken { reason }) => Err(Failure::Overload(reason)),
            Err(Refused::Closing) => Err(Failure::Overload("closing")),
            Err(Refused::Timeout) => Err(Failure::TimedOut),
            Err(Refused::Failed) => {
                // Sending the same bytes again would fail again.
                counted.end(PayloadOutcome::Rejected, "panic");
                Ok(())
            }
        }
    }

    fn meta(&self, request: &Request, said: &Said<'_>) -> Meta {
        Meta {
            lang: said.lang.into(),
            lang_version: said.lang_version.into(),
            tracer_version: said.tracer_version.into(),
            container_id: self.container_of(request),
            process_tags: said.process_tags.into(),
        }
    }

    async fn failure(
        &self,
        request: &mut Request,
        version: Protocol,
        failure: Failure,
        rates: &RatesSnapshot,
        counted: &mut Counted,
    ) -> Answer {
        match failure {
            Failure::Overload(reason) => {
                counted.end(PayloadOutcome::Refused, reason);
                // The Agent reads the body before it answers, so that the
                // connection stays usable. Whatever goes wrong, the answer is
                // the same.
                let _ = body::discard(request, self.config.max_payload_size).await;
                self.overload(request, version, rates)
            }
            Failure::TimedOut => {
                counted.end(PayloadOutcome::Refused, "payload_timeout");
                answer::empty(StatusCode::TOO_MANY_REQUESTS)
            }
            Failure::TooLarge => {
                counted.end(PayloadOutcome::Rejected, "payload_too_large");
                answer::error(StatusCode::PAYLOAD_TOO_LARGE, "payload-too-large")
            }
            Failure::Slow => {
                counted.end(PayloadOutcome::Rejected, "timeout");
                answer::error(StatusCode::REQUEST_TIMEOUT, "timeout")
            }
            Failure::Decode(error) => {
                counted.end(PayloadOutcome::Rejected, error.drop_reason());
                tracing::debug!(%error, protocol = version.name(), "body cannot be decoded");
                answer::error(StatusCode::BAD_REQUEST, &error.to_string())
            }
        }
    }

    /// The body of a success, under a status that says so only to clients that
    /// asked for it.
    fn overload(&self, request: &Request, version: Protocol, rates: &RatesSnapshot) -> Answer {
        let mut answer = success(request, version, rates);
        answer.headers_mut().remove(RATES_VERSION);
        let honest =
            req::truthy(request.header("datadog-send-real-http-status")) || self.config.feature("429");
        if honest {
            *answer.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        }
        if !answers_rates(version) {
            answer.headers_mut().insert(CONTENT_TYPE, answer::TEXT);
        }
        answer
    }

    /// `/…/services`: nothing is read, nothing is kept.
    pub(super) fn services(&self, request: &Request, json_only: bool) -> Answer {
        let version = if json_only { Protocol::DatadogV02 } else { Protocol::DatadogV04 };
        let encoding = req::encoding(request.header("content-type"));
        refuse(request.header("sec-fetch-site"), version, encoding)
            .unwrap_or_else(|| answer::typed(StatusCode::OK, answer::TEXT, "OK\n"))
    }
}

/// Puts what is known about the container on the resources; overwrites
/// what a tracer sent.
fn add_container_tags(containers: &dyn ContainerResolver, batch: &mut Batch) {
    for i in 0..batch.resources.len() {
        let resource = batch.resources[i];
        if resource.container_id.is_empty() {
            continue;
        }
        let tags = containers.tags(batch.str(resource.container_id)).unwrap_or_default().join(",");
        if tags.is_empty() {
            continue;
        }
        let value = Value::Str(batch.arena.push(&tags));
        let known = batch.attrs(resource.attrs).iter().position(|a| batch.str(a.key) == keys::CONTAINER_TAGS);
        match known {
            Some(at) => batch.attrs[resource.attrs.start as usize + at].value = value,
            None => {
                let key = batch.arena.push_static(keys::CONTAINER_TAGS);
                batch.resources[i].attrs = batch.extend_range(resource.attrs, Attr { key, value });
            }
        }
    }
}

/// How a request ended, for the count by sources.
fn ended(taken: &Result<(), Failure>) -> End {
    match taken {
        Ok(()) => End::Accepted,
        Err(Failure::Overload(_)) => End::Refused,
        Err(Failure::TimedOut) => End::TimedOut,
        Err(Failure::TooLarge) => End::Dropped("payload_too_large"),
        Err(Failure::Slow) => End::Dropped("timeout"),
        Err(Failure::Decode(error)) => End::Dropped(error.drop_reason()),
    }
}

/// What is refused by its headers alone.
fn refuse(fetch_site: &str, version: Protocol, encoding: Encoding) -> Option<Answer> {
    if matches!(version, Protocol::DatadogV01 | Protocol::DatadogV02) && encoding == Encoding::Msgpack {
        let text = "unsupported media type: \"application/msgpack\"";
        return Some(answer::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    if fetch_site == "cross-site" {
        return Some(answer::error(StatusCode::FORBIDDEN, "cross-site request rejected"));
    }
    None
}

/// The answer to a body that was taken.
fn success(request: &Request, version: Protocol, rates: &RatesSnapshot) -> Answer {
    if !answers_rates(version) {
        return answer::typed(StatusCode::OK, answer::TEXT, "OK\n");
    }
    let known = request.header(RATES_VERSION);
    let body = if !known.is_empty() && known == rates.version {
        Bytes::from_static(b"{}")
    } else {
        rates.body.clone()
    };
    let mut answer = answer::typed(StatusCode::OK, answer::JSON, body);
    if !known.is_empty()
        && let Ok(version) = HeaderValue::try_from(&rates.version)
    {
        answer.headers_mut().insert(RATES_VERSION, version);
    }
    answer
}

const fn answers_rates(version: Protocol) -> bool {
    !matches!(version, Protocol::DatadogV01 | Protocol::DatadogV02 | Protocol::DatadogV03)
}

fn decode(
    version: Protocol,
    encoding: Encoding,
    body: Bytes,
    intake: Intake,
    meta: &Meta,
) -> Result<Batch, DecodeError> {
    let meta = RequestMeta {
        lang: &meta.lang,
        lang_version: &meta.lang_version,
        tracer_version: &meta.tracer_version,
        container_id: &meta.container_id,
        process_tags: &meta.process_tags,
    };
    decode_traces(version, encoding, body, intake, &meta)
}
