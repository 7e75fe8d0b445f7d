//! Byte strings to small numbers.

use std::hash::{BuildHasher, Hasher};

/// Numbers distinct byte strings in order of appearance. Seeded hashing, so
/// hostile values cannot make it slow.
pub(crate) struct Interner {
    hasher: foldhash::fast::RandomState,
    /// Code + 1, or 0; length is a power of two.
    slots: Vec<u32>,
    hashes: Vec<u32>,
    ends: Vec<u32>,
    bytes: Vec<u8>,
}

impl Default for Interner {
    fn default() -> Self {
        Self {
            hasher: foldhash::fast::RandomState::default(),
            slots: vec![0; 16],
            hashes: Vec::new(),
            ends: Vec::new(),
            bytes: Vec::new(),
        }
    }
}

impl Interner {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of all strings.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    #[inline]
    pub fn get(&self, code: u32) -> &[u8] {
        let i = code as usize;
        let Some(end) = self.ends.get(i) else { return &[] };
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.bytes[start as usize..*end as usize]
    }

    /// The code of the string, and whether it is new.
    #[inline]
    pub fn intern(&mut self, value: &[u8]) -> (u32, bool) {
        let mut h = self.hasher.build_hasher();
        h.write(value);
        let hash = h.finish();
        let tag = (hash >> 32) as u32;
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            match self.slots[at] {
                0 => break,
                n => {
                    let code = n - 1;
                    if self.hashes[code as usize] == tag && self.get(code) == value {
                        return (code, false);
                    }
                }
            }
            at = (at + 1) & mask;
        }
        let code = self.ends.len() as u32;
        self.slots[at] = code + 1;
        self.hashes.push(tag);
        self.bytes.extend_from_slice(value);
        self.ends.push(self.bytes.len() as u32);
        if self.ends.len() * 2 > self.slots.len() {
            self.grow();
        }
        (code, true)
    }

    fn grow(&mut self) {
        let len = self.slots.len() * 2;
        let mut slots = vec![0u32; len];
        for code in 0..self.ends.len() as u32 {
            let mut h = self.hasher.build_hasher();
            h.write(self.get(code));
            let mut at = h.finish() as usize & (len - 1);
            while slots[at] != 0 {
                at = (at + 1) & (len - 1);
            }
            slots[at] = code + 1;
        }
        self.slots = slots;
    }

    /// All strings in order of their codes.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.ends.len() as u32).map(|c| self.get(c))
    }
}

/// Numbers of one numbering in another, which may begin anew (an epoch).
#[derive(Default)]
pub(crate) struct Renumbered {
    epoch: u32,
    /// New number + 1, or 0.
    to: Vec<u32>,
}

impl Renumbered {
    /// The new number in this epoch, if it was set.
    #[inline]
    pub fn get(&self, epoch: u32, from: u32) -> Option<u32> {
        if epoch != self.epoch {
            return None;
        }
        self.to.get(from as usize)?.checked_sub(1)
    }

    pub fn set(&mut self, epoch: u32, from: u32, to: u32) {
        if epoch != self.epoch {
            self.epoch = epoch;
            self.to.clear();
        }
        let i = from as usize;
        if i >= self.to.len() {
            self.to.resize(i + 1, 0);
        }
        self.to[i] = to + 1;
    }
}
