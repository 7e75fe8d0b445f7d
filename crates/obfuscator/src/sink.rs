//! Output that stays a piece of the input as long as both agree.

use std::borrow::Cow;

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
        self.detach(text, slice, spaced);
    }

    /// Where in the input a text lies, if it is a part of it.
    #[inline]
    fn offset(&self, text: &str) -> Option<usize> {
        let at = (text.as_ptr() as usize).checked_sub(self.input.as_ptr() as usize)?;
        (at + text.len() <= self.input.len()).then_some(at)
    }

    /// Adds a text that does not continue the piece.
    fn detach(&mut self, text: &str, slice: Option<usize>, spaced: bool) {
        if spaced || slice.is_none() || !self.is_empty() {
            let piece = &self.input[self.start..self.end];
            // Blanks around tokens make the output a little longer at times.
            let size = self.input.len() + self.input.len() / 8 + text.len();
            let own = self.own.get_or_insert_with(|| String::with_capacity(size));
            own.push_str(piece);
            if spaced {
                own.push(' ');
            }
            if slice.is_none() {
                own.push_str(text);
            }
        }
        match slice {
            Some(at) => (self.start, self.end) = (at, at + text.len()),
            None => self.start = self.end,
        }
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
