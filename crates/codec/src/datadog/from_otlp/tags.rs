//! The attributes of the span that is being written. Each key stands at most
//! once as a text and once as a number.

use spanloom_model::{Attr, Batch, Text, Value};
use std::collections::HashMap;

/// Attributes up to which a new key is compared with each of them; above, a
/// table is asked, so that a span of very many attributes costs no more per
/// attribute than others.
const FEW: usize = 64;

/// Whether it is a number, and the key.
type TagKey = (bool, Box<[u8]>);

#[derive(Default)]
pub(super) struct Tags {
    start: usize,
    /// A bit for each key that is there, of texts and of numbers: most keys
    /// are new, and are known to be so by their bit.
    bits: [u64; 2],
    table: Option<HashMap<TagKey, usize>>,
}

fn bit(key: &[u8]) -> u64 {
    let at = |i: usize| key.get(i).copied().map_or(0, usize::from);
    let mixed =
        key.len() * 11 + at(key.len().wrapping_sub(1)) * 7 + at(key.len() / 2) * 3 + at(key.len() / 4);
    1 << (mixed & 63)
}

/// Whether a value is a number; texts are the rest.
fn is_number(value: Value) -> bool {
    matches!(value, Value::Double(_))
}

impl Tags {
    /// Begins a span whose attributes will lie from `start` on.
    pub(super) fn begin(&mut self, start: usize) {
        self.start = start;
        self.bits = [0; 2];
        self.table = None;
    }

    /// Where the attributes of the span begin.
    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// Place of a key in the table of attributes.
    pub(super) fn find(&self, out: &Batch, key: &[u8], number: bool) -> Option<usize> {
        if self.bits[usize::from(number)] & bit(key) == 0 {
            return None;
        }
        if let Some(table) = &self.table {
            return table.get(&(number, Box::from(key))).copied();
        }
        let attrs = out.attrs.get(self.start..)?;
        let same = |a: &Attr| {
            a.key.len() == key.len() && is_number(a.value) == number && out.arena.bytes(a.key) == key
        };
        Some(self.start + attrs.iter().position(same)?)
    }

    /// The text under a key.
    pub(super) fn text(&self, out: &Batch, key: &[u8]) -> Option<Text> {
        out.attrs.get(self.find(out, key, false)?)?.value.as_text()
    }

    /// The number under a key.
    pub(super) fn number(&self, out: &Batch, key: &[u8]) -> Option<f64> {
        out.attrs.get(self.find(out, key, true)?)?.value.as_f64()
    }

    /// Adds an attribute that is known to be new.
    fn add(&mut self, out: &mut Batch, key: Text, value: Value) {
        let at = out.attrs.len();
        out.attrs.push(Attr { key, value });
        let number = is_number(value);
        let bytes = out.arena.bytes(key);
        self.bits[usize::from(number)] |= bit(bytes);
        if let Some(table) = &mut self.table {
            table.insert((number, Box::from(bytes)), at);
        } else if at - self.start >= FEW {
            let attrs = out.attrs.get(self.start..).unwrap_or_default();
            let entry = |(i, a): (usize, &Attr)| {
                ((is_number(a.value), Box::from(out.arena.bytes(a.key))), self.start + i)
            };
            self.table = Some(attrs.iter().enumerate().map(entry).collect());
        }
    }

    /// Adds a text under a key of ours that is known to be new.
    pub(super) fn add_text(&mut self, out: &mut Batch, key: &'static str, text: Text) {
        let key = out.arena.push_static(key);
        self.add(out, key, Value::Str(text));
    }

    /// As [`Tags::add_text`].
    pub(super) fn add_static(&mut self, out: &mut Batch, key: &'static str, text: &'static str) {
        let text = out.arena.push_static(text);
        self.add_text(out, key, text);
    }

    /// As [`Tags::add_text`], for a number.
    pub(super) fn add_number(&mut self, out: &mut Batch, key: &'static str, number: f64) {
        let key = out.arena.push_static(key);
        self.add(out, key, Value::Double(number));
    }

    /// Sets a text, replacing one under the same key.
    pub(super) fn set(&mut self, out: &mut Batch, key: Text, text: Text) {
        match self.find(out, out.arena.bytes(key), false) {
            Some(at) => out.attrs[at].value = Value::Str(text),
            None => self.add(out, key, Value::Str(text)),
        }
    }

    /// As [`Tags::set`], under a key of ours.
    pub(super) fn set_text(&mut self, out: &mut Batch, key: &'static str, text: Text) {
        let key = out.arena.push_static(key);
        self.set(out, key, text);
    }

    /// Sets a text unless there is one that is not empty.
    pub(super) fn text_if_empty(&mut self, out: &mut Batch, key: Text, text: Text) {
        match self.find(out, out.arena.bytes(key), false) {
            Some(at) if out.attrs[at].value.as_text().is_some_and(Text::is_empty) => {
                out.attrs[at].value = Value::Str(text);
            }
            Some(_) => {}
            None => self.add(out, key, Value::Str(text)),
        }
    }

    /// Sets a number unless there is one.
    pub(super) fn number_if_absent(&mut self, out: &mut Batch, key: Text, number: f64) {
        if self.find(out, out.arena.bytes(key), true).is_none() {
            self.add(out, key, Value::Double(number));
        }
    }
}
