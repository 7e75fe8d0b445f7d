//! What the decoders of this crate build a batch with: a stack for attributes
//! that are still being read, and the budget of the request.
//!
//! Attributes of one owner are contiguous in [`Batch::attrs`], but a nested
//! map value or an event in between has attributes of its own. Decoders push
//! to the stack and take the top of it off when the owner is complete; inner
//! owners are complete first.

use crate::{DecodeError, Limits};
use bytes::Bytes;
use spanloom_model::{Arena, Attr, Batch, Event, Intake, Link, Range32, Scope, Span, Text, Value};

/// Scopes that a new one is compared with.
const RECENT_SCOPES: usize = 8;

/// What a decoder made of a request that may be taken in part.
#[derive(Debug, Clone, Default)]
pub struct Decoded {
    /// The spans that are valid.
    pub batch: Batch,
    /// Number of spans left out.
    pub rejected: u64,
    /// Why they were left out, for the client; empty if none was.
    pub message: String,
}

/// Spans left out of a request, by reason.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rejected {
    pub trace_id: u64,
    pub span_id: u64,
}

impl Rejected {
    pub(crate) fn finish(self, batch: Batch) -> Decoded {
        let rejected = self.trace_id + self.span_id;
        let message = match (self.trace_id, self.span_id) {
            (0, 0) => String::new(),
            (t, 0) => format!("{t} spans without a valid trace id were rejected"),
            (0, s) => format!("{s} spans without a valid span id were rejected"),
            (t, s) => {
                format!("{t} spans without a valid trace id and {s} without a valid span id were rejected")
            }
        };
        Decoded { batch, rejected, message }
    }
}

/// A batch under construction.
pub(crate) struct Build {
    pub batch: Batch,
    attrs: Vec<Attr>,
    values: Vec<Value>,
    budget: usize,
}

impl Build {
    pub(crate) fn new(body: Bytes, intake: Intake) -> Self {
        let budget = Limits::DEFAULT.budget(body.len());
        // Real bodies have an attribute in 40 to 70 bytes and a span in 300
        // to 700; a small first guess saves the first rounds of growth.
        let attrs = Vec::with_capacity((body.len() / 128).clamp(16, 1 << 16));
        let batch = Batch { attrs, ..Batch::new(Arena::new(body), intake) };
        Self { batch, attrs: Vec::new(), values: Vec::new(), budget }
    }

    /// Accounts for memory; an error when the body asks for more than bodies
    /// of its size may.
    #[inline]
    pub(crate) fn charge(&mut self, bytes: usize) -> Result<(), DecodeError> {
        match self.budget.checked_sub(bytes) {
            Some(left) => {
                self.budget = left;
                Ok(())
            }
            None => Err(too_large()),
        }
    }

    /// Height of the attribute stack, to be given to [`Build::take_attrs`].
    #[inline]
    pub(crate) fn mark(&self) -> usize {
        self.attrs.len()
    }

    /// Adds an attribute to the owner being read.
    #[inline]
    pub(crate) fn attr(&mut self, key: Text, value: Value) -> Result<(), DecodeError> {
        self.charge(size_of::<Attr>())?;
        self.attrs.push(Attr { key, value });
        Ok(())
    }

    /// Attributes read since the mark.
    #[inline]
    pub(crate) fn pending(&self, mark: usize) -> &[Attr] {
        self.attrs.get(mark..).unwrap_or_default()
    }

    /// Puts other attributes in the place of those read since the mark.
    pub(crate) fn replace_pending(&mut self, mark: usize, attrs: &[Attr]) {
        self.attrs.truncate(mark);
        self.attrs.extend_from_slice(attrs);
    }

    /// Takes one of the attributes read since the mark out.
    pub(crate) fn remove_pending(&mut self, mark: usize, index: usize) -> Attr {
        self.attrs.remove(mark + index)
    }

    /// Moves the attributes read since the mark to the batch.
    #[inline]
    pub(crate) fn take_attrs(&mut self, mark: usize) -> Range32 {
        let start = self.batch.attrs.len();
        self.batch.attrs.extend_from_slice(&self.attrs[mark..]);
        self.attrs.truncate(mark);
        Range32::new(start, self.batch.attrs.len())
    }

    /// As [`Build::mark`], for elements of lists.
    #[inline]
    pub(crate) fn value_mark(&self) -> usize {
        self.values.len()
    }

    /// Adds an element to the list being read.
    #[inline]
    pub(crate) fn value(&mut self, value: Value) -> Result<(), DecodeError> {
        self.charge(size_of::<Value>())?;
        self.values.push(value);
        Ok(())
    }

    /// Moves the elements read since the mark to the batch.
    pub(crate) fn take_values(&mut self, mark: usize) -> Range32 {
        let start = self.batch.values.len();
        self.batch.values.extend_from_slice(&self.values[mark..]);
        self.values.truncate(mark);
        Range32::new(start, self.batch.values.len())
    }

    /// Adds an event of the span being read.
    #[inline]
    pub(crate) fn event(&mut self, event: Event) -> Result<(), DecodeError> {
        self.charge(size_of::<Event>())?;
        self.batch.events.push(event);
        Ok(())
    }

    /// Adds a link of the span being read.
    #[inline]
    pub(crate) fn link(&mut self, link: Link) -> Result<(), DecodeError> {
        self.charge(size_of::<Link>())?;
        self.batch.links.push(link);
        Ok(())
    }

    /// The scope of a name and version. Only recent ones are looked through:
    /// a request names few.
    pub(crate) fn intern_scope(&mut self, [name, version]: [Text; 2]) -> Result<u32, DecodeError> {
        let batch = &self.batch;
        let first = batch.scopes.len().saturating_sub(RECENT_SCOPES);
        let bytes = |t| batch.arena.bytes(t);
        let known = batch.scopes[first..]
            .iter()
            .position(|s| bytes(s.name) == bytes(name) && bytes(s.version) == bytes(version));
        if let Some(i) = known {
            return Ok((first + i) as u32);
        }
        self.charge(size_of::<Scope>())?;
        self.batch.scopes.push(Scope { name, version, ..Scope::default() });
        Ok(self.batch.scopes.len() as u32 - 1)
    }

    /// Adds a span.
    #[inline]
    pub(crate) fn span(&mut self, span: Span) -> Result<(), DecodeError> {
        self.charge(size_of::<Span>())?;
        self.batch.spans.push(span);
        Ok(())
    }
}

#[cold]
fn too_large() -> DecodeError {
    DecodeError::Limit("the body expands to more memory than a body of its size may".into())
}
