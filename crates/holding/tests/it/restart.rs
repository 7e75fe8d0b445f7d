//! Whatever moment the process ends at, what was acknowledged waits again, and
//! what was done is done.

use crate::*;

/// As a kill leaves it: nothing is closed, what was written stays.
fn kill(buffer: Arc<Buffer>) {
    std::mem::forget(buffer);
}

/// Waits until what was appended so far is written: a request to keep is.
fn written(buffer: &Arc<Buffer>, received_at: i64) {
    put(buffer, received_at, &[(u128::MAX, &[1])]);
}

#[test]
fn after_a_kill_pieces_wait_again_from_then_on() {
    let setup = Setup::new();
    let buffer = setup.open(0);
    put(&buffer, 0, &[(1, &[10]), (2, &[20])]);
    kill(buffer);
    let buffer = setup.open(100 * SECOND);
    put(&buffer, 101 * SECOND, &[(1, &[11])]);
    assert_eq!(ids(&round(&buffer, 100 * SECOND + WAIT, |_| false)), [2]);
    assert_eq!(setup.dropped(), [0, 0], "the ledger of this process never knew it");
    let judged = round(&buffer, 101 * SECOND + WAIT, |_| true);
    assert_eq!((judged[0].summary.spans, setup.taken()), (2, vec![(1, 10), (1, 11)]));
}

#[test]
fn nothing_that_was_done_is_done_again_and_late_pieces_still_follow() {
    let setup = Setup::new();
    let buffer = setup.open(0);
    put(&buffer, 0, &[(1, &[10]), (2, &[20]), (3, &[30])]);
    put(&buffer, 60 * SECOND, &[(3, &[31])]);
    assert_eq!(round(&buffer, 31 * SECOND, |id| id == 1).len(), 2);
    assert_eq!(setup.taken(), [(1, 10)]);
    written(&buffer, 61 * SECOND);
    kill(buffer);
    let buffer = setup.open(62 * SECOND);
    put(&buffer, 63 * SECOND, &[(1, &[11]), (2, &[21])]);
    assert_eq!((setup.taken(), setup.dropped()), (vec![(1, 11)], [2, 2]));
    let judged = round(&buffer, 200 * SECOND, |_| true);
    assert_eq!(ids(&judged), [3, u128::MAX]);
    assert_eq!(setup.taken(), [(3, 30), (3, 31), (u128::MAX, 1)]);
}

#[test]
fn what_an_exporter_had_not_taken_at_the_kill_follows_its_verdict() {
    let setup = Setup::new();
    let buffer = setup.open(0);
    put(&buffer, 0, &[(1, &[10]), (2, &[20])]);
    setup.taker.refuses.store(true, Ordering::SeqCst);
    round(&buffer, WAIT, |id| id == 1);
    setup.taker.refuses.store(false, Ordering::SeqCst);
    written(&buffer, WAIT);
    kill(buffer);
    let buffer = setup.open(2 * WAIT);
    assert_eq!(ids(&round(&buffer, 4 * WAIT, |_| true)), [u128::MAX], "not judged anew");
    assert_eq!(setup.taken(), [(1, 10), (u128::MAX, 1)]);
    assert_eq!(round(&buffer, 9 * WAIT, |_| true).len(), 0);
}

#[test]
fn damage_costs_what_it_touches() {
    let setup = Setup::new();
    let buffer = setup.open(0);
    put(&buffer, 0, &[(1, &[10, 11])]);
    put(&buffer, 0, &[(2, &[20])]);
    let path = std::fs::read_dir(setup.dir.path()).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(10).position(|w| w == b"service-11").unwrap();
    bytes[at] ^= 0xff;
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(round(&buffer, WAIT, |_| true).len(), 2);
    assert_eq!(setup.taken(), [(2, 20)]);
    assert_eq!(buffer.stats().lost["damaged_on_disk"], 2);
}
