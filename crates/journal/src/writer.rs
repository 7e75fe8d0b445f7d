//! How frames get into the file. Whoever holds [`Shared::active`] takes
//! everything that waits in one go, so the group grows with the load: one write
//! for many appends. That is the journal's thread, or under
//! [`SyncPolicy::Interval`] an appender that says so
//! ([`crate::Journal::append_here`]): for a small frame, waking a thread and
//! being woken by it costs several times the write itself. Only the thread
//! syncs, begins files, and handles failures.

use crate::files::{self, HEADER_LEN};
use crate::frame;
use crate::log::{Config, DoneFn, JournalError, Refused, SyncPolicy, lock};
use crate::recover::{FrameRef, Kept, State};
use bytes::Bytes;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError, TryLockError};
use std::time::Instant;

/// Frames are gathered up to this size for one write(2).
const WRITE_BYTES: usize = 256 << 10;
/// Payloads from this size on are written from where they are.
const DIRECT_BYTES: usize = 32 << 10;

/// What a callback gets that belongs to no frame.
const NO_FRAME: FrameRef = FrameRef { file: 0, offset: 0, len: 0, seq: 0, kind: 0 };

pub(crate) enum Item {
    Frame { kind: u8, payload: Bytes },
    Barrier,
    Sync,
    Roll,
}

struct Queued {
    item: Item,
    seq: u64,
    done: DoneFn,
}

pub(crate) struct Queue {
    items: Vec<Queued>,
    /// When the first of the written and not synced bytes were written.
    unsynced_since: Option<Instant>,
    /// The thread has something to do besides writing.
    attention: bool,
    pub pending: u64,
    pub file_bytes: u64,
    pub next_seq: u64,
    pub closed: bool,
    /// Set from a failure until its callbacks have been called.
    pub broken: Option<JournalError>,
    pub syncs: u64,
    pub failures: u64,
}

pub(crate) struct Shared {
    pub config: Config,
    pub queue: Mutex<Queue>,
    /// Locked before `queue` where both are needed.
    active: Mutex<Active>,
    pub wake: Condvar,
    /// Files that are not written any more.
    pub files: Mutex<Vec<Kept>>,
}

/// The file being written.
struct Active {
    dir: PathBuf,
    file: Arc<File>,
    number: u64,
    /// Good bytes.
    bytes: u64,
    last_seq: u64,
    unsynced: u64,
    /// A write of an appender has failed; the thread deals with it.
    failed: Option<(JournalError, Vec<Queued>)>,
    /// Callbacks that wait for the sync.
    waiting: Vec<(FrameRef, DoneFn)>,
    buf: Vec<u8>,
}

pub(crate) fn start(dir: &Path, config: Config, state: &State) -> Result<Arc<Shared>, JournalError> {
    let active = create(dir, &config, state.next_file, state.next_seq)
        .map_err(|e| JournalError::Io(format!("create a log file in {}: {e}", dir.display())))?;
    let kept: u64 = state.files.iter().map(|f| f.bytes).sum();
    let queue = Queue {
        items: Vec::new(),
        unsynced_since: None,
        attention: false,
        pending: 0,
        file_bytes: kept + HEADER_LEN as u64,
        next_seq: state.next_seq,
        closed: false,
        broken: None,
        syncs: 0,
        failures: 0,
    };
    let shared = Shared {
        config,
        queue: Mutex::new(queue),
        active: Mutex::new(active),
        wake: Condvar::new(),
        files: Mutex::new(state.files.clone()),
    };
    Ok(Arc::new(shared))
}

fn ask(config: &Config, what: &'static str) -> io::Result<()> {
    config.fault.as_ref().map_or(Ok(()), |f| f(what))
}

fn create(dir: &Path, config: &Config, number: u64, first_seq: u64) -> io::Result<Active> {
    ask(config, "create")?;
    let path = files::path_of(dir, number);
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    file.write_all(&files::header(first_seq))?;
    file.sync_all()?;
    files::sync_dir(dir)?;
    Ok(Active {
        dir: dir.into(),
        file: Arc::new(file),
        number,
        bytes: HEADER_LEN as u64,
        last_seq: first_seq - 1,
        unsynced: 0,
        failed: None,
        waiting: Vec::new(),
        buf: Vec::new(),
    })
}

