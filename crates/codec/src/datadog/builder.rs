//! What the decoders of all versions share.

use super::RequestMeta;
use crate::msgpack::{Error, Reader, Result, Span as Pos};
use crate::{DecodeError, Limits};
use bytes::Bytes;
use spanloom_model::{
    Arena, Attr, Batch, Chunk, Event, Intake, KeyBits, Link, NO_SCOPE, Range32, Resource, Span, SpanId,
    SpanKind, Status, Text, TraceId, Value, key_hash, key_hash_of, keys,
};
use std::collections::HashMap;

/// Largest announced length in the Agent's generated decoders (v0.4, v0.7).
pub(super) const MAX_GENERATED: usize = 500_000;

/// Up to this many keys, duplicates are found while a map is read; larger maps
/// are gone over once more at their end, so that no map costs quadratic time.
const SCANNED_KEYS: usize = 128;

/// The batch being built, and where in the body the decoder is.
pub(super) struct Builder {
    pub batch: Batch,
    pub limits: Limits,
    /// Bytes that the tables may still take.
    budget: usize,
    /// (low, high) halves of the trace ids for which a `_dd.p.tid` was seen,
    /// in order of arrival.
    tids: Vec<(u64, u64)>,
    /// Chunk and span being read, and the field at fault: for messages only.
    pub chunk: usize,
    pub span: usize,
    field: &'static str,
}

/// Keys of the map being read: finds duplicates at the price of a bit test.
pub(super) struct KeySet {
    /// Position in the attribute table of the first key.
    start: usize,
    bits: [u64; 4],
}

/// What the attributes of a v0.x span say that the model wants as fields.
#[derive(Default, Clone, Copy)]
pub(super) struct Marks {
    /// Upper half of the trace id; 0 if the span has none.
    pub high: u64,
    pub kind: SpanKind,
}

impl Builder {
    pub fn new(body: Bytes, intake: Intake, limits: Limits) -> Self {
        let budget = limits.budget(body.len());
        Self {
            batch: Batch::new(Arena::new(body), intake),
            limits,
            budget,
            tids: Vec::new(),
            chunk: 0,
            span: 0,
            field: "",
        }
    }

    /// Reserves for a body of spans that take `span` bytes and attributes that
    /// take `attr` bytes each on the wire: what the busiest tracers send.
    /// Memory that is not used is not touched.
    pub fn expect(&mut self, span: usize, attr: usize) {
        let body = self.batch.arena.body().len();
        self.batch.spans.reserve(body / span + 1);
        self.batch.attrs.reserve(body / attr + 1);
    }

    /// Takes room for `n` items of `size` bytes out of the budget.
    #[inline]
    pub fn charge(&mut self, n: usize, size: usize) -> Result<()> {
        match self.budget.checked_sub(n.saturating_mul(size)) {
            Some(left) => {
                self.budget = left;
                Ok(())
            }
            None => Err(Error::TooLarge),
        }
    }

    /// Remembers the field at which an error happened.
    #[cold]
    pub fn at(&mut self, field: &'static str, error: Error) -> Error {
        self.field = field;
        error
    }

    /// The error to answer with, with the place where it happened.
    #[cold]
    pub fn place(&self, error: Error) -> DecodeError {
        match error {
            Error::TooFewBytes => DecodeError::TooFewBytes,
            Error::Rule(_) | Error::Dictionary(_) | Error::Unseen(_) | Error::AnyValue(_) => {
                DecodeError::text(error.to_string())
            }
            Error::TooManyElements | Error::TooLong | Error::TooDeep | Error::TooLarge => {
                DecodeError::Limit(error.to_string().into())
            }
            _ if self.field.is_empty() => DecodeError::text(error.to_string()),
            _ => DecodeError::text(format!("{error} at {}/{}/{}", self.chunk, self.span, self.field)),
        }
    }

    /// A text of the body, repaired if it is not UTF-8.
    pub fn text(&mut self, r: &Reader<'_>, pos: Pos) -> Text {
        if r.bytes(pos).is_ascii() {
            Text::at(pos.start, pos.len)
        } else {
            self.batch.arena.text_from_body(pos.start, pos.len)
        }
    }

