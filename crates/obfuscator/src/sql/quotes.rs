//! Where a double-quoted text is a value and not a name, and whether a
//! backslash before a quote escapes it. Both are open questions in SQL unless
//! the product is known; the answers here are the cautious ones.

use super::token::Kind;

/// Follows a statement and tells whether the place just reached holds values:
/// inside `VALUES ( … )` and inside the arguments of `CALL p( … )` and
/// `EXEC p …`. A query nested there ends it, since names stand in it.
#[derive(Default)]
pub(super) struct ValuePlaces {
    state: State,
    depth: usize,
    after_dot: bool,
    /// The last thing of a procedure's name was a name (and not a dot).
    named: bool,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum State {
    #[default]
    Names,
    /// After VALUES: a list may follow.
    List,
    /// Inside a list.
    Values,
    /// After CALL or EXEC: the procedure's name follows.
    Procedure { call: bool },
    /// After `EXEC name`: arguments up to the semicolon.
    Arguments,
}

impl ValuePlaces {
    /// An unquoted word.
    pub(super) fn word(&mut self, text: &str) {
        let is = |word: &str| text.eq_ignore_ascii_case(word);
        let first = text.as_bytes().first().map_or(0, |b| b | 0x20);
        match self.state {
            State::Values => {}
            State::Procedure { call } => {
                if self.named && !self.after_dot && !call {
                    self.state = State::Arguments;
                } else {
                    self.named = !text.ends_with('.');
                }
            }
            State::Arguments => {}
            State::Names | State::List => {
                self.state = match first {
                    b'v' if is("values") || is("value") => State::List,
                    b'c' if is("call") => State::Procedure { call: true },
                    b'e' if is("exec") || is("execute") => State::Procedure { call: false },
                    _ => State::Names,
                };
                self.named = false;
            }
        }
        self.after_dot = text.ends_with('.');
    }

    /// Any other token.
    pub(super) fn kind(&mut self, kind: Kind) {
        match (self.state, kind) {
            (_, Kind::Comment) => return,
            (_, Kind::Semicolon) => self.state = State::Names,
            (State::List, Kind::Open) | (State::Procedure { call: true }, Kind::Open) => {
                self.state = State::Values;
                self.depth = 1;
            }
            (State::Values, Kind::Open) => self.depth += 1,
            (State::Values, Kind::Close) => {
                self.depth -= 1;
                if self.depth == 0 {
                    self.state = State::List;
                }
            }
            (State::List, Kind::Comma) => {}
            // `EXEC @result = name …`
            (State::Procedure { .. }, Kind::Equals) => self.named = false,
            (State::Procedure { .. }, Kind::Dot | Kind::BracketOpen | Kind::BracketClose) => {}
            (State::Procedure { call: false }, _) if self.named => self.state = State::Arguments,
            (State::Procedure { .. } | State::List, _)
            | (State::Values | State::Arguments, Kind::Select | Kind::Update | Kind::Delete) => {
                self.state = State::Names;
            }
            _ => {}
        }
        self.after_dot = kind == Kind::Dot;
    }

    /// A double-quoted text; tells whether it is a value here. `dotted`: a
    /// point follows, so that it is part of a name.
    pub(super) fn quoted(&mut self, dotted: bool) -> bool {
        let part_of_name = dotted || self.after_dot;
        self.after_dot = false;
        match self.state {
            State::Values | State::Arguments => !part_of_name,
            State::Procedure { call } => {
                let named = std::mem::replace(&mut self.named, true);
                if named && !part_of_name && !call {
                    self.state = State::Arguments;
                    return true;
                }
                false
            }
            _ => {
                self.state = State::Names;
                false
            }
        }
    }
}

/// Words that may follow a string literal.
const AFTER_STRING: &[&str] = &[
    "and",
    "or",
    "as",
    "from",
    "where",
    "order",
    "group",
    "having",
    "limit",
    "offset",
    "union",
    "in",
    "is",
    "not",
    "like",
    "ilike",
    "between",
    "then",
    "else",
    "when",
    "end",
    "on",
    "using",
    "set",
    "values",
    "escape",
    "collate",
    "join",
    "left",
    "right",
    "inner",
    "cross",
    "full",
    "asc",
    "desc",
    "returning",
    "for",
    "rlike",
    "regexp",
    "similar",
    "into",
    "with",
    "at",
    "over",
    "go",
    "begin",
    "commit",
    "select",
    "insert",
    "update",
    "delete",
    "except",
    "intersect",
    "window",
    "fetch",
    "div",
    "mod",
    "xor",
    "start",
    "connect",
    "qualify",
    "option",
    "minus",
    "natural",
];

/// Whether reading backslashes as ordinary characters makes sense of `text`:
/// every string closes, none is glued to a word, and after a string whose last
/// character is a backslash comes what may follow a literal. A text cut in the
/// middle of a string passes none of this, and that is the point: with the
/// wrong reading, strings and the text between them change places.
pub(super) fn literal_backslashes_plausible(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut pos = 0;
    while let Some(open) = next_string(bytes, pos) {
        if open > 0 && is_word_byte(bytes[open - 1]) && !has_prefix(&bytes[..open]) {
            return false;
        }
        let mut end = open + 1;
        loop {
            let Some(skip) = memchr::memchr(b'\'', &bytes[end..]) else { return false };
            end += skip + 1;
            if bytes.get(end) != Some(&b'\'') {
                break;
            }
            end += 1;
        }
        if bytes.get(end).copied().is_some_and(is_word_byte) {
            return false;
        }
        if bytes[end - 2] == b'\\' && end - 2 > open && !may_follow_string(text[end..].trim_start()) {
            return false;
        }
        pos = end;
    }
    true
}

/// Where the next string begins, comments and quoted names skipped.
fn next_string(bytes: &[u8], mut pos: usize) -> Option<usize> {
    loop {
        let rest = &bytes[pos..];
        let at = rest.iter().position(|b| matches!(b, b'\'' | b'"' | b'`' | b'-' | b'/'))?;
        let inner = &rest[at + 1..];
        let skip = match (rest[at], inner.first()) {
            (b'\'', _) => return Some(pos + at),
            (quote @ (b'"' | b'`'), _) => memchr::memchr(quote, inner).map_or(inner.len(), |end| end + 1),
            (b'-', Some(b'-')) => memchr::memchr(b'\n', inner).unwrap_or(inner.len()),
            (b'/', Some(b'*')) => memchr::memmem::find(&inner[1..], b"*/").map_or(inner.len(), |end| end + 3),
            _ => 0,
        };
        pos += at + 1 + skip;
    }
}

fn is_word_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80
}

/// `N'…'`, `E'…'`, `_utf8'…'` and the like.
fn has_prefix(before: &[u8]) -> bool {
    let word = before.iter().rev().take_while(|&&b| is_word_byte(b)).count();
    let word = &before[before.len() - word..];
    word.first() == Some(&b'_')
        || ["n", "e", "x", "b", "r", "q", "nq"].iter().any(|p| word.eq_ignore_ascii_case(p.as_bytes()))
}

fn may_follow_string(rest: &str) -> bool {
    let Some(first) = rest.bytes().next() else { return true };
    if !is_word_byte(first) {
        return first != b'\\';
    }
    let word = rest.bytes().take_while(|&b| is_word_byte(b)).count();
    AFTER_STRING.iter().any(|known| rest[..word].eq_ignore_ascii_case(known))
}
