//! A piece of a trace: a chunk that waits. What rules ask first is written
//! before the record, so that a restart need not decode spans.
//!
//! ```text
//! version u8 | way u8
//! destinations  count, texts
//! pieces        count, then for each: trace id, destination, bits, spans,
//!               errors, start and duration, root
//! record        the chunks in the same order
//! ```

use bytes::Bytes;
use spanloom_journal::{Reader, ShortRead, Writer};
use spanloom_model::{Batch, Chunk, Span, SpanId, TraceId, flags};

const VERSION: u8 = 1;

mod bit {
    pub const EXEMPT: u8 = 1;
    pub const STARTED: u8 = 2;
    pub const ROOT: u8 = 4;
}

/// The root of a trace, as far as rules ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    /// Its start; of several roots the first one counts.
    pub start: i64,
    /// Its id, to choose among roots that start together.
    pub span: SpanId,
    /// Service.
    pub service: String,
    /// Operation.
    pub name: String,
}

/// Figures of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Its trace.
    pub id: TraceId,
    /// Position of its destination in [`Pieces::destinations`].
    pub destination: u32,
    /// To be kept whatever rules say.
    pub exempt: bool,
    /// Spans.
    pub spans: u32,
    /// Failed spans.
    pub errors: u32,
    /// Earliest start and latest end, of spans that have a start.
    pub time: Option<(i64, i64)>,
    /// Root, if it is in this chunk.
    pub root: Option<Root>,
}

impl Piece {
    /// Of a chunk. Service and operation of the root are told by `words`.
    pub fn of<'a>(
        batch: &'a Batch,
        chunk: &Chunk,
        exempt: bool,
        destination: u32,
        words: impl Fn(&'a Span) -> (&'a str, &'a str),
    ) -> Self {
        let spans = batch.chunk_spans(chunk);
        let mut piece = Self {
            id: chunk.trace_id,
            destination,
            exempt,
            spans: spans.len() as u32,
            errors: 0,
            time: None,
            root: None,
        };
        let mut root: Option<&Span> = None;
        for span in spans {
            piece.errors += u32::from(span.is_error());
            if span.flags & flags::NO_START == 0 {
                let (start, end) = piece.time.unwrap_or((span.start, span.end()));
                piece.time = Some((start.min(span.start), end.max(span.end())));
            }
            let first = |r: &Span| (span.start, span.span_id) < (r.start, r.span_id);
            if span.parent_id.is_zero() && root.is_none_or(first) {
                root = Some(span);
            }
        }
        piece.root = root.map(|span| {
            let (service, name) = words(span);
            Root { start: span.start, span: span.span_id, service: service.into(), name: name.into() }
        });
        piece
    }
}

/// The head of a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pieces {
    /// Way out.
    pub way: u8,
    /// Destinations of that way.
    pub destinations: Vec<String>,
    /// The chunks, in the order of the record.
    pub pieces: Vec<Piece>,
}

impl Pieces {
    /// The frame.
    pub fn write(&self, record: &[u8]) -> Bytes {
        let mut w = Writer { out: Vec::with_capacity(record.len() + 64 + self.pieces.len() * 96) };
        w.u8(VERSION);
        w.u8(self.way);
        w.u64(self.destinations.len() as u64);
        self.destinations.iter().for_each(|d| w.bytes(d.as_bytes()));
        w.u64(self.pieces.len() as u64);
        for p in &self.pieces {
            w.fixed64(p.id.high());
            w.fixed64(p.id.low());
            w.u64(u64::from(p.destination));
            let mut bits = 0;
            for (set, bit) in
                [(p.exempt, bit::EXEMPT), (p.time.is_some(), bit::STARTED), (p.root.is_some(), bit::ROOT)]
            {
                bits |= if set { bit } else { 0 };
            }
            w.u8(bits);
            w.u64(u64::from(p.spans));
            w.u64(u64::from(p.errors));
            if let Some((start, end)) = p.time {
                w.i64(start);
                w.i64(end.wrapping_sub(start));
            }
            if let Some(root) = &p.root {
                w.i64(root.start);
                w.fixed64(root.span.0);
                w.bytes(root.service.as_bytes());
                w.bytes(root.name.as_bytes());
            }
        }
        w.out.extend_from_slice(record);
        w.out.into()
    }

