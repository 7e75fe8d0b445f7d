//! A resource in either of Kuma's envelopes.

use crate::{Violation, mesh, mesh_trace, meta, shape, traffic_trace};
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;

/// What kind of resource it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// A mesh, with its tracing backends.
    Mesh,
    /// The older policy: which proxies trace to which backend of the mesh.
    TrafficTrace,
    /// The newer policy: which proxies trace to the backend it names itself.
    MeshTrace,
    /// A proxy.
    Dataplane,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Mesh, Self::TrafficTrace, Self::MeshTrace, Self::Dataplane];

    /// As written in `type` or `kind`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mesh => "Mesh",
            Self::TrafficTrace => "TrafficTrace",
            Self::MeshTrace => "MeshTrace",
            Self::Dataplane => "Dataplane",
        }
    }

    /// Whether the body lies under `spec` in the Universal envelope too.
    pub const fn has_spec(self) -> bool {
        matches!(self, Self::MeshTrace)
    }
}

/// In which form a resource was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Envelope {
    /// `type`, `name`, `mesh` at the top.
    Universal,
    /// `apiVersion`, `kind`, `metadata`.
    Kubernetes,
}

/// Why a document is no resource of ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotAResource {
    /// Neither `type` nor `kind`.
    NoType,
    /// A kind that has nothing to do with tracing, or a misspelt one.
    Unknown {
        /// As written.
        kind: String,
        /// The kind that was probably meant.
        meant: Option<Kind>,
    },
    /// The envelope is broken.
    Broken(Violation),
}

/// A resource.
#[derive(Clone, PartialEq, Debug)]
pub struct Resource {
    /// Its kind.
    pub kind: Kind,
    /// The form it was written in.
    pub envelope: Envelope,
    /// Its mesh; for a [`Kind::Mesh`], its own name.
    pub mesh: String,
    /// Its name.
    pub name: String,
    /// Kubernetes namespace; empty for others.
    pub namespace: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Creation, nanoseconds since the Unix epoch; `i64::MIN` when not said
    /// (Kuma's zero value, the year 1).
    pub created: i64,
    /// The fields of the kind, without the envelope.
    pub body: Json,
}

const DEFAULT_MESH: &str = "default";
/// Keys of the Universal envelope, which are not part of the body.
const ENVELOPE: [&str; 7] = ["type", "name", "mesh", "creationTime", "modificationTime", "labels", "kri"];

impl Resource {
    /// Takes a document out of its envelope.
    pub fn from_json(document: &Json) -> Result<Self, NotAResource> {
        let Json::Object(top) = document else { return Err(NotAResource::NoType) };
        // `kind` alone is Kubernetes; a Universal resource says `type`.
        match (top.get("type"), top.get("kind")) {
            (Some(name), _) => Self::universal(kind(name)?, top),
            (None, Some(name)) => Self::kubernetes(kind(name)?, top),
            (None, None) => Err(NotAResource::NoType),
        }
    }

    fn universal(kind: Kind, top: &Map<String, Json>) -> Result<Self, NotAResource> {
        let name = text(top, "name", "name")?;
        let body = if kind.has_spec() {
            top.get("spec").cloned().unwrap_or_else(|| Json::Object(Map::new()))
        } else {
            let inline = top.iter().filter(|(k, _)| !ENVELOPE.contains(&k.as_str()));
            Json::Object(inline.map(|(k, v)| (k.clone(), v.clone())).collect())
        };
        Ok(Self {
            kind,
            envelope: Envelope::Universal,
            mesh: mesh_of(kind, text(top, "mesh", "mesh")?, &name),
            name,
            namespace: String::new(),
            labels: labels(top.get("labels"), "labels")?,
            created: time(top.get("creationTime"), "creationTime")?,
            body,
        })
    }

    fn kubernetes(kind: Kind, top: &Map<String, Json>) -> Result<Self, NotAResource> {
        let empty = Map::new();
        let metadata = match top.get("metadata") {
            None | Some(Json::Null) => &empty,
            Some(Json::Object(m)) => m,
            Some(_) => return Err(broken("metadata", "must be an object")),
        };
        let name = text(metadata, "name", "metadata.name")?;
        let labels = labels(metadata.get("labels"), "metadata.labels")?;
        // Kinds of the newer sort say their mesh by a label, the others next
        // to the metadata.
        let mesh = if kind.has_spec() {
            labels.get("kuma.io/mesh").cloned().unwrap_or_default()
        } else {
            text(top, "mesh", "mesh")?
        };
        Ok(Self {
            kind,
            envelope: Envelope::Kubernetes,
            mesh: mesh_of(kind, mesh, &name),
            name,
            namespace: text(metadata, "namespace", "metadata.namespace")?,
            labels,
            created: time(metadata.get("creationTimestamp"), "metadata.creationTimestamp")?,
            body: top.get("spec").cloned().unwrap_or_else(|| Json::Object(Map::new())),
        })
    }

