//! One frame of the log:
//!
//! ```text
//! len u32 | crc32 u32 | seq u64 | kind u8 | payload (len bytes)      little-endian
//! ```
//!
//! The checksum covers everything but itself, so that a flipped bit in the
//! length is noticed like any other.

use std::ops::Range;

/// Bytes before the payload of a frame.
pub const FRAME_HEADER: usize = 17;

/// Largest payload. A length above it is damage, not an allocation.
pub const MAX_PAYLOAD: usize = 1 << 28;

/// How far ahead of the last good frame the sequence number of a frame may be
/// that is found while looking for the next good one. Random bytes pass this
/// with probability 2^-32 a position, before the checksum is looked at.
const RESYNC_WINDOW: u64 = 1 << 32;

/// Appends one frame to `out`.
pub fn write_frame(out: &mut Vec<u8>, seq: u64, kind: u8, payload: &[u8]) {
    write_header(out, seq, kind, payload);
    out.extend_from_slice(payload);
}

/// Appends what stands before a frame's payload.
pub(crate) fn write_header(out: &mut Vec<u8>, seq: u64, kind: u8, payload: &[u8]) {
    let len = (payload.len() as u32).to_le_bytes();
    let seq = seq.to_le_bytes();
    out.extend_from_slice(&len);
    out.extend_from_slice(&checksum(&len, &seq, kind, payload).to_le_bytes());
    out.extend_from_slice(&seq);
    out.push(kind);
}

fn checksum(len: &[u8], seq: &[u8], kind: u8, payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(len);
    crc.update(seq);
    crc.update(&[kind]);
    crc.update(payload);
    crc.finalize()
}

/// An intact frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where the frame begins.
    pub offset: usize,
    /// Its sequence number.
    pub seq: u64,
    /// Its kind.
    pub kind: u8,
    /// Where its payload lies.
    pub payload: Range<usize>,
}

/// Bytes that belong to no intact frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Where they begin.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
    /// What is wrong with the first of them.
    pub reason: &'static str,
}

/// What [`scan`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// End of the last intact frame.
    pub good_end: usize,
    /// Sequence number of the last intact frame, or what was given.
    pub last_seq: u64,
    /// Intact frames.
    pub frames: u64,
    /// Damage, in order. The last one may be a torn tail.
    pub losses: Vec<Loss>,
}

/// Reports every intact frame of `data` from `start` on, in order, and what
/// lies between them. After damage it looks for the next intact frame byte by
/// byte, so damage costs the frames it touches. Sequence numbers must grow
/// from `last_seq`.
pub fn scan(data: &[u8], start: usize, last_seq: u64, mut each: impl FnMut(Found)) -> Scan {
    let mut scan = Scan { good_end: start.min(data.len()), last_seq, ..Scan::default() };
    let mut at = scan.good_end;
    // While looking for a frame each plausible header costs a checksum of up
    // to its claimed length. Hostile payloads could make that quadratic, so
    // there is a budget: past it the rest of the file is given up.
    let mut budget = data.len().saturating_mul(4).max(1 << 20);
    while at < data.len() {
        match frame_at(data, at) {
            Ok(found) if found.seq > scan.last_seq => {
                at = found.payload.end;
                accept(&mut scan, found, &mut each);
            }
            result => {
                let reason = result.err().unwrap_or("a sequence number does not grow");
                let next = (at + 1..data.len().saturating_sub(FRAME_HEADER - 1)).find(|&i| {
                    let Some((len, seq)) = peek(data, i) else { return false };
                    if seq <= scan.last_seq || seq - scan.last_seq > RESYNC_WINDOW || len > budget {
                        return false;
                    }
                    budget -= len;
                    frame_at(data, i).is_ok()
                });
                let end = next.unwrap_or(data.len());
                scan.losses.push(Loss { offset: at as u64, bytes: (end - at) as u64, reason });
                at = end;
            }
        }
    }
    scan
}

