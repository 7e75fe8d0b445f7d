//! All blocks together.

use crate::block::{self, Block, Unreadable};
use crate::open::Open;
use crate::row::{Decision, Meaning, Outcome, Row};
use spanloom_model::TraceId;
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a decision waits at most on its way to the log.
pub const TICK: Duration = Duration::from_millis(200);

/// Full blocks that may wait for the disk; beyond it the oldest is given up
/// and counted.
const WAITING: usize = 4;

const MS: i64 = 1_000_000;

/// Settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory, its own.
    pub dir: PathBuf,
    /// Bound of all files; beyond it the oldest decisions go.
    pub max_bytes: u64,
    /// Decisions older than this, counted from the newest, go; zero keeps them.
    pub keep_for: Duration,
    /// Decisions of one block; in memory are at most a few times as many.
    pub block: usize,
    /// A thread that writes. Off, only [`Decisions::flush`] does: for tests.
    pub background: bool,
}

impl Config {
    /// Defaults: 256 MiB (some eight million decisions), no bound by age.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            max_bytes: 256 << 20,
            keep_for: Duration::ZERO,
            block: 32 << 10,
            background: true,
        }
    }
}

/// Why the log does not open, or what it could not write.
#[derive(Debug, thiserror::Error)]
#[error("the log of decisions: cannot {action} {path}: {source}")]
pub struct DecisionsError {
    /// What was tried.
    pub action: &'static str,
    /// With what.
    pub path: PathBuf,
    /// The system's answer.
    pub source: io::Error,
}

impl DecisionsError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { action, path, source }
    }
}

/// A decision as it is found.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// The trace.
    pub trace_id: TraceId,
    /// When (the first, if several chunks had the same), nanoseconds.
    pub at: i64,
    /// What became of the spans.
    pub outcome: Outcome,
    /// Where they went, see [`crate::to`].
    pub to: u8,
    /// Name of the rule, sampler or reason.
    pub rule: String,
    /// Rate; 0 when not rate-based.
    pub rate: f64,
    /// Spans.
    pub spans: u64,
    /// Chunks that this was decided for.
    pub chunks: u64,
}

/// Figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Decisions that can be found.
    pub rows: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Time of the oldest decision that can be found, nanoseconds.
    pub oldest: Option<i64>,
    /// Time of the newest.
    pub newest: Option<i64>,
    /// Decisions that could not be written and are lost, since the start.
    pub lost: u64,
    /// Text of the last failure.
    pub last_failure: Option<String>,
}

struct State {
    open: Open,
    /// Number of the open block.
    number: u64,
    /// Full, not sealed yet, oldest first.
    full: VecDeque<(u64, Arc<Open>)>,
    /// Sealed, oldest first.
    sealed: Vec<Arc<Block>>,
    lost: u64,
    last_failure: Option<String>,
    closing: bool,
}

/// The log of the open block.
struct Writer {
    number: u64,
    file: Option<File>,
    bytes: u64,
}

struct Core {
    config: Config,
    state: Mutex<State>,
    wake: Condvar,
    /// Held by whoever writes files.
    writer: Mutex<Writer>,
}

/// What was decided about every trace. Recording appends to memory; a thread
/// writes. Share it with [`Arc`].
pub struct Decisions {
    core: Arc<Core>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn log_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:012}.log"))
}

