//! Rules for `targetRef` of a MeshTrace
//! (`kuma:pkg/core/resources/apis/mesh/validators.go`).

use crate::Violation;
use crate::traffic_trace::{Values, tags};
use serde_json::{Map, Value as Json};

/// Kinds that Kuma 2.14 takes in a MeshTrace.
const KINDS: [&str; 6] =
    ["Mesh", "MeshSubset", "MeshGateway", "MeshService", "MeshServiceSubset", "Dataplane"];

pub(crate) fn validate(target: &Json, at: &str, out: &mut Vec<Violation>) {
    if target.is_null() {
        return;
    }
    let kind = target["kind"].as_str().unwrap_or_default();
    if kind.is_empty() {
        out.push(Violation::new(format!("{at}.kind"), "must be defined"));
        return;
    }
    if !KINDS.contains(&kind) {
        out.push(Violation::new(format!("{at}.kind"), format!("value '{kind}' is not supported")));
        return;
    }
    let mut check = Check { target, at, kind, out };
    match kind {
        "Mesh" => {
            if check.set("name") {
                check.say("name", "using name with kind Mesh is not yet supported");
            }
            check.must_not_be_set(&["mesh", "tags", "labels", "namespace", "sectionName"]);
            check.proxy_types();
        }
        "Dataplane" => {
            check.must_not_be_set(&["tags", "mesh", "proxyTypes"]);
            check.labels_or_name();
            if check.set("sectionName") {
                check.say("sectionName", "can only be used with inbound policies");
            }
        }
        "MeshSubset" => {
            check.must_not_be_set(&["name", "mesh"]);
            check.tags(Values::Tag);
            check.must_not_be_set(&["labels", "namespace", "sectionName"]);
            check.proxy_types();
        }
        "MeshService" => {
            check.name_characters();
            check.must_not_be_set(&["mesh", "tags", "proxyTypes"]);
            if !check.set("labels") {
                check.name_must_be_set();
            }
            check.labels_or_name();
            if check.set("labels") && check.set("sectionName") {
                check.say("sectionName", "sectionName should not be combined with labels");
            }
        }
        // MeshServiceSubset, MeshGateway
        _ => {
            check.name_must_be_set();
            check.name_characters();
            check.must_not_be_set(&["mesh", "proxyTypes"]);
            check.tags(Values::Selector);
            if kind == "MeshGateway" {
                check.must_not_be_set(&["tags"]);
            }
            check.must_not_be_set(&["labels", "namespace", "sectionName"]);
        }
    }
}

struct Check<'a> {
    target: &'a Json,
    at: &'a str,
    kind: &'a str,
    out: &'a mut Vec<Violation>,
}

impl Check<'_> {
    fn set(&self, field: &str) -> bool {
        match &self.target[field] {
            Json::String(s) => !s.is_empty(),
            Json::Object(m) => !m.is_empty(),
            Json::Array(a) => !a.is_empty(),
            _ => false,
        }
    }

    fn say(&mut self, field: &str, message: impl Into<String>) {
        self.out.push(Violation::new(format!("{}.{field}", self.at), message));
    }

    fn must_not_be_set(&mut self, fields: &[&str]) {
        for field in fields {
            if self.set(field) {
                self.say(field, format!("must not be set with kind {}", self.kind));
            }
        }
    }

    fn name_must_be_set(&mut self) {
        if !self.set("name") {
            self.say("name", format!("must be set with kind {}", self.kind));
        }
    }

    fn name_characters(&mut self) {
        let name = self.target["name"].as_str().unwrap_or_default();
        if !name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'z' | b'-' | b'_' | b'.')) {
            let message =
                "invalid characters: must consist of lower case alphanumeric characters, '-', '.' and '_'.";
            self.say("name", message);
        }
    }

    fn labels_or_name(&mut self) {
        if self.set("labels") && (self.set("name") || self.set("namespace")) {
            self.say("labels", "either labels or name and namespace must be specified");
        }
    }

    fn proxy_types(&mut self) {
        if self.target["proxyTypes"].as_array().is_some_and(Vec::is_empty) {
            self.say("proxyTypes", "must be undefined or have at least one element");
        }
    }

    fn tags(&mut self, values: Values) {
        let none = Map::new();
        let map = self.target["tags"].as_object().unwrap_or(&none);
        tags(map, &format!("{}.tags", self.at), values, self.out);
    }
}
