//! Unicode classes as the reference uses them: general categories, which
//! differ from `char::is_alphabetic` and `char::is_numeric`, of Unicode 15,
//! the version of Go's tables.

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

static LETTERS: LazyLock<Ranges> = LazyLock::new(|| Ranges::of(r"[\p{L}&&\p{Age=15.0}]"));
static NUMBERS: LazyLock<Ranges> = LazyLock::new(|| Ranges::of(r"[\p{N}&&\p{Age=15.0}]"));
static KNOWN: LazyLock<Ranges> = LazyLock::new(|| Ranges::of(r"\p{Age=15.0}"));

/// General category L.
pub(crate) fn is_letter(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_alphabetic() } else { LETTERS.has(c) }
}

/// General category N.
pub(crate) fn is_number(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_digit() } else { NUMBERS.has(c) }
}

/// Upper case character by character, as Go has it: where the full mapping has
/// several characters (`ß`), the character itself, except for the Greek letters
/// with an iota below, whose capital is one character as well.
pub(crate) fn upper(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_uppercase();
    }
    let simple = match c {
        '\u{1F80}'..='\u{1F87}' | '\u{1F90}'..='\u{1F97}' | '\u{1FA0}'..='\u{1FA7}' => Some(8),
        '\u{1FB3}' | '\u{1FC3}' | '\u{1FF3}' => Some(9),
        _ => None,
    };
    if let Some(distance) = simple {
        return char::from_u32(c as u32 + distance).unwrap_or(c);
    }
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        // Some small letters got their capital after Unicode 15.
        (Some(one), None) if KNOWN.has(one) => one,
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
        assert_eq!((upper('ᾀ'), upper('ᾳ'), upper('ᾈ')), ('ᾈ', 'ᾼ', 'ᾈ'));
        assert_eq!((upper('ⅷ'), upper('ⓐ')), ('Ⅷ', 'Ⓐ'));
    }

    #[test]
    fn characters_newer_than_the_tables_of_the_reference_have_no_class() {
        assert!(!is_letter('\u{A7CB}') && !is_number('\u{11DE0}'));
        assert_eq!((upper('ɤ'), upper('ƛ')), ('ɤ', 'ƛ'));
    }
}
