//! One span, its links and its events.

use crate::{KeyBits, Range32, SpanId, Text, TraceId};

/// Role of a span. Numbers are OTLP's (and Datadog v1.0's).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
#[repr(u8)]
pub enum SpanKind {
    /// Nothing was said.
    #[default]
    Unspecified = 0,
    /// Work inside a service.
    Internal = 1,
    /// Handles a request.
    Server = 2,
    /// Makes a request.
    Client = 3,
    /// Puts a message on a queue.
    Producer = 4,
    /// Takes a message off a queue.
    Consumer = 5,
}

impl SpanKind {
    /// From OTLP's number; anything else is unspecified.
    pub const fn from_number(n: u32) -> Self {
        match n {
            1 => Self::Internal,
            2 => Self::Server,
            3 => Self::Client,
            4 => Self::Producer,
            5 => Self::Consumer,
            _ => Self::Unspecified,
        }
    }
    /// The role that the type of a Datadog span implies.
    pub fn of_type(span_type: &str) -> Self {
        match span_type {
            "web" => Self::Server,
            "http" => Self::Client,
            _ => Self::Unspecified,
        }
    }

    /// From the text of the tag `span.kind`, in any case.
    pub fn from_name(s: &str) -> Option<Self> {
        const NAMES: [(&str, SpanKind); 5] = [
            ("internal", SpanKind::Internal),
            ("server", SpanKind::Server),
            ("client", SpanKind::Client),
            ("producer", SpanKind::Producer),
            ("consumer", SpanKind::Consumer),
        ];
        NAMES.iter().find(|(n, _)| s.eq_ignore_ascii_case(n)).map(|(_, k)| *k)
    }
    /// The text of the tag `span.kind`; empty when unspecified.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "",
            Self::Internal => "internal",
            Self::Server => "server",
            Self::Client => "client",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }
}

/// OTLP status code. A Datadog span with `error` ≠ 0 is [`Status::Error`],
/// otherwise [`Status::Unset`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
#[repr(u8)]
pub enum Status {
    /// Nothing was said.
    #[default]
    Unset = 0,
    /// Marked as successful.
    Ok = 1,
    /// Failed.
    Error = 2,
}

impl Status {
    /// From OTLP's number; anything else is unset.
    pub const fn from_number(n: u32) -> Self {
        match n {
            1 => Self::Ok,
            2 => Self::Error,
            _ => Self::Unset,
        }
    }
}

/// Bits of [`Span::flags`]. Bits 0–31 are the wire's own flags (OTLP span
/// flags, of which 0–7 are W3C trace flags; Jaeger's flags in bits 0–7);
/// the bits above are ours.
pub mod flags {
    /// Zipkin `shared`: the server half of a span that the caller started.
    pub const SHARED: u64 = 1 << 32;
    /// Zipkin or Jaeger `debug`: keep at any rate.
    pub const DEBUG: u64 = 1 << 33;
    /// No start time was sent; `start` is 0.
    pub const NO_START: u64 = 1 << 34;
    /// No duration was sent; `duration` is 0.
    pub const NO_DURATION: u64 = 1 << 35;
    /// Came as Zipkin: the attributes are its tags and endpoints, unchanged.
    pub const FROM_ZIPKIN: u64 = 1 << 36;
    /// Came as Jaeger: the attributes are its tags, unchanged.
    pub const FROM_JAEGER: u64 = 1 << 37;
    /// Came as OTLP.
    pub const FROM_OTLP: u64 = 1 << 38;
    /// Bits 48–54: which attributes of a Zipkin span are parts of its
    /// endpoints rather than tags (see `codec/src/zipkin/endpoint.rs`).
    pub const ENDPOINT_PARTS: u64 = 0x7f << 48;
    /// The local endpoint has an IPv4 address.
    pub const LOCAL_IPV4: u64 = 1 << 48;
    /// The local endpoint has an IPv6 address.
    pub const LOCAL_IPV6: u64 = 1 << 49;
    /// The local endpoint has a port.
    pub const LOCAL_PORT: u64 = 1 << 50;
    /// The remote endpoint has a service name.
    pub const REMOTE_SERVICE: u64 = 1 << 51;
    /// The remote endpoint has an IPv4 address.
    pub const REMOTE_IPV4: u64 = 1 << 52;
    /// The remote endpoint has an IPv6 address.
    pub const REMOTE_IPV6: u64 = 1 << 53;
    /// The remote endpoint has a port.
    pub const REMOTE_PORT: u64 = 1 << 54;
    /// Bit 55: the kind of a Zipkin span was read off its tag `span.kind`.
    pub const KIND_FROM_TAG: u64 = 1 << 55;
    /// Leaves for Datadog although its chunk does not (singly sampled span,
    /// analysed event); see [`crate::Leaves`].
    pub const LEAVES: u64 = 1 << 40;
}

