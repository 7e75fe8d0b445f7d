//! The built-in tokenizer: what the Agent uses unless a lexer mode is set.
//! Rules: `datadog-agent:pkg/obfuscate/sql_tokenizer.go`.

use std::ops::Range;

use memchr::{memchr, memchr2, memmem};

use super::SqlError;
use crate::chars;
use crate::config::Dbms;
use crate::eight::{Eight, run_end};

/// Kinds the filters tell apart. Everything else is [`Kind::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing yet.
    Start,
    Id,
    /// A table name that was collected.
    Table,
    /// A literal or a placeholder: becomes `?`.
    Literal,
    DoubleQuoted,
    /// SQL Server's `[name]`: treated as a double-quoted text, but never a value
    /// by its place.
    Bracketed,
    /// A `$func$ … $func$` body, to be obfuscated on its own.
    Func,
    Comment,
    Savepoint,
    As,
    Select,
    Update,
    Delete,
    From,
    Into,
    Join,
    Open,
    Close,
    BracketOpen,
    BracketClose,
    Comma,
    Semicolon,
    Equals,
    Colon,
    Dot,
    /// The bare `?`.
    Question,
    Other,
    // Set by the filters only.
    /// Removed, or replaced by `?`; may merge with its neighbours.
    Groupable,
    /// The same for an opening parenthesis.
    GroupableOpen,
    /// Removed.
    Filtered,
    /// Removed as part of a bracketed alias.
    FilteredBracket,
}

/// Splits a statement into tokens. Linear; allocates only for quoted
/// identifiers that contain escapes.
pub(super) struct Tokenizer<'a> {
    src: &'a str,
    bytes: &'a [u8],
    pos: usize,
    /// Open `{` of a statement that begins with one.
    curlys: u32,
    /// A backslash in a string stands for itself.
    literal_escapes: bool,
    /// A string contained a backslash.
    pub(super) saw_backslash: bool,
    dbms: Dbms,
    dollar_func: bool,
    /// Where the text of the last token lies in the statement, unless it had
    /// escapes to undo: then it is in `unescaped`. Kept here and not handed out
    /// with the kind, since moving that about costs as much as the tokenizing.
    text: Range<usize>,
    text_is_unescaped: bool,
    unescaped: String,
}

/// Classes of bytes, in one look-up: what may stand inside a name, and what a
/// byte at the front of a token says about it.
const IN_NAME: u8 = 1;
const BLANK: u8 = 2;
/// Begins a name.
const LETTER: u8 = 4;
const DIGIT: u8 = 8;
/// A token of its own, whatever follows.
const SIGN: u8 = 16;
const CLASS: [u8; 256] = {
    let mut class = [0; 256];
    let mut b = 0;
    while b < 128 {
        let c = b as u8;
        class[b] = match c {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => IN_NAME | LETTER,
            b'0'..=b'9' => IN_NAME | DIGIT,
            b'@' | b'#' | b'.' | b'$' => IN_NAME,
            b'*' => IN_NAME | SIGN,
            b'(' | b')' | b',' | b';' | b'=' | b']' | b'+' | b'&' | b'|' | b'^' => SIGN,
            b' ' | 9..=13 => BLANK,
            _ => 0,
        };
        b += 1;
    }
    class
};

fn is_class(b: u8, class: u8) -> bool {
    CLASS[usize::from(b)] & class != 0
}

/// Where the run of [`IN_NAME`] ends that begins at `at`.
#[inline]
fn name_end(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() && is_class(bytes[at], IN_NAME) {
        at += 1;
    }
    at
}

/// The kind of a [`SIGN`].
const fn sign(b: u8) -> Kind {
    match b {
        b'(' => Kind::Open,
        b')' => Kind::Close,
        b',' => Kind::Comma,
        b';' => Kind::Semicolon,
        b'=' => Kind::Equals,
        b']' => Kind::BracketClose,
        _ => Kind::Other,
    }
}

fn is_leading(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || c == '@' || (!c.is_ascii() && chars::is_letter(c))
}

fn is_word(c: char) -> bool {
    is_leading(c) || c == '#'
}

const KEYWORDS: [(&str, Kind); 21] = [
    ("as", Kind::As),
    ("null", Kind::Literal),
    ("true", Kind::Literal),
    ("drop", Kind::Other),
    ("from", Kind::From),
    ("into", Kind::Into),
    ("join", Kind::Join),
    ("false", Kind::Literal),
    ("limit", Kind::Other),
    ("alter", Kind::Other),
    ("grant", Kind::Other),
    ("begin", Kind::Other),
    ("create", Kind::Other),
    ("commit", Kind::Other),
    ("revoke", Kind::Other),
    ("select", Kind::Select),
    ("update", Kind::Update),
    ("delete", Kind::Delete),
    ("insert", Kind::Other),
    ("truncate", Kind::Other),
    ("savepoin", Kind::Savepoint),
];

