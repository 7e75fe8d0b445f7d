//! Selectors and their rank (`kuma:pkg/core/policy/dataplane_matcher.go`).

use crate::{Kind, Resource};
use serde_json::Value as Json;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Something with tags: an inbound of a proxy, or a span.
pub trait TagSet {
    /// The value of a tag, if it is there.
    fn tag(&self, name: &str) -> Option<Cow<'_, str>>;
}

impl TagSet for BTreeMap<String, String> {
    fn tag(&self, name: &str) -> Option<Cow<'_, str>> {
        self.get(name).map(|v| Cow::Borrowed(v.as_str()))
    }
}

/// How specific a matching selector is: more tags first, then more of them exact.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Rank {
    /// Number of tags.
    pub tags: usize,
    /// Tags whose value is not `*`.
    pub exact: usize,
}

/// Tags that must all be there, on one tag set.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selector {
    /// Name and value; `None` stands for any value.
    tags: Vec<(String, Option<String>)>,
}

impl Selector {
    /// From an object of tags; `*` is any value.
    pub fn from_json(tags: &Json) -> Self {
        let one = |(name, value): (&String, &Json)| {
            let value = value.as_str().unwrap_or_default();
            (name.clone(), (value != "*").then(|| value.to_owned()))
        };
        Self { tags: tags.as_object().into_iter().flatten().map(one).collect() }
    }

    /// Whether a tag set has all the tags. Values are compared with their case.
    pub fn matches(&self, tags: &(impl TagSet + ?Sized)) -> bool {
        self.tags.iter().all(|(name, wanted)| match (tags.tag(name), wanted) {
            (Some(value), Some(wanted)) => value == wanted.as_str(),
            (Some(_), None) => true,
            (None, _) => false,
        })
    }

    /// Its rank.
    pub fn rank(&self) -> Rank {
        Rank { tags: self.tags.len(), exact: self.tags.iter().filter(|(_, v)| v.is_some()).count() }
    }
}

/// The selectors of a TrafficTrace.
pub(crate) fn selectors(policy: &Resource) -> impl Iterator<Item = Selector> + '_ {
    policy.body["selectors"].as_array().into_iter().flatten().map(|s| Selector::from_json(&s["match"]))
}

/// Sorts so that the first policy with a matching selector is the one that
/// applies: by rank, then the later creation, then the lower name.
pub(crate) fn order(a: (&Selector, &Resource), b: (&Selector, &Resource)) -> std::cmp::Ordering {
    let by_rank = b.0.rank().cmp(&a.0.rank());
    by_rank.then(b.1.created.cmp(&a.1.created)).then_with(|| a.1.name.cmp(&b.1.name))
}

/// The TrafficTrace of a proxy: `tags` are those of each inbound, or of the
/// gateway. Policies of other kinds and meshes are passed over.
pub fn choose_traffic_trace<'a, T: TagSet>(
    policies: &'a [Resource],
    mesh: &str,
    tags: &[T],
) -> Option<&'a Resource> {
    let candidates = policies.iter().filter(|p| p.kind == Kind::TrafficTrace && p.mesh == mesh);
    let matching = candidates.flat_map(|p| selectors(p).map(move |s| (s, p)));
    let matching = matching.filter(|(s, _)| tags.iter().any(|t| s.matches(t)));
    matching.min_by(|a, b| order((&a.0, a.1), (&b.0, b.1))).map(|(_, p)| p)
}

/// The tag sets of a Dataplane: one for each inbound, and the gateway's.
pub(crate) fn tag_sets(dataplane: &Resource) -> Vec<BTreeMap<String, String>> {
    let networking = &dataplane.body["networking"];
    let inbound = networking["inbound"].as_array().into_iter().flatten().map(|i| &i["tags"]);
    let gateway = std::iter::once(&networking["gateway"]["tags"]);
    inbound.chain(gateway).filter_map(Json::as_object).map(text_map).collect()
}

pub(crate) fn text_map(map: &serde_json::Map<String, Json>) -> BTreeMap<String, String> {
    map.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect()
}

impl Resource {
    /// Tags of a Dataplane: one set for each inbound, and the gateway's.
    pub fn tag_sets(&self) -> Vec<BTreeMap<String, String>> {
        tag_sets(self)
    }
}
