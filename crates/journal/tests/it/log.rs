use bytes::Bytes;
use spanloom_journal::{Config, FrameRef, Journal, JournalError, Recovery, SyncPolicy};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn open(dir: &Path, config: Config) -> (Journal, Recovery, Vec<(FrameRef, Bytes)>) {
    let mut frames = Vec::new();
    let (journal, recovery) = Journal::open(dir, config, &mut |f, b| frames.push((f, b))).unwrap();
    (journal, recovery, frames)
}

fn texts(frames: &[(FrameRef, Bytes)]) -> Vec<String> {
    frames.iter().map(|(_, b)| String::from_utf8_lossy(b).into_owned()).collect()
}

/// Appends and waits for the answer.
fn put(journal: &Journal, text: &str) -> Result<FrameRef, JournalError> {
    let (tx, rx) = mpsc::channel();
    match journal.append(1, Bytes::from(text.to_owned()), Box::new(move |r| tx.send(r).unwrap())) {
        Ok(_) => rx.recv().unwrap(),
        Err(refused) => Err(refused.error),
    }
}

fn logs(dir: &Path) -> Vec<PathBuf> {
    let mut logs: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    logs.sort();
    logs
}

fn always() -> Config {
    Config { policy: SyncPolicy::Always, sync_after: Duration::from_millis(1), ..Config::default() }
}

#[test]
fn what_was_acknowledged_is_there_after_reopening_under_both_policies() {
    for policy in [SyncPolicy::Always, SyncPolicy::Interval] {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { policy, sync_after: Duration::from_millis(1), ..Config::default() };
        let (journal, recovery, _) = open(dir.path(), config.clone());
        assert_eq!(recovery.frames, 0);
        let first = put(&journal, "one").unwrap();
        put(&journal, "two").unwrap();
        assert_eq!(journal.read(first).unwrap(), "one");
        // The journal is leaked, as a killed process leaves it.
        std::mem::forget(journal);
        let (journal, recovery, frames) = open(dir.path(), config);
        assert_eq!(texts(&frames), ["one", "two"]);
        assert_eq!((recovery.last_seq, recovery.losses.len()), (2, 0));
        assert_eq!(put(&journal, "three").unwrap().seq, 3);
    }
}

#[test]
fn always_answers_after_the_sync_and_interval_before_it() {
    for (policy, syncs) in [(SyncPolicy::Always, 1), (SyncPolicy::Interval, 0)] {
        let dir = tempfile::tempdir().unwrap();
        let seen = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&seen);
        let config = Config {
            policy,
            sync_after: if policy == SyncPolicy::Always {
                Duration::from_millis(1)
            } else {
                Duration::from_secs(3600)
            },
            fault: Some(Arc::new(move |what| {
                count.fetch_add(u64::from(what == "sync"), Ordering::SeqCst);
                Ok(())
            })),
            ..Config::default()
        };
        let (journal, _, _) = open(dir.path(), config);
        put(&journal, "x").unwrap();
        assert_eq!(seen.load(Ordering::SeqCst), syncs);
    }
}

#[test]
fn a_sync_is_on_disk_whatever_the_policy_and_fails_with_the_disk() {
    let broken = Arc::new(AtomicBool::new(false));
    let fails = Arc::clone(&broken);
    let config = Config {
        sync_after: Duration::from_secs(3600),
        fault: Some(Arc::new(move |what| {
            let fails = what == "sync" && fails.load(Ordering::SeqCst);
            if fails { Err(std::io::Error::other("no")) } else { Ok(()) }
        })),
        ..Config::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let (journal, _, _) = open(dir.path(), config);
    let sync = || {
        let (tx, rx) = mpsc::channel();
        assert!(journal.sync(Box::new(move |r| tx.send(r).unwrap())).is_ok());
        rx.recv().unwrap()
    };
    put(&journal, "one").unwrap();
    assert_eq!(journal.stats().syncs, 0);
    assert_eq!(sync().unwrap().seq, 0, "it belongs to no frame");
    assert_eq!(journal.stats().syncs, 1);
    broken.store(true, Ordering::SeqCst);
    put(&journal, "two").unwrap();
    assert!(matches!(sync(), Err(JournalError::Write(_))));
}

#[test]
fn closing_writes_everything_and_answers_everybody() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _, _) = open(dir.path(), always());
    let answers = Arc::new(AtomicU64::new(0));
    for i in 0..500 {
        let answers = Arc::clone(&answers);
        let done = Box::new(move |r: Result<FrameRef, JournalError>| {
            r.unwrap();
            answers.fetch_add(1, Ordering::SeqCst);
        });
        assert!(journal.append(1, Bytes::from(format!("frame {i}")), done).is_ok());
    }
    journal.close();
    assert_eq!(answers.load(Ordering::SeqCst), 500);
    assert!(matches!(put(&journal, "late"), Err(JournalError::Closed)));
    let (_, _, frames) = open(dir.path(), always());
    assert_eq!(frames.len(), 500);
}

