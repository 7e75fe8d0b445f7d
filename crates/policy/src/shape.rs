//! Types of the fields. A body with a field of the wrong type is not valid
//! JSON of the resource, whatever it says; unknown fields are ignored, but
//! worth a warning.

use crate::resource::near;
use crate::{Kind, Resource, Violation};
use serde_json::Value as Json;

/// What the check found.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) malformed: Vec<Violation>,
    pub(crate) unknown: Vec<String>,
}

/// Type of a field. `null` is a field that is not there.
enum Shape {
    Text,
    Bool,
    /// A number, or text of one (as in protobuf's JSON).
    Number,
    /// A whole number or text.
    IntOrText,
    Texts,
    TextMap,
    List(&'static Shape),
    Object(&'static [(&'static str, Shape)]),
    /// One of these texts, and it must be there.
    OneOf(&'static [&'static str]),
}

use Shape::{Bool, IntOrText, List, Number, Object, OneOf, Text, TextMap, Texts};

const TRACING: Shape = Object(&[
    ("defaultBackend", Text),
    (
        "backends",
        // `conf` is read by the type; what cannot be read there is a violation.
        List(&Object(&[("name", Text), ("type", Text), ("sampling", Number), ("conf", Object(&[]))])),
    ),
]);

const TRAFFIC_TRACE: Shape =
    Object(&[("selectors", List(&Object(&[("match", TextMap)]))), ("conf", Object(&[("backend", Text)]))]);

const MESH_TRACE: Shape = Object(&[
    (
        "targetRef",
        Object(&[
            ("kind", Text),
            ("name", Text),
            ("tags", TextMap),
            ("mesh", Text),
            ("labels", TextMap),
            ("namespace", Text),
            ("sectionName", Text),
            ("proxyTypes", Texts),
        ]),
    ),
    (
        "default",
        Object(&[
            (
                "backends",
                List(&Object(&[
                    ("type", OneOf(&["Zipkin", "Datadog", "OpenTelemetry"])),
                    (
                        "zipkin",
                        Object(&[
                            ("url", Text),
                            ("traceId128bit", Bool),
                            ("apiVersion", OneOf(&["httpJson", "httpProto"])),
                            ("sharedSpanContext", Bool),
                        ]),
                    ),
                    ("datadog", Object(&[("url", Text), ("splitService", Bool)])),
                    (
                        "openTelemetry",
                        Object(&[
                            ("endpoint", Text),
                            ("backendRef", Object(&[("kind", Text), ("name", Text), ("labels", TextMap)])),
                        ]),
                    ),
                ])),
            ),
            ("sampling", Object(&[("overall", IntOrText), ("client", IntOrText), ("random", IntOrText)])),
            (
                "tags",
                List(&Object(&[
                    ("name", Text),
                    ("literal", Text),
                    ("header", Object(&[("name", Text), ("default", Text)])),
                ])),
            ),
        ]),
    ),
]);

const MESH: Shape = Object(&[("tracing", TRACING)]);

const DATAPLANE: Shape = Object(&[(
    "networking",
    Object(&[
        ("address", Text),
        ("inbound", List(&Object(&[("tags", TextMap)]))),
        ("gateway", Object(&[("type", Text), ("tags", TextMap)])),
    ]),
)]);

pub(crate) fn check(r: &Resource) -> Found {
    let mut found = Found::default();
    // Mesh and Dataplane have many fields that are not about tracing.
    let (shape, root, warn_from) = match r.kind {
        Kind::Mesh => (&MESH, "", 1),
        Kind::TrafficTrace => (&TRAFFIC_TRACE, "", 0),
        Kind::MeshTrace => (&MESH_TRACE, "spec", 0),
        Kind::Dataplane => (&DATAPLANE, "", usize::MAX),
    };
    walk(shape, &r.body, &mut root.to_owned(), warn_from, &mut found);
    found
}

fn walk(shape: &Shape, value: &Json, path: &mut String, warn: usize, found: &mut Found) {
    let mut wrong = |what: &str| found.malformed.push(Violation::new(path.clone(), what));
    match (shape, value) {
        (_, Json::Null) => {}
        (Text, Json::String(_)) | (Bool, Json::Bool(_)) | (Number, Json::Number(_)) => {}
        (Number, Json::String(s)) if s.trim().parse::<f64>().is_ok_and(f64::is_finite) => {}
        (IntOrText, Json::String(_)) => {}
        (IntOrText, Json::Number(n)) if n.is_i64() => {}
        (IntOrText, _) => wrong("must be a whole number, or a decimal number in quotes"),
        (Text, _) => wrong("must be text; put it in quotes"),
        (Bool, _) => wrong("must be true or false"),
        (Number, _) => wrong("must be a number"),
        (Texts, Json::Array(items)) => {
            if !items.iter().all(Json::is_string) {
                wrong("must be a list of texts");
            }
        }
        (TextMap, Json::Object(map)) => {
            for (key, value) in map {
                if !(value.is_string() || value.is_null()) {
                    let at = format!("{path}[\"{key}\"]");
                    found.malformed.push(Violation::new(at, "must be text; put it in quotes"));
                }
            }
        }
        (List(of), Json::Array(items)) => {
            let len = path.len();
            for (i, item) in items.iter().enumerate() {
                path.push_str(&format!("[{i}]"));
                walk(of, item, path, warn, found);
                path.truncate(len);
            }
        }
        (Object(fields), Json::Object(map)) => {
            let len = path.len();
            for (key, value) in map {
                if len > 0 {
                    path.push('.');
                }
                path.push_str(key);
                match fields.iter().find(|(name, _)| name == key) {
                    Some((_, shape)) => walk(shape, value, path, warn.saturating_sub(1), found),
                    // Free-form objects are written as objects without fields.
                    None if warn == 0 && !fields.is_empty() => {
                        let meant = fields.iter().find(|(name, _)| near(name, key));
                        let hint = meant.map(|(name, _)| format!(" (`{name}`?)")).unwrap_or_default();
                        found.unknown.push(format!("{path}{hint}"));
                    }
                    None => {}
                }
                path.truncate(len);
            }
            for (name, shape) in *fields {
                // `type` decides how the rest is read.
                if *name == "type" && matches!(shape, OneOf(_)) && !map.contains_key(*name) {
                    found.malformed.push(Violation::new(format!("{path}.{name}"), "must be defined"));
                }
            }
        }
        (OneOf(texts), Json::String(s)) if texts.contains(&s.as_str()) => {}
        (OneOf(texts), _) => wrong(&format!("must be one of: {}", texts.join(", "))),
        (Texts | List(_), _) => wrong("must be a list"),
        (TextMap | Object(_), _) => wrong("must be an object"),
    }
}
