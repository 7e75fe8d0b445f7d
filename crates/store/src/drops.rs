//! Traces that rules have dropped and that a merge has not removed yet: one
//! bit per trace of a segment, in a small file of its own beside the segments,
//! so that segments stay as they were written. And the traces that a person
//! wants kept whatever the rules say.
//!
//! File: one checksummed frame: version u8 | decided i64 | spans u64 | traces
//! u32 | words u64 … A segment without such a file is not decided on yet.

use crate::error::OpenError;
use spanloom_journal::{Reader, ShortRead, Writer, scan, sync_dir, write_frame};
use spanloom_model::TraceId;
use std::collections::{HashSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const VERSION: u8 = 1;
const FRAME: u8 = 1;
/// Traces kept by hand that are remembered; the oldest are forgotten first.
/// Forgotten ones stay visible, but later pieces of them are judged again.
const MOST_KEPT: usize = 10_000;

/// Where these files lie.
pub(crate) fn home(dir: &Path) -> PathBuf {
    dir.join("dropped")
}

/// What the rules said about the traces of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Drops {
    /// When, nanoseconds; none: not decided yet.
    pub decided: Option<i64>,
    /// Bits by the trace's number; empty if nothing is dropped.
    bits: Vec<u64>,
    /// Spans of dropped traces.
    pub spans: u64,
    /// Dropped traces.
    pub traces: u64,
}

impl Drops {
    /// Decided on, and nothing dropped.
    pub fn none(decided: i64) -> Self {
        Self { decided: Some(decided), ..Self::default() }
    }

    pub fn is_dropped(&self, number: u32) -> bool {
        self.bits.get(number as usize / 64).is_some_and(|w| w >> (number % 64) & 1 != 0)
    }

    /// Changes what is said about a trace of so many spans; whether that was a
    /// change.
    pub fn set(&mut self, number: u32, dropped: bool, spans: u64) -> bool {
        if self.is_dropped(number) == dropped {
            return false;
        }
        let word = number as usize / 64;
        if self.bits.len() <= word {
            self.bits.resize(word + 1, 0);
        }
        self.bits[word] ^= 1 << (number % 64);
        if dropped {
            self.spans += spans;
            self.traces += 1;
        } else {
            self.spans = self.spans.saturating_sub(spans);
            self.traces = self.traces.saturating_sub(1);
        }
        true
    }

    /// Numbers of dropped traces.
    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        let bits = self.bits.iter().enumerate();
        bits.flat_map(|(i, w)| (0..64).filter(move |b| w >> b & 1 != 0).map(move |b| i as u32 * 64 + b))
    }

    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.u8(VERSION);
        w.i64(self.decided.unwrap_or(0));
        w.u64(self.spans);
        w.u64(self.bits.len() as u64);
        self.bits.iter().for_each(|b| w.fixed64(*b));
        frame(&w.out)
    }

    fn decode(data: &[u8]) -> Result<Self, String> {
        let payload = payload(data)?;
        let mut r = Reader::new(payload);
        let mut read = || -> Result<Self, ShortRead> {
            let decided = Some(r.i64()?);
            let spans = r.u64()?;
            let bits = (0..r.count(8)?).map(|_| r.fixed64()).collect::<Result<Vec<u64>, _>>()?;
            let traces = bits.iter().map(|w| u64::from(w.count_ones())).sum();
            Ok(Self { decided, bits, spans, traces })
        };
        read().map_err(|_| "it does not say what it should".to_owned())
    }

    /// Reads the file of a segment; none: not decided yet.
    pub fn load(dir: &Path, segment: &str) -> Result<Self, String> {
        match fs::read(home(dir).join(segment)) {
            Ok(data) => Self::decode(&data),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(e.to_string()),
        }
    }

    /// Makes it durable.
    pub fn save(&self, dir: &Path, segment: &str) -> io::Result<()> {
        replace(&home(dir), segment, &self.encode())
    }
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + spanloom_journal::FRAME_HEADER);
    write_frame(&mut out, 1, FRAME, payload);
    out
}

/// The payload of a file's frame behind its version.
fn payload(data: &[u8]) -> Result<&[u8], String> {
    let mut found = None;
    let scan = scan(data, 0, 0, |f| found = found.take().or(Some(f.payload)));
    let payload = found.and_then(|f| data.get(f)).unwrap_or_default();
    match (scan.losses.first(), payload.split_first()) {
        (Some(loss), _) => Err(loss.reason.to_owned()),
        (None, Some((&VERSION, rest))) => Ok(rest),
        (None, Some((version, _))) => Err(format!("format version {version} is not known")),
        (None, None) => Err("it is empty".to_owned()),
    }
}