impl Queue {
    /// Whether a payload of this size may be queued.
    pub(crate) fn room(&self, payload: usize, config: &Config) -> Result<(), JournalError> {
        if payload > crate::MAX_PAYLOAD {
            return Err(JournalError::TooLarge(payload));
        }
        self.open()?;
        // One payload may always wait, however large.
        if self.pending > 0 && self.pending + payload as u64 > config.max_pending {
            return Err(JournalError::Behind { bytes: self.pending, limit: config.max_pending });
        }
        let bytes = self.file_bytes + self.pending + payload as u64;
        if bytes > config.max_bytes {
            return Err(JournalError::Full { bytes, limit: config.max_bytes });
        }
        Ok(())
    }

    fn open(&self) -> Result<(), JournalError> {
        match &self.broken {
            _ if self.closed => Err(JournalError::Closed),
            Some(why) => Err(why.clone()),
            None => Ok(()),
        }
    }
}

/// `here`: the caller goes on to [`write_here`], so the thread need not wake up.
pub(crate) fn enqueue(shared: &Shared, item: Item, done: DoneFn, here: bool) -> Result<u64, Refused> {
    let mut queue = lock(&shared.queue);
    let taken = match &item {
        Item::Frame { payload, .. } => queue.room(payload.len(), &shared.config),
        _ => queue.open(),
    };
    if let Err(error) = taken {
        drop(queue);
        return Err(Refused { error, done });
    }
    let mut seq = 0;
    if let Item::Frame { payload, .. } = &item {
        seq = queue.next_seq;
        queue.next_seq += 1;
        queue.pending += payload.len() as u64;
    }
    queue.items.push(Queued { item, seq, done });
    let first = queue.items.len() == 1;
    drop(queue);
    if first && !here {
        shared.wake.notify_one();
    }
    Ok(seq)
}

/// Writes what waits, unless somebody else is at it, who then does.
pub(crate) fn write_here(shared: &Shared) {
    loop {
        let mut active = match shared.active.try_lock() {
            Ok(active) => active,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let mut queue = lock(&shared.queue);
        let for_thread = |q: &Queued| matches!(q.item, Item::Roll | Item::Sync);
        let mut wake = active.failed.is_some() || queue.items.iter().any(for_thread);
        if wake {
            queue.attention = true;
            drop(queue);
            return shared.wake.notify_one();
        }
        let mut batch = std::mem::take(&mut queue.items).into_iter();
        drop(queue);
        if batch.len() > 0 {
            // Otherwise the thread knows already when to sync.
            wake = active.unsynced == 0;
            if let Err(error) = write_all(shared, &mut active, &mut batch, false) {
                active.failed = Some((error, batch.collect()));
            }
            let due = active.unsynced >= shared.config.sync_bytes || active.bytes >= shared.config.roll_bytes;
            if active.failed.is_some() || due {
                lock(&shared.queue).attention = true;
                wake = true;
            }
        }
        drop(active);
        if wake {
            shared.wake.notify_one();
        }
        // Looked at again after the lock is given back: whoever appended
        // meanwhile found it taken and relies on it.
        if lock(&shared.queue).items.is_empty() {
            return;
        }
    }
}

/// The journal's thread.
pub(crate) fn run(shared: &Shared) {
    loop {
        let closing = wait(shared);
        let sync = turn(shared, &mut lock(&shared.active), closing);
        if sync {
            sync_aside(shared);
        }
        if closing && lock(&shared.queue).items.is_empty() {
            break;
        }
    }
}

/// Waits for something to write, a sync that is due, or the end (true).
fn wait(shared: &Shared) -> bool {
    let mut queue = lock(&shared.queue);
    loop {
        if !queue.items.is_empty() || queue.closed || std::mem::take(&mut queue.attention) {
            return queue.closed;
        }
        queue = match queue.unsynced_since {
            None => shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner),
            Some(since) => {
                let left = shared.config.sync_after.saturating_sub(since.elapsed());
                if left.is_zero() {
                    return false;
                }
                shared.wake.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0
            }
        };
    }
}

