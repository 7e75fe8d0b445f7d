//! Rules for names, services and tag text. Pure text to text; a text that is
//! already right is returned as it is.
//!
//! Source of the rules: `datadog-agent:pkg/trace/traceutil/normalize`.

use std::borrow::Cow;

/// Longest service, peer service, operation and type, in bytes.
pub const MAX_NAME: usize = 100;
/// Longest tag text, in characters.
const MAX_TAG_CHARS: usize = 200;
/// Bytes of tag text that are looked at.
const MAX_TAG_BYTES: usize = 400;

/// Why a text was changed; the suffix of the Agent's counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nothing was there.
    Empty,
    /// Longer than the limit.
    Truncate,
    /// Nothing usable was left.
    Invalid,
}

/// Cuts to at most `limit` bytes, at a character boundary.
pub fn truncate_utf8(s: &str, limit: usize) -> &str {
    if s.len() <= limit {
        return s;
    }
    let mut end = limit;
    while !s.is_char_boundary(end) {
        end -= 1;
    }
    &s[..end]
}

/// As [`truncate_utf8`] for bytes that may not be UTF-8: the cut text ends in
/// a well-formed character, whatever stands before it.
pub fn truncate_bytes(s: &[u8], limit: usize) -> &[u8] {
    if s.len() <= limit {
        return s;
    }
    let ends_well =
        |end: usize| (1..=end.min(4)).any(|width| std::str::from_utf8(&s[end - width..end]).is_ok());
    let end = (0..=limit).rev().find(|&end| end == 0 || ends_well(end)).unwrap_or(0);
    &s[..end]
}

/// Operation name: never empty.
pub fn normalize_name(name: &str) -> (Cow<'_, str>, Option<Reason>) {
    normalize_name_bytes(name.as_bytes())
}

/// As [`normalize_name`], from bytes that may not be UTF-8.
pub fn normalize_name_bytes(name: &[u8]) -> (Cow<'_, str>, Option<Reason>) {
    const FALLBACK: &str = "unnamed_operation";
    if name.is_empty() {
        return (Cow::Borrowed(FALLBACK), Some(Reason::Empty));
    }
    let cut = truncate_bytes(name, MAX_NAME);
    let reason = (cut.len() < name.len()).then_some(Reason::Truncate);
    match clean_name(cut) {
        Some(clean) => (clean, reason),
        None => (Cow::Borrowed(FALLBACK), Some(Reason::Invalid)),
    }
}

/// The name rule without limits and fallback: `None` if no ASCII letter is there.
fn clean_name(name: &[u8]) -> Option<Cow<'_, str>> {
    let first = name.iter().position(u8::is_ascii_alphabetic)?;
    let bytes = &name[first..];
    let valid = bytes.iter().enumerate().all(|(i, b)| match b {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => true,
        b'.' | b'_' => i > 0 && bytes[i - 1] != b'_',
        _ => false,
    });
    if valid && let Ok(rest) = std::str::from_utf8(bytes) {
        return Some(Cow::Borrowed(rest.strip_suffix('_').unwrap_or(rest)));
    }
    let mut out = String::with_capacity(bytes.len());
    for &b in bytes {
        match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => out.push(b as char),
            b'.' => {
                if out.ends_with('_') {
                    out.pop();
                }
                out.push('.');
            }
            _ => {
                if !out.ends_with(['.', '_']) {
                    out.push('_');
                }
            }
        }
    }
    if out.ends_with('_') {
        out.pop();
    }
    Some(Cow::Owned(out))
}

/// Service name: never empty. The fallback names the tracer's language.
pub fn normalize_service<'a>(service: &'a str, language: &str) -> (Cow<'a, str>, Option<Reason>) {
    let fallback = || {
        if language.is_empty() {
            Cow::Borrowed("unnamed-service")
        } else {
            Cow::Owned(format!("unnamed-{language}-service"))
        }
    };
    if service.is_empty() {
        return (fallback(), Some(Reason::Empty));
    }
    match normalize_peer_service(service) {
        (value, _) if value.is_empty() => (fallback(), Some(Reason::Invalid)),
        named => named,
    }
}