/// The keywords by [`slot`]; no two of them share one.
const SLOTS: [(u64, Kind); 32] = {
    let mut slots = [(0, Kind::Id); 32];
    let mut k = 0;
    while k < KEYWORDS.len() {
        let text = KEYWORDS[k].0.as_bytes();
        let mut word = 0;
        let mut at = 0;
        while at < text.len() {
            word |= (text[at] as u64) << (8 * at);
            at += 1;
        }
        assert!(slots[slot(word)].0 == 0);
        slots[slot(word)] = (word, KEYWORDS[k].1);
        k += 1;
    }
    slots
};

const fn slot(word: u64) -> usize {
    (word.wrapping_mul(0x791e_1681_d224_1499) >> 59) as usize
}

/// The kind of the word at `start..end`.
#[inline]
fn keyword(bytes: &[u8], start: usize, end: usize) -> Kind {
    let len = end - start;
    if len > 9 {
        return Kind::Id;
    }
    let word = Eight::load(bytes, start).lower(len);
    let (known, kind) = SLOTS[slot(word)];
    match kind {
        _ if known != word => Kind::Id,
        Kind::Savepoint if len < 9 || bytes[end - 1] | 0x20 != b't' => Kind::Id,
        Kind::Savepoint => kind,
        _ if len > 8 => Kind::Id,
        _ => kind,
    }
}

impl<'a> Tokenizer<'a> {
    pub(super) fn new(src: &'a str, dbms: Dbms, dollar_func: bool, literal_escapes: bool) -> Self {
        Self {
            src,
            bytes: src.as_bytes(),
            pos: 0,
            curlys: 0,
            literal_escapes,
            saw_backslash: false,
            dbms,
            dollar_func,
            text: 0..0,
            text_is_unescaped: false,
            unescaped: String::new(),
        }
    }

    /// The text of the last token as it would be printed.
    pub(super) fn text(&self) -> &str {
        if self.text_is_unescaped { &self.unescaped } else { &self.src[self.text.clone()] }
    }

    /// Where the text of the last token lies in the statement, unless it had
    /// escapes to undo.
    #[inline]
    pub(super) fn place(&self) -> Option<Range<usize>> {
        (!self.text_is_unescaped).then(|| self.text.clone())
    }

