//! SQL statements.
//!
//! | file | holds |
//! |---|---|
//! | `token.rs`, `filter.rs` | the built-in tokenizer and its filters |
//! | `lexer.rs`, `lexed.rs`, `words.rs` | the lexer of the other modes, replacing and normalising |
//! | `quotes.rs` | the ambiguities of `"` and `\`, decided cautiously |
//! | `tables.rs` | table names |

mod filter;
mod lexed;
mod lexer;
mod quotes;
mod tables;
mod token;
mod words;

use std::borrow::Cow;

use crate::config::{Dbms, SqlConfig, SqlMode};

/// An obfuscated statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sql<'a> {
    /// The statement without its literals.
    pub text: Cow<'a, str>,
    /// Tables it addresses, comma-joined; empty unless asked for.
    pub tables: String,
}

/// Why a statement was not obfuscated. None of these carries text of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SqlError {
    /// A quote, comment or brace is not closed.
    #[error("unterminated string, comment or brace")]
    Unterminated,
    /// A character or sequence SQL does not know.
    #[error("unknown token")]
    UnknownToken,
    /// Nothing is left.
    #[error("result is empty")]
    Empty,
    /// The backslashes can be read in two ways, and neither is safe.
    #[error("ambiguous backslash")]
    Ambiguous,
}

/// Settings of one call.
#[derive(Clone, Copy)]
struct Options<'c> {
    config: &'c SqlConfig,
    dbms: Dbms,
}

/// Obfuscates one statement. `dbms` overrides the configured product.
pub(crate) fn obfuscate<'a>(
    text: &'a str,
    config: &SqlConfig,
    dbms: Option<&str>,
) -> Result<Sql<'a>, SqlError> {
    let name = dbms.unwrap_or(&config.dbms);
    if config.mode != SqlMode::Builtin {
        let options = Options { config, dbms: Dbms::parse(name) };
        return Ok(lexed::obfuscate(text, options));
    }
    let options = Options { config, dbms: Dbms::parse_builtin(name) };
    let (result, saw_backslash) = filter::pass(text, options, false, 0);
    match result {
        // The text may come from a product that knows no escapes.
        Err(error) if saw_backslash && error != SqlError::Empty => {
            let (literal, _) = filter::pass(text, options, true, 0);
            let literal = literal.map_err(|_| error)?;
            if quotes::literal_backslashes_plausible(text, options, 0) {
                Ok(literal)
            } else {
                Err(SqlError::Ambiguous)
            }
        }
        result => result,
    }
}

/// Each run of ASCII digits becomes one `?`.
fn replace_digits(text: Cow<'_, str>) -> Cow<'_, str> {
    if !text.bytes().any(|b| b.is_ascii_digit()) {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    let mut in_digits = false;
    for c in text.chars() {
        let digit = c.is_ascii_digit();
        if !digit {
            out.push(c);
        } else if !in_digits {
            out.push('?');
        }
        in_digits = digit;
    }
    Cow::Owned(out)
}
