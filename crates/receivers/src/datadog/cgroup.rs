//! Containers on Linux, by the control groups of processes
//! (datadog-agent:pkg/util/cgroups).

use super::container::{ContainerResolver, External};
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Resolves processes and inodes by reading `/proc` and the cgroup tree. Knows
/// no tags; wrap it to add them.
pub struct CgroupResolver {
    proc_root: PathBuf,
    cgroup_root: PathBuf,
    pids: Mutex<HashMap<i32, (Instant, Option<String>)>>,
    inodes: Mutex<Option<Scan>>,
}

/// The cgroup tree as it was.
struct Scan {
    /// When it is looked at again.
    stale: Instant,
    ids: HashMap<u64, String>,
}

/// Whether there are containers here, as far as this process can see: it runs
/// in one, or a runtime's socket is there. `env` tells whether a variable is
/// set and not empty; `root` is `/`, or where the host is mounted.
pub fn containers_present(env: impl Fn(&str) -> bool, root: &Path) -> bool {
    const VARIABLES: [&str; 8] = [
        "DOCKER_DD_AGENT",
        "KUBERNETES_SERVICE_HOST",
        "KUBERNETES",
        "ECS_CONTAINER_METADATA_URI",
        "ECS_CONTAINER_METADATA_URI_V4",
        "AWS_EXECUTION_ENV",
        "VCAP_APPLICATION",
        "CF_INSTANCE_GUID",
    ];
    const FILES: [&str; 9] = [
        ".dockerenv",
        "run/.containerenv",
        "var/run/docker.sock",
        "run/docker.sock",
        "run/containerd/containerd.sock",
        "run/crio/crio.sock",
        "var/run/crio/crio.sock",
        "run/podman/podman.sock",
        "run/k3s/containerd/containerd.sock",
    ];
    VARIABLES.iter().any(|v| env(v)) || FILES.iter().any(|f| root.join(f).exists())
}

/// How long an answer is used again.
const FRESH: Duration = Duration::from_secs(1);
/// Share of the time that may be spent looking at the cgroup tree: a scan that
/// took 10 ms is good for 500 ms at least. Some tracers send an inode with
/// every request.
const SCAN_SHARE: u32 = 50;
/// Most processes remembered.
const PIDS: usize = 4096;
/// Deepest directory of the cgroup tree looked at, and most directories.
const DEPTH: usize = 12;
const DIRECTORIES: usize = 20_000;

impl CgroupResolver {
    /// `proc_root`: `/proc`, or where the host's is mounted
    /// (`DD_CONTAINER_PROC_ROOT`). `cgroup_root`: `/sys/fs/cgroup`.
    pub fn new(proc_root: impl Into<PathBuf>, cgroup_root: impl Into<PathBuf>) -> Self {
        Self {
            proc_root: proc_root.into(),
            cgroup_root: cgroup_root.into(),
            pids: Mutex::default(),
            inodes: Mutex::default(),
        }
    }

    fn scan(&self) -> HashMap<u64, String> {
        let mut found = HashMap::new();
        let mut open = vec![(self.cgroup_root.clone(), 0usize)];
        let mut seen = 0;
        while let Some((directory, depth)) = open.pop() {
            let Ok(entries) = std::fs::read_dir(&directory) else { continue };
            for entry in entries.flatten() {
                let Ok(kind) = entry.file_type() else { continue };
                seen += 1;
                if !kind.is_dir() || seen > DIRECTORIES {
                    continue;
                }
                let path = entry.path();
                let name = entry.file_name();
                if let Some(id) = name.to_str().and_then(id_in_segment)
                    && let Ok(meta) = entry.metadata()
                {
                    found.insert(meta.ino(), id.to_owned());
                }
                if depth < DEPTH {
                    open.push((path, depth + 1));
                }
            }
        }
        found
    }
}

impl ContainerResolver for CgroupResolver {
    fn by_pid(&self, pid: i32) -> Option<String> {
        let mut pids = self.pids.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, known)) = pids.get(&pid)
            && at.elapsed() < FRESH
        {
            return known.clone();
        }
        let file = self.proc_root.join(pid.to_string()).join("cgroup");
        let id = std::fs::read_to_string(file).ok().and_then(|text| id_in_cgroup_file(&text));
        if pids.len() >= PIDS {
            pids.clear();
        }
        pids.insert(pid, (Instant::now(), id.clone()));
        id
    }

    fn by_inode(&self, inode: u64) -> Option<String> {
        let mut inodes = self.inodes.lock().unwrap_or_else(PoisonError::into_inner);
        let start = Instant::now();
        if inodes.as_ref().is_none_or(|scan| start >= scan.stale) {
            let ids = self.scan();
            let now = Instant::now();
            let fresh = FRESH.max((now - start).saturating_mul(SCAN_SHARE));
            *inodes = Some(Scan { stale: now + fresh, ids });
        }
        inodes.as_ref().and_then(|scan| scan.ids.get(&inode).cloned())
    }

    fn by_external(&self, _external: &External) -> Option<String> {
        None
    }

    fn tags(&self, _container: &str) -> Option<Vec<String>> {
        None
    }
}

