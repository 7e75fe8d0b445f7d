//! Redis and Valkey commands.
//! Rules: `datadog-agent:pkg/obfuscate/redis.go`, `redis_tokenizer.go`.

use std::borrow::Cow;

use crate::chars;
use crate::eight::run_end;
use crate::sink::Sink;

/// Commands printed by [`quantize_redis`].
const MAX_COMMANDS: usize = 3;
const TRUNCATION: &str = "...";

/// The resource of a span: the names of up to three commands, upper-cased.
/// Applied whatever the settings say.
pub fn quantize_redis(text: &str) -> Cow<'_, str> {
    let mut out = Sink::new(text);
    let mut truncated = false;
    let mut count = 0;
    for line in text.split('\n') {
        if count == MAX_COMMANDS {
            break;
        }
        let mut rest = line;
        let Some(verb) = next_word(&mut rest) else { continue };
        if verb.ends_with(TRUNCATION) {
            truncated = true;
            continue;
        }
        let verb = upper(verb);
        let second = match &*verb {
            "CLIENT" | "CLUSTER" | "COMMAND" | "CONFIG" | "DEBUG" | "SCRIPT" => next_word(&mut rest),
            _ => None,
        };
        if second.is_some_and(|word| word.ends_with(TRUNCATION)) {
            truncated = true;
            continue;
        }
        for word in std::iter::once(&*verb).chain(second.map(upper).as_deref()) {
            if out.is_empty() {
                out.push(word);
            } else {
                out.push_spaced(word);
            }
        }
        count += 1;
        truncated = false;
    }
    if count == MAX_COMMANDS || truncated {
        if out.is_empty() {
            out.push(TRUNCATION);
        } else {
            out.push_spaced(TRUNCATION);
        }
    }
    out.finish()
}

/// Takes the word at the front, words being parted by spaces.
fn next_word<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let start = rest.bytes().position(|b| b != b' ')?;
    let text = &rest[start..];
    let (word, left) = text.split_at(text.bytes().position(|b| b == b' ').unwrap_or(text.len()));
    *rest = left;
    Some(word)
}

fn upper(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|b| b.is_ascii() && !b.is_ascii_lowercase()) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.chars().map(chars::upper).collect())
    }
}

/// What a command's arguments may show.
#[derive(Clone, Copy)]
enum Rule {
    /// Everything after the first `n` arguments becomes one `?`.
    After(usize),
    /// Argument `n` (from 0) becomes `?`.
    Only(usize),
    /// Argument `n` and all later ones become `?` each.
    From(usize),
    /// From `start`, the last of every `step` arguments becomes `?`.
    Every {
        start: usize,
        step: usize,
    },
    Config,
    BitField,
    ZAdd,
}

fn rule(verb: &str) -> Option<Rule> {
    let mut upper = [0u8; 17];
    if verb.len() > upper.len() {
        return None;
    }
    for (to, from) in upper.iter_mut().zip(verb.bytes()) {
        *to = from.to_ascii_uppercase();
    }
    Some(match &upper[..verb.len()] {
        b"AUTH" | b"MIGRATE" | b"HELLO" => Rule::After(0),
        b"ACL" | b"GEOHASH" | b"GEOPOS" | b"GEODIST" | b"LPUSH" | b"RPUSH" | b"SREM" | b"ZREM" | b"SADD" => {
            Rule::After(1)
        }
        b"LPUSHX" | b"RPUSHX" => Rule::From(1),
        b"APPEND" | b"GETSET" | b"GEORADIUSBYMEMBER" | b"SET" | b"SETNX" | b"SISMEMBER" | b"ZRANK"
        | b"ZREVRANK" | b"ZSCORE" => Rule::Only(1),
        b"HSETNX" | b"LREM" | b"LSET" | b"SETBIT" | b"SETEX" | b"PSETEX" | b"SETRANGE" | b"ZINCRBY"
        | b"SMOVE" | b"RESTORE" => Rule::Only(2),
        b"LINSERT" => Rule::Only(3),
        b"GEOADD" => Rule::Every { start: 1, step: 3 },
        b"HSET" | b"HMSET" => Rule::Every { start: 1, step: 2 },
        b"MSET" | b"MSETNX" => Rule::Every { start: 0, step: 2 },
        b"CONFIG" => Rule::Config,
        b"BITFIELD" => Rule::BitField,
        b"ZADD" => Rule::ZAdd,
        _ => return None,
    })
}