/// Writes what waits, or ends what has failed. Whether a sync is due.
fn turn(shared: &Shared, active: &mut Active, closing: bool) -> bool {
    let mut batch = std::mem::take(&mut lock(&shared.queue).items).into_iter();
    if let Some((error, rest)) = active.failed.take() {
        fail(shared, active, &error, rest.into_iter().chain(batch).collect());
        return false;
    }
    if let Err(error) = write_all(shared, active, &mut batch, true) {
        fail(shared, active, &error, batch.collect());
        return false;
    }
    let since = lock(&shared.queue).unsynced_since;
    let late = since.is_some_and(|since| since.elapsed() >= shared.config.sync_after);
    active.unsynced > 0 && (closing || late || active.unsynced >= shared.config.sync_bytes)
}

/// Writes frames in groups; their callbacks run (or wait for the sync) after
/// the group is written. On error the callbacks of the group are in `waiting`.
/// `may_roll`: a file that is long enough is ended.
fn write_all(
    shared: &Shared,
    active: &mut Active,
    batch: &mut std::vec::IntoIter<Queued>,
    may_roll: bool,
) -> Result<(), JournalError> {
    let mut group: Vec<(FrameRef, DoneFn)> = Vec::new();
    for queued in batch {
        match queued.item {
            Item::Frame { kind, payload } => {
                let offset = active.bytes + active.buf.len() as u64 + frame::FRAME_HEADER as u64;
                let frame = FrameRef {
                    file: active.number,
                    offset,
                    len: payload.len() as u32,
                    seq: queued.seq,
                    kind,
                };
                group.push((frame, queued.done));
                if payload.len() >= DIRECT_BYTES {
                    frame::write_header(&mut active.buf, queued.seq, kind, &payload);
                    write_group(shared, active, &mut group, &payload)?;
                } else {
                    frame::write_frame(&mut active.buf, queued.seq, kind, &payload);
                }
            }
            Item::Barrier => group.push((NO_FRAME, queued.done)),
            Item::Sync => {
                write_group(shared, active, &mut group, &[])?;
                active.waiting.push((NO_FRAME, queued.done));
                sync_active(shared, active)?;
            }
            Item::Roll => {
                write_group(shared, active, &mut group, &[])?;
                if active.bytes > HEADER_LEN as u64 {
                    roll(shared, active)?;
                }
            }
        }
        if active.buf.len() >= WRITE_BYTES {
            write_group(shared, active, &mut group, &[])?;
        }
        if may_roll && active.bytes >= shared.config.roll_bytes {
            write_group(shared, active, &mut group, &[])?;
            roll(shared, active)?;
        }
    }
    write_group(shared, active, &mut group, &[])?;
    if may_roll && active.bytes >= shared.config.roll_bytes {
        roll(shared, active)?;
    }
    Ok(())
}

/// Writes what is gathered, and after it the payload of the last frame if that
/// was not gathered.
fn write_group(
    shared: &Shared,
    active: &mut Active,
    group: &mut Vec<(FrameRef, DoneFn)>,
    last: &[u8],
) -> Result<(), JournalError> {
    let len = (active.buf.len() + last.len()) as u64;
    if len > 0 {
        let mut file = &*active.file;
        let result = ask(&shared.config, "write")
            .and_then(|()| file.write_all(&active.buf))
            .and_then(|()| file.write_all(last));
        active.buf.clear();
        if active.buf.capacity() > 4 * WRITE_BYTES {
            active.buf.shrink_to(WRITE_BYTES);
        }
        let payload: u64 = group.iter().map(|(f, _)| u64::from(f.len)).sum();
        let mut queue = lock(&shared.queue);
        queue.pending = queue.pending.saturating_sub(payload);
        if let Err(e) = result {
            drop(queue);
            active.waiting.append(group);
            return Err(JournalError::Write(e.to_string()));
        }
        queue.file_bytes += len;
        queue.unsynced_since.get_or_insert_with(Instant::now);
        drop(queue);
        active.bytes += len;
        active.unsynced += len;
        active.last_seq = group.iter().map(|(f, _)| f.seq).max().unwrap_or(0).max(active.last_seq);
    }
    // A barrier with nothing unsynced before it need not wait.
    if shared.config.policy == SyncPolicy::Always && active.unsynced > 0 {
        active.waiting.append(group);
    } else {
        for (frame, done) in group.drain(..) {
            done(Ok(frame));
        }
    }
    Ok(())
}

