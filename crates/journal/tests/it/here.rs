//! Frames that appenders write themselves.

use bytes::Bytes;
use spanloom_journal::{Config, FrameRef, Journal, SyncPolicy};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

fn open(dir: &Path, config: Config) -> (Journal, Vec<(FrameRef, Bytes)>) {
    let mut frames = Vec::new();
    let (journal, recovery) = Journal::open(dir, config, &mut |f, b| frames.push((f, b))).unwrap();
    assert!(recovery.losses.is_empty());
    (journal, frames)
}

fn never_synced() -> Config {
    Config { sync_after: Duration::from_secs(3600), sync_bytes: u64::MAX, ..Config::default() }
}

#[test]
fn an_appender_that_writes_itself_is_answered_before_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path(), never_synced());
    for text in ["one", "two"] {
        let (tx, rx) = mpsc::channel();
        let done = Box::new(move |r: Result<FrameRef, _>| tx.send(r.unwrap()).unwrap());
        journal.append_here(1, Bytes::from(text), done).ok().unwrap();
        assert_eq!(journal.read(rx.try_recv().unwrap()).unwrap(), text);
    }
    std::mem::forget(journal);
    assert_eq!(open(dir.path(), never_synced()).1.len(), 2);
}

#[test]
fn frames_written_by_appenders_and_by_the_thread_are_all_there_each_in_its_order() {
    for policy in [SyncPolicy::Interval, SyncPolicy::Always] {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            policy,
            roll_bytes: 1 << 20,
            max_pending: 1 << 30,
            sync_bytes: 1 << 16,
            sync_after: Duration::from_millis(1),
            ..Config::default()
        };
        let (journal, _) = open(dir.path(), config.clone());
        let journal = Arc::new(journal);
        let (tx, rx) = mpsc::channel();
        std::thread::scope(|s| {
            for thread in 0..4u32 {
                let (journal, tx) = (Arc::clone(&journal), tx.clone());
                s.spawn(move || {
                    for n in 0..300u32 {
                        // Some are gathered, some are written from where they are.
                        let size = if n % 50 == 7 { 40_000 } else { 20 };
                        let mut payload = vec![0; size];
                        payload[..4].copy_from_slice(&thread.to_le_bytes());
                        payload[4..8].copy_from_slice(&n.to_le_bytes());
                        let tx = tx.clone();
                        let done = Box::new(move |r: Result<FrameRef, _>| tx.send(r.unwrap()).unwrap());
                        let payload = Bytes::from(payload);
                        let taken = if n % 3 == 0 {
                            journal.append(1, payload, done)
                        } else {
                            journal.append_here(1, payload, done)
                        };
                        assert!(taken.is_ok());
                    }
                });
            }
        });
        drop(tx);
        let told: Vec<FrameRef> = rx.iter().take(1200).collect();
        assert!(told.windows(2).all(|w| w[0].seq < w[1].seq), "told in the order of the log");
        for frame in told.iter().step_by(97) {
            assert_eq!(journal.read(*frame).unwrap().len(), frame.len as usize);
        }
        drop(journal);
        let (_, frames) = open(dir.path(), config);
        assert_eq!(frames.len(), 1200);
        let mut next = [0u32; 4];
        for (_, bytes) in &frames {
            let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            assert_eq!(word(4), next[word(0) as usize]);
            next[word(0) as usize] += 1;
        }
    }
}

#[test]
fn a_failed_write_of_an_appender_is_told_and_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let broken = Arc::new(AtomicBool::new(true));
    let fault = Arc::clone(&broken);
    let config = Config {
        fault: Some(Arc::new(move |what| {
            let fail = what == "write" && fault.swap(false, Ordering::SeqCst);
            if fail { Err(std::io::Error::other("disk gone")) } else { Ok(()) }
        })),
        ..never_synced()
    };
    let (journal, _) = open(dir.path(), config);
    broken.store(true, Ordering::SeqCst);
    let put = |text: &'static str| {
        let (tx, rx) = mpsc::channel();
        let done = Box::new(move |r: Result<FrameRef, _>| tx.send(r).unwrap());
        match journal.append_here(1, Bytes::from(text), done) {
            Ok(_) => rx.recv().unwrap().map(|_| ()),
            Err(refused) => Err(refused.error),
        }
    };
    assert!(put("lost").unwrap_err().to_string().contains("disk gone"));
    // Refused until everybody has been told, then taken again.
    while put("kept").is_err() {
        std::thread::yield_now();
    }
    assert_eq!(journal.stats().failures, 1);
    drop(journal);
    let (_, frames) = open(dir.path(), never_synced());
    assert_eq!(frames.iter().map(|(_, b)| &b[..]).collect::<Vec<_>>(), [b"kept"]);
}
