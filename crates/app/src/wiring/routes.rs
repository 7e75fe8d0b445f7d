//! The directory of mesh resources: read at the start, watched, read again
//! when something changed. What is wrong with it never unmakes the policies
//! that hold.

use super::{convert, outgoing};
use crate::report::Gauge;
use crate::settings::Settings;
use spanloom_exporters::{Router, RouterConfig};
use spanloom_journal::SyncPolicy;
use spanloom_pipeline::DeliveryCount;
use spanloom_policy::{Loaded, load};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// How often the directory is looked at.
const PERIOD: Duration = Duration::from_secs(1);
/// Time from the choice of a route to the queue of its backend, with a wide
/// margin.
const LINGER: Duration = Duration::from_secs(60);
/// Bytes of all files together.
const MAX_BYTES: u64 = 16 << 20;

/// Policies from files, and the router that follows them.
pub struct Routes {
    dir: PathBuf,
    /// Hands spans to backends.
    pub router: Arc<Router>,
    /// What is wrong with the files now, for the status.
    problems: Mutex<Vec<String>>,
}

/// What tells whether a file changed.
#[derive(Clone, PartialEq, Eq)]
struct Seen {
    path: PathBuf,
    len: u64,
    modified: Option<SystemTime>,
    inode: u64,
}

/// Reads the resources of a directory: `.yaml`, `.yml` and `.json` files, not
/// those of directories in it.
pub fn read(dir: &Path) -> Result<Loaded, String> {
    let files = list(dir)?;
    let total: u64 = files.iter().map(|f| f.len).sum();
    if total > MAX_BYTES {
        return Err(format!(
            "{}: {total} bytes of resources, {MAX_BYTES} are read; remove files",
            dir.display()
        ));
    }
    let mut texts = Vec::new();
    for file in files {
        let name = file.path.display().to_string();
        let text = std::fs::read_to_string(&file.path)
            .map_err(|e| format!("{name}: cannot be read: {e}; make it readable UTF-8, or remove it"))?;
        texts.push((name, text));
    }
    Ok(load(&texts))
}

