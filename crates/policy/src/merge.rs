//! MeshTrace: which of them select a proxy, in which order they apply, and
//! what they are together (`kuma:pkg/plugins/policies/core`).

use crate::matching::Selector;
use crate::{Kind, Resource, TagSet};
use serde_json::Value as Json;
use std::cmp::Ordering;

/// Sort of a proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyType {
    /// Beside a service.
    Sidecar,
    /// At the edge of the mesh.
    Gateway,
}

/// What selects by: a proxy, or the sender of a span.
pub struct Proxy<'a, T> {
    /// Tags of each inbound, or of the gateway.
    pub tags: &'a [T],
    /// Labels of the Dataplane.
    pub labels: &'a dyn TagSet,
    /// Name of the Dataplane; empty when unknown.
    pub name: &'a str,
    /// Its sort.
    pub kind: ProxyType,
    /// Name of the builtin gateway, if it is one.
    pub gateway: Option<&'a str>,
    /// Its zone, if known.
    pub zone: Option<&'a str>,
}

/// A MeshTrace made ready for many proxies.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    kind: String,
    name: String,
    tags: Selector,
    labels: Selector,
    proxy_types: Vec<String>,
    /// The zone whose proxies alone it selects.
    zone: Option<String>,
    shadow: bool,
}

impl Target {
    pub(crate) fn new(policy: &Resource) -> Self {
        let target = &policy.body["targetRef"];
        let text = |field: &str| target[field].as_str().unwrap_or_default().to_owned();
        let label = |name: &str| policy.labels.get(name).map(String::as_str);
        let of_zone = label("kuma.io/origin") == Some("zone");
        Self {
            kind: if target.is_null() { "Mesh".into() } else { text("kind") },
            name: text("name"),
            tags: Selector::from_json(&target["tags"]),
            labels: Selector::from_json(&target["labels"]),
            proxy_types: {
                let types = target["proxyTypes"].as_array().into_iter().flatten();
                types.filter_map(|t| Some(t.as_str()?.to_owned())).collect()
            },
            zone: if of_zone { label("kuma.io/zone").map(str::to_owned) } else { None },
            shadow: label("kuma.io/effect") == Some("shadow"),
        }
    }

    pub(crate) fn selects<T: TagSet>(&self, proxy: &Proxy<'_, T>) -> bool {
        if self.shadow {
            return false;
        }
        // Of another zone; a proxy whose zone nobody knows is taken for one of ours.
        if let (Some(own), Some(its)) = (self.zone.as_deref(), proxy.zone)
            && own != its
        {
            return false;
        }
        let of_type = || {
            let name = match proxy.kind {
                ProxyType::Sidecar => "Sidecar",
                ProxyType::Gateway => "Gateway",
            };
            self.proxy_types.is_empty() || self.proxy_types.iter().any(|t| t == name)
        };
        let tagged = || proxy.tags.iter().any(|t| self.tags.matches(t));
        let of_service = |t: &T| t.tag("kuma.io/service").is_some_and(|s| s == self.name.as_str());
        match self.kind.as_str() {
            "Mesh" => of_type(),
            "MeshSubset" => of_type() && tagged(),
            "MeshService" => proxy.tags.iter().any(of_service),
            "MeshServiceSubset" => proxy.tags.iter().any(|t| of_service(t) && self.tags.matches(t)),
            "Dataplane" if !self.name.is_empty() => self.name == proxy.name,
            "Dataplane" => self.labels.matches(proxy.labels),
            "MeshGateway" => proxy.gateway == Some(self.name.as_str()),
            _ => false,
        }
    }
}

/// Sorts MeshTraces: the one that is applied first, and may be overridden by
/// all others, stands first.
pub fn sort_mesh_traces(policies: &mut [&Resource]) {
    policies.sort_by(|a, b| compare(a, b));
}

pub(crate) fn compare(a: &Resource, b: &Resource) -> Ordering {
    // The alphabetically first name is applied last.
    key(a).cmp(&key(b)).then_with(|| b.display_name().cmp(a.display_name()))
}

fn key(policy: &Resource) -> impl Ord + use<> {
    let target = &policy.body["targetRef"];
    let set = |field: &str| target[field].as_str().is_some_and(|s| !s.is_empty());
    let kinds = [
        "Mesh",
        "Dataplane",
        "MeshSubset",
        "MeshGateway",
        "MeshService",
        "MeshExternalService",
        "MeshMultiZoneService",
        "MeshServiceSubset",
        "MeshHTTPRoute",
    ];
    let name = target["kind"].as_str().unwrap_or("Mesh");
    let kind = kinds.iter().position(|k| *k == name);
    let dataplane = (name == "Dataplane").then(|| (set("name"), set("sectionName")));
    let origin = match policy.labels.get("kuma.io/origin").map(String::as_str) {
        Some("global") => 0,
        Some("zone") => 2,
        _ => 1,
    };
    let gateway_tags = (name == "MeshGateway").then(|| target["tags"].as_object().map_or(0, |t| t.len()));
    let roles = ["system", "producer", "consumer", "workload-owner"];
    let role = policy.labels.get("kuma.io/policy-role").and_then(|r| roles.iter().position(|n| n == r));
    (kind, dataplane, origin, gateway_tags, role)
}

/// What MeshTraces that select one proxy are together: their `default`s,
/// applied in their order by RFC 7396.
pub fn merge_mesh_traces(policies: &[&Resource]) -> Json {
    let mut sorted: Vec<&Resource> = policies.iter().copied().filter(|p| p.kind == Kind::MeshTrace).collect();
    sort_mesh_traces(&mut sorted);
    let mut out = Json::Null;
    for policy in sorted {
        patch(&mut out, &policy.body["default"]);
    }
    out
}

/// JSON merge patch (RFC 7396). Recursion is bounded by that of the reader.
fn patch(to: &mut Json, with: &Json) {
    let Json::Object(fields) = with else {
        *to = with.clone();
        return;
    };
    if !to.is_object() {
        *to = Json::Object(serde_json::Map::new());
    }
    let Json::Object(map) = to else { return };
    for (key, value) in fields {
        if value.is_null() {
            map.remove(key);
        } else {
            patch(map.entry(key.clone()).or_insert(Json::Null), value);
        }
    }
}
