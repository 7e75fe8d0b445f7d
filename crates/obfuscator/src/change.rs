//! What becomes of a text, without the text itself.

use std::borrow::Cow;
use std::ops::Range;

/// What an obfuscator makes of a text, for callers that hold the text in
/// a store of their own and change that: it does not borrow from the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<'c> {
    /// It stays as it is.
    None,
    /// Only this part of it stays (bytes).
    Part(Range<usize>),
    /// This stands in its place.
    Text(Cow<'c, str>),
}

impl Change<'_> {
    /// From `text` to what an obfuscator answered to it.
    pub fn between(text: &str, result: Cow<'_, str>) -> Change<'static> {
        match result {
            Cow::Owned(result) => Change::Text(Cow::Owned(result)),
            Cow::Borrowed(result) => {
                // A part of the text, most often all of it, or a text of the program.
                let start = (result.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
                match start.checked_add(result.len()) {
                    Some(end) if end <= text.len() && end - start == text.len() => Change::None,
                    Some(end) if end <= text.len() => Change::Part(start..end),
                    _ => Change::Text(Cow::Owned(result.to_owned())),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_from_other_texts() {
        let text = String::from("abc");
        assert_eq!(Change::between(&text, Cow::Borrowed(&text)), Change::None);
        assert_eq!(Change::between(&text, Cow::Borrowed(&text[1..])), Change::Part(1..3));
        assert_eq!(Change::between(&text, Cow::Borrowed("b")), Change::Text("b".into()));
        assert_eq!(Change::between(&text, Cow::Owned("?".into())), Change::Text("?".into()));
    }
}
