//! Requests, errors and latencies on disk: what local answers know of the time
//! before a restart. A file a minute, written anew when its figures change and
//! put in its place by a rename, so that it is whole if the process is killed; a
//! power failure may cost the last ones, which are told at the start.

use super::chain::lock;
use spanloom_stats::{Red, RedSettings};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::{fs, io};

/// Ends the names of files; before it stands the minute since the Unix epoch.
const ENDING: &str = ".red";
/// Bound of one minute, expanded.
const MAX_RECORD: u64 = 64 << 20;

/// A directory of minutes.
pub struct RedLog {
    dir: PathBuf,
    /// Minutes that have one.
    files: Mutex<BTreeSet<i64>>,
}

impl RedLog {
    /// Opens or creates it, and reads what it holds. `now`: nanoseconds since
    /// the Unix epoch.
    ///
    /// # Errors
    /// A text for a person: the directory cannot be used. A file that cannot
    /// be read is no error; it costs its minute.
    pub fn open(dir: &Path, settings: RedSettings, now: i64) -> Result<(Self, Red), String> {
        let dir = dir.join("red");
        let told = |e: io::Error| format!("requests and errors in {}: {e}", dir.display());
        fs::create_dir_all(&dir).map_err(told)?;
        let mut red = Red::new(settings);
        let mut files = BTreeSet::new();
        for entry in fs::read_dir(&dir).map_err(told)? {
            let name = entry.map_err(told)?.file_name();
            files.extend(name.to_str().and_then(|n| n.strip_suffix(ENDING)?.parse::<i64>().ok()));
        }
        for minute in &files {
            let path = path(&dir, *minute);
            let record = read(&path);
            let restored = record.and_then(|r| red.restore(&r, now).map_err(io::Error::other));
            if let Err(e) = restored {
                tracing::error!("damaged: requests and errors of a minute are lost: {}: {e}", path.display());
                // It would be told at every start.
                let _ = fs::remove_file(&path);
            }
        }
        let log = Self { dir, files: Mutex::new(files) };
        log.remove_before(red.oldest().unwrap_or(i64::MAX));
        Ok((log, red))
    }

    /// Writes what has changed, and removes what is too old. A disk that
    /// refuses costs the figures after a restart, not those of now.
    pub fn save(&self, red: &Mutex<Red>) {
        let (changed, oldest) = {
            let mut red = lock(red);
            (red.save(), red.oldest())
        };
        for (minute, record) in &changed {
            match self.write(*minute, record) {
                Ok(()) => {
                    lock(&self.files).insert(*minute);
                }
                Err(e) => {
                    let path = path(&self.dir, *minute);
                    tracing::warn!(
                        "requests and errors would not survive a restart: {}: {e}",
                        path.display()
                    );
                }
            }
        }
        if let Some(oldest) = oldest.filter(|_| !changed.is_empty()) {
            self.remove_before(oldest);
        }
    }

    fn write(&self, minute: i64, record: &[u8]) -> io::Result<()> {
        let mut packer = zstd::bulk::Compressor::new(1)?;
        packer.include_checksum(true)?;
        let path = path(&self.dir, minute);
        // One name for all: what a kill leaves of it is written over.
        let new = self.dir.join("new");
        fs::write(&new, packer.compress(record)?)?;
        fs::rename(&new, &path)
    }

