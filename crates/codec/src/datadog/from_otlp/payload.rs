//! What a resource says about the payload: host, container, environment,
//! tracer (`datadog-agent:pkg/trace/api/otlp.go`,
//! `pkg/opentelemetry-mapping-go/otlp/attributes`).

use crate::view;
use spanloom_model::{Batch, Range32, Resource, Value};
use std::borrow::Cow;

/// OpenTelemetry's names of container tags, and Datadog's.
const CONTAINER_TAGS: [(&str, &str); 23] = [
    ("container.id", "container_id"),
    ("container.name", "container_name"),
    ("container.image.name", "image_name"),
    ("container.image.tag", "image_tag"),
    ("container.runtime", "runtime"),
    ("cloud.provider", "cloud_provider"),
    ("cloud.region", "region"),
    ("cloud.availability_zone", "zone"),
    ("aws.ecs.task.family", "task_family"),
    ("aws.ecs.task.arn", "task_arn"),
    ("aws.ecs.cluster.arn", "ecs_cluster_name"),
    ("aws.ecs.task.revision", "task_version"),
    ("aws.ecs.container.arn", "ecs_container_name"),
    ("k8s.container.name", "kube_container_name"),
    ("k8s.cluster.name", "kube_cluster_name"),
    ("k8s.deployment.name", "kube_deployment"),
    ("k8s.replicaset.name", "kube_replica_set"),
    ("k8s.statefulset.name", "kube_stateful_set"),
    ("k8s.daemonset.name", "kube_daemon_set"),
    ("k8s.job.name", "kube_job"),
    ("k8s.cronjob.name", "kube_cronjob"),
    ("k8s.namespace.name", "kube_namespace"),
    ("k8s.pod.name", "pod_name"),
];

/// Attributes that are container tags under a name of the user's.
const CUSTOM_TAG: &str = "datadog.container.tag.";

/// Names that every machine has, and none is known by.
const NO_NAMES: [&str; 6] = [
    "0.0.0.0",
    "127.0.0.1",
    "localhost",
    "localhost.localdomain",
    "localhost6.localdomain6",
    "ip6-localhost",
];

/// The attributes of a resource.
#[derive(Clone, Copy)]
pub(super) struct Attributes<'a> {
    batch: &'a Batch,
    range: Range32,
    resource: &'a Resource,
}

impl<'a> Attributes<'a> {
    pub(super) fn new(batch: &'a Batch, resource: &'a Resource) -> Self {
        Self { batch, range: resource.attrs, resource }
    }

    /// A value; what the model holds as a field of the resource, too.
    fn get(&self, key: &str) -> Option<Value> {
        self.batch.get(self.range, key).or_else(|| {
            let text = self.resource.field(key).filter(|t| !t.is_empty())?;
            Some(Value::Str(text))
        })
    }

    /// A text; empty for a value of another type.
    fn text(&self, key: &str) -> Option<&'a str> {
        Some(self.get(key)?.as_text().map_or("", |t| self.batch.str(t)))
    }

    /// A text that is not empty.
    pub(super) fn full(&self, key: &str) -> Option<&'a str> {
        self.text(key).filter(|t| !t.is_empty())
    }

    /// Whether there is a value that does not print as nothing.
    pub(super) fn says(&self, key: &str) -> bool {
        match self.get(key) {
            None | Some(Value::Empty) => false,
            Some(Value::Str(t) | Value::Bytes(t)) => !t.is_empty(),
            Some(_) => true,
        }
    }

    fn all(&self) -> impl Iterator<Item = (&'a str, Value)> + use<'a> {
        let batch = self.batch;
        batch.attrs(self.range).iter().map(move |a| (batch.str(a.key), a.value))
    }
}

/// The host that a resource belongs to. `None`: it says nothing, so it is the
/// Agent's own.
pub(super) fn hostname<'a>(attrs: &Attributes<'a>) -> Option<Cow<'a, str>> {
    let fargate = attrs.text("aws.ecs.launchtype") == Some("fargate");
    if fargate && attrs.get("aws.ecs.task.arn").is_some() {
        // A task has no host.
        return Some(Cow::Borrowed(""));
    }
    candidate(attrs, fargate).filter(|name| !NO_NAMES.contains(&&**name))
}

