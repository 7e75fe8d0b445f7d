//! Segments on disk: opening them at start, asking them, removing them.

use crate::drops::Drops;
use crate::error::OpenError;
use crate::manifest::{Added, Change, Found, Manifest};
use crate::source::{Hit, Names, Part, Root, Scan, Source};
use crate::stats::{Damage, RecoveryReport};
use crate::store::lock;
use spanloom_model::{Batch, Search, StoreError, TimeRange, TraceId, WindowOn};
use spanloom_segment::{Cache, Hits, Segment, SegmentError, TracePart};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A segment of the store.
pub(crate) struct Stored {
    pub segment: Segment,
    /// As the manifest knows it.
    pub added: Added,
    pub spans: u64,
    pub traces: u64,
    pub bytes: u64,
    /// What rules said about its traces.
    pub drops: Mutex<Drops>,
}

/// Where segments lie.
pub(crate) fn home(dir: &Path) -> PathBuf {
    dir.join("segments")
}

impl Stored {
    pub fn open(home: &Path, added: Added, cache: &Arc<Cache>) -> Result<Self, SegmentError> {
        let segment = Segment::open_with(&home.join(&added.name), Arc::clone(cache))?;
        let meta = segment.meta();
        let (spans, traces, bytes) = (meta.spans, meta.traces, meta.bytes);
        Ok(Self { segment, added, spans, traces, bytes, drops: Mutex::default() })
    }

    /// Whether the trace is here and dropped.
    pub fn hides(&self, id: TraceId) -> Result<bool, StoreError> {
        if lock(&self.drops).traces == 0 {
            return Ok(false);
        }
        let number = self.segment.number_of(id).map_err(read_error)?;
        Ok(number.is_some_and(|n| lock(&self.drops).is_dropped(n)))
    }

    /// Spans that are dropped and not removed yet.
    pub fn dropped_spans(&self) -> u64 {
        lock(&self.drops).spans
    }

    /// Whether rules have been asked about its traces.
    pub fn is_decided(&self) -> bool {
        lock(&self.drops).decided.is_some()
    }

    /// Figures of a trace by its number, dropped or not.
    pub fn part_of(&self, number: u32, id: TraceId) -> Result<Part, StoreError> {
        self.segment.part_of(number, id).map(part).map_err(read_error)
    }
}

/// Opens the segments of the manifest. A damaged one is set aside, reported,
/// and not part of the store any more. Directories that the manifest does not
/// know are unfinished work and are deleted, unless the manifest itself is
/// damaged: then every whole segment is taken in again.
pub(crate) fn open_all(
    dir: &Path,
    cache: &Arc<Cache>,
    now: i64,
    manifest: &mut Manifest,
    found: &Found,
    report: &mut RecoveryReport,
) -> Result<Vec<Arc<Stored>>, OpenError> {
    let home = home(dir);
    fs::create_dir_all(&home).map_err(OpenError::io("create", &home))?;
    let mut changes = Vec::new();
    let mut list = Vec::new();
    let mut open = |added: Added,
                    changes: &mut Vec<Change>,
                    report: &mut RecoveryReport,
                    known: bool|
     -> Result<(), OpenError> {
        let path = home.join(&added.name);
        let name = added.name.clone();
        match Stored::open(&home, added.clone(), cache) {
            Ok(stored) => {
                if !known {
                    changes.push(Change::Add(added));
                }
                list.push(Arc::new(stored));
            }
            Err(SegmentError::Version { path, found, known }) => {
                return Err(OpenError::Newer { path, version: found, known });
            }
            Err(e) if known => {
                let aside = dir.join("damaged").join(&name);
                let kept = fs::create_dir_all(dir.join("damaged")).and_then(|()| fs::rename(&path, &aside));
                let place =
                    if kept.is_ok() { format!(", set aside as {}", aside.display()) } else { String::new() };
                report.damage.push(Damage { file: path, what: format!("{e}{place}") });
                changes.push(Change::Remove { name });
            }
            Err(_) => {
                report.orphans += 1;
                let _ = fs::remove_dir_all(&path);
            }
        }
        Ok(())
    };
    let known = manifest.state.segments.clone();
    for added in &known {
        open(added.clone(), &mut changes, report, true)?;
    }
    let entries = fs::read_dir(&home).map_err(OpenError::io("list", &home))?;
    let mut strangers: Vec<String> = entries
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .filter(|n| !known.iter().any(|a| a.name == *n))
        .collect();
    strangers.sort();
    let adopt = found.damage.is_some() || (found.missing && !strangers.is_empty());
    for name in strangers {
        if adopt && name.starts_with("seg-") {
            open(Added { name, arrived: now }, &mut changes, report, false)?;
        } else {
            report.orphans += 1;
            let path = home.join(&name);
            let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
    }
    if adopt && found.missing {
        let what = "it is missing; the segments found were taken in".to_owned();
        report.damage.push(Damage { file: dir.join("MANIFEST"), what });
    }
    let next = list.iter().map(|s| s.segment.meta().id + 1).max().unwrap_or(0);
    if next > manifest.state.next_id {
        changes.push(Change::NextId { id: next });
    }
    if !changes.is_empty() {
        manifest.commit(&changes)?;
    }
    report.segments = list.len() as u64;
    Ok(list)
}

/// Deletes the files of a segment that is not in the manifest any more.
/// Readers that still hold it keep their open files.
pub(crate) fn remove(stored: &Stored) {
    // What cannot be deleted now is an orphan at the next start.
    let _ = fs::remove_dir_all(stored.segment.path());
}

fn read_error(e: SegmentError) -> StoreError {
    StoreError::Read(e.to_string())
}

fn part(part: TracePart) -> Part {
    Part {
        spans: part.spans,
        errors: part.errors,
        orphans: part.orphans,
        start: part.start,
        end: part.end,
        root: part.root.map(|r| Root {
            service: r.service,
            name: r.name,
            resource: r.resource,
            // A root without start was stored with 0.
            start: (r.start != 0).then_some(r.start),
        }),
        services: part.services,
    }
}

/// A search of a segment in progress.
struct Steps<'a> {
    stored: &'a Stored,
    search: &'a Search,
    hits: Option<Hits<'a>>,
}

