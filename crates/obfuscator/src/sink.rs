//! Output that stays a slice of the input as long as both agree.

use std::borrow::Cow;

/// Collects output. While everything pushed equals the input at the same
/// place, only a length is kept; the first difference copies the prefix.
/// Statements that a client library has parametrised already cost no allocation.
pub(crate) struct Sink<'a> {
    input: &'a str,
    same: usize,
    own: Option<String>,
}

impl<'a> Sink<'a> {
    pub(crate) fn new(input: &'a str) -> Self {
        Self { input, same: 0, own: None }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.own.as_ref().map_or(self.same == 0, String::is_empty)
    }

    #[inline]
    pub(crate) fn push(&mut self, text: &str) {
        match &mut self.own {
            Some(own) => own.push_str(text),
            None => self.compare(text),
        }
    }

    fn compare(&mut self, text: &str) {
        let rest = &self.input.as_bytes()[self.same..];
        if rest.starts_with(text.as_bytes()) {
            self.same += text.len();
        } else {
            // Blanks around tokens make the output a little longer at times.
            let mut own = String::with_capacity(self.input.len() + self.input.len() / 8 + text.len());
            own.push_str(&self.input[..self.same]);
            own.push_str(text);
            self.own = Some(own);
        }
    }

    /// What was pushed; borrowed if it is a prefix of the input.
    pub(crate) fn finish(self) -> Cow<'a, str> {
        match self.own {
            Some(own) => Cow::Owned(own),
            None => Cow::Borrowed(&self.input[..self.same]),
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
