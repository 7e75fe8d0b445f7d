//! Text to words.

use super::Mistake;
use crate::params::parse_go_duration;

/// One word of a query.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// An operator or a bracket.
    Sign(&'static str),
    /// A keyword or the name of an intrinsic, with its scope: `trace:id`.
    Word(String),
    /// An attribute: scope (empty: none was given) and name.
    Attr(String, String),
    Str(String),
    Int(i64),
    Float(f64),
    Duration(i64),
    End,
}

/// A word and where it begins, characters from 1.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub token: Token,
    pub at: usize,
}

/// Longer ones first.
const SIGNS: [&str; 36] = [
    "&>>", "&<<", "!>>", "!<<", "&>", "&<", "&~", "!>", "!<", "!~", "!=", "&&", "||", ">=", "<=", "=~", ">>",
    "<<", "=", ">", "<", "!", "~", "|", "{", "}", "(", ")", ",", "+", "-", "*", "/", "%", "^", ".",
];
const ATTRIBUTE_SCOPES: [&str; 6] = ["span", "resource", "event", "link", "instrumentation", "parent"];
const INTRINSIC_SCOPES: [&str; 5] = ["span", "trace", "event", "link", "instrumentation"];

/// Characters of an attribute's name outside of quotes.
fn in_attribute(c: char) -> bool {
    !c.is_whitespace() && !"{}()=~!<>&|^,\"".contains(c)
}

/// All words of a query, the end last.
pub(super) fn words(text: &str) -> Result<Vec<Word>, Mistake> {
    let mut lexer = Lexer { chars: text.chars().collect(), at: 0 };
    let mut out = Vec::new();
    loop {
        lexer.skip_space();
        let at = lexer.at + 1;
        let token = lexer.token()?;
        let end = token == Token::End;
        out.push(Word { token, at });
        if end {
            return Ok(out);
        }
    }
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn skip_space(&mut self) {
        while self.peek(0).is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    fn wrong<T>(&self, what: impl Into<String>) -> Result<T, Mistake> {
        Err(Mistake { text: what.into(), at: self.at + 1 })
    }

    fn token(&mut self) -> Result<Token, Mistake> {
        let Some(c) = self.peek(0) else { return Ok(Token::End) };
        if c == '"' || c == '`' {
            return Ok(Token::Str(self.quoted(c)?));
        }
        if c.is_ascii_digit() {
            return self.number();
        }
        if c == '.' && self.peek(1).is_some_and(|n| n == '"' || in_attribute(n)) {
            self.at += 1;
            return self.attribute("");
        }
        if c.is_alphabetic() || c == '_' {
            return self.word();
        }
        for sign in SIGNS {
            if sign.chars().enumerate().all(|(i, s)| self.peek(i) == Some(s)) {
                self.at += sign.len();
                return Ok(Token::Sign(sign));
            }
        }
        self.wrong(format!("unexpected character {c:?}"))
    }

    fn word(&mut self) -> Result<Token, Mistake> {
        let mut word = self.plain_word();
        match self.peek(0) {
            Some('.') if ATTRIBUTE_SCOPES.contains(&word.as_str()) => {
                self.at += 1;
                self.attribute(&word)
            }
            Some(':') if INTRINSIC_SCOPES.contains(&word.as_str()) => {
                self.at += 1;
                word.push(':');
                word.push_str(&self.plain_word());
                Ok(Token::Word(word))
            }
            _ => Ok(Token::Word(word)),
        }
    }

    fn plain_word(&mut self) -> String {
        let mut word = String::new();
        while let Some(c) = self.peek(0).filter(|c| c.is_alphanumeric() || *c == '_') {
            word.push(c);
            self.at += 1;
        }
        word
    }

    fn attribute(&mut self, scope: &str) -> Result<Token, Mistake> {
        let mut name = String::new();
        while let Some(c) = self.peek(0) {
            if c == '"' {
                name.push_str(&self.quoted(c)?);
            } else if in_attribute(c) {
                name.push(c);
                self.at += 1;
            } else {
                break;
            }
        }
        if name.is_empty() {
            return self.wrong("an attribute has no name");
        }
        Ok(Token::Attr(scope.to_owned(), name))
    }

    fn quoted(&mut self, quote: char) -> Result<String, Mistake> {
        self.at += 1;
        let mut out = String::new();
        while let Some(c) = self.peek(0) {
            self.at += 1;
            match c {
                _ if c == quote => return Ok(out),
                '\\' if quote == '"' => {
                    let Some(next) = self.peek(0) else { break };
                    self.at += 1;
                    out.push(match next {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        '"' | '\\' | '\'' => next,
                        _ => {
                            return self
                                .wrong(format!("unknown escape \\{next}; write \\\\ for a backslash"));
                        }
                    });
                }
                c => out.push(c),
            }
        }
        self.wrong("a text has no end")
    }

    fn number(&mut self) -> Result<Token, Mistake> {
        let from = self.at;
        let number = |c: char| c.is_ascii_digit() || c == '.';
        while self.peek(0).is_some_and(|c| number(c) || c.is_alphabetic()) {
            self.at += 1;
        }
        let text: String = self.chars[from..self.at].iter().collect();
        if let Ok(n) = text.parse::<i64>() {
            return Ok(Token::Int(n));
        }
        if let Some(n) = text.parse::<f64>().ok().filter(|n| n.is_finite()) {
            return Ok(Token::Float(n));
        }
        match parse_go_duration(&text) {
            Ok(nanos) => Ok(Token::Duration(nanos)),
            Err(e) => self.wrong(e.0),
        }
    }
}
