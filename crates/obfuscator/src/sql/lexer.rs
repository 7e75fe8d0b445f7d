//! The lexer of the `normalize_only`, `obfuscate_only` and
//! `obfuscate_and_normalize` modes. Rules: `go-sqllexer:sqllexer.go` (v0.2.2).
//!
//! It never fails. Where the reference emits the rest of a broken statement as
//! an error token, this one emits [`Kind::Broken`], so that the caller can
//! hide it.

use memchr::{memchr, memchr2, memmem};

use super::words;
use crate::chars;
use crate::config::Dbms;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Space,
    String,
    /// A string without end.
    OpenString,
    Number,
    Ident,
    QuotedIdent,
    Operator,
    Wildcard,
    Comment,
    Punctuation,
    DollarFunction,
    DollarString,
    Positional,
    Bind,
    Function,
    SystemVariable,
    Unknown,
    Command,
    Keyword,
    JsonOperator,
    Boolean,
    Null,
    Procedure,
    Cte,
    Alias,
    /// A quoted name or comment without end: everything up to the end of the text.
    Broken,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
    /// A table name follows.
    pub(super) before_table: bool,
    /// A quoted name that would need no quotes.
    pub(super) simple: bool,
    /// A string whose closing quote would be another one if backslashes were
    /// ordinary characters.
    pub(super) ambiguous: bool,
}

/// After this many `$` that open nothing, the rest of a statement is taken as
/// broken: each of them costs a search to the end.
const MAX_STRAY_DOLLARS: u32 = 32;

pub(super) struct Lexer<'a> {
    src: &'a str,
    bytes: &'a [u8],
    pos: usize,
    dbms: Dbms,
    /// Nothing is to be hidden: broken ends are printed as they are.
    open: bool,
    /// After `FROM`, `SELECT`, `AS`, a point and the like: a name follows, not a value.
    in_name_place: bool,
    /// Since such a place nothing but names came: after a comma, another follows.
    in_names: bool,
    stray_dollars: u32,
}

fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\n' | b'\r')
}

fn is_letter(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || (!c.is_ascii() && chars::is_letter(c))
}

fn is_alphanumeric(c: char) -> bool {
    is_letter(c) || c.is_ascii_digit() || (!c.is_ascii() && chars::is_number(c))
}

fn is_operator(b: u8) -> bool {
    b"+-*/=<>!&|^%~?@:#".contains(&b)
}

fn is_punctuation(b: u8) -> bool {
    b"(),;.:[]{}".contains(&b)
}

fn in_identifier(c: char) -> bool {
    matches!(c, '"' | '.' | '?' | '$' | '#' | '/' | '@' | '!') || is_letter(c) || c.is_ascii_digit()
}

impl<'a> Lexer<'a> {
    /// `open`: literals are shown anyway.
    pub(super) fn new(src: &'a str, dbms: Dbms, open: bool) -> Self {
        // A NUL is the end of text to the reference; what follows is not shown.
        let src = memchr(0, src.as_bytes()).map_or(src, |end| &src[..end]);
        Self {
            src,
            bytes: src.as_bytes(),
            pos: 0,
            dbms,
            open,
            in_name_place: false,
            in_names: false,
            stray_dollars: 0,
        }
    }

