//! Which container a request comes from
//! (datadog-agent:pkg/trace/api/container_linux.go, comp/core/tagger/origindetection).

use super::Receiver;
use crate::server::Request;

/// What the admission controller of Kubernetes told a process about itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct External {
    /// It is an init container.
    pub init: bool,
    /// Name of the container.
    pub container: String,
    /// Uid of the pod.
    pub pod_uid: String,
}

/// Finds containers and what is known about them. Calls are quick: they read
/// small files or memory.
pub trait ContainerResolver: Send + Sync {
    /// Container of a process.
    fn by_pid(&self, pid: i32) -> Option<String>;
    /// Container whose cgroup directory has this inode.
    fn by_inode(&self, inode: u64) -> Option<String>;
    /// Container by pod and name.
    fn by_external(&self, external: &External) -> Option<String>;
    /// Tags (`key:value`) of a container; `None` if nothing is known.
    fn tags(&self, container: &str) -> Option<Vec<String>>;
}

/// Knows nothing. Container ids in headers are still taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoContainers;

impl ContainerResolver for NoContainers {
    fn by_pid(&self, _pid: i32) -> Option<String> {
        None
    }
    fn by_inode(&self, _inode: u64) -> Option<String> {
        None
    }
    fn by_external(&self, _external: &External) -> Option<String> {
        None
    }
    fn tags(&self, _container: &str) -> Option<Vec<String>> {
        None
    }
}

/// `Datadog-Entity-ID`.
#[derive(PartialEq, Eq, Debug, Default)]
struct LocalData {
    container: String,
    inode: u64,
}

impl LocalData {
    fn parse(value: &str) -> Self {
        let mut out = Self::default();
        let mut item = |item: &str, alone: bool| {
            if let Some(inode) = item.strip_prefix("in-") {
                out.inode = inode.parse().unwrap_or_else(|_| {
                    tracing::warn!(value = inode, "invalid inode in Datadog-Entity-ID");
                    0
                });
            } else if let Some(id) = item.strip_prefix("ci-") {
                out.container = id.into();
            } else if alone {
                // The old forms; anything is taken for an id.
                out.container = item.strip_prefix("cid-").unwrap_or(item).into();
            }
        };
        if value.contains(',') {
            value.split(',').for_each(|part| item(part, false));
        } else {
            item(value, true);
        }
        out
    }
}

impl External {
    /// `Datadog-External-Env`; usable only with both the pod and the name.
    fn parse(value: &str) -> Option<Self> {
        let mut out = Self::default();
        for item in value.split(',') {
            if let Some(init) = item.strip_prefix("it-") {
                out.init = matches!(init, "1" | "t" | "T" | "true" | "True" | "TRUE");
            } else if let Some(name) = item.strip_prefix("cn-") {
                out.container = name.into();
            } else if let Some(uid) = item.strip_prefix("pu-") {
                out.pod_uid = uid.into();
            }
        }
        (!out.container.is_empty() && !out.pod_uid.is_empty()).then_some(out)
    }
}

/// Container by headers, then by the peer's process.
pub(super) fn resolve(
    resolver: &dyn ContainerResolver,
    entity: &str,
    container: &str,
    external: &str,
    pid: Option<i32>,
) -> String {
    let local = LocalData::parse(entity);
    if !local.container.is_empty() {
        return local.container;
    }
    if !container.is_empty() {
        return container.into();
    }
    pid.filter(|p| *p > 0)
        .and_then(|p| resolver.by_pid(p))
        .or_else(|| (local.inode > 0).then(|| resolver.by_inode(local.inode)).flatten())
        .or_else(|| External::parse(external).and_then(|e| resolver.by_external(&e)))
        .unwrap_or_default()
}

impl Receiver {
    /// Container that a request comes from; empty if it is not known.
    pub(super) fn container_of(&self, request: &Request) -> String {
        self.container_by(request, request.conn.pid)
    }

    /// As [`Receiver::container_of`], with or without the peer's process.
    pub(super) fn container_by(&self, request: &Request, pid: Option<i32>) -> String {
        if !self.config.containers {
            return String::new();
        }
        resolve(
            &*self.containers,
            request.header("datadog-entity-id"),
            request.header("datadog-container-id"),
            request.header("datadog-external-env"),
            pid,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Known;
    impl ContainerResolver for Known {
        fn by_pid(&self, pid: i32) -> Option<String> {
            (pid == 7).then(|| "pid".into())
        }
        fn by_inode(&self, inode: u64) -> Option<String> {
            (inode == 9).then(|| "inode".into())
        }
        fn by_external(&self, e: &External) -> Option<String> {
            (e.pod_uid == "u" && e.container == "c" && e.init).then(|| "external".into())
        }
        fn tags(&self, _: &str) -> Option<Vec<String>> {
            None
        }
    }

    #[test]
    fn the_first_source_that_knows_the_container_wins() {
        for (entity, header, external, pid, expected) in [
            ("", "", "", None, ""),
            ("", "abc", "", None, "abc"),
            ("in-1", "abc", "", None, "abc"),
            ("in-9", "abc", "", None, "abc"),
            ("ci-xyz", "abc", "", Some(7), "xyz"),
            ("cid-xyz", "abc", "", None, "xyz"),
            ("in-9,ci-xyz", "abc", "", None, "xyz"),
            ("in-9,cid-xyz", "", "", None, "inode"),
            ("in-x", "", "", None, ""),
            ("garbage", "abc", "", None, "garbage"),
            ("a,b", "abc", "", None, "abc"),
            ("in-9", "", "it-true,cn-c,pu-u", Some(7), "pid"),
            ("in-9", "", "it-true,cn-c,pu-u", Some(8), "inode"),
            ("in-8", "", "pu-u,xx-y,cn-c,it-true", Some(0), "external"),
            ("", "", "cn-c,it-true", None, ""),
        ] {
            assert_eq!(
                resolve(&Known, entity, header, external, pid),
                expected,
                "{entity} {header} {external}"
            );
        }
    }
}
