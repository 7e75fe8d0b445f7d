//! Unary gRPC by hand over the HTTP/2 that is there anyway: one message in, one
//! message or one status out (grpc:doc/PROTOCOL-HTTP2.md).

use crate::answer::{self, Answer, AnswerBody};
use crate::body::{self, BodyLimits, Compression, Received};
use crate::intake::{Failure, Gate, Taken};
use crate::server::Request;
use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use spanloom_codec::DecodeError;
use spanloom_codec::otlp::Decoded;
use spanloom_codec::protobuf::Writer;
use spanloom_model::{Intake, Protocol};
use spanloom_pipeline::{Inlet, PayloadOutcome};
use std::time::Duration;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const ACCEPT: HeaderName = HeaderName::from_static("grpc-accept-encoding");
/// A message is preceded by a flag and its length.
const FRAME: u64 = 5;
/// Codings of messages that we take.
const CODINGS: HeaderValue = HeaderValue::from_static("identity,gzip,deflate,zstd");
/// Largest message that only asks something, in bytes.
const QUESTION: u64 = 64 << 10;

/// Status of a call (grpc:doc/statuscodes.md).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Code {
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

/// A status that is not OK.
pub(crate) struct Status {
    pub code: Code,
    pub message: String,
    /// After what time the client may try again.
    pub retry: Option<Duration>,
}

impl Status {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry: None }
    }

    /// A failure in the words of gRPC and OTLP (opentelemetry-proto:docs/
    /// specification.md): what may be sent again carries a RetryInfo.
    pub(crate) fn of(failure: &Failure, retry: Duration) -> Self {
        let (code, again) = match failure {
            Failure::Overload(_) => (Code::ResourceExhausted, true),
            Failure::Unavailable(_) | Failure::Unacknowledged => (Code::Unavailable, true),
            Failure::TooLarge(_) => (Code::ResourceExhausted, false),
            Failure::Slow => (Code::DeadlineExceeded, false),
            Failure::Ended | Failure::Damaged(_) | Failure::Decode(_) => (Code::InvalidArgument, false),
            Failure::Internal => (Code::Internal, false),
        };
        Self { code, message: failure.to_string(), retry: again.then_some(retry) }
    }

    /// `google.rpc.Status` (googleapis:google/rpc/status.proto, error_details.proto).
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut w = Writer::new(&mut out);
        w.varint(1, self.code as u64);
        w.bytes(2, self.message.as_bytes());
        if let Some(retry) = self.retry {
            let any = w.open(3);
            w.bytes(1, b"type.googleapis.com/google.rpc.RetryInfo");
            let info = w.open(2);
            let delay = w.open(1);
            w.varint(1, retry.as_secs());
            w.varint(2, u64::from(retry.subsec_nanos()));
            w.close(delay);
            w.close(info);
            w.close(any);
        }
        drop(w);
        out
    }

    /// The answer to a call: headers that are trailers too.
    pub(crate) fn answer(&self) -> Answer {
        let mut answer = answer::empty(StatusCode::OK);
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, GRPC);
        headers.insert(STATUS, HeaderValue::from(self.code as u16));
        if let Ok(text) = HeaderValue::try_from(percent(&self.message)) {
            headers.insert(MESSAGE, text);
        }
        if self.retry.is_some()
            && let Ok(details) = HeaderValue::try_from(BASE64_STANDARD_NO_PAD.encode(self.encode()))
        {
            headers.insert(DETAILS, details);
        }
        answer
    }
}