/// Characters that may wrap a verb without changing what it is.
fn is_wrapping(c: char) -> bool {
    c == '"' || c == '\'' || c.is_whitespace() || c.is_control()
}

/// Visible ASCII without quotes: nothing in it can wrap or part words.
fn is_simple(word: &str) -> bool {
    word.bytes().all(|b| matches!(b, b'!'..=b'~') && b != b'"' && b != b'\'')
}

/// The verb of a command as it would be looked up: without quotes around it,
/// and cut where blanks other than the space glue arguments to it.
fn verb_of(command: &str) -> &str {
    command.trim_start_matches(is_wrapping).split(is_wrapping).next().unwrap_or("")
}

/// A `redis.raw_command`: one command a line, values replaced by `?`.
pub(crate) fn obfuscate(text: &str) -> Cow<'_, str> {
    let mut out = Sink::new(text);
    let mut lines = Lines { rest: text.trim() };
    let mut first = true;
    let mut args = Vec::with_capacity(8);
    while let Some(verb) = lines.command(&mut args) {
        if verb.is_empty() && args.is_empty() && !lines.rest.is_empty() {
            continue;
        }
        if !first {
            out.fixed("\n");
        }
        first = false;
        command(&mut out, verb, &mut args);
    }
    out.finish()
}

/// Reads commands: separated by line breaks, their words by spaces, double
/// quotes protecting both within arguments.
struct Lines<'a> {
    rest: &'a str,
}

