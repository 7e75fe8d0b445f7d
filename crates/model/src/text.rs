//! Text as a slice of what was received.
//!
//! A [`Text`] is eight bytes: an offset and a length in the [`Arena`] of its
//! batch. Decoding a tag therefore copies nothing and allocates nothing, and
//! dropping a batch of 10 000 tags frees two buffers.

use bytes::Bytes;

/// A piece of UTF-8 text (or, inside [`crate::Value::Bytes`], of raw bytes)
/// in the arena of a batch. Meaningful only together with that arena.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Text {
    start: u32,
    len: u32,
}

impl Text {
    /// The empty text, valid in every arena.
    pub const EMPTY: Self = Self { start: 0, len: 0 };
    /// A text that no arena has; reads as empty.
    pub(crate) const NOWHERE: Self = Self { start: u32::MAX, len: 0 };

    /// The text at `start` of the received body, which lies first in every
    /// arena. For decoders that have checked the bytes; a place outside of the
    /// body reads as other text or none, never worse. Both numbers are at most
    /// [`Arena::MAX_BYTES`].
    #[inline]
    pub const fn at(start: usize, len: usize) -> Self {
        Self { start: start as u32, len: len as u32 }
    }

    /// Length in bytes.
    #[inline]
    pub const fn len(self) -> usize {
        self.len as usize
    }
    /// Whether the text has no bytes.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }
    /// The part of this text from `from` to `to` (bytes, clamped to the text).
    /// The caller cuts at character boundaries.
    #[inline]
    pub fn slice(self, from: usize, to: usize) -> Self {
        let to = to.min(self.len());
        let from = from.min(to);
        Self { start: self.start + from as u32, len: (to - from) as u32 }
    }
}

/// The bytes behind the texts of one batch: the received body, unchanged and
/// shared, and a growing buffer for what processors write (a normalised name,
/// an obfuscated statement).
#[derive(Clone, Default, Debug)]
pub struct Arena {
    body: Bytes,
    extra: Vec<u8>,
    /// Static texts already in `extra`, found by address: the few keys that
    /// the processors add to every span are stored once a batch.
    statics: Vec<(&'static str, Text)>,
}

impl Arena {
    /// Largest body and largest sum of added text, in bytes. Far above every
    /// payload limit; offsets stay within 32 bits.
    pub const MAX_BYTES: usize = (u32::MAX / 2) as usize;

    /// An arena over a received (and already decompressed) body.
    ///
    /// A body beyond [`Arena::MAX_BYTES`] is cut there; receivers refuse such
    /// bodies long before.
    pub fn new(body: Bytes) -> Self {
        let body = if body.len() > Self::MAX_BYTES { body.slice(..Self::MAX_BYTES) } else { body };
        Self { body, extra: Vec::new(), statics: Vec::new() }
    }

    /// The received body.
    #[inline]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Bytes held: the body and what was added.
    pub fn size(&self) -> usize {
        self.body.len() + self.extra.capacity()
    }

    /// The text at `start..start + len` of the body, without copying. The
    /// caller has checked that the bytes are UTF-8 (decoders check each text
    /// once; see [`Arena::text_from_body`]). Out of range gives the empty text.
    #[inline]
    pub fn body_slice(&self, start: usize, len: usize) -> Text {
        if start.checked_add(len).is_some_and(|end| end <= self.body.len()) {
            Text { start: start as u32, len: len as u32 }
        } else {
            Text::EMPTY
        }
    }

    /// The text at `start..start + len` of the body. Invalid UTF-8 is repaired
    /// with U+FFFD, as the Datadog Agent does; only then is anything copied.
    #[inline]
    pub fn text_from_body(&mut self, start: usize, len: usize) -> Text {
        let text = self.body_slice(start, len);
        let bytes = &self.body[text.start as usize..text.start as usize + text.len()];
        if bytes.is_ascii() || simdutf8::basic::from_utf8(bytes).is_ok() {
            text
        } else {
            let repaired = repair(bytes);
            self.push(&repaired)
        }
    }

