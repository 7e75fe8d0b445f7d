//! JSON documents: keys and structure stay, every scalar becomes `"?"`.
//! Rules: `datadog-agent:pkg/obfuscate/json.go`.
//!
//! One pass over the bytes with an explicit stack (one bit a level), so that
//! neither depth nor size of a document can hurt. Broken or cut documents keep
//! what was already scrubbed, followed by `...`.

use std::borrow::Cow;

use crate::config::JsonConfig;
use crate::eight::run_end;
use crate::sink::Sink;

/// Scrubs documents; `sql` obfuscates the values of `obfuscate_sql_values`.
pub(crate) fn obfuscate<'a>(
    text: &'a str,
    config: &JsonConfig,
    sql: &dyn Fn(&str) -> String,
) -> Cow<'a, str> {
    if text.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut scan = Scan {
        text,
        bytes: text.as_bytes(),
        pos: 0,
        out: Sink::new(text),
        stack: Stack::default(),
        first: None,
        keep_from: None,
        wiped: false,
        transform: false,
        config,
        any_keys: !config.keep_values.is_empty() || !config.obfuscate_sql_values.is_empty(),
        sql,
    };
    if scan.documents().is_none() {
        scan.out.push("...");
    }
    scan.out.finish()
}

#[derive(Clone, Copy, PartialEq)]
enum Level {
    Object,
    Array,
}

/// The open containers, one bit each: set for objects. A number holds the
/// innermost ones, so that most documents need no memory for it.
#[derive(Default)]
struct Stack {
    bits: u64,
    depth: usize,
    /// The outer ones, 64 each.
    outer: Vec<u64>,
}

impl Stack {
    fn len(&self) -> usize {
        self.depth
    }

    fn last(&self) -> Option<Level> {
        let level = if self.bits & 1 == 1 { Level::Object } else { Level::Array };
        (self.depth > 0).then_some(level)
    }

    fn push(&mut self, level: Level) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.bits);
        }
        self.bits = self.bits << 1 | u64::from(level == Level::Object);
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.bits >>= 1;
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.bits = self.outer.pop().unwrap_or_default();
        }
    }
}

struct Scan<'a, 'c> {
    text: &'a str,
    bytes: &'a [u8],
    pos: usize,
    out: Sink<'a>,
    stack: Stack,
    /// What the first container of the text was. After it, the reference takes
    /// top-level words for keys if it was an object.
    first: Option<Level>,
    /// Depth at which values began to be kept.
    keep_from: Option<usize>,
    /// A placeholder was printed since the last container began or ended.
    wiped: bool,
    /// The next scalar goes through `sql`.
    transform: bool,
    config: &'c JsonConfig,
    /// Some keys have a meaning.
    any_keys: bool,
    sql: &'c dyn Fn(&str) -> String,
}

