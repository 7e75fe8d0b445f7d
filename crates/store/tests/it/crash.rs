//! A process that writes is killed at many points; what it was told to be
//! stored is there.

use spanloom_model::*;
use spanloom_store::{Config, Store};
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The example next to this test's binary; cargo builds examples for tests.
fn writer() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples/crashwriter")
}

/// Runs the writer until it has acknowledged `count` batches, kills it, and
/// adds what it acknowledged until its end.
fn run_and_kill(dir: &Path, ack: &str, seed: u64, count: usize, acked: &mut HashMap<TraceId, usize>) {
    let mut child = Command::new(writer())
        .args([dir.to_str().unwrap(), ack, &seed.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen = 0;
    let take = |line: String, acked: &mut HashMap<TraceId, usize>| {
        // The last line may be cut off by the kill.
        if let Some((id, spans)) = line.split_once(' ')
            && let (Ok(id), Ok(spans)) = (TraceId::parse_hex(id), spans.parse())
            && id.to_string().len() == 32
        {
            acked.insert(id, spans);
        }
    };
    for line in lines.by_ref() {
        take(line.unwrap(), acked);
        seen += 1;
        if seen >= count {
            break;
        }
    }
    // SIGKILL: nothing is flushed, nobody is told.
    child.kill().unwrap();
    for line in lines.map_while(Result::ok) {
        take(line, acked);
    }
    child.wait().unwrap();
}

fn everything_acknowledged_survives(ack: &str) {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("data");
    let mut acked = HashMap::new();
    // Each round goes on with the directory that the one before left behind.
    for (round, count) in [1, 7, 40, 150, 333, 800, 90, 2000].into_iter().enumerate() {
        run_and_kill(&dir, ack, round as u64 + 1, count, &mut acked);
        let config = Config { background: false, disk_floor: 0, ..Config::default() };
        let (store, report) = Store::open(&dir, config).unwrap();
        // A frame cut in the middle was not acknowledged; nothing else is damaged.
        assert!(report.damage.iter().all(|d| d.what.ends_with("cut off")), "{:?}", report.damage);
        for (id, spans) in &acked {
            let found = store.trace(*id, TimeRange::ALL).unwrap().map_or(0, |b| b.spans.len());
            assert_eq!(found, *spans, "{ack}, round {round}: {id}");
        }
        assert!(acked.len() >= count);
    }
}

#[test]
fn everything_acknowledged_under_always_survives_a_kill() {
    everything_acknowledged_survives("always");
}

#[test]
fn everything_acknowledged_under_interval_survives_the_end_of_the_process() {
    everything_acknowledged_survives("interval");
}
