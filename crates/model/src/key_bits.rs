//! Which keys the attributes of a span may have, in two words. Most questions
//! about a span's attributes are about keys that it does not have; they are
//! answered here, without a look at the attributes.

/// A set of attribute keys that answers "certainly not" or "perhaps". A hint:
/// it is no part of what a span says, so any two are equal.
#[derive(Clone, Copy, Debug)]
pub struct KeyBits([u64; 2]);

impl KeyBits {
    /// Perhaps every key: what is always true.
    pub const ANY: Self = Self([u64::MAX; 2]);
    /// No key.
    pub const NONE: Self = Self([0; 2]);

    /// The set of the keys whose hashes have bits here.
    #[inline]
    pub const fn from_hashes(bits: [u64; 4]) -> Self {
        Self([bits[0] | bits[2], bits[1] | bits[3]])
    }

    /// Whether a key may be there.
    #[inline]
    pub const fn may_have(self, key: &[u8]) -> bool {
        let hash = key_hash(key);
        self.0[(hash >> 6 & 1) as usize] >> (hash & 63) & 1 != 0
    }

    /// Adds a key.
    #[inline]
    pub const fn add(&mut self, key: &[u8]) {
        let hash = key_hash(key);
        self.0[(hash >> 6 & 1) as usize] |= 1 << (hash & 63);
    }

    /// Adds the keys of another set.
    #[inline]
    pub const fn join(&mut self, other: Self) {
        self.0 = [self.0[0] | other.0[0], self.0[1] | other.0[1]];
    }
}

impl Default for KeyBits {
    fn default() -> Self {
        Self::ANY
    }
}

impl PartialEq for KeyBits {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Hash of a key, over 256 values. Results never depend on it, only speed.
#[inline]
pub const fn key_hash(key: &[u8]) -> u8 {
    key_hash_of(key_tail(key), key.len())
}

/// As [`key_hash`], from the [`key_tail`] and the length of a key.
#[inline]
pub const fn key_hash_of(tail: u64, len: usize) -> u8 {
    ((tail ^ len as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// The last eight bytes of a key as a little-endian number; of a shorter one
/// all bytes.
#[inline]
pub const fn key_tail(key: &[u8]) -> u64 {
    if let Some(word) = key.last_chunk::<8>() {
        return u64::from_le_bytes(*word);
    }
    // Two halves that overlap: where they do, they agree.
    if let (Some(first), Some(last)) = (key.first_chunk::<4>(), key.last_chunk::<4>()) {
        let last = u32::from_le_bytes(*last) as u64;
        return u32::from_le_bytes(*first) as u64 | last << (8 * (key.len() - 4));
    }
    match key {
        [a, b, c] => *a as u64 | (*b as u64) << 8 | (*c as u64) << 16,
        [a, b] => *a as u64 | (*b as u64) << 8,
        [a] => *a as u64,
        _ => 0,
    }
}

/// Whether two texts are equal. For keys, names and other short texts faster
/// than comparing slices, which calls a function for each.
#[inline]
pub fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let (Some(a_last), Some(b_last)) = (a.last_chunk::<8>(), b.last_chunk::<8>()) else {
        return key_tail(a) == key_tail(b);
    };
    if a.len() > 64 {
        return a == b;
    }
    // Whole words from the front, then the last eight bytes.
    a_last == b_last && a.chunks_exact(8).zip(b.chunks_exact(8)).all(|(a, b)| a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_may_be_there() {
        let mut bits = KeyBits::NONE;
        let keys: [&[u8]; 5] = [b"", b"env", b"span.kind", b"_dd.p.tid", b"http.status_code"];
        assert!(keys.iter().all(|k| !bits.may_have(k)));
        keys.iter().for_each(|k| bits.add(k));
        assert!(keys.iter().all(|k| bits.may_have(k) && KeyBits::ANY.may_have(k)));
        let others = (0..100).filter(|i| bits.may_have(format!("other.{i}").as_bytes())).count();
        assert!(others < 20, "{others} of 100 other keys are not told apart");
    }

    #[test]
    fn texts_are_the_same_only_if_every_byte_is() {
        for len in 0..100 {
            let a: Vec<u8> = (0..len).collect();
            assert!(same_bytes(&a, &a.clone()) && !same_bytes(&a, &[&a[..], b"x"].concat()));
            for at in 0..a.len() {
                let mut b = a.clone();
                b[at] ^= 0x80;
                assert!(!same_bytes(&a, &b), "{len} {at}");
            }
        }
    }

    #[test]
    fn short_keys_are_read_as_long_ones() {
        for len in 0..8 {
            let key = &b"abcdefg"[..len];
            let bytewise = key.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
            assert_eq!(key_tail(key), bytewise, "{len}");
        }
        assert_eq!(key_tail(b"xxabcdefgh"), u64::from_le_bytes(*b"abcdefgh"));
    }
}
