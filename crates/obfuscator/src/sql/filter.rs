//! The filters behind the built-in tokenizer: discard, replace, group.
//! Rules: `datadog-agent:pkg/obfuscate/sql.go`.

use std::borrow::Cow;

use super::quotes::ValuePlaces;
use super::tables::Tables;
use super::token::{Kind, Tokenizer};
use super::{Options, Sql, SqlError, replace_digits};
use crate::sink::Sink;

/// `$func$` bodies inside `$func$` bodies are not followed any deeper.
pub(super) const MAX_DEPTH: u32 = 2;

/// One pass over a statement with one reading of the backslash. Also tells
/// whether a string contained one.
pub(super) fn pass<'a>(
    text: &'a str,
    options: Options<'_>,
    literal_escapes: bool,
    depth: u32,
) -> (Result<Sql<'a>, SqlError>, bool) {
    let mut tokens = Tokenizer::new(text, options.dbms, options.config.dollar_quoted_func, literal_escapes);
    let result = filter(&mut tokens, text, options, literal_escapes, depth);
    (result, tokens.saw_backslash)
}

fn filter<'a>(
    tokens: &mut Tokenizer<'a>,
    text: &'a str,
    options: Options<'_>,
    literal_escapes: bool,
    depth: u32,
) -> Result<Sql<'a>, SqlError> {
    let config = options.config;
    let mut out = Sink::new(text);
    let mut tables = Tables::new(config.table_names, config.replace_digits);
    let mut places = ValuePlaces::default();
    let mut grouping = Grouping::default();
    // Most tokens pass as they are; nothing below has a say in them.
    let plain = !config.table_names && !config.replace_digits;
    let mut last = Kind::Start;
    // As `last`, but blind to comments, which must not part `=` from its value.
    let mut last_seen = Kind::Start;
    while let Some(mut kind) = tokens.next()? {
        let body;
        let mut text = tokens.text();
        if kind == Kind::Func {
            body = function_body(text, options, literal_escapes, depth);
            (kind, text) = body.as_deref().map_or((Kind::Literal, "?"), |body| (Kind::Other, body));
        }
        if plain && is_plain(kind) && grouping.is_idle() && !takes_the_next(last) {
            if kind == Kind::Id || kind == Kind::Other {
                places.word(text);
            } else {
                places.kind(kind);
            }
            if out.is_empty() || (kind == Kind::Equals && last == Kind::Colon) {
                out.push(text);
            } else {
                out.push_spaced(text);
            }
            (last, last_seen) = (kind, kind);
            continue;
        }
        let read = kind;
        let value_place = match kind {
            Kind::Id | Kind::Other => {
                places.word(text);
                false
            }
            Kind::DoubleQuoted => places.quoted(tokens.peek_visible() == Some(b'.')),
            Kind::Bracketed => {
                kind = Kind::DoubleQuoted;
                let _ = places.quoted(true);
                false
            }
            _ => {
                places.kind(kind);
                false
            }
        };
        kind = tables.see(last, kind, text);

        let mut shown;
        (kind, shown) = discard(kind, last, config.keep_sql_alias)?;

        // Replace.
        let literal = matches!(kind, Kind::Literal | Kind::Question);
        let value = kind == Kind::DoubleQuoted && (last_seen == Kind::Equals || value_place);
        let digits;
        if last == Kind::Savepoint || literal || value {
            kind = groupable(kind);
            shown = true;
            text = "?";
        } else if config.replace_digits && matches!(kind, Kind::Id | Kind::Table) {
            digits = replace_digits(Cow::Borrowed(text));
            text = &digits;
        }

        let grouped = grouping.see(kind, last);
        kind = grouped.kind;
        if shown && grouped.shown {
            let glued = kind == Kind::Comma || (kind == Kind::Equals && last == Kind::Colon);
            if grouped.nested {
                if !out.is_empty() {
                    out.push(" ");
                }
                out.push("(");
            }
            if out.is_empty() || glued {
                out.push(text);
            } else {
                out.push_spaced(text);
            }
        }
        last = kind;
        if read != Kind::Comment {
            last_seen = kind;
        }
    }
    if out.is_empty() {
        return Err(SqlError::Empty);
    }
    Ok(Sql { text: out.finish(), tables: tables.finish() })
}

