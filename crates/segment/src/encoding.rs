//! Value encodings of Parquet (apache/parquet-format:Encodings.md), as far as
//! segments use them, and the little-endian helpers of our own files.
//!
//! The readers check every count against a bound given by the caller, so a
//! damaged page can neither panic nor allocate more than its directory entry
//! says.

use crate::error::{Decoded, Malformed};

/// Cursor over bytes; every read is bounded.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
    pub fn left(&self) -> usize {
        self.rest.len()
    }
    pub fn take(&mut self, n: usize) -> Decoded<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or(Malformed("ends early"))?;
        self.rest = tail;
        Ok(head)
    }
    pub fn u8(&mut self) -> Decoded<u8> {
        Ok(self.take(1)?[0])
    }
    pub fn array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }
    pub fn u32(&mut self) -> Decoded<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    pub fn u64(&mut self) -> Decoded<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    pub fn i64(&mut self) -> Decoded<i64> {
        Ok(i64::from_le_bytes(self.array()?))
    }
    pub fn u128(&mut self) -> Decoded<u128> {
        Ok(u128::from_be_bytes(self.array()?))
    }
    #[inline]
    pub fn varint(&mut self) -> Decoded<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed("a varint is longer than 64 bits"))
    }
    /// A varint that must not exceed `max`.
    pub fn count(&mut self, max: usize) -> Decoded<usize> {
        let n = self.varint()?;
        if n > max as u64 { Err(Malformed("a count exceeds its bound")) } else { Ok(n as usize) }
    }
    pub fn zigzag(&mut self) -> Decoded<i64> {
        let n = self.varint()?;
        Ok(((n >> 1) as i64) ^ -((n & 1) as i64))
    }
    pub fn text(&mut self) -> Decoded<&'a [u8]> {
        let n = self.count(self.left())?;
        self.take(n)
    }
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_zigzag(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text);
}

/// Bits needed for values up to `max`.
pub(crate) fn width_of(max: u32) -> u8 {
    (32 - max.leading_zeros()) as u8
}

/// The same, rounded up to whole bytes.
pub(crate) fn byte_width_of(max: u32) -> u8 {
    width_of(max).div_ceil(8) * 8
}

fn pack(values: &[u32], width: u8, out: &mut Vec<u8>) {
    match width {
        8 => out.extend(values.iter().map(|v| *v as u8)),
        16 => out.extend(values.iter().flat_map(|v| (*v as u16).to_le_bytes())),
        _ => {
            let (mut acc, mut bits) = (0u64, 0u32);
            for v in values {
                acc |= u64::from(*v) << bits;
                bits += u32::from(width);
                while bits >= 8 {
                    out.push(acc as u8);
                    acc >>= 8;
                    bits -= 8;
                }
            }
            if bits > 0 {
                out.push(acc as u8);
            }
        }
    }
}

/// RLE/bit-packing hybrid: one run if all values are equal, one bit-packed
/// run otherwise (zstd, which follows, finds the repetitions; it does so
/// better when `width` is a whole number of bytes).
pub(crate) fn put_hybrid(out: &mut Vec<u8>, values: &[u32], width: u8) {
    let Some(first) = values.first() else { return };
    if values.iter().all(|v| v == first) {
        put_varint(out, (values.len() as u64) << 1);
        out.extend_from_slice(&first.to_le_bytes()[..usize::from(width.div_ceil(8))]);
        return;
    }
    let groups = values.len().div_ceil(8);
    put_varint(out, (groups as u64) << 1 | 1);
    let start = out.len();
    pack(values, width, out);
    out.resize(start + groups * usize::from(width), 0);
}

