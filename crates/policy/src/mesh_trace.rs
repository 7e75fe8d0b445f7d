//! Rules for MeshTrace
//! (`kuma:pkg/plugins/policies/meshtrace/api/v1alpha1/validator.go`).

use crate::url::{Url, looks_like_url};
use crate::{Violation, target_ref};
use serde_json::Value as Json;

pub(crate) fn validate(spec: &Json, out: &mut Vec<Violation>) {
    target_ref::validate(&spec["targetRef"], "spec.targetRef", out);
    let default = &spec["default"];
    match default["backends"].as_array().map(Vec::as_slice) {
        None => out.push(Violation::new("spec.default.backends", "must be defined")),
        Some([]) => {}
        Some([one]) => backend(one, "spec.default.backends[0]", out),
        Some(_) => {
            out.push(Violation::new("spec.default.backends", "must have zero or one backend defined"));
        }
    }
    for (i, tag) in default["tags"].as_array().into_iter().flatten().enumerate() {
        let at = format!("spec.default.tags[{i}]");
        if tag["name"].as_str().unwrap_or_default().is_empty() {
            out.push(Violation::new(format!("{at}.name"), "must not be empty"));
        }
        if tag["header"].is_null() == tag["literal"].is_null() {
            out.push(Violation::new(at, "tag must have only one type defined: header, literal"));
        }
    }
    for field in ["client", "random", "overall"] {
        let message = match percentage(&default["sampling"][field]) {
            Ok(None) => continue,
            Ok(Some(n)) if (0.0..=100.0).contains(&n) => continue,
            Ok(Some(_)) => "must be between 0 and 100",
            Err(()) => "string is not a number",
        };
        out.push(Violation::new(format!("spec.default.sampling.{field}"), message));
    }
}

/// A percentage: a whole number, or a decimal number as text.
pub(crate) fn percentage(value: &Json) -> Result<Option<f64>, ()> {
    match value {
        Json::Null => Ok(None),
        Json::Number(n) => Ok(n.as_f64()),
        Json::String(s) => {
            // Digits only: Rust also reads `inf` and `nan`.
            let decimal = s.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
            s.parse().ok().filter(|n: &f64| decimal && n.is_finite()).map(Some).ok_or(())
        }
        _ => Err(()),
    }
}

fn backend(backend: &Json, at: &str, out: &mut Vec<Violation>) {
    let block = match backend["type"].as_str().unwrap_or_default() {
        "Zipkin" => "zipkin",
        "Datadog" => "datadog",
        "OpenTelemetry" => "openTelemetry",
        // The schema has refused it.
        _ => return,
    };
    let conf = &backend[block];
    let at = format!("{at}.{block}");
    if conf.is_null() {
        out.push(Violation::new(at, "must be defined"));
        return;
    }
    match block {
        "zipkin" => {
            let url = conf["url"].as_str().unwrap_or_default();
            if url.is_empty() {
                out.push(Violation::new(format!("{at}.url"), "must not be empty"));
            } else if !looks_like_url(url) {
                out.push(Violation::new(format!("{at}.url"), "must be a valid url"));
            }
        }
        "datadog" => datadog(conf, &format!("{at}.url"), out),
        _ => open_telemetry(conf, &at, out),
    }
}

fn datadog(conf: &Json, at: &str, out: &mut Vec<Violation>) {
    let Some(url) = Url::request_uri(conf["url"].as_str().unwrap_or_default()) else {
        out.push(Violation::new(at, "must be a valid url"));
        return;
    };
    if url.scheme != "http" {
        out.push(Violation::new(at, "scheme must be http"));
    }
    if url.port().is_empty() {
        out.push(Violation::new(at, "port must be defined"));
    } else if !url.port().parse().is_ok_and(|p: u32| (1..=65535).contains(&p)) {
        out.push(Violation::new(at, "port must be a valid (1-65535)"));
    }
    // Kuma's own order is random here. A fragment is part of the path to it.
    for (part, there) in [
        ("opaque", !url.opaque.is_empty()),
        ("user", url.user.is_some()),
        ("path", !url.path.is_empty()),
        ("query", !url.query.is_empty()),
    ] {
        if there {
            out.push(Violation::new(at, format!("{part} must not be defined")));
        }
    }
}

fn open_telemetry(conf: &Json, at: &str, out: &mut Vec<Violation>) {
    let endpoint = conf["endpoint"].as_str().unwrap_or_default();
    let reference = &conf["backendRef"];
    match (endpoint.is_empty(), reference.is_null()) {
        (false, false) => out
            .push(Violation::new(at, "openTelemetry must have only one type defined: endpoint, backendRef")),
        (true, true) => {
            out.push(Violation::new(at, "openTelemetry must have exactly one defined: endpoint, backendRef"))
        }
        (true, false) => {
            if reference["labels"].as_object().is_none_or(serde_json::Map::is_empty) {
                let message = "backendRef must have exactly one defined: labels";
                out.push(Violation::new(format!("{at}.backendRef"), message));
            }
        }
        (false, true) => {
            if endpoint.contains(['/', '?', '#']) {
                let message = "must be in host:port format, not a URL";
                out.push(Violation::new(format!("{at}.endpoint"), message));
            }
        }
    }
}