    /// Tolerant string.
    #[inline(always)]
    pub fn lax_text(&mut self, r: &mut Reader<'_>) -> Result<Text> {
        match r.short_ascii() {
            Some(pos) => Ok(Text::at(pos.start, pos.len)),
            None => self.lax_text_any(r),
        }
    }

    #[inline(never)]
    fn lax_text_any(&mut self, r: &mut Reader<'_>) -> Result<Text> {
        let pos = r.str_or_nil()?;
        Ok(self.text(r, pos))
    }

    /// Tolerant string that is a key, with its [`key_hash`].
    #[inline(always)]
    pub fn lax_key(&mut self, r: &mut Reader<'_>) -> Result<(Text, u8)> {
        match r.short_ascii() {
            Some(pos) => Ok((Text::at(pos.start, pos.len), key_hash_of(r.tail(pos), pos.len))),
            None => {
                let text = self.lax_text_any(r)?;
                Ok((text, key_hash(self.batch.arena.bytes(text))))
            }
        }
    }

    /// Strict string. One that is not UTF-8 is repaired like the tolerant
    /// ones; the Agent would forward it and lose it at its intake.
    pub fn strict_text(&mut self, r: &mut Reader<'_>) -> Result<Text> {
        let pos = r.str()?;
        Ok(self.text(r, pos))
    }

    /// Key of a map, a strict string, with its hash.
    pub fn strict_key(&mut self, r: &mut Reader<'_>) -> Result<(Text, u8)> {
        let pos = r.str()?;
        Ok((self.text(r, pos), key_hash(r.bytes(pos))))
    }

    /// Raw bytes of the body.
    #[inline]
    pub fn raw(&self, pos: Pos) -> Text {
        self.batch.arena.body_slice(pos.start, pos.len)
    }

    /// Prepares for a map of `n` attributes.
    #[inline]
    pub fn open(&mut self, n: usize) -> Result<KeySet> {
        self.charge(n, size_of::<Attr>())?;
        // Not all at once for what is only announced so far.
        self.batch.attrs.reserve(n.min(1024));
        Ok(KeySet { start: self.batch.attrs.len(), bits: [0; 4] })
    }

    /// Adds an attribute to the open map; under a key that is there already
    /// the value is replaced. `hash` is [`key_hash`] of the key.
    ///
    /// The value is made where it goes to. Made aside and copied, its parts
    /// would be stored one by one and loaded as one right after, which stalls
    /// the processor for each attribute: a third of the decoding time.
    #[inline(always)]
    pub fn add(&mut self, set: &mut KeySet, key: Text, hash: u8, value: impl Fn() -> Value) {
        let (word, bit) = (usize::from(hash >> 6), 1u64 << (hash & 63));
        if set.bits[word] & bit != 0
            && let Some(attr) = self.same_key(set.start, key)
        {
            attr.value = value();
            return;
        }
        set.bits[word] |= bit;
        self.batch.attrs.push(Attr { key: Text::EMPTY, value: Value::Empty });
        if let Some(attr) = self.batch.attrs.last_mut() {
            attr.key = key;
            attr.value = value();
        }
    }

    #[inline(never)]
    fn same_key(&mut self, start: usize, key: Text) -> Option<&mut Attr> {
        if self.batch.attrs.len() - start > SCANNED_KEYS {
            return None;
        }
        let arena = &self.batch.arena;
        let same = |a: &&mut Attr| a.key.len() == key.len() && arena.bytes(a.key) == arena.bytes(key);
        self.batch.attrs[start..].iter_mut().find(same)
    }

    /// Ends the open map: its attributes are those from its start on.
    #[inline]
    pub fn close(&mut self, set: KeySet) -> Range32 {
        if self.batch.attrs.len() - set.start > SCANNED_KEYS {
            let kept = dedup(&self.batch.arena, &mut self.batch.attrs[set.start..]);
            self.batch.attrs.truncate(set.start + kept);
        }
        Range32::new(set.start, self.batch.attrs.len())
    }

