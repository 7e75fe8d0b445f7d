//! Regular expressions as the Agent's users write them: Go's dialect (RE2),
//! run by the linear-time `regex` crate.
//!
//! Differences that are translated: `\d`, `\w`, `\s`, `\b` are ASCII in Go; a
//! `{` that begins no repetition is a literal; inside a class, `[`, `&&`, `--`
//! and `~~` have no meaning; `\Q…\E` quotes.

use regex::{Regex, RegexBuilder};

/// Compiled size limit, so that a pattern cannot take unbounded memory.
const SIZE_LIMIT: usize = 10 << 20;

/// Compiles a Go pattern.
pub fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&translate(pattern)).size_limit(SIZE_LIMIT).build()
}

fn translate(pattern: &str) -> String {
    let chars: Vec<char> = pattern.chars().collect();
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut i = 0;
    let mut class = false;
    // Position just after `[` or `[^`, where `]` is a literal.
    let mut class_start = 0;
    while i < chars.len() {
        let c = chars[i];
        let next = chars.get(i + 1).copied();
        match (c, next) {
            ('\\', Some('Q')) if !class => {
                let rest: String = chars[i + 2..].iter().collect();
                let (quoted, used) = match rest.find("\\E") {
                    Some(end) => (rest[..end].to_owned(), rest[..end].chars().count() + 4),
                    None => (rest.clone(), rest.chars().count() + 2),
                };
                out.push_str(&regex::escape(&quoted));
                i += used;
                continue;
            }
            ('\\', Some(e @ ('p' | 'P' | 'x'))) if chars.get(i + 2) == Some(&'{') => {
                let end = chars[i..].iter().position(|c| *c == '}').map_or(chars.len(), |n| i + n + 1);
                out.push('\\');
                out.push(e);
                out.extend(&chars[i + 2..end]);
                i = end;
                continue;
            }
            ('\\', Some(e)) => {
                match (e, class) {
                    ('d', false) => out.push_str("[0-9]"),
                    ('D', false) => out.push_str("[^0-9]"),
                    ('w', false) => out.push_str("[0-9A-Za-z_]"),
                    ('W', false) => out.push_str("[^0-9A-Za-z_]"),
                    ('s', false) => out.push_str(r"[\t\n\f\r ]"),
                    ('S', false) => out.push_str(r"[^\t\n\f\r ]"),
                    ('b', false) => out.push_str(r"(?-u:\b)"),
                    // \B may match inside a character when Unicode is off; Go
                    // never does. The Unicode form is the closest.
                    ('d', true) => out.push_str("0-9"),
                    ('w', true) => out.push_str("0-9A-Za-z_"),
                    ('s', true) => out.push_str(r"\t\n\f\r "),
                    ('D', true) => out.push_str("[^0-9]"),
                    ('W', true) => out.push_str("[^0-9A-Za-z_]"),
                    ('S', true) => out.push_str(r"[^\t\n\f\r ]"),
                    // Go allows any escaped ASCII punctuation, and `_`.
                    (e, _) if e.is_ascii_punctuation() => {
                        if e == '_' {
                            out.push('_');
                        } else {
                            out.push('\\');
                            out.push(e);
                        }
                    }
                    _ => {
                        out.push('\\');
                        out.push(e);
                    }
                }
                i += 2;
                continue;
            }
            ('[', _) if !class => {
                class = true;
                out.push('[');
                i += 1;
                if chars.get(i) == Some(&'^') {
                    out.push('^');
                    i += 1;
                }
                class_start = i;
                continue;
            }
            (']', _) if class => {
                if i == class_start {
                    out.push_str(r"\]");
                } else {
                    class = false;
                    out.push(']');
                }
            }
            ('[', Some(':')) if class => {
                // A POSIX class such as [:alpha:] stays as it is.
                let rest: String = chars[i..].iter().collect();
                if let Some(end) = rest.find(":]") {
                    out.push_str(&rest[..end + 2]);
                    i += rest[..end + 2].chars().count();
                    continue;
                }
                out.push_str(r"\[");
            }
            ('[', _) if class => out.push_str(r"\["),
            ('&' | '~', _) if class => {
                out.push('\\');
                out.push(c);
            }
            ('-', Some('-')) if class => out.push_str(r"\-"),
            ('{', _) if !class && !is_repetition(&chars[i..]) => out.push_str(r"\{"),
            ('}', _) if !class && !closes_repetition(&chars[..i], &chars) => out.push_str(r"\}"),
            _ => out.push(c),
        }
        i += 1;
    }
    out
}

/// Whether the text begins with `{n}`, `{n,}` or `{n,m}`.
fn is_repetition(chars: &[char]) -> bool {
    let Some(end) = chars.iter().position(|c| *c == '}') else { return false };
    let body: String = chars[1..end].iter().collect();
    let number = |s: &str| !s.is_empty() && s.len() <= 4 && s.bytes().all(|b| b.is_ascii_digit());
    match body.split_once(',') {
        None => number(&body),
        Some((min, "")) => number(min),
        Some((min, max)) => number(min) && number(max),
    }
}

fn closes_repetition(before: &[char], all: &[char]) -> bool {
    before.iter().rposition(|c| *c == '{').is_some_and(|open| {
        is_repetition(&all[open..])
            || matches!(open.checked_sub(1).map(|p| all[p]), Some('p' | 'P' | 'x' | '$'))
    })
}

/// The literal texts that any match must contain at least one of are not known
/// in general; this tells only whether the pattern is one plain literal.
pub fn literal(pattern: &str) -> Option<&str> {
    (!pattern.is_empty() && regex::escape(pattern) == pattern).then_some(pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        compile(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}")).is_match(text)
    }

    #[test]
    fn gos_dialect_compiles_and_means_the_same() {
        assert!(matches("/users/{id}", "GET /users/{id}"));
        assert!(matches(r"\d{3,}$", "x123"));
        assert!(!matches(r"^\d$", "٣"), "digits are ASCII in Go");
        assert!(matches(r"[^[]", "a") && !matches(r"^[^[]$", "["));
        assert!(matches(r"[a&&b]", "&"));
        assert!(matches(r"\Qa.b\E+", "a.bb") && !matches(r"^\Qa.b\E$", "axb"));
        assert!(matches(r"[[:digit:]x]", "7"));
        assert!(matches(r"(?i)HEALTH", "health"));
        assert!(matches(r"\pL{2}", "äö") && matches(r"\p{Greek}", "λ") && matches(r"\x{41}", "A"));
        assert!(matches(r"[]a]", "]"));
        assert!(matches(r"a}b", "a}b"));
        assert!(compile("(").is_err());
    }
}
