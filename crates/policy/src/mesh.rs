//! Rules for `Mesh.tracing` (`kuma:pkg/core/resources/apis/mesh/mesh_validator.go`).

use crate::Violation;
use crate::url::Url;
use serde_json::Value as Json;

/// The names of `tracing.backends[].type`; the last one is ours.
pub(crate) const ZIPKIN: &str = "zipkin";
pub(crate) const DATADOG: &str = "datadog";
pub(crate) const OPEN_TELEMETRY: &str = "openTelemetry";

pub(crate) fn validate(body: &Json, out: &mut Vec<Violation>) {
    let tracing = &body["tracing"];
    let empty = Vec::new();
    let backends = tracing["backends"].as_array().unwrap_or(&empty);
    let mut names: Vec<&str> = Vec::new();
    for (i, backend) in backends.iter().enumerate() {
        let at = format!("tracing.backends[{i}]");
        let name = backend["name"].as_str().unwrap_or_default();
        if name.is_empty() {
            out.push(Violation::new(format!("{at}.name"), "cannot be empty"));
        }
        if number(&backend["sampling"]).is_some_and(|s| !(0.0..=100.0).contains(&s)) {
            out.push(Violation::new(format!("{at}.sampling"), "has to be in [0.0 - 100.0] range"));
        }
        let config = format!("{at}.config");
        match backend["type"].as_str().unwrap_or_default() {
            ZIPKIN => zipkin(&backend["conf"], &config, out),
            DATADOG => datadog(&backend["conf"], &config, out),
            OPEN_TELEMETRY => open_telemetry(&backend["conf"], &config, out),
            _ => out.push(Violation::new(
                format!("{at}.type"),
                "unknown backend type. Available backends: \"zipkin\", \"datadog\"",
            )),
        }
        if names.contains(&name) {
            let message = format!("\"{name}\" name is already used for another backend");
            out.push(Violation::new(format!("{at}.name"), message));
        }
        names.push(name);
    }
    let default = tracing["defaultBackend"].as_str().unwrap_or_default();
    if !default.is_empty() && !names.contains(&default) {
        out.push(Violation::new(
            "tracing.defaultBackend",
            "has to be set to one of the tracing backend in mesh",
        ));
    }
}

fn zipkin(conf: &Json, at: &str, out: &mut Vec<Violation>) {
    let wrong = ["url", "apiVersion"].iter().find(|k| !(conf[**k].is_string() || conf[**k].is_null()));
    let wrong = wrong.or_else(|| {
        ["traceId128bit", "sharedSpanContext"]
            .iter()
            .find(|k| !(conf[**k].is_boolean() || conf[**k].is_null()))
    });
    if let Some(field) = wrong {
        return could_not_parse(field, at, out);
    }
    let version = conf["apiVersion"].as_str().unwrap_or_default();
    if !["", "httpJsonV1", "httpJson", "httpProto"].contains(&version) {
        let message = "has invalid value. Allowed values: httpJsonV1, httpJson, httpProto";
        out.push(Violation::new(format!("{at}.apiVersion"), message));
    }
    let text = conf["url"].as_str().unwrap_or_default();
    let message = if text.is_empty() {
        "cannot be empty"
    } else {
        match Url::request_uri(text) {
            None => "invalid URL",
            Some(url) if url.port().is_empty() => "port has to be explicitly specified",
            Some(_) => return,
        }
    };
    out.push(Violation::new(format!("{at}.url"), message));
}

fn datadog(conf: &Json, at: &str, out: &mut Vec<Violation>) {
    if !(conf["address"].is_string() || conf["address"].is_null()) {
        return could_not_parse("address", at, out);
    }
    let port = match port(&conf["port"]) {
        Ok(port) => port,
        Err(()) => return could_not_parse("port", at, out),
    };
    if !(conf["splitService"].is_boolean() || conf["splitService"].is_null()) {
        return could_not_parse("splitService", at, out);
    }
    if conf["address"].as_str().unwrap_or_default().is_empty() {
        out.push(Violation::new(format!("{at}.address"), "cannot be empty"));
    }
    if !(1..=65535).contains(&port) {
        out.push(Violation::new(format!("{at}.port"), "port must be in the range [1, 65535]"));
    }
}

/// Ours: Kuma has OpenTelemetry in MeshTrace only.
fn open_telemetry(conf: &Json, at: &str, out: &mut Vec<Violation>) {
    match &conf["endpoint"] {
        Json::Null => out.push(Violation::new(format!("{at}.endpoint"), "cannot be empty")),
        Json::String(s) if s.is_empty() => {
            out.push(Violation::new(format!("{at}.endpoint"), "cannot be empty"));
        }
        Json::String(s) if s.contains("://") => {
            let scheme = |u: &Url<'_>| ["http", "https"].contains(&u.scheme.as_str()) && !u.host.is_empty();
            if !Url::request_uri(s).as_ref().is_some_and(scheme) {
                out.push(Violation::new(format!("{at}.endpoint"), "invalid URL"));
            }
        }
        Json::String(s) if s.contains(['/', '?', '#']) => {
            let message = "must be in host:port format, or a URL that begins with http:// or https://";
            out.push(Violation::new(format!("{at}.endpoint"), message));
        }
        Json::String(_) => {}
        _ => could_not_parse("endpoint", at, out),
    }
}

/// The rest of Kuma's text is the parser's.
fn could_not_parse(field: &str, at: &str, out: &mut Vec<Violation>) {
    out.push(Violation::new(at, format!("could not parse config: `{field}` has the wrong type")));
}

/// A number of protobuf's JSON: also as text.
pub(crate) fn number(value: &Json) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// A port of protobuf's JSON; 0 when it is not there.
pub(crate) fn port(value: &Json) -> Result<u32, ()> {
    if value.is_null() {
        return Ok(0);
    }
    let n = number(value).ok_or(())?;
    if n.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&n) { Ok(n as u32) } else { Err(()) }
}