    /// Adds a text. Beyond [`Arena::MAX_BYTES`] of additions the empty text is
    /// returned: no input reaches that within the payload limits.
    pub fn push(&mut self, text: &str) -> Text {
        self.push_bytes(text.as_bytes())
    }

    /// Adds raw bytes (for [`crate::Value::Bytes`]).
    pub fn push_bytes(&mut self, bytes: &[u8]) -> Text {
        if bytes.is_empty() || self.extra.len() + bytes.len() > Self::MAX_BYTES {
            return Text::EMPTY;
        }
        let start = (self.body.len() + self.extra.len()) as u32;
        self.extra.extend_from_slice(bytes);
        Text { start, len: bytes.len() as u32 }
    }

    /// Adds a text of the program itself, once per batch.
    pub fn push_static(&mut self, text: &'static str) -> Text {
        if let Some((_, known)) = self.statics.iter().find(|(s, _)| std::ptr::eq(*s, text)) {
            return *known;
        }
        let added = self.push(text);
        self.statics.push((text, added));
        added
    }

    /// The bytes of a text. A text of another arena that does not fit gives
    /// no bytes; it never panics.
    #[inline]
    pub fn bytes(&self, text: Text) -> &[u8] {
        let start = text.start as usize;
        let body = self.body.len();
        if start < body {
            self.body.get(start..start + text.len()).unwrap_or_default()
        } else {
            self.extra.get(start - body..start - body + text.len()).unwrap_or_default()
        }
    }

    /// The bytes of a text and all that follow it, for copying more than is
    /// needed where that is faster.
    #[inline]
    pub fn tail(&self, text: Text) -> &[u8] {
        let start = text.start as usize;
        match start.checked_sub(self.body.len()) {
            None => &self.body[start..],
            Some(start) => self.extra.get(start..).unwrap_or_default(),
        }
    }

    /// The text as `str`. Texts are UTF-8 by construction; this checks again
    /// rather than trusting it, and gives the longest valid prefix.
    #[inline]
    pub fn str(&self, text: Text) -> &str {
        let bytes = self.bytes(text);
        match std::str::from_utf8(bytes) {
            Ok(s) => s,
            Err(e) => std::str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or_default(),
        }
    }
}

/// Replaces each byte that does not belong to a well-formed character by
/// U+FFFD, one for one (Go's `range` over a string, which the Datadog Agent
/// uses: datadog-agent:pkg/proto/pbgo/trace/decoder_bytes.go).
fn repair(mut bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 16);
    while !bytes.is_empty() {
        match std::str::from_utf8(bytes) {
            Ok(rest) => {
                out.push_str(rest);
                break;
            }
            Err(e) => {
                out.push_str(std::str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or_default());
                out.push('\u{fffd}');
                bytes = &bytes[e.valid_up_to() + 1..];
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_text_is_not_copied_and_added_text_follows() {
        let mut arena = Arena::new(Bytes::from_static(b"hello world"));
        let world = arena.text_from_body(6, 5);
        assert_eq!(arena.str(world), "world");
        assert!(arena.extra.is_empty());
        let added = arena.push("new");
        assert_eq!((arena.str(added), arena.str(world)), ("new", "world"));
        assert_eq!(arena.push_static(crate::keys::TOP_LEVEL), arena.push_static(crate::keys::TOP_LEVEL));
    }

    #[test]
    fn invalid_bytes_are_repaired_one_for_one() {
        let mut arena = Arena::new(Bytes::from_static(b"a\xff\xfeb\xe2\x82"));
        let text = arena.text_from_body(0, 6);
        assert_eq!(arena.str(text), "a\u{fffd}\u{fffd}b\u{fffd}\u{fffd}");
    }

    #[test]
    fn a_text_out_of_range_is_empty() {
        let arena = Arena::new(Bytes::from_static(b"abc"));
        assert_eq!(arena.body_slice(2, 5), Text::EMPTY);
        assert_eq!(arena.bytes(Text { start: 90, len: 4 }), b"");
    }
}
