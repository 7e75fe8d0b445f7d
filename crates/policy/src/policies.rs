//! Where a span goes.

use crate::matching::{Selector, order, selectors};
use crate::merge::{Target, compare};
use crate::mesh_trace::percentage;
use crate::{Backend, Kind, Proxy, ProxyType, Resource, TagSet};
use serde_json::Value as Json;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Where a span goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// No policy selects it: it goes wherever spans go without policies.
    Unmatched,
    /// To one backend, and nowhere else.
    To {
        /// Position in [`Policies::backends`].
        backend: usize,
        /// Whether its trace is among the percentage that the backend gets.
        keep: bool,
    },
    /// Nowhere: a policy selects it, but there is no backend.
    Nowhere(Why),
}

/// Why a policy sends a span nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    /// The mesh lacks the backend, or the policy names none and the mesh has
    /// no default. Kuma does not try the next policy either.
    NoBackend,
    /// A MeshTrace without backends switches tracing off.
    SwitchedOff,
    /// The backend is a reference to another resource.
    Reference,
}

impl Why {
    /// All reasons.
    pub const ALL: [Self; 3] = [Self::NoBackend, Self::SwitchedOff, Self::Reference];

    /// Label in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoBackend => "no_such_backend",
            Self::SwitchedOff => "switched_off",
            Self::Reference => "backend_reference",
        }
    }
}

/// All policies, ready to decide.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    backends: Vec<Backend>,
    meshes: BTreeMap<String, Mesh>,
}

#[derive(Clone, Debug, Default)]
struct Mesh {
    /// The first that matches applies.
    traffic: Vec<(Selector, Outcome)>,
    /// The first that selects has the last word.
    traces: Vec<Trace>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Outcome {
    To { backend: usize, percent: f64 },
    Nowhere(Why),
}

#[derive(Clone, Debug)]
struct Trace {
    target: Target,
    /// Position of its backend, or why there is none.
    backend: Result<usize, Why>,
    /// `None`: not said, a policy behind may say it. `Some(None)`: said to be
    /// nothing, by a null.
    overall: Option<Option<f64>>,
    random: Option<Option<f64>>,
}

/// A span's tags with the names that Kuma and Envoy use for the same.
struct SpanTags<'a, T: ?Sized> {
    tags: &'a T,
    service: &'a str,
}

impl<T: TagSet + ?Sized> TagSet for SpanTags<'_, T> {
    fn tag(&self, name: &str) -> Option<Cow<'_, str>> {
        self.tags.tag(name).or_else(|| match name {
            "kuma.io/service" if !self.service.is_empty() => Some(Cow::Borrowed(self.service)),
            // What Kuma's proxies write on their spans (2.14 and later).
            "kuma.io/mesh" => self.tags.tag("kuma.mesh"),
            "kuma.io/zone" => self.tags.tag("kuma.zone"),
            "kuma.io/workload" => self.tags.tag("kuma.workload"),
            _ => None,
        })
    }
}

impl Policies {
    /// Puts resources together. They are valid ([`Resource::violations`]);
    /// what is not is passed over.
    pub fn new(resources: &[Resource]) -> Self {
        let mut all = Self::default();
        let mut named: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        let mut defaults: BTreeMap<&str, &str> = BTreeMap::new();
        for r in resources.iter().filter(|r| r.kind == Kind::Mesh) {
            let tracing = &r.body["tracing"];
            for json in tracing["backends"].as_array().into_iter().flatten() {
                let name = json["name"].as_str().unwrap_or_default();
                if let Some(backend) = Backend::of_mesh(json) {
                    named.entry((&r.name, name)).or_insert(all.backends.len());
                    all.backends.push(backend);
                }
            }
            if let Some(name) = tracing["defaultBackend"].as_str().filter(|n| !n.is_empty()) {
                defaults.insert(&r.name, name);
            }
        }
        let mut traffic: Vec<(Selector, &Resource)> = resources
            .iter()
            .filter(|r| r.kind == Kind::TrafficTrace)
            .flat_map(|r| selectors(r).map(move |s| (s, r)))
            .collect();
        traffic.sort_by(|a, b| order((&a.0, a.1), (&b.0, b.1)));
        for (selector, policy) in traffic {
            let said = policy.body["conf"]["backend"].as_str().filter(|n| !n.is_empty());
            let name = said.or_else(|| defaults.get(policy.mesh.as_str()).copied());
            let at = name.and_then(|n| named.get(&(policy.mesh.as_str(), n)));
            let outcome = at.map_or(Outcome::Nowhere(Why::NoBackend), |at| Outcome::To {
                backend: *at,
                percent: all.backends.get(*at).and_then(|b| b.sampling).unwrap_or(100.0),
            });
            all.meshes.entry(policy.mesh.clone()).or_default().traffic.push((selector, outcome));
        }
        let mut traces: Vec<&Resource> = resources.iter().filter(|r| r.kind == Kind::MeshTrace).collect();
        traces.sort_by(|a, b| compare(b, a));
        for policy in traces {
            let default = &policy.body["default"];
            let backend = match default["backends"].get(0) {
                None => Err(Why::SwitchedOff),
                Some(json) => match Backend::of_mesh_trace(json, &policy.name) {
                    Some(backend) => {
                        all.backends.push(backend);
                        Ok(all.backends.len() - 1)
                    }
                    None => Err(Why::Reference),
                },
            };
            let sampling = default.get("sampling");
            let trace = Trace {
                target: Target::new(policy),
                backend,
                overall: said(sampling, "overall"),
                random: said(sampling, "random"),
            };
            all.meshes.entry(policy.mesh.clone()).or_default().traces.push(trace);
        }
        all
    }