/// Peer or base service: as a service, but may stay or become empty.
pub fn normalize_peer_service(service: &str) -> (Cow<'_, str>, Option<Reason>) {
    if service.is_empty() {
        return (Cow::Borrowed(""), None);
    }
    let cut = truncate_utf8(service, MAX_NAME);
    let reason = (cut.len() < service.len()).then_some(Reason::Truncate);
    let value = normalize_tag_value(cut);
    if value.is_empty() { (Cow::Borrowed(""), Some(Reason::Invalid)) } else { (value, reason) }
}

/// `key:value` text: leading characters that cannot begin a key are removed.
pub fn normalize_tag(text: &str) -> Cow<'_, str> {
    normalize(text.as_bytes(), true)
}

/// Value text (service, environment, peer service).
pub fn normalize_tag_value(text: &str) -> Cow<'_, str> {
    normalize(text.as_bytes(), false)
}

/// As [`normalize_tag`] or [`normalize_tag_value`], from bytes that may not be UTF-8.
pub fn normalize_bytes(text: &[u8], strip: bool) -> Cow<'_, str> {
    normalize(text, strip)
}

fn normalize(text: &[u8], strip: bool) -> Cow<'_, str> {
    if text.is_empty() {
        return Cow::Borrowed("");
    }
    if is_normal(text, strip)
        && let Ok(s) = std::str::from_utf8(text)
    {
        return Cow::Borrowed(s);
    }
    let mut out = String::with_capacity(text.len().min(MAX_TAG_BYTES) + 4);
    // An illegal run is written as one `_` only when something follows it.
    let mut pending = false;
    let mut chars = 0;
    let mut at = 0;
    while at < text.len() {
        let (c, width) = decode(&text[at..]);
        let accepted = match c {
            Some(c @ ('a'..='z' | ':')) => Some(c),
            Some(c @ 'A'..='Z') => Some(c.to_ascii_lowercase()),
            Some(c) if c.in_letters() => Some(lower_same_width(c)),
            Some(_) if strip && out.is_empty() => {
                // Discarded from the start: counts as bytes, not as characters.
                at += width;
                if at >= MAX_TAG_BYTES {
                    break;
                }
                continue;
            }
            Some(c @ ('.' | '/' | '-')) => Some(c),
            Some(c) if c.in_digits() => Some(c),
            _ => None,
        };
        match accepted {
            Some(c) => {
                if std::mem::take(&mut pending) {
                    out.push('_');
                }
                out.push(c);
            }
            None if strip && out.is_empty() => {
                at += width;
                if at >= MAX_TAG_BYTES {
                    break;
                }
                continue;
            }
            None => pending = true,
        }
        chars += 1;
        at += width;
        if chars >= MAX_TAG_CHARS || at >= MAX_TAG_BYTES {
            break;
        }
    }
    Cow::Owned(out)
}

/// Whether a service name (or an environment) is as it should be: nothing to
/// normalise, nothing to count. A yes is certain, a no is not.
#[inline]
pub fn is_normal_service(text: &[u8]) -> bool {
    if text.len() > MAX_NAME {
        return false;
    }
    // An underscore must not be the last, nor follow another one.
    let mut before = UNDERSCORE;
    for b in text {
        let class = CLASSES[usize::from(*b)] & (VALUE | UNDERSCORE);
        if class == 0 || class == UNDERSCORE && before == UNDERSCORE {
            return false;
        }
        before = class;
    }
    before != UNDERSCORE
}

/// Whether an operation name is as it should be: nothing to normalise, nothing
/// to count. A yes is certain, a no is not.
#[inline]
pub fn is_normal_name(name: &[u8]) -> bool {
    if name.len() > MAX_NAME || !name.first().is_some_and(u8::is_ascii_alphabetic) {
        return false;
    }
    let mut before = 0;
    for b in name {
        let class = CLASSES[usize::from(*b)] & (NAME | DOT | UNDERSCORE);
        if class == 0 || class != NAME && before == UNDERSCORE {
            return false;
        }
        before = class;
    }
    before != UNDERSCORE
}

/// Bytes of values: `a-z0-9:./-`.
const VALUE: u8 = 1;
/// Letters and digits of names, either case.
const NAME: u8 = 2;
/// The dot in names.
const DOT: u8 = 4;
/// The underscore in either.
const UNDERSCORE: u8 = 8;

