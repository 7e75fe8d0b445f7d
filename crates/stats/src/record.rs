//! Numbers and texts of records that this room writes and reads back.

use crate::sketch::put_varint;

/// The record is not one of ours, or cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record of counted spans is malformed")]
pub struct Malformed;

pub(crate) fn zigzag(v: i64) -> u64 {
    ((v << 1) ^ (v >> 63)) as u64
}

pub(crate) fn unzigzag(v: u64) -> i64 {
    (v >> 1) as i64 ^ -((v & 1) as i64)
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text);
}

/// Takes a record apart.
pub(crate) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(Malformed)?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    pub(crate) fn double(&mut self) -> Result<f64, Malformed> {
        self.take(8)?.try_into().map(f64::from_le_bytes).map_err(|_| Malformed)
    }

    pub(crate) fn float(&mut self) -> Result<f32, Malformed> {
        self.take(4)?.try_into().map(f32::from_le_bytes).map_err(|_| Malformed)
    }

    pub(crate) fn text(&mut self) -> Result<&'a [u8], Malformed> {
        let n = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
        self.take(n)
    }

    pub(crate) fn str(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.text()?).map_err(|_| Malformed)
    }

    pub(crate) fn texts(&mut self) -> Result<Vec<String>, Malformed> {
        // Each takes at least its length, so this is bounded by the record.
        let n = usize::try_from(self.varint()?).ok().filter(|n| *n <= self.0.len()).ok_or(Malformed)?;
        (0..n).map(|_| self.str().map(str::to_owned)).collect()
    }
}