    /// Fields of the wrong type: such a body is no resource at all (the HTTP
    /// API answers `Bad Request`), and [`Resource::violations`] sees nothing in
    /// them.
    pub fn malformed(&self) -> Vec<Violation> {
        shape::check(self).malformed
    }

    /// Fields that nobody knows: ignored by Kuma, mostly a misspelling.
    pub fn unknown_fields(&self) -> Vec<String> {
        shape::check(self).unknown
    }

    /// The rules that the resource breaks, in Kuma's order.
    pub fn violations(&self) -> Vec<Violation> {
        let mut out = Vec::new();
        meta::validate(self, &mut out);
        match self.kind {
            Kind::Mesh => mesh::validate(&self.body, &mut out),
            Kind::TrafficTrace => traffic_trace::validate(&self.body, &mut out),
            Kind::MeshTrace => mesh_trace::validate(&self.body, &mut out),
            Kind::Dataplane => {}
        }
        out
    }

    /// The name that precedence goes by (`kuma.io/display-name`, else the name).
    pub fn display_name(&self) -> &str {
        self.labels.get("kuma.io/display-name").map_or(&self.name, |n| n)
    }

    /// Where a field of the body stands in the document, from its path in a
    /// violation.
    pub fn document_path(&self, field: &str) -> String {
        // Kuma says `config` where it reads `conf`, and quotes tag names.
        let field = field.replace(".config", ".conf").replace("[\"", ".").replace("\"]", "");
        if self.envelope == Envelope::Universal {
            return field;
        }
        match field.as_str() {
            "name" => "metadata.name".into(),
            "mesh" if self.kind.has_spec() => "metadata.labels.kuma.io/mesh".into(),
            "mesh" => field,
            _ if field.starts_with("spec.") || field == "spec" => field,
            _ => format!("spec.{field}"),
        }
    }
}

fn kind(name: &Json) -> Result<Kind, NotAResource> {
    let Some(text) = name.as_str() else { return Err(broken("type", "must be text")) };
    let same = |k: &&Kind| k.name() == text;
    if let Some(kind) = Kind::ALL.iter().find(same) {
        return Ok(*kind);
    }
    let meant = Kind::ALL.iter().find(|k| near(k.name(), text)).copied();
    Err(NotAResource::Unknown { kind: text.into(), meant })
}

/// Whether one is the other up to case, or up to two letters too many, missing
/// or wrong.
pub(crate) fn near(a: &str, b: &str) -> bool {
    let (a, b) = (a.to_ascii_lowercase(), b.to_ascii_lowercase());
    if a.len().abs_diff(b.len()) > 2 || b.len() > 64 {
        return false;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()] <= 2
}

fn broken(field: &str, message: &str) -> NotAResource {
    NotAResource::Broken(Violation::new(field, message))
}

fn mesh_of(kind: Kind, said: String, name: &str) -> String {
    match (kind, said.is_empty()) {
        (Kind::Mesh, _) => name.to_owned(),
        (_, true) => DEFAULT_MESH.to_owned(),
        (_, false) => said,
    }
}

fn text(map: &Map<String, Json>, key: &str, path: &str) -> Result<String, NotAResource> {
    match map.get(key) {
        None | Some(Json::Null) => Ok(String::new()),
        Some(Json::String(s)) => Ok(s.clone()),
        Some(_) => Err(broken(path, "must be text; put it in quotes")),
    }
}

fn labels(value: Option<&Json>, path: &str) -> Result<BTreeMap<String, String>, NotAResource> {
    match value {
        None | Some(Json::Null) => Ok(BTreeMap::new()),
        Some(Json::Object(map)) => {
            let one = |(k, v): (&String, &Json)| match v {
                Json::String(s) => Ok((k.clone(), s.clone())),
                Json::Null => Ok((k.clone(), String::new())),
                _ => Err(broken(&format!("{path}.{k}"), "must be text; put it in quotes")),
            };
            map.iter().map(one).collect()
        }
        Some(_) => Err(broken(path, "must be an object")),
    }
}

fn time(value: Option<&Json>, path: &str) -> Result<i64, NotAResource> {
    match value {
        None | Some(Json::Null) => Ok(i64::MIN),
        Some(Json::String(s)) => {
            rfc3339(s).ok_or_else(|| broken(path, "must be a time such as 2026-01-31T12:00:00Z"))
        }
        Some(_) => Err(broken(path, "must be a time such as 2026-01-31T12:00:00Z")),
    }
}