impl<'a> Lines<'a> {
    /// The next verb, with its arguments in `args`.
    fn command(&mut self, args: &mut Vec<&'a str>) -> Option<&'a str> {
        args.clear();
        if self.rest.is_empty() {
            return None;
        }
        if self.rest.starts_with(' ') {
            self.rest = without_blanks(self.rest);
        }
        let end = self.rest.bytes().position(|b| b == b' ' || b == b'\n').unwrap_or(self.rest.len());
        let verb = &self.rest[..end];
        let mut line_ended = self.rest.as_bytes().get(end) != Some(&b' ');
        self.rest = &self.rest[end..];
        if line_ended {
            self.rest = self.rest.strip_prefix('\n').unwrap_or(self.rest);
        }
        while !line_ended {
            self.rest = without_blanks(self.rest);
            if let Some(next) = self.rest.strip_prefix('\n') {
                self.rest = next;
                break;
            }
            if self.rest.is_empty() {
                break;
            }
            let (end, _) = argument(self.rest);
            args.push(&self.rest[..end]);
            line_ended = self.rest.as_bytes().get(end) == Some(&b'\n');
            self.rest = &self.rest[end + usize::from(line_ended)..];
        }
        Some(verb)
    }
}

/// Length of the argument at the front, and whether a quote in it stays open.
fn argument(text: &str) -> (usize, bool) {
    let bytes = text.as_bytes();
    let mut quoted = false;
    let mut at = 0;
    loop {
        at = run_end(bytes, at, |eight| {
            !(eight.is(b' ') | eight.is(b'\n') | eight.is(b'"') | eight.is(b'\\'))
        });
        match bytes.get(at) {
            None => return (text.len(), quoted),
            Some(b'\\') => at += usize::from(matches!(bytes.get(at + 1), Some(b'\\' | b'"'))),
            Some(b'"') => quoted = !quoted,
            Some(_) if quoted => {}
            Some(_) => return (at, false),
        }
        at += 1;
    }
}

/// Without blanks in front, save line breaks.
fn without_blanks(text: &str) -> &str {
    let start = text.bytes().position(|b| !matches!(b, b' ' | b'\t' | b'\r'));
    &text[start.unwrap_or(text.len())..]
}

fn command(out: &mut Sink<'_>, verb: &str, args: &mut Vec<&str>) {
    let name = if is_simple(verb) { verb } else { verb_of(verb) };
    let rule = rule(name);
    let glued = name.len() < verb.len() && name.len() < verb.trim_matches(is_wrapping).len();
    if let Some(rule) = rule
        && (glued || args.iter().any(|arg| hides_words(arg)))
        && holds_values(rule, verb, args)
    {
        return cautious(out, verb, rule, glued, args);
    }
    out.push(verb);
    if args.is_empty() {
        return;
    }
    match rule {
        None => {
            // An open quote may have swallowed the commands on the lines after it.
            if let Some(last) = args.last_mut()
                && last.contains('\n')
                && argument(last).1
            {
                *last = "?";
            }
        }
        Some(_) if glued => {}
        Some(rule) => apply(rule, args),
    }
    for arg in args.iter() {
        match *arg {
            "?" => out.placeholder(true),
            arg => out.push_spaced(arg),
        }
    }
}

/// An argument that consists of several words for Redis, or whose end is not
/// where the reference sees it.
fn hides_words(arg: &str) -> bool {
    if is_simple(arg) {
        return false;
    }
    let arg = arg.trim_end();
    let (_, open) = argument(arg);
    let quotes = arg.starts_with('"') || arg.starts_with('\'');
    (open && arg.contains('\n'))
        || (!quotes && arg.contains(is_separator))
        || (arg.starts_with('\'') && (arg.len() == 1 || !arg.ends_with('\'')))
}

/// What parts words without being a space.
fn is_separator(c: char) -> bool {
    c.is_control() || (c.is_whitespace() && c != ' ')
}

/// Whether there are values in the command once its words are parted at every
/// kind of blank.
fn holds_values(rule: Rule, verb: &str, args: &[&str]) -> bool {
    let is_blank = |c: char| c.is_whitespace() || c.is_control();
    let mut words = Vec::new();
    for part in std::iter::once(&verb).chain(args) {
        words.extend(part.split(is_blank).filter(|word| !word.is_empty()));
    }
    if !words.is_empty() {
        words.remove(0);
    }
    let before = words.clone();
    apply(rule, &mut words);
    words != before
}

/// Where the words of a command are not certain: the key at most.
fn cautious(out: &mut Sink<'_>, verb: &str, rule: Rule, glued: bool, args: &[&str]) {
    out.push(if glued { verb_of(verb) } else { verb });
    let keep_key = !glued && !matches!(rule, Rule::After(0));
    if let Some(key) = args.first().filter(|key| keep_key && !hides_words(key)) {
        out.push_spaced(key);
    }
    out.placeholder(true);
}

fn apply(rule: Rule, args: &mut Vec<&str>) {
    match rule {
        Rule::After(kept) => {
            if args.len() > kept {
                args.truncate(kept);
                args.push("?");
            }
        }
        Rule::Only(n) => {
            if let Some(arg) = args.get_mut(n) {
                *arg = "?";
            }
        }
        Rule::From(n) => args.iter_mut().skip(n).for_each(|arg| *arg = "?"),
        Rule::Every { start, step } => every(args, start, step),
        Rule::Config => {
            if args.first().is_some_and(|word| word.eq_ignore_ascii_case("set")) {
                every(args, 1, 2);
            }
        }
        Rule::BitField => {
            let mut set = 0;
            for (at, arg) in args.iter_mut().enumerate() {
                if arg.eq_ignore_ascii_case("set") {
                    set = at;
                } else if set > 0 && at - set == 3 {
                    *arg = "?";
                }
            }
        }
        Rule::ZAdd => {
            let is_option = |arg: &str| {
                ["NX", "XX", "CH", "INCR", "GT", "LT"].iter().any(|option| arg.eq_ignore_ascii_case(option))
            };
            let options = args.iter().skip(1).take_while(|arg| is_option(arg)).count();
            every(args, 1 + options, 2);
        }
    }
}

fn every(args: &mut [&str], start: usize, step: usize) {
    args.iter_mut().skip(start + step - 1).step_by(step).for_each(|arg| *arg = "?");
}

/// The same tag with `remove_all_args`: `CMD ?`.
pub(crate) fn remove_all_args(text: &str) -> Cow<'_, str> {
    let mut words = text.split_whitespace();
    let Some(verb) = words.next() else { return Cow::Borrowed("") };
    let name = verb.trim_matches(is_wrapping);
    let mut out = String::from(verb);
    let mut words = words.peekable();
    if words.peek().is_none() {
        return if out == text { Cow::Borrowed(text) } else { Cow::Owned(out) };
    }
    let is = |word: &str, any: &[&str]| any.iter().any(|known| word.eq_ignore_ascii_case(known));
    if name.eq_ignore_ascii_case("bitfield") {
        out.push_str(" ?");
        for word in words.filter(|word| is(word, &["set", "get", "incrby"])) {
            out.push(' ');
            out.push_str(word);
            out.push_str(" ?");
        }
    } else {
        if let Some(word) = words.peek()
            && name.eq_ignore_ascii_case("config")
            && is(word, &["get", "set", "resetstat", "rewrite"])
        {
            out.push(' ');
            out.push_str(word);
        }
        out.push_str(" ?");
    }
    if out == text { Cow::Borrowed(text) } else { Cow::Owned(out) }
}