#[test]
fn files_roll_and_are_deleted_when_all_their_frames_are_released() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { roll_bytes: 200, ..always() };
    let (journal, _, _) = open(dir.path(), config.clone());
    let frames: Vec<FrameRef> =
        (0..30).map(|i| put(&journal, &format!("a frame with number {i:04}")).unwrap()).collect();
    let before = logs(dir.path()).len();
    assert!(before > 4, "{before}");
    let middle = frames[15];
    journal.release(middle.seq).unwrap();
    let left = logs(dir.path());
    assert!(left.len() < before);
    journal.release(frames[29].seq).unwrap();
    journal.roll();
    put(&journal, "after").unwrap();
    journal.release(frames[29].seq).unwrap();
    assert_eq!(logs(dir.path()).len(), 1);
    assert_eq!(journal.stats().bytes, std::fs::metadata(&logs(dir.path())[0]).unwrap().len());
    drop(journal);
    let (journal, _, left) = open(dir.path(), config);
    assert_eq!(texts(&left), ["after"]);
    assert_eq!(journal.stats().next_seq, 32);
}

#[test]
fn the_sequence_goes_on_after_everything_was_released() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..3u64 {
        let (journal, _, frames) = open(dir.path(), always());
        assert!(frames.is_empty());
        let seq = put(&journal, "x").unwrap().seq;
        assert_eq!(seq, round + 1);
        journal.roll();
        let (tx, rx) = mpsc::channel();
        assert!(journal.barrier(Box::new(move |_| tx.send(()).unwrap())).is_ok());
        rx.recv().unwrap();
        journal.release(seq).unwrap();
    }
    assert_eq!(logs(dir.path()).len(), 1);
}

#[test]
fn a_full_log_refuses_with_figures_and_takes_again_after_release() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { max_bytes: 400, roll_bytes: 100, ..always() };
    let (journal, _, _) = open(dir.path(), config);
    let mut last = 0;
    let refused = loop {
        match put(&journal, "sixty characters or so, so that few frames fill the bound ..") {
            Ok(f) => last = f.seq,
            Err(e) => break e,
        }
    };
    assert!(matches!(refused, JournalError::Full { limit: 400, .. }), "{refused}");
    assert!(last >= 2);
    journal.release(last).unwrap();
    put(&journal, "fits again").unwrap();
}

#[test]
fn a_slow_disk_refuses_instead_of_growing() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::new(Mutex::new(()));
    let held = gate.lock().unwrap();
    let wait = Arc::clone(&gate);
    let config = Config {
        max_pending: 100,
        fault: Some(Arc::new(move |what| {
            if what == "write" {
                drop(wait.lock());
            }
            Ok(())
        })),
        ..always()
    };
    let (journal, _, _) = open(dir.path(), config);
    let (tx, rx) = mpsc::channel();
    let send = |n: usize| {
        let tx = tx.clone();
        journal.append(1, Bytes::from(vec![b'x'; n]), Box::new(move |r| tx.send(r.is_ok()).unwrap()))
    };
    assert!(send(90).is_ok());
    assert!(send(90).is_err(), "90 bytes wait and 100 may");
    drop(held);
    assert!(rx.recv().unwrap());
}

