//! Whatever happens to the process or the disk: what was acknowledged comes out
//! of a payload that any decoder reads, and comes out once.

use super::*;
use crate::spool::{Request, SpoolConfig, Tried};
use proptest::prelude::*;
use spanloom_journal::{Fault, SyncPolicy};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc;
use zstd::stream::raw::Decoder;

const HEAD: &[u8] = b"the head of the payload\n";

fn open(dirs: &[&Path], policy: SyncPolicy, fault: Option<&Fault>) -> Strands {
    let spool = |dir: &&Path| {
        let config = SpoolConfig { max_bytes: 1 << 30, policy };
        Arc::new(Spool::open_with(dir, config, fault.cloned()).unwrap().0)
    };
    Strands::new(dirs.iter().map(spool).collect(), HEAD.into(), 2)
}

/// An item that says its number in every line, and how many spans it has: 1.
fn item(number: u64, bytes: usize, out: &mut Vec<u8>) -> u64 {
    let end = out.len() + bytes.max(1);
    out.extend_from_slice(format!("item {number}\n").as_bytes());
    let mut x = number + 1;
    while out.len() < end {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        out.extend_from_slice(format!("{number} {}\n", x >> 40).as_bytes());
    }
    1
}

/// Gives an item to the queues; where the answer will be.
fn export(strands: &Strands, number: u64, bytes: usize) -> mpsc::Receiver<bool> {
    let (tell, told) = mpsc::channel();
    strands.export(|out| item(number, bytes, out), Box::new(move |r| tell.send(r.is_ok()).unwrap()));
    told
}

/// Decodes one frame by its own end, which must be the end of the body.
fn decode(body: &[u8]) -> Vec<u8> {
    let mut decoder = Decoder::new().unwrap();
    let mut input = InBuffer::around(body);
    let mut out = Vec::new();
    loop {
        let left = with_room(&mut out, |output| decoder.run(&mut input, output)).unwrap();
        if left == 0 {
            assert_eq!(input.pos(), body.len(), "something follows the frame");
            assert!(out.starts_with(HEAD));
            return out;
        }
        assert!(input.pos() < body.len() || out.len() == out.capacity(), "the frame has no end");
    }
}

fn numbers(text: &[u8], seen: &mut BTreeMap<u64, u64>) {
    for line in std::str::from_utf8(text).unwrap().lines() {
        if let Some(number) = line.strip_prefix("item ") {
            *seen.entry(number.parse().unwrap()).or_default() += 1;
        }
    }
}

fn pack(spool: &Spool) {
    while let Some(ended) = spool.ended() {
        let request = Request {
            urgent: false,
            path: "/".into(),
            headers: vec![],
            items: ended.items,
            body: ended.body,
        };
        if spool.pack_strand(ended.strand, &request).is_err() {
            break;
        }
    }
}

/// Everything that is in a queue, as its destination would get it: how often
/// each item.
fn drain(spool: &Spool) -> BTreeMap<u64, u64> {
    pack(spool);
    let mut seen = BTreeMap::new();
    while let Some(claim) = spool.claim() {
        let before: u64 = seen.values().sum();
        numbers(&decode(&claim.request.body), &mut seen);
        assert_eq!(seen.values().sum::<u64>() - before, claim.request.items);
        spool.finish(claim, Tried::Sent);
    }
    if let Some(plain) = spool.oldest(usize::MAX) {
        plain.payloads.iter().for_each(|p| numbers(p, &mut seen));
    }
    seen
}

fn once(numbers: impl IntoIterator<Item = u64>) -> BTreeMap<u64, u64> {
    numbers.into_iter().map(|n| (n, 1)).collect()
}

#[test]
fn a_strand_that_is_killed_in_the_middle_is_sent_whole_to_every_destination() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dirs = [one.path(), two.path()];
    let strands = open(&dirs, SyncPolicy::Interval, None);
    for number in 0..5 {
        assert!(export(&strands, number, 50_000).recv().unwrap());
    }
    // Nothing has ended; the next process finds what the log holds.
    drop(strands);
    let strands = open(&dirs, SyncPolicy::Interval, None);
    assert!(export(&strands, 5, 50_000).recv().unwrap());
    for spool in &strands.spools {
        assert_eq!(spool.stats().pending_items, 6);
        assert_eq!(drain(spool), once(0..5), "the new strand grows on");
    }
    strands.end_all();
    for spool in &strands.spools {
        assert_eq!(drain(spool), once([5]));
        assert_eq!(spool.stats().pending_items, 0);
    }
    drop(strands);
    let strands = open(&dirs, SyncPolicy::Interval, None);
    assert!(drain(&strands.spools[0]).is_empty(), "what was sent does not come back");
}