/// Writes a file whole or not at all.
fn replace(home: &Path, name: &str, data: &[u8]) -> io::Result<()> {
    fs::create_dir_all(home)?;
    let temp = home.join(format!("{name}.new"));
    let mut file = File::create(&temp)?;
    file.write_all(data)?;
    file.sync_data()?;
    fs::rename(&temp, home.join(name))?;
    sync_dir(home)
}

/// Name of the file of traces that are kept by hand; no segment's name.
const KEPT: &str = "kept";
/// File that says that rules decide: what was stored before it was made, or
/// while it was not there, is not judged.
const ON: &str = "on";

/// Traces that a person wants kept.
#[derive(Default)]
pub(crate) struct Kept {
    ids: HashSet<TraceId>,
    order: VecDeque<TraceId>,
    /// Grows with each addition.
    pub version: u64,
}

impl Kept {
    pub fn has(&self, id: TraceId) -> bool {
        !self.ids.is_empty() && self.ids.contains(&id)
    }

    pub fn load(dir: &Path) -> Result<Self, String> {
        let mut kept = Self::default();
        let data = match fs::read(home(dir).join(KEPT)) {
            Ok(data) => data,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(kept),
            Err(e) => return Err(e.to_string()),
        };
        for id in payload(&data)?.as_chunks::<16>().0 {
            kept.insert(TraceId(u128::from_le_bytes(*id)));
        }
        Ok(kept)
    }

    fn insert(&mut self, id: TraceId) {
        if self.ids.insert(id) {
            self.order.push_back(id);
            self.version += 1;
            if self.order.len() > MOST_KEPT
                && let Some(oldest) = self.order.pop_front()
            {
                self.ids.remove(&oldest);
            }
        }
    }

    /// Adds a trace, durably.
    pub fn add(&mut self, dir: &Path, id: TraceId) -> io::Result<()> {
        if self.has(id) {
            return Ok(());
        }
        self.insert(id);
        let mut out = vec![VERSION];
        self.order.iter().for_each(|id| out.extend_from_slice(&id.0.to_le_bytes()));
        replace(&home(dir), KEPT, &frame(&out))
    }
}

/// Prepares the directory: whether rules decide from now on that did not
/// before, and deletes files of segments that are gone.
pub(crate) fn prepare(dir: &Path, deciding: bool, known: &dyn Fn(&str) -> bool) -> Result<bool, OpenError> {
    let home = home(dir);
    for entry in fs::read_dir(&home).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name != KEPT && name != ON && !known(&name) {
            let _ = fs::remove_file(entry.path());
        }
    }
    let on = home.join(ON);
    if !deciding {
        let _ = fs::remove_file(on);
        return Ok(false);
    }
    Ok(!on.exists())
}

/// Remembers that rules decide.
pub(crate) fn switched_on(dir: &Path) -> Result<(), OpenError> {
    replace(&home(dir), ON, &[]).map_err(OpenError::io("write", home(dir).join(ON)))
}

/// Forgets a segment that is gone.
pub(crate) fn forget(dir: &Path, segment: &str) {
    // What stays is deleted at the next start.
    let _ = fs::remove_file(home(dir).join(segment));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_dropped_comes_back_from_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut drops = Drops::none(77);
        assert!(drops.set(3, true, 10) && drops.set(200, true, 5) && drops.set(63, true, 1));
        assert!(!drops.set(3, true, 10), "is dropped already");
        assert!(drops.set(63, false, 1));
        drops.save(dir.path(), "seg-1").unwrap();
        let read = Drops::load(dir.path(), "seg-1").unwrap();
        assert_eq!(read, drops);
        assert_eq!(read.numbers().collect::<Vec<_>>(), [3, 200]);
        assert_eq!((read.traces, read.spans, read.decided), (2, 15, Some(77)));
        assert!(read.is_dropped(200) && !read.is_dropped(201) && !read.is_dropped(u32::MAX));
        assert_eq!(Drops::load(dir.path(), "seg-2").unwrap().decided, None);
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let mut drops = Drops::none(77);
        drops.set(9, true, 2);
        let good = drops.encode();
        assert_eq!(Drops::decode(&good).unwrap(), drops);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 4;
            assert!(Drops::decode(&bad).is_err(), "byte {at}");
            assert!(Drops::decode(&good[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn kept_traces_are_remembered_up_to_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = Kept::default();
        (0..MOST_KEPT as u128).for_each(|i| kept.insert(TraceId(i)));
        kept.add(dir.path(), TraceId(u128::MAX)).unwrap();
        let kept = Kept::load(dir.path()).unwrap();
        assert!(!kept.has(TraceId(0)) && kept.has(TraceId(1)) && kept.has(TraceId(u128::MAX)));
    }
}
