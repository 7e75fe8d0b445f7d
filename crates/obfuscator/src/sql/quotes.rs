//! Where a double-quoted text is a value and not a name, and whether a
//! backslash before a quote escapes it. Both are open questions in SQL unless
//! the product is known; the answers here are the cautious ones.

use super::Options;
use super::filter::MAX_DEPTH;
use super::token::{Kind, Tokenizer};

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
    /// After `BY`, `AS` and `::`: a column or a type.
    name_next: bool,
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
    #[inline]
    pub(super) fn word(&mut self, text: &[u8]) {
        let first = text.first().map_or(0, |b| b | 0x20);
        if self.state == State::Names && !matches!(first, b'v' | b'c' | b'e' | b'b' | b':') {
            // No word that matters: nearly all of them.
            self.name_next = false;
            self.after_dot = text.last() == Some(&b'.');
            return;
        }
        self.word_of_weight(text, first);
    }

    fn word_of_weight(&mut self, text: &[u8], first: u8) {
        let is = |word: &str| text.eq_ignore_ascii_case(word.as_bytes());
        self.name_next = text == b"::" || (first == b'b' && is("by"));
        match self.state {
            State::Values => {}
            State::Procedure { call } => {
                if self.named && !self.after_dot && !call {
                    self.state = State::Arguments;
                } else {
                    self.named = text.last() != Some(&b'.');
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
        self.after_dot = text.last() == Some(&b'.');
    }

    /// Whether literals and the commas between them change nothing here.
    #[inline]
    pub(super) fn takes_any_value(&self) -> bool {
        matches!(self.state, State::Names | State::Values | State::Arguments)
    }

    /// Any other token.
    #[inline]
    pub(super) fn kind(&mut self, kind: Kind) {
        if self.state == State::Names {
            if kind != Kind::Comment {
                self.name_next = kind == Kind::As;
                self.after_dot = kind == Kind::Dot;
            }
            return;
        }
        self.kind_of_weight(kind);
    }

    fn kind_of_weight(&mut self, kind: Kind) {
        if kind != Kind::Comment {
            self.name_next = kind == Kind::As;
        }
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
        let name_next = std::mem::take(&mut self.name_next);
        let part_of_name = dotted || self.after_dot || name_next;
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
    "isnull",
    "notnull",
    "pivot",
    "unpivot",
    "straight_join",
    "glob",
    "match",
    "overlaps",
    "lock",
];

/// Whether reading backslashes as ordinary characters makes sense of `text`.
/// Up to the first string that an escape would end elsewhere, both readings
/// agree. From there on no string may be glued to a word, and after every such
/// string must come what may follow a literal. A text cut in the middle of
/// a string passes none of this, and that is the point: with the wrong reading,
/// strings and the text between them change places.
pub(super) fn literal_backslashes_plausible(text: &str, options: Options<'_>, depth: u32) -> bool {
    let mut tokens = Tokenizer::new(text, options.dbms, options.config.dollar_quoted_func, true);
    let mut in_doubt = false;
    loop {
        let kind = match tokens.next() {
            Ok(Some(kind)) => kind,
            Ok(None) => return true,
            Err(_) => return false,
        };
        if kind == Kind::Func {
            // A body deeper than this is not shown.
            if depth < MAX_DEPTH && !literal_backslashes_plausible(tokens.text(), options, depth + 1) {
                return false;
            }
            continue;
        }
        let Some(string) = tokens.string() else { continue };
        let (before, after) = (&text[..string.start], &text[string.end..]);
        if in_doubt && before.ends_with(is_word) && !has_prefix(before.as_bytes()) {
            return false;
        }
        let doubtful = ends_elsewhere(&text[string.start + 1..string.end - 1]);
        in_doubt |= doubtful;
        if in_doubt && after.starts_with(is_word) {
            return false;
        }
        if doubtful && !may_follow_string(after.trim_start()) {
            return false;
        }
    }
}

/// Whether a string with this content would end elsewhere if the backslash was
/// an escape: an odd number of them stands before its end or a doubled quote.
fn ends_elsewhere(content: &str) -> bool {
    let odd = |end: usize| {
        let run = content.as_bytes()[..end].iter().rev().take_while(|&&b| b == b'\\').count();
        run % 2 == 1
    };
    odd(content.len()) || content.match_indices("''").any(|(at, _)| odd(at))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
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
    let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
    match end {
        0 => !rest.starts_with('\\'),
        _ => AFTER_STRING.iter().any(|known| rest[..end].eq_ignore_ascii_case(known)),
    }
}
