//! The journal as its users see it.

use crate::files;
use crate::recover::{self, FrameRef, Kept, Recovery};
use crate::writer::{self, Item, Shared};
use bytes::Bytes;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Why the journal refused or failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// The files have reached [`Config::max_bytes`]; releasing makes room.
    #[error("the log is full: {bytes} of at most {limit} bytes")]
    Full {
        /// Bytes of all files and of what waits to be written.
        bytes: u64,
        /// The bound.
        limit: u64,
    },
    /// More waits to be written than [`Config::max_pending`]: the disk is slower than the input.
    #[error("{bytes} bytes wait to be written to the log, at most {limit} may")]
    Behind {
        /// Bytes waiting.
        bytes: u64,
        /// The bound.
        limit: u64,
    },
    /// One payload is larger than [`crate::MAX_PAYLOAD`].
    #[error("a payload of {0} bytes is larger than a frame may be")]
    TooLarge(usize),
    /// The operating system refused.
    #[error("the log cannot be written: {0}")]
    Write(String),
    /// A file or directory could not be handled.
    #[error("cannot {0}")]
    Io(String),
    /// A frame that was intact once is not any more.
    #[error("frame {seq} in {file} is damaged")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The frame.
        seq: u64,
    },
    /// The directory was written by a newer program.
    #[error(
        "{file} has format version {version}; this program reads up to 1: use the newer program, or another directory"
    )]
    Newer {
        /// The file.
        file: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The journal is being closed.
    #[error("the log is closing")]
    Closed,
}

/// When a `done` callback is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SyncPolicy {
    /// After the group commit is on disk.
    Always,
    /// After write(2): survives the end of the process, not a power failure in
    /// the at most [`Config::sync_after`] until the sync.
    #[default]
    Interval,
}

/// Asked before each file operation (`"create"`, `"write"`, `"sync"`); an error
/// is taken as the operation's own. For tests of failing disks.
pub type Fault = Arc<dyn Fn(&'static str) -> std::io::Result<()> + Send + Sync>;

/// Settings.
#[derive(Clone)]
pub struct Config {
    /// When `done` is called.
    pub policy: SyncPolicy,
    /// A file is closed at this size.
    pub roll_bytes: u64,
    /// Bound of all files together.
    pub max_bytes: u64,
    /// Bound of what waits to be written.
    pub max_pending: u64,
    /// A sync begins when so much is written and not synced …
    pub sync_bytes: u64,
    /// … or so long after the first unsynced write.
    pub sync_after: Duration,
    /// Least sequence number to begin with; the files may say more.
    pub first_seq: u64,
    /// Called on the writer thread when a write or sync failed, after new
    /// appends are refused and before the callbacks of the failed frames. The
    /// user forgets here what it believed to be written.
    pub on_failure: Option<Arc<dyn Fn() + Send + Sync>>,
    /// For tests.
    pub fault: Option<Fault>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            policy: SyncPolicy::Interval,
            roll_bytes: 128 << 20,
            max_bytes: 1 << 30,
            max_pending: 16 << 20,
            sync_bytes: 1 << 20,
            sync_after: Duration::from_millis(50),
            first_seq: 1,
            on_failure: None,
            fault: None,
        }
    }
}

/// Told once, on the thread that writes (see [`Journal::append_here`]), what
/// became of a frame. A barrier or sync gets a
/// reference whose `seq` is 0.
pub type DoneFn = Box<dyn FnOnce(Result<FrameRef, JournalError>) + Send>;

/// An append that was not taken.
pub struct Refused {
    /// Why.
    pub error: JournalError,
    /// The callback, not called.
    pub done: DoneFn,
}

/// Figures of a journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalStats {
    /// Files.
    pub files: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes waiting to be written.
    pub pending: u64,
    /// The next sequence number.
    pub next_seq: u64,
    /// Syncs so far.
    pub syncs: u64,
    /// Failed writes and syncs so far.
    pub failures: u64,
}

/// A durable append log in one directory. One process at a time: the caller
/// guards the directory.
pub struct Journal {
    dir: PathBuf,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The guarded data are plain counters and lists that stay consistent
    // statement by statement; a panic elsewhere must not stop the log.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Journal {
    /// Opens or creates a log. Every intact frame in the directory is handed
    /// to `each`, in order; its bytes are a slice of the whole file, so what
    /// stays should be copied.
    ///
    /// Damage is reported, not an error. Errors: the directory cannot be used,
    /// or was written by a newer program.
    pub fn open(
        dir: &Path,
        config: Config,
        each: &mut dyn FnMut(FrameRef, Bytes),
    ) -> Result<(Self, Recovery), JournalError> {
        let (state, recovery) = recover::recover(dir, config.first_seq, each)?;
        let shared = writer::start(dir, config, &state)?;
        for path in state.empty {
            std::fs::remove_file(&path)
                .map_err(|e| JournalError::Io(format!("remove {}: {e}", path.display())))?;
        }
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn({
                let shared = Arc::clone(&shared);
                move || writer::run(&shared)
            })
            .map_err(|e| JournalError::Io(format!("start the journal thread: {e}")))?;
        Ok((Self { dir: dir.into(), shared, thread: Mutex::new(Some(thread)) }, recovery))
    }

