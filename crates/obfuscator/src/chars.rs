//! Unicode classes as the reference uses them: general categories, which
//! differ from `char::is_alphabetic` and `char::is_numeric`.

use std::sync::LazyLock;

use regex_syntax::hir::{Class, HirKind};

/// Sorted, disjoint ranges.
struct Ranges(Vec<(char, char)>);

impl Ranges {
    fn of(pattern: &str) -> Self {
        let ranges = match regex_syntax::parse(pattern).map(|hir| hir.into_kind()) {
            Ok(HirKind::Class(Class::Unicode(class))) => {
                class.ranges().iter().map(|r| (r.start(), r.end())).collect()
            }
            _ => Vec::new(),
        };
        Self(ranges)
    }

    fn has(&self, c: char) -> bool {
        let at = self.0.partition_point(|&(_, end)| end < c);
        self.0.get(at).is_some_and(|&(start, _)| start <= c)
    }
}

static LETTERS: LazyLock<Ranges> = LazyLock::new(|| Ranges::of(r"\p{L}"));
static NUMBERS: LazyLock<Ranges> = LazyLock::new(|| Ranges::of(r"\p{N}"));

/// General category L.
pub(crate) fn is_letter(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_alphabetic() } else { LETTERS.has(c) }
}

/// General category N.
pub(crate) fn is_number(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_digit() } else { NUMBERS.has(c) }
}

/// Upper case where it is a single character, else the character itself.
pub(crate) fn upper(c: char) -> char {
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(one), None) => one,
        _ => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_category_l_only() {
        assert!(is_letter('a') && is_letter('ß') && is_letter('構') && is_letter('ჸ'));
        assert!(!is_letter('1') && !is_letter('Ⅷ') && !is_letter('\u{0301}') && !is_letter('🐶'));
    }

    #[test]
    fn numbers_are_category_n() {
        assert!(is_number('7') && is_number('Ⅷ') && is_number('٣') && is_number('½'));
        assert!(!is_number('x') && !is_number('構'));
    }

    #[test]
    fn upper_case_never_grows() {
        assert_eq!(upper('ß'), 'ß');
        assert_eq!(upper('ü'), 'Ü');
        assert_eq!(upper('k'), 'K');
    }
}
