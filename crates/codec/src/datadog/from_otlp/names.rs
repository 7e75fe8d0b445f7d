//! Operation, resource and type of a span, from its attributes
//! (`datadog-agent:pkg/trace/transform`).

use super::keys::{Fact, Look};
use super::{Naming, OtlpOptions};
use spanloom_model::{Arena, Batch, SpanKind, Text};

/// Longest resource in bytes.
const MAX_RESOURCE: usize = 5000;

/// `db.system` of databases that speak SQL.
const SQL: [&str; 35] = [
    "other_sql",
    "mssql",
    "mysql",
    "oracle",
    "db2",
    "postgresql",
    "redshift",
    "cloudscape",
    "hsqldb",
    "maxdb",
    "ingres",
    "firstsql",
    "edb",
    "cache",
    "firebird",
    "derby",
    "informix",
    "mariadb",
    "sqlite",
    "sybase",
    "teradata",
    "vertica",
    "h2",
    "coldfusion",
    "cockroachdb",
    "progress",
    "hanadb",
    "adabas",
    "filemaker",
    "instantdb",
    "interbase",
    "netezza",
    "pervasive",
    "pointbase",
    "clickhouse",
];

/// `db.system` that is its own type.
const OTHER: [&str; 6] = ["cassandra", "redis", "memcached", "mongodb", "elasticsearch", "opensearch"];

/// Where names are written: texts of the source stay where they are.
pub(super) struct Pen<'a> {
    pub arena: &'a mut Arena,
    pub scratch: &'a mut String,
    pub options: &'a OtlpOptions,
}

impl Pen<'_> {
    /// Several texts as one.
    fn join(&mut self, parts: &[&str]) -> Text {
        self.scratch.clear();
        self.scratch.extend(parts.iter().copied());
        self.arena.push(self.scratch)
    }

    /// A text as a tag value; the same text if it is one already.
    pub(super) fn normal(&mut self, batch: &Batch, text: Text) -> Text {
        let value = batch.str(text);
        let normal = (self.options.normalize_tag_value)(value);
        if *normal == *value { text } else { self.arena.push(&normal) }
    }
}

/// The method of an HTTP request.
fn method(look: &Look<'_>) -> Option<Text> {
    look.any([Fact::HttpRequestMethod, Fact::HttpMethod])
}

/// The operation.
pub(super) fn operation(
    look: &Look<'_>,
    kind: SpanKind,
    name: Text,
    scope_name: &str,
    pen: &mut Pen<'_>,
) -> Text {
    match &pen.options.naming {
        Naming::V2 => operation_v2(look, kind, pen),
        Naming::V1 { span_name_as_resource_name, remappings } => {
            let swapped = Look { first: look.second, second: look.first, ..*look };
            let text = match swapped.text(Fact::OperationName) {
                Some(text) => text,
                None if *span_name_as_resource_name => name,
                None => {
                    let scope = if scope_name.is_empty() { "opentelemetry" } else { scope_name };
                    pen.join(&[scope, ".", kind_name(kind)])
                }
            };
            match remappings.get(pen.arena.str(text)) {
                Some(other) if !other.is_empty() => pen.arena.push(other),
                _ => text,
            }
        }
    }
}