/// Reads `n` values.
pub(crate) fn read_hybrid(r: &mut Reader<'_>, width: u8, n: usize, out: &mut Vec<u32>) -> Decoded<()> {
    if width > 32 {
        return Err(Malformed("a code is wider than 32 bits"));
    }
    let end = out.len() + n;
    out.reserve(n);
    while out.len() < end {
        let header = r.varint()?;
        let left = end - out.len();
        if header & 1 == 0 {
            let mut le = [0; 4];
            let bytes = r.take(usize::from(width.div_ceil(8)))?;
            le[..bytes.len()].copy_from_slice(bytes);
            let run = (header >> 1).min(left as u64) as usize;
            if run == 0 {
                return Err(Malformed("a run is empty"));
            }
            out.resize(out.len() + run, u32::from_le_bytes(le));
            continue;
        }
        let groups = header >> 1;
        let size = groups.checked_mul(u64::from(width)).ok_or(Malformed("a run is too long"))?;
        if size > r.left() as u64 || groups == 0 {
            return Err(Malformed("a run is longer than its page"));
        }
        let bytes = r.take(size as usize)?;
        let take = groups.saturating_mul(8).min(left as u64) as usize;
        unpack(bytes, width, take, out);
    }
    Ok(())
}

fn unpack(bytes: &[u8], width: u8, n: usize, out: &mut Vec<u32>) {
    match width {
        0 => out.resize(out.len() + n, 0),
        8 => out.extend(bytes.iter().take(n).map(|b| u32::from(*b))),
        16 => out.extend(bytes.chunks_exact(2).take(n).map(|b| u32::from(b[0]) | u32::from(b[1]) << 8)),
        _ => {
            let mask = ((1u64 << width) - 1) as u32;
            let (mut acc, mut bits) = (0u64, 0u32);
            let mut bytes = bytes.iter();
            for _ in 0..n {
                while bits < u32::from(width) {
                    acc |= u64::from(bytes.next().copied().unwrap_or(0)) << bits;
                    bits += 8;
                }
                out.push(acc as u32 & mask);
                acc >>= width;
                bits -= u32::from(width);
            }
        }
    }
}

const DELTA_BLOCK: usize = 128;
const MINI: usize = 32;

/// DELTA_BINARY_PACKED for 32-bit values (lengths).
pub(crate) fn put_delta(out: &mut Vec<u8>, values: &[u32]) {
    put_varint(out, DELTA_BLOCK as u64);
    put_varint(out, (DELTA_BLOCK / MINI) as u64);
    put_varint(out, values.len() as u64);
    put_zigzag(out, values.first().map_or(0, |v| i64::from(*v)));
    let mut deltas = [0i64; DELTA_BLOCK];
    let mut at = 1;
    while at < values.len() {
        let n = (values.len() - at).min(DELTA_BLOCK);
        for (i, d) in deltas[..n].iter_mut().enumerate() {
            *d = i64::from(values[at + i]) - i64::from(values[at + i - 1]);
        }
        let min = deltas[..n].iter().copied().min().unwrap_or(0);
        put_zigzag(out, min);
        let mut widths = [0u8; DELTA_BLOCK / MINI];
        for (w, mini) in widths.iter_mut().zip(deltas[..n].chunks(MINI)) {
            let max = mini.iter().map(|d| (d - min) as u64).max().unwrap_or(0);
            *w = (64 - max.leading_zeros()) as u8;
        }
        out.extend_from_slice(&widths);
        for (w, mini) in widths.iter().zip(deltas[..n].chunks(MINI)) {
            let start = out.len();
            let (mut acc, mut bits) = (0u128, 0u32);
            for d in mini {
                acc |= u128::from((d - min) as u64) << bits;
                bits += u32::from(*w);
                while bits >= 8 {
                    out.push(acc as u8);
                    acc >>= 8;
                    bits -= 8;
                }
            }
            if bits > 0 {
                out.push(acc as u8);
            }
            out.resize(start + MINI * usize::from(*w) / 8, 0);
        }
        at += n;
    }
}

