//! Integers of variable length over bounded input. Seven bits a byte, lowest
//! first; signed numbers are zigzag-folded so that small negatives stay short.

/// The input ended, or a number does not fit its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record ends too early or holds a number that does not fit")]
pub struct ShortRead;

/// Reads from a slice and never beyond it.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader over all of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
    /// Bytes not read yet.
    #[inline]
    pub const fn left(&self) -> usize {
        self.bytes.len() - self.at
    }
    /// Bytes read.
    #[inline]
    pub const fn position(&self) -> usize {
        self.at
    }
    /// One byte.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, ShortRead> {
        let b = *self.bytes.get(self.at).ok_or(ShortRead)?;
        self.at += 1;
        Ok(b)
    }
    /// An unsigned number.
    #[inline]
    pub fn u64(&mut self) -> Result<u64, ShortRead> {
        let first = self.u8()?;
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        let mut value = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let b = self.u8()?;
            if shift == 63 && b > 1 {
                return Err(ShortRead);
            }
            value |= u64::from(b & 0x7f) << shift;
            if b < 0x80 {
                return Ok(value);
            }
        }
        Err(ShortRead)
    }
    /// An unsigned number of at most 32 bits.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, ShortRead> {
        u32::try_from(self.u64()?).map_err(|_| ShortRead)
    }
    /// A signed number.
    #[inline]
    pub fn i64(&mut self) -> Result<i64, ShortRead> {
        let v = self.u64()?;
        Ok((v >> 1) as i64 ^ -((v & 1) as i64))
    }
    /// A count of things that take at least `least` bytes each of what is
    /// left: the bound of every allocation. `least` 0 counts as 1.
    #[inline]
    pub fn count(&mut self, least: usize) -> Result<usize, ShortRead> {
        let n = usize::try_from(self.u64()?).map_err(|_| ShortRead)?;
        if n.checked_mul(least.max(1)).is_none_or(|bytes| bytes > self.left()) {
            return Err(ShortRead);
        }
        Ok(n)
    }
    /// The next `n` bytes.
    #[inline]
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], ShortRead> {
        let end = self.at.checked_add(n).ok_or(ShortRead)?;
        let slice = self.bytes.get(self.at..end).ok_or(ShortRead)?;
        self.at = end;
        Ok(slice)
    }
    /// Eight bytes, little-endian.
    #[inline]
    pub fn fixed64(&mut self) -> Result<u64, ShortRead> {
        let slice = self.take(8)?;
        Ok(u64::from_le_bytes(slice.try_into().map_err(|_| ShortRead)?))
    }
    /// A length, then that many bytes.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], ShortRead> {
        let n = self.count(1)?;
        self.take(n)
    }
    /// A length, then that many bytes, as a reader of its own.
    pub fn section(&mut self) -> Result<Self, ShortRead> {
        Ok(Reader::new(self.bytes()?))
    }
}

/// Writes what [`Reader`] reads.
#[derive(Default, Debug)]
pub struct Writer {
    /// What was written.
    pub out: Vec<u8>,
}

impl Writer {
    /// One byte.
    #[inline]
    pub fn u8(&mut self, v: u8) {
        self.out.push(v);
    }
    /// An unsigned number.
    #[inline]
    pub fn u64(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.out.push(v as u8 | 0x80);
            v >>= 7;
        }
        self.out.push(v as u8);
    }
    /// A signed number.
    #[inline]
    pub fn i64(&mut self, v: i64) {
        self.u64(((v << 1) ^ (v >> 63)) as u64);
    }
    /// Eight bytes, little-endian.
    #[inline]
    pub fn fixed64(&mut self, v: u64) {
        self.out.extend_from_slice(&v.to_le_bytes());
    }
    /// A length, then the bytes.
    pub fn bytes(&mut self, v: &[u8]) {
        self.u64(v.len() as u64);
        self.out.extend_from_slice(v);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_round_trip(a: u64, b: i64, c: u64) {
            let mut w = Writer::default();
            w.u64(a);
            w.i64(b);
            w.fixed64(c);
            let mut r = Reader::new(&w.out);
            prop_assert_eq!((r.u64(), r.i64(), r.fixed64()), (Ok(a), Ok(b), Ok(c)));
            prop_assert_eq!(r.left(), 0);
        }
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        assert_eq!(Reader::new(&[0xff; 10]).u64(), Err(ShortRead));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x7f]).u32(), Err(ShortRead));
        assert_eq!(Reader::new(&[0x05, 1, 2]).count(1), Err(ShortRead));
        assert_eq!(Reader::new(&[0x80]).u64(), Err(ShortRead));
    }
}
