//! Replacing and normalising on top of the lexer.
//! Rules: `go-sqllexer:obfuscator.go`, `normalizer.go` (v0.2.2).

use std::borrow::Cow;

use super::lexer::{Kind, Lexer, Token};
use super::quotes::ValuePlaces;
use super::tables::Tables;
use super::{Options, Sql, replace_digits, token, words};
use crate::config::{Dbms, SqlConfig, SqlMode};
use crate::sink::{Sink, narrow, trim};

const PLACEHOLDER: &str = "?";
const FUNC: &str = "$func$";

/// Obfuscates, normalises, or both, by mode. Never fails: what cannot be read
/// is replaced by one `?`.
pub(super) fn obfuscate<'a>(text: &'a str, options: Options<'_>) -> Sql<'a> {
    let doubt =
        if options.config.mode == SqlMode::NormalizeOnly { None } else { doubtful_from(text, options.dbms) };
    let mut tables = Tables::new(options.config.table_names, options.config.replace_digits);
    let text = match options.config.mode {
        SqlMode::ObfuscateOnly => replace_only(text, options, doubt),
        _ => normalize(text, options, doubt, &mut tables),
    };
    Sql { text, tables: tables.finish() }
}

/// The offset of the first string from which on the statement cannot be
/// trusted: a backslash before a quote may or may not have ended it, and what
/// follows does not add up.
fn doubtful_from(text: &str, dbms: Dbms) -> Option<usize> {
    memchr::memchr(b'\\', text.as_bytes())?;
    let mut lexer = Lexer::new(text, dbms, false);
    let mut first = None;
    loop {
        let at = lexer.position();
        let token = lexer.next()?;
        if token.ambiguous && first.is_none() {
            first = Some(at);
        }
        let broken = match token.kind {
            Kind::OpenString | Kind::Broken => true,
            Kind::Unknown => token.text == "\\",
            _ => false,
        };
        if broken && first.is_some() {
            return first;
        }
    }
}

/// What replacing needs to remember between tokens.
struct Replacer<'c> {
    options: Options<'c>,
    places: ValuePlaces,
    /// Where the text can no longer be trusted: no word is shown from there on.
    doubt: usize,
    /// The last two tokens that are neither blank nor comment.
    previous: [(Option<Kind>, bool); 2],
}

impl<'c> Replacer<'c> {
    fn new(options: Options<'c>, doubt: Option<usize>) -> Self {
        let doubt = doubt.unwrap_or(usize::MAX);
        Self { options, places: ValuePlaces::default(), doubt, previous: [(None, false); 2] }
    }

    /// The text of the token at offset `at` as it may be shown. `rest`: what follows it.
    fn replace<'a>(&mut self, at: usize, token: &Token<'a>, last: Option<Kind>, rest: &str) -> Cow<'a, str> {
        let config = self.options.config;
        if at >= self.doubt {
            let harmless = matches!(
                token.kind,
                Kind::Space | Kind::Punctuation | Kind::Operator | Kind::Wildcard | Kind::JsonOperator
            );
            return Cow::Borrowed(if harmless { token.text } else { PLACEHOLDER });
        }
        let json_path = config.keep_json_path && last == Some(Kind::JsonOperator);
        let value = self.value_place(token, rest);
        let hidden = match token.kind {
            Kind::Number | Kind::String | Kind::DollarString => !json_path,
            Kind::OpenString | Kind::Broken => true,
            Kind::DollarFunction => !config.dollar_quoted_func,
            Kind::Positional => !config.keep_positional_parameter,
            Kind::Bind => config.replace_bind_parameter,
            Kind::Boolean => !config.keep_boolean,
            Kind::Null => !config.keep_null,
            Kind::QuotedIdent => value,
            Kind::Ident | Kind::Keyword => self.in_extract() && words::is_extract_field(token.text),
            _ => false,
        };
        let shown = if hidden {
            Cow::Borrowed(PLACEHOLDER)
        } else if token.kind == Kind::DollarFunction {
            let body = &token.text[FUNC.len()..token.text.len() - FUNC.len()];
            let inner = replace_only(body, self.options, doubtful_from(body, self.options.dbms));
            Cow::Owned(format!("{FUNC}{inner}{FUNC}"))
        } else if config.replace_digits && matches!(token.kind, Kind::Ident | Kind::QuotedIdent) {
            replace_digits(Cow::Borrowed(token.text))
        } else {
            Cow::Borrowed(token.text)
        };
        if is_value(token.kind) || token.kind == Kind::Broken {
            let mark = match token.kind {
                Kind::Function => token.text.eq_ignore_ascii_case("extract"),
                Kind::Punctuation => token.text == "(",
                _ => false,
            };
            self.previous = [self.previous[1], (Some(token.kind), mark)];
        }
        shown
    }

    fn in_extract(&self) -> bool {
        self.previous == [(Some(Kind::Function), true), (Some(Kind::Punctuation), true)]
    }

    fn value_place(&mut self, token: &Token<'_>, rest: &str) -> bool {
        match token.kind {
            Kind::Space | Kind::Comment => {}
            Kind::QuotedIdent => {
                let dotted = rest.trim_start().starts_with('.') || token.text.contains("\".\"");
                return self.places.quoted(dotted || !token.text.starts_with('"'));
            }
            Kind::Ident | Kind::Function | Kind::Keyword | Kind::Command => match token.text {
                t if t.eq_ignore_ascii_case("select") => self.places.kind(token::Kind::Select),
                t if t.eq_ignore_ascii_case("update") => self.places.kind(token::Kind::Update),
                t if t.eq_ignore_ascii_case("delete") => self.places.kind(token::Kind::Delete),
                t => self.places.word(t.as_bytes()),
            },
            Kind::Alias => self.places.kind(token::Kind::As),
            Kind::Operator if token.text == "::" => self.places.word(b"::"),
            _ => self.places.kind(match token.text {
                "(" => token::Kind::Open,
                ")" => token::Kind::Close,
                "," => token::Kind::Comma,
                ";" => token::Kind::Semicolon,
                "." => token::Kind::Dot,
                "=" => token::Kind::Equals,
                _ => token::Kind::Other,
            }),
        }
        false
    }
}

