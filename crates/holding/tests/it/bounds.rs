//! Disk is bounded: the oldest traces are judged early, nothing is lost.

use crate::*;

#[test]
fn a_full_buffer_judges_its_oldest_traces_early_and_stays_within_its_bound() {
    let mut setup = Setup::new();
    setup.max_bytes = 1 << 20;
    let buffer = setup.open(0);
    let many: Vec<u64> = (0..300).collect();
    let mut judged = Vec::new();
    for n in 0..400 {
        put(&buffer, n as i64, &[(n + 1, &many)]);
        if setup.full.swap(0, Ordering::SeqCst) > 0 {
            judged.extend(round(&buffer, n as i64, |id| id % 2 == 0));
        }
        assert!(setup.files() < (1 << 20) + (256 << 10), "{} bytes at {n}", setup.files());
    }
    assert!(judged.len() > 100 && judged.iter().all(|w| w.early), "{}", judged.len());
    assert!(ids(&judged).is_sorted(), "the oldest first");
    assert_eq!(buffer.stats().early, judged.len() as u64);
    let rest = round(&buffer, 400 + WAIT, |id| id % 2 == 0);
    assert!(rest.iter().all(|w| !w.early));
    assert_eq!(judged.len() + rest.len(), 400);
    assert_eq!(setup.taken().len(), 200 * 300);
    assert_eq!(setup.dropped(), [200 * 300, 200]);
    assert!(setup.files() < 128 << 10, "{} bytes are left", setup.files());
}

#[test]
fn a_round_ends_between_groups_when_it_is_told_to() {
    let setup = Setup::new();
    let buffer = setup.open(0);
    for n in 0..1500 {
        put(&buffer, 0, &[(n + 1, &[1])]);
    }
    let judged = AtomicU64::new(0);
    let mut judge = |_: &Waiting, _: &dyn Fn() -> _| {
        judged.fetch_add(1, Ordering::SeqCst);
        Ruling { keep: true, rule: "test".into(), rate: 1.0, spans: 1 }
    };
    buffer.round(WAIT, &mut judge, &|| judged.load(Ordering::SeqCst) >= 600);
    let done = judged.load(Ordering::SeqCst);
    assert!((600..1500).contains(&done), "{done}");
    assert_eq!((setup.taken().len() as u64, buffer.stats().traces), (done, 1500 - done));
}