fn list(dir: &Path) -> Result<Vec<Seen>, String> {
    let fail = |e: std::io::Error| {
        format!(
            "the directory of resources {} cannot be read: {e}; correct --resources (SPANLOOM_RESOURCES)",
            dir.display()
        )
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let ours =
            path.extension().and_then(|e| e.to_str()).is_some_and(|e| ["yaml", "yml", "json"].contains(&e));
        let hidden = path.file_name().and_then(|n| n.to_str()).is_none_or(|n| n.starts_with('.'));
        if !ours || hidden {
            continue;
        }
        // Follows links, which is how Kubernetes mounts a ConfigMap. A file
        // that is gone meanwhile is seen as gone the next time.
        let Ok(meta) = std::fs::metadata(&path) else { continue };
        if meta.is_file() {
            let inode = std::os::unix::fs::MetadataExt::ino(&meta);
            files.push(Seen { path, len: meta.len(), modified: meta.modified().ok(), inode });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

impl Routes {
    /// Reads the directory of the settings, if there is one. Starts the queues
    /// of the backends.
    ///
    /// # Errors
    /// The resources are wrong: starting without them would send spans where
    /// they must not go.
    pub fn start(
        s: &Settings,
        data: &Path,
        policy: SyncPolicy,
        seed: u64,
    ) -> Result<Option<Arc<Self>>, String> {
        if s.resources.is_empty() {
            return Ok(None);
        }
        let dir = PathBuf::from(&s.resources);
        let loaded = read(&dir)?;
        if !loaded.errors.is_empty() {
            return Err(lines(&loaded.errors));
        }
        let period = if s.trace_writer_flush_period > 0.0 { s.trace_writer_flush_period } else { 1.0 };
        // Spans that wait for tail rules take longer.
        let wait = s.tail().ok().flatten().map_or(0, |t| t.rules.wait().max(0) as u64);
        let config = RouterConfig {
            linger: LINGER + Duration::from_nanos(wait) * 2,
            dir: data.join("queues/backends"),
            queue_bytes: s.queue_size.0,
            policy,
            flush_period: Duration::from_secs_f64(period.clamp(0.01, 3600.0)),
            connections: 2,
            user_agent: format!("spanloom/{}", env!("CARGO_PKG_VERSION")),
            translation: convert::otlp(s),
            seed,
        };
        let router = Router::new(config, outgoing::transport(s)?);
        let routes = Arc::new(Self { dir, router, problems: Mutex::default() });
        routes.take(loaded)?;
        Ok(Some(routes))
    }

    /// Makes valid resources hold.
    fn take(&self, loaded: Loaded) -> Result<(), String> {
        let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
        for text in &warnings {
            tracing::warn!("{text}");
        }
        let (resources, backends) = (loaded.resources.len(), loaded.policies.used_backends().len());
        let damage = self.router.load(loaded.policies)?;
        for text in damage {
            tracing::error!("damaged: {text}");
        }
        tracing::info!(resources, backends, "policies of {} hold", self.dir.display());
        self.say(warnings);
        Ok(())
    }

    fn say(&self, problems: Vec<String>) {
        *self.problems.lock().unwrap_or_else(PoisonError::into_inner) = problems;
    }

    fn reload(&self) {
        let result = read(&self.dir).and_then(|loaded| {
            if loaded.errors.is_empty() { self.take(loaded) } else { Err(lines(&loaded.errors)) }
        });
        if let Err(text) = result {
            for line in text.lines() {
                tracing::error!("{line}");
            }
            tracing::error!("the policies that were read before still hold");
            let kept = "the resources are not as they were read last; the earlier policies hold:".to_owned();
            self.say(std::iter::once(kept).chain(text.lines().map(str::to_owned)).collect());
        }
    }

    /// Looks at the directory for ever.
    pub async fn watch(self: Arc<Self>) {
        let mut tick = tokio::time::interval(PERIOD);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // What changed since the start is read once more.
        let mut last = None;
        loop {
            tick.tick().await;
            let routes = Arc::clone(&self);
            let before = last.take();
            let looked = tokio::task::spawn_blocking(move || {
                let now = list(&routes.dir);
                if before.as_ref().is_some_and(|b| *b != now) {
                    routes.reload();
                }
                now
            });
            last = looked.await.ok();
            self.router.tidy().await;
        }
    }

    /// Figures of the backends, and what is wrong.
    pub fn figures(
        &self,
        gauges: &mut Vec<Gauge>,
        deliveries: &mut Vec<DeliveryCount>,
        notices: &mut Vec<String>,
    ) {
        for backend in self.router.stats() {
            super::figures::queue_figures(&backend.destination, gauges);
            deliveries.push(backend.count);
            let waits = backend.destination.queue.requests;
            if backend.gone && waits > 0 {
                notices.push(format!(
                    "backend {} is in no policy any more; {waits} requests for {} still wait",
                    backend.name, backend.destination.url
                ));
            }
        }
        notices.extend(self.problems.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
    }
}

fn lines<T: ToString>(problems: &[T]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_resource_files_are_read_and_links_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("mesh.yaml", "type: Mesh\nname: default\n");
        write("README.md", "not: [yaml");
        write(".hidden.yaml", "not: [yaml");
        std::fs::create_dir(dir.path().join("more.yaml")).unwrap();
        write("target", "{\"type\": \"Mesh\", \"name\": \"blue\"}");
        std::os::unix::fs::symlink(dir.path().join("target"), dir.path().join("blue.json")).unwrap();
        let loaded = read(dir.path()).unwrap();
        let names: Vec<&str> = loaded.resources.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(names, ["blue", "default"]);
        assert!(loaded.errors.is_empty());
        write("mesh.yaml", "type: Mesh\nname: '!'\n");
        let errors = read(dir.path()).unwrap().errors;
        assert!(errors[0].to_string().contains("mesh.yaml:2:1: Mesh !: name: invalid characters"));
        assert!(read(&dir.path().join("none")).unwrap_err().contains("SPANLOOM_RESOURCES"));
    }
}