impl Scan for Steps<'_> {
    fn next(&mut self) -> Result<Option<(Vec<Hit>, i64)>, StoreError> {
        let stored = self.stored;
        let hits = match &mut self.hits {
            Some(hits) => hits,
            none => none.insert(stored.segment.search(self.search).map_err(read_error)?),
        };
        // Spans without a start count as 0 and come last, though their traces
        // may have later starts elsewhere: then only the end says anything.
        let timed = stored.segment.meta().min_start > 0;
        let Some(mut found) = hits.step().map_err(read_error)? else { return Ok(None) };
        while !timed && let Some(more) = hits.step().map_err(read_error)? {
            found.extend(more);
        }
        let mut out = Vec::with_capacity(found.len());
        for h in found {
            if !stored.hides(h.trace_id)? {
                // 0 says that no span here has a start: then nothing is known.
                let start = if h.start == 0 { i64::MAX } else { h.start };
                out.push(Hit { trace_id: h.trace_id, mask: h.mask, start });
            }
        }
        Ok(Some((out, hits.bound().unwrap_or(i64::MIN))))
    }
}

/// Dropped traces are not here for anybody who asks.
impl Source for Stored {
    fn range(&self) -> Option<(i64, i64)> {
        let meta = self.segment.meta();
        // Spans without a start count as 0 there.
        let max = if meta.min_start <= 0 { i64::MAX } else { meta.max_start };
        Some((meta.min_start, max))
    }

    fn scan<'a>(&'a self, search: &'a Search) -> Box<dyn Scan + 'a> {
        Box::new(Steps { stored: self, search, hits: None })
    }

    fn start(&self, id: TraceId) -> Result<Option<Option<i64>>, StoreError> {
        if self.hides(id)? {
            return Ok(None);
        }
        Ok(self.segment.part(id).map_err(read_error)?.map(|p| p.start))
    }

    fn part(&self, id: TraceId) -> Result<Option<Part>, StoreError> {
        if self.hides(id)? {
            return Ok(None);
        }
        Ok(self.segment.part(id).map_err(read_error)?.map(part))
    }

    fn trace(&self, id: TraceId) -> Result<Option<Batch>, StoreError> {
        if self.hides(id)? {
            return Ok(None);
        }
        self.segment.trace(id).map_err(read_error)
    }

    fn services(&self, into: &mut BTreeSet<String>) -> Result<(), StoreError> {
        into.extend(self.segment.services().map_err(read_error)?);
        Ok(())
    }

    fn names(&self, into: &mut Names) -> Result<(), StoreError> {
        for (service, operations) in self.segment.operations().map_err(read_error)? {
            into.entry(service).or_default().extend(operations);
        }
        Ok(())
    }

    fn keys(&self, into: &mut BTreeSet<(String, bool)>) -> Result<(), StoreError> {
        let keys = self.segment.attribute_keys().map_err(read_error)?;
        into.extend(keys.into_iter().map(|k| (k.key, k.resource)));
        Ok(())
    }

    fn values(&self, key: &str, limit: usize, into: &mut BTreeSet<String>) -> Result<(), StoreError> {
        into.extend(self.segment.attribute_values(key, limit).map_err(read_error)?);
        Ok(())
    }

    fn trace_ids(&self, range: TimeRange, each: &mut dyn FnMut(TraceId)) -> Result<(), StoreError> {
        let all = Search {
            each: vec![spanloom_model::Expr::True],
            window: range,
            window_on: WindowOn::SpanStart,
            limit: usize::MAX,
            after: None,
        };
        for hit in self.segment.hits(&all, None).map_err(read_error)? {
            if !self.hides(hit.trace_id)? {
                each(hit.trace_id);
            }
        }
        Ok(())
    }
}