impl<'a> Scan<'a, '_> {
    fn skip_space(&mut self) {
        while matches!(self.bytes.get(self.pos), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.pos += 1;
        }
    }

    fn push_from(&mut self, start: usize) {
        self.out.piece(start..self.pos, false);
    }

    /// Documents in a row; `None` where the text breaks.
    fn documents(&mut self) -> Option<()> {
        self.skip_space();
        loop {
            self.value()?;
            while let Some(level) = self.stack.last() {
                self.skip_space();
                let start = self.pos;
                match (level, *self.bytes.get(self.pos)?) {
                    (_, b',') => {
                        self.pos += 1;
                        self.push_from(start);
                        self.value_ended();
                        self.skip_space();
                        if level == Level::Object {
                            self.key()?;
                        }
                        self.value()?;
                    }
                    (Level::Object, b'}') | (Level::Array, b']') => self.close(),
                    _ => return None,
                }
            }
            // White space between documents is kept, since it parts them.
            let start = self.pos;
            self.skip_space();
            self.push_from(start);
            if self.pos == self.bytes.len() {
                return Some(());
            }
        }
    }

    fn value_ended(&mut self) {
        if self.keep_from.is_some_and(|depth| self.stack.len() < depth) {
            self.keep_from = None;
        }
    }

    fn close(&mut self) {
        let start = self.pos;
        self.pos += 1;
        self.push_from(start);
        self.value_ended();
        self.wiped = false;
        self.stack.pop();
    }

    /// A scalar with what follows it left unread, or the opening of containers
    /// down to the first scalar.
    fn value(&mut self) -> Option<()> {
        loop {
            self.skip_space();
            let start = self.pos;
            let level = match *self.bytes.get(self.pos)? {
                b'{' => Level::Object,
                b'[' => Level::Array,
                _ => return self.scalar(),
            };
            self.pos += 1;
            self.push_from(start);
            self.stack.push(level);
            self.first.get_or_insert(level);
            self.transform = false;
            self.wiped = false;
            self.skip_space();
            match (level, self.bytes.get(self.pos)) {
                (Level::Object, Some(b'}')) | (Level::Array, Some(b']')) => {
                    self.close();
                    return Some(());
                }
                (Level::Object, _) => self.key()?,
                (Level::Array, _) => {}
            }
        }
    }

    /// A key and its colon.
    fn key(&mut self) -> Option<()> {
        self.skip_space();
        let start = self.pos;
        if self.bytes.get(self.pos) != Some(&b'"') {
            return None;
        }
        let ended = self.string();
        // Keys are kept, so is what there is of a broken one.
        self.push_from(start);
        ended?;
        let key = start..self.pos;
        self.skip_space();
        if self.bytes.get(self.pos) != Some(&b':') {
            return None;
        }
        if self.any_keys {
            let key = self.text[key].trim_matches('"');
            if self.keep_from.is_none() && self.config.keep_values.iter().any(|k| k == key) {
                self.keep_from = Some(self.stack.len() + 1);
            } else if self.config.obfuscate_sql_values.iter().any(|k| k == key) {
                self.transform = true;
            }
        }
        let colon = self.pos;
        self.pos += 1;
        self.push_from(colon);
        Some(())
    }

    fn scalar(&mut self) -> Option<()> {
        let start = self.pos;
        let first = self.bytes[start];
        if !matches!(first, b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') {
            return None;
        }
        let transform = std::mem::take(&mut self.transform);
        let kept = self.keep_from.is_some();
        // The reference prints scalars between documents as if they were keys
        // when the first document is an object. Strings are values here.
        let between = (self.stack.len() == 0) && self.first == Some(Level::Object);
        let shown = kept || (between && first != b'"');
        if between && !kept && first == b'"' {
            let ended = self.string();
            self.out.push(if ended.is_some() { "\"?\"" } else { "\"" });
            return ended;
        }
        if !transform && !shown {
            // Scalars in a row without a container share one placeholder.
            if !((self.stack.len() == 0) && self.wiped) {
                self.out.fixed("\"?\"");
            }
            self.wiped = true;
        }
        let ended = match first {
            b'"' => self.string(),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            _ => self.number(),
        };
        if transform {
            ended?;
            let text = unescape(&self.text[start..self.pos]);
            // As in the reference, a value that nothing valid follows is not printed.
            self.skip_space();
            if !matches!(self.bytes.get(self.pos), Some(b',' | b'}')) {
                return None;
            }
            let result = (self.sql)(&text);
            self.out.push("\"");
            push_escaped(&mut self.out, &result);
            self.out.push("\"");
        } else if shown {
            self.push_from(start);
        }
        ended
    }

    fn literal(&mut self, word: &str) -> Option<()> {
        for expected in word.bytes() {
            if self.bytes.get(self.pos) != Some(&expected) {
                return None;
            }
            self.pos += 1;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let run = self.bytes[self.pos..].iter().take_while(|b| b.is_ascii_digit()).count();
        self.pos += run;
        (run > 0).then_some(())
    }

    fn number(&mut self) -> Option<()> {
        if self.bytes[self.pos] == b'-' {
            self.pos += 1;
        }
        if self.bytes.get(self.pos) == Some(&b'0') {
            self.pos += 1;
        } else {
            self.digits()?;
        }
        if self.bytes.get(self.pos) == Some(&b'.') {
            self.pos += 1;
            self.digits()?;
        }
        if matches!(self.bytes.get(self.pos), Some(b'e' | b'E')) {
            self.pos += 1;
            if matches!(self.bytes.get(self.pos), Some(b'+' | b'-')) {
                self.pos += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    /// From the opening to behind the closing quote; stops at what is not allowed.
    fn string(&mut self) -> Option<()> {
        self.pos += 1;
        loop {
            self.pos = run_end(self.bytes, self.pos, |eight| {
                !(eight.is(b'"') | eight.is(b'\\') | eight.within(0, 0x1f))
            });
            match *self.bytes.get(self.pos)? {
                b'"' => {
                    self.pos += 1;
                    return Some(());
                }
                b'\\' => {
                    self.pos += 1;
                    match *self.bytes.get(self.pos)? {
                        b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => self.pos += 1,
                        b'u' => {
                            self.pos += 1;
                            for _ in 0..4 {
                                if !self.bytes.get(self.pos)?.is_ascii_hexdigit() {
                                    return None;
                                }
                                self.pos += 1;
                            }
                        }
                        _ => return None,
                    }
                }
                _ => return None,
            }
        }
    }
}

/// The text of a scalar, its JSON escapes undone.
fn unescape(raw: &str) -> Cow<'_, str> {
    let Some(inner) = raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')) else {
        return Cow::Borrowed(raw);
    };
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    let mut high: Option<u32> = None;
    while let Some(c) = chars.next() {
        let c = match c {
            '\\' => match chars.next() {
                Some('u') => {
                    let hex: String = chars.by_ref().take(4).collect();
                    let unit = u32::from_str_radix(&hex, 16).unwrap_or(0xFFFD);
                    if let Some(first) = high.take() {
                        if (0xDC00..0xE000).contains(&unit) {
                            let code = 0x10000 + ((first - 0xD800) << 10) + (unit - 0xDC00);
                            out.push(char::from_u32(code).unwrap_or('\u{FFFD}'));
                            continue;
                        }
                        out.push('\u{FFFD}');
                    }
                    if (0xD800..0xDC00).contains(&unit) {
                        high = Some(unit);
                        continue;
                    }
                    char::from_u32(unit).unwrap_or('\u{FFFD}')
                }
                Some('b') => '\u{8}',
                Some('f') => '\u{c}',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some(c) => c,
                None => '\\',
            },
            c => c,
        };
        if high.take().is_some() {
            out.push('\u{FFFD}');
        }
        out.push(c);
    }
    if high.is_some() {
        out.push('\u{FFFD}');
    }
    Cow::Owned(out)
}

/// The reference prints the result as it is, which breaks the document when it
/// holds a quote.
fn push_escaped(out: &mut Sink<'_>, text: &str) {
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|b| b == b'"' || b == b'\\' || b < 0x20) {
        out.push(&rest[..at]);
        match rest.as_bytes()[at] {
            b'"' => out.push("\\\""),
            b'\\' => out.push("\\\\"),
            b'\n' => out.push("\\n"),
            b'\r' => out.push("\\r"),
            b'\t' => out.push("\\t"),
            control => out.push(&format!("\\u{control:04x}")),
        }
        rest = &rest[at + 1..];
    }
    out.push(rest);
}