impl Decisions {
    /// Opens or creates a log. The texts say what damage has cost; a damaged
    /// file is set aside by its name.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn open(config: Config) -> Result<(Self, Vec<String>), DecisionsError> {
        let dir = &config.dir;
        fs::create_dir_all(dir).map_err(DecisionsError::io("create", dir))?;
        let mut notices = Vec::new();
        let mut sealed = Vec::new();
        let mut logs = Vec::new();
        for entry in fs::read_dir(dir).map_err(DecisionsError::io("list", dir))?.flatten() {
            let path = entry.path();
            let number = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse::<u64>().ok());
            match (number, path.extension().and_then(|e| e.to_str())) {
                (Some(number), Some("block")) => match Block::open(path.clone(), number) {
                    Ok(block) => sealed.push(Arc::new(block)),
                    Err(e @ Unreadable::Newer(_)) => notices.push(format!("{}: {e}", path.display())),
                    Err(e) => {
                        notices.push(format!("{}: {e}; set aside", path.display()));
                        let _ = fs::rename(&path, path.with_extension("damaged"));
                    }
                },
                (Some(number), Some("log")) => logs.push((number, path)),
                // Half a block: its log is still there.
                (_, Some("new")) => drop(fs::remove_file(&path)),
                _ => {}
            }
        }
        sealed.sort_by_key(|b| b.number);
        logs.sort();
        let mut next = sealed.last().map_or(1, |b| b.number + 1);
        let mut full = VecDeque::new();
        for (number, path) in logs {
            next = next.max(number + 1);
            if sealed.iter().any(|b| b.number == number) {
                let _ = fs::remove_file(&path);
                continue;
            }
            let data = fs::read(&path).map_err(DecisionsError::io("read", &path))?;
            let mut open = Open::default();
            if let (Some(lost), _) = open.read(&data) {
                notices.push(format!("{}: {lost}", path.display()));
            }
            full.push_back((number, Arc::new(open)));
        }
        // The newest log goes on, if it is whole; a torn one is sealed.
        let mut writer = Writer { number: next, file: None, bytes: 0 };
        let mut open = Open::default();
        if let Some((number, last)) = full.pop_back() {
            let path = log_path(dir, number);
            let whole = fs::read(&path).is_ok_and(|d| Open::default().read(&d).1 == d.len());
            if whole && !last.is_full(config.block) && number + 1 == next {
                let file = OpenOptions::new().append(true).open(&path);
                let file = file.map_err(DecisionsError::io("open", &path))?;
                let bytes = file.metadata().map_or(0, |m| m.len());
                writer = Writer { number, file: Some(file), bytes };
                open = Arc::unwrap_or_clone(last);
            } else {
                full.push_back((number, last));
            }
        }
        let number = writer.number;
        let state = State { open, number, full, sealed, lost: 0, last_failure: None, closing: false };
        let background = config.background;
        let core = Arc::new(Core {
            config,
            state: Mutex::new(state),
            wake: Condvar::new(),
            writer: Mutex::new(writer),
        });
        core.write();
        let thread = if background {
            let core = Arc::clone(&core);
            let spawned = std::thread::Builder::new().name("decisions".into()).spawn(move || core.work());
            Some(spawned.map_err(DecisionsError::io("start a thread for", Path::new("decisions")))?)
        } else {
            None
        };
        Ok((Self { core, thread: Mutex::new(thread) }, notices))
    }

    /// Records decisions. Does not wait for the disk.
    pub fn record<'a>(&self, decisions: impl IntoIterator<Item = Decision<'a>>) {
        let mut state = lock(&self.core.state);
        let state = &mut *state;
        for d in decisions {
            if state.open.is_full(self.core.config.block) || !state.open.takes(d.at) {
                let full = std::mem::take(&mut state.open);
                state.open.rows.reserve(self.core.config.block);
                state.full.push_back((state.number, Arc::new(full)));
                state.number += 1;
                if state.full.len() > WAITING
                    && let Some((_, gone)) = state.full.pop_front()
                {
                    state.lost += gone.rows.len() as u64;
                }
                self.core.wake.notify_all();
            }
            state.open.push(&d);
        }
    }

    /// Decisions about a trace, oldest first. Either half of an id that is
    /// known in part finds it. Damage hides the piece it touches.
    pub fn find(&self, id: TraceId) -> Vec<Answer> {
        let mut answers = Vec::new();
        let mut each = |row: &Row, meaning: &Meaning, base: i64| {
            answers.push(Answer {
                trace_id: TraceId(row.id),
                at: (base + i64::from(row.at)).saturating_mul(MS),
                outcome: meaning.outcome,
                to: meaning.to,
                rule: meaning.rule.clone(),
                // Shortest number that is the same: 0.2 stays 0.2.
                rate: row.rate.to_string().parse().unwrap_or(f64::from(row.rate)),
                spans: u64::from(row.spans),
                chunks: u64::from(row.chunks),
            });
        };
        let (sealed, full) = {
            let state = lock(&self.core.state);
            state.open.find(id, &mut each);
            (state.sealed.clone(), state.full.clone())
        };
        full.iter().for_each(|(_, open)| open.find(id, &mut each));
        for block in &sealed {
            // A file that is gone was too old.
            if let Err(e) = block.find(id, &mut each)
                && !matches!(&e, Unreadable::Io(e) if e.kind() == io::ErrorKind::NotFound)
            {
                lock(&self.core.state).last_failure = Some(format!("{}: {e}", block.path.display()));
            }
        }
        answers.sort_by(|a, b| (a.at, a.outcome as u8, &a.rule).cmp(&(b.at, b.outcome as u8, &b.rule)));
        join(answers)
    }

    /// Writes what is in memory to the log, seals full blocks, deletes what
    /// exceeds the bounds.
    pub fn flush(&self) {
        self.core.write();
    }

    /// Figures.
    pub fn stats(&self) -> Stats {
        let log = lock(&self.core.writer).bytes;
        let state = lock(&self.core.state);
        let waiting = state.full.iter().map(|(_, o)| o.as_ref()).chain([&state.open]);
        let mut stats = Stats {
            rows: state.sealed.iter().map(|b| u64::from(b.rows)).sum(),
            bytes: log + state.sealed.iter().map(|b| b.bytes).sum::<u64>(),
            lost: state.lost,
            last_failure: state.last_failure.clone(),
            ..Stats::default()
        };
        let mut ranges: Vec<(i64, i64)> = state.sealed.iter().map(|b| b.range).collect();
        for open in waiting {
            stats.rows += open.rows.len() as u64;
            ranges.extend(open.range());
        }
        stats.oldest = ranges.iter().map(|r| r.0).min();
        stats.newest = ranges.iter().map(|r| r.1).max();
        stats
    }

    /// Writes everything and ends the thread.
    pub fn close(&self) {
        lock(&self.core.state).closing = true;
        self.core.wake.notify_all();
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
        self.core.write();
    }
}