/// One span. Plain data: texts are positions in the batch's arena, attributes,
/// links and events are ranges in the batch's tables.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Span {
    /// 128-bit trace id; Datadog's halves are joined by the decoder.
    pub trace_id: TraceId,
    /// Id of the span.
    pub span_id: SpanId,
    /// Id of the parent, 0 for a root.
    pub parent_id: SpanId,
    /// Start, nanoseconds since the Unix epoch. Signed because Datadog's wire
    /// is; negative only before normalisation.
    pub start: i64,
    /// Duration in nanoseconds; negative only before normalisation.
    pub duration: i64,
    /// Service that did the work.
    pub service: Text,
    /// Operation: Datadog `name`, OTLP/Zipkin name, Jaeger operation name.
    pub name: Text,
    /// Datadog `resource` (`GET /users`); empty for other protocols.
    pub resource: Text,
    /// Datadog `type` (`web`, `sql`); empty for other protocols.
    pub span_type: Text,
    /// W3C trace state.
    pub trace_state: Text,
    /// Message of the status.
    pub status_message: Text,
    /// Attributes: positions in [`crate::Batch::attrs`].
    pub attrs: Range32,
    /// Keys that the attributes may have. Whoever gives a span other keys
    /// says so here ([`crate::Batch`]'s own methods do).
    pub keys: KeyBits,
    /// Links: positions in [`crate::Batch::links`].
    pub links: Range32,
    /// Events: positions in [`crate::Batch::events`].
    pub events: Range32,
    /// Position in [`crate::Batch::scopes`], or [`crate::NO_SCOPE`].
    pub scope: u32,
    /// Datadog `error` as sent; 0 or 1 for other protocols.
    pub error: i32,
    /// See [`flags`].
    pub flags: u64,
    /// Attributes, events and links that the client says it dropped.
    pub dropped: [u32; 3],
    /// Role.
    pub kind: SpanKind,
    /// Outcome.
    pub status: Status,
}

impl Span {
    /// End in nanoseconds, saturating.
    #[inline]
    pub fn end(&self) -> i64 {
        self.start.saturating_add(self.duration)
    }
    /// Whether the span failed, by either convention.
    #[inline]
    pub fn is_error(&self) -> bool {
        self.error != 0 || self.status == Status::Error
    }
}

/// A reference from a span to another span.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Link {
    /// Trace of the other span.
    pub trace_id: TraceId,
    /// The other span.
    pub span_id: SpanId,
    /// W3C trace state of the link.
    pub trace_state: Text,
    /// Flags as sent (Datadog sets bit 31 to say "present").
    pub flags: u32,
    /// Attributes: positions in [`crate::Batch::attrs`].
    pub attrs: Range32,
    /// Attributes that the client says it dropped.
    pub dropped: u32,
}

/// Something that happened at a moment of a span.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Event {
    /// Time, nanoseconds since the Unix epoch.
    pub time: u64,
    /// Name; empty for a Jaeger log without the field `event`.
    pub name: Text,
    /// Attributes: positions in [`crate::Batch::attrs`].
    pub attrs: Range32,
    /// Attributes that the client says it dropped.
    pub dropped: u32,
}
