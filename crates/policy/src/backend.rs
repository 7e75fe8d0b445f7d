//! Where spans can go.

use crate::mesh;
use crate::url::Url;
use serde_json::Value as Json;

/// A backend of a mesh or of a MeshTrace.
#[derive(Clone, PartialEq, Debug)]
pub struct Backend {
    /// Its name in the mesh; for one of a MeshTrace, the policy's name.
    pub name: String,
    /// Percentage of traces it gets; `None`: all. 0 is a real value.
    pub sampling: Option<f64>,
    /// What it is.
    pub target: Target,
}

/// What a backend is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Target {
    /// A Zipkin collector.
    Zipkin(Zipkin),
    /// A Datadog Agent.
    Datadog(Datadog),
    /// An OTLP receiver.
    OpenTelemetry(OpenTelemetry),
}

/// Format of the body for Zipkin.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum ZipkinVersion {
    /// `httpJson`: v2 JSON.
    #[default]
    Json,
    /// `httpJsonV1`: v1 JSON (Mesh only).
    JsonV1,
    /// `httpProto`: v2 protobuf.
    Proto,
}

/// A Zipkin collector.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Zipkin {
    /// URL that spans are posted to, with its path.
    pub url: String,
    /// Whether proxies begin traces with ids of 128 bits.
    pub trace_id_128bit: bool,
    /// Format of the body.
    pub version: ZipkinVersion,
    /// Whether client and server of a call share a span; `None`: Envoy's
    /// default, which is yes.
    pub shared_span_context: Option<bool>,
}

/// A Datadog Agent.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Datadog {
    /// Host name or IP address.
    pub address: String,
    /// Port.
    pub port: u16,
    /// Whether proxies report inbound and outbound as services of their own.
    pub split_service: bool,
}

/// An OTLP receiver.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct OpenTelemetry {
    /// `host:port` for gRPC, or a URL for OTLP over HTTP (Mesh only).
    pub endpoint: String,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Zipkin(z) => write!(f, "Zipkin at {}", z.url),
            Self::Datadog(d) => write!(f, "Datadog Agent at {}:{}", d.address, d.port),
            Self::OpenTelemetry(o) => write!(f, "OTLP at {}", o.endpoint),
        }
    }
}

/// Port of OTLP over gRPC.
const OTLP_PORT: u16 = 4317;

impl Backend {
    /// An element of `Mesh.tracing.backends`; `None` if it breaks the rules.
    pub fn of_mesh(backend: &Json) -> Option<Self> {
        let conf = &backend["conf"];
        let target = match backend["type"].as_str()? {
            mesh::ZIPKIN => Target::Zipkin(zipkin(conf)?),
            mesh::DATADOG => Target::Datadog(Datadog {
                address: conf["address"].as_str()?.to_owned(),
                port: mesh::port(&conf["port"]).ok()?.try_into().ok()?,
                split_service: conf["splitService"].as_bool().unwrap_or(false),
            }),
            mesh::OPEN_TELEMETRY => open_telemetry(&conf["endpoint"])?,
            _ => return None,
        };
        let name = backend["name"].as_str()?.to_owned();
        Some(Self { name, sampling: mesh::number(&backend["sampling"]), target })
    }

    /// An element of a MeshTrace's `default.backends`. `None` if it breaks the
    /// rules, or if it refers to another resource (`backendRef`).
    pub fn of_mesh_trace(backend: &Json, name: &str) -> Option<Self> {
        let target = match backend["type"].as_str()? {
            "Zipkin" => {
                let conf = &backend["zipkin"];
                let zipkin = zipkin(conf)?;
                let shared = Some(zipkin.shared_span_context.unwrap_or(true));
                Target::Zipkin(Zipkin { shared_span_context: shared, ..zipkin })
            }
            "Datadog" => {
                let conf = &backend["datadog"];
                let url = Url::request_uri(conf["url"].as_str()?)?;
                let port = url.port();
                Target::Datadog(Datadog {
                    address: url.host.strip_suffix(port)?.strip_suffix(':')?.to_owned(),
                    port: port.parse().ok()?,
                    split_service: conf["splitService"].as_bool().unwrap_or(false),
                })
            }
            "OpenTelemetry" => open_telemetry(&backend["openTelemetry"]["endpoint"])?,
            _ => return None,
        };
        Some(Self { name: name.to_owned(), sampling: None, target })
    }
}

fn zipkin(conf: &Json) -> Option<Zipkin> {
    Some(Zipkin {
        url: conf["url"].as_str()?.to_owned(),
        trace_id_128bit: conf["traceId128bit"].as_bool().unwrap_or(false),
        version: match conf["apiVersion"].as_str().unwrap_or_default() {
            "httpProto" => ZipkinVersion::Proto,
            "httpJsonV1" => ZipkinVersion::JsonV1,
            _ => ZipkinVersion::Json,
        },
        shared_span_context: conf["sharedSpanContext"].as_bool(),
    })
}

fn open_telemetry(endpoint: &Json) -> Option<Target> {
    let endpoint = endpoint.as_str().filter(|e| !e.is_empty())?;
    let after_ip = endpoint.rfind(']').map_or(0, |i| i + 1);
    let has_port = endpoint.contains("://") || endpoint[after_ip..].contains(':');
    let endpoint = if has_port { endpoint.to_owned() } else { format!("{endpoint}:{OTLP_PORT}") };
    Some(Target::OpenTelemetry(OpenTelemetry { endpoint }))
}