/// Neither blank nor comment.
fn is_value(kind: Kind) -> bool {
    !matches!(kind, Kind::Space | Kind::Comment)
}

fn replace_only<'a>(text: &'a str, options: Options<'_>, doubt: Option<usize>) -> Cow<'a, str> {
    let mut lexer = Lexer::new(text, options.dbms, false);
    let mut replacer = Replacer::new(options, doubt);
    let mut out = Sink::new(text);
    let mut last = None;
    loop {
        let at = lexer.position();
        let Some(token) = lexer.next() else { break };
        out.push(&replacer.replace(at, &token, last, lexer.rest()));
        if is_value(token.kind) {
            last = Some(token.kind);
        }
    }
    trim(out.finish())
}

/// The token before, as it was printed.
struct Last<'a> {
    kind: Kind,
    text: Cow<'a, str>,
    before_table: bool,
}

impl Last<'_> {
    fn is(&self, text: &str) -> bool {
        self.text == text
    }
}

/// Expression in parentheses at the very front: kept aside until it is known
/// whether it is the statement, part of it, or declared parameters.
#[derive(Default)]
struct Head {
    started: bool,
    inside: bool,
    complete: bool,
    alone: bool,
    has_command: bool,
    depth: usize,
    text: String,
}

struct Normalizer<'a, 'c> {
    config: &'c SqlConfig,
    out: Sink<'a>,
    head: Head,
    grouping: bool,
    last: Option<Last<'a>>,
    /// The token before was `:`; what came before that.
    before_colon: Option<Option<Kind>>,
}

fn normalize<'a>(
    text: &'a str,
    options: Options<'_>,
    doubt: Option<usize>,
    tables: &mut Tables,
) -> Cow<'a, str> {
    let replacing = options.config.mode != SqlMode::NormalizeOnly;
    let mut lexer = Lexer::new(text, options.dbms, !replacing);
    let mut replacer = Replacer::new(options, doubt);
    let mut normalizer = Normalizer {
        config: options.config,
        out: Sink::new(text),
        head: Head::default(),
        grouping: false,
        last: None,
        before_colon: None,
    };
    let mut in_tables = false;
    loop {
        let at = lexer.position();
        let Some(token) = lexer.next() else { break };
        let last = normalizer.last.as_ref().map(|last| last.kind);
        let shown = if replacing {
            replacer.replace(at, &token, last, lexer.rest())
        } else {
            Cow::Borrowed(token.text)
        };
        if !is_value(token.kind) {
            continue;
        }
        if tables.wanted() {
            in_tables = collect_table(tables, &token, &shown, normalizer.last.as_ref(), in_tables);
        }
        normalizer.token(&token, shown);
    }
    normalizer.finish()
}

/// Adds the token, printed as `shown`, if it names a table. Returns whether a
/// list of tables goes on.
fn collect_table(
    tables: &mut Tables,
    token: &Token<'_>,
    shown: &str,
    last: Option<&Last<'_>>,
    in_list: bool,
) -> bool {
    match token.kind {
        Kind::Command | Kind::Keyword => false,
        Kind::Punctuation if matches!(token.text, "(" | ")") => false,
        Kind::Ident | Kind::QuotedIdent | Kind::Function => {
            let Some(last) = last else { return in_list };
            let name = || match token.kind {
                Kind::QuotedIdent => strip_quotes(shown),
                _ => Cow::Borrowed(shown),
            };
            if last.kind == Kind::Cte {
                tables.define(name());
            } else if last.before_table || (in_list && last.is(",")) {
                tables.add(name());
                return true;
            }
            in_list
        }
        _ => in_list,
    }
}

fn strip_quotes(text: &str) -> Cow<'_, str> {
    if text.contains(['"', '[', ']', '`']) {
        Cow::Owned(text.replace(['"', '[', ']', '`'], ""))
    } else {
        Cow::Borrowed(text)
    }
}

