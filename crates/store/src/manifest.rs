//! Which segments there are, and which part of the log they hold. An
//! append-only file of checksummed edits; each frame is one edit that happens
//! whole or not at all.

use crate::error::OpenError;
use crate::intake::Aliases;
use spanloom_journal::{Reader, ShortRead, Writer, sync_dir, write_frame};
use spanloom_model::TraceId;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

const NAME: &str = "MANIFEST";
const MAGIC: &[u8; 8] = b"SPLMMAN\0";
const VERSION: u32 = 1;
const HEADER: usize = 16;
/// Written anew, with what still holds, at this size.
const REWRITE_BYTES: u64 = 1 << 20;

/// A segment as the manifest knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Added {
    /// Name of its directory.
    pub name: String,
    /// When its newest spans arrived, nanoseconds. Retention goes by arrival:
    /// senders' clocks may be years off.
    pub arrived: i64,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A segment is there.
    Add(Added),
    /// A segment is not part of the store any more.
    Remove { name: String },
    /// Frames of the log up to this one are in segments.
    Logged { seq: u64 },
    /// Spans of this trace lie under the lower half of its id.
    Alias { id: TraceId },
    /// Segment numbers below this have been used.
    NextId { id: u64 },
}

/// What the edits add up to.
#[derive(Clone, Default)]
pub(crate) struct State {
    /// In order of addition.
    pub segments: Vec<Added>,
    pub logged: u64,
    pub aliases: Aliases,
    pub next_id: u64,
}

impl State {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Add(added) => {
                if !self.segments.iter().any(|a| a.name == added.name) {
                    self.segments.push(added.clone());
                }
            }
            Change::Remove { name } => self.segments.retain(|a| a.name != *name),
            Change::Logged { seq } => self.logged = self.logged.max(*seq),
            Change::Alias { id } => {
                self.aliases.insert(*id);
            }
            Change::NextId { id } => self.next_id = self.next_id.max(*id),
        }
    }

    fn changes(&self) -> Vec<Change> {
        let mut all = vec![Change::Logged { seq: self.logged }, Change::NextId { id: self.next_id }];
        all.extend(self.segments.iter().cloned().map(Change::Add));
        all.extend(self.aliases.iter().map(|id| Change::Alias { id }));
        all
    }
}

pub(crate) struct Manifest {
    dir: PathBuf,
    file: File,
    bytes: u64,
    seq: u64,
    pub state: State,
}

/// What reading the manifest found.
#[derive(Default)]
pub(crate) struct Found {
    /// Something of it was lost: what segments there are is then told by the
    /// directories themselves.
    pub damage: Option<String>,
    /// There was none.
    pub missing: bool,
}

fn encode(changes: &[Change]) -> Vec<u8> {
    let mut w = Writer::default();
    w.u64(changes.len() as u64);
    for change in changes {
        match change {
            Change::Add(added) => {
                w.u8(1);
                w.bytes(added.name.as_bytes());
                w.i64(added.arrived);
            }
            Change::Remove { name } => {
                w.u8(2);
                w.bytes(name.as_bytes());
            }
            Change::Logged { seq } => {
                w.u8(3);
                w.u64(*seq);
            }
            Change::Alias { id } => {
                w.u8(4);
                w.fixed64(id.high());
                w.fixed64(id.low());
            }
            Change::NextId { id } => {
                w.u8(5);
                w.u64(*id);
            }
        }
    }
    w.out
}

fn decode(payload: &[u8]) -> Result<Vec<Change>, ShortRead> {
    let mut r = Reader::new(payload);
    let mut changes = Vec::new();
    let text = |r: &mut Reader<'_>| Ok(String::from_utf8_lossy(r.bytes()?).into_owned());
    for _ in 0..r.count(2)? {
        changes.push(match r.u8()? {
            1 => Change::Add(Added { name: text(&mut r)?, arrived: r.i64()? }),
            2 => Change::Remove { name: text(&mut r)? },
            3 => Change::Logged { seq: r.u64()? },
            4 => Change::Alias { id: TraceId::from_halves(r.fixed64()?, r.fixed64()?) },
            5 => Change::NextId { id: r.u64()? },
            _ => return Err(ShortRead),
        });
    }
    Ok(changes)
}