/// `grpc-message`: everything that is not printable ASCII, and `%`, escaped.
fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        match b {
            b' '..=b'~' if b != b'%' => out.push(char::from(b)),
            _ => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

/// A call that went well.
pub(crate) fn reply(message: &[u8]) -> Answer {
    let mut frame = BytesMut::with_capacity(message.len() + FRAME as usize);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    let mut trailers = HeaderMap::new();
    trailers.insert(STATUS, HeaderValue::from_static("0"));
    let mut answer = Response::new(AnswerBody::Trailed(Some(frame.freeze()), Some(trailers)));
    answer.headers_mut().insert(CONTENT_TYPE, GRPC);
    answer.headers_mut().insert(ACCEPT, CODINGS);
    answer
}

/// How the messages of a call are compressed; `None`: a coding that we do not
/// know.
fn coding(request: &Request) -> Option<Compression> {
    Compression::parse(request.header("grpc-encoding"))
}

/// The answer to a coding that we do not know.
fn unsupported(request: &Request) -> Answer {
    let text = format!("grpc-encoding {} is not supported", request.header("grpc-encoding"));
    let mut answer = Status::new(Code::Unimplemented, text).answer();
    answer.headers_mut().insert(ACCEPT, CODINGS);
    answer
}

/// What every gRPC listener answers before it looks at its own methods: what
/// is not gRPC, and health checks (grpc:doc/health-checking.md).
pub(crate) fn aside(request: &Request) -> Option<Answer> {
    if request.head.method != Method::POST {
        return Some(answer::empty(StatusCode::METHOD_NOT_ALLOWED));
    }
    let kind = request.header("content-type").to_ascii_lowercase();
    if !matches!(
        kind.strip_prefix("application/grpc").map(|r| r.bytes().next()),
        Some(None | Some(b'+' | b';'))
    ) {
        return Some(answer::empty(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    (request.head.uri.path() == "/grpc.health.v1.Health/Check").then(|| reply(&[8, 1]))
}

/// There is no such method.
pub(crate) fn unknown(request: &Request) -> Answer {
    let path: String = request.head.uri.path().chars().take(200).collect();
    Status::new(Code::Unimplemented, format!("unknown method {path}")).answer()
}

/// A call that brings spans: message → batch → pipeline.
pub(crate) async fn take(
    gate: &Gate,
    request: &mut Request,
    protocol: Protocol,
    retry: Duration,
    decode: impl FnOnce(Bytes, Intake) -> Result<Decoded, DecodeError> + Send + 'static,
) -> Result<Taken, Answer> {
    let mut counted = gate.count(protocol);
    let intake = gate.intake(request, protocol);
    let Some(coding) = coding(request) else {
        counted.end(PayloadOutcome::Rejected, "unsupported_encoding");
        return Err(unsupported(request));
    };
    let result = async {
        let mut received = gate.receive(request, FRAME, &mut counted).await?;
        let compression = unframe(&mut received.bytes, coding)?;
        gate.deliver(received, compression, intake, decode).await
    }
    .await;
    gate.settle(&mut counted, &result);
    result.map_err(|failure| Status::of(&failure, retry).answer())
}

/// A call that only asks something: its message, at most 64 KiB of it, paid
/// for. Such calls bring no spans, so they are not in the ledger.
pub(crate) async fn question(
    inlet: &Inlet,
    request: &mut Request,
    wait: Duration,
    retry: Duration,
) -> Result<Received, Answer> {
    let Some(coding) = coding(request) else { return Err(unsupported(request)) };
    let result = async {
        let limits = BodyLimits { max: QUESTION + FRAME, wait };
        let mut received = body::receive(request, inlet, limits).await?;
        if received.more {
            return Err(Failure::TooLarge(QUESTION));
        }
        let compression = unframe(&mut received.bytes, coding)?;
        Ok(body::expand(received, compression, QUESTION)?)
    }
    .await;
    result.map_err(|failure| Status::of(&failure, retry).answer())
}

/// Takes the frame off the one message that there must be.
fn unframe(body: &mut Bytes, coding: Compression) -> Result<Compression, Failure> {
    let Some((&[flag, a, b, c, d], message)) = body.split_first_chunk::<{ FRAME as usize }>() else {
        return Err(Failure::Damaged("the call has no message".into()));
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > message.len() {
        return Err(Failure::Ended);
    }
    if length < message.len() {
        return Err(Failure::Damaged("the call has more than one message".into()));
    }
    let compression = match flag {
        0 => Compression::Identity,
        1 if coding != Compression::Identity => coding,
        _ => return Err(Failure::Damaged("compressed message without grpc-encoding".into())),
    };
    *body = body.slice(FRAME as usize..);
    Ok(compression)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_escaped_for_headers() {
        assert_eq!(percent("100 % ä\n"), "100 %25 %C3%A4%0A");
    }

    #[test]
    fn a_frame_holds_exactly_one_message() {
        for (frame, coding, good) in [
            (&b"\0\0\0\0\x02ab"[..], Compression::Identity, true),
            (b"\0\0\0\0\x02ab", Compression::Gzip, true),
            (b"\x01\0\0\0\x02ab", Compression::Gzip, true),
            (b"\x01\0\0\0\x02ab", Compression::Identity, false),
            (b"\x02\0\0\0\x02ab", Compression::Gzip, false),
            (b"\0\0\0\0\x03ab", Compression::Identity, false),
            (b"\0\0\0\0\x01ab", Compression::Identity, false),
            (b"\0\xff\xff\xff\xffab", Compression::Identity, false),
            (b"\0\0\0", Compression::Identity, false),
            (b"", Compression::Identity, false),
        ] {
            let mut body = Bytes::from_static(frame);
            let result = unframe(&mut body, coding);
            assert_eq!(result.is_ok(), good, "{frame:?}");
            assert!(!good || body == "ab");
        }
    }

    #[test]
    fn only_what_may_be_sent_again_has_a_retry_info() {
        let second = Duration::from_secs(1);
        for (failure, code, again) in [
            (Failure::Overload("memory"), Code::ResourceExhausted, true),
            (Failure::Unavailable("closing"), Code::Unavailable, true),
            (Failure::Unacknowledged, Code::Unavailable, true),
            (Failure::TooLarge(1), Code::ResourceExhausted, false),
            (Failure::Ended, Code::InvalidArgument, false),
            (Failure::Internal, Code::Internal, false),
        ] {
            let status = Status::of(&failure, second);
            assert_eq!((status.code, status.retry.is_some()), (code, again), "{failure:?}");
            assert_eq!(status.answer().headers().contains_key(&DETAILS), again);
        }
        let mut expected = vec![8, 8, 18, 1, b'x', 26, 48, 10, 40];
        expected.extend_from_slice(b"type.googleapis.com/google.rpc.RetryInfo");
        expected.extend_from_slice(&[18, 4, 10, 2, 8, 1]);
        let status = Status { code: Code::ResourceExhausted, message: "x".into(), retry: Some(second) };
        assert_eq!(status.encode(), expected);
    }
}
