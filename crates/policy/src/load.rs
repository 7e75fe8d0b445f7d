//! Files to policies.

use crate::{Backend, Document, Kind, NotAResource, Place, Policies, Resource};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// What files say.
#[derive(Debug, Default)]
pub struct Loaded {
    /// All resources.
    pub resources: Vec<Resource>,
    /// The policies; empty when there are errors.
    pub policies: Policies,
    /// What makes the files unusable.
    pub errors: Vec<Problem>,
    /// What is probably not meant.
    pub warnings: Vec<Problem>,
}

/// Something in a file that a person should look at. Its text says where, what
/// and what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// Where in it.
    pub at: Place,
    /// Kind and name of the resource, if known.
    pub resource: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub cure: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.file)?;
        if self.at.line > 0 {
            write!(f, ":{}:{}", self.at.line, self.at.column)?;
        }
        f.write_str(": ")?;
        if !self.resource.is_empty() {
            write!(f, "{}: ", self.resource)?;
        }
        write!(f, "{}; {}", self.what, self.cure)
    }
}

/// A resource with the place it came from.
struct Found<'a> {
    file: &'a str,
    document: std::rc::Rc<Document>,
    /// Path of the resource in the document, for lists.
    prefix: String,
    resource: Resource,
}

impl Found<'_> {
    fn problem(&self, field: &str, what: String, cure: &str) -> Problem {
        let path = self.resource.document_path(field);
        let path = match (self.prefix.is_empty(), path.is_empty()) {
            (true, _) => path,
            (false, true) => self.prefix.clone(),
            (false, false) => format!("{}.{path}", self.prefix),
        };
        Problem {
            file: self.file.to_owned(),
            at: self.document.place(&path),
            resource: format!("{} {}", self.resource.kind.name(), self.resource.name),
            what,
            cure: cure.to_owned(),
        }
    }
}

/// Reads resources out of files, given as names and contents: YAML with any
/// number of documents, JSON, lists of Kubernetes.
pub fn load(files: &[(String, String)]) -> Loaded {
    let mut out = Loaded::default();
    let mut found = Vec::new();
    for (file, text) in files {
        match Document::read_all(text) {
            Ok(documents) => {
                for document in documents {
                    take(file, document, &mut found, &mut out);
                }
            }
            Err(wrong) => out.errors.push(Problem {
                file: file.clone(),
                at: wrong.at,
                resource: String::new(),
                what: format!("not YAML: {}", wrong.why),
                cure: "correct the line (or the one before it)".into(),
            }),
        }
    }
    for f in &found {
        check(f, &mut out);
    }
    check_together(&found, &mut out);
    out.resources = found.into_iter().map(|f| f.resource).collect();
    if out.errors.is_empty() {
        out.policies = Policies::new(&out.resources);
    }
    out
}

fn take<'a>(file: &'a str, document: Document, found: &mut Vec<Found<'a>>, out: &mut Loaded) {
    let document = std::rc::Rc::new(document);
    let kind = document.value["kind"].as_str().unwrap_or_default();
    let items = match (kind.ends_with("List"), document.value["items"].as_array()) {
        (true, Some(items)) => {
            items.iter().enumerate().map(|(i, v)| (format!("items[{i}]"), v)).collect::<Vec<_>>()
        }
        _ => vec![(String::new(), &document.value)],
    };
    for (prefix, value) in items {
        if value.is_null() {
            continue;
        }
        let problem = |field: &str, what: String, cure: &str| Problem {
            file: file.to_owned(),
            at: document.place(&if prefix.is_empty() {
                field.to_owned()
            } else {
                format!("{prefix}.{field}")
            }),
            resource: String::new(),
            what,
            cure: cure.to_owned(),
        };
        match Resource::from_json(value) {
            Ok(resource) => {
                let document = std::rc::Rc::clone(&document);
                found.push(Found { file, document, prefix: prefix.clone(), resource });
            }
            Err(NotAResource::NoType) => out.errors.push(problem(
                "",
                "this is no resource: it has neither `type` nor `kind`".into(),
                "write `type: Mesh`, `type: TrafficTrace` or `type: MeshTrace`, or remove the file from the directory",
            )),
            Err(NotAResource::Unknown { kind, meant: Some(meant) }) => {
                let field = if value["type"].is_null() { "kind" } else { "type" };
                let cure = format!("write `{}`", meant.name());
                out.errors.push(problem(field, format!("`{kind}` is not a kind of resource"), &cure));
            }
            Err(NotAResource::Unknown { kind, meant: None }) => {
                let field = if value["type"].is_null() { "kind" } else { "type" };
                let what = format!("`{kind}` has nothing to do with tracing and is passed over");
                out.warnings.push(problem(field, what, "remove it to be rid of this message"));
            }
            Err(NotAResource::Broken(v)) => {
                out.errors.push(problem(&v.field, format!("{}: {}", v.field, v.message), "correct the field"));
            }
        }
    }
}

fn check(f: &Found<'_>, out: &mut Loaded) {
    let malformed = f.resource.malformed();
    let broken = if malformed.is_empty() { f.resource.violations() } else { malformed };
    for v in &broken {
        // Kuma's texts say `config` for the field `conf`.
        let field = v.field.replace(".config", ".conf");
        out.errors.push(f.problem(&v.field, format!("{field}: {}", v.message), cure(&v.field, &v.message)));
    }
    for field in f.resource.unknown_fields() {
        let path = field.split(" (").next().unwrap_or_default();
        let what = format!("{field}: no such field; it has no effect");
        out.warnings.push(f.problem(path, what, "correct or remove it"));
    }
}