fn candidate<'a>(attrs: &Attributes<'a>, fargate: bool) -> Option<Cow<'a, str>> {
    let plain = |key| attrs.text(key).map(Cow::Borrowed);
    if let Some(value) = attrs.get("host") {
        let mut text = String::new();
        view::print_value(attrs.batch, value, &mut text);
        return Some(text.into());
    }
    if let Some(name) = plain("datadog.host.name") {
        return Some(name);
    }
    if fargate {
        return None;
    }
    // A known provider decides alone.
    match attrs.text("cloud.provider") {
        Some("aws") => return plain("host.id"),
        Some("gcp") => {
            let name = attrs.text("host.name")?;
            let account = attrs.text("cloud.account.id")?;
            let dots = name.bytes().filter(|b| *b == b'.').count();
            let short = if dots >= 3 { name.split('.').next().unwrap_or(name) } else { name };
            return Some(format!("{short}.{account}").into());
        }
        Some("azure") => return plain("host.id").or_else(|| plain("host.name")),
        _ => {}
    }
    if let Some(node) = attrs.text("k8s.node.name") {
        return Some(match cluster(attrs) {
            Some(cluster) => format!("{node}-{cluster}").into(),
            None => node.into(),
        });
    }
    plain("host.id").or_else(|| plain("host.name"))
}

/// The Kubernetes cluster. (The rules of single providers are upstream's too;
/// with a known provider they are not reached.)
fn cluster<'a>(attrs: &Attributes<'a>) -> Option<&'a str> {
    if let Some(name) = attrs.text("k8s.cluster.name") {
        return Some(name);
    }
    match attrs.text("cloud.provider")? {
        "azure" => {
            let parts: Vec<&str> = attrs.text("azure.resourcegroup.name")?.split('_').collect();
            let named = parts.len() >= 4 && parts[0].eq_ignore_ascii_case("mc");
            named.then(|| parts[parts.len() - 2])
        }
        "aws" => attrs.all().find_map(|(key, _)| key.strip_prefix("ec2.tag.kubernetes.io/cluster/")),
        _ => None,
    }
}

/// The container tags in the form of `_dd.tags.container`. `extended`: tags
/// that bear Datadog's name already are taken, too.
pub(super) fn container_tags(attrs: &Attributes<'_>, extended: bool) -> String {
    let mut tags: Vec<(&str, &str)> = Vec::new();
    let mut add = |key, value| {
        if !tags.iter().any(|(known, _)| *known == key) {
            tags.push((key, value));
        }
    };
    for (from, to) in CONTAINER_TAGS {
        if let Some(value) = attrs.full(from) {
            add(to, value);
        }
    }
    let texts = || {
        attrs
            .all()
            .filter_map(|(key, value)| Some((key, attrs.batch.str(value.as_text()?))))
            .filter(|t| !t.1.is_empty())
    };
    for (key, value) in texts() {
        if let Some(key) = key.strip_prefix(CUSTOM_TAG).filter(|k| !k.is_empty()) {
            add(key, value);
        }
    }
    if extended {
        for (key, value) in texts().filter(|(key, _)| is_container_tag(key)) {
            add(key, value);
        }
    }
    let mut out = String::new();
    for (key, value) in tags {
        for part in [if out.is_empty() { "" } else { "," }, key, ":", value] {
            out.push_str(part);
        }
    }
    out
}

fn is_container_tag(key: &str) -> bool {
    CONTAINER_TAGS.iter().any(|(_, to)| *to == key)
}

/// Whether an attribute of a resource has become a container tag for good
/// (only with the extended rules).
pub(super) fn becomes_container_tag(key: &str) -> bool {
    key.starts_with(CUSTOM_TAG) || is_container_tag(key)
}
