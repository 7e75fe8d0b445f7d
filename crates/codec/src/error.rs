//! Why a body could not be decoded, and the bounds that keep hostile bodies
//! cheap.

use std::borrow::Cow;

/// Why a body could not be decoded. The variant, not the text, decides the
/// answer: the Datadog receiver maps it with [`DecodeError::drop_reason`] and
/// the other fields of its failure table, the other receivers answer 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes ended inside a binary value (an empty msgpack body too). The
    /// text is the one the Datadog Agent answers with.
    #[error("msgp: too few bytes left to read object")]
    TooFewBytes,
    /// The text ended inside a document (an empty JSON body too).
    #[error("unexpected-eof")]
    UnexpectedEof,
    /// A bound of [`Limits`] was exceeded.
    #[error("{0}")]
    Limit(Cow<'static, str>),
    /// The body has no decoder for what it says it is.
    #[error("unsupported media type: \"{0}\"")]
    UnsupportedMediaType(Cow<'static, str>),
    /// Anything else, with what is wrong and where.
    #[error("{0}")]
    Malformed(Cow<'static, str>),
}

impl DecodeError {
    /// An error with a text of the program.
    pub const fn new(text: &'static str) -> Self {
        Self::Malformed(Cow::Borrowed(text))
    }

    /// An error with a text made for the occasion.
    pub fn text(text: String) -> Self {
        Self::Malformed(Cow::Owned(text))
    }

    /// Label under which the traces of the body are counted as lost: the
    /// reasons of the Datadog Agent (datadog-agent:pkg/trace/api/api.go).
    pub const fn drop_reason(&self) -> &'static str {
        match self {
            Self::TooFewBytes => "msgp_short_bytes",
            Self::UnexpectedEof => "unexpected_eof",
            Self::UnsupportedMediaType(_) => "unsupported_media_type",
            Self::Limit(_) | Self::Malformed(_) => "decoding_error",
        }
    }
}

/// Bounds of every decoder. The body itself is bounded by the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Deepest nesting of arrays, maps and messages inside one value.
    pub depth: u32,
    /// Most elements that one array or map may announce (each element is at
    /// least one byte, so the body bounds the count as well).
    pub elements: u32,
    /// Most bytes that a decoded batch may take, as a multiple of the body
    /// ([`Limits::FREE`] bytes come on top). Real bodies stay below 6; a body
    /// made of the shortest conceivable spans would reach 170.
    pub expansion: u32,
}

impl Limits {
    /// What real clients stay far below: 64 levels, 25 million elements (the
    /// Datadog Agent's own bound, datadog-agent:pkg/proto/pbgo/trace/decoder_bytes.go).
    pub const DEFAULT: Self = Self { depth: 64, elements: 25_000_000, expansion: 16 };

    /// Bytes that every batch may take, however small its body.
    pub const FREE: usize = 1 << 20;

    /// Bytes that the batch of a body may take.
    pub const fn budget(&self, body: usize) -> usize {
        body.saturating_mul(self.expansion as usize).saturating_add(Self::FREE)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