fn accept(scan: &mut Scan, found: Found, each: &mut impl FnMut(Found)) {
    scan.good_end = found.payload.end;
    scan.last_seq = found.seq;
    scan.frames += 1;
    each(found);
}

/// Length and sequence number that a frame at `at` would have, if it fits.
#[inline]
fn peek(data: &[u8], at: usize) -> Option<(usize, u64)> {
    let head = data.get(at..at + FRAME_HEADER)?;
    let len = u32::from_le_bytes(head[..4].try_into().ok()?) as usize;
    let seq = u64::from_le_bytes(head[8..16].try_into().ok()?);
    (len <= MAX_PAYLOAD && len <= data.len() - at - FRAME_HEADER).then_some((len, seq))
}

fn frame_at(data: &[u8], at: usize) -> Result<Found, &'static str> {
    let Some(head) = data.get(at..at + FRAME_HEADER) else { return Err("a frame header is cut off") };
    let Some((len, seq)) = peek(data, at) else { return Err("a frame is cut off or its length is damaged") };
    let payload = at + FRAME_HEADER..at + FRAME_HEADER + len;
    let crc = checksum(&head[..4], &head[8..16], head[16], &data[payload.clone()]);
    if crc.to_le_bytes() != head[4..8] {
        return Err("a checksum does not match");
    }
    Ok(Found { offset: at, seq, kind: head[16], payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> (Vec<u8>, Vec<usize>) {
        let mut data = Vec::new();
        let mut starts = Vec::new();
        for (seq, text) in [(1u64, "first"), (2, "second frame"), (3, "third")] {
            starts.push(data.len());
            write_frame(&mut data, seq, 1, text.as_bytes());
        }
        (data, starts)
    }

    fn seqs(data: &[u8]) -> (Vec<u64>, Scan) {
        let mut seqs = Vec::new();
        let scan = scan(data, 0, 0, |f| seqs.push(f.seq));
        (seqs, scan)
    }

    #[test]
    fn intact_frames_are_found_without_loss() {
        let (data, _) = three();
        let (found, scan) = seqs(&data);
        assert_eq!(found, [1, 2, 3]);
        assert_eq!((scan.good_end, scan.losses.len()), (data.len(), 0));
    }

    #[test]
    fn any_flipped_bit_costs_its_own_frame_and_no_other() {
        let (data, starts) = three();
        for bit in 0..data.len() * 8 {
            let mut bad = data.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let hit = starts.iter().rposition(|s| *s <= bit / 8).unwrap() as u64 + 1;
            let (found, scan) = seqs(&bad);
            let want: Vec<u64> = (1..=3).filter(|s| *s != hit).collect();
            assert_eq!(found, want, "bit {bit}");
            assert_eq!(scan.losses.len(), 1, "bit {bit}");
        }
    }

    #[test]
    fn any_cut_costs_the_frames_behind_it() {
        let (data, starts) = three();
        for cut in 0..data.len() {
            let whole = starts.iter().skip(1).chain([&data.len()]).filter(|end| **end <= cut).count() as u64;
            let (found, scan) = seqs(&data[..cut]);
            assert_eq!(found, (1..=whole).collect::<Vec<_>>(), "cut {cut}");
            let lost: u64 = scan.losses.iter().map(|l| l.bytes).sum();
            assert_eq!(scan.good_end as u64 + lost, cut as u64);
        }
    }

    #[test]
    fn zeros_are_not_frames() {
        let (found, scan) = seqs(&[0; 4096]);
        assert!(found.is_empty());
        assert_eq!(scan.losses[0].bytes, 4096);
    }

    #[test]
    fn a_repeated_frame_is_damage() {
        let (mut data, starts) = three();
        let copy = data[starts[1]..starts[2]].to_vec();
        data.extend_from_slice(&copy);
        let (found, scan) = seqs(&data);
        assert_eq!(found, [1, 2, 3]);
        assert_eq!(scan.losses.len(), 1);
    }
}