    /// Whether there is no policy at all.
    pub fn is_empty(&self) -> bool {
        self.meshes.is_empty()
    }

    /// All backends that policies may name.
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// Positions of the backends that some policy sends to.
    pub fn used_backends(&self) -> Vec<usize> {
        let traffic = self.meshes.values().flat_map(|m| &m.traffic).filter_map(|(_, o)| match o {
            Outcome::To { backend, .. } => Some(*backend),
            Outcome::Nowhere(_) => None,
        });
        let traces = self.meshes.values().flat_map(|m| &m.traces).filter_map(|t| t.backend.ok());
        let mut used: Vec<usize> = traffic.chain(traces).collect();
        used.sort_unstable();
        used.dedup();
        used
    }

    /// Where a span goes. Its matching tags are its own ones, and
    /// `kuma.io/service`, which is its service unless it has such a tag.
    ///
    /// It belongs to the mesh that its tag `kuma.io/mesh` names, else to
    /// `default`. A MeshTrace goes before a TrafficTrace, as in the proxies.
    pub fn decide<T: TagSet + ?Sized>(&self, tags: &T, service: &str, trace_id: u128) -> Decision {
        if self.meshes.is_empty() {
            return Decision::Unmatched;
        }
        let tags = SpanTags { tags, service };
        let mesh = tags.tag("kuma.io/mesh");
        let Some(mesh) = self.meshes.get(mesh.as_deref().unwrap_or("default")) else {
            return Decision::Unmatched;
        };
        let outcome = mesh.traces(&tags).or_else(|| {
            mesh.traffic.iter().find(|(selector, _)| selector.matches(&tags)).map(|(_, outcome)| *outcome)
        });
        match outcome {
            None => Decision::Unmatched,
            Some(Outcome::Nowhere(why)) => Decision::Nowhere(why),
            Some(Outcome::To { backend, percent }) => Decision::To { backend, keep: kept(trace_id, percent) },
        }
    }
}

impl Mesh {
    /// What the MeshTraces that select a span are together. Each of them has
    /// `backends`, so those of the last one count, and of the percentages the
    /// last that was said: the same as merging them one after the other.
    fn traces<T: TagSet + ?Sized>(&self, tags: &SpanTags<'_, T>) -> Option<Outcome> {
        if self.traces.is_empty() {
            return None;
        }
        let zone = tags.tag("kuma.io/zone");
        let sets = [Tagged(tags)];
        let proxy = Proxy {
            tags: &sets,
            // Kuma gives proxies their tags as labels too.
            labels: tags,
            name: "",
            kind: ProxyType::Sidecar,
            gateway: None,
            zone: zone.as_deref(),
        };
        let (mut backend, mut overall, mut random) = (None, None, None);
        for trace in self.traces.iter().filter(|t| t.target.selects(&proxy)) {
            backend = backend.or(Some(trace.backend));
            overall = overall.or(trace.overall);
            random = random.or(trace.random);
        }
        // Envoy throws the same die for both, so the smaller one counts. What
        // `client` is about, a header of the request, a span does not show.
        let percent = [overall, random].into_iter().flatten().flatten().fold(100.0, f64::min);
        Some(match backend? {
            Ok(backend) => Outcome::To { backend, percent },
            Err(why) => Outcome::Nowhere(why),
        })
    }
}

struct Tagged<'a, T: ?Sized>(&'a T);

impl<T: TagSet + ?Sized> TagSet for Tagged<'_, T> {
    fn tag(&self, name: &str) -> Option<Cow<'_, str>> {
        self.0.tag(name)
    }
}

fn said(sampling: Option<&Json>, field: &str) -> Option<Option<f64>> {
    match sampling? {
        Json::Null => Some(None),
        sampling => sampling.get(field).map(|v| percentage(v).ok().flatten()),
    }
}

/// Whether a trace is among a percentage of all traces. Depends on nothing but
/// the id and the percentage: every process decides alike, and a trace that is
/// kept at one percentage is kept at each higher one. Of a 128-bit id the lower
/// half counts, because some clients say no more. Independent of the rates at
/// which tracers and the Agent's samplers keep traces, which use the same half
/// in another way.
pub fn kept(trace_id: u128, percent: f64) -> bool {
    if percent >= 100.0 {
        return true;
    }
    // The finaliser of SplitMix64: ids need not be random.
    let mut x = (trace_id as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^= x >> 31;
    ((x >> 11) as f64) < percent / 100.0 * (1u64 << 53) as f64
}