/// RFC 3339 to nanoseconds since the Unix epoch, clamped; the year 1 becomes
/// the smallest number.
fn rfc3339(text: &str) -> Option<i64> {
    let b = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = b.get(from..to)?;
        digits
            .iter()
            .all(u8::is_ascii_digit)
            .then(|| digits.iter().fold(0i64, |n, d| n * 10 + i64::from(d - b'0')))
    };
    let is = |at: usize, any: &[u8]| b.get(at).is_some_and(|c| any.contains(c));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let fits =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    if !fits {
        return None;
    }
    let mut at = 19;
    let mut nanos = 0;
    if is(at, b".") {
        let digits = b[at + 1..].iter().take_while(|c| c.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        let kept = digits.min(9);
        nanos = number(at + 1, at + 1 + kept)? * 10i64.pow(9 - kept as u32);
        at += 1 + digits;
    }
    let offset = match b.get(at)? {
        b'Z' | b'z' if b.len() == at + 1 => 0,
        sign @ (b'+' | b'-') if b.len() == at + 6 && is(at + 3, b":") => {
            let minutes = number(at + 1, at + 3)? * 60 + number(at + 4, at + 6)?;
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    // Days since 1970-01-01 of the Gregorian calendar, with years that begin
    // in March, so that the leap day is the last one.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day
        - 1
        - 719_468;
    let seconds = days * 86_400 + hour * 3600 + (minute - offset) * 60 + second;
    Some(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_envelopes_give_the_same_resource() {
        let universal = json!({"type": "TrafficTrace", "name": "all", "mesh": "m",
            "creationTime": "2024-01-01T00:00:00Z", "selectors": [], "conf": {"backend": "z"}});
        let kubernetes = json!({"apiVersion": "kuma.io/v1alpha1", "kind": "TrafficTrace", "mesh": "m",
            "metadata": {"name": "all", "creationTimestamp": "2024-01-01T01:00:00+01:00"},
            "spec": {"selectors": [], "conf": {"backend": "z"}}});
        let u = Resource::from_json(&universal).unwrap();
        let k = Resource::from_json(&kubernetes).unwrap();
        assert_eq!((&u.body, &u.mesh, &u.name, u.created), (&k.body, &k.mesh, &k.name, k.created));
        assert_eq!(u.created, 1_704_067_200_000_000_000);

        let universal = json!({"type": "MeshTrace", "name": "mt", "mesh": "m", "spec": {"default": {}}});
        let kubernetes = json!({"apiVersion": "kuma.io/v1alpha1", "kind": "MeshTrace",
            "metadata": {"name": "mt", "namespace": "kuma-system", "labels": {"kuma.io/mesh": "m"}},
            "spec": {"default": {}}});
        let u = Resource::from_json(&universal).unwrap();
        let k = Resource::from_json(&kubernetes).unwrap();
        assert_eq!((&u.body, &u.mesh), (&k.body, &k.mesh));
        assert_eq!((k.namespace.as_str(), u.created), ("kuma-system", i64::MIN));
    }

    #[test]
    fn the_mesh_is_default_when_not_said_and_a_meshs_own_is_its_name() {
        let of = |j: Json| Resource::from_json(&j).unwrap().mesh;
        assert_eq!(of(json!({"type": "TrafficTrace", "name": "a"})), "default");
        assert_eq!(of(json!({"kind": "MeshTrace", "metadata": {"name": "a"}})), "default");
        assert_eq!(of(json!({"type": "Mesh", "name": "blue"})), "blue");
        assert_eq!(of(json!({"kind": "Mesh", "metadata": {"name": "blue"}})), "blue");
    }

    #[test]
    fn a_misspelt_kind_names_the_one_that_was_meant() {
        let meant = |k: &str| match Resource::from_json(&json!({"type": k})) {
            Err(NotAResource::Unknown { meant, .. }) => meant,
            other => panic!("{other:?}"),
        };
        assert_eq!(meant("TraficTrace"), Some(Kind::TrafficTrace));
        assert_eq!(meant("meshtrace"), Some(Kind::MeshTrace));
        assert_eq!(meant("MeshTimeout"), None);
        assert_eq!(Resource::from_json(&json!({})), Err(NotAResource::NoType));
        assert_eq!(Resource::from_json(&json!([1])), Err(NotAResource::NoType));
    }

    #[test]
    fn times_are_read_as_rfc_3339() {
        assert_eq!(rfc3339("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(rfc3339("2024-02-29T12:30:01.5Z"), Some(1_709_209_801_500_000_000));
        assert_eq!(rfc3339("2024-01-01T00:00:00-02:30"), rfc3339("2024-01-01T02:30:00Z"));
        assert_eq!(rfc3339("0001-01-01T00:00:00Z"), Some(i64::MIN));
        for wrong in [
            "",
            "2024-01-01",
            "2024-13-01T00:00:00Z",
            "2024-01-01T00:00:00",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00+1:00",
        ] {
            assert_eq!(rfc3339(wrong), None, "{wrong}");
        }
    }
}
