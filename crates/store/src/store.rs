//! The store: opening, the way in, the questions.

use crate::config::Config;
use crate::drops::{self, Drops, Kept};
use crate::error::OpenError;
use crate::intake::{Aliases, Intake};
use crate::live::{Generation, JournalCell, Payload, Shared};
use crate::manifest::{Change, Manifest};
use crate::search::Sources;
use crate::source::{Names, Source};
use crate::stats::{Counters, Damage, RecoveryReport, StoreStats};
use crate::tail::{Decided, Judge, KeptByHand};
use spanloom_journal::record::{Encoder, View};
use spanloom_journal::{Journal, JournalError, SyncPolicy};
use spanloom_model::{
    AckFn, AttrKey, Batch, Dependency, Links, Operation, Search, SpanReader, SpanWriter, StoreError,
    TimeRange, TraceId, TraceSummary,
};
use spanloom_segment::Cache;
use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Kind of a frame that holds a batch.
pub(crate) const FRAME_BATCH: u8 = 1;

/// What readers see: an immutable list, replaced whole, so that a flush or a
/// merge never shows a span twice or not at all.
#[derive(Clone)]
pub(crate) struct Contents {
    pub active: Shared,
    /// Full generations on their way to segments, oldest first.
    pub frozen: Vec<Shared>,
    pub segments: Vec<Arc<crate::segments::Stored>>,
}

pub(crate) struct Doors {
    pub intake: Intake,
    pub encoder: Encoder,
}

pub(crate) struct Core {
    pub config: Config,
    pub dir: PathBuf,
    pub doors: Mutex<Doors>,
    pub contents: RwLock<Arc<Contents>>,
    /// The intake's aliases, for readers.
    pub aliases: Mutex<Arc<Aliases>>,
    /// Decoded parts of segments.
    pub cache: Arc<Cache>,
    pub journal: Arc<Journal>,
    pub log_cell: JournalCell,
    pub manifest: Mutex<Manifest>,
    /// Held by whoever writes segments from live spans, and by whoever merges.
    pub flushing: Mutex<()>,
    pub merging: Mutex<()>,
    /// Traces that a person wants kept.
    pub kept: Mutex<Kept>,
    pub counters: Counters,
    pub report: RecoveryReport,
    pub closing: AtomicBool,
    /// Set while the disk has less room than the floor.
    pub low_disk: AtomicBool,
    pub wake: (Mutex<u64>, Condvar),
    /// Holds the directory for this process.
    _lock: File,
}

