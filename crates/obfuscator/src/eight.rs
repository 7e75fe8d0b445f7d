//! Eight bytes at once in a number: where short runs of bytes of one class
//! end, without a branch for each byte. For texts of some tens of bytes, for
//! which searches made for long texts take longer to begin than to end.

const EACH: u64 = 0x0101_0101_0101_0101;
/// The top bit of each byte, which marks bytes in the answers of [`Eight`].
const TOP: u64 = 0x80 * EACH;

/// Eight bytes of a text, the first one lowest.
#[derive(Clone, Copy)]
pub(crate) struct Eight(u64);

impl Eight {
    /// The bytes from `at` on, which is within the text; zeros behind its end.
    #[inline]
    pub(crate) fn load(bytes: &[u8], at: usize) -> Self {
        if let Some(eight) = bytes[at..].first_chunk() {
            return Self(u64::from_le_bytes(*eight));
        }
        let left = bytes.len() - at;
        match bytes.last_chunk() {
            // The last eight, without those before `at`.
            Some(_) if left == 0 => Self(0),
            Some(eight) => Self(u64::from_le_bytes(*eight) >> (64 - 8 * left)),
            None => Self(bytes[at..].iter().rev().fold(0, |word, b| word << 8 | u64::from(*b))),
        }
    }

    /// The first `len` bytes (1 to 8) in lower case, as a number. What is no
    /// letter changes as well, but does not become one.
    #[inline]
    pub(crate) fn lower(self, len: usize) -> u64 {
        (self.0 | (0x20 * EACH)) & (u64::MAX >> (64 - 8 * len.clamp(1, 8)))
    }

    /// Marks the bytes from `low` to `high`, both ASCII.
    #[inline]
    pub(crate) fn within(self, low: u8, high: u8) -> u64 {
        let seven = self.0 & !TOP;
        let from_low = seven + EACH * u64::from(0x80 - low);
        let beyond = seven + EACH * u64::from(0x7f - high);
        from_low & !beyond & !self.0 & TOP
    }

    /// Marks the bytes that are `b`, which is ASCII.
    #[inline]
    pub(crate) fn is(self, b: u8) -> u64 {
        self.within(b, b)
    }
}

/// Where the run of bytes ends that begins at `at` and that `class` marks.
#[inline]
pub(crate) fn run_end(bytes: &[u8], mut at: usize, class: impl Fn(Eight) -> u64) -> usize {
    while at < bytes.len() {
        let others = !class(Eight::load(bytes, at)) & TOP;
        if others != 0 {
            return (at + others.trailing_zeros() as usize / 8).min(bytes.len());
        }
        at += 8;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_those_of_the_bytes() {
        for b in 0..=255u8 {
            let eight = Eight::load(&[b; 8], 0);
            let all = |mark: u64| {
                assert!(mark == 0 || mark == TOP, "{b}");
                mark == TOP
            };
            assert_eq!(all(eight.within(b'0', b'9')), b.is_ascii_digit());
            assert_eq!(all(eight.is(b'"')), b == b'"');
            assert_eq!(all(eight.within(0, 0x1f)), b < 0x20);
        }
    }

    #[test]
    fn runs_end_where_they_end() {
        let digits = |eight: Eight| eight.within(b'0', b'9');
        for len in 0..30 {
            for at in 0..=len {
                let mut text = vec![b'7'; len];
                assert_eq!(run_end(&text, at, digits), len);
                assert_eq!(run_end(&text, at, |_| TOP), len);
                for end in at..len {
                    text[end] = b'x';
                    assert_eq!(run_end(&text, at, digits), end);
                    text[end] = b'7';
                }
            }
        }
    }

    #[test]
    fn behind_the_end_stand_zeros() {
        for len in 1..20usize {
            let text: Vec<u8> = (0..len as u8).map(|n| b'A' + n).collect();
            for at in 0..=len {
                let mut padded = text[at..].to_vec();
                padded.resize(padded.len() + 8, 0);
                assert_eq!(Eight::load(&text, at).0, Eight::load(&padded, 0).0);
            }
        }
        assert_eq!(Eight::load(b"SELECTED", 0).lower(6), Eight::load(b"select", 0).lower(6));
    }
}
