//! Directories written by every format version so far open in this one.

use crate::support::*;
use spanloom_model::*;
use spanloom_store::{Config, Store};
use std::path::{Path, PathBuf};

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for path in files(from) {
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

fn kept(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/directories/v{version}"))
}

/// What the kept directories hold: trace 1 in a merged segment, trace 2 in a
/// segment, trace 3 in the log, trace 4 in all three.
fn fill(f: &Fixture) {
    let s = |trace, id| S {
        trace,
        id,
        parent: id - 1,
        start: T0 + id as i64,
        tags: &[("k", "v")],
        ..S::default()
    };
    f.put(&batch(Protocol::OtlpProto, &[s(1, 1), s(4, 1)]));
    f.store().flush().unwrap();
    f.put(&batch(Protocol::DatadogV04, &[s(1, 2)]));
    f.store().flush().unwrap();
    f.store().compact_now(true).unwrap();
    f.put(&batch(Protocol::ZipkinJsonV2, &[s(2, 1), s(4, 2)]));
    f.store().flush().unwrap();
    f.put(&batch(Protocol::JaegerGrpc, &[s(3, 1), s(4, 3)]));
}

#[test]
fn a_directory_of_version_1_opens_and_holds_everything() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("data");
    copy(&kept(1), &dir);
    let config = Config { background: false, disk_floor: 0, ..Config::default() };
    let (store, report) = Store::open(&dir, config).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    assert_eq!((report.segments, report.replayed_spans), (2, 2));
    assert_eq!(spans_of(&store, 1), [1, 2]);
    assert_eq!(spans_of(&store, 2), [1]);
    assert_eq!(spans_of(&store, 3), [1]);
    assert_eq!(spans_of(&store, 4), [1, 2, 3]);
    store.flush().unwrap();
    store.compact_now(true).unwrap();
    assert_eq!(spans_of(&store, 4), [1, 2, 3]);
}

/// Writes the directory of a new version; run by hand when a format changes.
#[test]
#[ignore = "writes into the source tree"]
fn write_the_directory_of_this_version() {
    let mut f = Fixture::new();
    fill(&f);
    f.store = None;
    copy(&f.path(), &kept(1));
}
