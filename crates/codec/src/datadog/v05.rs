//! v0.5: a dictionary of texts, and spans as arrays of twelve over it.

use super::RequestMeta;
use super::builder::{Builder, Marks};
use crate::msgpack::{Error, Reader, Result, Rule};
use spanloom_model::{Chunk, SpanId, Text, TraceId, Value, key_hash, keys};

/// A text of the dictionary, with what is asked about it for every tag.
#[derive(Clone, Copy)]
struct Entry {
    text: Text,
    hash: u8,
    /// Whether [`Marks`] wants to see values under this key.
    marked: bool,
}

/// Elements of a span.
const FIELDS: usize = 12;

pub(super) fn decode(b: &mut Builder, body: &[u8], meta: &RequestMeta<'_>) -> Result<()> {
    b.resource_from_headers(meta);
    let mut r = Reader::new(body);
    let max = b.limits.elements as usize;
    // The outer length is not checked: only what is read must be there.
    r.array_header()?;
    let n = array(&mut r, max)?;
    b.charge(n, size_of::<Entry>())?;
    let mut dict: Vec<Entry> = Vec::with_capacity(n);
    for _ in 0..n {
        let pos = r.str_or_nil()?;
        let bytes = r.bytes(pos);
        let marked = bytes == keys::SPAN_KIND.as_bytes() || bytes == keys::TRACE_ID_HIGH.as_bytes();
        let text = b.text(&r, pos);
        // Of the text as it is kept: one that is not UTF-8 has been repaired.
        dict.push(Entry { text, hash: key_hash(b.batch.arena.bytes(text)), marked });
    }
    let chunks = array(&mut r, max)?;
    b.expect(100, 7);
    for i in 0..chunks {
        b.chunk = i;
        let (first, tids) = (b.batch.spans.len(), b.tids_seen());
        let spans = array(&mut r, max)?;
        b.batch.spans.reserve(spans.min(r.left() / 16 + 1));
        for j in 0..spans {
            b.span = j;
            if !r.nil() {
                span(b, &mut r, &dict)?;
            }
        }
        b.close_chunk(first, tids, Chunk::default())?;
    }
    b.join_ids();
    Ok(())
}

/// An array header in the words of the Agent's v0.5 decoder.
fn array(r: &mut Reader<'_>, max: usize) -> Result<usize> {
    r.array(max).map_err(|e| if e == Error::TooManyElements { Error::TooLong } else { e })
}

#[inline]
fn entry(r: &mut Reader<'_>, dict: &[Entry]) -> Result<Entry> {
    let index = r.reference()?;
    match usize::try_from(index).ok().and_then(|i| dict.get(i)) {
        Some(entry) => Ok(*entry),
        None => Err(Error::Dictionary(index)),
    }
}

#[inline]
fn span(b: &mut Builder, r: &mut Reader<'_>, dict: &[Entry]) -> Result<()> {
    if array(r, usize::MAX)? != FIELDS {
        return Err(Error::Rule(Rule::SpanElements));
    }
    let mut span = Builder::new_span();
    span.service = entry(r, dict)?.text;
    span.name = entry(r, dict)?.text;
    span.resource = entry(r, dict)?.text;
    span.trace_id = TraceId(r.id_or_nil()?.into());
    span.span_id = SpanId(r.id_or_nil()?);
    span.parent_id = SpanId(r.id_or_nil()?);
    span.start = r.int_or_nil()?;
    span.duration = r.int_or_nil()?;
    span.error = r.int32_or_nil()?;

    let mut marks = Marks::default();
    let max = b.limits.elements as usize;
    let start = b.batch.attrs.len();
    let n = map(r, max)?;
    let mut set = b.open(n)?;
    for _ in 0..n {
        let key = entry(r, dict)?;
        let value = entry(r, dict)?;
        if key.marked {
            marks.note_slow(b.batch.arena.bytes(key.text), b.batch.arena.bytes(value.text));
        }
        b.add(&mut set, key.text, key.hash, || Value::Str(value.text));
    }
    let mut seen = set.keys();
    b.close(set);
    let n = map(r, max)?;
    let mut set = b.open(n)?;
    for _ in 0..n {
        let key = entry(r, dict)?;
        let value = r.float_or_nil()?;
        b.add(&mut set, key.text, key.hash, || Value::Double(value));
    }
    seen.join(set.keys());
    b.close(set);
    span.attrs = b.end_attrs(start);
    span.keys = seen;
    span.span_type = entry(r, dict)?.text;
    b.push_span(span, marks)
}

fn map(r: &mut Reader<'_>, max: usize) -> Result<usize> {
    r.map(max).map_err(|e| if e == Error::TooManyElements { Error::TooLong } else { e })
}