/// The embedded span store. Share it with [`Arc`].
pub struct Store {
    core: Arc<Core>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the locks guard stays consistent statement by statement; a panic
    // in one caller must not stop all others.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Core {
    pub fn contents(&self) -> Arc<Contents> {
        Arc::clone(&self.contents.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn change(&self, change: impl FnOnce(&mut Contents)) {
        let mut contents = self.contents.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = (**contents).clone();
        change(&mut next);
        *contents = Arc::new(next);
    }

    pub fn wake_background(&self) {
        *lock(&self.wake.0) += 1;
        self.wake.1.notify_all();
    }

    /// Ends the active generation if it has spans. The caller holds the doors.
    pub fn freeze(&self, _doors: &mut Doors) {
        let contents = self.contents();
        if contents.active.size().spans == 0 {
            return;
        }
        // Its frames end with their file, which can go when they are flushed.
        self.journal.roll();
        let next = Arc::new(Generation::new(Arc::clone(&self.log_cell)));
        self.change(|c| {
            let full = std::mem::replace(&mut c.active, next);
            c.frozen.push(full);
        });
        self.wake_background();
    }

    /// Bytes free at the data directory.
    pub fn free_bytes(&self) -> u64 {
        if let Some(free) = &self.config.free_bytes {
            return free();
        }
        rustix::fs::statvfs(&self.dir).map_or(u64::MAX, |s| s.f_bavail.saturating_mul(s.f_frsize))
    }

    pub fn check_disk(&self) {
        let low = self.free_bytes() < self.config.disk_floor;
        self.low_disk.store(low, Ordering::Relaxed);
    }

    fn refuse(&self, batch: &Batch, error: &StoreError) {
        let spans: usize =
            batch.chunks.iter().filter(|c| c.fate == spanloom_model::Fate::Kept).map(|c| c.spans.len()).sum();
        self.counters.refused(error, spans as u64);
    }

    fn admit(&self) -> Result<(), StoreError> {
        if self.closing.load(Ordering::Relaxed) {
            return Err(StoreError::Closed);
        }
        if self.low_disk.load(Ordering::Relaxed) {
            return Err(StoreError::Write(format!(
                "less than {} bytes are free at {}",
                self.config.disk_floor,
                self.dir.display()
            )));
        }
        let contents = self.contents();
        let bytes: u64 = contents.frozen.iter().chain([&contents.active]).map(|g| g.size().bytes).sum();
        if bytes >= self.config.live_bytes {
            return Err(StoreError::Busy(format!(
                "{bytes} bytes of spans wait to be written to segments, at most {} may",
                self.config.live_bytes
            )));
        }
        self.journal.room(0).map_err(write_error)
    }

    fn append(&self, batch: &Batch, done: AckFn) {
        let mut doors = lock(&self.doors);
        if let Err(e) = self.admit() {
            drop(doors);
            self.refuse(batch, &e);
            return done(Err(e));
        }
        let now = self.config.clock.now();
        let Doors { intake, encoder } = &mut *doors;
        intake.begin(now, batch.intake.protocol.is_datadog());
        let encoded = encoder.encode(batch, intake);
        let duplicates = u64::from(encoded.skipped);
        self.counters.duplicates(duplicates);
        if let (1.., Some(tell)) = (duplicates, &self.config.on_duplicates) {
            tell(batch.intake.protocol, duplicates);
        }
        let aliases = intake.take_found();
        if !aliases.is_empty() {
            *lock(&self.aliases) = Arc::clone(intake.aliases());
        }
        let done = Box::new(move |r: Result<_, JournalError>| done(r.map(|_| ()).map_err(write_error)));
        let refused = if encoded.spans == 0 {
            // Nothing new: answered when what it repeats is answered.
            self.journal.barrier(done).err()
        } else if let Err(error) = self.journal.room(encoded.bytes.len()) {
            intake.undo();
            Some(spanloom_journal::Refused { error, done })
        } else {
            let contents = self.contents();
            let active = &contents.active;
            // Visible first, so that an answered span is always found.
            let record = Payload::Memory(encoded.bytes.clone());
            match active.add(&encoded.bytes, record, &encoded.chunks, now) {
                Err(e) => {
                    intake.undo();
                    Some(spanloom_journal::Refused { error: JournalError::Write(e.to_string()), done })
                }
                Ok(()) => match self.journal.append_before_write(FRAME_BATCH, encoded.bytes.clone(), done) {
                    Ok(seq) => {
                        active.logged(seq);
                        self.counters.stored(u64::from(encoded.spans));
                        let size = active.size();
                        if size.spans >= self.config.flush_spans || size.bytes >= self.config.flush_bytes {
                            self.freeze(&mut doors);
                        }
                        None
                    }
                    Err(refused) => {
                        intake.undo();
                        Some(refused)
                    }
                },
            }
        };
        drop(doors);
        self.journal.write_here();
        if !aliases.is_empty() {
            let changes: Vec<Change> = aliases.into_iter().map(|id| Change::Alias { id }).collect();
            // Lost on failure: the two ids are then two traces after a restart.
            let _ = lock(&self.manifest).commit(&changes);
        }
        if let Some(refused) = refused {
            let error = write_error(refused.error.clone());
            self.refuse(batch, &error);
            (refused.done)(Err(refused.error));
        }
    }

    fn ask<T>(&self, ask: impl FnOnce(&Sources<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let contents = self.contents();
        let aliases = Arc::clone(&lock(&self.aliases));
        let mut list: Vec<&dyn Source> = vec![contents.active.as_ref()];
        list.extend(contents.frozen.iter().rev().map(|g| g.as_ref() as &dyn Source));
        list.extend(contents.segments.iter().map(|s| s.as_ref() as &dyn Source));
        ask(&Sources { list, aliases: &aliases })
    }
}

pub(crate) fn write_error(error: JournalError) -> StoreError {
    match error {
        JournalError::Full { .. } | JournalError::Behind { .. } => StoreError::Busy(error.to_string()),
        JournalError::Closed => StoreError::Closed,
        JournalError::TooLarge(_) => StoreError::TooLarge(error.to_string()),
        other => StoreError::Write(other.to_string()),
    }
}

/// How long a start waits for the directory. A killed process is gone only
/// when the system has taken it down, and its children hold what it held until
/// they run another program.
const HOLD_PATIENCE: Duration = Duration::from_secs(1);

fn take_hold(held: &File, dir: &Path, lock_path: &Path) -> Result<(), OpenError> {
    let since = Instant::now();
    loop {
        match held.try_lock() {
            Ok(()) => return Ok(()),
            Err(std::fs::TryLockError::WouldBlock) if since.elapsed() < HOLD_PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(std::fs::TryLockError::WouldBlock) => return Err(OpenError::InUse(dir.into())),
            Err(std::fs::TryLockError::Error(e)) => return Err(OpenError::io("lock", lock_path)(e)),
        }
    }
}

impl Store {
    /// Opens or creates a store. What a crash or damage has cost is in the
    /// report; only a directory that cannot be used at all, is used by another
    /// process, or was written by a newer program is an error.
    pub fn open(dir: &Path, config: Config) -> Result<(Self, RecoveryReport), OpenError> {
        fs::create_dir_all(dir).map_err(OpenError::io("create", dir))?;
        let lock_path = dir.join("LOCK");
        let held = File::create(&lock_path).map_err(OpenError::io("create", &lock_path))?;
        take_hold(&held, dir, &lock_path)?;
        let mut report = RecoveryReport::default();
        let (mut manifest, found) = Manifest::open(dir)?;
        if let Some(why) = &found.damage {
            report.damage.push(Damage { file: dir.join("MANIFEST"), what: why.clone() });
        }
        let cache = Cache::new(config.cache_bytes);
        let now = config.clock.now();
        let segments = crate::segments::open_all(dir, &cache, now, &mut manifest, &found, &mut report)?;

        let kept = open_drops(dir, &config, &segments, &mut report)?;
        let intake = Intake::new(
            config.recent_spans / 2,
            config.recent_traces / 2,
            i64::try_from(config.recent_for.as_nanos()).unwrap_or(i64::MAX),
            Arc::new(manifest.state.aliases.clone()),
        );
        let doors = Doors { intake, encoder: Encoder::default() };
        let replay = Replay::open(dir, &config, doors, manifest.state.logged, &mut report)?;
        let Replay { journal, cell, full: mut generations, doors, core: weak } = replay;
        let active = Arc::new(Generation::new(Arc::clone(&cell)));
        generations.retain(|g| g.size().spans > 0);
        let core = Arc::new(Core {
            config,
            dir: dir.into(),
            aliases: Mutex::new(Arc::clone(doors.intake.aliases())),
            doors: Mutex::new(doors),
            contents: RwLock::new(Arc::new(Contents { active, frozen: generations, segments })),
            cache,
            journal,
            log_cell: cell,
            manifest: Mutex::new(manifest),
            flushing: Mutex::new(()),
            merging: Mutex::new(()),
            kept: Mutex::new(kept),
            counters: Counters::default(),
            report: report.clone(),
            closing: AtomicBool::new(false),
            low_disk: AtomicBool::new(false),
            wake: (Mutex::new(0), Condvar::new()),
            _lock: held,
        });
        *lock(&weak) = Arc::downgrade(&core);
        core.check_disk();
        let threads = if core.config.background { crate::maintenance::start(&core)? } else { Vec::new() };
        Ok((Self { core, threads: Mutex::new(threads) }, report))
    }

    /// Figures.
    pub fn stats(&self) -> StoreStats {
        crate::stats::collect(&self.core)
    }

    /// Writes all live spans to segments and makes them part of the store.
    pub fn flush(&self) -> Result<(), StoreError> {
        let mut doors = lock(&self.core.doors);
        self.core.freeze(&mut doors);
        drop(doors);
        crate::maintenance::flush_frozen(&self.core)
    }

    /// Merges segments until no merge is due; with `all`, into one.
    pub fn compact_now(&self, all: bool) -> Result<(), StoreError> {
        crate::maintenance::compact(&self.core, all)
    }

    /// Lets `judge` decide about every trace that has been quiet for `wait`
    /// (see [`Config::decide`]); true keeps. Dropped traces are invisible from
    /// now on and are removed by a later merge.
    ///
    /// # Errors
    /// A decision could not be written. It holds, but only until a restart.
    pub fn decide(&self, wait: Duration, judge: &mut Judge<'_>) -> Result<Decided, StoreError> {
        crate::tail::decide(&self.core, wait, judge)
    }

    /// Whether a trace is dropped and can still be kept.
    pub fn is_dropped(&self, id: TraceId) -> Result<bool, StoreError> {
        crate::tail::is_dropped(&self.core, id)
    }

    /// Keeps a trace whatever rules say or have said, unless it has been
    /// removed already.
    pub fn keep(&self, id: TraceId) -> Result<KeptByHand, StoreError> {
        crate::tail::keep(&self.core, id)
    }

    /// Deletes what is older or larger than the settings allow.
    pub fn retain_now(&self) -> Result<(), StoreError> {
        crate::maintenance::retain(&self.core)
    }

    /// Looks at the room on the disk now (the background does so every second).
    pub fn check_disk_now(&self) {
        self.core.check_disk();
    }

    /// Refuses further appends, then makes everything accepted durable.
    pub fn close(&self) {
        self.core.closing.store(true, Ordering::SeqCst);
        // Whoever is inside `append` gets out first.
        drop(lock(&self.core.doors));
        self.core.wake_background();
        for thread in lock(&self.threads).drain(..) {
            let _ = thread.join();
        }
        self.core.journal.close();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

/// Reads what rules have said about segments. Damage costs the decisions of a
/// segment: its traces are judged again.
fn open_drops(
    dir: &Path,
    config: &Config,
    segments: &[Arc<crate::segments::Stored>],
    report: &mut RecoveryReport,
) -> Result<Kept, OpenError> {
    let known = |name: &str| segments.iter().any(|s| s.added.name == name);
    let new = drops::prepare(dir, config.decide, &known)?;
    let mut damaged = |name: &str, what: String| {
        report.damage.push(Damage { file: drops::home(dir).join(name), what });
    };
    for stored in segments {
        let mut found = Drops::load(dir, &stored.added.name).unwrap_or_else(|e| {
            damaged(&stored.added.name, format!("{e}; its traces are judged again"));
            Drops::default()
        });
        if new && found.decided.is_none() {
            // What was stored while no rules decided is not judged.
            found = Drops::none(config.clock.now());
            let path = drops::home(dir).join(&stored.added.name);
            found.save(dir, &stored.added.name).map_err(OpenError::io("write", path))?;
        }
        *lock(&stored.drops) = found;
    }
    if new {
        drops::switched_on(dir)?;
    }
    Ok(Kept::load(dir).unwrap_or_else(|e| {
        damaged("kept", e);
        Kept::default()
    }))
}

/// Turning the log into live generations.
struct Replay {
    journal: Arc<Journal>,
    cell: JournalCell,
    full: Vec<Shared>,
    doors: Doors,
    /// Filled when the store exists: the failure callback needs it.
    core: Arc<Mutex<std::sync::Weak<Core>>>,
}

impl Replay {
    fn open(
        dir: &Path,
        config: &Config,
        mut doors: Doors,
        logged: u64,
        report: &mut RecoveryReport,
    ) -> Result<Self, OpenError> {
        let core: Arc<Mutex<std::sync::Weak<Core>>> = Arc::default();
        let told = Arc::clone(&core);
        let log = spanloom_journal::Config {
            policy: config.ack,
            sync_after: match config.ack {
                SyncPolicy::Always => config.sync_after.min(Duration::from_millis(50)),
                SyncPolicy::Interval => config.sync_after,
            },
            roll_bytes: config.flush_bytes.max(1 << 20).saturating_mul(2),
            max_bytes: config.log_bytes,
            first_seq: logged + 1,
            on_failure: Some(Arc::new(move || {
                // Spans of failed frames may be sent again: they are new then.
                let core = lock(&told).upgrade();
                if let Some(core) = core {
                    lock(&core.doors).intake.forget_recent();
                    core.counters.log_failed();
                }
            })),
            fault: config.log_fault.clone(),
            ..spanloom_journal::Config::default()
        };
        let now = config.clock.now();
        // The generations need the journal to read from, which exists only
        // when the replay is over: first the list, then the generations.
        let cell = JournalCell::default();
        let mut full: Vec<Generation> = vec![Generation::new(Arc::clone(&cell))];
        let mut damage = Vec::new();
        let mut replayed = 0u64;
        let mut memory = 0u64;
        let log_dir = dir.join("log");
        let (journal, recovery) = Journal::open(&log_dir, log, &mut |frame, bytes| {
            if frame.seq <= logged || frame.kind != FRAME_BATCH {
                return;
            }
            let mut chunks = Vec::new();
            let read = View::parse(bytes.clone()).and_then(|v| v.chunks(|c| chunks.push(c)).map(|()| v));
            let view = match read {
                Ok(view) => view,
                Err(e) => {
                    damage.push(format!("frame {} of log file {}: {e}", frame.seq, frame.file));
                    return;
                }
            };
            let Some(last) = full.last() else { return };
            // Little is kept in memory; what is much stays in the log until it
            // has been flushed.
            let payload = if memory < config.flush_bytes {
                memory += bytes.len() as u64;
                Payload::Memory(bytes::Bytes::copy_from_slice(&bytes))
            } else {
                Payload::Log(frame)
            };
            last.replay(&bytes, payload, &chunks, now);
            last.logged(frame.seq);
            doors.intake.begin(now, view.intake().protocol.is_datadog());
            for chunk in &chunks {
                replayed += u64::from(chunk.spans);
                doors.intake.replayed(chunk.trace_id);
            }
            let size = last.size();
            if size.spans >= config.flush_spans || size.bytes >= config.flush_bytes {
                full.push(Generation::new(Arc::clone(&cell)));
            }
        })?;
        let journal = Arc::new(journal);
        let _ = cell.set(Arc::downgrade(&journal));
        report.replayed_spans = replayed;
        report.log_files = recovery.files;
        report.log_bytes = recovery.bytes;
        let file = |what| Damage { file: log_dir.clone(), what };
        report.damage.extend(damage.into_iter().map(file));
        report.damage.extend(recovery.losses.into_iter().map(|l| Damage {
            file: l.file,
            what: format!(
                "{}: {} bytes at byte {}{}",
                l.loss.reason,
                l.loss.bytes,
                l.loss.offset,
                if l.truncated { ", cut off" } else { "" }
            ),
        }));
        Ok(Self { journal, cell, full: full.into_iter().map(Arc::new).collect(), doors, core })
    }
}

impl SpanWriter for Store {
    fn append(&self, batch: Arc<Batch>, done: AckFn) {
        self.core.append(&batch, done);
    }
}

impl SpanReader for Store {
    fn services(&self) -> Result<Vec<String>, StoreError> {
        self.core.ask(|s| {
            let mut names = BTreeSet::new();
            s.list.iter().try_for_each(|s| s.services(&mut names))?;
            Ok(names.into_iter().filter(|n| !n.is_empty()).collect())
        })
    }

    fn operations(&self, service: &str) -> Result<Vec<Operation>, StoreError> {
        self.core.ask(|s| {
            let mut names = Names::new();
            s.list.iter().try_for_each(|s| s.names(&mut names))?;
            let all: BTreeSet<Operation> = if service.is_empty() {
                names.into_values().flatten().collect()
            } else {
                names.remove(service).unwrap_or_default()
            };
            Ok(all.into_iter().filter(|o| !o.name.is_empty()).collect())
        })
    }

    fn trace(&self, id: TraceId, hint: TimeRange) -> Result<Option<Batch>, StoreError> {
        self.core.ask(|s| s.trace(id, hint))
    }

    fn search(&self, search: &Search) -> Result<Vec<TraceSummary>, StoreError> {
        self.core.ask(|s| s.search(search))
    }

    fn dependencies(&self, range: TimeRange) -> Result<Vec<Dependency>, StoreError> {
        self.core.ask(|s| {
            let mut ids: HashSet<TraceId> = HashSet::new();
            for source in &s.list {
                source.trace_ids(range, &mut |id| {
                    ids.insert(s.aliases.full(id));
                })?;
            }
            let mut links = Links::default();
            for id in ids {
                if let Some(batch) = s.trace(id, TimeRange::ALL)? {
                    links.add_trace(&batch, range);
                }
            }
            Ok(links.finish())
        })
    }

    fn attribute_keys(&self) -> Result<Vec<AttrKey>, StoreError> {
        self.core.ask(|s| {
            let mut keys = BTreeSet::new();
            s.list.iter().try_for_each(|s| s.keys(&mut keys))?;
            Ok(keys.into_iter().map(|(key, resource)| AttrKey { key, resource }).collect())
        })
    }

    fn attribute_values(&self, key: &str, limit: usize) -> Result<Vec<String>, StoreError> {
        self.core.ask(|s| {
            let mut values = BTreeSet::new();
            s.list.iter().try_for_each(|s| s.values(key, limit, &mut values))?;
            Ok(values.into_iter().take(limit).collect())
        })
    }
}