/// Syncs without holding up writes. What waits for it is told.
fn sync_aside(shared: &Shared) {
    let (file, bytes, waiting) = {
        let mut active = lock(&shared.active);
        lock(&shared.queue).unsynced_since = None;
        (Arc::clone(&active.file), active.unsynced, std::mem::take(&mut active.waiting))
    };
    let result = sync(shared, &file);
    let mut active = lock(&shared.active);
    match result {
        Ok(()) => {
            // The file is the same: only this thread begins another.
            active.unsynced -= bytes;
            drop(active);
            for (frame, done) in waiting {
                done(Ok(frame));
            }
        }
        Err(error) => {
            let later = std::mem::replace(&mut active.waiting, waiting);
            active.waiting.extend(later);
            fail(shared, &mut active, &error, Vec::new());
        }
    }
}

/// Syncs while nobody else can write.
fn sync_active(shared: &Shared, active: &mut Active) -> Result<(), JournalError> {
    sync(shared, &active.file)?;
    active.unsynced = 0;
    lock(&shared.queue).unsynced_since = None;
    for (frame, done) in active.waiting.drain(..) {
        done(Ok(frame));
    }
    Ok(())
}

fn sync(shared: &Shared, file: &File) -> Result<(), JournalError> {
    ask(&shared.config, "sync")
        .and_then(|()| file.sync_data())
        .map_err(|e| JournalError::Write(format!("sync: {e}")))?;
    lock(&shared.queue).syncs += 1;
    Ok(())
}

/// Ends the file and begins the next.
fn roll(shared: &Shared, active: &mut Active) -> Result<(), JournalError> {
    if active.unsynced > 0 {
        sync_active(shared, active)?;
    }
    let next = create(&active.dir, &shared.config, active.number + 1, active.last_seq + 1)
        .map_err(|e| JournalError::Write(format!("begin a new log file: {e}")))?;
    replace(shared, active, next);
    Ok(())
}

fn replace(shared: &Shared, active: &mut Active, next: Active) {
    let old = std::mem::replace(active, next);
    lock(&shared.files).push(Kept { number: old.number, bytes: old.bytes, last_seq: old.last_seq });
    lock(&shared.queue).file_bytes += HEADER_LEN as u64;
}

/// Something could not be written or synced: nothing that waits can be
/// promised any more. New appends are refused until the user has been told, so
/// that nobody takes a frame for written that is not.
fn fail(shared: &Shared, active: &mut Active, error: &JournalError, rest: Vec<Queued>) {
    let mut failed: Vec<DoneFn> = active.waiting.drain(..).map(|(_, done)| done).collect();
    {
        let mut queue = lock(&shared.queue);
        queue.broken = Some(error.clone());
        queue.failures += 1;
        let waiting = std::mem::take(&mut queue.items);
        failed.extend(rest.into_iter().chain(waiting).map(|q| q.done));
        queue.pending = 0;
    }
    active.buf.clear();
    if let Some(tell) = &shared.config.on_failure {
        tell();
    }
    for done in failed {
        done(Err(error.clone()));
    }
    // After a failed sync the kernel may have dropped pages, and a failed
    // write may have left part of a frame: go on in a new file, the tail of
    // the old one is cut.
    active.unsynced = 0;
    lock(&shared.queue).unsynced_since = None;
    let _ = active.file.set_len(active.bytes);
    // What was answered under `Interval` and not synced yet may still be saved.
    let _ = active.file.sync_data();
    let next_seq = lock(&shared.queue).next_seq;
    let mut number = active.number + 1;
    while files::path_of(&active.dir, number).exists() {
        number += 1;
    }
    match create(&active.dir, &shared.config, number, next_seq) {
        Ok(next) => replace(shared, active, next),
        // The next write meets the same disk and fails in the same way; the
        // position is put back so that a disk that recovers is used again.
        Err(_) => {
            use std::io::Seek;
            let _ = (&*active.file).seek(io::SeekFrom::Start(active.bytes));
            let _ = std::fs::remove_file(files::path_of(&active.dir, number));
        }
    }
    lock(&shared.queue).broken = None;
}
