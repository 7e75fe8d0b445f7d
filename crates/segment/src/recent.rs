//! What makes "the newest traces of this operation" cheap. Traces have a rank,
//! 0 for the newest. Lists of operations hold ranks, so they are in order of
//! time; ranks are turned into traces part by part, as far as a search gets.

use crate::encoding::{Reader, put_varint, put_zigzag};
use crate::error::{Decoded, Malformed};

/// Ranks that share one bound of their starts.
const BUCKET: usize = 16;
/// Ranks of a part of the order.
pub(crate) const ORDER_PART: usize = 4096;
/// Lists are stored in sections of about this many bytes.
const LIST_PART: usize = 48 << 10;

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

/// When the traces of each rank start.
#[derive(Debug)]
pub(crate) struct Times {
    pub traces: usize,
    bucket: usize,
    /// Latest start of each bucket of ranks.
    latest: Vec<i64>,
    /// Nothing is known about the times of some trace.
    pub endless: bool,
}

impl Times {
    /// No trace of this rank or a later one starts after this.
    pub fn latest(&self, rank: u32) -> i64 {
        self.latest.get(rank as usize / self.bucket).copied().unwrap_or(i64::MAX)
    }

    /// The trace of this rank starts no earlier.
    pub fn earliest(&self, rank: u32) -> i64 {
        self.latest.get(rank as usize / self.bucket + 1).copied().unwrap_or(i64::MIN)
    }

    /// The first rank whose trace may start at `end` or before.
    pub fn first_until(&self, end: i64) -> u32 {
        let older = self.latest.get(1..).unwrap_or_default();
        if self.endless || !self.latest.is_sorted_by(|a, b| a >= b) {
            return 0;
        }
        (older.partition_point(|latest| *latest > end) * self.bucket) as u32
    }

    pub fn size(&self) -> usize {
        self.latest.len() * 8
    }

    pub fn read(raw: &[u8]) -> Decoded<Self> {
        let mut r = Reader::new(raw);
        let traces = r.count(u32::MAX as usize)?;
        let bucket = r.count(u32::MAX as usize)?.max(1);
        let endless = r.u8()? != 0;
        let latest = read_latest(&mut r, traces.div_ceil(bucket))?;
        Ok(Self { traces, bucket, latest, endless })
    }
}

fn read_latest(r: &mut Reader<'_>, n: usize) -> Decoded<Vec<i64>> {
    if n > r.left() {
        return Err(Malformed("times end early"));
    }
    let mut last = 0i64;
    (0..n)
        .map(|_| {
            last = last.wrapping_add(r.zigzag()?);
            Ok(last)
        })
        .collect()
}

/// Part of the traces in order of rank.
#[derive(Debug)]
pub(crate) struct Order {
    /// Number of each trace.
    pub ordinals: Vec<u32>,
    /// [`class`] of its longest span, or of the time from the first to the
    /// last start if that is longer.
    pub classes: Vec<u8>,
}

impl Order {
    pub fn read(raw: &[u8], traces: usize) -> Decoded<Self> {
        let n = raw.len() / 5;
        let mut r = Reader::new(raw);
        let streams = [r.take(n)?, r.take(n)?, r.take(n)?, r.take(n)?];
        let ordinals: Vec<u32> =
            (0..n).map(|i| u32::from_le_bytes([0, 1, 2, 3].map(|s: usize| streams[s][i]))).collect();
        if ordinals.iter().any(|o| *o as usize >= traces) {
            return Err(Malformed("a rank has no trace"));
        }
        Ok(Self { ordinals, classes: r.take(n)?.to_vec() })
    }

    /// Number of a trace and its class by its place.
    pub fn get(&self, at: usize) -> Option<(u32, u8)> {
        Some((*self.ordinals.get(at)?, *self.classes.get(at)?))
    }

    pub fn size(&self) -> usize {
        self.ordinals.len() * 5
    }
}

/// Times and order as sections, and the rank of each trace.
pub(crate) struct Ranked {
    pub times: Vec<u8>,
    pub order: Vec<Vec<u8>>,
    pub ranks: Vec<u32>,
}