/// Tokens that no filter changes, drops or counts by themselves.
fn is_plain(kind: Kind) -> bool {
    use Kind::{Colon, Delete, Dot, Equals, From, Id, Into, Join, Other, Select, Update};
    matches!(kind, Id | Other | Select | Update | Delete | From | Into | Join | Equals | Colon | Dot)
}

/// Tokens that change what becomes of the one after them.
fn takes_the_next(last: Kind) -> bool {
    matches!(last, Kind::As | Kind::FilteredBracket | Kind::Savepoint)
}

/// A body that cannot be obfuscated is a string like any other.
fn function_body(body: &str, options: Options<'_>, literal_escapes: bool, depth: u32) -> Option<String> {
    if depth == MAX_DEPTH {
        return None;
    }
    let (result, _) = pass(body, options, literal_escapes, depth + 1);
    result.ok().map(|sql| format!("$func${}$func$", sql.text))
}

fn groupable(kind: Kind) -> Kind {
    match kind {
        Kind::Open => Kind::GroupableOpen,
        _ => Kind::Groupable,
    }
}

/// Comments, semicolons and aliases. Returns the kind and whether the token
/// is still shown.
fn discard(kind: Kind, last: Kind, keep_alias: bool) -> Result<(Kind, bool), SqlError> {
    Ok(match (last, kind) {
        (Kind::FilteredBracket, Kind::Id) => (Kind::FilteredBracket, false),
        // Only a name may stand in a bracketed alias.
        (Kind::FilteredBracket, kind) if kind != Kind::BracketClose => return Err(SqlError::UnknownToken),
        (Kind::As | Kind::FilteredBracket, Kind::BracketOpen) => (Kind::FilteredBracket, false),
        (Kind::As | Kind::FilteredBracket, _) if keep_alias => (kind, true),
        (Kind::As | Kind::FilteredBracket, _) | (_, Kind::Comment) => (Kind::Filtered, false),
        (_, Kind::Semicolon) => (Kind::Groupable, false),
        (_, Kind::As) if !keep_alias => (Kind::As, false),
        _ => (kind, true),
    })
}

/// Merges `?, ?, ?` into `?` and `( ? ), ( ? )` into `( ? )`.
#[derive(Default)]
struct Grouping {
    /// Inside a run of values.
    in_values: bool,
    /// Groups seen in a row.
    groups: usize,
}

/// What becomes of a token.
struct Grouped {
    kind: Kind,
    shown: bool,
    /// A dropped `(` has to be printed after all, since a sub-query follows it.
    nested: bool,
}

impl Grouping {
    /// Nothing is being merged.
    fn is_idle(&self) -> bool {
        !self.in_values && self.groups == 0
    }

    fn see(&mut self, kind: Kind, last: Kind) -> Grouped {
        let is_groupable = matches!(kind, Kind::Groupable | Kind::GroupableOpen);
        if (last == Kind::Open && is_groupable) || (kind == Kind::Open && self.groups > 0) {
            self.groups += 1;
        }
        let query = matches!(kind, Kind::Select | Kind::Delete | Kind::Update | Kind::Id);
        let dropped = Grouped { kind: groupable(kind), shown: false, nested: false };
        if self.groups > 0 && last == Kind::GroupableOpen && query {
            *self = Self::default();
            return Grouped { kind, shown: true, nested: true };
        }
        if is_groupable {
            if self.in_values {
                return dropped;
            }
            self.in_values = true;
        } else if (self.in_values && matches!(kind, Kind::Comma | Kind::Question)) || self.groups > 1 {
            return dropped;
        } else if !matches!(kind, Kind::Comma | Kind::Open | Kind::Close) {
            *self = Self::default();
        }
        Grouped { kind, shown: true, nested: false }
    }
}
