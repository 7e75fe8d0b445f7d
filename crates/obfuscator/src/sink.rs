//! Output that stays a piece of the input as long as both agree.

use std::borrow::Cow;
use std::ops::Range;

/// Collects output. What comes from the input in one piece is kept as a range
/// of it and copied only when something else follows; a text that is one piece
/// as a whole is never copied. Statements that a client library has
/// parametrised already cost no allocation.
pub(crate) struct Sink<'a> {
    input: &'a str,
    /// The piece of the input at the end of the output, `start..end`.
    start: usize,
    end: usize,
    /// What comes before it.
    own: Option<String>,
}

impl<'a> Sink<'a> {
    pub(crate) fn new(input: &'a str) -> Self {
        Self { input, start: 0, end: 0, own: None }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end && self.own.as_ref().is_none_or(String::is_empty)
    }

    /// Adds the piece of the input at `place`, after a blank if it is `spaced`.
    #[inline]
    pub(crate) fn piece(&mut self, place: Range<usize>, spaced: bool) {
        let at = self.end + usize::from(spaced);
        if place.start == at && (!spaced || self.input.as_bytes()[self.end] == b' ') {
            self.end = place.end;
        } else {
            self.detach(place, spaced);
        }
    }

    /// Adds a `?`, after a blank if it is `spaced`.
    #[inline]
    pub(crate) fn placeholder(&mut self, spaced: bool) {
        self.fixed(if spaced { " ?" } else { "?" });
    }

    /// Adds a text of the program.
    #[inline]
    pub(crate) fn fixed(&mut self, text: &'static str) {
        if self.input.as_bytes()[self.end..].starts_with(text.as_bytes()) {
            self.end += text.len();
        } else {
            self.own().push_str(text);
            self.start = self.end;
        }
    }

    /// Adds a text.
    #[inline]
    pub(crate) fn push(&mut self, text: &str) {
        self.add(text, false);
    }

    /// Adds a blank and a text.
    #[inline]
    pub(crate) fn push_spaced(&mut self, text: &str) {
        self.add(text, true);
    }

    #[inline]
    fn add(&mut self, text: &str, spaced: bool) {
        let blank = usize::from(spaced && self.input.as_bytes().get(self.end) == Some(&b' '));
        let at = self.end + blank;
        let whole = blank == usize::from(spaced);
        let slice = self.offset(text);
        // A slice of the input right here, or a text that says the same.
        if whole && (slice == Some(at) || (slice.is_none() && self.input[at..].starts_with(text))) {
            self.end = at + text.len();
            return;
        }
        match slice {
            Some(at) => self.detach(at..at + text.len(), spaced),
            None => {
                let own = self.own();
                if spaced {
                    own.push(' ');
                }
                own.push_str(text);
                self.start = self.end;
            }
        }
    }

    /// Where in the input a text lies, if it is a part of it.
    #[inline]
    fn offset(&self, text: &str) -> Option<usize> {
        let at = (text.as_ptr() as usize).checked_sub(self.input.as_ptr() as usize)?;
        (at + text.len() <= self.input.len()).then_some(at)
    }

    /// Adds a piece of the input that does not continue the last one.
    fn detach(&mut self, place: Range<usize>, spaced: bool) {
        if spaced || self.start != self.end {
            let own = self.own();
            if spaced {
                own.push(' ');
            }
        }
        (self.start, self.end) = (place.start, place.end);
    }

    /// The copy of all that was pushed so far.
    fn own(&mut self) -> &mut String {
        // Blanks around tokens make the output a little longer at times.
        let size = self.input.len() + self.input.len() / 8 + 16;
        let own = self.own.get_or_insert_with(|| String::with_capacity(size));
        own.push_str(&self.input[self.start..self.end]);
        own
    }

    /// What was pushed; borrowed if it is a piece of the input.
    pub(crate) fn finish(self) -> Cow<'a, str> {
        let piece = &self.input[self.start..self.end];
        match self.own {
            Some(mut own) => {
                own.push_str(piece);
                Cow::Owned(own)
            }
            None => Cow::Borrowed(piece),
        }
    }
}

/// A substring of `text` with the storage of `text`: trimming costs nothing
/// when borrowed, and no new allocation when owned.
pub(crate) fn narrow(text: Cow<'_, str>, start: usize, end: usize) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[start..end]),
        Cow::Owned(mut text) => {
            text.truncate(end);
            text.drain(..start);
            Cow::Owned(text)
        }
    }
}

/// Trims white space on both sides.
pub(crate) fn trim(text: Cow<'_, str>) -> Cow<'_, str> {
    let start = text.len() - text.trim_start().len();
    let end = start + text.trim().len();
    narrow(text, start, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_equal_to_the_input_is_borrowed() {
        let mut sink = Sink::new("a b");
        sink.push("a");
        sink.push(" b");
        assert!(matches!(sink.finish(), Cow::Borrowed("a b")));
    }

    #[test]
    fn a_difference_copies_the_common_prefix() {
        let mut sink = Sink::new("a=1");
        sink.push("a=");
        sink.push("?");
        assert_eq!(sink.finish(), "a=?");
    }

    #[test]
    fn pieces_of_the_input_are_put_together() {
        let input = "  SELECT a,  b -- c";
        let mut sink = Sink::new(input);
        assert!(sink.is_empty());
        sink.push(&input[2..8]);
        assert!(!sink.is_empty());
        sink.push_spaced(&input[9..10]);
        sink.push(&input[10..11]);
        sink.push_spaced(&input[13..14]);
        sink.push_spaced("?");
        sink.push_spaced(&input[18..]);
        assert_eq!(sink.finish(), "SELECT a, b ? c");
        let mut sink = Sink::new(input);
        sink.push(&input[2..8]);
        sink.push_spaced(&input[9..10]);
        assert!(matches!(sink.finish(), Cow::Borrowed("SELECT a")));
    }

    #[test]
    fn output_longer_than_the_input_is_copied() {
        let mut sink = Sink::new("a");
        sink.push("a");
        sink.push(" ");
        assert_eq!(sink.finish(), "a ");
    }

    #[test]
    fn trimming_keeps_a_borrowed_text_borrowed() {
        assert!(matches!(trim(Cow::Borrowed(" x ")), Cow::Borrowed("x")));
        assert_eq!(trim(Cow::Owned("  x\u{3000}".into())), "x");
        assert_eq!(trim(Cow::Owned("  ".into())), "");
    }
}