/// What to do about a violation.
fn cure(field: &str, message: &str) -> &'static str {
    match message {
        "must have at least one element" => "add a selector such as `- match: {kuma.io/service: '*'}`",
        "must have at least one tag" => "add a tag such as `kuma.io/service: '*'`",
        "tag value must be non-empty" => "write the value, or '*' for any",
        "has to be in [0.0 - 100.0] range" | "must be between 0 and 100" => {
            "write a percentage from 0 to 100"
        }
        "port has to be explicitly specified" => "write the port, as in http://zipkin.eu:9411/api/v2/spans",
        "invalid URL" | "must be a valid url" => "write it like http://zipkin.eu:9411/api/v2/spans",
        "port must be in the range [1, 65535]" => "write the agent's port, mostly 8126",
        "has to be set to one of the tracing backend in mesh" => {
            "add a backend of this name, or name another"
        }
        "path must not be defined" => "remove everything behind the port",
        "port must be defined" => "write the port, as in http://agent:8126",
        "scheme must be http" => "write it like http://agent:8126",
        "string is not a number" => "write a number, or a decimal number in quotes",
        "must have zero or one backend defined" => "keep one of the backends",
        "must be defined" if field.ends_with("backends") => {
            "add the backend, or `backends: []` to switch tracing off"
        }
        m if m.starts_with("unknown backend type") => "write zipkin, datadog or openTelemetry",
        m if m.ends_with("name is already used for another backend") => "give each backend a name of its own",
        _ if message.starts_with("cannot be empty") => "write a value",
        _ => "correct the field",
    }
}

/// What only shows when all resources are known.
fn check_together(found: &[Found<'_>], out: &mut Loaded) {
    let mut first: BTreeMap<(Kind, &str, &str, &str), &Found<'_>> = BTreeMap::new();
    for f in found {
        let r = &f.resource;
        let key = (r.kind, r.mesh.as_str(), r.namespace.as_str(), r.name.as_str());
        if let Some(other) = first.get(&key) {
            let at = other.document.place(&other.prefix);
            let what = format!("the same resource is at {}:{} already", other.file, at.line);
            out.errors.push(f.problem("name", what, "remove one of the two, or give it another name"));
        } else {
            first.insert(key, f);
        }
    }
    let meshes: BTreeMap<&str, &Json> = found
        .iter()
        .filter(|f| f.resource.kind == Kind::Mesh)
        .map(|f| (f.resource.name.as_str(), &f.resource.body["tracing"]))
        .collect();
    for f in found {
        let r = &f.resource;
        match r.kind {
            Kind::TrafficTrace => {
                let Some(tracing) = meshes.get(r.mesh.as_str()) else {
                    let what = format!("there is no Mesh `{}`, so it has no backends", r.mesh);
                    out.errors.push(f.problem("mesh", what, "add the Mesh with its tracing.backends"));
                    continue;
                };
                let said = r.body["conf"]["backend"].as_str().filter(|n| !n.is_empty());
                let name = said.or_else(|| tracing["defaultBackend"].as_str().filter(|n| !n.is_empty()));
                let has = |n: &str| {
                    tracing["backends"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .any(|b| b["name"].as_str() == Some(n))
                };
                // Kuma accepts it and switches tracing off.
                match name {
                    Some(n) if !has(n) => {
                        let what = format!(
                            "conf.backend: the Mesh `{}` has no backend `{n}`: spans that it selects are sent nowhere",
                            r.mesh
                        );
                        out.warnings.push(f.problem(
                            "conf.backend",
                            what,
                            "add the backend, or name another",
                        ));
                    }
                    None => {
                        let what = format!(
                            "it names no backend, and the Mesh `{}` has no default one: spans that it selects are sent nowhere",
                            r.mesh
                        );
                        out.warnings.push(f.problem(
                            "conf",
                            what,
                            "write conf.backend, or tracing.defaultBackend in the Mesh",
                        ));
                    }
                    Some(_) => {}
                }
            }
            Kind::MeshTrace => {
                let backend = &r.body["default"]["backends"][0];
                if !backend["openTelemetry"]["backendRef"].is_null() {
                    let what =
                        "openTelemetry.backendRef is not followed: spans that it selects are sent nowhere"
                            .into();
                    out.warnings.push(f.problem(
                        "spec.default.backends[0].openTelemetry",
                        what,
                        "write openTelemetry.endpoint",
                    ));
                }
            }
            Kind::Mesh => {
                for (i, json) in r.body["tracing"]["backends"].as_array().into_iter().flatten().enumerate() {
                    let v1 = |b: &Backend| matches!(&b.target, crate::Target::Zipkin(z) if z.version == crate::ZipkinVersion::JsonV1);
                    if Backend::of_mesh(json).as_ref().is_some_and(v1) {
                        let what = "httpJsonV1 holds for proxies; spans are sent from here as v2 JSON".into();
                        out.warnings.push(f.problem(
                            &format!("tracing.backends[{i}].conf.apiVersion"),
                            what,
                            "write httpJson and a URL that ends in /api/v2/spans",
                        ));
                    }
                }
            }
            Kind::Dataplane => {}
        }
    }
}