#[test]
fn after_a_failed_write_everything_waiting_fails_and_the_log_goes_on() {
    for what in ["write", "sync"] {
        let dir = tempfile::tempdir().unwrap();
        let failing = Arc::new(AtomicBool::new(false));
        let told = Arc::new(AtomicU64::new(0));
        let (fail, tell) = (Arc::clone(&failing), Arc::clone(&told));
        let config = Config {
            fault: Some(Arc::new(move |op| {
                if op == what && fail.load(Ordering::SeqCst) {
                    return Err(std::io::Error::other("disk full"));
                }
                Ok(())
            })),
            on_failure: Some(Arc::new(move || {
                tell.fetch_add(1, Ordering::SeqCst);
            })),
            ..always()
        };
        let (journal, _, _) = open(dir.path(), config);
        put(&journal, "before").unwrap();
        failing.store(true, Ordering::SeqCst);
        let error = put(&journal, "during").unwrap_err();
        assert!(error.to_string().contains("disk full"), "{error}");
        assert_eq!(told.load(Ordering::SeqCst), 1, "told before the callback ran");
        failing.store(false, Ordering::SeqCst);
        while put(&journal, "after").is_err() {}
        drop(journal);
        let (_, recovery, frames) = open(dir.path(), always());
        let mut texts = texts(&frames);
        // A frame written but not synced may or may not be there.
        texts.retain(|t| t != "during");
        assert_eq!(texts, ["before", "after"], "{what}");
        assert_eq!(recovery.losses.len(), 0);
    }
}

/// Writes 20 frames over several files and returns them.
fn filled(dir: &Path) -> Vec<String> {
    let (journal, _, _) = open(dir, Config { roll_bytes: 160, ..always() });
    let texts: Vec<String> = (0..20).map(|i| format!("frame number {i} {}", "x".repeat(i))).collect();
    for t in &texts {
        put(&journal, t).unwrap();
    }
    texts
}

#[test]
fn any_flipped_bit_costs_one_frame_and_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let all = filled(dir.path());
    for log in logs(dir.path()) {
        let good = std::fs::read(&log).unwrap();
        for byte in (0..good.len()).step_by(7) {
            let copy = tempfile::tempdir().unwrap();
            for other in logs(dir.path()) {
                std::fs::copy(&other, copy.path().join(other.file_name().unwrap())).unwrap();
            }
            let mut bad = good.clone();
            bad[byte] ^= 0x10;
            std::fs::write(copy.path().join(log.file_name().unwrap()), &bad).unwrap();
            let (_, recovery, frames) = open(copy.path(), always());
            let found = texts(&frames);
            assert!(found.len() >= all.len() - 1, "{log:?} byte {byte}: {}", found.len());
            assert!(found.iter().all(|t| all.contains(t)));
            assert_eq!(recovery.losses.len(), 1, "{log:?} byte {byte}");
            assert_eq!(recovery.losses[0].file.file_name(), log.file_name());
        }
    }
}

#[test]
fn any_cut_of_the_newest_file_costs_its_tail_which_is_then_gone() {
    let dir = tempfile::tempdir().unwrap();
    {
        let (journal, _, _) = open(dir.path(), always());
        for i in 0..5 {
            put(&journal, &format!("frame {i}")).unwrap();
        }
    }
    let log = logs(dir.path()).pop().unwrap();
    let good = std::fs::read(&log).unwrap();
    for cut in 0..good.len() {
        let copy = tempfile::tempdir().unwrap();
        let path = copy.path().join(log.file_name().unwrap());
        std::fs::write(&path, &good[..cut]).unwrap();
        let (journal, first, frames) = open(copy.path(), always());
        assert!(frames.len() <= 5);
        put(&journal, "later").unwrap();
        drop(journal);
        let (_, second, again) = open(copy.path(), always());
        assert_eq!(again.len(), frames.len() + 1, "cut {cut}");
        assert_eq!(second.losses.len(), 0, "cut {cut}: {:?} then {:?}", first.losses, second.losses);
    }
}

#[test]
fn a_file_of_a_newer_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let log = &logs(dir.path())[0];
    let mut data = std::fs::read(log).unwrap();
    data[8] = 2;
    let crc = crc32fast::hash(&data[..20]);
    data[20..24].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(log, &data).unwrap();
    let result = Journal::open(dir.path(), always(), &mut |_, _| ());
    assert!(matches!(result.err(), Some(JournalError::Newer { version: 2, .. })));
    assert_eq!(std::fs::read(log).unwrap(), data);
}