fn header() -> [u8; HEADER] {
    let mut out = [0; HEADER];
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    let crc = crc32fast::hash(&out[..12]);
    out[12..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Reads a manifest's bytes: what it says, and what is wrong with it.
pub(crate) fn read(data: &[u8], path: &Path) -> Result<(State, Option<String>), OpenError> {
    let mut damage = None;
    match data.get(..HEADER) {
        Some(head) if head[..8] == *MAGIC && crc32fast::hash(&head[..12]).to_le_bytes() == head[12..16] => {
            let version = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
            if version > VERSION {
                return Err(OpenError::Newer { path: path.into(), version, known: VERSION });
            }
        }
        _ => damage = Some("the header is damaged".to_owned()),
    }
    let mut state = State::default();
    let mut bad = false;
    let scan = spanloom_journal::scan(data, HEADER, 0, |f| match decode(&data[f.payload]) {
        Ok(changes) => changes.iter().for_each(|c| state.apply(c)),
        Err(_) => bad = true,
    });
    if bad {
        damage = Some("an edit cannot be read".to_owned());
    }
    if let Some(loss) = scan.losses.first() {
        damage = Some(format!("{} at byte {} ({} bytes)", loss.reason, loss.offset, loss.bytes));
    }
    Ok((state, damage))
}

impl Manifest {
    pub fn open(dir: &Path) -> Result<(Self, Found), OpenError> {
        let path = dir.join(NAME);
        let mut found = Found::default();
        let state = match fs::read(&path) {
            Ok(data) => {
                let (state, damage) = read(&data, &path)?;
                found.damage = damage;
                state
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                found.missing = true;
                State::default()
            }
            Err(e) => {
                // Unreadable is damaged: the store still starts.
                found.damage = Some(e.to_string());
                State::default()
            }
        };
        // Written anew at each start: short, whole, and proof that the
        // directory can be written.
        let (file, bytes) = rewrite(dir, &state)?;
        Ok((Self { dir: dir.into(), file, bytes, seq: 1, state }, found))
    }

    /// Makes changes durable, all or none.
    pub fn commit(&mut self, changes: &[Change]) -> Result<(), OpenError> {
        let mut out = Vec::new();
        write_frame(&mut out, self.seq + 1, 1, &encode(changes));
        let path = self.dir.join(NAME);
        let written = self.file.write_all(&out).and_then(|()| self.file.sync_data());
        if let Err(e) = written {
            // Half a frame may stand there: cut it, so that the next one counts.
            let _ = self.file.set_len(self.bytes);
            return Err(OpenError::io("write", path)(e));
        }
        self.seq += 1;
        self.bytes += out.len() as u64;
        changes.iter().for_each(|c| self.state.apply(c));
        if self.bytes > REWRITE_BYTES {
            let (file, bytes) = rewrite(&self.dir, &self.state)?;
            (self.file, self.bytes, self.seq) = (file, bytes, 1);
        }
        Ok(())
    }
}

/// A new manifest in one frame, in place of the old one.
fn rewrite(dir: &Path, state: &State) -> Result<(File, u64), OpenError> {
    let path = dir.join(NAME);
    let temp = dir.join("MANIFEST.new");
    let mut out = header().to_vec();
    write_frame(&mut out, 1, 1, &encode(&state.changes()));
    let write = || {
        let mut file = File::create(&temp)?;
        file.write_all(&out)?;
        file.sync_all()?;
        fs::rename(&temp, &path)?;
        sync_dir(dir)?;
        OpenOptions::new().append(true).open(&path)
    };
    let file = write().map_err(OpenError::io("write", &path))?;
    Ok((file, out.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(name: &str) -> Change {
        Change::Add(Added { name: name.into(), arrived: 5 })
    }

    #[test]
    fn committed_changes_are_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let (mut m, found) = Manifest::open(dir.path()).unwrap();
        assert!(found.missing);
        m.commit(&[add("a"), add("b"), Change::Logged { seq: 7 }]).unwrap();
        m.commit(&[
            Change::Remove { name: "a".into() },
            add("c"),
            Change::Alias { id: TraceId::from_halves(1, 2) },
        ])
        .unwrap();
        drop(m);
        for _ in 0..2 {
            let (m, found) = Manifest::open(dir.path()).unwrap();
            assert!(found.damage.is_none() && !found.missing);
            let names: Vec<&str> = m.state.segments.iter().map(|a| a.name.as_str()).collect();
            assert_eq!(names, ["b", "c"]);
            assert_eq!(m.state.logged, 7);
            assert_eq!(m.state.aliases.full(TraceId(2)), TraceId::from_halves(1, 2));
        }
    }

    #[test]
    fn it_stays_small() {
        let dir = tempfile::tempdir().unwrap();
        let (mut m, _) = Manifest::open(dir.path()).unwrap();
        let long = "x".repeat(50_000);
        for i in 0..60 {
            m.commit(&[add(&format!("{long}{i}"))]).unwrap();
            m.commit(&[Change::Remove { name: format!("{long}{i}") }]).unwrap();
        }
        assert!(fs::metadata(dir.path().join(NAME)).unwrap().len() < REWRITE_BYTES + 100_000);
    }

    #[test]
    fn damage_is_told_and_costs_only_what_it_touches() {
        let dir = tempfile::tempdir().unwrap();
        let (mut m, _) = Manifest::open(dir.path()).unwrap();
        m.commit(&[add("first")]).unwrap();
        m.commit(&[add("second")]).unwrap();
        let path = dir.path().join(NAME);
        let good = fs::read(&path).unwrap();
        for byte in 0..good.len() {
            let mut bad = good.clone();
            bad[byte] ^= 1;
            let (state, damage) = read(&bad, &path).unwrap();
            assert!(damage.is_some(), "byte {byte}");
            assert!(!state.segments.is_empty(), "byte {byte}");
        }
    }
}