    /// Queues a frame and returns its sequence number. Does not wait for the
    /// disk. On refusal the callback is given back uncalled.
    pub fn append(&self, kind: u8, payload: Bytes, done: DoneFn) -> Result<u64, Refused> {
        writer::enqueue(&self.shared, Item::Frame { kind, payload }, done, false)
    }

    /// Like [`Journal::append`], but under [`SyncPolicy::Interval`] the frame
    /// is written on this thread, with all that waits, unless another thread
    /// is writing already. Callbacks, also those of others, may run before
    /// this returns: the caller holds no lock that they need.
    pub fn append_here(&self, kind: u8, payload: Bytes, done: DoneFn) -> Result<u64, Refused> {
        let seq = self.append_before_write(kind, payload, done)?;
        self.write_here();
        Ok(seq)
    }

    /// First half of [`Journal::append_here`], for callers whose order is kept
    /// by a lock: calls nothing back. [`Journal::write_here`] follows soon,
    /// after the lock.
    pub fn append_before_write(&self, kind: u8, payload: Bytes, done: DoneFn) -> Result<u64, Refused> {
        let here = self.shared.config.policy == SyncPolicy::Interval;
        writer::enqueue(&self.shared, Item::Frame { kind, payload }, done, here)
    }

    /// Second half of [`Journal::append_here`]. Does nothing under
    /// [`SyncPolicy::Always`], where the journal's thread has been woken.
    pub fn write_here(&self) {
        if self.shared.config.policy == SyncPolicy::Interval {
            writer::write_here(&self.shared);
        }
    }

    /// Calls `done` when everything appended before has been written (and,
    /// under [`SyncPolicy::Always`], synced).
    pub fn barrier(&self, done: DoneFn) -> Result<(), Refused> {
        writer::enqueue(&self.shared, Item::Barrier, done, false).map(|_| ())
    }

    /// Calls `done` when everything appended before is on disk, whatever the
    /// policy.
    pub fn sync(&self, done: DoneFn) -> Result<(), Refused> {
        writer::enqueue(&self.shared, Item::Sync, done, false).map(|_| ())
    }

    /// Whether a payload of this size would be taken now.
    pub fn room(&self, payload: usize) -> Result<(), JournalError> {
        lock(&self.shared.queue).room(payload, &self.shared.config)
    }

    /// Ends the file being written, so that [`Journal::release`] can delete it
    /// as soon as its frames are released.
    pub fn roll(&self) {
        let _ = writer::enqueue(&self.shared, Item::Roll, Box::new(|_| ()), false);
    }

    /// Frames up to and including `seq` are not needed any more: files that
    /// hold no others are deleted, except the one being written.
    pub fn release(&self, seq: u64) -> Result<(), JournalError> {
        let mut gone = Vec::new();
        {
            let mut files = lock(&self.shared.files);
            files.retain(|f: &Kept| {
                let keep = f.last_seq > seq;
                if !keep {
                    gone.push(*f);
                }
                keep
            });
        }
        if gone.is_empty() {
            return Ok(());
        }
        let mut result = Ok(());
        let mut freed = 0;
        for file in gone {
            let path = files::path_of(&self.dir, file.number);
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    result = Err(JournalError::Io(format!("remove {}: {e}", path.display())));
                    lock(&self.shared.files).push(file);
                }
                _ => freed += file.bytes,
            }
        }
        let mut queue = lock(&self.shared.queue);
        queue.file_bytes = queue.file_bytes.saturating_sub(freed);
        drop(queue);
        let _ = files::sync_dir(&self.dir);
        result
    }

    /// Reads a frame back and checks it.
    pub fn read(&self, frame: FrameRef) -> Result<Bytes, JournalError> {
        read_frame(&self.dir, frame)
    }

    /// Figures.
    pub fn stats(&self) -> JournalStats {
        let files = lock(&self.shared.files).len() as u64 + 1;
        let queue = lock(&self.shared.queue);
        JournalStats {
            files,
            bytes: queue.file_bytes,
            pending: queue.pending,
            next_seq: queue.next_seq,
            syncs: queue.syncs,
            failures: queue.failures,
        }
    }

    /// Writes and syncs everything that waits, calls all callbacks, stops the
    /// thread. Appends are refused from now on.
    pub fn close(&self) {
        {
            let mut queue = lock(&self.shared.queue);
            queue.closed = true;
        }
        self.shared.wake.notify_all();
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

fn read_frame(dir: &Path, frame: FrameRef) -> Result<Bytes, JournalError> {
    let path = files::path_of(dir, frame.file);
    let io = |e: std::io::Error| JournalError::Io(format!("read {}: {e}", path.display()));
    let file = File::open(&path).map_err(io)?;
    let head = crate::FRAME_HEADER as u64;
    let start =
        frame.offset.checked_sub(head).ok_or(JournalError::Damaged { file: path.clone(), seq: frame.seq })?;
    let mut buf = vec![0; crate::FRAME_HEADER + frame.len as usize];
    file.read_exact_at(&mut buf, start).map_err(io)?;
    let data = Bytes::from(buf);
    let mut found = None;
    crate::scan(&data, 0, frame.seq.saturating_sub(1), |f| found = found.take().or(Some(f)));
    match found {
        Some(f) if f.seq == frame.seq && f.payload.len() == frame.len as usize => Ok(data.slice(f.payload)),
        _ => Err(JournalError::Damaged { file: path, seq: frame.seq }),
    }
}