/// Reads DELTA_BINARY_PACKED lengths; there must be exactly `n`.
pub(crate) fn read_delta(r: &mut Reader<'_>, n: usize) -> Decoded<Vec<u32>> {
    let block = r.count(1 << 16)?;
    let minis = r.count(1 << 10)?;
    let total = r.count(n)?;
    if total != n || minis == 0 || block % minis != 0 || !(block / minis).is_multiple_of(32) || block == 0 {
        return Err(Malformed("a delta header is not ours"));
    }
    let mini = block / minis;
    let mut value = r.zigzag()?;
    let mut out = Vec::with_capacity(n);
    if n == 0 {
        return Ok(out);
    }
    let narrow = |v: i64| u32::try_from(v).map_err(|_| Malformed("a length is negative or too large"));
    out.push(narrow(value)?);
    while out.len() < n {
        let min = r.zigzag()?;
        let widths = r.take(minis)?;
        for w in widths {
            if out.len() == n {
                break;
            }
            if *w > 64 {
                return Err(Malformed("a delta is wider than 64 bits"));
            }
            let bytes = r.take(mini * usize::from(*w) / 8)?;
            let some = mini.min(n - out.len());
            let width = u32::from(*w);
            let mut bytes = bytes.iter();
            let mut next = |value: i64, delta: u64| {
                let value = value.wrapping_add(min).wrapping_add(delta as i64);
                out.push(narrow(value)?);
                Ok(value)
            };
            if width <= 56 {
                // The usual case: nothing wider than a register is needed.
                let mask = (1u64 << width) - 1;
                let (mut acc, mut bits) = (0u64, 0u32);
                for _ in 0..some {
                    while bits < width {
                        acc |= u64::from(bytes.next().copied().unwrap_or(0)) << bits;
                        bits += 8;
                    }
                    value = next(value, acc & mask)?;
                    acc >>= width;
                    bits -= width;
                }
            } else {
                let mask = u64::MAX >> (64 - width);
                let (mut acc, mut bits) = (0u128, 0u32);
                for _ in 0..some {
                    while bits < width {
                        acc |= u128::from(bytes.next().copied().unwrap_or(0)) << bits;
                        bits += 8;
                    }
                    value = next(value, acc as u64 & mask)?;
                    acc >>= width;
                    bits -= width;
                }
            }
        }
    }
    Ok(out)
}

/// DELTA_BYTE_ARRAY over sorted, repeating 16-byte ids: a repeated id costs a
/// prefix length of 16 and no bytes.
pub(crate) fn put_ids(out: &mut Vec<u8>, ids: &[u128]) {
    let mut prefixes = Vec::with_capacity(ids.len());
    let mut suffixes = Vec::with_capacity(ids.len());
    let mut bytes = Vec::new();
    let mut last: Option<u128> = None;
    for id in ids {
        let shared = last.map_or(0, |l| ((l ^ id).leading_zeros() / 8).min(16));
        prefixes.push(shared);
        suffixes.push(16 - shared);
        bytes.extend_from_slice(&id.to_be_bytes()[shared as usize..]);
        last = Some(*id);
    }
    put_delta(out, &prefixes);
    put_delta(out, &suffixes);
    out.extend_from_slice(&bytes);
}

/// Reads `n` ids: the distinct ones, and one past the last place of each.
pub(crate) fn read_ids(r: &mut Reader<'_>, n: usize) -> Decoded<(Vec<u128>, Vec<u32>)> {
    let prefixes = read_delta(r, n)?;
    let suffixes = read_delta(r, n)?;
    let (mut ids, mut ends) = (Vec::new(), Vec::new());
    let mut id = [0u8; 16];
    for (i, (p, s)) in prefixes.iter().zip(&suffixes).enumerate() {
        if p.saturating_add(*s) != 16 {
            return Err(Malformed("an id does not have 16 bytes"));
        }
        if *s != 0 {
            id[*p as usize..].copy_from_slice(r.take(*s as usize)?);
        }
        let next = u128::from_be_bytes(id);
        if (*s != 0 || i == 0) && ids.last() != Some(&next) {
            ids.push(next);
            ends.push(i as u32);
        }
        if let Some(end) = ends.last_mut() {
            *end = i as u32 + 1;
        }
    }
    Ok((ids, ends))
}