    /// The bytes of a place of the statement.
    #[inline]
    pub(super) fn bytes_at(&self, place: &Range<usize>) -> &'a [u8] {
        &self.bytes[place.clone()]
    }

    /// Where the last token stands, if it is a string in single quotes.
    pub(super) fn string(&self) -> Option<Range<usize>> {
        let whole = !self.text_is_unescaped && self.text.end == self.pos;
        (whole && self.bytes.get(self.text.start) == Some(&b'\'')).then(|| self.text.clone())
    }

    /// The next visible character after the current position, blanks skipped.
    pub(super) fn peek_visible(&self) -> Option<u8> {
        self.bytes[self.pos..].iter().copied().find(|b| !b.is_ascii_whitespace())
    }

    fn byte(&self) -> Option<u8> {
        self.bytes.get(self.pos).copied()
    }

    fn char(&self) -> Option<char> {
        match self.byte() {
            Some(b) if b < 0x80 => Some(b as char),
            Some(_) => self.src[self.pos..].chars().next(),
            None => None,
        }
    }

    /// The token that began at `start`, as it stands there.
    fn token(&mut self, kind: Kind, start: usize) -> Kind {
        self.text = start..self.pos;
        self.text_is_unescaped = false;
        kind
    }

    /// The kind of the next token, or `None` at the end.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Kind>, SqlError> {
        let bytes = self.bytes;
        let mut start = self.pos;
        while start < bytes.len() && is_class(bytes[start], BLANK) {
            start += 1;
        }
        let Some(&first) = bytes.get(start) else {
            self.pos = start;
            return Ok(None);
        };
        if is_class(first, LETTER) {
            self.pos = start + 1;
            return Ok(Some(self.identifier(start)));
        }
        if is_class(first, SIGN) {
            self.pos = start + 1;
            return Ok(Some(self.token(sign(first), start)));
        }
        if is_class(first, DIGIT) {
            self.pos = start;
            self.number(false);
            return Ok(Some(self.token(Kind::Literal, start)));
        }
        self.next_of_rest()
    }

    /// As [`Tokenizer::next`], for what does not begin with an ASCII letter, a
    /// digit or a plain sign.
    fn next_of_rest(&mut self) -> Result<Option<Kind>, SqlError> {
        // One NUL between tokens is a blank to the reference, except in front.
        if self.pos > 0 && self.byte() == Some(0) {
            self.pos += 1;
        }
        let first = loop {
            while self.byte().is_some_and(|b| is_class(b, BLANK)) {
                self.pos += 1;
            }
            match self.char() {
                None => return Ok(None),
                Some(c) if c.is_whitespace() => self.pos += c.len_utf8(),
                Some(c) => break c,
            }
        };
        let start = self.pos;
        if is_leading(first) && !(first == '@' && self.dbms == Dbms::Postgres) {
            return Ok(Some(self.identifier(start)));
        }
        if first.is_ascii_digit() {
            self.number(false);
            return Ok(Some(self.token(Kind::Literal, start)));
        }
        if !first.is_ascii() {
            return Err(SqlError::UnknownToken);
        }
        self.pos += 1;
        let next = self.byte();
        let postgres = self.dbms == Dbms::Postgres;
        let kind = match first {
            '(' | ')' | ',' | ';' | '=' | ']' | '+' | '*' | '&' | '|' | '^' => sign(first as u8),
            '\'' => {
                self.quoted(b'\'', false)?;
                Kind::Literal
            }
            '"' => {
                self.quoted(b'"', true)?;
                return Ok(Some(Kind::DoubleQuoted));
            }
            '`' => {
                self.quoted(b'`', true)?;
                return Ok(Some(Kind::Id));
            }
            '[' if self.dbms == Dbms::SqlServer => {
                self.quoted(b']', true)?;
                return Ok(Some(Kind::Bracketed));
            }
            '[' => Kind::BracketOpen,
            '?' if postgres => {
                if matches!(next, Some(b'|' | b'&')) {
                    self.pos += 1;
                }
                Kind::Other
            }
            '?' => Kind::Question,
            ':' => self.colon()?,
            '~' => {
                self.take(b'*');
                Kind::Other
            }
            '.' if next.is_some_and(|b| b.is_ascii_digit()) => {
                self.number(true);
                Kind::Literal
            }
            '.' => Kind::Dot,
            '/' => match next {
                Some(b'/') => self.line_comment(1),
                Some(b'*') => self.block_comment()?,
                _ => Kind::Other,
            },
            '-' => match next {
                Some(b'-') => self.line_comment(1),
                Some(b'>') if postgres => {
                    self.pos += 1;
                    self.take(b'>');
                    Kind::Other
                }
                // Elsewhere the minus counts as a number and the `>` follows.
                Some(b'>') => Kind::Literal,
                Some(b'0'..=b'9') => {
                    self.number(false);
                    Kind::Literal
                }
                Some(b'.') if self.bytes.get(self.pos + 1).is_some_and(u8::is_ascii_digit) => {
                    self.pos += 1;
                    self.number(true);
                    Kind::Literal
                }
                Some(b'.') => {
                    self.pos += 1;
                    Kind::Other
                }
                _ => Kind::Other,
            },
            '#' => match self.dbms {
                Dbms::SqlServer => {
                    // Whatever follows `#` begins the name, unless it begins a literal.
                    let next = self.char().filter(|c| !matches!(c, '\'' | '"' | '`' | '[' | '$' | '\\'));
                    self.pos += next.map_or(0, char::len_utf8);
                    return Ok(Some(self.identifier(start)));
                }
                Dbms::Postgres => {
                    if self.take(b'>') {
                        self.take(b'>');
                    } else {
                        self.take(b'-');
                    }
                    Kind::Other
                }
                // The reference skips the character after `#`, even a line break.
                _ => self.line_comment(self.char().map_or(0, char::len_utf8)),
            },
            '<' => {
                if self.take(b'=') {
                    self.take(b'>');
                } else if !self.take(b'>') && postgres {
                    self.take(b'@');
                }
                Kind::Other
            }
            '>' => {
                self.take(b'=');
                Kind::Other
            }
            '!' => {
                if self.take(b'~') {
                    self.take(b'*');
                } else if !self.take(b'=') && !self.char().is_some_and(may_follow_not) {
                    return Err(SqlError::UnknownToken);
                }
                Kind::Other
            }
            '%' => self.percent()?,
            '$' => return self.dollar(start).map(Some),
            '@' => {
                self.take(b'>');
                Kind::Other
            }
            '{' => {
                // A statement in braces is a call; anywhere else they hold a literal.
                if self.curlys > 0 || (start == 0 && next.is_none_or(|b| b < 0x80)) {
                    self.curlys += 1;
                    Kind::Other
                } else {
                    let end = memchr(b'}', &self.bytes[self.pos..]).ok_or(SqlError::Unterminated)?;
                    self.pos += end + 1;
                    Kind::Literal
                }
            }
            '}' if self.curlys > 0 => {
                self.curlys -= 1;
                Kind::Other
            }
            _ => return Err(SqlError::UnknownToken),
        };
        Ok(Some(self.token(kind, start)))
    }

    /// Behind a value of a list: skips the commas and values that follow, as
    /// far as these are plain numbers, strings without escapes and the like.
    /// What is left where it stops, [`Tokenizer::next`] reads.
    #[inline]
    pub(super) fn skip_values(&mut self) {
        while let Some(end) = self.value_after_comma() {
            self.pos = end;
        }
    }

    /// Where the value ends that follows the next comma.
    #[inline]
    fn value_after_comma(&self) -> Option<usize> {
        let comma = self.blanks_from(self.pos);
        if *self.bytes.get(comma)? != b',' {
            return None;
        }
        let start = self.blanks_from(comma + 1);
        let end = match *self.bytes.get(start)? {
            b'0'..=b'9' => self.digits_from(start),
            b'$' | b'-' => {
                let digits = self.digits_from(start + 1);
                (digits > start + 1).then_some(digits)?
            }
            b'?' if self.dbms != Dbms::Postgres => start + 1,
            b'\'' => {
                let end = start + 1 + memchr2(b'\'', b'\\', &self.bytes[start + 1..])?;
                if self.bytes[end] != b'\'' || self.bytes.get(end + 1) == Some(&b'\'') {
                    return None;
                }
                return Some(end + 1);
            }
            _ => return None,
        };
        // Anything else may belong to the number.
        matches!(self.bytes.get(end), Some(b',' | b')' | b' ' | b'\n')).then_some(end)
    }

    #[inline]
    fn blanks_from(&self, mut at: usize) -> usize {
        while self.bytes.get(at).is_some_and(|&b| is_class(b, BLANK)) {
            at += 1;
        }
        at
    }

    #[inline]
    fn digits_from(&self, at: usize) -> usize {
        run_end(self.bytes, at, |eight| eight.within(b'0', b'9'))
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.byte() == Some(byte);
        self.pos += usize::from(found);
        found
    }

    #[inline]
    fn identifier(&mut self, start: usize) -> Kind {
        loop {
            self.pos = name_end(self.bytes, self.pos);
            match self.byte() {
                Some(0x80..) => match self.char() {
                    Some(c) if chars::is_letter(c) => self.pos += c.len_utf8(),
                    _ => break,
                },
                _ => break,
            }
        }
        let kind = keyword(self.bytes, start, self.pos);
        self.token(kind, start)
    }

    fn digits(&mut self, accepts: fn(&u8) -> bool) {
        let run = self.bytes[self.pos..].iter().take_while(|b| accepts(b)).count();
        self.pos += run;
    }

    /// From the first digit, or from the first digit after the point.
    fn number(&mut self, after_point: bool) {
        if !after_point && self.byte() == Some(b'0') {
            self.pos += 1;
            if self.take(b'x') || self.take(b'X') {
                self.digits(u8::is_ascii_hexdigit);
                return;
            }
        }
        self.digits(u8::is_ascii_digit);
        if !after_point && self.take(b'.') {
            self.digits(u8::is_ascii_digit);
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits(u8::is_ascii_digit);
        }
    }

    fn line_comment(&mut self, skip: usize) -> Kind {
        self.pos += skip;
        self.pos += memchr(b'\n', &self.bytes[self.pos..]).map_or(self.bytes.len() - self.pos, |i| i + 1);
        Kind::Comment
    }

    fn block_comment(&mut self) -> Result<Kind, SqlError> {
        self.pos += 1;
        let end = memmem::find(&self.bytes[self.pos..], b"*/").ok_or(SqlError::Unterminated)?;
        self.pos += end + 2;
        Ok(Kind::Comment)
    }

    fn colon(&mut self) -> Result<Kind, SqlError> {
        match self.char() {
            Some(':') => {
                self.pos += 1;
                return Ok(Kind::Other);
            }
            // A range in an array slice, an assignment, or prose such as `autovacuum: …`.
            Some(']' | '$' | '=') => return Ok(Kind::Colon),
            Some(c) if c.is_whitespace() => return Ok(Kind::Colon),
            Some(c) if is_word(c) || c.is_ascii_digit() => {}
            _ => return Err(SqlError::UnknownToken),
        }
        while let Some(c) = self.char().filter(|&c| is_word(c) || c.is_ascii_digit() || c == '.') {
            self.pos += c.len_utf8();
        }
        Ok(Kind::Other)
    }

    fn percent(&mut self) -> Result<Kind, SqlError> {
        match self.char() {
            Some('(') => {
                let end = memchr(b')', &self.bytes[self.pos..]).ok_or(SqlError::Unterminated)?;
                self.pos += end + 1;
                let c = self.char().filter(|&c| is_word(c)).ok_or(SqlError::UnknownToken)?;
                self.pos += c.len_utf8();
                Ok(Kind::Literal)
            }
            Some(c) if is_word(c) => {
                self.pos += c.len_utf8();
                Ok(Kind::Literal)
            }
            _ => Ok(Kind::Other),
        }
    }

    /// After a `$`: a parameter, a dollar-quoted string, or (SQL Server) a name.
    fn dollar(&mut self, start: usize) -> Result<Kind, SqlError> {
        match self.char() {
            Some('?') => {
                self.pos += 1;
                return Ok(self.token(Kind::Literal, start));
            }
            Some('0'..='9') => {
                self.number(false);
                return Ok(self.token(Kind::Literal, start));
            }
            Some(c) if self.dbms == Dbms::SqlServer && is_word(c) => return Ok(self.identifier(start)),
            _ => {}
        }
        self.quoted(b'$', true)?;
        let tag = self.text();
        // A tag outside ASCII never matches in the reference either.
        if !tag.is_ascii() {
            return Err(SqlError::Unterminated);
        }
        let delimiter = if tag == "$$" { tag.to_owned() } else { format!("${tag}$") };
        let delimiter = delimiter.as_bytes();
        let body = self.pos;
        let mut got = 0;
        while self.pos < self.bytes.len() {
            if got == 0 {
                let Some(skip) = memchr(b'$', &self.bytes[self.pos..]) else { break };
                self.pos += skip;
            }
            // A partial match that fails is not looked at again: `$a$x$$a$` stays open.
            got = if self.bytes[self.pos] == delimiter[got] { got + 1 } else { 0 };
            self.pos += 1;
            if got == delimiter.len() {
                self.text = body..self.pos - got;
                self.text_is_unescaped = false;
                let func = self.dollar_func && delimiter == b"$func$";
                return Ok(if func { Kind::Func } else { Kind::Literal });
            }
        }
        Err(SqlError::Unterminated)
    }

    /// Reads a quoted text. If it is wanted, its content becomes the token's
    /// text: doubled delimiters and escapes undone, and the delimiters
    /// themselves where there is nothing but blanks, so that something is printed.
    fn quoted(&mut self, delimiter: u8, wanted: bool) -> Result<(), SqlError> {
        self.unescaped.clear();
        let mut from = self.pos;
        let end = loop {
            let Some(skip) = memchr2(delimiter, b'\\', &self.bytes[self.pos..]) else {
                self.pos = self.bytes.len();
                return Err(SqlError::Unterminated);
            };
            let at = self.pos + skip;
            let resume = if self.bytes[at] == delimiter {
                if self.bytes.get(at + 1) != Some(&delimiter) {
                    break at;
                }
                at + 1
            } else {
                self.saw_backslash = true;
                if self.literal_escapes {
                    self.pos = at + 1;
                    continue;
                }
                at + 1
            };
            let Some(c) = self.src[resume..].chars().next() else {
                return Err(SqlError::Unterminated);
            };
            if wanted {
                self.unescaped.push_str(&self.src[from..at]);
            }
            from = resume;
            self.pos = resume + c.len_utf8();
        };
        self.pos = end + 1;
        if !wanted {
            return Ok(());
        }
        self.text = from..end;
        self.text_is_unescaped = !self.unescaped.is_empty();
        let tail = &self.src[from..end];
        if self.text_is_unescaped {
            self.unescaped.push_str(tail);
        }
        if self.text().trim().is_empty() {
            self.unescaped.clear();
            self.unescaped.extend([delimiter as char; 2]);
            self.text_is_unescaped = true;
        }
        Ok(())
    }
}

fn may_follow_not(c: char) -> bool {
    matches!(c, '(' | '`' | '\'' | '"' | '+' | '-') || c.is_whitespace() || is_word(c) || c.is_ascii_digit()
}
