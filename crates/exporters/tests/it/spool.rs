//! The queue on disk: nothing is lost or doubled, whatever moment it ends at.

use bytes::Bytes;
use spanloom_exporters::{Pending, Request, Spool, SpoolConfig, Tried};
use spanloom_journal::SyncPolicy;
use std::path::Path;

fn open(dir: &Path, max_bytes: u64) -> Spool {
    Spool::open(dir, SpoolConfig { max_bytes, policy: SyncPolicy::Always }).unwrap().0
}

fn append(spool: &Spool, text: &str) {
    let (tell, told) = std::sync::mpsc::channel();
    let payload = Bytes::copy_from_slice(text.as_bytes());
    spool.append(1, &payload, Box::new(move |r| tell.send(r).unwrap()));
    told.recv().unwrap().unwrap();
}

fn request(pending: &Pending) -> Request {
    let mut body = Vec::new();
    pending.payloads.iter().for_each(|p| body.extend_from_slice(p));
    Request {
        urgent: false,
        path: "/traces".into(),
        headers: vec![("A".into(), "b: c".into())],
        items: pending.items,
        body: body.into(),
    }
}

/// Everything that is in the spool, packed or not, in order.
fn content(spool: &Spool) -> String {
    let mut out = String::new();
    while let Some(claim) = spool.claim() {
        out.push_str(std::str::from_utf8(&claim.request.body).unwrap());
        spool.finish(claim, Tried::Sent);
    }
    if let Some(p) = spool.oldest(usize::MAX) {
        p.payloads.iter().for_each(|p| out.push_str(std::str::from_utf8(p).unwrap()));
    }
    out
}

#[test]
fn items_survive_a_restart_before_and_after_they_are_packed_and_never_twice() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 1 << 20);
    for text in ["a", "b", "c"] {
        append(&spool, text);
    }
    drop(spool);
    let spool = open(dir.path(), 1 << 20);
    let two = spool.oldest(2).unwrap();
    assert_eq!((two.payloads.len(), two.items), (2, 2));
    spool.pack(&two, request(&two)).unwrap();
    append(&spool, "d");
    drop(spool);
    let spool = open(dir.path(), 1 << 20);
    let claim = spool.claim().unwrap();
    assert_eq!(claim.request, request(&two));
    assert!(spool.claim().is_none(), "a request is given to one sender at a time");
    spool.finish(claim, Tried::Again);
    drop(spool);
    let spool = open(dir.path(), 1 << 20);
    assert_eq!(content(&spool), "abcd");
    drop(spool);
    let spool = open(dir.path(), 1 << 20);
    assert_eq!(content(&spool), "cd", "what was sent does not come back");
}

#[test]
fn a_crash_between_packing_and_forgetting_does_not_double_items() {
    let dir = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 1 << 20);
    append(&spool, "a");
    append(&spool, "b");
    spool.close();
    copy_tree(&dir.path().join("pending"), &copy.path().join("pending"));
    let spool = open(dir.path(), 1 << 20);
    let all = spool.oldest(usize::MAX).unwrap();
    spool.pack(&all, request(&all)).unwrap();
    spool.close();
    // The crash: the request is on disk, the old log knows nothing of it.
    copy_tree(&dir.path().join("ready"), &copy.path().join("ready"));
    assert_eq!(content(&open(copy.path(), 1 << 20)), "ab");
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn beyond_the_bound_the_oldest_go_and_are_counted_and_statistics_stay() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 10_000);
    let body = |c: &str| Request {
        urgent: c == "s",
        path: "/".into(),
        headers: vec![],
        items: 3,
        body: c.repeat(4_000).into(),
    };
    spool.push(0, body("s")).unwrap();
    for c in ["a", "b", "c"] {
        append(&spool, c);
        spool.pack(&spool.oldest(1).unwrap(), body(c)).unwrap();
    }
    let stats = spool.stats();
    assert_eq!(stats.dropped.get("queue_full"), Some(&6), "two of four went");
    assert!(stats.bytes <= 10_000);
    let first = spool.claim().unwrap();
    assert!(first.request.urgent, "statistics first");
    let second = spool.claim().unwrap();
    assert_eq!(second.request.body[0], b'c', "the newest traces stayed");
}

#[test]
fn a_request_damaged_on_disk_is_counted_and_the_next_one_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 1 << 20);
    for c in ["x", "y"] {
        let body = c.repeat(100).into();
        spool.push(0, Request { urgent: true, path: "/".into(), headers: vec![], items: 2, body }).unwrap();
    }
    let file = std::fs::read_dir(dir.path().join("ready")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.iter().position(|b| *b == b'x').unwrap();
    bytes[at] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let claim = spool.claim().unwrap();
    assert_eq!(claim.request.body[0], b'y');
    assert_eq!(spool.stats().dropped.get("damaged_on_disk"), Some(&2));
}