/// BYTE_STREAM_SPLIT of 8-byte values.
pub(crate) fn put_split(out: &mut Vec<u8>, words: &[i64]) {
    let n = words.len();
    let start = out.len();
    out.resize(start + n * 8, 0);
    let to = &mut out[start..];
    for (i, w) in words.iter().enumerate() {
        for (k, b) in w.to_le_bytes().iter().enumerate() {
            to[k * n + i] = *b;
        }
    }
}

/// Reads `n` split values.
pub(crate) fn read_split(r: &mut Reader<'_>, n: usize) -> Decoded<Vec<i64>> {
    let bytes = r.take(n.checked_mul(8).ok_or(Malformed("too many values"))?)?;
    let mut out = vec![0i64; n];
    for (k, stream) in bytes.chunks_exact(n.max(1)).enumerate() {
        for (w, b) in out.iter_mut().zip(stream) {
            *w |= (u64::from(*b) << (8 * k)) as i64;
        }
    }
    Ok(out)
}

/// Hash of an attribute value for block filters. Part of the file format:
/// must never change.
pub(crate) fn stable_hash(bytes: &[u8]) -> u64 {
    const M: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    let mut h = (bytes.len() as u64).wrapping_mul(0xa076_1d64_78bd_642f) ^ 0xe703_7ed1_a0b4_28db;
    let mut mix = |w: u64| {
        let p = u128::from(h ^ w).wrapping_mul(M);
        h = (p as u64) ^ ((p >> 64) as u64);
    };
    let mut chunks = bytes.chunks_exact(8);
    for c in &mut chunks {
        let mut le = [0; 8];
        le.copy_from_slice(c);
        mix(u64::from_le_bytes(le));
    }
    let mut le = [0; 8];
    let tail = chunks.remainder();
    le[..tail.len()].copy_from_slice(tail);
    mix(u64::from_le_bytes(le));
    mix(0x5851_f42d_4c95_7f2d);
    h
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn codes_come_back_at_any_width(values in prop::collection::vec(0u32..5000, 1..300), wide: bool) {
            let max = values.iter().copied().max().unwrap();
            let width = if wide { byte_width_of(max) } else { width_of(max) };
            let mut out = Vec::new();
            put_hybrid(&mut out, &values, width);
            let mut back = Vec::new();
            read_hybrid(&mut Reader::new(&out), width, values.len(), &mut back).unwrap();
            prop_assert_eq!(values, back);
        }

        #[test]
        fn lengths_come_back(values in prop::collection::vec(any::<u32>(), 0..400)) {
            let mut out = Vec::new();
            put_delta(&mut out, &values);
            prop_assert_eq!(&read_delta(&mut Reader::new(&out), values.len()).unwrap(), &values);
        }

        #[test]
        fn ids_and_words_come_back(mut ids in prop::collection::vec(any::<u128>(), 0..300), words: Vec<i64>) {
            ids.sort_unstable();
            let mut out = Vec::new();
            put_ids(&mut out, &ids);
            let (distinct, ends) = read_ids(&mut Reader::new(&out), ids.len()).unwrap();
            let mut back = Vec::new();
            for (id, end) in distinct.iter().zip(ends) {
                back.resize(end as usize, *id);
            }
            prop_assert_eq!(&back, &ids);
            ids.dedup();
            prop_assert_eq!(&distinct, &ids);
            out.clear();
            put_split(&mut out, &words);
            prop_assert_eq!(&read_split(&mut Reader::new(&out), words.len()).unwrap(), &words);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>, n in 0usize..5000, width: u8) {
            let _ = read_hybrid(&mut Reader::new(&bytes), width, n, &mut Vec::new());
            let _ = read_delta(&mut Reader::new(&bytes), n);
            let _ = read_ids(&mut Reader::new(&bytes), n);
            let _ = read_split(&mut Reader::new(&bytes), n);
        }
    }
}
