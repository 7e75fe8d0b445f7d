//! Finds a byte string or a list of numbers again and gives it a number.

use foldhash::fast::FixedState;
use std::hash::BuildHasher;

/// Positions of entries by hash: open addressing over `u32`, emptied without
/// being freed, because an encoder lives for many records.
#[derive(Default)]
struct Slots {
    /// Position + 1; 0 is free.
    slots: Vec<u32>,
    hashes: Vec<u64>,
}

impl Slots {
    fn clear(&mut self) {
        // A table that one huge record needed must not be swept for every
        // small one after it.
        let used = self.hashes.len();
        if self.slots.len() > 256 && self.slots.len() > used.saturating_mul(16) {
            self.slots = vec![0; 256];
        } else {
            self.slots.fill(0);
        }
        self.hashes.clear();
    }

    /// The position of an entry, or the position that a new one must get.
    fn find(&mut self, hash: u64, same: impl Fn(usize) -> bool) -> Result<usize, usize> {
        if (self.hashes.len() + 1) * 2 > self.slots.len() {
            self.grow();
        }
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            match self.slots[at] {
                0 => {
                    self.hashes.push(hash);
                    self.slots[at] = self.hashes.len() as u32;
                    return Err(self.hashes.len() - 1);
                }
                n => {
                    let n = n as usize - 1;
                    if self.hashes[n] == hash && same(n) {
                        return Ok(n);
                    }
                }
            }
            at = (at + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let len = (self.slots.len() * 2).max(256);
        self.slots = vec![0; len];
        for (i, hash) in self.hashes.iter().enumerate() {
            let mut at = *hash as usize & (len - 1);
            while self.slots[at] != 0 {
                at = (at + 1) & (len - 1);
            }
            self.slots[at] = i as u32 + 1;
        }
    }
}

/// Byte strings, each once.
pub(super) struct Texts {
    slots: Slots,
    pub blob: Vec<u8>,
    pub ends: Vec<u32>,
    state: FixedState,
}

impl Texts {
    pub fn new(seed: u64) -> Self {
        Self {
            slots: Slots::default(),
            blob: Vec::new(),
            ends: Vec::new(),
            state: FixedState::with_seed(seed),
        }
    }

    pub fn clear(&mut self) {
        self.slots.clear();
        self.blob.clear();
        self.ends.clear();
        if self.blob.capacity() > 4 << 20 {
            self.blob = Vec::new();
        }
        // The empty text is always number 0.
        self.add(b"");
    }

    /// Number of the text.
    #[inline]
    pub fn add(&mut self, text: &[u8]) -> u32 {
        let hash = self.state.hash_one(text);
        let (blob, ends) = (&self.blob, &self.ends);
        let found = self.slots.find(hash, |n| {
            let start = if n == 0 { 0 } else { ends[n - 1] as usize };
            &blob[start..ends[n] as usize] == text
        });
        match found {
            Ok(n) => n as u32,
            Err(n) => {
                self.blob.extend_from_slice(text);
                self.ends.push(self.blob.len() as u32);
                n as u32
            }
        }
    }

    /// Hash of a text, for fingerprints.
    #[inline]
    pub fn hash(&self, n: u32) -> u64 {
        self.slots.hashes[n as usize]
    }
}

/// Lists of numbers (operations, shapes), each once.
#[derive(Default)]
pub(super) struct Lists {
    slots: Slots,
    pub items: Vec<u32>,
    pub ends: Vec<u32>,
}

impl Lists {
    pub fn clear(&mut self) {
        self.slots.clear();
        self.items.clear();
        self.ends.clear();
    }

    /// Number of the list, and whether it is new.
    #[inline]
    pub fn add(&mut self, list: &[u32]) -> u32 {
        let mut hash = list.len() as u64;
        for &v in list {
            hash = fold(hash ^ u64::from(v), 0x9e37_79b9_7f4a_7c15);
        }
        let (items, ends) = (&self.items, &self.ends);
        let found = self.slots.find(hash, |n| {
            let start = if n == 0 { 0 } else { ends[n - 1] as usize };
            &items[start..ends[n] as usize] == list
        });
        match found {
            Ok(n) => n as u32,
            Err(n) => {
                self.items.extend_from_slice(list);
                self.ends.push(self.items.len() as u32);
                n as u32
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u32]> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|e| *e as usize));
        starts.zip(&self.ends).map(|(s, e)| &self.items[s..*e as usize])
    }
}

/// Mixes two numbers; every bit of both reaches every bit of the result.
#[inline]
pub(super) fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0x2d35_8dcc_aa6c_78a5) * u128::from(b ^ 0x8bb8_4b93_962e_acc9);
    product as u64 ^ (product >> 64) as u64
}
