//! The filters behind the built-in tokenizer: discard, replace, group.
//! Rules: `datadog-agent:pkg/obfuscate/sql.go`.

use std::borrow::Cow;

use super::quotes::ValuePlaces;
use super::tables::Tables;
use super::token::{Kind, Token, Tokenizer};
use super::{Options, Sql, SqlError, replace_digits};
use crate::sink::Sink;

/// `$func$` bodies inside `$func$` bodies are not followed any deeper.
const MAX_DEPTH: u32 = 2;

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
    let mut last = Kind::Start;
    // As `last`, but blind to comments, which must not part `=` from its value.
    let mut last_seen = Kind::Start;
    while let Some(Token { mut kind, text }) = tokens.next()? {
        let mut shown = Some(text);
        if kind == Kind::Func {
            (kind, shown) = function_body(shown, options, literal_escapes, depth);
        }
        let read = kind;
        let value_place = match (&shown, kind) {
            (Some(text), Kind::Id | Kind::Other) => {
                places.word(text);
                false
            }
            (Some(_), Kind::DoubleQuoted) => places.quoted(tokens.peek_visible() == Some(b'.')),
            (_, Kind::Bracketed) => {
                kind = Kind::DoubleQuoted;
                places.quoted(true)
            }
            _ => {
                places.kind(kind);
                false
            }
        };
        if let Some(text) = &shown {
            kind = tables.see(last, kind, text);
        }

        (kind, shown) = discard(kind, shown, last, config.keep_sql_alias)?;

        // Replace.
        let literal = matches!(kind, Kind::Literal | Kind::Question);
        let value = kind == Kind::DoubleQuoted && (last_seen == Kind::Equals || value_place);
        if last == Kind::Savepoint || literal || value {
            kind = groupable(kind);
            shown = Some(Cow::Borrowed("?"));
        } else if config.replace_digits && matches!(kind, Kind::Id | Kind::Table) {
            shown = shown.map(replace_digits);
        }

        let nested;
        (kind, shown, nested) = grouping.see(kind, shown, last);

        if let Some(text) = shown {
            let glued = kind == Kind::Comma || (kind == Kind::Equals && last == Kind::Colon);
            if !out.is_empty() && !glued {
                out.push(" ");
            }
            if nested {
                out.push("( ");
            }
            out.push(&text);
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

/// A body that cannot be obfuscated is a string like any other.
fn function_body<'a>(
    body: Option<Cow<'a, str>>,
    options: Options<'_>,
    literal_escapes: bool,
    depth: u32,
) -> (Kind, Option<Cow<'a, str>>) {
    let inner = body.filter(|_| depth < MAX_DEPTH).and_then(|body| {
        let (result, _) = pass(&body, options, literal_escapes, depth + 1);
        result.ok().map(|sql| format!("$func${}$func$", sql.text))
    });
    match inner {
        Some(text) => (Kind::Other, Some(Cow::Owned(text))),
        None => (Kind::Literal, Some(Cow::Borrowed("?"))),
    }
}

fn groupable(kind: Kind) -> Kind {
    match kind {
        Kind::Open => Kind::GroupableOpen,
        _ => Kind::Groupable,
    }
}

/// Comments, semicolons and aliases.
fn discard(
    kind: Kind,
    shown: Option<Cow<'_, str>>,
    last: Kind,
    keep_alias: bool,
) -> Result<(Kind, Option<Cow<'_, str>>), SqlError> {
    match last {
        Kind::FilteredBracket if kind != Kind::BracketClose => {
            // Only a name may stand in a bracketed alias.
            return match kind {
                Kind::Id => Ok((Kind::FilteredBracket, None)),
                _ => Err(SqlError::UnknownToken),
            };
        }
        Kind::As | Kind::FilteredBracket => {
            return Ok(match kind {
                Kind::BracketOpen => (Kind::FilteredBracket, None),
                _ if keep_alias => (kind, shown),
                _ => (Kind::Filtered, None),
            });
        }
        _ => {}
    }
    Ok(match kind {
        Kind::Comment => (Kind::Filtered, None),
        Kind::Semicolon => (Kind::Groupable, None),
        Kind::As if !keep_alias => (Kind::As, None),
        _ => (kind, shown),
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

impl Grouping {
    /// Returns the token's new kind and text, and whether a dropped `(` has
    /// to be printed after all, since a sub-query follows it.
    fn see<'a>(
        &mut self,
        kind: Kind,
        shown: Option<Cow<'a, str>>,
        last: Kind,
    ) -> (Kind, Option<Cow<'a, str>>, bool) {
        let is_groupable = matches!(kind, Kind::Groupable | Kind::GroupableOpen);
        if (last == Kind::Open && is_groupable) || (kind == Kind::Open && self.groups > 0) {
            self.groups += 1;
        }
        let query = matches!(kind, Kind::Select | Kind::Delete | Kind::Update | Kind::Id);
        if self.groups > 0 && last == Kind::GroupableOpen && query {
            *self = Self::default();
            return (kind, shown, true);
        }
        if is_groupable {
            if self.in_values {
                return (groupable(kind), None, false);
            }
            self.in_values = true;
        } else if (self.in_values && matches!(kind, Kind::Comma | Kind::Question)) || self.groups > 1 {
            return (groupable(kind), None, false);
        } else if !matches!(kind, Kind::Comma | Kind::Open | Kind::Close) {
            *self = Self::default();
        }
        (kind, shown, false)
    }
}
