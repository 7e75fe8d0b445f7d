//! Table names of a statement (feature `table_names`).

use std::borrow::Cow;

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
    /// Names that a `WITH` defined: no tables.
    defined: Vec<String>,
}

impl Tables {
    /// More tables than this are not told apart; no real statement has them.
    pub(super) const MAX: usize = 64;

    pub(super) fn new(on: bool, digits: bool) -> Self {
        Self { on, digits, names: Vec::new(), defined: Vec::new() }
    }

    /// Whether names are wanted at all.
    pub(super) fn wanted(&self) -> bool {
        self.on
    }

    /// For the built-in tokenizer: looks at one token and the (filtered) kind of the one before it.
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
        self.add(if self.digits { replace_digits(text.into()) } else { text.into() });
        Kind::Table
    }

    /// A table, as it is printed.
    pub(super) fn add(&mut self, name: Cow<'_, str>) {
        if !self.defined.iter().any(|n| *n == name) {
            push_new(&mut self.names, name);
        }
    }

    /// A name that the statement itself defines. It hides what comes after it.
    pub(super) fn define(&mut self, name: Cow<'_, str>) {
        push_new(&mut self.defined, name);
    }

    pub(super) fn finish(self) -> String {
        self.names.join(",")
    }
}

fn push_new(names: &mut Vec<String>, name: Cow<'_, str>) {
    if names.len() < Tables::MAX && !names.iter().any(|n| *n == name) {
        names.push(name.into_owned());
    }
}
