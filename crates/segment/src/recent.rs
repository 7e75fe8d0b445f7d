//! What makes "the newest traces of this operation" cheap: for each trace a
//! coarse place in time and an upper bound of its durations, and for each
//! operation the traces it occurs in.

use crate::encoding::{Reader, put_varint, put_zigzag};
use crate::error::{Decoded, Malformed};

/// Traces of a bucket, unless there would be more buckets than two bytes tell.
const BUCKET: usize = 16;
/// An operation in more than one of so many traces has no list.
const DENSE: usize = 6;
/// Lists are stored in sections of about this many bytes.
const PART: usize = 48 << 10;

/// Smallest class whose [`upper`] is at least `x`: four classes per power of two.
pub(crate) fn class(x: i64) -> u8 {
    let x = x.max(0) as u64;
    if x < 4 {
        return x as u8;
    }
    let octave = 63 - x.leading_zeros();
    let quarter = (x >> (octave - 2)) & 3;
    let above = u64::from(x & ((1 << (octave - 2)) - 1) != 0);
    (u64::from(octave) * 4 + quarter + above - 4) as u8
}

/// Largest value of a class.
pub(crate) fn upper(class: u8) -> i64 {
    if class < 4 {
        return i64::from(class);
    }
    let (octave, quarter) = ((u32::from(class) + 4) / 4, u64::from(class) % 4);
    let value = (4 + quarter).checked_shl(octave - 2).unwrap_or(u64::MAX);
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Place in time of every trace.
#[derive(Debug)]
pub(crate) struct Times {
    /// Bucket of each trace, newest first.
    pub bucket: Vec<u16>,
    /// [`class`] of the longest span, or of the time from the first to the
    /// last start if that is longer.
    pub class: Vec<u8>,
    /// Latest start within each bucket.
    pub latest: Vec<i64>,
    /// All traces by bucket, newest first: what a search tries that names no
    /// operation. Sorting them anew for each would cost more than it reads.
    pub order: Vec<u32>,
    /// Nothing is known about the times of some trace.
    pub endless: bool,
}

impl Times {
    pub fn write(starts: &[i64], classes: &[u8]) -> Vec<u8> {
        let n = starts.len();
        let mut order: Vec<u32> = (0..n as u32).collect();
        order.sort_unstable_by_key(|i| (std::cmp::Reverse(starts[*i as usize]), *i));
        let size = BUCKET.max(n.div_ceil(1 << 16));
        let mut bucket = vec![0u16; n];
        let mut out = Vec::new();
        put_varint(&mut out, n as u64);
        put_varint(&mut out, size as u64);
        let mut last = 0i64;
        for (b, traces) in order.chunks(size).enumerate() {
            let latest = starts[traces[0] as usize];
            put_zigzag(&mut out, latest.wrapping_sub(last));
            last = latest;
            for t in traces {
                bucket[*t as usize] = b as u16;
            }
        }
        out.extend(bucket.iter().map(|b| *b as u8));
        out.extend(bucket.iter().map(|b| (*b >> 8) as u8));
        out.extend_from_slice(classes);
        out
    }

    pub fn read(raw: &[u8]) -> Decoded<Self> {
        let mut r = Reader::new(raw);
        let n = r.count(raw.len() / 3)?;
        let size = r.count(usize::MAX >> 1)?.max(1);
        let mut latest = Vec::new();
        let mut last = 0i64;
        for _ in 0..n.div_ceil(size) {
            last = last.wrapping_add(r.zigzag()?);
            latest.push(last);
        }
        let (low, high) = (r.take(n)?, r.take(n)?);
        let bucket: Vec<u16> =
            low.iter().zip(high).map(|(l, h)| u16::from(*l) | u16::from(*h) << 8).collect();
        if bucket.iter().any(|b| usize::from(*b) >= latest.len()) {
            return Err(Malformed("a trace has no place in time"));
        }
        let mut next = vec![0u32; latest.len() + 1];
        for b in &bucket {
            next[usize::from(*b) + 1] += 1;
        }
        for b in 1..next.len() {
            next[b] += next[b - 1];
        }
        let mut order = vec![0u32; n];
        for (trace, b) in bucket.iter().enumerate() {
            let to = &mut next[usize::from(*b)];
            order[*to as usize] = trace as u32;
            *to += 1;
        }
        let class = r.take(n)?.to_vec();
        let endless = class.iter().any(|c| upper(*c) == i64::MAX);
        Ok(Self { bucket, class, latest, order, endless })
    }

    /// Where in [`Times::order`] the traces begin that may start at `end` or before.
    pub fn first_until(&self, end: i64) -> usize {
        let older = self.latest.get(1..).unwrap_or_default();
        if self.endless || !self.latest.is_sorted_by(|a, b| a >= b) {
            return 0;
        }
        // A bucket's traces start no earlier than the next bucket's latest.
        let buckets = older.partition_point(|latest| *latest > end);
        self.order
            .partition_point(|t| self.bucket.get(*t as usize).is_some_and(|b| usize::from(*b) < buckets))
    }

    pub fn size(&self) -> usize {
        self.bucket.len() * 7 + self.latest.len() * 8
    }
}

/// Traces of an operation while a segment is written.
#[derive(Default)]
pub(crate) struct List {
    last: u32,
    n: u32,
    bytes: Vec<u8>,
}

impl List {
    #[inline]
    pub fn add(&mut self, ordinal: u32) {
        if self.n > 0 && self.last == ordinal {
            return;
        }
        put_varint(&mut self.bytes, u64::from(ordinal - self.last));
        self.last = ordinal;
        self.n += 1;
    }
}

/// Part of a list and place in it; none for a dense list.
pub(crate) type Place = Option<(u32, u32)>;

/// Lays lists out in parts; for each list its part and place, or none if it
/// is dense.
pub(crate) fn put_lists(lists: &[&List], traces: usize) -> (Vec<Vec<u8>>, Vec<Place>) {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    let mut places = Vec::new();
    for list in lists {
        if list.n as usize > 64 && list.n as usize * DENSE > traces {
            places.push(None);
            continue;
        }
        if parts.last().is_none_or(|p| p.len() > PART) {
            parts.push(Vec::new());
        }
        let number = parts.len() as u32 - 1;
        let Some(part) = parts.last_mut() else { continue };
        places.push(Some((number, part.len() as u32)));
        put_varint(part, u64::from(list.n));
        part.extend_from_slice(&list.bytes);
    }
    (parts, places)
}

/// Appends the traces of a list, which begins at `at` in its part.
pub(crate) fn read_list(part: &[u8], at: u32, traces: usize, out: &mut Vec<u32>) -> Decoded<()> {
    let mut r = Reader::new(part.get(at as usize..).ok_or(Malformed("a list is missing"))?);
    let n = r.count(traces)?;
    let mut last = 0u64;
    for _ in 0..n {
        last += r.count(traces)? as u64;
        if last >= traces as u64 {
            return Err(Malformed("a list names a trace that is not there"));
        }
        out.push(last as u32);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_class_bounds_its_values_closely(x in 0i64..i64::MAX) {
            let up = upper(class(x));
            prop_assert!(up >= x);
            prop_assert!(up <= x.saturating_add(x / 4 + 1), "{} {}", x, up);
        }

        #[test]
        fn times_are_in_order(starts in prop::collection::vec(any::<i64>(), 1..200)) {
            let classes = vec![7; starts.len()];
            let t = Times::read(&Times::write(&starts, &classes)).unwrap();
            for (i, s) in starts.iter().enumerate() {
                prop_assert!(t.latest[usize::from(t.bucket[i])] >= *s);
                for (k, o) in starts.iter().enumerate() {
                    prop_assert!(t.bucket[i] <= t.bucket[k] || s <= o);
                }
            }
        }
    }
}
