//! Typed attributes. All attributes of a batch lie in one table; an owner
//! (span, resource, event …) holds the [`Range32`] that is its own.

use crate::Text;

/// Half-open range of 32-bit positions in one of a batch's tables.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Range32 {
    /// First position.
    pub start: u32,
    /// One past the last position.
    pub end: u32,
}

impl Range32 {
    /// The range from `start` to `end`.
    #[inline]
    pub const fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }
    /// Number of positions.
    #[inline]
    pub const fn len(self) -> usize {
        (self.end - self.start) as usize
    }
    /// Whether the range has no position.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }
    /// As a range for slicing.
    #[inline]
    pub const fn usize(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// One attribute. Datadog's `meta` entries are [`Value::Str`], `metrics`
/// entries [`Value::Double`], `meta_struct` entries [`Value::Bytes`]; the same
/// key may stand in more than one of the three.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Attr {
    /// Name of the attribute.
    pub key: Text,
    /// Its value.
    pub value: Value,
}

impl Attr {
    /// Free room after the attributes of an owner, for one that is added
    /// later: without it the others would have to move. Belongs to no range.
    pub const ROOM: Self = Self { key: Text::NOWHERE, value: Value::Empty };

    #[inline]
    pub(crate) fn is_room(&self) -> bool {
        self.key == Text::NOWHERE
    }
}

/// A typed value.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub enum Value {
    /// No value (OTLP allows an attribute without one).
    #[default]
    Empty,
    /// Text.
    Str(Text),
    /// Truth value.
    Bool(bool),
    /// Signed integer.
    Int(i64),
    /// Floating-point number.
    Double(f64),
    /// Raw bytes.
    Bytes(Text),
    /// List: positions in [`crate::Batch::values`].
    List(Range32),
    /// Key-value list: positions in [`crate::Batch::attrs`].
    Map(Range32),
}

impl Value {
    /// The number, if the value is an integer or a floating-point number.
    #[inline]
    pub fn as_f64(self) -> Option<f64> {
        match self {
            Self::Double(v) => Some(v),
            Self::Int(v) => Some(v as f64),
            _ => None,
        }
    }
    /// The text, if the value is one.
    #[inline]
    pub fn as_text(self) -> Option<Text> {
        match self {
            Self::Str(t) => Some(t),
            _ => None,
        }
    }
}
