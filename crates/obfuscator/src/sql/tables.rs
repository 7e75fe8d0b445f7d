//! Table names of a statement (feature `table_names`).

use super::replace_digits;
use super::token::Kind;
use crate::chars;

/// Collects names in order, each once, comma-joined. At most
/// [`Tables::MAX`] different ones: a hostile statement must not make the
/// search for duplicates quadratic.
pub(super) struct Tables {
    on: bool,
    digits: bool,
    names: Vec<String>,
}

impl Tables {
    /// More tables than this are not told apart; no real statement has them.
    pub(super) const MAX: usize = 64;

    pub(super) fn new(on: bool, digits: bool) -> Self {
        Self { on, digits, names: Vec::new() }
    }

    /// Looks at one token and the (filtered) kind of the one before it.
    pub(super) fn see(&mut self, last: Kind, kind: Kind, text: &str) -> Kind {
        if !self.on {
            return kind;
        }
        let named = match last {
            Kind::From | Kind::Join => text.chars().next().is_some_and(chars::is_letter),
            Kind::Update | Kind::Into => true,
            _ => false,
        };
        if !named {
            return kind;
        }
        self.add(text);
        Kind::Table
    }

    pub(super) fn add(&mut self, text: &str) {
        let name = if self.digits { replace_digits(text.into()) } else { text.into() };
        if self.names.len() < Self::MAX && !self.names.iter().any(|n| *n == name) {
            self.names.push(name.into_owned());
        }
    }

    pub(super) fn finish(self) -> String {
        self.names.join(",")
    }
}