impl Drop for Decisions {
    fn drop(&mut self) {
        self.close();
    }
}

/// The same decision in several blocks is one.
fn join(answers: Vec<Answer>) -> Vec<Answer> {
    let mut out: Vec<Answer> = Vec::with_capacity(answers.len());
    for a in answers {
        let same = |b: &&mut Answer| {
            !b.outcome.is_of_trace()
                && (b.trace_id, b.outcome, b.to) == (a.trace_id, a.outcome, a.to)
                && b.rule == a.rule
                && b.rate.to_bits() == a.rate.to_bits()
        };
        match out.iter_mut().find(same) {
            Some(b) => {
                b.spans += a.spans;
                b.chunks += a.chunks;
            }
            None => out.push(a),
        }
    }
    out
}

impl Core {
    fn work(&self) {
        loop {
            {
                let state = lock(&self.state);
                if state.closing {
                    return;
                }
                // Spurious wake-ups only write early.
                drop(self.wake.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner));
            }
            self.write();
        }
    }

    fn failed(&self, error: &io::Error) {
        lock(&self.state).last_failure = Some(format!("{}: {error}", self.config.dir.display()));
    }

    fn write(&self) {
        let mut writer = lock(&self.writer);
        // Full blocks, oldest first.
        loop {
            let Some((number, full)) = lock(&self.state).full.front().cloned() else { break };
            let sealed = if full.rows.is_empty() {
                Ok(None)
            } else {
                block::write(&self.config.dir, number, &full).map(Some)
            };
            match sealed {
                Ok(block) => {
                    let mut state = lock(&self.state);
                    // It may have been given up meanwhile.
                    if state.full.front().is_some_and(|(n, _)| *n == number) {
                        state.full.pop_front();
                    }
                    state.sealed.extend(block.map(Arc::new));
                }
                Err(e) => {
                    self.failed(&e);
                    break;
                }
            }
            let _ = fs::remove_file(log_path(&self.config.dir, number));
        }
        let (number, frame) = {
            let state = lock(&self.state);
            let mut out = Vec::new();
            (state.number, state.open.unlogged(&mut out).map(|to| (out, to)))
        };
        if let Some((bytes, to)) = frame {
            match self.log(&mut writer, number, &bytes) {
                Ok(()) => {
                    let mut state = lock(&self.state);
                    if state.number == number {
                        state.open.logged(to);
                    }
                }
                Err(e) => self.failed(&e),
            }
        }
        self.retain();
    }

    fn log(&self, writer: &mut Writer, number: u64, bytes: &[u8]) -> io::Result<()> {
        let path = log_path(&self.config.dir, number);
        if writer.number != number || writer.file.is_none() {
            let file = OpenOptions::new().create(true).append(true).open(&path)?;
            let len = file.metadata()?.len();
            *writer = Writer { number, file: Some(file), bytes: len };
        }
        let Some(file) = &mut writer.file else { return Ok(()) };
        if let Err(e) = file.write_all(bytes) {
            // Half a frame would hide the next ones.
            let _ = file.set_len(writer.bytes);
            return Err(e);
        }
        writer.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Deletes the oldest blocks beyond the bounds.
    fn retain(&self) {
        let mut gone = Vec::new();
        {
            let mut state = lock(&self.state);
            let state = &mut *state;
            let newest = state.open.range().map(|r| r.1).or(state.sealed.last().map(|b| b.range.1));
            let keep = i64::try_from(self.config.keep_for.as_nanos()).unwrap_or(i64::MAX);
            let limit = newest.filter(|_| keep > 0).map_or(i64::MIN, |n| n.saturating_sub(keep));
            let mut bytes: u64 = state.sealed.iter().map(|b| b.bytes).sum();
            state.sealed.retain(|b| {
                let keep = bytes <= self.config.max_bytes && b.range.1 >= limit;
                if !keep {
                    bytes -= b.bytes;
                    gone.push(Arc::clone(b));
                }
                keep
            });
        }
        for block in gone {
            let _ = fs::remove_file(&block.path);
        }
    }
}