    /// Ends the attributes of a span, which begin at `start`. Room stays for one
    /// more: most spans that enter a service are marked so later.
    #[inline]
    pub fn end_attrs(&mut self, start: usize) -> Range32 {
        let end = self.batch.attrs.len();
        self.batch.attrs.push(Attr::ROOM);
        Range32::new(start, end)
    }

    /// A map of strict strings.
    pub fn string_map(&mut self, r: &mut Reader<'_>) -> Result<Range32> {
        let n = r.map(MAX_GENERATED)?;
        let mut set = self.open(n)?;
        for _ in 0..n {
            let (key, hash) = self.strict_key(r)?;
            let value = self.strict_text(r)?;
            self.add(&mut set, key, hash, || Value::Str(value));
        }
        Ok(self.close(set))
    }

    /// Adds a link to the open list.
    pub fn push_link(&mut self, link: Link) -> Result<()> {
        self.charge(1, size_of::<Link>())?;
        self.batch.links.push(link);
        Ok(())
    }

    /// Adds an event to the open list.
    pub fn push_event(&mut self, event: Event) -> Result<()> {
        self.charge(1, size_of::<Event>())?;
        self.batch.events.push(event);
        Ok(())
    }

    /// A span to fill in.
    #[inline]
    pub const fn new_span() -> Span {
        Span {
            trace_id: TraceId(0),
            span_id: SpanId(0),
            parent_id: SpanId(0),
            start: 0,
            duration: 0,
            service: Text::EMPTY,
            name: Text::EMPTY,
            resource: Text::EMPTY,
            span_type: Text::EMPTY,
            trace_state: Text::EMPTY,
            status_message: Text::EMPTY,
            attrs: Range32 { start: 0, end: 0 },
            keys: KeyBits::ANY,
            links: Range32 { start: 0, end: 0 },
            events: Range32 { start: 0, end: 0 },
            scope: NO_SCOPE,
            error: 0,
            flags: 0,
            dropped: [0; 3],
            kind: SpanKind::Unspecified,
            status: Status::Unset,
        }
    }

    /// Adds a v0.x span. Its trace id is the low half until
    /// [`Builder::join_ids`]; the high half is remembered.
    #[inline]
    pub fn push_span(&mut self, mut span: Span, marks: Marks) -> Result<()> {
        self.charge(1, size_of::<Span>() + size_of::<Attr>())?;
        span.kind = marks.kind;
        if span.error != 0 {
            span.status = Status::Error;
        }
        if marks.high != 0 {
            let pair = (span.trace_id.low(), marks.high);
            if self.tids.last() != Some(&pair) {
                self.tids.push(pair);
            }
        }
        self.batch.spans.push(span);
        Ok(())
    }

    /// Number of `_dd.p.tid` seen so far: where a chunk's own begin.
    pub fn tids_seen(&self) -> usize {
        self.tids.len()
    }

    /// Ends a chunk of v0.x spans whose `_dd.p.tid` begin at `tids`.
    /// `template` has what the wire says about the chunk.
    pub fn close_chunk(&mut self, first: usize, tids: usize, template: Chunk) -> Result<()> {
        let end = self.batch.spans.len();
        self.charge(1, size_of::<Chunk>())?;
        let low = self.batch.spans.get(first).map_or(0, |s| s.trace_id.low());
        let own = self.tids.get(tids..).unwrap_or_default().iter().find(|(l, _)| *l == low);
        self.batch.chunks.push(Chunk {
            spans: Range32::new(first, end),
            trace_id: TraceId::from_halves(own.map_or(0, |(_, high)| *high), low),
            ..template
        });
        Ok(())
    }

