//! Tags of containers from a file: for machines without a container runtime
//! that could be asked, and for a sidecar that knows better.

use spanloom_receivers::datadog::{ContainerResolver, External};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How often the file is looked at.
const PERIOD: Duration = Duration::from_secs(1);
/// Largest file that is read.
const MAX_BYTES: u64 = 64 << 20;

type Tags = HashMap<String, Vec<String>>;

/// Finds containers by another resolver, and their tags in a file.
pub struct TagsFile {
    path: PathBuf,
    inner: Arc<dyn ContainerResolver>,
    state: Mutex<State>,
}

struct State {
    tags: Arc<Tags>,
    /// What the file looked like when it was read.
    seen: Option<(SystemTime, u64)>,
    looked: Instant,
}

impl TagsFile {
    /// Reads `path` (`{"container id": ["key:value", …]}`). A file that cannot
    /// be read now is an error; one that breaks later is logged, and the last
    /// good content stays.
    pub fn open(path: &Path, inner: Arc<dyn ContainerResolver>) -> Result<Self, String> {
        let (tags, seen) = read(path).map_err(|e| {
            format!("{}: {e}; correct containers.tags_file (SPANLOOM_CONTAINER_TAGS)", path.display())
        })?;
        let state = State { tags: Arc::new(tags), seen: Some(seen), looked: Instant::now() };
        Ok(Self { path: path.into(), inner, state: Mutex::new(state) })
    }

    fn current(&self) -> Arc<Tags> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= PERIOD {
            state.looked = Instant::now();
            let looks = looks(&self.path).ok();
            if looks != state.seen {
                state.seen = looks;
                match read(&self.path) {
                    Ok((tags, _)) => state.tags = Arc::new(tags),
                    Err(e) => {
                        tracing::warn!(file = %self.path.display(), "tags of containers stay as they were: {e}")
                    }
                }
            }
        }
        Arc::clone(&state.tags)
    }
}

fn looks(path: &Path) -> std::io::Result<(SystemTime, u64)> {
    let meta = std::fs::metadata(path)?;
    Ok((meta.modified()?, meta.len()))
}

fn read(path: &Path) -> Result<(Tags, (SystemTime, u64)), String> {
    let seen = looks(path).map_err(|e| format!("cannot be read: {e}"))?;
    if seen.1 > MAX_BYTES {
        return Err(format!("has {} bytes; at most {MAX_BYTES} are read", seen.1));
    }
    let text = std::fs::read(path).map_err(|e| format!("cannot be read: {e}"))?;
    let tags = serde_json::from_slice(&text)
        .map_err(|e| format!("is not JSON such as {{\"container id\": [\"key:value\"]}}: {e}"))?;
    Ok((tags, seen))
}

impl ContainerResolver for TagsFile {
    fn by_pid(&self, pid: i32) -> Option<String> {
        self.inner.by_pid(pid)
    }
    fn by_inode(&self, inode: u64) -> Option<String> {
        self.inner.by_inode(inode)
    }
    fn by_external(&self, external: &External) -> Option<String> {
        self.inner.by_external(external)
    }
    fn tags(&self, container: &str) -> Option<Vec<String>> {
        self.current().get(container).cloned().or_else(|| self.inner.tags(container))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spanloom_receivers::datadog::NoContainers;

    #[test]
    fn tags_come_from_the_file_and_a_broken_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tags.json");
        let open = || TagsFile::open(&path, Arc::new(NoContainers));
        assert!(open().err().unwrap().contains("cannot be read"));
        std::fs::write(&path, "[]").unwrap();
        assert!(open().err().unwrap().contains("containers.tags_file"));
        std::fs::write(&path, r#"{"abc": ["kube_namespace:a", "image_tag:v9"]}"#).unwrap();
        let file = open().unwrap();
        assert_eq!(file.tags("abc").unwrap(), ["kube_namespace:a", "image_tag:v9"]);
        assert_eq!(file.tags("abd"), None);
    }
}
