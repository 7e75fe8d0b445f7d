//! Reading a directory after a crash.

use crate::files::{self, HEADER_LEN, Header};
use crate::frame::{self, Loss};
use crate::log::JournalError;
use bytes::Bytes;
use std::fs;
use std::path::{Path, PathBuf};

/// Where a frame lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRef {
    /// Number of its file.
    pub file: u64,
    /// Where its payload begins in the file.
    pub offset: u64,
    /// Bytes of its payload.
    pub len: u32,
    /// Its sequence number; 0 stands for "no frame".
    pub seq: u64,
    /// Its kind.
    pub kind: u8,
}

/// Damage in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileLoss {
    /// The file.
    pub file: PathBuf,
    /// Where, how much, and what is wrong.
    pub loss: Loss,
    /// The bytes were cut off: the torn tail of the newest file, which is what
    /// a crash in the middle of a write leaves.
    pub truncated: bool,
}

/// What opening a journal found.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// Files read.
    pub files: u64,
    /// Bytes of these files.
    pub bytes: u64,
    /// Intact frames.
    pub frames: u64,
    /// Sequence number of the last intact frame, 0 if there is none.
    pub last_seq: u64,
    /// What was lost.
    pub losses: Vec<FileLoss>,
}

/// A file that stays.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    pub number: u64,
    pub bytes: u64,
    pub last_seq: u64,
}

pub(crate) struct State {
    pub files: Vec<Kept>,
    pub next_seq: u64,
    pub next_file: u64,
    pub empty: Vec<PathBuf>,
}

/// Reads all files, hands every intact frame on in order, truncates the torn
/// tail of the newest file.
pub(crate) fn recover(
    dir: &Path,
    first_seq: u64,
    each: &mut dyn FnMut(FrameRef, Bytes),
) -> Result<(State, Recovery), JournalError> {
    let io = |what: &str, path: &Path, e: std::io::Error| {
        JournalError::Io(format!("{what} {}: {e}", path.display()))
    };
    fs::create_dir_all(dir).map_err(|e| io("create", dir, e))?;
    let listed = files::list(dir).map_err(|e| io("list", dir, e))?;
    std::thread::scope(|scope| {
        // One file is read while the one before is looked through.
        let (send, received) = std::sync::mpsc::sync_channel(0);
        let paths: Vec<PathBuf> = listed.iter().map(|f| files::path_of(dir, f.0)).collect();
        std::thread::Builder::new()
            .name("journal-read".into())
            .spawn_scoped(scope, move || {
                let _ = paths.iter().try_for_each(|path| send.send(fs::read(path)));
            })
            .map_err(|e| JournalError::Io(format!("start a thread that reads the log: {e}")))?;
        let mut read = || received.recv().unwrap_or_else(|e| Err(std::io::Error::other(e)));
        recover_files(dir, &listed, first_seq, &mut read, each)
    })
}

/// The same for the files of the directory, which `read` gives one by one.
fn recover_files(
    dir: &Path,
    listed: &[(u64, u64)],
    first_seq: u64,
    read: &mut dyn FnMut() -> std::io::Result<Vec<u8>>,
    each: &mut dyn FnMut(FrameRef, Bytes),
) -> Result<(State, Recovery), JournalError> {
    let io = |what: &str, path: &Path, e: std::io::Error| {
        JournalError::Io(format!("{what} {}: {e}", path.display()))
    };
    let mut report = Recovery::default();
    let mut state = State {
        files: Vec::new(),
        next_seq: first_seq.max(1),
        next_file: listed.last().map_or(1, |f| f.0 + 1),
        empty: Vec::new(),
    };
    let mut last_seq = 0;
    for (i, &(number, _)) in listed.iter().enumerate() {
        let path = files::path_of(dir, number);
        let newest = i + 1 == listed.len();
        let data = match read() {
            Ok(data) => Bytes::from(data),
            Err(_) => {
                // One unreadable file must not stop the start.
                let loss = Loss { offset: 0, bytes: listed[i].1, reason: "the file cannot be read" };
                report.losses.push(FileLoss { file: path, loss, truncated: false });
                // Never released: somebody may be able to read it later.
                state.files.push(Kept { number, bytes: listed[i].1, last_seq: u64::MAX });
                continue;
            }
        };
        report.files += 1;
        report.bytes += data.len() as u64;
        let mut start = HEADER_LEN;
        match files::parse_header(&data) {
            Header::Good { first_seq } => state.next_seq = state.next_seq.max(first_seq),
            Header::Newer(version) => return Err(JournalError::Newer { file: path, version }),
            Header::Damaged if data.len() < HEADER_LEN => {
                // The crash came between creating the file and its header.
                start = data.len();
                if !data.is_empty() {
                    let loss =
                        Loss { offset: 0, bytes: data.len() as u64, reason: "a file header is cut off" };
                    report.losses.push(FileLoss { file: path.clone(), loss, truncated: newest });
                }
            }
            Header::Damaged => {
                let loss = Loss { offset: 0, bytes: HEADER_LEN as u64, reason: "a file header is damaged" };
                report.losses.push(FileLoss { file: path.clone(), loss, truncated: false });
            }
        }
        let scan = frame::scan(&data, start, last_seq, |f| {
            let place = FrameRef {
                file: number,
                offset: f.payload.start as u64,
                len: f.payload.len() as u32,
                seq: f.seq,
                kind: f.kind,
            };
            each(place, data.slice(f.payload));
        });
        let mut bytes = data.len() as u64;
        for loss in scan.losses {
            let tail = newest && loss.offset + loss.bytes == bytes && loss.offset >= scan.good_end as u64;
            if tail {
                bytes = loss.offset;
                truncate(&path, bytes).map_err(|e| io("truncate", &path, e))?;
            }
            report.losses.push(FileLoss { file: path.clone(), loss, truncated: tail });
        }
        report.frames += scan.frames;
        last_seq = scan.last_seq;
        if scan.frames == 0 && bytes <= HEADER_LEN as u64 {
            // Nothing in it; removed when the next file with its header exists,
            // so that the sequence never begins anew.
            state.empty.push(path);
        } else {
            state.files.push(Kept { number, bytes, last_seq });
        }
    }
    report.last_seq = last_seq;
    state.next_seq = state.next_seq.max(last_seq + 1);
    Ok((state, report))
}

fn truncate(path: &Path, len: u64) -> std::io::Result<()> {
    let file = fs::OpenOptions::new().write(true).open(path)?;
    file.set_len(len)?;
    file.sync_all()
}