    /// Gives every span the upper half of its trace id: that of its chunk,
    /// else one that came in another chunk of the payload with the same lower
    /// half (tracers send it on one span of a trace only).
    pub fn join_ids(&mut self) {
        if self.tids.is_empty() {
            return;
        }
        let mut sorted = false;
        let tids = &mut self.tids;
        let mut find = |low: u64| {
            if !sorted {
                tids.sort_by_key(|(low, _)| *low); // stable: the first that came wins
                tids.dedup_by_key(|(low, _)| *low);
                sorted = true;
            }
            let high = tids.binary_search_by_key(&low, |(low, _)| *low).map_or(0, |i| tids[i].1);
            TraceId::from_halves(high, low)
        };
        for chunk in &mut self.batch.chunks {
            let low = chunk.trace_id.low();
            if chunk.trace_id.high() == 0 {
                chunk.trace_id = find(low);
            }
            for span in &mut self.batch.spans[chunk.spans.usize()] {
                span.trace_id =
                    if span.trace_id.low() == low { chunk.trace_id } else { find(span.trace_id.low()) };
            }
        }
    }

    /// The sender of a v0.1–v0.5 payload, who is described by headers only.
    pub fn resource_from_headers(&mut self, meta: &RequestMeta<'_>) {
        let arena = &mut self.batch.arena;
        let resource = Resource {
            container_id: arena.push(meta.container_id),
            language_name: arena.push(meta.lang),
            language_version: arena.push(meta.lang_version),
            tracer_version: arena.push(meta.tracer_version),
            ..Resource::default()
        };
        self.batch.resources.push(resource);
    }

    /// Attaches the process tags: the payload's own, else those of its first
    /// span, else the header's.
    pub fn finish(&mut self, meta: &RequestMeta<'_>) {
        let b = &mut self.batch;
        let Some(resource) = b.resources.first().copied() else { return };
        b.client_language = if b.str(resource.language_name) == meta.lang {
            resource.language_name
        } else {
            b.arena.push(meta.lang)
        };
        if b.get_text(resource.attrs, keys::PROCESS_TAGS).is_some() {
            return;
        }
        let first = b.chunks.iter().find(|c| !c.spans.is_empty()).map(|c| c.spans.start as usize);
        let span = first.and_then(|i| b.spans.get(i));
        let of_span = span.and_then(|s| b.get_text(s.attrs, keys::PROCESS_TAGS)).filter(|t| !t.is_empty());
        let value = match of_span {
            Some(text) => text,
            None if meta.process_tags.is_empty() => return,
            None => b.arena.push(meta.process_tags),
        };
        let key = b.arena.push_static(keys::PROCESS_TAGS);
        let attrs = b.extend_range(resource.attrs, Attr { key, value: Value::Str(value) });
        if let Some(resource) = b.resources.first_mut() {
            resource.attrs = attrs;
        }
    }
}

impl KeySet {
    /// The keys seen.
    #[inline]
    pub fn keys(&self) -> KeyBits {
        KeyBits::from_hashes(self.bits)
    }
}

impl Marks {
    /// Looks at a text attribute for what the model has as fields.
    #[inline]
    pub fn note(&mut self, arena: &Arena, key: Text, value: Text) {
        // Both keys of interest have nine bytes.
        if key.len() == keys::SPAN_KIND.len() {
            self.note_slow(arena.bytes(key), arena.bytes(value));
        }
    }

    #[inline(never)]
    pub fn note_slow(&mut self, key: &[u8], value: &[u8]) {
        if key == keys::SPAN_KIND.as_bytes() {
            self.kind = match value {
                b"client" => SpanKind::Client,
                b"server" => SpanKind::Server,
                b"internal" => SpanKind::Internal,
                other => {
                    SpanKind::from_name(std::str::from_utf8(other).unwrap_or_default()).unwrap_or_default()
                }
            };
        } else if key == keys::TRACE_ID_HIGH.as_bytes() {
            let hex = std::str::from_utf8(value).unwrap_or_default();
            self.high = SpanId::parse_hex(hex).unwrap_or_default().0;
        }
    }
}

/// Keeps one attribute per key, with the last value. Returns how many remain
/// at the front.
pub(super) fn dedup(arena: &Arena, attrs: &mut [Attr]) -> usize {
    let mut seen: HashMap<&[u8], usize> = HashMap::with_capacity(attrs.len());
    let mut kept = 0;
    for i in 0..attrs.len() {
        let attr = attrs[i];
        let at = *seen.entry(arena.bytes(attr.key)).or_insert(kept);
        attrs[at] = attr;
        kept += usize::from(at == kept);
    }
    kept
}
