//! Any order of pieces, rounds, refusals and kills: each piece of a kept trace
//! leaves once, no piece of a dropped one does, and no file is left.

use crate::*;
use std::collections::BTreeSet;

/// A sequence that is random enough and the same every time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn kept(trace: u128) -> bool {
    !trace.is_multiple_of(3)
}

fn run(seed: u64) {
    let mut random = Random(seed * 7919 + 1);
    let mut setup = Setup::new();
    // Small enough to be full now and then.
    setup.max_bytes = 512 << 10;
    let (mut now, mut next) = (0, 1);
    let mut buffer = setup.open(now);
    let mut given = BTreeSet::new();
    let mut taken = Vec::new();
    for _ in 0..100 {
        match random.below(12) {
            0..=6 => {
                let mut chunks: Vec<(u128, Vec<u64>)> = Vec::new();
                for _ in 0..=random.below(20) {
                    let trace = u128::from(random.below(60)) + 1;
                    if chunks.iter().all(|(t, _)| *t != trace) {
                        let spans: Vec<u64> = (0..=random.below(40)).map(|i| next + i).collect();
                        next += spans.len() as u64;
                        chunks.push((trace, spans));
                    }
                }
                let refs: Vec<(u128, &[u64])> = chunks.iter().map(|(t, s)| (*t, s.as_slice())).collect();
                // A refusal of late pieces would go back to the client.
                setup.taker.refuses.store(false, Ordering::SeqCst);
                put(&buffer, now, &refs);
                given.extend(chunks.iter().flat_map(|(t, s)| s.iter().map(|s| (*t, *s))));
            }
            7..=9 => {
                setup.taker.refuses.store(random.below(3) == 0, Ordering::SeqCst);
                round(&buffer, now, kept);
                setup.taker.refuses.store(false, Ordering::SeqCst);
            }
            10 => now += random.below(40) as i64 * SECOND,
            _ => {
                // Verdicts of the last round are written: one frame more is.
                let fresh = u128::from(next) + 1000;
                put(&buffer, now, &[(fresh, &[next])]);
                given.insert((fresh, next));
                next += 1;
                std::mem::forget(buffer);
                buffer = setup.open(now);
            }
        }
        taken.extend(setup.taken());
    }
    round(&buffer, now + WAIT, kept);
    round(&buffer, now + WAIT, kept);
    taken.extend(setup.taken());
    taken.sort_unstable();
    let wanted: Vec<(u128, u64)> = given.into_iter().filter(|(t, _)| kept(*t)).collect();
    let first = taken.iter().zip(&wanted).find(|(t, w)| t != w);
    assert_eq!((taken.len(), first), (wanted.len(), None), "seed {seed}");
    assert_eq!(waiting(&buffer.stats()), (0, 0));
    assert_eq!(buffer.stats().lost.len(), 0);
    drop(buffer);
    drop(setup.open(now));
    // The newest verdicts stay with their file, for pieces that come later.
    assert!(setup.files() < 96 << 10, "seed {seed}: {} bytes are left", setup.files());
}

#[test]
fn whatever_happens_each_kept_piece_leaves_once_and_no_dropped_one_does() {
    (0..15).for_each(run);
}