/// Ranks the traces of a segment by their starts.
pub(crate) fn rank(starts: &[i64], classes: &[u8]) -> Ranked {
    let n = starts.len();
    let mut order: Vec<u32> = (0..n as u32).collect();
    order.sort_unstable_by_key(|i| (std::cmp::Reverse(starts[*i as usize]), *i));
    let mut times = Vec::with_capacity(n / BUCKET * 5);
    put_varint(&mut times, n as u64);
    put_varint(&mut times, BUCKET as u64);
    times.push(u8::from(classes.iter().any(|c| upper(*c) == i64::MAX)));
    let mut last = 0i64;
    for traces in order.chunks(BUCKET) {
        let latest = starts[traces[0] as usize];
        put_zigzag(&mut times, latest.wrapping_sub(last));
        last = latest;
    }
    let parts = order.chunks(ORDER_PART).map(|part| {
        let mut out = Vec::with_capacity(part.len() * 5);
        for byte in 0..4 {
            out.extend(part.iter().map(|t| t.to_le_bytes()[byte]));
        }
        out.extend(part.iter().map(|t| classes[*t as usize]));
        out
    });
    let parts = parts.collect();
    let mut ranks = vec![0u32; n];
    for (rank, trace) in order.iter().enumerate() {
        ranks[*trace as usize] = rank as u32;
    }
    Ranked { times, order: parts, ranks }
}

/// Traces of an operation while a segment is written, each with the class of
/// the operation's longest span in it.
#[derive(Default)]
pub(crate) struct List {
    last: u32,
    class: u8,
    n: u32,
    bytes: Vec<u8>,
}

impl List {
    #[inline]
    pub fn add(&mut self, ordinal: u32, class: u8) {
        if self.n > 0 && self.last == ordinal {
            if class > self.class {
                self.class = class;
                if let Some(last) = self.bytes.last_mut() {
                    *last = class;
                }
            }
            return;
        }
        put_varint(&mut self.bytes, u64::from(ordinal - self.last));
        self.bytes.push(class);
        self.last = ordinal;
        self.class = class;
        self.n += 1;
    }
}

/// Where a list lies: part, place in it, number of traces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListPlace {
    pub part: u32,
    pub at: u32,
    pub len: u32,
}

/// Lists in the parts they are stored in.
#[derive(Default)]
pub(crate) struct ListParts {
    pub parts: Vec<Vec<u8>>,
    scratch: Vec<(u32, u8)>,
}

impl ListParts {
    /// Appends a list, in order of rank.
    pub fn put(&mut self, list: &List, ranks: &[u32]) -> ListPlace {
        let scratch = &mut self.scratch;
        scratch.clear();
        // Written above: it is whole.
        let mut r = Reader::new(&list.bytes);
        let mut ordinal = 0u64;
        while let (Ok(step), Ok(class)) = (r.varint(), r.u8()) {
            ordinal += step;
            scratch.push((ranks.get(ordinal as usize).copied().unwrap_or(0), class));
        }
        scratch.sort_unstable();
        if self.parts.last().is_none_or(|p| p.len() > LIST_PART) {
            self.parts.push(Vec::new());
        }
        let number = self.parts.len() as u32 - 1;
        let Some(part) = self.parts.last_mut() else { return ListPlace { part: 0, at: 0, len: 0 } };
        let at = part.len() as u32;
        let mut last = 0;
        for (rank, _) in scratch.iter() {
            put_varint(part, u64::from(rank - last));
            last = *rank;
        }
        part.extend(scratch.iter().map(|(_, class)| *class));
        ListPlace { part: number, at, len: scratch.len() as u32 }
    }
}

/// Appends the ranks of a list's traces whose class reaches `least`.
pub(crate) fn read_list(
    part: &[u8],
    place: ListPlace,
    traces: usize,
    least: i64,
    out: &mut Vec<u32>,
) -> Decoded<()> {
    let mut r = Reader::new(part.get(place.at as usize..).ok_or(Malformed("a list is missing"))?);
    let n = place.len as usize;
    if n > r.left() {
        return Err(Malformed("a list ends early"));
    }
    let mut ranks = Vec::with_capacity(n);
    let mut last = 0u64;
    for _ in 0..n {
        last += r.count(traces)? as u64;
        if last >= traces as u64 {
            return Err(Malformed("a list names a trace that is not there"));
        }
        ranks.push(last as u32);
    }
    let classes = r.take(n)?;
    out.extend(ranks.iter().zip(classes).filter(|(_, c)| upper(**c) >= least).map(|(r, _)| *r));
    Ok(())
}

/// Order of time and lists as version 1 has them: three bytes per trace, and
/// lists of numbers instead of ranks.
pub(crate) mod v1 {
    use super::{Order, Times, read_latest, upper};
    use crate::encoding::Reader;
    use crate::error::{Decoded, Malformed};
    use std::sync::Arc;