    fn remove_before(&self, minute: i64) {
        let mut files = lock(&self.files);
        let kept = files.split_off(&minute);
        for old in std::mem::replace(&mut *files, kept) {
            match fs::remove_file(path(&self.dir, old)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!("an old file of requests and errors cannot be removed: {e}");
                }
                _ => {}
            }
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut record = Vec::new();
    zstd::Decoder::new(fs::File::open(path)?)?.take(MAX_RECORD).read_to_end(&mut record)?;
    Ok(record)
}

fn path(dir: &Path, minute: i64) -> PathBuf {
    dir.join(format!("{minute}{ENDING}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use spanloom_model::stats::{ClientGroupedStats, ClientStatsBucket, ClientStatsPayload, StatsPayload};
    use spanloom_stats::{RedFilter, Sketch};

    const NOW: i64 = 1_700_000_040_000_000_000;
    const SECOND: i64 = 1_000_000_000;

    fn payload(minute: i64, hits: u64) -> StatsPayload {
        let mut sketch = Sketch::default();
        (0..hits).for_each(|_| sketch.add(2e6));
        let group = ClientGroupedStats {
            service: "web".into(),
            name: "op".into(),
            hits,
            top_level_hits: hits,
            ok_summary: sketch.to_bytes(),
            ..ClientGroupedStats::default()
        };
        let start = (NOW + minute * 60 * SECOND) as u64;
        let bucket = ClientStatsBucket { start, stats: vec![group], ..ClientStatsBucket::default() };
        let source = ClientStatsPayload { stats: vec![bucket], ..ClientStatsPayload::default() };
        StatsPayload { stats: vec![source], ..StatsPayload::default() }
    }

    fn requests(red: &Red) -> Vec<u64> {
        let minute = 60 * SECOND;
        let filter = RedFilter {
            from: NOW - 9 * minute,
            to: NOW + 9 * minute,
            step: minute,
            depth: 1,
            ..RedFilter::default()
        };
        red.query(&filter, None).iter().flat_map(|s| &s.points).map(|p| p.requests).collect()
    }

    fn files(dir: &Path) -> usize {
        fs::read_dir(dir.join("red")).unwrap().count()
    }

    #[test]
    fn a_new_process_knows_what_the_one_before_it_counted() {
        let dir = tempfile::tempdir().unwrap();
        let settings = RedSettings { minutes: 3, ..RedSettings::default() };
        let at = |minute: i64| NOW + minute * 60 * SECOND;
        let (log, red) = RedLog::open(dir.path(), settings.clone(), NOW).unwrap();
        let red = Mutex::new(red);
        let count = |minute: i64, hits| {
            lock(&red).merge(&payload(minute, hits), at(minute));
            log.save(&red);
        };
        count(0, 3);
        count(0, 4);
        count(1, 5);
        assert_eq!(files(dir.path()), 2);
        // The first one is not closed: as after kill -9.
        let (_, found) = RedLog::open(dir.path(), settings.clone(), at(1)).unwrap();
        assert_eq!(requests(&found), [7, 5]);
        let (_, later) = RedLog::open(dir.path(), settings.clone(), at(3)).unwrap();
        assert_eq!(requests(&later), [5], "the first minute is too old by then");
        assert_eq!(files(dir.path()), 1);
        count(4, 6);
        assert_eq!((requests(&lock(&red)), files(dir.path())), (vec![6], 1));
    }

    #[test]
    fn a_damaged_file_costs_its_minute_and_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let (log, red) = RedLog::open(dir.path(), RedSettings::default(), NOW).unwrap();
        let red = Mutex::new(red);
        lock(&red).merge(&payload(0, 3), NOW);
        lock(&red).merge(&payload(-1, 2), NOW);
        log.save(&red);
        let broken = path(&dir.path().join("red"), NOW / (60 * SECOND) - 1);
        let mut bytes = fs::read(&broken).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&broken, bytes).unwrap();
        for _ in 0..2 {
            let (_, found) = RedLog::open(dir.path(), RedSettings::default(), NOW).unwrap();
            assert_eq!((requests(&found), files(dir.path())), (vec![3], 1));
        }
    }

    #[test]
    fn a_disk_that_refuses_does_not_stop_the_count() {
        let dir = tempfile::tempdir().unwrap();
        let (log, red) = RedLog::open(dir.path(), RedSettings::default(), NOW).unwrap();
        let red = Mutex::new(red);
        fs::remove_dir_all(dir.path().join("red")).unwrap();
        lock(&red).merge(&payload(0, 3), NOW);
        log.save(&red);
        assert_eq!(requests(&lock(&red)), [3]);
    }
}
