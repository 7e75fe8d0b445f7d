//! The filters behind the built-in tokenizer: discard, replace, group.
//! Rules: `datadog-agent:pkg/obfuscate/sql.go`.

use std::borrow::Cow;

use super::quotes::ValuePlaces;
use super::tables::Tables;
use super::token::{Kind, Tokenizer};
use super::{Options, Sql, SqlError, replace_digits};
use crate::config::SqlConfig;
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
    let mut filter = Filter {
        out: Sink::new(text),
        tables: Tables::new(config.table_names, config.replace_digits),
        places: ValuePlaces::default(),
        grouping: Grouping::default(),
        last: Kind::Start,
        last_seen: Kind::Start,
    };
    // Without these options most tokens pass as they are or become one `?`.
    let plain = !config.table_names && !config.replace_digits;
    while let Some(kind) = tokens.next()? {
        if plain && filter.plain(kind, tokens) {
            continue;
        }
        if kind == Kind::Func {
            match function_body(tokens.text(), options, literal_escapes, depth) {
                Some(body) => filter.token(Kind::Other, &body, tokens, config)?,
                None => filter.token(Kind::Literal, "?", tokens, config)?,
            }
        } else {
            filter.token(kind, tokens.text(), tokens, config)?;
        }
    }
    if filter.out.is_empty() {
        return Err(SqlError::Empty);
    }
    Ok(Sql { text: filter.out.finish(), tables: filter.tables.finish() })
}

/// What is remembered between tokens.
struct Filter<'a> {
    out: Sink<'a>,
    tables: Tables,
    places: ValuePlaces,
    grouping: Grouping,
    last: Kind,
    /// As `last`, but blind to comments, which must not part `=` from its value.
    last_seen: Kind,
}

impl Filter<'_> {
    /// The short way of [`Filter::token`] for what most statements consist of,
    /// with the same result. Tells whether it went.
    #[inline]
    fn plain(&mut self, kind: Kind, tokens: &mut Tokenizer<'_>) -> bool {
        if self.grouping.groups > 1 || takes_the_next(self.last) {
            return false;
        }
        let Some(place) = tokens.place() else { return false };
        let mut glued = false;
        match kind {
            Kind::Id | Kind::Other => {
                self.places.word(tokens.bytes_at(&place));
                self.grouping = Grouping::default();
            }
            Kind::Comma => {
                self.places.kind(kind);
                if self.grouping.in_values {
                    (self.last, self.last_seen) = (Kind::Groupable, Kind::Groupable);
                    return true;
                }
                glued = true;
            }
            Kind::Open if self.grouping.groups > 0 => return false,
            Kind::Open | Kind::Close => self.places.kind(kind),
            Kind::Equals
            | Kind::Select
            | Kind::From
            | Kind::Join
            | Kind::Into
            | Kind::Update
            | Kind::Delete
            | Kind::Colon
            | Kind::Dot => {
                self.places.kind(kind);
                self.grouping = Grouping::default();
                glued = kind == Kind::Equals && self.last == Kind::Colon;
            }
            Kind::Literal => {
                self.places.kind(kind);
                self.grouping.groups += usize::from(self.last == Kind::Open);
                if !self.grouping.in_values {
                    self.grouping.in_values = true;
                    self.out.placeholder(!self.out.is_empty());
                }
                (self.last, self.last_seen) = (Kind::Groupable, Kind::Groupable);
                if self.places.takes_any_value() {
                    tokens.skip_values();
                }
                return true;
            }
            _ => return false,
        }
        self.out.piece(place, !glued && !self.out.is_empty());
        (self.last, self.last_seen) = (kind, kind);
        true
    }

    /// One token, printed as `text` unless a filter says otherwise.
    fn token(
        &mut self,
        read: Kind,
        text: &str,
        tokens: &Tokenizer<'_>,
        config: &SqlConfig,
    ) -> Result<(), SqlError> {
        let digits;
        let (mut kind, mut text) = (read, text);
        let last = self.last;
        let value_place = match kind {
            Kind::Id | Kind::Other => {
                self.places.word(text.as_bytes());
                false
            }
            Kind::DoubleQuoted => self.places.quoted(tokens.peek_visible() == Some(b'.')),
            Kind::Bracketed => {
                kind = Kind::DoubleQuoted;
                let _ = self.places.quoted(true);
                false
            }
            _ => {
                self.places.kind(kind);
                false
            }
        };
        kind = self.tables.see(last, kind, text);

        let mut shown;
        (kind, shown) = discard(kind, last, config.keep_sql_alias)?;

        // Replace.
        let literal = matches!(kind, Kind::Literal | Kind::Question);
        let value = kind == Kind::DoubleQuoted && (self.last_seen == Kind::Equals || value_place);
        if last == Kind::Savepoint || literal || value {
            kind = groupable(kind);
            shown = true;
            text = "?";
        } else if config.replace_digits && matches!(kind, Kind::Id | Kind::Table) {
            digits = replace_digits(Cow::Borrowed(text));
            text = &digits;
        }

        let grouped = self.grouping.see(kind, last);
        kind = grouped.kind;
        if shown && grouped.shown {
            let glued = kind == Kind::Comma || (kind == Kind::Equals && last == Kind::Colon);
            if grouped.nested {
                if !self.out.is_empty() {
                    self.out.push(" ");
                }
                self.out.push("(");
            }
            if self.out.is_empty() || glued {
                self.out.push(text);
            } else {
                self.out.push_spaced(text);
            }
        }
        self.last = kind;
        if read != Kind::Comment {
            self.last_seen = kind;
        }
        Ok(())
    }
}

/// Tokens that change what becomes of the one after them.
#[inline]
fn takes_the_next(last: Kind) -> bool {
    matches!(last, Kind::As | Kind::FilteredBracket | Kind::Savepoint | Kind::GroupableOpen)
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