    /// The head of a frame, and where its record begins.
    pub fn read(frame: &[u8]) -> Result<(Self, usize), ShortRead> {
        let mut r = Reader::new(frame);
        if r.u8()? != VERSION {
            return Err(ShortRead);
        }
        let mut head = Self { way: r.u8()?, ..Self::default() };
        for _ in 0..r.count(1)? {
            head.destinations.push(text(&mut r)?);
        }
        for _ in 0..r.count(LEAST)? {
            let id = TraceId::from_halves(r.fixed64()?, r.fixed64()?);
            let destination = r.u32()?;
            let bits = r.u8()?;
            let (spans, errors) = (r.u32()?, r.u32()?);
            let time = if bits & bit::STARTED != 0 {
                let start = r.i64()?;
                Some((start, start.wrapping_add(r.i64()?)))
            } else {
                None
            };
            let root = if bits & bit::ROOT != 0 {
                let (start, span) = (r.i64()?, SpanId(r.fixed64()?));
                Some(Root { start, span, service: text(&mut r)?, name: text(&mut r)? })
            } else {
                None
            };
            let exempt = bits & bit::EXEMPT != 0;
            head.pieces.push(Piece { id, destination, exempt, spans, errors, time, root });
        }
        Ok((head, r.position()))
    }
}

/// Least bytes of a piece.
const LEAST: usize = 20;

fn text(r: &mut Reader<'_>) -> Result<String, ShortRead> {
    std::str::from_utf8(r.bytes()?).map(str::to_owned).map_err(|_| ShortRead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_comes_back_and_damage_is_no_panic() {
        let root = Root { start: 5, span: SpanId(9), service: "web".into(), name: "get".into() };
        let whole = Piece {
            id: TraceId(7 << 64 | 3),
            destination: 1,
            exempt: true,
            spans: 4,
            errors: 1,
            time: Some((-2, i64::MAX)),
            root: Some(root),
        };
        let bare = Piece { id: TraceId(1), time: None, root: None, exempt: false, ..whole.clone() };
        let head =
            Pieces { way: 1, destinations: vec![String::new(), "x".into()], pieces: vec![whole, bare] };
        let frame = head.write(b"record");
        assert_eq!(Pieces::read(&frame), Ok((head, frame.len() - 6)));
        for cut in 0..frame.len() - 6 {
            assert!(Pieces::read(&frame[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_piece_knows_its_errors_times_and_first_root() {
        let mut batch = Batch::default();
        let [a, b] = ["a", "b"].map(|t| batch.arena.push(t));
        let span = |id, start, parent| Span {
            span_id: SpanId(id),
            parent_id: SpanId(parent),
            start,
            duration: 10,
            service: if id == 2 { b } else { a },
            ..Span::default()
        };
        batch.spans = vec![span(3, 50, 0), span(2, 20, 0), span(4, 5, 2)];
        batch.spans[0].error = 1;
        batch.spans.push(Span { flags: flags::NO_START, parent_id: SpanId(2), ..Span::default() });
        batch.chunk_by_trace(0, 0);
        let batch = &batch;
        let words = |s: &'static str| move |_: &Span| (s, s);
        let piece = Piece::of(batch, &batch.chunks[0], false, 0, |s| (batch.str(s.service), "op"));
        assert_eq!((piece.spans, piece.errors, piece.time), (4, 1, Some((5, 60))));
        let root = piece.root.unwrap();
        assert_eq!((root.start, root.service.as_str(), root.name.as_str()), (20, "b", "op"));
        let again = Piece::of(batch, &batch.chunks[0], true, 0, words("own"));
        assert_eq!((again.exempt, again.root.unwrap().service), (true, "own".into()));
    }
}