fn operation_v2(look: &Look<'_>, kind: SpanKind, pen: &mut Pen<'_>) -> Text {
    let normalize = pen.options.normalize_tag_value;
    let normal = |fact| look.text(fact).map(|t| normalize(look.batch.str(t))).filter(|t| !t.is_empty());
    if let Some(text) = look.text(Fact::OperationName) {
        let text = pen.normal(look.batch, text);
        if !text.is_empty() {
            return text;
        }
    }
    let [client, server] = [SpanKind::Client, SpanKind::Server].map(|k| k == kind);
    let asks = matches!(kind, SpanKind::Client | SpanKind::Server | SpanKind::Producer | SpanKind::Consumer);
    if (client || server) && method(look).is_some() {
        return pen.arena.push_static(if server { "http.server.request" } else { "http.client.request" });
    }
    if client && let Some(system) = normal(Fact::DbSystem) {
        return pen.join(&[&system, ".query"]);
    }
    if asks
        && let (Some(system), Some(operation)) =
            (normal(Fact::MessagingSystem), normal(Fact::MessagingOperation))
    {
        return pen.join(&[&system, ".", &operation]);
    }
    if (client || server)
        && let Some(system) = normal(Fact::RpcSystem)
    {
        if client && system == "aws-api" {
            return match normal(Fact::RpcService) {
                Some(service) => pen.join(&["aws.", &service, ".request"]),
                None => pen.arena.push_static("aws.client.request"),
            };
        }
        return pen.join(&[&system, if client { ".client.request" } else { ".server.request" }]);
    }
    if client && let (Some(provider), Some(name)) = (normal(Fact::FaasProvider), normal(Fact::FaasName)) {
        return pen.join(&[&provider, ".", &name, ".invoke"]);
    }
    if server && let Some(trigger) = normal(Fact::FaasTrigger) {
        return pen.join(&[&trigger, ".invoke"]);
    }
    if normal(Fact::GraphqlType).is_some() {
        return pen.arena.push_static("graphql.server.request");
    }
    if client || server {
        return match normal(Fact::ProtocolName) {
            Some(protocol) => {
                pen.join(&[&protocol, if client { ".client.request" } else { ".server.request" }])
            }
            None => pen.arena.push_static(if client { "client.request" } else { "server.request" }),
        };
    }
    pen.arena.push_static(match kind {
        SpanKind::Producer => "Producer",
        SpanKind::Consumer => "Consumer",
        _ => "Internal",
    })
}

/// The resource.
pub(super) fn resource(look: &Look<'_>, kind: SpanKind, name: Text, pen: &mut Pen<'_>) -> Text {
    let v2 = matches!(pen.options.naming, Naming::V2);
    // The old rules ask the resource first.
    let swapped = Look { first: look.second, second: look.first, ..*look };
    let look = if v2 { look } else { &swapped };
    let batch = look.batch;
    let two = |pen: &mut Pen<'_>, first: Text, second: Option<Text>| match second {
        Some(second) => pen.join(&[batch.str(first), " ", batch.str(second)]),
        None => first,
    };
    let text = if let Some(text) = look.text(Fact::ResourceName) {
        text
    } else if let Some(method) = method(look) {
        let method = if v2 && batch.str(method) == "_OTHER" { "HTTP" } else { batch.str(method) };
        match look.text(Fact::HttpRoute).filter(|_| !v2 || kind == SpanKind::Server) {
            Some(route) => pen.join(&[method, " ", batch.str(route)]),
            None => pen.join(&[method]),
        }
    } else if let Some(operation) = look.text(Fact::MessagingOperation) {
        let to = look.any([Fact::MessagingDestination, Fact::MessagingDestinationName]);
        two(pen, operation, to)
    } else if let Some(method) = look.text(Fact::RpcMethod) {
        two(pen, method, look.text(Fact::RpcService))
    } else if let Some(kind) = look.text(Fact::GraphqlType) {
        two(pen, kind, look.text(Fact::GraphqlName))
    } else {
        // The statement is scrubbed with the resource later.
        let statement = look.any([Fact::DbStatement, Fact::DbQueryText]);
        statement.filter(|_| v2 && look.text(Fact::DbSystem).is_some()).unwrap_or(name)
    };
    if text.len() <= MAX_RESOURCE {
        return text;
    }
    let end = pen.arena.str(text).floor_char_boundary(MAX_RESOURCE);
    text.slice(0, end)
}

/// The type.
pub(super) fn span_type(look: &Look<'_>, kind: SpanKind, pen: &mut Pen<'_>) -> Text {
    if let Some(text) = look.text(Fact::SpanType) {
        return text;
    }
    pen.arena.push_static(match kind {
        SpanKind::Server => "web",
        SpanKind::Client => {
            let system = (pen.options.normalize_tag_value)(look.str(Fact::DbSystem));
            match &*system {
                "" => "http",
                s if SQL.contains(&s) => "sql",
                s => OTHER.iter().find(|o| **o == s).copied().unwrap_or("db"),
            }
        }
        _ => "custom",
    })
}

/// The kind as the tag `span.kind` has it.
pub(super) const fn kind_name(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::Unspecified => "unspecified",
        other => other.name(),
    }
}

/// The phrase that goes with an HTTP status code, as Go's `net/http` has it.
pub(super) fn reason_phrase(code: u32) -> Option<&'static str> {
    Some(match code {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Request Entity Too Large",
        414 => "Request URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Requested Range Not Satisfiable",
        417 => "Expectation Failed",
        418 => "I'm a teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable Entity",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        510 => "Not Extended",
        511 => "Network Authentication Required",
        _ => return None,
    })
}
