//! Where the spans of a chunk are, by id.

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use spanloom_model::{Batch, Chunk, Range32, SpanId};
use std::hash::BuildHasher;

/// Chunks of up to so many spans are looked through instead.
const FEW: usize = 16;

/// Positions of the spans of one chunk by id; of equal ids the last one's, as
/// a map would have it. Kept from chunk to chunk, so that none allocates.
#[derive(Default)]
pub struct SpanIds {
    chunk: Range32,
    table: HashTable<u32>,
    hasher: RandomState,
}

impl SpanIds {
    /// Takes up a chunk. Returns how many of its spans have an id that another
    /// one before them has.
    pub fn read(&mut self, batch: &Batch, chunk: &Chunk) -> usize {
        let spans = batch.chunk_spans(chunk);
        self.chunk = chunk.spans;
        self.table.clear();
        if spans.len() <= FEW {
            let again = |(i, id): (usize, SpanId)| spans[..i].iter().any(|s| s.span_id == id);
            return spans.iter().map(|s| s.span_id).enumerate().filter(|at| again(*at)).count();
        }
        let hash = |i: u32| self.hasher.hash_one(spans[i as usize].span_id.0);
        self.table.reserve(spans.len(), |i| hash(*i));
        let mut duplicates = 0;
        for (i, span) in spans.iter().enumerate() {
            let same = |known: &u32| spans[*known as usize].span_id == span.span_id;
            match self.table.entry(hash(i as u32), same, |i| hash(*i)) {
                hashbrown::hash_table::Entry::Occupied(mut known) => {
                    duplicates += 1;
                    *known.get_mut() = i as u32;
                }
                hashbrown::hash_table::Entry::Vacant(free) => drop(free.insert(i as u32)),
            }
        }
        duplicates
    }

    /// Position in the batch of a span of the chunk that was read last, whose
    /// ids must be the same still.
    #[inline]
    pub fn position(&self, batch: &Batch, id: SpanId) -> Option<usize> {
        let start = self.chunk.start as usize;
        let spans = batch.spans.get(self.chunk.usize())?;
        let found = if spans.len() <= FEW {
            spans.iter().rposition(|s| s.span_id == id)
        } else {
            let same = |i: &u32| spans.get(*i as usize).is_some_and(|s| s.span_id == id);
            self.table.find(self.hasher.hash_one(id.0), same).map(|i| *i as usize)
        };
        found.map(|i| start + i)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spanloom_model::Span;

    #[test]
    fn the_last_of_equal_ids_is_found_whatever_the_size() {
        for n in [3, FEW, FEW + 1, 500] {
            let before = Span { span_id: SpanId(1), ..Span::default() };
            let mut b = Batch { spans: vec![before; 2], ..Batch::default() };
            b.spans.extend((0..n as u64).map(|i| Span { span_id: SpanId(i), ..Span::default() }));
            b.spans.push(Span { span_id: SpanId(1), ..Span::default() });
            let chunk = Chunk { spans: Range32::new(2, b.spans.len()), ..Chunk::default() };
            let mut ids = SpanIds::default();
            // What was read before is forgotten.
            ids.read(&b, &Chunk { spans: Range32::new(0, b.spans.len()), ..Chunk::default() });
            assert_eq!(ids.read(&b, &chunk), 1);
            assert_eq!(ids.position(&b, SpanId(1)), Some(b.spans.len() - 1));
            assert_eq!(ids.position(&b, SpanId(2)), Some(4));
            assert_eq!(ids.position(&b, SpanId(9999)), None);
        }
    }
}