impl<'a> Normalizer<'a, '_> {
    fn token(&mut self, token: &Token<'a>, mut shown: Cow<'a, str>) {
        let after_alias = self.last.as_ref().is_some_and(|last| last.kind == Kind::Alias);
        if token.kind == Kind::QuotedIdent
            && !self.config.keep_identifier_quotation
            && (token.simple || !after_alias)
            && shown != PLACEHOLDER
        {
            shown = match shown {
                Cow::Borrowed(text) => strip_quotes(text),
                Cow::Owned(text) => Cow::Owned(strip_quotes(&text).into_owned()),
            };
        }
        self.place(token, &mut shown);
        self.last = Some(Last { kind: token.kind, text: shown, before_table: token.before_table });
    }

    fn place(&mut self, token: &Token<'a>, shown: &mut Cow<'a, str>) {
        if !self.head.started {
            self.head.started = true;
            if token.kind == Kind::Punctuation && *shown == "(" {
                self.head.inside = true;
                self.head.alone = true;
                self.head.depth = 1;
                self.head.text.push('(');
                return;
            }
        }
        if self.head.complete {
            if self.head.has_command {
                self.out.push(&self.head.text);
            }
            self.head.alone = false;
            self.head.complete = false;
        }
        if token.kind == Kind::DollarFunction && *shown != PLACEHOLDER {
            *shown = self.function(shown);
        }
        if !self.config.keep_sql_alias {
            if token.kind == Kind::Alias {
                return;
            }
            if let Some(last) = self.last.as_ref().filter(|last| last.kind == Kind::Alias) {
                if matches!(token.kind, Kind::Ident | Kind::QuotedIdent) {
                    return;
                }
                // No alias follows, so that the AS belongs to the statement.
                let alias = last.text.clone();
                if self.space_before(token.kind, shown) {
                    self.out.push(" ");
                }
                self.out.push(&alias);
            }
        }
        if self.merges(shown) {
            return;
        }
        let space = self.space_before(token.kind, shown);
        if self.head.inside {
            if space {
                self.head.text.push(' ');
            }
            self.head.text.push_str(shown);
            self.head.has_command |= token.kind == Kind::Command;
            if token.kind == Kind::Punctuation && *shown == "(" {
                self.head.depth += 1;
            } else if token.kind == Kind::Punctuation && *shown == ")" {
                self.head.depth -= 1;
                if self.head.depth == 0 {
                    self.head.inside = false;
                    self.head.complete = true;
                }
            }
        } else {
            // A blank in front would be trimmed anyway, after costing a copy.
            if space && !self.out.is_empty() {
                self.out.push(" ");
            }
            self.out.push(shown);
        }
        self.before_colon = (*shown == ":").then(|| self.last.as_ref().map(|last| last.kind));
    }

    /// Normalises the body of `$func$ … $func$`. The reference forgets the
    /// product and every obfuscation option here; bodies are obfuscated already.
    fn function(&self, text: &str) -> Cow<'a, str> {
        let body = &text[FUNC.len()..text.len() - FUNC.len()];
        let config = SqlConfig { mode: SqlMode::NormalizeOnly, ..self.config.clone() };
        let options = Options { config: &config, dbms: Dbms::Other };
        let mut tables = Tables::new(false, false);
        let inner = normalize(body, options, None, &mut tables);
        Cow::Owned(format!("{FUNC}{inner}{FUNC}"))
    }

    /// Whether the token vanishes into the placeholder before it.
    fn merges(&mut self, shown: &str) -> bool {
        let Some(last) = &self.last else { return false };
        if shown == PLACEHOLDER {
            if last.is("(") || last.is("[") {
                self.grouping = true;
            } else if last.is(",") && self.grouping {
                return true;
            }
        }
        if !self.grouping {
            return false;
        }
        if shown == "," && last.is(PLACEHOLDER) {
            return true;
        }
        if shown == ")" || shown == "]" {
            self.grouping = false;
        } else if shown != PLACEHOLDER && last.is(",") {
            // The comma was held back for a placeholder that does not come.
            self.out.push(",");
        }
        false
    }

    fn space_before(&self, kind: Kind, shown: &str) -> bool {
        let name = matches!(kind, Kind::Ident | Kind::QuotedIdent);
        if let Some(last) = &self.last {
            if self.config.remove_space_between_parentheses
                && (last.kind == Kind::Function || last.is("(") || last.is("["))
            {
                return false;
            }
            if last.is(":") {
                // `:name` is a bind variable, `label : …` and `object : field` are not.
                let after_name =
                    matches!(self.before_colon, Some(Some(Kind::Ident | Kind::QuotedIdent)) | None);
                if (name && !after_name) || shown == "=" {
                    return false;
                }
            }
        }
        if self.config.remove_space_between_parentheses && (shown == ")" || shown == "]") {
            return false;
        }
        !matches!(shown, "," | ";")
    }

    fn finish(mut self) -> Cow<'a, str> {
        if self.head.alone {
            self.out.push(&self.head.text);
        }
        let text = self.out.finish();
        let mut end = text.len();
        if !self.config.keep_trailing_semicolon && text.ends_with(';') {
            end -= 1;
        }
        trim(narrow(text, 0, end))
    }
}