/// The container in `/proc/<pid>/cgroup`: the `memory` controller of version
/// 1, else the unified line of version 2.
fn id_in_cgroup_file(text: &str) -> Option<String> {
    let path_of = |wanted: fn(&str) -> bool| {
        text.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let controllers = parts.nth(1)?;
            controllers.split(',').any(wanted).then(|| parts.next()).flatten()
        })
    };
    let path = path_of(|c| c == "memory").or_else(|| path_of(str::is_empty))?;
    id_in_path(Path::new(path))
}

/// Searches from the leaf up.
fn id_in_path(path: &Path) -> Option<String> {
    let segments: Vec<&str> = path.iter().filter_map(|s| s.to_str()).collect();
    let leaf = segments.last()?;
    if leaf.ends_with(".mount") || leaf.starts_with("crio-conmon-") || leaf.starts_with("libpod-conmon-") {
        return None;
    }
    segments.iter().rev().find_map(|s| id_in_segment(s)).map(str::to_owned)
}

/// 64 hex digits; 32 hex digits, `-`, digits (ECS); 8-4-4-4-12 hex at the end
/// (Garden).
fn id_in_segment(segment: &str) -> Option<&str> {
    let bytes = segment.as_bytes();
    let hex = |range: &[u8]| range.iter().all(u8::is_ascii_hexdigit);
    for start in 0..bytes.len() {
        if bytes.get(start..start + 64).is_some_and(hex) {
            return segment.get(start..start + 64);
        }
        if bytes.get(start..start + 32).is_some_and(hex) && bytes.get(start + 32) == Some(&b'-') {
            let digits = bytes[start + 33..].iter().take_while(|b| b.is_ascii_digit()).count();
            if digits > 0 {
                return segment.get(start..start + 33 + digits);
            }
        }
    }
    let start = bytes.len().checked_sub(36)?;
    let tail = segment.get(start..)?;
    let mut lengths = tail.split('-').map(|p| if hex(p.as_bytes()) { p.len() } else { 0 });
    let garden = [8, 4, 4, 4, 12].into_iter().all(|n| lengths.next() == Some(n)) && lengths.next().is_none();
    garden.then_some(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f1c0e2a9b8d7c6f5e4d3c2b1a0f9e8d7c6b5a4f3e2d1c0b9a8f7e6d5c4b3a29";

    #[test]
    fn container_ids_are_found_in_cgroup_files() {
        let ecs = "34dc0b5e626f2c5c4c5170e34b10e765-1234567890";
        let garden = "6f265890-5165-7fab-6b52-18d1c5c4d2aa";
        for (text, expected) in [
            (format!("0::/system.slice/docker-{ID}.scope"), Some(ID)),
            (format!("3:cpu:/x\n2:memory:/docker/{ID}\n1:name=systemd:/y\n"), Some(ID)),
            (format!("0::/kubepods/burstable/pod1/{ID}/inner"), Some(ID)),
            (format!("0::/ecs/task/{ecs}"), Some(ecs)),
            (format!("0::/garden/{garden}"), Some(garden)),
            (format!("0::/machine.slice/libpod-conmon-{ID}.scope"), None),
            (format!("0::/system.slice/crio-conmon-{ID}.scope"), None),
            (format!("0::/system.slice/var-lib-docker-{ID}.mount"), None),
            ("0::/user.slice/user-1000.slice".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(id_in_cgroup_file(&text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn containers_are_noticed_by_variables_and_files() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!containers_present(|_| false, dir.path()));
        assert!(containers_present(|v| v == "KUBERNETES_SERVICE_HOST", dir.path()));
        std::fs::write(dir.path().join(".dockerenv"), "").unwrap();
        assert!(containers_present(|_| false, dir.path()));
    }

    #[test]
    fn processes_and_inodes_are_resolved_from_the_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("cgroup/system.slice").join(format!("docker-{ID}.scope"));
        std::fs::create_dir_all(&group).unwrap();
        std::fs::create_dir_all(dir.path().join("proc/42")).unwrap();
        std::fs::write(dir.path().join("proc/42/cgroup"), format!("0::/docker/{ID}\n")).unwrap();
        let resolver = CgroupResolver::new(dir.path().join("proc"), dir.path().join("cgroup"));
        assert_eq!(resolver.by_pid(42).as_deref(), Some(ID));
        assert_eq!(resolver.by_pid(43), None);
        let inode = std::fs::metadata(&group).unwrap().ino();
        assert_eq!(resolver.by_inode(inode).as_deref(), Some(ID));
        assert_eq!(resolver.by_inode(1), None);
    }
}