#[test]
fn a_crash_between_packing_and_forgetting_sends_a_strand_once() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let strands = open(&[dir.path()], SyncPolicy::Interval, None);
    assert!(export(&strands, 1, 50_000).recv().unwrap());
    copy_tree(&dir.path().join("pending"), &copy.path().join("pending"));
    strands.end_all();
    pack(&strands.spools[0]);
    copy_tree(&dir.path().join("ready"), &copy.path().join("ready"));
    let strands = open(&[copy.path()], SyncPolicy::Interval, None);
    assert_eq!(drain(&strands.spools[0]), once([1]));
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn before_a_damaged_part_all_is_sent_and_after_it_all_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let strands = open(&[dir.path()], SyncPolicy::Interval, None);
    let mut ends = Vec::new();
    let file = dir.path().join("pending/00000001.log");
    for number in 0..4 {
        assert!(export(&strands, number, 50_000).recv().unwrap());
        ends.push(std::fs::metadata(&file).unwrap().len());
    }
    drop(strands);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[ends[1] as usize + 100] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let strands = open(&[dir.path()], SyncPolicy::Interval, None);
    assert_eq!(drain(&strands.spools[0]), once(0..2));
    // The damaged part itself cannot say how many it held.
    assert_eq!(strands.spools[0].stats().dropped.get("damaged_on_disk"), Some(&1));
}

#[test]
fn small_items_wait_as_they_are_and_large_ones_fill_payloads() {
    let dir = tempfile::tempdir().unwrap();
    let strands = open(&[dir.path()], SyncPolicy::Interval, None);
    let spool = &strands.spools[0];
    assert!(export(&strands, 0, LEAST_BYTES / 2).recv().unwrap());
    assert_eq!(spool.oldest(usize::MAX).unwrap().payloads.len(), 1);
    for number in 1..=7 {
        assert!(spool.ended().is_none());
        assert!(export(&strands, number, 500_000).recv().unwrap());
    }
    let first = spool.ended().unwrap();
    assert_eq!(first.items, 6);
    assert!(decode(&first.body).len() <= MAX_PAYLOAD + HEAD.len());
    // One that is larger than a payload should be is a payload.
    assert!(export(&strands, 8, MAX_PAYLOAD + 1).recv().unwrap());
    strands.end_all();
    assert_eq!(drain(spool), once(0..=8));
}

#[test]
fn many_threads_at_once_lose_and_double_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let strands = open(&[dir.path()], SyncPolicy::Interval, None);
    std::thread::scope(|scope| {
        for thread in 0..6u64 {
            let strands = &strands;
            scope.spawn(move || {
                for i in 0..40 {
                    let number = thread * 1000 + i;
                    assert!(
                        export(strands, number, 10_000 + (number as usize * 7919) % 90_000).recv().unwrap()
                    );
                }
            });
        }
    });
    strands.end_all();
    let all = (0..6u64).flat_map(|t| (0..40).map(move |i| t * 1000 + i));
    assert_eq!(drain(&strands.spools[0]), once(all));
}

/// A disk that fails at these operations, counted from the first on.
fn failing(at: Vec<u32>) -> Fault {
    let n = std::sync::atomic::AtomicU32::new(0);
    Arc::new(move |_| {
        let n = n.fetch_add(1, Relaxed);
        if at.contains(&n) { Err(io::Error::other("the disk fails")) } else { Ok(()) }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn what_is_acknowledged_by_a_failing_disk_comes_out(
        at in proptest::collection::vec(4u32..60, 0..6),
        always: bool,
        sizes in proptest::collection::vec(1_000usize..120_000, 1..40),
        restart: bool,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let policy = if always { SyncPolicy::Always } else { SyncPolicy::Interval };
        let strands = open(&[dir.path()], policy, Some(&failing(at)));
        // Two at a time, so that one may be on its way when another fails.
        let mut told = Vec::new();
        for (number, bytes) in sizes.iter().enumerate() {
            told.push(export(&strands, number as u64, *bytes));
            if number % 2 == 1 {
                let ok = told[number].recv().unwrap();
                told[number] = answered(ok);
            }
        }
        let safe: Vec<u64> =
            told.iter().zip(0..).filter(|(t, _)| t.recv().unwrap()).map(|(_, number)| number).collect();
        let strands = if restart {
            drop(strands);
            open(&[dir.path()], policy, None)
        } else {
            strands.end_all();
            strands
        };
        let mut seen = BTreeMap::new();
        // A disk that fails while a payload is packed lets it wait.
        loop {
            seen.append(&mut drain(&strands.spools[0]));
            if strands.spools[0].ended().is_none() {
                break;
            }
            std::thread::yield_now();
        }
        for number in safe {
            prop_assert_eq!(seen.get(&number), Some(&1), "item {}", number);
        }
    }

    #[test]
    fn restarts_between_items_of_any_size_lose_and_double_nothing(
        sizes in proptest::collection::vec((1_000usize..400_000, 0u8..6), 1..40),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut strands = open(&[dir.path()], SyncPolicy::Interval, None);
        let mut seen = BTreeMap::new();
        for (number, (bytes, then)) in sizes.iter().enumerate() {
            prop_assert!(export(&strands, number as u64, *bytes).recv().unwrap());
            match then {
                0 => {
                    drop(strands);
                    strands = open(&[dir.path()], SyncPolicy::Interval, None);
                }
                1 => strands.end_all(),
                2 => pack(&strands.spools[0]),
                _ => {}
            }
        }
        strands.end_all();
        seen.append(&mut drain(&strands.spools[0]));
        prop_assert_eq!(seen, once(0..sizes.len() as u64));
    }
}

fn answered(ok: bool) -> mpsc::Receiver<bool> {
    let (tell, told) = mpsc::channel();
    tell.send(ok).unwrap();
    told
}