static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut b = 0;
    while b < 128 {
        classes[b] = match b as u8 {
            b'a'..=b'z' | b'0'..=b'9' => VALUE | NAME,
            b'A'..=b'Z' => NAME,
            b'.' => VALUE | DOT,
            b':' | b'/' | b'-' => VALUE,
            b'_' => UNDERSCORE,
            _ => 0,
        };
        b += 1;
    }
    classes
};

fn is_normal(text: &[u8], strip: bool) -> bool {
    if text.len() > MAX_TAG_CHARS {
        return false;
    }
    if strip && !matches!(text[0], b'a'..=b'z' | b':') {
        return false;
    }
    let plain = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b':' | b'.' | b'/' | b'-');
    text.iter().enumerate().all(|(i, b)| plain(b) || (*b == b'_' && text.get(i + 1).is_some_and(plain)))
}

/// The character at the start of `bytes` and its width; `None` for a byte
/// that is not part of a well-formed character.
fn decode(bytes: &[u8]) -> (Option<char>, usize) {
    let width = match bytes[0] {
        0..=0x7f => return (Some(bytes[0] as char), 1),
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return (None, 1),
    };
    match bytes.get(..width).and_then(|b| std::str::from_utf8(b).ok()) {
        Some(s) => (s.chars().next(), width),
        None => (None, 1),
    }
}

fn lower_same_width(c: char) -> char {
    if !c.is_uppercase() {
        return c;
    }
    let mut lower = c.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(l), None) if l.len_utf8() == c.len_utf8() => l,
        _ => c,
    }
}

/// Go's `unicode.IsLetter` (categories L*) and `unicode.IsDigit` (Nd), which
/// are narrower than Rust's `is_alphabetic` and `is_numeric`, and know the
/// characters of Unicode 15 only.
trait Categories {
    fn in_letters(self) -> bool;
    fn in_digits(self) -> bool;
}

impl Categories for char {
    fn in_letters(self) -> bool {
        if self.is_ascii() {
            return self.is_ascii_alphabetic();
        }
        self.is_alphabetic() && letters().is_match(self.encode_utf8(&mut [0; 4]))
    }
    fn in_digits(self) -> bool {
        if self.is_ascii() {
            return self.is_ascii_digit();
        }
        self.is_numeric() && digits().is_match(self.encode_utf8(&mut [0; 4]))
    }
}

fn letters() -> &'static regex::Regex {
    static SET: std::sync::OnceLock<regex::Regex> = std::sync::OnceLock::new();
    SET.get_or_init(|| fixed(r"^[\p{L}&&\p{Age=15.0}]"))
}

fn digits() -> &'static regex::Regex {
    static SET: std::sync::OnceLock<regex::Regex> = std::sync::OnceLock::new();
    SET.get_or_init(|| fixed(r"^[\p{Nd}&&\p{Age=15.0}]"))
}

#[allow(clippy::panic)] // a constant of this file; the tests run it
fn fixed(pattern: &str) -> regex::Regex {
    regex::Regex::new(pattern).unwrap_or_else(|e| panic!("{e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_told_to_be_normal_stays_as_it_is(text in "([a-zA-Z0-9_.:/ é-]|__|\\._){0,60}|[a-z]{90,110}") {
            if is_normal_service(text.as_bytes()) {
                prop_assert_eq!(normalize_service(&text, "go"), (Cow::Borrowed(&*text), None));
                prop_assert_eq!(normalize_tag_value(&text), Cow::Borrowed(&*text));
            }
            if is_normal_name(text.as_bytes()) {
                prop_assert_eq!(normalize_name(&text), (Cow::Borrowed(&*text), None));
            }
        }
    }

    #[test]
    fn most_names_are_told_to_be_normal() {
        for service in ["web", "checkout-api", "db.postgres_1", "9lives"] {
            assert!(is_normal_service(service.as_bytes()), "{service}");
        }
        for name in ["web.request", "postgres_query", "Http.Server9"] {
            assert!(is_normal_name(name.as_bytes()), "{name}");
        }
    }
}
