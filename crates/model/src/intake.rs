//! What the door knows about the request a batch came in.

/// Wire format of a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
#[allow(missing_docs)] // the names say it; labels are in `name`
pub enum Protocol {
    DatadogV01,
    DatadogV02,
    DatadogV03,
    #[default]
    DatadogV04,
    DatadogV05,
    DatadogV07,
    DatadogV1,
    ZipkinJsonV1,
    ZipkinJsonV2,
    ZipkinThrift,
    ZipkinProto,
    OtlpGrpc,
    OtlpProto,
    OtlpJson,
    JaegerThriftHttp,
    JaegerGrpc,
    JaegerCompact,
    JaegerBinary,
}

impl Protocol {
    /// All formats, in the order of the enum.
    pub const ALL: [Self; 18] = [
        Self::DatadogV01,
        Self::DatadogV02,
        Self::DatadogV03,
        Self::DatadogV04,
        Self::DatadogV05,
        Self::DatadogV07,
        Self::DatadogV1,
        Self::ZipkinJsonV1,
        Self::ZipkinJsonV2,
        Self::ZipkinThrift,
        Self::ZipkinProto,
        Self::OtlpGrpc,
        Self::OtlpProto,
        Self::OtlpJson,
        Self::JaegerThriftHttp,
        Self::JaegerGrpc,
        Self::JaegerCompact,
        Self::JaegerBinary,
    ];

    /// Label in metrics, the ledger and the store.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DatadogV01 => "datadog_v0.1",
            Self::DatadogV02 => "datadog_v0.2",
            Self::DatadogV03 => "datadog_v0.3",
            Self::DatadogV04 => "datadog_v0.4",
            Self::DatadogV05 => "datadog_v0.5",
            Self::DatadogV07 => "datadog_v0.7",
            Self::DatadogV1 => "datadog_v1.0",
            Self::ZipkinJsonV1 => "zipkin_json_v1",
            Self::ZipkinJsonV2 => "zipkin_json_v2",
            Self::ZipkinThrift => "zipkin_thrift",
            Self::ZipkinProto => "zipkin_proto",
            Self::OtlpGrpc => "otlp_grpc",
            Self::OtlpProto => "otlp_http_proto",
            Self::OtlpJson => "otlp_http_json",
            Self::JaegerThriftHttp => "jaeger_thrift_http",
            Self::JaegerGrpc => "jaeger_grpc",
            Self::JaegerCompact => "jaeger_udp_compact",
            Self::JaegerBinary => "jaeger_udp_binary",
        }
    }

    /// Whether this is one of Datadog's own formats. Only those spans go
    /// through the Agent's normalisation on their way to the store.
    pub const fn is_datadog(self) -> bool {
        (self as u8) <= Self::DatadogV1 as u8
    }
}

/// How a request reached us.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[allow(missing_docs)]
pub enum Transport {
    #[default]
    Tcp,
    Unix,
    Udp,
}

impl Transport {
    /// Label in metrics, as the Datadog Agent names it (`connection_type`).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Unix => "uds",
            Self::Udp => "udp",
        }
    }
}

/// What a Datadog tracer says it has done itself (datadog-intake §3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClientFlags {
    /// `Datadog-Client-Computed-Top-Level`: trust `_dd.top_level`.
    pub computed_top_level: bool,
    /// `Datadog-Client-Computed-Stats`: do not count these spans in stats.
    pub computed_stats: bool,
    /// `Datadog-Client-Dropped-P0-Traces`.
    pub dropped_p0_traces: u64,
    /// `Datadog-Client-Dropped-P0-Spans`.
    pub dropped_p0_spans: u64,
}

/// The request a batch came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Intake {
    /// Wire format.
    pub protocol: Protocol,
    /// Transport.
    pub transport: Transport,
    /// What the client has done itself.
    pub client: ClientFlags,
    /// Arrival, nanoseconds since the Unix epoch.
    pub received_at: i64,
    /// The same bytes came before and their sender had no answer in time: the
    /// spans are stored once by the store, and must not be counted or sampled
    /// a second time.
    pub resent: bool,
    /// Hash of the request's bytes, the same in every process; 0: not known.
    pub fingerprint: u64,
}