    /// What has not been read yet.
    pub(super) fn rest(&self) -> &'a str {
        &self.src[self.pos..]
    }

    /// Offset of the next token.
    pub(super) fn position(&self) -> usize {
        self.pos
    }

    fn at(&self, ahead: usize) -> u8 {
        self.bytes.get(self.pos + ahead).copied().unwrap_or(0)
    }

    fn char_at(&self, ahead: usize) -> Option<char> {
        match self.bytes.get(self.pos + ahead) {
            Some(&b) if b < 0x80 => Some(b as char),
            Some(_) => self.src.get(self.pos + ahead..)?.chars().next(),
            None => None,
        }
    }

    fn skip_while(&mut self, accepts: impl Fn(char) -> bool) {
        while let Some(c) = self.char_at(0).filter(|&c| accepts(c)) {
            self.pos += c.len_utf8();
        }
    }

    fn skip_bytes(&mut self, accepts: impl Fn(u8) -> bool) {
        let run = self.bytes[self.pos..].iter().take_while(|&&b| accepts(b)).count();
        self.pos += run;
    }

    /// The next token, or `None` at the end.
    pub(super) fn next(&mut self) -> Option<Token<'a>> {
        let start = self.pos;
        let first = self.char_at(0)?;
        let mut token =
            Token { kind: Kind::Unknown, text: "", before_table: false, simple: false, ambiguous: false };
        token.kind = if is_letter(first) {
            let (kind, before_table) = self.word();
            token.before_table = before_table;
            kind
        } else if !first.is_ascii() {
            self.pos += first.len_utf8();
            Kind::Unknown
        } else {
            self.symbol(first as u8, &mut token)
        };
        token.text = &self.src[start..self.pos];
        if !matches!(token.kind, Kind::Space | Kind::Comment) {
            self.follow_names(&token);
        }
        Some(token)
    }

    /// Keeps `in_name_place` and `in_names`.
    fn follow_names(&mut self, token: &Token<'a>) {
        let list = token.text == ",";
        let name = matches!(token.kind, Kind::Ident | Kind::QuotedIdent | Kind::Wildcard);
        let opens = token.before_table
            || matches!(token.kind, Kind::Command | Kind::Alias)
            || token.text.ends_with('.')
            || (token.kind == Kind::Keyword && words::opens_names(token.text));
        self.in_name_place = opens || (list && self.in_names);
        self.in_names = opens || (self.in_names && (list || name));
    }

    fn symbol(&mut self, first: u8, token: &mut Token<'a>) -> Kind {
        let next = self.at(1);
        let next_alphanumeric = || self.char_at(1).is_some_and(is_alphanumeric);
        match first {
            b if is_space(b) => {
                self.skip_bytes(is_space);
                Kind::Space
            }
            b'"' if self.dbms == Dbms::MySql => self.string(b'"', &mut token.ambiguous),
            b'"' => self.quoted_name(b'"', b'"', &mut token.simple),
            b'\'' => self.string(b'\'', &mut token.ambiguous),
            b'-' if next == b'-' => self.line_comment(2),
            b'/' if next == b'*' => self.block_comment(),
            b'+' | b'-' if next.is_ascii_digit() || next == b'.' => {
                self.pos += 1;
                self.decimal();
                Kind::Number
            }
            b'0'..=b'9' => self.number(),
            b'*' => self.one(Kind::Wildcard),
            b'$' => self.dollar(),
            b':' if self.dbms == Dbms::Oracle && next_alphanumeric() => self.bind(),
            b'`' if self.dbms == Dbms::MySql => self.quoted_name(b'`', b'`', &mut token.simple),
            b'#' if self.dbms == Dbms::SqlServer => self.word().0,
            b'#' if self.dbms == Dbms::MySql => self.line_comment(1),
            b'@' => self.at_sign(),
            b'[' if self.dbms == Dbms::SqlServer => self.quoted_name(b'[', b']', &mut token.simple),
            b if is_operator(b) => self.operator(b),
            b if is_punctuation(b) => self.one(Kind::Punctuation),
            _ => self.one(Kind::Unknown),
        }
    }

    fn one(&mut self, kind: Kind) -> Kind {
        self.pos += 1;
        kind
    }

    fn word(&mut self) -> (Kind, bool) {
        let start = self.pos;
        if self.at(0) >= 0x80 {
            // The reference knows functions by ASCII names only.
            self.skip_while(in_identifier);
            return (Kind::Ident, false);
        }
        self.skip_bytes(|b| b.is_ascii_alphabetic() || b == b'_');
        if self.pos > start {
            let next = self.at(0);
            let ends = self.pos == self.bytes.len()
                || is_punctuation(next)
                || is_space(next)
                || (next == b'/' && self.at(1) == b'*');
            if ends && let Some(found) = words::lookup(&self.src[start..self.pos]) {
                return found;
            }
        }
        self.skip_while(in_identifier);
        if self.pos == start {
            // A sign that begins a name only together with something else.
            self.pos += 1;
        }
        if self.at(0) == b'(' { (Kind::Function, false) } else { (Kind::Ident, false) }
    }

    fn number(&mut self) -> Kind {
        let next = self.at(1);
        if self.at(0) == b'0' && matches!(next, b'x' | b'X') {
            self.pos += 2;
            self.skip_bytes(|b| b.is_ascii_hexdigit());
        } else if self.at(0) == b'0' && matches!(next, b'0'..=b'7') {
            self.pos += 2;
            self.skip_bytes(|b| matches!(b, b'0'..=b'7'));
        } else {
            self.pos += 1;
            self.decimal();
        }
        Kind::Number
    }

    fn decimal(&mut self) {
        loop {
            match self.at(0) {
                b'0'..=b'9' | b'.' => self.pos += 1,
                b'e' | b'E' => {
                    self.pos += 1;
                    if matches!(self.at(0), b'+' | b'-') {
                        self.pos += 1;
                    }
                }
                _ => return,
            }
        }
    }

    fn string(&mut self, delimiter: u8, ambiguous: &mut bool) -> Kind {
        self.pos += 1;
        loop {
            let Some(skip) = memchr2(delimiter, b'\\', &self.bytes[self.pos..]) else {
                self.pos = self.bytes.len();
                return Kind::OpenString;
            };
            self.pos += skip + 1;
            if self.bytes[self.pos - 1] == delimiter {
                return Kind::String;
            }
            // A word right behind it cannot follow a string that ends here.
            let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80;
            *ambiguous |= self.at(0) == delimiter && !word(self.at(1));
            self.pos += self.char_at(0).map_or(0, char::len_utf8);
        }
    }

    fn quoted_name(&mut self, open: u8, close: u8, simple: &mut bool) -> Kind {
        let start = self.pos + 1;
        self.pos = start;
        loop {
            let Some(skip) = memchr(close, &self.bytes[self.pos..]) else {
                self.pos = start - 1;
                let name = self.in_name_place && self.harmless();
                self.pos = self.bytes.len();
                return if name { Kind::Unknown } else { Kind::Broken };
            };
            let end = self.pos + skip;
            // `"a"."b"` is one name.
            if self.bytes.get(end + 1) == Some(&b'.') && self.bytes.get(end + 2) == Some(&open) {
                self.pos = end + 3;
                continue;
            }
            let mut content = self.src[start..end].chars();
            *simple = content.next().is_some_and(is_letter) && content.all(is_alphanumeric);
            self.pos = end + 1;
            return Kind::QuotedIdent;
        }
    }

    fn line_comment(&mut self, skip: usize) -> Kind {
        self.pos += skip;
        self.pos += memchr(b'\n', &self.bytes[self.pos..]).unwrap_or(self.bytes.len() - self.pos);
        Kind::Comment
    }

    fn block_comment(&mut self) -> Kind {
        match memmem::find(&self.bytes[self.pos + 2..], b"*/") {
            Some(end) => {
                self.pos += end + 4;
                Kind::Comment
            }
            None => {
                let kind = if self.harmless() { Kind::Unknown } else { Kind::Broken };
                self.pos = self.bytes.len();
                kind
            }
        }
    }

    /// `$1`, a SQL Server name, a dollar-quoted string, or a stray sign.
    fn dollar(&mut self) -> Kind {
        let next = self.char_at(1);
        if next.is_some_and(|c| c.is_ascii_digit()) {
            self.pos += 1;
            self.skip_bytes(|b| b.is_ascii_digit());
            return Kind::Positional;
        }
        if self.dbms == Dbms::SqlServer && next.is_some_and(is_letter) {
            return self.word().0;
        }
        let rest = &self.bytes[self.pos..];
        if let Some(end) = memchr(b'$', &rest[1..]) {
            let tag = &rest[..end + 2];
            if let Some(close) = memmem::find(&rest[tag.len()..], tag) {
                self.pos += close + 2 * tag.len();
                return if tag == b"$func$" { Kind::DollarFunction } else { Kind::DollarString };
            }
            // A real tag: the string was cut. Right behind the tag nothing is hidden.
            if rest.len() == tag.len() {
                self.pos = self.bytes.len();
                return Kind::Unknown;
            }
            if tag.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$')) && tag != b"$func$"
            {
                self.pos = self.bytes.len();
                return Kind::Broken;
            }
        }
        // The reference gives the rest up as an error token and prints it.
        if self.open || (self.stray_dollars == 0 && self.harmless()) {
            self.pos = self.bytes.len();
            return Kind::Unknown;
        }
        self.stray_dollars += 1;
        if self.stray_dollars > MAX_STRAY_DOLLARS {
            self.pos = self.bytes.len();
            return Kind::Broken;
        }
        self.pos += if next == Some('?') { 2 } else { 1 };
        Kind::Unknown
    }

    /// Whether what is left holds nothing to hide: no string, and no number
    /// beyond two digits.
    fn harmless(&self) -> bool {
        let rest = &self.bytes[self.pos..];
        if memchr2(b'\'', b'\\', rest).is_some() {
            return false;
        }
        let quotes = memchr(b'"', rest).is_some();
        let values = |word: &[u8]| {
            [&b"values"[..], b"value", b"call", b"exec", b"execute"]
                .iter()
                .any(|w| word.eq_ignore_ascii_case(w))
        };
        let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_' || *b >= 0x80;
        if quotes && (self.dbms == Dbms::MySql || self.bytes.split(|b| !word(b)).any(values)) {
            return false;
        }
        let part = |b: &u8| word(b) || *b == b'.';
        let number = |run: &[u8]| run.iter().find(|b| **b != b'.').is_some_and(u8::is_ascii_digit);
        rest.split(|b| !part(b)).all(|run| run.len() <= 2 || !number(run))
    }

    fn bind(&mut self) -> Kind {
        self.pos += 1;
        self.skip_while(is_alphanumeric);
        Kind::Bind
    }

    fn at_sign(&mut self) -> Kind {
        let alphanumeric = |lexer: &Self, ahead| lexer.char_at(ahead).is_some_and(is_alphanumeric);
        match self.at(1) {
            b'@' => {
                self.pos += 2;
                if !alphanumeric(self, 0) {
                    return Kind::JsonOperator;
                }
                self.skip_while(is_alphanumeric);
                Kind::SystemVariable
            }
            _ if alphanumeric(self, 1) => {
                if self.dbms == Dbms::Snowflake {
                    self.word().0
                } else {
                    self.bind()
                }
            }
            b'?' | b'>' => {
                self.pos += 2;
                Kind::JsonOperator
            }
            _ => self.operator(b'@'),
        }
    }

    fn operator(&mut self, first: u8) -> Kind {
        self.pos += 1;
        let json = match (first, self.at(0)) {
            (b'-' | b'#', b'>') => 1 + usize::from(self.at(1) == b'>'),
            (b'#', b'-') | (b'?', b'|' | b'&') | (b'<', b'@') => 1,
            _ => 0,
        };
        if json > 0 {
            self.pos += json;
            return Kind::JsonOperator;
        }
        let mut last = first;
        while is_operator(self.at(0)) && !(last == b'=' && matches!(self.at(0), b'?' | b'@')) {
            last = self.at(0);
            self.pos += 1;
        }
        Kind::Operator
    }
}