    /// Everything at once.
    #[derive(Debug)]
    pub(crate) struct Whole {
        pub times: Arc<Times>,
        pub order: Arc<Order>,
        pub ranks: Vec<u32>,
    }

    impl Whole {
        pub fn read(raw: &[u8]) -> Decoded<Self> {
            let mut r = Reader::new(raw);
            let n = r.count(raw.len() / 3)?;
            let bucket = r.count(usize::MAX >> 1)?.max(1);
            let latest = read_latest(&mut r, n.div_ceil(bucket))?;
            let (low, high) = (r.take(n)?, r.take(n)?);
            let buckets: Vec<usize> =
                low.iter().zip(high).map(|(l, h)| usize::from(*l) | usize::from(*h) << 8).collect();
            // Each bucket must hold as many traces as it has ranks.
            let mut next: Vec<usize> = (0..latest.len()).map(|b| b * bucket).collect();
            let mut ordinals = vec![u32::MAX; n];
            let mut ranks = vec![0u32; n];
            for (trace, b) in buckets.iter().enumerate() {
                let rank = next.get_mut(*b).ok_or(Malformed("a trace has no place in time"))?;
                if *rank >= ((b + 1) * bucket).min(n) {
                    return Err(Malformed("a bucket of traces is too full"));
                }
                ordinals[*rank] = trace as u32;
                ranks[trace] = *rank as u32;
                *rank += 1;
            }
            let by_trace = r.take(n)?;
            let classes: Vec<u8> =
                ordinals.iter().map(|o| by_trace.get(*o as usize).copied().unwrap_or(255)).collect();
            let endless = classes.iter().any(|c| upper(*c) == i64::MAX);
            let times = Arc::new(Times { traces: n, bucket, latest, endless });
            Ok(Self { times, order: Arc::new(Order { ordinals, classes }), ranks })
        }

        pub fn size(&self) -> usize {
            self.ranks.len() * 9 + self.times.size()
        }
    }

    /// Appends the ranks of the traces of a list.
    pub(crate) fn read_list(part: &[u8], at: u32, ranks: &[u32], out: &mut Vec<u32>) -> Decoded<()> {
        let mut r = Reader::new(part.get(at as usize..).ok_or(Malformed("a list is missing"))?);
        let n = r.count(ranks.len())?;
        let mut last = 0usize;
        for _ in 0..n {
            last = last.saturating_add(r.count(ranks.len())?);
            out.push(*ranks.get(last).ok_or(Malformed("a list names a trace that is not there"))?);
        }
        Ok(())
    }
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
        fn traces_are_ranked_newest_first(starts in prop::collection::vec(any::<i64>(), 1..200)) {
            let classes: Vec<u8> = (0..starts.len()).map(|i| i as u8 % 200).collect();
            let ranked = rank(&starts, &classes);
            let times = Times::read(&ranked.times).unwrap();
            let order = Order::read(&ranked.order[0], starts.len()).unwrap();
            for (rank, trace) in order.ordinals.iter().enumerate() {
                let start = starts[*trace as usize];
                prop_assert_eq!(ranked.ranks[*trace as usize] as usize, rank);
                prop_assert_eq!(order.classes[rank], classes[*trace as usize]);
                prop_assert!(times.latest(rank as u32) >= start && start >= times.earliest(rank as u32));
                prop_assert!(rank as u32 >= times.first_until(start));
            }
        }

        #[test]
        fn a_list_keeps_its_traces_and_their_longest_spans(
            mut rows in prop::collection::vec((0u32..100, 0i64..1 << 40), 1..200),
            least in 0i64..1 << 40,
        ) {
            rows.sort_unstable_by_key(|r| r.0);
            let mut list = List::default();
            rows.iter().for_each(|(trace, duration)| list.add(*trace, class(*duration)));
            // Higher numbers are newer.
            let ranks: Vec<u32> = (0..100).rev().collect();
            let mut parts = ListParts::default();
            let place = parts.put(&list, &ranks);
            let mut found = Vec::new();
            read_list(&parts.parts[0], place, 100, least, &mut found).unwrap();
            prop_assert!(found.is_sorted());
            for (trace, duration) in rows {
                if duration >= least {
                    prop_assert!(found.contains(&(99 - trace)));
                }
            }
        }
    }
}
